"""What a client returns, as HTML for a notebook.

Keys, values and messages come from anybody on the wire: every text goes through `text`, and nothing else that
is not of this module gets into the markup. Colours are those of the page around, with translucent accents, so
that it can be read in light and dark. What is shown is bounded; a note says what was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import islice
from reprlib import Repr
from typing import Any, Final

__all__ = ["MAX_DEPTH", "MAX_NODES", "MAX_ROWS", "MAX_TEXT", "leaf", "page", "table", "text", "tree", "when"]

MAX_NODES = 1000
"""Most nodes that one tree shows."""

MAX_DEPTH = 48
"""Most containers within one another that a tree shows."""

MAX_TREES = 20
"""Most trees that stand below one another."""

MAX_CHANGES = 50
"""Most changes that one commit of a log shows."""

MAX_ROWS = 200
"""Most rows that one table shows."""

MAX_TEXT = 400
"""Most characters that one key, leaf or message shows."""

OPEN_NODES: Final = 40
"""Most nodes of a tree that shows itself unfolded."""

_PAGE: Final = "font-family:monospace;line-height:1.5;text-align:left"
_NOTE: Final = "opacity:.65"
_CELL: Final = "text-align:left;vertical-align:top;padding:2px 10px 2px 2px;border-bottom:1px solid #8885"
_BELOW: Final = "margin-left:.5em;padding-left:1em;border-left:1px solid #8885"
NEW: Final = "background:#2a52"
"""Style of what was added."""
OLD: Final = "background:#d332"
"""Style of what is gone."""


_SHORT: Final = Repr()
"""Writes lists and what they hold, bounded."""
_SHORT.maxlevel = 8
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 60
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = MAX_TEXT + 2


def text(value: str) -> str:
    """Return `value`, cut at `MAX_TEXT` characters, as HTML; what cannot be printed is shown as an escape.

    That also takes the marks that turn the direction of writing, which would put what follows in another
    place than it stands in.
    """
    cut = value[:MAX_TEXT]
    if not cut.isprintable():
        cut = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut)
    if len(value) > MAX_TEXT:
        cut += f"\u2026 ({len(value)} characters)"
    return escape(cut)


def leaf(value: Any) -> str:
    """Return a leaf, or a whole small tree on one line, as HTML, the way Python writes it."""
    if type(value) is str and len(value) > MAX_TEXT:
        return escape(repr(value[:MAX_TEXT])) + note(f" cut, of {len(value)} characters")
    try:
        return text(_SHORT.repr(value))
    except ValueError:  # an integer of thousands of digits, which Python does not write
        return note(f"a large {type(value).__name__}")


def note(words: str) -> str:
    """Return a remark of this module's own, as HTML."""
    return f'<span style="{_NOTE}">{text(words)}</span>'


def when(seconds: float) -> str:
    """Return Unix seconds as a time in UTC, as HTML; the number itself if no calendar has it."""
    try:
        return text(datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S"))
    except (ValueError, OverflowError, OSError, TypeError):
        return leaf(seconds)


def page(*parts: str) -> str:
    """Return parts, already HTML, as what one cell of a notebook shows.

    The class names keep the notebook from typesetting what stands between dollar signs.
    """
    return f'<div class="tex2jax_ignore mathjax_ignore" style="{_PAGE}">{"".join(parts)}</div>'


def tree(value: Any, title: str) -> str:
    """Return a plain tree under its title (HTML), containers folded away below their names."""
    if not isinstance(value, dict):
        return f"<div>{title}: {leaf(value)}</div>"
    left = [MAX_NODES]
    small = _count(value, OPEN_NODES + 1) <= OPEN_NODES
    return _folded(title, value, True, small, left, 0)


def trees(named: Sequence[tuple[str, Any]], what: str) -> str:
    """Return plain trees, each under its path; `what` names them where there are none, or too many."""
    if not named:
        return f"<div>{note(f'no {what}')}</div>"
    shown = [tree(value, f"<b>{text(path)}</b>") for path, value in named[:MAX_TREES]]
    if len(named) > MAX_TREES:
        shown.append(f"<div>{note(f'... {len(named) - MAX_TREES} more {what}, not shown')}</div>")
    return "".join(shown)


def _count(value: dict[str, Any], limit: int) -> int:
    """Return how many nodes are in a tree; no more than `limit` of them are looked at."""
    found = 0
    waiting: list[Any] = [value]
    while waiting and found < limit:
        each = waiting.pop()
        if isinstance(each, dict):
            found += len(each)
            waiting.extend(islice(each.values(), limit))
    return found


def _folded(
    title: str, value: dict[str, Any], unfolded: bool, all_unfolded: bool, left: list[int], depth: int
) -> str:
    """Return a container; `left` counts how many nodes may still be shown."""
    if not value:
        return f"<div>{title} {note('{}')}</div>"
    if depth >= MAX_DEPTH:
        return f"<div>{title} {note(f'{len(value)} below, too deep to be shown')}</div>"
    lines: list[str] = []
    for shown, (oid, item) in enumerate(value.items()):
        if left[0] <= 0:
            lines.append(f"<div>{note(f'... {len(value) - shown} more, not shown')}</div>")
            break
        left[0] -= 1
        name = f"<b>{text(str(oid))}</b>"
        if isinstance(item, dict):
            lines.append(_folded(name, item, all_unfolded, all_unfolded, left, depth + 1))
        else:
            lines.append(f"<div>{name}: {leaf(item)}</div>")
    state = " open" if unfolded else ""
    return (
        f"<details{state}><summary>{title} {note(f'({len(value)})')}</summary>"
        f'<div style="{_BELOW}">{"".join(lines)}</div></details>'
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], count: int, what: str) -> str:
    """Return a table of `count` rows whose cells are HTML already; no more than `MAX_ROWS` are asked for.

    `what` names the rows in what stands below it when there are more, or above it when there are none.
    """
    if not count:
        return f"<div>{note(f'no {what}')}</div>"
    top = "".join(f'<th style="{_CELL}">{text(each)}</th>' for each in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) + "</tr>"
        for row in islice(rows, MAX_ROWS)
    )
    more = f"<div>{note(f'... {count - MAX_ROWS} more {what}, not shown')}</div>" if count > MAX_ROWS else ""
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{more}"


def side(value: Any, there: bool, style: str) -> str:
    """Return one side of a difference; nothing where nothing stands."""
    return f'<span style="{style}">{leaf(value)}</span>' if there else ""


def difference(path: str, old: Any, new: Any, created: bool, deleted: bool) -> tuple[str, str, str]:
    """Return the cells of one difference: path, old, new."""
    return f"<b>{text(path)}</b>", side(old, not created, OLD), side(new, not deleted, NEW)


def changes(made: Sequence[tuple[str, Any, bool]], left_out: int = 0) -> str:
    """Return what a commit made: (path, new value, is it gone) of each change; more than one are folded.

    `left_out`: how many more there were.
    """
    lines = [
        f'<div><span style="{OLD}"><b>{text(path)}</b> deleted</span></div>'
        if gone
        else f'<div><b>{text(path)}</b>: <span style="{NEW}">{leaf(new)}</span></div>'
        for path, new, gone in made[:MAX_CHANGES]
    ]
    more = max(0, len(made) - MAX_CHANGES) + left_out
    if more:
        lines.append(f"<div>{note(f'... {more} more, not shown')}</div>")
    count = len(made) + left_out
    if count <= 1:
        return "".join(lines)
    return f"<details><summary>{count} changes</summary>{''.join(lines)}</details>"
