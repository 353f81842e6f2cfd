"""Documents: what is read as what, what is refused, and that what is written reads back as the same."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tega_zmq.errors import InvalidValue
from tega_zmq.runtime import yamlio

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
tricky = st.sampled_from(
    [
        "off",
        "on",
        "yes",
        "No",
        "y",
        "null",
        "~",
        "",
        "true",
        "False",
        "0777",
        "0o17",
        "0x1f",
        "1e3",
        "1_0",
        "22:22",
        "1:30:00",
        "2020-01-01",
        "2020-01-01T10:00:00Z",
        ".inf",
        ".nan",
        "-",
        "- a",
        "a: b",
        "=",
        "<<",
        "#",
        "a #b",
        "@x",
        "%x",
        "`",
        "!x",
        "&x",
        "*x",
        "'",
        '"',
        "\n",
        "a\n",
        " a\n b",
        "a\n\n",
        "\ta",
        "a ",
        "...",
        "---",
        "...\n",
        "a\n...\nb",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x00",
        "\x7f",
        "1.",
        ".5",
        "+1",
        "-0",
        "00",
        "1.0e+3",
        "[",
        "{",
        "]",
        ",",
        "?",
        ":",
        "? a",
        "a:",
        ":a",
        "a\r\nb",
        "😀",
        "a\n b\n",
        "|",
        ">",
        "a \nb",
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | tricky
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | tricky, inner, max_size=3),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal in value and in type: 1 is neither True nor 1.0, 0.0 is not -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return math.copysign(1, a) == math.copysign(1, b) and a == b
    return bool(a == b)


@settings(max_examples=300, deadline=None)
@given(values)
@example("...\n")
@example("a\n...\n")
@example(["...\n"])
def test_what_is_written_reads_back(value: Any) -> None:
    assert same(yamlio.load(yamlio.dump(value)), value)
    assert same(yamlio.load_json(yamlio.dump_json(value)), value)


@settings(max_examples=100, deadline=None)
@given(values)
def test_the_parser_without_c_reads_the_same(value: Any) -> None:
    text = yamlio.dump(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yamlio, "_Loader", yaml.SafeLoader)
        assert same(yamlio.load(text), value)


@settings(max_examples=100, deadline=None)
@given(tricky | texts)
def test_older_readers_see_text_as_text_too(text: str) -> None:
    assert same(yaml.safe_load(yamlio.dump([text])), [text])


@settings(max_examples=200, deadline=None)
@given(st.text("ab:{}[]&*!|>-?, \n\t'\"#%@~019.", max_size=40) | st.binary(max_size=30))
def test_any_input_is_a_value_or_an_error_that_names_the_source(text: str | bytes) -> None:
    try:
        yamlio.load(text, "here")
    except InvalidValue as error:
        assert error.message.startswith("here:")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only words\n", None),
        ("a:\n", {"a": None}),
        ("[on, off, yes, no, y, n]", ["on", "off", "yes", "no", "y", "n"]),
        ("[true, False, TRUE]", [True, False, True]),
        ("[12, -3, +4, 0x1f, 0o17, 0]", [12, -3, 4, 31, 15, 0]),
        ("[0777, 1_000, 22:22, 00, 0b1]", ["0777", "1_000", "22:22", "00", "0b1"]),
        ("[2020-01-01, 2020-01-01T00:00:00Z]", ["2020-01-01", "2020-01-01T00:00:00Z"]),
        ("[1.5, 1e3, .5, 1., -1.5e-3]", [1.5, 1000.0, 0.5, 1.0, -0.0015]),
        ("[1.2.3, 10.0.0.1, 01.5, -, 1e]", ["1.2.3", "10.0.0.1", "01.5", "-", "1e"]),
        ("['12', \"true\"]", ["12", "true"]),
        ("100: a\non: b\n~: c\n", {"100": "a", "on": "b", "~": "c"}),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("a: &x {b: [1]}\nc: *x\n", {"a": {"b": [1]}, "c": {"b": [1]}}),
        ("[&x 1, *x]", [1, 1]),
        (b"\xef\xbb\xbfa: \xc3\xbc", {"a": "ü"}),
        ("- - - a\n    - b\n- {c: {d: []}, e: f}", [[["a", "b"]], {"c": {"d": []}, "e": "f"}]),
    ],
)
def test_read(text: str | bytes, value: Any) -> None:
    assert same(yamlio.load(text), value)


def test_numbers_that_a_node_refuses_are_still_read() -> None:
    infinite, negative, nan = yamlio.load("[.inf, -.INF, .NaN]")
    assert (infinite, negative) == (math.inf, -math.inf)
    assert math.isnan(nan)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 2,\n c: 3}", "f:3: the key 'c' stands twice in one map"),
        ("a: 1\n'a': 2", "f:2: the key 'a' stands twice in one map"),
        ("a: !!python/object/apply:os.system [x]", "f:1: the tag"),
        ("a: !!str 1", "f:1: the tag"),
        ("a: ! 1", "f:1: the tag"),
        ("\n!x {}", "f:2: the tag !x"),
        ("a: 1\n---\nb: 2", "f:2: a second document"),
        ("? [a]\n: 1", "f:1: a key must be text"),
        ("a: &x b\n*x : 1", "f:2: a key must be text, not an alias"),
        ("\n- *x", "f:2: the alias \\*x repeats nothing"),
        ("&x [*x]", "f:1: the alias \\*x stands within"),
        ("a: [1", "f:2: no YAML"),
        ("a: b: c", "f:1: no YAML"),
        ("a: \x01", "f: no YAML"),
        ("9" * 5000, "f:1: an integer of 5000 digits"),
        ("[" * 129, "f:1: more than 128 containers"),
        ("[" * 100_000, "f:1: more than 128 containers"),
        ("a: 1\nb: \ud800", "f:2: a lone surrogate"),
        (b"a: 1\n\n\xff", "f:3: not UTF-8 at byte 6"),
        ("a: 1".encode("utf-16"), "f:1: not UTF-8"),
    ],
)
def test_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        yamlio.load(text, "f")


def test_nesting_up_to_the_limit() -> None:
    text = "[" * yamlio.MAX_NESTING + "]" * yamlio.MAX_NESTING
    assert yamlio.dump_json(yamlio.load(text)).count("[") == yamlio.MAX_NESTING


def test_aliases_are_bounded() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    with pytest.raises(InvalidValue, match="aliases repeat more than"):
        yamlio.load(bomb)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "f: the key 'a' stands twice"),
        ('{"a": 1,\n "b" 2}', "f:2: no JSON"),
        ("[" * 100_000, "f: too many containers"),
        ("9" * 5000, "f: "),
        (b"\xff", "f:1: not UTF-8"),
    ],
)
def test_json_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        yamlio.load_json(text, "f")


def test_lines_of_places() -> None:
    value, lines = yamlio.load_with_lines("a:\n  b: 1\n  c:\n    - x\n    - y: 2\nd: 3\n", "f")
    assert value == {"a": {"b": 1, "c": ["x", {"y": 2}]}, "d": 3}
    assert lines[("a", "b")] == 2
    assert lines[("a", "c", 1, "y")] == 5
    assert lines[("d",)] == 6
    assert lines[("a",)] == 1
    assert lines[("a", "c")] == 3


def test_files_by_their_ending(tmp_path: Path) -> None:
    value = {"eth0.100": {"mtu": 1500}, "list": [1, None, "off"]}
    for name in ("x.yaml", "x.yml", "x.json", "noending"):
        file = tmp_path / name
        yamlio.save_file(file, value)
        assert yamlio.load_file(file) == value
    assert json.loads((tmp_path / "x.json").read_text()) == value
    assert sorted(file.name for file in tmp_path.iterdir()) == ["noending", "x.json", "x.yaml", "x.yml"]


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("old")
    file.chmod(0o640)
    yamlio.save_file(file, {"a": 1})
    assert file.stat().st_mode & 0o777 == 0o640
    assert file.read_text() == "a: 1\n"


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_text)
        yamlio.save_file(pipe, {"a": 1})
        assert read.result() == "a: 1\n"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("folder/there.json")
    for value in ({"a": 1}, {"a": 2}):
        yamlio.save_file(link, value)
        assert link.is_symlink()
        assert yamlio.load_file(tmp_path / "folder" / "there.json") == value


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        yamlio.save_file(tmp_path / "folder", {"a": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(OSError, match="No such file"):
        yamlio.save_file(tmp_path / "absent" / "x.yaml", 1)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"absent\.yaml: cannot be read: No such file"):
        yamlio.load_file(tmp_path / "absent.yaml")
    with pytest.raises(InvalidValue, match="cannot be read"):
        yamlio.load_file(tmp_path)
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(InvalidValue, match="longer than 10 bytes"):
        yamlio.read_file(tmp_path / "big", limit=10)


def test_what_is_written_is_readable() -> None:
    value = {"b": "off", "a": ["x", 1], "text": "first\nsecond\n", "e": {}, "n": None, "same": [{"k": 1}] * 2}
    assert yamlio.dump(value) == (
        "a:\n- x\n- 1\nb: 'off'\ne: {}\nn: null\nsame:\n- k: 1\n- k: 1\ntext: |\n  first\n  second\n"
    )
    assert yamlio.dump("plain") == "plain\n"
    assert (
        yamlio.dump(["10.20.0.1/24", "1.2.3", "0o7x", "3 of 4"])
        == "- 10.20.0.1/24\n- 1.2.3\n- 0o7x\n- 3 of 4\n"
    )
    assert yamlio.dump(5) == "5\n"
