"""A real broker in a process of its own, and a bridge of it in a thread of the test's process."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from tega_broker.bridge.main import Serving, serve
from tega_zmq import connect
from tega_zmq.client.blocking import Client
from tega_zmq.runtime.config import BridgeConfig, load
from tests.processes import Program, free_ports, until

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds; only a failing test waits so long."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The name of the error that it tells."""
        assert self.headers["content-type"] == "application/json", self
        return str(self.json["error"])


class Site:
    """A broker with a bridge."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """`settings` are keys of the bridge's config, `limits__rate="1"`."""
        self.folder = folder
        requests, changes = free_ports(2)
        self.broker_url = f"tcp://127.0.0.1:{requests}"
        self.broker = Program(
            "tega_broker.main",
            folder / "broker",
            {
                "tega_id": "gateway",
                "listen.requests": self.broker_url,
                "listen.changes": f"tcp://127.0.0.1:{changes}",
                "bridge.enabled": "false",
                "session.lease": "3",
            },
        )
        flags = {
            "listen": "http://127.0.0.1:0",
            "broker": self.broker_url,
            "tega_id": "the-bridge",
        } | settings
        self.config = load(BridgeConfig, (), {}, [f"{k.replace('__', '.')}={v}" for k, v in flags.items()])
        self.loop = asyncio.new_event_loop()
        self.serving: Serving
        self._thread = threading.Thread(target=self.loop.run_forever, name="bridge-loop", daemon=True)
        self._clients: list[Client] = []
        self._own: http.client.HTTPConnection | None = None

    def start(self, broker: bool = True) -> None:
        """Start both, and wait until they are ready."""
        if broker:
            self.broker.start()
        self._thread.start()
        self.serving = self.run(serve(self.config, logging.getLogger("tega")))
        if broker:
            until(lambda: self.ask("GET", "/_health").status == 200, "the bridge is ready")

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the bridge's loop."""
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(PATIENCE)

    @property
    def url(self) -> str:
        """Of the bridge."""
        return self.serving.url

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the bridge."""
        at = urlsplit(self.url)
        assert at.hostname is not None
        assert at.port is not None
        return at.hostname, at.port

    def connection(self) -> http.client.HTTPConnection:
        """A new HTTP connection to the bridge."""
        return http.client.HTTPConnection(*self.address, timeout=PATIENCE)

    def socket(self) -> socket.socket:
        """A new bare connection to the bridge."""
        return socket.create_connection(self.address, timeout=PATIENCE)

    def ask(
        self,
        method: str,
        target: str,
        value: Any = ...,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        on: http.client.HTTPConnection | None = None,
    ) -> Answer:
        """Make a request; `value` is sent as JSON."""
        if value is not ...:
            body = json.dumps(value).encode()
        connection = on
        if connection is None:
            if self._own is None:
                self._own = self.connection()
            connection = self._own
        reused = on is None and connection.sock is not None
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            if not reused:
                raise
            connection.close()  # it was idle for too long
            return self.ask(method, target, body=body, headers=headers)
        found: dict[str, str] = {}
        for name, text in response.getheaders():
            found[name.lower()] = f"{found[name.lower()]}, {text}" if name.lower() in found else text
        answer = Answer(response.status, found, response.read())
        if on is None and response.will_close:
            connection.close()
        return answer

    def client(self, tega_id: str | None = None) -> Client:
        """A client of the broker; closed with the site."""
        client = connect(self.broker_url, tega_id)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """End everything."""
        if self._own is not None:
            self._own.close()
        for client in self._clients:
            client.close()
        if hasattr(self, "serving"):
            self.run(self.serving.stop())
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE)
        self.loop.close()
        self.broker.end()


@contextmanager
def site(folder: Path, *, broker: bool = True, **settings: str) -> Iterator[Site]:
    """A running site that ends with the block."""
    made = Site(folder, **settings)
    try:
        made.start(broker)
        yield made
    finally:
        made.close()


def url_of(*oids: str) -> str:
    """The URL path of a path of oids."""
    return "/" + "/".join(quote(oid, safe="") for oid in oids) + "/"
