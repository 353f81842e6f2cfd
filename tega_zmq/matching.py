"""Which paths of a tree a pattern matches."""

from __future__ import annotations

from collections.abc import Iterable

from tega_zmq.paths import Path
from tega_zmq.patterns import OidPattern
from tega_zmq.tree import Node, get, is_container

__all__ = ["matching_below", "reaches"]


def reaches(pattern: OidPattern, path: Path) -> bool:
    """Whether `pattern` matches `path`, as far as both go."""
    return all(pattern.step(depth, oid) is not None for depth, oid in enumerate(path[: len(pattern.oids)]))


def matching_below(pattern: OidPattern, path: Path, tree: Node | None) -> Iterable[Path]:
    """Yield the paths of `tree` (of a root) at and below `path` that `pattern` matches."""
    top = get(tree, path[1:]) if tree is not None else None
    if top is None:
        return
    waiting = [(path, top)]
    while waiting:
        at, node = waiting.pop()
        if len(at) == len(pattern.oids):
            if pattern.match(at) is not None:
                yield at
        elif is_container(node):
            waiting.extend(((*at, oid), child) for oid, child in node[1].items())
