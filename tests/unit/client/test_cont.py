"""Trees by attribute."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from tega_zmq.client.cont import Cont, path_of, value_of
from tega_zmq.errors import InvalidPath, InvalidValue


def test_attributes_make_the_tree() -> None:
    a = Cont("a")
    a.b.c = 1
    a.b["eth0.100"].mtu = 1500
    assert a.b.c == 1
    assert value_of(a) == {"b": {"c": 1, "eth0.100": {"mtu": 1500}}}
    assert path_of(a.b["eth0.100"]) == ("a", "b", "eth0.100")
    assert a.b._oid == "b"
    assert value_of(a.b) == {"c": 1, "eth0.100": {"mtu": 1500}}
    assert repr(a.b["eth0.100"]) == "Cont('a.b.\"eth0.100\"', {'mtu': 1500})"


def test_reading_creates_nothing() -> None:
    a = Cont("a")
    missing = a.b.c.d
    assert not missing
    assert len(missing) == 0
    assert list(missing) == []
    assert "x" not in missing
    assert "b" not in a
    assert value_of(a) == {}
    assert value_of(missing) == {}
    missing.x = 1
    assert value_of(a) == {"b": {"c": {"d": {"x": 1}}}}


def test_two_handles_share_one_tree() -> None:
    a = Cont("a")
    one, other = a.b, a.b
    one.x = 1
    other.y = 2
    assert value_of(a) == {"b": {"x": 1, "y": 2}}
    a.b = 5
    with pytest.raises(InvalidPath, match=r"a\.b is a leaf"):
        one.x = 2
    assert value_of(one) == {}


def test_values_are_copied() -> None:
    given = {"c": [1, (2, {"k.": 3})]}
    a = Cont("a")
    a.b = given
    given["c"].append(9)
    assert value_of(a) == {"b": {"c": [1, [2, {"k.": 3}]]}}
    taken = value_of(a)
    taken["b"]["c"].append(9)
    assert value_of(a) == {"b": {"c": [1, [2, {"k.": 3}]]}}
    b = Cont("x", {"y": 1})
    a.copy = b
    a.list = [b]
    b.y = 2
    assert a["copy"] == {"y": 1}
    assert a.list == [{"y": 1}]


def test_what_holds_itself_or_is_too_deep_is_no_value() -> None:
    ring: list[Any] = []
    ring.append({"x": ring})
    tree: dict[str, Any] = {}
    tree["x"] = tree
    for value in ({"b": ring}, tree, {"b": [Cont("x", {"y": [1]}), ring]}):
        with pytest.raises(InvalidValue, match="more than 128 containers"):
            Cont("a", value)
        with pytest.raises(InvalidValue, match="more than 128 containers"):
            Cont("a")["b"] = value
    deep = a = Cont("a")
    for _ in range(2000):
        deep = deep.x
    deep.y = 1
    with pytest.raises(InvalidValue, match="more than 128 containers"):
        value_of(a)


def test_names_with_an_underscore_are_not_oids() -> None:
    a = Cont("a")
    with pytest.raises(AttributeError):
        a._x  # noqa: B018
    with pytest.raises(AttributeError, match="reserved"):
        a._x = 1
    with pytest.raises(InvalidPath, match="reserved"):
        a["_x"] = 1
    with pytest.raises(InvalidPath, match="reserved"):
        a.b = {"c": {"_x": 1}}
    with pytest.raises(InvalidPath):
        a[5] = 1  # type: ignore[index]
    with pytest.raises(InvalidPath):
        a[""]
    assert value_of(a) == {}


def test_deleting() -> None:
    a = Cont("a", {"b": {"c": 1}, "d": 2})
    del a.b.c
    del a["d"]
    assert a == {"b": {}}
    with pytest.raises(AttributeError):
        del a.nothing
    with pytest.raises(KeyError):
        del a.b.c["x"]


def test_as_a_collection() -> None:
    a = Cont("a", {"b": 1, "c": {"d": 2}})
    assert list(a) == ["b", "c"]
    assert len(a) == 2
    assert "b" in a
    assert a
    assert {"b", "c"} <= set(dir(a))
    assert a == Cont("other", {"b": 1, "c": {"d": 2}})
    assert a != Cont("a")
    assert a != 5
    with pytest.raises(TypeError):
        hash(a)


def test_copies() -> None:
    a = Cont("a", {"b": {"c": 1}})
    for other in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        other.b.c = 2
        assert a.b.c == 1
        assert path_of(other) == ("a",)


def test_what_a_cont_is_not() -> None:
    with pytest.raises(InvalidPath):
        Cont("")
    with pytest.raises(InvalidValue, match="made of a dict"):
        Cont("a", 5)  # type: ignore[arg-type]
    assert path_of(Cont(["a", "b.c"])) == ("a", "b.c")
