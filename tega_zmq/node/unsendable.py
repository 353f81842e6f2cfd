"""What becomes of a message that cannot be encoded: it is too large for a frame, or too deep.

What sessions send is bounded, but what is made of it can be larger: a commit with the old values, a rollback,
a long listing. Nobody may be left waiting for it, and nothing may end the node.
"""

from __future__ import annotations

from tega_zmq import errors
from tega_zmq.errors import TegaError
from tega_zmq.node import calling, parts, watching
from tega_zmq.node.effects import Send, SendUp
from tega_zmq.node.state import Node
from tega_zmq.sessions import Session
from tega_zmq.wire import decode
from tega_zmq.wire.messages import (
    REQUESTS,
    AnyMessage,
    Changed,
    Failure,
    Forward,
    Invoke,
    Message,
    Reply,
    Result,
)


def note(node: Node, effect: Send | SendUp, error: TegaError) -> None:
    """The program could not encode the message of `effect`."""
    message = effect.message
    carrier = node.sessions.by_peer.get(effect.peer) if isinstance(effect, Send) else node.above
    if carrier is None:
        return
    if not isinstance(message, Forward):
        node.cannot_send(carrier, message, error)
        return
    body = decode(message.body)
    session: Session | None
    if type(body) in REQUESTS:
        # What was passed on for a session of this node.
        session = node.sessions.by_id.get(message.session) or node.below.get(message.session)
        if session is not None:
            node.fail(session, body.id, error)  # type: ignore[union-attr]
        return
    if isinstance(body, Result):
        calling.send_result(node, message.session, body.call, False, list(errors.encode(error)))
        return
    session = carrier.subsessions.get(message.session) or node.below.get(message.session)
    if session is not None:
        node.cannot_send(session, body, error)


def settle(node: Node) -> None:
    """Do something instead for each message that could not be sent."""
    unsent, node.unsent = node.unsent, []
    for session, message, error in unsent:
        _instead(node, session, message, error)


def _instead(node: Node, session: Session, message: AnyMessage, error: TegaError) -> None:
    if isinstance(message, (Reply, Failure)):
        node.fail(session, message.id, error)
    elif isinstance(message, Invoke):
        calling.undeliverable(node, message.call, error)
    elif isinstance(message, Message):
        session.dropped += 1
        watching.tell_dropped(node, session)
    elif isinstance(message, Changed):
        for part in parts.of(message):
            node.send(session, part)
