"""Server-Sent Events: `GET /a/b/?watch=1&from_version=N` follows the changes at, below and above a path.

One event a commit; its id names epoch and version, so that who comes back with `Last-Event-ID` goes on where
he was, without a gap: the broker sends what lies between, or the answer is 410 if that is not kept any more.
A stream whose peer reads more slowly than changes come does the same itself: what waits here is bounded, and
the rest stays at the broker until the peer has it.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from tega_broker.bridge.answers import BadRequest, dump
from tega_broker.bridge.outbox import Outbox
from tega_broker.bridge.reading import flag, oids, parse_query, split_target, tega_id_of
from tega_broker.bridge.rest_data import place
from tega_broker.bridge.textprotocol import entry
from tega_zmq.client.results import Change
from tega_zmq.errors import Compacted, NotFound, TegaError
from tega_zmq.paths import Path

if TYPE_CHECKING:
    from tega_broker.bridge.app import Bridge
    from tega_zmq.aio import Client, Subscription

__all__ = ["Streams"]

_NUMBER: Final = re.compile(r"-?\d{1,18}")
_ID: Final = re.compile(r"([0-9A-Za-z]{1,64})-(\d{1,18})")
_NOTHING: Final = ("", -1)
_LOOK: Final = 1.0
"""Seconds between two looks whether the peer is still there."""

_RETRY: Final = 1000
"""Milliseconds after which a browser comes back."""


class Streams:
    """All event streams of a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.open: set[_Stream] = set()
        bridge.on_stop.append(self._stop)
        bridge.gauges["event_streams"] = ("Followers by watch=1.", lambda: len(self.open))
        bridge.add_watch(self.handle)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a GET with `watch`; ends when the peer, the bridge or the session does."""
        bridge = self._bridge
        target, text = split_target(request.raw_path)
        query = parse_query(text)
        path = oids(target)
        if not flag(query, "watch"):
            raise BadRequest("watch=1 follows changes; leave it out to read the value")
        async with bridge.members.use(tega_id_of(query)) as client:
            since = await _since(
                client, path, query.get("from_version"), request.headers.get("Last-Event-ID", "")
            )
            stream = _Stream(bridge, request)
            self.open.add(stream)
            try:
                await stream.serve(client, path, since)
            finally:
                self.open.discard(stream)
            return stream.response

    async def _stop(self, reason: str) -> None:
        for stream in self.open:
            stream.end(reason)


async def _since(client: Client, path: Path, version: str | None, last: str) -> tuple[str, int] | None:
    """Return epoch and version after which changes are told; None: from now on.

    Raises `BadRequest`, and `Compacted` if what lies between is not kept any more.
    """
    root = path[:1]
    if last:
        match = _ID.fullmatch(last)
        if match is None:
            raise BadRequest(f"Last-Event-ID: {last[:80]!a} is no id of an event of this bridge")
        epoch, number = match.group(1), int(match.group(2))
    elif version is not None:
        if not _NUMBER.fullmatch(version):
            raise BadRequest(f"from_version={version[:80]!a}: expected a number, or -N back from now")
        epoch, number = "", int(version)
    else:
        return None
    try:
        _, node = await place(client, root)
        present = node.epoch, node.version
    except NotFound:
        deleted = await _deleted(client, path[0])
        if deleted is None:
            return (epoch, number) if epoch else _NOTHING
        present = deleted
    if number < 0:
        number = max(present[1] + number, -1)
    if epoch and epoch != present[0]:
        oldest = await _oldest(client, path[0])
        raise Compacted(
            f"{path[0]} began anew since {last}; read it and follow from version {present[1]}",
            root=path[0],
            version=number,
            oldest=oldest,
        )
    if number < 0:
        oldest = await _oldest(client, path[0])
        if oldest == 0:
            return present[0], -1
        number = 0
    if number < present[1]:
        with suppress(NotFound):  # it was deleted at that version
            await client.oids(root, version=number)  # raises Compacted
    return present[0], number


async def _deleted(client: Client, root: str) -> tuple[str, int] | None:
    """Return epoch and version of a root that was deleted; None if there never was one."""
    for each in await client.inspect("old"):
        if each["root"] == root:
            return each["epoch"], each["versions"][1]
    return None


async def _oldest(client: Client, root: str) -> int:
    """Return the oldest version from which on all is kept; -1 if there is no such root."""
    try:
        entries = await client.log((root,), 10_000)
    except NotFound:
        return -1
    if entries.gaps:
        return entries.gaps[0].last
    return entries[-1].version if entries else 0


class _Stream:
    """One stream."""

    def __init__(self, bridge: Bridge, request: web.BaseRequest) -> None:
        self._bridge = bridge
        self._request = request
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
        self.response = web.StreamResponse(headers=headers)
        self._outbox = Outbox(self.response.write)
        self._over = False
        self._behind = False
        """More waits than may: nothing is taken in until the peer has it."""
        self._stirred = asyncio.Event()
        """One of these two came to be true."""
        self._last: tuple[str, int] | None = None
        """Epoch and version of the last commit that was told."""
        self._held: list[bytes] | None = []
        """What is to be sent when the answer has begun."""
        self._held_size = 0
        self._gap = False
        """What lies between is not kept."""
        self._told: list[Change] = []
        """What one commit changed, as far as it has come."""
        self._from_nothing = False
        """There was no root, and nothing of it was told yet: a whole value is no gap then."""

    def end(self, reason: str) -> None:
        """End the stream; the peer is told `reason` in a comment, and comes back by itself."""
        self._outbox.put(f": {reason}\n\n".encode())
        self._finish()

    def _ended(self, error: TegaError) -> None:
        self.end(" ".join(f"{error.code}: {error.message}".split()))

    def _finish(self) -> None:
        self._over = True
        self._stirred.set()

    async def serve(self, client: Client, path: Path, since: tuple[str, int] | None) -> None:
        """Follow `path` from `since` on until it is over. Raises before anything is sent, or not at all."""
        self._from_nothing = since == _NOTHING
        subscription = await self._follow(client, path, since)
        try:
            if since is not None:
                await self._look_for_gap(client, path[0], since)
            self._bridge.lasting(self._request, self.response)
            await self.response.prepare(self._request)
            await self.response.write(f"retry: {_RETRY}\n\n".encode())
            held, self._held = self._held, None
            for frame in held or ():
                self._outbox.put(frame)
            try:
                while await self._wait(client):
                    await subscription.cancel()
                    if not await self._emptied(client):
                        break
                    subscription = await self._follow(client, path, self._last)
            except TegaError as error:
                self._ended(error)
            await self._outbox.flush()
            with suppress(ConnectionError, RuntimeError):
                await self.response.write_eof()
        except ConnectionError:
            pass  # the peer went before it heard anything
        finally:
            await self._outbox.close()
            if client.state != "closed":
                with suppress(NotFound):
                    await subscription.cancel()

    async def _follow(self, client: Client, path: Path, since: tuple[str, int] | None) -> Subscription:
        subscriptions = client._driver.engine.subscriptions

        def add() -> Any:
            self._behind = False
            subscribed = subscriptions.to_path(path, "local", self._on_change, on_end=self._ended)
            if since is not None:
                subscribed.seen[path[0]] = since
            return subscribed

        return await client._subscribe(add, None)

    async def _look_for_gap(self, client: Client, root: str, since: tuple[str, int]) -> None:
        """Raise `Compacted` if the broker does not send what lies between.

        It says so before it answers what it is asked next.
        """
        await client.inspect("channels")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self._gap:
            oldest = await _oldest(client, root)
            raise Compacted(
                f"the changes of {root} since version {since[1]} are no longer kept one by one; read it, and "
                "follow from its version",
                root=root,
                version=since[1],
                oldest=oldest,
            )

    async def _wait(self, client: Client) -> bool:
        """Wait until the peer is behind; false: it is over."""
        loop = asyncio.get_running_loop()
        interval = self._bridge.config.ping
        spoken = loop.time()
        while not self._over and not self._is_gone(client):
            if self._behind:
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK, interval)):
                    await self._stirred.wait()
            self._stirred.clear()
            if loop.time() - spoken >= interval:
                spoken = loop.time()
                self._outbox.put(b": still here\n\n")
        return False

    async def _emptied(self, client: Client) -> bool:
        """Wait until the peer has what waits for it; false: it is over. `Bridge` gives up who reads none."""
        while self._outbox.size and not self._over and not self._is_gone(client):
            await self._outbox.flush()
        return not self._over and not self._is_gone(client)

    def _is_gone(self, client: Client) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing() or client.state in ("closed", "taken over")

    def _on_change(self, change: Change) -> None:
        if self._behind:
            return
        if change.reset and change.version < 0 and self._from_nothing:
            return  # the root does not exist yet
        if change.reset and not self._from_nothing:
            # What lies between was dropped while this stream was cut off from the broker, or by a clear.
            if self._held is not None:
                self._gap = True
                return
            self._outbox.put(b"event: compacted\ndata: " + dump({"version": change.version}) + b"\n\n")
            self._finish()
            return
        self._from_nothing = False
        told = self._told
        if not told:
            asyncio.get_running_loop().call_soon(self._tell)
        told.append(change)

    def _tell(self) -> None:
        told, self._told = self._told, []
        at = 0
        while at < len(told):
            first = told[at]
            same = [change for change in told[at:] if change.version == first.version]
            at += len(same)
            frame = _event(same)
            if self._held is None:
                self._outbox.put(frame)
                waiting = self._outbox.size
            else:
                self._held.append(frame)
                waiting = self._held_size = self._held_size + len(frame)
            last = same[-1]
            if last.version == last.previous_version:
                continue  # the rest of the commit is on its way
            self._last = (last.epoch, last.version)
            if waiting > self._bridge.limits.queue:
                self._behind = True
                self._stirred.set()
                return


def _event(changes: list[Change]) -> bytes:
    """Return the event of one commit. Part of one that is too large for a message has no id."""
    last = changes[-1]
    data = dump(
        {
            "version": last.version,
            "tega_id": last.tega_id,
            "time": last.time,
            "message": last.message,
            "changes": [entry(change) for change in changes],
        }
    )
    id = f"id: {last.epoch}-{last.version}\n".encode() if last.version != last.previous_version else b""
    return id + b"data: " + data + b"\n\n"
