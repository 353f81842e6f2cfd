"""The yardstick: the least that a Python server can do over ROUTER.

`python baseline.py kv FOLDER` is a durable key-value store: one poll loop, msgpack, a dict, and one fdatasync
for all the puts of a pass. `python baseline.py rpc` is a call router. Neither has sessions, versions, checks,
limits, retries or timeouts: what Tega costs more is the price of these. Each prints its endpoint and serves
until it is terminated.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgpack
import zmq

PUT, GET, WATCH = 1, 2, 3
OFFER, CALL, RESULT = 4, 5, 6

RESERVED = 256 * 1024 * 1024
"""Bytes of log that are allocated at once, as Tega allocates its segments: that makes a sync cheaper."""


def listen() -> tuple[zmq.Socket[Any], zmq.Poller]:
    """Return a listening ROUTER and its poller, and print the endpoint."""
    router = zmq.Context().socket(zmq.ROUTER)
    router.sndhwm = router.rcvhwm = 0
    router.bind("tcp://127.0.0.1:*")
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    print(router.last_endpoint.decode(), flush=True)
    return router, poller


def kv(folder: str) -> None:
    """Serve puts, gets and watchers."""
    router, poller = listen()
    fd = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.posix_fallocate(fd, 0, RESERVED)
    os.fsync(fd)
    at = 0
    tree: dict[str, tuple[int, Any]] = {}
    watchers: list[bytes] = []
    version = 0
    pack, unpack = msgpack.Packer().pack, msgpack.unpackb
    while True:
        poller.poll()
        batch: list[bytes] = []
        answers: list[tuple[bytes, bytes]] = []
        while True:
            try:
                peer, data = router.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            op, number, key, value = unpack(data)
            if op == PUT:
                version += 1
                tree[key] = (version, value)
                batch.append(data)
                answers.append((peer, pack((number, version))))
                if watchers:
                    told = pack((0, (key, value)))
                    answers += [(watcher, told) for watcher in watchers]
            elif op == GET:
                router.send_multipart((peer, pack((number, tree.get(key)))))
            else:
                watchers.append(peer)
                router.send_multipart((peer, pack((number, version))))
        if batch:
            at += os.pwrite(fd, b"".join(batch), at)
            if at > RESERVED - 1024 * 1024:
                at = 0
            os.fdatasync(fd)
            for answer in answers:
                router.send_multipart(answer)


def rpc() -> None:
    """Route calls to the one who offers the path, and results back."""
    router, poller = listen()
    handlers: dict[str, bytes] = {}
    calls: dict[int, tuple[bytes, int]] = {}
    last = 0
    pack, unpack = msgpack.Packer().pack, msgpack.unpackb
    while True:
        poller.poll()
        while True:
            try:
                peer, data = router.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            op, number, path, value = unpack(data)
            if op == CALL:
                last += 1
                calls[last] = (peer, number)
                router.send_multipart((handlers[path], pack((last, path, value))))
            elif op == RESULT:
                caller, asked = calls.pop(number)
                router.send_multipart((caller, pack((asked, value))))
            else:
                handlers[path] = peer
                router.send_multipart((peer, pack((number, None))))


if __name__ == "__main__":
    kv(sys.argv[2]) if sys.argv[1] == "kv" else rpc()
