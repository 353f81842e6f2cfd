"""A log of 1,000 mixed commits cut at every byte: every acknowledged commit, or a refusal that says where."""

from __future__ import annotations

import pytest

from tega_zmq.check.export import document
from tega_zmq.errors import StorageError
from tega_zmq.log import segment
from tega_zmq.log.fileheader import SEGMENT, Header, unpack
from tests.knifekit import FOLDER, MemoryDisk, Written, named, start, start_store, written


def last_segment(disk: MemoryDisk) -> tuple[str, Header]:
    path = f"{FOLDER}/log/{segment.names(disk, FOLDER)[-1][1]}"
    header = unpack(SEGMENT, disk.files[path])
    assert isinstance(header, Header)
    return path, header


def ends_of(data: bytes, header: Header, *, zeros: bool = False) -> list[int]:
    """Where the payload of each record ends: what stands behind it is not needed.

    `zeros`: zeros follow the cut, so that those at the end of a payload need not be there either.
    """
    ends = [offset + 40 + len(payload) for _, offset, payload in segment.walk_over(data, header)]
    return [len(data[:end].rstrip(b"\0")) for end in ends] if zeros else ends


def in_order(log: Written, state_of: int, disk: MemoryDisk) -> None:
    """A start leads to exactly what was there after record `state_of`."""
    state = start_store(disk, log.options)
    assert not isinstance(state, StorageError), state
    assert state == log.states[state_of]
    shown = {root: tree for root, tree in document(state).items() if root.startswith("config")}
    assert shown == log.trees[state.revision]


@pytest.mark.parametrize("part", range(3))
def test_a_log_of_1000_commits_cut_at_every_byte(part: int) -> None:
    """Cut where it ended at some time, and the rest of the file gone, or zeros, as a power cut leaves it."""
    log = written(1000, segment_size=2600, snapshot_each=1, kept=1)
    assert log.states[-1].revision == 1000
    assert len(log.whens) > 40
    checked: set[int] = set()
    for disk in log.whens[part::3]:
        path, header = last_segment(disk)
        data = disk.files[path]
        ends, ends_in_zeros = ends_of(data, header), ends_of(data, header, zeros=True)
        written_to = len(data.rstrip(b"\0"))
        places = [*range(105), *range(105, 4096, 64), *range(4096, written_to + 9)]
        for cut in places:
            for behind in (b"", bytes(len(data) - cut)) if cut % 3 == 0 and cut >= 4096 else (b"",):
                broken = disk.copy()
                broken.files[path] = data[:cut] + behind
                made = start(broken, log.options)
                if isinstance(made, StorageError):
                    # A file gets its name when it is whole at its full length: no crash leaves that.
                    assert cut < 100
                    told = named(made)
                    assert (told.path, told.offset, told.lsn) == (path, 0, header.lsn)
                    assert told.good == log.states[header.lsn - 1].revision
                    continue
                last = header.lsn - 1 + sum(end <= cut for end in (ends_in_zeros if behind else ends))
                assert made.report.last == last, cut
                assert made.payloads == list(enumerate(log.payloads, 1))[made.report.snapshot : last]
                torn = made.report.torn
                rest = data[torn.offset : cut].rstrip(b"\0") if torn is not None else b""
                if torn is not None:
                    assert torn.lsn == last + 1
                    assert broken.files[f"{FOLDER}/{torn.kept}"] == rest
                if last not in checked:
                    # The same records make the same store: once for each is enough.
                    checked.add(last)
                    broken = disk.copy()
                    broken.files[path] = data[:cut] + behind
                    in_order(log, last, broken)
    assert len(checked) > 300


@pytest.mark.parametrize("clean", [False, True])
def test_a_file_in_the_middle_cut(clean: bool) -> None:
    """What follows it shows that it was longer: a refusal, or all of it if a snapshot holds it."""
    log = written(150, segment_size=1200, snapshot_each=3, kept=2, clean=clean)
    paths = [f"{FOLDER}/log/{name}" for _, name in segment.names(log.disk, FOLDER)]
    assert len(paths) > 4
    refused = started = 0
    for path in paths[: None if clean else -1]:
        data = log.disk.files[path]
        header = unpack(SEGMENT, data)
        assert isinstance(header, Header)
        ends = ends_of(data, header)
        for cut in [*range(0, 4096, 256), *range(4096, ends[-1])]:
            broken = log.disk.copy()
            broken.files[path] = data[:cut]
            made = start(broken, log.options)
            if not isinstance(made, StorageError):
                started += 1
                assert made.report.last == len(log.payloads)
                continue
            refused += 1
            told = named(made)
            lsn = header.lsn + sum(end <= cut for end in ends)
            assert (told.path, told.lsn) == (path, lsn), cut
            assert told.offset <= max(cut + 8, 4096)  # a trailer need not be there
            # A snapshot may hold more than the records before the cut.
            assert told.good >= log.states[lsn - 1].revision
    assert refused > 900
    assert started > 500


@pytest.mark.parametrize("snapshots", [0, 4])
def test_a_log_and_all_behind_it_gone(snapshots: int) -> None:
    """Cut at any record of the log, and all later files gone; what vouches for more makes a refusal."""
    log = written(300, segment_size=1800, snapshot_each=snapshots)
    names = segment.names(log.disk, FOLDER)
    kept = [name for name in log.disk.files if "/snapshot/" in name]
    assert bool(kept) == bool(snapshots)
    for index, (first, name) in enumerate(names):
        path = f"{FOLDER}/log/{name}"
        data = log.disk.files[path]
        header = unpack(SEGMENT, data)
        assert isinstance(header, Header)
        ends = ends_of(data, header)
        for cut in sorted({*ends, *(end - 1 for end in ends), *(end + 20 for end in ends)}):
            broken = log.disk.copy()
            broken.files[path] = data[:cut]
            for _, later in names[index + 1 :]:
                del broken.files[f"{FOLDER}/log/{later}"]
            made = start(broken.copy(), log.options)
            last = first - 1 + sum(end <= cut for end in ends)
            if isinstance(made, StorageError):
                assert snapshots
                named(made)
                continue
            assert made.report.last == last
            in_order(log, last, broken)
