"""Transactions: begin, cand, commit, cancel."""

from __future__ import annotations

import argparse
from typing import Any

from tega_zmq.errors import Disconnected, Timeout
from tega_zmq.shell.commands.data import MESSAGE, written
from tega_zmq.shell.output import Paint, Result, flow, leaves, safe, to_yaml
from tega_zmq.shell.session import Session
from tega_zmq.shell.spec import Command, UsageError

CATEGORY = "Transaction"

_ONE_SESSION = (
    "a transaction lives in one session, and that of a single command ends with it:"
    " give all commands to one `tega`, on standard input or with -f FILE"
)


def begin(session: Session, _: argparse.Namespace) -> Result:
    """Open a transaction."""
    if session.transaction is not None:
        raise UsageError(
            f"the transaction {session.transaction.txid} is open already; `commit` or `cancel` it first"
        )
    session.transaction = session.client.begin()
    txid = session.transaction.txid
    return Result({"txid": txid}, safe(f"transaction {txid}"))


def cand(session: Session, _: argparse.Namespace) -> Result:
    """Show the candidate and what it changes."""
    view = session.need_transaction().candidate()
    data = {"candidate": view.roots, "changes": [change_data(change) for change in view.changes]}

    def text(paint: Paint) -> str:
        if not view.changes:
            return "nothing changed so far"
        return to_yaml(view.roots, paint) + "\n\n" + changes_text(view.changes, paint)

    return Result(data, text)


def commit(session: Session, args: argparse.Namespace) -> Result:
    """Commit the open transaction."""
    transaction = session.need_transaction()
    try:
        committed = transaction.commit(**({} if args.message is None else {"message": args.message}))
    except (Timeout, Disconnected):
        raise  # the transaction may still be open: `commit` can be typed again
    except BaseException:
        session.transaction = None
        raise
    session.transaction = None
    return written(session, committed)


def cancel(session: Session, _: argparse.Namespace) -> Result:
    """Drop the open transaction."""
    transaction = session.need_transaction()
    session.transaction = None
    transaction.cancel()
    return Result({"cancelled": transaction.txid}, "cancelled")


def change_data(change: Any) -> dict[str, Any]:
    """Return a difference as plain data; `old` and `new` are left out where there is nothing."""
    data: dict[str, Any] = {"path": change.path}
    if not change.created:
        data["old"] = change.old
    if not change.deleted:
        data["new"] = change.new
    return data


def changes_text(changes: Any, paint: Paint) -> str:
    """Return differences leaf by leaf, as lines that begin with `+` or `-`."""
    lines: list[str] = []
    for change in changes:
        if not change.created:
            lines += [paint(f"- {line}", "red") for line in _leaf_lines(change.path, change.old)]
        if not change.deleted:
            lines += [paint(f"+ {line}", "green") for line in _leaf_lines(change.path, change.new)]
    return "\n".join(lines)


def _leaf_lines(path: str, value: Any) -> list[str]:
    return [safe(f"{at or '.'}: {flow(leaf)}", lines=False) for at, leaf in leaves(path, value)]


COMMANDS = (
    Command(
        "begin",
        CATEGORY,
        "Open a transaction",
        begin,
        details="Until `commit` or `cancel`, put, patch, del and rollback go into it and get shows the\n"
        "candidate; others see nothing of it. It expires after 10 minutes without a command.",
        session_only=_ONE_SESSION,
    ),
    Command(
        "cand",
        CATEGORY,
        "Show what the transaction would make, and what it changes",
        cand,
        session_only=_ONE_SESSION,
    ),
    Command(
        "commit",
        CATEGORY,
        "Commit the transaction, whole or not at all",
        commit,
        (MESSAGE,),
        examples=("commit --message 'jumbo frames'",),
        session_only=_ONE_SESSION,
    ),
    Command("cancel", CATEGORY, "Drop the transaction", cancel, session_only=_ONE_SESSION),
)
