"""What comes in: the target, the query and the body of a request, read strictly and within bounds."""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.http import HttpProcessingError

from tega_broker.bridge.answers import BadRequest, Refusal
from tega_zmq.errors import InvalidPath, InvalidValue
from tega_zmq.paths import Path, check

__all__ = [
    "ASIDE",
    "MAX_MESSAGE",
    "Query",
    "flag",
    "message_of",
    "oids",
    "parse_body",
    "parse_json",
    "parse_query",
    "read_body",
    "regex_of",
    "split_target",
    "tega_id_of",
    "word",
]

MAX_PARAMETERS = 32
"""Most parameters of a query."""

_FALSE = frozenset({"0", "false"})
_TRUE = frozenset({"1", "true"})
_TEGA_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_MESSAGE = 1000
"""Longest commit message, in characters."""

Query = Mapping[str, str]
"""The parameters of a query; of several with one name, the last."""


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a request's target, both still percent-encoded.

    The target is a path, or a whole url as proxies are sent.
    """
    if not target.startswith("/") and "://" in target:
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    return path, query.partition("#")[0]


def _decode(text: str, what: str) -> str:
    if "%" not in text and text.isascii():
        return text
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{what} {text[:80]!a} is not percent-encoded UTF-8") from None


def oids(path: str) -> Path:
    """Return the path of oids that a URL path stands for; a slash at the end does not matter.

    Raises `BadRequest`, `InvalidPath`.
    """
    parts = path.removeprefix("/").removesuffix("/").split("/")
    if "%" in path or not path.isascii():
        parts = [_decode(part, "the path") for part in parts]
    try:
        return check(tuple(parts))
    except InvalidPath:
        if parts == [""]:
            raise InvalidPath("the path of a node is /ROOT/OID/...; this one is empty", path="") from None
        raise


def regex_of(path: str) -> str:
    """Return the regex that a URL path stands for: a slash is a dot, as in the first tega."""
    return _decode(path.strip("/").replace("/", "."), "the regex")


def parse_query(query: str) -> Query:
    """Return the parameters of `query`. Raises `BadRequest`."""
    if not query:
        return _NONE
    found: dict[str, str] = {}
    parts = query.split("&")
    if len(parts) > MAX_PARAMETERS:
        raise BadRequest(f"{len(parts)} parameters in the query; at most {MAX_PARAMETERS} are allowed")
    for part in parts:
        if part:
            name, _, value = part.replace("+", " ").partition("=")
            found[_decode(name, "the query")] = _decode(value, "the query")
    return found


_NONE: Query = {}


def flag(query: Query, name: str) -> bool:
    """Return a parameter that is true or false; false if it is not there. Raises `BadRequest`."""
    text = query.get(name)
    if text is None:
        return False
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BadRequest(f"{name}={text[:80]!a}: expected True or False")


def word(query: Query, name: str) -> str | None:
    """Return a parameter that is not empty if it is there; None if not. Raises `BadRequest`."""
    text = query.get(name)
    if text == "":
        raise BadRequest(f"the parameter {name} is empty")
    return text


def message_of(query: Query) -> str:
    """Return why a commit is made. Raises `BadRequest`."""
    text = query.get("message", "")
    if len(text) > MAX_MESSAGE:
        raise BadRequest(f"a message of {len(text)} characters; at most {MAX_MESSAGE} are allowed")
    return text


def tega_id_of(query: Query) -> str:
    """Return in whose name a request is made; empty if it does not say. Raises `BadRequest`."""
    text = query.get("tega_id")
    if text is None:
        return ""
    if not _TEGA_ID.fullmatch(text):
        raise BadRequest(f"tega_id={text[:80]!a}: 1 to 64 of the characters A-Z a-z 0-9 _ - are allowed")
    return text


# -- bodies ----------------------------------------------------------------------------------------


async def read_body(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    """Return the body of `request`, unpacked. Raises `Refusal` if it is too large, too slow or broken."""
    content = request.content
    headers = request.headers
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(length, limit)
    if headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        if content.is_eof():
            body = content.read_nowait(-1)
            if len(body) > limit:
                raise _too_large(len(body), limit)
        else:
            body = await _gather(request, limit, seconds)
    except (web.RequestPayloadError, HttpProcessingError) as error:  # of aiohttp's parser in C, in Python
        why = " ".join(str(error).split())
        raise Refusal(400, "InvalidValue", f"the body is broken: {why}"[:300], close=True) from None
    packed = headers.get("Content-Encoding", "identity").strip().lower()
    if packed in ("identity", ""):
        return body
    return _unpack(body, packed, limit)


async def _gather(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    gathered = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                part = await request.content.readany()
                if not part:
                    return bytes(gathered)
                gathered += part
                if len(gathered) > limit:
                    raise _too_large(len(gathered), limit)
    except TimeoutError:
        raise Refusal(
            408, "Timeout", f"the body did not come within {seconds:g} seconds", close=True
        ) from None


def _too_large(size: int, limit: int) -> Refusal:
    return Refusal(
        413,
        "TooLarge",
        f"the body has more than {limit} bytes, as many as limits.body allows",
        close=True,
        size=size,
        limit=limit,
    )


def _unpack(body: bytes, packed: str, limit: int) -> bytes:
    if packed in ("gzip", "x-gzip"):
        bits = 31
    elif packed == "deflate":
        bits = 15
    else:
        raise Refusal(
            415,
            "InvalidValue",
            f"Content-Encoding {packed[:40]!a} is not known here; gzip and deflate are",
            headers={"Accept-Encoding": "gzip, deflate"},
        )
    unpacker = zlib.decompressobj(bits)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise BadRequest(f"the body is not {packed}, as its Content-Encoding says") from None
    if len(plain) > limit:
        raise _too_large(len(plain), limit)
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequest(f"the body is not one whole {packed} stream")
    return plain


async def parse_body(body: bytes, make: Callable[[Any], Any] | None = None) -> Any:
    """Return the value of the JSON text `body`, or `make` of it if that is given.

    If it is large that is done in a thread, so that others get their turn. Raises as `parse_json`, and what
    `make` raises.
    """
    if len(body) <= ASIDE:
        return _made(body, make)
    return await asyncio.get_running_loop().run_in_executor(None, _made, body, make)


ASIDE = 64 * 1024
"""A body above this size is parsed in a thread: 64 KiB may take 5 ms."""


def _made(body: bytes, make: Callable[[Any], Any] | None) -> Any:
    value = parse_json(body)
    return value if make is None else make(value)


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text (RFC 8259), strictly: each key once, numbers that a tree can hold.

    Raises `BadRequest` for what is no JSON, `InvalidValue` for JSON that is no value here.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: byte {error.start} is {body[error.start]:#04x}") from None
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise BadRequest("the body is empty; a JSON value is expected") from None
        raise BadRequest(
            f"the body is no JSON: {error.msg}, line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidValue("the body has too many arrays and objects within one another") from None
    except ValueError as error:  # a number with thousands of digits
        raise InvalidValue(f"the body has a number that is too long: {error}"[:300]) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidValue(f"the key {name[:80]!a} stands twice in one object", path=name[:80])
            seen.add(name)
    return made


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidValue(f"the number {text[:40]} is beyond what 64 bits hold")
    return number


def _constant(name: str) -> NoReturn:
    raise BadRequest(f"the body is no JSON: {name} is no number of JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
