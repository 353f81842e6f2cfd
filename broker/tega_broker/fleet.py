"""A whole fleet on one machine: a broker and two agents on loopback (`make run`).

Seeds the store from `conf/demo.yaml`, says what to type next, and stops all of it in order on Ctrl-C.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from tega_broker.child import bridge_is_installed
from tega_broker.processes import Ended, Program, port_is_free
from tega_zmq import Client, TegaError, connect
from tega_zmq.runtime import yamlio

__all__ = ["AGENTS", "Fleet", "main", "seed", "wait_until"]

AGENTS = ("pi1", "pi2")

_HOME = Path(__file__).resolve().parents[2]
"""The checkout that this file stands in."""


def wait_until(what: str, true: Callable[[], Any], seconds: float = 30.0) -> float:
    """Wait until `true()` is; return how many seconds that took. Raises `TimeoutError` that names `what`."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"after {seconds:g} seconds still not: {what}")
        time.sleep(0.01)
    return time.monotonic() - began


def seed(tega: Client, document: Path) -> list[str]:
    """Put each root of the YAML file that the broker does not have; return their names.

    Raises `InvalidValue` and what a write may raise.
    """
    roots = yamlio.load_file(document)
    present = {entry["root"] for entry in tega.inspect("roots")}
    absent = sorted(roots.keys() - present)
    for root in absent:
        tega.put((root,), roots[root], version="absent", message=f"seeded from {document.name}")
    return absent


class Fleet:
    """A broker and two agents as child processes. As a context manager it stops them at the end."""

    def __init__(self, conf: Path, data: Path, port: int, bridge: int | None = None) -> None:
        """`conf` holds broker.yaml and a file for each agent; data and logs go to the folder `data`.

        The broker listens on `port` and the one after it, its bridge on the port `bridge`; None: no bridge.
        """
        self.data = data
        self.port = port
        self.bridge = f"http://127.0.0.1:{bridge}" if bridge is not None else None
        """Where the bridge serves HTTP, if there is one."""
        self.url = f"tcp://127.0.0.1:{port}"
        data.mkdir(parents=True, exist_ok=True)
        changes = f"tcp://127.0.0.1:{port + 1}"
        self.broker = self._program(
            "broker",
            "tega_broker",
            conf / "broker.yaml",
            f"listen.requests={self.url}",
            f"listen.changes={changes}",
            f"bridge.enabled={str(bridge is not None).lower()}",
            *([f"bridge.listen={self.bridge}"] if bridge is not None else []),
        )
        self.agents = {
            name: self._program(
                name,
                "tega_agent",
                conf / f"{name}.yaml",
                f"uplink=[{self.url}]",
                f"listen.requests={self.local_url(name)}",
            )
            for name in AGENTS
        }

    def _program(self, name: str, module: str, config: Path, *settings: str) -> Program:
        command = [sys.executable, "-m", module, "-c", str(config), "--set", f"data_dir={self.data / name}"]
        for setting in settings:
            command += ["--set", setting]
        return Program(name, command, self.data / f"{name}.log", Path.cwd())

    @property
    def programs(self) -> list[Program]:
        """The broker, then the agents."""
        return [self.broker, *self.agents.values()]

    def local_url(self, agent: str) -> str:
        """Where programs on the device `agent` connect."""
        return f"ipc://{self.data / agent}/agent.sock"

    def start(self) -> None:
        """Start all of it and wait until the agents are connected. Raises `Ended`, `TimeoutError`."""
        for program in self.programs:
            program.log.write_bytes(b"")
            program.start()
        with self.connect("fleet") as tega:
            self.await_agents(tega)
        if self.bridge is not None:
            wait_until("the bridge is ready", self._bridge_is_ready)

    def _bridge_is_ready(self) -> bool:
        self.broker.check()
        try:
            with urlopen(f"{self.bridge}/_health", timeout=5) as answer:  # noqa: S310 - it is http
                return bool(answer.status == 200)
        except OSError:
            return False

    def connect(self, tega_id: str | None = None) -> Client:
        """A client of the broker."""
        return connect(self.url, tega_id)

    def connect_local(self, agent: str, tega_id: str | None = None) -> Client:
        """A client of an agent, as a program on that device has it."""
        return connect(self.local_url(agent), tega_id)

    def await_agents(self, tega: Client) -> float:
        """Wait until every agent is connected to the broker; return the seconds that took."""

        def connected() -> bool:
            found = {entry["tega_id"]: entry["state"] for entry in tega.inspect("agents")}
            return all(found.get(name) == "connected" for name in self.agents)

        return wait_until("all agents are connected", connected)

    def check(self) -> None:
        """Raise `Ended` if one of the programs has ended by itself."""
        for program in self.programs:
            program.check()

    def tend(self, say: Callable[[str], None]) -> None:
        """Start again what was killed, as a service manager does, and `say` so.

        Raises `Ended` if a program has ended by itself, or cannot be started.
        """
        for program in self.programs:
            if program.was_killed:
                say(f"{program.name} was killed. Starting it again ...")
                program.start()
                say(f"{program.name} is back.")
            program.check()

    def stop(self) -> dict[str, int]:
        """Stop the agents, then the broker; return the exit statuses that are not 0, by name."""
        for agent in self.agents.values():
            agent.ask_to_stop()
        statuses = {program.name: program.stop() for program in reversed(self.programs)}
        return {name: status for name, status in statuses.items() if status}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


