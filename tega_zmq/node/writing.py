"""Requests that write: single writes, transactions, and passing a write on to the owner of its root."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, cast

from tega_zmq import errors, paths, schemas, transactions, values
from tega_zmq.errors import Collision, InvalidPath, InvalidValue, NotFound, TegaError, TooLarge
from tega_zmq.node import past
from tega_zmq.node.passing import pass_on, try_above
from tega_zmq.node.reading import (
    MAX_ANSWER,
    change_size,
    changes_between,
    is_left_over,
    kept_up,
    tree_value,
)
from tega_zmq.node.state import Node
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Lease, Op, Root, Store, Written, expect, is_plain_put, outcome, put_one
from tega_zmq.store import write as write_store
from tega_zmq.transactions import MAX_OPEN, MAX_OPS, Transaction
from tega_zmq.wire.messages import (
    Begin,
    CancelTransaction,
    Candidate,
    Check,
    CommitTransaction,
    Expired,
    Failure,
    OpField,
    Reply,
    Write,
)

MAX_MESSAGE = 1000
"""Longest commit message, in characters."""

MAX_PROBLEMS = 100
"""Most problems in the answer to `Check`."""

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes, where every put comes by."""

_KINDS = frozenset({"put", "patch", "delete", "rollback"})


def write(node: Node, session: Session, request: Write) -> None:
    """Apply the operations now, or add them to the transaction that they name."""
    id, _, _, fields, message, txid = request
    ops = _ops(fields)
    if len(message) > MAX_MESSAGE:
        _check_message(message)
    if txid:
        _add(node, session, request, ops)
        node.reply(session, id, None)
        return
    # What most writes need to know of the tip is looked up once, here.
    tip = node.tip
    lease = tip.leases.get(session.id)
    may_be_retry = session.settled or (lease is not None and lease.outcomes and lease.outcomes[-1][0] >= id)
    if may_be_retry and _settled_before(node, session, request):
        return
    root = None
    if len(ops) == 1:
        name = ops[0].path[0]
        root = tip.roots.get(name)
        if node.uplink is not None:
            owner = node.owner(name)
        else:  # as it says too, from the same root
            owner = "" if root is None else root.owner
    else:
        owner = _common_owner(node, ops)
    if owner == "":
        _commit_here(node, session, request, ops, root, lease)
    else:
        pass_on(node, session, request, ops[0].path[0], owner)


def begin(node: Node, session: Session, request: Begin) -> None:
    """Open a transaction; the reply is its txid."""
    for transaction in list(session.transactions.values()):
        if transaction.begun == request.id:  # a retry
            node.gate(session, Reply(request.id, transaction.txid))
            return
        if transactions.is_idle(transaction, node.now):
            _expire(node, session, transaction.txid)
    if len(session.transactions) >= MAX_OPEN:
        raise TooLarge(
            f"{MAX_OPEN} transactions are open; commit or cancel one first",
            size=len(session.transactions),
            limit=MAX_OPEN,
        )
    txid = node.fresh()[:16]
    base = node.tip if session.last_lsn > node.durable_number else node.durable
    session.transactions[txid] = Transaction(txid, kept_up(node, base), node.now, request.id)
    _look_later(node, session, txid, node.now + transactions.IDLE)
    if base is node.tip:
        node.gate(session, Reply(request.id, txid))
    else:
        node.reply(session, request.id, txid)


def candidate(node: Node, session: Session, request: Candidate) -> None:
    """Answer with the trees of the roots that the transaction touches, and what it changes.

    Raises `TooLarge` if that does not fit into one answer.
    """
    transaction = transactions.find(session, request.txid, node.now)
    roots = list(dict.fromkeys(op.path[0] for op in transaction.ops))
    if any(name not in transaction.candidate.roots for name in roots):
        # What is not here was not evaluated here: the owner shows what it makes of all of it.
        try_above(node, session, request, transaction.ops)
        return
    trees: list[list[Any]] = []
    changes: list[list[Any]] = []
    left = MAX_ANSWER
    for name in roots:
        before, after = transaction.base.roots.get(name), transaction.candidate.roots.get(name)
        old = before.node if before is not None else None
        new = after.node if after is not None else None
        try:
            trees.append([name, tree_value(new, left)])
            left -= values.size(trees[-1][1])
            for change in changes_between((name,), old, new):
                left -= change_size(change)
                if left < 0:
                    break
                changes.append(change)
        except TooLarge:
            left = -1
        if left < 0:
            text = f"the candidate, with what it changes, is larger than {MAX_ANSWER} bytes; read parts of it"
            raise TooLarge(text, limit=MAX_ANSWER)
    node.reply(session, request.id, [trees, changes])


def commit_transaction(node: Node, session: Session, request: CommitTransaction) -> None:
    """Apply the operations of the transaction as one commit.

    It is over then, whatever the outcome; but if the owner cannot be asked (`Offline`, `OwnerAway`) or the
    log takes no writes, it stays open.
    """
    _check_message(request.message)
    if _settled_before(node, session, request):
        return
    transaction = transactions.find(session, request.txid, node.now)
    ops = transaction.ops
    owner = _common_owner(node, ops)
    fields = tuple(cast(OpField, tuple(op)) for op in ops)
    whole = Write(request.id, request.ack, request.timeout, fields, request.message, "")
    if owner == "":
        _commit_here(node, session, whole, ops)
    else:
        pass_on(node, session, whole, ops[0].path[0], owner)
    del session.transactions[request.txid]


