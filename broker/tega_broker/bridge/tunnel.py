"""`/_tunnel`: carries a session's frames between a WebSocket and the broker, unchanged, both ways.

Each tunnel has a DEALER of its own at the broker, which never connects again: when one side is lost, so is
the other, at once. What comes up is read by a task of its own; what comes down is sent where it is received,
and where that would have to wait, a task waits. So a slow or dead tunnel delays no other; and nothing is
queued here but what the sockets hold: who does not read is not read for, until the broker, which bounds its
queue for every session, or `limits.slow` gives it up.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import zmq
from aiohttp import WSMsgType, web

from tega_broker.bridge.answers import Refusal
from tega_broker.bridge.door import scarce
from tega_broker.bridge.outbox import Rest
from tega_zmq.client.link import Link, readable, receive, send
from tega_zmq.tunnel.urls import ROUTE
from tega_zmq.wire.codec import MAX_FRAME

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge

__all__ = ["Pace", "Pinger", "routes", "upgraded"]

_QUEUE: Final = 16
"""Frames that wait in the DEALER, each way: at most 64 KiB each, but for single large values."""

_BURST: Final = 64
"""Frames that are sent before others get their turn."""

_LINGER: Final = 1000
"""Milliseconds that what came up the tunnel may still take to the broker after the tunnel was closed."""

_SILENT: Final = 3
"""Pings without a sign of life, then a connection is given up."""

_CLOSING: Final = 2.0
"""Seconds for a peer to answer a close."""

_LONGEST_REASON: Final = 120
"""Bytes of the reason in a close; a control frame holds 125."""


def routes(bridge: Bridge) -> list[web.RouteDef]:
    """Return the route of the tunnel."""
    tunnels = _Tunnels(bridge)
    bridge.on_stop.append(tunnels.stop)
    bridge.gauges["tunnels"] = ("Tunnels that stand.", lambda: len(tunnels.open))
    bridge.totals["tunnel_frames_up"] = (
        "Frames that tunnels brought.",
        lambda: tunnels.up + sum(each.up for each in tunnels.open),
    )
    bridge.totals["tunnel_frames_down"] = (
        "Frames that tunnels took away.",
        lambda: tunnels.down + sum(each.down for each in tunnels.open),
    )
    return [web.get(ROUTE, tunnels.handle, allow_head=False)]


async def upgraded(bridge: Bridge, request: web.BaseRequest, largest: int) -> web.WebSocketResponse:
    """Answer a request for a WebSocket whose messages have at most `largest` bytes; return that.

    Raises `Refusal` if the request is for something else.
    """
    socket = web.WebSocketResponse(timeout=_CLOSING, autoping=False, compress=False, max_msg_size=largest)
    try:
        fits = socket.can_prepare(request).ok
    except web.HTTPException:
        fits = False
    if not fits:
        raise Refusal(
            426, "InvalidValue", "a WebSocket is served here (RFC 6455)", headers={"Upgrade": "websocket"}
        )
    bridge.lasting(request, socket)
    try:
        await socket.prepare(request)
    except web.HTTPException as error:
        raise Refusal(error.status, "InvalidValue", error.text or error.reason) from None
    return socket


class Pace:
    """Slows down who sends more than `rate` messages a second; as many may come at once after a pause."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._left = rate
        self._at = now

    def take(self, now: float) -> float:
        """Count one message; return for how many seconds no other should be read."""
        self._left = min(self._rate, self._left + (now - self._at) * self._rate) - 1.0
        self._at = now
        return 0.0 if self._left >= 0 else -self._left / self._rate


