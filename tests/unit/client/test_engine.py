"""What both clients do with a session's events, with a host that only takes notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tega_zmq import errors
from tega_zmq.client import requests
from tega_zmq.client.engine import Engine
from tega_zmq.client.protocol import ClientSession
from tega_zmq.client.results import MessageView
from tega_zmq.wire import decode, encode, unbundle
from tega_zmq.wire import messages as m


class Notes:
    """A host."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, Any]] = []
        self.notices: list[tuple[Any, Any]] = []
        self.calls: list[tuple[Any, m.Invoke]] = []
        self.abandoned: list[m.Invoke] = []
        self.redials: list[float] = []
        self.seen: list[Any] = []
        self.is_full = False
        self.drops = 0

    def resolve(self, waiter: Any, value: Any) -> None:
        self.told.append((waiter, value))

    def reject(self, waiter: Any, error: errors.TegaError) -> None:
        self.told.append((waiter, error))

    def full(self) -> bool:
        return self.is_full

    def notify(self, callback: Callable[[Any], Any], arguments: tuple[Any, ...]) -> None:
        self.notices += [(callback, each) for each in arguments]

    def notify_message(self, callback: Callable[[Any], Any], argument: Any) -> int:
        self.notices.append((callback, argument))
        return self.drops

    def invoke(self, function: Callable[..., Any], call: m.Invoke) -> None:
        self.calls.append((function, call))

    def abandon(self, call: m.Invoke) -> None:
        self.abandoned.append(call)

    def redial(self, delay: float) -> None:
        self.redials.append(delay)

    def welcomed(self, welcome: m.Welcome) -> None:
        self.seen.append(welcome)

    def rejected(self, error: errors.TegaError) -> None:
        self.seen.append(error)

    def over(self) -> None:
        self.seen.append("over")


class Lab:
    """An engine, its host, and the other end of the line."""

    def __init__(self) -> None:
        self.host = Notes()
        self.engine = Engine(ClientSession("noc-1", jitter=lambda: 0.5), self.host)
        self.serial = 0
        self.now = 0.0
        self.connect(resumed=False)

    def connect(self, resumed: bool, server: str = "run") -> list[Any]:
        """Lose the connection and come back; return what was sent after the welcome."""
        self.engine.connection_lost(self.now)
        self.engine.connected(self.now)
        assert isinstance(self.sent()[0], m.Hello)
        self.serial += not resumed
        name = f"s{self.serial}"
        self.node(m.Welcome(1, name, "t", resumed, "gw", server, 15.0, 3.0, ":1", 1 << 20))
        return self.sent()

    def node(self, message: Any) -> None:
        self.engine.received(encode(message), self.now)

    def sent(self) -> list[Any]:
        return [decode(frame) for data in self.engine.frames(self.now) for frame in unbundle(data)]

    def answer(self, value: Any = None) -> list[Any]:
        """Answer every request that was sent with `value`; return the requests."""
        asked = [each for each in self.sent() if type(each) in m.REQUESTS]
        for each in asked:
            self.node(m.Reply(each.id, value))
        return asked

    def take_told(self) -> list[tuple[Any, Any]]:
        told, self.host.told = self.host.told, []
        return told


@pytest.fixture
def lab() -> Lab:
    return Lab()


def subscribe(lab: Lab, callback: Any = print, positions: Any = (("a", "e", 3),)) -> int:
    engine = lab.engine
    engine.subscribe("w", lambda: engine.subscriptions.to_path(("a",), "local", callback), 10, lab.now)
    lab.answer([list(each) for each in positions])
    ((waiter, number),) = lab.take_told()
    assert waiter == "w"
    return int(number)


def changed(version: int, previous: int, subscription: int = 1) -> m.Changed:
    changes = ((("a", "b"), (), (version,), ""), (("a", "c"), (), (version,), ""))
    return m.Changed(subscription, "a", "e", previous, version, 0.0, "x", "", None, False, changes)


def test_an_answer_reaches_who_waits(lab: Lab) -> None:
    lab.engine.ask("w1", requests.get("a"), 10, 0)
    lab.engine.ask("w2", requests.get("b"), 10, 0)
    first, second = lab.sent()
    lab.node(m.Failure(second.id, "NotFound", "b", {"path": "b"}))
    lab.node(m.Reply(first.id, [1, None]))
    (w2, error), told = lab.take_told()
    assert w2 == "w2"
    assert isinstance(error, errors.NotFound)
    assert told == ("w1", [1, None])


