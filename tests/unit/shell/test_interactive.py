"""The shell on cmd2, without a terminal: what a line does and prints, what Tab offers, what comes."""

from __future__ import annotations

import io
import json
import stat
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path as File
from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from rich.console import Console

from tega_zmq.errors import Collision, Compacted, TransactionExpired
from tega_zmq.shell import interactive
from tega_zmq.shell.events import MAX_WAITING
from tega_zmq.shell.interactive import OFF, PROGRAMS, Shell, history_file, startup_file
from tega_zmq.shell.oneshot import Options


class Typed:
    def __init__(self, client: Any, as_json: bool = False, programs: bool = False) -> None:
        self.client = client
        self.lines: list[str] = []
        self.stop = False
        self._out, self._err = io.StringIO(), io.StringIO()
        with redirect_stdout(self._out):
            self.shell = Shell(client, Options("tcp://node", None, 1.0, as_json, programs))
        self.shell.read_input = self._read  # type: ignore[method-assign]

    def _read(self, prompt: str = "", **_: Any) -> str:
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    def __call__(self, *lines: str) -> tuple[str, str]:
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        with redirect_stdout(self._out), redirect_stderr(self._err):
            for line in lines:
                self.stop = self.shell.onecmd_plus_hooks(line)
        return self._out.getvalue(), self._err.getvalue()

    def events(self) -> str:
        """What would be drawn above the prompt now."""
        file = io.StringIO()
        console = Console(file=file, width=200)
        for alert in list(self.shell._alert_queue):
            console.print(alert.msg, soft_wrap=True)
        self.shell._alert_queue.clear()
        return file.getvalue()

    def offered(self, line: str) -> list[str]:
        completer = self.shell.main_session.completer
        assert completer is not None
        return [each.text for each in completer.get_completions(Document(line), CompleteEvent())]


@pytest.fixture
def shell(desk: Any) -> Typed:
    return Typed(desk.client)


def test_lines_are_taken_as_they_are(shell: Typed) -> None:
    assert shell("put a.b {x: \"1 2\", y: 'z > w'}")[0] == "a@0\n"
    assert shell.client.tree == {"a": {"b": {"x": "1 2", "y": "z > w"}}}
    assert json.loads(shell("get a.b.x --json")[0]) == "1 2"
    shell('put a."c.d" x | y; z')
    assert shell.client.tree["a"]["c.d"] == "x | y; z"
    shell("put a.e 1 --version 1 --message 'two words'", "put a.e --version 2 5 6")
    assert shell.client.calls[-2][2:] == (1, 1, False, "two words")
    assert shell.client.calls[-1][2:] == ("5 6", 2, False, "")


def test_errors_are_one_line_and_the_shell_goes_on(shell: Typed) -> None:
    assert shell("get nope") == ("", "NotFound: there is nothing at nope\n")
    assert "did you mean get" in shell("gte a")[1]
    assert "column 7 is not closed" in shell("put a {b")[1]
    assert "arguments" in shell("get")[1]
    assert shell("put a.b 1 --version x")[1].startswith("--version: 'x' is no whole number or absent")
    assert shell("commit")[1] == "no transaction is open; `begin` opens one\n"
    assert shell.stop is False
    shell.client.fail = Collision("one\ntwo \x1b[31m")
    assert shell("roots")[1] == "Collision: one two \\x1b[31m\n"


def test_a_body_ends_with_an_empty_line_or_ctrl_d(shell: Typed) -> None:
    shell.lines = ["x: 1", "y:", "- 2", "", "rest"]
    shell("put a.b")
    assert shell.lines == ["rest"]
    shell.lines = ["[3]"]
    shell("put a.c")
    assert shell.client.tree == {"a": {"b": {"x": 1, "y": [2]}, "c": [3]}}


