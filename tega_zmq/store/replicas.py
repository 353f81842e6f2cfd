"""What followers of a root need: is an update the next one, which ones are missing, and the tree in parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from tega_zmq.paths import Path
from tega_zmq.store.history import update_at
from tega_zmq.store.model import ABSENT, Root, Update
from tega_zmq.tree.node import Node, is_container, pairs

__all__ = ["entries", "ephemeral_entries", "follows", "updates_since"]

_AT_ONCE = 1000
"""Children that are listed in one go; of larger containers, one by one, which is slower but never long."""


def updates_since(root: Root, epoch: str, version: int, most: int | None = None) -> tuple[Update, ...] | None:
    """Return the updates that lead from `version` of `epoch` to the present, or the first `most` of them.

    Empty if that is the present. None if they are not all kept, or it is not of this epoch: then only the
    tree helps.
    """
    if epoch != root.epoch or version > root.version or version < ABSENT:
        return None
    if version == root.version:
        return ()
    if version + 1 < root.oldest_update:
        return None
    first = root.updates.get(version + 1)
    if first is None or first[0] != epoch:
        return None
    found = []
    end = root.version if most is None else min(root.version, version + most)
    for after in range(version + 1, end + 1):
        update = update_at(root, after)
        if update is None:
            return None
        found.append(update)
    return tuple(found)


def follows(root: Root | None, update: Update) -> Literal["next", "old", "gap"]:
    """Tell what `update` is to a replica: to be applied, known already, or after something missing."""
    if root is None or root.version == ABSENT:
        return "next" if update.before == ABSENT and update.after == 0 else "gap"
    if update.epoch != root.epoch:
        return "gap"
    if update.after <= root.version:
        return "old"
    return "next" if update.before == root.version else "gap"


def entries(node: Node, root_name: str) -> Iterator[tuple[Path, int, bool, Any]]:
    """Yield (path, version, is it a container, leaf value) of a tree, parents first.

    The tree cannot change, so the iterator may be used in parts, at any time later.
    """
    waiting: list[Iterator[tuple[Path, Node]]] = [iter([((root_name,), node)])]
    while waiting:
        for path, each in waiting[-1]:
            if is_container(each):
                yield path, each[0], True, None
                waiting.append(_children(path, each))
                break
            yield path, each[0], False, each[1]
        else:
            waiting.pop()


def _children(path: Path, node: Node) -> Iterator[tuple[Path, Node]]:
    content = node[1]
    # In order where that costs little: what is sent is then the same in every run.
    items = sorted(pairs(content), key=_oid) if len(content) <= _AT_ONCE else content.items()
    for oid, child in items:
        yield (*path, oid), child


def ephemeral_entries(root: Root) -> tuple[tuple[Path, str], ...]:
    """Return the marks of a root as `ResetEnd` takes them: (path, session), and (path, "") if born."""
    marks = pairs(root.ephemerals)
    marks += [(path, "") for path, _ in pairs(root.born)]
    return tuple(sorted(marks))


def _oid(pair: tuple[str, Any]) -> str:
    return pair[0]
