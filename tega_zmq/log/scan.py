"""Look at a data folder as it is, however broken: for reports and repair. Changes nothing.

`examine` in `recovery` says whether a node may start; this says what stands in each file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tega_zmq.log import segment, snapshot
from tega_zmq.log.disk import Disk
from tega_zmq.log.framing import seed_of, synced_beyond

__all__ = ["FoundSegment", "FoundSnapshot", "scan"]


class FoundSnapshot(NamedTuple):
    """One snapshot."""

    file: str
    """Within the data folder."""
    lsn: int
    """The last record in it, by its name."""
    store: str
    """Of this and `generation`: empty and 0 if it is damaged."""
    generation: int
    size: int
    """Bytes."""
    problem: str
    """What is wrong and where; empty: it is whole."""


class FoundSegment(NamedTuple):
    """One segment, up to the first place where no valid record stands."""

    file: str
    """Within the data folder."""
    first: int
    """The first record, by its name."""
    last: int
    """The last record before the place where the walk ended; `first - 1`: there is none."""
    store: str
    """Of this, `generation` and `base`: empty and 0 if the header is damaged."""
    generation: int
    base: int
    length: int
    """Bytes of the file."""
    end: str
    """How the records end: `end`, `seal`, `torn`, `damage` (as in `framing.Stop`); `header`: damaged."""
    offset: int
    """Where they end, in bytes."""
    synced: int
    """The highest record that any valid record in this file, also behind the end, vouches to be durable."""
    problem: str
    """What is wrong there; empty: nothing."""


def scan(disk: Disk, folder: str) -> Iterator[FoundSnapshot | FoundSegment]:
    """Yield what stands in the data folder: snapshots, then segments, in order. Raises `OSError`."""
    for lsn, name in snapshot.names(disk, folder):
        file = f"{snapshot.FOLDER}/{name}"
        found = snapshot.verify(disk, folder, lsn)
        if isinstance(found, str):
            yield FoundSnapshot(file, lsn, "", 0, _length(disk, f"{folder}/{file}"), found)
        else:
            header, size = found
            yield FoundSnapshot(file, lsn, header.store, header.generation, size, "")
    for first, name in segment.names(disk, folder):
        yield _segment(disk, folder, first, f"{segment.LOG}/{name}")


def _segment(disk: Disk, folder: str, first: int, file: str) -> FoundSegment:
    opened = disk.open(f"{folder}/{file}")
    try:
        header = segment.read_header(opened, first)
        length = opened.size()
    finally:
        opened.close()
    if isinstance(header, str):
        return FoundSegment(file, first, first - 1, "", 0, 0, length, "header", 0, 0, header)
    data = segment.read(disk, folder, first)
    stop = segment.end_of(data, header)
    synced = max(stop.synced, synced_beyond(data, seed_of(header.store, first), stop.offset))
    return FoundSegment(
        file=file,
        first=first,
        last=stop.lsn - 1,
        store=header.store,
        generation=header.generation,
        base=header.base,
        length=length,
        end=stop.kind,
        offset=stop.offset,
        synced=synced,
        problem=stop.why,
    )


def _length(disk: Disk, path: str) -> int:
    file = disk.open(path)
    try:
        return file.size()
    finally:
        file.close()
