"""Log lines of the host: a few fixed words, and fields for what varies."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["say"]


def say(
    log: logging.Logger, level: str, event: str, error: BaseException | None = None, **fields: Any
) -> None:
    """Log `event` at `level` (debug, info, warning, error), with the traceback of `error` if there is one."""
    number = logging.getLevelNamesMapping()[level.upper()]
    log.log(number, event, exc_info=error, extra={"fields": fields})
