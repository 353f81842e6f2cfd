"""An agent below an agent: a broker, two sites below it, leaves below the first, and programs at each."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import errors
from tega_zmq.node import Settings
from tega_zmq.wire import messages as m
from tests.unit.node.fleet import Client, Fleet, Station


class Levels:
    """gateway <- site <- leaf, and a client at each of them."""

    def __init__(self, *, leaf: bool = True) -> None:
        top = Settings("gateway", lease=10.0, heartbeat=2.0, changes=":1", direct_followers=0)
        self.fleet = Fleet(top)
        self.top = self.fleet.broker
        self.site = self.fleet.agent("site", config=("config-site",), operational=("ops-site",))
        self.noc = self.fleet.client("noc")
        self.local = self.fleet.client("local", self.site)
        self.fleet.wait(1)
        if leaf:
            self.leaf = self.below("leaf")
            self.prog = self.fleet.client("prog", self.leaf)
            self.fleet.wait(1)

    def below(self, name: str, *more: str) -> Station:
        """Add an agent below the site that lists `more` config roots."""
        return self.fleet.agent(name, (f"config-{name}", *more), (f"ops-{name}",), self.site)

    def everywhere(self, root: str) -> list[Any]:
        """What each level shows of a root; they must be at one position."""
        stations = (self.top, self.site, self.leaf)
        assert len({station.position(root) for station in stations}) == 1, [
            station.position(root) for station in stations
        ]
        return [station.tree(root) for station in stations]


@pytest.fixture
def levels() -> Levels:
    return Levels()


def fails(client: Client, error: type[errors.TegaError], cls: type[Any], *fields: Any) -> errors.TegaError:
    with pytest.raises(error) as raised:
        client.ask(cls, *fields)
    return raised.value


def put(path: str, value: Any) -> tuple[Any, ...]:
    return ("put", tuple(path.split(".")), value, None, False)


def uplink(client: Client, kind: str, root: str) -> dict[str, Any]:
    """What the client's node says of one root in its status."""
    (found,) = [each for each in client.ask(m.Inspect, "status")["uplink"][kind] if each["root"] == root]
    return found


# -- config roots come down ------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_a_config_root_comes_down_through_a_site_that_does_not_list_it(before: bool) -> None:
    levels = Levels(leaf=False)
    if before:
        levels.noc.put("config-leaf", {f"k{n}": "x" * 400 for n in range(200)})
    levels.leaf = levels.below("leaf")
    prog = levels.fleet.client("prog", levels.leaf)
    levels.fleet.wait(1)
    if not before:
        assert uplink(prog, "config", "config-leaf")["version"] == -1
    levels.noc.put("config-leaf.mtu", 1500)
    levels.fleet.wait(0.1)
    assert prog.get("config-leaf.mtu") == 1500
    prog.put("config-leaf.mtu", 9000)
    assert [tree["mtu"] for tree in levels.everywhere("config-leaf")] == [9000] * 3
    assert levels.noc.ask(m.Log, ("config-leaf",), 1)[0][2] == "site/leaf/prog"
    assert uplink(levels.local, "config", "config-leaf")["for"] == ["leaf"]
    assert uplink(levels.local, "config", "config-leaf")["in_step"]
    assert "for" not in uplink(levels.local, "config", "config-site")
    assert levels.local.get("config-leaf.mtu") == 9000
    levels.noc.delete("config-leaf")
    fails(prog, errors.NotFound, m.Get, ("config-leaf",), None, "value", "")


