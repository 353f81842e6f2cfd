"""What of a reading is worth a commit: rounding that noise does not get through, and the patch that is left.

A value that moves stands in the tree until it has moved by a step; then the present one takes its place:

| leaf | step |
| --- | --- |
| `uptime` | rounded down to a minute, after the first hour to ten |
| `booted` | 10 s (the clock is being set) |
| `load.*` | 0.1, or a tenth of the value |
| `memory.*` | 2 % of the total |
| `disks.*.used`, `free` | 0.5 % of the size, at least 1 MiB |
| `disks.*.inodes_used` | 1 % of the inodes |
| `temperatures.*` | 2 degrees |
| `interfaces.*.rx_bytes`, `tx_bytes` | 1 MiB, or a hundredth of the value |

All else is written as it is. `booted` is exact, so that the uptime of any moment can be told from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tega_zmq import values

__all__ = ["patch", "settle"]

_MIB = 1 << 20


def settle(before: Any, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return `reading` with each value that has not moved by its step replaced by the one in `before`."""
    old = before if isinstance(before, dict) else {}
    return {name: _settled((name,), old.get(name), value, reading) for name, value in reading.items()}


def _settled(path: tuple[str, ...], old: Any, new: Any, around: Mapping[str, Any]) -> Any:
    if isinstance(new, dict):
        known = old if isinstance(old, dict) else {}
        return {name: _settled((*path, name), known.get(name), value, new) for name, value in new.items()}
    if path == ("uptime",):
        return int(new // 60 * 60 if new < 3600 else new // 600 * 600)
    step = _step(path, new, around)
    if step is None or type(old) not in (int, float) or isinstance(new, str):
        return new
    return old if abs(new - old) < step else new


def _step(path: tuple[str, ...], value: Any, around: Mapping[str, Any]) -> float | None:
    """Return by how much the leaf must move; `around` is the container that it is in."""
    group, leaf = path[0], path[-1]
    if path == ("booted",):
        return 10.0
    if group == "load":
        return max(0.1, float(value) / 10)
    if group == "memory" and leaf in ("available", "swap_free"):
        return float(around.get("total" if leaf == "available" else "swap_total", 0)) / 50
    if group == "disks" and leaf in ("used", "free"):
        return max(_MIB, float(around.get("size", 0)) / 200)
    if group == "disks" and leaf == "inodes_used":
        return float(around.get("inodes", 0)) / 100
    if group == "temperatures":
        return 2.0
    if leaf in ("rx_bytes", "tx_bytes"):
        return max(_MIB, float(value) / 100)
    return None


def patch(before: Any, after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch (RFC 7396) that leads from `before` to `after`; empty if nothing differs.

    What `before` shows of handlers (`%tega_id.name`) is no part of the tree and is left alone.
    """
    if not isinstance(before, dict):
        return dict(after)
    made: dict[str, Any] = {}
    for name in before.keys() - after.keys():
        if not _is_handler(before[name]):
            made[name] = None
    for name, value in after.items():
        if isinstance(value, dict) and isinstance(before.get(name), dict):
            inner = patch(before[name], value)
            if inner:
                made[name] = inner
        elif name not in before or not values.same(before[name], value):
            made[name] = value
    return made


def _is_handler(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_is_handler(each) for each in value.values())
    if isinstance(value, list):
        return bool(value) and all(_is_handler(each) for each in value)
    return isinstance(value, str) and value.startswith("%")
