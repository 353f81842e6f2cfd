"""Fixtures of the chaos: a fleet in a short folder, and everything that a test starts ended with it."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.processes import Fleet
from tests.processes import fleet as make_fleet


@pytest.fixture(scope="session", autouse=True)
def ended_in_order() -> Iterator[None]:
    """SIGTERM ends the tests as Ctrl-C does: programs, hosts and filesystems are taken down."""

    def stop(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet of which nothing runs yet. In a folder with a short name: local sockets have a path limit."""
    with tempfile.TemporaryDirectory(prefix="tega-") as folder, make_fleet(Path(folder)) as made:
        made.broker.settings["session.lease"] = LEASE
        yield made
        made.close()
        for log in sorted(Path(folder).glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-6000:]}")  # shown where a test failed


LEASE = "2"
"""Seconds; short, since the tests wait for it."""
