"""The store against a model that keeps every version as plain data.

The model is written without trees: a root is a flat dict of paths. After every step the store must show what
the model shows, now and at every kept version; and what it shows must come out the same by replay of the
records, at a replica that follows, and from a snapshot.
"""

from __future__ import annotations

import copy
from typing import Any

import msgpack
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rpds import HashTrieMap

from tega_zmq import store as core
from tega_zmq.errors import Collision, Compacted, InvalidPath, NotFound, ReadOnly, TegaError
from tega_zmq.store import ABSENT, Kept, Op, Store, update_at
from tega_zmq.store.versions import Versions
from tega_zmq.tree import plain

KEPT = Kept(versions=4, updates=6)
CONTAINER = object()
SESSIONS = ("s1", "s2")


class ModelRoot:
    """One root: `nodes` by path (a leaf value, or CONTAINER), marks, and versions of nodes."""

    def __init__(self) -> None:
        self.version = ABSENT
        self.epoch = ""
        self.nodes: dict[tuple[str, ...], Any] = {}
        self.eph: dict[tuple[str, ...], str] = {}
        self.born: set[tuple[str, ...]] = set()
        self.versions: dict[tuple[str, ...], int] = {}
        self.history: dict[int, Any] = {}

    def copy(self) -> ModelRoot:
        other = copy.copy(self)
        other.nodes, other.eph, other.born = dict(self.nodes), dict(self.eph), set(self.born)
        other.versions, other.history = dict(self.versions), dict(self.history)
        return other

    def state(self) -> Any:
        shown = {path: "{}" if value is CONTAINER else repr(value) for path, value in self.nodes.items()}
        return shown, dict(self.eph), set(self.born)

    # -- helpers

    def under(self, path: Any, strictly: bool = False) -> list[Any]:
        n = len(path)
        return [p for p in self.nodes if p[:n] == path and (len(p) > n or not strictly)]

    def owned(self, path: Any) -> Any:
        return next((path[:n] for n in range(1, len(path) + 1) if path[:n] in self.eph), None)

    def writable(self, path: Any, session: str) -> Any:
        owned = self.owned(path)
        if owned is not None and self.eph[owned] != session:
            raise ReadOnly
        for n in range(1, len(path)):
            if self.nodes.get(path[:n], CONTAINER) is not CONTAINER:
                raise InvalidPath
        return owned

    def drop(self, path: Any) -> None:
        for p in self.under(path):
            del self.nodes[p]
            self.eph.pop(p, None)
            self.born.discard(p)

    def settle(self, path: Any) -> None:
        self.born -= {path[:n] for n in range(1, len(path) + 1)}

    def add(self, path: Any, value: Any) -> None:
        for n in range(1, len(path)):
            self.nodes.setdefault(path[:n], CONTAINER)
        if isinstance(value, dict):
            self.nodes[path] = CONTAINER
            for oid, item in value.items():
                self.add((*path, oid), item)
        else:
            self.nodes[path] = value

    def value(self, path: Any) -> Any:
        if self.nodes[path] is not CONTAINER:
            return self.nodes[path]
        n = len(path) + 1
        return {p[-1]: self.value(p) for p in self.under(path, True) if len(p) == n}

    # -- operations

    def put(self, path: Any, value: Any, session: str, ephemeral: bool) -> None:
        owned = self.writable(path, session)
        below = [p for p in self.eph if len(p) > len(path) and p[: len(path)] == path]
        if owned is not None:
            mark = self.eph[owned]
            self.drop(path)
            self.add(path, value)
            if owned == path:
                if ephemeral:
                    self.eph[path] = mark
                else:
                    self.settle(path)
        elif ephemeral:
            if any(self.eph[p] != session for p in below):
                raise ReadOnly
            self.born |= {path[:n] for n in range(1, len(path)) if path[:n] not in self.nodes}
            self.drop(path)
            self.add(path, value)
            self.eph[path] = session
        else:
            made = ModelRoot()
            made.add(path, value)
            for p in below:
                for n in range(len(path), len(p)):
                    if made.nodes.get(p[:n], CONTAINER) is not CONTAINER:
                        raise InvalidPath
            explicit = {p for p, v in made.nodes.items() if v is CONTAINER}
            marks = {p: (self.eph[p], self.value(p)) for p in below}
            born = {p for p in self.born if p[: len(path)] == path and p not in explicit}
            self.drop(path)
            self.add(path, value)
            for p, (mark, kept) in marks.items():
                self.drop(p)
                self.add(p, kept)
                self.eph[p] = mark
            self.born |= {p for p in born if p in self.nodes}
            self.born |= {p[:n] for p in below for n in range(len(path) + 1, len(p))} - explicit
            self.settle(path)

    def patch(self, path: Any, value: Any, session: str) -> None:
        owned = self.writable(path, session)
        if not isinstance(value, dict):
            self.put(path, value, session, owned is not None and owned == path)
            return
        if self.nodes.get(path) is not CONTAINER:
            self.put(path, {}, session, owned is not None and owned == path)
        if owned is None:
            self.settle(path)
        for oid, item in value.items():
            if item is None:
                self.drop((*path, oid))
            else:
                self.patch((*path, oid), item, session)

    def delete(self, path: Any) -> None:
        if path not in self.nodes:
            raise NotFound
        self.drop(path)
        while len(path) > 1:
            path = path[:-1]
            if path not in self.born or self.under(path, True):
                return
            self.drop(path)

    def rollback(self, base: ModelRoot, version: int) -> None:
        if base.version == ABSENT:
            raise NotFound
        meant = version if version >= 0 else base.version + version
        if not 0 <= meant <= base.version:
            raise NotFound
        if meant not in base.history:
            raise Compacted
        old = ModelRoot()
        old.nodes, old.eph, old.born = (copy.copy(part) for part in base.history[meant])
        for p in list(old.eph):
            old.drop(p)
        for p in old.born:
            old.nodes.pop(p, None)
        self.born = {p for p in self.born if old.nodes.get(p) is not CONTAINER}
        above = {p[:n] for p in self.eph for n in range(1, len(p))}
        self.born |= {p for p in above if old.nodes.get(p) is not CONTAINER}
        for p in self.eph:
            for n in range(1, len(p)):
                old.nodes[p[:n]] = CONTAINER
            old.drop(p)
            old.add(p, self.value(p))
        self.nodes = old.nodes


