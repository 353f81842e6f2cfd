"""The poller loop: one thread that owns the sockets, feeds the node and carries out its effects.

It never touches the disk: records go to the log's writer thread, which wakes the poller through an eventfd
when they are durable.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import zmq
import zmq.backend

from tega_zmq import log as tega_log
from tega_zmq import store
from tega_zmq.client.link import readable
from tega_zmq.errors import ProtocolError, TegaError
from tega_zmq.log.records import encode_chunk, record_encoder
from tega_zmq.node import machine
from tega_zmq.node.effects import (
    Append,
    Effect,
    Note,
    Publish,
    ReadHistory,
    Redial,
    Reload,
    RememberUplink,
    Send,
    SendUp,
    Snapshot,
    Topics,
)
from tega_zmq.node.replication import TOPIC
from tega_zmq.node.state import Node
from tega_zmq.runtime.historian import Historian
from tega_zmq.runtime.poller import Poller
from tega_zmq.runtime.sockets import bound, cut, publisher_socket, router_socket
from tega_zmq.runtime.uplink import Uplink
from tega_zmq.tunnel.urls import Tls
from tega_zmq.wire import bundle, decode, encode, request_id, unbundle
from tega_zmq.wire.messages import RootUpdate

__all__ = ["Hooks", "Loop"]

_ROUTED = int(zmq.DONTWAIT | zmq.SNDMORE)
_NOW = int(zmq.DONTWAIT)
_send: Any = zmq.backend.Socket.send
"""As `Socket.send`, without what that does for tracking and serializing: it is the hottest call of all."""

_recv: Any = zmq.backend.Socket.recv
_option: Any = zmq.backend.Socket.get
_MORE = int(zmq.RCVMORE)

_FRAMES = 8
"""Most frames of one message, of which only the last counts."""

_SKIP = 1024
"""Most frames of a longer message that are dropped in one pass: some milliseconds of work."""

_STRANGE = 10_000
"""Most subscriptions to topics that were not handed out. Each takes some 3 kB within libzmq."""

_SAY_AGAIN = 10.0
"""Seconds between two log lines about what a peer can do as often as it likes."""

_DRAIN = 256
"""Most messages that are taken from a socket before their effects are carried out."""

_FOLLOW = 0.25
"""Seconds after which the history thread is given the store, when little is written."""

_LONGEST = 1.0
"""Seconds that the loop sleeps at most."""

_STOPPING = 0.05
"""The same when it is to stop."""

_MEASURE = 0.1
"""Seconds after which it is looked again whether a snapshot is due."""

_SNAPSHOT_AGAIN = 30.0
"""The same after one failed."""

_RETRY = 0.02
"""Seconds after which a send to a congested peer is tried again."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Hooks:
    """What a program adds to the loop; each is called in the loop's thread."""

    def reload(self) -> None:
        """Load the plugins anew."""

    def hang_up(self) -> None:
        """`Loop.hang_up` was called: read anew what can be."""

    def remember_uplink(self, session: str, token: str) -> None:
        """Keep the uplink's session for the next start."""

    def idle(self) -> None:
        """Nothing is to be done for a while: a good time for housekeeping."""


class _Queue:
    """What waits for a peer that does not read."""

    __slots__ = ("frames", "size")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.size = 0


