"""From the files of a data folder to what the log holds: which snapshot, which records, what is to be cut.

`examine` only reads, and raises `StorageError` if anything is missing that somebody may rely on; `carry_out`
then does what `examine` planned. A refused start changes nothing. Each step of `carry_out` may be the last
one before the power goes: the next start plans the same again.

The rules:

* The newest whole snapshot counts. One that is damaged is set aside, if the one before it and all records
  after that are still there.
* From there on, every record must be there, each in its place, up to the end of the last segment.
* Let D be the highest record known to be durable: vouched for by the `synced` of any record, by the snapshot,
  by the mark of an orderly stop, or by a later segment (a segment is begun when all before it is durable).
  A bad or missing record up to D is damage. One beyond D is a torn tail if it looks like one (`framing`),
  else damage too. A torn tail is cut off: all from its first bad byte on, also whole records behind it,
  which were part of the same writes that nobody was told of.
* After a failed write or sync the log goes on in a new **generation**, from the record after the last one
  that anybody was told of (`base`). A record of an older generation with a number from `base` on does not
  count. The new generation's first segment is made before its snapshot; so if that segment is still empty,
  the snapshot was never made, and the records before it are not all there (they were reported while `sync` is
  not `always`, and then lost), the new generation was never used, and is dropped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

from tega_zmq.errors import StorageError
from tega_zmq.log import marks, salvage, segment, snapshot
from tega_zmq.log.disk import Disk
from tega_zmq.log.fileheader import Header
from tega_zmq.log.framing import Stop, seed_of, synced_beyond

__all__ = ["Part", "Plan", "Tail", "Torn", "carry_out", "examine", "records", "refusal"]

MAX_KEPT_TAILS = 16
"""How many torn tails are kept beside the log."""


class Torn(NamedTuple):
    """A torn tail that was cut off."""

    file: str
    """The segment, within the data folder."""
    offset: int
    """Where it was cut, in bytes."""
    lsn: int
    """The record that was not wholly written."""
    size: int
    """Bytes that were cut off, zeros at their end not counted."""
    kept: str
    """The file, within the data folder, that holds them."""
    why: str


class Part(NamedTuple):
    """A segment, or the part of it that counts."""

    name: str
    header: Header
    last: int
    """The last record in it that counts; `header.lsn - 1` if there is none."""


class Tail(NamedTuple):
    """The last segment."""

    part: Part
    offset: int
    """Where the next record would stand."""
    length: int
    """How long the file is."""


class Plan(NamedTuple):
    """What `examine` found, and what is to be done."""

    store: str
    """The id of the store."""
    snapshot: int
    """The record after which the snapshot was made; 0: there is none."""
    snapshot_size: int
    damaged: tuple[tuple[str, str], ...]
    """Damaged snapshots, to be set aside: (file within the data folder, what is wrong and where)."""
    parts: tuple[Part, ...]
    """Segments with records after the snapshot, in order."""
    tail: Tail
    torn: Torn | None
    unsynced: tuple[tuple[str, int, int], ...]
    """What is not known to be durable, though it was read: (segment, from byte, to byte)."""
    last: int
    """The last record."""
    size: int
    """Bytes of records after the snapshot, about."""
    generation: int
    base: int
    goes_on: bool
    """True: the next record goes into the last segment. False: into a new one."""
    dropped: str
    """A segment to be removed (a generation that was never used), or empty."""
    clean: bool
    """The last stop was orderly."""


class _Base(NamedTuple):
    """What the records are added to: a snapshot, or nothing at all."""

    lsn: int
    generation: int
    size: int
    damaged: tuple[tuple[str, str], ...]
    newest: int
    """The record of the newest snapshot, whole or not: up to there all was durable."""


class _Damage(Exception):
    """A start must be refused: `why`, at byte `offset` of `file`, where record `lsn` stands or should."""

    def __init__(self, file: str, offset: int, lsn: int, why: str) -> None:
        super().__init__(why)
        self.file = file
        self.offset = offset
        self.lsn = lsn
        self.why = why


def examine(disk: Disk, folder: str, *, repairing: bool = False) -> Plan | None:
    """Return the plan for the data folder; None if nothing was ever written there.

    `repairing`: the caller is the repair that is going on there.

    Raises `StorageError` if records are damaged or missing, a file belongs to another store or a newer
    format, or a repair was begun and not ended; `OSError` if a file cannot be read.
    """
    own = marks.read(disk, folder, "store")
    if isinstance(own, str) and "format" in own:
        raise StorageError(f"{folder}/{marks.STORE}: {own}", reason=own)
    if not repairing and marks.REPAIR in disk.list(folder):
        why = "a repair was begun here and did not end"
        raise StorageError(
            f"{folder}/{marks.REPAIR}: {why}. Do it again: tega-check --repair {folder}", reason=why
        )
    try:
        return _examine(disk, folder, own)
    except _Damage as found:
        good = salvage.last_good(disk, folder, found.lsn)
        raise refusal(folder, found.file, found.offset, found.lsn, good, found.why) from None


def refusal(folder: str, file: str, offset: int, lsn: int, good: int | None, why: str) -> StorageError:
    """Return the error of a start that `why` forbids, at record `lsn`; `good`: the last good revision."""
    if good is None:
        revision = "The revisions cannot be told"
    else:
        revision = f"The last good revision is {good}, the damage begins at revision {good + 1}"
    return StorageError(
        f"{folder}/{file}, at byte {offset}, record {lsn}: {why}. {revision}. Nothing was changed; "
        f"see what can be saved with: tega-check {folder}",
        reason=why,
    )


def _examine(disk: Disk, folder: str, own: marks.Mark | str | None) -> Plan | None:
    segments = segment.names(disk, folder)
    snapshots = snapshot.names(disk, folder)
    if not segments and not snapshots and own is None:
        return None
    if not segments:
        raise _Damage(segment.LOG, 0, 1, "there is no segment, they were removed")
    headers = {first: _header(disk, folder, first, name) for first, name in segments}
    if isinstance(own, marks.Mark):
        store = own.store
    else:
        store = next((header.store for header in headers.values() if isinstance(header, Header)), "")
    for first, name in segments:
        header = headers[first]
        if isinstance(header, Header) and header.store != store:
            why = f"it belongs to store {header.store}, and this is store {store}"
            raise _Damage(f"{segment.LOG}/{name}", 0, first, why)

    base = _choose(disk, folder, store, snapshots)
    chain = _chain(headers, base)
    orderly = marks.read(disk, folder, "clean")
    stopped = orderly.lsn if isinstance(orderly, marks.Mark) and orderly.store == store else -1
    return _follow(disk, folder, base, chain, stopped)


def _header(disk: Disk, folder: str, first: int, name: str) -> Header | str:
    file = disk.open(f"{folder}/{segment.LOG}/{name}")
    try:
        return segment.read_header(file, first)
    finally:
        file.close()


def _choose(disk: Disk, folder: str, store: str, snapshots: list[tuple[int, str]]) -> _Base:
    newest = snapshots[-1][0] if snapshots else 0
    damaged: list[tuple[str, str]] = []
    for lsn, name in reversed(snapshots):
        found = snapshot.verify(disk, folder, lsn)
        if not isinstance(found, str) and found[0].store != store:
            found = f"at byte 0: it belongs to store {found[0].store}, and this is store {store}"
        if not isinstance(found, str):
            return _Base(found[0].lsn, found[0].generation, found[1], tuple(damaged), newest)
        damaged.append((f"{snapshot.FOLDER}/{name}", found))
    return _Base(0, 0, 0, tuple(damaged), newest)


def _chain(headers: dict[int, Header | str], base: _Base) -> list[Header]:
    """Return the segments with the records after the snapshot `base`, in order, the last one at least."""
    wanted = base.lsn + 1
    before = [first for first in headers if first <= wanted]
    if not before:
        first = min(headers)
        why = f"the records {wanted} to {first - 1} are not there" + _no_fallback(base.damaged)
        raise _Damage(f"{segment.LOG}/{segment.name_of(first)}", 0, wanted, why)
    start = max(before)
    chain: list[Header] = []
    for first, header in sorted(headers.items()):
        if first < start:
            continue
        if isinstance(header, str):
            raise _Damage(f"{segment.LOG}/{segment.name_of(first)}", 0, first, header)
        chain.append(header)
    chain = [one for one in chain if not any(_supersedes(other, one) for other in chain)]
    if chain[0].generation < base.generation:
        why = f"the segment with record {wanted} is not there"
        raise _Damage(f"{segment.LOG}/{segment.name_of(wanted)}", 0, wanted, why)
    return chain


def _supersedes(new: Header, old: Header) -> bool:
    return new.generation > old.generation and new.base <= old.lsn


def _follow(
    disk: Disk,
    folder: str,
    base: _Base,
    chain: list[Header],
    stopped: int,
) -> Plan:
    """Walk over the records of the chain, and see where they end."""
    parts: list[Part] = []
    size = 0
    before = segment.DATA
    newest = chain[-1]
    dropped = ""
    while True:
        header = chain[len(parts)]
        name = segment.name_of(header.lsn)
        data = segment.read(disk, folder, header.lsn)
        if header is chain[-1]:
            stop = segment.end_of(data, header)
            break
        following = chain[len(parts) + 1]
        stop = segment.end_of(data, header, following.lsn - 1)
        if stop.kind != "limit":
            if following is newest and _never_used(disk, folder, header, following):
                dropped = segment.name_of(following.lsn)
                stop = segment.end_of(data, header)
                break
            why = stop.why or f"the records from here on to {following.lsn - 1} are not there"
            raise _Damage(f"{segment.LOG}/{name}", stop.offset, stop.lsn, why + _no_fallback(base.damaged))
        size += stop.offset - segment.end_of(data, header, base.lsn).offset
        before = stop.offset
        parts.append(Part(name, header, following.lsn - 1))

    file = f"{segment.LOG}/{name}"
    seed = seed_of(header.store, header.lsn)
    durable = max(stopped, header.lsn - 1, stop.synced, base.newest)
    if stop.kind in ("torn", "damage"):
        durable = max(durable, synced_beyond(data, seed, stop.offset))
    if stop.kind == "seal":
        why = f"the segment that follows, {segment.name_of(stop.lsn)}, is not there"
        raise _Damage(file, stop.offset, stop.lsn, why)
    if stop.kind == "damage" or stop.lsn <= durable:
        why = stop.why or "the records end here"
        if stop.lsn <= durable:
            why += f"; the records up to {durable} were durable"
        raise _Damage(file, stop.offset, stop.lsn, why)
    last = stop.lsn - 1
    unsynced = [(name, segment.end_of(data, header, min(durable, last)).offset, stop.offset)]
    if parts and last < header.lsn == header.base:
        # A generation whose snapshot may never have been made: only in memory is what a sync failed for.
        unsynced.append((parts[-1].name, segment.DATA, before))
    parts.append(Part(name, header, last))
    torn = None
    if stop.kind == "torn":
        kept = f"{file}.torn-{stop.offset}"
        torn = Torn(file, stop.offset, stop.lsn, len(data.rstrip(b"\0")) - stop.offset, kept, stop.why)
    return Plan(
        store=header.store,
        snapshot=base.lsn,
        snapshot_size=base.size,
        damaged=base.damaged,
        parts=tuple(part for part in parts if part.last > base.lsn),
        tail=Tail(parts[-1], stop.offset, len(data)),
        torn=torn,
        unsynced=tuple(unsynced),
        last=last,
        size=size + stop.offset - segment.end_of(data, header, base.lsn).offset,
        generation=newest.generation + 1 if dropped else header.generation,
        base=last + 1 if dropped else header.base,
        goes_on=not dropped and torn is None and len(data) >= header.size,
        dropped=dropped,
        clean=stopped == last and not dropped,
    )


def _never_used(disk: Disk, folder: str, before: Header, header: Header) -> bool:
    """Return whether `header` is of the first segment of a new generation, in which nothing was written."""
    if header.generation == before.generation or header.base != header.lsn:
        return False
    data = segment.read(disk, folder, header.lsn)
    return segment.end_of(data, header).kind == "end" and segment.end_of(data, header).lsn == header.lsn


def carry_out(disk: Disk, folder: str, plan: Plan) -> None:
    """Do what `plan` says: set aside damaged snapshots, cut the torn tail, make durable what was read.

    Raises `OSError`. After it nothing is left of the writes that were going on when the node stopped.
    """
    for where in (segment.LOG, snapshot.FOLDER):
        for name in disk.list(f"{folder}/{where}"):
            if name.endswith(".tmp"):
                disk.remove(f"{folder}/{where}/{name}")
    for bad, _ in plan.damaged:
        disk.rename(f"{folder}/{bad}", f"{folder}/{bad}.damaged")
    if plan.dropped:
        disk.remove(f"{folder}/{segment.LOG}/{plan.dropped}")
    # A name that was found may not be on the disk yet either, if the last run was killed just then.
    for where in (segment.LOG, snapshot.FOLDER):
        disk.sync_folder(f"{folder}/{where}")
    disk.sync_folder(folder)
    if plan.torn is not None:
        _keep(disk, folder, plan.torn)
        _cut(disk, folder, plan.tail)
    for name, start, end in () if plan.clean else plan.unsynced:
        # What was read may stand in memory alone: written, but never synced, or its sync failed, and the
        # system then takes it for written. Written anew, it is synced for certain.
        _write_anew(disk, folder, name, start, end)
    marks.remove(disk, folder, "clean")


def _cut(disk: Disk, folder: str, tail: Tail) -> None:
    file = disk.open(f"{folder}/{segment.LOG}/{tail.part.name}")
    try:
        file.truncate(tail.offset)
        file.sync()
    finally:
        file.close()


def _write_anew(disk: Disk, folder: str, name: str, start: int, end: int) -> None:
    file = disk.open(f"{folder}/{segment.LOG}/{name}")
    try:
        data = file.read(start, end - start)
        if data:
            file.write(start, data)
        file.sync()
    finally:
        file.close()


def _keep(disk: Disk, folder: str, torn: Torn) -> None:
    source = disk.open(f"{folder}/{torn.file}")
    try:
        data = source.read(torn.offset, torn.size)
    finally:
        source.close()
    file = disk.create(f"{folder}/{torn.kept}")
    try:
        file.write(0, data)
        file.sync()
    finally:
        file.close()
    kept = [name for name in disk.list(f"{folder}/{segment.LOG}") if ".torn-" in name]
    for name in kept[:-MAX_KEPT_TAILS]:
        disk.remove(f"{folder}/{segment.LOG}/{name}")
    disk.sync_folder(f"{folder}/{segment.LOG}")


def records(disk: Disk, folder: str, plan: Plan) -> Iterator[tuple[int, bytes]]:
    """Yield `(lsn, payload)` of the records after the snapshot. Raises `OSError`, `StorageError`."""
    for part in plan.parts:
        data = segment.read(disk, folder, part.header.lsn)
        stop = yield from _after(segment.walk_over(data, part.header, part.last), plan)
        if stop.kind != "limit":
            file = f"{segment.LOG}/{part.name}"
            raise refusal(folder, file, stop.offset, stop.lsn, None, f"{stop.why}; it was whole a moment ago")


def _after(
    walking: Generator[tuple[int, int, bytes], None, Stop], plan: Plan
) -> Generator[tuple[int, bytes], None, Stop]:
    while True:
        try:
            lsn, _, payload = next(walking)
        except StopIteration as end:
            stop: Stop = end.value
            return stop
        if lsn > plan.snapshot:
            yield lsn, payload


def _no_fallback(damaged: tuple[tuple[str, str], ...]) -> str:
    return "".join(f"; and the snapshot {file} is damaged {why}" for file, why in damaged)
