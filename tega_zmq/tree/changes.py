"""The difference between two trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from rpds import HashTrieMap

from tega_zmq.paths import Path
from tega_zmq.tree.node import Node, pairs
from tega_zmq.values import same

__all__ = ["Difference", "diff", "diff_at"]

Difference: TypeAlias = tuple[Path, "Node | None", "Node | None"]
"""(relative path, old node or None, new node or None)."""


def diff(old: Node | None, new: Node | None) -> Iterator[Difference]:
    """Yield the least that leads from `old` to `new`, by value, in order of path.

    A subtree that is only in one of them is one difference, and so is a container that became a leaf or the
    other way round. Shared subtrees are skipped unseen, so that neighbouring versions cost what they differ.
    Versions are not compared.
    """
    return _diff(old, new, ())


def diff_at(old: Node | None, new: Node | None, paths: Iterable[Path]) -> Iterator[Difference]:
    """Yield what `diff` yields, where all that differs is known to lie at and below `paths`.

    What else is in wide containers costs nothing then. A container above a path that came or went with it is
    found too: there the difference lies higher.
    """
    last: Path | None = None
    for path in sorted(paths):
        if last is not None and path[: len(last)] == last:
            continue
        was, now, depth = old, new, 0
        while depth < len(path) and was is not None and now is not None:
            if type(was[1]) is not HashTrieMap or type(now[1]) is not HashTrieMap:
                break
            was, now = was[1].get(path[depth]), now[1].get(path[depth])
            depth += 1
        last = path[:depth]
        yield from _diff(was, now, last)


def _diff(old: Node | None, new: Node | None, path: Path) -> Iterator[Difference]:
    if old is new:
        return
    if old is None or new is None:
        yield path, old, new
        return
    was, now = old[1], new[1]
    if type(was) is not HashTrieMap or type(now) is not HashTrieMap:
        if type(was) is HashTrieMap or type(now) is HashTrieMap or not same(was, now):
            yield path, old, new
        return
    differing: list[str] = []
    shared = 0
    for oid, child in pairs(now):
        other = was.get(oid)
        if other is not None:
            shared += 1
        if other is not child:
            differing.append(oid)
    if shared < len(was):
        differing.extend(oid for oid, _ in pairs(was) if oid not in now)
    differing.sort()
    for oid in differing:
        yield from _diff(was.get(oid), now.get(oid), (*path, oid))
