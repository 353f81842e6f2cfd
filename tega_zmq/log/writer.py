"""The log's own threads: one that writes and syncs what gathers, and one while a snapshot is written.

The loop of a node never waits for the disk: it appends, goes on, and is woken when there is something to
`poll`. While one sync runs, what is appended gathers, and goes to the disk in one go after it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from tega_zmq.errors import StorageError
from tega_zmq.log.commitlog import HeldUp, Log, Options
from tega_zmq.log.framing import ALIGN, HEADER, MAX_PAYLOAD

__all__ = [
    "SYNC_BOUNDS",
    "Durable",
    "Event",
    "Failed",
    "LogThread",
    "SnapshotDone",
    "SnapshotFailed",
    "Syncs",
    "Waits",
]

MAX_BATCH: Final = 4096
"""No further record is taken into a batch of so many."""

MAX_BATCH_BYTES: Final = 1024 * 1024
"""No further record is taken into a batch of this many bytes."""

SYNC_BOUNDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)
"""Seconds by which syncs are counted."""

_AGAIN: Final = 0.05
"""Seconds after which it is tried again to open a file for which there was no descriptor."""

_LAST_TRIES: Final = 100
"""How often, when the program stops."""

_new = tuple.__new__

_WORK: Final = 0.001
_PAUSE: Final = 0.003
"""The snapshot thread works and pauses in turn, in seconds: it takes no more than a quarter of the time."""


class Durable(NamedTuple):
    """All records up to `lsn` are durable, as `sync` has it."""

    lsn: int


class Failed(NamedTuple):
    """A write or sync failed. All records after `durable_lsn` are dropped; none are taken until `restart`."""

    reason: str
    durable_lsn: int


class Waits(NamedTuple):
    """Records wait, for `reason`, which passes: `Durable` follows then."""

    reason: str


class SnapshotDone(NamedTuple):
    """The snapshot of the state after record `lsn` is durable; it has `bytes` and took `seconds`."""

    lsn: int
    bytes: int
    seconds: float


class SnapshotFailed(NamedTuple):
    """The snapshot was not made; what was there before still is."""

    reason: str


Event: TypeAlias = Durable | Failed | Waits | SnapshotDone | SnapshotFailed


class Syncs(NamedTuple):
    """How long the disk took to write and sync a batch of records."""

    bounds: tuple[float, ...]
    """Seconds."""
    counts: list[int]
    """How many took no longer than each bound, and than the one before longer; the last: than all bounds."""
    seconds: float
    """All together."""


class _Job(Enum):
    """What the snapshot thread does."""

    SNAPSHOT = 1
    RESTART = 2


class _Ended(NamedTuple):
    """The event with which a job of the snapshot thread ended."""

    event: Event
    job: _Job


class _Sync:
    """Asks the writer to make all that was appended so far durable."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.problem = ""


class _Restarted:
    """Tells the writer that the log may be used again."""


class _Close:
    """Tells the writer to end; `clean`: and to note that it did so in order."""

    def __init__(self, clean: bool) -> None:
        self.clean = clean


_Item: TypeAlias = "tuple[bytes, ...] | _Sync | _Restarted | _Close"
"""Records, or something else to do in their order."""


