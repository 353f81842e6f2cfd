"""A tree that does not fit into one answer of the broker: read and sent in parts, all of one version."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from tega_broker.bridge.answers import dump, dump_sorted, wants_gzip
from tega_zmq.errors import TegaError, TooLarge
from tega_zmq.paths import Path, format_path, parse

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge
    from tega_zmq.aio import Client

__all__ = ["offered_below", "stream"]

_AT_ONCE: Final = 32
"""Nodes that are asked for at a time."""

_CHUNK: Final = 64 * 1024
"""Bytes that are gathered before they are sent."""


async def stream(
    bridge: Bridge,
    client: Client,
    request: web.BaseRequest,
    path: Path,
    version: int,
    headers: Mapping[str, str],
    offered: Any,
) -> web.StreamResponse:
    """Answer with the value at `path` as of `version`, a number that stands for the same one all the time.

    `offered` is shown in it, see `offered_below`.

    Raises what a read may raise, until the answer has begun; if its version is dropped after that, the
    connection ends.
    """
    oids = await client.oids(path, version=version)
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    response.enable_chunked_encoding()
    packer = None
    if wants_gzip(request.headers.get("Accept-Encoding", "")):
        response.headers["Content-Encoding"] = "gzip"
        response.headers["ETag"] = "W/" + headers["ETag"]
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    response.headers.add("Vary", "Accept-Encoding")
    bridge.finish(request, response)
    await response.prepare(request)
    if request.method == "HEAD":
        await response.write_eof()
        return response
    try:
        gathered = bytearray()
        async for part in _object(client, path, [oid for oid, _ in oids], version, offered):
            gathered += part
            if len(gathered) >= _CHUNK:
                await response.write(packer.compress(gathered) if packer else bytes(gathered))
                gathered.clear()
        await response.write(packer.compress(gathered) + packer.flush() if packer else bytes(gathered))
        await response.write_eof()
    except TegaError as error:
        bridge.logger.warning(
            "a large answer was broken off",
            extra={"fields": {"path": format_path(path), "error": f"{error.code}: {error.message}"}},
        )
        if request.transport is not None:
            request.transport.abort()
    return response


async def _object(
    client: Client, path: Path, oids: list[str], version: int, offered: Any
) -> AsyncIterator[bytes]:
    """Yield the container at `path`, whose `oids` are known, as JSON, in parts, with what is `offered`."""
    mark = b"{"
    there = set(oids)
    oids = sorted(there | (offered.keys() if isinstance(offered, dict) else set()))
    for at in range(0, len(oids), _AT_ONCE):
        below = [(*path, oid) for oid in oids[at : at + _AT_ONCE]]
        values = await asyncio.gather(
            *(client.get(each, version=version) for each in below if each[-1] in there),
            return_exceptions=True,
        )
        found = iter(values)
        for child in below:
            oid = child[-1]
            handlers = offered.get(oid) if isinstance(offered, dict) else None
            value = next(found) if oid in there else handlers
            yield mark + dump(oid) + b":"
            mark = b","
            if isinstance(value, TooLarge):
                inner = [oid for oid, _ in await client.oids(child, version=version)]
                async for part in _object(client, child, inner, version, handlers):
                    yield part
            elif isinstance(value, BaseException):
                raise value
            else:
                yield dump_sorted(_merged(value, handlers))
    yield b"}" if oids else b"{}"


async def offered_below(client: Client, path: Path) -> Any:
    """Return the handlers below `path` as a read shows them, a tree of dicts; empty if there are none."""
    tree: dict[str, Any] = {}
    for text, names in (await client.inspect("handlers")).items():
        at = parse(text)
        if len(at) <= len(path) or at[: len(path)] != path:
            continue
        place = tree
        for oid in at[len(path) : -1]:
            below = place.setdefault(oid, {})
            if not isinstance(below, dict):
                break
            place = below
        else:
            place.setdefault(at[-1], names[0] if len(names) == 1 else names)
    return tree


def _merged(value: Any, handlers: Any) -> Any:
    """Return `value` with `handlers` where the tree has nothing."""
    if value is None or handlers is None:
        return handlers if value is None else value
    if not isinstance(value, dict) or not isinstance(handlers, dict):
        return value
    return value | {oid: _merged(value.get(oid), each) for oid, each in handlers.items()}
