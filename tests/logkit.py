"""What the tests of the log share."""

from __future__ import annotations

from contextlib import suppress

from tega_zmq.errors import StorageError
from tega_zmq.log import Log, Opened, Options, Report, open_log
from tega_zmq.log.disk import Disk
from tests.fakedisk import FakeDisk

FOLDER = "/data"
SMALL = Options(segment=4096 + 600)
"""Segments with room for a few records."""


def start(disk: Disk, options: Options = SMALL, store: str = "store-1") -> Opened:
    return open_log(disk, FOLDER, options, new_id=lambda: store)


def state(opened: Opened) -> list[bytes]:
    """What a log holds, where a snapshot has one chunk for each record that it replaces."""
    payloads = [*opened.snapshot]
    for lsn, payload in opened.records:
        assert lsn == len(payloads) + 1
        payloads.append(payload)
    assert len(payloads) == opened.report.last == opened.log.last
    return payloads


def take_snapshot(log: Log, payloads: list[bytes]) -> None:
    """A snapshot of the state after the last of `payloads`, in one go."""
    writer = log.snapshot(len(payloads))
    for payload in payloads:
        writer.add(payload)
    writer.sync()
    log.sync()
    writer.publish()
    with suppress(OSError):
        log.prune()


def take_restart(log: Log, payloads: list[bytes]) -> None:
    writer = log.restart(len(payloads))
    for payload in payloads:
        writer.add(payload)
    writer.sync()
    writer.publish()
    log.restarted()
    with suppress(OSError):
        log.prune()


def outcome(disk: FakeDisk, options: Options = SMALL) -> tuple[list[bytes], Report] | StorageError:
    """What a start leads to; the log is closed again without a word."""
    before = {path: disk.content(path) for path in disk.names if not path.endswith("/lock")}
    try:
        opened = start(disk, options)
    except StorageError as error:
        after = {path: disk.content(path) for path in disk.names if not path.endswith("/lock")}
        assert after == before, "a refused start changed something"
        assert not disk.locks
        return error
    payloads = state(opened)
    opened.log.close(clean=False)
    return payloads, opened.report


def goes_on(disk: FakeDisk, payloads: list[bytes], options: Options = SMALL) -> None:
    """Check that the log can be used on: what is appended now is there at the next start."""
    opened = start(disk, options)
    assert state(opened) == payloads
    more = [b"more %d" % number for number in range(30)]
    for payload in more:
        opened.log.append_batch([payload])
    opened.log.close(clean=False)
    opened = start(disk.copy(), options)
    assert state(opened) == payloads + more
    assert opened.report.torn is None