def test_a_request_that_the_session_refuses(lab: Lab) -> None:
    lab.engine.ask("w", requests.get("a"), 0, 0)
    ((_, error),) = lab.take_told()
    assert isinstance(error, errors.InvalidValue)
    lab.engine.ask(None, requests.get("a"), 0, 0)
    assert lab.take_told() == []


def test_what_cannot_be_encoded_fails_alone(lab: Lab) -> None:
    lab.engine.ask("big", (m.Publish, ("c", "x" * 9_000_000)), 10, 0)
    lab.engine.ask("w", requests.get("a"), 10, 0)
    assert [type(each) for each in lab.sent()] == [m.Get]
    ((waiter, error),) = lab.take_told()
    assert waiter == "big"
    assert isinstance(error, errors.TooLarge)


def test_what_cannot_be_read_is_ignored(lab: Lab) -> None:
    lab.engine.received(b"\xff junk", 0)
    lab.engine.received(b"", 0)
    assert lab.engine.session.state == "connected"


def test_cancelling(lab: Lab) -> None:
    lab.engine.ask("other", requests.get("a"), 10, 0)
    lab.engine.ask("w", requests.call("a.f", (), {}), 10, 0)
    lab.engine.cancel_waiter("w", 0)
    lab.engine.cancel_waiter("nobody", 0)
    _, call, cancel = lab.sent()
    assert (type(cancel), cancel.call) == (m.CancelCall, call.id)
    lab.node(m.Failure(call.id, "Cancelled", "", {}))
    assert lab.take_told() == []


def test_changes_are_told_in_order(lab: Lab) -> None:
    subscribe(lab)
    lab.node(changed(4, 3))
    lab.node(changed(4, 3))
    lab.node(changed(5, 4))
    assert [(call, c.path, c.version) for call, c in lab.host.notices] == [
        (print, "a.b", 4),
        (print, "a.c", 4),
        (print, "a.b", 5),
        (print, "a.c", 5),
    ]
    lab.node(changed(5, 4, subscription=77))
    assert len(lab.host.notices) == 4


def test_a_gap_is_asked_for(lab: Lab) -> None:
    subscribe(lab)
    lab.node(changed(6, 5))
    (ask,) = lab.sent()
    assert ask.since == (("a", "e", 3),)
    assert lab.host.notices == []
    lab.node(m.Failure(ask.id, "Timeout", "", {}))
    (ask,) = lab.sent()
    lab.node(m.Failure(ask.id, "Forbidden", "", {}))
    assert [type(each) for each in lab.sent()] == [m.Unsubscribe]
    assert lab.sent() == []


def test_who_subscribed_is_told_by_what_it_ended(lab: Lab) -> None:
    ended: list[Any] = []
    engine = lab.engine
    made: list[Any] = []

    def add() -> Any:
        made.append(engine.subscriptions.to_path(("a",), "local", print, ("@", 5), ended.append))
        return made[0]

    engine.subscribe("w", add, 10, lab.now)
    lab.answer([["a", "e", 5], ["a", "@", 9]])
    lab.take_told()
    for version in (6, 7):
        lab.node(changed(version, version - 1))
    lab.host.is_full = True
    lab.node(changed(8, 7))
    (ask,) = lab.sent()
    assert ask.since == (("a", "@", 9),)
    lab.node(m.Failure(ask.id, "Compacted", "gone", {"root": "a", "version": 9, "oldest": 20}))
    (unsubscribe,) = lab.sent()
    assert (type(unsubscribe), unsubscribe.subscription) == (m.Unsubscribe, made[0].number)
    lab.node(m.Failure(unsubscribe.id, "NotFound", "", {}))
    *changes, (callback, error) = lab.host.notices
    assert [each.version for _, each in changes] == [6, 6, 7, 7]
    assert callback == ended.append
    assert isinstance(error, errors.Compacted) and error.oldest == 20
    assert made[0].error is error
    assert len(engine.subscriptions) == 0 and not engine.behind
    lab.node(changed(9, 8))
    assert len(lab.host.notices) == 5


