"""Who hears of what: subscriptions to changes and to channels.

Subscriptions to a path are found through a trie of oids, so that a change costs O(depth) however many there
are. Those by pattern are found by the plain characters that the pattern of the root begins with, and each
different pattern is tried once, however many have subscribed by it. What a subscription has been sent last is
noted with it, per root; one that could not be sent everything is `lagging` and catches up from there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from tega_zmq.matching import matching_below, reaches
from tega_zmq.paths import Path
from tega_zmq.patterns import ChannelPattern, OidPattern
from tega_zmq.sessions import Session
from tega_zmq.store import Change, Root, Store, Update
from tega_zmq.tree import Node, get, plain
from tega_zmq.wire.messages import ChangeField, Maybe

__all__ = ["ChangeSubscription", "ChannelSubscription", "Channels", "Subscriptions", "select"]


class ChangeSubscription:
    """One subscription of a session to a path, or to paths by pattern."""

    __slots__ = ("lagging", "named", "number", "partial", "path", "pattern", "sent", "session", "text")

    def __init__(
        self,
        session: Session,
        number: int,
        path: Path,
        pattern: OidPattern | None,
        text: str,
        named: bool = False,
    ) -> None:
        self.session = session
        self.number = number
        self.path = path
        """Empty if it goes by pattern."""
        self.pattern = pattern
        self.text = text
        """As listings show it."""
        self.named = named
        """Changes are told at the paths that the writer named, not where the least difference lies."""
        self.sent: dict[str, tuple[str, int]] = {}
        """Up to where it has been told, per root: (epoch, version)."""
        self.lagging = False
        self.partial = False
        """It lags, and its session asks for what it lacks piece by piece."""

    def concerns(self, root: str) -> bool:
        """Whether anything in `root` can be of interest."""
        return self.pattern is not None or self.path[0] == root


class ChannelSubscription:
    """One subscription of a session to a channel, or to channels by pattern."""

    __slots__ = ("channel", "number", "pattern", "session")

    def __init__(self, session: Session, number: int, channel: str, pattern: ChannelPattern | None) -> None:
        self.session = session
        self.number = number
        self.channel = channel
        self.pattern = pattern


class _Branch:
    __slots__ = ("children", "subscriptions")

    def __init__(self) -> None:
        self.children: dict[str, _Branch] = {}
        self.subscriptions: list[ChangeSubscription] = []


_LITERAL: Final = re.compile(r"[A-Za-z0-9_-]*")


class _Patterns:
    """The subscriptions by pattern."""

    def __init__(self) -> None:
        self.by_text: dict[str, list[ChangeSubscription]] = {}
        self._by_start: dict[str, dict[str, OidPattern]] = {}
        """By what a root must begin with: the patterns, by text."""
        self._lengths: Counter[int] = Counter()
        """Of the keys of `_by_start`, how often each length is there."""

    def add(self, pattern: OidPattern, subscription: ChangeSubscription) -> None:
        same = self.by_text.setdefault(pattern.text, [])
        same.append(subscription)
        if len(same) == 1:
            start = _start_of(pattern)
            if start not in self._by_start:
                self._lengths[len(start)] += 1
            self._by_start.setdefault(start, {})[pattern.text] = pattern

    def remove(self, pattern: OidPattern, subscription: ChangeSubscription) -> None:
        same = self.by_text[pattern.text]
        same.remove(subscription)
        if not same:
            del self.by_text[pattern.text]
            start = _start_of(pattern)
            del self._by_start[start][pattern.text]
            if not self._by_start[start]:
                del self._by_start[start]
                self._lengths[len(start)] -= 1
                self._lengths += Counter()  # drops what is zero

    def of_root(self, root: str) -> Iterator[OidPattern]:
        """Yield each different pattern that may match something in `root`."""
        for length in [each for each in self._lengths if each <= len(root)]:
            yield from self._by_start.get(root[:length], {}).values()

    def by(self, pattern: OidPattern) -> list[ChangeSubscription]:
        """Return the subscriptions by `pattern`."""
        return self.by_text[pattern.text]


def _start_of(pattern: OidPattern) -> str:
    """Return the plain characters that every root which `pattern` matches begins with."""
    text = pattern.oids[0].pattern
    literal = _LITERAL.match(text)
    if literal is None or "|" in text:
        return ""
    start = literal.group()
    return start[:-1] if text[len(start) : len(start) + 1] in ("*", "+", "?", "{") else start


class Subscriptions:
    """All subscriptions to changes at a node."""

    def __init__(self) -> None:
        self._top = _Branch()
        self._patterns = _Patterns()
        self.count = 0
        """How many there are; only to be read by others."""

    def __len__(self) -> int:
        return self.count

    def add(self, subscription: ChangeSubscription) -> None:
        """Take `subscription` in."""
        self.count += 1
        if subscription.pattern is not None:
            self._patterns.add(subscription.pattern, subscription)
            return
        branch = self._top
        for oid in subscription.path:
            branch = branch.children.setdefault(oid, _Branch())
        branch.subscriptions.append(subscription)

    def remove(self, subscription: ChangeSubscription) -> None:
        """Forget `subscription` (which must be in)."""
        self.count -= 1
        if subscription.pattern is not None:
            self._patterns.remove(subscription.pattern, subscription)
            return
        trail = [self._top]
        for oid in subscription.path:
            trail.append(trail[-1].children[oid])
        trail[-1].subscriptions.remove(subscription)
        for above, oid, branch in zip(
            reversed(trail[:-1]), reversed(subscription.path), reversed(trail[1:]), strict=True
        ):
            if branch.children or branch.subscriptions:
                break
            del above.children[oid]

    def of_root(self, root: str) -> list[ChangeSubscription]:
        """Return every subscription that anything in `root` can be of interest to."""
        found = [each for pattern in self._patterns.of_root(root) for each in self._patterns.by(pattern)]
        top = self._top.children.get(root)
        waiting = [] if top is None else [top]
        while waiting:
            branch = waiting.pop()
            found.extend(branch.subscriptions)
            waiting.extend(branch.children.values())
        return found

    def concerned(self, update: Update) -> list[ChangeSubscription]:
        """Return the subscriptions that `update` may concern, each once."""
        root, changes = update[0], update[4]
        top = self._top.children.get(root)
        if not self._patterns.by_text and (top is None or len(changes) == 1):
            return [] if top is None else _along(top, changes[0][0])
        found: dict[int, ChangeSubscription] = {}
        if top is not None:
            for change in changes:
                for subscription in _along(top, change.path):
                    found[id(subscription)] = subscription
        for pattern in self._patterns.of_root(root):
            if any(reaches(pattern, change.path) for change in changes):
                for subscription in self._patterns.by(pattern):
                    found[id(subscription)] = subscription
        return list(found.values())


def _along(branch: _Branch, path: Path) -> list[ChangeSubscription]:
    """Return the subscriptions at each step of `path` (whose root `branch` stands for), and all below it."""
    found = [*branch.subscriptions]
    for oid in path[1:]:
        below = branch.children.get(oid)
        if below is None:
            return found
        branch = below
        found += branch.subscriptions
    if branch.children:
        waiting = list(branch.children.values())
        while waiting:
            branch = waiting.pop()
            found += branch.subscriptions
            waiting.extend(branch.children.values())
    return found


def _maybe(node: Node | None) -> Maybe:
    return () if node is None else (plain(node),)


def select(
    subscription: ChangeSubscription, update: Update, before: Node | None, after: Node | None
) -> tuple[ChangeField, ...]:
    """Return the changes of `update` as `subscription` is to hear of them; `()` if none concerns it.

    `before` and `after` are the trees of the root. A change at or below the subscribed path is told as it
    is; one above it is narrowed to the path.
    """
    pattern = subscription.pattern
    changes, named = update[4], update[9]
    path = subscription.path
    depth = len(path)
    if len(changes) == 1 and pattern is None and not (named and subscription.named):
        at, present, value, session = changes[0]
        if present and type(value) is not dict and at[:depth] == path:
            # The usual change: a leaf stands there now, and nothing else changed. It is known without a look.
            old = get(before, at[1:])
            return ((at, () if old is None else (plain(old),), (value,), session),)
    found: list[ChangeField] = []
    places = _named(update, before, after) if named and subscription.named else changes
    if pattern is None:
        for change in places:
            at = change.path
            if at[:depth] == path:
                _tell(found, at, before, after, change.session)
            elif len(at) < depth and path[: len(at)] == at:
                _tell(found, path, before, after, change.session)
        return tuple(found)
    for change in places:
        at = change.path
        if pattern.match_prefix(at) is not None:
            _tell(found, at, before, after, change.session)
        elif len(at) < len(pattern.oids):
            matching = dict.fromkeys(matching_below(pattern, at, before))
            matching.update(dict.fromkeys(matching_below(pattern, at, after)))
            for path in matching:
                _tell(found, path, before, after, change.session)
    return tuple(found)


def _named(update: Update, before: Node | None, after: Node | None) -> list[Change]:
    """Return where the changes of `update` lie by the paths that its writer named.

    What was put and deleted in one transaction may leave a new container above it, and nothing else: then
    that is where the change lies.
    """
    lies = {change.path: change for change in update.changes}
    places: dict[Path, Change] = {}
    for path in update.named:
        above = [lies[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lies]
        if above and get(before, path[1:]) is get(after, path[1:]):
            places[above[0].path] = above[0]
        else:
            session = next((change.session for change in above if change.session), "")
            places[path] = Change(path, True, None, session)
    return list(places.values())


def _tell(
    found: list[ChangeField], path: Path, before: Node | None, after: Node | None, session: str
) -> None:
    old = get(before, path[1:]) if before is not None else None
    new = get(after, path[1:]) if after is not None else None
    if old is not new:
        found.append((path, _maybe(old), _maybe(new), session))


def present(
    subscription: ChangeSubscription, root: str, tree: Node | None, before: Node | None
) -> tuple[ChangeField, ...]:
    """Return the present value of what `subscription` covers in `root`, as changes.

    `before`, if it is known, is the tree that was there: what a pattern matched in it and is gone is told
    too, and only what is gone has an old value. If it is not known, and the root is gone, it is told of the
    root itself.
    """
    if subscription.pattern is None:
        paths: Iterable[Path] = (subscription.path,)
    else:
        paths = dict.fromkeys(matching_below(subscription.pattern, (root,), tree))
        paths.update(dict.fromkeys(matching_below(subscription.pattern, (root,), before)))
        if tree is None and before is None and subscription.pattern.step(0, root) is not None:
            paths = ((root,),)
    return tuple(_as_present(path, tree, before) for path in paths)


def _as_present(path: Path, tree: Node | None, before: Node | None) -> ChangeField:
    new = get(tree, path[1:]) if tree is not None else None
    old = get(before, path[1:]) if new is None and before is not None else None
    return path, _maybe(old), _maybe(new), ""


def positions(subscription: ChangeSubscription, store: Store) -> dict[str, tuple[str, int]]:
    """Return (epoch, version) of every root of `store` that `subscription` can concern."""
    roots: Iterable[Root | None]
    if subscription.pattern is None:
        roots = (store.roots.get(subscription.path[0]),)
    else:
        roots = [store.roots[name] for name in sorted(store.roots)]
    return {root.name: (root.epoch, root.version) for root in roots if root is not None}


class Channels:
    """All subscriptions to channels at a node."""

    def __init__(self) -> None:
        self._exact: dict[str, list[ChannelSubscription]] = {}
        self._patterns: list[ChannelSubscription] = []

    def add(self, subscription: ChannelSubscription) -> None:
        """Take `subscription` in."""
        if subscription.pattern is None:
            self._exact.setdefault(subscription.channel, []).append(subscription)
        else:
            self._patterns.append(subscription)

    def remove(self, subscription: ChannelSubscription) -> None:
        """Forget `subscription` (which must be in)."""
        if subscription.pattern is not None:
            self._patterns.remove(subscription)
            return
        exact = self._exact[subscription.channel]
        exact.remove(subscription)
        if not exact:
            del self._exact[subscription.channel]

    def listeners(self, channel: str) -> dict[Session, list[int]]:
        """Return the sessions that hear `channel`, each with the numbers of its subscriptions."""
        found: dict[Session, list[int]] = {}
        for subscription in self._exact.get(channel, ()):
            found.setdefault(subscription.session, []).append(subscription.number)
        for subscription in self._patterns:
            if subscription.pattern is not None and subscription.pattern.match(channel):
                found.setdefault(subscription.session, []).append(subscription.number)
        return found

    def listing(self) -> dict[str, list[str]]:
        """Return, per channel or regex, the tega_ids that hear it."""
        found: dict[str, list[str]] = {}
        for channel, subscriptions in self._exact.items():
            found[channel] = sorted(each.session.tega_id for each in subscriptions)
        for subscription in self._patterns:
            found.setdefault(subscription.channel, []).append(subscription.session.tega_id)
        return found
