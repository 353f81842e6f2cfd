"""What a client gives to its next session."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq.client.belongings import Belongings, merge


def op(kind: str, path: str, value: Any = None, ephemeral: bool = False) -> Any:
    return (kind, tuple(path.split(".")), value, None, ephemeral)


def after(*ops: Any) -> dict[str, Any]:
    belongings = Belongings()
    belongings.wrote((op("put", "p.a", {"x": 1, "y": {"z": 2}}, True), op("put", "p.b", 5, True)))
    belongings.wrote(ops)
    return {".".join(path): value for path, value in belongings.ephemerals.items()}


FIRST = {"p.a": {"x": 1, "y": {"z": 2}}, "p.b": 5}


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ([], FIRST),
        ([op("put", "p.a", 7, True)], {**FIRST, "p.a": 7}),
        ([op("put", "p", {}, True)], {"p": {}}),
        ([op("delete", "p.a")], {"p.b": 5}),
        ([op("delete", "p")], {}),
        ([op("delete", "p.a.y.z")], {**FIRST, "p.a": {"x": 1, "y": {}}}),
        ([op("delete", "q")], FIRST),
        # A lasting put in the place of an ephemeral node.
        ([op("put", "p.a", 7)], {"p.b": 5}),
        ([op("put", "p.a.x", {"n": None})], {**FIRST, "p.a": {"x": {"n": None}, "y": {"z": 2}}}),
        # A put above leaves the ephemeral nodes of live sessions alone.
        ([op("put", "p", {"c": 1})], FIRST),
        ([op("put", "q.a", 1)], FIRST),
        ([op("patch", "p.a", {"x": None, "y": {"w": 3}})], {**FIRST, "p.a": {"y": {"z": 2, "w": 3}}}),
        ([op("patch", "p.a.y", {"z": 4})], {**FIRST, "p.a": {"x": 1, "y": {"z": 4}}}),
        ([op("patch", "p", {"a": None, "b": 6})], {"p.b": 6}),
        ([op("patch", "p", {"c": 1})], FIRST),
        ([op("patch", "p", 3)], FIRST),
        ([op("rollback", "p", 3)], FIRST),
    ],
)
def test_ephemeral_nodes_follow_the_writes(ops: list[Any], expected: dict[str, Any]) -> None:
    assert after(*ops) == expected


def test_lasting_writes_are_not_remembered() -> None:
    belongings = Belongings()
    belongings.wrote((op("put", "a.b", 1), op("patch", "a", {"c": 1}), op("delete", "a")))
    assert belongings.ephemerals == {}


def test_merge_changes_neither() -> None:
    value, patch = {"a": {"b": 1}, "c": 2}, {"a": {"b": None, "d": 3}, "c": None, "e": {"f": None}}
    assert merge(value, patch) == {"a": {"d": 3}, "e": {}}
    assert value == {"a": {"b": 1}, "c": 2}
    assert merge(5, {"a": 1}) == {"a": 1}
    assert merge({"a": 1}, [1]) == [1]
