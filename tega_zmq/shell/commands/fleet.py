"""The node and those who are connected to it: agents, status, listings, and what an operator can do."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from tega_zmq.paths import format_path
from tega_zmq.shell.differences import plural
from tega_zmq.shell.output import Paint, Result, ago, safe, table, when
from tega_zmq.shell.session import Session, path_of
from tega_zmq.shell.spec import Argument, Command, UsageError

CATEGORY = "Fleet"
OPERATION = "Operation"

_LOOK = 0.2
"""Seconds between two looks at the agents while `sync --wait` waits."""


def agents(session: Session, _: argparse.Namespace) -> Result:
    """List the agents: state, replicas, plugins."""
    found: list[dict[str, Any]] = session.client.inspect("agents")
    return Result(found, lambda paint: _agents_text(found, paint) if found else "no agents")


def _agents_text(found: list[dict[str, Any]], paint: Paint) -> str:
    rows = [
        (
            agent["tega_id"],
            agent["state"],
            ago(agent["heard"]),
            ", ".join(_replica(each) for each in agent["config"]) or None,
            ", ".join(_owned(each) for each in agent["operational"]) or None,
            ", ".join(agent["sessions"]) or None,
        )
        for agent in found
    ]
    parts = [table(rows, ("agent", "state", "heard", "config", "operational", "sessions"), paint)]
    plugins = [
        (agent["tega_id"], *row)
        for agent in found
        for entry in _list(agent.get("plugins"))
        for row in _plugin_rows(entry)
    ]
    if plugins:
        parts.append(table(plugins, ("agent", *_PLUGIN_HEADS), paint))
    return "\n\n".join(parts)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _replica(entry: dict[str, Any]) -> str:
    text = _owned(entry)
    if entry["behind"]:
        return f"{text} ({entry['behind']} behind)"
    if entry["behind"] is None and _there(entry):
        return f"{text} (starting over)"
    return text


def _owned(entry: dict[str, Any]) -> str:
    root = format_path((entry["root"],))
    return f"{root}@{entry['version']}" if _there(entry) else f"{root} (nothing yet)"


def _there(entry: dict[str, Any]) -> bool:
    """Whether there is a version: None stands for an unknown one, -1 for a root that never was."""
    return entry["version"] is not None and entry["version"] >= 0


_PLUGIN_HEADS = ("plugin", "state", "handler", "applied", "error")


def _plugin_rows(entry: Any) -> list[tuple[Any, ...]]:
    """Return the lines for one plugin: of each handler that applies config or has failed, else one in all.

    It is what a plugin host reports; a peer may report anything, so nothing of it is taken for granted.
    """
    if not isinstance(entry, dict):
        return [(entry, None, None, None, None)]
    head = (entry.get("name"), entry.get("state"))
    rows: list[tuple[Any, ...]] = [
        (*head, handler.get("path"), handler.get("version"), _trouble(handler))
        for handler in _list(entry.get("handlers"))
        if isinstance(handler, dict) and (handler.get("kind") == "on_change" or handler.get("error"))
    ]
    if entry.get("error") or not rows:
        rows.insert(0, (*head, None, None, entry.get("error")))
    return rows


def _trouble(handler: dict[str, Any]) -> Any:
    error, since = handler.get("error"), handler.get("running_since")
    if isinstance(since, (int, float)):
        return f"still running, since {when(since)}"
    if error is None or handler.get("error_version") is None:
        return error
    return f"at version {handler['error_version']}: {error}"


def plugins(session: Session, _: argparse.Namespace) -> Result:
    """List the plugins of this node."""
    found = _list(session.client.inspect("plugins"))
    rows = [row for entry in found for row in _plugin_rows(entry)]
    return Result(found, lambda paint: table(rows, _PLUGIN_HEADS, paint) if rows else "no plugins")


def status(session: Session, _: argparse.Namespace) -> Result:
    """Show the state of the node."""
    return Result(session.client.inspect("status"))


def id_(session: Session, _: argparse.Namespace) -> Result:
    """Show who this session is."""
    data = {"tega_id": session.client.tega_id, "server": session.server, "state": session.client.state}
    return Result(data)


def ids(session: Session, _: argparse.Namespace) -> Result:
    """List who is connected."""
    found = session.client.inspect("sessions")
    rows = [
        (
            each["tega_id"],
            each["kind"],
            each["state"],
            ago(each["heard"]),
            each["via"],
            each["queued"],
            each["dropped"],
        )
        for each in found
    ]
    heads = ("tega_id", "kind", "state", "heard", "via", "queued", "dropped")
    return Result(found, lambda paint: table(rows, heads, paint) if rows else "nobody")


def _listing(what: str, empty: str) -> Callable[[Session, argparse.Namespace], Result]:
    """Return a command that shows the listing `what` as it is; `empty` is said if there is nothing."""

    def show(session: Session, _: argparse.Namespace) -> Result:
        found = session.client.inspect(what)
        return Result(found, None if found else empty)

    return show


# -- acting ----------------------------------------------------------------------------------------


def _acting(what: str) -> Callable[[Session, argparse.Namespace], Result]:
    def act(session: Session, _: argparse.Namespace) -> Result:
        return Result(session.client.manage(what))

    return act


def sync(session: Session, args: argparse.Namespace) -> Result:
    """Reconcile replicas; with --wait until no connected agent is behind."""
    result = Result(session.client.manage("sync"))
    if not args.wait:
        return result
    while True:
        agents = [each for each in session.client.inspect("agents") if each["state"] == "connected"]
        behind = [each["tega_id"] for each in agents if any(root["behind"] != 0 for root in each["config"])]
        if not behind:
            done = f"{plural(len(agents), 'connected agent')}, none behind"
            return Result({"agents": len(agents), "behind": 0}, done)
        session.around.progress(
            f"sync: {len(behind)} of {plural(len(agents), 'connected agent')} behind: {behind[0]}"
        )
        time.sleep(_LOOK)


def clear(session: Session, args: argparse.Namespace) -> Result:
    """Empty the store."""
    if not args.yes:
        question = "Delete all roots of this node, with their history?"
        if not session.around.confirm(question):
            raise UsageError("nothing was cleared; --yes clears without asking")
    return Result(session.client.manage("clear"))


def disown(session: Session, args: argparse.Namespace) -> Result:
    """Give a root to the broker."""
    path = path_of(args.root)
    session.client.manage("disown", path[0])
    return Result({"disowned": path[0]}, safe(f"{args.root} belongs to the broker now"))


COMMANDS = (
    Command(
        "agents",
        CATEGORY,
        "Show the agents: state, replicas, plugins with what they applied and their last error",
        agents,
        details="config: roots that the agent follows, and how many versions it is behind.\n"
        "operational: roots that the agent owns, at the version that this node has of them.",
    ),
    Command("status", CATEGORY, "Show the state of the node", status),
    Command("id", CATEGORY, "Show this shell's tega_id and connection", id_),
    Command("ids", CATEGORY, "Show who has a session at the node", ids),
    Command("plugins", CATEGORY, "Show the plugins of the node", plugins),
    Command("channels", CATEGORY, "Show who listens to which channel", _listing("channels", "no channels")),
    Command(
        "subscribers",
        CATEGORY,
        "Show who is subscribed to which path",
        _listing("subscribers", "no subscribers"),
    ),
    Command(
        "global",
        CATEGORY,
        "Show which subscriptions and channels are announced upwards",
        _listing("global", "nothing is announced upwards"),
    ),
    Command(
        "forwarders",
        CATEGORY,
        "Show the nodes that forward the sessions of others",
        _listing("forwarders", "no forwarders"),
    ),
    Command("ss", OPERATION, "Write a snapshot of the store", _acting("snapshot")),
    Command(
        "sync",
        OPERATION,
        "Reconcile replicas now",
        sync,
        (Argument("--wait", "flag", "until no agent that is connected is behind; Ctrl-C ends the waiting"),),
    ),
    Command("reload", OPERATION, "Load the node's plugins anew", _acting("reload")),
    Command(
        "clear",
        OPERATION,
        "Empty the store: all roots of the node, with their history",
        clear,
        (Argument("--yes", "flag", "do not ask"),),
    ),
    Command(
        "disown",
        OPERATION,
        "Give the operational root of a device that is gone to the broker",
        disown,
        (Argument("ROOT", "root", "the root"),),
        examples=("disown ops-pi1",),
    ),
)
