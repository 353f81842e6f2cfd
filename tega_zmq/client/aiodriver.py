"""What runs an asyncio client's session in an event loop.

The socket is read by its descriptor (`loop.add_reader`), not by `zmq.asyncio`, which costs a multiple. What
the tasks of one turn of the loop ask for is sent together at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
import time
import warnings
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

import zmq

from tega_zmq.client import requests
from tega_zmq.client.engine import Engine
from tega_zmq.client.link import AnyLink, Carrier, link_to, no_answer, readable, receive, send
from tega_zmq.client.notices import Notices
from tega_zmq.client.protocol import ClientSession
from tega_zmq.client.workers import Workers
from tega_zmq.errors import Disconnected, TegaError
from tega_zmq.tunnel.urls import Tls
from tega_zmq.wire import messages

__all__ = ["AsyncDriver", "Raw", "Waiter"]

_log = logging.getLogger("tega_zmq.client")

_LINGER: Final = 500
"""Milliseconds that the last messages may take when the client is closed."""

_NUMBERS: Final = frozenset({int, float})

_BURST: Final = 500
"""Frames that are read before the loop's other tasks get their turn."""


class Waiter(Protocol):
    """Who is told the answer to a request: a future, or what acts on it at once.

    It raises nothing but `asyncio.InvalidStateError`: it is to be told nothing more.
    """

    def set_result(self, value: Any, /) -> None:
        """The request was answered with `value`."""

    def set_exception(self, error: TegaError, /) -> None:
        """The request failed."""


class Raw(NamedTuple):
    """A handler that is given the whole call."""

    invoked: Callable[[messages.Invoke], Awaitable[Any]]


def _close_abandoned(link: AnyLink, name: str) -> None:
    """Close what a client held that was never closed.

    The collector would meet the context before the sockets in it, and wait for them for ever.
    """
    warnings.warn(f"the asyncio client {name} was never closed", ResourceWarning, stacklevel=2)
    link.close()