def test_a_leaf_is_not_in_step_before_the_replica_is_at_the_site() -> None:
    levels = Levels(leaf=False)
    levels.noc.put("config-leaf.mtu", 1500)
    levels.fleet.cut(levels.site)
    levels.leaf = levels.below("leaf")
    prog = levels.fleet.client("prog", levels.leaf)
    levels.fleet.wait(5)
    entry = uplink(prog, "config", "config-leaf")
    assert (entry["version"], entry["in_step"]) == (-1, False)
    assert uplink(levels.local, "config", "config-leaf")["in_step"] is False
    assert uplink(levels.local, "config", "config-leaf")["for"] == ["leaf"], "it waits"
    fails(levels.local, errors.Offline, m.Get, ("config-leaf",), None, "value", "")
    levels.fleet.restore(levels.site)
    levels.fleet.wait(5)
    assert prog.get("config-leaf.mtu") == 1500
    assert uplink(prog, "config", "config-leaf")["in_step"]


def test_a_site_that_has_lost_its_store_tells_no_leaf_that_its_config_is_gone(levels: Levels) -> None:
    levels.noc.put("config-leaf.mtu", 1500)
    levels.fleet.wait(0.1)
    levels.site.kill()
    levels.top.kill()
    levels.site.start(wiped=True)
    levels.fleet.wait(30)
    levels.prog.ask(m.Manage, "sync", "")
    levels.fleet.wait(5)
    assert levels.prog.get("config-leaf.mtu") == 1500
    levels.top.start()
    levels.fleet.wait(40)
    levels.noc.put("config-leaf.mtu", 9000)
    assert levels.everywhere("config-leaf") == [{"mtu": 9000}] * 3


def test_a_root_that_is_cleared_above_goes_from_both_levels(levels: Levels) -> None:
    levels.noc.put("config-leaf.mtu", 1500)
    levels.noc.ask(m.Manage, "clear", "")
    levels.fleet.wait(5)
    assert levels.everywhere("config-leaf") == [None] * 3
    levels.noc.put("config-leaf.mtu", 1)
    levels.fleet.wait(5)
    assert levels.everywhere("config-leaf") == [{"mtu": 1}] * 3


def test_a_site_that_publishes_nothing_sends_to_all_who_follow(levels: Levels) -> None:
    assert levels.local.ask(m.Follow, "config-site", True)[0] != b""
    levels.site.lab.node.settings = levels.site.lab.node.settings._replace(changes="")
    assert levels.local.ask(m.Follow, "config-leaf", True)[0] == b""


def test_what_is_followed_for_others_is_bounded(levels: Levels) -> None:
    levels.site.lab.node.on_demand.update((f"x{n}", None) for n in range(998))
    error = fails(levels.local, errors.TooLarge, m.Follow, "one-more", True)
    assert "1000 roots" in error.message
    levels.site.lab.node.on_demand.clear()


# -- both directions over cuts and restarts --------------------------------------------------------


@pytest.mark.parametrize("cut", ["site", "leaf"])
def test_a_link_that_was_cut_at_either_level(levels: Levels, cut: str) -> None:
    levels.noc.put("config-leaf.n", 0)
    levels.prog.put("ops-leaf.n", 0)
    levels.fleet.wait(0.1)
    levels.fleet.cut(getattr(levels, cut))
    for n in range(1, 20):
        levels.noc.put("config-leaf.n", n)
        levels.prog.put("ops-leaf.n", n)
    fails(levels.prog, errors.Offline, m.Write, (put("config-leaf.n", 99),), "", "")
    fails(levels.noc, errors.OwnerAway, m.Write, (put("ops-leaf.n", 99),), "", "")
    assert levels.prog.get("config-leaf.n") == 0 == levels.noc.get("ops-leaf.n")
    assert levels.local.get("ops-leaf.n") == (19 if cut == "site" else 0)
    levels.fleet.wait(30)
    levels.fleet.restore(getattr(levels, cut))
    levels.fleet.wait(10)
    assert levels.everywhere("config-leaf") == levels.everywhere("ops-leaf") == [{"n": 19}] * 3
    levels.noc.put("ops-leaf.n", 20)
    assert levels.prog.get("ops-leaf.n") == 20


