"""Differences as a tree, in numbers, and as a JSON Patch that applies."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tega_zmq import tree
from tega_zmq.client.results import Difference
from tega_zmq.paths import format_path, parse
from tega_zmq.shell import differences as module
from tega_zmq.shell.differences import counts, leaf_text, patch_of, stat_text, tree_text
from tega_zmq.shell.output import Paint, leaves, plain

OIDS = st.text(st.sampled_from('ab~/0.1 "\\-é'), min_size=1, max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "~1", [1, {"a": 2}]])
TREES: st.SearchStrategy[Any] = st.dictionaries(
    OIDS,
    st.recursive(LEAVES, lambda inner: st.dictionaries(OIDS, inner, max_size=3), max_leaves=8),
    max_size=4,
)


def between(old: Any, new: Any) -> list[Difference]:
    """The differences as a node finds them."""
    one, other = (tree.build(value, 0) for value in (old, new))
    return [
        Difference(
            format_path(path),
            None if was is None else tree.plain(was),
            None if now is None else tree.plain(now),
            created=was is None,
            deleted=now is None,
        )
        for path, was, now in tree.diff(one, other)
    ]


def as_json(difference: Difference) -> str:
    return json.dumps(difference._asdict(), sort_keys=True)  # tells 1 from True


@given(TREES, TREES)
@example({"a": 1, "b": 0.0}, {"a": True, "b": -0.0})
@example({"a": {}}, {"a": None})
def test_values_are_compared_as_a_node_compares_them(old: Any, new: Any) -> None:
    found = module.between(old, new)
    assert sorted(map(as_json, found)) == sorted(map(as_json, between(old, new)))
    below = [each._replace(path=f"r.{each.path}") for each in found]
    assert module.between(old, new, ("r",)) == below


def apply(document: Any, patch: list[dict[str, Any]]) -> Any:
    """RFC 6902, of which only add, remove and replace are needed; strict about what must be there."""
    document = copy.deepcopy(document)
    for each in patch:
        pointer = each["path"]
        if pointer == "":
            document = copy.deepcopy(each["value"])
            continue
        assert pointer[0] == "/"
        tokens = [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]
        container = document
        for token in tokens[:-1]:
            container = container[token]
        assert isinstance(container, dict)
        if each["op"] != "add":
            assert tokens[-1] in container
        if each["op"] == "remove":
            assert set(each) == {"op", "path"}
            del container[tokens[-1]]
        else:
            container[tokens[-1]] = copy.deepcopy(each["value"])
    return document


def same(one: Any, other: Any) -> bool:
    """Equal, and true is not 1."""
    return repr(_ordered(one)) == repr(_ordered(other))


def _ordered(value: Any) -> Any:
    return {key: _ordered(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


@given(TREES, TREES)
@example({"a/b": {"m~n": 1}}, {"a/b": {"m~n": 2}, "~1": {}})
@example({"a": {"b": 1}}, {"a": [1]})
@example({"a": 1}, {"a": True})
def test_the_patch_makes_the_newer_of_the_older(old: Any, new: Any) -> None:
    patch = patch_of(between(old, new))
    assert same(apply(old, patch), new)
    assert same(apply(new, patch_of(between(new, old))), old)
    assert bool(patch) is not same(old, new)


@given(TREES, TREES)
def test_the_numbers_add_up(old: Any, new: Any) -> None:
    changes = between(old, new)
    added, removed, _ = counts(changes)
    assert counts(between(new, old))[:2] == (removed, added)
    # An empty container that was filled, or became empty, is one no more or is one now.
    assert len(leaf_text(changes, plain).splitlines()) == added + removed + 2 * counts(changes)[2]


@given(TREES, TREES)
def test_every_line_of_the_tree_has_its_sign(old: Any, new: Any) -> None:
    changes = between(old, new)
    lines = tree_text(changes, plain).split("\n") if changes else []
    assert all(line[:2] in ("  ", "+ ", "- ") for line in lines)
    wanted = sum(1 for each in changes if not each.deleted for _ in leaves("", each.new))
    assert sum(line.startswith("+ ") and not line.endswith(":") for line in lines) == wanted


def test_the_tree_shows_the_way_to_each_difference_once() -> None:
    old = {"net": {"eth0": {"mtu": 1500, "up": True}, "lo": {}}, "name": "x"}
    new = {
        "net": {"eth0": {"mtu": 9000, "up": True}, "eth0.100": {"vlan": 100, "mtu": 1}, "lo": {}},
        "name": "x",
    }
    assert tree_text(between(old, new), plain).split("\n") == [
        "  net:",
        "    eth0:",
        "-     mtu: 1500",
        "+     mtu: 9000",
        '+   "eth0.100":',
        "+     mtu: 1",
        "+     vlan: 100",
    ]
    assert stat_text(between(old, new), plain) == "net  +2 ~1\n2 leaves added, 0 removed, 1 changed"
    assert stat_text([], plain) == "no difference"


def test_two_subtrees_that_share_a_name_further_down() -> None:
    assert tree_text(between({"a": {"c": 1}, "b": {"c": 1}}, {"a": {"c": 2}, "b": {"c": 2}}), plain).split(
        "\n"
    ) == [
        "  a:",
        "-   c: 1",
        "+   c: 2",
        "  b:",
        "-   c: 1",
        "+   c: 2",
    ]


def test_colours_and_control_characters() -> None:
    painted = tree_text(between({"a": 1}, {"a": "\x1b[31m\n"}), Paint(True))
    assert painted == '\x1b[31m- a: 1\x1b[0m\n\x1b[32m+ a: "\\u001b[31m\\n"\x1b[0m'


def test_what_was_compared_may_itself_be_a_leaf() -> None:
    change = Difference("", 1, 2, created=False, deleted=False)
    assert tree_text([change], plain) == "- 1\n+ 2"
    assert patch_of([change]) == [{"op": "replace", "path": "", "value": 2}]
    assert stat_text([change], plain) == ".  ~1\n0 leaves added, 0 removed, 1 changed"


@given(TREES, TREES)
@example({"a": 1, "b": True}, {"a": True, "b": 1})
@example({"a": {}}, {"a": {"b": {}}})
def test_between_finds_what_a_node_finds(old: Any, new: Any) -> None:
    def by_path(found: list[Difference]) -> list[Difference]:
        return sorted(found, key=lambda each: parse(each.path))

    assert module.between(old, new) == by_path(between(old, new))


def test_between_where_a_root_is_not_there() -> None:
    new = Difference("", None, {"a": 1}, created=True, deleted=False)
    assert module.between(None, {"a": 1}) == [new]
    assert module.between({}, None) == [Difference("", {}, None, created=False, deleted=True)]
    assert module.between(None, None) == []
