"""What a stranger may try: nothing of it stops the bridge, makes it grow for ever, or reaches the broker."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import resource
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridgekit import Site, site
from tests.processes import until


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Site]:
    """A bridge with small bounds."""
    with site(
        tmp_path,
        limits__idle="2",
        limits__slow="0.5",
        limits__body="65536",
        limits__connections="20",
        limits__per_client="20",
    ) as made:
        yield made


def answer_of(peer: socket.socket) -> tuple[int, bytes]:
    """The status and the rest of what `peer` is sent until the end."""
    got = b""
    try:
        while part := peer.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    if not got:
        return 0, b""
    return int(got.split(b" ", 2)[1]), got


def asking(bridge: Site, behind: int = 0) -> bool:
    """Whether a request is being answered that has so many `behind` it on its connection."""
    server = bridge.serving.bridge._server
    assert server is not None
    return any(each._current_request and len(each._messages) == behind for each in server.connections)


def memory() -> int:
    """Most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_headers_of_16_megabytes_are_refused_early(strict: Site) -> None:
    before = memory()
    for junk in (b"X-Big: " + b"a" * 65536, b"X-Many: a\r\n" * 4000):
        with strict.socket() as peer:
            sent = 0
            try:
                peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
                while sent < 16 << 20:
                    peer.sendall(junk)
                    sent += len(junk)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert sent < 8 << 20
            status, _ = answer_of(peer)
            assert status in (0, 400)
    with strict.socket() as peer:
        peer.sendall(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer_of(peer)[0] == 400
    assert memory() - before < 64 << 20
    assert strict.ask("GET", "/_health").status == 200


def test_a_body_of_a_gigabyte_is_refused_before_it_comes(strict: Site) -> None:
    with strict.socket() as peer:
        peer.sendall(b"PUT /a/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n")
        status, rest = answer_of(peer)
    assert status == 413
    error = json.loads(rest.partition(b"\r\n\r\n")[2])
    assert (error["error"], error["limit"]) == ("TooLarge", 65536)
    with strict.socket() as peer:
        peer.sendall(
            b"PUT /a/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert answer_of(peer)[0] == 413


def test_a_body_in_endless_chunks_is_refused_when_it_is_too_much(strict: Site) -> None:
    with strict.socket() as peer:
        peer.sendall(b"PUT /a/b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                peer.sendall(b"4000\r\n" + b"1" * 0x4000 + b"\r\n")
    assert strict.ask("GET", "/a").status == 404


def test_a_broken_chunk_is_bad_at_once(bridge: Site, caplog: pytest.LogCaptureFixture) -> None:
    for first in (b"", b"1\r\n1\r\n"):
        with bridge.socket() as peer:
            peer.sendall(
                b"PUT /a/c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + first
            )
            until(lambda: asking(bridge))
            peer.sendall(b"zz\r\n1\r\n")
            status, rest = answer_of(peer)
        assert status == 400 and b"the body is broken: " in rest and b"Connection: close" in rest
        assert rest.count(b"HTTP/1.1 ") == 1
    assert bridge.ask("GET", "/a/c").status == 404
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(("second", "status"), [(b"PUT /a/c", b"400"), (b"GET /_roots", b"200")])
def test_a_broken_chunk_of_a_request_behind_another_one(bridge: Site, second: bytes, status: bytes) -> None:
    """Whether its body is read or not: there is one answer to each, then the end."""
    held, client = threading.Event(), bridge.client()
    client.register("abuse.hold", held.wait)
    with bridge.socket() as peer:
        peer.sendall(b"POST /_rpc?path=abuse.hold HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        until(lambda: client.inspect("status")["calls"] == 1)
        peer.sendall(second + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        until(lambda: asking(bridge, behind=1))
        peer.sendall(b"zz\r\n1\r\n")
        until(lambda: asking(bridge, behind=2))
        held.set()
        _, rest = answer_of(peer)
    client.unregister("abuse.hold")
    assert re.findall(rb"HTTP/1.1 (\d+)", rest) == [b"200", status]
    assert rest.count(b"Connection: close") == 1


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_a_bomb_is_not_unpacked(strict: Site, packed: str) -> None:
    before = memory()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if packed == "gzip" else 15)
    bomb = b"".join(packer.compress(b"1" * (1 << 20)) for _ in range(50)) + packer.flush()
    assert len(bomb) < 65536
    answer = strict.ask("PUT", "/a/b", body=bomb, headers={"Content-Encoding": packed})
    assert (answer.status, answer.error) == (413, "TooLarge")
    assert memory() - before < 32 << 20
    twice = gzip.compress(b"1") + gzip.compress(b"2")
    assert strict.ask("PUT", "/a/b", body=twice, headers={"Content-Encoding": "gzip"}).status == 400


def test_a_request_that_comes_too_slowly_ends(strict: Site) -> None:
    with strict.socket() as silent, strict.socket() as slow, strict.socket() as body:
        body.sendall(b"PUT /a/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n1")
        slow.setblocking(False)
        ended = False
        for part in b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100:
            try:
                slow.send(bytes([part]))
                ended = slow.recv(1) == b""
            except BlockingIOError:
                pass
            except OSError:
                ended = True
            if ended:
                break
            time.sleep(0.02)  # what makes it slow
        assert ended, "a byte now and then keeps nobody waiting"
        assert silent.recv(100) == b""
        status, rest = answer_of(body)
        assert status == 408 and b"Timeout" in rest
    assert strict.ask("GET", "/_health").status == 200


def test_who_does_not_read_is_given_up(strict: Site) -> None:
    strict.ask("PUT", "/a/b", ["x" * 1000] * 60)
    with strict.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            for _ in range(2000):
                peer.sendall(b"GET /a/b HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        until(lambda: strict.serving.bridge.metrics.counts.get("slow_peers", 0) == 1)
    assert strict.ask("GET", "/_health").status == 200


def test_who_hangs_up_in_the_middle_is_no_error(bridge: Site, caplog: pytest.LogCaptureFixture) -> None:
    counts = bridge.serving.bridge.metrics.counts
    with bridge.socket() as peer:
        peer.sendall(b"PUT /a/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n12345")
    until(lambda: counts.get("hang_ups", 0) == 1)
    assert bridge.ask("GET", "/_health").status == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_connections_are_bounded_and_let_go(strict: Site) -> None:
    bridge = strict.serving.bridge
    until(lambda: bridge.connections <= 1)
    before = descriptors()
    opened = [strict.socket() for _ in range(40)]
    refused = []
    for peer in opened:
        peer.sendall(b"GET /_health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        refused.append(b" 503 " in peer.recv(65536).split(b"\r\n")[0])
    assert 20 <= sum(refused) <= 21
    assert bridge.connections <= 20
    for peer in opened:
        peer.close()
    until(lambda: bridge.connections <= 1)
    until(lambda: descriptors() <= before + 1)
    assert strict.ask("GET", "/_health").status == 200


def test_thousands_of_connections_opened_and_dropped_leave_nothing(bridge: Site) -> None:
    before, known = descriptors(), bridge.serving.bridge
    requests = (
        b"",
        b"GET /_roots HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /a/b HTTP/1.1\r\nHost: lo",
        b"\xff" * 50,
    )
    for number in range(3000):
        with bridge.socket() as peer:
            peer.sendall(requests[number % len(requests)])
    until(lambda: known.connections <= 1)
    until(lambda: descriptors() <= before + 2)
    assert not known._per_address or max(known._per_address.values()) <= 1
    assert bridge.ask("GET", "/_health").status == 200


def test_who_asks_too_often_is_told_to_wait(tmp_path: Path) -> None:
    with site(tmp_path, broker=False, limits__rate="20") as bridge:
        answers = [bridge.ask("GET", "/_health") for _ in range(60)]
        told = [answer for answer in answers if answer.status == 429]
        assert told and all(answer.error == "TooLarge" for answer in told)
        assert told[0].headers["retry-after"] == "1"
        assert {answer.status for answer in answers} == {429, 503}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.com"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
    ],
)
def test_no_web_page_talks_to_a_bridge_on_loopback(
    bridge: Site, headers: dict[str, str], status: int
) -> None:
    for method, path in (("GET", "/_roots"), ("POST", "/_sync"), ("OPTIONS", "/_roots"), ("GET", "/_nix")):
        answer = bridge.ask(method, path, headers=headers)
        assert (answer.status == 403) == (status == 403), (method, path)
        assert "access-control-allow-origin" not in answer.headers
    assert bridge.ask("GET", "/_roots").status == 200


def test_no_link_or_image_of_a_web_page_does_anything(bridge: Site, root: str) -> None:
    """A browser sends no Origin for these."""
    link = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    image = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    frame = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    assert bridge.ask("PUT", f"/{root}/a", 1).status == 200
    for site_of_page in ("cross-site", "same-site"):
        for headers in (link, image, frame):
            headers = {**headers, "Sec-Fetch-Site": site_of_page}
            for method in ("GET", "POST", "HEAD"):
                answer = bridge.ask(method, "/_begin", headers=headers)
                assert answer.status == 403, (method, headers)
            read = bridge.ask("GET", f"/{root}/a", headers=headers)
            assert (read.status == 200) == (headers["Sec-Fetch-Dest"] == "document")
            assert bridge.ask("DELETE", f"/{root}/a", headers=headers).error == "Forbidden"
    for page in (
        "http://evil.example/x",
        "https://evil.example",
        "nonsense",
        "http://[",
        "http://127.0.0.1.nip.io/",
    ):
        assert bridge.ask("GET", "/_begin/", headers={"Referer": page}).error == "Forbidden", page
        assert bridge.ask("GET", f"/{root}/a", headers={"Referer": page}).status == 200
    assert len(bridge.serving.bridge.transactions) == 0
    for own in (
        {"Sec-Fetch-Site": "none", **link},
        {"Sec-Fetch-Site": "same-origin", "Referer": f"{bridge.url}/_ui/"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Referer": "http://localhost:3000/page"},
    ):
        txid = bridge.ask("GET", "/_begin", headers=own).json["txid"]
        assert bridge.ask("GET", f"/_cancel?txid={txid}", headers=own).status == 200


def test_a_request_without_a_host_is_bad(bridge: Site) -> None:
    with bridge.socket() as peer:
        peer.sendall(b"GET /_roots HTTP/1.1\r\n\r\n")
        assert answer_of(peer)[0] == 400
    with bridge.socket() as peer:
        peer.sendall(b"GET /_roots HTTP/1.0\r\n\r\n")
        assert answer_of(peer)[0] == 200


def test_listed_origins_may_read(tmp_path: Path) -> None:
    with site(tmp_path, broker=False, origins="https://noc.example.org") as bridge:
        origin = {"Origin": "https://noc.example.org"}
        answer = bridge.ask("GET", "/_openapi.json", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://noc.example.org"
        assert "Origin" in answer.headers["vary"]
        asked = bridge.ask("OPTIONS", "/a/b", headers=origin | {"Access-Control-Request-Method": "PUT"})
        assert asked.status == 204 and "PUT" in asked.headers["access-control-allow-methods"]
        assert bridge.ask("GET", "/a", headers={"Origin": "https://other.example.org"}).status == 403


def test_sessions_for_tega_ids_are_bounded(tmp_path: Path) -> None:
    with site(tmp_path, limits__sessions="5") as bridge:
        for number in range(12):
            assert bridge.ask("PUT", f"/a/k{number}?tega_id=id{number}", number).status == 200
        assert bridge.serving.bridge.members.delegated == 5
        client = bridge.client("looker")
        until(lambda: len([each for each in client.inspect("sessions") if each["kind"] == "delegate"]) == 5)
        held = [bridge.ask("POST", f"/_begin?tega_id=id{number}").status for number in range(6)]
        assert held == [200] * 5 + [429]


def test_the_broker_does_not_notice(bridge: Site) -> None:
    client = bridge.client("steady")
    client.put("steady.x", 1)
    before = client.inspect("status")["sessions"]
    connections = []
    for _ in range(50):
        connection = http.client.HTTPConnection(*bridge.address, timeout=20)
        connection.connect()
        connection.sock.sendall(b"PUT /steady/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        connections.append(connection)
    assert client.get("steady.x") == 1
    for connection in connections:
        connection.close()
    assert client.get("steady.x") == 1
    assert client.inspect("status")["sessions"] == before
    assert client.state == "connected"
