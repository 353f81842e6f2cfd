"""Roots between the node above and those below: which come down, which go up, what is asked for of them.

A node with an uplink follows what its config lists and what an agent below asks for, and it claims what it
owns and what agents below own: to the node above it is the owner of those too.
"""

from __future__ import annotations

from tega_zmq.node.effects import SendUp
from tega_zmq.node.state import ABOVE, Node
from tega_zmq.store import ABSENT
from tega_zmq.wire.messages import Claim, Follow

TIMEOUT = 60.0
"""Seconds for the agent's own requests."""

MAX_REFUSED = 100
"""Most refused claims that are remembered, for those who look; the oldest are forgotten."""


def coming(node: Node) -> tuple[str, ...]:
    """Return the roots whose replica here comes from the node above: listed, or asked for below."""
    return (*node.settings.config, *node.on_demand)


def comes(node: Node, name: str) -> bool:
    """Whether root `name` is one of `coming`."""
    return name in node.on_demand or name in node.settings.config


def carried(node: Node) -> list[str]:
    """Return the roots of agents below, which this node claims above in its own name."""
    return [name for name in node.followers if not comes(node, name)]


def known(node: Node, name: str) -> bool:
    """Whether this node can say where root `name` is: it has some version, or has heard that there is none.

    One that has lost its store must not tell followers below that the root is gone.
    """
    follower = node.followers.get(name)
    root = node.durable.roots.get(name)
    if follower is None or (root is not None and root.version != ABSENT):
        return True
    heard = follower.owner_position
    return heard is not None and heard[1] == ABSENT and follower.version == ABSENT


def waits_for(node: Node, name: str, kind: type) -> bool:
    """Whether a request of `kind` from below, about root `name`, waits for the node above."""
    return any(type(request) is kind for request in node.awaiting.get(name, {}).values())


# -- asking ----------------------------------------------------------------------------------------


def open_roots(node: Node) -> None:
    """Claim and follow what has not been accepted yet."""
    asked = set(node.uplink_requests.values())
    waiting = [name for name in node.awaiting if waits_for(node, name, Claim)]
    for name in dict.fromkeys((*node.settings.operational, *carried(node), *waiting)):
        if name not in node.claimed and ("claim", name) not in asked:
            ask_claim(node, name)
    for name in coming(node):
        if name not in node.topics_up and ("follow", name) not in asked:
            ask_follow(node, name)


def ask_claim(node: Node, name: str) -> None:
    """Claim root `name` above, and say where it is, if it stands here for its owner."""
    root = node.durable.roots.get(name)
    epoch, version = "", ABSENT
    if root is not None and (name in node.settings.operational or root.owner not in ("", ABOVE)):
        epoch, version = root.epoch, root.version
    ask(node, "claim", name, Claim, name, epoch, version)


def ask_follow(node: Node, name: str) -> None:
    """Ask for the updates of root `name`."""
    ask(node, "follow", name, Follow, name, node.hears_topics)


def ask(node: Node, what: str, name: str, kind: type, *fields: object) -> None:
    """Make a request of this node's own; `flush` sends it. Raises `TooLarge`: too many wait."""
    assert node.uplink is not None
    id = node.uplink.request(kind, *fields, timeout=TIMEOUT, now=node.now)
    node.uplink_requests[id] = (what, name)


def flush(node: Node) -> None:
    """Send what was asked."""
    assert node.uplink is not None
    node.effects.extend(SendUp(message) for message in node.uplink.take_output())


def positions(node: Node) -> tuple[tuple[str, str, int], ...]:
    """Where this node is, of the roots that it follows above and of those that it claimed there."""
    found = []
    for name in dict.fromkeys((*node.settings.operational, *carried(node), *coming(node))):
        if name not in node.claimed and not comes(node, name):
            continue
        root = node.durable.roots.get(name)
        if root is not None and root.version != ABSENT:
            found.append((name, root.epoch, root.version))
        elif name in node.followers:
            if name in node.claimed and known(node, name):
                found.append((name, "", ABSENT))  # its owner's store was cleared
        elif name in node.claimed and name not in node.tip.roots and node.failure is None:
            found.append((name, "", ABSENT))  # the store was cleared
    return tuple(found)


def note_refused(node: Node, name: str, why: str) -> None:
    """Remember why the node above refused the claim of root `name`."""
    node.refused.pop(name, None)
    node.refused[name] = why
    if len(node.refused) > MAX_REFUSED:
        del node.refused[next(iter(node.refused))]


__all__ = [
    "ABOVE",
    "MAX_REFUSED",
    "TIMEOUT",
    "ask",
    "ask_claim",
    "ask_follow",
    "carried",
    "comes",
    "coming",
    "flush",
    "known",
    "note_refused",
    "open_roots",
    "positions",
    "waits_for",
]
