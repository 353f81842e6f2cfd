"""The tunnel through what stands in the field: tinyproxy, squid, nginx with TLS, NAT, links that are cut."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tega_zmq import Tls, connect, errors
from tega_zmq.tunnel.dialling import Attempt, DialError, proxy_for
from tega_zmq.tunnel.urls import NO_TLS, address_of
from tests.bridgekit import Site
from tests.chaos.links import GATEWAY, LAN, wire
from tests.processes import Fleet, free_ports, until
from tests.processes import fleet as make_fleet
from tests.proxykit import (
    ENCODED,
    PASSWORD,
    USER,
    Certificates,
    certificates,
    cutter,
    nginx,
    squid,
    tinyproxy,
)

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of whoever runs the tests counts."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def with_credentials(url: str) -> str:
    return url.replace("://", f"://{ENCODED}@")


def works(url: str, bridge: Site, **options: Any) -> None:
    with connect(url, "pi1", **options) as client:
        noc = bridge.client()
        client.register("tunnel.echo", lambda value: value)
        assert noc.call("tunnel.echo", "through", timeout=10) == "through"


def why_not(url: str, files: Tls = NO_TLS) -> str:
    """Why no tunnel can be opened."""
    with pytest.raises(DialError) as failed:
        Attempt(address_of(url), files, 10).run()
    return str(failed.value)


# -- proxies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tinyproxy, squid])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"])
def test_an_open_proxy(
    bridge: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, variable: str
) -> None:
    with kind(tmp_path) as proxy:
        monkeypatch.setenv(variable, proxy)
        works(bridge.url.replace("http", "ws"), bridge)
    # Without it there is no way: so it went through it.
    assert "the proxy" in why_not(bridge.url.replace("http", "ws"))


@pytest.mark.parametrize("kind", [tinyproxy, squid])
def test_a_proxy_that_asks_who_it_is(
    bridge: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    url = bridge.url.replace("http", "ws")
    # In a folder that the proxy's own user can read.
    with tempfile.TemporaryDirectory(prefix="tega-") as folder, kind(Path(folder), credentials=True) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert any(code in why_not(url) for code in ("407", "401"))
        monkeypatch.setenv("HTTP_PROXY", proxy.replace("://", f"://{USER}:wrong@"))
        said = why_not(url)
        assert any(code in said for code in ("407", "401"))
        monkeypatch.setenv("HTTP_PROXY", with_credentials(proxy))
        works(url, bridge)
        assert PASSWORD not in said


def test_no_proxy(bridge: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_ports(1)[0]}")
    url = bridge.url.replace("http", "ws")
    for named in ("127.0.0.1", "*", f"example.org,127.0.0.1:{bridge.address[1]}"):
        monkeypatch.setenv("NO_PROXY", named)
        works(url, bridge)
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert "Connection refused" in why_not(url)


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [
        ({"https": "http://a:1", "http": "http://b:2"}, ("a", 1)),
        ({"http": "b:2"}, ("b", 2)),
        ({"all": "http://c"}, ("c", 80)),
        ({"http": "http://[::1]:3128"}, ("::1", 3128)),
        ({"no": "x"}, None),
        ({}, None),
    ],
)
def test_which_proxy(proxies: dict[str, str], expected: tuple[str, int] | None) -> None:
    for url in ("ws://gw:8739", "wss://gw"):
        found = proxy_for(address_of(url), proxies)
        assert (found[:2] if found else None) == expected


@pytest.mark.parametrize("url", ["socks5://u:secret@p:1", "https://p:1", "http://", "http://p:x"])
def test_proxies_that_cannot_be_used(url: str) -> None:
    with pytest.raises(DialError, match="cannot be used") as failed:
        proxy_for(address_of("ws://gw"), {"http": url})
    assert "secret" not in str(failed.value)


# -- a reverse proxy with TLS --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"))


def test_tls_behind_nginx(
    bridge: Site, tmp_path: Path, files: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nginx(tmp_path, "{}:{}".format(*bridge.address), files) as url:
        assert "certificate" in why_not(url)
        works(url, bridge, tls=Tls(ca=files.ca))
        monkeypatch.setenv("SSL_CERT_FILE", files.ca)
        works(url, bridge)
        assert "404" in why_not(url.replace("/lab", "/other"))
        with squid(tmp_path) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            works(url, bridge)
    assert "No such file" in why_not(url, Tls(ca="nowhere.pem"))


def test_a_client_certificate(bridge: Site, tmp_path: Path, files: Certificates) -> None:
    with nginx(tmp_path, "{}:{}".format(*bridge.address), files, ask=True) as url:
        assert "400" in why_not(url, Tls(ca=files.ca))
        works(url, bridge, tls=Tls(files.ca, files.client, files.client_key))
        bridge.client("noc-tls").put("tls.n", 7)
        flags = ("--ca", files.ca, "--cert", files.client, "--key", files.client_key)
        assert shell("-s", url, *flags, "get", "tls.n") == (0, "7\n", "")
        status, _, error = shell("-s", url, "get", "tls.n", "--timeout", "3")
        assert status and error
    assert shell("-s", "tcp://127.0.0.1:1", *flags, "get", "tls.n")[0] == 2


def shell(*words: str) -> tuple[int, str, str]:
    """Run the `tega` command; return its status, output and errors."""
    done = subprocess.run(
        [sys.executable, "-m", "tega_zmq.shell.main", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_what_is_no_bridge(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = []

        def answer(with_: bytes) -> None:
            import threading

            def serve() -> None:
                peer, _ = server.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(with_)

            thread = threading.Thread(target=serve)
            thread.start()
            said.append(why_not(f"ws://127.0.0.1:{port}"))
            thread.join()

        answer(b"")
        answer(b"garbage\r\n\r\n")
        answer(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate")
    assert "closed" in said[0] and "no WebSocket" in said[1] and "503 Busy: late" in said[2], said
    with pytest.raises(errors.InvalidValue):
        connect("wss://")


# -- an agent ------------------------------------------------------------------------------------------


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet whose broker has a bridge; nothing of it runs yet."""
    with tempfile.TemporaryDirectory(prefix="tega-") as folder, make_fleet(Path(folder)) as made:
        (port,) = free_ports(1)
        made.broker.settings |= {"bridge.enabled": "true", "bridge.listen": f"http://127.0.0.1:{port}"}
        yield made
        made.close()
        for log in sorted(Path(folder).glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-6000:]}")  # shown where a test failed


