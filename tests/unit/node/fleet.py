"""A fleet in one process: a broker, agents and clients, joined by links that can be cut, on one clock.

Nothing here does I/O, sleeps, or draws random numbers. A node is a `Lab`; what it sends lies in the queues of
its links until `deliver` or `run` carries it over. The frames are encoded and decoded on the way.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from tega_zmq import errors, store
from tega_zmq.client import protocol
from tega_zmq.client.protocol import ClientSession
from tega_zmq.client.results import Change
from tega_zmq.client.subscriptions import Subscribed, Subscriptions
from tega_zmq.errors import TegaError
from tega_zmq.node import Settings, machine
from tega_zmq.node.effects import Redial, RememberUplink, Topics
from tega_zmq.paths import parse
from tega_zmq.wire import decode, encode
from tega_zmq.wire import messages as m
from tests.unit.node.lab import Lab

START = 1000.0


class Link:
    """One connection to a node, with what is on its way in each direction."""

    def __init__(self, dialer: Dialer, node: Station, peer: bytes) -> None:
        self.dialer = dialer
        self.node = node
        self.peer = peer
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.reading = True
        """False: the dialer does not read; what comes for it waits."""


class Dialer:
    """Whoever dials a node: an agent's uplink, or a client."""

    def __init__(self, fleet: Fleet, name: str, to: Station | None, session: ClientSession | None) -> None:
        self.fleet = fleet
        self.name = name
        self.to = to
        self.session = session
        self.link: Link | None = None
        self.dial_at: float | None = None
        self.reachable = True
        """False: there is no way to the node."""

    def dial(self) -> None:
        """Connect, or learn that this is not possible now."""
        self.dial_at = None
        assert self.to is not None
        self.drop()
        if self.reachable and self.to.up:
            self.link = self.fleet.link(self, self.to)
            self.happened("up")
        else:
            self.happened("down")

    def drop(self) -> None:
        """Close the connection from this end; the node hears of it."""
        link, self.link = self.link, None
        if link is not None:
            self.fleet.unlink(link)
            link.node.lost(link.peer)

    def happened(self, what: str) -> None:
        """The connection came `up` or went `down`."""
        raise NotImplementedError

    def take(self, message: m.AnyMessage) -> None:
        """A message came down."""
        raise NotImplementedError

    def tick(self) -> None:
        """Time passed."""
        raise NotImplementedError

    def due(self) -> float:
        """When `tick` is due."""
        raise NotImplementedError