class LogThread:
    """A `Log` and the threads around it. All methods are for one thread, the node's loop; none waits for
    the disk, but for `close`."""

    def __init__(
        self,
        log: Log,
        *,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`wake` is called from other threads after events were queued. `clock`, `sleep`: in seconds."""
        self._log = log
        self._options: Options = log.options
        self._timed = log.options.sync == "interval"
        self._due = 0.0
        """When the next sync is due, while something is not synced. The writer thread's own."""
        self._wake = wake
        self._clock = clock
        self._sleep = sleep
        self._queue: deque[_Item] = deque()
        self._bell = -1
        """The eventfd that the writer thread sleeps at."""
        self._idle = False
        """The writer thread sleeps, or is about to: who queues something rings."""
        self._events: deque[Event | _Ended] = deque()
        self._next = log.last
        self._failed = ""
        self._restarting = False
        self._writing = False
        """A snapshot is being written, as far as was polled."""
        self._stopping = False
        self._snapshots: threading.Thread | None = None
        self._size = log.size_since_snapshot
        self._size_at_snapshot = 0
        self._sync_counts = [0] * (len(SYNC_BOUNDS) + 1)
        self._sync_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)

    @property
    def size_since_snapshot(self) -> int:
        """Bytes of records that a start would read after the newest snapshot, about."""
        return self._size

    @property
    def syncs(self) -> Syncs:
        """How long the disk took, since the start. The writer thread counts on meanwhile."""
        return Syncs(SYNC_BOUNDS, list(self._sync_counts), self._sync_seconds)

    def start(self) -> None:
        """Start the writer thread. Raises `OSError` if there is no descriptor left to wake it by."""
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread.start()

    def append(self, *payloads: bytes) -> int:
        """Hand records over, and return the number of the last. `Durable` tells when it is.

        Raises `StorageError` after `Failed` was polled, until a `restart` is done; `ValueError` for a payload
        of more than `MAX_PAYLOAD` bytes, `TypeError` for one that is not `bytes`: then none is taken.
        """
        if self._failed:
            raise StorageError(
                f"the log takes no writes: {self._failed}", reason=self._failed, outcome="none"
            )
        size = 0
        for payload in payloads:
            length = len(payload)
            if length > MAX_PAYLOAD:
                raise ValueError(f"a record of {length} bytes; at most {MAX_PAYLOAD} are allowed")
            if type(payload) is not bytes:
                raise TypeError(f"a record is bytes, not {type(payload).__name__}")
            size += HEADER + length + ALIGN - length % ALIGN  # `record_size`
        self._next += len(payloads)
        self._size += size
        if size <= MAX_BATCH_BYTES and len(payloads) <= MAX_BATCH:
            self._queue.append(payloads)
        else:
            self._queue.extend([(payload,) for payload in payloads])
        if self._idle:
            self._ring()
        return self._next

    def poll(self) -> list[Event]:
        """Return what happened since the last time. Does not wait."""
        found, events = self._events, []
        while found:
            event = found.popleft()
            if type(event) is not Durable:
                event = self._noted(event)
            events.append(event)
        return events

    def _noted(self, event: Event | _Ended) -> Event:
        """Take note of what `event` says, and return it without what is said to this thread alone."""
        if isinstance(event, Failed):
            self._failed = event.reason
        if not isinstance(event, _Ended):
            return event
        event, job = event
        if job is _Job.SNAPSHOT:
            self._writing = False
            if isinstance(event, SnapshotDone):
                self._size -= self._size_at_snapshot
        else:
            self._restarting = False
            if isinstance(event, SnapshotDone):
                self._failed = ""
                self._next = event.lsn
                self._size = 0
        return event

    def snapshot(self, lsn: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Write a snapshot of the state after record `lsn`, a durable one, in a thread of its own.

        `chunks` is called there, and gives the payload in parts, best of some 16 KiB: after each the thread
        may pause for the loop. `SnapshotDone` or `SnapshotFailed` follows; the latter at once if another
        one is being written, or the log has failed.
        """
        if self._failed or self._restarting:
            self._events.append(SnapshotFailed(f"the log takes no writes: {self._failed}"))
        elif self._writing:
            self._events.append(SnapshotFailed("another snapshot is being written"))
        else:
            self._writing = True
            self._size_at_snapshot = self._size
            self._begin(_Job.SNAPSHOT, lsn, chunks)
            return
        self._wake()

    def restart(self, lsn: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """After `Failed`: go on after record `lsn`, its `durable_lsn`, in a new file, beside a snapshot.

        `SnapshotDone` follows when records are taken again, or `SnapshotFailed`, and it may be tried again.
        Raises `ValueError` if the log has not failed, or a restart is going on.
        """
        if not self._failed or self._restarting:
            raise ValueError("the log is being restarted" if self._restarting else "the log has not failed")
        self._restarting = True
        self._begin(_Job.RESTART, lsn, chunks)

    def close(self, clean: bool = True) -> bool:
        """Write and sync all that was appended, note the orderly stop if `clean`, and let go of the folder.

        Waits for it. A snapshot that is being written is given up. Returns whether all is durable; if not,
        `poll` has a `Failed`. A second call does nothing more.
        """
        if self._stopping:
            return not self._log.failed
        self._stopping = True
        if not self._thread.is_alive():
            self.start()
        if self._snapshots is not None:
            self._snapshots.join()
        self._put(_Close(clean))
        self._thread.join()
        os.close(self._bell)
        return not self._log.failed

    # -- the writer thread -----------------------------------------------------------------------------
    #
    # `_take` and the steps of `_snapshot` do the work; what is around them only waits. So a simulation can
    # take the same steps one by one, without threads.

    # The path of one record is written out, not cut into functions: this thread runs cold, after each sleep,
    # and the loop waits for it. For the same reason it sleeps at an eventfd and not at a lock. Who writes to
    # one has let go of the interpreter meanwhile, and a writer that takes the core at once finds that free;
    # who releases a lock has not, and the two hand the core to and fro.

    def _run(self) -> None:
        queue, bell, timed = self._queue, self._bell, self._timed
        going = True
        while going:
            self._idle = True  # before the look: who queues something after it sees that
            if not queue:
                if timed:
                    self._doze()
                else:
                    os.read(bell, 8)
            self._idle = False
            if queue:
                going = self._take(queue.popleft())
            elif timed and self._patience() == 0:
                self._take(None)

    def _doze(self) -> None:
        """Sleep until something is queued, or a sync is due."""
        patience = self._patience()
        if patience is not None:
            poller = select.poll()
            poller.register(self._bell, select.POLLIN)
            if not poller.poll(int(patience * 1000) + 1):
                return
        os.read(self._bell, 8)

    def _put(self, item: _Item) -> None:
        self._queue.append(item)
        if self._idle:
            self._ring()

    def _ring(self) -> None:
        self._idle = False
        os.eventfd_write(self._bell, 1)

    def _patience(self) -> float | None:
        """Return the seconds after which `_take` is due though nothing came, or None: it is not."""
        log = self._log
        if self._timed and log.synced < log.last and not log.failed:
            return max(0.0, self._due - self._clock())
        return None

    def _take(self, item: _Item | None) -> bool:
        """Carry out `item` and the records that wait behind it; None: nothing came, and a sync is due.

        Returns whether the writer goes on.
        """
        log, timed = self._log, self._timed
        if type(item) is tuple:
            batch: Sequence[bytes] = item
            if self._queue:
                batch, item = self._gathered(item)
            if batch and not log.failed:
                clock = self._clock
                began = clock()
                if timed and log.synced == log.last:
                    self._due = began + self._options.interval
                try:
                    log.append_batch(batch)
                    written = True
                except HeldUp as error:
                    written = self._held_up(error, batch)
                except Exception as error:  # noqa: BLE001  (as `_guard`)
                    self._give_up(error)
                    written = False
                if written:
                    if not timed:
                        took = clock() - began
                        self._sync_counts[bisect_left(SYNC_BOUNDS, took)] += 1
                        self._sync_seconds += took
                    self._tell(_new(Durable, (log.last,)))
            if not timed and type(item) is tuple:
                return True
        elif item is None:
            self._sync_now()
            return True
        if timed and log.synced < log.last and not log.failed and self._clock() >= self._due:
            self._sync_now()
        if isinstance(item, _Sync):
            if not log.failed:
                self._guard(log.sync)
            item.problem = log.failed
            item.done.set()
        elif isinstance(item, _Restarted):
            log.restarted()
        elif isinstance(item, _Close):
            self._guard(lambda: log.close(item.clean))
            return False
        return True

    def _gathered(self, item: tuple[bytes, ...]) -> tuple[list[bytes], _Item]:
        """Return the records of `item` and of those that wait behind it, and what is to be done after them.

        That is the last of the items taken, if it has no records.
        """
        queue = self._queue
        batch: list[bytes] = []
        size = 0
        following: _Item = item
        while type(following) is tuple:
            batch += following
            size += sum(map(len, following))
            if len(batch) >= MAX_BATCH or size >= MAX_BATCH_BYTES or not queue:
                break
            following = queue.popleft()
        return batch, following

    def _held_up(self, error: HeldUp, batch: Sequence[bytes]) -> bool:
        """Where no file can be opened for `batch`, wait until one can: nothing was harmed, and only an
        operator could make good for a log that has failed. Return whether it was written in the end."""
        self._tell(Waits(error.strerror or str(error)))
        tries = 1
        while True:
            self._sleep(_AGAIN)
            try:
                self._log.append_batch(batch)
            except HeldUp as again:
                if self._stopping and tries >= _LAST_TRIES:
                    self._give_up(again)
                    return False
                tries = tries + 1 if self._stopping else 1
            except Exception as other:  # noqa: BLE001  (as `_guard`)
                self._give_up(other)
                return False
            else:
                return True

    def _sync_now(self) -> None:
        began = self._clock()
        if self._guard(self._log.sync):
            took = self._clock() - began
            self._sync_counts[bisect_left(SYNC_BOUNDS, took)] += 1
            self._sync_seconds += took

    def _guard(self, action: Callable[[], object]) -> bool:
        """Run `action`; if it fails, tell of it, and return false."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  (whatever it is, what was not written must not be taken for it)
            self._give_up(error)
            return False
        return True

    def _give_up(self, error: Exception) -> None:
        """Tell that the log failed with `error`, and see to it that it takes no more."""
        if isinstance(error, StorageError):
            reason = error.reason or error.message
        else:
            reason = repr(error)
            self._log.give_up(reason)
        self._tell(Failed(reason, self._log.last))

    def _tell(self, event: Event | _Ended) -> None:
        self._events.append(event)
        try:  # noqa: SIM105  (for each batch, and `suppress` is three calls more)
            self._wake()
        except OSError:
            pass

    # -- the snapshot thread ---------------------------------------------------------------------------

    def _begin(self, job: _Job, lsn: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        self._snapshots = threading.Thread(
            target=self._drive,
            args=(self._snapshot(job, lsn, chunks), self._snapshots),
            name="log snapshot",
            daemon=True,
        )
        self._snapshots.start()

    def _drive(self, steps: Iterable[_Sync | None], before: threading.Thread | None) -> None:
        if before is not None:
            # It may still write, if the log failed under it, or remove what is not needed any more.
            before.join()
        since = self._clock()
        for sync in steps:
            if sync is not None:
                sync.done.wait()
            elif self._clock() - since >= _WORK:
                self._sleep(_WORK if self._restarting else _PAUSE)  # writes wait for a restart
                since = self._clock()

    def _snapshot(self, job: _Job, lsn: int, chunks: Callable[[], Iterable[bytes]]) -> Iterator[_Sync | None]:
        """Write a snapshot, step by step. After a `_Sync` the next step is to be taken when that is done."""
        started = self._clock()
        try:
            size = yield from self._write(lsn, chunks, job is _Job.RESTART)
        except Exception as error:  # noqa: BLE001  (the steps end here; whatever it was, the loop must hear of it)
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or repr(error)
            self._tell(_Ended(SnapshotFailed(reason), job))
            return
        self._tell(_Ended(SnapshotDone(lsn, size, self._clock() - started), job))
        yield None
        # What cannot be removed now stays until the next snapshot; it does no harm.
        with suppress(OSError):
            self._log.prune()

    def _write(
        self, lsn: int, chunks: Callable[[], Iterable[bytes]], restart: bool
    ) -> Generator[_Sync | None, None, int]:
        """Write the snapshot, and return its size."""
        writer = self._log.restart(lsn) if restart else self._log.snapshot(lsn)
        try:
            for chunk in chunks():
                writer.add(chunk)
                self._refuse("the program stops" if self._stopping else "")
                yield None
            writer.sync()
            if not restart:
                sync = _Sync()
                self._put(sync)
                yield sync
                self._refuse(sync.problem)
            writer.publish()
        except BaseException:
            writer.abandon()
            raise
        if restart:
            self._put(_Restarted())
        return writer.size

    @staticmethod
    def _refuse(problem: str) -> None:
        if problem:
            raise OSError(problem)
