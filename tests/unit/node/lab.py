"""A node on the bench: events in by hand, effects looked at, a disk that is durable when told."""

from __future__ import annotations

import itertools
from typing import Any

from tega_zmq import errors, store
from tega_zmq.client.protocol import ClientSession
from tega_zmq.node import Node, Settings, machine
from tega_zmq.node.effects import Append, Effect, Note, Publish, Send, SendUp
from tega_zmq.wire import decode, encode
from tega_zmq.wire import messages as m


class Lab:
    """One node and the connections to it. Time stands still unless moved."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        uplink: ClientSession | None = None,
        state: store.Store | None = None,
        durable: bool = True,
        prefix: str = "",
        now: float = 1000.0,
        epochs: bool = False,
    ) -> None:
        """`prefix`: hex digits with which all ids of this node begin; `epochs` as in `machine.start`."""
        counter = itertools.count(1)
        self.now = now
        self.auto = durable
        """Whether every record is durable at once."""
        self.disk: list[store.Record] = []
        self.earlier = 0
        """How many of them are of earlier runs."""
        self.notes: list[Note] = []
        self.published: list[Publish] = []
        self.up: list[m.AnyMessage] = []
        self.other: list[Effect] = []
        self.inbox: dict[bytes, list[m.AnyMessage]] = {}
        self.node = Node(
            settings or Settings("broker"),
            state if state is not None else store.empty(store.Kept()),
            0,
            fresh=lambda: f"{prefix}{next(counter):0{16 - len(prefix)}x}" * 2,
            clock=lambda: 1_700_000_000.0 + self.now,
            uplink=uplink,
            now=self.now,
        )
        machine.start(self.node, epochs=epochs, now=self.now)
        self.run()

    # -- running -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Carry out effects until there are none."""
        while self.node.effects:
            for effect in machine.take_effects(self.node):
                if isinstance(effect, Send):
                    self.inbox.setdefault(effect.peer, []).append(decode(encode(effect.message)))
                elif isinstance(effect, Append):
                    self.disk.append(effect.record)
                elif isinstance(effect, Publish):
                    self.published.append(effect)
                elif isinstance(effect, SendUp):
                    self.up.append(decode(encode(effect.message)))
                elif isinstance(effect, Note):
                    self.notes.append(effect)
                else:
                    self.other.append(effect)
            if self.auto:
                self.sync()

    def sync(self) -> None:
        """The disk has everything now."""
        if self.node.number > self.node.durable_number:
            machine.durable(self.node, self.node.number, self.now)
        if not self.auto:
            self.run()

    def fail(self, reason: str = "no space left") -> None:
        """The disk refuses what is not durable yet, and everything from now on."""
        machine.log_failed(self.node, reason, self.node.durable_number, self.now)
        del self.disk[self.earlier + self.node.durable_number :]
        self.run()

    def mend(self) -> None:
        """An operator made room, and the log was begun anew beside a snapshot."""
        machine.snapshot_done(self.node, self.node.durable_number, 1, 0.1, self.now)
        self.run()

    def wait(self, seconds: float) -> None:
        """Let time pass, in the steps in which the node wants to be called."""
        until = self.now + seconds
        while True:
            due = machine.next_deadline(self.node)
            self.now = min(max(due, self.now), until)
            machine.tick(self.node, self.now)
            self.run()
            if self.now >= until:
                return
            if due <= self.now:
                self.now += 1e-6

    # -- peers -------------------------------------------------------------------------------------

    def send(self, peer: bytes, message: m.AnyMessage) -> list[m.AnyMessage]:
        """Send `message` from `peer`; return what came back to it meanwhile."""
        machine.receive(self.node, peer, decode(encode(message)), self.now)
        self.run()
        return self.take(peer)

    def take(self, peer: bytes) -> list[m.AnyMessage]:
        """Return and forget what was sent to `peer`."""
        return self.inbox.pop(peer, [])

    def join(self, tega_id: str, kind: str = "client") -> Peer:
        """Open a session and return its peer."""
        return Peer(self, tega_id, kind)


class Peer:
    """A scripted session."""

    names = itertools.count(1)

    def __init__(self, lab: Lab, tega_id: str, kind: str = "client") -> None:
        self.lab = lab
        self.tega_id = tega_id
        self.kind = kind
        self.id = 0
        self.other: list[m.AnyMessage] = []
        self.address = b""
        self.session = self.token = ""
        self.welcome = self.hello()

    def hello(self) -> m.Welcome:
        """Connect anew and say hello, with the session if there is one."""
        self.address = b"peer-%d" % next(self.names)
        answers = self.lab.send(self.address, m.Hello(1, self.tega_id, self.kind, self.session, self.token))
        (welcome,) = [each for each in answers if isinstance(each, (m.Welcome, m.Refused))]
        if isinstance(welcome, m.Refused):
            raise errors.decode(welcome.code, welcome.message, welcome.fields)
        self.other += [each for each in answers if each is not welcome]
        self.session, self.token = welcome.session, welcome.token
        return welcome

    def start(self, cls: type[Any], *fields: Any, timeout: int = 10_000) -> int:
        """Send a request and return its id."""
        self.id += 1
        self.other += self.lab.send(self.address, cls(self.id, 1, timeout, *fields))
        return self.id

    def ask(self, cls: type[Any], *fields: Any, timeout: int = 10_000) -> Any:
        """Send a request and return its answer, which must be there; raise it if it is an error."""
        return self.answer(self.start(cls, *fields, timeout=timeout))

    def answer(self, id: int) -> Any:
        """Return the answer to request `id`, or raise it."""
        self.collect()
        for each in self.other:
            if isinstance(each, (m.Reply, m.Failure)) and each.id == id:
                self.other.remove(each)
                if isinstance(each, m.Failure):
                    raise errors.decode(each.code, each.message, each.fields)
                return each.value
        raise AssertionError(f"no answer to request {id}")

    def answered(self, id: int) -> bool:
        """Whether the answer to request `id` has come."""
        self.collect()
        return any(isinstance(each, (m.Reply, m.Failure)) and each.id == id for each in self.other)

    def collect(self) -> None:
        """Take what has come."""
        self.other += self.lab.take(self.address)

    def take(self, cls: type[Any]) -> list[Any]:
        """Return and forget the messages of one type that came."""
        self.collect()
        found = [each for each in self.other if isinstance(each, cls)]
        self.other = [each for each in self.other if not isinstance(each, cls)]
        return found

    def tell(self, message: m.AnyMessage) -> None:
        """Send what is no request."""
        self.other += self.lab.send(self.address, message)

    def cut(self) -> None:
        """The connection breaks."""
        machine.peer_gone(self.lab.node, self.address, self.lab.now)
        self.lab.run()

    # -- short forms -------------------------------------------------------------------------------

    def put(self, path: str, value: Any, expected: int | None = None, *, ephemeral: bool = False) -> Any:
        """Put, and return the reply."""
        return self.ask(m.Write, (("put", tuple(path.split(".")), value, expected, ephemeral),), "", "")

    def delete(self, path: str) -> Any:
        """Delete, and return the reply."""
        return self.ask(m.Write, (("delete", tuple(path.split(".")), None, None, False),), "", "")

    def get(self, path: str, version: int | None = None) -> Any:
        """Read a value."""
        return self.ask(m.Get, tuple(path.split(".")), version, "value", "")[0]
