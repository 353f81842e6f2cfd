"""An owner comes back with a store that lacks what replicas know: from a copy of its folder, or empty."""

from __future__ import annotations

import pytest

from tega_zmq.node import Settings
from tega_zmq.store import ABSENT, Kept, NewEpochs, Record, Tagged, WentOn
from tega_zmq.wire import messages as m
from tests.unit.node.fleet import Client, Fleet, Station


class Site:
    """A broker, the agents pi1 and pi2, and below pi2 one more; pi2 and the one below follow all there is."""

    def __init__(self, direct: int = 0, kept: Kept | None = None) -> None:
        top = Settings("gateway", lease=10.0, heartbeat=2.0, changes=":1", direct_followers=direct)
        self.fleet = Fleet(top, kept)
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


# -- an empty store --------------------------------------------------------------------------------


def old_value(client: Client, root: str, version: int) -> object:
    """Read an old version."""
    return client.ask(m.Get, (root,), version, "value", "")[0]


def clients_of(site: Site, root: str) -> tuple[Station, Client]:
    """The owner of the root, and a client of it."""
    return (site.pi1, site.local) if root == "ops-pi1" else (site.leaf, site.far)


@pytest.mark.parametrize("root", ["ops-pi1", "ops-leaf"])
@pytest.mark.parametrize("how", ["plain", "unclean", "twice", "clean after", "many", "more than before"])
def test_a_wiped_card_goes_on_whatever_happened_before_its_first_contact(root: str, how: str) -> None:
    site = Site(kept=Kept(versions=100, updates=100))
    owner, client = clients_of(site, root)
    site.put(client, root, "n", 30)
    epoch, version = site.broker.position(root)
    assert version == 29
    owner.kill()
    site.fleet.cut(owner)
    owner.start(wiped=True)
    site.fleet.wait(1)
    again = site.fleet.client("again", owner)
    site.fleet.wait(1)
    commits = {"many": 120, "more than before": 50}.get(how, 3)
    for n in range(commits):
        again.put(f"{root}.m", n)
    if how != "plain":
        for _ in range(2 if how == "twice" else 1):
            owner.kill()
            owner.start(unclean=True)
    if how == "clean after":
        owner.kill()
        owner.start()
    site.fleet.restore(owner)
    site.fleet.wait(20)
    assert site.same(root) == {"m": commits - 1}
    assert site.broker.position(root)[1] == version + 1
    assert site.broker.position(root)[0] != epoch
    assert old_value(site.noc, root, 20) == {"n": 20}
    assert [entry[0] for entry in site.noc.ask(m.Log, (root,), 3)] == [30, 29, 28]
    site.noc.put(f"{root}.w", 1)
    assert again.get(root) == {"m": commits - 1, "w": 1}


def test_a_power_cut_leaves_the_history_and_the_tags_of_an_agent() -> None:
    site = Site(kept=Kept(versions=100, updates=100))
    site.put(site.local, "ops-pi1", "n", 30)
    site.local.ask(m.Tag, "ops-pi1", 28, "good")
    for commits in (1, 150):
        site.fleet.cut(site.pi1)
        for starts in range(3):
            site.pi1.kill()
            site.pi1.start(unclean=starts != 1)
        again = site.fleet.client(f"again{commits}", site.pi1)
        site.fleet.wait(1)
        site.put(again, "ops-pi1", "m", commits)
        site.fleet.restore(site.pi1)
        site.fleet.wait(20)
        assert site.same("ops-pi1") == {"n": 29, "m": commits - 1}
    assert site.pi1.position("ops-pi1")[1] == 29 + 150
    assert not [record for record in site.pi1.disk if type(record) is WentOn]
    assert again.ask(m.Inspect, "tags") == [{"root": "ops-pi1", "tag": "good", "version": 28}]
    assert [type(record) for record in site.pi1.disk].count(Tagged) == 1


def test_what_was_lost_with_the_link_goes_on_again() -> None:
    site = Site()
    site.put(site.local, "ops-pi1", "n", 10)
    site.pi1.kill()
    site.pi1.start(wiped=True)
    again = site.fleet.client("again", site.pi1)
    site.fleet.cut(site.pi1)
    site.fleet.wait(1)
    site.put(again, "ops-pi1", "m", 2)
    site.fleet.restore(site.pi1)
    while not site.pi1.noted("root goes on from the replica's version"):
        site.fleet.pass_time(site.fleet.now + 1)
        for happen in site.fleet.ready()[:1]:
            happen()
    site.fleet.cut(site.pi1)
    assert site.broker.position("ops-pi1")[1] == 9, "it has not heard of it"
    site.put(again, "ops-pi1", "m", 5)
    site.pi1.kill()
    site.pi1.start(unclean=True)
    site.fleet.wait(1)
    site.fleet.restore(site.pi1)
    site.fleet.wait(10)
    assert site.same("ops-pi1") == {"m": 4}
    assert site.broker.position("ops-pi1")[1] == 10
    assert old_value(site.noc, "ops-pi1", 7) == {"n": 7}


def test_a_root_that_was_disowned_goes_on_when_its_agent_returns() -> None:
    site = Site()
    site.put(site.local, "ops-pi1", "n", 10)
    site.pi1.kill()
    site.pi1.start(unclean=True)
    site.fleet.wait(10)
    site.pi1.kill()
    site.fleet.wait(15)
    site.noc.ask(m.Manage, "disown", "ops-pi1")
    site.put(site.noc, "ops-pi1", "n", 5)
    site.noc.delete("ops-pi1")
    version = site.broker.position("ops-pi1")[1]
    site.pi1.start(unclean=True)
    site.fleet.wait(40)
    assert site.same("ops-pi1") == {"n": 9}
    assert site.broker.position("ops-pi1")[1] == version + 1
    assert old_value(site.noc, "ops-pi1", version - 1) == {"n": 4}


@pytest.mark.parametrize("commits", [0, 3, 20])
def test_a_copy_from_before_a_power_cut_uses_no_epoch_again(commits: int) -> None:
    site = Site()
    site.put(site.local, "ops-pi1", "n", 5)
    copy = site.pi1.disk
    epoch = site.pi1.position("ops-pi1")[0]
    site.put(site.local, "ops-pi1", "extra", 5)
    site.pi1.kill()
    site.pi1.start(unclean=True)
    site.fleet.wait(5)
    site.put(site.fleet.client("second", site.pi1), "ops-pi1", "extra", 3)
    assert site.broker.position("ops-pi1")[0] != epoch
    site.fleet.cut(site.pi1)
    site.pi1.kill()
    site.pi1.start_from(copy)
    site.fleet.wait(1)
    third = site.fleet.client("third", site.pi1)
    site.put(third, "ops-pi1", "third", commits)
    site.fleet.restore(site.pi1)
    site.fleet.wait(20)
    assert site.pi1.position("ops-pi1")[0] != epoch
    assert site.same("ops-pi1") == {"n": 4, **({"third": commits - 1} if commits else {})}
    site.put(third, "ops-pi1", "more", 9)
    site.fleet.wait(5)
    assert "more" in str(site.same("ops-pi1"))


def test_epochs_of_logs_from_before_they_had_a_stem() -> None:
    site = Site()
    site.put(site.local, "ops-pi1", "n", 5)
    site.pi1.kill()
    site.pi1.start_from([*site.pi1.disk, NewEpochs((("ops-pi1", "0123456789abcdef"),))])
    site.fleet.wait(10)
    assert not [record for record in site.pi1.disk if type(record) is WentOn]
    assert site.same("ops-pi1") == {"n": 4}
    assert site.broker.position("ops-pi1")[1] != ABSENT
