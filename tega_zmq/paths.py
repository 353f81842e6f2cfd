"""Paths: from a root down to a node.

A `Path` is a tuple of oids, the root first. In text, oids are joined by dots: `inventory.pi1.mtu`. An oid
that holds a dot, a quote, a backslash, white space, `@` or a control character is quoted:
`net."eth0.100".mtu`; in quotes a backslash stands before a quote or a backslash.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from tega_zmq.errors import InvalidPath

__all__ = [
    "MAX_DEPTH",
    "MAX_OID",
    "SCHEMAS",
    "Path",
    "check",
    "check_oid",
    "format_oid",
    "format_path",
    "parse",
]

Path = tuple[str, ...]

MAX_OID = 255
"""Longest oid, in characters."""

MAX_DEPTH = 64
"""Most oids in a path."""

SCHEMAS = "_schema"
"""The root of the schemas: the one reserved name that users write to."""

_PLAIN = re.compile(r'[^\s."\\@\x00-\x1f\x7f]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def check_oid(oid: Any, whole: str) -> str:
    """Return `oid` if it can be one key of the tree; `whole` is what an error names.

    Raises `InvalidPath`: not a string, empty, longer than `MAX_OID`, reserved (starts with `_`), or not
    encodable as UTF-8 (a lone surrogate).
    """
    if type(oid) is not str:
        raise InvalidPath(f"{whole}: an oid must be a string, not {type(oid).__name__}", path=whole)
    if not oid:
        raise InvalidPath(f"{whole or 'empty path'}: an oid must not be empty", path=whole)
    if oid[0] == "_":
        raise InvalidPath(f"{whole}: {oid} is reserved, as all names that start with _", path=whole)
    if len(oid) > MAX_OID:
        raise InvalidPath(
            f"an oid has {len(oid)} characters, more than {MAX_OID}: {oid[:32]}...", path=oid[:32]
        )
    if not oid.isascii():
        try:
            oid.encode()
        except UnicodeEncodeError:
            raise InvalidPath(f"{whole!a}: an oid must be valid Unicode", path=ascii(whole)) from None
    return oid


def check(path: Any) -> Path:
    """Return `path` as a `Path` if every part is an oid. Raises `InvalidPath`."""
    if type(path) is not tuple:
        if not isinstance(path, (tuple, list)):
            raise InvalidPath(
                f"a path is a sequence of oids, not {type(path).__name__}", path=ascii(path)[:64]
            )
        path = tuple(path)
    try:
        return _check_tuple(path)
    except TypeError:  # an oid that is no text cannot be joined, or not even hashed
        raise _not_text(path) from None


@lru_cache(maxsize=4096)
def _check_tuple(path: Path) -> Path:
    if not path:
        raise InvalidPath("empty path: name at least a root", path="")
    if len(path) > MAX_DEPTH:
        raise InvalidPath(f"a path of {len(path)} oids; at most {MAX_DEPTH} are allowed", path=path[0][:64])
    whole = ".".join(path)
    for oid in path[1:] if path[0] == SCHEMAS else path:
        check_oid(oid, whole)
    return path


def _not_text(path: tuple[Any, ...]) -> InvalidPath:
    wrong = next(oid for oid in path if not isinstance(oid, str))
    return InvalidPath(f"an oid must be a string, not {type(wrong).__name__}", path=ascii(path)[:64])


@lru_cache(maxsize=4096)
def parse(text: str) -> Path:
    """Return the path that `text` names. Raises `InvalidPath` with what is wrong and where.

    >>> parse('net."eth0.100".mtu')
    ('net', 'eth0.100', 'mtu')
    """
    if type(text) is not str:
        raise InvalidPath(f"a path is text, not {type(text).__name__}", path=ascii(text)[:64])
    if not text:
        raise InvalidPath("empty path: name at least a root", path="")
    oids: list[str] = []
    at = 0
    while True:
        if at < len(text) and text[at] == '"':
            match = _QUOTED.match(text, at)
            if not match:
                raise InvalidPath(f"{text}: the quote at column {at + 1} is not closed", path=text)
            oids.append(re.sub(r"\\(.)", r"\1", match.group(1)))
        else:
            match = _PLAIN.match(text, at)
            if not match:
                where = f"column {at + 1}"
                if at == len(text) or text[at] == ".":
                    raise InvalidPath(f"{text}: empty oid at {where}", path=text)
                raise InvalidPath(f"{text}: {text[at]!a} at {where} must stand in quotes", path=text)
            oids.append(match.group())
        at = match.end()
        if at == len(text):
            return _check_tuple(tuple(oids))
        if text[at] != ".":
            raise InvalidPath(f"{text}: expected a dot at column {at + 1}, found {text[at]!a}", path=text)
        at += 1


def format_oid(oid: str) -> str:
    """Return `oid` as it stands in a path's text, quoted if it must be."""
    if _PLAIN.fullmatch(oid):
        return oid
    return '"' + oid.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(maxsize=4096)
def format_path(path: Path) -> str:
    """Return the text of `path`; `parse(format_path(path)) == path` for every valid path."""
    return ".".join(map(format_oid, path))
