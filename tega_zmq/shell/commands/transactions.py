"""Transactions: begin, cand, check, commit, cancel, use, transactions."""

from __future__ import annotations

import argparse
import re

from tega_zmq.errors import Disconnected, Offline, OwnerAway, StorageError, Timeout
from tega_zmq.shell.commands.data import MESSAGE, written
from tega_zmq.shell.commands.showing import FORMS, shown
from tega_zmq.shell.differences import change_data, in_order, leaf_text
from tega_zmq.shell.output import Paint, Result, safe, table, to_yaml
from tega_zmq.shell.session import Session, one_line
from tega_zmq.shell.spec import Argument, Command, UsageError

CATEGORY = "Transaction"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")

_ONE_SESSION = (
    "a transaction lives in one session, and that of a single command ends with it:"
    " give all commands to one `tega`, on standard input or with -f FILE"
)


def begin(session: Session, args: argparse.Namespace) -> Result:
    """Open a transaction."""
    if args.name is None and session.transaction is not None:
        raise UsageError(
            f"the transaction {session.current} is open already; `commit` or `cancel` it first,"
            " or `begin NAME` another"
        )
    if args.name is not None:
        if not _NAME.fullmatch(args.name):
            raise UsageError(f"{args.name[:40]!a} is no name: letters, digits, - and _, 32 at most")
        if args.name in session.transactions:
            raise UsageError(f"the transaction {args.name} is open; `use {args.name}` goes on with it")
    transaction = session.client.begin()
    session.opened(args.name or transaction.txid[:8], transaction)
    data = {"txid": transaction.txid, "name": session.current}
    return Result(data, safe(f"transaction {args.name or transaction.txid}"))


def use(session: Session, args: argparse.Namespace) -> Result:
    """Go on with another open transaction, or with none."""
    if args.name is not None and args.name not in session.transactions:
        known = ", ".join(session.transactions) or "none is"
        raise UsageError(f"no transaction {args.name[:40]!a} is open; open: {known}")
    session.current = args.name or ""
    left = "no transaction is in use" + ("; what is open stays open" if session.transactions else "")
    return Result({"name": session.current or None}, f"transaction {args.name}" if args.name else left)


def transactions(session: Session, _: argparse.Namespace) -> Result:
    """List the open transactions of this shell."""
    data = [
        {"name": name, "txid": transaction.txid, "in_use": name == session.current}
        for name, transaction in session.transactions.items()
    ]
    rows = [("*" if each["in_use"] else "", each["name"], each["txid"]) for each in data]
    return Result(
        data, lambda paint: table(rows, ("", "name", "txid"), paint) if rows else "no transaction is open"
    )


def cand(session: Session, args: argparse.Namespace) -> Result:
    """Show the candidate and what it changes."""
    view = session.need_transaction().candidate()
    if args.patch or args.stat or args.leaves:
        return shown(view.changes, args, "nothing changed so far")
    changes = in_order(view.changes)
    data = {"candidate": view.roots, "changes": [change_data(change) for change in changes]}

    def text(paint: Paint) -> str:
        if not changes:
            return "nothing changed so far"
        return to_yaml(view.roots, paint) + "\n\n" + leaf_text(changes, paint)

    return Result(data, text)


def check(session: Session, _: argparse.Namespace) -> Result:
    """Tell what stands in the way of a commit."""
    problems = session.need_transaction().check()
    data = [
        {"error": each.code, "message": each.message, **{name: getattr(each, name) for name in each.fields}}
        for each in problems
    ]

    def text(paint: Paint) -> str:
        if not problems:
            return paint("it would commit", "green")
        return "\n".join(paint(one_line(each), "red") for each in problems)

    return Result(data, text)


def commit(session: Session, args: argparse.Namespace) -> Result:
    """Commit the open transaction."""
    transaction = session.need_transaction()
    try:
        committed = transaction.commit(**({} if args.message is None else {"message": args.message}))
    except (Timeout, Disconnected, Offline, OwnerAway, StorageError):
        raise  # the transaction may still be open: `commit` can be typed again
    except BaseException:
        session.closed()
        raise
    session.closed()
    return written(session, committed)


def cancel(session: Session, _: argparse.Namespace) -> Result:
    """Drop the open transaction."""
    transaction = session.need_transaction()
    session.closed()
    transaction.cancel()
    return Result({"cancelled": transaction.txid}, "cancelled")


COMMANDS = (
    Command(
        "begin",
        CATEGORY,
        "Open a transaction",
        begin,
        (Argument("NAME", "text", "what to call it, where several are open", required=False),),
        details="Until `commit` or `cancel`, put, patch, del and rollback go into it and get shows the\n"
        "candidate; others see nothing of it. It expires after 10 minutes without a command.\n"
        "Several can be open, each with a name: `use NAME` goes on with another one.",
        examples=("begin", "begin guest-net"),
        session_only=_ONE_SESSION,
    ),
    Command(
        "cand",
        CATEGORY,
        "Show what the transaction would make, and what it changes",
        cand,
        FORMS,
        examples=("cand", "cand --stat"),
        session_only=_ONE_SESSION,
    ),
    Command(
        "check",
        CATEGORY,
        "Show what a commit would fail with now: collisions, the schema",
        check,
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
    Command(
        "use",
        CATEGORY,
        "Go on with another open transaction, or with none",
        use,
        (Argument("NAME", "transaction", "its name; without it, commands go into none", required=False),),
        examples=("use guest-net", "use"),
        session_only=_ONE_SESSION,
    ),
    Command(
        "transactions",
        CATEGORY,
        "List the open transactions of this shell",
        transactions,
        session_only=_ONE_SESSION,
    ),
)
