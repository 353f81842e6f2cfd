"""Fixtures of the tests with real processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tega_zmq import connect
from tega_zmq.client.blocking import Client
from tests.fake_node import FakeNode
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


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """A small node in a thread, for what only a client does."""
    with FakeNode() as node:
        yield node


@pytest.fixture
def tega(node: FakeNode) -> Iterator[Client]:
    """A client of it, which has put 1 at a.b."""
    with connect(node.url, "noc-1", timeout=10) as client:
        client.put("a.b", 1)
        yield client
