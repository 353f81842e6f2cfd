"""Commands that the config lists: what they return, and their bounds."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tega_agent import commands
from tega_agent.commands import Command, Commands, parse
from tega_agent.settings import BadSetting

SH = "/bin/sh"


def make(text: str, **options: Any) -> Commands:
    return Commands({"x": Command((SH, "-c", text), **options)})


def test_the_result_of_a_command() -> None:
    result = make("echo out; echo err >&2; exit 3").run("x", ())
    assert result.pop("seconds") >= 0
    assert result == {"status": 3, "output": "out\nerr\n", "truncated": False, "timed_out": False}


def test_no_shell_sees_the_arguments() -> None:
    listed = Commands({"say": Command(("/bin/echo",), args=True)})
    assert listed.run("say", ("$HOME; rm -rf *", 5, 1.5))["output"] == "$HOME; rm -rf * 5 1.5\n"


def test_it_runs_in_a_place_and_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEGA_SECRET", "x")
    output = make("pwd; env; cat").run("x", ())["output"]
    assert output.startswith("/\n")
    assert "TEGA_SECRET" not in output


def test_output_beyond_the_limit_is_cut_and_said() -> None:
    result = make("head -c 300000 /dev/zero | tr '\\0' x; exit 1", output=1000).run("x", ())
    assert result["output"] == "x" * 1000
    assert result["truncated"] is True
    assert result["status"] == 1
    assert make("printf 12345", output=5).run("x", ())["truncated"] is False
    assert make("printf 1", output=0).run("x", ())["truncated"] is True


def test_output_that_is_no_text() -> None:
    assert make("printf '\\377a'").run("x", ())["output"] == "\ufffda"


@pytest.mark.parametrize("pidfd", [True, False])
def test_one_that_takes_too_long_is_ended_with_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pidfd: bool
) -> None:
    if not pidfd:
        monkeypatch.setattr(os, "pidfd_open", _missing)
    file = tmp_path / "pid"
    result = make(f"sleep 60 & echo $! > {file}; echo begun; wait", timeout=1.0).run("x", ())
    assert result["timed_out"] is True
    assert result["status"] == -15
    assert result["output"] == "begun\n"
    child = int(file.read_text())
    for _ in range(500):
        if _gone(child):
            break
        threading.Event().wait(0.01)
    assert _gone(child)


def test_one_that_ignores_the_request_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_GRACE", 0.05)
    listed = make("trap '' TERM; while :; do sleep 60; done", timeout=1.0)
    result = listed.run("x", ())
    assert result["timed_out"] is True
    assert result["status"] == -9


def _gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] == "Z"
    except OSError:
        return True


def _missing(pid: int) -> int:
    raise OSError("no such call")


def test_what_it_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    result = make(f"setsid sleep 60 & echo $! > {file}; echo begun", timeout=30.0).run("x", ())
    os.kill(int(file.read_text()), 9)
    assert result["status"] == 0
    assert result["timed_out"] is False
    assert result["output"] == "begun\n"


def test_one_that_closes_its_output_is_waited_for() -> None:
    assert make("exec >&- 2>&-; sleep 0.05; exit 7").run("x", ())["status"] == 7


@pytest.mark.parametrize(
    ("name", "args", "error", "text"),
    [
        ("y", (), ValueError, "there is no command 'y'; the config of this device lists: x"),
        (["x"], (), ValueError, "there is no command"),
        ("x", ("a",), ValueError, "`args: true` in the config"),
    ],
)
def test_what_is_not_listed_is_refused(name: Any, args: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make("true").run(name, args)


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        ((True,), TypeError, "must be text or a number, not bool"),
        (({},), TypeError, "not dict"),
        (("a\0b",), ValueError, "has a NUL"),
        (("a" * 5000,), ValueError, "4096 characters"),
        (("a",) * 65, ValueError, "at most 64"),
    ],
)
def test_arguments_are_checked(args: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make("true", args=True).run("x", args)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(RuntimeError, match="x: /no/such cannot be started: No such file"):
        Commands({"x": Command(("/no/such",))}).run("x", ())


def test_only_a_few_run_at_a_time_and_close_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = make("sleep 60", timeout=60.0)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(listed.run("x", ()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(1000):
        if len(listed._running) == 4:
            break
        threading.Event().wait(0.005)
    with pytest.raises(RuntimeError, match="4 commands are running already"):
        listed.run("x", ())
    listed.close()
    for thread in threads:
        thread.join(20)
    assert [result["status"] for result in results] == [-9] * 4
    with pytest.raises(RuntimeError, match="being unloaded"):
        listed.run("x", ())


def test_parse() -> None:
    assert parse(
        {"a": {"command": ["/bin/a", "-x"]}, "b": {"command": ["b"], "timeout": 5, "args": True}}, "r"
    ) == {
        "a": Command(("/bin/a", "-x"), 30.0, 65536, args=False),
        "b": Command(("b",), 5.0, 65536, args=True),
    }


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ([], "run must map names to commands, not be list"),
        ({"a": "reboot"}, "run.a must be a map with the key command, not str"),
        ({"a": {}}, "run.a.command must be a list of texts"),
        ({"a": {"command": "reboot now"}}, "run.a.command must be a list of texts"),
        ({"a": {"command": []}}, "run.a.command must be a list of texts"),
        ({"a": {"command": ["a", 5]}}, "run.a.command must be a list of texts"),
        ({"a": {"command": [""]}}, "run.a.command has an empty program"),
        (
            {"a": {"command": ["a"], "timeuot": 5}},
            "run.a.timeuot: there is no such key; there are command, timeout",
        ),
        ({"a": {"command": ["a"], "timeout": 0}}, "run.a.timeout must be seconds"),
        ({"a": {"command": ["a"], "timeout": True}}, "run.a.timeout must be seconds"),
        ({"a": {"command": ["a"], "timeout": float("nan")}}, "run.a.timeout must be seconds"),
        ({"a": {"command": ["a"], "output": -1}}, "run.a.output must be a number of bytes"),
        ({"a": {"command": ["a"], "args": 1}}, "run.a.args must be true or false"),
    ],
)
def test_settings_that_are_wrong_are_named(settings: Any, text: str) -> None:
    with pytest.raises(BadSetting) as raised:
        parse(settings, "run")
    assert text in str(raised.value)
