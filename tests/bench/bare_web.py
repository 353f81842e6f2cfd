"""The baseline of the bridge: an aiohttp application that keeps a dict. Prints its url."""

from __future__ import annotations

import asyncio

from aiohttp import web

STORE: web.AppKey[dict[str, object]] = web.AppKey("store", dict)


async def get(request: web.Request) -> web.Response:
    """Return what stands at the path."""
    try:
        return web.json_response(request.app[STORE][request.path])
    except KeyError:
        raise web.HTTPNotFound from None


async def put(request: web.Request) -> web.Response:
    """Keep a value at the path."""
    request.app[STORE][request.path] = await request.json()
    return web.json_response({"revision": 1})


async def main() -> None:
    """Serve until told to end."""
    app = web.Application()
    app[STORE] = {}
    app.router.add_get("/{path:.*}", get)
    app.router.add_put("/{path:.*}", put)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
