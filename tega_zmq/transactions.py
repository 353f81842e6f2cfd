"""Open transactions: operations that wait for their commit, and the candidate that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tega_zmq.errors import MixedOwners, TooLarge, TransactionExpired
from tega_zmq.paths import format_path
from tega_zmq.store import Op, Store

if TYPE_CHECKING:
    from tega_zmq.sessions import Session

__all__ = ["IDLE", "MAX_OPEN", "MAX_OPS", "Transaction", "find", "idle_text", "is_idle"]

IDLE = 600.0
"""A transaction that nobody touches for so many seconds expires."""

MAX_OPS = 10_000
"""Most operations in one write or transaction."""

MAX_OPEN = 16
"""Most open transactions of a session."""


class Transaction:
    """Operations of one session that will be one commit.

    Its reads see `candidate`: the store when it began, with its own operations. At commit the operations
    are applied again, to what is the present then; expected versions are checked there.
    """

    __slots__ = ("added", "base", "begun", "candidate", "ops", "owner", "touched", "txid")

    def __init__(self, txid: str, candidate: Store, now: float, begun: int) -> None:
        self.txid = txid
        self.begun = begun
        """Id of the request that began it."""
        self.added = 0
        """Id of the newest request whose operations are in it."""
        self.base = candidate
        """What the store was when it began."""
        self.candidate = candidate
        self.ops: tuple[Op, ...] = ()
        self.owner: str | None = None
        """Who owns the roots that it touches; None until it touches one."""
        self.touched = now

    def check_owner(self, owner: str, op: Op) -> None:
        """Raises `MixedOwners` if `op` is for another owner than those before."""
        if self.owner is not None and self.owner != owner:
            path = format_path(op.path)
            raise MixedOwners(
                f"{path} belongs to {owner or 'this node'}, the transaction so far to"
                f" {self.owner or 'this node'}: one transaction writes roots of one owner",
                path=path,
                owner=owner,
                other=self.owner,
            )

    def add(self, ops: tuple[Op, ...], owner: str, candidate: Store, now: float) -> None:
        """Take `ops` in; `candidate` is what they made of the candidate. Raises `TooLarge`."""
        if len(self.ops) + len(ops) > MAX_OPS:
            raise TooLarge(
                f"transaction {self.txid} would hold more than {MAX_OPS} operations",
                size=len(self.ops) + len(ops),
                limit=MAX_OPS,
            )
        self.ops += ops
        self.owner = owner
        self.candidate = candidate
        self.touched = now


def is_idle(transaction: Transaction, now: float) -> bool:
    """Whether nobody has touched it for `IDLE` seconds."""
    return now - transaction.touched >= IDLE


def idle_text(txid: str) -> str:
    """What its owner is told of a transaction that expired."""
    return f"transaction {txid} was idle for {IDLE:.0f} s and has expired: nothing of it was done"


def find(session: Session, txid: str, now: float) -> Transaction:
    """Return the open transaction `txid` of `session`. Raises `TransactionExpired`, which says why."""
    transaction = session.transactions.get(txid)
    if transaction is None or is_idle(transaction, now):
        raise TransactionExpired(_why(session, txid, transaction is not None), txid=txid[:64])
    transaction.touched = now
    return transaction


def _why(session: Session, txid: str, idle: bool) -> str:
    if idle or txid in session.expired:
        return idle_text(txid[:64])
    text = f"there is no open transaction {txid[:64]!a}: it ended, or never was"
    if session.doubt:
        text += "; or it was begun before this node was restarted, and open transactions do not outlive that"
    return text
