"""What an operator can look at (`Inspect`) and do (`Manage`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from tega_zmq import store, values
from tega_zmq.errors import InvalidPath, InvalidValue, StorageError, TooLarge
from tega_zmq.node import above, past, replication, uplink
from tega_zmq.node.effects import Reload, SendUp, Snapshot
from tega_zmq.node.passing import pass_up
from tega_zmq.node.reading import age, is_left_over
from tega_zmq.node.state import ABOVE, Node
from tega_zmq.paths import format_path
from tega_zmq.sessions import Session
from tega_zmq.store import Cleared
from tega_zmq.subscriptions import ChangeSubscription
from tega_zmq.version import __version__
from tega_zmq.wire.messages import Failure, Heartbeat, Inspect, Manage, Reply, Report

MAX_REPORT = 64 * 1024
"""Largest report of a session, in bytes."""

MAX_REPORTS = 16
"""Most reports of one session."""


def inspect(node: Node, session: Session, request: Inspect) -> None:
    """Answer with a listing."""
    listing = LISTINGS.get(request.what)
    if listing is None:
        raise InvalidValue(
            f"there is no listing {request.what[:32]!a}; there are {', '.join(sorted(LISTINGS))}"
        )
    if request.what == "tags" and node.online:
        # Tags are where their root is owned. Offline those of the node above are not known.
        pass_up(node, session, request, None, convert=partial(_and_own_tags, node, session))
        return
    node.reply(session, request.id, listing(node, session))


def report(node: Node, session: Session, request: Report) -> None:
    """Keep what a session says of itself; a plugin host's report is passed up."""
    if not 1 <= len(request.name) <= 64:
        raise InvalidPath("a report's name has 1 to 64 characters", path=request.name[:64])
    size = values.check(request.value, "the report")
    if size > MAX_REPORT:
        raise TooLarge(f"the report {request.name} has {size} bytes", size=size, limit=MAX_REPORT)
    if request.name not in session.reports and len(session.reports) >= MAX_REPORTS:
        raise TooLarge(f"{session.tega_id} has {MAX_REPORTS} reports already", limit=MAX_REPORTS)
    session.reports[request.name] = request.value
    if node.uplink is not None and session.kind == "plugin":
        uplink.report(node, request.name, request.value)
    node.reply(session, request.id, None)


# -- listings --------------------------------------------------------------------------------------


def _roots(node: Node, _: Session) -> list[dict[str, Any]]:
    found = []
    for root in sorted(node.durable.roots.values(), key=lambda root: root.name):
        if root.node is None or is_left_over(node, root):
            continue
        found.append(
            {
                "root": root.name,
                "version": root.version,
                "epoch": root.epoch,
                "owner": _owner_name(node, root.owner),
                "oldest": root.oldest,
                "age": age(node, root.name),
            }
        )
    return found


def _tags(node: Node, _: Session) -> list[dict[str, Any]]:
    return [
        {"root": root.name, "tag": name, "version": version}
        for root in sorted(node.durable.roots.values(), key=lambda root: root.name)
        for name, version in sorted(root.tags.items())
    ]


def _and_own_tags(node: Node, session: Session, answer: Reply | Failure) -> Reply | Failure:
    """Add the tags of the roots that this node owns to the `answer` of the node above."""
    if isinstance(answer, Failure):
        return answer
    own = _tags(node, session)
    mine = {each["root"] for each in own}
    above = answer.value if isinstance(answer.value, list) else []
    others = [each for each in above if isinstance(each, dict) and each.get("root") not in mine]
    return Reply(answer.id, sorted([*own, *others], key=lambda each: str(each.get("root"))))


def _owner_name(node: Node, owner: str) -> str:
    if owner == "":
        return node.settings.tega_id
    return (node.uplink_name or owner) if owner == ABOVE else owner


def _old(node: Node, _: Session) -> list[dict[str, Any]]:
    found = []
    for root in sorted(node.durable.roots.values(), key=lambda root: root.name):
        if root.version == store.ABSENT:
            continue
        found.append(
            {
                "root": root.name,
                "owner": _owner_name(node, root.owner),
                "epoch": root.epoch,
                "deleted": root.node is None,
                "versions": [root.oldest, root.version],
                "updates": [root.oldest_update, root.version] if len(root.updates) else [],
                "readable": _readable(node, root),
            }
        )
    return found


def _readable(node: Node, root: store.Root) -> list[list[int]]:
    """Return [first, last] of the versions that can be read, from memory or the disk. Raises `past.Deep`."""
    try:
        return past.readable(node, root)
    except StorageError:  # the disk cannot be read: `status` says why
        return [[root.oldest, root.version]]


