"""A draft of one root: what a transaction has made of it so far.

The only mutable thing here, and never shared: `write` makes one, works on it and drops it. `apply` uses one
to carry out the changes of an update.

Marks are what a root knows beside its tree. An *ephemeral* node is marked with its session; all below it is
part of it, so no marked node stands below another. A *born* container was brought into being by an ephemeral
node; it holds nothing lasting, and goes when it is empty. The rules:

* A put above leaves ephemeral nodes where they are, with the containers that they need. What its value says
  at and below them is ignored; where its value has a leaf above one, it is refused. A rollback is never
  refused: such a leaf stays away.
* A lasting put or patch at or below a born container makes that one, and those above it, lasting.
* An ephemeral node, and what is below it, is written by its own session only. A lasting put at it, of its own
  session, makes it lasting; below it, it becomes part of it. A delete at, above or below it is open to all.
* An ephemeral put at a lasting node replaces it; the ephemeral nodes of the same session below become part of
  it, those of others refuse it.
* Containers that were lasting stay so, also if only ephemeral nodes are left in them.
* A patch is a put of the leaves in it; a null in it is a delete, of ephemeral nodes too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rpds import HashTrieMap

from tega_zmq import tree
from tega_zmq.errors import InvalidPath, NotFound, ReadOnly, StorageError
from tega_zmq.paths import Path, format_path
from tega_zmq.store.model import Change, KeptChange, KeptVersion, Root
from tega_zmq.tree.node import Changes, Node, attach, build, detach, get, is_container, pairs, plain

__all__ = ["Draft"]


class Draft:
    """The tree and the marks of one root, under work. Changed nodes get `version`."""

    __slots__ = ("born", "born_before", "dirty", "ephemerals", "marks_before", "name", "node", "version")

    def __init__(self, root: Root) -> None:
        self.name = root.name
        self.node = root.node
        self.ephemerals = root.ephemerals
        self.born = root.born
        self.version = root.version + 1
        self.marks_before: dict[Path, str | None] = {}
        """The session that each path whose mark was touched had before."""
        self.born_before: dict[Path, bool] = {}
        self.dirty: set[Path] = set()
        """Paths at and below which all lies that may differ from the root's present."""

    # -- what writers ask for ----------------------------------------------------------------------

    def put(self, path: Path, value: Any, session: str, ephemeral: bool) -> None:
        """Replace what stands at `path`. Raises `InvalidPath`, `ReadOnly`."""
        oids = path[1:]
        if not self.ephemerals and not self.born and not ephemeral:
            self._put(path, value)
            return
        owned = self._writable(path, session)
        if owned is None:
            below = _marked(self.ephemerals, get(self.node, oids), path)
            if ephemeral:
                self._put_ephemeral(path, value, session, below)
            elif below:
                self._put_above(path, value, below)
            else:
                self._settle(path)
                self._forget_born(path)
                self._put(path, value)
            return
        if owned == path and not ephemeral:
            self._unmark(path)
            self._settle(path)
        self._put(path, value)

    def patch(self, path: Path, value: Any, session: str) -> None:
        """Merge `value` into what stands at `path` (RFC 7396). Raises `InvalidPath`, `ReadOnly`."""
        oids = path[1:]
        if not self.ephemerals and not self.born:
            self._patch(path, value)
            return
        owned = self._writable(path, session)
        if owned is None:
            if _marked(self.ephemerals, get(self.node, oids), path):
                self._patch_above(path, value, session)
                return
            self._settle(path)
            self._forget_born(path)
        self._patch(path, value)

    def delete(self, path: Path) -> None:
        """Remove what stands at `path`, with the born containers that it leaves empty. Raises `NotFound`."""
        if get(self.node, path[1:]) is None:
            raise NotFound(f"there is no {format_path(path)} to delete", path=format_path(path))
        self._remove(path)
        while len(path) > 1:
            path = path[:-1]
            if path not in self.born:
                return
            parent = get(self.node, path[1:])
            if parent is None or len(parent[1]):
                return
            self._remove(path)

    def restore(self, kept: KeptVersion, changed: Iterable[Path]) -> None:
        """Make the lasting part of `kept` the present; the ephemeral nodes of now stay where they are.

        `changed`: paths at and below which all changes since `kept` lie.
        """
        restored = lasting(kept)
        self.dirty.update(changed, *(map(_first, pairs(marks)) for marks in (*kept[1:], self.ephemerals)))
        for path in sorted(self.born):
            node = get(restored, path[1:])
            if node is not None and is_container(node):
                self._unbear(path)
        present, self.node = self.node, restored
        for path in sorted(self.ephemerals):
            node = get(present, path[1:])
            assert node is not None
            self._bear_above(path)
            self.node = attach(self.node, path[1:], node, self.version)

    # -- what an update says -----------------------------------------------------------------------

    def carry_out(self, change: Change) -> KeptChange:
        """Make one change of an update, and return it as history keeps it.

        Raises `StorageError` if this root can have no such change.
        """
        path, present, value, session = change
        oids = path[1:]
        if not present:
            if get(self.node, oids) is None:
                if not oids:  # a new store goes on: its replicas have the root, it has not
                    return (path, None, "")
                raise StorageError(f"an update deletes {format_path(path)}, which is not there")
            self._remove(path)
            return (path, None, "")
        try:
            if not session and not self.ephemerals and not self.born:
                return (path, self._set(path, value), "")
            if session:
                return (path, self._set_ephemeral(path, value, session), session)
            return (path, self._set_lasting(path, value), "")
        except InvalidPath as error:
            raise StorageError(f"an update cannot be carried out: {error}") from error

    def _set(self, path: Path, value: Any) -> Node:
        oids = path[1:]
        node, changes = tree.put(self.node, oids, value, self.version, path[:1])
        if not changes:
            # A change of the mark alone is one of the node too.
            old = get(node, oids)
            assert old is not None
            node = attach(node, oids, (self.version, old[1]), self.version)
        self.node = node
        new = get(node, oids)
        assert new is not None
        return new

    def _set_ephemeral(self, path: Path, value: Any, session: str) -> Node:
        if self._owned(path[:-1]) is None:
            if path not in self.ephemerals:
                self._forget(path)
                self._bear_above(path)
            self._mark(path, session)
        return self._set(path, value)

    def _set_lasting(self, path: Path, value: Any) -> Node:
        self._unmark(path)
        self._settle(path)
        below = _marked(self.ephemerals, get(self.node, path[1:]), path)
        if below and type(value) is dict:
            self._put_above(path, value, below)
            node = get(self.node, path[1:])
            assert node is not None
            self.node = attach(self.node, path[1:], (self.version, node[1]), self.version)
            return build(value, self.version)
        self._forget(path)
        return self._set(path, value)

    def _put(self, path: Path, value: Any) -> None:
        self._take(path, *tree.put(self.node, path[1:], value, self.version, path[:1]))

    def _patch(self, path: Path, value: Any) -> None:
        self._take(path, *tree.patch(self.node, path[1:], value, self.version, path[:1]))

    def _take(self, path: Path, node: Node, changes: Changes) -> None:
        """Take over what a put or patch at `path` made."""
        self.node = node
        if len(changes) > _MANY:
            # So many that to compare all below costs no more.
            self.dirty.add(path)
        else:
            for oids, _, _ in changes:
                self.dirty.add(path[:1] + oids)

    # -- puts among ephemeral nodes ----------------------------------------------------------------

    def _put_ephemeral(self, path: Path, value: Any, session: str, below: list[Path]) -> None:
        for each in below:
            if self.ephemerals[each] != session:
                self._refuse(each, path)
        node, changes = tree.put(self.node, path[1:], value, self.version, path[:1])
        self._forget(path)
        self._bear_above(path)
        self._mark(path, session)
        self._take(path, node, changes)

    def _put_above(self, path: Path, value: Any, below: list[Path]) -> None:
        length = len(path)
        for each in below:
            at: Any = value
            for index in range(length, len(each)):
                if type(at) is not dict:
                    raise InvalidPath(
                        f"{format_path(each[:index])} cannot become a leaf while the ephemeral node "
                        f"{format_path(each)} stands below it; delete that first",
                        path=format_path(each[:index]),
                    )
                at = at.get(each[index], _NOTHING)
                if at is _NOTHING:
                    break
        whole = value
        for each in below:
            node = get(self.node, each[1:])
            assert node is not None
            whole = _with(whole, each[length:], plain(node))
        self._settle(path)
        for container in _marked(self.born, get(self.node, path[1:]), path):
            if _dict_at(value, container[length:]):
                self._unbear(container)
        for each in below:
            for end in range(length + 1, len(each)):
                if not _dict_at(value, each[length:end]):
                    self._bear(each[:end])
        self._put(path, whole)

    def _patch_above(self, path: Path, value: Any, session: str) -> None:
        if type(value) is not dict:
            self.put(path, value, session, False)
            return
        self._settle(path)
        for oid in sorted(value):
            item = value[oid]
            place = (*path, oid)
            if item is not None:
                self.patch(place, item, session)
            elif get(self.node, place[1:]) is not None:
                self._remove(place)

    def ephemerals_below(self, path: Path, node: Node) -> list[Path]:
        """Return the ephemeral nodes below `path`, where `node` stands."""
        return _marked(self.ephemerals, node, path)

    def born_below(self, path: Path, node: Node) -> list[Path]:
        """Return the born containers below `path`, where `node` stands, parents first."""
        return _marked(self.born, node, path)

    # -- marks -------------------------------------------------------------------------------------

    def _owned(self, path: Path) -> Path | None:
        """Return the ephemeral node at or above `path`."""
        if self.ephemerals:
            for length in range(1, len(path) + 1):
                if path[:length] in self.ephemerals:
                    return path[:length]
        return None

    def _writable(self, path: Path, session: str) -> Path | None:
        owned = self._owned(path)
        if owned is not None and self.ephemerals[owned] != session:
            self._refuse(owned, path)
        return owned

    def _refuse(self, owned: Path, path: Path) -> None:
        owner = self.ephemerals[owned]
        raise ReadOnly(
            f"{format_path(path)}: the ephemeral node {format_path(owned)} belongs to session {owner}, which "
            "alone may write it; delete it first",
            root=self.name,
            owner=owner,
        )

    def _mark(self, path: Path, session: str) -> None:
        old = self.ephemerals.get(path)
        if old != session:
            self.marks_before.setdefault(path, old)
            self.ephemerals = self.ephemerals.insert(path, session)

    def _unmark(self, path: Path) -> None:
        old = self.ephemerals.get(path)
        if old is not None:
            self.marks_before.setdefault(path, old)
            self.ephemerals = self.ephemerals.remove(path)

    def _unbear(self, path: Path) -> None:
        if path in self.born:
            self.born_before.setdefault(path, True)
            self.born = self.born.remove(path)

    def _settle(self, path: Path) -> None:
        """Make the containers at and above `path` lasting."""
        if self.born:
            for length in range(1, len(path) + 1):
                self._unbear(path[:length])

    def _bear_above(self, path: Path) -> None:
        """Mark the containers above `path` that are missing now as born."""
        for length in range(1, len(path)):
            place = path[:length]
            node = get(self.node, place[1:])
            if node is None or not is_container(node):  # a leaf only in what a rollback restores
                self._bear(place)

    def _bear(self, path: Path) -> None:
        if path not in self.born:
            self.born_before.setdefault(path, False)
            self.born = self.born.insert(path, True)

    def _forget(self, path: Path) -> None:
        """Drop all marks at and below `path`."""
        if self.ephemerals:
            self._unmark(path)
            for each in _marked(self.ephemerals, get(self.node, path[1:]), path):
                self._unmark(each)
        self._forget_born(path)

    def _forget_born(self, path: Path) -> None:
        if self.born:
            self._unbear(path)
            for each in _marked(self.born, get(self.node, path[1:]), path):
                self._unbear(each)

    def _remove(self, path: Path) -> None:
        self._forget(path)
        self.node = detach(self.node, path[1:], self.version)
        self.dirty.add(path)