def _settled_before(
    node: Node, session: Session, request: Write | CommitTransaction | CancelTransaction
) -> bool:
    """Answer a retry of what was done or answered before; say whether it is one.

    Whoever owns the roots now: they may have been given away since.
    """
    answer = session.settled_answer(request.id)
    if answer is None:
        known = outcome(node.tip, session.id, request.id)
        if known is None:
            return False
        answer = Reply(request.id, known)
    node.gate(session, answer)
    return True


def cancel_transaction(node: Node, session: Session, request: CancelTransaction) -> None:
    """Forget the transaction."""
    if _settled_before(node, session, request):
        return
    transactions.find(session, request.txid, node.now)
    del session.transactions[request.txid]
    session.settle(Reply(request.id, None))
    node.reply(session, request.id, None)


def check(node: Node, session: Session, request: Check) -> None:
    """Answer with what stands in the way of the commit: a list of errors, empty if nothing does."""
    if request.txid:
        ops = transactions.find(session, request.txid, node.now).ops
    else:
        ops = _ops(request.ops)
    try:
        owner = _common_owner(node, ops)
        if owner != "":
            fields = tuple(cast(OpField, tuple(op)) for op in ops)
            pass_on(node, session, request._replace(txid="", ops=fields), ops[0].path[0], owner)
            return
        node.check_log()
    except TegaError as error:
        node.reply(session, request.id, [errors.encode(error)])
        return
    node.gate(session, Reply(request.id, [errors.encode(error) for error in _problems(node, session, ops)]))


def _problems(node: Node, session: Session, ops: tuple[Op, ...]) -> list[TegaError]:
    """Return the errors that committing `ops` now would meet; of what is no collision, the first one."""
    found: list[TegaError] = []
    for op in ops:
        if op.expected is not None:
            try:
                root = node.tip.roots.get(op.path[0])
                expect(root.node if root is not None else None, op.path, op.expected)
            except Collision as error:
                found.append(error)
                if len(found) >= MAX_PROBLEMS:
                    return found
    try:
        tip, ops = past.recalled_ops(node, node.tip, ops)
        written = write_store(
            tip,
            [op._replace(expected=None) for op in ops],
            time=node.clock(),
            tega_id=session.tega_id,
            session=session.id,
            fresh=node.fresh,
            max_value=node.settings.max_value,
        )
        found.extend(_broken(node, written))
    except TegaError as error:
        found.append(error)
    return found[:MAX_PROBLEMS]


def _broken(node: Node, written: Written) -> list[InvalidValue]:
    """Return how `written` breaks schemas. Raises `InvalidValue`: it sets one that is none."""
    root = written.store.roots.get(paths.SCHEMAS)
    if root is None or written.commit is None:
        return []
    node.schemas = schemas.table(root.node, node.schemas)
    return schemas.broken(node.schemas, written.store, written.commit.updates)


# -- transactions that nobody touches --------------------------------------------------------------


def expire(node: Node) -> None:
    """End the transactions that were idle for too long, and tell those who began them."""
    while node.idle and node.idle[0][0] <= node.now:
        _, _, session, txid = heapq.heappop(node.idle)
        transaction = session.transactions.get(txid)
        if transaction is None:
            continue
        if transactions.is_idle(transaction, node.now):
            _expire(node, session, txid)
        else:
            _look_later(node, session, txid, transaction.touched + transactions.IDLE)


def next_idle(node: Node) -> float:
    """When `expire` is due; infinite if no transaction is open."""
    while node.idle and node.idle[0][3] not in node.idle[0][2].transactions:
        heapq.heappop(node.idle)
    return node.idle[0][0] if node.idle else float("inf")


def _look_later(node: Node, session: Session, txid: str, due: float) -> None:
    node.ties += 1
    heapq.heappush(node.idle, (due, node.ties, session, txid))


def _expire(node: Node, session: Session, txid: str) -> None:
    del session.transactions[txid]
    session.expired[txid] = False
    if len(session.expired) > MAX_OPEN:
        del session.expired[next(iter(session.expired))]
    node.note("info", "transaction expired", tega_id=session.tega_id, txid=txid)
    tell_expired(node, session)


def tell_expired(node: Node, session: Session) -> None:
    """Tell `session` of its transactions that expired, as far as it was not told; later if it is away."""
    if not session.connected:
        return
    for txid, told in session.expired.items():
        if not told:
            session.expired[txid] = True
            node.send(session, Expired(txid, transactions.idle_text(txid)))


# -- operations ------------------------------------------------------------------------------------


