"""Reading: versions, attributes, finding, log and diff."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import store as core
from tega_zmq.errors import Compacted, NotFound, TooLarge
from tega_zmq.paths import parse
from tega_zmq.patterns import compile_oids
from tega_zmq.store import Kept, Owned, reading
from tega_zmq.tree import plain
from tests.storekit import delete, put, stored, value, walked, write


def test_lookup_now_and_then() -> None:
    store = stored(put("a", {"b": 1}), put("a.b", 2), delete("a.b"), put("a.b", 4))
    assert value(store, "a.b") == 4
    assert value(store, "a.b", 0) == 1
    assert value(store, "a.b", -2) == 2
    assert value(store, "a", 2) == {}
    assert core.lookup(store, ("a", "b"), 1) == (1, 2)


@pytest.mark.parametrize(
    ("path", "version", "error", "what"),
    [
        ("x", None, NotFound, "there is no x"),
        ("a.x", None, NotFound, r"there is no a\.x"),
        ("a.b.c", None, NotFound, r"there is no a\.b\.c"),
        ("x", 3, NotFound, "no x at version 3"),
        ("a.x", 5, NotFound, r"no a\.x at version 5"),
        ("a.b", 9, NotFound, "no version 9; it is at version 5"),
        ("a.b", -9, NotFound, "no version -9"),
        ("a.b", 1, Compacted, "the oldest is 3"),
        ("a.b", -4, Compacted, "version 1 of a is no longer kept"),
    ],
)
def test_what_is_not_there(path: str, version: int | None, error: Any, what: str) -> None:
    store = stored(*[put("a.b", i) for i in range(6)], kept=Kept(versions=3))
    with pytest.raises(error, match=what) as info:
        core.lookup(store, parse(path), version)
    if error is NotFound and version is not None:
        assert info.value.version == version
        assert info.value.path


def test_a_root_without_versions() -> None:
    store = core.apply(stored(), Owned("ops", "pi1", ""))
    for version in (None, 0, -1):
        with pytest.raises(NotFound):
            core.lookup(store, ("ops",), version)
    assert core.roots(store) == [("ops", core.ABSENT, "pi1", False)]
    assert core.owned_roots(store) == []
    assert core.log(store, ("ops",), 5) == []
    assert not core.is_ephemeral(store, ("ops", "x"))


def test_resolve() -> None:
    root = stored(put("a", {}), put("a.b", 1)).roots["a"]
    assert [core.resolve(root, version) for version in (None, 0, 1, -1)] == [1, 0, 1, 0]


def attributes(*asked: Any) -> Any:
    return walked(core.attributes(*asked))


def test_attributes() -> None:
    store = stored(put("a", {"b.c": {"d": 1}}), put('a."b.c".e', 2, ephemeral=True))
    assert attributes(store, ("a", "b.c")) == {
        "_oid": "b.c",
        "_parent": "a",
        "_version": 1,
        "_ephemeral": False,
        "_value": {
            "d": {"_oid": "d", "_parent": 'a."b.c"', "_version": 0, "_ephemeral": False, "_value": 1},
            "e": {"_oid": "e", "_parent": 'a."b.c"', "_version": 1, "_ephemeral": True, "_value": 2},
        },
    }
    assert attributes(store, ("a",), 0)["_parent"] == ""
    assert "e" not in attributes(store, ("a", "b.c"), 0)["_value"]
    store = write(store, put("a.p", {"q": {"r": 1}}, ephemeral=True), session="s1").store
    assert attributes(store, parse("a.p.q.r"))["_ephemeral"]
    with pytest.raises(NotFound):
        attributes(store, ("a", "x"))


def test_attributes_are_told_of_so_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(put("a", {"b": {"c": 1}, "d": 2}))
    monkeypatch.setattr(reading, "MAX_ATTRIBUTES", 4)
    assert set(attributes(store, ("a",))["_value"]) == {"b", "d"}
    monkeypatch.setattr(reading, "MAX_ATTRIBUTES", 3)
    with pytest.raises(TooLarge, match="a has more than 3 nodes"):
        attributes(store, ("a",))


def test_blame_lists_the_leaves_in_order() -> None:
    wide = {f"k{n:04}": n for n in range(3000)}
    store = stored(put("a", {"z": 1, "e": {}, "b": {"d": 2, "c": [1]}, "w": wide}), put("a.b.d", 3))
    steps = list(core.blame(store, ("a",)))
    costs = [each for each in steps if isinstance(each, int)]
    leaves = [each for each in steps if not isinstance(each, int)]
    assert leaves[:3] == [(("a", "b", "c"), 0), (("a", "b", "d"), 1), (("a", "e"), 0)]
    assert leaves[3:-1] == [(("a", "w", oid), 0) for oid in wide]
    assert leaves[-1] == (("a", "z"), 0)
    assert len(costs) >= 10 and max(costs) < 1100
    assert list(core.blame(store, ("a", "z")))[1:] == [(("a", "z"), 0)]
    assert list(core.blame(store, ("a", "e")))[1:] == [(("a", "e"), 0)]
    assert list(core.blame(store, ("a", "b", "d"), 0))[1:] == [(("a", "b", "d"), 0)]
    with pytest.raises(NotFound):
        next(core.blame(store, ("a", "x")))


def test_find() -> None:
    store = stored(
        put("config-pi2", {"net": {"eth1": {"mtu": 1}, "eth0": 2, "lo": 3}, "leaf": 5}),
        put("config-pi1", {"net": {"eth0": 4}}),
        put("other", {"net": {"eth0": 5}}),
        put("gone", {}),
        delete("gone"),
    )
    assert [
        (".".join(path), groups, plain(node))
        for path, groups, node in found(store, r"config-(.*)\.net\.eth(\d)")
    ] == [
        ("config-pi1.net.eth0", [["pi1"], ["0"]], 4),
        ("config-pi2.net.eth0", [["pi2"], ["0"]], 2),
        ("config-pi2.net.eth1", [["pi2"], ["1"]], {"mtu": 1}),
    ]
    assert [path for path, _, _ in found(store, "o")] == [("other",)]
    assert found(store, r".*\..*\..*\..*\..*") == []
    assert [path for path, _, _ in found(store, "g")] == []


def found(store: core.Store, regex: str) -> list[Any]:
    return [each for each in core.find(store, compile_oids(regex)) if not isinstance(each, int)]


def test_what_is_found_in_wide_containers_comes_in_order_and_its_cost_in_between() -> None:
    names = [f"k{n}" for n in range(3000)]
    store = stored(put("wide", {name: {"v": n, "w": n} for n, name in enumerate(names)}))
    assert [path for path, _, _ in found(store, r"wide\..*\.v")] == [
        ("wide", name, "v") for name in sorted(names)
    ]
    for regex in (r"wide\..*\.v", r"wide\.x", r"wide\.(.*)k(.*)x", r"wide\..*\.x"):
        costs = [each for each in core.find(store, compile_oids(regex)) if isinstance(each, int)]
        assert max(costs) <= 1100
        assert sum(costs) >= 3 * len(names)
    store = stored(put("long", {f"{'a' * 240}{n}": n for n in range(100)}))
    costs = [each for each in core.find(store, compile_oids(r"long\.(.*)a(.*)b")) if isinstance(each, int)]
    assert len(costs) >= 100
    assert sum(costs) >= 100 * 240 * 240 / 100


def test_log_is_of_what_touched_the_path() -> None:
    store = stored(
        put("a", {"b": {"c": 1}}),
        put("a.x", 1),
        put("a.b.c", 2),
        put("a.b", {"c": 2, "d": 3}),
        delete("a.x"),
        delete("a.b"),
        put("a.x", 2),
    )

    def versions(path: str, limit: int = 100) -> list[int]:
        return [update.after for update in core.log(store, parse(path), limit)]

    assert versions("a") == [6, 5, 4, 3, 2, 1, 0]
    assert versions("a", 2) == [6, 5]
    assert versions("a", 0) == []
    assert versions("a.b") == [5, 3, 2, 0]
    assert versions("a.b.c") == [5, 2, 0]
    assert versions("a.b.d") == [5, 3]
    assert versions("a.x") == [6, 4, 1]
    assert versions("a.none") == []
    with pytest.raises(NotFound):
        core.log(store, ("none",), 5)


def test_log_reaches_further_back_than_the_trees() -> None:
    store = stored(*[put("a", {"b": i}) for i in range(9)], delete("a"), kept=Kept(versions=2, updates=6))
    assert [update.after for update in core.log(store, ("a",), 100)] == [9, 8, 7, 6, 5, 4]
    assert [update.after for update in core.log(store, ("a", "b"), 100)] == [9, 8, 7, 6, 5, 4]
    assert [update.after for update in core.log(store, ("a", "z"), 100)] == []
    # Whether a path was below what was deleted can be told only while the tree before is kept.
    later = write(write(store, put("a.c", 1)).store, put("a.c", 2)).store
    assert [update.after for update in core.log(later, ("a", "z"), 100)] == [9]


def test_diff_between_versions() -> None:
    store = stored(put("a", {"b": 1, "k": {"l": 1}}), put("a.b", 2), put("a.c", 3), delete("a.k.l"))

    def diff(path: str, low: int | None, other: str, high: int | None) -> list[Any]:
        return [
            (".".join(relative), None if old is None else plain(old), None if new is None else plain(new))
            for relative, old, new in core.diff(store, parse(path), low, parse(other), high)
        ]

    assert diff("a", 0, "a", None) == [("b", 1, 2), ("c", None, 3), ("k.l", 1, None)]
    assert diff("a", None, "a", 0) == [("b", 2, 1), ("c", 3, None), ("k.l", None, 1)]
    assert diff("a", 2, "a", 1) == [("c", 3, None)]
    assert diff("a.b", 0, "a.b", 1) == [("", 1, 2)]
    assert diff("a.k", 0, "a.k", None) == [("l", 1, None)]
    assert diff("a.c", 0, "a.c", None) == [("", None, 3)]
    assert diff("a.k.l", 0, "a.k.l", None) == [("", 1, None)]
    assert diff("a", 1, "a", 1) == []
    assert diff("a.b", None, "a.c", None) == [("", 2, 3)]
    assert diff("a.k", 0, "a", 0) == [("b", None, 1), ("k", None, {"l": 1}), ("l", 1, None)]
    for path, version in (("a.none", None), ("none", None), ("a", 9), ("a.c", 0)):
        with pytest.raises(NotFound):
            diff(path, version, path, version)


def test_diff_where_the_updates_are_not_kept() -> None:
    store = stored(*[put("a", {"b": i, "c": 1}) for i in range(4)])
    root = store.roots["a"]
    short = store._replace(roots=store.roots.insert("a", root._replace(oldest_update=3)))
    assert [path for path, _, _ in core.diff(short, ("a",), 0, ("a",), 3)] == [("b",)]


def test_roots() -> None:
    store = core.apply(stored(put("b", {}), put("a", {}), delete("b")), Owned("ops", "pi1", ""))
    assert core.roots(store) == [("a", 0, "", True), ("b", 1, "", False), ("ops", -1, "pi1", False)]
    assert core.owned_roots(store) == ["a", "b"]
