"""What names a tunnel: its url, and the files of TLS. Needs no library."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from tega_zmq.errors import InvalidValue

__all__ = ["NO_TLS", "ROUTE", "Address", "Tls", "address_of", "is_tunnel"]

ROUTE = "/_tunnel"
"""Where a bridge offers it."""

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.%]{2,64}")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,255}")


class Tls(NamedTuple):
    """Files of TLS for `wss://`, PEM; empty: none.

    Without `ca`, those count whom the system trusts, or the file that the environment variable SSL_CERT_FILE
    names.
    """

    ca: str = ""
    """The certificates of those who may have signed the bridge's."""
    cert: str = ""
    """The client's own certificate, for a reverse proxy that asks for one."""
    key: str = ""
    """Its key; empty: it stands in `cert`."""


NO_TLS = Tls()


class Address(NamedTuple):
    """A tunnel's url in parts."""

    secure: bool
    host: str
    """Without brackets."""
    port: int
    path: str
    """With `/_tunnel` at its end."""

    @property
    def url(self) -> str:
        """The whole, as the WebSocket's handshake needs it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.secure else 'ws'}://{host}:{self.port}{self.path}"


def is_tunnel(url: str) -> bool:
    """Whether `url` names a tunnel rather than a ZeroMQ endpoint."""
    return url.startswith(("ws://", "wss://"))


def address_of(url: str) -> Address:
    """Return the parts of `ws://HOST[:PORT][/PREFIX]` or `wss://...`. Raises `InvalidValue`.

    The port is 80 or 443 unless it is given. PREFIX is for a reverse proxy that serves the bridge below a
    path; `/_tunnel` at the end may be there or not.
    """
    wanted = "expected ws://HOST:PORT or wss://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidValue(f"{url[:200]}: {wanted}") from None
    if parts.scheme not in ("ws", "wss") or not _HOST.fullmatch(host) or port == 0:
        raise InvalidValue(f"{url[:200]}: {wanted}")
    if "@" in parts.netloc:
        raise InvalidValue(
            f"{parts.scheme}://...@{host}: a tunnel's url holds no user and password; {wanted}"
        )
    if parts.query or parts.fragment or not _PATH.fullmatch(parts.path):
        raise InvalidValue(f"{url[:200]}: a tunnel's url has no query, and a plain path; {wanted}")
    secure = parts.scheme == "wss"
    path = parts.path.rstrip("/").removesuffix(ROUTE) + ROUTE
    return Address(secure, host, port or (443 if secure else 80), path)
