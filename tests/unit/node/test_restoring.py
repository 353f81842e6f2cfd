"""Restoring a backup: what is refused, and what a retry does."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import errors, store
from tega_zmq.node import restoring
from tega_zmq.store import Kept
from tega_zmq.wire import decode_value, encode
from tega_zmq.wire import messages as m
from tests.unit.node.lab import Lab, Peer
from tests.unit.node.test_past import Deep

STAMP = (1.0, "noc", "why", None)


def update(root: str, after: int, *changes: list[Any]) -> list[Any]:
    return [root, "", after - 1, after, list(changes), *STAMP]


def restore(peer: Peer, root: str, first: bool, version: int, *updates: Any) -> Any:
    return peer.ask(m.Restore, root, first, version, updates)


@pytest.fixture
def peer() -> Peer:
    return Lab().join("noc")


def again(lab: Lab) -> store.Store:
    """What a restart finds."""
    return store.replay(store.empty(Kept()), lab.disk)


def test_a_root_comes_back_piece_by_piece(peer: Peer) -> None:
    assert restore(peer, "a", True, -1, update("a", 0, [[], {"x": 1}]), update("a", 1, [["x"], 2])) == 0
    for _ in range(2):  # the answer was lost
        assert restore(peer, "a", False, 0, update("a", 1, [["x"], 2]), update("a", 2, [["x"]])) == 2
    assert [peer.get("a", version) for version in range(3)] == [{"x": 1}, {"x": 2}, {}]
    assert restore(peer, "b", True, 6, update("b", 7, [[], {"y": 1}])) == 7
    assert restore(peer, "gone", True, 3) == 3
    (entry, *_) = peer.ask(m.Log, ("b",), 1, None, None, "")
    assert entry[:4] == [7, 1.0, "noc", "why"]
    assert again(peer.lab).roots["b"].version == 7
    peer.put("b.z", 5)
    with pytest.raises(errors.NotFound):
        peer.get("gone")


def test_what_does_not_fit_is_refused_and_changes_nothing(peer: Peer) -> None:
    restore(peer, "a", True, -1, update("a", 0, [[], {"x": 1}]))
    before = peer.lab.node.tip
    good = update("a", 1, [["x"], 2])
    for first, version, updates in (
        (True, 5, [update("a", 6, [[], {}])]),  # it is there already
        (False, 5, [update("a", 6, [["x"], 2])]),
        (False, 0, [update("a", 2, [["x"], 2])]),
        (False, 0, [update("b", 1, [["x"], 2])]),
        (False, 0, [update("a", 1, [["nothing"]])]),
        (False, 0, [[1, 2, 3]]),
        (False, 0, [good] * 501),
        (True, -2, []),
        (True, 1 << 60, []),
    ):
        with pytest.raises((errors.InvalidValue, errors.ProtocolError)):
            restore(peer, "a", first, version, *updates)
        assert peer.lab.node.tip is before
    other = peer.lab.join("other")
    for root in ("a", "b"):
        with pytest.raises(errors.InvalidValue, match="not empty"):
            restore(other, root, True, -1, update(root, 0, [[], {}]))
    with pytest.raises(errors.InvalidValue):
        restore(other, "a", False, 0, good)
    assert again(peer.lab).roots["a"].version == 0


def test_a_root_goes_on_after_a_gap(peer: Peer) -> None:
    restore(peer, "a", True, -1, update("a", 0, [[], {"x": 1}]))
    assert restore(peer, "a", False, 0, update("a", 1, [["x"], 2])) == 1
    peer.ask(m.Tag, "a", 1, "golden")
    epoch = peer.lab.node.tip.roots["a"].epoch
    heard = peer.ask(m.Subscribe, 1, ("a",), "local", ())
    assert heard == [["a", epoch, 1]]
    for _ in range(2):  # the answer was lost
        assert restore(peer, "a", False, 6, update("a", 7, [[], {"y": 1}])) == 7
    assert restore(peer, "a", False, 7, update("a", 8, [["y"], 2])) == 8
    assert [peer.get("a", version) for version in (7, 8)] == [{"y": 1}, {"y": 2}]
    with pytest.raises(errors.Compacted):
        peer.get("a", 1)
    for _ in range(2):
        assert restore(peer, "a", False, 12) == 12  # it was absent there
    with pytest.raises(errors.NotFound):
        peer.get("a")
    assert restore(peer, "a", False, 12, update("a", 13, [["z"], 3])) == 13
    assert peer.get("a") == {"z": 3}
    assert peer.lab.node.tip.roots["a"].epoch == epoch
    assert dict(peer.lab.node.tip.roots["a"].tags) == {"golden": 1}
    changes = peer.take(m.Changed)
    assert (changes[-1].version, changes[-1].changes[0][2]) == (13, (3,))
    assert again(peer.lab).roots["a"] == peer.lab.node.durable.roots["a"]
    # The history takes in each piece before the store lets go of it.
    assert peer.lab.node.take_in == peer.lab.node.number
    with pytest.raises(errors.InvalidValue, match="begin the restore again"):
        restore(peer.lab.join("other"), "a", False, 20)


# -- what is larger than a frame ----------------------------------------------------------------------


def whole(peer: Peer, root: str, version: int, what: str) -> Any:
    """Read something of a version part by part; of each part but the last the answer comes twice."""
    data = b""
    while True:
        size, more = peer.ask(m.Part, root, version, what, len(data))
        assert len(more) <= restoring.PIECE
        data += more
        if len(data) == size:
            return decode_value(data)
        assert peer.ask(m.Part, root, version, what, len(data) - len(more)) == [size, more]


@pytest.mark.parametrize("piece", [1, 7, 50, 1 << 20])
def test_a_version_is_read_in_parts(peer: Peer, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "PIECE", piece)
    peer.put("a.x", "y" * 20)
    peer.put("a.y.e", 1, ephemeral=True)
    peer.put("a.e", {"f": 1}, ephemeral=True)
    peer.delete("a")
    assert whole(peer, "a", 2, "tree") == [{"x": "y" * 20, "y": {"e": 1}, "e": {"f": 1}}]
    assert whole(peer, "a", 3, "tree") == []
    assert whole(peer, "a", 2, "ephemeral") == [["a", "e"], ["a", "y"]]
    assert whole(peer, "a", 0, "ephemeral") == []
    (commit,) = peer.ask(m.Updates, "a", 0, 1)
    assert whole(peer, "a", 1, "commit") == commit
    for root, version, what in (("a", 4, "tree"), ("a", -1, "tree"), ("b", 0, "tree"), ("a", 0, "leaf")):
        with pytest.raises((errors.NotFound, errors.InvalidValue)):
            peer.ask(m.Part, root, version, what, 0)
    assert peer.ask(m.Part, "a", 2, "tree", 1 << 40)[1] == b""


def test_a_part_may_be_on_the_disk() -> None:
    lab = Deep()
    peer = lab.join("noc")
    for n in range(10):
        peer.put("a.n", n)
    for what, found in (("tree", [{"n": 3}]), ("ephemeral", []), ("commit", None)):
        number = peer.start(m.Part, "a", 3, what, 0)
        lab.read()
        value = decode_value(peer.answer(number)[1])
        assert value == found or value[3] == 3


def test_a_commit_is_restored_in_pieces(peer: Peer) -> None:
    frame = encode(m.Restore(0, 0, 0, "a", True, -1, (update("a", 0, [[], {"x": "y" * 50}]),)))
    size = len(frame)
    for _ in range(2):  # the answer to the last one was lost, or that to any other
        for at in range(0, size, 10):
            for _ in range(2):
                reached = peer.ask(m.Piece, at, size, frame[at : at + 10])
            assert reached is None or (at + 10 >= size and reached == 0)
    assert peer.get("a") == {"x": "y" * 50}
    assert restore(peer, "a", False, 0, update("a", 1, [["x"], 2])) == 1
    assert len(peer.lab.disk) == len([record for record in peer.lab.disk if record is not None])


def test_pieces_that_make_no_commit_are_refused(peer: Peer) -> None:
    other = peer.lab.join("other")
    peer.ask(m.Piece, 0, 30, b"x" * 10)
    for sender, offset, size, data in (
        (peer, 11, 30, b"x"),  # one is missing
        (other, 10, 30, b"x"),
        (peer, 10, 11, b"xx"),
        (peer, 0, restoring.MAX_WHOLE + 1, b""),
        (peer, 0, 0, b""),
        (peer, 0, 2, b"\x91\x02"),  # Bye
        (peer, 0, 1, b"\xc1"),
    ):
        with pytest.raises((errors.InvalidValue, errors.TooLarge)):
            sender.ask(m.Piece, offset, size, data)
    peer.ask(m.Piece, 0, 30, b"x" * 10)
    peer.tell(m.Bye())
    assert peer.lab.node.pieces == ("", b"")
    assert not peer.lab.node.tip.roots


@pytest.mark.parametrize("limit", [0, 1, 3, 10_000])
@pytest.mark.parametrize("after", [-(2**62), -1, 0, 5, 8, 9, 2**62])
def test_commits_are_told_from_anywhere(after: int, limit: int) -> None:
    lab = Deep()
    peer = lab.join("noc")
    for n in range(10):
        peer.put("a.n", n)
    number = peer.start(m.Updates, "a", after, limit)
    lab.read()
    found = [each[3] for each in peer.answer(number)]
    first = max(after, -1) + 1
    assert found == list(range(first, min(10, first + max(1, limit))))


def test_commits_are_told_up_to_a_gap() -> None:
    lab = Deep()
    peer = lab.join("noc")
    for n in range(10):
        peer.put("a.n", n)
    lab.lost = {4}

    def told(after: int) -> list[int]:
        number = peer.start(m.Updates, "a", after, 500)
        lab.read()
        return [each[3] for each in peer.answer(number)]

    assert told(1) == [2, 3]
    with pytest.raises(errors.Compacted, match="the commit after version 3"):
        told(3)
    assert told(4) == list(range(5, 10))
