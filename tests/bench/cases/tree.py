"""What the size of the tree costs a put."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.harness import Case, Row, Sides, broker, load

SECONDS = 2.0


@contextmanager
def among_many() -> Iterator[Sides]:
    """A broker with 10 containers of 100,000 leaves, and one with 10 of 10."""
    with broker() as large, broker() as small:
        load("raw-fill", large.url, "big", 10, 100_000)
        load("raw-fill", small.url, "big", 10, 10)
        yield Sides(
            lambda: load("raw-sibling-puts", large.url, SECONDS, "big", 10, 100_000),
            lambda: load("raw-sibling-puts", small.url, SECONDS, "big", 10, 10),
        )


CASES = (
    Case(
        "put-million",
        (
            Row(
                "rate",
                "put among 1,000,000 leaves (100,000 siblings) against 100",
                "/s",
                ">=",
                0.7,
                ratio=True,
            ),
        ),
        among_many,
    ),
)
