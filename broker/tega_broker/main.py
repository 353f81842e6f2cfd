"""`tega-broker`: the gateway's node, which owns the tree."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from tega_zmq.runtime.orderly import orderly

__all__ = ["main"]

_PATIENCE = 5.0
"""Seconds that the bridge may take to stop while the broker still answers it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the broker with the command line `argv`; return its exit status."""
    return orderly(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    from tega_broker.child import Child, bridge_command, bridge_is_installed
    from tega_zmq.log.disk import OsDisk
    from tega_zmq.runtime import args, logs
    from tega_zmq.runtime.config import BrokerConfig
    from tega_zmq.runtime.program import run

    config = args.parse(
        BrokerConfig,
        "tega-broker",
        "The broker: holds the versioned tree, publishes its changes, routes calls.",
        argv,
    )
    logger = logs.setup("tega-broker", config.log_level, config.log_format)
    if not config.bridge.enabled:
        return run(config, logger, OsDisk())
    if not bridge_is_installed():
        logger.info("no bridge: it needs what `pip install 'tega-zmq[bridge]'` installs")
        return run(config, logger, OsDisk())
    children: list[Child] = []

    def ready(endpoint: str) -> None:
        child = Child(bridge_command(config, endpoint), logger)
        children.append(child)
        child.start()

    def closing(tick: Callable[[], None]) -> None:
        """Stop the bridge while the broker still answers it."""
        until = time.monotonic() + _PATIENCE
        for child in children:
            child.ask_to_stop()
            while not child.stopped and time.monotonic() < until:
                tick()

    def reload() -> None:
        for child in children:
            child.reload()

    try:
        return run(config, logger, OsDisk(), ready=ready, closing=closing, reload=reload)
    finally:
        for child in children:
            child.stop(config.bridge.limits.stop + 5.0)


if __name__ == "__main__":
    sys.exit(main())