@pytest.mark.parametrize("who", ["top", "site", "leaf", "all"])
def test_a_restart_finds_everything_again(levels: Levels, who: str) -> None:
    levels.noc.put("config-leaf.k", 1)
    levels.prog.put("ops-leaf.k", 1)
    levels.prog.register("ops-leaf.echo", lambda value: value)
    stations: list[Station] = [levels.top, levels.site, levels.leaf]
    if who != "all":
        stations = [getattr(levels, who)]
    for station in stations:
        station.kill()
    for station in stations:
        station.start()
    levels.fleet.wait(20)
    assert levels.prog.get("config-leaf.k") == 1 == levels.noc.get("ops-leaf.k")
    levels.noc.put("ops-leaf.k", 2)
    levels.prog.put("config-leaf.k", 2)
    assert levels.everywhere("config-leaf") == levels.everywhere("ops-leaf") == [{"k": 2}] * 3
    assert levels.noc.call("ops-leaf.echo", 0) == 0


def test_a_site_that_starts_without_a_link_serves_what_it_has(levels: Levels) -> None:
    levels.noc.put("config-leaf.k", 1)
    levels.prog.put("ops-leaf.k", 1)
    levels.fleet.cut(levels.site)
    levels.site.kill()
    levels.leaf.kill()
    levels.site.start()
    levels.leaf.start()
    levels.fleet.wait(5)
    assert uplink(levels.prog, "config", "config-leaf")["in_step"]
    assert uplink(levels.prog, "operational", "ops-leaf")["accepted"], "it was the leaf's before"
    levels.local.put("ops-leaf.k", 2)
    assert levels.prog.get("ops-leaf.k") == 2


# -- operational roots go up -----------------------------------------------------------------------


def test_an_operational_root_goes_up_and_is_written_from_above(levels: Levels) -> None:
    levels.prog.put("ops-leaf.load", 1)
    assert levels.everywhere("ops-leaf") == [{"load": 1}] * 3
    levels.noc.put("ops-leaf.load", 2)
    assert levels.everywhere("ops-leaf") == [{"load": 2}] * 3
    assert levels.prog.ask(m.Log, ("ops-leaf",), 1)[0][2] == "site/gateway/noc"
    levels.local.put("ops-leaf.load", 3)
    assert levels.noc.get("ops-leaf.load") == 3
    assert {each["root"]: each["owner"] for each in levels.noc.ask(m.Inspect, "roots")} == {
        "ops-leaf": "site"
    }
    assert uplink(levels.prog, "operational", "ops-leaf") == {"root": "ops-leaf", "accepted": True}
    assert uplink(levels.local, "operational", "ops-leaf") == {
        "root": "ops-leaf",
        "accepted": True,
        "for": ["leaf"],
    }
    error = fails(
        levels.noc, errors.Collision, m.Write, (("put", ("ops-leaf", "load"), 9, 0, False),), "", ""
    )
    assert error.actual == 2  # type: ignore[attr-defined]
    problems = levels.noc.ask(m.Check, "", (("put", ("ops-leaf", "load"), 9, 0, False),))
    assert [problem[0] for problem in problems] == ["Collision"]


@pytest.mark.parametrize("link", [True, False])
def test_a_leaf_that_clears_its_store_is_told_of_at_the_top(levels: Levels, link: bool) -> None:
    levels.prog.put("ops-leaf.load", 1)
    if not link:
        levels.fleet.cut(levels.site)
    levels.prog.ask(m.Manage, "clear", "")
    levels.fleet.wait(5)
    levels.fleet.restore(levels.site)
    levels.fleet.wait(5)
    assert levels.everywhere("ops-leaf") == [None] * 3
    levels.prog.put("ops-leaf.load", 2)
    levels.fleet.wait(5)
    assert levels.everywhere("ops-leaf") == [{"load": 2}] * 3


