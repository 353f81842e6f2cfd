"""Sessions coming, resuming, being taken over and ending, with all that they own."""

from __future__ import annotations

from tega_zmq import errors
from tega_zmq.errors import ProtocolError, TegaError, TooLarge
from tega_zmq.node import calling, passing, replication, restoring, watching, writing
from tega_zmq.node.effects import Send, SendUp
from tega_zmq.node.state import ABOVE, Node
from tega_zmq.sessions import DELEGATE, Session, check_tega_id
from tega_zmq.store import Ended, Opened, end_session
from tega_zmq.wire.messages import (
    Displaced,
    ForwardEnded,
    Heartbeat,
    Hello,
    Refused,
    Welcome,
)

VERSION = 1
"""Of the protocol."""

SILENT = 3
"""A connection is taken for lost after so many heartbeats without a sign of life."""

DELEGATED = "*"
"""Stands in the lease of a session of the kind `DELEGATE`, where another's has the connection it shares."""

MAX_DISPLACED = 1000
"""Sessions that were taken over, of which this many are remembered."""

MAX_FOLLOWED = 10_000
"""Agents that are away, of which it is remembered how far their replicas were."""

MAX_SUBSESSIONS = 1000
"""Most sub-sessions on one connection."""

MAX_ID = 64
"""Longest id of a session, in characters."""

_KINDS = frozenset({"client", "agent", "shell", "plugin", "bridge", DELEGATE})


def hello(node: Node, peer: bytes, message: Hello) -> None:
    """Open or resume a session for the connection `peer`, and answer `Welcome` or `Refused`."""
    try:
        session, resumed = _hello(node, peer, message)
    except TegaError as error:
        code, text, fields = errors.encode(error)
        node.effects.append(Send(peer, Refused(code, text, fields)))
        node.note("warning", "hello refused", tega_id=message.tega_id[:64], error=f"{code}: {text}")
        return
    settings = node.settings
    node.send(
        session,
        Welcome(
            VERSION,
            session.id,
            session.token,
            resumed,
            settings.tega_id,
            node.server,
            settings.lease,
            settings.heartbeat,
            settings.changes,
            settings.max_value,
        ),
    )
    node.note(
        "info" if session.kind == "agent" else "debug",
        "session resumed" if resumed else "session opened",
        tega_id=session.tega_id,
        kind=session.kind,
        session=session.id[:8],
    )
    if resumed:
        for subsession in list(session.subsessions.values()):
            node.send(subsession, Heartbeat(()))
        for other in node.sessions_forwarded_to(session.tega_id):
            passing.resend(node, other, session.tega_id)
        for each in (session, *session.subsessions.values()):
            # What is sent again follows on the Welcome, and no connection is silent for longer than this.
            each.doubt = min(each.doubt, node.now + SILENT * settings.heartbeat)
            watching.resume(node, each)
            writing.tell_expired(node, each)


def _hello(node: Node, peer: bytes, message: Hello) -> tuple[Session, bool]:
    if message.version < 1:
        raise ProtocolError(f"protocol version {message.version} does not exist; this is version {VERSION}")
    tega_id = check_tega_id(message.tega_id)
    if message.kind not in _KINDS:
        raise ProtocolError(f"there is no kind {message.kind[:32]!a}; there are {', '.join(sorted(_KINDS))}")
    before = node.sessions.by_peer.get(peer)
    if message.session:
        session = node.sessions.resume(message.session, message.token)
        if session is not None:
            if (session.kind == DELEGATE) != (message.kind == DELEGATE):
                raise ProtocolError(
                    f"session {message.session[:16]} is of the kind {session.kind} and stays so"
                )
            if before is not None and before is not session:
                connection_lost(node, before)
            if session.peer is not None and session.peer != peer:
                # Its owner has dropped that connection. If something still reads there, it is a copy.
                node.effects.append(Send(session.peer, Displaced(session.tega_id)))
                connection_lost(node, session)
            node.sessions.bind(session, peer)
            session.heard = node.now
            session.kind = message.kind
            return session, True
        if message.session in node.displaced:
            raise errors.TakenOver(
                f"another program said hello as {tega_id}; this session is over", tega_id=tega_id
            )
    if before is not None:
        end(node, before, "hello anew")
    other = node.sessions.by_tega_id.get(tega_id) if message.kind != DELEGATE else None
    if other is not None:
        if other.peer is not None:
            node.effects.append(Send(other.peer, Displaced(tega_id)))
        node.note("warning", "session taken over", tega_id=tega_id, session=other.id[:8])
        node.displaced[other.id] = None
        if len(node.displaced) > MAX_DISPLACED:
            del node.displaced[next(iter(node.displaced))]
        end(node, other, "taken over")
    session = _open(node, node.fresh(), tega_id, node.fresh() + node.fresh(), message.kind, None)
    node.sessions.bind(session, peer)
    return session, False


