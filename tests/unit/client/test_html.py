"""What a notebook shows: safe whatever the values are, well-formed, bounded."""

from __future__ import annotations

import pickle
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq import Cont
from tega_zmq.client import html, requests
from tega_zmq.client.results import (
    Blame,
    Blamed,
    CandidateView,
    Change,
    Committed,
    Difference,
    Differences,
    Edge,
    Edges,
    Found,
    FoundNodes,
    Log,
    LogEntry,
    NodeView,
)

TAGS = {
    "b": set(),
    "details": {"open"},
    "div": {"class", "style"},
    "span": {"style"},
    "summary": set(),
    "table": set(),
    "tbody": set(),
    "td": {"style"},
    "th": {"style"},
    "thead": set(),
    "tr": set(),
}
"""All that may stand in the markup, with the attributes that it may have."""


class Reader(HTMLParser):
    """Reads strictly: known tags alone, each closed in its place."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.words: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= TAGS[tag], (tag, attrs)
        for _, value in attrs:
            assert value is None or "(" not in value
        self.stack.append(tag)
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        assert self.stack
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration: {decl}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


def read(shown: Any) -> Reader:
    """Check the HTML of a value, and return what is in it."""
    markup = shown if isinstance(shown, str) else shown._repr_html_()
    markup.encode()
    reader = Reader()
    reader.feed(markup)
    reader.close()
    assert not reader.stack
    assert "mathjax_ignore" in markup
    return reader


BAIT = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "&",
    '" onclick="x',
    "' style='x",
    "$\\href{javascript:x}{y}$",
    "\u202edlrow",
    "a\nb\0c",
    "\ud800",
    "",
    "%s{}{0}",
]
TEXTS = st.one_of(
    st.sampled_from(BAIT),
    st.sampled_from(BAIT[:-2]).map(lambda bait: bait * 200),
    st.text(max_size=30),
    st.text("<>&\"'/!-=b ", max_size=20),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXTS,
    st.lists(st.one_of(TEXTS, st.integers(), st.dictionaries(TEXTS, TEXTS, max_size=2)), max_size=3),
)
TREES = st.recursive(LEAVES, lambda below: st.dictionaries(TEXTS, below, max_size=4), max_leaves=12)
DIFFERENCES = st.builds(Difference, TEXTS, TREES, TREES, st.booleans(), st.booleans())
ENTRIES = st.builds(
    LogEntry,
    st.integers(0),
    st.floats(),
    TEXTS,
    TEXTS,
    st.none() | st.integers(0),
    st.lists(DIFFERENCES, max_size=3).map(tuple),
)
FOUND = st.builds(Found, TEXTS, st.just(()), TREES)
CHANGES = st.builds(
    Change,
    path=TEXTS,
    old=TREES,
    new=TREES,
    version=st.integers(0),
    previous_version=st.integers(-1),
    tega_id=TEXTS,
    message=TEXTS,
    time=st.floats(),
    epoch=TEXTS,
    created=st.booleans(),
    deleted=st.booleans(),
    ephemeral=st.booleans(),
    reset=st.booleans(),
    backto=st.none() | st.integers(0),
    oids=st.just(("r",)),
)
SHOWN = st.one_of(
    DIFFERENCES,
    st.lists(DIFFERENCES, max_size=4).map(Differences),
    ENTRIES,
    st.lists(ENTRIES, max_size=4).map(Log),
    FOUND,
    st.lists(FOUND, max_size=4).map(FoundNodes),
    CHANGES,
    st.builds(NodeView, TREES, st.integers(0), st.booleans(), TEXTS, st.none() | st.floats()),
    st.builds(Committed, st.integers(0), st.dictionaries(TEXTS, st.integers(0), max_size=3)),
    st.builds(
        CandidateView,
        st.dictionaries(TEXTS, TREES, max_size=3),
        st.lists(DIFFERENCES, max_size=3).map(tuple),
    ),
    st.lists(st.builds(Blamed, TEXTS, st.integers(0), st.none() | st.floats(), TEXTS, TEXTS), max_size=4).map(
        Blame
    ),
    st.lists(st.builds(Edge, TEXTS, TEXTS, TEXTS), max_size=4).map(Edges),
)


@given(SHOWN)
def test_nothing_that_is_shown_gets_into_the_markup(shown: Any) -> None:
    read(shown)


@given(TEXTS)
def test_text_says_what_it_stands_for(value: str) -> None:
    (words,) = read(html.page(html.text(value))).words or [""]
    assert words.isprintable()
    if value.isprintable() and len(value) <= html.MAX_TEXT:
        assert words == value
    else:
        assert (
            words.isascii() or "\u2026" in words or all(each in value for each in words if not each.isascii())
        )


def test_what_turns_the_direction_of_writing_is_shown_as_an_escape() -> None:
    assert read(Cont("r", {"k": "a\u202eb"})).words[-1] == ": 'a\\u202eb'"
    assert html.text("a\u202eb\n\ud800") == "a\\u202eb\\n\\ud800"


@given(TREES)
def test_a_small_tree_shows_every_name_and_leaf(value: Any) -> None:
    reader = read(NodeView(value, 3, False, "e", None))
    words = "".join(reader.words)

    def look(at: Any) -> None:
        if isinstance(at, dict):
            for oid, item in at.items():
                if oid.isprintable() and 0 < len(oid) <= html.MAX_TEXT:
                    assert oid in reader.words
                look(item)
        elif isinstance(at, str):
            assert repr(at[:30]).strip("'\"") in words
        elif not isinstance(at, list):
            assert repr(at) in words

    look(value)
    assert "version 3" in words


def containers(value: Any) -> int:
    if not isinstance(value, dict) or not value:
        return 0
    return 1 + sum(map(containers, value.values()))


@given(TREES)
def test_containers_can_be_folded(value: Any) -> None:
    assert read(NodeView(value, 0, True, "e", 1.0)).count.get("details", 0) == containers(value)


def test_a_large_tree_is_folded_and_cut_with_a_note() -> None:
    shown = NodeView({f"a{each}": {"x": each} for each in range(5000)}, 0, False, "e", None)
    reader = read(shown)
    words = "".join(reader.words)
    assert reader.count["b"] == html.MAX_NODES
    assert f"{5000 - html.MAX_NODES // 2} more, not shown" in words
    assert shown._repr_html_().count("<details open>") == 1
    assert len(shown._repr_html_()) < 500_000


def test_a_deep_tree_is_cut_with_a_note() -> None:
    value: Any = {"leaf": 1}
    for _ in range(3000):
        value = {"a": value}
    reader = read(NodeView(value, 0, False, "e", None))
    assert reader.count["details"] == html.MAX_DEPTH and "too deep" in "".join(reader.words)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        ["y" * 100_000] * 100,
        list(range(1_000_000)),
        [[[[["z" * 1000] * 50] * 50] * 50]],
        10**9999,
    ],
    ids=["text", "texts", "numbers", "lists", "digits"],
)
def test_a_large_leaf_is_cut(value: Any) -> None:
    shown = NodeView({"k": value}, 0, False, "e", None)
    read(shown)
    assert len(shown._repr_html_()) < 10_000


def test_long_lists_are_cut_with_a_note() -> None:
    one = Difference("p", 1, 2, False, False)
    for many, what in (
        (Differences([one] * 1000), "differences"),
        (Log([LogEntry(1, 0.0, "a", "m", None, (one,))] * 1000), "commits"),
        (Edges([Edge("a@1", "b", "a.b@1")] * 1000), "edges"),
    ):
        reader = read(many)
        assert reader.count["tr"] == html.MAX_ROWS + 1
        assert reader.words[-1] == f"... {1000 - html.MAX_ROWS} more {what}, not shown"
    assert "980 more nodes" in read(FoundNodes([Found("a", (), 1)] * 1000)).words[-1]
    assert "950 more" in read(LogEntry(1, 0.0, "a", "m", None, (one,) * 1000)).words[-1]
    assert "... 3 more" in read(LogEntry(1, 0.0, "a", "m", None, (one,), left_out=3)).words[-1]
    assert "4 changes" in read(LogEntry(1, 0.0, "a", "m", None, (one,), left_out=3)).words


def test_a_log_shows_who_when_and_why() -> None:
    entry = LogEntry(
        7, 1_700_000_000.0, "noc-1", "jumbo", 3, (Difference("r.mtu", None, 9000, False, False),)
    )
    words = read(Log([entry])).words
    assert [each for each in words if each != ": "] == [
        "version",
        "time (UTC)",
        "who",
        "message",
        "changes",
        "7 (back to 3)",
        "2023-11-14 22:13:20",
        "noc-1",
        "jumbo",
        "r.mtu",
        "9000",
    ]
    assert read(entry).words == words


def test_a_difference_shows_what_is_there_on_each_side() -> None:
    def cells(created: bool, deleted: bool) -> list[str]:
        return read(Difference("p", "before", "after", created, deleted)).words[3:]

    assert cells(False, False) == ["p", "'before'", "'after'"]
    assert cells(True, False) == ["p", "'after'"]
    assert cells(False, True) == ["p", "'before'"]
    assert read(Differences()).words == ["no differences"]


def test_lists_are_lists() -> None:
    one = Difference("a", 1, 2, False, False)
    made = requests.as_differences([[["a"], [1], [2]]])
    assert made == [one] and [one] == made and isinstance(made, list) and type(made) is Differences
    assert pickle.loads(pickle.dumps(made)) == made
    assert type(requests.as_log([])) is Log and requests.as_log([]) == []
    assert type(requests.as_found([])) is FoundNodes and requests.as_found([]) == []


def test_edges_are_named_by_path_and_version() -> None:
    reply = [[[["r"], 3, "eth0.100", 1], [["r", "eth0.100"], 1, "mtu", 0]], None]
    assert requests.as_edges(reply) == [
        ("r@3", "eth0.100", 'r."eth0.100"@1'),
        ('r."eth0.100"@1', "mtu", 'r."eth0.100".mtu@0'),
    ]
    for broken in (None, [], [[[["r"], "x", "a", 1]]], [[1]]):
        with pytest.raises(Exception, match="the node answered"):
            requests.as_edges(broken)