def test_the_prompt_shows_the_transaction_and_the_connection(shell: Typed) -> None:
    def prompt() -> str:
        shell.shell.pre_prompt()
        return shell.shell.prompt

    assert prompt() == "tega> "
    shell("begin")
    assert prompt() == "tega (transaction tx0)> "
    shell.client.state_callbacks[0]("suspended")
    assert prompt() == "tega (suspended, transaction tx0)> "
    shell.client.state_callbacks[0]("lost")
    assert prompt() == "tega (lost, transaction tx0)> "
    lost = TransactionExpired("transaction tx0 is lost: nothing of it was done", txid="tx0")
    shell.client.expired_callbacks[0](lost)
    assert prompt() == "tega (lost)> "
    shown = shell.events()
    assert "the connection to tcp://node is lost; dialling again" in shown
    assert "transaction tx0: TransactionExpired: transaction tx0 is lost: nothing of it was done" in shown
    shell.client.state_callbacks[0]("connected")
    assert prompt() == "tega> "
    assert "it is a new session" in shell.events()
    shell.client.state_callbacks[0]("taken over")
    assert "another program said hello as shell-1" in shell.events()
    shell.client.state_callbacks[0]("closed")
    assert shell.events() == ""


def test_calls(shell: Typed) -> None:
    shell.client.handlers["t.add"] = lambda a, name="": f"{a} {name}"
    assert shell("t.add(1, name='Al ice > | ; x')")[0] == "1 Al ice > | ; x\n"
    assert shell.client.calls[-1][1:4] == ("t.add", (1,), {"name": "Al ice > | ; x"})
    assert shell("t.add(x)")[1].startswith("x is no literal")
    assert [item.raw for item in shell.shell.history] == ["t.add(1, name='Al ice > | ; x')", "t.add(x)"]


def test_json(desk: Any) -> None:
    shell = Typed(desk.client, as_json=True)
    shell("put a.b 1")
    assert shell("get a")[0] == '{"b": 1}\n'
    shell.client.handlers["t.none"] = lambda: None
    assert shell("t.none()")[0] == "null\n"
    plain = Typed(desk.client)
    assert plain("get a --json")[0] == '{"b": 1}\n'


def test_events_wait_for_the_prompt_bounded(shell: Typed) -> None:
    shell("sub alerts")
    shell.client.publish("alerts", {"level": 3})
    shell.client.publish("alerts", "\x1b[2J")
    assert len(shell.shell._alert_queue) == 1
    assert shell.events() == 'alerts: {"level": 3}  (from noc-1)\nalerts: "\\u001b[2J"  (from noc-1)\n'
    for number in range(MAX_WAITING + 5):
        shell.client.publish("alerts", number)
    assert len(shell.shell._alert_queue) == 1
    shown = shell.events().splitlines()
    assert shown[0].startswith("5 older events were not shown")
    assert len(shown) == MAX_WAITING + 1
    shell.client.publish("alerts", "again")
    assert shell.events() == "alerts: again  (from noc-1)\n"


def test_the_end_of_a_subscription_is_shown_above_the_prompt(shell: Typed) -> None:
    shell("sub alerts")
    shell.shell.session.subscriptions["alerts", False][0].end(Compacted("what came since is gone"))
    assert shell.events() == "sub alerts ended: Compacted: what came since is gone\n"
    shell("sub alerts")
    assert ("alerts", False) in shell.shell.session.subscriptions


def test_an_event_that_comes_while_others_are_drawn_is_not_stuck(shell: Typed) -> None:
    events = shell.shell._events
    assert events.add("first") is True
    assert events.add("second") is False
    drawing = iter(events.__rich_console__(Console(), Console().options))
    next(iter(drawing))
    assert events.add("third") is True


def test_clear_asks(shell: Typed) -> None:
    shell.lines = ["n"]
    assert "nothing was cleared" in shell("clear")[1]
    assert "nothing was cleared" in shell("clear")[1]  # Ctrl-D
    shell.lines = ["y"]
    shell("clear")
    assert shell.client.calls == [("manage", "clear", "")]


