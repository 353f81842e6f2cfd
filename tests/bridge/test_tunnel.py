"""The tunnel between a client, a bridge and a broker that are real: a session's promises, and limits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as web_socket

from tega_zmq import aio, connect, errors
from tega_zmq.client.blocking import Client
from tega_zmq.wire import decode, encode, messages, unbundle
from tests.bridgekit import Site, site
from tests.processes import Fleet, free_ports, until
from tests.proxykit import cutter


def tunnel(bridge: Site) -> str:
    return bridge.url.replace("http", "ws")


def foreign(bridge: str, **options: Any) -> ClientConnection:
    """The WebSocket of a client that is not ours."""
    return web_socket(f"{bridge}/_tunnel", proxy=None, compression=None, max_size=None, **options)


def hello(socket: ClientConnection, tega_id: str) -> messages.Welcome:
    socket.send(encode(messages.Hello(1, tega_id, "client", "", "")))
    welcome = decode(next(iter(unbundle(bytes(socket.recv(10, decode=False))))))
    assert isinstance(welcome, messages.Welcome)
    return welcome


@pytest.fixture
def client(bridge: Site) -> Iterator[Client]:
    """A client of the shared bridge, through a tunnel."""
    with connect(tunnel(bridge), "pi1") as made:
        yield made


def test_a_session(bridge: Site, client: Client, root: str) -> None:
    noc = bridge.client("noc")
    heard: list[Any] = []
    client.subscribe(root, heard.append)
    assert client.put(f"{root}.mtu", 1500).version == 0
    noc.put(f"{root}.mtu", 9000)
    until(lambda: [each.new for each in heard] == [{"mtu": 1500}, 9000])
    with pytest.raises(errors.Collision):
        client.put(f"{root}.mtu", 1, version=0)
    client.register(f"{root}.add", lambda a, b: a + b)
    assert noc.call(f"{root}.add", 1, b=2) == 3
    noc.register(f"{root}.mul", lambda a, b: a * b)
    assert client.call(f"{root}.mul", 2, 3) == 6
    spoken: list[Any] = []
    client.listen("alerts", spoken.append)
    noc.publish("alerts", {"level": 3})
    until(lambda: [each.value for each in spoken] == [{"level": 3}])
    client.put(f"presence-{root}.x", 1, ephemeral=True)
    assert [each["kind"] for each in noc.inspect("sessions") if each["tega_id"] == "pi1"] == ["client"]
    client.close()
    until(lambda: noc.get(f"presence-{root}.x", default=None) is None)


def test_a_tunnel_is_counted_while_it_stands_and_after(bridge: Site, root: str) -> None:
    totals = bridge.serving.bridge.totals

    def frames() -> tuple[int, int]:
        return totals["tunnel_frames_up"][1](), totals["tunnel_frames_down"][1]()

    before = frames()
    with connect(tunnel(bridge), "counted") as client:
        client.put(f"{root}.a", 1)
        during = frames()
        assert all(now > then for now, then in zip(during, before, strict=True))
    until(lambda: bridge.serving.bridge.gauges["tunnels"][1]() == 0)
    assert all(now >= then for now, then in zip(frames(), during, strict=True))
    assert "tega_bridge_tunnel_frames_up_total " in bridge.ask("GET", "/_metrics").body.decode()


def test_a_tunnel_by_the_bridges_own_name_stops_it_for_a_moment_only(bridge: Site, root: str) -> None:
    with connect(tunnel(bridge), "the-bridge") as thief, connect(tunnel(bridge), "other") as other:
        until(lambda: thief.state == "taken over")
        until(lambda: bridge.ask("PUT", f"/{root}/a", 1).status == 200)
        assert other.get(f"{root}.a") == 1, "the other tunnels stand"


def test_large_values_go_through(bridge: Site, client: Client, root: str) -> None:
    value = {f"k{n}": "x" * 1000 for n in range(900)}
    client.put(root, value, timeout=30)
    assert client.get(root, timeout=30) == value
    assert client.put(f"{root}.more", "y" * 1_000_000, timeout=30).version == 1


def test_many_at_once(bridge: Site, root: str) -> None:
    async def story() -> None:
        async with aio.connect(tunnel(bridge), "pi2") as tega:
            await asyncio.gather(*(tega.put(f"{root}.k{n}", n) for n in range(500)))
            assert await tega.get(root) == {f"k{n}": n for n in range(500)}

    asyncio.run(story())


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Site]:
    """A broker with a lease that a busy machine does not exceed, and its bridge."""
    made = Site(tmp_path)
    made.broker.settings["session.lease"] = "30"
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_the_session_outlives_a_cut(patient: Site, root: str) -> None:
    bridge = patient
    with cutter(bridge.address) as (link, port), connect(f"ws://127.0.0.1:{port}", "pi3") as client:
        noc = bridge.client("noc")
        states: list[str] = []
        client.on_state(states.append)
        client.put(f"presence-{root}.x", 1, ephemeral=True)
        # The root is there before: of one that comes into being during a cut only the present is told.
        noc.put(f"{root}.n", 0)
        heard: list[int] = []
        client.subscribe(f"{root}.n", lambda change: heard.append(change.new))
        flaps: list[Any] = []
        noc.subscribe(f"presence-{root}", flaps.append)
        for number in range(1, 6):
            seen = states.count("suspended")
            link.cut()
            until(lambda seen=seen: states.count("suspended") > seen)
            noc.put(f"{root}.n", number)
            until(lambda: client.state == "connected")
            assert client.put(f"{root}.own", number).revision
        until(lambda: len(heard) >= 5, f"all changes: {heard}")
        assert heard == list(range(1, 6))
        assert set(states) <= {"suspended", "connected"}
        assert flaps == []
        assert noc.get(f"presence-{root}.x") == 1


def test_the_broker_sees_at_once_that_a_tunnel_is_lost(bridge: Site, root: str) -> None:
    """A call to a handler behind a tunnel that breaks ends with `HandlerGone` long before the lease does."""
    noc = bridge.client("noc")
    began, go_on = threading.Event(), threading.Event()

    def handler() -> None:
        began.set()
        go_on.wait(20)

    with cutter(bridge.address) as (link, port):
        client = connect(f"ws://127.0.0.1:{port}", "pi4")
        try:
            client.register(f"{root}.x", handler)

            def cut() -> None:
                began.wait(20)
                link.close_for_good()

            thread = threading.Thread(target=cut)
            thread.start()
            with pytest.raises(errors.HandlerGone):
                noc.call(f"{root}.x", timeout=15)
            thread.join()
        finally:
            go_on.set()
            client.close()


def test_what_is_refused(bridge: Site) -> None:
    answer = bridge.ask("GET", "/_tunnel")
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
    with pytest.raises(errors.Disconnected, match="within"):
        connect(f"ws://127.0.0.1:{free_ports(1)[0]}", timeout=0.5)
    with foreign(tunnel(bridge)) as socket:
        socket.send("text")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1003


def test_too_large_a_message_ends_the_tunnel_alone(bridge: Site, client: Client) -> None:
    with foreign(tunnel(bridge)) as socket:
        hello(socket, "large")
        with pytest.raises(ConnectionClosed) as closed:
            socket.send(b"x" * (8 * 1024 * 1024 + 1))
            socket.recv(10)
        # The reason may be lost with what was still being sent.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    assert client.roots() is not None


def test_garbage_is_answered_by_the_broker(bridge: Site) -> None:
    with foreign(tunnel(bridge)) as socket:
        socket.send(b"\xff\xff")
        answer = decode(bytes(socket.recv(10, decode=False)))
        assert isinstance(answer, (messages.Refused, messages.Gone)), answer


def test_it_is_pinged_and_given_up_when_it_says_nothing(tmp_path: Path) -> None:
    with site(tmp_path, ping="0.1") as bridge:
        noc = bridge.client("noc")
        with connect(tunnel(bridge), "lively") as client, bridge.socket() as dead:
            dead.sendall(
                b"GET /_tunnel HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            got = b""
            try:
                while data := dead.recv(4096):
                    got += data
            except ConnectionResetError:
                pass
            assert got.startswith(b"HTTP/1.1 101") and got.count(b"\x89\x00") >= 2, "it was pinged"
            assert client.state == "connected" and noc.state == "connected"
            assert client.put("a.b", 1).version == 0


def test_an_orderly_stop_says_why(tmp_path: Path) -> None:
    with site(tmp_path) as bridge, foreign(tunnel(bridge)) as socket:
        hello(socket, "pi1")
        bridge.run(bridge.serving.bridge.stop("the bridge is stopping"))
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(10)
        rcvd = closed.value.rcvd
        assert rcvd is not None and (rcvd.code, rcvd.reason) == (1001, "the bridge is stopping")


def test_the_broker_goes_and_comes(tmp_path: Path) -> None:
    with site(tmp_path) as bridge, connect(tunnel(bridge), "pi1") as client:
        client.put("presence.x", 1, ephemeral=True)
        bridge.broker.kill()
        until(lambda: client.state == "suspended")
        bridge.broker.start()
        until(lambda: client.state == "connected")
        assert client.get("presence.x") == 1


def test_a_tunnel_that_does_not_read_harms_nobody(tmp_path: Path) -> None:
    """What the bridge keeps for it is bounded, others are served meanwhile, and it is given up."""
    fleet = Fleet(tmp_path)
    (port,) = free_ports(1)
    url = f"ws://127.0.0.1:{port}"
    fleet.broker.settings["bridge.enabled"] = "false"
    fleet.broker.start()
    bridge = fleet.agent("bridge")
    bridge.module = "tega_broker.bridge"
    bridge.settings = {"broker": fleet.url, "listen": f"http://127.0.0.1:{port}", "limits.slow": "1"}
    bridge.start()
    try:
        noc = fleet.client("noc")
        with connect(url, "lively") as lively, ExitStack() as stack:
            lost = [stack.enter_context(foreign(url, max_queue=1)) for _ in range(5)]
            for number, socket in enumerate(lost):
                hello(socket, f"slow{number}")
                socket.send(encode(messages.Subscribe(1, 1, 10_000, 1, ("big", "x"), "local", ())))
            before = bridge.memory()
            heard: list[Any] = []
            lively.subscribe("big.x", lambda change: heard.append(change.version))
            # 5 x 32 MB that nobody reads
            worst = 0.0
            for number in range(80):
                noc.put("big.x", f"{number}" + "x" * 400_000, timeout=20)
                at = time.monotonic()
                assert lively.get("small.x", default=1) == 1
                worst = max(worst, time.monotonic() - at)
            until(lambda: heard and heard[-1] == 79)
            after = bridge.memory()
            assert after - before < 100_000, f"the bridge grew from {before} to {after} kB"
            assert worst < 5, "others wait no longer than for a large value"

            def given_up() -> bool:
                there = {each["tega_id"] for each in noc.inspect("sessions") if each["state"] == "connected"}
                return not any(name.startswith("slow") for name in there)

            until(given_up)
            for socket in lost:
                socket.close_socket()
    finally:
        fleet.close()
