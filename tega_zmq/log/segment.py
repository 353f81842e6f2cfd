"""Segments: the files that records stand in.

`log/<first lsn, 20 digits>.log`: a header with a page of 4,096 bytes of its own, so that no later write
touches it; then records (`framing`) without gaps; then zeros up to the size that the file was made with, and
near the end of a full one, a seal that says that another segment follows.

A segment comes into being under another name, at its full length and synced; then it gets its name. So one
that is found is never half made, and writing in it changes no metadata of the file system.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from tega_zmq.log.disk import Disk, File
from tega_zmq.log.fileheader import FILE_HEADER, SEGMENT, Header, pack, unpack
from tega_zmq.log.framing import Stop, record_size, seed_of, walk

__all__ = [
    "DATA",
    "LOG",
    "create",
    "drain",
    "end_of",
    "name_of",
    "names",
    "read",
    "read_header",
    "room_for",
    "walk_over",
]

LOG: Final = "log"
"""The folder of the segments, within the data folder."""

DATA: Final = 4096
"""Where the records begin."""

_SUFFIX: Final = ".log"
_DIGITS: Final = 20


def name_of(first: int) -> str:
    """Return the name of the segment whose first lsn is `first`."""
    return f"{first:0{_DIGITS}d}{_SUFFIX}"


def names(disk: Disk, folder: str) -> list[tuple[int, str]]:
    """Return `(first lsn, name)` of the segments in the data folder, in order; other names are left out."""
    found = []
    for name in disk.list(f"{folder}/{LOG}"):
        digits = name.removesuffix(_SUFFIX)
        if len(digits) == _DIGITS and name == digits + _SUFFIX and digits.isascii() and digits.isdigit():
            found.append((int(digits), name))
    return sorted(found)


def room_for(size: int) -> int:
    """Return how long a segment must be for records of `size` bytes in all, with the seal."""
    return DATA + size + record_size(0)


def create(disk: Disk, folder: str, header: Header) -> File:
    """Make an empty segment, durable, and return it open. Raises `OSError`.

    One with the same name is replaced: it begins with the same lsn, belongs to a generation that was given
    up, and holds nothing that was ever durable.
    """
    path = f"{folder}/{LOG}/{name_of(header.lsn)}"
    file = disk.create(path + ".tmp")
    try:
        file.allocate(header.size)
        file.write(0, pack(SEGMENT, header))
        file.sync()
        disk.rename(path + ".tmp", path)
        disk.sync_folder(f"{folder}/{LOG}")
    except BaseException:
        file.close()
        raise
    return file


def read_header(file: File, first: int) -> Header | str:
    """Return the header of the segment with `first` in its name, or what is wrong. Raises `OSError`."""
    header = unpack(SEGMENT, file.read(0, FILE_HEADER))
    if isinstance(header, Header) and header.lsn != first:
        return f"it holds the records from {header.lsn} on, not those that its name says: files were mixed up"
    return header


def read(disk: Disk, folder: str, first: int) -> bytes:
    """Return the whole content of the segment whose first lsn is `first`. Raises `OSError`."""
    file = disk.open(f"{folder}/{LOG}/{name_of(first)}")
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def walk_over(
    data: bytes, header: Header, limit: int | None = None
) -> Generator[tuple[int, int, bytes], None, Stop]:
    """Walk over the records of a segment's content, as `framing.walk` does."""
    return walk(data, seed_of(header.store, header.lsn), DATA, header.lsn, limit)


def end_of(data: bytes, header: Header, limit: int | None = None) -> Stop:
    """Return where a walk over the records ends, and why."""
    return drain(walk_over(data, header, limit))


def drain(walking: Generator[tuple[int, int, bytes], None, Stop]) -> Stop:
    """Walk to the end, and return it."""
    while True:
        try:
            next(walking)
        except StopIteration as end:
            stop: Stop = end.value
            return stop