def commit(before: ModelRoot, after: ModelRoot, reborn: bool) -> tuple[dict[Any, set[int]], int]:
    """Bring `after` one version on; return which versions each node may have."""
    version = before.version + 1
    allowed: dict[Any, set[int]] = {}

    def marks(root: ModelRoot, path: Any) -> Any:
        n = len(path)
        return (
            {p: s for p, s in root.eph.items() if p[:n] == path},
            {p for p in root.born if p[:n] == path},
        )

    for path in after.nodes:
        same = path in before.nodes and repr(before.value(path)) == repr(after.value(path))
        if not same and path in before.nodes:
            same = _same(before.value(path), after.value(path))
        old = before.versions.get(path, version)
        if not same:
            allowed[path] = {version}
        elif marks(before, path) == marks(after, path) and not reborn:
            allowed[path] = {old}
        else:
            allowed[path] = {old, version}
    after.version = version
    after.history[version] = (dict(after.nodes), dict(after.eph), set(after.born))
    after.history.pop(version - KEPT.versions, None)
    return allowed, version


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return repr(a) == repr(b)


OIDS = st.sampled_from("abc")
PATHS = st.lists(OIDS, max_size=3).map(lambda oids: ("r", *oids)) | st.lists(OIDS, max_size=1).map(
    lambda oids: ("q", *oids)
)
LEAVES = st.sampled_from([0, 1, True, 1.0, 0.0, -0.0, "x", [], [1], [True], [{"_k": None}]])
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(OIDS, inner, max_size=3), max_leaves=4)
DICTS = st.dictionaries(OIDS, VALUES, max_size=3)
PATCHES = st.dictionaries(OIDS, st.none() | VALUES | st.dictionaries(OIDS, st.none() | VALUES), max_size=3)


NO = st.just(False)
EXPECTED = st.sampled_from([None] * 8 + [ABSENT, 0, 1, 2])


def puts(*, ephemeral: bool) -> st.SearchStrategy[Op]:
    return PATHS.flatmap(
        lambda path: st.builds(
            Op,
            st.just("put"),
            st.just(path),
            DICTS if len(path) == 1 else VALUES,
            EXPECTED,
            st.just(ephemeral),
        )
    )


PUTS, EPHEMERALS = puts(ephemeral=False), puts(ephemeral=True)
PATCHING = PATHS.flatmap(
    lambda path: st.builds(
        Op, st.just("patch"), st.just(path), PATCHES if len(path) == 1 else PATCHES | LEAVES, EXPECTED, NO
    )
)
DELETES = st.builds(Op, st.just("delete"), PATHS, st.none(), EXPECTED, NO)
ROLLBACKS = st.builds(
    Op, st.just("rollback"), st.sampled_from([("r",), ("q",)]), st.integers(-4, 6), EXPECTED, NO
)
ANY = PUTS | EPHEMERALS | PATCHING | DELETES | ROLLBACKS


def through_the_wire(record: Any) -> Any:
    packed = msgpack.packb(core.record_to_plain(record))
    return core.record_from_plain(msgpack.unpackb(packed, strict_map_key=False))


