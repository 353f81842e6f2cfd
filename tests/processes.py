"""Real nodes as child processes, on loopback, with ports from the system."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tega_zmq import connect
from tega_zmq.client.blocking import Client
from tega_zmq.errors import TegaError

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds for a condition to come true; only a failing test waits so long."""


def until(condition: Callable[[], T], what: str = "", patience: float = PATIENCE) -> T:
    """Return the first true result of `condition`, which is asked again and again."""
    deadline = time.monotonic() + patience
    pause = 0.005
    last: object = None
    while True:
        try:
            last = found = condition()
            if found:
                return found
        except (TegaError, OSError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(
                f"did not come true within {patience:g} s: {what or condition}; last: {last!r}"
            )
        time.sleep(pause)  # between two looks at a condition
        pause = min(pause * 1.5, 0.1)


_held: list[socket.socket] = []
"""What keeps the ports of the test that runs."""


def free_ports(count: int) -> list[int]:
    """Return TCP ports of loopback that are free, and that the system gives to nobody else in this test.

    A port that was only looked up could be given out again before its program listens there, to a proxy of
    the same test, say. So a socket stays bound to it. It is made to share the port after it has been bound:
    a server that asks for this port by its number may listen there, but nobody who asks for any is given it.
    """
    ports = []
    for _ in range(count):
        holder = socket.socket()
        _held.append(holder)
        holder.bind(("127.0.0.1", 0))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ports.append(holder.getsockname()[1])
    return ports


def release_ports() -> None:
    """Let go of the ports that `free_ports` gave."""
    while _held:
        _held.pop().close()


class Program:
    """One program that can be started, killed and started again over the same data folder."""

    def __init__(self, module: str, folder: Path, settings: dict[str, str]) -> None:
        self.prefix: list[str] = []
        """What runs it: `ip netns exec HOST`, for example."""
        self.environment: dict[str, str] = {}
        """Variables that only it has."""
        self.module = module
        self.folder = folder
        self.settings = {"data_dir": str(folder), **settings}
        self.log = folder.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        """Start it and wait until it is ready."""
        ready = self.lines("ready tega_id=")
        self.spawn(**settings)
        until(lambda: self.lines("ready tega_id=") > ready or self._ended(), f"{self.module} is ready")
        assert not self._ended(), self.log.read_text()

    def spawn(self, **settings: str) -> None:
        """Start it and return at once."""
        flags = [f"--set={key}={value}" for key, value in {**self.settings, **settings}.items()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", self.module, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder.parent,
                env={**os.environ, "PYTHONWARNINGS": "default", **self.environment},
            )

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def lines(self, text: str) -> int:
        """How many lines of its log hold `text`."""
        if not self.log.exists():
            return 0
        return sum(text in line for line in self.log.read_text().splitlines())

    def kill(self) -> None:
        """End it without warning."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it in order and return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def pause(self) -> None:
        """Freeze it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def memory(self) -> int:
        """Resident memory in kilobytes."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        """How many files it has open."""
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def end(self) -> None:
        """Kill it if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Fleet:
    """A broker and its agents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        requests, changes = free_ports(2)
        self.url = f"tcp://127.0.0.1:{requests}"
        self.changes_port = changes
        self.broker = Program(
            "tega_broker.main",
            folder / "broker",
            {
                "tega_id": "gateway",
                "listen.requests": self.url,
                "listen.changes": f"tcp://127.0.0.1:{changes}",
                "bridge.enabled": "false",
                "session.lease": "3",
            },
        )
        self.agents: dict[str, Program] = {}
        self._clients: list[Client] = []

    def agent(self, tega_id: str, folder: str | None = None, **settings: str) -> Program:
        """Make an agent that is named `tega_id`; it does not run yet."""
        program = Program(
            "tega_agent.main",
            self.folder / (folder or tega_id),
            {
                "tega_id": tega_id,
                "uplink": f"[{self.url}]",
                "config": f"[config-{tega_id}]",
                "operational": f"[ops-{tega_id}]",
                "plugins": "[]",
                "session.lease": "3",
                **settings,
            },
        )
        self.agents[folder or tega_id] = program
        return program

    def socket(self, agent: str) -> str:
        """Where programs on the device connect."""
        return f"ipc://{self.agents[agent].folder}/agent.sock"

    def client(self, tega_id: str, at: str | None = None, **options: Any) -> Client:
        """Connect to the broker, or to the agent `at`; closed with the fleet."""
        client = connect(self.url if at is None else self.socket(at), tega_id, **options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """End everything."""
        for program in [*self.agents.values(), self.broker]:
            program.end()
        for client in self._clients:
            client.close()


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    """A fleet that ends with the block; nothing of it runs yet."""
    made = Fleet(folder)
    try:
        yield made
    finally:
        made.close()
