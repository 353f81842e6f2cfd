from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq import store, subscriptions
from tega_zmq.errors import TegaError
from tega_zmq.matching import reaches
from tega_zmq.patterns import compile_channel, compile_oids
from tega_zmq.sessions import Session
from tega_zmq.store import Change, Op, Store, Update
from tega_zmq.subscriptions import ChangeSubscription, Channels, ChannelSubscription, Subscriptions, select
from tega_zmq.tree.node import plain
from tega_zmq.wire.messages import ChangeField


def session(name: str = "s") -> Session:
    return Session(name, name, "", "client", None, 15.0, 0.0)


def to_path(path: str, number: int = 1) -> ChangeSubscription:
    return ChangeSubscription(session(), number, tuple(path.split(".")), None, path)


def to_regex(regex: str, number: int = 1) -> ChangeSubscription:
    return ChangeSubscription(session(), number, (), compile_oids(regex), regex)


def write(before: Store, *ops: tuple[Any, ...]) -> tuple[Update, Store]:
    made = store.write(
        before,
        [Op(kind, tuple(path.split(".")), *rest) for kind, path, *rest in ops],  # type: ignore[misc]
        time=1.0,
        tega_id="noc",
        fresh=lambda: "e1",
        max_value=1 << 20,
    )
    assert made.commit is not None
    return made.commit.updates[0], made.store


BASE = write(store.empty(), ("put", "r", {"net": {"eth0": {"mtu": 1500}, "eth1": {"mtu": 1}}, "x": 1}))[1]


def told(subscription: ChangeSubscription, *ops: tuple[Any, ...]) -> tuple[ChangeField, ...]:
    update, after = write(BASE, *ops)
    return select(subscription, update, BASE.roots["r"].node, after.roots["r"].node)


@pytest.mark.parametrize(
    ("path", "ops", "expected"),
    [
        ("r.net", [("put", "r.net.eth0", {"mtu": 9, "up": True})], [("r.net.eth0", {"mtu": 9, "up": True})]),
        ("r.net.eth0", [("put", "r.net.eth0", {"mtu": 9})], [("r.net.eth0", {"mtu": 9})]),
        ("r.net.eth0", [("put", "r.net", {"eth0": {"mtu": 9}})], [("r.net.eth0", {"mtu": 9})]),
        ("r.net.eth1", [("put", "r.net", {"eth0": {}, "eth1": {"mtu": 1}})], []),
        ("r.net", [("put", "r.net.new.deep.er", 1)], [("r.net.new.deep.er", 1)]),
        ("r.new.deep", [("put", "r.new.deep.er", 1)], [("r.new.deep.er", 1)]),
        ("r", [("put", "r.a.b", 1), ("put", "r.a.c", 2)], [("r.a.b", 1), ("r.a.c", 2)]),
        ("r", [("put", "r.a.b", 1), ("put", "r.a", {"c": 3})], [("r.a", {"c": 3})]),
        ("r", [("put", "r.a.b", 1), ("delete", "r.net.eth1")], [("r.a.b", 1), ("r.net.eth1", None)]),
        ("r", [("put", "r.a.b", 1), ("delete", "r")], [("r", None)]),
        # What was put is gone again: the container that it was put into stays.
        ("r", [("put", "r.a.b", 1), ("delete", "r.a.b")], [("r.a", {})]),
        (
            "r",
            [("put", "r.a.b.c", 1), ("put", "r.x", 2), ("delete", "r.a.b.c")],
            [("r.a", {"b": {}}), ("r.x", 2)],
        ),
        # Of a patch, where the differences lie.
        ("r.net", [("patch", "r.net", {"eth0": {"mtu": 9}, "eth1": None})], None),
    ],
)
def test_changes_at_the_paths_that_the_writer_named(path: str, ops: Any, expected: Any) -> None:
    by_name = to_path(path)
    by_name.named = True
    found = [(".".join(at), new[0] if new else None) for at, _, new, _ in told(by_name, *ops)]
    if expected is None:
        assert told(by_name, *ops) == told(to_path(path), *ops)
    else:
        assert found == expected


