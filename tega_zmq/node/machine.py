"""A node's events: what a program calls when something happened. The effects stand in `Node.effects`.

Every function takes `now`, monotonic seconds. None of them raises for what a peer sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tega_zmq import errors
from tega_zmq.errors import Forbidden, InvalidValue, ProtocolError, StorageError, TegaError, TooLarge
from tega_zmq.node import (
    calling,
    inspect,
    lifecycle,
    passing,
    past,
    reading,
    replication,
    restoring,
    unsendable,
    uplink,
    walking,
    watching,
    writing,
)
from tega_zmq.node.effects import Append, Effect, Send, SendUp, Snapshot
from tega_zmq.node.state import ABOVE, Node
from tega_zmq.replica import Follower
from tega_zmq.sessions import DELEGATE, Session
from tega_zmq.store import (
    Cleared,
    Commit,
    NewEpochs,
    Owned,
    Replicated,
    ResetEnd,
    Root,
    Store,
    WentOn,
    owned_roots,
    update_at,
)
from tega_zmq.wire import decode, encode, messages
from tega_zmq.wire.messages import AnyMessage, RootUpdate

__all__ = [
    "cannot_send",
    "congested",
    "drained",
    "durable",
    "garbage",
    "history_read",
    "let_go",
    "log_failed",
    "next_deadline",
    "peer_gone",
    "receive",
    "request",
    "snapshot_done",
    "snapshot_failed",
    "start",
    "take_effects",
    "tick",
    "topic_subscribed",
    "uplink_changes",
    "uplink_close",
    "uplink_connected",
    "uplink_lost",
    "uplink_received",
]

REQUESTS: Final[Mapping[type, Callable[[Node, Session, Any], None]]] = {
    messages.Get: reading.get_request,
    messages.Find: reading.find_request,
    messages.Log: reading.log_request,
    messages.Diff: reading.diff_request,
    messages.Write: writing.write,
    messages.Begin: writing.begin,
    messages.Candidate: writing.candidate,
    messages.CommitTransaction: writing.commit_transaction,
    messages.CancelTransaction: writing.cancel_transaction,
    messages.Check: writing.check,
    messages.Subscribe: watching.subscribe,
    messages.SubscribeRegex: watching.subscribe,
    messages.Unsubscribe: watching.unsubscribe,
    messages.Listen: watching.listen,
    messages.Publish: watching.publish,
    messages.Register: calling.register,
    messages.Unregister: calling.unregister,
    messages.Call: calling.call,
    messages.CallAll: calling.call_all,
    messages.CancelCall: calling.cancel_call,
    messages.Claim: replication.claim,
    messages.Follow: replication.follow_request,
    messages.Report: inspect.report,
    messages.Inspect: inspect.inspect,
    messages.Manage: inspect.manage,
    messages.Blame: reading.blame_request,
    messages.Tag: past.tag,
    messages.Untag: past.untag,
    messages.Updates: restoring.updates_request,
    messages.Restore: restoring.restore,
    messages.Part: restoring.part,
    messages.Piece: restoring.piece,
}


_NOT_DELEGATED: Final = frozenset({messages.Register, messages.Claim, messages.Follow, messages.Report})
"""What a delegated session may not ask for: it would stand in the way of the tega_id's own session."""

MAX_TIMEOUT: Final = 86_400_000
"""Longest that a request may wait, in milliseconds."""


_MINUTE: Final = 60.0
"""Seconds for which refusals are counted, so that whoever sends nonsense does not fill the log."""

_TOLD_OF_ONE: Final = 5
"""Messages of one peer whose refusal is in the log in that time."""

_TOLD_OF: Final = 20
"""Peers of which the log tells in it."""


def take_effects(node: Node) -> list[Effect]:
    """Return the effects since the last time, in order; the program carries them out."""
    if node.unsent:
        unsendable.settle(node)
    effects = node.effects
    node.effects = []
    return effects


def let_go(node: Node) -> None:
    """Free what the node has no use for any more; the program does that when the answers are sent.

    Where commits come in quick succession that takes a sixth of the time of each.
    """
    if node.spent:
        node.spent.clear()


def start(node: Node, *, epochs: bool, now: float) -> None:
    """The log is read: take the sessions in, open the roots. `epochs`: history may have lost its end."""
    node.now = now
    if epochs:
        _renew_epochs(node)
    if node.uplink is not None:
        uplink.start(node)
    for _, root in sorted(node.tip.roots.items(), key=lambda pair: pair[0]):
        if root.owner not in ("", ABOVE):
            node.followers[root.name] = Follower(root.name, root.epoch, root.version)
    lifecycle.restore(node)


