"""A disk that is full: writes are refused with the reason, all else goes on, and nothing told is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tega_zmq import errors
from tega_zmq.client.blocking import Client
from tests.chaos.checks import measure, present, replicas_equal, where_they_were
from tests.chaos.machine import SmallDisk, small_disk
from tests.chaos.workload import Caller, Counter, Load, Sequence
from tests.processes import Fleet, until

SIZE = 8 << 20
"""Bytes of the filesystem."""

LOG = {"log.segment": str(256 << 10), "log.snapshot_after": str(64 << 20)}
"""Small segments, so that the next one is needed soon; no snapshots by itself."""


@pytest.fixture
def disk(fleet: Fleet) -> Iterator[SmallDisk]:
    with small_disk(fleet.folder / "small", SIZE) as made:
        yield made
        fleet.close()


def until_refused(client: Client, path: tuple[str, str], n: int) -> tuple[int, errors.StorageError]:
    """Count `path` up from `n` until a write is refused; return the last one acknowledged, and the error."""
    while True:
        try:
            client.put(path, {"n": n + 1, "pad": "x" * 2000})
        except errors.StorageError as error:
            return n, error
        n += 1
        assert n < 100_000, "never refused"


def refused(client: Client, path: tuple[str, str]) -> bool:
    with pytest.raises(errors.StorageError) as raised:
        client.put(path, 0)
    return "No space left" in str(raised.value) and raised.value.outcome == "none"


def test_the_brokers_disk_is_full(fleet: Fleet, disk: SmallDisk) -> None:
    broker = fleet.broker
    broker.folder, broker.settings["data_dir"] = disk.folder, str(disk.folder)
    broker.log = fleet.folder / "broker.log"
    broker.settings.update(LOG)
    broker.start()
    fleet.agent("pi1").start()
    noc, device = fleet.client("noc"), fleet.client("device", at="pi1")
    other = fleet.client("other")
    noc.put(("presence", "noc"), 1, ephemeral=True)
    states: list[str] = []
    noc.on_state(states.append)
    device.register("calls.pi1.echo", lambda value: value)
    noc.put("config-pi1.k", 1)
    until(lambda: device.get("config-pi1.k") == 1)
    load = Load([Caller(noc, "calls.pi1.echo"), Sequence(device, "ops-pi1")])
    before = measure(fleet)
    load.start()
    try:
        load.progress(50)
        disk.fill()
        last, error = until_refused(other, ("load", "n"), 0)
        assert error.reason == "No space left on device"
        assert "ENOSPC" in str(error) or "No space left" in str(error)
        # Reads, calls, messages and heartbeats go on, for longer than a lease.
        heard: list[object] = []
        device.listen("news", heard.append, scope="global")
        until(lambda: other.publish("news", 1) and heard)
        load.progress(200, lambda worker: isinstance(worker, Caller))
        load.progress(200, lambda worker: isinstance(worker, Sequence))
        assert other.get("load.n.n") == last and other.get("config-pi1.k") == 1
        assert refused(other, ("load", "n"))
        assert "No space left" in other.inspect("status")["log"]
        with pytest.raises(errors.StorageError):
            device.put("config-pi1.k", 2)  # through the agent, the same answer
        with pytest.raises(errors.StorageError, match="No space left"):
            other.manage("snapshot")
        assert refused(other, ("load", "n")), "the operator's attempt without room changed nothing"
        fresh = fleet.client("fresh")
        assert fresh.get("load.n.n") == last, "new sessions are served"
        fresh.close()
        disk.make_room()
        assert refused(other, ("load", "n")), "until an operator acts"
        other.manage("snapshot")
        other.put(("load", "n"), {"n": last + 1})
        device.put("config-pi1.k", 2)
        assert device.get("config-pi1.k") == 2
        load.progress(200)
    finally:
        load.stop()
    load.check()
    assert "lost" not in states, "no lease ended meanwhile"
    replicas_equal(noc, device, ["config-pi1"])
    replicas_equal(device, noc, ["ops-pi1"])
    present(noc, ["noc"])
    where_they_were(fleet, before)
    broker.kill()
    broker.start()
    until(lambda: other.get("load.n.n") == last + 1)
    load.check()


def test_a_broker_starts_on_a_full_disk(fleet: Fleet, disk: SmallDisk) -> None:
    broker = fleet.broker
    broker.folder, broker.settings["data_dir"] = disk.folder, str(disk.folder)
    broker.log = fleet.folder / "broker.log"
    broker.settings.update(LOG)
    broker.start()
    noc = fleet.client("noc")
    disk.fill()
    last, _ = until_refused(noc, ("load", "n"), 0)
    for stop in (broker.kill, broker.stop):
        stop()
        broker.start()
        until(lambda last=last: noc.get("load.n.n") == last, "served from what is durable")
        last, _ = until_refused(noc, ("load", "n"), last)
        assert noc.get("load.n.n") == last
    disk.make_room()
    noc.manage("snapshot")
    assert noc.put(("load", "n"), {"n": last + 1})
    broker.kill()
    broker.start()
    until(lambda: noc.get("load.n.n") == last + 1)


def test_a_snapshot_that_finds_no_room_is_not_tried_again_at_once(fleet: Fleet, disk: SmallDisk) -> None:
    broker = fleet.broker
    broker.folder, broker.settings["data_dir"] = disk.folder, str(disk.folder)
    broker.log = fleet.folder / "broker.log"
    broker.settings.update(LOG | {"log.segment": str(2 << 20), "log.snapshot_after": str(1 << 20)})
    broker.start()
    noc = fleet.client("noc")
    noc.put("load.n", "x" * (900 << 10))
    disk.fill()
    noc.put("load.n", "y" * (900 << 10))  # there is room for that in the segment
    until(lambda: "snapshot failed" in broker.log.read_text())
    for n in range(200):  # each one wakes the loop, which could begin another snapshot
        noc.put("load.m", n)
    assert broker.log.read_text().count("snapshot failed") == 1
    disk.make_room()
    noc.manage("snapshot")
    assert noc.get("load.m") == 199


@pytest.mark.parametrize("sync", ["interval", "always"])
def test_an_agents_disk_is_full(fleet: Fleet, disk: SmallDisk, sync: str) -> None:
    fleet.broker.start()
    agent = fleet.agent("pi1", sync=sync, **LOG)
    agent.settings["data_dir"] = str(disk.folder)
    agent.settings["listen.requests"] = fleet.socket("pi1")
    agent.folder.mkdir()
    agent.start()
    noc, device = fleet.client("noc"), fleet.client("device", at="pi1")
    device.register("calls.pi1.echo", lambda value: value)
    noc.put("config-pi1.k", 0)
    until(lambda: device.get("config-pi1.k") == 0)
    counter = Counter(noc, "config-pi1x")
    load = Load([Caller(noc, "calls.pi1.echo"), counter])
    before = measure(fleet)
    load.start()
    try:
        load.progress(50)
        disk.fill()
        last, error = until_refused(device, ("ops-pi1", "n"), 0)
        assert error.reason == "No space left on device"
        noc.put("config-pi1.k", 1)  # the replica cannot take it
        load.progress(200)
        assert device.get("ops-pi1.n.n") == last, "reads go on"
        assert refused(device, ("ops-pi1", "n"))
        with pytest.raises(errors.StorageError):
            noc.put("ops-pi1.n", 0)  # from the broker, the same answer
        assert noc.inspect("agents")[0]["state"] == "connected"
        disk.make_room()
        device.manage("snapshot")
        assert device.put(("ops-pi1", "n"), {"n": last + 1})
        until(lambda: device.get("config-pi1.k") == 1, "the replica catches up")
        until(lambda: noc.get("ops-pi1.n.n") == last + 1)
        disk.fill()
        last, _ = until_refused(device, ("ops-pi1", "n"), last + 1)
    finally:
        load.stop()
    agent.kill()
    agent.start()  # while the disk is still full
    until(lambda: device.get("ops-pi1.n.n") == last)
    noc.put("config-pi1.k", 2)
    disk.make_room()
    until(lambda: device.manage("snapshot"))
    until(lambda: device.get("config-pi1.k") == 2)
    until(lambda: device.put(("ops-pi1", "n"), {"n": last + 1}))
    load.check()
    replicas_equal(noc, device, ["config-pi1"])
    replicas_equal(device, noc, ["ops-pi1"])
    where_they_were(fleet, before)
