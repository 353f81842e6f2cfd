"""The graph of nodes and versions: what is in it, and that it can be drawn."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tega_zmq import errors, graph, store
from tega_zmq.client import requests
from tega_zmq.client.results import Edges
from tests.storekit import delete, patch, put, rollback, stored

STORY = (
    put("r", {"a": {"x": 1, "y": 2}, "b": {"z": 1}}),
    put("r.a.x", 2),
    patch("r", {"c": 1}),
    rollback("r", 1),
)


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")


def edges_of(*ops: Any, path: tuple[str, ...] = ("r",)) -> Edges:
    """What `tega.edges` returns after these operations."""
    return requests.as_edges([[list(each) for each in store.edges(stored(*ops), path)], None])


def test_versions_share_nodes() -> None:
    found = graph.digraph(edges_of(*STORY))
    states = {name: about["state"] for name, about in found.nodes.items()}
    assert states == {
        "r@0": "past",
        "r.a@0": "past",
        "r.a.x@0": "past",
        "r@1": "past",
        "r@2": "past",
        "r.c@2": "past",
        "r@3": "now",
        "r.a@1": "shared",
        "r.a.x@1": "shared",
        "r.a.y@0": "shared",
        "r.b@0": "shared",
        "r.b.z@0": "shared",
    }
    assert set(found.predecessors("r.b@0")) == {"r@0", "r@1", "r@2", "r@3"}
    assert found.edges["r@0", "r.b@0"]["oid"] == "b"
    assert found.nodes["r.a.x@1"]["path"] == ("r", "a", "x") and found.nodes["r.a.x@1"]["version"] == 1


def test_places_are_versions_and_paths() -> None:
    found = graph.digraph(edges_of(*STORY))
    where = graph.places(found)
    assert len(set(where.values())) == len(where)
    for name, about in found.nodes.items():
        assert where[name][0] == about["version"]
    for parent, child in found.edges:
        assert where[child][1] < where[parent][1] and where[child][0] <= where[parent][0]


def test_a_picture_says_which_nodes_are_old() -> None:
    ax = graph.draw(edges_of(*STORY))
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows == ["r", ".a", ".a.x", ".a.y", ".b", ".b.z", ".c"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2", "3"]
    drawn = {each.get_label().split()[0]: len(each.get_offsets()) for each in ax.collections}
    assert drawn == {"new": 1, "shared": 5, "in": 6}
    close(ax)


def close(ax: Any) -> None:
    from matplotlib import pyplot as plt

    ax.figure.canvas.draw()
    plt.close(ax.figure)


@settings(max_examples=10)
@example("$\\frac{$")
@example("$^$")
@given(st.text("ab$\\{}^_%<\n", min_size=1, max_size=60).filter(lambda oid: not oid.startswith("_")))
def test_names_are_never_read_as_formulas(oid: str) -> None:
    close(graph.draw(edges_of(put("r", {"$x$": {"y": 1}})) + requests.as_edges([[[["r"], 1, oid, 0]], None])))


def test_a_leaf_has_an_empty_graph() -> None:
    assert len(graph.digraph(edges_of(put("r.a", 1), delete("r.a"), path=("r", "a")))) == 0
    close(graph.draw(Edges()))


def test_too_many_nodes_are_refused() -> None:
    many = edges_of(put("r", {str(each): each for each in range(graph.MAX_DRAWN)}))
    with pytest.raises(errors.InvalidValue, match="401 nodes are too many"):
        graph.draw(many)


@pytest.mark.parametrize("missing", ["networkx", "matplotlib"])
def test_a_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setitem(sys.modules, f"{missing}.pyplot", None)
    with pytest.raises(errors.InvalidValue, match=rf"{missing}.*pip install 'tega-zmq\[notebook\]'"):
        graph.draw(edges_of(*STORY))
