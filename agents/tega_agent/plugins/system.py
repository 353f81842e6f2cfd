"""The plugin `system`: how the device is, as a tree that is kept up to date, and a few handlers.

It writes `ops-TEGA_ID.system` every `interval` seconds, only the leaves that changed (`tega_agent.settle`
says what counts as a change), and offers

* `ops-TEGA_ID.ping`: answers what it is given, with the device's time;
* `ops-TEGA_ID.info`: the whole reading, fresh and unrounded;
* `ops-TEGA_ID.run`: runs a command that the config lists.

Settings, under `plugin: {system: ...}`:

    interval: 30          # seconds between two readings; 0: none are written
    run:                  # the commands that `run` may run, by name; none by default
      dmesg: {command: [dmesg, --ctime], timeout: 10, output: 65536}
      ping:  {command: [ping, -c, "3"], args: true}       # callers may add arguments
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tega_agent import settle
from tega_agent.settings import BadSetting
from tega_agent.sysread import Reader
from tega_zmq.errors import NotFound
from tega_zmq.plugins import Plugin, rpc

if TYPE_CHECKING:
    from tega_agent.commands import Commands

__all__ = ["System"]

_KEYS = ("interval", "run")
_LONGEST = 86_400


class System(Plugin):
    """See the module."""

    name = "system"

    def __init__(self) -> None:
        self.reader = Reader()
        self._commands: Commands | None = None
        self._run_settings: Any = {}
        self._writable = False

    def start(self) -> None:
        """Check the settings and begin to write readings. Raises `BadSetting`."""
        for key in self.settings:
            if key not in _KEYS:
                raise BadSetting(f"plugin.system.{key}: there is no such key; there are {', '.join(_KEYS)}")
        interval = self.settings.get("interval", 30)
        if isinstance(interval, bool) or not isinstance(interval, (int, float)):
            raise BadSetting(f"plugin.system.interval must be a number of seconds, not {interval!r}")
        if interval != 0 and not 1 <= interval <= _LONGEST:
            raise BadSetting(
                f"plugin.system.interval must be 0, or 1 to {_LONGEST} seconds, not {interval:g}"
            )
        listed = self.settings.get("run")
        if listed:
            # Only now: it brings the module subprocess, which a device without commands need not carry.
            from tega_agent import commands

            self._commands = commands.Commands(commands.parse(listed, "plugin.system.run"))
        if interval:
            self.every(interval, self.write, now=True)

    def stop(self) -> None:
        """End the commands that run."""
        if self._commands is not None:
            self._commands.close()

    def write(self) -> None:
        """Bring `ops-TEGA_ID.system` up to date. Raises `RuntimeError` if that root is not this node's."""
        root = f"ops-{self.tega_id}"
        if not self._writable:
            self._check_root(root)
        path = f"{root}.system"
        try:
            before = self.tega.get(path)
        except NotFound:
            before = None
        change = settle.patch(before, settle.settle(before, self.reader.read()))
        if change:
            self.tega.patch(path, change)

    def _check_root(self, root: str) -> None:
        uplink = self.tega.inspect("status").get("uplink")
        # A node without an uplink owns what it is given; an agent would make a root at the broker.
        if uplink is not None and root not in {entry["root"] for entry in uplink["operational"]}:
            raise RuntimeError(
                f"{root} is not listed under `operational` in the config of this agent, so no readings are"
                " written; list it, or set plugin.system.interval to 0"
            )
        self._writable = True

    @rpc("ops-{tega_id}.ping")
    def ping(self, value: Any = "pong") -> dict[str, Any]:
        """Answer with `value`, and the device's time in Unix seconds."""
        return {"value": value, "tega_id": self.tega_id, "time": time.time()}

    @rpc("ops-{tega_id}.info")
    def info(self) -> dict[str, Any]:
        """Return the whole reading, unrounded, and the time at which it was made."""
        return {**self.reader.read(), "time": time.time()}

    @rpc("ops-{tega_id}.run")
    def run(self, name: str, *args: str | float) -> dict[str, Any]:
        """Run the command `name` of the config; see `tega_agent.commands.Commands.run`."""
        if self._commands is None:
            raise ValueError(
                f"there is no command {name!r}: the config of this device lists none under plugin.system.run"
            )
        return self._commands.run(name, args)
