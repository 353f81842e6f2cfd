"""What the bridge counts, and how it is written for Prometheus (text format 0.0.4).

The format is a few lines of text; a library for it would be one more thing to install on a gateway, and
keeps its numbers in globals, which tests of several bridges in one process would share.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["BUCKETS", "Exposition", "Metrics"]

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of histograms, seconds."""

_METHODS = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "OPTIONS"})


class Metrics:
    """Counters of one bridge."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        """By method and status."""
        self.seconds = [0] * (len(BUCKETS) + 1)
        """Requests by how long they took; the last one took longer than all bounds."""
        self.seconds_sum = 0.0
        self.counts: dict[str, int] = {}

    def request(self, method: str, status: int, seconds: float | None) -> None:
        """One request was answered, within `seconds`; None: that says nothing."""
        key = (method if method in _METHODS else "other", status)
        self.requests[key] = self.requests.get(key, 0) + 1
        if seconds is None:
            return
        self.seconds_sum += seconds
        self.seconds[bisect_left(BUCKETS, seconds)] += 1

    def count(self, name: str, by: int = 1) -> None:
        """Something happened."""
        self.counts[name] = self.counts.get(name, 0) + by


class Exposition:
    """Text for Prometheus, metric by metric."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def metric(
        self,
        name: str,
        kind: str,
        words: str,
        samples: Iterable[tuple[Mapping[str, Any], float | None]],
    ) -> None:
        """Add a metric with its samples, `(labels, value)`; those without a value are left out."""
        found = [(labels, value) for labels, value in samples if value is not None]
        if not found:
            return
        self._lines.append(f"# HELP {name} {_help(words)}")
        self._lines.append(f"# TYPE {name} {kind}")
        for labels, value in found:
            self._lines.append(f"{name}{_labels(labels)} {_number(value)}")

    def one(self, name: str, kind: str, words: str, value: float | None) -> None:
        """Add a metric with one sample."""
        self.metric(name, kind, words, [({}, value)])

    def histogram(
        self, name: str, words: str, bounds: Sequence[float], counts: Sequence[int], total: float
    ) -> None:
        """Add a histogram: `counts` by bound, not summed up, the last one beyond all bounds."""
        self._lines.append(f"# HELP {name} {_help(words)}")
        self._lines.append(f"# TYPE {name} histogram")
        so_far = 0
        for bound, count in zip(bounds, counts, strict=False):
            so_far += count
            self._lines.append(f'{name}_bucket{{le="{bound:g}"}} {so_far}')
        so_far += counts[-1]
        self._lines.append(f'{name}_bucket{{le="+Inf"}} {so_far}')
        self._lines.append(f"{name}_sum {_number(total)}")
        self._lines.append(f"{name}_count {so_far}")

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"


def _help(words: str) -> str:
    return words.replace("\\", "\\\\").replace("\n", "\\n")


def _labels(labels: Mapping[str, Any]) -> str:
    if not labels:
        return ""
    parts = []
    for name, value in labels.items():
        text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        parts.append(f'{name}="{text}"')
    return "{" + ",".join(parts) + "}"


def _number(value: float) -> str:
    return str(value) if type(value) is int else repr(float(value))
