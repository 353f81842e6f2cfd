"""Bad input and hostile peers, against a real broker: an error that names it, no crash, no growth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
from typing import Any

import msgpack
import pytest
import zmq

from tega_zmq import aio, errors
from tega_zmq.wire import encode
from tega_zmq.wire.messages import CODES, Hello
from tests.processes import Fleet, until


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"d": value}
    return value


BAD_PUTS: list[tuple[Any, Any, type[errors.TegaError]]] = [
    ("", {}, errors.InvalidPath),
    ("a..b", 1, errors.InvalidPath),
    ("_x", {}, errors.InvalidPath),
    ("a._x", 1, errors.InvalidPath),
    ("a", [1], errors.InvalidValue),
    ("a", "scalar", errors.InvalidValue),
    ("a.b", float("nan"), errors.InvalidValue),
    ("a.b", float("inf"), errors.InvalidValue),
    ("a.b", 2**64, errors.InvalidValue),
    ("a.b", -(2**63) - 1, errors.InvalidValue),
    ("a.b", nested(65), errors.InvalidValue),
    ("a.b", "x" * 1_100_000, errors.TooLarge),
    ("a.b", "\ud800", errors.InvalidValue),
    ("a.b", {"_y": 1}, errors.InvalidPath),
    ("a.b", {1: 1}, errors.InvalidPath),
    ("a.b", {"": 1}, errors.InvalidPath),
    ("a.b", {1, 2}, errors.InvalidValue),
]


@pytest.mark.parametrize(("path", "value", "error"), BAD_PUTS, ids=range(len(BAD_PUTS)))
def test_bad_values_are_named_and_change_nothing(
    fleet: Fleet, path: Any, value: Any, error: type[errors.TegaError]
) -> None:
    client = fleet.client("c")
    client.put("a", {"k": 1})
    with pytest.raises((error, errors.InvalidValue) if error is errors.InvalidPath else error) as raised:
        client.put(path, value)
    assert str(raised.value)
    assert client.get("a") == {"k": 1} and client.node("a").version == 0


def test_what_is_not_there_is_said(fleet: Fleet) -> None:
    client = fleet.client("c")
    client.put("a.b", nested(64))
    with pytest.raises(errors.NotFound) as not_found:
        client.get("a.b.x")
    assert not_found.value.path == "a.b.x"
    with pytest.raises(errors.NotFound):
        client.get("a", version=7)
    with pytest.raises(errors.NotFound):
        client.delete("a.nothing")
    transaction = client.begin()
    transaction.cancel()
    with pytest.raises(errors.TransactionExpired):
        transaction.put("a.b", 1)
    with pytest.raises(errors.Collision) as collision:
        client.put("a.b", 1, version=5)
    assert (collision.value.expected, collision.value.actual) == (5, 0)
    with pytest.raises(errors.InvalidValue):
        client.find("(a+)+$")


OP = ["put", ["a"], 1, None, False]
VALUES: list[Any] = [0, 1, -1, "a", "", b"x", None, [], {}, ["a"], 2**63, 1.5, [OP]]


def test_random_frames_on_every_port_crash_nothing(fleet: Fleet) -> None:
    rng = random.Random(7)
    client = fleet.client("c")
    client.put("a", {"k": 1})
    context = zmq.Context()
    requests = int(fleet.url.rsplit(":", 1)[1])

    def junk(size: int) -> bytes:
        return rng.randbytes(rng.randrange(size))

    def shaped() -> bytes:
        fields = [
            rng.choice(
                [0, 1, -1, "a", "", b"x", None, [], {}, ["a"], 2**63, 1.5, [["put", ["a"], 1, None, False]]]
            )
            for _ in range(rng.randrange(9))
        ]
        return msgpack.packb([rng.choice([*CODES, 99]), *fields])  # type: ignore[no-any-return]

    def attack(count: int) -> None:
        for port in (requests, fleet.changes_port):
            for _ in range(count // 10):
                with socket.create_connection(("127.0.0.1", port)) as raw:
                    raw.sendall(junk(2000))
            dealer = context.socket(zmq.DEALER)
            dealer.linger = 1000
            dealer.sndtimeo = 20_000
            dealer.connect(f"tcp://127.0.0.1:{port}")
            if port == requests:
                dealer.send(encode(Hello(1, f"fuzz{rng.randrange(3)}", "agent", "", "")))
            for _ in range(count if port == requests else count // 10):
                frames = [
                    junk(300) if rng.random() < 0.4 else shaped() for _ in range(rng.choice([1, 1, 1, 2, 3]))
                ]
                with contextlib.suppress(zmq.Again):  # a publisher does not talk to a DEALER
                    dealer.send_multipart(frames, 0 if port == requests else zmq.DONTWAIT)
            dealer.close()
        assert client.get("a") == {"k": 1}

    attack(1000)
    memory, descriptors = fleet.broker.memory(), fleet.broker.descriptors()
    for _ in range(5):
        attack(1000)
    until(lambda: fleet.broker.descriptors() <= descriptors + 4, "connections are let go")
    assert fleet.broker.memory() < memory + 20_000, "kilobytes"
    assert "Traceback" not in fleet.broker.log.read_text()
    assert "error of its own" not in fleet.broker.log.read_text()
    context.term()


def test_ten_thousand_calls_in_flight(fleet: Fleet) -> None:
    async def run() -> None:
        async with await aio.connect(fleet.url, "handler") as handler:
            gate = asyncio.Event()

            async def wait(n: int) -> int:
                await gate.wait()
                return n

            await handler.register("tools.wait", wait)
            async with await aio.connect(fleet.url, "caller") as caller:
                calls = [
                    asyncio.ensure_future(caller.call("tools.wait", n, timeout=120)) for n in range(10_000)
                ]
                while (await caller.inspect("status"))["calls"] < 10_000:
                    await asyncio.sleep(0.05)  # between two looks
                gate.set()
                assert await asyncio.gather(*calls) == list(range(10_000))

    asyncio.run(run())


def test_sessions_coming_and_going_leave_nothing(fleet: Fleet) -> None:
    def comings(count: int) -> None:
        for n in range(count):
            with fleet_client(fleet, f"c{n % 7}") as client:
                client.put(f"presence.c{n % 7}", n, ephemeral=True)
                client.register("tools.x", lambda: 1)

    from tega_zmq import connect

    def fleet_client(fleet: Fleet, name: str) -> Any:
        return connect(fleet.url, name)

    comings(50)
    memory, descriptors = fleet.broker.memory(), fleet.broker.descriptors()
    comings(200)
    until(lambda: fleet.broker.descriptors() <= descriptors + 2)
    assert fleet.broker.memory() < memory + 10_000, "kilobytes"
    watcher = fleet.client("watcher")
    assert until(lambda: watcher.inspect("ids") == ["watcher"])
    with pytest.raises(errors.NotFound):
        watcher.get("presence")


def start_refused(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a broker that must not start."""
    return subprocess.run(
        [sys.executable, "-m", "tega_broker.main", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **environment},
    )