def _renew_epochs(node: Node) -> None:
    """Begin new epochs. Until that is durable it is still to be done: a log that fails may lose it."""
    owned = owned_roots(node.tip)
    node.renewing = bool(owned)
    if owned:
        replication.begin_epochs(node, owned)


# -- peers -----------------------------------------------------------------------------------------


def receive(node: Node, peer: bytes, message: AnyMessage, now: float) -> None:
    """`message` came from the connection `peer`."""
    node.now = now
    session = node.sessions.by_peer.get(peer)
    kind = type(message)
    if session is None:
        if kind is messages.Hello:
            lifecycle.hello(node, peer, message)  # type: ignore[arg-type]
        elif kind is not messages.Bye:
            node.effects.append(Send(peer, messages.Gone()))
        return
    session.heard = now
    if kind in REQUESTS:
        request(node, session, message)
        return
    handler = _OTHERS.get(kind)
    try:
        if handler is None:
            raise ProtocolError(f"a session does not send {kind.__name__}")
        handler(node, session, message)
    except TegaError as error:
        _refuse(node, peer, error)


def request(node: Node, session: Session, message: Any) -> None:
    """Take one request of `session`; a retry of what is being done already changes nothing."""
    id = message.id
    if id in session.pending:
        return
    if message.ack > session.ack:
        session.ack = message.ack
    try:
        if len(session.pending) >= node.settings.max_calls and type(message) is not messages.CancelCall:
            raise TooLarge(
                f"{session.tega_id} has {len(session.pending)} unanswered requests, as many as limits.calls"
                " allows",
                size=len(session.pending),
                limit=node.settings.max_calls,
            )
        if message.timeout > MAX_TIMEOUT:
            raise InvalidValue(f"a timeout of {message.timeout} ms; {MAX_TIMEOUT} are the most")
        if session.kind == DELEGATE:
            _check_delegated(session, message)
        if node.behind and past.drain(node, session, message):
            return
        try:
            REQUESTS[type(message)](node, session, message)
        except past.Deep as lacking:
            past.ask(node, session, message, lacking.want)
        except past.Elsewhere as lacking:
            asked = _without_transaction(message, lacking.root)
            passing.pass_on(node, session, asked, lacking.root, node.owner(lacking.root))
        finally:
            if node.known:
                node.known = {}
    except TegaError as error:
        if _is_commit(message):
            # A retry after the reason has gone would come behind what was asked later.
            session.settle(messages.Failure(id, *errors.encode(error)))
        node.fail(session, id, error)


def _without_transaction(message: Any, root: str) -> Any:
    """Return `message` as the owner of `root` takes it, who knows nothing of a transaction that is open here.

    Raises `InvalidValue` for an operation, which belongs into that.
    """
    if type(message) is messages.Write and message.txid:
        raise InvalidValue(
            f"what that version of {root} is, only its owner knows; in a transaction here, give its number"
        )
    if type(message) is messages.Get and message.txid:
        return message._replace(txid="")
    return message


def history_read(node: Node, number: int, result: Any, now: float) -> None:
    """What the effect `ReadHistory` with `number` asks for was read: `result`, or the error instead."""
    node.now = now
    past.take(node, number, past.as_error(result) if isinstance(result, Exception) else result, request)


def _is_commit(message: Any) -> bool:
    kind = type(message)
    return kind is messages.CommitTransaction or (kind is messages.Write and not message.txid)


def _check_delegated(session: Session, message: Any) -> None:
    """Raises `Forbidden` for what only a tega_id's own session may ask."""
    kind = type(message)
    if kind in _NOT_DELEGATED or (kind is messages.Write and any(op[4] for op in message.ops)):
        raise Forbidden(
            f"{session.tega_id} has no session of its own here, only requests through a bridge; these hold "
            "no ephemeral nodes, handlers, roots or replicas",
            action=kind.__name__,
            tega_id=session.tega_id,
        )


def _hello_again(node: Node, session: Session, message: messages.Hello) -> None:
    if session.peer is not None:
        lifecycle.hello(node, session.peer, message)


def _bye(node: Node, session: Session, _: messages.Bye) -> None:
    lifecycle.end(node, session, "closed")


def _heartbeat(node: Node, session: Session, message: messages.Heartbeat) -> None:
    replication.positions(node, session, message.positions)
    node.send(session, messages.Heartbeat(replication.my_positions(node, session)))


