"""What can be made of a data folder, however broken: from what `scan` found to records on a base.

A start takes no record that does not stand where it belongs in an unbroken chain of files. Here every valid
record counts, wherever it stands: in a file under another name, behind a bad record, under a damaged header.
A record is valid in its own place only (`framing`), so that none can pass for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tega_zmq.errors import ProtocolError
from tega_zmq.log import segment
from tega_zmq.log.disk import Disk
from tega_zmq.log.fileheader import Header
from tega_zmq.log.framing import seed_of, walk
from tega_zmq.log.records import revision_of_commit
from tega_zmq.log.scan import FoundSegment, FoundSnapshot, Stretch, scan, store_of

__all__ = ["Run", "Source", "Stray", "bases", "last_good", "longest", "place_of", "read", "sources", "strays"]


class Source(NamedTuple):
    """A segment of this store, with the header that it has, or must have had."""

    found: FoundSegment
    header: Header

    @property
    def in_place(self) -> bool:
        """Whether its name and its header are right."""
        return self.found.header is not None and self.found.first == self.header.lsn


class Run(NamedTuple):
    """Records of one segment that follow one another and count."""

    source: Source
    stretch: Stretch
    first: int
    """The first record that is needed; not before that of the stretch."""
    last: int


class Stray(NamedTuple):
    """Valid records that no base leads to."""

    source: Source
    stretch: Stretch
    first: int
    last: int


def bases(found: Iterable[FoundSnapshot | FoundSegment], store: str) -> list[FoundSnapshot]:
    """Return the whole snapshots of `store`, the newest first."""
    whole = [
        each
        for each in found
        if isinstance(each, FoundSnapshot)
        and each.header is not None
        and each.revision is not None
        and each.header.store == store
    ]
    # Of two with the same state, the one under its own name comes first.
    return sorted(whole, key=_newest_first)


def _newest_first(each: FoundSnapshot) -> tuple[int, int, bool]:
    header = each.header
    assert header is not None
    return -header.generation, -header.lsn, header.lsn != each.lsn


def sources(found: Sequence[FoundSnapshot | FoundSegment], store: str) -> list[Source]:
    """Return the segments of `store` that hold something, or may.

    One whose header is damaged is taken for what its name says, if its records are valid under that and all
    other files are of one generation.
    """
    headers = [each.header for each in found if each.header is not None and each.header.store == store]
    generations = {(header.generation, header.base) for header in headers} or {(1, 1)}
    made = []
    for each in found:
        if not isinstance(each, FoundSegment):
            continue
        if each.header is not None:
            if each.header.store == store:
                made.append(Source(each, each.header))
        elif each.stretches and len(generations) == 1:
            ((generation, base),) = generations
            made.append(Source(each, Header(store, generation, base, each.first, each.length)))
    return made


def longest(
    found: Sequence[FoundSnapshot | FoundSegment], store: str, base: FoundSnapshot | None
) -> tuple[Run, ...]:
    """Return the records that follow on `base` (None: on nothing) without a gap, in order."""
    all_sources = sources(found, store)
    runs = _follow(found, all_sources, base)
    if all_sources:
        newest = max(all_sources, key=_generation)
        if _never_used(found, newest) and _last(runs, base) < newest.header.lsn - 1:
            # As a start does: a new generation that nothing was written in counts for nothing if the records
            # before it are not all there.
            without = _follow(found, [each for each in all_sources if each is not newest], base)
            if _last(without, base) > _last(runs, base):
                return without
    return runs


def _generation(source: Source) -> int:
    return source.header.generation


def _last(runs: tuple[Run, ...], base: FoundSnapshot | None) -> int:
    return runs[-1].last if runs else _lsn(base)


def _lsn(base: FoundSnapshot | None) -> int:
    return base.header.lsn if base is not None and base.header is not None else 0


def _never_used(found: Sequence[FoundSnapshot | FoundSegment], source: Source) -> bool:
    header = source.header
    return (
        header.generation > 1
        and header.base == header.lsn
        and source.found.end == "end"
        and not source.found.stretches
        and not any(
            isinstance(each, FoundSnapshot)
            and each.header is not None
            and each.header.generation == header.generation
            for each in found
        )
    )


def _follow(
    found: Sequence[FoundSnapshot | FoundSegment], all_sources: list[Source], base: FoundSnapshot | None
) -> tuple[Run, ...]:
    runs: list[Run] = []
    least = base.header.generation if base is not None and base.header is not None else 0
    lsn = _lsn(base) + 1
    while True:
        best: Run | None = None
        for source in all_sources:
            if source.header.generation < least:
                continue
            limit = _counts_until(found, all_sources, source)
            for stretch in source.found.stretches:
                last = min(stretch.last, limit)
                if stretch.first <= lsn <= last and (best is None or _better(source, last, best)):
                    best = Run(source, stretch, lsn, last)
        if best is None:
            return tuple(runs)
        runs.append(best)
        lsn = best.last + 1


def _better(source: Source, last: int, than: Run) -> bool:
    mine = (source.header.generation, source.in_place, source.header.lsn, last)
    other = than.source
    return mine > (other.header.generation, other.in_place, other.header.lsn, than.last)


def _counts_until(
    found: Sequence[FoundSnapshot | FoundSegment], all_sources: list[Source], source: Source
) -> int:
    """Return the last record of `source` that no later generation has given up."""
    store, generation = source.header.store, source.header.generation
    newer = [each.header for each in all_sources]
    newer += [
        each.header
        for each in found
        if isinstance(each, FoundSnapshot) and each.header is not None and each.header.store == store
    ]
    return min((header.base - 1 for header in newer if header.generation > generation), default=2**64)


def read(disk: Disk, folder: str, run: Run | Stray) -> Iterator[tuple[int, int, bytes]]:
    """Yield `(lsn, offset, payload)` of the records. Raises `OSError`, also if the file has changed."""
    source, stretch, first, last = run
    data = segment.read(disk, folder, source.found.first)
    seed = seed_of(source.header.store, source.header.lsn)
    walking = walk(data, seed, stretch.offset, stretch.first, last)
    lsn = stretch.first - 1
    for lsn, offset, payload in walking:
        if lsn >= first:
            yield lsn, offset, payload
    if lsn != last:
        raise OSError(f"{folder}/{source.found.file} changed while it was read")


def strays(
    found: Sequence[FoundSnapshot | FoundSegment], store: str, after: int, least: int = 0
) -> list[Stray]:
    """Return the valid records after record `after`, in order, of no generation before `least`.

    Those that a later generation has given up are left out, and no record is in two of them.
    """
    all_sources = sources(found, store)
    made: list[Stray] = []
    pieces = sorted(
        (max(stretch.first, after + 1), -source.header.generation, index, stretch)
        for index, source in enumerate(all_sources)
        if source.header.generation >= least
        for stretch in source.found.stretches
    )
    reached = after
    for first, _, index, stretch in pieces:
        source = all_sources[index]
        first = max(first, reached + 1)
        last = min(stretch.last, _counts_until(found, all_sources, source))
        if first <= last:
            made.append(Stray(source, stretch, first, last))
            reached = last
    return made


def last_good(disk: Disk, folder: str, before: int) -> int | None:
    """Return the revision that the records before `before` lead to, as far as they can be read.

    None: what they hold is not understood, or cannot be read any more.
    """
    try:
        found = list(scan(disk, folder))
        store = store_of(disk, folder)
        base = next(
            (each for each in bases(found, store) if each.header is not None and each.header.lsn < before),
            None,
        )
        revision = 0 if base is None else base.revision
        for run in longest(found, store, base):
            for lsn, _, payload in read(disk, folder, run):
                if lsn >= before:
                    return revision
                made = revision_of_commit(payload)
                revision = revision if made is None else made
    except (ProtocolError, OSError):
        return None
    return revision


def place_of(disk: Disk, folder: str, wanted: int) -> tuple[str, int]:
    """Return `(file within the data folder, offset)` of record `wanted`, ("log", 0) if it is not there."""
    try:
        found = list(scan(disk, folder))
        for stray in strays(found, store_of(disk, folder), wanted - 1):
            for lsn, offset, _ in read(disk, folder, stray):
                if lsn == wanted:
                    return stray.source.found.file, offset
                break
    except OSError:
        pass
    return segment.LOG, 0
