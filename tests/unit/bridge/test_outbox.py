"""What waits for a peer: in order, bounded, and never in the way of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tega_broker.bridge.outbox import Outbox


def story(what: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(what(), 10))


class Peer:
    """Takes frames while it reads."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def send(self, frame: bytes) -> None:
        self.got.append(frame)
        await self.reads.wait()


def test_who_reads_gets_all_at_once_without_a_task() -> None:
    async def main() -> None:
        peer = Peer()
        outbox = Outbox(peer.send, 100, lambda _: None)
        before = asyncio.all_tasks()
        for number in range(50):
            outbox.put(b"%d" % number)
        assert peer.got == [b"%d" % number for number in range(50)]
        assert asyncio.all_tasks() == before

    story(main)


def test_who_stops_for_a_while_misses_nothing() -> None:
    async def main() -> None:
        peer = Peer()
        outbox = Outbox(peer.send, 1000, lambda _: None)
        peer.reads.clear()
        for number in range(10):
            outbox.put(b"%d" % number)
        assert peer.got == [b"0"], "the others wait"
        await asyncio.sleep(0)
        peer.reads.set()
        await outbox.flush()
        assert peer.got == [b"%d" % number for number in range(10)]
        outbox.put(b"more")
        assert peer.got[-1] == b"more"

    story(main)


def test_who_does_not_read_is_told_of_once() -> None:
    async def main() -> None:
        peer = Peer()
        told: list[str] = []
        outbox = Outbox(peer.send, 100, told.append)
        peer.reads.clear()
        for _ in range(100):
            outbox.put(b"x" * 10)
        assert len(told) == 1 and "100 bytes" in told[0]
        await outbox.close()
        outbox.put(b"late")
        assert peer.got == [b"x" * 10]

    story(main)


def test_one_large_frame_is_no_reason() -> None:
    async def main() -> None:
        peer = Peer()
        told: list[str] = []
        outbox = Outbox(peer.send, 100, told.append)
        peer.reads.clear()
        outbox.put(b"x" * 1000)
        assert told == []
        outbox.put(b"x")
        assert len(told) == 1

    story(main)


def test_a_connection_that_is_gone_ends_it() -> None:
    async def main() -> None:
        sent = 0

        async def send(_: bytes) -> None:
            nonlocal sent
            sent += 1
            if sent == 2:
                raise ConnectionResetError

        outbox = Outbox(send, 100, lambda _: None)
        for _ in range(5):
            outbox.put(b"x")
        assert sent == 2

        async def later(_: bytes) -> None:
            await asyncio.sleep(0)
            raise ConnectionResetError

        outbox = Outbox(later, 100, lambda _: None)
        outbox.put(b"x")
        await outbox.flush()
        outbox.put(b"y")
        await outbox.close()

    story(main)
