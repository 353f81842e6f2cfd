"""The class and the decorators, as a plugin's author meets them."""

from __future__ import annotations

from typing import Any

import pytest

from tega_zmq.errors import InvalidPath
from tega_zmq.plugins.base import Handler, Plugin, check_name, expand, handlers_of, on_change, rpc


def test_handlers_are_found_in_order_and_through_bases() -> None:
    class Base(Plugin):
        @rpc("a.x")
        def x(self) -> None: ...
        @rpc("a.y")
        def y(self) -> None: ...

    class Net(Base):
        def y(self) -> None: ...  # overridden without a decorator
        @on_change("b", regex=True)
        @on_change("c")
        def z(self, change: Any) -> None: ...

    assert handlers_of(Net) == [
        Handler("rpc", "a.x", "x", regex=False),
        Handler("on_change", "c", "z", regex=False),
        Handler("on_change", "b", "z", regex=True),
    ]
    assert handlers_of(Plugin) == []


def test_names() -> None:
    class WiFi(Plugin): ...

    class Own(Plugin):
        name = "own-1"

    class Below(Own): ...

    assert check_name(WiFi) == "wifi"
    assert check_name(Own) == "own-1"
    assert check_name(Below) == "below"


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "_a", 5])
def test_names_that_cannot_be(name: Any) -> None:
    class Net(Plugin): ...

    Net.name = name
    with pytest.raises(ValueError, match="the name of plugin class Net is"):
        check_name(Net)


@pytest.mark.parametrize(
    ("path", "regex", "expanded"),
    [
        ("ops-{tega_id}.x", False, "ops-pi-1.x"),
        ('a."b.{tega_id}"', False, 'a."b.pi-1"'),
        ("{other}.x", False, "{other}.x"),
        (r"config-{tega_id}\.[a-z]{2}", True, r"config-pi\-1\.[a-z]{2}"),
    ],
)
def test_expand(path: str, regex: bool, expanded: str) -> None:
    assert expand(path, "pi-1", regex=regex) == expanded


@pytest.mark.parametrize("path", ["", "a..b", "_x", "a b", "a.", "{tega_id"])
def test_a_path_that_is_none_is_refused_where_it_is_written(path: str) -> None:
    if path == "{tega_id":
        assert rpc(path)
        return
    with pytest.raises(InvalidPath):
        rpc(path)
    with pytest.raises(InvalidPath):
        on_change(path)


def test_a_decorator_without_a_path_says_so() -> None:
    with pytest.raises(TypeError, match=r'write @rpc\("some.path"\)'):
        rpc(lambda self: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", [staticmethod, classmethod])
def test_only_methods_can_be_handlers(wrap: Any) -> None:
    with pytest.raises(TypeError, match="must stand before a method"):
        rpc("a.b")(wrap(lambda: None))
    with pytest.raises(TypeError, match="must stand before a method"):
        rpc("a.b")(Plugin)


def test_async_is_refused_with_a_reason() -> None:
    async def run(self: Any) -> None: ...

    async def ticks(self: Any) -> Any:
        yield 1

    def steps(self: Any) -> Any:
        yield 1

    for method in (run, ticks):
        with pytest.raises(TypeError, match="is async; plugins run in threads"):
            rpc("a.b")(method)
    with pytest.raises(TypeError, match="is a generator"):
        on_change("a.b")(steps)
    with pytest.raises(TypeError, match="is async"):

        class Bad(Plugin):
            async def stop(self) -> None: ...  # type: ignore[override]


def test_a_plugin_can_be_made_and_called_in_a_test_of_its_author() -> None:
    class Net(Plugin):
        @rpc("a.b")
        def add(self, a: int, b: int = 2) -> int:
            return a + b

    assert Net().add(1) == 3
