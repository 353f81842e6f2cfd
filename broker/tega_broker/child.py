"""The bridge as a child of the broker: started, started again when it ends, stopped with the broker."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tega_broker.processes import child_command, child_environment
from tega_zmq.runtime.config import BrokerConfig

__all__ = ["Child", "bridge_command", "bridge_is_installed"]

FIRST = 0.5
"""Seconds before a bridge that ended is started again; doubled each time, up to `LONGEST`."""

LONGEST = 60.0
STEADY = 60.0
"""A bridge that ran for so many seconds is started again after `FIRST`."""


def bridge_is_installed() -> bool:
    """Whether the extra `bridge` is installed. Imports nothing of it."""
    return importlib.util.find_spec("aiohttp") is not None


def bridge_command(config: BrokerConfig, requests: str) -> list[str]:
    """Return the command that runs the bridge of a broker that is dialled at `requests`."""
    flags = {
        "broker": requests,
        "tega_id": f"{config.tega_id[:57]}-bridge",
        "insecure": config.insecure,
        "log_level": config.log_level,
        "log_format": config.log_format,
        **dict(_leaves(config.bridge)),
    }
    command = [sys.executable, "-m", "tega_broker.bridge"]
    for name, value in flags.items():
        command += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return command


def _leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of the section `bridge` that the bridge itself has, and what they are set to."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        elif prefix or field.name != "enabled":
            yield prefix + field.name, value


class Child:
    """Runs a command for as long as it is not told to stop; a thread of its own waits for its end."""

    def __init__(
        self, command: Sequence[str], logger: logging.Logger, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._command = list(command)
        self._logger = logger
        self._now = now
        self._lock = threading.RLock()  # a signal handler may come while its own thread has it
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Send SIGTERM; it is not started again."""
        self._stopping.set()
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()

    @property
    def stopped(self) -> bool:
        """Whether it has ended and is not started again."""
        return self._stopping.is_set() and not self._thread.is_alive()

    def reload(self) -> None:
        """Send SIGHUP."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGHUP)

    def stop(self, seconds: float = 10.0) -> None:
        """Stop it in order, or kill it after `seconds`."""
        self.ask_to_stop()
        self._thread.join(seconds)
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
        self._thread.join(5.0)

    def _run(self) -> None:
        delay = FIRST
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                try:
                    process = self._process = subprocess.Popen(
                        child_command(self._command), stdin=subprocess.DEVNULL, env=child_environment()
                    )
                except OSError as error:
                    self._logger.error(
                        "the bridge cannot be started", extra={"fields": {"error": str(error)}}
                    )
                    return
            began = self._now()
            status = process.wait()
            if self._stopping.is_set():
                return
            ran = self._now() - began
            delay = FIRST if ran >= STEADY else delay
            self._logger.warning(
                "the bridge ended; it is started again",
                extra={"fields": {"status": status, "seconds": round(ran, 1), "again_in": delay}},
            )
            if self._stopping.wait(delay):
                return
            delay = min(2 * delay, LONGEST)
