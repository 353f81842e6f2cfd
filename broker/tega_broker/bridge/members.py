"""The bridge's sessions at the broker: its own, and those in the name of who is behind a request.

A request without a tega_id is made in the bridge's own session. One with a tega_id is made in that one's
**live** session, if it has one here (`/_pubsub`), else in a **delegated** one, which is opened when it is
first needed and closed when it was idle for a while. A delegated session holds nothing that others see.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import zmq

from tega_broker.bridge.answers import TooMany
from tega_zmq import aio
from tega_zmq.client.requests import check_tega_id
from tega_zmq.errors import (
    Disconnected,
    Offline,
    OwnerAway,
    StorageError,
    TegaError,
    TooLarge,
    TransactionExpired,
)
from tega_zmq.paths import Path
from tega_zmq.transactions import IDLE

__all__ = ["Live", "Members", "Open", "Transactions"]

_IDLE = 60.0
"""Seconds after which a delegated session without a transaction is closed."""

_SWEEP = 5.0
"""Seconds between two looks for such sessions."""

_PATIENCE = 2.0
"""Seconds that a request waits for a session that is suspended to come back."""

_REOPEN = 0.5
"""Seconds before the bridge's own session is opened anew after another program took it over; doubled each
time, so that two programs of one name do not drive each other out without pause."""

_REOPEN_LONGEST = 60.0

_STEADY = 60.0
"""A session that stood for so many seconds is opened anew after `_REOPEN`."""

_OVER = ("taken over", "closed")
"""States that a session does not come back from."""

_STAYS_OPEN = (Offline, OwnerAway, StorageError)
"""After these a transaction may be committed again."""

Client = aio.Client


class Live(Protocol):
    """A tega_id's own session, which a WebSocket of it holds open here."""

    @property
    def client(self) -> Client:
        """The session at the broker."""

    async def offer(self, path: Path, name: str) -> None:
        """Register a handler at `path`: the tega_id put `%TEGA_ID.NAME` there as an ephemeral node."""

    async def withdraw(self, path: Path) -> bool:
        """Take the handler at `path` away; say whether there was one."""


class _Member:
    """One delegated session."""

    __slots__ = ("busy", "opening", "transactions", "used")

    def __init__(self, opening: asyncio.Task[Client], now: float) -> None:
        self.opening = opening
        self.used = now
        self.busy = 0
        self.transactions = 0


class _Use:
    """One use of a session, see `Members.use`. A class, since every request makes one."""

    __slots__ = ("_members", "member", "tega_id")

    def __init__(self, members: Members, tega_id: str) -> None:
        self._members = members
        self.tega_id = tega_id
        self.member: _Member | None = None

    async def __aenter__(self) -> Client:
        return await self._members._enter(self)

    async def __aexit__(self, *_: object) -> None:
        if self.member is not None:
            self._members._leave(self.member)


class Open(NamedTuple):
    """A transaction that was begun here."""

    transaction: Any
    client: Client
    """The session that it was begun in."""
    member: _Member | None
    """The delegated session that it belongs to, if it is one."""


