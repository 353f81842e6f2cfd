"""Sessions that a bridge holds in the name of a tega_id: beside its own, in nobody's way."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import errors, store
from tega_zmq.node import machine
from tega_zmq.wire import messages as m
from tests.unit.node.lab import Lab, Peer


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_it_stands_beside_the_tega_ids_own_session(lab: Lab) -> None:
    before = lab.join("ann", "delegate")
    own = lab.join("ann")
    after, third = lab.join("ann", "delegate"), lab.join("ann", "delegate")
    assert not any(peer.take(m.Displaced) for peer in (before, own, after, third))
    assert lab.node.claimant("ann") is lab.node.sessions.by_id[own.session]
    for number, peer in enumerate((before, own, after, third)):
        peer.put("a.x", number)
    entries = own.ask(m.Log, ("a",), 9)
    assert [entry[2] for entry in entries] == ["ann"] * 4
    listed = own.ask(m.Inspect, "sessions")
    assert sorted(each["kind"] for each in listed) == ["client", "delegate", "delegate", "delegate"]
    assert own.ask(m.Inspect, "ids") == ["ann"]
    before.tell(m.Bye())
    assert lab.node.claimant("ann") is lab.node.sessions.by_id[own.session]
    own.tell(m.Bye())
    assert lab.node.claimant("ann") is None
    assert after.get("a.x") == 3


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (m.Register, (("a", "f"),)),
        (m.Claim, ("ops-ann", "", -1)),
        (m.Report, ("plugins", [])),
        (m.Write, ((("put", ("a", "x"), 1, None, True),), "", "")),
        (m.Write, ((("put", ("b", "x"), 1, None, False), ("put", ("a", "x"), 1, None, True)), "", "")),
    ],
)
def test_it_owns_nothing_that_others_see(lab: Lab, cls: type[Any], fields: tuple[Any, ...]) -> None:
    peer = lab.join("ann", "delegate")
    with pytest.raises(errors.Forbidden) as raised:
        peer.ask(cls, *fields)
    assert (raised.value.tega_id, raised.value.action) == ("ann", cls.__name__)
    assert not lab.node.durable.roots
    lab.join("bob").ask(cls, *fields)


def test_it_does_not_stand_for_an_agent(lab: Lab) -> None:
    agent = lab.join("pi1", "agent")
    agent.ask(m.Claim, "ops-pi1", "", -1)
    delegate = lab.join("pi1", "delegate")
    agent.take(m.Forward)
    delegate.start(m.Write, (("put", ("ops-pi1", "x"), 1, None, False),), "", "")
    assert agent.take(m.Forward), "a write goes to the agent's own session"
    agent.cut()
    agent.tell(m.Bye())


def test_it_is_what_it_is_also_after_a_restart(lab: Lab) -> None:
    own, delegate = lab.join("ann"), lab.join("ann", "delegate")
    state = store.empty(store.Kept())
    for record in lab.disk:
        state = store.apply(state, record)
    again = Lab(state=state, prefix="f")
    sessions = again.node.sessions
    assert sessions.by_tega_id["ann"].id == own.session
    assert sessions.by_id[delegate.session].kind == "delegate"
    delegate.lab = own.lab = again
    assert delegate.hello().resumed and own.hello().resumed
    with pytest.raises(errors.Forbidden):
        delegate.put("a.x", 1, ephemeral=True)
    own.put("a.x", 1, ephemeral=True)


def test_neither_kind_turns_into_the_other(lab: Lab) -> None:
    for kind, other in (("client", "delegate"), ("delegate", "client")):
        peer = lab.join("ann", kind)
        peer.kind = other
        with pytest.raises(errors.ProtocolError):
            peer.hello()


def test_its_lease_is_kept_when_the_log_is_mended(lab: Lab) -> None:
    lab.fail()
    delegate = lab.join("ann", "delegate")
    lab.mend()
    assert lab.node.tip.leases[delegate.session].via == "*"
    lab.wait(60.0)
    assert not len(lab.node.sessions)
    assert not lab.node.tip.leases


def test_what_is_counted(lab: Lab) -> None:
    peer, handler = Peer(lab, "noc"), Peer(lab, "handler")
    handler.ask(m.Register, ("t", "f"))
    call = peer.start(m.Call, ("t", "f"), (), {})
    handler.tell(m.Result(handler.take(m.Invoke)[0].call, True, 0))
    assert peer.answer(call) == 0
    with pytest.raises(errors.NoHandler):
        peer.ask(m.Call, ("t", "none"), (), {})
    call = peer.start(m.Call, ("t", "f"), (), {})
    peer.ask(m.CancelCall, call)
    peer.start(m.Call, ("t", "f"), (), {})
    handler.cut()
    status = peer.ask(m.Inspect, "status")
    assert status["counts"]["calls"] == {"ok": 1, "NoHandler": 1, "Cancelled": 1, "HandlerGone": 1}
    assert status["queues"] == {"records": 0, "answers": 0, "messages": 0}
    lab.auto = False
    peer.start(m.Write, (("put", ("a", "x"), 1, None, False),), "", "")
    status = peer.ask(m.Inspect, "status")
    assert (status["queues"]["records"], status["queues"]["answers"]) == (1, 1)


def test_dropped_messages_are_counted(lab: Lab) -> None:
    talker, slow = lab.join("talker"), lab.join("slow")
    slow.ask(m.Listen, 1, "news", False, "local")
    machine.congested(lab.node, slow.address)
    for number in range(1003):
        talker.ask(m.Publish, "news", number)
    status = talker.ask(m.Inspect, "status")
    assert (status["queues"]["messages"], status["counts"]["dropped"]) == (1000, 0)
    machine.drained(lab.node, slow.address, lab.now)
    lab.run()
    status = talker.ask(m.Inspect, "status")
    assert (status["queues"]["messages"], status["counts"]["dropped"]) == (0, 3)
