"""Requests about handlers and calls, and every way in which a call can end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tega_zmq import errors, paths, values
from tega_zmq.calls import InFlight, Many, of_caller
from tega_zmq.errors import (
    Cancelled,
    HandlerError,
    HandlerGone,
    InvalidValue,
    NoHandler,
    NotFound,
    Offline,
    TegaError,
    Timeout,
    TooLarge,
)
from tega_zmq.node.effects import SendUp
from tega_zmq.node.passing import pass_up
from tega_zmq.node.state import Node, Waiting
from tega_zmq.paths import Path, format_path
from tega_zmq.patterns import compile_oids
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

AWAY = 15.0
"""Seconds for which the calls of a group go past a session that its agent said is away."""

RETRACTED = "retracted"
"""Stands in `Session.asked_above` where something is taken back."""


def register(node: Node, session: Session, request: Register) -> None:
    """`session` offers a handler from now on, here and at every node above."""
    path = paths.check(request.path)
    if len(session.handlers) >= MAX_HANDLERS and path not in session.handlers:
        raise TooLarge(
            f"{session.tega_id} offers {MAX_HANDLERS} handlers already", size=MAX_HANDLERS, limit=MAX_HANDLERS
        )
    node.handlers.add(path, session)
    announce(node, session, ("handler", path), request)
    node.reply(session, request.id, None)


def unregister(node: Node, session: Session, request: Unregister) -> None:
    """`session` offers a handler no more."""
    path = paths.check(request.path)
    if not node.handlers.remove(path, session):
        raise NotFound(f"{session.tega_id} offers no handler at {format_path(path)}", path=format_path(path))
    retract(node, session, ("handler", path), request)
    node.reply(session, request.id, None)


def announce(node: Node, session: Session, key: tuple[str, Any], request: Any) -> None:
    """Tell the node above, now and after every reconnect."""
    if node.uplink is None:
        return
    retracted = session.retracted.pop(key, None) is not None
    if node.online:
        session.asked_above[request.id] = key
        forward_up(node, session, request)
    elif not retracted and key not in session.announced:
        session.unsaid[key] = None
    session.announced[key] = request


def forward_up(node: Node, session: Session, message: Any) -> None:
    """Send `message` to the node above as if `session` had sent it there."""
    node.note_forwarded(session, "")
    node.effects.append(SendUp(Forward(session.id, session.tega_id, encode(message))))


def retract(node: Node, session: Session, key: tuple[str, Any], request: Any) -> None:
    """Take back what was announced under `key`, by sending `request`, until that is answered.

    What was not said above since the link was lost is not to be taken back there. So what is kept while there
    is no link is as bounded as what the node above keeps.
    """
    if session.announced.pop(key, None) is None:
        return
    if key in session.unsaid:
        del session.unsaid[key]
        return
    session.retracted[key] = request
    if node.online:
        session.asked_above[request.id] = (RETRACTED, key)
        forward_up(node, session, request)


# -- calls -----------------------------------------------------------------------------------------


def call(node: Node, session: Session, request: Call) -> None:
    """Call the handler at a path: one here if any is connected, else one that the node above knows."""
    path = paths.check(request.path)
    _check_arguments(request)
    handler = node.handlers.pick(path, node.now)
    if handler is None:
        _call_elsewhere(node, session, request, path)
        return
    session.pending[request.id] = None
    again = request if handler.via is not None and node.handlers.shared(path) else None
    started = node.calls.start(
        path, handler, node.now + request.timeout / 1000, caller=session, request=request.id, again=again
    )
    node.send(
        handler,
        Invoke(started.number, path, request.args, request.kwargs, request.timeout, session.tega_id),
    )


def _call_next(node: Node, ended: InFlight) -> bool:
    """The agent of the handler says that the call was not handed over: give it to another of the group.

    Returns whether there is one.
    """
    handler, path, request = ended.handler, ended.path, ended.again
    handler.away_until = node.now + AWAY
    if request is None or ended.caller is None:
        return False
    other = node.handlers.pick(path, node.now)
    if other is None or other.away_until > node.now:
        return False
    started = node.calls.start(
        path, other, ended.deadline, caller=ended.caller, request=ended.request, again=request
    )
    left = max(0, round((ended.deadline - node.now) * 1000))
    caller = ended.caller.tega_id
    node.send(other, Invoke(started.number, path, request.args, request.kwargs, left, caller))
    return True


def _check_arguments(request: Call | CallAll) -> None:
    if request.args:
        values.check_passed(request.args, "the arguments")
    if request.kwargs:
        values.check_passed(request.kwargs, "the arguments")


def _call_elsewhere(node: Node, session: Session, request: Call, path: Path) -> None:
    if node.uplink is not None:
        if node.online:
            pass_up(node, session, request, None, resend=False)
            return
        if not node.handlers.offered(path):
            raise Offline(
                f"nobody here offers {format_path(path)}, and there is no link to the node above",
                root=path[0],
            )
    error: TegaError
    if node.handlers.offered(path):
        error = _gone(path, node.handlers.first(path), "none")
    else:
        error = NoHandler(f"nobody offers a handler at {format_path(path)}", path=format_path(path))
    _count(node, error)
    raise error


def call_all(node: Node, session: Session, request: CallAll) -> None:
    """Call every handler that matches; the reply has each one's outcome."""
    pattern = compile_oids(request.regex)
    _check_arguments(request)
    if node.uplink is not None and node.online:
        pass_up(node, session, request, None, resend=False)
        return
    found = node.handlers.matching(pattern)
    if not found:
        raise NoHandler(f"no handler's path matches {request.regex!a}", path=request.regex)
    in_flight = len(of_caller(session))
    if in_flight and in_flight + len(found) > node.settings.max_calls:
        raise TooLarge(
            f"{session.tega_id} has {in_flight} calls in flight, and this one would add {len(found)};"
            " no more than limits.calls allows",
            size=in_flight + len(found),
            limit=node.settings.max_calls,
        )
    session.pending[request.id] = None
    many = Many(session, request.id)
    many.waiting = len(found) + 1
    for path, handler in found:
        if not handler.connected:
            _count_outcome(many, path, handler, _gone(path, handler, "none"), None)
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
            Invoke(started.number, path, request.args, request.kwargs, request.timeout, session.tega_id),
        )
    _all_done(node, many)


