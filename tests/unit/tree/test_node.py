"""The tree: values and back, what a change shares, and which versions it gives."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpds import HashTrieMap

from tega_zmq.errors import InvalidPath
from tega_zmq.tree import (
    EMPTY,
    attach,
    build,
    delete,
    detach,
    diff,
    diff_at,
    get,
    is_container,
    pairs,
    patch,
    plain,
    put,
)
from tega_zmq.values import same

OIDS = st.sampled_from("abcd")
LEAVES = st.sampled_from([None, True, 1, 1.0, "x", 0.0, -0.0, [], [{"a": 1}]])
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(OIDS, inner, max_size=4), max_leaves=12)
DICTS = st.dictionaries(OIDS, VALUES, max_size=4)
PATHS = st.lists(OIDS, max_size=3).map(tuple)


def alike(a: Any, b: Any) -> bool:
    return same([a], [b])


def merged(target: Any, change: Any) -> Any:
    """RFC 7396, section 2, as it stands there."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def put_plain(value: Any, path: tuple[str, ...], new: Any) -> Any:
    if not path:
        return new
    return {**value, path[0]: put_plain(value.get(path[0], {}), path[1:], new)}


def at(value: Any, path: tuple[str, ...]) -> Any:
    for oid in path:
        if not isinstance(value, dict) or oid not in value:
            return None
        value = value[oid]
    return value


def blocked(value: Any, path: tuple[str, ...]) -> bool:
    for oid in path:
        if not isinstance(value, dict):
            return True
        if oid not in value:
            return False
        value = value[oid]
    return False


@given(VALUES)
def test_build_and_back(value: Any) -> None:
    node = build(value, 3)
    assert alike(plain(node), value)
    assert node[0] == 3
    assert is_container(node) == isinstance(value, dict)


@given(DICTS, PATHS, VALUES)
def test_put(value: Any, path: tuple[str, ...], new: Any) -> None:
    root = build(value, 1)
    if blocked(value, path):
        with pytest.raises(InvalidPath, match="is a leaf"):
            put(root, path, new, 2, ("r",))
        return
    after, changes = put(root, path, new, 2)
    assert alike(plain(after), put_plain(value, path, new))
    assert alike(plain(root), value)
    assert sorted(change[0] for change in changes) == [found[0] for found in diff(root, after)]
    check_versions(root, after, 2)
    if not changes:
        assert after is root
    for where, old, made in changes:
        assert get(root, where) is old
        assert get(after, where) is made


@given(DICTS, PATHS, VALUES)
def test_patch_is_rfc_7396(value: Any, path: tuple[str, ...], change: Any) -> None:
    root = build(value, 1)
    if blocked(value, path):
        with pytest.raises(InvalidPath):
            patch(root, path, change, 2)
        return
    after, changes = patch(root, path, change, 2)
    assert alike(plain(after), put_plain(value, path, merged(at(value, path), change)))
    check_versions(root, after, 2)
    assert sorted(found[0] for found in changes) == [found[0] for found in diff(root, after)]
    if not changes:
        assert after is root


def check_versions(old: Any, new: Any, version: int) -> None:
    """What changed at or below a node gives it the version; all else is the very same node."""
    if old is not None and alike(plain(old), plain(new)):
        assert new is old
        return
    assert new[0] == version
    if is_container(new):
        for oid, child in pairs(new[1]):
            check_versions(get(old, (oid,)), child, version)


@given(DICTS, PATHS)
def test_delete(value: Any, path: tuple[str, ...]) -> None:
    root = build(value, 1)
    after, changes = delete(root, path, 2)
    if get(root, path) is None:
        assert after is root
        assert changes == []
        return
    assert changes == [(path, get(root, path), None)]
    assert get(after, path) is None
    if path:
        assert after is not None
        check_versions(root, after, 2)
        assert alike(merged(value, put_plain({}, path, None)), plain(after))


@given(DICTS | st.none(), DICTS | st.none())
def test_diff_leads_from_one_to_the_other(a: Any, b: Any) -> None:
    old = None if a is None else build(a, 1)
    new = None if b is None else build(b, 2)
    found = list(diff(old, new))
    assert [path for path, _, _ in found] == sorted(path for path, _, _ in found)
    node = old
    for path, was, now in found:
        assert get(old, path) is was
        assert get(new, path) is now
        if now is None:
            node = delete(node, path, 3)[0]
        else:
            node = put(node, path, plain(now), 3)[0]
    assert alike(None if node is None else plain(node), b)
    assert bool(found) != alike(a, b)