def _open(node: Node, id: str, tega_id: str, token: str, kind: str, via: Session | None) -> Session:
    session = Session(id, tega_id, token, kind, via, node.settings.lease, node.now)
    node.sessions.add(session, node.now + SILENT * node.settings.heartbeat)
    if node.failure is None:
        node.append(Opened(id, tega_id, token, _lease_via(session)))
    return session


def _lease_via(session: Session) -> str:
    """What stands as `via` in the lease of `session`."""
    if session.kind == "below":
        return ABOVE
    if session.via is not None:
        return session.via.id
    return DELEGATED if session.kind == DELEGATE else ""


def restore(node: Node) -> None:
    """Take the sessions of before the restart in; their leases run anew from now."""
    # By session too: what happens must not hang on the order of a map.
    own = ("", ABOVE, DELEGATED)
    leases = sorted(node.tip.leases.values(), key=lambda lease: (lease.via not in own, lease.session))
    for lease in leases:
        if lease.via == ABOVE:
            below = Session(lease.session, lease.tega_id, "", "below", None, 0.0, node.now)
            below.doubt = float("inf")
            node.below[below.id] = below
            continue
        kind = DELEGATE if lease.via == DELEGATED else "client"
        via = node.sessions.by_id.get(lease.via) if lease.via else None
        session = Session(lease.session, lease.tega_id, lease.token, kind, via, node.settings.lease, node.now)
        session.doubt = float("inf")
        if lease.via not in own and via is None:
            _erase(node, session)
            continue
        try:
            node.sessions.add(session, node.now + node.settings.lease)
        except TooLarge as error:
            node.note("warning", "session dropped at start", tega_id=session.tega_id, error=error.message)
            _erase(node, session)


# -- sub-sessions ----------------------------------------------------------------------------------


def subsession(node: Node, via: Session, id: str, tega_id: str) -> Session:
    """Return the sub-session `id` on the connection of `via`; open it if it is new.

    Raises `ProtocolError` if `id` is a session of another connection.
    """
    found = via.subsessions.get(id)
    if found is not None:
        return found
    _check_session_id(id)
    if id in node.sessions.by_id or id in node.below or (id in node.tip.leases and node.failure is None):
        raise ProtocolError(f"session {id[:16]} is not beyond {via.tega_id}")
    if len(via.subsessions) >= MAX_SUBSESSIONS:
        raise TooLarge(
            f"{MAX_SUBSESSIONS} sessions are open beyond {via.tega_id}",
            size=len(via.subsessions),
            limit=MAX_SUBSESSIONS,
        )
    for part in tega_id.split("/"):
        check_tega_id(part)
    name = via.tega_id if tega_id == via.tega_id else f"{via.tega_id}/{tega_id}"
    return _open(node, id, name[:255], "", "client", via)


def _check_session_id(id: str) -> None:
    if not 1 <= len(id) <= MAX_ID:
        raise ProtocolError(f"a session's id has 1 to {MAX_ID} characters")


def from_above(node: Node, id: str, tega_id: str) -> Session:
    """Return the session of the node above that writes here; open it if it is new."""
    found = node.below.get(id)
    if found is None:
        _check_session_id(id)
        if id in node.tip.leases:
            raise ProtocolError(f"session {id[:16]} is one of this node")
        name = f"{node.uplink_name}/{tega_id}"[:255]
        found = node.below[id] = Session(id, name, "", "below", None, 0.0, node.now)
        if node.failure is None:
            node.append(Opened(id, name, "", ABOVE))
    found.heard = node.now
    return found


# -- ends ------------------------------------------------------------------------------------------


