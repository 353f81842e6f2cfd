"""A broker with 1,000 idle sessions, each with one root that it follows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.bench.harness import (
    Case,
    Program,
    Row,
    Sample,
    Sides,
    cpu_seconds,
    folder,
    load,
    resident,
    start_broker,
)

COUNT = 1000
SETTLE = 10.0
SECONDS = 20.0


def up(fleet: Program) -> None:
    """Wait until all sessions are connected and in step."""
    assert fleet.process.stdin is not None
    fleet.process.stdin.write("up\n")
    fleet.process.stdin.flush()
    if fleet.line() != "up":
        raise RuntimeError(fleet.log())


@contextmanager
def idle_sessions() -> Iterator[Sides]:
    """One broker, killed and started again in each round."""
    with folder() as data:

        def measure() -> Sample:
            server = start_broker(data, free=True)
            port = urlsplit(server.url).port
            fleet = None
            try:
                load("raw-roots", server.url, COUNT)
                before = resident(server.program.pid)
                fleet = Program(["fleet.py", server.url, str(COUNT)], os.path.join(data, "fleet"))
                begin = time.monotonic()
                up(fleet)
                first = time.monotonic() - begin
                time.sleep(SETTLE)
                used, begin = cpu_seconds(server.program.pid), time.monotonic()
                time.sleep(SECONDS)
                share = (cpu_seconds(server.program.pid) - used) / (time.monotonic() - begin)
                memory = (resident(server.program.pid) - before) / COUNT
                server.program.stop(signal.SIGKILL)
                begin = time.monotonic()
                server = start_broker(data, port=port, free=True)
                # Those who have not noticed yet look connected: wait for the slowest heartbeat to find out.
                time.sleep(1.0)
                up(fleet)
                back = time.monotonic() - begin
            finally:
                if fleet is not None:
                    fleet.stop(signal.SIGKILL)
                server.program.stop()
            return {"cpu": share * 100, "memory": memory / 1000, "first": first, "back": back}

        yield Sides(measure)


CASES = (
    Case(
        "sessions-1000",
        (
            Row(
                "cpu", "broker with 1,000 idle sessions: processor time", "% of a core", "<=", 10, ratio=False
            ),
            Row("memory", "broker with 1,000 idle sessions: memory of each", "kB", "<=", 50, ratio=False),
            Row("first", "broker with 1,000 idle sessions: until all are there", "s", "", 0, ratio=False),
            Row(
                "back", "broker with 1,000 idle sessions: all back after kill -9", "s", "<=", 30, ratio=False
            ),
        ),
        idle_sessions,
        rounds=2,
    ),
)
