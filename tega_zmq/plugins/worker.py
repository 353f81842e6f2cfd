"""The thread of one plugin: runs an agenda, survives what its jobs raise, and can be left behind.

The thread is a daemon: one that hangs in a plugin's code ends with the program.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

from tega_zmq.plugins.agenda import Agenda, next_tick

__all__ = ["Worker"]

_log = logging.getLogger("tega_zmq.plugins")


class Worker:
    """Runs jobs one after the other. All methods may be called from any thread."""

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        failed: Callable[[BaseException], Any] | None = None,
    ) -> None:
        """Nothing runs before `start`. `clock` tells monotonic seconds.

        `failed` is told what a job raised; without, it is logged.
        """
        self._clock = clock
        self._failed = failed
        self._agenda = Agenda()
        self._changed = threading.Condition()
        self._closed = False
        self._last: Callable[[], Any] | None = None
        self._serial = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run jobs."""
        self._thread.start()

    def add(self, key: Hashable, run: Callable[[], Any], delay: float = 0.0) -> None:
        """Run `run` in `delay` seconds, or when `key` is planned already, if that is earlier.

        `run` should not raise: nobody but `failed` is told. After `close` nothing is added.
        """
        with self._changed:
            if not self._closed and self._agenda.add(key, self._clock() + delay, run):
                self._changed.notify()

    def remove(self, key: Hashable) -> None:
        """Do not run what is planned under `key`."""
        with self._changed:
            self._agenda.remove(key)

    def post(self, run: Callable[[], Any], most: int) -> bool:
        """Run `run` after all that is due now. False if `most` jobs wait already: then it is not run."""
        with self._changed:
            if self._closed or len(self._agenda) >= most:
                return False
            self._serial += 1
            self._agenda.add(("post", self._serial), self._clock(), run)
            self._changed.notify()
            return True

    def every(self, seconds: float, run: Callable[[], Any], *, now: bool) -> None:
        """Run `run` every `seconds`, the first time after that, or at once."""
        with self._changed:
            self._serial += 1
            key = ("every", self._serial)
            due = self._clock() + (0.0 if now else seconds)

            def plan(due: float) -> None:
                self._agenda.add(key, due, lambda: tick(due))

            def tick(due: float) -> None:
                try:
                    run()
                finally:
                    with self._changed:
                        if not self._closed:
                            plan(next_tick(due, seconds, self._clock()))

            if not self._closed:
                plan(due)
                self._changed.notify()

    def close(self, last: Callable[[], Any] | None = None) -> None:
        """Drop all that is planned, run `last`, and end. Does not wait."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._agenda.clear()
                self._last = last
                self._changed.notify()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended, at most `timeout` seconds. Tell whether it has."""
        if self._thread.ident is None:
            return True
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                job = None
                while not self._closed:
                    now = self._clock()
                    job = self._agenda.take(now)
                    if job is not None:
                        break
                    self._changed.wait(self._agenda.wait(now))
            if job is None:
                break
            self._do(job.run)
            job = None
        if self._last is not None:
            self._do(self._last)

    def _do(self, run: Callable[[], Any]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - a thread that ended here would leave the plugin deaf
            if self._failed is None:
                _log.exception("a job of %s raised", self._thread.name)
            else:
                self._failed(error)
