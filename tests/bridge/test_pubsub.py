"""/_pubsub with a foreign client: a whole session in the text protocol of the first tega."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as web_socket

from tega_broker.bridge import pubsub
from tega_zmq import errors
from tests.bridgekit import Site, site, url_of
from tests.processes import until


class Talk:
    """A client of the text protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def say(self, line: str, value: Any = ...) -> None:
        self.socket.send(line if value is ... else f"{line}\n{json.dumps(value)}")

    def hear(self) -> tuple[str, Any]:
        """The next message: its line, and what is in the second one."""
        line, _, body = str(self.socket.recv(10)).partition("\n")
        return line, json.loads(body) if body else None

    def notified(self) -> list[Any]:
        line, entries = self.hear()
        assert line == "NOTIFY"
        return [tuple(entry.values()) for entry in entries]


@contextmanager
def talk(bridge: Site, tega_id: str = "", **options: Any) -> Iterator[Talk]:
    """An open session, if there is a tega_id."""
    url = bridge.url.replace("http", "ws") + "/_pubsub"
    with web_socket(url, proxy=None, **options) as socket:
        made = Talk(socket)
        if tega_id:
            made.say(f"SESSION {tega_id} local")
            assert made.hear() == ("SESSIONACK gateway", None)
        yield made


def settle(it: Talk) -> None:
    """Wait until what was said before is done: an error comes after it."""
    it.say("SUBSCRIBE ((( local True")
    line, body = it.hear()
    assert line == "ERROR SUBSCRIBE" and body["error"] == "InvalidValue"


