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

from msgpack import Packer, Unpacker, unpackb

from tega_zmq.errors import InvalidValue, ProtocolError, TooLarge
from tega_zmq.wire import messages
from tega_zmq.wire.fields import Quick, Reader, name_of, reader
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

_MAPS: Final = bytes([*range(0x82, 0x90), 0xDE, 0xDF])
"""The bytes that begin a map of two keys or more, in which one may come twice."""

_USUAL: Final = bytes(set(range(256)) - {*_MAPS, *range(0xC4, 0xCA), *range(0xD4, 0xD9)})
"""All bytes but these and those that begin binary data or an extension."""

_LEAVES: Final[frozenset[type]] = frozenset({str, int, float, bool, bytes, type(None)})
"""What a value that holds no others can be."""

_PACKED: Final = _LEAVES - {float}
"""A value of one of these types can travel if it could be packed; a float may not be finite."""


class _Readers(dict[int, Reader]):
    """What reads the messages of each code, made when the first of them comes.

    A program meets few of them, and to make all is a good part of the start of a short one.
    """

    def __missing__(self, code: int) -> Reader:
        self[code] = made = reader(messages.CODES[code])
        return made


class _Quick(dict[int, Quick]):
    """The quick part of these, at hand for each frame."""

    def __missing__(self, code: int) -> Quick:
        self[code] = quick = _READERS[code].quick
        return quick


_READERS: Final = _Readers()
_QUICK: Final = _Quick()


# -- bytes to messages -----------------------------------------------------------------------------


def decode(data: bytes, limit: int = MAX_FRAME) -> AnyMessage:
    """Return the message that `data`, one frame, holds.

    Lists within values stay lists; what is annotated as a tuple is one. Fields beyond the known ones are left
    out. Raises `ProtocolError`, and nothing else; it names the message and the field, what was expected and
    what came.
    """
    # Most frames are short, have the known fields, and hold no list or map in which something could stand
    # that is not allowed. What is not sure here, right or wrong, is left to `_careful`.
    if len(data) <= _SURE <= limit:
        try:
            if data[0] >> 4 == 9:  # a list of less than 16, so that the next byte is the code
                read = _QUICK[data[1]]
                raw = unpackb(data)
                message = read(raw, _LEAVES)
                if message is None and (
                    len(data) <= _MAX_SENT or len(data.translate(None, _PLAIN)) <= _MAX_SENT
                ):
                    rare = data.translate(None, _USUAL)
                    # What packs to the same bytes has lost no key that came twice.
                    if not rare or (not rare.strip(_MAPS) and Packer().pack(raw) == data):
                        message = read(raw, None)
                if message is not None:
                    return message
        except Exception:  # noqa: BLE001, S110  # of many classes; what is wrong, is told below
            pass
    return _careful(data, limit)


def _careful(data: bytes, limit: int) -> AnyMessage:
    """Do what `decode` does, with any frame."""
    if len(data) > limit:
        raise ProtocolError(f"a frame of {len(data)} bytes, more than {limit}")
    try:
        if len(data) > _SURE:
            # A list is reserved as long as it says it is. Within a long frame that could be gigabytes, so
            # see first, without making anything, that all that is announced is there.
            whole = Unpacker(read_size=len(data), max_buffer_size=limit)
            whole.feed(data)
            whole.skip()
        rare = data.translate(None, _USUAL)
        raw: Any = None
        sure = False
        try:
            raw = unpackb(data, ext_hook=_refuse_extension, max_ext_len=0)
            # As above; it is faster than a look at each map when it is made.
            sure = not rare or Packer().pack(raw) == data
        except Exception:  # noqa: BLE001, S110  # which of its faults is the first, is told below
            pass
        if not sure:
            hook = _mapping if rare else None
            raw = unpackb(data, ext_hook=_refuse_extension, max_ext_len=0, object_pairs_hook=hook)
    except Exception as error:  # noqa: BLE001  # of many classes, RecursionError and MemoryError among them
        text = str(error) or type(error).__name__
        raise ProtocolError(f"a frame of {len(data)} bytes is not one valid msgpack object: {text}") from None
    if type(raw) is not list or not raw:
        raise ProtocolError(f"a message is a list that begins with its code, not {name_of(raw)}")
    code = raw[0]
    if type(code) is not int or code not in messages.CODES:
        raise ProtocolError(
            f"no message has the code {code}" if type(code) is int else f"code: {name_of(code)}"
        )
    if rare or len(data) > _MAX_SENT:
        special = data.translate(None, _PLAIN)
        if len(special) > _MAX_SENT or b"\xc4" in special or b"\xc5" in special or b"\xc6" in special:
            _check_shape(raw, MAX_DEPTH if code >= _OUTWARDS else _MAX_SENT)
    return _READERS[code].explaining(raw)


