"""The values that a store is made of.

All are frozen. `Op` is what a writer asks for, `Change` what then really changed, `Update` the changes of
one root from one version to the next, `Commit` one transaction. A `Record` is one entry of the log.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, TypeAlias

from rpds import HashTrieMap

from tega_zmq.paths import Path
from tega_zmq.store.versions import Versions
from tega_zmq.tree.node import Node

ABSENT: Final = -1
"""Stands for "no version" where a version is expected: the node, or the root, is not there."""


class Op(NamedTuple):
    """One operation that a writer asks for."""

    kind: Literal["put", "patch", "delete", "rollback"]
    path: Path
    """The root alone for `rollback`."""
    value: Any = None
    """put, patch: the value. rollback: the version to restore; negative counts back from the present."""
    expected: int | None = None
    """The version that the node must have (`ABSENT`: must not be there), or None: no matter."""
    ephemeral: bool = False
    """put only: the node goes when the session ends."""


class Change(NamedTuple):
    """What became different at one path."""

    path: Path
    """The whole path, root first."""
    present: bool
    """False: the node is gone."""
    value: Any = None
    """The new value, plain (dicts, leaves), if present."""
    session: str = ""
    """The session that an ephemeral node, or the one above that it is part of, belongs to; empty for a
    lasting one. Containers that are missing above an ephemeral node come into being by it."""


class Update(NamedTuple):
    """The changes of one root from version `before` to `after`: what history keeps and replication sends."""

    root: str
    epoch: str
    before: int
    """`ABSENT` if the root never was."""
    after: int
    changes: tuple[Change, ...]
    time: float
    """Unix seconds, by the clock of the owner."""
    tega_id: str
    message: str = ""
    backto: int | None = None
    """The version that a rollback restored."""
    named: tuple[Path, ...] = ()
    """The paths that the writer put or deleted, if these are not just the paths of the changes: who puts a
    container over another changes some of its leaves. All changes lie at, below or above them. Empty also
    where a patch or a rollback was among the operations."""


class Commit(NamedTuple):
    """One transaction at the owner of its roots."""

    revision: int
    updates: tuple[Update, ...]
    session: str = ""
    """Who asked, and under which request id: a retry finds the outcome by these."""
    request: int = 0
    ack: int = 0
    """The lowest request id of that session that is not answered yet; outcomes below it are forgotten."""


class Replicated(NamedTuple):
    """An update that came from the owner of the root."""

    update: Update


class ResetPart(NamedTuple):
    """Part of a tree that replaces a replica: entries in an order in which parents come first."""

    root: str
    first: bool
    """True: a new tree begins; what was gathered before is dropped."""
    entries: tuple[tuple[Path, int, bool, Any], ...]
    """(path, version of the node, is it a container, leaf value)."""


class ResetEnd(NamedTuple):
    """The tree gathered from the `ResetPart`s becomes the present of the replica."""

    root: str
    epoch: str
    version: int
    present: bool
    """False: the root is deleted at its owner."""
    ephemerals: tuple[tuple[Path, str], ...]
    """As `replicas.ephemeral_entries` lists them: (path, session), and (path, "") for a born container."""
    time: float
    tega_id: str
    message: str


class Owned(NamedTuple):
    """From now on `root` belongs to `owner`; empty: to this node, under the new `epoch`.

    A root of this node can be given away only while it is empty. One that comes to this node loses the
    ephemeral nodes of its former owner's sessions, by an update of its own if there are any.
    """

    root: str
    owner: str
    epoch: str


class NewEpochs(NamedTuple):
    """Roots of this node go on under new epochs: all after an unclean stop or a repair, one whose replica
    turns out to know more."""

    epochs: tuple[tuple[str, str], ...]
    """(root, epoch)."""


class WentOn(NamedTuple):
    """A root of this node goes on after `version` under `epoch`: replicas know it, or a backup says so.

    It is absent at that version; what stood in it comes again in the commit after. It was not there before,
    or not beyond a lower version: what lies between is not known any more.
    """

    root: str
    epoch: str
    version: int


class Gap(NamedTuple):
    """Versions whose commits cannot be read any more, in the place where these would stand. No record."""

    first: int
    last: int
    why: str
    """In words."""


class Cleared(NamedTuple):
    """The store was emptied: all roots of this node are gone with their history; replicas stay."""


class Opened(NamedTuple):
    """A session began."""

    session: str
    tega_id: str
    token: str
    via: str
    """The session whose connection this one shares; empty if it has its own."""


class Ended(NamedTuple):
    """A session ended, and with it its outcomes. Its ephemeral nodes went in a commit before."""

    session: str


class Tagged(NamedTuple):
    """From now on `name` stands for `version` of `root`, which this node owns; `ABSENT`: for none."""

    root: str
    name: str
    version: int


Record: TypeAlias = (
    Commit
    | Replicated
    | ResetPart
    | ResetEnd
    | Owned
    | NewEpochs
    | WentOn
    | Cleared
    | Opened
    | Ended
    | Tagged
)

Outcome: TypeAlias = tuple[int, tuple[tuple[str, int], ...]]
"""What a write led to: the revision, and the new version of each root that it changed."""


class Lease(NamedTuple):
    """The lasting part of a session."""

    session: str
    tega_id: str
    token: str
    via: str
    outcomes: tuple[tuple[int, Outcome], ...]
    """(request id, outcome), by ascending id; at most `MAX_OUTCOMES`, the newest."""
    ephemerals: HashTrieMap[Path, bool]
    """Where its ephemeral nodes stand, in roots of this node: an index, made anew when a store is loaded."""


MAX_TAGS: Final = 1000
"""Most tags of a root."""

MAX_OUTCOMES: Final = 1024
"""Most outcomes that are kept for a session."""

KeptChange: TypeAlias = "tuple[Path, Node | None, str]"
"""(path, the new node or None, session): a `Change` as history keeps it."""

KeptUpdate: TypeAlias = tuple[
    str, int, tuple[KeptChange, ...], float, str, str, "int | None", tuple[Path, ...]
]
"""(epoch, before, changes, time, tega_id, message, backto, named): an `Update` as history keeps it.

