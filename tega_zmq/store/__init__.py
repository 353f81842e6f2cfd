"""Roots, versions, history, writes, ephemeral nodes, ownership and sessions' leases: one frozen `Store`.

`write` turns operations into a commit, `apply` turns a record into the next store; all else reads.
"""

from __future__ import annotations

from tega_zmq.store.applying import apply, empty, replay, stands_alone
from tega_zmq.store.encoding import (
    check_entries,
    check_marks,
    record_from_plain,
    record_to_plain,
    update_from_plain,
    update_to_plain,
)
from tega_zmq.store.graph import edges
from tega_zmq.store.history import update_at
from tega_zmq.store.model import (
    ABSENT,
    MAX_OUTCOMES,
    Change,
    Cleared,
    Commit,
    Ended,
    Kept,
    Lease,
    NewEpochs,
    Op,
    Opened,
    Outcome,
    Owned,
    Record,
    Replicated,
    ResetEnd,
    ResetPart,
    Root,
    Store,
    Update,
    WentOn,
    Written,
)
from tega_zmq.store.reading import (
    attributes,
    diff,
    find,
    is_ephemeral,
    log,
    lookup,
    owned_roots,
    resolve,
    roots,
)
from tega_zmq.store.replicas import entries, ephemeral_entries, follows, updates_since
from tega_zmq.store.snapshot import dump, load
from tega_zmq.store.writing import end_session, outcome, write

__all__ = [
    "ABSENT",
    "MAX_OUTCOMES",
    "Change",
    "Cleared",
    "Commit",
    "Ended",
    "Kept",
    "Lease",
    "NewEpochs",
    "Op",
    "Opened",
    "Outcome",
    "Owned",
    "Record",
    "Replicated",
    "ResetEnd",
    "ResetPart",
    "Root",
    "Store",
    "Update",
    "WentOn",
    "Written",
    "apply",
    "attributes",
    "check_entries",
    "check_marks",
    "diff",
    "dump",
    "edges",
    "empty",
    "end_session",
    "entries",
    "ephemeral_entries",
    "find",
    "follows",
    "is_ephemeral",
    "load",
    "log",
    "lookup",
    "outcome",
    "owned_roots",
    "record_from_plain",
    "record_to_plain",
    "replay",
    "resolve",
    "roots",
    "stands_alone",
    "update_at",
    "update_from_plain",
    "update_to_plain",
    "updates_since",
    "write",
]
