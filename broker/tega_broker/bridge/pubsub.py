"""`/_pubsub`: a whole session of a tega_id, in the text protocol of the first tega over a WebSocket."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSMsgType, web

from tega_broker.bridge import textprotocol as text
from tega_broker.bridge.outbox import Outbox
from tega_broker.bridge.tunnel import Pace, Pinger, close, upgraded
from tega_zmq.client.aiodriver import Raw
from tega_zmq.client.results import Change, MessageView
from tega_zmq.errors import InvalidPath, InvalidValue, NotFound, TegaError
from tega_zmq.paths import Path, format_path
from tega_zmq.wire.messages import Invoke

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge
    from tega_zmq.aio import Client, Subscription

__all__ = ["routes"]

_ROUTE: Final = "/_pubsub"

_HELLO: Final = 10.0
"""Seconds for a client to say SESSION."""

_MAX_CALLS: Final = 10_000
"""Most calls that wait for one client's answer."""


def routes(bridge: Bridge) -> list[web.RouteDef]:
    """Return the route of the text protocol."""
    sessions = _Sessions(bridge)
    bridge.on_stop.append(sessions.stop)
    bridge.gauges["pubsub_sessions"] = ("Sessions of /_pubsub.", lambda: len(sessions.open))
    return [web.get(_ROUTE, sessions.handle, allow_head=False)]


class RemoteError(Exception):
    """A handler behind the WebSocket failed."""


class Busy(Exception):
    """Too many calls wait for a handler behind the WebSocket; other clients of the broker say the same."""


class _Sessions:
    """All WebSockets of the text protocol."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.open: set[_Session] = set()
        self._stirred: list[_Session] = []

    def told_soon(self, session: _Session) -> None:
        """Let `session` tell what it heard when all that has come by now was taken in."""
        if not self._stirred:
            asyncio.get_running_loop().call_soon(self._tell)
        self._stirred.append(session)

    def _tell(self) -> None:
        stirred, self._stirred = self._stirred, []
        made: dict[tuple[Any, ...], bytes] = {}
        for session in stirred:
            session.tell(made)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one WebSocket until it ends."""
        bridge = self._bridge
        socket = await upgraded(bridge, request, bridge.limits.body)
        session = _Session(self, bridge, socket, request)
        self.open.add(session)
        try:
            await session.serve()
        finally:
            self.open.discard(session)
        return socket

    async def stop(self, reason: str) -> None:
        """End all of them with `reason`."""
        await asyncio.gather(*(close(each.socket, 1001, reason) for each in self.open))


