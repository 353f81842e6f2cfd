"""The table of the REST interface: one entry a route; of it application and description are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from tega_broker.bridge.reading import MAX_MESSAGE, Query, tega_id_of

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge
    from tega_broker.bridge.connection import Request

__all__ = ["DATA", "PARAMETERS", "Asked", "Handler", "Parameter", "Route"]

DATA = "/{path}"
"""Stands for all paths of oids."""


class Asked(NamedTuple):
    """One request, as the handlers of REST get it."""

    request: Request
    path: str
    """Of the URL, percent-encoded."""
    query: Query

    @property
    def tega_id(self) -> str:
        """In whose name; empty: the bridge's own. Raises `BadRequest`."""
        return tega_id_of(self.query)


Handler = Callable[["Bridge", Asked], Awaitable[web.StreamResponse]]


class Parameter(NamedTuple):
    """One parameter of a query: its JSON Schema, and what it is for."""

    schema: dict[str, Any]
    words: str


_FLAG = {"enum": ["True", "False", "true", "false", "1", "0"]}
_NUMBER = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_VERSION = {
    "anyOf": [
        _NUMBER,
        {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9._-]{0,63}$"},
        {"type": "string", "format": "date-time"},
    ]
}
_TIME = {
    "anyOf": [
        {"type": "number"},
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "date"},
    ]
}
_NAMES = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}$"}
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_OID = r"[^\s.\"\\@\x00-\x1f\x7f\x85_][^\s.\"\\@\x00-\x1f\x7f\x85]{0,254}"
_DOTTED = {"type": "string", "pattern": rf"^{_OID}(\.{_OID}){{0,62}}$"}
_ROOT = {"type": "string", "pattern": r"^[^_][\s\S]{0,254}$"}

PARAMETERS: dict[str, Parameter] = {
    "tega_id": Parameter(_NAME, "in whose name; without it the bridge's own"),
    "txid": Parameter(
        {"type": "string", "minLength": 1}, "the transaction that it is about, or that the change is part of"
    ),
    "version": Parameter(_VERSION, "which version: a number, -N back from now, a tag or a time"),
    "expected": Parameter(
        {"anyOf": [{**_NUMBER, "minimum": 0}, {"const": "absent"}]},
        "the version that the node must have, or `absent`",
    ),
    "message": Parameter({"type": "string", "maxLength": MAX_MESSAGE}, "why; stands in the history"),
    "ephemeral": Parameter(_FLAG, "gone with the tega_id's live session"),
    "internal": Parameter(_FLAG, "with attributes: _oid _parent _version _ephemeral _value"),
    "regex_flag": Parameter(_FLAG, "the path is a regex, oids parted by \\. and dots written as slashes"),
    "path": Parameter(_DOTTED, "a path, `a.b.c`"),
    "root_oid": Parameter(_ROOT, "a root"),
    "old_roots": Parameter(_FLAG, "kept versions too, not only the present one"),
    "backto": Parameter(_VERSION, "the version to restore"),
    "limit": Parameter({"type": "integer", "minimum": 1, "maximum": 10_000}, "at most so many"),
    "since": Parameter(_TIME, "not before this time"),
    "by": Parameter(_NAMES, "by this tega_id only; `pi1/noc`: through the agent pi1"),
    "a": Parameter(_VERSION, "the version before"),
    "b": Parameter(_VERSION, "the version after; without it the present one"),
    "other": Parameter(_DOTTED, "the path to compare with, if not the same"),
    "timeout": Parameter(
        {"type": "number", "exclusiveMinimum": 0, "maximum": 3600}, "how many seconds to wait"
    ),
    "detail": Parameter(_FLAG, "all that is known"),
    "watch": Parameter(_FLAG, "follow the changes, as Server-Sent Events"),
    "from_version": Parameter(
        {"type": "integer"}, "with `watch`: begin with what came after this version, -N back from now"
    ),
}


class Route(NamedTuple):
    """One entry of the table."""

    method: str
    path: str
    handler: Handler
    summary: str
    parameters: tuple[str, ...] = ()
    """Names in `PARAMETERS`; `version` of a write stands for `expected`."""
    required: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    """More of them, which are told in words only: with them the rules for the others are different."""
    acts: bool = False
    """It does something, by GET too: there is no HEAD, and no page of another site may ask for it."""
    body: dict[str, Any] | None = None
    """JSON Schema of the body; None: it takes none."""
    answer: dict[str, Any] | None = None
    """JSON Schema of the answer; None: any JSON."""
    statuses: tuple[int, ...] = (200,)
    """What it answers with when it does what it is asked."""
