"""What a backup asks for: every commit of a root as it was, and putting such commits into an empty node.

What is larger than a frame travels in pieces, in both directions.
"""

from __future__ import annotations

from typing import Any, Final

from tega_zmq import paths
from tega_zmq.errors import InvalidValue, NotFound, ProtocolError, ReadOnly, StorageError, TooLarge
from tega_zmq.node import past
from tega_zmq.node.state import Node
from tega_zmq.paths import format_path
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Commit, Root, Update, WentOn, update_at, update_from_plain, update_to_plain
from tega_zmq.tree import plain
from tega_zmq.wire import decode, encode_value
from tega_zmq.wire.messages import Part, Piece, Reply, Restore, Updates

MAX_VERSION: Final = 1 << 53
"""Versions of a backup are lower."""

MAX_UPDATES: Final = 500
"""Most commits in one answer, or one request."""


MAX_WHOLE: Final = 64 << 20
"""Most bytes of what travels in pieces."""

PIECE: Final = 4 << 20
"""Bytes of a piece."""


def _own_root(node: Node, name: str) -> Root:
    """Return a root of this node. Raises `InvalidPath`, `NotFound`, `ReadOnly`."""
    name = paths.check((name,))[0]
    root: Root | None = node.durable.roots.get(name)
    if root is None or root.version == ABSENT:
        raise NotFound(f"there is no root {format_path((name,))}", path=format_path((name,)))
    if root.owner:
        raise ReadOnly(
            f"{format_path((name,))} belongs to {root.owner}, which alone has all its commits",
            root=name,
            owner=root.owner,
        )
    return root


def updates_request(node: Node, session: Session, request: Updates) -> None:
    """Answer with the commits of a root of this node that follow a version, the oldest first."""
    root = _own_root(node, request.root)
    after = max(request.after, ABSENT)
    end = min(root.version, after + max(1, min(request.limit, MAX_UPDATES)))
    found: list[Update] = []
    if after + 1 < root.oldest_update:
        deep = min(end, root.oldest_update - 1)
        found = past.updates(node, root, after, deep)
        after = found[-1].after
        end = end if after == deep else after  # what follows cannot be read
    for version in range(after + 1, end + 1):
        update = update_at(root, version)
        assert update is not None
        found.append(update)
    node.reply(session, request.id, [update_to_plain(each) for each in found])


def part(node: Node, session: Session, request: Part) -> None:
    """Answer with the size of what is asked for of a version, and its bytes from an offset on.

    While it is being read it is kept, for one reader at a time.
    """
    root = _own_root(node, request.root)
    if not 0 <= request.version <= root.version:
        raise NotFound(f"{request.root} has no version {request.version}; its newest is {root.version}")
    key = (session.id, root.name, root.epoch, request.version, request.what)
    if node.part[0] != key:
        data = encode_value(_of_version(node, root, request.version, request.what))
        if len(data) > MAX_WHOLE:
            raise TooLarge(
                f"the {request.what} of version {request.version} of {root.name} has {len(data)} bytes; at"
                f" most {MAX_WHOLE} can be backed up",
                size=len(data),
                limit=MAX_WHOLE,
            )
        node.part = (key, data)
    data = node.part[1]
    if request.offset + PIECE >= len(data):
        node.part = (None, b"")
    node.reply(session, request.id, [len(data), data[request.offset : request.offset + PIECE]])


def _of_version(node: Node, root: Root, version: int, what: str) -> Any:
    if what == "commit":
        update = update_at(root, version)
        return update_to_plain(update or past.updates(node, root, version - 1, version)[0])
    then = past.at_version(node, root, version)
    if what == "tree":
        return [] if then.node is None else [plain(then.node)]
    if what == "ephemeral":
        marked = {*then.ephemerals, *then.born}
        # With a node goes what stands below it.
        return sorted(
            list(path)
            for path in marked
            if not any(path[:length] in marked for length in range(1, len(path)))
        )
    raise InvalidValue(f"{what!a:.40}: of a version there are commit, tree and ephemeral")