_NOTHING = object()

_MANY = 32
"""So many changes of one operation are remembered one by one."""


def _first(pair: tuple[Path, Any]) -> Path:
    return pair[0]


def lasting(kept: KeptVersion) -> Node | None:
    """Return the tree of a kept version without ephemeral nodes and born containers."""
    node, ephemerals, born = kept
    for path, _ in pairs(ephemerals):
        node = detach(node, path[1:], 0)
    for path in sorted(born):
        if get(node, path[1:]) is not None:
            node = detach(node, path[1:], 0)
    return node


def _with(value: dict[str, Any], oids: Path, item: Any) -> dict[str, Any]:
    """Return a copy of `value` with `item` at `oids`, where only dicts stand on the way."""
    oid = oids[0]
    return {**value, oid: item if len(oids) == 1 else _with(value.get(oid, {}), oids[1:], item)}


def _dict_at(value: Any, oids: Path) -> bool:
    for oid in oids:
        if type(value) is not dict:
            return False
        value = value.get(oid)
    return type(value) is dict


def _marked(marks: HashTrieMap[Path, Any], node: Node | None, path: Path) -> list[Path]:
    """Return the marked paths below `path`, where `node` stands, in order.

    Costs no more than the smaller of the two: the subtree, or all marks.
    """
    if not marks or node is None or not is_container(node):
        return []
    left = len(marks)
    found: list[Path] = []
    waiting = [(path, node)]
    while waiting:
        at, each = waiting.pop()
        left -= len(each[1])
        if left < 0:
            length = len(path)
            return sorted(p for p, _ in pairs(marks) if len(p) > length and p[:length] == path)
        for oid, child in pairs(each[1]):
            place = (*at, oid)
            if place in marks:
                found.append(place)
            if is_container(child):
                waiting.append((place, child))
    found.sort()
    return found
