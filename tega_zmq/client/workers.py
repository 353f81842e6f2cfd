"""Threads that run handlers: made on demand, bounded, and never in the way of the program's end.

Not `concurrent.futures`: its threads are joined when the interpreter ends, so that a handler that hangs would
hang the program.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["MAX_QUEUED", "MAX_THREADS", "Workers"]

_log = logging.getLogger("tega_zmq.client")

MAX_THREADS: Final = 64
"""Most handlers of one client that run at a time."""

MAX_QUEUED: Final = 10_000
"""Most calls that wait for a thread."""

_IDLE: Final = 10.0
"""Seconds after which a thread without work ends."""


class Workers:
    """A pool of daemon threads named after `name`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._condition = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._made = 0
        self._closed = False

    def run(self, job: Callable[[], None]) -> bool:
        """Run `job` in a thread. Returns False if too many wait, or after `close`.

        It should not raise: what it raises is only logged.
        """
        with self._condition:
            if self._closed or len(self._jobs) >= MAX_QUEUED:
                return False
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._condition.notify()
            elif len(self._threads) < MAX_THREADS:
                self._made += 1
                thread = threading.Thread(target=self._work, name=f"{self._name}-{self._made}", daemon=True)
                self._threads.add(thread)
                thread.start()
        return True

    def _work(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                while not self._jobs and not self._closed:
                    if not self._condition.wait(_IDLE) and not self._jobs:
                        break
                self._idle -= 1
                if self._closed or not self._jobs:
                    self._threads.discard(threading.current_thread())
                    return
                job = self._jobs.popleft()
            try:
                job()
            except BaseException:  # noqa: BLE001  # a thread that ended here would be counted for ever
                _log.exception("a job raised; its thread goes on with the next")
            del job  # a thread that waits must not keep what it worked on

    def close(self, timeout: float) -> None:
        """Drop what waits, and wait up to `timeout` seconds for what runs; what hangs is left to itself."""
        with self._condition:
            self._closed = True
            self._jobs.clear()
            threads = list(self._threads)
            self._condition.notify_all()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout)
                if thread.is_alive():
                    timeout = 0.0
