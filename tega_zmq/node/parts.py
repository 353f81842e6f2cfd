"""A `Changed` that is too large for a frame, in parts.

All parts but the last carry `previous` as their `version`: the subscriber goes on only with the last one, so
that all of them are said again if the connection is lost between two. A change that is too large by itself is
told as the changes below it, without the old value of what is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tega_zmq import values
from tega_zmq.wire.messages import Changed, ChangeField, Maybe

SIZE = 2 << 20
"""Bytes of values that one part holds, about; a larger leaf makes a part of its own."""


def of(changed: Changed) -> Iterator[Changed]:
    """Yield the messages that say together what `changed` says. If it is a part itself, there are none."""
    previous = -1 if changed.reset else changed.previous
    if changed.version == previous:
        return
    part: list[ChangeField] = []
    size = 0
    for change in changed.changes:
        for piece in _pieces(change):
            weight = _weight(piece)
            if part and size + weight > SIZE:
                yield changed._replace(previous=previous, version=previous, changes=tuple(part))
                part, size = [], 0
            part.append(piece)
            size += weight
    yield changed._replace(changes=tuple(part))


def _weight(change: ChangeField) -> int:
    path, old, new, _ = change
    return 32 + sum(map(len, path)) + sum(values.size(side[0]) for side in (old, new) if side)


def _pieces(change: ChangeField) -> Iterator[ChangeField]:
    """Yield changes of at most `SIZE` bytes, or single leaves, that come to the same as `change`."""
    if _weight(change) <= SIZE:
        yield change
        return
    path, old, new, session = change
    was = old[0] if old else None
    if not new or type(new[0]) is not dict:
        yield path, _shallow(old), new, session
        return
    if type(was) is not dict:
        yield path, _shallow(old), ({},), session
        was = {}
    for oid in [*was, *(oid for oid in new[0] if oid not in was)]:
        before, after = _at(was, oid), _at(new[0], oid)
        if not (before and after and values.same(before[0], after[0])):
            yield from _pieces(((*path, oid), before, after, session))


def _at(value: dict[str, Any], oid: str) -> Maybe:
    return (value[oid],) if oid in value else ()


def _shallow(old: Maybe) -> Maybe:
    """Return the old value, or what is left of it where it was large."""
    return ({},) if old and type(old[0]) is dict else old
