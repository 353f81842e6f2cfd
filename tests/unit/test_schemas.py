"""Schemas: what they refuse, and what is refused as one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq import errors, schemas, store
from tega_zmq.errors import InvalidValue
from tega_zmq.paths import SCHEMAS
from tega_zmq.store import Kept, Op
from tega_zmq.wire import messages as m
from tests.unit.node.lab import Lab, Peer

ETH = r"config-.*\.net\.eth\d+"
MTU = {"properties": {"mtu": {"type": "integer", "maximum": 9216}}, "required": ["mtu"]}


@pytest.fixture
def peer() -> Peer:
    return Lab().join("noc")


def put(peer: Peer, path: tuple[str, ...], value: Any) -> Any:
    return peer.ask(m.Write, (("put", path, value, None, False),), "", "")


def refused(peer: Peer, path: tuple[str, ...], value: Any) -> InvalidValue:
    before = peer.lab.node.tip
    with pytest.raises(InvalidValue) as caught:
        put(peer, path, value)
    assert peer.lab.node.tip is before
    return caught.value


def test_a_commit_that_breaks_a_schema_is_refused_with_path_rule_and_value(peer: Peer) -> None:
    put(peer, (SCHEMAS, ETH), MTU)
    peer.put("config-pi1.net.eth0", {"mtu": 1500})
    error = refused(peer, ("config-pi1", "net", "eth0", "mtu"), 99_999)
    assert error.path == "config-pi1.net.eth0.mtu"
    assert "99999" in error.message and "maximum" in error.message and ETH in error.message
    assert "required" in refused(peer, ("config-pi1", "net", "eth1"), {}).message
    assert "mtu" in refused(peer, ("config-pi1",), {"net": {"eth7": {"mtu": "x"}, "lo": {}}}).message
    peer.put("config-pi1.net.lo", {})
    peer.put("other.net.eth0", {"mtu": "x"})
    peer.delete("config-pi1.net.eth0")
    assert peer.get("config-pi1") == {"net": {"lo": {}}}


def test_a_schema_that_present_data_breaks_is_refused_with_the_list(peer: Peer) -> None:
    for n in range(3):
        peer.put(f"config-pi{n}.net.eth0", {"mtu": 9000 + 1000 * n})
    error = refused(peer, (SCHEMAS, ETH), MTU)
    assert "config-pi1.net.eth0.mtu" in error.message and "config-pi2.net.eth0.mtu" in error.message
    assert "config-pi0" not in error.message
    many = {f"eth{n}": {"mtu": 10_000} for n in range(100)}
    peer.put("config-pi3.net", many)
    assert "20 or more" in refused(peer, (SCHEMAS, ETH), MTU).message


def test_data_and_schema_may_change_in_one_commit(peer: Peer) -> None:
    peer.put("a.x", "text")
    ops = (("put", ("a", "x"), 5, None, False), ("put", (SCHEMAS, r"a\.x"), {"type": "integer"}, None, False))
    peer.ask(m.Write, ops, "", "")
    refused(peer, ("a", "x"), "text")


def test_schemas_have_versions(peer: Peer) -> None:
    put(peer, (SCHEMAS, r"a\.x"), {"type": "integer"})
    put(peer, (SCHEMAS, r"a\.x"), {"type": "string"})
    peer.put("a.x", "text")
    with pytest.raises(InvalidValue, match=r"a\.x: 'text' is not of type 'integer'"):
        peer.ask(m.Write, (("rollback", (SCHEMAS,), 0, None, False),), "", "")
    peer.ask(m.Write, (("delete", (SCHEMAS, r"a\.x"), None, None, False),), "", "")
    peer.put("a.x", 5)
    peer.ask(m.Write, (("rollback", (SCHEMAS,), 0, None, False),), "", "")
    refused(peer, ("a", "x"), "text")
    peer.ask(m.Write, (("delete", (SCHEMAS,), None, None, False),), "", "")
    peer.put("a.x", "text")


def test_a_rollback_of_data_obeys_too(peer: Peer) -> None:
    peer.put("a.x", "text")
    peer.put("a.x", 5)
    put(peer, (SCHEMAS, r"a\.x"), {"type": "integer"})
    with pytest.raises(InvalidValue, match="integer"):
        peer.ask(m.Write, (("rollback", ("a",), 0, None, False),), "", "")


def test_check_tells_every_violation(peer: Peer) -> None:
    put(peer, (SCHEMAS, "a"), {"additionalProperties": {"type": "integer"}})
    txid = peer.ask(m.Begin)
    peer.ask(m.Write, (("put", ("a",), {"x": "1", "y": 2, "z": "3"}, None, False),), "", txid)
    found = peer.ask(m.Check, txid, ())
    assert [(code, fields["path"]) for code, _, fields in found] == [
        ("InvalidValue", "a.x"),
        ("InvalidValue", "a.z"),
    ]
    with pytest.raises(InvalidValue, match="2 places"):
        peer.ask(m.CommitTransaction, txid, "")


def test_they_are_there_after_a_restart() -> None:
    lab = Lab()
    put(lab.join("noc"), (SCHEMAS, "a"), {"type": "object", "maxProperties": 1})
    again = Lab(state=store.replay(store.empty(Kept()), lab.disk))
    peer = again.join("noc")
    refused(peer, ("a",), {"x": 1, "y": 2})
    loaded = store.load(store.dump(lab.node.durable), Kept())
    assert loaded.roots[SCHEMAS] == lab.node.durable.roots[SCHEMAS]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"type": "integr"}, "no JSON Schema"),
        ({"minimum": "1"}, "no JSON Schema"),
        ("object", "a schema is a map"),
        ({"$ref": "https://example.org/schema"}, "nothing is fetched"),
        ({"properties": {"x": {"$dynamicRef": "file:///etc/passwd"}}}, "nothing is fetched"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "only https://json-schema.org/draft/2020-12",
        ),
        ({"allOf": [{"$schema": schemas.DIALECT}]}, "at the top"),
        ({"pattern": "(a+)+$"}, "may take too long"),
        ({"patternProperties": {"(a|a)*$": True}}, "may take too long"),
        ({"default": {"pattern": "(a+)+$"}}, "may take too long"),
        ({"pattern": "("}, "bad regex"),
        ({"unevaluatedProperties": False}, "not supported"),
    ],
)
def test_what_is_no_schema_is_refused(peer: Peer, document: Any, text: str) -> None:
    error = refused(peer, (SCHEMAS, r"a\.x"), document)
    assert text in error.message and error.message.startswith('_schema."a\\\\.x"')


def test_a_regex_that_is_none_is_refused(peer: Peer) -> None:
    assert "may take too long" in refused(peer, (SCHEMAS, "(a+)+"), {}).message
    with pytest.raises(errors.InvalidPath):
        put(peer, ("_other", "x"), {})
    with pytest.raises(errors.InvalidPath):
        put(peer, ("a", SCHEMAS), {})


@pytest.mark.parametrize(
    "document",
    [
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {
            "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
            | {"a40": True},
            "$ref": "#/$defs/a0",
        },
    ],
    ids=["endless", "dangling", "doubling"],
)
def test_a_schema_that_would_take_forever_refuses_instead(peer: Peer, document: Any) -> None:
    put(peer, (SCHEMAS, r"a\.x"), document)
    assert "to check it by the schema" in refused(peer, ("a", "x"), 1).message
    assert "to check it by the schema" in refused(peer, ("a",), {"x": 1}).message


def test_the_work_of_a_whole_commit_is_bounded(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    put(peer, (SCHEMAS, r"a\..*"), {"items": {"type": "integer"}})
    peer.put("a", {f"k{n}": [1] * 100 for n in range(20)})
    monkeypatch.setattr(schemas, "MAX_COMMIT", 10_000)
    assert "too much work" in refused(peer, ("a",), {f"k{n}": [3] * 100 for n in range(20)}).message
    peer.put("a.k0", [2] * 100)


def compiled(document: Any) -> schemas.Schema:
    written = store.write(
        store.empty(Kept()),
        [Op("put", (SCHEMAS, r"a\.v"), document)],
        time=0.0,
        tega_id="x",
        fresh=lambda: "e",
        max_value=1 << 23,
    )
    (schema,) = schemas.table(written.store.roots[SCHEMAS].node, ())
    schema.compile()
    return schema


MOST = 20_000
"""What the checks below may cost, so that they are over soon."""


def calls_of_a_check(schema: schemas.Schema, value: Any) -> int:
    """Return how many functions the interpreter and the library called: what is really done."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    schema.problems(("a", "v"), value, MOST)  # finds the bounds of its regexes
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        schema.problems(("a", "v"), value, MOST)
    finally:
        sys.setprofile(before)
    return calls


