"""The uplink's sockets: the session's link, tried at several endpoints in turn, and a SUB for the updates.

Endpoints stand in the order of preference. What worked last is dialled first when it was lost, else a cut
would cost the time in which an endpoint fails that cannot be reached from here. While a later one is in use,
those before it are tried from time to time, beside it; when one answers, the link moves there, and the
session with it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import zmq

from tega_zmq.client.link import AnyLink, link_to
from tega_zmq.runtime.poller import Poller
from tega_zmq.tunnel.piped import Piped
from tega_zmq.tunnel.urls import Tls, is_tunnel
from tega_zmq.wire.codec import MAX_FRAME

__all__ = ["Uplink"]

_QUEUE = 10_000
"""Messages that wait for a link that does not drain."""


class Uplink:
    """The connection of an agent to the node above, one at a time."""

    def __init__(
        self,
        context: zmq.Context[Any],
        poller: Poller,
        endpoints: Sequence[str],
        tls: Tls | None = None,
        better: float = 60.0,
    ) -> None:
        """`better`: seconds between two looks whether an endpoint before the one in use can be reached.

        Raises `InvalidValue`: an endpoint, or a library that is not installed.
        """
        self._context = context
        self._poller = poller
        self._links = [link_to(endpoint, context, tls) for endpoint in endpoints]
        self._probes = [link_to(endpoint, context, tls) for endpoint in endpoints[:-1]]
        self._better = better
        self._at = 0
        """Which endpoint was dialled last."""
        self._next = 0
        """Which one is dialled next."""
        self._probe = -1
        """Which one before that in use is tried; -1: none."""
        self._probe_at = float("inf")
        self._link: AnyLink | None = None
        self._polled: list[Any] = []
        self._updates: zmq.Socket[Any] | None = None
        self._updates_at = ""
        self._topics: frozenset[bytes] = frozenset()
        self._queue: deque[bytes] = deque()

    @property
    def endpoint(self) -> str:
        """Where it was dialled last."""
        return self._links[self._at].url

    @property
    def hears_topics(self) -> bool:
        """Whether updates that are published can be heard there: not beside a tunnel."""
        return not is_tunnel(self.endpoint)

    def dial(self) -> bool:
        """Drop what connection there is and dial the next endpoint. Returns whether that could be tried."""
        self.close()
        self._at = self._next
        self._next = (self._at + 1) % len(self._links)
        link = self._links[self._at]
        try:
            link.dial()
        except zmq.ZMQError:
            return False
        self._link = link
        # A tunnel is no ZeroMQ socket: its descriptor is polled.
        self._polled = [link.fd if isinstance(link.socket, Piped) else link.socket, link.monitor_fd]
        for source in self._polled:
            self._poller.register(source)
        return True

    def close(self, linger: int = 0) -> None:
        """Close every socket; what was sent is tried for `linger` more milliseconds."""
        for source in self._polled:
            self._poller.unregister(source)
        self._polled = []
        if self._link is not None:
            self._link.hang_up(linger)
            self._link = None
        self._end_probe()
        self._probe_at = float("inf")
        self._close_updates()
        self._queue.clear()

    def _close_updates(self) -> None:
        if self._updates is not None:
            self._poller.unregister(self._updates)
            self._updates.close(linger=0)
            self._updates = None
        self._topics = frozenset()

    def happened(self, now: float) -> str:
        """Return `up` if a connection came up since the last time, `down` if it is gone or failed, or "".

        It is `down` too if an endpoint before this one can be reached: `dial` dials that one then.
        """
        state = self._link.state() if self._link is not None else "dialling"
        if state == "up":
            self._next = self._at
            self._set_probe(now)
        if state == "dialling":
            return "down" if self._found_better(now) else ""
        return state

    def _set_probe(self, now: float) -> None:
        self._probe_at = now + self._better * random.uniform(0.75, 1.25) if self._at else float("inf")  # noqa: S311

    def _end_probe(self) -> None:
        if self._probe >= 0:
            self._probes[self._probe].hang_up()
            self._probe = -1

    def _found_better(self, now: float) -> bool:
        """Try the endpoints before the present one, one by one; return whether one can be reached."""
        if self._probe < 0:
            if now < self._probe_at:
                return False
            self._probe = 0
        else:
            state = self._probes[self._probe].state()
            if state == "dialling":
                return False
            found = self._probe
            self._end_probe()
            if state == "up":
                self._next = found
                self._probe_at = float("inf")
                return True
            if found + 1 >= self._at:
                self._set_probe(now)
                return False
            self._probe = found + 1
        try:
            self._probes[self._probe].dial()
        except zmq.ZMQError:
            self._end_probe()
            self._set_probe(now)
        return False

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
            finally:
                self._used()
        if len(self._queue) < _QUEUE:
            self._queue.append(data)

    def flush(self) -> bool:
        """Send what waits; return whether anything is left."""
        if self._queue:
            self._used()
        while self._queue and self._link is not None and self._link.socket is not None:
            try:
                self._link.socket.send(self._queue[0], zmq.DONTWAIT)
            except zmq.Again:
                return True
            self._queue.popleft()
        return False

    def _used(self) -> None:
        if self._link is not None and isinstance(self._link.socket, zmq.Socket):
            self._poller.used(self._link.socket)

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
        self._poller.used(self._updates)

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
        self._poller.register(updates)
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
