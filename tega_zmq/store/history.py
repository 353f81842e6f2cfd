"""What a root keeps of its past."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rpds import HashTrieMap

from tega_zmq.paths import Path
from tega_zmq.store.model import ABSENT, Change, Kept, KeptChange, KeptUpdate, KeptVersion, Root, Update
from tega_zmq.store.versions import Recalled, Versions
from tega_zmq.tree.node import Node, plain

__all__ = [
    "NO_MARKS",
    "NO_PATHS",
    "NO_TAGS",
    "advance",
    "changed_between",
    "had_epoch",
    "keep",
    "new_root",
    "next_epoch",
    "plain_update_at",
    "update_at",
    "with_trees",
]

NO_MARKS: Final[HashTrieMap[Any, str]] = HashTrieMap()
NO_PATHS: Final[HashTrieMap[Any, bool]] = HashTrieMap()
NO_TAGS: Final[HashTrieMap[str, int]] = HashTrieMap()
_NONE: Final[Versions[Any]] = Versions()

_STEM: Final = 8
"""Characters of an epoch that are the same in all in which one store goes on with a root."""

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes."""


def new_root(name: str, owner: str, epoch: str) -> Root:
    """Return a root that never had a version."""
    return Root(
        name, owner, epoch, ABSENT, None, NO_MARKS, NO_PATHS, _NONE, 0, _NONE, 0, (0.0, "", ""), NO_TAGS
    )


def next_epoch(epoch: str, id: str) -> str:
    """Return the name of the epoch in which a store goes on after `epoch`; `id`: fresh hex digits.

    It begins like that one, so that a store knows an epoch that it had, however long ago.
    """
    return epoch[:_STEM] + id[:16]


def had_epoch(root: Root, epoch: str) -> bool:
    """Whether the store of `root` was ever in `epoch`, or has gone on from a copy of one that was."""
    stem = epoch[:_STEM]
    if root.epoch[:_STEM] == stem:
        return True
    # Epochs of an older version of this program have no stem in common; of some there are updates left.
    return any(root.updates[at][0][:_STEM] == stem for at in range(root.oldest_update, root.version + 1))


def advance(
    root: Root,
    kept: Kept,
    update: Update,
    node: Node | None,
    ephemerals: HashTrieMap[Any, str],
    born: HashTrieMap[Any, bool],
    changes: tuple[KeptChange, ...],
) -> Root:
    """Return `root` one version on, with `update` and the tree in its history, pruned to what is `kept`."""
    # Every put comes by here: so no `min` and `max`, and tuples are made without their classes.
    _, epoch, before, version, _, time, tega_id, message, backto, named = update
    versions, most = kept
    oldest = version - versions + 1
    if oldest < root[8]:
        oldest = root[8]
    if oldest > version:
        oldest = version
    if most < versions:
        most = versions
    oldest_update = version - most + 1
    if oldest_update < root[10]:
        oldest_update = root[10]
    if oldest_update > version:
        oldest_update = version
    trees = root[7].add(version, (node, ephemerals, born), oldest)
    made = (epoch, before, changes, time, tega_id, message, backto, named)
    updates = root[9].add(version, made, oldest_update)
    last = (time, tega_id, message)
    return _new(
        Root,
        (
            root[0],
            root[1],
            epoch,
            version,
            node,
            ephemerals,
            born,
            trees,
            oldest,
            updates,
            oldest_update,
            last,
            root[12],
        ),
    )


def with_trees(root: Root, trees: Mapping[int, KeptVersion]) -> Root:
    """Return `root` as if it kept the versions in `trees` too, which were read elsewhere.

    What is written on it keeps them no longer.
    """
    return root._replace(trees=Recalled(root.trees, trees))


def keep(update: Update, changes: tuple[KeptChange, ...]) -> KeptUpdate:
    """Return `update` as history keeps it."""
    return (update[1], update[2], changes, update[5], update[6], update[7], update[8], update[9])


def update_at(root: Root, version: int) -> Update | None:
    """Return the update that led to `version`, or None if it is not kept."""
    kept = root.updates.get(version)
    if kept is None:
        return None
    epoch, before, changes, time, tega_id, message, backto, named = kept
    return Update(
        root.name,
        epoch,
        before,
        version,
        tuple(
            Change(path, False) if node is None else Change(path, True, plain(node), session)
            for path, node, session in changes
        ),
        time,
        tega_id,
        message,
        backto,
        named,
    )


def plain_update_at(root: Root, version: int) -> list[Any] | None:
    """Return `update_to_plain(update_at(root, version))`, straight from what is kept, or None."""
    kept = root.updates.get(version)
    if kept is None:
        return None
    epoch, before, changes, time, tega_id, message, backto, named = kept
    told: list[Any] = []
    for path, node, session in changes:
        if node is None:
            told.append([path[1:]])
        elif session:
            told.append([path[1:], plain(node), session])
        else:
            told.append([path[1:], plain(node)])
    made = [root.name, epoch, before, version, told, time, tega_id, message, backto]
    if named:
        made.append([path[1:] for path in named])
    return made


def changed_between(root: Root, low: int, high: int) -> Iterable[Path]:
    """Return paths at and below which all lies that changed after version `low` up to `high`.

    Where the updates between are not all kept, that is the whole root.
    """
    if low + 1 < root.oldest_update:
        return [(root.name,)]
    return {change[0] for after in range(low + 1, high + 1) for change in root.updates[after][2]}
