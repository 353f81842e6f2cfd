"""Schemas: what they refuse, and what is refused as one."""

from __future__ import annotations

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

    state = store.empty(Kept())
    written = store.write(
        state,
        [Op("put", (SCHEMAS, r"a\.v"), document)],
        time=0.0,
        tega_id="x",
        fresh=lambda: "e",
        max_value=1 << 20,
    )
    (schema,) = schemas.table(written.store.roots[SCHEMAS].node, ())
    assert bool(schema.problems(("a", "v"), value)) is not Draft202012Validator(document).is_valid(value)


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