def test_after_a_clear_versions_start_anew_at_all_levels(levels: Levels) -> None:
    levels.prog.put("ops-leaf.load", 1)
    levels.site.kill()
    levels.site.start()
    levels.fleet.wait(10)
    levels.prog.ask(m.Manage, "clear", "")
    levels.fleet.wait(5)
    levels.fleet.cut(levels.leaf)
    levels.prog.put("ops-leaf.load", 2)
    levels.fleet.restore(levels.leaf)
    levels.fleet.wait(5)
    assert levels.everywhere("ops-leaf") == [{"load": 2}] * 3
    assert levels.top.position("ops-leaf")[1] == 0


def test_a_site_whose_log_fails_takes_up_what_it_lost_when_it_is_mended() -> None:
    levels = Levels(leaf=False)
    levels.noc.put("config-leaf.n", 1)
    watcher = levels.fleet.agent("watcher", ("ops-leaf",), (), levels.site)
    levels.fleet.wait(1)
    levels.site.slow()
    levels.leaf = levels.below("leaf")
    prog = levels.fleet.client("prog", levels.leaf)
    levels.fleet.wait(1)
    prog.put("ops-leaf.n", 1)
    levels.site.fail()
    assert "ops-leaf" not in levels.site.lab.node.tip.roots
    assert levels.local.ask(m.Inspect, "status")["uplink"]
    fails(levels.noc, errors.StorageError, m.Write, (put("ops-leaf.n", 9),), "", "")
    levels.site.mend()
    for _ in range(10):
        levels.site.sync()
        levels.fleet.wait(10)
    assert levels.everywhere("ops-leaf") == [{"n": 1}] * 3 == levels.everywhere("config-leaf")
    assert watcher.position("ops-leaf") == levels.top.position("ops-leaf")
    assert levels.site.lab.node.tip.roots["ops-leaf"].owner == "leaf"


@pytest.mark.parametrize("which", ["leaf", "site", "both"])
def test_a_wiped_card_goes_on_through_both_levels(levels: Levels, which: str) -> None:
    for n in range(3):
        levels.prog.put("ops-leaf.n", n)
    epoch, version = levels.top.position("ops-leaf")
    wiped = [levels.site, levels.leaf] if which == "both" else [getattr(levels, which)]
    for station in wiped:
        station.kill()
    for station in wiped:
        station.start(wiped=True)
    levels.fleet.wait(40)
    late = levels.fleet.client("late", levels.leaf)
    levels.fleet.wait(1)
    late.put("ops-leaf.n", 100)
    assert levels.everywhere("ops-leaf") == [{"n": 100}] * 3
    now, after = levels.top.position("ops-leaf")
    assert after > version and (now == epoch) == (which == "site")
    if which == "leaf":
        assert levels.noc.ask(m.Get, ("ops-leaf", "n"), version, "value", "")[0] == 2, "the history is kept"
    levels.noc.put("ops-leaf.n", 101)
    assert late.get("ops-leaf.n") == 101


def test_a_leaf_wiped_while_the_site_had_no_link(levels: Levels) -> None:
    levels.prog.put("ops-leaf.n", 1)
    epoch, version = levels.top.position("ops-leaf")
    levels.fleet.cut(levels.site)
    levels.leaf.kill()
    levels.leaf.start(wiped=True)
    levels.fleet.wait(5)
    late = levels.fleet.client("late", levels.leaf)
    levels.fleet.wait(1)
    late.put("ops-leaf.n", 2)
    levels.fleet.restore(levels.site)
    levels.fleet.wait(10)
    assert levels.everywhere("ops-leaf") == [{"n": 2}] * 3
    assert levels.top.position("ops-leaf")[0] != epoch
    assert levels.top.position("ops-leaf")[1] > version


