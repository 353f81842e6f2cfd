"""A client's program: the real engine and session of a client, over the network of the simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tega_zmq.client.engine import Engine
from tega_zmq.client.protocol import ClientSession
from tega_zmq.client.subscriptions import Subscribed
from tega_zmq.errors import TakenOver, TegaError
from tega_zmq.wire import decode, encode
from tega_zmq.wire import messages as m
from tests.sim.host import Host
from tests.sim.network import FIN, Link, Way
from tests.sim.world import Broken, World

__all__ = ["Asked", "Program", "Watcher"]

NEVER = float("inf")
LATE = 1.0
"""Seconds after its deadline and grace by which a request must have ended."""


class Asked:
    """One request of a program, and how it ended."""

    __slots__ = (
        "about",
        "called",
        "deadline",
        "done",
        "ended",
        "error",
        "event",
        "fields",
        "id",
        "kind",
        "program",
        "value",
    )

    def __init__(self, program: Program, kind: type[Any], fields: tuple[Any, ...], timeout: float) -> None:
        world = program.world
        self.program = program
        self.kind = kind
        self.fields = fields
        self.id: int | None = None
        self.about: Any = None
        """What the load wants to remember."""
        self.called = world.now
        self.event = world.events
        self.deadline = world.now + timeout
        self.done = False
        self.ended = 0
        """The event at which it ended."""
        self.value: Any = None
        self.error: TegaError | None = None

    def __repr__(self) -> str:
        shown = ", ".join(repr(field) for field in self.fields if not callable(field))
        return f"{self.kind.__name__}({shown})"


class Watcher(Protocol):
    """Who looks on."""

    def ended(self, asked: Asked) -> None:
        """A request ended."""

    def state_changed(self, program: Program, state: str) -> None:
        """The session's state is another one."""

    def invoked(self, program: Program, call: m.Invoke) -> Any:
        """A handler runs. Return (seconds until its result, ok, result), or None: it never answers."""


