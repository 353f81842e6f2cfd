"""The host: loads the plugins of a node, runs them, replaces them, and says how they are.

The host is an ordinary client of its node, with a thread of its own for what takes time: importing,
connecting, reporting. No method but `stop` and `settled` waits. Each plugin has its own thread; an import
runs in a thread too, so that one that hangs holds up nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tega_zmq import values
from tega_zmq.plugins.agenda import backoff
from tega_zmq.plugins.base import Plugin, check_name
from tega_zmq.plugins.events import say
from tega_zmq.plugins.facade import REPORT
from tega_zmq.plugins.instance import Instance, Shared
from tega_zmq.plugins.loader import Loader, Unit, describe, find_units

if TYPE_CHECKING:
    import logging

__all__ = ["PluginHost"]

STALL = 10.0
"""A method under `on_change` that has run for so many seconds is reported as running."""

REPORT_INTERVAL = 0.5
"""Seconds between two reports, at least."""


MAX_REPORT = 60 * 1024
"""Largest report, in bytes; the node takes a little more."""


class _Attempt:
    """Something that runs in a thread of its own, and may hang there."""

    def __init__(self, name: str, work: Callable[[], Any], done: Callable[[_Attempt], None]) -> None:
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


class _Made(NamedTuple):
    """What the import of a unit gave: its plugins, constructed; or why not."""

    plugins: tuple[Plugin, ...]
    failed: tuple[tuple[str, str], ...]
    """(name, error) of those whose constructor raised."""


class _Slot:
    """What is known of one unit, or of a source that has none."""

    def __init__(self, source: str, place: str) -> None:
        self.source = source
        self.place = place
        self.instances: list[Instance] = []
        self.failed: list[tuple[str, str]] = []
        """(plugin name, error) of what could not be taken."""
        self.attempt: _Attempt | None = None
        """The import, while it runs."""
        self.since = 0.0


class PluginHost:
    """Runs the plugins of one node. Methods may be called from any thread."""

    def __init__(
        self,
        connect: Callable[[str], Any],
        tega_id: str,
        sources: Sequence[str],
        settings: Mapping[str, Mapping[str, Any]],
        data_dir: Path,
        log: logging.Logger,
        *,
        patience: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing happens before `start`.

        `connect("plugin")` returns a blocking client of the node, whose `tega_id` this is; it is tried again
        until it returns. `sources`: see `tega_zmq.plugins.loader`. `settings`: for each plugin name its part
        of the config. Applied values are kept in `data_dir`/applied. `patience`: for how many seconds an
        import, or a plugin that is being stopped for a reload, may hold up the next.
        """
        self._connect = connect
        self._tega_id = tega_id
        self._sources = tuple(sources)
        self._settings = dict(settings)
        self._folder = Path(data_dir) / "applied"
        self._log = log
        self._patience = patience
        self._clock = clock
        self._loader = Loader()
        self._changed = threading.Condition()
        self._slots: dict[str, _Slot] = {}
        self._late: list[_Attempt] = []
        self._loads = 0
        """Loads and reloads that were asked for."""
        self._loads_done = 0
        self._stopping = False
        self._stop_deadline = 0.0
        self._dirty = True
        self._connected = False
        """The client has (re)connected and the instances are to be woken."""
        self._reported: Any = None
        self._report_due = 0.0
        self._looked = 0.0
        """When it was last seen what there is to report."""
        self._report_failures = 0
        self._shared: Shared | None = None
        self._error: str | None = None
        self._thread: threading.Thread | None = None

    # -- from outside ------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, load and start the plugins, in a thread. Returns at once."""
        with self._changed:
            if self._thread is None:
                self._loads = 1
                self._thread = threading.Thread(target=self._run, name="plugin host", daemon=True)
                self._thread.start()

    def reload(
        self,
        sources: Sequence[str] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Import all plugins anew and replace those that run. Returns at once.

        `sources` and `settings` replace those of the constructor. A unit whose new code cannot be imported
        goes on with the old, and its status says why.
        """
        with self._changed:
            if sources is not None:
                self._sources = tuple(sources)
            if settings is not None:
                self._settings = dict(settings)
            self._loads += 1
            self._changed.notify_all()

    def begin_stop(self, timeout: float = 5.0) -> None:
        """Stop all plugins and the client, within `timeout` seconds. Returns at once."""
        with self._changed:
            if not self._stopping:
                self._stopping = True
                self._stop_deadline = self._clock() + timeout
                self._changed.notify_all()

    def stop(self, timeout: float = 5.0) -> bool:
        """Stop all plugins and the client; wait for that, at most `timeout` seconds and a little.

        Plugins may use their client in `stop`, so the node should still be running; where it runs in the
        calling thread, call `begin_stop` and go on until `stopped`. False: the host itself hangs.
        """
        self.begin_stop(timeout)
        if self._thread is not None:
            self._thread.join(timeout + 0.5)
        return self.stopped

    @property
    def stopped(self) -> bool:
        """Whether nothing of the host runs (any more), what hangs apart."""
        return self._thread is None or not self._thread.is_alive()

    def settled(self, timeout: float) -> bool:
        """Wait until all that was asked for is loaded and no plugin is starting; tell if it came to that."""
        deadline = self._clock() + timeout
        with self._changed:
            while not self._is_settled():
                left = deadline - self._clock()
                if left <= 0 or self._stopping:
                    return False
                self._changed.wait(left)
            return True

    def _is_settled(self) -> bool:
        return self._loads_done == self._loads and all(
            slot.attempt is None and all(instance.state != "starting" for instance in slot.instances)
            for slot in self._slots.values()
        )

    def status(self) -> list[dict[str, Any]]:
        """Return one entry for each plugin, and for each source or unit without one.

        `name`, `source` (file, module or entry point), `state` (loading, starting, running, failed, stopped),
        `error` (or None), `handlers`: a list of `path`, `kind` (rpc, on_change), `method`, `version` (the one
        applied last), `error`, `error_version`, `running_for` (seconds, or None). What is loading or starting
        has `running_for` as well.
        """
        with self._changed:
            slots = list(self._slots.values())
            error = self._error
            sources = self._sources
        if error is not None:
            return [_failed(source, source, error) for source in sources]
        return [entry for slot in slots for entry in self._slot_status(slot, Instance.status)]

    def _slot_status(self, slot: _Slot, of: Callable[[Instance], dict[str, Any]]) -> list[dict[str, Any]]:
        entries = [of(instance) for instance in slot.instances]
        by_name = {entry["name"]: entry for entry in entries}
        for name, error in slot.failed:
            kept = by_name.get(name) if name else None
            if kept is None and not name and entries:
                # The whole unit could not be imported anew: say so at each of its plugins.
                for entry in entries:
                    entry["error"] = error
            elif kept is not None:
                kept["error"] = error
            else:
                entries.append(_failed(name or slot.place, slot.place, error))
        if slot.attempt is not None and not entries:
            running_for = round(self._clock() - slot.since, 1)
            entry = _failed(slot.place, slot.place, None)
            entries.append(entry | {"state": "loading", "running_for": running_for})
        return entries

    # -- the host's thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            client = self._connected_client()
            if client is None:
                return
            self._shared = Shared(client, self._tega_id, self._folder, self._log, self._notify, self._clock)
            self._loader.open()
            try:
                self._serve(client)
            finally:
                self._shut(client)
        except BaseException as error:
            with self._changed:
                self._error = f"the plugin host ended: {describe(error)}"
            raise

    def _connected_client(self) -> Any:
        failures = 0
        while True:
            with self._changed:
                if self._stopping:
                    return None
            try:
                client = self._connect("plugin")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                failures += 1
                text = f"cannot connect to the node: {describe(error)}"
                if text != self._error:
                    say(self._log, "warning", "the plugin host cannot connect to the node", error)
                with self._changed:
                    self._error = text
                    if not self._stopping:
                        self._changed.wait(backoff(failures, 0.5, 30.0))
            else:
                with self._changed:
                    self._error = None
                client.on_state(self._state_changed)
                return client

    def _state_changed(self, state: str) -> None:
        with self._changed:
            instances = self._instances()
            if state == "connected":
                self._connected = True
                self._changed.notify_all()
        for instance in instances:
            instance.tell_state(state)

    def _notify(self) -> None:
        with self._changed:
            self._dirty = True
            self._changed.notify_all()

    def _serve(self, client: Any) -> None:
        while True:
            with self._changed:
                wait = self._wait()
                while not self._stopping and (wait is None or wait > 0):
                    self._changed.wait(wait)
                    wait = self._wait()
                if self._stopping:
                    return
                loads = self._loads
                late, self._late = self._late, []
                connected, self._connected = self._connected, False
            if self._loads_done != loads:
                self._load_all(first=self._loads_done == 0)
                with self._changed:
                    self._loads_done = loads
                    self._dirty = True
                    self._changed.notify_all()
            for attempt in late:
                self._take_late(attempt)
            if connected:
                self._reported = None
                self._report_due = 0.0
                for instance in self._instances():
                    instance.wake()
            self._report(client)

    def _wait(self) -> float | None:
        """For how many seconds there is nothing to do; None: for as long as nothing happens."""
        if self._loads_done != self._loads or self._late or self._connected:
            return 0.0
        now = self._clock()
        if self._dirty:
            return max(0.0, self._report_due - now)
        stalls = [
            begun + STALL - now
            for instance in self._instances()
            if (begun := instance.oldest_run()) is not None and begun + STALL > self._looked
        ]
        return max(0.0, min(stalls)) if stalls else None

    def _instances(self) -> list[Instance]:
        return [instance for slot in self._slots.values() for instance in slot.instances]

    # -- loading -----------------------------------------------------------------------------------

    def _load_all(self, *, first: bool) -> None:
        """Import all units in order, then replace all that could be imported at once."""
        if not first:
            self._loader.renew()
        with self._changed:
            sources, self._late = self._sources, []
        slots: dict[str, _Slot] = {}
        made: dict[str, _Made] = {}
        for source in sources:
            found = self._try(f"plugins of {source}", partial(find_units, source))
            if not found.finished or found.error is not None:
                slot = _Slot(source, source)
                slot.failed = [("", _why(found))]
                slots[source] = slot
                # A folder that cannot be read for a moment is no reason to stop what came from it.
                slots.update((k, s) for k, s in self._slots.items() if s.source == source and s.instances)
                continue
            for unit in found.value:
                if unit.place in slots:
                    continue
                slot = self._slots.get(unit.place) or _Slot(source, unit.place)
                slots[unit.place] = slot
                self._load(slot, unit)
                if slot.attempt is not None and slot.attempt.finished:
                    made[unit.place] = self._taken(slot)
                    if first:
                        # Nothing has to make room, so nothing waits for those that are imported later.
                        self._replace(self._slots | slots, [], {unit.place: made.pop(unit.place)})
            if self._stopping:
                return
        gone = [slot for place, slot in self._slots.items() if place not in slots]
        self._replace(slots, gone, made)
        self._check_settings()

    def _try(self, name: str, work: Callable[[], Any]) -> _Attempt:
        """Run `work` in a thread, and wait for as long as one thing may hold up the next."""
        attempt = _Attempt(name, work, self._attempted)
        deadline = self._clock() + self._patience
        with self._changed:
            while not attempt.finished and not self._stopping:
                left = deadline - self._clock()
                if left <= 0:
                    break
                self._changed.wait(left)
        return attempt

    def _attempted(self, attempt: _Attempt) -> None:
        with self._changed:
            if any(slot.attempt is attempt for slot in self._slots.values()):
                self._late.append(attempt)
            self._changed.notify_all()

    def _load(self, slot: _Slot, unit: Unit) -> None:
        slot.since = self._clock()
        slot.attempt = None
        slot.attempt = self._try(f"import of {unit.place}", partial(_make, self._loader, unit))

    def _taken(self, slot: _Slot) -> _Made:
        """Return the outcome of a finished import, and note it in the slot."""
        attempt, slot.attempt = slot.attempt, None
        if attempt is None or attempt.error is not None:
            error = attempt.error if attempt is not None else None
            text = describe(error) if error is not None else "not loaded"
            say(self._log, "error", "plugins cannot be loaded", error, source=slot.place)
            if slot.instances:
                text = f"reload failed, the code before it goes on: {text}"
            return _Made((), (("", text),))
        result: _Made = attempt.value
        return result

    def _take_late(self, attempt: _Attempt) -> None:
        """An import took longer than the host's patience, and is done now."""
        for place, slot in list(self._slots.items()):
            if slot.attempt is attempt:
                say(self._log, "info", "import is done, late", source=place)
                self._replace(self._slots, [], {place: self._taken(slot)})

    def _replace(self, slots: dict[str, _Slot], gone: list[_Slot], made: dict[str, _Made]) -> None:
        """Stop what is gone or has new code, then start the new code."""
        fresh = {place: result for place, result in made.items() if result.plugins or not _broken(result)}
        leaving = [instance for slot in gone for instance in slot.instances]
        for place in fresh:
            leaving += slots[place].instances
        self._unload(leaving, self._patience, tell=True)
        with self._changed:
            for place, result in made.items():
                slot = slots[place]
                slot.failed = list(result.failed)
                if place in fresh:
                    slot.instances = []
            self._slots = dict(slots)
            # What was imported between the wait and now is not lost.
            self._late += [s.attempt for s in slots.values() if s.attempt is not None and s.attempt.finished]
        for place, result in fresh.items():
            for plugin in result.plugins:
                self._begin(slots[place], plugin)
        self._notify()

    def _begin(self, slot: _Slot, plugin: Plugin) -> None:
        name = plugin.name
        try:
            instance = self._instance(slot, plugin)
        except Exception as error:  # noqa: BLE001 - one plugin's fault must not end the host
            text = f"{type(error).__name__}: {error}"
            say(self._log, "error", "plugin is refused", error, plugin=name, source=slot.place)
            with self._changed:
                twin = any(other.name == name for other in slot.instances)
                slot.failed.append((f"{name} ({type(plugin).__name__})" if twin else name, text))
            return
        with self._changed:
            slot.instances.append(instance)
        say(self._log, "info", "plugin starts", plugin=name, source=slot.place)
        instance.begin()

    def _instance(self, slot: _Slot, plugin: Plugin) -> Instance:
        name = plugin.name
        for other in self._slots.values():
            if any(instance.name == name for instance in other.instances):
                raise ValueError(
                    f"the name {name} is taken by a plugin of {other.place}; give class"
                    f" {type(plugin).__name__} another `name`"
                )
        settings = self._settings.get(name)
        if settings is not None and not isinstance(settings, Mapping):
            raise TypeError(
                f"plugin.{name} in the config must be a map of settings, not {type(settings).__name__}"
            )
        if self._shared is None:
            raise RuntimeError("no plugin can be made before the client is there")
        return Instance(plugin, slot.place, settings or {}, self._shared)

    def _unload(self, leaving: list[Instance], timeout: float, *, tell: bool) -> None:
        for instance in leaving:
            instance.close(tell=tell)
        deadline = self._clock() + timeout
        for instance in leaving:
            if not instance.ended(deadline - self._clock()):
                say(
                    self._log,
                    "error",
                    "plugin hangs and is left behind, its thread ends with the program",
                    plugin=instance.name,
                    source=instance.source,
                )

    def _check_settings(self) -> None:
        names = {instance.name for instance in self._instances()}
        if any(slot.failed or slot.attempt for slot in self._slots.values()):
            return
        for name in sorted(self._settings.keys() - names):
            say(
                self._log,
                "warning",
                "the config has settings for a plugin that is not loaded",
                plugin=name,
                loaded=", ".join(sorted(names)),
            )

    # -- reporting and the end ---------------------------------------------------------------------

    def _report(self, client: Any) -> None:
        now = self._clock()
        with self._changed:
            self._dirty = now < self._report_due
            if self._dirty:
                return
            self._looked = now
            slots = list(self._slots.values())
        report = [entry for slot in slots for entry in self._slot_status(slot, _reported)]
        for entry in report:
            entry.pop("running_for", None)
        report = _fit(report)
        if report == self._reported:
            return
        try:
            client.report(REPORT, report)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            self._report_failures += 1
            say(self._log, "warning", "plugins cannot be reported", error)
            with self._changed:
                self._dirty = True
                self._report_due = now + backoff(self._report_failures, REPORT_INTERVAL, 60.0)
        else:
            self._report_failures = 0
            self._reported = report
            self._report_due = now + REPORT_INTERVAL

    def _shut(self, client: Any) -> None:
        with self._changed:
            self._stopping = True
            deadline = self._stop_deadline or self._clock() + 1.0
            instances = self._instances()
        self._unload(instances, deadline - self._clock(), tell=False)
        self._loader.close()
        closing = _Attempt("plugin client close", client.close, lambda _: self._wake())
        with self._changed:
            while not closing.finished and (left := deadline + 0.25 - self._clock()) > 0:
                self._changed.wait(left)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _make(loader: Loader, unit: Unit) -> _Made:
    plugins: list[Plugin] = []
    failed: list[tuple[str, str]] = []
    for cls in loader.load(unit):
        try:
            plugins.append(cls())
        except BaseException as error:  # noqa: BLE001 - code of others, that must not harm the program
            failed.append((check_name(cls), f"__init__: {describe(error)}"))
    return _Made(tuple(plugins), tuple(failed))


def _broken(result: _Made) -> bool:
    """Whether the unit as a whole could not be taken, so that its old plugins go on."""
    return not result.plugins and bool(result.failed)


def _why(attempt: _Attempt) -> str:
    if attempt.error is not None:
        return describe(attempt.error)
    return "reading the source takes too long: is it on a disk that does not answer? Reload tries again"


def _reported(instance: Instance) -> dict[str, Any]:
    return instance.report(STALL)


def _fit(report: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the report, with parts left out if it would be larger than a node takes."""
    if values.size(report) <= MAX_REPORT:
        return report
    handlers = [len(entry["handlers"]) for entry in report]
    kept = [
        entry | {"handlers": [each for each in entry["handlers"] if each["error"]][:5], "left_out": count}
        for entry, count in zip(report, handlers, strict=True)
    ]
    while kept and values.size(kept) > MAX_REPORT:
        kept = kept[: len(kept) * 3 // 4]
    return kept


def _failed(name: str, source: str, error: str | None) -> dict[str, Any]:
    return {"name": name, "source": source, "state": "failed", "error": error, "handlers": []}
