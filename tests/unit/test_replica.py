from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

from tega_zmq import replica, store
from tega_zmq.errors import ProtocolError, TegaError
from tega_zmq.replica import Follower, Serving, Step, serve
from tega_zmq.store import (
    ABSENT,
    Change,
    Kept,
    Op,
    Owned,
    Replicated,
    ResetEnd,
    ResetPart,
    Store,
    Update,
    apply,
    update_to_plain,
)
from tega_zmq.wire import decode, encode
from tega_zmq.wire.messages import Chunk, Pull


class Owner:
    """A root at its owner."""

    def __init__(self, kept: Kept | None = None, epoch: str = "e1") -> None:
        self.store = store.empty(kept or Kept())
        self.epoch = epoch
        self.updates: list[Update] = []
        self.serving: Serving | None = None

    def write(self, *ops: Op, session: str = "") -> Update:
        written = store.write(
            self.store,
            ops,
            time=1.0,
            tega_id="noc",
            session=session,
            fresh=lambda: self.epoch,
            max_value=1 << 30,
        )
        assert written.commit is not None
        self.store = written.store
        self.updates.append(written.commit.updates[0])
        return self.updates[-1]

    def put(self, oid: str, value: Any) -> Update:
        return self.write(Op("put", ("r", oid), value))

    def answer(self, pull: Pull) -> Chunk:
        chunk, self.serving = serve(self.store, pull, self.serving)
        arrived = decode(encode(chunk))
        assert isinstance(arrived, Chunk)
        return arrived

    @property
    def position(self) -> tuple[str, int]:
        root = self.store.roots.get("r")
        return ("", ABSENT) if root is None else (root.epoch, root.version)


class Replica:
    """The follower's end: its store is made of what the follower says, and nothing else."""

    def __init__(self) -> None:
        self.store = apply(store.empty(), Owned("r", "pi1", ""))
        self.follower = Follower("r", "", ABSENT)
        self.done: list[str] = []

    def take(self, step: Step) -> Pull | None:
        for record in step.records:
            self.store = apply(self.store, record)
        if step.done:
            self.done.append(step.done)
        root = self.store.roots["r"]
        assert (root.epoch, root.version) == (self.follower.epoch, self.follower.version)
        return step.pull

    def catch_up(self, owner: Owner, pull: Pull | None) -> int:
        """Pull until nothing is asked for; return how many chunks that took."""
        count = 0
        while pull is not None:
            count += 1
            pull = self.take(self.follower.chunk(owner.answer(pull), 1.0))
        return count

    def equals(self, owner: Owner) -> bool:
        mine, other = self.store.roots["r"], owner.store.roots.get("r")
        if other is None:
            return mine.node is None and mine.version == ABSENT
        return (mine.epoch, mine.version, mine.node) == (other.epoch, other.version, other.node) and sorted(
            mine.ephemerals.items()
        ) == sorted(other.ephemerals.items())


def joined(owner: Owner) -> Replica:
    made = Replica()
    made.catch_up(owner, made.take(made.follower.position(*owner.position, 0.0)))
    assert made.equals(owner)
    return made


def test_updates_in_order_are_applied_at_once() -> None:
    owner = Owner()
    owner.put("a", 0)
    follower = joined(owner)
    for value in range(1, 5):
        assert follower.take(follower.follower.update(owner.put("a", value), 0.0)) is None
        assert follower.follower.in_step
    assert follower.equals(owner)


def test_a_gap_is_pulled_as_deltas_and_what_comes_meanwhile_waits() -> None:
    owner = Owner()
    owner.put("a", 0)
    follower = joined(owner)
    owner.put("a", 1)
    pull = follower.take(follower.follower.update(owner.put("a", 2), 0.0))
    assert pull == Pull("r", "e1", 0, 0)
    answer = owner.answer(pull)
    for value in (3, 4):
        assert follower.take(follower.follower.update(owner.put("a", value), 0.0)) is None, (
            "asked for already"
        )
    assert follower.take(follower.follower.chunk(answer, 0.0)) is None
    assert follower.equals(owner)
    assert follower.done[-1] == "deltas in 1 chunk"


def test_old_and_doubled_updates_change_nothing() -> None:
    owner = Owner()
    owner.put("a", 0)
    owner.put("a", 1)
    follower = joined(owner)
    for update in owner.updates:
        assert follower.follower.update(update, 0.0) == Step()


