"""Make a data folder one that a node starts with, keep all that this changes, lose no more than must be.

What can be used is all up to the first record that is gone (`survey`). Files that are whole and in their
place stay as they are; others are written anew from the records in them. If something is lost, the log goes
on in a new generation, whose first record begins new epochs, so that replicas that saw more start over.
Of a damaged file of the history, what stands before the damage is kept.

A repair that is interrupted is undone by the next one. While it is going on, the file `repair` says so, and
no node starts:

1. write that file: where the former files are kept, which files are new, and which are moved away
2. write the new content under passing names
3. move what is changed or taken away into the folder `repair-N`
4. give the new files their names
5. look whether a node would start, with all that was promised
6. remove the file `repair`
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from tega_zmq.check.survey import Survey, survey
from tega_zmq.errors import StorageError
from tega_zmq.log import history, marks, salvage, segment, snapshot
from tega_zmq.log.commitlog import Options
from tega_zmq.log.disk import Disk
from tega_zmq.log.fileheader import SEGMENT, Header, check_store, pack
from tega_zmq.log.framing import encode, encode_seal, record_size, seed_of
from tega_zmq.log.records import encode_record
from tega_zmq.log.salvage import Run
from tega_zmq.log.scan import FoundSnapshot
from tega_zmq.store.history import next_epoch
from tega_zmq.store.model import NewEpochs, Root, Store
from tega_zmq.store.reading import owned_roots
from tega_zmq.tree.node import pairs

__all__ = ["Repaired", "repair", "undo"]

_NEW: Final = ".new"
_TITLE: Final = "tega-zmq repair"
_LOG_FOLDERS: Final = ("", f"{segment.LOG}/", f"{snapshot.FOLDER}/")
_FOLDERS: Final = (*_LOG_FOLDERS, f"{history.FOLDER}/")


class Repaired(NamedTuple):
    """What was done."""

    kept: str
    """The folder, within the data folder, that holds what was changed or taken away; empty: nothing was."""
    changed: tuple[str, ...]
    """Files that were written anew or made, within the data folder."""
    removed: tuple[str, ...]
    """Files that were taken away."""
    epochs: tuple[tuple[str, str], ...]
    """(root, its new epoch)."""
    versions: tuple[str, ...]
    """Which old versions are lost, in words."""


def undo(disk: Disk, folder: str) -> bool:
    """Undo a repair that was interrupted, and return whether there was one.

    It may be interrupted itself, and done again. Raises `OSError`, `StorageError`.
    """
    if marks.REPAIR not in disk.list(folder):
        return False
    path = f"{folder}/{marks.REPAIR}"
    file = disk.open(path)
    try:
        lines = file.read(0, file.size()).decode("utf-8", "replace").splitlines()
    finally:
        file.close()
    if len(lines) < 3 or lines[0] != _TITLE or lines[-1] != "end" or not lines[1].startswith("kept "):
        raise StorageError(
            f"{path}: it cannot be understood, so that the repair that was begun cannot be undone. The "
            f"former files are in the newest folder {folder}/repair-N: put them back, remove {path}, and "
            f"try again",
            reason="repair",
        )
    kept = f"{folder}/{lines[1].removeprefix('kept ')}"
    for line in lines[2:-1]:
        what, _, name = line.partition(" ")
        # A file that was moved is put back if it is still there to be; a new one never was there before.
        with suppress(FileNotFoundError):
            if what == "moved" and _is_there(disk, f"{kept}/{name}"):
                disk.rename(f"{kept}/{name}", f"{folder}/{name}")
            elif what == "new":
                disk.remove(f"{folder}/{name}")
        with suppress(FileNotFoundError):
            disk.remove(f"{folder}/{name}{_NEW}")
    _sync(disk, folder, kept)
    disk.remove(path)
    disk.sync_folder(folder)
    return True


def repair(
    disk: Disk, folder: str, found: Survey, fresh: Callable[[], str], *, note: bytes = b""
) -> Repaired:
    """Make the folder one that a node starts with; `found` is how it stands. `fresh` makes ids.

    `note` is kept as `report.json` beside the former files, for those who want to know later.

    Raises `StorageError` if that cannot be done, and `OSError` from the disk; then what was changed is
    undone, if the disk lets it be, or else by the next repair.
    """
    if found.whole:
        return Repaired("", (), (), (), ())
    there = {each.file for each in found.found}
    for name in (marks.STORE, marks.CLEAN):
        if name in disk.list(folder):
            there.add(name)
    final: dict[str, bytes | None] = dict.fromkeys(there)
    epochs: tuple[tuple[str, str], ...] = ()
    if not found.log_whole:
        final, epochs = _plan(disk, folder, found, fresh)
    broken = [each for each in found.flaws if each.kind == "history"]
    for flaw in broken:
        there.add(flaw.file)
        if flaw.usable:
            final[flaw.file] = _content(disk, f"{folder}/{flaw.file}")[: flaw.usable]
    contents = {name: content for name, content in final.items() if content is not None}
    removed = sorted(there - final.keys())
    moved = sorted((contents.keys() & there) | set(removed))
    kept = _free(disk, folder)
    for where in _FOLDERS if broken else _LOG_FOLDERS:
        disk.make_folder(f"{folder}/{kept}/{where}".rstrip("/"))
        disk.make_folder(f"{folder}/{where}".rstrip("/"))
    lines = [_TITLE, f"kept {kept}"]
    lines += [f"moved {name}" for name in moved]
    lines += [f"new {name}" for name in sorted(contents.keys() - there)]
    _write(disk, f"{folder}/{marks.REPAIR}", "\n".join([*lines, "end", ""]).encode())
    disk.sync_folder(folder)
    try:
        for name, content in contents.items():
            _write(disk, f"{folder}/{name}{_NEW}", content, rename=False)
        for name in moved:
            disk.rename(f"{folder}/{name}", f"{folder}/{kept}/{name}")
        for name in contents:
            disk.rename(f"{folder}/{name}{_NEW}", f"{folder}/{name}")
        _write(disk, f"{folder}/{kept}/report.json", note)
        _sync(disk, folder, f"{folder}/{kept}")
        _prove(disk, folder, found, bool(epochs))
    except (OSError, StorageError):
        with suppress(OSError):
            undo(disk, folder)
        raise
    disk.remove(f"{folder}/{marks.REPAIR}")
    disk.sync_folder(folder)
    return Repaired(
        kept, tuple(sorted(contents)), tuple(removed), epochs, tuple(flaw.lost for flaw in broken)
    )


def _is_there(disk: Disk, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return name in disk.list(folder)


def _free(disk: Disk, folder: str) -> str:
    number = 1
    while any(disk.list(f"{folder}/repair-{number}/{where}".rstrip("/")) for where in _FOLDERS):
        number += 1
    return f"repair-{number}"


def _write(disk: Disk, path: str, content: bytes, *, rename: bool = True) -> None:
    """Write a file, synced; with `rename`, it gets its name when it is whole."""
    file = disk.create(f"{path}.tmp" if rename else path)
    try:
        file.write(0, content)
        file.sync()
    finally:
        file.close()
    if rename:
        disk.rename(f"{path}.tmp", path)


def _sync(disk: Disk, folder: str, kept: str) -> None:
    for above in (kept, folder):
        for where in _FOLDERS:
            with suppress(FileNotFoundError):
                disk.sync_folder(f"{above}/{where}".rstrip("/"))


def _prove(disk: Disk, folder: str, before: Survey, epochs: bool) -> None:
    """Look at what was made as a start does. Raises `StorageError` if it is not what it should be."""
    after = survey(disk, folder, repairing=True)
    good = (
        after is not None
        and not after.refusal
        and not any(each.kind == "history" for each in after.flaws)
        and after.last == before.last + epochs
        and after.state.revision == before.state.revision
        and after.state.leases == before.state.leases
        and _roots(after.state) == _roots(before.state)
    )
    if not good:
        why = after.refusal if after is not None else "nothing is there"
        raise StorageError(
            f"{folder}: the repair did not lead to what it should, and was undone. {why}", reason="repair"
        )


def _roots(state: Store) -> dict[str, Root]:
    return {name: root._replace(epoch="") for name, root in pairs(state.roots)}


# -- what the folder shall hold --------------------------------------------------------------------


def _plan(
    disk: Disk, folder: str, found: Survey, fresh: Callable[[], str]
) -> tuple[dict[str, bytes | None], tuple[tuple[str, str], ...]]:
    """Return the files that shall be there (None: as they are), and the new epochs."""
    store = found.store or check_store(fresh())
    base, runs = _oldest_base(found)
    final: dict[str, bytes | None] = {}
    if marks.STORE in disk.list(folder) and isinstance(marks.read(disk, folder, "store"), marks.Mark):
        final[marks.STORE] = None
    else:
        final[marks.STORE] = marks.text("store", marks.Mark(store))
    newest = _lsn(found.base)
    for each in salvage.bases(found.found, store):
        if _lsn(base) <= _lsn(each) <= newest:
            name = f"{snapshot.FOLDER}/{snapshot.name_of(_lsn(each))}"
            if each.lsn == _lsn(each):
                final[name] = None
            elif name not in final:
                final[name] = _content(disk, f"{folder}/{each.file}")
    lossy = found.lost is not None
    for index, run in enumerate(runs):
        following = runs[index + 1].first if index + 1 < len(runs) else 0
        final.update(_placed(disk, folder, run, following, lossy))
    if lossy or not runs:
        size = max((each.header.size for each in found.segments if each.header), default=Options().segment)
        first = found.last + 1
        generation = max((each.header.generation for each in found.found if each.header), default=0) + 1
        # Records of former generations with numbers from here on do not count any more.
        header = Header(store, generation, first, first, size)
        owned = owned_roots(found.state) if lossy else []
        epochs = tuple((name, next_epoch(found.state.roots[name].epoch, fresh())) for name in owned)
        payloads = [encode_record(NewEpochs(epochs))] if epochs else []
        final[f"{segment.LOG}/{segment.name_of(first)}"] = _segment(header, payloads, 0)
        return final, epochs
    if found.clean == found.last and marks.CLEAN in disk.list(folder):
        final[marks.CLEAN] = None
    return final, ()


def _lsn(base: FoundSnapshot | None) -> int:
    return base.header.lsn if base is not None and base.header is not None else 0


def _oldest_base(found: Survey) -> tuple[FoundSnapshot | None, tuple[Run, ...]]:
    """Return the oldest base that leads to the last record that can be used, and the records after it."""
    whole = [each for each in salvage.bases(found.found, found.store) if _lsn(each) <= _lsn(found.base)]
    for base in (None, *reversed(whole)):
        runs = salvage.longest(found.found, found.store, base)
        if runs and runs[-1].last >= found.last > 0:
            return base, tuple(
                run._replace(last=min(run.last, found.last)) for run in runs if run.first <= found.last
            )
    return found.base, found.runs


def _placed(disk: Disk, folder: str, run: Run, following: int, lossy: bool) -> dict[str, bytes | None]:
    """Return the segment for `run`, as it is if it will do; `following`: what the next one begins with."""
    source, stretch = run.source, run.stretch
    whole = source.in_place and stretch.offset == segment.DATA and stretch.first == source.header.lsn
    name = f"{segment.LOG}/{segment.name_of(source.header.lsn)}"
    if whole and (following or (not lossy and source.found.end in ("end", "torn"))):
        return {name: None}
    last = following == 0
    payloads = [payload for _, _, payload in salvage.read(disk, folder, run)]
    first = source.header.lsn if whole else run.first
    if whole:
        everything = run._replace(first=stretch.first)
        payloads = [payload for _, _, payload in salvage.read(disk, folder, everything)]
    header = source.header._replace(lsn=first)
    # With a seal, if another segment follows: should that one be lost, it is noticed.
    seal = run.last + 1 if lossy or not last else 0
    return {f"{segment.LOG}/{segment.name_of(first)}": _segment(header, payloads, seal)}


def _segment(header: Header, payloads: list[bytes], seal: int) -> bytes:
    """Return the content of a segment; `seal`: the first record of the one that follows, or 0."""
    size = sum(record_size(len(payload)) for payload in payloads)
    length = max(header.size, segment.room_for(size))
    header = header._replace(size=length)
    seed = seed_of(header.store, header.lsn)
    content = pack(SEGMENT, header).ljust(segment.DATA, b"\0")
    content += encode(payloads, header.lsn, header.lsn - 1, seed, segment.DATA)
    if seal:
        return content + encode_seal(seal, seed, len(content))
    return content.ljust(length, b"\0")


def _content(disk: Disk, path: str) -> bytes:
    file = disk.open(path)
    try:
        return file.read(0, file.size())
    finally:
        file.close()
