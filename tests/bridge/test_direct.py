"""The straight way of plain requests: nobody can tell it from the other one, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tega_broker.bridge import connection, direct
from tega_zmq.client.aiodriver import AsyncDriver
from tests.bridgekit import Site, site
from tests.processes import until

HEAD = b"HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of the requests that went the straight way, as they went."""
    went: list[str] = []
    begin = direct.begin

    def noted(connection: Any, bridge: Any, message: Any, payload: Any) -> bool:
        went.append(message.method)  # before somebody can have the answer
        taken = begin(connection, bridge, message, payload)
        if not taken:
            went.pop()
        return taken

    monkeypatch.setattr(direct, "begin", noted)
    return went


@contextmanager
def stopped_broker(made: Site) -> Iterator[None]:
    """The broker answers nothing within the block."""
    assert made.broker.process is not None
    os.kill(made.broker.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(made.broker.process.pid, signal.SIGCONT)


def in_flight(made: Site) -> bool:
    """Whether a request waits for the broker."""
    client = made.serving.bridge.members.ready()
    return client is not None and client._driver.engine.session.pending > 0


def read_until(peer: socket.socket, enough: Callable[[bytes], bool]) -> bytes:
    got = b""
    while not enough(got):
        part = peer.recv(65536)
        if not part:
            break
        got += part
    return got


def is_whole(got: bytes) -> bool:
    """Whether `got` is a whole answer."""
    head, end, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


@pytest.fixture(autouse=True)
def with_this_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have these tests say whether it works with the aiohttp that is installed, tried before or not."""
    monkeypatch.setattr(direct, "STRAIGHT", direct.FITS)


def test_this_aiohttp_has_what_it_needs() -> None:
    assert direct.FITS


def test_a_request_that_names_no_host_is_refused(bridge: Site, root: str, straight: list[str]) -> None:
    for method in ("GET", "PUT"):
        with bridge.socket() as peer:
            peer.sendall(f"{method} /{root}/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
            assert read_until(peer, is_whole).split(b" ")[1] == b"400", method
    assert straight == []


def test_the_answers_are_the_same(bridge: Site, root: str, straight: list[str]) -> None:
    def asked(method: str, path: str, body: bytes = b"") -> list[bytes]:
        """The answer by the straight way and by the other one, apart from what is always another."""
        answers = []
        for target in (path, path + "?"):
            with bridge.socket() as peer:
                length = f"Content-Length: {len(body)}\r\n" if body else ""
                peer.sendall(f"{method} {target} ".encode() + HEAD + f"{length}\r\n".encode() + body)
                got = read_until(peer, is_whole)
            got = re.sub(rb"Date: [^\r]+", b"Date", re.sub(rb"X-Request-Id: [^\r]+", b"Id", got))
            answers.append(
                re.sub(rb'"revision":\d+', b"", re.sub(rb'("%s":)\d+' % root.encode(), rb"\1", got))
            )
        return answers

    big = json.dumps({f"k{number}": "x" * 50 for number in range(100)}).encode()
    for method, path, body in (
        ("PUT", f"/{root}/a/", b'{"b": 1, "a": [1.5, null, true, "\xc3\xa4", {}]}'),
        ("GET", f"/{root}/a", b""),
        ("GET", f"/{root}/a/b/", b""),
        ("PUT", f"/{root}/big", big),
        ("GET", f"/{root}/big", b""),
        ("GET", f"/{root}/none", b""),
        ("GET", f"/{root}//none", b""),
        ("GET", f"/{root}/%ff", b""),
        ("GET", "/", b""),
        ("PUT", f"/{root}/a", b""),
        ("PUT", f"/{root}/a", b"{"),
        ("PUT", f"/{root}/a", b'{"_a": 1}'),
        ("PUT", f"/{root}/a", b'{"a": 1, "a": 2}'),
        ("PUT", f"/{root}/a", b"1" + b"0" * 30),
    ):
        before = len(straight)
        one, other = asked(method, path, body)
        assert straight[before:] == [method], path
        assert one == other


def test_it_is_counted_and_logged(
    tmp_path: Path, straight: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with site(tmp_path, access_log="all") as made, caplog.at_level("INFO", "tega"):
        made.ask("PUT", "/a/b", 1)
        assert made.ask("GET", "/a/b", headers={"X-Request-Id": "mine"}).headers["x-request-id"] == "mine"
        made.ask("GET", "/a/c")
        requests = made.serving.bridge.metrics.requests
        assert (requests["PUT", 200], requests["GET", 404]) == (1, 1)
        assert straight == ["PUT", "GET", "GET"]
    logged = [record.fields for record in caplog.records if record.name == "tega.access"]  # type: ignore[attr-defined]
    said = [(each["method"], each["path"], each["status"], each["from"]) for each in logged[-3:]]
    assert said == [
        ("PUT", "/a/b", 200, "127.0.0.1"),
        ("GET", "/a/b", 200, "127.0.0.1"),
        ("GET", "/a/c", 404, "127.0.0.1"),
    ]
    assert logged[-2]["id"] == "mine"


def test_what_is_not_usual_goes_the_other_way(bridge: Site, root: str, straight: list[str]) -> None:
    bridge.ask("PUT", f"/{root}/a", 1)
    tag = bridge.ask("GET", f"/{root}/a").headers["etag"]
    straight.clear()
    assert bridge.ask("GET", f"/{root}/a?version=0").status == 200
    assert bridge.ask("GET", f"/{root}/a", headers={"If-None-Match": tag}).status == 304
    assert bridge.ask("GET", f"/{root}/a", headers={"Host": "evil.example"}).status == 403
    assert bridge.ask("GET", f"/{root}/a", headers={"Origin": "http://evil.example"}).status == 403
    assert bridge.ask("GET", f"/{root}/a", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    assert bridge.ask("PUT", f"/{root}/a", 2, headers={"If-None-Match": "*"}).status == 409
    assert bridge.ask("PUT", f"/{root}/a", 2, headers={"If-Match": '"no"'}).status == 409
    assert bridge.ask("PUT", f"/{root}/a", ["x" * 70_000]).status == 200
    assert bridge.ask("HEAD", f"/{root}/a").body == b""
    assert bridge.ask("DELETE", f"/{root}/a").status == 200
    with bridge.socket() as peer:
        peer.sendall(f"GET /{root}/a HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        assert b" 404 " in read_until(peer, lambda _: False)
    assert straight == []


def test_requests_that_come_together_are_answered_in_order(
    bridge: Site, root: str, straight: list[str]
) -> None:
    wanted = []
    for number in range(200):
        bridge.ask("PUT", f"/{root}/n{number}", f"value {number}") if number < 100 else None
        wanted.append(f'"value {number}"' if number < 100 else "NotFound")
    straight.clear()
    with bridge.socket() as peer:
        asked = b"".join(f"GET /{root}/n{number} ".encode() + HEAD + b"\r\n" for number in range(200))
        peer.sendall(asked)
        got = read_until(peer, lambda got: got.count(b"HTTP/1.1") == 200 and got.endswith(b"}"))
    found = re.findall(r'"value \d+"|NotFound', got.decode())
    assert found == wanted
    assert straight


@pytest.mark.parametrize("patience", [0.0, 20.0])
def test_a_body_may_come_after_its_head(
    bridge: Site, root: str, straight: list[str], patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_BODY", patience)
    with bridge.socket() as peer:
        for number in range(3):
            for part in (
                f"PUT /{root}/a ".encode() + HEAD,
                b"Content-Length: 2\r\n\r\n",
                b"4",
                b"%d" % number,
            ):
                peer.sendall(part)
                time.sleep(0.02)  # so that they come one by one, most often
            assert b" 200 " in read_until(peer, is_whole)
            assert bridge.ask("GET", f"/{root}/a").json == 40 + number
    if patience:
        assert straight == ["PUT", "GET"] * 3


def test_many_requests_behind_a_late_body_are_answered(bridge: Site, root: str) -> None:
    # aiohttp's parser stops at 32, and counts one more where a request was taken before its body had come.
    put = f"PUT /{root}/w".encode(), HEAD + b"Content-Length: 2\r\n\r\n"
    for first in (b" ".join(put), b"? ".join(put)):
        with bridge.socket() as peer:
            peer.sendall(first)
            assert not select.select([peer], [], [], 0.1)[0]
            peer.sendall(b"12" + (b" ".join(put) + b"34") * 40)
            got = read_until(peer, lambda got: got.count(b"HTTP/1.1 200 OK") == 41)
            assert got.count(b"HTTP/1.1 200 OK") == 41


def test_who_has_gone_is_not_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with site(tmp_path) as made:
        bridge = made.serving.bridge
        made.ask("PUT", "/r/a", 1)
        before = dict(bridge.metrics.requests)
        with stopped_broker(made):
            for target in ("/r/a", "/r/none"):
                with made.socket() as peer:
                    peer.sendall(f"GET {target} ".encode() + HEAD + b"\r\n")
                    until(lambda: in_flight(made))
            with made.socket() as peer:
                peer.sendall(b"PUT /r/a " + HEAD + b"Content-Length: 1\r\n\r\n2")
                until(lambda: bridge.members.ready()._driver.engine.session.pending >= 3)  # type: ignore[union-attr]
            until(lambda: bridge.connections <= 1)
        until(lambda: not in_flight(made))
        until(lambda: bridge.metrics.requests.get(("PUT", 200), 0) == before["PUT", 200] + 1)
        assert bridge.metrics.requests["GET", 404] == before.get(("GET", 404), 0) + 1
        assert made.ask("GET", "/r/a").json == 2
        assert bridge._server is not None
        until(lambda: len(bridge._server.connections) <= 1)  # type: ignore[union-attr]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_orderly_stop_waits_for_it(tmp_path: Path) -> None:
    with site(tmp_path) as made, made.socket() as peer, made.socket() as late:
        made.ask("PUT", "/r/a", 1)
        stopping = threading.Thread(target=lambda: made.run(made.serving.stop()))
        with stopped_broker(made):
            peer.sendall(b"GET /r/a " + HEAD + b"\r\n")
            late.sendall(b"PUT /r/b " + HEAD + b"Content-Length: 1\r\n\r\n")
            until(lambda: in_flight(made))
            stopping.start()
            until(lambda: made.serving.bridge.stopping)
            time.sleep(0.2)  # until it waits
        assert read_until(peer, lambda _: False).endswith(b"\r\n\r\n1")
        stopping.join(20)
        assert not stopping.is_alive()
        assert late.recv(100)[:12] in (b"", b"HTTP/1.1 503", b"HTTP/1.1 408")


def test_no_answer_before_the_deadline(tmp_path: Path, straight: list[str]) -> None:
    with site(tmp_path, limits__timeout="0.5") as made:
        made.ask("PUT", "/r/a", 1)
        with stopped_broker(made):
            straight.clear()
            answer = made.ask("PUT", "/r/a", 2)
            assert (answer.status, answer.error, answer.json["outcome"]) == (504, "Timeout", "unknown")
            assert made.ask("GET", "/r/a").status == 504
            assert straight == ["PUT", "GET"]
        until(lambda: made.ask("GET", "/r/a").status == 200)


def test_writes_beyond_what_a_session_may_have_wait(
    bridge: Site, root: str, straight: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = bridge.serving.bridge.members.ready()
    assert client is not None
    writes = client._writes

    async def taken() -> None:
        while not writes.locked():
            await writes.acquire()

    async def given(count: int) -> None:
        for _ in range(count):
            writes.release()

    free = writes._value
    bridge.run(taken())
    answers: list[int] = []
    connection = bridge.connection()
    asking = threading.Thread(
        target=lambda: answers.append(bridge.ask("PUT", f"/{root}/a", 1, on=connection).status)
    )
    asking.start()
    time.sleep(0.1)  # it waits
    assert not answers and not straight
    bridge.run(given(free))
    asking.join(20)
    connection.close()
    assert answers == [200]
    bridge.ask("PUT", f"/{root}/a", 2)
    assert straight == ["PUT"]
    assert writes._value == free, "each gives back what it took"


def test_a_fault_of_the_bridge_is_no_500(
    bridge: Site, root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(direct, "as_node", broken)
    answer = bridge.ask("GET", f"/{root}/a")
    assert (answer.status, answer.error) == (404, "NotFound")
    bridge.ask("PUT", f"/{root}/a", 1)
    answer = bridge.ask("GET", f"/{root}/a")
    assert (answer.status, answer.error) == (503, "TegaError")
    assert "a bug" in caplog.text
    monkeypatch.setattr(AsyncDriver, "begin", broken)
    assert bridge.ask("PUT", f"/{root}/a", 1).status == 503
    monkeypatch.undo()
    assert bridge.ask("GET", f"/{root}/a").json == 1


def test_without_it_all_go_the_other_way(
    bridge: Site, root: str, straight: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "STRAIGHT", False)
    connection = bridge.connection()
    for number in range(3):
        assert bridge.ask("PUT", f"/{root}/a", number, on=connection).status == 200
        assert bridge.ask("GET", f"/{root}/a", on=connection).json == number
    connection.close()
    assert straight == []
