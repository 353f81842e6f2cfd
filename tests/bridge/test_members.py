"""The bridge's sessions at the broker: its own, delegated ones, and those that a WebSocket holds open."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tega_broker.bridge import members
from tega_zmq import aio
from tega_zmq.paths import Path as Oids
from tests.bridgekit import Site, site
from tests.processes import until


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A bridge that closes idle sessions soon."""
    monkeypatch.setattr(members, "_IDLE", 0.2)
    monkeypatch.setattr(members, "_SWEEP", 0.05)
    with site(tmp_path) as made:
        yield made


class Live:
    """What a WebSocket of a tega_id would be."""

    def __init__(self, client: aio.Client) -> None:
        self.client = client
        self.offered: dict[Oids, str] = {}

    async def offer(self, path: Oids, name: str) -> None:
        self.offered[path] = name

    async def withdraw(self, path: Oids) -> bool:
        return self.offered.pop(path, None) is not None


@pytest.fixture
def ann(bridge: Site) -> Iterator[Live]:
    """A live session of `ann`."""
    known = bridge.serving.bridge.members
    live = Live(bridge.run(known.connect("ann", "client")))
    known.attach("ann", live)
    try:
        yield live
    finally:
        known.detach("ann", live)
        bridge.run(live.client.close())


def test_an_idle_session_is_closed(quick: Site) -> None:
    known, client = quick.serving.bridge.members, quick.client("looker")
    assert quick.ask("PUT", "/a/b?tega_id=joe", 1).status == 200
    assert known.delegated == 1
    until(lambda: known.delegated == 0)
    until(lambda: "joe" not in client.inspect("ids"))
    assert quick.ask("PUT", "/a/b?tega_id=joe", 2).status == 200


def test_one_with_an_open_transaction_is_not(quick: Site) -> None:
    known = quick.serving.bridge.members
    txid = quick.ask("POST", "/_begin?tega_id=joe").json["txid"]
    quick.ask("PUT", "/a/other?tega_id=other", 1)
    until(lambda: known.delegated == 1)
    assert quick.ask("PUT", f"/a/b?txid={txid}", 1).status == 200
    assert quick.ask("POST", f"/_commit?txid={txid}").status == 200
    until(lambda: known.delegated == 0)
    assert quick.ask("GET", "/_log?path=a.b").json[0]["tega_id"] == "joe"


def test_requests_of_one_tega_id_share_a_session(bridge: Site, root: str) -> None:
    known = bridge.serving.bridge.members
    for number in range(5):
        bridge.ask("PUT", f"/{root}/k{number}?tega_id=sharer", number)
    found = [each for each in bridge.client("eye").inspect("sessions") if each["tega_id"] == "sharer"]
    assert [each["kind"] for each in found] == ["delegate"]
    assert known.state == "connected" and known.server == "gateway"


def test_a_live_session_is_used_and_holds_ephemeral_nodes(bridge: Site, root: str, ann: Live) -> None:
    assert bridge.ask("PUT", f"/{root}/a?tega_id=ann", 1).status == 200
    assert bridge.ask("PUT", f"/{root}/e?tega_id=ann&ephemeral=True", {"x": 1}).json["versions"] == {root: 1}
    assert bridge.ask("GET", f"/{root}/e?internal=True").json["_ephemeral"] is True
    sessions = bridge.client("eye").inspect("sessions")
    assert [each["kind"] for each in sessions if each["tega_id"] == "ann"] == ["client"]
    assert bridge.ask("PUT", f"/{root}/e?tega_id=ann&ephemeral=True&version=0", 2).status == 409
    assert bridge.ask("PUT", f"/{root}/e?tega_id=ann&ephemeral=True&txid=1", 2).status == 400
    # The first tega's Go driver: an empty PATCH makes what is there ephemeral.
    assert bridge.ask("PATCH", f"/{root}/a?tega_id=ann").status == 200
    assert bridge.ask("GET", f"/{root}/a?internal=True").json["_ephemeral"] is True
    bridge.run(ann.client.close())
    until(lambda: bridge.ask("GET", f"/{root}/e").status == 404)
    assert bridge.ask("GET", f"/{root}/a").status == 404


