"""The client as one plugin sees it: `self.tega`.

All plugins of a host share one client. What a plugin registers and subscribes through the facade ends when it
is unloaded, and its callbacks run in its own thread, so that one that hangs holds up no other plugin.
Everything else goes straight to the client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tega_zmq import paths
from tega_zmq.client.requests import PathLike, check_function, to_path
from tega_zmq.plugins.base import refuse_async
from tega_zmq.plugins.events import say

if TYPE_CHECKING:
    import logging

    from tega_zmq.plugins.worker import Worker

__all__ = ["Facade", "Offered"]

MAX_WAITING = 10_000
"""Callbacks that may wait for a plugin's thread; further ones are dropped, and the plugin's log says so."""

REPORT = "plugins"
"""The name under which the host reports."""


class Offered:
    """Which plugin of a host offers which path: a session has one handler at a path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[str, str] = {}

    def take(self, path: str, plugin: str) -> None:
        """Note that `plugin` offers `path`. Raises `ValueError` if any plugin of this host does already."""
        with self._lock:
            owner = self._owners.setdefault(path, plugin)
            if owner != plugin:
                raise ValueError(f"plugin {owner} offers {path} already; choose another path")

    def release(self, path: str, plugin: str) -> None:
        """`plugin` offers `path` no more."""
        with self._lock:
            if self._owners.get(path) == plugin:
                del self._owners[path]


