"""The application: takes requests, checks who asks, finds the handler in the table, tells what happened."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from tega_broker.bridge import answers, health, openapi, rest_data, rest_manage
from tega_broker.bridge.access import Access, Rates
from tega_broker.bridge.answers import Refusal
from tega_broker.bridge.connection import Connection, Request, Server
from tega_broker.bridge.members import Members, Transactions
from tega_broker.bridge.metrics import Metrics
from tega_broker.bridge.reading import parse_query, split_target
from tega_broker.bridge.table import DATA, Asked, Handler, Route
from tega_zmq.client import requests
from tega_zmq.errors import TegaError, TooLarge
from tega_zmq.paths import Path
from tega_zmq.runtime.config import BridgeConfig

__all__ = ["Bridge", "Connection", "Plain"]

Plain = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""A handler as aiohttp has it: what the other parts' routes lead to."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "OPTIONS")
_SWEEP = 5.0
"""Seconds between two looks for peers that do not read."""


class Bridge:
    """Everything that the handlers share. Belongs to the event loop that it was made in."""

    def __init__(self, config: BridgeConfig, logger: logging.Logger) -> None:
        self.config = config
        self.limits = config.limits
        self.logger = logger
        self.access = Access(config.listen, config.hosts, config.origins)
        self.members = Members(
            config.broker,
            config.tega_id,
            limit=config.limits.sessions,
            seconds=config.limits.timeout,
            logger=logger,
        )
        self.transactions = Transactions(self.members, config.limits.transactions)
        self.metrics = Metrics()
        self.stopping = False
        """An orderly stop has begun: nothing new is taken."""
        self.on_stop: list[Callable[[str], Awaitable[None]]] = []
        """Called with the reason when the bridge stops, so that what lasts ends in order."""
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        """Numbers of the other parts for /_metrics: `tega_bridge_NAME`, what it is, how to read it."""
        self.totals: dict[str, tuple[str, Callable[[], int]]] = {}
        """What the other parts count, likewise: `tega_bridge_NAME_total`."""
        self._access_log = logger.getChild("access")
        self._log_all = config.access_log == "all"
        self._log_errors = config.access_log != "none"
        self.rates = Rates(config.limits.rate)
        self._seed = f"{time.time_ns() & 0xFFFFFFFFFF:x}"
        self._count = 0
        self._per_address: dict[str, int] = {}
        self._connections = 0
        self.tunnels = 0
        """How many of the connections carry a tunnel, which has more descriptors."""
        self.table: tuple[Route, ...] = (
            *rest_data.ROUTES,
            *rest_manage.ROUTES,
            *health.ROUTES,
            openapi.ROUTE,
        )
        """The REST interface."""
        self._data: dict[str, Plain] = {}
        self._named: dict[str, dict[str, Plain]] = {}
        self._acting = {route.path for route in self.table if route.acts}
        """What does something by GET too."""
        self._headless = set(self._acting)
        """What has no HEAD."""
        for route in self.table:
            handlers = self._data if route.path == DATA else self._named.setdefault(route.path, {})
            handlers[route.method] = self._rest(route.handler)
        self._watching: Plain | None = None
        self._server: Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def add(self, routes: Iterable[web.AbstractRouteDef]) -> None:
        """Add the routes of another part; their handlers take an aiohttp request."""
        for route in routes:
            assert isinstance(route, web.RouteDef)
            self._named.setdefault(route.path, {})[route.method] = route.handler  # type: ignore[assignment]
            if route.kwargs.get("allow_head") is False:
                self._headless.add(route.path)

    def add_watch(self, handler: Plain) -> None:
        """`handler` answers a GET of data that says `watch=1`."""
        self._watching = handler

    # -- start and stop ----------------------------------------------------------------------------

    def server(self) -> web.Server:
        """Return what makes a handler of each connection, for an aiohttp `ServerRunner`."""
        limits = self.limits
        self._server = Server(
            self,
            keepalive_timeout=limits.idle,
            max_line_size=limits.header,
            max_field_size=limits.header,
            lingering_time=0.5,
            auto_decompress=False,
            access_log=None,
            logger=self.logger.getChild("http"),
        )
        return self._server

    def start(self) -> None:
        """Connect to the broker, and see to the connections from now on."""
        self.members.start()
        self._sweeping = asyncio.create_task(self._sweep(), name="bridge-slow-peers")

    async def stop(self, reason: str) -> None:
        """End what lasts, with `reason`, and take nothing new."""
        self.stopping = True
        await asyncio.gather(*(end(reason) for end in self.on_stop), return_exceptions=True)

    async def close(self) -> None:
        """Close the sessions at the broker."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self.members.close()

    async def _sweep(self) -> None:
        """Give up connections whose peer reads nothing of what waits for it."""
        waiting: dict[int, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(min(_SWEEP, self.limits.slow / 2))
            now = time.monotonic()
            before, waiting = waiting, {}
            for connection in self._server.connections if self._server is not None else ():
                transport = connection.transport
                size = (
                    transport.get_write_buffer_size() if isinstance(transport, asyncio.WriteTransport) else 0
                )
                if not size or not isinstance(transport, asyncio.WriteTransport):
                    continue
                key = id(connection)
                known = before.get(key)
                since = known[1] if known is not None and known[0] == size else now
                if now - since >= self.limits.slow:
                    self.metrics.count("slow_peers")
                    transport.abort()
                else:
                    waiting[key] = (size, since)

    async def call(
        self, client: Any, path: Path, args: requests.Ready, kwargs: requests.Ready, seconds: float
    ) -> Any:
        """Return the result of the handler at `path`. Raises as `Client.call`.

        Not by `Client.call`: an argument may have any name, `timeout` too.
        """
        return await client._ask(requests.call(path, args, kwargs), seconds)

    # -- connections -------------------------------------------------------------------------------

    def connected(self, address: str, *, scarce: bool) -> str:
        """A connection from `address` came: return why it is not taken, or nothing.

        `scarce`: it has one of the last descriptors.
        """
        here = self._per_address.get(address, 0)
        if self.stopping:
            return "the bridge is stopping"
        if self._connections >= self.limits.connections:
            return f"{self._connections} connections are open, as many as limits.connections allows"
        if here >= self.limits.per_client:
            return f"{here} connections of {address} are open, as many as limits.per_client allows"
        if scarce:
            return f"{self._connections} connections are open, as many as there are file descriptors for"
        self._connections += 1
        self._per_address[address] = here + 1
        return ""

    def connection(self, address: str) -> Connection:
        """Return what serves a connection from `address` that was taken."""
        assert self._server is not None
        return self._server.connection(address)

    def disconnected(self, address: str) -> None:
        """A connection that was taken is over."""
        self._connections -= 1
        left = self._per_address.get(address, 1) - 1
        if left:
            self._per_address[address] = left
        else:
            self._per_address.pop(address, None)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._connections

    # -- requests ----------------------------------------------------------------------------------

    def _rest(self, handler: Handler) -> Plain:
        def plain(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            assert isinstance(request, Request)
            path, query = request.target
            return handler(self, Asked(request, path, parse_query(query)))

        return plain

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        assert isinstance(request, Request)
        handed = request.handed
        if handed is None:
            began, outcome = time.monotonic(), None
            given = self.id_of(request.headers)
        else:
            given, began, outcome = handed
        request.id = given
        request.target = split_target(request.raw_path)
        address = request.remote or ""
        method = request.method
        try:
            if outcome is None:
                self._check(request, address, began)
                response = await self._find(request, method)(request)
            else:
                response = await self._resume(request, method, outcome)
        except (TegaError, Refusal) as error:
            response = answers.error_response(error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            self.logger.exception(
                "a request failed by an error of the bridge", extra={"fields": {"id": given}}
            )
            response = answers.error_response(
                Refusal(503, "TegaError", f"the bridge could not do this: {type(error).__name__}")
            )
        if request.content.exception() is not None:
            response.force_close()  # what follows a broken body cannot be understood
        if not response.prepared:
            self.finish(request, response)
            if isinstance(response, web.Response):
                await answers.pack(response, request.headers)
        self.tell(method, request.raw_path, response.status, address, given, began, lasts=request.lasts)
        return response

    async def _resume(
        self, request: Request, method: str, outcome: Exception | web.Response
    ) -> web.StreamResponse:
        """Return the answer to what was begun on the straight way, or raise it."""
        if isinstance(outcome, web.Response):
            return outcome
        if isinstance(outcome, TooLarge) and method == "GET":
            return await rest_data.get_large(self, Asked(request, request.target[0], {}))
        raise outcome

    def id_of(self, headers: Mapping[str, str]) -> str:
        """Return the id of a request: the one that its `headers` give it, or a new one."""
        given = headers.get("X-Request-Id")
        return given if given is not None and _REQUEST_ID.fullmatch(given) else self._new_id()

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._seed}-{self._count:x}"

    def _check(self, request: Request, address: str, now: float) -> None:
        wait = self.rates.take(address, now)
        if wait:
            raise Refusal(
                429,
                "TooLarge",
                f"more than {self.limits.rate:g} requests a second from {address}",
                headers={"Retry-After": str(int(wait) + 1)},
                limit=self.limits.rate,
            )
        sockname = request.transport.get_extra_info("sockname") if request.transport is not None else None
        here = str(sockname[0]) if isinstance(sockname, tuple) else ""
        host = request.headers.get("Host")
        if host is None:
            if request.version >= (1, 1):
                raise Refusal(400, "InvalidValue", "the request has no Host header", close=True)
        elif not self.access.allows_host(host, here):
            raise Refusal(
                403,
                "Forbidden",
                f"this bridge is not known as {host[:80]!a}; if it is, add that to `hosts` in its config",
                action="Host",
            )
        origin = request.headers.get("Origin")
        if origin is not None and not self.access.allows_origin(origin, here):
            raise Refusal(
                403,
                "Forbidden",
                f"pages of {origin[:80]!a} may not use this bridge; if they may, add that to `origins`",
                action="Origin",
            )
        if origin is None:
            self._check_page(request, here)
        if self.stopping:
            raise Refusal(503, "Offline", "the bridge is stopping", headers={"Retry-After": "1"}, close=True)

    def _check_page(self, request: Request, here: str) -> None:
        """Refuse what a page of another site makes a browser ask for without an Origin: an image, a link.

        To follow a link to something that is only read does no harm: the page does not see the answer.
        """
        headers = request.headers
        site, page = headers.get("Sec-Fetch-Site"), headers.get("Referer")
        if site is None and page is None:
            return
        acts = request.target[0].rstrip("/") in self._acting
        if site in ("cross-site", "same-site"):
            followed = (
                headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
            )
            if acts or not followed or request.method != "GET":
                raise Refusal(
                    403,
                    "Forbidden",
                    "a page of another site asked for this, and not as one that `origins` lists does",
                    action="Sec-Fetch-Site",
                )
        if page is not None and acts and not self.access.allows_page(page, here):
            raise Refusal(
                403,
                "Forbidden",
                f"{page[:80]!a} may not use this bridge; if it may, add its origin to `origins`",
                action="Referer",
            )

    def _find(self, request: Request, method: str) -> Plain:
        path, query = request.target
        head = True
        if path.startswith("/_"):
            head = path.rstrip("/") not in self._headless
            handlers = self._named.get(path.rstrip("/")) or self._below(path)
            if handlers is None:
                raise Refusal(404, "NotFound", f"the bridge has no {path[:80]}", path=path[:80])
        else:
            handlers = self._data
            if self._watching is not None and method == "GET" and query and _watches(query):
                return self._watching
        handler = handlers.get(method)
        if handler is None and method == "HEAD" and head:
            handler = handlers.get("GET")
        if handler is not None:
            return handler
        allowed = ", ".join(
            name
            for name in _METHODS
            if name in handlers or (name == "HEAD" and head and "GET" in handlers) or name == "OPTIONS"
        )
        if method == "OPTIONS":
            return _options(allowed)
        raise Refusal(
            405,
            "InvalidValue",
            f"{path[:80]} takes {allowed}, not {method[:20]}",
            headers={"Allow": allowed},
        )

    def _below(self, path: str) -> dict[str, Plain] | None:
        """The routes of a part that owns all below its name, `/_ui/`."""
        return self._named.get("/" + path.split("/", 2)[1] + "/{rest}")

    def lasting(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """As `finish`, for an answer that goes on for as long as its peer likes."""
        assert isinstance(request, Request)
        request.lasts = True
        self.finish(request, response)

    def finish(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Add the headers that all answers have; for one that its handler itself prepares."""
        headers = response.headers
        assert isinstance(request, Request)
        headers["X-Request-Id"] = request.id
        headers["Server"] = "tega-bridge"
        headers["X-Content-Type-Options"] = "nosniff"
        origin = request.headers.get("Origin")
        if origin is not None and self.access.reads(origin):
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = "ETag, X-Request-Id, Allow, Retry-After"
            headers.add("Vary", "Origin")
            if request.method == "OPTIONS":
                headers["Access-Control-Allow-Methods"] = headers.get("Allow", "")
                headers["Access-Control-Allow-Headers"] = (
                    "Content-Type, If-Match, If-None-Match, X-Request-Id"
                )
                headers["Access-Control-Max-Age"] = "600"

    def tell(
        self, method: str, path: str, status: int, address: str, id: str, began: float, *, lasts: bool = False
    ) -> None:
        """Count a request that is answered, and say in the log what is to be said there.

        `path`: the target as it came; `lasts`: how long it took says nothing of the bridge.
        """
        seconds = time.monotonic() - began
        self.metrics.request(method, status, None if lasts else seconds)
        if self._log_all or (self._log_errors and status >= 400):
            self._access_log.info(
                "request",
                extra={
                    "fields": {
                        "method": method,
                        "path": path,
                        "status": status,
                        "ms": round(seconds * 1000, 2),
                        "from": address,
                        "id": id,
                    }
                },
            )

    def refused(self, request: web.BaseRequest, message: str, status: int) -> web.Response:
        """Return the answer to what is no HTTP; `request` stands for it."""
        self.metrics.count("bad_requests")
        assert isinstance(request, Request)
        request.id = self._new_id()
        response = answers.error_response(Refusal(status, "InvalidValue", message[:300], close=True))
        self.finish(request, response)
        self.tell(
            request.method,
            request.raw_path,
            response.status,
            request.remote or "",
            request.id,
            time.monotonic(),
            lasts=True,  # nobody knows since when
        )
        return response


def _watches(query: str) -> bool:
    """Whether the parameter `watch` is in `query`. Raises `BadRequest`."""
    return ("watch" in query or "%" in query) and "watch" in parse_query(query)


def _options(allowed: str) -> Plain:
    async def options(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=204, headers={"Allow": allowed})

    return options
