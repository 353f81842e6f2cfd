"""What happened and is not shown yet, as cmd2 draws it above the prompt.

Needs rich, which comes with cmd2: only the interactive shell imports it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions
from rich.text import Text

__all__ = ["MAX_WAITING", "Events"]

MAX_WAITING = 1000
"""Most lines of events that wait for the prompt; older ones are dropped and counted."""


class Events:
    """What happened and is not shown yet: bounded, drawn all at once when the prompt is there."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_WAITING)
        self._dropped = 0
        self._announced = False

    def add(self, text: str) -> bool:
        """Keep `text`; return whether an alert must be raised, because none is on its way."""
        if len(self._lines) == MAX_WAITING:
            self._dropped += 1
        self._lines.append(text)
        announced, self._announced = self._announced, True
        return not announced

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Text]:
        # First: what is added from here on raises an alert of its own, at worst an empty one.
        self._announced = False
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            yield Text(f"{dropped} older events were not shown: too many came at once")
        for _ in range(len(self._lines)):
            yield Text.from_ansi(self._lines.popleft())