def test_a_lost_last_update_is_found_by_a_position_and_by_a_beacon() -> None:
    owner = Owner()
    owner.put("a", 0)
    for by in ("position", "beacon"):
        follower = joined(owner)
        owner.put("a", by)
        epoch, version = owner.position
        beacon = Update("r", epoch, version, version, (), 1.0, "")
        step = (
            follower.follower.position(epoch, version, 0.0)
            if by == "position"
            else follower.follower.update(beacon, 0.0)
        )
        assert follower.catch_up(owner, follower.take(step)) == 1
        assert follower.equals(owner)
        assert follower.follower.position(*owner.position, 0.0) == Step()
        assert follower.follower.update(beacon, 0.0) == Step()


def test_past_the_kept_updates_the_tree_comes_in_bounded_chunks() -> None:
    owner = Owner(Kept(5, 5))
    owner.put("a", 0)
    follower = joined(owner)
    for number in range(300):
        owner.write(Op("put", ("r", f"k{number}", "x"), "y" * 500))
    owner.put("big", "z" * 100_000)
    pull = follower.take(follower.follower.position(*owner.position, 0.0))
    sizes = []
    while pull is not None:
        chunk = owner.answer(pull)
        assert chunk.tree
        sizes.append(len(encode(chunk)))
        pull = follower.take(follower.follower.chunk(chunk, 0.0))
    assert follower.equals(owner)
    assert follower.done[-1] == f"tree in {len(sizes)} chunks"
    assert sorted(sizes)[-2] < 2 * replica.CHUNK
    assert 9 < len(sizes) < 20


def test_many_commits_come_in_bounded_chunks_of_deltas() -> None:
    owner = Owner()
    owner.put("a", 0)
    follower = joined(owner)
    for number in range(1, 451):
        owner.put("a", number)
    pull = follower.take(follower.follower.position(*owner.position, 0.0))
    assert follower.catch_up(owner, pull) == 3
    assert follower.equals(owner)
    assert follower.done[-1] == "deltas in 3 chunks"


def test_a_commit_that_fits_no_chunk_is_sent_as_part_of_the_tree() -> None:
    owner = Owner()
    owner.put("a", 0)
    follower = joined(owner)
    owner.write(*(Op("put", ("r", f"k{number}"), "y" * 500_000) for number in range(4)))
    pull = follower.take(follower.follower.position(*owner.position, 0.0))
    assert follower.catch_up(owner, pull) == 5
    assert follower.equals(owner)
    owner.put("b", 1)
    owner.write(*(Op("put", ("r", f"k{number}"), "z" * 500_000) for number in range(4)))
    pull = follower.take(follower.follower.position(*owner.position, 0.0))
    assert pull is not None
    small = owner.answer(pull)
    assert (len(small.updates), small.last) == (1, False)
    follower.catch_up(owner, follower.take(follower.follower.chunk(small, 0.0)))
    assert follower.equals(owner)


def test_another_epoch_starts_over() -> None:
    owner, other = Owner(), Owner(epoch="e2")
    owner.put("a", 0)
    owner.put("a", 1)
    follower = joined(owner)
    first = other.put("b", 0)
    pull = follower.take(follower.follower.update(first, 0.0))
    assert pull == Pull("r", "e1", 1, 0)
    follower.catch_up(other, pull)
    assert follower.equals(other)


def test_deletes_and_clear_reach_the_replica() -> None:
    owner = Owner(Kept(2, 2))
    owner.put("a", 0)
    follower = joined(owner)
    follower.take(follower.follower.update(owner.write(Op("delete", ("r",))), 0.0))
    assert follower.equals(owner)
    for value in range(5):
        owner.put("a", value)
    owner.write(Op("delete", ("r",)))
    follower.catch_up(owner, follower.take(follower.follower.position(*owner.position, 0.0)))
    assert follower.equals(owner)
    assert follower.store.roots["r"].version == 7
    owner.store = apply(owner.store, store.Cleared())
    follower.catch_up(owner, follower.take(follower.follower.position("", ABSENT, 0.0)))
    assert follower.equals(owner)
    assert follower.follower.position("", ABSENT, 0.0) == Step()


def test_ephemeral_nodes_come_with_the_tree() -> None:
    owner = Owner()
    owner.store = apply(owner.store, store.Opened("s1", "noc", "t", ""))
    owner.write(Op("put", ("r", "presence", "noc"), {"since": 1}, None, True), session="s1")
    follower = joined(owner)
    assert dict(follower.store.roots["r"].ephemerals.items()) == {("r", "presence", "noc"): "s1"}
    ended = store.end_session(owner.store, "s1", time=1.0, tega_id="noc")
    assert ended is not None
    owner.store = apply(owner.store, ended)
    assert follower.take(follower.follower.update(ended.updates[0], 0.0)) is None
    assert follower.equals(owner)


