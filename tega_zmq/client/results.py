"""What a client's methods return and its callbacks get: plain frozen values.

A notebook shows them as HTML (`_repr_html_`, made in `html.py`). Several of a kind come in a list like any
other, but that a notebook shows as one table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tega_zmq.paths import Path, format_path
from tega_zmq.wire.messages import Changed, ChangeField

__all__ = [
    "Blame",
    "Blamed",
    "CandidateView",
    "Change",
    "Committed",
    "Difference",
    "Differences",
    "Edge",
    "Edges",
    "Found",
    "FoundNodes",
    "Gap",
    "Log",
    "LogEntry",
    "MessageView",
    "NodeView",
    "changes_of",
]


class Change(NamedTuple):
    """What became different at one path, as a subscription hears of it.

    `old` and `new` are None where there is nothing; `created` and `deleted` tell that from a stored null.
    """

    path: str
    """In text; `oids` has it in parts."""
    old: Any
    new: Any
    version: int
    """Of the root, since this change."""
    previous_version: int
    """Of the root, at the change that this subscription heard of before; -1: there was none."""
    tega_id: str
    """Who made it."""
    message: str
    """Of the commit."""
    time: float
    """Of the commit, Unix seconds by the clock of the root's owner."""
    epoch: str
    created: bool
    """There was nothing at `path`."""
    deleted: bool
    """There is nothing at `path` any more."""
    ephemeral: bool
    """The new node goes with the session that put it."""
    reset: bool
    """What lay between is not kept any more: `new` is the present value, `old` known only of what is gone."""
    backto: int | None
    """The version that was restored, if the commit was a rollback."""
    oids: Path

    @property
    def root(self) -> str:
        """The first oid of the path."""
        return self.oids[0]

    @property
    def versions(self) -> tuple[int, int]:
        """`(previous_version, version)`."""
        return self.previous_version, self.version

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        row = html.difference(self.path, self.old, self.new, self.created or self.reset, self.deleted)
        which = [str(self.version), html.when(self.time), html.text(self.tega_id), html.text(self.message)]
        heads = ["version", "time (UTC)", "who", "message", "path", "old", "new"]
        return html.page(html.table(heads, [[*which, *row]], 1, "changes"))


def changes_of(changed: Changed) -> tuple[Change, ...]:
    """Return the changes of one commit, one a path, in the order in which the node gives them."""
    _, _, epoch, previous, version, time, tega_id, message, backto, reset, changes = changed
    found = []
    for path, old, new, session in changes:
        found.append(
            Change(
                format_path(path),
                old[0] if old else None,
                new[0] if new else None,
                version,
                previous,
                tega_id,
                message,
                time,
                epoch,
                not old and bool(new) and not reset,
                not new,
                bool(session),
                reset,
                backto,
                path,
            )
        )
    return tuple(found)


class MessageView(NamedTuple):
    """A message on a channel."""

    channel: str
    value: Any
    tega_id: str
    """Who published it."""


class NodeView(NamedTuple):
    """A node of the tree as it was read."""

    value: Any
    version: int
    """Of its root, at the last change at or below it."""
    ephemeral: bool
    """An ephemeral node, or part of one; what one brought into being above it is none, and goes with it."""
    epoch: str
    age: float | None
    """Seconds since the replica last heard from the root's owner; None: read at the owner."""
    handlers: bool = False
    """Handlers are shown in it, which are not of the tree: they come and go without a new version."""

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        words = f"version {self.version}" + (", ephemeral" if self.ephemeral else "")
        if self.age is not None:
            words += f", heard from its owner {self.age:.1f} s ago"
        return html.page(html.tree(self.value, html.note(words)))


class Committed(NamedTuple):
    """What a write led to."""

    revision: int
    """The store's count of commits; 0: nothing was different, so there was no commit."""
    versions: dict[str, int]
    """The version of each root that was written."""

    @property
    def version(self) -> int | None:
        """The version of the root; None if there are several, or none."""
        return next(iter(self.versions.values())) if len(self.versions) == 1 else None

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        if not self.revision:
            return html.page(html.note("nothing was different, so there was no commit"))
        rows = ([html.text(root), str(version)] for root, version in self.versions.items())
        return html.page(html.table(["root", "version"], rows, len(self.versions), "roots"))


class Difference(NamedTuple):
    """What is different at one path; None where there is nothing, see `created` and `deleted`."""

    path: str
    old: Any
    new: Any
    created: bool
    deleted: bool

    def _repr_html_(self) -> str:
        return Differences([self])._repr_html_()


