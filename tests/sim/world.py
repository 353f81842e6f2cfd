"""The clock, the queue of what is to happen, the random numbers and the trace of one simulated run.

Everything that happens is an event: it was put into the queue for a time, and is taken from it in order of
time, those of the same time in the order in which they were put. All random numbers come from one generator,
made from the seed. So a seed decides everything, and a run can be repeated step by step.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from rpds import HashTrieMap

__all__ = ["START", "Broken", "Line", "World"]

START = 1000.0
"""Where the monotonic clock begins, in seconds."""

KEPT_LINES = 400
"""Lines of the trace that are kept, unless all are printed."""


class Broken(Exception):
    """A promise does not hold."""

    def __init__(self, promise: int, text: str) -> None:
        super().__init__(f"promise {promise}: {text}")
        self.promise = promise
        self.text = text


class Line(NamedTuple):
    """One line of the trace; made into text only when somebody reads it."""

    event: int
    now: float
    who: str
    what: str
    about: Any

    def text(self) -> str:
        """Return the line."""
        about = "" if self.about is None else f" {_shown(self.about)}"
        if len(about) > 240:
            about = about[:236] + " ..."
        return f"{self.event:7d} {self.now - START:10.4f} {self.who:<9} {self.what}{about}"


def _shown(value: Any) -> str:
    """Return `value` as text; maps by their keys, since their own order differs from process to process."""
    if isinstance(value, HashTrieMap):
        value = dict(value)
    if type(value) is dict:
        return "{" + ", ".join(f"{key!r}: {_shown(value[key])}" for key in sorted(value, key=repr)) + "}"
    if isinstance(value, (list, tuple)):
        name = "" if type(value) in (list, tuple) else type(value).__name__
        return f"{name}(" + ", ".join(map(_shown, value)) + ")"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return repr(value)


class World:
    """One run's clock, queue, random numbers and trace."""

    def __init__(self, seed: int, show: Callable[[str], None] | None = None) -> None:
        """`show` is given each line of the trace when it is written; without it the last ones are kept."""
        self.seed = seed
        self.random = random.Random(seed)
        self.now = START
        """Monotonic seconds."""
        self.events = 0
        """How many have happened."""
        self.trace: deque[Line] = deque(maxlen=KEPT_LINES)
        self._show = show
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ties = 0

    # -- what is to happen -------------------------------------------------------------------------

    def at(self, time: float, function: Callable[..., None], *arguments: Any) -> None:
        """Let `function` be called at `time`, or now if that is over."""
        self._ties += 1
        heapq.heappush(self._queue, (max(time, self.now), self._ties, function, arguments))

    def after(self, seconds: float, function: Callable[..., None], *arguments: Any) -> None:
        """Let `function` be called in `seconds`."""
        self.at(self.now + seconds, function, *arguments)

    def step(self) -> None:
        """Let the next event happen; there must be one."""
        time, _, function, arguments = heapq.heappop(self._queue)
        self.now = time
        self.events += 1
        function(*arguments)

    def run_for(self, seconds: float, most: int) -> None:
        """Let everything happen that is due in the next `seconds`, but no more than `most` events."""
        until = self.now + seconds
        while self._queue and self._queue[0][0] <= until and most > 0:
            self.step()
            most -= 1
        if most > 0:
            self.now = until

    # -- chance ------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        """Return true with `probability`."""
        return self.random.random() < probability

    def fresh(self) -> str:
        """Return an id, 32 hex digits."""
        return f"{self.random.getrandbits(128):032x}"

    # -- the trace ---------------------------------------------------------------------------------

    def note(self, who: str, what: str, about: Any = None) -> None:
        """Add a line to the trace. `about` must not change later."""
        line = Line(self.events, self.now, who, what, about)
        if self._show is not None:
            self._show(line.text())
        self.trace.append(line)
