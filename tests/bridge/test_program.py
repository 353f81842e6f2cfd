"""`tega-bridge` as a program: started by the broker or alone, stopped in order, killed, with TLS."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.processes import Fleet, Program, free_ports, until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.close()


def ask(
    url: str, method: str = "GET", value: Any = ..., context: ssl.SSLContext | None = None
) -> tuple[int, Any]:
    """The status and the value of an answer."""
    body = None if value is ... else json.dumps(value).encode()
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def ready(url: str, context: ssl.SSLContext | None = None) -> bool:
    return ask(f"{url}/_health", context=context)[0] == 200


def opened(url: str) -> socket.socket:
    """A bare connection to where `url` is."""
    at = urlsplit(url)
    return socket.create_connection((at.hostname, at.port), timeout=20)


def with_bridge(fleet: Fleet) -> str:
    """Let the broker start a bridge; return its url."""
    (port,) = free_ports(1)
    fleet.broker.settings |= {"bridge.enabled": "true", "bridge.listen": f"http://127.0.0.1:{port}"}
    return f"http://127.0.0.1:{port}"


def bridge_pid(fleet: Fleet) -> int:
    """The process id of the broker's bridge."""
    assert fleet.broker.process is not None
    children = Path(f"/proc/{fleet.broker.process.pid}/task").glob("*/children")
    found = [int(pid) for each in children for pid in each.read_text().split()]
    return found[0] if found else 0


def alone(fleet: Fleet, **settings: str) -> tuple[Program, str]:
    """A bridge by itself, which does not run yet, and its url."""
    (port,) = free_ports(1)
    scheme = "https" if "tls.cert" in settings else "http"
    url = f"{scheme}://127.0.0.1:{port}"
    program = Program(
        "tega_broker.bridge", fleet.folder / "bridge", {"broker": fleet.url, "listen": url, **settings}
    )
    del program.settings["data_dir"]
    fleet.agents["bridge"] = program  # so that it ends with the fleet
    return program, url


def test_the_broker_starts_it_and_starts_it_again(fleet: Fleet) -> None:
    url = with_bridge(fleet)
    fleet.broker.start()
    until(lambda: ready(url))
    assert ask(f"{url}/a/b?tega_id=joe", "PUT", 1)[0] == 200
    first = bridge_pid(fleet)
    os.kill(first, signal.SIGKILL)
    until(lambda: bridge_pid(fleet) not in (0, first))
    until(lambda: ready(url))
    assert ask(f"{url}/a/b") == (200, 1)
    assert fleet.broker.lines("the bridge ended") == 1
    assert fleet.broker.stop() == 0
    log = fleet.broker.log.read_text()
    assert log.index("tega-bridge: stopped") < log.index("tega-broker: stopped"), (
        "it stops while it is still served"
    )
    with pytest.raises(OSError):
        ask(f"{url}/_health")


def test_devices_show_in_the_numbers(fleet: Fleet) -> None:
    url = with_bridge(fleet)
    fleet.broker.start()
    agent = fleet.agent("pi1")
    agent.start()
    until(lambda: ready(url))
    assert ask(f"{url}/config-pi1/x", "PUT", 1)[0] == 200

    def shows(line: str) -> bool:
        with urllib.request.urlopen(f"{url}/_metrics", timeout=20) as answer:
            return line in answer.read().decode().splitlines()

    until(lambda: shows('tega_replica_lag_versions{agent="pi1",root="config-pi1"} 0'))
    assert shows('tega_agent_connected{agent="pi1"} 1')
    assert ask(f"{url}/_agents")[1][0]["tega_id"] == "pi1"
    agent.kill()
    until(lambda: shows('tega_agent_connected{agent="pi1"} 0'))
    until(
        lambda: (
            ask(f"{url}/_agents")[1][0]["state"] == "away" and ask(f"{url}/_agents")[1][0]["heard"] is None
        )
    )
    assert ask(f"{url}/config-pi1/x", "PUT", 2)[0] == 200
    assert shows('tega_replica_lag_versions{agent="pi1",root="config-pi1"} 1')
    agent.start()
    until(lambda: shows('tega_replica_lag_versions{agent="pi1",root="config-pi1"} 0'))
    agent.kill()
    # Until the broker knows that the agent is gone, the write is on its way there.
    until(lambda: shows('tega_agent_connected{agent="pi1"} 0'))
    status, error = ask(f"{url}/ops-pi1/x", "PUT", 1)
    assert (status, error["error"], error["owner"]) == (503, "OwnerAway", "pi1")