@pytest.mark.parametrize("name", [*OFF, *PROGRAMS])
def test_what_runs_programs_is_off(shell: Typed, name: str, tmp_path: File) -> None:
    target = tmp_path / "made"
    _, said = shell(f"{name} touch {target}")
    assert f"{name} {'runs programs' if name in PROGRAMS else 'is not part of this shell'}" in said
    assert name not in shell.shell.get_visible_commands()
    assert not target.exists()


def test_no_escapes_and_no_redirection(shell: Typed, tmp_path: File) -> None:
    target = tmp_path / "made"
    shell("put a.b 1")
    for line in (
        f"!touch {target}",
        f"get a > {target}",
        f"get a | tee {target}",
        "py",
        "ipy",
        "@x",
        "history -e",
    ):
        out, said = shell(line)
        assert said
        assert not out
    assert not target.exists()


def test_help(shell: Typed) -> None:
    out, _ = shell("help")
    for heading in ("Tree", "Transaction", "Fleet", "Shell"):
        assert heading in out
    assert "--version N|absent" in shell("h put")[0]
    assert "absent" in shell("put --help")[0]
    assert "{mtu: 1500, up: true} --message 'back to normal'" in shell("help put")[0]


@pytest.mark.parametrize("line", ["q", "quit", "exit"])
def test_leaving(shell: Typed, line: str) -> None:
    shell(line)
    assert shell.stop is True


def test_remarks_and_empty_lines(shell: Typed) -> None:
    assert shell("# put a.b 1", "", "   ") == ("", "")
    assert shell.client.calls == []


def test_scripts(shell: Typed, tmp_path: File) -> None:
    file = tmp_path / "a script"
    file.write_text("begin\nput a.b\nx: 1\n\ncommit\nget nope\nput a.c 1\n")
    out, said = shell(f"run_script '{file}'")
    assert out.endswith("a@0\n")
    assert said == f"NotFound: there is nothing at nope ({file}:6)\n"
    assert shell.client.tree == {"a": {"b": {"x": 1}}}
    assert "cannot be read" in shell("run_script /no/such")[1]
    shell.lines = ["7"]
    shell("put a.d")  # bodies come from the terminal again
    assert shell.client.tree["a"]["d"] == 7


def test_tab(shell: Typed) -> None:
    shell("put config-pi1.net.eth0.mtu 1", "put config-pi1.name x")
    assert shell.offered("pu") == ["pub", "put", "pute"]
    assert "run_script " in shell.offered("run_")
    assert shell.offered("get con") == ["config-pi1"]
    assert shell.offered("get config-pi1.na") == ["config-pi1.name "]
    assert shell.offered("get config-pi1.") == ["config-pi1.name", "config-pi1.net"]
    assert shell.offered("history --cl") == ["--clear "]
    shell.client.listings["handlers"] = {"t.add": ["%x.add"]}
    assert shell.offered("t.") == ["t.add("]


def test_tab_is_quiet_when_the_node_does_not_answer(shell: Typed) -> None:
    shell.client.fail = Collision("whatever")
    assert shell.offered("get con") == []


def test_history_is_private_and_lasts(tmp_path: File, desk: Any) -> None:
    file = history_file({"XDG_STATE_HOME": str(tmp_path / "state")})
    assert file == str(tmp_path / "state" / "tega" / "history")
    assert stat.S_IMODE(File(file).stat().st_mode) == 0o600
    assert stat.S_IMODE(File(file).parent.stat().st_mode) == 0o700
    first = Shell(desk.client, Options("tcp://node", None, 1.0, False), history=file)
    first.onecmd_plus_hooks("put a.b 'two words'")
    first.onecmd_plus_hooks("t.add(1)")
    first._persist_history()
    second = Shell(desk.client, Options("tcp://node", None, 1.0, False), history=file)
    assert [item.raw for item in second.history] == ["put a.b 'two words'", "t.add(1)"]
    assert history_file({"HOME": str(tmp_path)}) == str(tmp_path / ".local" / "state" / "tega" / "history")


