"""Roots between nodes: claims, followers, updates, pulls and chunks, in both directions."""

from __future__ import annotations

from collections.abc import Iterable

from tega_zmq import paths
from tega_zmq.errors import NotFound, ReadOnly, TegaError, TooLarge
from tega_zmq.node.effects import Publish, Send, SendUp
from tega_zmq.node.state import Node
from tega_zmq.replica import Follower, Step, serve
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Owned, Root, Update, update_from_plain, update_to_plain
from tega_zmq.tree import is_container
from tega_zmq.wire.messages import Chunk, Claim, Follow, Gone, Heartbeat, Position, Pull, RootUpdate

MAX_FOLLOWS = 1000
"""Most roots that a session follows."""

MAX_SERVING = 16
"""Most trees that are on their way to one session at a time."""

BEACON_DELAY = 0.02
"""Seconds for which subscriptions to a topic gather before one beacon answers them all."""


def check_root(name: str) -> str:
    """Return `name` if it can be a root. Raises `InvalidPath`."""
    return paths.check((name,))[0]


# -- owners below ----------------------------------------------------------------------------------


def claim(node: Node, session: Session, request: Claim) -> None:
    """The agent `session` owns a root, and says where it is.

    If its epoch is another, it says again where it is when it knows from the reply how far its replica here
    was: an owner with an empty store goes on from there.
    """
    name = check_root(request.root)
    if session.via is not None:
        raise ReadOnly(
            f"{session.tega_id} cannot own {name}: only an agent with a link of its own can", root=name
        )
    root = node.tip.roots.get(name)
    if root is None or (root.owner == "" and _empty(root)):
        if node.uplink is not None and name in (*node.settings.config, *node.settings.operational):
            owner = node.settings.tega_id
            raise ReadOnly(f"{name} is a root of {owner}", root=name, owner=owner)
        node.check_log()
        node.append(Owned(name, session.tega_id, ""))
        node.followers.pop(name, None)  # of a claim that the log lost; the root went on without it
        node.note("info", "root claimed", root=name, owner=session.tega_id)
    elif root.owner != session.tega_id:
        owner = root.owner or node.settings.tega_id
        raise ReadOnly(
            f"{name} belongs to {owner}; {session.tega_id} cannot own it"
            + (f" (`disown {name}` gives it up)" if root.owner else " while it holds data"),
            root=name,
            owner=owner,
        )
    session.claims.add(name)
    root = node.tip.roots[name]
    follower = node.followers.get(name)
    if follower is None:
        follower = node.followers[name] = Follower(name, root.epoch, root.version)
    follower.disconnected()
    node.gate_reply(session, request.id, [follower.epoch, follower.version])
    follower.heard = node.now
    if request.epoch == follower.epoch:
        follow(node, follower, follower.position(request.epoch, request.version, node.now), session)


def claim_again(node: Node) -> None:
    """The log takes writes again: note the claims whose records were lost."""
    for session in node.sessions:
        for name in sorted(session.claims):
            if name not in node.tip.roots:
                node.append(Owned(name, session.tega_id, ""))


def _empty(root: Root) -> bool:
    return root.node is None or (is_container(root.node) and not len(root.node[1]))


def disown(node: Node, name: str) -> None:
    """Take the root of an agent that is gone for good over, under a new epoch."""
    root = node.tip.roots.get(check_root(name))
    if root is None:
        raise NotFound(f"there is no root {name}", path=name)
    if root.owner == "" or (node.uplink is not None and name in node.settings.config):
        raise ReadOnly(f"{name} belongs to no agent here", root=name, owner=root.owner or None)
    node.check_log()
    agent = node.claimant(root.owner)
    if agent is not None:
        agent.claims.discard(name)
        if agent.peer is not None:
            # It says hello again, claims what it owns, and learns that this is not its own any more.
            node.effects.append(Send(agent.peer, Gone()))
    node.followers.pop(name, None)
    node.append(Owned(name, "", node.fresh()[:16]))
    node.note("warning", "root disowned", root=name, owner=root.owner)


# -- followers -------------------------------------------------------------------------------------


def follow_request(node: Node, session: Session, request: Follow) -> None:
    """The agent `session` keeps a replica of a root: how its updates travel, and where the root is now.

    The first few followers of a root get its updates over their own connections, so that a device with roots
    of its own needs no second one. The others share a topic of the publisher.
    """
    name = check_root(request.root)
    direct = session.follows.get(name)
    if direct is None:
        if len(session.follows) >= MAX_FOLLOWS:
            raise TooLarge(
                f"{session.tega_id} follows {MAX_FOLLOWS} roots already", size=MAX_FOLLOWS, limit=MAX_FOLLOWS
            )
        others = node.direct.get(name, ())
        direct = not request.topics or len(others) < node.settings.direct_followers
        session.follows[name] = direct
        if direct:
            node.direct.setdefault(name, {})[session] = None
        else:
            node.by_topic[name] = node.by_topic.get(name, 0) + 1
    topic = b"" if direct else _topic(node, name)
    root = node.durable.roots.get(name)
    epoch, version = (root.epoch, root.version) if root is not None else ("", ABSENT)
    node.reply(session, request.id, [topic, epoch, version])


def _topic(node: Node, name: str) -> bytes:
    topic = node.topics.get(name)
    if topic is None:
        topic = node.topics[name] = bytes.fromhex(node.fresh())[:16]
        node.topic_roots[topic] = name
    return topic


def unfollow(node: Node, session: Session) -> None:
    """`session` follows nothing any more; the topic of a root goes with the last one that hears it."""
    for name, direct in session.follows.items():
        if direct:
            node.direct[name].pop(session)
            if not node.direct[name]:
                del node.direct[name]
            continue
        node.by_topic[name] -= 1
        if not node.by_topic[name]:
            del node.by_topic[name]
            del node.topic_roots[node.topics.pop(name)]
            node.beacons.pop(name, None)
    session.follows.clear()


