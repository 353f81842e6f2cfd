"""A daemon that is told to stop while it starts: it ends in order, with exit status 0.

Imports next to nothing: it stands before the imports of a program, which are a good part of its start.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

__all__ = ["SIGNALS", "Stopped", "orderly"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What asks a daemon to stop."""


class Stopped(BaseException):
    """A signal came before the program had handlers of its own. No `Exception`, since it is no failure."""


def orderly(action: Callable[[], int]) -> int:
    """Run `action`, the whole of a daemon, its imports too, and return its exit status.

    From its start on `SIGNALS` raise `Stopped` in it, once, and then the status is 0. As soon as it can stop
    in a better way it sets handlers of its own. Afterwards they are ignored: the program ends already.
    """

    def stop(*_: Any) -> None:
        _ignore()
        raise Stopped

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        return action()
    except Stopped:
        return 0
    finally:
        _ignore()


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
