"""Messages to frames and back.

A frame is one msgpack array: the message's code, then its fields. `decode` is strict: whatever it returns has
the types that `messages` states, all the way down, and `ProtocolError` is the only exception that leaves it,
whatever the bytes.

Three things are not looked at here, and are the node's: what a path, a value or a number means; floats within
a value that are not finite (in a field they are refused); and the inside of an `UpdateField`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgpack

from tega_zmq.errors import InvalidValue, ProtocolError, TooLarge
from tega_zmq.wire import messages
from tega_zmq.wire.fields import name_of, reader
from tega_zmq.wire.messages import AnyMessage

__all__ = [
    "MAX_DEPTH",
    "MAX_FRAME",
    "check",
    "decode",
    "decode_value",
    "encode",
    "encode_value",
    "request_id",
]

MAX_FRAME: Final = 8 * 1024 * 1024
"""Longest frame, in bytes."""

MAX_DEPTH: Final = 256
"""Most containers within one another in a frame, the message itself among them."""

_MAX_SENT: Final = 240
"""The same for messages that sessions send, so that a node can pass on what comes in, with more around it."""

_MAX_VALUE: Final = 200
"""The same for a value that a session sends."""

_SURE: Final = 1024
"""Up to this many bytes a frame may promise elements that it lacks: little is reserved for them."""

_OUTWARDS: Final = 60
"""Codes from here on are sent by nodes only."""

_PLAIN: Final = bytes(set(range(256)) - {*range(0x80, 0xA0), 0xC4, 0xC5, 0xC6, *range(0xDC, 0xE0)})
"""All bytes but those that begin a container or binary data."""

_USUAL: Final = bytes(set(range(256)) - {*range(0x82, 0x90), 0xC4, 0xC5, 0xC6, 0xDE, 0xDF})
"""All bytes but those that begin a map of two keys or more, in which one may come twice, or binary data."""

_READERS: Final = {code: reader(cls) for code, cls in messages.CODES.items()}
_CODE_OF: Final = {cls: code for code, cls in messages.CODES.items()}


# -- bytes to messages -----------------------------------------------------------------------------


def decode(data: bytes, limit: int = MAX_FRAME) -> AnyMessage:
    """Return the message that `data`, one frame, holds.

    Lists within values stay lists; what is annotated as a tuple is one. Fields beyond the known ones are left
    out. Raises `ProtocolError`, and nothing else; it names the message and the field, what was expected and
    what came.
    """
    if len(data) > limit:
        raise ProtocolError(f"a frame of {len(data)} bytes, more than {limit}")
    try:
        if len(data) > _SURE:
            # A list is reserved as long as it says it is. Within a long frame that could be gigabytes, so
            # see first, without making anything, that all that is announced is there.
            whole = msgpack.Unpacker(read_size=len(data), max_buffer_size=limit)
            whole.feed(data)
            whole.skip()
        # Maps and binary data are rare enough that most frames need no second look.
        rare = data.translate(None, _USUAL)
        raw = msgpack.unpackb(
            data,
            strict_map_key=True,
            ext_hook=_refuse_extension,
            max_ext_len=0,
            object_pairs_hook=_mapping if rare else None,
        )
    except Exception as error:  # noqa: BLE001  # of many classes, RecursionError and MemoryError among them
        text = str(error) or type(error).__name__
        raise ProtocolError(f"a frame of {len(data)} bytes is not one valid msgpack object: {text}") from None
    if type(raw) is not list or not raw:
        raise ProtocolError(f"a message is a list that begins with its code, not {name_of(raw)}")
    code = raw[0]
    reader = _READERS.get(code) if type(code) is int else None
    if reader is None:
        raise ProtocolError(
            f"no message has the code {code}" if type(code) is int else f"code: {name_of(code)}"
        )
    if rare or len(data) > _MAX_SENT:
        special = data.translate(None, _PLAIN)
        if len(special) > _MAX_SENT or b"\xc4" in special or b"\xc5" in special or b"\xc6" in special:
            _check_shape(raw, MAX_DEPTH if code >= _OUTWARDS else _MAX_SENT)
    return reader(raw)


def request_id(data: bytes) -> int | None:
    """Return the id of the request in `data`, which `decode` refused, if one can be read; else None.

    For the node, which answers `Failure` with that id. Never raises.
    """
    try:
        unpacker = msgpack.Unpacker(
            read_size=64, strict_map_key=True, ext_hook=_refuse_extension, max_ext_len=0
        )
        unpacker.feed(data[:64])  # the list's header, the code and the id need 15 bytes at most
        if unpacker.read_array_header() < 2:
            return None
        code, number = unpacker.unpack(), unpacker.unpack()
    except Exception:  # noqa: BLE001  # best effort, on bytes of which nothing is known
        return None
    if type(code) is not int or messages.CODES.get(code) not in messages.REQUESTS or type(number) is not int:
        return None
    return number if 0 <= number < 1 << 63 else None


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a map has a key twice")
    return made


def _refuse_extension(code: int, _: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _check_shape(raw: list[Any], deepest: int) -> None:
    """Raise `ProtocolError` for a key that is not text, or for containers more than `deepest` deep."""
    level: list[Any] = [raw]
    for left in range(deepest, 0, -1):
        deeper = False
        below: list[Any] = []
        for each in level:
            children: Iterable[Any] = each
            if type(each) is dict:
                if set(map(type, each)) != _TEXT:
                    raise ProtocolError("the keys of a map must be text")
                children = each.values()
            found = [child for child in children if type(child) in _CONTAINERS]
            if found:
                deeper = True
                below += [child for child in found if child]
        if not deeper:
            return
        if left == 1:
            break
        level = below
    raise ProtocolError(f"more than {deepest} lists and maps within one another")


_TEXT: Final = {str}
_CONTAINERS: Final = frozenset({list, dict, tuple})
_CARRIED: Final = frozenset({*_CONTAINERS, str, int, float, bool, type(None), bytes})


def _is_usual(message: Any, deepest: int) -> bool:
    """Whether `message` has exact types only, text as keys, and at most `deepest` containers in one another.

    If not, that is no fault yet. The numbers and texts in it are not looked at.
    """
    level: list[Any] = [message]
    for _ in range(deepest):
        below: list[Any] = []
        for each in level:
            children: Iterable[Any] = each
            if type(each) is dict:
                if set(map(type, each)) != _TEXT:
                    return False
                children = each.values()
            kinds = set(map(type, children))
            if not kinds <= _CARRIED:
                return False
            if not _CONTAINERS.isdisjoint(kinds):
                below += [child for child in children if child and type(child) in _CONTAINERS]
        if not below:
            return True
        level = below
    return False


# -- messages to bytes -----------------------------------------------------------------------------


def encode(message: AnyMessage, limit: int = MAX_FRAME) -> bytes:
    """Return the frame that carries `message`, of `limit` bytes at most.

    In what sessions send (`Write`, `Publish`, `Call`, `CallAll`, `Report`, `Result`) the values are looked
    through as `check` does. Raises `InvalidValue` for what msgpack cannot carry: an integer beyond 64 bits, a
    lone surrogate, another type, too deep a value, in a value a float that is not finite; `TooLarge` if the
    frame would be longer than `limit`.
    """
    cls = type(message)
    values = _VALUES.get(cls)
    if values is not None and _leaves(message):
        values = None
    try:
        data: bytes = msgpack.packb((_CODE_OF[cls], *message))
    except Exception as error:  # noqa: BLE001  # as many classes as there are reasons
        if values is not None:
            values(message)  # it says where
        raise InvalidValue(f"{cls.__name__} cannot be sent: {_reason(error)}") from None
    if len(data) > limit:
        text = f"{cls.__name__} would be a frame of {len(data)} bytes, more than {limit}"
        raise TooLarge(text, size=len(data), limit=limit)
    if len(data) <= _MAX_SENT:  # it cannot be too deep either
        if values is not None:
            values(message)
        return data
    deep = len(data.translate(None, _PLAIN)) > _MAX_SENT
    if (deep or values is not None) and not _is_usual(tuple(message), _MAX_VALUE):
        if values is not None:
            values(message)
        if deep:
            _check_depth(message, MAX_DEPTH if _CODE_OF[cls] >= _OUTWARDS else _MAX_SENT)
    return data


def encode_value(value: Any) -> bytes:
    """Return `value`, which came from a store, as msgpack."""
    data: bytes = msgpack.packb(value)
    return data


def decode_value(data: bytes) -> Any:
    """Return the value in `data`. Raises `ProtocolError`."""
    try:
        return msgpack.unpackb(data)
    except Exception as error:  # noqa: BLE001  # of many classes
        raise ProtocolError(f"{len(data)} bytes are no msgpack value: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "text that is not valid Unicode"
    if isinstance(error, OverflowError):
        return "an integer beyond 64 bits"
    return str(error) or type(error).__name__


_LEAVES: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""To see that a value is one of these is faster than to see that it holds none."""


