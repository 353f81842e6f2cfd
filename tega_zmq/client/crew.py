"""The threads of a blocking client: one is at the helm, and hands it over before it does anything else.

Whoever is at the helm waits for the socket. When something comes that may take long, a callback or a handler,
it hands the helm to another thread of the crew and does that itself: so no change of threads stands between
the socket and the user's function (Schmidt et al., "Leader/Followers", 2000). A thread that is done waits for
the helm again.

To wake another thread takes longer than most handlers do. So while there is much to do, one of those that
wait watches: it looks every 2 ms whether the helm is vacant. Meanwhile who leaves the helm for what is
thought to be brief wakes nobody, and mostly finds it vacant when it comes back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["Crew", "Work"]

_log = logging.getLogger("tega_zmq.client")

Work: TypeAlias = Callable[[], None]
"""What a thread does after it left the helm. It should not raise: what it raises is only logged."""

_WAITING: Final = 2
"""Most threads that wait for the helm; more end when they are done."""

_TICK: Final = 0.002
"""Seconds between two looks of the thread that watches; the helm is vacant for at most twice as long."""

_IDLE: Final = 50
"""Looks in a row without a change of helm after which nobody watches any more."""


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
        self._watcher: threading.Lock | None = None
        """The lock of the one that watches, of those that wait."""
        self._vacant = False
        self._left = 0
        """How often the helm was left."""

    def relieve(self, *, brief: bool = False) -> None:
        """Give the helm to another thread: the one that waited last, or a new one. Raises `RuntimeError`.

        `brief`: the thread will most likely be back at once.
        """
        with self._lock:
            self._left += 1
            if brief and self._watcher is not None:
                self._vacant = True
                return
            if self._waiting:
                given = self._waiting.pop()
                if given is self._watcher:
                    self._watcher = None
                given.release()
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

    def start(self) -> None:
        """Begin, with a first thread at the helm. Raises `RuntimeError`."""
        self.relieve()

    def _serve(self) -> None:
        mine = threading.Lock()
        mine.acquire()
        try:
            while (work := self._steer()) is not None:
                try:
                    work()
                except BaseException:  # noqa: BLE001  # the crew goes on, whatever it was
                    _log.exception("work for a callback or a handler failed")
                del work  # a thread that waits must not keep what it worked on
                if not self._come_back(mine):
                    return
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _come_back(self, mine: threading.Lock) -> bool:
        """Return with the helm; False: this thread is not needed any more."""
        with self._lock:
            if self._over:
                return False
            if self._vacant:
                self._vacant = False
                return True
            if len(self._waiting) >= _WAITING:
                return False
            self._waiting.append(mine)
            if self._watcher is None:
                self._watcher = mine
        return self._watch(mine) or mine.acquire()

    def _watch(self, mine: threading.Lock) -> bool:
        """Watch, if this is the one that does. Returns with the helm; False: it is to be waited for."""
        left = idle = 0
        while self._watcher is mine:
            if mine.acquire(timeout=_TICK):
                return True
            with self._lock:
                if self._watcher is not mine:
                    break  # the helm was given to this thread just now
                if self._left != left:
                    left, idle = self._left, 0
                elif self._vacant:
                    self._vacant = False
                    self._watcher = None
                    self._waiting.remove(mine)
                    return True
                elif (idle := idle + 1) >= _IDLE:
                    self._watcher = None
        return False

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