class Program:
    """One client at a node, connected or not; it is its own engine's host."""

    def __init__(self, world: World, name: str, to: Host, way: Way, watcher: Watcher) -> None:
        self.world = world
        self.name = name
        self.to = to
        self.way = way
        self.watcher = watcher
        self.serial = world.fresh()[:8]
        """Tells it from other programs of its name."""
        self.paused = False
        self.dead = False
        self.session = ClientSession(name, jitter=world.random.random)
        self.engine = Engine(self.session, self)
        self.engine.on_state.append(self._state)
        self.asked: dict[Asked, None] = {}
        """What has not ended."""
        self.link: Link | None = None
        self.heard = world.now
        """When the node last said anything."""
        self._tick_at = NEVER
        self._dialling = 0
        self.redial(world.random.uniform(0.0, 0.2))

    # -- asking ------------------------------------------------------------------------------------

    def ask(self, kind: type[Any], *fields: Any, timeout: float = 10.0, about: Any = None) -> Asked:
        """Make a request; the watcher is told how it ends."""
        asked = Asked(self, kind, fields, timeout)
        asked.about = about
        self.asked[asked] = None
        self.world.note(self.name, "asks", asked)
        now = self.world.now
        if kind is m.Write and not fields[2]:
            self.engine.write(asked, (kind, fields), fields[0], timeout, now)
        elif kind is m.Register:
            self.engine.register(asked, *fields, timeout, now)
        else:
            asked.id = self.engine.ask(asked, (kind, fields), timeout, now)
        self.flush()
        return asked

    def subscribe(self, add: Callable[[], Subscribed], what: Any) -> Asked:
        """Subscribe; the request's value is the number of the subscription."""
        asked = Asked(self, m.Subscribe, (what,), 60.0)
        self.asked[asked] = None
        self.world.note(self.name, "subscribes", what)
        self.engine.subscribe(asked, add, 60.0, self.world.now)
        self.flush()
        return asked

    def close(self) -> None:
        """End the session in order."""
        self.world.note(self.name, "closes", None)
        self.engine.close(self.world.now)
        self.flush()
        self._gone()

    def die(self) -> None:
        """The program is killed."""
        self.world.note(self.name, "killed", None)
        self._gone()

    def _gone(self) -> None:
        self.dead = True
        self.asked.clear()
        self._hang_up()

    def pause(self) -> None:
        """The program is stopped, or does not read."""
        self.world.note(self.name, "paused", None)
        self.paused = True

    def resume(self) -> None:
        """It goes on."""
        if self.dead or not self.paused:
            return
        self.world.note(self.name, "goes on", None)
        self.paused = False
        if self.link is not None:
            self.link.down.drain()
        self._tick()

    # -- events ------------------------------------------------------------------------------------

    def reads(self) -> bool:
        """Whether it takes what comes."""
        return not self.paused and not self.dead

    def frame_came(self, link: Link, frame: bytes | None) -> None:
        """Something came from the node."""
        if link is not self.link or self.dead:
            return
        now = self.world.now
        if frame is FIN:
            self.world.note(self.name, "connection lost", None)
            self.link = None
            link.up.closed = True
            self.engine.connection_lost(now)
        else:
            self.heard = now
            self.world.note(self.name, f"<- {self.to.name}", decode(frame))
            self.engine.received(frame, now)
        self.flush()

    def _tick(self) -> None:
        self._tick_at = NEVER
        if self.paused or self.dead:
            return
        due = self.session.next_deadline()
        if due is not None and due <= self.world.now:
            self.engine.tick(self.world.now)
        now = self.world.now
        welcome = self.session.welcome
        if (
            self.session.state == "suspended"
            and welcome is not None
            and now > self.heard + welcome.lease + LATE
        ):
            raise Broken(16, f"{self.name} is suspended, its lease is over, and it was not told")
        for asked in self.asked:
            if asked.deadline + LATE < now:
                raise Broken(17, f"{asked!r} of {self.name} has not ended, {now - asked.deadline:.2f} s late")
            break  # they are in the order in which they were asked: mostly the first is due first
        self.flush()

    def flush(self) -> None:
        """Send what there is to be sent."""
        # Each message by itself, though a program may send several in one: each is an event here.
        frames = [encode(message) for message in self.session.take_output()]
        if frames and self.session.state == "taken over" and not self.dead:
            raise Broken(15, f"{self.name} was taken over and still sends")
        for frame in frames:
            if self.link is not None:
                self.link.up.send(frame)
        due = self.session.next_deadline()
        if due is not None and due < self._tick_at and not self.dead:
            self._tick_at = max(due, self.world.now + 0.0005)
            self.world.at(self._tick_at, self._tick)

    def _dial(self, dialling: int) -> None:
        if dialling != self._dialling or self.dead:
            return
        if self.paused or self.way.cut:
            self.world.after(0.5, self._dial, dialling)
            return
        if self.session.state == "taken over":
            raise Broken(15, f"{self.name} was taken over and dials again")
        self._hang_up()
        if self.to.up:
            self.link = self.to.accept(self)
            self.world.note(self.name, "connected", self.to.name)
            self.engine.connected(self.world.now)
        else:
            self.engine.connection_lost(self.world.now)
        self.flush()

    def _hang_up(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.down.closed = True
            link.up.send(FIN)

    def kick(self) -> None:
        """Something that held back what is on its way may have ended."""
        if self.link is not None:
            self.link.kick()

    # -- the engine's host -------------------------------------------------------------------------

    def _end(self, asked: Asked, value: Any, error: TegaError | None) -> None:
        if asked.done:
            raise Broken(17, f"{asked!r} of {self.name} ended twice")
        asked.done = True
        asked.value, asked.error, asked.ended = value, error, self.world.events
        self.asked.pop(asked, None)
        self.world.note(
            self.name, "ended", (asked.kind.__name__, asked.about, value if error is None else error)
        )
        if not self.dead:
            self.watcher.ended(asked)

    def resolve(self, waiter: Any, value: Any) -> None:
        """The request of `waiter` was answered."""
        self._end(waiter, value, None)

    def reject(self, waiter: Any, error: TegaError) -> None:
        """The request of `waiter` failed."""
        self._end(waiter, None, error)

    def full(self) -> bool:
        """Callbacks run at once, so there is always room."""
        return False

    def notify(self, callback: Callable[[Any], Any], arguments: tuple[Any, ...]) -> None:
        """Call `callback` with all of `arguments`: those of one commit belong together."""
        if callback == self._state:
            for argument in arguments:
                self._state(argument)
        else:
            callback(arguments)

    def notify_message(self, callback: Callable[[Any], Any], argument: Any) -> int:
        """Call `callback` with a message."""
        callback(argument)
        return 0

    def invoke(self, function: Callable[..., Any], call: m.Invoke) -> None:
        """Run a handler; its result comes when the watcher says."""
        answer = self.watcher.invoked(self, call)
        if answer is not None:
            delay, ok, value = answer
            self.world.after(delay, self._result, call, m.Result(call.call, ok, value))

    def abandon(self, call: m.Invoke) -> None:
        """Nobody waits for a handler any more: it goes on, and its result is dropped."""

    def _result(self, call: m.Invoke, result: m.Result) -> None:
        if self.dead:
            return
        if self.paused:
            self.world.after(0.3, self._result, call, result)
            return
        self.engine.result(call, result, self.world.now)
        self.flush()

    def redial(self, delay: float) -> None:
        """Drop the connection, and dial again."""
        self._hang_up()
        self._dialling += 1
        self.world.after(delay, self._dial, self._dialling)

    def welcomed(self, welcome: m.Welcome) -> None:
        """A session stands."""

    def rejected(self, error: TegaError) -> None:
        """The node refused."""
        if isinstance(error, TakenOver):
            raise Broken(15, f"{self.name} was taken over, and does not understand it")
        self.world.note(self.name, "rejected", error)

    def over(self) -> None:
        """Taken over."""
        self._hang_up()

    def _state(self, state: str) -> None:
        self.world.note(self.name, "state", state)
        self.watcher.state_changed(self, state)

    def send_raw(self, message: m.AnyMessage) -> None:
        """Send a message as it is."""
        if self.link is not None:
            self.link.up.send(encode(message))
