"""What both clients do with a session's events, without I/O.

An `Engine` joins a `ClientSession` with the client's subscriptions, ephemeral nodes and handlers: it finds
who waits for an answer, tells callbacks, runs handlers, and announces all that the client owns to each new
session. The blocking and the asyncio client feed it what happens, and give it a `Host` to act through. It
belongs to one thread, apart from `wanted`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from tega_zmq.client import protocol, requests
from tega_zmq.client.belongings import Belongings
from tega_zmq.client.protocol import ClientSession
from tega_zmq.client.results import MessageView
from tega_zmq.client.subscriptions import Ask, Subscribed, Subscriptions
from tega_zmq.errors import (
    Cancelled,
    Disconnected,
    NotFound,
    Offline,
    OwnerAway,
    ProtocolError,
    StorageError,
    TegaError,
    Timeout,
    TransactionExpired,
)
from tega_zmq.paths import Path, format_path
from tega_zmq.wire import bundle, decode, encode, messages, unbundle
from tega_zmq.wire.messages import OpField

__all__ = ["Engine", "Host"]

_log = logging.getLogger("tega_zmq.client")

_ANNOUNCE_TIMEOUT: Final = 30.0
"""Seconds that what the client asks by itself may take."""

_PASSING: Final = (Offline, OwnerAway, StorageError, Timeout)
"""Errors that pass: an ephemeral node that could not be put again for such a one is put at a later tick."""


class Host(Protocol):
    """What a client does for its engine."""

    def resolve(self, waiter: Any, value: Any) -> None:
        """The request of `waiter` was answered."""

    def reject(self, waiter: Any, error: TegaError) -> None:
        """The request of `waiter` failed."""

    def full(self) -> bool:
        """Whether so much waits for callbacks that no further changes must be given to `notify`."""

    def notify(self, callback: Callable[[Any], Any], arguments: tuple[Any, ...]) -> None:
        """Call `callback` in its turn, with each of `arguments`."""

    def notify_message(self, callback: Callable[[Any], Any], argument: Any) -> int:
        """Call `callback` with a message in its turn; return how many older messages were dropped for it."""

    def invoke(self, function: Callable[..., Any], call: messages.Invoke) -> None:
        """Run `function`, a handler, and give its outcome to `Engine.result`."""

    def abandon(self, call: messages.Invoke) -> None:
        """Nobody waits for `call` any more, which `invoke` was told of: what can be stopped may be."""

    def redial(self, delay: float) -> None:
        """Drop the connection; dial after `delay` seconds."""

    def welcomed(self, welcome: messages.Welcome) -> None:
        """A session stands."""

    def rejected(self, error: TegaError) -> None:
        """The node refused the hello."""

    def over(self) -> None:
        """The session was taken over; drop the connection for good."""


class _Drops:
    """Tells one callback how many messages were dropped since it was told last.

    However many times that happens while callbacks wait, it is one notice. `add` is called in the engine's
    thread, `tell` wherever callbacks run.
    """

    def __init__(self, callback: Callable[[int], Any]) -> None:
        self._callback = callback
        self._total = 0
        self._told = 0
        self._waits = False

    def add(self, count: int) -> bool:
        """Count; return whether `tell` must be queued."""
        self._total += count
        queue = not self._waits
        self._waits = True
        return queue

    def tell(self, _argument: None) -> Any:
        """Call the callback."""
        self._waits = False  # before the count is read: what is added from now on is told next time
        count = self._total - self._told
        self._told += count
        return self._callback(count)


class Engine:
    """One client's session with all that hangs on it."""

    def __init__(self, session: ClientSession, host: Host) -> None:
        self.session = session
        self.subscriptions = Subscriptions()
        self.belongings = Belongings()
        self.on_state: list[Callable[[Any], Any]] = []
        self.on_expired: list[Callable[[Any], Any]] = []
        self.transactions: dict[str, None] = {}
        """Open ones, by txid. Other threads put them in and take them out."""
        self._drops: list[_Drops] = []
        self._host = host
        self._waiters: dict[int, Any] = {}
        self._after: dict[int, Callable[[Any, TegaError | None], None]] = {}
        """Called with (value, error) before the waiter is told."""
        self._instead: dict[int, Any] = {}
        """What the waiter is told instead of the reply."""
        self._tracks_writes = False
        """An ephemeral node was asked for once, so every write may concern one."""
        self._behind: dict[int, None] = {}
        """Subscriptions whose changes there was no room for."""
        self._running: dict[int, tuple[messages.Invoke, float]] = {}
        """Calls that handlers are to answer, with deadline."""
        self._unannounced: dict[Path, None] = {}
        """Ephemeral nodes that the present session does not have yet."""
        self._now = 0.0
        self._server = ""
        """The run of the node's program that the session was with last."""

    @property
    def alone(self) -> bool:
        """Whether no more than one request waits for its answer."""
        return len(self._waiters) < 2

    @property
    def quiet(self) -> bool:
        """Whether nothing is to come that somebody waits for: neither answers nor changes nor calls."""
        return not (self._waiters or self._running or self.belongings.handlers or self.subscriptions)

    # -- what the client asks -----------------------------------------------------------------------

    def ask(self, waiter: Any, ask: Ask, timeout: float, now: float) -> int | None:
        """Send a request; `waiter` will be told. Returns its id; None if it was refused here (also told)."""
        try:
            id = self.session.request(ask[0], *ask[1], timeout=timeout, now=now)
        except TegaError as error:
            if waiter is not None:
                self._host.reject(waiter, error)
            else:
                _log.error("%s could not be sent: %s", ask[0].__name__, error)
            return None
        self._waiters[id] = waiter
        return id

    def _ask_then(
        self,
        waiter: Any,
        ask: Ask,
        after: Callable[[Any, TegaError | None], None],
        timeout: float,
        now: float,
    ) -> bool:
        """As `ask`; `after` is called first. Returns whether the request was taken."""
        id = self.ask(waiter, ask, timeout, now)
        if id is not None:
            self._after[id] = after
        return id is not None

    def write(self, waiter: Any, ask: Ask, ops: tuple[OpField, ...], timeout: float, now: float) -> None:
        """Send a request that, if it succeeds, has applied `ops`."""
        if not self._tracks_writes:
            for op in ops:
                if op[4]:
                    self._tracks_writes = True
                    break
            else:
                self.ask(waiter, ask, timeout, now)
                return

        def after(_value: Any, error: TegaError | None) -> None:
            if error is None:
                self.belongings.wrote(ops)

        self._ask_then(waiter, ask, after, timeout, now)

    def cancel(self, id: int, now: float) -> None:
        """Give up request `id`; its waiter is told nothing more."""
        if id in self._waiters:
            self._waiters[id] = None
            self.session.cancel(id, now)
            self.process(now)

    def cancel_waiter(self, waiter: Any, now: float) -> None:
        """Give up the request of `waiter`, which is told nothing more."""
        for id, each in self._waiters.items():
            if each is waiter:
                self.cancel(id, now)
                return

    def interrupted(self, now: float) -> None:
        """Somebody was interrupted, maybe while answers were handed out: end the requests that lost one."""
        self.process(now)
        for id in [id for id in self._waiters if not self.session.awaits(id)]:
            error = Disconnected("the answer was lost when the program was interrupted", outcome="unknown")
            self._failed(id, error)

    def subscribe(self, waiter: Any, add: Callable[[], Subscribed], timeout: float, now: float) -> None:
        """Add a subscription, by calling `add`, and ask for it; `waiter` is told its number."""
        try:
            subscribed = add()
        except TegaError as error:
            self._host.reject(waiter, error)
            return
        number = subscribed.number

        def after(value: Any, error: TegaError | None) -> None:
            if error is None:
                self._confirmed(number, value)
                return
            self.subscriptions.remove(number)
            if isinstance(error, (Cancelled, Timeout)):
                self.ask(None, (messages.Unsubscribe, (number,)), _ANNOUNCE_TIMEOUT, self._now)

        id = self.ask(waiter, subscribed.ask(), timeout, now)
        if id is None:
            self.subscriptions.remove(number)
        else:
            self._after[id] = after
            self._instead[id] = number

    def unsubscribe(self, waiter: Any, number: int, timeout: float, now: float) -> None:
        """End a subscription: nothing more is told from now on."""
        if not self.subscriptions.remove(number):
            self._host.reject(waiter, NotFound(f"there is no subscription {number}; it ended already"))
            return
        self._behind.pop(number, None)
        self.ask(waiter, (messages.Unsubscribe, (number,)), timeout, now)

    def register(
        self, waiter: Any, path: Path, function: Callable[..., Any], timeout: float, now: float
    ) -> None:
        """Offer `function` at `path`; it replaces one that this client offered there before."""
        handlers = self.belongings.handlers
        if path in handlers:
            handlers[path] = function
            self._host.resolve(waiter, None)
            return
        handlers[path] = function

        def after(_value: Any, error: TegaError | None) -> None:
            if error is not None and handlers.get(path) is function:
                del handlers[path]

        if not self._ask_then(waiter, (messages.Register, (path,)), after, timeout, now):
            del handlers[path]

    def unregister(self, waiter: Any, path: Path, timeout: float, now: float) -> None:
        """Offer nothing at `path` any more."""
        if self.belongings.handlers.pop(path, None) is None:
            text = format_path(path)
            self._host.reject(waiter, NotFound(f"{text}: this client has no handler there", path=text))
            return
        self.ask(waiter, (messages.Unregister, (path,)), timeout, now)

    def wanted(self, call: messages.Invoke, now: float) -> bool:
        """Whether somebody still waits for the result of `call`. May be asked from any thread."""
        entry = self._running.get(call.call)
        return entry is not None and entry[0] is call and now < entry[1]

    def result(self, call: messages.Invoke, result: messages.Result | None, now: float) -> None:
        """A handler ended; a result that nobody waits for, and None, is dropped."""
        entry = self._running.get(call.call)
        if entry is None or entry[0] is not call:
            return
        del self._running[call.call]
        if result is not None and now < entry[1]:
            self.session.send(result)

    def room(self, now: float) -> None:
        """The notices have been told: ask for the changes that there was no room for."""
        behind, self._behind = self._behind, {}
        for number in behind:
            self._again(number, now)

    @property
    def behind(self) -> bool:
        """Whether `room` must be called when the notices have been told."""
        return bool(self._behind)

    def on_dropped(self, callback: Callable[[int], Any]) -> None:
        """Tell `callback` from now on how many messages were dropped, here or at the node."""
        self._drops.append(_Drops(callback))

    # -- what happens -------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """See `ClientSession.connected`."""
        self.session.connected(now)
        self.process(now)

    def connection_lost(self, now: float) -> None:
        """See `ClientSession.connection_lost`."""
        self.session.connection_lost(now)
        self.process(now)

    def tick(self, now: float) -> None:
        """See `ClientSession.tick`."""
        self.session.tick(now)
        self.process(now)
        if self._unannounced and self.session.state == "connected":
            waiting, self._unannounced = self._unannounced, {}
            for path in waiting:
                self._put_again(path, now)

    def close(self, now: float) -> None:
        """See `ClientSession.close`."""
        self.session.close(now)
        self.process(now)

    def received(self, frame: bytes, now: float) -> None:
        """The node sent `frame`, which may be a bundle of several."""
        session = self.session
        for each in unbundle(frame):
            try:
                message = decode(each)
            except ProtocolError as error:
                _log.error("the node sent what cannot be read, ignored: %s", error)
            else:
                session.received(message, now)
        if session.events:
            self.process(now)

    def frames(self, now: float) -> list[bytes]:
        """Return what to send, in order: frames and bundles of them."""
        session = self.session
        if not session.output:
            return _NO_FRAMES
        output = session.take_output()
        frames = []
        for message in output:
            try:
                frames.append(encode(message))
            except TegaError as error:
                if type(message) is messages.Result and message.ok:
                    frames.append(encode(requests.error_of(message.call, error)))
                else:
                    self.session.unsendable(message, error)
                    self.process(now)
        return frames if len(frames) < 2 else list(bundle(frames))

    def process(self, now: float) -> None:
        """Act on what the session has to tell."""
        if not self.session.events:
            return
        self._now = now
        for event in self.session.take_events():
            if type(event) is protocol.Completed:
                id, value = event
                if self._after and (after := self._after.pop(id, None)) is not None:
                    after(value, None)
                waiter = self._waiters.pop(id, None)
                if waiter is not None:
                    if self._instead:
                        value = self._instead.pop(id, value)
                    self._host.resolve(waiter, value)
            elif type(event) is protocol.Notified:
                self._notified(event.changed, now)
            elif type(event) is protocol.Failed:
                self._failed(event.id, event.error)
            elif type(event) is protocol.Invoked:
                self._invoked(event.invoke, now)
            else:
                self._other(event, now)

    def _failed(self, id: int, error: TegaError) -> None:
        self._instead.pop(id, None)
        if (after := self._after.pop(id, None)) is not None:
            after(None, error)
        waiter = self._waiters.pop(id, None)
        if waiter is not None:
            self._host.reject(waiter, error)

    def _other(self, event: protocol.Event, now: float) -> None:
        match event:
            case protocol.MessageReceived(message):
                self._message(message)
            case protocol.Abandoned(number):
                if (entry := self._running.pop(number, None)) is not None:
                    self._host.abandon(entry[0])
            case protocol.Expired(txid, text):
                self._expired(txid, text)
            case protocol.Dropped(count):
                self._dropped(count)
            case protocol.StateChanged(state):
                if state != "connected":
                    self._running.clear()
                if not self._host.full():
                    for callback in self.on_state:
                        self._host.notify(callback, (state,))
                if state == "taken over":
                    _log.warning("%s: taken over by another program of that tega_id", self.session.tega_id)
                    self._host.over()
            case protocol.Welcomed(welcome):
                self._announce(welcome, now)
                self._host.welcomed(welcome)
            case protocol.Rejected(error):
                _log.warning("the node refused: %s: %s", error.code, error.message)
                self._host.rejected(error)
            case protocol.Redial(delay):
                self._host.redial(delay)
            case _:
                pass  # what concerns agents only

    def _notified(self, changed: messages.Changed, now: float) -> None:
        if changed.subscription in self._behind:
            return
        if self._host.full():
            self._behind[changed.subscription] = None
            return
        subscribed, changes, again = self.subscriptions.take(changed)
        if subscribed is None:
            return
        if again:
            self._again(changed.subscription, now)
        if changes:
            self._host.notify(subscribed.callback, changes)

    def _message(self, message: messages.Message) -> None:
        view = MessageView(message.channel, message.value, message.tega_id)
        dropped = 0
        for number in message.subscriptions:
            subscribed = self.subscriptions.get(number)
            if subscribed is not None:
                dropped += self._host.notify_message(subscribed.callback, view)
        if dropped:
            self._dropped(dropped)

    def _dropped(self, count: int) -> None:
        for drops in self._drops:
            if drops.add(count):
                self._host.notify(drops.tell, (None,))
        if not self._drops:
            _log.warning("%d messages were dropped, because they were not read fast enough", count)

    def _expired(self, txid: str, text: str) -> None:
        if txid not in self.transactions:
            return
        del self.transactions[txid]
        error = TransactionExpired(text, txid=txid)
        for callback in self.on_expired:
            self._host.notify(callback, (error,))

    def _invoked(self, call: messages.Invoke, now: float) -> None:
        function = self.belongings.handlers.get(call.path)
        if function is None:
            text = f"{format_path(call.path)}: no handler is registered there"
            self.session.send(messages.Result(call.call, False, ["NoHandler", text]))
            return
        self._running[call.call] = (call, now + call.timeout / 1000)
        self._host.invoke(function, call)

    # -- announcing ---------------------------------------------------------------------------------

    def _announce(self, welcome: messages.Welcome, now: float) -> None:
        """Give a new session what the old one owned, and hear what was missed meanwhile.

        A node that was restarted keeps sessions and their ephemeral nodes, but neither handlers nor
        subscriptions.
        """
        self._behind.clear()
        self._unannounced.clear()
        kept = welcome.resumed and welcome.server == self._server
        self._server = welcome.server
        if not kept:
            why = "the session is gone" if not welcome.resumed else "the node was restarted"
            for txid in list(self.transactions):
                self._expired(txid, f"transaction {txid} is lost, since {why}: nothing of it was done")
        if not kept:
            for path in self.belongings.handlers:
                self._silently((messages.Register, (path,)), f"handler {format_path(path)}", now)
        if not welcome.resumed:
            for path in self.belongings.ephemerals:
                self._put_again(path, now)
        for number in self.subscriptions.welcomed(kept):
            self._again(number, now)

    def _put_again(self, path: Path, now: float) -> None:
        """Put an ephemeral node of the session before into this one, if the client still wants it.

        An agent may have lost its own session and link at the same time: then it is offline at first.
        """
        if path not in self.belongings.ephemerals:
            return
        ask = requests.write((("put", path, self.belongings.ephemerals[path], None, True),))
        self._silently(ask, f"ephemeral node {format_path(path)}", now, path)

    def _silently(self, ask: Ask, what: str, now: float, ephemeral: Path | None = None) -> None:
        def after(_value: Any, error: TegaError | None) -> None:
            if ephemeral is not None and isinstance(error, _PASSING):
                self._unannounced[ephemeral] = None
            elif error is not None and not isinstance(error, Disconnected):
                _log.error("%s could not be announced again: %s: %s", what, error.code, error.message)

        self._ask_then(None, ask, after, _ANNOUNCE_TIMEOUT, now)

    def _confirmed(self, number: int, positions: Any) -> None:
        try:
            again = self.subscriptions.confirmed(number, positions)
        except (TypeError, ValueError):
            _log.error("the node answered subscription %d with %.80r", number, positions)
            return
        if again:
            self._again(number, self._now)

    def _again(self, number: int, now: float) -> None:
        """Ask for a subscription from where it stands."""
        subscribed = self.subscriptions.get(number)
        if subscribed is None:
            return

        def after(value: Any, error: TegaError | None) -> None:
            if error is None:
                self._confirmed(number, value)
                return
            self.subscriptions.refused(number)
            if isinstance(error, Timeout) and self.session.state == "connected":
                self._again(number, self._now)
            elif not isinstance(error, Disconnected):
                self._ended(number, error)

        self._ask_then(None, subscribed.ask(), after, _ANNOUNCE_TIMEOUT, now)

    def _ended(self, number: int, error: TegaError) -> None:
        """The node refused to go on with a subscription that stood: forget it, and tell its owner."""
        subscribed = self.subscriptions.get(number)
        if subscribed is None:
            return
        self.subscriptions.remove(number)
        self._behind.pop(number, None)
        subscribed.error = error
        # At the node it may stand yet, and would send nothing that could be passed on.
        self.ask(None, (messages.Unsubscribe, (number,)), _ANNOUNCE_TIMEOUT, self._now)
        _log.error("subscription %d ended: %s: %s", number, error.code, error.message)
        if subscribed.on_end is not None:
            # However much waits: it is told once, and after the changes that came before.
            self._host.notify(subscribed.on_end, (error,))


_NO_FRAMES: Final[list[bytes]] = []
