"""The README is true: its commands and its Python run as they stand, against the fleet of `make run`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tega_broker.fleet import Fleet, seed, wait_until
from tega_broker.processes import Program
from tega_broker.story import free_pair
from tega_zmq import NotFound

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEGA = [sys.executable, "-m", "tega_zmq.shell.main"]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="tega-") as folder:
        made = Fleet(ROOT / "conf" / "demo", Path(folder), free_pair())
        with made:
            made.start()
            with made.connect("seed") as tega:
                seed(tega, ROOT / "conf" / "demo.yaml")
            yield made


def commands() -> list[str]:
    block = next(text for text in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "tega agents" in text)
    return block.splitlines()


def run(fleet: Fleet, *arguments: str) -> str:
    done = subprocess.run(
        [*TEGA, "-s", fleet.url, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


def test_the_commands(fleet: Fleet) -> None:
    with fleet.connect_local("pi1", "looker") as on_pi1, fleet.connect("awaiter") as tega:
        wait_until("pi1 has its config", lambda: on_pi1.get("config-pi1", None))
        wait_until("pi1 has said how it is", lambda: tega.get("ops-pi1.system", None))
        said = {}
        for line in commands()[:-1]:
            words = re.findall(r"\"[^\"]*\"|\S+", line)[1:]
            local = words[0] == "-s"
            arguments = [word.strip('"') for word in (words[2:] if local else words)]
            if local:
                wait_until("the put is there", lambda: on_pi1.get("config-pi1.interfaces.eth0.mtu") == 9000)
                arguments = ["-s", fleet.local_url("pi1"), *arguments]
            said[line] = run(fleet, *arguments)
    answers = list(said.values())
    assert "pi1    connected" in answers[0]
    assert "10.20.0.11/24" in answers[1]
    assert "mtu: 9000" in answers[3]
    assert "kernel:" in answers[4]
    assert "value: hello" in answers[5]
    assert "seeded from demo.yaml" in answers[6]
    assert run(fleet, "get", "config-pi1.interfaces.eth0.mtu") == "1500\n"


def test_the_python(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    exec(compile(code.replace("tcp://127.0.0.1:8740", fleet.url), "README.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["1500", "100"]
    assert "move the sensors" in said[2]
    assert "config-pi1.wifi.country DE -> FR" in said
    assert said[-2:] == ["3", "hello"]


def test_the_plugin(fleet: Fleet) -> None:
    folder = fleet.data / "plugins"
    folder.mkdir()
    (folder / "net.py").write_text(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1])
    settings = {
        "tega_id": "pi3",
        "data_dir": str(fleet.data / "pi3"),
        "uplink": fleet.url,
        "config": "config-pi3",
        "operational": "ops-pi3",
        "plugins": f"[{folder}]",
    }
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    agent = Program("pi3", [sys.executable, "-m", "tega_agent", *flags], fleet.data / "pi3.log", fleet.data)
    agent.start()
    try:
        with fleet.connect("desk") as tega:
            wait_until("the handler is there", lambda: "ops-pi3.net.restart" in tega.inspect("handlers"))
            assert tega.call("ops-pi3.net.restart", "eth0") == "eth0 restarted"
            with pytest.raises(NotFound):
                tega.get("config-pi3")
            tega.put("config-pi3.interfaces.eth0", {"mtu": 1500})
            (handler,) = wait_until_applied(fleet, "pi3")
            assert handler["error"] is None
    finally:
        assert agent.stop() == 0


def wait_until_applied(fleet: Fleet, agent: str) -> list[dict[str, object]]:
    """What the plugins of `agent` say of themselves, once one has applied something."""
    found: list[dict[str, object]] = []
    with fleet.connect("looker-2") as tega:

        def applied() -> bool:
            entry = next(entry for entry in tega.inspect("agents") if entry["tega_id"] == agent)
            handlers = [handler for plugin in entry["plugins"] for handler in plugin.get("handlers", [])]
            found[:] = [handler for handler in handlers if handler.get("version") is not None]
            return bool(found)

        wait_until("the config is applied", applied)
    return found
