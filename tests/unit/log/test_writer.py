"""The writer thread: what it tells, in which order, and what happens when the disk refuses."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from tega_zmq.errors import StorageError
from tega_zmq.log import Durable, Event, Failed, LogThread, Options, SnapshotDone, SnapshotFailed, Waits
from tega_zmq.log.framing import MAX_PAYLOAD, record_size
from tests.fakedisk import FakeDisk
from tests.logkit import SMALL, outcome, start, state

BIG = Options(segment=1 << 20)


class Loop:
    """Stands for the node's loop: waits to be woken, and polls."""

    def __init__(self, disk: FakeDisk, options: Options = BIG, *, begin: bool = True) -> None:
        self.disk = disk
        self.opened = start(disk, options)
        self.found = state(self.opened)
        self.woken = threading.Semaphore(0)
        self.events: list[Event] = []
        self.pauses: list[float] = []
        self.thread = LogThread(self.opened.log, wake=self.woken.release, sleep=self.pauses.append)
        if begin:
            self.thread.start()

    def until(self, done: Callable[[list[Event]], bool]) -> list[Event]:
        while not done(self.events):
            assert self.woken.acquire(timeout=20), self.events
            self.events += self.thread.poll()
        return self.events

    def durable(self, lsn: int) -> None:
        self.until(lambda events: any(isinstance(event, Durable) and event.lsn >= lsn for event in events))

    def ended(self, kind: type) -> Event:
        self.until(lambda events: any(isinstance(event, kind) for event in events))
        return next(event for event in self.events if isinstance(event, kind))


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_what_is_appended_becomes_durable_in_order(disk: FakeDisk, sync: str) -> None:
    options = BIG._replace(sync=sync, interval=0.01)
    loop = Loop(disk, options)
    payloads = [b"%d" % number for number in range(500)]
    assert [loop.thread.append(payload) for payload in payloads] == list(range(1, 501))
    loop.durable(500)
    told = [event.lsn for event in loop.events if isinstance(event, Durable)]
    assert told == sorted(told)
    assert loop.thread.close()
    assert loop.thread.close()
    assert loop.thread.poll() == []
    opened = start(disk, options)
    assert state(opened) == payloads
    assert opened.report.clean


def test_records_gather_while_a_sync_runs(disk: FakeDisk) -> None:
    loop = Loop(disk)
    syncing, go = threading.Event(), threading.Event()

    def fault(what: str, path: str) -> None:
        if what == "sync":
            syncing.set()
            assert go.wait(20)

    disk.fault = fault
    loop.thread.append(b"first")
    assert syncing.wait(20)
    for number in range(64):
        loop.thread.append(b"%d" % number)
    assert loop.thread.poll() == []
    go.set()
    loop.durable(65)
    assert loop.events == [Durable(1), Durable(65)]
    loop.thread.close()


def test_a_batch_has_a_bound(disk: FakeDisk) -> None:
    loop = Loop(disk, begin=False)
    for number in range(5000):
        loop.thread.append(b"%d" % number)
    for _ in range(3):
        loop.thread.append(bytes(range(256)) * 2400)
    loop.thread.start()
    loop.durable(5003)
    assert loop.events[0] == Durable(4096)
    assert len(loop.events) == 3
    loop.thread.close()


def test_an_interval_is_kept_also_when_nothing_more_comes(disk: FakeDisk) -> None:
    loop = Loop(disk, BIG._replace(sync="interval", interval=0.01))
    synced = threading.Event()
    disk.fault = lambda what, path: synced.set() if what == "sync" else None
    loop.thread.append(b"one")
    assert synced.wait(20)
    loop.thread.close()


def test_an_interval_is_kept_also_when_more_comes_all_the_time(disk: FakeDisk) -> None:
    loop = Loop(disk, BIG._replace(sync="interval", interval=0.001))
    synced = threading.Event()
    disk.fault = lambda what, path: synced.set() if what == "sync" else None
    for number in range(100_000):
        loop.thread.append(b"%d" % number)
        if synced.is_set():
            break
    assert synced.wait(20)
    loop.thread.close()


