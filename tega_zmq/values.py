"""What a value may be.

A value is null, a bool, an integer of -2^63 to 2^64-1, a finite float, a string of valid Unicode, a list (one
leaf: inside it any JSON) or a dict (a container: its keys are oids). Other types are refused, subclasses and
tuples too: what is stored must come back as it was from log and wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NoReturn

from tega_zmq.errors import InvalidPath, InvalidValue
from tega_zmq.paths import MAX_OID, check_oid

__all__ = ["MAX_CONTAINERS", "MAX_INT", "MIN_INT", "check", "check_passed", "check_root", "same", "size"]

MAX_CONTAINERS: Final = 64
"""How deep dicts and lists may be nested in one value."""

MIN_INT: Final = -(2**63)
MAX_INT: Final = 2**64 - 1


def check(value: Any, path: str = "") -> int:
    """Return the size of `value` in bytes as msgpack, if it may be stored; `path` is what an error names.

    Raises `InvalidValue`, or `InvalidPath` for a key that is no oid, with the place in the value.
    """
    kind = type(value)
    if kind is str:
        return _text(value, path)
    if kind is dict:
        return _container(value, path, 1)
    if kind is list:
        return _list(value, path, 1)
    return _scalar(value, path)


def check_root(value: Any, path: str = "") -> None:
    """Raise `InvalidValue` unless `value` can be a root, which is always a container."""
    if type(value) is not dict:
        raise InvalidValue(
            f"{path or 'a root'}: a root must be a container (a dict), not {_name(value)}", path=path
        )


def check_passed(value: Any, where: str) -> None:
    """Raise `InvalidValue`, which begins with `where`, if a frame could carry `value` and JSON could not.

    That is: if it holds a float that is not finite, or bytes. `value` comes out of a frame, and goes on to
    others without being stored: its keys may be any text. It is no deeper than a frame may be.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return
    level: Any = (value,)
    while level:
        below: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is float:
                if each - each != 0.0:
                    raise InvalidValue(f"{where}: {each} is not a finite number", path=where)
            elif kind is dict:
                below += each.values()
            elif kind is list or kind is tuple:
                below += each
            elif kind is bytes:
                raise InvalidValue(
                    f"{where}: bytes cannot be sent; make them a string, e.g. in base64", path=where
                )
        level = below


def size(value: Any) -> int:
    """Return the size in bytes of `value` as msgpack. `value` must have passed `check`."""
    kind = type(value)
    if kind is str:
        return _str_size(len(value) if value.isascii() else len(value.encode()))
    if kind is dict:
        total = _head(len(value))
        for key, item in value.items():
            total += size(key) + size(item)
        return total
    if kind is list:
        total = _head(len(value))
        for item in value:
            total += size(item)
        return total
    if kind is int:
        return _int_size(value)
    return 9 if kind is float else 1


def same(a: Any, b: Any) -> bool:
    """Tell whether two values are equal strictly: `1`, `1.0` and `True` differ, `0.0` and `-0.0` too."""
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is float:
        return bool(a == b) and (a != 0.0 or str(a) == str(b))
    if kind is list:
        if len(a) != len(b):
            return False
        return all(same(one, other) for one, other in zip(a, b, strict=True))
    if kind is dict:
        if len(a) != len(b):
            return False
        return all(key in b and same(one, b[key]) for key, one in a.items())
    return bool(a == b)


def _text(value: str, path: str) -> int:
    if value.isascii():
        return _str_size(len(value))
    try:
        return _str_size(len(value.encode()))
    except UnicodeEncodeError as error:
        raise InvalidValue(
            f"{path or 'the value'}: character {error.start} of the string is a lone surrogate, "
            "which is no valid Unicode",
            path=path,
        ) from None


def _scalar(value: Any, path: str) -> int:
    kind = type(value)
    if kind is int:
        if MIN_INT <= value <= MAX_INT:
            return _int_size(value)
        # The number itself may be huge, and its text costs quadratic time.
        raise InvalidValue(
            f"{path or 'the value'}: an integer of {value.bit_length()} bits is out of range; "
            "-2^63 to 2^64-1 is allowed",
            path=path,
        )
    if value is None or kind is bool:
        return 1
    if kind is float:
        # Infinity minus itself, and NaN, are not equal to zero.
        if value - value == 0.0:
            return 9
        raise InvalidValue(f"{path or 'the value'}: {value} is not a finite number", path=path)
    raise _refusal(value, path)


def _refusal(value: Any, path: str) -> InvalidValue:
    hint = ""
    if isinstance(value, tuple):
        hint = "; make it a list"
    elif isinstance(value, (bytes, bytearray, memoryview)):
        hint = "; make it a string, e.g. in base64"
    elif isinstance(value, (int, float, str, dict, list)):
        hint = f"; convert it to a plain {next(t.__name__ for t in _PLAIN if isinstance(value, t))}"
    return InvalidValue(
        f"{path or 'the value'}: {_name(value)} cannot be stored, only null, bool, integer, float, string, "
        f"list and dict{hint}",
        path=path,
    )


