"""A session at a node, seen from the side that said hello: values in, values out.

A `ClientSession` does no I/O and reads no clock. Its owner tells it what happened, `connected`,
`connection_lost`, `received`, `tick`, always with `now` in monotonic seconds, and then takes what is to be
sent (`take_output`) and what is to be told (`take_events`). `next_deadline` says when `tick` must be called
at the latest. Before a `tick` that may find the node silent, whatever has arrived must be given to
`received`.

Clients, shells, and the uplink of an agent are all this class; they differ in what they do with the events.
Messages that only an agent understands pass through as `Other`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from tega_zmq import errors
from tega_zmq.wire import messages
from tega_zmq.wire.messages import AnyMessage

__all__ = [
    "DEFAULT_HEARTBEAT",
    "GRACE",
    "HELLO_TIMEOUT",
    "MAX_PENDING",
    "MAX_TIMEOUT",
    "MAX_WRITES",
    "TRANSITIONS",
    "VERSION",
    "Abandoned",
    "ClientSession",
    "Completed",
    "Dropped",
    "Event",
    "Expired",
    "Failed",
    "Invoked",
    "MessageReceived",
    "Notified",
    "Other",
    "Redial",
    "Rejected",
    "State",
    "StateChanged",
    "Welcomed",
]

VERSION: Final = 1
"""Of the protocol."""

MAX_PENDING: Final = 16_384
"""Most requests without an answer, those that wait for a connection among them."""

MAX_WRITES: Final = 1_000
"""Most writes among them: a node keeps the outcomes of some more of each session, to recognise retries."""

MAX_TIMEOUT: Final = 86_400.0
"""Longest that a request may wait, in seconds."""

GRACE: Final = 0.5
"""The node answers `Timeout` itself; so many seconds later the session does."""

HELLO_TIMEOUT: Final = 10.0
"""Seconds after which a hello without an answer is given up and the node dialled anew."""

RESUMED_FROM: Final = 1 << 40
"""First request id of a session that an earlier run of the program began."""

DEFAULT_HEARTBEAT: Final = 3.0
"""Seconds; until `Welcome` says what the node wants."""

_SILENT_HEARTBEATS: Final = 3
_SHORTEST_HEARTBEAT: Final = 0.02
REDIAL_FIRST: Final = 0.25
REDIAL_LONGEST: Final = 5.0
_DEADLINE_STEP: Final = 0.02
"""Deadlines are looked at no more often than this many seconds, so that many of them cost little."""


# -- states ----------------------------------------------------------------------------------------

State: TypeAlias = Literal["connecting", "connected", "suspended", "lost", "taken over", "closed"]

_Input: TypeAlias = Literal["opened", "resumed", "cut", "lapsed", "displaced", "closed"]

TRANSITIONS: Final[Mapping[State, Mapping[_Input, State]]] = {
    # Before the first Welcome.
    "connecting": {
        "opened": "connected",
        "resumed": "connected",  # the session of an earlier run, see `ClientSession.resume`
        "cut": "connecting",
        "displaced": "taken over",
        "closed": "closed",
    },
    "connected": {
        "cut": "suspended",
        "displaced": "taken over",
        "closed": "closed",
    },
    # No connection, but what the session owns still stands.
    "suspended": {
        "resumed": "connected",
        "opened": "lost",  # and then, as every "lost" that is opened, "connected"
        "cut": "suspended",
        "lapsed": "lost",
        "displaced": "taken over",
        "closed": "closed",
    },
    # No connection for longer than the lease; a new session follows, unless the node still has the old one.
    "lost": {
        "opened": "connected",
        "resumed": "connected",
        "cut": "lost",
        "displaced": "taken over",
        "closed": "closed",
    },
    "taken over": {"closed": "closed"},
    "closed": {},
}
"""What follows from what happens:

opened     Welcome with a new session
resumed    Welcome with the session that there was
cut        the connection is lost, the node fell silent, or it does not know the connection (Gone)
lapsed     without a connection for longer than the lease
displaced  another program said hello as the same tega_id
closed     the owner ended it

