"""A broker and agents on the bench: what is passed on, replicated, lost and found again."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import errors
from tega_zmq.node import Settings, lifecycle, machine
from tega_zmq.store import Kept
from tega_zmq.wire import decode, encode
from tega_zmq.wire import messages as m
from tests.unit.node.fleet import Client, Fleet, Station


class Site:
    """A broker, the agent pi1, a client at each of them."""

    def __init__(self, kept: Kept | None = None, direct: int = 0) -> None:
        broker = Settings("gateway", lease=10.0, heartbeat=2.0, changes=":1", direct_followers=direct)
        self.fleet = Fleet(broker, kept)
        self.broker = self.fleet.broker
        self.pi1 = self.fleet.agent("pi1", config=("config-pi1",), operational=("ops-pi1",))
        self.noc = self.fleet.client("noc")
        self.local = self.fleet.client("local", self.pi1)
        self.fleet.wait(1)


@pytest.fixture
def site() -> Site:
    return Site()


def fails(client: Client, error: type[errors.TegaError], cls: type[Any], *fields: Any) -> errors.TegaError:
    with pytest.raises(error) as raised:
        client.ask(cls, *fields)
    return raised.value


def put(path: str, value: Any, *, ephemeral: bool = False) -> tuple[Any, ...]:
    return ("put", tuple(path.split(".")), value, None, ephemeral)


def test_both_directions(site: Site) -> None:
    site.noc.put("config-pi1.mtu", 1500)
    assert site.local.get("config-pi1.mtu") == 1500
    site.local.put("ops-pi1.load", 1)
    assert site.noc.get("ops-pi1.load") == 1
    site.local.put("config-pi1.mtu", 9000)
    assert site.local.get("config-pi1.mtu") == site.noc.get("config-pi1.mtu") == 9000
    assert site.noc.ask(m.Log, ("config-pi1",), 1)[0][2] == "pi1/local"
    site.noc.put("ops-pi1.load", 2)
    assert site.local.get("ops-pi1.load") == 2
    assert site.local.ask(m.Log, ("ops-pi1",), 1)[0][2] == "gateway/noc"
    assert site.noc.ask(m.Get, ("ops-pi1",), None, "node", "")[4] is not None, "says how old it is"


def test_a_root_of_its_own_that_is_to_come_down_names_key_and_remedy(site: Site) -> None:
    """What it holds may never have gone up, so it is not replaced; the remedy works."""

    def restart(config: tuple[str, ...], operational: tuple[str, ...]) -> None:
        settings = site.pi1.settings._replace(config=config, operational=operational)
        site.pi1.settings = settings
        site.pi1.kill()
        site.pi1.start()
        site.fleet.wait(30)

    restart(("config-pi1",), ("ops-pi1", "common"))
    site.local.put("common.a", "mine")
    site.fleet.wait(1)
    site.noc.ask(m.Manage, "disown", "common")
    site.noc.put("common.a", "theirs")
    with pytest.raises(errors.StorageError) as raised:
        restart(("config-pi1", "common"), ("ops-pi1",))
    assert "common stands under `config`, but it was a root of this node's own" in str(raised.value)
    assert "list it under `operational` once more" in str(raised.value)
    restart(("config-pi1",), ("ops-pi1", "common"))
    assert site.local.get("common.a") == "mine"
    site.local.delete("common")
    restart(("config-pi1", "common"), ("ops-pi1",))
    assert site.local.get("common.a") == "theirs"
    assert site.noc.get("common.a") == "theirs"


def test_a_root_that_is_not_listed_any_more_is_not_shown_as_it_was(site: Site) -> None:
    def shown() -> tuple[Any, Any]:
        found = site.local.ask(m.Find, r"config-pi1\.mtu", "")
        listed = [each["root"] for each in site.local.ask(m.Inspect, "roots")]
        return [value for _, _, value in found], "config-pi1" in listed

    def restart(config: tuple[str, ...]) -> None:
        site.pi1.settings = site.pi1.settings._replace(config=config)
        site.pi1.kill()
        site.pi1.start()
        site.fleet.wait(30)

    site.noc.put("config-pi1.mtu", 1500)
    site.local.put("ops-pi1.load", 1)
    assert shown() == ([1500], True)
    restart(())
    site.noc.put("config-pi1.mtu", 9000)
    assert site.local.get("config-pi1.mtu") == 9000
    assert shown() == ([], False)
    txid = site.local.ask(m.Begin)
    assert site.local.ask(m.Get, ("config-pi1", "mtu"), None, "value", txid)[0] == 9000
    site.local.ask(m.Write, (put("config-pi1.x", 1),), "", txid)
    assert site.local.ask(m.Get, ("config-pi1",), None, "value", txid)[0] == {"mtu": 9000, "x": 1}
    site.local.ask(m.CommitTransaction, txid, "")
    assert site.noc.get("config-pi1") == {"mtu": 9000, "x": 1}
    assert [each["root"] for each in site.local.ask(m.Inspect, "roots")] == ["ops-pi1"]
    restart(("config-pi1",))
    assert shown() == ([9000], True)


def test_a_commit_that_is_too_large_to_be_passed_on_says_what_to_do(site: Site) -> None:
    txid = site.local.ask(m.Begin)
    for n in range(9):
        site.local.ask(m.Write, (put(f"config-pi1.k{n}", "x" * 1_000_000),), "", txid)
    error = fails(site.local, errors.TooLarge, m.CommitTransaction, txid, "")
    assert "connect to the owner itself" in str(error)
    fails(site.noc, errors.NotFound, m.Get, ("config-pi1",), None, "value", "")


def test_read_through_of_what_is_not_here(site: Site) -> None:
    site.noc.put("shared.k", 1)
    assert site.local.get("shared.k") == 1
    assert site.local.ask(m.Log, ("shared",), 5)[0][0] == 0
    assert site.local.ask(m.Diff, ("shared",), 0, ("shared",), None) == []
    fails(site.local, errors.NotFound, m.Get, ("nothing",), None, "value", "")
    site.fleet.cut(site.pi1)
    fails(site.local, errors.Offline, m.Get, ("shared",), None, "value", "")
    fails(site.local, errors.Offline, m.Write, (put("shared.k", 2),), "", "")
    fails(site.local, errors.Offline, m.Call, ("tools", "x"), (), {})


def test_transactions_through_an_agent(site: Site) -> None:
    site.noc.put("config-pi1", {"k": 1})
    site.noc.put("shared", {"k": 1})
    txid = site.local.ask(m.Begin)
    site.local.ask(m.Write, (put("config-pi1.k", 2), put("shared.new", 3)), "", txid)
    assert site.local.ask(m.Get, ("config-pi1",), None, "value", txid)[0] == {"k": 2}
    assert site.local.ask(m.Get, ("shared",), None, "value", txid)[0] == {"k": 1, "new": 3}
    assert site.local.ask(m.Get, ("shared",), None, "oids", txid)
    assert site.local.ask(m.Write, (put("other.k", 1),), "", txid) is None
    assert site.local.ask(m.Get, ("other", "k"), None, "value", txid)[0] == 1
    assert site.noc.get("shared") == {"k": 1}
    fails(site.local, errors.MixedOwners, m.Write, (put("ops-pi1.k", 1),), "", txid)
    site.local.ask(m.CommitTransaction, txid, "all at once")
    assert site.noc.get("shared") == {"k": 1, "new": 3} and site.noc.get("config-pi1") == {"k": 2}
    fails(site.local, errors.MixedOwners, m.Write, (put("ops-pi1.k", 1), put("shared.k", 1)), "", "")


def test_gaps_are_found_by_the_next_update_and_by_heartbeats(site: Site) -> None:
    site.noc.put("config-pi1.n", 0)
    site.fleet.losing = lambda agent, frame: True
    site.noc.put("config-pi1.n", 1)
    assert site.local.get("config-pi1.n") == 0
    site.fleet.wait(5)
    assert site.local.get("config-pi1.n") == 1, "a heartbeat told"
    site.noc.put("config-pi1.n", 2)
    site.fleet.losing = lambda agent, frame: False
    site.noc.put("config-pi1.n", 3)
    assert site.local.get("config-pi1.n") == 3, "the next update told"


@pytest.mark.parametrize(("commits", "by"), [(30, "deltas"), (300, "tree")])
def test_catching_up(commits: int, by: str) -> None:
    site = Site(Kept(versions=10, updates=100))
    site.noc.put("config-pi1", {f"k{n}": "x" * 400 for n in range(200)})
    site.fleet.cut(site.pi1)
    for n in range(commits):
        site.noc.put("config-pi1.n", n)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    assert site.pi1.tree("config-pi1") == site.broker.tree("config-pi1")
    assert site.pi1.position("config-pi1") == site.broker.position("config-pi1")
    assert by in str(site.pi1.noted("replica caught up")[-1]["by"])


def test_calls_up_down_and_across(site: Site) -> None:
    pi2 = site.fleet.agent("pi2", operational=("ops-pi2",))
    far = site.fleet.client("far", pi2)
    site.fleet.wait(1)
    site.local.register("ops-pi1.echo", lambda value: value)
    site.local.register("ops-pi1.fails", lambda: {}["missing"])
    site.local.register("ops-pi1.hangs", lambda: NotImplemented)
    for caller in (site.noc, far, site.local):
        assert caller.call("ops-pi1.echo", 0) == 0
        with pytest.raises(errors.HandlerError) as raised:
            caller.call("ops-pi1.fails")
        assert raised.value.type == "KeyError"
    hanging = far.start(m.Call, ("ops-pi1", "hangs"), (), {}, timeout=60.0)
    given_up = site.noc.start(m.Call, ("ops-pi1", "hangs"), (), {}, timeout=60.0)
    late = far.start(m.Call, ("ops-pi1", "hangs"), (), {}, timeout=1.0)
    site.fleet.run()
    assert site.noc.session is not None
    site.noc.session.cancel(given_up, site.fleet.now)
    site.noc.pump()
    site.fleet.run()
    with pytest.raises(errors.Cancelled):
        site.noc.answer(given_up)
    site.fleet.wait(2)
    with pytest.raises(errors.Timeout):
        far.answer(late)
    assert far.ask(m.CallAll, r"ops-.*\.echo", (1,), {})[0][2:] == [True, 1]
    site.fleet.cut(site.local)
    site.fleet.run()
    with pytest.raises(errors.HandlerGone):
        far.answer(hanging)
    with pytest.raises(errors.HandlerGone):
        site.noc.call("ops-pi1.echo", 1)
    site.fleet.restore(site.local)
    site.fleet.wait(3)
    assert site.noc.call("ops-pi1.echo", False) is False
    handler_session = site.noc.ask(m.Inspect, "handlers")
    assert handler_session["ops-pi1.echo"] == ["%pi1/local.echo"]
    site.local.close()
    site.fleet.run()
    with pytest.raises(errors.NoHandler):
        site.noc.call("ops-pi1.echo", 1)


def test_calls_of_a_group_go_past_a_program_that_its_agent_has_lost(site: Site) -> None:
    others = [site.fleet.client(name) for name in ("h1", "h2")]
    site.fleet.run()
    done: list[str] = []
    site.local.register("tools.g", lambda: done.append("dev"))
    for each in others:
        each.register("tools.g", lambda name=each.name: done.append(name))
    for _ in range(6):
        site.noc.call("tools.g")
    assert sorted(done) == ["dev"] * 2 + ["h1"] * 2 + ["h2"] * 2
    site.fleet.cut(site.local)
    done.clear()
    asked = len(site.local.invoked)
    for _ in range(20):
        site.noc.call("tools.g")
    assert sorted(set(done)) == ["h1", "h2"] and len(done) == 20, "each was carried out once"
    site.fleet.restore(site.local)
    site.fleet.wait(3)
    site.fleet.wait(13)
    for _ in range(3):
        site.noc.call("tools.g")
    assert len(site.local.invoked) == asked + 1, "it has its turn again"
    for each in others:
        each.close()
    site.fleet.run()
    site.fleet.cut(site.local)
    error = fails(site.noc, errors.HandlerGone, m.Call, ("tools", "g"), (), {})
    assert isinstance(error, errors.HandlerGone) and error.outcome == "none"
    assert not any(session.calling for session in site.broker.lab.node.sessions)


def test_a_call_that_may_have_been_carried_out_goes_to_no_other(site: Site) -> None:
    site.local.register("tools.g", lambda: NotImplemented)
    other = site.fleet.client("other")
    other.register("tools.g", lambda: NotImplemented)
    asked = [site.noc.start(m.Call, ("tools", "g"), (), {}, timeout=60.0) for _ in range(2)]
    site.fleet.run()
    assert len(site.local.invoked) == len(other.invoked) == 1
    site.fleet.cut(site.local)
    site.fleet.run()
    assert len(other.invoked) == 1
    (ended,) = [id for id in asked if id in site.noc.done]
    error = site.fleet.error(site.noc, ended)
    assert isinstance(error, errors.HandlerGone) and error.outcome is None


def test_a_call_that_goes_past_keeps_its_deadline_and_can_be_given_up(site: Site) -> None:
    site.local.register("tools.g", lambda: NotImplemented)
    other = site.fleet.client("other")
    other.register("tools.g", lambda: NotImplemented)
    site.fleet.cut(site.local)
    late = [site.noc.start(m.Call, ("tools", "g"), (), {}, timeout=5.0) for _ in range(2)]
    given_up = site.noc.start(m.Call, ("tools", "g"), (), {}, timeout=5.0)
    site.fleet.run()
    assert len(other.invoked) == 3 and all(each.timeout == 5000 for each in other.invoked)
    assert site.noc.session is not None
    site.noc.session.cancel(given_up, site.fleet.now)
    site.noc.pump()
    site.fleet.run()
    assert isinstance(site.fleet.error(site.noc, given_up), errors.Cancelled)
    assert len(other.abandoned) == 1
    site.fleet.wait(6)
    assert [type(site.fleet.error(site.noc, id)) for id in late] == [errors.Timeout] * 2


def test_global_subscriptions_survive_a_cut_without_a_gap(site: Site) -> None:
    site.noc.put("shared", {"n": 0})
    site.local.subscribe("shared.n", "global")
    site.local.listen("news", "global")
    site.noc.put("shared.n", 1)
    site.noc.ask(m.Publish, "news", "one")
    site.fleet.cut(site.pi1)
    site.noc.put("shared.n", 2)
    site.noc.put("shared.n", 3)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    assert [change.new for change in site.local.heard] == [1, 2, 3]
    assert [message.value for message in site.local.messages] == ["one"]
    assert site.local.ask(m.Publish, "news", "mine") == 0
    site.fleet.run()
    assert [message.value for message in site.local.messages] == ["one"], "not to its sender"


@pytest.mark.parametrize("noticed", [True, False])
def test_what_is_taken_back_without_a_link_is_taken_back_above_later(site: Site, noticed: bool) -> None:
    here = site.fleet.client("here")
    site.fleet.run()
    for path in ("tools.g", "tools.k", "tools.again"):
        site.local.register(path, lambda: "dev")
    here.register("tools.g", lambda: "gw")
    heard = [site.local.subscribe("shared", "global"), site.local.listen("news", "global")]
    site.fleet.cut(site.pi1, noticed=noticed)
    for path in ("g", "k", "again"):
        site.local.ask(m.Unregister, ("tools", path))
    for subscribed in heard:
        site.local.ask(m.Unsubscribe, subscribed.number)
    site.local.register("tools.again", lambda: "dev")
    for _ in range(20):
        site.local.register("tools.brief", lambda: "dev")
        site.local.ask(m.Unregister, ("tools", "brief"))
    (session,) = [each for each in site.pi1.lab.node.sessions if each.tega_id == "local"]
    if noticed:
        assert sorted(key for _, key in session.retracted if type(key) is tuple) == [
            ("tools", "g"),
            ("tools", "k"),
        ]
        assert not session.unsaid
    site.fleet.restore(site.pi1)
    site.fleet.wait(9)
    assert not site.broker.noted("session ended"), "it was resumed"
    assert {site.noc.call("tools.g") for _ in range(4)} == {"gw"}
    assert site.noc.call("tools.again") == "dev"
    for path in ("tools.k", "tools.brief"):
        with pytest.raises(errors.NoHandler):
            site.noc.call(path)
    assert site.noc.ask(m.Inspect, "subscribers") == {}
    assert site.noc.ask(m.Inspect, "channels") == {}
    assert (session.retracted, session.unsaid, session.asked_above) == ({}, {}, {})


def test_what_is_taken_back_is_forgotten_with_the_session_above(site: Site) -> None:
    site.local.register("tools.k", lambda: "dev")
    site.fleet.cut(site.pi1)
    site.local.ask(m.Unregister, ("tools", "k"))
    site.fleet.wait(30)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    (session,) = [each for each in site.pi1.lab.node.sessions if each.tega_id == "local"]
    assert (session.retracted, session.unsaid, session.asked_above) == ({}, {}, {})
    with pytest.raises(errors.NoHandler):
        site.noc.call("tools.k")


def test_offline_work_comes_up_later(site: Site) -> None:
    site.local.put("ops-pi1.n", 0)
    site.fleet.cut(site.pi1)
    for n in range(1, 20):
        site.local.put("ops-pi1.n", n)
    assert site.noc.get("ops-pi1.n") == 0
    fails(site.noc, errors.OwnerAway, m.Write, (put("ops-pi1.n", 99),), "", "")
    site.fleet.wait(30)
    assert site.noc.ask(m.Inspect, "agents")[0]["state"] == "away"
    site.fleet.restore(site.pi1)
    site.fleet.wait(10)
    assert site.noc.get("ops-pi1.n") == 19
    assert site.broker.position("ops-pi1") == site.pi1.position("ops-pi1")


def test_ephemeral_nodes_of_local_programs_come_back_with_a_new_session(site: Site) -> None:
    site.local.put("presence.local", 1, ephemeral=True)
    assert site.noc.get("presence") == {"local": 1}
    site.fleet.cut(site.pi1)
    site.fleet.wait(30)
    fails(site.noc, errors.NotFound, m.Get, ("presence",), None, "value", "")
    site.fleet.restore(site.pi1)
    site.fleet.wait(10)
    assert site.noc.get("presence") == {"local": 1}
    site.local.close()
    site.fleet.wait(1)
    fails(site.noc, errors.NotFound, m.Get, ("presence",), None, "value", "")


def test_ephemeral_nodes_of_one_transaction_all_come_back(site: Site) -> None:
    txid = site.local.ask(m.Begin)
    made = tuple(put(f"presence.{name}", {}, ephemeral=True) for name in "abc")
    site.local.ask(m.Write, (*made, put("presence.a.x", 2)), "", txid)
    site.local.ask(m.CommitTransaction, txid, "")
    site.local.ask(
        m.Write, (put("presence.d", 1, ephemeral=True), put("presence.e", 1, ephemeral=True)), "", ""
    )
    before = site.noc.get("presence")
    assert sorted(before) == list("abcde")
    for _ in range(2):
        site.fleet.cut(site.pi1)
        site.fleet.wait(30)
        fails(site.noc, errors.NotFound, m.Get, ("presence",), None, "value", "")
        site.fleet.restore(site.pi1)
        site.fleet.wait(10)
        assert site.noc.get("presence") == before
        site.local.put("shared.n", 1)
    site.local.close()
    site.fleet.run()
    fails(site.noc, errors.NotFound, m.Get, ("presence",), None, "value", "")


def lose_the_session(site: Site) -> None:
    """End the session of pi1 at the broker; it does not come back yet."""
    site.fleet.cut(site.pi1)
    site.fleet.wait(30)
    assert site.broker.tree("presence") is None
    site.fleet.restore(site.pi1)


def come_back(site: Site) -> None:
    """Let time pass until pi1 has its Welcome, and nothing that it says then has arrived."""
    while not site.pi1.lab.node.online:
        for happen in site.fleet.ready()[:1] or [lambda: site.fleet.pass_time(site.fleet.now + 1)]:
            happen()


@pytest.mark.parametrize("arrives", [False, True])
def test_an_ephemeral_node_comes_back_though_the_link_breaks_again(site: Site, arrives: bool) -> None:
    site.local.put("presence.a", 1, ephemeral=True)
    site.local.put("presence.b", 1, ephemeral=True)
    lose_the_session(site)
    come_back(site)
    (link,) = [link for link in site.fleet.links if link.dialer is site.pi1]
    while arrives and link.up:
        site.broker.receive(link.peer, link.up.popleft())
    site.fleet.cut(site.pi1)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    assert site.noc.get("presence") == {"a": 1, "b": 1}
    (session,) = [each for each in site.pi1.lab.node.sessions if each.tega_id == "local"]
    assert (session.lacking, session.putting) == ({}, False)
    site.noc.delete("presence.a")
    site.fleet.cut(site.pi1)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    assert site.noc.get("presence") == {"b": 1}, "somebody took it away"


@pytest.mark.parametrize("what", ["nothing", "done", "under way"])
def test_an_ephemeral_node_comes_back_when_the_log_above_is_mended(site: Site, what: str) -> None:
    site.local.put("presence.a", 1, ephemeral=True)
    site.noc.put("shared.n", 1)
    lose_the_session(site)
    site.broker.slow()
    lost = site.noc.start(m.Write, (put("shared.n", 2),), "", "")
    site.fleet.run()
    site.broker.fail()
    site.fleet.wait(9)
    assert lost in site.noc.done and site.broker.tree("presence") is None
    assert site.pi1.lab.node.online
    site.broker.mend()
    site.broker.sync()
    if what != "under way":
        site.broker.lab.auto = True
    if what != "nothing":
        site.local.start(m.Write, (put("presence.a", 2, ephemeral=True),), "", "", timeout=60.0)
    site.fleet.wait(5)
    site.broker.lab.auto = True
    site.broker.sync()
    site.fleet.wait(5)
    assert site.noc.get("presence") == {"a": 1 if what == "nothing" else 2}


def test_an_ephemeral_node_that_cannot_come_back_holds_up_no_other(site: Site) -> None:
    other = site.fleet.agent("pi2", operational=("ops-pi2",))
    site.fleet.wait(1)
    for path in ("ops-pi2.pi1", "presence.a", "taken.by.pi1", "presence.b"):
        site.local.put(path, 1, ephemeral=True)
    site.fleet.cut(other)
    lose_the_session(site)
    site.noc.put("taken.by", 1)
    site.fleet.wait(9)
    assert site.noc.get("presence") == {"a": 1, "b": 1}
    assert [each["tega_id"] for each in site.pi1.noted("ephemeral nodes not put again")] == ["local"]
    (session,) = [each for each in site.pi1.lab.node.sessions if each.tega_id == "local"]
    assert list(session.lacking.values()) == [[("ops-pi2", "pi1")]]
    site.fleet.restore(other)
    site.fleet.wait(9)
    assert site.broker.tree("ops-pi2") == {"pi1": 1} and not session.lacking


@pytest.mark.parametrize("who", ["broker", "agent"])
def test_a_restart_finds_everything_again(site: Site, who: str) -> None:
    site.noc.put("config-pi1.k", 1)
    site.local.put("ops-pi1.k", 1)
    site.local.put("presence.local", 1, ephemeral=True)
    station: Station = site.broker if who == "broker" else site.pi1
    station.kill()
    station.start()
    site.fleet.wait(8)
    assert site.noc.state == site.local.state == "connected"
    assert site.local.get("config-pi1.k") == 1 and site.noc.get("ops-pi1.k") == 1
    assert site.noc.get("presence.local") == 1
    site.noc.put("ops-pi1.k", 2)
    site.local.put("config-pi1.k", 2)
    assert site.local.get("ops-pi1.k") == 2 == site.noc.get("config-pi1.k")


def test_a_write_in_flight_when_the_link_breaks_is_done_once(site: Site) -> None:
    site.noc.put("config-pi1.n", 0)
    site.broker.slow()
    asked = site.local.start(m.Write, (put("config-pi1.n", 1),), "", "", timeout=60.0)
    site.fleet.run()
    site.fleet.cut(site.pi1)
    site.broker.sync()
    site.fleet.restore(site.pi1)
    for _ in range(5):
        site.fleet.wait(1)
        site.broker.sync()
    assert site.local.answer(asked)[1] == [["config-pi1", 1]]
    assert site.broker.position("config-pi1")[1] == 1


@pytest.mark.parametrize("who", ["broker", "pi1", "both"])
def test_a_program_that_dies_with_a_node_takes_its_nodes_elsewhere_with_it(site: Site, who: str) -> None:
    site.local.put("presence.local", 1, ephemeral=True)
    site.noc.put("ops-pi1.noc", 1, ephemeral=True)
    killed = [site.broker, site.pi1] if who == "both" else [site.broker if who == "broker" else site.pi1]
    for station in killed:
        station.kill()
    site.local.drop()
    site.noc.drop()
    site.local.reachable = site.noc.reachable = False
    for station in killed:
        station.start()
    site.fleet.wait(60)
    other, device = site.fleet.client("other"), site.fleet.client("other", site.pi1)
    site.fleet.wait(1)
    assert "presence" not in [each["root"] for each in other.ask(m.Inspect, "roots")]
    assert "ops-pi1" not in [each["root"] for each in device.ask(m.Inspect, "roots")]
    assert not site.broker.lab.node.tip.roots["presence"].ephemerals
    assert len(site.broker.lab.node.tip.leases) == len(site.broker.lab.node.sessions)


def test_a_write_that_is_answered_late_ends_at_its_deadline(site: Site) -> None:
    site.noc.put("config-pi1.n", 0)
    site.fleet.losing = lambda agent, frame: True
    asked = site.local.start(m.Write, (put("config-pi1.n", 1),), "", "", timeout=1.0)
    site.fleet.wait(1.4)
    if asked in site.local.done and not isinstance(site.local.done[asked], errors.TegaError):
        assert site.local.get("config-pi1.n") == 1
    else:
        assert site.fleet.error(site.local, asked).outcome == "committed"  # type: ignore[attr-defined]
    site.broker.slow()
    unknown = site.local.start(m.Write, (put("config-pi1.n", 2),), "", "", timeout=1.0)
    site.fleet.wait(1.4)
    assert site.fleet.error(site.local, unknown).outcome == "unknown"  # type: ignore[attr-defined]


def test_wiped_card_disown_and_two_owners(site: Site) -> None:
    for n in range(3):
        site.local.put("ops-pi1.n", n)
    epoch, version = site.broker.position("ops-pi1")
    site.pi1.kill()
    site.pi1.start(wiped=True)
    site.fleet.wait(5)
    assert site.broker.position("ops-pi1")[0] != epoch
    late = site.fleet.client("late", site.pi1)
    site.fleet.wait(1)
    late.put("ops-pi1.n", 100)
    assert site.noc.get("ops-pi1.n") == 100
    assert site.noc.ask(m.Get, ("ops-pi1", "n"), version, "value", "")[0] == 2
    thief = site.fleet.agent("thief", operational=("ops-pi1",))
    site.fleet.wait(3)
    assert "ReadOnly" in str(thief.noted("claim refused")[0]["error"])
    site.pi1.kill()
    site.fleet.wait(15)
    assert site.noc.ask(m.Manage, "disown", "ops-pi1") == {"disowned": "ops-pi1"}
    site.noc.put("ops-pi1.n", 5)
    assert site.noc.get("ops-pi1.n") == 5


def test_clear_and_delete_reach_the_replicas(site: Site) -> None:
    site.noc.put("config-pi1.k", 1)
    site.noc.delete("config-pi1")
    fails(site.local, errors.NotFound, m.Get, ("config-pi1",), None, "value", "")
    site.noc.put("config-pi1.k", 2)
    assert site.local.get("config-pi1.k") == 2
    site.noc.ask(m.Manage, "clear", "")
    site.fleet.wait(5)
    assert site.pi1.tree("config-pi1") is None
    site.noc.put("config-pi1.k", 3)
    site.fleet.wait(5)
    assert site.local.get("config-pi1.k") == 3
    assert site.local.ask(m.Manage, "sync", "")["reconciled"]
    assert site.noc.ask(m.Manage, "sync", "")["reconciled"]


@pytest.mark.parametrize("direct", [0, 4])
@pytest.mark.parametrize("late", [False, True])
def test_who_writes_sees_it_though_versions_have_begun_anew(direct: int, late: bool) -> None:
    site = Site(direct=direct)
    for n in range(9):
        site.noc.put("config-pi1.n", n)
    kept: list[bytes] = []
    site.fleet.losing = lambda agent, frame: late and kept.append(frame) is None
    site.noc.put("config-pi1.n", 9)
    site.noc.ask(m.Manage, "clear", "")
    asked = site.local.start(m.Write, (put("config-pi1.n", "mine"),), "", "")
    follower = site.pi1.lab.node.followers["config-pi1"]
    old = follower.epoch
    while follower.owner_position is not None and follower.owner_position[0] in ("", old):
        site.fleet.ready()[0]()
    for frame in kept[:1]:
        (topic,) = site.pi1.lab.node.topics_up.values()
        message = decode(frame)
        assert isinstance(message, m.RootUpdate)
        site.pi1.event(machine.uplink_changes, topic, message)
    while asked not in site.local.done:
        site.fleet.ready()[0]()
    assert site.local.answer(asked)[1] == [["config-pi1", 0]]
    assert site.pi1.tree("config-pi1") == {"n": "mine"}


def test_an_answer_waits_until_it_is_known_in_which_epoch_its_version_counts(site: Site) -> None:
    for n in range(9):
        site.noc.put("config-pi1.n", n)
    site.broker.slow()
    site.noc.start(m.Manage, "clear", "")
    asked = site.local.start(m.Write, (put("config-pi1.n", "mine"),), "", "", timeout=60.0)
    site.fleet.run()
    site.fleet.cut(site.pi1)
    site.broker.sync()
    site.fleet.restore(site.pi1)
    while asked not in site.local.done:
        site.fleet.pass_time(site.fleet.now + 1)
        while site.fleet.ready() and asked not in site.local.done:
            site.fleet.ready()[0]()
    assert site.pi1.tree("config-pi1") == {"n": "mine"}


def test_what_the_agent_lists(site: Site) -> None:
    site.local.subscribe("shared", "global")
    status = site.local.ask(m.Inspect, "status")["uplink"]
    assert (status["state"], status["server"]) == ("connected", "gateway")
    assert status["operational"] == [{"root": "ops-pi1", "accepted": True}]
    assert site.local.ask(m.Inspect, "global") == {"shared": ["local"]}
    assert site.noc.ask(m.Inspect, "forwarders")[0]["sessions"] == ["pi1/local"]
    site.noc.put("config-pi1.k", 1)
    site.fleet.wait(5)
    (entry,) = site.noc.ask(m.Inspect, "agents")
    assert entry["config"] == [{"root": "config-pi1", "version": 0, "behind": 0}]


def test_an_agent_whose_log_fails_serves_reads_and_converges_when_it_is_mended(site: Site) -> None:
    site.noc.put("config-pi1.n", 0)
    site.pi1.slow()
    site.noc.put("config-pi1.n", 1)
    site.pi1.fail()
    assert site.local.get("config-pi1.n") == 0
    fails(site.local, errors.StorageError, m.Write, (put("ops-pi1.n", 1),), "", "")
    site.pi1.mend()
    site.fleet.wait(6)
    site.pi1.sync()
    assert site.local.get("config-pi1.n") == 1


def test_tags_of_an_agents_root_are_asked_of_the_agent(site: Site) -> None:
    for n in range(3):
        site.local.put("ops-pi1.n", n)
    assert site.noc.ask(m.Tag, "ops-pi1", 1, "z") == 1
    assert site.noc.ask(m.Get, ("ops-pi1",), "z", "value", "")[0] == {"n": 1}
    assert site.local.ask(m.Get, ("ops-pi1",), "z", "value", "")[0] == {"n": 1}
    assert site.noc.ask(m.Diff, ("ops-pi1",), "z", ("ops-pi1",), None) == [[["n"], [1], [2]]]
    assert site.noc.ask(m.Blame, ("ops-pi1",), "z")[0][:2] == [["ops-pi1", "n"], 1]
    txid = site.noc.ask(m.Begin)
    assert site.noc.ask(m.Get, ("ops-pi1",), "z", "value", txid)[0] == {"n": 1}
    fails(site.noc, errors.InvalidValue, m.Write, (("rollback", ("ops-pi1",), "z", None, False),), "", txid)
    assert site.noc.ask(m.Untag, "ops-pi1", "z") == 1
    fails(site.noc, errors.NotFound, m.Get, ("ops-pi1",), "z", "value", "")
    fails(site.noc, errors.NotFound, m.Untag, "ops-pi1", "z")
    site.noc.put("shared.n", 1)
    site.noc.ask(m.Tag, "ops-pi1", None, "now")
    error = fails(site.noc, errors.NotFound, m.Diff, ("ops-pi1",), "now", ("shared",), None)
    assert "does not own shared" in error.message
    site.fleet.cut(site.pi1)
    fails(site.noc, errors.OwnerAway, m.Get, ("ops-pi1",), "now", "value", "")


def test_what_an_agent_does_not_take_from_above_it_refuses_at_once(site: Site) -> None:
    (link,) = [link for link in site.fleet.links if link.dialer is site.pi1]
    for body in (m.Begin(7, 1, 1000), m.Get(8, 1, 1000, ("ops-pi1",), None, "value", "")):
        site.pi1.take(m.Forward("s" * 65, "noc", encode(body)))
    answers = [decode(frame) for frame in link.up]
    link.up.clear()
    failures = [decode(each.body) for each in answers if isinstance(each, m.Forward)]
    assert [(each.id, each.code) for each in failures if isinstance(each, m.Failure)] == [
        (7, "ProtocolError"),
        (8, "ProtocolError"),
    ]
    assert not site.pi1.lab.node.below


def test_a_program_for_which_the_broker_has_no_room_is_told_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.broker.lab.node.sessions.limit = len(site.broker.lab.node.sessions)
    site.local.register("ops-pi1.echo", lambda: 1)
    assert "TooLarge" in site.pi1.noted("handler refused by the node above")[0]["error"]
    site.local.subscribe("shared", "global")
    assert "TooLarge" in site.pi1.noted("subscription refused by the node above")[0]["error"]
    assert len(site.broker.noted("message refused")) == 2
    for cls, *fields in (
        (m.Write, (put("shared.n", 1),), "", ""),
        (m.Get, ("shared",), None, "value", ""),
        (m.Call, ("tools", "x"), (), {}),
    ):
        error = fails(site.local, errors.TooLarge, cls, *fields)
        assert "limits.sessions" in error.message
    assert site.local.call("ops-pi1.echo") == 1
    assert not site.broker.noted("session ended"), "the agent's own goes on"
    site.broker.lab.node.sessions.limit += 1
    site.local.put("shared.n", 1)
    monkeypatch.setattr(lifecycle, "MAX_SUBSESSIONS", 1)
    other = site.fleet.client("other", site.pi1)
    site.fleet.run()
    error = fails(other, errors.TooLarge, m.Get, ("shared",), None, "value", "")
    assert "beyond pi1" in error.message
    (link,) = [link for link in site.fleet.links if link.dialer is site.pi1]
    (noc,) = [each for each in site.broker.lab.node.sessions if each.tega_id == "noc"]
    get = m.Get(7, 1, 1000, ("shared",), None, "value", "")
    site.broker.receive(link.peer, encode(m.Forward(noc.id, "local", encode(get))))
    answers = [decode(frame) for frame in link.down]
    failures = [decode(each.body) for each in answers if isinstance(each, m.Forward)]
    assert [(each.id, each.code) for each in failures] == [(7, "ProtocolError")]


def test_tags_at_an_agent_are_those_of_the_node_above_too(site: Site) -> None:
    site.noc.put("config-pi1.n", 1)
    site.noc.put("shared.n", 1)
    site.local.put("ops-pi1.n", 1)
    site.local.ask(m.Tag, "shared", None, "golden")
    site.noc.ask(m.Tag, "config-pi1", None, "golden")
    site.noc.ask(m.Tag, "ops-pi1", None, "mine")
    tags = [{"root": "config-pi1", "tag": "golden", "version": 0}]
    tags.append({"root": "ops-pi1", "tag": "mine", "version": 0})
    tags.append({"root": "shared", "tag": "golden", "version": 0})
    assert site.local.ask(m.Inspect, "tags") == tags
    assert site.noc.ask(m.Inspect, "tags") == [tags[0], tags[2]], "an agent has its own"
    site.fleet.cut(site.pi1)
    assert site.local.ask(m.Inspect, "tags") == [tags[1]]


def test_the_candidate_of_what_is_read_through_is_made_by_its_owner(site: Site) -> None:
    site.noc.put("num", {"p": 1, "gone": 1})
    site.noc.put("num.p", 2)
    site.noc.put("config-pi1.n", 1)
    txid = site.local.ask(m.Begin)
    ops = (put("num.q", 1), ("delete", ("num", "gone"), None, None, False), put("config-pi1.n", 2))
    site.local.ask(m.Write, (*ops, put("new.a", 1)), "", txid)
    trees, changes = site.local.ask(m.Candidate, txid)
    assert dict(map(tuple, trees)) == {"num": {"p": 2, "q": 1}, "config-pi1": {"n": 2}, "new": {"a": 1}}
    assert sorted(map(str, changes)) == [
        "[['config-pi1', 'n'], [1], [2]]",
        "[['new'], [], [{'a': 1}]]",
        "[['num', 'gone'], [1], []]",
        "[['num', 'q'], [], [1]]",
    ]
    site.local.ask(m.Write, (("rollback", ("num",), 0, None, False), put("num.r", 1)), "", txid)
    assert dict(map(tuple, site.local.ask(m.Candidate, txid)[0]))["num"] == {"p": 1, "gone": 1, "r": 1}
    assert site.local.ask(m.Get, ("num",), None, "value", txid)[0] == {"p": 1, "gone": 1, "r": 1}
    assert not [each for each in site.broker.lab.node.sessions if each.transactions], "none is left open"
    assert site.noc.get("num") == {"p": 2, "gone": 1}
    site.local.ask(m.CommitTransaction, txid, "")
    assert site.noc.get("num") == {"p": 1, "gone": 1, "r": 1}


def test_a_candidate_that_the_owner_cannot_make(site: Site) -> None:
    txid = site.local.ask(m.Begin)
    site.local.ask(m.Write, (("delete", ("nothing",), None, None, False),), "", txid)
    fails(site.local, errors.NotFound, m.Candidate, txid)
    assert not [each for each in site.broker.lab.node.sessions if each.transactions], "none is left open"
    asked = site.local.start(m.Candidate, txid)
    (session,) = [each for each in site.pi1.lab.node.sessions if each.tega_id == "local"]
    while type(getattr(session.pending.get(asked), "message", None)) is not m.Write:
        site.fleet.ready()[0]()
    site.broker.kill()
    site.broker.start()
    site.fleet.wait(10)
    with pytest.raises(errors.Disconnected, match="ask again"):
        site.local.answer(asked)
    fails(site.local, errors.NotFound, m.Candidate, txid)
    for n in range(9):
        site.local.ask(m.Write, (put(f"big.k{n}", "x" * 1_000_000),), "", txid)
    fails(site.local, errors.TooLarge, m.Candidate, txid)
    assert not [each for each in site.broker.lab.node.sessions if each.transactions], "none is left open"
    site.fleet.cut(site.pi1)
    fails(site.local, errors.Offline, m.Candidate, txid)
