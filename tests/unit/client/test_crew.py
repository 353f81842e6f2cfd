"""The threads of a blocking client: there is always one at the helm, or one that takes it soon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from tega_zmq.client import crew
from tega_zmq.client.crew import Crew, Work
from tests.processes import until


class Ship:
    """A crew that carries out orders: each is a function, and whether it is said to be brief."""

    def __init__(self) -> None:
        self.orders: SimpleQueue[tuple[Work, bool] | None] = SimpleQueue()
        self.steered: list[threading.Thread] = []
        self.done = 0
        self.over = False
        self.crew = Crew("ship", self.steer)
        self.crew.start()

    def steer(self) -> Work | None:
        order = None if self.over else self.orders.get()
        if order is None:
            self.over = True
            self.crew.dismiss()
            return None
        self.steered.append(threading.current_thread())
        self.crew.relieve(brief=order[1])
        return order[0]

    def order(self, work: Work, brief: bool = False) -> None:
        """Have `work` done, some time."""

        def counted() -> None:
            work()
            self.done += 1

        self.orders.put((counted, brief))

    def end(self) -> None:
        self.orders.put(None)
        self.crew.join(30)


@pytest.fixture
def ship() -> Iterator[Ship]:
    made = Ship()
    yield made
    made.end()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ship")]


def nothing() -> None:
    """Work that is done at once."""


def watched(ship: Ship) -> None:
    """Return when one of the crew watches: it has come back from work."""
    ship.order(nothing)
    until(lambda: ship.crew._watcher is not None)


def meet(ship: Ship, brief: bool) -> None:
    """Have two things done, of which the first ends only after the second."""
    met = threading.Event()
    waited: list[bool] = []
    ship.order(lambda: waited.append(met.wait(30)), brief)
    ship.order(met.set)
    until(lambda: waited)
    assert waited == [True]


def test_another_thread_steers_while_one_works(ship: Ship) -> None:
    meet(ship, brief=False)
    assert ship.steered[0] is not ship.steered[1]


def test_who_is_back_soon_steers_on_and_wakes_nobody(ship: Ship, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_TICK", 3600.0)
    watched(ship)
    for _ in range(50):
        ship.order(nothing, brief=True)
    until(lambda: ship.done == 51)
    assert len(set(ship.steered[1:])) == 1


@pytest.mark.parametrize("times", [1, 5])
def test_work_that_is_not_as_brief_as_it_was_said_holds_nobody_up(ship: Ship, times: int) -> None:
    for _ in range(times):
        watched(ship)
        meet(ship, brief=True)


def test_nobody_watches_for_long(ship: Ship, monkeypatch: pytest.MonkeyPatch) -> None:
    watched(ship)
    monkeypatch.setattr(crew, "_IDLE", 3)
    until(lambda: ship.crew._watcher is None)
    monkeypatch.setattr(crew, "_TICK", 3600.0)
    meet(ship, brief=True)


def test_the_helm_may_be_given_to_the_one_that_watches(ship: Ship, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_TICK", 3600.0)
    watched(ship)
    ship.order(nothing)  # not brief: the watcher gets the helm at once
    until(lambda: ship.done == 2)
    meet(ship, brief=False)


def test_threads_that_are_not_needed_end(ship: Ship) -> None:
    go = threading.Event()
    works: list[Callable[[], object]] = [lambda: go.wait(30)] * 6
    for work in works:
        ship.order(work)  # type: ignore[arg-type]
    until(lambda: len(ship.steered) == 6)
    go.set()
    until(lambda: sum(thread.name.startswith("ship") for thread in threading.enumerate()) <= 3)
    watched(ship)
    meet(ship, brief=True)


def test_work_that_raises_ends_no_thread(ship: Ship, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        raise SystemExit

    for _ in range(3):
        ship.order(work)
    meet(ship, brief=False)
    until(lambda: len(caplog.records) == 3)
    assert {record.message for record in caplog.records} == {"work for a callback or a handler failed"}
