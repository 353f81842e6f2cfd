"""Flipped bytes, and files that are swapped, missing, empty, doubled, half written or not ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tega_zmq.errors import StorageError
from tega_zmq.log import segment, snapshot
from tega_zmq.log.fileheader import SEGMENT, Header, unpack
from tests.knifekit import FOLDER, MemoryDisk, Written, named, start, start_store, written


def whole_or_refused(log: Written, disk: MemoryDisk) -> StorageError | None:
    """A start leads to every acknowledged commit, or is refused by file, offset and revision."""
    made = start(disk.copy(), log.options)
    if isinstance(made, StorageError):
        named(made)
        return made
    assert made.report.last == len(log.payloads)
    assert made.payloads == list(enumerate(log.payloads, 1))[made.report.snapshot :]
    if made.report.snapshot not in log.checked:
        # From the same snapshot, the same records make the same store: once for each is enough.
        log.checked.add(made.report.snapshot)
        assert start_store(disk, log.options) == log.states[-1]
    return None


def files(log: Written, where: str) -> list[str]:
    return sorted(path for path in log.disk.files if path.startswith(f"{FOLDER}/{where}/"))


@pytest.mark.parametrize("clean", [False, True])
def test_every_byte_flipped(clean: bool) -> None:
    log = written(40, segment_size=1100, snapshot_each=2, clean=clean)
    assert len(files(log, "log")) > 2
    assert len(files(log, "snapshot")) == 2
    refused = 0
    for path in sorted(log.disk.files):
        data = log.disk.files[path]
        for at in range(len(data)):
            if path.endswith(".log") and (104 < at < 4090 or at > len(data.rstrip(b"\0")) + 50) and at % 64:
                continue  # of the empty parts, a sample
            disk = log.disk.copy()
            disk.files[path] = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
            error = whole_or_refused(log, disk)
            if error is not None:
                refused += 1
                told = named(error)
                assert told.path == path, at
                assert told.offset <= at
                if at >= 4096:
                    header = unpack(SEGMENT, data)
                    assert isinstance(header, Header)
                    places = {offset: lsn for lsn, offset, _ in segment.walk_over(data, header)}
                    # The record that was hit, or the free place behind the last one.
                    assert (
                        told.lsn == max((lsn for offset, lsn in places.items() if offset <= at), default=0)
                        or told.offset not in places
                    )
    assert refused > 500


def test_files_swapped() -> None:
    log = written(120, segment_size=1500, snapshot_each=4)
    for where in ("log", "snapshot"):
        paths = files(log, where)
        for one in paths:
            for other in paths:
                if one < other:
                    disk = log.disk.copy()
                    disk.files[one], disk.files[other] = disk.files[other], disk.files[one]
                    error = whole_or_refused(log, disk)
                    assert error is None or "mixed up" in error.message or where == "snapshot"


@pytest.mark.parametrize("snapshots", [0, 3])
@pytest.mark.parametrize("clean", [False, True])
def test_a_file_missing_empty_zeros_or_text(snapshots: int, clean: bool) -> None:
    log = written(120, segment_size=1500, snapshot_each=snapshots, clean=clean)
    needed = 0
    for path in sorted(log.disk.files):
        for content in (None, b"", b"\0", bytes(len(log.disk.files[path])), b"hello\n" * 1000):
            disk = log.disk.copy()
            if content is None:
                del disk.files[path]
            else:
                disk.files[path] = content
            needed += whole_or_refused(log, disk) is not None
    assert needed > 3


def test_a_file_doubled() -> None:
    """Copied under another name: of another record, of one that comes later, or with a suffix."""
    log = written(120, segment_size=1500, snapshot_each=4)
    last = len(log.payloads)
    for path in files(log, "log") + files(log, "snapshot"):
        folder, name = path.rsplit("/", 1)
        suffix = name.rpartition(".")[2]
        lsn = int(name.split(".")[0])
        names = [f"{number:020d}.{suffix}" for number in (lsn + 1, max(lsn - 1, 0), last + 1, last + 50)]
        for doubled in (*names, name + ".bak", "copy of " + name, name + ".old.log"):
            if f"{folder}/{doubled}" in log.disk.files:
                continue
            disk = log.disk.copy()
            disk.files[f"{folder}/{doubled}"] = disk.files[path]
            error = whole_or_refused(log, disk)
            assert error is None or doubled in names


def half_written(log: Written) -> Iterator[MemoryDisk]:
    for path in files(log, "snapshot"):
        data = log.disk.files[path]
        for cut in range(0, len(data), 31):
            for behind in (b"", bytes(len(data) - cut)):
                disk = log.disk.copy()
                disk.files[path] = data[:cut] + behind
                yield disk
                disk = log.disk.copy()
                disk.files[path + ".tmp"] = data[:cut] + behind
                yield disk


def test_a_snapshot_half_written() -> None:
    log = written(60, segment_size=1500, snapshot_each=2)
    assert len(files(log, "snapshot")) == 2
    for disk in half_written(log):
        # The one before it, and the records since then, hold the same.
        assert whole_or_refused(log, disk) is None


def test_the_only_snapshot_half_written() -> None:
    log = written(60, segment_size=1500, snapshot_each=2, kept=1)
    refused = 0
    for disk in half_written(log):
        error = whole_or_refused(log, disk)
        if error is not None:
            refused += 1
            assert named(error).good == 0
            assert snapshot.FOLDER in error.message
    assert refused > 20


def test_files_of_other_programs() -> None:
    log = written(60, segment_size=1500, snapshot_each=2)
    for name in (
        "README", "log/notes.txt", "log/.nfs0001", "snapshot/lost+found", "log/12.log", "snapshot/x.snap",
        "log/" + "a" * 20 + ".log", "log/" + "\u0661" * 20 + ".log", "uplink.json", "lock", "plugins.json",
    ):  # fmt: skip
        disk = log.disk.copy()
        disk.files[f"{FOLDER}/{name}"] = b"not ours"
        assert whole_or_refused(log, disk) is None
        assert start_store(disk, log.options) == log.states[-1]
        assert name == "lock" or disk.files[f"{FOLDER}/{name}"] == b"not ours"


@pytest.mark.parametrize("clean", [False, True])
def test_garbage_behind_the_log(clean: bool) -> None:
    """Behind the file's end, and in the space that was made ready: what was acknowledged is all there."""
    log = written(60, segment_size=1500, clean=clean)
    path = files(log, "log")[-1]
    data = log.disk.files[path]
    end = -(-len(data.rstrip(b"\0")) // 8) * 8
    first = log.disk.files[files(log, "log")[0]]
    for garbage in (b"\xff", b"x" * 7, b"tRec" * 9, first[4096:4500], b"\0" * 600 + b"y", bytes(range(256))):
        for at in (end, end + 8, end + 16, end + 40, end + 201, len(data), len(data) + 4096):
            disk = log.disk.copy()
            rest = data[:at].ljust(at, b"\0")
            disk.files[path] = rest + garbage + data[len(rest) + len(garbage) :]
            error = whole_or_refused(log, disk)
            if error is not None:
                assert named(error).lsn == len(log.payloads) + 1
                assert named(error).good == log.states[-1].revision