class Loop:
    """Runs a `Node` over its sockets and its log until `stop` is called."""

    def __init__(
        self,
        node: Node,
        writer: tega_log.LogThread,
        wake: int,
        *,
        context: zmq.Context[Any],
        requests: Sequence[str],
        changes: str | None,
        uplink: list[str] | None,
        queue: int,
        snapshot_after: int,
        logger: logging.Logger,
        hooks: Hooks,
        tls: Tls | None = None,
        better: float = 60.0,
        historian: Historian | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wake` is the eventfd that the writer thread writes to; sizes are bytes. Of `tls` see `Uplink`."""
        self.node = node
        self._writer = writer
        self._wake = wake
        self._historian = historian
        self._followed = node.durable
        """What the history thread was given last."""
        self._followed_number = node.durable_number
        self._follow_at = 0.0
        self._follow_after = max(1, node.durable.kept.updates // 2)
        self._queue_limit = queue
        self._snapshot_after = snapshot_after
        self._measure_at = 0.0
        """When it is looked next whether a snapshot is due."""
        self._log = logger
        self._hooks = hooks
        self._now = now
        self._poller = Poller()
        self._router, self._monitor, self.requests = router_socket(context, requests)
        """`requests`: where it listens for sessions, ports as the system gave them."""
        self._publisher = publisher_socket(context, changes) if changes is not None else None
        self.changes = bound(self._publisher) if self._publisher is not None else None
        self._poller.register(self._router)
        self._poller.register(self._monitor)
        self._poller.register(wake)
        if self._publisher is not None:
            self._poller.register(self._publisher)
        self._link = Uplink(context, self._poller, uplink, tls, better) if uplink else None
        self._dial_at: float | None = 0.0 if uplink else None
        self._peers: dict[bytes, int] = {}
        self._by_fd: dict[int, bytes] = {}
        self._gone: list[bytes] = []
        """Peers whose connection was lost, of which the node was not told yet."""
        self._queues: dict[bytes, _Queue] = {}
        self._single = False
        """What was there when the socket was emptied last was one message."""
        self._skipping = False
        """The rest of a message of too many frames is still to be dropped."""
        self._strange: set[bytes] = set()
        """Topics that are subscribed to and were not handed out."""
        self._said: dict[str, float] = {}
        """When `_say` wrote a line last."""
        self._encode = record_encoder()
        self._records: list[bytes] = []
        """What goes to the log's writer at the end of this pass."""
        self._retry_at = float("inf")
        self._snapshotting = False
        self._mending = False
        """Whether the snapshot that is being written begins a new log after a failure."""
        self._stopping = self._hung_up = False
        node.numbers = self._numbers

    def _numbers(self) -> dict[str, Any]:
        """What the listing `status` tells beside what the node knows."""
        queues = self._queues.values()
        return {
            "sync": self._writer.syncs._asdict(),
            **({"history": self._historian.status} if self._historian is not None else {}),
            "sending": {"peers": len(queues), "bytes": sum(queue.size for queue in queues)},
        }

    # -- running -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End `run` soon. May be called from a signal handler or another thread."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def hang_up(self) -> None:
        """Call the hook of that name soon. May be called from a signal handler or another thread."""
        self._hung_up = True
        os.eventfd_write(self._wake, 1)

    def run(self, *, before_closing: Callable[[Callable[[], None]], None]) -> None:
        """Run until `stop`; then end in order.

        `before_closing` is called while sessions are still served, with a function that makes one pass of
        the loop. Then the uplink's session ends and the sockets close; what they still hold is sent.
        """
        try:
            while not self._stopping:
                self._once()
            before_closing(self._once)
            self._finish()
        finally:
            self._close()

    def _once(self) -> None:
        now = self._now()
        due = machine.next_deadline(self.node)
        if self._retry_at < due:
            due = self._retry_at
        if self._dial_at is not None and self._dial_at < due:
            due = self._dial_at
        wait = due - now
        if wait <= 0 or self._gone:
            wait = 0.0
        else:
            longest = _STOPPING if self._stopping else _LONGEST
            if wait > longest:
                wait = longest
        if self._records:
            self._hand_over()
        ready = self._poller.poll(wait)
        now = self._now()
        for source in ready:
            if source is self._router:
                self._receive(now, self._single and self._poller.slept)
            elif source == self._wake:
                self._woken(now)
            elif source is self._monitor:
                self._watch()
            elif source is self._publisher:
                self._subscribed(now)
        if self._gone:
            self._let_go(now)
        if self._link is not None:
            self._uplink(now)
        if now >= due:
            machine.tick(self.node, now)
        if self._retry_at <= now:
            self._flush(now)
        self._run_effects(now)
        machine.let_go(self.node)
        if self._historian is not None and self.node.durable is not self._followed:
            self._follow(now)
        if self._measure_at <= now:
            self._measure(now)
        if not ready and not self.node.walks:
            self._hooks.idle()

    def _follow(self, now: float) -> None:
        """Give the durable store to the history thread, before it lets go of what that lacks."""
        node = self.node
        if (
            node.durable_number - self._followed_number >= self._follow_after
            or now >= self._follow_at
            or self._followed_number < node.take_in <= node.durable_number
        ):
            assert self._historian is not None
            self._historian.follow(node.durable)
            self._followed, self._followed_number = node.durable, node.durable_number
            self._follow_at = now + _FOLLOW

    def _measure(self, now: float) -> None:
        """Begin a snapshot if the log has grown for long enough."""
        self._measure_at = now + _MEASURE
        if self._writer.size_since_snapshot >= self._snapshot_after and self.node.failure is None:
            self._snapshot()

    def _hand_over(self) -> None:
        """Give the records of the last pass to the writer.

        It wakes up, and wants the interpreter: so the last thing before this thread sleeps.
        """
        records, self._records = self._records, []
        self._writer.append(*records)

    def _finish(self) -> None:
        if self.node.uplink is not None:
            machine.uplink_close(self.node, self._now())
        self._run_effects(self._now())
        if self._records:
            self._hand_over()
        if self._historian is not None:
            self._historian.follow(self.node.durable)

    def _close(self) -> None:
        if self._link is not None:
            self._link.close(linger=500)
        self._router.disable_monitor()
        self._router.close()
        if self._publisher is not None:
            self._publisher.close()
        self._poller.close()

    # -- events ------------------------------------------------------------------------------------

    def _receive(self, now: float, single: bool = False) -> None:
        """Take the messages that came; `single`: one, and the poller is to see whether there are more.

        It asks the socket once before it sleeps, after all that is sent. Where messages come one at a time
        that is enough; where they come many at a time, what is carried out together costs less.
        """
        router, node, peers = self._router, self.node, self._peers
        left = 1 if single else _DRAIN
        if self._skipping and not (self._skip() and readable(router)):
            return
        while True:
            try:
                peer = _recv(router, _NOW)
            except zmq.Again:  # what the poller saw was no message
                self._poller.emptied(router)
                return
            if peer in peers:
                frame = _recv(router, _NOW, False)
                data = frame.bytes
                more = frame.more
            else:
                data, more = self._meet(peer)
            frames = 1
            while more:
                frame = router.recv(_NOW, copy=False)
                data, more = frame.bytes, frame.more
                frames += 1
                if more and frames == _FRAMES:
                    # It may have millions. What it has is in memory by now; but not all at once is dropped.
                    cut(frame)
                    self._say("connection cut: a message of too many frames", now, limit=_FRAMES)
                    self._skipping = True
                    self._poller.used(router)
                    return
            for each in unbundle(data):
                left -= 1
                try:
                    message = decode(each)
                except ProtocolError as error:
                    machine.garbage(node, peer, error, request_id(each), now)
                else:
                    machine.receive(node, peer, message, now)
            if left <= 0:
                self._poller.used(router)
                return
            if not readable(router):
                self._poller.emptied(router)
                self._single = left == _DRAIN - 1
                return

    def _skip(self) -> bool:
        """Drop frames of a message that has too many; return whether that was its end."""
        router = self._router
        for _ in range(_SKIP):
            _recv(router, _NOW)
            if not _option(router, _MORE):
                self._skipping = False
                return True
        return False

    def _say(self, event: str, now: float, **fields: Any) -> None:
        """Write a line about what peers can bring about at any rate, but not at any rate."""
        if now - self._said.get(event, -_SAY_AGAIN) >= _SAY_AGAIN:
            self._said[event] = now
            self._log.warning(event, extra={"fields": fields})

    def _meet(self, peer: bytes) -> tuple[bytes, bool]:
        """Take the first frame of a new connection, and note the descriptor that it came on.

        Descriptors are used again: whatever the monitor knows of earlier connections is taken first.
        """
        frame = self._router.recv(copy=False)
        self._watch()
        try:
            fd = frame.get(zmq.SRCFD)
        except zmq.ZMQError:
            fd = -1
        self._peers[peer] = fd
        self._by_fd[fd] = peer
        return frame.bytes, frame.more

    def _watch(self) -> None:
        while True:
            try:
                frames = self._monitor.recv_multipart(_NOW)
            except zmq.Again:
                return
            _, fd = struct.unpack_from("=Hi", frames[0])
            peer = self._by_fd.pop(fd, None)
            if peer is not None:
                self._gone.append(peer)

    def _let_go(self, now: float) -> None:
        """Tell the node of the connections that were lost, after what still came on them: a Bye above all."""
        gone, self._gone = self._gone, []
        if readable(self._router):
            self._receive(now)
        for peer in gone:
            self._lost(peer, now)

    def _lost(self, peer: bytes, now: float) -> None:
        fd = self._peers.pop(peer, None)
        if fd is not None and self._by_fd.get(fd) == peer:
            del self._by_fd[fd]
        self._queues.pop(peer, None)
        machine.peer_gone(self.node, peer, now)

    def _subscribed(self, now: float) -> None:
        assert self._publisher is not None
        for _ in range(_DRAIN):
            try:
                frame = self._publisher.recv(_NOW, copy=False)
            except zmq.Again:
                return
            data = frame.bytes
            topic = data[1:]
            if data[:1] != b"\x01":
                self._strange.discard(topic)
            elif len(topic) != TOPIC:
                # A shorter one stands for all topics that begin so. They are random, and each is told only to
                # who may hear it.
                cut(frame)
                self._say("connection cut: a subscription to no topic", now, size=len(topic), expected=TOPIC)
            elif not machine.topic_subscribed(self.node, topic, now):
                if len(self._strange) < _STRANGE:
                    self._strange.add(topic)
                elif topic not in self._strange:
                    # With the connection libzmq forgets what was subscribed to on it.
                    cut(frame)
                    self._say("connection cut: subscriptions to unknown topics", now, limit=_STRANGE)

    def _woken(self, now: float) -> None:
        os.eventfd_read(self._wake)
        if self._hung_up:
            self._hung_up = False
            self._hooks.hang_up()
        if self._historian is not None:
            for number, result in self._historian.poll():
                machine.history_read(self.node, number, result, now)
        for event in self._writer.poll():
            if isinstance(event, tega_log.Durable):
                self._durable(event.lsn, now)
            elif isinstance(event, tega_log.Failed):
                self._durable(event.durable_lsn, now)
                machine.log_failed(self.node, event.reason, event.durable_lsn, now)
            elif isinstance(event, tega_log.Waits):
                self._log.warning("writes wait: the log can open no file", extra={"fields": event._asdict()})
            elif isinstance(event, tega_log.SnapshotDone):
                self._snapshotting = False
                mended, self._mending = self._mending, False
                machine.snapshot_done(self.node, event.lsn, event.bytes, event.seconds, now, mended=mended)
            elif isinstance(event, tega_log.SnapshotFailed):
                self._snapshotting = self._mending = False
                self._measure_at = now + _SNAPSHOT_AGAIN
                machine.snapshot_failed(self.node, event.reason, now)

    def _durable(self, number: int, now: float) -> None:
        """The log is durable up to record `number`: show it, in steps that the history can follow."""
        node = self.node
        while self._historian is not None and number - node.durable_number > self._follow_after:
            machine.durable(node, node.durable_number + self._follow_after, now)
            self._follow(now)
        machine.durable(node, number, now)

    def _uplink(self, now: float) -> None:
        link, node = self._link, self.node
        assert link is not None
        happened = link.happened(now)
        if happened == "up":
            node.hears_topics = link.hears_topics
            machine.uplink_connected(node, now)
        for data in link.receive():
            for each in unbundle(data):
                try:
                    message = decode(each)
                except ProtocolError as error:
                    self._log.warning(
                        "bad message from the node above", extra={"fields": {"error": str(error)}}
                    )
                else:
                    machine.uplink_received(node, message, now)
        for topic, data in link.updates():
            try:
                message = decode(data)
            except ProtocolError as error:
                self._log.warning("bad update from the node above", extra={"fields": {"error": str(error)}})
            else:
                if isinstance(message, RootUpdate):
                    machine.uplink_changes(node, topic, message, now)
        if happened == "down":
            machine.uplink_lost(node, now)
        if link.flush():
            self._retry_at = min(self._retry_at, now + _RETRY)
        if self._dial_at is not None and now >= self._dial_at:
            self._dial_at = None
            if not link.dial():
                machine.uplink_lost(node, now)

    # -- effects -----------------------------------------------------------------------------------

    def _run_effects(self, now: float) -> None:
        node = self.node
        while node.effects:
            outgoing: dict[bytes, list[bytes]] = {}
            """The frames for each connection: what leaves together costs little more than one."""
            upwards: list[bytes] = []
            message: Any = None
            data = b""
            for effect in machine.take_effects(node):
                kind = type(effect)
                if kind is Send or kind is SendUp:
                    if effect.message is not message:  # type: ignore[union-attr]  # what many are told, in a row
                        message = effect.message  # type: ignore[union-attr]
                        try:
                            data = encode(message)
                        except TegaError as error:
                            message = None
                            machine.cannot_send(node, effect, error, now)  # type: ignore[arg-type]
                            continue
                    if kind is SendUp:
                        upwards.append(data)
                    elif (frames := outgoing.get(effect.peer)) is not None:  # type: ignore[union-attr]
                        frames.append(data)
                    else:
                        outgoing[effect.peer] = [data]  # type: ignore[union-attr]
                elif kind is Append:
                    self._records.append(self._encode(effect.record))  # type: ignore[union-attr]
                elif kind is Publish:
                    self._publish(effect)  # type: ignore[arg-type]
                elif kind is Note:
                    self._note(effect)  # type: ignore[arg-type]
                else:
                    if upwards:
                        self._send_up(upwards)
                        upwards = []
                    self._rare(effect, now)
            if upwards:
                self._send_up(upwards)
            if outgoing:
                self._poller.used(self._router)
            for peer, frames in outgoing.items():
                for each in bundle(frames) if len(frames) > 1 else frames:
                    self._send(peer, each, now)

    def _rare(self, effect: Effect, now: float) -> None:
        if isinstance(effect, Redial):
            assert self._link is not None
            self._link.close()
            self._dial_at = now + effect.delay
        elif isinstance(effect, Topics):
            assert self._link is not None
            self._link.follow(effect.endpoint, effect.topics)
        elif isinstance(effect, Snapshot):
            self._snapshot()
        elif isinstance(effect, RememberUplink):
            self._hooks.remember_uplink(effect.session, effect.token)
        elif isinstance(effect, ReadHistory):
            assert self._historian is not None
            self._historian.read(effect.number, effect.want, self.node.durable)
        elif isinstance(effect, Reload):
            self._hooks.reload()

    def _send_up(self, frames: list[bytes]) -> None:
        assert self._link is not None
        for data in bundle(frames):
            self._link.send(data)

    def _send(self, peer: bytes, data: bytes, now: float) -> None:
        queue = self._queues.get(peer)
        if queue is None:
            try:
                _send(self._router, peer, _ROUTED)  # fails here, if at all, and then nothing is sent
                _send(self._router, data, _NOW)
                return
            except zmq.Again:
                queue = self._queues[peer] = _Queue()
                machine.congested(self.node, peer)
                self._retry_at = min(self._retry_at, now + _RETRY)
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._lost(peer, now)
                return
        queue.frames.append(data)
        queue.size += len(data)
        if queue.size > self._queue_limit:
            self._log.warning(
                "connection given up: its queue is full",
                extra={"fields": {"queued": queue.size, "limit": self._queue_limit}},
            )
            self._lost(peer, now)

    def _flush(self, now: float) -> None:
        """Try again to send what waits for congested peers."""
        self._poller.used(self._router)
        for peer, queue in list(self._queues.items()):
            try:
                while queue.frames:
                    _send(self._router, peer, _ROUTED)
                    _send(self._router, queue.frames[0], _NOW)
                    queue.size -= len(queue.frames.popleft())
            except zmq.Again:
                continue
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._lost(peer, now)
                continue
            del self._queues[peer]
            machine.drained(self.node, peer, now)
        self._retry_at = now + _RETRY if self._queues else float("inf")

    def _publish(self, effect: Publish) -> None:
        if self._publisher is None:
            return
        try:
            data = encode(effect.message)
        except TegaError:
            return  # too large: the followers see from the heartbeats what they lack, and pull the tree
        self._poller.used(self._publisher)
        self._publisher.send_multipart((effect.topic, data), _NOW)

    def _note(self, effect: Note) -> None:
        self._log.log(_LEVELS[effect.level], effect.event, extra={"fields": effect.fields})

    def _snapshot(self) -> None:
        if self._snapshotting:
            return
        self._snapshotting = True
        state, historian = self.node.durable, None if self.node.failure is not None else self._historian

        def chunks() -> Any:
            # In the snapshot's thread. What the snapshot stands for will not be read from the log any more,
            # so the history must have it. Not while the log has failed: nothing is to be held up then.
            problem = historian.settle(state) if historian is not None else ""
            if problem:
                raise OSError(f"the history cannot be written: {problem}")
            return map(encode_chunk, store.dump(state))

        self._mending = self.node.failure is not None
        if self._mending:
            self._writer.restart(self.node.durable_number, chunks)
        else:
            self._writer.snapshot(self.node.durable_number, chunks)
