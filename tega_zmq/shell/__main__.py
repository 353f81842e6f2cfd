"""`tega` and `python -m tega_zmq.shell`: the shell, and Ctrl-C while it is still being imported."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the `tega` command; return its exit status, 130 after Ctrl-C."""
    try:
        from tega_zmq.shell.main import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
