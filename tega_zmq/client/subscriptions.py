"""What a client follows, and how far it has heard: so that nothing is missed and nothing told twice.

Every subscription to changes remembers per root the last (epoch, version) that it passed on. When the
connection or the session was lost, and when a `Changed` does not follow on what was passed on last, it is
said again with these positions (`since`), and the node sends what lies between. All is values; the owner
sends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tega_zmq.client.results import Change, changes_of
from tega_zmq.errors import InvalidValue, TegaError
from tega_zmq.paths import Path
from tega_zmq.wire import messages
from tega_zmq.wire.messages import Changed, Position

__all__ = ["MAX_SUBSCRIPTIONS", "Ask", "Subscribed", "Subscriptions"]

MAX_SUBSCRIPTIONS: Final = 10_000
"""Most subscriptions of a session."""

Ask = tuple[type[Any], tuple[Any, ...]]
"""A request: its class and its own fields."""

Begin = tuple[str, int]
"""A version to begin from, as a position has it: `("@", number)`, or `("@" + tag or time, 0)`."""

OnEnd = Callable[[TegaError], Any]
"""Called when a subscription that stood ends by an error."""

_NOTHING: Final = ("", -1)
"""The position of who has heard nothing of a root: the node sends all of it, from its first commit on if all
are in its memory."""


class Subscribed:
    """One subscription. Its owner may read `number`, `what`, `scope` and `callback`."""

    __slots__ = (
        "asking",
        "begin",
        "callback",
        "cls",
        "error",
        "named",
        "number",
        "on_end",
        "replied",
        "scope",
        "seen",
        "standing",
        "what",
    )

    def __init__(
        self,
        number: int,
        cls: type[Any],
        what: Any,
        scope: str,
        callback: Callable[[Any], Any],
        begin: Begin | None = None,
        on_end: OnEnd | None = None,
        named: bool = False,
    ) -> None:
        self.number = number
        self.cls = cls
        """`Subscribe`, `SubscribeRegex` or `Listen`."""
        self.what = what
        """A path, a regex, or (channel, is it a regex)."""
        self.scope = scope
        self.callback = callback
        self.named = named
        self.on_end = on_end
        """Called with the error, if the subscription ends by one after it stood."""
        self.error: TegaError | None = None
        """That error."""
        self.begin = begin
        """From where the node is asked for the past next; None: it has told all of that."""
        self.seen: dict[str, tuple[str, int]] = {}
        """By root: epoch and version of the last change passed on, or where the subscription began."""
        self.replied: dict[str, tuple[str, int]] = {}
        """By root: from where on the node, as it said last, sends changes."""
        self.standing = False
        """The node has said yes once."""
        self.asking = True
        """The answer to the last ask is not here yet."""

    def ask(self) -> Ask:
        """Return the request that asks the node for it, from where it stands."""
        if self.cls is messages.Listen:
            channel, regex = self.what
            return messages.Listen, (self.number, channel, regex, self.scope)
        if self.begin is not None:
            return self.cls, (self.number, self.what, self.scope, ((self.what[0], *self.begin),), self.named)
        if self.standing and self.cls is messages.Subscribe:
            self.seen.setdefault(self.what[0], _NOTHING)  # a root that came into being meanwhile
        since: tuple[Position, ...] = tuple(
            (root, epoch, version) for root, (epoch, version) in self.seen.items()
        )
        return self.cls, (self.number, self.what, self.scope, since, self.named)


class Subscriptions:
    """All subscriptions of one client, by number."""

    def __init__(self) -> None:
        self._by_number: dict[int, Subscribed] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def to_path(
        self,
        path: Path,
        scope: str,
        callback: Callable[[Change], Any],
        begin: Begin | None = None,
        on_end: OnEnd | None = None,
        named: bool = False,
    ) -> Subscribed:
        """Add a subscription to changes at, below and above `path`. Raises `InvalidValue`: too many."""
        return self._add(messages.Subscribe, path, scope, callback, begin, on_end, named)

    def to_regex(
        self,
        regex: str,
        scope: str,
        callback: Callable[[Change], Any],
        on_end: OnEnd | None = None,
        named: bool = False,
    ) -> Subscribed:
        """Add a subscription to changes at and below every path that matches `regex`. Raises as `to_path`."""
        return self._add(messages.SubscribeRegex, regex, scope, callback, None, on_end, named)

    def to_channel(
        self,
        channel: str,
        regex: bool,
        scope: str,
        callback: Callable[[Any], Any],
        on_end: OnEnd | None = None,
    ) -> Subscribed:
        """Add a subscription to the messages of `channel`. Raises as `to_path`."""
        return self._add(messages.Listen, (channel, regex), scope, callback, None, on_end)

    def _add(
        self,
        cls: type[Any],
        what: Any,
        scope: str,
        callback: Callable[[Any], Any],
        begin: Begin | None,
        on_end: OnEnd | None,
        named: bool = False,
    ) -> Subscribed:
        if len(self._by_number) >= MAX_SUBSCRIPTIONS:
            raise InvalidValue(f"{MAX_SUBSCRIPTIONS} subscriptions stand, as many as one session may have")
        self._last += 1
        subscribed = Subscribed(self._last, cls, what, scope, callback, begin, on_end, named)
        self._by_number[self._last] = subscribed
        return subscribed

    def get(self, number: int) -> Subscribed | None:
        """Return subscription `number`, or None if it ended."""
        return self._by_number.get(number)

    def remove(self, number: int) -> bool:
        """Forget subscription `number`; what still comes for it is dropped. Returns whether it was there."""
        return self._by_number.pop(number, None) is not None

    def find(self, cls: type[Any], what: Any) -> list[int]:
        """Return the numbers of the subscriptions of class `cls` to `what`."""
        return [each.number for each in self._by_number.values() if each.cls is cls and each.what == what]

    def welcomed(self, kept: bool) -> list[int]:
        """A session was opened or resumed: the numbers of those to ask for again, in order.

        Those that wait for their first answer are not among them: the session sends their request again. With
        `kept`, the node still has the session's subscriptions, so that what listens to channels stands.
        """
        again = [
            each
            for each in self._by_number.values()
            if each.standing and not (kept and each.cls is messages.Listen)
        ]
        for each in again:
            each.asking = True
        return [each.number for each in again]

    def confirmed(self, number: int, positions: Any) -> bool:
        """The node said yes to subscription `number`, and from where on it sends changes.

        Returns whether it must be asked for again: it stood before, follows a regex, and meanwhile roots came
        into being of which it has heard nothing; or the node tells the past in pieces, and more is to come.
        """
        subscribed = self._by_number.get(number)
        if subscribed is None:
            return False
        stood = subscribed.standing
        subscribed.standing = True
        subscribed.asking = False
        if subscribed.cls is messages.Listen:
            return False
        subscribed.begin = next(
            ((epoch, version) for _, epoch, version in positions if epoch.startswith("@")), None
        )
        subscribed.replied = {
            root: (epoch, version) for root, epoch, version in positions if not epoch.startswith("@")
        }
        fresh = subscribed.replied.keys() - subscribed.seen.keys()
        for root in fresh:
            # Of one that came into being meanwhile, what the node sends from there on is not all.
            subscribed.seen[root] = _NOTHING if stood else subscribed.replied[root]
            if stood:
                del subscribed.replied[root]
        if (stood and fresh) or subscribed.begin is not None:
            subscribed.asking = True
            return True
        return False

    def refused(self, number: int) -> None:
        """The ask for subscription `number` failed."""
        subscribed = self._by_number.get(number)
        if subscribed is not None:
            subscribed.asking = False

    def take(self, changed: Changed) -> tuple[Subscribed | None, tuple[Change, ...], bool]:
        """Take in `changed`; return (subscription, changes to pass on, must it be asked for again).

        The subscription is None if it ended. There are no changes if they were passed on before, or if
        something is missing before them; then it must be asked for again, unless that is under way.
        """
        subscribed = self._by_number.get(changed.subscription)
        if subscribed is None:
            return None, (), False
        root, epoch, version = changed.root, changed.epoch, changed.version
        seen = subscribed.seen.get(root)
        # What follows on a first word that was lost with a connection comes anew when the node has answered.
        lost = subscribed.standing and subscribed.asking
        if version == changed.previous and epoch:
            # Part of a commit that is too large for one message; the last part says the new version.
            follows = (
                changed.reset
                or seen == (epoch, version)
                or (seen is None and not (lost and version != -1))
                or (seen == _NOTHING and version == -1)
                or subscribed.replied.get(root) == (epoch, version)
            )
            return subscribed, changes_of(changed) if follows else (), False
        if seen is None and lost and not changed.reset and changed.previous != -1:
            return subscribed, (), False
        if seen is not None:
            same = seen[0] == epoch
            if same and version <= seen[1]:
                return subscribed, (), False
            follows = (
                changed.reset
                or (same and changed.previous <= seen[1])
                or (seen == _NOTHING and changed.previous == -1)
                or subscribed.replied.get(root) == (epoch, changed.previous)
            )
            if not follows:
                ask = not subscribed.asking
                subscribed.asking = True
                return subscribed, (), ask
        subscribed.seen[root] = (epoch, version)
        return subscribed, changes_of(changed), False
