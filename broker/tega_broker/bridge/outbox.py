"""What waits for a peer: in order, bounded in bytes, sent by a task of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Final

__all__ = ["Outbox", "Rest"]

_FLUSH: Final = 1.0
"""Seconds that the last frames may take."""

_PATIENCE: Final = 2.0
"""Seconds that one frame may take while more than the limit waits behind it."""

_AT_ONCE: Final = 16
"""So many times the limit may wait for a peer that reads: a large commit comes all at once."""


class Outbox:
    """Sends frames one after the other; who reads too slowly is given up, and nobody waits for him."""

    def __init__(
        self,
        send: Callable[[bytes], Coroutine[Any, Any, None]],
        limit: int = 0,
        too_slow: Callable[[str], None] | None = None,
    ) -> None:
        """`send` may wait for the peer.

        `too_slow` is called, once, when more than `limit` bytes wait and the peer has not taken a frame for a
        while; or many times as many. None: who puts frames looks at `size`.
        """
        self._send = send
        self._limit = limit
        self._too_slow = too_slow
        self._frames: deque[bytes] = deque()
        self.size = 0
        """Bytes that wait."""
        self._since = 0.0
        """When the first frame that waits came to be the first."""
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._rest: Rest | None = None
        """What is left of sending the first frame."""

    def put(self, frame: bytes) -> None:
        """Send `frame` after those before it. Never waits; after the end it does nothing."""
        if self._closed:
            return
        first: Any = None
        if self._task is None:
            # Mostly there is room, and the frame is gone at once: no task is needed.
            sending = self._send(frame)
            try:
                first = sending.send(None)
            except StopIteration:
                return
            except (ConnectionError, RuntimeError):  # as in _run
                self._closed = True
                return
            self._rest = Rest(sending, first)
        loop = asyncio.get_running_loop()
        if not self._frames:
            self._since = loop.time()
        self._frames.append(frame)
        self.size += len(frame)
        if self._too_slow is not None and self._is_too_slow(loop.time()):
            self._closed = True
            self._frames.clear()
            self._too_slow(f"too slow: {self.size} bytes wait to be read, more than {self._limit}")
        elif self._task is None:
            self._task = loop.create_task(self._run())

    def _is_too_slow(self, now: float) -> bool:
        if self.size <= self._limit or len(self._frames) == 1:
            return False
        return now - self._since >= _PATIENCE or self.size > self._limit * _AT_ONCE

    async def _run(self) -> None:
        frames = self._frames
        try:
            while frames:
                # It counts until it is sent.
                frame = frames[0]
                rest, self._rest = self._rest, None
                await (self._send(frame) if rest is None else rest)
                if not frames:
                    return
                frames.popleft()
                self.size -= len(frame)
                self._since = asyncio.get_running_loop().time()
        except (ConnectionError, RuntimeError):  # the connection is gone; who reads from it sees that too
            self._closed = True
            frames.clear()
            self.size = 0
        finally:
            self._task = None

    async def flush(self) -> None:
        """Wait until everything is sent, or cannot be, but not long."""
        task = self._task
        if task is not None:
            await asyncio.wait((task,), timeout=_FLUSH)

    async def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        self._frames.clear()
        task = self._task
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Rest:
    """What is left of a coroutine that was begun without a task, and had to wait."""

    def __init__(self, begun: Coroutine[Any, Any, None], waits: Any) -> None:
        """`waits`: what it wants to wait for, as it yielded it."""
        self._begun = begun
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, None]:
        waits = self._waits
        while True:
            came: Any = None
            raised: BaseException | None = None
            try:
                came = yield waits
            except BaseException as error:  # noqa: BLE001  # of the task: it goes on into the coroutine
                raised = error
            try:
                waits = self._begun.send(came) if raised is None else self._begun.throw(raised)
            except StopIteration:
                return
