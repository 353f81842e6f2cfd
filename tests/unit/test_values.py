"""What a value may be, how large it is, and when two are the same."""

from __future__ import annotations

import enum
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq import values
from tega_zmq.errors import InvalidPath, InvalidValue
from tega_zmq.values import MAX_CONTAINERS, MAX_INT, MIN_INT, check, check_passed, check_root, same, size

TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(MIN_INT, MAX_INT),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXT, inner, max_size=20),
    max_leaves=30,
)
OIDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=255).filter(lambda oid: oid[0] != "_")
VALUES = st.recursive(
    SCALARS | st.lists(JSON, max_size=20),
    lambda inner: st.dictionaries(OIDS, inner, max_size=20),
    max_leaves=30,
)


def nested(depth: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind == "dict" else [value]
    return value


@given(VALUES)
def test_size_is_that_of_msgpack(value: Any) -> None:
    packed = len(msgpack.packb(value))
    assert check(value) == packed
    assert size(value) == packed


@pytest.mark.parametrize(
    "value",
    [
        MIN_INT,
        MAX_INT,
        -(2**31) - 1,
        -(2**31),
        -32769,
        -32768,
        -129,
        -128,
        -33,
        -32,
        -1,
        0,
        127,
        128,
        255,
        256,
        65535,
        65536,
        2**32 - 1,
        2**32,
        0.5,
        -0.0,
        True,
        None,
        "",
        "a" * 31,
        "a" * 32,
        "a" * 255,
        "a" * 256,
        "a" * 65535,
        "a" * 65536,
        "ä" * 16,
        "\x00",
        [],
        [0] * 15,
        [0] * 16,
        [0] * 65536,
        {"a" * 31: 1},
        {"a" * 32: "b" * 256},
        {"a" * 255: "b" * 65536},
        {str(i): i for i in range(16)},
    ],
)
def test_size_at_the_edges_of_the_formats(value: Any) -> None:
    assert check(value) == size(value) == len(msgpack.packb(value))
    assert check({"k": value}) == len(msgpack.packb({"k": value}))


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (math.nan, "not a finite number"),
        (math.inf, "not a finite number"),
        (-math.inf, "not a finite number"),
        (MAX_INT + 1, "65 bits"),
        (MIN_INT - 1, "out of range"),
        pytest.param(1 << 5_000_000, "5000001 bits", id="huge"),
        ((1, 2), "make it a list"),
        (b"x", "make it a string"),
        (bytearray(b"x"), "make it a string"),
        ({1}, "set cannot be stored"),
        (object(), "object cannot be stored"),
        (Colour.RED, "convert it to a plain int"),
        (Text("x"), "convert it to a plain str"),
        ("\ud800", "lone surrogate"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"k": v}, lambda v: [v], lambda v: [{"k": [v]}]])
def test_refused_wherever_it_stands(value: Any, hint: str, wrap: Any) -> None:
    with pytest.raises(InvalidValue, match=hint):
        check(wrap(value))


def test_what_is_only_passed_on_is_such_that_json_has_it() -> None:
    for value in (None, True, 0, "x", 1.5, [], {}, (), {"_a": {"": [1.5, (None,)]}}):
        check_passed(value, "the result")
    for wrong, said in [(math.nan, "nan is not"), (-math.inf, "-inf is not"), (b"x", "bytes cannot")]:
        for value in (wrong, (1, wrong), {"a": [{"b": wrong}]}):
            with pytest.raises(InvalidValue, match=f"^the result: {said}"):
                check_passed(value, "the result")


def test_errors_name_the_place() -> None:
    for value, place in [
        ({"b": {"c": math.nan}}, "a.b.c"),
        ({"b": [0, {"x y": [object()]}]}, "a.b[1]['x y'][0]"),
        ({"b": {"c": "\ud800"}}, "a.b.c"),
        ({"b": ["\ud800"]}, "a.b[0]"),
    ]:
        with pytest.raises(InvalidValue) as info:
            check(value, "a")
        assert info.value.path == place
        assert info.value.message.startswith(place)


@pytest.mark.parametrize("oid", ["", "_x", "a" * 256, "\ud800"])
def test_keys_of_containers_are_oids(oid: str) -> None:
    with pytest.raises(InvalidPath):
        check({"a": {oid: 1}})
    if oid != "\ud800":
        assert check([{oid: 1}]) > 0


@pytest.mark.parametrize("key", [1, None, True, (1,), b"a"])
def test_keys_are_strings(key: Any) -> None:
    with pytest.raises(InvalidPath, match=r"a key must be a string, not .*quotes"):
        check({"a": {key: 1}}, "r")
    with pytest.raises(InvalidValue, match="a key must be a string"):
        check([{key: 1}], "r")


def test_keys_inside_lists_are_valid_unicode() -> None:
    with pytest.raises(InvalidValue, match="lone surrogate"):
        check([{"\ud800": 1}])


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_depth(kind: str) -> None:
    assert check(nested(MAX_CONTAINERS, kind)) > 0
    with pytest.raises(InvalidValue, match="more than 64"):
        check(nested(MAX_CONTAINERS + 1, kind), "r")
    with pytest.raises(InvalidValue, match="more than 64"):
        check(nested(100_000, kind))


def test_depth_counts_dicts_and_lists_together() -> None:
    value = nested(40, "dict")
    assert check([value]) > 0
    with pytest.raises(InvalidValue, match="more than 64"):
        check({"a": [nested(63, "dict")]})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidValue, match="more than 64"):
        check(loop)


@pytest.mark.parametrize("value", [None, 1, "x", [], True, 0.5])
def test_a_root_is_a_container(value: Any) -> None:
    with pytest.raises(InvalidValue, match="must be a container"):
        check_root(value, "r")
    check_root({}, "r")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True),
        (1, 1.0),
        (0, False),
        (0.0, -0.0),
        ("1", 1),
        ([1], [True]),
        ([1], [1, 1]),
        ([{"a": 1}], [{"a": 1.0}]),
        ([{"a": 1}], [{"b": 1}]),
        ([{"a": 1}], [{}]),
        (None, False),
        ([], {}),
        ([0.0], [-0.0]),
        ("a", "b"),
    ],
)
def test_not_the_same(a: Any, b: Any) -> None:
    assert not same(a, b)
    assert not same(b, a)


@given(JSON)
def test_same_as_its_copy(value: Any) -> None:
    copied = msgpack.unpackb(msgpack.packb(value))
    assert same(value, copied)


def test_order_of_keys_does_not_matter() -> None:
    assert same([{"a": 1, "b": 2}], [{"b": 2, "a": 1}])
    assert same(0.0, 0.0)
    assert same(-0.0, float("-0.0"))


def test_what_is_right_is_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    value = [[], {"a": [1, None, 1.5, True, "\u00e4" * 40]}, -(2**63), 2**64 - 1, "x" * 70_000, {}]
    monkeypatch.setattr(values, "_inside", never)
    assert values.check(value) == values.check({"k": value}) - 3 == len(msgpack.packb(value))
