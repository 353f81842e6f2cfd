"""The straight way: a plain GET or PUT of a path in the bridge's own session.

Such a request is most often one of many on its connection. `Bridge.answer` is a coroutine in a task of its
own that awaits a future, which takes five turns of the event loop and many small objects. Here the broker is
asked where the request is read, and the answer is written where the reply is. It comes to the same; whatever
is not usual, errors too, is handed over to `Bridge.answer`, with what is known of it by then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from tega_broker.bridge.answers import PACK_FROM, Refusal, dump, dump_sorted, error_response
from tega_broker.bridge.reading import ASIDE, oids, parse_json
from tega_broker.bridge.rest_data import committed, tag_of, value_response
from tega_zmq import aio
from tega_zmq.client.requests import as_committed, as_node, to_value
from tega_zmq.errors import InvalidValue, TegaError
from tega_zmq.paths import Path, format_path

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge
    from tega_broker.bridge.connection import Connection

__all__ = ["FITS", "STRAIGHT", "Handed", "begin", "could_go"]

_USED: Final = frozenset(
    (
        *("_close", "_force_close", "_handler_waiter", "_keepalive_handle", "_keepalive_timeout", "_manager"),
        *("_messages", "_next_keepalive_close_time", "_parser", "_paused", "_process_keepalive"),
        *("_request_in_progress", "_waiter", "force_close"),
    )
)
FITS: Final = set(dir(RequestHandler)) >= _USED and hasattr(HttpRequestParser, "message_consumed")
"""Whether this aiohttp has inside what `Connection` uses of it for the straight way."""

_TRIED: Final = frozenset({"3.14"})
"""The versions of aiohttp that tests/bridge was run with. What is inside may change with any other."""

STRAIGHT: Final = FITS and ".".join(aiohttp.__version__.split(".")[:2]) in _TRIED
"""Whether there is a straight way; else each request goes the other one, which is only slower."""


class Handed(NamedTuple):
    """What is known of a request that was begun on the straight way."""

    id: str
    began: float
    """When, monotonic seconds."""
    outcome: Exception | web.Response


def could_go(message: Any, payload: StreamReader) -> bool:
    """Whether a request can go the straight way, as far as its head says."""
    if type(message) is not RawRequestMessage:
        return False  # what was no HTTP
    path, method = message.path, message.method
    if (
        (payload is not EMPTY_PAYLOAD if method == "GET" else method != "PUT" or message.chunked)
        or "?" in path
        or "#" in path
        or path[:1] != "/"
        or path[1:2] == "_"
        or message.should_close
        or message.upgrade
        or message.version != HttpVersion11
    ):
        return False
    headers = message.headers
    if "Origin" in headers or "Sec-Fetch-Site" in headers or "Referer" in headers:
        return False
    if method == "GET":
        return "If-None-Match" not in headers
    return not (
        "If-Match" in headers
        or "If-None-Match" in headers
        or "Content-Encoding" in headers
        or "Expect" in headers
        or len(headers.get("Content-Length", "")) > _DIGITS
    )


_DIGITS: Final = len(str(ASIDE))


def begin(connection: Connection, bridge: Bridge, message: RawRequestMessage, payload: StreamReader) -> bool:
    """Ask the broker what `message` asks for, whose body has come; `connection` has the answer written.

    Returns False, and has done nothing, if it is not to be done here: `Bridge.answer` says why, or waits.
    """
    client = bridge.members.ready()
    if client is None or bridge.stopping:
        return False
    headers = message.headers
    if not bridge.access.allows_host(headers["Host"], connection.here):
        return False
    is_get = message.method == "GET"
    if not is_get and (
        client._put_waits or int(headers.get("Content-Length", "0")) > min(ASIDE, bridge.limits.body)
    ):
        return False
    now = time.monotonic()
    if bridge.rates.take(connection.address, now):
        return False
    id = bridge.id_of(headers)
    made = (_Read if is_get else _Write)(connection, bridge, client, message, id, now)
    try:
        path = oids(message.path)
        if is_get:
            client._begin_node(made, path)
        else:
            client._begin_put(made, path, _value(payload.read_nowait(-1), path))
    except Exception as error:  # noqa: BLE001  # it is told by who takes it over
        made.hand_over(error)
    return True


def _value(body: bytes, path: Path) -> Any:
    value = parse_json(body)
    try:
        return to_value(value)
    except InvalidValue:
        return to_value(value, format_path(path))  # the error is to say where


class _Asking:
    """A request that is on its way: the broker's reply is told to it, see `aiodriver.Waiter`."""

    __slots__ = ("began", "bridge", "client", "connection", "id", "message")

    def __init__(
        self,
        connection: Connection,
        bridge: Bridge,
        client: aio.Client,
        message: RawRequestMessage,
        id: str,
        began: float,
    ) -> None:
        self.connection = connection
        self.bridge = bridge
        self.client = client
        self.message = message
        self.id = id
        self.began = began

    def hand_over(self, outcome: Exception | web.Response) -> None:
        """Let `Bridge.answer` tell `outcome`."""
        if self.connection.hand_over(Handed(self.id, self.began, outcome)):
            return
        # Who asked has gone. It counts nevertheless.
        if isinstance(outcome, web.Response):
            self.tell(outcome.status)
        elif isinstance(outcome, (TegaError, Refusal)):
            self.tell(error_response(outcome).status)
        else:
            self.bridge.logger.error("a request failed by an error of the bridge", exc_info=outcome)

    def tell(self, status: int) -> None:
        """Count the request, and say in the log what is to be said there."""
        message = self.message
        self.bridge.tell(message.method, message.path, status, self.connection.address, self.id, self.began)

    def answer(self, more: str, body: bytes) -> None:
        """Write the answer, 200 with the headers `more`, which each end a line, as aiohttp would."""
        self.tell(200)
        head = (
            f"HTTP/1.1 200 OK\r\n{more}Content-Type: application/json\r\nX-Request-Id: {self.id}\r\n"
            "Server: tega-bridge\r\nX-Content-Type-Options: nosniff\r\n"
            f"Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n"
        )
        self.connection.answered(head.encode() + body)


class _Read(_Asking):
    __slots__ = ()

    def set_result(self, reply: Any) -> None:
        """See `Waiter`."""
        try:
            node = as_node(reply)
            body = dump_sorted(node.value)
            if len(body) >= PACK_FROM or node.handlers:
                self.hand_over(value_response(node, body))
                return
        except Exception as error:  # noqa: BLE001  # as in `begin`
            self.hand_over(error)
            return
        age = "" if node.age is None else f"Age: {int(node.age)}\r\n"
        self.answer(
            f'ETag: "{tag_of(node)}"\r\nX-Tega-Version: {node.version}\r\nCache-Control: no-cache\r\n{age}',
            body,
        )

    def set_exception(self, error: TegaError) -> None:
        """See `Waiter`."""
        self.hand_over(error)


class _Write(_Asking):
    __slots__ = ()

    def set_result(self, reply: Any) -> None:
        """See `Waiter`."""
        self.client._end_put()
        try:
            done = as_committed(reply)
            body = dump({"revision": done.revision, "versions": done.versions})
            if len(body) >= PACK_FROM:
                self.hand_over(committed(done))
                return
        except Exception as error:  # noqa: BLE001  # as in `begin`
            self.hand_over(error)
            return
        self.answer("", body)

    def set_exception(self, error: TegaError) -> None:
        """See `Waiter`."""
        self.client._end_put()
        self.hand_over(error)