def test_it_goes_with_a_broker_that_is_killed(fleet: Fleet) -> None:
    url = with_bridge(fleet)
    fleet.broker.start()
    until(lambda: ready(url))
    pid = bridge_pid(fleet)
    fleet.broker.kill()

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    until(gone)


def test_without_the_extra_the_broker_says_so_and_goes_on(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'aiohttp' else find(name, *more)\n"
        "sys.modules['aiohttp'] = None\n"
    )
    fleet.broker.environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    with_bridge(fleet)
    fleet.broker.start()
    assert fleet.broker.lines("no bridge: ") == 1
    fleet.client("noc").put("a.b", 1)
    assert fleet.broker.stop() == 0


def test_the_base_of_the_broker_needs_nothing_of_the_extra() -> None:
    code = "import sys; sys.modules['aiohttp'] = None; import tega_broker.main, tega_broker.story"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_alone_it_says_when_it_is_ready_and_stops_in_order(fleet: Fleet) -> None:
    fleet.broker.start()
    bridge, url = alone(fleet, access_log="errors", log_format="json")
    bridge.spawn()
    until(lambda: bridge.lines('"event": "ready"'))
    until(lambda: ready(url))
    assert ask(f"{url}/a/b?tega_id=joe", "PUT", 1)[0] == 200
    assert ask(f"{url}/a/c")[0] == 404
    sessions = {each["tega_id"]: each["kind"] for each in fleet.client("noc").inspect("sessions")}
    assert sessions["joe"] == "delegate"
    assert "bridge" in sessions.values()
    assert bridge.stop() == 0
    told = [json.loads(line) for line in bridge.log.read_text().splitlines()]
    # Asked before it has reached the broker, /_health is 503, and so one of the errors.
    lines = [line for line in told if line.get("path") != "/_health"]
    assert [line["event"] for line in lines] == ["ready", "request", "stopped"]
    assert lines[1].items() >= {"method": "GET", "path": "/a/c", "status": 404, "from": "127.0.0.1"}.items()
    until(lambda: len(fleet.client("other").inspect("sessions")) == 2, "its sessions ended with it")


def test_a_request_in_flight_ends_before_it_stops(fleet: Fleet) -> None:
    fleet.broker.start()
    bridge, url = alone(fleet, **{"limits.stop": "60"})
    bridge.spawn()
    until(lambda: ready(url))
    handler, go = fleet.client("handler"), threading.Event()
    begun = threading.Event()

    def work() -> int:
        begun.set()
        go.wait(20)
        return 7

    handler.register("t.f", work)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask(f"{url}/_rpc?path=t.f", "POST")))
    thread.start()
    assert begun.wait(20)
    assert bridge.process is not None
    bridge.process.terminate()
    until(lambda: _refused(url), "nothing new is taken")
    go.set()
    thread.join(20)
    assert answers == [(200, {"result": 7})]
    assert bridge.process.wait(20) == 0


def _refused(url: str) -> bool:
    try:
        return ask(f"{url}/_health")[0] == 503
    except OSError:
        return True