def comparable(store: Store) -> tuple[Any, ...]:
    """Return all that can be seen of `store`.

    The nodes within a kept update may have other versions after a snapshot: only their values are told.
    """
    roots = {
        name: (root._replace(updates=Versions()), [update_at(root, version) for version in root.updates])
        for name, root in store.roots.items()
    }
    return (store._replace(roots=HashTrieMap()), roots)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = core.empty(KEPT)
        self.replica = core.empty(KEPT)
        for name in ("r", "q"):
            self.replica = core.apply(self.replica, core.Owned(name, "owner", ""))
        self.model: dict[str, ModelRoot] = {}
        self.epochs = 0
        for session in SESSIONS:
            self.record(core.Opened(session, "prog", "token", ""))

    def fresh(self) -> str:
        self.epochs += 1
        return f"e{self.epochs}"

    def record(self, record: Any) -> None:
        record = through_the_wire(record)
        self.store = core.apply(self.store, record)
        if isinstance(record, core.Commit):
            self.replicate(record)

    def replicate(self, record: core.Commit) -> None:
        for update in record.updates:
            root = self.replica.roots[update.root]
            if core.follows(root, update) == "next":
                self.replica = core.apply(self.replica, through_the_wire(core.Replicated(update)))
            else:
                self.reset_replica(update.root)

    def reset_replica(self, name: str) -> None:
        root = self.store.roots.get(name)
        if root is None:
            return
        records: list[Any] = []
        if root.node is not None:
            first = True
            for entry in core.entries(root.node, name):
                records.append(core.ResetPart(name, first, (entry,)))
                first = False
        records.append(
            core.ResetEnd(
                name,
                root.epoch,
                root.version,
                root.node is not None,
                core.ephemeral_entries(root),
                *root.last,
            )
        )
        for record in records:
            self.replica = core.apply(self.replica, through_the_wire(record))

    @rule(op=PUTS, session=st.sampled_from(SESSIONS))
    def put(self, op: Op, session: str) -> None:
        self.write([op], session)

    @rule(op=EPHEMERALS, session=st.sampled_from(SESSIONS))
    def put_ephemeral(self, op: Op, session: str) -> None:
        self.write([op], session)

    @rule(op=PATCHING, session=st.sampled_from(SESSIONS))
    def patch(self, op: Op, session: str) -> None:
        self.write([op], session)

    @rule(op=DELETES, session=st.sampled_from(SESSIONS))
    def delete(self, op: Op, session: str) -> None:
        self.write([op], session)

    @rule(back=st.integers(-4, -1))
    def rollback(self, back: int) -> None:
        self.write([Op("rollback", ("r",), back)], "s1")

    @rule(ops=st.lists(ANY, min_size=2, max_size=4), session=st.sampled_from(SESSIONS))
    def transaction(self, ops: list[Op], session: str) -> None:
        self.write(ops, session)

    def write(self, ops: list[Op], session: str) -> None:
        before = {name: root.copy() for name, root in self.model.items()}
        roots = {name: root.copy() for name, root in self.model.items()}
        failed: type[TegaError] | None = None
        touched: list[str] = []
        try:
            for op in ops:
                name = op.path[0]
                root = roots.setdefault(name, ModelRoot())
                base = before.get(name, ModelRoot())
                if name not in touched:
                    touched.append(name)
                if op.expected is not None and base.versions.get(op.path, ABSENT) != op.expected:
                    raise Collision
                if op.kind == "put":
                    root.put(op.path, op.value, session, op.ephemeral)
                elif op.kind == "patch":
                    root.patch(op.path, op.value, session)
                elif op.kind == "delete":
                    root.delete(op.path)
                else:
                    root.rollback(base, op.value)
        except TegaError as error:
            failed = type(error)
        try:
            made = core.write(
                self.store,
                ops,
                time=1.5,
                tega_id="prog",
                message="why",
                session=session,
                fresh=self.fresh,
                max_value=1 << 20,
            )
        except TegaError as error:
            assert type(error) is failed, (error, failed)
            return
        assert failed is None
        changed = [name for name in touched if roots[name].state() != before.get(name, ModelRoot()).state()]
        if not changed:
            assert made.commit is None
            assert made.store is self.store
            assert made.outcome == (
                0,
                tuple((name, before.get(name, ModelRoot()).version) for name in touched),
            )
            return
        assert made.commit is not None
        assert [update.root for update in made.commit.updates] == changed
        replayed = core.apply(self.store, through_the_wire(made.commit))
        assert replayed == made.store
        self.store = made.store
        self.replicate(made.commit)
        for name in changed:
            base = before.get(name, ModelRoot())
            self.settle(name, base, roots[name], True)
        assert made.outcome == (
            self.store.revision,
            tuple((name, self.model[name].version) for name in changed),
        )

    def settle(self, name: str, before: ModelRoot, after: ModelRoot, reborn: bool) -> None:
        allowed, _ = commit(before, after, reborn and bool(after.born - before.born))
        root = self.store.roots[name]
        after.versions = {}
        for path, versions in allowed.items():
            version = core.lookup(self.store, path)[0]
            assert version in versions, (path, version, versions)
            after.versions[path] = version
        after.epoch = root.epoch
        self.model[name] = after

    @rule(session=st.sampled_from(SESSIONS))
    def end(self, session: str) -> None:
        before = {name: root.copy() for name, root in self.model.items()}
        roots = {name: root.copy() for name, root in self.model.items()}
        for root in roots.values():
            for path in sorted(p for p, s in root.eph.items() if s == session):
                root.delete(path)
        record = core.end_session(self.store, session, time=2.0, tega_id="prog")
        changed = [name for name in sorted(roots) if roots[name].state() != before[name].state()]
        assert (record is not None) == bool(changed)
        if record is not None:
            assert [update.root for update in record.updates] == changed
            self.record(record)
            for name in changed:
                self.settle(name, before[name], roots[name], False)
        self.record(core.Ended(session))
        self.record(core.Opened(session, "prog", "token", ""))

    @rule()
    def unclean_stop(self) -> None:
        epochs = tuple((name, self.fresh()) for name in core.owned_roots(self.store))
        self.record(core.NewEpochs(epochs))
        for name, epoch in epochs:
            self.model[name].epoch = epoch
            self.reset_replica(name)

    @precondition(lambda self: self.store.revision > 12)
    @rule()
    def clear(self) -> None:
        self.record(core.Cleared())
        self.model = {}

    @rule()
    def restart_from_snapshot(self) -> None:
        items = [msgpack.unpackb(msgpack.packb(item), strict_map_key=False) for item in core.dump(self.store)]
        loaded = core.load(items, KEPT)
        assert comparable(loaded) == comparable(self.store)
        self.store = loaded
        self.replica = core.load(core.dump(self.replica), KEPT)

    @rule(name=st.sampled_from("rq"))
    def lose_the_replica(self, name: str) -> None:
        self.reset_replica(name)

    @invariant()
    def shows_the_model(self) -> None:
        assert set(core.owned_roots(self.store)) == set(self.model)
        for name, model in self.model.items():
            root = self.store.roots[name]
            assert (root.version, root.epoch) == (model.version, model.epoch)
            assert dict(root.ephemerals.items()) == model.eph
            assert set(root.born) == model.born
            for version, (nodes, eph, born) in model.history.items():
                then = ModelRoot()
                then.nodes = nodes
                kept, ephemerals, containers = root.trees[version]
                assert (kept is None) == (not nodes)
                if kept is not None:
                    assert _same(plain(kept), then.value((name,)))
                assert dict(ephemerals.items()) == eph
                assert set(containers) == born
            assert set(root.trees) == set(model.history)
            assert min(model.history) == root.oldest

    @invariant()
    def leases_know_their_nodes(self) -> None:
        for session in SESSIONS:
            marked = {
                path for model in self.model.values() for path, owner in model.eph.items() if owner == session
            }
            assert set(self.store.leases[session].ephemerals) == marked

    @invariant()
    def replica_is_in_step(self) -> None:
        for name in self.model:
            root, copy_ = self.store.roots[name], self.replica.roots[name]
            assert (root.node, root.ephemerals, root.born) == (copy_.node, copy_.ephemerals, copy_.born)
            assert (root.epoch, root.version, root.last) == (copy_.epoch, copy_.version, copy_.last)

    @invariant()
    def updates_lead_from_version_to_version(self) -> None:
        for name in self.model:
            root = self.store.roots[name]
            for version in range(ABSENT, root.version + 1):
                missing = core.updates_since(root, root.epoch, version)
                if missing is None:
                    continue
                assert [update.after for update in missing] == list(range(version + 1, root.version + 1))
                kept = root.trees.get(version)
                if kept is None:
                    continue
                scratch = core.apply(core.empty(KEPT), core.Owned(name, "o", root.epoch))
                scratch = scratch._replace(
                    roots=scratch.roots.insert(
                        name,
                        scratch.roots[name]._replace(
                            version=version, node=kept[0], ephemerals=kept[1], born=kept[2]
                        ),
                    )
                )
                for update in missing:
                    scratch = core.apply(scratch, core.Replicated(update))
                assert scratch.roots[name].node == root.node


Machine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestStore = Machine.TestCase