# -- make run --------------------------------------------------------------------------------------


class _Stop(BaseException):
    """A signal asks this program to stop; not an error, and nothing that a handler of errors may catch."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the fleet until Ctrl-C; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="make run", description="A broker and two agents on loopback; Ctrl-C stops all of it."
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8740,
        help="the broker's port; it takes the next one too, and its bridge the one before",
    )
    parser.add_argument(
        "--data", type=Path, default=Path("var"), help="folder of data and logs (default: var)"
    )
    parser.add_argument("--conf", type=Path, default=_HOME / "conf", help="folder with demo.yaml and demo/")
    given = parser.parse_args(argv)
    if not (given.conf / "demo").is_dir():
        return _refuse(f"there is no folder {given.conf / 'demo'}; run this in a checkout, or give --conf")
    bridge = given.port - 1 if bridge_is_installed() else None
    for port in (given.port, given.port + 1, *([] if bridge is None else [bridge])):
        if not port_is_free(port):
            return _refuse(
                f"port {port} is in use, by a fleet that runs already, perhaps; stop that, or choose another "
                f"port: make run PORT={given.port + 1000}"
            )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    fleet = Fleet(given.conf / "demo", given.data, given.port, bridge)
    try:
        with fleet:
            _run(fleet, given.conf / "demo.yaml")
    except _Stop:
        return 0
    except (Ended, TimeoutError, TegaError, OSError) as error:
        return _refuse(str(error))
    return 0


def _run(fleet: Fleet, document: Path) -> None:
    _say("Starting a broker and two agents ...")
    fleet.start()
    with fleet.connect("seed") as tega:
        seeded = seed(tega, document)
    if seeded:
        _say(f"Put {', '.join(seeded)} into the new store, from {_relative(document)}.")
    _say(_advice(fleet))
    try:
        while True:
            fleet.tend(_say)
            time.sleep(0.2)
    except _Stop:
        _say("\nStopping the agents, then the broker ...")
        wrong = fleet.stop()
        for name, status in wrong.items():
            _say(f"{name} ended with status {status}; its log is {fleet.data / name}.log")
        _say("Stopped.")
        raise


def _advice(fleet: Fleet) -> str:
    tega = shlex.quote(_relative(Path(sys.executable).parent / "tega"))
    server = "" if fleet.port == 8740 else f" -s {fleet.url}"
    on_pi1 = f"{tega} -s {shlex.quote(fleet.local_url('pi1'))}"
    lines = [
        (f"{tega}{server} agents", "who is there, and how far"),
        (f"{tega}{server} get config-pi1.interfaces", "the config of a device"),
        (f"{tega}{server} put config-pi1.interfaces.eth0.mtu 9000", "change it ..."),
        (f"{on_pi1} get config-pi1.interfaces.eth0", "... and see it on the device"),
        (f"{tega}{server} get ops-pi1.system", "how the device is"),
        (f"{tega}{server} \"ops-pi1.ping('hello')\"", "call a function on it"),
        (f"{tega}{server} log config-pi1", "who changed what, and when"),
        (f"{tega}{server} rollback config-pi1 -1", "and back"),
        (f"{tega}{server}", "the shell: Tab completes, `help` helps"),
    ]
    width = max(len(command) for command, _ in lines)
    commands = "\n".join(f"  {command:{width}}  # {what}" for command, what in lines)
    bridge = f"Its bridge serves HTTP: curl {fleet.bridge}/config-pi1/interfaces/\n" if fleet.bridge else ""
    return f"""
The fleet runs. The broker `gateway` listens on {fleet.url}; the agents `pi1` and `pi2` follow it.
{bridge}Data and logs are in {fleet.data}/. Now type, in another terminal, in this folder:

{commands}

Ctrl-C stops all of it. What you kill (`kill -9`) is started again."""


def _relative(path: Path) -> str:
    """`path` as it is best typed here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _stop(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # once is enough: the stop runs to its end
    raise _Stop


def _refuse(why: str) -> int:
    print(f"make run: {why}", file=sys.stderr)  # noqa: T201
    return 1


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
