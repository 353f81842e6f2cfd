"""Records and updates as plain values: there and back, and whatever else comes in."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq import store as core
from tega_zmq.errors import ProtocolError
from tega_zmq.store import (
    ABSENT,
    Change,
    Cleared,
    Commit,
    Ended,
    NewEpochs,
    Opened,
    Owned,
    Record,
    Replicated,
    ResetEnd,
    ResetPart,
    Tagged,
    Update,
    WentOn,
)

UPDATE = Update(
    "a",
    "e1",
    3,
    4,
    (
        Change(("a", "b"), False),
        Change(("a", "c.d"), True, {"x": [1, {"_k": None}]}),
        Change(("a", "e"), True, None, "s1"),
        Change(("a",), True, {}),
    ),
    12.5,
    "pi1/noc-1",
    "why — because",
    2,
)
RECORDS: list[Record] = [
    Commit(
        7, (UPDATE, UPDATE._replace(root="b", changes=(), before=ABSENT, after=0, backto=None)), "s1", 5, 3
    ),
    Commit(1, ()),
    Replicated(UPDATE),
    ResetPart(
        "a", True, ((("a",), 0, True, None), (("a", "b"), 3, False, [1]), (("a", "c"), 2**62, True, None))
    ),
    ResetPart("a", False, ()),
    ResetEnd("a", "e", 5, True, ((("a", "b"), "s1"), (("a", "c"), "")), 1.0, "x", "m"),
    ResetEnd("a", "", ABSENT, False, (), 0.0, "", ""),
    Owned("a", "pi1", ""),
    NewEpochs((("a", "e2"), ("b", "e3"))),
    NewEpochs(()),
    WentOn("a", "e", 4),
    Cleared(),
    Opened("s1", "noc-1", "secret", "s0"),
    Ended("s1"),
    Tagged("a", "golden", 3),
    Tagged("a", "golden", ABSENT),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_there_and_back(record: Record) -> None:
    plain = core.record_to_plain(record)
    assert core.record_from_plain(plain) == record
    assert core.record_from_plain(msgpack.unpackb(msgpack.packb(plain))) == record
    made = core.record_from_plain(tuple(msgpack.unpackb(msgpack.packb(plain), use_list=True)))
    assert type(made) is type(record)


def test_types_survive() -> None:
    update = UPDATE._replace(
        changes=tuple(Change(("a", "b"), True, v) for v in (1, True, 1.0, -0.0, None, ""))
    )
    back = core.update_from_plain(msgpack.unpackb(msgpack.packb(core.update_to_plain(update))))
    assert [repr(change.value) for change in back.changes] == ["1", "True", "1.0", "-0.0", "None", "''"]


def test_a_beacon_is_an_update() -> None:
    beacon = UPDATE._replace(before=4, after=4, changes=(), backto=None)
    assert core.update_from_plain(core.update_to_plain(beacon)) == beacon


def with_field(index: int, value: Any) -> list[Any]:
    plain = core.update_to_plain(UPDATE)
    plain[index] = value
    return plain


@pytest.mark.parametrize(
    ("plain", "what"),
    [
        (None, "an update must be a list of 9 or 10 fields"),
        ([], "an update must be a list of 9 or 10 fields"),
        (core.update_to_plain(UPDATE)[:8], "9 or 10 fields"),
        ([*core.update_to_plain(UPDATE), [], 1], "9 or 10 fields"),
        ([*core.update_to_plain(UPDATE), 1], "named: int"),
        ([*core.update_to_plain(UPDATE), [["_b"]]], "reserved"),
        (with_field(0, 5), "name of a root must be a string"),
        (with_field(0, ""), "must not be empty"),
        (with_field(0, "_r"), "reserved"),
        (with_field(0, "x" * 256), "256 characters"),
        (with_field(1, None), "epoch: NoneType, not a string"),
        (with_field(1, "x" * 256), "epoch: 256 characters"),
        (with_field(2, -2), "before: -2"),
        (with_field(2, 3.0), "before: 3.0"),
        (with_field(2, True), "before: True"),
        (with_field(3, 3), "from version 3 to 3"),
        (with_field(3, 5), "from version 3 to 5"),
        (with_field(3, 2**63), "after"),
        (with_field(4, {}), "changes of an update: dict"),
        (with_field(4, [5]), "a change of a must be a list"),
        (with_field(4, [[]]), "a change of a must be a list"),
        (with_field(4, [[[], {}, "s", 1]]), "a change of a must be a list"),
        (with_field(4, [["b"]]), "a path of a must be a list of oids"),
        (with_field(4, [[["b", 5]]]), "an oid must be a string"),
        (with_field(4, [[["b", ["c"]]]]), "an oid must be a string"),
        (with_field(4, [[["_b"], 1]]), "reserved"),
        (with_field(4, [[[""], 1]]), "empty"),
        (with_field(4, [[["x"] * 128, 1]]), "129 oids"),
        (with_field(4, [[[], 5]]), "a root must be a container"),
        (with_field(4, [[["b"], {"_x": 1}]]), r"a\.b: .*reserved"),
        (with_field(4, [[["b"], math.nan]]), "not a finite"),
        (with_field(4, [[["b"], (1,)]]), "make it a list"),
        (with_field(4, [[["b"], 1, ""]]), "session: 0 characters"),
        (with_field(4, [[["b"], 1, 5]]), "session: int"),
        (with_field(5, 5), "time: 5 is no finite float"),
        (with_field(5, math.inf), "time: inf"),
        (with_field(6, "x" * 256), "tega_id: 256"),
        (with_field(6, "\ud800"), "no valid Unicode"),
        (with_field(7, "m" * 1001), "message: 1001"),
        (with_field(7, b"m"), "message: bytes"),
        (with_field(8, -1), "backto: -1"),
    ],
)
def test_updates_that_cannot_be(plain: Any, what: str) -> None:
    with pytest.raises(ProtocolError, match=what):
        core.update_from_plain(plain)
    with pytest.raises(ProtocolError, match=what):
        core.record_from_plain([2, plain])


@pytest.mark.parametrize(
    ("plain", "what"),
    [
        (None, "begins with its kind"),
        ([], "begins with its kind"),
        (["x"], "begins with its kind"),
        ([True], "begins with its kind"),
        ([99], "no kind 99"),
        ([1], "a commit must be"),
        ([1, 0, [], "", 0, 0], "revision: 0"),
        ([1, 1, 5, "", 0, 0], "updates: int"),
        ([1, 1, [], "", -1, 0], "request: -1"),
        ([1, 1, [], "", 0, None], "ack: None"),
        ([3, "a", 1, []], "first: int"),
        ([3, "a", True, 5], "entries: int"),
        ([3, "a", True, [[["b"], 0, True, None]]], "no path of a"),
        ([3, "a", True, [["a", 0, True, None]]], "no path of a"),
        ([3, "a", True, [[[], 0, True, None]]], "no path of a"),
        ([3, "a", True, [[["a"], 0, True]]], "an entry must be"),
        ([3, "a", True, [[["a"], -1, True, None]]], "version of an entry: -1"),
        ([3, "a", True, [[["a"], 0, 1, None]]], "must say whether"),
        ([3, "a", True, [[["a"], 0, True, 5]]], "container with the value"),
        ([3, "a", True, [[["a", "b"], 0, False, {}]]], "a leaf cannot be a dict"),
        ([3, "a", True, [[["a", "b"], 0, False, 1 << 64]]], "out of range"),
        ([4, "a", "e", 0, True, [[["b"], "s"]], 0.0, "", ""], "no path of a"),
        ([4, "a", "e", -2, True, [], 0.0, "", ""], "version: -2"),
        ([4, "a", "e", 0, 1, [], 0.0, "", ""], "present: int"),
        ([4, "a", "e", 0, True, 5, 0.0, "", ""], "ephemerals: int"),
        ([5, "a", "o"], "an ownership must be"),
        ([6, 5], "epochs: int"),
        ([6, [["a"]]], "a new epoch must be"),
        ([7, 1], "a clearing must be"),
        ([8, "", "t", "k", ""], "session: 0 characters"),
        ([9, ""], "session: 0 characters"),
        ([10, "a", "e", -1], "version: -1"),
    ],
)
def test_records_that_cannot_be(plain: Any, what: str) -> None:
    with pytest.raises(ProtocolError, match=what):
        core.record_from_plain(plain)


def test_paths_may_reach_below_the_longest_that_can_be_written() -> None:
    change = Change(("a", *"x" * 127), True, 1)
    update = UPDATE._replace(changes=(change,))
    assert core.update_from_plain(core.update_to_plain(update)) == update


ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 12), st.floats(), st.text(max_size=3), st.binary(max_size=2)
    ),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=20,
)


@given(ANYTHING)
def test_anything_at_all_is_an_error_or_a_record(plain: Any) -> None:
    for read in (core.record_from_plain, core.update_from_plain):
        try:
            read(plain)
        except ProtocolError as error:
            assert error.message


@given(st.sampled_from(RECORDS), st.data())
def test_a_record_with_one_part_replaced(record: Record, data: st.DataObject) -> None:
    plain = msgpack.unpackb(msgpack.packb(core.record_to_plain(record)))
    places: list[tuple[list[Any], int]] = []

    def collect(part: Any) -> None:
        if isinstance(part, list):
            for index, each in enumerate(part):
                places.append((part, index))
                collect(each)

    collect(plain)
    part, index = data.draw(st.sampled_from(places))
    part[index] = data.draw(ANYTHING)
    try:
        made = core.record_from_plain(plain)
    except ProtocolError:
        return
    assert core.record_from_plain(core.record_to_plain(made)) == made
