"""REST, the rest: transactions, management, listings, history and calls."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from tega_broker.bridge.answers import BadRequest, json_response
from tega_broker.bridge.reading import Query, flag, message_of, parse_body, read_body, word
from tega_broker.bridge.rest_data import committed, version_of
from tega_broker.bridge.table import Asked, Handler, Route
from tega_zmq.client.requests import Ready, to_args, to_value
from tega_zmq.client.results import Difference, LogEntry
from tega_zmq.errors import InvalidValue, NotFound
from tega_zmq.paths import Path, check, format_path, parse

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge
    from tega_zmq.aio import Client

__all__ = ["ROUTES"]

_NUMBER = re.compile(r"\d{1,9}")
_BY = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}")
MAX_EDGES = 200_000
"""Most edges in an answer, and most nodes that are looked at for it: versions share most of theirs."""


# -- parameters ------------------------------------------------------------------------------------


def _needed(query: Query, name: str) -> str:
    text = word(query, name)
    if text is None:
        raise BadRequest(f"the parameter {name} is missing")
    return text


def _limit(query: Query, default: int) -> int:
    text = query.get("limit")
    if text is None:
        return default
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= 10_000:
        return int(text)
    raise BadRequest(f"limit={text[:40]!a}: expected a number from 1 to 10000")


def _seconds(query: Query, default: float) -> float:
    text = query.get("timeout")
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds <= 3600:
        return seconds
    raise BadRequest(f"timeout={text[:40]!a}: expected more than 0 and at most 3600 seconds")


# -- transactions ----------------------------------------------------------------------------------


async def _begin(bridge: Bridge, asked: Asked) -> web.Response:
    txid = await bridge.transactions.begin(asked.tega_id, message_of(asked.query))
    return json_response({"txid": txid})


def _txid(asked: Asked) -> str:
    return _needed(asked.query, "txid")


async def _cand(bridge: Bridge, asked: Asked) -> web.Response:
    detail = flag(asked.query, "detail")
    view = await bridge.transactions.run(_txid(asked), lambda tx: tx.candidate())
    if detail:
        return json_response({"roots": view.roots, "changes": [_difference(each) for each in view.changes]})
    return json_response(view.roots)


async def _commit(bridge: Bridge, asked: Asked) -> web.Response:
    message = message_of(asked.query) if "message" in asked.query else None
    return committed(await bridge.transactions.run(_txid(asked), lambda tx: tx.commit(message), ends=True))


async def _cancel(bridge: Bridge, asked: Asked) -> web.Response:
    txid = _txid(asked)
    await bridge.transactions.run(txid, lambda tx: tx.cancel(), ends=True)
    return json_response({"txid": txid})


# -- management ------------------------------------------------------------------------------------


async def _rollback(bridge: Bridge, asked: Asked) -> web.Response:
    root = _needed(asked.query, "root_oid")
    backto = version_of(_needed(asked.query, "backto"))
    message = message_of(asked.query)
    async with bridge.members.use(asked.tega_id) as client:
        try:
            return committed(await client.rollback(format_path((root,)), backto, message=message))
        except InvalidValue as error:
            raise BadRequest(error.message) from None


def _managing(what: str) -> Handler:
    async def manage(bridge: Bridge, asked: Asked) -> web.Response:
        async with bridge.members.use(asked.tega_id) as client:
            return json_response(await client.manage(what, timeout=max(bridge.limits.timeout, 60.0)))

    return manage


# -- listings --------------------------------------------------------------------------------------


def _listing(
    what: str, shown: Callable[[Any], Any] | None = None
) -> Callable[[Bridge, Asked], Awaitable[web.Response]]:
    async def listing(bridge: Bridge, asked: Asked) -> web.Response:
        detail = flag(asked.query, "detail")
        async with bridge.members.use(asked.tega_id) as client:
            found = await client.inspect(what)
        if shown is None or detail:
            return json_response(found)
        return json_response(shown(found))

    return listing


def _roots(found: Any) -> dict[str, int]:
    return {each["root"]: each["version"] for each in found}


def _old(found: Any) -> list[dict[str, list[int]]]:
    """Per root the versions before the present one; of a deleted root all that are kept."""
    shown = []
    for each in found:
        first, last = each["versions"]
        versions = list(range(first, last + 1 if each["deleted"] else last))
        if versions:
            shown.append({each["root"]: versions})
    return shown


def _difference(difference: Difference) -> dict[str, Any]:
    return difference._asdict()


def _entry(entry: LogEntry) -> dict[str, Any]:
    changes = []
    for change in entry.changes:
        told: dict[str, Any] = {"ope": "DELETE" if change.deleted else "PUT", "path": change.path}
        if not change.deleted:
            told["instance"] = change.new
        changes.append(told)
    return entry._asdict() | {"changes": changes}


class _Wanted(NamedTuple):
    """Which commits are asked for."""

    limit: int
    since: float | None
    by: str


def _wanted(query: Query) -> _Wanted:
    """Return what the parameters `limit`, `since` and `by` ask for. Raises `BadRequest`."""
    since, by = word(query, "since"), word(query, "by")
    if by is not None and not _BY.fullmatch(by):
        raise BadRequest(f"by={by[:80]!a}: expected a tega_id, or AGENT/tega_id")
    return _Wanted(_limit(query, 20), _time(since) if since is not None else None, by or "")


def _time(text: str) -> float:
    """Return Unix seconds of a time in RFC 3339, or as they are; without an offset it is UTC."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = datetime.fromisoformat(text)
            return when.replace(tzinfo=when.tzinfo or UTC).timestamp()
        except (ValueError, OverflowError):
            seconds = math.nan
    if math.isfinite(seconds):
        return seconds
    raise BadRequest(f"since={text[:80]!a}: expected a time, 2026-11-20T12:00:00Z, or Unix seconds")