def _forward(node: Node, session: Session, message: messages.Forward) -> None:
    body = decode(message.body)
    kind = type(body)
    if kind in REQUESTS:
        try:
            origin = lifecycle.subsession(node, session, message.session, message.tega_id)
        except TegaError as error:
            _refuse_forwarded(node, session, message.session, body, error)
            return
        request(node, origin, body)
    elif kind is messages.Result:
        found = session.subsessions.get(message.session)
        if found is not None:
            calling.result(node, found, body)  # type: ignore[arg-type]
    elif kind is messages.Heartbeat:
        asked = _asker(node, message.session)
        if asked is None:
            node.send(session, messages.ForwardEnded(message.session))
        else:
            # After a restart only the other side knows; it must hear when this session ends.
            node.note_forwarded(asked, session.tega_id)
    elif isinstance(body, (messages.Reply, messages.Failure)):
        asked = _asker(node, message.session)
        if asked is not None:
            passing.answered(node, asked, body, session.tega_id)
    else:
        raise ProtocolError(f"a session does not forward {kind.__name__}")


def _refuse_forwarded(node: Node, session: Session, id: str, body: Any, error: TegaError) -> None:
    """There can be no sub-session `id`: say so to who asks in it, and would wait until the deadline."""
    assert session.peer is not None
    if len(id) > lifecycle.MAX_ID:  # no session's; it may not even fit into an answer
        raise error
    refusal = messages.Failure(body.id, *errors.encode(error))
    node.effects.append(Send(session.peer, messages.Forward(id, "", encode(refusal))))
    _note_refused(node, session.peer, error)


def _asker(node: Node, id: str) -> Session | None:
    """Return the session `id`, of this node or of the node above, in whose name an agent below was asked."""
    return node.sessions.by_id.get(id) or node.below.get(id)


def _forward_ended(node: Node, session: Session, message: messages.ForwardEnded) -> None:
    found = session.subsessions.get(message.session)
    if found is not None:
        lifecycle.end(node, found, "closed at its agent")


def _root_update(node: Node, session: Session, message: RootUpdate) -> None:
    replication.update(node, session, message)


def _refuse(node: Node, peer: bytes, error: TegaError) -> None:
    node.effects.append(Send(peer, messages.Refused(*errors.encode(error))))
    _note_refused(node, peer, error)


def _note_refused(node: Node, peer: bytes, error: TegaError) -> None:
    if node.now >= node.bad_until:
        _tell_refused(node)
        node.bad_until = node.now + _MINUTE
    count = node.bad_messages.get(peer, 0)
    if count < _TOLD_OF_ONE and (count or len(node.bad_messages) < _TOLD_OF):
        node.bad_messages[peer] = count + 1
        node.note("warning", "message refused", error=f"{error.code}: {error.message}")
    else:
        node.bad_more += 1


def _tell_refused(node: Node) -> None:
    """The minute is over: say how many refusals in it had no line of their own."""
    if node.bad_more:
        node.note("warning", "more messages refused", times=node.bad_more)
        node.bad_more = 0
    node.bad_messages.clear()


_OTHERS: Final[Mapping[type, Callable[[Node, Session, Any], None]]] = {
    messages.Hello: _hello_again,
    messages.Bye: _bye,
    messages.Heartbeat: _heartbeat,
    messages.Result: calling.result,
    messages.Forward: _forward,
    messages.ForwardEnded: _forward_ended,
    messages.RootUpdate: _root_update,
    messages.Pull: replication.pull,
    messages.Chunk: replication.chunk,
}


def garbage(node: Node, peer: bytes, error: ProtocolError, id: int | None, now: float) -> None:
    """Something undecodable came from `peer`; `id`: of the request, if that could be read."""
    node.now = now
    session = node.sessions.by_peer.get(peer)
    if session is not None and id is not None and id not in session.pending:
        session.heard = now
        node.fail(session, id, error)
    else:
        _refuse(node, peer, error)


def peer_gone(node: Node, peer: bytes, now: float) -> None:
    """The connection `peer` is lost, as the socket says."""
    node.now = now
    session = node.sessions.by_peer.get(peer)
    if session is not None:
        lifecycle.connection_lost(node, session)


def congested(node: Node, peer: bytes) -> None:
    """`peer` does not read as fast as it is sent to."""
    for session in _of_peer(node, peer):
        session.congested = True


