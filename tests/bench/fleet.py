"""Many idle sessions in one process: `python fleet.py URL COUNT`.

Each is what an agent with one config root is to a broker: a session that follows the root, pulls it,
subscribes to its updates if it is told a topic, and sends heartbeats with its position. Commands come on
standard input, a line each: `up` answers once all are connected and in step; `end` ends.
"""

from __future__ import annotations

import heapq
import random
import resource
import select
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import zmq

from tega_zmq.client import protocol
from tega_zmq.wire import decode, encode, messages, unbundle

now = time.monotonic


class Session:
    """One simulated agent."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.fleet = fleet
        self.number = number
        self.root = f"config-d{number}"
        self.session = protocol.ClientSession(f"d{number}", "agent", jitter=random.random)
        self.dealer: zmq.Socket[Any] | None = None
        self.monitor: zmq.Socket[Any] | None = None
        self.updates: zmq.Socket[Any] | None = None
        self.epoch, self.version = "", -1
        self.up = False
        self.in_step = False
        self.dial_at: float | None = random.random()

    def dial(self) -> None:
        self.hang_up()
        self.dial_at = None
        self.dealer = self.fleet.socket(zmq.DEALER)
        self.dealer.reconnect_ivl = -1
        self.monitor = self.dealer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
        )
        self.dealer.connect(self.fleet.url)
        self.fleet.watch(self, self.dealer)
        self.fleet.watch(self, self.monitor)

    def hang_up(self) -> None:
        self.up = self.in_step = False
        if self.dealer is not None:
            self.fleet.forget(self.dealer)
            self.fleet.forget(self.monitor)
            self.dealer.disable_monitor()
            self.dealer.close()
            self.dealer = self.monitor = None

    def step(self) -> None:
        """Take all that has come, send all that is to be sent."""
        at = now()
        if self.dial_at is not None and self.dial_at <= at:
            self.dial()
        while self.monitor is not None and self.monitor.events & zmq.POLLIN:
            event = int.from_bytes(self.monitor.recv_multipart()[0][:2], sys.byteorder)
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.up = True
                self.session.connected(at)
            else:
                self.session.connection_lost(at)
            self._run(at)
        while self.dealer is not None and self.dealer.events & zmq.POLLIN:
            for frame in unbundle(self.dealer.recv()):
                self.session.received(decode(frame), at)
            self._run(at)
        while self.updates is not None and self.updates.events & zmq.POLLIN:
            self.updates.recv_multipart()
        due = self.session.next_deadline()
        if due is not None and due <= at:
            self.session.tick(at)
        self._run(at)

    def due(self) -> float:
        """When `step` is to be called at the latest."""
        dues = [due for due in (self.session.next_deadline(), self.dial_at) if due is not None]
        return min(dues, default=now() + 1)

    def _run(self, at: float) -> None:
        while True:
            for event in self.session.take_events():
                self._event(event, at)
            output = self.session.take_output()
            if not output:
                return
            for message in output:
                if self.dealer is not None and self.up:
                    self.dealer.send(encode(message))

    def _event(self, event: Any, at: float) -> None:
        if isinstance(event, protocol.Redial):
            self.hang_up()
            self.dial_at = at + event.delay
        elif isinstance(event, protocol.Welcomed):
            self.session.request(messages.Follow, self.root, True, timeout=30, now=at)
        elif isinstance(event, protocol.Completed):
            topic, self.epoch, _ = event.value
            if topic:
                self._subscribe(topic)
            self.session.send(messages.Pull(self.root, self.epoch, self.version, 0))
        elif isinstance(event, protocol.Failed):
            sys.exit(f"{self.root}: {event.error!r}")
        elif isinstance(event, protocol.Other) and isinstance(event.message, messages.Chunk):
            chunk = event.message
            self.version = chunk.version
            if chunk.last:
                self.in_step = True
                self.session.positions = ((self.root, chunk.epoch, chunk.version),)

    def _subscribe(self, topic: bytes) -> None:
        if self.updates is not None:
            self.fleet.forget(self.updates)
            self.updates.close()
        welcome = self.session.welcome
        assert welcome is not None
        host = urlsplit(self.fleet.url).hostname
        self.updates = self.fleet.socket(zmq.SUB)
        self.updates.sndhwm = 0
        self.updates.subscribe(topic)
        self.updates.connect(
            f"tcp://{host}{welcome.changes}" if welcome.changes[0] == ":" else welcome.changes
        )
        self.fleet.watch(self, self.updates)


class Fleet:
    """All sessions, and the one loop that runs them."""

    def __init__(self, url: str, count: int) -> None:
        self.url = url
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.max_sockets = 10 * count + 100
        self._epoll = select.epoll()
        self._of: dict[int, Session] = {}
        self._sessions = [Session(self, number) for number in range(count)]
        self._due = [(session.due(), session.number) for session in self._sessions]
        self._next = {session.number: session.due() for session in self._sessions}
        heapq.heapify(self._due)

    def socket(self, kind: int) -> zmq.Socket[Any]:
        socket = self._context.socket(kind)
        socket.linger = 0
        return socket

    def watch(self, session: Session, socket: zmq.Socket[Any]) -> None:
        # The descriptor tells of edges only: whenever one fires, a session looks at all of its sockets.
        self._epoll.register(socket.fd, select.EPOLLIN)
        self._of[socket.fd] = session

    def forget(self, socket: Any) -> None:
        self._epoll.unregister(socket.fd)
        del self._of[socket.fd]

    def run(self) -> None:
        """Serve the commands until `end`."""
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        waiting = False
        while True:
            at = now()
            todo: dict[int, Session] = {}
            while self._due and self._due[0][0] <= at:
                _, number = heapq.heappop(self._due)
                todo[number] = self._sessions[number]
                self._next[number] = float("inf")
            wait = max(0.0, min(self._due[0][0] - at, 0.2)) if self._due and not todo else 0.0
            for fd, _ in self._epoll.poll(wait if not todo else 0, 4096):
                if fd == sys.stdin.fileno():
                    command = sys.stdin.readline().strip()
                    if command != "up":
                        return
                    waiting = True
                elif fd in self._of:
                    session = self._of[fd]
                    todo[session.number] = session
            for session in todo.values():
                session.step()
                due = max(session.due(), at + 0.001)
                if due < self._next[session.number]:
                    self._next[session.number] = due
                    heapq.heappush(self._due, (due, session.number))
            if waiting and all(session.in_step for session in self._sessions):
                waiting = False
                print("up", flush=True)


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    Fleet(sys.argv[1], int(sys.argv[2])).run()