def topic_subscribed(node: Node, topic: bytes) -> bool:
    """A subscription to `topic` appeared: a beacon is due. Returns whether it is a topic of this node."""
    name = node.topic_roots.get(topic)
    if name is None:
        return False
    beacon_at(node, name, node.now + BEACON_DELAY)
    return True


def beacon_at(node: Node, name: str, due: float) -> None:
    """Tell the followers of root `name` its version at `due`, if it has any."""
    if name in node.topics:
        due = min(due, node.beacons.get(name, due))
        node.beacons[name] = due
        node.beacons_due = min(node.beacons_due, due)


def send_beacons(node: Node, *, everything: bool = False) -> None:
    """Publish the present version of the roots whose beacon is due, or tell it to everybody who follows."""
    if everything:
        for session in node.sessions:
            if session.follows:
                node.send(session, Heartbeat(my_positions(node, session)))
        for name in node.topics:
            beacon_at(node, name, node.now)
    if node.now < node.beacons_due:
        return
    for name, due in list(node.beacons.items()):
        if due > node.now:
            continue
        del node.beacons[name]
        root = node.durable.roots.get(name)
        if root is not None and root.version != ABSENT:
            beacon = Update(name, root.epoch, root.version, root.version, (), node.clock(), "")
            node.effects.append(Publish(node.topics[name], RootUpdate(tuple(update_to_plain(beacon)))))
    node.beacons_due = min(node.beacons.values(), default=float("inf"))


def publish(node: Node, update: Update) -> None:
    """An update became durable: to the followers, and up if this node owns the root."""
    topic = node.topics.get(update.root)
    direct = node.direct.get(update.root, ())
    mine = node.online and update.root in node.claimed and update.epoch == node.tip.roots[update.root].epoch
    if topic is None and not direct and not mine:
        return
    message = RootUpdate(tuple(update_to_plain(update)))
    for session in direct:
        if not session.congested:  # else it learns from the next heartbeat what it lacks
            node.send(session, message)
    if topic is not None:
        node.effects.append(Publish(topic, message))
    if mine:
        node.effects.append(SendUp(message))


def pull(node: Node, session: Session | None, message: Pull) -> None:
    """A follower asks for what it lacks; `session` None: the node above does."""
    name = check_root(message.root)
    holder = session if session is not None else node.above
    chunk, serving = serve(node.durable, message, holder.serving_trees.get(name))
    if serving is None:
        holder.serving_trees.pop(name, None)
    else:
        holder.serving_trees[name] = serving
        if len(holder.serving_trees) > MAX_SERVING:
            del holder.serving_trees[next(iter(holder.serving_trees))]  # that follower begins anew
    if session is not None:
        node.send(session, chunk)
    else:
        node.effects.append(SendUp(chunk))


# -- the replicas of this node ---------------------------------------------------------------------


def follow(node: Node, follower: Follower, step: Step, owner: Session | None) -> None:
    """Carry out what a follower wants; `owner` None: the node above."""
    if step.records and node.failure is not None:
        step_back(node, follower)
        return
    try:
        for record in step.records:
            node.append(record)
    except TegaError as error:
        # What came cannot follow on what is here. Whatever the owner has, its tree can be taken.
        follower.disconnected()
        follower.epoch, follower.version = "", ABSENT
        node.note("error", "replica does not fit", root=follower.root, error=error.message)
        return
    if step.done:
        node.note(
            "info",
            "replica caught up",
            root=follower.root,
            by=step.done,
            epoch=follower.epoch,
            version=follower.version,
        )
    if step.pull is not None:
        if owner is not None:
            node.send(owner, step.pull)
        else:
            node.effects.append(SendUp(step.pull))


def step_back(node: Node, follower: Follower) -> None:
    """The log did not take what the follower has: it is where the tip is."""
    root = node.tip.roots.get(follower.root)
    follower.disconnected()
    follower.epoch, follower.version = (root.epoch, root.version) if root is not None else ("", ABSENT)


def update(node: Node, session: Session | None, message: RootUpdate) -> None:
    """The owner of a root sent a commit."""
    content = update_from_plain(list(message.update))
    follower = _follower(node, session, content.root)
    if follower is not None:
        follow(node, follower, follower.update(content, node.now), session)


def chunk(node: Node, session: Session | None, message: Chunk) -> None:
    """The owner of a root answered a pull."""
    follower = _follower(node, session, message.root)
    if follower is not None:
        follow(node, follower, follower.chunk(message, node.now), session)


def positions(node: Node, session: Session | None, said: Iterable[Position]) -> None:
    """A peer says where it is: owners of what is followed here, and followers of what is owned here."""
    for name, epoch, version in said:
        follower = _follower(node, session, name)
        if follower is not None:
            follow(node, follower, follower.position(epoch, version, node.now), session)
        elif session is not None and name in session.follows:
            session.positions[name] = (epoch, version)


def _follower(node: Node, session: Session | None, name: str) -> Follower | None:
    """Return the follower of `name` if the sender may speak for its owner."""
    if session is None:
        return node.followers.get(name) if name in node.settings.config else None
    return node.followers.get(name) if name in session.claims else None


def my_positions(node: Node, session: Session) -> tuple[Position, ...]:
    """Where this node is, of the roots that `session` follows or owns."""
    found = []
    for name in (*session.follows, *session.claims):
        root = node.durable.roots.get(name)
        found.append((name, root.epoch, root.version) if root is not None else (name, "", ABSENT))
    return tuple(found)
