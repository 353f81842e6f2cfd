"""A device behind a link that is cut, one-way, lossy, slow, flapping, or behind NAT."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tega_zmq.client.blocking import Client
from tests.chaos.checks import connected, measure, present, replicas_equal, where_they_were
from tests.chaos.links import Proxy, Wire, proxy, wire
from tests.chaos.workload import Caller, Counter, Load, Sequence, Shared, Watcher
from tests.processes import Fleet, until

GREETINGS = ("session resumed tega_id=pi1", "session opened tega_id=pi1")
"""It resumes when it is back within its lease; on a busy machine it may be later, and open another."""


def _greeted(fleet: Fleet) -> int:
    return sum(fleet.broker.lines(line) for line in GREETINGS)


class Site:
    """A broker and a device with a load on both, joined by `link`."""

    def __init__(self, fleet: Fleet, link: Wire | Proxy) -> None:
        self.fleet = fleet
        self.link = link
        fleet.broker.start()
        fleet.agents["pi1"].start()
        self.noc = fleet.client("noc")
        self.device = fleet.client("device", at="pi1")
        self.device.register("calls.pi1.echo", lambda value: value)
        self.device.put(("presence", "device"), 1, ephemeral=True)
        patience = 10.0
        self.load = Load(
            [
                Counter(self.noc, "config-pi1", patience),
                Counter(self.device, "other", patience),
                Counter(self.device, "ops-pi1", patience),
                Sequence(self.noc, "cmd-pi1", patience),
                Shared(self.noc, "shared", patience),
                Shared(self.device, "shared", patience),
                Caller(self.noc, "calls.pi1.echo", 2.0),
            ]
        )
        self.watchers = [Watcher(self.device, "config-pi1"), Watcher(self.noc, "ops-pi1")]

    def go_on(self, count: int) -> None:
        """Wait until each worker has done `count` more things."""
        for worker in self.load.workers:
            self.load.progress(count, lambda each, worker=worker: each is worker)

    def story(
        self, begin: Callable[[], None], end: Callable[[], None], struck: Callable[[], bool], offline: bool
    ) -> None:
        """Load before, in, and after the fault from `begin` to `end`; then everything is as it should be.

        `struck`: whether the fault was felt.
        """
        connected([self.noc, self.device])
        self.load.start()
        try:
            self.go_on(5)
            before = measure(self.fleet)
            begin()
            if offline:
                self.offline()
            else:
                self.go_on(5)
            until(struck, "the fault has struck")
            end()
            until(self.online, "both see each other again")
            self.go_on(5)
        finally:
            self.load.stop()
        self.load.check()
        for watcher in self.watchers:
            until(lambda watcher=watcher: watcher.check() or True, f"subscriber of {watcher.root}")
        replicas_equal(self.noc, self.device, ["config-pi1"])
        replicas_equal(self.device, self.noc, ["ops-pi1", "cmd-pi1"])
        present(self.noc, ["device"])
        where_they_were(self.fleet, before)

    def offline(self) -> None:
        """Both notice within the lease, which runs out; each goes on with its own."""
        until(lambda: uplink(self.device) != "connected", "the device notices")
        present(self.noc, [], ["device"])
        assert self.noc.inspect("agents")[0]["state"] == "away"
        for mine in ("ops-pi1", "config-pi1"):
            self.load.progress(20, lambda each, mine=mine: each.name.startswith(f"counter {mine}"))

    def online(self) -> bool:
        """Whether both see each other."""
        return uplink(self.device) == "connected" and self.noc.inspect("agents")[0]["state"] == "connected"


def uplink(device: Client) -> str:
    return str(device.inspect("status")["uplink"]["state"])


def add_agent(fleet: Fleet) -> None:
    fleet.agent(
        "pi1",
        operational="[ops-pi1, cmd-pi1]",
        **{"session.lease": "2", "reconnect.max": "0.5"},
    )


@pytest.mark.parametrize("fault", Wire.faults)
def test_hosts_on_a_bad_wire(fleet: Fleet, fault: str) -> None:
    add_agent(fleet)
    with wire(fleet) as link:
        Site(fleet, link).story(
            lambda: link.fault(fault), link.restore, lambda: link.hits() > 10, offline=fault != "lossy"
        )


def test_a_device_behind_nat_whose_router_gets_another_address(fleet: Fleet) -> None:
    add_agent(fleet)
    with wire(fleet, nat=True) as link:
        site = Site(fleet, link)
        site.story(lambda: link.fault("cut"), link.restore, lambda: link.hits() > 10, offline=True)
        before = _greeted(fleet)
        site.story(link.renumber, lambda: None, lambda: _greeted(fleet) > before, offline=False)


@pytest.mark.parametrize("fault", Proxy.faults)
def test_a_bad_proxy(fleet: Fleet, fault: str) -> None:
    add_agent(fleet)
    with proxy(fleet) as link:
        offline = fault in ("cut", "up lost", "down lost")
        Site(fleet, link).story(
            lambda: link.fault(fault),
            link.restore,
            lambda: link.hits() > (0 if offline else 5),
            offline=offline,
        )
