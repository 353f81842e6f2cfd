"""What a data folder holds, what is wrong with it, and what of it can be used. Changes nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from tega_zmq.check.oldversions import Flaw, flaws
from tega_zmq.errors import ProtocolError, StorageError, TegaError
from tega_zmq.log import history, marks, recovery, salvage, segment, snapshot
from tega_zmq.log.disk import Disk
from tega_zmq.log.records import decode_chunk, decode_record
from tega_zmq.log.salvage import Run
from tega_zmq.log.scan import FoundSegment, FoundSnapshot, scan, store_of
from tega_zmq.store.applying import apply, empty
from tega_zmq.store.model import Kept, Store
from tega_zmq.store.snapshot import load

__all__ = ["ALL", "Lost", "Problem", "Stored", "Survey", "load_base", "survey"]

ALL: Final = Kept(2**62, 2**62)
"""Keep all history that the files hold, whatever the node is told to keep."""

Found = FoundSnapshot | FoundSegment


class Problem(NamedTuple):
    """Something that is wrong."""

    kind: Literal["damage", "spare", "history", "torn", "note"]
    """damage: a node does not start. spare: it starts and nothing is lost, but something that it could fall
    back on is gone. history: old versions cannot be read; a node starts with all else. torn: a write that
    was interrupted; a start cuts it off. note: good to know."""
    file: str
    """Within the data folder."""
    offset: int
    lsn: int
    """The record that stands there, or should; 0: no matter."""
    revision: int | None
    """The last revision before that record, as far as it can be read; None: nothing before it can."""
    what: str


class Stored(NamedTuple):
    """A record that can be read and yet not be used."""

    lsn: int
    file: str
    offset: int
    payload: bytes


class Lost(NamedTuple):
    """What cannot be saved."""

    first: int
    """The first record."""
    last: int
    """The last one that is known of."""
    more: bool
    """There may have been more after it."""
    revision: int
    """The first revision that is lost, if any is."""
    readable: tuple[Stored, ...]
    """Those that can be read, but follow on what is gone."""


class Survey(NamedTuple):
    """A data folder."""

    folder: str
    store: str
    """The id of the store; empty: there is nothing yet, or it cannot be told."""
    found: tuple[Found, ...]
    refusal: str
    """Why a node does not start with it; empty: it does."""
    base: FoundSnapshot | None
    runs: tuple[Run, ...]
    last: int
    """The last record that can be used."""
    state: Store
    """What all records up to it make."""
    clean: int
    """The last record when the node was stopped in order; -1: it was not, or the mark is not valid."""
    problems: tuple[Problem, ...]
    lost: Lost | None
    flaws: tuple[Flaw, ...]
    """Of the history; they stand among the problems too."""
    unfinished: bool
    """A repair was begun and did not end."""
    others: tuple[str, ...]
    """Names in the folders that are not of the log."""

    @property
    def segments(self) -> list[FoundSegment]:
        """The segments."""
        return [each for each in self.found if isinstance(each, FoundSegment)]

    @property
    def snapshots(self) -> list[FoundSnapshot]:
        """The snapshots."""
        return [each for each in self.found if isinstance(each, FoundSnapshot)]

    @property
    def log_whole(self) -> bool:
        """Whether a node starts with it and all files but those of the history are good."""
        return not self.refusal and not any(each.kind in ("damage", "spare") for each in self.problems)

    @property
    def whole(self) -> bool:
        """Whether a node starts with it and all files are good."""
        return self.log_whole and not any(each.kind == "history" for each in self.flaws)


_OWN: Final = {"lock", "store", "clean", "log", "snapshot", history.FOLDER, marks.REPAIR}


def survey(disk: Disk, folder: str, *, repairing: bool = False) -> Survey | None:
    """Return what stands in the data folder; None: nothing was ever written there.

    `repairing` is that of `recovery.examine`. Raises `StorageError` if it is no data folder, or of a newer
    format; `OSError` if a folder cannot be listed.
    """
    found = tuple(scan(disk, folder))
    top = disk.list(folder)
    if not found and marks.STORE not in top:
        if top and not set(top) <= _OWN:
            raise StorageError(
                f"{folder} is not a data folder: there is no log in it", reason="no data folder"
            )
        return None
    store = store_of(disk, folder)
    refusal = ""
    try:
        recovery.examine(disk, folder, repairing=repairing)
    except StorageError as error:
        if error.reason is not None and "use a newer one" in error.reason:
            raise
        refusal = error.message
    except OSError as error:
        refusal = f"{folder}: a file cannot be read: {error.strerror or error}"
    bad: list[Problem] = []
    base, runs, last, state, failed = _usable(disk, folder, found, store, bad)
    if failed and not refusal:
        refusal = f"{folder}/{failed}"
    revisions = _revisions(disk, folder, found, store)
    stopped = _stopped(disk, folder, store, top, bad)
    durable = _durable(found, store, stopped)
    bad += _problems(found, store, durable)
    known, more = _known(found, store, durable, bad) if refusal else (last, False)
    bad += _gaps(found, store, bad, known)
    kind: Literal["damage", "spare"] = "damage" if refusal else "spare"
    placed = [
        each._replace(
            kind=kind if each.kind == "damage" else each.kind,
            revision=_before(revisions, each.lsn) if each.lsn else None,
        )
        for each in bad
    ]
    # A node starts with a damaged history, and says so to whoever asks for what is damaged.
    past = flaws(disk, folder)
    placed += [Problem(each.kind, each.file, each.offset, 0, None, each.what) for each in past]
    lost = None
    if known > last or more:
        readable = tuple(_readable(disk, folder, found, store, last, base))
        lost = Lost(last + 1, max(known, last), more, state.revision + 1, readable)
    return Survey(
        folder=folder,
        store=store,
        found=found,
        refusal=refusal,
        base=base,
        runs=runs,
        last=last,
        state=state,
        clean=stopped,
        problems=tuple(sorted(placed, key=_where)),
        lost=lost,
        flaws=past,
        unfinished=marks.REPAIR in top,
        others=tuple(_others(disk, folder, found, top)),
    )


def _where(problem: Problem) -> tuple[int, str, int]:
    return problem.lsn, problem.file, problem.offset


def load_base(disk: Disk, folder: str, base: FoundSnapshot | None) -> Store:
    """Return the store in a whole snapshot, with all its history; the empty one for None.

    Raises `StorageError` if its content is no store, `OSError` if it cannot be read any more.
    """
    if base is None:
        return empty(ALL)
    name = base.file.removeprefix(f"{snapshot.FOLDER}/")
    try:
        return load(map(decode_chunk, snapshot.read(disk, folder, name)), ALL)
    except ProtocolError as error:
        raise StorageError(error.message, reason=error.message) from error


def _usable(
    disk: Disk, folder: str, found: Sequence[Found], store: str, bad: list[Problem]
) -> tuple[FoundSnapshot | None, tuple[Run, ...], int, Store, str]:
    """Return the newest base that can be used, what follows on it, the last record, and what they make.

    The last of the five says what a record that is whole cannot be used for; empty: there is none.
    """
    failed = ""
    for base in [*salvage.bases(found, store), None]:
        try:
            state = load_base(disk, folder, base)
        except (TegaError, OSError) as error:
            assert base is not None
            bad.append(Problem("damage", base.file, 0, base.lsn, None, f"it cannot be used: {error}"))
            failed = failed or f"{base.file}: it cannot be used: {error}"
            continue
        runs = salvage.longest(found, store, base)
        last = base.header.lsn if base is not None and base.header is not None else 0
        for run in runs:
            for lsn, offset, payload in salvage.read(disk, folder, run):
                try:
                    state = apply(state, decode_record(payload))
                except TegaError as error:
                    file = run.source.found.file
                    bad.append(Problem("damage", file, offset, lsn, None, f"it cannot be used: {error}"))
                    failed = f"{file}, at byte {offset}, record {lsn}: it cannot be used: {error}"
                    return base, _until(runs, last), last, state, failed
                last = lsn
        return base, runs, last, state, failed
    raise AssertionError("the empty store is always a base")


def _until(runs: tuple[Run, ...], last: int) -> tuple[Run, ...]:
    return tuple(run._replace(last=min(run.last, last)) for run in runs if run.first <= last)


def _revisions(disk: Disk, folder: str, found: Sequence[Found], store: str) -> list[tuple[int, int]]:
    """Return (record, revision after it) wherever one can be read, in order."""
    made = [
        (each.header.lsn, each.revision)
        for each in salvage.bases(found, store)
        if each.header is not None and each.revision is not None
    ]
    for stray in salvage.strays(found, store, 0):
        for lsn, _, payload in salvage.read(disk, folder, stray):
            revision = _revision(payload)
            if revision is not None:
                made.append((lsn, revision))
    return sorted(made)


def _revision(payload: bytes) -> int | None:
    from tega_zmq.log.records import revision_of_commit

    try:
        return revision_of_commit(payload)
    except ProtocolError:
        return None


def _before(revisions: list[tuple[int, int]], lsn: int) -> int | None:
    at = bisect_left(revisions, (lsn, -1))
    if at:
        return revisions[at - 1][1]
    return 0 if lsn <= 1 else None


def _stopped(disk: Disk, folder: str, store: str, top: list[str], bad: list[Problem]) -> int:
    """Return the record that the mark of an orderly stop names, or -1; note marks that are damaged."""
    stopped = -1
    for kind in (marks.STORE, marks.CLEAN):
        name: Literal["store", "clean"] = "store" if kind == marks.STORE else "clean"
        try:
            mark = marks.read(disk, folder, name)
        except OSError as error:
            bad.append(Problem("note", name, 0, 0, None, f"it cannot be read: {error.strerror or error}"))
            continue
        if isinstance(mark, str):
            bad.append(Problem("note", name, 0, 0, None, f"{mark}; a start does without it"))
        elif mark is None and name == "store":
            bad.append(Problem("note", name, 0, 0, None, "it is not there; a start makes it again"))
        elif mark is not None and name == "clean" and mark.store == store:
            stopped = mark.lsn
    if marks.REPAIR in top:
        what = "a repair was begun and did not end: do it again with --repair"
        bad.append(Problem("damage", marks.REPAIR, 0, 0, None, what))
    return stopped


def _durable(found: Sequence[Found], store: str, stopped: int) -> int:
    """Return the last record that anything vouches for."""
    durable = max(stopped, 0)
    for each in found:
        if each.header is not None and each.header.store != store:
            continue
        lsn = each.header.lsn if each.header is not None else _named(each)
        durable = max(durable, max(lsn - 1, each.synced) if isinstance(each, FoundSegment) else lsn)
    return durable


def _problems(found: Sequence[Found], store: str, durable: int) -> Iterator[Problem]:
    """Yield what is wrong with each file; nobody was told of records after `durable`."""
    sources = salvage.sources(found, store)
    begins = sorted({source.header.lsn for source in sources})
    for each in found:
        if each.header is not None and each.header.store != store:
            what = f"it belongs to store {each.header.store}, and this is store {store}"
            yield Problem("damage", each.file, 0, _named(each), None, what)
        elif isinstance(each, FoundSnapshot):
            if each.problem:
                offset = _offset_in(each.problem)
                yield Problem("damage", each.file, offset, each.lsn, None, each.problem)
        elif each.header is None or each.header.lsn != each.first:
            yield Problem("damage", each.file, 0, each.first, None, each.problem)
        elif each.end in ("torn", "damage", "end"):
            later = [begin for begin in begins if begin > each.header.lsn]
            # What stands behind the record before the next segment does not count.
            if later and each.last >= later[0] - 1:
                continue
            if later or each.end == "damage" or (each.end == "torn" and each.last < durable):
                what = each.problem or f"the records {each.last + 1} to {later[0] - 1} are not there"
                yield Problem("damage", each.file, each.offset, each.last + 1, None, what)
            elif each.end == "torn":
                what = f"{each.problem}: a write that was interrupted, which a start cuts off and keeps"
                yield Problem("torn", each.file, each.offset, each.last + 1, None, what)
        elif each.end == "seal" and each.header.lsn == begins[-1]:
            what = f"the segment that follows, {segment.name_of(each.last + 1)}, is not there"
            yield Problem("damage", each.file, each.offset, each.last + 1, None, what)


def _named(each: Found) -> int:
    return each.first if isinstance(each, FoundSegment) else each.lsn


def _offset_in(problem: str) -> int:
    """Return the offset in what `snapshot.examine` says is wrong."""
    digits = problem.removeprefix("at byte ").split(":")[0]
    return int(digits) if digits.isdigit() else 0


def _known(found: Sequence[Found], store: str, durable: int, bad: list[Problem]) -> tuple[int, bool]:
    """Return the last record that anything speaks of, and whether there may have been more after it."""
    known = durable
    torn = {problem.file: problem.lsn for problem in bad if problem.kind == "torn"}
    for stray in salvage.strays(found, store, 0):
        # What stands behind a write that was interrupted was part of it, or of later ones.
        if stray.first <= torn.get(stray.source.found.file, stray.first):
            known = max(known, stray.last)
    sealed = {each.file for each in found if isinstance(each, FoundSegment) and each.end == "seal"}
    more = False
    for problem in bad:
        if problem.kind == "damage" and problem.lsn > known and problem.file.startswith(segment.LOG):
            # What came after a bad record, or stood in a file that is gone, nobody can tell.
            more = True
            if problem.offset and problem.file not in sealed:
                known = problem.lsn
    return known, more


def _gaps(found: Sequence[Found], store: str, bad: list[Problem], known: int) -> Iterator[Problem]:
    """Yield the records that should be there and stand nowhere, unless a problem says so already."""
    whole = salvage.bases(found, store)
    oldest = min((each.header.lsn for each in whole if each.header is not None), default=0)
    said = {problem.lsn for problem in bad}
    lsn = oldest + 1
    for stray in salvage.strays(found, store, oldest):
        if stray.first > lsn and lsn not in said:
            yield _missing(lsn, stray.first - 1)
        lsn = max(lsn, stray.last + 1)
    if lsn <= known and lsn not in said:
        yield _missing(lsn, known)


def _missing(first: int, last: int) -> Problem:
    file = f"{segment.LOG}/{segment.name_of(first)}"
    what = f"the records {first} to {last} are not there" if last > first else f"record {first} is not there"
    return Problem("damage", file, 0, first, None, what)


def _readable(
    disk: Disk, folder: str, found: Sequence[Found], store: str, last: int, base: FoundSnapshot | None
) -> Iterator[Stored]:
    least = base.header.generation if base is not None and base.header is not None else 0
    for stray in salvage.strays(found, store, last, least):
        for lsn, offset, payload in salvage.read(disk, folder, stray):
            yield Stored(lsn, stray.source.found.file, offset, payload)


def _others(disk: Disk, folder: str, found: Sequence[Found], top: list[str]) -> Iterator[str]:
    known = {each.file for each in found}
    yield from (name for name in top if name not in _OWN)
    for where in (segment.LOG, snapshot.FOLDER):
        for name in disk.list(f"{folder}/{where}"):
            if f"{where}/{name}" not in known:
                yield f"{where}/{name}"