class _Watch:
    """A subscription that a plugin made; `cancel` as the client's."""

    def __init__(self, facade: Facade) -> None:
        self._facade = facade
        self.inner: Any = None

    def cancel(self) -> None:
        """End the subscription."""
        self._facade.end(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


class Facade:
    """One plugin's view of the shared client. Any thread may use it, as the client itself."""

    def __init__(
        self,
        client: Any,
        plugin: str,
        worker: Worker,
        offered: Offered,
        log: logging.Logger,
        failed: Callable[[str, BaseException], None],
    ) -> None:
        """`failed` is told what a callback raised, and in what."""
        self._client = client
        self._plugin = plugin
        self._worker = worker
        self._offered = offered
        self._log = log
        self._failed = failed
        self._lock = threading.Lock()
        self._watches: set[_Watch] = set()
        self._paths: set[str] = set()
        self._state_callbacks: list[Callable[[str], None]] = []
        self._closed = False
        self._dropped = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_client"], name)

    def close(self) -> None:
        """Refused: the client belongs to the host. Raises `RuntimeError`."""
        raise RuntimeError(f"plugin {self._plugin}: the client is shared by all plugins; it cannot be closed")

    __enter__ = __exit__ = None

    def report(self, name: str, value: Any) -> Any:
        """As the client's; the name `plugins` is the host's own. Raises `ValueError`."""
        if name == REPORT:
            raise ValueError(f"plugin {self._plugin}: the report {REPORT} is the host's; choose another name")
        return self._client.report(name, value)

    # -- handlers ----------------------------------------------------------------------------------

    def register(self, path: PathLike, function: Callable[..., Any], **options: Any) -> None:
        """As the client's, until the plugin is unloaded.

        Raises `ValueError` if another plugin offers the path, and whatever the client raises.
        """
        text = paths.format_path(to_path(path))
        refuse_async(function, f"register {text}")
        self._check_open()
        self._offered.take(text, self._plugin)
        try:
            self._client.register(text, function, **options)
        except BaseException:
            self._offered.release(text, self._plugin)
            raise
        with self._lock:
            closed = self._closed
            if not closed:
                self._paths.add(text)
        if closed:
            self._unregister(text)
            self._check_open()

    def unregister(self, path: PathLike, **options: Any) -> None:
        """As the client's."""
        text = paths.format_path(to_path(path))
        with self._lock:
            self._paths.discard(text)
        self._offered.release(text, self._plugin)
        self._client.unregister(text, **options)

    # -- subscriptions -----------------------------------------------------------------------------

    def subscribe(
        self, path: PathLike, callback: Callable[..., Any], scope: str = "local", **options: Any
    ) -> Any:
        """As the client's; `callback` runs in the plugin's own thread."""
        return self._watch(self._client.subscribe, path, callback, {"scope": scope, **options})

    def listen(self, channel: str, callback: Callable[..., Any], scope: str = "local", **options: Any) -> Any:
        """As the client's; `callback` runs in the plugin's own thread."""
        return self._watch(self._client.listen, channel, callback, {"scope": scope, **options})

    def on_state(self, callback: Callable[[str], Any]) -> None:
        """As the client's; `callback` runs in the plugin's own thread, until the plugin is unloaded."""
        self._state_callbacks.append(self._deferred(callback, "on_state"))

    def tell_state(self, state: str) -> None:
        """The host's: the client has a new state."""
        if not self._closed:
            for callback in self._state_callbacks[:]:
                callback(state)

    def wake_on(self, path: str, woken: Callable[[Any], None], *, regex: bool) -> None:
        """Have `woken` called in the client's thread, with each change at `path`: it must return at once."""
        self._begin(self._client.subscribe, path, woken, {"scope": "local", "regex": regex})

    def _watch(
        self, begin: Callable[..., Any], what: Any, callback: Callable[..., Any], options: dict[str, Any]
    ) -> _Watch:
        return self._begin(begin, what, self._deferred(callback, str(what)), options)

    def _begin(
        self, begin: Callable[..., Any], what: Any, callback: Callable[..., Any], options: dict[str, Any]
    ) -> _Watch:
        self._check_open()
        watch = _Watch(self)
        watch.inner = begin(what, callback, **options)
        with self._lock:
            closed = self._closed
            if not closed:
                self._watches.add(watch)
        if closed:
            watch.inner.cancel()
            self._check_open()
        return watch

    def _deferred(self, callback: Callable[..., Any], what: str) -> Callable[..., None]:
        refuse_async(callback, f"the callback of {what}")
        check_function(callback, f"the callback of {what}", plain=True)

        def run(arguments: tuple[Any, ...]) -> None:
            try:
                callback(*arguments)
            except BaseException as error:  # noqa: BLE001 - code of others, that must not end the thread
                self._failed(what, error)

        def later(*arguments: Any) -> None:
            if self._worker.post(lambda: run(arguments), MAX_WAITING):
                self._dropped = 0
            elif not self._closed:
                self._dropped += 1
                if self._dropped == 1:
                    say(
                        self._log,
                        "warning",
                        "too many callbacks wait, further ones are dropped",
                        limit=MAX_WAITING,
                    )

        return later

    def end(self, watch: _Watch) -> None:
        """End one subscription; once is enough."""
        with self._lock:
            known = watch in self._watches
            self._watches.discard(watch)
        if known:
            watch.inner.cancel()

    # -- end ---------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"plugin {self._plugin} is being unloaded; it can offer and subscribe no more")

    def shut(self, *, tell: bool) -> None:
        """End all that the plugin offers and subscribes to.

        With `tell` the node is told of each; without, the client's session is about to end anyway. What the
        client raises is logged: the unloading goes on.
        """
        with self._lock:
            self._closed = True
            watches, self._watches = self._watches, set()
            texts, self._paths = self._paths, set()
        for watch in watches if tell else ():
            try:
                watch.inner.cancel()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest must be ended too
                say(self._log, "warning", "a subscription cannot be cancelled", error)
        for text in texts:
            if tell:
                self._unregister(text)
            else:
                self._offered.release(text, self._plugin)

    def _unregister(self, text: str) -> None:
        self._offered.release(text, self._plugin)
        try:
            self._client.unregister(text)
        except Exception as error:  # noqa: BLE001 - as above
            say(self._log, "warning", "a handler cannot be taken back", error, path=text)
