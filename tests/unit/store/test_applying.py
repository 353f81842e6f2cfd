"""Records: what each does, and those that cannot follow."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import store as core
from tega_zmq.errors import NotFound, StorageError
from tega_zmq.store import (
    ABSENT,
    Change,
    Cleared,
    Commit,
    Ended,
    Kept,
    NewEpochs,
    Opened,
    Owned,
    Record,
    Replicated,
    ResetEnd,
    ResetPart,
    Store,
    Update,
    WentOn,
)
from tega_zmq.tree import plain
from tests.storekit import delete, put, stored, value, write


def followed(*updates: Update, kept: Kept | None = None) -> Store:
    store = core.apply(core.empty(kept or Kept()), Owned("ops", "pi1", ""))
    return core.replay(store, map(Replicated, updates))


def update(after: int, *changes: Change, epoch: str = "e") -> Update:
    return Update("ops", epoch, after - 1, after, changes, 10.0 + after, "pi1", f"m{after}")


def at(path: str, new: Any) -> Change:
    return Change(("ops", *path.split("."))[: None if path else 1], True, new)


FIRST = update(0, Change(("ops",), True, {"x": 1, "c": {"y": 2}}))


def test_a_replica_keeps_its_own_history() -> None:
    store = followed(FIRST, update(1, at("x", 2)), update(2, Change(("ops", "c"), False)))
    root = store.roots["ops"]
    assert (root.owner, root.epoch, root.version, root.last) == ("pi1", "e", 2, (12.0, "pi1", "m2"))
    assert value(store, "ops", 0) == {"x": 1, "c": {"y": 2}}
    assert value(store, "ops", 1) == {"x": 2, "c": {"y": 2}}
    assert value(store, "ops") == {"x": 2}
    assert [found.message for found in core.log(store, ("ops",), 5)] == ["m2", "m1", "m0"]
    assert store.revision == 0


def test_replication_gives_the_owner_s_tree() -> None:
    owner = stored(
        put("ops", {"a": {"b": 1}}), put("ops.a.c", 2), put("ops.t.u", 3, ephemeral=True), delete("ops.a.b")
    )
    root = owner.roots["ops"]
    updates = core.updates_since(root, root.epoch, ABSENT)
    assert updates is not None
    mine = followed(*updates).roots["ops"]
    assert (mine.node, mine.ephemerals, mine.born, mine.trees) == (
        root.node,
        root.ephemerals,
        root.born,
        root.trees,
    )


def test_a_tree_in_parts_starts_the_history_over() -> None:
    store = followed(FIRST, update(1, at("x", 2)))
    node = store.roots["ops"].node
    assert node is not None
    parts = [ResetPart("ops", index == 0, (entry,)) for index, entry in enumerate(core.entries(node, "ops"))]
    for part in parts:
        before = store.roots["ops"]
        store = core.apply(store, part)
        assert store.roots["ops"] is before
    end = ResetEnd("ops", "e2", 9, True, ((("ops", "x"), "s1"), (("ops", "c"), "")), 5.0, "pi1", "again")
    store = core.apply(store, end)
    root = store.roots["ops"]
    assert root.node == node
    assert (root.owner, root.epoch, root.version, root.last) == ("pi1", "e2", 9, (5.0, "pi1", "again"))
    assert (root.oldest, root.oldest_update, len(root.updates), len(root.trees)) == (9, 10, 0, 1)
    assert core.is_ephemeral(store, ("ops", "x"))
    assert set(root.born) == {("ops", "c")}
    assert not store.staged
    assert core.updates_since(root, "e2", 8) is None
    store = core.apply(store, Replicated(update(10, at("x", 5), epoch="e2")))
    assert core.updates_since(store.roots["ops"], "e2", 9) == (update(10, at("x", 5), epoch="e2"),)
    # The other mark stays with its node.
    assert core.ephemeral_entries(store.roots["ops"]) == ((("ops", "c"), ""),)


def test_a_tree_that_begins_anew_drops_what_was_gathered() -> None:
    store = followed()
    store = core.apply(
        store, ResetPart("ops", True, ((("ops",), 0, True, None), (("ops", "old"), 0, False, 1)))
    )
    store = core.apply(
        store, ResetPart("ops", True, ((("ops",), 3, True, None), (("ops", "new"), 3, False, 1)))
    )
    store = core.apply(store, ResetEnd("ops", "e", 3, True, (), 0.0, "", ""))
    assert value(store, "ops") == {"new": 1}
    assert core.lookup(store, ("ops",))[0] == 3


def test_a_deleted_root_needs_no_parts() -> None:
    store = core.apply(followed(FIRST), ResetEnd("ops", "e", 4, False, (), 0.0, "", ""))
    assert core.roots(store) == [("ops", 4, "pi1", False)]
    store = core.apply(store, ResetEnd("ops", "e", ABSENT, False, (), 0.0, "", ""))
    assert core.roots(store) == [("ops", ABSENT, "pi1", False)]
    assert core.apply(store, Replicated(FIRST)).roots["ops"].version == 0


def test_owned_by_another_only_while_empty() -> None:
    for ops in (
        (),
        (put("ops", {}),),
        (put("ops", {"x": 1}), delete("ops")),
        (put("ops.x", 1), delete("ops.x")),
    ):
        store = core.apply(stored(*ops), Owned("ops", "pi1", ""))
        assert store.roots["ops"].owner == "pi1"
    with pytest.raises(StorageError, match="holds data"):
        core.apply(stored(put("ops.x", 1)), Owned("ops", "pi1", ""))


def test_disowned_goes_on_here() -> None:
    store = core.apply(followed(FIRST, update(1, at("x", 2))), Owned("ops", "", "mine"))
    root = store.roots["ops"]
    assert (root.owner, root.epoch, root.version) == ("", "mine", 1)
    made = write(store, put("ops.x", 3, 1))
    assert made.outcome == (1, (("ops", 2),))
    assert value(made.store, "ops", 0) == {"x": 1, "c": {"y": 2}}
    # Who followed the former epoch has to start over; who knows the new one has not.
    new = made.store.roots["ops"]
    assert core.updates_since(new, "e", 1) is None
    assert core.updates_since(new, "mine", 0) is None
    assert len(core.updates_since(new, "mine", 1) or ()) == 1


def test_ownership_may_pass_from_one_to_another() -> None:
    store = core.apply(followed(FIRST), Owned("ops", "pi2", ""))
    assert (store.roots["ops"].owner, value(store, "ops.x")) == ("pi2", 1)


def test_new_epochs() -> None:
    store = stored(put("a", {}), put("b", {}))
    store = core.apply(store, NewEpochs((("a", "n1"), ("b", "n2"))))
    assert [(root.epoch, root.version) for root in (store.roots["a"], store.roots["b"])] == [
        ("n1", 0),
        ("n2", 0),
    ]
    made = write(store, put("a.x", 1))
    assert made.commit is not None
    assert made.commit.updates[0].epoch == "n1"


def test_a_store_knows_the_epochs_that_it_had() -> None:
    first, other = "0" * 32, "1" * 32
    epoch = first
    for each in range(2, 6):
        epoch = core.next_epoch(epoch, f"{each:x}" * 32)
    assert epoch == "0" * 8 + "5" * 16
    root = core.apply(stored(put("a", {})), NewEpochs((("a", epoch),))).roots["a"]
    assert core.had_epoch(root, first)
    assert core.had_epoch(root, core.next_epoch(first, "7" * 32))
    assert not core.had_epoch(root, other)
    assert not core.had_epoch(root, "")
    renamed = core.apply(followed(FIRST), NewEpochs(())).roots["ops"]._replace(epoch=other)
    assert core.had_epoch(renamed, "e"), "of a log from before there were stems: by an update that is kept"


def test_cleared_takes_what_is_ours_and_its_history() -> None:
    store = stored(put("a", {"x": 1}), put("a.e", 1, ephemeral=True))
    store = write(store, put("a.x", 2), session="s1", request=7).store
    store = core.apply(store, Owned("ops", "pi1", ""))
    store = core.apply(core.apply(store, Replicated(FIRST)), Cleared())
    assert core.roots(store) == [("ops", 0, "pi1", True)]
    assert store.revision == 3
    assert core.outcome(store, "s1", 7) == (3, (("a", 2),))
    assert not store.leases["s1"].ephemerals
    made = write(store, put("a.y", 1))
    assert made.outcome == (4, (("a", 0),))
    assert made.store.roots["a"].epoch == "e3"
    core.apply(made.store, Ended("s1"))


def test_a_new_store_goes_on_after_what_its_replicas_know() -> None:
    store = core.apply(stored(), WentOn("ops", "e2", 7))
    assert core.roots(store) == [("ops", 7, "", False)]
    with pytest.raises(NotFound):
        core.lookup(store, ("ops",))
    store = write(store, put("ops.x", 1, ABSENT)).store
    assert (store.roots["ops"].version, store.roots["ops"].epoch) == (8, "e2")
    assert core.load(core.dump(store), Kept()) == store
    assert core.updates_since(store.roots["ops"], "e2", 6) is None
    assert len(core.updates_since(store.roots["ops"], "e2", 7) or ()) == 1
    again = core.apply(stored(put("ops.x", 1, ephemeral=True)), WentOn("ops", "e3", 2))
    assert not again.leases["s1"].ephemerals


def test_an_update_that_stands_alone_crosses_epochs() -> None:
    alone = update(1, Change(("ops",), False), Change(("ops",), True, {"n": 1}), epoch="e2")
    assert core.stands_alone(alone)
    assert not core.stands_alone(FIRST)
    assert not core.stands_alone(update(1))
    store = followed(FIRST, alone)
    assert (value(store, "ops"), store.roots["ops"].epoch) == ({"n": 1}, "e2")
    assert value(store, "ops", 0) == {"x": 1, "c": {"y": 2}}
    assert core.load(core.dump(store), Kept()) == store
    # Also where the replica does not have the root at all.
    gone = update(1, Change(("ops",), False))
    assert followed(FIRST, gone, alone._replace(before=1, after=2)).roots["ops"].version == 2


def test_sessions_open_and_end() -> None:
    store = core.apply(core.empty(), Opened("s1", "noc-1", "secret", "s0"))
    lease = store.leases["s1"]
    assert (lease.session, lease.tega_id, lease.token, lease.via, lease.outcomes) == (
        "s1",
        "noc-1",
        "secret",
        "s0",
        (),
    )
    assert core.apply(store, Ended("s1")) == core.empty()


COMMIT = Commit(2, (Update("a", "e0", 0, 1, (Change(("a", "x"), True, 1),), 1.0, "x"),))


def a_commit(**fields: Any) -> Commit:
    return COMMIT._replace(updates=(COMMIT.updates[0]._replace(**fields),))


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (COMMIT._replace(revision=1), "commit 1 cannot follow revision 1"),
        (COMMIT._replace(revision=3), "commit 3 cannot follow revision 1"),
        (a_commit(epoch="e9"), "in epoch e9 cannot follow epoch e0"),
        (a_commit(before=1, after=2), "from version 1 to 2 cannot follow version 0"),
        (a_commit(after=2), "from version 0 to 2"),
        (a_commit(root="ops"), "which belongs to pi1"),
        (a_commit(root="new"), "cannot follow version -1"),
        (a_commit(changes=(Change(("a", "none"), False),)), r"deletes a\.none, which is not there"),
        (a_commit(changes=(Change(("a", "l", "m"), True, 1),)), r"a\.l is a leaf"),
        (a_commit(changes=(Change(("a", "l", "m"), True, 1, "s1"),)), r"a\.l is a leaf"),
        (Replicated(FIRST._replace(root="a")), "which belongs to this node"),
        (Replicated(FIRST._replace(root="new")), "no known owner"),
        (Replicated(update(5, at("x", 1))), "from version 4 to 5 cannot follow version 0"),
        (Replicated(update(1, at("x", 1), epoch="e9")), "in epoch e9 cannot follow"),
        (ResetPart("a", True, ()), "belongs to this node"),
        (ResetPart("ops", True, ((("ops", "x"), 0, False, 1),)), "before what it stands in"),
        (ResetPart("ops", True, ((("a",), 0, True, None),)), "no part of ops"),
        (ResetPart("ops", True, (((), 0, True, None),)), "no part of ops"),
        (ResetPart("ops", True, ((("ops",), 0, False, 1),)), "a root must be a container"),
        (ResetPart("ops", True, ((("ops",), 0, True, None),) * 2), "came twice"),
        (ResetEnd("ops", "e", 1, True, (), 0.0, "", ""), "ended before it began"),
        (ResetEnd("ops", "e", ABSENT - 1, False, (), 0.0, "", ""), "cannot be at version -2"),
        (ResetEnd("ops", "e", 1, False, ((("ops", "x"), "s"),), 0.0, "", ""), "not in the tree"),
        (ResetEnd("ops", "e", 1, False, (((), "s"),), 0.0, "", ""), "not in the tree"),
        (NewEpochs((("ops", "e"),)), "no root of this node"),
        (NewEpochs((("none", "e"),)), "no root of this node"),
        (WentOn("ops", "e", 1), "belongs to pi1"),
        (Opened("s1", "x", "y", ""), "open already"),
        (Ended("s9"), "is not open"),
        ("nothing", "str is no record"),
    ],
)
def test_records_that_cannot_follow(record: Record, what: str) -> None:
    store = core.apply(stored(put("a", {"l": 1})), Owned("ops", "pi1", ""))
    store = core.apply(store, Replicated(FIRST))
    with pytest.raises(StorageError, match=what):
        core.apply(store, record)


def test_ephemeral_nodes_of_a_tree_cannot_stand_in_one_another() -> None:
    store = followed()
    entries = ((("ops",), 0, True, None), (("ops", "a"), 0, True, None), (("ops", "a", "b"), 0, False, 1))
    store = core.apply(store, ResetPart("ops", True, entries))
    marks = ((("ops", "a"), "s1"), (("ops", "a", "b"), "s2"))
    with pytest.raises(StorageError, match="within another"):
        core.apply(store, ResetEnd("ops", "e", 0, True, marks, 0.0, "", ""))
    with pytest.raises(StorageError, match="not in the tree"):
        core.apply(store, ResetEnd("ops", "e", 0, True, ((("ops", "a", "b"), ""),), 0.0, "", ""))


def test_a_part_below_a_leaf() -> None:
    entries = ((("ops",), 0, True, None), (("ops", "a"), 0, False, 1), (("ops", "a", "b"), 0, False, 1))
    with pytest.raises(StorageError, match="before what it stands in"):
        core.apply(followed(), ResetPart("ops", True, entries))


def test_a_lasting_change_from_elsewhere_that_takes_the_place_of_marked_nodes() -> None:
    store = followed(
        update(0, Change(("ops",), True, {})), update(1, Change(("ops", "p", "x"), True, 1, "far"))
    )
    replaced = core.apply(store, Replicated(update(2, at("p", 5))))
    assert core.ephemeral_entries(replaced.roots["ops"]) == ()
    assert value(replaced, "ops") == {"p": 5}
    kept = core.apply(store, Replicated(update(2, at("p", {"y": 1}))))
    assert core.ephemeral_entries(kept.roots["ops"]) == ((("ops", "p", "x"), "far"),)
    assert value(kept, "ops") == {"p": {"x": 1, "y": 1}}
    node = kept.roots["ops"].node
    assert node is not None
    assert plain(node) == {"p": {"x": 1, "y": 1}}
    found = core.update_at(kept.roots["ops"], 2)
    assert found is not None
    assert found.changes == (at("p", {"y": 1}),)