def test_callbacks_that_are_behind_get_everything_later(lab: Lab) -> None:
    subscribe(lab)
    lab.host.is_full = True
    lab.node(changed(4, 3))
    lab.host.is_full = False
    lab.node(changed(5, 4))
    assert lab.host.notices == []
    assert lab.engine.behind
    assert lab.sent() == []
    lab.engine.room(0)
    assert not lab.engine.behind
    (ask,) = lab.answer([["a", "e", 3]])
    assert ask.since == (("a", "e", 3),)
    lab.node(changed(4, 3))
    lab.node(changed(5, 4))
    assert [c.version for _, c in lab.host.notices] == [4, 4, 5, 5]


def test_the_end_of_a_subscription(lab: Lab) -> None:
    number = subscribe(lab)
    lab.host.is_full = True
    lab.node(changed(4, 3))
    lab.host.is_full = False
    lab.engine.unsubscribe("u", number, 10, 0)
    assert not lab.engine.behind
    (ask,) = lab.answer()
    assert (type(ask), ask.subscription) == (m.Unsubscribe, number)
    assert lab.take_told() == [("u", None)]
    lab.node(changed(5, 4))
    assert lab.host.notices == []
    lab.engine.unsubscribe("u", number, 10, 0)
    ((_, error),) = lab.take_told()
    assert isinstance(error, errors.NotFound)
    lab.engine.room(0)
    lab.engine._again(number, 0)
    assert lab.connect(resumed=False) == []


@pytest.mark.parametrize(("code", "withdrawn"), [("Forbidden", False), ("Timeout", True)])
def test_a_refused_subscription(lab: Lab, code: str, withdrawn: bool) -> None:
    engine = lab.engine
    engine.subscribe("w", lambda: engine.subscriptions.to_path(("a",), "local", print), 10, 0)
    (ask,) = lab.sent()
    lab.node(m.Failure(ask.id, code, "", {}))
    assert len(engine.subscriptions) == 0
    # The node may have it, if the answer was only late.
    assert [type(each) for each in lab.sent()] == [m.Unsubscribe] * withdrawn
    ((waiter, error),) = lab.take_told()
    assert (waiter, error.code) == ("w", code)


def test_a_subscription_that_cannot_be_asked_for(lab: Lab) -> None:
    engine = lab.engine
    engine.subscribe("w", lambda: engine.subscriptions.to_path(("a",), "local", print), 0, 0)
    assert len(engine.subscriptions) == 0

    def full() -> Any:
        raise errors.InvalidValue("too many")

    engine.subscribe("w", full, 10, 0)
    assert [type(error) for _, error in lab.take_told()] == [errors.InvalidValue] * 2


