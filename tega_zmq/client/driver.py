"""What drives a blocking client: whoever has the turn may use the socket and the session.

While nobody asks anything, that is the thread at the helm, which gives the turn away only to sleep. A caller
that finds the turn free sends its request itself, and then reads for a moment: so a quick answer costs no
change of threads. While callers do that one after another, the helm dozes: it looks at the socket only now
and then. Otherwise a caller puts what it wants into a queue, wakes the helm and waits on a lock.

When there is something to do for a callback or a handler (`errands`), the thread at the helm hands that over
(`crew`) and does it itself. Nothing of the user's runs with the turn.

===============  ===============  =================  ====================================================
state            has the turn     reads the socket   sleeps, and is woken
===============  ===============  =================  ====================================================
the helm works   the helm         the helm, unless   callers, each by the lock of its waiter: when answers
                                  a caller leads     came, at the latest before the helm sleeps (`_told`)
the helm sleeps  nobody; callers  the helm, once it  the helm: by the socket, its monitor, the eventfd
(`_listens`)     for a moment     is woken           (`_wake`), or its deadline (`_due`)
a caller leads   the same         that caller, for   that caller: by the socket (`_poll`); the helm: as
(`_led`)                          `_LEAD` at most    before, but not by the socket; other callers: by
                                                     their lock, which the one that leads releases
the helm dozes   the same         the next caller,   the helm: as the line before, and after `_DOZE`; it
no `_listens`                     or the helm when   listens then if nobody has led meanwhile
                                  it wakes
nobody is at     the same         a caller that      the next thread: by its lock, or it looks itself
the helm                          leads              (`crew`); at the helm it looks at everything first
closed           nobody           nobody             nobody: all were woken, and who comes is refused
===============  ===============  =================  ====================================================
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import zmq

from tega_zmq.client.crew import Crew, Work
from tega_zmq.client.engine import Engine
from tega_zmq.client.errands import Errands
from tega_zmq.client.link import AnyLink, link_to, no_answer, readable, receive, send
from tega_zmq.client.protocol import ClientSession
from tega_zmq.errors import Disconnected, TegaError, Timeout
from tega_zmq.tunnel.urls import Tls
from tega_zmq.wire import messages

__all__ = ["Driver"]

_log = logging.getLogger("tega_zmq.client")

_LINGER: Final = 500
"""Milliseconds that the last messages may take when the client is closed."""

_JOIN: Final = 2.0
"""Seconds that `close` waits for a callback or a handler that is running."""

_LEAD: Final = 0.005
"""Seconds for which a caller reads for itself before it leaves that to the helm."""

_SPIN: Final = 0.0001
"""Seconds for which it looks again and again before it sleeps, if the answer before came within `_QUICK`: to
be woken takes longer than a node nearby takes for a read."""

_QUICK: Final = 0.0002

_DOZE: Final = 0.05
"""Seconds that the helm leaves the socket alone while callers read for themselves, one after another, and
nothing else comes that anybody waits for. To have the system tell of the socket again after each request
costs more than all else that is done at its end."""

_BURST: Final = 500
"""Frames that are read before callers get their turn again."""


def _watch(fd: int) -> select.poll:
    """Return what waits until `fd` is readable."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll


def _await(poll: select.poll, spin: float, until: float) -> None:
    """Return when `poll` has something, or at `until`; up to `spin` without sleeping."""
    while (now := time.monotonic()) < spin:
        if poll.poll(0):
            return
        os.sched_yield()
    poll.poll(max(1, int((until - now) * 1000)))


class _Waiter:
    """Where one caller waits. `done` is set, with the turn, when the answer is there."""

    __slots__ = ("done", "error", "lock", "value")

    def __init__(self) -> None:
        self.done = False
        self.lock: threading.Lock | None = None
        """Held until the answer is there; None while nobody sleeps on it."""
        self.value: Any = None
        self.error: TegaError | None = None

    def sleeper(self) -> threading.Lock:
        """Return the lock to wait on. Call it with the turn, or before anybody else knows of this waiter."""
        lock = self.lock = threading.Lock()
        lock.acquire()
        return lock