class Station(Dialer):
    """A node, its disk, and its uplink if it has one."""

    def __init__(self, fleet: Fleet, number: int, settings: Settings, to: Station | None, kept: store.Kept):
        super().__init__(fleet, settings.tega_id, to, None)
        self.number = number
        self.settings = settings
        self.kept = kept
        self.runs = 0
        self.up = False
        self.links: dict[bytes, Link] = {}
        self.topics: dict[str, frozenset[bytes]] = {}
        """Topics of its uplink that it has subscribed to."""
        self.updates: deque[tuple[bytes, bytes]] = deque()
        """Published updates on their way to it."""
        self.remembered = ("", "")
        self.lab = self._lab([])

    def _lab(self, disk: list[store.Record], *, unclean: bool = False) -> Lab:
        self.runs += 1
        if self.to is not None:
            self.session = ClientSession(self.name, "agent", jitter=lambda: 0.5)
            if self.remembered[0]:
                self.session.resume(*self.remembered, first=self.runs << 40)
        self.topics = {}
        self.updates.clear()
        self.up = True
        lab = Lab(
            self.settings,
            uplink=self.session,
            state=store.replay(store.empty(self.kept), disk),
            durable=getattr(self, "lab", None) is None or self.lab.auto,
            prefix=f"{self.number:02x}{self.runs:04x}",
            epochs=unclean,
            now=self.fleet.now,
        )
        lab.disk[:0] = disk
        lab.earlier = len(disk)
        self.dial_at = self.fleet.now if self.to is not None else None
        return lab

    @property
    def disk(self) -> list[store.Record]:
        """The records that are on the disk for sure."""
        return self.lab.disk[: self.lab.earlier + self.lab.node.durable_number]

    # -- failures ----------------------------------------------------------------------------------

    def kill(self) -> None:
        """The program is killed: connections break, and what was not durable is lost."""
        self.up = False
        for link in list(self.links.values()):
            self.fleet.unlink(link)
            link.dialer.link = None
            link.dialer.happened("down")
        link, self.link = self.link, None
        if link is not None:
            self.fleet.unlink(link)
            link.node.lost(link.peer)
        self.dial_at = None

    def start(self, *, wiped: bool = False, unclean: bool = False) -> None:
        """The program starts from its disk, which may have been `wiped`, or have lost its end (`unclean`)."""
        self.start_from([] if wiped else self.disk, unclean=unclean)

    def start_from(self, disk: list[store.Record], *, unclean: bool = False) -> None:
        """The program starts from `disk`: a copy of it perhaps, from any time before, or of another one."""
        if not disk:
            self.remembered = ("", "")
        self.lab = self._lab(list(disk), unclean=unclean)
        self.settle()

    def slow(self) -> None:
        """From now on records are durable only after `sync`."""
        self.lab.auto = False

    def sync(self) -> None:
        """The disk has everything now."""
        self.lab.now = self.fleet.now
        self.lab.sync()
        self.settle()

    def fail(self) -> None:
        """The disk refuses what is not durable yet, and everything until `mend`."""
        self.lab.now = self.fleet.now
        self.lab.fail()
        self.settle()

    def mend(self) -> None:
        """The disk takes records again."""
        self.lab.now = self.fleet.now
        self.lab.mend()
        self.settle()

    # -- events ------------------------------------------------------------------------------------

    def event(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call an event of the node's machine, and carry out what follows."""
        if self.up:
            self.lab.now = self.fleet.now
            function(self.lab.node, *arguments, self.fleet.now)
            self.settle()

    def settle(self) -> None:
        """Carry out effects, and put what the node sent into the queues."""
        lab = self.lab
        lab.now = self.fleet.now
        lab.run()
        for peer, messages in lab.inbox.items():
            link = self.links.get(peer)
            if link is not None:
                link.down.extend(map(encode, messages))
        lab.inbox.clear()
        if self.link is not None:
            self.link.up.extend(map(encode, lab.up))
        lab.up.clear()
        for each in lab.published:
            self.fleet.publish(self, each.topic, encode(each.message))
        lab.published.clear()
        others, lab.other = lab.other, []
        for effect in others:
            if isinstance(effect, Redial):
                self.drop()
                self.dial_at = self.fleet.now + effect.delay
            elif isinstance(effect, RememberUplink):
                self.remembered = (effect.session, effect.token)
            elif isinstance(effect, Topics):
                self._subscribe(effect.topics)

    def _subscribe(self, topics: frozenset[bytes]) -> None:
        assert self.to is not None
        fresh = topics - self.topics.get(self.to.name, frozenset())
        self.topics[self.to.name] = topics
        for topic in sorted(fresh):
            self.to.event(machine.topic_subscribed, topic)

    def receive(self, peer: bytes, data: bytes) -> None:
        """A frame came from a connection."""
        self.event(machine.receive, peer, decode(data))

    def lost(self, peer: bytes) -> None:
        """A connection is gone, as the socket says."""
        self.links.pop(peer, None)
        self.event(machine.peer_gone, peer)

    def happened(self, what: str) -> None:
        self.event(machine.uplink_connected if what == "up" else machine.uplink_lost)

    def take(self, message: m.AnyMessage) -> None:
        self.event(machine.uplink_received, message)

    def tick(self) -> None:
        self.event(machine.tick)

    def due(self) -> float:
        return machine.next_deadline(self.lab.node) if self.up else float("inf")

    # -- looking -----------------------------------------------------------------------------------

    def tree(self, root: str) -> Any:
        """Return the value of a root as this node shows it; None: it is not there."""
        found = self.lab.node.durable.roots.get(root)
        return None if found is None or found.node is None else store_value(found.node)

    def position(self, root: str) -> tuple[str, int]:
        """Return epoch and version of a root as this node shows it."""
        found = self.lab.node.durable.roots.get(root)
        return ("", -1) if found is None else (found.epoch, found.version)

    def noted(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of the log lines of one kind."""
        return [note.fields for note in self.lab.notes if note.event == event]


def store_value(node: Any) -> Any:
    """Return the plain value of a node of the tree."""
    from tega_zmq.tree import plain

    return plain(node)


class Client(Dialer):
    """A program at a node: it reconnects, and says its subscriptions and handlers again."""

    def __init__(self, fleet: Fleet, name: str, to: Station) -> None:
        super().__init__(fleet, name, to, ClientSession(name, jitter=lambda: 0.5))
        self.done: dict[int, Any] = {}
        """What each request ended with: its value, or the error."""
        self.states: list[str] = []
        self.heard: list[Change] = []
        self.messages: list[m.Message] = []
        self.dropped = 0
        self.resets = 0
        self.subscriptions = Subscriptions()
        self._asked: dict[int, Subscribed] = {}
        self.handlers: dict[tuple[str, ...], Callable[..., Any]] = {}
        self.invoked: list[m.Invoke] = []
        self.abandoned: list[int] = []
        self.dial_at = fleet.now

    # -- asking ------------------------------------------------------------------------------------

    def start(self, cls: type[Any], *fields: Any, timeout: float = 10.0) -> int:
        """Make a request; return its id."""
        assert self.session is not None
        id = self.session.request(cls, *fields, timeout=timeout, now=self.fleet.now)
        self.pump()
        return id

    def ask(self, cls: type[Any], *fields: Any, timeout: float = 10.0) -> Any:
        """Make a request, let the fleet run, and return the answer or raise it."""
        id = self.start(cls, *fields, timeout=timeout)
        self.fleet.run()
        return self.answer(id)

    def answer(self, id: int) -> Any:
        """Return what request `id` ended with, or raise it."""
        assert id in self.done, f"request {id} of {self.name} has no answer yet"
        value = self.done[id]
        if isinstance(value, TegaError):
            raise value
        return value

    def put(self, path: str, value: Any, expected: int | None = None, *, ephemeral: bool = False) -> Any:
        """Put and return [revision, [[root, version], ...]]."""
        return self.ask(m.Write, (("put", parse(path), value, expected, ephemeral),), "", "")

    def delete(self, path: str) -> Any:
        """Delete, and return as `put`."""
        return self.ask(m.Write, (("delete", parse(path), None, None, False),), "", "")

    def get(self, path: str) -> Any:
        """Return a value."""
        return self.ask(m.Get, parse(path), None, "value", "")[0]

    def subscribe(self, path: str, scope: str = "local") -> Subscribed:
        """Follow the changes of a path; they come to `heard`."""
        return self._follow(self.subscriptions.to_path(parse(path), scope, self.heard.append))

    def listen(self, channel: str, scope: str = "local") -> Subscribed:
        """Hear the messages of a channel; they come to `messages`."""
        return self._follow(self.subscriptions.to_channel(channel, False, scope, self.messages.append))

    def _follow(self, subscribed: Subscribed) -> Subscribed:
        self._say(subscribed)
        self.fleet.run()
        return subscribed

    def _say(self, subscribed: Subscribed) -> None:
        cls, fields = subscribed.ask()
        self._asked[self.start(cls, *fields)] = subscribed

    def register(self, path: str, handler: Callable[..., Any]) -> None:
        """Offer a handler. One that returns `NotImplemented` never answers."""
        self.handlers[parse(path)] = handler
        self.ask(m.Register, parse(path))

    def call(self, path: str, *args: Any, timeout: float = 10.0) -> Any:
        """Call, and return the result or raise."""
        return self.ask(m.Call, parse(path), args, {}, timeout=timeout)

    def close(self) -> None:
        """End the session in order."""
        assert self.session is not None
        self.session.close(self.fleet.now)
        self.pump()

    # -- events ------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Carry out what the session wants."""
        session = self.session
        assert session is not None
        while True:
            output, events = session.take_output(), session.take_events()
            if self.link is not None:
                self.link.up.extend(map(encode, output))
            for event in events:
                self._event(event)
            if not output and not events:
                return

    def _event(self, event: protocol.Event) -> None:
        if isinstance(event, (protocol.Completed, protocol.Failed)):
            value = event.value if isinstance(event, protocol.Completed) else event.error
            assert event.id not in self.done, f"request {event.id} of {self.name} ended twice"
            self.done[event.id] = value
            subscribed = self._asked.pop(event.id, None)
            if subscribed is not None:
                if isinstance(event, protocol.Failed):
                    self.subscriptions.refused(subscribed.number)
                elif self.subscriptions.confirmed(subscribed.number, event.value):
                    self._say(subscribed)
        elif isinstance(event, protocol.Notified):
            found, changes, again = self.subscriptions.take(event.changed)
            self.resets += event.changed.reset
            for change in changes:
                assert found is not None
                found.callback(change)
            if again and found is not None:
                self._say(found)
        elif isinstance(event, protocol.MessageReceived):
            self.messages.append(event.message)
        elif isinstance(event, protocol.Dropped):
            self.dropped += event.count
        elif isinstance(event, protocol.Invoked):
            self._run(event.invoke)
        elif isinstance(event, protocol.Abandoned):
            self.abandoned.append(event.call)
        elif isinstance(event, protocol.StateChanged):
            self.states.append(event.state)
        elif isinstance(event, protocol.Welcomed):
            for number in self.subscriptions.welcomed(event.welcome.resumed):
                again_for = self.subscriptions.get(number)
                assert again_for is not None
                self._say(again_for)
            for path in self.handlers:
                self.start(m.Register, path)
        elif isinstance(event, protocol.Redial):
            self.drop()
            self.dial_at = self.fleet.now + event.delay

    def _run(self, invoke: m.Invoke) -> None:
        self.invoked.append(invoke)
        try:
            value = self.handlers[invoke.path](*invoke.args, **invoke.kwargs)
        except Exception as error:  # noqa: BLE001
            self.result(invoke.call, [type(error).__name__, str(error)], ok=False)
        else:
            if value is not NotImplemented:
                self.result(invoke.call, value)

    def result(self, call: int, value: Any, *, ok: bool = True) -> None:
        """Answer a call, perhaps late."""
        assert self.session is not None
        self.session.send(m.Result(call, ok, value))
        self.pump()

    def happened(self, what: str) -> None:
        assert self.session is not None
        if what == "up":
            self.session.connected(self.fleet.now)
        else:
            self.session.connection_lost(self.fleet.now)
        self.pump()

    def take(self, message: m.AnyMessage) -> None:
        assert self.session is not None
        self.session.received(message, self.fleet.now)
        self.pump()

    def tick(self) -> None:
        assert self.session is not None
        self.session.tick(self.fleet.now)
        self.pump()

    def due(self) -> float:
        assert self.session is not None
        due = self.session.next_deadline()
        return float("inf") if due is None else due

    @property
    def state(self) -> str:
        """The state of the session."""
        assert self.session is not None
        return self.session.state


class Fleet:
    """A broker, and what is added to it."""

    def __init__(self, broker: Settings | None = None, kept: store.Kept | None = None) -> None:
        self.now = START
        self.kept = kept if kept is not None else store.Kept()
        self._numbers = itertools.count(1)
        self._peers = itertools.count(1)
        self.links: list[Link] = []
        self.stations: list[Station] = []
        self.clients: list[Client] = []
        self.losing: Callable[[Station, bytes], bool] = lambda agent, frame: False
        """Whether a published update is lost on its way to an agent."""
        self.broker = self._station(broker or Settings("gateway", changes=":8741", direct_followers=0), None)

    def _station(self, settings: Settings, to: Station | None) -> Station:
        station = Station(self, next(self._numbers), settings, to, self.kept)
        self.stations.append(station)
        station.settle()
        return station

    def agent(
        self,
        tega_id: str,
        config: tuple[str, ...] = (),
        operational: tuple[str, ...] = (),
        to: Station | None = None,
    ) -> Station:
        """Add an agent; it connects with the next `run`."""
        settings = self.broker.settings._replace(tega_id=tega_id, config=config, operational=operational)
        return self._station(settings, to or self.broker)

    def client(self, tega_id: str, at: Station | None = None) -> Client:
        """Add a client of the broker, or of an agent."""
        client = Client(self, tega_id, at or self.broker)
        self.clients.append(client)
        return client

    @property
    def dialers(self) -> list[Dialer]:
        """All that dial."""
        return [*(station for station in self.stations if station.to is not None), *self.clients]

    # -- links -------------------------------------------------------------------------------------

    def link(self, dialer: Dialer, node: Station) -> Link:
        """Make a connection."""
        link = Link(dialer, node, b"peer-%d" % next(self._peers))
        self.links.append(link)
        node.links[link.peer] = link
        return link

    def unlink(self, link: Link) -> None:
        """Take a connection out, with what is on its way."""
        if link in self.links:
            self.links.remove(link)
        link.node.links.pop(link.peer, None)

    def cut(self, dialer: Dialer, *, noticed: bool = True) -> None:
        """Break the way from `dialer` to its node; not `noticed`: both ends find out by the silence."""
        dialer.reachable = False
        link = dialer.link
        if link is None:
            return
        self.unlink(link)
        if noticed:
            dialer.link = None
            link.node.lost(link.peer)
            dialer.happened("down")

    def restore(self, dialer: Dialer) -> None:
        """Mend the way; it is used with the next attempt to dial."""
        dialer.reachable = True

    def publish(self, publisher: Station, topic: bytes, frame: bytes) -> None:
        """Hand an update to the agents that have subscribed to its topic."""
        for agent in self.stations:
            follows = agent.to is publisher and agent.up and agent.link in self.links
            if follows and topic in agent.topics.get(publisher.name, ()) and not self.losing(agent, frame):
                agent.updates.append((topic, frame))

    # -- running -----------------------------------------------------------------------------------

    def ready(self) -> list[Callable[[], None]]:
        """Return what can happen now without time passing: deliveries, and dials that are due."""
        found: list[Callable[[], None]] = []
        for link in self.links:
            if link.up:
                found.append(lambda link=link: link.node.receive(link.peer, link.up.popleft()))
            if link.down and link.reading:
                found.append(lambda link=link: link.dialer.take(decode(link.down.popleft())))
        found += [
            lambda station=station: self._update(station) for station in self.stations if station.updates
        ]
        found += [
            dialer.dial
            for dialer in self.dialers
            if dialer.dial_at is not None and dialer.dial_at <= self.now
        ]
        return found

    @staticmethod
    def _update(station: Station) -> None:
        topic, frame = station.updates.popleft()
        message = decode(frame)
        assert isinstance(message, m.RootUpdate)
        station.event(machine.uplink_changes, topic, message)

    def run(self, most: int = 100_000) -> None:
        """Let happen what can, in turn, until nothing is on its way."""
        for _ in range(most):
            ready = self.ready()
            if not ready:
                return
            for happen in ready[:1]:
                happen()
        raise AssertionError("the fleet does not come to rest")

    def wait(self, seconds: float) -> None:
        """Let time pass, and everything happen at its time."""
        until = self.now + seconds
        self.run()
        while self.now < until:
            self.pass_time(until)
            self.run()

    def pass_time(self, until: float) -> None:
        """Go to the time at which something is due, at most to `until`, and tick what is due."""
        due = until
        for dialer in self.dialers:
            if dialer.dial_at is not None:
                due = min(due, dialer.dial_at)
        for each in [*self.stations, *self.clients]:
            due = min(due, each.due())
        self.now = max(self.now + 1e-3, due) if due < until else until
        for each in [*self.stations, *self.clients]:
            if each.due() <= self.now:
                each.tick()

    def error(self, client: Client, id: int) -> TegaError:
        """Return the error that a request ended with."""
        found = client.done[id]
        assert isinstance(found, TegaError), found
        return found


__all__ = ["Client", "Dialer", "Fleet", "Link", "Station", "errors"]