def test_a_broker_that_cannot_start_says_why(fleet: Fleet) -> None:
    folder = fleet.folder
    listen = [f"--set=listen.requests={fleet.url}", "--set=listen.changes=tcp://127.0.0.1:1"]
    for arguments, words in (
        ([f"--set=data_dir={folder}/broker"], ["broker", "in use"]),
        ([f"--set=data_dir={folder}/other", *listen], ["in use", fleet.url]),
        ([f"--set=data_dir={folder}/broker.log/x"], ["broker.log/x"]),
        (["--set=sesion.lease=3"], ["sesion", "session"]),
        (["--set=listen.requests=tcp://0.0.0.0:1", f"--set=data_dir={folder}/o"], ["insecure"]),
    ):
        ended = start_refused(arguments)
        assert ended.returncode in (1, 2), ended
        assert "Traceback" not in ended.stderr
        for word in words:
            assert word in ended.stderr, (word, ended.stderr)


def test_a_message_of_very_many_frames_is_dropped_bit_by_bit(fleet: Fleet) -> None:
    client = fleet.client("c")
    client.put("a", {"k": 1})
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger, dealer.sndhwm = 0, 0
    dealer.connect(fleet.url)
    hello = encode(Hello(1, "many", "agent", "", ""))
    dealer.send_multipart([b"", hello])  # the last of a few frames counts
    assert dealer.poll(20_000)
    lost = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    for _ in range(100_000):
        dealer.send(b"x", zmq.SNDMORE)
    dealer.send(hello)
    assert lost.poll(20_000), "its connection is cut"
    assert client.get("a") == {"k": 1}
    assert fleet.broker.lines("too many frames") == 1
    dealer.disable_monitor()
    lost.close()
    dealer.close()
    context.term()


