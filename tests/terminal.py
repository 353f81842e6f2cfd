"""A shell at a pty, typed at and read from."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

from tests.processes import Fleet, until

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

    def mark(self) -> None:
        """What is shown counts from the line on that is being typed."""
        with self._lock:
            self._mark = self.screen.row

    def line(self, text: str, expected: str) -> None:
        """Type a line, and wait for what it leads to."""
        self.mark()
        self.type(text + "\r")
        self.see(expected)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
        self._reader.join()