def _check_depth(message: AnyMessage, deepest: int) -> None:
    level: list[Any] = [message]
    for _ in range(deepest):
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each)
            if type(child) not in _LEAVES and isinstance(child, (list, tuple, dict))
        ]
        if not level:
            return
    raise InvalidValue(
        f"{type(message).__name__} cannot be sent: more than {deepest} containers in one another"
    )


def check(value: Any, where: str = "the value") -> None:
    """Raise `InvalidValue`, which says where in it, unless `value` can travel and arrive as it is.

    That is: nil, booleans, integers from -2^63 to 2^64-1, finite floats, bytes, valid text, dicts with text
    as keys, lists, and tuples, which arrive as lists; at most 200 containers within one another. `where`
    names the value in the error.
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
        elif isinstance(each, float):
            if each - each != 0.0:
                raise _invalid(f"{each} is not a finite number", where, above)
        elif each is not None and not isinstance(each, bytes):
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


def _sure(value: Any) -> bool:
    """Whether `value` is a leaf that can travel: most are, and this is faster than `check`."""
    kind = type(value)
    if kind is str:
        return value.isascii()  # type: ignore[no-any-return]
    if kind is float:
        return value - value == 0.0  # type: ignore[no-any-return]
    return kind is bool or value is None or (kind is int and -(1 << 63) <= value < 1 << 64)


def _leaves(message: Any) -> bool:
    """Whether all values in `message` are leaves that can travel."""
    kind = type(message)
    if kind is messages.Write:
        return all(_sure(op[2]) for op in message.ops)
    if kind is messages.Call or kind is messages.CallAll:
        return not message.kwargs and all(map(_sure, message.args))
    return _sure(message.value)


def _check_ops(message: Any) -> None:
    for at, op in enumerate(message.ops):
        value = op[2]
        if not _sure(value):
            check(value, f"the value of operation {at}" if len(message.ops) > 1 else "the value")


def _check_arguments(message: Any) -> None:
    if not all(map(_sure, message.args)):
        check(message.args, "args")
    if message.kwargs:
        check(message.kwargs, "kwargs")


def _check_value(message: Any) -> None:
    if not _sure(message.value):
        check(message.value)


_VALUES: Final[dict[type[Any], Callable[[Any], None]]] = {
    messages.Write: _check_ops,
    messages.Publish: _check_value,
    messages.Report: _check_value,
    messages.Result: _check_value,
    messages.Call: _check_arguments,
    messages.CallAll: _check_arguments,
}
