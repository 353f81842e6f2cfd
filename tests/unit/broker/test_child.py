"""The bridge as a child: started again when it ends, stopped with the broker, told all its keys."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tega_broker import child
from tega_broker.child import Child, bridge_command
from tega_zmq.runtime.config import BridgeConfig, BrokerConfig, load

LOGGER = logging.getLogger("tega.test")


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def writes_its_pid(folder: Path) -> list[str]:
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        f"signal.signal(signal.SIGHUP, lambda *_: open({str(folder / 'hup')!r}, 'w').close())\n"
        f"open(os.path.join({str(folder)!r}, 'pid-%d' % os.getpid()), 'w').close()\n"
        "while True: time.sleep(0.05)\n"
    )
    return [sys.executable, "-c", code]


def pids(folder: Path) -> set[int]:
    return {int(each.name[4:]) for each in folder.glob("pid-*")}


def test_it_is_started_again_when_it_ends_and_not_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child, "FIRST", 0.01)
    bridge = Child(writes_its_pid(tmp_path), LOGGER)
    bridge.start()
    try:
        until(lambda: len(pids(tmp_path)) == 1)
        (first,) = pids(tmp_path)
        os.kill(first, signal.SIGKILL)
        until(lambda: len(pids(tmp_path)) == 2)
        assert "started again" in caplog.text
        bridge.reload()
        until((tmp_path / "hup").exists)
    finally:
        bridge.stop()
    assert bridge.stopped
    assert bridge.pid is None
    assert len(pids(tmp_path)) == 2


def test_what_does_not_listen_to_the_end_is_killed(tmp_path: Path) -> None:
    code = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
    code += f"open({str(tmp_path / 'up')!r}, 'w').close()\nwhile True: time.sleep(0.05)\n"
    bridge = Child([sys.executable, "-c", code], LOGGER)
    bridge.start()
    until((tmp_path / "up").exists)
    bridge.stop(seconds=0.1)
    assert bridge.stopped
    assert bridge.pid is None


def test_one_that_was_never_started_stops(tmp_path: Path) -> None:
    bridge = Child(writes_its_pid(tmp_path), LOGGER)
    bridge.ask_to_stop()
    bridge.start()
    bridge.stop()
    assert bridge.stopped
    assert not pids(tmp_path)


def test_the_bridge_is_told_all_that_the_brokers_config_says_of_it() -> None:
    flags = (
        "tega_id=gw",
        "insecure=true",
        "log_format=json",
        "bridge.listen=https://0.0.0.0:443",
        "bridge.hosts=[gw.example.org, gw]",
        "bridge.tls.cert=/c.pem",
        "bridge.limits.rate=7.5",
        "bridge.access_log=none",
    )
    config = load(BrokerConfig, (), {}, flags)
    command = bridge_command(config, "tcp://127.0.0.1:9999")
    assert command[:3] == [sys.executable, "-m", "tega_broker.bridge"]
    assert set(command[3::2]) == {"--set"}
    told = load(BridgeConfig, (), {}, command[4::2])
    assert (told.tega_id, told.broker, told.insecure) == ("gw-bridge", "tcp://127.0.0.1:9999", True)
    assert told.log_format == "json"
    for name in ("listen", "hosts", "origins", "tls", "limits", "access_log"):
        assert getattr(told, name) == getattr(config.bridge, name), name