def closed(it: Talk) -> tuple[int, str]:
    """How the other side ended it."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            it.socket.recv(20)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


def test_where_a_change_falls(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-a")
    with talk(bridge, "joe") as joe:
        joe.say(f"SUBSCRIBE {root}.b local False")
        settle(joe)
        noc.put(f"{root}.b", 1)
        assert joe.notified() == [("PUT", f"{root}.b", 1, "noc-a")]
        noc.put(f"{root}.b", {"c": 2})
        assert joe.notified() == [("PUT", f"{root}.b", {"c": 2}, "noc-a")]
        noc.put(f"{root}.b.d.e", 3)
        assert joe.notified() == [("PUT", f"{root}.b.d.e", 3, "noc-a")]
        noc.put(f"{root}.b.d.e", 4)
        assert joe.notified() == [("PUT", f"{root}.b.d.e", 4, "noc-a")]
        noc.delete(f"{root}.b.c")
        assert joe.notified() == [("DELETE", f"{root}.b.c", 2, "noc-a")]
        noc.put(f"{root}.other", 0)
        noc.delete(root)
        assert joe.notified() == [("DELETE", f"{root}.b", {"d": {"e": 4}}, "noc-a")]
        noc.put(root, {"b": 5, "x": 6})
        assert joe.notified() == [("PUT", f"{root}.b", 5, "noc-a")]
        noc.put(f"{root}.b", {"p": 1, "q": 2})
        joe.notified()
        noc.put(f"{root}.b", {"p": 1, "q": 3})
        assert joe.notified() == [("PUT", f"{root}.b", {"p": 1, "q": 3}, "noc-a")]
        noc.put(root, {"b": {"p": 1}, "x": 7})
        assert joe.notified() == [("PUT", f"{root}.b", {"p": 1}, "noc-a")]
        noc.put(root, {"b": {"p": 1}, "x": 8})
        noc.patch(f"{root}.b", {"p": 2, "r": {"s": 1}})
        patched = [("PUT", f"{root}.b.p", 2, "noc-a"), ("PUT", f"{root}.b.r", {"s": 1}, "noc-a")]
        assert joe.notified() == patched
        noc.rollback(root, 0)
        assert joe.notified() == [("ROLLBACK", f"{root}.b", 1, "noc-a", 0)]
        joe.say(f"UNSUBSCRIBE {root}.b False")
        settle(joe)
        noc.put(f"{root}.b", 7)
        settle(joe)


def test_one_frame_a_commit_and_never_to_its_originator(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-b")
    with talk(bridge, "joe") as joe, talk(bridge, "ann") as ann:
        for each in (joe, ann):
            each.say(f"SUBSCRIBE {root} local False")
            each.say(f"SUBSCRIBE {root}.a local False")
            each.say(f"SUBSCRIBE {root}.* global True")
            settle(each)
        with noc.transaction() as tx:
            tx.put(f"{root}.a.b", 1)
            tx.put(f"{root}x.c", 2)
        expected = {("PUT", f"{root}.a.b", "1"), ("PUT", f"{root}x.c", "2")}
        for each in (joe, ann):
            line, entries = each.hear()
            assert line == "NOTIFY"
            assert {(e["ope"], e["path"], json.dumps(e["instance"])) for e in entries} == expected
            assert len(entries) == 2, "each path once"
        assert bridge.ask("PUT", f"/{root}/a/d/?tega_id=joe", 3).status == 200
        assert ann.notified() == [("PUT", f"{root}.a.d", 3, "joe")]
        settle(joe)
        joe.say("UNSUBSCRIBE")
        settle(joe)
        noc.put(f"{root}.a.b", 9)
        assert ann.notified() == [("PUT", f"{root}.a.b", 9, "noc-b")]
        settle(joe)


def test_messages(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-c")
    heard: list[Any] = []
    noc.listen(f"{root}.alerts", heard.append)
    with talk(bridge, "joe") as joe, talk(bridge, "ann") as ann:
        ann.say(f"SUBSCRIBE {root}.alerts local False")
        joe.say(rf"SUBSCRIBE {root}\.al.* local True")
        settle(ann)
        settle(joe)
        joe.say(f"PUBLISH {root}.alerts", {"message": {"level": 3}})
        assert ann.hear() == (f"MESSAGE {root}.alerts joe", {"message": {"level": 3}})
        until(lambda: [(each.value, each.tega_id) for each in heard] == [({"level": 3}, "joe")])
        noc.publish(f"{root}.alerts", None)
        assert joe.hear() == (f"MESSAGE {root}.alerts noc-c", {"message": None})


def test_ephemeral_nodes_and_handlers(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-d")
    put = f"/{root}/joe/?tega_id=joe&ephemeral=True"
    assert bridge.ask("PUT", put, {"up": 1}).error == "Collision", "there is no session"
    with talk(bridge, "joe") as joe:
        assert bridge.ask("PUT", put, {"up": 1}).status == 200
        assert noc.node(f"{root}.joe").ephemeral
        offer = f"/{root}/add/?tega_id=joe&ephemeral=True"
        assert bridge.ask("PUT", offer, "%joe.add").status == 200
        got: list[Any] = []

        def call() -> None:
            try:
                got.append(noc.call(f"{root}.add", 1, k=[2], timeout=10))
            except errors.TegaError as error:
                got.append(error)

        for answer in ({"result": 0}, {"error": "not today"}):
            thread = threading.Thread(target=call)
            thread.start()
            line, body = joe.hear()
            word, number, kind, caller, path = line.split(" ")
            assert (word, kind, caller, path) == ("REQUEST", "RPC", "noc-d", f"{root}.add")
            assert body == {"args": [1], "kwargs": {"k": [2]}}
            joe.say(f"RESPONSE {number} RPC {caller}", answer)
            joe.say(f"RESPONSE {number} RPC {caller}", {"result": "again"})
            thread.join()
        assert got[0] == 0
        assert isinstance(got[1], errors.HandlerError) and "not today" in got[1].message
        thread = threading.Thread(target=call)
        thread.start()
        joe.hear()
    thread.join()
    assert isinstance(got[2], errors.HandlerGone), got
    until(lambda: noc.get(f"{root}.joe", default=None) is None)
    with pytest.raises(errors.NoHandler):
        noc.call(f"{root}.add")


def calling(bridge: Site, path: str) -> socket.socket:
    """A connection that a call was made on; nobody reads its answer."""
    made = bridge.socket()
    head = f"POST /_rpc?path={path}&timeout=3600 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    made.sendall(head.encode())
    return made


def test_calls_end_when_their_callers_hang_up(
    bridge: Site, root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pubsub, "_MAX_CALLS", 3)
    looker, counts = bridge.client("looker"), bridge.serving.bridge.metrics.counts
    before = counts.get("hang_ups", 0)
    path = f"{root}.add"
    with talk(bridge, "joe") as joe:
        offer = f"/{root}/add/?tega_id=joe&ephemeral=True"
        assert bridge.ask("PUT", offer, "%joe.add").status == 200
        for _ in range(2):
            callers = [calling(bridge, path) for _ in range(3)]
            numbers = [joe.hear()[0].split(" ")[1] for _ in callers]
            assert looker.inspect("status")["calls"] == 3
            busy = bridge.ask("POST", f"/_rpc?path={path}")
            assert (busy.status, busy.error, busy.json["type"]) == (429, "HandlerError", "Busy")
            assert busy.headers["retry-after"] == "1"
            for caller in callers:
                caller.close()
            until(lambda: looker.inspect("status")["calls"] == 0)
            joe.say(f"RESPONSE {numbers[0]} RPC the-bridge", {"result": "nobody waits"})
        with calling(bridge, path) as caller:
            number = joe.hear()[0].split(" ")[1]
            joe.say(f"RESPONSE {number} RPC the-bridge", {"result": 7})
            assert caller.recv(65536).endswith(b'{"result":7}')
    assert counts["hang_ups"] == before + 6
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_another_session_takes_over(bridge: Site) -> None:
    with talk(bridge, "joe") as first, talk(bridge, "joe") as second:
        code, reason = closed(first)
        assert code == 1008 and reason.startswith("TakenOver")
        settle(second)


def _still_open(sockets: list[ClientConnection]) -> list[ClientConnection]:
    """Those of `sockets` that were not closed; the others go from it."""
    for each in list(sockets):
        try:
            assert each.recv(0) == "SESSIONACK gateway"
        except TimeoutError:
            pass
        except ConnectionClosed as ended:
            assert ended.rcvd is not None and ended.rcvd.reason.startswith("TakenOver")
            sockets.remove(each)
    return sockets


def test_many_sessions_of_one_tega_id_leave_one_that_is_used(
    bridge: Site, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All but one are told, whatever came first; requests are made in the one that is left."""
    url = bridge.url.replace("http", "ws") + "/_pubsub"
    for _ in range(10):
        with ExitStack() as stack:
            left = [stack.enter_context(web_socket(url, proxy=None)) for _ in range(6)]
            for each in left:
                each.send("SESSION same local")
            until(lambda left=left: len(_still_open(left)) == 1, "all others were told")
            assert bridge.ask("PUT", f"/{root}/same?tega_id=same&ephemeral=True", 1).status == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_one_that_was_taken_over_before_it_was_opened_is_told(
    bridge: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = bridge.serving.bridge.members
    connect = known.connect

    async def slow(tega_id: str, kind: str) -> Any:
        client = await connect(tega_id, kind)
        other = await connect(tega_id, kind)
        while client.state != "taken over":
            await asyncio.sleep(0)
        await other.close()
        return client

    monkeypatch.setattr(known, "connect", slow)
    with talk(bridge) as it:
        it.say("SESSION early local")
        code, reason = closed(it)
    assert (code, reason.split(":")[0]) == (1008, "TakenOver")
    assert known.live("early") is None


@pytest.mark.parametrize("name", ["the-bridge", "gateway"])
def test_the_names_of_bridge_and_broker_are_not_to_be_had(bridge: Site, name: str) -> None:
    with talk(bridge) as it:
        it.say(f"SESSION {name} local")
        code, reason = closed(it)
    assert code == 1008 and "own name" in reason
    assert bridge.ask("GET", "/_health").status == 200


def test_a_name_cannot_forge_a_message(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-n")
    unsaid = bridge.serving.bridge.metrics.counts.get("messages_unsaid", 0)
    with talk(bridge, "joe") as joe:
        joe.say(f"SUBSCRIBE {root}.* local True")
        settle(joe)
        for channel in (
            f'{root} x\n{{"message": "forged"}}',
            f"{root} boss",
            f"{root}\ttab",
            f"{root}\u2028",
        ):
            noc.publish(channel, 1)
        noc.publish(f"{root}.plain", 2)
        assert joe.hear() == (f"MESSAGE {root}.plain noc-n", {"message": 2})
        assert bridge.serving.bridge.metrics.counts["messages_unsaid"] == unsaid + 4
        joe.say(f"PUBLISH {root} boss", {"message": 1})
        line, body = joe.hear()
        assert (line, body["error"]) == ("ERROR PUBLISH", "InvalidValue")
        offer = url_of(root, 'f\n{"args":["forged"]}') + "?tega_id=joe&ephemeral=True"
        answer = bridge.ask("PUT", offer, "%joe.f")
        assert (answer.status, answer.error) == (400, "InvalidPath")
        assert bridge.ask("PUT", url_of(root, "f g") + "?tega_id=joe&ephemeral=True", "%joe.f").status == 200


def test_a_clear_tells_what_was_there(tmp_path: Path) -> None:
    with site(tmp_path) as bridge, talk(bridge, "joe") as joe:
        noc = bridge.client("noc")
        noc.put("a.b", {"c": 1})
        joe.say("SUBSCRIBE a.b local False")
        joe.say("SUBSCRIBE a.*c local True")
        settle(joe)
        assert bridge.ask("POST", "/_clear").status == 200
        told = joe.notified()
        assert told[0] == ("DELETE", "a.b", {"c": 1}, ""), told


def test_a_web_socket_that_is_reset_behind_session_leaves_no_session(tmp_path: Path) -> None:
    """Its Bye comes right before its end: the broker must not forget who said it."""
    made = Site(tmp_path)
    made.broker.settings["session.lease"] = "600"
    hello = (
        b"GET /_pubsub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    try:
        made.start()
        looker = made.client("looker")
        for turn in range(8):
            peers = [made.socket() for _ in range(60)]
            for peer in peers:
                peer.sendall(hello)
            for number, peer in enumerate(peers):
                peer.recv(4096)
                said = f"SESSION leak{turn}-{number} local".encode()
                peer.sendall(bytes((0x81, 0x80 | len(said), 0, 0, 0, 0)) + said)
            for peer in peers:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
        until(lambda: made.serving.bridge.gauges["pubsub_sessions"][1]() == 0)
        until(lambda: not [each for each in looker.inspect("ids") if each.startswith("leak")])
    finally:
        made.close()


@pytest.mark.parametrize(
    ("said", "code"),
    [("HELLO", 1007), ("SUBSCRIBE a local False", 1008), ("SESSION pi/1 local", 1007), (b"\xff", 1007)],
)
def test_what_ends_it(bridge: Site, said: Any, code: int) -> None:
    with talk(bridge) as it:
        it.socket.send(said)
        assert closed(it)[0] == code


def test_two_sessions_on_one_web_socket(bridge: Site) -> None:
    with talk(bridge, "joe") as joe:
        joe.say("SESSION ann local")
        assert closed(joe)[0] == 1008


def test_who_does_not_read_is_closed_and_others_hear(tmp_path: Path) -> None:
    with site(tmp_path, limits__queue="65536") as bridge:
        noc = bridge.client("noc")
        with talk(bridge, "slow", max_queue=1) as slow, talk(bridge, "quick", max_size=None) as quick:
            for each in (slow, quick):
                each.say("SUBSCRIBE big.x local False")
            settle(slow)
            settle(quick)
            heard = 0
            while "slow_subscribers" not in bridge.serving.bridge.metrics.counts:
                noc.put("big.x", f"{heard}" + "x" * 300_000)
                assert len(quick.notified()[0][2]) > 300_000
                heard += 1
                assert heard < 1000
            until(lambda: "slow" not in {each["tega_id"] for each in noc.inspect("sessions")})
            noc.put("big.x", 1)
            assert quick.notified() == [("PUT", "big.x", 1, "noc")]


def test_the_broker_goes_and_comes(tmp_path: Path) -> None:
    with site(tmp_path) as bridge, talk(bridge, "joe") as joe:
        joe.say("SUBSCRIBE a.b local False")
        settle(joe)
        bridge.broker.kill()
        bridge.broker.start()
        noc = bridge.client("noc")
        noc.put("a.b", 1)
        assert joe.notified() == [("PUT", "a.b", 1, "noc")]
        bridge.run(bridge.serving.bridge.stop("the bridge is stopping"))
        assert closed(joe) == (1001, "the bridge is stopping")


def test_the_handshake_is_answered_as_all_else_is(bridge: Site) -> None:
    timed = sum(bridge.serving.bridge.metrics.seconds)
    with talk(bridge, "joe", additional_headers={"X-Request-Id": "mine-7"}) as joe:
        assert joe.socket.response is not None
        headers = joe.socket.response.headers
        assert (headers["Server"], headers["X-Request-Id"]) == ("tega-bridge", "mine-7")
    until(lambda: bridge.serving.bridge.gauges["pubsub_sessions"][1]() == 0)
    until(lambda: bridge.serving.bridge.metrics.requests.get(("GET", 101)))
    assert sum(bridge.serving.bridge.metrics.seconds) == timed, "how long it stood says nothing of the bridge"
