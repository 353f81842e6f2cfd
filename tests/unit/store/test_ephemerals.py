"""Ephemeral nodes: whose they are, what they bring into being, and what leaves them alone."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import store as core
from tega_zmq.errors import InvalidPath, ReadOnly, StorageError
from tega_zmq.paths import parse
from tega_zmq.store import Change, Ended, Op, Opened, Owned, Store
from tega_zmq.tree import plain
from tests.storekit import delete, patch, put, rollback, stored, value, write


def eph(path: str, new: Any) -> Op:
    return put(path, new, ephemeral=True)


def marks(store: Store, root: str = "a") -> tuple[dict[str, str], list[str]]:
    found = store.roots[root]
    return (
        {".".join(path): session for path, session in found.ephemerals.items()},
        sorted(".".join(path) for path in found.born),
    )


def end(store: Store, session: str) -> Store:
    commit = core.end_session(store, session, time=5.0, tega_id=f"prog-{session}")
    if commit is not None:
        store = core.apply(store, core.record_from_plain(core.record_to_plain(commit)))
    return core.apply(store, Ended(session))


def whole(store: Store, root: str = "a") -> Any:
    node = store.roots[root].node
    return None if node is None else plain(node)


def test_it_goes_with_its_session_and_takes_what_it_brought() -> None:
    store = stored(put("a", {"k": {}}), eph("a.k.x.y.z", 1))
    assert marks(store) == ({"a.k.x.y.z": "s1"}, ["a.k.x", "a.k.x.y"])
    commit = core.end_session(store, "s1", time=5.0, tega_id="prog")
    assert commit is not None
    (update,) = commit.updates
    assert update.changes == (Change(("a", "k", "x"), False),)
    assert (update.time, update.tega_id) == (5.0, "prog")
    store = end(store, "s1")
    assert whole(store) == {"k": {}}
    assert marks(store) == ({}, [])
    assert "s1" not in store.leases


def test_a_root_that_it_brought_goes_too() -> None:
    store = stored(eph("a.x", 1))
    assert marks(store) == ({"a.x": "s1"}, ["a"])
    store = end(store, "s1")
    assert whole(store) is None
    assert core.roots(store) == [("a", 1, "", False)]


def test_born_containers_stay_while_others_need_them() -> None:
    store = write(stored(eph("a.p.x", 1)), eph("a.p.y", 2), session="s2").store
    store = end(store, "s1")
    assert whole(store) == {"p": {"y": 2}}
    assert marks(store) == ({"a.p.y": "s2"}, ["a", "a.p"])
    assert whole(end(store, "s2")) is None


def test_several_roots_in_one_commit() -> None:
    store = stored(put("a", {}), eph("a.x", 1), eph("b.y", {"z": 1}), eph("a.w", 2))
    commit = core.end_session(store, "s1", time=5.0, tega_id="prog")
    assert commit is not None
    assert [(update.root, len(update.changes)) for update in commit.updates] == [("a", 2), ("b", 1)]
    assert core.end_session(store, "s2", time=5.0, tega_id="prog") is None
    assert core.end_session(store, "s9", time=5.0, tega_id="prog") is None


def test_a_session_with_ephemeral_nodes_cannot_just_end() -> None:
    with pytest.raises(StorageError, match="still has"):
        core.apply(stored(eph("a.x", 1)), Ended("s1"))


@pytest.mark.parametrize(
    "op",
    [
        put("a", {"k": 2}),
        put("a", {"k": 2, "p": {}}),
        put("a", {"k": 2, "p": {"x": "ignored"}}),
        put("a", {"k": 2, "p": {"x": {"y": "ignored"}}}),
        put("a.p", {}),
        patch("a", {"k": 2, "p": {}}),
        rollback("a", 0),
    ],
)
def test_left_alone_by_puts_above_and_rollback(op: Op) -> None:
    store = stored(put("a", {"k": 1}), eph("a.p.x", {"v": 1}), put("a.k", 5))
    after = write(store, op, session="s2").store
    assert value(after, "a.p.x") == {"v": 1}
    assert core.lookup(after, parse("a.p.x")) is core.lookup(store, parse("a.p.x"))
    assert marks(after)[0] == {"a.p.x": "s1"}
    assert "k" in whole(after)
    gone = end(after, "s1")
    born = op.kind == "rollback" or (op.kind == "put" and "p" not in op.value and op.path == ("a",))
    assert ("p" in whole(gone)) == (not born)


def test_a_leaf_cannot_take_the_place_of_what_holds_one() -> None:
    store = stored(put("a", {}), eph("a.p.q.x", 1))
    for op in (put("a.p", 5), put("a", {"p": []}), put("a", {"p": {"q": 1}}), patch("a", {"p": 5})):
        with pytest.raises(InvalidPath, match=r"cannot become a leaf while the ephemeral node a\.p\.q\.x"):
            write(store, op)


def test_a_rollback_leaves_such_a_leaf_away() -> None:
    store = stored(put("a", {"p": 1, "k": 1}), delete("a.p"), eph("a.p.x", 1), put("a.k", 2))
    after = write(store, rollback("a", 0)).store
    assert whole(after) == {"k": 1, "p": {"x": 1}}
    assert marks(after) == ({"a.p.x": "s1"}, ["a.p"])
    assert whole(end(after, "s1")) == {"k": 1}


@pytest.mark.parametrize("op", [rollback("a", 0), put("a", {"k": 1}), patch("a", {"p": None})])
def test_what_then_stands_for_such_a_node_alone_goes_with_it(op: Op) -> None:
    store = stored(put("a", {"k": 1}), put("a.p.q", {"lasting": 1}), eph("a.p.q.x", 1))
    after = write(store, op).store
    if op.kind == "patch":  # which is a delete: nothing of it is left
        assert whole(after) == {"k": 1}
        return
    assert whole(after) == {"k": 1, "p": {"q": {"x": 1}}}
    assert marks(after) == ({"a.p.q.x": "s1"}, ["a.p", "a.p.q"])
    assert whole(end(after, "s1")) == {"k": 1}


def test_a_put_above_keeps_the_containers_that_it_names() -> None:
    store = stored(put("a.p.q", {"lasting": 1}), eph("a.p.q.x", 1))
    after = write(store, put("a", {"p": {}})).store
    assert marks(after) == ({"a.p.q.x": "s1"}, ["a.p.q"])
    assert whole(end(after, "s1")) == {"p": {}}


def test_rollback_brings_none_back() -> None:
    store = end(stored(put("a", {"k": 1}), eph("a.p.x", 1), put("a.k", 2)), "s1")
    assert value(store, "a", 2) == {"k": 2, "p": {"x": 1}}
    after = write(store, rollback("a", 1)).store
    assert whole(after) == {"k": 1}
    after = write(stored(eph("a.x", 1), delete("a")), rollback("a", 0)).commit
    assert after is None


def test_rollback_to_before_the_root_keeps_what_lives() -> None:
    store = stored(put("a", {"k": 1}), delete("a"), eph("a.x", 1))
    assert write(store, rollback("a", 1)).commit is None
    back = write(store, rollback("a", 0)).store
    assert whole(back) == {"k": 1, "x": 1}
    assert marks(back) == ({"a.x": "s1"}, [])


def test_a_lasting_put_below_makes_containers_lasting() -> None:
    store = stored(eph("a.p.q.x", 1), put("a.p.k", 2))
    assert marks(store) == ({"a.p.q.x": "s1"}, ["a.p.q"])
    assert whole(end(store, "s1")) == {"p": {"k": 2}}


@pytest.mark.parametrize("op", [put("a.p", {}), patch("a.p", {})])
def test_a_lasting_put_at_a_born_container_makes_it_lasting(op: Op) -> None:
    store = stored(eph("a.p.q.x", 1))
    made = write(store, op, session="s2")
    assert made.commit is not None
    assert made.commit.updates[0].changes == (Change(("a", "p"), True, {}),)
    assert marks(made.store) == ({"a.p.q.x": "s1"}, ["a.p.q"])
    assert core.lookup(made.store, parse("a.p"))[0] == 1
    assert core.lookup(made.store, parse("a.p.q"))[0] == 0
    assert whole(end(made.store, "s1")) == {"p": {}}


@pytest.mark.parametrize("path", ["a.p.x", "a.p.x.v", "a.p.x.new"])
@pytest.mark.parametrize("ephemeral", [True, False])
def test_only_its_own_session_writes_it(path: str, ephemeral: bool) -> None:
    store = stored(eph("a.p.x", {"v": 1}))
    with pytest.raises(ReadOnly) as info:
        write(store, put(path, 7, ephemeral=ephemeral), session="s2")
    assert info.value.owner == "s1"
    with pytest.raises(ReadOnly):
        write(store, patch("a.p.x", {"v": 2}), session="s2")
    with pytest.raises(ReadOnly):
        write(store, patch("a", {"p": {"x": {"v": 2}}}), session="s2")
    assert write(store, put(path, 7, ephemeral=ephemeral), session="s1").commit is not None


def test_its_own_session_changes_it_in_place() -> None:
    store = stored(eph("a.x", {"v": 1}), patch("a.x", {"w": 2}), put("a.x.v", 3), eph("a.x.u", 4))
    assert whole(store) == {"x": {"v": 3, "w": 2, "u": 4}}
    assert marks(store) == ({"a.x": "s1"}, ["a"])
    made = write(store, patch("a", {"x": {"w": None}}), session="s1")
    assert made.commit is not None
    assert [change for change in made.commit.updates[0].changes if change.path != ("a",)] == [
        Change(("a", "x", "w"), False)
    ]
    store = write(store, put("a.x.v", 4), session="s1").store
    update = core.update_at(store.roots["a"], store.roots["a"].version)
    assert update is not None
    assert update.changes == (Change(("a", "x", "v"), True, 4, "s1"),)
    assert whole(end(store, "s1")) is None


def test_its_own_session_makes_it_lasting() -> None:
    store = stored(eph("a.p.x", {"v": 1}))
    made = write(store, put("a.p.x", {"v": 1}), session="s1")
    assert made.commit is not None
    assert made.commit.updates[0].changes == (Change(("a", "p", "x"), True, {"v": 1}),)
    assert marks(made.store) == ({}, [])
    assert whole(end(made.store, "s1")) == {"p": {"x": {"v": 1}}}
    assert not core.is_ephemeral(made.store, parse("a.p.x"))


def test_an_ephemeral_put_replaces_a_lasting_node() -> None:
    store = stored(put("a", {"x": {"v": 1}, "k": 1}), eph("a.x", {"v": 1}))
    assert marks(store) == ({"a.x": "s1"}, [])
    assert core.lookup(store, parse("a.x"))[0] == 1
    assert core.lookup(store, parse("a.x.v"))[0] == 0
    assert whole(end(store, "s1")) == {"k": 1}


def test_an_ephemeral_put_above_its_own_takes_them_in() -> None:
    store = stored(put("a", {}), eph("a.p.x", 1), eph("a.p", {"y": 2}))
    assert marks(store) == ({"a.p": "s1"}, [])
    assert whole(store) == {"p": {"y": 2}}
    assert set(store.leases["s1"].ephemerals) == {("a", "p")}


def test_an_ephemeral_put_above_those_of_others_is_refused() -> None:
    store = stored(put("a", {}), eph("a.p.x", 1))
    with pytest.raises(ReadOnly, match=r"a\.p\.x belongs to session s1"):
        write(store, eph("a.p", {}), session="s2")


@pytest.mark.parametrize(
    ("op", "left"),
    [
        (delete("a.p.x"), {"k": 1}),
        (delete("a.p"), {"k": 1}),
        (delete("a"), None),
        (delete("a.p.x.v"), {"k": 1, "p": {"x": {}}}),
        (patch("a", {"p": None}), {"k": 1}),
        (patch("a.p", {"x": None}), {"k": 1, "p": {}}),
        (patch("a", {"nothing": None}), {"k": 1, "p": {"x": {"v": 1}}}),
    ],
)
def test_a_delete_is_open_to_all(op: Op, left: Any) -> None:
    store = stored(put("a", {"k": 1}), eph("a.p.x", {"v": 1}))
    made = write(store, op, session="s2").store
    assert whole(made) == left
    assert set(made.leases["s1"].ephemerals) == set(made.roots["a"].ephemerals)
    end(made, "s1")


def test_one_transaction_that_does_it_all() -> None:
    store = stored(put("a", {"k": 1, "p": {}}), eph("a.p.x", 1))
    made = write(
        store,
        delete("a.p"),
        eph("a.p.y", 2),
        put("a.q", {"l": 1}),
        eph("a.q.e", 3),
        eph("a.q.r.e", 4),
        session="s2",
    )
    assert made.commit is not None
    assert made.commit.updates[0].changes == (
        Change(("a", "p"), False),
        Change(("a", "p", "y"), True, 2, "s2"),
        Change(("a", "q"), True, {"l": 1}),
        Change(("a", "q", "e"), True, 3, "s2"),
        Change(("a", "q", "r", "e"), True, 4, "s2"),
    )
    assert marks(made.store) == (
        {"a.p.y": "s2", "a.q.e": "s2", "a.q.r.e": "s2"},
        ["a.p", "a.q.r"],
    )
    assert whole(end(made.store, "s2")) == {"k": 1, "q": {"l": 1}}


def test_many_in_one_container_are_found_either_way() -> None:
    # Fewer marks than nodes: the marks are looked through; else the nodes are.
    store = stored(put("a", {"w": {f"k{i}": 0 for i in range(50)}, "n": {}}), eph("a.w.e", 1))
    for i in range(20):
        store = write(store, eph(f"a.n.e{i}", 1), session="s2").store
    after = write(store, put("a.w", {"k0": 1})).store
    assert value(after, "a.w") == {"k0": 1, "e": 1}
    after = write(after, put("a.n", {})).store
    assert len(value(after, "a.n")) == 20
    assert whole(end(end(after, "s1"), "s2")) == {"w": {"k0": 1}, "n": {}}


def test_ephemeral_is_told_at_any_version() -> None:
    store = end(stored(put("a", {"k": 1}), eph("a.p.x", {"v": 1})), "s1")
    assert core.is_ephemeral(store, parse("a.p.x.v"), 1)
    assert core.is_ephemeral(store, parse("a.p.x"), -1)
    assert not core.is_ephemeral(store, parse("a.p"), 1)
    assert not core.is_ephemeral(store, parse("a.k"), 1)
    assert not core.is_ephemeral(store, parse("a.p.x"))


def test_those_of_an_agent_are_not_in_our_leases() -> None:
    store = core.apply(stored(), Owned("ops", "pi1", ""))
    for update in (
        core.Update("ops", "e", -1, 0, (Change(("ops", "x"), True, 1, "s1"),), 1.0, "pi1"),
        core.Update("ops", "e", 0, 1, (Change(("ops", "y"), True, 1, "far"),), 1.0, "pi1"),
    ):
        store = core.apply(store, core.Replicated(update))
    assert marks(store, "ops") == ({"ops.x": "s1", "ops.y": "far"}, ["ops"])
    assert core.end_session(store, "s1", time=1.0, tega_id="x") is None
    disowned = core.apply(store, Owned("ops", "", "mine"))
    assert disowned.roots["ops"].node is None
    assert marks(disowned, "ops") == ({}, [])
    root = disowned.roots["ops"]
    assert (root.epoch, root.version, root.owner) == ("mine", 2, "")
    assert value(disowned, "ops", 1) == {"x": 1, "y": 1}
    update = core.update_at(root, 2)
    assert update is not None
    assert (update.message, update.epoch, update.changes) == ("disowned", "mine", (Change(("ops",), False),))


def test_reopened_sessions_start_without() -> None:
    store = end(stored(eph("a.x", 1)), "s1")
    store = core.apply(store, Opened("s1", "again", "t", ""))
    assert not store.leases["s1"].ephemerals


def test_a_rollback_takes_away_a_container_that_only_an_ephemeral_node_had_made() -> None:
    store = stored(put("a", {"k": 1}), eph("a.p.q.x", 1), patch("a.p", {"q": {"x": None}}), delete("a.p.q"))
    assert whole(store) == {"k": 1, "p": {}}
    after = write(store, rollback("a", 0)).store
    assert whole(after) == {"k": 1}
