"""The blocking client's helm leaves the socket alone while callers read for themselves, and comes back."""

from __future__ import annotations

import threading

from tega_zmq.client.blocking import Client
from tega_zmq.client.driver import Driver
from tests.fake_node import FakeNode
from tests.processes import until


def doze(client: Client) -> Driver:
    """Have its helm doze."""
    until(lambda: client.get("a.b") and not client._driver._listens, "it dozes")
    return client._driver


def test_it_dozes_only_while_requests_follow_one_another(tega: Client) -> None:
    driver = doze(tega)
    until(lambda: driver._listens, "it listens again, though nothing happened")
    tega.get("a.b")
    assert driver._listens, "one request alone is no reason to doze"


def test_who_subscribes_hears_at_once(tega: Client) -> None:
    driver = doze(tega)
    heard: list[int] = []
    there = threading.Semaphore(0)
    tega.subscribe("a", lambda change: (heard.append(change.new), there.release()))
    assert driver._listens
    for number in range(5):
        tega.put("a.b", number)
        assert there.acquire(timeout=20)
        assert driver._listens, "no doze while there is a subscription"


def test_who_registers_is_called_at_once(tega: Client) -> None:
    doze(tega)
    tega.register("t.f", lambda value: value + 1)
    for number in range(5):
        assert tega.call("t.f", number) == number + 1
        assert tega._driver._listens


def test_many_threads_in_a_doze(tega: Client) -> None:
    doze(tega)

    def ask() -> None:
        for _ in range(300):
            assert tega.get("a.b") == 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
        assert not each.is_alive()
    until(lambda: tega._driver._listens)


def test_a_node_that_comes_back_in_a_doze(node: FakeNode, tega: Client) -> None:
    session = tega._driver.engine.session
    session.redial_first = session.redial_longest = 0.05
    doze(tega)
    node.stop()
    node.start()
    assert tega.get("a.b") == 1
    driver = doze(tega)
    until(lambda: driver._listens)