@pytest.mark.parametrize("topic", [b"", b"\x00", b"x" * 15, b"x" * 17])
def test_who_subscribes_to_what_is_no_topic_is_cut_off(fleet: Fleet, topic: bytes) -> None:
    """Above all to the empty one, which would hear every root."""
    context = zmq.Context()
    peer = context.socket(zmq.SUB)
    peer.linger, peer.reconnect_ivl = 0, 3_600_000
    lost = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    peer.connect(f"tcp://127.0.0.1:{fleet.changes_port}")
    peer.subscribe(topic)
    assert lost.poll(20_000), "its connection is cut"
    peer.disable_monitor()
    lost.close()
    peer.close()
    context.term()
    until(lambda: fleet.broker.lines("subscription to no topic") == 1)


def test_subscriptions_to_unknown_topics_are_bounded(fleet: Fleet) -> None:
    """Devices hear of changes all the same: of what they lack they hear from heartbeats."""
    client = fleet.client("c")
    devices = [fleet.agent(f"pi{n}", config="[shared]") for n in range(5)]  # four are told directly
    for device in devices:
        device.start()
    readers = [fleet.client(f"at{n}", at=f"pi{n}") for n in range(5)]
    client.put("shared.x", 0)
    until(lambda: all(reader.get("shared.x", None) == 0 for reader in readers))
    memory = fleet.broker.memory()
    context = zmq.Context()
    for _ in range(3):
        peer = context.socket(zmq.XSUB)
        peer.linger, peer.sndhwm, peer.reconnect_ivl = 0, 0, 3_600_000
        lost = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        peer.connect(f"tcp://127.0.0.1:{fleet.changes_port}")
        for _ in range(30_000):
            peer.send(b"\x01" + os.urandom(16))
        assert lost.poll(20_000), "its connection is cut"
        peer.disable_monitor()
        lost.close()
        peer.close()
    assert fleet.broker.lines("unknown topics") >= 1
    assert fleet.broker.memory() < memory + 150_000, "kilobytes"
    client.put("shared.x", 1)
    until(lambda: all(reader.get("shared.x") == 1 for reader in readers))
    context.term()


def test_a_subscription_that_is_too_long_is_cut_off(fleet: Fleet) -> None:
    client = fleet.client("c")
    memory = fleet.broker.memory()
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    with socket.create_connection(("127.0.0.1", fleet.changes_port), timeout=20) as raw:
        raw.sendall(greeting + bytes([4, len(ready)]) + ready)
        with contextlib.suppress(ConnectionError):  # it is cut before it has come
            raw.sendall(b"\x02" + (1 + (4 << 20)).to_bytes(8, "big") + b"\x01" + os.urandom(4 << 20))
            while raw.recv(1000):
                pass
    client.put("a", {"k": 1})
    assert fleet.broker.memory() < memory + 20_000, "kilobytes"
