"""Handlers and the calls in flight.

Who offers a path is kept here, not in the tree. Every call that is taken ends exactly once: by the
handler's `Result`, or by `expire`, `handler_lost`, `cancel` or `caller_lost`; whoever removes it from the
table answers it, so a second end finds nothing.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

from tega_zmq.paths import Path
from tega_zmq.patterns import OidPattern
from tega_zmq.sessions import Session
from tega_zmq.wire.messages import Call

__all__ = ["Calls", "Handlers", "InFlight", "Many", "of_caller"]


class Handlers:
    """Which sessions offer which path."""

    def __init__(self) -> None:
        self._offers: dict[Path, OrderedDict[Session, None]] = {}
        """The sessions in the order in which it is their turn."""
        self._within: dict[Path, dict[Path, None]] = {}
        """For every path at or above an offered one: the offered ones at and below it."""

    def __iter__(self) -> Iterator[tuple[Path, list[Session]]]:
        return ((path, list(offers)) for path, offers in self._offers.items())

    def __len__(self) -> int:
        return len(self._offers)

    def add(self, path: Path, session: Session) -> None:
        """`session` answers calls at `path`; saying so again changes nothing."""
        offers = self._offers.get(path)
        if offers is None:
            offers = self._offers[path] = OrderedDict()
            for length in range(1, len(path) + 1):
                self._within.setdefault(path[:length], {})[path] = None
        offers.setdefault(session)
        session.handlers.add(path)

    def remove(self, path: Path, session: Session) -> bool:
        """`session` answers no more at `path`. Returns whether it did."""
        session.handlers.discard(path)
        offers = self._offers.get(path)
        if offers is None or session not in offers:
            return False
        del offers[session]
        if not offers:
            del self._offers[path]
            for length in range(1, len(path) + 1):
                within = self._within[path[:length]]
                del within[path]
                if not within:
                    del self._within[path[:length]]
        return True

    def offered(self, path: Path) -> bool:
        """Whether any session offers `path`, connected or not."""
        return path in self._offers

    def pick(self, path: Path, now: float = 0.0) -> Session | None:
        """Return the connected session whose turn it is, or None.

        One of which is known that it is away beyond an agent has its turn only if all others are too.
        """
        offers = self._offers.get(path)
        if offers is None:
            return None
        away = None
        for _ in range(len(offers)):
            session = next(iter(offers))
            offers.move_to_end(session)
            if session.connected:
                if session.away_until <= now:
                    return session
                away = away or session
        return away

    def shared(self, path: Path) -> bool:
        """Whether more than one session offers `path`."""
        return len(self._offers.get(path, ())) > 1

    def first(self, path: Path) -> Session:
        """Return some session that offers `path` (which must be offered)."""
        return next(iter(self._offers[path]))

    def matching(self, pattern: OidPattern) -> list[tuple[Path, Session]]:
        """Return every (path, session) whose path matches `pattern`, sorted by path."""
        found = [
            (path, session)
            for path, offers in self._offers.items()
            if pattern.match(path) is not None
            for session in offers
        ]
        found.sort(key=lambda entry: (entry[0], entry[1].tega_id))
        return found

    def below(self, path: Path) -> list[tuple[Path, list[Session]]]:
        """Return what is offered at and below `path`, sorted."""
        within = self._within.get(path)
        return [] if within is None else [(at, list(self._offers[at])) for at in sorted(within)]


class Many:
    """A call to all handlers that match a pattern: the outcomes so far."""

    __slots__ = ("outcomes", "request", "session", "waiting")

    def __init__(self, session: Session, request: int) -> None:
        self.session = session
        self.request = request
        self.waiting = 0
        self.outcomes: list[tuple[Path, str, bool, Any]] = []


class InFlight(NamedTuple):
    """One call on its way."""

    number: int
    path: Path
    handler: Session
    deadline: float
    """Monotonic seconds."""
    caller: Session | None
    """Who asked here; None: it came down the uplink."""
    request: int
    """The caller's request id; of a call from the uplink its number there."""
    origin: str
    """Of a call from the uplink: the local session that it was meant for."""
    many: Many | None
    again: Call | None = None
    """The request, kept if it can be given to another one of the group when it could not be handed over."""


class Calls:
    """The calls in flight, by number and deadline."""

    def __init__(self) -> None:
        self._by_number: dict[int, InFlight] = {}
        self._from_uplink: dict[tuple[str, int], int] = {}
        """By (origin, request): the calls that came down the uplink."""
        self._deadlines: list[tuple[float, int]] = []
        self._last = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def start(
        self,
        path: Path,
        handler: Session,
        deadline: float,
        *,
        caller: Session | None,
        request: int,
        origin: str = "",
        many: Many | None = None,
        again: Call | None = None,
    ) -> InFlight:
        """Note a call and return it with its fresh number."""
        self._last += 1
        call = InFlight(self._last, path, handler, deadline, caller, request, origin, many, again)
        self._by_number[call.number] = call
        heapq.heappush(self._deadlines, (deadline, call.number))
        handler.serving[call.number] = None
        if caller is not None:
            caller.calling.setdefault(request, {})[call.number] = None
        else:
            self._from_uplink[origin, request] = call.number
        return call

    def end(self, number: int) -> InFlight | None:
        """Take call `number` out; None if it is over already. The caller of this answers it."""
        call = self._by_number.pop(number, None)
        if call is not None:
            call.handler.serving.pop(number, None)
            if call.caller is not None:
                made = call.caller.calling[call.request]
                del made[number]
                if not made:
                    del call.caller.calling[call.request]
            elif self._from_uplink.get((call.origin, call.request)) == number:
                del self._from_uplink[call.origin, call.request]
        return call

    def served_by(self, number: int, session: Session) -> bool:
        """Whether call `number` is in flight to `session`."""
        call = self._by_number.get(number)
        return call is not None and call.handler is session

    def from_uplink(self, request: int, origin: str) -> int | None:
        """Return the number of the call that came down the uplink as `request` for `origin`."""
        return self._from_uplink.get((origin, request))

    def all_from_uplink(self) -> list[int]:
        """Numbers of the calls that came down the uplink."""
        return list(self._from_uplink.values())

    def expired(self, now: float) -> Iterator[InFlight]:
        """Take out and yield the calls whose deadline has passed."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = heapq.heappop(self._deadlines)
            call = self.end(number)
            if call is not None:
                yield call
        if len(self._deadlines) > 64 and len(self._deadlines) > 2 * len(self._by_number):
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._by_number]
            heapq.heapify(self._deadlines)

    def next_deadline(self) -> float:
        """The earliest deadline; infinite if there is none."""
        while self._deadlines and self._deadlines[0][1] not in self._by_number:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else float("inf")


def of_caller(session: Session) -> list[int]:
    """Return the numbers of the calls that `session` waits for."""
    return [number for made in session.calling.values() for number in made]
