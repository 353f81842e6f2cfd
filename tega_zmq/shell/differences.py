"""How differences look: as a tree, leaf by leaf, in numbers, as plain data, and as a JSON Patch.

Differences are `tega_zmq.client.results.Difference`: the topmost paths at which two trees are not the same.
They do not overlap, so that their order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tega_zmq.client.results import Difference
from tega_zmq.paths import Path, format_oid, parse
from tega_zmq.shell.output import Paint, flow, leaves, safe
from tega_zmq.values import same

__all__ = [
    "FORMS",
    "change_data",
    "counts",
    "differences",
    "leaf_text",
    "patch_of",
    "plural",
    "stat_text",
    "tree_text",
]

FORMS = ("tree", "leaves", "stat", "patch")
"""The ways in which a command shows differences."""

_STEP = "  "


def differences(at: str, old: Any, new: Any) -> Iterator[Difference]:
    """Yield the topmost paths, `at` or below, at which two values are not the same: as a node compares."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        if not same(old, new):
            yield Difference(at, old, new, created=False, deleted=False)
        return
    for oid in [*old, *(oid for oid in new if oid not in old)]:
        path = f"{at}.{format_oid(oid)}" if at else format_oid(oid)
        if oid not in new:
            yield Difference(path, old[oid], None, created=False, deleted=True)
        elif oid not in old:
            yield Difference(path, None, new[oid], created=True, deleted=False)
        else:
            yield from differences(path, old[oid], new[oid])


def change_data(change: Any) -> dict[str, Any]:
    """Return a difference as plain data; `old` and `new` are left out where there is nothing."""
    data: dict[str, Any] = {"path": change.path}
    if not change.created:
        data["old"] = change.old
    if not change.deleted:
        data["new"] = change.new
    return data


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
