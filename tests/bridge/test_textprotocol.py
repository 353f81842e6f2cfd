"""The text protocol as values: what is said is understood or refused, and nothing else happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_broker.bridge import textprotocol as text
from tega_broker.bridge.textprotocol import Publish, Response, Session, Subscribe, TextError, Unsubscribe
from tega_zmq.client.results import Change


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("SESSION pi1 local", Session("pi1", "local")),
        ("SESSION pi1", Session("pi1", "local")),
        ("SESSION 5f2c_-A global", Session("5f2c_-A", "global")),
        ("SUBSCRIBE a.b local False", Subscribe("a.b", "local", False)),
        ("SUBSCRIBE a.b global", Subscribe("a.b", "global", False)),
        (r"SUBSCRIBE a\.(b c).* local True", Subscribe(r"a\.(b c).*", "local", True)),
        ('SUBSCRIBE net."eth0.100" local False\r\n', Subscribe('net."eth0.100"', "local", False)),
        ("UNSUBSCRIBE a.b False", Unsubscribe("a.b", False)),
        ("UNSUBSCRIBE a.b", Unsubscribe("a.b", False)),
        ("UNSUBSCRIBE a.* True", Unsubscribe("a.*", True)),
        ("UNSUBSCRIBE", Unsubscribe("", False)),
        ('PUBLISH ch\n{"message": {"a": [1]}}', Publish("ch", {"a": [1]})),
        ('PUBLISH ch\r\n{\n"message": null\n}', Publish("ch", None)),
        ('RESPONSE 7 RPC noc\n{"result": 0}', Response(7, 0, "")),
        ('RESPONSE 7 RPC noc\n{"result": null}', Response(7, None, "")),
        ('RESPONSE 7 RPC\n{"error": "ValueError"}', Response(7, None, "ValueError")),
        ("RESPONSE 7 RPC noc\n{}", Response(7, None, "the handler gave no result")),
    ],
)
def test_what_is_said(said: str, heard: Any) -> None:
    assert text.parse(said) == heard


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "no command"),
        ("HELLO", "no command"),
        ("session pi1 local", "no command"),
        ("SESSION", "1 to 64"),
        ("SESSION pi/1 local", "1 to 64"),
        ("SESSION pi1 sync", "no scope"),
        ("SUBSCRIBE", "expected SUBSCRIBE"),
        ("SUBSCRIBE a", "expected SUBSCRIBE"),
        ("SUBSCRIBE a.b everywhere False", "no scope"),
        ("PUBLISH", "channel"),
        ("PUBLISH ch", "empty"),
        ("PUBLISH ch\n[]", "an object"),
        ('PUBLISH ch\n{"message": 1, "message": 2}', "twice"),
        ('PUBLISH ch\n{"message": NaN}', "no number"),
        ("PUBLISH ch\n" + "[" * 100_000, "within one another"),
        ("RESPONSE x RPC noc\n{}", "expected RESPONSE"),
        ("RESPONSE 1 SYNC noc\n{}", "expected RESPONSE"),
        ("RESPONSE 9999999999999999 RPC noc\n{}", "expected RESPONSE"),
        ("SUBSCRIBE " + "x" * 3000 + " local False", "at most 2048"),
    ],
)
def test_what_is_refused(said: str, why: str) -> None:
    with pytest.raises(TextError, match=why):
        text.parse(said)


WORDS = st.sampled_from(
    "SESSION SUBSCRIBE UNSUBSCRIBE PUBLISH RESPONSE local global True False RPC a.b 1 { } \ud800 \0".split(
        " "
    )
) | st.sampled_from(["", " ", "\n", "\r\n", '{"message": 1}', '{"result": 1}'])


@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join), st.lists(WORDS).map("".join)))
def test_whatever_is_said(said: str) -> None:
    try:
        heard = text.parse(said)
    except TextError as error:
        assert str(error) and len(str(error)) < 1000
    else:
        assert isinstance(heard, (Session, Subscribe, Unsubscribe, Publish, Response))


NAMES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), min_size=1, max_size=50)


@given(NAMES, st.sampled_from(["local", "global"]), st.booleans())
def test_any_path_comes_through(path: str, scope: str, regex: bool) -> None:
    assert text.parse(f"SUBSCRIBE {path} {scope} {regex}") == Subscribe(path, scope, regex)
    assert text.parse(f"UNSUBSCRIBE {path} {regex}") == Unsubscribe(path, regex)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_values_are_one_line_of_json(value: Any) -> None:
    """The drivers of the first tega take the second line, and no more."""
    for frame in (text.message("ch", "pi1", value), text.request(1, "noc", "a.b", (value,), {"k": value})):
        lines = frame.decode().split("\n")
        assert len(lines) == 2
        json.loads(lines[1])
    assert text.parse("PUBLISH ch\n" + json.dumps({"message": value})) == Publish("ch", value)


def change(**fields: Any) -> Change:
    made = dict.fromkeys(Change._fields) | {
        "path": "a.b",
        "tega_id": "noc",
        "created": False,
        "deleted": False,
    }
    return Change(**(made | fields))


def test_entries() -> None:
    assert text.entry(change(old=1, new=2)) == {
        "ope": "PUT",
        "path": "a.b",
        "instance": 2,
        "tega_id": "noc",
    }
    assert text.entry(change(old=1, deleted=True))["ope"] == "DELETE"
    assert text.entry(change(old=1, deleted=True))["instance"] == 1
    rolled = text.entry(change(old=1, new=2, backto=0))
    assert (rolled["ope"], rolled["backto"], rolled["instance"]) == ("ROLLBACK", 0, 2)
