"""What waits for a peer: in order, bounded, and never in the way of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tega_broker.bridge import outbox
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
        box = Outbox(peer.send, 100, lambda _: None)
        before = asyncio.all_tasks()
        for number in range(50):
            box.put(b"%d" % number)
        assert peer.got == [b"%d" % number for number in range(50)]
        assert asyncio.all_tasks() == before

    story(main)


def test_who_stops_for_a_while_misses_nothing() -> None:
    async def main() -> None:
        peer = Peer()
        box = Outbox(peer.send, 1000, lambda _: None)
        peer.reads.clear()
        for number in range(10):
            box.put(b"%d" % number)
        assert peer.got == [b"0"], "the others wait"
        await asyncio.sleep(0)
        peer.reads.set()
        await box.flush()
        assert peer.got == [b"%d" % number for number in range(10)]
        box.put(b"more")
        assert peer.got[-1] == b"more"

    story(main)


@pytest.mark.parametrize("patience", [0.0, 1000.0])
def test_who_does_not_read_is_told_of_once(patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", patience)

    async def main() -> None:
        peer = Peer()
        told: list[int] = []
        box = Outbox(peer.send, 100, lambda _: told.append(box.size))
        peer.reads.clear()
        for _ in range(1000):
            box.put(b"x" * 10)
        assert told == [110 if patience == 0.0 else 1610], "more than the limit; many times the limit"
        await box.close()
        box.put(b"late")
        assert peer.got == [b"x" * 10]

    story(main)


def test_who_reads_slowly_but_reads_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", 0.2)

    async def main() -> None:
        told: list[str] = []
        loop = asyncio.get_running_loop()

        async def slowly(_: bytes) -> None:
            await asyncio.sleep(0.05)

        box = Outbox(slowly, 100, told.append)
        end = loop.time() + 0.5
        while loop.time() < end:
            while box.size < 1000:
                box.put(b"x" * 99)
            await asyncio.sleep(0.01)
        assert told == []
        await box.close()

    story(main)


def test_without_anybody_to_tell_it_waits() -> None:
    async def main() -> None:
        peer = Peer()
        box = Outbox(peer.send)
        peer.reads.clear()
        for _ in range(100):
            box.put(b"x" * 10)
        assert box.size == 1000
        peer.reads.set()
        await box.flush()
        assert box.size == 0 and len(peer.got) == 100

    story(main)


def test_one_large_frame_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)

    async def main() -> None:
        peer = Peer()
        told: list[str] = []
        box = Outbox(peer.send, 100, told.append)
        peer.reads.clear()
        box.put(b"x" * 1000)
        assert told == []
        box.put(b"x")
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

        box = Outbox(send, 100, lambda _: None)
        for _ in range(5):
            box.put(b"x")
        assert sent == 2

        async def later(_: bytes) -> None:
            await asyncio.sleep(0)
            raise ConnectionResetError

        box = Outbox(later, 100, lambda _: None)
        box.put(b"x")
        await box.flush()
        box.put(b"y")
        await box.close()

    story(main)
