"""Paths: text and back, and what is no path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq.errors import InvalidPath
from tega_zmq.paths import MAX_DEPTH, MAX_OID, check, check_oid, format_oid, format_path, parse

OIDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_OID).filter(lambda oid: oid[0] != "_")


@given(st.lists(OIDS, min_size=1, max_size=8).map(tuple))
def test_text_and_back(path: tuple[str, ...]) -> None:
    assert parse(format_path(path)) == path
    assert check(list(path)) == path


@given(st.text(max_size=60))
def test_any_text_is_a_path_or_an_error(text: str) -> None:
    try:
        path = parse(text)
    except InvalidPath as error:
        assert error.message
    else:
        assert parse(format_path(path)) == path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("inventory.pi1.mtu", ("inventory", "pi1", "mtu")),
        ('net."eth0.100".mtu', ("net", "eth0.100", "mtu")),
        (r'a."b\"c\\d"', ("a", 'b"c\\d')),
        ('"a"."b"', ("a", "b")),
        ("ä.日本", ("ä", "日本")),
        ("a_b.c_", ("a_b", "c_")),
    ],
)
def test_parse(text: str, path: tuple[str, ...]) -> None:
    assert parse(text) == path


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty path"),
        (".", "empty oid at column 1"),
        ("a..b", "empty oid at column 3"),
        ("a.", "empty oid at column 3"),
        ("a b", "expected a dot at column 2"),
        ("a.@b", "'@' at column 3 must stand in quotes"),
        ('a."b', "the quote at column 3 is not closed"),
        ('"a"b', "expected a dot at column 4"),
        ('a."b\\x"', "not closed"),
        ('""', "must not be empty"),
        ("_x", "reserved"),
        ("a._x", "reserved"),
        ('a."_x"', "reserved"),
        ("a" * (MAX_OID + 1), "256 characters"),
        (".".join("a" * (MAX_DEPTH + 1)), "65 oids"),
    ],
)
def test_parse_says_what_is_wrong(text: str, what: str) -> None:
    with pytest.raises(InvalidPath, match=what) as info:
        parse(text)
    assert info.value.path is not None


def test_limits_are_allowed() -> None:
    assert len(parse("a" * MAX_OID)[0]) == MAX_OID
    assert len(parse(".".join("a" * MAX_DEPTH))) == MAX_DEPTH


@pytest.mark.parametrize(
    "path", [5, None, "a.b", (), [], ("a", 1), ("a", None), ("a", ["b"]), ("a", b"b"), ("\ud800",), ("a", "")]
)
def test_check_refuses(path: Any) -> None:
    with pytest.raises(InvalidPath):
        check(path)


@pytest.mark.parametrize("text", [5, None, b"a", ("a",)])
def test_only_text_is_parsed(text: Any) -> None:
    with pytest.raises((InvalidPath, TypeError)):
        parse(text)


def test_check_oid_names_the_type() -> None:
    with pytest.raises(InvalidPath, match="not int"):
        check_oid(1, "a.b")
    assert check_oid("ä", "ä") == "ä"


@pytest.mark.parametrize(("oid", "text"), [("a", "a"), ("a.b", '"a.b"'), ("a@1", '"a@1"'), ('"', r'"\""')])
def test_format_oid(oid: str, text: str) -> None:
    assert format_oid(oid) == text
