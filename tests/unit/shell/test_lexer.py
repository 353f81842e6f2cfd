from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tega_zmq.paths import format_path, parse
from tega_zmq.shell.lexer import LineError, split, split_open, unquote


def words(line: str) -> list[str]:
    return [word.text for word in split(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("   ", []),
        ("get a.b", ["get", "a.b"]),
        (
            "put a {mtu: 1500, x: [1, 2]} -m 'two words'",
            ["put", "a", "{mtu: 1500, x: [1, 2]}", "-m", "'two words'"],
        ),
        ('put a {n: "} x", m: 1} y', ["put", "a", '{n: "} x", m: 1}', "y"]),
        ('get net."eth0.100 x".mtu', ["get", 'net."eth0.100 x".mtu']),
        ("put a it's me", ["put", "a", "it's", "me"]),
        ("put a 'it''s me'", ["put", "a", "'it''s me'"]),
        (r'put a "say \"hi you\""', ["put", "a", r'"say \"hi you\""']),
        ("put a x > y | z; w", ["put", "a", "x", ">", "y", "|", "z;", "w"]),
        (r"getr a\.[b c]+", ["getr", r"a\.[b", "c]+"]),
        ("x --message='a b'", ["x", "--message='a b'"]),
        ("a (b c) d", ["a", "(b c)", "d"]),
        ("a ] d", ["a", "]", "d"]),
    ],
)
def test_splits(line: str, expected: list[str]) -> None:
    assert words(line) == expected


@pytest.mark.parametrize(
    ("line", "column"),
    [("put a {b: 1", 7), ("put a 'b", 7), ('get a."b', 7), ("a [1, {2]", 7), ('x "a\\', 3)],
)
def test_says_what_is_not_closed(line: str, column: int) -> None:
    with pytest.raises(LineError, match=f"column {column} is not closed"):
        split(line)


def test_words_know_where_they_begin() -> None:
    assert [(word.text, word.start) for word in split("  ab  c")] == [("ab", 2), ("c", 6)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", [("", 0)]),
        ("get ", [("get", 0), ("", 4)]),
        ("get a.b", [("get", 0), ("a.b", 4)]),
        ('get a."b c', [("get", 0), ('a."b c', 4)]),
        ("put a {b: 1, ", [("put", 0), ("a", 4), ("{b: 1, ", 6)]),
    ],
)
def test_open_lines_end_with_the_word_at_the_cursor(line: str, expected: list[tuple[str, int]]) -> None:
    assert [(word.text, word.start) for word in split_open(line)] == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("x", "x"),
        ('"a b"', "a b"),
        ("'it''s'", "it's"),
        (r'"a\"b\\c\d"', r'a"b\c\d'),
        ("'a' b 'c'", "'a' b 'c'"),
        ('"', '"'),
        ("'a\"", "'a\""),
        ("", ""),
    ],
)
def test_unquote(word: str, expected: str) -> None:
    assert unquote(word) == expected


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_any_line_is_cut_or_refused(line: str) -> None:
    try:
        found = split(line)
    except LineError:
        assert split_open(line)
        return
    # Nothing but white space is lost, and the words stand where they say.
    assert "".join(word.text for word in found).replace(" ", "") == "".join(
        char for char in "".join(word.text for word in found) if char != " "
    )
    for word in found:
        assert line[word.start : word.start + len(word.text)] == word.text
    covered = {at for word in found for at in range(word.start, word.start + len(word.text))}
    assert all(line[at].isspace() for at in range(len(line)) if at not in covered)


OIDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda oid: oid[0] != "_"
)


@given(st.lists(OIDS, min_size=1, max_size=4))
@settings(max_examples=200)
def test_a_path_is_one_word(oids: list[str]) -> None:
    text = format_path(tuple(oids))
    assume(text[0] not in "{[('" and "='" not in text)  # such a root must be quoted by who types it
    assert words(f"get {text} x") == ["get", text, "x"]
    assert parse(words(f"get {text}")[1]) == tuple(oids)
