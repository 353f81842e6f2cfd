"""Requests that write: single writes, transactions, and passing a write on to the owner of its root."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, cast

from tega_zmq import errors, paths, transactions
from tega_zmq.errors import (
    InvalidPath,
    InvalidValue,
    Offline,
    OwnerAway,
    ReadOnly,
    TegaError,
    Timeout,
    TooLarge,
)
from tega_zmq.node.effects import Send, SendUp
from tega_zmq.node.state import Node, Waiting
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Op, Store, outcome
from tega_zmq.store import write as write_store
from tega_zmq.transactions import MAX_OPEN, MAX_OPS, Transaction
from tega_zmq.wire import encode
from tega_zmq.wire.messages import (
    Begin,
    CancelTransaction,
    Candidate,
    CommitTransaction,
    Failure,
    Forward,
    OpField,
    Reply,
    Write,
)

MAX_MESSAGE = 1000
"""Longest commit message, in characters."""

_KINDS = frozenset({"put", "patch", "delete", "rollback"})


def write(node: Node, session: Session, request: Write) -> None:
    """Apply the operations now, or add them to the transaction that they name."""
    ops = _ops(request.ops)
    _check_message(request.message)
    if request.txid:
        _add(node, session, request.txid, ops)
        node.reply(session, request.id, None)
        return
    owner = _common_owner(node, ops)
    _commit(node, session, request, ops, owner)


def begin(node: Node, session: Session, request: Begin) -> None:
    """Open a transaction; the reply is its txid."""
    for transaction in list(session.transactions.values()):
        if node.now - transaction.touched > transactions.IDLE:
            del session.transactions[transaction.txid]
    if len(session.transactions) >= MAX_OPEN:
        raise TooLarge(
            f"{MAX_OPEN} transactions are open; commit or cancel one first",
            size=len(session.transactions),
            limit=MAX_OPEN,
        )
    txid = node.fresh()[:16]
    base = node.tip if session.last_lsn > node.durable_number else node.durable
    session.transactions[txid] = Transaction(txid, base, node.now)
    node.gate(session, Reply(request.id, txid)) if base is node.tip else node.reply(session, request.id, txid)


def candidate(node: Node, session: Session, request: Candidate) -> None:
    """Answer with the trees of the roots that the transaction touches, and what it changes."""
    from tega_zmq.node.reading import changes_between, tree_value

    transaction = transactions.find(session.transactions, request.txid, node.now)
    roots = list(dict.fromkeys(op.path[0] for op in transaction.ops))
    trees: list[list[Any]] = []
    changes: list[list[Any]] = []
    for name in roots:
        before, after = transaction.base.roots.get(name), transaction.candidate.roots.get(name)
        old = before.node if before is not None else None
        new = after.node if after is not None else None
        trees.append([name, tree_value(new)])
        changes.extend(changes_between((name,), old, new))
    node.reply(session, request.id, [trees, changes])


def commit_transaction(node: Node, session: Session, request: CommitTransaction) -> None:
    """Apply the operations of the transaction as one commit; it is over then, whatever the outcome."""
    _check_message(request.message)
    known = outcome(node.tip, session.id, request.id)
    if known is not None:
        node.gate(session, Reply(request.id, known))
        return
    transaction = transactions.find(session.transactions, request.txid, node.now)
    ops = transaction.ops
    owner = _common_owner(node, ops)
    fields = tuple(cast(OpField, tuple(op)) for op in ops)
    _commit(
        node,
        session,
        Write(request.id, request.ack, request.timeout, fields, request.message, ""),
        ops,
        owner,
    )
    del session.transactions[request.txid]


def cancel_transaction(node: Node, session: Session, request: CancelTransaction) -> None:
    """Forget the transaction."""
    transactions.find(session.transactions, request.txid, node.now)
    del session.transactions[request.txid]
    node.reply(session, request.id, None)


# -- operations ------------------------------------------------------------------------------------


def _ops(fields: Sequence[OpField]) -> tuple[Op, ...]:
    if len(fields) > MAX_OPS:
        raise TooLarge(f"{len(fields)} operations in one write", size=len(fields), limit=MAX_OPS)
    ops = []
    for kind, path, value, expected, ephemeral in fields:
        if kind not in _KINDS:
            raise InvalidValue(f"there is no operation {kind[:32]!a}; there are put, patch, delete, rollback")
        paths.check(path)
        if expected is not None and expected < ABSENT:
            raise InvalidValue(f"{expected} is no version: 0 or more, or absent")
        if ephemeral and kind != "put":
            raise InvalidValue(f"{kind} cannot make an ephemeral node; put can")
        if kind == "rollback":
            if len(path) != 1:
                where = paths.format_path(path)
                raise InvalidPath(f"{where}: a rollback restores a whole root; name just {path[0]}", path=where)
            if type(value) is not int:
                raise InvalidValue(f"rollback of {path[0]}: the version must be an integer")
        ops.append(Op(cast(Any, kind), path, value, expected, ephemeral))
    return tuple(ops)


def _check_message(message: str) -> None:
    if len(message) > MAX_MESSAGE:
        raise TooLarge(
            f"the commit message has {len(message)} characters; at most {MAX_MESSAGE} are allowed",
            size=len(message),
            limit=MAX_MESSAGE,
        )


def _common_owner(node: Node, ops: tuple[Op, ...]) -> str | None:
    """Return who owns all roots of `ops` (see `Node.owner`). Raises `MixedOwners`."""
    if not ops:
        return ""
    owner = node.owner(ops[0].path[0])
    if len(ops) > 1:
        probe = Transaction("", node.tip, node.now)
        probe.owner = _owner_name(node, owner)
        for op in ops[1:]:
            probe.check_owner(_owner_name(node, node.owner(op.path[0])), op)
    return owner


def _owner_name(node: Node, owner: str | None) -> str:
    if owner is None:
        return node.uplink_name or "the node above"
    return owner or node.settings.tega_id


def _add(node: Node, session: Session, txid: str, ops: tuple[Op, ...]) -> None:
    """Add `ops` to transaction `txid`, evaluating them on its candidate where the tree is here."""
    transaction = transactions.find(session.transactions, txid, node.now)
    name = transaction.owner
    store = transaction.candidate
    for op in ops:
        root = op.path[0]
        owner = node.owner(root)
        op_owner = _owner_name(node, owner)
        if name is not None:
            transaction.check_owner(op_owner, op)
        name = op_owner
        if owner == "" or root in node.durable.roots:
            store = write_store(
                _as_owner(store, root),
                (op._replace(expected=None),),
                time=node.clock(),
                tega_id=session.tega_id,
                session=session.id,
                fresh=node.fresh,
                max_value=node.settings.max_value,
            ).store
    if name is not None:
        transaction.add(ops, name, store, node.now)


def _as_owner(store: Store, name: str) -> Store:
    """Return `store` as if this node owned root `name`: what another's operations would make of a replica."""
    root = store.roots.get(name)
    if root is None or root.owner == "":
        return store
    return store._replace(roots=store.roots.insert(name, root._replace(owner="")))


