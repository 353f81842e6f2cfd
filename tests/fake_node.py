"""A small node on a real ROUTER, for tests of the client: a flat dict, and what a test scripts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import zmq

from tega_zmq.wire import decode, encode, unbundle
from tega_zmq.wire import messages as m
from tests.processes import until

__all__ = ["FakeNode"]


class FakeNode:
    """Use with `with`. `log` has every message that came, in order.

    `script[cls]` replaces what is done with a message.

    A script is called with (peer, message) and returns the reply's value, or None to answer nothing, or a
    message to send instead.
    """

    def __init__(
        self, endpoint: str = "tcp://127.0.0.1:*", lease: float = 15.0, heartbeat: float = 3.0
    ) -> None:
        self.endpoint = endpoint
        self.lease = lease
        self.heartbeat = heartbeat
        self.log: list[Any] = []
        self.script: dict[type[Any], Callable[[bytes, Any], Any]] = {}
        self.tree: dict[tuple[str, ...], Any] = {}
        self.version = 0
        self.sessions: dict[str, str] = {}  # session to tega_id
        self.peers: dict[str, bytes] = {}  # session to connection
        self.subscriptions: dict[int, Any] = {}
        self.listens: dict[int, Any] = {}
        self.handlers: dict[tuple[str, ...], bytes] = {}
        self.calls: dict[int, tuple[bytes, int]] = {}
        self.serial = 0
        self.url = ""
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], threading.Event]] = queue.SimpleQueue()
        self._stop = False
        self._came = threading.Condition()
        self._thread: threading.Thread | None = None
        self._context = zmq.Context()

    # -- for the test -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._context.destroy(linger=0)

    def start(self) -> None:
        """Listen; after `stop`, at the same address again."""
        self._stop = False
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        """Close the socket, and with it all connections; sessions are kept."""
        self._stop = True
        if self._thread is not None:
            self._thread.join(10)
        self._thread = None

    def forget(self) -> None:
        """Lose all sessions with what they own, as a node does whose disk is gone."""
        self.sessions.clear()
        self.peers.clear()
        self.subscriptions.clear()
        self.listens.clear()
        self.handlers.clear()

    def do(self, job: Callable[[], Any]) -> None:
        """Run `job` in the node's thread, and wait for it."""
        done = threading.Event()
        self._jobs.put((job, done))
        assert done.wait(10)

    def wait_for(self, found: Callable[[], bool]) -> None:
        """Wait until `found()` is true; it is looked at after every message."""
        with self._came:
            assert self._came.wait_for(found, 20), self.log[-10:]

    def came(self, cls: type[Any]) -> list[Any]:
        """Return the messages of class `cls` that came."""
        return [each for each in self.log if type(each) is cls]

    def send(self, session: str, message: Any) -> None:
        """Send `message` to `session`. In the node's thread only."""
        self.socket.send_multipart([self.peers[session], encode(message)])

    def everyone(self, message: Any) -> None:
        """Send `message` to every session, from any thread."""
        self.do(lambda: [self.send(session, message) for session in self.peers])

    def commit(self, path: tuple[str, ...], value: Any) -> None:
        """Change the tree, and tell who has subscribed. In the node's thread only."""
        old = self.tree.get(path)
        self.tree[path] = value
        self.version += 1
        changes = ((path, (old,) if old is not None else (), (value,), ""),)
        for number, (peer, root) in list(self.subscriptions.items()):
            if root == path[0]:
                change = m.Changed(
                    number, root, "e", self.version - 1, self.version, 1.0, "x", "", None, False, changes
                )
                self.socket.send_multipart([peer, encode(change)])

    # -- the node's thread --------------------------------------------------------------------------

    def _bind(self) -> bool:
        try:
            self.socket.bind(self.url or self.endpoint)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or not self.url:
                raise
            return False
        return True

    def _run(self, ready: threading.Event) -> None:
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        until(self._bind, "the address is free again: libzmq closes a socket in a thread of its own")
        self.url = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        ready.set()
        while not self._stop:
            while not self._jobs.empty():
                job, done = self._jobs.get()
                job()
                done.set()
            if self.socket.poll(5):
                peer, data = self.socket.recv_multipart()
                for frame in unbundle(data):
                    message = decode(frame)
                    self.log.append(message)
                    answer = self._handle(peer, message)
                    if answer is not None:
                        self.socket.send_multipart([peer, encode(answer)])
                with self._came:
                    self._came.notify_all()
        self.socket.close()

    def _handle(self, peer: bytes, message: Any) -> Any:
        cls = type(message)
        if cls in self.script:
            answer = self.script[cls](peer, message)
        else:
            handle = getattr(self, "on_" + cls.__name__.lower(), None)
            answer = handle(peer, message) if handle is not None else [None]
        if cls in m.REQUESTS and isinstance(answer, list):
            return m.Reply(message.id, answer[0])
        return answer if isinstance(answer, tuple) else None

    def on_hello(self, peer: bytes, message: m.Hello) -> Any:
        resumed = message.session in self.sessions
        if resumed:
            session = message.session
        else:
            self.serial += 1
            session = f"session-{self.serial}"
            self.sessions[session] = message.tega_id
        self.peers[session] = peer
        return m.Welcome(
            1, session, "token", resumed, "fake", "run", self.lease, self.heartbeat, ":1", 1 << 20
        )

    def on_heartbeat(self, _peer: bytes, message: m.Heartbeat) -> Any:
        return message

    def on_get(self, _peer: bytes, message: m.Get) -> Any:
        if message.path not in self.tree:
            text = ".".join(message.path)
            return m.Failure(message.id, "NotFound", f"{text}: nothing stands there", {"path": text})
        value = self.tree[message.path]
        if message.form == "node":
            return [[value, self.version, False, "e", None, False]]
        return [[value, None]]

    def on_write(self, _peer: bytes, message: m.Write) -> Any:
        for kind, path, value, expected, _ in message.ops:
            if expected is not None and expected != self.version and not message.txid:
                fields = {"path": ".".join(path), "expected": expected, "actual": self.version}
                return m.Failure(message.id, "Collision", "another version", fields)
            if kind == "delete":
                self.tree.pop(path, None)
            elif not message.txid:
                self.commit(path, value)
        return [None] if message.txid else [[self.version, [[message.ops[0][1][0], self.version]]]]

    def on_begin(self, _peer: bytes, _message: m.Begin) -> Any:
        return ["tx-1"]

    def on_candidate(self, _peer: bytes, _message: m.Candidate) -> Any:
        return [[[["a", {"b": 1}]], [[["a", "b"], [], [1]]]]]

    def on_committransaction(self, _peer: bytes, _message: Any) -> Any:
        return [[7, [["a", 3]]]]

    def on_log(self, _peer: bytes, _message: m.Log) -> Any:
        return [[[3, 1.0, "noc-1", "why", None, [[["a", "b"], [1]]]]]]

    def on_diff(self, _peer: bytes, _message: m.Diff) -> Any:
        return [[[["b"], [], [1]]]]

    def on_find(self, _peer: bytes, _message: m.Find) -> Any:
        return [[[["a", "b"], [["b"]], 1]]]

    def on_inspect(self, _peer: bytes, message: m.Inspect) -> Any:
        return [{"what": message.what}]

    def on_manage(self, _peer: bytes, message: m.Manage) -> Any:
        return [{"what": message.what, "argument": message.argument}]

    def on_subscribe(self, peer: bytes, message: m.Subscribe) -> Any:
        root = message.path[0]
        self.subscriptions[message.subscription] = (peer, root)
        positions = message.since or ((root, "e", self.version),)
        self.socket.send_multipart([peer, encode(m.Reply(message.id, [list(p) for p in positions]))])
        for _, _, version in message.since:
            if version < self.version:
                changes = tuple((p, (), (v,), "") for p, v in self.tree.items() if p[0] == root)
                reset = m.Changed(
                    message.subscription, root, "e", version, self.version, 1.0, "", "", None, True, changes
                )
                self.socket.send_multipart([peer, encode(reset)])

    def on_subscriberegex(self, peer: bytes, message: m.SubscribeRegex) -> Any:
        self.subscriptions[message.subscription] = (peer, message.regex)
        return [[]]

    def on_listen(self, peer: bytes, message: m.Listen) -> Any:
        self.listens[message.subscription] = (peer, message.channel)
        return [[]]

    def on_unsubscribe(self, _peer: bytes, message: m.Unsubscribe) -> Any:
        self.subscriptions.pop(message.subscription, None)
        self.listens.pop(message.subscription, None)
        return [None]

    def on_publish(self, _peer: bytes, message: m.Publish) -> Any:
        for number, (peer, channel) in self.listens.items():
            if channel == message.channel:
                answer = m.Message((number,), channel, "x", message.value)
                self.socket.send_multipart([peer, encode(answer)])
        return [len(self.listens)]

    def on_register(self, peer: bytes, message: m.Register) -> Any:
        self.handlers[message.path] = peer
        return [None]

    def on_call(self, peer: bytes, message: m.Call) -> Any:
        handler = self.handlers.get(message.path)
        if handler is None:
            return m.Failure(message.id, "NoHandler", "nobody", {"path": ".".join(message.path)})
        number = len(self.calls) + 1
        self.calls[number] = (peer, message.id)
        invoke = m.Invoke(number, message.path, message.args, message.kwargs, message.timeout, "x")
        self.socket.send_multipart([handler, encode(invoke)])
        return None

    def on_callall(self, _peer: bytes, message: m.CallAll) -> Any:
        return [
            [
                [["a", "f"], "pi1", True, list(message.args)],
                [["a", "f"], "pi2", False, ["HandlerGone", "", {}]],
            ]
        ]

    def on_result(self, _peer: bytes, message: m.Result) -> Any:
        peer, number = self.calls[message.call]
        if message.ok:
            answer: Any = m.Reply(number, message.value)
        else:
            kind, text = message.value
            answer = m.Failure(number, "HandlerError", f"{kind}: {text}", {"type": kind, "text": text})
        self.socket.send_multipart([peer, encode(answer)])
