"""How differences look: as a tree, leaf by leaf, in numbers, as plain data, and as a JSON Patch.

Differences are `tega_zmq.client.results.Difference`: the topmost paths at which two trees are not the same.
They do not overlap, so that their order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tega_zmq import values
from tega_zmq.client.results import Difference
from tega_zmq.paths import Path, format_oid, format_path, parse
from tega_zmq.shell.output import Paint, flow, leaves, safe

__all__ = [
    "FORMS",
    "between",
    "change_data",
    "counts",
    "in_order",
    "leaf_text",
    "patch_of",
    "plural",
    "stat_text",
    "tree_text",
]

FORMS = ("tree", "leaves", "stat", "patch")
"""The ways in which a command shows differences."""

_STEP = "  "


def change_data(change: Any) -> dict[str, Any]:
    """Return a difference as plain data; `old` and `new` are left out where there is nothing."""
    data: dict[str, Any] = {"path": change.path}
    if not change.created:
        data["old"] = change.old
    if not change.deleted:
        data["new"] = change.new
    return data


def in_order(changes: Iterable[Difference]) -> list[Difference]:
    """Return differences in order of path; a node tells them in none."""
    return sorted(changes, key=_oids)


def between(old: Any, new: Any, at: Path = ()) -> list[Difference]:
    """Return what leads from one tree of a root to another, as a node tells it; None: the root is not there.

    In order of path; paths begin with `at`.
    """
    found: list[Difference] = []
    _compare(at, _NOTHING if old is None else old, _NOTHING if new is None else new, found)
    return found


_NOTHING: Any = object()


def _compare(path: Path, old: Any, new: Any, found: list[Difference]) -> None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for oid in sorted({*old, *new}):
            _compare((*path, oid), old.get(oid, _NOTHING), new.get(oid, _NOTHING), found)
        return
    created, deleted = old is _NOTHING, new is _NOTHING
    if (created and deleted) or (not created and not deleted and values.same(old, new)):
        return
    sides = (None if created else old, None if deleted else new)
    found.append(Difference(format_path(path), *sides, created=created, deleted=deleted))


# -- for people ------------------------------------------------------------------------------------


def leaf_text(changes: Iterable[Any], paint: Paint) -> str:
    """Return differences leaf by leaf, as lines that begin with `+` or `-`."""
    lines: list[str] = []
    for change in changes:
        if not change.created:
            lines += [paint(f"- {line}", "red") for line in _leaf_lines(change.path, change.old)]
        if not change.deleted:
            lines += [paint(f"+ {line}", "green") for line in _leaf_lines(change.path, change.new)]
    return "\n".join(lines)


def _leaf_lines(path: str, value: Any) -> list[str]:
    return [safe(f"{at or '.'}: {flow(leaf)}", lines=False) for at, leaf in leaves(path, value)]


def tree_text(changes: Iterable[Any], paint: Paint) -> str:
    """Return differences as one tree in the manner of YAML; only what differs, and the oids above it.

    A line begins with `-` or `+` if it stands only in the older or newer tree, else with a space.
    """
    lines: list[str] = []
    above: Path = ()
    for path, change in sorted(((_oids(each), each) for each in changes), key=lambda each: each[0]):
        shared = 0
        while shared < min(len(above), len(path) - 1) and above[shared] == path[shared]:
            shared += 1
        lines += [_line(" ", depth, f"{format_oid(path[depth])}:") for depth in range(shared, len(path) - 1)]
        above = path[:-1]
        oid, depth = (path[-1], len(path) - 1) if path else (None, 0)
        if not change.created:
            lines += [paint(_line("-", at, text), "red") for at, text in _nested(oid, change.old, depth)]
        if not change.deleted:
            lines += [paint(_line("+", at, text), "green") for at, text in _nested(oid, change.new, depth)]
    return "\n".join(lines)


def _oids(change: Any) -> Path:
    return parse(change.path) if change.path else ()


def _line(sign: str, depth: int, text: str) -> str:
    return safe(f"{sign} {_STEP * depth}{text}", lines=False)


def _nested(oid: str | None, value: Any, depth: int) -> Iterable[tuple[int, str]]:
    """Yield depth and text of the lines for `value` at `oid`."""
    if isinstance(value, Mapping) and value:
        if oid is not None:
            yield depth, f"{format_oid(oid)}:"
            depth += 1
        for each, child in sorted(value.items()):  # a tree keeps no order
            yield from _nested(each, child, depth)
    else:
        yield depth, flow(value) if oid is None else f"{format_oid(oid)}: {flow(value)}"


def counts(changes: Iterable[Any]) -> tuple[int, int, int]:
    """Return how many leaves and empty containers were added, removed, changed."""
    added = removed = changed = 0
    for change in changes:
        before = set() if change.created else {path for path, _ in leaves("", change.old)}
        after = set() if change.deleted else {path for path, _ in leaves("", change.new)}
        both = len(before & after)  # of one difference: a leaf that became another, at the path itself
        added, removed, changed = added + len(after) - both, removed + len(before) - both, changed + both
    return added, removed, changed


def stat_text(changes: Iterable[Any], paint: Paint) -> str:
    """Return a line for each oid right below the top, with what was added, removed, changed; then the sum."""
    groups: dict[str, list[Any]] = {}
    for change in changes:
        oids = _oids(change)
        groups.setdefault(format_oid(oids[0]) if oids else ".", []).append(change)
    if not groups:
        return "no difference"
    width = max(len(safe(name, lines=False)) for name in groups)
    numbers = [(safe(name, lines=False), counts(each)) for name, each in sorted(groups.items())]
    lines = [f"{name:{width}}  {_signs(number, paint)}" for name, number in numbers]
    added, removed, changed = (sum(number[at] for _, number in numbers) for at in range(3))
    lines.append(f"{plural(added, 'leaf', 'leaves')} added, {removed} removed, {changed} changed")
    return "\n".join(lines)


def _signs(numbers: tuple[int, int, int], paint: Paint) -> str:
    shown = zip(numbers, ("+", "-", "~"), ("green", "red", "yellow"), strict=True)
    return " ".join(paint(f"{sign}{number}", colour) for number, sign, colour in shown if number)


def plural(count: int, one: str, more: str = "") -> str:
    """Return `count` with its noun: `1 change`, `2 changes`."""
    return f"{count} {one if count == 1 else more or one + 's'}"


# -- for programs ----------------------------------------------------------------------------------


def patch_of(changes: Iterable[Any]) -> list[dict[str, Any]]:
    """Return differences as a JSON Patch (RFC 6902) that makes the newer tree of the older one.

    Pointers (RFC 6901) begin at what was compared. A list is a leaf: it is replaced as a whole. What is
    created at the very top replaces the document, as `add` with an empty pointer does.
    """
    patch: list[dict[str, Any]] = []
    for change in changes:
        pointer = "".join("/" + oid.replace("~", "~0").replace("/", "~1") for oid in _oids(change))
        if change.deleted:
            patch.append({"op": "remove", "path": pointer})
        else:
            patch.append({"op": "add" if change.created else "replace", "path": pointer, "value": change.new})
    return patch
