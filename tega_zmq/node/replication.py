"""Roots between nodes: claims, followers, updates, pulls and chunks, in both directions."""

from __future__ import annotations

from collections.abc import Iterable

from tega_zmq import paths
from tega_zmq.errors import NotFound, OwnerAway, ReadOnly, TegaError, TooLarge
from tega_zmq.node import above
from tega_zmq.node.effects import Publish, Send, SendUp
from tega_zmq.node.passing import release_shown
from tega_zmq.node.state import ABOVE, Node
from tega_zmq.replica import Follower, Step, serve
from tega_zmq.sessions import Session
from tega_zmq.store import (
    ABSENT,
    NewEpochs,
    Owned,
    Root,
    Update,
    next_epoch,
    update_from_plain,
    update_to_plain,
)
from tega_zmq.tree import is_container
from tega_zmq.wire.messages import Chunk, Claim, Follow, Gone, Heartbeat, Position, Pull, RootUpdate

MAX_FOLLOWS = 1000
"""Most roots that a session follows."""

MAX_SERVING = 16
"""Most trees that are on their way to one session at a time."""

BEACON_DELAY = 0.02
"""Seconds for which subscriptions to a topic gather before one beacon answers them all."""

TOPIC = 16
"""Bytes of a topic."""

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes, where every commit comes by."""


def check_root(name: str) -> str:
    """Return `name` if it can be a root. Raises `InvalidPath`."""
    return paths.check((name,))[0]


# -- owners below ----------------------------------------------------------------------------------


def claim(node: Node, session: Session, request: Claim) -> None:
    """The agent `session` owns a root, and says where it is.

    If its epoch is another, it says again where it is when it knows from the reply how far its replica here
    was: an owner with an empty store goes on from there. A node with an uplink asks above first whether the
    root can be its own, unless it was this agent's before: the reply waits for that.
    """
    name = check_root(request.root)
    if session.via is not None:
        raise ReadOnly(
            f"{session.tega_id} cannot own {name}: only an agent with a link of its own can", root=name
        )
    root = node.tip.roots.get(name)
    if root is None or root.owner != session.tega_id:
        _check_free(node, session, name, root)
        if node.uplink is not None and name not in node.claimed:
            if node.online and ("claim", name) not in node.uplink_requests.values():
                above.ask_claim(node, name)
                above.flush(node)
            _await(node, session, request, name)
            return
        node.check_log()
        # What came down for a follower stays until its owner says more.
        node.append(Owned(name, session.tega_id, root.epoch if root is not None and root.owner else ""))
        node.on_demand.pop(name, None)
        node.topics_up.pop(name, None)
        node.followers.pop(name, None)  # of a claim that the log lost too; the root went on without it
        node.note("info", "root claimed", root=name, owner=session.tega_id)
    session.claims.add(name)
    root = node.tip.roots[name]
    follower = node.followers.get(name)
    if follower is None:
        follower = node.followers[name] = Follower(name, root.epoch, root.version)
    follower.disconnected()
    epoch, version = follower.epoch, follower.version
    if version == ABSENT and follower.owner_position is None:
        # Nothing was heard of it here. An owner with an empty store goes on from what the node above knows.
        epoch, version = node.claimed.get(name, (epoch, version))
    node.gate_reply(session, request.id, [epoch, version])
    follower.heard = node.now
    if request.epoch == epoch:
        follow(node, follower, follower.position(request.epoch, request.version, node.now), session)
    settle(node, name, Follow)


def _check_free(node: Node, session: Session, name: str, root: Root | None) -> None:
    """Raises `ReadOnly` if `session` cannot become the owner of root `name`, as far as this node knows."""
    owner = node.settings.tega_id
    if node.uplink is not None and name in (*node.settings.config, *node.settings.operational):
        raise ReadOnly(f"{name} is a root of {owner}", root=name, owner=owner)
    if root is None or root.owner == ABOVE or (root.owner == "" and _empty(root)):
        return
    owner = root.owner or owner
    raise ReadOnly(
        f"{name} belongs to {owner}; {session.tega_id} cannot own it"
        + (f" (`disown {name}` gives it up)" if root.owner else " while it holds data"),
        root=name,
        owner=owner,
    )


def claim_again(node: Node) -> None:
    """The log takes writes again: note the claims whose records were lost."""
    for session in node.sessions:
        for name in sorted(session.claims):
            root = node.tip.roots.get(name)
            if root is None or root.owner == ABOVE:
                node.append(Owned(name, session.tega_id, root.epoch if root is not None else ""))


def _empty(root: Root) -> bool:
    return root.node is None or (is_container(root.node) and not len(root.node[1]))


def disown(node: Node, name: str) -> None:
    """Take the root of an agent that is gone for good over, under a new epoch.

    A node with an uplink does not: it claimed the root above, so it is there that this is settled. Nor does
    one that was restarted just now: a write that the agent has done may come again from a session of before,
    and would be done a second time, here.
    """
    root = node.tip.roots.get(check_root(name))
    if root is None:
        raise NotFound(f"there is no root {name}", path=name)
    if root.owner in ("", ABOVE):
        raise ReadOnly(f"{name} belongs to no agent here", root=name, owner=root.owner or None)
    if node.uplink is not None:
        raise ReadOnly(
            f"{node.settings.tega_id} has claimed {name} for {root.owner} at the node above; disown it there",
            root=name,
            owner=root.owner,
        )
    if any(session.doubt > node.now for session in node.sessions):
        wait = f"{node.settings.lease * 2:.0f} s"
        raise OwnerAway(
            f"programs that were here before {node.settings.tega_id} was restarted may have asked"
            f" {root.owner} to write {name}; disown it when they are back or gone: in {wait} at most",
            root=name,
            owner=root.owner,
        )
    node.check_log()
    let_go(node, name, "")
    node.note("warning", "root disowned", root=name, owner=root.owner)


def let_go(node: Node, name: str, owner: str) -> None:
    """Root `name` is not the agent's below any more that had it, if one had; it is `owner`'s."""
    root = node.tip.roots.get(name)
    if root is None or root.owner in ("", ABOVE) or node.failure is not None:
        return
    agent = node.claimant(root.owner)
    if agent is not None:
        agent.claims.discard(name)
        if agent.peer is not None:
            # It says hello again, claims what it owns, and learns that this is not its own any more.
            node.effects.append(Send(agent.peer, Gone()))
    node.followers.pop(name, None)
    node.append(Owned(name, owner, root.epoch if owner else node.fresh()[:16]))
    if owner and (name in node.direct or name in node.by_topic):
        _demand(node, name)


# -- what waits for the node above -----------------------------------------------------------------


def _await(node: Node, session: Session, request: Claim | Follow, name: str) -> None:
    """Keep a request from below until `settle`; it takes the place of an earlier one of `session`."""
    earlier = node.awaiting.setdefault(name, {}).get(session)
    if earlier is not None:
        session.pending.pop(earlier.id, None)
    node.awaiting[name][session] = request
    session.pending[request.id] = None


def settle(node: Node, name: str, kind: type | None = None, error: TegaError | None = None) -> None:
    """Carry out the requests from below that waited for root `name`, those of `kind`, or fail them."""
    waiting = node.awaiting.get(name)
    if waiting is None:
        return
    for session, request in list(waiting.items()):
        if kind is not None and type(request) is not kind:
            continue
        del waiting[session]
        session.pending.pop(request.id, None)
        try:
            if error is not None:
                raise error
            (claim if type(request) is Claim else follow_request)(node, session, request)
        except TegaError as refusal:
            node.fail(session, request.id, refusal)
    if not waiting and node.awaiting.get(name) is waiting:
        del node.awaiting[name]


def forget_awaiting(node: Node, session: Session) -> None:
    """`session` is over: nothing of it waits."""
    for name in [name for name, waiting in node.awaiting.items() if session in waiting]:
        del node.awaiting[name][session]
        if not node.awaiting[name]:
            del node.awaiting[name]


# -- followers -------------------------------------------------------------------------------------


def follow_request(node: Node, session: Session, request: Follow) -> None:
    """The agent `session` keeps a replica of a root: how its updates travel, and where the root is now.

    The first few followers of a root get its updates over their own connections, so that a device with roots
    of its own needs no second one. The others share a topic of the publisher. A root that this node neither
    owns nor has is followed above, and the reply waits until the replica is here.
    """
    name = check_root(request.root)
    _demand(node, name)
    if above.comes(node, name) and not above.known(node, name):
        _await(node, session, request, name)
        return
    direct = session.follows.get(name)
    if direct is None:
        if len(session.follows) >= MAX_FOLLOWS:
            raise TooLarge(
                f"{session.tega_id} follows {MAX_FOLLOWS} roots already", size=MAX_FOLLOWS, limit=MAX_FOLLOWS
            )
        others = node.direct.get(name, ())
        silent = node.uplink is not None and not node.settings.changes  # an agent may have no publisher
        direct = not request.topics or silent or len(others) < node.settings.direct_followers
        session.follows[name] = direct
        if direct:
            node.direct.setdefault(name, {})[session] = None
        else:
            node.by_topic[name] = node.by_topic.get(name, 0) + 1
    topic = b"" if direct else _topic(node, name)
    root = node.durable.roots.get(name)
    epoch, version = (root.epoch, root.version) if root is not None else ("", ABSENT)
    node.reply(session, request.id, [topic, epoch, version])


def _demand(node: Node, name: str) -> None:
    """Follow root `name` above from now on, unless an owner here or below has it. Raises `TooLarge`."""
    if node.uplink is None or above.comes(node, name) or node.owner(name) is not None:
        return
    root = node.tip.roots.get(name)
    if root is not None and root.owner == "" and not _empty(root):
        return  # it was this node's own once, and is served as it stands
    if len(node.settings.config) + len(node.on_demand) >= MAX_FOLLOWS:
        raise TooLarge(
            f"{node.settings.tega_id} follows {MAX_FOLLOWS} roots already",
            size=MAX_FOLLOWS,
            limit=MAX_FOLLOWS,
        )
    if node.online:
        above.ask_follow(node, name)
        above.flush(node)
    node.on_demand[name] = None
    position = (root.epoch, root.version) if root is not None else ("", ABSENT)
    node.followers[name] = Follower(name, *position)
    node.note("info", "root followed for an agent below", root=name)


def _topic(node: Node, name: str) -> bytes:
    topic = node.topics.get(name)
    if topic is None:
        topic = node.topics[name] = bytes.fromhex(node.fresh())[:TOPIC]
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
    if not (node.direct or node.topics or node.online):
        return
    name = update[0]
    topic = node.topics.get(name)
    direct = node.direct.get(name)
    mine = node.online and name in node.claimed and update[1] == node.tip.roots[name].epoch
    if topic is None and not direct and not mine:
        return
    message = _new(RootUpdate, (tuple(update_to_plain(update)),))
    if direct:
        for session in direct:
            if not session.congested:  # else it learns from the next heartbeat what it lacks
                node.send(session, message)
    if topic is not None:
        node.effects.append(Publish(topic, message))
    if mine:
        node.effects.append(SendUp(message))


def tell_epoch(node: Node, root: Root) -> None:
    """A new epoch of `root` became durable: tell followers, over their own connections, where it is.

    An answer to what was written in it, with a version that was there before, must not come first: updates
    that are published may come later, and those who read slowly are not sent them.
    """
    message = Heartbeat(((root.name, root.epoch, root.version),))
    if root.name in node.topics:
        for session in node.sessions:
            if root.name in session.follows:
                node.send(session, message)
    else:
        for session in node.direct.get(root.name, ()):
            node.send(session, message)


def replaced(node: Node, name: str) -> None:
    """Root `name` was replaced as a whole, or its epoch: tell followers and the node above where it is."""
    settle(node, name, Follow)
    root = node.durable.roots.get(name)
    if root is None:
        return
    message = Heartbeat(((name, root.epoch, root.version),))
    for session in node.direct.get(name, ()):
        if not session.congested:
            node.send(session, message)
    if node.online and name in node.claimed and above.known(node, name):
        node.effects.append(SendUp(message))


def pull(node: Node, session: Session | None, message: Pull) -> None:
    """A follower asks for what it lacks; `session` None: the node above does."""
    name = check_root(message.root)
    if node.uplink is not None and not above.known(node, name):
        return  # it asks again when it hears where the root is
    if session is None or name in session.follows:
        replica_at(node, name, message.epoch, message.version)
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


# -- replicas that are ahead of their owner --------------------------------------------------------


def begin_epochs(node: Node, names: Iterable[str]) -> None:
    """Let roots of this node go on under new epochs."""
    epochs = tuple((name, next_epoch(node.tip.roots[name].epoch, node.fresh())) for name in names)
    node.append(NewEpochs(epochs))
    node.begun.update(name for name, _ in epochs)


def replica_at(node: Node, name: str, epoch: str, version: int) -> None:
    """A replica of root `name` is at `version` of `epoch`. One that is ahead of its owner shows that this has
    lost commits, as when its data folder was put back from a copy: the owner begins a new epoch.

    Else it would use versions a second time that the replica has already, and both would never be the same.
    A node between the two passes on what it hears.
    """
    root = node.tip.roots.get(name)
    if root is None or root.epoch != epoch or version <= root.version:
        return
    ahead = Heartbeat(((name, epoch, version),))
    if above.comes(node, name):
        if node.online and name in node.topics_up:
            node.effects.append(SendUp(ahead))
        return
    if root.owner:
        owner = node.claimant(root.owner)
        if owner is not None and name in owner.claims:
            node.send(owner, ahead)
        return
    # A replica is told what is durable only, so it can be ahead by what an earlier run told it and in no
    # epoch of this run. So whoever claims to be, a root begins one new epoch a run at most; and its versions
    # go on from where they are, not from what was claimed.
    if name in node.begun or node.failure is not None:
        return
    begin_epochs(node, (name,))
    node.note(
        "warning",
        "a replica is ahead: root goes on under a new epoch, as after a loss",
        root=name,
        version=root.version,
        replica=version,
    )


# -- the replicas of this node ---------------------------------------------------------------------


def follow(node: Node, follower: Follower, step: Step, owner: Session | None) -> None:
    """Carry out what a follower wants; `owner` None: the node above.

    Whoever waits below for a root that is not there at its owner is answered.
    """
    if step.records and node.failure is not None:
        step_back(node, follower)
        return
    try:
        if step.records and owner is None and _owner_lacks(node, follower.root):
            node.append(Owned(follower.root, ABOVE, ""))
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
    elif follower.root in node.awaiting and above.known(node, follower.root):
        settle(node, follower.root, Follow)
    if node.shown:
        release_shown(node)


def _owner_lacks(node: Node, name: str) -> bool:
    """Whether it does not stand in the log yet that root `name` belongs to the node above."""
    root = node.tip.roots.get(name)
    return root is None or root.owner == ""


def step_back(node: Node, follower: Follower) -> None:
    """The log did not take what the follower has: it is where the tip is."""
    root = node.tip.roots.get(follower.root)
    follower.disconnected()
    follower.epoch, follower.version = (root.epoch, root.version) if root is not None else ("", ABSENT)


def update(node: Node, session: Session | None, message: RootUpdate, *, published: bool = False) -> None:
    """The owner of a root sent a commit; `published`: beside the connection on which it says where it is."""
    content = update_from_plain(list(message.update))
    follower = _follower(node, session, content.root)
    if follower is not None and not (published and content.epoch == follower.left):
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
        elif session is None:
            if name in node.claimed:
                replica_at(node, name, epoch, version)
        elif name in session.follows:
            session.positions[name] = (epoch, version)
            replica_at(node, name, epoch, version)


def _follower(node: Node, session: Session | None, name: str) -> Follower | None:
    """Return the follower of `name` if the sender may speak for its owner."""
    if session is None:
        return node.followers.get(name) if above.comes(node, name) else None
    return node.followers.get(name) if name in session.claims else None


def my_positions(node: Node, session: Session) -> tuple[Position, ...]:
    """Where this node is, of the roots that `session` follows or owns."""
    found = []
    for name in (*session.follows, *session.claims):
        root = node.durable.roots.get(name)
        found.append((name, root.epoch, root.version) if root is not None else (name, "", ABSENT))
    return tuple(found)
