"""What an agent costs its device, and how long a one-shot command takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.harness import (
    ROOT,
    Case,
    Program,
    Row,
    Sample,
    Sides,
    broker,
    cpu_seconds,
    environment,
    folder,
    load,
    resident,
)

SETTLE = 5.0
SECONDS = 20.0


@contextmanager
def idle_agent() -> Iterator[Sides]:
    """A connected agent with one root of each kind and the plugin that is shipped."""
    with broker(free=True) as node, folder() as data:
        load("raw-fill", node.url, "config-pi1", 3, 100)
        argv = ["-m", "tega_agent.main"]
        for setting in (
            "tega_id=pi1",
            f"data_dir={data}/node",
            f"uplink={node.url}",
            "config=config-pi1",
            "operational=ops-pi1",
        ):
            argv += ["--set", setting]
        agent = Program(argv, os.path.join(data, "stderr"))
        try:
            agent.wait_for("ready")
            agent.wait_for("caught up")
            time.sleep(SETTLE)

            def measure() -> Sample:
                used, begin = cpu_seconds(agent.pid), time.monotonic()
                time.sleep(SECONDS)
                share = (cpu_seconds(agent.pid) - used) / (time.monotonic() - begin)
                return {"memory": resident(agent.pid) / 1e6, "cpu": share * 100}

            yield Sides(measure)
        finally:
            agent.stop()


@contextmanager
def one_shot() -> Iterator[Sides]:
    """`tega get PATH`, start to end, with compiled modules in place."""
    with broker(free=True) as node:
        load("tega-put", node.url, 0.1)
        argv = [sys.executable, "-m", "tega_zmq.shell.main", "-s", node.url, "get", "bench.a.b"]

        def measure() -> Sample:
            begin = time.monotonic()
            done = subprocess.run(
                argv, env=environment(), cwd=ROOT, capture_output=True, text=True, check=True
            )
            assert done.stdout.startswith("vvv"), done.stdout
            return {"time": (time.monotonic() - begin) * 1000}

        def bare() -> Sample:
            begin = time.monotonic()
            subprocess.run([sys.executable, "-c", "import zmq, msgpack"], env=environment(), check=True)
            return {"time": (time.monotonic() - begin) * 1000}

        yield Sides(measure, bare)


CASES = (
    Case(
        "agent",
        (
            Row("memory", "agent: resident memory", "MB", "<=", 35, ratio=False),
            Row("cpu", "agent: processor time when idle", "% of a core", "<=", 0.3, ratio=False),
        ),
        idle_agent,
        rounds=2,
    ),
    Case(
        "one-shot",
        (Row("time", "`tega get x`; base: Python with zmq and msgpack", "ms", "<=", 250, ratio=False),),
        one_shot,
    ),
)