def test_a_claim_that_is_new_to_a_site_waits_for_its_link() -> None:
    levels = Levels(leaf=False)
    levels.fleet.cut(levels.site)
    levels.leaf = levels.below("leaf")
    prog = levels.fleet.client("prog", levels.leaf)
    levels.fleet.wait(1)
    prog.put("ops-leaf.n", 1)
    assert not uplink(prog, "operational", "ops-leaf")["accepted"]
    assert levels.site.position("ops-leaf") == ("", -1)
    levels.fleet.wait(100)  # the first request has ended in a Timeout
    levels.fleet.restore(levels.site)
    levels.fleet.wait(40)
    assert uplink(prog, "operational", "ops-leaf")["accepted"]
    assert levels.everywhere("ops-leaf") == [{"n": 1}] * 3


def test_a_write_in_flight_when_a_link_breaks_is_done_once(levels: Levels) -> None:
    levels.prog.put("ops-leaf.n", 0)
    for cut in (levels.site, levels.leaf):
        version = levels.leaf.position("ops-leaf")[1]
        levels.leaf.slow()
        asked = levels.noc.start(m.Write, (put("ops-leaf.n", version + 1),), "", "", timeout=60.0)
        levels.fleet.run()
        levels.fleet.cut(cut)
        levels.leaf.sync()
        levels.fleet.restore(cut)
        for _ in range(6):
            levels.fleet.wait(1)
            levels.leaf.sync()
        levels.leaf.lab.auto = True
        assert levels.noc.answer(asked)[1] == [["ops-leaf", version + 1]]
        assert levels.leaf.position("ops-leaf")[1] == version + 1


@pytest.mark.parametrize("leaf_too", [False, True])
def test_a_write_in_flight_when_the_site_is_killed_is_done_at_most_once(
    levels: Levels, leaf_too: bool
) -> None:
    levels.prog.put("ops-leaf.n", 0)
    levels.leaf.slow()
    asked = levels.noc.start(m.Write, (put("ops-leaf.n", 1),), "", "", timeout=60.0)
    levels.fleet.run()
    levels.site.kill()
    levels.leaf.sync()
    if leaf_too:  # its session at the site is lost: whether the write was carried out, the site cannot know
        levels.leaf.kill()
        levels.leaf.remembered = ("", "")
    levels.site.start()
    if leaf_too:
        levels.leaf.start()
    for _ in range(8):
        levels.fleet.wait(1)
        levels.leaf.sync()
    assert levels.leaf.position("ops-leaf")[1] == 1
    assert levels.fleet.error(levels.noc, asked).outcome == "unknown"  # type: ignore[attr-defined]


def test_a_write_is_not_sent_to_a_new_card_after_the_site_forgot_it(levels: Levels) -> None:
    levels.prog.put("ops-leaf.n", 0)
    levels.leaf.slow()
    asked = levels.noc.start(m.Write, (put("ops-leaf.n", 1),), "", "", timeout=60.0)
    levels.fleet.run()
    levels.fleet.cut(levels.site)
    levels.site.kill()
    levels.leaf.kill()
    levels.leaf.lab.auto = True
    levels.site.start()
    levels.leaf.start(wiped=True)
    levels.fleet.wait(3)
    levels.fleet.restore(levels.site)
    levels.fleet.wait(5)
    assert levels.fleet.error(levels.noc, asked).outcome == "unknown"  # type: ignore[attr-defined]
    assert levels.everywhere("ops-leaf") == [None] * 3


def test_an_ephemeral_node_from_above_goes_with_its_session(levels: Levels) -> None:
    levels.noc.put("ops-leaf.noc", 1, ephemeral=True)
    levels.prog.start(m.Write, (("put", ("config-leaf", "prog"), 1, None, True),), "", "")
    levels.fleet.wait(0.1)
    assert levels.everywhere("ops-leaf") == [{"noc": 1}] * 3
    assert levels.everywhere("config-leaf") == [{"prog": 1}] * 3
    levels.noc.close()
    levels.prog.close()
    levels.fleet.wait(5)
    assert levels.everywhere("ops-leaf") == levels.everywhere("config-leaf") == [None] * 3


# -- whose a root is -------------------------------------------------------------------------------


