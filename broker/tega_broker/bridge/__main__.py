"""`tega-bridge` and `python -m tega_broker.bridge`: the bridge, with its imports, under `orderly`."""

from __future__ import annotations

import sys

from tega_zmq.runtime.orderly import orderly

__all__ = ["main"]


def main() -> int:
    """Run the bridge with the command line of the process; return its exit status."""

    def run() -> int:
        from tega_broker.bridge.main import main

        return main()

    return orderly(run)


if __name__ == "__main__":
    sys.exit(main())
