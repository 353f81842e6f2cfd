"""Restoring a backup: what is refused, and what a retry does."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import errors, store
from tega_zmq.store import Kept
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
