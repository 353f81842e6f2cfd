"""Open transactions: operations that wait for their commit, and the candidate that they make."""

from __future__ import annotations

from tega_zmq.errors import MixedOwners, TooLarge, TransactionExpired
from tega_zmq.paths import format_path
from tega_zmq.store import Op, Store

__all__ = ["IDLE", "MAX_OPEN", "MAX_OPS", "Transaction"]

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


def find(transactions: dict[str, Transaction], txid: str, now: float) -> Transaction:
    """Return the open transaction `txid`. Raises `TransactionExpired`."""
    transaction = transactions.get(txid)
    if transaction is not None and now - transaction.touched > IDLE:
        del transactions[txid]
        transaction = None
    if transaction is None:
        raise TransactionExpired(
            f"there is no open transaction {txid[:64]!a}: it ended, was idle for {IDLE:.0f} s, or never was",
            txid=txid[:64],
        )
    transaction.touched = now
    return transaction
