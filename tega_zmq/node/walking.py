"""Long requests that read: carried out a little at a time, so that they hold up nobody.

Such a request is a generator over the immutable store that it was asked of. It yields what each step of it
has cost, in half microseconds, and returns the answer. What a slice is enough for is answered at once. The
others wait, and every pass of the program's loop goes on with one of them for a slice, since
`machine.next_deadline` says that there is something to do. One that lacks what is on the disk asks for that
as any request does (`past`), and is begun anew with it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeAlias

from tega_zmq import errors
from tega_zmq.errors import StorageError, TegaError, TooLarge
from tega_zmq.node import passing, past
from tega_zmq.node.state import Node
from tega_zmq.sessions import Session
from tega_zmq.wire.messages import Failure, Reply

__all__ = [
    "MAX_ACTIVE",
    "MAX_WALK",
    "MAX_WALKS",
    "SLICE",
    "Steps",
    "Walk",
    "advance",
    "at_once",
    "begin",
    "fail_lost",
]

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

    __slots__ = ("known", "left", "number", "request", "session", "steps", "what")

    def __init__(
        self, node: Node, session: Session, request: Any, number: int, steps: Steps, what: str
    ) -> None:
        self.session = session
        self.request = request
        self.number = number
        """The answer depends on the log up to this record."""
        self.steps = steps
        self.what = what
        """What to do if it takes too much."""
        self.known = node.known
        """What came from the disk for it, and what it notes beside that for when it is begun anew."""
        self.left = MAX_WALK


def at_once(steps: Steps) -> Any:
    """Return the value of `steps`, all of them taken at one go: for what is known to be short."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def begin(node: Node, session: Session, request: Any, number: int, steps: Steps, what: str) -> None:
    """Carry out `request` of `session` by `steps`; its answer depends on the log up to `number`.

    Raises `TooLarge` if it is no short one and too many others are on their way; `what` says how to ask for
    less at a time.
    """
    walk = Walk(node, session, request, number, steps, what)
    session.pending[request.id] = walk
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
    walk = node.walks[node.walking]
    try:
        ended = _go_on(node, walk)
    except TegaError as error:  # what it needs cannot be asked for
        node.fail(walk.session, walk.request.id, error)
        ended = True
    if ended:
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
            node.fail(walk.session, walk.request.id, error)
    node.walks = kept


def _waits(walk: Walk) -> bool:
    return not walk.session.ended and walk.session.pending.get(walk.request.id) is walk


def _go_on(node: Node, walk: Walk) -> bool:
    """Do a slice of `walk`; say whether that was the last one."""
    if not _waits(walk):
        return True
    session, request = walk.session, walk.request
    node.known = walk.known
    try:
        answer = _slice(walk)
        if answer is None:
            return False
        if walk.number > node.durable_number:
            node.gate(session, answer)
        else:
            del session.pending[request.id]
            node.send(session, answer)
    except past.Deep as lacking:
        past.ask(node, session, request, lacking.want)
    except past.Elsewhere as lacking:
        passing.pass_on(node, session, request, lacking.root, node.owner(lacking.root))
    finally:
        node.known = {}
    return True


def _slice(walk: Walk) -> Reply | Failure | None:
    left = SLICE
    try:
        while left >= 0:
            left -= next(walk.steps)
    except StopIteration as end:
        return Reply(walk.request.id, end.value)
    except TegaError as error:
        return Failure(walk.request.id, *errors.encode(error))
    walk.left -= SLICE - left
    if walk.left >= 0:
        return None
    much = TooLarge(f"this takes too much work; {walk.what}", limit=MAX_WALK)
    return Failure(walk.request.id, *errors.encode(much))
