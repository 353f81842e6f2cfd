"""The history thread: it takes from the durable store what goes to the disk, and reads what is asked for."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from tega_zmq.log.disk import Disk
from tega_zmq.log.history import History, Policy, open_history
from tega_zmq.node.effects import CommitsAt, SpansOf, TreeAt, UpdatesAt, VersionAt, Want
from tega_zmq.paths import Path
from tega_zmq.store import Gap, Store, Update

__all__ = ["Historian", "archiver", "policy_of"]

_REST: Final = 0.05
"""Seconds between two looks at the store: what happened meanwhile is written together."""
_AGAIN: Final = 5.0
"""Seconds after which a write that failed is tried again."""
_SYNC: Final = 10.0
"""Seconds after which what was written is synced."""
_TIDY: Final = 600.0
"""Seconds between two looks for what need not be kept any more; the first is at the start."""
_PAUSE: Final = 0.004
"""Seconds of rest after each part of a checkpoint, which is some 1 to 2 ms of work: however large the tree,
most of the time is left to the loop."""
_LOOK: Final = 0.5
"""Seconds between two looks of who waits whether the thread is still there."""


class _Read(NamedTuple):
    number: int
    want: Want
    store: Store


class _Awaited:
    """A store that another thread waits for."""

    def __init__(self, store: Store, replayed: bool) -> None:
        self.store = store
        self.replayed = replayed
        """It is of the past: between the snapshot and the end of the log."""
        self.done = threading.Event()
        self.problem = ""


class Historian:
    """Runs a `History` in a thread of its own. All methods are for the loop's thread, and none waits but
    `close`."""

    def __init__(
        self,
        disk: Disk,
        folder: str,
        *,
        wake: Callable[[], None],
        note: Callable[[str, str, dict[str, Any]], None],
        policy: Callable[[str], Policy] = lambda _: Policy(),
        archive: Callable[[str, str, Iterator[Any]], None] | None = None,
    ) -> None:
        """`wake` is called from the thread after results were queued; `note(level, event, fields)` logs."""
        self._disk = disk
        self._folder = folder
        self._wake = wake
        self._note = note
        self._policy = policy
        self._archive = archive
        self._queue: SimpleQueue[_Read | _Awaited | Store | None] = SimpleQueue()
        self._results: deque[tuple[int, Any]] = deque()
        self._history: History | None = None
        self._newest: Store | None = None
        """The newest store that was taken in whole."""
        self._failed = ""
        self._awaited = 0
        """How many wait for the thread: who reads, or who cannot go on without it. Then it does not rest."""
        self._lock = threading.Lock()
        """Held while that is changed."""
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    @property
    def status(self) -> str:
        """`ok`, or why nothing is written at present."""
        return f"writes nothing: {self._failed}" if self._failed else "ok"

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def replayed(self, store: Store) -> None:
        """`store` was there after some record of the log that is being read at the start.

        Waits until it is taken in, or cannot be. A version that had left the memory when the program was
        killed, and was not in the files yet, gets there from here.
        """
        self._wait(_Awaited(store, True))

    def settle(self, store: Store) -> str:
        """Make all of `store` durable in the files. Returns why that cannot be done, or nothing.

        For other threads than the loop's: it waits for the disk.
        """
        return self._wait(_Awaited(store, False))

    def _wait(self, awaited: _Awaited) -> str:
        self._put(awaited)
        while not awaited.done.wait(_LOOK):
            if not self._thread.is_alive():
                return "the program stops"
        return awaited.problem

    def follow(self, store: Store) -> None:
        """`store` is durable now."""
        self._queue.put(store)

    def read(self, number: int, want: Want, store: Store) -> None:
        """Read `want`; `poll` gives the result under `number`. `store`: the durable one."""
        self._put(_Read(number, want, store))

    def poll(self) -> list[tuple[int, Any]]:
        """Return (number, result or error) of what was read since the last time."""
        found = []
        while self._results:
            found.append(self._results.popleft())
        return found

    def close(self) -> None:
        """Write and sync all that was followed, and end. Waits for it."""
        self._put(None)
        self._thread.join()

    def _put(self, item: _Read | _Awaited | None) -> None:
        with self._lock:
            self._awaited += 1
        self._queue.put(item)

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        tried = synced = tidied = time.monotonic()
        last: Store | None = None
        while True:
            if self._newest is not None and time.monotonic() >= tidied:
                self._tidy(self._newest)
                tidied = time.monotonic() + _TIDY
            wait = _TIDY
            if last is not None or self._failed:
                wait = _AGAIN
            elif self._history is not None and self._history.unsynced:
                wait = _SYNC  # what came last is synced too, and its files closed
            try:
                item = self._queue.get(timeout=wait)
            except Empty:
                if last is None:
                    # If a sync failed: what comes next finds out whether it can be done again.
                    synced = time.monotonic()
                    self._guard(self._sync)
                    continue
                item = last
            if item is None:
                if last is not None:
                    self._guard(lambda store=last: self._follow(store))  # type: ignore[misc]
                self._guard(self._finish)
                return
            if isinstance(item, _Awaited):
                self._take(item)
                self._served()
                if not item.replayed:
                    last = item.store if item.problem else None
                continue
            store = item.store if isinstance(item, _Read) else item
            now = time.monotonic()
            if not self._failed or now - tried >= _AGAIN or isinstance(item, _Read):
                tried = now
                last = None if self._guard(lambda store=store: self._follow(store)) else store  # type: ignore[misc]
            else:
                last = store
            if isinstance(item, _Read):
                self._results.append((item.number, self._read(item.want)))
                self._served()
                self._wake()
            elif self._history is not None and now - synced >= _SYNC:
                synced = now
                self._guard(self._sync)
            if not isinstance(item, _Read) and self._queue.empty():
                time.sleep(_REST)

    def _served(self) -> None:
        with self._lock:
            self._awaited -= 1

    def _rest(self) -> None:
        if not self._awaited:
            time.sleep(_PAUSE)

    def _take(self, awaited: _Awaited) -> None:
        """Take in what somebody waits for, and let them go on."""
        if awaited.replayed:
            self._guard(lambda: self._opened().catch_up(awaited.store))
        else:
            self._guard(lambda: self._follow(awaited.store)) and self._guard(self._sync)
        awaited.problem = self._failed
        awaited.done.set()

    def _opened(self) -> History:
        if self._history is None:
            self._history = open_history(
                self._disk,
                self._folder,
                lambda text: self._note("error", "history", {"what": text}),
                self._rest,
            )
            self._history.policy = self._policy
            self._history.archive = self._archive
            self._history.clock = time.time
        return self._history

    def _follow(self, store: Store) -> None:
        self._opened().follow(store)
        self._newest = store

    def _tidy(self, store: Store) -> None:
        try:
            self._opened().tidy(store)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again, and all is still there
            self._note("error", "old versions cannot be dropped", {"error": str(error) or repr(error)})

    def _sync(self) -> None:
        if self._history is not None:
            self._history.sync()

    def _finish(self) -> None:
        if self._history is not None:
            self._history.close()

    def _guard(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # noqa: BLE001  # whatever it is, the node goes on, and must be told
            reason = str(error) or repr(error)
            if reason != self._failed:
                self._note("error", "history is not written", {"error": reason})
            self._failed = reason
            return False
        if self._failed:
            self._note("info", "history is written again", {})
        self._failed = ""
        return True

    def _read(self, want: Want) -> Any:
        try:
            history = self._opened()
            if isinstance(want, TreeAt):
                return history.tree(want.root, want.version)
            if isinstance(want, VersionAt):
                return history.version_at(want.root, want.time, want.before)
            if isinstance(want, CommitsAt):
                return history.stamps(want.root, set(want.versions))
            if isinstance(want, SpansOf):
                names = [want.root] if want.root else history.roots
                return {name: history.spans(name, want.since) for name in names}
            return picked(history.updates(want.root, want.before), want)
        except Exception as error:  # noqa: BLE001  # it is answered to whoever asked
            return error


def policy_of(keep: Sequence[Mapping[str, Any]]) -> Callable[[str], Policy]:
    """Return the function that tells of each root what `keep`, the config's `history.keep`, asks for."""
    entries = [
        (
            re.compile(entry["root"]),
            Policy(
                entry.get("versions"),
                entry["days"] * 86_400 if entry.get("days") is not None else None,
                entry.get("size"),
            ),
        )
        for entry in keep
    ]

    def policy(root: str) -> Policy:
        return next((found for pattern, found in entries if pattern.fullmatch(root)), Policy())

    return policy


