"""The blocking client when its calls are interrupted: by Ctrl-C at the worst places, by signal handlers."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tega_zmq import errors
from tega_zmq.client.blocking import Client
from tega_zmq.wire import bundle, encode
from tega_zmq.wire import messages as m
from tests.fake_node import FakeNode
from tests.processes import until


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], None]) -> None:
    """Have `act` called in this thread, as a signal handler would be, right after the next `owner.name`."""
    function, thread = getattr(owner, name), threading.current_thread()

    def interrupted(*args: Any) -> Any:
        result = function(*args)
        if threading.current_thread() is thread:
            monkeypatch.setattr(owner, name, function)
            act()
        return result

    monkeypatch.setattr(owner, name, interrupted)


def ctrl_c() -> None:
    raise KeyboardInterrupt


def test_close_in_a_signal_handler_does_not_wait_for_the_call_beneath(
    tega: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, tega._driver, "_transmit", tega.close)
    with contextlib.suppress(errors.Disconnected):  # the answer may be there before the end
        tega.get("a.b")
    tega.close()
    assert tega.state == "closed"


def test_a_request_in_a_signal_handler_that_interrupts_a_wait(node: FakeNode, tega: Client) -> None:
    driver, me = tega._driver, threading.main_thread().ident
    assert me == threading.get_ident()
    asked: list[tuple[bytes, int]] = []
    values: list[Any] = []

    def get(peer: bytes, message: m.Get) -> Any:
        asked.append((peer, message.id))
        if len(asked) == 1:
            while driver._led is None or driver._turn.locked():
                time.sleep(0.0001)
            signal.pthread_kill(me, signal.SIGUSR1)
            return None
        for peer, id in reversed(asked):
            node.socket.send_multipart([peer, encode(m.Reply(id, [id, None]))])
        node.script.pop(m.Get)
        return None

    node.script[m.Get] = get
    before = signal.signal(signal.SIGUSR1, lambda *_: values.append(tega.get("a.b")))
    try:
        values.append(tega.get("a.b"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert values == [asked[1][1], asked[0][1]]
    assert driver._led is None
    until(lambda: driver._listens)
    assert [tega.get("a.b") for _ in range(10)] == [1] * 10


def test_a_request_in_a_signal_handler_is_refused_where_it_could_not_be_answered(
    tega: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[BaseException] = []

    def handler() -> None:
        try:
            tega.get("a.b")
        except RuntimeError as error:
            refused.append(error)

    once(monkeypatch, tega._driver, "_transmit", handler)
    assert tega.get("a.b") == 1
    assert len(refused) == 1


@pytest.mark.parametrize("place", ["_transmit", "_begin_lead", "_receive", "_settle", "_end_lead"])
def test_the_client_works_on_after_an_interrupt(
    tega: Client, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    heard = threading.Event()
    tega.subscribe("a", lambda _change: heard.set())
    heard.clear()
    once(monkeypatch, tega._driver, place, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        tega.get("a.b")
    assert tega._driver._led is None
    assert not tega._driver._turn.locked()
    tega.put("a.b", 2)
    assert heard.wait(20)
    assert tega.get("a.b") == 2


@pytest.mark.parametrize("place", ["_transmit", "_begin_lead", "_listen", "_receive", "_settle", "_end_lead"])
def test_the_helm_listens_again_after_an_interrupt_in_a_doze(
    tega: Client, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    driver = tega._driver
    until(lambda: tega.get("a.b") and not driver._listens, "it dozes")
    once(monkeypatch, driver, place, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        tega.get("a.b")
    assert driver._led is None
    until(lambda: driver._listens)
    assert tega.get("a.b") == 1


def test_who_waits_hears_of_an_answer_that_was_lost_with_an_interrupt(
    node: FakeNode, tega: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    both = threading.Event()

    def get(peer: bytes, message: m.Get) -> Any:
        asked.append(message.id)
        both.set()
        if len(asked) == 2:  # both answers at once: the second caller, who reads, hands them out
            node.script.pop(m.Get)
            for frame in bundle([encode(m.Reply(id, [1, None])) for id in asked]):
                node.socket.send_multipart([peer, frame])

    node.script[m.Get] = get
    lost: list[errors.Disconnected] = []

    def other() -> None:
        with pytest.raises(errors.Disconnected) as raised:
            tega.get("a.b")
        lost.append(raised.value)

    thread = threading.Thread(target=other)
    thread.start()
    assert both.wait(20)
    while tega._driver._led is not None:  # who asked first leaves the socket to the helm, or to the next
        time.sleep(0.001)
    once(monkeypatch, tega._driver.engine.session, "take_events", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        tega.get("a.b")
    thread.join(20)
    assert [error.outcome for error in lost] == ["unknown"]
    assert tega.get("a.b") == 1


def test_a_caller_that_reads_a_refusal_has_the_helm_dial_again(node: FakeNode, tega: Client) -> None:
    session = tega._driver.engine.session
    session.redial_first = session.redial_longest = 0.05
    refused = threading.Event()
    hellos: list[float] = []

    def hello(peer: bytes, message: m.Hello) -> Any:
        hellos.append(time.monotonic())
        if len(hellos) > 1:
            node.script.pop(m.Hello)
            return node.on_hello(peer, message)
        refused.wait(20)  # until a caller leads
        return m.Refused("Busy", "later", {})

    node.script[m.Hello] = hello
    node.stop()
    node.start()
    asking = threading.Thread(target=lambda: tega.get("a.b"))
    while not hellos:
        time.sleep(0.001)
    asking.start()
    while tega._driver._led is None:
        time.sleep(0.0001)
    refused.set()
    asking.join(20)
    assert not asking.is_alive()
    assert hellos[1] - hellos[0] < 4, "it was not the timeout of the hello, 10 s, or of the request"
