"""One running plugin: its thread, its handlers, and what is known of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tega_zmq import values
from tega_zmq.plugins.agenda import backoff
from tega_zmq.plugins.applied import NOTHING, UNKNOWN, Applied, AppliedFile, applied
from tega_zmq.plugins.base import Change, Handler, Plugin, expand, handlers_of
from tega_zmq.plugins.events import say
from tega_zmq.plugins.facade import Facade, Offered
from tega_zmq.plugins.loader import describe
from tega_zmq.plugins.reading import Present, check_heard, read
from tega_zmq.plugins.worker import Worker

if TYPE_CHECKING:
    import logging

__all__ = ["MAX_CALLS", "Instance", "Shared"]

MAX_CALLS = 16
"""Calls of one plugin's handlers at a time; others wait. The client has more threads than that, so one plugin
whose handlers hang leaves some to the others."""

MAX_WAIT = 1.0
"""Seconds that a call waits for its turn before it is refused. It does not wait at all when the oldest call
has been running for longer."""


class Shared:
    """What all plugins of a host share."""

    def __init__(
        self,
        client: Any,
        tega_id: str,
        folder: Path,
        log: logging.Logger,
        notify: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder`: where the applied values are kept. `notify` is called when a status has changed."""
        self.client = client
        self.tega_id = tega_id
        self.folder = folder
        self.log = log
        self.notify = notify
        self.clock = clock
        self.offered = Offered()


class _Entry:
    """One handler of an instance."""

    def __init__(self, handler: Handler, path: str) -> None:
        self.handler = handler
        self.path = path
        self.attached = False
        self.version: int | None = None
        self.error: str | None = None
        self.error_version: int | None = None
        self.failures = 0
        self.running: dict[int, float] = {}
        """When the calls that run now began, by a number: monotonic seconds."""
        self.since = 0
        """When the last call began, Unix seconds."""
        self.file: AppliedFile | None = None
        self.applied: Applied | None = None
        self.noted: Applied | None = None
        """What the file says; None if that is not known."""
        self.woken: tuple[int, str, str] | None = None
        """Version, tega_id and message of the newest change that the subscription told of."""