def picked(updates: Iterator[Update | Gap], want: UpdatesAt) -> list[Update | Gap]:
    """Return of `updates`, newest first, the newest that `want` asks for, and the gaps between them."""
    found: list[Update | Gap] = []
    left, newest = want.limit, True
    for update in updates:
        if left <= 0:
            break
        if isinstance(update, Gap):
            found.append(update)
            continue
        if newest and update.after < want.before - 1:
            found.append(Gap(update.after + 1, want.before - 1, "they are missing"))
        newest = False
        if (want.by and update.tega_id != want.by) or (want.since is not None and update.time < want.since):
            continue
        if len(want.path) == 1 or touches(update, want.path):
            found.append(update)
            left -= 1
    return found


def touches(update: Update, path: Path) -> bool:
    """Whether `update` changed something at, below or above `path`; of a delete above it: perhaps."""
    for change in update.changes:
        if change.path[: len(path)] == path:
            return True
        if path[: len(change.path)] == change.path:
            value = change.value
            for oid in path[len(change.path) :]:
                value = value.get(oid, _NOTHING) if type(value) is dict else _NOTHING
            if value is not _NOTHING or not change.present:
                return True
    return False


_NOTHING: Final = object()


def archiver(folder: str) -> Callable[[str, str, Iterator[Any]], None]:
    """Return the function that writes what is dropped into `folder`, as JSON lines compressed with gzip.

    The first lines of a file are the checkpoint, one entry of the tree a line; then comes one update a line.
    `zcat` and any JSON reader read it.
    """

    def archive(root: str, file: str, plains: Iterator[Any]) -> None:
        import gzip
        import json  # both here: an agent that archives nothing does without

        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, f"{quote(root, safe='')[:100]}-{file[:-5]}.jsonl.gz")
        with gzip.open(path + ".tmp", "wt", encoding="utf-8") as out:
            for plain in plains:
                for line in _lines(plain):
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
        with open(path + ".tmp", "rb") as written:
            os.fsync(written.fileno())
        os.replace(path + ".tmp", path)

    return archive


def _lines(plain: Any) -> Iterator[dict[str, Any]]:
    if plain[0] == 1:
        keys = ("root", "line", "epoch", "version", "present", "time", "tega_id", "message")
        yield {"checkpoint": dict(zip(keys, plain[2:], strict=True))}
    elif plain[0] == 2:
        for path, version, container, value in plain[1]:
            yield {"path": path, "version": version, **({} if container else {"value": value})}
    elif plain[0] == 3:
        for path, session in plain[1]:
            yield {"path": path, "ephemeral": session}
    elif plain[0] == 5:
        for root, epoch, before, after, changes, at, tega_id, message, backto, *_ in plain[1:]:
            yield {
                "root": root,
                "epoch": epoch,
                "before": before,
                "version": after,
                "time": at,
                "tega_id": tega_id,
                "message": message,
                "backto": backto,
                "changes": [
                    {"path": [root, *each[0]], **({"value": each[1]} if len(each) > 1 else {"deleted": True})}
                    for each in changes
                ],
            }
