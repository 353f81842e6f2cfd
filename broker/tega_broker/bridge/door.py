"""Where connections come in: each is counted, or refused, before anything else is done for it.

asyncio's own server knows a connection only after its TLS handshake, and one that finds no descriptor logs
that for each connection that waits. So this takes them from the listening sockets itself.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tega_broker.bridge import answers

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge, Connection

__all__ = ["Door", "room", "scarce"]

_BACKLOG: Final = 1024
"""Connections that may wait in the system."""

_AT_ONCE: Final = 128
"""Connections that are taken before others get their turn."""

_PAUSE: Final = 0.5
"""Seconds without taking any after the system had nothing to take one with."""

_SAID: Final = 60.0
"""Seconds in which the log says only once that this happened."""

_CLOSING: Final = 5.0
"""Seconds for a peer to answer the end of TLS."""

_SPARE: Final = 512
"""Descriptors that connections and tunnels cannot take: they are for the sessions at the broker and what the
bridge has anyway. Of a limit that is low a quarter."""

_OWN: Final = 24
"""Descriptors that a bridge has without any connection."""

_OF_TUNNEL: Final = 5
"""Descriptors of a tunnel, its connection among them."""


def _most(*, tunnels: bool) -> int:
    """The number from which on a descriptor is for the bridge itself, or, for tunnels, for requests."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    most = soft - min(_SPARE, soft // 4)
    return most - min(_SPARE, most // 4) if tunnels else most


def room() -> tuple[int, int]:
    """Return how many connections the limit of descriptors suffices for, and how many tunnels instead."""
    connections = max(1, _most(tunnels=False) - _OWN)
    return connections, max(1, (_most(tunnels=True) - _OWN) // _OF_TUNNEL)


def scarce(connections: int, tunnels: int, descriptor: int = 0, *, for_tunnel: bool = False) -> bool:
    """Whether so many descriptors are open that no more may go into connections, or into tunnels.

    `connections` are those that are open, of which `tunnels` carry one. `descriptor` was opened last: the
    system gives the lowest that is free, so at least as many are open.
    """
    used = _OWN + connections + (_OF_TUNNEL - 1) * tunnels
    return max(used, descriptor) >= _most(tunnels=for_tunnel)


class Door:
    """Takes the connections of a bridge. Belongs to the event loop that it was opened in."""

    def __init__(self, bridge: Bridge, secure: ssl.SSLContext | None) -> None:
        self._bridge = bridge
        self._secure = secure
        self._listening: list[socket.socket] = []
        self._coming: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._said = float("-inf")
        self._unsaid = 0

    async def open(self, host: str | None, port: int) -> int:
        """Listen at `host` and `port` and return the port. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        bound = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
        try:
            for each in bound.sockets:
                self._listening.append(each.dup())
                self._listening[-1].listen(_BACKLOG)
        except OSError:
            self.close()
            raise
        finally:
            bound.close()
        self._attend()
        return int(self._listening[0].getsockname()[1])

    def pause(self) -> None:
        """Take no more: they wait in the system, which refuses them after `close`."""
        loop = asyncio.get_running_loop()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        for each in self._listening:
            loop.remove_reader(each)

    def close(self) -> None:
        """Listen no more, and give up the handshakes that have not ended."""
        self.pause()
        for each in self._listening:
            each.close()
        self._listening.clear()
        for task in self._coming:
            task.cancel()

    def _attend(self) -> None:
        self._again = None
        loop = asyncio.get_running_loop()
        for each in self._listening:
            loop.add_reader(each, self._take, each)

    def _take(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                peer, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # no descriptor, or no memory; what waits would come here at once again
                self.pause()
                self._again = asyncio.get_running_loop().call_later(_PAUSE, self._attend)
                self._say(error)
                return
            peer.setblocking(False)
            host = str(address[0])
            few = scarce(self._bridge.connections, self._bridge.tunnels, peer.fileno())
            why = self._bridge.connected(host, scarce=few)
            if why:
                self._bridge.metrics.count("connections_refused")
                _refuse(peer, why, plain=self._secure is None)
                continue
            task = asyncio.get_running_loop().create_task(self._let_in(peer, self._bridge.connection(host)))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    def _say(self, error: OSError) -> None:
        now = asyncio.get_running_loop().time()
        self._unsaid += 1
        if now - self._said < _SAID:
            return
        self._bridge.logger.error(
            "no connection can be taken for a moment",
            extra={"fields": {"error": error.strerror or str(error), "times": self._unsaid}},
        )
        self._said, self._unsaid = now, 0

    async def _let_in(self, peer: socket.socket, connection: Connection) -> None:
        secure = self._secure
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                peer,
                ssl=secure,
                ssl_handshake_timeout=self._bridge.limits.idle if secure else None,
                ssl_shutdown_timeout=_CLOSING if secure else None,
            )
        except OSError:  # what came is no TLS, or nothing came: the peer's affair
            connection.leave()
        except BaseException:
            connection.leave()
            raise


def _refuse(peer: socket.socket, why: str, *, plain: bool) -> None:
    """Tell why, as far as that costs nothing: over TLS it would take a handshake."""
    with suppress(OSError):
        if plain:
            body = answers.dump({"error": "TooLarge", "message": why})
            head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(body)}\r\n".encode()
            head += b"Content-Type: application/json\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"
            peer.send(head + body)
            peer.shutdown(socket.SHUT_WR)
            peer.recv(65536)  # the system resets what is closed with something unread, and the answer with it
    peer.close()
