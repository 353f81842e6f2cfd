"""The agent's side of its uplink: what to do when the node above comes, goes, asks and answers."""

from __future__ import annotations

from typing import Any

from tega_zmq import errors, tree
from tega_zmq.client import protocol
from tega_zmq.errors import Disconnected, ProtocolError, ReadOnly, StorageError, TegaError
from tega_zmq.node import above, calling, lifecycle, passing, replication, watching
from tega_zmq.node.effects import Redial, RememberUplink, Send, SendUp, Topics
from tega_zmq.node.state import ABOVE, Node, Waiting
from tega_zmq.paths import Path, format_path
from tega_zmq.replica import Follower
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Change, Commit, Op, Owned, Update, WentOn, had_epoch
from tega_zmq.store import write as write_store
from tega_zmq.store.draft import lasting
from tega_zmq.wire import decode, encode
from tega_zmq.wire.messages import (
    REQUESTS,
    Abandon,
    AnyMessage,
    Blame,
    Changed,
    Check,
    Chunk,
    Claim,
    Diff,
    Dropped,
    Failure,
    Follow,
    Forward,
    ForwardEnded,
    Get,
    Gone,
    Heartbeat,
    Invoke,
    Log,
    Message,
    Pull,
    Reply,
    Report,
    RootUpdate,
    Subscribe,
    SubscribeRegex,
    Tag,
    Untag,
    Welcome,
    Write,
)

RETRY_CLAIM = 30.0
"""Seconds after which a refused claim, or a failed request to follow, is made again."""

MAX_REPORTS = 16
"""Most reports that are passed on; the oldest are forgotten."""

_FROM_ABOVE = frozenset({Write, Check, Get, Log, Diff, Blame, Tag, Untag})
"""What the node above passes on: writes, tags, and reads of a tag or version that only the owner knows."""

__all__ = [
    "changes",
    "connected",
    "connection_lost",
    "leave",
    "note_owners",
    "pump",
    "received",
    "remember",
    "report",
    "start",
    "tick",
]


def start(node: Node) -> None:
    """Set up followers of the config roots, and ownership of the operational ones."""
    note_owners(node)
    for name in node.settings.config:
        root = node.tip.roots[name]
        node.followers[name] = Follower(name, root.epoch, root.version)


def note_owners(node: Node) -> None:
    """Append who owns the roots of the config, where that does not stand in the log.

    Raises `StorageError` if one that is to come down holds data of this node: it may never have gone up.
    """
    for name in node.settings.config:
        root = node.tip.roots.get(name)
        if root is not None and root.owner == ABOVE:
            continue
        try:
            node.append(Owned(name, ABOVE, ""))
        except StorageError as error:
            shown = format_path((name,))
            raise StorageError(
                f"{shown} stands under `config`, but it was a root of this node's own and holds data, which"
                " what comes from the node above would replace; list it under `operational` once more, start,"
                f" `disown {shown}` at the broker, export what is wanted and `del {shown}` at this node, then"
                " list it under `config`"
            ) from error
    for name in node.settings.operational:
        root = node.tip.roots.get(name)
        if root is not None and root.owner != "":
            node.append(Owned(name, "", node.fresh()[:16]))


# -- the connection --------------------------------------------------------------------------------


def connected(node: Node) -> None:
    """A connection to the node above is up."""
    assert node.uplink is not None
    node.uplink.connected(node.now)
    pump(node)


def connection_lost(node: Node) -> None:
    """The connection to the node above is gone."""
    assert node.uplink is not None
    node.uplink.connection_lost(node.now)
    pump(node)


def received(node: Node, message: AnyMessage) -> None:
    """A message came down the uplink."""
    assert node.uplink is not None
    node.uplink.received(message, node.now)
    pump(node)


def leave(node: Node) -> None:
    """The program stops: end the session at the node above in order."""
    assert node.uplink is not None
    node.uplink.close(node.now)
    pump(node)
    node.remember = None
    node.effects.append(RememberUplink("", ""))


def tick(node: Node) -> None:
    """Time passed."""
    assert node.uplink is not None
    node.uplink.tick(node.now)
    pump(node)
    if node.online and node.now >= node.heartbeat_due:
        node.heartbeat_due = node.now + node.settings.heartbeat
        if node.now >= node.claims_due:
            above.open_roots(node)
        node.effects.append(SendUp(Heartbeat(above.positions(node))))
        for session in node.sessions:
            if session.lacking:
                passing.put_again(node, session)