An exact tuple of exact tuples, whose values are tree nodes: so the garbage collector does not see it, and
what was put is not held twice. `history.update_at` makes an `Update` of it. Of the nodes the values alone
count: after a snapshot their versions may be others.
"""

KeptVersion: TypeAlias = "tuple[Node | None, HashTrieMap[Path, str], HashTrieMap[Path, bool]]"
"""(tree, ephemeral nodes in it, born containers in it): one kept version of a root."""


class Root(NamedTuple):
    """One root: its present, and what is kept of its past."""

    name: str
    owner: str
    """The tega_id of the agent that owns it, or empty: this node."""
    epoch: str
    version: int
    """The present version, or `ABSENT`: there was none yet. It goes on when the root is deleted."""
    node: Node | None
    """The present tree, or None: deleted."""
    ephemerals: HashTrieMap[Path, str]
    """Whose session each ephemeral node belongs to, by whole path. None stands below another."""
    born: HashTrieMap[Path, bool]
    """Containers that an ephemeral node brought into being; they go when they are empty."""
    trees: Versions[KeptVersion]
    """Kept versions, the present one too."""
    oldest: int
    """The oldest version in `trees`."""
    updates: Versions[KeptUpdate]
    """Kept updates, by the version after. Read them with `history.update_at`."""
    oldest_update: int
    """The oldest version in `updates`; greater than `version` if there is none."""
    last: tuple[float, str, str]
    """(time, tega_id, message) of the present version."""
    tags: HashTrieMap[str, int]
    """The versions that have a name, by it. They belong to the owner; a replica has none."""


class Kept(NamedTuple):
    """How much history a store keeps in memory, per root."""

    versions: int = 100
    """Versions that can be read, the present one included; at least 1."""
    updates: int = 2000
    """Updates for replicas and subscribers to catch up by; no fewer than `versions` are kept."""


class Store(NamedTuple):
    """Everything that lasts at a node."""

    kept: Kept
    revision: int
    """How many commits there were; 0 in an empty store."""
    roots: HashTrieMap[str, Root]
    leases: HashTrieMap[str, Lease]
    staged: HashTrieMap[str, Node]
    """Trees that are being received (`ResetPart`)."""


class Written(NamedTuple):
    """What `write` made."""

    store: Store
    """The store after the write; the one before it if nothing changed."""
    commit: Commit | None
    """The record that leads to it, or None: nothing changed."""
    outcome: Outcome