def _state(node: Node, session: Session) -> str:
    if session.via is not None:
        return _state(node, session.via)
    return "connected" if session.peer is not None else "away"


def _sessions(node: Node, _: Session) -> list[dict[str, Any]]:
    return [
        {
            "tega_id": session.tega_id,
            "kind": session.kind,
            "state": _state(node, session),
            "via": session.via.tega_id if session.via is not None else None,
            "session": session.id[:8],
            "heard": round(node.now - session.heard, 3),
            "unanswered": len(session.pending),
            "queued": len(session.backlog),
            "dropped": session.dropped,
        }
        for session in sorted(node.sessions, key=lambda each: each.tega_id)
    ]


def _ids(node: Node, _: Session) -> list[str]:
    return sorted({session.tega_id for session in node.sessions})


def _channels(node: Node, _: Session) -> dict[str, list[str]]:
    return dict(sorted(node.channels.listing().items()))


def _subscribers(node: Node, _: Session) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for session in node.sessions:
        for subscription in session.subscriptions.values():
            if isinstance(subscription, ChangeSubscription):
                found.setdefault(subscription.text, []).append(session.tega_id)
    return {path: sorted(found[path]) for path in sorted(found)}


def _global(node: Node, _: Session) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for session in node.sessions:
        for kind, number in session.announced:
            if kind == "subscription" and number in session.subscriptions:
                subscription = session.subscriptions[number]
                text = getattr(subscription, "text", None) or subscription.channel
                found.setdefault(text, []).append(session.tega_id)
    return {text: sorted(found[text]) for text in sorted(found)}


def _forwarders(node: Node, _: Session) -> list[dict[str, Any]]:
    return [
        {"tega_id": session.tega_id, "sessions": sorted(sub.tega_id for sub in session.subsessions.values())}
        for session in sorted(node.sessions, key=lambda each: each.tega_id)
        if session.subsessions
    ]


def _plugins(node: Node, _: Session) -> list[Any]:
    found: list[Any] = []
    for session in node.sessions:
        reported = session.reports.get("plugins")
        if session.kind == "plugin" and session.via is None and isinstance(reported, list):
            found.extend(reported)
    return found


def _handlers(node: Node, _: Session) -> dict[str, list[str]]:
    return {
        format_path(path): [f"%{session.tega_id}.{path[-1]}" for session in sessions]
        for path, sessions in sorted(node.handlers, key=lambda offer: offer[0])
    }


def _agents(node: Node, _: Session) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "tega_id": session.tega_id,
            "state": _state(node, session),
            "heard": round(node.now - session.heard, 3),
            "config": [_replica(node, name, session.positions.get(name)) for name in sorted(session.follows)],
            "operational": [_owned(node, name) for name in sorted(session.claims)],
            "plugins": session.reports.get("plugins", []),
            "sessions": sorted(sub.tega_id for sub in session.subsessions.values()),
        }
        for session in sorted(node.sessions, key=lambda each: each.tega_id)
        if session.kind == "agent" and session.via is None
    ]
    present = {entry["tega_id"] for entry in found}
    away: dict[str, list[str]] = {}
    for root in node.durable.roots.values():
        if root.owner not in ("", ABOVE) and root.owner not in present:
            away.setdefault(root.owner, []).append(root.name)
    for tega_id, names in sorted(away.items()):
        found.append(
            {
                "tega_id": tega_id,
                "state": "away",
                "heard": None,
                "config": [_replica(node, *each) for each in node.followed.get(tega_id, ())],
                "operational": [_owned(node, name) for name in sorted(names)],
                "plugins": [],
                "sessions": [],
            }
        )
    return found


def _replica(node: Node, name: str, at: tuple[str, int] | None) -> dict[str, Any]:
    root = node.durable.roots.get(name)
    entry: dict[str, Any] = {"root": name, "version": at[1] if at is not None else None}
    if root is None:
        entry["behind"] = 0 if at is None else None
    elif at is not None and at[0] == root.epoch:
        entry["behind"] = root.version - at[1]
    else:
        entry["behind"] = None
    return entry


def _owned(node: Node, name: str) -> dict[str, Any]:
    root = node.durable.roots.get(name)
    return {"root": name, "version": root.version if root is not None else None, "age": age(node, name)}