def pump(node: Node) -> None:
    """Carry out what the uplink's session wants."""
    uplink = node.uplink
    assert uplink is not None
    while True:
        for message in uplink.take_output():
            node.effects.append(SendUp(message))
        events = uplink.take_events()
        if not events:
            return
        for event in events:
            if isinstance(event, protocol.Other):
                _message(node, event.message)
            elif isinstance(event, protocol.Completed):
                _completed(node, event.id, event.value)
            elif isinstance(event, protocol.Failed):
                _failed(node, event.id, event.error)
            elif isinstance(event, protocol.Welcomed):
                _came(node, event.welcome)
            elif isinstance(event, protocol.StateChanged):
                _state(node, event.state)
            elif isinstance(event, protocol.Rejected):
                node.note("error", "refused by the node above", error=str(event.error))
            elif isinstance(event, protocol.Redial):
                node.effects.append(Redial(event.delay))


def _state(node: Node, state: str) -> None:
    assert node.uplink is not None
    node.note(
        "info" if state == "connected" else "warning", "uplink " + state, server=node.uplink_name or None
    )
    if state == "taken over":
        # Whoever restarts this program wants it back: it then says hello anew, and is not refused again.
        node.remember = None
        node.effects.append(RememberUplink("", ""))
    if state in ("suspended", "lost", "taken over", "closed"):
        if node.online:
            _went(node)
        if state != "suspended":
            for session in node.sessions:
                passing.give_up(node, session, "")


def _came(node: Node, welcome: Welcome) -> None:
    node.online = True
    node.uplink_name = welcome.tega_id
    node.uplink_server = welcome.server
    node.topics_up.clear()
    node.claimed.clear()
    node.uplink_requests.clear()
    node.heartbeat_due = node.now + node.settings.heartbeat
    node.claims_due = node.now
    if not welcome.resumed:
        _forget_outcomes(node)
    # Not before the ends of sessions are durable: else a crash would hide that the session is a new one.
    node.remember = (node.number, RememberUplink(welcome.session, welcome.token))
    remember(node)
    above.open_roots(node)
    for below in node.below.values():
        if welcome.resumed:  # what is sent again follows on the Welcome
            below.doubt = min(below.doubt, node.now + lifecycle.SILENT * node.settings.heartbeat)
        node.effects.append(SendUp(Forward(below.id, "", encode(Heartbeat(())))))
    for session in node.sessions:
        session.asked_above.clear()
        session.unsaid.clear()
        if not welcome.resumed:
            session.retracted.clear()
        for key, request in session.retracted.items():
            session.asked_above[request.id] = (calling.RETRACTED, key)
            calling.forward_up(node, session, request)
        for key, request in session.announced.items():
            session.asked_above[request.id] = key
            calling.forward_up(node, session, _since(session, request))
        if welcome.resumed:
            passing.resend(node, session, "")
        else:
            passing.give_up(node, session, "")
        passing.put_all_again(node, session, welcome.resumed)
    for name, value in node.reports.items():
        above.ask(node, "report", name, Report, name, value)


def remember(node: Node) -> None:
    """Have the session at the node above kept for the next start, if its time has come."""
    if node.remember is not None and node.remember[0] <= node.durable_number:
        node.effects.append(node.remember[1])
        node.remember = None


def _forget_outcomes(node: Node) -> None:
    """The node above lost this agent's session, and with it what it knew of writes that were passed up.

    Such a write must not go up once more. Of sessions from before a restart it is not known which these are:
    they end, and their owners learn in a new one that the outcome is unknown.
    """
    for session in node.sessions:
        if session.doubt > node.now:
            if session.peer is not None:
                node.effects.append(Send(session.peer, Gone()))
            lifecycle.end(node, session, "its session at the node above was lost")
        else:
            session.lost_above = session.passed_up


def _since(session: Session, request: object) -> object:
    """A subscription that goes up is made again from where it has been told."""
    if isinstance(request, (Subscribe, SubscribeRegex)):
        told = session.told.get(request.subscription)
        if told is not None:
            since = tuple((root, epoch, version) for root, (epoch, version) in told.items())
            return request._replace(since=since)
    return request


def _announced(node: Node, session: Session, key: tuple[str, Any], answer: Reply | Failure) -> None:
    """The node above answered what was announced under `key`."""
    kind, which = key
    if kind == calling.RETRACTED:
        if getattr(session.retracted.get(which), "id", None) == answer.id:
            del session.retracted[which]
    elif isinstance(answer, Failure):
        node.note(
            "warning",
            f"{kind} refused by the node above",
            tega_id=session.tega_id,
            error=f"{answer.code}: {answer.message}",
        )
    elif kind == "subscription":
        _subscribed(node, session, which, answer.value)


