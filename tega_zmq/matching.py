"""Which paths of a tree a pattern matches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tega_zmq.paths import Path
from tega_zmq.patterns import OidPattern
from tega_zmq.tree import Node, get, is_container
from tega_zmq.tree.node import pairs

__all__ = ["matching_below", "reaches"]


def reaches(pattern: OidPattern, path: Path) -> bool:
    """Whether `pattern` matches `path`, as far as both go."""
    return all(pattern.step(depth, oid) is not None for depth, oid in enumerate(path[: len(pattern.oids)]))


def matching_below(
    pattern: OidPattern, path: Path, tree: Node | None, spend: Callable[[int], None] | None = None
) -> Iterable[Path]:
    """Yield the paths of `tree` (of a root) at and below `path` that `pattern` matches.

    `spend` is told what each step costs at most before it is done, in half microseconds; it may raise.
    """
    top = get(tree, path[1:]) if tree is not None else None
    if top is None or len(path) > len(pattern.oids) or not reaches(pattern, path):
        return
    waiting = [(path, top)]
    while waiting:
        at, node = waiting.pop()
        depth = len(at)
        if depth == len(pattern.oids):
            yield at
        elif is_container(node):
            for oid, child in pairs(node[1]):
                if spend is not None:
                    spend(1 + pattern.cost(depth, oid))
                if pattern.step(depth, oid) is not None:
                    waiting.append(((*at, oid), child))
