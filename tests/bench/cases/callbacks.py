"""From a put to the callbacks of subscribers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.bench.harness import Case, Row, Sample, Server, Sides, baseline, broker, helper, load


def heard(server: Server, putter: str, count: int, pause: float, role: str, *arguments: Any) -> Sample:
    """Let `putter` put while `role` watches; return what the watchers measured."""
    with helper(role, server.url, *arguments) as watching:
        load(putter, server.url, count, pause)
        return watching.finish()


def watched(
    ours: tuple[Any, ...], base: tuple[Any, ...], count: int, pause: float
) -> Callable[[], AbstractContextManager[Sides]]:
    """Return what opens both sides: `ours` and `base` are a role and its arguments."""

    @contextmanager
    def opened() -> Iterator[Sides]:
        with broker() as node:
            yield Sides(
                lambda: heard(node, "tega-paced", count, pause, *ours),
                # The bare server never forgets a watcher: a new one for each round.
                lambda: _bare(count, pause, base),
            )

    return opened


def _bare(count: int, pause: float, role: tuple[Any, ...]) -> Sample:
    with baseline("kv") as server:
        return heard(server, "bare-paced", count, pause, *role)


CASES = (
    Case(
        "callback-1",
        (Row("p50", "put to callback, 1 subscriber, blocking client", "ms", "<=", 1.5, ratio=True),),
        watched(("tega-watch",), ("bare-watch", 1), 200, 0.005),
    ),
    Case(
        "callback-100",
        (Row("p50", "put to the last of 100 subscribers, pipelined", "ms", "<=", 1.5, ratio=True),),
        watched(("raw-watch", 100), ("bare-watch", 100), 60, 0.04),
    ),
    Case(
        "callback-100-aio",
        (Row("p50", "put to the last of 100 asyncio clients in one process", "ms", "", 0, ratio=True),),
        watched(("tega-watchers", 100), ("bare-watch", 100), 60, 0.06),
    ),
)
