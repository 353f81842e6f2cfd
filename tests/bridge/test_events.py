"""Server-Sent Events: changes over plain HTTP, and how a follower comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bridgekit import Site, site
from tests.processes import until


class Follower:
    """One stream, read event by event."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.last = ""
        self.comments: list[str] = []

    def event(self) -> dict[str, Any]:
        """The next event."""
        found: dict[str, str] = {}
        while True:
            line = self.response.readline().decode()
            assert line, "the stream ended"
            line = line.rstrip("\n")
            if line.startswith(":"):
                self.comments.append(line)
            elif not line and "data" in found:
                break
            elif line:
                name, _, value = line.partition(": ")
                found[name] = value
        self.last = found.get("id", self.last)
        return dict(json.loads(found["data"]), event=found.get("event"))

    def told(self) -> list[tuple[Any, ...]]:
        event = self.event()
        return [(event["version"], each["ope"], each["path"], each["instance"]) for each in event["changes"]]


@contextmanager
def follow(bridge: Site, target: str, last: str = "") -> Iterator[Follower]:
    connection = bridge.connection()
    connection.request("GET", target, headers={"Last-Event-ID": last} if last else {})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    try:
        yield Follower(response)
    finally:
        response.close()
        connection.close()


def test_from_a_version_on_and_then_live(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-e")
    for number in range(4):
        noc.put(f"{root}.n", number)
    with follow(bridge, f"/{root}/n/?watch=1&from_version=1") as it:
        assert it.told() == [(2, "PUT", f"{root}.n", 2)]
        assert it.told() == [(3, "PUT", f"{root}.n", 3)]
        noc.delete(root)
        assert it.told() == [(4, "DELETE", f"{root}.n", 3)]
        noc.rollback(root, 0, message="back")
        event = it.event()
        assert event["message"] == "back" and event["tega_id"] == "noc-e"
        assert event["changes"][0] == {
            "ope": "ROLLBACK",
            "path": f"{root}.n",
            "instance": 0,
            "tega_id": "noc-e",
            "backto": 0,
        }
        noc.put(f"{root}.m", 1)
        noc.rollback(root, 1)
        it.event()
    with follow(bridge, f"/{root}/?watch=1&from_version=6") as it:
        assert it.event()["changes"] == [
            {
                "ope": "ROLLBACK",
                "path": f"{root}.m",
                "instance": 1,
                "tega_id": "noc-e",
                "backto": 1,
                "deleted": True,
            },
            {"ope": "ROLLBACK", "path": f"{root}.n", "instance": 1, "tega_id": "noc-e", "backto": 1},
        ]
    with follow(bridge, f"/{root}/n?watch=1&from_version=3") as it:
        assert [it.told()[0][0], it.told()[0][0]] == [4, 5]


def test_who_comes_back_misses_nothing(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-f")
    noc.put(f"{root}.n", 0)
    last = ""
    heard: list[int] = []
    with follow(bridge, f"/{root}/?watch=1") as it:
        noc.put(f"{root}.n", 1)
        heard.append(it.told()[0][3])
        last = it.last
    for start in range(2, 40, 4):
        for number in range(start, start + 4):
            noc.put(f"{root}.n", number)
        with follow(bridge, f"/{root}/?watch=1", last) as it:
            heard += [it.told()[0][3] for _ in range(2)]
            last = it.last
    with follow(bridge, f"/{root}/?watch=1", last) as it:
        while heard[-1] != 41:
            heard.append(it.told()[0][3])
    assert heard == list(range(1, 42))


def test_one_event_a_commit(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-g")
    noc.put(root, {"a": 1, "b": 1})
    with follow(bridge, f"/{root}/?watch=1&tega_id=ann") as it:
        with noc.transaction() as tx:
            tx.put(f"{root}.a", 2)
            tx.put(f"{root}.b", 2)
        assert it.told() == [(1, "PUT", f"{root}.a", 2), (1, "PUT", f"{root}.b", 2)]


def test_versions_that_are_only_on_the_disk_are_told_too(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-h")
    for number in range(150):
        noc.put(f"{root}.n", number)
    with follow(bridge, f"/{root}/?watch=1&from_version=3") as it:
        assert [it.told()[0][3] for _ in range(4, 150)] == list(range(4, 150))
        noc.put(f"{root}.n", 150)
        assert it.told() == [(150, "PUT", f"{root}.n", 150)]


def test_who_followed_another_life_of_the_root_reads_it_anew(bridge: Site, root: str) -> None:
    bridge.client("noc-h2").put(f"{root}.n", 1)
    answer = bridge.ask("GET", f"/{root}/?watch=1", headers={"Last-Event-ID": "another-149"})
    assert (answer.status, answer.error) == (410, "Compacted")
    assert answer.json["version"] == 149


def test_what_is_refused(bridge: Site, root: str) -> None:
    assert bridge.ask("GET", f"/{root}/?watch=1&from_version=new").status == 400
    assert bridge.ask("GET", f"/{root}/?watch=1", headers={"Last-Event-ID": "x"}).status == 400
    assert bridge.ask("GET", "/?watch=1").error == "InvalidPath"
    assert bridge.ask("GET", f"/{root}/?watch=maybe").status == 400


def test_a_root_that_does_not_exist_yet(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-i")
    with follow(bridge, f"/{root}/a/?watch=1&from_version=0") as it:
        noc.put(f"{root}.a", 1)
        assert it.told() == [(0, "PUT", f"{root}.a", 1)]


def test_a_root_that_was_deleted_tells_all_that_is_kept(bridge: Site, root: str) -> None:
    noc = bridge.client("noc-j")
    noc.put(f"{root}.n", 0)
    noc.put(f"{root}.n", 1)
    noc.delete(root)
    with follow(bridge, f"/{root}/n/?watch=1&from_version=0") as it:
        assert it.told() == [(1, "PUT", f"{root}.n", 1)]
        assert it.told() == [(2, "DELETE", f"{root}.n", 1)]
        last = it.last
        noc.put(f"{root}.n", 3)
        assert it.told() == [(3, "PUT", f"{root}.n", 3)]
    for target, header in ((f"/{root}/n/?watch=1&from_version=2", ""), (f"/{root}/n/?watch=1", last)):
        with follow(bridge, target, header) as it:
            assert it.told() == [(3, "PUT", f"{root}.n", 3)]


def test_a_clear_ends_a_stream_at_once(tmp_path: Path) -> None:
    with site(tmp_path) as bridge:
        noc = bridge.client("noc")
        noc.put("a.b", 1)
        with follow(bridge, "/a/b?watch=1") as it:
            noc.put("a.b", 2)
            assert it.told() == [(1, "PUT", "a.b", 2)]
            last = it.last
            assert bridge.ask("POST", "/_clear").status == 200
            assert it.event() == {"version": -1, "event": "compacted"}
            assert it.response.read() == b""
        answer = bridge.ask("GET", "/a/b?watch=1", headers={"Last-Event-ID": last})
        assert (answer.status, answer.error) == (410, "Compacted")
        with follow(bridge, "/a/b?watch=1&from_version=-1") as it:
            noc.put("a.b", 3)
            assert it.told() == [(0, "PUT", "a.b", 3)]


def test_a_stream_is_answered_as_all_else_is(bridge: Site, root: str) -> None:
    bridge.client("noc-k").put(f"{root}.n", 0)
    requests = bridge.serving.bridge.metrics
    timed = sum(requests.seconds)
    for query in ("watch=1", "w%61tch=1"):
        with follow(bridge, f"/{root}/?{query}") as it:
            headers = it.response.headers
            assert headers["Server"] == "tega-bridge"
            assert headers["X-Request-Id"]
    assert bridge.ask("GET", f"/{root}/?nowatch=1").json == {"n": 0}
    until(lambda: bridge.serving.bridge.gauges["event_streams"][1]() == 0)
    assert sum(requests.seconds) == timed + 1, "how long a stream stays says nothing of the bridge"


def test_kept_alive_cut_and_stopped(tmp_path: Path) -> None:
    with site(tmp_path, ping="0.05") as bridge:
        noc = bridge.client("noc")
        noc.put("a.b", 0)
        streams = bridge.serving.bridge.gauges["event_streams"][1]
        with follow(bridge, "/a/?watch=1") as it:
            assert streams() == 1
            line = ""
            while not line.startswith(":"):
                line = it.response.readline().decode()
        until(lambda: streams() == 0, "who hung up is noticed")
        with follow(bridge, "/a/?watch=1") as it:
            bridge.broker.kill()
            bridge.broker.start()
            bridge.client().put("a.b", 1)
            assert it.told() == [(1, "PUT", "a.b", 1)]
            bridge.run(bridge.serving.bridge.stop("the bridge is stopping"))
            assert b"the bridge is stopping" in it.response.read()


def test_who_does_not_read_is_given_up(tmp_path: Path) -> None:
    with site(tmp_path, limits__queue="65536", limits__slow="0.5") as bridge:
        noc = bridge.client("noc")
        noc.put("big.x", "")
        with bridge.socket() as slow:
            slow.sendall(b"GET /big/x?watch=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: bridge.serving.bridge.gauges["event_streams"][1]() == 1)
            for number in range(30):
                noc.put("big.x", f"{number}" + "x" * 300_000)
            until(lambda: bridge.serving.bridge.gauges["event_streams"][1]() == 0)
            assert bridge.serving.bridge.metrics.counts["slow_peers"] == 1


def test_who_falls_behind_is_told_all(tmp_path: Path) -> None:
    with site(tmp_path, limits__queue="65536") as bridge:
        noc = bridge.client("noc")
        sizes = [f"{number}-" + "x" * (400_000 if number % 4 else 10) for number in range(40)]
        for value in sizes[:20]:
            noc.put("big.x", value)
        with follow(bridge, "/big/x?watch=1&from_version=-1000") as it:
            assert [it.told()[0] for _ in range(10)] == [
                (number, "PUT", "big.x", value) for number, value in enumerate(sizes[:10])
            ]
            for value in sizes[20:]:
                noc.put("big.y", value[:100])  # of which it hears nothing
                noc.put("big.x", value)
            heard = [it.told()[0][3] for _ in range(30)]
            assert heard == sizes[10:]
            noc.delete("big.x")
            assert it.told() == [(60, "DELETE", "big.x", sizes[-1])]


def test_what_is_quiet_can_be_followed_from_any_version(tmp_path: Path) -> None:
    with site(tmp_path) as bridge:
        noc = bridge.client("noc")
        noc.put("a.quiet", 1)
        for number in range(150):
            noc.put("a.loud", number)
        with follow(bridge, "/a/quiet?watch=1&from_version=0") as it:
            noc.put("a.quiet", 2)
            assert it.told() == [(151, "PUT", "a.quiet", 2)]
        with follow(bridge, "/a/quiet?watch=1", f"{noc.node('a').epoch}-0") as it:
            noc.put("a.quiet", 3)
            assert [it.told()[0][3] for _ in range(2)] == [2, 3]
        with follow(bridge, "/a/quiet?watch=1&from_version=-1000") as it:
            assert [it.told()[0] for _ in range(3)] == [
                (0, "PUT", "a.quiet", 1),
                (151, "PUT", "a.quiet", 2),
                (152, "PUT", "a.quiet", 3),
            ]


def test_a_root_of_any_size_can_be_followed_and_written(tmp_path: Path) -> None:
    with site(tmp_path) as bridge:
        noc = bridge.client("noc")
        for number in range(16):
            noc.put(f"large.k{number}", {f"n{each}": "v" * 2000 for each in range(250)})
        with follow(bridge, "/large/k1/n1?watch=1&from_version=-1") as it:
            noc.put("large.k1.n1", 2)
            last = it.told() and it.last
        with follow(bridge, "/large/k1/n1?watch=1", last) as it:
            noc.put("large.k1.n1", 3)
            assert it.told()[0][3] == 3
        tag = bridge.ask("HEAD", "/large").headers["etag"]
        assert bridge.ask("PATCH", "/large", {"k0": None}, headers={"If-Match": tag}).status == 200
        assert bridge.ask("DELETE", "/large", headers={"If-Match": tag}).status == 409
        assert bridge.ask("DELETE", "/large", headers={"If-Match": "*"}).status == 200