What is not listed changes nothing.
"""


_new = tuple.__new__
"""Makes a named tuple of a tuple without a call into Python."""


# -- events ----------------------------------------------------------------------------------------


class Completed(NamedTuple):
    """Request `id` was answered with `value`."""

    id: int
    value: Any


class Failed(NamedTuple):
    """Request `id` ended with `error`."""

    id: int
    error: errors.TegaError


class Notified(NamedTuple):
    """A commit, as far as a subscription is concerned."""

    changed: messages.Changed


class MessageReceived(NamedTuple):
    """A message on a channel."""

    message: messages.Message


class Dropped(NamedTuple):
    """The node dropped so many messages, because this session read too slowly."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


class Expired(NamedTuple):
    """The node ended a transaction that was idle for too long; `text` is for people."""

    txid: str
    text: str


class Invoked(NamedTuple):
    """Run a handler and `send` its `Result`."""

    invoke: messages.Invoke


class Abandoned(NamedTuple):
    """Nobody waits for the result of `call` any more."""

    call: int


class StateChanged(NamedTuple):
    """The session is in `state` now."""

    state: State


class Welcomed(NamedTuple):
    """The node took the session on. If not `welcome.resumed`, what it owned before must be announced anew."""

    welcome: messages.Welcome


class Rejected(NamedTuple):
    """The node refused the hello, or something else that this session sent, with `error`."""

    error: errors.TegaError


class Redial(NamedTuple):
    """Drop the connection; dial again after `delay` seconds, and call `connected` when it stands."""

    delay: float


class Other(NamedTuple):
    """A message that means something to an agent only, or a heartbeat with positions."""

    message: AnyMessage


Event: TypeAlias = (
    Completed
    | Failed
    | Notified
    | MessageReceived
    | Dropped
    | Expired
    | Invoked
    | Abandoned
    | StateChanged
    | Welcomed
    | Rejected
    | Redial
    | Other
)


# -- what becomes of a request when the connection or the session is lost --------------------------

_ONCE: Final[frozenset[type[Any]]] = frozenset(
    {messages.Call, messages.CallAll, messages.CancelCall, messages.Publish}
)
"""Never sent a second time."""

_ANEW: Final[frozenset[type[Any]]] = frozenset(
    {
        messages.Get,
        messages.Find,
        messages.Log,
        messages.Diff,
        messages.Blame,
        messages.Tag,
        messages.Inspect,
        messages.Begin,
        messages.Subscribe,
        messages.SubscribeRegex,
        messages.Listen,
        messages.Register,
        messages.Report,
        messages.Claim,
        messages.Follow,
    }
)
"""May be asked again in a new session: they change nothing, or nothing that outlived the old session."""

_WRITES: Final[frozenset[type[Any]]] = frozenset({messages.Write, messages.CommitTransaction})

_NOT_TRIED: Final = frozenset({"Offline", "OwnerAway", "TransactionExpired"})
"""What a write fails with that was not even sent to the owner of its root. `TransactionExpired` too: a node
that was restarted knows no transactions, and not what became of those whose roots another owns."""

_MOOT: Final[frozenset[type[Any]]] = frozenset({messages.Unsubscribe, messages.Unregister})
"""Done with the end of the session."""


def _survives(cls: type[Any], fields: tuple[Any, ...]) -> bool:
    """Whether a request that an ended session sent can be asked again in a new one."""
    if cls is messages.Get or cls is messages.Find:
        return not fields[-1]  # reads of a transaction ended with it
    return cls in _ANEW