def test_parts_of_two_trees_are_never_mixed() -> None:
    owner = Owner(Kept(2, 2))
    for number in range(100):
        owner.put(f"k{number:03}", "y" * 1000)
    follower = Replica()
    pull = follower.take(follower.follower.position(*owner.position, 0.0))
    assert pull is not None
    first = owner.answer(pull)
    pull = follower.take(follower.follower.chunk(first, 0.0))
    # The owner serves anew, from a later version, for a pull that was made again.
    owner.write(Op("delete", ("r", "k000")))
    owner.put("k999", "new")
    again = owner.answer(Pull("r", "", ABSENT, 0))
    assert again.version != first.version
    assert follower.follower.chunk(again, 0.0) == Step(), "a part that is not the next one"
    assert pull is not None
    mixed = owner.answer(pull)
    assert (mixed.cursor, mixed.version) == (1, again.version)
    pull = follower.take(follower.follower.chunk(mixed, 0.0))
    assert pull == Pull("r", "", ABSENT, 0), "begun anew"
    follower.catch_up(owner, pull)
    assert follower.equals(owner)


def test_a_serving_that_was_lost_begins_anew() -> None:
    owner = Owner(Kept(2, 2))
    for number in range(50):
        owner.put(f"k{number}", "y" * 1000)
    follower = Replica()
    pull = follower.take(follower.follower.position(*owner.position, 0.0))
    assert pull is not None
    pull = follower.take(follower.follower.chunk(owner.answer(pull), 0.0))
    owner.serving = None
    assert pull is not None
    assert pull.cursor == 1
    answer = owner.answer(pull)
    assert answer.cursor == 0
    assert follower.follower.chunk(answer, 0.0) == Step()
    assert follower.follower.position(*owner.position, 5.0) == Step(), "patience"
    pull = follower.take(follower.follower.position(*owner.position, 20.0))
    follower.catch_up(owner, pull)
    assert follower.equals(owner)


def test_what_comes_after_a_cut_is_asked_for_anew() -> None:
    owner = Owner()
    owner.put("a", 0)
    follower = joined(owner)
    owner.put("a", 1)
    pull = follower.take(follower.follower.update(owner.put("a", 2), 0.0))
    assert pull is not None
    late = owner.answer(pull)
    follower.follower.disconnected()
    assert follower.follower.chunk(late, 0.0) == Step()
    assert follower.follower.version == 0
    follower.catch_up(owner, follower.take(follower.follower.position(*owner.position, 0.0)))
    assert follower.equals(owner)


def test_within_an_epoch_a_tree_does_not_lead_back() -> None:
    owner = Owner()
    for value in range(5):
        owner.put("a", value)
    follower = joined(owner)
    follower.follower.pull(0.0)
    old = Chunk("r", "e1", 2, 0, True, (), True, False, (), (), 1.0, "", "")
    assert follower.follower.chunk(old, 0.0) == Step()
    assert follower.equals(owner)


def test_a_chunk_that_leads_nowhere_is_not_asked_for_again() -> None:
    owner = Owner()
    owner.put("a", 0)
    follower = joined(owner)
    follower.follower.pull(0.0)
    empty = Chunk("r", "e1", 9, 0, False, (), False, True, (), (), 1.0, "", "")
    assert follower.follower.chunk(empty, 0.0) == Step()


def test_the_buffer_is_bounded() -> None:
    follower = Follower("r", "e1", 0)
    follower.pull(0.0)
    for version in range(2, 3000):
        follower.update(
            Update("r", "e1", version, version + 1, (Change(("r", "a"), True, 1),), 1.0, "x"), 0.0
        )
    assert len(follower._buffer) == 1000
    follower.disconnected()
    big = (Change(("r", "a"), True, "x" * (1 << 20)),)
    for version in range(2, 20):
        follower.update(Update("r", "e1", version, version + 1, big, 1.0, "x"), 0.0)
    assert len(follower._buffer) == 3


