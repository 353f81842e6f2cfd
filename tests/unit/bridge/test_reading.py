"""Targets, queries and bodies: what is read, and that no input does anything but be read or be refused."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_broker.bridge import reading
from tega_broker.bridge.answers import Refusal
from tega_zmq.errors import InvalidPath, InvalidValue, TegaError

OIDS = st.text(min_size=1, max_size=20).filter(lambda oid: oid[0] != "_" and oid.isprintable())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(OIDS, min_size=1, max_size=5), st.booleans())
def test_a_path_of_oids_survives_its_url(oids: list[str], slash: bool) -> None:
    path = "/" + "/".join(quote(oid, safe="") for oid in oids) + "/" * slash
    assert reading.oids(path) == tuple(oids)


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=5))
def test_a_query_survives_its_encoding(query: dict[str, str]) -> None:
    assert reading.parse_query(urlencode(query)) == query


@given(st.text(max_size=60))
def test_any_target_is_read_or_refused(target: str) -> None:
    for read in (
        lambda: reading.oids(reading.split_target(target)[0]),
        lambda: reading.regex_of(reading.split_target(target)[0]),
        lambda: reading.parse_query(reading.split_target(target)[1]),
    ):
        try:
            read()
        except (Refusal, TegaError) as error:
            assert str(error)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a/b", "/a/b", ""),
        ("/a/b?x=1?y", "/a/b", "x=1?y"),
        ("/a?x=1#f", "/a", "x=1"),
        ("http://host:1/a/b?x", "/a/b", "x"),
        ("http://host", "/", ""),
        ("/http://x/y", "/http://x/y", ""),
        ("*", "*", ""),
    ],
)
def test_a_target_is_parted(target: str, path: str, query: str) -> None:
    assert reading.split_target(target) == (path, query)


def test_what_is_no_path_or_query() -> None:
    for path in ("/", "//a", "/a//b", "/_a", "/%ff"):
        with pytest.raises((Refusal, InvalidPath)):
            reading.oids(path)
    with pytest.raises(Refusal, match="at most 32"):
        reading.parse_query("&".join("a=1" for _ in range(33)))
    assert reading.parse_query("a=1&a=2&&b") == {"a": "2", "b": ""}


def test_flags() -> None:
    for text in ("True", "true", "TRUE", "1"):
        assert reading.flag({"x": text}, "x")
    for text in ("False", "false", "0"):
        assert not reading.flag({"x": text}, "x")
    assert not reading.flag({}, "x")
    for text in ("", "yes", "2", "None", " true"):
        with pytest.raises(Refusal):
            reading.flag({"x": text}, "x")


@given(JSON)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    found = reading.parse_json(json.dumps(value).encode())
    assert json.dumps(found) == json.dumps(value)
    found = reading.parse_json(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
    assert json.dumps(found) == json.dumps(value)


@given(st.binary(max_size=60) | st.text('[]{}":,0123456789eE+-.ntrufalse \\u', max_size=40).map(str.encode))
def test_any_body_is_read_as_json_has_it_or_refused(body: bytes) -> None:
    try:
        found = reading.parse_json(body)
    except (Refusal, InvalidValue) as error:
        assert str(error)
    else:
        assert json.dumps(json.loads(body)) == json.dumps(found)


def test_large_bodies_are_parsed_aside() -> None:
    def where(_: Any) -> int:
        return threading.get_ident()

    async def story() -> None:
        here = threading.get_ident()
        assert await reading.parse_body(b"[1]", where) == here
        large = b"[" + b"1," * 40_000 + b"1]"
        assert await reading.parse_body(large, where) != here
        assert len(await reading.parse_body(large)) == 40_001
        with pytest.raises(Refusal):
            await reading.parse_body(large + b"x")

    asyncio.run(story())
