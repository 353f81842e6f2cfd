"""The history: every version of every root, on the disk.

    <data folder>/history/<the root's name, as `_stem` writes it>-<number>.hist

Each file begins with a checkpoint, the whole tree of one version, and goes on with the updates after it;
the next one, numbered one higher, begins with the version that it ends with. So a version is the checkpoint
before it and the updates from there on. A file is frames: length u32, crc u32, payload; each crc is the
CRC-32 of the payload begun at the crc before. A payload is msgpack: `[1, format, root, line, epoch, version,
is it there, time, tega_id, message]`, then the parts of the tree `[2, entries]` and of its marks
`[3, marks]`; `[6, update]` for each that is known of before, if the file does not go on from another; then
`[4]`; then `[5, update, ...]`, an update for each version.

A `History` belongs to one thread. It never looks at the log: `follow` is given a store, and takes from what
that keeps of each root what the files lack. What is torn at the end of the newest file of a root is cut off
at `open_history` and taken from the store again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

from rpds import HashTrieMap

from tega_zmq.errors import Compacted, StorageError, TegaError
from tega_zmq.log.disk import Disk, File
from tega_zmq.log.records import decode_chunk, encode_chunk, encode_list
from tega_zmq.paths import Path, format_path
from tega_zmq.store import (
    ABSENT,
    Gap,
    Kept,
    KeptVersion,
    Root,
    Store,
    Update,
    check_marks,
    entries,
    plain_update_at,
    update_at,
    update_from_plain,
    update_to_plain,
)
from tega_zmq.store.applying import advanced
from tega_zmq.store.history import NO_MARKS, NO_PATHS, new_root
from tega_zmq.tree.node import EMPTY, Node, pairs

__all__ = ["FOLDER", "History", "Policy", "frames", "open_history"]

FOLDER: Final = "history"
FORMAT: Final = 1

_FRAME: Final = struct.Struct("<II")
_PART: Final = 500
"""Most entries of a tree in one frame."""
_READ: Final = 1 << 18
_COMMITS: Final = 4_000
"""Updates after which a file ends; a version is never further than that from its checkpoint."""
_BYTES: Final = 4 << 20
"""Bytes of updates after which a file ends, if its checkpoint is not larger."""
_TOGETHER: Final = 64
"""Most updates in one frame."""
_UNSYNCED: Final = 1_000
"""Updates of a root that wait for a sync, at most; and no more than half of those that the store keeps, from
which they are taken again after a crash."""
_OPEN: Final = 16
"""Most files that are open at a time, about."""
_ONE: Final = Kept(1, 1)
_UPDATES: Final = encode_chunk(5)
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_LONGEST: Final = 100
"""Most characters of a root's name in the name of a file."""


class Policy(NamedTuple):
    """What is kept of a root; None: no bound."""

    versions: int | None = None
    seconds: float | None = None
    size: int | None = None
    """Bytes."""


class _Part(NamedTuple):
    """One file."""

    number: int
    line: int
    """Versions count within a line; after `clear` a new one begins."""
    first: int
    """Version of the checkpoint."""
    epoch: str
    time: float