# -- committing ------------------------------------------------------------------------------------


def _commit(
    node: Node, session: Session, request: Write, ops: tuple[Op, ...], owner: str | None
) -> None:
    if owner == "":
        _commit_here(node, session, request, ops)
    else:
        pass_on(node, session, request, ops[0].path[0], owner)


def _commit_here(node: Node, session: Session, request: Write, ops: tuple[Op, ...]) -> None:
    id = request.id
    session.pending[id] = None
    known = outcome(node.tip, session.id, id)
    if known is not None:
        node.gate(session, Reply(id, known))
        return
    node.check_log()
    try:
        written = write_store(
            node.tip,
            ops,
            time=node.clock(),
            tega_id=session.tega_id,
            message=request.message,
            session=session.id,
            request=id,
            ack=session.ack,
            fresh=node.fresh,
            max_value=node.settings.max_value,
        )
    except TegaError as error:
        code, message, fields = errors.encode(error)
        node.gate(session, Failure(id, code, message, fields))
        return
    if written.commit is not None:
        node.append(written.commit, written.store)
        session.last_lsn = node.number
    node.gate(session, Reply(id, written.outcome))




# -- passing on ------------------------------------------------------------------------------------


def pass_on(node: Node, session: Session, request: Any, root: str, owner: str | None) -> None:
    """Send `request` to the owner of `root`: up (None) or down to the agent `owner`.

    Raises `Offline`, `OwnerAway` or `ReadOnly` if it cannot be sent.
    """
    if owner is None:
        if session.kind == "below":
            raise ReadOnly(
                f"{node.settings.tega_id} does not list {root} among its operational roots",
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
    _wait(node, session, request, owner, True)
    node.effects.append(Send(agent.peer, Forward(session.id, session.tega_id, encode(request))))


def pass_up(
    node: Node, session: Session, request: Any, root: str | None, *, resend: bool = True
) -> None:
    """Send `request` of `session` to the node above. Raises `Offline`."""
    if not node.online:
        raise Offline(
            f"{node.settings.tega_id} has no link to the node above"
            + (f", which owns {root}" if root is not None else ""),
            root=root,
        )
    _wait(node, session, request, "", resend)
    node.effects.append(SendUp(Forward(session.id, session.tega_id, encode(request))))


def _wait(node: Node, session: Session, request: Any, to: str, resend: bool) -> None:
    deadline = node.now + request.timeout / 1000
    session.pending[request.id] = Waiting(request, to, deadline, resend)
    session.forwarded_to.add(to)
    node.ties += 1
    heapq.heappush(node.deadlines, (deadline, node.ties, session, request.id))


def answered(node: Node, session: Session, message: Reply | Failure, sender: str) -> None:
    """The answer to a request that was passed on to `sender` came back."""
    waiting = session.pending.get(message.id)
    if not isinstance(waiting, Waiting) or waiting.to != sender:
        return
    if isinstance(message, Reply):
        if isinstance(waiting.message, Write):
            if sender == "":
                _note_ephemerals(session, waiting.message)
            needed = _versions_to_show(node, message.value)
            if needed:
                node.shown.append((waiting.deadline, session, message.id, needed, message))
                return
        elif type(waiting.message).__name__ == "Get":
            from tega_zmq.node.reading import overlay_transaction

            message = overlay_transaction(node, session, waiting.message, message)
    session.pending.pop(message.id, None)
    node.send(session, message)


def _note_ephemerals(session: Session, request: Write) -> None:
    """Remember what ephemeral nodes `session` has above, to put them again if its session there is lost."""
    for op in request.ops:
        kind, path, _, _, ephemeral = op
        for known in [key for key in session.announced if key[0] == "ephemeral" and key[1][: len(path)] == path]:
            if kind != "patch":
                del session.announced[known]
        if ephemeral:
            session.announced[("ephemeral", path)] = request._replace(ops=(op,))


def _versions_to_show(node: Node, value: Any) -> dict[str, int]:
    """Return the versions that a replica here must show before the answer `value` may be passed on."""
    needed: dict[str, int] = {}
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], (list, tuple)):
        for entry in value[1]:
            if isinstance(entry, (list, tuple)) and len(entry) == 2:
                root, version = entry
                if root in node.followers and isinstance(version, int) and not _shows(node, root, version):
                    needed[root] = version
    return needed


def _shows(node: Node, root: str, version: int) -> bool:
    known = node.durable.roots.get(root)
    return known is not None and known.version >= version


def release_shown(node: Node) -> None:
    """Pass on the answers whose writes the replicas show now."""
    if not node.shown:
        return
    held = node.shown
    node.shown = []
    for entry in held:
        _, session, id, needed, message = entry
        if all(_shows(node, root, version) for root, version in needed.items()):
            session.pending.pop(id, None)
            node.send(session, message)
        else:
            node.shown.append(entry)


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


def resend(node: Node, session: Session, to: str) -> None:
    """The link to `to` is back with its session: send again what may be sent again."""
    for id, waiting in list(session.pending.items()):
        if not isinstance(waiting, Waiting) or waiting.to != to:
            continue
        if any(entry[1] is session and entry[2] == id for entry in node.shown):
            continue
        if not waiting.resend:
            node.fail(session, id, errors.Disconnected("the link was lost", outcome="unknown"))
            continue
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
                node.fail(
                    session,
                    id,
                    errors.Disconnected(
                        f"{to or 'the node above'} lost the session before it answered", outcome="unknown"
                    ),
                )
