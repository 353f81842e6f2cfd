"""The power goes, or the disk refuses, at every operation; what was acknowledged is there afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.errors import StorageError
from tega_zmq.log import Options
from tests.fakedisk import Crashed, FakeDisk
from tests.logkit import FOLDER, SMALL, start, state, take_restart, take_snapshot

PAYLOADS = [b"", b"a", b"b" * 60, b"\0" * 100, b"c" * 400, b"\0" * 700, b"d" * 1300]


class Writer:
    """Writes batches and snapshots from a seed; knows what it was told is durable."""

    def __init__(self, rng: random.Random, options: Options) -> None:
        self.rng = rng
        self.options = options
        self.told: list[bytes] = []
        """What was acknowledged."""
        self.written: list[bytes] = []
        """With what may have arrived beyond it."""
        self.synced = 0
        """How many were certainly synced."""

    def run(self, disk: FakeDisk, rounds: int) -> None:
        """Start, find all that was acknowledged, write on; ends early if the disk crashes."""
        opened = start(disk, self.options)
        found = state(opened)
        self.check(found)
        self.told = self.written = found
        # What a start found is durable, whatever happens next.
        self.synced = len(found)
        log = opened.log
        for _ in range(rounds):
            try:
                self.step(log)
            except StorageError:
                assert log.last == len(self.told)
                with pytest.raises(StorageError, match="takes no writes"):
                    log.append_batch([b"refused"])
                with pytest.raises(StorageError, match="takes no writes"):
                    log.sync()
                if self.rng.random() < 0.5:
                    break
                for _ in range(3):
                    try:
                        take_restart(log, self.told)
                    except OSError:
                        continue
                    self.written = list(self.told)
                    self.synced = len(self.told)
                    break
                else:
                    break
            except OSError:
                continue  # a snapshot was not made; the log goes on
        try:
            clean = self.rng.random() < 0.5
            log.close(clean=clean)
        except StorageError:
            return
        if not log.failed:
            self.synced = len(self.told)

    def step(self, log: object) -> None:
        from tega_zmq.log import Log

        assert isinstance(log, Log)
        what = self.rng.randrange(10)
        if what == 0:
            if self.told:
                take_snapshot(log, self.told)
                self.synced = len(self.told)
        elif what == 1:
            log.sync()
            self.synced = len(self.told)
        else:
            batch = [
                self.rng.choice(PAYLOADS) + b"%d" % self.rng.randrange(99)
                for _ in range(self.rng.randrange(1, 5))
            ]
            self.written = self.told + batch
            assert log.append_batch(batch) == len(self.told) + len(batch)
            self.told = self.written
            self.synced = max(self.synced, log.synced)

    def check(self, found: list[bytes]) -> None:
        least = len(self.told) if self.options.sync == "always" else self.synced
        assert len(found) >= least, f"{least - len(found)} acknowledged records are gone"
        assert found == self.written[: len(found)]


def crash_at(number: int) -> Callable[[str, str], None]:
    left = number

    def fault(what: str, path: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crashed

    return fault


@pytest.mark.parametrize("sync", ["always", "interval"])
@pytest.mark.parametrize("seed", range(3))
def test_the_power_goes_at_every_operation(sync: str, seed: int) -> None:
    options = SMALL._replace(sync=sync)
    at = 0
    while True:
        rng = random.Random(seed)
        disk = FakeDisk()
        writer = Writer(rng, options)
        disk.fault = crash_at(at)
        try:
            writer.run(disk, 25)
            break
        except Crashed:
            pass
        for how in range(4):
            after = disk.crashed(random.Random(how))
            # It may go again while the node starts.
            for further in range(2):
                after.fault = crash_at(rng.randrange(40))
                try:
                    found = state(start(after, options))
                except Crashed:
                    after = after.crashed(random.Random(further))
                    continue
                after.fault = lambda what, path: None
                writer.check(found)
                break
            after.locks.clear()
            after.fault = lambda what, path: None
            opened = start(after, options)
            writer.check(state(opened))
            # What was found once is found again, also if the power goes right then.
            found = state(start(after.crashed(random.Random(how)), options))
            assert found == state_again(after, options)
        at += 1
    assert at > 100


def state_again(disk: FakeDisk, options: Options) -> list[bytes]:
    return state(start(disk.killed(), options))


def faulty(
    rng: random.Random, crash: Callable[[str, str], None], errors: float
) -> Callable[[str, str], None]:
    def fault(what: str, path: str) -> None:
        crash(what, path)
        if what not in ("read", "list", "open", "make_folder", "lock") and rng.random() < errors:
            raise OSError(5, "Input/output error", path)

    return fault


@given(
    st.integers(0, 2**32), st.sampled_from(["always", "interval", "none"]), st.sampled_from([0.0, 0.01, 0.05])
)
@settings(max_examples=150, deadline=None)
def test_a_life_of_crashes_kills_and_errors(seed: int, sync: str, errors: float) -> None:
    rng = random.Random(seed)
    options = Options(
        sync=sync, segment=4096 + rng.choice([300, 2000, 20000]), snapshots=rng.choice([1, 2, 3])
    )
    disk = FakeDisk()
    writer = Writer(rng, options)

    for _ in range(8):
        disk.fault = faulty(rng, crash_at(rng.randrange(10, 400)), errors)
        try:
            writer.run(disk, 30)
            disk.killed()
        except Crashed:
            if rng.random() < 0.5:
                disk = disk.crashed(rng)
            else:
                disk.killed()
        except StorageError as error:
            # The start itself met an error of the disk; nothing else may stop it.
            assert error.reason == "Input/output error", error
            disk.killed()
    writer.check(state(start(disk, options)))


@pytest.mark.parametrize("what", ["write", "sync", "create", "allocate", "rename", "sync_folder"])
def test_after_an_error_nothing_is_accepted_until_a_restart(what: str) -> None:
    disk = FakeDisk()
    log = start(disk).log
    told: list[bytes] = []

    def fault(operation: str, path: str) -> None:
        if operation == what:
            raise OSError(28, "No space left on device", path)

    with_error = False
    for number in range(20):
        if number == 2:
            disk.fault = fault
        try:
            log.append_batch([b"x" * 90])
            told.append(b"x" * 90)
        except StorageError as error:
            with_error = True
            assert error.reason == "No space left on device"
            assert FOLDER in error.message
            break
    assert with_error
    disk.fault = lambda operation, path: None
    with pytest.raises(StorageError, match="No space left"):
        log.append_batch([b"y"])
    with pytest.raises(ValueError, match="restart"):
        log.restart(len(told) + 1)
    take_restart(log, told)
    with pytest.raises(ValueError, match="restart"):
        log.restart(len(told))
    log.append_batch([b"z"])
    log.close()
    opened = start(disk.crashed(random.Random(1)))
    assert state(opened) == [*told, b"z"]
    assert opened.report.clean


def test_a_failed_log_is_closed_without_a_mark() -> None:
    disk = FakeDisk()
    log = start(disk).log
    log.append_batch([b"one"])

    def fault(operation: str, path: str) -> None:
        raise OSError(5, "Input/output error")

    disk.fault = fault
    with pytest.raises(StorageError):
        log.append_batch([b"two"])
    log.close()
    disk.killed()
    assert f"{FOLDER}/clean" not in disk.names
    # A stop that cannot be noted is an error, and lets go of the folder.
    opened = start(disk)
    disk.fault = fault
    with pytest.raises(StorageError, match="Input/output error"):
        opened.log.close()
    assert not disk.locks


def test_what_kill_left_in_memory_alone_is_made_durable_by_the_next_start() -> None:
    disk = FakeDisk()
    options = Options(sync="none", segment=1 << 16)
    log = start(disk, options).log
    log.append_batch([b"one", b"two"])
    assert log.synced == 0
    disk.killed()
    assert state(start(disk, options)) == [b"one", b"two"]
    for seed in range(20):
        assert state(start(disk.crashed(random.Random(seed)), options)) == [b"one", b"two"]


def test_what_a_failed_sync_left_in_memory_alone_is_made_durable_by_the_next_start() -> None:
    disk = FakeDisk()
    options = Options(sync="interval", segment=1 << 16)
    log = start(disk, options).log
    log.append_batch([b"one", b"two"])

    def fault(operation: str, path: str) -> None:
        if operation in ("sync", "truncate"):
            raise OSError(5, "Input/output error")

    disk.fault = fault
    with pytest.raises(StorageError):
        log.sync()
    disk.killed()
    found = state(start(disk, options))
    assert found == [b"one", b"two"]
    for seed in range(20):
        assert state(start(disk.crashed(random.Random(seed)), options)) == found


def test_a_restart_that_was_killed_leaves_nothing_in_memory_alone() -> None:
    disk = FakeDisk()
    options = Options(sync="interval", segment=1 << 16)
    log = start(disk, options).log
    log.append_batch([b"one", b"two"])

    def fault(operation: str, path: str) -> None:
        if operation in ("sync", "truncate"):
            raise OSError(5, "Input/output error")

    disk.fault = fault
    with pytest.raises(StorageError):
        log.sync()
    disk.fault = lambda operation, path: None
    log.restart(2)  # the segment is there, the snapshot is not
    disk.killed()
    opened = start(disk, options)
    assert state(opened) == [b"one", b"two"]
    opened.log.append_batch([b"three"])
    opened.log.sync()
    for seed in range(20):
        assert state(start(disk.crashed(random.Random(seed)), options)) == [b"one", b"two", b"three"]


def test_the_tail_that_failed_is_cut_off_if_the_disk_still_can() -> None:
    disk = FakeDisk()
    options = Options(segment=1 << 16)
    log = start(disk, options).log
    log.append_batch([b"one"])
    syncs = iter([OSError(5, "Input/output error")])

    def fault(operation: str, path: str) -> None:
        if operation == "sync" and (error := next(syncs, None)) is not None:
            raise error

    disk.fault = fault
    with pytest.raises(StorageError):
        log.append_batch([b"two"])
    disk.killed()
    assert not [path for path in disk.names if b"two" in disk.content(path)]
    assert state(start(disk, options)) == [b"one"]


def test_a_name_that_was_not_synced_when_the_process_was_killed_is_so_at_the_next_start() -> None:
    disk = FakeDisk()

    def fault(operation: str, path: str) -> None:
        if operation == "sync_folder" and path.endswith("/log"):
            raise Crashed

    disk.fault = fault
    with pytest.raises(Crashed):
        start(disk)
    disk.killed()
    start(disk).log.append_batch([b"one"])
    for seed in range(20):
        assert state(start(disk.crashed(random.Random(seed)))) == [b"one"]


def test_the_mark_of_an_orderly_stop_does_not_come_back() -> None:
    options = Options(sync="interval", segment=1 << 16)
    for seed in range(20):
        disk = FakeDisk()
        start(disk, options).log.close()
        opened = start(disk, options)
        assert opened.report.clean
        opened.log.append_batch([b"told, and lost"])
        assert not start(disk.crashed(random.Random(seed)), options).report.clean
