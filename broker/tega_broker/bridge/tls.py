"""TLS from files, read again when the operator says so: new connections get the new certificate."""

from __future__ import annotations

import ssl

from tega_zmq.runtime.bridgeconfig import Tls
from tega_zmq.runtime.schema import ConfigError

__all__ = ["context", "reload"]


def context(tls: Tls) -> ssl.SSLContext | None:
    """Return what serves TLS with the certificate of the config; None for plain HTTP.

    Raises `ConfigError` for files that cannot be used.
    """
    if tls.cert is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    _load(made, tls)
    return made


def reload(served: ssl.SSLContext, tls: Tls) -> None:
    """Read the files again into `served`. Raises `ConfigError`; the old certificate stays in use then."""
    _load(
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls
    )  # on a trial one first: a pair that does not fit is half read
    _load(served, tls)


def _load(into: ssl.SSLContext, tls: Tls) -> None:
    assert tls.cert is not None
    try:
        into.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except FileNotFoundError:
        raise ConfigError(f"tls: {tls.cert} or {tls.key or tls.cert} is not there") from None
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"tls: {tls.cert} with {tls.key or tls.cert} cannot be used: {reason}") from None


def _no_password() -> str:
    return ""
