"""Arguments become requests, replies become results, and what is wrong is said early."""

from __future__ import annotations

import enum
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq import errors
from tega_zmq.client import requests
from tega_zmq.client.cont import Cont
from tega_zmq.client.requests import NO_DEFAULT
from tega_zmq.client.results import Gap
from tega_zmq.wire import messages as m
from tega_zmq.wire.codec import decode, encode


class Colour(enum.IntEnum):
    RED = 3


class Name(str):
    __slots__ = ()


class Share(float):
    __slots__ = ()


@pytest.mark.parametrize("path", ['a."b.c"', ("a", "b.c"), ["a", "b.c"], Cont(("a", "b.c"))])
def test_a_path_in_every_form(path: Any) -> None:
    assert requests.to_path(path) == ("a", "b.c")


@pytest.mark.parametrize("path", ["", "a..b", "_x", (), ("a", 1), 5, None, {"a"}])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(errors.InvalidPath):
        requests.to_path(path)


def test_values_are_made_plain_and_copied() -> None:
    inner = {"b": [1]}
    value = requests.to_value(
        {"a": (1, inner), "c": Colour.RED, Name("d"): Name("e"), "f": Cont("g", {"h": 1})}
    )
    assert value == {"a": [1, {"b": [1]}], "c": 3, "d": "e", "f": {"h": 1}}
    assert [type(value["c"]), type(value["d"]), *map(type, value)] == [int, str, *[str] * 4]
    inner["b"].append(2)
    assert value["a"][1] == {"b": [1]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": {1, 2}}, r"value\.a: set"),
        ([object()], r"value\[0\]: object"),
        (2**64, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (b"x", "bytes"),
        (1j, "complex"),
        ({1: 2}, "key 1 must be text"),
        ("\ud800", "Unicode"),
        ({"\ud800": 1}, "Unicode"),
        (Name("\ud800"), "Unicode"),
        (math.nan, "value: nan is not a finite number"),
        ({"a": [1.5, -math.inf]}, r"value\.a\[1\]: -inf is not a finite number"),
        (Share("inf"), "value: inf is not a finite number"),
        ([Cont("a", {"b": math.nan})], r"value\[0\]\.b: nan is not"),
        ([Cont("a", {"b": {1}})], r"value\[0\]\.b: set"),
    ],
)
def test_what_cannot_be_sent(value: Any, said: str) -> None:
    with pytest.raises(errors.InvalidValue, match=said):
        requests.to_value(value)


def test_a_value_that_holds_itself() -> None:
    value: dict[str, Any] = {}
    value["a"] = value
    with pytest.raises(errors.InvalidValue, match="containers"):
        requests.to_value(value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON)
def test_what_is_accepted_travels_unchanged(value: Any) -> None:
    message = m.Publish(1, 1, 1, "c", requests.to_value(value))
    assert decode(encode(message)) == message
    assert message.value == value


def test_expected_versions() -> None:
    assert [requests.to_expected(v) for v in (None, 0, 7, "absent")] == [None, 0, 7, -1]
    for wrong in (-1, "7", 1.0, True, "Absent"):
        with pytest.raises(errors.InvalidValue, match="expects"):
            requests.to_expected(wrong)  # type: ignore[arg-type]


def test_versions_to_read() -> None:
    assert requests.get("a", -1) == (m.Get, (("a",), -1, "value", ""))
    for wrong in ("1", 1.0, True, 2**63):
        with pytest.raises(errors.InvalidValue, match="integer"):
            requests.get("a", wrong)  # type: ignore[arg-type]