def request_id(data: bytes) -> int | None:
    """Return the id of the request in `data`, which `decode` refused, if one can be read; else None.

    For the node, which answers `Failure` with that id. Never raises.
    """
    try:
        unpacker = Unpacker(read_size=64, strict_map_key=True, ext_hook=_refuse_extension, max_ext_len=0)
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


def _is_usual(value: Any, deepest: int, fit: frozenset[type]) -> bool:
    """Whether `value`, a container that could be packed, can travel, as far as that is seen quickly.

    That is: its containers have exact types, hold leaves of the types `fit` or finite floats, and at most
    `deepest` of them stand within one another, not counting empty ones.
    """
    level: list[Any] = [value]
    try:
        for _ in range(deepest):
            below: list[Any] = []
            for each in level:
                children: Iterable[Any] = each
                if type(each) is dict:
                    "".join(each)  # a `TypeError` if one key is no text
                    children = each.values()
                for child in children:
                    kind = type(child)
                    if kind in fit:
                        continue
                    if kind in _CONTAINERS:
                        if child:
                            below.append(child)
                    elif kind is not float or child - child != 0.0:
                        return False
            if not below:
                return True
            level = below
    except TypeError:
        pass
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
    try:
        code, look = _SENT[cls]
        # A new packer each time: the collector, and so any code, may run in the middle of this and pack, too.
        data: bytes = Packer().pack(code + message)
    except Exception as error:  # noqa: BLE001  # as many classes as there are reasons
        if cls in _LOOKS:
            _LOOKS[cls](message, frozenset())  # it says where
        raise InvalidValue(f"{cls.__name__} cannot be sent: {_reason(error)}") from None
    size = len(data)
    if size > limit:
        text = f"{cls.__name__} would be a frame of {size} bytes, more than {limit}"
        raise TooLarge(text, size=size, limit=limit)
    if size <= _MAX_SENT:  # it cannot be too deep either
        if look is not None:
            look(message, _PACKED)
        return data
    deep = len(data.translate(None, _PLAIN)) > _MAX_SENT
    fit = _LEAVES if look is None else _PACKED
    if (deep or look is not None) and not _is_usual(message, _MAX_VALUE, fit):
        if look is not None:
            look(message, _PACKED)
        if deep:
            _check_depth(message, MAX_DEPTH if code[0] >= _OUTWARDS else _MAX_SENT)
    return data


def encode_value(value: Any) -> bytes:
    """Return `value`, which came from a store, as msgpack."""
    data: bytes = Packer().pack(value)
    return data


def decode_value(data: bytes) -> Any:
    """Return the value in `data`. Raises `ProtocolError`."""
    try:
        return unpackb(data)
    except Exception as error:  # noqa: BLE001  # of many classes
        raise ProtocolError(f"{len(data)} bytes are no msgpack value: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "text that is not valid Unicode"
    if isinstance(error, OverflowError):
        return "an integer beyond 64 bits"
    return str(error) or type(error).__name__


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


# -- the values in what sessions send --------------------------------------------------------------
#
# Each of these functions takes a message and the types of the values that need no look: `_PACKED` if it could
# be packed, else none.


def _look(value: Any, where: str, fit: frozenset[type]) -> None:
    """Do what `check` does; faster if `value` could be packed."""
    if fit:
        kind = type(value)
        if kind is float:
            if value - value == 0.0:
                return
        elif kind in _CONTAINERS and _is_usual(value, _MAX_VALUE - 1, fit):
            return
    check(value, where)


def _look_at_ops(message: Any, fit: frozenset[type]) -> None:
    for at, op in enumerate(message.ops):
        value = op[2]
        if type(value) not in fit:
            _look(value, f"the value of operation {at}" if len(message.ops) > 1 else "the value", fit)


def _look_at_arguments(message: Any, fit: frozenset[type]) -> None:
    for value in message.args:
        if type(value) not in fit:
            _look(message.args, "args", fit)
            break
    if message.kwargs:
        _look(message.kwargs, "kwargs", fit)


def _look_at_value(message: Any, fit: frozenset[type]) -> None:
    if type(message.value) not in fit:
        _look(message.value, "the value", fit)


_LOOKS: Final[dict[type[Any], Callable[[Any, frozenset[type]], None]]] = {
    messages.Write: _look_at_ops,
    messages.Publish: _look_at_value,
    messages.Report: _look_at_value,
    messages.Result: _look_at_value,
    messages.Call: _look_at_arguments,
    messages.CallAll: _look_at_arguments,
}

_SENT: Final = {cls: ((code,), _LOOKS.get(cls)) for code, cls in messages.CODES.items()}
"""What stands before the fields of a message, and what looks at its values."""