def test_an_answer_to_a_subscription_that_makes_no_sense(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    subscribe(lab)
    lab.connect(resumed=False)
    lab.engine._again(1, 0)
    lab.answer(5)
    assert "answered subscription 1 with 5" in caplog.text
    assert lab.engine.session.state == "connected"


def test_messages(lab: Lab) -> None:
    engine = lab.engine
    for callback in (print, repr):
        engine.subscribe(
            "w", lambda c=callback: engine.subscriptions.to_channel("c", False, "local", c), 10, 0
        )
    lab.answer([])
    lab.node(m.Message((1, 2, 9), "c", "x", {"n": 1}))
    view = MessageView("c", {"n": 1}, "x")
    assert lab.host.notices == [(print, view), (repr, view)]


def test_dropped_messages_are_told_wherever_they_were_dropped(lab: Lab) -> None:
    engine = lab.engine
    lab.node(m.Dropped(1))
    counts: list[int] = []
    engine.on_dropped(counts.append)
    engine.subscribe("w", lambda: engine.subscriptions.to_channel("c", False, "local", print), 10, 0)
    lab.answer([])
    lab.node(m.Dropped(5))
    lab.host.drops = 1
    lab.node(m.Message((1,), "c", "x", 0))
    tell, (_, view) = lab.host.notices
    assert view.value == 0
    tell[0](None)
    assert counts == [6]
    lab.node(m.Dropped(2))
    lab.host.notices[-1][0](None)
    assert counts == [6, 2]


def test_handlers(lab: Lab) -> None:
    engine = lab.engine
    engine.register("w", ("a", "f"), print, 10, 0)
    (ask,) = lab.answer()
    assert (type(ask), ask.path) == (m.Register, ("a", "f"))
    engine.register("w", ("a", "f"), repr, 10, 0)
    assert lab.sent() == []
    assert lab.take_told() == [("w", None)] * 2
    invoke = m.Invoke(7, ("a", "f"), (1,), {"x": 2}, 1000, "pi1")
    lab.node(invoke)
    ((function, call),) = lab.host.calls
    assert function is repr
    assert call == invoke
    assert engine.wanted(call, 0.9)
    assert not engine.wanted(call, 1.0)
    engine.result(call, m.Result(7, True, 0), 0.5)
    assert lab.sent() == [m.Result(7, True, 0)]
    engine.result(call, m.Result(7, True, 0), 0.5)
    assert lab.sent() == []
    engine.unregister("w", ("a", "f"), 10, 0)
    assert [type(each) for each in lab.answer()] == [m.Unregister]
    engine.unregister("w", ("a", "f"), 10, 0)
    assert isinstance(lab.take_told()[1][1], errors.NotFound)
    lab.node(invoke)
    (result,) = lab.sent()
    assert (result.ok, result.value[0]) == (False, "NoHandler")


def test_a_late_or_abandoned_result_is_dropped(lab: Lab) -> None:
    engine = lab.engine
    engine.register("w", ("a", "f"), print, 10, 0)
    lab.answer()
    for number in (1, 2, 3):
        lab.node(m.Invoke(number, ("a", "f"), (), {}, 1000, "pi1"))
    late, abandoned, cut = (call for _, call in lab.host.calls)
    engine.result(late, m.Result(1, True, 0), 1.5)
    lab.node(m.Abandon(2))
    engine.result(abandoned, m.Result(2, True, 0), 0.5)
    lab.node(m.Abandon(7))
    assert lab.host.abandoned == [abandoned]
    lab.connect(resumed=True)
    # The node counts anew after its restart: the old third call is not the new one.
    lab.node(m.Invoke(3, ("a", "f"), (), {}, 1000, "pi1"))
    engine.result(cut, m.Result(3, True, "old"), 0.5)
    engine.result(lab.host.calls[3][1], None, 0.5)
    assert lab.sent() == []


def test_a_result_too_large_to_send_is_the_handlers_error(lab: Lab) -> None:
    engine = lab.engine
    engine.register("w", ("a", "f"), print, 10, 0)
    lab.answer()
    lab.node(m.Invoke(1, ("a", "f"), (), {}, 1000, "pi1"))
    engine.result(lab.host.calls[0][1], m.Result(1, True, "x" * 9_000_000), 0.5)
    (result,) = lab.sent()
    assert (result.call, result.ok, result.value[0]) == (1, False, "TooLarge")


def test_a_refused_registration_leaves_nothing(lab: Lab) -> None:
    engine = lab.engine
    engine.register("w", ("a", "f"), print, 10, 0)
    (ask,) = lab.sent()
    lab.node(m.Failure(ask.id, "Forbidden", "", {}))
    engine.register("w", ("a", "f"), print, 0, 0)
    assert engine.belongings.handlers == {}


def test_a_new_session_gets_all_that_the_old_one_had(lab: Lab) -> None:
    engine = lab.engine
    engine.register("w", ("a", "f"), print, 10, 0)
    lab.answer()
    lab.take_told()
    subscribe(lab)
    ephemeral = ("put", ("p", "noc-1"), {"since": 1}, None, True)
    lasting = ("put", ("p", "x"), 1, None, False)
    for op in (ephemeral, lasting):
        engine.write("w", requests.write((op,)), (op,), 10, 0)
        lab.answer([1, [["p", 0]]])
    engine.subscribe("w", lambda: engine.subscriptions.to_channel("c", False, "local", print), 10, 0)
    lab.answer([])
    lab.node(changed(4, 3))
    register, write, follow, listen = lab.connect(resumed=False)
    assert (type(register), register.path) == (m.Register, ("a", "f"))
    assert write.ops == (("put", ("p", "noc-1"), {"since": 1}, None, True),)
    assert follow.since == (("a", "e", 4),)
    assert (type(listen), listen.channel) == (m.Listen, "c")
    for each, value in ((register, None), (write, [2, [["p", 1]]]), (follow, [["a", "e", 4]]), (listen, [])):
        lab.node(m.Reply(each.id, value))
    # Resumed: the node still has all but what was missed.
    (follow,) = lab.connect(resumed=True)
    assert follow.since == (("a", "e", 4),)
    # Resumed after a restart of the node: it has the ephemeral nodes, but no handlers and subscriptions.
    again = [type(each) for each in lab.connect(resumed=True, server="another run")]
    assert again == [m.Subscribe, m.Register, m.Subscribe, m.Listen]


def test_an_ephemeral_node_that_was_deleted_or_refused_is_not_announced(lab: Lab) -> None:
    engine = lab.engine
    for path, reply in ((("p", "a"), [1, []]), (("p", "b"), None)):
        op = ("put", path, 1, None, True)
        engine.write("w", requests.write((op,)), (op,), 10, 0)
        (ask,) = lab.sent()
        lab.node(m.Reply(ask.id, reply) if reply else m.Failure(ask.id, "Forbidden", "", {}))
    assert list(engine.belongings.ephemerals) == [("p", "a")]
    op = ("delete", ("p", "a"), None, None, False)
    engine.write("w", requests.write((op,)), (op,), 10, 0)
    lab.answer([2, []])
    assert lab.connect(resumed=False) == []


@pytest.mark.parametrize("error", ["Offline", "OwnerAway", "StorageError", "Timeout"])
def test_an_ephemeral_node_waits_for_a_better_time(lab: Lab, error: str) -> None:
    for name in ("a", "b"):
        op = ("put", ("p", name), 1, None, True)
        lab.engine.write("w", requests.write((op,)), (op,), 10, 0)
        lab.answer([1, []])
    for ask in lab.connect(resumed=False):
        lab.node(m.Failure(ask.id, error, "not now", {}))
    assert lab.sent() == []
    op = ("delete", ("p", "b"), None, None, False)
    lab.engine.write("w", requests.write((op,)), (op,), 10, 0)
    lab.answer([2, []])
    lab.now += 3
    lab.engine.tick(lab.now)
    writes = [each for each in lab.sent() if type(each) is m.Write]
    assert [write.ops for write in writes] == [(("put", ("p", "a"), 1, None, True),)], "b is wanted no more"
    lab.node(m.Reply(writes[0].id, [3, []]))
    lab.now += 3
    lab.engine.tick(lab.now)
    assert [type(each) for each in lab.sent()] == [m.Heartbeat]


def test_what_cannot_be_announced_again_is_said(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    engine = lab.engine
    engine.register("w", ("a", "f"), print, 10, 0)
    lab.answer()
    (ask,) = lab.connect(resumed=False)
    lab.node(m.Failure(ask.id, "Forbidden", "no right", {}))
    assert "handler a.f could not be announced again: Forbidden: no right" in caplog.text


def test_states_are_told(lab: Lab) -> None:
    states: list[str] = []
    lab.engine.on_state.append(states.append)
    lab.connect(resumed=True)
    lab.connect(resumed=False)
    lab.engine.connection_lost(0)
    lab.engine.tick(20)
    lab.engine.connected(20)
    lab.node(m.Displaced("noc-1"))
    lab.engine.close(20)
    told = [state for _, state in lab.host.notices]
    assert told == [
        *("suspended", "connected", "suspended", "lost", "connected"),
        *("suspended", "lost", "taken over", "closed"),
    ]
    assert lab.host.seen[-1] == "over"
    assert lab.host.redials


def test_a_refusal_is_told(lab: Lab) -> None:
    lab.node(m.Refused("ProtocolError", "what", {}))
    assert isinstance(lab.host.seen[-1], errors.ProtocolError)


def test_what_concerns_agents_only_is_ignored(lab: Lab) -> None:
    lab.node(m.ForwardEnded("s"))
    assert lab.take_told() == []


def test_an_open_transaction_that_ends_by_itself_is_told_once(lab: Lab) -> None:
    def told() -> list[str]:
        return [error.txid for callback, error in lab.host.notices if callback is note]

    def note(_: Any) -> None: ...

    lab.engine.on_expired.append(note)
    lab.engine.transactions.update({"idle": None, "open": None, "kept": None})
    lab.node(m.Expired("idle", "idle for 600 s"))
    lab.node(m.Expired("idle", "idle for 600 s"))
    lab.node(m.Expired("another", "not of this client"))
    assert told() == ["idle"]
    lab.connect(resumed=True)
    assert told() == ["idle"], "a lost connection ends none"
    lab.connect(resumed=True, server="another run")
    assert sorted(told()) == ["idle", "kept", "open"]
