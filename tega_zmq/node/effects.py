"""What a node wants done: the effects that its program carries out, in order."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from tega_zmq.paths import Path
from tega_zmq.store import Record
from tega_zmq.wire.messages import AnyMessage, RootUpdate

__all__ = [
    "Append",
    "CommitsAt",
    "Effect",
    "Note",
    "Publish",
    "ReadHistory",
    "Redial",
    "Reload",
    "RememberUplink",
    "Send",
    "SendUp",
    "Snapshot",
    "Topics",
    "TreeAt",
    "UpdatesAt",
    "VersionAt",
    "Want",
]


class Send(NamedTuple):
    """Send `message` to the connection `peer`."""

    peer: bytes
    message: AnyMessage


class Append(NamedTuple):
    """Append `record` to the log; it gets the next number."""

    record: Record


class Publish(NamedTuple):
    """Publish `message` under `topic`."""

    topic: bytes
    message: RootUpdate


class SendUp(NamedTuple):
    """Send `message` up the uplink."""

    message: AnyMessage


class Redial(NamedTuple):
    """Drop the uplink's connection, wait `delay` seconds, and dial the next endpoint."""

    delay: float


class Topics(NamedTuple):
    """The topics to be subscribed to at the uplink's publisher, `endpoint` as Welcome named it."""

    endpoint: str
    topics: frozenset[bytes]


class RememberUplink(NamedTuple):
    """Keep the uplink's session for the next start, so that it can be resumed."""

    session: str
    token: str


class Snapshot(NamedTuple):
    """Write a snapshot of the durable store; then call `Node.snapshot_done` or `snapshot_failed`."""


class Reload(NamedTuple):
    """Load the plugins anew."""


class Note(NamedTuple):
    """Something for the log lines: `event` in few words, then fields."""

    level: str
    """`debug`, `info`, `warning` or `error`."""
    event: str
    fields: dict[str, Any]


class TreeAt(NamedTuple):
    """The tree of `version` of `root`: a `KeptVersion`. `epoch`: the present one, when this was asked."""

    root: str
    epoch: str
    version: int


class VersionAt(NamedTuple):
    """The newest version of `root` lower than `before` that was made at `time` (Unix seconds) or earlier.

    `ABSENT` if there is none.
    """

    root: str
    epoch: str
    time: float
    before: int


class UpdatesAt(NamedTuple):
    """The newest `limit` updates of `root` to versions lower than `before`, as `store.log` picks them.

    Newest first, with a `Gap` wherever some cannot be read. `before` is at most one more than the newest.
    """

    root: str
    epoch: str
    path: Path
    limit: int
    before: int
    since: float | None
    by: str


class CommitsAt(NamedTuple):
    """Of each of `versions` of `root`, as far as it is known: (time, tega_id, message), by version."""

    root: str
    epoch: str
    versions: tuple[int, ...]


class SpansOf(NamedTuple):
    """Which versions can be read: by root a list of (first, last), oldest first, as `History.spans` tells it.

    Of all roots if `root` is empty. What ends before version `since` may be left out.
    """

    since: int
    """First, so that as a tuple this is equal to no `TreeAt`."""
    root: str
    epoch: str


Want: TypeAlias = TreeAt | VersionAt | UpdatesAt | CommitsAt | SpansOf


class ReadHistory(NamedTuple):
    """Read `want` from the history on the disk; then call `machine.history_read` with `number`."""

    number: int
    want: Want


Effect: TypeAlias = (
    Send
    | Append
    | Publish
    | SendUp
    | Redial
    | Topics
    | RememberUplink
    | Snapshot
    | Reload
    | Note
    | ReadHistory
)
