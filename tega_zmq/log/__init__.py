"""The commit log: records, segments, snapshots, recovery, the writer thread. See docs/log-format.md."""

from tega_zmq.log.commitlog import Log, Opened, Options, Report, open_log
from tega_zmq.log.disk import Disk, File, HeldError, OsDisk
from tega_zmq.log.recovery import Torn
from tega_zmq.log.replay import rebuild
from tega_zmq.log.scan import FoundSegment, FoundSnapshot, scan
from tega_zmq.log.writer import Durable, Event, Failed, LogThread, SnapshotDone, SnapshotFailed, Waits

__all__ = [
    "Disk",
    "Durable",
    "Event",
    "Failed",
    "File",
    "FoundSegment",
    "FoundSnapshot",
    "HeldError",
    "Log",
    "LogThread",
    "Opened",
    "Options",
    "OsDisk",
    "Report",
    "SnapshotDone",
    "SnapshotFailed",
    "Torn",
    "Waits",
    "open_log",
    "rebuild",
    "scan",
]
