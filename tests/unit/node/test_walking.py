"""Long reads: a little at a time, of one state, within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq.errors import StorageError, TooLarge
from tega_zmq.node import machine, reading, walking
from tega_zmq.wire import messages as m
from tests.unit.node.lab import Lab, Peer

WIDE = {f"k{n:04}": {"v": n} for n in range(3000)}
LONG = r"wide\..*\.v"


@pytest.fixture
def lab() -> Lab:
    lab = Lab()
    lab.join("maker").put("wide", WIDE)
    return lab


def step(lab: Lab) -> None:
    """One pass of the loop."""
    assert machine.next_deadline(lab.node) <= lab.now
    machine.tick(lab.node, lab.now)
    lab.run()


def finish(lab: Lab) -> int:
    """Let all that is being read come to its end; return in how many passes."""
    passes = 0
    while lab.node.walks:
        step(lab)
        passes += 1
    return passes


def start_find(peer: Peer, regex: str = LONG) -> int:
    return peer.start(m.Find, regex, "")


def values_found(answer: Any) -> list[Any]:
    return [value for _, _, value in answer]


def test_a_short_one_is_answered_at_once(lab: Lab) -> None:
    peer = lab.join("noc")
    peer.put("small", {f"k{n}": {"v": n} for n in range(10)})
    assert values_found(peer.ask(m.Find, r"small\.k[12]\.v", "")) == [1, 2]
    assert peer.ask(m.Find, r"nothing\..*", "") == []
    assert peer.get("wide.k0001") == {"v": 1}
    assert not lab.node.walks


def test_others_are_answered_while_a_long_one_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "SLICE", 500)
    peer, other = lab.join("noc"), lab.join("other")
    id = start_find(peer)
    answered = 0
    while lab.node.walks:
        other.put("else.n", answered)
        assert other.get("else.n") == answered
        assert peer.ask(m.Get, ("else",), None, "value", "")[0] == {"n": answered}
        answered += 1
        step(lab)
    assert answered > 10
    assert values_found(peer.answer(id)) == list(range(3000))
    assert machine.next_deadline(lab.node) > lab.now


def test_what_is_done_in_a_pass_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    original = walking._slice

    def watched(walk: walking.Walk) -> Any:
        before = walk.left
        answer = original(walk)
        done.append(before - walk.left)
        return answer

    monkeypatch.setattr(walking, "_slice", watched)
    peers = [lab.join(f"noc{n}") for n in range(6)]
    ids = [start_find(peer) for peer in peers]
    of_begin = len(done)
    passes = finish(lab)
    assert len(done) == of_begin + passes
    assert passes >= 6 * 5
    assert max(done) <= walking.SLICE + 2000
    assert all(len(peer.answer(id)) == 3000 for peer, id in zip(peers, ids, strict=True))


def test_it_reads_the_state_of_when_it_was_asked(lab: Lab) -> None:
    peer, other = lab.join("noc"), lab.join("other")
    id = start_find(peer)
    assert lab.node.walks
    other.delete("wide")
    finish(lab)
    assert values_found(peer.answer(id)) == list(range(3000))
    assert peer.ask(m.Find, LONG, "") == []


def slow_disk() -> tuple[Lab, Peer, int]:
    """A session that reads at length what it wrote, which is not durable yet."""
    lab = Lab(durable=False)
    peer = lab.join("noc")
    lab.sync()
    peer.start(m.Write, (("put", ("wide",), WIDE, None, False),), "", "")
    other = lab.join("other")
    assert other.ask(m.Find, LONG, "") == []
    id = start_find(peer)
    assert lab.node.walks
    return lab, peer, id


def test_a_session_sees_its_own_writes_and_waits_for_them() -> None:
    lab, peer, id = slow_disk()
    finish(lab)
    assert not peer.answered(id)
    lab.sync()
    assert len(peer.answer(id)) == 3000


def test_what_became_durable_meanwhile_is_answered_at_once() -> None:
    lab, peer, id = slow_disk()
    lab.sync()
    lab.join("third").start(m.Write, (("put", ("x",), 1, None, False),), "", "")
    finish(lab)
    assert len(peer.answer(id)) == 3000


def test_what_was_never_durable_is_not_shown() -> None:
    lab, peer, id = slow_disk()
    lab.fail()
    with pytest.raises(StorageError):
        peer.answer(id)
    assert not lab.node.walks


def test_of_what_was_durable_a_failed_log_holds_up_nothing(lab: Lab) -> None:
    peer = lab.join("noc")
    id = start_find(peer)
    lab.fail()
    finish(lab)
    assert len(peer.answer(id)) == 3000


def test_one_that_takes_too_much_says_what_to_do(lab: Lab) -> None:
    peer, maker = lab.join("noc"), lab.join("again")
    for n in range(5):
        maker.put(f"lg{n}", {f"{'a' * 240}{k}": 1 for k in range(300)})
    id = start_find(peer, r"lg.*\.(.*)a(.*)b")
    passes = finish(lab)
    assert passes <= walking.MAX_WALK / walking.SLICE
    with pytest.raises(TooLarge, match="make the regex narrower"):
        peer.answer(id)


def test_too_many_are_refused_but_short_ones_never(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_WALKS", 8)
    peers = [lab.join(f"noc{n}") for n in range(5)]
    ids = [(peer, start_find(peer)) for peer in peers[:4] for _ in range(2)]
    with pytest.raises(TooLarge, match="make the regex narrower"):
        peers[4].ask(m.Find, LONG, "")
    assert peers[4].ask(m.Find, r"nothing\..*", "") == []
    finish(lab)
    assert all(len(peer.answer(id)) == 3000 for peer, id in ids)
    id = start_find(peers[0])
    other = start_find(peers[0])
    with pytest.raises(TooLarge, match="2 of them of noc0"):
        peers[0].ask(m.Find, LONG, "")
    finish(lab)
    assert peers[0].answer(id) == peers[0].answer(other)


def test_a_retry_is_no_second_one(lab: Lab) -> None:
    peer = lab.join("noc")
    id = start_find(peer)
    peer.cut()
    peer.hello()
    peer.tell(m.Find(id, 1, 10_000, LONG, ""))
    assert len(lab.node.walks) == 1
    finish(lab)
    assert len(peer.answer(id)) == 3000
    assert not peer.answered(id)


def test_that_of_a_session_which_is_over_ends(lab: Lab) -> None:
    peer, other = lab.join("noc"), lab.join("other")
    start_find(peer)
    id = start_find(other)
    peer.tell(m.Bye())
    finish(lab)
    assert len(other.answer(id)) == 3000
    assert not peer.take(m.Reply)


def test_long_values_and_differences_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "SLICE", 1000)
    peer = lab.join("noc")
    value = peer.start(m.Get, ("wide",), None, "value", "")
    shown = peer.start(m.Get, ("wide",), 0, "node", "")
    nothing = peer.ask(m.Get, ("wide", "k0001"), None, "value", "")[0]
    peer.put("other", {name: {"v": each["v"] + 1} for name, each in WIDE.items()})
    compared = peer.start(m.Diff, ("wide",), None, ("other",), None)
    assert len(lab.node.walks) == 3
    assert nothing == {"v": 1}
    finish(lab)
    assert peer.answer(value)[0] == WIDE
    assert peer.answer(shown)[:3] == [WIDE, 0, False]
    changes = peer.answer(compared)
    assert len(changes) == 3000
    assert changes[7] == [["k0007", "v"], [7], [8]]


def test_long_listings_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "SLICE", 1000)
    peer = lab.join("noc")
    oids = peer.start(m.Get, ("wide",), None, "oids", "")
    attributes = peer.start(m.Get, ("wide",), None, "attributes", "")
    blamed = peer.start(m.Blame, ("wide",), None)
    assert len(lab.node.walks) == 3
    assert peer.ask(m.Get, ("wide", "k0001"), None, "oids", "") == [["v", False]]
    assert finish(lab) > 20
    assert sorted(peer.answer(oids)) == [[oid, True] for oid in WIDE]
    shown = peer.answer(attributes)[0]
    assert shown["_value"].keys() == WIDE.keys()
    assert shown["_value"]["k0007"]["_value"]["v"]["_parent"] == "wide.k0007"
    told = peer.answer(blamed)
    assert [each[:2] for each in told] == [[["wide", oid, "v"], 0] for oid in WIDE]
    assert {(tega_id, message) for _, _, _, tega_id, message in told} == {("maker", "")}


def test_a_long_blame_is_as_large_as_an_answer_can_be(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = lab.join("noc")
    monkeypatch.setattr(reading, "MAX_ANSWER", 3000 * 50)
    id = peer.start(m.Blame, ("wide",), None)
    finish(lab)
    assert len(peer.answer(id)) == 3000
    for limit in (3000 * 40, 3000 * 45):  # the leaves alone are too many; only with who made them
        monkeypatch.setattr(reading, "MAX_ANSWER", limit)
        id = peer.start(m.Blame, ("wide",), None)
        finish(lab)
        with pytest.raises(TooLarge, match="ask for parts"):
            peer.answer(id)


def test_a_long_value_is_as_large_as_an_answer_can_be(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ANSWER", 10_000)
    peer = lab.join("noc")
    for id in (
        peer.start(m.Get, ("wide",), None, "value", ""),
        start_find(peer, "wide"),
        start_find(peer),
    ):
        finish(lab)
        with pytest.raises(TooLarge, match="10000 bytes"):
            peer.answer(id)


def test_in_a_transaction_it_reads_the_candidate(lab: Lab) -> None:
    peer = lab.join("noc")
    txid = peer.ask(m.Begin)
    peer.ask(m.Write, (("delete", ("wide", "k0000"), None, None, False),), "", txid)
    found = peer.start(m.Find, LONG, txid)
    value = peer.start(m.Get, ("wide",), None, "value", txid)
    finish(lab)
    assert values_found(peer.answer(found)) == list(range(1, 3000))
    assert peer.answer(value)[0] == {name: each for name, each in WIDE.items() if name != "k0000"}