class ClientSession:
    """One tega_id's session at a node.

    `jitter` returns a random number from 0 to 1. The attributes `state`, `session`, `token` and `welcome`
    (the last one, or None) are to be read only. An agent sets `positions` to how far its replicas are;
    heartbeats carry them.
    """

    def __init__(self, tega_id: str, kind: str = "client", *, jitter: Callable[[], float]) -> None:
        self.tega_id = tega_id
        self.kind = kind
        self.state: State = "connecting"
        self.session = ""
        self.token = ""
        self.welcome: messages.Welcome | None = None
        self.positions: tuple[messages.Position, ...] = ()
        self._jitter = jitter
        self.output: list[AnyMessage] = []
        """What `take_output` will return: to see that it is nothing is cheaper so."""
        self.events: list[Event] = []
        """The same of `take_events`."""
        self._pending: dict[int, tuple[type[Any], tuple[Any, ...], float]] = {}
        """By id, in order: the request's class, its own fields, its deadline."""
        self.redial_first = REDIAL_FIRST
        """Seconds before the first attempt to dial again; each is drawn from 0.5 to 1.5 times that."""
        self.redial_longest = REDIAL_LONGEST
        """It doubles up to this."""
        self._next = 1
        self._low = 1
        """No id below it is pending."""
        self._base = 0
        """Ids count from 1 in each session: on the wire they are smaller by this."""
        self._first_unsent = 1
        """While not connected: requests from this id on were never sent."""
        self._resent_below = 0
        """Requests below this id were sent more than once."""
        self._earliest = _NEVER
        """No pending request has an earlier deadline."""
        self._heartbeat = DEFAULT_HEARTBEAT
        self._hello_due: float | None = None
        """While waiting for an answer to hello: until when."""
        self._attempts = 0
        """Dials since the last Welcome."""
        self._heard = 0.0
        self._spoke = 0.0
        self._beat = 0.0
        """When the last heartbeat was sent."""

    def resume(self, session: str, token: str, first: int = RESUMED_FROM) -> None:
        """Before the first hello: try to go on with a session of an earlier run of the program.

        Its request ids are not known any more, so they count on from `first`, which no run before may have
        reached: the node would take a request under an old id for a retry. Unix microseconds will do.
        """
        self.session, self.token = session, token
        self._low = self._next = self._first_unsent = first

    # -- what the owner takes -----------------------------------------------------------------------

    def take_output(self) -> list[AnyMessage]:
        """Return the messages to send now, in order, and forget them."""
        output = self.output
        if output:
            self.output = []
        return output

    def take_events(self) -> list[Event]:
        """Return what happened since the last call, in order, and forget it."""
        events = self.events
        if events:
            self.events = []
        return events

    def next_deadline(self) -> float | None:
        """Return the time at which `tick` must be called at the latest, or None."""
        due = self._earliest  # compared one by one: it is asked before every sleep
        if self._hello_due is not None:
            if self._hello_due < due:
                due = self._hello_due
        elif self.state == "connected":
            beat, silent = self._beat_due(), self._heard + _SILENT_HEARTBEATS * self._heartbeat
            if beat < due:
                due = beat
            if silent < due:
                due = silent
        if self.state == "suspended":
            due = min(due, self._lapse())
        return None if due == _NEVER else due

    @property
    def pending(self) -> int:
        """How many requests have no answer yet."""
        return len(self._pending)

    def awaits(self, id: int) -> bool:
        """Whether request `id` has no answer yet."""
        return id in self._pending

    # -- what the owner asks ------------------------------------------------------------------------

    def request(self, cls: type[Any], *fields: Any, timeout: float, now: float) -> int:
        """Send a `cls` with its own `fields` (all but id, ack and timeout); return its id.

        Exactly one `Completed` or `Failed` with that id follows, after at most `timeout` seconds and a grace.
        Without a connection the request waits for one; if its time is over before it was ever sent, it fails
        with `Timeout(outcome="none")`.

        Raises `TakenOver`, `Disconnected` (closed), `InvalidValue` (timeout), `TooLarge` (`MAX_PENDING`,
        `MAX_WRITES`).
        """
        if type(timeout) not in _NUMBERS or not 0 < timeout <= MAX_TIMEOUT:
            raise errors.InvalidValue(
                f"timeout {timeout!r}: more than 0 and at most {MAX_TIMEOUT:.0f} seconds"
            )
        pending = self._pending
        if len(pending) >= MAX_PENDING:
            raise errors.TooLarge(
                f"{len(pending)} requests wait for an answer; no more than {MAX_PENDING} may",
                size=len(pending),
                limit=MAX_PENDING,
            )
        if len(pending) >= MAX_WRITES and cls in _WRITES:
            writes = sum(entry[0] in _WRITES for entry in pending.values())
            if writes >= MAX_WRITES:
                raise errors.TooLarge(
                    f"{writes} writes wait for an answer; no more than {MAX_WRITES} may",
                    size=writes,
                    limit=MAX_WRITES,
                )
        id = self._next
        if self.state == "connected":
            self._next = id + 1
            deadline = now + timeout + GRACE
            pending[id] = (cls, fields, deadline)
            low = self._low
            while low not in pending:
                low += 1
            self._low = low
            base = self._base
            self.output.append(cls(id - base, low - base, int(timeout * 1000) or 1, *fields))
            self._spoke = now
        else:
            self._check_open()
            self._next = id + 1
            deadline = now + timeout
            pending[id] = (cls, fields, deadline)
        if deadline < self._earliest:
            self._earliest = deadline
        return id

    def cancel(self, id: int, now: float) -> None:
        """Give up request `id`: it fails with `Cancelled`.

        The node is asked to end a call; whichever comes first, its result or `Cancelled`, is then the
        outcome. Anything else ends at once, and if it was a write, it may be done or not. Unknown ids are
        ignored.
        """
        entry = self._pending.get(id)
        if entry is None:
            return
        cls, _, deadline = entry
        if self.state == "connected" and (cls is messages.Call or cls is messages.CallAll):
            try:
                self.request(
                    messages.CancelCall,
                    id - self._base,
                    timeout=min(max(deadline - now, _DEADLINE_STEP), MAX_TIMEOUT),
                    now=now,
                )
                return
            except errors.TooLarge:
                pass  # no room to ask the node: it ends here, and the late result is ignored
        self.reject(id, errors.Cancelled("given up by the caller"))

    def reject(self, id: int, error: errors.TegaError) -> None:
        """End request `id` with `error`, e.g. because it cannot be encoded. Unknown ids are ignored."""
        if self._pending.pop(id, None) is not None:
            self.events.append(Failed(id, error))

    def unsendable(self, message: AnyMessage, error: errors.TegaError) -> None:
        """Say that `message`, from `take_output`, cannot be encoded: if it is a request, it fails."""
        if type(message) in messages.REQUESTS:
            id: int = message[0]  # type: ignore[assignment, misc]  # every request's first field
            self.reject(id + self._base, error)

    def send(self, message: AnyMessage) -> bool:
        """Send `message`, which is no request. Returns False, and drops it, if there is no connection."""
        if self.state != "connected":
            return False
        self.output.append(message)
        return True

    def close(self, now: float) -> None:
        """End the session in order. What is unanswered fails with `Disconnected`."""
        if self.state == "closed":
            return
        if self.state == "connected":
            self.output.append(messages.Bye())
            self._spoke = now
        self._fail_all(
            lambda sent: errors.Disconnected(
                "the client was closed before the answer came", outcome="unknown" if sent else "none"
            )
        )
        self._hello_due = None
        self._move("closed")

    # -- what happens -------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """A connection stands on which nothing was sent yet: say hello."""
        if self.state in ("taken over", "closed"):
            return
        if self.state == "connected":
            self._cut()
        self._hello(now)

    def connection_lost(self, now: float) -> None:
        """The connection broke, or could not be made. A `Redial` follows, unless the session is over."""
        if self.state in ("taken over", "closed"):
            return
        self._redial()
        self._check_lapse(now)

    def received(self, message: AnyMessage, now: float) -> None:
        """The node sent `message`."""
        self._heard = now
        handle = _RECEIVE.get(type(message))
        if handle is not None and self.state not in ("taken over", "closed"):
            handle(self, message, now)

    def tick(self, now: float) -> None:
        """Time passed: end what is over its deadline, send a heartbeat, notice silence and a lapsed lease."""
        if now >= self._earliest:
            self._expire(now)
        if self._hello_due is not None:
            if now >= self._hello_due:
                self._redial()
        elif self.state == "connected":
            if now >= self._heard + _SILENT_HEARTBEATS * self._heartbeat:
                self._redial()
            elif now >= self._beat_due():
                self.output.append(messages.Heartbeat(self.positions))
                self._spoke = self._beat = now
        self._check_lapse(now)

    # -- messages -----------------------------------------------------------------------------------

    def _reply(self, message: messages.Reply, _now: float) -> None:
        number, value = message
        id = number + self._base
        entry = self._pending.get(id)
        if entry is None or (self.state != "connected" and id >= self._first_unsent):
            return
        del self._pending[id]
        if entry[0] is not messages.CancelCall:
            self.events.append(_new(Completed, (id, value)))

    def _failure(self, message: messages.Failure, _now: float) -> None:
        id = message.id + self._base
        entry = self._pending.get(id)
        if entry is None or (self.state != "connected" and id >= self._first_unsent):
            return
        del self._pending[id]
        if entry[0] is not messages.CancelCall:
            error = errors.decode(message.code, message.message, message.fields)
            if id < self._resent_below and entry[0] in _WRITES and message.code in _NOT_TRIED:
                error = errors.Disconnected(
                    f"the connection was lost before the answer came, and the write could not be tried again:"
                    f" {message.message}",
                    outcome="unknown",
                )
            self.events.append(Failed(id, error))

    def _welcome(self, message: messages.Welcome, now: float) -> None:
        if self._hello_due is None:
            return
        if message.version != VERSION:
            self.events.append(
                Rejected(
                    errors.ProtocolError(f"the node speaks version {message.version}, this client {VERSION}")
                )
            )
            self._redial()
            return
        self._hello_due = None
        self._attempts = 0
        self._heartbeat = max(message.heartbeat, _SHORTEST_HEARTBEAT)
        resumed = message.resumed and message.session == self.session and bool(self.session)
        self.welcome = message
        if resumed:
            self._move("resumed")
        else:
            self._forget_sent()
            self.session = message.session
            self._move("opened")
            if self.state != "connected":
                self._move("opened")
        self.token = message.token
        self._spoke = self._beat = now
        self.events.append(
            Welcomed(message if resumed == message.resumed else message._replace(resumed=resumed))
        )
        self._send_pending(now)

    def _refused(self, message: messages.Refused, _now: float) -> None:
        error = errors.decode(message.code, message.message, message.fields)
        if self._hello_due is None:
            self.events.append(Rejected(error))
            return
        if isinstance(error, errors.TakenOver):
            self._taken_over(error)
            return
        if isinstance(error, errors.Unauthorized):
            self.session = self.token = ""  # the node does not take this token; the next hello goes without
        self.events.append(Rejected(error))
        self._redial()

    def _gone(self, _message: messages.Gone, now: float) -> None:
        if self.state == "connected":
            self._cut()
            self._hello(now)

    def _displaced(self, message: messages.Displaced, _now: float) -> None:
        self._taken_over(
            errors.TakenOver(
                f"another program said hello as {self.tega_id}; this session is over. "
                "Two programs or devices must not share a tega_id",
                tega_id=message.tega_id,
            )
        )

    def _heartbeat_came(self, message: messages.Heartbeat, _now: float) -> None:
        if message.positions:
            self.events.append(Other(message))

    def _notified(self, message: messages.Changed, _now: float) -> None:
        self.events.append(Notified(message))

    def _message(self, message: messages.Message, _now: float) -> None:
        self.events.append(MessageReceived(message))

    def _dropped(self, message: messages.Dropped, _now: float) -> None:
        self.events.append(Dropped(message.count))

    def _expired(self, message: messages.Expired, _now: float) -> None:
        self.events.append(Expired(message.txid, message.text))

    def _invoked(self, message: messages.Invoke, _now: float) -> None:
        self.events.append(Invoked(message))

    def _abandoned(self, message: messages.Abandon, _now: float) -> None:
        self.events.append(Abandoned(message.call))

    def _other(self, message: AnyMessage, _now: float) -> None:
        self.events.append(Other(message))

    # -- steps --------------------------------------------------------------------------------------

    def _move(self, what: _Input) -> None:
        state = TRANSITIONS[self.state].get(what)
        if state is not None and state != self.state:
            self.state = state
            self.events.append(StateChanged(state))

    def _check_open(self) -> None:
        if self.state == "taken over":
            raise errors.TakenOver(
                f"another program said hello as {self.tega_id}; this session is over", tega_id=self.tega_id
            )
        if self.state == "closed":
            raise errors.Disconnected("this client is closed", outcome="none")

    def _hello(self, now: float) -> None:
        self.output = [messages.Hello(VERSION, self.tega_id, self.kind, self.session, self.token)]
        self._hello_due = now + HELLO_TIMEOUT

    def _cut(self) -> None:
        """There is no usable connection: calls and messages under way have an unknown outcome."""
        self._hello_due = None
        self.output = []
        if self.state == "connected":
            self._first_unsent = self._next
            self._fail(
                [id for id, entry in self._pending.items() if entry[0] in _ONCE],
                "the connection was lost before the answer came; what was asked may be done or not",
            )
        self._move("cut")

    def _redial(self) -> None:
        self._cut()
        longest = min(self.redial_first * 2 ** min(self._attempts, 10), self.redial_longest)
        self._attempts += 1
        self.events.append(Redial(longest * (0.5 + self._jitter())))

    def _taken_over(self, error: errors.TakenOver) -> None:
        self._hello_due = None
        self.output = []
        self._fail_all(lambda _sent: error)
        self._move("displaced")

    def _forget_sent(self) -> None:
        """A new session: what the old one was asked is asked again if that is harmless, else it failed."""
        lost = []
        for id, (cls, fields, _) in list(self._pending.items()):
            if id >= self._first_unsent:
                break
            if cls in _MOOT:
                del self._pending[id]
                self.events.append(Completed(id, None))
            elif not _survives(cls, fields):
                lost.append(id)
        self._fail(lost, "the session ended before the answer came; what was asked may be done or not")
        self._low = next(iter(self._pending), self._next)
        self._base = self._low - 1

    def _send_pending(self, now: float) -> None:
        pending, base = self._pending, self._base
        self._resent_below = self._first_unsent
        for id, (cls, fields, deadline) in list(pending.items()):
            if id >= self._first_unsent:
                remaining = deadline - now
                pending[id] = (cls, fields, deadline + GRACE)
            else:
                remaining = deadline - now - GRACE
            while self._low not in pending:
                self._low += 1
            ms = max(int(remaining * 1000), 1)
            self.output.append(cls(id - base, self._low - base, ms, *fields))

    def _expire(self, now: float) -> None:
        """Fail what is over its deadline, and note the earliest that remains."""
        earliest = _NEVER
        unsent = _NEVER_ID if self.state == "connected" else self._first_unsent
        for id, (cls, _, deadline) in list(self._pending.items()):
            if deadline > now:
                earliest = min(earliest, deadline)
                continue
            del self._pending[id]
            if cls is messages.CancelCall:
                continue
            if id < unsent:
                error = errors.Timeout("no answer from the node before the deadline", outcome="unknown")
            else:
                error = errors.Timeout("no connection to the node before the deadline", outcome="none")
            self.events.append(Failed(id, error))
        self._earliest = max(earliest, now + _DEADLINE_STEP) if earliest != _NEVER else _NEVER

    def _fail(self, ids: list[int], message: str) -> None:
        for id in ids:
            cls, _, _ = self._pending.pop(id)
            if cls is not messages.CancelCall:
                self.events.append(Failed(id, errors.Disconnected(message, outcome="unknown")))

    def _fail_all(self, error: Callable[[bool], errors.TegaError]) -> None:
        """Fail every pending request with what `error` makes of whether it was sent."""
        unsent = _NEVER_ID if self.state == "connected" else self._first_unsent
        for id, (cls, _, _) in self._pending.items():
            if cls is not messages.CancelCall:
                self.events.append(Failed(id, error(id < unsent)))
        self._pending.clear()
        self._earliest = _NEVER

    def _beat_due(self) -> float:
        """When the next heartbeat is due. One with positions is sent whatever else is."""
        return (self._beat if self.positions else self._spoke) + self._heartbeat

    def _lapse(self) -> float:
        """When the lease is over. It counts from the last word of the node: the node heard us no later."""
        return self._heard + (self.welcome.lease if self.welcome is not None else 0.0)

    def _check_lapse(self, now: float) -> None:
        if self.state == "suspended" and now >= self._lapse():
            self._move("lapsed")


_NUMBERS: Final = frozenset({int, float})
_NEVER: Final = float("inf")
_NEVER_ID: Final = 1 << 63

_RECEIVE: Final[Mapping[type[Any], Callable[[ClientSession, Any, float], None]]] = {
    messages.Reply: ClientSession._reply,
    messages.Failure: ClientSession._failure,
    messages.Welcome: ClientSession._welcome,
    messages.Refused: ClientSession._refused,
    messages.Gone: ClientSession._gone,
    messages.Displaced: ClientSession._displaced,
    messages.Heartbeat: ClientSession._heartbeat_came,
    messages.Changed: ClientSession._notified,
    messages.Message: ClientSession._message,
    messages.Dropped: ClientSession._dropped,
    messages.Expired: ClientSession._expired,
    messages.Invoke: ClientSession._invoked,
    messages.Abandon: ClientSession._abandoned,
    messages.RootUpdate: ClientSession._other,
    messages.Pull: ClientSession._other,
    messages.Chunk: ClientSession._other,
    messages.Forward: ClientSession._other,
    messages.ForwardEnded: ClientSession._other,
}
"""What is not here (requests, Hello, Bye, Result) no node sends; it is ignored."""
