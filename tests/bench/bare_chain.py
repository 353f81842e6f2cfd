"""The least that a bridge can be: an aiohttp application that asks the bare ROUTER loop. Prints its url.

`python bare_chain.py ENDPOINT`, of `baseline.py kv`. What it takes longer than `bare_web.py` is the price of
a store in another process, and, for a PUT, of the disk.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgpack
import zmq
from aiohttp import web
from baseline import GET, PUT


class Store:
    """Asks the loop; one answer for each request, found by its number."""

    def __init__(self, endpoint: str) -> None:
        self.socket = zmq.Context().socket(zmq.DEALER)
        self.socket.connect(endpoint)
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.socket.getsockopt(zmq.FD), self.read)
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.last = 0

    async def ask(self, op: int, key: str, value: object = None) -> Any:
        """Return the answer to a request."""
        self.last += 1
        future = self.waiting[self.last] = self.loop.create_future()
        self.socket.send(msgpack.packb((op, self.last, key, value)))
        self.read()
        return await future

    def read(self) -> None:
        """Read what is there."""
        while self.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            number, value = msgpack.unpackb(self.socket.recv())
            self.waiting.pop(number).set_result(value)


STORE: web.AppKey[Store] = web.AppKey("store", Store)


async def get(request: web.Request) -> web.Response:
    """Return what stands at the path."""
    found = await request.app[STORE].ask(GET, request.path)
    if found is None:
        raise web.HTTPNotFound
    return web.json_response(found[1])


async def put(request: web.Request) -> web.Response:
    """Keep a value at the path."""
    revision = await request.app[STORE].ask(PUT, request.path, await request.json())
    return web.json_response({"revision": revision})


async def main(endpoint: str) -> None:
    """Serve until told to end."""
    app = web.Application()
    app[STORE] = Store(endpoint)
    app.router.add_get("/{path:.*}", get)
    app.router.add_put("/{path:.*}", put)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