def tree(**fields: Any) -> Chunk:
    chunk = Chunk("r", "e2", 3, 0, True, (), True, True, ((("r",), 3, True, None),), (), 1.0, "noc", "")
    return chunk._replace(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"entries": ((("other",), 3, True, None),)},
        {"entries": ((("r", "_x"), 3, False, 1),)},
        {"entries": ((("r", ""), 3, False, 1),)},
        {"entries": ((("r", "a"), -2, False, 1),)},
        {"entries": ((("r", "a"), 3, False, {"a": 1}),)},
        {"entries": ((("r", "a"), 3, True, 1),)},
        {"entries": ((("r", "a"), 3, False, float("nan")),)},
        {"entries": ((("r", "a"), 3, False, b"x"),)},
        {"ephemerals": ((("other", "a"), "s1"),)},
        {"ephemerals": ((("r", "a"), "s" * 300),)},
        {"epoch": "e" * 300},
        {"tega_id": "e" * 300},
        {"message": "e" * 1001},
        {"version": -2},
        {"tree": False, "updates": (("r", "e1"),)},
        {"tree": False, "updates": (("r", "e1", 0, 1, [[["_x"], 1]], 1.0, "x", "", None),)},
    ],
)
def test_malformed_chunks_are_refused_and_change_nothing(fields: dict[str, Any]) -> None:
    follower = Follower("r", "e1", 0)
    follower.pull(0.0)
    with pytest.raises(ProtocolError):
        follower.chunk(tree(**fields), 0.0)
    assert (follower.epoch, follower.version) == ("e1", 0)
    step = follower.chunk(tree(), 0.0)
    assert [type(record) for record in step.records] == [ResetPart, ResetEnd]


def test_updates_of_other_roots_or_out_of_order_in_a_chunk_are_left_out() -> None:
    follower = Follower("r", "e1", 0)
    follower.pull(0.0)
    change = (Change(("r", "a"), True, 1),)
    updates = [
        Update("other", "e1", 0, 1, (Change(("other", "a"), True, 1),), 1.0, "x"),
        Update("r", "e2", 0, 1, change, 1.0, "x"),
        Update("r", "e1", 1, 2, change, 1.0, "x"),
        Update("r", "e1", 0, 1, change, 1.0, "x"),
    ]
    chunk = tree(
        tree=False, epoch="e1", entries=(), updates=tuple(tuple(update_to_plain(u)) for u in updates)
    )
    step = follower.chunk(chunk, 0.0)
    assert step.records == (Replicated(updates[3]),)
    assert follower.version == 1


def test_a_root_that_is_not_there_is_served_as_that() -> None:
    chunk, serving = serve(store.empty(), Pull("r", "e1", 4, 0), None)
    assert serving is None
    assert (chunk.tree, chunk.present, chunk.last, chunk.version, chunk.epoch) == (
        True,
        False,
        True,
        ABSENT,
        "",
    )


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_lost_or_reordered_the_replica_arrives(seed: int) -> None:
    rng = random.Random(seed)
    owner = Owner(Kept(3, rng.choice([3, 8, 50])))
    follower = Replica()
    updates: deque[Update] = deque()
    pulls: deque[Pull] = deque()
    chunks: deque[Chunk] = deque()
    now = 0.0

    def send(pull: Pull | None) -> None:
        if pull is not None and rng.random() < 0.8:
            pulls.append(pull)

    for _ in range(400):
        now += rng.random()
        what = rng.random()
        if what < 0.35:
            if rng.random() < 0.05 and owner.position[1] >= 0:
                owner.epoch += "x"
                owner.store = apply(owner.store, store.NewEpochs((("r", owner.epoch),)))
            try:
                update = owner.write(
                    rng.choice([Op("delete", ("r",)), Op("put", ("r", rng.choice("abc")), rng.random())])
                )
            except TegaError:
                continue
            if rng.random() < 0.7:
                updates.append(update)
        elif what < 0.6 and updates:
            if rng.random() < 0.2:
                updates.rotate(1)
            send(follower.take(follower.follower.update(updates.popleft(), now)))
        elif what < 0.75 and pulls:
            chunks.append(owner.answer(pulls.popleft()))
        elif what < 0.9 and chunks:
            send(follower.take(follower.follower.chunk(chunks.popleft(), now)))
        elif what < 0.95:
            send(follower.take(follower.follower.position(*owner.position, now)))
        elif what < 0.97:
            follower.follower.disconnected()
            updates.clear()
            pulls.clear()
            chunks.clear()
            owner.serving = None
        root: Store = follower.store
        assert root.roots["r"].version == follower.follower.version
    follower.follower.disconnected()
    follower.catch_up(owner, follower.take(follower.follower.position(*owner.position, now)))
    assert follower.equals(owner) or owner.position == ("", ABSENT)
