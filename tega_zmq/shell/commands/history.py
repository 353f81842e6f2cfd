"""Versions: roots, old, log, diff, rollback, undo."""

from __future__ import annotations

import argparse
from typing import Any

from tega_zmq.client.results import Difference
from tega_zmq.errors import NotFound
from tega_zmq.paths import Path
from tega_zmq.shell.commands.data import MESSAGE, written
from tega_zmq.shell.commands.showing import FORMS, shown
from tega_zmq.shell.differences import change_data, plural
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
            found = session.client.log(path, limit=limit, since=args.since, by=args.by or "")
            entries += [(path[0], entry) for entry in found]
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
            "left_out": entry.left_out,
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
    if entry.left_out:
        lines.append(f"    {plural(entry.left_out, 'change')} left out: too many or too large for a list")
    return "\n".join([head, *lines])


def diff(session: Session, args: argparse.Namespace) -> Result:
    """Compare two versions, or two subtrees."""
    one = at_version(args.path)
    other = at_version(args.other) if args.other is not None else one._replace(version=None)
    if one == other:
        before = one._replace(version=-1)
        raise UsageError(f"{one} is compared with itself; name another version, as in diff {before}")
    found = session.client.diff(one.path, one.version, other.version, other_path=other.path)
    return shown(found, args, "no difference")


def rollback(session: Session, args: argparse.Namespace) -> Result:
    """Restore a version."""
    return _restore(session, args, args.version, args.message)


def undo(session: Session, args: argparse.Namespace) -> Result:
    """Take the last commit of a root back."""
    message = args.message
    if message is None and session.transaction is None:
        message = f"undo of {args.root}@{session.client.node(path_of(args.root)).version}"
    return _restore(session, args, -1, message)


def _restore(session: Session, args: argparse.Namespace, version: int | str, why: str | None) -> Result:
    path = path_of(args.root)
    if len(path) != 1:
        raise UsageError(f"{args.root}: only a whole root can be rolled back")
    if args.dry_run:
        return shown(_would_restore(session, path, version), args, "nothing would change")
    message: dict[str, str] = {}
    if why is not None and session.transaction is None:
        message["message"] = why
    return written(session, session.writer.rollback(path, version, **message))


def _would_restore(session: Session, path: Path, version: int | str) -> list[Difference]:
    """Return what leads from the present to `version`."""
    try:
        session.client.oids(path)
    except NotFound:  # a root that was deleted comes back as a whole
        value = session.client.get(path, version=version)
        return [Difference("", None, value, created=True, deleted=False)]
    return session.client.diff(path, None, version)


_DRY_RUN = Argument("--dry-run", "flag", "only show what would change")

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
            Argument("--since", "time", "only commits since 2026-11-20T12:00, or in the last 2h, 30min, 3d"),
            Argument("--by", "text", "only commits of this tega_id"),
        ),
        "A time without an offset is local time.",
        ("log config-pi1", "log config-pi1.net.eth0 -n 5", "log --since 2h --by noc-1"),
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
            *FORMS,
        ),
        "Lines with - stand only in the first, lines with + only in the second.\n"
        "The pointers of --patch begin at PATH; a list is replaced as a whole.",
        (
            "diff config-pi1@3 config-pi1@5",
            "diff config-pi1.net@-1",
            "diff config-pi1@2026-11-20T12:00 --stat",
            "diff config-pi1.net config-pi2.net --patch",
        ),
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
            _DRY_RUN,
            *FORMS,
        ),
        "VERSION is a number, -N to count back, a tag, or a time.",
        (
            "rollback config-pi1 3",
            "rollback config-pi1 -1 --message 'that did not work'",
            "rollback config-pi1 golden --dry-run",
        ),
    ),
    Command(
        "undo",
        CATEGORY,
        "Take the last commit of a root back, by a new commit",
        undo,
        (Argument("ROOT", "root", "the root"), MESSAGE, _DRY_RUN, *FORMS),
        "The same as `rollback ROOT -1`. After a rollback it restores what was there before;\n"
        "a second undo takes the first one back.",
        ("undo config-pi1", "undo config-pi1 --dry-run"),
    ),
)
