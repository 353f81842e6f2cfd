"""A data folder as it is, for reports."""

from __future__ import annotations

from tega_zmq.log import FoundSegment, FoundSnapshot, scan, segment, snapshot
from tega_zmq.log.fileheader import Header
from tests.fakedisk import FakeDisk
from tests.logkit import FOLDER, start, take_snapshot


def test_whole_and_broken_files_are_told_apart() -> None:
    disk = FakeDisk()
    log = start(disk).log
    payloads: list[bytes] = []
    for number in range(24):
        payloads.append(b"%d" % number * 20)
        log.append_batch([payloads[-1]])
        if number in (5, 7):
            take_snapshot(log, payloads)
    log.close()
    found = list(scan(disk, FOLDER))
    snapshots = [each for each in found if isinstance(each, FoundSnapshot)]
    segments = [each for each in found if isinstance(each, FoundSegment)]
    assert [(each.lsn, each.header) for each in snapshots] == [
        (6, Header("store-1", 1, 1, 6, 0)),
        (8, Header("store-1", 1, 1, 8, 0)),
    ]
    # They hold text, as tests of the log alone do, and no store.
    assert all(each.problem.startswith("its content is no store") for each in snapshots)
    assert snapshots[0].size == len(disk.content(f"{FOLDER}/{snapshots[0].file}"))
    assert [each.end for each in segments] == ["seal"] * (len(segments) - 1) + ["end"]
    assert [each.last + 1 for each in segments[:-1]] == [each.first for each in segments[1:]]
    assert segments[-1].last == 24
    assert segments[0].length == 4096 + 600
    assert all(not each.problem for each in segments)

    path = f"{FOLDER}/snapshot/{snapshot.name_of(6)}"
    disk.put(path, b"x" * 99)
    first, second, third = segments[:3]
    disk.put(f"{FOLDER}/{first.file}", b"")
    content = bytearray(disk.content(f"{FOLDER}/{second.file}"))
    content[4096 + 45] ^= 1
    disk.put(f"{FOLDER}/{second.file}", bytes(content))
    disk.put(f"{FOLDER}/{third.file}", disk.content(f"{FOLDER}/{third.file}")[: 4096 + 60])
    before = disk.copy()
    bad = list(scan(disk, FOLDER))
    assert isinstance(bad[0], FoundSnapshot)
    assert (bad[0].header, bad[0].size) == (None, 99)
    assert "header" in bad[0].problem
    empty, damaged, torn = bad[2:5]
    assert isinstance(empty, FoundSegment)
    assert isinstance(damaged, FoundSegment)
    assert isinstance(torn, FoundSegment)
    assert (empty.end, empty.problem, empty.last) == ("header", "the file is empty", 0)
    assert (damaged.end, damaged.offset, damaged.last) == ("damage", 4096, second.first - 1)
    assert damaged.synced == second.last
    assert "checksum" in damaged.problem
    assert (torn.end, torn.offset, torn.last) == ("torn", 4096, third.first - 1)
    assert {path: disk.content(path) for path in disk.names} == {
        path: before.content(path) for path in before.names
    }
    assert list(scan(disk, "/nowhere")) == []
    assert segment.name_of(first.first) in first.file