def test_writes() -> None:
    assert requests.put("a.b", (1,), 0, False) == ("put", ("a", "b"), [1], 0, False)
    assert requests.put(Cont("a", {"b": 1}), NO_DEFAULT, None, True) == ("put", ("a",), {"b": 1}, None, True)
    assert requests.patch("a", {"b": None}, "absent") == ("patch", ("a",), {"b": None}, -1, False)
    assert requests.patch(Cont("a", {"b": 1}), NO_DEFAULT, None) == ("patch", ("a",), {"b": 1}, None, False)
    assert requests.delete("a", 3) == ("delete", ("a",), None, 3, False)
    assert requests.rollback("a", -2) == ("rollback", ("a",), -2, None, False)
    for make in (
        lambda: requests.put("a", NO_DEFAULT, None, False),
        lambda: requests.patch("a", NO_DEFAULT, None),
    ):
        with pytest.raises(errors.InvalidValue, match="Cont"):
            make()
    with pytest.raises(errors.InvalidPath, match="whole root"):
        requests.rollback("a.b", 1)
    with pytest.raises(errors.InvalidValue):
        requests.rollback("a", None)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidValue, match=r"a\.b\.c: set"):
        requests.put("a.b", {"c": set()}, None, False)


def test_other_requests() -> None:
    assert requests.find("a", "t") == (m.Find, ("a", "t"))
    assert requests.write((), "why") == (m.Write, ((), "why", ""))
    assert requests.commit("t", "why") == (m.CommitTransaction, ("t", "why"))
    assert requests.log("a", 3) == (m.Log, (("a",), 3, None, None, ""))
    assert requests.log("a", 3, 7, "1970-01-01T00:01:00Z", "noc") == (m.Log, (("a",), 3, 7, 60.0, "noc"))
    assert requests.blame("a.b", "golden") == (m.Blame, (("a", "b"), "golden"))
    assert requests.tag("a", "golden", -1) == (m.Tag, ("a", -1, "golden"))
    assert requests.untag("a", "golden") == (m.Untag, ("a", "golden"))
    assert requests.to_version("2026-11-20T12:00+02:00") == "2026-11-20T10:00:00Z"
    assert requests.to_version(datetime(2026, 11, 20, 12, tzinfo=UTC)) == "2026-11-20T12:00:00Z"
    for wrong in ("", "7", "-golden", "2026-13-01", "a" * 65, 1.5):
        with pytest.raises(errors.InvalidValue):
            requests.to_version(wrong)  # type: ignore[arg-type]
    for root in ("a.b",):
        with pytest.raises(errors.InvalidPath):
            requests.tag(root, "golden", None)
    assert requests.diff("a", 1, 2, None) == (m.Diff, (("a",), 1, ("a",), 2))
    assert requests.diff("a", 1, None, "b") == (m.Diff, (("a",), 1, ("b",), None))
    assert requests.call("a.f", (1, (2,)), {"x": 3}) == (m.Call, (("a", "f"), (1, [2]), {"x": 3}))
    assert requests.call_all("a", (), {}) == (m.CallAll, ("a", (), {}))
    assert requests.publish("c", None) == (m.Publish, ("c", None))
    assert requests.report("n", 1) == (m.Report, ("n", 1))
    assert requests.inspect("roots") == (m.Inspect, ("roots",))
    assert requests.manage("disown", "a") == (m.Manage, ("disown", "a"))
    with pytest.raises(errors.InvalidValue, match="argument 2: set"):
        requests.call("a.f", (1, set()), {})
    with pytest.raises(errors.InvalidValue, match=r"argument\.x: set"):
        requests.call("a.f", (), {"x": set()})
    with pytest.raises(errors.InvalidValue, match="text"):
        requests.find(5)  # type: ignore[arg-type]
    for limit in (0, -1, 1.5, True, 2**31):
        with pytest.raises(errors.InvalidValue, match="limit"):
            requests.log("a", limit)  # type: ignore[arg-type]
    assert requests.check_scope("global") == "global"
    with pytest.raises(errors.InvalidValue, match="scope"):
        requests.check_scope("all")


