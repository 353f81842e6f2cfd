"""What a write makes of a root, said anew in the simplest way: plain values, no versions, no sharing.

A root is two things here: what lasts, a plain value or None, and the ephemeral nodes laid over it. The
functions take and give the first; nothing is changed in place.
"""

from __future__ import annotations

from typing import Any

from rpds import HashTrieMap

from tega_zmq.paths import Path
from tega_zmq.store import Root
from tega_zmq.tree import Node, pairs

__all__ = ["Refused", "as_plain", "covered", "evaluate", "lasting", "narrow", "same"]


class Refused(Exception):
    """The model would not carry the operation out."""


def as_plain(node: Node | None) -> Any:
    """Return the value of a node of the tree; None: there is none."""
    if node is None:
        return None
    content = node[1]
    if type(content) is HashTrieMap:
        return {oid: as_plain(child) for oid, child in pairs(content)}
    return content


def lasting(root: Root, value: Any) -> Any:
    """Return what is left of `value`, the whole value of `root`, without what its ephemeral nodes brought."""
    if not root.ephemerals and not root.born:
        return value
    for path in root.ephemerals:
        value = remove(value, path[1:])
    for path in sorted(root.born, key=len, reverse=True):
        if narrow(value, path[1:]) == {}:
            value = remove(value, path[1:])
    return value


def narrow(value: Any, oids: Path) -> Any:
    """Return what stands at `oids` in `value`; None: nothing."""
    for oid in oids:
        if type(value) is not dict or oid not in value:
            return None
        value = value[oid]
    return value


def there(value: Any, oids: Path) -> bool:
    """Whether anything stands at `oids` in the value of a root."""
    if value is None:
        return False
    for oid in oids:
        if type(value) is not dict or oid not in value:
            return False
        value = value[oid]
    return True


def put(value: Any, oids: Path, new: Any) -> Any:
    """Return `value` with `new` at `oids`."""
    if not oids:
        return new
    if value is not None and type(value) is not dict:
        raise Refused
    changed = dict(value or {})
    below = changed.get(oids[0])
    if oids[0] in changed and below is None and len(oids) > 1:
        raise Refused  # a stored null is a leaf
    changed[oids[0]] = put(below, oids[1:], new)
    return changed


def remove(value: Any, oids: Path) -> Any:
    """Return `value` without what stands at `oids`."""
    if not there(value, oids):
        return value
    if not oids:
        return None
    changed = dict(value)
    if len(oids) == 1:
        del changed[oids[0]]
    else:
        changed[oids[0]] = remove(changed[oids[0]], oids[1:])
    return changed


def merge(value: Any, new: Any) -> Any:
    """Return `value` with the merge patch `new` (RFC 7396)."""
    if type(new) is not dict:
        return new
    merged = dict(value) if type(value) is dict else {}
    for oid, part in new.items():
        if part is None:
            merged.pop(oid, None)
        else:
            merged[oid] = merge(merged.get(oid), part)
    return merged


def evaluate(value: Any, op: Any, restored: Any) -> Any:
    """Return what lasts in a root after `op` (as in a `Write` on the wire) on `value`.

    `restored`: what lasted in the version that a rollback names.
    """
    kind, path, new, _, ephemeral = op
    oids = path[1:]
    if kind == "put":
        return remove(value, oids) if ephemeral else put(value, oids, new)
    if kind == "patch":
        return put(value, oids, merge(narrow(value, oids), new))
    if kind == "delete":
        return remove(value, oids)
    return restored


def covered(path: Path, ops: Any) -> bool:
    """Whether one of `ops` is about the ephemeral node at `path`: deletes it, or writes at or in it."""
    for kind, at, _, _, ephemeral in ops:
        if kind == "rollback":
            continue
        if at[: len(path)] == path:
            return True
        if path[: len(at)] == at and (kind in ("delete", "patch") or ephemeral):
            return True
    return False


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, and of the same types."""
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return one.keys() == other.keys() and all(same(each, other[oid]) for oid, each in one.items())
    if type(one) is list:
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
