"""A revision of the tree as one document, also from a broken folder as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tega_zmq.check.survey import Survey, load_base
from tega_zmq.errors import NotFound, TegaError
from tega_zmq.log import salvage
from tega_zmq.log.disk import Disk
from tega_zmq.log.records import decode_record
from tega_zmq.log.scan import FoundSnapshot
from tega_zmq.store.applying import apply
from tega_zmq.store.draft import lasting
from tega_zmq.store.model import Commit, Store
from tega_zmq.tree.node import pairs, plain

__all__ = ["at_revision", "document", "reach"]


def document(state: Store) -> dict[str, Any]:
    """Return `{root: tree}` of the present, without ephemeral nodes: what `tega import` takes."""
    made = {}
    for name, root in pairs(state.roots):
        node = lasting((root.node, root.ephemerals, root.born))
        if node is not None:
            made[name] = plain(node)
    return made


def at_revision(disk: Disk, found: Survey, revision: int) -> Store:
    """Return the store as it was at `revision`, with all records before the commit after it.

    Raises `NotFound` if no file leads there, and says which revisions there are; `OSError`.
    """
    if revision == found.state.revision:
        return found.state
    for base in _bases(found, revision):
        try:
            state = load_base(disk, found.folder, base)
        except TegaError:
            continue
        for record in _records(disk, found, base):
            if type(record) is Commit and record.revision > revision:
                break
            try:
                state = apply(state, record)
            except TegaError:
                break
        if state.revision == revision:
            return state
    parts = ", ".join(f"{low} to {high}" if low < high else str(low) for low, high in reach(disk, found))
    raise NotFound(
        f"revision {revision} is not in {found.folder}; there are {parts or 'none'}", version=revision
    )


def reach(disk: Disk, found: Survey) -> list[tuple[int, int]]:
    """Return the ranges of revisions that can be exported, in order. Raises `OSError`."""
    ranges: list[tuple[int, int]] = []
    for base in _bases(found, None):
        low = high = _revision(base)
        for record in _records(disk, found, base):
            if type(record) is Commit:
                high = record.revision
        if base is found.base:
            high = min(high, found.state.revision)
        ranges.append((low, high))
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _revision(base: FoundSnapshot | None) -> int:
    return 0 if base is None or base.revision is None else base.revision


def _bases(found: Survey, revision: int | None) -> Iterator[FoundSnapshot | None]:
    """Yield what may lead to `revision` (None: to any), the nearest first; None is the empty store."""
    for base in salvage.bases(found.found, found.store):
        if revision is None or _revision(base) <= revision:
            yield base
    if salvage.longest(found.found, found.store, None) or found.last == 0:
        yield None


def _records(disk: Disk, found: Survey, base: FoundSnapshot | None) -> Iterator[Any]:
    for run in salvage.longest(found.found, found.store, base):
        for _, _, payload in salvage.read(disk, found.folder, run):
            try:
                yield decode_record(payload)
            except TegaError:
                return
