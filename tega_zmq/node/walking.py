"""Long requests that read: carried out a little at a time, so that they hold up nobody.

Such a request is a generator over the immutable store that it was asked of. It yields what each step of it
has cost, in half microseconds, and returns the answer. What a slice is enough for is answered at once. The
others wait, and every pass of the program's loop goes on with one of them for a slice, since
`machine.next_deadline` says that there is something to do.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeAlias

from tega_zmq import errors
from tega_zmq.errors import StorageError, TegaError, TooLarge
from tega_zmq.node.state import Node
from tega_zmq.sessions import Session
from tega_zmq.wire.messages import Failure, Reply

__all__ = ["MAX_ACTIVE", "MAX_WALK", "MAX_WALKS", "SLICE", "Steps", "Walk", "advance", "begin", "fail_lost"]

SLICE: Final = 4000
"""What is done of a request at a time, in half microseconds."""

MAX_WALK: Final = 4_000_000
"""The most that one request may cost, in half microseconds."""

MAX_WALKS: Final = 64
"""Most requests of all sessions that take more than a slice, at a time; a quarter of them of one session."""

MAX_ACTIVE: Final = 4
"""How many of them are gone on with in turn; so much of unfinished answers is in memory."""

Steps: TypeAlias = Generator[int, None, Any]
"""Yields the cost of its steps, a millisecond each at most, and returns the value of the reply."""


class Walk:
    """A request that is being carried out."""

    __slots__ = ("id", "left", "number", "session", "steps", "what")

    def __init__(self, session: Session, id: int, number: int, steps: Steps, what: str) -> None:
        self.session = session
        self.id = id
        self.number = number
        """The answer depends on the log up to this record."""
        self.steps = steps
        self.what = what
        """What to do if it takes too much."""
        self.left = MAX_WALK


def begin(node: Node, session: Session, id: int, number: int, steps: Steps, what: str) -> None:
    """Carry out the request `id` of `session` by `steps`; its answer depends on the log up to `number`.

    Raises `TooLarge` if it is no short one and too many others are on their way; `what` says how to ask for
    less at a time.
    """
    walk = Walk(session, id, number, steps, what)
    session.pending[id] = walk
    if _go_on(node, walk):
        return
    mine = sum(each.session is session for each in node.walks)
    if len(node.walks) >= MAX_WALKS or mine >= MAX_WALKS // 4:
        raise TooLarge(
            f"{len(node.walks)} long requests are being carried out, {mine} of them of {session.tega_id};"
            f" ask again later, or {what}",
            size=len(node.walks),
            limit=MAX_WALKS,
        )
    node.walks.append(walk)


def advance(node: Node) -> None:
    """Go on with one of the requests."""
    node.walking = node.walking % min(len(node.walks), MAX_ACTIVE)
    if _go_on(node, node.walks[node.walking]):
        del node.walks[node.walking]
    else:
        node.walking += 1


def fail_lost(node: Node, error: StorageError) -> None:
    """The log failed: what was read of the tip beyond what is durable was never so."""
    kept = []
    for walk in node.walks:
        if walk.number <= node.durable_number:
            kept.append(walk)
        elif _waits(walk):
            node.fail(walk.session, walk.id, error)
    node.walks = kept


def _waits(walk: Walk) -> bool:
    return not walk.session.ended and walk.session.pending.get(walk.id) is walk


def _go_on(node: Node, walk: Walk) -> bool:
    """Do a slice of `walk`; say whether that was the last one."""
    if not _waits(walk):
        return True
    answer = _slice(walk)
    if answer is None:
        return False
    if walk.number > node.durable_number:
        node.gate(walk.session, answer)
    else:
        del walk.session.pending[walk.id]
        node.send(walk.session, answer)
    return True


def _slice(walk: Walk) -> Reply | Failure | None:
    left = SLICE
    try:
        while left >= 0:
            left -= next(walk.steps)
    except StopIteration as end:
        return Reply(walk.id, end.value)
    except TegaError as error:
        return Failure(walk.id, *errors.encode(error))
    walk.left -= SLICE - left
    if walk.left >= 0:
        return None
    return Failure(
        walk.id, *errors.encode(TooLarge(f"this takes too much work; {walk.what}", limit=MAX_WALK))
    )
