"""Bounds of the product, made so small that every run meets them, and a look at the queues of messages.

What takes a thousand messages or sixteen kilobytes in service would never be reached in a run. The code is
the same; only the numbers are others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tega_zmq import replica, sessions
from tega_zmq.node import Node
from tega_zmq.sessions import Session
from tega_zmq.wire import decode
from tega_zmq.wire import messages as m
from tests.sim.world import Broken

__all__ = ["Queues", "small"]

_SMALL: Final = (
    (sessions, "MAX_MESSAGES", 6),
    (replica, "CHUNK", 1500),
    (replica, "_UPDATES", 5),
    (replica, "_BUFFERED", 4),
)


class Queues:
    """Promise 19: of messages that wait, the oldest go first; each is counted, and the session is told."""

    def __init__(self) -> None:
        self.untold: dict[Session, int] = {}
        """Messages that were dropped, and of which it was not told."""
        self.dropped = 0

    def queue(
        self, session: Session, message: m.Message, original: Callable[[Session, m.Message], None]
    ) -> None:
        """Do what `Session.queue_message` does, and check it."""
        before, counted = [each for each, _ in session.backlog], session.dropped
        original(session, message)
        after = [each for each, _ in session.backlog]
        expected = [*before, message][-sessions.MAX_MESSAGES :]
        if after != expected:
            raise Broken(
                19, f"{len(before) + 1} messages wait for {session.tega_id}, and {after!r:.200} stay"
            )
        lost = len(before) + 1 - len(after)
        if session.dropped != counted + lost:
            raise Broken(19, f"{lost} messages to {session.tega_id} are dropped and not counted")
        if lost:
            self.untold[session] = self.untold.get(session, 0) + lost
            self.dropped += lost

    def sending(self, node: Node, peer: bytes | None, message: Any) -> None:
        """A node sends something: to a session that lost messages, first how many."""
        if not self.untold:
            return
        session = node.sessions.by_peer.get(peer) if peer is not None else None
        if isinstance(message, m.Forward) and session is not None:
            session, message = node.sessions.by_id.get(message.session), decode(message.body)
        if session is None:
            return
        if isinstance(message, m.Dropped):
            if message.count < self.untold.pop(session, 0):
                raise Broken(19, f"{session.tega_id} is told of {message.count} messages, more were dropped")
        elif isinstance(message, m.Message) and self.untold.get(session):
            lost = self.untold[session]
            raise Broken(19, f"{session.tega_id} hears on, and is not told of {lost} that were dropped")


@contextmanager
def small() -> Iterator[Queues]:
    """Within it the bounds are small, and the queues of all sessions are looked at."""
    queues = Queues()
    original = Session.queue_message
    before = [(module, name, getattr(module, name)) for module, name, _ in _SMALL]

    def queue_message(self: Session, message: m.Message) -> None:
        queues.queue(self, message, original)

    for module, name, value in _SMALL:
        setattr(module, name, value)
    Session.queue_message = queue_message  # type: ignore[method-assign]
    try:
        yield queues
    finally:
        Session.queue_message = original  # type: ignore[method-assign]
        for module, name, value in before:
            setattr(module, name, value)