def piece(node: Node, session: Session, request: Piece) -> None:
    """Take a piece of a `Restore`; with the last it is carried out, and answered as that is."""
    if request.size > MAX_WHOLE or request.offset + len(request.data) > request.size:
        end = request.offset + len(request.data)
        raise TooLarge(
            f"bytes {request.offset} to {end} of {request.size}; a restored commit has at most {MAX_WHOLE}",
            size=request.size,
            limit=MAX_WHOLE,
        )
    if request.offset == 0:
        node.pieces = (session.id, bytearray())
    sender, collected = node.pieces
    if sender != session.id or request.offset > len(collected):
        raise InvalidValue(f"the pieces before byte {request.offset} are not there: begin again")
    collected[request.offset :] = request.data  # a retry brings what is there already
    if len(collected) < request.size:
        node.reply(session, request.id, None)
        return
    try:
        message = decode(bytes(collected), MAX_WHOLE)
    except ProtocolError as error:
        raise InvalidValue(f"the pieces are no message: {error.message}") from None
    if type(message) is not Restore:
        raise InvalidValue(f"the pieces are a {type(message).__name__}, not a Restore")
    restore(node, session, message._replace(id=request.id))


def session_over(node: Node, session: Session) -> None:
    """Forget what `session` was sending or reading in pieces."""
    if node.pieces[0] == session.id:
        node.pieces = ("", bytearray())
    if node.part[0] is not None and node.part[0][0] == session.id:
        node.part = (None, b"")


def restore(node: Node, session: Session, request: Restore) -> None:
    """Carry out commits of a backup, under a new epoch; the answer is the version that the root has then.

    That may be less than what was sent: the rest is to be sent again.

    Who made them, when and why stays as it was. Ephemeral nodes come back as lasting ones: their sessions are
    over. A root that begins must not be there, nor any other that this session did not restore. Where the
    backup has a gap, a root goes on after a higher version than it has: with one commit, which brings the
    whole tree, or with none, and then it is absent at that version.
    """
    name = paths.check((request.root,))[0]
    if node.uplink is not None:
        raise InvalidValue("a backup is restored at a broker, not at an agent")
    if len(request.updates) > MAX_UPDATES:
        raise InvalidValue(f"{len(request.updates)} commits at once; at most {MAX_UPDATES}")
    if not ABSENT <= request.version < MAX_VERSION:
        raise InvalidValue(f"{request.version} is no version")
    node.check_log()
    updates = [_lasting(name, update_from_plain(each)) for each in request.updates]
    # No more at once than the history thread can take before the store lets go of them.
    updates = updates[: 1 if request.first else max(1, node.tip.kept.updates // 4)]
    last = request.version
    for update in updates:
        if update.before != last or update.after != last + 1:
            raise InvalidValue(f"commits of {name} are missing after version {last}")
        last = update.after
    known: Root | None = node.tip.roots.get(name)
    restored = node.restoring[1] if node.restoring[0] == session.id else frozenset()
    if known is not None and name in restored and known.version == last:
        node.gate(session, Reply(request.id, last))  # it was done before; the answer was lost
        return
    if request.first:
        _check_empty(node, restored if known is None else restored - {name})
        node.restoring = (session.id, restored | {name})
        epoch = node.fresh()[:16]
        if request.version != ABSENT:
            node.append(WentOn(name, epoch, request.version))
    elif (
        name in restored
        and known is not None
        and known.version < request.version
        and len(updates) <= 1
        and all(_brings_all(update) for update in updates)
    ):
        # In the same epoch: for the history what came before stays reachable.
        epoch = known.epoch
        node.append(WentOn(name, epoch, request.version))
    elif name not in restored or known is None or known.version != request.version:
        raise InvalidValue(f"{name} cannot go on after version {request.version}: begin the restore again")
    else:
        epoch = known.epoch
    for update in updates:
        try:
            node.append(Commit(node.tip.revision + 1, (update._replace(epoch=epoch),)))
        except StorageError as error:
            raise InvalidValue(
                f"version {update.after} of {name} cannot be restored: {error.message}"
            ) from error
    # Before anything more: a gap may follow, at which the store lets go of all that it keeps.
    node.take_in = node.number
    session.last_lsn = node.number
    node.gate(session, Reply(request.id, last))


def _brings_all(update: Update) -> bool:
    """Whether `update` replaces the whole root, so that nothing of what was before matters."""
    return bool(update.changes) and len(update.changes[0].path) == 1


def _lasting(name: str, update: Update) -> Update:
    if update.root != name:
        raise InvalidValue(f"a commit of {update.root} among those of {name}")
    return update._replace(changes=tuple(change._replace(session="") for change in update.changes))


def _check_empty(node: Node, restored: frozenset[str]) -> None:
    there = sorted(
        root.name for root in node.tip.roots.values() if not root.owner and root.name not in restored
    )
    if there:
        shown = ", ".join(map(format_path, ((name,) for name in there[:5])))
        raise InvalidValue(
            f"this broker is not empty, it has {shown}{' and more' if len(there) > 5 else ''}: a backup is"
            " restored into an empty one (`clear` empties it)"
        )
