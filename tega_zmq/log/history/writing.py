"""What is added to the history: the updates that the files lack, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tega_zmq.log.history.files import Files, Part, Series
from tega_zmq.log.history.format import (
    BEGIN,
    EARLIER,
    FOLDER,
    FORMAT,
    MARKS,
    READ,
    TREE,
    UPDATES,
    WHOLE,
    file_name,
)
from tega_zmq.log.records import encode_chunk, encode_list
from tega_zmq.paths import format_path
from tega_zmq.store import ABSENT, Root, Store, entries, plain_update_at, update_at, update_to_plain
from tega_zmq.store.history import NO_MARKS, NO_PATHS
from tega_zmq.tree.node import pairs

__all__ = ["begin", "catch_up", "follow", "is_last"]

_PART: Final = 500
"""Most entries of a tree in one frame."""
_COMMITS: Final = 4_000
"""Updates after which a file ends, if its checkpoint is a small one."""
_WEIGHT: Final = 1_000
"""For each so many bytes of a checkpoint the file has room for one update, if these are more. So to read a
version takes at most about twice as long as to read its checkpoint, and what is written stays in proportion
to the updates, however large the tree."""
_BYTES: Final = 4 << 20
"""Bytes of updates after which a file ends, if its checkpoint is not larger."""
_OPEN: Final = 16
"""Most files that are open at a time, about."""
_TOGETHER: Final = 64
"""Most updates in one frame."""
_UNSYNCED: Final = 1_000
"""Updates of a root that wait for a sync, at most; and no more than half of those that the store keeps, from
which they are taken again after a crash."""
_HEAD: Final = encode_chunk(UPDATES)


def follow(files: Files, store: Store, ended: Callable[[Root], None]) -> None:
    """As `History.follow`. `ended` is called after a file of a root came to its end."""
    for name, root in pairs(store.roots):
        if root.owner == "^" or root.version == ABSENT or files.seen.get(name) is root:
            continue
        _follow(files, root, max(1, min(_UNSYNCED, store.kept.updates // 2)), ended)
        files.seen[name] = root
        if files.growing >= _OPEN:
            files.sync_all()


def catch_up(files: Files, store: Store, ended: Callable[[Root], None]) -> None:
    """As `History.catch_up`; `ended`: as in `follow`."""
    for name, root in pairs(store.roots):
        if root.owner == "^" or root.version == ABSENT:
            continue
        series = files.series.get(name)
        if series is None:
            first = update_at(root, 0)
            lacks = first is not None and first.before == ABSENT
        else:
            lacks = series.usable and series.last < root.version and is_last(series, root)
        if lacks:
            _follow(files, root, max(1, min(_UNSYNCED, store.kept.updates // 2)), ended)
            if files.growing >= _OPEN:
                files.sync_all()


def _follow(files: Files, root: Root, unsynced: int, ended: Callable[[Root], None]) -> None:
    series = files.series.setdefault(root.name, Series(root.name))
    at = series.last
    if not _goes_on(series, root):
        # What cannot go on in the file begins anew; in the same line, if the versions count on.
        same = is_last(series, root)
        first = update_at(root, 0)
        if same and series.last in root.trees:
            at = series.last
        elif first is not None and first.before == ABSENT and not same:
            at = ABSENT  # all updates from the first one on are there
        else:
            at = root.oldest
        goes_on = same or (at > series.last and root.epoch == series.stamp[0])
        lacking = (series.last + 1, at - 1) if goes_on and series.parts else (0, -1)
        begin(files, series, root, at, goes_on)
        if lacking[0] <= lacking[1]:
            files.note(
                "versions {} to {} of {} are missing: they had left the memory before they could be"
                " written".format(*lacking, format_path((root.name,)))
            )
    while at < root.version:
        at = _add_updates(files, series, root, at + 1)
        full = series.commits >= _most(series) or series.size - series.checkpoint >= max(
            _BYTES, series.checkpoint
        )
        if full and at in root.trees:  # else a later version begins the new file
            begin(files, series, root, at, True)
            ended(root)
    files.flush(series)
    if series.unsynced >= unsynced:
        files.sync(series)


def _most(series: Series) -> int:
    """Return how many updates its newest file has room for."""
    return max(_COMMITS, series.checkpoint // _WEIGHT)


def _goes_on(series: Series, root: Root) -> bool:
    """Whether the versions of `root` follow on the last one in the files."""
    if not series.usable or not root.oldest_update - 1 <= series.last <= root.version:
        return False
    if update_at(root, series.last) is not None:
        return is_last(series, root)
    if series.last == root.version:
        return root.epoch == series.stamp[0]
    following = update_at(root, series.last + 1)
    return following is not None and following.epoch == series.stamp[0]


def is_last(series: Series, root: Root) -> bool:
    """Whether `root` keeps the update that the files end with."""
    last = update_at(root, series.last)
    return last is not None and (last.epoch, last.time, last.tega_id) == series.stamp


def begin(files: Files, series: Series, root: Root, version: int, same: bool) -> None:
    """Go on in a new file, with a checkpoint of `version`, whose tree `root` still has, or of its absence.

    `same`: in the same line. Raises `OSError`.
    """
    # Only the newest file may be torn.
    files.flush(series)
    files.sync(series)
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
    path = files.path(file_name(root.name, number))
    handle = files.disk.create(path + ".tmp")
    fresh = Series(root.name)
    fresh.file = handle
    try:
        files.add(
            fresh, [BEGIN, FORMAT, root.name, line, stamp[0], version, tree is not None, *stamp[1:], message]
        )
        for at, part in enumerate(_parts(entries(tree, root.name) if tree is not None else iter(()))):
            if at:
                files.rest()
            files.add(fresh, [TREE, part])
        for part in _parts(iter([*pairs(ephemerals), *((each, "") for each, _ in pairs(born))])):
            files.add(fresh, [MARKS, part])
        if not same or version != series.last:
            for each in range(max(root.oldest_update, series.last + 1 if same else 0), version + 1):
                earlier = update_at(root, each)
                if earlier is not None:
                    files.add(fresh, [EARLIER, update_to_plain(earlier)])
        files.add(fresh, [WHOLE])
        files.flush(fresh)
        handle.sync()
        files.disk.rename(path + ".tmp", path)
        files.disk.sync_folder(f"{files.folder}/{FOLDER}")
    except BaseException:
        handle.close()
        raise
    handle.close()
    series.usable, series.size, series.crc = True, fresh.size, fresh.crc
    series.checkpoint, series.commits, series.unsynced = fresh.size, 0, 0
    series.buffer.clear()
    series.last, series.stamp = version, stamp
    series.parts.append(Part(number, line, version, stamp[0], stamp[1]))


def _add_updates(files: Files, series: Series, root: Root, version: int) -> int:
    """Add a frame of updates from the one to `version` on; return the last version in it."""
    parts, size, plain = [_HEAD], 0, None
    most = min(_TOGETHER, max(1, _most(series) - series.commits), root.version - version + 1)
    while len(parts) <= most and size < READ:
        plain = plain_update_at(root, version + len(parts) - 1)
        part = encode_chunk(plain)
        parts.append(part)
        size += len(part)
    assert plain is not None
    files.add_payload(series, encode_list(parts))
    series.last, series.commits = version + len(parts) - 2, series.commits + len(parts) - 1
    series.stamp = (plain[1], plain[5], plain[6])
    series.unsynced += len(parts) - 1
    return series.last


def _parts(items: Iterator[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) >= _PART:
            yield part
            part = []
    if part:
        yield part
