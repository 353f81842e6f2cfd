"""Calls through the node, and calls beside a slow disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.bench.harness import Case, Row, Sample, Server, Sides, baseline, broker, helper, load

SECONDS = 2.0


def served(server: Server, handler: str, caller: str, *arguments: Any) -> Sample:
    """Let `caller` call while `handler` answers."""
    with helper(handler, server.url):
        return load(caller, server.url, SECONDS, *arguments)


def pair(
    ours: tuple[str, str], base: tuple[str, str], *arguments: Any
) -> Callable[[], AbstractContextManager[Sides]]:
    """Return what opens both sides, each a handler's role and a caller's."""

    @contextmanager
    def opened() -> Iterator[Sides]:
        with broker() as node, baseline("rpc") as bare:
            yield Sides(lambda: served(node, *ours, *arguments), lambda: served(bare, *base, *arguments))

    return opened


@contextmanager
def beside_slow_disk() -> Iterator[Sides]:
    """Calls while 50 puts a second are made durable, with a disk that takes 200 ms, and with the real one."""

    def measure(server: Server) -> Sample:
        with helper("raw-rate", server.url, 50, 60):
            return served(server, "raw-handler", "tega-call")

    with broker(program="slow_broker.py") as slow, broker() as fast:
        yield Sides(lambda: measure(slow), lambda: measure(fast))


CASES = (
    Case(
        "rpc-1",
        (Row("rate", "RPC, 1 in flight, blocking clients", "/s", ">=", 0.6, ratio=True),),
        pair(("tega-handler", "tega-call"), ("bare-handler", "bare-call")),
    ),
    Case(
        "rpc-64",
        (Row("rate", "RPC, 64 in flight, pipelined on both sides", "/s", ">=", 0.5, ratio=True),),
        pair(("raw-handler", "raw-calls"), ("bare-handler", "bare-calls"), 64),
    ),
    Case(
        "rpc-64-tasks",
        (Row("rate", "RPC, 64 in flight, asyncio tasks on both sides", "/s", ">=", 0.5, ratio=True),),
        pair(("tega-aio-handler", "tega-call-tasks"), ("bare-handler", "bare-call-tasks"), 64),
    ),
    Case(
        "rpc-slow-disk",
        (
            Row("p99", "RPC p99, syncs of 200 ms against a fast disk", "ms", "<=", 1.5, ratio=True),
            Row("p50", "RPC p50, syncs of 200 ms against a fast disk", "ms", "", 0, ratio=True),
        ),
        beside_slow_disk,
    ),
)
