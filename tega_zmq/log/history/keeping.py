"""What of the history is kept, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tega_zmq.log.history.files import Files, Series
from tega_zmq.log.history.format import file_name
from tega_zmq.store import Root
from tega_zmq.tree.node import pairs

__all__ = ["Policy", "drop"]


class Policy(NamedTuple):
    """What is kept of a root; None: no bound."""

    versions: int | None = None
    seconds: float | None = None
    size: int | None = None
    """Bytes."""


def drop(
    files: Files,
    series: Series,
    root: Root,
    policy: Policy,
    clock: Callable[[], float] | None,
    archive: Callable[[str, str, Iterator[Any]], None] | None,
) -> None:
    """Remove the oldest files of `root`, those of `series`, that nothing asks to keep.

    No file goes that holds a tagged version, nor the newest one. `clock`: Unix seconds; None: nothing is
    dropped by age. `archive` is called with root, file and what is in it before. Raises `OSError`.
    """
    total = 0
    for part, after in reversed([*zip(series.parts, series.parts[1:], strict=False)]):
        file = file_name(root.name, part.number)
        handle = files.disk.open(files.path(file))
        total += handle.size()
        handle.close()
        present = part.line == series.parts[-1].line
        old = (
            (policy.versions is not None and (not present or after.first <= root.version - policy.versions))
            or (policy.size is not None and total > policy.size)
            or (policy.seconds is not None and clock is not None and after.time < clock() - policy.seconds)
        )
        tagged = present and any(part.first <= each <= after.first for _, each in pairs(root.tags))
        if old and not tagged:
            if archive is not None:
                archive(root.name, file, files.read(file))
            files.disk.remove(files.path(file))
            series.parts.remove(part)