def test_results() -> None:
    assert requests.as_value([None, None]) is None
    assert requests.as_node([1, 2, True, "e", None, False]) == (1, 2, True, "e", None, False)
    committed = requests.as_committed([5, [["a", 3]]])
    assert (committed.revision, committed.versions, committed.version) == (5, {"a": 3}, 3)
    assert requests.as_committed([5, [["a", 3], ["b", 1]]]).version is None
    assert requests.as_committed([0, []]).version is None
    (found,) = requests.as_found([[["a", "b.c"], [["c"]], 1]])
    assert found == ('a."b.c"', (("c",),), 1)
    (created, deleted, null) = requests.as_differences(
        [[["b"], [], [1]], [["c"], [1], []], [["d"], [None], [2]]]
    )
    assert (created.created, created.deleted, created.new) == (True, False, 1)
    assert (deleted.created, deleted.deleted, deleted.old) == (False, True, 1)
    assert (null.created, null.deleted) == (False, False)
    candidate = requests.as_candidate([[["a", {"b": 1}], ["c", None]], [[["a", "b"], [], [1]]]])
    assert candidate.roots == {"a": {"b": 1}, "c": None}
    assert candidate.changes[0].path == "a.b"
    (entry,) = requests.as_log([[3, 1.5, "noc-1", "why", None, [[["a", "b"], [1]], [["a", "c"], []]]]])
    assert (entry.version, entry.message, entry.changes[0].new, entry.changes[1].deleted) == (
        3,
        "why",
        1,
        True,
    )
    assert entry.left_out == 0
    (entry,) = requests.as_log([[3, 1.5, "noc-1", "why", None, [], 7]])
    assert (entry.changes, entry.left_out) == ((), 7)
    log = requests.as_log(
        [[3, 1.5, "noc-1", "why", None, []], [1, 2, "gone"], [0, 1.0, "noc-1", "", None, []]]
    )
    assert [each.version for each in log] == [3, 0]
    assert log.gaps == (Gap(1, 2, "gone"),)
    assert "versions 1 to 2 cannot be read: gone" in log._repr_html_()
    outcomes = requests.as_outcomes(
        [
            [["a", "f"], "pi1", True, 0],
            [["a", "f"], "pi2", False, ["HandlerGone", "gone", {"tega_id": "pi2"}]],
        ]
    )
    assert outcomes["a.f", "pi1"] == 0
    assert isinstance(outcomes["a.f", "pi2"], errors.HandlerGone)
    assert outcomes["a.f", "pi2"].tega_id == "pi2"


@pytest.mark.parametrize(
    "read",
    [
        requests.as_value,
        requests.as_node,
        requests.as_committed,
        requests.as_found,
        requests.as_differences,
        requests.as_candidate,
        requests.as_log,
        requests.as_outcomes,
    ],
)
@pytest.mark.parametrize("reply", [None, 5, [[1]], [[1, 2, 3, 4, 5]], {"a": 1}])
def test_a_reply_of_another_shape_is_a_protocol_error(read: Any, reply: Any) -> None:
    try:
        read(reply)
    except errors.ProtocolError as error:
        assert "the node answered" in str(error)


def test_a_missing_node_may_have_a_default() -> None:
    assert requests.or_default(errors.NotFound("a"), None) is None
    with pytest.raises(errors.NotFound):
        requests.or_default(errors.NotFound("a"), NO_DEFAULT)
    assert repr(NO_DEFAULT) == "NO_DEFAULT"


def test_how_a_handler_ends() -> None:
    for value in (0, "", False, None, []):
        assert requests.result_of(1, value) == m.Result(1, True, value)
    assert requests.result_of(1, {"a": {1}}) == m.Result(
        1,
        False,
        ["InvalidValue", "result.a: set cannot be sent; use None, bool, int, float, str, list or dict"],
    )
    assert requests.error_of(1, KeyError("x")) == m.Result(1, False, ["KeyError", "'x'"])
    assert requests.error_of(1, ValueError("\ud800" + "x" * 9999)).value == ["ValueError", "?" + "x" * 3999]
    again = errors.HandlerError("a.f raised", type="OSError", text="no")
    assert requests.error_of(1, again).value[0] == "OSError"
    assert requests.error_of(1, errors.HandlerError("x", type=5)).value == ["HandlerError", "x"]
    long = type("E" * 999, (Exception,), {})
    assert requests.error_of(1, long("x")).value == ["E" * 255, "x"]


