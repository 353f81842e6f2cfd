"""What the simulation found in the node, in the smallest story of each."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import errors
from tega_zmq.node import Settings
from tega_zmq.store import Kept
from tega_zmq.wire import messages as m
from tests.unit.node.fleet import Fleet
from tests.unit.node.lab import Lab


def put(path: str, value: Any) -> tuple[Any, ...]:
    return ("put", tuple(path.split(".")), value, None, False)


def site() -> tuple[Fleet, Any]:
    fleet = Fleet(Settings("gateway", lease=10.0, heartbeat=2.0, changes=":1", direct_followers=0), Kept())
    pi1 = fleet.agent("pi1", config=("config-pi1",), operational=("ops-pi1",))
    fleet.wait(1)
    return fleet, pi1


def test_an_agent_does_not_tell_that_a_root_is_gone_which_only_the_broker_has() -> None:
    fleet, pi1 = site()
    noc = fleet.client("noc")
    local = fleet.client("local", pi1)
    fleet.wait(1)
    noc.put("gw.k", 1)
    local.subscribe("gw", "global")
    noc.put("gw.k", 2)
    fleet.run()
    assert [change.new for change in local.heard] == [2]
    assert local.link is not None
    pi1.kill()
    pi1.start()
    fleet.wait(3)
    noc.put("gw.k", 3)
    fleet.run()
    assert [(change.path, change.new) for change in local.heard] == [("gw.k", 2), ("gw.k", 3)]


def test_an_agent_whose_log_failed_right_at_its_start_follows_its_roots_when_it_is_mended() -> None:
    lab = Lab(
        Settings("pi1", config=("config-pi1",), operational=("ops-pi1",)), durable=False, uplink=_uplink()
    )
    lab.fail()
    assert "config-pi1" not in lab.node.tip.roots
    lab.mend()
    assert lab.node.tip.roots["config-pi1"].owner == "^"
    assert lab.node.number == len(lab.disk)


def _uplink() -> Any:
    from tega_zmq.client.protocol import ClientSession

    return ClientSession("pi1", "agent", jitter=lambda: 0.5)


def test_a_write_whose_owner_lost_its_session_is_not_sent_to_its_next_one() -> None:
    lab = Lab(Settings("gateway", lease=10.0, heartbeat=2.0))
    pi1, noc = lab.join("pi1", "agent"), lab.join("noc")
    pi1.ask(m.Claim, "ops", "", -1)
    id = noc.start(m.Write, (put("ops.k", 1),), "", "")
    assert len(pi1.take(m.Forward)) == 1
    noc.cut()
    again = lab.join("pi1", "agent")  # a new card: it knows nothing of the session before
    again.ask(m.Claim, "ops", "", -1)
    noc.hello()
    noc.tell(m.Write(id, 1, 10_000, (put("ops.k", 1),), "", ""))
    assert not again.take(m.Forward)
    try:
        noc.answer(id)
    except errors.Disconnected as error:
        assert error.outcome == "unknown"
    else:
        raise AssertionError("the write has an answer that nobody can know")


def test_a_root_is_not_disowned_while_writes_of_before_a_restart_may_come_again() -> None:
    fleet, pi1 = site()
    noc = fleet.client("noc")
    fleet.wait(1)
    pi1.kill()
    fleet.broker.kill()
    fleet.broker.start()
    other = fleet.client("other")
    with pytest.raises(errors.OwnerAway, match="before gateway was restarted"):
        other.ask(m.Manage, "disown", "ops-pi1")
    assert noc.session is not None
    fleet.wait(30)
    assert other.ask(m.Manage, "disown", "ops-pi1") == {"disowned": "ops-pi1"}


def test_an_agent_whose_root_is_disowned_under_it_claims_it_again_when_it_is_empty() -> None:
    fleet, pi1 = site()
    noc = fleet.client("noc")
    local = fleet.client("local", pi1)
    fleet.wait(1)
    local.put("ops-pi1.k", 1)
    fleet.run()
    noc.ask(m.Manage, "disown", "ops-pi1")
    fleet.run()
    assert "ops-pi1" not in pi1.lab.node.claimed
    noc.delete("ops-pi1")
    fleet.wait(40)
    assert pi1.position("ops-pi1") == fleet.broker.position("ops-pi1")
    assert fleet.broker.tree("ops-pi1") == {"k": 1}


def test_an_agent_that_was_taken_over_and_is_restarted_by_hand_comes_back() -> None:
    fleet, pi1 = site()
    other = fleet.client("pi1")
    fleet.wait(1)
    assert pi1.session is not None
    assert pi1.session.state == "taken over"
    other.close()
    fleet.wait(1)
    pi1.kill()
    pi1.start()
    fleet.wait(3)
    assert pi1.session.state == "connected"


def test_a_regex_hears_what_went_when_a_root_goes_on_in_another_epoch() -> None:
    fleet, pi1 = site()
    noc = fleet.client("noc")
    local = fleet.client("local", pi1)
    fleet.wait(1)
    local.put("ops-pi1.k", 1)
    fleet.run()
    noc._follow(noc.subscriptions.to_regex(r"ops-.*\..*", "local", noc.heard.append))
    pi1.kill()
    pi1.start(wiped=True)
    fleet.wait(5)
    assert fleet.broker.tree("ops-pi1") is None
    assert [(change.path, change.deleted) for change in noc.heard] == [("ops-pi1.k", True)]
