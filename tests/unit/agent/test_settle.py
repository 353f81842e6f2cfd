"""What is worth a commit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_agent.settle import patch, settle
from tega_zmq import values

MIB = 1 << 20


def disk(used: int) -> dict[str, Any]:
    return {"disks": {"/": {"size": 1000 * MIB, "used": used, "inodes": 1000, "type": "ext4"}}}


@pytest.mark.parametrize(
    ("before", "reading", "settled"),
    [
        ({"uptime": 60}, {"uptime": 119.9}, {"uptime": 60}),
        ({}, {"uptime": 120.0}, {"uptime": 120}),
        ({}, {"uptime": 4261.3}, {"uptime": 4200}),
        ({"booted": 100}, {"booted": 105}, {"booted": 100}),
        ({"booted": 100}, {"booted": 110}, {"booted": 110}),
        ({"load": {"1m": 0.2}}, {"load": {"1m": 0.26}}, {"load": {"1m": 0.2}}),
        ({"load": {"1m": 0.2}}, {"load": {"1m": 0.31}}, {"load": {"1m": 0.31}}),
        ({"load": {"1m": 20.0}}, {"load": {"1m": 21.5}}, {"load": {"1m": 20.0}}),
        (
            {"memory": {"total": 1000, "available": 500}},
            {"memory": {"total": 1000, "available": 519}},
            {"memory": {"total": 1000, "available": 500}},
        ),
        (
            {"memory": {"total": 1000, "available": 500}},
            {"memory": {"total": 1000, "available": 520}},
            {"memory": {"total": 1000, "available": 520}},
        ),
        (disk(100 * MIB), disk(104 * MIB), disk(100 * MIB)),
        (disk(100 * MIB), disk(105 * MIB), disk(105 * MIB)),
        ({"temperatures": {"cpu": 48.3}}, {"temperatures": {"cpu": 49.9}}, {"temperatures": {"cpu": 48.3}}),
        ({"temperatures": {"cpu": 48.3}}, {"temperatures": {"cpu": 50.4}}, {"temperatures": {"cpu": 50.4}}),
        (
            {"interfaces": {"e": {"rx_bytes": 10, "mtu": 1500, "state": "up"}}},
            {"interfaces": {"e": {"rx_bytes": MIB, "mtu": 1501, "state": "down"}}},
            {"interfaces": {"e": {"rx_bytes": 10, "mtu": 1501, "state": "down"}}},
        ),
        (
            {"interfaces": {"e": {"rx_bytes": 500 * MIB}}},
            {"interfaces": {"e": {"rx_bytes": 10}}},
            {"interfaces": {"e": {"rx_bytes": 10}}},
        ),
        (None, {"load": {"1m": 0.1}}, {"load": {"1m": 0.1}}),
        ("text", {"load": {"1m": 0.1}}, {"load": {"1m": 0.1}}),
        ({"load": 5}, {"load": {"1m": 0.1}}, {"load": {"1m": 0.1}}),
        ({"load": {"1m": "x"}}, {"load": {"1m": 0.1}}, {"load": {"1m": 0.1}}),
        ({"load": {"1m": True}}, {"load": {"1m": 0.95}}, {"load": {"1m": 0.95}}),
    ],
)
def test_settle(before: Any, reading: Any, settled: Any) -> None:
    assert settle(before, reading) == settled


def test_a_settled_reading_makes_no_patch() -> None:
    reading = {"load": {"1m": 0.1}, "memory": {"total": 100, "available": 50}, "uptime": 4000.0}
    written = settle(None, reading)
    assert patch(written, settle(written, reading)) == {}


@pytest.mark.parametrize(
    ("before", "after", "made"),
    [
        (None, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": 3}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": 1}, {"a": True}, {"a": True}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
        ({"a": 5}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": 1, "reboot": "%pi1.reboot", "group": ["%a.group", "%b.group"]}, {"a": 1}, {}),
        ({"more": {"x": "%pi1.x"}}, {"a": 1}, {"a": 1}),
    ],
)
def test_patch(before: Any, after: Any, made: Any) -> None:
    assert patch(before, after) == made


def merged(before: Any, change: Any) -> Any:
    """RFC 7396, in its own words."""
    if not isinstance(change, dict):
        return change
    result = dict(before) if isinstance(before, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


LEAVES = (
    st.integers(0, 3) | st.booleans() | st.sampled_from(["a", "b"]) | st.lists(st.integers(0, 2), max_size=2)
)
TREES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4), max_leaves=12
)
TREE = st.dictionaries(st.sampled_from("abcd"), TREES, max_size=4)


@given(TREE, TREE)
@settings(max_examples=200)
def test_a_patch_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    assert values.same(merged(before, patch(before, after)), after)
