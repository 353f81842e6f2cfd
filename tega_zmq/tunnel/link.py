"""One tunnel at a time: looks like `client.link.Link`, but its frames are binary messages of a WebSocket.

The thread that drives the client reads and writes the WebSocket's TCP socket itself, without blocking, and
leaves the framing to the library `websockets`, which does no I/O there. So a call through a tunnel changes
threads no more often than one over tcp. Only the dialling is done in a thread of its own.

`fd` is an epoll descriptor around the TCP socket, so that it also wakes when what waits can be sent. The
queues are bounded both ways: at most `_WAITING` bytes wait to be sent, then `send` raises `zmq.Again`; and
nothing is read from the TCP socket before the frames that were read are taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket as sockets
import ssl
import threading
import time
from collections import deque
from typing import Any, Final, Literal

import zmq
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from tega_zmq.tunnel.dialling import Attempt, DialError
from tega_zmq.tunnel.piped import Piped
from tega_zmq.tunnel.urls import NO_TLS, Tls, address_of

__all__ = ["TunnelLink"]

_log = logging.getLogger("tega_zmq.tunnel")

_TIMEOUT: Final = 10.0
"""Seconds for each step of dialling."""

_READ: Final = 65_536
_WAITING: Final = 1 << 20
_BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TunnelLink:
    """Dials the tunnel at `url`. Belongs to one thread. See `client.link.Link` for what each part means."""

    def __init__(self, url: str, files: Tls | None = None) -> None:
        """Raises `InvalidValue` for a wrong url."""
        self.url = url
        self.socket: _WebSocket | None = None
        self.fd = -1
        self.monitor_fd = -1
        self._address = address_of(url)
        self._files = NO_TLS if files is None else files
        self._dialling: _Dialling | None = None
        self.trouble = ""
        """The last reason why it could not be dialled, or was lost; it is logged once."""

    def dial(self) -> None:
        """Begin to open a tunnel. Raises `zmq.ZMQError`: no descriptors left."""
        self.hang_up()
        try:
            self.monitor_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            poller = select.epoll()
        except OSError as error:
            self.hang_up()
            raise zmq.ZMQError(error.errno) from None
        self.fd = poller.fileno()
        self.socket = _WebSocket(poller)
        self._dialling = _Dialling(Attempt(self._address, self._files, _TIMEOUT), os.dup(self.monitor_fd))

    def state(self) -> Literal["dialling", "up", "down"]:
        """Return what has happened since it was asked last; "dialling" if nothing."""
        if self.monitor_fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.monitor_fd)
        dialling, socket = self._dialling, self.socket
        if socket is None:
            return "dialling"
        if dialling is not None:
            if dialling.error:
                self._dialling = None
                self._tell(dialling.error)
                return "down"
            if dialling.opened is None:
                return "dialling"
            self._dialling = None
            self.trouble = ""
            socket.begin(*dialling.opened, self.monitor_fd)
            return "up"
        if socket.lost:
            self._tell(socket.lost)
            return "down"
        return "dialling"

    def _tell(self, reason: str) -> None:
        if reason != self.trouble:
            self.trouble = reason
            _log.warning("the tunnel %s: %s", self.url, reason)

    def hang_up(self, linger: int = 0) -> None:
        """Close the tunnel in order; what was sent is tried for `linger` more milliseconds."""
        socket, dialling, monitor = self.socket, self._dialling, self.monitor_fd
        self.socket = self._dialling = None
        self.fd = self.monitor_fd = -1
        if dialling is not None:
            dialling.give_up()
        if socket is not None:
            socket.end(linger / 1000)
        if monitor >= 0:
            os.close(monitor)

    def close(self) -> None:
        """Hang up for good."""
        self.hang_up()


class _Dialling:
    """An attempt in a thread of its own. `opened` or `error` is set when it ended; then `fd` is written."""

    def __init__(self, attempt: Attempt, fd: int) -> None:
        """`fd`: an eventfd of its own."""
        self.opened: tuple[sockets.socket, ClientProtocol] | None = None
        self.error = ""
        self._attempt = attempt
        self._fd = fd
        self._lock = threading.Lock()
        self._given_up = False
        threading.Thread(target=self._run, name="tega-tunnel-dial", daemon=True).start()

    def _run(self) -> None:
        error, opened = "", None
        try:
            opened = self._attempt.run()
        except DialError as reason:
            error = str(reason)
        except BaseException as reason:  # noqa: BLE001  # whatever it was, the link must hear that it is over
            error = f"{type(reason).__name__}: {reason}"
        with self._lock:
            if self._given_up:
                if opened is not None:
                    opened[0].close()
            else:
                self.opened, self.error = opened, error
                os.eventfd_write(self._fd, 1)
            os.close(self._fd)

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._given_up = True
            if self.opened is not None:
                self.opened[0].close()
        self._attempt.give_up()


class _WebSocket(Piped):
    """The open tunnel as a socket. Before `begin` it carries nothing."""

    __slots__ = ("_frames", "_monitor", "_out", "_part", "_poller", "_protocol", "_socket", "_waits", "lost")

    def __init__(self, poller: select.epoll) -> None:
        self.lost = ""
        """Why the tunnel is closed; empty while it stands."""
        self._poller = poller
        self._socket: sockets.socket | None = None
        self._protocol: ClientProtocol
        self._monitor = -1
        self._frames: deque[bytes] = deque()
        self._part: list[Any] = []
        """Of a message in several frames, those that came."""
        self._out = bytearray()
        self._waits = False
        """The poller looks for room to send."""

    def begin(self, socket: sockets.socket, protocol: ClientProtocol, monitor: int) -> None:
        """Carry frames over an open WebSocket; `monitor` is an eventfd to write when it is lost."""
        self._socket, self._protocol, self._monitor = socket, protocol, monitor
        self._poller.register(socket, select.EPOLLIN)
        self._take(protocol.events_received())

    def end(self, linger: float) -> None:
        """Close; what waits is tried for `linger` seconds."""
        socket, self._socket = self._socket, None
        if socket is not None and not self.lost:
            with contextlib.suppress(Exception):
                if self._protocol.state is State.OPEN:
                    self._protocol.send_close(1000)
                    self._out += b"".join(self._protocol.data_to_send())
                if linger:
                    socket.settimeout(linger)
                    socket.sendall(self._out)
                    _drain(socket, linger)
                else:
                    socket.send(self._out)
        if socket is not None:
            socket.close()
        self._poller.close()

    # -- Piped ----------------------------------------------------------------------------------------

    def readable(self) -> bool:
        """See `Piped`."""
        if self._frames:
            return True
        if self._out:
            self._flush()
        # Mostly there is nothing, and to be told so by `recv` costs several times as much.
        if self._socket is not None and not self.lost and self._poller.poll(0):
            self._fill()
        return bool(self._frames)

    def recv(self, flags: int = 0) -> bytes:  # noqa: ARG002  # as zmq.Socket has it
        """See `Piped`."""
        if not self._frames:
            if self._out:
                self._flush()
            self._fill()
            if not self._frames:
                raise zmq.Again
        return self._frames.popleft()

    def send(self, data: bytes, flags: int = 0) -> None:  # noqa: ARG002  # as zmq.Socket has it
        """See `Piped`."""
        socket = self._socket
        if socket is None or self.lost:
            return  # as to a connection that is lost: the monitor tells
        if len(self._out) > _WAITING:
            self._flush()
            if len(self._out) > _WAITING:
                raise zmq.Again
        self._protocol.send_binary(data)
        self._write(b"".join(self._protocol.data_to_send()))

    # -- the TCP socket ---------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        """Send `data`, after what waits."""
        if self._out:
            self._out += data
            return
        assert self._socket is not None
        sent = 0
        try:
            sent = self._socket.send(data)
        except _BLOCKED:
            pass
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if sent < len(data):
            self._out += data[sent:]
            self._watch()

    def _flush(self) -> None:
        while self._out and self._socket is not None and not self.lost:
            try:
                sent = self._socket.send(self._out)
            except _BLOCKED:
                break
            except OSError as error:
                self._lose(error.strerror or str(error))
                return
            del self._out[:sent]
        self._watch()

    def _watch(self) -> None:
        """Have the poller look for room to send, as long as something waits."""
        if bool(self._out) != self._waits and self._socket is not None and not self.lost:
            self._waits = not self._waits
            self._poller.modify(self._socket, select.EPOLLIN | (select.EPOLLOUT if self._waits else 0))

    def _fill(self) -> None:
        """Read until there is a frame, or nothing more to read."""
        while not self._frames and self._socket is not None and not self.lost:
            try:
                data = self._socket.recv(_READ)
            except _BLOCKED:
                return
            except OSError as error:
                self._lose(error.strerror or str(error))
                return
            protocol = self._protocol
            if not data:
                self._lose("the connection was closed")
                return
            protocol.receive_data(data)
            self._take(protocol.events_received())
            answers = protocol.data_to_send()
            if answers and not self.lost:
                self._write(b"".join(answers))
            if protocol.state is not State.OPEN:
                received = protocol.close_rcvd
                if received is not None:
                    self._lose(
                        f"closed by the bridge, {received.code}: {received.reason or 'no reason given'}"
                    )
                else:
                    self._lose(f"not understood: {protocol.parser_exc}")

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.BINARY or event.opcode is Opcode.CONT:
                if event.fin and not self._part:
                    self._frames.append(bytes(event.data))
                    continue
                self._part.append(event.data)
                if event.fin:
                    self._frames.append(b"".join(self._part))
                    self._part = []

    def _lose(self, reason: str) -> None:
        if not self.lost and self._socket is not None:
            self.lost = reason
            self._out.clear()
            with contextlib.suppress(OSError, ValueError):
                self._poller.unregister(self._socket)
            os.eventfd_write(self._monitor, 1)


def _drain(socket: sockets.socket, seconds: float) -> None:
    """Read until the peer closes too: closing before would destroy what it has not read yet."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        socket.settimeout(left)
        if not socket.recv(_READ):
            return
