"""Requests that write: single writes, transactions, and passing a write on to the owner of its root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from tega_zmq import errors, paths, transactions
from tega_zmq.errors import InvalidPath, InvalidValue, TegaError, TooLarge
from tega_zmq.node.passing import pass_on
from tega_zmq.node.reading import changes_between, tree_value
from tega_zmq.node.state import Node
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Op, Store, outcome
from tega_zmq.store import write as write_store
from tega_zmq.transactions import MAX_OPEN, MAX_OPS, Transaction
from tega_zmq.wire.messages import (
    Begin,
    CancelTransaction,
    Candidate,
    CommitTransaction,
    Failure,
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
        _add(node, session, request, ops)
        node.reply(session, request.id, None)
        return
    if _settled_before(node, session, request):
        return
    _commit(node, session, request, ops, _common_owner(node, ops))


def begin(node: Node, session: Session, request: Begin) -> None:
    """Open a transaction; the reply is its txid."""
    for transaction in list(session.transactions.values()):
        if transaction.begun == request.id:  # a retry
            node.gate(session, Reply(request.id, transaction.txid))
            return
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
    session.transactions[txid] = Transaction(txid, base, node.now, request.id)
    if base is node.tip:
        node.gate(session, Reply(request.id, txid))
    else:
        node.reply(session, request.id, txid)


def candidate(node: Node, session: Session, request: Candidate) -> None:
    """Answer with the trees of the roots that the transaction touches, and what it changes."""
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
    """Apply the operations of the transaction as one commit.

    It is over then, whatever the outcome; but if the owner cannot be asked (`Offline`, `OwnerAway`) or the
    log takes no writes, it stays open.
    """
    _check_message(request.message)
    if _settled_before(node, session, request):
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
    transactions.find(session.transactions, request.txid, node.now)
    del session.transactions[request.txid]
    session.settle(Reply(request.id, None))
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
                raise InvalidPath(
                    f"{where}: a rollback restores a whole root; name just {path[0]}", path=where
                )
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
    transaction = transactions.find(session.transactions, request.txid, node.now)
    if 0 < request.id <= transaction.added:
        return  # a retry: requests come in the order of their ids
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
        transaction.added = request.id


def _as_owner(store: Store, name: str) -> Store:
    """Return `store` as if this node owned root `name`: what another's operations would make of a replica."""
    root = store.roots.get(name)
    if root is None or root.owner == "":
        return store
    return store._replace(roots=store.roots.insert(name, root._replace(owner="")))


# -- committing ------------------------------------------------------------------------------------


def _commit(node: Node, session: Session, request: Write, ops: tuple[Op, ...], owner: str | None) -> None:
    if owner == "":
        _commit_here(node, session, request, ops)
    else:
        pass_on(node, session, request, ops[0].path[0], owner)


def _commit_here(node: Node, session: Session, request: Write, ops: tuple[Op, ...]) -> None:
    id = request.id
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
        failure = Failure(id, code, message, fields)
        session.settle(failure)
        node.gate(session, failure)
        return
    reply = Reply(id, written.outcome)
    if written.commit is not None:
        node.append(written.commit, written.store)
        session.last_lsn = node.number
    else:
        session.settle(reply)
    node.gate(session, reply)
