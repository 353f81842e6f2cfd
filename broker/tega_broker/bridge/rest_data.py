"""REST, data: GET, PUT, PATCH and DELETE of paths of oids."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

from aiohttp import web

from tega_broker.bridge.answers import BadRequest, dump_sorted, json_response
from tega_broker.bridge.reading import Query, flag, message_of, oids, parse_body, read_body, regex_of, word
from tega_broker.bridge.streaming import offered_below, stream
from tega_broker.bridge.table import DATA, Asked, Route
from tega_zmq.client.requests import Ready, as_place, get, to_value
from tega_zmq.client.results import Committed, NodeView
from tega_zmq.errors import Collision, InvalidValue, NotFound, TooLarge
from tega_zmq.paths import Path, format_path

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge
    from tega_zmq.aio import Client

__all__ = ["ROUTES", "committed", "get_large", "place", "tag_of", "value_response", "version_of"]

_INTEGER = re.compile(r"[+-]?\d{1,18}")
_TAG = re.compile(r'[ \t]*(?:W/)?"([\x21\x23-\x7e]*)"[ \t]*(?:,|$)')
_VERSION = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)
_JSON = "application/json"


def version_of(text: str | None) -> Any:
    """Return which version a parameter names: a number, a tag or a time; None if there is no parameter."""
    if text is None:
        return None
    if not text:
        raise BadRequest("an empty version: expected a number, -N, a tag or a time")
    return int(text) if _INTEGER.fullmatch(text) else text


def expected_of(query: Query) -> int | str | None:
    """Return the version that a write expects. Raises `BadRequest`."""
    text = query.get("version")
    if text is None or text == "absent":
        return text
    if _INTEGER.fullmatch(text) and int(text) >= 0:
        return int(text)
    raise BadRequest(f"version={text[:80]!a}: a write expects a version from 0 up, or absent")


def committed(result: Committed) -> web.Response:
    """Return the answer to a write."""
    return json_response({"revision": result.revision, "versions": result.versions})


def _tags(header: str) -> list[str]:
    """The entity tags that If-Match or If-None-Match lists, without quotes; `["*"]` for a star."""
    if header.strip() == "*":
        return ["*"]
    found, at = [], 0
    while at < len(header):
        match = _TAG.match(header, at)
        if match is None:
            raise BadRequest(f"{header[:80]!a} is no list of entity tags")
        found.append(match.group(1))
        at = match.end()
    return found


def tag_of(node: NodeView, shown: bytes = b"") -> str:
    """Return the entity tag of `node`, without quotes; `shown` is its body, if handlers are shown in it.

    They come and go without a new version, and may stand where the tree has nothing.
    """
    version = f"{node.epoch}-{node.version}" if node.epoch else "handlers"
    return f"{version}-{crc32(shown):08x}" if node.handlers else version


# -- reading ---------------------------------------------------------------------------------------


async def _get(bridge: Bridge, asked: Asked) -> web.StreamResponse:
    query = asked.query
    if flag(query, "regex_flag"):
        if "version" in query or flag(query, "internal"):
            raise BadRequest("a regex finds values of the present: it goes with neither version nor internal")
        return await _find(bridge, asked)
    path = oids(asked.path)
    version = version_of(query.get("version"))
    async with bridge.members.use(asked.tega_id) as client:
        if flag(query, "internal"):
            return json_response(await _read(client.attributes(path, version=version), version))
        try:
            node = await _read(client.node(path, version=version), version)
        except TooLarge:
            return await _get_in_parts(bridge, client, asked, path, version)
    body = dump_sorted(node.value)
    if _has(asked, tag_of(node, body)):
        return web.Response(status=304, headers=_headers(node, body))
    return value_response(node, body)


async def get_large(bridge: Bridge, asked: Asked) -> web.StreamResponse:
    """As a GET without parameters, of what is known to be too large for one answer of the broker."""
    async with bridge.members.use("") as client:
        return await _get_in_parts(bridge, client, asked, oids(asked.path), None)


async def _get_in_parts(
    bridge: Bridge, client: Client, asked: Asked, path: Path, version: Any
) -> web.StreamResponse:
    number, node = await place(client, path, version)
    offered = await offered_below(client, path) if version is None else {}
    shown = dump_sorted(offered)
    node = node._replace(handlers=bool(offered))
    headers = _headers(node, shown)
    if _has(asked, tag_of(node, shown)):
        return web.Response(status=304, headers=headers)
    return await stream(bridge, client, asked.request, path, number, headers, offered)


async def place(client: Client, path: Path, version: Any = None) -> tuple[int, NodeView]:
    """Return which version of its root `version` is, and the node at `path` without its value, however large.

    Raises `NotFound` where nothing is, or handlers alone.
    """
    return as_place(await client._ask(get(path, version, "place"), None))


def value_response(node: NodeView, body: bytes) -> web.Response:
    """Return the answer with the value of `node`, which is `body`."""
    return web.Response(body=body, headers=_headers(node, body), content_type=_JSON)


def _headers(node: NodeView, body: bytes) -> dict[str, str]:
    """The headers of an answer with the value of `node`, which is `body`."""
    headers = {"ETag": f'"{tag_of(node, body)}"'}
    if node.epoch:
        headers["X-Tega-Version"] = str(node.version)
    headers["Cache-Control"] = "no-cache"
    if node.age is not None:
        headers["Age"] = str(int(node.age))
    return headers


def _has(asked: Asked, tag: str) -> bool:
    """Whether who asks has what `tag` stands for already, as If-None-Match says. Raises `BadRequest`."""
    wanted = asked.request.headers.get("If-None-Match")
    if wanted is None:
        return False
    tags = _tags(wanted)
    return tag in tags or tags == ["*"]


async def _read(reading: Any, version: Any) -> Any:
    """Await a read; a version that is none is a bad request."""
    try:
        return await reading
    except InvalidValue as error:
        if version is not None:
            raise BadRequest(error.message) from None
        raise


async def _find(bridge: Bridge, asked: Asked) -> web.Response:
    regex = regex_of(asked.path)
    async with bridge.members.use(asked.tega_id) as client:
        try:
            found = await client.find(regex)
        except InvalidValue as error:
            raise BadRequest(error.message) from None
    return json_response(
        {
            each.path: {"groups": [list(groups) for groups in each.groups], "instance": each.value}
            for each in found
        }
    )


# -- writing ---------------------------------------------------------------------------------------


async def _expected(bridge: Bridge, path: Path, asked: Asked) -> int | str | None:
    """The version that a write expects, by the parameter `version` or the headers If-Match, If-None-Match.

    Raises `Collision` if they do not agree, and `BadRequest`.
    """
    headers = asked.request.headers
    match, none = headers.get("If-Match"), headers.get("If-None-Match")
    expected = [expected_of(asked.query)]
    if none is not None:
        if none.strip() != "*":
            raise BadRequest('a write takes If-None-Match: * only, for "absent"')
        expected.append("absent")
    if match is not None:
        expected.append(await _matched(bridge, path, asked, match))
    given = list(dict.fromkeys(each for each in expected if each is not None))
    if len(given) > 1:
        where = format_path(path)
        raise Collision(
            f"{where} cannot be {' and '.join(str(each) for each in given)} at the same time",
            path=where,
            expected=str(given[0]),
            actual=str(given[1]),
        )
    return given[0] if given else None


async def _matched(bridge: Bridge, path: Path, asked: Asked, match: str) -> int:
    """Return the version of the node at `path` that `match`, an If-Match, lists. Raises `Collision`."""
    tags = _tags(match)
    if len(tags) == 1 and _VERSION.fullmatch(tags[0]):
        return int(tags[0])
    where = format_path(path)
    async with bridge.members.use(asked.tega_id) as client:
        try:
            _, node = await place(client, path)
        except NotFound:
            raise Collision(
                f"{where} is not there, and If-Match expects it",
                path=where,
                expected=match[:80],
                actual="absent",
            ) from None
    # A tag may go on with what stands for handlers: they are no part of what is written.
    versions = ["-".join(tag.split("-")[:2]) for tag in tags]
    if tags == ["*"] or tag_of(node) in versions or str(node.version) in tags:
        return node.version
    raise Collision(
        f"{where} is at version {node.version} of epoch {node.epoch}, not at {match[:80]}",
        path=where,
        expected=match[:80],
        actual=node.version,
    )


def _ready(path: Path, value: Any) -> Ready:
    return Ready(to_value(value, format_path(path)))


async def _put(bridge: Bridge, asked: Asked) -> web.Response:
    path = oids(asked.path)
    query = asked.query
    txid, message = word(query, "txid"), message_of(query)
    ephemeral = flag(query, "ephemeral")
    body = await read_body(asked.request, bridge.limits.body, bridge.limits.slow)
    value = await parse_body(body, None if ephemeral else partial(_ready, path))
    if ephemeral:
        return await _put_ephemeral(bridge, asked, path, value)
    if txid is not None:
        expected = await _expected(bridge, path, asked)
        await bridge.transactions.run(txid, lambda tx: tx.put(path, value, version=expected), message)
        return json_response({"txid": txid})
    expected = await _expected(bridge, path, asked)
    async with bridge.members.use(asked.tega_id) as client:
        return committed(await client.put(path, value, version=expected, message=message))


async def _put_ephemeral(bridge: Bridge, asked: Asked, path: Path, value: Any) -> web.Response:
    live = bridge.members.live(asked.tega_id)
    if live is None:
        where = format_path(path)
        raise Collision(
            f"{where}: an ephemeral node lives as long as a session; {asked.tega_id or 'nobody'} has none "
            "here; open /_pubsub first",
            path=where,
        )
    if "txid" in asked.query:
        raise BadRequest("an ephemeral node is put at once, not in a transaction over HTTP")
    prefix = f"%{asked.tega_id}."
    if isinstance(value, str) and value.startswith(prefix) and len(value) > len(prefix):
        await live.offer(path, value[len(prefix) :])
        return json_response({"revision": 0, "versions": {}})
    expected = await _expected(bridge, path, asked)
    message = message_of(asked.query)
    return committed(await live.client.put(path, value, version=expected, ephemeral=True, message=message))


async def _patch(bridge: Bridge, asked: Asked) -> web.Response:
    path = oids(asked.path)
    query = asked.query
    txid, message = word(query, "txid"), message_of(query)
    body = await read_body(asked.request, bridge.limits.body, bridge.limits.slow)
    if not body and bridge.members.live(asked.tega_id) is not None:
        # The first tega's Go driver: an empty PATCH makes the node that stands there ephemeral.
        async with bridge.members.use(asked.tega_id) as client:
            value = await client.get(path)
        return await _put_ephemeral(bridge, asked, path, value)
    if flag(query, "ephemeral"):
        raise BadRequest("a PATCH makes nothing ephemeral, but one without a body what stands there; use PUT")
    value = await parse_body(body, partial(_ready, path))
    if txid is not None:
        expected = await _expected(bridge, path, asked)
        await bridge.transactions.run(txid, lambda tx: tx.patch(path, value, version=expected), message)
        return json_response({"txid": txid})
    expected = await _expected(bridge, path, asked)
    async with bridge.members.use(asked.tega_id) as client:
        return committed(await client.patch(path, value, version=expected, message=message))


async def _delete(bridge: Bridge, asked: Asked) -> web.Response:
    path = oids(asked.path)
    query = asked.query
    txid, message = word(query, "txid"), message_of(query)
    if txid is not None:
        expected = await _expected(bridge, path, asked)
        await bridge.transactions.run(txid, lambda tx: tx.delete(path, version=expected), message)
        return json_response({"txid": txid})
    live = bridge.members.live(asked.tega_id)
    if live is not None and await live.withdraw(path):
        return json_response({"revision": 0, "versions": {}})
    expected = await _expected(bridge, path, asked)
    async with bridge.members.use(asked.tega_id) as client:
        return committed(await client.delete(path, version=expected, message=message))


_VALUE: dict[str, Any] = {"$ref": "#/components/schemas/Value"}
_COMMITTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "revision": {"type": "integer"},
        "versions": {"type": "object", "additionalProperties": {"type": "integer"}},
        "txid": {"type": "string"},
    },
}

ROUTES = (
    Route(
        "GET",
        DATA,
        _get,
        "the value at a path, its attributes, or what a regex matches",
        ("tega_id", "version", "internal"),
        unlisted=("regex_flag", "watch", "from_version"),
        statuses=(200, 304),
    ),
    Route(
        "PUT",
        DATA,
        _put,
        "create or replace what stands at a path",
        ("tega_id", "expected", "message", "ephemeral"),
        unlisted=("txid",),
        body=_VALUE,
        answer=_COMMITTED,
    ),
    Route(
        "PATCH",
        DATA,
        _patch,
        "merge into what stands at a path (RFC 7396)",
        ("tega_id", "expected", "message"),
        unlisted=("txid",),
        body=_VALUE,
        answer=_COMMITTED,
    ),
    Route(
        "DELETE",
        DATA,
        _delete,
        "delete the node at a path and all below it",
        ("tega_id", "expected", "message"),
        unlisted=("txid",),
        answer=_COMMITTED,
    ),
)
"""What is done with data."""
