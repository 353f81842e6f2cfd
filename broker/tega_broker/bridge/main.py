"""`tega-bridge`: HTTP and WebSocket in front of a broker."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from aiohttp import web

from tega_broker.bridge import tls
from tega_broker.bridge.app import Bridge
from tega_broker.bridge.door import Door, room
from tega_broker.bridge.parts import add_parts
from tega_zmq.runtime import args, logs
from tega_zmq.runtime.config import BridgeConfig
from tega_zmq.runtime.notify import Notifier
from tega_zmq.runtime.program import SWITCH, calm_collector, raise_descriptors
from tega_zmq.runtime.schema import ConfigError

__all__ = ["Serving", "main", "serve"]

_SETTLE = 0.05
"""Seconds that what was accepted has to begin, before connections are closed."""


_COLLECT_AFTER = 20_000
"""New objects before the collector looks at them: a body of a megabyte can hold a million."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bridge with the command line `argv`; return its exit status."""
    config = args.parse(
        BridgeConfig,
        "tega-bridge",
        "The bridge: the broker's tree over HTTP and WebSocket.",
        argv,
        keys=("broker", "listen"),
    )
    logger = logs.setup("tega-bridge", config.log_level, config.log_format)
    raise_descriptors(logger)
    sys.setswitchinterval(SWITCH)
    try:
        return asyncio.run(_run(config, logger))
    except (ConfigError, OSError) as error:
        logger.error("cannot start", extra={"fields": {"error": _reason(error, config)}})
        return 1


def _reason(error: Exception, config: BridgeConfig) -> str:
    if isinstance(error, OSError):
        return f"{config.listen}: {error.strerror or error}"
    return str(error)


class Serving:
    """A bridge that listens. `url` says where, with the port that the system gave."""

    def __init__(
        self, bridge: Bridge, runner: web.ServerRunner, door: Door, url: str, secure: ssl.SSLContext | None
    ) -> None:
        self.bridge = bridge
        self.url = url
        self._runner = runner
        self._door = door
        self._secure = secure

    def reload(self) -> None:
        """Read the certificate again."""
        logger = self.bridge.logger
        if self._secure is None:
            logger.info("nothing to reload: there is no certificate")
            return
        try:
            tls.reload(self._secure, self.bridge.config.tls)
        except ConfigError as error:
            logger.error("the certificate stays as it was", extra={"fields": {"error": str(error)}})
        else:
            logger.info("certificate read again")

    async def stop(self, reason: str = "the bridge is stopping") -> None:
        """End everything in order: what lasts hears `reason`, requests may end, then the sessions close."""
        await self.bridge.stop(reason)
        self._door.pause()
        await asyncio.sleep(_SETTLE)
        self._door.close()
        await self._runner.cleanup()
        await self.bridge.close()


async def serve(config: BridgeConfig, logger: logging.Logger) -> Serving:
    """Start a bridge. Raises `OSError` if it cannot listen, `ConfigError` for a bad certificate."""
    secure = tls.context(config.tls)
    bridge = Bridge(config, logger)
    add_parts(bridge)
    runner = web.ServerRunner(bridge.server(), shutdown_timeout=config.limits.stop)
    await runner.setup()
    at = urlsplit(config.listen)
    door = Door(bridge, secure)
    try:
        port = await door.open(at.hostname, at.port or 0)
    except BaseException:
        await runner.cleanup()
        await bridge.close()
        raise
    bridge.start()
    _tell_room(config, logger)
    host = f"[{at.hostname}]" if ":" in (at.hostname or "") else at.hostname
    return Serving(bridge, runner, door, f"{at.scheme}://{host}:{port}", secure)


def _tell_room(config: BridgeConfig, logger: logging.Logger) -> None:
    connections, tunnels = room()
    wanted = config.limits.connections
    if connections < wanted:
        logger.info(
            "fewer connections than limits.connections: the limit of file descriptors is low",
            extra={
                "fields": {"connections": connections, "limits.connections": wanted, "or tunnels": tunnels}
            },
        )


async def _run(config: BridgeConfig, logger: logging.Logger) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = await serve(config, logger)
    calm_collector(_COLLECT_AFTER)
    loop.add_signal_handler(signal.SIGHUP, serving.reload)
    notifier = Notifier()
    logger.info(
        "ready",
        extra={"fields": {"tega_id": config.tega_id, "listen": serving.url, "broker": config.broker}},
    )
    notifier.ready(f"serving {serving.url}")
    watchdog = loop.create_task(_watchdog(notifier))
    try:
        await stop.wait()
    finally:
        watchdog.cancel()
        with suppress(asyncio.CancelledError):
            await watchdog
        notifier.stopping()
        await serving.stop()
    logger.info("stopped")
    return 0


async def _watchdog(notifier: Notifier) -> None:
    interval = notifier.watchdog_interval
    while interval is not None:
        await asyncio.sleep(interval)
        notifier.watchdog()


if __name__ == "__main__":
    sys.exit(main())