class Driver:
    """Runs one client's engine: `start` it, then `run` from any thread; `close` ends all."""

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
        self._context = context
        """Of the caller; None: one of its own, from `start` on."""
        self._tls = tls
        self._link: AnyLink
        self._pid = os.getpid()
        self._inbox: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._told: list[threading.Lock] = []
        """Of callers whose answer is there. They are woken when this thread is about to sleep: one that woke
        before would only wait for the interpreter lock."""
        self._turn = threading.Lock()
        """Held by the thread that uses link, engine and outbox."""
        self._asleep = False
        self._due = float("inf")
        """When the thread at the helm wakes by itself, or before: it is awake, or was woken."""
        self._led: _Waiter | None = None
        """The caller that reads for itself, if one does; the helm does not look at the socket meanwhile."""
        self._led_by = 0
        """Its thread."""
        self._led_at = 0.0
        """When a caller last read its own answer."""
        self._poll: select.poll | None = None
        """On which such a caller sleeps; another one for each connection."""
        self._listens = False
        """The helm is woken by what comes on the socket: neither does a caller read, nor is there a doze."""
        self._dozes = False
        """A caller has read for itself since the helm last looked, and expects more of the kind."""
        self._quick = False
        """The last answer that a caller read for itself came at once."""
        self._spins = (os.cpu_count() or 1) > 1
        """It may look again and again: where there is one core, whoever is to answer needs it."""
        self._ended = False
        self._stop = False
        self._close_lock = threading.Lock()
        self._wake_lock = threading.Lock()
        """Held while the eventfd is written or closed."""
        self._eventfd = -1
        self._epoll: select.epoll | None = None
        self._outbox: deque[bytes] = deque()
        self._dry = False
        """Whether the socket was found empty, and nothing was done with it since: its descriptor tells of
        what comes. Changed with the turn."""
        self._dial_at: float | None = None
        self._up = False
        self._monitor_ready = False
        self._first: _Waiter | None = _Waiter()
        """Who waits for the first session."""
        self._errands = Errands(f"tega-{tega_id}-handler", self.engine, self.post)
        self._jobs, self._notices = self._errands.jobs, self._errands.notices
        """Here too, since several times a request it is asked whether they hold anything."""
        self._crew = Crew(f"tega-{tega_id}", self._steer)
        self._helmsman: threading.Thread | None = None
        self._at_end = threading.Event()
        """Set while there is no thread at the helm for good."""
        self._at_end.set()

    # -- from any thread ----------------------------------------------------------------------------

    def start(self, timeout: float) -> None:
        """Dial, and wait for a session.

        Raises `Disconnected` naming the url, or what the node refuses with.
        """
        first = self._first
        assert first is not None
        answer = first.sleeper()
        self._link = link_to(self.url, self._context, self._tls)
        try:
            self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll = select.epoll()
            # Edge-triggered: each write wakes, and nobody has to read the count back.
            self._epoll.register(self._eventfd, select.EPOLLIN | select.EPOLLET)
            self._dial_at = 0.0
            self._at_end.clear()
            self._crew.start()
        except BaseException:
            self._release()
            raise
        try:
            answered = answer.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
        except BaseException:
            self.close()
            raise
        if not answered:
            self.close()
            raise Disconnected(no_answer(self.url, timeout, self._link.trouble), outcome="none")
        if first.error is not None:
            self.close()
            raise first.error

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(waiter, *args, now)` with the turn and return what the waiter is told.

        Raises what it is told.
        """
        waiter = _Waiter()
        lock = poll = None
        now = 0.0
        taken = False
        try:
            # `with` takes the turn in one step: an interrupt finds it taken and given back, or not taken.
            if self._asleep and not self._turn.locked() and self._pid == os.getpid():
                with self._turn:
                    if self._is_free():
                        taken = True
                        now = time.monotonic()
                        poll = self._begin_lead(waiter)  # before the answer can come: it would wake the helm
                        function(waiter, *args, now)
                        self._settle(now)
                        if poll is not None and not self._is_dry():
                            self._read(waiter, now)
                        if poll is None or waiter.done:
                            poll = None
                            lock = self._end_lead(waiter, now)
            if poll is not None:
                lock = self._lead(waiter, poll, now)
            elif not taken:
                self._check_interrupted()
                lock = waiter.sleeper()
                self._queue(function, waiter, *args)
            if lock is not None:
                lock.acquire()
        except BaseException:  # Ctrl-C: nobody waits any more
            self.post(self._give_up, waiter)
            raise
        if waiter.error is not None:
            raise waiter.error
        return waiter.value

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Call `function(*args, now)` with the turn, soon, without waiting.

        After the end, waiters are rejected.
        """
        if self._asleep and not self._turn.locked() and self._pid == os.getpid():
            with self._turn:
                if self._is_free():
                    now = time.monotonic()
                    function(*args, now)
                    self._settle(now)
                    self._remind()
                    return
        self._queue(function, *args)

    def catch_up(self, timeout: float) -> None:
        """Wait until callbacks were called for all that has come so far. Raises `Timeout`."""
        told = threading.Event()
        self.post(self._mark, told)
        if not told.wait(timeout):
            raise Timeout(f"callbacks were not done within {timeout:g} seconds", outcome="unknown")

    def _mark(self, told: threading.Event, _now: float) -> None:
        self.notify(lambda _: told.set(), (None,))

    def _is_free(self) -> bool:
        """Whether a caller that has the turn may act: the helm sleeps, and nothing waits for it."""
        return self._asleep and not (self._ended or self._stop or self._inbox)

    def _give_up(self, waiter: _Waiter, now: float) -> None:
        """The caller that `waiter` stands for was interrupted, maybe while it read for itself."""
        if self._led is waiter:
            self._end_lead(waiter, now)
        self.engine.cancel_waiter(waiter, now)
        self.engine.interrupted(now)

    def _check_interrupted(self) -> None:
        """Raise `RuntimeError` where the turn would be waited for by who has it: in a signal handler."""
        if self._turn.locked() and self._interrupted(3):
            raise RuntimeError("this signal handler has interrupted a call of the same client")

    def _interrupted(self, depth: int) -> bool:
        """Whether a call of this client stands at `depth` or beneath: what calls this is a signal handler."""
        frame: FrameType | None = sys._getframe(depth)
        while frame is not None:
            if frame.f_code in _CALLS and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def _settle(self, now: float) -> None:
        """Do what follows from what was just done, as a caller: tell, leave work to others, send."""
        engine = self.engine
        if engine.session.events:
            engine.process(now)
        if (self._jobs or self._notices.count) and self._errands.leave():
            self._wake()
        if engine.session.output or self._outbox:
            self._transmit(now)
        if self._told:
            self._wake_waiters()

    def _remind(self) -> None:
        """Wake the helm if there is something for it to do, or will be sooner than it knows of."""
        if self._helmsman is None:
            return  # whoever comes to the helm looks at everything first
        due = self.engine.session.next_deadline()
        socket = self._link.socket
        if (due is not None and due < self._due) or (
            self._led is None
            and socket is not None
            and (readable(socket) if self._listens and not self._dry else not self._listens)
        ):
            self._wake()

    def _begin_lead(self, waiter: _Waiter) -> select.poll | None:
        """Have the caller read for itself, until `_end_lead`; the helm leaves the socket alone.

        Returns what it may sleep on; None: it does not lead.
        """
        if self._led is not None and self._led_by == threading.get_ident():
            # In a signal handler: who leads stands beneath it, asleep maybe. The helm reads for both.
            self._listen(True)
            self._poll = _watch(self._link.fd) if self._poll is not None else None
            self._led = None
            return None
        if self._poll is None or self._led is not None:
            return None
        self._led, self._led_by = waiter, threading.get_ident()
        self._listen(False)
        return self._poll

    def _listen(self, on: bool) -> None:
        """Have the helm woken, or not, by what comes on the socket, if there is one."""
        fd, epoll = self._link.fd, self._epoll
        if self._listens is on or fd < 0 or epoll is None:
            return
        self._listens = False  # if it is interrupted here, it is done again
        epoll.modify(fd, select.EPOLLIN if on else 0)
        self._listens = on

    def _lead(self, waiter: _Waiter, poll: select.poll, began: float) -> threading.Lock | None:
        """Read until the answer to `waiter` is there, for a moment. Returns what `_end_lead` does."""
        spin = began + _SPIN if self._quick else began
        until = began + _LEAD
        while True:
            if began < spin:
                _await(poll, spin, until)
            else:
                poll.poll(max(1, int((until - time.monotonic()) * 1000)))
            with self._turn:
                now = time.monotonic()
                if self._link.socket is not None:
                    self._dry = False
                    self._receive(now, 1 if self.engine.alone else _BURST)
                    self._settle(now)
                    if not waiter.done:
                        self._read(waiter, now)
                if waiter.done or now >= until or self._ended or self._stop or self._poll is not poll:
                    self._quick = now - began < _QUICK and self._spins
                    return self._end_lead(waiter, now)

    def _is_dry(self) -> bool:
        """Whether there is nothing to receive; the descriptor tells when there is."""
        socket = self._link.socket
        if not self._dry and socket is not None and not readable(socket):
            self._dry = True
        return self._dry or socket is None

    def _read(self, waiter: _Waiter, now: float) -> None:
        """Take what is there, until `waiter` has its answer."""
        while not waiter.done and not self._is_dry():
            self._receive(now)
            self._settle(now)

    def _end_lead(self, waiter: _Waiter, now: float) -> threading.Lock | None:
        """Give the socket back to the helm, if this caller led. Returns what to wait on, if anything."""
        if self._led is waiter:
            before, self._led_at = self._led_at, now
            if waiter.done and now - before < _DOZE and self.engine.quiet:
                self._dozes = True
                if self._due > now + _DOZE and self._helmsman is not None:
                    self._wake()
                    self._due = 0.0  # once is enough
                self._led = None  # last: if it is interrupted before, it is done again
                return None
            self._listen(True)
            self._led = None
        lock = None if waiter.done else waiter.sleeper()
        if lock is not None or not self._dry:
            self._remind()
        return lock

    def _queue(self, function: Callable[..., Any], *args: Any) -> None:
        self._inbox.append((function, args))
        if self._asleep:
            self._wake()
        elif self._ended or self._pid != os.getpid():
            self._reject_inbox()

    def _wake(self) -> None:
        if self._pid != os.getpid():
            self._reject_inbox()
            return
        with self._wake_lock:
            if self._eventfd >= 0:
                os.eventfd_write(self._eventfd, 1)

    def _reject_inbox(self) -> None:
        """Nobody will empty the inbox: the client is closed, or this is a fork of its process."""
        if self._pid == os.getpid():
            error: TegaError = Disconnected("this client is closed", outcome="none")
        else:
            error = Disconnected("a client cannot be used after a fork; connect in the child", outcome="none")
        while True:
            try:
                _, args = self._inbox.popleft()
            except IndexError:
                return
            if args and type(args[0]) is _Waiter:
                waiter = args[0]
                if waiter.done:  # it gave up
                    continue
                waiter.error = error
                waiter.done = True
                if waiter.lock is not None:
                    waiter.lock.release()

    def close(self) -> None:
        """End the session in order and everything with it. May be called from anywhere, and twice.

        A signal handler that has interrupted a call of this client cannot wait for that: there it is begun.
        """
        if self._pid != os.getpid():
            return
        if self._interrupted(2):
            self._stop = True
            self._wake()
            return  # it ends when the call goes on that this signal handler has interrupted
        with self._close_lock:
            self._stop = True
            self._wake()
            if self._helmsman is threading.current_thread():
                return  # it ends by itself, soon
            self._at_end.wait()
            self._errands.mute()
            self._crew.join(_JOIN)
            self._errands.close(_JOIN)

    # -- Host, with the turn ------------------------------------------------------------------------

    def resolve(self, waiter: _Waiter, value: Any) -> None:
        """See `Host`."""
        waiter.value = value
        waiter.done = True
        if waiter.lock is not None:
            self._told.append(waiter.lock)

    def reject(self, waiter: _Waiter, error: TegaError) -> None:
        """See `Host`."""
        waiter.error = error
        waiter.done = True
        if waiter.lock is not None:
            self._told.append(waiter.lock)

    def _wake_waiters(self) -> None:
        for lock in self._told:
            with contextlib.suppress(RuntimeError):  # it was released before, by one that was interrupted
                lock.release()
        self._told.clear()

    def full(self) -> bool:
        """See `Host`."""
        return self._notices.full

    def notify(self, callback: Callable[[Any], Any], arguments: tuple[Any, ...]) -> None:
        """See `Host`."""
        self._errands.notify(callback, arguments)

    def notify_message(self, callback: Callable[[Any], Any], argument: Any) -> int:
        """See `Host`."""
        return self._errands.notify_message(callback, argument)

    def invoke(self, function: Callable[..., Any], call: messages.Invoke) -> None:
        """See `Host`."""
        self._errands.invoke(function, call)

    def abandon(self, call: messages.Invoke) -> None:
        """See `Host`. A thread cannot be stopped: the handler goes on, and its result is dropped."""

    def redial(self, delay: float) -> None:
        """See `Host`."""
        self._hang_up()
        self._dial_at = time.monotonic() + delay
        if self._asleep:  # a caller read that: the helm does not know when to dial
            self._wake()

    def welcomed(self, _welcome: messages.Welcome) -> None:
        """See `Host`."""
        if self._asleep:  # nor when the next heartbeat is due
            self._wake()
        if self._first is not None:
            self.resolve(self._first, None)
            self._first = None

    def rejected(self, error: TegaError) -> None:
        """See `Host`."""
        if self._first is not None:
            self.reject(self._first, error)
            self._first = None

    def over(self) -> None:
        """See `Host`."""
        self._hang_up()
        self._dial_at = None

    # -- at the helm --------------------------------------------------------------------------------

    def _steer(self) -> Work | None:
        """Serve the connection until there is something else to do, which is returned, or all is over."""
        with self._turn:
            self._asleep = False
            if self._ended:
                return None
            self._helmsman = threading.current_thread()
            try:
                work = self._loop()
                if work is not None:
                    self._hand_over()
                    return work
                self.engine.close(time.monotonic())
                self._transmit(time.monotonic())
            except BaseException:  # noqa: BLE001  # whatever it was, nobody must be left waiting
                _log.exception("the client's I/O failed; the client is closed")
                with contextlib.suppress(Exception):
                    self.engine.close(time.monotonic())
            self._release()
            return None

    def _hand_over(self) -> None:
        if self._told:
            self._wake_waiters()
        # As if the helm slept: callers may take the turn. Whoever comes looks at everything first.
        self._due = 0.0
        self._asleep = True
        self._helmsman = None
        self._crew.relieve(brief=self._errands.brief)

    def _release(self) -> None:
        """Give everything back, and leave nobody waiting."""
        self._asleep = False
        self._ended = True
        self._link.hang_up(_LINGER if self._up else 0)
        with self._wake_lock:
            if self._eventfd >= 0:
                os.close(self._eventfd)
                self._eventfd = -1
        if self._epoll is not None:
            self._epoll.close()
        self._link.close()
        if self._first is not None:
            self.reject(self._first, Disconnected("this client is closed", outcome="none"))
            self._first = None
        self._wake_waiters()
        self._reject_inbox()
        self._crew.dismiss()
        self._at_end.set()

    def _loop(self) -> Work | None:
        """Return what this thread is to do instead, or None when the client is closed."""
        inbox, engine, session, epoll = self._inbox, self.engine, self.engine.session, self._epoll
        assert epoll is not None
        monotonic = time.monotonic
        woken = False
        while not self._stop:
            now = monotonic()
            while inbox:
                function, args = inbox.popleft()
                function(*args, now)
            if session.events:
                engine.process(now)
            if session.output or self._outbox:
                self._transmit(now)
            socket = self._link.socket
            came = False
            # After every send and receive, since these may have taken the edge of the descriptor.
            if (
                socket is not None
                and self._led is None
                and not self._dry
                and (woken or readable(socket))
                and self._receive(now)
            ):
                woken = False
                came = True
                if len(self._told) > 1:
                    self._wake_waiters()
            if (self._jobs or self._notices.count) and (work := self._errands.own()) is not None:
                return work
            if came:
                continue
            if engine.behind and not self._errands.telling and not self._notices.count:
                engine.room(now)
                continue
            if self._monitor_ready:
                self._look_at_monitor(now)
                continue
            due = session.next_deadline()
            if due is not None and due <= now:
                engine.tick(now)
                continue
            if self._dial_at is not None:
                if self._dial_at <= now:
                    self._dial(now)
                    continue
                due = self._dial_at if due is None else min(due, self._dial_at)
            self._asleep = True
            if self._told:
                self._wake_waiters()
            if inbox or self._stop:
                self._asleep = False
                continue
            if not self._listens and self._led is None:
                if self._dozes and engine.quiet:
                    due = now + _DOZE if due is None else min(due, now + _DOZE)
                else:
                    self._listen(True)
                self._dozes = False
            self._due = float("inf") if due is None else due
            self._turn.release()
            try:
                happened = epoll.poll(None if due is None else due - now)
            finally:
                self._turn.acquire()
                self._asleep = self._dry = False
            for fd, _ in happened:
                if fd == self._link.fd:
                    woken = True
                elif fd == self._link.monitor_fd:
                    self._monitor_ready = True
        return None

    def _transmit(self, now: float) -> None:
        outbox = self._outbox
        outbox += self.engine.frames(now)
        socket = self._link.socket
        if socket is None or not self._up:
            outbox.clear()
            return
        try:
            while outbox:
                self._dry = False
                send(socket, outbox[0])
                del outbox[0]
        except zmq.Again:
            pass  # the node does not read; the descriptor tells when it does again

    def _receive(self, now: float, most: int = _BURST) -> bool:
        """Take what came, `most` frames of it. Returns whether that was anything."""
        socket = self._link.socket
        assert socket is not None
        engine = self.engine
        for count in range(most):
            if count and not readable(socket):
                self._dry = True
                break
            frame = receive(socket)
            if frame is None:
                self._dry = True
                return False
            engine.received(frame, now)
            if socket is not self._link.socket:
                break
        return True

    def _look_at_monitor(self, now: float) -> None:
        self._monitor_ready = False
        state = self._link.state()
        if state == "up":
            self._up = True
            self.engine.connected(now)
        elif state == "down":
            self.engine.connection_lost(now)

    def _dial(self, now: float) -> None:
        self._dial_at = None
        try:
            self._link.dial()
        except zmq.ZMQError as error:
            _log.error("%s cannot be dialled: %s", self.url, error)
            self.engine.connection_lost(now)
            return
        epoll = self._epoll
        assert epoll is not None
        self._listens = self._led is None
        epoll.register(self._link.fd, select.EPOLLIN if self._listens else 0)
        epoll.register(self._link.monitor_fd, select.EPOLLIN)
        self._poll = _watch(self._link.fd)
        self._monitor_ready = True

    def _hang_up(self) -> None:
        epoll = self._epoll
        if self._link.socket is not None and epoll is not None:
            epoll.unregister(self._link.fd)
            epoll.unregister(self._link.monitor_fd)
        self._link.hang_up()
        self._poll = None
        self._outbox.clear()
        self._up = self._dry = self._listens = self._dozes = False
        self._monitor_ready = False


_CALLS: Final = frozenset(
    function.__code__ for function in (Driver.run, Driver.post, Driver._lead, Driver.close)
)
"""What a signal handler may interrupt."""
