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
from typing import TYPE_CHECKING, Any

from tega_zmq.errors import text_of
from tega_zmq.plugins.agenda import backoff
from tega_zmq.plugins.base import Plugin
from tega_zmq.plugins.events import say
from tega_zmq.plugins.facade import REPORT
from tega_zmq.plugins.instance import Instance, Shared
from tega_zmq.plugins.loader import Loader, Unit, describe, find_units
from tega_zmq.plugins.slots import Attempt, Made, Slot, failed_entry, fit, make

if TYPE_CHECKING:
    import logging

__all__ = ["PluginHost"]

STALL = 10.0
"""A method under `on_change` that has run for so many seconds is reported as running."""

REPORT_INTERVAL = 0.5
"""Seconds between two reports, at least."""

MAX_REPORT = 60 * 1024
"""Largest report, in bytes; the node takes a little more."""


_SLOW = "reading the source takes too long: is it on a disk that does not answer? Reload tries again"


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
        self._slots: dict[str, Slot] = {}
        self._late: list[Attempt] = []
        self._loads = 0
        """Loads and reloads that were asked for."""
        self._loads_done = 0
        self._stopping = False
        self._stop_deadline = 0.0
        self._dirty = True
        self._connected = False
        """The client has (re)connected and the instances are to be woken."""
        self._cut_off = False
        """Another program took the host's place at the node."""
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
            return [failed_entry(source, source, error) for source in sources]
        return [entry for slot in slots for entry in slot.status(Instance.status)]

    # -- the host's thread -------------------------------------------------------------------------

    def _run(self) -> None:
        self._loader.open()
        try:
            while (client := self._connected_client()) is not None:
                shared = Shared(client, self._tega_id, self._folder, self._log, self._notify, self._clock)
                self._shared = shared
                try:
                    self._serve(client)
                finally:
                    self._shut(client)
        except BaseException as error:
            with self._changed:
                self._error = f"the plugin host ended: {describe(error)}"
            raise
        finally:
            self._loader.close()

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
                    self._cut_off = False
                client.on_state(self._state_changed)
                return client

    def _state_changed(self, state: str) -> None:
        with self._changed:
            instances = self._instances()
            if state == "connected":
                self._connected = True
            elif state == "taken over":
                # Final for this client. The plugins cannot reach the node, but are left as they are.
                self._cut_off = True
                self._error = (
                    f"another program said hello to this node as {self._tega_id}, the node's own name, so"
                    " its plugins are cut off: stop that program, or give it another tega_id, then `reload`"
                )
                say(self._log, "error", "plugins are cut off by another program", tega_id=self._tega_id)
            self._changed.notify_all()
        for instance in instances:
            instance.tell_state(state)

    def _notify(self) -> None:
        with self._changed:
            self._dirty = True
            self._changed.notify_all()

    def _serve(self, client: Any) -> None:
        """Do what there is to do, until the end; or a reload when the client is cut off."""
        while True:
            with self._changed:
                wait = self._wait()
                while not self._stopping and (wait is None or wait > 0):
                    self._changed.wait(wait)
                    wait = self._wait()
                if self._stopping or (self._cut_off and self._loads_done != self._loads):
                    return
                loads = self._loads
                late, self._late = self._late, []
                connected, self._connected = self._connected, False
            if self._loads_done != loads:
                self._load_all(first=not self._slots)
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
        if self._dirty and not self._cut_off:
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
        if self._loads_done:
            self._loader.renew()
        with self._changed:
            sources, self._late = self._sources, []
        slots: dict[str, Slot] = {}
        made: dict[str, Made] = {}
        for source in sources:
            found = self._try(f"plugins of {source}", partial(find_units, source))
            if not found.finished or found.error is not None:
                slot = Slot(source, source, self._clock)
                slot.failed = [("", describe(found.error) if found.error is not None else _SLOW)]
                why = {"why": _SLOW} if found.error is None else {}
                say(self._log, "error", "plugins cannot be loaded", found.error, source=source, **why)
                slots[source] = slot
                # A folder that cannot be read for a moment is no reason to stop what came from it.
                slots.update((k, s) for k, s in self._slots.items() if s.source == source and s.instances)
                continue
            for unit in found.value:
                if unit.place in slots:
                    continue
                slot = self._slots.get(unit.place) or Slot(source, unit.place, self._clock)
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

    def _try(self, name: str, work: Callable[[], Any]) -> Attempt:
        """Run `work` in a thread, and wait for as long as one thing may hold up the next."""
        attempt = Attempt(name, work, self._attempted)
        deadline = self._clock() + self._patience
        with self._changed:
            while not attempt.finished and not self._stopping:
                left = deadline - self._clock()
                if left <= 0:
                    break
                self._changed.wait(left)
        return attempt

    def _attempted(self, attempt: Attempt) -> None:
        with self._changed:
            if any(slot.attempt is attempt for slot in self._slots.values()):
                self._late.append(attempt)
            self._changed.notify_all()

    def _load(self, slot: Slot, unit: Unit) -> None:
        slot.since = self._clock()
        slot.attempt = None
        slot.attempt = self._try(f"import of {unit.place}", partial(make, self._loader, unit))

    def _taken(self, slot: Slot) -> Made:
        """Return the outcome of a finished import, and note it in the slot."""
        attempt, slot.attempt = slot.attempt, None
        if attempt is None or attempt.error is not None:
            error = attempt.error if attempt is not None else None
            text = describe(error) if error is not None else "not loaded"
            say(self._log, "error", "plugins cannot be loaded", error, source=slot.place)
            if slot.instances:
                text = f"reload failed, the code before it goes on: {text}"
            return Made((), (("", text),))
        result: Made = attempt.value
        return result

    def _take_late(self, attempt: Attempt) -> None:
        """An import took longer than the host's patience, and is done now."""
        for place, slot in list(self._slots.items()):
            if slot.attempt is attempt:
                say(self._log, "info", "import is done, late", source=place)
                self._replace(self._slots, [], {place: self._taken(slot)})

    def _replace(self, slots: dict[str, Slot], gone: list[Slot], made: dict[str, Made]) -> None:
        """Stop what is gone or has new code, then start the new code."""
        fresh = {place: result for place, result in made.items() if not result.broken}
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

    def _begin(self, slot: Slot, plugin: Plugin) -> None:
        name = plugin.name
        try:
            instance = self._instance(slot, plugin)
        except Exception as error:  # noqa: BLE001 - one plugin's fault must not end the host
            text = f"{type(error).__name__}: {text_of(error)}"
            say(self._log, "error", "plugin is refused", error, plugin=name, source=slot.place)
            with self._changed:
                twin = any(other.name == name for other in slot.instances)
                slot.failed.append((f"{name} ({type(plugin).__name__})" if twin else name, text))
            return
        with self._changed:
            slot.instances.append(instance)
        say(self._log, "info", "plugin starts", plugin=name, source=slot.place)
        instance.begin()

    def _instance(self, slot: Slot, plugin: Plugin) -> Instance:
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
            if self._cut_off:
                return
            self._dirty = now < self._report_due
            if self._dirty:
                return
            self._looked = now
            slots = list(self._slots.values())
        report = [entry for slot in slots for entry in slot.status(lambda instance: instance.report(STALL))]
        for entry in report:
            entry.pop("running_for", None)
        report = fit(report, MAX_REPORT)
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
        """Stop all plugins and close the client."""
        with self._changed:
            deadline = self._stop_deadline or self._clock() + self._patience
            instances = self._instances()
        self._unload(instances, deadline - self._clock(), tell=False)
        if not self._stopping:
            with self._changed:
                self._slots, self._late, self._reported = {}, [], None
        closing = Attempt("plugin client close", client.close, lambda _: self._wake())
        with self._changed:
            while not closing.finished and (left := deadline + 0.25 - self._clock()) > 0:
                self._changed.wait(left)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
