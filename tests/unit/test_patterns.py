"""Regexes of users: what they match, and which are refused because they could run for ever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.errors import InvalidValue
from tega_zmq.patterns import MAX_REGEX, MAX_TEXT, compile_channel, compile_oids, compile_search


def test_oid_by_oid_each_from_its_start() -> None:
    pattern = compile_oids(r"config-(.*)\.net\.(eth|wlan)(\d+)")
    assert len(pattern.oids) == 3
    assert pattern.match(("config-pi1", "network", "eth0.100")) == [["pi1"], ["eth", "0"]]
    assert pattern.match(["config-pi1", "net", "lo"]) is None
    assert pattern.match(("config-pi1", "net")) is None
    assert pattern.match(("config-pi1", "net", "eth0", "mtu")) is None
    assert pattern.match_prefix(("config-pi1", "net", "eth0", "mtu")) == [["pi1"], ["eth", "0"]]
    assert pattern.match_prefix(("config-pi1", "net")) is None
    assert pattern.match_prefix(("x", "net", "eth0")) is None


def test_groups_that_took_no_part_are_none() -> None:
    assert compile_oids(r"(a)|(b)").match(("b",)) == [[None, "b"]]
    assert compile_oids(r"a\.b").match(("a", "b")) == []


def test_step_walks_oid_by_oid() -> None:
    pattern = compile_oids(r"a(.)\.b")
    assert pattern.step(0, "ax") == ["x"]
    assert pattern.step(0, "b") is None
    assert pattern.step(1, "bb") == []


@pytest.mark.parametrize(
    ("regex", "parts"),
    [
        (r"a\.b", ["a", "b"]),
        (r"a.b", ["a.b"]),
        (r"a\\.b", [r"a\\.b"]),
        (r"a[\.]b", [r"a[\.]b"]),
        (r"[]\.]\.b", [r"[]\.]", "b"]),
        (r"[^]\.]\.b", [r"[^]\.]", "b"]),
        (r"[a]\.b", ["[a]", "b"]),
        (r"[\]\.]x", [r"[\]\.]x"]),
    ],
)
def test_where_a_regex_is_parted(regex: str, parts: list[str]) -> None:
    assert [part.pattern for part in compile_oids(regex).oids] == parts


def test_channels_match_as_a_whole() -> None:
    pattern = compile_channel(r"alerts\..*")
    assert pattern.match("alerts.disk")
    assert pattern.match("alerts.a\nb")
    assert not pattern.match("my alerts.disk")
    assert not compile_channel("a").match("ab")
    assert not compile_channel(".*").match("a" * (MAX_TEXT + 1))


@pytest.mark.parametrize(
    ("regex", "what"),
    [
        ("", "empty"),
        (r"a\.", "column 4 is empty"),
        (r"\.a", "column 1 is empty"),
        (r"ab\.(c", "column 5.*unterminated"),
        (r"(a\.b)", "column 1.*unterminated"),
        ("a**", "multiple repeat"),
        ("a{9999999999999}", "bad regex"),
        ("x" * (MAX_REGEX + 1), "257 characters"),
        (5, "a regex is text"),
    ],
)
def test_bad_regexes_are_told_apart(regex: str, what: str) -> None:
    with pytest.raises(InvalidValue, match=what):
        compile_oids(regex)


def test_bad_channels() -> None:
    for regex in ("", "(", "x" * 257, "(a+)+"):
        with pytest.raises(InvalidValue):
            compile_channel(regex)


DANGEROUS = [
    r"(a+)+$",
    r"(a*)*b",
    r"(a|a)*b",
    r"(a|b|ab)*c",
    r"([a-z]+)*\d",
    r"(\w+)+!",
    r"(\wx|ax)+!",
    r"(\Sx|ax)+!",
    r"([^b]+)+!",
    r"(.+.+)+x",
    r"(x+x+)+y",
    r"(aa?)+b",
    r"(a+b?)+c",
    r"(?:a+)+?c",
    r".*.*.*.*x",
    r".*.*[^x]*x!",
    r".*a.*b.*c$",
    r"(a?){30}a{30}",
    "a?" * 30 + "a" * 30,
    "(a|aa)" * 40 + "$",
    r"(a{1,20}){20}b",
    r"(?i:[a-z]+)+X",
    r"(?i)(a+A)+!",
    r"(ä+[^a])+!",
]


@pytest.mark.parametrize("regex", DANGEROUS)
def test_regexes_that_can_run_for_ever_are_refused(regex: str) -> None:
    with pytest.raises(InvalidValue, match="may take too long"):
        compile_oids(regex)


@pytest.mark.parametrize(
    "regex",
    ["(?i)[\x00-\U0010ffff]", "[\x00-\uffff][\x00-\uffff]", "(?i:a|([\x00-\uffff][\x00-\uffff]))"],
)
def test_ranges_that_take_long_to_compile_are_refused(regex: str) -> None:
    with pytest.raises(InvalidValue, match="too many characters"):
        compile_oids(regex)
    assert compile_oids("[\x00-\uffff]").match(("a",)) == []


@pytest.mark.parametrize(
    ("regex", "text", "least", "most"),
    [
        (r"eth\d+", "eth0", 1, 2),
        (r".*", "a" * 255, 1, 10),
        (r"(.*)a(.*)b", "a" * 8, 1, 20),
        (r"(.*)a(.*)b", "a" * 60, 50, 500),
        (r"(.*)a(.*)b", "a" * 245, 1000, 10_000),
        (r"((a)|(b))*c", "ab" * 120, 10, 100),
    ],
)
def test_what_matching_costs_goes_by_the_text(regex: str, text: str, least: int, most: int) -> None:
    assert least <= compile_oids(regex).cost(0, text) <= most
    assert least <= compile_oids(rf"x\.{regex}").cost(1, text) <= most
    for length in range(len(text)):
        assert compile_oids(regex).cost(0, text[:length]) <= compile_oids(regex).cost(0, text)


def test_searching_costs_at_least_what_matching_does() -> None:
    search = compile_search("a(.*)b")
    assert search.found("xxaxxb")
    assert not search.found("xxaxx")
    assert search.cost("a" * 200) >= compile_oids("a(.*)b").cost(0, "a" * 200)


@pytest.mark.parametrize(
    ("regex", "what"),
    [
        (r"(a)\1", "references"),
        (r"(a)?(?(1)b|c)", "references"),
        (r"(?=a)a", "lookahead"),
        (r"(?<!a)b", "look"),
    ],
)
def test_constructs_that_are_not_allowed(regex: str, what: str) -> None:
    with pytest.raises(InvalidValue, match=what):
        compile_oids(regex)


@pytest.mark.parametrize(
    ("regex", "text"),
    [
        (r".*-.*-.*", "a-b-c"),
        (r".*a.*b$", "xxayyb"),
        (r"[^-]*-[^-]*-[^-]*-[^-]*$", "a-b-c-d"),
        (r"\d+-\d+-\d+$", "1-22-333"),
        (r"(a|b)*c", "ababc"),
        (r"(foo|bar)+x", "foobarx"),
        (r"(\w+-)+\d+$", "ab-cd-12"),
        (r"(?:[a-z]+[0-9]+)+!", "a1b2!"),
        (r"(?>a+)b", "aab"),
        (r"a*+b", "aab"),
        (r"(?i)ETH\d", "eth0"),
        (r"(ab){2}c", "ababc"),
        (r"(ab){0}c", "c"),
        (r"(ab)?c", "c"),
        (r"(ab)?", "x"),
        (r"(a|)b", "b"),
        (r"\bpi\d$", "pi1"),
        (r"\D\s\W", "a !"),
        (r"(ab)*", "ababab"),
        (r"(ab)*a", "ababa"),
        (r"(?:(a|[b])x){1,3}y", "axbxy"),
        (r"(a{1,3}b){2}", "aabab"),
    ],
)
def test_regexes_of_every_day_are_accepted(regex: str, text: str) -> None:
    assert compile_oids(regex).match((text,)) is not None


PIECES = st.recursive(
    st.sampled_from(["a", "b", "-", ".", "[ab]", "[^a]", r"\w", "$"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("({0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{0,5}", "{3}", "*?", "{2,}", "{1,200}"])).map(
            "({0[0]}){0[1]}".format
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(PIECES, st.sampled_from(["", "!", "x$"]))
def test_whatever_is_accepted_comes_to_an_end(regex: str, end: str) -> None:
    # One that is exponential would not come back within the time limit of the test.
    try:
        pattern = compile_oids(regex + end)
    except InvalidValue:
        return
    for text in ("a" * 255, "ab" * 127, "a" * 254 + "-", "a-" * 127, "b" * 255, "-" * 255):
        pattern.match((text,))
