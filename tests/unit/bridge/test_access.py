"""Who may talk to the bridge, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_broker.bridge.access import Access, Rates, host_of, split_host


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8739", "localhost"),
        ("gw.example.org.:1", "gw.example.org"),
        ("[::1]:8739", "[::1]"),
        ("[::1]", "[::1]"),
        ("127.0.0.1", "127.0.0.1"),
        ("", None),
        ("a b", None),
        ("a:b", None),
        ("::1", None),
        ("evil.com/localhost", None),
        ("localhost@evil.com", None),
        ("a:1:2", None),
    ],
)
def test_a_host_is_taken_apart(text: str, host: str | None) -> None:
    assert split_host(text) == host


@given(st.text(max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    split_host(text)
    host_of(text)
    access = Access("http://127.0.0.1:8739", (), ())
    access.allows_host(text, "10.0.0.1")
    access.allows_origin(text, "10.0.0.1")


def test_hosts_and_origins_that_may(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access("http://192.168.1.1:80", ("gw",), ("https://noc.example.org",))
    for host in ("localhost:1", "127.0.0.1", "[::1]:8739", "192.168.1.1", "GW:99", "10.9.8.7:80"):
        assert access.allows_host(host, "10.9.8.7"), host
    for host in (
        "evil.com",
        "gw.evil.com",
        "evil.com:8739",
        "127.0.0.1.evil.com",
        "10.9.8.6",
        "",
        "noc.example.org",
    ):
        assert not access.allows_host(host, "10.9.8.7"), host
    for origin in (
        "http://localhost",
        "http://localhost/",
        "https://gw:8739",
        "https://noc.example.org",
        "http://10.9.8.7",
    ):
        assert access.allows_origin(origin, "10.9.8.7"), origin
    for origin in (
        "null",
        "",
        "https://evil.com",
        "http://noc.example.org",
        "http://localhost.evil.com",
        "localhost",
    ):
        assert not access.allows_origin(origin, "10.9.8.7"), origin
    assert access.reads("https://NOC.example.org")
    assert not access.reads("http://localhost")


def test_what_is_remembered_is_bounded() -> None:
    access = Access("http://127.0.0.1:8739", (), ())
    for number in range(2000):
        assert not access.allows_host(f"evil{number}.com", "1.2.3.4")
    assert access.allows_host("localhost", "1.2.3.4")
    assert len(access._judged) <= 256


def test_a_rate_is_a_bucket_that_fills_again() -> None:
    rates = Rates(10.0)
    assert [rates.take("a", 0.0) for _ in range(10)] == [0.0] * 10
    assert rates.take("a", 0.0) == pytest.approx(0.1)
    assert rates.take("b", 0.0) == 0.0
    assert rates.take("a", 0.05) == pytest.approx(0.05)
    assert rates.take("a", 0.1) == 0.0
    assert rates.take("a", 0.1) > 0.0
    assert [rates.take("a", 1000.0) for _ in range(11)].count(0.0) == 10


def test_slow_rates_let_one_through() -> None:
    rates = Rates(0.1)
    assert rates.take("a", 0.0) == 0.0
    assert rates.take("a", 1.0) == pytest.approx(9.0)
    assert rates.take("a", 10.0) == 0.0


def test_many_addresses_are_forgotten_not_gathered() -> None:
    rates = Rates(1.0, most=100)
    for number in range(10_000):
        rates.take(f"address{number}", number * 0.001)
        assert len(rates._buckets) <= 100
    assert rates.take("address9999", 9.999) > 0.0, "who came of late is known"
