"""The pool that runs handlers."""

from __future__ import annotations

import threading

import pytest

from tega_zmq.client import workers as module
from tega_zmq.client.workers import Workers


def test_a_job_that_hangs_holds_up_no_other() -> None:
    workers, stuck, done = Workers("test"), threading.Event(), threading.Event()
    assert workers.run(lambda: stuck.wait() and None)
    assert workers.run(done.set)
    assert done.wait(10)
    stuck.set()
    workers.close(5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-")]
    assert not workers.run(done.set)


def test_an_idle_thread_is_used_again() -> None:
    workers = Workers("again")
    names = []
    for _ in range(5):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            names.append(threading.current_thread().name)
            done.set()

        assert workers.run(job)
        assert done.wait(10)
        while workers._idle != 1:  # the thread is about to wait for the next job
            pass
    workers.close(5)
    assert set(names) == {"again-1"}


def test_threads_and_queue_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_THREADS", 2)
    monkeypatch.setattr(module, "MAX_QUEUED", 3)
    workers, stuck, began = Workers("bounded"), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        began.release()
        stuck.wait()

    for _ in range(2):
        assert workers.run(hang)
        assert began.acquire(timeout=10)
    assert [workers.run(hang) for _ in range(4)] == [True, True, True, False]
    stuck.set()
    workers.close(5)


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.001)
    workers, done = Workers("idle"), threading.Event()
    workers.run(done.set)
    assert done.wait(10)
    for thread in list(workers._threads):
        thread.join(10)
    assert not workers._threads
    done.clear()
    assert workers.run(done.set)
    assert done.wait(10)
    workers.close(5)


def test_close_does_not_wait_for_what_hangs_for_ever() -> None:
    workers, stuck, began = Workers("hung"), threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        stuck.wait()

    workers.run(hang)
    assert began.wait(10)
    workers.close(0.01)
    stuck.set()


def test_close_from_within_a_job() -> None:
    workers, done = Workers("within"), threading.Event()

    def job() -> None:
        workers.close(5)
        done.set()

    workers.run(job)
    assert done.wait(10)


def test_a_job_that_raises_ends_no_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_THREADS", 1)
    workers, done = Workers("raises"), threading.Event()
    for error in (ValueError, SystemExit):

        def job(error: type[BaseException] = error) -> None:
            raise error

        assert workers.run(job)
    assert workers.run(done.set)
    assert done.wait(10)
    assert [record.message for record in caplog.records] == [
        "a job raised; its thread goes on with the next"
    ] * 2
    workers.close(5)
