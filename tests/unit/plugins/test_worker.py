"""The thread of a plugin."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tega_zmq.plugins.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("plugin test")
    yield made
    made.close()
    assert made.join(10)


def test_jobs_run_in_order_in_one_thread(worker: Worker) -> None:
    seen: list[int] = []
    done = threading.Event()
    for number in range(100):
        worker.post(lambda number=number: seen.append(number), 1000)
    worker.post(done.set, 1000)
    assert seen == []
    worker.start()
    assert done.wait(10)
    assert seen == list(range(100))


def test_a_key_that_waits_is_run_once(worker: Worker) -> None:
    seen: list[str] = []
    done = threading.Event()
    for _ in range(10):
        worker.add("key", lambda: seen.append("key"))
    worker.add("later", lambda: seen.append("later"), delay=0.01)
    worker.add("gone", lambda: seen.append("gone"))
    worker.remove("gone")
    worker.add("end", done.set, delay=0.02)
    worker.start()
    assert done.wait(10)
    assert seen == ["key", "later"]


def test_posts_are_bounded(worker: Worker) -> None:
    assert [worker.post(lambda: None, 3) for _ in range(5)] == [True, True, True, False, False]


def test_periodic_work(worker: Worker) -> None:
    ticks: list[int] = []
    enough = threading.Event()

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            enough.set()

    worker.every(0.01, tick, now=True)
    worker.start()
    assert enough.wait(10)


def test_close_drops_what_is_planned_and_runs_the_last_job() -> None:
    worker = Worker("plugin test")
    seen: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    def first() -> None:
        began.set()
        go_on.wait(10)
        seen.append("first")

    worker.start()
    worker.add("first", first)
    assert began.wait(10)
    worker.add("never", lambda: seen.append("never"))
    worker.close(lambda: seen.append("last"))
    worker.close(lambda: seen.append("twice"))
    assert worker.closed
    assert not worker.join(0)
    assert not worker.post(lambda: seen.append("post"), 10)
    worker.every(0.01, lambda: seen.append("tick"), now=True)
    worker.add("late", lambda: seen.append("late"))
    go_on.set()
    assert worker.join(10)
    assert seen == ["first", "last"]


def test_one_that_never_started_can_be_joined() -> None:
    worker = Worker("plugin test")
    worker.close()
    assert worker.join(0)


def test_a_job_that_raises_is_told_and_the_next_ones_run(caplog: pytest.LogCaptureFixture) -> None:
    told: list[BaseException] = []
    worker, twice = Worker("plugin test", failed=told.append), threading.Event()
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) > 1:
            twice.set()
        raise SystemExit

    worker.every(0.01, tick, now=True)
    worker.start()
    assert twice.wait(10)
    worker.close()
    assert worker.join(10)
    assert {type(error) for error in told} == {SystemExit}
    silent = Worker("plugin silent")
    silent.start()
    silent.close(lambda: 1 / 0)
    assert silent.join(10)
    assert "a job of plugin silent raised" in caplog.text