@given(DICTS, st.lists(st.tuples(PATHS, VALUES), max_size=4))
def test_diff_at_what_changed_is_the_whole_diff(value: Any, puts: Any) -> None:
    root = build(value, 1)
    node, paths = root, []
    for path, new in puts:
        if not blocked(plain(node), path) and (path or isinstance(new, dict)):
            node, changes = put(node, path, new, 2)
            paths += [change[0] for change in changes]
    assert list(diff_at(root, node, paths)) == list(diff(root, node))


def test_a_put_into_nothing_makes_the_containers_on_the_way() -> None:
    node, changes = put(None, ("a", "b"), 1, 0)
    assert plain(node) == {"a": {"b": 1}}
    assert changes == [((), None, node)]
    node, changes = put(node, ("x", "y"), 1, 1)
    assert [path for path, _, _ in changes] == [("x",)]
    assert patch(None, ("a",), {"b": None, "c": 1}, 0)[0] == build({"a": {"c": 1}}, 0)


def test_changes_are_as_small_as_can_be() -> None:
    root = build({"a": {"b": 1, "c": 2}, "d": {"e": 1}, "f": 0}, 0)
    _, changes = put(root, (), {"a": {"b": 1, "c": 3}, "d": 5, "g": {"h": {}}}, 1)
    assert sorted((path, None if new is None else plain(new)) for path, _, new in changes) == [
        (("a", "c"), 3),
        (("d",), 5),
        (("f",), None),
        (("g",), {"h": {}}),
    ]


def test_a_leaf_on_the_way_is_named() -> None:
    with pytest.raises(InvalidPath, match=r"r\.a\.b\.c: r\.a is a leaf"):
        put(build({"a": 1}, 0), ("a", "b", "c"), 2, 1, ("r",))
    assert get(build({"a": 1}, 0), ("a", "b", "c")) is None
    assert get(None, ("a",)) is None


def test_one_put_touches_its_path_only() -> None:
    root = build({"a": {str(i): {"x": i} for i in range(1000)}, "b": {}}, 0)
    after, _ = put(root, ("a", "7", "x"), -1, 1)
    for i in range(1000):
        path = ("a", str(i))
        assert (get(after, path) is get(root, path)) == (i != 7)
    assert get(after, ("b",)) is get(root, ("b",))


def test_attach_and_detach_move_nodes_as_they_are() -> None:
    node = build({"x": 1}, 5)
    root = attach(None, ("a", "b"), node, 7)
    assert get(root, ("a", "b")) is node
    assert root[0] == 7
    assert plain(attach(build({"a": 1}, 0), ("a", "b"), node, 1)) == {"a": {"b": {"x": 1}}}
    assert attach(root, (), node, 8) is node
    assert plain(detach(root, ("a", "b"), 8) or (0, None)) == {"a": {}}
    assert detach(root, (), 8) is None


def test_pairs_rests_on_how_maps_are_pickled() -> None:
    content = HashTrieMap({str(i): i for i in range(100)})
    assert sorted(pairs(content)) == sorted(content.items())
    assert pairs(EMPTY) == []
    assert pickle.loads(pickle.dumps(content)) == content


def test_nodes_are_invisible_to_the_collector() -> None:
    root = build({"a": {str(i): f"value {i}" for i in range(50)}}, 0)
    root, _ = put(root, ("a", "7"), "other", 1)
    # Tuples are told apart by the collector itself, when it first meets them.
    for _ in range(3):
        gc.collect()
    assert not gc.is_tracked(root)
    assert not gc.is_tracked(get(root, ("a", "7")))
    assert not gc.is_tracked(root[1])


def test_deep_trees_need_no_deep_stack() -> None:
    value: Any = 1
    for _ in range(64):
        value = {"a": value}
    path = tuple("p" * 63)
    root, _ = put(None, path, value, 0)
    assert plain(root) == plain(build(plain(root), 0))
    deepest = (*path, *("a" * 64))
    assert get(root, deepest) == (0, 1)
    after, _ = put(root, deepest, 2, 1)
    assert [found for found, _, _ in diff(root, after)] == [deepest]
