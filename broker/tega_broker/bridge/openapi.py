"""`/_openapi.json`: the description of the REST interface (OpenAPI 3.1), written from the table of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from tega_broker.bridge.answers import json_response
from tega_broker.bridge.table import DATA, PARAMETERS, Asked, Route
from tega_zmq.version import __version__

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge

__all__ = ["ROUTE", "describe"]

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
    429: "too many",
    502: "the handler raised",
    503: "offline, owner or handler away",
    504: "timeout",
}
"""Every status of an error, and what it tells."""

_ERROR = {"$ref": "#/components/schemas/Error"}


def describe(table: tuple[Route, ...]) -> dict[str, Any]:
    """Return the OpenAPI document for the routes of `table`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tega-zmq bridge",
            "version": __version__,
            "description": "One versioned tree of configuration and state, over HTTP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
                    "required": ["error", "message"],
                }
            }
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    if route.path == DATA:
        parameters.append(
            {
                "name": "path",
                "in": "path",
                "required": True,
                "description": "ROOT/OID/..., each oid percent-encoded",
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9.-]{0,20}$"},
            }
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
        "operationId": _id(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": _responses(route),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.path == DATA,
            "content": {"application/json": {"schema": route.body}},
        }
    return operation


def _id(route: Route) -> str:
    name = "node" if route.path == DATA else route.path.strip("/_").replace(".", "_")
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
