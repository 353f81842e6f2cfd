"""Promises that no single module keeps: durability before answers, retries, takeovers, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq import errors, store
from tega_zmq.node import Settings, lifecycle, machine, passing, replication
from tega_zmq.node.effects import Send, SendUp, Snapshot
from tega_zmq.store import Kept
from tega_zmq.wire import decode, encode
from tega_zmq.wire import messages as m
from tests.unit.node.fleet import Client, Fleet
from tests.unit.node.lab import Lab, Peer


def put(path: str, value: Any, expected: int | None = None, *, ephemeral: bool = False) -> Any:
    return ("put", tuple(path.split(".")), value, expected, ephemeral)


def write(*ops: Any, message: str = "", txid: str = "") -> tuple[Any, ...]:
    return (m.Write, tuple(ops), message, txid)


# -- answers wait for the disk, and nothing else does ------------------------------------------------


def test_every_answer_that_depends_on_a_commit_waits_for_it_and_others_go_on() -> None:
    lab = Lab(durable=False)
    writer, reader, handler = lab.join("writer"), lab.join("reader"), lab.join("handler")
    handler.ask(m.Register, ("t", "f"))
    lab.sync()
    done = writer.start(*write(put("a.k", 1)))
    collision = reader.start(*write(put("a.k", 2, -1)))
    missing = reader.start(*write(("delete", ("a", "none"), None, None, False)))
    nothing = reader.start(*write(put("a.k", 1)))
    own = writer.start(m.Get, ("a", "k"), None, "value", "")
    claim = handler.start(m.Claim, "ops", "", -1)
    waiting = [(writer, done), (reader, collision), (reader, missing), (reader, nothing), (writer, own)]
    assert not any(peer.answered(id) for peer, id in waiting)
    assert not handler.answered(claim)
    with pytest.raises(errors.NotFound):
        reader.get("a.k")
    assert reader.ask(m.Inspect, "ids") == ["handler", "reader", "writer"]
    call = reader.start(m.Call, ("t", "f"), (), {})
    handler.tell(m.Result(handler.take(m.Invoke)[0].call, True, 0))
    assert reader.answer(call) == 0
    lab.sync()
    assert writer.answer(done) == [1, [["a", 0]]]
    with pytest.raises(errors.Collision):
        reader.answer(collision)
    with pytest.raises(errors.NotFound):
        reader.answer(missing)
    assert reader.answer(nothing) == [0, [["a", 0]]]
    assert writer.answer(own) == [1, None]
    assert handler.answer(claim) == ["", -1]


def test_what_is_not_durable_is_not_published_and_not_told() -> None:
    lab = Lab(Settings("broker", direct_followers=0), durable=False)
    writer, reader, agent = lab.join("writer"), lab.join("reader"), lab.join("pi1", "agent")
    lab.sync()
    agent.ask(m.Follow, "a", True)
    reader.ask(m.Subscribe, 1, ("a",), "local", ())
    writer.start(*write(put("a.k", 1)))
    assert (reader.take(m.Changed), lab.published) == ([], [])
    lab.fail()
    assert (reader.take(m.Changed), lab.published) == ([], [])
    lab.mend()
    writer.start(*write(put("a.k", 2)))
    lab.sync()
    (changed,) = reader.take(m.Changed)
    assert (changed.previous, changed.version) == (-1, 0)
    assert [each.message.update[3] for each in lab.published] == [0]


def test_new_epochs_that_the_log_lost_are_begun_when_it_is_mended() -> None:
    before = Lab()
    before.join("noc").put("a.k", 1)
    old = before.node.durable.roots["a"].epoch
    lab = Lab(state=before.node.durable, durable=False, prefix="ee", epochs=True)
    lab.fail()
    assert lab.node.tip.roots["a"].epoch == old
    lab.mend()
    lab.sync()
    assert lab.node.durable.roots["a"].epoch != old
    assert not lab.node.renewing


def test_a_mended_log_ends_sessions_before_it_opens_others() -> None:
    lab = Lab(durable=False)
    lab.join("noc")
    lab.sync()
    lab.fail()
    lab.join("noc")
    lab.mend()
    lab.sync()
    kinds = [type(record).__name__ for record in lab.disk]
    assert kinds == ["Opened", "Ended", "Opened"]
    assert [lease.tega_id for lease in lab.node.durable.leases.values()] == ["noc"]


def test_a_snapshot_that_was_begun_before_the_log_failed_mends_nothing() -> None:
    lab = Lab()
    peer = lab.join("noc")
    peer.put("a.k", 1)
    lab.auto = False
    lab.fail()
    asked = peer.start(m.Manage, "snapshot", "")
    assert lab.other == [Snapshot()]
    machine.snapshot_done(lab.node, 1, 10, 0.1, lab.now, mended=False)
    lab.run()
    assert lab.other == [Snapshot(), Snapshot()], "another one for who waits"
    assert not peer.answered(asked)
    with pytest.raises(errors.StorageError):
        peer.put("a.k", 2)
    lab.mend()
    assert peer.answer(asked)["number"] == lab.node.durable_number
    machine.snapshot_failed(lab.node, "no space", lab.now)
    lab.auto = True
    assert peer.put("a.k", 2)


def test_a_claim_that_the_disk_lost_is_noted_again() -> None:
    lab = Lab(durable=False)
    agent, noc = lab.join("pi1", "agent"), lab.join("noc")
    lab.sync()
    claim = agent.start(m.Claim, "ops", "e1", -1)
    ended = lab.join("short")
    ended.start(*write(put("a.presence", 1, ephemeral=True)))
    lab.sync()
    again = agent.start(m.Claim, "ops-2", "e1", -1)
    ended.tell(m.Bye())
    below = m.Forward("sub", "prog", encode(m.Begin(1, 1, 1000)))
    agent.tell(below)
    lab.fail()
    assert agent.answer(claim)
    with pytest.raises(errors.StorageError):
        agent.answer(again)
    assert noc.get("a.presence") == 1, "the end of its session was not durable"
    update = store.Update("ops", "e1", -1, 0, (store.Change(("ops", "k"), True, 1),), 1.0, "pi1")
    agent.tell(m.RootUpdate(tuple(store.update_to_plain(update))))
    lab.mend()
    lab.sync()
    assert {name: root.owner for name, root in lab.node.durable.roots.items()} == {
        "a": "",
        "ops": "pi1",
        "ops-2": "pi1",
    }
    with pytest.raises(errors.NotFound):
        noc.get("a.presence")
    assert set(lab.node.durable.leases.keys()) == {agent.session, noc.session, "sub"}
    replayed = store.replay(store.empty(), lab.disk)
    assert replayed.leases == lab.node.durable.leases


# -- retries ---------------------------------------------------------------------------------------


def again(peer: Peer, id: int, cls: Any, *fields: Any) -> Any:
    """The answer was lost: reconnect, and ask again under the same id."""
    peer.collect()
    peer.other.clear()
    peer.cut()
    peer.hello()
    peer.tell(cls(id, 1, 10_000, *fields))
    return peer.answer(id)


def test_retries_within_a_transaction_change_nothing() -> None:
    lab = Lab()
    peer = lab.join("noc")
    peer.put("a", {"k": 1, "l": 2})
    id = peer.start(m.Begin)
    txid = peer.answer(id)
    assert again(peer, id, m.Begin) == txid
    delete = (("delete", ("a", "k"), None, None, False),)
    id = peer.start(m.Write, delete, "", txid)
    assert again(peer, id, m.Write, delete, "", txid) is None
    id = peer.start(m.CommitTransaction, txid, "")
    outcome = peer.answer(id)
    assert again(peer, id, m.CommitTransaction, txid, "") == outcome
    assert peer.get("a") == {"l": 2}


def test_the_end_of_a_transaction_without_a_commit_is_remembered_too() -> None:
    lab = Lab()
    peer = lab.join("noc")
    peer.put("a.k", 1)
    for ops, error in ([(put("a.k", 1),), None], [(put("a.k", 2, -1),), errors.Collision]):
        txid = peer.ask(m.Begin)
        peer.ask(m.Write, ops, "", txid)
        id = peer.start(m.CommitTransaction, txid, "")
        if error is None:
            assert again(peer, id, m.CommitTransaction, txid, "") == [0, [["a", 0]]]
        else:
            with pytest.raises(error):
                again(peer, id, m.CommitTransaction, txid, "")
    txid = peer.ask(m.Begin)
    id = peer.start(m.CancelTransaction, txid)
    assert again(peer, id, m.CancelTransaction, txid) is None


def test_a_retry_of_a_refused_write_gets_the_refusal_and_is_not_carried_out() -> None:
    lab = Lab()
    peer, other = lab.join("noc"), lab.join("other")
    peer.put("a.k", 1)
    op = put("a.k", 2, -1)
    id = peer.start(*write(op))
    other.delete("a.k")
    with pytest.raises(errors.Collision):
        again(peer, id, *write(op))
    id = peer.start(*write(op))
    assert peer.answer(id)


def test_a_retry_of_a_write_whose_answer_waited_for_the_replica_is_not_passed_on() -> None:
    lab = Lab()
    agent, noc = lab.join("pi1", "agent"), lab.join("noc")
    agent.ask(m.Claim, "ops", "e1", -1)
    request = m.Write(1, 1, 10_000, (("put", ("ops", "k"), 1, None, False),), "", "")
    noc.tell(request)
    (passed,) = agent.take(m.Forward)
    agent.tell(m.Forward(passed.session, "", encode(m.Reply(1, [1, [["ops", 0]]]))))
    assert noc.take(m.Reply) == [], "the replica does not show it yet"
    agent.tell(m.Heartbeat((("ops", "e1", 0),)))
    agent.tell(m.Chunk("ops", "e1", 0, 0, True, (), True, False, (), (), 1.0, "pi1", ""))
    (first,) = noc.take(m.Reply)
    noc.tell(request)
    assert noc.take(m.Reply) == [first]
    assert agent.take(m.Forward) == []


def test_a_write_is_passed_on_only_for_a_session_that_a_restart_remembers() -> None:
    lab = Lab(durable=False)
    agent, other = lab.join("pi1", "agent"), lab.join("pi2", "agent")
    lab.sync()
    claim = agent.start(m.Claim, "ops", "e1", -1)
    lab.sync()
    assert agent.answer(claim)
    request = m.Write(1, 1, 10_000, (("put", ("ops", "k"), 1, None, False),), "", "")
    other.tell(m.Forward("ab" * 16, "prog", encode(request)))
    assert agent.take(m.Forward) == []
    lab.sync()
    assert [each.session for each in agent.take(m.Forward)] == ["ab" * 16]
    other.tell(m.Forward("cd" * 16, "more", encode(request)))
    lab.fail()
    other.tell(m.Forward("ef" * 16, "late", encode(request)))
    refused = [decode(each.body) for each in other.take(m.Forward)]
    assert [each.code for each in refused if isinstance(each, m.Failure)] == ["StorageError"] * 2
    assert agent.take(m.Forward) == []


def test_a_retry_of_a_write_to_a_root_that_was_given_away_since_is_not_passed_on() -> None:
    lab = Lab()
    agent, noc = lab.join("pi1", "agent"), lab.join("noc")
    request = m.Write(1, 1, 10_000, (("put", ("ops", "k"), 1, None, False),), "", "")
    noc.tell(request)
    (first,) = noc.take(m.Reply)
    lab.join("operator").delete("ops")
    agent.ask(m.Claim, "ops", "e1", -1)
    noc.tell(request)
    assert (noc.take(m.Reply), agent.take(m.Forward)) == ([first], [])


def test_a_subscriber_hears_nothing_of_a_root_whose_new_owner_said_nothing_yet() -> None:
    lab = Lab()
    noc, agent = lab.join("noc"), lab.join("pi1", "agent")
    noc.put("ops.k", 1)
    noc.delete("ops")
    epoch = lab.node.durable.roots["ops"].epoch
    agent.ask(m.Claim, "ops", "e1", -1)
    noc.ask(m.Subscribe, 1, ("ops",), "local", (("ops", epoch, 0),))
    assert noc.take(m.Changed) == []


def test_retries_of_reads_while_they_wait_are_answered_once() -> None:
    lab = Lab(durable=False)
    peer = lab.join("noc")
    lab.sync()
    peer.start(*write(put("a.k", 1)))
    get = m.Get(9, 1, 1000, ("a", "k"), None, "value", "")
    peer.tell(get)
    peer.tell(get)
    lab.sync()
    assert [each.id for each in peer.take(m.Reply)].count(9) == 1


class Site:
    """A broker, an agent and clients of both, with short leases."""

    def __init__(self, kept: Kept | None = None) -> None:
        broker = Settings("gateway", lease=10.0, heartbeat=2.0, changes=":1", direct_followers=0)
        self.fleet = Fleet(broker, kept)
        self.pi1 = self.fleet.agent("pi1", config=("config",), operational=("ops",))
        self.noc = self.fleet.client("noc")
        self.local = self.fleet.client("local", self.pi1)
        self.fleet.wait(1)

    def lose_answer(self, client: Client, *request: Any) -> int:
        """A write is carried out above, and nothing of that comes back through the agent."""
        id = client.start(*request, timeout=60.0)
        for _ in range(100):
            link = self.pi1.link
            assert link is not None
            if any(b"Z" * 50 in repr(record).encode() for record in self.fleet.broker.disk):
                break
            self.fleet.ready()[0]()
        self.fleet.cut(self.pi1)
        return id


BIG = "Z" * 60


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.mark.parametrize("away", [3.0, 30.0])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_forwarded_write_is_done_once_or_its_outcome_is_unknown(
    site: Site, away: float, restarted: bool
) -> None:
    id = site.lose_answer(site.local, *write(put("shared.k", BIG)))
    if restarted:
        site.pi1.kill()
    site.fleet.wait(away)
    site.fleet.cut(site.local)
    if restarted:
        site.pi1.start()
    site.fleet.restore(site.pi1)
    site.fleet.restore(site.local)
    site.fleet.wait(20)
    if away < 10:
        assert site.local.answer(id) == [1, [["shared", 0]]]
    else:
        with pytest.raises(errors.Disconnected) as raised:
            site.local.answer(id)
        assert raised.value.outcome == "unknown"
    assert len(site.noc.ask(m.Log, ("shared",), 10)) == 1
    assert site.local.put("shared.after", 1) == [2, [["shared", 1]]]


def test_a_retry_that_comes_after_the_session_above_was_lost_is_not_passed_on(site: Site) -> None:
    """The client was away when it was told that the outcome is unknown."""
    id = site.lose_answer(site.local, *write(put("shared.k", BIG)))
    site.fleet.wait(2)
    session = site.pi1.lab.node.sessions.by_tega_id["local"]
    site.fleet.wait(10)
    site.fleet.restore(site.pi1)
    site.fleet.wait(3)
    assert session.lost_above >= 1
    with pytest.raises(errors.Disconnected):
        site.local.answer(id)
    retry = m.Write(session.lost_above, 1, 1000, (put("shared.k", BIG),), "", "")
    site.pi1.event(machine.receive, session.peer, retry)
    site.fleet.wait(1)
    assert len(site.noc.ask(m.Log, ("shared",), 10)) == 1


def test_a_write_that_cannot_be_tried_again_has_an_unknown_outcome(site: Site) -> None:
    site.fleet.agent("pi2", operational=("ops-2",))
    site.fleet.wait(1)
    pi2 = site.fleet.stations[-1]
    id = site.noc.start(*write(put("ops-2.k", 1)), timeout=60.0)
    for _ in range(3):
        site.fleet.ready()[0]()
    site.fleet.broker.kill()
    site.fleet.cut(pi2)
    site.fleet.wait(1)
    site.fleet.broker.start()
    site.fleet.wait(5)
    with pytest.raises(errors.Disconnected) as raised:
        site.noc.answer(id)
    assert raised.value.outcome == "unknown"
    with pytest.raises(errors.OwnerAway):
        site.noc.put("ops-2.k", 2)


# -- sessions --------------------------------------------------------------------------------------


def test_a_copy_with_the_same_token_takes_the_session_and_the_other_is_told() -> None:
    lab = Lab()
    one = lab.join("pi1", "agent")
    copy = Peer.__new__(Peer)
    copy.__dict__ |= {**one.__dict__, "other": []}
    assert copy.hello().resumed
    assert one.take(m.Displaced) == [m.Displaced("pi1")]
    one.tell(m.Heartbeat(()))
    assert one.take(m.Gone) == [m.Gone()], "it is no session any more, and being told is final"
    assert copy.ask(m.Inspect, "ids") == ["pi1"]


def test_who_was_taken_over_while_away_stays_away() -> None:
    lab = Lab()
    one = lab.join("noc")
    one.cut()
    two = lab.join("noc")
    with pytest.raises(errors.TakenOver):
        one.hello()
    assert two.ask(m.Inspect, "ids") == ["noc"]
    for number in range(lifecycle.MAX_DISPLACED + 5):
        lab.join(f"other-{number % 2}")
    assert len(lab.node.displaced) == lifecycle.MAX_DISPLACED


def test_resuming_on_a_connection_that_another_session_has() -> None:
    lab = Lab()
    one, two = lab.join("one"), lab.join("two")
    answers = lab.send(two.address, m.Hello(1, "one", "client", one.session, one.token))
    assert [type(each) for each in answers] == [m.Welcome]
    assert lab.node.sessions.by_id[one.session].peer == two.address
    assert lab.node.sessions.by_id[two.session].peer is None
    assert lab.take(one.address) == [m.Displaced("one")]
    answers = lab.send(two.address, m.Hello(1, "three", "client", "", ""))
    assert [type(each) for each in answers] == [m.Welcome]
    assert one.session not in lab.node.sessions.by_id, "hello anew ends what the connection had"


def test_more_sessions_than_allowed_are_dropped_at_a_restart() -> None:
    lab = Lab()
    peers = [lab.join(f"p{number}") for number in range(4)]
    peers[3].put("a.presence", 1, ephemeral=True)
    for peer in peers[:3]:
        peer.put(f"a.presence-{peer.tega_id}", 1, ephemeral=True)
    after = Lab(Settings("broker", max_sessions=2), state=store.replay(store.empty(), lab.disk), prefix="ff")
    assert len(after.node.sessions) == 2
    assert len(after.node.durable.leases) == 2
    after.wait(20)
    assert len(after.node.durable.leases) == 0
    assert after.node.durable.roots["a"].node is None


def test_a_sub_session_reads_again_after_its_agent_came_back() -> None:
    lab = Lab()
    agent, noc = lab.join("pi1", "agent"), lab.join("noc")
    noc.put("a.k", 0)
    agent.tell(m.Forward("sub", "prog", encode(m.Subscribe(1, 1, 1000, 1, ("a",), "local", ()))))
    agent.tell(m.Forward("sub", "prog", encode(m.Listen(2, 1, 1000, 2, "news", False, "local"))))
    agent.take(m.Forward)
    machine.congested(lab.node, agent.address)
    machine.congested(lab.node, b"nobody")
    noc.put("a.k", 1)
    noc.ask(m.Publish, "news", "first")
    agent.cut()
    noc.put("a.k", 2)
    noc.ask(m.Publish, "news", "second")
    assert agent.take(m.Forward) == []
    agent.hello()
    bodies = [machine.decode(each.body) for each in agent.take(m.Forward)]
    assert [each.value for each in bodies if isinstance(each, m.Message)] == ["first", "second"]
    assert [each.version for each in bodies if isinstance(each, m.Changed)] == [1, 2]
    noc.put("a.k", 3)
    assert len(agent.take(m.Forward)) == 1
    machine.congested(lab.node, agent.address)
    noc.put("a.k", 4)
    machine.drained(lab.node, agent.address, lab.now)
    machine.drained(lab.node, agent.address, lab.now)
    lab.run()
    assert len(agent.take(m.Forward)) == 1


# -- bounds ----------------------------------------------------------------------------------------


def test_unanswered_requests_and_timeouts_are_bounded() -> None:
    lab = Lab(Settings("broker", max_calls=3))
    peer, handler = lab.join("noc"), lab.join("handler")
    handler.ask(m.Register, ("t", "f"))
    calls = [peer.start(m.Call, ("t", "f"), (), {}) for _ in range(3)]
    with pytest.raises(errors.TooLarge) as raised:
        peer.get("a")
    assert raised.value.limit == 3
    peer.ask(m.CancelCall, calls[0])
    with pytest.raises(errors.Cancelled):
        peer.answer(calls[0])
    with pytest.raises(errors.NotFound):
        peer.get("a")
    with pytest.raises(errors.InvalidValue, match="86400001 ms"):
        peer.ask(m.Inspect, "ids", timeout=86_400_001)
    with pytest.raises(errors.TooLarge, match="would add"):
        handler.ask(m.Register, ("t", "g"))
        handler.ask(m.Register, ("t", "h"))
        peer.ask(m.CallAll, r"t\..", (), {})


def test_gated_reads_count_as_unanswered() -> None:
    lab = Lab(Settings("broker", max_calls=5), durable=False)
    peer = lab.join("noc")
    lab.sync()
    asked = [peer.start(*write(put("a.k", 1)))]
    asked += [peer.start(m.Get, ("a", "k"), None, "value", "") for _ in range(10)]
    lab.sync()
    codes = [each.code for each in peer.take(m.Failure)]
    assert codes == ["TooLarge"] * 6
    assert len(peer.take(m.Reply)) == 5
    assert lab.node.sessions.by_peer[peer.address].pending == {}


def test_topics_end_with_their_followers() -> None:
    lab = Lab(Settings("broker", direct_followers=0))
    one, two, noc = lab.join("one", "agent"), lab.join("two", "agent"), lab.join("noc")
    noc.put("a.k", 1)
    topic = one.ask(m.Follow, "a", True)[0]
    assert one.ask(m.Follow, "a", True)[0] == two.ask(m.Follow, "a", True)[0] == topic
    machine.topic_subscribed(lab.node, topic, lab.now)
    machine.topic_subscribed(lab.node, b"unknown", lab.now)
    assert machine.next_deadline(lab.node) == lab.now + replication.BEACON_DELAY
    one.tell(m.Bye())
    lab.wait(1)
    assert [each.message.update[4] for each in lab.published] == [[]], "one beacon"
    machine.topic_subscribed(lab.node, topic, lab.now)
    two.tell(m.Bye())
    node = lab.node
    assert (node.topics, node.topic_roots, node.by_topic, node.direct, node.beacons) == ({}, {}, {}, {}, {})
    lab.wait(1)
    noc.put("a.k", 2)
    assert len(lab.published) == 1
    for number in range(replication.MAX_FOLLOWS):
        noc.ask(m.Follow, f"r{number}", True)
    with pytest.raises(errors.TooLarge):
        noc.ask(m.Follow, "one-more", True)


def test_the_first_followers_get_updates_over_their_own_connections() -> None:
    lab = Lab(Settings("broker", direct_followers=1))
    one, two, three, noc = (lab.join(name, "agent") for name in ("one", "two", "three", "noc"))
    noc.put("a.k", 1)
    assert one.ask(m.Follow, "a", True)[0] == b""
    topic = two.ask(m.Follow, "a", True)[0]
    assert topic
    assert three.ask(m.Follow, "a", False)[0] == b"", "it cannot hear topics"
    assert one.ask(m.Follow, "a", True)[0] == b"", "and stays so"
    for peer in (one, two, three):
        peer.take(m.RootUpdate)
    noc.put("a.k", 2)
    ((said,), (also,)) = one.take(m.RootUpdate), three.take(m.RootUpdate)
    assert said == also and list(said.update[2:4]) == [0, 1]
    assert list(lab.published[-1].message.update[:4]) == list(said.update[:4])
    assert lab.published[-1].topic == topic and two.take(m.RootUpdate) == []
    machine.congested(lab.node, one.address)
    noc.put("a.k", 3)
    assert (one.take(m.RootUpdate), len(three.take(m.RootUpdate))) == ([], 1)
    machine.drained(lab.node, one.address, lab.now)
    noc.ask(m.Manage, "sync", "")
    assert ("a", lab.node.durable.roots["a"].epoch, 2) in one.take(m.Heartbeat)[-1].positions
    for peer in (one, two, three):
        peer.tell(m.Bye())
    assert (lab.node.topics, lab.node.by_topic, lab.node.direct) == ({}, {}, {})


def test_a_beacon_of_a_root_that_is_not_there_is_not_sent() -> None:
    lab = Lab(Settings("broker", direct_followers=0))
    agent = lab.join("pi1", "agent")
    machine.topic_subscribed(lab.node, agent.ask(m.Follow, "none", True)[0], lab.now)
    lab.wait(1)
    assert lab.published == []


def test_trees_on_their_way_are_bounded() -> None:
    lab = Lab()
    noc = lab.join("noc")
    for number in range(replication.MAX_SERVING + 4):
        noc.put(f"r{number}", {f"k{each}": "x" * 3000 for each in range(20)})
        noc.tell(m.Pull(f"r{number}", "", -1, 0))
    assert len(lab.node.sessions.by_peer[noc.address].serving_trees) == replication.MAX_SERVING
    chunks = noc.take(m.Chunk)
    assert len(chunks) == replication.MAX_SERVING + 4
    for cursor in range(1, 10):
        noc.tell(m.Pull("r19", "", -1, cursor))
        (chunk,) = noc.take(m.Chunk)
        if chunk.last:
            break
    assert len(lab.node.sessions.by_peer[noc.address].serving_trees) == replication.MAX_SERVING - 1
    noc.tell(m.Pull("_x", "", -1, 0))
    assert noc.take(m.Refused)[0].code == "InvalidPath"


def test_deadlines_of_answered_requests_do_not_pile_up(site: Site) -> None:
    for value in range(600):
        site.noc.put("ops.k", value)
        site.fleet.now += 0.001
    assert len(site.fleet.broker.lab.node.deadlines) <= 256
    assert site.fleet.broker.lab.node.shown == []
    session = site.fleet.broker.lab.node.sessions.by_tega_id["noc"]
    assert passing._waits(session, 1, 0.0) is False


def test_what_a_subscription_says_to_know_is_bounded() -> None:
    lab = Lab()
    peer = lab.join("noc")
    peer.put("a.k", 1)
    since = tuple((f"r{number}", "e", 1) for number in range(1001))
    with pytest.raises(errors.TooLarge):
        peer.ask(m.SubscribeRegex, 1, ".*", "local", since)
    assert len(peer.ask(m.SubscribeRegex, 1, ".*", "local", since[:1000])) == 1001
    assert peer.ask(m.Subscribe, 2, ("a",), "local", since) == [["a", "", -1]], "the others are no matter"


def test_cancelling_what_is_no_call_does_nothing(site: Site) -> None:
    site.fleet.broker.slow()
    site.pi1.slow()
    id = site.noc.start(*write(put("ops.k", 1)))
    site.fleet.run()
    site.noc.start(m.CancelCall, id)
    site.noc.start(m.CancelCall, 99)
    site.fleet.run()
    site.pi1.sync()
    site.fleet.run()
    site.fleet.broker.sync()
    site.fleet.run()
    assert site.noc.answer(id) == [1, [["ops", 0]]]


# -- what subscribers hear of roots that go ----------------------------------------------------------


def test_clear_is_told_to_subscribers_by_path_and_by_regex_now_or_later() -> None:
    lab = Lab()
    noc, away, busy = lab.join("noc"), lab.join("away"), lab.join("busy")
    noc.put("a.k", 1)
    for peer in (noc, away, busy):
        peer.ask(m.Subscribe, 1, ("a", "k"), "local", ())
        peer.ask(m.SubscribeRegex, 2, r"a\..", "local", ())
    away.cut()
    machine.congested(lab.node, busy.address)
    noc.ask(m.Manage, "clear", "")
    told = sorted(noc.take(m.Changed))
    assert [(each.subscription, each.reset, each.changes[0][2]) for each in told] == [
        (1, True, ()),
        (2, True, ()),
    ]
    away.hello()
    assert [each.subscription for each in away.take(m.Changed)] == [1, 2]
    machine.drained(lab.node, busy.address, lab.now)
    lab.run()
    assert [each.subscription for each in busy.take(m.Changed)] == [1, 2]
    noc.put("a.k", 2)
    assert [len(each.take(m.Changed)) for each in (noc, away, busy)] == [2, 2, 2]


def test_disown_tells_of_the_ephemeral_nodes_that_go(site: Site) -> None:
    site.local.put("ops.k", 1)
    site.local.put("ops.presence", 1, ephemeral=True)
    site.noc.subscribe("ops")
    site.fleet.cut(site.pi1)
    site.fleet.wait(20)
    site.noc.ask(m.Manage, "disown", "ops")
    (change,) = site.noc.heard
    assert (change.path, change.new, change.reset) == ("ops", {"k": 1}, True), "a new epoch starts over"
    assert site.noc.get("ops") == {"k": 1}
    assert site.noc.put("ops.k", 2)
    site.fleet.restore(site.pi1)
    site.fleet.wait(10)
    assert site.pi1.noted("claim refused")[-1]["error"].startswith("ReadOnly")


# -- through an agent --------------------------------------------------------------------------------


def test_a_global_subscription_misses_nothing_while_the_uplink_is_away(site: Site) -> None:
    site.noc.put("shared.k", 0)
    site.local.subscribe("shared", "global")
    site.local.subscribe("later", "global")
    regex = site.local.subscriptions.to_regex(r"s.*|new.*", "global", site.local.heard.append)
    site.local._follow(regex)
    site.fleet.cut(site.pi1)
    site.fleet.wait(3)
    site.noc.put("shared.k", 1)
    site.noc.put("later.k", 1)
    site.noc.put("newer.k", 1)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    heard = [change.path for change in site.local.heard]
    assert sorted(heard) == ["later", "newer", "shared.k", "shared.k"]
    for number in list(site.local.subscriptions._by_number):
        site.local.ask(m.Unsubscribe, number)
    session = site.pi1.lab.node.sessions.by_tega_id["local"]
    assert (session.told, session.asked_above, session.announced) == ({}, {}, {})
    sub = site.fleet.broker.lab.node.sessions.by_id[session.id]
    assert sub.subscriptions == {}


def test_messages_from_above_wait_for_a_program_that_is_away(site: Site) -> None:
    site.local.listen("news", "global")
    site.fleet.cut(site.local)
    for number in range(1003):
        site.noc.ask(m.Publish, "news", number)
    site.fleet.restore(site.local)
    site.fleet.wait(3)
    assert (len(site.local.messages), site.local.dropped) == (1000, 3)
    session = site.pi1.lab.node.sessions.by_tega_id["local"]
    dropped = m.Forward(session.id, "", encode(m.Dropped(4)))
    site.pi1.event(machine.uplink_received, dropped)
    site.fleet.run()
    assert site.local.dropped == 7


def test_ephemeral_nodes_above_are_put_again_as_they_were_last(site: Site) -> None:
    site.local.put("presence.pi1", {"since": 1, "load": 0}, ephemeral=True)
    site.local.put("presence.pi1.load", 5)
    site.local.put("presence.other", 1, ephemeral=True)
    site.local.put("presence.gone", 1, ephemeral=True)
    site.local.put("presence.lasting", 1, ephemeral=True)
    site.local.put("presence.lasting", 2)
    site.local.delete("presence.gone")
    site.local.put("presence", {"above": True})
    site.fleet.cut(site.pi1)
    site.fleet.wait(30)
    assert site.noc.get("presence") == {"above": True, "lasting": 2} or site.noc.get("presence") == {
        "above": True
    }
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    shown = site.noc.get("presence")
    assert shown["pi1"] == {"since": 1, "load": 5}
    assert shown["other"] == 1
    assert "gone" not in shown
    site.local.delete("presence")
    assert site.pi1.lab.node.sessions.by_tega_id["local"].ephemerals_above == {}


def test_reading_in_a_transaction_what_only_the_node_above_has(site: Site) -> None:
    site.noc.put("shared", {"k": 1, "l": {"m": 2}})
    txid = site.local.ask(m.Begin)
    site.local.ask(*write(put("shared.k", 5), put("fresh.x", 1), txid=txid))
    assert site.local.ask(m.Get, ("shared",), None, "value", txid)[0] == {"k": 5, "l": {"m": 2}}
    assert sorted(site.local.ask(m.Get, ("shared",), None, "oids", txid)) == [["k", False], ["l", True]]
    assert site.local.ask(m.Get, ("fresh", "x"), None, "value", txid)[0] == 1
    for missing in (("shared", "none"), ("fresh", "none"), ("never",)):
        with pytest.raises(errors.NotFound):
            site.local.ask(m.Get, missing, None, "value", txid)
    id = site.local.start(m.Get, ("shared",), None, "value", txid, timeout=60.0)
    site.fleet.ready()[0]()
    site.fleet.cut(site.pi1)
    site.fleet.wait(2)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    assert site.local.answer(id)[0]["k"] == 5, "asked again after the reconnect"
    assert site.local.ask(m.CommitTransaction, txid, "") == [2, [["shared", 1], ["fresh", 0]]]


def test_an_answer_from_above_that_makes_no_sense_ends_the_read(site: Site) -> None:
    txid = site.local.ask(m.Begin)
    site.local.ask(*write(put("shared.k", 5), txid=txid))
    id = site.local.start(m.Get, ("shared",), None, "value", txid)
    session = site.pi1.lab.node.sessions.by_tega_id["local"]
    site.fleet.ready()[0]()
    site.pi1.event(machine.uplink_received, m.Forward(session.id, "", encode(m.Reply(id, "?"))))
    site.fleet.run()
    with pytest.raises(errors.ProtocolError):
        site.local.answer(id)


def test_what_cannot_be_encoded_on_its_way_up_or_to_a_sub_session(site: Site) -> None:
    error = errors.TooLarge("too large for a frame")
    node = site.pi1.lab.node
    session = node.sessions.by_tega_id["local"]
    id = site.local.start(*write(put("shared.k", 1)))
    site.fleet.ready()[0]()
    site.fleet.unlink(site.pi1.link)  # type: ignore[arg-type]
    request = m.Forward(session.id, "local", encode(m.Write(id, 1, 1, (), "", "")))
    gone = m.Forward("nobody", "local", encode(m.Write(id, 1, 1, (), "", "")))
    result = m.Forward(session.id, "", encode(m.Result(5, True, "big")))
    update = m.RootUpdate(())
    for message in (request, gone, result, update):
        machine.cannot_send(node, SendUp(message), error, site.fleet.now)
    site.pi1.settle()
    site.fleet.run()
    with pytest.raises(errors.TooLarge):
        site.local.answer(id)
    lab = Lab()
    peer, other = lab.join("pi1", "agent"), lab.join("noc")
    peer.tell(m.Forward("sub", "prog", encode(m.Begin(1, 1, 1000))))
    peer.take(m.Forward)
    for session_id, body in (("sub", m.Reply(3, 1)), ("gone", m.Reply(3, 1))):
        machine.cannot_send(
            lab.node, Send(peer.address, m.Forward(session_id, "", encode(body))), error, lab.now
        )
    lab.run()
    (forward,) = peer.take(m.Forward)
    assert machine.decode(forward.body) == m.Failure(3, "TooLarge", "too large for a frame", {})
    assert other.take(m.Failure) == []


def test_results_too_deep_to_pass_up_end_the_call(site: Site) -> None:
    deep: Any = 0
    for _ in range(199):
        deep = [deep]
    site.local.register("tools.deep", lambda: NotImplemented)
    id = site.noc.start(m.Call, ("tools", "deep"), (), {})
    site.fleet.run()
    call = site.local.invoked[0].call
    session = site.pi1.lab.node.sessions.by_tega_id["local"]
    assert session.peer is not None
    deeper = m.Result(call, True, [[deep]])
    site.pi1.event(machine.receive, session.peer, deeper)
    site.fleet.run()
    with pytest.raises(errors.InvalidValue):
        site.noc.answer(id)


def test_a_local_handler_that_is_away_and_its_sub_session_above(site: Site) -> None:
    site.local.register("tools.f", lambda: NotImplemented)
    id = site.noc.start(m.Call, ("tools", "f"), (), {})
    site.fleet.run()
    site.fleet.cut(site.local)
    site.fleet.run()
    with pytest.raises(errors.HandlerGone):
        site.noc.answer(id)
    with pytest.raises(errors.HandlerGone):
        site.noc.call("tools.f")
    site.fleet.restore(site.local)
    site.fleet.wait(2)
    id = site.noc.start(m.Call, ("tools", "f"), (), {}, timeout=1.0)
    site.fleet.wait(3)
    with pytest.raises(errors.Timeout):
        site.noc.answer(id)
    assert site.local.abandoned
    call = site.local.invoked[-1].call
    site.local.result(call, "late")
    site.fleet.run()


def test_everything_of_a_program_ends_above_when_it_ends_here(site: Site) -> None:
    site.local.register("tools.f", lambda: 1)
    site.local.put("presence.local", 1, ephemeral=True)
    node = site.fleet.broker.lab.node
    assert "pi1/local" in {session.tega_id for session in node.sessions}
    site.fleet.cut(site.pi1)
    site.local.close()
    site.fleet.run()
    site.fleet.wait(2)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    assert "pi1/local" not in {session.tega_id for session in node.sessions}
    with pytest.raises(errors.NoHandler):
        site.noc.call("tools.f")
    with pytest.raises(errors.NotFound):
        site.noc.get("presence.local")


def test_below_sessions_end_when_their_origin_ended_while_the_agent_was_away(site: Site) -> None:
    site.noc.put("ops.presence", 1, ephemeral=True)
    assert len(site.pi1.lab.node.below) == 1
    site.fleet.cut(site.pi1)
    site.noc.close()
    site.fleet.wait(2)
    site.fleet.restore(site.pi1)
    site.fleet.wait(5)
    assert site.pi1.lab.node.below == {}
    with pytest.raises(errors.NotFound):
        site.local.get("ops.presence")


def test_an_agent_that_does_not_read_is_caught_up_later(site: Site) -> None:
    link = site.pi1.link
    assert link is not None
    link.reading = False
    site.fleet.losing = lambda agent, frame: True
    for value in range(5):
        site.noc.put("config.k", value)
    link.reading = True
    site.fleet.wait(5)
    assert site.pi1.tree("config") == {"k": 4}
    assert site.pi1.position("config") == site.fleet.broker.position("config")
