"""How far long work is: one line on standard error that is drawn again and again, on a terminal only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from tega_zmq.shell.output import safe

__all__ = ["Progress"]

_PAUSE = 0.1
"""Seconds between two drawings."""

_WIDEST = 78
"""Most characters: a line that wraps could not be drawn over."""


class Progress:
    """Shows a line of text until the next one, or until it is cleared with an empty one."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._drawn = False
        self._next = 0.0

    def __call__(self, text: str) -> None:
        """Show `text` in place of what was shown; not more often than a reader can see."""
        now = self._clock()
        if not text:
            if self._drawn:
                self._draw("")
                self._drawn = False
        elif now >= self._next and self._stream.isatty():
            self._draw(safe(text, lines=False)[:_WIDEST])
            self._drawn, self._next = True, now + _PAUSE

    def _draw(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
