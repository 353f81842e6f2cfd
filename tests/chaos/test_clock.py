"""A wall clock that is stepped, forwards and back: leases, versions and deadlines do not notice."""

from __future__ import annotations

import time

from tega_zmq.client.blocking import Client
from tests.chaos.checks import connected, measure, present, replicas_equal, where_they_were
from tests.chaos.machine import Clock
from tests.chaos.workload import Caller, Counter, Load, Sequence, Shared, Watcher
from tests.processes import Fleet, until

HOUR, YEAR = 3600, 365 * 86400

STEPS = (HOUR, -YEAR, 10 * YEAR, 0)
"""Seconds that the clock is off, one after the other."""


def shown(client: Client, offset: int) -> bool:
    """Whether a commit of the client's node bears the time of a clock that is `offset` seconds off."""
    root = "ops-pi1-marks" if client.tega_id == "device" else "marks"
    before = client.get((root, "n"), 0)
    done = client.put((root, "n"), before + 1)
    entry = client.log(root, 1)[0]
    assert done.version == entry.version == before, "a step made versions anew"
    return abs(entry.time - (time.time() + offset)) < 60


def test_a_stepped_clock(fleet: Fleet) -> None:
    clock = Clock(fleet.folder)
    fleet.agent("pi1", operational="[ops-pi1, ops-pi1-marks]", **{"session.lease": "2"})
    for program in (fleet.broker, fleet.agents["pi1"]):
        program.environment = clock.environment
        program.settings["history.updates"] = "200"  # soon as long as it gets
        program.start()
    noc, device = fleet.client("noc"), fleet.client("device", at="pi1")
    clients = [noc, device]
    states: list[str] = []
    for client in clients:
        client.on_state(states.append)
        client.put(("presence", client.tega_id), 1, ephemeral=True)
    flaps: list[object] = []
    noc.subscribe("presence", flaps.append)
    device.register("calls.pi1.echo", lambda value: value)
    load = Load(
        [
            Counter(noc, "config-pi1"),
            Sequence(device, "ops-pi1"),
            Shared(noc, "shared"),
            Shared(device, "shared"),
            Caller(noc, "calls.pi1.echo"),
        ]
    )
    watchers = [Watcher(device, "config-pi1"), Watcher(noc, "ops-pi1"), Watcher(noc, "shared")]
    load.start()
    try:
        load.progress(1500)
        before = measure(fleet)
        for offset in STEPS:
            clock.step(offset)
            load.progress(100)
            # Leases go by the monotonic clock. A silent connection is taken for lost after 1.2 s.
            passed = time.monotonic() + 1.3
            until(lambda passed=passed: time.monotonic() > passed, "more than three heartbeats have passed")
            until(
                lambda offset=offset: shown(noc, offset) and shown(device, offset), "both clocks are stepped"
            )
    finally:
        load.stop()
    assert states == [] and flaps == [], "nobody was taken for gone"
    load.check()
    for watcher in watchers:
        until(lambda watcher=watcher: watcher.check() or True, f"subscriber of {watcher.root}")
    replicas_equal(noc, device, ["config-pi1"])
    replicas_equal(device, noc, ["ops-pi1"])
    present(noc, ["noc", "device"])
    where_they_were(fleet, before)
    # Restarts with the clock set back, at last to that of a device without a battery, go on with the versions
    # and sessions that there were.
    for offset in (-YEAR, -3 * YEAR, -56 * YEAR):
        clock.step(offset)
        for program in (fleet.broker, fleet.agents["pi1"]):
            program.kill()
            program.start()
        connected(clients)
        load.start()
        try:
            load.progress(200)
        finally:
            load.stop()
        load.check()
        replicas_equal(noc, device, ["config-pi1"])
        replicas_equal(device, noc, ["ops-pi1"])
        present(noc, ["noc", "device"])
