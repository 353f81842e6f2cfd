"""Urls of tunnels, and what a base install says of them."""

from __future__ import annotations

import sys

import pytest

from tega_zmq import connect
from tega_zmq.errors import InvalidValue
from tega_zmq.tunnel.urls import Address, address_of, is_tunnel


@pytest.mark.parametrize(
    ("url", "address", "whole"),
    [
        ("ws://gw:8739", Address(False, "gw", 8739, "/_tunnel"), "ws://gw:8739/_tunnel"),
        ("ws://gw:8739/", Address(False, "gw", 8739, "/_tunnel"), "ws://gw:8739/_tunnel"),
        ("ws://gw/_tunnel", Address(False, "gw", 80, "/_tunnel"), "ws://gw:80/_tunnel"),
        (
            "wss://gw.example.org",
            Address(True, "gw.example.org", 443, "/_tunnel"),
            "wss://gw.example.org:443/_tunnel",
        ),
        ("wss://gw/lab/", Address(True, "gw", 443, "/lab/_tunnel"), "wss://gw:443/lab/_tunnel"),
        ("ws://[::1]:8739", Address(False, "::1", 8739, "/_tunnel"), "ws://[::1]:8739/_tunnel"),
    ],
)
def test_urls(url: str, address: Address, whole: str) -> None:
    assert is_tunnel(url)
    assert address_of(url) == address
    assert address.url == whole


@pytest.mark.parametrize(
    "url",
    ["ws://", "ws://:1", "ws://gw:0", "ws://gw:70000", "ws://g w", "ws://u:p@gw", "ws://gw?x", "ws://gw#x"],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        address_of(url)
    assert "u:p" not in refused.value.message


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith(("websockets", "tega_zmq.tunnel.link"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "tega_zmq.tunnel.dialling", raising=False)
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(InvalidValue, match=r"pip install 'tega-zmq\[tunnel\]'"):
        connect("ws://127.0.0.1:8739")
