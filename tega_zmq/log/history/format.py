"""How a file of the history stands on the disk: its name, its frames, and what is in them.

    <data folder>/history/<the root's name, as `stem` writes it>-<number>.hist

Each file begins with a checkpoint, the whole tree of one version, and goes on with the updates after it;
the next one, numbered one higher, begins with the version that it ends with. So a version is the checkpoint
before it and the updates from there on. A file is frames: length u32, crc u32, payload; each crc is the
CRC-32 of the payload begun at the crc before. A payload is msgpack: `[1, format, root, line, epoch, version,
is it there, time, tega_id, message]`, then the parts of the tree `[2, entries]` and of its marks
`[3, marks]`; `[6, update]` for each that is known of before, if the file does not go on from another; then
`[4]`; then `[5, update, ...]`, an update for each version.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final
from zlib import crc32

from tega_zmq.errors import StorageError, TegaError
from tega_zmq.log.disk import Disk
from tega_zmq.log.records import decode_chunk

__all__ = [
    "BEGIN",
    "EARLIER",
    "FOLDER",
    "FORMAT",
    "FRAME",
    "MARKS",
    "READ",
    "TREE",
    "UPDATES",
    "WHOLE",
    "damaged",
    "file_name",
    "frames",
    "payloads",
    "stem",
    "updates_in",
]

FOLDER: Final = "history"
FORMAT: Final = 1

BEGIN: Final = 1
"""The frame that a file begins with: whose it is, and which version."""
TREE: Final = 2
"""Entries of the tree, parents first."""
MARKS: Final = 3
"""Ephemeral nodes, each with its session, and born containers, with none."""
WHOLE: Final = 4
"""The checkpoint is whole."""
UPDATES: Final = 5
EARLIER: Final = 6
"""An update to the version of the checkpoint, or to one before."""

FRAME: Final = struct.Struct("<II")
"""Length and crc."""
READ: Final = 1 << 18
"""Bytes that are read or written at a time."""

_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_LONGEST: Final = 100
"""Most characters of a root's name in the name of a file."""


def stem(name: str) -> str:
    """Return the name of root `name` for a file: what is no small letter, digit, - or _ as `%XX`, in UTF-8.

    Capitals too, since some file systems do not tell them apart; so no two roots share a file. One that
    becomes longer than 100 characters is told by the first 32 hex digits of its SHA-256, after a `+`.
    """
    text = "".join(
        each if each in _PLAIN else "".join(f"%{byte:02X}" for byte in each.encode()) for each in name
    )
    if len(text) <= _LONGEST:
        return text
    import hashlib  # here: it loads a library of 3 MB, which a small device does without

    return "+" + hashlib.sha256(name.encode()).hexdigest()[:32]


def file_name(name: str, number: int) -> str:
    """Return the name of the file of root `name` with that number."""
    return f"{stem(name)}-{number:08d}.hist"


def damaged(file: str, offset: int, what: str) -> StorageError:
    """Return the error that says `what` is wrong with `file`, and where."""
    return StorageError(
        f"{FOLDER}/{file} is damaged at byte {offset}: {what}; other versions can be read, `tega-check` lists"
        " what is damaged",
        reason="damaged",
    )


def frames(disk: Disk, folder: str, file: str) -> Iterator[tuple[int, int, Any]]:
    """Yield (offset, crc, payload) of each frame of `file` in the history of the data folder.

    Raises `StorageError` that names file and offset, `OSError`.
    """
    for offset, crc, payload in payloads(disk, folder, file):
        try:
            plain = decode_chunk(payload)
        except TegaError as error:
            raise damaged(file, offset, error.message) from error
        yield offset, crc, plain


def payloads(disk: Disk, folder: str, file: str) -> Iterator[tuple[int, int, bytes]]:
    """As `frames`, with the payloads as they stand in the file."""
    handle = disk.open(f"{folder}/{FOLDER}/{file}")
    try:
        size = handle.size()
        buffer, at, offset, crc = b"", 0, 0, 0
        while offset < size:
            if len(buffer) - at < FRAME.size:
                buffer, at = handle.read(offset, READ), 0
            if len(buffer) - at < FRAME.size:
                raise damaged(file, offset, "the file ends within a frame")
            length, expected = FRAME.unpack_from(buffer, at)
            end = FRAME.size + length
            if offset + end > size:
                raise damaged(file, offset, "the file ends within a frame")
            if len(buffer) - at < end:
                buffer, at = handle.read(offset, max(READ, end)), 0
            payload = buffer[at + FRAME.size : at + end]
            crc = crc32(payload, crc)
            if crc != expected or not payload:
                raise damaged(file, offset, "a frame does not match its checksum")
            yield offset, crc, payload
            at += end
            offset += end
    finally:
        handle.close()


def updates_in(plain: Any) -> Sequence[Any]:
    """Return the updates in the payload `plain`, as plain values."""
    return plain[1:] if plain[0] >= UPDATES else ()
