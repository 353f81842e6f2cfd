"""Writers: from operations to a commit.

`write` evaluates all operations in order on drafts, so that each sees those before it, and makes one commit
of what differs in the end. Rules that a caller should know:

* An expected version is that of the node in the store *before* the transaction, whatever the operations
  before it did; so a transaction may write a node twice and name what it read once.
* A transaction whose end equals its beginning makes no commit, also if it changed something on its way.
* A change of a mark alone (an ephemeral node becomes lasting, with the same value) is a change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rpds import HashTrieMap

from tega_zmq import paths, values
from tega_zmq.errors import Collision, InvalidPath, InvalidValue, NotFound, ReadOnly, TooLarge
from tega_zmq.paths import Path, format_path
from tega_zmq.store.applying import advanced, removals, with_marks, with_outcome
from tega_zmq.store.draft import Draft
from tega_zmq.store.history import advance, changed_between, new_root
from tega_zmq.store.model import (
    ABSENT,
    Change,
    Commit,
    KeptChange,
    Lease,
    Op,
    Outcome,
    Root,
    Store,
    Update,
    Written,
)
from tega_zmq.store.reading import kept_version, resolve
from tega_zmq.tree.changes import Difference, diff_at
from tega_zmq.tree.node import EMPTY, Node, detach, get, is_container, plain
from tega_zmq.tree.node import put as put_node
from tega_zmq.values import same

__all__ = ["end_session", "expect", "is_plain_put", "outcome", "put_one", "write"]

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes, where every put comes by."""


def write(
    store: Store,
    ops: Sequence[Op],
    *,
    time: float,
    tega_id: str,
    message: str = "",
    session: str = "",
    request: int = 0,
    ack: int = 0,
    fresh: Callable[[], str],
    max_value: int,
) -> Written:
    """Evaluate `ops` as one transaction of `session`, all or nothing.

    `time`: Unix seconds. `fresh` makes the epoch of a new root. `max_value`: most bytes of one value, as
    msgpack. `request` and `ack` go into the commit (see `Commit`); 0: nobody will retry.

    Raises `Collision`, `NotFound` (delete or rollback of what is not there), `InvalidPath`, `InvalidValue`,
    `TooLarge`, `ReadOnly` (another owns the root, or another session the ephemeral node), `Compacted`.
    """
    if len(ops) == 1:
        op = ops[0]
        path = paths.check(op.path)
        root = store.roots.get(path[0])
        if root is not None and is_plain_put(root, op):
            lease = store.leases.get(session)
            if path is not op.path:
                op = op._replace(path=path)
            return put_one(store, root, lease, op, time, tega_id, message, session, request, ack, max_value)
    drafts: dict[str, tuple[Root, Draft]] = {}
    rolled: dict[str, int | None] = {}
    named: dict[str, list[Path] | None] = {}
    for op in ops:
        path = paths.check(op.path)
        name = path[0]
        known = drafts.get(name)
        if known is None:
            root = store.roots.get(name) or new_root(name, "", "")
            if root.owner:
                _read_only(root)
            known = drafts[name] = (root, Draft(root))
            rolled[name], named[name] = None, []
        if op.expected is not None:
            expect(known[0].node, path, op.expected)
        to = _evaluate(known[0], known[1], op, path, session, max_value)
        if to is not None:
            rolled[name] = to
        if op.kind == "patch" or op.kind == "rollback":
            named[name] = None
        elif (those := named[name]) is not None:
            those.append(path)
    updates: list[Update] = []
    roots = store.roots
    leases = store.leases
    for name, (root, draft) in drafts.items():
        changes = _changes(root, draft)
        if not changes:
            continue
        if name not in store.roots:
            root = root._replace(epoch=fresh())
        told = _named(named[name] or (), changes)
        update = Update(
            name,
            root.epoch,
            root.version,
            root.version + 1,
            changes,
            time,
            tega_id,
            message,
            rolled[name],
            told,
        )
        # The tree of the draft may hold nodes that changed and changed back; carrying out the changes gives
        # what every replay gives.
        after, carried = advanced(root, update, store.kept)
        roots = roots.insert(name, after)
        if carried.marks_before:
            leases = with_marks(leases, carried.marks_before, carried.ephemerals)
        updates.append(update)
    if not updates:
        return Written(store, None, (0, tuple((name, root.version) for name, (root, _) in drafts.items())))
    return _finish(store, roots, leases, tuple(updates), session, request, ack)