def test_two_leaves_below_one_site(levels: Levels) -> None:
    other = levels.fleet.agent("other", ("config-leaf", "ops-leaf"), ("ops-other", "ops-leaf2"), levels.site)
    far = levels.fleet.client("far", other)
    levels.fleet.wait(1)
    levels.noc.put("config-leaf.k", 1)
    thief = levels.fleet.agent("thief", (), ("ops-leaf", "config-leaf"), levels.site)
    levels.fleet.wait(1)
    levels.prog.put("ops-leaf.k", 1)
    far.put("ops-other.k", 1)
    levels.fleet.wait(0.1)
    assert far.get("config-leaf.k") == levels.prog.get("config-leaf.k") == 1
    assert far.get("ops-leaf.k") == 1, "it follows the root of its neighbour"
    assert levels.noc.get("ops-other.k") == 1
    levels.noc.put("ops-other.k", 2)
    far.put("ops-leaf.k", 2)
    assert far.get("ops-other.k") == 2 == levels.prog.get("ops-leaf.k")
    assert uplink(levels.local, "config", "config-leaf")["for"] == ["leaf", "other"]
    levels.fleet.wait(40)
    refused = {each["root"]: each["error"] for each in thief.noted("claim refused")}
    assert "belongs to leaf" in str(refused["ops-leaf"])
    assert "ReadOnly" in str(refused["config-leaf"]), "the top has data in it"
    assert levels.prog.get("config-leaf.k") == 1


@pytest.mark.parametrize("first", ["follower", "owner"])
def test_a_leaf_follows_its_neighbours_root_before_that_is_claimed(first: str) -> None:
    levels = Levels(leaf=False)
    watcher: tuple[str, tuple[str, ...], tuple[str, ...]] = ("watcher", ("ops-leaf",), ())
    if first == "follower":
        station = levels.fleet.agent(*watcher, levels.site)
        levels.fleet.wait(3)
    levels.leaf = levels.below("leaf")
    prog = levels.fleet.client("prog", levels.leaf)
    levels.fleet.wait(1)
    if first == "owner":
        station = levels.fleet.agent(*watcher, levels.site)
        levels.fleet.wait(1)
    for n in range(3):
        prog.put("ops-leaf.n", n)
    levels.fleet.wait(5)
    assert levels.everywhere("ops-leaf") == [{"n": 2}] * 3
    assert station.position("ops-leaf") == levels.top.position("ops-leaf")
    assert levels.site.noted("replica does not fit") == []


def test_a_site_that_lost_its_store_follows_a_leafs_root_until_that_claims_it(levels: Levels) -> None:
    watcher = levels.fleet.agent("watcher", ("ops-leaf",), (), levels.site)
    levels.prog.put("ops-leaf.n", 1)
    levels.fleet.cut(levels.leaf)
    levels.site.kill()
    levels.site.start(wiped=True)
    levels.fleet.wait(5)
    assert levels.site.tree("ops-leaf") == {"n": 1} == watcher.tree("ops-leaf")
    assert uplink(levels.local, "config", "ops-leaf")["for"] == ["watcher"]
    fails(levels.noc, errors.OwnerAway, m.Write, (put("ops-leaf.n", 9),), "", "")
    levels.prog.put("ops-leaf.n", 2)
    levels.fleet.restore(levels.leaf)
    levels.fleet.wait(10)
    assert levels.everywhere("ops-leaf") == [{"n": 2}] * 3
    assert watcher.position("ops-leaf") == levels.top.position("ops-leaf")
    levels.noc.put("ops-leaf.n", 3)
    assert levels.prog.get("ops-leaf.n") == 3


