"""REST, the rest: transactions, management, listings, history, calls, health and numbers."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tega_broker.bridge import rest_manage
from tega_broker.bridge.openapi import describe
from tega_broker.bridge.table import DATA
from tests.bridgekit import Site, site
from tests.processes import until


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Site]:
    """A broker and bridge for one test."""
    with site(tmp_path) as made:
        yield made


def txid(bridge: Site, query: str = "") -> str:
    answer = bridge.ask("POST", f"/_begin{query}")
    assert answer.status == 200
    return str(answer.json["txid"])


# -- transactions ----------------------------------------------------------------------------------


def test_a_transaction_is_one_commit_that_nobody_sees_before(bridge: Site, root: str) -> None:
    tx = txid(bridge, "?tega_id=joe")
    assert bridge.ask("PUT", f"/{root}/a?txid={tx}&tega_id=joe", 1).json == {"txid": tx}
    # The txid finds its session, whatever the tega_id says.
    assert bridge.ask("PATCH", f"/{root}?txid={tx}&tega_id=other", {"b": {"c": 2}}).status == 200
    assert bridge.ask("DELETE", f"/{root}/a?txid={tx}").status == 200
    assert bridge.ask("GET", f"/{root}?txid={tx}").status == 404, "committed state, also with a txid"
    assert bridge.ask("POST", f"/_cand?txid={tx}").json == {root: {"b": {"c": 2}}}
    detail = bridge.ask("POST", f"/_cand?txid={tx}&detail=1").json
    assert detail["roots"] == {root: {"b": {"c": 2}}} and detail["changes"]
    done = bridge.ask("POST", f"/_commit?txid={tx}&message=both")
    assert done.json["versions"] == {root: 0}
    assert bridge.ask("GET", f"/{root}").json == {"b": {"c": 2}}
    (entry,) = bridge.ask("GET", f"/_log?path={root}").json
    assert (entry["tega_id"], entry["message"]) == ("joe", "both")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_transaction_can_be_cancelled(bridge: Site, root: str, method: str) -> None:
    tx = txid(bridge)
    bridge.ask("PUT", f"/{root}/a?txid={tx}", 1)
    assert bridge.ask(method, f"/_cancel/?txid={tx}").json == {"txid": tx}
    for what in ("_commit", "_cancel", "_cand"):
        answer = bridge.ask(method, f"/{what}?txid={tx}")
        assert (answer.status, answer.json["error"], answer.json["txid"]) == (410, "TransactionExpired", tx)
    assert bridge.ask("PUT", f"/{root}/a?txid={tx}", 1).status == 410
    assert bridge.ask("DELETE", f"/{root}/a?txid=nonsense").status == 410
    assert bridge.ask("POST", "/_commit").status == 400
    assert bridge.ask("GET", f"/{root}").status == 404


def test_a_collision_shows_at_commit(bridge: Site, root: str) -> None:
    bridge.ask("PUT", f"/{root}/a", 1)
    tx = txid(bridge)
    assert bridge.ask("PUT", f"/{root}/a?txid={tx}&version=0", 2).status == 200
    bridge.ask("PUT", f"/{root}/a", 3)
    answer = bridge.ask("POST", f"/_commit?txid={tx}")
    assert (answer.status, answer.json["error"]) == (409, "Collision")
    assert bridge.ask("POST", f"/_commit?txid={tx}").status == 410
    assert bridge.ask("GET", f"/{root}/a").json == 3


def test_an_entity_tag_guards_a_change_in_a_transaction_too(bridge: Site, root: str) -> None:
    bridge.ask("PUT", f"/{root}/a", 1)
    tag = bridge.ask("GET", f"/{root}/a").headers["etag"]
    bridge.ask("PUT", f"/{root}/a", 2)
    tx = txid(bridge)
    for method in ("PUT", "PATCH", "DELETE"):
        answer = bridge.ask(method, f"/{root}/a?txid={tx}", 3, headers={"If-Match": tag})
        assert (answer.status, answer.error) == (409, "Collision")
    fresh = {"If-Match": bridge.ask("GET", f"/{root}/a").headers["etag"]}
    assert bridge.ask("PUT", f"/{root}/a?txid={tx}", 3, headers=fresh).status == 200
    bridge.ask("PUT", f"/{root}/a", 4)
    assert bridge.ask("POST", f"/_commit?txid={tx}").status == 409
    assert bridge.ask("GET", f"/{root}/a").json == 4


def test_open_transactions_are_bounded(alone: Site) -> None:
    opened = [txid(alone, "?tega_id=greedy") for _ in range(16)]
    assert alone.ask("POST", "/_begin?tega_id=greedy").status == 429
    assert alone.ask("POST", "/_begin?tega_id=other").status == 200
    assert alone.ask("POST", f"/_cancel?txid={opened[0]}").status == 200
    assert alone.ask("POST", "/_begin?tega_id=greedy").status == 200


# -- management ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_rollback_is_a_commit(bridge: Site, root: str, method: str) -> None:
    for value in range(3):
        bridge.ask("PUT", f"/{root}/a", value)
    answer = bridge.ask(method, f"/_rollback?root_oid={root}&backto=-1&tega_id=joe&message=back")
    assert answer.json["versions"] == {root: 3}
    assert bridge.ask("GET", f"/{root}/a").json == 1
    assert bridge.ask(method, f"/_rollback?root_oid={root}&backto=0").status == 200
    assert bridge.ask("GET", f"/{root}/a").json == 0
    (newest, before, *_) = bridge.ask("GET", f"/_log?path={root}").json
    assert (newest["backto"], before["backto"], before["tega_id"], before["message"]) == (0, 1, "joe", "back")
    assert bridge.ask(method, f"/_rollback?root_oid={root}").status == 400
    assert bridge.ask(method, "/_rollback?backto=1").status == 400
    assert bridge.ask(method, f"/_rollback?root_oid={root}&backto=99").status == 404
    assert bridge.ask(method, "/_rollback?root_oid=nothing-here&backto=0").status == 404


def test_the_node_can_be_managed(alone: Site) -> None:
    alone.ask("PUT", "/a/b", 1)
    assert "bytes" in alone.ask("POST", "/_ss?tega_id=joe").json
    assert "reconciled" in alone.ask("GET", "/_sync").json
    assert "reload" in alone.ask("POST", "/_reload").json
    assert alone.ask("POST", "/_clear").json == {"cleared": ["a"]}
    assert alone.ask("GET", "/_roots").json == {}
    assert alone.ask("GET", "/_log").json == []


# -- listings and history --------------------------------------------------------------------------


def test_listings(alone: Site) -> None:
    for path, value in (("/a/b/c", 1), ("/x/y/z", 2), ("/a/b/C", 3), ("/x/y/Z", 4), ("/a/B/C", 5)):
        alone.ask("PUT", path, value)
    assert alone.ask("GET", "/_roots").json == {"a": 2, "x": 1}
    assert alone.ask("GET", "/_old").json == [{"a": [0, 1]}, {"x": [0]}]
    detailed = alone.ask("GET", "/_roots?detail=True").json
    assert [(each["root"], each["version"], each["owner"]) for each in detailed] == [
        ("a", 2, "gateway"),
        ("x", 1, "gateway"),
    ]
    client = alone.client("ann")
    client.subscribe("a.b", print)
    client.listen("news", print)
    assert {"ann", "the-bridge"} <= set(alone.ask("GET", "/_ids").json)
    assert alone.ask("GET", "/_subscribers").json == {"a.b": ["ann"]}
    assert alone.ask("GET", "/_channels").json == {"news": ["ann"]}
    for name, empty in (("global", {}), ("forwarders", []), ("plugins", []), ("agents", [])):
        assert alone.ask("GET", f"/_{name}/").json == empty
    alone.ask("DELETE", "/x")
    assert alone.ask("GET", "/_roots").json == {"a": 2}


def test_the_log_of_all_roots(alone: Site) -> None:
    for number in range(3):
        alone.ask("PUT", f"/r{number}/a?message=m{number}", number)
    entries = alone.ask("GET", "/_log?limit=2").json
    assert [(each["root"], each["message"]) for each in entries] == [("r2", "m2"), ("r1", "m1")]
    assert entries[0]["changes"] == [{"ope": "PUT", "path": "r2", "instance": {"a": 2}}]
    alone.ask("DELETE", "/r0?message=gone")
    (entry,) = alone.ask("GET", "/_log?limit=1").json
    assert (entry["root"], entry["message"]) == ("r0", "gone"), "who deleted it is seen too"
    assert entry["changes"] == [{"ope": "DELETE", "path": "r0"}]
    for limit in ("0", "x", "99999"):
        assert alone.ask("GET", f"/_log?limit={limit}").status == 400
    assert alone.ask("GET", "/_log?path=nothing").status == 404


def test_the_log_by_someone_and_since(bridge: Site, root: str) -> None:
    for number in range(4):
        bridge.ask("PUT", f"/{root}/a?tega_id={'ann' if number % 2 else 'bob'}", number)
    entries = bridge.ask("GET", f"/_log?path={root}").json
    by_ann = bridge.ask("GET", f"/_log?path={root}&by=ann").json
    assert [each["version"] for each in by_ann] == [3, 1]
    assert bridge.ask("GET", f"/_log?path={root}&by=ann&limit=1").json == by_ann[:1]
    since = entries[1]["time"]
    assert bridge.ask("GET", f"/_log?path={root}&since={since}").json == entries[:2]
    assert bridge.ask("GET", f"/_log?path={root}&since=2100-01-01T00:00:00Z").json == []
    assert bridge.ask("GET", f"/_log?path={root}&since=2000-01-01").json == entries
    assert [each["root"] for each in bridge.ask("GET", "/_log?by=bob&limit=1").json] == [root]
    assert bridge.ask("GET", "/_log?by=a.b").status == 400
    for wrong in ("", "yesterday", "nan", "2026-13-01"):
        assert bridge.ask("GET", f"/_log?path={root}&since={wrong}").status == 400


def test_a_tag_or_a_time_stands_where_a_version_may(bridge: Site, root: str) -> None:
    for number in range(4):
        bridge.ask("PUT", f"/{root}/a", number)
    client = bridge.client()
    client.tag(root, "golden", 1)
    assert bridge.ask("GET", f"/{root}/a?version=golden").json == 1
    assert bridge.ask("GET", f"/{root}/a?version=golden&internal=True").json["_value"] == 1
    assert [each["new"] for each in bridge.ask("GET", f"/_diff?path={root}.a&a=golden").json] == [3]
    assert bridge.ask("GET", f"/{root}/a?version=2100-01-01T00:00:00Z").json == 3
    assert bridge.ask("GET", f"/{root}/a?version=2000-01-01T00:00:00Z").status in (404, 410)
    assert bridge.ask("GET", f"/{root}/a?version=silver").status == 404
    assert bridge.ask("GET", f"/{root}/a?version=~").status == 400
    assert bridge.ask("POST", f"/_rollback?root_oid={root}&backto=golden").status == 200
    assert bridge.ask("GET", f"/{root}/a").json == 1
    assert bridge.ask("POST", f"/_rollback?root_oid={root}&backto=silver").status == 404


def test_diff(bridge: Site, root: str) -> None:
    for value in ({"a": 1}, {"a": 2, "b": 3}, {"b": 4}):
        bridge.ask("PUT", f"/{root}", value)
    (change,) = bridge.ask("GET", f"/_diff?path={root}.a&a=0&b=1").json
    assert (change["old"], change["new"], change["created"], change["deleted"]) == (1, 2, False, False)
    changes = {each["path"]: each for each in bridge.ask("GET", f"/_diff?path={root}&a=1").json}
    assert changes["a"]["deleted"] and changes["b"]["new"] == 4
    other = bridge.ask("GET", f"/_diff?path={root}.b&other={root}.b&a=1&b=2").json
    assert [each["new"] for each in other] == [4]
    assert bridge.ask("GET", "/_diff").status == 400
    assert bridge.ask("GET", "/_diff?path=a..b").status == 400


def test_edges_of_many_versions_are_bounded_by_the_work(alone: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        alone.ask("PUT", "/wide/changed/", number)
        if not number:
            alone.ask("PUT", "/wide/shared/", {f"k{n}": n for n in range(50)})
    monkeypatch.setattr(rest_manage, "MAX_EDGES", 300)
    assert alone.ask("GET", "/_edges?root_oid=wide").status == 200
    answer = alone.ask("GET", "/_edges?root_oid=wide&old_roots=1")
    assert (answer.status, answer.error) == (400, "TooLarge")


def test_edges_show_what_versions_share(alone: Site) -> None:
    alone.ask("PUT", "/r/a", {"x": 1, "y": 2})
    alone.ask("PUT", "/r/b", {"x": 4})
    now = {tuple(edge) for edge in alone.ask("GET", "/_edges?root_oid=r").json}
    both = {tuple(edge) for edge in alone.ask("GET", "/_edges?root_oid=r&old_roots=True").json}

    down = {
        ("r(1)", "r.a(0)"),
        ("r(1)", "r.b(1)"),
        ("r.a(0)", "r.a.x(0)"),
        ("r.a(0)", "r.a.y(0)"),
        ("r.b(1)", "r.b.x(1)"),
    }
    up = {
        ("r.a(0)", "r(0)"),
        ("r.b(1)", "r(1)"),
        ("r.a.x(0)", "r.a(0)"),
        ("r.a.y(0)", "r.a(0)"),
        ("r.b.x(1)", "r.b(1)"),
    }
    assert now == down | up
    assert both == now | {("r(0)", "r.a(0)")}
    assert alone.ask("GET", "/_edges?root_oid=other").json == []


# -- calls -----------------------------------------------------------------------------------------


def test_a_call_and_every_way_it_can_end(alone: Site) -> None:
    client, other = alone.client("ann"), alone.client("bob")
    stuck = threading.Event()
    client.register("tools.add", lambda a, b=0, timeout=0: a + b + timeout)
    client.register("tools.zero", lambda: 0)
    client.register("tools.fail", lambda: {}["x"])
    client.register("tools.wait", stuck.wait)
    other.register("tools.gone", stuck.wait)
    assert alone.ask(
        "POST", "/_rpc?path=tools.add", {"args": [1], "kwargs": {"b": 2, "timeout": 4}}
    ).json == {"result": 7}
    assert alone.ask("POST", "/_rpc?path=tools.zero&tega_id=joe").json == {"result": 0}
    assert alone.ask("POST", "/_rpc?path=tools.zero", {"args": []}).json == {"result": 0}
    failed = alone.ask("POST", "/_rpc?path=tools.fail")
    assert (failed.status, failed.json["error"], failed.json["type"]) == (502, "HandlerError", "KeyError")
    assert alone.ask("POST", "/_rpc?path=tools.none").status == 404
    late = alone.ask("POST", "/_rpc?path=tools.wait&timeout=0.05")
    assert (late.status, late.json["error"]) == (504, "Timeout")
    answers: list[Any] = []
    connection = alone.connection()

    def call() -> None:
        answers.append(alone.ask("POST", "/_rpc?path=tools.gone", on=connection))

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: client.inspect("status")["calls"] > 0)
    other.close()
    thread.join(20)
    stuck.set()
    connection.close()
    assert (answers[0].status, answers[0].error) == (503, "HandlerGone")


@pytest.mark.parametrize(
    "body", [[], {"args": 1}, {"args": None}, {"kwargs": []}, {"arguments": []}, 7, "x", None]
)
def test_the_body_of_a_call_is_checked(bridge: Site, body: Any) -> None:
    answer = bridge.ask("POST", "/_rpc?path=tools.add", body)
    assert (answer.status, answer.error) == (422, "InvalidValue")


@pytest.mark.parametrize("query", ["", "?path=", "?path=a&timeout=0", "?path=a&timeout=x", "?path=a..b"])
def test_the_parameters_of_a_call_are_checked(bridge: Site, query: str) -> None:
    assert bridge.ask("POST", f"/_rpc{query}").status == 400


# -- health, numbers, description ------------------------------------------------------------------


def test_health_says_why_not(tmp_path: Path) -> None:
    with site(tmp_path, broker=False, limits__timeout="1") as bridge:
        answer = bridge.ask("GET", "/_health")
        assert (answer.status, answer.json["ready"]) == (503, False)
        assert "away" in answer.json["message"]
        refused = bridge.ask("GET", "/a")
        assert (refused.status, refused.json["error"]) == (503, "Disconnected")
        assert "retry-after" in refused.headers
        assert "tega_up 0" in bridge.ask("GET", "/_metrics").body.decode()
        bridge.broker.start()
        until(lambda: bridge.ask("GET", "/_health").status == 200)
        assert bridge.ask("GET", "/_health").json["broker"]["tega_id"] == "gateway"
        assert bridge.ask("PUT", "/a/b", 1).status == 200
        bridge.broker.kill()
        until(lambda: bridge.ask("GET", "/_health").status == 503)
        bridge.broker.start()
        until(lambda: bridge.ask("GET", "/_health").status == 200)
        assert bridge.ask("GET", "/a/b").json == 1


def test_a_bridge_that_was_taken_over_says_so(alone: Site) -> None:
    other = alone.client("the-bridge")
    said: list[str] = []

    def unready() -> bool:
        answer = alone.ask("GET", "/_health")
        said.append(answer.json.get("message", ""))
        return answer.status == 503

    until(unready)
    assert "another program said hello" in said[-1]
    until(lambda: not unready(), "it does not stay so")
    assert other.state == "taken over"


SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)+)\})? (-?\d+(?:\.\d+)?(?:e[+-]\d+)?)')


def test_numbers_are_written_as_prometheus_reads_them(alone: Site) -> None:
    for number in range(5):
        alone.ask("PUT", "/a/b", number)
    alone.ask("GET", "/nothing")
    alone.ask("POST", "/_rpc?path=nobody.here")
    answer = alone.ask("GET", "/_metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    types: dict[str, str] = {}
    samples: dict[str, float] = {}
    for line in answer.body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types, f"{name} stands twice"
            types[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            base = re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert match[1] in types or types.get(base) == "histogram", line
            assert f"{match[1]}{match[2]}" not in samples, line
            samples[f"{match[1]}{match[2] or ''}"] = float(match[3])
    assert samples["tega_up"] == 1
    assert samples["tega_commits_total"] == 5
    assert samples["tega_log_sync_seconds_count"] >= 5
    assert samples["tega_log_sync_seconds_sum"] > 0
    assert samples['tega_calls_totaloutcome="NoHandler"'] == 1
    assert samples['tega_queue_lengthqueue="messages"'] == 0
    assert samples['tega_bridge_requests_totalmethod="PUT",status="200"'] == 5
    assert samples['tega_bridge_requests_totalmethod="GET",status="404"'] == 1
    assert samples["tega_bridge_request_seconds_count"] >= 6
    assert (
        samples['tega_bridge_request_seconds_bucketle="+Inf"'] == samples["tega_bridge_request_seconds_count"]
    )
    assert samples["tega_bridge_slow_subscribers_total"] == 0
    assert samples["tega_bridge_messages_unsaid_total"] == 0
    assert samples["tega_bridge_tunnel_frames_up_total"] == 0
    assert samples["tega_bridge_tunnel_frames_down_total"] == 0
    for name, kind in types.items():
        assert name.endswith("_total") == (kind == "counter"), name


def test_the_description_names_every_route(bridge: Site) -> None:
    document = bridge.ask("GET", "/_openapi.json").json
    node = document["paths"]["/{root}/{path}"]["get"]
    assert "`watch`" in node["description"] and "`from_version`" in node["description"]
    assert "426" in node["responses"]
    assert document == describe(bridge.serving.bridge.table)
    for route in bridge.serving.bridge.table:
        for path in ("/{root}", "/{root}/{path}") if route.path == DATA else (route.path,):
            operation = document["paths"][path][route.method.lower()]
            assert {parameter["name"] for parameter in operation["parameters"]} >= set(route.required)
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))
