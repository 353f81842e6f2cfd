"""The log of one data folder: open it, append to it, take snapshots of what it leads to.

    <data folder>/
      lock                      held while a program uses the folder
      store                     whose it is, and the format of all of it
      clean                     the last stop was orderly
      log/<first lsn>.log       segments
      log/<first lsn>.log.torn-<offset>    a torn tail that was cut off
      snapshot/<lsn>.snap       snapshots
      snapshot/<lsn>.snap.damaged          one that was set aside

A `Log` belongs to one thread at a time. It reads no clock and starts no thread; `writer.LogThread` does.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final, NamedTuple

from tega_zmq.errors import StorageError
from tega_zmq.log import marks, recovery, segment
from tega_zmq.log import snapshot as snapshots
from tega_zmq.log.disk import Disk, File, HeldError, Lock
from tega_zmq.log.fileheader import Header, check_store
from tega_zmq.log.framing import encode, encode_seal, record_size, seed_of
from tega_zmq.log.recovery import Torn

__all__ = ["HeldUp", "Log", "Opened", "Options", "Report", "open_log"]

_SEALED: Final = record_size(0)
"""Bytes that stay free behind the records of a segment, for the seal."""


class HeldUp(OSError):
    """No file can be opened for a new segment, since there are no descriptors left.

    What is there was not touched, so the same may be tried again: it passes when somebody lets go of some.
    """


class Options(NamedTuple):
    """How a log is kept."""

    sync: str = "always"
    """always: a record is durable when it was synced. interval: it is taken for durable when it was handed
    to the system, which is synced every `interval`. none: the same, and synced only with a new segment, a
    snapshot, and at an orderly stop."""
    interval: float = 1.0
    """Seconds."""
    segment: int = 4 * 1024 * 1024
    """Bytes of a segment; one with a larger batch of records is larger."""
    snapshots: int = 2
    """How many snapshots are kept, with all records after the oldest of them; at least 1."""


class Report(NamedTuple):
    """What was found when a log was opened."""

    store: str
    """The id of the store: made when the data folder was."""
    fresh: bool
    """There was no log yet."""
    clean: bool
    """The last stop was orderly, or there was no log yet. False: under `sync` other than `always`, records
    that somebody was told of may be gone."""
    snapshot: int
    """The record after which the snapshot was made; 0: there is none."""
    last: int
    """The last record."""
    segments: int
    """How many segments hold records after the snapshot."""
    torn: Torn | None
    """The torn tail that was cut off."""
    damaged: tuple[tuple[str, str], ...]
    """Damaged snapshots that were set aside, so that the state was made from an older one: (file within the
    data folder, what is wrong and where)."""


class Opened(NamedTuple):
    """An open log and what is in it."""

    log: Log
    snapshot: Iterable[bytes]
    """The chunks of the newest snapshot; none if there is no snapshot. Read it before the log is used."""
    records: Iterable[tuple[int, bytes]]
    """(lsn, payload) of the records after it. Read them before the log is used."""
    report: Report


def open_log(disk: Disk, folder: str, options: Options, *, new_id: Callable[[], str]) -> Opened:
    """Open the log in the data folder, which is made if it is not there.

    `new_id` makes the id of a new store: 1 to 48 printable ASCII characters that no other store has.
    Raises `StorageError`: the folder cannot be used, is held by another process, has a newer format, or
    something is damaged or missing there (file, offset and record stand in the message). Then nothing was
    changed. Raises `ValueError` for options out of bounds.
    """
    if options.sync not in ("always", "interval", "none"):
        raise ValueError(f"sync is always, interval or none, not {options.sync!r}")
    if options.interval <= 0 or options.snapshots < 1 or options.segment < segment.room_for(0):
        raise ValueError(f"interval, segment or snapshots are out of bounds: {options}")
    try:
        disk.make_folder(folder)
        lock = disk.lock(f"{folder}/lock")
    except HeldError as error:
        holder = f"process {error.pid}" if error.pid else "another process"
        raise StorageError(
            f"{folder} is in use by {holder}; stop it, or use another data folder", reason="in use"
        ) from None
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        plan = recovery.examine(disk, folder)
        if plan is None:
            return _begin(disk, folder, options, lock, check_store(new_id()))
        recovery.carry_out(disk, folder, plan)
        if not isinstance(marks.read(disk, folder, "store"), marks.Mark):
            marks.write(disk, folder, "store", marks.Mark(plan.store))
        log = Log(disk, folder, options, lock, plan.store, plan.generation, plan.base, plan.last)
        log.resume(plan)
    except BaseException as error:
        lock.release()
        if isinstance(error, OSError):
            raise _unusable(folder, error) from error
        raise
    report = Report(
        store=plan.store,
        fresh=False,
        clean=plan.clean,
        snapshot=plan.snapshot,
        last=plan.last,
        segments=len(plan.parts),
        torn=plan.torn,
        damaged=plan.damaged,
    )
    chunks = snapshots.read(disk, folder, snapshots.name_of(plan.snapshot)) if plan.snapshot else ()
    return Opened(log, chunks, recovery.records(disk, folder, plan), report)


def _begin(disk: Disk, folder: str, options: Options, lock: Lock, store: str) -> Opened:
    for name in (segment.LOG, snapshots.FOLDER):
        disk.make_folder(f"{folder}/{name}")
    log = Log(disk, folder, options, lock, store, 1, 1, 0)
    log.begin_segment(0)
    marks.write(disk, folder, "store", marks.Mark(store))
    marks.remove(disk, folder, "clean")
    return Opened(log, (), (), Report(store, True, True, 0, 0, 0, None, ()))


def _unusable(folder: str, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    where = error.filename if isinstance(error.filename, str) else folder
    return StorageError(
        f"the data folder {folder} cannot be used: {where}: {reason}; check that it is there, "
        f"that this user may write to it, and that the disk has space",
        reason=reason,
    )


class Log:
    """The open log. Made by `open_log`."""

    def __init__(
        self,
        disk: Disk,
        folder: str,
        options: Options,
        lock: Lock,
        store: str,
        generation: int,
        base: int,
        last: int,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self.options = options
        self._lock = lock
        self._store = store
        self._generation = generation
        self._base = base
        self._file: File | None = None
        """The last segment, if records may be appended to it."""
        self._seed = 0
        self._offset = 0
        self._length = 0
        self._always = options.sync == "always"
        self.last = last
        """The last record that was appended, and that nobody need fear to lose as `sync` promises it."""
        self.synced = last
        """The last record that is certainly on the disk."""
        self.failed = ""
        """What went wrong with a write; until `restart`, nothing is accepted. Empty: nothing did."""
        self.size_since_snapshot = 0
        """Bytes of records that a start would read after the newest snapshot, about."""

    # -- opening ---------------------------------------------------------------------------------------

    def resume(self, plan: recovery.Plan) -> None:
        """Go on where `plan` says that the records end. For `open_log`. Raises `OSError`."""
        tail = plan.tail
        self.size_since_snapshot = plan.size
        if plan.dropped:
            return
        self._file = self._disk.open(f"{self._folder}/{segment.LOG}/{tail.part.name}")
        self._seed = seed_of(self._store, tail.part.header.lsn)
        self._offset = tail.offset
        self._length = tail.length if plan.goes_on else 0

    def begin_segment(self, size: int) -> None:
        """Go on in a new segment with room for `size` bytes; seal the one before.

        Raises `OSError`; if that is `HeldUp`, no record is touched, else the one before is written no more.
        """
        length = max(self.options.segment, segment.room_for(size))
        first = self.last + 1
        before, seed, end = self._file, self._seed, self._offset
        self._file = None
        try:
            if before is not None and self.synced < self.last:
                before.sync()
                self.synced = self.last
            header = Header(self._store, self._generation, self._base, first, length)
            try:
                self._file = segment.create(self._disk, self._folder, header)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                # The segment before is as it was. The new one may stand already, so what comes next goes
                # there, however small: it is made anew.
                self._file, before = before, None
                self._length = 0
                raise HeldUp(error.errno, error.strerror) from error
            self._seed = seed_of(self._store, first)
            self._offset, self._length = segment.DATA, length
            if before is not None:
                # Only now: should the new one be lost later, the seal tells that it was there.
                before.write_sync(end, encode_seal(first, seed, end))
        finally:
            if before is not None:
                before.close()

    # -- writing ---------------------------------------------------------------------------------------

    def append_batch(self, payloads: Sequence[bytes]) -> int:
        """Append the records, and sync them if `sync` is always; return the number of the last one.

        The first one gets the number `last + 1`. Raises `StorageError` if anything goes wrong: then none of
        them was appended, and no more are until `restart`. They may yet be found at the next start, if that
        comes before it. Raises `HeldUp`: none was appended, and the same may be tried again. Raises
        `ValueError` for a payload of more than `MAX_PAYLOAD` bytes.
        """
        if self.failed:
            self._check()
        if not payloads:
            return self.last
        last, offset, file = self.last, self._offset, self._file
        # Made for where the log stands, before it is known that they fit there: they nearly always do.
        data = encode(payloads, last + 1, self.synced, self._seed, offset)
        try:
            if file is None or offset + len(data) + _SEALED > self._length:
                # A batch never spans two segments, so that it fails or succeeds as a whole.
                self.begin_segment(len(data))
                offset, file = self._offset, self._file
                data = encode(payloads, last + 1, self.synced, self._seed, offset)
                assert file is not None
            if self._always:
                file.write_sync(offset, data)
            else:
                file.write(offset, data)
        except HeldUp:
            raise
        except OSError as error:
            raise self._fail(error) from error
        size = len(data)
        self._offset = offset + size
        self.size_since_snapshot += size
        self.last = last = last + len(payloads)
        if self._always:
            self.synced = last
        return last

    def sync(self) -> None:
        """Make all records durable, whatever `sync` says. Raises `StorageError` as `append_batch` does."""
        self._check()
        if self.synced == self.last:
            return
        try:
            assert self._file is not None
            self._file.sync()
        except OSError as error:
            raise self._fail(error) from error
        self.synced = self.last

    def _check(self) -> None:
        if self.failed:
            raise StorageError(
                f"the log in {self._folder} takes no writes since one failed: {self.failed}; "
                f"make space or replace the disk, then take a snapshot",
                reason=self.failed,
                outcome="none",
            )

    def _fail(self, error: OSError) -> StorageError:
        reason = error.strerror or str(error) or type(error).__name__
        self.give_up(reason)
        return StorageError(
            f"a write to the log in {self._folder} failed: {reason}; record {self.last} is the last one",
            reason=reason,
            outcome="unknown",
        )

    def give_up(self, reason: str) -> None:
        """Take no more records, for `reason`, and cut off what was not durable, if the disk still can."""
        self.failed = reason
        file, self._file = self._file, None
        if file is not None:
            # Else the tail stays, and may be found at the next start: nobody was told that it is not there.
            with suppress(OSError):
                file.truncate(self._offset)
                file.sync()
            file.close()

    # -- snapshots -------------------------------------------------------------------------------------

    def snapshot(self, lsn: int) -> snapshots.SnapshotWriter:
        """Begin a snapshot of the state after record `lsn`, which must be synced before it is published.

        The writer uses nothing of this log: another thread may run it. Raises `OSError`.
        """
        header = Header(self._store, self._generation, self._base, lsn, 0)
        return snapshots.SnapshotWriter(self._disk, self._folder, header)

    def prune(self) -> None:
        """Remove the snapshots that are too many, and the segments that no kept one needs.

        Touches only files that are written no more: another thread may call it. Raises `OSError`.
        """
        kept = [lsn for lsn, _ in snapshots.names(self._disk, self._folder)]
        if len(kept) < self.options.snapshots:
            return
        oldest = kept[-self.options.snapshots]
        segments = segment.names(self._disk, self._folder)
        for (_, name), (following, _) in pairwise(segments):
            if following > oldest + 1:
                break
            self._disk.remove(f"{self._folder}/{segment.LOG}/{name}")
        for lsn in kept[: -self.options.snapshots]:
            self._disk.remove(f"{self._folder}/{snapshots.FOLDER}/{snapshots.name_of(lsn)}")

    def restart(self, lsn: int) -> snapshots.SnapshotWriter:
        """After a failure: begin a new generation that goes on after record `lsn`, which must be `last`.

        Returns the writer of the snapshot of that state. When it is published, call `restarted`. Raises
        `OSError`; then the log has still failed, and `restart` may be called again. Raises `ValueError` if
        the log has not failed, or `lsn` is not the last record.
        """
        if not self.failed or lsn != self.last:
            raise ValueError(
                f"a restart after record {lsn}; the last one is {self.last}, failed: {self.failed!r}"
            )
        if self._file is not None:
            # A restart before this one made a segment, but no snapshot.
            self._file.close()
            self._file = None
        self._generation += 1
        self._base = lsn + 1
        # The snapshot holds all that was not synced.
        self.synced = lsn
        self.begin_segment(0)
        return self.snapshot(lsn)

    def restarted(self) -> None:
        """The snapshot that `restart` began is published: accept records again."""
        self.failed = ""
        self.size_since_snapshot = 0

    # -- closing ---------------------------------------------------------------------------------------

    def close(self, clean: bool = True) -> None:
        """Sync all, note that the stop was orderly if `clean` is true, and let go of the data folder.

        Raises `StorageError` if that cannot be done; the folder is let go of all the same. After a failed
        write nothing is noted, and nothing raised.
        """
        try:
            if not self.failed:
                self.sync()
                if clean:
                    marks.write(self._disk, self._folder, "clean", marks.Mark(self._store, self.last))
        except OSError as error:
            raise self._fail(error) from error
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._lock.release()