def test_a_site_whose_log_loses_that_a_root_is_a_leafs(levels: Levels) -> None:
    levels.fleet.agent("watcher", ("ops-leaf",), (), levels.site)
    levels.prog.put("ops-leaf.n", 1)
    levels.fleet.cut(levels.leaf)
    levels.site.kill()
    levels.site.start(wiped=True)
    levels.fleet.wait(5)
    levels.site.slow()
    levels.fleet.restore(levels.leaf)
    levels.fleet.wait(3)
    levels.site.fail()
    assert levels.site.lab.node.tip.roots["ops-leaf"].owner == "^"
    levels.site.mend()
    assert levels.site.lab.node.tip.roots["ops-leaf"].owner == "leaf"
    for _ in range(10):
        levels.site.sync()
        levels.fleet.wait(4)
    asked = levels.noc.start(m.Write, (put("ops-leaf.n", 3),), "", "")
    for _ in range(3):
        levels.fleet.wait(1)
        levels.site.sync()
    assert levels.noc.answer(asked)
    assert levels.everywhere("ops-leaf") == [{"n": 3}] * 3


@pytest.mark.parametrize("owner", ["gateway", "other"])
def test_a_claim_that_the_top_refuses_is_refused_below(owner: str) -> None:
    levels = Levels(leaf=False)
    if owner == "other":
        levels.fleet.agent("other", (), ("ops-leaf",))
        levels.fleet.wait(1)
    else:
        levels.noc.put("ops-leaf.n", 1)
    levels.leaf = levels.below("leaf")
    prog = levels.fleet.client("prog", levels.leaf)
    levels.fleet.wait(1)
    prog.put("ops-leaf.n", 2)
    for client in (prog, levels.local):
        entry = uplink(client, "operational", "ops-leaf")
        assert not entry["accepted"] and f"belongs to {owner}" in entry["refused"]
    assert "ReadOnly" in str(levels.site.noted("claim refused")[0]["error"])
    assert levels.top.tree("ops-leaf") == (None if owner == "other" else {"n": 1})
    if owner == "other":
        return
    assert levels.local.get("ops-leaf.n") == 1, "the site reads the one that there is"
    levels.noc.delete("ops-leaf")
    levels.fleet.wait(70)
    assert levels.everywhere("ops-leaf") == [{"n": 2}] * 3
    assert uplink(levels.local, "operational", "ops-leaf")["accepted"]


def test_a_second_site_cannot_claim_what_a_leaf_of_the_first_owns(levels: Levels) -> None:
    levels.prog.put("ops-leaf.n", 1)
    second = levels.fleet.agent("second")
    levels.fleet.wait(1)
    moved = levels.fleet.agent("moved", (), ("ops-leaf",), second)
    levels.fleet.wait(5)
    assert "belongs to site" in str(moved.noted("claim refused")[0]["error"])
    assert levels.everywhere("ops-leaf") == [{"n": 1}] * 3


def test_disown_at_the_top_reaches_the_leaf(levels: Levels) -> None:
    watcher = levels.fleet.agent("watcher", ("ops-leaf",), (), levels.site)
    levels.prog.put("ops-leaf.n", 1)
    levels.fleet.wait(1)
    assert levels.noc.ask(m.Manage, "disown", "ops-leaf") == {"disowned": "ops-leaf"}
    levels.fleet.wait(5)
    levels.noc.put("ops-leaf.n", 5)
    levels.fleet.wait(5)
    assert levels.noc.get("ops-leaf.n") == 5 == levels.local.get("ops-leaf.n")
    assert watcher.tree("ops-leaf") == {"n": 5}, "it follows the root wherever that is"
    assert not uplink(levels.prog, "operational", "ops-leaf")["accepted"]
    assert "gateway" in uplink(levels.prog, "operational", "ops-leaf")["refused"]
    levels.prog.put("ops-leaf.n", 2)
    levels.fleet.wait(70)
    assert levels.noc.get("ops-leaf.n") == 5


