"""Links between a device and its gateway that can be cut, made one-way, lossy or slow.

`Wire` joins hosts in network namespaces of the test's own, with a router between them that drops packets or
hides the devices behind its address. `Proxy` is a TCP proxy on loopback, for what packets cannot be made to
do here (delay), and for machines without namespaces.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.chaos.machine import cannot, needs, run
from tests.processes import Fleet, free_ports

GATEWAY, WAN, NEW_WAN, LAN, DEVICE = (
    "10.77.1.1",
    "10.77.1.2",
    "10.77.1.3",
    "10.77.2.1",
    "10.77.2.2",
)


class Wire:
    """gateway -- router -- device, each a network namespace."""

    faults = ("cut", "up lost", "down lost", "lossy")

    def __init__(self, nat: bool = False) -> None:
        self._names = {host: f"tega-{os.getpid()}-{host}" for host in ("gw", "rt", "pi")}
        self._nat = nat

    def inside(self, host: str) -> list[str]:
        """What runs a command on `host`."""
        return ["ip", "netns", "exec", self._names[host]]

    def open(self) -> None:
        """Make the hosts. Raises `OSError` where that is not allowed."""
        gw, rt, pi = (self._names[host] for host in ("gw", "rt", "pi"))
        for name in (gw, rt, pi):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for name, there, here, address, gateway in (
            (gw, "eth0", "wan", GATEWAY, WAN),
            (pi, "eth0", "lan", DEVICE, LAN),
        ):
            run("ip", "-n", name, "link", "add", there, "type", "veth", "peer", "name", here, "netns", rt)
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", there)
            run("ip", "-n", rt, "addr", "add", f"{gateway}/24", "dev", here)
            run("ip", "-n", name, "link", "set", there, "up")
            run("ip", "-n", rt, "link", "set", here, "up")
        run("ip", "-n", pi, "route", "add", "default", "via", LAN)
        if not self._nat:  # behind NAT the gateway knows no way to the device
            run("ip", "-n", gw, "route", "add", "default", "via", WAN)
        run(*self.inside("rt"), "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._nft("add table ip tega")
        self._nft("add chain ip tega through { type filter hook forward priority 0; }")
        if self._nat:
            self._nft("add chain ip tega out { type nat hook postrouting priority 100; }")
            self._nft('add rule ip tega out oifname "wan" masquerade')

    def _nft(self, rule: str) -> str:
        return run(*self.inside("rt"), "nft", rule)

    def attach(self, fleet: Fleet) -> None:
        """Put the broker on the gateway and the agents on the device. Before they start."""
        requests = fleet.url.rsplit(":", 1)[1]
        local = f"ipc://{fleet.folder}/broker.sock"
        fleet.broker.prefix = self.inside("gw")
        fleet.broker.settings.update(
            {
                "listen.requests": f"[tcp://{GATEWAY}:{requests}, {local}]",
                "listen.changes": f"tcp://{GATEWAY}:{fleet.changes_port}",
                "insecure": "true",
            }
        )
        fleet.url = local
        for agent in fleet.agents.values():
            agent.prefix = self.inside("pi")
            agent.settings["uplink"] = f"[tcp://{GATEWAY}:{requests}]"

    def fault(self, what: str) -> None:
        """Begin one of `faults`."""
        rule = {
            "cut": "counter drop",
            "up lost": 'iifname "lan" counter drop',
            "down lost": 'iifname "wan" counter drop',
            "lossy": "numgen random mod 100 < 10 counter drop",
        }[what]
        self._nft(f"add rule ip tega through {rule}")

    def hits(self) -> int:
        """How many packets the fault has dropped so far."""
        found = re.findall(r"counter packets (\d+)", self._nft("list chain ip tega through"))
        return sum(map(int, found))

    def restore(self) -> None:
        """End the fault."""
        self._nft("flush chain ip tega through")

    def renumber(self) -> None:
        """The router gets another address from its provider: its connections break without a word."""
        rt = self._names["rt"]
        run("ip", "-n", rt, "addr", "del", f"{WAN}/24", "dev", "wan")
        run("ip", "-n", rt, "addr", "add", f"{NEW_WAN}/24", "dev", "wan")

    def close(self) -> None:
        """Remove the hosts; what runs on them must have ended."""
        for name in self._names.values():
            with suppress(OSError):
                run("ip", "netns", "del", name)


class Proxy:
    """Two TCP proxies on loopback, for requests and for changes, in a thread of their own."""

    faults = ("cut", "up lost", "down lost", "delayed", "flapping")

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._flows = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._delay = 0.0
        self._hits = 0
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flapping: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin."""
        self._thread.start()
        self.restore()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def attach(self, fleet: Fleet) -> None:
        """Put the proxy between the broker and the agents. Before they start."""
        requests = int(fleet.url.rsplit(":", 1)[1])
        local = f"ipc://{fleet.folder}/broker.sock"
        ports = free_ports(2)
        for port, target in zip(ports, (requests, fleet.changes_port), strict=True):
            self._do(self._listen(port, target))
        fleet.broker.settings.update(
            {
                "listen.requests": f"[{fleet.url}, {local}]",
                "advertise.changes": f"tcp://127.0.0.1:{ports[1]}",
            }
        )
        fleet.url = local
        for agent in fleet.agents.values():
            agent.settings["uplink"] = f"[tcp://127.0.0.1:{ports[0]}]"

    async def _listen(self, port: int, target: int) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            self._writers.add(writer)
            try:
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
                self._writers.add(there_writer)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._carry("up", reader, there_writer))
                        group.create_task(self._carry("down", there_reader, writer))
                finally:
                    self._writers.discard(there_writer)
                    there_writer.transport.abort()
            except* (OSError, asyncio.CancelledError):
                pass  # one of the ends is gone; the other one hears of it
            finally:
                self._writers.discard(writer)
                writer.transport.abort()
                self._tasks.discard(task)

        self._servers.append(await asyncio.start_server(serve, "127.0.0.1", port))

    async def _carry(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = self._loop
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def deliver() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - loop.time())
                self._hits += self._delay > 0 or not self._flows[way].is_set()
                await self._flows[way].wait()
                if not data:
                    raise ConnectionResetError
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(deliver())
            data = b"."
            while data:
                data = await reader.read(65536)
                await under_way.put((loop.time() + self._delay, data))

    def fault(self, what: str) -> None:
        """Begin one of `faults`."""
        self._do(self._begin(what))

    async def _begin(self, what: str) -> None:
        self._hits = 0
        if what in ("cut", "up lost"):
            self._flows["up"].clear()
        if what in ("cut", "down lost"):
            self._flows["down"].clear()
        if what == "delayed":
            self._delay = 0.1
        if what == "flapping":
            self._flapping = asyncio.create_task(self._flap())

    async def _flap(self) -> None:
        while True:
            await asyncio.sleep(0.3)
            self._hits += len(self._writers) > 0
            await self._reset()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def hits(self) -> int:
        """How often the fault has struck so far: bytes held, carried late, connections reset."""
        return self._hits

    def restore(self) -> None:
        """End the fault; connections from before a cut are gone, as behind most routers."""
        self._do(self._end())

    async def _end(self) -> None:
        if not all(flow.is_set() for flow in self._flows.values()):
            await self._reset()
        for flow in self._flows.values():
            flow.set()
        self._delay = 0.0
        if self._flapping is not None:
            self._flapping.cancel()
            self._flapping = None

    def close(self) -> None:
        """End everything."""
        if not self._thread.is_alive():
            return
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _shut(self) -> None:
        await self._end()
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextmanager
def wire(fleet: Fleet, nat: bool = False) -> Iterator[Wire]:
    """Hosts in namespaces, or a skip; the fleet is ended before they go."""
    needs("ip", "nft")
    made = Wire(nat)
    try:
        try:
            made.open()
        except OSError as error:
            cannot(f"no hosts in network namespaces ({error}); it takes root")
        made.attach(fleet)
        yield made
    finally:
        fleet.close()
        made.close()


@contextmanager
def proxy(fleet: Fleet) -> Iterator[Proxy]:
    """A proxy between the fleet's broker and its agents."""
    made = Proxy()
    try:
        made.open()
        made.attach(fleet)
        yield made
    finally:
        fleet.close()
        made.close()
