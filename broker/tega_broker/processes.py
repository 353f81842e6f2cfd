"""Programs as child processes: started, waited for until they are ready, stopped in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Ended", "Program", "child_command", "child_environment", "free_port", "port_is_free"]

# Asks the system to send SIGTERM when the parent dies (prctl PR_SET_PDEATHSIG), then becomes the program:
# unless the parent, whose process id comes first, died before it could ask.
_DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) and os.execvp(sys.argv[2], sys.argv[2:])"
)


class Ended(Exception):
    """A program ended, or did not become ready; the message holds the last lines that it logged."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that the system says is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a program could listen on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Program:
    """One child process. It dies with this process, however that ends."""

    def __init__(self, name: str, command: Sequence[str], log: Path, folder: Path) -> None:
        """`command` is run in `folder`; what it writes goes to the file `log`."""
        self.name = name
        self.log = log
        self._command = list(command)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, seconds: float = 30.0) -> None:
        """Start it, and wait for up to `seconds` until it says that it serves. Raises `Ended`."""
        self._forget()
        # A folder of its own: the path of a Unix socket is short, that of a data folder may not be.
        with tempfile.TemporaryDirectory(prefix="tega-") as folder:
            address = os.path.join(folder, "notify")
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listening.bind(address)
            self._ready = listening
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    child_command(self._command),
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=child_environment() | {"NOTIFY_SOCKET": address},
                    start_new_session=True,  # Ctrl-C is for this process, which stops the others in order
                )
            self._await_ready(seconds)

    def _await_ready(self, seconds: float) -> None:
        listening, until = self._ready, time.monotonic() + seconds
        assert listening is not None
        while True:
            listening.settimeout(0.1)
            try:
                if b"READY=1" in listening.recv(4096).split(b"\n"):
                    return
            except TimeoutError:
                pass
            self.check()
            if time.monotonic() > until:
                self.stop()
                raise Ended(f"{self.name} is not ready after {seconds:g} seconds\n{self.tail()}")

    @property
    def was_killed(self) -> bool:
        """Whether a signal has ended it that this process did not send."""
        return self._process is not None and (self._process.poll() or 0) < 0

    def check(self) -> None:
        """Raise `Ended` if it has ended by itself."""
        process = self._process
        status = None if process is None else process.poll()
        if status is not None:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            raise Ended(f"{self.name} ended {how}\n{self.tail()}")

    def tail(self, lines: int = 8) -> str:
        """The last lines that it logged, each indented, and where all of them are."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            text = ""
        last = [f"    {line}" for line in text.splitlines()[-lines:]]
        return "\n".join([*last, f"  all of its log: {self.log}"])

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._forget()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float = 15.0) -> int | None:
        """Stop it in order, or kill it after `seconds`; return its exit status, None if it did not run."""
        process = self._process
        if process is None:
            return None
        self.ask_to_stop()
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self._forget()
        return status

    def _forget(self) -> None:
        self._process = None
        if self._ready is not None:
            self._ready.close()
            self._ready = None


def child_command(command: Sequence[str]) -> list[str]:
    """Return what runs `command` so that it ends when the thread that started it does."""
    return [sys.executable, "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


def child_environment() -> dict[str, str]:
    """Return the variables of this process for a child.

    Without config keys, which would win over the files, in all programs alike; and without what the service
    manager told this process alone.
    """
    own = ("TEGA_", "NOTIFY_SOCKET", "WATCHDOG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}
