"""The keys of the bridge: in `tega-bridge`'s own config, and in the section `bridge` of a broker's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tega_zmq.runtime.schema import ConfigError, key, section

__all__ = ["Bridge", "BridgeKeys", "BridgeLimits", "Tls"]

_MIB = 1 << 20
_HOST = re.compile(r"\[[0-9A-Fa-f:.%a-z]+\]|[^\s/:\[\]?#@]+")
_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]?#@]+)(:\d{1,5})?")


def _check_web(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    host, colon, port = rest.removesuffix("/").rpartition(":")
    right = bool(mark and colon) and scheme in ("http", "https") and _HOST.fullmatch(host) is not None
    if not right or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"{url!r} is no address of a web server; write http://HOST:PORT, or https:// with tls.cert"
        )
    return url.removesuffix("/")


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ConfigError(f"{host!r} is no name of a host; write it without scheme and port")
    return tuple(host.lower() for host in hosts)


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"{origin!r} is no origin; write https://HOST or https://HOST:PORT")
    return tuple(origin.lower() for origin in origins)


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate of the bridge; read again on SIGHUP."""

    cert: str | None = key(
        None, "File with the certificate and those that it was signed by, PEM. null: plain HTTP."
    )
    key: str | None = key(None, "File with the key of the certificate, PEM. null: it stands in `tls.cert`.")


@dataclass(frozen=True, slots=True)
class BridgeLimits:
    """What those who come over HTTP may ask for."""

    body: int = key(
        4 * _MIB,
        "Largest body of a request, before and after it is unpacked.",
        unit="bytes",
        minimum=1024,
        maximum=64 * _MIB,
    )
    header: int = key(
        8190, "Longest line of a request, and longest header.", unit="bytes", minimum=1024, maximum=65_536
    )
    idle: float = key(
        75.0,
        "How long a connection may stand without a request; its first line and headers must come in it, too, "
        "and before them the handshake of TLS.",
        unit="seconds",
        minimum=0.1,
        maximum=86_400,
    )
    slow: float = key(
        30.0,
        "How long a body may take to come, and an answer may wait for a peer that does not read.",
        unit="seconds",
        minimum=0.1,
        maximum=86_400,
    )
    stop: float = key(
        5.0,
        "How long requests in flight may still take when the bridge stops.",
        unit="seconds",
        minimum=0,
        maximum=3600,
    )
    connections: int = key(
        4096,
        "Most connections at a time, tunnels and WebSockets among them; fewer if the limit of file "
        "descriptors is lower, of which a tunnel takes five.",
        minimum=1,
        maximum=1_000_000,
    )
    per_client: int = key(2048, "Most connections of one address at a time.", minimum=1, maximum=1_000_000)
    rate: float = key(
        10_000.0,
        "Most requests of one address; as many may come at once after a pause of a second.",
        unit="a second",
        minimum=0.1,
        maximum=1_000_000,
    )
    frames: float = key(
        20_000.0,
        "Most messages that a tunnel or WebSocket may send; who sends more is read more slowly.",
        unit="a second",
        minimum=1,
        maximum=1_000_000,
    )
    queue: int = key(
        _MIB,
        "What may wait for a follower of changes, by /_pubsub or watch=1, that does not read; then its "
        "connection is closed.",
        unit="bytes",
        minimum=16_384,
        maximum=1024 * _MIB,
    )
    sessions: int = key(
        256, "Most sessions that are held for the tega_ids of requests.", minimum=1, maximum=100_000
    )
    transactions: int = key(1024, "Most transactions that are open at a time.", minimum=1, maximum=100_000)
    timeout: float = key(
        10.0, "How long a request waits for the broker's answer.", unit="seconds", minimum=0.1, maximum=3600
    )


@dataclass(frozen=True, slots=True)
class BridgeKeys:
    """What a bridge is told, whoever starts it."""

    listen: str = key("http://127.0.0.1:8739", "Where the bridge serves HTTP.", check=_check_web)
    hosts: tuple[str, ...] = key(
        (),
        "Names by which it is reached, besides that of `listen`, localhost, 127.0.0.1 and [::1]: a request "
        "with another Host, or an Origin at another host, is refused, so that no web page can talk to it.",
        check=_check_hosts,
    )
    origins: tuple[str, ...] = key(
        (),
        "Origins whose web pages may read the answers (CORS), such as https://noc.example.org.",
        check=_check_origins,
    )
    tls: Tls = section(Tls)
    limits: BridgeLimits = section(BridgeLimits)
    ping: float = key(
        20.0,
        "How often tunnels and WebSockets are pinged, and event streams get a comment: below the time after "
        "which proxies close an idle connection, mostly 60.",
        unit="seconds",
        minimum=0.05,
        maximum=3600,
    )
    access_log: Literal["all", "errors", "none"] = key(
        "all", "Which requests get a line in the log. errors: those that were refused or failed."
    )


@dataclass(frozen=True, slots=True)
class Bridge(BridgeKeys):
    """The bridge that a broker starts."""

    enabled: bool = key(
        True,
        "Start the bridge with the broker. Where the extra `bridge` is not installed, the broker says so and "
        "goes on.",
    )
