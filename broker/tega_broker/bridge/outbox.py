"""What waits for a peer: in order, bounded in bytes, sent by a task of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

__all__ = ["Outbox"]

_FLUSH: Final = 1.0
"""Seconds that the last frames may take."""


class Outbox:
    """Sends frames one after the other; who reads too slowly is given up, and nobody waits for him."""

    def __init__(
        self, send: Callable[[bytes], Awaitable[None]], limit: int, too_slow: Callable[[str], None]
    ) -> None:
        """`send` may wait for the peer. `too_slow` is called, once, when more than `limit` bytes wait."""
        self._send = send
        self._limit = limit
        self._too_slow = too_slow
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def put(self, frame: bytes) -> None:
        """Send `frame` after those before it. Never waits; after the end it does nothing."""
        if self._closed:
            return
        self._frames.append(frame)
        self._size += len(frame)
        if self._size > self._limit and len(self._frames) > 1:
            self._closed = True
            self._frames.clear()
            self._too_slow(f"too slow: more than {self._limit} bytes wait to be read")
        elif self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        frames = self._frames
        try:
            while frames:
                # It counts until it is sent.
                frame = frames[0]
                await self._send(frame)
                if not frames:
                    return
                frames.popleft()
                self._size -= len(frame)
        except (ConnectionError, RuntimeError):  # the connection is gone; who reads from it sees that too
            self._closed = True
            frames.clear()
        finally:
            self._task = None

    async def flush(self) -> None:
        """Wait until everything is sent, or cannot be."""
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
