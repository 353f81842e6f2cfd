"""The sockets on which a node listens."""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import stat
from collections.abc import Sequence
from typing import Any

import zmq

from tega_zmq.wire.codec import MAX_FRAME

__all__ = ["ListenError", "bound", "cut", "publisher_socket", "router_socket"]

_SUBSCRIPTION = 64
"""Longest frame that a publisher takes: a subscription to a topic has 17 bytes, a handshake some 40."""

_IN_USE = (
    "{} is in use: another program listens there; stop it, or set another listen.requests or listen.changes"
)


class ListenError(Exception):
    """An endpoint cannot be listened on; the message says which and why."""


def router_socket(
    context: zmq.Context[Any], endpoints: Sequence[str]
) -> tuple[zmq.Socket[Any], zmq.Socket[Any], tuple[str, ...]]:
    """Return a ROUTER that listens on `endpoints`, the monitor that tells of lost connections, and where it
    listens, ports as the system gave them.

    Raises `ListenError`.
    """
    router = context.socket(zmq.ROUTER)
    _harden(router)
    router.router_mandatory = 1
    router.sndhwm = 500
    router.rcvhwm = 2000
    monitor = router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        endpoints = tuple(_bind(router, endpoint) for endpoint in endpoints)
    except ListenError:
        router.disable_monitor()
        monitor.close(linger=0)
        router.close(linger=0)
        raise
    return router, monitor, endpoints


def publisher_socket(context: zmq.Context[Any], endpoint: str) -> zmq.Socket[Any]:
    """Return an XPUB that listens on `endpoint` and shows every subscription. Raises `ListenError`.

    Who sends it a frame longer than any subscription needs is cut off; what is published may be longer.
    """
    publisher: zmq.Socket[Any] = context.socket(zmq.XPUB)
    _harden(publisher)
    publisher.maxmsgsize = _SUBSCRIPTION
    publisher.xpub_verbose = 1
    publisher.sndhwm = 2000
    try:
        _bind(publisher, endpoint)
    except ListenError:
        publisher.close(linger=0)
        raise
    return publisher


def _harden(socket: zmq.Socket[Any]) -> None:
    socket.linger = 500
    socket.maxmsgsize = MAX_FRAME
    socket.backlog = 1000
    socket.handshake_ivl = 10_000
    socket.heartbeat_ivl = 10_000
    socket.heartbeat_timeout = 30_000
    socket.heartbeat_ttl = 40_000
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 60
    socket.tcp_keepalive_intvl = 30
    socket.tcp_keepalive_cnt = 3


def _bind(socket: zmq.Socket[Any], endpoint: str) -> str:
    if endpoint.startswith("ipc://") and not endpoint.startswith("ipc://@"):
        _make_way(endpoint, endpoint[len("ipc://") :])
    socket.ipv6 = "[" in endpoint
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise ListenError(_IN_USE.format(endpoint)) from None
        raise ListenError(f"cannot listen on {endpoint}: {error.strerror}") from None
    return bound(socket)


def _make_way(endpoint: str, path: str) -> None:
    """See to it that a socket can be made at `path`, and harms nobody. Raises `ListenError`.

    libzmq removes whatever stands there. That may only be the socket of a program that is gone.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if not os.path.lexists(path):
            return
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ListenError(
                f"cannot listen on {endpoint}: there is something else than a socket at {path}; remove it, or"
                " set another listen.requests or listen.changes"
            )
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        return
    except BlockingIOError:  # whoever listens there has not yet taken those who came before
        pass
    except OSError as error:
        where = error.filename or path
        raise ListenError(f"cannot listen on {endpoint}: {where}: {error.strerror}") from None
    raise ListenError(_IN_USE.format(endpoint))


def cut(frame: zmq.Frame) -> None:
    """Break the connection on which `frame` came, as if the peer had.

    If it is gone, and its descriptor belongs to another connection by now, that one is broken: its peer dials
    again, and nothing is lost.
    """
    with contextlib.suppress(zmq.ZMQError, OSError):
        connection = sockets.socket(fileno=int(frame.get(zmq.SRCFD)))
        try:
            connection.shutdown(sockets.SHUT_RDWR)
        finally:
            connection.detach()  # it stays libzmq's, which sees the end of it and closes it


def bound(socket: zmq.Socket[Any]) -> str:
    """Return the endpoint on which `socket` listens, its port as the system gave it."""
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    return endpoint.decode().rstrip("\0")
