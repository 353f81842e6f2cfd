"""`/_openapi.json`: the description of the REST interface (OpenAPI 3.1), written from the table of routes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tega_broker.bridge.answers import json_response
from tega_broker.bridge.table import DATA, PARAMETERS, Asked, Route
from tega_zmq.version import __version__

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge

__all__ = ["ROUTE", "SCHEMAS", "describe", "markdown"]

ERRORS = {
    400: "bad input",
    401: "who are you?",
    403: "not allowed, or not from here",
    404: "not there",
    405: "this is not done here",
    408: "the body came too slowly",
    409: "collision",
    410: "expired, or no longer kept",
    413: "too large",
    415: "packed in an unknown way",
    422: "invalid value",
    426: "a WebSocket is served here",
    429: "too many",
    502: "the handler raised",
    503: "offline, owner or handler away",
    504: "timeout",
}
"""Every status of an error, and what it tells."""

_ERROR = {"$ref": "#/components/schemas/Error"}


_OID = {"type": "string", "pattern": r"^[^_][\s\S]{0,254}$"}
_INTEGER = {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1}
_NUMBER = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
_LEAVES: list[dict[str, Any]] = [
    {"type": "null"},
    {"type": "boolean"},
    _INTEGER,
    _NUMBER,
    {"type": "string"},
    {"type": "array", "items": {"$ref": "#/components/schemas/Json"}},
]
_CONTAINER: dict[str, Any] = {
    "type": "object",
    "propertyNames": _OID,
    "additionalProperties": {"$ref": "#/components/schemas/Value"},
}

SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "description": "what was wrong, where, and what to do",
        "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
        "required": ["error", "message"],
    },
    "Json": {
        "description": "any JSON with numbers that 64 bits hold",
        "anyOf": [
            *_LEAVES,
            {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Json"}},
        ],
    },
    "Value": {
        "description": "a leaf, or a container of oids; at most 64 within one another",
        "anyOf": [*_LEAVES, _CONTAINER],
    },
    "Container": _CONTAINER,
}
"""What the description refers to."""


def describe(table: tuple[Route, ...]) -> dict[str, Any]:
    """Return the OpenAPI document for the routes of `table`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        for path in _NODES if route.path == DATA else (route.path,):
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tega-zmq bridge",
            "version": __version__,
            "description": "One versioned tree of configuration and state, over HTTP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


_NODES = ("/{root}", "/{root}/{path}")
"""A path of oids has any length; OpenAPI has no word for that."""


def _operation(route: Route, path: str) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    for name, words in (("root", "the first oid"), ("path", "the other oids, parted by slashes")):
        if f"{{{name}}}" in path:
            parameters.append(
                {"name": name, "in": "path", "required": True, "description": words, "schema": _OID}
            )
    for name in route.parameters:
        known = PARAMETERS[name]
        parameters.append(
            {
                "name": "version" if name == "expected" else name,
                "in": "query",
                "required": name in route.required,
                "description": known.words,
                "schema": known.schema,
            }
        )
    operation: dict[str, Any] = {
        "operationId": _id(route, path),
        "summary": route.summary,
        "parameters": parameters,
        "responses": _responses(route),
    }
    if route.unlisted:
        more = "; ".join(f"`{name}`: {PARAMETERS[name].words}" for name in route.unlisted)
        operation["description"] = f"Takes too: {more}."
    if route.body is not None:
        root = route.path == DATA and path == _NODES[0]
        schema = {"$ref": "#/components/schemas/Container"} if root else route.body
        operation["requestBody"] = {
            "required": route.path == DATA,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _id(route: Route, path: str) -> str:
    if route.path == DATA:
        name = "root" if path == _NODES[0] else "node"
    else:
        name = path.strip("/_").replace(".", "_")
    return f"{route.method.lower()}_{name}"


def _responses(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in route.statuses:
        if status == 304:
            found["304"] = {"description": "as the client has it"}
            continue
        kind = "text/plain" if route.path == "/_metrics" else "application/json"
        found[str(status)] = {
            "description": "done" if status == 200 else "not ready",
            "content": {kind: {"schema": route.answer or {}}},
        }
    for status, words in ERRORS.items():
        found.setdefault(
            str(status), {"description": words, "content": {"application/json": {"schema": _ERROR}}}
        )
    return found


async def _openapi(bridge: Bridge, _: Asked) -> web.Response:
    return json_response(describe(bridge.table), headers={"Cache-Control": "no-cache"})


ROUTE = Route("GET", "/_openapi.json", _openapi, "this description", answer={"type": "object"})
"""The description itself."""


def markdown(table: tuple[Route, ...]) -> str:
    """Return the routes of `table` as rows for docs/bridge.md: methods of one path together."""
    rows: dict[tuple[str, str], tuple[list[str], Route]] = {}
    for route in table:
        rows.setdefault((route.path, route.summary), ([], route))[0].append(route.method)
    lines = ["| request | parameters | what |", "| --- | --- | --- |"]
    for (path, summary), (methods, route) in rows.items():
        where = "/ROOT/OID/..." if path == DATA else path
        named = [*(("version" if name == "expected" else name) for name in route.parameters), *route.unlisted]
        parameters = ", ".join(f"`{name}`" for name in named if name != "tega_id")
        lines.append(f"| `{', '.join(methods)} {where}` | {parameters} | {summary} |")
    return "\n".join(lines)
