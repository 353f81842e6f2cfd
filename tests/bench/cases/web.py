"""The bridge: GET and PUT over one connection, against an aiohttp application that keeps a dict.

And against the least that can stand there: an aiohttp application before the bare ROUTER of `baseline.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.bench.harness import (
    SERVER,
    Case,
    Program,
    Row,
    Sample,
    Server,
    Sides,
    baseline,
    broker,
    folder,
    free_port,
    helper,
    load,
)

SECONDS = 2.0


@contextmanager
def bare_web(*argv: str) -> Iterator[Server]:
    """Run the baseline, or another script that prints its url."""
    with folder() as scratch:
        program = Program([*(argv or ("bare_web.py",))], os.path.join(scratch, "stderr"), SERVER)
        try:
            yield Server(program, program.line())
        finally:
            program.stop()


@contextmanager
def bare_chain() -> Iterator[Server]:
    """Run the least that a bridge in front of a durable store can be."""
    with baseline("kv") as store, bare_web("bare_chain.py", store.url) as chain:
        yield chain


@contextmanager
def bridge(node: Server, *settings: str) -> Iterator[Server]:
    """Run a bridge of a broker."""
    url = f"http://127.0.0.1:{free_port()}"
    argv = ["-m", "tega_broker.bridge"]
    for setting in (f"listen={url}", f"broker={node.url}", "access_log=errors", *settings):
        argv += ["--set", setting]
    with folder() as scratch:
        program = Program(argv, os.path.join(scratch, "stderr"), SERVER)
        try:
            program.wait_for("ready")
            yield Server(program, url)
        finally:
            program.stop()


def pair(
    method: str, other: Callable[[], AbstractContextManager[Server]] = bare_web
) -> Callable[[], AbstractContextManager[Sides]]:
    """Return what opens both sides."""

    @contextmanager
    def opened() -> Iterator[Sides]:
        with broker() as node, bridge(node) as ours, other() as base:
            yield Sides(
                lambda: load("bare-http", ours.url, method, SECONDS),
                lambda: load("bare-http", base.url, method, SECONDS),
            )

    return opened


@contextmanager
def ceiling() -> Iterator[Sides]:
    """The bare chain against the application that only keeps a dict: more, no bridge can reach."""
    with bare_chain() as chain, bare_web() as base:
        yield Sides(
            lambda: load("bare-http", chain.url, "PUT", SECONDS),
            lambda: load("bare-http", base.url, "PUT", SECONDS),
        )


@contextmanager
def watched() -> Iterator[Sides]:
    """Watchers by WebSockets, and by ZeroMQ."""
    with broker() as node, bridge(node) as web:
        putter = ("tega-paced", 60, 0.04)

        def measure(server: Server, role: str) -> Sample:
            with helper(role, server.url, 100) as watching:
                load(putter[0], node.url, *putter[1:])
                return watching.finish()

        yield Sides(lambda: measure(web, "raw-web-watch"), lambda: measure(node, "raw-watch"))


@contextmanager
def called() -> Iterator[Sides]:
    """Calls through a tunnel, and over tcp; the handler is connected over tcp."""
    with broker() as node, bridge(node) as web:
        tunnel = web.url.replace("http", "ws")
        with helper("tega-handler", node.url):
            yield Sides(
                lambda: load("tega-call", tunnel, SECONDS), lambda: load("tega-call", node.url, SECONDS)
            )


CASES = (
    *(
        Case(
            f"http-{method.lower()}",
            (
                Row("rate", f"HTTP {method} over one connection{more}", "/s", ">=", 0.5, ratio=True),
                Row("p99", f"HTTP {method} over one connection, p99", "ms", "", 0, ratio=True),
            ),
            pair(method),
        )
        for method, more in (("GET", ""), ("PUT", ", durable"))
    ),
    *(
        Case(
            f"http-{method.lower()}-chain",
            (Row("rate", f"HTTP {method}, against aiohttp before a ROUTER{more}", "/s", "", 0, ratio=True),),
            pair(method, bare_chain),
        )
        for method, more in (("GET", ""), ("PUT", ", durable"))
    ),
    Case(
        "http-put-ceiling",
        (Row("rate", "aiohttp before a bare durable ROUTER, against a dict", "/s", "", 0, ratio=True),),
        ceiling,
    ),
    Case(
        "web-watch-100",
        (Row("p50", "put to the last of 100 WebSockets, against ZeroMQ", "ms", "<=", 2.0, ratio=True),),
        watched,
    ),
    Case(
        "tunnel-call",
        (Row("p50", "RPC, 1 in flight, through a tunnel, against tcp", "ms", "<=", 2.0, ratio=True),),
        called,
    ),
)
