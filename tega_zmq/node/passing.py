"""Requests that another node answers: passed on to the owner of a root, and the answers passed back."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

from tega_zmq import errors
from tega_zmq.errors import Offline, OwnerAway, ProtocolError, ReadOnly, TegaError, Timeout, TooLarge
from tega_zmq.node import above
from tega_zmq.node.effects import Send, SendUp
from tega_zmq.node.state import Node, Waiting
from tega_zmq.paths import Path
from tega_zmq.sessions import Session
from tega_zmq.store import Op
from tega_zmq.wire import encode
from tega_zmq.wire.messages import (
    Begin,
    CancelTransaction,
    Candidate,
    Failure,
    Forward,
    Get,
    OpField,
    Reply,
    Write,
)

NOT_TRIED = frozenset({"Offline", "OwnerAway"})
"""Errors of a write that was not even sent to the owner of its root."""

_PASSING = frozenset({"Offline", "OwnerAway", "StorageError", "Timeout", "Disconnected", "TooLarge"})
"""Errors that pass: an ephemeral node that could not be put again for such a one is put later.

`TooLarge`: of the sessions at the node above; the value was taken once.
"""

Convert: TypeAlias = Callable[[Reply | Failure], Reply | Failure | None]

MAX_AGAIN = 100
"""Later operations within an ephemeral node of the node above that are said again after a lost session."""


def pass_on(node: Node, session: Session, request: Any, root: str, owner: str | None) -> None:
    """Send `request` to the owner of `root`: up (None) or down to the agent `owner`.

    Raises `Offline`, `OwnerAway` or `ReadOnly` if it cannot be sent.
    """
    if owner is None:
        if session.kind == "below":
            node.check_log()  # with what it lost may have gone whose root it is
            raise ReadOnly(
                f"{root} is no root of {node.settings.tega_id}, nor of an agent below it",
                root=root,
                owner=node.settings.tega_id,
            )
        pass_up(node, session, request, root)
        return
    agent = node.claimant(owner)
    if agent is None or agent.peer is None or root not in agent.claims:
        raise OwnerAway(
            f"{root} belongs to {owner}, which is not connected; try again later, or `disown {root}` if it"
            " is gone for good",
            root=root,
            owner=owner,
        )
    if isinstance(request, Write) and session.doubt > node.now and not agent.doubt:
        # Before this node restarted it may have gone to the session that the agent had then.
        raise errors.Disconnected(
            f"{owner} has lost the session in which it may have been asked to write", outcome="unknown"
        )
    recorded = session.id in node.durable.leases or not isinstance(request, Write)
    if not recorded:
        node.check_log()
    _wait(node, session, request, owner, True, None)
    if recorded:
        node.effects.append(Send(agent.peer, Forward(session.id, session.tega_id, _body(request))))
    else:
        # Were this node to forget the session, so would the owner, and do the write again when it is retried.
        node.held.append((session, request.id, owner))


def pass_up(
    node: Node,
    session: Session,
    request: Any,
    root: str | None,
    *,
    resend: bool = True,
    convert: Convert | None = None,
) -> None:
    """Send `request` of `session` to the node above. Raises `Offline`.

    `resend`: it may be sent twice. `convert` makes the session's answer from the one that comes; None: it has
    passed something else up for the same request, and that will be answered.
    """
    if not node.online:
        raise Offline(
            f"{node.settings.tega_id} has no link to the node above"
            + (f", which owns {root}" if root is not None else ""),
            root=root,
        )
    if isinstance(request, Write):
        if 0 < request.id <= session.lost_above:
            raise errors.Disconnected(
                "the node above lost the session in which it was asked to write", outcome="unknown"
            )
        session.passed_up = max(session.passed_up, request.id)
    _wait(node, session, request, "", resend, convert)
    node.effects.append(SendUp(Forward(session.id, session.tega_id, _body(request))))


def _body(request: Any) -> bytes:
    """Return `request` as it travels within a `Forward`. Raises `TooLarge`."""
    try:
        return encode(request)
    except TooLarge as error:
        raise TooLarge(
            f"{error.message}: what is passed on to the owner of a root must fit into one message; connect to"
            " the owner itself, or send less at a time",
            size=error.size,
            limit=error.limit,
        ) from None


def try_above(node: Node, session: Session, request: Candidate | Get, ops: Sequence[Op]) -> None:
    """Have the node above answer `request`, a read within a transaction that is open here.

    It carries out `ops`, of roots that it owns, in a transaction there, which is cancelled once it has
    answered. All of this goes up with the id of `request`, one after the other. Raises `Offline`.
    """
    root = ops[0].path[0]
    head = (request.id, request.ack, request.timeout)

    def begun(answer: Reply | Failure) -> Reply | Failure | None:
        if isinstance(answer, Failure):
            return answer
        txid = answer.value
        if type(txid) is not str:
            return failed(ProtocolError(f"the node above answered Begin with {txid!a:.64}"))
        fields = tuple(cast(OpField, tuple(op)) for op in ops)
        try:
            pass_up(node, session, Write(*head, fields, "", txid), root, convert=partial(carried_out, txid))
        except TegaError as error:  # they are too large for one message
            return done(txid, failed(error))
        return None

    def carried_out(txid: str, answer: Reply | Failure) -> Reply | Failure | None:
        if isinstance(answer, Failure):
            return done(txid, answer)
        pass_up(node, session, request._replace(txid=txid), root, convert=partial(done, txid))
        return None

    def done(txid: str, answer: Reply | Failure) -> Reply | Failure | None:
        if isinstance(answer, Failure) and answer.code == "TransactionExpired":
            # That is the transaction there; the one that the session knows is open.
            text = "the node above was restarted meanwhile; ask again"
            return failed(errors.Disconnected(text, outcome="none"))
        pass_up(node, session, CancelTransaction(*head, txid), root, convert=lambda _: answer)
        return None

    def failed(error: TegaError) -> Failure:
        return Failure(request.id, *errors.encode(error))

    pass_up(node, session, Begin(*head), root, convert=begun)


def _wait(node: Node, session: Session, request: Any, to: str, resend: bool, convert: Convert | None) -> None:
    deadline = node.now + request.timeout / 1000
    session.pending[request.id] = Waiting(request, to, deadline, resend, False, convert)
    node.note_forwarded(session, to)
    node.ties += 1
    heapq.heappush(node.deadlines, (deadline, node.ties, session, request.id))
    if len(node.deadlines) > node.deadlines_limit:
        node.deadlines = [entry for entry in node.deadlines if _waits(entry[2], entry[3], entry[0])]
        heapq.heapify(node.deadlines)
        node.deadlines_limit = max(256, 2 * len(node.deadlines))


def _waits(session: Session, id: int, deadline: float) -> bool:
    waiting = session.pending.get(id)
    return isinstance(waiting, Waiting) and waiting.deadline == deadline


def answered(node: Node, session: Session, message: Reply | Failure, sender: str) -> None:
    """The answer to a request that was passed on to `sender` came back."""
    waiting = session.pending.get(message.id)
    if not isinstance(waiting, Waiting) or waiting.to != sender:
        return
    if waiting.convert is not None:
        made = waiting.convert(message)
        if made is None:
            return
        message = made
    elif isinstance(message, Reply) and isinstance(waiting.message, Write):
        if sender == "":
            _note_ephemerals(node, session, waiting.message)
        needed = _versions_to_show(node, message.value)
        if needed:
            node.shown.append((waiting.deadline, session, message.id, needed, message))
            return
    elif isinstance(message, Failure) and waiting.resent and message.code in NOT_TRIED:
        # Not tried this time; whether the first attempt was carried out, nobody here knows.
        error = errors.Disconnected(f"the link was lost, and then: {message.message}", outcome="unknown")
        node.fail(session, message.id, error)
        return
    if isinstance(waiting.message, Write):
        session.settle(message)
    session.pending.pop(message.id, None)
    node.send(session, message)


def _note_ephemerals(node: Node, session: Session, request: Write) -> None:
    """Remember what ephemeral nodes `session` has above, to put them again if its session there is lost.

    The ids of the writes that are kept tell which belong together; that of `request` may be 0.
    """
    held = session.ephemerals_above
    node.ties += 1
    for op in request.ops:
        kind, path, value, _, ephemeral = op
        for known in list(held):
            within = path[: len(known)] == known
            ends = kind == "delete" or ephemeral or (kind == "put" and known == path)
            if ends and known[: len(path)] == path:
                del held[known]
            elif within:
                # It changed within: what it is now takes all of these. Of very many the newest will do.
                made = held[known]
                held[known] = made._replace(ops=(*made.ops[:1], *made.ops[1:][-MAX_AGAIN:], op))
        if ephemeral and not any(path[:length] in held for length in range(1, len(path))):
            op = (kind, path, value, None, True)
            held[path] = request._replace(id=node.ties, ops=(op,), message="")


def put_all_again(node: Node, session: Session, resumed: bool) -> None:
    """The link is back: put the ephemeral nodes of `session` that the node above may lack.

    Where the session there is a new one these are all; in one that was `resumed`, those without an answer.
    """
    session.putting = False
    if not resumed:
        session.lacking.clear()
        for path, request in session.ephemerals_above.items():
            session.lacking.setdefault(request.id, []).append(path)
    put_again(node, session)


def put_again(node: Node, session: Session) -> None:
    """Put the next ephemeral nodes of `session` again that it may lack above: those of one write, in one.

    One at a time, with the request id 0. With that of the first write they would be taken for a retry of it.
    What a write of the session that is under way touches comes later: it must not undo that.
    """
    while session.lacking and not session.putting:
        id, paths = next(iter(session.lacking.items()))
        held = session.ephemerals_above
        standing = [held[path] for path in paths if path in held and held[path].id == id]
        if standing:
            if _is_written(session, paths):
                session.lacking[id] = session.lacking.pop(id)
                return
            ops = tuple(op for request in standing for op in request.ops)
            again = standing[0]._replace(id=0, ack=session.ack, ops=ops)
            try:
                body = _body(again)
            except TooLarge as error:
                _not_put_again(node, session, error.code, error.message)
            else:
                node.note_forwarded(session, "")
                node.effects.append(SendUp(Forward(session.id, session.tega_id, body)))
                session.putting = True
                return
        del session.lacking[id]


def put_again_answered(node: Node, session: Session, answer: Reply | Failure) -> None:
    """What `put_again` sent was answered: go on with the next, perhaps at the next heartbeat."""
    session.putting = False
    id = next(iter(session.lacking))
    paths = session.lacking.pop(id)
    if isinstance(answer, Failure):
        if answer.code in _PASSING:
            session.lacking[id] = paths
            return
        _not_put_again(node, session, answer.code, answer.message)
    put_again(node, session)


def _is_written(session: Session, paths: list[Path]) -> bool:
    """Whether a write of `session` that has gone up touches what is at, above or below one of `paths`."""
    for waiting in session.pending.values():
        if isinstance(waiting, Waiting) and waiting.to == "" and isinstance(waiting.message, Write):
            for op in waiting.message.ops:
                at = tuple(op[1])
                if any(path[: len(at)] == at[: len(path)] for path in paths):
                    return True
    return False


def _not_put_again(node: Node, session: Session, code: str, message: str) -> None:
    node.note("warning", "ephemeral nodes not put again", tega_id=session.tega_id, error=f"{code}: {message}")


def _versions_to_show(node: Node, value: Any) -> dict[str, int]:
    """Return the versions that a replica here must show before the answer `value` may be passed on."""
    needed: dict[str, int] = {}
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], (list, tuple)):
        for entry in value[1]:
            if isinstance(entry, (list, tuple)) and len(entry) == 2:
                root, version = entry
                if type(root) is not str or type(version) is not int or root not in node.followers:
                    continue
                if not _shows(node, root, version):
                    needed[root] = version
    return needed


def _shows(node: Node, root: str, version: int) -> bool:
    """Whether the replica shows `version` of `root`, in the epoch in which its owner is, as far as known.

    Once its request to follow is answered, a follower hears of a new epoch (`replication.tell_epoch`) before
    the answers to what was written in it.
    """
    known = node.durable.roots.get(root)
    if known is None or known.version < version:
        return False
    if above.comes(node, root) and root not in node.topics_up:
        return False
    follower = node.followers.get(root)
    if follower is None:
        return True
    return follower.owner_position is not None and follower.owner_position[0] == known.epoch


def release_shown(node: Node) -> None:
    """Pass on the answers whose writes the replicas show now."""
    held = node.shown
    node.shown = []
    for entry in held:
        _, session, id, needed, message = entry
        if all(_shows(node, root, version) for root, version in needed.items()):
            session.settle(message)
            session.pending.pop(id, None)
            node.send(session, message)
        else:
            node.shown.append(entry)


def forget_shown(node: Node, session: Session) -> None:
    """`session` is over: nobody waits for its answers."""
    node.shown = [entry for entry in node.shown if entry[1] is not session]


def expire(node: Node) -> None:
    """End the requests passed on whose deadline has passed."""
    while node.deadlines and node.deadlines[0][0] <= node.now:
        _, _, session, id = heapq.heappop(node.deadlines)
        waiting = session.pending.get(id)
        if not isinstance(waiting, Waiting) or waiting.deadline > node.now:
            continue
        held = [entry for entry in node.shown if entry[1] is session and entry[2] == id]
        if held:
            node.shown = [entry for entry in node.shown if entry not in held]
            where = ", ".join(f"{root} {version}" for root, version in held[0][3].items())
            error = Timeout(
                f"the write is done, but the replica here does not show it yet ({where})", outcome="committed"
            )
        else:
            error = Timeout("no answer from the owner of the root before the deadline", outcome="unknown")
        node.fail(session, id, error)


def release_held(node: Node) -> None:
    """Pass on the writes whose session is durable now."""
    held, node.held = node.held, []
    for session, id, owner in held:
        waiting = session.pending.get(id)
        if not isinstance(waiting, Waiting):
            continue
        if session.id not in node.durable.leases:
            node.held.append((session, id, owner))
            continue
        agent = node.claimant(owner)
        if agent is not None and agent.peer is not None:
            forward = Forward(session.id, session.tega_id, encode(waiting.message))
            node.effects.append(Send(agent.peer, forward))


def fail_held(node: Node, error: errors.TegaError) -> None:
    """The log failed: the sessions whose writes are held are not recorded."""
    held, node.held = node.held, []
    for session, id, _ in held:
        if isinstance(session.pending.get(id), Waiting):
            node.fail(session, id, error)


def resend(node: Node, session: Session, to: str) -> None:
    """The link to `to` is back with its session: send again what may be sent again."""
    for id, waiting in list(session.pending.items()):
        if not isinstance(waiting, Waiting) or waiting.to != to:
            continue
        if any(entry[1] is session and entry[2] == id for entry in node.shown):
            continue
        if any(entry[0] is session and entry[1] == id for entry in node.held):
            continue
        if not waiting.resend:
            node.fail(session, id, errors.Disconnected("the link was lost", outcome="unknown"))
            continue
        session.pending[id] = waiting._replace(resent=True)
        forward = Forward(session.id, session.tega_id, encode(waiting.message))
        if to == "":
            node.effects.append(SendUp(forward))
        else:
            agent = node.claimant(to)
            if agent is not None and agent.peer is not None:
                node.effects.append(Send(agent.peer, forward))


def give_up(node: Node, session: Session, to: str) -> None:
    """The session with `to` is gone: what was passed on has an unknown outcome."""
    for id, waiting in list(session.pending.items()):
        if isinstance(waiting, Waiting) and waiting.to == to:
            held = any(entry[1] is session and entry[2] == id for entry in node.shown)
            if not held:
                error = errors.Disconnected(
                    f"{to or 'the node above'} lost the session before it answered", outcome="unknown"
                )
                if isinstance(waiting.message, Write):  # nothing is sent again, not if this gets lost either
                    session.settle(Failure(id, *errors.encode(error)))
                node.fail(session, id, error)
