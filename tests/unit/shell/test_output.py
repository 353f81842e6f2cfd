from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tega_zmq.runtime import yamlio
from tega_zmq.shell import output
from tega_zmq.shell.output import Paint, Result, plain

COLOUR = Paint(True)


def without_colour(text: str) -> str:
    for code in ("1", "2", "31", "32", "33", "34", "36", "0"):
        text = text.replace(f"\x1b[{code}m", "")
    return text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "terminal", "expected"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
    ],
)
def test_colours_only_where_they_are_wanted(environ: dict[str, str], terminal: bool, expected: bool) -> None:
    assert output.want_colour(Terminal() if terminal else io.StringIO(), environ) is expected


def test_paint() -> None:
    assert plain("x", "red") == "x"
    assert COLOUR("x", "bold", "red") == "\x1b[1;31mx\x1b[0m"
    assert COLOUR("", "red") == ""


def test_safe() -> None:
    assert output.safe("a\tb\nc\x1b[31m\x9b\u202e") == "a\tb\nc\\x1b[31m\\x9b\\u202e"
    assert output.safe("a\tb\n", lines=False) == r"a\x09b\x0a"
    assert output.safe("\r") == r"\x0d"
    assert output.safe("Grüße, 世界 🎉") == "Grüße, 世界 🎉"


@pytest.mark.parametrize(
    ("encoding", "narrow"),
    [("utf-8", False), ("ascii", True), ("latin-1", True), ("cp1252", True), ("gb18030", False)],
)
def test_what_standard_output_cannot_say_is_escaped_within_the_format(
    monkeypatch: pytest.MonkeyPatch, encoding: str, narrow: bool
) -> None:
    value = {"größe": "世界 🎉", "zeilen": "eins\nü\n", "list": ["\xe9", "\x1b"], "c": "ASCII"}
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", out)
    assert output.is_narrow() is narrow
    for text, read in (
        (output.to_yaml(value), yamlio.load),
        (output.to_json(value, indent=True), json.loads),
    ):
        written = text.encode(encoding, "backslashreplace")
        assert text.isascii() is narrow
        assert read(written.decode(encoding) + "\n") == value
    assert output.flow("é") == ('"\\u00e9"' if narrow else '"é"')


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(max_examples=150)
def test_json_is_read_back_and_safe_for_a_terminal(value: Any) -> None:
    for indent in (False, True):
        text = output.to_json(value, indent=indent)
        assert json.loads(text) == value
        assert output.safe(text) == text
    assert "\n" not in output.to_json(value)


@given(VALUES)
@example("0\n")
@example("a\n\n")
@settings(max_examples=150)
def test_colours_change_nothing_but_colours(value: Any) -> None:
    text = output.to_yaml(value)
    assert yamlio.load(text + "\n") == value
    assert without_colour(output.to_yaml(value, COLOUR)) == text


def test_yaml_in_colour() -> None:
    shown = output.to_yaml({"a b": {"c": 1, "d": True, "e": "x", "f": [], "g": [1.5, None]}}, COLOUR)
    assert shown.split("\n") == [
        "\x1b[36ma b\x1b[0m:",
        "  \x1b[36mc\x1b[0m: \x1b[33m1\x1b[0m",
        "  \x1b[36md\x1b[0m: \x1b[34mtrue\x1b[0m",
        "  \x1b[36me\x1b[0m: \x1b[32mx\x1b[0m",
        "  \x1b[36mf\x1b[0m: []",
        "  \x1b[36mg\x1b[0m:",
        "  - \x1b[33m1.5\x1b[0m",
        "  - \x1b[34mnull\x1b[0m",
    ]


@given(VALUES)
@settings(max_examples=150)
def test_a_flow_is_one_line_that_yaml_reads(value: Any) -> None:
    text = output.flow(value)
    assert "\n" not in text
    assert yamlio.load(text) == value


def test_a_long_flow_is_cut() -> None:
    assert output.flow("x" * 50, 10) == "x" * 9 + "…"
    assert output.flow("x" * 10, 10) == "x" * 10


@pytest.mark.parametrize("text", ["yes", "No", "null", "true", "1", "", " a", "a ", "a: b", "0x1"])
def test_text_that_could_be_taken_for_something_else_is_quoted(text: str) -> None:
    assert output.flow(text) == json.dumps(text)


def test_table() -> None:
    shown = output.table([("a", 1, None), ("long", [1, "x"], "n\nl\x1b")], ("name", "n", ""), plain)
    assert shown == 'name  n\na     1         -\nlong  [1, "x"]  n\\x0al\\x1b'
    assert output.table([], ("a", "b")) == "a  b"


def test_leaves() -> None:
    assert list(output.leaves("a", {"b": {}, "c.d": {"e": [1]}, "f": 1})) == [
        ("a.b", {}),
        ('a."c.d".e', [1]),
        ("a.f", 1),
    ]
    assert list(output.leaves("", {"b": 1})) == [("b", 1)]
    assert list(output.leaves("a", 5)) == [("a", 5)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-"), (0.04, "0.0 s"), (9.9, "9.9 s"), (10, "10 s"), (119, "119 s"), (120, "2 min"),
     (7200, "2 h"), (200_000, "2 d")],
)  # fmt: skip
def test_age(seconds: float | None, expected: str) -> None:
    assert output.age(seconds) == expected


def test_when() -> None:
    assert output.when(0).startswith(("1970-01-01", "1969-12-31"))
    assert output.when(1e300) == "1e+300 s"


def test_render() -> None:
    def show(result: Result, as_json: bool = False) -> str:
        return output.render(result, as_json=as_json, paint=plain)

    assert show(Result({"a": 1})) == "a: 1"
    assert show(Result({"a": 1}, "done")) == "done"
    assert show(Result({"a": 1}, lambda paint: paint("x", "red"))) == "x"
    assert show(Result({"a": (1, 2)}, "done"), True) == '{"a": [1, 2]}'
    assert show(Result(None, "")) == ""
    odd = [1.5, float("nan"), {"a": (float("-inf"),)}, b"x"]  # of a node of another version
    assert show(Result(odd), True) == """[1.5, "nan", {"a": ["-inf"]}, "b'x'"]"""


def test_what_is_shown_has_the_order_of_its_keys_and_no_other() -> None:
    one = {"b": {"y": 1, "x": [{"d": 1, "c": 2}]}, "a": 2}
    other = {"a": 2, "b": {"x": [{"c": 2, "d": 1}], "y": 1}}
    assert output.to_json(one) == output.to_json(other) == '{"a": 2, "b": {"x": [{"c": 2, "d": 1}], "y": 1}}'
    assert output.to_yaml(one) == output.to_yaml(other) and output.flow(one) == output.flow(other)
    assert list(output.leaves("r", one)) == list(output.leaves("r", other))
    assert [path for path, _ in output.leaves("r", one)] == ["r.a", "r.b.x", "r.b.y"]
