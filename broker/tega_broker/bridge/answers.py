"""Answers: values and errors as JSON, with their status, packed where the client wants that."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from tega_zmq import errors
from tega_zmq.errors import TegaError

__all__ = [
    "PACK_FROM",
    "BadRequest",
    "Refusal",
    "TooMany",
    "dump",
    "dump_sorted",
    "error_response",
    "json_response",
    "pack",
    "status_of",
    "wants_gzip",
]

PACK_FROM = 1024
"""Smallest body, in bytes, that is packed."""

_PACK_ASIDE = 64 * 1024
"""A body from this size on is packed in a thread: packing 64 KiB takes 2 ms."""

_JSON = "application/json"

_STATUSES: Mapping[type[TegaError], int] = {
    errors.InvalidPath: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.ReadOnly: 403,
    errors.NotFound: 404,
    errors.NoHandler: 404,
    errors.Collision: 409,
    errors.MixedOwners: 409,
    errors.TakenOver: 409,
    errors.TransactionExpired: 410,
    errors.Compacted: 410,
    errors.TooLarge: 413,
    errors.InvalidValue: 422,
    errors.HandlerError: 502,
    errors.ProtocolError: 502,
    errors.Timeout: 504,
}


class Refusal(Exception):
    """A request that the bridge itself refuses: `status`, the error's name, a message, and fields."""

    def __init__(
        self,
        status: int,
        error: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
        **fields: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.headers = headers or {}
        self.close = close
        """Whether the connection ends: what follows on it cannot be understood, or is not wanted."""
        self.fields = fields


class BadRequest(Refusal):
    """A request that cannot be understood, 400."""

    def __init__(self, message: str, error: str = "InvalidValue", **fields: Any) -> None:
        super().__init__(400, error, message, **fields)


class TooMany(Refusal):
    """There are as many of something as may be, 429."""

    def __init__(self, message: str, limit: int | None) -> None:
        super().__init__(429, "TooLarge", message, headers={"Retry-After": "1"}, limit=limit)


def status_of(error: TegaError) -> int:
    """Return the status that tells `error`. What has none of its own is 503: it may pass."""
    if isinstance(error, errors.HandlerError) and error.type == "Busy":
        return 429  # no handler was asked
    return _STATUSES.get(type(error), 503)


def _chunks(*, sort_keys: bool) -> Callable[[Any, int], Iterable[str]]:
    """Return a function of a value and 0 that gives its JSON in pieces.

    It is what `JSONEncoder.encode` makes anew for every value.
    """
    encoder = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), check_circular=False, sort_keys=sort_keys
    )
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, _: encoder.iterencode(value)
    text = json.encoder.encode_basestring
    made: Callable[[Any, int], Iterable[str]] = make(
        None, encoder.default, text, None, ":", ",", sort_keys, False, True
    )
    return made


_encode = _chunks(sort_keys=False)


def dump(value: Any) -> bytes:
    """Return `value` as JSON in UTF-8. Half a pair of surrogates, which has none, is escaped as JSON does."""
    return "".join(_encode(value, 0)).encode("utf-8", "backslashreplace")


_encode_sorted = _chunks(sort_keys=True)


def dump_sorted(value: Any) -> bytes:
    """Return `value` as `dump` does, always in the same bytes: an entity tag stands for it."""
    return "".join(_encode_sorted(value, 0)).encode("utf-8", "backslashreplace")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer with `value` as its body."""
    return web.Response(body=dump(value), status=status, headers=headers, content_type=_JSON)


def error_response(error: TegaError | Refusal) -> web.Response:
    """Return the answer that tells `error`: `{"error": NAME, "message": TEXT, ...fields}`."""
    if isinstance(error, Refusal):
        body = {"error": error.error, "message": error.message, **error.fields}
        response = json_response(body, error.status, error.headers)
        if error.close:
            response.force_close()
        return response
    code, message, fields = errors.encode(error)
    status = status_of(error)
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return json_response({"error": code, "message": message, **fields}, status, headers)


def wants_gzip(accept: str) -> bool:
    """Whether the header Accept-Encoding takes gzip (RFC 9110, 12.5.3)."""
    star: bool | None = None
    for part in accept.lower().split(","):
        name, _, rest = part.partition(";")
        quality = rest.strip().removeprefix("q=").strip()
        taken = quality not in ("0", "0.0", "0.00", "0.000")
        if name.strip() in ("gzip", "x-gzip"):
            return taken
        if name.strip() == "*":
            star = taken
    return bool(star)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


async def pack(response: web.Response, headers: CIMultiDict[str] | Any) -> None:
    """Pack the body of `response` if the request's `headers` say so and it is worth it."""
    body = response.body
    if not isinstance(body, bytes) or len(body) < PACK_FROM or response.status == 304:
        return
    response.headers.add("Vary", "Accept-Encoding")
    accept = headers.get("Accept-Encoding")
    if accept is None or "Content-Encoding" in response.headers or not wants_gzip(accept):
        return
    if len(body) < _PACK_ASIDE:
        packed = _gzip(body)
    else:
        packed = await asyncio.get_running_loop().run_in_executor(None, _gzip, body)
    response.body = packed
    response.headers["Content-Encoding"] = "gzip"
    tag = response.headers.get("ETag")
    if tag is not None and not tag.startswith("W/"):
        response.headers["ETag"] = "W/" + tag
