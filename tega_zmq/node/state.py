"""The state of a node, and the few operations on it that everything else is made of.

A node holds two stores. Writes are evaluated on the **tip**; reads, subscribers and followers see the
**durable** one, which follows when the log says so. An answer that depends on the tip is *gated*: it leaves
when the log is durable up to the number that was the newest when the answer was made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from tega_zmq import errors
from tega_zmq.calls import Calls, Handlers
from tega_zmq.client.protocol import ClientSession
from tega_zmq.errors import StorageError, TegaError
from tega_zmq.node.effects import Append, Effect, Note, RememberUplink, Send, SendUp
from tega_zmq.replica import Follower
from tega_zmq.schemas import Schema
from tega_zmq.sessions import Session, Sessions
from tega_zmq.store import Record, Root, Store, apply
from tega_zmq.subscriptions import Channels, Subscriptions
from tega_zmq.wire import encode
from tega_zmq.wire.messages import AnyMessage, Failure, Forward, Reply

__all__ = ["ABOVE", "Gated", "Node", "Settings", "Step", "Waiting"]

ABOVE = "^"
"""Stands for the node above, as owner of a root and as the connection of a session."""

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes, where every request comes by."""


class Settings(NamedTuple):
    """What a node is told by its config. Times in seconds, sizes in bytes."""

    tega_id: str
    lease: float = 15.0
    heartbeat: float = 5.0
    max_value: int = 1 << 20
    max_sessions: int = 20_000
    max_direct: int = 20_000
    """Most sessions that are no sub-sessions: for as many there are file descriptors."""
    max_calls: int = 16_384
    """Calls in flight, and unanswered requests, of one session."""
    changes: str = ""
    """Where the updates are published, as Welcome tells it."""
    config: tuple[str, ...] = ()
    """Roots that are replicated down to this node."""
    operational: tuple[str, ...] = ()
    """Roots that this node owns beneath an uplink."""
    history: bool = False
    """Whether the program keeps what the node lets go of on the disk, and carries out `ReadHistory`."""
    direct_followers: int = 4
    """How many followers of a root that could hear its topic get its updates over their own connections."""


class Step(NamedTuple):
    """One record on its way to the disk, and the store that it makes."""

    number: int
    record: Record
    store: Store


class Gated(NamedTuple):
    """A message that waits for the log to be durable up to `number`."""

    number: int
    session: Session
    message: Reply | Failure


class Waiting(NamedTuple):
    """A request that was passed on, up or down, and the message to pass on again after a reconnect."""

    message: Any
    to: str
    """The agent below that owns the root, or "" for the uplink."""
    deadline: float
    resend: bool
    """False for calls and messages, which are never sent twice."""
    resent: bool = False
    """It was sent again: an earlier attempt may have been carried out."""
    convert: Callable[[Reply | Failure], Reply | Failure | None] | None = None
    """Makes the answer for the session, where that is not the owner's: of a read in a transaction."""


