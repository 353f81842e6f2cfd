"""Versions: roots, old, log, diff, rollback, undo."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from tega_zmq.client.results import Difference
from tega_zmq.errors import NotFound, TegaError
from tega_zmq.paths import Path, format_path
from tega_zmq.shell.commands.data import MESSAGE, written
from tega_zmq.shell.commands.showing import FORMS, shown
from tega_zmq.shell.differences import between, change_data, plural
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
            format_path((each["root"],)),
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
            format_path((each["root"],)),
            ", ".join("{}..{}".format(*span) for span in each["readable"]),
            "{}..{}".format(*each["versions"]),
            "deleted" if each["deleted"] else "",
        )
        for each in found
    ]
    heads = ("root", "versions", "in memory", "")
    return Result(found, lambda paint: table(rows, heads, paint) if rows else "no versions")


def log(session: Session, args: argparse.Namespace) -> Result:
    """List commits."""
    limit = args.limit or 20
    if args.path is not None:
        named = [path_of(args.path)]
    else:
        # Not `roots`, which leaves out those that were deleted: who did that is seen only here.
        named = [(each["root"],) for each in session.client.inspect("old")]
    entries: list[tuple[str, Any]] = []
    gaps: list[tuple[str, Any]] = []
    for path in named:
        try:
            found = session.client.log(path, limit=limit, since=args.since, by=args.by or "")
            entries += [(path[0], entry) for entry in found]
            gaps += [(path[0], gap) for gap in found.gaps]
        except NotFound:
            if args.path is not None:
                raise  # without a path: the store was cleared meanwhile
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

    for root, gap in gaps:
        session.around.note(safe(f"{root}: {gap}", lines=False))

    def text(paint: Paint) -> str:
        return "\n".join(_entry(root, entry, paint) for root, entry in entries) or "no commits"

    return Result(data, text)


def _entry(root: str, entry: Any, paint: Paint) -> str:
    head = paint(safe(f"{format_path((root,))}@{entry.version}", lines=False), "yellow")
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
    return _restore(session, args, path_of(args.root), args.version, args.message)


def undo(session: Session, args: argparse.Namespace) -> Result:
    """Take the last commit of a root back."""
    path = path_of(args.root)
    last = _last_version(session, path)
    message = args.message
    if message is None:
        message = f"undo of {format_path(path)}" + ("" if last is None else f"@{last}")
    # Before its first version there was no root.
    return _restore(session, args, path, None if last == 0 else -1, message)


def _last_version(session: Session, path: Path) -> int | None:
    """Return the last version of a root, of a deleted one too, or None: not known. Raises `NotFound`."""
    for each in session.client.inspect("old"):
        if each["root"] == path[0]:
            version: int = each["versions"][1]
            return version
    entries = session.client.log(path, limit=1)  # not here, so its owner says
    return entries[0].version if entries else None


def _restore(
    session: Session, args: argparse.Namespace, path: Path, version: int | str | None, why: str | None
) -> Result:
    """Restore `version` of a root; None is what was there before version 0: nothing."""
    if args.dry_run:
        return shown(_would_restore(session, path, version), args, "nothing would change")
    message: dict[str, str] = {}
    if why is not None and session.transaction is None:
        message["message"] = why
    if version is None:
        return written(session, session.writer.delete(path, version=0, **message))
    return written(session, session.writer.rollback(path, version, **message))


def _would_restore(session: Session, path: Path, version: int | str | None) -> list[Difference]:
    """Return what leads from what is there, in a transaction from its candidate, to `version`."""
    if session.transaction is not None:
        made = session.transaction.candidate().roots
        if path[0] in made:
            return between(made[path[0]], _tree_at(session, path, version))
    try:
        session.client.oids(path)
    except NotFound:  # a root that was deleted comes back as a whole
        return between(None, _tree_at(session, path, version))
    if version is None:
        return between(_tree_at(session, path, 0), None)
    return session.client.diff(path, None, version)


def _tree_at(session: Session, path: Path, version: int | str | None) -> Any:
    """Return the tree of a root at `version`, None if there was none. Raises as a rollback to it would."""
    if version is None:
        return None
    try:
        return session.client.get(path, version=version)
    except NotFound:
        _try(session, path, version)
    return None  # there is such a version, of when the root was deleted


def _try(session: Session, path: Path, version: int | str) -> None:
    """Raise what a rollback to `version` would raise."""
    transaction = session.client.begin()
    try:
        transaction.rollback(format_path(path), version)
        problems = transaction.check()
    finally:
        with contextlib.suppress(TegaError):  # it goes with the session
            transaction.cancel()
    if problems:
        raise problems[0]


_DRY_RUN = Argument("--dry-run", "flag", "only show what would change")

COMMANDS = (
    Command("roots", CATEGORY, "List the roots: version and owner", roots),
    Command(
        "old",
        CATEGORY,
        "List which versions of each root can be read, deleted roots too",
        old,
        details="Versions that are missing between those that can be read are left out: 0..99, 250..300.",
    ),
    Command(
        "log",
        CATEGORY,
        "List the commits that touched a path, newest first",
        log,
        (
            Argument(
                "PATH",
                "path",
                "a root or a node in it; without it, all roots, deleted ones too",
                required=False,
            ),
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
        "The same as `rollback ROOT -1`: a root that was deleted comes back. After a rollback it restores\n"
        "what was there before; a second undo takes the first one back. The undo of a root's first commit\n"
        "deletes the root.",
        ("undo config-pi1", "undo config-pi1 --dry-run"),
    ),
)
