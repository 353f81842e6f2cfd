"""`tega-agent`: the device's node, with a replica of its config and roots of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tega_zmq.runtime.orderly import orderly

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent with the command line `argv`; return its exit status."""
    return orderly(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    from tega_zmq.log.disk import OsDisk
    from tega_zmq.runtime import args, logs
    from tega_zmq.runtime.config import AgentConfig
    from tega_zmq.runtime.program import run

    config = args.parse(
        AgentConfig,
        "tega-agent",
        "The agent: keeps a replica of this device's config, works on while the link is down, runs plugins.",
        argv,
    )
    logger = logs.setup("tega-agent", config.log_level, config.log_format)
    return run(config, logger, OsDisk())


if __name__ == "__main__":
    sys.exit(main())
