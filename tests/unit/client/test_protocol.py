"""A session without I/O: every way a request, a connection and a session can end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq import errors
from tega_zmq.client import protocol
from tega_zmq.client.protocol import (
    Abandoned,
    ClientSession,
    Completed,
    Dropped,
    Failed,
    Invoked,
    MessageReceived,
    Notified,
    Other,
    Redial,
    Rejected,
    StateChanged,
    Welcomed,
)
from tega_zmq.wire import messages as m

GET = (("a",), None, "value", "")
WRITE = ((("put", ("a",), {}, None, False),), "", "")
CALL = (("a", "f"), (), {})


def welcome(session: str = "s1", resumed: bool = False, **fields: Any) -> m.Welcome:
    base = m.Welcome(1, session, "token-" + session, resumed, "gateway", "run", 15.0, 3.0, ":8741", 1 << 20)
    return base._replace(**fields)


def new(now: float = 0.0, **fields: Any) -> ClientSession:
    """A session that is connected, with nothing left to take."""
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    session.connected(now)
    session.received(welcome(**fields), now)
    session.take_output()
    session.take_events()
    return session


def kinds(session: ClientSession) -> list[Any]:
    return session.take_events()


def test_hello_is_first_and_welcome_connects() -> None:
    session = ClientSession("noc-1", "shell", jitter=lambda: 0.5)
    assert session.state == "connecting"
    assert session.next_deadline() is None
    session.connected(1.0)
    assert session.take_output() == [m.Hello(1, "noc-1", "shell", "", "")]
    assert session.next_deadline() == 1.0 + protocol.HELLO_TIMEOUT
    session.received(welcome(), 1.0)
    assert session.take_events() == [StateChanged("connected"), Welcomed(welcome())]
    assert (session.session, session.token, session.state) == ("s1", "token-s1", "connected")
    assert session.take_output() == []


def test_a_request_is_answered() -> None:
    session = new()
    assert session.request(m.Get, *GET, timeout=2.0, now=1.0) == 1
    assert session.request(m.Write, *WRITE, timeout=0.0001, now=1.0) == 2
    assert session.take_output() == [m.Get(1, 1, 2000, *GET), m.Write(2, 1, 1, *WRITE)]
    assert session.pending == 2
    session.received(m.Reply(2, [1, []]), 1.1)
    session.received(m.Failure(1, "NotFound", "a: nothing", {"path": "a"}), 1.2)
    done, failed = session.take_events()
    assert done == Completed(2, [1, []])
    assert isinstance(failed, Failed)
    assert failed.id == 1
    assert isinstance(failed.error, errors.NotFound)
    assert failed.error.path == "a"
    assert session.pending == 0


def test_ack_is_the_lowest_unanswered_id() -> None:
    session = new()
    for _ in range(3):
        session.request(m.Get, *GET, timeout=9, now=0)
    session.received(m.Reply(2, None), 0)
    session.request(m.Get, *GET, timeout=9, now=0)
    session.received(m.Reply(1, None), 0)
    session.request(m.Get, *GET, timeout=9, now=0)
    assert [(x.id, x.ack) for x in session.take_output()] == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 3)]


def test_answers_to_nothing_are_ignored() -> None:
    session = new()
    session.received(m.Reply(7, 1), 0)
    session.received(m.Failure(7, "NotFound", "", {}), 0)
    session.received(m.Bye(), 0)
    session.received(m.Get(1, 1, 1, *GET), 0)
    session.received(m.Heartbeat(()), 0)
    session.received(welcome("s2"), 0)
    assert session.take_events() == []
    assert session.session == "s1"


@pytest.mark.parametrize("timeout", [0, -1, 86_401, float("nan"), True, "5", None])
def test_a_timeout_that_is_none(timeout: Any) -> None:
    with pytest.raises(errors.InvalidValue, match="timeout"):
        new().request(m.Get, *GET, timeout=timeout, now=0)


def test_too_many_requests() -> None:
    session = new()
    for _ in range(protocol.MAX_PENDING):
        session.request(m.Get, *GET, timeout=9, now=0)
    with pytest.raises(errors.TooLarge) as caught:
        session.request(m.Get, *GET, timeout=9, now=0)
    assert caught.value.limit == protocol.MAX_PENDING
    session.received(m.Reply(5, None), 0)
    session.request(m.Get, *GET, timeout=9, now=0)


def test_too_many_writes() -> None:
    session = new()
    for _ in range(protocol.MAX_WRITES):
        session.request(m.Write, *WRITE, timeout=9, now=0)
    with pytest.raises(errors.TooLarge) as caught:
        session.request(m.CommitTransaction, "t", "", timeout=9, now=0)
    assert caught.value.limit == protocol.MAX_WRITES
    session.request(m.Get, *GET, timeout=9, now=0)
    session.received(m.Reply(5, [1, []]), 0)
    session.request(m.Write, *WRITE, timeout=9, now=0)


# -- before and between connections ----------------------------------------------------------------


def test_requests_wait_for_the_connection() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    session.request(m.Get, *GET, timeout=5, now=0)
    session.request(m.Call, *CALL, timeout=5, now=0)
    session.connected(1)
    assert [type(x) for x in session.take_output()] == [m.Hello]
    session.received(welcome(), 2)
    assert session.take_output() == [m.Get(1, 1, 3000, *GET), m.Call(2, 1, 3000, *CALL)]


def test_a_request_that_was_never_sent_times_out_with_no_outcome() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    session.request(m.Write, *WRITE, timeout=5, now=0)
    assert session.next_deadline() == 5
    session.tick(4.9)
    assert session.take_events() == []
    session.tick(5)
    (failed,) = session.take_events()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, errors.Timeout)
    assert failed.error.outcome == "none"
    assert session.next_deadline() is None


def test_a_sent_request_times_out_a_little_after_the_node_would() -> None:
    session = new()
    session.request(m.Write, *WRITE, timeout=2, now=0)
    session.tick(2.1)
    assert session.take_events() == []
    session.tick(2 + protocol.GRACE)
    (failed,) = session.take_events()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, errors.Timeout)
    assert failed.error.outcome == "unknown"
    session.received(m.Reply(1, [1, []]), 3)
    assert session.take_events() == []


def test_deadlines_one_after_the_other() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    for timeout in (3, 1, 2):
        session.request(m.Get, *GET, timeout=timeout, now=0)
    ended = []
    now: float | None
    while (now := session.next_deadline()) is not None:
        session.tick(now)
        ended += [(event.id, now) for event in session.take_events() if isinstance(event, Failed)]
    assert ended == [(2, 1), (3, 2), (1, 3)]


def test_resumed_reads_and_writes_are_sent_again_calls_are_not() -> None:
    session = new()
    session.request(m.Get, *GET, timeout=10, now=0)
    session.request(m.Call, *CALL, timeout=10, now=0)
    session.request(m.Write, *WRITE, timeout=10, now=0)
    session.request(m.Publish, "c", 1, timeout=10, now=0)
    session.take_output()
    session.connection_lost(1)
    lost = session.take_events()
    assert [(e.id, type(e.error), e.error.outcome) for e in lost if isinstance(e, Failed)] == [
        (2, errors.Disconnected, "unknown"),
        (4, errors.Disconnected, "unknown"),
    ]
    assert lost[2:] == [StateChanged("suspended"), Redial(0.25)]
    session.request(m.Get, *GET, timeout=10, now=1.5)
    assert session.take_output() == []
    session.connected(2)
    assert session.take_output() == [m.Hello(1, "noc-1", "client", "s1", "token-s1")]
    session.received(welcome(resumed=True), 2)
    assert session.take_output() == [
        m.Get(1, 1, 8000, *GET),
        m.Write(3, 1, 8000, *WRITE),
        m.Get(5, 1, 9500, *GET),
    ]
    assert session.take_events() == [StateChanged("connected"), Welcomed(welcome(resumed=True))]
    session.received(m.Reply(3, [1, []]), 2)
    session.received(m.Reply(1, 1), 2)
    session.received(m.Reply(5, 1), 2)
    assert [e.id for e in session.take_events() if isinstance(e, Completed)] == [3, 1, 5]


def test_what_is_sent_again_times_out_when_its_time_is_over() -> None:
    session = new()
    session.request(m.Write, *WRITE, timeout=4, now=0)
    session.connection_lost(1)
    session.connected(2)
    session.received(welcome(resumed=True), 2)
    session.take_events()
    session.tick(4.4)
    assert session.take_events() == []
    session.tick(4.5)
    (failed,) = session.take_events()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, errors.Timeout)
    assert failed.error.outcome == "unknown"


def test_a_new_session_fails_what_was_sent_and_asks_again_what_is_harmless() -> None:
    session = new()
    session.request(m.Write, *WRITE, timeout=10, now=0)
    session.request(m.Get, *GET, timeout=10, now=0)
    session.request(m.Get, ("a",), None, "value", "tx1", timeout=10, now=0)
    session.request(m.Unsubscribe, 1, timeout=10, now=0)
    session.request(m.Subscribe, 2, ("a",), "local", (), timeout=10, now=0)
    session.connection_lost(1)
    session.request(m.Write, *WRITE, timeout=10, now=1)
    session.connected(2)
    session.take_output()
    session.take_events()
    session.received(welcome("s2"), 2)
    assert session.session == "s2"
    # Ids count from 1 in the new session.
    assert session.take_output() == [
        m.Get(1, 1, 8000, *GET),
        m.Subscribe(4, 1, 8000, 2, ("a",), "local", ()),
        m.Write(5, 1, 9000, *WRITE),
    ]
    events = session.take_events()
    assert events[0] == Completed(4, None)
    failed = [e for e in events if isinstance(e, Failed)]
    assert [(e.id, type(e.error), e.error.outcome) for e in failed] == [  # type: ignore[attr-defined]
        (1, errors.Disconnected, "unknown"),
        (3, errors.Disconnected, "unknown"),
    ]
    assert events[3:] == [StateChanged("lost"), StateChanged("connected"), Welcomed(welcome("s2"))]
    session.received(m.Reply(1, "v"), 2)
    session.received(m.Reply(5, [1, []]), 2)
    assert session.take_events() == [Completed(2, "v"), Completed(6, [1, []])]


def test_a_node_that_says_resumed_of_another_session_opened_a_new_one() -> None:
    session = new()
    session.connection_lost(1)
    session.connected(1)
    session.take_events()
    session.received(welcome("s2", resumed=True), 1)
    assert session.take_events() == [
        StateChanged("lost"),
        StateChanged("connected"),
        Welcomed(welcome("s2", resumed=False)),
    ]


def test_the_lease_ends_while_the_node_is_away() -> None:
    session = new()
    session.received(m.Heartbeat(()), 5)
    session.connection_lost(6)
    session.take_events()
    assert session.next_deadline() == 20
    session.tick(19.9)
    assert session.state == "suspended"
    session.tick(20)
    assert session.take_events() == [StateChanged("lost")]
    assert session.next_deadline() is None
    # The node may still have it: its lease runs anew from its own restart.
    session.connected(30)
    assert session.take_output() == [m.Hello(1, "noc-1", "client", "s1", "token-s1")]
    session.received(welcome(resumed=True), 30)
    assert session.take_events() == [StateChanged("connected"), Welcomed(welcome(resumed=True))]


def test_a_connection_lost_after_a_long_silence_is_lost_at_once() -> None:
    session = new()
    session.connection_lost(100)
    assert [e for e in session.take_events() if isinstance(e, StateChanged)] == [
        StateChanged("suspended"),
        StateChanged("lost"),
    ]


def test_redials_are_jittered_and_grow_to_a_bound() -> None:
    session = ClientSession("noc-1", jitter=lambda: 1.0)
    delays = []
    for _ in range(8):
        session.connection_lost(0)
        delays += [e.delay for e in session.take_events() if isinstance(e, Redial)]
    assert delays == [0.375, 0.75, 1.5, 3.0, 6.0, 7.5, 7.5, 7.5]
    session.connected(0)
    session.received(welcome(), 0)
    session.connection_lost(0)
    assert [e.delay for e in session.take_events() if isinstance(e, Redial)] == [0.375]
    session = ClientSession("noc-1", jitter=lambda: 0.0)
    session.connection_lost(0)
    assert session.take_events() == [Redial(0.125)]


def test_gone_says_hello_again_on_the_same_connection() -> None:
    session = new()
    session.request(m.Write, *WRITE, timeout=10, now=0)
    session.request(m.Call, *CALL, timeout=10, now=0)
    session.take_output()
    session.received(m.Gone(), 1)
    session.received(m.Gone(), 1)
    assert session.take_output() == [m.Hello(1, "noc-1", "client", "s1", "token-s1")]
    events = session.take_events()
    assert [type(e) for e in events] == [Failed, StateChanged]
    assert session.state == "suspended"
    session.received(welcome(resumed=True), 1)
    assert [x[:1] for x in session.take_output()] == [(1,)]


def test_a_hello_without_an_answer_is_given_up() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    session.connected(0)
    session.tick(9.9)
    assert session.take_events() == []
    session.tick(10)
    assert session.take_events() == [Redial(0.25)]
    assert session.state == "connecting"
    assert session.next_deadline() is None


def test_a_new_connection_while_connected_starts_over() -> None:
    session = new()
    session.request(m.Call, *CALL, timeout=5, now=0)
    session.connected(1)
    assert session.take_output() == [m.Hello(1, "noc-1", "client", "s1", "token-s1")]
    assert session.state == "suspended"


# -- heartbeats ------------------------------------------------------------------------------------


def test_heartbeats_when_nothing_else_is_sent() -> None:
    session = new()
    assert session.next_deadline() == 3
    session.tick(2.9)
    assert session.take_output() == []
    session.request(m.Get, *GET, timeout=60, now=2.9)
    session.take_output()
    session.tick(3)
    assert session.take_output() == []
    session.received(m.Heartbeat(()), 5)
    assert session.next_deadline() == 5.9
    session.tick(5.9)
    assert session.take_output() == [m.Heartbeat(())]


def test_heartbeats_with_positions_are_sent_whatever_else_is() -> None:
    session = new()
    session.positions = (("ops-pi1", "e", 3),)
    session.request(m.Get, *GET, timeout=60, now=2.9)
    session.take_output()
    session.tick(3)
    assert session.take_output() == [m.Heartbeat((("ops-pi1", "e", 3),))]


def test_three_silent_heartbeats_redial() -> None:
    session = new()
    session.tick(3)
    session.tick(6)
    session.tick(8.9)
    assert session.take_events() == []
    session.tick(9)
    assert session.take_events() == [StateChanged("suspended"), Redial(0.25)]
    assert session.take_output() == []


def test_any_message_is_a_sign_of_life() -> None:
    session = new()
    session.received(m.Reply(99, None), 8)
    session.tick(9)
    assert session.state == "connected"


def test_a_node_cannot_make_a_client_spin() -> None:
    session = new(heartbeat=0.0)
    deadline = session.next_deadline()
    assert deadline is not None
    assert deadline > 0


# -- ends ------------------------------------------------------------------------------------------


def test_taken_over_is_final() -> None:
    session = new()
    session.request(m.Get, *GET, timeout=5, now=0)
    session.take_output()
    session.received(m.Displaced("noc-1"), 1)
    failed, state = session.take_events()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, errors.TakenOver)
    assert failed.error.tega_id == "noc-1"
    assert state == StateChanged("taken over")
    with pytest.raises(errors.TakenOver):
        session.request(m.Get, *GET, timeout=5, now=1)
    session.connected(2)
    session.connection_lost(2)
    session.received(welcome("s2"), 2)
    session.received(m.Gone(), 2)
    session.tick(100)
    assert session.take_output() == []
    assert session.take_events() == []
    assert session.next_deadline() is None
    assert not session.send(m.Bye())
    session.close(3)
    assert session.take_events() == [StateChanged("closed")]


def test_taken_over_as_the_answer_to_hello() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    session.connected(0)
    session.received(m.Refused("TakenOver", "no", {}), 0)
    assert session.take_events() == [StateChanged("taken over")]


def test_close_says_bye_and_fails_what_waits() -> None:
    session = new()
    session.request(m.Get, *GET, timeout=5, now=0)
    session.take_output()
    session.close(1)
    session.close(1)
    assert session.take_output() == [m.Bye()]
    failed, state = session.take_events()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, errors.Disconnected)
    assert failed.error.outcome == "unknown"
    assert state == StateChanged("closed")
    with pytest.raises(errors.Disconnected, match="closed"):
        session.request(m.Get, *GET, timeout=5, now=1)


def test_close_without_a_connection_knows_what_was_never_sent() -> None:
    session = new()
    session.request(m.Get, *GET, timeout=5, now=0)
    session.connection_lost(1)
    session.request(m.Get, *GET, timeout=5, now=1)
    session.take_events()
    session.close(1)
    assert session.take_output() == []
    outcomes = [e.error.outcome for e in session.take_events() if isinstance(e, Failed)]  # type: ignore[attr-defined]
    assert outcomes == ["unknown", "none"]


@pytest.mark.parametrize("code", ["OwnerAway", "Offline", "TransactionExpired"])
def test_a_write_that_could_not_be_tried_again_may_have_been_done_the_first_time(code: str) -> None:
    session = new()
    session.request(m.CommitTransaction, "tx", "", timeout=5, now=0)
    session.connection_lost(1)
    session.connected(2)
    session.received(welcome(resumed=True), 2)
    session.request(m.CommitTransaction, "another", "", timeout=5, now=2)
    session.take_events()
    for id in (1, 2):
        session.received(m.Failure(id, code, "no", {}), 3)
    first, second = session.take_events()
    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert isinstance(first.error, errors.Disconnected)
    assert first.error.outcome == "unknown"
    assert second.error.code == code


def test_a_refused_hello_is_told_and_tried_again() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    session.connected(0)
    session.received(m.Refused("TooLarge", "1000 sessions are open", {"limit": 1000}), 0)
    rejected, redial = session.take_events()
    assert isinstance(rejected, Rejected)
    assert isinstance(rejected.error, errors.TooLarge)
    assert redial == Redial(0.25)
    assert session.state == "connecting"


def test_a_token_that_is_refused_is_not_said_again() -> None:
    session = new()
    session.connection_lost(1)
    session.connected(1)
    session.take_output()
    session.received(m.Refused("Unauthorized", "the token is not that of the session", {}), 1)
    session.connected(2)
    assert session.take_output() == [m.Hello(1, "noc-1", "client", "", "")]


def test_a_refused_message_ends_nothing() -> None:
    session = new()
    session.received(m.Refused("ProtocolError", "what was that", {}), 1)
    (rejected,) = session.take_events()
    assert isinstance(rejected, Rejected)
    assert session.state == "connected"


def test_a_node_of_another_version() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    session.connected(0)
    session.received(welcome(version=2), 0)
    rejected, redial = session.take_events()
    assert isinstance(rejected, Rejected)
    assert "version 2" in str(rejected.error)
    assert isinstance(redial, Redial)


# -- cancel, reject, send --------------------------------------------------------------------------


def test_cancel_of_a_call_asks_the_node() -> None:
    session = new()
    session.request(m.Call, *CALL, timeout=5, now=0)
    session.take_output()
    session.cancel(1, 1)
    assert session.take_output() == [m.CancelCall(2, 1, 4500, 1)]
    assert session.take_events() == []
    session.received(m.Failure(1, "Cancelled", "given up", {}), 1)
    session.received(m.Reply(2, None), 1)
    (failed,) = session.take_events()
    assert isinstance(failed, Failed)
    assert failed.id == 1
    assert isinstance(failed.error, errors.Cancelled)
    session.cancel(1, 1)
    assert session.take_output() == []


@pytest.mark.parametrize("end", ["failure", "timeout", "lost", "close", "taken over"])
def test_nobody_hears_of_the_request_to_cancel_itself(end: str) -> None:
    session = new()
    session.request(m.Call, *CALL, timeout=5, now=0)
    session.cancel(1, 1)
    session.take_output()
    match end:
        case "failure":
            session.received(m.Failure(2, "NotFound", "", {}), 1)
        case "timeout":
            session.tick(50)
        case "lost":
            session.connection_lost(1)
        case "close":
            session.close(1)
        case _:
            session.received(m.Displaced("noc-1"), 1)
    assert all(event.id == 1 for event in session.take_events() if isinstance(event, Failed))


def test_cancel_of_anything_else_ends_it_here() -> None:
    session = new()
    session.request(m.Get, *GET, timeout=5, now=0)
    session.take_output()
    session.cancel(1, 1)
    (failed,) = session.take_events()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, errors.Cancelled)
    assert session.take_output() == []
    session.received(m.Reply(1, 0), 1)
    assert session.take_events() == []


def test_cancel_without_a_connection_or_without_room() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    session.request(m.Call, *CALL, timeout=5, now=0)
    session.cancel(1, 1)
    assert [type(e) for e in session.take_events()] == [Failed]
    session = new()
    for _ in range(protocol.MAX_PENDING):
        session.request(m.Call, *CALL, timeout=9, now=0)
    session.cancel(7, 0)
    assert [e.id for e in session.take_events() if isinstance(e, Failed)] == [7]


def test_what_cannot_be_encoded_fails_alone() -> None:
    session = new()
    session.request(m.Get, *GET, timeout=5, now=0)
    session.request(m.Get, *GET, timeout=5, now=0)
    first, _ = session.take_output()
    session.unsendable(first, errors.TooLarge("too long"))
    session.unsendable(m.Heartbeat(()), errors.TooLarge("too long"))
    assert [(e.id, type(e.error)) for e in session.take_events() if isinstance(e, Failed)] == [
        (1, errors.TooLarge)
    ]
    assert session.pending == 1


def test_send_needs_a_connection() -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    assert not session.send(m.Result(1, True, 0))
    session = new()
    assert session.send(m.Result(1, True, 0))
    assert session.take_output() == [m.Result(1, True, 0)]


def test_what_a_connection_did_not_take_is_not_sent_on_the_next() -> None:
    session = new()
    session.send(m.Result(1, True, 0))
    session.connection_lost(1)
    session.connected(2)
    assert session.take_output() == [m.Hello(1, "noc-1", "client", "s1", "token-s1")]


def test_what_passes_through() -> None:
    session = new()
    changed = m.Changed(1, "a", "e", 0, 1, 0.0, "x", "", None, False, ())
    message = m.Message((1,), "c", "x", 1)
    invoke = m.Invoke(1, ("f",), (), {}, 1000, "x")
    update = m.RootUpdate(())
    beat = m.Heartbeat((("a", "e", 1),))
    forward = m.Forward("s", "x", b"")
    ended = m.ForwardEnded("s")
    pull = m.Pull("a", "e", 1, 0)
    for each in (changed, message, m.Dropped(3), invoke, m.Abandon(1), update, beat, forward, ended, pull):
        session.received(each, 1)
    assert session.take_events() == [
        Notified(changed),
        MessageReceived(message),
        Dropped(3),
        Invoked(invoke),
        Abandoned(1),
        Other(update),
        Other(beat),
        Other(forward),
        Other(ended),
        Other(pull),
    ]


def test_a_session_of_an_earlier_run_is_resumed_with_fresh_ids() -> None:
    session = ClientSession("pi1", "agent", jitter=lambda: 0.5)
    session.resume("s1", "token-s1", 1000)
    session.connected(0)
    assert session.take_output() == [m.Hello(1, "pi1", "agent", "s1", "token-s1")]
    session.received(welcome(resumed=True), 0)
    assert session.state == "connected"
    session.request(m.Get, *GET, timeout=5, now=0)
    assert session.take_output() == [m.Get(1000, 1000, 5000, *GET)]


def test_the_table_names_only_states_and_leaves_none_out() -> None:
    states = set(protocol.TRANSITIONS)
    assert all(set(row.values()) <= states for row in protocol.TRANSITIONS.values())
    assert all("closed" in row for state, row in protocol.TRANSITIONS.items() if state != "closed")


# -- whatever happens, every request ends once -----------------------------------------------------

STEPS = st.lists(
    st.sampled_from(
        [
            "get",
            "write",
            "call",
            "publish",
            "cancel",
            "answer",
            "fail",
            "lose",
            "connect",
            "welcome new",
            "welcome back",
            "gone",
            "wait",
            "wait long",
            "refuse",
            "junk",
        ]
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_every_request_ends_once_and_nothing_is_sent_twice_that_must_not(
    steps: list[str], random: Any
) -> None:
    session = ClientSession("noc-1", jitter=lambda: 0.5)
    now = 0.0
    asked: dict[int, type[Any]] = {}
    ended: list[int] = []
    wire: list[Any] = []  # sent on the present connection
    sent_in: dict[str, list[tuple[int, type[Any]]]] = {}
    serial = 0
    name = ""
    said_hello = False

    def take() -> None:
        for message in session.take_output():
            wire.append(message)
            if type(message) in m.REQUESTS:
                assert session.state in ("connected", "closed")
                assert 1 <= message.ack <= message.id
                assert message.timeout >= 1
                sent_in.setdefault(name, []).append((message.id, type(message)))
        for event in session.take_events():
            if isinstance(event, (Completed, Failed)):
                ended.append(event.id)
                assert event.id in asked

    for step in steps:
        match step:
            case "get":
                asked[session.request(m.Get, *GET, timeout=5, now=now)] = m.Get
            case "write":
                asked[session.request(m.Write, *WRITE, timeout=20, now=now)] = m.Write
            case "call":
                asked[session.request(m.Call, *CALL, timeout=5, now=now)] = m.Call
            case "publish":
                asked[session.request(m.Publish, "c", 1, timeout=5, now=now)] = m.Publish
            case "cancel" if asked:
                session.cancel(random.choice(list(asked)), now)
            case "answer" | "fail":
                unanswered = [x for x in wire if type(x) in m.REQUESTS]
                if unanswered:
                    number = random.choice(unanswered).id
                    answer = m.Reply(number, 1) if step == "answer" else m.Failure(number, "NotFound", "", {})
                    session.received(answer, now)
            case "lose":
                session.connection_lost(now)
                wire.clear()
                said_hello = False
            case "connect":
                wire.clear()
                session.connected(now)
                said_hello = True
            case "welcome new" | "welcome back" if said_hello:
                back = step == "welcome back" and name != ""
                if session._hello_due is not None:
                    if not back:
                        serial += 1
                        name = f"s{serial}"
                    session.received(welcome(name, resumed=back), now)
            case "gone":
                session.received(m.Gone(), now)
            case "wait":
                now += 1
                session.tick(now)
            case "wait long":
                now += 30
                session.tick(now)
            case "refuse" if said_hello:
                session.received(m.Refused("TooLarge", "", {}), now)
            case _:
                session.received(m.Reply(10**6, 0), now)
        take()
        deadline = session.next_deadline()
        assert deadline is None or deadline > now - 31
    session.close(now)
    take()
    assert sorted(ended) == sorted(asked)
    for sent in sent_in.values():
        once = [number for number, cls in sent if cls in (m.Call, m.Publish)]
        assert len(once) == len(set(once))
