"""Whatever peers send, a node goes on, and all that it writes to its log can be read again."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import UnionType
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings

from tega_zmq import errors, store
from tega_zmq.errors import ProtocolError, TegaError
from tega_zmq.node import Settings, machine
from tega_zmq.store import record_from_plain, record_to_plain, update_to_plain
from tega_zmq.wire import decode, encode
from tega_zmq.wire import messages as m
from tests.unit.node.fleet import Fleet
from tests.unit.node.lab import Lab, Peer
from tests.wire_samples import ANY_MESSAGE, sample

STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64 - 1,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    "\u00fc",
    b"\x00" * 17,
    [],
    {},
    [[]],
    {"a": {"b": 1}},
    {"": 1},
    {"_x": 1},
    {"a.b": [1, {"c": None}]},
    [["x"], 3],
    [1, [[["x"], 3]]],
]
COUNTS = [0, 1, 2, 3, 7, 500, 86_400_000, 86_400_001, 2**63 - 1]
INTEGERS = [-(2**63), -2, -1, 0, 1, 2, 5, 2**63 - 1]
PATHS: list[tuple[str, ...]] = [
    (),
    ("config-pi1",),
    ("config-pi1", "net"),
    ("config-pi1", "net", "mtu"),
    ("ops-pi1",),
    ("ops-pi1", "load"),
    ("tools", "add"),
    ("_x",),
    ("a", ""),
    ("a",) * 65,
    ("presence", "x"),
    ("new",),
]


class Sender:
    """Makes messages of which many are nearly right."""

    def __init__(self, seed: int, names: list[str]) -> None:
        self.random = random.Random(seed)
        self.texts = [
            "",
            "config-pi1",
            "ops-pi1",
            "presence",
            "new",
            "pi1",
            "noc",
            "put",
            "patch",
            "delete",
            "rollback",
            "value",
            "node",
            "attributes",
            "oids",
            "edges",
            "local",
            "global",
            "client",
            "agent",
            "agents",
            "status",
            "clear",
            "disown",
            "sync",
            "snapshot",
            "alerts",
            r"config-.*\.net",
            r"(",
            r"(a+)+\.(.*)",
            "x" * 300,
            "_x",
            "a/b",
            *names,
        ]

    def value(self, hint: Any) -> Any:
        """Return something for a field."""
        pick = self.random.choice
        if hint is Any:
            return pick([*STRANGE, *self.texts, *INTEGERS])
        if hint is str:
            return pick(self.texts)
        if hint is bool:
            return self.random.random() < 0.5
        if hint is float:
            return pick([0.0, -1.5, 1e300])
        if hint is int:
            return pick(INTEGERS)
        if hint == m.Count:
            return pick(COUNTS)
        if hint == m.PathField:
            return pick(PATHS)
        if hint == m.OpField:
            kind = pick(["put", "put", "patch", "delete", "rollback", "?"])
            return kind, pick(PATHS), pick(STRANGE), pick([None, None, *INTEGERS]), self.random.random() < 0.3
        if hint == m.UpdateField:
            return self.update()
        if hint is bytes:
            return self.body()
        made: Any = sample_of(hint, self)
        return made

    def update(self) -> tuple[Any, ...]:
        """Return an update that may be right."""
        if self.random.random() < 0.2:
            return tuple(self.random.choices(STRANGE, k=self.random.choice([0, 8, 9, 10])))
        before = self.random.choice(INTEGERS[:-1])
        root = self.random.choice(self.texts)
        changes = tuple(
            store.Change((root, "x"), self.random.random() < 0.7, self.random.choice(STRANGE))
            for _ in range(self.random.randrange(3))
        )
        return tuple(
            update_to_plain(
                store.Update(root, self.random.choice(self.texts), before, before + 1, changes, 1.0, "pi1")
            )
        )

    def body(self) -> bytes:
        """Return the body of a `Forward`: a message, or garbage."""
        while self.random.random() < 0.95:
            try:
                return encode(self.message())
            except TegaError:
                continue
        return self.random.choice([b"", b"\xc1", b"\x93\x16\x01", bytes(100)])

    def message(self) -> Any:
        """Return a message of any type."""
        cls: Any = self.random.choice(list(m.CODES.values()))
        return cls(*(self.value(hint) for hint in get_type_hints(cls, include_extras=True).values()))


def sample_of(hint: Any, sender: Sender) -> Any:
    """Return a value of a compound annotation."""
    if isinstance(hint, UnionType) and hint != m.Maybe:
        kind = sender.random.choice(get_args(hint))
        return None if kind is type(None) else sender.value(kind)
    if hint == int | str | None:
        return sender.random.choice([None, "golden", "2026-11-20T12:00:00Z", "9999-99-99", *INTEGERS])
    if hint == float | None:
        return sender.random.choice([None, -1.5, 0.0, 1e300])
    if hint == dict[str, Any]:
        return {sender.random.choice(["a", "x", "path"]): sender.random.choice(STRANGE)}
    if hint == m.Maybe:
        return sender.random.choice([(), (1,), ({"a": 1},)])
    parts = get_args(hint)
    if parts[-1] is Ellipsis:
        return tuple(sender.value(parts[0]) for _ in range(sender.random.randrange(3)))
    return tuple(sender.value(part) for part in parts)


def bench() -> tuple[Lab, list[bytes], list[str]]:
    """A broker with an agent, its sub-session, and clients in several states."""
    lab = Lab(Settings("gateway", max_sessions=40, max_calls=50))
    agent = lab.join("pi1", "agent")
    client, gone = lab.join("noc"), lab.join("away")
    client.put("config-pi1", {"net": {"mtu": 1500}})
    agent.ask(m.Claim, "ops-pi1", "e1", -1)
    agent.ask(m.Follow, "config-pi1", True)
    agent.tell(m.Forward("sub-1", "prog", encode(m.Register(1, 1, 1000, ("tools", "add")))))
    client.ask(m.Subscribe, 1, ("config-pi1",), "local", ())
    client.ask(m.Listen, 2, "alerts", False, "local")
    client.start(m.Call, ("tools", "add"), (1,), {})
    gone.ask(m.Register, ("tools", "away"))
    gone.cut()
    names = [agent.session, client.session, client.token, gone.session, "sub-1"]
    return lab, [agent.address, client.address, b"stranger"], names


def sound(lab: Lab) -> None:
    """The log can be read again and gives what the node has; the tables agree with each other."""
    node = lab.node
    records = [record_from_plain(record_to_plain(record)) for record in lab.disk]
    replayed = store.replay(store.empty(store.Kept()), records)
    assert replayed.revision == node.tip.revision
    assert {lease.session for lease in replayed.leases.values()} == {*node.sessions.by_id, *node.below}
    for name, root in node.tip.roots.items():
        assert replayed.roots[name][:5] == root[:5]
    held = [number for session in node.sessions for number in session.serving]
    assert sorted(held) == sorted(node.calls._by_number)
    assert set(node.topics) == set(node.by_topic) == set(node.topic_roots.values())
    for name, sessions in node.direct.items():
        assert sessions and all(session.follows[name] for session in sessions)
    assert node.sessions.by_peer.keys() == {s.peer for s in node.sessions if s.peer is not None}


@pytest.mark.parametrize("seed", range(60))
def test_nearly_right_messages_to_a_broker(seed: int) -> None:
    lab, peers, names = bench()
    sender = Sender(seed, names)
    for _ in range(150):
        peer = sender.random.choice(peers)
        message = sender.message()
        if sender.random.random() < 0.4:
            message = m.Forward(sender.random.choice(["sub-1", *sender.texts]), "prog", sender.body())
        carry(lambda data, peer=peer: machine.receive(lab.node, peer, decode(data), lab.now), message)
        lab.run()
        if sender.random.random() < 0.05:
            lab.wait(sender.random.choice([0.1, 5.0, 20.0]))
        if sender.random.random() < 0.03:
            machine.peer_gone(lab.node, peer, lab.now)
            lab.run()
    sound(lab)
    fresh = lab.join("fresh")
    assert fresh.put("fresh", {"works": True})


@pytest.mark.parametrize("seed", range(60))
def test_nearly_right_messages_to_an_agent_from_above(seed: int) -> None:
    fleet = Fleet()
    agent = fleet.agent("pi1", config=("config-pi1",), operational=("ops-pi1",))
    client, local = fleet.client("noc"), fleet.client("prog", agent)
    client.put("config-pi1", {"net": {"mtu": 1500}})
    local.put("ops-pi1.load", 1)
    client.put("ops-pi1.from", "above")
    local.register("tools.add", lambda *args, **kwargs: NotImplemented)
    local.subscribe("other", "global")
    local.start(m.Call, ("tools", "none"), (), {})
    lab = agent.lab
    sender = Sender(seed, [*lab.node.sessions.by_id, *lab.node.below])
    topic = next(iter(lab.node.topics_up.values()))
    for _ in range(150):
        message = sender.message()
        chance = sender.random.random()
        if chance < 0.4:
            message = m.Forward(sender.random.choice(sender.texts), "noc", sender.body())
        if isinstance(message, (m.Gone, m.Displaced, m.Welcome, m.Refused)):
            continue
        if chance > 0.9:
            message = m.RootUpdate(sender.update())
            carry(lambda data: machine.uplink_changes(lab.node, topic, decode(data), lab.now), message)  # type: ignore[arg-type]
        else:
            carry(lambda data: machine.uplink_received(lab.node, decode(data), lab.now), message)
        lab.run()
    sound(lab)
    lab.inbox.clear()
    lab.up.clear()
    assert agent.tree("ops-pi1") is not None or lab.node.durable.roots["ops-pi1"].node is None


def carry(give: Callable[[bytes], None], message: Any) -> None:
    """Give a message as it would arrive, if it can be encoded and is let through by the codec."""
    try:
        data = encode(message)
        decode(data)
    except TegaError:
        return
    give(data)


@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(ANY_MESSAGE)
def test_any_message_in_any_state(message: Any) -> None:
    lab, peers, _ = bench()
    for peer in peers:
        carry(lambda data, peer=peer: machine.receive(lab.node, peer, decode(data), lab.now), message)
        lab.run()
    sound(lab)


@pytest.mark.parametrize("cls", m.CODES.values())
def test_one_of_each_type_to_whom_it_is_not_for(cls: type[Any]) -> None:
    lab, peers, _ = bench()
    for peer in peers:
        lab.take(peer)
        answers = lab.send(peer, sample(cls))
        if cls in m.REQUESTS and peer != b"stranger":
            assert [each.id for each in answers if isinstance(each, (m.Reply, m.Failure))] == [77]
        elif peer == b"stranger" and cls not in (m.Hello, m.Bye):
            assert answers == [m.Gone()]
    sound(lab)


def test_garbage_is_answered_with_its_id_where_that_can_be_read() -> None:
    lab, (_, client, stranger), _ = bench()
    lab.take(client)
    machine.garbage(lab.node, client, ProtocolError("not this"), 9, lab.now)
    machine.garbage(lab.node, client, ProtocolError("nor that"), None, lab.now)
    machine.garbage(lab.node, stranger, ProtocolError("who"), 9, lab.now)
    lab.run()
    failure, refused = lab.take(client)
    assert failure == m.Failure(9, "ProtocolError", "not this", {})
    assert refused == m.Refused("ProtocolError", "nor that", {})
    assert isinstance(lab.take(stranger)[0], m.Refused)


def test_who_sends_nonsense_does_not_fill_the_log() -> None:
    lab, (_, client, stranger), _ = bench()
    lab.notes.clear()

    def told(peer: bytes, times: int) -> int:
        before = len(lab.notes)
        for _ in range(times):
            machine.garbage(lab.node, peer, ProtocolError("not this"), None, lab.now)
        lab.run()
        return len(lab.notes) - before

    assert (told(client, 9000), told(client, 1), told(stranger, 2)) == (5, 0, 2)
    assert sum(told(b"peer%d" % number, 3) for number in range(500)) == 18 * 3
    assert len(lab.node.bad_messages) == 20
    assert machine.next_deadline(lab.node) <= lab.now + 60
    lab.wait(60)
    assert [note.fields for note in lab.notes if note.event == "more messages refused"] == [
        {"times": 8996 + 482 * 3}
    ]
    assert told(client, 9) == 5


def _refused_in(agent: Peer, session: str) -> str:
    """Return the code with which what was asked last in `session` was refused."""
    (forward,) = agent.take(m.Forward)
    refused = decode(forward.body)
    assert isinstance(refused, m.Failure) and (forward.session, refused.id) == (session, 1)
    return refused.code


def test_a_forward_cannot_speak_for_sessions_of_others() -> None:
    lab = Lab()
    agent, other, client = lab.join("pi1", "agent"), lab.join("pi2", "agent"), lab.join("noc")
    other.tell(m.Forward("sub-2", "prog", encode(m.Begin(1, 1, 1000))))
    for session in (client.session, agent.session, other.session, "sub-2", ""):
        agent.tell(m.Forward(session, "prog", encode(m.Begin(1, 1, 1000))))
        assert _refused_in(agent, session) == "ProtocolError", session
    agent.tell(m.Forward("x" * 65, "prog", encode(m.Begin(1, 1, 1000))))
    assert agent.take(m.Refused)[0].code == "ProtocolError"
    for name in ("", "a b", "x" * 65, "a//b"):
        agent.tell(m.Forward("sub-1", name, encode(m.Begin(1, 1, 1000))))
        assert _refused_in(agent, "sub-1") == "InvalidValue", name
    nested = encode(m.Forward("sub-3", "prog", encode(m.Begin(1, 1, 1000))))
    for body in (nested, encode(m.Hello(1, "x", "client", "", "")), encode(m.Bye()), b"\xc1"):
        agent.tell(m.Forward("sub-1", "prog", body))
        assert agent.take(m.Refused)[0].code == "ProtocolError"
    assert set(lab.node.sessions.by_id) == {agent.session, other.session, client.session, "sub-2"}


def test_an_agent_cannot_answer_or_end_what_is_not_its_own() -> None:
    lab = Lab()
    agent, other, client = lab.join("pi1", "agent"), lab.join("pi2", "agent"), lab.join("noc")
    agent.ask(m.Claim, "ops-pi1", "", -1)
    id = client.start(m.Write, (("put", ("ops-pi1", "a"), 1, None, False),), "", "")
    other.tell(m.Forward(client.session, "noc", encode(m.Reply(id, [1, [["ops-pi1", 0]]]))))
    other.tell(m.ForwardEnded(client.session))
    other.tell(m.ForwardEnded(agent.session))
    other.tell(m.Forward("nobody", "noc", encode(m.Reply(id, 1))))
    agent.tell(m.Forward(client.session, "noc", encode(m.Reply(id + 1, 1))))
    assert not client.answered(id)
    agent.tell(m.Forward(client.session, "noc", encode(m.Failure(id, "Collision", "no", {}))))
    with pytest.raises(errors.Collision):
        client.answer(id)
    assert len(lab.node.sessions) == 3


def test_sub_sessions_are_bounded() -> None:
    lab = Lab()
    agent = lab.join("pi1", "agent")
    for number in range(1000):
        agent.tell(m.Forward(f"sub-{number}", "prog", encode(m.Begin(1, 1, 1000))))
    agent.take(m.Forward)
    agent.tell(m.Forward("one-more", "prog", encode(m.Begin(1, 1, 1000))))
    assert _refused_in(agent, "one-more") == "TooLarge"
    agent.tell(m.ForwardEnded("sub-1"))
    agent.tell(m.Forward("one-more", "prog", encode(m.Begin(1, 1, 1000))))
    assert isinstance(decode(agent.take(m.Forward)[0].body), m.Reply)
    assert "sub-1" not in lab.node.sessions.by_id
