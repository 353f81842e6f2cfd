"""What aiohttp's server is made to do for the bridge: connections that count, and requests with an id.

Here is all that knows of the inside of `aiohttp.web_protocol.RequestHandler`; `direct` says with which
versions of it the straight way is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from tega_broker.bridge import answers, direct
from tega_broker.bridge.answers import Refusal

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge

__all__ = ["Connection", "Request", "Server"]

_BODY = 0.05
"""Seconds that a body may come later than its head for the straight way."""


class Request(web.BaseRequest):
    """One request, with its id, and path and query of its target."""

    id = ""
    target = ("", "")
    lasts = False
    """It stays for as long as its peer likes: how long that is says nothing of the bridge."""
    handed: direct.Handed | None = None
    """What is known of it, if it was begun on the straight way."""

    @contextmanager
    def given_up_with_peer(self) -> Iterator[None]:
        """What the block awaits is cancelled when the peer hangs up, `ConnectionResetError` raised then."""
        connection = self.protocol
        task = asyncio.current_task()
        assert isinstance(connection, Connection)
        assert task is not None
        if self.transport is None:
            raise ConnectionResetError("the peer hung up")
        connection.dependent = task
        try:
            yield
        except asyncio.CancelledError:
            if not connection.lost or task.uncancel() > 0:
                raise  # somebody else cancelled it
            raise ConnectionResetError("the peer hung up") from None
        finally:
            connection.dependent = None


class Connection(RequestHandler):
    """One connection, counted; what is no HTTP is answered as all else is.

    `RequestHandler.start` takes one request after the other from `_messages`, and sleeps while there is none
    until `_waiter` is done. While one goes the straight way (`direct`), that future is in `_sleeper` instead,
    so that nothing that comes wakes it.
    """

    __slots__ = (
        *("_bridge", "_counted", "_handed", "_patience", "_sleeper", "_unread"),
        *("address", "dependent", "here", "lost"),
    )

    def __init__(self, bridge: Bridge, server: web.Server, address: str, **options: Any) -> None:
        super().__init__(server, **options)
        self._bridge = bridge
        self._counted = True
        self.address = address
        """Of the peer."""
        self.here = ""
        """The address of this machine that it came to."""
        self.dependent: asyncio.Task[Any] | None = None
        """What is cancelled when the connection is lost."""
        self.lost = False
        self._sleeper: asyncio.Future[None] | None = None
        self._unread = False
        """The body of the request that goes the straight way has not come yet."""
        self._patience: asyncio.TimerHandle | None = None
        """While there is one, it sees to it that no body is waited for longer than `_BODY`."""
        self._handed: direct.Handed | None = None

    def leave(self) -> None:
        """It is over, or never began: it counts no more."""
        if self._counted:
            self._bridge.disconnected(self.address)
            self._counted = False

    def close(self) -> None:
        """See `RequestHandler`; one that has asked for nothing yet is not waited for."""
        super().close()
        if self._unread:
            self._wake()
        if not self._request_in_progress and not self._messages:
            self.force_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sockname = transport.get_extra_info("sockname")
        self.here = str(sockname[0]) if isinstance(sockname, tuple) else ""
        super().connection_made(transport)

    def connection_lost(self, error: BaseException | None) -> None:
        self.leave()
        if self._patience is not None:
            self._patience.cancel()
        if self._unread:
            self._unread = False
            self._bridge.metrics.count("hang_ups")
            self._waiter, self._sleeper = self._sleeper, None  # which this cancels
        self.lost = True
        if self.dependent is not None:
            self.dependent.cancel()
        super().connection_lost(error)

    # -- the straight way --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See `RequestHandler`."""
        sleeper = self._waiter
        if sleeper is None or sleeper.done() or not direct.STRAIGHT:
            super().data_received(data)
            if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
                self._break_body(self._messages[-1][0].message or "")
            if self._unread and self._messages[0][1].is_eof():
                self._unread = False
                self._begin()
            return
        self._waiter, self._sleeper = None, sleeper
        super().data_received(data)
        if not self._messages:
            self._waiter, self._sleeper = sleeper, None
            return
        message, body = self._messages[0]
        if self._paused or not direct.could_go(message, body):
            self._wake()
        elif body.is_eof():
            self._begin()
        else:
            self._unread = True
            if self._patience is None:
                self._patience = self._loop.call_later(_BODY, self._on_patience)

    def _on_patience(self) -> None:
        self._patience = None
        if self._unread and not self._ends():
            self._wake()

    def _begin(self) -> None:
        message, body = self._messages[0]
        self._request_in_progress = True
        if not direct.begin(self, self._bridge, message, body):  # type: ignore[arg-type]  # `could_go` said so
            self._request_in_progress = False
            self._wake()

    def _ends(self) -> bool:
        """Whether the connection is lost, or about to be told of as lost: `start` must not be woken then."""
        return self.transport is None or self.transport.is_closing()

    def _wake(self) -> None:
        """Let `start` have the request."""
        self._unread = False
        sleeper, self._sleeper = self._sleeper, None
        self._waiter = sleeper
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)

    def answered(self, answer: bytes) -> None:
        """Write the answer to the request, which is all of it."""
        transport = self.transport
        if transport is not None:
            transport.write(answer)
            self._messages.popleft()
            self._parser.message_consumed()  # type: ignore[union-attr]  # there as long as the transport
        self.over()

    def hand_over(self, handed: direct.Handed) -> bool:
        """Let `start` go on with the request; return False if nobody is there any more who asked it."""
        if self._manager is None or self._ends():
            self.over()
            return False
        self._handed = handed
        self._wake()
        return True

    def take_handed(self) -> direct.Handed | None:
        """Return what is known of the request that `start` has taken."""
        handed, self._handed = self._handed, None
        return handed

    def over(self) -> None:
        """What `start` does after each request."""
        if self._ends():
            self._force_close = True
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self._close or self._force_close:
            self._waiter, self._sleeper = self._sleeper, None
            self.force_close()  # it cancels `start`
        elif self._messages:
            self._wake()
        else:
            self._waiter, self._sleeper = self._sleeper, None
            self._next_keepalive_close_time = at = self._loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = self._loop.call_at(at, self._process_keepalive)

    # -- what is no HTTP ---------------------------------------------------------------------------

    def _break_body(self, why: str) -> None:
        """What came last was no HTTP: if a body was coming, tell so who reads it.

        The parser that is written in C tells nobody but `data_received`.
        """
        if len(self._messages) > 1:
            body = self._messages[-2][1]
        elif self._current_request is not None:
            body = self._current_request.content
        else:
            return
        if not body.is_eof():
            body.set_exception(web.RequestPayloadError(why))
            body.feed_eof()  # `start` is not to wait for the rest

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See `RequestHandler`; there is no 500."""
        if status >= 500:
            status = 503
            if isinstance(exc, ConnectionError):  # who has gone does not read the answer
                self._bridge.metrics.count("hang_ups")
                return answers.error_response(Refusal(503, "Disconnected", "the peer hung up", close=True))
            self._bridge.logger.error("a request failed", exc_info=exc)
        text = " ".join((message or str(exc) or "no HTTP").split())
        return self._bridge.refused(request, f"the request cannot be read: {text}", status)


class Server(web.Server):
    """What makes requests and connections of a bridge."""

    def __init__(self, bridge: Bridge, **options: Any) -> None:
        super().__init__(bridge.answer, request_factory=self._request, **options)
        self._bridge = bridge

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        request = Request(message, payload, protocol, writer, task, self._loop)
        request.handed = protocol.take_handed()
        return request

    def connection(self, address: str) -> Connection:
        return Connection(self._bridge, self, address, loop=self._loop, **self._kwargs)
