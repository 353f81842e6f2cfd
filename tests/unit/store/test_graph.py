"""The graph of nodes and versions, against a model that keeps every version as plain data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq import errors
from tega_zmq import store as core
from tega_zmq.paths import Path
from tega_zmq.store import Kept, Op, Store, graph
from tests.storekit import delete, patch, put, rollback, stored, value, write

OIDS = st.sampled_from("abc")
PATHS = st.lists(OIDS, max_size=3).map(lambda oids: ".".join(["r", *oids]))
VALUES = st.recursive(st.integers(0, 2), lambda below: st.dictionaries(OIDS, below, max_size=3), max_leaves=6)
OPS = st.one_of(
    st.builds(put, PATHS, VALUES),
    st.builds(patch, PATHS, VALUES),
    st.builds(delete, PATHS),
    st.builds(rollback, st.just("r"), st.integers(-3, -1)),
)

MISSING = object()


def at(tree: Any, path: Path) -> Any:
    for oid in path:
        if not isinstance(tree, dict) or oid not in tree:
            return MISSING
        tree = tree[oid]
    return tree


def kept_trees(store: Store) -> dict[int, Any]:
    """The whole tree of `r` at every version, kept or not, as plain data; None where it was deleted."""
    found = {}
    for version in store.roots["r"].trees:
        try:
            found[version] = value(store, "r", version)
        except errors.NotFound:
            found[version] = MISSING
    return found


def since(history: list[Any], version: int, path: Path) -> int:
    """The version of the last change at or below `path`: since when its value stands without a break."""
    now = at(history[version], path)
    while version and at(history[version - 1], path) == now:
        version -= 1
    return version


def expected(history: list[Any], versions: list[int], path: Path) -> set[tuple[Path, int, str, int]]:
    found = set()
    for version in versions:
        waiting = [path]
        while waiting:
            here = waiting.pop()
            tree = at(history[version], here[1:])
            if isinstance(tree, dict):
                for oid in tree:
                    below = (*here, oid)
                    found.add(
                        (here, since(history, version, here[1:]), oid, since(history, version, below[1:]))
                    )
                    waiting.append(below)
    return found


@given(st.lists(OPS, min_size=1, max_size=12), PATHS, st.integers(1, 8))
def test_the_graph_is_that_of_a_model(ops: list[Op], text: str, keep: int) -> None:
    path = tuple(text.split("."))
    store = stored(put("r", {"a": 0}), kept=Kept(keep, keep))
    history: list[Any] = [{"a": 0}]
    for op in ops:
        try:
            written = write(store, op, session="s1")
        except errors.TegaError:
            continue
        if written.commit is not None:
            store = written.store
            history.append(kept_trees(store)[len(history)])
    versions = list(store.roots["r"].trees)
    present = [each for each in versions if at(history[each], path[1:]) is not MISSING]
    if not present:
        with pytest.raises(errors.NotFound):
            core.edges(store, path)
        return
    found = core.edges(store, path)
    assert len(set(found)) == len(found)
    assert {tuple(each) for each in found} == expected(history, present, path)
    for version in present:
        alone = core.edges(store, path, version)
        assert {tuple(each) for each in alone} == expected(history, [version], path)


def test_versions_share_what_did_not_change() -> None:
    store = stored(put("r.a", {"x": 1}), put("r.b", 2), put("r.b", 3))
    assert [tuple(each) for each in core.edges(store, ("r",))] == [
        (("r",), 0, "a", 0),
        (("r", "a"), 0, "x", 0),
        (("r",), 1, "a", 0),
        (("r",), 1, "b", 1),
        (("r",), 2, "a", 0),
        (("r",), 2, "b", 2),
    ]
    assert len(core.edges(store, ("r", "a"))) == 1
    assert core.edges(store, ("r", "b")) == []


@pytest.mark.parametrize(
    ("path", "version", "error"),
    [
        (("x",), None, errors.NotFound),
        (("r", "x"), None, errors.NotFound),
        (("r",), 9, errors.NotFound),
        (("r",), 0, errors.Compacted),
    ],
)
def test_what_is_not_there(path: Path, version: int | None, error: type[errors.TegaError]) -> None:
    store = stored(put("r.a", 1), put("r.a", 2), put("r.a", 3), kept=Kept(2, 2))
    with pytest.raises(error):
        core.edges(store, path, version)


def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(put("r", {str(each): each for each in range(5)}))
    assert len(core.edges(store, ("r",))) == 5
    monkeypatch.setattr(graph, "MAX_EDGES", 4)
    with pytest.raises(errors.TooLarge, match="more than 4 edges"):
        core.edges(store, ("r",))
    monkeypatch.setattr(graph, "MAX_EDGES", 5)
    monkeypatch.setattr(graph, "MAX_OID_TEXT", 9)
    with pytest.raises(errors.TooLarge, match="9 characters of paths"):
        core.edges(store, ("r",))
