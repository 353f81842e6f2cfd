"""Starts and stops the programs that a bench is made of, and holds what a case consists of."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Sample = dict[str, float]


class Sides(NamedTuple):
    """An open case: each call makes one measurement of one side."""

    ours: Callable[[], Sample]
    base: Callable[[], Sample] | None = None
    """What it is held against; None where the requirement is a number of its own."""


class Row(NamedTuple):
    """One line of the table."""

    metric: str
    """The key in the samples."""
    title: str
    unit: str
    rule: str
    """`>=` or `<=`: how `limit` is to be read; empty: the row is there for information."""
    limit: float
    ratio: bool
    """Whether `limit` is for ours divided by the baseline, or for ours itself."""
    worst: bool = False
    """Take the worst round instead of the median."""


class Case(NamedTuple):
    """Something to measure, and the rows that come of it."""

    name: str
    rows: tuple[Row, ...]
    open: Callable[[], AbstractContextManager[Sides]]
    rounds: int | None = None
    """Most rounds, for what takes long."""


# -- programs --------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """Return the environment in which the programs of this checkout are found."""
    paths = [str(ROOT), str(ROOT / "broker"), str(ROOT / "agents")]
    # Variables that begin with TEGA_ are configuration: those of the caller are not to be measured.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TEGA_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


@contextlib.contextmanager
def folder(memory: bool = False) -> Iterator[str]:
    """Make a folder for data, on the disk of `BENCH_DIR` (default `var/bench`), or in memory."""
    where = "/dev/shm" if memory else os.environ.get("BENCH_DIR", str(ROOT / "var" / "bench"))
    os.makedirs(where, exist_ok=True)
    name = tempfile.mkdtemp(prefix="tega-bench-", dir=where)
    try:
        yield name
    finally:
        shutil.rmtree(name, ignore_errors=True)


def free_port() -> int:
    """Return a port of loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cores() -> tuple[set[int] | None, set[int] | None]:
    """Return the cores for servers and for clients: one each, the same for both sides.

    None, with `BENCH_FREE` set: any core.

    Where the system may move them about, the rate of one request in flight differs by a factor of two from
    second to second, by whether both happen to share a core.
    """
    if os.environ.get("BENCH_FREE"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return ({usable[0]}, {usable[1]}) if len(usable) > 1 else ({usable[0]}, {usable[0]})


SERVER, CLIENT = cores()


class Program:
    """A program that runs beside the bench; its standard error goes to a file."""

    def __init__(self, argv: list[str], log: str, on: set[int] | None = None) -> None:
        """`on`: the cores that it may use; None: all."""
        self._log = log
        self._from = os.path.getsize(log) if os.path.exists(log) else 0
        with open(log, "ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(),
                cwd=HERE,
                text=True,
            )
        if on is not None:
            # Before it has made threads: they inherit it.
            os.sched_setaffinity(self.process.pid, on)

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended:\n{self.log()[-3000:]}")
        return line.rstrip("\n")

    def log(self) -> str:
        """Return what it wrote to standard error."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            file.seek(self._from)
            return file.read()

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Wait until standard error holds `text`."""
        until = time.monotonic() + seconds
        while text not in self.log():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.process.args}: no {text!r}:\n{self.log()[-3000:]}")
            time.sleep(0.01)

    def finish(self) -> Sample:
        """Tell it to end, and return what it measured."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        sample: Sample = json.loads(self.line())
        self.process.wait(30)
        return sample

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Server(NamedTuple):
    """A running server and where it listens."""

    program: Program
    url: str


@contextlib.contextmanager
def baseline(kind: str, memory: bool = False, free: bool = False) -> Iterator[Server]:
    """Run the baseline's `kv` or `rpc` server; `free`: on any core."""
    with folder(memory) as data:
        program = Program(["baseline.py", kind, data], os.path.join(data, "stderr"), None if free else SERVER)
        try:
            yield Server(program, program.line())
        finally:
            program.stop()


def start_broker(
    data: str, *settings: str, port: int | None = None, program: str = "", free: bool = False
) -> Server:
    """Start a broker on `data` and wait until it serves.

    `program`: a script instead of the broker's own; `free`: on any core.
    """
    port = free_port() if port is None else port
    argv = [program] if program else ["-m", "tega_broker.main"]
    for setting in (
        f"data_dir={data}/node",
        "tega_id=gateway",
        "bridge.enabled=false",
        f"listen.requests=tcp://127.0.0.1:{port}",
        f"listen.changes=tcp://127.0.0.1:{free_port()}",
        *settings,
    ):
        argv += ["--set", setting]
    started = Program(argv, os.path.join(data, "stderr"), None if free else SERVER)
    started.wait_for("ready")
    return Server(started, f"tcp://127.0.0.1:{port}")


@contextlib.contextmanager
def broker(*settings: str, memory: bool = False, program: str = "", free: bool = False) -> Iterator[Server]:
    """Run a broker on a new folder."""
    with folder(memory) as data:
        server = start_broker(data, *settings, program=program, free=free)
        try:
            yield server
        finally:
            server.program.stop()


# -- loads -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def helper(role: str, url: str, *arguments: Any) -> Iterator[Program]:
    """Run a role of `load.py` beside the measurement; entered when it says that it is ready."""
    with folder() as scratch:
        program = Program(
            ["load.py", role, url, *map(str, arguments)], os.path.join(scratch, "stderr"), CLIENT
        )
        try:
            ready = program.line()
            if ready != "ready":
                raise RuntimeError(f"{role}: {ready}")
            yield program
        finally:
            program.stop()


def load(role: str, url: str, *arguments: Any) -> Sample:
    """Run a role of `load.py` to its end, in its own process, and return what it measured."""
    with folder() as scratch:
        program = Program(
            ["load.py", role, url, *map(str, arguments)], os.path.join(scratch, "stderr"), CLIENT
        )
        try:
            sample: Sample = json.loads(program.line())
        finally:
            program.stop()
    return sample


# -- what the system says of a process -------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Return the processor time that all threads of a process have used."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