class Differences(list[Difference]):
    """What is different between two trees, by path."""

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        rows = (html.difference(*each) for each in self)
        return html.page(html.table(["path", "old", "new"], rows, len(self), "differences"))


class LogEntry(NamedTuple):
    """One commit of a root."""

    version: int
    time: float
    """Unix seconds by the clock of the root's owner."""
    tega_id: str
    message: str
    backto: int | None
    """The version that was restored, if it was a rollback."""
    changes: tuple[Difference, ...]
    """`old` is not known here: always None, and `created` False."""
    left_out: int = 0
    """How many more there were: too many to be listed, or too large for one answer."""

    def _repr_html_(self) -> str:
        return Log([self])._repr_html_()


class Gap(NamedTuple):
    """Versions of a root whose commits cannot be read any more."""

    first: int
    last: int
    why: str
    """In words."""

    def __str__(self) -> str:
        if self.first == self.last:
            return f"the commit to version {self.last} cannot be read: {self.why}"
        return f"the commits to versions {self.first} to {self.last} cannot be read: {self.why}"


class Log(list[LogEntry]):
    """Commits of a root, the newest first."""

    gaps: tuple[Gap, ...] = ()
    """What is missing between those and, if fewer were found than asked for, before them; newest first."""

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        rows = (
            [
                str(each.version) if each.backto is None else f"{each.version} (back to {each.backto})",
                html.when(each.time),
                html.text(each.tega_id),
                html.text(each.message),
                html.changes(
                    [(change.path, change.new, change.deleted) for change in each.changes], each.left_out
                ),
            ]
            for each in self
        )
        heads = ["version", "time (UTC)", "who", "message", "changes"]
        notes = [html.note(str(gap)) for gap in self.gaps]
        return html.page(html.table(heads, rows, len(self), "commits"), *notes)


class Blamed(NamedTuple):
    """Who changed a leaf last."""

    path: str
    version: int
    """Of the root, at that change."""
    time: float | None
    """Of the commit, Unix seconds by the clock of the root's owner; None: not known any more."""
    tega_id: str
    """Empty: not known any more."""
    message: str

    def _repr_html_(self) -> str:
        return Blame([self])._repr_html_()


class Blame(list[Blamed]):
    """Who changed each leaf last, in order of path."""

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        rows = (
            [
                html.text(each.path),
                str(each.version),
                "" if each.time is None else html.when(each.time),
                html.text(each.tega_id),
                html.text(each.message),
            ]
            for each in self
        )
        return html.page(
            html.table(["path", "version", "time (UTC)", "who", "message"], rows, len(self), "leaves")
        )


class Found(NamedTuple):
    """A node that a regex matched."""

    path: str
    groups: tuple[tuple[Any, ...], ...]
    """Per oid that has groups, what they matched."""
    value: Any

    def _repr_html_(self) -> str:
        return FoundNodes([self])._repr_html_()


class FoundNodes(list[Found]):
    """Nodes that a regex matched, in order of path."""

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        return html.page(html.trees([(each.path, each.value) for each in self], "nodes"))


class Edge(NamedTuple):
    """From a container of the tree to what stands right below it.

    A node is named `PATH@VERSION`, where the version is that of its root at the last change at or below the
    node. All versions of the root between that change and the next share the node, and all below it.
    """

    parent: str
    oid: str
    child: str


class Edges(list[Edge]):
    """The graph of nodes and versions; `tega_zmq.graph` draws it."""

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        rows = ([html.text(each.parent), html.text(each.oid), html.text(each.child)] for each in self)
        return html.page(html.table(["node", "oid", "node below"], rows, len(self), "edges"))


class CandidateView(NamedTuple):
    """What a transaction would make."""

    roots: dict[str, Any]
    """The tree of each root that it touches; None: deleted."""
    changes: tuple[Difference, ...]

    def _repr_html_(self) -> str:
        from tega_zmq.client import html

        rows = (html.difference(*each) for each in self.changes)
        return html.page(
            html.trees(list(self.roots.items()), "roots"),
            html.table(["path", "old", "new"], rows, len(self.changes), "differences"),
        )


def difference(entry: ChangeField | tuple[Path, Any, Any]) -> Difference:
    """Return `[path, old, new]` with `[]` or `[value]` for each, as a node sends it, as a `Difference`."""
    path, old, new = entry[:3]
    return Difference(
        format_path(tuple(path)),
        old[0] if old else None,
        new[0] if new else None,
        created=not old and bool(new),
        deleted=bool(old) and not new,
    )
