"""The threads of a blocking client: one is at the helm, and hands it over before it does anything else.

Whoever is at the helm waits for the socket. When something comes that may take long, a callback or a handler,
it hands the helm to another thread of the crew and does that itself: so no change of threads stands between
the socket and the user's function (Schmidt et al., "Leader/Followers", 2000). A thread that is done waits for
the helm again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["Crew", "Work"]

Work: TypeAlias = Callable[[], None]
"""What a thread does after it left the helm. It must not raise."""

_WAITING: Final = 2
"""Most threads that wait for the helm; more end when they are done."""


class Crew:
    """Threads named after `name`, made on demand, that call `steer` one at a time.

    `steer` is called with the helm. It returns None when all is over; or it calls `relieve`, and then returns
    what its thread is to do.
    """

    def __init__(self, name: str, steer: Callable[[], Work | None]) -> None:
        self._name = name
        self._steer = steer
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._waiting: list[threading.Lock] = []
        """A lock for each thread that waits for the helm: it is released to give it that."""
        self._made = 0
        self._over = False

    def relieve(self) -> None:
        """Give the helm to another thread: the one that waited last, or a new one. Raises `RuntimeError`."""
        with self._lock:
            if self._waiting:
                self._waiting.pop().release()
                return
            self._made += 1
            name = self._name if self._made == 1 else f"{self._name}-{self._made}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except BaseException:
                self._threads.discard(thread)
                raise

    start = relieve

    def _serve(self) -> None:
        mine = threading.Lock()
        mine.acquire()
        try:
            while (work := self._steer()) is not None:
                work()
                del work  # a thread that waits must not keep what it worked on
                with self._lock:
                    if self._over or len(self._waiting) >= _WAITING:
                        return
                    self._waiting.append(mine)
                mine.acquire()
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def dismiss(self) -> None:
        """Nobody gets the helm any more: the threads that wait for it end."""
        with self._lock:
            self._over = True
            for each in self._waiting:
                each.release()
            self._waiting.clear()

    def join(self, timeout: float) -> None:
        """Wait for all threads but the present one; for what hangs no longer than `timeout` seconds."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout)
                if thread.is_alive():
                    timeout = 0.0
