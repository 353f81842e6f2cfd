"""A broker or an agent: the real node, log and recovery, over a disk and a network that are not.

`Host` does what `tega_zmq.runtime` does for a program, without threads and sockets: it carries out the
node's effects, takes the log's steps one by one, dials, and starts again after a crash. All that the node
and the log are told, and all that they say, goes through here, so the checks look from here.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple, Protocol

from tega_zmq import log as tega_log
from tega_zmq import store
from tega_zmq.client.protocol import ClientSession
from tega_zmq.errors import ProtocolError, StorageError, TegaError
from tega_zmq.log.records import encode_chunk, encode_record
from tega_zmq.node import Node, Settings, machine
from tega_zmq.node.effects import (
    Append,
    Effect,
    Note,
    Publish,
    Redial,
    RememberUplink,
    Send,
    SendUp,
    Snapshot,
    Topics,
)
from tega_zmq.wire import decode, encode, request_id
from tega_zmq.wire import messages as m
from tests.fakedisk import Crashed, FakeDisk
from tests.sim.network import FIN, Dialer, Link, Pipe, Way
from tests.sim.world import Broken, World

__all__ = ["FOLDER", "Checks", "Host", "Setup", "SteppedLog"]

FOLDER = "/data"
NEVER = float("inf")
QUEUE = 64 * 1024
"""Bytes that wait for a peer that does not read, until its connection is given up."""
RETRY = 0.02
UPLINK_QUEUE = 10_000


class Setup(NamedTuple):
    """What does not change over the restarts of a host."""

    settings: Settings
    options: tega_log.Options
    kept: store.Kept
    snapshot_after: int
    latency: float
    """Mean seconds that the disk takes for a batch."""


class Checks(Protocol):
    """Who looks on."""

    def appended(self, host: Host, record: store.Record, number: int) -> None:
        """The node wants `record` in the log."""

    def durable(self, host: Host, number: int) -> None:
        """The log says that all up to record `number` is durable; the node does not know yet."""

    def failed(self, host: Host) -> None:
        """The log failed, and the node knows."""

    def received(self, host: Host, peer: bytes, message: m.AnyMessage) -> None:
        """The node has taken `message`, and not yet sent anything."""

    def sending(self, host: Host, peer: bytes | None, message: m.AnyMessage) -> None:
        """The node sends `message` to `peer`; None: up."""

    def published(self, host: Host, message: m.RootUpdate) -> None:
        """The node publishes `message`."""

    def crashed(self, host: Host, power: bool) -> None:
        """The program is gone; `power`: with what was not synced. The node still stands to be looked at."""

    def started(self, host: Host, opened: tega_log.Opened, state: store.Store) -> None:
        """The log was read; the node is about to be made."""

    def settled(self, host: Host) -> None:
        """An event of the node is over."""

    def noted(self, host: Host, note: Note) -> None:
        """The node wrote a log line."""


class SteppedLog(tega_log.LogThread):
    """The log's threads, without threads: each step is taken when the simulation says so."""

    def start(self) -> None:
        """Nothing runs by itself."""

    def _begin(self, job: Any, lsn: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        self.jobs.append(self._snapshot(job, lsn, chunks))

    def __init__(self, log: tega_log.Log, wake: Callable[[], None], clock: Callable[[], float]) -> None:
        super().__init__(log, wake=wake, clock=clock)
        self.log = log
        self.jobs: deque[Any] = deque()
        """Snapshots to be written, the first one in the making."""
        self._waits: Any = None

    @property
    def waiting(self) -> bool:
        """Whether the writer has something to do."""
        return len(self._queue) > 0

    @property
    def patience(self) -> float | None:
        """Seconds until a sync is due."""
        return self._patience()

    def write(self) -> None:
        """One step of the writer: a batch, or a sync that is due."""
        if self._queue:
            self._take(self._queue.popleft())
        elif self._patience() is not None:
            self._take(None)

    def advance(self) -> bool:
        """One step of the snapshot in the making; return false if it must wait for the writer, or is over."""
        if self._waits is not None:
            if not self._waits.done.is_set():
                return False
            self._waits = None
        job: Generator[Any, None, None] = self.jobs[0]
        try:
            self._waits = next(job)
        except StopIteration:
            self.jobs.popleft()
            self._waits = None
        return bool(self.jobs) and self._waits is None

    def stop(self, clean: bool) -> None:
        """An orderly stop: all that was appended is written first."""
        while self.jobs:
            self.jobs.popleft().close()
        while self.waiting:
            self.write()
        self.log.close(clean)

    def drop(self) -> None:
        """The program is gone: nothing of it runs any more. The disk must refuse everything by now."""
        while self.jobs:
            try:
                self.jobs.popleft().close()
            except Crashed:
                continue


class _Peer:
    """What a host knows of one connection."""

    __slots__ = ("link", "queue", "size")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.queue: deque[bytes] = deque()
        self.size = 0


class Host:
    """One node with its disk, on or off."""

    def __init__(self, world: World, setup: Setup, checks: Checks, way: Way, to: Host | None = None) -> None:
        """`to`: the node above, for an agent; `way` leads there."""
        self.world = world
        self.setup = setup
        self.checks = checks
        self.way = way
        self.changes_way = Way(way.delay)
        """The connection to the publisher is another one."""
        self.to = to
        self.name = setup.settings.tega_id
        self.disk = FakeDisk()
        self.up = False
        self.wanted = True
        """False: nobody starts it again for now."""
        self.paused = False
        self.resumed = 0.0
        """When it went on last after a pause."""
        self.run = 0
        self.drift = 0.0
        """Of the wall clock, in seconds."""
        self.fuse: int | None = None
        """The program crashes after so many operations of the disk."""
        self.fuse_power = False
        self.errors = 0.0
        """Probability with which an operation of the disk fails."""
        self.full = False
        self.slow = 1.0
        """How many times slower the disk is than usual."""
        self.remembered: list[tuple[str, str]] = [("", "")]
        """The uplink's session as it was kept, the newest last."""
        self.node: Node
        self.log: SteppedLog
        self.uplink: ClientSession | None = None
        self.link: Link | None = None
        self.peers: dict[bytes, _Peer] = {}
        self.subscribers: dict[bytes, dict[Host, None]] = {}
        """Agents by the topics that they have subscribed to here."""
        self.topics: frozenset[bytes] = frozenset()
        self.attached: tuple[int, ...] = ()
        """The run of the node above whose publisher it is connected to, if any."""
        self.updates: Pipe = self._updates_pipe()
        self._up_queue: deque[bytes] = deque()
        self._tick_at = NEVER
        self._writing = False
        self._snapshotting = self._mending = False
        self._advancing = False
        self._dialling = 0
        self._woken_soon = False
        self._damaged: FakeDisk | None = None
        """The disk as it was before somebody damaged it."""
        self.refused = 0

    # -- the program -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the program; if it crashes or cannot start, it is tried again."""
        if self.up or not self.wanted:
            return
        world = self.world
        self.run += 1
        self.disk.killed().fault = self._fault
        try:
            opened = tega_log.open_log(self.disk, FOLDER, self.setup.options, new_id=world.fresh)
            state = tega_log.rebuild(self.disk, FOLDER, opened, self.setup.kept)
        except Crashed:
            world.note(self.name, "crashed while it started", "power" if self.fuse_power else "killed")
            self.fuse = None
            self.checks.crashed(self, self.fuse_power)
            self._lose_memory(self.fuse_power)
            world.after(0.5, self.start)
            return
        except (StorageError, OSError) as error:
            self._cannot_start(error)
            return
        if self._damaged is not None:
            world.note(self.name, "starts on a disk with a bit flipped", None)
            self._damaged = None
        self.checks.started(self, opened, state)
        self.up = True
        self.paused = False
        self.log = SteppedLog(opened.log, self._wake, lambda: world.now)
        epochs = not opened.report.clean and self.setup.options.sync != "always"
        self.uplink = None
        if self.to is not None:
            self.uplink = ClientSession(self.name, "agent", jitter=world.random.random)
            session, token = self.remembered[-1]
            if session:
                self.uplink.resume(session, token, self.run << 40)
        self.node = Node(
            self.setup.settings,
            state,
            opened.report.last,
            fresh=world.fresh,
            clock=self.clock,
            uplink=self.uplink,
            now=world.now,
        )
        world.note(self.name, "starts", (opened.report.last, state.revision, "new epochs" if epochs else ""))
        self._writing = self._snapshotting = self._mending = self._advancing = self._woken_soon = False
        self._tick_at = NEVER
        machine.start(self.node, epochs=epochs, now=world.now)
        if self.to is not None:
            self._redial(0.0)
        self.settle()

    def _cannot_start(self, error: StorageError | OSError) -> None:
        self.world.note(self.name, "cannot start", str(error))
        self.refused += 1
        message = str(error)
        if self._damaged is not None:
            if FOLDER not in message:
                raise Broken(4, f"{self.name} refused a damaged log without naming it: {message}")
            self.disk = self._damaged
            self._damaged = None
        elif not self.full and not self.errors:
            raise Broken(4, f"{self.name} does not start by itself: {message}")
        self.world.after(1.0, self.start)

    def clock(self) -> float:
        """Return Unix seconds, as this host believes."""
        return 1_700_000_000.0 + self.world.now + self.drift

    def crash(self, power: bool) -> None:
        """The program is gone, and if `power`, what was not synced."""
        if not self.up:
            return
        self.world.note(self.name, "power lost" if power else "killed", None)
        self.up = False
        self.fuse = None
        self.disk.fault = _refuse_all
        self.log.drop()
        self.checks.crashed(self, power)
        self._lose_memory(power)
        self._leave(power)

    def stop(self) -> None:
        """Stop the program in order."""
        if not self.up or self.paused:
            return
        self.world.note(self.name, "stops", None)
        try:
            if self.node.uplink is not None:
                machine.uplink_close(self.node, self.world.now)
            self.settle()
            if not self.up:
                return
            self.log.stop(clean=True)
        except Crashed:
            self.crash(self.fuse_power)
            return
        except StorageError as error:
            self.world.note(self.name, "stop failed", str(error))
        self._poll()
        self.up = False
        self.disk.fault = _refuse_all
        self.checks.crashed(self, False)
        self.disk.killed()
        self._leave(False)

    def wipe(self) -> None:
        """The card is replaced by an empty one. The program must be down."""
        self.world.note(self.name, "wiped", None)
        self.disk = FakeDisk()
        self.remembered = [("", "")]
        self._damaged = None

    def flip(self) -> None:
        """A bit of a file at rest flips. The program must be down."""
        random = self.world.random
        names = [name for name in self.disk.names if not name.endswith("/lock")]
        if not names:
            return
        name = random.choice(sorted(names))
        content = bytearray(self.disk.content(name))
        used = len(content.rstrip(b"\0"))
        if not used:
            return
        at = random.randrange(min(len(content), used + 64))
        content[at] ^= 1 << random.randrange(8)
        before = self.disk.copy()
        self.disk.put(name, bytes(content))
        if self._damaged is None:
            self._damaged = before
        self.world.note(self.name, "bit flipped", (name, at))

    def _lose_memory(self, power: bool) -> None:
        self.disk.locks.clear()
        if power:
            self.disk = self.disk.crashed(self.world.random)
            if len(self.remembered) > 1 and self.world.chance(0.3):
                self.remembered.pop()
        else:
            self.disk.killed()
        del self.remembered[:-2]

    def _leave(self, power: bool) -> None:
        """The connections of a program that is gone."""
        for known in self.peers.values():
            down = known.link.down
            if power:
                # Nothing says so; whoever dialled finds out when it sends to the restarted machine.
                down.lose(0)
                self.world.after(self.world.random.uniform(0.5, 8.0), down.send, FIN)
            else:
                down.lose(self.world.random.randrange(len(down.frames) + 1))
                down.send(FIN)
            known.link.up.closed = True
        self.peers.clear()
        self.subscribers.clear()
        self._hang_up(power)

    def pause(self) -> None:
        """The program is stopped, as by SIGSTOP."""
        if self.up and not self.paused:
            self.world.note(self.name, "paused", None)
            self.paused = True

    def resume(self) -> None:
        """The program goes on."""
        if not self.up or not self.paused:
            return
        self.world.note(self.name, "goes on", None)
        self.paused = False
        self.resumed = self.world.now
        # What has arrived is taken before the time is looked at.
        for known in list(self.peers.values()):
            known.link.up.drain()
            if not self._runs():
                return
        if self.link is not None:
            self.link.down.drain()
        self.updates.drain()
        if self._runs():
            self._poll()
        if self._runs():
            self._tick(self.run)
        if self._runs():
            self._write_soon()
            self._advance_soon()

    def _runs(self) -> bool:
        return self.up and not self.paused

    def reads(self) -> bool:
        """Whether it takes what comes."""
        return self._runs()

    # -- the disk ----------------------------------------------------------------------------------

    def _fault(self, what: str, path: str) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Crashed
        if what in ("write", "create", "allocate") and self.full:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        reads = what in ("read", "list", "open", "make_folder", "lock")
        if self.errors and not reads and self.world.chance(self.errors):
            self.world.note(self.name, "disk error", (what, path))
            raise OSError(errno.EIO, "Input/output error", path)

    def _write_soon(self) -> None:
        if self._writing:
            return
        delay: float | None = None
        if self.log.waiting:
            delay = self.world.random.expovariate(1.0) * self.setup.latency * self.slow
        else:
            delay = self.log.patience
        if delay is not None:
            self._writing = True
            self.world.after(delay, self._write, self.run)

    def _write(self, run: int) -> None:
        if run != self.run or not self.up:
            return
        self._writing = False
        if self.paused:
            return
        try:
            self.log.write()
        except Crashed:
            self.crash(self.fuse_power)
            return
        self._write_soon()
        self._advance_soon()

    def _advance_soon(self) -> None:
        if self.log.jobs and not self._advancing:
            self._advancing = True
            self.world.after(self.world.random.uniform(0.0, 0.01) * self.slow, self._advance, self.run)

    def _advance(self, run: int) -> None:
        if run != self.run or not self.up:
            return
        self._advancing = False
        if self.paused:
            return
        try:
            more = self.log.advance()
        except Crashed:
            self.crash(self.fuse_power)
            return
        if more:
            self._advance_soon()
        self._write_soon()

    def _wake(self) -> None:
        if not self._woken_soon:
            self._woken_soon = True
            self.world.after(self.world.random.choice((0.0, 0.0, 0.0005, 0.003)), self._woken, self.run)

    def _woken(self, run: int) -> None:
        if run == self.run and self._runs():
            self._poll()
            self.settle()

    def _poll(self) -> None:
        self._woken_soon = False
        now, node = self.world.now, self.node
        for event in self.log.poll():
            self.world.note(self.name, "log", event)
            if isinstance(event, tega_log.Durable):
                self.checks.durable(self, event.lsn)
                machine.durable(node, event.lsn, now)
            elif isinstance(event, tega_log.Failed):
                self.checks.durable(self, event.durable_lsn)
                machine.log_failed(node, event.reason, event.durable_lsn, now)
                self.checks.failed(self)
            elif isinstance(event, tega_log.SnapshotDone):
                self._snapshotting = False
                mended, self._mending = self._mending, False
                machine.snapshot_done(node, event.lsn, event.bytes, event.seconds, now, mended=mended)
            else:
                self._snapshotting = self._mending = False
                machine.snapshot_failed(node, event.reason, now)

    def _snapshot(self) -> None:
        if self._snapshotting:
            return
        self._snapshotting = True
        state = self.node.durable

        def chunks() -> Iterable[bytes]:
            return map(encode_chunk, store.dump(state))

        self._mending = self.node.failure is not None
        begin = self.log.restart if self._mending else self.log.snapshot
        self.world.note(self.name, "snapshot begins", self.node.durable_number)
        begin(self.node.durable_number, chunks)
        self._advance_soon()

    def mend(self) -> None:
        """An operator has a snapshot made, which begins a new log."""
        self.world.note(self.name, "an operator asks for a snapshot", None)
        self._snapshot()

    # -- events ------------------------------------------------------------------------------------

    def _tick(self, run: int) -> None:
        if run != self.run or not self.up:
            return
        self._tick_at = NEVER
        if not self.paused:
            if machine.next_deadline(self.node) <= self.world.now:
                machine.tick(self.node, self.world.now)
            self.settle()

    def frame_came_up(self, link: Link, frame: bytes | None) -> None:
        """Something came from a peer."""
        if frame is FIN:
            known = self.peers.pop(link.peer, None)
            if known is not None:
                self.world.note(self.name, "connection closed", link.dialer.name)
                machine.peer_gone(self.node, link.peer, self.world.now)
                self.settle()
            return
        self.take(link.peer, link.dialer.name, frame)

    def take(self, peer: bytes, who: str, frame: bytes) -> None:
        """A frame came from `peer`."""
        now, node = self.world.now, self.node
        try:
            message = decode(frame)
        except ProtocolError as error:
            machine.garbage(node, peer, error, request_id(frame), now)
        else:
            self.world.note(self.name, f"<- {who}", message)
            machine.receive(node, peer, message, now)
            self.checks.received(self, peer, message)
        self.settle()

    def settle(self) -> None:
        """Carry out what the node wants."""
        node = self.node
        while node.effects:
            for effect in machine.take_effects(node):
                self._carry_out(effect)
        if self.log.size_since_snapshot >= self.setup.snapshot_after and node.failure is None:
            self._snapshot()
        if self.log._events and not self._woken_soon:
            self._wake()
        self._write_soon()
        due = machine.next_deadline(node)
        if due < self._tick_at:
            self._tick_at = max(due, self.world.now + 0.0005)
            self.world.at(self._tick_at, self._tick, self.run)
        self.checks.settled(self)

    def _carry_out(self, effect: Effect) -> None:
        node, now = self.node, self.world.now
        if isinstance(effect, Send):
            try:
                data = encode(effect.message)
            except TegaError as error:
                machine.cannot_send(node, effect, error, now)
            else:
                self._send(effect.peer, data, effect.message)
        elif isinstance(effect, Append):
            number = self.log.append(encode_record(effect.record))
            self.checks.appended(self, effect.record, number)
        elif isinstance(effect, SendUp):
            try:
                data = encode(effect.message)
            except TegaError as error:
                machine.cannot_send(node, effect, error, now)
            else:
                self._send_up(data, effect.message)
        elif isinstance(effect, Publish):
            self.checks.published(self, effect.message)
            data = encode(effect.message)
            for agent in self.subscribers.get(effect.topic, ()):
                agent.published(effect.topic, data)
        elif isinstance(effect, Note):
            self.world.note(self.name, f"# {effect.event}", effect.fields)
            self.checks.noted(self, effect)
        elif isinstance(effect, Snapshot):
            self._snapshot()
        elif isinstance(effect, Redial):
            self._hang_up(False)
            self._redial(effect.delay)
        elif isinstance(effect, Topics):
            self._follow(effect.topics)
        elif isinstance(effect, RememberUplink):
            self.remembered.append((effect.session, effect.token))

    # -- peers -------------------------------------------------------------------------------------

    def accept(self, dialer: Dialer) -> Link:
        """Take a connection."""
        link = Link(self.world, dialer, self, b"%08x" % self.world.random.getrandbits(32))
        self.peers[link.peer] = _Peer(link)
        return link

    def _send(self, peer: bytes, data: bytes, message: m.AnyMessage) -> None:
        known = self.peers.get(peer)
        self.world.note(self.name, f"-> {known.link.dialer.name if known else '?'}", message)
        self.checks.sending(self, peer, message)
        if known is None:
            machine.peer_gone(self.node, peer, self.world.now)
            return
        if not known.queue:
            if not known.link.down.full:
                known.link.down.send(data)
                return
            machine.congested(self.node, peer)
        known.queue.append(data)
        known.size += len(data)
        if known.size > QUEUE:
            self.world.note(self.name, "gives up a connection", known.link.dialer.name)
            self._forget(known)

    def _forget(self, known: _Peer) -> None:
        known.queue.clear()
        known.size = 0
        machine.peer_gone(self.node, known.link.peer, self.world.now)

    def can_send(self, link: Link) -> None:
        """There is room in `link` again."""
        self.world.after(RETRY, self._flush, self.run, link.peer)

    def _flush(self, run: int, peer: bytes) -> None:
        known = self.peers.get(peer)
        if run != self.run or known is None or not known.queue:
            return
        if self.paused:
            self.world.after(RETRY, self._flush, run, peer)
            return
        while known.queue:
            if known.link.down.full:
                self.world.after(RETRY, self._flush, run, peer)
                return
            data = known.queue.popleft()
            known.size -= len(data)
            known.link.down.send(data)
        machine.drained(self.node, peer, self.world.now)
        self.settle()

    # -- the uplink --------------------------------------------------------------------------------

    def _redial(self, delay: float) -> None:
        self._dialling += 1
        self.world.after(delay, self._dial, self.run, self._dialling)

    def _dial(self, run: int, dialling: int) -> None:
        if run != self.run or not self.up or dialling != self._dialling:
            return
        assert self.to is not None
        if self.paused or self.way.cut:
            self.world.after(0.5, self._dial, run, dialling)
            return
        self._hang_up(False)
        now = self.world.now
        if self.to.up:
            self.link = self.to.accept(self)
            self.world.note(self.name, "connected", self.to.name)
            machine.uplink_connected(self.node, now)
        else:
            machine.uplink_lost(self.node, now)
        self.settle()

    def _hang_up(self, power: bool) -> None:
        link, self.link = self.link, None
        self._up_queue.clear()
        if link is not None:
            link.down.closed = True
            if not power:
                link.up.send(FIN)
            else:
                link.up.lose(0)
        self._detach()

    def _send_up(self, data: bytes, message: m.AnyMessage) -> None:
        self.world.note(self.name, "^ up", message)
        self.checks.sending(self, None, message)
        if self.link is None:
            return
        if self._up_queue or self.link.up.full:
            if len(self._up_queue) < UPLINK_QUEUE:
                self._up_queue.append(data)
                if len(self._up_queue) == 1:
                    self.world.after(RETRY, self._flush_up, self.run, self.link)
            return
        self.link.up.send(data)

    def _flush_up(self, run: int, link: Link) -> None:
        if run != self.run or link is not self.link or not self.up:
            return
        while self._up_queue and not link.up.full and not self.paused:
            link.up.send(self._up_queue.popleft())
        if self._up_queue:
            self.world.after(RETRY, self._flush_up, run, link)

    def frame_came(self, link: Link, frame: bytes | None) -> None:
        """Something came from the node above."""
        if link is not self.link:
            return
        if frame is FIN:
            self.world.note(self.name, "uplink closed", None)
            self.link = None
            link.up.closed = True
            self._detach()
            machine.uplink_lost(self.node, self.world.now)
        else:
            message = decode(frame)
            self.world.note(self.name, "<- above", message)
            machine.uplink_received(self.node, message, self.world.now)
        self.settle()

    # -- the publisher of the node above -----------------------------------------------------------

    def _updates_pipe(self) -> Pipe:
        way = self.changes_way
        return Pipe(self.world, way, lambda: way.cut_down or not self.reads(), self._update_came)

    def _follow(self, topics: frozenset[bytes]) -> None:
        assert self.to is not None
        for topic in topics - self.topics:
            self.world.after(self.changes_way.delay, self._subscribe, self.run, topic)
        if self.attached == (self.to.run,):
            for topic in self.topics - topics:
                self.to.subscribers.get(topic, {}).pop(self, None)
        self.topics = topics
        self._attach(self.run)

    def _attach(self, run: int) -> None:
        """Connect to the publisher, as often as it takes."""
        if run != self.run or not self.up or not self.topics or self.to is None:
            return
        if self.attached == (self.to.run,) and self.to.up and not self.changes_way.cut:
            return
        if self.to.up and not self.changes_way.cut:
            self.attached = (self.to.run,)
            for topic in sorted(self.topics):
                self.world.after(self.changes_way.delay, self._subscribe, run, topic)
        else:
            self._drop_updates()
        self.world.after(0.7, self._attach, run)

    def _subscribe(self, run: int, topic: bytes) -> None:
        """A subscription reaches the publisher."""
        assert self.to is not None
        if run != self.run or not self.up or topic not in self.topics or self.attached != (self.to.run,):
            return
        if self.to.up and self.to.paused:
            self.world.after(0.2, self._subscribe, run, topic)
        elif self.to.up and not self.changes_way.cut:
            self.to.subscribers.setdefault(topic, {})[self] = None
            self.world.note(self.to.name, "topic subscribed", self.name)
            machine.topic_subscribed(self.to.node, topic, self.world.now)
            self.to.settle()

    def _detach(self) -> None:
        """The sockets are closed: the subscriptions go with them."""
        self._drop_updates()
        self.topics = frozenset()

    def _drop_updates(self) -> None:
        if self.to is not None:
            for agents in self.to.subscribers.values():
                agents.pop(self, None)
        self.attached = ()
        self.updates.closed = True
        self.updates = self._updates_pipe()

    def published(self, topic: bytes, frame: bytes) -> None:
        """The node above published an update."""
        if self.changes_way.lossy and self.world.chance(self.changes_way.lossy):
            self.world.note(self.name, "update lost", None)
        elif not self.updates.full:
            self.updates.send((topic, frame))

    def _update_came(self, entry: tuple[bytes, bytes]) -> None:
        topic, frame = entry
        message = decode(frame)
        assert isinstance(message, m.RootUpdate)
        self.world.note(self.name, "<- update", message)
        machine.uplink_changes(self.node, topic, message, self.world.now)
        self.settle()

    def kick(self) -> None:
        """Something that held back what is on its way may have ended."""
        for known in self.peers.values():
            known.link.kick()
        if self.link is not None:
            self.link.kick()
        self.updates.kick()


def _refuse_all(what: str, path: str) -> None:
    raise Crashed
