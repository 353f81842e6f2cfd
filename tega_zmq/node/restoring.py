"""A backup's two requests: every commit of a root as it was, and putting such commits into an empty node."""

from __future__ import annotations

from typing import Final

from tega_zmq import paths
from tega_zmq.errors import InvalidValue, NotFound, ReadOnly, StorageError
from tega_zmq.node import past
from tega_zmq.node.state import Node
from tega_zmq.paths import format_path
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Commit, Root, Update, WentOn, update_at, update_from_plain, update_to_plain
from tega_zmq.wire.messages import Reply, Restore, Updates

MAX_VERSION: Final = 1 << 53
"""Versions of a backup are lower."""

MAX_UPDATES: Final = 500
"""Most commits in one answer, or one request."""


def updates_request(node: Node, session: Session, request: Updates) -> None:
    """Answer with the commits of a root of this node that follow a version, the oldest first."""
    name = paths.check((request.root,))[0]
    root = node.durable.roots.get(name)
    if root is None or root.version == ABSENT:
        raise NotFound(f"there is no root {format_path((name,))}", path=format_path((name,)))
    if root.owner:
        raise ReadOnly(
            f"{format_path((name,))} belongs to {root.owner}, which alone has all its commits",
            root=name,
            owner=root.owner,
        )
    after = max(request.after, ABSENT)
    end = min(root.version, after + max(1, min(request.limit, MAX_UPDATES)))
    found: list[Update] = []
    if after + 1 < root.oldest_update:
        found = past.updates(node, root, after, min(end, root.oldest_update - 1))
        after = found[-1].after
    for version in range(after + 1, end + 1):
        update = update_at(root, version)
        assert update is not None
        found.append(update)
    node.reply(session, request.id, [update_to_plain(each) for each in found])


def restore(node: Node, session: Session, request: Restore) -> None:
    """Carry out commits of a backup, under a new epoch; the answer is the version that the root has then.

    That may be less than what was sent: the rest is to be sent again.

    Who made them, when and why stays as it was. Ephemeral nodes come back as lasting ones: their sessions are
    over. A root that begins must not be there, nor any other that this session did not restore.
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
    if request.first:
        node.take_in = node.number
    session.last_lsn = node.number
    node.gate(session, Reply(request.id, last))


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
