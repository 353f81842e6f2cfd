"""What a client owns at the node besides its subscriptions: ephemeral nodes and handlers.

They end with the session, so a client remembers them and gives them to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tega_zmq.paths import Path
from tega_zmq.wire.messages import OpField

__all__ = ["Belongings", "merge"]


class Belongings:
    """The ephemeral nodes and handlers of one client."""

    def __init__(self) -> None:
        self.ephemerals: dict[Path, Any] = {}
        """By path, the value that was put there last."""
        self.handlers: dict[Path, Callable[..., Any]] = {}

    def wrote(self, ops: Iterable[OpField]) -> None:
        """The node applied `ops`, which this client sent: remember or forget ephemeral nodes."""
        for kind, path, value, _, ephemeral in ops:
            if kind == "put" and ephemeral:
                self._forget(path)
                self.ephemerals[path] = value
            elif not self.ephemerals:
                continue
            elif kind == "delete":
                self._forget(path)
                self._change(path, None, gone=True)
            elif kind == "put":
                self.ephemerals.pop(path, None)
                self._change(path, value)
            elif kind == "patch":
                self._patch(path, value)

    def _forget(self, path: Path) -> None:
        depth = len(path)
        for each in [each for each in self.ephemerals if each[:depth] == path]:
            del self.ephemerals[each]

    def _owner(self, path: Path) -> Path | None:
        """Return the ephemeral node at or above `path`."""
        return next(
            (path[:depth] for depth in range(len(path), 0, -1) if path[:depth] in self.ephemerals), None
        )

    def _change(self, path: Path, value: Any, *, gone: bool = False) -> None:
        """What stands at `path`, within an ephemeral node, is `value` now."""
        owner = self._owner(path)
        if owner is None:
            return
        patch: Any = _Whole(None, True) if gone else _Whole(value, False)
        for oid in reversed(path[len(owner) :]):
            patch = {oid: patch}
        self.ephemerals[owner] = merge(self.ephemerals[owner], patch)

    def _patch(self, path: Path, value: Any) -> None:
        owner = self._owner(path)
        if owner is not None:
            for oid in reversed(path[len(owner) :]):
                value = {oid: value}
            self.ephemerals[owner] = merge(self.ephemerals[owner], value)
            return
        depth = len(path)
        for each in [each for each in self.ephemerals if each[:depth] == path]:
            part = value
            for oid in each[depth:]:
                part = part.get(oid, _Missing) if isinstance(part, dict) else _Missing
            if part is None:
                del self.ephemerals[each]
            elif part is not _Missing:
                self.ephemerals[each] = merge(self.ephemerals[each], part)


class _Missing:
    """Stands for no value."""


class _Whole:
    """In a patch: replaces what was there, or removes it, instead of merging."""

    __slots__ = ("gone", "value")

    def __init__(self, value: Any, gone: bool) -> None:
        self.value = value
        self.gone = gone


def merge(value: Any, patch: Any) -> Any:
    """Return `value` with the JSON merge patch `patch` applied (RFC 7396). Neither is changed."""
    if isinstance(patch, _Whole):
        return patch.value
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for oid, part in patch.items():
        if part is None or (isinstance(part, _Whole) and part.gone):
            merged.pop(oid, None)
        else:
            merged[oid] = merge(merged.get(oid), part)
    return merged