def test_a_handler_is_offered_where_its_name_is_put(bridge: Site, root: str, ann: Live) -> None:
    path: Any = (root, "max")
    assert bridge.ask("PUT", f"/{root}/max?tega_id=ann&ephemeral=True", "%ann.max").status == 200
    assert ann.offered == {path: "max"}
    assert bridge.ask("GET", f"/{root}/max").status == 404, "it is no node of the tree"
    assert bridge.ask("DELETE", f"/{root}/max?tega_id=ann").status == 200
    assert not ann.offered
    assert bridge.ask("DELETE", f"/{root}/max?tega_id=ann").status == 404
    for text in ("%bob.max", "%ann.", "ann.max"):
        assert bridge.ask("PUT", f"/{root}/other?tega_id=ann&ephemeral=True", text).status == 200
    assert not ann.offered


def test_a_transaction_of_a_live_session(bridge: Site, root: str, ann: Live) -> None:
    txid = bridge.ask("POST", "/_begin?tega_id=ann").json["txid"]
    assert bridge.ask("PUT", f"/{root}/a?txid={txid}", 1).status == 200
    assert bridge.ask("POST", f"/_commit?txid={txid}").json["versions"] == {root: 0}
    assert bridge.ask("GET", f"/_log?path={root}").json[0]["tega_id"] == "ann"


def test_a_transaction_of_a_live_session_that_is_over_is_gone(bridge: Site) -> None:
    known = bridge.serving.bridge.members
    live = Live(bridge.run(known.connect("eve", "client")))
    known.attach("eve", live)
    txids = [bridge.ask("POST", "/_begin?tega_id=eve").json["txid"] for _ in range(2)]
    other = bridge.client("eve")
    until(lambda: live.client.state == "taken over")
    answer = bridge.ask("PUT", f"/a/b?txid={txids[0]}", 1)
    assert (answer.status, answer.error) == (410, "TransactionExpired")
    known.detach("eve", live)
    bridge.run(live.client.close())
    answer = bridge.ask("POST", f"/_commit?txid={txids[1]}")
    assert (answer.status, answer.error) == (410, "TransactionExpired")
    other.close()


def test_the_newest_live_session_is_used(bridge: Site) -> None:
    known = bridge.serving.bridge.members
    newer = Live(bridge.run(known.connect("two", "client")))
    older = Live(bridge.run(known.connect("two", "client")))
    known.attach("two", older)
    known.attach("two", newer)
    until(lambda: newer.client.state == "taken over")
    assert known.live("two") is older, "one that was taken over is none"
    known.detach("two", newer)
    assert known.live("two") is older
    known.detach("two", older)
    assert known.live("two") is None
    for each in (newer, older):
        bridge.run(each.client.close())


def test_a_write_in_a_transaction_does_not_wait_for_a_broker_that_is_away(tmp_path: Path) -> None:
    with site(tmp_path) as bridge:
        txid = bridge.ask("POST", "/_begin?tega_id=joe").json["txid"]
        bridge.broker.kill()
        until(lambda: bridge.ask("GET", "/_health").status == 503)
        for method, target in (("PUT", f"/a/b?txid={txid}"), ("POST", f"/_commit?txid={txid}")):
            answer = bridge.ask(method, target, 1)
            assert (answer.status, answer.error) == (503, "Disconnected"), answer
            assert answer.json["outcome"] == "none"


def test_the_bridge_takes_its_own_session_back(bridge: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tega")
    known = bridge.serving.bridge.members
    txid = bridge.ask("POST", "/_begin").json["txid"]
    own = bridge.run(known.own())
    other = bridge.client("the-bridge")
    until(lambda: other.state == "taken over")
    until(lambda: bridge.ask("GET", "/_health").status == 200)
    assert own.state == "closed"
    assert bridge.ask("PUT", "/own/x", 1).status == 200
    assert bridge.ask("POST", f"/_commit?txid={txid}").status == 410
    said = [record.getMessage() for record in caplog.records if record.name == "tega"]
    assert said == [
        "another program said hello as this bridge; its session is opened anew",
        "the bridge's own session is open again",
    ]


def test_a_restart_of_the_broker_ends_transactions_not_sessions(tmp_path: Path) -> None:
    with site(tmp_path) as bridge:
        txid = bridge.ask("POST", "/_begin?tega_id=joe").json["txid"]
        bridge.ask("PUT", f"/a/b?txid={txid}", 1)
        bridge.broker.kill()
        bridge.broker.start()
        until(lambda: bridge.ask("GET", "/_health").status == 200)
        until(lambda: bridge.ask("POST", f"/_commit?txid={txid}").status == 410)
        assert bridge.ask("PUT", "/a/b?tega_id=joe", 2).status == 200
        assert bridge.ask("GET", "/_log?path=a").json[0]["tega_id"] == "joe"