def test_without_a_place_for_the_history_there_is_none(tmp_path: File) -> None:
    (tmp_path / "file").touch()
    assert history_file({"XDG_STATE_HOME": str(tmp_path / "file")}) == ""


def test_the_end_of_the_shell_ends_what_was_begun(
    desk: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: File, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(interactive.oneshot, "dial", lambda options: desk.client)
    kept: list[Any] = []

    def loop(shell: Shell) -> int:
        shell.onecmd_plus_hooks("begin")
        kept.append(shell.session.transaction)
        return 0

    monkeypatch.setattr(Shell, "cmdloop", loop)
    assert interactive.run(Options("tcp://node", None, 1.0, False)) == 0
    assert kept[0].ended
    assert desk.client.closed
    assert capsys.readouterr().err == "the transaction tx0 is cancelled: nothing of it was committed\n"
    monkeypatch.setattr(Shell, "cmdloop", lambda shell: 0)
    interactive.run(Options("tcp://node", None, 1.0, False))
    assert capsys.readouterr().err == ""


# -- programs, aliases, the startup file -----------------------------------------------------------


def test_pipes_and_redirection_where_they_are_allowed(desk: Any, tmp_path: File) -> None:
    shell = Typed(desk.client, programs=True)
    shell("put a {b: 1, c: 'x > y | z'}", f"get a > {tmp_path}/one", f"get a.b >> {tmp_path}/one")
    assert (tmp_path / "one").read_text() == "b: 1\nc: x > y | z\n1\n"
    desk.client.handlers["t.add"] = lambda a, b: a + b
    shell(f"t.add(1, b=2) > {tmp_path}/three")
    assert (tmp_path / "three").read_text() == "3\n"


def test_without_them_the_same_lines_are_values(shell: Typed, tmp_path: File) -> None:
    shell(f"put a.b 1 > {tmp_path}/one")
    assert shell.client.tree == {"a": {"b": f"1 > {tmp_path}/one"}}
    shell("put a.b x | touch y", f"!touch {tmp_path}/one", f"shell touch {tmp_path}/one")
    assert shell.client.tree["a"]["b"] == "x | touch y"
    assert list(tmp_path.iterdir()) == []


def test_aliases(shell: Typed) -> None:
    shell("put a {b: 1, c: 2}", "alias create show get a --json")
    assert json.loads(shell("show")[0]) == {"b": 1, "c": 2}
    shell("alias create at get", "alias create add t.add")
    assert shell("at a.b") == ("1\n", "")
    assert shell.offered("at a.") == shell.offered("get a.") != []
    assert "show " in shell.offered("sh")


def test_the_startup_file(desk: Any, tmp_path: File) -> None:
    shell = Typed(desk.client)
    file = startup_file({"XDG_CONFIG_HOME": str(tmp_path)})
    assert file == tmp_path / "tega" / "startup"
    assert startup_file({"HOME": "/home/x"}) == File("/home/x/.config/tega/startup")
    shell.shell.start(file)  # it need not be there
    file.parent.mkdir()
    file.write_text("# mine\nalias create g get a\nfrobnicate\nalias create gj g --json\n")
    shell.shell.start(file)
    shell("put a.b 1")
    assert shell("gj") == ('{"b": 1}\n', "")
    assert list(shell.shell.history)[-1].raw == "gj"


def test_a_transaction_that_another_one_outlives(shell: Typed) -> None:
    shell("begin one", "begin two")
    one = shell.shell.session.transactions["one"].txid
    shell.shell.session.transactions["two"].txid = "another"
    shell.client.expired_callbacks[0](TransactionExpired("idle for 600 s", txid=one))
    assert shell.events() == "transaction one: TransactionExpired: idle for 600 s\n"
    assert list(shell.shell.session.transactions) == ["two"]
    assert shell.offered("use ") == ["two "]
