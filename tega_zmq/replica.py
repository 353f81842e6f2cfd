"""Replication of one root, both ends of it.

`Follower` keeps a replica in step with its owner; `serve` answers a follower's `Pull`. Both are used in both
directions: an agent follows config roots of the broker, the broker follows operational roots of agents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tega_zmq import values
from tega_zmq.paths import Path
from tega_zmq.store import (
    ABSENT,
    Record,
    Replicated,
    ResetEnd,
    ResetPart,
    Root,
    Store,
    Update,
    entries,
    ephemeral_entries,
    record_from_plain,
    record_to_plain,
    stands_alone,
    update_from_plain,
    update_to_plain,
    updates_since,
)
from tega_zmq.wire.messages import Chunk, Pull

__all__ = ["CHUNK", "Follower", "Serving", "serve"]

CHUNK = 16 * 1024
"""Bytes of values that one chunk holds, about; a larger value makes a chunk of its own."""

_BUFFERED = 1000
"""Updates that are kept while an older part is being pulled."""

_BUFFER = 4 << 20
"""Most bytes of values in them, about."""

_UPDATES = 200
"""Most updates in one chunk."""

_LARGE = 1 << 20
"""Bytes; where the next update has more, the tree is sent, which can be cut up."""

_PATIENCE = 10.0
"""Seconds without a chunk after which a pull is made again."""


class Step(NamedTuple):
    """What a follower wants done: records to append, in order, and perhaps a `Pull` to send."""

    records: tuple[Record, ...] = ()
    pull: Pull | None = None
    done: str = ""
    """Set when a catch-up ended: how it was done."""


class Follower:
    """Keeps the replica of one root in step. The position is that of the tip, not yet durable perhaps."""

    def __init__(self, root: str, epoch: str, version: int) -> None:
        self.root = root
        self.epoch = epoch
        self.version = version
        self.heard: float | None = None
        """When the owner last said where it is (monotonic seconds); None: never."""
        self.owner_position: tuple[str, int] | None = None
        self.left: str | None = None
        """The epoch in which the owner was before it said that it is in another."""
        self._pulling: float | None = None
        self._cursor = 0
        self._tree: tuple[str, int] | None = None
        """Epoch and version of the tree that is being received."""
        self._chunks = 0
        self._buffer: dict[int, Update] = {}
        self._buffered = 0
        """Bytes of the values in it."""

    @property
    def in_step(self) -> bool:
        """Whether it is where its owner was, when that was last heard of."""
        return self.owner_position == (self.epoch, self.version)

    def disconnected(self) -> None:
        """The link to the owner is gone; what was being pulled is to be pulled anew."""
        self._pulling = None
        self._cursor = 0
        self._forget_buffer()

    def _forget_buffer(self) -> None:
        self._buffer.clear()
        self._buffered = 0

    def position(self, epoch: str, version: int, now: float) -> Step:
        """The owner says where it is."""
        self.heard = now
        if self.owner_position is not None and self.owner_position[0] != epoch:
            self.left = self.owner_position[0]
        self.owner_position = (epoch, version)
        if epoch == self.epoch and version <= self.version:
            return Step()
        if version == ABSENT and self.version == ABSENT:
            return Step()
        return self._pull(now)

    def update(self, update: Update, now: float) -> Step:
        """The owner sent one commit, or a beacon (no changes)."""
        self.heard = now
        self.owner_position = (update.epoch, update.after)
        if update.epoch == self.epoch and update.after <= self.version:
            return Step()
        if not update.changes:
            return self._pull(now)
        same = update.epoch == self.epoch or (stands_alone(update) and update.after > self.version)
        if same and update.before == self.version and self._pulling is None:
            self.epoch, self.version = update.epoch, update.after
            return Step((Replicated(update),))
        size = _size(update)
        if len(self._buffer) < _BUFFERED and self._buffered + size <= _BUFFER:
            self._buffer[update.before] = update
            self._buffered += size
        return self._pull(now)

    def pull(self, now: float) -> Step:
        """Ask the owner for what may be missing, whatever is known."""
        self._pulling = None
        return self._pull(now)

    def chunk(self, chunk: Chunk, now: float) -> Step:
        """Part of what was pulled arrived. Raises `ProtocolError` for malformed contents."""
        self.heard = now
        if self._pulling is None or chunk.cursor != self._cursor:
            return Step()
        return self._take_tree(chunk, now) if chunk.tree else self._take_updates(chunk, now)

    def _take_tree(self, chunk: Chunk, now: float) -> Step:
        at = (chunk.epoch, chunk.version)
        if chunk.epoch == self.epoch and chunk.version < self.version:
            return Step()  # it would go back
        if chunk.cursor and at != self._tree:
            return self.pull(now)  # part of another tree than the parts before it
        # What is to be logged must be readable in the log.
        records = [_checked(ResetPart(self.root, chunk.cursor == 0, chunk.entries))]
        self._tree = at
        self._progress(now)
        if not chunk.last:
            self._cursor += 1
            return Step(tuple(records), self._message())
        records.append(
            _checked(
                ResetEnd(
                    self.root,
                    chunk.epoch,
                    chunk.version,
                    chunk.present,
                    chunk.ephemerals,
                    chunk.time,
                    chunk.tega_id,
                    chunk.message,
                )
            )
        )
        self.epoch, self.version = at
        return self._caught_up(records, now)

    def _take_updates(self, chunk: Chunk, now: float) -> Step:
        updates = [update_from_plain(plain) for plain in chunk.updates]
        records: list[Record] = []
        for update in updates:
            if (update.root, update.epoch, update.before) == (self.root, self.epoch, self.version):
                records.append(Replicated(update))
                self.version = update.after
        if not chunk.last and not records:
            return Step()  # asking once more would lead to the same
        self._progress(now)
        if not chunk.last:
            return Step(tuple(records), self._message())
        return self._caught_up(records, now)

    def _progress(self, now: float) -> None:
        self._pulling = now
        self._chunks += 1

    def _caught_up(self, records: list[Record], now: float) -> Step:
        records += self._drain()
        what = "deltas" if self._tree is None else "tree"
        done = f"{what} in {self._chunks} chunk{'s' if self._chunks > 1 else ''}"
        self._pulling = None
        self._cursor = 0
        if self.owner_position is not None:
            epoch, version = self.owner_position
            if epoch != self.epoch or version > self.version:
                return Step(tuple(records), self._pull(now).pull, done)
        return Step(tuple(records), None, done)

    def _drain(self) -> Iterator[Record]:
        """Yield the buffered updates that now fit."""
        while True:
            update = self._buffer.pop(self.version, None)
            if update is None or update.epoch != self.epoch:
                break
            self.version = update.after
            yield Replicated(update)
        self._forget_buffer()

    def _pull(self, now: float) -> Step:
        if self._pulling is not None and now - self._pulling < _PATIENCE:
            return Step()
        self._pulling = now
        self._cursor = 0
        self._tree = None
        self._chunks = 0
        return Step((), self._message())

    def _message(self) -> Pull:
        return Pull(self.root, self.epoch, self.version, self._cursor)


def _checked(record: Record) -> Record:
    """Return `record` as the log would give it back. Raises `ProtocolError` if it would not."""
    return record_from_plain(record_to_plain(record))


def _size(update: Update) -> int:
    return 64 + sum(16 + sum(map(len, change.path)) + values.size(change.value) for change in update.changes)


class Serving(NamedTuple):
    """A tree that is being sent to a follower in chunks: always the one version that it began with."""

    root: Root
    cursor: int
    entries: Iterator[tuple[Path, int, bool, Any]]


def serve(store: Store, pull: Pull, serving: Serving | None) -> tuple[Chunk, Serving | None]:
    """Answer `pull` from `store`; `serving` is what the answer to the follower's last pull left."""
    root = store.roots.get(pull.root)
    if root is None:
        return _tree_chunk(pull, "", ABSENT, 0, (), True, None), None
    if pull.cursor == 0 or serving is None or serving.cursor != pull.cursor:
        updates = updates_since(root, pull.epoch, pull.version, _UPDATES)
        if updates is not None and not (updates and _size(updates[0]) > _LARGE):
            return _updates_chunk(pull, root, updates), None
        serving = Serving(root, 0, iter(()) if root.node is None else entries(root.node, root.name))
    chunk: list[tuple[Path, int, bool, Any]] = []
    size = 0
    for entry in serving.entries:
        chunk.append(entry)
        size += 16 + sum(map(len, entry[0])) + (0 if entry[2] else values.size(entry[3]))
        if size >= CHUNK:
            break
    else:
        return _tree_chunk(pull, "", 0, serving.cursor, tuple(chunk), True, serving.root), None
    left = Serving(serving.root, serving.cursor + 1, serving.entries)
    return _tree_chunk(pull, "", 0, serving.cursor, tuple(chunk), False, serving.root), left


def _updates_chunk(pull: Pull, root: Root, updates: tuple[Update, ...]) -> Chunk:
    sent: list[tuple[Any, ...]] = []
    size = 0
    version = pull.version
    for update in updates:
        size += _size(update)
        if sent and size > _LARGE:
            break
        sent.append(tuple(update_to_plain(update)))
        version = update.after
        if size >= CHUNK:
            break
    last = version == root.version
    return Chunk(root.name, root.epoch, version, 0, last, tuple(sent), False, True, (), (), 0.0, "", "")


def _tree_chunk(
    pull: Pull,
    epoch: str,
    version: int,
    cursor: int,
    part: tuple[tuple[Path, int, bool, Any], ...],
    last: bool,
    root: Root | None,
) -> Chunk:
    ephemerals: tuple[tuple[Path, str], ...] = ()
    time, tega_id, message = 0.0, "", ""
    if root is not None:
        epoch, version = root.epoch, root.version
        if last:
            ephemerals = ephemeral_entries(root)
            time, tega_id, message = root.last
    present = root is not None and root.node is not None
    return Chunk(
        pull.root, epoch, version, cursor, last, (), True, present, part, ephemerals, time, tega_id, message
    )