def assert_counted(schema: schemas.Schema, value: Any) -> None:
    calls = calls_of_a_check(schema, value)
    shown = len(repr(value)) // 8 + schemas.MAX_SHOWN * 200
    assert schema.spent <= MOST + shown + 50_000
    assert calls <= 4 * min(schema.spent, MOST) + 1500


ITEMS = [0] * 3000
NAMES = {f"k{n}": n for n in range(3000)}


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ({"$defs": {"e": {"items": {}}}, "allOf": [{"$ref": "#/$defs/e"}] * 20}, ITEMS),
        ({"$defs": {"e": {"items": {"title": "x"}}}, "allOf": [{"$ref": "#/$defs/e"}] * 20}, ITEMS),
        ({"allOf": [{"not": {"uniqueItems": True}}] * 20}, list(range(3000))),
        ({"allOf": [{"contains": True}] * 50}, ITEMS),
        ({"allOf": [{"not": {"contains": False}}] * 20}, ITEMS),
        ({"allOf": [{"not": False}] * 20}, ITEMS),
        ({"allOf": [{"if": False}] * 20}, ITEMS),
        ({"anyOf": [False] * 20}, ITEMS),
        ({"anyOf": [{"type": "string"}] * 20}, ITEMS),
        ({"anyOf": [{"items": {"maximum": -1, "type": "string"}}]}, ITEMS),
        ({"anyOf": [{"items": {"anyOf": [{"items": {"type": "string"}}]}}]}, [[0] * 50] * 50),
        ({"$defs": {"c": {"const": ITEMS}}, "allOf": [{"$ref": "#/$defs/c"}] * 20}, list(ITEMS)),
        ({"$defs": {"c": {"enum": [[0] * 50] * 30}}, "items": {"$ref": "#/$defs/c"}}, [[0] * 49 + [1]] * 50),
        ({"$defs": {"c": {"propertyNames": {}}}, "allOf": [{"$ref": "#/$defs/c"}] * 20}, NAMES),
        ({"$defs": {"c": {"additionalProperties": {}}}, "allOf": [{"$ref": "#/$defs/c"}] * 20}, NAMES),
        ({"anyOf": [{"additionalProperties": False}] * 20}, NAMES),
        ({"patternProperties": {"a": {}, "k.*": {}}, "additionalProperties": False}, NAMES),
        ({"prefixItems": [{}] * 500}, ITEMS),
        ({"oneOf": [{}] * 500}, ITEMS),
        ({"anyOf": [{"required": [f"x{n}" for n in range(500)]}] * 20}, NAMES),
        ({"anyOf": [{"dependentRequired": {f"k{n}": ["x", "y"] for n in range(200)}}] * 5}, NAMES),
        ({"dependentSchemas": {f"k{n}": {"required": ["x"]} for n in range(200)}}, NAMES),
        ({"properties": {f"k{n}": {} for n in range(500)}}, NAMES),
        ({"uniqueItems": True}, [{"a": n, "b": [n]} for n in range(3000)]),
        ({"items": {"multipleOf": 5e-324}}, [1.7e308] * 3000),
        ({"items": {"format": "ipv6"}}, ["1::" + "2" * 40] * 3000),
        ({"items": {"pattern": "((a)|(b))*c"}}, ["ab" * 120] * 3000),
        (
            {"items": {"$ref": "#x"}, "$defs": {"a": {"$anchor": "x"}, **{f"k{n}": {} for n in range(100)}}},
            ITEMS,
        ),
        ({"items": {"$dynamicRef": "#x"}, "$defs": {"a": {"$dynamicAnchor": "x", "title": "y"}}}, ITEMS),
        ({"$id": "http://x/y", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {}}}, ITEMS),
        ({"items": {f"x{n}": 1 for n in range(500)}}, ITEMS),
        ({"items": {"$ref": "#"}, "type": ["array", "integer"]}, [[[[[0] * 10] * 10] * 10] * 10]),
    ],
)
def test_all_that_a_check_does_is_counted(document: Any, value: Any) -> None:
    assert_counted(compiled(document), value)