def _ops(fields: Sequence[OpField]) -> tuple[Op, ...]:
    if len(fields) == 1:
        kind, path, value, expected, ephemeral = fields[0]
        if kind == "put" and (expected is None or expected >= ABSENT):
            return (_new(Op, (kind, paths.check(path), value, expected, ephemeral)),)
    if len(fields) > MAX_OPS:
        raise TooLarge(f"{len(fields)} operations in one write", size=len(fields), limit=MAX_OPS)
    ops = []
    for kind, path, value, expected, ephemeral in fields:
        if kind not in _KINDS:
            raise InvalidValue(f"there is no operation {kind[:32]!a}; there are put, patch, delete, rollback")
        path = paths.check(path)
        if expected is not None and expected < ABSENT:
            raise InvalidValue(f"{expected} is no version: 0 or more, or absent")
        if ephemeral and kind != "put":
            raise InvalidValue(f"{kind} cannot make an ephemeral node; put can")
        if kind == "rollback":
            if len(path) != 1:
                where = paths.format_path(path)
                raise InvalidPath(
                    f"{where}: a rollback restores a whole root; name just {path[0]}", path=where
                )
            if type(value) is not int and type(value) is not str:
                raise InvalidValue(f"rollback of {path[0]}: the version must be an integer, a tag or a time")
            past.check_reference(value)
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
        probe = Transaction("", node.tip, node.now, 0)
        probe.owner = _owner_name(node, owner)
        for op in ops[1:]:
            probe.check_owner(_owner_name(node, node.owner(op.path[0])), op)
    return owner


def _owner_name(node: Node, owner: str | None) -> str:
    if owner is None:
        return "the node above"  # whose name may not be known yet when the first operation comes
    return owner or node.settings.tega_id


def _add(node: Node, session: Session, request: Write, ops: tuple[Op, ...]) -> None:
    """Add `ops` to the transaction of `request`, evaluating them on its candidate where the tree is here."""
    transaction = transactions.find(session, request.txid, node.now)
    if 0 < request.id <= transaction.added:
        return  # a retry: requests come in the order of their ids
    name = transaction.owner
    store = transaction.candidate
    settled = []
    for op in ops:
        root = op.path[0]
        owner = node.owner(root)
        op_owner = _owner_name(node, owner)
        op = _settled(node, transaction.base, op, owner)
        settled.append(op)
        if name is not None:
            transaction.check_owner(op_owner, op)
        name = op_owner
        known = node.durable.roots.get(root)
        if owner == "" or (known is not None and not is_left_over(node, known)):
            state, (op,) = past.recalled_ops(node, store, (op,))
            store = write_store(
                _as_owner(state, root),
                (op._replace(expected=None),),
                time=node.clock(),
                tega_id=session.tega_id,
                session=session.id,
                fresh=node.fresh,
                max_value=node.settings.max_value,
            ).store
    if name is not None:
        transaction.add(tuple(settled), name, store, node.now)
        transaction.added = request.id


def _settled(node: Node, base: Store, op: Op, owner: str | None) -> Op:
    """Return `op`; a rollback with the version that its words meant when the transaction began, as a number.

    Counted back from the present again at the commit, it would take back what others did meanwhile. Tags and
    times of another's root its owner alone knows.
    """
    if op.kind != "rollback":
        return op
    root = base.roots.get(op.path[0])
    if root is None:
        if owner == "":
            where = paths.format_path(op.path)
            raise NotFound(f"there was no root {where} to roll back when the transaction began", path=where)
        return op
    if root.owner and type(op.value) is not int:
        return op
    return op._replace(value=past.reference(node, base, root.name, op.value))


def _as_owner(store: Store, name: str) -> Store:
    """Return `store` as if this node owned root `name`: what another's operations would make of a replica."""
    root = store.roots.get(name)
    if root is None or root.owner == "":
        return store
    return store._replace(roots=store.roots.insert(name, root._replace(owner="")))


# -- committing ------------------------------------------------------------------------------------


def _commit_here(
    node: Node,
    session: Session,
    request: Write,
    ops: tuple[Op, ...],
    root: Root | None = None,
    lease: Lease | None = None,
) -> None:
    """Commit `ops`, which write roots of this node.

    `root`: if there is just one operation, the root in the tip that it writes, with the `lease` of `session`
    there; None: not looked up, or not there.
    """
    id = request.id
    if node.failure is not None:
        node.check_log()
    try:
        if root is not None and is_plain_put(root, ops[0]):
            written = put_one(
                node.tip,
                root,
                lease,
                ops[0],
                node.clock(),
                session.tega_id,
                request.message,
                session.id,
                id,
                session.ack,
                node.settings.max_value,
            )
        else:
            tip, ops = past.recalled_ops(node, node.tip, ops)
            written = write_store(
                tip,
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
        if written.store.roots.get(paths.SCHEMAS) is not None:
            broken = _broken(node, written)
            if broken:
                raise schemas.refusal(broken)
    except TegaError as error:
        code, message, fields = errors.encode(error)
        failure = Failure(id, code, message, fields)
        session.settle(failure)
        node.gate(session, failure)
        return
    store, commit, result = written
    reply = _new(Reply, (id, result))
    if commit is not None:
        node.append(commit, store)
        session.last_lsn = node.number
    else:
        session.settle(reply)
    node.gate(session, reply)
