"""tega-check on logs under the knife: it always reports, and what a repair says is lost, and no more, is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

import pytest

from tega_zmq.check import report
from tega_zmq.check.export import at_revision, document, reach
from tega_zmq.check.repair import repair, undo
from tega_zmq.check.survey import Survey, survey
from tega_zmq.errors import NotFound, StorageError
from tega_zmq.log import segment
from tega_zmq.store import Store, apply
from tega_zmq.store.model import NewEpochs
from tega_zmq.tree.node import pairs
from tests.knifekit import FOLDER, MemoryDisk, Written, start, start_store, written


def config(state: Store) -> dict[str, object]:
    return {root: tree for root, tree in document(state).items() if root.startswith("config")}


def surveyed(disk: MemoryDisk) -> Survey:
    before = dict(disk.files)
    found = survey(disk, FOLDER)
    assert found is not None
    assert disk.files == before
    report.as_text(found)
    report.as_plain(found)
    return found


def without_epochs(state: Store) -> object:
    return [(name, root._replace(epoch="")) for name, root in sorted(pairs(state.roots))]


def check(log: Written, disk: MemoryDisk, *, least: int = 0, exact: bool = True) -> Survey:
    """Report, export and repair; what is left is what was said, and at least all up to record `least`.

    `exact`: nothing was taken from the end in a way that leaves no trace.
    """
    found = surveyed(disk)
    refused = isinstance(start(disk.copy(), log.options), StorageError)
    assert refused == bool(found.refusal)
    assert found.last >= least
    # What is exported is what the model says, whatever can still be read.
    assert config(found.state) == log.trees[found.state.revision]
    ranges = reach(disk, found)
    assert ranges[-1][1] >= found.state.revision or not found.runs
    rng = random.Random(found.last)
    for low, high in ranges:
        for revision in {low, high, rng.randint(low, high)}:
            state = at_revision(disk, found, revision)
            assert config(state) == log.trees[revision], revision
    with pytest.raises(NotFound, match="there are"):
        at_revision(disk, found, log.states[-1].revision + 1)
    if found.lost is None:
        assert found.last == len(log.payloads) or not refused or not exact
    else:
        assert refused
        assert found.lost.first == found.last + 1
        assert found.lost.revision == log.states[found.last].revision + 1
        assert found.lost.last == len(log.payloads) or found.lost.more or not exact
        assert found.lost.last <= len(log.payloads)
        for each in found.lost.readable:
            assert each.payload == log.payloads[each.lsn - 1]
        assert found.problems
        assert any(problem.kind == "damage" for problem in found.problems)
    before = dict(disk.files)
    ids = count()
    done = repair(disk, FOLDER, found, lambda: f"{next(ids):032d}")
    kept = f"{FOLDER}/{done.kept}/"
    for path, content in before.items():
        if disk.files.get(path) != content and not path.endswith(".tmp"):
            assert disk.files[kept + path.removeprefix(FOLDER + "/")] == content
    state = start_store(disk.copy(), log.options)
    assert not isinstance(state, StorageError), state
    if found.lost is None:
        assert not done.epochs
        assert state == log.states[found.last]
    else:
        # Exactly what was there before what is lost; and new epochs of all roots that this node owns.
        expected = log.states[found.last]
        if done.epochs:
            expected = apply(expected, NewEpochs(done.epochs))
        assert state == expected
        owned = {name for name, root in pairs(expected.roots) if not root.owner}
        assert owned == {root for root, _ in done.epochs}
        old = {root.epoch for each in log.states for _, root in pairs(each.roots)}
        assert not old & {epoch for _, epoch in done.epochs}
    after = surveyed(disk)
    assert after.whole, (after.refusal, after.problems)
    assert after.lost is None
    return found


def paths(log: Written, where: str) -> list[str]:
    return sorted(path for path in log.disk.files if path.startswith(f"{FOLDER}/{where}/"))


def broken(log: Written, seed: int) -> Iterator[MemoryDisk]:
    """A log broken in one place, in every way that there is, at places by chance."""
    rng = random.Random(seed)
    everything = [path for path in sorted(log.disk.files) if not path.endswith("/lock")]
    for path in everything:
        data = log.disk.files[path]
        end = len(data.rstrip(b"\0")) + 8
        for content in (None, b"", b"garbage" * 40, bytes(len(data))):
            disk = log.disk.copy()
            if content is None:
                del disk.files[path]
            else:
                disk.files[path] = content
            yield disk
        for at in [*rng.sample(range(104), 4), *(rng.randrange(min(4096, end - 1), end) for _ in range(12))]:
            at %= len(data)
            disk = log.disk.copy()
            disk.files[path] = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
            yield disk
            disk = log.disk.copy()
            disk.files[path] = data[:at]
            yield disk
            disk = log.disk.copy()
            disk.files[path] = data[:at] + bytes(len(data) - at)
            yield disk
        disk = log.disk.copy()
        disk.files[path] = data[:end] + b"garbage" * 30 + data[end + 210 :]
        yield disk
        other = rng.choice([each for each in everything if each.rsplit("/")[-2] == path.rsplit("/")[-2]])
        disk = log.disk.copy()
        disk.files[path], disk.files[other] = disk.files[other], disk.files[path]
        yield disk
        disk = log.disk.copy()
        disk.files[path] = disk.files[other]
        yield disk
        folder, name = path.rsplit("/", 1)
        if "." in name:
            disk = log.disk.copy()
            disk.files.setdefault(f"{folder}/{int(name.split('.')[0]) + 1:020d}.{name.split('.')[1]}", data)
            yield disk


@pytest.mark.parametrize("snapshots", [0, 1, 3])
@pytest.mark.parametrize("clean", [False, True])
def test_broken_in_one_place(snapshots: int, clean: bool) -> None:
    log = written(70, seed=snapshots, segment_size=1500, snapshot_each=snapshots, clean=clean)
    lost = 0
    for disk in broken(log, snapshots):
        lost += check(log, disk).lost is not None
    assert lost > 5


def test_broken_in_many_places() -> None:
    log = written(70, segment_size=1500, snapshot_each=3)
    rng = random.Random(4)
    for _ in range(150):
        disk = log.disk.copy()
        for _ in range(rng.randrange(2, 6)):
            path = rng.choice(sorted(disk.files))
            data = disk.files[path]
            how = rng.randrange(4)
            at = rng.randrange(len(data) + 1)
            if how == 0:
                disk.files[path] = data[:at] + rng.randbytes(rng.randrange(60)) + data[at:]
            elif how == 1:
                disk.files[path] = data[:at] + rng.randbytes(min(30, len(data) - at)) + data[at + 30 :]
            elif how == 2:
                disk.files[path] = data[:at]
            elif len(disk.files) > 3:
                del disk.files[path]
        if survey(disk, FOLDER) is not None:
            check(log, disk, exact=False)


def test_files_in_the_wrong_order_lose_nothing() -> None:
    log = written(70, segment_size=1500, snapshot_each=3)
    for where in ("log", "snapshot"):
        names = paths(log, where)
        for seed in range(20):
            disk = log.disk.copy()
            mixed = random.Random(seed).sample(names, len(names))
            for name, other in zip(names, mixed, strict=True):
                disk.files[name] = log.disk.files[other]
            found = check(log, disk, least=len(log.payloads))
            assert found.lost is None


def test_a_damaged_header_of_a_segment_loses_nothing() -> None:
    log = written(70, segment_size=1500, snapshot_each=3)
    for path in paths(log, "log"):
        for at in range(0, 100, 3):
            disk = log.disk.copy()
            data = disk.files[path]
            disk.files[path] = data[:at] + b"?" + data[at + 1 :] if data[at] != ord("?") else data
            assert check(log, disk).lost is None


def test_a_record_that_a_snapshot_holds_may_be_bad() -> None:
    """The segment goes on after the snapshot: all of it is saved."""
    log = written(70, segment_size=5000, snapshot_each=1)
    log.disk.files.pop(f"{FOLDER}/clean", None)
    first = segment.names(log.disk, FOLDER)[0][1]
    disk = log.disk.copy()
    path = f"{FOLDER}/log/{first}"
    data = disk.files[path]
    disk.files[path] = data[:4200] + b"???" + data[4203:]
    assert check(log, disk).lost is None


def test_a_whole_folder_is_left_as_it_is() -> None:
    log = written(70, segment_size=1500, snapshot_each=3, clean=True)
    disk = log.disk.copy()
    found = surveyed(disk)
    assert found.whole
    assert repair(disk, FOLDER, found, lambda: "x" * 32).kept == ""
    assert disk.files == log.disk.files


def test_a_torn_tail_is_no_damage() -> None:
    log = written(70, segment_size=1500)
    path = paths(log, "log")[-1]
    disk = log.disk.copy()
    data = disk.files[path]
    end = len(data.rstrip(b"\0"))
    disk.files[path] = data[: end - 12].ljust(len(data), b"\0")
    found = surveyed(disk)
    assert found.whole
    assert [problem.kind for problem in found.problems] == ["torn"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_repair_that_is_interrupted_anywhere(error: BaseException) -> None:
    log = written(70, segment_size=1500, snapshot_each=3)
    whole = log.disk.copy()
    names = paths(log, "log")
    data = whole.files[names[1]]
    whole.files[names[1]] = data[:4300] + b"??" + data[4302:]
    whole.files[names[-1]], whole.files[names[-2]] = whole.files[names[-2]], whole.files[names[-1]]
    last = 0
    for at in count():
        disk = whole.copy()
        left = [at]

        def fault(what: str, path: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise error

        disk.fault = fault
        try:
            repair(disk, FOLDER, surveyed(disk), lambda: "e" * 32)
        except (OSError, KeyboardInterrupt):
            last = at
        else:
            break
        disk.fault = lambda what, path: None
        half = disk.copy()
        if f"{FOLDER}/repair" in half.files:
            # It neither starts half repaired, nor is it forgotten.
            made = start(half.copy(), log.options)
            assert isinstance(made, StorageError)
            assert "tega-check --repair" in made.message
            surveyed(half)
        # The undoing may be interrupted too.
        for again in range(30):
            left = [again]
            half.fault = lambda what, path, left=left: fault(what, path, left)
            try:
                undo(half, FOLDER)
                break
            except (OSError, KeyboardInterrupt):
                continue
        half.fault = lambda what, path: None
        undo(half, FOLDER)
        for path, content in whole.files.items():
            assert half.files[path] == content
        check(log, half)
    assert last > 8
