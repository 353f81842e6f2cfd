"""Writes: what they make, what they refuse, what they cost."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tega_zmq import store as core
from tega_zmq.errors import (
    Collision,
    Compacted,
    InvalidPath,
    InvalidValue,
    NotFound,
    ReadOnly,
    TooLarge,
)
from tega_zmq.store import ABSENT, MAX_OUTCOMES, Change, Kept, Op, Owned
from tests.storekit import delete, patch, put, rollback, stored, value, write


def test_the_first_commit_makes_version_0() -> None:
    made = write(core.empty(), put("a.b.c", 1), message="why")
    assert made.outcome == (1, (("a", 0),))
    assert made.commit is not None
    (update,) = made.commit.updates
    assert (update.root, update.epoch, update.before, update.after) == ("a", "e0", ABSENT, 0)
    assert (update.time, update.tega_id, update.message, update.backto) == (1000.0, "noc-1", "why", None)
    assert update.changes == (Change(("a",), True, {"b": {"c": 1}}),)
    assert value(made.store, "a") == {"b": {"c": 1}}


def test_versions_stand_at_what_changed_and_above() -> None:
    store = stored(put("a", {"b": {"c": 1}, "d": {}}), put("a.b.c", 2), put("a.e", 3))
    versions = {
        path: core.lookup(store, tuple(path.split(".")))[0] for path in ("a", "a.b", "a.b.c", "a.d", "a.e")
    }
    assert versions == {"a": 2, "a.b": 1, "a.b.c": 1, "a.d": 0, "a.e": 2}


@pytest.mark.parametrize(
    "ops",
    [
        [put("a.b", 1)],
        [put("a", {"b": 1, "c": {}})],
        [patch("a", {"b": 1, "x": None})],
        [patch("a", {})],
        [put("a.b", 2), put("a.b", 1)],
        [put("a.n.m", 2), delete("a.n")],
        [delete("a.b"), put("a.b", 1)],
        [put("z", {"x": 1}), delete("z")],
        [rollback("a", 0)],
        [rollback("a", -0)],
    ],
)
def test_a_write_that_changes_nothing_makes_no_commit(ops: list[Op]) -> None:
    store = stored(put("a", {"b": 1, "c": {}}))
    made = write(store, *ops)
    assert made.commit is None
    assert made.store is store
    root = ops[0].path[0]
    assert made.outcome == (0, ((root, 0 if root == "a" else ABSENT),))
    with pytest.raises(Collision):
        write(store, ops[0]._replace(expected=7), *ops[1:])


def test_values_that_are_equal_in_python_alone_are_changes() -> None:
    store = stored(put("a", {"b": 1}))
    for new in (True, 1.0, "1", [1]):
        assert write(store, put("a.b", new)).commit is not None


def test_expected_versions() -> None:
    store = stored(put("a", {"b": 1}), put("a.c", 1))
    for op in (
        put("a.b", 2, 0),
        put("a.c", 2, 1),
        put("a", {}, 1),
        put("a.d", 1, ABSENT),
        put("n", {}, ABSENT),
    ):
        assert write(store, op).commit is not None
    for op, expected, actual in [
        (put("a.b", 2, 1), 1, 0),
        (put("a.c", 2, ABSENT), "absent", 1),
        (put("a.d", 2, 0), 0, "absent"),
        (put("n", {}, 0), 0, "absent"),
        (delete("a.b", 5), 5, 0),
        (delete("a.x", 5), 5, "absent"),
        (patch("a", {}, 0), 0, 1),
        (rollback("a", 0, 0), 0, 1),
    ]:
        with pytest.raises(Collision) as info:
            write(store, op)
        assert (info.value.expected, info.value.actual) == (expected, actual)
        assert info.value.path == ".".join(op.path)


def test_expected_versions_are_those_before_the_transaction() -> None:
    store = stored(put("a", {"b": 1}))
    made = write(store, put("a.b", 2, 0), put("a.b", 3, 0), put("a.c", 1, ABSENT), put("a.c", 2, ABSENT))
    assert value(made.store, "a") == {"b": 3, "c": 2}
    with pytest.raises(Collision):
        write(store, put("a.c", 1), put("a.c", 2, 1))


def test_a_transaction_is_whole_or_not_at_all() -> None:
    store = stored(put("a", {"b": 1}), put("x", {}))
    made = write(store, put("a.b", 2), put("x.y", {"z": 1}), put("x.y.z", 2), delete("a.b"))
    assert made.outcome == (3, (("a", 1), ("x", 1)))
    assert value(made.store, "a") == {}
    assert value(made.store, "x") == {"y": {"z": 2}}
    assert core.lookup(made.store, ("x", "y", "z"))[0] == 1
    with pytest.raises(NotFound):
        write(store, put("a.b", 2), delete("x.y"))
    assert value(store, "a.b") == 1
    made = write(store, put("x", {}), put("a.b", 5))
    assert made.outcome == (3, (("a", 1),))


def test_deleted_roots_go_on_counting() -> None:
    store = stored(put("a", {"b": 1}), delete("a"))
    assert core.roots(store) == [("a", 1, "", False)]
    with pytest.raises(NotFound):
        write(store, delete("a"))
    store = write(store, put("a.c", 1, ABSENT)).store
    assert core.roots(store) == [("a", 2, "", True)]
    assert store.roots["a"].epoch == "e0"
    assert value(store, "a", 0) == {"b": 1}
    with pytest.raises(NotFound):
        core.lookup(store, ("a",), 1)


def test_rollback_is_an_ordinary_commit() -> None:
    store = stored(put("a", {"b": 1, "k": {}}), put("a.b", 2), put("a.c", 3), delete("a.k"))
    made = write(store, rollback("a", 0))
    assert made.commit is not None
    (update,) = made.commit.updates
    assert update.backto == 0
    assert update.changes == (
        Change(("a", "b"), True, 1),
        Change(("a", "c"), False),
        Change(("a", "k"), True, {}),
    )
    assert value(made.store, "a") == {"b": 1, "k": {}}
    assert core.lookup(made.store, ("a", "b"))[0] == 4
    back = write(made.store, rollback("a", -1)).store
    assert value(back, "a") == value(store, "a")
    assert value(write(store, rollback("a", 2)).store, "a") == value(store, "a", 2)


def test_a_rollback_of_what_never_was_says_so_whatever_version_it_names() -> None:
    for version in (0, -1, "golden", "2000-01-01T00:00:00Z"):
        with pytest.raises(NotFound):
            write(core.empty(), Op("rollback", ("a",), version, None, False))
    with pytest.raises(InvalidValue):
        write(stored(put("a.b", 1)), Op("rollback", ("a",), "golden", None, False))


def test_rollback_to_where_the_root_was_deleted() -> None:
    store = stored(put("a", {"b": 1}), delete("a"), put("a.b", 2))
    made = write(store, rollback("a", 1))
    assert made.store.roots["a"].node is None
    assert value(write(made.store, rollback("a", 0)).store, "a") == {"b": 1}


def test_rollback_reaches_back_without_the_updates_too() -> None:
    store = stored(*[put("a.b", i) for i in range(9)], kept=Kept(versions=5, updates=1))
    root = store.roots["a"]
    assert root.oldest == root.oldest_update == 4
    # As after a catch-up by tree: the version is kept, how it came is not.
    short = store._replace(roots=store.roots.insert("a", root._replace(oldest_update=8)))
    assert value(write(short, rollback("a", 4)).store, "a") == {"b": 4}


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (rollback("a", 6), NotFound),
        (rollback("a", -6), NotFound),
        (rollback("a", 0), Compacted),
        (rollback("a", -5), Compacted),
        (rollback("n", 0), NotFound),
        (rollback("a", "1"), InvalidValue),
        (rollback("a", True), InvalidValue),
        (rollback("a", None), InvalidValue),
        (Op("rollback", ("a", "b"), 1), InvalidPath),
    ],
)
def test_versions_that_cannot_be_restored(op: Op, error: Any) -> None:
    store = stored(*[put("a.b", i) for i in range(6)], kept=Kept(versions=3))
    with pytest.raises(error) as info:
        write(store, op)
    if error is Compacted:
        assert (info.value.root, info.value.oldest) == ("a", 3)
    if error is NotFound:
        assert info.value.version == op.value


@pytest.mark.parametrize(
    ("op", "error", "what"),
    [
        (Op("put", ()), InvalidPath, "empty path"),
        (Op("put", ("a", "")), InvalidPath, "empty"),
        (Op("put", ("a", "_x"), 1), InvalidPath, "reserved"),
        (Op("put", ("a", 5), 1), InvalidPath, "string"),
        (put("a.b.c", 1), InvalidPath, r"a\.b is a leaf"),
        (put("a.b.c", {}), InvalidPath, r"a\.b is a leaf"),
        (patch("a.b.c", {}), InvalidPath, r"a\.b is a leaf"),
        (put("a", 1), InvalidValue, "a root must be a container"),
        (put("a", []), InvalidValue, "a root must be a container"),
        (patch("a", 1), InvalidValue, "a root must be a container"),
        (put("n", None), InvalidValue, "a root must be a container"),
        (put("a.b", math.nan), InvalidValue, r"a\.b: nan is not a finite"),
        (put("a.x", {"y": [1 << 64]}), InvalidValue, r"a\.x\.y"),
        (patch("a.x", {"y": {"_z": 1}}), InvalidPath, r"a\.x\.y\._z"),
        (put("a.x", "y" * 1000), TooLarge, "1003 bytes, more than the 100"),
        (patch("a", {"y": "y" * 1000}), TooLarge, "more than the 100"),
        (delete("a.x"), NotFound, r"no a\.x"),
        (delete("n"), NotFound, "no n"),
        (Op("move", ("a",)), InvalidValue, "no operation 'move'"),
        (Op("delete", ("a",), ephemeral=True), InvalidValue, "only a put"),
        (put("a.x", 1, ephemeral=True), InvalidValue, "needs a session"),
    ],
)
def test_refused_and_nothing_changes(op: Any, error: Any, what: str) -> None:
    store = stored(put("a", {"b": 1}))
    with pytest.raises(error, match=what):
        write(store, op, max_value=100)
    with pytest.raises(error, match=what):
        write(store, put("a.ok", 1), op, max_value=100)
    assert value(store, "a") == {"b": 1}


def test_too_large_has_its_fields() -> None:
    with pytest.raises(TooLarge) as info:
        write(core.empty(), put("a", {"b": "x" * 100}), max_value=50)
    assert (info.value.path, info.value.limit) == ("a", 50)
    assert info.value.size is not None
    assert info.value.size > 100


def test_a_root_of_another_is_read_only() -> None:
    store = core.apply(stored(put("a", {})), Owned("ops-pi1", "pi1", ""))
    for ops in ([put("ops-pi1.x", 1)], [put("a.x", 1), delete("ops-pi1.x")], [rollback("ops-pi1", 0)]):
        with pytest.raises(ReadOnly) as info:
            write(store, *ops)
        assert (info.value.root, info.value.owner) == ("ops-pi1", "pi1")


def test_outcomes_are_found_by_their_requests() -> None:
    store = stored(put("a", {}))
    for request in (3, 5, 9):
        store = write(store, put("a.b", request), session="s1", request=request, ack=2).store
    assert core.outcome(store, "s1", 3) == (2, (("a", 1),))
    assert core.outcome(store, "s1", 9) == (4, (("a", 3),))
    for session, request in (("s1", 4), ("s1", 10), ("s2", 3), ("s9", 3)):
        assert core.outcome(store, session, request) is None
    store = write(store, put("a.b", 0), session="s1", request=10, ack=9).store
    assert [core.outcome(store, "s1", request) is not None for request in (3, 5, 9, 10)] == [
        False,
        False,
        True,
        True,
    ]


def test_outcomes_may_come_out_of_order_and_are_bounded() -> None:
    store = stored(put("a", {}))
    for request in (5, 3, 4, 5):
        store = write(
            store, put("a.b", [request, store.revision]), session="s1", request=request, ack=1
        ).store
    assert [request for request, _ in store.leases["s1"].outcomes] == [3, 4, 5]
    assert core.outcome(store, "s1", 5) == (5, (("a", 4),))
    for request in range(6, 6 + MAX_OUTCOMES):
        store = core.write(
            store,
            [put("a.b", request)],
            time=0.0,
            tega_id="x",
            session="s1",
            request=request,
            fresh=str,
            max_value=9,
        ).store
    assert len(store.leases["s1"].outcomes) == MAX_OUTCOMES
    assert core.outcome(store, "s1", 5) is None
    assert core.outcome(store, "s1", 6) is not None


def test_a_session_that_is_not_open_has_no_outcomes() -> None:
    made = write(stored(put("a", {})), put("a.b", 1), session="gone", request=4)
    assert made.commit is not None
    assert (made.commit.session, made.commit.request) == ("gone", 4)
    assert core.outcome(made.store, "gone", 4) is None


def test_history_is_bounded() -> None:
    store = stored(*[put("a.b", i) for i in range(20)], kept=Kept(versions=3, updates=5))
    root = store.roots["a"]
    assert sorted(root.trees) == [17, 18, 19]
    assert sorted(root.updates) == [15, 16, 17, 18, 19]
    assert (root.oldest, root.oldest_update) == (17, 15)
    one = stored(*[put("a.b", i) for i in range(5)], kept=Kept(versions=0, updates=0)).roots["a"]
    assert sorted(one.trees) == sorted(one.updates) == [4]


def test_a_put_into_a_wide_container_shares_the_rest() -> None:
    store = stored(put("a", {"w": {f"k{i}": i for i in range(2000)}}))
    after = write(store, put("a.w.k7", -1)).store
    before_node, after_node = core.lookup(store, ("a", "w")), core.lookup(after, ("a", "w"))
    changed = [oid for oid in before_node[1] if before_node[1][oid] is not after_node[1][oid]]
    assert changed == ["k7"]


def test_reserved_names_stand_inside_lists_only() -> None:
    assert write(stored(put("a", {})), put("a.b", [{"_x": {"": 1}}])).commit is not None


def test_the_root_that_a_replica_left_behind_keeps_its_epoch() -> None:
    store = core.apply(stored(), Owned("ops", "pi1", ""))
    store = core.apply(store, Owned("ops", "", "mine"))
    store = write(store, put("ops.x", 1)).store
    assert (store.roots["ops"].epoch, store.roots["ops"].version) == ("mine", 0)
