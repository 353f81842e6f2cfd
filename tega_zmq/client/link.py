"""One connection to a node at a time: a DEALER socket and its monitor.

Every dial makes a new socket that never reconnects by itself. So hello is always the first message of a
connection, nothing that was queued for an old connection slips into a new one, and the host name is looked up
anew each time. The monitor tells at once when the connection stands and when it is lost.

A `Link` belongs to one thread. `ConnectionState` says what the monitor saw.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, Union

import zmq
import zmq.backend

from tega_zmq.errors import InvalidValue
from tega_zmq.tunnel.piped import Piped
from tega_zmq.tunnel.urls import Tls, is_tunnel
from tega_zmq.wire.codec import MAX_FRAME

if TYPE_CHECKING:
    from tega_zmq.tunnel.link import TunnelLink

__all__ = [
    "AnyLink",
    "Carrier",
    "ConnectionState",
    "Link",
    "link_to",
    "no_answer",
    "readable",
    "receive",
    "send",
]

Carrier: TypeAlias = zmq.Socket[bytes] | Piped
"""What carries frames: a DEALER, or the WebSocket of a tunnel."""

ConnectionState: TypeAlias = Literal["dialling", "up", "down"]

_NEVER_AGAIN: Final = 3_600_000
"""Milliseconds to the socket's own second attempt; it is closed long before."""

_OPTIONS: Final = (
    (zmq.LINGER, 0),
    (zmq.RECONNECT_IVL, _NEVER_AGAIN),
    (zmq.CONNECT_TIMEOUT, 10_000),
    (zmq.HANDSHAKE_IVL, 10_000),
    (zmq.MAXMSGSIZE, MAX_FRAME),
    (zmq.HEARTBEAT_IVL, 5_000),
    (zmq.HEARTBEAT_TIMEOUT, 15_000),
    (zmq.HEARTBEAT_TTL, 15_000),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 60),
    (zmq.TCP_KEEPALIVE_INTVL, 30),
    (zmq.TCP_KEEPALIVE_CNT, 3),
)

_UP: Final = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_DOWN: Final = int(
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_EVENT: Final = struct.Struct("=H")

_NOW: Final = int(zmq.DONTWAIT)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_recv: Final[Any] = zmq.backend.Socket.recv
_send: Final[Any] = zmq.backend.Socket.send
"""As `Socket.send`, without what that does for tracking and serializing."""

_option: Final[Any] = zmq.backend.Socket.get
"""As `Socket.getsockopt`, but without making an enum of each answer: it is asked several times a request."""


AnyLink: TypeAlias = Union["Link", "TunnelLink"]
"""What `link_to` returns."""


def link_to(url: str, context: zmq.Context[Any] | None, tls: Tls | None = None) -> AnyLink:
    """Return what dials `url`: a `Link`, or for `ws://` and `wss://` a `TunnelLink` with the files `tls`.

    Raises `InvalidValue`: the url, or a library that is not installed.
    """
    if not is_tunnel(url):
        return Link(url, context)
    try:
        from tega_zmq.tunnel.link import TunnelLink
    except ImportError as error:
        raise InvalidValue(
            f"{url}: a tunnel needs the library websockets, which is not installed ({error});"
            " pip install 'tega-zmq[tunnel]'"
        ) from None
    return TunnelLink(url, tls)


def readable(socket: Carrier) -> bool:
    """Whether a message can be received now."""
    if isinstance(socket, zmq.Socket):
        return _option(socket, _EVENTS) & _POLLIN != 0  # type: ignore[no-any-return]
    return socket.readable()


def receive(socket: Carrier) -> bytes | None:
    """Return the next frame, or None: there is none. Never waits.

    The protocol has no messages of several frames; each frame of one stands for itself. Where there is one
    most likely, this alone is the fastest; where there is none, `readable` says it faster.
    """
    try:
        if isinstance(socket, zmq.Socket):
            return _recv(socket, _NOW)  # type: ignore[no-any-return]
        return socket.recv(_NOW)
    except zmq.Again:
        return None


def send(socket: Carrier, data: bytes) -> None:
    """Send a frame. Never waits. Raises `zmq.Again` if too much waits already."""
    if isinstance(socket, zmq.Socket):
        _send(socket, data, _NOW)
    else:
        socket.send(data, _NOW)


def no_answer(url: str, timeout: float, trouble: str) -> str:
    """Return what is told when no session came about at `url` within `timeout` seconds."""
    text = f"no node answers at {url} within {timeout:g} second" + ("" if timeout == 1 else "s")
    return f"{text}: {trouble}" if trouble else text


class Link:
    """Dials `url` with sockets of `context`, or, if that is None, of a context of its own until `close`.

    `socket` is the present DEALER or None; `fd` and `monitor_fd` are what to poll for reading while there is
    one: the first is edge-triggered (read `zmq.EVENTS` and drain after every event and every send).
    """

    trouble = ""
    """Why it cannot be dialled, as far as that is known: of TCP it is not."""

    def __init__(self, url: str, context: zmq.Context[Any] | None, queue: int = 10_000) -> None:
        """`queue`: frames that may wait, each way."""
        self.url = url
        self._queue = queue
        self.socket: zmq.Socket[bytes] | None = None
        self.fd = -1
        self.monitor_fd = -1
        self._own_context = context is None
        self._context: zmq.Context[Any] = zmq.Context() if context is None else context
        self._monitor: zmq.Socket[bytes] | None = None

    def dial(self) -> None:
        """Make a new socket and begin to connect it.

        Raises `zmq.ZMQError`: the url, or no descriptors left.
        """
        self.hang_up()
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self.socket = socket
        try:
            for option, value in _OPTIONS:
                socket.setsockopt(option, value)
            socket.setsockopt(zmq.SNDHWM, self._queue)
            socket.setsockopt(zmq.RCVHWM, self._queue)
            if "[" in self.url:
                socket.setsockopt(zmq.IPV6, 1)
            self._monitor = socket.get_monitor_socket(_UP | _DOWN)
            self._monitor.setsockopt(zmq.LINGER, 0)
            socket.connect(self.url)
            self.fd = int(socket.getsockopt(zmq.FD))
            self.monitor_fd = int(self._monitor.getsockopt(zmq.FD))
        except zmq.ZMQError:
            self.hang_up()
            raise

    def state(self) -> ConnectionState:
        """Return what the monitor has seen since it was asked last; "dialling" if nothing."""
        monitor = self._monitor
        seen: ConnectionState = "dialling"
        while monitor is not None and readable(monitor):
            frames = monitor.recv_multipart(zmq.NOBLOCK)
            event = _EVENT.unpack_from(frames[0])[0]
            if event & _DOWN:
                return "down"
            if event & _UP:
                seen = "up"
        return seen

    def hang_up(self, linger: int = 0) -> None:
        """Close the socket; what was sent is tried for `linger` more milliseconds."""
        socket, monitor = self.socket, self._monitor
        self.socket = self._monitor = None
        self.fd = self.monitor_fd = -1
        if socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                socket.disable_monitor()
        if monitor is not None:
            monitor.close(0)
        if socket is not None:
            socket.close(linger)

    def close(self) -> None:
        """Hang up and give back the context, if it is its own: that may take as long as something lingers."""
        self.hang_up()
        if self._own_context:
            self._context.term()