def outcome(store: Store, session: str, request: int) -> Outcome | None:
    """Return what the write `request` of `session` led to, or None: not known (any more)."""
    lease = store.leases.get(session)
    if lease is not None:
        for number, result in reversed(lease.outcomes):
            if number <= request:
                return result if number == request else None
    return None


def end_session(store: Store, session: str, *, time: float, tega_id: str) -> Commit | None:
    """Return the commit that removes the ephemeral nodes of `session` from the roots of this node.

    With them go the born containers that they leave empty. None: it has no such nodes. The caller applies it,
    and then `Ended`.
    """
    lease = store.leases.get(session)
    if lease is None or not lease.ephemerals:
        return None
    drafts: dict[str, tuple[Root, Draft]] = {}
    for path in sorted(lease.ephemerals):
        name = path[0]
        if name not in drafts:
            root = store.roots[name]
            drafts[name] = (root, Draft(root))
        drafts[name][1].delete(path)
    updates = tuple(
        Update(name, root.epoch, root.version, root.version + 1, removals(draft), time, tega_id)
        for name, (root, draft) in drafts.items()
    )
    return Commit(store.revision + 1, updates)


# -- one lasting put, the usual case ---------------------------------------------------------------


def is_plain_put(root: Root, op: Op) -> bool:
    """Whether `op` is a lasting put and `root` one that `put_one` can write."""
    return op[0] == "put" and not (op[4] or root[1] or root[5] or root[6])


def put_one(
    store: Store,
    root: Root,
    lease: Lease | None,
    op: Op,
    time: float,
    tega_id: str,
    message: str,
    session: str,
    request: int,
    ack: int,
    max_value: int,
) -> Written:
    """Do what `write` does for one lasting put whose path is checked, in one pass over what was looked up.

    `root` is the one in `store` that `op` writes: of this node, without ephemeral nodes and born containers.
    `lease` is the one that `session` has in `store`. All else is as for `write`.

    It gives exactly what the general way gives; that is tested. Most puts come by here, so it is written for
    speed, with what it calls: each thing is looked up and made once.
    """
    path, value = op[1], op[2]
    if op[3] is not None:
        expect(root[4], path, op[3])
    oids = path[1:]
    if not oids or type(value) is not str or len(value) > max_value - 5 or not value.isascii():
        _check_value(path, value, max_value)
        if type(value) is dict or not oids:
            return _put_container(store, root, op, time, tega_id, message, session, request, ack)
    # A leaf: walk down, and copy the path on the way up.
    version = root[3] + 1
    node = root[4]
    above: Any = None
    """What was walked through: (that of what is above, content, oid)."""
    depth = 0
    for oid in oids:
        if node is None:
            break
        content = node[1]
        if type(content) is not HashTrieMap:
            raise InvalidPath(
                f"{format_path(path)}: {format_path(path[: depth + 1])} is a leaf, nothing can stand below "
                "it; put a container there first",
                path=format_path(path),
            )
        above = (above, content, oid)
        node = content.get(oid)
        depth += 1
    new: Node = (version, value)
    changed = path
    told: tuple[Path, ...] = ()
    if node is not None:
        old = node[1]
        if old == value if type(old) is str else same(old, value):
            return Written(store, None, (0, ((path[0], root[3]),)))
    elif depth < len(oids):
        # What changes is the topmost node that was missing.
        changed, told = path[: depth + 1], (path,)
        for oid in path[:depth:-1]:
            new = (version, EMPTY.insert(oid, new))
            value = {oid: value}
    kept = ((changed, new, ""),)
    while above is not None:
        above, content, oid = above
        new = (version, content.insert(oid, new))
    change = _new(Change, (changed, True, value, ""))
    update = _new(Update, (root[0], root[2], root[3], version, (change,), time, tega_id, message, None, told))
    after = advance(root, store[0], update, new, root[5], root[6], kept)
    revision = store[1] + 1
    result: Outcome = (revision, ((root[0], version),))
    leases = store[3]
    if lease is not None and request:
        leases = leases.insert(session, with_outcome(lease, request, ack, result))
    tip = _new(Store, (store[0], revision, store[2].insert(root[0], after), leases, store[4]))
    return _new(Written, (tip, _new(Commit, (revision, (update,), session, request, ack)), result))