class _Series:
    """The files of one root, the oldest first, and the end of the newest."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[_Part] = []
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


def _stem(name: str) -> str:
    """Return the name of root `name` for a file: what is no small letter, digit, - or _ as `%XX`, in UTF-8.

    Capitals too, since some file systems do not tell them apart; so no two roots share a file. One that
    becomes longer than 100 characters is told by the first 32 hex digits of its SHA-256, after a `+`.
    """
    stem = "".join(
        each if each in _PLAIN else "".join(f"%{byte:02X}" for byte in each.encode()) for each in name
    )
    if len(stem) <= _LONGEST:
        return stem
    import hashlib  # here: it loads a library of 3 MB, which a small device does without

    return "+" + hashlib.sha256(name.encode()).hexdigest()[:32]


def _file_name(name: str, number: int) -> str:
    return f"{_stem(name)}-{number:08d}.hist"


def _damaged(file: str, offset: int, what: str) -> StorageError:
    return StorageError(
        f"{FOLDER}/{file} is damaged at byte {offset}: {what}; other versions can be read, `tega-check` lists"
        " what is damaged",
        reason="damaged",
    )


def frames(disk: Disk, folder: str, file: str) -> Iterator[tuple[int, int, Any]]:
    """Yield (offset, crc, payload) of each frame of `file` in the history of the data folder.

    Raises `StorageError` that names file and offset, `OSError`.
    """
    for offset, crc, payload in _payloads(disk, folder, file):
        try:
            plain = decode_chunk(payload)
        except TegaError as error:
            raise _damaged(file, offset, error.message) from error
        yield offset, crc, plain


def _payloads(disk: Disk, folder: str, file: str) -> Iterator[tuple[int, int, bytes]]:
    """As `frames`, with the payloads as they stand there."""
    handle = disk.open(f"{folder}/{FOLDER}/{file}")
    try:
        size = handle.size()
        buffer, at, offset, crc = b"", 0, 0, 0
        while offset < size:
            if len(buffer) - at < _FRAME.size:
                buffer, at = handle.read(offset, _READ), 0
            if len(buffer) - at < _FRAME.size:
                raise _damaged(file, offset, "the file ends within a frame")
            length, expected = _FRAME.unpack_from(buffer, at)
            end = _FRAME.size + length
            if offset + end > size:
                raise _damaged(file, offset, "the file ends within a frame")
            if len(buffer) - at < end:
                buffer, at = handle.read(offset, max(_READ, end)), 0
            payload = buffer[at + _FRAME.size : at + end]
            crc = crc32(payload, crc)
            if crc != expected or not payload:
                raise _damaged(file, offset, "a frame does not match its checksum")
            yield offset, crc, payload
            at += end
            offset += end
    finally:
        handle.close()


def open_history(disk: Disk, folder: str, note: Callable[[str], None] = lambda _: None) -> History:
    """Open the history in the data folder, which is made if it is not there.

    `note` is told what was cut off at the end of a file, which files cannot be used, and later which versions
    are missing for good. Raises `OSError`.
    """
    disk.make_folder(f"{folder}/{FOLDER}")
    history = History(disk, folder)
    history.note = note
    for file in disk.list(f"{folder}/{FOLDER}"):
        if file.endswith(".tmp"):
            disk.remove(f"{folder}/{FOLDER}/{file}")
        elif file.endswith(".hist"):
            try:
                history.take_in(file)
            except (StorageError, ValueError, TypeError, IndexError) as error:
                note(f"{FOLDER}/{file} cannot be used: {error}")
    for series in list(history.series.values()):
        text = history.resume(series)
        if text:
            note(text)
    return history


class History:
    """All versions of all roots, as far as they are kept. Made by `open_history`."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self.series: dict[str, _Series] = {}
        self._open: dict[str, _Series] = {}
        """Those whose newest file is open."""
        self._seen: dict[str, Root] = {}
        self.clock: Callable[[], float] | None = None
        """Unix seconds; None: nothing is dropped by age."""
        self.policy: Callable[[str], Policy] = lambda _: Policy()
        self.archive: Callable[[str, str, Iterator[Any]], None] | None = None
        """Called with root, file and what is in it before it is dropped."""
        self.note: Callable[[str], None] = lambda _: None
        """Told once which versions of which root are missing for good."""

    # -- opening ---------------------------------------------------------------------------------------

    def take_in(self, file: str) -> None:
        """Note a file that was found. For `open_history`, in order of the names."""
        number = int(file.rsplit("-", 1)[1][:-5])
        for _, _, plain in frames(self._disk, self._folder, file):
            kind, version, name, line, epoch, first, _, time, _, _ = plain
            if kind != 1 or version != FORMAT or file != _file_name(name, number):
                raise StorageError("it is of another format, or not what its name says")
            series = self.series.setdefault(name, _Series(name))
            series.parts.append(_Part(number, line, first, epoch, time))
            return
        raise StorageError("it is empty")

    def resume(self, series: _Series) -> str:
        """Find the end of the newest file, and cut off what is torn there. Returns what was done, if much."""
        part = series.parts[-1]
        file = _file_name(series.name, part.number)
        end, text = 0, ""
        series.crc, series.commits, series.last = 0, 0, part.first
        whole = False
        try:
            for offset, crc, plain in frames(self._disk, self._folder, file):
                if plain[0] == 1:
                    series.stamp = (plain[4], plain[7], plain[8])
                elif plain[0] == 4:
                    whole = True
                elif plain[0] == 5:
                    update = update_from_plain(plain[-1])
                    series.last, series.commits = update.after, series.commits + len(plain) - 1
                    series.stamp = (update.epoch, update.time, update.tega_id)
                series.crc = crc
                end = offset
                series.checkpoint = offset if plain[0] == 4 else series.checkpoint
        except TegaError as error:
            text = f"cut off after version {series.last} of {series.name}: {error.message}"
        handle = self._disk.open(f"{self._folder}/{FOLDER}/{file}")
        if not whole:
            # Only what was damaged later looks so: a checkpoint gets its name when it is whole.
            handle.close()
            return f"{FOLDER}/{file} is left as it is: {text or 'its checkpoint is incomplete'}"
        head = handle.read(end, _FRAME.size)
        series.size = end + _FRAME.size + int(_FRAME.unpack(head)[0])
        if text:
            self._keep_tail(handle, file, series.size)
            handle.truncate(series.size)
            handle.sync()
        handle.close()
        series.usable = True
        return text

    def _keep_tail(self, handle: File, file: str, size: int) -> None:
        """What is cut off is kept beside the file: it may have been damaged later, not torn."""
        tail = self._disk.create(f"{self._folder}/{FOLDER}/{file}.torn-{size}")
        try:
            tail.write(0, handle.read(size, handle.size() - size))
            tail.sync()
        finally:
            tail.close()

    @property
    def unsynced(self) -> bool:
        """Whether anything was followed since the last `sync`."""
        return bool(self._open)

    def close(self) -> None:
        """Sync and close all files. Raises `OSError`."""
        try:
            self.sync()
        finally:
            for series in list(self._open.values()):
                self._close(series)

    # -- writing ---------------------------------------------------------------------------------------

    def follow(self, store: Store) -> None:
        """Take from `store`, a durable one, what the files lack of the roots that are kept here.

        Those are all but replicas that came from above. Raises `OSError`; what is lacking then is taken the
        next time.
        """
        for name, root in pairs(store.roots):
            if root.owner == "^" or root.version == ABSENT or self._seen.get(name) is root:
                continue
            self._follow(root, max(1, min(_UNSYNCED, store.kept.updates // 2)))
            self._seen[name] = root
            if len(self._open) >= _OPEN:
                self.sync()

    def catch_up(self, store: Store) -> None:
        """Take from `store`, one of the past, what the files lack and it surely goes on with.

        A start shows the states between the log's snapshot and its end, so that nothing is lost that had left
        the memory before it got here. Roots of which the files hold more than `store` are passed over. Raises
        as `follow`.
        """
        for name, root in pairs(store.roots):
            if root.owner == "^" or root.version == ABSENT:
                continue
            series = self.series.get(name)
            if series is None:
                first = update_at(root, 0)
                lacks = first is not None and first.before == ABSENT
            else:
                lacks = series.usable and series.last < root.version and self._is_last(series, root)
            if lacks:
                self._follow(root, max(1, min(_UNSYNCED, store.kept.updates // 2)))
                if len(self._open) >= _OPEN:
                    self.sync()

    def _follow(self, root: Root, unsynced: int) -> None:
        series = self.series.setdefault(root.name, _Series(root.name))
        at = series.last
        if not self._goes_on(series, root):
            # What cannot go on in the file begins anew; in the same line, if the versions count on.
            same = self._is_last(series, root)
            first = update_at(root, 0)
            if same and series.last in root.trees:
                at = series.last
            elif first is not None and first.before == ABSENT and not same:
                at = ABSENT  # all updates from the first one on are there
            else:
                at = root.oldest
            goes_on = same or (at > series.last and root.epoch == series.stamp[0])
            lacking = (series.last + 1, at - 1) if goes_on and series.parts else (0, -1)
            self._begin(series, root, at, goes_on)
            if lacking[0] <= lacking[1]:
                self.note(
                    "versions {} to {} of {} are missing: they had left the memory before they could be"
                    " written".format(*lacking, format_path((root.name,)))
                )
        while at < root.version:
            at = self._add_updates(series, root, at + 1)
            if series.commits >= _COMMITS or series.size - series.checkpoint >= max(
                _BYTES, series.checkpoint
            ):
                self._end(series, root, at)
        self._flush(series)
        if series.unsynced >= unsynced:
            self._sync(series)

    def _goes_on(self, series: _Series, root: Root) -> bool:
        """Whether the versions of `root` follow on the last one in the files."""
        if not series.usable or not root.oldest_update - 1 <= series.last <= root.version:
            return False
        if update_at(root, series.last) is not None:
            return self._is_last(series, root)
        if series.last == root.version:
            return root.epoch == series.stamp[0]
        following = update_at(root, series.last + 1)
        return following is not None and following.epoch == series.stamp[0]

    @staticmethod
    def _is_last(series: _Series, root: Root) -> bool:
        """Whether `root` keeps the update that the files end with."""
        last = update_at(root, series.last)
        return last is not None and (last.epoch, last.time, last.tega_id) == series.stamp

    def _end(self, series: _Series, root: Root, version: int) -> None:
        """Go on in a new file, if the tree of `version` is there; else later."""
        if version in root.trees:
            self._begin(series, root, version, True)
            self.drop(root)

    def _begin(self, series: _Series, root: Root, version: int, same: bool) -> None:
        # Only the newest file may be torn.
        self._flush(series)
        self._sync(series)
        number = series.parts[-1].number + 1 if series.parts else 1
        line = series.parts[-1].line if series.parts else 1
        if series.parts and not same:
            line += 1
        update = update_at(root, version)
        if update is not None:
            stamp = (update.epoch, update.time, update.tega_id)
        else:
            stamp = (root.epoch, *root.last[:2]) if version == root.version else (root.epoch, 0.0, "")
        message = update.message if update is not None else ""
        tree, ephemerals, born = (None, NO_MARKS, NO_PATHS) if version == ABSENT else root.trees[version]
        file = _file_name(root.name, number)
        path = f"{self._folder}/{FOLDER}/{file}"
        handle = self._disk.create(path + ".tmp")
        fresh = _Series(root.name)
        fresh.file = handle
        try:
            self._add(
                fresh, [1, FORMAT, root.name, line, stamp[0], version, tree is not None, *stamp[1:], message]
            )
            for part in _parts(entries(tree, root.name) if tree is not None else iter(())):
                self._add(fresh, [2, part])
            for part in _parts(iter([*pairs(ephemerals), *((each, "") for each, _ in pairs(born))])):
                self._add(fresh, [3, part])
            if not same or version != series.last:
                for each in range(max(root.oldest_update, series.last + 1 if same else 0), version + 1):
                    earlier = update_at(root, each)
                    if earlier is not None:
                        self._add(fresh, [6, update_to_plain(earlier)])
            self._add(fresh, [4])
            self._flush(fresh)
            handle.sync()
            self._disk.rename(path + ".tmp", path)
            self._disk.sync_folder(f"{self._folder}/{FOLDER}")
        except BaseException:
            handle.close()
            raise
        handle.close()
        series.usable, series.size, series.crc = True, fresh.size, fresh.crc
        series.checkpoint, series.commits, series.unsynced = fresh.size, 0, 0
        series.buffer.clear()
        series.last, series.stamp = version, stamp
        series.parts.append(_Part(number, line, version, stamp[0], stamp[1]))

    def _add_updates(self, series: _Series, root: Root, version: int) -> int:
        """Add a frame of updates from the one to `version` on; return the last version in it."""
        parts, size, plain = [_UPDATES], 0, None
        most = min(_TOGETHER, max(1, _COMMITS - series.commits), root.version - version + 1)
        while len(parts) <= most and size < _READ:
            plain = plain_update_at(root, version + len(parts) - 1)
            part = encode_chunk(plain)
            parts.append(part)
            size += len(part)
        assert plain is not None
        self._add_payload(series, encode_list(parts))
        series.last, series.commits = version + len(parts) - 2, series.commits + len(parts) - 1
        series.stamp = (plain[1], plain[5], plain[6])
        series.unsynced += len(parts) - 1
        return series.last

    def _add(self, series: _Series, plain: Any) -> None:
        self._add_payload(series, encode_chunk(plain))

    def _add_payload(self, series: _Series, payload: bytes) -> None:
        series.crc = crc32(payload, series.crc)
        series.buffer += _FRAME.pack(len(payload), series.crc)
        series.buffer += payload
        series.size += _FRAME.size + len(payload)
        if len(series.buffer) >= _READ:
            self._flush(series)

    def _flush(self, series: _Series) -> None:
        if not series.buffer:
            return
        try:
            if series.file is None:
                file = _file_name(series.name, series.parts[-1].number)
                series.file = self._disk.open(f"{self._folder}/{FOLDER}/{file}")
                self._open[series.name] = series
            series.file.write(series.size - len(series.buffer), bytes(series.buffer))
        except OSError:
            # How much arrived is not known: look again, and take from the store what is missing.
            self.fail(series)
            raise
        series.buffer.clear()

    def fail(self, series: _Series) -> None:
        """A write failed: forget what the newest file holds, and find its end again."""
        series.buffer.clear()
        self._seen.pop(series.name, None)
        series.usable = False
        self._close(series)
        if series.parts:
            self.resume(series)

    def _sync(self, series: _Series) -> None:
        if series.unsynced and series.file is not None:
            try:
                series.file.sync()
            except OSError:
                # A file whose sync failed is not written to again: what comes next goes into another.
                series.usable = False
                self._close(series)
                self._seen.pop(series.name, None)
                raise
        series.unsynced = 0
        self._close(series)

    def _close(self, series: _Series) -> None:
        self._open.pop(series.name, None)
        if series.file is not None:
            series.file.close()
            series.file = None

    def sync(self) -> None:
        """Make all that was followed durable. Raises `OSError`."""
        for series in list(self._open.values()):
            self._flush(series)
            self._sync(series)

    # -- what is dropped -------------------------------------------------------------------------------

    def tidy(self, store: Store) -> None:
        """Drop what nothing asks to keep any more, of all roots of `store`. Raises as `drop`.

        A file is dropped whole, so one that grows too slowly to end is ended when its beginning is too old.
        """
        for name, root in pairs(store.roots):
            series = self.series.get(name)
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
                and self._is_last(series, root)
            ):
                self._begin(series, root, root.version, True)
            self.drop(root)

    def drop(self, root: Root) -> None:
        """Remove the oldest files of `root` that nothing asks to keep; no file that holds a tagged version.

        Raises `OSError`.
        """
        series = self.series.get(root.name)
        if series is None:
            return
        policy = self.policy(root.name)
        total = 0
        for part, after in reversed([*zip(series.parts, series.parts[1:], strict=False)]):
            file = _file_name(root.name, part.number)
            path = f"{self._folder}/{FOLDER}/{file}"
            handle = self._disk.open(path)
            total += handle.size()
            handle.close()
            present = part.line == series.parts[-1].line
            old = (
                (
                    policy.versions is not None
                    and (not present or after.first <= root.version - policy.versions)
                )
                or (policy.size is not None and total > policy.size)
                or (
                    policy.seconds is not None
                    and self.clock is not None
                    and after.time < self.clock() - policy.seconds
                )
            )
            tagged = present and any(part.first <= each <= after.first for _, each in pairs(root.tags))
            if old and not tagged:
                if self.archive is not None:
                    self.archive(root.name, file, self.read(file))
                self._disk.remove(path)
                series.parts.remove(part)

    # -- reading ---------------------------------------------------------------------------------------

    def read(self, file: str) -> Iterator[Any]:
        """Yield the payloads in `file`. Raises `StorageError`, `OSError`."""
        for _, _, plain in frames(self._disk, self._folder, file):
            yield plain

    def _parts(self, name: str) -> list[_Part]:
        series = self.series.get(name)
        if series is None:
            return []
        self._flush(series)
        line = series.parts[-1].line if series.parts else 0
        return [part for part in series.parts if part.line == line]

    def tree(self, name: str, version: int) -> KeptVersion:
        """Return the tree and marks of `version` of root `name`.

        Raises `Compacted` (dropped), `StorageError` (damaged or missing: names file and offset), `OSError`.
        """
        parts = self._parts(name)
        fits = [at for at, part in enumerate(parts) if part.first <= version]
        if not fits:
            raise _gone(name, version, parts[0].first if parts else None)
        part = parts[fits[-1]]
        try:
            return self._tree_in(name, part, version, parts[fits[-1] + 1 :])
        except StorageError:
            self._look_again(name, part)
            raise

    def _tree_in(self, name: str, part: _Part, version: int, later: Sequence[_Part]) -> KeptVersion:
        """As `tree`, from one file; `later`: those after it."""
        file = _file_name(name, part.number)
        root = new_root(name, "", part.epoch)
        growing: Node | None = None
        marks: dict[Path, str] = {}
        born: dict[Path, bool] = {}
        for offset, _, plain in frames(self._disk, self._folder, file):
            try:
                if plain[0] == 2:
                    growing = _grown(growing, plain[1])
                elif plain[0] == 3:
                    for path, session in check_marks(name, plain[1]):
                        if session:
                            marks[path] = session
                        else:
                            born[path] = True
                elif plain[0] == 4:
                    tree = None if growing is None else _frozen(growing)
                    root = root._replace(
                        version=part.first,
                        node=tree,
                        ephemerals=HashTrieMap(marks),
                        born=HashTrieMap(born),
                    )
                elif plain[0] == 5:
                    for each in plain[1:]:
                        root, _ = advanced(root, update_from_plain(each), _ONE)
                        if root.version == version:
                            break
            except TegaError as error:
                raise _damaged(file, offset, error.message) from error
            except (TypeError, ValueError, LookupError) as error:
                raise _damaged(file, offset, f"it cannot be understood: {error!r:.100}") from error
            if plain[0] >= 4 and plain[0] != 6 and root.version == version:
                break
        if root.version != version:
            if later and later[0].number > part.number + 1:
                raise _gone(name, version, later[0].first)
            raise StorageError(
                f"{FOLDER}/{file}: version {version} of {name} is missing; the file ends after version"
                f" {root.version}, at byte {offset}",
                reason="missing",
            )
        return root.node, root.ephemerals, root.born

    def updates(self, name: str, before: int) -> Iterator[Update | Gap]:
        """Yield the updates of `name` to versions lower than `before`, newest first.

        Where some between two others cannot be read, because they were dropped, are damaged or were never
        written, a `Gap` stands for them. Raises `OSError`.
        """
        expected: int | None = None
        number, why = 0, ""
        parts = self._parts(name)
        for part in reversed(parts):
            if not why and number > part.number + 1:
                why = "they are no longer kept"
            found, problem = self._updates_in(name, part, before)
            why = problem or why
            for update in reversed(found):
                if expected is not None and update.after > expected:
                    continue  # the file after has it too
                if expected is not None and update.after < expected:
                    yield Gap(update.after + 1, expected, why or "they are missing")
                yield update
                expected, why = update.after - 1, ""
            number = part.number
        if why and expected is not None and parts and expected > max(parts[0].first, ABSENT):
            yield Gap(max(parts[0].first, ABSENT) + 1, expected, why)

    def _updates_in(self, name: str, part: _Part, before: int) -> tuple[list[Update], str]:
        """Return the updates in a file to versions lower than `before`, and what is wrong with it."""
        file = _file_name(name, part.number)
        found: list[Update] = []
        try:
            for offset, _, plain in frames(self._disk, self._folder, file):
                if plain[0] == 4 and part.first >= before:
                    break  # all that follows is newer
                for each in _updates(plain):
                    # [root, epoch, before, after, ...]
                    if each[3] >= before:
                        continue
                    try:
                        found.append(update_from_plain(each))
                    except TegaError as error:
                        raise _damaged(file, offset, error.message) from error
        except StorageError as error:
            self._look_again(name, part)
            return found, error.message.partition(";")[0]
        return found, ""

    def spans(self, name: str, since: int = 0) -> list[tuple[int, int]]:
        """Return (first, last) of the versions of `name` that can be read, oldest first.

        Within a span each version is there, and each commit between two. What ends before version `since` is
        left out. Looks once through each file; what is damaged after that is noticed when it is read.
        """
        found: list[tuple[int, int]] = []
        series = self.series.get(name)
        parts = self._parts(name)
        for part, after in zip(parts, [*parts[1:], None], strict=False):
            if series is None or (after is not None and after.first <= since):
                continue
            last = self._last_in(series, part)
            if last is None:
                continue
            if after is not None:
                # Of the version that both have, the file that begins with it is asked.
                usable = self._last_in(series, after) is not None
                last = min(last, after.first if usable else after.first - 1)
            if found and part.first <= found[-1][1]:
                found[-1] = (found[-1][0], max(found[-1][1], last))
            else:
                found.append((part.first, last))
        return found

    def _look_again(self, name: str, part: _Part) -> None:
        """A file could not be read through: find out anew how far it can be."""
        series = self.series[name]
        last = self._scan(series, part)
        newest = part is series.parts[-1]
        if not newest or last is None or last < series.last:
            series.ends[part.number] = last
            if newest:  # nothing that is added to it could be read: what comes next goes into another
                series.usable = False
                self._seen.pop(name, None)

    def _last_in(self, series: _Series, part: _Part) -> int | None:
        if part.number not in series.ends:
            newest = part is series.parts[-1]
            if newest and series.usable:
                return series.last
            last = self._scan(series, part)
            if newest:
                return last
            series.ends[part.number] = last
        return series.ends[part.number]

    def _scan(self, series: _Series, part: _Part) -> int | None:
        """Return the last version that can be read from a file, None if none can."""
        whole = b""
        try:
            for _, _, payload in _payloads(self._disk, self._folder, _file_name(series.name, part.number)):
                whole = payload
        except (StorageError, OSError):
            pass  # up to there it can be read
        try:
            plain = decode_chunk(whole)
            kind = plain[0]
            if kind == 5:
                return int(plain[-1][3])
        except (TegaError, TypeError, ValueError, LookupError):
            return None
        return part.first if kind == 4 else None  # else its checkpoint is not whole

    def stamps(self, name: str, versions: set[int]) -> dict[int, tuple[float, str, str]]:
        """Return (time, tega_id, message) of `versions` of `name`, as far as they are known."""
        found: dict[int, tuple[float, str, str]] = {}
        parts = self._parts(name)
        for part, after in zip(parts, [*parts[1:], None], strict=False):
            if part is not parts[0] and not any(
                part.first <= each and (after is None or each <= after.first) for each in versions
            ):
                continue
            try:
                for plain in self.read(_file_name(name, part.number)):
                    if plain[0] == 1 and plain[5] in versions:
                        found.setdefault(plain[5], (plain[7], plain[8], plain[9]))
                    for each in _updates(plain):
                        if each[3] in versions:
                            found[each[3]] = (each[5], each[6], each[7])
            except StorageError:
                continue  # what is damaged is not known any more
        return found

    def version_at(self, name: str, time: float, before: int) -> int:
        """Return the newest version of `name` lower than `before` that was made at `time` or earlier.

        `ABSENT` if there was none. Raises as `tree`.
        """
        parts = self._parts(name)
        for part in reversed(parts):
            if part.time > time and part.number != parts[0].number:
                continue
            best = part.first if part.time <= time and part.first < before else ABSENT
            for plain in self.read(_file_name(name, part.number)):
                for each in _updates(plain):
                    if each[3] < before and each[5] <= time:
                        best = max(best, each[3])
            if best != ABSENT:
                return best
        if parts and parts[0].first > 0:
            raise _gone(name, parts[0].first - 1, parts[0].first)
        return ABSENT


def _gone(name: str, version: int, oldest: int | None) -> Compacted:
    text = f"version {version} of {format_path((name,))} is no longer kept"
    if oldest is not None:
        text += f"; the next one on the disk is {oldest}"
    return Compacted(text, root=name, version=version, oldest=oldest)


def _updates(plain: Any) -> Sequence[Any]:
    """Return the updates in a payload."""
    return plain[1:] if plain[0] >= 5 else ()


def _parts(items: Iterator[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) >= _PART:
            yield part
            part = []
    if part:
        yield part


def _grown(top: Any, found: Any) -> Any:
    """Add entries, parents first, to a tree that is mutable until it is whole.

    Checked no further than by their checksum: this must be fast.
    """
    for path, version, container, value in found:
        node = (version, {} if container else value)
        if len(path) == 1:
            top = node
            continue
        at = top
        for oid in path[1:-1]:
            at = at[1].get(oid) if at is not None and type(at[1]) is dict else None
        if at is None or type(at[1]) is not dict:
            raise StorageError(f"{format_path(path)} came before what it stands in")
        at[1][path[-1]] = node
    return top


def _frozen(grown: Any) -> Node:
    version, content = grown
    if type(content) is not dict:
        return (version, content)
    made = EMPTY
    # Not in one go: a call that makes a very wide map would hold up the loop.
    for oid, child in content.items():
        made = made.insert(oid, _frozen(child))
    return (version, made)
