"""The interactive shell at a terminal: a pty, typed at and read from, against a real broker."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE, Fleet, until

_CONTROL = re.compile(r"\x1b\[[?>]?([0-9;]*)([A-Za-z])|\x1b[=>78]|\x1b\][^\x07]*\x07")


class Screen:
    """As much of a terminal as a line editor needs; lines that would scroll away stay."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = [[]]
        self.row = self.column = 0
        self._rest = ""

    def feed(self, text: str) -> None:
        """Draw `text`."""
        text = self._rest + text
        at = 0
        while at < len(text):
            char = text[at]
            if char == "\x1b":
                match = _CONTROL.match(text, at)
                if match is None:
                    break  # the rest of it comes with the next piece
                if match[2] is not None:
                    self._control(match[2], match[1])
                at = match.end()
                continue
            self._draw(char)
            at += 1
        self._rest = text[at:]

    def _draw(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
        elif char == "\b":
            self.column -= 1
        elif char >= " ":
            line = self._line()
            line += [" "] * (self.column + 1 - len(line))
            line[self.column] = char
            self.column += 1

    def _line(self) -> list[str]:
        while len(self.lines) <= self.row:
            self.lines.append([])
        return self.lines[self.row]

    def _control(self, what: str, numbers: str) -> None:
        count = int(numbers) if numbers.isdigit() else 0
        match what:
            case "A":
                self.row = max(0, self.row - max(1, count))
            case "B":
                self.row += max(1, count)
            case "C":
                self.column += max(1, count)
            case "D":
                self.column = max(0, self.column - max(1, count))
            case "K":
                del self._line()[self.column :]
            case "J":
                del self._line()[self.column :]
                del self.lines[self.row + 1 :]

    def text(self, first: int = 0) -> str:
        """What stands there from line `first` on."""
        return "\n".join("".join(line).rstrip() for line in self.lines[first:])


class Terminal:
    """A shell at a pty. What it shows is gathered by a thread; `see` waits for text in it."""

    def __init__(self, fleet: Fleet, folder: Path, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tega_zmq.shell.main", "-s", fleet.url, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={
                **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
                "TERM": "xterm",
                "XDG_STATE_HOME": str(folder),
                "PROMPT_TOOLKIT_NO_CPR": "1",
                **environment,
            },
        )
        os.close(slave)
        self.raw = ""
        self.screen = Screen()
        self._lock = threading.Lock()
        self._mark = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.prompt()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                text = decoder.decode(data)
                self.raw += text
                self.screen.feed(text)

    def text(self) -> str:
        """What stands there since the last line was typed."""
        with self._lock:
            return self.screen.text(self._mark)

    def see(self, expected: str) -> None:
        """Wait until `expected` stands there, since the last line was typed."""
        try:
            until(lambda: expected in self.text())
        except AssertionError:
            raise AssertionError(f"{expected!r} does not appear:\n{self.text()}") from None

    def prompt(self, inside: str = "") -> None:
        """Wait until the last line is an empty prompt."""
        shown = f"tega{inside}>"

        def there() -> bool:
            with self._lock:
                screen = self.screen
                at_prompt = screen.row == len(screen.lines) - 1 and screen.column == len(shown) + 1
                return at_prompt and "".join(screen.lines[-1]).rstrip() == shown

        try:
            until(there)
        except AssertionError:
            raise AssertionError(f"{shown!r} does not appear:\n{self.text()}") from None

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def line(self, text: str, expected: str) -> None:
        """Type a line, and wait for what it leads to."""
        with self._lock:
            self._mark = self.screen.row
        self.type(text + "\r")
        self.see(expected)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
        self._reader.join()


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
