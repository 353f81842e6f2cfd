from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.errors import InvalidPath, InvalidValue, TegaError
from tega_zmq.shell.literals import MAX_TEXT, looks_like_call, parse_call


@pytest.mark.parametrize(
    ("text", "path", "args", "kwargs"),
    [
        ("a.b.x()", ("a", "b", "x"), (), {}),
        ("a.b.x(1, name='Alice')", ("a", "b", "x"), (1,), {"name": "Alice"}),
        ('net."eth0.100".up(True, None)', ("net", "eth0.100", "up"), (True, None), {}),
        ('"a(b"(-1, +2.5)', ("a(b",), (-1, 2.5), {}),
        ("x([1, (2, 3)], {'k': [None]},)", ("x",), ([1, [2, 3]], {"k": [None]}), {}),
        ("x('a' 'b', \"it's\")", ("x",), ("ab", "it's"), {}),
        ("  x( 1 )  ", ("x",), (1,), {}),
    ],
)
def test_reads_calls(text: str, path: Any, args: Any, kwargs: Any) -> None:
    assert parse_call(text) == (path, args, kwargs)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x(name)", "name is no literal"),
        ("x(1+1)", "no literal"),
        ("x(__import__('os').system('true'))", "no literal"),
        ("x(f'{1}')", "no literal"),
        ("x(lambda: 1)", "no literal"),
        ("x(*[1])", r"\* cannot"),
        ("x(**{'a': 1})", r"\*\* cannot"),
        ("x(1", "cannot read"),
        ("x(1))", "cannot read"),
        ("x(1)(2)", "one call"),
        ("x(1).y", "one call"),
        ("x(1) + 2", "one call"),
        ("x(1) y", "cannot read"),
        ("x(a=1, a=2)", "given twice"),
        ("x(b'a')", "bytes cannot be sent"),
        ("x({1, 2})", "set cannot be sent"),
        ("x(1j)", "complex cannot be sent"),
        ("x(...)", "cannot be sent"),
        ("x({1: 2})", "must be text"),
        ("x([{'a': {1: 2}}])", "must be text"),
        ("x({[]: 1})", "no literal"),
        ("x", "parentheses"),
        ("x('\x00')", "cannot read"),
        ("x(" + "[" * 500 + "]" * 500 + ")", "cannot read|no literal"),
        ("x(" + "-" * 20_000 + "1)", "cannot read|no literal"),
        ("x(a" + ".b" * 20_000 + ")", "cannot read|no literal"),
        ("x(" + "9" * 5000 + ")", "cannot read"),
        ("x(" + " " * MAX_TEXT + ")", "at most"),
    ],
)
def test_refuses_what_is_no_literal(text: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        parse_call(text)


@pytest.mark.parametrize("text", ["a..b(1)", "_x(1)", "(1)", "a b(1)"])
def test_refuses_what_is_no_path(text: str) -> None:
    with pytest.raises((InvalidPath, InvalidValue)):
        parse_call(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b(1)", True),
        ('"a b"(1)', True),
        ("put a (b)", False),
        ("get a", False),
        ("(1)", False),
        ("", False),
        (r'"a\"(b', False),
    ],
)
def test_knows_a_call_when_it_sees_one(text: str, expected: bool) -> None:
    assert looks_like_call(text) is expected


def test_an_odd_backslash_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_call(r"x('\d')").args == (r"\d",)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(PLAIN, max_size=3),
    st.dictionaries(st.from_regex(r"[a-z]{1,5}x", fullmatch=True), PLAIN, max_size=2),
)
@settings(max_examples=150)
def test_what_repr_writes_is_read_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    inside = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    assert parse_call(f"a.b({inside})") == (("a", "b"), tuple(args), kwargs)


@given(st.text(max_size=30))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_call(text)
        parse_call(f"x({text})")
    except TegaError:
        pass
