"""RPC, as it is typed: `a.b.x(1, name='Alice')`."""

from __future__ import annotations

from tega_zmq.errors import InvalidValue
from tega_zmq.shell.literals import parse_call
from tega_zmq.shell.output import Result
from tega_zmq.shell.session import Session

__all__ = ["call"]


def call(session: Session, text: str, timeout: float | None) -> Result:
    """Call the handler that `text` names and return its result; `timeout` in seconds.

    An argument called `timeout` is how long to wait, as in Python: it does not reach the handler. A result of
    None is shown as `null`: a call that worked says so.
    """
    typed = parse_call(text)
    keywords = dict(typed.kwargs)
    if timeout is not None:
        keywords.setdefault("timeout", timeout)
    if not isinstance(keywords.get("timeout", 0.0), (int, float)):
        raise InvalidValue("timeout is how many seconds to wait: a number")
    return Result(session.client.call(typed.path, *typed.args, **keywords))
