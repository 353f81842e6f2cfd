"""The uplink's sockets: a DEALER for the session, a SUB for the updates of the node above.

libzmq's own reconnecting is off: a DEALER that reconnects by itself would send on a connection on which
nobody said hello. The session decides when to dial again, with jitter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import zmq

from tega_zmq.wire.codec import MAX_FRAME

__all__ = ["Link"]

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

_QUEUE = 10_000
"""Messages that wait for a link that does not drain."""


class Link:
    """Dials the endpoints in turn, one connection at a time."""

    def __init__(self, context: zmq.Context[Any], poller: zmq.Poller, endpoints: Sequence[str]) -> None:
        self._context = context
        self._poller = poller
        self._endpoints = list(endpoints)
        self._next = 0
        self._dealer: zmq.Socket[Any] | None = None
        self._monitor: zmq.Socket[Any] | None = None
        self._updates: zmq.Socket[Any] | None = None
        self._updates_at = ""
        self._topics: frozenset[bytes] = frozenset()
        self._queue: list[bytes] = []
        self.endpoint = ""
        """That was dialled last."""

    def dial(self) -> None:
        """Drop what connection there is and dial the next endpoint."""
        self.close()
        self.endpoint = self._endpoints[self._next % len(self._endpoints)]
        self._next += 1
        dealer = self._context.socket(zmq.DEALER)
        dealer.linger = 200
        dealer.reconnect_ivl = -1
        dealer.sndhwm = dealer.rcvhwm = 2000
        dealer.maxmsgsize = MAX_FRAME
        dealer.heartbeat_ivl = 5000
        dealer.heartbeat_timeout = 15_000
        dealer.tcp_keepalive = 1
        dealer.tcp_keepalive_idle = 60
        dealer.tcp_keepalive_intvl = 30
        dealer.tcp_keepalive_cnt = 3
        dealer.connect_timeout = 5000
        dealer.ipv6 = True
        self._monitor = dealer.get_monitor_socket(_EVENTS)
        self._dealer = dealer
        self._poller.register(self._monitor, zmq.POLLIN)
        self._poller.register(dealer, zmq.POLLIN)
        dealer.connect(self.endpoint)

    def close(self) -> None:
        """Close every socket."""
        if self._dealer is not None:
            self._poller.unregister(self._dealer)
            self._poller.unregister(self._monitor)
            self._dealer.disable_monitor()
            self._dealer.close()
            self._dealer = self._monitor = None
        self._close_updates()
        self._queue.clear()

    def _close_updates(self) -> None:
        if self._updates is not None:
            self._poller.unregister(self._updates)
            self._updates.close(linger=0)
            self._updates = None
        self._topics = frozenset()

    def happened(self) -> Iterator[bool]:
        """Yield True for a connection that came up, False for one that is gone or failed."""
        while self._monitor is not None:
            try:
                frames = self._monitor.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            yield struct.unpack_from("=H", frames[0])[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def receive(self) -> Iterator[bytes]:
        """Yield the frames that the node above sent."""
        while self._dealer is not None:
            try:
                frames = self._dealer.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            yield frames[-1]

    def send(self, data: bytes) -> None:
        """Send one frame, in order; if the link does not drain for long, what is newest is lost."""
        if self._dealer is None:
            return
        if self._queue:
            if len(self._queue) < _QUEUE:
                self._queue.append(data)
            return
        try:
            self._dealer.send(data, zmq.DONTWAIT)
        except zmq.Again:
            self._queue.append(data)

    def flush(self) -> bool:
        """Send what waits; return whether anything is left."""
        while self._queue and self._dealer is not None:
            try:
                self._dealer.send(self._queue[0], zmq.DONTWAIT)
            except zmq.Again:
                return True
            self._queue.pop(0)
        return False

    def follow(self, endpoint: str, topics: frozenset[bytes]) -> None:
        """Subscribe to just `topics` at the publisher `endpoint`, or `:PORT` on the host that was dialled."""
        if endpoint.startswith(":"):
            host = self.endpoint.rsplit(":", 1)[0] if self.endpoint.startswith("tcp://") else ""
            if not host:
                return
            endpoint = host + endpoint
        if self._updates is None or endpoint != self._updates_at:
            self._close_updates()
            updates = self._context.socket(zmq.SUB)
            updates.linger = 0
            updates.sndhwm = 0
            updates.rcvhwm = 10_000
            updates.maxmsgsize = MAX_FRAME
            updates.reconnect_ivl = 500
            updates.reconnect_ivl_max = 10_000
            updates.heartbeat_ivl = 5000
            updates.heartbeat_timeout = 15_000
            updates.tcp_keepalive = 1
            updates.ipv6 = True
            updates.connect(endpoint)
            self._poller.register(updates, zmq.POLLIN)
            self._updates = updates
            self._updates_at = endpoint
        for topic in self._topics - topics:
            self._updates.unsubscribe(topic)
        for topic in topics - self._topics:
            self._updates.subscribe(topic)
        self._topics = topics

    def updates(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the published (topic, frame)s that have come."""
        while self._updates is not None:
            try:
                frames = self._updates.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            if len(frames) == 2:
                yield frames[0], frames[1]
