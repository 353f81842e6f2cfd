"""How the bridge is: `/_health` for those who send requests here or not, `/_metrics` for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from tega_broker.bridge.answers import json_response
from tega_broker.bridge.metrics import BUCKETS, Exposition
from tega_broker.bridge.table import Asked, Route
from tega_zmq.errors import TegaError
from tega_zmq.version import __version__

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge

__all__ = ["ROUTES"]

_STATES = ("connected", "connecting", "suspended", "lost", "taken over", "closed")


async def _health(bridge: Bridge, _: Asked) -> web.Response:
    state = bridge.members.state
    why = ""
    if bridge.stopping:
        why = "the bridge is stopping"
    elif state == "taken over":
        why = f"another program said hello as {bridge.config.tega_id}; give one of them another tega_id"
    elif state == "connecting":
        why = f"the broker at {bridge.members.url} is away: {bridge.members.trouble}"
    elif state != "connected":
        why = f"the broker at {bridge.members.url} is away: the session is {state}"
    body: dict[str, Any] = {
        "ready": not why,
        "broker": {"state": state, "url": bridge.members.url, "tega_id": bridge.members.server or None},
        "version": __version__,
    }
    if not why:
        return json_response(body)
    return json_response({"error": "Offline", "message": why, **body}, 503, {"Retry-After": "1"})


async def _metrics(bridge: Bridge, _: Asked) -> web.Response:
    out = Exposition()
    _of_bridge(bridge, out)
    status: dict[str, Any] | None = None
    agents: list[dict[str, Any]] = []
    if bridge.members.state == "connected":
        try:
            client = await bridge.members.own()
            status = await client.inspect("status", timeout=2.0)
            agents = await client.inspect("agents", timeout=2.0)
        except TegaError:
            status = None
    out.one("tega_up", "gauge", "Whether the broker answers the bridge.", int(status is not None))
    if status is not None:
        _of_node(status, out)
        _of_agents(agents, out)
    text = out.text().encode()
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _of_bridge(bridge: Bridge, out: Exposition) -> None:
    counted = bridge.metrics
    out.metric("tega_bridge_info", "gauge", "The bridge's version.", [({"version": __version__}, 1)])
    out.metric(
        "tega_bridge_requests_total",
        "counter",
        "HTTP requests by method and status.",
        [
            ({"method": method, "status": status}, n)
            for (method, status), n in sorted(counted.requests.items())
        ],
    )
    out.histogram(
        "tega_bridge_request_seconds",
        "Time that the bridge took for a request, but for WebSockets and streams of events.",
        BUCKETS,
        counted.seconds,
        counted.seconds_sum,
    )
    out.one("tega_bridge_connections", "gauge", "Open connections.", bridge.connections)
    out.one("tega_bridge_sessions", "gauge", "Delegated sessions at the broker.", bridge.members.delegated)
    out.one("tega_bridge_transactions", "gauge", "Open transactions.", len(bridge.transactions))
    state = bridge.members.state
    out.metric(
        "tega_bridge_broker_state",
        "gauge",
        "How the bridge's own session at the broker stands: 1 for what is true.",
        [({"state": each}, int(each == state)) for each in _STATES],
    )
    for name, words in _COUNTS.items():
        out.one(f"tega_bridge_{name}_total", "counter", words, counted.counts.get(name, 0))
    for name, (words, count) in bridge.totals.items():
        out.one(f"tega_bridge_{name}_total", "counter", words, count())
    for name, (words, read) in bridge.gauges.items():
        out.one(f"tega_bridge_{name}", "gauge", words, read())


_COUNTS = {
    "bad_requests": "Requests that were no HTTP.",
    "connections_refused": "Connections that were not taken, since too many were open.",
    "hang_ups": "Requests whose peer was gone before they came in full, or before the call they made ended.",
    "messages_unsaid": "Messages that /_pubsub cannot tell: their channel has spaces or control characters.",
    "slow_peers": "Connections that were given up, since their peer did not read.",
    "slow_subscribers": "Followers of changes that were given up, since they did not read.",
}


def _of_node(status: dict[str, Any], out: Exposition) -> None:
    node = {"tega_id": status["tega_id"]}
    out.metric("tega_info", "gauge", "The broker.", [({**node, "version": status["version"]}, 1)])
    out.one("tega_uptime_seconds", "gauge", "How long the broker runs.", float(status["uptime"]))
    out.one("tega_commits_total", "counter", "Commits of the store, over all its life.", status["revision"])
    out.one("tega_log_writable", "gauge", "Whether the log takes writes.", int(status["log"] == "ok"))
    for name, words in (
        ("roots", "Roots in the store."),
        ("sessions", "Sessions at the broker."),
        ("subscriptions", "Subscriptions to changes."),
        ("handlers", "Handlers that are offered."),
    ):
        out.one(f"tega_{name}", "gauge", words, status.get(name))
    out.one("tega_calls_in_flight", "gauge", "Calls that wait for their result.", status.get("calls"))
    counted: dict[str, Any] = status.get("counts", {})
    outcomes = counted.get("calls", {})
    out.metric(
        "tega_calls_total",
        "counter",
        "Calls that ended, by outcome.",
        [({"outcome": name}, outcomes[name]) for name in sorted(outcomes)],
    )
    sending = status.get("sending", {})
    queues = {**status.get("queues", {}), "peers": sending.get("peers")}
    out.one("tega_queue_bytes", "gauge", "What waits for peers that do not read.", sending.get("bytes"))
    out.metric(
        "tega_queue_length",
        "gauge",
        "What waits at the broker, by queue.",
        [({"queue": name}, queues[name]) for name in sorted(queues)],
    )
    out.one(
        "tega_messages_dropped_total", "counter", "Messages dropped for slow readers.", counted.get("dropped")
    )
    sync = status.get("sync")
    if isinstance(sync, dict):
        out.histogram(
            "tega_log_sync_seconds",
            "Time that the disk took to write and sync a batch of records.",
            sync["bounds"],
            sync["counts"],
            float(sync["seconds"]),
        )


def _of_agents(agents: list[dict[str, Any]], out: Exposition) -> None:
    out.metric(
        "tega_agent_connected",
        "gauge",
        "Whether an agent is connected.",
        [({"agent": each["tega_id"]}, int(each["state"] == "connected")) for each in agents],
    )
    out.metric(
        "tega_agent_heard_seconds",
        "gauge",
        "Since when an agent gave no sign of life.",
        [({"agent": each["tega_id"]}, each["heard"]) for each in agents],
    )
    out.metric(
        "tega_replica_lag_versions",
        "gauge",
        "How many versions an agent's replica of a root is behind the broker.",
        [
            ({"agent": each["tega_id"], "root": root["root"]}, root["behind"])
            for each in agents
            for root in each["config"]
        ],
    )
    out.metric(
        "tega_replica_age_seconds",
        "gauge",
        "Since when the broker heard nothing of an agent's own root.",
        [
            ({"agent": each["tega_id"], "root": root["root"]}, root["age"])
            for each in agents
            for root in each["operational"]
        ],
    )


ROUTES = (
    Route(
        "GET",
        "/_health",
        _health,
        "whether the bridge is ready, or why not",
        answer={"type": "object"},
        statuses=(200, 503),
    ),
    Route("GET", "/_metrics", _metrics, "numbers for Prometheus"),
)
"""Health and numbers."""