def test_numbers_of_one_hash_do_not_make_items_slow_to_compare() -> None:
    # Two numbers of a list can be chosen so that all lists have one hash, and a set of them is a chain.
    first, second, third, mask = (
        11400714785074694791,
        14029467366897019727,
        2870177450012600261,
        (1 << 64) - 1,
    )
    back = pow(second, -1, 1 << 64)
    items = []
    for n in range(2**20):
        lane = (third + n * second) & mask
        lane = (lane << 31 | lane >> 33) & mask
        other = (-(lane * first & mask) * back) & mask
        if other < 2**61 - 1:
            items.append([n, other])
        if len(items) == 2000:
            break
    assert len({hash(tuple(each)) for each in items}) == 1
    schema = compiled({"uniqueItems": True})
    assert schema.problems(("a", "v"), items) == []
    assert isinstance(schemas._canonical(schema.compile()[1], items[0]), str)


def test_items_are_equal_as_numbers_are(peer: Peer) -> None:
    put(peer, (SCHEMAS, r"a\.v"), {"uniqueItems": True})
    peer.put(
        "a.v", [1, True, "1", "True", 1.5, 1e300, {"x": 1, "y": 2}, {"x": 12}, [1, 2], ["1,2"], [[1], 2]]
    )
    for twice in (
        [1, 1.0],
        [0.0, -0.0],
        [{"x": 1, "y": 2.0}, {"y": 2, "x": 1}],
        [1e300, 1e300],
        [None, None],
    ):
        refused(peer, ("a", "v"), twice)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"allOf": [{}] * 2000}, "too large"),
        ({"properties": {f"a{n}": True for n in range(2000)}}, "too large"),
        ({"allOf": [{"type": ["string", "null", "array", "object"]}] * 1000}, "too large"),
        ({"dependencies": {f"a{n}": ["b"] for n in range(500)}}, "too large"),
        ({"patternProperties": {f"{'[ab]' * 60}{n}": True for n in range(100)}}, "too large"),
        ({"patternProperties": {f"(?i:{n}[\x00-\uffff])": True for n in range(20)}}, "too large"),
        ({"pattern": "(?i:[\x00-\U0010ffff])"}, "too many characters"),
        ({"items": {"$ref": "#" + "/x" * 1000}}, "at most 1000 characters"),
    ],
)
def test_a_schema_that_takes_long_to_compile_is_refused(peer: Peer, document: Any, text: str) -> None:
    assert text in refused(peer, (SCHEMAS, r"a\.v"), document).message