def test_a_queue_that_is_never_empty_does_not_put_off_the_sync(disk: FakeDisk) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    opened = start(disk, BIG._replace(sync="interval", interval=1.0))
    thread = LogThread(opened.log, wake=lambda: None, clock=clock)
    for number in range(3 * 4096):
        thread.append(b"%d" % number)
    disk.steps.clear()
    assert thread.close()
    order = [what for what, path in disk.steps if ".log" in path and what in ("write", "sync")]
    assert order == ["write", "sync"] * 3


def test_a_record_that_is_too_long_is_refused_at_once(disk: FakeDisk) -> None:
    loop = Loop(disk)

    class Long(bytes):
        def __len__(self) -> int:
            return MAX_PAYLOAD + 1

    with pytest.raises(ValueError, match="at most"):
        loop.thread.append(Long())
    with pytest.raises(TypeError, match="bytearray"):
        loop.thread.append(bytearray(b"x"))  # type: ignore[arg-type]
    assert loop.thread.append(b"next") == 1
    loop.thread.close()


# -- snapshots -----------------------------------------------------------------------------------------


def test_a_snapshot_is_written_beside_the_log(disk: FakeDisk) -> None:
    loop = Loop(disk, SMALL._replace(snapshots=1))
    payloads = [b"x" * 90 + b"%d" % number for number in range(20)]
    for payload in payloads[:15]:
        loop.thread.append(payload)
    loop.durable(15)
    assert loop.thread.size_since_snapshot == sum(record_size(len(payload)) for payload in payloads[:15])
    gate = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield from payloads[:10]
        assert gate.wait(20)
        yield from payloads[10:15]

    loop.thread.snapshot(15, chunks)
    for payload in payloads[15:]:
        loop.thread.append(payload)
    loop.durable(20)
    # Only one at a time.
    loop.thread.snapshot(20, lambda: payloads)
    refused = loop.ended(SnapshotFailed)
    assert isinstance(refused, SnapshotFailed)
    assert "another" in refused.reason
    gate.set()
    done = loop.ended(SnapshotDone)
    assert isinstance(done, SnapshotDone)
    assert done.lsn == 15
    assert done.bytes > 15 * 90
    assert done.seconds >= 0
    assert loop.thread.size_since_snapshot == sum(record_size(len(payload)) for payload in payloads[15:])
    assert loop.thread.close()
    opened = start(disk)
    assert opened.report.snapshot == 15
    assert state(opened) == payloads
    assert min(int(path[-24:-4]) for path in disk.names if path.endswith(".log")) > 1


def test_a_snapshot_counts_only_when_the_log_is_synced_up_to_it(disk: FakeDisk) -> None:
    loop = Loop(disk, BIG._replace(sync="none"))
    loop.thread.append(b"one")
    loop.durable(1)
    assert loop.opened.log.synced == 0
    disk.steps.clear()
    loop.thread.snapshot(1, lambda: [b"one"])
    loop.ended(SnapshotDone)
    loop.thread.close()
    order = [step for step in disk.steps if step[0] == "rename" or (step[0] == "sync" and ".log" in step[1])]
    assert order[0][0] == "sync"
    assert order[1][0] == "rename"


def test_a_snapshot_pauses_for_the_loop(disk: FakeDisk) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0004
        return now

    opened = start(disk, BIG)
    pauses: list[float] = []
    woken = threading.Semaphore(0)
    thread = LogThread(opened.log, wake=woken.release, clock=clock, sleep=pauses.append)
    thread.start()
    opened.log.append_batch([b"x"])
    thread.snapshot(1, lambda: [b"part"] * 100)
    assert woken.acquire(timeout=20)
    assert isinstance(thread.poll()[0], SnapshotDone)
    assert 20 < len(pauses) < 60
    thread.close()