def drained(node: Node, peer: bytes, now: float) -> None:
    """What waited for `peer` has been sent."""
    node.now = now
    for session in _of_peer(node, peer):
        if session.congested:
            session.congested = False
            watching.resume(node, session)


def _of_peer(node: Node, peer: bytes) -> list[Session]:
    session = node.sessions.by_peer.get(peer)
    return [] if session is None else [session, *session.subsessions.values()]


def topic_subscribed(node: Node, topic: bytes, now: float) -> bool:
    """A subscription to `topic` appeared on the publisher. Returns whether it is a topic of this node."""
    node.now = now
    return replication.topic_subscribed(node, topic)


# -- the uplink ------------------------------------------------------------------------------------


def uplink_connected(node: Node, now: float) -> None:
    """The connection to the node above is up."""
    node.now = now
    uplink.connected(node)


def uplink_lost(node: Node, now: float) -> None:
    """The connection to the node above is gone."""
    node.now = now
    uplink.connection_lost(node)


def uplink_close(node: Node, now: float) -> None:
    """The program stops: leave the node above without a word, so that the session can be resumed."""
    node.now = now
    assert node.uplink is not None
    uplink.leave(node)


def uplink_received(node: Node, message: AnyMessage, now: float) -> None:
    """A message came down the uplink."""
    node.now = now
    try:
        uplink.received(node, message)
    except TegaError as error:
        node.note("error", "bad message from the node above", error=f"{error.code}: {error.message}")


def uplink_changes(node: Node, topic: bytes, message: RootUpdate, now: float) -> None:
    """The publisher of the node above sent an update."""
    node.now = now
    try:
        uplink.changes(node, topic, message)
    except TegaError as error:
        node.note("error", "bad update from the node above", error=f"{error.code}: {error.message}")


def cannot_send(node: Node, effect: Send | SendUp, error: TegaError, now: float) -> None:
    """The message of `effect` cannot be encoded (`TooLarge`, `InvalidValue`)."""
    node.now = now
    unsendable.note(node, effect, error)


# -- the log ---------------------------------------------------------------------------------------


def durable(node: Node, number: int, now: float) -> None:
    """The log is durable up to record `number`: show what became so, and answer."""
    node.now = now
    steps, spent = node.steps, node.spent
    spent.clear()
    spent.append(node.durable)
    while steps and steps[0].number <= number:
        step = steps.popleft()
        spent.append(step)
        before, node.durable = node.durable, step.store
        node.durable_number = step.number
        _show(node, before, step.store, step.record)
    if number > node.durable_number:
        node.durable_number = number
    if node.gated:
        node.release()
    if node.shown:
        passing.release_shown(node)
    if node.held:
        passing.release_held(node)
    if node.remember is not None:
        uplink.remember(node)


def _show(node: Node, before: Store, after: Store, record: Any) -> None:
    kind = type(record)
    if kind is Commit:
        for update in record.updates:
            replication.publish(node, update)
            name = update.root
            known = before.roots.get(name)
            if known is None or known.epoch != update.epoch:
                replication.tell_epoch(node, after.roots[name])
            if node.subscriptions.count:
                watching.tell(node, update, known, after.roots.get(name))
    elif kind is Replicated:
        update = record.update
        known = before.roots.get(update.root)
        replication.publish(node, update)
        if known is None or known.epoch != update.epoch:
            replication.tell_epoch(node, after.roots[update.root])
        watching.tell(node, update, known, after.roots.get(update.root))
        replication.settle(node, update.root, messages.Follow)
    elif kind is ResetEnd or kind is WentOn:
        root = after.roots.get(record.root)
        if root is not None:
            known = before.roots.get(record.root)
            if known is None or known.epoch != root.epoch:
                replication.tell_epoch(node, root)
            watching.reset(node, root, known.node if known is not None else None)
            replication.beacon_at(node, record.root, node.now)
        if kind is ResetEnd:
            replication.replaced(node, record.root)
    elif kind is NewEpochs:
        node.renewing = False
        for name, _ in record.epochs:
            replication.beacon_at(node, name, node.now)
            replication.replaced(node, name)
    elif kind is Owned:
        _show_owned(node, record.root, before.roots.get(record.root), after.roots[record.root])
    elif kind is Cleared:
        for name, root in sorted(before.roots.items(), key=lambda pair: pair[0]):
            if name not in after.roots:
                watching.reset(node, watching.gone(name), root.node)


