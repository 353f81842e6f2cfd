"""Versions by number, tag and time; what the node let go of is read by the program, and then used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tega_zmq import errors, store
from tega_zmq.node import Settings, machine, past, watching
from tega_zmq.node.effects import CommitsAt, ReadHistory, SpansOf, TreeAt, UpdatesAt, VersionAt
from tega_zmq.store import Gap, Kept
from tega_zmq.wire import messages as m
from tests.unit.node.lab import Lab, Peer

EPOCH = 1_700_000_000.0


class Deep(Lab):
    """A node that keeps three versions in memory, beside a disk that keeps all, but those that are lost."""

    def __init__(self) -> None:
        super().__init__(Settings("broker", history=True), state=store.empty(Kept(3, 3)))
        self.lost: set[int] = set()
        """Versions that cannot be read."""

    def read(self, failure: Exception | None = None) -> int:
        """Carry out all `ReadHistory`; return how many there were."""
        count = 0
        while self.other:
            effect = self.other.pop(0)
            assert isinstance(effect, ReadHistory)
            count += 1
            try:
                result = failure if failure is not None else self.look_up(effect.want)
            except errors.TegaError as error:
                result = error
            machine.history_read(self.node, effect.number, result, self.now)
            self.run()
        return count

    def look_up(self, want: Any) -> Any:
        whole = store.replay(store.empty(Kept(10_000, 10_000)), self.disk)
        if isinstance(want, SpansOf):
            return {name: self.spans(root) for name, root in whole.roots.items() if want.root in ("", name)}
        root = whole.roots[want.root]
        assert root.epoch == want.epoch
        if isinstance(want, TreeAt):
            if want.version in self.lost:
                raise errors.StorageError(f"version {want.version} is missing")
            return root.trees[want.version]
        if isinstance(want, VersionAt):
            fit = [v for v in range(want.before) if root.updates[v][3] <= want.time]
            return fit[-1] if fit else store.ABSENT
        if isinstance(want, UpdatesAt):
            found = store.log(whole, want.path, want.limit, before=want.before, since=want.since, by=want.by)
            return [Gap(u.after, u.after, "gone") if u.after in self.lost else u for u in found]
        assert isinstance(want, CommitsAt)
        return {v: root.updates[v][3:6] for v in want.versions}

    def spans(self, root: store.Root) -> list[tuple[int, int]]:
        """Of each run of versions that are not lost the first one, whose tree is there, and the last."""
        found: list[tuple[int, int]] = []
        for version in range(root.version + 1):
            if version not in self.lost:
                goes_on = bool(found) and found[-1][1] == version - 1
                found[-1:] = [(found[-1][0], version)] if goes_on else [*found[-1:], (version, version)]
        return found


@pytest.fixture
def lab() -> Deep:
    return Deep()


@pytest.fixture
def peer(lab: Deep) -> Peer:
    peer = lab.join("noc")
    for n in range(10):
        lab.now += 60
        peer.put("a.n", n)
    return peer


def ask(lab: Deep, peer: Peer, cls: type[Any], *fields: Any) -> Any:
    number = peer.start(cls, *fields)
    lab.read()
    return peer.answer(number)


def get(lab: Deep, peer: Peer, version: Any) -> Any:
    return ask(lab, peer, m.Get, ("a", "n"), version, "value", "")[0]


def time(lab: Deep, back: float) -> str:
    moment = datetime.fromtimestamp(EPOCH + lab.now - back, UTC)
    return moment.replace(tzinfo=None).isoformat() + "Z"


def test_any_version_is_read(lab: Deep, peer: Peer) -> None:
    assert [get(lab, peer, version) for version in range(10)] == list(range(10))
    assert [get(lab, peer, -back) for back in range(1, 10)] == list(range(8, -1, -1))
    with pytest.raises(errors.NotFound):
        get(lab, peer, 10)


def test_a_tag_and_a_time_stand_for_a_version(lab: Deep, peer: Peer) -> None:
    assert ask(lab, peer, m.Tag, "a", 2, "golden") == 2
    assert ask(lab, peer, m.Tag, "a", "golden", "also") == 2
    assert ask(lab, peer, m.Tag, "a", None, "now") == 9
    assert get(lab, peer, "golden") == 2
    tags = peer.ask(m.Inspect, "tags")
    assert [(each["tag"], each["version"]) for each in tags] == [("also", 2), ("golden", 2), ("now", 9)]
    assert ask(lab, peer, m.Untag, "a", "golden") == 2
    for wrong in ("golden", "unknown"):
        with pytest.raises(errors.NotFound, match="no tag"):
            get(lab, peer, wrong)
    with pytest.raises(errors.NotFound):
        ask(lab, peer, m.Untag, "a", "golden")
    assert [get(lab, peer, time(lab, back)) for back in (0, 59, 61, 300, 301)] == [9, 8, 7, 4, 3]
    with pytest.raises(errors.NotFound, match="no version yet"):
        get(lab, peer, time(lab, 100_000))
    with pytest.raises(errors.InvalidValue):
        get(lab, peer, "2026-11-20")
    with pytest.raises(errors.InvalidValue):
        ask(lab, peer, m.Tag, "a", 2, "7th")


def test_tags_last(lab: Deep, peer: Peer) -> None:
    ask(lab, peer, m.Tag, "a", 2, "golden")
    peer.put("a.n", 10)
    assert dict(lab.node.durable.roots["a"].tags) == {"golden": 2}
    again = store.load(store.dump(lab.node.durable), Kept(3, 3))
    assert again == lab.node.durable
    assert store.replay(store.empty(Kept(3, 3)), lab.disk).roots["a"].tags == again.roots["a"].tags


def test_versions_on_the_disk_are_compared_and_blamed(lab: Deep, peer: Peer) -> None:
    assert ask(lab, peer, m.Diff, ("a",), 1, ("a",), 8) == [[["n"], [1], [8]]]
    assert ask(lab, peer, m.Diff, ("a",), 1, ("a",), None) == [[["n"], [1], [9]]]
    peer.put("b.n", 5)
    assert ask(lab, peer, m.Diff, ("a",), 1, ("b",), None) == [[["n"], [1], [5]]]
    for n in range(4):
        peer.put("a.m", n)
    first, second = ask(lab, peer, m.Blame, ("a",), None)
    assert first[:2] == [["a", "m"], 13] and second[:2] == [["a", "n"], 9]
    assert second[3:] == ["noc", ""] and second[2] == EPOCH + lab.now
    assert ask(lab, peer, m.Blame, ("a", "n"), 4)[0][1] == 4


def test_a_long_blame_waits_for_the_disk_and_looks_at_the_leaves_once(
    lab: Deep, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.put("a.wide", {f"k{n:04}": n for n in range(3000)})
    for n in range(20):
        peer.put("a.n", n)
    walks: list[Any] = []
    blame = store.blame
    monkeypatch.setattr(store, "blame", lambda *asked: walks.append(asked) or blame(*asked))
    id = peer.start(m.Blame, ("a",), None)
    assert lab.node.walks
    while lab.node.walks:
        machine.tick(lab.node, lab.now)
        peer.put("a.n", -1)  # what is told is what was asked for, and not what came since
    assert lab.read() == 1
    assert not peer.answered(id)
    while lab.node.walks:
        machine.tick(lab.node, lab.now)
        peer.put("a.n", -2)
    told = peer.answer(id)
    assert len(walks) == 1
    assert told[0][:2] == [["a", "n"], 30]
    assert [each[:2] for each in told[1:]] == [[["a", "wide", f"k{n:04}"], 10] for n in range(3000)]
    assert {each[3] for each in told} == {"noc"}

    id = peer.start(m.Blame, ("a",), None)
    while lab.node.walks:
        machine.tick(lab.node, lab.now)
    monkeypatch.setattr(past, "MAX_ASKED", 0)
    ids = [id, peer.start(m.Blame, ("a",), None)]
    lab.read(errors.StorageError("the disk is broken"))
    while lab.node.walks:
        machine.tick(lab.node, lab.now)
    lab.run()
    with pytest.raises(errors.StorageError, match="broken"):
        peer.answer(ids[0])
    with pytest.raises(errors.TooLarge, match="wait for history"):
        peer.answer(ids[1])


def test_the_log_goes_on_on_the_disk(lab: Deep, peer: Peer) -> None:
    def versions(*more: Any) -> list[int]:
        return [each[0] for each in ask(lab, peer, m.Log, ("a",), *more)]

    assert versions(20, None, None, "") == list(range(9, -1, -1))
    assert versions(5, None, None, "") == [9, 8, 7, 6, 5]
    assert versions(2, 3, None, "") == [2, 1]
    assert versions(20, 9, EPOCH + lab.now - 240, "") == [8, 7, 6, 5]
    assert versions(20, None, None, "other") == []
    assert versions(20, None, None, "noc") == list(range(9, -1, -1))


def test_a_rollback_to_a_version_on_the_disk_and_back(lab: Deep, peer: Peer) -> None:
    ask(lab, peer, m.Tag, "a", 2, "golden")
    ask(lab, peer, m.Write, (("rollback", ("a",), "golden", None, False),), "", "")
    assert get(lab, peer, None) == 2
    assert lab.node.durable.roots["a"].version == 10
    ask(lab, peer, m.Write, (("rollback", ("a",), -1, None, False),), "", "")
    assert get(lab, peer, None) == 9
    txid = peer.ask(m.Begin)
    ask(lab, peer, m.Write, (("rollback", ("a",), 1, None, False),), "", txid)
    ask(lab, peer, m.CommitTransaction, txid, "back")
    assert get(lab, peer, None) == 1
    with pytest.raises(errors.NotFound):
        ask(lab, peer, m.Write, (("rollback", ("a",), "unknown", None, False),), "", "")


def test_later_writes_wait_behind_a_rollback_that_reads_the_disk(lab: Deep, peer: Peer) -> None:
    first = peer.start(m.Write, (("rollback", ("a",), 1, None, False),), "", "")
    second = peer.start(m.Write, (("put", ("a", "x"), 1, None, False),), "", "")
    other = lab.join("other")
    other.put("b.x", 1)
    assert not peer.answered(first) and not peer.answered(second)
    assert lab.read() == 1
    assert peer.answer(first)[1] == [["a", 10]] and peer.answer(second)[1] == [["a", 11]]


def test_what_cannot_be_read_is_said(lab: Deep, peer: Peer) -> None:
    number = peer.start(m.Get, ("a", "n"), 1, "value", "")
    lab.read(errors.StorageError("history/x at byte 7: damaged"))
    with pytest.raises(errors.StorageError, match="byte 7"):
        peer.answer(number)
    number = peer.start(m.Get, ("a", "n"), 1, "value", "")
    lab.read(ValueError("odd"))
    with pytest.raises(errors.StorageError, match="odd"):
        peer.answer(number)
    assert get(lab, peer, 1) == 1


def test_a_session_that_ends_while_the_disk_is_read(lab: Deep, peer: Peer) -> None:
    peer.start(m.Write, (("rollback", ("a",), 1, None, False),), "", "")
    peer.start(m.Write, (("put", ("a", "x"), 1, None, False),), "", "")
    peer.tell(m.Bye())
    lab.read()
    assert lab.node.durable.roots["a"].version == 9
    assert not lab.node.asked and not lab.node.behind


def test_without_a_history_on_the_disk() -> None:
    lab = Lab(state=store.empty(Kept(3, 3)))
    peer = lab.join("noc")
    for n in range(10):
        peer.put("a.n", n)
    with pytest.raises(errors.Compacted):
        peer.ask(m.Get, ("a",), 1, "value", "")
    with pytest.raises(errors.Compacted):
        peer.ask(m.Tag, "a", 1, "golden")
    assert [each[0] for each in peer.ask(m.Log, ("a",), 20, None, None, "")] == [9, 8, 7]
    assert [each["readable"] for each in peer.ask(m.Inspect, "old")] == [[[7, 9]]]
    assert peer.ask(m.Blame, ("a",), None) == [[["a", "n"], 9, EPOCH + lab.now, "noc", ""]]


# -- subscriptions that begin in the past ------------------------------------------------------------


def begin(lab: Deep, peer: Peer, *since: tuple[str, str, int], failure: Exception | None = None) -> Any:
    number = peer.start(m.Subscribe, 1, ("a", "n"), "local", since)
    lab.read(failure)
    return peer.answer(number)


def told(peer: Peer) -> list[tuple[Any, ...]]:
    """(previous, version, old, new) of each change; () for a value that was not told."""
    found = []
    for each in peer.take(m.Changed):
        ((path, old, new, _),) = each.changes
        assert path == ("a", "n")
        found.append((each.previous, each.version, *old, *new) if not each.reset else ("reset", *new))
    return found


def epoch(lab: Deep) -> str:
    return lab.node.durable.roots["a"].epoch


@pytest.mark.parametrize("first", [0, 2, 7, 8])
def test_a_subscription_begins_at_a_version(lab: Deep, peer: Peer, first: int) -> None:
    assert begin(lab, peer, ("a", "@", first)) == [["a", epoch(lab), first]]
    assert told(peer) == [(n - 1, n, n - 1, n) for n in range(first + 1, 10)]
    peer.put("a.n", 10)
    assert told(peer) == [(9, 10, 9, 10)]


def test_a_subscription_begins_at_a_tag_or_a_time_or_counts_back(lab: Deep, peer: Peer) -> None:
    ask(lab, peer, m.Tag, "a", 4, "golden")
    for text, number in (("@golden", 0), ("@" + time(lab, 301), 0), ("@", -5)):
        answer = begin(lab, peer, ("a", text, number))
        first = answer[0][2]
        assert first in (3, 4)
        assert told(peer) == [(n - 1, n, n - 1, n) for n in range(first + 1, 10)]
    assert begin(lab, peer, ("a", "@", 9)) == [["a", epoch(lab), 9]]
    assert told(peer) == []


def test_much_of_the_past_is_told_in_pieces(lab: Deep, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PIECE", 3)
    heard = []
    answer = begin(lab, peer, ("a", "@", 0))
    while len(answer) == 2:
        heard += told(peer)
        if len(heard) == 3:
            peer.put("a.n", 10)  # is told in its turn
        assert told(peer) == []
        answer = begin(lab, peer, tuple(answer[1]))
    heard += told(peer)
    assert heard == [(n - 1, n, n - 1, n) for n in range(1, 11)]
    peer.put("a.n", 11)
    assert told(peer) == [(10, 11, 10, 11)]


def test_what_the_past_lacks_is_said(lab: Deep, peer: Peer) -> None:
    gone = errors.Compacted("gone", root="a", version=0, oldest=4)
    with pytest.raises(errors.Compacted) as caught:
        begin(lab, peer, ("a", "@", 0), failure=gone)
    assert caught.value.oldest == 4
    with pytest.raises(errors.NotFound):
        begin(lab, peer, ("a", "@", 10))
    with pytest.raises(errors.NotFound, match="no tag"):
        begin(lab, peer, ("a", "@golden", 0))
    for wrong in ((("b", "@", 0),), (("a", "@", 0), ("b", "@", 0))):
        with pytest.raises(errors.InvalidValue, match="path lies in"):
            begin(lab, peer, *wrong)
    with pytest.raises(errors.InvalidValue):
        peer.ask(m.SubscribeRegex, 2, "a", "local", (("a", "@", 0),))
    assert told(peer) == []
    assert peer.ask(m.Inspect, "subscribers") == {}


def test_a_gap_in_the_past_is_said_before_anything_is_told(lab: Deep, peer: Peer) -> None:
    lab.lost = {2, 4}
    for first in range(5):
        with pytest.raises(errors.Compacted, match="from version 5 on all are there") as caught:
            begin(lab, peer, ("a", "@", first))
        assert (caught.value.version, caught.value.oldest) == (first, 5)
    assert told(peer) == []
    assert peer.ask(m.Inspect, "subscribers") == {}
    assert begin(lab, peer, ("a", "@", 5)) == [["a", epoch(lab), 5]]
    assert told(peer) == [(n - 1, n, n - 1, n) for n in range(6, 10)]
    begin(lab, peer, ("a", epoch(lab), 3))  # who comes back is told the present
    assert told(peer) == [("reset", 9)]


def test_what_leaves_the_memory_while_the_disk_is_looked_through_is_no_gap(lab: Deep, peer: Peer) -> None:
    number = peer.start(m.Subscribe, 1, ("a", "n"), "local", (("a", "@", 2),))
    listing = peer.start(m.Inspect, "old")
    spans = {"a": [(0, 9)]}
    for n in range(10, 20):
        lab.join("other").put("a.n", n)
    for _ in range(2):
        effect = lab.other.pop(0)
        assert isinstance(effect, ReadHistory) and isinstance(effect.want, SpansOf)
        machine.history_read(lab.node, effect.number, spans, lab.now)
    lab.run()
    lab.read()
    assert peer.answer(number) == [["a", epoch(lab), 2]]
    assert told(peer) == [(n - 1, n, n - 1, n) for n in range(3, 20)]
    assert peer.answer(listing)[0]["readable"] == [[0, 19]]


def test_a_gap_that_arises_while_the_past_is_told(
    lab: Deep, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PIECE", 3)
    answer = begin(lab, peer, ("a", "@", 0))
    lab.lost = {3, 4}
    with pytest.raises(errors.Compacted, match="from version 5 on"):
        begin(lab, peer, tuple(answer[1]))


def test_the_log_tells_of_gaps(lab: Deep, peer: Peer) -> None:
    lab.lost = {4}
    found = ask(lab, peer, m.Log, ("a",), 20, None, None, "")
    assert [each[0] for each in found] == list(range(9, -1, -1))
    assert [each for each in found if len(each) == 3] == [[4, 4, "gone"]]
    number = peer.start(m.Log, ("a",), 20, None, None, "noc")
    lab.read(errors.StorageError("history/x cannot be read"))
    found = peer.answer(number)
    assert [each[0] for each in found[:-1]] == [9, 8, 7]
    assert found[-1] == [0, 6, "history/x cannot be read"]


def test_what_can_be_read_is_listed(lab: Deep, peer: Peer) -> None:
    peer.put("b.n", 1)
    (a, b) = ask(lab, peer, m.Inspect, "old")
    assert (a["versions"], a["readable"]) == ([7, 9], [[0, 9]])
    assert (b["versions"], b["readable"]) == ([0, 0], [[0, 0]])
    lab.lost = {0, 4, 7}
    (a, _) = ask(lab, peer, m.Inspect, "old")
    assert a["readable"] == [[1, 3], [5, 6], [7, 9]]  # what is in memory can be read
    number = peer.start(m.Inspect, "old")
    lab.read(errors.StorageError("no disk"))
    assert [each["readable"] for each in peer.answer(number)] == [[[7, 9]], [[0, 0]]]


def test_who_comes_back_is_told_from_the_disk_each_commit(lab: Deep, peer: Peer) -> None:
    assert begin(lab, peer, ("a", epoch(lab), 3)) == [["a", epoch(lab), 3]]
    assert told(peer) == [(n - 1, n, n - 1, n) for n in range(4, 10)]
    begin(lab, peer, ("a", epoch(lab), 3), failure=errors.Compacted("gone", root="a"))
    assert told(peer) == [("reset", 9)]
    begin(lab, peer, ("a", "of another life", 3))
    assert told(peer) == [("reset", 9)]


@pytest.mark.parametrize("first", ["@", ""])
def test_who_follows_what_is_quiet_is_told_nothing(lab: Deep, peer: Peer, first: str) -> None:
    for n in range(10):
        peer.put("a.m", n)
    number = peer.start(m.Subscribe, 1, ("a", "n"), "local", (("a", first or epoch(lab), 9),))
    lab.read()
    assert peer.answer(number) == [["a", epoch(lab), 9]]
    assert told(peer) == []
    peer.put("a.n", 10)
    assert told(peer) == [(9, 20, 9, 10)]


def test_who_follows_from_before_the_first_is_told_all(lab: Deep, peer: Peer) -> None:
    assert begin(lab, peer, ("a", epoch(lab), -1)) == [["a", epoch(lab), -1]]
    assert told(peer) == [(-1, 0, 0)] + [(n - 1, n, n - 1, n) for n in range(1, 10)]
    lab.lost = {0}
    begin(lab, peer, ("a", epoch(lab), -1))
    assert told(peer) == [("reset", 9)]
    peer.put("b.n", 1)
    peer.ask(m.Subscribe, 2, ("b", "n"), "local", (("b", lab.node.durable.roots["b"].epoch, -1),))
    assert [each.version for each in peer.take(m.Changed)] == [0]


def test_without_a_history_on_the_disk_the_oldest_version_in_memory_is_named() -> None:
    lab = Lab(state=store.empty(Kept(3, 3)))
    peer = lab.join("noc")
    for n in range(10):
        peer.put("a.n", n)
    with pytest.raises(errors.Compacted) as caught:
        peer.ask(m.Subscribe, 1, ("a",), "local", (("a", "@", 6),))
    assert caught.value.oldest == 7
    peer.ask(m.Subscribe, 1, ("a",), "local", (("a", "@", 7),))
    assert [each.version for each in peer.take(m.Changed)] == [8, 9]
