"""kill -9 of a process that writes a log: what it said is durable is there afterwards, in order."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tega_zmq.log import Options, OsDisk, open_log

PROGRAM = r"""
import os, sys
from tega_zmq.log import Durable, LogThread, Options, OsDisk, SnapshotDone, open_log

folder, sync, seed = sys.argv[1:]
sys.setswitchinterval(0.0005)
options = Options(sync=sync, interval=0.02, segment=40_000)
opened = open_log(OsDisk(), folder, options, new_id=lambda: "store")
count = sum(chunk.count(b"\n") for chunk in opened.snapshot) + sum(1 for _ in opened.records)
wake = os.eventfd(0)
thread = LogThread(opened.log, wake=lambda: os.eventfd_write(wake, 1))
thread.start()
told = thread_next = count

def payload(number):
    return b"%d\n" % number + b"x" * (number * 7919 % 700) * (number % 5 != 0)

def chunks(lsn):
    return lambda: (payload(number) for number in range(1, lsn + 1))

os.write(1, b"start %d\n" % count)
snapshotting = False
while True:
    while thread_next < told + 64:
        thread_next = thread.append(payload(thread_next + 1))
    os.eventfd_read(wake)
    for event in thread.poll():
        if isinstance(event, Durable):
            told = event.lsn
            os.write(1, b"%d\n" % told)
        elif isinstance(event, SnapshotDone):
            snapshotting = False
            os.write(1, b"snapshot %d\n" % event.lsn)
        else:
            raise SystemExit(repr(event))
    if not snapshotting and thread.size_since_snapshot > 60_000:
        snapshotting = True
        thread.snapshot(told, chunks(told))
"""


def payload(number: int) -> bytes:
    return b"%d\n" % number + b"x" * (number * 7919 % 700) * (number % 5 != 0)


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_kill_at_any_time(tmp_path: Path, sync: str) -> None:
    rng = random.Random(sync)
    folder = str(tmp_path / "data")
    told = 0
    snapshots = 0
    for _ in range(10):
        lines = rng.randrange(1, 40)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, folder, sync, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            first = process.stdout.readline()
            assert first.startswith(b"start "), process.stderr.read()
            assert int(first.split()[1]) >= told
            for _ in range(lines):
                if process.stdout.readline() == b"":
                    pytest.fail(process.stderr.read().decode())
            process.kill()
            # What it said until then counts as well; a last line may be half.
            rest = process.stdout.read()
            lines_told = rest[: rest.rfind(b"\n") + 1].split(b"\n")
            said = [int(line) for line in lines_told if line.isdigit()]
            snapshots += rest.count(b"snapshot")
            told = max([told, *said])
        opened = open_log(OsDisk(), folder, Options(sync=sync, segment=40_000), new_id=lambda: "other")
        found = [*opened.snapshot, *(each for _, each in opened.records)]
        assert len(found) >= told
        assert found == [payload(number) for number in range(1, len(found) + 1)]
        assert opened.report.store == "store"
        assert not opened.report.clean
        assert opened.report.torn is None or opened.report.torn.lsn > told
        told = len(found)
        opened.log.close(clean=False)
    assert told > 500
    assert opened.report.snapshot > 0