def test_the_names_of_all_schemas_are_bounded(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "MAX_NAMES", 20)
    put(peer, (SCHEMAS, "a" * 10), {})
    assert "have 21 characters" in refused(peer, (SCHEMAS, "b" * 11), {}).message


def test_looking_for_what_is_to_be_checked_is_counted(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.put("a", {f"{'a' * 200}{n}": 1 for n in range(100)})
    monkeypatch.setattr(schemas, "MAX_COMMIT", 100_000)
    assert "takes too much work" in refused(peer, (SCHEMAS, r"a\.(.*)a(.*)b"), {}).message
    put(peer, (SCHEMAS, r"a\..*"), {})
    monkeypatch.setattr(schemas, "MAX_COMMIT", 1000)
    refused(peer, ("a",), {f"k{n}": 1 for n in range(1000)})


def test_what_is_too_large_to_be_read_is_not_checked(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    put(peer, (SCHEMAS, "a"), {})
    monkeypatch.setattr(schemas, "MAX_WORK", 1000)
    assert "too large to be checked" in refused(peer, ("a",), {f"k{n}": n for n in range(1000)}).message


def test_long_names_below_a_list_are_not_matched(peer: Peer) -> None:
    put(peer, (SCHEMAS, r"a\.v"), {"items": {"patternProperties": {"x": True}}})
    peer.put("a.v", [{"x": 1}])
    try:
        put(peer, ("a", "v"), [{"x" * 300: 1}])
    except InvalidValue as error:
        assert "300" in error.message


def nested(depth: int, leaf: Any, *keys: str) -> Any:
    for _ in range(depth):
        for key in keys:
            leaf = {key: leaf}
    return leaf


def test_depth_is_bounded_before_the_interpreter_bounds_it(peer: Peer) -> None:
    put(peer, (SCHEMAS, r"a\.x"), nested(30, {"type": "string"}, "not"))
    peer.put("a.x", "text")
    assert "containers within one another" in refused(peer, (SCHEMAS, r"a\.x"), nested(33, {}, "not")).message
    put(peer, (SCHEMAS, "b"), {"additionalProperties": {"$ref": "#"}, "type": "object"})
    deep = nested(50, {"x": {}}, "k")
    peer.put("b", deep)
    assert peer.get("b") == deep
    for frames in range(0, 300, 50):
        assert _under(frames, lambda: refused(peer, ("b", "y"), 1).path) == "b.y"
    put(peer, (SCHEMAS, "c"), {"$ref": "#"})
    assert _under(300, lambda: refused(peer, ("c",), {}).path) == "c"


def _under(frames: int, call: Callable[[], Any]) -> Any:
    """Call with so many frames of Python below, which a program that embeds a node may have."""
    return _under(frames - 1, call) if frames else call()


def test_what_each_keyword_of_ours_means(peer: Peer) -> None:
    put(
        peer,
        (SCHEMAS, "a"),
        {
            "$schema": schemas.DIALECT,
            "properties": {
                "name": {"pattern": "^[a-z]+$"},
                "has": {"pattern": "[0-9]"},
                "list": {"uniqueItems": True},
                "ip": {"format": "ipv4"},
                "off": False,
            },
            "patternProperties": {"^eth[0-9]": {"$ref": "#/$defs/port"}},
            "$defs": {"port": {"properties": {"up": {"type": "boolean"}}}},
        },
    )
    good = {"name": "abc", "has": "a1b", "list": [1, True, "1", [1]], "ip": "10.0.0.1", "eth0": {"up": True}}
    peer.put("a", {**good, "eth": {"up": 5}})
    for name, wrong in {
        "name": "Abc",
        "has": "abc",
        "list": [1, {"x": [1]}, {"x": [1.0]}],
        "ip": "10.0.0.256",
        "off": 1,
        "eth0": {"up": 5},
    }.items():
        refused(peer, ("a", name), wrong)
    assert "256 characters" in refused(peer, ("a", "name"), "a" * 256).message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)
SCHEMA = st.recursive(
    st.sampled_from(
        [
            {},
            {"type": "integer"},
            {"type": "string"},
            {"const": 1},
            {"enum": ["a", None]},
            {"minimum": 0},
            {"maxItems": 1},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda a: {"properties": {"x": a}}, inner),
        st.builds(lambda a: {"additionalProperties": a}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a: {"not": a}, inner),
        st.builds(lambda a: {"items": a}, inner),
        st.just({"required": ["x"]}),
        st.just({"uniqueItems": True}),
        st.just({"patternProperties": {"^[xy]$": {"type": "integer"}}}),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(SCHEMA, JSON)
def test_the_verdict_is_that_of_the_library(document: Any, value: Any) -> None:
    from jsonschema import Draft202012Validator

    found = compiled(document).problems(("a", "v"), value)
    assert bool(found) is not Draft202012Validator(document).is_valid(value)


MANY = st.integers(1, 11).flatmap(
    lambda n: JSON.map(lambda item: [item] * 3**n if n < 6 else {f"x{k}": item for k in range(3 ** (n - 6))})
)
APPLICATORS = ("allOf", "anyOf", "oneOf")
NASTY = st.recursive(
    SCHEMA | st.booleans() | st.sampled_from([{"$ref": "#"}, {"$ref": "#/$defs/d"}, {"const": [0] * 200}]),
    lambda inner: st.one_of(
        st.builds(lambda key, a, n: {key: [a] * n}, st.sampled_from(APPLICATORS), inner, st.integers(1, 6)),
        st.builds(
            lambda key, a: {key: a},
            st.sampled_from(
                ["not", "if", "items", "contains", "propertyNames", "additionalProperties", "prefixItems"]
            ),
            inner,
        ).map(lambda made: {"prefixItems": [made["prefixItems"]] * 5} if "prefixItems" in made else made),
        st.builds(lambda a, b: {"if": a, "then": b, "else": b}, inner, inner),
        st.builds(lambda a: {"patternProperties": {"x": a, ".*1": a}}, inner),
        st.builds(lambda a: {"dependentSchemas": {"x": a, "x0": a}}, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(NASTY, NASTY, MANY)
def test_whatever_a_schema_does_is_counted(document: Any, definition: Any, value: Any) -> None:
    try:
        schema = compiled({"$defs": {"d": definition}, "allOf": [document]})
    except InvalidValue:
        return
    assert_counted(schema, value)


def test_without_schemas_nothing_is_looked_at_and_each_is_compiled_once(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    compiled = schemas._compiled
    monkeypatch.setattr(
        schemas, "_compiled", lambda doc, where: (made.append(where), compiled(doc, where))[1]
    )
    put(peer, (SCHEMAS, "a"), {"type": "object"})
    put(peer, (SCHEMAS, "b"), {"type": "object"})
    for n in range(5):
        peer.put("a.n", n)
        peer.put("b.n", n)
        peer.put("c.n", n)
    assert sorted(made) == ["_schema.a", "_schema.b"]
