"""Transactions for people: check, several at once, expiry with a word to the owner, restarts."""

from __future__ import annotations

import pytest

from tega_zmq import errors
from tega_zmq.wire import messages as m
from tests.unit.node.lab import Lab, Peer


def op(path: str, value: object, expected: int | None = None) -> tuple[object, ...]:
    return ("put", tuple(path.split(".")), value, expected, False)


def add(peer: Peer, txid: str, *ops: tuple[object, ...]) -> None:
    peer.ask(m.Write, ops, "", txid)


def wait(lab: Lab, seconds: float, *peers: Peer) -> None:
    """Let time pass; `peers` show that they are there."""
    until = lab.now + seconds
    while lab.now < until:
        lab.wait(min(4.0, until - lab.now))
        for peer in peers:
            peer.tell(m.Heartbeat(()))


def codes(problems: list[tuple[str, str, dict[str, object]]]) -> list[str]:
    return [problem[0] for problem in problems]


def test_check_lists_every_collision_and_changes_nothing() -> None:
    lab = Lab()
    peer = lab.join("noc")
    peer.put("a.x", 1)
    peer.put("a.y", 1)
    txid = peer.ask(m.Begin)
    add(peer, txid, op("a.x", 2, 0), op("a.y", 2, 1), op("a.z", 2, -1), op("b.new", 1, -1))
    assert peer.ask(m.Check, txid, ()) == []
    peer.put("a.x", 5)
    peer.put("a.z", 5)
    problems = peer.ask(m.Check, txid, ())
    assert codes(problems) == ["Collision", "Collision"]
    assert [each[2]["path"] for each in problems] == ["a.x", "a.z"]
    assert peer.get("a") == {"x": 5, "y": 1, "z": 5}
    with pytest.raises(errors.Collision):
        peer.ask(m.CommitTransaction, txid, "")


def test_check_names_what_is_no_collision_too() -> None:
    lab = Lab()
    peer = lab.join("noc")
    peer.put("a.x.y", 1)
    txid = peer.ask(m.Begin)
    add(peer, txid, ("delete", ("a", "x"), None, None, False))
    peer.delete("a.x")
    assert codes(peer.ask(m.Check, txid, ())) == ["NotFound"]
    lab.auto = False
    lab.fail()
    assert codes(peer.ask(m.Check, txid, ())) == ["StorageError"]


def test_check_waits_for_what_it_has_seen() -> None:
    lab = Lab()
    peer, other = lab.join("noc"), lab.join("other")
    txid = peer.ask(m.Begin)
    add(peer, txid, op("a.x", 2, -1))
    lab.auto = False
    other.start(m.Write, (op("a.x", 1),), "", "")
    asked = peer.start(m.Check, txid, ())
    assert not peer.answered(asked)
    lab.sync()
    assert codes(peer.answer(asked)) == ["Collision"]


def test_several_transactions_at_once() -> None:
    lab = Lab()
    one, two = lab.join("one"), lab.join("two")
    first, second, other = one.ask(m.Begin), one.ask(m.Begin), two.ask(m.Begin)
    add(one, first, op("a.x", 1))
    add(one, second, op("a.x", 2, -1))
    add(two, other, op("a.y", 3))
    for peer, txid, seen in ((one, first, {"x": 1}), (one, second, {"x": 2}), (two, other, {"y": 3})):
        assert peer.ask(m.Get, ("a",), None, "value", txid)[0] == seen
    one.ask(m.CommitTransaction, first, "")
    assert codes(one.ask(m.Check, second, ())) == ["Collision"]
    two.ask(m.CommitTransaction, other, "")
    with pytest.raises(errors.Collision):
        one.ask(m.CommitTransaction, second, "")
    assert two.get("a") == {"x": 1, "y": 3}
    with pytest.raises(errors.TransactionExpired):
        two.ask(m.Check, first, ())


def test_an_idle_transaction_expires_and_its_owner_is_told() -> None:
    lab = Lab()
    peer = lab.join("noc")
    txid, used = peer.ask(m.Begin), peer.ask(m.Begin)
    wait(lab, 599, peer)
    assert peer.take(m.Expired) == []
    add(peer, used, op("a.x", 1))
    wait(lab, 2, peer)
    (told,) = peer.take(m.Expired)
    assert told.txid == txid and "600 s" in told.text
    with pytest.raises(errors.TransactionExpired, match="idle for 600 s"):
        peer.ask(m.CommitTransaction, txid, "")
    wait(lab, 590, peer)
    assert peer.take(m.Expired) == []
    assert peer.ask(m.CommitTransaction, used, "")[1] == [["a", 0]]
    wait(lab, 700, peer)
    assert peer.take(m.Expired) == []


def test_who_is_away_when_it_expires_is_told_after_the_return() -> None:
    lab = Lab()
    peer = lab.join("noc")
    txid = peer.ask(m.Begin)
    wait(lab, 590, peer)
    peer.cut()
    lab.wait(11)
    peer.hello()
    (told,) = peer.take(m.Expired)
    assert told.txid == txid
    peer.cut()
    peer.hello()
    assert peer.take(m.Expired) == []


def test_a_transaction_survives_a_lost_connection_within_the_lease() -> None:
    lab = Lab()
    peer = lab.join("noc")
    txid = peer.ask(m.Begin)
    add(peer, txid, op("a.x", 1))
    peer.cut()
    lab.wait(14)
    assert peer.hello().resumed
    add(peer, txid, op("a.y", 2))
    peer.ask(m.CommitTransaction, txid, "")
    assert peer.get("a") == {"x": 1, "y": 2}


def test_after_the_lease_and_after_a_restart_it_is_gone_and_the_error_says_why() -> None:
    lab = Lab()
    peer = lab.join("noc")
    txid = peer.ask(m.Begin)
    peer.cut()
    lab.wait(16)
    assert not peer.hello().resumed
    with pytest.raises(errors.TransactionExpired, match=r"it ended, or never was$"):
        peer.ask(m.CommitTransaction, txid, "")
    again = Lab(state=lab.node.durable, prefix="b")
    peer.lab = again
    assert peer.hello().resumed
    with pytest.raises(errors.TransactionExpired, match="restarted"):
        peer.ask(m.CommitTransaction, txid, "")


def test_the_heap_of_idle_transactions_stays_small() -> None:
    lab = Lab()
    peer = lab.join("noc")
    for _ in range(500):
        peer.ask(m.CancelTransaction, peer.ask(m.Begin))
        lab.wait(0.001)
    assert len(lab.node.idle) < 5


def rollback(root: str, version: object) -> tuple[object, ...]:
    return ("rollback", (root,), version, None, False)


def test_a_rollback_in_a_transaction_means_what_it_meant_when_that_began() -> None:
    lab = Lab()
    one, two = lab.join("one"), lab.join("two")
    for n in range(3):
        one.put("t.a", n)
    txid = one.ask(m.Begin)
    add(one, txid, op("t.b", 9), op("t.c", 9))
    add(one, txid, rollback("t", -1))
    shown = one.ask(m.Candidate, txid)[0]
    assert shown == [["t", {"a": 1}]]
    two.put("t.a", 99)
    assert one.ask(m.Check, txid, ()) == []
    one.ask(m.CommitTransaction, txid, "")
    assert one.get("t") == {"a": 1}
    txid = one.ask(m.Begin)
    with pytest.raises(errors.NotFound, match="no root new"):
        add(one, txid, op("new.a", 1), rollback("new", 0))
