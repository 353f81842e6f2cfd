"""Snapshots: the whole state after one record, so that what stands before it need not be kept.

`snapshot/<lsn, 20 digits>.snap`: a header, then chunks, then an end. All integers little-endian:

    chunk   length u32 (not 0), crc u32, then the payload
    end     0 u32, crc u32, count u64, and the file ends

Each crc is that of the payload (of the end: of its count) begun at the crc before; the first begins at the
crc in the header. So a chunk that is missing, doubled or in another place shows too.

A snapshot is written under another name, synced, and then gets its name: one that is found and yet not
valid was damaged later.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from tega_zmq.log.disk import Disk, File
from tega_zmq.log.fileheader import FILE_HEADER, SNAPSHOT, Header, pack, unpack

__all__ = ["FOLDER", "SnapshotWriter", "examine", "name_of", "names", "read", "verify"]

FOLDER: Final = "snapshot"
"""The folder of the snapshots, within the data folder."""

_SUFFIX: Final = ".snap"
_DIGITS: Final = 20
_CHUNK: Final = struct.Struct("<II")
_COUNT: Final = struct.Struct("<Q")
_BUFFER: Final = 128 * 1024


def name_of(lsn: int) -> str:
    """Return the name of the snapshot that holds the state after record `lsn`."""
    return f"{lsn:0{_DIGITS}d}{_SUFFIX}"


def names(disk: Disk, folder: str) -> list[tuple[int, str]]:
    """Return `(lsn, name)` of the snapshots in the data folder, in order; other names are left out."""
    found = []
    for name in disk.list(f"{folder}/{FOLDER}"):
        digits = name.removesuffix(_SUFFIX)
        if len(digits) == _DIGITS and name == digits + _SUFFIX and digits.isascii() and digits.isdigit():
            found.append((int(digits), name))
    return sorted(found)


class SnapshotWriter:
    """A snapshot in the making: `add` its chunks, then `sync`, then `publish`; or `abandon` it.

    All raise `OSError`; then only `abandon` may follow.
    """

    def __init__(self, disk: Disk, folder: str, header: Header) -> None:
        """Begin the snapshot of the state after record `header.lsn`."""
        self._disk = disk
        self._folder = f"{folder}/{FOLDER}"
        self._path = f"{self._folder}/{name_of(header.lsn)}"
        self._buffer = bytearray(pack(SNAPSHOT, header))
        self._crc = crc32(self._buffer[:-4])
        self._count = 0
        self.size = len(self._buffer)
        """Bytes of the file so far."""
        self._file: File | None = None
        self._file = disk.create(self._path + ".tmp")

    def add(self, chunk: bytes) -> None:
        """Add a chunk of 1 byte to 4 GiB."""
        if not chunk:
            raise ValueError("a chunk of a snapshot must not be empty")
        self._crc = crc32(chunk, self._crc)
        self._count += 1
        self._put(_CHUNK.pack(len(chunk), self._crc))
        self._put(chunk)
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def sync(self) -> None:
        """Write the end, and make all of it durable, under its passing name."""
        count = _COUNT.pack(self._count)
        self._put(_CHUNK.pack(0, crc32(count, self._crc)))
        self._put(count)
        self._flush()
        assert self._file is not None
        self._file.sync()

    def publish(self) -> None:
        """Give it its name: from now on it counts. The state that it holds must be durable in the log."""
        self._close()
        self._disk.rename(self._path + ".tmp", self._path)
        self._disk.sync_folder(self._folder)

    def abandon(self) -> None:
        """Leave it. The file is removed, here if possible, else at the next start. Never fails."""
        self._close()
        try:
            self._disk.remove(self._path + ".tmp")
        except OSError:
            return

    def _put(self, data: bytes) -> None:
        self._buffer += data
        self.size += len(data)

    def _flush(self) -> None:
        assert self._file is not None
        self._file.write(self.size - len(self._buffer), bytes(self._buffer))
        self._buffer.clear()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def verify(disk: Disk, folder: str, lsn: int) -> tuple[Header, int] | str:
    """Return `(header, bytes)` of the snapshot after record `lsn` if it is whole, else what is wrong where.

    Raises `OSError`.
    """
    found = examine(disk, folder, name_of(lsn))
    if isinstance(found, str):
        return found
    header, size, _ = found
    if header.lsn != lsn:
        return f"at byte 0: it holds the state after record {header.lsn}, not that of its name"
    return header, size


def examine(disk: Disk, folder: str, name: str) -> tuple[Header, int, bytes] | str:
    """Return `(header, bytes, first chunk)` of the snapshot `name` if it is whole, else what is wrong where.

    Whether it is the one that its name says is for the caller to see. Raises `OSError`.
    """
    file = disk.open(f"{folder}/{FOLDER}/{name}")
    try:
        header = unpack(SNAPSHOT, file.read(0, FILE_HEADER))
        if isinstance(header, str):
            return f"at byte 0: {header}"
        reader = _Reader(file)
        first = b""
        for chunk in reader.chunks():
            first = first or chunk
        return reader.problem or (header, reader.offset, first)
    finally:
        file.close()


def read(disk: Disk, folder: str, name: str) -> Iterator[bytes]:
    """Yield the chunks of the snapshot `name`, found whole before.

    Raises `OSError`, also if it has changed.
    """
    file = disk.open(f"{folder}/{FOLDER}/{name}")
    try:
        reader = _Reader(file)
        yield from reader.chunks()
        if reader.problem:
            raise OSError(f"{folder}/{FOLDER}/{name} changed while it was read: {reader.problem}")
    finally:
        file.close()


class _Reader:
    """Walks over the chunks; `problem` says what ended the walk too early."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._buffer = b""
        self._at = 0
        self.offset = 0
        self.problem = ""

    def chunks(self) -> Iterator[bytes]:
        size = self._file.size()
        crc = crc32(self._take(FILE_HEADER)[:-4])
        count = 0
        while True:
            start = self.offset
            head = self._take(_CHUNK.size)
            if len(head) < _CHUNK.size:
                self.problem = f"at byte {start}: the file ends before its end mark"
                return
            length, expected = _CHUNK.unpack(head)
            if length == 0:
                break
            if length > size - self.offset:
                self.problem = f"at byte {start}: the file ends within a chunk"
                return
            chunk = self._take(length)
            crc = crc32(chunk, crc)
            if crc != expected:
                self.problem = f"at byte {start}: a chunk does not match its checksum"
                return
            count += 1
            yield chunk
        end = self._take(_COUNT.size)
        if crc32(end, crc) != expected or end != _COUNT.pack(count) or self.offset != size:
            self.problem = f"at byte {start}: the end mark does not match the chunks before it"

    def _take(self, size: int) -> bytes:
        if len(self._buffer) - self._at < size:
            rest = self._buffer[self._at :]
            more = self._file.read(self.offset + len(rest), max(size, _BUFFER))
            self._buffer, self._at = rest + more, 0
        data = self._buffer[self._at : self._at + size]
        self._at += len(data)
        self.offset += len(data)
        return data
