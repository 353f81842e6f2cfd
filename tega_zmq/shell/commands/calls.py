"""RPC, as it is typed: `a.b.x(1, name='Alice')`."""

from __future__ import annotations

from tega_zmq.errors import InvalidPath, InvalidValue
from tega_zmq.shell.literals import TypedCall, parse_call
from tega_zmq.shell.output import Result
from tega_zmq.shell.session import Session
from tega_zmq.shell.spec import UsageError

__all__ = ["call", "parse"]


def parse(text: str) -> TypedCall:
    """Return the call that `text` stands for. Raises `UsageError`."""
    try:
        typed = parse_call(text)
    except (InvalidPath, InvalidValue) as error:
        raise UsageError(error.message) from None
    if not isinstance(typed.kwargs.get("timeout", 0.0), (int, float)):
        raise UsageError("timeout is how many seconds to wait: a number")
    return typed


def call(session: Session, typed: TypedCall, timeout: float | None) -> Result:
    """Call the handler that `typed` names and return its result; `timeout` in seconds.

    An argument called `timeout` is how long to wait, as in Python: it does not reach the handler. A result of
    None is shown as `null`: a call that worked says so.
    """
    keywords = dict(typed.kwargs)
    if timeout is not None:
        keywords.setdefault("timeout", timeout)
    return Result(session.client.call(typed.path, *typed.args, **keywords))
