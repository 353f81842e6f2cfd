from __future__ import annotations

import pytest

from tega_zmq import store, transactions
from tega_zmq.errors import MixedOwners, TooLarge, TransactionExpired
from tega_zmq.sessions import Session
from tega_zmq.store import Op
from tega_zmq.transactions import Transaction

EMPTY = store.empty()
PUT = Op("put", ("config", "a b"), 1)


def test_it_is_found_until_it_is_idle_for_too_long() -> None:
    session = Session("s", "noc", "", "client", None, 15.0, 0.0)
    session.transactions["tx"] = Transaction("tx", EMPTY, 100.0, 1)
    assert transactions.find(session, "tx", 99.0 + transactions.IDLE).txid == "tx"
    assert transactions.find(session, "tx", 98.0 + 2 * transactions.IDLE).txid == "tx", "each use counts"
    with pytest.raises(TransactionExpired, match="idle for 600 s") as caught:
        transactions.find(session, "tx", 98.0 + 3 * transactions.IDLE)
    assert caught.value.txid == "tx"
    with pytest.raises(TransactionExpired, match="never was"):
        transactions.find(session, "never", 0.0)


def test_one_owner() -> None:
    transaction = Transaction("tx", EMPTY, 0.0, 1)
    transaction.check_owner("gateway", PUT)
    transaction.add((PUT,), "gateway", EMPTY, 1.0)
    transaction.check_owner("gateway", PUT)
    with pytest.raises(MixedOwners) as caught:
        transaction.check_owner("pi1", PUT)
    assert (caught.value.path, caught.value.owner, caught.value.other) == ('config."a b"', "pi1", "gateway")


def test_it_holds_a_bounded_number_of_operations() -> None:
    transaction = Transaction("tx", EMPTY, 0.0, 1)
    transaction.add((PUT,) * transactions.MAX_OPS, "gateway", EMPTY, 1.0)
    with pytest.raises(TooLarge) as caught:
        transaction.add((PUT,), "gateway", EMPTY, 2.0)
    assert caught.value.limit == transactions.MAX_OPS
    assert len(transaction.ops) == transactions.MAX_OPS
    assert transaction.touched == 1.0
