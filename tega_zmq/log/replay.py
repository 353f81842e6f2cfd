"""From an open log to the store that it holds."""

from __future__ import annotations

from tega_zmq.errors import TegaError
from tega_zmq.log import recovery, salvage, snapshot
from tega_zmq.log.commitlog import Opened
from tega_zmq.log.disk import Disk
from tega_zmq.log.records import decode_chunk, decode_record
from tega_zmq.store.applying import apply, empty
from tega_zmq.store.model import Kept, Store
from tega_zmq.store.snapshot import load

__all__ = ["rebuild"]


def rebuild(disk: Disk, folder: str, opened: Opened, kept: Kept) -> Store:
    """Return the store that the log holds, with as much history as `kept` says.

    Raises `StorageError` that names file, offset and revision if a record that is whole cannot be understood,
    or cannot follow on those before it; `OSError` if a file cannot be read any more.
    """
    at = opened.report.snapshot
    store = empty(kept)
    if at:
        try:
            store = load(map(decode_chunk, opened.snapshot), kept)
        except TegaError as error:
            file = f"{snapshot.FOLDER}/{snapshot.name_of(at)}"
            raise recovery.refusal(folder, file, 0, at, None, error.message) from error
    for lsn, payload in opened.records:
        try:
            store = apply(store, decode_record(payload))
        except TegaError as error:
            file, offset = salvage.place_of(disk, folder, lsn)
            raise recovery.refusal(folder, file, offset, lsn, store.revision, error.message) from error
    return store
