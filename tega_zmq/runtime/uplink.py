"""The uplink's sockets: the session's link, tried at several endpoints in turn, and a SUB for the updates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import zmq

from tega_zmq.client.link import Link
from tega_zmq.wire.codec import MAX_FRAME

__all__ = ["Uplink"]

_QUEUE = 10_000
"""Messages that wait for a link that does not drain."""


class Uplink:
    """The connection of an agent to the node above, one at a time."""

    def __init__(self, context: zmq.Context[Any], poller: zmq.Poller, endpoints: Sequence[str]) -> None:
        self._context = context
        self._poller = poller
        self._links = [Link(endpoint, context) for endpoint in endpoints]
        self._next = 0
        self._link: Link | None = None
        self._polled: list[Any] = []
        self._updates: zmq.Socket[Any] | None = None
        self._updates_at = ""
        self._topics: frozenset[bytes] = frozenset()
        self._queue: deque[bytes] = deque()

    @property
    def endpoint(self) -> str:
        """Where it was dialled last."""
        return self._links[(self._next - 1) % len(self._links)].url

    def dial(self) -> bool:
        """Drop what connection there is and dial the next endpoint. Returns whether that could be tried."""
        self.close()
        link = self._links[self._next % len(self._links)]
        self._next += 1
        try:
            link.dial()
        except zmq.ZMQError:
            return False
        self._link = link
        self._polled = [link.socket, link.monitor_fd]
        for source in self._polled:
            self._poller.register(source, zmq.POLLIN)
        return True

    def close(self, linger: int = 0) -> None:
        """Close every socket; what was sent is tried for `linger` more milliseconds."""
        for source in self._polled:
            self._poller.unregister(source)
        self._polled = []
        if self._link is not None:
            self._link.hang_up(linger)
            self._link = None
        self._close_updates()
        self._queue.clear()

    def _close_updates(self) -> None:
        if self._updates is not None:
            self._poller.unregister(self._updates)
            self._updates.close(linger=0)
            self._updates = None
        self._topics = frozenset()

    def happened(self) -> str:
        """Return `up` if a connection came up since the last time, `down` if it is gone or failed, or ""."""
        state = self._link.state() if self._link is not None else "dialling"
        return "" if state == "dialling" else state

    def receive(self) -> Iterator[bytes]:
        """Yield the frames that the node above sent."""
        while self._link is not None and self._link.socket is not None:
            try:
                frames = self._link.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            yield frames[-1]

    def send(self, data: bytes) -> None:
        """Send one frame, in order. If the link does not drain for very long, the newest are lost."""
        if self._link is None or self._link.socket is None:
            return
        if not self._queue:
            try:
                self._link.socket.send(data, zmq.DONTWAIT)
                return
            except zmq.Again:
                pass
        if len(self._queue) < _QUEUE:
            self._queue.append(data)

    def flush(self) -> bool:
        """Send what waits; return whether anything is left."""
        while self._queue and self._link is not None and self._link.socket is not None:
            try:
                self._link.socket.send(self._queue[0], zmq.DONTWAIT)
            except zmq.Again:
                return True
            self._queue.popleft()
        return False

    def follow(self, endpoint: str, topics: frozenset[bytes]) -> None:
        """Subscribe to just `topics` at the publisher `endpoint`, or `:PORT` on the host that was dialled."""
        if endpoint.startswith(":") and self.endpoint.startswith("tcp://"):
            endpoint = self.endpoint.rsplit(":", 1)[0] + endpoint
        if not endpoint.startswith("tcp://"):
            return  # the node above publishes nowhere: heartbeats and pulls keep the replicas in step
        if not topics:
            self._close_updates()
            return
        if self._updates is None or endpoint != self._updates_at:
            self._close_updates()
            self._updates = self._dial_updates(endpoint)
            self._updates_at = endpoint
        for topic in self._topics - topics:
            self._updates.unsubscribe(topic)
        for topic in topics - self._topics:
            self._updates.subscribe(topic)
        self._topics = topics

    def _dial_updates(self, endpoint: str) -> zmq.Socket[Any]:
        updates: zmq.Socket[Any] = self._context.socket(zmq.SUB)
        updates.linger = 0
        updates.sndhwm = 0
        updates.rcvhwm = 10_000
        updates.maxmsgsize = MAX_FRAME
        updates.reconnect_ivl = 500
        updates.reconnect_ivl_max = 10_000
        updates.heartbeat_ivl = 5_000
        updates.heartbeat_timeout = 15_000
        updates.tcp_keepalive = 1
        updates.ipv6 = "[" in endpoint
        updates.connect(endpoint)
        self._poller.register(updates, zmq.POLLIN)
        return updates

    def updates(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the published (topic, frame)s that have come."""
        while self._updates is not None:
            try:
                frames = self._updates.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            if len(frames) == 2:
                yield frames[0], frames[1]
