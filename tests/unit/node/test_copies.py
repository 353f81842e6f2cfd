"""A data folder is put back from a copy: its owner has lost commits that replicas know."""

from __future__ import annotations

import pytest

from tega_zmq.node import Settings
from tega_zmq.store import NewEpochs, Record
from tega_zmq.wire import messages as m
from tests.unit.node.fleet import Client, Fleet, Station


class Site:
    """A broker, the agents pi1 and pi2, and below pi2 one more; pi2 and the one below follow all there is."""

    def __init__(self, direct: int = 0) -> None:
        top = Settings("gateway", lease=10.0, heartbeat=2.0, changes=":1", direct_followers=direct)
        self.fleet = Fleet(top)
        self.broker = self.fleet.broker
        self.pi1 = self.fleet.agent("pi1", ("config-pi1",), ("ops-pi1",))
        self.pi2 = self.fleet.agent("pi2", ("config-pi1", "ops-pi1"), ("ops-pi2",))
        self.leaf = self.fleet.agent("leaf", ("config-pi1", "ops-pi1"), ("ops-leaf",), self.pi2)
        self.noc = self.fleet.client("noc")
        self.local = self.fleet.client("local", self.pi1)
        self.far = self.fleet.client("far", self.leaf)
        self.fleet.wait(5)

    def same(self, root: str) -> object:
        """What all show of a root; they must be at one position with one tree."""
        stations = [self.broker, self.pi2, self.leaf]
        if root.endswith("pi1"):
            stations.append(self.pi1)
        found = {station.name: (station.position(root), station.tree(root)) for station in stations}
        assert all(each == found["gateway"] for each in found.values()), found
        return self.broker.tree(root)

    def put(self, client: Client, root: str, key: str, times: int) -> None:
        """Make `times` commits to `root`."""
        for n in range(times):
            client.put(f"{root}.{key}", n)

    def restored(self, *copies: tuple[Station, list[Record]]) -> None:
        """The programs are stopped, their folders put back, and started again."""
        for station, _ in copies:
            station.kill()
        for station, disk in copies:
            station.start_from(disk)
        self.fleet.wait(3)


def began(site: Site, station: Station) -> int:
    """How often a node began a new epoch."""
    return sum(type(record) is NewEpochs for record in station.disk)


@pytest.mark.parametrize("direct", [0, 4])
@pytest.mark.parametrize("root", ["ops-pi1", "config-pi1"])
def test_an_owner_whose_folder_was_put_back_begins_a_new_epoch(root: str, direct: int) -> None:
    site = Site(direct)
    owner, client = (site.pi1, site.local) if root == "ops-pi1" else (site.broker, site.noc)
    site.put(client, root, "n", 5)
    copy = owner.disk
    epoch, _ = owner.position(root)
    site.put(client, root, "extra", 5)
    assert site.same(root) == {"n": 4, "extra": 4}
    site.restored((owner, copy))
    site.fleet.wait(10)
    assert site.same(root) == {"n": 4}
    assert owner.position(root)[0] != epoch and owner.position(root)[1] == 4
    for other in (site.noc, site.local, site.far):
        other.put(f"{root}.{other.name}", 1)
    site.put(client, root, "more", 4)
    site.fleet.wait(10)
    assert site.same(root) == {"n": 4, "noc": 1, "local": 1, "far": 1, "more": 3}
    assert began(site, owner) == 1
    assert [note["replica"] for note in owner.noted(NOTE)] == [9]


NOTE = "a replica is ahead: root goes on under a new epoch, as after a loss"


def test_the_broker_hears_of_it_at_once_and_not_with_a_heartbeat() -> None:
    site = Site()
    site.put(site.noc, "config-pi1", "n", 5)
    copy = site.broker.disk
    site.put(site.noc, "config-pi1", "extra", 5)
    site.broker.kill()
    site.broker.start_from(copy)
    at = site.fleet.now
    while site.fleet.now < at + 10 and not site.broker.noted(NOTE):
        site.fleet.wait(0.1)
    connected = [each.lab.node.online for each in (site.pi1, site.pi2)]
    assert any(connected)
    for each in (site.pi1, site.pi2):
        assert each.lab.node.heartbeat_due > site.fleet.now + 1.5 or not each.lab.node.online