def bridge_port(fleet: Fleet) -> int:
    return int(fleet.broker.settings["bridge.listen"].rpartition(":")[2])


def essential(fleet: Fleet, number: int) -> None:
    """A put reaches the replica; what the device writes is seen above; a call in both directions."""
    with ExitStack() as stack:
        noc = stack.enter_context(connect(fleet.url, f"noc{number}"))
        device = stack.enter_context(connect(fleet.socket("pi1"), f"program{number}"))
        noc.put("config-pi1.n", number)
        until(lambda: device.get("config-pi1.n") == number)
        device.put("ops-pi1.n", number)
        until(lambda: noc.get("ops-pi1.n") == number)
        device.register("ops-pi1.double", lambda value: 2 * value)
        assert until(lambda: noc.call("ops-pi1.double", number + 1)) == 2 * number + 2
        assert device.put(f"shared.k{number}", number).revision is not None
        noc.put("ops-pi1.from_above", number)
        assert device.get("ops-pi1.from_above") == number


def stay_away(fleet: Fleet, number: int) -> None:
    """While the device is cut off: it works on, and what it lacks comes by itself later."""
    with connect(fleet.url, "away-noc") as noc, connect(fleet.socket("pi1"), "away-device") as device:
        device.put("ops-pi1.offline", number)
        for each in range(50):
            noc.put("config-pi1.away", each)


