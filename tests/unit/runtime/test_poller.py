"""The poller: it sleeps when nothing came, and never when something did."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from tega_zmq.runtime.poller import Poller

LONG = 30.0
"""Seconds to sleep where the test would fail if it slept at all."""


@pytest.fixture
def pair() -> Iterator[tuple[zmq.Socket[Any], zmq.Socket[Any]]]:
    context = zmq.Context()
    left, right = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    port = left.bind_to_random_port("tcp://127.0.0.1")
    right.connect(f"tcp://127.0.0.1:{port}")
    right.send(b"hello")
    assert left.recv() == b"hello"
    yield left, right
    context.destroy(linger=0)


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


def told(socket: zmq.Socket[Any]) -> bool:
    """Whether the descriptor of `socket` tells of something."""
    descriptor = select.poll()
    descriptor.register(socket.getsockopt(zmq.FD), select.POLLIN)
    return bool(descriptor.poll(0))


def test_what_comes_ends_the_sleep(pair: tuple[zmq.Socket[Any], zmq.Socket[Any]], poller: Poller) -> None:
    left, right = pair
    poller.register(left)
    assert poller.poll(0) == []
    right.send(b"x")
    assert poller.poll(LONG) == [left]


def test_a_socket_that_is_not_emptied_is_told_again(
    pair: tuple[zmq.Socket[Any], zmq.Socket[Any]], poller: Poller
) -> None:
    left, right = pair
    poller.register(left)
    assert poller.poll(0) == []
    right.send(b"1")
    right.send(b"2")
    assert poller.poll(LONG) == [left]
    assert left.recv() == b"1"
    left.poll(LONG * 1000)  # the second is there
    assert poller.poll(LONG) == [left]
    assert left.recv(zmq.NOBLOCK) == b"2"
    assert poller.poll(0) == []


def test_what_a_send_took_the_edge_of_is_told(
    pair: tuple[zmq.Socket[Any], zmq.Socket[Any]], poller: Poller
) -> None:
    left, right = pair
    poller.register(left)
    assert poller.poll(0) == []
    right.send(b"x")
    deadline = time.monotonic() + LONG
    while not told(left):
        assert time.monotonic() < deadline
    while told(left):  # libzmq reads what came in now and then when something is sent
        left.send(b"")
        assert time.monotonic() < deadline
    poller.used(left)
    assert poller.poll(LONG) == [left]


def test_a_socket_that_was_found_empty_is_not_asked_again(
    pair: tuple[zmq.Socket[Any], zmq.Socket[Any]], poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = pair
    poller.register(left)
    right.send(b"x")
    assert poller.poll(LONG) == [left]
    assert left.recv() == b"x"
    assert not left.getsockopt(zmq.EVENTS) & zmq.POLLIN
    poller.emptied(left)
    monkeypatch.setattr("tega_zmq.runtime.poller.readable", lambda _socket: pytest.fail("it was asked"))
    assert poller.poll(0) == []


def test_descriptors_are_told_as_long_as_there_is_something_to_read(poller: Poller) -> None:
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        poller.register(wake)
        assert poller.poll(0) == []
        os.eventfd_write(wake, 1)
        assert poller.poll(LONG) == [wake]
        assert poller.poll(LONG) == [wake]
        os.eventfd_read(wake)
        assert poller.poll(0) == []
    finally:
        os.close(wake)


def test_a_source_that_was_taken_out_is_told_no_more(
    pair: tuple[zmq.Socket[Any], zmq.Socket[Any]], poller: Poller
) -> None:
    left, right = pair
    poller.register(left)
    right.send(b"x")
    assert poller.poll(LONG) == [left]
    poller.unregister(left)
    assert poller.poll(0) == []
    with pytest.raises(KeyError):
        poller.unregister(left)
    poller.register(left)
    assert poller.poll(LONG) == [left]


def test_a_source_cannot_be_registered_twice(
    pair: tuple[zmq.Socket[Any], zmq.Socket[Any]], poller: Poller
) -> None:
    poller.register(pair[0])
    with pytest.raises(OSError, match="exists"):
        poller.register(pair[0])
