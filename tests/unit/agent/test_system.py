"""The plugin `system`, over a client that keeps one tree."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tega_agent.plugins.system import System
from tega_agent.settings import BadSetting
from tega_zmq.errors import NotFound
from tega_zmq.plugins.base import handlers_of


class Client:
    def __init__(self, operational: list[str] | None = None) -> None:
        self.tree: dict[str, Any] = {}
        self.patches: list[tuple[str, Any]] = []
        self.operational = operational
        self.inspected = 0

    def inspect(self, what: str) -> Any:
        assert what == "status"
        self.inspected += 1
        if self.operational is None:
            return {"tega_id": "gateway"}
        return {"uplink": {"operational": [{"root": root, "accepted": False} for root in self.operational]}}

    def get(self, path: str) -> Any:
        if path not in self.tree:
            raise NotFound("nothing", path=path)
        return self.tree[path]

    def patch(self, path: str, value: Any) -> None:
        self.patches.append((path, value))
        self.tree[path] = {**self.tree.get(path, {}), **value}


class Reading:
    def __init__(self, **values: Any) -> None:
        self.values = values

    def read(self) -> Any:
        return dict(self.values)


def plugin(client: Client | None = None, **settings: Any) -> Any:
    made: Any = System()
    made.tega = client if client is not None else Client(["ops-pi1"])
    made.tega_id = "pi1"
    made.settings = settings
    made.log = logging.getLogger("test")
    made.ticks = []
    made._every = lambda seconds, method, now: made.ticks.append((seconds, method, now))
    return made


def test_only_what_changed_is_written() -> None:
    client = Client(["ops-pi1"])
    made = plugin(client)
    made.reader = Reading(hostname="pi1", load={"1m": 0.1}, uptime=61.0)
    made.write()
    made.write()
    made.reader = Reading(hostname="pi2", load={"1m": 0.15}, uptime=100.0)
    made.write()
    assert client.patches == [
        ("ops-pi1.system", {"hostname": "pi1", "load": {"1m": 0.1}, "uptime": 60}),
        ("ops-pi1.system", {"hostname": "pi2"}),
    ]
    assert client.inspected == 1


def test_nothing_is_written_to_a_root_that_is_not_the_agents() -> None:
    client = Client(["ops-other"])
    made = plugin(client)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="ops-pi1 is not listed under `operational`"):
            made.write()
    assert not client.patches
    client.operational = ["ops-pi1"]
    made.write()
    assert client.patches


def test_a_broker_may_write_any_root() -> None:
    client = Client(None)
    plugin(client).write()
    assert client.patches


def test_the_interval() -> None:
    made = plugin()
    made.start()
    assert made.ticks == [(30, made.write, True)]
    made = plugin(interval=0)
    made.start()
    assert made.ticks == []


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"intervall": 3}, "plugin.system.intervall: there is no such key; there are interval, run"),
        ({"interval": "30s"}, "plugin.system.interval must be a number of seconds, not '30s'"),
        ({"interval": True}, "plugin.system.interval must be a number of seconds"),
        ({"interval": 0.5}, "plugin.system.interval must be 0, or 1 to 86400 seconds"),
        ({"run": {"x": {}}}, "plugin.system.run.x.command"),
    ],
)
def test_settings_that_are_wrong_are_named(settings: Any, text: str) -> None:
    with pytest.raises(BadSetting) as raised:
        plugin(**settings).start()
    assert text in str(raised.value)


def test_handlers() -> None:
    assert {(each.kind, each.path) for each in handlers_of(System)} == {
        ("rpc", "ops-{tega_id}.ping"),
        ("rpc", "ops-{tega_id}.info"),
        ("rpc", "ops-{tega_id}.run"),
    }
    made = plugin(run={"hello": {"command": ["/bin/echo", "hello"]}})
    made.start()
    assert made.ping()["value"] == "pong"
    assert made.ping(0)["value"] == 0
    assert made.ping()["time"] > 1_600_000_000
    made.reader = Reading(load={"1m": 0.123456})
    info = made.info()
    assert info.pop("time") > 1_600_000_000
    assert info == {"load": {"1m": 0.123456}}
    assert made.run("hello")["output"] == "hello\n"
    with pytest.raises(ValueError, match="lists: hello"):
        made.run("reboot")
    made.stop()
    with pytest.raises(RuntimeError):
        made.run("hello")


def test_nothing_can_be_run_by_default() -> None:
    made = plugin()
    made.start()
    with pytest.raises(ValueError, match="lists none under plugin"):
        made.run("reboot")
    made.stop()
