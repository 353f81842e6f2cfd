"""Versions: roots, old, log, diff, rollback."""

from __future__ import annotations

import argparse
from typing import Any

from tega_zmq.errors import NotFound
from tega_zmq.shell.commands.data import MESSAGE, written
from tega_zmq.shell.commands.transactions import change_data, changes_text
from tega_zmq.shell.output import Paint, Result, ago, flow, leaves, safe, table, when
from tega_zmq.shell.session import Session, at_version, path_of
from tega_zmq.shell.spec import Argument, Command, UsageError

CATEGORY = "History"

_SHOWN = 10
"""Most changes of one commit that `log` shows without --json."""


def roots(session: Session, _: argparse.Namespace) -> Result:
    """List the roots."""
    found: list[dict[str, Any]] = session.client.inspect("roots")
    rows = [
        (
            each["root"],
            each["version"],
            each["owner"],
            ago(each["age"]),
        )
        for each in found
    ]
    return Result(
        found, lambda paint: table(rows, ("root", "version", "owner", "heard"), paint) if rows else "no roots"
    )


def old(session: Session, _: argparse.Namespace) -> Result:
    """List which versions are kept."""
    found: list[dict[str, Any]] = session.client.inspect("old")
    rows = [
        (
            each["root"],
            "{}..{}".format(*each["versions"]),
            "{}..{}".format(*each["updates"]) if each["updates"] else None,
            "deleted" if each["deleted"] else "",
        )
        for each in found
    ]
    heads = ("root", "versions", "commits", "")
    return Result(found, lambda paint: table(rows, heads, paint) if rows else "no versions")


def log(session: Session, args: argparse.Namespace) -> Result:
    """List commits."""
    limit = args.limit or 20
    if args.path is not None:
        named = [path_of(args.path)]
    else:
        named = [(each["root"],) for each in session.client.inspect("roots")]
    entries: list[tuple[str, Any]] = []
    for path in named:
        try:
            entries += [(path[0], entry) for entry in session.client.log(path, limit=limit)]
        except NotFound:
            if args.path is not None:
                raise  # without a path: the root went meanwhile
    if args.path is None:
        entries.sort(key=lambda each: each[1].time, reverse=True)
    entries = entries[:limit]
    data = [
        {
            "root": root,
            "version": entry.version,
            "time": entry.time,
            "tega_id": entry.tega_id,
            "message": entry.message,
            "backto": entry.backto,
            "changes": [change_data(change._replace(created=True)) for change in entry.changes],
        }
        for root, entry in entries
    ]

    def text(paint: Paint) -> str:
        return "\n".join(_entry(root, entry, paint) for root, entry in entries) or "no commits"

    return Result(data, text)


def _entry(root: str, entry: Any, paint: Paint) -> str:
    head = paint(safe(f"{root}@{entry.version}", lines=False), "yellow")
    head += f"  {when(entry.time)}  {paint(safe(entry.tega_id, lines=False), 'cyan')}"
    if entry.backto is not None:
        head += f"  rollback to {entry.backto}"
    if entry.message:
        head += "  " + safe(entry.message, lines=False)
    lines: list[str] = []
    for change in sorted(entry.changes, key=lambda each: each.path):
        if change.deleted:
            lines.append(paint(safe(f"    - {change.path}", lines=False), "red"))
        else:
            lines += [
                paint(safe(f"    + {at}: {flow(leaf, 120)}", lines=False), "green")
                for at, leaf in leaves(change.path, change.new)
            ]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"    and {len(lines) - _SHOWN} more"]
    return "\n".join([head, *lines])


def diff(session: Session, args: argparse.Namespace) -> Result:
    """Compare two versions, or two subtrees."""
    one = at_version(args.path)
    other = at_version(args.other) if args.other is not None else one._replace(version=None)
    if one == other:
        raise UsageError(f"{one} is compared with itself; name a version, as in diff {one}@-1")
    found = session.client.diff(one.path, one.version, other.version, other_path=other.path)
    return Result(
        [change_data(change) for change in found],
        lambda paint: changes_text(found, paint) if found else "no difference",
    )


def rollback(session: Session, args: argparse.Namespace) -> Result:
    """Restore a version."""
    path = path_of(args.root)
    if len(path) != 1:
        raise UsageError(f"{args.root}: only a whole root can be rolled back")
    message: dict[str, str] = {}
    if args.message is not None and session.transaction is None:
        message["message"] = args.message
    return written(session, session.writer.rollback(path, args.version, **message))


COMMANDS = (
    Command("roots", CATEGORY, "List the roots: version and owner", roots),
    Command("old", CATEGORY, "List which versions of each root are kept, deleted roots too", old),
    Command(
        "log",
        CATEGORY,
        "List the commits that touched a path, newest first",
        log,
        (
            Argument("PATH", "path", "a root or a node in it; without it, all roots", required=False),
            Argument("--limit", "number", "at most so many commits (default 20)", short="-n"),
        ),
        examples=("log config-pi1", "log config-pi1.net.eth0 -n 5"),
    ),
    Command(
        "diff",
        CATEGORY,
        "Show what is different between two versions, or two subtrees",
        diff,
        (
            Argument("PATH", "path@version", "the older side"),
            Argument(
                "OTHER", "path@version", "the newer side; without it, PATH as it is now", required=False
            ),
        ),
        "Lines with - stand only in the first, lines with + only in the second.",
        ("diff config-pi1@3 config-pi1@5", "diff config-pi1.net@-1", "diff config-pi1.net config-pi2.net"),
    ),
    Command(
        "rollback",
        CATEGORY,
        "Restore a version of a root, by a new commit",
        rollback,
        (
            Argument("ROOT", "root", "the root"),
            Argument("VERSION", "version", "the version to restore; -1 is the one before the present"),
            MESSAGE,
        ),
        examples=("rollback config-pi1 3", "rollback config-pi1 -1 --message 'that did not work'"),
    ),
)
