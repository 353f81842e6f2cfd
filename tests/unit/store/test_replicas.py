"""What followers need: the next update or a gap, those that are missing, the tree in parts."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import store as core
from tega_zmq.store import ABSENT, Kept, Owned, Update
from tega_zmq.store.versions import Versions
from tega_zmq.tree import plain
from tega_zmq.tree import put as put_node
from tests.storekit import delete, put, stored


def test_updates_since() -> None:
    store = stored(*[put("a.b", i) for i in range(8)], kept=Kept(versions=2, updates=5))
    root = store.roots["a"]
    assert core.updates_since(root, "e0", 7) == ()
    found = core.updates_since(root, "e0", 4)
    assert found is not None
    assert [(update.before, update.after) for update in found] == [(4, 5), (5, 6), (6, 7)]
    assert found[0].changes[0].value == 5
    assert len(core.updates_since(root, "e0", 2) or ()) == 5
    for epoch, version in (("e0", 1), ("e0", ABSENT), ("e0", 8), ("e0", -2), ("e9", 7), ("", 7)):
        assert core.updates_since(root, epoch, version) is None


def test_updates_since_the_beginning() -> None:
    root = stored(put("a.b", 1), delete("a"), put("a.c", 2)).roots["a"]
    assert len(core.updates_since(root, "e0", ABSENT) or ()) == 3


def test_updates_with_a_hole_help_nobody() -> None:
    root = stored(*[put("a.b", i) for i in range(4)]).roots["a"]
    holed = root._replace(updates=Versions[Any]().add(3, root.updates[3]))
    assert core.updates_since(holed, "e0", 0) is None
    assert core.updates_since(holed, "e0", 1) is None
    assert len(core.updates_since(holed, "e0", 2) or ()) == 1
    assert core.update_at(holed, 2) is None


@pytest.mark.parametrize(
    ("epoch", "before", "after", "what"),
    [
        ("e0", 1, 2, "next"),
        ("e0", 0, 1, "old"),
        ("e0", ABSENT, 0, "old"),
        ("e0", 2, 3, "gap"),
        ("e9", 1, 2, "gap"),
        ("e9", ABSENT, 0, "gap"),
        ("e0", 1, 1, "old"),
        ("e0", 3, 3, "gap"),
    ],
)
def test_follows(epoch: str, before: int, after: int, what: str) -> None:
    root = stored(put("a.b", 1), put("a.b", 2)).roots["a"]
    assert core.follows(root, Update("a", epoch, before, after, (), 0.0, "x")) == what


def test_follows_where_nothing_was() -> None:
    root = core.apply(stored(), Owned("a", "pi1", "")).roots["a"]
    for known in (root, None):
        assert core.follows(known, Update("a", "e", ABSENT, 0, (), 0.0, "x")) == "next"
        assert core.follows(known, Update("a", "e", 0, 1, (), 0.0, "x")) == "gap"
        assert core.follows(known, Update("a", "e", 0, 0, (), 0.0, "x")) == "gap"


def test_entries_come_parents_first_and_in_slices() -> None:
    value = {"a": {"b": 1, "c": {}}, "d": [1], "w": {f"k{i:04}": i for i in range(1500)}}
    node = put_node(None, (), value, 3)[0]
    entries = core.entries(node, "r")
    first = [next(entries) for _ in range(4)]
    assert first == [
        (("r",), 3, True, None),
        (("r", "a"), 3, True, None),
        (("r", "a", "b"), 3, False, 1),
        (("r", "a", "c"), 3, True, None),
    ]
    rest = list(entries)
    seen: set[tuple[str, ...]] = set()
    for path, _, _, _ in first + rest:
        assert len(path) == 1 or path[:-1] in seen
        seen.add(path)
    assert len(seen) == len(first) + len(rest) == 6 + 1500
    assert plain(node) == value


def test_marks_are_listed_with_born_containers() -> None:
    root = stored(put("a.k", 1), put("a.p.x", 1, ephemeral=True)).roots["a"]
    assert core.ephemeral_entries(root) == ((("a", "p"), ""), (("a", "p", "x"), "s1"))