class Instance:
    """A plugin object at work: `begin`, and at last `close` and `ended`."""

    def __init__(self, plugin: Plugin, source: str, settings: Mapping[str, Any], shared: Shared) -> None:
        """Raises `InvalidPath` for a handler's path, `ValueError` for two handlers at one."""
        self.plugin = plugin
        self.name = plugin.name
        self.source = source
        self.state = "starting"
        self.error: str | None = None
        self.shared = shared
        self._lock = threading.Lock()
        self._abandoned = False
        self._started = False
        self._calls = 0
        self._turns = threading.Semaphore(MAX_CALLS)
        self._begun = shared.clock()
        self._log = shared.log.getChild(plugin.name)
        self._entries = [self._entry(handler) for handler in handlers_of(type(plugin))]
        offered = [entry.path for entry in self._entries if entry.handler.kind == "rpc"]
        for path in offered:
            if offered.count(path) > 1:
                raise ValueError(
                    f"plugin {self.name} has two methods under @rpc at {path}; choose another path"
                )
        self._worker = Worker(
            f"plugin {self.name}",
            clock=shared.clock,
            failed=lambda error: self._callback_failed("its thread", error),
        )
        self._facade = Facade(
            shared.client, self.name, self._worker, shared.offered, self._log, self._callback_failed
        )
        plugin.tega = self._facade
        plugin.tega_id = shared.tega_id
        plugin.settings = settings
        plugin.log = self._log
        plugin._every = self._every

    def _entry(self, handler: Handler) -> _Entry:
        entry = _Entry(handler, expand(handler.path, self.shared.tega_id, regex=handler.regex))
        if handler.kind == "on_change":
            entry.file = AppliedFile(self.shared.folder, self.name, handler.method, entry.path)
        return entry

    # -- start and stop ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the plugin's thread; in it the plugin starts and its handlers are connected."""
        self._begun = self.shared.clock()
        self._worker.start()
        self._worker.add("start", self._start)

    def _start(self) -> None:
        try:
            self.plugin.start()
        except BaseException as error:  # noqa: BLE001 - code of others, that must not harm the program
            self.error = f"start: {describe(error)}"
            say(self._log, "error", "plugin failed to start", error, plugin=self.name, source=self.source)
            self.state = "failed"
            # From this thread nothing may wait for this thread: shut and close do not.
            self._facade.shut(tell=True)
            self._worker.close()
        else:
            self._started = True
            if not self._worker.closed:
                self.state = "running"
                for number, entry in enumerate(self._entries):
                    self._plan(number, entry)
        self.shared.notify()

    def wake(self) -> None:
        """Look at all paths under `on_change` again: the client has (re)connected."""
        if self.state == "running":
            for number, entry in enumerate(self._entries):
                self._plan(number, entry)

    def tell_state(self, state: str) -> None:
        """The client has a new state: the plugin may want to know."""
        self._facade.tell_state(state)

    def close(self, *, tell: bool) -> None:
        """Take back the handlers and let the thread end, after `Plugin.stop`. Does not wait for the thread.

        With `tell` the node hears of each handler; without, the session is about to end.
        """
        started = self.state in ("starting", "running")
        self._facade.shut(tell=tell)
        self._worker.close(self._stop if started else None)

    def _stop(self) -> None:
        try:
            if self._started:
                self.plugin.stop()
        except BaseException as error:  # noqa: BLE001 - as in _start
            self.error = f"stop: {describe(error)}"
            say(self._log, "error", "plugin failed to stop", error, plugin=self.name)
        self.state = "stopped"
        self.shared.notify()

    def ended(self, timeout: float) -> bool:
        """Wait for the thread after `close`. False: it hangs; what it still does counts no more."""
        if self._worker.join(timeout):
            return True
        with self._lock:
            self._abandoned = True
        return False

    # -- what a plugin asks for --------------------------------------------------------------------

    def _every(self, seconds: float, method: Callable[[], Any], now: bool) -> None:
        what = f"every {seconds:g} s, {getattr(method, '__name__', 'call')}"
        failing = False

        def run() -> None:
            nonlocal failing
            try:
                method()
            except BaseException as error:  # noqa: BLE001 - as in _start
                failing = True
                self._callback_failed(what, error)
            else:
                if failing:
                    failing = False
                    self._recovered(what)

        self._worker.every(seconds, run, now=now)

    def _callback_failed(self, what: str, error: BaseException) -> None:
        text = f"{what}: {describe(error)}"
        if text != self.error:
            # The same error again, every few seconds, would only fill the log.
            say(self._log, "error", "plugin raised", error, plugin=self.name, where=what)
            self.error = text
            self.shared.notify()

    def _recovered(self, what: str) -> None:
        if self.error is not None and self.error.startswith(f"{what}: "):
            self.error = None
            self.shared.notify()

    # -- handlers ----------------------------------------------------------------------------------

    def _plan(self, number: int, entry: _Entry, delay: float = 0.0) -> None:
        self._worker.add(("handler", number), lambda: self._attend(number, entry), delay)

    def _attend(self, number: int, entry: _Entry) -> None:
        try:
            if entry.handler.kind == "rpc":
                if not entry.attached:
                    self._facade.register(entry.path, self._answer(entry))
            else:
                if not entry.attached:
                    self._subscribe(number, entry)
                entry.attached = True
                self._compare(entry)
        except BaseException as error:  # noqa: BLE001 - as in _start
            if self._worker.closed:
                return
            self._failed(number, entry, error)
        else:
            entry.attached = True
            entry.failures = 0
            entry.error = entry.error_version = None
        self.shared.notify()

    def _failed(self, number: int, entry: _Entry, error: BaseException) -> None:
        entry.failures += 1
        delay = backoff(entry.failures)
        text = describe(error)
        say(
            self._log,
            "error",
            "handler failed",
            error,
            plugin=self.name,
            kind=entry.handler.kind,
            path=entry.path,
            retry_in=delay,
        )
        entry.error = text
        self._plan(number, entry, delay)

    def _subscribe(self, number: int, entry: _Entry) -> None:
        def woken(change: Any) -> None:
            entry.woken = (change.version, change.tega_id, change.message)
            self._plan(number, entry)

        if not entry.handler.regex:
            check_heard(self.shared.client, entry.path)
        self._facade.wake_on(entry.path, woken, regex=entry.handler.regex)

    def _compare(self, entry: _Entry) -> None:
        """Call the method if the present value is not the last one applied; raises what it raises."""
        entry.error_version = None
        woken = entry.woken
        present = read(self.shared.client, entry.path, regex=entry.handler.regex)
        last = self._last_applied(entry)
        value = last.value()
        if last.begun or present.there != last.present or not values.same(present.value, value):
            entry.error_version = present.version
            taken = applied(present.epoch, present.version, present.there, present.value)
            method = getattr(self.plugin, entry.handler.method)
            change = _change(entry.path, value, last.present, present, woken)
            self._note_begun(entry, last)
            self._began(entry, 0)
            self.shared.notify()
            try:
                method(change)
            finally:
                entry.running.pop(0, None)
            entry.applied = taken
            entry.error_version = None
        try:
            self._note_applied(entry, present.version)
        finally:  # not before: whoever sees it may rely on the note
            entry.version = present.version

    def _last_applied(self, entry: _Entry) -> Applied:
        if entry.applied is None:
            try:
                entry.applied = entry.noted = entry.file.read() if entry.file is not None else NOTHING
            except (OSError, ValueError) as error:
                say(
                    self._log,
                    "warning",
                    "what was last applied is not known, the handler is called anew",
                    error,
                    plugin=self.name,
                    path=entry.path,
                )
                entry.applied = UNKNOWN
        return entry.applied

    def _note_begun(self, entry: _Entry, last: Applied) -> None:
        """Note that what the device has is unknown, until the method returns.

        The method is called even if that cannot be noted, for a full disk must not keep a device from its
        config. On a full disk the file can still be emptied, which says the same.
        """
        entry.applied = last._replace(begun=True)
        try:
            self._note(entry, entry.applied)
        except OSError as error:
            text = f"that the handler is called cannot be noted on disk: {error}"
            try:
                self._note(entry, None)
            except OSError:
                text += "; should it not return, the value before counts as applied at the next start"
            say(self._log, "warning", text, plugin=self.name, path=entry.path)

    def _note_applied(self, entry: _Entry, version: int | None) -> None:
        assert entry.applied is not None
        try:
            self._note(entry, entry.applied)
        except OSError as error:
            raise OSError(
                f"version {version} is applied, but that cannot be noted on disk"
                f" (it will be applied again at the next start): {error}"
            ) from error

    def _note(self, entry: _Entry, state: Applied | None) -> None:
        """Have the file say `state`, None: that it is unknown. Raises `OSError`."""
        with self._lock:
            # A plugin that was left behind notes nothing: its successor may have applied something newer.
            if self._abandoned or entry.file is None or (state is not None and entry.noted == state):
                return
            entry.noted = None
            if state is None:
                entry.file.empty()
            else:
                entry.file.write(state)
                entry.noted = state

    def _began(self, entry: _Entry, number: int) -> None:
        entry.since = int(time.time())
        entry.running[number] = self.shared.clock()

    def _answer(self, entry: _Entry) -> Callable[..., Any]:
        method = getattr(self.plugin, entry.handler.method)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._turns.acquire(blocking=False):
                self._await_turn(entry)
            with self._lock:
                self._calls += 1
                number = self._calls
            self._began(entry, number)
            try:
                return method(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                    raise _misfit(entry.path, method, args, kwargs, error) from None
                raise
            except Exception:
                raise
            except BaseException as error:
                raise RuntimeError(f"{entry.path} raised {describe(error)}") from error
            finally:
                entry.running.pop(number, None)
                self._turns.release()

        return call

    def _await_turn(self, entry: _Entry) -> None:
        oldest = self._oldest("rpc")
        stuck = oldest is not None and self.shared.clock() - oldest > MAX_WAIT
        if not self._turns.acquire(timeout=0 if stuck else MAX_WAIT):
            raise RuntimeError(
                f"{entry.path}: {MAX_CALLS} calls of plugin {self.name} are running already; try later"
            )

    # -- status ------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the plugin's entry in `PluginHost.status`."""
        now = self.shared.clock()
        entry: dict[str, Any] = {
            "name": self.name,
            "source": self.source,
            "state": self.state,
            "error": self.error,
            "handlers": [self._handler_status(each, now) for each in self._entries],
        }
        if self.state == "starting":
            entry["running_for"] = round(now - self._begun, 1)
        return entry

    def _handler_status(self, entry: _Entry, now: float) -> dict[str, Any]:
        running = list(entry.running.values())
        return {
            "path": entry.path,
            "kind": entry.handler.kind,
            "method": entry.handler.method,
            "version": entry.version,
            "error": entry.error,
            "error_version": entry.error_version if entry.error is not None else None,
            "running_for": round(now - min(running), 1) if running else None,
        }

    def report(self, stall: float) -> dict[str, Any]:
        """Return what is reported upwards: the status without what changes by itself.

        A method under `on_change` that has run for `stall` seconds or more has `running_since`, Unix seconds.
        """
        entry = self.status()
        entry.pop("running_for", None)
        now = self.shared.clock()
        for each, shown in zip(self._entries, entry["handlers"], strict=True):
            del shown["running_for"]
            running = list(each.running.values())
            if each.handler.kind == "on_change" and running and now - min(running) >= stall:
                shown["running_since"] = each.since
        return entry

    def oldest_run(self) -> float | None:
        """Return since when the longest running method under `on_change` runs, monotonic seconds."""
        return self._oldest("on_change")

    def _oldest(self, kind: str) -> float | None:
        begun = (
            started
            for entry in self._entries
            if entry.handler.kind == kind
            for started in list(entry.running.values())
        )
        return min(begun, default=None)


def _change(
    path: str, old: Any, old_present: bool, present: Present, woken: tuple[int, str, str] | None
) -> Change:
    """Make the argument of a method; who and why are known only if the wake-up was of this very version."""
    fits = woken is not None and present.version in {None, woken[0]}
    return Change(
        path=path,
        old=old,
        new=present.value,
        version=present.version,
        epoch=present.epoch,
        tega_id=woken[1] if woken is not None and fits else "",
        message=woken[2] if woken is not None and fits else "",
        created=not old_present,
        deleted=not present.there,
    )


def _misfit(
    path: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError
) -> TypeError:
    """Return what to tell a caller whose arguments do not fit; `error` is what Python said."""
    import inspect

    signature = inspect.signature(method)
    text = str(error)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as misfit:
        text = str(misfit)
    return TypeError(f"{path}: {text}; its arguments are {signature}")
