"""Messages to frames and back.

A frame is one msgpack array: the message's code, then its fields. `decode` is strict: whatever it returns has
the types that `messages` states, all the way down, and `ProtocolError` is the only exception that leaves it,
whatever the bytes.

Three things are not looked at here, and are the node's: what a path, a value or a number means; floats that
are not finite, within a value (those of fields are refused); and the inside of an `UpdateField`.

How it is fast: the types of all fields of a message are compared at once, by looking up the tuple of their
types in the set of those that are allowed, which is made from the annotations at import. Only where that does
not say enough (ranges, sequences) a further step runs, and only once something is wrong the fault is located.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from types import NoneType
from typing import Any, Final, NamedTuple, TypeAlias, cast, get_args, get_origin, get_type_hints

import msgpack

from tega_zmq.errors import InvalidValue, ProtocolError, TooLarge
from tega_zmq.wire import messages
from tega_zmq.wire.messages import AnyMessage

__all__ = ["MAX_DEPTH", "MAX_FRAME", "check", "decode", "encode", "request_id"]

MAX_FRAME: Final = 8 * 1024 * 1024
"""Longest frame, in bytes."""

MAX_DEPTH: Final = 256
"""Most containers within one another in a frame, the message itself among them."""

_MAX_SENT: Final = 240
"""The same for messages that sessions send: what comes in can always be passed on with something around it."""

_MAX_VALUE: Final = 200
"""The same for a value that a session sends."""

_SURE: Final = 1024
"""Up to this many bytes a frame may promise elements that it lacks: little is reserved for them."""

_OUTWARDS: Final = 60
"""Codes from here on are sent by nodes only."""

_PLAIN: Final = bytes(set(range(256)) - {*range(0x80, 0xA0), 0xC4, 0xC5, 0xC6, *range(0xDC, 0xE0)})
"""All bytes but those that begin a container or binary data."""

_PLAIN_TYPES: Final = (NoneType, bool, int, float, str, bytes, list, dict)
"""What a value is made of when it comes out of msgpack."""


_NAMES: Final[dict[type, str]] = {
    bool: "a boolean",
    float: "a float",
    str: "text",
    bytes: "binary data",
    list: "a list",
    dict: "a map",
}


# -- what a field may be ---------------------------------------------------------------------------


class _Misfit(Exception):
    """A message does not fit its type. Where, is found out by `_Kind.fault`."""


class _Kind(NamedTuple):
    """One annotation, made ready for checking."""

    types: tuple[type, ...]
    """The types that may come out of msgpack."""
    refine: Callable[[Any], Any] | None
    """Makes the value of the field, or raises `_Misfit`; None: the type says it all."""
    fault: Callable[[Any], str]
    """Says what is wrong with a value, beginning with where in it; empty if nothing is."""


def _name(value: Any) -> str:
    """Describe what came, for an error."""
    if value is None:
        return "nil"
    if type(value) is int:
        return f"the integer {value}"
    return _NAMES[type(value)]


def _scalar(expected: str, *types: type) -> _Kind:
    def fault(value: Any) -> str:
        return "" if type(value) in types else f": expected {expected}, got {_name(value)}"

    return _Kind(types, None, fault)


def _checked(kind: _Kind, expected: str, fits: Callable[[Any], bool]) -> _Kind:
    """Return `kind` narrowed to what `fits`."""

    def refine(value: Any) -> Any:
        if fits(value):
            return value
        raise _Misfit

    def fault(value: Any) -> str:
        return kind.fault(value) or ("" if fits(value) else f": expected {expected}, got {_name(value)}")

    return _Kind(kind.types, refine, fault)


def _float() -> _Kind:
    kind = _scalar("a finite number", float, int)

    def refine(value: float) -> float:
        if value - value == 0:
            return float(value)
        raise _Misfit

    def fault(value: Any) -> str:
        return kind.fault(value) or ("" if value - value == 0 else ": expected a finite number")

    return _Kind(kind.types, refine, fault)


def _refined(kind: _Kind, value: Any) -> Any:
    """Return the value of `kind` that `value` stands for, or raise `_Misfit`."""
    if type(value) not in kind.types:
        raise _Misfit
    return value if kind.refine is None else kind.refine(value)


def _sequence(kind: _Kind) -> _Kind:
    """A list of `kind` of any length."""
    if kind == _ANY:
        refine: Callable[[Any], Any] = tuple
    elif kind == _TEXT:

        def refine(value: list[Any]) -> tuple[Any, ...]:
            try:
                "".join(value)  # the fastest way to see that all are text
            except TypeError:
                raise _Misfit from None
            return tuple(value)
    elif kind.types == (list,) and kind.refine is not None:
        part = kind.refine

        def refine(value: list[Any]) -> tuple[Any, ...]:
            return tuple([part(each) if type(each) is list else _misfit() for each in value])
    else:

        def refine(value: list[Any]) -> tuple[Any, ...]:
            return tuple([_refined(kind, each) for each in value])

    def fault(value: Any) -> str:
        if type(value) is not list:
            return f": expected a list, got {_name(value)}"
        return next((f"[{at}]{wrong}" for at, each in enumerate(value) if (wrong := kind.fault(each))), "")

    return _Kind((list,), refine, fault)


def _misfit() -> Any:
    raise _Misfit


def _fixed(kinds: tuple[_Kind, ...]) -> _Kind:
    """A list of exactly these, in this order."""
    allowed = frozenset(product(*(kind.types for kind in kinds)))
    steps = tuple((at, kind.refine) for at, kind in enumerate(kinds) if kind.refine is not None)

    def refine(value: list[Any]) -> tuple[Any, ...]:
        if tuple(map(type, value)) not in allowed:
            raise _Misfit
        made = value.copy()  # what came is kept for `fault`
        for at, step in steps:
            made[at] = step(made[at])
        return tuple(made)

    def fault(value: Any) -> str:
        if type(value) is not list or len(value) != len(kinds):
            got = f"one of {len(value)}" if type(value) is list else _name(value)
            return f": expected a list of {len(kinds)}, got {got}"
        faults = (kind.fault(each) for kind, each in zip(kinds, value, strict=True))
        return next((f"[{at}]{wrong}" for at, wrong in enumerate(faults) if wrong), "")

    return _Kind((list,), refine, fault)


def _zero_or_one() -> _Kind:
    def refine(value: list[Any]) -> tuple[Any, ...]:
        return tuple(value) if len(value) <= 1 else _misfit()

    def fault(value: Any) -> str:
        if type(value) is list and len(value) <= 1:
            return ""
        got = f"one of {len(value)}" if type(value) is list else _name(value)
        return f": expected a list of at most one value, got {got}"

    return _Kind((list,), refine, fault)


_ANY: Final = _scalar("a value", *_PLAIN_TYPES)
_TEXT: Final = _scalar("text", str)
_INT: Final = _checked(
    _scalar("an integer", int), "an integer from -2^63 to 2^63-1", lambda value: -(1 << 63) <= value < 1 << 63
)
_COUNT: Final = _checked(
    _scalar("an integer", int), "an integer from 0 to 2^63-1", lambda value: not value >> 63
)
_INT_OR_NIL: Final = _checked(
    _scalar("an integer or nil", int, NoneType),
    "an integer from -2^63 to 2^63-1",
    lambda value: value is None or -(1 << 63) <= value < 1 << 63,
)
_NAMED: Final[dict[Any, _Kind]] = {
    Any: _ANY,
    str: _TEXT,
    bytes: _scalar("binary data", bytes),
    bool: _scalar("a boolean", bool),
    float: _float(),
    int: _INT,
    messages.Count: _COUNT,
    int | None: _INT_OR_NIL,
    dict[str, Any]: _scalar("a map", dict),
    messages.Maybe: _zero_or_one(),
}


def _kind(annotation: Any) -> _Kind:
    """Return how a field with this annotation is checked."""
    if annotation in _NAMED:
        return _NAMED[annotation]
    if get_origin(annotation) is not tuple:
        raise TypeError(f"no check for a field of type {annotation}")
    parts = get_args(annotation)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return _sequence(_kind(parts[0]))
    return _fixed(tuple(map(_kind, parts)))


# -- one reader a message --------------------------------------------------------------------------


def _reader(cls: type[Any]) -> Callable[[list[Any]], AnyMessage]:
    """Return the function that makes a `cls` of a list (code first), or raises `ProtocolError`."""
    hints = get_type_hints(cls, include_extras=True)
    names = ("code", *hints)
    kinds = (_COUNT, *map(_kind, hints.values()))
    size = len(kinds)
    allowed = frozenset(product(*(kind.types for kind in kinds)))
    is_request = cls in messages.REQUESTS
    first = 4 if is_request else 1
    steps = tuple(
        (at, kind.refine) for at, kind in enumerate(kinds) if at >= first and kind.refine is not None
    )
    new = tuple.__new__

    def read(raw: list[Any]) -> AnyMessage:
        if len(raw) > size:
            del raw[size:]
        try:
            if tuple(map(type, raw)) not in allowed:
                raise _Misfit
            # Negative if one is negative, and not 0 if one has more than 63 bits.
            if is_request and (raw[1] | raw[2] | raw[3]) >> 63:
                raise _Misfit
            for at, step in steps:
                raw[at] = step(raw[at])
        except _Misfit:
            raise explained(raw) from None
        del raw[0]
        return cast(AnyMessage, new(cls, raw))

    def explained(raw: list[Any]) -> ProtocolError:
        if len(raw) < size:
            return ProtocolError(
                f"{cls.__name__}: {len(raw) - 1} fields, expected {size - 1}: no {names[len(raw)]}"
            )
        for name, kind, value in zip(names, kinds, raw, strict=True):
            # A step before the one that failed may have made a tuple already: then it is right.
            if type(value) is not tuple and (wrong := kind.fault(value)):
                return ProtocolError(f"{cls.__name__}.{name}{wrong}")
        raise AssertionError(f"{cls.__name__}: refused without a fault: {raw!r}")

    return read


_READERS: Final = {code: _reader(cls) for code, cls in messages.CODES.items()}
_CODE_OF: Final = {cls: code for code, cls in messages.CODES.items()}


# -- bytes to messages -----------------------------------------------------------------------------


def decode(data: bytes) -> AnyMessage:
    """Return the message that `data`, one frame, holds.

    Lists within values stay lists; what is annotated as a tuple is one. Fields beyond the known ones are left
    out. Raises `ProtocolError`, and nothing else, which names the message and the field, what was expected and
    what came.
    """
    if len(data) > MAX_FRAME:
        raise ProtocolError(f"a frame of {len(data)} bytes, more than {MAX_FRAME}")
    try:
        if len(data) > _SURE:
            # A list is reserved as long as it says it is. Within a long frame that could be gigabytes, so
            # see first, without making anything, that all that is announced is there.
            whole = msgpack.Unpacker(max_buffer_size=MAX_FRAME)
            whole.feed(data)
            whole.skip()
        raw = msgpack.unpackb(data, strict_map_key=True, ext_hook=_refuse_extension, max_ext_len=0)
    except Exception as error:
        # What msgpack raises is of many classes, RecursionError and MemoryError among them.
        text = str(error) or type(error).__name__
        raise ProtocolError(f"a frame of {len(data)} bytes is not one valid msgpack object: {text}") from None
    if type(raw) is not list or not raw:
        raise ProtocolError(f"a message is a list that begins with its code, not {_name(raw)}")
    code = raw[0]
    reader = _READERS.get(code) if type(code) is int else None
    if reader is None:
        raise ProtocolError(
            f"no message has the code {code}" if type(code) is int else f"code: {_name(code)}"
        )
    # Containers and binary data are rare enough that most frames need no second look.
    special = data.translate(None, _PLAIN)
    if len(special) > _MAX_SENT or b"\xc4" in special or b"\xc5" in special or b"\xc6" in special:
        _check_shape(raw, MAX_DEPTH if code >= _OUTWARDS else _MAX_SENT)
    return reader(raw)


def request_id(data: bytes) -> int | None:
    """Return the id of the request in `data`, which `decode` refused, if one can be read; else None.

    For the node, which answers `Failure` with that id. Never raises.
    """
    try:
        unpacker = msgpack.Unpacker(strict_map_key=True, ext_hook=_refuse_extension, max_ext_len=0)
        unpacker.feed(data[:64])
        if unpacker.read_array_header() < 2:
            return None
        code, number = unpacker.unpack(), unpacker.unpack()
    except Exception:
        return None
    if type(code) is not int or messages.CODES.get(code) not in messages.REQUESTS or type(number) is not int:
        return None
    return number if 0 <= number < 1 << 63 else None


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _check_shape(raw: list[Any], deepest: int) -> None:
    """Raise `ProtocolError` for a key that is not text, or for more containers in one another than `deepest`."""
    level: list[Any] = [raw]
    for _ in range(deepest):
        below: list[Any] = []
        for each in level:
            children: Iterable[Any] = each
            if type(each) is dict:
                if not all(type(key) is str for key in each):
                    raise ProtocolError("the keys of a map must be text")
                children = each.values()
            below += [child for child in children if type(child) is list or type(child) is dict]
        if not below:
            return
        level = below
    raise ProtocolError(f"more than {deepest} lists and maps within one another")


# -- messages to bytes -----------------------------------------------------------------------------


def encode(message: AnyMessage) -> bytes:
    """Return the frame that carries `message`.

    In what sessions send (`Write`, `Publish`, `Call`, `CallAll`, `Report`, `Result`) the values are looked
    through as `check` does. Raises `InvalidValue` for what msgpack cannot carry: an integer beyond 64 bits, a
    lone surrogate, another type, too deep a value; `TooLarge` if the frame would be longer than `MAX_FRAME`.
    """
    cls = type(message)
    values = _VALUES.get(cls)
    if values is not None:
        values(message)
    try:
        data: bytes = msgpack.packb((_CODE_OF[cls], *message))
    except Exception as error:
        raise InvalidValue(f"{cls.__name__} cannot be sent: {_reason(error)}") from None
    if len(data) > MAX_DEPTH:
        if len(data) > MAX_FRAME:
            text = f"{cls.__name__} would be a frame of {len(data)} bytes, more than {MAX_FRAME}"
            raise TooLarge(text, size=len(data), limit=MAX_FRAME)
        if len(data.translate(None, _PLAIN)) > _MAX_SENT:
            _check_depth(message, MAX_DEPTH if _CODE_OF[cls] >= _OUTWARDS else _MAX_SENT)
    return data


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "text that is not valid Unicode"
    if isinstance(error, OverflowError):
        return "an integer beyond 64 bits"
    if isinstance(error, RecursionError):
        return "too many containers within one another"
    return str(error) or type(error).__name__


def _check_depth(message: AnyMessage, deepest: int) -> None:
    level: list[Any] = [message]
    for _ in range(deepest):
        below: list[Any] = []
        for each in level:
            children = each.values() if isinstance(each, dict) else each
            below += [child for child in children if isinstance(child, (list, tuple, dict))]
        if not below:
            return
        level = below
    raise InvalidValue(
        f"{type(message).__name__} cannot be sent: more than {deepest} containers in one another"
    )


def check(value: Any, where: str = "the value") -> None:
    """Raise `InvalidValue`, which says where in it, unless `value` can travel and arrive as it is.

    That is: nil, booleans, integers from -2^63 to 2^64-1, floats, bytes, valid text, dicts with text as keys,
    lists, and tuples, which arrive as lists; at most 200 containers within one another. `where` names the
    value in the error.
    """
    # Depth first, so that a value that holds itself ends at the bound.
    stack: list[tuple[Any, _Above]] = [(value, None)]
    while stack:
        each, above = stack.pop()
        if isinstance(each, str):
            _check_text(each, where, above)
        elif isinstance(each, int):
            if not -(1 << 63) <= each < 1 << 64:
                raise _invalid("an integer beyond 64 bits", where, above)
        elif isinstance(each, (dict, list, tuple)):
            depth = above[0] + 1 if above else 1
            if depth > _MAX_VALUE:
                raise _invalid(f"more than {_MAX_VALUE} containers within one another", where, None)
            for key, child in each.items() if isinstance(each, dict) else enumerate(each):
                here = (depth, key, above)
                if isinstance(each, dict):
                    if not isinstance(key, str):
                        raise _invalid(f"a key must be text, not {type(key).__name__}", where, here)
                    _check_text(key, where, here)
                if child is not None and type(child) is not bool:
                    stack.append((child, here))
        elif each is not None and not isinstance(each, (float, bytes)):
            raise _invalid(f"a value cannot be of type {type(each).__name__}", where, above)


_Above: TypeAlias = "tuple[int, Any, _Above] | None"
"""Where in a value: depth, key or index, and the same of the container."""


def _check_text(text: str, where: str, above: _Above) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _invalid("text that is not valid Unicode", where, above) from None


def _invalid(what: str, where: str, above: _Above) -> InvalidValue:
    keys = []
    while above is not None:
        _, key, above = above
        keys.append(ascii(key)[:64])
    place = where + "".join(f"[{key}]" for key in reversed(keys))
    return InvalidValue(f"{place}: {what}", path=place)


def _check_ops(message: Any) -> None:
    for at, op in enumerate(message.ops):
        value = op[2]
        if type(value) is not str or not value.isascii():
            check(value, f"the value of operation {at}" if len(message.ops) > 1 else "the value")


def _check_arguments(message: Any) -> None:
    check(message.args, "args")
    check(message.kwargs, "kwargs")


def _check_value(message: Any) -> None:
    check(message.value)


_VALUES: Final[dict[type[Any], Callable[[Any], None]]] = {
    messages.Write: _check_ops,
    messages.Publish: _check_value,
    messages.Report: _check_value,
    messages.Result: _check_value,
    messages.Call: _check_arguments,
    messages.CallAll: _check_arguments,
}
