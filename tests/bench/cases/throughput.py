"""Durable puts and gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.bench.harness import Case, Row, Sides, baseline, broker, load

SECONDS = 2.0


def pair(ours: str, base: str, *arguments: Any) -> Callable[[], AbstractContextManager[Sides]]:
    """Return what opens a broker and the key-value baseline for two roles of `load.py`."""

    @contextmanager
    def opened() -> Iterator[Sides]:
        with broker() as node, baseline("kv") as bare:
            yield Sides(
                lambda: load(ours, node.url, SECONDS, *arguments),
                lambda: load(base, bare.url, SECONDS, *arguments),
            )

    return opened


CASES = (
    Case(
        "put-1",
        (
            Row("rate", "durable put, 1 in flight, blocking client", "/s", ">=", 0.6, ratio=True),
            Row("p99", "durable put, 1 in flight: p99", "ms", "", 0, ratio=True),
        ),
        pair("tega-put", "bare-put"),
    ),
    Case(
        "put-64",
        (Row("rate", "durable put, 64 in flight, pipelined on both sides", "/s", ">=", 0.4, ratio=True),),
        pair("raw-puts", "bare-puts", 64),
    ),
    Case(
        "put-64-tasks",
        (Row("rate", "durable put, 64 in flight, asyncio tasks on both sides", "/s", ">=", 0.4, ratio=True),),
        pair("tega-put-tasks", "bare-put-tasks", 64),
    ),
    Case(
        "get-1",
        (Row("rate", "get, 1 in flight, blocking client", "/s", ">=", 0.6, ratio=True),),
        pair("tega-get", "bare-get"),
    ),
)
