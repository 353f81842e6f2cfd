"""What must hold after any fault, once it is over: replicas equal, sessions back, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from tega_zmq import errors
from tega_zmq.client.blocking import Client
from tests.processes import Fleet, Program, until

DOOMED = """
import sys, tega_zmq
name = sys.argv[2]
client = tega_zmq.connect(sys.argv[1], name, timeout=20)
client.put(("presence", name), 1, ephemeral=True)
client.register(("tools", name), lambda: 1)
client.subscribe("presence", print)
print("there", flush=True)
sys.stdin.read()
"""
"""A program with an ephemeral node, a handler and a subscription."""


class Doomed:
    """A program of its own that is to be killed or stopped."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-c", DOOMED, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "there\n":
            self.kill()
            raise AssertionError(f"{name} did not get its session")

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def connected(clients: Iterable[Client], patience: float = 20.0) -> None:
    """Wait until all `clients` have their session."""
    for client in clients:
        until(lambda client=client: client.state == "connected", f"{client} is back", patience)


def _node(client: Client, root: str) -> Any:
    try:
        node = client.node(root)
    except errors.NotFound:
        return None
    return node.value, node.version, node.epoch


def replicas_equal(owner: Client, follower: Client, roots: Iterable[str], patience: float = 20.0) -> None:
    """Wait until `follower` shows each of `roots` as `owner` does: value, version and epoch."""
    for root in roots:
        seen: list[Any] = []

        def same(root: str = root, seen: list[Any] = seen) -> bool:
            seen[:] = [_node(owner, root), _node(follower, root)]
            return bool(seen[0] == seen[1])

        try:
            until(same, f"{root} at {follower.url} is as at {owner.url}", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; owner, replica: {seen}") from None


def present(client: Client, names: Iterable[str], gone: Iterable[str] = (), patience: float = 20.0) -> None:
    """Wait until the ephemeral nodes `presence.NAME` of `names` are there, and those of `gone` are not."""
    wanted, unwanted = set(names), set(gone)

    def there() -> bool:
        found = set(client.get("presence", {}))
        return wanted <= found and not unwanted & found

    until(there, f"presence of {sorted(wanted)}, not of {sorted(unwanted)}", patience)


class Resources(NamedTuple):
    """What a program uses."""

    memory: int
    """Kilobytes."""
    descriptors: int


def measure(fleet: Fleet) -> dict[str, Resources]:
    """Return what broker and agents use now."""
    programs = {"broker": fleet.broker, **fleet.agents}
    return {name: Resources(each.memory(), each.descriptors()) for name, each in programs.items()}


def where_they_were(
    fleet: Fleet, before: dict[str, Resources], memory: int = 12_000, descriptors: int = 2
) -> None:
    """Wait until each program uses no more than `before`: `memory` kilobytes and `descriptors` above are
    let pass, for what an allocator keeps, and for a connection that is being made anew."""
    programs: dict[str, Program] = {"broker": fleet.broker, **fleet.agents}
    for name, then in before.items():
        program = programs[name]
        until(
            lambda then=then, program=program: program.descriptors() <= then.descriptors + descriptors,
            f"{name} has {then.descriptors} descriptors again, not {program.descriptors()}",
        )
        until(
            lambda then=then, program=program: program.memory() <= then.memory + memory,
            f"{name} has {then.memory} kB again, not {program.memory()}",
        )