async def _log(bridge: Bridge, asked: Asked) -> web.Response:
    query = asked.query
    wanted = _wanted(query)
    named = word(query, "path")
    path = parse(named) if named is not None else None
    async with bridge.members.use(asked.tega_id) as client:
        if path is not None:
            return json_response([_entry(each) for each in await _entries(client, path, wanted)])
        return json_response(await _whole_log(client, wanted))


async def _entries(client: Client, path: Path, wanted: _Wanted) -> list[LogEntry]:
    return list(await client.log(path, wanted.limit, since=wanted.since, by=wanted.by))


async def _whole_log(client: Client, wanted: _Wanted) -> list[dict[str, Any]]:
    """The newest commits of all roots, deleted ones too, newest first, each with its `root`."""
    found: list[dict[str, Any]] = []
    for root in await client.inspect("old"):
        try:
            entries = await _entries(client, (root["root"],), wanted)
        except NotFound:
            continue
        found.extend({"root": root["root"], **_entry(each)} for each in entries)
    found.sort(key=lambda entry: entry["time"], reverse=True)
    return found[: wanted.limit]


async def _diff(bridge: Bridge, asked: Asked) -> web.Response:
    query = asked.query
    path = parse(_needed(query, "path"))
    named = word(query, "other")
    other = parse(named) if named is not None else None
    async with bridge.members.use(asked.tega_id) as client:
        try:
            found = await client.diff(
                path, version_of(query.get("a")), version_of(query.get("b")), other_path=other
            )
        except InvalidValue as error:
            raise BadRequest(error.message) from None
    return json_response([_difference(each) for each in found])


# -- edges -----------------------------------------------------------------------------------------


async def _edges(bridge: Bridge, asked: Asked) -> web.Response:
    """Pairs of `PATH(VERSION)`: which node points at which, in the present tree and in those kept before it.

    A parent points at its children, and each child at the parent that it came into the tree with.
    """
    query = asked.query
    wanted = word(query, "root_oid")
    if wanted is not None:
        check((wanted,))
    old = flag(query, "old_roots")
    edges: dict[tuple[str, str], None] = {}
    loop = asyncio.get_running_loop()
    looked_at = 0
    async with bridge.members.use(asked.tega_id) as client:
        for each in await client.inspect("old"):
            first, last = each["versions"]
            if wanted is not None and each["root"] != wanted:
                continue
            for version in range(first if old else last, last + 1):
                try:
                    attributes = await client.attributes((each["root"],), version=version)
                except NotFound:
                    continue
                looked_at += await loop.run_in_executor(None, _collect, attributes, edges)
                if max(len(edges), looked_at) > MAX_EDGES:
                    raise BadRequest(
                        f"more than {MAX_EDGES} nodes or edges; name a root, or leave old_roots away",
                        "TooLarge",
                    )
    return await loop.run_in_executor(None, lambda: json_response([list(edge) for edge in edges]))


def _collect(attributes: dict[str, Any], edges: dict[tuple[str, str], None]) -> int:
    """Add the edges of one version of a root to `edges`; return how many nodes it has."""
    count = 1
    stack: list[tuple[tuple[str, ...], dict[str, Any]]] = [((attributes["_oid"],), attributes)]
    while stack:
        path, node = stack.pop()
        children = node.get("_value")
        if not isinstance(children, dict):
            continue
        here = f"{format_path(path)}({node['_version']})"
        for oid, child in children.items():
            below = (*path, oid)
            there = f"{format_path(below)}({child['_version']})"
            edges[here, there] = None
            # A node points back at its parent of when it was made: newer ones share it.
            edges[there, f"{format_path(path)}({child['_version']})"] = None
            stack.append((below, child))
        count += len(children)
    return count


# -- calls -----------------------------------------------------------------------------------------


def _arguments(given: Any) -> tuple[Ready, Ready]:
    """Return args and kwargs in the body of a call. Raises `InvalidValue`."""
    if not isinstance(given, dict) or given.keys() - {"args", "kwargs"}:
        raise InvalidValue('the body of a call is {"args": [...], "kwargs": {...}}')
    args, kwargs = given.get("args", []), given.get("kwargs", {})
    if not isinstance(args, list):
        raise InvalidValue("args must be an array", path="args")
    if not isinstance(kwargs, dict):
        raise InvalidValue("kwargs must be an object", path="kwargs")
    return Ready(to_args(args)), Ready(to_value(kwargs, "argument"))


