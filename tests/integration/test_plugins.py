"""Plugins in a real agent under a real broker: each program in a process of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tega_zmq.client.blocking import Client, connect
from tega_zmq.errors import HandlerError, HandlerGone, NoHandler, NotFound, Offline, TegaError

REPOSITORY = Path(__file__).resolve().parents[2]

NET = """
    import os, time
    from pathlib import Path
    from tega_zmq import Plugin, rpc, on_change

    class Net(Plugin):
        def start(self):
            self.calls = 0

        @rpc("ops-{tega_id}.net.restart")
        def restart(self, interface: str, delay: float = 0):
            if interface == "raise": raise OSError("no such interface")
            if interface == "hang": time.sleep(60)
            return {"0": 0, "empty": "", "no": False, "none": None}.get(interface, [interface, delay])

        @on_change("config-{tega_id}.net")
        def apply(self, change):
            self.calls += 1
            with open(self.settings["file"], "a") as file:
                print(repr((change.old, change.new, change.deleted)), file=file)
            if isinstance(change.new, dict) and change.new.get("mtu") == 13:
                raise ValueError("13 brings bad luck")
"""


class Program:
    """A process of a node's program; its log is a file of JSON lines."""

    def __init__(self, module: str, folder: Path, *settings: str) -> None:
        self.log = folder.with_suffix(".jsonl")
        folder.mkdir(exist_ok=True)
        paths = os.pathsep.join(str(REPOSITORY / part) for part in ("", "broker", "agents"))
        command = [sys.executable, "-m", module, "--log-format", "json"]
        for setting in (f"data_dir={folder}", *settings):
            command += ["--set", setting]
        with open(self.log, "ab") as log:
            self.size = log.tell()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": paths},
            )
        self.ready = until(lambda: self.line("ready"))

    def lines(self) -> list[dict[str, Any]]:
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        with open(self.log, "rb") as log:
            log.seek(self.size)
            return [json.loads(line) for line in log if line.endswith(b"\n")]

    def line(self, event: str) -> dict[str, Any] | None:
        return next((line for line in self.lines() if line["event"] == event), None)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        try:
            found = condition()
        except TegaError:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come to that"
        pause.wait(0.01)


