"""A scripted story with a whole fleet (`make demo`): what it tells, it checks.

The fleet runs on ports of the system's choice, over a temporary folder. Exit status 0: all was as told.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tega_broker.child import bridge_is_installed
from tega_broker.fleet import Fleet, seed, wait_until
from tega_broker.processes import Ended, free_port, port_is_free
from tega_zmq import Change, Client, HandlerError, Offline, TegaError

__all__ = ["free_pair", "main"]

_CONF = Path(__file__).resolve().parents[2] / "conf"
_SERVERS = ["ntp3.example.net", "ntp4.example.net"]


class Unexpected(Exception):
    """The story took another turn than it tells."""


class Story:
    """A fleet, the clients that play in it, and what is printed of it."""

    def __init__(self, fleet: Fleet, stack: ExitStack) -> None:
        self.fleet = fleet
        self.number = 0
        self.noc = stack.enter_context(fleet.connect("noc"))
        """The operations desk, at the broker."""
        self.apps = {
            name: stack.enter_context(fleet.connect_local(name, f"app-{name}")) for name in fleet.agents
        }
        """A program on each device, at its agent."""

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        self.number += 1
        _say(f"\n{self.number}. {title}")

    def fact(self, text: str, true: object = True) -> None:
        """Tell `text`, which must be true. Raises `Unexpected`."""
        if not true:
            raise Unexpected(f"this should be so, and is not: {text}")
        _say(f"   - {text}")

    def awaited(self, text: str, true: Callable[[], Any]) -> None:
        """Tell `text` when it has become true, and after how long. Raises `TimeoutError`."""
        seconds = wait_until(text, true)
        _say(f"   - {text} (after {_duration(seconds)})")

    # -- chapters ----------------------------------------------------------------------------------

    def config_push(self) -> None:
        """One write at the broker reaches every device that follows the root."""
        self.chapter("The operations desk changes the time servers of all devices")
        heard: dict[str, queue.Queue[Change]] = {}
        for name, app in self.apps.items():
            heard[name] = queue.Queue()
            app.subscribe("config-common.ntp", heard[name].put)
        began = time.monotonic()
        done = self.noc.put("config-common.ntp.servers", _SERVERS, message="use the new time servers")
        self.fact(f"noc: put config-common.ntp.servers; config-common is at version {done.version} now")
        for name, app in self.apps.items():
            change = heard[name].get(timeout=30)
            took = _duration(time.monotonic() - began)
            self.fact(
                f"{name}: a program there hears of it, {change.message!r} by {change.tega_id} (after {took})",
                change.new == _SERVERS and change.tega_id == "noc",
            )
            self.fact(
                f"{name}: reads the same from its replica", app.get("config-common.ntp.servers") == _SERVERS
            )

    def calls(self) -> None:
        """Functions of devices, called from the desk and from another device."""
        self.chapter("Functions of devices are called")
        noc, on_pi1, on_pi2 = self.noc, self.apps["pi1"], self.apps["pi2"]
        answer = noc.call("ops-pi1.ping", "hello")
        self.fact(f"noc: ops-pi1.ping('hello') -> {answer['value']!r}", answer["value"] == "hello")
        answers = noc.call_all(r"ops-.*\.ping")
        self.fact(f"noc: all handlers that match ops-.*\\.ping: {len(answers)} answer", len(answers) == 2)

        def set_led(name: str, on: bool = True) -> int:
            if name != "alarm":
                raise ValueError(f"there is no LED {name!r}")
            return 27 if on else 0

        on_pi2.register("ops-pi2.led.set", set_led)
        self.awaited(
            "pi2: a program there offers ops-pi2.led.set",
            lambda: "ops-pi2.led.set" in noc.inspect("handlers"),
        )
        result = on_pi1.call("ops-pi2.led.set", "alarm")
        self.fact(f"pi1: ops-pi2.led.set('alarm') -> {result}, from device to device", result == 27)
        result = noc.call("ops-pi2.led.set", "alarm", on=False)
        self.fact(f"noc: ops-pi2.led.set('alarm', on=False) -> {result}; zero is a result", result == 0)
        try:
            noc.call("ops-pi2.led.set", "door")
        except HandlerError as error:
            self.fact(
                f"noc: ops-pi2.led.set('door') -> {error.type}: {error.text}", error.type == "ValueError"
            )
        else:
            raise Unexpected("ops-pi2.led.set('door') should have failed")

    def offline(self) -> None:
        """A device works on while the broker is away."""
        self.chapter("The broker is stopped; the devices work on")
        app = self.apps["pi1"]
        status = self.fleet.broker.stop()
        self.fact(f"the broker has stopped, with exit status {status}", status == 0)
        self.awaited(
            "pi1: knows that it is offline", lambda: app.inspect("status")["uplink"]["state"] != "connected"
        )
        hostname = app.get("config-pi1.hostname")
        self.fact(f"pi1: still reads its config: hostname is {hostname}", hostname == "pi1")
        app.put("ops-pi1.note", "written while offline")
        self.fact("pi1: writes ops-pi1.note, which is its own")
        answer = app.call("ops-pi1.ping", "anyone?")
        self.fact("pi1: calls its own function", answer["value"] == "anyone?")
        began = time.monotonic()
        try:
            app.put("config-pi1.hostname", "other")
        except Offline as error:
            took = _duration(time.monotonic() - began)
            self.fact(f"pi1: a write to its config is refused at once: {error} (after {took})")
        else:
            raise Unexpected("a write to config-pi1 should have been refused while offline")
        self.fleet.broker.start()
        self.fact("the broker runs again")
        _say(f"   - all agents are connected again (after {_duration(self.fleet.await_agents(self.noc))})")
        self.awaited(
            "noc: reads ops-pi1.note: 'written while offline'",
            lambda: self.noc.get("ops-pi1.note", None) == "written while offline",
        )

    def rollback(self) -> None:
        """A version from before is restored, as a commit of its own."""
        self.chapter("The new time servers were a mistake")
        noc = self.noc
        before = noc.get("config-common.ntp.servers", version=-1)
        for difference in noc.diff("config-common", noc.node("config-common").version - 1):
            self.fact(f"noc: diff: {difference.path}: {difference.old} -> {difference.new}")
        done = noc.rollback("config-common", -1, message="they do not answer")
        self.fact(f"noc: rollback config-common -1; it is at version {done.version} now, nothing is lost")
        for name, app in self.apps.items():
            self.awaited(
                f"{name}: has the old ones again",
                lambda app=app: app.get("config-common.ntp.servers") == before,  # type: ignore[misc]
            )
        for entry in noc.log("config-common"):
            back = f", back to version {entry.backto}" if entry.backto is not None else ""
            self.fact(f"noc: log: version {entry.version} by {entry.tega_id}: {entry.message!r}{back}")

    def presence(self) -> None:
        """A node that lives as long as who put it."""
        self.chapter("Who is there shows by itself")
        heard: queue.Queue[Change] = queue.Queue()
        with self.noc.subscribe("presence", heard.put):
            with self.fleet.connect("field-1") as field:
                field.put("presence.field-1", {"where": "cabinet B"}, ephemeral=True)
                change = heard.get(timeout=30)
                self.fact(f"noc: sees {change.path} come", change.tega_id == "field-1" and not change.deleted)
            change = heard.get(timeout=30)
            self.fact(f"field-1 leaves; noc: sees {change.path} go", change.deleted)

    def bridge(self, url: str) -> None:
        """What speaks HTTP takes part through the bridge."""
        self.chapter("A script with curl takes part")
        heard: queue.Queue[Change] = queue.Queue()
        with self.apps["pi1"].subscribe("config-pi1.location", heard.put):
            target = f"{url}/config-pi1/location/?tega_id=cron-7"
            request = Request(target, b'"cabinet B"', method="PUT")  # noqa: S310 - it is http
            with urlopen(request, timeout=30) as answer:  # noqa: S310
                versions = json.load(answer)["versions"]
            self.fact(f"curl: PUT {urlsplit(target).path} -> {versions}")
            change = heard.get(timeout=30)
            self.fact(f"pi1: hears of {change.path} by {change.tega_id}", change.tega_id == "cron-7")
        with urlopen(f"{url}/config-pi1/location/", timeout=30) as answer:  # noqa: S310
            value, tag = json.load(answer), answer.headers["ETag"]
        self.fact(f"curl: GET /config-pi1/location/ -> {value!r}", value == "cabinet B" and tag)

    def restart(self) -> None:
        """What was acknowledged is there after a power cut, and who was there comes back."""
        self.chapter("The broker is killed in the middle of its work")
        noc, count = self.noc, 200
        noc.put("presence.noc", {"desk": 1}, ephemeral=True)
        for number in range(1, count + 1):
            noc.put("config-gateway.counter", number)
        self.fleet.broker.kill()
        self.fact(f"noc: {count} writes were acknowledged; kill -9 right after the last")
        began = time.monotonic()
        self.fleet.broker.start()
        self.fact(f"the broker runs again (after {_duration(time.monotonic() - began)})")
        value = noc.get("config-gateway.counter", timeout=30)
        self.fact(f"noc: comes back by itself and reads {value}", value == count)
        self.fact(
            "noc: its presence stands, for its session lives on", noc.get("presence.noc") == {"desk": 1}
        )
        _say(f"   - all agents are connected again (after {_duration(self.fleet.await_agents(noc))})")
        self.awaited(
            "pi2: its function is offered again", lambda: "ops-pi2.led.set" in noc.inspect("handlers")
        )
        result = noc.call("ops-pi2.led.set", "alarm")
        self.fact(f"noc: ops-pi2.led.set('alarm') -> {result}", result == 27)


def main() -> int:
    """Tell the story; return the exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="tega-demo-") as folder:
            _tell(Path(folder))
    except (Unexpected, Ended, TimeoutError, queue.Empty, TegaError, OSError) as error:
        what = str(error) or f"nothing came in time ({type(error).__name__})"
        print(f"\nmake demo: {type(error).__name__}: {what}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    _say(f"\nAll of it was as told, in {time.monotonic() - began:.1f} s. Nothing is left running.")
    return 0


def _tell(folder: Path) -> None:
    port = free_pair()
    fleet = Fleet(_CONF / "demo", folder, port, _free_port_but(port) if bridge_is_installed() else None)
    with fleet:
        _say("A broker `gateway` and two agents, `pi1` and `pi2`, each a process of its own.")
        fleet.start()
        with ExitStack() as stack:
            story = Story(fleet, stack)
            seeded = seed(story.noc, _CONF / "demo.yaml")
            _say(f"The store is new; noc puts {', '.join(seeded)} into it, from conf/demo.yaml.")
            for name, app in story.apps.items():
                wait_until(f"{name} has its config", lambda app=app: _has_config(app))  # type: ignore[misc]
            story.config_push()
            story.calls()
            story.offline()
            story.rollback()
            story.presence()
            if fleet.bridge is not None:
                story.bridge(fleet.bridge)
            story.restart()
            fleet.check()
        for name, status in fleet.stop().items():
            raise Unexpected(f"{name} ended with status {status}")


def _has_config(app: Client) -> bool:
    return all(app.get(root, None) is not None for root in ("config-common", f"config-{app.server}"))


def free_pair() -> int:
    """A port that is free, and the one after it is too."""
    while True:
        port = free_port()
        if port < 65_535 and port_is_free(port + 1):
            return port


def _free_port_but(pair: int) -> int:
    """A port that is free, and is not `pair` or the one after it."""
    return next(port for port in iter(free_port, None) if port not in (pair, pair + 1))


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
