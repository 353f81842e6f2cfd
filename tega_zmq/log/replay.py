"""From an open log to the store that it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tega_zmq.errors import TegaError
from tega_zmq.log import recovery, salvage, snapshot
from tega_zmq.log.commitlog import Opened
from tega_zmq.log.disk import Disk
from tega_zmq.log.records import decode_chunk, decode_record
from tega_zmq.store.applying import apply, empty
from tega_zmq.store.model import Kept, Store, WentOn
from tega_zmq.store.snapshot import load

__all__ = ["rebuild"]


_TELL_EVERY: Final = 500
"""Records after which `on_the_way` is told how far the store is, or half of the updates that it keeps."""


def rebuild(
    disk: Disk,
    folder: str,
    opened: Opened,
    kept: Kept,
    on_the_way: Callable[[Store], None] = lambda _: None,
) -> Store:
    """Return the store that the log holds, with as much history as `kept` says.

    `on_the_way` is called with states that the store went through, near enough to each other that each keeps
    every update since the one before.

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
    every = max(1, min(_TELL_EVERY, kept.updates // 2))
    on_the_way(store)
    for number, (lsn, payload) in enumerate(opened.records, 1):
        try:
            record = decode_record(payload)
            if type(record) is WentOn:
                on_the_way(store)  # it lets go of what the root keeps
            store = apply(store, record)
        except TegaError as error:
            file, offset = salvage.place_of(disk, folder, lsn)
            raise recovery.refusal(folder, file, offset, lsn, store.revision, error.message) from error
        if number % every == 0:
            on_the_way(store)
    return store