def test_a_leaf_and_its_site_are_put_back_and_the_broker_is_ahead() -> None:
    site = Site()
    site.put(site.far, "ops-leaf", "n", 3)
    copies = [(each, each.disk) for each in (site.leaf, site.pi2)]
    site.put(site.far, "ops-leaf", "extra", 3)
    site.fleet.wait(1)
    site.restored(*copies)
    site.fleet.wait(20)
    site.put(site.far, "ops-leaf", "more", 2)
    site.fleet.wait(5)
    assert site.same("ops-leaf") == {"n": 2, "more": 1}


def test_the_broker_and_a_site_are_put_back_and_a_leaf_is_ahead() -> None:
    site = Site()
    site.fleet.cut(site.pi1)
    site.put(site.noc, "config-pi1", "n", 3)
    copies = [(each, each.disk) for each in (site.broker, site.pi2)]
    site.put(site.noc, "config-pi1", "extra", 3)
    site.fleet.wait(1)
    site.restored(*copies)
    site.fleet.wait(20)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    site.put(site.noc, "config-pi1", "more", 2)
    site.fleet.wait(5)
    assert site.same("config-pi1") == {"n": 2, "more": 1}


def test_who_only_claims_to_be_ahead_costs_one_new_epoch_and_no_versions() -> None:
    site = Site()
    site.put(site.noc, "config-pi1", "n", 3)
    liar = site.broker.lab.join("liar", "agent")
    liar.ask(m.Follow, "config-pi1", False)
    for _ in range(5):
        epoch, version = site.broker.position("config-pi1")
        liar.tell(m.Heartbeat((("config-pi1", epoch, 1 << 60),)))
        liar.tell(m.Pull("config-pi1", epoch, 1 << 60, 0))
        site.broker.settle()
        site.fleet.wait(3)
        site.noc.put("config-pi1.m", version)
    assert began(site, site.broker) == 1
    assert site.broker.position("config-pi1")[1] == 2 + 5
    other = site.broker.lab.join("other")
    epoch, version = site.broker.position("config-pi1")
    site.noc.put("shared.n", 1)
    other.tell(m.Heartbeat((("shared", site.broker.position("shared")[0], 9),)))
    other.tell(m.Pull("shared", site.broker.position("shared")[0], 9, 0))
    assert began(site, site.broker) == 1, "who follows nothing is not heard"


def test_a_new_epoch_that_the_log_lost_is_begun_again() -> None:
    site = Site()
    site.put(site.noc, "config-pi1", "n", 3)
    copy = site.broker.disk
    site.put(site.noc, "config-pi1", "extra", 3)
    site.broker.kill()
    site.broker.start_from(copy)
    site.broker.slow()
    while not site.broker.noted(NOTE):
        site.fleet.wait(0.5)
    site.broker.fail()
    site.fleet.wait(5)
    assert began(site, site.broker) == 0
    site.broker.mend()
    for _ in range(6):
        site.fleet.wait(2)
        site.broker.sync()
    assert began(site, site.broker) == 1
    site.broker.lab.auto = True
    site.put(site.noc, "config-pi1", "more", 3)
    site.fleet.wait(5)
    assert site.same("config-pi1") == {"n": 2, "more": 2}


def test_a_subscriber_at_the_owner_is_told_what_comes_after_a_new_epoch() -> None:
    site = Site()
    site.put(site.noc, "config-pi1", "n", 3)
    site.noc.subscribe("config-pi1")
    copy = site.broker.disk
    site.put(site.noc, "config-pi1", "extra", 3)
    site.restored((site.broker, copy))
    site.fleet.wait(10)
    site.put(site.noc, "config-pi1", "n", 3)
    site.fleet.wait(5)
    assert site.noc.heard[-1].new in (2, {"n": 2})
