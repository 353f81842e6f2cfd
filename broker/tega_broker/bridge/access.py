"""Who may talk to the bridge: by the Host that a request names, the Origin of its page, and how often.

A web page can make a browser send requests to any address, one on loopback too. It cannot hide its own
origin, nor, where a name was bound to this address (DNS rebinding), the name: so both must be known here.
For an image or a link a browser sends no Origin, but it says whether the page is another site's
(Sec-Fetch-Site), or which one it is (Referer).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

__all__ = ["Access", "Rates", "host_of", "split_host"]

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\s/:\[\]?#@]+)(?::\d{1,5})?")
_REMEMBERED = 256
"""Most Hosts and Origins whose judgement is remembered."""


def split_host(text: str) -> str | None:
    """Return the host in `HOST` or `HOST:PORT`, in lower case, IPv6 in brackets; None if it is neither."""
    match = _HOST.fullmatch(text)
    return match.group(1).lower().removesuffix(".") if match else None


def host_of(url: str) -> str | None:
    """Return the host of a url, as `split_host` does."""
    try:
        return split_host(urlsplit(url).netloc)
    except ValueError:
        return None


class Access:
    """Judges Hosts and Origins."""

    def __init__(self, listen: str, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """`listen` is the bridge's own url, `hosts` other names of it, `origins` those with CORS."""
        own = host_of(listen)
        self.hosts = frozenset((*_LOOPBACK, *hosts, *((own,) if own else ())))
        self.origins = frozenset(origins)
        self._judged: dict[tuple[str, str], bool] = {}

    def allows_host(self, host: str, address: str) -> bool:
        """Whether a request may name `host`; `address`: the one of this machine that it came to.

        An address is no name that a stranger could have bound to it, so it may always be named.
        """
        judged = self._judged.get((host, address))
        if judged is None:
            name = split_host(host)
            judged = name is not None and (name in self.hosts or name.strip("[]") == address)
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            self._judged[host, address] = judged
        return judged

    def allows_origin(self, origin: str, address: str) -> bool:
        """Whether a page of `origin` may send requests: it is listed, or it comes from this very bridge."""
        if origin.lower() in self.origins:
            return True
        host = host_of(origin)
        return host is not None and (host in self.hosts or host.strip("[]") == address)

    def allows_page(self, referer: str, address: str) -> bool:
        """Whether a page at the url `referer` may send requests; see `allows_origin`."""
        try:
            at = urlsplit(referer)
        except ValueError:
            return False
        return self.allows_origin(f"{at.scheme}://{at.netloc}", address)

    def reads(self, origin: str) -> bool:
        """Whether a page of `origin`, another one than the bridge's, may read the answers (CORS)."""
        return origin.lower() in self.origins


class Rates:
    """How many requests each address may make: a bucket each that fills up again with time."""

    def __init__(self, rate: float, most: int = 10_000) -> None:
        """`rate` requests a second; at most `most` addresses are remembered, the busiest of late."""
        self._rate = rate
        self._size = max(rate, 1.0)
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}
        """What each has left, and since when."""

    def take(self, address: str, now: float) -> float:
        """Take one request of `address`; return 0, or for how many seconds it should wait."""
        bucket = self._buckets.get(address)
        left = self._size
        if bucket is not None:
            left = min(left, bucket[0] + (now - bucket[1]) * self._rate)
            if left < 1.0:
                return (1.0 - left) / self._rate
        elif len(self._buckets) >= self._most:
            self._forget(now)
        self._buckets[address] = (left - 1.0, now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Forget the full buckets, which say nothing; and the oldest half if all say something."""
        size, rate = self._size, self._rate
        kept = {
            name: (left, at) for name, (left, at) in self._buckets.items() if left + (now - at) * rate < size
        }
        if len(kept) >= self._most:
            names = sorted(kept, key=lambda name: kept[name][1])
            for name in names[: len(names) // 2]:
                del kept[name]
        self._buckets = kept