def _show_owned(node: Node, name: str, before: Root | None, after: Root) -> None:
    if before is not None and before.version != after.version:  # ephemeral nodes of the former owner went
        update = update_at(after, after.version)
        assert update is not None
        replication.publish(node, update)
        watching.tell(node, update, before, after)
    replication.beacon_at(node, name, node.now)


def log_failed(node: Node, reason: str, number: int, now: float) -> None:
    """A write or sync failed: only the records up to `number` are durable. Refuse writes from now on."""
    durable(node, number, now)
    node.failure = reason
    node.tip = node.durable
    node.number = node.durable_number
    lost = len(node.steps)
    # The node above is to be asked again from where such a root goes on.
    for step in node.steps:
        if isinstance(step.record, WentOn):
            node.claimed.pop(step.record.root, None)
            node.begun.discard(step.record.root)
        elif isinstance(step.record, NewEpochs):
            for name, _ in step.record.epochs:
                node.begun.discard(name)
                node.claimed.pop(name, None)
    node.steps.clear()
    node.effects = [effect for effect in node.effects if not isinstance(effect, Append)]
    error = StorageError(
        f"the log could not take the write: {reason}; nothing was changed here",
        reason=reason,
        outcome="unknown",
    )
    gated, node.gated = list(node.gated), type(node.gated)()
    for entry in gated:
        node.fail(entry.session, entry.message.id, error)
    passing.fail_held(node, error)
    walking.fail_lost(node, error)
    for session in [*node.sessions, *node.below.values()]:
        session.last_lsn = min(session.last_lsn, node.number)
    for follower in node.followers.values():
        replication.step_back(node, follower)
    node.note("error", "log failed: writes are refused until an operator acts", reason=reason, dropped=lost)


def snapshot_done(
    node: Node, number: int, size: int, seconds: float, now: float, *, mended: bool = True
) -> None:
    """A snapshot is on disk. If the log had failed and this snapshot `mended` it, it takes writes again.

    One that was begun before the log failed mends nothing: another one follows for those who wait.
    """
    node.now = now
    if node.failure is not None and not mended:
        if node.snapshots:
            node.effects.append(Snapshot())
        return
    if node.failure is not None:
        node.note("warning", "log takes writes again", reason=node.failure)
        node.failure = None
        if node.renewing:
            _renew_epochs(node)
        if node.uplink is not None:
            uplink.note_owners(node)
        lifecycle.reconcile(node)
    waiting, node.snapshots = node.snapshots, []
    for session, id in waiting:
        node.reply(session, id, {"number": number, "bytes": size, "seconds": round(seconds, 3)})
    node.note("info", "snapshot written", number=number, bytes=size, seconds=round(seconds, 3))


def snapshot_failed(node: Node, reason: str, now: float) -> None:
    """A snapshot could not be written."""
    node.now = now
    waiting, node.snapshots = node.snapshots, []
    for session, id in waiting:
        node.fail(
            session,
            id,
            StorageError(f"the snapshot could not be written: {reason}", reason=reason, outcome="none"),
        )
    node.note("error", "snapshot failed", reason=reason)


# -- time ------------------------------------------------------------------------------------------


def tick(node: Node, now: float) -> None:
    """Time passed; call it at `next_deadline`, or earlier."""
    node.now = now
    calling.expire(node)
    passing.expire(node)
    if node.idle:
        writing.expire(node)
    lifecycle.check_leases(node)
    if node.beacons:
        replication.send_beacons(node)
    if node.bad_more and now >= node.bad_until:
        _tell_refused(node)
    if node.uplink is not None:
        uplink.tick(node)
    if node.walks:
        walking.advance(node)


def next_deadline(node: Node) -> float:
    """When `tick` is due (monotonic seconds); infinite if nothing is waited for."""
    if node.walks:
        return node.now
    due = node.sessions.next_due()  # compared one by one: it is done for every pass of the loop
    if node.beacons_due < due:
        due = node.beacons_due
    if (other := node.calls.next_deadline()) < due:
        due = other
    if node.idle and (other := writing.next_idle(node)) < due:
        due = other
    if node.deadlines and node.deadlines[0][0] < due:
        due = node.deadlines[0][0]
    if node.bad_more and node.bad_until < due:
        due = node.bad_until
    if node.uplink is not None:
        uplink_due = node.uplink.next_deadline()
        if uplink_due is not None and uplink_due < due:
            due = uplink_due
        if node.online and node.heartbeat_due < due:
            due = node.heartbeat_due
    return due
