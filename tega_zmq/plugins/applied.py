"""What the methods under `on_change` have applied, kept on disk.

One file for each (plugin, method, path) in one folder:

    4 bytes   CRC-32 of the rest, big-endian
    the rest  msgpack map: format 1 or 2, plugin, method, path, epoch, version, present, value

Format 2 says that the method was called since, with another value, and is not known to have returned: what
the device has is unknown. It is written before each call, format 1 after it. A program that knows only
format 1 takes the other for damaged, and calls the method.

A file is written beside its place, synced, renamed, and the folder synced: after a power cut there is the old
one or the new one. One that is damaged, or empty, says that what the device has is unknown; then the method
is called once more, which is the safe side.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

__all__ = ["NOTHING", "UNKNOWN", "Applied", "AppliedFile"]

FORMAT = 1
FORMAT_BEGUN = 2


class Applied(NamedTuple):
    """A value that a method returned from. It is kept packed: what a method does to the value stays there."""

    epoch: str
    version: int | None
    present: bool
    packed: bytes
    """msgpack of the value; of None if it was absent."""
    begun: bool = False
    """The method was called since, with another value, and did not return: this differs from any value."""

    def value(self) -> Any:
        """Return a fresh copy of the value."""
        return msgpack.unpackb(self.packed, strict_map_key=False)


NOTHING = Applied("", None, False, msgpack.packb(None))
"""Stands for: never applied anything, or the last was that there is nothing."""

UNKNOWN = NOTHING._replace(begun=True)
"""Stands for: something may have been applied."""


def applied(epoch: str, version: int | None, present: bool, value: Any) -> Applied:
    """Return the `Applied` of a value."""
    return Applied(epoch, version, present, msgpack.packb(value))


class AppliedFile:
    """The file of one method."""

    def __init__(self, folder: Path, plugin: str, method: str, path: str) -> None:
        """The folder is made when the first file is written."""
        self._identity = {"plugin": plugin, "method": method, "path": path}
        identity = f"{plugin}\0{method}\0{path}".encode()
        digest = f"{zlib.crc32(identity):08x}{zlib.adler32(identity):08x}"
        slug = re.sub(r"[^A-Za-z0-9-]+", "_", f"{plugin}-{method}")[:48]
        self.file = folder / f"{slug}-{digest}"

    def read(self) -> Applied:
        """Return what was last written; `NOTHING` if there is no file.

        Raises `OSError`, and `ValueError` for a file that is empty, damaged or of another method.
        """
        try:
            data = self.file.read_bytes()
        except FileNotFoundError:
            return NOTHING
        if not data:
            raise ValueError(f"{self.file} is empty: the disk was full when the method was called")
        if len(data) < 5 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "big"):
            raise ValueError(f"{self.file} is damaged: its checksum does not fit")
        try:
            entry = msgpack.unpackb(data[4:], strict_map_key=False)
            kind = entry.get("format")
            misfits = any(entry.get(k) != v for k, v in self._identity.items())
            if misfits or kind not in (FORMAT, FORMAT_BEGUN):
                raise ValueError(f"{self.file} holds something else than what this method applied")
            version = entry["version"]
            if not (version is None or type(version) is int) or type(entry["present"]) is not bool:
                raise ValueError(f"{self.file} holds no version or presence that could be read")
            state = applied(str(entry["epoch"]), version, entry["present"], entry["value"])
            return state._replace(begun=kind == FORMAT_BEGUN)
        except (msgpack.UnpackException, msgpack.ExtraData, AttributeError, KeyError) as error:
            raise ValueError(f"{self.file} cannot be decoded: {error!r}") from error

    def write(self, state: Applied) -> None:
        """Replace the file, atomically and durably. Raises `OSError`; then the old file still stands."""
        entry = {
            "format": FORMAT_BEGUN if state.begun else FORMAT,
            **self._identity,
            "epoch": state.epoch,
            "version": state.version,
            "present": state.present,
            "value": state.value(),
        }
        body = msgpack.packb(entry)
        folder = self.file.parent
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{self.file.name}.new"
        try:
            with open(beside, "wb") as file:
                file.write(zlib.crc32(body).to_bytes(4, "big") + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.file)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        self._sync_folder()

    def empty(self) -> None:
        """Have the file say that what the device has is unknown. Raises `OSError`.

        That loses the value, but needs no room on the disk.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "wb") as file:
            os.fsync(file.fileno())
        self._sync_folder()

    def _sync_folder(self) -> None:
        directory = os.open(self.file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
