"""How commands show differences: the options that diff, cand, import and rollback have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tega_zmq.shell.differences import (
    change_data,
    counts,
    in_order,
    leaf_text,
    patch_of,
    stat_text,
    tree_text,
)
from tega_zmq.shell.output import Result, to_json
from tega_zmq.shell.spec import Argument, UsageError

__all__ = ["FORMS", "shown"]

FORMS = (
    Argument("--leaves", "flag", "a line for each leaf, with its whole path"),
    Argument("--stat", "flag", "only how much was added, removed and changed"),
    Argument("--patch", "flag", "a JSON Patch (RFC 6902)"),
)
"""Options of a command that shows differences."""


def shown(changes: Sequence[Any], args: argparse.Namespace, nothing: str) -> Result:
    """Return how `changes` are shown; `nothing` is said if there are none. Raises `UsageError`."""
    if args.leaves + args.stat + args.patch > 1:
        raise UsageError("--leaves, --stat and --patch: give one of them")
    changes = in_order(changes)
    if args.patch:
        patch = patch_of(changes)
        return Result(patch, to_json(patch, indent=True))
    if args.stat:
        added, removed, changed = counts(changes)
        data = {"added": added, "removed": removed, "changed": changed}
        return Result(data, lambda paint: stat_text(changes, paint) if changes else nothing)
    form = leaf_text if args.leaves else tree_text
    return Result(
        [change_data(change) for change in changes],
        lambda paint: form(changes, paint) if changes else nothing,
    )