def cancel_call(node: Node, session: Session, request: CancelCall) -> None:
    """Give a call up; it ends with `Cancelled`."""
    waiting = session.pending.get(request.call)
    if isinstance(waiting, Waiting):
        if waiting.to == "" and isinstance(waiting.message, (Call, CallAll)):
            forward_up(node, session, request)
    else:
        for number in list(session.calling.get(request.call, ())):
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
            outcome="none",
        )
        send_result(node, origin, message.call, False, list(errors.encode(error)))
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
    number = node.calls.from_uplink(message.call, origin)
    if number is not None:
        abandon(node, [number])


# -- ends ------------------------------------------------------------------------------------------


def result(node: Node, session: Session, message: Result) -> None:
    """A handler answered. For a call that is over, or another's, it is dropped."""
    if not node.calls.served_by(message.call, session):
        return
    ended = node.calls.end(message.call)
    assert ended is not None
    ok, value = message.ok, message.value
    try:
        values.check_passed(value, "the result")
    except InvalidValue as error:
        ok, value = False, [error.code, error.message]  # as a client says it of its own handler
    if ok:
        _answer(node, ended, None, value)
        return
    failed = _handler_error(ended, value)
    if isinstance(failed, HandlerGone) and failed.outcome == "none" and _call_next(node, ended):
        return
    _answer(node, ended, failed, None)


def _handler_error(ended: InFlight, value: Any) -> TegaError:
    path = format_path(ended.path)
    if isinstance(value, (list, tuple)):
        if len(value) == 3 and ended.handler.via is not None and isinstance(value[2], dict):
            return errors.decode(str(value[0]), str(value[1]), value[2])
        if len(value) == 2:
            kind, text = str(value[0])[:255], str(value[1])[:4096]
            return HandlerError(
                f"{path} at {ended.handler.tega_id} raised {kind}: {text}",
                path=path,
                type=kind,
                text=text,
                tega_id=ended.handler.tega_id,
            )
    return HandlerError(
        f"{path} at {ended.handler.tega_id} failed without saying how",
        path=path,
        tega_id=ended.handler.tega_id,
    )


def undeliverable(node: Node, number: int, error: TegaError) -> None:
    """The `Invoke` of call `number` cannot be sent: the call ends with `error`."""
    ended = node.calls.end(number)
    if ended is not None:
        _answer(node, ended, error, None)


def _gone(path: Path, handler: Session, outcome: str | None = None) -> HandlerGone:
    where = format_path(path)
    text = f"{handler.tega_id}, which offers {where}, is not connected"
    return HandlerGone(text, path=where, tega_id=handler.tega_id, outcome=outcome)


def expire(node: Node) -> None:
    """End the calls whose deadline has passed."""
    for ended in node.calls.expired(node.now):
        node.send(ended.handler, Abandon(ended.number))
        _answer(
            node,
            ended,
            Timeout(
                f"{format_path(ended.path)} at {ended.handler.tega_id} did not answer before the deadline",
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
    abandon(node, of_caller(session))


def abandon(node: Node, numbers: Iterable[int]) -> None:
    """Forget calls and tell their handlers."""
    for number in numbers:
        ended = node.calls.end(number)
        if ended is not None:
            _count(node, Cancelled())
            node.send(ended.handler, Abandon(number))


def _count(node: Node, error: TegaError | None) -> None:
    outcome = "ok" if error is None else error.code
    node.outcomes[outcome] = node.outcomes.get(outcome, 0) + 1


def _answer(node: Node, ended: InFlight, error: TegaError | None, value: Any) -> None:
    _count(node, error)
    if ended.many is not None:
        _count_outcome(ended.many, ended.path, ended.handler, error, value)
        _all_done(node, ended.many)
    elif ended.caller is None:
        if error is None:
            send_result(node, ended.origin, ended.request, True, value)
        elif isinstance(error, HandlerError) and error.type is not None:
            send_result(node, ended.origin, ended.request, False, [error.type, error.text])
        else:
            send_result(node, ended.origin, ended.request, False, list(errors.encode(error)))
    elif error is None:
        node.reply(ended.caller, ended.request, value)
    else:
        node.fail(ended.caller, ended.request, error)


def send_result(node: Node, origin: str, call: int, ok: bool, value: Any) -> None:
    """Answer a call that came down the uplink for the session `origin`."""
    if not node.online:
        return
    try:
        body = encode(Result(call, ok, value))
    except TegaError as error:
        body = encode(Result(call, False, list(errors.encode(error))))
    node.effects.append(SendUp(Forward(origin, "", body)))


def _count_outcome(many: Many, path: Path, handler: Session, error: TegaError | None, value: Any) -> None:
    many.waiting -= 1
    many.outcomes.append(
        (path, handler.tega_id, error is None, value if error is None else errors.encode(error))
    )


def _all_done(node: Node, many: Many) -> None:
    if many.waiting == 1:
        many.waiting = 0
        many.outcomes.sort(key=lambda outcome: outcome[:2])
        node.reply(many.session, many.request, many.outcomes)
