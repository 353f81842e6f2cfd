"""What a session may ask of a node that has no uplink, request by request."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest

from tega_zmq import errors
from tega_zmq.node import Settings, machine, parts, reading
from tega_zmq.wire import messages as m
from tests.unit.node.lab import Lab, Peer


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def peer(lab: Lab) -> Peer:
    return lab.join("noc")


def refused(peer: Peer, error: type[errors.TegaError], cls: type[Any], *fields: Any) -> errors.TegaError:
    with pytest.raises(error) as raised:
        peer.ask(cls, *fields)
    return raised.value


# -- reading ---------------------------------------------------------------------------------------


def test_the_forms_of_a_read(peer: Peer) -> None:
    peer.put("a", {"b": {"c": 1}, "d": [1]})
    assert peer.ask(m.Get, ("a",), None, "value", "") == [{"b": {"c": 1}, "d": [1]}, None]
    value, version, ephemeral, epoch, age, _ = peer.ask(m.Get, ("a", "b"), None, "node", "")
    assert (value, version, ephemeral, age) == ({"c": 1}, 0, False, None) and epoch
    assert sorted(peer.ask(m.Get, ("a",), None, "oids", "")) == [["b", True], ["d", False]]
    assert peer.ask(m.Get, ("a", "d"), None, "oids", "") == []
    assert peer.ask(m.Get, ("a", "b"), None, "place", "") == [0, 0, epoch, None]
    attributes, _ = peer.ask(m.Get, ("a", "b"), None, "attributes", "")
    assert attributes["_oid"] == "b" and attributes["_value"]["c"]["_value"] == 1
    peer.put("a.d", [2])
    assert peer.ask(m.Get, ("a", "b"), None, "place", "") == [1, 0, epoch, None]
    assert peer.ask(m.Get, ("a",), -1, "place", "") == [0, 0, epoch, None]
    peer.ask(m.Tag, "a", 0, "first")
    assert peer.ask(m.Get, ("a", "d"), "first", "place", "")[:2] == [0, 0]
    refused(peer, errors.NotFound, m.Get, ("a", "x"), None, "place", "")
    edges, age = peer.ask(m.Get, ("a",), None, "edges", "")
    assert edges == [
        [["a"], 0, "b", 0],
        [["a"], 0, "d", 0],
        [["a", "b"], 0, "c", 0],
        [["a"], 1, "b", 0],
        [["a"], 1, "d", 1],
    ]
    assert age is None
    assert len(peer.ask(m.Get, ("a",), -1, "edges", "")[0]) == 3
    refused(peer, errors.NotFound, m.Get, ("x",), None, "edges", "")
    assert "form" in str(refused(peer, errors.InvalidValue, m.Get, ("a",), None, "shape", ""))


@pytest.mark.parametrize(
    ("path", "version"), [(("x",), None), (("x",), 0), (("a", "x"), None), (("a", "x"), 0)]
)
def test_a_read_of_what_is_not_there_says_so(peer: Peer, path: tuple[str, ...], version: int | None) -> None:
    peer.put("a", {"b": 1})
    for form in ("value", "node", "place", "attributes", "oids", "edges"):
        refused(peer, errors.NotFound, m.Get, path, version, form, "")
    refused(peer, errors.NotFound, m.Blame, path, version)
    refused(peer, errors.NotFound, m.Diff, path, version, path, version)
    if path[0] == "x":
        refused(peer, errors.NotFound, m.Log, path, 10, None, None, "")
    assert peer.ask(m.Find, "x", "") == []


def test_versions_are_read_by_number_and_from_the_end(peer: Peer) -> None:
    for n in range(3):
        peer.put("a.n", n)
    assert [peer.get("a.n", v) for v in (0, 1, 2, -1, -2)] == [0, 1, 2, 1, 0]
    refused(peer, errors.NotFound, m.Get, ("a",), 3, "value", "")
    refused(peer, errors.NotFound, m.Get, ("a", "x"), None, "value", "")
    refused(peer, errors.NotFound, m.Get, ("b",), None, "value", "")


@pytest.mark.parametrize("leaf", ["text", "", "\u00e9" * 9, 0, True, -0.5, None, [1, {"_x": None}], [], {}])
def test_every_kind_of_value_is_read_as_it_was_put(peer: Peer, leaf: Any) -> None:
    peer.put("a.b", leaf)
    peer.put("a.c", 1)
    expected = [leaf, None]
    assert peer.ask(m.Get, ("a", "b"), None, "value", "") == expected
    assert peer.ask(m.Get, ("a", "b"), 0, "value", "") == expected
    assert peer.ask(m.Get, ("a", "b"), None, "node", "")[:3] == [leaf, 0, False]
    refused(peer, errors.NotFound, m.Get, ("a", "b", "c"), None, "value", "")


def test_a_string_that_is_larger_than_an_answer_is_refused() -> None:
    peer = Lab(Settings("broker", max_value=8 << 20)).join("noc")
    text = "x" * (reading.MAX_ANSWER - 5)
    peer.put("a.b", text)
    assert peer.get("a.b") == text
    peer.put("a.b", text[1:] + "\u00e9")
    refused(peer, errors.TooLarge, m.Get, ("a", "b"), None, "value", "")


def test_a_null_is_shown_as_the_handlers_that_stand_in_its_place(peer: Peer) -> None:
    peer.put("ops", {"null": None, "leaf": "x"})
    for oid in ("null", "leaf"):
        peer.ask(m.Register, ("ops", oid))
    assert peer.get("ops.null") == "%noc.null"
    assert peer.get("ops.leaf") == "x"
    assert peer.get("ops.null", 0) is None


def test_handlers_are_shown_in_place(lab: Lab, peer: Peer) -> None:
    other = lab.join("other")
    peer.put("ops", {"x": 1, "leaf": 2})
    for path in (("ops", "net", "restart"), ("ops", "leaf", "odd"), ("ops", "x")):
        peer.ask(m.Register, path)
    other.ask(m.Register, ("ops", "net", "restart"))
    assert peer.get("ops") == {"x": 1, "leaf": 2, "net": {"restart": ["%noc.restart", "%other.restart"]}}
    assert peer.get("ops.x") == 1, "data comes first"
    assert peer.get("ops.net.restart") == ["%noc.restart", "%other.restart"]
    peer.ask(m.Register, ("tools", "add"))
    assert peer.get("tools") == {"add": "%noc.add"}
    assert peer.ask(m.Get, ("tools",), None, "node", "") == [{"add": "%noc.add"}, -1, False, "", None, True]
    assert peer.ask(m.Get, ("tools",), None, "oids", "") == [["add", False]]
    refused(peer, errors.NotFound, m.Get, ("tools",), None, "attributes", "")
    refused(peer, errors.NotFound, m.Get, ("tools",), 0, "value", "")


def test_find_log_and_diff(peer: Peer) -> None:
    peer.put("config-pi1.net", {"mtu": 1500})
    peer.put("config-pi2.net", {"mtu": 1500})
    peer.put("config-pi1.net.mtu", 9000)
    found = peer.ask(m.Find, r"config-(.*)\.net", "")
    assert [[path, groups] for path, groups, _ in found] == [
        [["config-pi1", "net"], [["pi1"]]],
        [["config-pi2", "net"], [["pi2"]]],
    ]
    refused(peer, errors.InvalidValue, m.Find, "(a+)+$", "")
    log = peer.ask(m.Log, ("config-pi1", "net", "mtu"), 10)
    assert [entry[0] for entry in log] == [1, 0] and log[0][5] == [[["config-pi1", "net", "mtu"], [9000]]]
    refused(peer, errors.NotFound, m.Log, ("nothing",), 10)
    changes = peer.ask(m.Diff, ("config-pi1",), 0, ("config-pi1",), None)
    assert changes == [[["net", "mtu"], [1500], [9000]]]
    refused(peer, errors.NotFound, m.Diff, ("config-pi1",), 7, ("config-pi1",), None)


def test_answers_that_do_not_fit_are_refused(peer: Peer) -> None:
    for n in range(10):
        peer.put(f"big.k{n}", "x" * 1_000_000)
    for cls, fields in (
        (m.Get, (("big",), None, "value", "")),
        (m.Get, (("big",), None, "attributes", "")),
        (m.Find, (r"big\..*", "")),
        (m.Diff, (("big",), 0, ("big",), None)),
    ):
        assert refused(peer, errors.TooLarge, cls, *fields)
    assert len(peer.ask(m.Get, ("big",), None, "oids", "")) == 10


def test_a_log_leaves_out_the_largest_changes_that_do_not_fit_and_says_how_many(peer: Peer) -> None:
    peer.put("big.first", 0)
    txid = peer.ask(m.Begin)
    for n in range(12):
        peer.ask(m.Write, (("put", ("big", f"k{n}"), "x" * 1_000_000, None, False),), "", txid)
    peer.ask(m.CommitTransaction, txid, "a large one")
    peer.put("big.small", 1)
    small, large, _ = peer.ask(m.Log, ("big",), 10)
    assert small[5:] == [[[["big", "small"], [1]]]]
    assert large[3] == "a large one"
    assert [change[0] for change in large[5]] == [["big", f"k{n}"] for n in range(7)]
    assert large[6:] == [5]
    peer.put("wide", {})
    peer.ask(m.Write, tuple(("put", ("wide", f"k{n}"), n, None, False) for n in range(1200)), "", "")
    (wide,) = peer.ask(m.Log, ("wide",), 1)
    assert (len(wide[5]), wide[6]) == (1000, 200)


def test_a_log_that_does_not_fit_even_without_changes_is_refused(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_ANSWER", 3000)
    for n in range(3):
        peer.ask(m.Write, (("put", ("a", "b"), n, None, False),), "m" * 1000, "")
    assert "ask for fewer" in str(refused(peer, errors.TooLarge, m.Log, ("a",), 3))
    assert len(peer.ask(m.Log, ("a",), 2)) == 2


def test_a_candidate_that_does_not_fit_is_refused_and_can_be_committed(peer: Peer) -> None:
    txid = peer.ask(m.Begin)
    for n in range(4):  # it holds them twice: as tree and as change
        peer.ask(m.Write, (("put", ("big", f"k{n}"), "x" * 1_000_000, None, False),), "", txid)
    assert "the candidate" in str(refused(peer, errors.TooLarge, m.Candidate, txid))
    for n in range(4, 10):
        peer.ask(m.Write, (("put", (f"big{n}", "k"), "x" * 1_000_000, None, False),), "", txid)
    assert "the candidate" in str(refused(peer, errors.TooLarge, m.Candidate, txid))
    assert len(peer.ask(m.CommitTransaction, txid, "")[1]) == 7


def test_a_read_sees_the_own_writes_before_and_waits_for_them() -> None:
    lab = Lab(durable=False)
    writer, reader = lab.join("writer"), lab.join("reader")
    lab.sync()
    put = writer.start(m.Write, (("put", ("a", "k"), 1, None, False),), "", "")
    own = writer.start(m.Get, ("a", "k"), None, "value", "")
    refused(reader, errors.NotFound, m.Get, ("a", "k"), None, "value", "")
    assert not writer.answered(put) and not writer.answered(own)
    lab.sync()
    assert writer.answer(own)[0] == 1 and writer.answer(put)[1] == [["a", 0]]


def test_that_something_is_gone_is_not_told_before_its_delete_is_durable() -> None:
    lab = Lab(durable=False)
    deleter, reader = lab.join("deleter"), lab.join("reader")
    deleter.start(m.Write, (("put", ("a", "k"), 1, None, False),), "", "")
    lab.sync()
    deleter.start(m.Write, (("delete", ("a", "k"), None, None, False),), "", "")
    reader.start(m.Write, (("put", ("a", "own"), 1, None, False),), "", "")
    gone = reader.start(m.Get, ("a", "k"), None, "value", "")
    assert not reader.answered(gone)
    lab.sync()
    with pytest.raises(errors.NotFound):
        reader.answer(gone)


def test_whether_a_node_is_ephemeral_is_told_of_the_version_that_was_asked_for(peer: Peer) -> None:
    peer.put("a.k", 1, ephemeral=True)
    peer.put("a.k", 2)
    assert peer.ask(m.Get, ("a", "k"), 0, "node", "")[:3] == [1, 0, True]
    assert peer.ask(m.Get, ("a", "k"), None, "node", "")[:3] == [2, 1, False]


# -- writing ---------------------------------------------------------------------------------------

BAD_OPS: list[tuple[Any, type[errors.TegaError]]] = [
    (("move", ("a",), 1, None, False), errors.InvalidValue),
    (("put", (), 1, None, False), errors.InvalidPath),
    (("put", ("a", "_b"), 1, None, False), errors.InvalidPath),
    (("put", ("a", "b"), 1, -2, False), errors.InvalidValue),
    (("patch", ("a", "b"), 1, None, True), errors.InvalidValue),
    (("rollback", ("a", "b"), 1, None, False), errors.InvalidPath),
    (("rollback", ("a",), "1", None, False), errors.InvalidValue),
    (("rollback", ("a",), 9, None, False), errors.NotFound),
    (("delete", ("a", "x"), None, None, False), errors.NotFound),
    (("put", ("a",), [1], None, False), errors.InvalidValue),
    (("put", ("a", "k", "x"), 1, None, False), errors.InvalidPath),
]


@pytest.mark.parametrize(("op", "error"), BAD_OPS, ids=range(len(BAD_OPS)))
def test_bad_operations_change_nothing(peer: Peer, op: Any, error: type[errors.TegaError]) -> None:
    peer.put("a", {"k": 1})
    refused(peer, error, m.Write, (("put", ("a", "z"), 1, None, False), op), "", "")
    assert peer.get("a") == {"k": 1}


def test_limits_of_a_write(peer: Peer) -> None:
    many = tuple(("put", ("a", f"k{n}"), n, None, False) for n in range(10_001))
    refused(peer, errors.TooLarge, m.Write, many, "", "")
    refused(peer, errors.TooLarge, m.Write, many[:1], "m" * 1001, "")


def test_collision_says_both_versions(peer: Peer) -> None:
    peer.put("a.k", 1)
    error = refused(peer, errors.Collision, m.Write, (("put", ("a", "k"), 2, 5, False),), "", "")
    assert (error.expected, error.actual) == (5, 0)  # type: ignore[attr-defined]
    refused(peer, errors.Collision, m.Write, (("put", ("a", "k"), 2, -1, False),), "", "")
    assert peer.put("a.new", 1, -1)[1] == [["a", 1]]


def test_a_transaction_reads_its_own_writes_and_nobody_else_does(lab: Lab, peer: Peer) -> None:
    other = lab.join("other")
    peer.put("a", {"k": 1})
    txid = peer.ask(m.Begin)
    peer.ask(m.Write, (("put", ("a", "k"), 2, None, False), ("put", ("b", "x"), 1, None, False)), "", txid)
    other.put("a.other", 5)
    assert peer.ask(m.Get, ("a",), None, "value", txid)[0] == {"k": 2}
    assert peer.ask(m.Find, "b", txid)[0][2] == {"x": 1}
    assert other.get("a") == {"k": 1, "other": 5}
    trees, changes = peer.ask(m.Candidate, txid)
    assert dict(map(tuple, trees)) == {"a": {"k": 2}, "b": {"x": 1}}
    assert [["a", "k"], [1], [2]] in changes
    refused(peer, errors.NotFound, m.Write, (("delete", ("a", "nothing"), None, None, False),), "", txid)
    _, versions = peer.ask(m.CommitTransaction, txid, "both")
    assert sorted(versions) == [["a", 2], ["b", 0]]
    assert other.get("a") == {"k": 2, "other": 5}
    assert other.ask(m.Log, ("b",), 1)[0][3] == "both"
    refused(peer, errors.TransactionExpired, m.CommitTransaction, txid, "")


def test_transactions_end(lab: Lab, peer: Peer) -> None:
    txid = peer.ask(m.Begin)
    peer.ask(m.CancelTransaction, txid)
    refused(peer, errors.TransactionExpired, m.Candidate, txid)
    refused(peer, errors.TransactionExpired, m.Get, ("a",), None, "value", "never")
    idle = peer.ask(m.Begin)
    for _ in range(130):
        lab.wait(4.9)
        peer.tell(m.Heartbeat(()))
    refused(peer, errors.TransactionExpired, m.Write, (("put", ("a", "k"), 1, None, False),), "", idle)
    for _ in range(16):
        peer.ask(m.Begin)
    refused(peer, errors.TooLarge, m.Begin)
    empty = peer.ask(m.CancelTransaction, next(iter(lab.node.sessions.by_tega_id["noc"].transactions)))
    assert empty is None
    nothing = peer.ask(m.Begin)
    assert peer.ask(m.CommitTransaction, nothing, "")[0] == 0, "nothing changed"


def test_a_retry_is_not_a_second_write(lab: Lab, peer: Peer) -> None:
    write = m.Write(7, 1, 10_000, (("put", ("a", "k"), 1, None, False),), "", "")
    peer.tell(write)
    peer.tell(write)
    assert peer.answer(7) == peer.answer(7)
    peer.cut()
    peer.hello()
    peer.tell(write)
    assert peer.answer(7)[1] == [["a", 0]]
    assert peer.ask(m.Get, ("a",), None, "node", "")[1] == 0


def test_after_a_failed_log_reads_go_on_and_a_snapshot_mends(lab: Lab, peer: Peer) -> None:
    peer.put("a.k", 1)
    lab.auto = False
    lost = peer.start(m.Write, (("put", ("a", "k"), 2, None, False),), "", "")
    machine.log_failed(lab.node, "No space left on device", lab.node.durable_number, lab.now)
    lab.run()
    with pytest.raises(errors.StorageError) as raised:
        peer.answer(lost)
    assert raised.value.outcome == "unknown" and "No space" in str(raised.value)
    assert peer.get("a.k") == 1
    for cls, fields in (
        (m.Write, ((("put", ("a", "k"), 3, None, False),), "", "")),
        (m.Manage, ("clear", "")),
    ):
        error = refused(peer, errors.StorageError, cls, *fields)
        assert error.outcome == "none"  # type: ignore[attr-defined]
    newcomer = lab.join("newcomer")
    asked = peer.start(m.Manage, "snapshot", "")
    machine.snapshot_done(lab.node, lab.node.durable_number, 100, 0.1, lab.now)
    lab.auto = True
    lab.run()
    assert peer.answer(asked)["bytes"] == 100
    assert newcomer.put("a.k", 4)[1] == [["a", 1]]
    assert newcomer.session in lab.node.tip.leases, "it came while the log took no records"


# -- calls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, "", False, None, [], {}])
def test_a_call_and_its_falsy_results(lab: Lab, peer: Peer, value: Any) -> None:
    handler = lab.join("handler")
    handler.ask(m.Register, ("t", "f"))
    call = peer.start(m.Call, ("t", "f"), (1,), {"b": 2})
    (invoke,) = handler.take(m.Invoke)
    assert (invoke.path, invoke.args, invoke.kwargs, invoke.tega_id) == (("t", "f"), (1,), {"b": 2}, "noc")
    handler.tell(m.Result(invoke.call, True, value))
    assert peer.answer(call) == value


@pytest.mark.parametrize("wrong", [math.nan, math.inf, b"x"])
def test_what_json_does_not_have_is_passed_on_to_nobody(
    lab: Lab, peer: Peer, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    """What `encode` refuses, another peer may send."""
    codes = {cls: code for code, cls in m.CODES.items()}
    monkeypatch.setattr(
        "tests.unit.node.lab.encode", lambda message: msgpack.packb((codes[type(message)], *message))
    )
    handler = lab.join("handler")
    handler.ask(m.Register, ("t", "f"))
    handler.ask(m.Listen, 1, "c", False, "local")
    refused(peer, errors.InvalidValue, m.Call, ("t", "f"), ([wrong],), {})
    refused(peer, errors.InvalidValue, m.Call, ("t", "f"), (), {"a": wrong})
    refused(peer, errors.InvalidValue, m.CallAll, r"t\.f", (wrong,), {})
    refused(peer, errors.InvalidValue, m.Publish, "c", {"a": wrong})
    assert handler.take(m.Invoke) == handler.take(m.Message) == []
    for ok, value in ((True, {"a": wrong}), (False, ["ValueError", wrong])):
        call = peer.start(m.Call, ("t", "f"), (), {})
        handler.tell(m.Result(handler.take(m.Invoke)[0].call, ok, value))
        with pytest.raises(errors.HandlerError, match="the result: ") as raised:
            peer.answer(call)
        assert raised.value.type == "InvalidValue"


def test_every_other_end_of_a_call(lab: Lab, peer: Peer) -> None:
    handler = lab.join("handler")
    refused(peer, errors.NoHandler, m.Call, ("t", "f"), (), {})
    handler.ask(m.Register, ("t", "f"))
    # the handler raises
    call = peer.start(m.Call, ("t", "f"), (), {})
    handler.tell(m.Result(handler.take(m.Invoke)[0].call, False, ["ValueError", "no"]))
    with pytest.raises(errors.HandlerError) as raised:
        peer.answer(call)
    assert (raised.value.type, raised.value.text) == ("ValueError", "no")
    # it says nonsense
    call = peer.start(m.Call, ("t", "f"), (), {})
    handler.tell(m.Result(handler.take(m.Invoke)[0].call, False, 5))
    with pytest.raises(errors.HandlerError):
        peer.answer(call)
    # deadline, and the late result is dropped
    call = peer.start(m.Call, ("t", "f"), (), {}, timeout=500)
    late = handler.take(m.Invoke)[0].call
    lab.wait(0.6)
    with pytest.raises(errors.Timeout):
        peer.answer(call)
    assert handler.take(m.Abandon) == [m.Abandon(late)]
    handler.tell(m.Result(late, True, 1))
    assert not peer.answered(call)
    # given up
    call = peer.start(m.Call, ("t", "f"), (), {})
    peer.ask(m.CancelCall, call)
    with pytest.raises(errors.Cancelled):
        peer.answer(call)
    # another session cannot answer
    call = peer.start(m.Call, ("t", "f"), (), {})
    number = handler.take(m.Invoke)[-1].call
    peer.tell(m.Result(number, True, "forged"))
    assert not peer.answered(call)
    # the connection of the handler is lost: at once
    handler.cut()
    with pytest.raises(errors.HandlerGone):
        peer.answer(call)
    refused(peer, errors.HandlerGone, m.Call, ("t", "f"), (), {})
    # it unregisters
    handler.hello()
    handler.ask(m.Unregister, ("t", "f"))
    refused(handler, errors.NotFound, m.Unregister, ("t", "f"))
    refused(peer, errors.NoHandler, m.Call, ("t", "f"), (), {})


def test_a_silent_handler_is_gone_after_three_heartbeats(lab: Lab, peer: Peer) -> None:
    handler = lab.join("handler")
    handler.ask(m.Register, ("t", "f"))
    call = peer.start(m.Call, ("t", "f"), (), {}, timeout=60_000)
    for _ in range(4):
        lab.wait(4.0)
        peer.tell(m.Heartbeat(()))
    with pytest.raises(errors.HandlerGone):
        peer.answer(call)


def test_groups_go_round_past_the_unconnected(lab: Lab, peer: Peer) -> None:
    handlers = [lab.join(f"h{n}") for n in range(3)]
    for handler in handlers:
        handler.ask(m.Register, ("t", "f"))
    handlers[1].cut()
    for _ in range(4):
        peer.start(m.Call, ("t", "f"), (), {})
    assert [len(handler.take(m.Invoke)) for handler in handlers] == [2, 0, 2]


def test_a_call_to_a_pattern_returns_each_outcome(lab: Lab, peer: Peer) -> None:
    handlers = [lab.join(f"h{n}") for n in range(4)]
    for n, handler in enumerate(handlers):
        handler.ask(m.Register, (f"ops-{n}", "f"))
    handlers[3].cut()
    call = peer.start(m.CallAll, r"ops-.*\.f", (), {}, timeout=1000)
    handlers[0].tell(m.Result(handlers[0].take(m.Invoke)[0].call, True, 0))
    handlers[1].tell(m.Result(handlers[1].take(m.Invoke)[0].call, False, ["KeyError", "x"]))
    assert not peer.answered(call)
    lab.wait(1.1)
    outcomes = {path[0]: (ok, value if ok else value[0]) for path, _, ok, value in peer.answer(call)}
    assert outcomes == {
        "ops-0": (True, 0),
        "ops-1": (False, "HandlerError"),
        "ops-2": (False, "Timeout"),
        "ops-3": (False, "HandlerGone"),
    }
    refused(peer, errors.NoHandler, m.CallAll, "nobody", (), {})
    given_up = peer.start(m.CallAll, r"ops-.*\.f", (), {})
    peer.ask(m.CancelCall, given_up)
    assert {value[0] for _, _, _, value in peer.answer(given_up)} == {"Cancelled", "HandlerGone"}


# -- subscriptions and messages --------------------------------------------------------------------


def test_changes_at_below_and_above(lab: Lab, peer: Peer) -> None:
    watcher = lab.join("watcher")
    peer.put("a", {"b": {"c": 1}})
    assert watcher.ask(m.Subscribe, 1, ("a", "b"), "local", ())[0][2] == 0
    peer.put("a.b.c", 2)
    peer.put("a.z", 1)
    peer.ask(m.Write, (("put", ("a",), {"b": {"c": 3}}, None, False),), "all", "")
    peer.delete("a")
    told = watcher.take(m.Changed)
    assert [(each.previous, each.version) for each in told] == [(0, 1), (1, 3), (3, 4)]
    assert told[0].changes == ((("a", "b", "c"), (1,), (2,), ""),)
    assert told[1].changes == ((("a", "b", "c"), (2,), (3,), ""),) and told[1].message == "all"
    assert told[2].changes == ((("a", "b"), ({"c": 3},), (), ""),)
    watcher.ask(m.Unsubscribe, 1)
    refused(watcher, errors.NotFound, m.Unsubscribe, 1)
    peer.put("a.b", {"c": 9})
    assert watcher.take(m.Changed) == []


def test_regex_subscriptions_and_their_scope(lab: Lab, peer: Peer) -> None:
    watcher = lab.join("watcher")
    watcher.ask(m.SubscribeRegex, 1, r"config-.*\.net", "global", ())
    refused(watcher, errors.InvalidValue, m.SubscribeRegex, 2, "(a+)+$", "local", ())
    refused(watcher, errors.InvalidValue, m.Subscribe, 2, ("a",), "nowhere", ())
    refused(watcher, errors.InvalidPath, m.Subscribe, 2, (), "local", ())
    peer.put("config-pi1", {"net": {"mtu": 1}, "other": 2})
    peer.put("config-pi1.other", 3)
    peer.put("config-pi1.net.mtu", 2)
    assert [each.changes[0][0] for each in watcher.take(m.Changed)] == [
        ("config-pi1", "net"),
        ("config-pi1", "net", "mtu"),
    ]


def test_since_repeats_what_was_missed_or_says_that_it_is_not_kept(lab: Lab, peer: Peer) -> None:
    peer.put("a.n", 0)
    epoch = peer.ask(m.Get, ("a",), None, "node", "")[3]
    for n in range(1, 5):
        peer.put("a.n", n)
    peer.ask(m.Subscribe, 1, ("a", "n"), "local", (("a", epoch, 2),))
    assert [each.changes[0][1:3] for each in peer.take(m.Changed)] == [((2,), (3,)), ((3,), (4,))]
    peer.ask(m.Subscribe, 1, ("a", "n"), "local", (("a", "another epoch", 2),))
    (reset,) = peer.take(m.Changed)
    assert reset.reset and reset.version == 4 and reset.changes == ((("a", "n"), (), (4,), ""),)


def test_who_has_heard_nothing_of_a_root_is_told_all_its_commits_if_they_are_kept(
    lab: Lab, peer: Peer
) -> None:
    for n in range(3):
        peer.put("a.n", n)
    epoch = peer.ask(m.Get, ("a",), None, "node", "")[3]
    nothing = (("a", "", -1),)
    for cls, what in ((m.Subscribe, ("a", "n")), (m.SubscribeRegex, r"a\.n")):
        peer.ask(cls, 1, what, "local", nothing)
        told = peer.take(m.Changed)
        assert [(each.epoch, each.previous, each.version, each.reset) for each in told] == [
            (epoch, -1, 0, False),
            (epoch, 0, 1, False),
            (epoch, 1, 2, False),
        ]
        assert [each.changes[0][1:3] for each in told] == [((), (0,)), ((0,), (1,)), ((1,), (2,))]
    peer.ask(m.Subscribe, 1, ("a", "other"), "local", nothing)
    assert peer.take(m.Changed) == []
    peer.put("a.other", 1)
    assert [(each.previous, each.version) for each in peer.take(m.Changed)] == [(-1, 3)]
    for n in range(200):
        peer.put("a.n", n)
    peer.ask(m.Subscribe, 1, ("a", "n"), "local", nothing)
    assert [each.reset for each in peer.take(m.Changed)] == [True]


def test_one_that_does_not_read_catches_up_and_is_told_what_was_dropped(lab: Lab, peer: Peer) -> None:
    slow = lab.join("slow")
    slow.ask(m.Subscribe, 1, ("a",), "local", ())
    slow.ask(m.Listen, 2, "news", False, "local")
    machine.congested(lab.node, slow.address)
    for n in range(150):
        peer.put("a.n", n)
    for n in range(1003):
        assert peer.ask(m.Publish, "news", n) == 1
    assert slow.take(m.Changed) == [] and slow.take(m.Message) == []
    machine.drained(lab.node, slow.address, lab.now)
    lab.run()
    assert slow.take(m.Dropped) == [m.Dropped(3)]
    assert [each.value for each in slow.take(m.Message)] == list(range(3, 1003))
    told = slow.take(m.Changed)
    assert told[-1].version == 149 and told[-1].changes[-1][2] in (({"n": 149},), (149,))


def test_messages_by_name_and_regex_but_not_to_the_sender(lab: Lab, peer: Peer) -> None:
    listener = lab.join("listener")
    listener.ask(m.Listen, 1, "alerts.red", False, "global")
    listener.ask(m.Listen, 2, r"alerts\..*", True, "local")
    peer.ask(m.Listen, 1, r".*", True, "local")
    assert peer.ask(m.Publish, "alerts.red", {"level": 3}) == 1
    assert peer.ask(m.Publish, "other", 1) == 0
    assert listener.take(m.Message) == [m.Message((1, 2), "alerts.red", "noc", {"level": 3})]
    assert peer.take(m.Message) == []
    refused(peer, errors.InvalidPath, m.Publish, "", 1)
    refused(peer, errors.InvalidPath, m.Listen, 5, "x" * 256, False, "local")
    listener.ask(m.Unsubscribe, 1)
    listener.ask(m.Unsubscribe, 2)
    assert peer.ask(m.Publish, "alerts.red", 1) == 0


# -- sessions --------------------------------------------------------------------------------------


def test_takeover_takes_everything_at_once(lab: Lab, peer: Peer) -> None:
    peer.put("presence.noc", 1, ephemeral=True)
    peer.ask(m.Register, ("t", "f"))
    second = lab.join("noc")
    assert peer.take(m.Displaced) == [m.Displaced("noc")]
    refused(second, errors.NotFound, m.Get, ("presence",), None, "value", "")
    refused(second, errors.NoHandler, m.Call, ("t", "f"), (), {})
    peer.tell(m.Heartbeat(()))
    assert peer.take(m.Gone), "the first one has no session any more"


def test_lease_and_resume(lab: Lab, peer: Peer) -> None:
    watcher = lab.join("watcher")
    watcher.ask(m.Subscribe, 1, ("presence",), "local", ())
    peer.put("presence.noc", 1, ephemeral=True)
    peer.cut()
    lab.wait(10)
    watcher.tell(m.Heartbeat(()))
    assert peer.hello().resumed
    peer.cut()
    for _ in range(4):
        lab.wait(5)
        watcher.tell(m.Heartbeat(()))
    assert [each.changes[0][2] for each in watcher.take(m.Changed)] == [(1,), ()]
    assert not peer.hello().resumed
    peer.put("presence.noc", 2, ephemeral=True)
    peer.tell(m.Bye())
    assert watcher.take(m.Changed)[-1].changes[0][2] == (), "closed in order: at once"


def test_hellos_that_are_refused(lab: Lab, peer: Peer) -> None:
    for hello in (
        m.Hello(0, "x", "client", "", ""),
        m.Hello(1, "x y", "client", "", ""),
        m.Hello(1, "", "client", "", ""),
        m.Hello(1, "x", "king", "", ""),
        m.Hello(1, "noc", "client", peer.session, "not the token"),
    ):
        (answer,) = lab.send(b"stranger", hello)
        assert isinstance(answer, m.Refused) and answer.message
    assert peer.put("a.b", 1)
    assert [type(each) for each in lab.send(b"stranger", m.Heartbeat(()))] == [m.Gone]


def test_too_many_sessions_are_refused_by_name() -> None:
    lab = Lab(Settings("broker", max_sessions=2))
    lab.join("a"), lab.join("b")
    with pytest.raises(errors.TooLarge):
        lab.join("c")


# -- listings and management -----------------------------------------------------------------------


def test_every_listing_answers(lab: Lab, peer: Peer) -> None:
    agent = lab.join("pi1", "agent")
    agent.ask(m.Claim, "ops-pi1", "", -1)
    agent.ask(m.Follow, "config-pi1", True)
    agent.ask(m.Report, "plugins", [{"plugin": "net", "state": "running"}])
    peer.put("config-pi1.k", 1)
    peer.ask(m.Subscribe, 1, ("config-pi1",), "global", ())
    peer.ask(m.Listen, 2, "news", False, "local")
    peer.ask(m.Register, ("t", "f"))
    from tega_zmq.node.inspect import LISTINGS

    listed = {what: peer.ask(m.Inspect, what) for what in LISTINGS}
    assert [entry["root"] for entry in listed["roots"]] == ["config-pi1"]
    assert listed["ids"] == ["noc", "pi1"] and listed["channels"] == {"news": ["noc"]}
    assert listed["subscribers"] == {"config-pi1": ["noc"]} and listed["handlers"] == {"t.f": ["%noc.f"]}
    (entry,) = listed["agents"]
    assert entry["tega_id"] == "pi1" and entry["state"] == "connected"
    assert entry["plugins"] == [{"plugin": "net", "state": "running"}]
    assert listed["status"]["roots"] >= 1 and listed["sessions"][0]["tega_id"] == "noc"
    refused(peer, errors.InvalidValue, m.Inspect, "weather")
    refused(peer, errors.InvalidValue, m.Manage, "explode", "")
    agent.tell(m.Bye())
    assert peer.ask(m.Inspect, "agents")[0]["state"] == "away"


def test_reports_are_bounded(peer: Peer) -> None:
    refused(peer, errors.InvalidPath, m.Report, "", 1)
    refused(peer, errors.TooLarge, m.Report, "x", "y" * 70_000)
    for n in range(16):
        peer.ask(m.Report, f"r{n}", n)
    refused(peer, errors.TooLarge, m.Report, "one more", 1)


def test_clear_sync_reload_and_disown(lab: Lab, peer: Peer) -> None:
    peer.put("a.k", 1)
    assert peer.ask(m.Manage, "sync", "")
    assert "reload" in peer.ask(m.Manage, "reload", "")
    assert peer.ask(m.Manage, "clear", "") == {"cleared": ["a"]}
    assert peer.put("a.k", 1)[1] == [["a", 0]], "versions start again"
    refused(peer, errors.NotFound, m.Manage, "disown", "nothing")
    refused(peer, errors.ReadOnly, m.Manage, "disown", "a")
    asked = peer.start(m.Manage, "snapshot", "")
    machine.snapshot_failed(lab.node, "disk full", lab.now)
    lab.run()
    with pytest.raises(errors.StorageError):
        peer.answer(asked)


# -- what is too large for a frame -----------------------------------------------------------------


def changed(*changes: Any, previous: int = 3) -> m.Changed:
    return m.Changed(1, "a", "e", previous, 4, 0.0, "x", "", None, False, changes)


def test_a_large_change_is_told_in_parts() -> None:
    big = {f"k{n}": "x" * 1_000_000 for n in range(5)}
    whole = changed((("a",), (), (big,), ""))
    told = list(parts.of(whole))
    assert len(told) > 2
    assert [each.version for each in told] == [3] * (len(told) - 1) + [4]
    rebuilt: dict[str, Any] = {}
    for part in told:
        for path, _, new, _ in part.changes:
            if path != ("a",):
                rebuilt[path[1]] = new[0]
    assert rebuilt == big
    gone = list(parts.of(changed((("a",), (big,), (), ""))))
    assert gone[-1].changes[-1][2] == ()
    assert list(parts.of(changed(previous=4))) == []
    one = {**big, "k0": "other"}
    told = list(parts.of(changed((("a",), (big,), (one,), ""))))
    assert [change[0] for part in told for change in part.changes] == [("a", "k0")]


def test_what_cannot_be_encoded_has_another_outcome(lab: Lab, peer: Peer) -> None:
    handler = lab.join("handler")
    handler.ask(m.Register, ("t", "f"))
    call = peer.start(m.Call, ("t", "f"), (), {})
    handler.tell(m.Result(handler.take(m.Invoke)[0].call, True, "x" * 100))
    from tega_zmq.node.effects import Send

    error = errors.TooLarge("too large for a frame")
    for address, message in (
        (peer.address, m.Reply(99, 1)),
        (handler.address, m.Invoke(1, ("t", "f"), (), {}, 1, "noc")),
        (peer.address, m.Message((1,), "c", "x", 1)),
        (peer.address, changed((("a",), (), (1,), ""))),
        (b"nobody", m.Reply(1, 1)),
    ):
        machine.cannot_send(lab.node, Send(address, message), error, lab.now)
    lab.run()
    assert peer.answer(call) == "x" * 100
    with pytest.raises(errors.TooLarge):
        peer.answer(99)
    assert peer.take(m.Dropped) == [m.Dropped(1)] and len(peer.take(m.Changed)) == 1
