"""Opening a log: what is refused, and how it is said; a log on a real file system."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tega_zmq.errors import StorageError
from tega_zmq.log import Options, OsDisk, open_log
from tega_zmq.log.commitlog import HeldUp
from tega_zmq.log.framing import MAX_PAYLOAD
from tests.fakedisk import FakeDisk
from tests.logkit import FOLDER, SMALL, outcome, start, state, take_snapshot


@pytest.mark.parametrize(
    "options",
    [
        Options(sync="sometimes"),
        Options(interval=0),
        Options(snapshots=0),
        Options(segment=4096),
    ],
)
def test_options_out_of_bounds(options: Options) -> None:
    disk = FakeDisk()
    with pytest.raises(ValueError, match=r"sync is|out of bounds"):
        start(disk, options)
    assert disk.steps == []


@pytest.mark.parametrize("store", ["", "x" * 49, "ä", "a\nb"])
def test_an_id_that_cannot_be(store: str) -> None:
    disk = FakeDisk()
    with pytest.raises(ValueError, match="printable"):
        start(disk, store=store)
    assert not disk.locks


def test_a_folder_that_another_process_holds_is_named_with_its_process() -> None:
    disk = FakeDisk()
    opened = start(disk)
    with pytest.raises(StorageError, match=f"{FOLDER} is in use by process 4711"):
        start(disk)
    opened.log.close()
    start(disk)


def test_an_unknown_process_is_said_to_be_another(tmp_path: Path) -> None:
    opened = open_log(OsDisk(), str(tmp_path), Options(), new_id=lambda: "s")
    (tmp_path / "lock").write_text("")
    with pytest.raises(StorageError, match="in use by another process"):
        open_log(OsDisk(), str(tmp_path), Options(), new_id=lambda: "s")
    opened.log.close()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StorageError, match=r"data folder .*/data cannot be used") as caught:
        open_log(OsDisk(), f"{tmp_path}/data", Options(), new_id=lambda: "s")
    assert caught.value.reason


@pytest.mark.parametrize("what", ["make_folder", "lock", "create", "allocate", "sync", "read"])
def test_a_folder_that_cannot_be_written_or_read(what: str) -> None:
    disk = FakeDisk()
    if what == "read":
        start(disk).log.close()

    def fault(operation: str, path: str) -> None:
        if operation == what:
            raise PermissionError(13, "Permission denied", path)

    disk.fault = fault
    with pytest.raises(
        StorageError, match=rf"{FOLDER} cannot be used: {FOLDER}.*: Permission denied"
    ) as caught:
        start(disk)
    assert caught.value.reason == "Permission denied"
    assert not disk.locks


def test_batches() -> None:
    disk = FakeDisk()
    log = start(disk).log
    assert log.append_batch([]) == 0
    assert log.append_batch([b"one", b"two"]) == 2
    log.sync()

    class Long(bytes):
        def __len__(self) -> int:
            return MAX_PAYLOAD + 1

    with pytest.raises(ValueError, match="at most"):
        log.append_batch([b"three", Long()])
    assert log.append_batch([b"three"]) == 3
    log.close()
    assert state(start(disk)) == [b"one", b"two", b"three"]


def test_what_changes_between_check_and_reading_is_an_error() -> None:
    disk = FakeDisk()
    log = start(disk).log
    log.append_batch([b"one"])
    take_snapshot(log, [b"one"])
    log.append_batch([b"two"])
    log.close(clean=False)
    opened = start(disk)
    for path in list(disk.names):
        if path.endswith((".log", ".snap")):
            content = bytearray(disk.content(path))
            content[4096 + 48 + 41 if path.endswith(".log") else 110] ^= 1
            disk.put(path, bytes(content))
    with pytest.raises(StorageError, match="a moment ago"):
        list(opened.records)
    with pytest.raises(OSError, match="changed while it was read"):
        list(opened.snapshot)


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_a_log_on_a_real_file_system(tmp_path: Path, sync: str) -> None:
    options = Options(sync=sync, segment=20_000)
    folder = f"{tmp_path}/below/data"
    payloads: list[bytes] = []
    for round_number in range(4):
        opened = open_log(OsDisk(), folder, options, new_id=lambda: "s")
        assert [*opened.snapshot, *(payload for _, payload in opened.records)] == payloads
        for number in range(100):
            batch = [os.urandom(number) + b"%d" % number, bytes(number * 5) + b"."]
            payloads += batch
            opened.log.append_batch(batch)
            if number == 50:
                take_snapshot(opened.log, payloads)
        opened.log.close(clean=round_number % 2 == 0)
    assert len(os.listdir(f"{folder}/snapshot")) == 2


@pytest.mark.parametrize("sync", ["always", "interval"])
@pytest.mark.parametrize("step", ["create", "rename", "sync_folder"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_a_descriptor_for_a_new_segment_nothing_is_touched(sync: str, step: str, number: int) -> None:
    disk = FakeDisk()
    log = start(disk, SMALL._replace(sync=sync)).log
    payloads = [b"%d" % at + b"x" * 200 for at in range(6)]
    log.append_batch(payloads[:2])

    def fault(what: str, path: str) -> None:
        if what == step:
            raise OSError(number, "no descriptor")

    disk.fault = fault
    for _ in range(3):
        with pytest.raises(HeldUp):
            log.append_batch(payloads[2:4])
        assert (log.last, log.failed) == (2, "")
        assert outcome(disk.copy())[0] == payloads[:2]  # type: ignore[index]
    with pytest.raises(HeldUp):
        log.append_batch([b"small"])  # there is room where the log stands, but the new file may be there
    disk.fault = lambda what, path: None
    log.append_batch([b"small"])
    log.append_batch(payloads[2:4])
    log.append_batch(payloads[4:])
    log.close()
    assert outcome(disk)[0] == [*payloads[:2], b"small", *payloads[2:]]  # type: ignore[index]
