"""What a plugin's thread has to do, and when: a pure schedule.

A job has a key; adding a key again does not do it twice, but brings it forward if the new time is earlier.
So a hundred changes that come while a method runs become one call. Times are monotonic seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

__all__ = ["Agenda", "Job"]


class Job(NamedTuple):
    """Something to do at `due` or later. `tie` keeps jobs of one time in the order in which they came."""

    due: float
    tie: int
    key: Hashable
    run: Callable[[], Any]


class Agenda:
    """Jobs by time. Not thread-safe."""

    def __init__(self) -> None:
        self._heap: list[Job] = []
        self._jobs: dict[Hashable, Job] = {}
        self._ties = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, key: Hashable, due: float, run: Callable[[], Any]) -> bool:
        """Plan `run` for `due`, unless the same key is planned for that time or before. Tell if it was."""
        known = self._jobs.get(key)
        if known is not None and known.due <= due:
            return False
        self._ties += 1
        job = Job(due, self._ties, key, run)
        self._jobs[key] = job
        heapq.heappush(self._heap, job)
        return True

    def remove(self, key: Hashable) -> None:
        """Forget what is planned under `key`."""
        self._jobs.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._heap.clear()
        self._jobs.clear()

    def take(self, now: float) -> Job | None:
        """Remove and return the first job that is due, if there is one."""
        self._drop_stale()
        if not self._heap or self._heap[0].due > now:
            return None
        job = heapq.heappop(self._heap)
        del self._jobs[job.key]
        return job

    def wait(self, now: float) -> float | None:
        """Return for how many seconds nothing is due; None if nothing is planned."""
        self._drop_stale()
        return max(0.0, self._heap[0].due - now) if self._heap else None

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and self._jobs.get(heap[0].key) is not heap[0]:
            heapq.heappop(heap)


def next_tick(due: float, period: float, now: float) -> float:
    """Return when a periodic job that was due at `due` and is done at `now` is due again.

    The grid of the first call is kept; ticks that have passed meanwhile are left out.
    """
    due += period
    if due <= now:
        due += ((now - due) // period + 1) * period
    return due


def backoff(failures: int, first: float = 5.0, most: float = 300.0) -> float:
    """Return how many seconds to wait after the given number of failures in a row: doubles, bounded."""
    return min(most, first * 2.0 ** min(max(failures - 1, 0), 32))
