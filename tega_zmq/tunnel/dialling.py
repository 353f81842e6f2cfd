"""Opens a tunnel's WebSocket: through a proxy if the environment names one, with TLS, then the handshake.

All of it blocks, so it is done in a thread that ends with it. A proxy is always asked to CONNECT (RFC 9110,
9.3.6), for `ws://` too: a proxy that is sent a request to forward knows nothing of WebSockets. That is why
aiohttp is not used here: for `ws://` it sends the proxy the absolute url.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Response
from websockets.uri import parse_uri

from tega_zmq.tunnel.urls import Address, Tls
from tega_zmq.version import __version__
from tega_zmq.wire.codec import MAX_FRAME

__all__ = ["Attempt", "DialError", "Proxy", "proxy_for", "tls_context"]

_READ: Final = 65_536
_SOCKET_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

_log = logging.getLogger("tega_zmq.tunnel.websocket")


class DialError(Exception):
    """The tunnel could not be opened; the message says where and why."""


class Proxy(NamedTuple):
    """An HTTP proxy."""

    host: str
    port: int
    headers: dict[str, str]
    """What it is sent with CONNECT: the credentials."""


def proxy_for(address: Address, proxies: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy by which `address` is to be reached, or None. Raises `DialError`.

    `proxies` is by scheme; None: from the environment, HTTPS_PROXY before HTTP_PROXY before ALL_PROXY for
    `ws://` and `wss://` alike (RFC 6455, 4.1), unless NO_PROXY lists the host.
    """
    if proxies is None:
        if urllib.request.proxy_bypass(f"{address.host}:{address.port}"):
            return None
        proxies = urllib.request.getproxies()
    url = proxies.get("https") or proxies.get("http") or proxies.get("all")
    if not url:
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    if parts.scheme != "http" or not host:
        shown = f"{parts.scheme}://...@{host}" if "@" in url else url
        raise DialError(
            f"the proxy {shown[:200]}, which the environment names, cannot be used: http://HOST:PORT can"
        )
    headers = {"Host": f"{_bracketed(address.host)}:{address.port}"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair).decode()
    return Proxy(host, port, headers)


def tls_context(files: Tls) -> ssl.SSLContext:
    """Return what checks the bridge's certificate. Raises `DialError` for a file that cannot be used."""
    name = files.ca
    try:
        # Without a file, this takes the system's, or those of SSL_CERT_FILE and SSL_CERT_DIR.
        context = ssl.create_default_context(cafile=files.ca or None)
        if files.cert:
            name = files.cert
            context.load_cert_chain(files.cert, files.key or None)
    except OSError as error:
        raise DialError(f"TLS: {name} cannot be used: {error.strerror or error}") from None
    return context


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Attempt:
    """One attempt to open a tunnel. `run` in one thread, `give_up` from any."""

    def __init__(self, address: Address, files: Tls, timeout: float) -> None:
        self._address = address
        self._files = files
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._given_up = False

    def give_up(self) -> None:
        """Make `run` fail soon, if it still runs."""
        self._given_up = True
        opened = self._socket
        if opened is not None:
            with contextlib.suppress(OSError):  # it is closed, or not connected yet
                opened.shutdown(socket.SHUT_RDWR)

    def run(self) -> tuple[socket.socket, ClientProtocol]:
        """Return an open WebSocket's socket and protocol. Each step may take `timeout` seconds.

        Raises `DialError`.
        """
        try:
            return self._open()
        except BaseException as error:
            if self._socket is not None:
                self._socket.close()
            if isinstance(error, DialError):
                raise
            if not isinstance(error, (OSError, http.client.HTTPException, InvalidHandshake, EOFError)):
                raise
            raise DialError(_why(error)) from None

    def _open(self) -> tuple[socket.socket, ClientProtocol]:
        address = self._address
        context = tls_context(self._files) if address.secure else None
        opened = self._connect(proxy_for(address))
        for option in _SOCKET_OPTIONS:
            opened.setsockopt(*option)
        if context is not None:
            opened = self._keep(context.wrap_socket(opened, server_hostname=address.host))
        protocol = ClientProtocol(parse_uri(address.url), max_size=MAX_FRAME, logger=_log)
        request = protocol.connect()
        request.headers["User-Agent"] = f"tega-zmq/{__version__}"
        protocol.send_request(request)
        opened.sendall(b"".join(protocol.data_to_send()))
        while True:
            data = opened.recv(_READ)
            if not data:
                raise DialError("the connection was closed before the WebSocket was open")
            protocol.receive_data(data)
            if protocol.handshake_exc is not None:
                raise DialError(_refused(protocol.handshake_exc))
            if protocol.state.name == "OPEN":
                break
        # What came along with the answer is read later.
        protocol.events[:] = [event for event in protocol.events if not isinstance(event, Response)]
        opened.setblocking(False)
        if self._given_up:
            raise DialError("given up")
        self._socket = None
        return opened, protocol

    def _keep(self, opened: socket.socket) -> socket.socket:
        self._socket = opened
        if self._given_up:
            raise DialError("given up")
        return opened

    def _connect(self, proxy: Proxy | None) -> socket.socket:
        address = self._address
        if proxy is None:
            return self._keep(socket.create_connection((address.host, address.port), self._timeout))
        where = f"the proxy {_bracketed(proxy.host)}:{proxy.port}"
        connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=self._timeout)
        connection.set_tunnel(_bracketed(address.host), address.port, proxy.headers)
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise DialError(f"{where}: {_why(error)}") from None
        opened = connection.sock
        assert isinstance(opened, socket.socket)
        return self._keep(opened)


def _why(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the bridge's certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def _refused(error: Exception) -> str:
    response = getattr(error, "response", None)
    if isinstance(response, Response):
        body = (response.body or b"")[:300].decode("utf-8", "replace")
        text = " ".join(body.split())
        return f"it answered {response.status_code} {response.reason_phrase}" + (f": {text}" if text else "")
    return f"no WebSocket there: {error}"
