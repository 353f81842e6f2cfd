"""Backups: backup, restore."""

from __future__ import annotations

import argparse
from typing import Any

from tega_zmq.shell.commands.documents import CATEGORY
from tega_zmq.shell.differences import plural
from tega_zmq.shell.output import Result, safe
from tega_zmq.shell.session import Session
from tega_zmq.shell.spec import Argument, Command


def backup(session: Session, args: argparse.Namespace) -> Result:
    """Write every version to a file."""
    from tega_zmq.client import backup as backups

    summary = backups.backup(session.client, args.file, progress=session.around.progress)
    for root, first, last in summary.gaps:
        versions = f"version {last}" if first == last else f"versions {first} to {last}"
        session.around.note(
            f"backup: {versions} of {safe(root, lines=False)} cannot be read any more, and left out"
        )
    return _told(summary, args.file, f"written to {args.file}")


def restore(session: Session, args: argparse.Namespace) -> Result:
    """Put a backup into an empty broker."""
    from tega_zmq.client import backup as backups

    summary = backups.restore(session.client, args.file, progress=session.around.progress)
    return _told(summary, args.file, f"restored from {args.file}")


def _told(summary: Any, file: str, what: str) -> Result:
    counts = ", ".join(
        plural(count, name)
        for count, name in zip(summary[:3], ("root", "commit", "tag"), strict=True)
        if count or name != "tag"
    )
    return Result({**summary._asdict(), "file": file}, safe(f"{counts} {what}"))


COMMANDS = (
    Command(
        "backup",
        CATEGORY,
        "Write every version of every root of the broker to a file, with who, when and why",
        backup,
        (Argument("FILE", "file", "the file; it is replaced when the backup is whole"),),
        "The broker goes on meanwhile; the backup is of the moment at which it began. Operational roots are\n"
        "not in it: their agents have them. Versions that cannot be read any more are left out, and named.",
        ("backup site.tega",),
    ),
    Command(
        "restore",
        CATEGORY,
        "Put a backup into an empty broker",
        restore,
        (Argument("FILE", "file", "what `backup` wrote"),),
        "The file is checked before anything is sent. All versions and tags come back; replicas start over.",
        ("restore site.tega",),
    ),
)