_PLAIN = (bool, int, float, str, dict, list)


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _container(value: dict[Any, Any], path: str, depth: int) -> int:
    if depth > MAX_CONTAINERS:
        _too_deep(path)
    total = _head(len(value))
    for oid, item in value.items():
        if type(oid) is not str or not oid or oid[0] == "_" or len(oid) > MAX_OID or not oid.isascii():
            _key(oid, path)
            total += _str_size(len(oid.encode()))
        else:
            length = len(oid)
            total += length + (1 if length < 32 else 2)
        kind = type(item)
        if kind is str and item.isascii():
            length = len(item)
            total += length + (1 if length < 32 else 2 if length < 256 else 3 if length < 65536 else 5)
            continue
        if kind is dict:
            total += _container(item, f"{path}.{oid}" if path else oid, depth + 1)
        elif kind is list:
            total += _list(item, f"{path}.{oid}" if path else oid, depth + 1)
        elif kind is str:
            total += _text(item, f"{path}.{oid}" if path else oid)
        elif kind is bool or item is None:
            total += 1
        else:
            total += _scalar(item, f"{path}.{oid}" if path else oid)
    return total


def _key(oid: Any, path: str) -> None:
    whole = f"{path}.{oid}" if path and type(oid) is str else path
    try:
        check_oid(oid, whole)
    except InvalidPath as error:
        if type(oid) is str:
            raise
        raise InvalidPath(
            f"{path or 'the value'}: a key must be a string, not {_name(oid)} ({ascii(oid)[:64]}); "
            "put it in quotes",
            path=error.path,
        ) from None


def _list(value: list[Any], path: str, depth: int) -> int:
    if depth > MAX_CONTAINERS:
        _too_deep(path)
    try:
        return _json(value, depth)
    except (_Unusual, UnicodeEncodeError):  # look again, with the place of each part at hand
        return sum([_inside(item, path, index, depth) for index, item in enumerate(value)], _head(len(value)))


class _Unusual(Exception):
    """A part of a list may not be stored."""


def _json(value: list[Any] | dict[str, Any], depth: int) -> int:
    """Check a list or what is in one, without knowing where what is wrong stands: several times as fast."""
    if depth > MAX_CONTAINERS:
        raise _Unusual
    total = _head(len(value))
    items: Iterable[Any] = value
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                raise _Unusual
            total += _str_size(len(key) if key.isascii() else len(key.encode()))
        items = value.values()
    for item in items:
        kind = type(item)
        if kind is str:
            total += _str_size(len(item) if item.isascii() else len(item.encode()))
        elif kind is list or kind is dict:
            total += _json(item, depth + 1)
        elif kind is int:
            if not MIN_INT <= item <= MAX_INT:
                raise _Unusual
            total += _int_size(item)
        elif item is None or kind is bool:
            total += 1
        elif kind is float and item - item == 0.0:
            total += 9
        else:
            raise _Unusual
    return total


def _map(value: dict[Any, Any], path: str, depth: int) -> int:
    """Check a dict inside a list: any string may be a key."""
    if depth > MAX_CONTAINERS:
        _too_deep(path)
    total = _head(len(value))
    for key, item in value.items():
        if type(key) is not str:
            raise InvalidValue(
                f"{path}: a key must be a string, not {_name(key)} ({ascii(key)[:64]})", path=path
            )
        total += _text(key, f"{path}[{ascii(key)[:64]}]") + _inside(item, path, key, depth)
    return total


def _inside(item: Any, path: str, key: int | str, depth: int) -> int:
    kind = type(item)
    if kind is str:
        if item.isascii():
            return _str_size(len(item))
        return _text(item, _place(path, key))
    if kind is int or kind is float or kind is bool or item is None:
        return _scalar(item, path)
    if kind is list:
        return _list(item, _place(path, key), depth + 1)
    if kind is dict:
        return _map(item, _place(path, key), depth + 1)
    raise _refusal(item, _place(path, key))


def _place(path: str, key: int | str) -> str:
    return f"{path}[{ascii(key)[:64]}]"


def _too_deep(path: str) -> NoReturn:
    shown = path if len(path) <= 100 else f"{path[:100]}..."
    raise InvalidValue(f"{shown}: more than {MAX_CONTAINERS} dicts and lists in one another", path=shown)


def _str_size(length: int) -> int:
    return length + (1 if length < 32 else 2 if length < 256 else 3 if length < 65536 else 5)


def _head(length: int) -> int:
    return 1 if length < 16 else 3 if length < 65536 else 5


def _int_size(value: int) -> int:
    if value >= 0:
        return 1 if value < 128 else 2 if value < 256 else 3 if value < 65536 else 5 if value < 2**32 else 9
    return (
        1 if value >= -32 else 2 if value >= -128 else 3 if value >= -32768 else 5 if value >= -(2**31) else 9
    )
