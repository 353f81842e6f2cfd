"""The history of a data folder, open: what a program calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tega_zmq.errors import StorageError
from tega_zmq.log.disk import Disk
from tega_zmq.log.history import keeping, reading, writing
from tega_zmq.log.history.files import Files
from tega_zmq.log.history.format import FOLDER
from tega_zmq.log.history.keeping import Policy
from tega_zmq.store import Gap, KeptVersion, Root, Store, Update
from tega_zmq.tree.node import pairs

__all__ = ["History", "open_history"]


def open_history(
    disk: Disk,
    folder: str,
    note: Callable[[str], None] = lambda _: None,
    rest: Callable[[], None] = lambda: None,
) -> History:
    """Open the history in the data folder, which is made if it is not there.

    `note` is told what was cut off at the end of a file, which files cannot be used, and later which versions
    are missing for good. `rest` is called between the parts of a checkpoint, each of some milliseconds of
    work: it may sleep. Raises `OSError`.
    """
    disk.make_folder(f"{folder}/{FOLDER}")
    files = Files(disk, folder, note, rest)
    for file in disk.list(f"{folder}/{FOLDER}"):
        if file.endswith(".tmp"):
            disk.remove(files.path(file))
        elif file.endswith(".hist"):
            try:
                files.take_in(file)
            except (StorageError, ValueError, TypeError, IndexError) as error:
                note(f"{FOLDER}/{file} cannot be used: {error}")
    for series in list(files.series.values()):
        text = files.resume(series)
        if text:
            note(text)
    return History(files)


class History:
    """All versions of all roots, as far as they are kept. Made by `open_history`.

    It belongs to one thread. It never looks at the log: `follow` is given a store, and takes from what that
    keeps of each root what the files lack.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self.clock: Callable[[], float] | None = None
        """Unix seconds; None: nothing is dropped by age."""
        self.policy: Callable[[str], Policy] = lambda _: Policy()
        self.archive: Callable[[str, str, Iterator[Any]], None] | None = None
        """Called with root, file and what is in it before it is dropped."""

    @property
    def roots(self) -> list[str]:
        """The names of all roots that have files."""
        return list(self._files.series)

    @property
    def unsynced(self) -> bool:
        """Whether anything was followed since the last `sync`."""
        return self._files.growing > 0

    # -- writing ---------------------------------------------------------------------------------------

    def follow(self, store: Store) -> None:
        """Take from `store`, a durable one, what the files lack of the roots that are kept here.

        Those are all but replicas that came from above. Raises `OSError`; what is lacking then is taken the
        next time.
        """
        writing.follow(self._files, store, self.drop)

    def catch_up(self, store: Store) -> None:
        """Take from `store`, one of the past, what the files lack and it surely goes on with.

        A start shows the states between the log's snapshot and its end, so that nothing is lost that had left
        the memory before it got here. Roots of which the files hold more than `store` are passed over. Raises
        as `follow`.
        """
        writing.catch_up(self._files, store, self.drop)

    def sync(self) -> None:
        """Make all that was followed durable. Raises `OSError`."""
        self._files.sync_all()

    def close(self) -> None:
        """Sync and close all files. Raises `OSError`."""
        self._files.close()

    # -- what is dropped -------------------------------------------------------------------------------

    def tidy(self, store: Store) -> None:
        """Drop what nothing asks to keep any more, of all roots of `store`. Raises as `drop`.

        A file is dropped whole, so one that grows too slowly to end is ended when its beginning is too old.
        """
        for name, root in pairs(store.roots):
            series = self._files.series.get(name)
            if series is None or not series.parts:
                continue
            seconds = self.policy(name).seconds
            if (
                seconds is not None
                and self.clock is not None
                and series.parts[-1].time < self.clock() - seconds
                and series.commits
                and series.usable
                and series.last == root.version
                and root.version in root.trees
                and writing.is_last(series, root)
            ):
                writing.begin(self._files, series, root, root.version, True)
            self.drop(root)

    def drop(self, root: Root) -> None:
        """Remove the oldest files of `root` that nothing asks to keep; no file that holds a tagged version.

        Raises `OSError`.
        """
        series = self._files.series.get(root.name)
        if series is not None:
            keeping.drop(self._files, series, root, self.policy(root.name), self.clock, self.archive)

    # -- reading ---------------------------------------------------------------------------------------

    def tree(self, name: str, version: int) -> KeptVersion:
        """Return the tree and marks of `version` of root `name`.

        Raises `Compacted` (dropped), `StorageError` (damaged or missing: names file and offset), `OSError`.
        """
        return reading.tree(self._files, name, version)

    def updates(self, name: str, before: int) -> Iterator[Update | Gap]:
        """Yield the updates of `name` to versions lower than `before`, newest first.

        Where some between two others cannot be read, because they were dropped, are damaged or were never
        written, a `Gap` stands for them. Raises `OSError`.
        """
        return reading.updates(self._files, name, before)

    def spans(self, name: str, since: int = 0) -> list[tuple[int, int]]:
        """Return (first, last) of the versions of `name` that can be read, oldest first.

        Within a span each version is there, and each commit between two. What ends before version `since` is
        left out. Looks once through each file; what is damaged after that is noticed when it is read.
        """
        return reading.spans(self._files, name, since)

    def stamps(self, name: str, versions: set[int]) -> dict[int, tuple[float, str, str]]:
        """Return (time, tega_id, message) of `versions` of `name`, as far as they are known."""
        return reading.stamps(self._files, name, versions)

    def version_at(self, name: str, time: float, before: int) -> int:
        """Return the newest version of `name` lower than `before` that was made at `time` or earlier.

        `ABSENT` if there was none. Raises as `tree`.
        """
        return reading.version_at(self._files, name, time, before)
