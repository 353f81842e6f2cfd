"""The interactive shell at a terminal: a pty, typed at and read from, against a real broker."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE, Fleet, until
from tests.terminal import Terminal


@pytest.fixture
def terminal(fleet: Fleet, tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(fleet, tmp_path)
    try:
        yield made
        assert "Traceback" not in made.raw
    finally:
        made.close()


def test_a_session(terminal: Terminal) -> None:
    terminal.line('put config-pi1.net."eth0.100" {mtu: 1500, name: "two words"}', "config-pi1@0")
    terminal.prompt()
    terminal.line("get config-pi1", "net:\n  eth0.100:\n    mtu: 1500\n    name: two words\ntega>")
    terminal.line("begin", "\ntega (transaction ")
    terminal.line("put config-pi1.net.x 1", "\ntega (transaction ")
    terminal.line("cand", "\n+ config-pi1.net.x: 1\n")
    terminal.line("commit --message 'why not'", "config-pi1@1\ntega>")
    terminal.line("log config-pi1", "why not\n    + config-pi1.net.x: 1\n")
    terminal.line("get nope", "NotFound: ")
    terminal.line("frobnicate", "there is no command 'frobnicate'")
    terminal.line("put a.b", "put a.b\n>")
    terminal.line("x: 1", "\n>")
    terminal.line("y: [2]", "\n>")
    terminal.line("", "a@0\ntega>")
    terminal.line("get a.b", "x: 1\ny:\n- 2\ntega>")
    terminal.type("quit\r")
    assert terminal.process.wait(PATIENCE) == 0


def _listens(fleet: Fleet) -> None:
    until(lambda: fleet.client("looker").inspect("channels").get("a"), "it listens")


def test_events_appear_above_what_is_being_typed(terminal: Terminal, fleet: Fleet) -> None:
    terminal.line("sub a", "\ntega>")
    _listens(fleet)
    terminal.prompt()
    terminal.type("put a.half")
    terminal.see("\ntega> put a.half")
    fleet.client("writer").put("a.b", 77, message="hello")
    terminal.see("  (@0 by writer: hello)\ntega> put a.half")
    fleet.client("talker").publish("a", {"level": 3})
    terminal.see('\na: {"level": 3}  (from talker)\ntega> put a.half')
    terminal.type(" 5\r")
    terminal.see("\ntega> put a.half 5\na@1\n")
    assert fleet.client("reader").get("a.half") == 5


def test_tab_completes_live_paths(terminal: Terminal, fleet: Fleet) -> None:
    fleet.client("writer").put("config-pi1", {"net": {"eth0": {"mtu": 1500, "up": True}}, "name": "x"})
    terminal.type("get conf\t")
    terminal.see("tega> get config-pi1")
    terminal.type("\t")
    terminal.see("tega> get config-pi1.")
    terminal.type("ne\t")
    terminal.see("tega> get config-pi1.net")
    terminal.type(".eth0.m\t")
    terminal.see("tega> get config-pi1.net.eth0.mtu")
    terminal.type("\r")
    terminal.see("tega> get config-pi1.net.eth0.mtu\n1500\n")


def test_ctrl_c_ends_the_command_and_not_the_shell(terminal: Terminal, fleet: Fleet) -> None:
    called: list[int] = []
    go_on = threading.Event()
    fleet.client("handler").register("t.hang", lambda: called.append(1) or go_on.wait(PATIENCE))
    terminal.line("t.hang()", "t.hang()")
    until(lambda: called, "the handler runs")
    terminal.process.send_signal(signal.SIGINT)
    terminal.prompt()
    go_on.set()
    terminal.type("half a line")
    terminal.see("half a line")
    terminal.type("\x03")
    terminal.see("^C")
    terminal.prompt()
    terminal.line("put a.b 1", "a@0")


def test_the_brokers_restart_is_told_and_survived(terminal: Terminal, fleet: Fleet) -> None:
    terminal.line("sub a", "\ntega>")
    _listens(fleet)
    fleet.broker.kill()
    terminal.see("is lost; dialling again")
    terminal.prompt(" (suspended)")
    fleet.broker.start()
    terminal.see(f"connected to {fleet.url} again")
    terminal.prompt()
    terminal.line("put a.b 5", "a@0")
    terminal.see("  (@0 by ")


def test_a_displaced_shell_says_so(fleet: Fleet, tmp_path: Path) -> None:
    terminal = Terminal(fleet, tmp_path, "-t", "twin")
    try:
        fleet.client("twin")
        terminal.see("another program said hello as twin")
        terminal.line("roots", "TakenOver: ")
    finally:
        terminal.close()


def test_history_lasts_and_the_end_is_in_order(fleet: Fleet, tmp_path: Path) -> None:
    terminal = Terminal(fleet, tmp_path)
    try:
        terminal.line("put a.b 'a value'", "a@0")
        terminal.prompt()
        terminal.type("\x04")
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.close()
    terminal = Terminal(fleet, tmp_path)
    try:
        terminal.type("\x1b[A")  # arrow up
        terminal.see("tega> put a.b 'a value'")
        terminal.type("\r")
        terminal.see("nothing changed")
        terminal.prompt()
        terminal.process.terminate()
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.close()


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours(fleet: Fleet, tmp_path: Path, environment: dict[str, str], coloured: bool) -> None:
    fleet.client("writer").put("a.b", 1)
    terminal = Terminal(fleet, tmp_path, **environment)
    try:
        terminal.line("get a", "\nb: 1\n")
        assert ("\x1b[36mb\x1b[0m: \x1b[33m1\x1b[0m" in terminal.raw) is coloured
    finally:
        terminal.close()


def test_long_results_page(terminal: Terminal, fleet: Fleet) -> None:
    fleet.client("writer").put("big", {f"k{at:03}": at for at in range(200)})
    terminal.line("get big", "k000: 0\n")
    terminal.see("\n:")  # the pager's prompt
    assert "k199" not in terminal.text()
    terminal.type("G")
    terminal.see("k199: 199")
    terminal.type("!")  # the pager starts no programs
    terminal.see("not available")
    terminal.type("\r")
    terminal.type("q")
    terminal.prompt()
    terminal.line("get big.k001", "\n1\ntega>")


def test_tab_completes_versions_and_tags(terminal: Terminal, fleet: Fleet) -> None:
    writer = fleet.client("writer")
    for value in (1, 2):
        writer.put("config-pi1.a", value)
    writer.tag("config-pi1", "golden", 0)
    terminal.type("get config-pi1.a@g\t")
    terminal.see("tega> get config-pi1.a@golden")
    terminal.type("\r")
    terminal.see("\n1\ntega>")
    terminal.line("rollback config-pi1 golden", "config-pi1@2")


def test_programs_where_they_are_allowed(fleet: Fleet, tmp_path: Path) -> None:
    terminal = Terminal(fleet, tmp_path, "--programs")
    try:
        terminal.line("put a {b: 1, c: 2}", "a@0\ntega>")
        terminal.line("get a | grep -c .", "get a | grep -c .\n2\ntega>")
        terminal.line(f"get a > {tmp_path}/out", "out\ntega>")
        assert (tmp_path / "out").read_text() == "b: 1\nc: 2\n"
        terminal.line("!echo one two", "\none two\ntega>")
    finally:
        terminal.close()
