"""Records change a store: `apply` is the only way, in service, in recovery and at replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rpds import HashTrieMap

from tega_zmq.errors import StorageError
from tega_zmq.paths import Path, format_path
from tega_zmq.store.draft import Draft
from tega_zmq.store.history import NO_MARKS, NO_PATHS, NO_TAGS, advance, new_root
from tega_zmq.store.model import (
    ABSENT,
    MAX_OUTCOMES,
    Change,
    Cleared,
    Commit,
    Ended,
    Kept,
    Lease,
    NewEpochs,
    Opened,
    Outcome,
    Owned,
    Record,
    Replicated,
    ResetEnd,
    ResetPart,
    Root,
    Store,
    Tagged,
    Update,
    WentOn,
)
from tega_zmq.tree.node import EMPTY, Node, get, is_container, pairs

__all__ = ["advanced", "apply", "empty", "removals", "replay", "with_marks", "with_outcome"]

_DEFAULT = Kept()


def empty(kept: Kept = _DEFAULT) -> Store:
    """Return a store without roots and sessions."""
    return Store(kept, 0, HashTrieMap(), HashTrieMap(), HashTrieMap())


def apply(store: Store, record: Record) -> Store:
    """Return the store after `record`. Raises `StorageError` for a record that cannot follow on `store`."""
    handler = _APPLY.get(type(record))
    if handler is None:
        raise StorageError(f"{type(record).__name__} is no record")
    return handler(store, record)


def advanced(root: Root, update: Update, kept: Kept) -> tuple[Root, Draft]:
    """Return `root` after `update`, and the draft that knows which marks changed."""
    if update.before != root.version or update.after != update.before + 1:
        raise StorageError(
            f"{root.name}: an update from version {update.before} to {update.after} cannot follow "
            f"version {root.version}"
        )
    draft = Draft(root)
    changes = tuple([draft.carry_out(change) for change in update.changes])
    after = advance(root, kept, update, draft.node, draft.ephemerals, draft.born, changes)
    return after, draft


def with_outcome(lease: Lease, request: int, ack: int, outcome: Outcome) -> Lease:
    """Return `lease` with the outcome of `request`; those below `ack` are forgotten."""
    old = lease[4]
    outcomes: tuple[tuple[int, Outcome], ...]
    if not old or old[-1][0] < ack:  # who writes one after the other
        outcomes = ((request, outcome),)
    else:
        start = 0
        for number, _ in old:
            if number >= ack:
                break
            start += 1
        if len(old) - start >= MAX_OUTCOMES:
            start = len(old) - MAX_OUTCOMES + 1
        if old[-1][0] < request:
            outcomes = (*old[start:], (request, outcome))
        else:
            merged = dict(old[start:])
            merged[request] = outcome
            outcomes = tuple(sorted(merged.items()))
    return tuple.__new__(Lease, (lease[0], lease[1], lease[2], lease[3], outcomes, lease[5]))


def with_marks(
    leases: HashTrieMap[str, Lease], before: dict[Path, str | None], after: HashTrieMap[Path, str]
) -> HashTrieMap[str, Lease]:
    """Return `leases` whose index knows what became of the marks that were touched."""
    for path, old in before.items():
        new = after.get(path)
        if old == new:
            continue
        lease = None if old is None else leases.get(old)
        if lease is not None:
            leases = leases.insert(lease.session, lease._replace(ephemerals=lease.ephemerals.discard(path)))
        lease = None if new is None else leases.get(new)
        if lease is not None:
            leases = leases.insert(
                lease.session, lease._replace(ephemerals=lease.ephemerals.insert(path, True))
            )
    return leases


def _commit(store: Store, record: Commit) -> Store:
    if record.revision != store.revision + 1:
        raise StorageError(f"commit {record.revision} cannot follow revision {store.revision}")
    roots, leases = store.roots, store.leases
    for update in record.updates:
        root = roots.get(update.root)
        if root is None:
            root = new_root(update.root, "", update.epoch)
        elif root.owner:
            raise StorageError(f"commit {record.revision} writes {root.name}, which belongs to {root.owner}")
        elif root.epoch != update.epoch:
            raise StorageError(
                f"commit {record.revision}: an update of {root.name} in epoch {update.epoch} cannot follow "
                f"epoch {root.epoch}"
            )
        after, draft = advanced(root, update, store.kept)
        roots = roots.insert(update.root, after)
        if draft.marks_before:
            leases = with_marks(leases, draft.marks_before, draft.ephemerals)
    lease = leases.get(record.session) if record.request else None
    if lease is not None:
        outcome = (record.revision, tuple([(update.root, update.after) for update in record.updates]))
        leases = leases.insert(record.session, with_outcome(lease, record.request, record.ack, outcome))
    return Store(store.kept, record.revision, roots, leases, store.staged)


def _replica(store: Store, name: str) -> Root:
    root = store.roots.get(name)
    if root is None:
        raise StorageError(f"an update came for {name}, which has no known owner")
    if not root.owner:
        raise StorageError(f"an update came for {name}, which belongs to this node")
    return root


def stands_alone(update: Update) -> bool:
    """Whether what `update` makes does not depend on what was before: it begins by deleting the whole root.

    So an owner that lost its store goes on in a new epoch, and its replicas keep their history.
    """
    first = update.changes[0] if update.changes else None
    return first is not None and len(first.path) == 1 and not first.present


def _replicated(store: Store, record: Replicated) -> Store:
    update = record.update
    root = _replica(store, update.root)
    if root.epoch != update.epoch and root.version != ABSENT and not stands_alone(update):
        raise StorageError(
            f"an update of {root.name} in epoch {update.epoch} cannot follow epoch {root.epoch}"
        )
    after, _ = advanced(root, update, store.kept)
    return store._replace(roots=store.roots.insert(root.name, after))


def _reset_part(store: Store, record: ResetPart) -> Store:
    root = _replica(store, record.root)
    node = None if record.first else store.staged.get(root.name)
    for path, version, container, value in record.entries:
        if not path or path[0] != root.name:
            raise StorageError(f"{format_path(path)} is no part of {root.name}")
        node = _with_entry(node, path, (version, EMPTY if container else value))
    staged = store.staged.discard(root.name) if node is None else store.staged.insert(root.name, node)
    return store._replace(staged=staged)


def _with_entry(root: Node | None, path: Path, entry: Node) -> Node:
    """Return `root` with one entry more; its parents are there and keep their versions."""
    chain: list[Node] = []
    node = root
    for oid in path[1:]:
        if node is None or not is_container(node):
            raise StorageError(f"{format_path(path)} came before what it stands in")
        chain.append(node)
        node = node[1].get(oid)
    if node is not None:
        raise StorageError(f"{format_path(path)} came twice")
    if len(path) == 1 and not is_container(entry):
        raise StorageError(f"{format_path(path)} is a leaf; a root must be a container")
    for index in range(len(chain) - 1, -1, -1):
        version, content = chain[index]
        entry = (version, content.insert(path[index + 1], entry))
    return entry


def _reset_end(store: Store, record: ResetEnd) -> Store:
    root = _replica(store, record.root)
    node = store.staged.get(root.name) if record.present else None
    if record.present and node is None:
        raise StorageError(f"the tree of {root.name} ended before it began")
    if record.version < (0 if record.present else ABSENT):
        raise StorageError(f"{root.name} cannot be at version {record.version}")
    marks: dict[Path, str] = {}
    born: dict[Path, bool] = {}
    for path, session in record.ephemerals:
        found = get(node, path[1:]) if path and path[0] == root.name else None
        if found is None or not (session or is_container(found)):
            raise StorageError(f"{format_path(path)} is named as ephemeral and is not in the tree")
        if session:
            marks[path] = session
        else:
            born[path] = True
    for path in marks:
        if any(path[:length] in marks for length in range(1, len(path))):
            raise StorageError(f"{format_path(path)} is an ephemeral node within another")
    reset = new_root(root.name, root.owner, record.epoch)
    if record.version != ABSENT:
        version = record.version
        ephemerals, containers = HashTrieMap(marks), HashTrieMap(born)
        reset = reset._replace(
            version=version,
            node=node,
            ephemerals=ephemerals,
            born=containers,
            trees=reset.trees.add(version, (node, ephemerals, containers)),
            oldest=version,
            oldest_update=version + 1,
            last=(record.time, record.tega_id, record.message),
        )
    return store._replace(roots=store.roots.insert(root.name, reset), staged=store.staged.discard(root.name))


def _owned(store: Store, record: Owned) -> Store:
    root = store.roots.get(record.root)
    staged = store.staged.discard(record.root)
    if root is None:
        return store._replace(
            roots=store.roots.insert(record.root, new_root(record.root, record.owner, record.epoch)),
            staged=staged,
        )
    leases = store.leases
    if record.owner and not root.owner:
        if root.node is not None and len(root.node[1]):
            raise StorageError(f"{root.name} holds data of this node; {record.owner} cannot own it")
        leases = with_marks(leases, dict(pairs(root.ephemerals)), NO_MARKS)
        root = root._replace(ephemerals=NO_MARKS, born=NO_PATHS, tags=NO_TAGS)
    if root.owner and not record.owner and root.ephemerals:
        root = _without_ephemerals(root, record.epoch, store.kept)
    root = root._replace(owner=record.owner, epoch=record.epoch)
    return store._replace(roots=store.roots.insert(root.name, root), leases=leases, staged=staged)


def _without_ephemerals(root: Root, epoch: str, kept: Kept) -> Root:
    draft = Draft(root)
    for path in sorted(root.ephemerals):
        draft.delete(path)
    changes = removals(draft)
    update = Update(root.name, epoch, root.version, root.version + 1, changes, root.last[0], "", "disowned")
    return advanced(root, update, kept)[0]


def removals(draft: Draft) -> tuple[Change, ...]:
    """Return the changes of a draft that only had deletes: of each, the topmost node that is gone."""
    gone: list[Path] = []
    for path in sorted({*draft.marks_before, *draft.born_before}):
        if get(draft.node, path[1:]) is None and not (gone and path[: len(gone[-1])] == gone[-1]):
            gone.append(path)
    return tuple([Change(path, False) for path in gone])


def _new_epochs(store: Store, record: NewEpochs) -> Store:
    roots = store.roots
    for name, epoch in record.epochs:
        root = roots.get(name)
        if root is None or root.owner:
            raise StorageError(f"{name} is no root of this node; it cannot get a new epoch")
        roots = roots.insert(name, root._replace(epoch=epoch))
    return store._replace(roots=roots)


def _went_on(store: Store, record: WentOn) -> Store:
    name = record.root
    before = store.roots.get(name)
    leases = store.leases
    if before is not None:
        if before.owner:
            raise StorageError(f"{name} belongs to {before.owner}; its versions are not counted here")
        leases = with_marks(leases, dict(pairs(before.ephemerals)), NO_MARKS)
    root = new_root(name, "", record.epoch)
    root = root._replace(
        version=record.version,
        trees=root.trees.add(record.version, (None, root.ephemerals, root.born)),
        oldest=record.version,
        oldest_update=record.version + 1,
        # Within an epoch what they name is the same as before.
        tags=before.tags if before is not None and before.epoch == record.epoch else NO_TAGS,
    )
    return store._replace(
        roots=store.roots.insert(name, root), leases=leases, staged=store.staged.discard(name)
    )


def _cleared(store: Store, _: Cleared) -> Store:
    roots = HashTrieMap({name: root for name, root in pairs(store.roots) if root.owner})
    leases = store.leases
    for session, lease in pairs(store.leases):
        if lease.ephemerals:
            leases = leases.insert(session, lease._replace(ephemerals=NO_PATHS))
    return store._replace(roots=roots, leases=leases)


def _opened(store: Store, record: Opened) -> Store:
    if record.session in store.leases:
        raise StorageError(f"session {record.session} is open already")
    lease = Lease(record.session, record.tega_id, record.token, record.via, (), NO_PATHS)
    return store._replace(leases=store.leases.insert(record.session, lease))


def _ended(store: Store, record: Ended) -> Store:
    lease = store.leases.get(record.session)
    if lease is None:
        raise StorageError(f"session {record.session} is not open")
    if lease.ephemerals:
        raise StorageError(f"session {record.session} still has ephemeral nodes")
    return store._replace(leases=store.leases.remove(record.session))


def _tagged(store: Store, record: Tagged) -> Store:
    root = store.roots.get(record.root)
    if root is None or root.owner:
        raise StorageError(f"{record.root} is no root of this node; it cannot have the tag {record.name}")
    if record.version > root.version:
        raise StorageError(
            f"{record.root} has no version {record.version}, which the tag {record.name} names"
        )
    if record.version == ABSENT:
        tags = root.tags.discard(record.name)
    else:
        tags = root.tags.insert(record.name, record.version)
    return store._replace(roots=store.roots.insert(record.root, root._replace(tags=tags)))


_APPLY: dict[type[Any], Callable[[Store, Any], Store]] = {
    Commit: _commit,
    Replicated: _replicated,
    ResetPart: _reset_part,
    ResetEnd: _reset_end,
    Owned: _owned,
    NewEpochs: _new_epochs,
    WentOn: _went_on,
    Cleared: _cleared,
    Opened: _opened,
    Ended: _ended,
    Tagged: _tagged,
}


def replay(store: Store, records: Iterable[Record]) -> Store:
    """Return the store after all of `records`."""
    for record in records:
        store = apply(store, record)
    return store
