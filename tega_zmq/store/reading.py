"""Reading: values, versions, attributes, finding, history."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from heapq import merge
from typing import Any, NoReturn, TypeAlias

from rpds import HashTrieMap

from tega_zmq import tree
from tega_zmq.errors import Compacted, NotFound, TooLarge
from tega_zmq.paths import Path, format_path
from tega_zmq.patterns import OidPattern
from tega_zmq.store.history import changed_between, update_at
from tega_zmq.store.model import ABSENT, KeptUpdate, KeptVersion, Root, Store, Update
from tega_zmq.tree.changes import Difference
from tega_zmq.tree.node import Node, get, is_container, pairs

__all__ = [
    "attributes",
    "blame",
    "diff",
    "find",
    "is_ephemeral",
    "kept_version",
    "log",
    "lookup",
    "owned_roots",
    "resolve",
    "roots",
]


def resolve(root: Root, version: int | None) -> int:
    """Return the version that is meant: None is the present one, a negative one counts back from it.

    Raises `NotFound` for one that is before the first or after the present.
    """
    if version is None:
        return root.version
    meant = version if version >= 0 else root.version + version
    if not 0 <= meant <= root.version:
        raise NotFound(
            f"{format_path((root.name,))} has no version {version}; it is at version {root.version}"
            if root.version != ABSENT
            else f"{format_path((root.name,))} has no versions yet",
            path=format_path((root.name,)),
            version=version,
        )
    return meant


def kept_version(root: Root, version: int) -> KeptVersion:
    """Return the tree and marks of `version`, which `resolve` gave. Raises `Compacted`."""
    kept = root.trees.get(version)
    if kept is None:
        raise Compacted(
            f"version {version} of {format_path((root.name,))} is no longer kept; "
            f"the oldest is {root.oldest}",
            root=root.name,
            version=version,
            oldest=root.oldest,
        )
    return kept


def _at(store: Store, path: Path, version: int | None) -> KeptVersion:
    root = store.roots.get(path[0])
    if root is None:
        _missing(path, version)
    if version is None:
        return (root.node, root.ephemerals, root.born)
    return kept_version(root, resolve(root, version))


def _missing(path: Path, version: int | None) -> NoReturn:
    text = format_path(path)
    if version is None:
        raise NotFound(f"there is no {text}", path=text)
    raise NotFound(f"there is no {text} at version {version}", path=text, version=version)


def lookup(store: Store, path: Path, version: int | None = None) -> Node:
    """Return the node at `path`, now or at a kept version; a negative version counts back.

    Raises `NotFound` (no such path, or the root never had that version) or `Compacted` (not kept any more).
    """
    if version is None:
        root = store[2].get(path[0])
        node = None if root is None else root[4]
    else:
        node = _at(store, path, version)[0]
    for oid in path[1:]:  # as `tree.get` does, without a call: most requests to read come by here
        if node is None or type(node[1]) is not HashTrieMap:
            _missing(path, version)
        node = node[1].get(oid)
    if node is None:
        _missing(path, version)
    return node


def roots(store: Store) -> list[tuple[str, int, str, bool]]:
    """Return (name, version, owner, is it there now) of each root, also of deleted ones, by name."""
    return sorted(
        (name, root.version, root.owner, root.node is not None) for name, root in pairs(store.roots)
    )


def owned_roots(store: Store) -> list[str]:
    """Return the names of the roots that this node owns, deleted ones too."""
    return sorted(name for name, root in pairs(store.roots) if not root.owner)


def is_ephemeral(store: Store, path: Path, version: int | None = None) -> bool:
    """Tell whether `path` is an ephemeral node or part of one. Raises as `lookup`, but not for the path."""
    return _is_marked(_at(store, path, version)[1], path)


def _is_marked(ephemerals: HashTrieMap[Path, str], path: Path) -> bool:
    if ephemerals:
        for length in range(1, len(path) + 1):
            if path[:length] in ephemerals:
                return True
    return False


MAX_ATTRIBUTES = 100_000
"""Most nodes whose attributes are told at a time."""


def attributes(store: Store, path: Path, version: int | None = None) -> Generator[int, None, dict[str, Any]]:
    """Return `_oid _parent _version _ephemeral _value` of a node; `_value` of a container maps oids to such.

    `_parent` is the text of the parent's path, empty for a root. `_ephemeral` is true as well for a container
    that an ephemeral node brought into being: it holds nothing else, and goes with it. Yields what it costs,
    as `find`. Raises as `lookup`, and `TooLarge` beyond `MAX_ATTRIBUTES` nodes.
    """
    node = lookup(store, path, version)
    _, ephemerals, born = _at(store, path, version)
    top: dict[str, dict[str, Any]] = {}
    # A parent's path comes with its text, which all its children tell.
    waiting = [(path[:-1], format_path(path[:-1]), path[-1], node, top, _is_marked(ephemerals, path[:-1]))]
    count = 1
    cost = 0
    while waiting:
        above, parent, oid, node, place, ephemeral = waiting.pop()
        at = (*above, oid)
        ephemeral = ephemeral or at in ephemerals
        value = node[1]
        if is_container(node):
            value = {}
            children = pairs(node[1])
            count += len(children)
            if count > MAX_ATTRIBUTES:
                raise TooLarge(
                    f"{format_path(path)} has more than {MAX_ATTRIBUTES} nodes; read parts of it",
                    limit=MAX_ATTRIBUTES,
                )
            text = format_path(at)
            waiting += [(at, text, below, child, value, ephemeral) for below, child in children]
            cost += len(children)
        place[oid] = {
            "_oid": oid,
            "_parent": parent,
            "_version": node[0],
            "_ephemeral": ephemeral or at in born,
            "_value": value,
        }
        cost += 6
        if cost >= _PIECE:
            yield cost
            cost = 0
    yield cost
    return top[path[-1]]


Found: TypeAlias = tuple[Path, list[list["str | None"]], Node]
"""(path, groups, node): `groups` holds, for each oid of the pattern that has groups, what they matched."""


def find(store: Store, pattern: OidPattern) -> Iterator[int | Found]:
    """Yield every node whose path matches, in order of path; between them what the search has cost since.

    The costs are in half microseconds. They come about once a millisecond, so that one may stop or do
    something else in between.
    """
    there = [(name, root.node) for name, root in pairs(store.roots) if root.node is not None]
    for name, groups, node in (yield from _matching(pattern, 0, there)):
        yield from _find(pattern, (name,), [groups] if groups else [], node)


def _find(
    pattern: OidPattern, path: Path, groups: list[list[str | None]], node: Node
) -> Iterator[int | Found]:
    if len(path) == len(pattern.oids):
        yield path, groups, node
    elif is_container(node):
        for oid, found, child in (yield from _matching(pattern, len(path), pairs(node[1]))):
            yield from _find(pattern, (*path, oid), [*groups, found] if found else groups, child)


_PIECE = 1000
"""After so much of work, in half microseconds, a search tells of it."""


def _matching(
    pattern: OidPattern, depth: int, children: Iterable[tuple[str, Node]]
) -> Generator[int, None, Iterable[tuple[str, list[str | None], Node]]]:
    """Return (oid, groups, child) of the children that match at `depth`, in order; yield what it costs."""
    runs, run = [], []
    cost = 4
    for oid, child in children:
        found = pattern.step(depth, oid)
        cost += 2 + pattern.cost(depth, oid)
        if found is not None:
            run.append((oid, found, child))
            cost += 6
        if cost >= _PIECE:
            # Sorted in pieces, and put together while they are taken: to sort all would take long at once.
            run.sort(key=_first_of_three)
            runs.append(run)
            run = []
            yield cost
            cost = 0
    run.sort(key=_first_of_three)
    yield cost
    return merge(*runs, run, key=_first_of_three) if runs else run


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _first_of_three(match: tuple[str, Any, Any]) -> str:
    return match[0]


Leaf: TypeAlias = tuple[Path, int]
"""(path, version of the root that changed it last)."""


def blame(store: Store, path: Path, version: int | None = None) -> Iterator[int | Leaf]:
    """Yield each leaf at and below `path`, in order of path; between them what it has cost since, as `find`.

    An empty container counts as a leaf. Raises as `lookup`.
    """
    waiting = [(path, lookup(store, path, version))]
    runs: list[list[Leaf]] = []
    run: list[Leaf] = []
    cost = 4
    while waiting:
        at, node = waiting.pop()
        if not is_container(node) or not len(node[1]):
            run.append((at, node[0]))
            continue
        for oid, child in pairs(node[1]):
            if is_container(child):
                waiting.append(((*at, oid), child))
            else:
                run.append(((*at, oid), child[0]))
            cost += 4
            if cost >= _PIECE:
                runs.append(sorted(run))
                run = []
                yield cost
                cost = 0
    run.sort()
    yield cost
    yield from merge(*runs, run)


def log(
    store: Store,
    path: Path,
    limit: int,
    *,
    before: int | None = None,
    since: float | None = None,
    by: str = "",
) -> list[Update]:
    """Return the newest `limit` kept updates that changed something at, below or above `path`, newest first.

    Of these only those that led to a version lower than `before`, whose time (Unix seconds) is `since` or
    later, and that the tega_id `by` made. Raises `NotFound` if there is no such root.
    """
    root = store.roots.get(path[0])
    if root is None:
        _missing(path[:1], None)
    found: list[Update] = []
    newest = root.version if before is None else min(root.version, before - 1)
    for version in range(newest, root.oldest_update - 1, -1):
        if len(found) >= limit:
            break
        kept = root.updates.get(version)
        if kept is None or (by and kept[4] != by) or (since is not None and kept[3] < since):
            continue
        if len(path) == 1 or _touches(root, kept, path):
            update = update_at(root, version)
            assert update is not None
            found.append(update)
    return found


def _touches(root: Root, kept: KeptUpdate, path: Path) -> bool:
    length = len(path)
    for changed, node, _ in kept[2]:
        if changed[:length] == path:
            return True
        if path[: len(changed)] == changed:
            # A change above. A new container touches what it holds; it came in place of nothing, or a leaf.
            if node is not None and is_container(node):
                if get(node, path[len(changed) :]) is not None:
                    return True
                continue
            # A delete, or a leaf: it touches what was there before.
            before = root.trees.get(kept[1])
            if before is None or get(before[0], path[1:]) is not None:
                return True
    return False


def diff(
    store: Store, path: Path, version: int | None, other_path: Path, other_version: int | None
) -> Iterator[Difference]:
    """Yield what leads from `path` at `version` to `other_path` at `other_version`.

    Each is (relative path, old node or None, new node or None). None as a version is the present. Where
    nothing stands at one side, everything at the other differs. Raises `NotFound` (at once) if neither side
    is there, or a root or version is not, and `Compacted`.
    """
    old = get(_at(store, path, version)[0], path[1:])
    new = get(_at(store, other_path, other_version)[0], other_path[1:])
    if old is None and new is None:
        _missing(path, version)
    if path != other_path:
        return tree.diff(old, new)
    root = store.roots[path[0]]
    low, high = sorted((resolve(root, version), resolve(root, other_version)))
    changed: set[Path] = set()
    for each in changed_between(root, low, high):
        # A change above the path is one at it, for this purpose.
        if each[: len(path)] == path or path[: len(each)] == each:
            changed.add(each[len(path) :])
    return tree.diff_at(old, new, changed)
