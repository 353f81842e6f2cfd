"""Requests about subscriptions and messages, and telling subscribers what became durable."""

from __future__ import annotations

from typing import Any, TypeAlias

from tega_zmq import paths, subscriptions, values
from tega_zmq.errors import Compacted, InvalidPath, InvalidValue, NotFound, StorageError, TooLarge
from tega_zmq.node import past
from tega_zmq.node.calling import announce, forward_up, retract
from tega_zmq.node.state import Node
from tega_zmq.patterns import compile_channel, compile_oids
from tega_zmq.sessions import Session
from tega_zmq.store import ABSENT, Kept, Root, Store, Update, update_at, updates_since
from tega_zmq.store.applying import advanced
from tega_zmq.store.history import new_root
from tega_zmq.subscriptions import ChangeSubscription, ChannelSubscription
from tega_zmq.wire.messages import (
    Changed,
    Dropped,
    Listen,
    Message,
    Position,
    Publish,
    Subscribe,
    SubscribeRegex,
    Unsubscribe,
)

MAX_SUBSCRIPTIONS = 10_000
"""Most subscriptions of one session, to changes and channels together."""

MAX_UNKNOWN = 1000
"""Most roots that a subscription says to know and that are not there (any more)."""

PIECE = 500
"""Most commits of the past that a subscriber is told at a time; it asks for more when it has them."""