class Pinger:
    """Pings a WebSocket every `interval` seconds, and gives it up when nothing came for three of them."""

    def __init__(self, socket: web.WebSocketResponse, request: web.BaseRequest, interval: float) -> None:
        self._socket = socket
        self._request = request
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()
        """When something came last; to be set by who reads."""
        self._task: asyncio.Task[None] | None = None
        # Those that came together are not to be pinged together for ever.
        self._timer = self._loop.call_later(interval * random.uniform(0.5, 1.0), self._due)  # noqa: S311

    def _due(self) -> None:
        if self._loop.time() - self.heard > _SILENT * self._interval:
            if self._request.transport is not None:
                self._request.transport.abort()
            return
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._ping())
        self._timer = self._loop.call_later(self._interval, self._due)

    async def _ping(self) -> None:
        with suppress(ConnectionError, RuntimeError):
            await self._socket.ping()

    def stop(self) -> None:
        """Ping no more."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


async def close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    """Close a WebSocket in order, with a reason."""
    with suppress(ConnectionError, RuntimeError):
        await socket.close(code=code, message=reason.encode()[:_LONGEST_REASON])


class _Tunnels:
    """All tunnels of a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 65_535)
        self.open: set[_Tunnel] = set()
        self.up = 0
        """Frames of those that ended; so `down`."""
        self.down = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one tunnel until it ends."""
        bridge = self._bridge
        if scarce(bridge.connections, bridge.tunnels, for_tunnel=True):
            raise Refusal(
                503,
                "TooLarge",
                f"{bridge.tunnels} tunnels stand, as many as there are file descriptors for",
                headers={"Retry-After": "1"},
                close=True,
            )
        bridge.tunnels += 1
        try:
            return await self._carry(request, await upgraded(bridge, request, MAX_FRAME))
        finally:
            bridge.tunnels -= 1

    async def _carry(self, request: web.BaseRequest, socket: web.WebSocketResponse) -> web.StreamResponse:
        bridge = self._bridge
        link = Link(bridge.config.broker, self._context, queue=_QUEUE)
        tunnel = _Tunnel(socket, link, Pace(bridge.limits.frames, asyncio.get_running_loop().time()))
        self.open.add(tunnel)
        pinger = Pinger(socket, request, bridge.config.ping)
        try:
            await tunnel.serve(pinger)
        finally:
            pinger.stop()
            self.open.discard(tunnel)
            self.up += tunnel.up
            self.down += tunnel.down
        return socket

    async def stop(self, reason: str) -> None:
        """End all tunnels with `reason`."""
        await asyncio.gather(*(close(each.socket, 1001, reason) for each in self.open))
        self._context.destroy(linger=_LINGER)


class _Tunnel:
    """One tunnel."""

    def __init__(self, socket: web.WebSocketResponse, link: Link, pace: Pace) -> None:
        self.socket = socket
        self.up = 0
        """Frames that came from the WebSocket."""
        self.down = 0
        """Frames that went into it."""
        self._link = link
        self._pace = pace
        self._waiting: asyncio.Task[None] | None = None
        """Waits until the peer reads; nothing more is received from the broker meanwhile."""
        self._goes_on = False
        """More is received in the loop's next turn."""
        self._deaf = True
        """Nothing can be sent to the peer: not yet, or no more."""
        self._room = asyncio.Event()
        """Something may be sent to it."""
        self._closing: asyncio.Task[None] | None = None

    async def serve(self, pinger: Pinger) -> None:
        """Carry frames until one side is lost."""
        loop = asyncio.get_running_loop()
        link = self._link
        try:
            link.dial()
        except zmq.ZMQError as error:
            await close(self.socket, 1013, f"the bridge cannot connect to the broker: {error.strerror}")
            return
        loop.add_reader(link.fd, self._stir)
        loop.add_reader(link.monitor_fd, self._look)
        loop.call_soon(self._look)
        self._deaf = False
        try:
            await self._upwards(pinger)
        finally:
            loop.remove_reader(link.fd)
            loop.remove_reader(link.monitor_fd)
            self._deaf = True
            if self._waiting is not None:
                self._waiting.cancel()
                with suppress(asyncio.CancelledError):
                    await self._waiting
            link.hang_up(_LINGER)
            if self._closing is not None:
                with suppress(asyncio.CancelledError):
                    await self._closing

    def _stir(self) -> None:
        self._room.set()
        self._downwards()

    def _look(self) -> None:
        """The monitor has something to tell."""
        if self._link.state() == "down" and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(
                close(self.socket, 1013, "the broker is away, or ended this connection")
            )
        self._stir()

    async def _upwards(self, pinger: Pinger) -> None:
        socket, dealer = self.socket, self._link.socket
        assert isinstance(dealer, zmq.Socket)
        loop = asyncio.get_running_loop()
        while True:
            message = await socket.receive()
            pinger.heard = now = loop.time()
            kind = message.type
            if kind is WSMsgType.BINARY:
                self.up += 1
                await self._send(dealer, message.data)
                if (wait := self._pace.take(now)) > 0:
                    await asyncio.sleep(wait)
            elif kind is WSMsgType.PING:
                with suppress(ConnectionError, RuntimeError):
                    await socket.pong(message.data)
            elif kind is WSMsgType.TEXT:
                await close(socket, 1003, "a tunnel carries binary messages only")
                return
            elif kind is not WSMsgType.PONG:
                return

    async def _send(self, dealer: zmq.Socket[bytes], frame: bytes) -> None:
        while True:
            try:
                send(dealer, frame)
                break
            except zmq.Again:
                # The broker does not read. Its descriptor tells, unless that was taken with another event.
                self._room.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self._room.wait()
        if readable(dealer):  # sending may have taken the edge of the descriptor
            self._downwards()

    def _downwards(self) -> None:
        """Send what has come from the broker, as far as the peer reads."""
        socket, dealer = self.socket, self._link.socket
        if self._deaf or self._goes_on or self._waiting is not None or not isinstance(dealer, zmq.Socket):
            return
        for _ in range(_BURST):
            frame = receive(dealer) if readable(dealer) else None
            if frame is None:
                return
            self.down += 1
            # Mostly there is room, and the frame is gone at once: no task is needed.
            sending = socket.send_bytes(frame)
            try:
                waits = sending.send(None)
            except StopIteration:
                continue
            except (ConnectionError, RuntimeError):  # it is over; who reads from it sees that too
                self._deaf = True
                return
            self._waiting = asyncio.get_running_loop().create_task(self._wait(Rest(sending, waits)))
            return
        self._goes_on = True
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        self._downwards()

    async def _wait(self, rest: Rest) -> None:
        try:
            await rest
        except (ConnectionError, RuntimeError):  # as above
            self._deaf = True
        finally:
            self._waiting = None
        self._downwards()
