"""Versions and times as they are typed: `7`, `-1`, `golden`, `2026-11-20T12:00`, `2h`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime

__all__ = ["moment", "reference", "tag_name"]

_TAG = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].*)?")
_AGO = re.compile(r"(\d{1,6})(s|min|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def reference(text: str) -> int | str:
    """Return the version that `text` stands for: a number, or as text a tag or a time.

    Whether there is such a version is for the node to say. Raises `ValueError` for what can be none.
    """
    if re.fullmatch(r"[-+]?\d{1,18}", text):
        return int(text)
    if _TAG.fullmatch(text):
        return text
    if _TIME.fullmatch(text):
        _iso(text)
        return text
    raise ValueError(
        f"{text[:40]!a} is no version; expected a number, -N to count back, a tag, or a time such as"
        " 2026-11-20T12:00"
    )


def tag_name(text: str) -> str:
    """Return `text` if it can name a version. Raises `ValueError`."""
    if not _TAG.fullmatch(text):
        raise ValueError(f"{text[:40]!a} is no tag: letters, digits, . _ and -, a letter first, 64 at most")
    return text


def moment(text: str, clock: Callable[[], float] = time.time) -> float:
    """Return the point in time that `text` stands for, in Unix seconds.

    `2026-11-20`, `2026-11-20T12:00`, with or without an offset (without: local time), or how long ago it was:
    `90s`, `30min`, `2h`, `3d`, `1w`. Raises `ValueError`.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return clock() - int(ago[1]) * _SECONDS[ago[2]]
    if _TIME.fullmatch(text):
        return _iso(text)
    raise ValueError(
        f"{text[:40]!a} is no time; expected one such as 2026-11-20T12:00, or how long ago: 30min, 2h, 3d"
    )


def _iso(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text[:40]!a} is no time; expected one such as 2026-11-20T12:00") from None
