"""How long the node keeps others waiting: in memory, since the stalls of the disk are not the node's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.harness import Case, Row, Sample, Sides, baseline, broker, helper, load

SECONDS = 5.0


@contextmanager
def with_versions() -> Iterator[Sides]:
    """Puts into a root of 100,000 leaves of which 100 versions are kept."""
    with broker(memory=True, free=True) as node, baseline("kv", memory=True, free=True) as bare:
        load("raw-fill", node.url, "big", 100, 1000)
        yield Sides(
            lambda: load("raw-sibling-puts", node.url, SECONDS, "big", 100, 1000),
            lambda: load("bare-put", bare.url, SECONDS),
        )


@contextmanager
def beside_snapshot() -> Iterator[Sides]:
    """Gets while a snapshot of 1,000,000 leaves is written, and while nothing is."""
    with broker(free=True) as node:
        load("raw-fill", node.url, "big", 10, 100_000)

        def busy() -> Sample:
            with helper("raw-snapshots", node.url) as snapshots:
                sample = load("raw-gets", node.url, SECONDS, "big", "c1", "k1")
                snapshots.finish()  # when the last snapshot is done: the other side is to have none
                return sample

        yield Sides(busy, lambda: load("raw-gets", node.url, SECONDS, "big", "c1", "k1"))


@contextmanager
def old_versions() -> Iterator[Sides]:
    """Versions read at random, nearly all from the disk, beside 10,000 puts a second, and beside none."""
    with broker(free=True) as node:
        load("raw-fill", node.url, "numbers", 10, 100)
        with helper("raw-numbers", node.url, 10_000) as writing:
            time.sleep(SECONDS)
            writing.finish()

        def busy() -> Sample:
            with helper("raw-numbers", node.url, 10_000) as writing:
                sample = load("tega-past", node.url, SECONDS)
                return {**sample, **writing.finish()}

        yield Sides(busy, lambda: load("tega-past", node.url, SECONDS))


CASES = (
    Case(
        "old-versions",
        (
            Row(
                "p50",
                "an old version read beside 10,000 puts a second, against none",
                "ms",
                "",
                0,
                ratio=False,
            ),
            Row(
                "max",
                "an old version read beside 10,000 puts a second: longest",
                "ms",
                "",
                0,
                ratio=False,
                worst=True,
            ),
            Row("writes", "puts beside that", "/s", "", 0, ratio=False),
        ),
        old_versions,
        rounds=2,
    ),
    Case(
        "put-versions",
        (
            Row(
                "max",
                "put with 100 versions of 100,000 leaves: longest",
                "ms",
                "<=",
                20,
                ratio=False,
                worst=True,
            ),
            Row("p99", "put with 100 versions of 100,000 leaves: p99", "ms", "", 0, ratio=False),
        ),
        with_versions,
    ),
    Case(
        "get-snapshot",
        (
            Row(
                "max",
                "get beside a snapshot of 1,000,000 leaves: longest",
                "ms",
                "",
                0,
                ratio=False,
                worst=True,
            ),
            Row("p99", "get beside a snapshot of 1,000,000 leaves: p99", "ms", "", 0, ratio=False),
        ),
        beside_snapshot,
        rounds=2,
    ),
)
