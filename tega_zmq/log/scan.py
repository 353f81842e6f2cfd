"""Look at a data folder as it is, however broken: for reports and repair. Changes nothing.

`examine` in `recovery` says whether a node may start; this says what stands in each file, `salvage` what can
be made of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tega_zmq.errors import ProtocolError
from tega_zmq.log import marks, segment, snapshot
from tega_zmq.log.disk import Disk
from tega_zmq.log.fileheader import FILE_HEADER, SEGMENT, SNAPSHOT, Header, unpack
from tega_zmq.log.framing import Stop, next_record, seed_of, synced_beyond, walk
from tega_zmq.log.records import revision_of_snapshot

__all__ = ["FoundSegment", "FoundSnapshot", "Stretch", "scan", "store_of"]


class FoundSnapshot(NamedTuple):
    """One snapshot."""

    file: str
    """Within the data folder."""
    lsn: int
    """The last record in it, by its name."""
    header: Header | None
    """None: it is damaged. Its `lsn` is not that of the name if files were mixed up."""
    revision: int | None
    """The revision that it is of; None: it is damaged, or holds no store."""
    size: int
    """Bytes."""
    problem: str
    """What is wrong and where; empty: it is whole."""


class Stretch(NamedTuple):
    """Valid records that follow one another in a segment."""

    first: int
    last: int
    offset: int
    """Where the first one begins, in bytes."""
    end: int
    """Where the last one ends."""


class FoundSegment(NamedTuple):
    """One segment, up to the first place where no valid record stands."""

    file: str
    """Within the data folder."""
    first: int
    """The first record, by its name."""
    last: int
    """The last record before the place where the walk ended; less than the first one: there is none."""
    header: Header | None
    """None: it is damaged, or the file cannot be read. Its `lsn` is not `first` if files were mixed up."""
    length: int
    """Bytes of the file."""
    end: str
    """How the records end: `end`, `seal`, `torn`, `damage` (as in `framing.Stop`); `header`: damaged;
    `unreadable`: the system does not give the file."""
    offset: int
    """Where they end, in bytes."""
    synced: int
    """The highest record that any valid record in this file, also behind the end, vouches to be durable."""
    problem: str
    """What is wrong there; empty: nothing."""
    stretches: tuple[Stretch, ...]
    """All valid records, also those behind the end. Under a damaged header, they are those that are valid in
    a segment of that name."""


def scan(disk: Disk, folder: str) -> Iterator[FoundSnapshot | FoundSegment]:
    """Yield what stands in the data folder: snapshots, then segments, in order.

    A file that cannot be read is a problem of that file. Raises `OSError` if the folders cannot be listed.
    """
    segments = segment.names(disk, folder)
    for lsn, name in snapshot.names(disk, folder):
        yield _snapshot(disk, folder, lsn, name)
    store = store_of(disk, folder)
    for first, name in segments:
        yield _segment(disk, folder, first, f"{segment.LOG}/{name}", store)


def store_of(disk: Disk, folder: str) -> str:
    """Return the id of the store in the folder, or an empty text: nothing there tells it.

    That is what the mark `store` says; without it, what most files say. Raises `OSError` if the folders
    cannot be listed.
    """
    try:
        own = marks.read(disk, folder, "store")
    except OSError:
        own = None
    if isinstance(own, marks.Mark):
        return own.store
    told: Counter[str] = Counter()
    for _, name in segment.names(disk, folder):
        told.update(_store_in(disk, f"{folder}/{segment.LOG}/{name}", SEGMENT))
    for _, name in snapshot.names(disk, folder):
        told.update(_store_in(disk, f"{folder}/{snapshot.FOLDER}/{name}", SNAPSHOT))
    return told.most_common(1)[0][0] if told else ""


def _store_in(disk: Disk, path: str, magic: bytes) -> list[str]:
    try:
        file = disk.open(path)
        try:
            header = unpack(SEGMENT if magic == SEGMENT else SNAPSHOT, file.read(0, FILE_HEADER))
        finally:
            file.close()
    except OSError:
        return []
    return [header.store] if isinstance(header, Header) else []


def _snapshot(disk: Disk, folder: str, lsn: int, name: str) -> FoundSnapshot:
    file = f"{snapshot.FOLDER}/{name}"
    size = 0
    try:
        size = _length(disk, f"{folder}/{file}")
        found = snapshot.examine(disk, folder, name)
    except OSError as error:
        return FoundSnapshot(file, lsn, None, None, size, unreadable(error))
    if isinstance(found, str):
        return FoundSnapshot(file, lsn, None, None, size, found)
    header, size, first = found
    problem = ""
    revision = None
    try:
        revision = revision_of_snapshot(first)
    except ProtocolError as error:
        problem = f"its content is no store: {error.message}"
    if header.lsn != lsn:
        problem = f"it holds the state after record {header.lsn}, not that of its name: files were mixed up"
    return FoundSnapshot(file, lsn, header, revision, size, problem)


def _segment(disk: Disk, folder: str, first: int, file: str, store: str) -> FoundSegment:
    length = 0
    try:
        length = _length(disk, f"{folder}/{file}")
        data = segment.read(disk, folder, first)
    except OSError as error:
        return FoundSegment(file, first, first - 1, None, length, "unreadable", 0, 0, unreadable(error), ())
    header = unpack(SEGMENT, data[:FILE_HEADER])
    if isinstance(header, str):
        seed = seed_of(store, first)
        found, _ = _stretches(data, seed, first)
        synced = synced_beyond(data, seed, 0)
        return FoundSegment(file, first, first - 1, None, length, "header", 0, synced, header, found)
    seed = seed_of(header.store, header.lsn)
    found, stop = _stretches(data, seed, header.lsn)
    problem = stop.why
    if header.lsn != first:
        problem = (
            f"it holds the records from {header.lsn} on, not those that its name says: files were mixed up"
        )
    return FoundSegment(
        file=file,
        first=first,
        last=stop.lsn - 1,
        header=header,
        length=length,
        end=stop.kind,
        offset=stop.offset,
        synced=max(stop.synced, synced_beyond(data, seed, stop.offset)),
        problem=problem,
        stretches=found,
    )


def _stretches(data: bytes, seed: int, first: int) -> tuple[tuple[Stretch, ...], Stop]:
    """Return all runs of valid records, and where the first walk ended."""
    offset, lsn = segment.DATA, first
    found: list[Stretch] = []
    ended: Stop | None = None
    while True:
        stop = segment.drain(walk(data, seed, offset, lsn))
        if stop.lsn > lsn:
            found.append(Stretch(lsn, stop.lsn - 1, offset, stop.offset))
        ended = ended or stop
        following = next_record(data, seed, stop.offset) if stop.kind in ("torn", "damage") else None
        if following is None:
            return tuple(found), ended
        offset, lsn = following


def _length(disk: Disk, path: str) -> int:
    file = disk.open(path)
    try:
        return file.size()
    finally:
        file.close()


def unreadable(error: OSError) -> str:
    """Say that a file cannot be read, and why."""
    return f"it cannot be read: {error.strerror or error}"