def test_an_error_that_cannot_say_anything_ends_a_call_too() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert requests.error_of(1, Mute()).value == ["Mute", "its message cannot be read: ValueError"]


@pytest.mark.parametrize(
    "url",
    [
        "tcp://127.0.0.1:8740",
        "tcp://gw.example:1",
        "tcp://[::1]:8740",
        "tcp://[fe80::1%eth0]:1",
        "ipc://./a.sock",
    ],
)
def test_urls(url: str) -> None:
    assert requests.check_url(url) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("tcp://gw", "HOST:PORT"),
        ("tcp://gw:0", "1 to 65535"),
        ("tcp://gw:70000", "1 to 65535"),
        ("tcp://::1:8740", "HOST:PORT"),
        ("tcp://:8740", "HOST:PORT"),
        ("tcp://gw:8740/", "HOST:PORT"),
        ("ipc://", "1 to 107"),
        ("ipc://" + "x" * 108, "not 108"),
        ("ws://", "expected ws"),
        ("wss://gw:x", "expected ws"),
        ("ws://me:secret@gw", "no user"),
        ("ws://gw?a=1", "no query"),
        ("http://gw", "expected tcp"),
        ("gw:8740", "expected tcp"),
        ("tcp://\udcff:1", "surrogates"),
        (5, "text"),
    ],
)
def test_what_is_no_url(url: Any, said: str) -> None:
    with pytest.raises(errors.InvalidValue, match=said):
        requests.check_url(url)


def test_functions() -> None:
    async def later() -> None: ...

    async def stream() -> AsyncIterator[int]:
        yield 1

    class Callable:
        async def __call__(self) -> None: ...

        async def method(self) -> None: ...

    for function in (print, int, Cont, partial(print, 1), lambda: 1, [].append, Mock()):
        requests.check_function(function, "the callback", plain=True)
    for wrong in (5, None, "print", [print]):
        for plain in (False, True):
            with pytest.raises(errors.InvalidValue, match=r"^the callback must be a function, not "):
                requests.check_function(wrong, "the callback", plain=plain)
    for function in (later, stream, Callable(), Callable().method, partial(partial(later), 1)):
        requests.check_function(function, "the callback", plain=False)
        with pytest.raises(errors.InvalidValue, match=r"^the callback is async"):
            requests.check_function(function, "the callback", plain=True)


def test_tega_ids() -> None:
    assert requests.check_tega_id("noc-1") == "noc-1"
    for wrong in ("", "a b", "a.b", "x" * 65, None, "a\n"):
        with pytest.raises(errors.InvalidValue, match="tega_id"):
            requests.check_tega_id(wrong)


@given(st.text(max_size=80), st.integers(1, 2**22), st.text("0123456789abcdef", min_size=8, max_size=8))
def test_fresh_tega_ids_are_valid(host: str, pid: int, random: str) -> None:
    fresh = requests.fresh_tega_id(host, pid, random)
    assert requests.check_tega_id(fresh).endswith(f"-{pid}-{random}")


@pytest.mark.parametrize("timeout", [0, -1, "5", None, 1e9])
def test_timeouts(timeout: Any) -> None:
    with pytest.raises(errors.InvalidValue, match="timeout"):
        requests.check_timeout(timeout)


def test_what_is_usual_is_copied_without_naming_each_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(requests, "_plain", never)
    value = {"a": [[], {"ä": [1, None, 1.5, True]}], "b": {}, "c": -(2**63)}
    made = requests.to_value(value)
    assert made == value
    assert made["a"] is not value["a"] and made["a"][0] is not value["a"][0] and made["b"] is not value["b"]
    assert requests.to_value(requests.Ready(made)) is made
    ready = requests.Ready(requests.to_args([value]))
    assert requests.call("a.b", ready, requests.Ready(made))[1][1:] == ((value,), made)
