"""Nodes: build, read and change them. A change makes new nodes along one path and shares all others.

A `Node` is an exact tuple `(version, content)`; content is a leaf value, or a `HashTrieMap` of children. It
is no class of its own, because the garbage collector leaves exact tuples of such contents alone, and with
many versions kept the collector decides the tail latency.

All functions take paths relative to the node: `()` is the node itself. Values are taken over, not copied:
nobody may change a list after it was stored or read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from rpds import HashTrieMap

from tega_zmq.errors import InvalidPath
from tega_zmq.paths import Path, format_path
from tega_zmq.values import same

__all__ = [
    "EMPTY",
    "Changes",
    "Node",
    "attach",
    "build",
    "delete",
    "detach",
    "get",
    "is_container",
    "pairs",
    "patch",
    "plain",
    "put",
]

Node: TypeAlias = tuple[int, Any]
"""(version, leaf value or map of children)."""

Changes: TypeAlias = list[tuple[Path, "Node | None", "Node | None"]]
"""(relative path, old node, new node) in no set order: what a function of this module made different."""

EMPTY: Final[HashTrieMap[str, Node]] = HashTrieMap()
"""The content of a container without children."""


def is_container(node: Node) -> bool:
    """Tell whether `node` has children, or could have."""
    return type(node[1]) is HashTrieMap


def pairs(content: HashTrieMap[Any, Any]) -> list[tuple[Any, Any]]:
    """Return all items of a map at once, in no particular order.

    This is what the map gives to `pickle`; the map's own iterators copy it piece by piece, which takes ten
    times as long.
    """
    reduced: Any = content.__reduce__()
    items: list[tuple[Any, Any]] = reduced[1][0]
    return items


def build(value: Any, version: int) -> Node:
    """Return the node of a plain value, every node in it at `version`."""
    if type(value) is dict:
        if not value:
            return (version, EMPTY)
        return (version, HashTrieMap({oid: build(item, version) for oid, item in value.items()}))
    return (version, value)


def plain(node: Node) -> Any:
    """Return the plain value of `node`: dicts and leaves."""
    content = node[1]
    if type(content) is not HashTrieMap:
        return content
    return {oid: plain(child) if type(child[1]) is HashTrieMap else child[1] for oid, child in pairs(content)}


def get(node: Node | None, oids: Path) -> Node | None:
    """Return the node at `oids` below `node`, or None."""
    for oid in oids:
        if node is None:
            return None
        content = node[1]
        if type(content) is not HashTrieMap:
            return None
        node = content.get(oid)
    return node


def put(root: Node | None, oids: Path, value: Any, version: int, base: Path = ()) -> tuple[Node, Changes]:
    """Replace what stands at `oids` by `value`; return the new root node and what changed.

    Nodes whose value stays keep their version and identity; those that change, and all above them, get
    `version`. Missing containers on the way are made. With no change the root node itself comes back.
    Raises `InvalidPath` if a leaf stands on the way; `base` is put before the path that it names.
    """
    chain, old, depth = _walk(root, oids, base)
    changes: Changes = []
    if old is None:
        new = build(value, version)
        for oid in reversed(oids[depth:]):
            new = (version, EMPTY.insert(oid, new))
        changes.append((oids[:depth], None, new))
    else:
        new = _replace(old, value, version, oids, changes)
        if not changes:
            assert root is not None
            return root, changes
    return _rise(chain, oids, new, version), changes


def patch(root: Node | None, oids: Path, value: Any, version: int, base: Path = ()) -> tuple[Node, Changes]:
    """Merge `value` into what stands at `oids` (RFC 7396): null deletes, a dict merges, all else replaces.

    Otherwise as `put`.
    """
    if type(value) is not dict:
        return put(root, oids, value, version, base)
    chain, old, _ = _walk(root, oids, base)
    if old is None or type(old[1]) is not HashTrieMap:
        return put(root, oids, _without_nulls(value), version, base)
    changes: Changes = []
    new = _merge(old, value, version, oids, changes)
    if not changes:
        assert root is not None
        return root, changes
    return _rise(chain, oids, new, version), changes


def delete(root: Node | None, oids: Path, version: int) -> tuple[Node | None, Changes]:
    """Remove what stands at `oids`; nothing there: nothing changes. Containers above stay, also empty."""
    old = get(root, oids)
    if old is None:
        return root, []
    return detach(root, oids, version), [(oids, old, None)]


def attach(root: Node | None, oids: Path, node: Node, version: int) -> Node:
    """Return `root` with `node` itself at `oids`; the nodes above get `version`.

    Containers that are missing are made, and a leaf on the way becomes a container.
    """
    if not oids:
        return node
    chain: list[HashTrieMap[str, Node]] = []
    at = root
    for oid in oids:
        content = at[1] if at is not None and type(at[1]) is HashTrieMap else EMPTY
        chain.append(content)
        at = content.get(oid)
    for index in range(len(oids) - 1, -1, -1):
        node = (version, chain[index].insert(oids[index], node))
    return node


def detach(root: Node | None, oids: Path, version: int) -> Node | None:
    """Return `root` without the node at `oids`; the nodes above get `version`. It must be there."""
    if not oids:
        return None
    chain: list[HashTrieMap[str, Node]] = []
    at = root
    for oid in oids:
        assert at is not None
        chain.append(at[1])
        at = at[1].get(oid)
    node: Node = (version, chain[-1].remove(oids[-1]))
    for index in range(len(oids) - 2, -1, -1):
        node = (version, chain[index].insert(oids[index], node))
    return node


def _walk(root: Node | None, oids: Path, base: Path) -> tuple[list[HashTrieMap[str, Node]], Node | None, int]:
    """Return the contents on the way to `oids`, the node there, and how many oids lead to it.

    Where nothing stands at `oids` the third says how long the shortest missing path is: 0 if the root is
    missing itself.
    """
    chain: list[HashTrieMap[str, Node]] = []
    node = root
    for index, oid in enumerate(oids):
        if node is None:
            return chain, None, index
        content = node[1]
        if type(content) is not HashTrieMap:
            _blocked(base + oids, len(base) + index)
        chain.append(content)
        node = content.get(oid)
    return chain, node, len(oids)


def _blocked(path: Path, index: int) -> None:
    leaf = format_path(path[:index]) or "the node"
    raise InvalidPath(
        f"{format_path(path)}: {leaf} is a leaf, nothing can stand below it; put a container there first",
        path=format_path(path),
    )


def _rise(chain: list[HashTrieMap[str, Node]], oids: Path, node: Node, version: int) -> Node:
    """Return the new root node, when `node` comes to stand below the contents in `chain`."""
    for index in range(len(chain) - 1, -1, -1):
        node = (version, chain[index].insert(oids[index], node))
    return node


def _replace(old: Node, value: Any, version: int, path: Path, changes: Changes) -> Node:
    content = old[1]
    if type(content) is HashTrieMap:
        if type(value) is dict:
            return _replace_children(old, value, version, path, changes)
    elif type(value) is not dict and same(content, value):
        return old
    new = build(value, version)
    changes.append((path, old, new))
    return new


def _replace_children(
    old: Node, value: Mapping[str, Any], version: int, path: Path, changes: Changes
) -> Node:
    content: HashTrieMap[str, Node] = old[1]
    before = len(changes)
    new = content
    kept = 0
    for oid in sorted(value):
        child = content.get(oid)
        if child is None:
            made = build(value[oid], version)
            changes.append(((*path, oid), None, made))
        else:
            kept += 1
            made = _replace(child, value[oid], version, (*path, oid), changes)
            if made is child:
                continue
        new = new.insert(oid, made)
    if kept < len(content):
        for oid in sorted(oid for oid, _ in pairs(content) if oid not in value):
            changes.append(((*path, oid), content[oid], None))
            new = new.remove(oid)
    return old if len(changes) == before else (version, new)


def _merge(old: Node, value: Mapping[str, Any], version: int, path: Path, changes: Changes) -> Node:
    content: HashTrieMap[str, Node] = old[1]
    before = len(changes)
    new = content
    for oid in sorted(value):
        item = value[oid]
        child = content.get(oid)
        if item is None:
            if child is not None:
                changes.append(((*path, oid), child, None))
                new = new.remove(oid)
            continue
        if child is None:
            made = build(_without_nulls(item), version)
            changes.append(((*path, oid), None, made))
        elif type(item) is dict and type(child[1]) is HashTrieMap:
            made = _merge(child, item, version, (*path, oid), changes)
        else:
            made = _replace(child, _without_nulls(item), version, (*path, oid), changes)
        if made is not child:
            new = new.insert(oid, made)
    return old if len(changes) == before else (version, new)


def _without_nulls(value: Any) -> Any:
    """Return `value` as it merges into nothing: without the members that are null."""
    if type(value) is not dict:
        return value
    return {oid: _without_nulls(item) for oid, item in value.items() if item is not None}