def _status(node: Node, _: Session) -> dict[str, Any]:
    status: dict[str, Any] = {
        "tega_id": node.settings.tega_id,
        "version": __version__,
        "uptime": round(node.now - node.started, 3),
        "revision": node.durable.revision,
        "log": "ok" if node.failure is None else f"refuses writes: {node.failure}",
        "roots": len(node.durable.roots),
        "sessions": len(node.sessions),
        "subscriptions": len(node.subscriptions),
        "handlers": sum(1 for _ in node.handlers),
        "calls": len(node.calls),
        "counts": {"calls": dict(node.outcomes), "dropped": node.dropped},
        "queues": {
            "records": len(node.steps),
            "answers": len(node.gated),
            "messages": sum(len(session.backlog) for session in node.sessions),
        },
    }
    status.update(node.numbers())
    if node.uplink is not None:
        status["uplink"] = {
            "state": node.uplink.state,
            "server": node.uplink_name or None,
            "config": [
                {
                    "root": name,
                    "version": follower.version,
                    "in_step": follower.in_step,
                    "age": age(node, name),
                    **({"for": _followed_by(node, name)} if name in node.on_demand else {}),
                }
                for name, follower in sorted(node.followers.items())
                if above.comes(node, name)
            ],
            "operational": _claims(node),
        }
    return status


def _followed_by(node: Node, name: str) -> list[str]:
    waiting = node.awaiting.get(name, {})
    return sorted(
        session.tega_id for session in node.sessions if name in session.follows or session in waiting
    )


def _claims(node: Node) -> list[dict[str, Any]]:
    """Return what this node owns or claims for agents below, and whether the node above has accepted it."""
    found: list[dict[str, Any]] = []
    below = sorted(above.carried(node))
    others = sorted(name for name in node.refused if name not in (*below, *node.settings.operational))
    for name in (*node.settings.operational, *below, *others):
        entry: dict[str, Any] = {"root": name, "accepted": name in node.claimed}
        if name in below and name in node.tip.roots:
            entry["for"] = [node.tip.roots[name].owner]
        if name in node.refused:
            entry["refused"] = node.refused[name]
        found.append(entry)
    return found


LISTINGS: Final[Mapping[str, Callable[[Node, Session], Any]]] = {
    "agents": _agents,
    "channels": _channels,
    "forwarders": _forwarders,
    "global": _global,
    "handlers": _handlers,
    "ids": _ids,
    "old": _old,
    "plugins": _plugins,
    "roots": _roots,
    "sessions": _sessions,
    "status": _status,
    "subscribers": _subscribers,
    "tags": _tags,
}


# -- acting ----------------------------------------------------------------------------------------


def manage(node: Node, session: Session, request: Manage) -> None:
    """Do what an operator asks for."""
    action = ACTIONS.get(request.what)
    if action is None:
        raise InvalidValue(
            f"there is nothing called {request.what[:32]!a} to do; there are {', '.join(sorted(ACTIONS))}"
        )
    action(node, session, request)


def _snapshot(node: Node, session: Session, request: Manage) -> None:
    session.pending[request.id] = None
    node.snapshots.append((session, request.id))
    if len(node.snapshots) == 1:
        node.effects.append(Snapshot())


def _clear(node: Node, session: Session, request: Manage) -> None:
    node.check_log()
    mine = [root.name for root in node.tip.roots.values() if root.owner == ""]
    node.append(Cleared())
    node.note("warning", "store cleared", by=session.tega_id, roots=len(mine))
    node.gate_reply(session, request.id, {"cleared": sorted(mine)})


def _sync(node: Node, session: Session, request: Manage) -> None:
    replication.send_beacons(node, everything=True)
    for other in node.sessions:
        for name in other.claims:
            follower = node.followers.get(name)
            if follower is not None and other.peer is not None:
                step = follower.pull(node.now)
                replication.follow(node, follower, step, other)
    if node.uplink is not None and node.online:
        for name in above.coming(node):
            follower = node.followers[name]
            replication.follow(node, follower, follower.pull(node.now), None)
        node.effects.append(SendUp(Heartbeat(above.positions(node))))
    names = sorted({*node.topics, *node.direct, *node.followers})
    node.reply(session, request.id, {"reconciled": names})


def _disown(node: Node, session: Session, request: Manage) -> None:
    replication.disown(node, request.argument)
    node.gate_reply(session, request.id, {"disowned": request.argument})


def _reload(node: Node, session: Session, request: Manage) -> None:
    node.effects.append(Reload())
    node.reply(session, request.id, {"reload": "begun; `plugins` shows how it went"})


ACTIONS: Final[Mapping[str, Callable[[Node, Session, Manage], None]]] = {
    "clear": _clear,
    "disown": _disown,
    "reload": _reload,
    "snapshot": _snapshot,
    "sync": _sync,
}
