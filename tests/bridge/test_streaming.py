"""A tree that does not fit into one answer of the broker."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tega_broker.bridge import streaming
from tega_zmq.errors import Compacted
from tests.bridgekit import Site, site

BIG = "x" * 900_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Any]]:
    """A bridge, and the value of its root `big`, some 18 MB."""
    with site(tmp_path_factory.mktemp("large")) as bridge:
        value: dict[str, Any] = {"eth0.100": {"deep": {}}, "empty": {}, 'q"': [1, None], "wide": {}}
        for number in range(10):
            for at in (value["eth0.100"]["deep"], value["wide"]):
                at[f"k{number}"] = BIG
        value["wide"] |= {f"n{number}": number for number in range(500)}
        client = bridge.client()
        for oid, inner in value.items():
            if oid == "wide":
                client.put(("big", oid), {name: item for name, item in inner.items() if item != BIG})
            elif oid != "eth0.100":
                client.put(("big", oid), inner)
        for path, inner in (
            (("big", "eth0.100", "deep"), value["eth0.100"]["deep"]),
            (("big", "wide"), value["wide"]),
        ):
            for name, item in inner.items():
                if item == BIG:
                    client.put((*path, name), item)
        yield bridge, value


def test_it_comes_in_parts_and_is_whole(large: tuple[Site, Any]) -> None:
    bridge, value = large
    answer = bridge.ask("GET", "/big/")
    assert (answer.status, answer.headers["transfer-encoding"]) == (200, "chunked")
    assert answer.headers["content-type"] == "application/json" and "x-request-id" in answer.headers
    assert answer.json == value
    packed = bridge.ask("GET", "/big", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and len(packed.body) < 200_000
    assert json.loads(gzip.decompress(packed.body)) == value
    head = bridge.ask("HEAD", "/big")
    assert (head.status, head.body) == (200, b"")
    assert bridge.ask("GET", "/big/wide/n7").json == 7, "the connection goes on"


def test_handlers_are_shown_in_it(large: tuple[Site, Any]) -> None:
    bridge, value = large
    bare = bridge.ask("HEAD", "/big").headers["etag"]
    device = bridge.client("dev-1")
    device.register("big.wide.restart", lambda: 1)
    device.register("big.tools.net.up", lambda: 1)
    device.register("big.wide.n7", lambda: 1)  # where the tree has something, that is shown
    shown = bridge.ask("GET", "/big")
    assert shown.json == value | {
        "wide": value["wide"] | {"restart": "%dev-1.restart"},
        "tools": {"net": {"up": "%dev-1.up"}},
    }
    tag = shown.headers["etag"]
    assert tag != bare
    assert bridge.ask("GET", "/big", headers={"If-None-Match": tag}).status == 304
    assert bridge.ask("GET", "/big", headers={"If-None-Match": bare}).status == 200
    assert bridge.ask("GET", "/big?version=0").json.get("tools") is None
    device.close()
    assert bridge.ask("GET", "/big").json == value


def test_it_is_all_of_one_version(large: tuple[Site, Any]) -> None:
    bridge, value = large
    before = bridge.client().node("big.empty").version
    version = bridge.ask("GET", "/_roots").json["big"]
    bridge.ask("PUT", "/big/wide/n7", "changed")
    assert bridge.ask("GET", f"/big?version={version}").json == value
    assert bridge.ask("GET", "/big?version=-1").json == value
    assert bridge.ask("GET", "/big").json["wide"]["n7"] == "changed"
    bridge.ask("PUT", "/big/wide/n7", 7)
    assert bridge.ask("GET", "/big?version=99999").status == 404
    assert before <= version


def test_a_version_that_is_a_name_is_the_same_one_to_the_end(
    large: tuple[Site, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, value = large
    client = bridge.client()
    whole = streaming._object

    async def moving(*arguments: Any) -> Any:
        asked.append(arguments[3])
        async for part in whole(*arguments):
            yield part

    client.tag("big", "mark")
    now = bridge.ask("GET", "/_roots").json["big"]
    monkeypatch.setattr(streaming, "_object", moving)
    for version in ("mark", "2099-01-01T00:00:00Z", str(now)):
        asked: list[Any] = []
        assert bridge.ask("GET", f"/big?version={version}").json == value
        assert set(asked) == {now}
    client.untag("big", "mark")
    assert bridge.ask("GET", "/big?version=mark").status == 404


def test_it_has_an_entity_tag(large: tuple[Site, Any]) -> None:
    bridge, _ = large
    small, whole = bridge.ask("GET", "/big/empty"), bridge.ask("GET", "/big")
    epoch = small.headers["etag"].strip('"').partition("-")[0]
    version = bridge.ask("GET", "/_roots").json["big"]
    assert whole.headers["etag"] == f'"{epoch}-{version}"'
    assert whole.headers["x-tega-version"] == str(version)
    packed = bridge.ask("GET", "/big", headers={"Accept-Encoding": "gzip"}).headers["etag"]
    assert packed == f'W/"{epoch}-{version}"'
    for tag in (packed, whole.headers["etag"], "*"):
        known = bridge.ask("GET", "/big", headers={"If-None-Match": tag})
        assert (known.status, known.body) == (304, b"")
    assert bridge.ask("GET", "/big?version=-1", headers={"If-None-Match": packed}).status == 200
    assert bridge.ask("GET", "/big?internal=1").status == 413


def test_it_breaks_off_where_it_cannot_be_whole(
    large: tuple[Site, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, _ = large
    whole = streaming._object

    async def broken(*arguments: Any) -> Any:
        async for part in whole(*arguments):
            yield part
            if len(part) > 100_000:
                raise Compacted("gone", root="big", version=1, oldest=2)

    monkeypatch.setattr(streaming, "_object", broken)
    connection = bridge.connection()
    connection.request("GET", "/big")
    response = connection.getresponse()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    connection.close()
    monkeypatch.undo()
    assert bridge.ask("GET", "/big/wide/n7").status == 200


def test_a_tree_that_fits_is_not_streamed(large: tuple[Site, Any], tmp_path: Path) -> None:
    bridge, value = large
    answer = bridge.ask("GET", "/big/wide/k1")
    assert "transfer-encoding" not in answer.headers and answer.json == value["wide"]["k1"]
