"""Few file descriptors, against a real broker: it refuses by name, and goes on to write."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tega_zmq import connect, errors
from tests.processes import Fleet, until

FEW = ["sh", "-c", 'ulimit -n 80 && exec "$@"', "sh"]
"""Runs a program that may have so many."""


@pytest.fixture
def few(fleet: Fleet) -> Iterator[Fleet]:
    """A fleet whose broker has few descriptors, and short files of the log."""
    fleet.broker.stop()
    fleet.broker.prefix = FEW
    fleet.broker.settings["log.segment"] = "65536"
    fleet.broker.start()
    yield fleet
    assert "Traceback" not in fleet.broker.log.read_text()


def test_sessions_beyond_the_descriptors_are_refused_by_name(few: Fleet) -> None:
    assert few.broker.lines("sessions=15 ") == 1
    client = few.client("c")
    with contextlib.ExitStack() as stack:
        with pytest.raises(errors.TooLarge) as caught:
            for n in range(60):
                stack.enter_context(connect(few.url, f"d{n}"))
        assert "file descriptors" in str(caught.value)
        for n in range(10):
            client.put("a.b", f"{n}" + "x" * 50_000)
    assert until(lambda: client.inspect("ids") == ["c"])
    connect(few.url, "d").close()


def test_connections_that_take_all_descriptors_do_not_stop_the_log(few: Fleet) -> None:
    client = few.client("c")
    port = int(few.url.rsplit(":", 1)[1])
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        until(lambda: few.broker.descriptors() >= 70, "all are taken")
        for n in range(20):
            client.put("a.b", f"{n}" + "x" * 50_000, timeout=60)  # nearly each in a new file
        assert client.inspect("status")["log"] == "ok"
    client.put("a.c", 1)
    assert few.broker.stop() == 0
    few.broker.start()
    assert until(lambda: client.get("a.b") == "19" + "x" * 50_000)
    assert client.node("a").version == 20