OIDS = st.sampled_from(["net", "eth0", "x", "y"])
PATHS = st.lists(OIDS, max_size=3).map(lambda oids: ".".join(["r", *oids]))
VALUES = st.recursive(st.integers(0, 2), lambda below: st.dictionaries(OIDS, below, max_size=2), max_leaves=4)
WRITES = st.one_of(
    st.tuples(st.just("put"), PATHS, VALUES),
    st.tuples(st.just("patch"), PATHS, st.dictionaries(OIDS, st.integers(0, 2), max_size=2)),
    st.tuples(st.just("delete"), PATHS),
)


def narrowed(tree: Any, path: tuple[str, ...]) -> Any:
    for oid in path[1:]:
        tree = tree.get(oid) if isinstance(tree, dict) else None
    return tree


def put_at(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    if len(path) == 1:
        return value
    made = dict(tree) if isinstance(tree, dict) else {}
    below = put_at(made.get(path[1]), path[1:], value)
    if below is None:
        made.pop(path[1], None)
    else:
        made[path[1]] = below
    return made


@given(st.lists(WRITES, min_size=1, max_size=4), PATHS)
def test_what_is_told_by_name_leads_from_the_old_value_to_the_new(ops: Any, path: str) -> None:
    try:
        update, after = write(BASE, *ops)
    except (TegaError, AssertionError):  # refused, or nothing changed
        return
    subscription = to_path(path)
    subscription.named = True
    assert store.update_from_plain(store.update_to_plain(update)) == update
    old, new = BASE.roots["r"].node, after.roots["r"].node
    before = plain(old)
    at = tuple(path.split("."))
    value = narrowed(before, at)
    for where, was, now, _ in select(subscription, update, old, new):
        assert where[: len(at)] == at
        assert (was[0] if was else None) == narrowed(before, where)
        value = put_at(value, where[len(at) - 1 :], now[0] if now else None)
    assert value == (narrowed(plain(new), at) if new is not None else None)


@pytest.mark.parametrize(
    ("path", "op", "expected"),
    [
        ("r.net.eth0", ("put", "r.net.eth0.mtu", 9), [("r.net.eth0.mtu", (1500,), (9,))]),
        ("r.net.eth0.mtu", ("put", "r.net.eth0.mtu", 9), [("r.net.eth0.mtu", (1500,), (9,))]),
        ("r.net.eth0.mtu", ("put", "r.net", 5), [("r.net.eth0.mtu", (1500,), ())]),
        ("r.net.eth0", ("put", "r.net.eth0", [5]), [("r.net.eth0", ({"mtu": 1500},), ([5],))]),
        ("r", ("put", "r.net.new", None), [("r.net.new", (), (None,))]),
        ("r.net.new.deep", ("put", "r.net.new", None), []),
        ("r.net.eth0.mtu", ("delete", "r"), [("r.net.eth0.mtu", (1500,), ())]),
        ("r", ("delete", "r.net.eth1"), [("r.net.eth1", ({"mtu": 1},), ())]),
        ("r.net.new.deep", ("put", "r.net.new", {"deep": 1}), [("r.net.new.deep", (), (1,))]),
        ("r.net.eth1", ("put", "r.net.eth0.mtu", 9), []),
        ("r.net.eth1", ("put", "r.net.eth2", {"mtu": 9}), []),
        ("r.nothing.here", ("delete", "r"), []),
        ("r.net.eth", ("put", "r.net.eth0.mtu", 9), []),
    ],
)
def test_changes_at_below_and_above_a_path(path: str, op: tuple[Any, ...], expected: list[Any]) -> None:
    assert [(".".join(at), old, new) for at, old, new, _ in told(to_path(path), op)] == expected


@pytest.mark.parametrize(
    ("regex", "op", "expected"),
    [
        (r"r\.net\.eth.*", ("put", "r.net.eth0.mtu", 9), [("r.net.eth0.mtu", (1500,), (9,))]),
        (r"r\.net\.eth.", ("delete", "r.net"), [("r.net.eth0", True), ("r.net.eth1", True)]),
        (r"r\.net\.eth.\.mtu", ("delete", "r"), [("r.net.eth0.mtu", True), ("r.net.eth1.mtu", True)]),
        (r"r\.net\.eth2", ("put", "r.net.eth0.mtu", 9), []),
        (r"q.*", ("delete", "r"), []),
        (r"r\.x\.y", ("put", "r.x", 2), []),
    ],
)
def test_changes_by_regex(regex: str, op: tuple[Any, ...], expected: list[Any]) -> None:
    found = told(to_regex(regex), op)
    if expected and len(expected[0]) == 2:
        assert sorted((".".join(at), new == ()) for at, _, new, _ in found) == expected
    else:
        assert [(".".join(at), old, new) for at, old, new, _ in found] == expected


def test_only_those_concerned_are_found_each_once() -> None:
    table = Subscriptions()
    made = {
        path: to_path(path) for path in ("r", "r.net", "r.net.eth0.mtu", "r.netx", "r.net.eth1", "s", "s.net")
    }
    by_regex = to_regex("s.*")
    for each in (*made.values(), by_regex):
        table.add(each)
    assert len(table) == 8
    update = Update(
        "r", "e1", 0, 1, (Change(("r", "net", "eth0"), False), Change(("r", "net", "a"), False)), 1.0, "x"
    )
    found = table.concerned(update)
    assert set(found) == {made["r"], made["r.net"], made["r.net.eth0.mtu"]}
    assert len(found) == 3
    assert set(table.of_root("r")) == set(list(made.values())[:5])
    assert set(table.of_root("s")) == {made["s"], made["s.net"], by_regex}
    assert table.of_root("s1") == [by_regex]
    assert table.of_root("none") == []
    for each in (*made.values(), by_regex):
        table.remove(each)
    assert len(table) == 0
    assert table._top.children == {}
    assert table.concerned(update) == []


OID = st.sampled_from("abc")
PATH = st.lists(OID, min_size=1, max_size=4).map(tuple)


@settings(max_examples=200)
@given(
    st.lists(PATH, max_size=12), st.lists(PATH.map(lambda p: ("a", *p)), min_size=1, max_size=4), st.data()
)
def test_the_trie_finds_what_a_scan_finds(paths: Any, changed: Any, data: Any) -> None:
    table = Subscriptions()
    made = [ChangeSubscription(session(), n, path, None, "") for n, path in enumerate(paths)]
    for each in made:
        table.add(each)
    for each in data.draw(st.lists(st.sampled_from(made), unique=True) if made else st.just([])):
        table.remove(each)
        made.remove(each)
    update = Update("a", "e", 0, 1, tuple(Change(path, False) for path in changed), 1.0, "x")
    expected = [
        each
        for each in made
        if any(each.path[: len(at)] == at or at[: len(each.path)] == each.path for at in changed)
    ]
    assert sorted(table.concerned(update), key=made.index) == expected
    assert sorted(table.of_root("a"), key=made.index) == [each for each in made if each.path[0] == "a"]


def test_the_present_value() -> None:
    node = BASE.roots["r"].node
    assert subscriptions.present(to_path("r.net.eth1"), "r", node, None) == (
        (("r", "net", "eth1"), (), ({"mtu": 1},), ""),
    )
    assert subscriptions.present(to_path("r.none"), "r", node, None) == ((("r", "none"), (), (), ""),)
    gone = subscriptions.present(to_path("r.net.eth1"), "r", None, node)
    assert gone == ((("r", "net", "eth1"), ({"mtu": 1},), (), ""),), "what is gone is told with what it was"
    assert subscriptions.present(to_path("r.none"), "r", None, node) == ((("r", "none"), (), (), ""),)
    by_regex = to_regex(r"r\.net\.eth.*")
    assert {path: new for path, _, new, _ in subscriptions.present(by_regex, "r", None, node)} == {
        ("r", "net", "eth0"): (),
        ("r", "net", "eth1"): (),
    }
    assert len(subscriptions.present(by_regex, "r", node, None)) == 2
    # What it matched is not known any more, only that nothing is left of it.
    assert subscriptions.present(by_regex, "r", None, None) == ((("r",), (), (), ""),)
    assert subscriptions.present(by_regex, "q", None, None) == ()


def test_where_a_subscription_begins() -> None:
    after = write(BASE, ("put", "q", {}))[1]
    assert subscriptions.positions(to_path("r.net"), after) == {"r": ("e1", 0)}
    assert subscriptions.positions(to_path("none"), after) == {}
    assert subscriptions.positions(to_regex(".*"), after) == {"r": ("e1", 0), "q": ("e1", 0)}
    assert to_path("r.net").concerns("r")
    assert not to_path("r.net").concerns("q")
    assert to_regex("r").concerns("q")


def test_channels_by_name_and_pattern() -> None:
    table = Channels()
    a, b = session("a"), session("b")
    made = [
        ChannelSubscription(a, 1, "alerts.cpu", None),
        ChannelSubscription(a, 2, r"alerts\..*", compile_channel(r"alerts\..*")),
        ChannelSubscription(b, 3, "alerts.cpu", None),
    ]
    for each in made:
        table.add(each)
    assert table.listeners("alerts.cpu") == {a: [1, 2], b: [3]}
    assert table.listeners("alerts.disk") == {a: [2]}
    assert table.listeners("other") == {}
    assert table.listing() == {"alerts.cpu": ["a", "b"], r"alerts\..*": ["a"]}
    for each in made:
        table.remove(each)
    assert table.listeners("alerts.cpu") == {}
    assert table.listing() == {}


REGEXES = (
    "a",
    "b",
    "ab",
    "a.*",
    "ab?",
    "a|b",
    r"a\.b",
    r"[ab]\.c",
    r".*\.a",
    r"(?i)A\.B",
    r"a{2}",
    r"a\.b\.c",
)


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(REGEXES), max_size=12),
    st.sampled_from(["a", "b", "aa", "ab", "A", "c"]),
    st.lists(PATH, min_size=1, max_size=3),
    st.data(),
)
def test_the_index_of_patterns_finds_what_a_scan_finds(texts: Any, root: str, below: Any, data: Any) -> None:
    table = Subscriptions()
    made = [to_regex(text, number) for number, text in enumerate(texts)]
    for each in made:
        table.add(each)
    for each in data.draw(st.lists(st.sampled_from(made), unique=True) if made else st.just([])):
        table.remove(each)
        made.remove(each)
    update = Update(root, "e", 0, 1, tuple(Change((root, *path), False) for path in below), 1.0, "x")
    found = table.concerned(update)
    expected = [
        each
        for each in made
        if each.pattern is not None and any(reaches(each.pattern, at.path) for at in update.changes)
    ]
    assert sorted(found, key=made.index) == expected
    of_root = table.of_root(root)
    assert all(
        each in of_root
        for each in made
        if each.pattern is not None and each.pattern.step(0, root) is not None
    )
    for each in made:
        table.remove(each)
    assert len(table) == 0 and table.of_root(root) == [] and not table._patterns._lengths


def test_what_a_change_costs_does_not_grow_with_the_subscriptions_by_pattern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def counted(pattern: Any, path: Any) -> bool:
        tried.append(pattern.text)
        return reaches(pattern, path)

    monkeypatch.setattr(subscriptions, "reaches", counted)
    table = Subscriptions()
    for number in range(1000):
        table.add(to_regex(rf"other-{number}\.net", number))
        table.add(to_regex(r"r\.net\.eth[0-9]", number))
    update = Update("r", "e1", 0, 1, (Change(("r", "net", "lo"), False),), 1.0, "x")
    assert table.concerned(update) == []
    assert tried == [r"r\.net\.eth[0-9]"]
