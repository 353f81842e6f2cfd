"""A node in a hundred lines: a tree of versions, subscriptions and handlers, all in this process."""

from __future__ import annotations

import logging
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tega_zmq.errors import NotFound
from tega_zmq.plugins.host import PluginHost


class FakeNode:
    """What a client of it sees: `node`, `find`, `subscribe`, `register` and so on, in one lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.values: dict[str, tuple[Any, int]] = {}
        self.version = -1
        self.watchers: list[tuple[str, bool, Callable[[Any], None], Any]] = []
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.reports: list[tuple[str, Any]] = []
        self.state_callbacks: list[Callable[[Any], None]] = []
        self.closed = False
        self.reads = 0
        self.uplink: dict[str, Any] | None = None
        self.broken: Exception | None = None
        self.register_errors: list[Exception] = []

    # what a test does

    def commit(self, path: str, *value: Any, tega_id: str = "noc-1", message: str = "") -> int:
        """Put a value, or without one delete."""
        with self.lock:
            self.version += 1
            if value:
                self.values[path] = (value[0], self.version)
            else:
                self.values.pop(path, None)
            told = [watcher for watcher in self.watchers if watcher[0] == path or watcher[1]]
            change = SimpleNamespace(version=self.version, tega_id=tega_id, message=message, path=path)
        for watcher in told:
            watcher[2](change)
        return self.version

    def call(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return self.handlers[path](*args, **kwargs)

    def tell_state(self, state: str) -> None:
        for callback in list(self.state_callbacks):
            callback(state)

    def report(self, name: str, value: Any) -> None:
        if self.broken:
            raise self.broken
        with self.lock:
            self.reports.append((name, value))

    # what a plugin host uses

    def node(self, path: str) -> Any:
        with self.lock:
            self.reads += 1
            if self.broken:
                raise self.broken
            if path not in self.values:
                raise NotFound(f"nothing at {path}", path=path)
            value, version = self.values[path]
            return SimpleNamespace(value=value, version=version, ephemeral=False, epoch="e1")

    def find(self, regex: str) -> list[tuple[str, list[Any], Any]]:
        with self.lock:
            return [(path, [], v) for path, (v, _) in self.values.items() if re.fullmatch(regex, path)]

    def subscribe(self, path: str, callback: Any, scope: str = "local", *, regex: bool = False) -> Any:
        assert scope == "local"
        watcher = (path, regex, callback, object())
        with self.lock:
            self.watchers.append(watcher)
        return SimpleNamespace(cancel=lambda: self.watchers.remove(watcher))

    def inspect(self, what: str) -> dict[str, Any]:
        assert what == "status"
        return {} if self.uplink is None else {"uplink": self.uplink}

    def listen(self, channel: str, callback: Any, **options: Any) -> Any:
        return self.subscribe(channel, callback)

    def register(self, path: str, function: Callable[..., Any]) -> None:
        with self.lock:
            if self.register_errors:
                raise self.register_errors.pop()
            assert path not in self.handlers
            self.handlers[path] = function

    def unregister(self, path: str) -> None:
        with self.lock:
            del self.handlers[path]

    def on_state(self, callback: Callable[[Any], None]) -> None:
        self.state_callbacks.append(callback)

    def close(self) -> None:
        self.closed = True


class Fleet:
    """A node, a folder of plugins, and a host over them."""

    def __init__(self, folder: Path) -> None:
        self.node = FakeNode()
        self.folder = folder / "plugins"
        self.folder.mkdir()
        self.data = folder / "data"
        self.log = logging.getLogger("test.plugins")
        self.seen: list[Any] = []
        self.hosts: list[PluginHost] = []
        self.release = threading.Event()
        """What hanging plugins wait for: set at the end of the test."""

    def write(self, name: str, text: str) -> Path:
        """Write a plugin file; it can import `fleet` to say what it saw."""
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("from tega_zmq.plugins import Plugin, rpc, on_change\n" + textwrap.dedent(text))
        return file

    def host(self, *sources: str, settings: Any = None, **options: Any) -> PluginHost:
        options.setdefault("patience", 5.0)
        host = PluginHost(
            options.pop("connect", lambda kind: self.node),
            "pi1",
            sources or (str(self.folder) + "/",),
            settings or {},
            self.data,
            self.log,
            **options,
        )
        self.hosts.append(host)
        return host

    def run(self, *sources: str, **options: Any) -> PluginHost:
        host = self.host(*sources, **options)
        host.start()
        assert host.settled(10)
        return host

    def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Wait for a condition of which nobody tells."""
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not come to that"
            pause.wait(0.003)
        return found

    def end(self) -> None:
        self.release.set()
        for host in self.hosts:
            host.stop(5.0)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    module = SimpleNamespace(fleet=fleet, seen=fleet.seen, release=fleet.release, __spec__=None)
    monkeypatch.setitem(__import__("sys").modules, "fleet", module)
    try:
        yield fleet
    finally:
        fleet.end()
