"""`tega-check DIR`: the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from tega_zmq.check import report
from tega_zmq.check.export import at_revision, document
from tega_zmq.check.repair import repair, undo
from tega_zmq.check.survey import Survey, survey
from tega_zmq.errors import NotFound, StorageError
from tega_zmq.log import marks, segment, snapshot
from tega_zmq.log.disk import Disk, HeldError, Lock, OsDisk, ReadingDisk
from tega_zmq.version import __version__

__all__ = ["CANNOT", "DAMAGED", "LOST", "USAGE", "WHOLE", "main"]

WHOLE: Final = 0
"""The folder is whole, or is so again and nothing was lost; the export holds what was asked for."""
DAMAGED: Final = 1
"""Something is damaged; an export holds what can be read, up to the last good revision."""
USAGE: Final = 2
LOST: Final = 3
"""The folder was repaired, and something was lost."""
CANNOT: Final = 4
"""It could not be done: not a data folder, held by a node, not readable, no such revision, a full disk."""

_EPILOG: Final = """\
Exit status:
  0  whole; repaired without a loss; exported
  1  damaged (with --export: what can be read was written, up to the last good revision)
  2  wrong usage
  3  repaired, and something was lost, which is said
  4  it could not be done: no data folder, held by a node, not readable, no such revision, no space

Without an option it only looks, and changes nothing. A repair keeps all files that it changes or takes
away in the folder repair-N within DIR. A write that was interrupted is no damage: a start cuts it off."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tega-check",
        description="Look at the data folder of a broker or an agent that is stopped; repair it; export it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", help="the data folder (`data_dir` of the node)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--repair", action="store_true", help="make it a folder that a node starts with")
    what.add_argument(
        "--export",
        metavar="FILE",
        help="write the tree, as `tega import` takes it: YAML, or JSON if FILE ends in .json; - is stdout",
    )
    parser.add_argument(
        "--revision", metavar="N", type=_number, help="with --export: which one; without it, the newest"
    )
    parser.add_argument("--json", action="store_true", help="report as JSON, with all details")
    parser.add_argument("--version", action="version", version=f"tega-check {__version__}")
    return parser


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"a revision is a number from 0 on, not {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line `argv` says; return the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.revision is not None and args.export is None:
        parser.error("--revision goes with --export")
    disk: Disk = OsDisk() if args.repair else ReadingDisk()
    folder = os.path.normpath(args.folder)
    try:
        lock = _lock(disk, folder)
        try:
            status = _run(disk, folder, args)
        finally:
            if lock is not None:
                lock.release()
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the report has seen enough; nothing may be written at the exit either.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CANNOT
    except HeldError as error:
        holder = f"process {error.pid}" if error.pid else "another process"
        return _refuse(f"{folder} is in use by {holder}; stop it first")
    except (StorageError, NotFound) as error:
        return _refuse(error.message)
    except MemoryError:
        return _refuse(f"{folder}: there is not enough memory to read it")
    except KeyboardInterrupt:
        return _refuse("interrupted")
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else folder
        return _refuse(f"{where}: {error.strerror or error}")
    return status


def _refuse(message: str) -> int:
    with suppress(OSError):
        print(f"tega-check: {message}", file=sys.stderr)  # noqa: T201  (a command speaks to its terminal)
    return CANNOT


def _tell(args: argparse.Namespace, plain: Any, text: str) -> None:
    """Write the report where an export to the standard output is not in its way."""
    where = sys.stderr if args.export == "-" else sys.stdout
    if args.json:
        text = json.dumps(plain, indent=2, ensure_ascii=True) + "\n"
    where.write(text.encode(errors="backslashreplace").decode())


def _lock(disk: Disk, folder: str) -> Lock | None:
    """Keep nodes away from the folder, if there is something that a node could have locked."""
    if not os.path.isdir(folder):
        what = "it is not a folder" if os.path.lexists(folder) else "there is no such folder"
        raise StorageError(f"{folder}: {what}", reason="no folder")
    top = os.listdir(folder)
    if "lock" not in top:
        # One without a lock was never used, or is a copy. Nothing is made in a folder that may be of others.
        ours = marks.STORE in top or segment.names(disk, folder) or snapshot.names(disk, folder)
        if not ours or isinstance(disk, ReadingDisk):
            return None
    return disk.lock(f"{folder}/lock")


def _run(disk: Disk, folder: str, args: argparse.Namespace) -> int:
    undone = args.repair and undo(disk, folder)
    found = survey(disk, folder)
    if found is None:
        if args.export is not None:
            raise NotFound(f"{folder}: nothing was ever written there, so that there is nothing to export")
        text = f"{folder}: empty; nothing was ever written there\n"
        _tell(args, {"folder": folder, "empty": True, "whole": True}, text)
        return WHOLE
    if args.export is not None:
        return _export(disk, found, args)
    if not args.repair:
        _tell(args, report.as_plain(found), report.as_text(found))
        return WHOLE if found.whole else DAMAGED
    plain = report.as_plain(found)
    note = json.dumps(plain, indent=2).encode()
    done = repair(disk, folder, found, lambda: os.urandom(16).hex(), note=note)
    text = "a repair that was interrupted was undone\n" if undone else ""
    text += report.as_text(found) + "\n" + report.repaired_as_text(done) + "\n"
    _tell(args, {**plain, "undone": undone, "repaired": report.repaired_as_plain(done)}, text)
    return LOST if found.lost is not None or done.versions else WHOLE


def _export(disk: Disk, found: Survey, args: argparse.Namespace) -> int:
    from tega_zmq.runtime import yamlio

    newest = found.state.revision
    revision = newest if args.revision is None else args.revision
    state = at_revision(disk, found, revision)
    whole = document(state)
    if args.export == "-":
        sys.stdout.write(yamlio.dump(whole))
        sys.stdout.flush()
    else:
        yamlio.save_file(args.export, whole)
    plain = {
        "folder": found.folder,
        "file": args.export,
        "revision": revision,
        "last_good_revision": newest,
        "roots": sorted(whole),
        "whole": found.whole,
        "lost": report.lost_as_plain(found.lost),
    }
    text = f"revision {revision} of {found.folder}: {len(whole)} roots written to {args.export}\n"
    if found.lost is not None:
        text += report.lost_as_text(found.lost) + "\n"
    _tell(args, plain, text)
    return DAMAGED if found.lost is not None and args.revision is None else WHOLE


if __name__ == "__main__":
    sys.exit(main())
