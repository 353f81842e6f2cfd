"""The client as a plugin sees it: what it makes ends with it, and harms nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tega_zmq.errors import InvalidPath, InvalidValue, Offline
from tega_zmq.plugins import facade as module
from tega_zmq.plugins.facade import Facade, Offered
from tega_zmq.plugins.worker import Worker


class Client:
    """Notes what it is asked for; `during` is called in the middle of each request."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}
        self.callbacks: list[Any] = []
        self.during: Callable[[], None] = lambda: None
        self.fails: Exception | None = None
        self.state = "connected"

    def _ask(self) -> None:
        self.during()
        if self.fails is not None:
            raise self.fails

    def register(self, path: str, function: Any, **options: Any) -> None:
        self._ask()
        self.handlers[path] = function

    def unregister(self, path: str, **options: Any) -> None:
        self._ask()
        del self.handlers[path]

    def subscribe(self, path: str, callback: Any, scope: str, **options: Any) -> Any:
        self._ask()
        self.callbacks.append(callback)

        def cancel() -> None:
            self._ask()
            self.callbacks.remove(callback)

        return SimpleNamespace(cancel=cancel, number=7)

    listen = subscribe


class Bench:
    def __init__(
        self, plugin: str = "net", client: Client | None = None, offered: Offered | None = None
    ) -> None:
        self.client = client or Client()
        self.offered = offered or Offered()
        self.worker = Worker(f"plugin {plugin}")
        self.failures: list[tuple[str, BaseException]] = []
        self.log = logging.getLogger("test.facade")
        self.facade: Any = Facade(
            self.client,
            plugin,
            self.worker,
            self.offered,
            self.log,
            lambda *failure: self.failures.append(failure),
        )


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.worker.close()
    assert made.worker.join(10)


def test_what_is_not_the_facades_goes_to_the_client(bench: Bench) -> None:
    assert bench.facade.state == "connected"
    with pytest.raises(AttributeError):
        bench.facade.no_such_method  # noqa: B018 - the attribute is the test


def test_paths_may_be_given_as_for_the_client(bench: Bench) -> None:
    bench.facade.register(("a", "b.c"), print, timeout=3)
    assert set(bench.client.handlers) == {'a."b.c"'}
    with pytest.raises(ValueError, match=r"plugin net offers"):
        Bench("wifi", bench.client, bench.offered).facade.register('a."b.c"', print)
    bench.facade.unregister('a."b.c"')
    assert not bench.client.handlers
    with pytest.raises(InvalidPath):
        bench.facade.register("a..b", print)


def test_a_path_that_could_not_be_registered_is_free_again(bench: Bench) -> None:
    bench.client.fails = Offline("away")
    with pytest.raises(Offline):
        bench.facade.register("a.b", print)
    bench.client.fails = None
    Bench("wifi", bench.client, bench.offered).facade.register("a.b", print)


def test_a_registration_that_is_under_way_when_the_plugin_is_unloaded_is_undone(bench: Bench) -> None:
    bench.client.during = lambda: bench.facade.shut(tell=True)
    with pytest.raises(RuntimeError, match="is being unloaded"):
        bench.facade.register("a.b", print)
    bench.client.during = lambda: None
    assert not bench.client.handlers
    with pytest.raises(RuntimeError, match="is being unloaded"):
        bench.facade.register("a.b", print)


def test_a_subscription_that_is_under_way_when_the_plugin_is_unloaded_is_undone(bench: Bench) -> None:
    bench.client.during = lambda: bench.facade.shut(tell=True)
    with pytest.raises(RuntimeError, match="is being unloaded"):
        bench.facade.subscribe("a.b", print)
    assert not bench.client.callbacks


def test_shut_goes_on_when_the_node_does_not_answer(bench: Bench) -> None:
    watch = bench.facade.subscribe("a", print)
    assert watch.number == 7
    bench.facade.listen("b", print)
    bench.facade.register("c.d", print)
    bench.client.fails = Offline("away")
    bench.facade.shut(tell=True)
    bench.client.fails = None
    Bench("wifi", bench.client, bench.offered).facade.register("c.d", print)


def test_shut_without_telling_asks_the_node_nothing(bench: Bench) -> None:
    bench.facade.subscribe("a", print)
    bench.facade.register("c.d", print)
    bench.client.fails = AssertionError("asked")
    bench.facade.shut(tell=False)
    bench.offered.take("c.d", "wifi")


def test_callbacks_come_in_order_and_what_they_raise_is_told(bench: Bench) -> None:
    seen: list[Any] = []
    done = threading.Event()

    def callback(value: int) -> None:
        seen.append((value, threading.current_thread().name))
        if value == 1:
            raise SystemExit("one")
        if value == 3:
            done.set()

    bench.facade.subscribe("a.b", callback)
    bench.worker.start()
    for value in range(4):
        bench.client.callbacks[0](value)
    assert done.wait(10)
    assert seen == [(value, "plugin net") for value in range(4)]
    assert [(what, type(error)) for what, error in bench.failures] == [("a.b", SystemExit)]


def test_callbacks_that_wait_are_bounded_and_it_is_said_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    seen: list[int] = []
    bench.facade.listen("a", seen.append)
    with caplog.at_level(logging.WARNING):
        for value in range(20):
            bench.client.callbacks[0](value)
    assert len(caplog.records) == 1
    assert "too many callbacks wait" in caplog.text
    done = threading.Event()
    bench.worker.add("end", done.set, delay=0.01)
    bench.worker.start()
    assert done.wait(10)
    assert seen == [0, 1, 2, 3, 4]


def test_a_callback_that_is_async_is_refused(bench: Bench) -> None:
    async def later(change: Any) -> None: ...

    for begin in (bench.facade.subscribe, bench.facade.listen):
        with pytest.raises(TypeError, match="is async"):
            begin("a.b", later)
    with pytest.raises(TypeError, match="is async"):
        bench.facade.register("a.b", later)
    with pytest.raises(TypeError, match="is async"):
        bench.facade.on_state(later)
    with pytest.raises(InvalidValue, match=r"^the callback of a\.b must be a function, not int"):
        bench.facade.subscribe("a.b", 5)
