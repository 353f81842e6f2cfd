"""What a host knows of each unit: its import, its plugins, and what could not be taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tega_zmq import values
from tega_zmq.plugins.base import Plugin, check_name
from tega_zmq.plugins.instance import Instance
from tega_zmq.plugins.loader import Loader, Unit, describe

__all__ = ["Attempt", "Made", "Slot", "failed_entry", "fit", "make"]


class Attempt:
    """Something that runs in a thread of its own, and may hang there."""

    def __init__(self, name: str, work: Callable[[], Any], done: Callable[[Attempt], None]) -> None:
        """`done` is called in that thread when `work` is over, however it ended."""
        self.finished = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._work = work
        self._done = done
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self.value = self._work()
        except BaseException as error:  # noqa: BLE001 - code of others, that must not harm the program
            self.error = error
        self.finished = True
        self._done(self)


class Made(NamedTuple):
    """What the import of a unit gave: its plugins, constructed; or why not."""

    plugins: tuple[Plugin, ...]
    failed: tuple[tuple[str, str], ...]
    """(name, error) of those whose constructor raised; the name is "" for the whole unit."""

    @property
    def broken(self) -> bool:
        """Whether nothing of the unit could be taken, so that its old plugins go on."""
        return not self.plugins


def make(loader: Loader, unit: Unit) -> Made:
    """Import a unit and construct its plugins. Raises what the import raises."""
    plugins: list[Plugin] = []
    failed: list[tuple[str, str]] = []
    for cls in loader.load(unit):
        try:
            plugins.append(cls())
        except BaseException as error:  # noqa: BLE001 - code of others, that must not harm the program
            failed.append((check_name(cls), f"__init__: {describe(error)}"))
    return Made(tuple(plugins), tuple(failed))


class Slot:
    """What is known of one unit, or of a source that has none."""

    def __init__(self, source: str, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`source`: the entry of the config; `place`: file, module or entry point."""
        self.source = source
        self.place = place
        self.clock = clock
        self.instances: list[Instance] = []
        self.failed: list[tuple[str, str]] = []
        """(plugin name, error) of what could not be taken; the name is "" for the whole unit."""
        self.attempt: Attempt | None = None
        """The import, while it runs."""
        self.since = 0.0
        """When it began."""

    def status(self, of: Callable[[Instance], dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the entries of the unit's plugins, each made by `of`, and of what could not be taken."""
        entries = [of(instance) for instance in self.instances]
        for name, error in self.failed:
            # What failed to be replaced goes on with its old code: then the error stands at that.
            old = [entry for entry in entries if name in ("", entry["name"])]
            for entry in old:
                entry["error"] = error
            if not old:
                entries.append(failed_entry(name or self.place, self.place, error))
        if self.attempt is not None and not entries:
            entry = failed_entry(self.place, self.place, None)
            entry |= {"state": "loading", "running_for": round(self.clock() - self.since, 1)}
            entries.append(entry)
        return entries


def failed_entry(name: str, source: str, error: str | None) -> dict[str, Any]:
    """Return the status of something that is not there."""
    return {"name": name, "source": source, "state": "failed", "error": error, "handlers": []}


def fit(report: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Return the report, with parts left out if it has more than `limit` bytes."""
    if values.size(report) <= limit:
        return report
    kept = []
    for entry in report:
        failing = [handler for handler in entry["handlers"] if handler["error"]]
        kept.append(entry | {"handlers": failing[:5], "left_out": len(entry["handlers"])})
    while kept and values.size(kept) > limit:
        kept = kept[: len(kept) * 3 // 4]
    return kept