MAX_CHANNEL = 255
"""Longest channel name, in characters."""

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes, where every change comes by."""

_SCOPES = frozenset({"local", "global"})


def subscribe(node: Node, session: Session, request: Subscribe | SubscribeRegex) -> None:
    """Subscribe to the changes of a path or of what matches a regex."""
    _check_scope(request.scope)
    if isinstance(request, Subscribe):
        path, pattern = paths.check(request.path), None
        text = paths.format_path(path)
    else:
        path, pattern, text = (), compile_oids(request.regex), request.regex
    subscription = ChangeSubscription(session, request.subscription, path, pattern, text, request.named)
    since, steps = _from_past(node, subscription, request.since)
    subscription.sent = _start(subscription, node.durable, since)
    _make_room(node, session, request.subscription)
    if request.scope == "global":
        above = request if since == request.since else request._replace(since=())
        announce(node, session, ("subscription", request.subscription), above)
    node.subscriptions.add(subscription)
    session.subscriptions[request.subscription] = subscription
    positions = [[root, epoch, version] for root, (epoch, version) in subscription.sent.items()]
    if steps and steps[-1][0].after < node.durable.roots[steps[-1][0].root].version:
        subscription.lagging = subscription.partial = True
        positions.append([steps[-1][0].root, "@", steps[-1][0].after])
    node.reply(session, request.id, positions)
    for update, before, after in steps:
        _tell_one(node, subscription, update, before, after, {})
    if since and not steps:  # they tell all that came since, or the subscriber asks again
        catch_up(node, subscription)


Step: TypeAlias = tuple[Update, Any, Any]
"""A commit of the past, and the trees before and after it."""


def _from_past(
    node: Node, subscription: ChangeSubscription, since: tuple[Position, ...]
) -> tuple[tuple[Position, ...], list[Step]]:
    """Return `since` with a reference to a version settled, and the first commits after it.

    A reference is a position whose epoch begins with `@`: the version stands beside it, or a tag or time
    after it. There are no steps if what is lacking is in memory, or nothing is known of what lies between.
    Raises `NotFound`, `InvalidValue`, `Compacted`, `Deep`.
    """
    if len(since) != 1 or subscription.pattern is not None or since[0][0] != subscription.path[0]:
        if any(epoch.startswith("@") for _, epoch, _ in since):
            raise InvalidValue("a subscription begins from a version of the root that its path lies in")
        return since, []
    name, epoch, version = since[0]
    root = node.durable.roots.get(name)
    referred = epoch.startswith("@")
    if referred:
        try:
            meant = past.reference(node, node.durable, name, epoch[1:] or version)
        except past.Elsewhere:
            raise NotFound(
                f"what {epoch[1:64]} of {name} is, only its owner knows; give the number of the version, or"
                " subscribe there"
            ) from None
        assert root is not None
        assert meant is not None
        version = meant
    elif root is None or epoch != root.epoch or version < ABSENT or _trees_kept(root, version):
        return since, []
    settled = ((name, root.epoch, version),)
    try:
        return settled, _steps(node, root, version)
    except past.Elsewhere as lacking:
        if referred:
            raise Compacted(
                f"version {version} of {name} is no longer kept here; the oldest is {root.oldest}; its owner"
                " may have it",
                root=name,
                version=version,
                oldest=root.oldest,
            ) from lacking
        return since, []
    except (Compacted, StorageError):
        if referred:
            raise
        return since, []


def _steps(node: Node, root: Root, version: int) -> list[Step]:
    """Return the first `PIECE` commits after `version`, if all that came since can be read.

    Raises `Compacted`, `StorageError`, `Deep`, `Elsewhere`.
    """
    past.check_whole(node, root, version)
    steps: list[Step] = []
    end = min(root.version, version + PIECE)
    if version < root.oldest:
        nothing = new_root(root.name, "", root.epoch)
        at = nothing if version == ABSENT else past.at_version(node, root, version)
        for update in past.updates(node, root, version, min(end, root.oldest)):
            after, _ = advanced(at, update, Kept(1, 1))
            steps.append((update._replace(epoch=root.epoch), at.node, after.node))
            at = after
        if at.version < min(end, root.oldest):
            raise Compacted(
                f"the commit after version {at.version} of {root.name} cannot be read any more",
                root=root.name,
                version=at.version,
                oldest=root.oldest,
            )
    for number in range(max(version, root.oldest) + 1, end + 1):
        kept = update_at(root, number)
        assert kept is not None
        # Versions count on through epochs; the subscriber needs but one to count by.
        update = kept._replace(epoch=root.epoch)
        steps.append((update, root.trees[number - 1][0], root.trees[number][0]))
    return steps


def _start(
    subscription: ChangeSubscription, store: Store, since: tuple[Position, ...]
) -> dict[str, tuple[str, int]]:
    start = subscriptions.positions(subscription, store)
    if since:  # what it does not name was not there then
        start = dict.fromkeys(start, ("", -1))
    unknown = 0
    for root, epoch, version in since:
        if subscription.concerns(root):
            unknown += root not in start
            if unknown > MAX_UNKNOWN:
                raise TooLarge(
                    f"`since` names more than {MAX_UNKNOWN} roots that are not there",
                    size=len(since),
                    limit=MAX_UNKNOWN,
                )
            start[root] = (epoch, version)
    return start


def _check_scope(scope: str) -> None:
    if scope not in _SCOPES:
        raise InvalidValue(f"there is no scope {scope[:32]!a}; there are local and global")


def _make_room(node: Node, session: Session, number: int) -> None:
    """A subscription under a number that is in use replaces the old one."""
    old = session.subscriptions.get(number)
    if old is not None:
        _remove(node, session, old)
    elif len(session.subscriptions) >= MAX_SUBSCRIPTIONS:
        raise TooLarge(
            f"{session.tega_id} has {MAX_SUBSCRIPTIONS} subscriptions already",
            size=MAX_SUBSCRIPTIONS,
            limit=MAX_SUBSCRIPTIONS,
        )


def _remove(node: Node, session: Session, subscription: Any) -> None:
    del session.subscriptions[subscription.number]
    session.told.pop(subscription.number, None)
    if isinstance(subscription, ChangeSubscription):
        node.subscriptions.remove(subscription)
    else:
        node.channels.remove(subscription)


def unsubscribe(node: Node, session: Session, request: Unsubscribe) -> None:
    """End one subscription."""
    subscription = session.subscriptions.get(request.subscription)
    if subscription is None:
        raise NotFound(f"{session.tega_id} has no subscription {request.subscription}")
    _remove(node, session, subscription)
    retract(node, session, ("subscription", request.subscription), request)
    node.reply(session, request.id, None)


def remove_all(node: Node, session: Session) -> None:
    """`session` is over: forget its subscriptions."""
    for subscription in list(session.subscriptions.values()):
        _remove(node, session, subscription)


# -- changes ---------------------------------------------------------------------------------------


def tell(node: Node, update: Update, before: Root | None, after: Root | None) -> None:
    """`update` became durable: tell the subscribers that it concerns."""
    if not node.subscriptions.count:
        return
    old = before.node if before is not None else None
    if before is not None and after is not None and before.version != ABSENT and before.epoch != update.epoch:
        reset(node, after, old)  # it follows on nothing that anybody was told
        return
    new = after.node if after is not None else None
    made: dict[Any, Changed | None] = {}
    for subscription in node.subscriptions.concerned(update):
        session = subscription.session
        # The second question is for sub-sessions: they have no connection of their own.
        if subscription.lagging or session.congested or (session.peer is None and not session.connected):
            subscription.lagging = True
        else:
            _tell_one(node, subscription, update, old, new, made)


def _tell_one(
    node: Node,
    subscription: ChangeSubscription,
    update: Update,
    old: Any,
    new: Any,
    made: dict[Any, Changed | None],
) -> None:
    """Tell `subscription` of `update`; `made` holds what others were told of it: many ask for the same."""
    name, epoch, _, version, _, time, tega_id, text, backto, _ = update
    known = subscription.sent.get(name)
    if known is not None and known[0] == epoch and version <= known[1]:
        return
    previous = known[1] if known is not None and known[0] == epoch else -1
    key = (subscription.number, previous, subscription.pattern is None, subscription.named, subscription.text)
    if key in made:
        message = made[key]
    else:
        changes = subscriptions.select(subscription, update, old, new)
        message = None
        if changes:
            number = subscription.number
            message = _new(
                Changed,
                (number, name, epoch, previous, version, time, tega_id, text, backto, False, changes),
            )
        made[key] = message
    if message is not None:
        subscription.sent[name] = (epoch, version)
        node.send(subscription.session, message)


def reset(node: Node, root: Root, old: Any) -> None:
    """Root `root` was replaced as a whole, `old` was its tree: tell its subscribers the present values."""
    for subscription in node.subscriptions.of_root(root.name):
        if subscription.lagging or subscription.session.congested or not subscription.session.connected:
            subscription.lagging = True
        else:
            _tell_present(node, subscription, root, old)


def catch_up(node: Node, subscription: ChangeSubscription) -> None:
    """Tell `subscription` what it has missed: each kept commit, or where they are not kept the present."""
    subscription.lagging = False
    names = dict.fromkeys(subscription.sent)
    names.update(dict.fromkeys(subscriptions.positions(subscription, node.durable)))
    for name in names:
        epoch, version = subscription.sent.get(name, ("", ABSENT))
        root = node.durable.roots.get(name)
        if root is None:
            # Of a root that is not here, a global subscription hears from the node above.
            above = ("subscription", subscription.number) in subscription.session.announced
            if version != ABSENT and not above:
                _tell_present(node, subscription, gone(name), None)
            continue
        if (epoch, version) == (root.epoch, root.version) or (not root.epoch and root.version != ABSENT):
            continue  # no epoch: it was given to an agent that has said nothing of it yet
        # Who has heard nothing of a root is at its beginning, in whatever epoch that was.
        nothing = not epoch and version == ABSENT
        missed = updates_since(root, root.epoch if nothing else epoch, version)
        if missed is None or not _trees_kept(root, version):
            _tell_present(node, subscription, root, _known(root, epoch, version))
            continue
        for update in missed:
            before = root.trees[update.before][0] if update.before in root.trees else None
            _tell_one(node, subscription, update, before, root.trees[update.after][0], {})


def _trees_kept(root: Root, version: int) -> bool:
    return version >= root.oldest or (version == ABSENT and root.oldest == 0)


def _known(root: Root, epoch: str, version: int) -> Any:
    """Return the tree of `version` of an epoch before, if it is still kept; else None."""
    kept = root.trees.get(version)
    update = root.updates.get(version)
    return kept[0] if kept is not None and update is not None and update[0] == epoch else None


def gone(name: str) -> Root:
    """Return what stands for a root that is there no more, not even deleted: the store was cleared."""
    return new_root(name, "", "")


def _tell_present(node: Node, subscription: ChangeSubscription, root: Root, old: Any) -> None:
    known = subscription.sent.get(root.name)
    subscription.sent[root.name] = (root.epoch, root.version)
    changes = subscriptions.present(subscription, root.name, root.node, old)
    if not changes:
        return
    time, tega_id, message = root.last
    node.send(
        subscription.session,
        Changed(
            subscription.number,
            root.name,
            root.epoch,
            known[1] if known is not None and known[0] == root.epoch else ABSENT,
            root.version,
            time,
            tega_id,
            message,
            None,
            True,
            changes,
        ),
    )


# -- messages --------------------------------------------------------------------------------------


def listen(node: Node, session: Session, request: Listen) -> None:
    """Subscribe to a channel, or to all whose name matches a regex."""
    _check_scope(request.scope)
    pattern = compile_channel(request.channel) if request.regex else None
    if pattern is None:
        _check_channel(request.channel)
    _make_room(node, session, request.subscription)
    if request.scope == "global":
        announce(node, session, ("subscription", request.subscription), request)
    subscription = ChannelSubscription(session, request.subscription, request.channel, pattern)
    node.channels.add(subscription)
    session.subscriptions[request.subscription] = subscription
    node.reply(session, request.id, [])


def _check_channel(channel: str) -> None:
    if not channel or len(channel) > MAX_CHANNEL:
        raise InvalidPath(
            f"a channel name has 1 to {MAX_CHANNEL} characters, not {len(channel)}", path=channel[:64]
        )


def publish(node: Node, session: Session, request: Publish) -> None:
    """Send a message to all who listen, but not to the sender itself."""
    _check_channel(request.channel)
    values.check_passed(request.value, "the message")
    if node.uplink is not None and node.online:
        forward_up(node, session, request)
    count = deliver(node, session, request.channel, session.tega_id, request.value)
    node.reply(session, request.id, count)


def deliver(node: Node, sender: Session, channel: str, tega_id: str, value: Any) -> int:
    """Queue a message for the listeners; return how many sessions that were.

    Sessions beyond the connection that it came on have heard it at their own node.
    """
    count = 0
    for session, numbers in node.channels.listeners(channel).items():
        if session is sender or (sender.via is not None and session.via is sender.via):
            continue
        count += 1
        message = Message(tuple(numbers), channel, tega_id, value)
        send_message(node, session, message)
    return count


def send_message(node: Node, session: Session, message: Message) -> None:
    """Send a message of a channel to `session`, or keep it until that reads again."""
    if session.congested or not session.connected:
        session.queue_message(message)
    else:
        node.send(session, message)


def tell_dropped(node: Node, session: Session) -> None:
    """Tell `session` how many messages were dropped, if any were."""
    if session.dropped:
        node.send(session, Dropped(session.dropped))
        node.dropped += session.dropped
        session.dropped = 0


def resume(node: Node, session: Session) -> None:
    """`session` reads again: send what waited, and what it missed."""
    tell_dropped(node, session)
    while session.backlog:
        node.send(session, session.take_message())
    for subscription in list(session.subscriptions.values()):
        if isinstance(subscription, ChangeSubscription) and subscription.lagging and not subscription.partial:
            catch_up(node, subscription)
