"""The graph of nodes and versions as a picture: `draw(tega.edges("config-pi1"))` in a notebook.

Needs networkx and matplotlib: `pip install 'tega-zmq[notebook]'`. They are loaded when a function is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from tega_zmq.client.results import Edge
from tega_zmq.errors import InvalidValue
from tega_zmq.paths import Path, parse

__all__ = ["MAX_DRAWN", "digraph", "draw"]

MAX_DRAWN: Final = 400
"""Most nodes that can be drawn; a larger picture would take long and show nothing."""

_MAX_LABEL: Final = 32
"""Most characters of a path beside its row; its end says most."""

NOW: Final = "#3b82f6"
"""A node that came with the newest version."""
SHARED: Final = "#22c55e"
"""A node that the newest version shares with older ones."""
PAST: Final = "#9ca3af"
"""A node of older versions alone."""


def digraph(edges: Iterable[Edge]) -> Any:
    """Return a `networkx.DiGraph` of edges as `tega.edges` returns them, each node once.

    Nodes are named `PATH@VERSION`, and have `path` (a tuple of oids), `version`, and `state`: "now" (only the
    newest version has it), "shared" (the newest and older ones) or "past" (older ones alone). Edges have
    `oid`. Newest is the newest version in which the top is there. Raises `InvalidValue` if networkx is
    missing.
    """
    networkx = _load("networkx")
    graph = networkx.DiGraph()
    for parent, oid, child in edges:
        graph.add_edge(parent, child, oid=oid)
    for name, about in graph.nodes.items():
        path, _, version = name.rpartition("@")
        about["path"] = parse(path)
        about["version"] = int(version)
    tops = [name for name, degree in graph.in_degree() if not degree]
    if not tops:
        return graph
    newest = max(tops, key=lambda name: graph.nodes[name]["version"])
    present = {newest, *networkx.descendants(graph, newest)}
    past = {name for top in tops if top != newest for name in (top, *networkx.descendants(graph, top))}
    for name, about in graph.nodes.items():
        about["state"] = "past" if name not in present else "shared" if name in past else "now"
    return graph


def places(graph: Any) -> dict[str, tuple[float, float]]:
    """Return where each node of `digraph` is drawn: versions from left to right, paths from above.

    A path has a row of its own, below the container that it is in; a node stands in the column of the version
    that made it. So a line back to the left leads to what a newer version shares with an older one.
    """
    paths = sorted({about["path"] for about in graph.nodes.values()})
    versions = sorted({about["version"] for about in graph.nodes.values()})
    row = {path: float(at) for at, path in enumerate(paths)}
    column = {version: float(at) for at, version in enumerate(versions)}
    return {name: (column[about["version"]], -row[about["path"]]) for name, about in graph.nodes.items()}


def draw(edges: Iterable[Edge], ax: Any = None) -> Any:
    """Draw edges as `tega.edges` returns them, and return the matplotlib axes.

    `ax`: the axes to draw into; by default those of a new figure. Columns are versions, rows are paths.
    Blue is new in the newest version, green is shared with older ones, grey is past. Raises `InvalidValue` if
    networkx or matplotlib is missing, or beyond `MAX_DRAWN` nodes.
    """
    graph = digraph(edges)
    if len(graph) > MAX_DRAWN:
        raise InvalidValue(
            f"{len(graph)} nodes are too many to draw, {MAX_DRAWN} are the most; draw the edges of a part"
        )
    where = places(graph)
    rows = sorted({(-y, graph.nodes[name]["path"]) for name, (_, y) in where.items()})
    columns = sorted({(x, graph.nodes[name]["version"]) for name, (x, _) in where.items()})
    if ax is None:
        size = (3.0 + 0.9 * len(columns), 0.8 + 0.36 * len(rows))
        _, ax = _load("matplotlib.pyplot").subplots(figsize=size)
    states = {name: about["state"] for name, about in graph.nodes.items()}
    for parent, child in graph.edges:
        ax.annotate("", where[child], where[parent], zorder=1, arrowprops=_arrow(states[parent]))
    for state, colour, label in (
        ("now", NOW, "new in the newest version"),
        ("shared", SHARED, "shared with older versions"),
        ("past", PAST, "in older versions alone"),
    ):
        found = [where[name] for name in graph if states[name] == state]
        if found:
            ax.scatter(*zip(*found, strict=True), s=90, c=colour, label=label, zorder=2)
    top = min((len(path) for _, path in rows), default=1)
    # Oids are anybody's text: no formula is to be read out of dollar signs.
    ax.set_yticks(
        [-row for row, _ in rows],
        [_label(path if len(path) == top else ("", *path[top:])) for _, path in rows],
        parse_math=False,
        fontfamily="monospace",
    )
    ax.set_xticks([column for column, _ in columns], [str(version) for _, version in columns])
    ax.set_xlabel("version")
    ax.margins(0.12, 0.08)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)
    if rows:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    return ax


def _arrow(state: str) -> dict[str, Any]:
    old = state == "past"
    return {
        "arrowstyle": "->",
        "color": PAST if old else NOW,
        "alpha": 0.5 if old else 0.9,
        "linestyle": "dashed" if old else "solid",
        "shrinkA": 6.0,
        "shrinkB": 6.0,
        "connectionstyle": "arc3,rad=0.12",
    }


def _label(path: Path) -> str:
    whole = ".".join(path)
    shown = whole if whole.isprintable() else ascii(whole)[1:-1]
    return shown if len(shown) <= _MAX_LABEL else "\u2026" + shown[1 - _MAX_LABEL :]


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InvalidValue(
            f"drawing needs {name.partition('.')[0]}, which cannot be loaded ({error});"
            " install the extra: pip install 'tega-zmq[notebook]'"
        ) from None