def _subscribed(node: Node, session: Session, number: int, value: object) -> None:
    """The node above said yes to a subscription, and from where on it tells of each root."""
    request = session.announced.get(("subscription", number))
    if not isinstance(request, (Subscribe, SubscribeRegex)) or not isinstance(value, (list, tuple)):
        return
    starts = [tuple(_answer(entry, str, str, int)) for entry in value]
    told = session.told.get(number)
    if told is None:
        told = session.told[number] = {root: (epoch, version) for root, epoch, version in request.since}
        for root, epoch, version in starts:
            told.setdefault(root, (epoch, version))
        if isinstance(request, Subscribe):
            told.setdefault(request.path[0], ("", ABSENT))
        return
    # It was made again. Of roots that came into being meanwhile nothing has been told.
    fresh = [root for root, _, version in starts if root not in told and version != ABSENT]
    if fresh:
        told.update((root, ("", ABSENT)) for root in fresh)
        session.asked_above[request.id] = ("subscription", number)
        calling.forward_up(node, session, _since(session, request))


def _went(node: Node) -> None:
    node.online = False
    for name in above.coming(node):
        node.followers[name].disconnected()
    node.above.serving_trees.clear()
    calling.abandon(node, node.calls.all_from_uplink())
    for session in node.sessions:
        for id, waiting in list(session.pending.items()):
            if isinstance(waiting, Waiting) and waiting.to == "" and not waiting.resend:
                node.fail(session, id, Disconnected("the link to the node above was lost", outcome="unknown"))


# -- the agent's own requests ----------------------------------------------------------------------


def _completed(node: Node, id: int, value: object) -> None:
    what, name = node.uplink_requests.pop(id, ("", ""))
    if what == "follow":
        topic, epoch, version = _answer(value, bytes, str, int)
        if not above.comes(node, name):
            return  # an agent below has claimed it meanwhile
        node.topics_up[name] = topic
        assert node.uplink is not None
        assert node.uplink.welcome is not None
        node.effects.append(Topics(node.uplink.welcome.changes, frozenset(node.topics_up.values()) - {b""}))
        follower = node.followers[name]
        replication.follow(node, follower, follower.position(epoch, version, node.now), None)
        if epoch == follower.epoch and version < follower.version:
            # The sooner the owner hears that it has lost commits, the fewer versions it uses twice.
            node.effects.append(SendUp(Heartbeat(above.positions(node))))
    elif what == "claim":
        epoch, version = _answer(value, str, int)
        node.refused.pop(name, None)
        if name not in node.settings.operational:
            node.claimed[name] = (epoch, version)
            replication.settle(node, name, Claim)
            replication.replica_at(node, name, epoch, version)
            node.effects.append(SendUp(Heartbeat(above.positions(node))))
            return
        root = node.tip.roots.get(name)
        known = version != ABSENT
        lacking = known and (root is None or root.version == ABSENT or not had_epoch(root, epoch))
        # Its replica begins anew whatever the epoch is. If this store was put back from a copy, what comes
        # after the present version may be known to somebody already, unless the epoch is one of this run.
        renew = known and root is not None and root.epoch != epoch and name not in node.begun
        if (lacking or renew) and node.failure is not None:
            node.claims_due = node.now + RETRY_CLAIM
            return
        node.claimed[name] = (epoch, version)
        if lacking:
            _go_on_from(node, name, version)
            return
        if renew:
            replication.begin_epochs(node, (name,))
            return  # the node above hears of the epoch when it is durable, and of none before it
        replication.replica_at(node, name, epoch, version)
        node.effects.append(SendUp(Heartbeat(above.positions(node))))


def _go_on_from(node: Node, name: str, version: int) -> None:
    """This agent's store never had what the node above knows of the root: versions go on from there.

    What was written here meanwhile becomes one commit that begins by deleting the root, so that a replica
    can take it without knowing more.
    """
    root = node.tip.roots.get(name)
    epoch = node.fresh()[:16]
    changes = [Change((name,), False)]
    ephemerals: dict[Path, tuple[str, Any]] = {}
    if root is not None and root.node is not None:
        kept = lasting((root.node, root.ephemerals, root.born))
        if kept is not None:
            changes.append(Change((name,), True, tree.plain(kept)))
        for path, session in sorted(root.ephemerals.items()):
            found = tree.get(root.node, path[1:])
            assert found is not None
            ephemerals[path] = (session, tree.plain(found))
    node.append(WentOn(name, epoch, version))
    node.begun.add(name)
    update = Update(
        name, epoch, version, version + 1, tuple(changes), node.clock(), node.settings.tega_id, "store is new"
    )
    node.append(Commit(node.tip.revision + 1, (update,)))
    for path, (session, value) in ephemerals.items():
        again = write_store(
            node.tip,
            (Op("put", path, value, None, True),),
            time=node.clock(),
            tega_id=node.tip.leases[session].tega_id,
            session=session,
            fresh=node.fresh,
            max_value=node.settings.max_value,
        )
        if again.commit is not None:
            node.append(again.commit, again.store)
    node.note("warning", "root goes on from the replica's version", root=name, version=version + 1)


