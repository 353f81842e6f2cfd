"""Requests about handlers and calls, and every way in which a call can end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tega_zmq import errors, paths
from tega_zmq.errors import (
    Cancelled,
    HandlerError,
    HandlerGone,
    NoHandler,
    NotFound,
    Offline,
    TegaError,
    Timeout,
    TooLarge,
)
from tega_zmq.node.effects import SendUp
from tega_zmq.node.state import Node, Waiting
from tega_zmq.node.writing import pass_up
from tega_zmq.paths import Path, format_path
from tega_zmq.patterns import compile_oids
from tega_zmq.calls import InFlight, Many
from tega_zmq.sessions import Session
from tega_zmq.wire import encode
from tega_zmq.wire.messages import (
    Abandon,
    Call,
    CallAll,
    CancelCall,
    Forward,
    Invoke,
    Register,
    Result,
    Unregister,
)

MAX_HANDLERS = 10_000
"""Most handlers of one session."""


def register(node: Node, session: Session, request: Register) -> None:
    """`session` offers a handler from now on, here and at every node above."""
    path = paths.check(request.path)
    if len(session.handlers) >= MAX_HANDLERS and path not in session.handlers:
        raise TooLarge(
            f"{session.name} offers {MAX_HANDLERS} handlers already", size=MAX_HANDLERS, limit=MAX_HANDLERS
        )
    node.handlers.add(path, session)
    announce(node, session, ("handler", path), request)
    node.reply(session, request.id, None)


def unregister(node: Node, session: Session, request: Unregister) -> None:
    """`session` offers a handler no more."""
    path = paths.check(request.path)
    if not node.handlers.remove(path, session):
        raise NotFound(f"{session.name} offers no handler at {format_path(path)}", path=format_path(path))
    retract(node, session, ("handler", path), request)
    node.reply(session, request.id, None)


def announce(node: Node, session: Session, key: tuple[str, Any], request: Any) -> None:
    """Tell the node above, now and after every reconnect."""
    if node.uplink is None or session.kind == "below":
        return
    session.announced[key] = request
    if node.online:
        session.forwarded_to.add("")
        node.effects.append(SendUp(Forward(session.id, session.tega_id, encode(request))))


def retract(node: Node, session: Session, key: tuple[str, Any], request: Any) -> None:
    """Take back what was announced under `key`, by sending `request`."""
    if session.announced.pop(key, None) is not None and node.online:
        node.effects.append(SendUp(Forward(session.id, session.tega_id, encode(request))))


# -- calls -----------------------------------------------------------------------------------------


def call(node: Node, session: Session, request: Call) -> None:
    """Call the handler at a path: one here if any is connected, else one that the node above knows."""
    path = paths.check(request.path)
    _check_room(node, session)
    handler = node.handlers.pick(path)
    if handler is None:
        _call_elsewhere(node, session, request, path)
        return
    session.pending[request.id] = None
    started = node.calls.start(
        path, handler, node.now + request.timeout / 1000, caller=session, request=request.id
    )
    node.send(
        handler,
        Invoke(started.number, path, request.args, request.kwargs, request.timeout, session.name),
    )


def _call_elsewhere(node: Node, session: Session, request: Call, path: Path) -> None:
    if node.uplink is not None and session.kind != "below":
        if node.online:
            pass_up(node, session, request, None, resend=False)
            return
        if not node.handlers.offered(path):
            raise Offline(
                f"nobody here offers {format_path(path)}, and there is no link to the node above", root=path[0]
            )
    if node.handlers.offered(path):
        raise _gone(path, node.handlers.first(path))
    raise NoHandler(f"nobody offers a handler at {format_path(path)}", path=format_path(path))


def _check_room(node: Node, session: Session) -> None:
    if len(session.pending) >= node.settings.max_calls:
        raise TooLarge(
            f"{session.name} has {len(session.pending)} unanswered requests, as many as limits.calls allows",
            size=len(session.pending),
            limit=node.settings.max_calls,
        )


def call_all(node: Node, session: Session, request: CallAll) -> None:
    """Call every handler that matches; the reply has each one's outcome."""
    pattern = compile_oids(request.regex)
    if node.uplink is not None and node.online and session.kind != "below":
        pass_up(node, session, request, None, resend=False)
        return
    found = node.handlers.matching(pattern)
    if not found:
        raise NoHandler(f"no handler's path matches {request.regex!a}", path=request.regex)
    session.pending[request.id] = None
    many = Many(session, request.id)
    many.waiting = len(found) + 1
    for path, handler in found:
        if not handler.connected:
            _count_outcome(node, many, path, handler, _gone(path, handler), None)
            continue
        started = node.calls.start(
            path,
            handler,
            node.now + request.timeout / 1000,
            caller=session,
            request=request.id,
            many=many,
        )
        node.send(
            handler,
            Invoke(started.number, path, request.args, request.kwargs, request.timeout, session.name),
        )
    _all_done(node, many)


