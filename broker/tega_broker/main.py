"""`tega-broker`: the gateway's node, which owns the tree."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tega_zmq.log.disk import OsDisk
from tega_zmq.runtime import args, logs
from tega_zmq.runtime.config import BrokerConfig
from tega_zmq.runtime.program import run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the broker with the command line `argv`; return its exit status."""
    config = args.parse(
        BrokerConfig,
        "tega-broker",
        "The broker: holds the versioned tree, publishes its changes, routes calls.",
        argv,
    )
    logger = logs.setup("tega-broker", config.log_level, config.log_format)
    if config.bridge.enabled:
        logger.info("no bridge: the HTTP bridge is not part of this version")
    return run(config, logger, OsDisk())


if __name__ == "__main__":
    sys.exit(main())
