"""Backups: backup, restore."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from tega_zmq.errors import InvalidValue
from tega_zmq.shell.commands.documents import CATEGORY
from tega_zmq.shell.differences import plural
from tega_zmq.shell.output import Result, is_standard_output, safe
from tega_zmq.shell.session import Session
from tega_zmq.shell.spec import Argument, Command, UsageError


def backup(session: Session, args: argparse.Namespace) -> Result:
    """Write every version to a file."""
    from tega_zmq.client import backup as backups

    standard = args.file == "-" or is_standard_output(args.file)
    with _standard_output(session) if standard else contextlib.nullcontext(args.file) as file:
        summary = backups.backup(session.client, file, progress=session.around.progress)
    for root, first, last in summary.gaps:
        versions = f"version {last}" if first == last else f"versions {first} to {last}"
        session.around.note(
            f"backup: {versions} of {safe(root, lines=False)} cannot be read any more, and left out"
        )
    if standard:
        return _told(summary, args.file, "written to standard output")._replace(aside=True)
    return _told(summary, args.file, f"written to {args.file}")


def restore(session: Session, args: argparse.Namespace) -> Result:
    """Put a backup into an empty broker."""
    from tega_zmq.client import backup as backups

    with _standard_input(session) if args.file == "-" else contextlib.nullcontext(args.file) as file:
        summary = backups.restore(session.client, file, progress=session.around.progress)
    name = "standard input" if args.file == "-" else args.file
    return _told(summary, args.file, f"restored from {name}")


@contextlib.contextmanager
def _standard_output(session: Session) -> Iterator[BinaryIO]:
    """Open standard output for a backup. Raises `UsageError` where other things go there."""
    if session.around.mode != "one-shot":
        raise UsageError("standard output is where the results go: name a file")
    if sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and a backup is no text: name a file, or redirect it"
        )
    sys.stdout.flush()
    # Not `sys.stdout.buffer`: what it could not write it would try to write once more at the end.
    file = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115 - its end must not raise
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # it was flushed, or could not be and that is on its way
            file.close()


@contextlib.contextmanager
def _standard_input(session: Session) -> Iterator[BinaryIO]:
    """Keep what comes on standard input in a file that has no name, since a backup is read twice.

    Raises `UsageError` where the commands come from there.
    """
    import shutil
    import tempfile

    if session.around.mode != "one-shot":
        raise UsageError("standard input is where the commands come from: name a file")
    with tempfile.TemporaryFile() as file:
        try:
            shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            raise InvalidValue(f"standard input: cannot be kept: {error.strerror or error}") from None
        yield file


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
        (Argument("FILE", "file", "the file, replaced when the backup is whole; - is standard output"),),
        "The broker goes on meanwhile; the backup is of the moment at which it began. Operational roots are\n"
        "not in it: their agents have them. Versions that cannot be read any more are left out, and named.",
        ("backup site.tega",),
    ),
    Command(
        "restore",
        CATEGORY,
        "Put a backup into an empty broker",
        restore,
        (Argument("FILE", "file", "what `backup` wrote; - is standard input"),),
        "The file is checked before anything is sent. All versions and tags come back; replicas start over.",
        ("restore site.tega",),
    ),
)
