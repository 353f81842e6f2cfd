"""docs/bridge.md names every route, as the table has it."""

from __future__ import annotations

from pathlib import Path

from tega_broker.bridge import health, openapi, rest_data, rest_manage
from tega_broker.bridge.openapi import markdown

DOCUMENT = Path(__file__).parents[3] / "docs" / "bridge.md"


def test_the_routes_in_the_document_are_those_of_the_table() -> None:
    table = (*rest_data.ROUTES, *rest_manage.ROUTES, *health.ROUTES, openapi.ROUTE)
    text = DOCUMENT.read_text()
    assert markdown(table) in text, f"write this there:\n{markdown(table)}"