class Fleet:
    """A broker, an agent `pi1` with a folder of plugins, and a client at each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        self.applied = folder / "applied.txt"
        self.programs: list[Program] = []
        self.clients: list[Client] = []
        self.broker = self.start_broker()
        self.url = self.broker.ready["requests"]

    def start_broker(
        self, requests: str = "tcp://127.0.0.1:0", changes: str = "tcp://127.0.0.1:0"
    ) -> Program:
        return self.start(
            "tega_broker",
            "broker",
            "tega_id=gateway",
            f"listen.requests={requests}",
            f"listen.changes={changes}",
            "bridge.enabled=false",
        )

    def start_agent(self, *settings: str) -> Program:
        sources = f"[tega_agent.plugins.system, {self.plugins}/]"
        return self.start(
            "tega_agent",
            "pi1",
            "tega_id=pi1",
            f"uplink=[{self.url}]",
            "listen={requests: tcp://127.0.0.1:0}",
            "config=[config-pi1]",
            "operational=[ops-pi1]",
            f"plugins={sources}",
            f"plugin.net.file={self.applied}",
            *settings,
        )

    def start(self, module: str, name: str, *settings: str) -> Program:
        program = Program(module, self.folder / name, *settings)
        self.programs.append(program)
        return program

    def connect(self, url: str) -> Client:
        client = connect(url)
        self.clients.append(client)
        return client

    def write(self, name: str, text: str) -> None:
        (self.plugins / name).write_text(textwrap.dedent(text))

    def seen(self) -> list[Any]:
        """What `Net.apply` was called with: (old, new, deleted)."""
        if not self.applied.exists():
            return []
        return [eval(line) for line in self.applied.read_text().splitlines()]

    def end(self) -> None:
        for client in self.clients:
            client.close()
        for program in reversed(self.programs):
            if program.process.poll() is None:
                program.process.kill()
                program.process.wait(10)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    try:
        yield fleet
    finally:
        fleet.end()


def handler(client: Client, what: str = "agents") -> dict[str, Any] | None:
    """What `agents` says at the broker, or `plugins` at the agent, of `Net.apply`."""
    plugins = client.inspect(what)
    if what == "agents":
        plugins = [plugin for agent in plugins for plugin in agent["plugins"]]
    for plugin in plugins:
        for each in plugin["handlers"]:
            if plugin["name"] == "net" and each["kind"] == "on_change":
                return each  # type: ignore[no-any-return]
    return None


def test_a_device_takes_its_config_and_answers_calls(fleet: Fleet) -> None:
    fleet.write("net.py", NET)
    noc = fleet.connect(fleet.url)
    noc.put("config-pi1.net", {"mtu": 1500})
    agent = fleet.start_agent()
    until(lambda: fleet.seen() == [(None, {"mtu": 1500}, False)])
    until(lambda: (handler(noc) or {}).get("version") == 0)

    version = noc.put("config-pi1.net.mtu", 9000).version
    until(lambda: (handler(noc) or {}).get("version") == version)
    assert fleet.seen()[1:] == [({"mtu": 1500}, {"mtu": 9000}, False)]

    until(lambda: noc.call("ops-pi1.net.restart", "eth0", delay=1.5) == ["eth0", 1.5])
    assert [noc.call("ops-pi1.net.restart", each) for each in ("0", "empty", "no", "none")] == [
        0,
        "",
        False,
        None,
    ]
    with pytest.raises(HandlerError) as raised:
        noc.call("ops-pi1.net.restart", "raise")
    assert (raised.value.type, raised.value.text) == ("OSError", "no such interface")
    with pytest.raises(HandlerError) as raised:
        noc.call("ops-pi1.net.restart")
    assert raised.value.type == "TypeError"
    assert "missing a required argument: 'interface'" in str(raised.value.text)

    noc.delete("config-pi1.net")
    until(lambda: len(fleet.seen()) == 3)
    assert fleet.seen()[2] == ({"mtu": 9000}, None, True)
    assert agent.stop() == 0


def test_one_that_raises_shows_with_version_and_error(fleet: Fleet) -> None:
    fleet.write("net.py", NET)
    noc = fleet.connect(fleet.url)
    good = noc.put("config-pi1.net", {"mtu": 1500}).version
    fleet.start_agent()
    until(lambda: (handler(noc) or {}).get("version") == good)
    bad = noc.put("config-pi1.net.mtu", 13).version
    shown = until(lambda: (found := handler(noc)) and found["error"] and found)
    assert shown["version"] == good
    assert shown["error_version"] == bad
    assert shown["error"].startswith("ValueError: 13 brings bad luck (net.py, line ")
    better = noc.put("config-pi1.net.mtu", 1400).version
    until(lambda: (found := handler(noc)) and found["version"] == better and found["error"] is None)
    assert fleet.seen()[-1] == ({"mtu": 1500}, {"mtu": 1400}, False)


def test_a_config_whose_root_the_agent_does_not_list_shows_and_is_not_applied_once(fleet: Fleet) -> None:
    fleet.write("net.py", NET.replace("config-{tega_id}.net", "config-common.net"))
    noc = fleet.connect(fleet.url)
    noc.put("config-common.net", {"mtu": 1500})
    agent = fleet.start_agent()
    shown = until(lambda: (found := handler(noc)) and found["error"])
    assert "config-common is not listed under `config`" in shown
    assert not fleet.seen()
    agent.stop()
    fleet.start_agent("config=[config-pi1, config-common]")
    until(fleet.seen)
    noc.put("config-common.net.mtu", 1400)
    until(lambda: len(fleet.seen()) == 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_config_pushed_while_it_was_off_is_applied_once(fleet: Fleet, number: int) -> None:
    fleet.write("net.py", NET)
    noc = fleet.connect(fleet.url)
    noc.put("config-pi1.net", {"mtu": 1})
    agent = fleet.start_agent()
    until(lambda: (handler(noc) or {}).get("version") == 0)
    agent.stop(number)
    for mtu in (2, 3, 4):
        last = noc.put("config-pi1.net.mtu", mtu).version
    agent = fleet.start_agent()
    until(lambda: (found := handler(noc)) and found["version"] == last)
    assert fleet.seen() == [(None, {"mtu": 1}, False), ({"mtu": 1}, {"mtu": 4}, False)]
    agent.stop(number)
    fleet.start_agent()
    local = fleet.connect(fleet.programs[-1].ready["requests"])
    until(lambda: (found := handler(local, "plugins")) and found["version"] == last)
    assert len(fleet.seen()) == 2


def test_offline_local_handlers_answer_and_the_last_config_stands(fleet: Fleet) -> None:
    fleet.write("net.py", NET)
    noc = fleet.connect(fleet.url)
    noc.put("config-pi1.net", {"mtu": 1500})
    agent = fleet.start_agent("plugin.system.interval=1")
    until(lambda: len(fleet.seen()) == 1)
    agent.stop()
    requests, changes = fleet.broker.ready["requests"], fleet.broker.ready["changes"]
    fleet.broker.stop()
    fleet.clients.remove(noc)
    noc.close()

    agent = fleet.start_agent("plugin.system.interval=1")
    local = fleet.connect(agent.ready["requests"])
    until(lambda: local.call("ops-pi1.net.restart", "eth0") == ["eth0", 0])
    until(lambda: (handler(local, "plugins") or {}).get("version") == 0)
    assert len(fleet.seen()) == 1
    assert local.get("ops-pi1.system.kernel") == os.uname().release
    with pytest.raises(Offline):
        local.put("config-pi1.net.mtu", 9000)

    fleet.start_broker(requests, changes)
    noc = fleet.connect(fleet.url)
    until(lambda: noc.get("ops-pi1.system.kernel") == os.uname().release)
    noc.put("config-pi1.net.mtu", 9000)
    until(lambda: fleet.seen()[1:] == [({"mtu": 1500}, {"mtu": 9000}, False)])
    until(lambda: noc.call("ops-pi1.net.restart", "eth0") == ["eth0", 0])


def test_reload_without_restart(fleet: Fleet) -> None:
    fleet.write("net.py", NET)
    fleet.write(
        "old.py",
        "from tega_zmq import Plugin, rpc\nclass Old(Plugin):\n  @rpc('old.x')\n  def x(self): return 1",
    )
    agent = fleet.start_agent()
    local = fleet.connect(agent.ready["requests"])
    until(lambda: local.call("old.x") == 1)
    until(lambda: local.call("ops-pi1.net.restart", "eth0") == ["eth0", 0])
    fleet.write("net.py", NET.replace("[interface, delay]", '[interface, "new"]'))
    fleet.write(
        "new.py",
        "from tega_zmq import Plugin, rpc\nclass New(Plugin):\n  @rpc('new.x')\n  def x(self): return 2",
    )
    (fleet.plugins / "old.py").unlink()
    local.manage("reload")
    until(lambda: local.call("new.x") == 2)
    until(lambda: local.call("ops-pi1.net.restart", "eth0") == ["eth0", "new"])
    with pytest.raises((NoHandler, Offline)):
        local.call("old.x")
    fleet.write("net.py", "this is no python")
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: any("the code before it goes on" in (p["error"] or "") for p in local.inspect("plugins")))
    assert local.call("ops-pi1.net.restart", "eth0") == ["eth0", "new"]


def test_plugins_that_raise_and_hang_harm_nobody(fleet: Fleet) -> None:
    fleet.write("net.py", NET)
    fleet.write("a.py", "raise OSError('at import')")
    fleet.write("b.py", "import time\ntime.sleep(600)")
    fleet.write(
        "c.py",
        """
        import time
        from tega_zmq import Plugin, on_change, rpc
        class C(Plugin):
            @rpc("c.hang")
            def hang(self): time.sleep(600)
            @on_change("config-{tega_id}")
            def apply(self, change): time.sleep(600)
        class D(Plugin):
            def start(self): time.sleep(600)
        """,
    )
    noc = fleet.connect(fleet.url)
    noc.put("config-pi1.net", {"mtu": 1500})
    agent = fleet.start_agent()
    local = fleet.connect(agent.ready["requests"])
    until(lambda: local.call("ops-pi1.net.restart", "eth0") == ["eth0", 0], 30)
    until(lambda: len(fleet.seen()) == 1)
    states = {
        "system": "running",
        "net": "running",
        str(fleet.plugins / "a.py"): "failed",
        str(fleet.plugins / "b.py"): "loading",
        "c": "running",
        "d": "starting",
    }
    until(lambda: {p["name"]: p["state"] for p in local.inspect("plugins")} == states)
    hanging = threading.Thread(target=_swallow, args=(local, "c.hang"))
    hanging.start()
    began = time.monotonic()
    assert local.call("ops-pi1.ping", 5)["value"] == 5
    assert agent.stop() == 0
    assert time.monotonic() - began < 15
    hanging.join(20)
    assert not hanging.is_alive()


def _swallow(client: Client, path: str) -> None:
    with contextlib.suppress(TegaError):
        client.call(path)


def test_a_handler_of_an_agent_that_dies_is_gone_at_once(fleet: Fleet) -> None:
    fleet.write("net.py", NET)
    noc = fleet.connect(fleet.url)
    agent = fleet.start_agent()
    until(lambda: noc.call("ops-pi1.net.restart", "eth0") == ["eth0", 0])
    errors: list[BaseException] = []

    def call() -> None:
        try:
            noc.call("ops-pi1.net.restart", "hang", timeout=50)
        except TegaError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: noc.inspect("status")["calls"] == 1)
    agent.stop(signal.SIGKILL)
    thread.join(20)
    assert [type(error) for error in errors] == [HandlerGone]


def test_the_plugin_system(fleet: Fleet) -> None:
    noc = fleet.connect(fleet.url)
    fleet.start_agent(
        "plugin.system.interval=1", "plugin.system.run={hello: {command: [/bin/echo, hello], args: true}}"
    )
    tree = until(lambda: noc.get("ops-pi1.system"))
    assert tree["kernel"] == os.uname().release
    assert tree["memory"]["total"] > tree["memory"]["available"] > 0
    assert {"cpus", "disks", "hostname", "load", "os", "uptime", "booted"} <= tree.keys()
    info = noc.call("ops-pi1.info")
    assert info["kernel"] == tree["kernel"]
    assert abs(info["time"] - time.time()) < 30
    assert noc.call("ops-pi1.ping")["value"] == "pong"
    assert noc.call("ops-pi1.run", "hello", "there")["output"] == "hello there\n"
    with pytest.raises(HandlerError, match="there is no command 'reboot'"):
        noc.call("ops-pi1.run", "reboot")


def test_an_agent_without_any_config_writes_how_its_device_is(fleet: Fleet) -> None:
    noc = fleet.connect(fleet.url)
    agent = fleet.start("tega_agent", "bare", "tega_id=pi2", f"uplink=[{fleet.url}]")
    assert until(lambda: noc.get("ops-pi2.system"))["hostname"]
    assert [line for line in agent.lines() if line["level"] in ("warning", "error")] == []


def test_the_plugin_system_without_an_operational_root(fleet: Fleet) -> None:
    noc = fleet.connect(fleet.url)
    agent = fleet.start_agent("operational=[]")
    local = fleet.connect(agent.ready["requests"])
    until(
        lambda: any("not listed under `operational`" in (p["error"] or "") for p in local.inspect("plugins"))
    )
    with pytest.raises(NotFound):
        noc.get("ops-pi1.system")
    assert noc.call("ops-pi1.ping")["value"] == "pong"