class _Session:
    """One WebSocket; from SESSION on also `Live`, the tega_id's own session."""

    client: Client

    def __init__(
        self, sessions: _Sessions, bridge: Bridge, socket: web.WebSocketResponse, request: web.BaseRequest
    ) -> None:
        self.socket = socket
        self._sessions = sessions
        self._bridge = bridge
        self._request = request
        self._tega_id = ""
        self._outbox = Outbox(self._write, bridge.limits.queue, self._give_up)
        self._subscriptions: dict[tuple[str, bool], list[Subscription]] = {}
        self._offered: set[Path] = set()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._last_call = 0
        self._told: list[_Commit] = []
        """What is told at the end of this turn of the loop."""
        self._ending: asyncio.Task[None] | None = None

    async def _write(self, frame: bytes) -> None:
        await self.socket.send_frame(frame, WSMsgType.TEXT)

    def _give_up(self, reason: str) -> None:
        self._bridge.metrics.count("slow_subscribers")
        self._end(1008, reason, abort=True)

    def _end(self, code: int, reason: str, *, abort: bool = False) -> None:
        """Close the WebSocket; `abort`: and do not wait for a peer that does not read."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._close(code, reason, abort))

    async def _close(self, code: int, reason: str, abort: bool) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0 if abort else None):
                await close(self.socket, code, reason)
        if abort and self._request.transport is not None:
            self._request.transport.abort()

    # -- the WebSocket ---------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve until one side is gone."""
        loop = asyncio.get_running_loop()
        pinger = Pinger(self.socket, self._request, self._bridge.config.ping)
        silent = loop.call_later(_HELLO, self._end, 1008, f"no SESSION within {_HELLO:g} seconds")
        pace = Pace(self._bridge.limits.frames, loop.time())
        try:
            while True:
                message = await self.socket.receive()
                pinger.heard = now = loop.time()
                kind = message.type
                if kind is WSMsgType.TEXT or kind is WSMsgType.BINARY:
                    if (wait := pace.take(now)) > 0:
                        await asyncio.sleep(wait)
                    if not await self._hear(message.data):
                        break
                    if self._tega_id:
                        silent.cancel()
                elif kind is WSMsgType.PING:
                    with suppress(ConnectionError, RuntimeError):
                        await self.socket.pong(message.data)
                elif kind is not WSMsgType.PONG:
                    break
        finally:
            silent.cancel()
            pinger.stop()
            await self._leave()

    async def _leave(self) -> None:
        for call in self._calls.values():
            call.cancel()
        await self._outbox.close()
        if self._tega_id:
            self._bridge.members.detach(self._tega_id, self)
            await self.client.close()
        if self._ending is not None:
            with suppress(asyncio.CancelledError):
                await self._ending

    async def _hear(self, data: str | bytes) -> bool:
        """Act on one message; return whether the WebSocket goes on."""
        try:
            heard = text.parse(data if isinstance(data, str) else data.decode())
        except (text.TextError, UnicodeDecodeError) as error:
            await close(self.socket, 1007, str(error))
            return False
        if isinstance(heard, text.Session):
            return await self._open(heard)
        if not self._tega_id:
            await close(self.socket, 1008, "SESSION tega_id scope comes first")
            return False
        try:
            await self._do(heard)
        except TegaError as error:
            self._outbox.put(text.error(type(heard).__name__.upper(), error.code, error.message))
        return True

    async def _open(self, heard: text.Session) -> bool:
        if self._tega_id:
            await close(self.socket, 1008, f"the session of {self._tega_id} is open already")
            return False
        members = self._bridge.members
        try:
            await members.own()  # so that it is told soon when the broker is away
            # By these names all who use the bridge would be cut off.
            if heard.tega_id in (members.tega_id, members.server):
                whose = "bridge" if heard.tega_id == members.tega_id else "broker"
                await close(self.socket, 1008, f"{heard.tega_id} is the {whose}'s own name; take another")
                return False
            self.client = await members.connect(heard.tega_id, "client")
        except TegaError as error:
            await close(self.socket, 1013, f"{error.code}: {error.message}")
            return False
        self._tega_id = heard.tega_id
        self.client._driver.prompt = True
        self.client.on_state(self._on_state)
        if self.client.state == "taken over":  # before anybody could be told
            self._on_state(self.client.state)
            return True
        members.attach(heard.tega_id, self)
        self._outbox.put(text.acknowledge(self.client.server))
        return True

    def _on_state(self, state: str) -> None:
        if state == "taken over":
            self._end(1008, f"TakenOver: another session of {self._tega_id} was opened")

    async def _do(self, heard: text.Heard) -> None:
        match heard:
            case text.Subscribe():
                await self._subscribe(heard)
            case text.Unsubscribe(path, regex):
                wanted = [(path, regex)] if path else list(self._subscriptions)
                for key in wanted:
                    for subscription in self._subscriptions.pop(key, ()):
                        with suppress(NotFound):
                            await subscription.cancel()
            case text.Publish(channel, message):
                if not text.fits(channel):
                    raise InvalidValue("the name of a channel has no spaces and control characters here")
                await self.client.publish(channel, message)
            case text.Response(number, result, error):
                call = self._calls.pop(number, None)
                if call is not None and not call.done():
                    if error:
                        call.set_exception(RemoteError(error))
                    else:
                        call.set_result(result)

    # -- changes and messages ----------------------------------------------------------------------------

    async def _subscribe(self, heard: text.Subscribe) -> None:
        """To the changes at the path and to the channel of that name; one of them may be no such thing."""
        key = (heard.path, heard.regex)
        if key in self._subscriptions:
            return
        made: list[Subscription] = []
        refused: TegaError | None = None
        client, regex, scope = self.client, heard.regex, heard.scope
        try:
            made.append(await client.subscribe(heard.path, self._on_change, scope, regex=regex, named=True))
        except (InvalidPath, InvalidValue) as error:
            refused = error
        try:
            made.append(await client.listen(heard.path, self._on_message, scope, regex=regex))
        except (InvalidPath, InvalidValue) as error:
            refused = refused or error
        if not made and refused is not None:
            raise refused
        self._subscriptions[key] = made

    def _on_change(self, change: Change) -> None:
        if change.tega_id == self._tega_id:
            return
        told = self._told
        if not told:
            self._sessions.told_soon(self)
        for commit in told:
            if commit.add(change):
                return
        told.append(_Commit(change))

    def tell(self, made: dict[tuple[Any, ...], bytes]) -> None:
        """Send what is to be told; `made` holds what was written for others: many hear the same."""
        told, self._told = self._told, []
        for commit in told:
            key = commit.identity()
            frame = made.get(key)
            if frame is None:
                frame = made[key] = text.notify([text.entry(change) for change in commit.by_path.values()])
            self._outbox.put(frame)

    def _on_message(self, message: MessageView) -> None:
        if not text.fits(message.channel):
            self._bridge.metrics.count("messages_unsaid")
        elif message.tega_id != self._tega_id:
            self._outbox.put(text.message(message.channel, message.tega_id, message.value))

    # -- handlers ----------------------------------------------------------------------------------------

    async def offer(self, path: Path, name: str) -> None:  # noqa: ARG002  # see `Live`
        """See `Live`. A call names the path, as the drivers of the first tega expect it."""
        where = format_path(path)
        if not text.fits(where, last=True):
            raise InvalidPath("the path of a handler has no control characters here", path=where)

        async def invoked(call: Invoke) -> Any:
            return await self._ask(where, call)

        await self.client.register(path, Raw(invoked))
        self._offered.add(path)

    async def withdraw(self, path: Path) -> bool:
        """See `Live`."""
        if path not in self._offered:
            return False
        self._offered.discard(path)
        with suppress(NotFound):
            await self.client.unregister(path)
        return True

    async def _ask(self, path: str, call: Invoke) -> Any:
        if len(self._calls) >= _MAX_CALLS:
            raise Busy(f"{_MAX_CALLS} calls wait for {self._tega_id} already")
        self._last_call += 1
        number = self._last_call
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self._outbox.put(text.request(number, call.tega_id, path, tuple(call.args), call.kwargs))
            return await answer
        finally:
            self._calls.pop(number, None)


class _Commit:
    """What one commit changed, as far as a session hears of it: all its roots, each path once."""

    __slots__ = ("_key", "_versions", "by_path")

    def __init__(self, change: Change) -> None:
        self._key = (change.tega_id, change.time, change.message)
        self._versions = {change.root: change.version}
        self.by_path = {change.path: change}

    def add(self, change: Change) -> bool:
        """Add `change` if it is of this commit; return whether it is."""
        if (change.tega_id, change.time, change.message) != self._key:
            return False
        if self._versions.setdefault(change.root, change.version) != change.version:
            return False
        self.by_path.setdefault(change.path, change)
        return True

    def identity(self) -> tuple[Any, ...]:
        """Return what is the same for all who hear the same of the same commit."""
        return tuple((each.path, each.epoch, each.version, each.reset) for each in self.by_path.values())