def _answer(value: object, *kinds: type) -> tuple:  # type: ignore[type-arg]
    if (
        isinstance(value, (list, tuple))
        and len(value) == len(kinds)
        and all(type(part) is kind for part, kind in zip(value, kinds, strict=True))
        and all(ABSENT <= part < 1 << 62 if type(part) is int else len(part) <= 255 for part in value)
    ):
        return tuple(value)
    raise ProtocolError(f"the node above answered {str(value)[:64]!a}")


def _failed(node: Node, id: int, error: TegaError) -> None:
    what, name = node.uplink_requests.pop(id, ("", ""))
    if what:
        node.note("warning", f"{what} refused", root=name, error=f"{error.code}: {error.message}")
        node.claims_due = node.now + RETRY_CLAIM
    if what == "claim":
        node.claimed.pop(name, None)
        above.note_refused(node, name, f"{error.code}: {error.message}")
        if name not in node.settings.operational:
            if isinstance(error, ReadOnly):
                replication.let_go(node, name, ABOVE)
            replication.settle(node, name, Claim, error)
    elif what == "follow":
        replication.settle(node, name, Follow, error)


def report(node: Node, name: str, value: object) -> None:
    """Pass a plugin's report on to the node above, now and after every reconnect."""
    node.reports[name] = value
    if len(node.reports) > MAX_REPORTS:
        del node.reports[next(iter(node.reports))]
    if node.online:
        above.ask(node, "report", name, Report, name, value)
        pump(node)


# -- messages --------------------------------------------------------------------------------------


def _message(node: Node, message: AnyMessage) -> None:
    if isinstance(message, Forward):
        _forwarded(node, message)
    elif isinstance(message, RootUpdate):
        replication.update(node, None, message)
    elif isinstance(message, Chunk):
        replication.chunk(node, None, message)
    elif isinstance(message, Pull):
        replication.pull(node, None, message)
    elif isinstance(message, Heartbeat):
        replication.positions(node, None, message.positions)
    elif isinstance(message, ForwardEnded):
        below = node.below.get(message.session)
        if below is not None:
            lifecycle.end(node, below, "ended above")


def _forwarded(node: Node, message: Forward) -> None:
    body = decode(message.body)
    if type(body) in REQUESTS:
        _asked_from_above(node, message, body)
        return
    if isinstance(body, Invoke):
        calling.invoke_from_uplink(node, message.session, body)
        return
    if isinstance(body, Abandon):
        calling.abandon_from_uplink(node, message.session, body)
        return
    session = node.sessions.by_id.get(message.session)
    if session is None:
        node.effects.append(SendUp(ForwardEnded(message.session)))
    elif isinstance(body, Heartbeat):
        # The node above holds a sub-session for it. After a restart only that knows; it must hear of the end.
        node.note_forwarded(session, "")
    elif isinstance(body, (Reply, Failure)) and body.id == 0 and session.putting:
        passing.put_again_answered(node, session, body)
    elif isinstance(body, (Reply, Failure)):
        key = session.asked_above.pop(body.id, None)
        if key is None:
            passing.answered(node, session, body, "")
        else:
            _announced(node, session, key, body)
    elif isinstance(body, Changed):
        if body.subscription in session.subscriptions:
            session.told.setdefault(body.subscription, {})[body.root] = (body.epoch, body.version)
            node.send(session, body)
    elif isinstance(body, Message):
        watching.send_message(node, session, body)
    elif isinstance(body, Dropped):
        session.dropped += body.count
        if session.connected and not session.congested:
            watching.tell_dropped(node, session)


def _asked_from_above(node: Node, message: Forward, body: Any) -> None:
    """The node above passes on the request `body`, for a root that is owned here."""
    from tega_zmq.node.machine import request

    try:
        if type(body) not in _FROM_ABOVE:
            raise ProtocolError(f"{node.settings.tega_id} takes no {type(body).__name__} from the node above")
        session = lifecycle.from_above(node, message.session, message.tega_id)
    except TegaError as error:
        # Said at once: whoever asked would wait for it until the deadline.
        refusal = Failure(body.id, *errors.encode(error))
        node.effects.append(SendUp(Forward(message.session, "", encode(refusal))))
        node.note("warning", "request from the node above refused", error=f"{error.code}: {error.message}")
        return
    request(node, session, body)


def changes(node: Node, topic: bytes, message: RootUpdate) -> None:
    """An update was published at the node above."""
    if topic and topic in node.topics_up.values():
        replication.update(node, None, message, published=True)
