"""Two small text files in a data folder: `store` says whose it is, `clean` that the stop was orderly.

    tega-zmq store        tega-zmq clean
    format 1              format 1
    store 6f1c...         store 6f1c...
    crc 0a1b2c3d          lsn 4711
                          crc 0a1b2c3d

`store` is there from the start on: a data folder that has it and yet no segment lost them. `clean` is
written after the last sync of an orderly stop and removed before the first write after a start; its lsn is
that of the last record.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple
from zlib import crc32

from tega_zmq.log.disk import Disk
from tega_zmq.log.fileheader import FORMAT

__all__ = ["CLEAN", "REPAIR", "STORE", "Mark", "read", "remove", "text", "write"]

STORE: Final = "store"
CLEAN: Final = "clean"
REPAIR: Final = "repair"
"""There while `tega-check --repair` changes the folder: no node starts on a folder that is half repaired."""
_TEXT: Final = re.compile(
    r"tega-zmq (\w+)\nformat (\d{1,9})\nstore ([\x20-\x7e]{1,48})\n(?:lsn (\d{1,19})\n)?"
)


class Mark(NamedTuple):
    """What such a file says."""

    store: str
    lsn: int = 0
    """clean: the last record; store: 0."""


def write(disk: Disk, folder: str, kind: Literal["store", "clean"], mark: Mark) -> None:
    """Write the file, durable when this returns. Raises `OSError`."""
    data = text(kind, mark)
    path = f"{folder}/{kind}"
    file = disk.create(path + ".tmp")
    try:
        file.write(0, data)
        file.sync()
    finally:
        file.close()
    disk.rename(path + ".tmp", path)
    disk.sync_folder(folder)


def text(kind: Literal["store", "clean"], mark: Mark) -> bytes:
    """Return what stands in the file."""
    lines = f"tega-zmq {kind}\nformat {FORMAT}\nstore {mark.store}\n"
    if kind == CLEAN:
        lines += f"lsn {mark.lsn}\n"
    data = lines.encode()
    return data + b"crc %08x\n" % crc32(data)


def read(disk: Disk, folder: str, kind: Literal["store", "clean"]) -> Mark | str | None:
    """Return what the file says, None if it is not there, or what is wrong with it. Raises `OSError`."""
    if kind not in disk.list(folder):
        return None
    file = disk.open(f"{folder}/{kind}")
    try:
        data = file.read(0, 4096)
    finally:
        file.close()
    body, crc = data[:-13], data[-13:]
    match = _TEXT.fullmatch(body.decode("latin-1"))
    if match is None or match[1] != kind or crc != b"crc %08x\n" % crc32(body):
        return "it is damaged"
    if int(match[2]) > FORMAT:
        return f"it has format {match[2]}, and this program knows formats up to {FORMAT}: use a newer one"
    return Mark(match[3], int(match[4] or 0))


def remove(disk: Disk, folder: str, kind: Literal["store", "clean"]) -> None:
    """Remove the file if it is there, durable when this returns. Raises `OSError`."""
    if kind in disk.list(folder):
        disk.remove(f"{folder}/{kind}")
        disk.sync_folder(folder)