def connection_lost(node: Node, session: Session) -> None:
    """The connection of `session` is gone; the session stands until its lease is over."""
    if session.peer is None:
        return
    node.sessions.unbind(session)
    for each in (session, *session.subsessions.values()):
        each.congested = False
    session.serving_trees.clear()
    calling.handler_lost(node, session)
    for name in session.claims:
        follower = node.followers.get(name)
        if follower is not None:
            follower.disconnected()
    node.note(
        "info" if session.kind == "agent" else "debug",
        "connection lost",
        tega_id=session.tega_id,
        session=session.id[:8],
    )


def end(node: Node, session: Session, why: str) -> None:
    """`session` is over: what it owns goes with it."""
    if session.ended:
        return
    session.ended = True
    node.dropped += session.dropped
    for subsession in list(session.subsessions.values()):
        end(node, subsession, why)
    level = "info" if session.kind == "agent" else "debug"
    node.note(level, "session ended", tega_id=session.tega_id, session=session.id[:8], why=why)
    calling.handler_lost(node, session)
    calling.caller_lost(node, session)
    restoring.session_over(node, session)
    watching.remove_all(node, session)
    for path in list(session.handlers):
        node.handlers.remove(path, session)
    for to in session.forwarded_to:
        _tell_ended(node, session, to)
    node.forget_forwarded(session)
    if session.kind == "agent" and session.via is None:
        node.followed.pop(session.tega_id, None)
        node.followed[session.tega_id] = [
            (name, session.positions.get(name)) for name in sorted(session.follows)
        ]
        if len(node.followed) > MAX_FOLLOWED:
            del node.followed[next(iter(node.followed))]
    replication.unfollow(node, session)
    replication.forget_awaiting(node, session)
    if session.pending:
        session.pending.clear()
        passing.forget_shown(node, session)
    session.transactions.clear()
    if session.claims:
        for name in session.claims:
            follower = node.followers.get(name)
            if follower is not None:
                follower.disconnected()
    if session.via is None:
        for other in node.sessions_forwarded_to(session.tega_id):
            passing.give_up(node, other, session.tega_id)
    if session.via is None:
        node.below.pop(session.id, None)
    node.sessions.remove(session)
    _erase(node, session)


def _erase(node: Node, session: Session) -> None:
    """Remove the ephemeral nodes of `session`, and its lease, from the store."""
    if node.failure is not None:
        return
    commit = end_session(node.tip, session.id, time=node.clock(), tega_id=session.tega_id)
    if commit is not None:
        node.append(commit)
    if session.id in node.tip.leases:
        node.append(Ended(session.id))


def _tell_ended(node: Node, session: Session, to: str) -> None:
    # A node that is away asks after its sub-sessions when it comes back (`Heartbeat` in a `Forward`).
    if to == "":
        if node.online:
            node.effects.append(SendUp(ForwardEnded(session.id)))
        return
    agent = node.claimant(to)
    if agent is not None and agent.peer is not None:
        node.effects.append(Send(agent.peer, ForwardEnded(session.id)))


def reconcile(node: Node) -> None:
    """The log takes writes again: make the leases in the store match the sessions."""
    # First those that are over: a crash in between must not leave two of one tega_id.
    for lease in sorted(node.tip.leases.values(), key=lambda lease: lease.session):
        if lease.session not in node.sessions.by_id and lease.session not in node.below:
            commit = end_session(node.tip, lease.session, time=node.clock(), tega_id=lease.tega_id)
            if commit is not None:
                node.append(commit)
            node.append(Ended(lease.session))
    for session in [*node.sessions, *node.below.values()]:
        if session.id not in node.tip.leases:
            node.append(Opened(session.id, session.tega_id, session.token, _lease_via(session)))
    replication.claim_again(node)


def check_leases(node: Node) -> None:
    """End the sessions whose lease is over; take silent connections for lost."""
    silence = SILENT * node.settings.heartbeat
    for session in list(node.sessions.due(node.now)):
        silent = node.now - session.heard
        if session.peer is None:
            if silent >= session.lease:
                end(node, session, "lease over")
                continue
            node.sessions.look_again(session, session.heard + session.lease)
        elif silent >= silence:
            connection_lost(node, session)
            node.sessions.look_again(session, session.heard + max(session.lease, silence))
        else:
            node.sessions.look_again(session, session.heard + silence)