class Node:
    """Broker or agent. Mutable; one thread. Events go in through `tega_zmq.node.machine`."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        number: int,
        *,
        fresh: Callable[[], str],
        clock: Callable[[], float],
        uplink: ClientSession | None = None,
        now: float = 0.0,
    ) -> None:
        """A node over the recovered `store`, whose last log record was `number`.

        `fresh` makes ids that nobody can guess (32 hex digits), `clock` tells Unix seconds. With `uplink`
        it is an agent.
        """
        self.settings = settings
        self.tip = store
        self.durable = store
        self.number = number
        """Of the newest record that was appended."""
        self.durable_number = number
        self.fresh = fresh
        self.clock = clock
        self.now = now
        self.started = now
        self.server = fresh()
        self.uplink = uplink
        self.online = False
        self.hears_topics = True
        """Updates that the node above publishes can be heard: the uplink is no tunnel."""
        """Whether the uplink's session is connected."""
        self.uplink_server = ""
        self.uplink_name = ""
        """The tega_id of the node above, as long as it is known."""
        self.failure: str | None = None
        """Why the log takes no writes."""
        self.effects: list[Effect] = []
        self.steps: deque[Step] = deque()
        self.spent: list[Store | Step] = []
        """What became durable last, and the store from before; who holds them last frees what they hold."""
        self.gated: deque[Gated] = deque()
        self.sessions = Sessions(settings.max_sessions, settings.max_direct)
        self.above = Session("", "", "", "above", None, settings.lease, now)
        """Stands for the node above where a session is asked for: what is being served to it."""
        self.below: dict[str, Session] = {}
        """Sub-sessions that came down the uplink, by id."""
        self.subscriptions = Subscriptions()
        self.channels = Channels()
        self.handlers = Handlers()
        self.calls = Calls()
        self.followers: dict[str, Follower] = {}
        self.topics: dict[str, bytes] = {}
        """Topic under which each root is published that is followed by topic."""
        self.topic_roots: dict[bytes, str] = {}
        """The same the other way round."""
        self.by_topic: dict[str, int] = {}
        """How many sessions follow each root by its topic."""
        self.direct: dict[str, dict[Session, None]] = {}
        """The sessions that get the updates of each root over their own connection."""
        self.forwarders: dict[str, dict[Session, None]] = {}
        """The sessions by what stands in their `forwarded_to`."""
        self.displaced: dict[str, None] = {}
        """The last sessions that were taken over: they do not come back by themselves."""
        self.followed: dict[str, list[tuple[str, tuple[str, int] | None]]] = {}
        """By agent whose session ended since this node started: what it followed, and where it was last."""
        self.unsent: list[tuple[Session, AnyMessage, TegaError]] = []
        """Messages that could not be encoded; `machine.take_effects` sees to them."""
        self.beacons: dict[str, float] = {}
        """Roots whose followers are to be told the present version, and when."""
        self.beacons_due = float("inf")
        """The earliest of these times."""
        self.bad_messages: dict[bytes, int] = {}
        """How many messages of each peer were refused in the present minute, as far as that is in the log."""
        self.bad_more = 0
        """How many more were in it."""
        self.bad_until = now
        """When that minute ends."""
        self.shown: list[tuple[float, Session, int, dict[str, int], Reply | Failure]] = []
        """Answers to forwarded writes, held until the replica shows them: (deadline, session, id, ...)."""
        self.held: list[tuple[Session, int, str]] = []
        """Writes to pass on when their session is durable: (session, id, the agent that owns the root)."""
        self.asked: dict[int, Any] = {}
        """Requests that wait for history to be read (`past.Asked`), by the number of the effect."""
        self.behind: dict[Session, list[Any]] = {}
        """Writes that wait behind such a one of their session."""
        self.known: dict[Any, Any] = {}
        """What was read for the request that is being carried out."""
        self.walks: list[Any] = []
        """Requests that are carried out a little at a time (`walking.Walk`)."""
        self.walking = 0
        """Whose turn it is."""
        self.take_in = 0
        """The history on the disk is to take in the store as it is after this record, before it goes on."""
        self.restoring: tuple[str, frozenset[str]] = ("", frozenset())
        """The session that restores a backup, and the roots that it has begun."""
        self.part: tuple[Any, bytes] = (None, b"")
        """What is being read by `Part`s: of which session, root and version, and all of its bytes."""
        self.pieces: tuple[str, bytearray] = ("", bytearray())
        """The session that sends `Piece`s, and those that came."""
        self.schemas: tuple[Schema, ...] = ()
        """Those of the commit that was looked at last, so that each is compiled once."""
        self.deadlines: list[tuple[float, int, Session, int]] = []
        """Heap of the deadlines of forwarded requests: (deadline, tie, session, id)."""
        self.idle: list[tuple[float, int, Session, str]] = []
        """Heap of when to look at each open transaction: (due, tie, session, txid)."""
        self.deadlines_limit = 256
        """At this length of `deadlines`, those of answered requests are taken out."""
        self.ties = 0
        self.topics_up: dict[str, bytes] = {}
        """Topics of the roots that are followed there, at the node above."""
        self.claimed: dict[str, tuple[str, int]] = {}
        """Roots that the node above has accepted as this node's own, and where its replica was then."""
        self.refused: dict[str, str] = {}
        """Roots whose claim the node above refused last, and why."""
        self.on_demand: dict[str, None] = {}
        """Roots that are followed above though the config does not list them: for somebody below."""
        self.awaiting: dict[str, dict[Session, Any]] = {}
        """Each `Claim` and `Follow` from below that the node above is asked about first, by root."""
        self.begun: set[str] = set()
        """Roots of this node that went on under a new epoch since it started."""
        self.renewing = False
        """Whether new epochs are begun, and that is not durable yet."""
        self.remember: tuple[int, RememberUplink] | None = None
        """The uplink's session, to be kept for the next start once this record is durable."""
        self.uplink_requests: dict[int, tuple[str, str]] = {}
        """What this node asked of the one above: id to (what, root)."""
        self.reports: dict[str, Any] = {}
        self.heartbeat_due = 0.0
        self.claims_due = 0.0
        """When roots that were refused by the node above are asked for again."""
        self.snapshots: list[tuple[Session, int]] = []
        """Who waits for a snapshot."""
        self.outcomes: dict[str, int] = {}
        """How many calls ended how: `ok`, or the code of the error."""
        self.dropped = 0
        """Messages that were dropped for sessions that read too slowly, as far as these know or are over."""
        self.numbers: Callable[[], dict[str, Any]] = dict
        """What the program counts, for the listing `status`."""

    # -- effects -----------------------------------------------------------------------------------

    def send(self, session: Session, message: AnyMessage) -> None:
        """Send `message` to `session`, if it has a connection."""
        via = session.via
        if via is None:
            if session.peer is not None:
                self.effects.append(_new(Send, (session.peer, message)))
            elif session.kind == "below" and self.online:
                try:
                    body = encode(message)
                except TegaError as error:
                    self.cannot_send(session, message, error)
                else:
                    self.effects.append(SendUp(Forward(session.id, "", body)))
        elif via.peer is not None:
            try:
                body = encode(message)
            except TegaError as error:
                self.cannot_send(session, message, error)
            else:
                self.effects.append(Send(via.peer, Forward(session.id, "", body)))

    def cannot_send(self, session: Session, message: AnyMessage, error: TegaError) -> None:
        """Note that `message` to `session` cannot be encoded; something is done instead of it soon."""
        self.unsent.append((session, message, error))
        self.note(
            "warning",
            "message cannot be sent",
            to=session.tega_id,
            kind=type(message).__name__,
            error=error.message,
        )

    def reply(self, session: Session, id: int, value: Any) -> None:
        """Answer request `id` now."""
        session.pending.pop(id, None)
        self.send(session, Reply(id, value))

    def fail(self, session: Session, id: int, error: TegaError) -> None:
        """Refuse request `id` now."""
        session.pending.pop(id, None)
        code, message, fields = errors.encode(error)
        self.send(session, Failure(id, code, message, fields))

    def note(self, level: str, event: str, **fields: Any) -> None:
        """Add a log line."""
        self.effects.append(Note(level, event, fields))

    # -- the log -----------------------------------------------------------------------------------

    def append(self, record: Record, store: Store | None = None) -> None:
        """Append `record`; `store` is what it makes of the tip, if that is known already."""
        self.tip = apply(self.tip, record) if store is None else store
        self.number += 1
        self.steps.append(_new(Step, (self.number, record, self.tip)))
        self.effects.append(_new(Append, (record,)))

    def check_log(self) -> None:
        """Raises `StorageError` while the log takes no writes."""
        if self.failure is not None:
            raise StorageError(
                f"the log takes no writes: {self.failure}; mend the disk, then run `ss` or restart",
                reason=self.failure,
                outcome="none",
            )

    def gate(self, session: Session, message: Reply | Failure) -> None:
        """Send an answer that depends on the tip once the tip is durable."""
        if self.number <= self.durable_number:
            self._release(session, message)
        else:
            session.pending[message.id] = None
            self.gated.append(_new(Gated, (self.number, session, message)))

    def gate_reply(self, session: Session, id: int, value: Any) -> None:
        """Answer request `id` once the tip is durable."""
        self.gate(session, Reply(id, value))

    def release(self) -> None:
        """Send the gated answers whose time has come."""
        gated = self.gated
        while gated and gated[0].number <= self.durable_number:
            entry = gated.popleft()
            self._release(entry.session, entry.message)

    def _release(self, session: Session, message: Reply | Failure) -> None:
        session.pending.pop(message.id, None)
        self.send(session, message)

    # -- passing on --------------------------------------------------------------------------------

    def note_forwarded(self, session: Session, to: str) -> None:
        """Note that the agent `to`, or the node above (""), holds a sub-session for `session` from now on."""
        if to not in session.forwarded_to:
            session.forwarded_to.add(to)
            self.forwarders.setdefault(to, {})[session] = None

    def forget_forwarded(self, session: Session) -> None:
        """`session` is over: take it out of `forwarders`."""
        for to in session.forwarded_to:
            held = self.forwarders[to]
            del held[session]
            if not held:
                del self.forwarders[to]

    def sessions_forwarded_to(self, to: str) -> list[Session]:
        """Return the sessions that something was passed on for to the agent `to`, or up ("")."""
        return list(self.forwarders.get(to, ()))

    # -- who owns what -----------------------------------------------------------------------------

    def owner(self, root: str) -> str | None:
        """Say who owns `root`: "" this node, None the node above, else the agent of that tega_id."""
        known: Root | None = self.tip.roots.get(root)
        if self.uplink is None:
            return known.owner if known is not None else ""
        if root in self.settings.operational:
            return ""
        if root in self.settings.config or known is None or known.owner in ("", ABOVE):
            return None
        return known.owner

    def claimant(self, tega_id: str) -> Session | None:
        """Return the session of the agent `tega_id`, connected or not, if there is one."""
        return self.sessions.by_tega_id.get(tega_id)
