"""A store as a stream of small values, and back."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from tega_zmq import store as core
from tega_zmq.errors import StorageError
from tega_zmq.store import Change, Kept, NewEpochs, Owned, Replicated, ResetPart, Store, Update
from tests.storekit import delete, put, rollback, stored, value, write


def rich() -> Store:
    store = stored(
        put("a", {"b": {"c": [1, {"_x": None}]}, "d": -0.0}),
        put("a.b.e", True),
        put("a.p.x", {"y": 1}, ephemeral=True),
        put("z", {}),
        delete("z"),
        rollback("a", 0),
        *[put("a.n", i) for i in range(8)],
        kept=Kept(versions=4, updates=7),
    )
    store = write(store, put("a.q", 1), session="s1", request=4, ack=2).store
    store = write(store, put("a.q", 2), put("z", {"k": 1}), session="s1", request=6, ack=2).store
    store = core.apply(store, NewEpochs((("a", "n"), ("z", "m"))))
    store = write(store, put("a.q", 3)).store
    store = core.apply(store, Owned("ops", "pi1", ""))
    store = core.apply(
        store, Replicated(Update("ops", "e", -1, 0, (Change(("ops", "s"), True, 1, "far"),), 1.0, "pi1", "m"))
    )
    store = core.apply(store, Owned("empty", "pi2", ""))
    return core.apply(
        store,
        ResetPart("empty", True, ((("empty",), 2, True, None), (("empty", "x"), 1, False, 5))),
    )


def items_of(store: Store) -> list[Any]:
    return [msgpack.unpackb(msgpack.packb(item)) for item in core.dump(store)]


def test_what_comes_back_is_the_same() -> None:
    store = rich()
    loaded = core.load(items_of(store), store.kept)
    assert loaded == store
    assert items_of(loaded) == items_of(store)
    assert [value(loaded, "a", v) for v in range(-3, 0)] == [value(store, "a", v) for v in range(-3, 0)]
    assert repr(value(loaded, "a.d")) == "-0.0"
    assert core.outcome(loaded, "s1", 6) == core.outcome(store, "s1", 6) is not None
    assert loaded.leases["s1"].ephemerals == store.leases["s1"].ephemerals


def test_an_empty_store() -> None:
    assert core.load(core.dump(core.empty()), Kept()) == core.empty()


def test_kept_versions_share_again_what_they_shared() -> None:
    store = stored(
        put("a", {"big": {str(i): i for i in range(100)}, "n": 0}), *[put("a.n", i) for i in range(5)]
    )
    loaded = core.load(core.dump(store), Kept())
    big = {id(core.lookup(loaded, ("a", "big"), version)) for version in range(5)}
    assert len(big) == 1


def test_items_are_small() -> None:
    store = stored(put("a", {f"k{i}": i for i in range(1000)}), *[put("a.k0", [i]) for i in range(900)])
    items = list(core.dump(store))
    assert max(len(part) for item in items for part in item if isinstance(part, list)) <= 200
    assert core.load(items, store.kept) == store


def test_less_history_may_be_kept_than_was() -> None:
    store = stored(*[put("a.n", i) for i in range(20)])
    loaded = core.load(core.dump(store), Kept(versions=3, updates=5))
    root = loaded.roots["a"]
    assert (root.version, root.oldest, root.oldest_update) == (19, 17, 15)
    assert value(loaded, "a", 17) == {"n": 17}
    assert core.load(core.dump(loaded), Kept()).roots["a"].oldest == 17


def test_it_is_lazy_and_of_the_moment() -> None:
    store = rich()
    items = core.dump(store)
    first = next(items)
    write(store, put("a.q", 99))
    assert core.load([first, *items], store.kept) == store


def test_any_item_missing_or_doubled_is_seen() -> None:
    store = rich()
    items = items_of(store)
    for index in range(len(items)):
        for changed in (items[:index] + items[index + 1 :], [*items[: index + 1], *items[index:]]):
            with pytest.raises(StorageError):
                core.load(changed, store.kept)


def test_cut_anywhere_it_is_incomplete() -> None:
    items = items_of(rich())
    for end in range(len(items)):
        with pytest.raises(StorageError):
            core.load(items[:end], Kept())


ROOT = [2, "a", "", "e", 0, 0, True, 1, [0.0, "", ""]]


@pytest.mark.parametrize(
    ("items", "what"),
    [
        ([], "too early"),
        ([[8]], "out of place"),
        ([[1, 99, 0]], "format 99 is unknown"),
        ([[1, 1, 0], [1, 1, 0]], "out of place"),
        ([[1, 1, 0], [9]], "no kind 9"),
        ([[1, 1, 0], [8, 5]], "it has 1 items of 5"),
        ([[1, 1, 0], [3, []]], "without its root"),
        ([[1, 1, 0], [4, []]], "without its root"),
        ([[1, 1, 0], [6, "x", True, []]], "no known owner"),
        ([[1, 1, 0], [2], [8, 2]], "cannot be understood"),
        ([5], "cannot be understood"),
        ([[]], "cannot be understood"),
        ([[1, 1, 0], [2, "a", "", "e", 0, 0, True, 1, [0.0, "", ""]], [8]], "tree of a is incomplete"),
        ([[1, 1, 0], [2, "a", "", "e", 3, 0, False, 4, [0.0, "", ""]], [8]], "history of a has a gap"),
        ([[1, 1, 0], [2, "a", "", "e", 3, 4, False, 4, [0.0, "", ""]], [8]], "history of a has a gap"),
        ([[1, 1, 0], [2, "a", "", "e", 1, 0, False, 1, [0.0, "", ""]], [8]], "updates of a are missing"),
        ([[1, 1, 0], [2, "a", "", "e", 0, 0, True, 1, [0.0, "", ""]], [3, [5]], [8]], "an entry must be"),
        ([[1, 1, 0], ROOT, [3, [[["a"], 0, True, None], [["a", "b", "c"], 0, False, 1]]]], "came before"),
        ([[1, 1, 0], ROOT, [3, [[["a", "b"], 0, False, 1]]]], "came before"),
        ([[1, 1, 0], ROOT, [3, [[["a"], 0, True, None]] * 2]], "came twice"),
        ([[1, 1, 0], ROOT, [3, [[["a"], 0, False, 5]]], [8, 3]], "a root must be a container"),
    ],
)
def test_damage_is_told(items: list[Any], what: str) -> None:
    with pytest.raises(StorageError, match=what):
        core.load(items, Kept())
