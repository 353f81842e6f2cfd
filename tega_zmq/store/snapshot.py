"""A whole store as a stream of small plain values, and back.

Each item is `[kind, field, ...]`, with the kinds below, in this order: the head; then for each root its
head, the tree of its oldest kept version in parts, its kept updates in parts; then trees that are being
received; then sessions; then the end, without which a stream is incomplete. The other kept versions come from
the oldest by the updates after it, as they did at first, so that they share what they shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from rpds import HashTrieMap

from tega_zmq.errors import ProtocolError, StorageError
from tega_zmq.paths import Path, format_path
from tega_zmq.store.applying import advanced, apply, empty
from tega_zmq.store.encoding import check_entries, check_marks, update_from_plain, update_to_plain
from tega_zmq.store.history import keep, new_root, update_at
from tega_zmq.store.model import (
    ABSENT,
    Kept,
    KeptVersion,
    Lease,
    Outcome,
    ResetPart,
    Root,
    Store,
    Update,
)
from tega_zmq.store.replicas import entries
from tega_zmq.tree.node import EMPTY, Node, build, pairs

__all__ = ["FORMAT", "dump", "load", "revision_in"]

FORMAT: Final = 1
"""The version of the format."""

_PART: Final = 200
"""Most entries, updates, marks or outcomes in one item."""

_HEAD: Final = 1
"""[1, format, revision]"""
_ROOT: Final = 2
"""[2, name, owner, epoch, version, oldest, is the oldest tree there, oldest update,
[time, tega_id, message]], and if there are tags, [[tag, version], ...]"""
_TREE: Final = 3
"""[3, [[path, version, is it a container, leaf], ...]]: of the oldest kept version, parents first."""
_MARKS: Final = 4
"""[4, [[path, session], ...]]: in that tree; an empty session: a born container."""
_UPDATES: Final = 5
"""[5, [update, ...]]: all that are kept, the oldest first."""
_STAGED: Final = 6
"""[6, root, is it the first part, entries]: a tree that was being received."""
_LEASE: Final = 7
"""[7, session, tega_id, token, via, [[request, revision, [[root, version], ...]], ...]]"""
_END: Final = 8
"""[8, how many items came before]"""


def dump(store: Store) -> Iterator[list[Any]]:
    """Yield `store` as plain values of bounded size, a few hundred entries each at most.

    It is made lazily; a store never changes, so another thread may consume it.
    """
    count = 0
    for item in _dump(store):
        yield item
        count += 1
    yield [_END, count]


def revision_in(item: Any) -> int:
    """Return the revision that stands in the first item of a dump. Raises `ProtocolError` if it is none."""
    if type(item) is not list or len(item) != 3 or item[:2] != [_HEAD, FORMAT] or type(item[2]) is not int:
        raise ProtocolError("this is not how a snapshot begins")
    return item[2]


def _dump(store: Store) -> Iterator[list[Any]]:
    yield [_HEAD, FORMAT, store.revision]
    for name, root in sorted(pairs(store.roots), key=_key):
        yield from _dump_root(name, root)
    for name, node in sorted(pairs(store.staged), key=_key):
        first = True
        for part in _parts(entries(node, name)):
            yield [_STAGED, name, first, part]
            first = False
    for _, lease in sorted(pairs(store.leases), key=_key):
        outcomes = [[request, revision, changed] for request, (revision, changed) in lease.outcomes]
        yield [_LEASE, lease.session, lease.tega_id, lease.token, lease.via, outcomes]


def _key(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _dump_root(name: str, root: Root) -> Iterator[list[Any]]:
    node, ephemerals, born = _oldest(root)
    yield [
        _ROOT,
        name,
        root.owner,
        root.epoch,
        root.version,
        root.oldest,
        node is not None,
        root.oldest_update,
        list(root.last),
        *([sorted(map(list, pairs(root.tags)))] if root.tags else ()),
    ]
    if node is not None:
        for part in _parts(entries(node, name)):
            yield [_TREE, part]
    marks = [*pairs(ephemerals), *((path, "") for path, _ in pairs(born))]
    for part in _parts(iter(sorted(marks))):
        yield [_MARKS, part]
    for part in _parts(iter(range(root.oldest_update, root.version + 1))):
        updates = []
        for version in part:
            update = update_at(root, version)
            assert update is not None
            updates.append(update_to_plain(update))
        yield [_UPDATES, updates]


def _oldest(root: Root) -> KeptVersion:
    if root.version == ABSENT:
        return (None, root.ephemerals, root.born)
    return root.trees[root.oldest]


def _parts(items: Iterator[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) >= _PART:
            yield part
            part = []
    if part:
        yield part


def load(items: Iterable[Any], kept: Kept) -> Store:
    """Return the store that `dump` took apart, with no more history than `kept`.

    Raises `StorageError` if the stream is damaged, incomplete or of another format.
    """
    loader = _Loader(kept)
    try:
        for item in items:
            loader.take(item)
    except ProtocolError as error:
        raise StorageError(f"snapshot: {error.message}") from error
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise StorageError(f"snapshot: a part of it cannot be understood ({error!r:.200})") from error
    return loader.finish()


class _Growing:
    """A tree that is put together from entries: mutable until it is whole, which is much faster."""

    def __init__(self) -> None:
        self.top: dict[str, Any] = {}

    def add(self, path: Path, version: int, container: bool, value: Any) -> None:
        at: Any = self.top
        for oid in path[:-1]:
            found = at.get(oid)
            if found is None or type(found[1]) is not dict:
                raise StorageError(f"snapshot: {format_path(path)} came before what it stands in")
            at = found[1]
        if path[-1] in at:
            raise StorageError(f"snapshot: {format_path(path)} came twice")
        # A leaf is no dict, so that a dict always holds children.
        at[path[-1]] = (version, {} if container else value)

    def node(self, name: str) -> Node | None:
        """Return the tree of the root `name`, or None: it has no entries."""
        found = self.top.get(name)
        if found is None:
            return None
        if type(found[1]) is not dict:
            raise StorageError(f"snapshot: {format_path((name,))} is a leaf; a root must be a container")
        return _frozen(found)


def _frozen(grown: tuple[int, Any]) -> Node:
    version, content = grown
    if type(content) is not dict:
        return grown
    if not content:
        return (version, EMPTY)
    return (version, HashTrieMap({oid: _frozen(child) for oid, child in content.items()}))


class _Loader:
    """Takes the items of a stream in order."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.store = empty(kept)
        self.begun = False
        self.ended = False
        self.count = 0
        self.head: list[Any] | None = None
        self.growing = _Growing()
        self.marks: list[tuple[Any, str]] = []
        self.updates: list[Update] = []

    def take(self, item: Any) -> None:
        kind = item[0]
        if self.ended or self.begun == (kind == _HEAD):
            raise StorageError(f"snapshot: an item of kind {kind} is out of place")
        if kind == _HEAD:
            if item[1] != FORMAT:
                raise StorageError(f"snapshot: format {item[1]} is unknown; this version reads {FORMAT}")
            self.begun = True
            self.store = self.store._replace(revision=item[2])
        elif kind == _ROOT:
            self._finish_root()
            self.head = list(item)
        elif kind == _TREE:
            name = self._name()
            for entry in check_entries(name, item[1]):
                self.growing.add(*entry)
        elif kind == _MARKS:
            self.marks += check_marks(self._name(), item[1])
        elif kind == _UPDATES:
            self.updates += map(update_from_plain, item[1])
        elif kind == _STAGED:
            self._finish_root()
            part = ResetPart(item[1], item[2], check_entries(item[1], item[3]))
            self.store = apply(self.store, part)
        elif kind == _LEASE:
            self._finish_root()
            self._lease(item)
        elif kind == _END:
            self._finish_root()
            if item[1] != self.count:
                raise StorageError(f"snapshot: it has {self.count} items of {item[1]}")
            self.ended = True
        else:
            raise StorageError(f"snapshot: there is no kind {kind} of items")
        self.count += 1

    def finish(self) -> Store:
        if not self.ended:
            raise StorageError("snapshot: it ends too early")
        return self.store

    def _name(self) -> str:
        if self.head is None:
            raise StorageError("snapshot: a part of a tree without its root")
        name: str = self.head[1]
        return name

    def _lease(self, item: Any) -> None:
        outcomes: list[tuple[int, Outcome]] = [
            (request, (revision, tuple((root, version) for root, version in changed)))
            for request, revision, changed in item[5]
        ]
        marks: HashTrieMap[Any, bool] = HashTrieMap()
        session: str = item[1]
        for path in self._marked.get(session, ()):
            marks = marks.insert(path, True)
        lease = Lease(session, item[2], item[3], item[4], tuple(outcomes), marks)
        self.store = self.store._replace(leases=self.store.leases.insert(session, lease))

    @property
    def _marked(self) -> dict[str, list[Any]]:
        """Where the ephemeral nodes of each session stand, in roots of this node."""
        if self._index is None:
            self._index = {}
            for _, root in pairs(self.store.roots):
                if not root.owner:
                    for path, session in pairs(root.ephemerals):
                        self._index.setdefault(session, []).append(path)
        return self._index

    _index: dict[str, list[Any]] | None = None

    def _finish_root(self) -> None:
        if self.head is None:
            return
        _, name, owner, epoch, version, oldest, present, oldest_update, last, *more = self.head
        node = self.growing.node(name)
        if present != (node is not None):
            raise StorageError(f"snapshot: the tree of {name} is incomplete")
        root = new_root(name, owner, epoch)
        if version != ABSENT:
            root = self._with_history(root, node, version, oldest, oldest_update)
        root = root._replace(epoch=epoch, last=(last[0], last[1], last[2]))
        for tag, tagged in more[0] if more else ():
            root = root._replace(tags=root.tags.insert(tag, tagged))
        self.store = self.store._replace(roots=self.store.roots.insert(name, root))
        self.head, self.marks, self.updates, self.growing = None, [], [], _Growing()

    def _with_history(
        self, root: Root, node: Node | None, version: int, oldest: int, oldest_update: int
    ) -> Root:
        ephemerals = HashTrieMap({path: session for path, session in self.marks if session})
        born = HashTrieMap({path: True for path, session in self.marks if not session})
        if [update.after for update in self.updates] != list(range(oldest_update, version + 1)):
            raise StorageError(f"snapshot: updates of {root.name} are missing")
        if not 0 <= oldest <= version or oldest + 1 < oldest_update:
            raise StorageError(f"snapshot: the history of {root.name} has a gap")
        root = root._replace(
            version=oldest,
            node=node,
            ephemerals=ephemerals,
            born=born,
            trees=root.trees.add(oldest, (node, ephemerals, born)),
            oldest=oldest,
            oldest_update=oldest_update,
        )
        for update in self.updates:
            if update.after > oldest:
                root, _ = advanced(root, update, self.kept)
            else:
                changes = tuple(
                    (c.path, build(c.value, update.after) if c.present else None, c.session)
                    for c in update.changes
                )
                root = root._replace(updates=root.updates.add(update.after, keep(update, changes)))
        return root
