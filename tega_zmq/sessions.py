"""Who is connected: sessions, their leases, and how they are found.

A `Session` is a tega_id's lease at a node. It owns ephemeral nodes, subscriptions, handlers and
transactions. It has a connection of its own (`peer`), or it is a **sub-session** that shares the connection
of another one (`via`): so an agent carries the sessions of its local programs to the broker.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from tega_zmq.errors import InvalidValue, TegaError, TooLarge, Unauthorized
from tega_zmq.paths import Path
from tega_zmq.transactions import Transaction
from tega_zmq.wire import encode
from tega_zmq.wire.messages import Failure, Message, Reply

__all__ = ["DELEGATE", "MAX_MESSAGES", "MAX_WAITING", "Session", "Sessions", "check_tega_id"]

DELEGATE = "delegate"
"""Kind of a session that a bridge holds in the name of its tega_id, beside that one's own if it has one.

It neither displaces nor is displaced, is not found by its tega_id, and owns nothing that others see: no
ephemeral nodes, handlers, roots or replicas.
"""

MAX_MESSAGES = 1000
"""Most messages of channels that wait for a session that does not read."""

MAX_SETTLED = 1024
"""Most answers that are kept for retries, besides the outcomes in the store."""

MAX_WAITING = 4 << 20
"""Most bytes that they may have; a single message may have more."""

_TEGA_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_tega_id(tega_id: str) -> str:
    """Return `tega_id` if it is one. Raises `InvalidValue`."""
    if not _TEGA_ID.fullmatch(tega_id):
        raise InvalidValue(f"tega_id {tega_id[:80]!a}: 1 to 64 of the characters A-Z a-z 0-9 _ - are allowed")
    return tega_id


class Session:
    """What a node knows of one session. Mutable; owned by the node."""

    __slots__ = (
        "_waiting",
        "ack",
        "announced",
        "asked_above",
        "away_until",
        "backlog",
        "calling",
        "claims",
        "congested",
        "doubt",
        "dropped",
        "ended",
        "ephemerals_above",
        "expired",
        "follows",
        "forwarded_to",
        "handlers",
        "heard",
        "id",
        "kind",
        "lacking",
        "last_lsn",
        "lease",
        "lost_above",
        "opened",
        "passed_up",
        "peer",
        "pending",
        "positions",
        "putting",
        "reports",
        "retracted",
        "serving",
        "serving_trees",
        "settled",
        "subscriptions",
        "subsessions",
        "tega_id",
        "token",
        "told",
        "transactions",
        "unsaid",
        "via",
    )

    def __init__(
        self, id: str, tega_id: str, token: str, kind: str, via: Session | None, lease: float, now: float
    ) -> None:
        self.id = id
        self.tega_id = tega_id
        self.token = token
        self.kind = kind
        self.via = via
        self.lease = lease
        self.opened = now
        self.heard = now
        """When it gave the last sign of life."""
        self.peer: bytes | None = None
        """Its connection; None while it has none, and for a sub-session."""
        self.ended = False
        self.subsessions: dict[str, Session] = {}
        self.forwarded_to: set[str] = set()
        """Agents below, by tega_id, and "" for the uplink, that hold a sub-session for this one."""
        self.passed_up = 0
        """The highest id of a write that was passed up the uplink."""
        self.lost_above = 0
        """Writes up to this id were passed up in a session that is gone there, with its outcomes."""
        self.doubt = 0.0
        """Until then (monotonic seconds) a write may come that was passed on before this node restarted.
        0: the session began in this run."""
        self.told: dict[int, dict[str, tuple[str, int]]] = {}
        """Up to where its subscriptions at the node above have been told, by number and root."""
        self.announced: dict[tuple[str, Any], Any] = {}
        """What is to be said again for this session when the uplink comes back, by (kind, key)."""
        self.unsaid: dict[tuple[str, Any], None] = {}
        """What of it was not said yet: the uplink is away."""
        self.retracted: dict[tuple[str, Any], Any] = {}
        """What was announced and is to be taken back at the node above: the request that does it."""
        self.asked_above: dict[int, tuple[str, Any]] = {}
        """What of these waits for an answer from above: request id to (kind, key)."""
        self.ephemerals_above: dict[Path, Any] = {}
        """Its ephemeral nodes at the node above: the write that makes each of them again."""
        self.lacking: dict[int, list[Path]] = {}
        """Those of them that are to be put again there, by the id of the write that is kept."""
        self.putting = False
        """Whether the first of these are being put."""
        self.subscriptions: dict[int, Any] = {}
        self.handlers: set[Path] = set()
        self.transactions: dict[str, Transaction] = {}
        self.expired: dict[str, bool] = {}
        """The last transactions that were idle for too long, and whether the session was told."""
        self.settled: dict[int, Reply | Failure] = {}
        """Answers to writes that made no commit here, by request id: see `settle`."""
        self.pending: dict[int, Any] = {}
        """Requests without an answer yet, by id: what the node waits for."""
        self.ack = 1
        self.last_lsn = 0
        """Of the newest record that this session caused."""
        self.calling: dict[int, dict[int, None]] = {}
        """Calls in flight that it made: request id to call numbers (several for a call to a pattern)."""
        self.away_until = 0.0
        """Until then (monotonic seconds) others of a group take its calls: its agent said that it is away."""
        self.serving: dict[int, None] = {}
        """Calls in flight that it is to answer, in the order in which they came."""
        self.congested = False
        self.backlog: deque[tuple[Message, int]] = deque()
        """Messages of channels that wait until it reads again, with their bytes."""
        self._waiting = 0
        """Bytes in `backlog`."""
        self.dropped = 0
        """Messages dropped since it was last told how many."""
        self.claims: set[str] = set()
        """Roots that it owns (agents)."""
        self.follows: dict[str, bool] = {}
        """Roots that it keeps replicas of; True: their updates come over its own connection."""
        self.positions: dict[str, tuple[str, int]] = {}
        """How far its replicas are, as it said last."""
        self.serving_trees: dict[str, Any] = {}
        self.reports: dict[str, Any] = {}

    @property
    def connected(self) -> bool:
        """Whether a message can be sent to it now."""
        return (self.via.peer if self.via is not None else self.peer) is not None

    def settle(self, answer: Reply | Failure) -> None:
        """Keep the answer to a write that made no commit here until the session says that it has it.

        A retry may come after the answer left: it must get this one, and not be carried out. Request 0 is not
        retried: it stands for each of those that an agent makes by itself (`passing.put_again`).
        """
        if answer.id == 0:
            return
        self.settled[answer.id] = answer
        if len(self.settled) > MAX_SETTLED:
            del self.settled[next(iter(self.settled))]

    def settled_answer(self, id: int) -> Reply | Failure | None:
        """Return the answer to request `id` if it is kept."""
        settled = self.settled
        while settled and (oldest := next(iter(settled))) < self.ack:
            del settled[oldest]
        return settled.get(id)

    def queue_message(self, message: Message) -> None:
        """Keep `message` until the session reads again; the oldest go when too many wait."""
        try:
            size = len(encode(message))
        except TegaError:
            self.dropped += 1
            return
        self.backlog.append((message, size))
        self._waiting += size
        while len(self.backlog) > MAX_MESSAGES or (self._waiting > MAX_WAITING and len(self.backlog) > 1):
            self._waiting -= self.backlog.popleft()[1]
            self.dropped += 1

    def take_message(self) -> Message:
        """Take the oldest of the messages that wait (there must be one)."""
        message, size = self.backlog.popleft()
        self._waiting -= size
        return message


class Sessions:
    """All sessions of a node, by id, connection and tega_id, and the times at which to look at them."""

    def __init__(self, limit: int, direct: int | None = None) -> None:
        """`limit`: most sessions; `direct`: most that are no sub-sessions, None: as many as `limit`."""
        self.limit = limit
        self.direct_limit = limit if direct is None else direct
        self.direct = 0
        """How many are no sub-sessions: each may have a connection of its own."""
        self.by_id: dict[str, Session] = {}
        self.by_peer: dict[bytes, Session] = {}
        self.by_tega_id: dict[str, Session] = {}
        self._due: list[tuple[float, str]] = []

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self.by_id.values()))

    def __len__(self) -> int:
        return len(self.by_id)

    def add(self, session: Session, due: float) -> None:
        """Take `session` in; `due`: when to look at its lease first. Raises `TooLarge` at the limit."""
        if len(self.by_id) >= self.limit:
            raise TooLarge(
                f"{self.limit} sessions are open, as many as limits.sessions allows",
                size=len(self.by_id),
                limit=self.limit,
            )
        if session.via is None and self.direct >= self.direct_limit:
            raise TooLarge(
                f"{self.direct_limit} sessions are open, as many as the limit of file descriptors allows",
                size=self.direct,
                limit=self.direct_limit,
            )
        self.by_id[session.id] = session
        if session.via is None:
            self.direct += 1
            if session.kind != DELEGATE:
                self.by_tega_id[session.tega_id] = session
            heapq.heappush(self._due, (due, session.id))
        else:
            session.via.subsessions[session.id] = session

    def remove(self, session: Session) -> None:
        """Forget `session` and its connection."""
        if self.by_id.pop(session.id, None) is not None and session.via is None:
            self.direct -= 1
        if session.peer is not None:
            self.by_peer.pop(session.peer, None)
            session.peer = None
        if session.via is not None:
            session.via.subsessions.pop(session.id, None)
        elif self.by_tega_id.get(session.tega_id) is session:
            del self.by_tega_id[session.tega_id]

    def bind(self, session: Session, peer: bytes) -> None:
        """`peer` is the connection of `session` from now on."""
        if session.peer is not None:
            self.by_peer.pop(session.peer, None)
        session.peer = peer
        self.by_peer[peer] = session

    def unbind(self, session: Session) -> None:
        """The connection of `session` is gone; its lease runs."""
        if session.peer is not None:
            self.by_peer.pop(session.peer, None)
            session.peer = None

    def resume(self, id: str, token: str) -> Session | None:
        """Return the live session `id`, or None if it is gone. Raises `Unauthorized`: wrong token."""
        session = self.by_id.get(id)
        if session is None or session.via is not None:
            return None
        import hmac  # here, since it loads megabytes of cryptography that an idle agent does without

        if not hmac.compare_digest(session.token.encode(), token.encode()):
            raise Unauthorized(f"the token is not that of session {id[:16]}", tega_id=session.tega_id)
        return session

    def due(self, now: float) -> Iterator[Session]:
        """Yield the sessions whose lease must be looked at; put each back with `look_again`."""
        while self._due and self._due[0][0] <= now:
            _, id = heapq.heappop(self._due)
            session = self.by_id.get(id)
            if session is not None:
                yield session

    def look_again(self, session: Session, due: float) -> None:
        """Look at the lease of `session` at `due`."""
        heapq.heappush(self._due, (due, session.id))

    def next_due(self) -> float:
        """When the next lease must be looked at; infinite if none."""
        return self._due[0][0] if self._due else float("inf")