def test_disown_is_for_the_top_to_do(levels: Levels) -> None:
    levels.prog.put("ops-leaf.n", 1)
    levels.local.put("ops-site.n", 1)
    levels.leaf.kill()
    levels.fleet.wait(15)
    fails(levels.local, errors.OwnerAway, m.Write, (put("ops-leaf.n", 5),), "", "")
    fails(levels.noc, errors.OwnerAway, m.Write, (put("ops-leaf.n", 5),), "", "")
    fails(levels.local, errors.ReadOnly, m.Manage, "disown", "ops-site")
    assert "above" in fails(levels.local, errors.ReadOnly, m.Manage, "disown", "ops-leaf").message
    assert levels.noc.ask(m.Manage, "disown", "ops-leaf") == {"disowned": "ops-leaf"}
    levels.fleet.wait(3)
    levels.local.put("ops-leaf.n", 5)
    assert levels.noc.get("ops-leaf.n") == 5
    assert levels.top.lab.node.tip.roots["ops-leaf"].owner == ""


def test_refused_claims_that_are_remembered_are_bounded(levels: Levels) -> None:
    roots = tuple(f"taken{n}" for n in range(120))
    levels.noc.ask(m.Write, tuple(put(f"{root}.k", 1) for root in roots), "", "")
    levels.fleet.agent("greedy", (), roots, levels.site)
    levels.fleet.wait(1)
    assert len(levels.site.lab.node.refused) == 100
    assert levels.site.lab.node.awaiting == {}


# -- handlers, calls, messages ---------------------------------------------------------------------


def test_calls_over_two_levels(levels: Levels) -> None:
    levels.prog.register("ops-leaf.echo", lambda value: value)
    levels.prog.register("ops-leaf.fails", lambda: {}["missing"])
    levels.prog.register("ops-leaf.hangs", lambda: NotImplemented)
    levels.noc.register("tools.add", lambda a, b: a + b)
    assert levels.noc.ask(m.Inspect, "handlers")["ops-leaf.echo"] == ["%site/leaf/prog.echo"]
    for caller in (levels.noc, levels.local, levels.prog):
        assert caller.call("ops-leaf.echo", 0) == 0
        assert caller.call("tools.add", 1, 2) == 3
        with pytest.raises(errors.HandlerError) as raised:
            caller.call("ops-leaf.fails")
        assert raised.value.type == "KeyError"
    hanging = levels.noc.start(m.Call, ("ops-leaf", "hangs"), (), {}, timeout=60.0)
    levels.fleet.run()
    levels.fleet.cut(levels.leaf)
    levels.fleet.run()
    with pytest.raises(errors.HandlerGone):
        levels.noc.answer(hanging)
    levels.fleet.restore(levels.leaf)
    levels.fleet.wait(5)
    assert levels.noc.call("ops-leaf.echo", 1) == 1


def test_subscriptions_and_messages_over_two_levels(levels: Levels) -> None:
    levels.noc.put("shared.n", 0)
    levels.prog.subscribe("shared.n", "global")
    levels.noc.subscribe("ops-leaf")
    levels.prog.listen("news", "global")
    levels.noc.put("shared.n", 1)
    levels.prog.put("ops-leaf.n", 1)
    levels.noc.ask(m.Publish, "news", "one")
    levels.fleet.run()
    levels.fleet.cut(levels.site)
    levels.noc.put("shared.n", 2)
    levels.fleet.restore(levels.site)
    levels.fleet.wait(5)
    assert [change.new for change in levels.prog.heard] == [1, 2]
    assert [change.new for change in levels.noc.heard] == [{"n": 1}]
    assert [message.value for message in levels.prog.messages] == ["one"]


def test_ephemeral_nodes_come_back_over_two_levels(levels: Levels) -> None:
    made = tuple(("put", ("presence", name), 1, None, True) for name in "ab")
    levels.prog.ask(m.Write, made, "", "")
    for cut in (levels.leaf, levels.site, levels.leaf):
        levels.fleet.cut(cut)
        levels.fleet.wait(30)
        assert levels.top.tree("presence") is None
        levels.fleet.restore(cut)
        levels.fleet.wait(10)
        assert levels.noc.get("presence") == {"a": 1, "b": 1}