async def _rpc(bridge: Bridge, asked: Asked) -> web.Response:
    path = parse(_needed(asked.query, "path"))
    seconds = _seconds(asked.query, bridge.limits.timeout)
    body = await read_body(asked.request, bridge.limits.body, bridge.limits.slow)
    args, kwargs = await parse_body(body or b"{}", _arguments)
    async with bridge.members.use(asked.tega_id) as client:
        with asked.request.given_up_with_peer():  # else it keeps the handler busy until its deadline
            result = await bridge.call(client, path, args, kwargs, seconds)
    return json_response({"result": result})


def _always(
    path: str, handler: Handler, summary: str, parameters: tuple[str, ...], **more: Any
) -> list[Route]:
    """A route for POST, and for GET too, as the first tega had it."""
    return [
        Route(method, path, handler, summary, parameters, acts=True, **more) for method in ("POST", "GET")
    ]


_JSON: dict[str, Any] = {"$ref": "#/components/schemas/Json"}
_MAP: dict[str, Any] = {"type": "object"}
_LIST: dict[str, Any] = {"type": "array"}

ROUTES = (
    *_always(
        "/_begin",
        _begin,
        "begin a transaction",
        ("tega_id", "message"),
        answer={"type": "object", "properties": {"txid": {"type": "string"}}, "required": ["txid"]},
    ),
    *_always(
        "/_cand",
        _cand,
        "the trees that a transaction would make",
        ("txid", "detail"),
        required=("txid",),
        answer=_MAP,
    ),
    *_always(
        "/_commit",
        _commit,
        "make the changes of a transaction",
        ("txid", "message"),
        required=("txid",),
        answer=_MAP,
    ),
    *_always("/_cancel", _cancel, "forget a transaction", ("txid",), required=("txid",), answer=_MAP),
    *_always(
        "/_rollback",
        _rollback,
        "restore a version of a root, as a new commit",
        ("tega_id", "root_oid", "backto", "message"),
        required=("root_oid", "backto"),
        answer=_MAP,
    ),
    *_always("/_ss", _managing("snapshot"), "write a snapshot", ("tega_id",), answer=_MAP),
    *_always("/_clear", _managing("clear"), "empty the store", ("tega_id",), answer=_MAP),
    *_always("/_sync", _managing("sync"), "reconcile all replicas now", ("tega_id",), answer=_MAP),
    *_always("/_reload", _managing("reload"), "load the plugins anew", ("tega_id",), answer=_MAP),
    Route("GET", "/_roots", _listing("roots", _roots), "the roots and their versions", ("tega_id", "detail")),
    Route(
        "GET",
        "/_old",
        _listing("old", _old),
        "the kept versions before the present ones",
        ("tega_id", "detail"),
        answer=_LIST,
    ),
    Route(
        "GET",
        "/_log",
        _log,
        "the newest commits, of a path or of all roots, deleted ones too",
        ("tega_id", "path", "limit", "since", "by"),
        answer=_LIST,
    ),
    Route(
        "GET",
        "/_diff",
        _diff,
        "what differs between two versions, or two paths",
        ("tega_id", "path", "a", "b", "other"),
        required=("path",),
        answer=_LIST,
    ),
    Route(
        "GET",
        "/_edges",
        _edges,
        "the graph of nodes and versions",
        ("tega_id", "root_oid", "old_roots"),
        answer=_LIST,
    ),
    Route("GET", "/_ids", _listing("ids"), "the tega_ids that have a session", ("tega_id",), answer=_LIST),
    Route(
        "GET", "/_channels", _listing("channels"), "the channels and who listens", ("tega_id",), answer=_MAP
    ),
    Route(
        "GET",
        "/_global",
        _listing("global"),
        "the subscriptions that were passed up",
        ("tega_id",),
        answer=_MAP,
    ),
    Route(
        "GET",
        "/_subscribers",
        _listing("subscribers"),
        "the paths and who subscribed",
        ("tega_id",),
        answer=_MAP,
    ),
    Route(
        "GET",
        "/_forwarders",
        _listing("forwarders"),
        "the agents that carry sessions",
        ("tega_id",),
        answer=_LIST,
    ),
    Route("GET", "/_plugins", _listing("plugins"), "the plugins of the broker", ("tega_id",), answer=_LIST),
    Route(
        "GET",
        "/_agents",
        _listing("agents"),
        "the agents, and how far their replicas are",
        ("tega_id",),
        answer=_LIST,
    ),
    *_always(
        "/_rpc",
        _rpc,
        "call a handler",
        ("tega_id", "path", "timeout"),
        required=("path",),
        body={
            "type": "object",
            "properties": {
                "args": {"type": "array", "items": _JSON},
                "kwargs": {"type": "object", "additionalProperties": _JSON},
            },
            "additionalProperties": False,
        },
        answer={"type": "object", "properties": {"result": {}}, "required": ["result"]},
    )[:1],
)
"""All but data, health and the description."""
