"""What waits to be told to callbacks: in order, and bounded.

A callback may be slow, or block for ever. So that memory stays bounded, changes are refused when too many
notices wait (they are asked for again later), and of the messages the oldest are dropped and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["MAX_CHANGES", "MAX_MESSAGES", "Notice", "Notices"]

MAX_CHANGES: Final = 10_000
"""Most changes and other notices that wait."""

MAX_MESSAGES: Final = 1_000
"""Most messages of channels that wait."""


class Notice(NamedTuple):
    """Call `callback` with each of `arguments`."""

    callback: Callable[[Any], Any]
    arguments: tuple[Any, ...]


class _Slot:
    __slots__ = ("is_message", "notice")

    def __init__(self, notice: Notice, is_message: bool) -> None:
        self.notice: Notice | None = notice
        self.is_message = is_message


_Slots: TypeAlias = deque[_Slot]


class Notices:
    """The queue. Not locked: its owner sees to it that one thread at a time is in a method."""

    def __init__(self) -> None:
        self._slots: _Slots = deque()
        self._messages: _Slots = deque()
        self.count = 0
        """How many wait. To be read only."""

    @property
    def full(self) -> bool:
        """Whether no more changes should be pushed."""
        return self.count - len(self._messages) >= MAX_CHANGES

    def push(self, callback: Callable[[Any], Any], arguments: tuple[Any, ...]) -> None:
        """Queue a notice."""
        self._slots.append(_Slot(Notice(callback, arguments), False))
        self.count += 1

    def push_message(self, callback: Callable[[Any], Any], argument: Any) -> int:
        """Queue a message; return how many older ones (0 or 1) were dropped for it."""
        slot = _Slot(Notice(callback, (argument,)), True)
        self._slots.append(slot)
        self._messages.append(slot)
        if len(self._messages) <= MAX_MESSAGES:
            self.count += 1
            return 0
        self._messages.popleft().notice = None
        if len(self._slots) - self.count > MAX_MESSAGES:
            self._slots = deque(each for each in self._slots if each.notice is not None)
        return 1

    def pop(self) -> Notice | None:
        """Take the oldest notice out, or return None."""
        while self._slots:
            slot = self._slots.popleft()
            if slot.notice is not None:
                self.count -= 1
                if slot.is_message:
                    self._messages.popleft()
                return slot.notice
        return None

    def clear(self) -> None:
        """Forget all that waits."""
        self._slots.clear()
        self._messages.clear()
        self.count = 0