def caught_up(fleet: Fleet, number: int) -> None:
    with connect(fleet.url, "back-noc") as noc, connect(fleet.socket("pi1"), "back-device") as device:
        until(lambda: device.get("config-pi1.away") == 49)
        until(lambda: noc.get("ops-pi1.offline") == number)


def test_an_agent_whose_link_is_cut_again_and_again(fleet: Fleet) -> None:
    with cutter(("127.0.0.1", bridge_port(fleet))) as (link, port):
        agent = fleet.agent("pi1", uplink=f"[ws://127.0.0.1:{port}]")
        fleet.broker.start()
        agent.start()
        until(lambda: agent.lines("uplink connected"))
        for number in range(5):
            essential(fleet, number)
            connected = agent.lines("uplink connected")
            link.cut()
            until(lambda connected=connected: agent.lines("uplink connected") > connected)
        essential(fleet, 9)
        assert fleet.broker.lines("session resumed tega_id=pi1") >= 5
        assert link.cuts >= 10


def test_an_agent_through_a_proxy_that_goes_and_comes(fleet: Fleet, tmp_path: Path) -> None:
    fleet.broker.start()
    agent = fleet.agent("pi1", uplink=f"[ws://127.0.0.1:{bridge_port(fleet)}]")
    with tinyproxy(tmp_path, credentials=True) as proxy:
        agent.environment = {"http_proxy": with_credentials(proxy), "no_proxy": ""}
        agent.start()
        until(lambda: agent.lines("uplink connected"))
        essential(fleet, 1)
        fleet.broker.kill()
        fleet.broker.start()
        essential(fleet, 2)
    until(lambda: agent.lines("uplink suspended") >= 2)
    stay_away(fleet, 3)
    agent.stop()
    agent.environment["http_proxy"] = ""
    agent.start()
    caught_up(fleet, 3)
    essential(fleet, 4)


def test_an_agent_behind_nat_and_a_proxy(fleet: Fleet) -> None:
    """Only the proxy on the router gets through; when tcp does, the session moves there without a flap."""
    agent = fleet.agent("pi1")
    with wire(fleet, nat=True) as link, ExitStack() as stack:
        port = bridge_port(fleet)
        fleet.broker.settings |= {
            "bridge.listen": f"http://{GATEWAY}:{port}",
            "session.lease": "30",
        }
        tcp = agent.settings["uplink"].strip("[]")
        agent.settings |= {"uplink": f"[{tcp}, ws://{GATEWAY}:{port}]", "reconnect.better": "1"}
        inside = tuple(link.inside("rt"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tega-")))
        proxy = stack.enter_context(tinyproxy(folder, credentials=True, host=LAN, prefix=inside))
        agent.environment = {"HTTP_PROXY": with_credentials(proxy)}
        link.fault("cut")  # nothing is forwarded; the proxy is the router's own program
        fleet.broker.start()
        agent.start()
        until(lambda: agent.lines("uplink connected"), patience=40)
        essential(fleet, 1)
        noc = fleet.client("watcher")
        device = fleet.client("standing", at="pi1")
        device.put("presence.standing", 1, ephemeral=True)
        until(lambda: noc.get("presence.standing", default=None) == 1)
        flaps: list[Any] = []
        noc.subscribe("presence", flaps.append)
        assert fleet.broker.lines("session resumed tega_id=pi1") == 0
        link.restore()
        until(lambda: fleet.broker.lines("session resumed tega_id=pi1") == 1, patience=40)
        until(lambda: agent.lines("uplink connected") == 2)
        essential(fleet, 2)
        peers = subprocess.run(
            [*link.inside("pi"), "ss", "-tnH", "state", "established"], capture_output=True, text=True
        )
        if peers.returncode == 0:
            assert f"{GATEWAY}:{tcp.rpartition(':')[2]}" in peers.stdout, peers.stdout
        assert flaps == []
