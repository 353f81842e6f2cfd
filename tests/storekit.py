"""Short ways to make stores in tests."""

from __future__ import annotations

from collections.abc import Generator
from itertools import count
from typing import Any

from tega_zmq import store as core
from tega_zmq.paths import parse
from tega_zmq.store import Kept, Op, Opened, Store, Written
from tega_zmq.tree import plain


def put(path: str, value: Any, expected: int | None = None, *, ephemeral: bool = False) -> Op:
    return Op("put", parse(path), value, expected, ephemeral)


def patch(path: str, value: Any, expected: int | None = None) -> Op:
    return Op("patch", parse(path), value, expected)


def delete(path: str, expected: int | None = None) -> Op:
    return Op("delete", parse(path), None, expected)


def rollback(root: str, version: Any, expected: int | None = None) -> Op:
    return Op("rollback", (root,), version, expected)


def write(store: Store, *ops: Op, **more: Any) -> Written:
    """Write, and check that the record of it leads to the same store."""
    epochs = count(store.revision)
    options: dict[str, Any] = {
        "time": 1000.0 + store.revision,
        "tega_id": "noc-1",
        "fresh": lambda: f"e{next(epochs)}",
        "max_value": 1 << 20,
        **more,
    }
    made = core.write(store, ops, **options)
    if made.commit is not None:
        record = core.record_from_plain(core.record_to_plain(made.commit))
        assert record == made.commit
        assert core.apply(store, record) == made.store
    return made


def stored(*ops: Op, sessions: tuple[str, ...] = ("s1", "s2"), kept: Kept | None = None) -> Store:
    """Return a store with open sessions, after one commit for each of `ops`, by the first session."""
    store = core.empty(kept or Kept())
    for session in sessions:
        store = core.apply(store, Opened(session, f"prog-{session}", "token", ""))
    for op in ops:
        store = write(store, op, session="s1").store
    return store


def value(store: Store, path: str, version: int | None = None) -> Any:
    return plain(core.lookup(store, parse(path), version))


def walked(steps: Generator[int, None, Any]) -> Any:
    """Return the value of what yields its costs."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