def test_what_stops_the_start_is_one_line(fleet: Fleet, tmp_path: Path) -> None:
    bridge, url = alone(fleet)
    bridge.spawn()
    until(lambda: bridge.lines("ready"))
    second = Program("tega_broker.bridge", tmp_path / "second", {"listen": url})
    third = Program("tega_broker.bridge", tmp_path / "third", {"listen": "http://0.0.0.0:0"})
    fourth = Program(
        "tega_broker.bridge", tmp_path / "fourth", {"listen": "https://127.0.0.1:0", "tls.cert": "/nix.pem"}
    )
    for program, status, text in (
        (second, 1, "in use"),
        (third, 2, "can be reached from other hosts"),
        (fourth, 1, "/nix.pem"),
    ):
        del program.settings["data_dir"]
        program.spawn()
        assert program.process is not None
        assert program.process.wait(20) == status
        said = program.log.read_text()
        assert text in said and said.count("\n") == 1, said


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, in one file."""
    key, cert, both = (folder / f"{name}.{end}" for end in ("key", "crt", "pem"))
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    return both


def test_a_certificate_is_read_again_on_sighup(fleet: Fleet, tmp_path: Path) -> None:
    used = tmp_path / "used.pem"
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    used.write_bytes(first.read_bytes())
    fleet.broker.start()
    bridge, url = alone(fleet, **{"tls.cert": str(used)})
    bridge.spawn()
    of_first, of_second = (ssl.create_default_context(cafile=str(each)) for each in (first, second))
    until(lambda: ready(url, of_first))
    assert ask(f"{url}/a/b", "PUT", 1, of_first)[0] == 200
    assert bridge.process is not None
    used.write_bytes(b"nonsense")
    bridge.process.send_signal(signal.SIGHUP)
    until(lambda: bridge.lines("the certificate stays as it was"))
    assert ready(url, of_first)
    used.write_bytes(second.read_bytes())
    bridge.process.send_signal(signal.SIGHUP)
    until(lambda: bridge.lines("certificate read again"))
    assert ask(f"{url}/a/b", context=of_second) == (200, 1)
    with pytest.raises(urllib.error.URLError):
        ask(f"{url}/a/b", context=of_first)
    assert bridge.stop() == 0


def test_over_tls_who_says_nothing_counts_and_is_let_go(fleet: Fleet, tmp_path: Path) -> None:
    file = certificate(tmp_path, "one")
    fleet.broker.start()
    bridge, url = alone(fleet, **{"tls.cert": str(file), "limits.per_client": "8", "limits.idle": "1.5"})
    bridge.spawn()
    trusts = ssl.create_default_context(cafile=str(file))
    until(lambda: ready(url, trusts))
    with ExitStack() as stack:
        silent = [stack.enter_context(opened(url)) for _ in range(30)]
        # Too many are closed at once, the others when their time to shake hands is over.
        assert [peer.recv(1) for peer in silent] == [b""] * 30
    until(lambda: ready(url, trusts))
    assert bridge.stop() == 0
    assert "Traceback" not in bridge.log.read_text()


def test_without_descriptors_it_refuses_and_says_so_once(fleet: Fleet) -> None:
    fleet.broker.start()
    bridge, url = alone(fleet)
    bridge.prefix = ["sh", "-c", 'ulimit -n 160; exec "$@"', "sh"]
    bridge.spawn()
    until(lambda: ready(url))
    assert bridge.process is not None
    pid = bridge.process.pid
    assert bridge.lines("fewer connections than limits.connections") == 1
    with ExitStack() as stack:
        peers = [stack.enter_context(opened(url)) for _ in range(300)]
        # The last ones hear why; what the bridge itself needs is left, but for what is refused just now.
        assert b"file descriptors" in peers[-1].recv(65536)
        assert len(os.listdir(f"/proc/{pid}/fd")) <= 125
    until(lambda: ready(url))
    # Not even one to take a connection with: those that come wait.
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE, (5, 160))
    with ExitStack() as stack:
        peers = [stack.enter_context(opened(url)) for _ in range(50)]
        until(lambda: bridge.lines("no connection can be taken for a moment"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for peer in peers:
            peer.sendall(b"GET /_health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert peer.recv(65536).startswith(b"HTTP/1.1 200")
    assert bridge.lines("no connection can be taken for a moment") == 1
    assert bridge.stop() == 0


def test_without_descriptors_there_are_fewer_tunnels(fleet: Fleet) -> None:
    fleet.broker.start()
    bridge, url = alone(fleet)
    bridge.prefix = ["sh", "-c", 'ulimit -n 160; exec "$@"', "sh"]
    bridge.spawn()
    until(lambda: ready(url))
    assert bridge.process is not None
    with ExitStack() as stack:
        peers = [stack.enter_context(opened(url)) for _ in range(60)]
        told = []
        for peer in peers:
            peer.sendall(
                b"GET /_tunnel HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            told.append(peer.recv(65536).split()[1])
        assert set(told) == {b"101", b"503"} and told.count(b"101") <= 20
        for peer, status in zip(peers, told, strict=True):
            assert status == b"101" or peer.recv(1) == b""
        assert len(os.listdir(f"/proc/{bridge.process.pid}/fd")) <= 130
        until(lambda: ready(url))
    assert bridge.stop() == 0
    assert bridge.lines("ERROR") == bridge.lines("Traceback") == 0


def test_killed_under_load_it_loses_nothing_that_was_acknowledged(fleet: Fleet) -> None:
    url = with_bridge(fleet)
    fleet.broker.start()
    until(lambda: ready(url))
    acknowledged: list[int] = []
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                if ask(f"{url}/load/n{number}?tega_id=loader", "PUT", number)[0] == 200:
                    acknowledged.append(number)
            except OSError:
                pass

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for wanted in (20, 40):
            until(lambda wanted=wanted: len(acknowledged) >= wanted)
            pid = bridge_pid(fleet)
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: bridge_pid(fleet) not in (0, pid))
            until(lambda: ready(url))
        until(lambda: len(acknowledged) >= 60)
    finally:
        stop.set()
        thread.join(30)
    stored = fleet.client("noc").get("load")
    assert all(stored.get(f"n{number}") == number for number in acknowledged)
    assert {entry.tega_id for entry in fleet.client("looker").log("load", 50)} == {"loader"}
