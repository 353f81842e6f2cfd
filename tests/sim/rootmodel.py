"""A model of the roots of one node, for the linearizability checker.

It is written apart from the store: values are plain, a version of a node is found by comparing the whole tree
before and after. Ephemeral nodes are not in it: they come and go with sessions, which are no operations. So
the roots whose history is checked must hold none. A history belongs to one store that loses nothing, so
`sync: always`, no `clear`, and roots whose owner stays the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from typing import Any, Final, NamedTuple, TypeAlias

from rpds import HashTrieMap

from tega_zmq.errors import Collision, Compacted, TegaError
from tests.sim.linearizable import UNKNOWN, Operation

__all__ = [
    "EMPTY",
    "Done",
    "Failed",
    "Read",
    "Roots",
    "Seen",
    "Write",
    "objects",
    "read_operation",
    "step_with",
    "write_operation",
]

Path: TypeAlias = tuple[str, ...]
Node: TypeAlias = tuple[int, Any]
"""(version, text of a leaf or tuple of (oid, child) by ascending oid)."""
OpTuple: TypeAlias = tuple[str, Path, Any, "int | None", bool]
"""As in a `Write` on the wire: (kind, path, value, expected version, ephemeral)."""

ABSENT: Final = -1


# -- actions and results ---------------------------------------------------------------------------


class Write(NamedTuple):
    """A transaction: `ops` as in a `Write` on the wire, none of them ephemeral."""

    ops: tuple[OpTuple, ...]


class Read(NamedTuple):
    """A get of one node, of the present or of a version (negative: counted back from the present)."""

    path: Path
    version: int | None = None


class Done(NamedTuple):
    """A write was done: whether it made a commit, and (root, version) of each root that it names."""

    changed: bool
    versions: tuple[tuple[str, int], ...]


class Seen(NamedTuple):
    """A get gave this: the value, as `frozen` makes it, and the version of the node (None: not asked for)."""

    value: Any
    version: int | None


class Failed(NamedTuple):
    """The node refused: the code of the error; of a `Collision` the actual version or "absent"."""

    code: str
    actual: int | str | None = None


def frozen(value: Any) -> Any:
    """Return a plain value in a form that can be compared and hashed; `1`, `1.0` and `True` differ."""
    if type(value) is dict:
        return tuple(sorted((oid, frozen(item)) for oid, item in value.items()))
    return _leaf(value)


def _leaf(value: Any) -> str:
    if type(value) is list:
        return "[" + ", ".join(map(_leaf, value)) + "]"
    if type(value) is dict:
        return "{" + ", ".join(f"{oid!r}: {_leaf(item)}" for oid, item in sorted(value.items())) + "}"
    return repr(value)


_NOTHING_DONE: Final = frozenset({"Offline", "OwnerAway", "Unauthorized", "Forbidden", "TransactionExpired"})
"""Errors by which a caller knows that nothing was done, but which say nothing of the tree."""


def write_operation(
    process: Hashable, called: float, returned: float | None, ops: Iterable[Any], answer: Any
) -> Operation | None:
    """Return the operation that a client's write was, or None if it certainly never happened.

    `answer`: what the reply held, `(revision, ((root, version), ...))`; the error; or None, if `returned` is
    None too: no answer came.
    """
    action = Write(tuple(tuple(op) for op in ops))
    if returned is None or answer is None:
        return Operation(process, called, None, action)
    if not isinstance(answer, TegaError):
        revision, versions = answer
        done = Done(revision != 0, tuple((root, version) for root, version in versions))
        return Operation(process, called, returned, action, done)
    outcome = getattr(answer, "outcome", None)
    if outcome == "committed":
        return Operation(process, called, returned, action)
    if outcome == "none" or answer.code in _NOTHING_DONE:
        return None
    if answer.code in _CHECKED:
        actual = answer.actual if isinstance(answer, Collision) else None
        return Operation(process, called, returned, action, Failed(answer.code, actual))
    return Operation(process, called, None, action)


def read_operation(
    process: Hashable, called: float, returned: float | None, path: Path, version: int | None, answer: Any
) -> Operation | None:
    """Return the operation that a client's get was, or None if its answer says nothing of the tree.

    `answer`: the value of the reply in the form "node", `[value, version, ...]`, or the error, or None.
    """
    if returned is None or answer is None:
        return None
    if isinstance(answer, TegaError):
        if answer.code not in ("NotFound", "Compacted"):
            return None
        return Operation(process, called, returned, Read(path, version), Failed(answer.code))
    return Operation(process, called, returned, Read(path, version), Seen(frozen(answer[0]), answer[1]))


_CHECKED: Final = frozenset({"Collision", "NotFound", "InvalidPath", "InvalidValue", "Compacted"})
"""Errors of a write which the model knows the reasons of."""


# -- states ----------------------------------------------------------------------------------------


class _Root(NamedTuple):
    version: int
    node: Node | None
    trees: HashTrieMap[int, Node | None]
    """All versions."""
    digest: bytes
    """Of the whole history: two roots with the same one are equal."""


_NEW: Final = _Root(ABSENT, None, HashTrieMap(), b"")


class Roots:
    """The state: roots with all their versions. Equal if their whole histories are."""

    __slots__ = ("_hash", "_key", "roots")

    def __init__(self, roots: HashTrieMap[str, _Root]) -> None:
        self.roots = roots
        self._key = tuple(sorted((name, root.digest) for name, root in roots.items()))
        self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Roots) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        shown = sorted(self.roots.items())
        return "; ".join(f"{name}@{root.version} = {_plain(root.node)!r}" for name, root in shown) or "empty"


EMPTY: Final = Roots(HashTrieMap())
"""A store without roots."""


def objects(action: Write | Read) -> set[str]:
    """Return the roots that an action touches, for `linearizable.partition`."""
    if isinstance(action, Read):
        return {action.path[0]}
    return {op[1][0] for op in action.ops}


def step_with(kept: int | None = None) -> Any:
    """Return the step function of the model for `linearizable.check`.

    `kept`: how many versions of a root the node keeps (`history.versions`); older ones must give `Compacted`.
    None: a version before the present may give it.
    """

    def step(state: Roots, action: Write | Read, result: Any) -> tuple[Roots, ...]:
        if isinstance(action, Read):
            return (state,) if result is UNKNOWN or _read(state, action, result, kept) else ()
        after, given = _write(state, action, kept)
        if result is UNKNOWN or result == given:
            return (after,)
        # Whether the versions that it names are there is looked at before anything is carried out.
        if result == Failed("Compacted") and _names_old(state, action, kept):
            return (state,)
        if result == Failed("NotFound") and _names_none(state, action):
            return (state,)
        return ()

    return step


# -- reading ---------------------------------------------------------------------------------------


def _read(state: Roots, action: Read, result: Any, kept: int | None) -> bool:
    root = state.roots.get(action.path[0], _NEW)
    node = root.node
    if action.version is not None:
        meant = _meant(root, action.version)
        if meant is None:
            return bool(result == Failed("NotFound"))
        if kept is None and result == Failed("Compacted"):
            return meant < root.version
        if _compacted(root, meant, kept):
            return bool(result == Failed("Compacted"))
        node = root.trees[meant]
    found = _get(node, action.path[1:])
    if found is None:
        return bool(result == Failed("NotFound"))
    return (
        isinstance(result, Seen)
        and result.value == _plain(found)
        and (result.version is None or result.version == found[0])
    )


def _names_old(state: Roots, action: Write, kept: int | None) -> bool:
    for kind, path, value, _, _ in action.ops:
        root = state.roots.get(path[0], _NEW)
        meant = _meant(root, value) if kind == "rollback" else None
        if meant is not None and (kept is None or _compacted(root, meant, kept)):
            return True
    return False


def _names_none(state: Roots, action: Write) -> bool:
    return any(
        kind == "rollback" and _meant(state.roots.get(path[0], _NEW), value) is None
        for kind, path, value, _, _ in action.ops
    )


def _meant(root: _Root, version: int) -> int | None:
    meant = version if version >= 0 else root.version + version
    return meant if 0 <= meant <= root.version else None


def _compacted(root: _Root, version: int, kept: int | None) -> bool:
    return kept is not None and version <= root.version - kept


def _get(node: Node | None, oids: Path) -> Node | None:
    for oid in oids:
        if node is None or type(node[1]) is str:
            return None
        node = next((child for name, child in node[1] if name == oid), None)
    return node


def _plain(node: Node | None) -> Any:
    if node is None or type(node[1]) is str:
        return None if node is None else node[1]
    return tuple((oid, _plain(child)) for oid, child in node[1])


# -- writing ---------------------------------------------------------------------------------------


class _Refused(Exception):
    def __init__(self, code: str, actual: int | str | None = None) -> None:
        super().__init__(code)
        self.failed = Failed(code, actual)


def _write(state: Roots, action: Write, kept: int | None) -> tuple[Roots, Any]:
    """Return the state after the transaction, and its result."""
    values: dict[str, Any] = {}
    try:
        for kind, path, value, expected, ephemeral in action.ops:
            assert not ephemeral, "the model has no ephemeral nodes"
            root = state.roots.get(path[0], _NEW)
            if expected is not None:
                node = _get(root.node, path[1:])
                actual = ABSENT if node is None else node[0]
                if actual != expected:
                    raise _Refused(Collision.__name__, "absent" if actual == ABSENT else actual)
            draft = values.get(path[0], _plain(root.node))
            values[path[0]] = _evaluate(root, draft, kind, path, value, kept)
    except _Refused as refused:
        return state, refused.failed
    roots, changed = state.roots, []
    for name, draft in values.items():
        root = roots.get(name, _NEW)
        if draft != _plain(root.node):
            version = root.version + 1
            node = _stamped(root.node, draft, version)
            digest = hashlib.blake2b(root.digest + repr(node).encode(), digest_size=16).digest()
            roots = roots.insert(name, _Root(version, node, root.trees.insert(version, node), digest))
            changed.append((name, version))
    if not changed:
        present = tuple((name, state.roots.get(name, _NEW).version) for name in values)
        return state, Done(False, present)
    return Roots(roots), Done(True, tuple(changed))


def _evaluate(root: _Root, draft: Any, kind: str, path: Path, value: Any, kept: int | None) -> Any:
    """Return the frozen value of the root (None: absent) after one operation on it."""
    oids = path[1:]
    if kind == "rollback":
        meant = None if root.version == ABSENT else _meant(root, value)
        if meant is None:
            raise _Refused("NotFound")
        if _compacted(root, meant, kept):
            raise _Refused(Compacted.__name__)
        return _plain(root.trees[meant])
    if kind == "delete":
        if _at(draft, oids) is None:
            raise _Refused("NotFound")
        return _without(draft, oids)
    if not oids and type(value) is not dict:
        raise _Refused("InvalidValue")
    if kind == "put":
        return _set(draft, oids, frozen(value))
    assert kind == "patch", kind
    return _set(draft, oids, _merged(_at(draft, oids), value))


def _at(draft: Any, oids: Path) -> Any:
    for oid in oids:
        if type(draft) is not tuple:
            return None
        draft = dict(draft).get(oid)
    return draft


def _set(draft: Any, oids: Path, value: Any) -> Any:
    if not oids:
        return value
    if type(draft) is str:
        raise _Refused("InvalidPath")
    children = dict(draft or ())
    children[oids[0]] = _set(children.get(oids[0]), oids[1:], value)
    return tuple(sorted(children.items()))


def _without(draft: Any, oids: Path) -> Any:
    if not oids:
        return None
    children = dict(draft)
    rest = _without(children[oids[0]], oids[1:])
    if rest is None:
        del children[oids[0]]
    else:
        children[oids[0]] = rest
    return tuple(sorted(children.items()))


def _merged(target: Any, value: Any) -> Any:
    """RFC 7396, section 2, but that a null which is the whole patch is a value."""
    if type(value) is not dict:
        return frozen(value)
    children = dict(target) if type(target) is tuple else {}
    for oid, item in value.items():
        if item is None:
            children.pop(oid, None)
        else:
            children[oid] = _merged(children.get(oid), item)
    return tuple(sorted(children.items()))


def _stamped(old: Node | None, value: Any, version: int) -> Node | None:
    """Return `value` as a node: what is not as in `old` gets `version`, and so do all containers above it."""
    if value is None:
        return None
    if type(value) is str:
        return old if old is not None and old[1] == value else (version, value)
    before = dict(old[1]) if old is not None and type(old[1]) is tuple else {}
    children = tuple((oid, _stamped(before.get(oid), item, version)) for oid, item in value)
    if old is not None and type(old[1]) is tuple and old[1] == children:
        return old
    return (version, children)
