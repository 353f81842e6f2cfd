"""The command line of the daemons."""

from __future__ import annotations

from pathlib import Path

import pytest

from tega_zmq.runtime import args
from tega_zmq.runtime.config import AgentConfig, BridgeConfig, BrokerConfig
from tega_zmq.version import __version__


def parse(*argv: str, environment: dict[str, str] | None = None) -> BrokerConfig:
    return args.parse(BrokerConfig, "tega-broker", "The broker.", argv, environment or {})


def test_nothing_at_all_is_enough() -> None:
    assert parse().listen.changes == "tcp://127.0.0.1:8741"
    assert args.parse(AgentConfig, "tega-agent", "The agent.", [], {}).sync == "interval"


def test_files_flags_and_their_order(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("log_level: error\nsync: none\n")
    config = parse(
        "-c", str(file), "--log-level", "debug", "--set", "sync=interval", environment={"TEGA_SYNC": "none"}
    )
    assert (config.log_level, config.sync) == ("debug", "interval")
    assert parse("--config", str(file), "--log-format", "json").log_format == "json"


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEGA_TEGA_ID", "gw9")
    assert args.parse(BrokerConfig, "tega-broker", "The broker.", []).tega_id == "gw9"


def test_a_mistake_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--set", "sesion.lease=3")
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "tega-broker: --set sesion.lease=3: unknown key sesion; did you mean session?\n"


@pytest.mark.parametrize("argv", [["--nosuch"], ["--log-level", "loud"], ["extra"], ["--log-l", "info"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*argv)
    assert ended.value.code == 2
    assert "usage: tega-broker" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, said in (("--version", f"tega-broker {__version__}"), ("--help", "TEGA_A__B=c sets a.b")):
        with pytest.raises(SystemExit) as ended:
            parse(flag)
        assert ended.value.code == 0
        assert said in " ".join(capsys.readouterr().out.split())


def test_keys_with_a_flag_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    def bridge(*argv: str) -> BridgeConfig:
        return args.parse(BridgeConfig, "tega-bridge", "The bridge.", argv, {}, keys=("broker", "listen"))

    config = bridge("--broker", "tcp://gw:1", "--set", "access_log=none", "--listen", "http://127.0.0.1:2")
    assert (config.broker, config.listen, config.access_log) == ("tcp://gw:1", "http://127.0.0.1:2", "none")
    assert bridge().broker == "tcp://127.0.0.1:8740"
    with pytest.raises(SystemExit):
        bridge("--broker", "gw")
    assert "--set broker=gw" in capsys.readouterr().err