def cancel_call(node: Node, session: Session, request: CancelCall) -> None:
    """Give a call up; it ends with `Cancelled`."""
    waiting = session.pending.get(request.call)
    if isinstance(waiting, Waiting):
        node.effects.append(SendUp(Forward(session.id, session.tega_id, encode(request))))
    else:
        numbers = [session.calling[request.call]] if request.call in session.calling else []
        numbers += [
            number
            for number in node.calls.of_caller(session)
            if (each := node.calls.get(number)) is not None
            and each.many is not None
            and each.request == request.call
        ]
        for number in numbers:
            ended = node.calls.end(number)
            if ended is not None:
                node.send(ended.handler, Abandon(number))
                _answer(node, ended, Cancelled(f"the call of {format_path(ended.path)} was given up"), None)
    node.reply(session, request.id, None)


def invoke_from_uplink(node: Node, origin: str, message: Invoke) -> None:
    """The node above passes a call to the local session `origin`."""
    session = node.sessions.by_id.get(origin)
    if session is None or not session.connected or message.path not in session.handlers:
        error: TegaError = HandlerGone(
            f"the session that offers {format_path(message.path)} is not connected to its agent",
            path=format_path(message.path),
        )
        _send_result(node, origin, message.call, False, list(errors.encode(error)))
        return
    started = node.calls.start(
        message.path,
        session,
        node.now + message.timeout / 1000,
        caller=None,
        request=message.call,
        origin=origin,
    )
    node.send(session, message._replace(call=started.number))


def abandon_from_uplink(node: Node, origin: str, message: Abandon) -> None:
    """Nobody above waits any more."""
    found = node.calls.from_uplink(message.call, origin)
    if found is not None:
        ended = node.calls.end(found.number)
        if ended is not None:
            node.send(ended.handler, Abandon(found.number))


# -- ends ------------------------------------------------------------------------------------------


def result(node: Node, session: Session, message: Result) -> None:
    """A handler answered. For a call that is over, or another's, it is dropped."""
    if not node.calls.served_by(message.call, session):
        return
    ended = node.calls.end(message.call)
    if ended is None:
        return
    if message.ok:
        _answer(node, ended, None, message.value)
    else:
        _answer(node, ended, _handler_error(ended, message.value), None)


def _handler_error(ended: InFlight, value: Any) -> TegaError:
    path = format_path(ended.path)
    if isinstance(value, (list, tuple)):
        if len(value) == 3 and ended.handler.via is not None and isinstance(value[2], dict):
            return errors.decode(str(value[0]), str(value[1]), value[2])
        if len(value) == 2:
            kind, text = str(value[0])[:255], str(value[1])[:4096]
            return HandlerError(
                f"{path} at {ended.handler.name} raised {kind}: {text}",
                path=path,
                type=kind,
                text=text,
                tega_id=ended.handler.name,
            )
    return HandlerError(
        f"{path} at {ended.handler.name} failed without saying how", path=path, tega_id=ended.handler.name
    )


def _gone(path: Path, handler: Session) -> HandlerGone:
    where = format_path(path)
    return HandlerGone(
        f"{handler.name}, which offers {where}, is not connected", path=where, tega_id=handler.name
    )


def expire(node: Node) -> None:
    """End the calls whose deadline has passed."""
    for ended in node.calls.expired(node.now):
        node.send(ended.handler, Abandon(ended.number))
        _answer(
            node,
            ended,
            Timeout(
                f"{format_path(ended.path)} at {ended.handler.name} did not answer before the deadline",
                outcome="unknown",
            ),
            None,
        )


def handler_lost(node: Node, session: Session) -> None:
    """The connection of `session` is gone: the calls that it was to answer end now."""
    for each in (session, *session.subsessions.values()):
        for number in list(each.serving):
            ended = node.calls.end(number)
            if ended is not None:
                _answer(node, ended, _gone(ended.path, each), None)


def caller_lost(node: Node, session: Session) -> None:
    """`session` is over: nobody waits for its calls."""
    abandon(node, node.calls.of_caller(session))


def abandon(node: Node, numbers: Iterable[int]) -> None:
    """Forget calls and tell their handlers."""
    for number in numbers:
        ended = node.calls.end(number)
        if ended is not None:
            node.send(ended.handler, Abandon(number))


def _answer(node: Node, ended: InFlight, error: TegaError | None, value: Any) -> None:
    if ended.many is not None:
        _count_outcome(node, ended.many, ended.path, ended.handler, error, value)
        _all_done(node, ended.many)
    elif ended.caller is None:
        if error is None:
            _send_result(node, ended.origin, ended.request, True, value)
        elif isinstance(error, HandlerError) and error.type is not None:
            _send_result(node, ended.origin, ended.request, False, [error.type, error.text])
        else:
            _send_result(node, ended.origin, ended.request, False, list(errors.encode(error)))
    elif error is None:
        node.reply(ended.caller, ended.request, value)
    else:
        node.fail(ended.caller, ended.request, error)


def _send_result(node: Node, origin: str, call: int, ok: bool, value: Any) -> None:
    if node.online:
        node.effects.append(SendUp(Forward(origin, "", encode(Result(call, ok, value)))))


def _count_outcome(
    node: Node, many: Many, path: Path, handler: Session, error: TegaError | None, value: Any
) -> None:
    many.waiting -= 1
    many.outcomes.append(
        (path, handler.name, error is None, value if error is None else errors.encode(error))
    )


def _all_done(node: Node, many: Many) -> None:
    if many.waiting == 1:
        many.waiting = 0
        many.outcomes.sort(key=lambda outcome: outcome[:2])
        node.reply(many.session, many.request, many.outcomes)