class AsyncDriver:
    """Runs one client's engine in an event loop. All methods are called in that loop's thread."""

    def __init__(
        self,
        url: str,
        tega_id: str,
        kind: str,
        context: zmq.Context[Any] | None,
        tls: Tls | None = None,
    ) -> None:
        self.engine = Engine(ClientSession(tega_id, kind, jitter=random.random), self)
        self.url = url
        self._name = f"tega-{tega_id}"
        self._context = context
        """Of the caller; None: one of its own, from `start` on."""
        self._tls = tls
        self._link: AnyLink
        self._abandoned: weakref.finalize[..., AsyncDriver]
        self._loop: asyncio.AbstractEventLoop
        self._outbox: deque[bytes] = deque()
        self._up = False
        self._due_to_turn = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._dial_timer: asyncio.TimerHandle | None = None
        self._first: asyncio.Future[Any] | None = None
        self._notices = Notices()
        self._notices_wake = asyncio.Event()
        self._dispatcher: asyncio.Task[None] | None = None
        self._calls: dict[asyncio.Task[None], messages.Invoke] = {}
        """What coroutine handlers are answering."""
        self._call_tasks: dict[int, asyncio.Task[None]] = {}
        """By the number of the call: of those that have the same, from sessions before, the newest."""
        self._workers = Workers(f"{self._name}-handler")
        self.ended = False
        self.prompt = False
        """Callbacks are plain functions that never wait: they are called as soon as there is something."""

    async def start(self, timeout: float) -> None:  # noqa: ASYNC109  # the caller's own
        """Dial and wait for a session. Raises as the blocking client's `connect`."""
        self._loop = asyncio.get_running_loop()
        self._first = first = self._loop.create_future()
        self._link = link_to(self.url, self._context, self._tls)
        self._abandoned = weakref.finalize(self, _close_abandoned, self._link, self._name)
        self._abandoned.atexit = False
        self._dial()
        try:
            async with asyncio.timeout(timeout):
                await first
        except TimeoutError:
            await self.close()
            raise Disconnected(no_answer(self.url, timeout, self._link.trouble), outcome="none") from None
        except BaseException:
            await self.close()
            raise

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(future, *args, now)` and return what the future is told. Raises what it was told.

        The last of `args` is for how many seconds it waits.
        """
        future = self._loop.create_future()
        self.begin(future, function, *args)
        try:
            return await future
        except asyncio.CancelledError:
            if not self.ended:
                self.engine.cancel_waiter(future, time.monotonic())
                self._turn_soon()
            raise

    def begin(self, waiter: Waiter, function: Callable[..., Any], *args: Any) -> None:
        """As `run`, for a `waiter` of the caller's own, which is told once, perhaps before this returns.

        Raises `Disconnected` if the client is closed: the waiter is told nothing then.
        """
        if self.ended:
            raise Disconnected("this client is closed", outcome="none")
        now = time.monotonic()
        function(waiter, *args, now)
        if not self.engine.alone:
            self._turn_soon()
            return
        # Nothing else is under way that it could travel with. Most often it is sent, nothing has come, and
        # the timer is there for what is due sooner: that is all then.
        wait = args[-1]
        if self._timer is not None and type(wait) in _NUMBERS and self._timer_at <= now + wait:
            link = self._link.socket
            if self._transmit(now) and link is not None and not readable(link):
                return
        self._turn()

    async def close(self) -> None:
        """End the session in order, and everything with it. May be called twice."""
        if self.ended:
            return
        self.ended = True
        now = time.monotonic()
        self.engine.close(now)
        self._transmit(now)
        self._hang_up(_LINGER)
        for timer in (self._timer, self._dial_timer):
            if timer is not None:
                timer.cancel()
        me = asyncio.current_task()
        tasks = [task for task in (self._dispatcher, *self._calls) if task is not None and task is not me]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)
        self._notices.clear()
        # These wait for threads: not in the loop's way.
        await self._loop.run_in_executor(None, self._finish)

    def _finish(self) -> None:
        self._workers.close(1.0)
        self._abandoned.detach()
        self._link.close()

    # -- Host ---------------------------------------------------------------------------------------

    def resolve(self, waiter: Waiter, value: Any) -> None:
        """See `Host`."""
        try:  # noqa: SIM105  # every request comes here
            waiter.set_result(value)
        except asyncio.InvalidStateError:
            pass

    def reject(self, waiter: Waiter, error: TegaError) -> None:
        """See `Host`."""
        with contextlib.suppress(asyncio.InvalidStateError):
            waiter.set_exception(error)

    def full(self) -> bool:
        """See `Host`."""
        return self._notices.full

    def notify(self, callback: Callable[[Any], Any], arguments: tuple[Any, ...]) -> None:
        """See `Host`."""
        if self.prompt:
            for argument in arguments:
                self._call(callback, argument)
            return
        self._notices.push(callback, arguments)
        self._rouse_dispatcher()

    def notify_message(self, callback: Callable[[Any], Any], argument: Any) -> int:
        """See `Host`."""
        if self.prompt:
            self._call(callback, argument)
            return 0
        dropped = self._notices.push_message(callback, argument)
        self._rouse_dispatcher()
        return dropped

    def _call(self, callback: Callable[[Any], Any], argument: Any) -> None:
        try:
            callback(argument)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001  # nothing of the user's ends the session
            _log.exception("a callback raised; it goes on with the next")

    def _rouse_dispatcher(self) -> None:
        self._notices_wake.set()
        if (self._dispatcher is None or self._dispatcher.done()) and not self.ended:
            self._dispatcher = self._loop.create_task(self._dispatch(), name=f"{self._name}-callbacks")

    def invoke(self, function: Callable[..., Any] | Raw, call: messages.Invoke) -> None:
        """See `Host`."""
        if isinstance(function, Raw) or inspect.iscoroutinefunction(function):
            task = self._loop.create_task(self._invoke(function, call))
            self._calls[task] = call
            self._call_tasks[call.call] = task
            task.add_done_callback(self._answered)
            return

        def job() -> None:
            result: messages.Result | None = None
            if self.engine.wanted(call, time.monotonic()):
                try:
                    result = requests.result_of(call.call, function(*call.args, **call.kwargs))
                except BaseException as error:  # noqa: BLE001  # whatever a handler raises is its caller's
                    result = requests.error_of(call.call, error)
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                self._loop.call_soon_threadsafe(self._result, call, result)

        if not self._workers.run(job):
            text = "too many calls wait for this client's handlers"
            self._result(call, messages.Result(call.call, False, ["Busy", text]))

    def _answered(self, task: asyncio.Task[None]) -> None:
        number = self._calls.pop(task).call
        if self._call_tasks.get(number) is task:
            del self._call_tasks[number]

    def abandon(self, call: messages.Invoke) -> None:
        """See `Host`. What runs in a thread cannot be stopped, a coroutine is cancelled."""
        task = self._call_tasks.get(call.call)
        if task is not None and self._calls[task] is call:
            task.cancel()

    async def _invoke(self, function: Callable[..., Any] | Raw, call: messages.Invoke) -> None:
        try:
            async with asyncio.timeout(call.timeout / 1000):
                if isinstance(function, Raw):
                    value = await function.invoked(call)
                else:
                    value = await function(*call.args, **call.kwargs)
            result = requests.result_of(call.call, value)
        except (KeyboardInterrupt, GeneratorExit):
            raise  # not the handler's: the program ends
        except BaseException as error:  # noqa: BLE001  # whatever a handler raises is its caller's
            # `CancelledError` too: a handler may await what somebody cancelled. If it was this task that was
            # cancelled, nobody waits any more, and the result is dropped.
            result = requests.error_of(call.call, error)
        self._result(call, result)

    def _result(self, call: messages.Invoke, result: messages.Result | None) -> None:
        if not self.ended:
            self.engine.result(call, result, time.monotonic())
            self._turn_soon()

    def redial(self, delay: float) -> None:
        """See `Host`."""
        self._hang_up()
        if self._dial_timer is not None:
            self._dial_timer.cancel()
        self._dial_timer = self._loop.call_later(delay, self._dial)

    def welcomed(self, _welcome: messages.Welcome) -> None:
        """See `Host`."""
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def rejected(self, error: TegaError) -> None:
        """See `Host`."""
        if self._first is not None and not self._first.done():
            self._first.set_exception(error)

    def over(self) -> None:
        """See `Host`."""
        self._hang_up()

    # -- callbacks ----------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        while not self.ended:
            notice = self._notices.pop()
            if notice is None:
                self._notices_wake.clear()
                if self.engine.behind:
                    self.engine.room(time.monotonic())
                    self._turn_soon()
                await self._notices_wake.wait()
                continue
            for argument in notice.arguments:
                try:
                    outcome = notice.callback(argument)
                    if inspect.isawaitable(outcome):
                        await outcome
                except asyncio.CancelledError:
                    # Of what the callback awaited, if it was not this task that somebody cancelled.
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise
                    _log.exception("a callback was cancelled; it goes on with the next")
                except Exception:  # noqa: BLE001  # nothing of the user's ends this task
                    _log.exception("a callback raised; it goes on with the next")

    # -- the socket ---------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._due_to_turn:
            self._due_to_turn = True
            self._loop.call_soon(self._turn)

    def _on_readable(self) -> None:
        """The descriptor has an event: most often one frame has come, and nothing is left to do after it."""
        link = self._link.socket
        frame = None if link is None else receive(link)
        if link is None or frame is None:
            self._turn()
            return
        now = time.monotonic()
        session = self.engine.session
        state = session.state
        self.engine.received(frame, now)
        if self._link.socket is not link or session.state != state:
            self._turn()
            return
        # What only ends requests brings no deadline nearer, so the timer is right as it stands.
        if self._transmit(now) or readable(link):
            self._turn()

    def _turn(self) -> None:
        """Send what is to be sent, read what is there, and set the timer."""
        self._due_to_turn = False
        if self.ended:
            return
        now = time.monotonic()
        engine = self.engine
        engine.process(now)
        self._transmit(now)
        for _ in range(_BURST):
            # After every send and receive, since these may have taken the edge of the descriptor.
            link = self._link.socket
            if link is None or not readable(link):
                break
            self._receive(now, link)
            if not self._transmit(now):
                break
        else:
            self._turn_soon()
        due = engine.session.next_deadline()
        if due is not None and due <= now:
            engine.tick(now)
            self._turn_soon()
        elif due is not None and (self._timer is None or due < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._loop.call_later(due - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._turn_soon()

    def _receive(self, now: float, link: Carrier) -> None:
        """Read until nothing is there, or for as long as the loop's other tasks may wait."""
        engine = self.engine
        for _ in range(_BURST):
            frame = receive(link)
            if frame is None:
                return
            engine.received(frame, now)
            if self._link.socket is not link or not readable(link):
                return
        self._turn_soon()

    def _transmit(self, now: float) -> bool:
        """Send what there is; return whether there was anything."""
        outbox = self._outbox
        frames = self.engine.frames(now)
        if frames:
            outbox.extend(frames)
        elif not outbox:
            return False
        link = self._link.socket
        if link is None or not self._up:
            outbox.clear()
            return False
        try:
            while outbox:
                send(link, outbox[0])
                outbox.popleft()
        except zmq.Again:
            return False  # the node does not read; the descriptor tells when it does again
        return True

    def _on_monitor(self) -> None:
        self._turn()  # what came before the loss counts
        if self._link.socket is None:
            return
        now = time.monotonic()
        state = self._link.state()
        if state == "up":
            self._up = True
            self.engine.connected(now)
        elif state == "down":
            self.engine.connection_lost(now)
        self._turn()

    def _dial(self) -> None:
        self._dial_timer = None
        try:
            self._link.dial()
        except zmq.ZMQError as error:
            _log.error("%s cannot be dialled: %s", self.url, error)
            self.engine.connection_lost(time.monotonic())
            return
        self._loop.add_reader(self._link.fd, self._on_readable)
        self._loop.add_reader(self._link.monitor_fd, self._on_monitor)
        self._loop.call_soon(self._on_monitor)

    def _hang_up(self, linger: int = 0) -> None:
        if self._link.socket is not None:
            self._loop.remove_reader(self._link.fd)
            self._loop.remove_reader(self._link.monitor_fd)
        self._link.hang_up(linger if self._up else 0)
        self._outbox.clear()
        self._up = False
