"""Fixtures of the tests with real processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Fleet
from tests.processes import fleet as make_fleet


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet whose broker runs. In a folder with a short name: sockets of a device have a path limit."""
    with tempfile.TemporaryDirectory(prefix="tega-") as folder, make_fleet(Path(folder)) as made:
        made.broker.start()
        yield made
        for log in sorted(Path(folder).glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()}")  # shown where a test failed