def _put_container(
    store: Store,
    root: Root,
    op: Op,
    time: float,
    tega_id: str,
    message: str,
    session: str,
    request: int,
    ack: int,
) -> Written:
    """Do what `put_one` does, where the value is a container."""
    path = op.path
    name, version = path[:1], root.version + 1
    node, differences = put_node(root.node, path[1:], op.value, version, name)
    if not differences:
        return Written(store, None, (0, ((root.name, root.version),)))
    changes: list[Change] = []
    kept: list[KeptChange] = []
    for oids, _, new in sorted(differences, key=_first):
        where = name + oids
        changes.append(Change(where, False) if new is None else Change(where, True, plain(new)))
        kept.append((where, new, ""))
    told = () if len(changes) == 1 and changes[0].path == path else (path,)
    update = Update(
        root.name, root.epoch, root.version, version, tuple(changes), time, tega_id, message, None, told
    )
    after = advance(root, store.kept, update, node, root.ephemerals, root.born, tuple(kept))
    roots = store.roots.insert(root.name, after)
    return _finish(store, roots, store.leases, (update,), session, request, ack)


def _first(difference: Difference) -> Path:
    return difference[0]


def _finish(
    store: Store,
    roots: HashTrieMap[str, Root],
    leases: HashTrieMap[str, Lease],
    updates: tuple[Update, ...],
    session: str,
    request: int,
    ack: int,
) -> Written:
    revision = store[1] + 1
    result: Outcome = (revision, tuple([(update[0], update[3]) for update in updates]))
    if request:
        lease = leases.get(session)
        if lease is not None:
            leases = leases.insert(session, with_outcome(lease, request, ack, result))
    commit = _new(Commit, (revision, updates, session, request, ack))
    return _new(Written, (_new(Store, (store[0], revision, roots, leases, store[4])), commit, result))


# -- one operation ---------------------------------------------------------------------------------


def _evaluate(root: Root, draft: Draft, op: Op, path: Path, session: str, max_value: int) -> int | None:
    """Carry out `op` on `draft`. Returns the version that a rollback restores."""
    kind = op.kind
    if kind == "put":
        _check_value(path, op.value, max_value)
        if op.ephemeral and not session:
            raise InvalidValue(
                f"{format_path(path)}: an ephemeral node needs a session to live as long as",
                path=format_path(path),
            )
        draft.put(path, op.value, session, op.ephemeral)
        return None
    if op.ephemeral:
        raise InvalidValue(f"{format_path(path)}: only a put can be ephemeral", path=format_path(path))
    if kind == "patch":
        _check_value(path, op.value, max_value)
        draft.patch(path, op.value, session)
        return None
    if kind == "delete":
        draft.delete(path)
        return None
    if kind == "rollback":
        if len(path) > 1:
            raise InvalidPath(
                f"{format_path(path)}: a rollback restores a whole root; name {format_path(path[:1])}",
                path=format_path(path),
            )
        if root.version == ABSENT:
            raise NotFound(f"there is no root {path[0]} to roll back", path=path[0], version=op.value)
        if type(op.value) is not int:
            raise InvalidValue(f"{path[0]}: a version is an integer, not {op.value!a:.64}", path=path[0])
        version = resolve(root, op.value)
        draft.restore(kept_version(root, version), changed_between(root, version, root.version))
        return version
    raise InvalidValue(f"there is no operation {kind!a:.64}; there are put, patch, delete and rollback")


def _check_value(path: Path, value: Any, max_value: int) -> None:
    try:
        size = values.check(value)
    except (InvalidValue, InvalidPath):
        # Once more, to name the place.
        size = values.check(value, format_path(path))
    if size > max_value:
        raise TooLarge(
            f"{format_path(path)}: a value of {size} bytes, more than the {max_value} that are allowed; "
            "put parts of it",
            path=format_path(path),
            size=size,
            limit=max_value,
        )
    if len(path) == 1:
        values.check_root(value, format_path(path))


def expect(node: Node | None, path: Path, expected: int) -> None:
    """Raise `Collision` unless `path` in `node`, its root's tree, is at version `expected`, or `ABSENT`."""
    found = get(node, path[1:])
    actual = ABSENT if found is None else found[0]
    if actual == expected:
        return
    wanted, is_at = _version_name(expected), _version_name(actual)
    raise Collision(
        f"{format_path(path)} is {_told(actual)}, and the write expects it to be {_told(expected)}; "
        "read it again",
        path=format_path(path),
        expected=wanted,
        actual=is_at,
    )


