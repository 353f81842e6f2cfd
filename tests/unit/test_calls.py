from __future__ import annotations

import pytest

from tega_zmq.calls import Calls, Handlers, Many, of_caller
from tega_zmq.patterns import compile_oids
from tega_zmq.sessions import Session

ADD = ("tools", "add")


def session(name: str, *, connected: bool = True) -> Session:
    made = Session(name, name, "", "client", None, 15.0, 0.0)
    made.peer = name.encode() if connected else None
    return made


def test_a_group_goes_round_and_past_the_unconnected() -> None:
    handlers = Handlers()
    a, b, c = session("a"), session("b", connected=False), session("c")
    for each in (a, b, c, a):
        handlers.add(ADD, each)
    assert [handlers.pick(ADD) for _ in range(4)] == [a, c, a, c]
    b.peer = b"b"
    picked = [handlers.pick(ADD) for _ in range(6)]
    assert {each: picked.count(each) for each in (a, b, c)} == {a: 2, b: 2, c: 2}
    a.peer = b.peer = c.peer = None
    assert handlers.pick(ADD) is None
    assert handlers.offered(ADD)
    assert handlers.first(ADD) in (a, b, c)
    assert handlers.pick(("tools", "none")) is None


def test_handlers_end() -> None:
    handlers = Handlers()
    a, b = session("a"), session("b")
    handlers.add(ADD, a)
    handlers.add(ADD, b)
    assert a.handlers == {ADD}
    assert handlers.remove(ADD, a)
    assert not handlers.remove(ADD, a)
    assert a.handlers == set()
    assert handlers.pick(ADD) is b
    assert handlers.remove(ADD, b)
    assert not handlers.remove(("x",), b)
    assert not handlers.offered(ADD)
    assert len(handlers) == 0
    assert list(handlers) == []
    assert handlers.below(("tools",)) == []
    assert handlers._within == {}


def test_what_is_offered_below_a_path() -> None:
    handlers = Handlers()
    a, b = session("a"), session("b")
    for path, offering in [
        (("t", "x", "y"), a),
        (("t", "x"), b),
        (("t", "x", "y"), b),
        (("u",), a),
        (("t", "xz"), a),
    ]:
        handlers.add(path, offering)
    assert handlers.below(("t", "x")) == [(("t", "x"), [b]), (("t", "x", "y"), [a, b])]
    assert handlers.below(("t", "x", "y", "z")) == []
    assert [path for path, _ in handlers.below(("t",))] == [("t", "x"), ("t", "x", "y"), ("t", "xz")]
    handlers.remove(("t", "x", "y"), a)
    assert handlers.below(("t", "x", "y")) == [(("t", "x", "y"), [b])]


def test_matching_by_pattern_is_sorted() -> None:
    handlers = Handlers()
    a, b = session("a"), session("b")
    for path in (("ops-2", "ping"), ("ops-1", "ping"), ("ops-1", "info")):
        handlers.add(path, b)
        handlers.add(path, a)
    found = handlers.matching(compile_oids(r"ops-.\.ping"))
    assert found == [
        (("ops-1", "ping"), a),
        (("ops-1", "ping"), b),
        (("ops-2", "ping"), a),
        (("ops-2", "ping"), b),
    ]


def test_a_call_ends_once() -> None:
    calls = Calls()
    caller, handler = session("c"), session("h")
    call = calls.start(ADD, handler, 5.0, caller=caller, request=7)
    assert calls.served_by(call.number, handler)
    assert not calls.served_by(call.number, caller)
    assert not calls.served_by(99, handler)
    assert of_caller(caller) == [call.number]
    assert list(handler.serving) == [call.number]
    assert calls.end(call.number) == call
    assert calls.end(call.number) is None
    assert (caller.calling, handler.serving, len(calls)) == ({}, {}, 0)


def test_calls_to_many_share_a_request() -> None:
    calls = Calls()
    caller, handlers = session("c"), [session("h1"), session("h2")]
    many = Many(caller, 7)
    made = [calls.start(ADD, each, 5.0, caller=caller, request=7, many=many) for each in handlers]
    assert of_caller(caller) == [each.number for each in made]
    calls.end(made[0].number)
    assert of_caller(caller) == [made[1].number]
    calls.end(made[1].number)
    assert caller.calling == {}


def test_calls_from_above_are_found_by_their_number_there() -> None:
    calls = Calls()
    handler = session("h")
    one = calls.start(ADD, handler, 5.0, caller=None, request=7, origin="s1")
    two = calls.start(ADD, handler, 5.0, caller=None, request=7, origin="s2")
    assert calls.from_uplink(7, "s1") == one.number
    assert calls.from_uplink(8, "s1") is None
    again = calls.start(ADD, handler, 5.0, caller=None, request=7, origin="s1")
    calls.end(one.number)
    assert calls.from_uplink(7, "s1") == again.number
    assert sorted(calls.all_from_uplink()) == [two.number, again.number]
    calls.end(again.number)
    assert calls.from_uplink(7, "s1") is None


def test_deadlines() -> None:
    calls = Calls()
    caller, handler = session("c"), session("h")
    assert calls.next_deadline() == float("inf")
    made = [calls.start(ADD, handler, due, caller=caller, request=n) for n, due in enumerate([3.0, 1.0, 2.0])]
    assert calls.next_deadline() == 1.0
    calls.end(made[1].number)
    assert calls.next_deadline() == 2.0
    assert [each.request for each in calls.expired(2.5)] == [2]
    assert [each.request for each in calls.expired(9.0)] == [0]
    assert list(calls.expired(9.0)) == []
    assert calls.next_deadline() == float("inf")


@pytest.mark.parametrize("stays", [0, 10])
def test_deadlines_of_calls_that_ended_are_forgotten(stays: int) -> None:
    calls = Calls()
    caller, handler = session("c"), session("h")
    for number in range(500):
        call = calls.start(ADD, handler, 1000.0, caller=caller, request=number)
        if number >= stays:
            calls.end(call.number)
    assert list(calls.expired(1.0)) == []
    assert len(calls._deadlines) == stays
    assert len(calls) == stays
