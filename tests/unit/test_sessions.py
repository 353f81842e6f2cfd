from __future__ import annotations

import pytest

from tega_zmq import sessions
from tega_zmq.errors import InvalidValue, TooLarge, Unauthorized
from tega_zmq.sessions import Session, Sessions, check_tega_id
from tega_zmq.wire.messages import Failure, Message, Reply


def session(id: str = "s1", tega_id: str = "noc", via: Session | None = None) -> Session:
    return Session(id, tega_id, "token-" + id, "client", via, 15.0, 0.0)


@pytest.mark.parametrize("tega_id", ["a", "pi-1", "A_9", "x" * 64])
def test_tega_ids(tega_id: str) -> None:
    assert check_tega_id(tega_id) == tega_id


@pytest.mark.parametrize("tega_id", ["", "x" * 65, "a b", "a/b", "a.b", "\u00fc", "a\n", "^"])
def test_what_is_no_tega_id(tega_id: str) -> None:
    with pytest.raises(InvalidValue, match="1 to 64"):
        check_tega_id(tega_id)


def test_sessions_are_found_by_id_tega_id_and_connection() -> None:
    table = Sessions(10)
    one = session()
    table.add(one, 5.0)
    assert table.by_tega_id == {"noc": one}
    assert not one.connected
    table.bind(one, b"p1")
    assert table.by_peer == {b"p1": one}
    assert one.connected
    table.bind(one, b"p2")
    assert table.by_peer == {b"p2": one}
    table.unbind(one)
    table.unbind(one)
    assert table.by_peer == {}
    table.bind(one, b"p3")
    table.remove(one)
    assert len(table) == 0
    assert list(table) == []
    assert (table.by_id, table.by_peer, table.by_tega_id, one.peer) == ({}, {}, {}, None)


def test_a_sub_session_has_the_connection_of_its_carrier_and_no_name_of_its_own() -> None:
    table = Sessions(10)
    agent = session("s1", "pi1")
    sub = session("s2", "pi1/prog", agent)
    table.add(agent, 5.0)
    table.add(sub, 5.0)
    assert table.by_tega_id == {"pi1": agent}
    assert agent.subsessions == {"s2": sub}
    assert not sub.connected
    table.bind(agent, b"p")
    assert sub.connected
    assert table.resume("s2", "token-s2") is None
    assert [each.id for each in table.due(9.0)] == ["s1"]
    table.remove(sub)
    assert agent.subsessions == {}


def test_removing_an_old_session_leaves_its_successor() -> None:
    table = Sessions(10)
    old, new = session("s1"), session("s2")
    table.add(old, 1.0)
    table.add(new, 1.0)
    table.remove(old)
    assert table.by_tega_id == {"noc": new}


def test_the_table_is_bounded() -> None:
    table = Sessions(1)
    table.add(session("s1", "a"), 1.0)
    with pytest.raises(TooLarge) as caught:
        table.add(session("s2", "b"), 1.0)
    assert (caught.value.size, caught.value.limit) == (1, 1)
    assert set(table.by_id) == {"s1"}


def test_sessions_with_connections_have_a_bound_of_their_own() -> None:
    table = Sessions(4, 1)
    agent = session("s1", "pi1")
    table.add(agent, 1.0)
    with pytest.raises(TooLarge, match="file descriptors") as caught:
        table.add(session("s2", "b"), 1.0)
    assert (caught.value.size, caught.value.limit) == (1, 1)
    below = session("s3", "noc", agent)
    table.add(below, 1.0)
    table.remove(below)
    table.remove(agent)
    table.remove(agent)
    table.add(session("s2", "b"), 1.0)
    assert set(table.by_id) == {"s2"} and table.direct == 1


def test_resuming_needs_the_token() -> None:
    table = Sessions(10)
    one = session()
    table.add(one, 1.0)
    assert table.resume("s1", "token-s1") is one
    assert table.resume("gone", "token-s1") is None
    for wrong in ("", "token-s2", "t\u00f6ken"):
        with pytest.raises(Unauthorized) as caught:
            table.resume("s1", wrong)
        assert caught.value.tega_id == "noc"


def test_leases_are_looked_at_in_order_and_only_of_live_sessions() -> None:
    table = Sessions(10)
    assert table.next_due() == float("inf")
    for number, due in enumerate([3.0, 1.0, 2.0]):
        table.add(session(f"s{number}", f"t{number}"), due)
    table.remove(table.by_id["s2"])
    assert table.next_due() == 1.0
    assert list(table.due(0.9)) == []
    assert [each.id for each in table.due(3.0)] == ["s1", "s0"]
    table.look_again(table.by_id["s0"], 7.0)
    assert table.next_due() == 7.0


def test_waiting_messages_are_bounded_by_number_oldest_first() -> None:
    one = session()
    for number in range(sessions.MAX_MESSAGES + 3):
        one.queue_message(Message((1,), "c", "x", number))
    assert one.dropped == 3
    assert len(one.backlog) == sessions.MAX_MESSAGES
    assert one.take_message().value == 3


def test_waiting_messages_are_bounded_by_bytes_but_one_always_fits() -> None:
    one = session()
    big = "x" * (sessions.MAX_WAITING // 2 + 1)
    for number in range(3):
        one.queue_message(Message((1,), "c", "x", [number, big]))
    assert (one.dropped, len(one.backlog)) == (2, 1)
    assert one.take_message().value[0] == 2
    one.queue_message(Message((1,), "c", "x", big * 2))
    assert len(one.backlog) == 1
    one.queue_message(Message((1,), "c", "x", 1))
    assert (one.dropped, one.take_message().value) == (3, 1)
    for _ in range(10):
        one.queue_message(Message((1,), "c", "x", 1))
    assert len(one.backlog) == 10, "what was taken counts no more"


def test_a_message_that_cannot_be_sent_is_dropped() -> None:
    one = session()
    one.queue_message(Message((1,), "c", "x", 2**70))
    assert (one.dropped, len(one.backlog)) == (1, 0)


def test_answers_are_kept_until_the_session_has_them() -> None:
    one = session()
    one.settle(Reply(4, [0, []]))
    one.settle(Failure(5, "Collision", "", {}))
    assert one.settled_answer(4) == Reply(4, [0, []])
    one.ack = 5
    assert one.settled_answer(4) is None
    assert one.settled_answer(5) is not None
    assert one.settled_answer(6) is None
    for id in range(6, 6 + sessions.MAX_SETTLED):
        one.settle(Reply(id, None))
    assert len(one.settled) == sessions.MAX_SETTLED
    assert one.settled_answer(5) is None
