"""What is wrong with the history, the old versions on the disk. Changes nothing."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tega_zmq.errors import StorageError
from tega_zmq.log.disk import Disk
from tega_zmq.log.history import FOLDER, frames
from tega_zmq.paths import format_path

__all__ = ["Flaw", "flaws"]


class Flaw(NamedTuple):
    """Something that is wrong with a file of the history."""

    kind: Literal["history", "torn", "note"]
    """history: versions in it cannot be read. torn: so is the end of the newest file of a root, which a start
    cuts off and takes from the log again. note: versions before it are missing, and the files are good."""
    file: str
    """Within the data folder."""
    offset: int
    """Where the damage begins."""
    what: str
    usable: int
    """Of a damaged file, how many bytes at its beginning can be used; 0: its checkpoint cannot."""
    lost: str
    """Which versions cannot be read."""


class _Read(NamedTuple):
    """One file, as far as it can be read."""

    file: str
    stem: str
    number: int
    root: str
    """Empty: its beginning cannot be read."""
    line: int
    first: int
    last: int
    whole: bool
    """Its checkpoint is."""
    offset: int
    fault: str
    """Empty: all of it can be read."""


def flaws(disk: Disk, folder: str) -> tuple[Flaw, ...]:
    """Return what is wrong with the history in the data folder. Raises `OSError`."""
    found = [
        _read(disk, folder, file)
        for file in sorted(disk.list(f"{folder}/{FOLDER}"))
        if file.endswith(".hist")
    ]
    told: list[Flaw] = []
    for at, each in enumerate(found):
        after = found[at + 1] if at + 1 < len(found) and found[at + 1].stem == each.stem else None
        before = found[at - 1] if at and found[at - 1].stem == each.stem else None
        if before is not None and not before.fault and _gap(before, each):
            missing = f"versions {before.last + 1} to {each.first - 1} of {format_path((each.root,))}"
            told.append(
                Flaw("note", f"{FOLDER}/{each.file}", 0, f"{missing} are missing before it", 0, missing)
            )
        if each.fault:
            told.append(_flaw(each, after))
    return tuple(told)


def _gap(before: _Read, after: _Read) -> bool:
    goes_on = (before.number + 1, before.root, before.line) == (after.number, after.root, after.line)
    return goes_on and before.last < after.first - 1


def _flaw(each: _Read, after: _Read | None) -> Flaw:
    name = format_path((each.root,)) if each.root else f"the root of {each.stem}"
    if each.whole and after is None:
        kind: Literal["history", "torn"] = "torn"
        lost = f"versions of {name} after {each.last}, as far as the log lacks them"
    else:
        kind = "history"
        first = each.last + 1 if each.whole else each.first
        if after is not None and (after.root, after.line) == (each.root, each.line) and after.first > first:
            lost = f"versions {first} to {after.first - 1} of {name}"
        else:
            lost = f"versions of {name} from {first} on, as far as no other file has them"
    usable = each.offset if each.whole else 0
    return Flaw(kind, f"{FOLDER}/{each.file}", each.offset, each.fault, usable, lost)


def _read(disk: Disk, folder: str, file: str) -> _Read:
    stem, _, number = file[: -len(".hist")].rpartition("-")
    if not (number.isascii() and number.isdigit()):
        return _Read(file, file, 0, "", 0, 0, 0, False, 0, "its name is not one of the history")
    root, line, first, last, whole, offset = "", 0, 0, 0, False, 0
    fault = ""
    try:
        size = 0
        for at, _, plain in frames(disk, folder, file):
            offset, size = at, size + 1
            if plain[0] == 1:
                root, line, first = plain[2], plain[3], plain[5]
                last = first
            elif plain[0] == 4:
                whole = True
            elif plain[0] == 5:
                last = plain[-1][3]
        if not whole:
            fault = "its checkpoint is incomplete" if size else "it is empty"
    except StorageError as error:
        fault = error.message.partition(";")[0]
        offset = _offset(fault)
    except (ValueError, TypeError, IndexError) as error:
        fault = f"the frame at byte {offset} cannot be understood: {error!r:.100}"
    return _Read(file, stem, int(number), root, line, first, last, whole, offset, fault)


def _offset(text: str) -> int:
    """Return the offset that an error of `frames` names."""
    digits = text.partition(" at byte ")[2].partition(":")[0]
    return int(digits) if digits.isdigit() else 0