def _version_name(version: int) -> int | str:
    return "absent" if version == ABSENT else version


def _told(version: int) -> str:
    return "absent" if version == ABSENT else f"at version {version}"


def _read_only(root: Root) -> NoReturn:
    raise ReadOnly(
        f"{format_path((root.name,))} belongs to {root.owner}, which alone may write it",
        root=root.name,
        owner=root.owner,
    )


# -- what a draft comes to -------------------------------------------------------------------------


def _changes(root: Root, draft: Draft) -> tuple[Change, ...]:
    """Return the least changes that make `draft` of `root`, in the order in which they are to be made."""
    name = (root.name,)
    differences = list(diff_at(root.node, draft.node, [path[1:] for path in draft.dirty]))
    if not draft.marks_before and not draft.born_before and not draft.ephemerals:
        return tuple(
            [
                Change(name + oids, False) if new is None else Change(name + oids, True, plain(new))
                for oids, _, new in differences
            ]
        )
    told: list[Change] = []
    covered = {name + oids for oids, _, _ in differences}
    marked = {
        path
        for path, old in draft.marks_before.items()
        if draft.ephemerals.get(path) != old and get(draft.node, path[1:]) is not None
    }
    # Lasting containers that were deleted and brought into being again by an ephemeral node.
    reborn = {
        path
        for path, old in draft.born_before.items()
        if not old and path in draft.born and get(root.node, path[1:]) is not None
    }
    again: set[Path] = set()
    for path in sorted(marked | reborn):
        if _within(path, covered) or _within(path, again):
            continue
        again.add(path)
        node = get(draft.node, path[1:])
        assert node is not None
        if path in reborn:
            told.append(Change(path, False))
        _tell(draft, path, node, told)
    for oids, _, new in differences:
        path = name + oids
        if _within(path, again):
            continue
        if new is None:
            told.append(Change(path, False))
        else:
            _tell(draft, path, new, told)
    settled = sorted(
        path
        for path, old in draft.born_before.items()
        if old and path not in draft.born and _lasting_container(draft, path)
    )
    for path in reversed(settled):
        if not any(change.path[: len(path)] == path and _settles(change) for change in told):
            told.append(Change(path, True, {}))
    return tuple(told)


def _named(those: Sequence[Path], changes: tuple[Change, ...]) -> tuple[Path, ...]:
    """Return `Update.named`: of the paths in `those` the topmost that a change lies at, below or above."""
    changed = {change.path for change in changes}
    if changed.issuperset(those):
        return ()
    above = {path[:length] for path in changed for length in range(1, len(path) + 1)}
    found: list[Path] = []
    for path in sorted(set(those)):
        if found and path[: len(found[-1])] == found[-1]:
            continue
        if path in above or any(path[:length] in changed for length in range(1, len(path))):
            found.append(path)
    return tuple(found)


def _settles(change: Change) -> bool:
    return change.present and not change.session


def _lasting_container(draft: Draft, path: Path) -> bool:
    node = get(draft.node, path[1:])
    return (
        node is not None
        and is_container(node)
        and not any(path[:length] in draft.ephemerals for length in range(1, len(path) + 1))
    )


def _within(path: Path, those: set[Path]) -> bool:
    return any(path[:length] in those for length in range(1, len(path) + 1))


def _tell(draft: Draft, path: Path, node: Node, told: list[Change]) -> None:
    """Add the changes that make `node`, which is new at `path`."""
    for length in range(1, len(path) + 1):
        session = draft.ephemerals.get(path[:length])
        if session is not None:
            told.append(Change(path, True, plain(node), session))
            return
    below = draft.ephemerals_below(path, node)
    if not below:
        told.append(Change(path, True, plain(node)))
        return
    if path not in draft.born:
        length = len(path)
        bare: Node | None = node
        for each in (*below, *draft.born_below(path, node)):
            if get(bare, each[length:]) is not None:
                bare = detach(bare, each[length:], node[0])
        assert bare is not None
        told.append(Change(path, True, plain(bare)))
    for each in below:
        found = get(node, each[len(path) :])
        assert found is not None
        told.append(Change(each, True, plain(found), draft.ephemerals[each]))
