"""Running the commands that a device's config lists, and no other: never through a shell, with bounds."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tega_agent.settings import BadSetting

__all__ = ["MAX_OUTPUT", "Command", "Commands", "parse"]

MAX_RUNNING = 4
MAX_OUTPUT = 512 * 1024
MAX_TIMEOUT = 3600.0
MAX_ARGUMENTS = 64
MAX_ARGUMENT = 4096

_KEYS = ("command", "timeout", "output", "args")
_DEFAULT_TIMEOUT = 30.0
_DEFAULT_OUTPUT = 65_536
_TICK = 0.05
_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
}


class Command(NamedTuple):
    """A command that may be run."""

    argv: tuple[str, ...]
    timeout: float = _DEFAULT_TIMEOUT
    """Seconds."""
    output: int = _DEFAULT_OUTPUT
    """Bytes of output that are kept, standard error included."""
    args: bool = False
    """Whether a caller may add arguments."""


def parse(settings: Any, where: str) -> dict[str, Command]:
    """Return the commands of a config section. Raises `BadSetting`, which names the key."""
    if not isinstance(settings, Mapping):
        raise BadSetting(f"{where} must map names to commands, not be {type(settings).__name__}")
    return {str(name): _parse_one(entry, f"{where}.{name}") for name, entry in settings.items()}


def _parse_one(entry: Any, where: str) -> Command:
    if not isinstance(entry, Mapping):
        raise BadSetting(f"{where} must be a map with the key command, not {type(entry).__name__}")
    for key in entry:
        if key not in _KEYS:
            raise BadSetting(f"{where}.{key}: there is no such key; there are {', '.join(_KEYS)}")
    argv = entry.get("command")
    if not isinstance(argv, (list, tuple)) or not argv or not all(isinstance(each, str) for each in argv):
        raise BadSetting(
            f'{where}.command must be a list of texts, the program first, as ["/sbin/reboot", "-f"]'
        )
    if not argv[0] or any("\0" in each for each in argv):
        raise BadSetting(f"{where}.command has an empty program, or a NUL in it")
    timeout = entry.get("timeout", _DEFAULT_TIMEOUT)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= MAX_TIMEOUT:
        raise BadSetting(
            f"{where}.timeout must be seconds, above 0 and at most {MAX_TIMEOUT:g}, not {timeout!r}"
        )
    output = entry.get("output", _DEFAULT_OUTPUT)
    if type(output) is not int or not 0 <= output <= MAX_OUTPUT:
        raise BadSetting(f"{where}.output must be a number of bytes from 0 to {MAX_OUTPUT}, not {output!r}")
    args = entry.get("args", False)
    if type(args) is not bool:
        raise BadSetting(f"{where}.args must be true or false, not {args!r}")
    return Command(tuple(argv), float(timeout), output, args)


class Commands:
    """Runs commands, a few at a time. Any thread may use it."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        """`commands`: those that may be run, by name."""
        self._commands = dict(commands)
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._closed = False

    def run(self, name: Any, args: Sequence[Any]) -> dict[str, Any]:
        """Run the command `name` and return what became of it.

        `status`: of its exit, or minus the number of the signal that ended it; `output`: standard output and
        error together, as text; `truncated`: whether there was more; `timed_out`: whether it was ended
        because it took too long; `seconds`: how long it took. Raises `ValueError` for a command that is not
        listed, or arguments that it does not take, `RuntimeError` if it cannot be started or too many run.
        """
        command = self._commands.get(name) if type(name) is str else None
        if command is None:
            listed = ", ".join(sorted(self._commands)) or "none"
            raise ValueError(f"there is no command {name!r}; the config of this device lists: {listed}")
        argv = (*command.argv, *_checked(name, command, args))
        began = time.monotonic()
        process = self._start(name, argv)
        try:
            output, truncated, timed_out = _follow(process, command, began)
        except BaseException:
            _signal(process.pid, signal.SIGKILL)
            raise
        finally:
            process.wait()
            with self._lock:
                self._running.discard(process.pid)
            if process.stdout is not None:
                process.stdout.close()
        return {
            "status": process.returncode,
            "output": output.decode(errors="replace"),
            "truncated": truncated,
            "timed_out": timed_out,
            "seconds": round(time.monotonic() - began, 3),
        }

    def _start(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the plugin is being unloaded")
            if len(self._running) >= MAX_RUNNING:
                raise RuntimeError(f"{MAX_RUNNING} commands are running already; try later")
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd="/",
                    env=_ENVIRONMENT,
                )
            except OSError as error:
                raise RuntimeError(f"{name}: {argv[0]} cannot be started: {error.strerror}") from None
            self._running.add(process.pid)
        return process

    def close(self) -> None:
        """End all that runs, and start nothing any more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
            for pid in running:
                _signal(pid, signal.SIGKILL)


def _checked(name: str, command: Command, args: Sequence[Any]) -> list[str]:
    if args and not command.args:
        raise ValueError(
            f"{name} takes no arguments; `args: true` in the config of this device would allow them"
        )
    if len(args) > MAX_ARGUMENTS:
        raise ValueError(f"{name}: {len(args)} arguments; at most {MAX_ARGUMENTS} are allowed")
    checked = []
    for arg in args:
        if isinstance(arg, bool) or not isinstance(arg, (str, int, float)):
            raise TypeError(f"{name}: an argument must be text or a number, not {type(arg).__name__}")
        text = str(arg)
        if "\0" in text or len(text) > MAX_ARGUMENT:
            raise ValueError(f"{name}: an argument has a NUL, or more than {MAX_ARGUMENT} characters")
        checked.append(text)
    return checked


def _follow(process: subprocess.Popen[bytes], command: Command, began: float) -> tuple[bytes, bool, bool]:
    """Read the output until the process has ended; end it when its time is over.

    A process that it left behind and that holds the output open is not waited for.
    """
    assert process.stdout is not None
    out = process.stdout.fileno()
    os.set_blocking(out, False)
    kept = bytearray()
    truncated = timed_out = False
    deadline = began + command.timeout
    ended = _watch_end(process.pid)
    try:
        poller = select.poll()
        if ended >= 0:
            poller.register(ended, select.POLLIN)
        poller.register(out, select.POLLIN)
        while True:
            now = time.monotonic()
            if now >= deadline:
                _signal(process.pid, signal.SIGKILL if timed_out else signal.SIGTERM)
                timed_out = True
                deadline = now + _GRACE
            wait = max(0.0, deadline - now)
            ready = {fd for fd, _ in poller.poll((wait if ended >= 0 else min(wait, _TICK)) * 1000)}
            if out in ready:
                part = _read(out)
                if part == b"":
                    poller.unregister(out)
                elif part is not None:
                    room = command.output - len(kept)
                    truncated = truncated or len(part) > room
                    kept += part[: max(0, room)]
                    continue
            if ended in ready or (ended < 0 and _has_ended(process.pid)):
                break
    finally:
        if ended >= 0:
            os.close(ended)
    if timed_out:
        # What else is in its group goes too. Nobody has waited for the process, so the group is still its.
        _signal(process.pid, signal.SIGKILL)
    return bytes(kept), truncated, timed_out


def _watch_end(pid: int) -> int:
    """Return a descriptor that can be read when the process has ended; -1 before Linux 5.3."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