class Members:
    """All sessions of a bridge at its broker. Belongs to the event loop that it was made in."""

    def __init__(
        self,
        url: str,
        tega_id: str,
        *,
        limit: int,
        seconds: float,
        logger: logging.Logger,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is the broker's, `tega_id` the bridge's own; at most `limit` delegated sessions.

        `seconds`: how long a request waits for an answer.
        """
        self._logger = logger
        self._url = url
        self._tega_id = tega_id
        self._limit = limit
        self._seconds = seconds
        self._now = now
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 65_535)
        self._own: Client | None = None
        self._starting: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._members: dict[str, _Member] = {}
        self._live: dict[str, list[Live]] = {}
        """The newest last: one that was taken over may be told so after the other was opened."""
        self._closing: set[asyncio.Task[None]] = set()
        self.trouble = "it did not answer yet"
        """Why the broker is not there, as far as that is known."""

    # -- start and stop ----------------------------------------------------------------------------

    def start(self) -> None:
        """Connect to the broker, now and for as long as it takes."""
        self._starting = asyncio.create_task(self._start(), name="bridge-connects")
        self._sweeping = asyncio.create_task(self._sweep(), name="bridge-sweeps")

    async def _start(self) -> None:
        pause = _REOPEN
        while True:
            try:
                client = await self.connect(self._tega_id, "bridge")
            except TegaError as error:
                self.trouble = f"{error.code}: {error.message}"
                await asyncio.sleep(0.5)
                continue
            before, self._own = self._own, client
            if before is not None:
                await before.close()
                self._logger.info("the bridge's own session is open again")
            began = self._now()
            await _taken_over(client)
            # A tunnel or another program may say hello under any name. Nobody may stop the bridge by that.
            pause = _REOPEN if self._now() - began >= _STEADY else pause
            self._logger.warning(
                "another program said hello as this bridge; its session is opened anew",
                extra={"fields": {"tega_id": self._tega_id, "again_in": pause}},
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _REOPEN_LONGEST)

    async def connect(self, tega_id: str, kind: str) -> Client:
        """Open a session of `tega_id` at the broker that the caller closes. Raises as `aio.connect`."""
        return await aio.connect(self._url, tega_id, timeout=self._seconds, kind=kind, context=self._context)

    async def close(self) -> None:
        """Close all sessions that this object opened."""
        for task in (self._starting, self._sweeping):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        members, self._members = list(self._members.values()), {}
        await asyncio.gather(*(self._close_member(member) for member in members), *self._closing)
        if self._own is not None:
            await self._own.close()
        self._context.destroy(linger=500)

    # -- sessions ----------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """How the bridge's own session stands; `connecting` before the broker answered."""
        return self._own.state if self._own is not None else "connecting"

    @property
    def tega_id(self) -> str:
        """The bridge's own."""
        return self._tega_id

    @property
    def server(self) -> str:
        """The tega_id of the broker; empty while it is not known."""
        return self._own.server if self._own is not None else ""

    @property
    def delegated(self) -> int:
        """How many delegated sessions there are."""
        return len(self._members)

    @property
    def url(self) -> str:
        """Where the broker is."""
        return self._url

    def attach(self, tega_id: str, live: Live) -> None:
        """Requests of `tega_id` use `live` from now on."""
        self._live.setdefault(tega_id, []).append(live)

    def detach(self, tega_id: str, live: Live) -> None:
        """`live` is over."""
        known = self._live.get(tega_id, [])
        if live in known:
            known.remove(live)
            if not known:
                del self._live[tega_id]

    def live(self, tega_id: str) -> Live | None:
        """Return the live session of `tega_id`, if it has one here."""
        for live in reversed(self._live.get(tega_id, ())):
            if live.client.state not in _OVER:
                return live
        return None

    def ready(self) -> Client | None:
        """Return the bridge's own session if it can be used without waiting."""
        client = self._own
        return client if client is not None and client.state == "connected" else None

    async def own(self) -> Client:
        """Return the bridge's own session. Raises `Disconnected` while the broker is away."""
        client = self._own
        if client is not None and client.state == "connected":
            return client
        return await self._when_connected(lambda: self._own)

    async def wait_for(self, client: Client) -> Client:
        """Return `client` when it is connected. Raises `Disconnected` if it is not so soon."""
        if client.state == "connected":
            return client
        return await self._when_connected(lambda: client)

    async def _when_connected(self, find: Callable[[], Client | None]) -> Client:
        until = self._now() + _PATIENCE
        while True:
            client = find()
            state = client.state if client is not None else "connecting"
            if client is not None and state == "connected":
                return client
            if (state in _OVER and client is not self._own) or self._now() >= until:
                raise Disconnected(f"the broker at {self._url} is away: {self._why(state)}", outcome="none")
            await asyncio.sleep(0.02)

    def _why(self, state: str) -> str:
        if state == "connecting":
            return self.trouble
        return f"the session is {state}"

    def use(self, tega_id: str) -> _Use:
        """Enter (`async with`) with the session for a request of `tega_id`; empty: the bridge's own.

        Raises `InvalidValue`, `TooMany`, `Disconnected`, and what opening a session may raise.
        """
        return _Use(self, tega_id)

    async def _enter(self, use: _Use) -> Client:
        tega_id = use.tega_id
        if not tega_id:
            return await self.own()
        live = self.live(tega_id)
        if live is not None:
            return await self.wait_for(live.client)
        use.member = member = self._member(check_tega_id(tega_id))
        member.busy += 1
        try:
            return await self._opened(member)
        except BaseException:
            self._leave(member)
            raise

    def _leave(self, member: _Member) -> None:
        member.busy -= 1
        member.used = self._now()

    def _member(self, tega_id: str) -> _Member:
        member = self._members.get(tega_id)
        if member is not None and not _failed(member):
            return member
        if member is None and len(self._members) >= self._limit:
            self._evict()
        opening = asyncio.create_task(self._open(tega_id), name=f"bridge-opens-{tega_id}")
        member = self._members[tega_id] = _Member(opening, self._now())
        return member

    async def _open(self, tega_id: str) -> Client:
        await self.own()
        return await self.connect(tega_id, "delegate")

    async def _opened(self, member: _Member) -> Client:
        if not member.opening.done():
            await asyncio.wait((member.opening,))
        return await self.wait_for(member.opening.result())

    def _evict(self) -> None:
        """Close the delegated session that was not used for longest. Raises `TooMany` if all are in use."""
        idle = [name for name, member in self._members.items() if not member.busy and not member.transactions]
        if not idle:
            raise TooMany(
                f"the bridge holds {self._limit} sessions for tega_ids, all in use; come again later",
                self._limit,
            )
        self._drop(min(idle, key=lambda name: self._members[name].used))

    def _drop(self, tega_id: str) -> None:
        task = asyncio.create_task(self._close_member(self._members.pop(tega_id)))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_member(self, member: _Member) -> None:
        if not member.opening.done():
            member.opening.cancel()
            await asyncio.wait((member.opening,))
        if not _failed(member):
            await member.opening.result().close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            before = self._now() - _IDLE
            for tega_id, member in list(self._members.items()):
                if not member.busy and not member.transactions and member.used < before:
                    self._drop(tega_id)


async def _taken_over(client: Client) -> None:
    """Wait until another program has taken the session of `client` over."""
    changed = asyncio.Event()
    client.on_state(lambda _: changed.set())
    while client.state != "taken over":
        await changed.wait()
        changed.clear()


def _failed(member: _Member) -> bool:
    opening = member.opening
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


class Transactions:
    """The transactions that were begun over HTTP: a txid finds its session, whoever names it."""

    def __init__(self, members: Members, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self._members = members
        self._limit = limit
        self._now = now
        self._open: dict[str, tuple[Open, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def begin(self, tega_id: str, message: str) -> str:
        """Begin a transaction of `tega_id` and return its txid. Raises `TooMany` and what `use` may."""
        self._forget_old()
        if len(self._open) >= self._limit:
            raise TooMany(
                f"{self._limit} transactions are open at this bridge; commit or cancel one first", self._limit
            )
        async with self._members.use(tega_id) as client:
            try:
                transaction = await client.begin(message)
            except TooLarge as error:
                raise TooMany(error.message, error.limit) from None
            member = self._members._members.get(tega_id)
            if member is not None and self._members.live(tega_id) is None:
                member.transactions += 1
            else:
                member = None
        self._open[transaction.txid] = (Open(transaction, client, member), self._now())
        return transaction.txid

    def find(self, txid: str) -> Open:
        """Return the open transaction `txid`. Raises `TransactionExpired`, also when its session is over."""
        found = self._open.get(txid)
        if found is not None and found[0].client.state in _OVER:
            self._forget(txid)
            found = None
        if found is None:
            raise TransactionExpired(
                f"there is no open transaction {txid[:64]}: it ended, was idle for too long, or never was",
                txid=txid[:64],
            )
        self._open[txid] = (found[0], self._now())
        return found[0]

    async def run(
        self, txid: str, what: Callable[[Any], Awaitable[Any]], message: str = "", *, ends: bool = False
    ) -> Any:
        """Return `await what(transaction)`. Raises `TransactionExpired`, also when the broker says so.

        `message` is that of the commit, if neither the begin, nor a call before, nor the commit has another.
        `ends`: the transaction is over then, unless the broker could not be asked. Raises `Disconnected` if
        the broker is away.
        """
        transaction, client, member = self.find(txid)
        if member is not None:
            member.busy += 1
        try:
            try:
                await self._members.wait_for(client)
            except Disconnected:
                self.find(txid)  # raises if its session ended meanwhile
                raise
            answer = await self._run(txid, what(transaction), ends)
            transaction._message = transaction._message or message
            return answer
        finally:
            if member is not None:
                self._members._leave(member)

    async def _run(self, txid: str, asked: Awaitable[Any], ends: bool) -> Any:
        try:
            answer = await asked
        except TransactionExpired:
            self._forget(txid)
            raise
        except TegaError as error:
            if ends and not isinstance(error, _STAYS_OPEN):
                self._forget(txid)
            raise
        if ends:
            self._forget(txid)
        return answer

    def _forget(self, txid: str) -> None:
        found = self._open.pop(txid, None)
        if found is not None and found[0].member is not None:
            found[0].member.transactions -= 1

    def _forget_old(self) -> None:
        before = self._now() - IDLE
        for txid, (_, used) in list(self._open.items()):
            if used < before:
                self._forget(txid)
