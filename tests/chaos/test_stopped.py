"""Programs that are frozen for longer than their lease, and then go on."""

from __future__ import annotations

import signal

import pytest

from tega_zmq import errors
from tests.chaos.checks import Doomed, Resources, connected, measure, present, replicas_equal, where_they_were
from tests.chaos.workload import Caller, Counter, Load, Sequence, Shared, Watcher
from tests.processes import Fleet, until


def test_a_frozen_program(fleet: Fleet) -> None:
    fleet.broker.start()
    fleet.agent("pi1", **{"session.lease": "2"}).start()
    noc = fleet.client("noc")
    noc.register("tools.echo", lambda value: value)
    for url in (fleet.url, fleet.socket("pi1")):
        frozen = Doomed(url, "frozen")
        try:
            before = measure(fleet)
            assert noc.call("tools.frozen") == 1
            frozen.process.send_signal(signal.SIGSTOP)
            present(noc, [], ["frozen"])
            with pytest.raises(errors.NoHandler):
                noc.call("tools.frozen")
            frozen.process.send_signal(signal.SIGCONT)
            present(noc, ["frozen"])
            until(lambda: noc.call("tools.frozen") == 1, "its handler is back")
            where_they_were(fleet, before)
        finally:
            frozen.kill()
        present(noc, [], ["frozen"])


@pytest.mark.parametrize("who", ["broker", "pi1"])
def test_a_frozen_node(fleet: Fleet, who: str) -> None:
    fleet.broker.start()
    fleet.agent("pi1", **{"session.lease": "2", "reconnect.max": "1"}).start()
    noc, device = fleet.client("noc"), fleet.client("device", at="pi1")
    other = fleet.client("other")
    clients = [noc, device, other]
    device.register("calls.pi1.echo", lambda value: value)
    for client in clients:
        client.put(("presence", client.tega_id), 1, ephemeral=True)
    load = Load(
        [
            Counter(noc, "config-pi1", 10.0),
            Counter(device, "other", 10.0),
            Sequence(device, "ops-pi1", 10.0),
            Shared(other, "shared", 10.0),
            Shared(device, "shared", 10.0),
            Caller(other, "calls.pi1.echo", 2.0),
        ]
    )
    watchers = [Watcher(device, "config-pi1"), Watcher(noc, "ops-pi1"), Watcher(noc, "shared")]
    program = fleet.broker if who == "broker" else fleet.agents["pi1"]
    before: dict[str, Resources] = {}
    load.start()
    try:
        for _ in range(2):  # the second time nothing is needed that was not needed before
            load.progress(200)
            program.pause()
            if who == "broker":
                until(lambda: noc.state == other.state == "lost", "its sessions take themselves for lost")
                load.progress(100, lambda worker: worker.name.startswith("sequence ops-pi1"))
            else:
                present(other, ["noc"], ["device"])
                load.progress(100, lambda worker: worker.name.startswith("counter config-pi1"))
                until(lambda: device.state == "lost", "its programs take themselves for lost")
            program.go_on()
            connected(clients)
            present(other, [client.tega_id for client in clients])
            load.progress(200)
            before = before or measure(fleet)
    finally:
        program.go_on()
        load.stop()
    load.check()
    for watcher in watchers:
        until(lambda watcher=watcher: watcher.check() or True, f"subscriber of {watcher.root}")
    replicas_equal(noc, device, ["config-pi1"])
    replicas_equal(device, noc, ["ops-pi1"])
    present(noc, [client.tega_id for client in clients])
    until(lambda: noc.call("calls.pi1.echo", 0) == 0, "its handler is back")
    where_they_were(fleet, before)
