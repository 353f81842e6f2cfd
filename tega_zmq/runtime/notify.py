"""What a service manager is told: ready, stopping, still alive (`sd_notify`).

Where no manager asks for it (no `NOTIFY_SOCKET`), all of this does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Tells the service manager of this process; never fails."""

    def __init__(self, environment: Mapping[str, str] | None = None, pid: int | None = None) -> None:
        """`environment`: None for that of the process; `pid`: None for its own id."""
        environment = os.environ if environment is None else environment
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval = _watchdog(environment, os.getpid() if pid is None else pid)
        """Seconds between two `watchdog` calls, half of what the manager waits; None: it does not watch."""

    def ready(self, status: str = "") -> bool:
        """The program serves; `status` is one line for people. Says whether it was sent."""
        return self._send("READY=1", status)

    def stopping(self, status: str = "") -> bool:
        """The program began to stop."""
        return self._send("STOPPING=1", status)

    def status(self, status: str) -> bool:
        """One line for people."""
        return self._send("", status)

    def watchdog(self) -> bool:
        """The program is alive; to be called every `watchdog_interval` seconds."""
        return self._send("WATCHDOG=1", "")

    def _send(self, state: str, status: str) -> bool:
        if self._address is None:
            return False
        words = status.replace("\n", " ")
        text = "\n".join(line for line in (state, f"STATUS={words}" if words else "") if line)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
                manager.setblocking(False)
                manager.sendto(text.encode(errors="replace"), self._address)
        except OSError:
            return False
        return True


def _address(text: str) -> str | None:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog(environment: Mapping[str, str], pid: int) -> float | None:
    try:
        interval = int(environment.get("WATCHDOG_USEC", "0")) / 2_000_000
        watched = int(environment.get("WATCHDOG_PID", str(pid)))
    except ValueError:
        return None
    return interval if interval > 0 and watched == pid else None
