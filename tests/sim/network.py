"""The network: connections that delay, block, fill up and break, and publishers whose messages get lost.

A connection is two pipes. A pipe keeps its order, as TCP does; pipes overtake each other. A way that is cut
holds back what is in its pipes, in one direction or both, until it is mended or the connection is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tests.sim.world import World

__all__ = ["Dialer", "Link", "Pipe", "Way"]

FIN = None
"""Travels in a pipe behind the last frame when its sender closes."""


class Way:
    """What lies between one dialer and its node, for all connections that it makes."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        """Mean seconds from one end to the other."""
        self.cut_up = False
        self.cut_down = False
        self.full = 400
        """Frames that a pipe takes before its sender must wait."""
        self.lossy = 0.0
        """Part of the published messages that is lost."""

    @property
    def cut(self) -> bool:
        """Whether no connection can be made."""
        return self.cut_up or self.cut_down


class Pipe:
    """One direction of a connection."""

    def __init__(
        self,
        world: World,
        way: Way,
        blocked: Callable[[], bool],
        deliver: Callable[[Any], None],
        drained: Callable[[], None] | None = None,
    ) -> None:
        """`blocked` says whether nothing arrives now; call `kick` when that ends."""
        self._world = world
        self._way = way
        self._blocked = blocked
        self._deliver = deliver
        self._drained = drained
        self.frames: deque[Any] = deque()
        self._moving = False
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether no further frame can be sent now."""
        return len(self.frames) >= self._way.full

    def send(self, frame: Any) -> None:
        """Put a frame, or FIN, into the pipe."""
        if not self.closed:
            self.frames.append(frame)
            self.kick(self._world.random.expovariate(1.0) * self._way.delay)

    def kick(self, delay: float = 0.0) -> None:
        """What is in the pipe moves on, if it does not yet."""
        if self.frames and not self._moving and not self.closed:
            self._moving = True
            self._world.after(delay, self._move)

    def _move(self) -> None:
        self._moving = False
        if self.closed or not self.frames or self._blocked():
            return
        frame = self.frames.popleft()
        if self._drained is not None and len(self.frames) == self._way.full // 2:
            self._drained()
        # The next one comes close behind: the pipe's delay is not its rate.
        self.kick(0.0001)
        self._deliver(frame)

    def drain(self) -> None:
        """Deliver all that has arrived, at once."""
        while self.frames and not self.closed and not self._blocked():
            self._world.events += 1
            self._deliver(self.frames.popleft())

    def lose(self, keep: int) -> None:
        """Whatever is in the pipe behind the first `keep` frames is lost."""
        while len(self.frames) > keep:
            self.frames.pop()


class Dialer(Protocol):
    """Whoever dials a node."""

    name: str
    way: Way

    def reads(self) -> bool:
        """Whether it takes what comes."""

    def frame_came(self, link: Link, frame: bytes | None) -> None:
        """A frame, or FIN, came down `link`."""


class Answerer(Protocol):
    """A node that is dialled."""

    name: str

    def reads(self) -> bool:
        """Whether it takes what comes."""

    def frame_came_up(self, link: Link, frame: bytes | None) -> None:
        """A frame, or FIN, came up `link`."""

    def can_send(self, link: Link) -> None:
        """There is room in `link` again."""


class Link:
    """One connection."""

    def __init__(self, world: World, dialer: Dialer, node: Answerer, peer: bytes) -> None:
        self.dialer = dialer
        self.node = node
        self.peer = peer
        way = dialer.way
        self.up = Pipe(
            world, way, lambda: way.cut_up or not node.reads(), lambda frame: node.frame_came_up(self, frame)
        )
        self.down = Pipe(
            world,
            way,
            lambda: way.cut_down or not dialer.reads(),
            lambda frame: dialer.frame_came(self, frame),
            lambda: node.can_send(self),
        )

    def kick(self) -> None:
        """Something that blocked the pipes may have ended."""
        self.up.kick()
        self.down.kick()
