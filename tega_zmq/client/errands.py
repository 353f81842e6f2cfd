"""What there is to do for the user's functions of a blocking client: callbacks, and handlers.

What is to be done is noted by whoever has the driver's turn. The thread at the helm then takes what it does
itself (`own`); a caller, who has an answer to bring home, leaves it to others (`leave`). Callbacks are called
by one thread at a time, in order; handlers side by side, most of them in a pool.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from tega_zmq.client import requests
from tega_zmq.client.crew import Work
from tega_zmq.client.engine import Engine
from tega_zmq.client.notices import Notices
from tega_zmq.client.workers import Workers
from tega_zmq.wire import messages

__all__ = ["Errands"]

_log = logging.getLogger("tega_zmq.client")

_BRIEF: Final = 0.0005
"""Seconds of work for which it does not pay to hand over the helm."""

_OWN: Final = 4
"""Most handlers that are run by threads that came from the helm; the pool runs the others."""

Post: TypeAlias = Callable[..., None]
"""`Driver.post`: have a function called with the turn."""


class Errands:
    """The work of one client. `invoke`, `own` and `leave` are for who has the driver's turn."""

    def __init__(self, name: str, engine: Engine, post: Post) -> None:
        """`name` is what the pool's threads are named after."""
        self._engine = engine
        self._post = post
        self._workers = Workers(name)
        self.jobs: deque[tuple[messages.Invoke, Work]] = deque()
        """Handlers that are to be run. To be read only, as `notices` and `telling` are."""
        self.notices = Notices()
        self._lock = threading.Lock()
        """Held while `notices` is used, or how many `_own` are changed."""
        self.telling = False
        """Whether a thread is telling notices; it goes on until there are none."""
        self._muted = False
        """No more notices are told: the client is closed."""
        self._own = 0
        """How many handlers are run by threads that came from the helm."""
        self._took = float("inf")
        """Seconds that the last work of such a thread took."""

    @property
    def brief(self) -> bool:
        """Whether what `own` returned will most likely be done at once: the next is thought to be alike."""
        return self._took < _BRIEF

    # -- what is to be done -------------------------------------------------------------------------

    def notify(self, callback: Callable[[Any], Any], arguments: tuple[Any, ...]) -> None:
        """Note that `callback` is to be called with each of `arguments`."""
        with self._lock:
            self.notices.push(callback, arguments)

    def notify_message(self, callback: Callable[[Any], Any], argument: Any) -> int:
        """Note that `callback` is to be told a message; return how many older ones were dropped for it."""
        with self._lock:
            return self.notices.push_message(callback, argument)

    def invoke(self, function: Callable[..., Any], call: messages.Invoke) -> None:
        """Note that the handler `function` is to answer `call`."""
        engine, post = self._engine, self._post

        def job() -> None:
            if not engine.wanted(call, time.monotonic()):
                post(engine.result, call, None)
                return
            try:
                result = requests.result_of(call.call, function(*call.args, **call.kwargs))
            except BaseException as error:  # noqa: BLE001  # whatever a handler raises is its caller's
                result = requests.error_of(call.call, error)
            post(engine.result, call, result)

        self.jobs.append((call, job))

    # -- who does it --------------------------------------------------------------------------------

    def own(self) -> Work | None:
        """Return what the thread at the helm should do itself; None: it stays at the helm."""
        work: Work | None = None
        with self._lock:
            if self.notices.count and not self.telling:
                self.telling = True
                work = self._tell
            elif len(self.jobs) == 1 and self._own < _OWN:
                self._own += 1
                work = partial(self._run, self.jobs.popleft()[1])
        self._pool()
        return work

    def leave(self) -> bool:
        """Leave all to others. Returns whether that takes the thread at the helm."""
        self._pool()
        return self.notices.count > 0 and not self.telling

    def _pool(self) -> None:
        while self.jobs:
            call, job = self.jobs.popleft()
            if not self._workers.run(job):
                error = ["Busy", "too many calls wait for this client's handlers"]
                self._engine.result(call, messages.Result(call.call, False, error), time.monotonic())

    def _run(self, job: Work) -> None:
        begun = time.monotonic()
        try:
            job()
        finally:
            self._took = time.monotonic() - begun
            with self._lock:
                self._own -= 1

    def _tell(self) -> None:
        """Call the callbacks, in order, until nothing is left to tell."""
        begun = time.monotonic()
        while True:
            with self._lock:
                notice = None if self._muted else self.notices.pop()
                if notice is None:
                    self.telling = False
                    break
            callback = notice.callback
            for argument in notice.arguments:
                try:
                    callback(argument)
                except BaseException:  # noqa: BLE001  # nothing of the user's ends this thread
                    _log.exception("a callback raised; it goes on with the next")
            del notice, callback
        self._took = time.monotonic() - begun
        if self._engine.behind:
            self._post(self._engine.room)

    # -- the end ------------------------------------------------------------------------------------

    def mute(self) -> None:
        """Tell nothing more; a callback that is running goes on."""
        with self._lock:
            self._muted = True
            self.notices.clear()

    def close(self, timeout: float) -> None:
        """Drop the handlers that wait, and wait up to `timeout` seconds for those that run."""
        self._workers.close(timeout)
