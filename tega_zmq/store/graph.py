"""The graph of tree nodes and kept versions: what old versions share with new ones shows once."""

from __future__ import annotations

from typing import NamedTuple

from tega_zmq.errors import NotFound, TooLarge
from tega_zmq.paths import Path, format_path
from tega_zmq.store.model import Store
from tega_zmq.store.reading import kept_version, resolve
from tega_zmq.tree.node import Node, get, is_container

__all__ = ["MAX_EDGES", "MAX_OID_TEXT", "Edge", "edges"]

MAX_EDGES = 10_000
"""Most edges in one answer: some 20 ms of a node's loop, and more than anybody can look at."""

MAX_OID_TEXT = 1 << 20
"""Most characters of oids in one answer: it fits into a frame at four bytes each."""


class Edge(NamedTuple):
    """From a container to what stands right below it.

    A tree node is known by its path and its version: all kept versions of a root in which the node has that
    version hold the same node, and all that is below it.
    """

    path: Path
    """Of the container."""
    version: int
    """Of the container: its root's at the last change at or below it."""
    oid: str
    below: int
    """Version of the node at `oid`."""


def edges(store: Store, path: Path, version: int | None = None) -> list[Edge]:
    """Return the edges at and below `path` in all versions that are kept in memory, or in `version` alone.

    Each edge comes once, however many versions share it; the oldest version comes first, and within one the
    containers from above, their oids in order. A leaf has none. Raises `NotFound` if no version looked at has
    the path (or the root never had `version`), `Compacted`, and `TooLarge` beyond `MAX_EDGES` or
    `MAX_OID_TEXT`.
    """
    root = store.roots.get(path[0])
    tops: list[Node] = []
    if root is not None:
        if version is None:
            trees = [kept_version(root, each)[0] for each in root.trees]
        else:
            trees = [kept_version(root, resolve(root, version))[0]]
        tops = [top for top in (get(tree, path[1:]) for tree in trees) if top is not None]
    if not tops:
        raise NotFound(
            f"there is no {format_path(path)} in the versions that are kept", path=format_path(path)
        )
    found: list[Edge] = []
    size = 0
    seen: set[tuple[Path, int]] = set()
    for top in tops:
        waiting: list[tuple[Path, Node]] = [(path, top)]
        for here, node in waiting:
            if not is_container(node) or (here, node[0]) in seen:
                continue
            seen.add((here, node[0]))
            length = sum(map(len, here))
            if len(found) + len(node[1]) > MAX_EDGES:
                _too_large(path, f"{MAX_EDGES} edges", MAX_EDGES)
            for oid, child in sorted(node[1].items()):
                size += length + len(oid)
                if size > MAX_OID_TEXT:
                    _too_large(path, f"{MAX_OID_TEXT} characters of paths", MAX_OID_TEXT)
                found.append(Edge(here, node[0], oid, child[0]))
                waiting.append(((*here, oid), child))
    return found


def _too_large(path: Path, what: str, limit: int) -> None:
    raise TooLarge(
        f"{format_path(path)} has more than {what} in its kept versions; ask for a part, or one version",
        limit=limit,
    )
