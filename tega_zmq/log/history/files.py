"""The files of all roots: what is known of each, and the end of the newest one, where it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

from tega_zmq.errors import StorageError, TegaError
from tega_zmq.log.disk import Disk, File
from tega_zmq.log.history.format import (
    BEGIN,
    FOLDER,
    FORMAT,
    FRAME,
    READ,
    UPDATES,
    WHOLE,
    file_name,
    frames,
)
from tega_zmq.log.records import encode_chunk
from tega_zmq.store import ABSENT, Root, update_from_plain

__all__ = ["Files", "Part", "Series"]


class Part(NamedTuple):
    """One file."""

    number: int
    line: int
    """Versions count within a line; after `clear` a new one begins."""
    first: int
    """Version of the checkpoint."""
    epoch: str
    time: float


class Series:
    """The files of one root, the oldest first, and the end of the newest."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[Part] = []
        self.usable = False
        """Whether the newest file can be added to."""
        self.file: File | None = None
        """The newest file, while it has what is not synced: of many roots only a few are open."""
        self.size = 0
        self.crc = 0
        self.checkpoint = 0
        """Bytes of the checkpoint of the newest file."""
        self.last = ABSENT
        """The newest version."""
        self.stamp: tuple[str, float, str] = ("", 0.0, "")
        """(epoch, time, tega_id) of its commit."""
        self.commits = 0
        self.unsynced = 0
        self.buffer = bytearray()
        self.ends: dict[int, int | None] = {}
        """By number of a file: the last version that can be read from it, None if none can, as far as that
        was looked for. Of the newest only if it is damaged: it grows."""


class Files:
    """The files in the history of a data folder. For one thread."""

    def __init__(
        self, disk: Disk, folder: str, note: Callable[[str], None], rest: Callable[[], None]
    ) -> None:
        """`note` is told once which versions of a root are missing for good; of `rest` see `open_history`."""
        self.disk = disk
        self.folder = folder
        self.note = note
        self.rest = rest
        self.series: dict[str, Series] = {}
        """By the name of the root."""
        self.seen: dict[str, Root] = {}
        """What was followed last of each root, if all of it is in its files."""
        self._open: dict[str, Series] = {}
        """Those whose newest file is open."""

    def path(self, file: str) -> str:
        """Return the path of `file`."""
        return f"{self.folder}/{FOLDER}/{file}"

    def read(self, file: str) -> Iterator[Any]:
        """Yield the payloads in `file`. Raises `StorageError`, `OSError`."""
        for _, _, plain in frames(self.disk, self.folder, file):
            yield plain

    # -- what is found ---------------------------------------------------------------------------------

    def take_in(self, file: str) -> None:
        """Note a file that was found. To be called in order of the names.

        Raises `StorageError`, `ValueError`, `TypeError` or `IndexError` if it cannot be used, `OSError`.
        """
        number = int(file.rsplit("-", 1)[1][:-5])
        for plain in self.read(file):
            kind, version, name, line, epoch, first, _, time, _, _ = plain
            if kind != BEGIN or version != FORMAT or file != file_name(name, number):
                raise StorageError("it is of another format, or not what its name says")
            series = self.series.setdefault(name, Series(name))
            series.parts.append(Part(number, line, first, epoch, time))
            return
        raise StorageError("it is empty")

    def resume(self, series: Series) -> str:
        """Find the end of the newest file, and cut off what is torn there. Returns what was done, if much."""
        part = series.parts[-1]
        file = file_name(series.name, part.number)
        end, text = 0, ""
        series.crc, series.commits, series.last = 0, 0, part.first
        whole = False
        try:
            for offset, crc, plain in frames(self.disk, self.folder, file):
                if plain[0] == BEGIN:
                    series.stamp = (plain[4], plain[7], plain[8])
                elif plain[0] == WHOLE:
                    whole = True
                elif plain[0] == UPDATES:
                    update = update_from_plain(plain[-1])
                    series.last, series.commits = update.after, series.commits + len(plain) - 1
                    series.stamp = (update.epoch, update.time, update.tega_id)
                series.crc = crc
                end = offset
                series.checkpoint = offset if plain[0] == WHOLE else series.checkpoint
        except TegaError as error:
            text = f"cut off after version {series.last} of {series.name}: {error.message}"
        handle = self.disk.open(self.path(file))
        if not whole:
            # Only what was damaged later looks so: a checkpoint gets its name when it is whole.
            handle.close()
            return f"{FOLDER}/{file} is left as it is: {text or 'its checkpoint is incomplete'}"
        head = handle.read(end, FRAME.size)
        series.size = end + FRAME.size + int(FRAME.unpack(head)[0])
        if text:
            self._keep_tail(handle, file, series.size)
            handle.truncate(series.size)
            handle.sync()
        handle.close()
        series.usable = True
        return text

    def _keep_tail(self, handle: File, file: str, size: int) -> None:
        """What is cut off is kept beside the file: it may have been damaged later, not torn."""
        tail = self.disk.create(f"{self.path(file)}.torn-{size}")
        try:
            tail.write(0, handle.read(size, handle.size() - size))
            tail.sync()
        finally:
            tail.close()

    # -- what is added ---------------------------------------------------------------------------------

    @property
    def growing(self) -> int:
        """How many files are open, since they have what is not synced."""
        return len(self._open)

    def add(self, series: Series, plain: Any) -> None:
        """Add a frame that holds `plain` to the newest file. Raises `OSError`."""
        self.add_payload(series, encode_chunk(plain))

    def add_payload(self, series: Series, payload: bytes) -> None:
        """As `add`, with a value that is encoded already."""
        series.crc = crc32(payload, series.crc)
        series.buffer += FRAME.pack(len(payload), series.crc)
        series.buffer += payload
        series.size += FRAME.size + len(payload)
        if len(series.buffer) >= READ:
            self.flush(series)

    def flush(self, series: Series) -> None:
        """Write what was added. Raises `OSError`."""
        if not series.buffer:
            return
        try:
            if series.file is None:
                file = file_name(series.name, series.parts[-1].number)
                series.file = self.disk.open(self.path(file))
                self._open[series.name] = series
            series.file.write(series.size - len(series.buffer), bytes(series.buffer))
        except OSError:
            # How much arrived is not known: look again, and take from the store what is missing.
            self._fail(series)
            raise
        series.buffer.clear()

    def _fail(self, series: Series) -> None:
        """A write failed: forget what the newest file holds, and find its end again."""
        series.buffer.clear()
        self.seen.pop(series.name, None)
        series.usable = False
        self._close(series)
        if series.parts:
            self.resume(series)

    def sync(self, series: Series) -> None:
        """Make what was written durable, and close the file. Raises `OSError`."""
        if series.unsynced and series.file is not None:
            try:
                series.file.sync()
            except OSError:
                # A file whose sync failed is not written to again: what comes next goes into another.
                series.usable = False
                self._close(series)
                self.seen.pop(series.name, None)
                raise
        series.unsynced = 0
        self._close(series)

    def _close(self, series: Series) -> None:
        self._open.pop(series.name, None)
        if series.file is not None:
            series.file.close()
            series.file = None

    def sync_all(self) -> None:
        """Make all that was added durable. Raises `OSError`."""
        for series in list(self._open.values()):
            self.flush(series)
            self.sync(series)

    def close(self) -> None:
        """Make all that was added durable, and close all files. Raises `OSError`."""
        try:
            self.sync_all()
        finally:
            for series in list(self._open.values()):
                self._close(series)