@pytest.mark.parametrize("chunks", [lambda: iter([b""]), lambda: 1 // 0, lambda: [b"fine", 1 // 0]])
def test_a_snapshot_that_fails_leaves_the_log_alone(
    disk: FakeDisk, chunks: Callable[[], Iterable[bytes]]
) -> None:
    loop = Loop(disk)
    loop.thread.append(b"one")
    loop.durable(1)
    loop.thread.snapshot(1, chunks)
    loop.ended(SnapshotFailed)
    loop.thread.append(b"two")
    loop.durable(2)
    loop.thread.close()
    assert outcome(disk)[0] == [b"one", b"two"]  # type: ignore[index]
    assert not [path for path in disk.names if path.endswith((".snap", ".tmp"))]


def test_a_disk_that_refuses_the_snapshot_does_not_stop_the_log(disk: FakeDisk) -> None:
    loop = Loop(disk)
    loop.thread.append(b"one")
    loop.durable(1)

    def fault(what: str, path: str) -> None:
        if "snapshot" in path and what in ("write", "remove"):
            raise OSError(28, "No space left on device")

    disk.fault = fault
    loop.thread.snapshot(1, lambda: [b"one"])
    failed = loop.ended(SnapshotFailed)
    assert failed == SnapshotFailed("No space left on device")
    disk.fault = lambda what, path: None
    loop.thread.snapshot(1, lambda: [b"one"])
    loop.ended(SnapshotDone)
    loop.thread.close()


def test_what_cannot_be_removed_stays_and_does_no_harm(disk: FakeDisk) -> None:
    loop = Loop(disk, SMALL._replace(snapshots=1))
    for _ in range(20):
        loop.thread.append(b"x" * 90)
    loop.durable(20)

    def fault(what: str, path: str) -> None:
        if what == "remove":
            raise OSError(1, "Operation not permitted")

    disk.fault = fault
    loop.thread.snapshot(20, lambda: [b"x" * 90] * 20)
    loop.ended(SnapshotDone)
    loop.thread.close()
    disk.fault = lambda what, path: None
    assert outcome(disk)[0] == [b"x" * 90] * 20  # type: ignore[index]


def test_a_stop_gives_up_the_snapshot_that_is_being_written(disk: FakeDisk) -> None:
    loop = Loop(disk)
    loop.thread.append(b"one")
    loop.durable(1)

    def forever() -> Iterator[bytes]:
        while True:
            yield b"part"

    loop.thread.snapshot(1, forever)
    assert loop.thread.close()
    assert loop.thread.poll() == [SnapshotFailed("the program stops")]
    assert start(disk).report.clean


# -- failures ------------------------------------------------------------------------------------------


def broken(what: str, path: str) -> None:
    if what in ("write", "sync", "truncate"):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_after_a_failure_nothing_is_taken_until_the_restart(disk: FakeDisk, sync: str) -> None:
    loop = Loop(disk, BIG._replace(sync=sync, interval=0.01))
    loop.thread.append(b"one")
    loop.durable(1)
    with pytest.raises(ValueError, match="not failed"):
        loop.thread.restart(1, list)
    disk.fault = broken
    loop.thread.append(b"two")
    failed = loop.ended(Failed)
    assert failed == Failed("Input/output error", 1)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        loop.thread.append(b"three")
    assert caught.value.outcome == "none"
    loop.thread.snapshot(1, lambda: [b"one"])
    loop.ended(SnapshotFailed)
    loop.events.clear()
    # The disk still refuses.
    loop.thread.restart(1, lambda: [b"one"])
    with pytest.raises(ValueError, match="being restarted"):
        loop.thread.restart(1, lambda: [b"one"])
    loop.thread.snapshot(1, lambda: [b"one"])
    loop.until(lambda events: events.count(SnapshotFailed("Input/output error")) == 1 and len(events) == 2)
    with pytest.raises(StorageError):
        loop.thread.append(b"three")
    disk.fault = lambda what, path: None
    loop.thread.restart(1, lambda: [b"one"])
    loop.ended(SnapshotDone)
    assert loop.thread.size_since_snapshot == 0
    assert loop.thread.append(b"other two") == 2
    loop.durable(2)
    assert loop.thread.close()
    opened = start(disk)
    assert state(opened) == [b"one", b"other two"]
    assert opened.report.clean


def test_what_was_appended_before_the_failure_was_seen_is_dropped(disk: FakeDisk) -> None:
    loop = Loop(disk)
    disk.fault = broken
    assert [loop.thread.append(b"lost") for _ in range(5)] == [1, 2, 3, 4, 5]
    assert loop.woken.acquire(timeout=20)
    loop.woken.release()
    # The loop has not looked yet.
    assert loop.thread.append(b"lost too") == 6
    loop.until(lambda events: Failed("Input/output error", 0) in events)
    disk.fault = lambda what, path: None
    loop.thread.restart(0, list)
    loop.ended(SnapshotDone)
    assert loop.thread.append(b"found") == 1
    loop.thread.close()
    assert loop.events.count(Failed("Input/output error", 0)) == 1
    assert outcome(disk)[0] == [b"found"]  # type: ignore[index]


def test_a_snapshot_in_progress_ends_before_the_restart_begins(disk: FakeDisk) -> None:
    loop = Loop(disk)
    loop.thread.append(b"one")
    loop.durable(1)
    gate = threading.Event()

    def chunks() -> Iterator[bytes]:
        assert gate.wait(20)
        yield b"one"

    loop.thread.snapshot(1, chunks)
    disk.fault = broken
    loop.thread.append(b"two")
    loop.ended(Failed)
    disk.fault = lambda what, path: None
    loop.thread.restart(1, lambda: [b"one"])
    gate.set()
    loop.ended(SnapshotDone)
    assert [type(event) for event in loop.events[-2:]] == [SnapshotFailed, SnapshotDone]
    assert loop.thread.append(b"other two") == 2
    loop.durable(2)
    loop.thread.close()
    assert outcome(disk)[0] == [b"one", b"other two"]  # type: ignore[index]


def test_an_error_of_the_program_is_a_failure_too(disk: FakeDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(disk)

    def wrong(payloads: object) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(loop.opened.log, "append_batch", wrong)
    loop.thread.append(b"one")
    failed = loop.ended(Failed)
    assert isinstance(failed, Failed)
    assert "a bug" in failed.reason
    assert not loop.thread.close()


def test_a_stop_that_cannot_be_noted_says_so(disk: FakeDisk) -> None:
    loop = Loop(disk, BIG._replace(sync="none"))
    loop.thread.append(b"one")
    loop.durable(1)
    disk.fault = broken
    assert not loop.thread.close()
    assert loop.thread.poll() == [Failed("Input/output error", 1)]
    assert not disk.locks


def test_a_loop_that_cannot_be_woken_harms_nobody(disk: FakeDisk) -> None:
    opened = start(disk)

    def wake() -> None:
        raise OSError("closed")

    thread = LogThread(opened.log, wake=wake)
    thread.append(b"one")
    assert thread.close()  # starts the writer, if nobody did
    assert thread.poll() == [Durable(1)]
    assert outcome(disk)[0] == [b"one"]  # type: ignore[index]


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_who_appends_rings_only_if_the_writer_sleeps(
    disk: FakeDisk, sync: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(disk, BIG._replace(sync=sync, interval=0.005), begin=False)
    rung = 0
    eventfd_write = os.eventfd_write

    def ring(fd: int, value: int) -> None:
        nonlocal rung
        rung += 1
        eventfd_write(fd, value)

    monkeypatch.setattr(os, "eventfd_write", ring)
    for number in range(3):
        loop.thread.append(b"%d" % number)
    assert rung == 0
    descriptors = set(os.listdir("/proc/self/fd"))
    loop.thread.start()
    loop.durable(3)
    syncing, go = threading.Event(), threading.Event()

    def fault(what: str, path: str) -> None:
        if what == "write":
            syncing.set()
            assert go.wait(20)

    for _ in range(3):
        while not loop.thread._idle:
            loop.woken.acquire(timeout=0.001)  # one that is left from what was polled together
        disk.fault = fault
        loop.thread.append(b"rings")
        assert syncing.wait(20)
        before = rung
        loop.thread.append(b"waits")
        assert rung == before
        go.set()
        loop.durable(loop.thread.append(b"perhaps"))
        disk.fault = lambda what, path: None
        syncing.clear()
        go.clear()
    assert 3 <= rung <= 6
    assert loop.thread.close()
    assert set(os.listdir("/proc/self/fd")) <= descriptors


def test_a_ring_for_what_was_taken_already_harms_nobody(disk: FakeDisk) -> None:
    loop = Loop(disk)
    for number in range(1, 20):
        loop.thread._ring()
        loop.thread.append(b"%d" % number)
        loop.durable(number)
        loop.thread._ring()
    assert loop.thread.close()
    assert [event for event in loop.events if not isinstance(event, Durable)] == []


def test_a_stop_without_the_mark(disk: FakeDisk) -> None:
    loop = Loop(disk)
    loop.thread.append(b"one")
    assert loop.thread.close(clean=False)
    assert not start(disk).report.clean


def test_a_stop_before_the_start_ends_the_snapshot_too(disk: FakeDisk) -> None:
    loop = Loop(disk, begin=False)
    loop.thread.append(b"one")
    loop.thread.snapshot(0, list)
    assert loop.thread.close()
    assert Durable(1) in loop.thread.poll()
    assert outcome(disk)[0] == [b"one"]  # type: ignore[index]


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_syncs_are_counted_by_how_long_they_took(disk: FakeDisk, sync: str) -> None:
    loop = Loop(disk, BIG._replace(sync=sync, interval=0.01), begin=False)
    ticks = iter(range(1000))
    loop.thread._clock = lambda: next(ticks) * 0.3
    for number in range(3):
        loop.thread.append(b"%d" % number)
        loop.thread._take(loop.thread._queue.popleft())
    syncs = loop.thread.syncs
    assert (sum(syncs.counts), syncs.counts[syncs.bounds.index(0.5)]) == (3, 3)
    assert syncs.seconds == pytest.approx(0.9)
    assert len(syncs.counts) == len(syncs.bounds) + 1
    loop.thread.close()


def test_several_records_are_handed_over_at_once(disk: FakeDisk) -> None:
    loop = Loop(disk)
    assert loop.thread.append(b"one", b"two", b"three") == 3
    assert loop.thread.append(*[b"%d" % number for number in range(5000)]) == 5003
    with pytest.raises(TypeError):
        loop.thread.append(b"none", bytearray(b"of these"))  # type: ignore[arg-type]
    assert loop.thread.append(b"last") == 5004
    loop.durable(5004)
    assert loop.thread.close()


def test_records_wait_while_no_file_can_be_opened(disk: FakeDisk) -> None:
    loop = Loop(disk, SMALL)
    payloads = [b"%d" % at + b"x" * 250 for at in range(3)]
    loop.thread.append(*payloads[:2])
    loop.durable(2)
    tries = 0

    def fault(what: str, path: str) -> None:
        nonlocal tries
        if what == "create" and tries < 5:
            tries += 1
            raise OSError(errno.EMFILE, "Too many open files")

    disk.fault = fault
    loop.thread.append(payloads[2])
    loop.durable(3)
    assert [event for event in loop.events if not isinstance(event, Durable)] == [
        Waits("Too many open files")
    ]
    assert len(loop.pauses) == 5
    assert loop.thread.close()
    assert outcome(disk)[0] == payloads  # type: ignore[index]


def test_a_stop_does_not_wait_for_descriptors_for_ever(disk: FakeDisk) -> None:
    loop = Loop(disk, SMALL)
    payloads = [b"%d" % at + b"x" * 250 for at in range(3)]
    loop.thread.append(*payloads[:2])
    loop.durable(2)

    def fault(what: str, path: str) -> None:
        if what == "create":
            raise OSError(errno.ENFILE, "Too many open files in system")

    disk.fault = fault
    loop.thread.append(payloads[2])
    assert not loop.thread.close()
    loop.events += loop.thread.poll()
    assert isinstance(loop.events[-1], Failed) and loop.events[-1].durable_lsn == 2
    assert outcome(disk.killed())[0] == payloads[:2]  # type: ignore[index]
