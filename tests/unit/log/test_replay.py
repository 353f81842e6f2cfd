"""From an open log to the store, and the states on the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tega_zmq import store
from tega_zmq.log.records import encode_record
from tega_zmq.log.replay import rebuild
from tega_zmq.store import Change, Commit, Kept, Store, Update, WentOn
from tests.fakedisk import FakeDisk


def commit(revision: int, after: int) -> Commit:
    changes = (Change(("a",), True, {"n": after}),)
    return Commit(revision, (Update("a", "e", after - 1, after, changes, 1.0, "noc", ""),))


def test_what_a_root_that_goes_on_lets_go_of_is_told_before() -> None:
    records: list[store.Record] = [commit(1, 0), commit(2, 1), WentOn("a", "e", 7), commit(3, 8)]
    opened: Any = SimpleNamespace(
        report=SimpleNamespace(snapshot=0),
        records=[(number, encode_record(each)) for number, each in enumerate(records, 1)],
    )
    told: list[Store] = []
    state = rebuild(FakeDisk(), "d", opened, Kept(), told.append)
    assert state.roots["a"].version == 8
    assert [each.roots["a"].version for each in told if "a" in each.roots] == [1]
