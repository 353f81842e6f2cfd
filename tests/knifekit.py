"""Real logs of mixed commits with what they must lead to, and a disk whose copies share what is the same."""

from __future__ import annotations

import copy
import errno
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from tega_zmq import store as core
from tega_zmq.errors import StorageError
from tega_zmq.log import Log, Options, Report, open_log, rebuild, segment
from tega_zmq.log.records import encode_chunk, encode_record
from tega_zmq.store import Kept, Op, Store

FOLDER = "/data"
KEPT = Kept(versions=6, updates=20)


class MemoryDisk:
    """Files in memory, for reading at speed: a copy is made in no time, and a change is seen by it alone.

    `fault` sees each operation that changes something, before it is done, and may raise.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes] = files if files is not None else {}
        self.opened: list[_MemoryFile] = []
        self.fault: Callable[[str, str], None] = lambda what, path: None

    def copy(self) -> MemoryDisk:
        return MemoryDisk(dict(self.files))

    def make_folder(self, path: str) -> None:
        pass

    def list(self, path: str) -> list[str]:
        start = path + "/"
        length = len(start)
        found = {name[length:].partition("/")[0] for name in self.files if name.startswith(start)}
        return sorted(found)

    def open(self, path: str) -> _MemoryFile:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return _MemoryFile(self, path)

    def create(self, path: str) -> _MemoryFile:
        self.fault("create", path)
        self.files[path] = b""
        self.opened.append(_MemoryFile(self, path))
        return self.opened[-1]

    def rename(self, old: str, new: str) -> None:
        self.fault("rename", old)
        if old not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", old)
        self.files[new] = self.files.pop(old)
        for file in self.opened:
            if file.path == old:
                file.path = new

    def remove(self, path: str) -> None:
        self.fault("remove", path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        del self.files[path]

    def sync_folder(self, path: str) -> None:
        pass

    def lock(self, path: str) -> MemoryDisk:
        return self

    def release(self) -> None:
        pass


class _MemoryFile:
    __slots__ = ("_disk", "path")

    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self._disk, self.path = disk, path

    def size(self) -> int:
        return len(self._disk.files[self.path])

    def read(self, offset: int, size: int) -> bytes:
        return self._disk.files[self.path][offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        self._disk.fault("write", self.path)
        old = self._disk.files[self.path]
        self._disk.files[self.path] = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]

    write_sync = write

    def allocate(self, size: int) -> None:
        self._disk.fault("allocate", self.path)
        self._disk.files[self.path] = self._disk.files[self.path].ljust(size, b"\0")

    def truncate(self, size: int) -> None:
        self._disk.fault("truncate", self.path)
        self._disk.files[self.path] = self._disk.files[self.path][:size].ljust(size, b"\0")

    def sync(self) -> None:
        self._disk.fault("sync", self.path)

    def close(self) -> None:
        if self in self._disk.opened:
            self._disk.opened.remove(self)


class Written(NamedTuple):
    """A log, and what each of its records led to."""

    disk: MemoryDisk
    payloads: list[bytes]
    """Of the records, from record 1 on."""
    states: list[Store]
    """After so many records."""
    trees: list[dict[str, Any]]
    """The model: what the roots of this node show without ephemeral nodes, by revision."""
    whens: list[MemoryDisk]
    """The disk when the segment with the same number was full, just before the next one was begun."""
    options: Options
    checked: set[int]
    """For tests that start again and again: what they have seen already."""


class _Writer:
    """Makes records as a node does, and knows what they make without a tree: flat dicts of leaves."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.state = core.empty(KEPT)
        self.payloads: list[bytes] = []
        self.states = [self.state]
        self.model: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.trees: list[dict[str, Any]] = [{}]
        self.requests = {"s0": 0, "s1": 0, "s2": 0}
        self.living: list[str] = []
        self.presence = 0

    def record(self, record: core.Record) -> bytes:
        self.state = core.apply(self.state, record)
        self.states.append(self.state)
        payload = encode_record(record)
        self.payloads.append(payload)
        return payload

    def commit(self, ops: list[Op], session: str) -> list[bytes]:
        self.requests[session] += 1
        made = core.write(
            self.state,
            ops,
            time=1_700_000_000.0 + len(self.payloads),
            tega_id=f"noc-{session}",
            message=self.rng.choice(["", "", "jumbo frames"]),
            session=session,
            request=self.requests[session],
            ack=max(1, self.requests[session] - 3),
            fresh=lambda: f"epoch-{len(self.payloads)}",
            max_value=1 << 20,
        )
        if made.commit is None:
            return []
        for op in ops:
            self.note(op)
        for update in made.commit.updates:
            self.kept.setdefault(update.root, []).append(copy.deepcopy(self.model.get(update.root, {})))
        self.trees.append(copy.deepcopy(self.model))
        return [self.record(made.commit)]

    def note(self, op: Op) -> None:
        """Do in plain dicts what `op` does; ephemeral nodes are not noted."""
        root = op.path[0]
        if op.kind == "rollback":
            self.model[root] = copy.deepcopy(self.kept[root][op.value])
        elif op.kind == "delete" and len(op.path) == 1:
            del self.model[root]
        elif not op.ephemeral:
            at = self.model.setdefault(root, {})
            for oid in op.path[1:-1]:
                at = at.setdefault(oid, {})
            if op.kind == "put":
                at[op.path[-1]] = op.value
            else:
                del at[op.path[-1]]

    def step(self) -> list[bytes]:
        """Make the records of one thing that happens: mostly one commit."""
        rng = self.rng
        session = rng.choice(sorted(self.requests))
        if session not in self.living:
            self.living.append(session)
            self.requests[session] = 0
            return [self.record(core.Opened(session, f"noc-{session}", f"token-{len(self.payloads)}", ""))]
        what = rng.randrange(40)
        if what == 0:
            made = []
            gone = core.end_session(self.state, session, time=1.0, tega_id="gateway")
            if gone is not None:
                made.append(self.record(gone))
                self.trees.append(self.trees[-1])
            self.living.remove(session)
            return [*made, self.record(core.Ended(session))]
        if what == 1:
            return self.owned()
        if what < 5:
            self.presence += 1
            path = ("presence", session)
            return self.commit([Op("put", path, {"n": self.presence}, None, True)], session)
        roots = [root for root in sorted(self.kept) if root.startswith("config")]
        if what < 8 and roots:
            root = rng.choice(roots)
            version = self.state.roots[root].version
            back = rng.randrange(max(0, version - KEPT.versions + 1), version + 1)
            if self.state.roots[root].trees.get(back, (None,))[0] is None:
                return []
            return self.commit([Op("rollback", (root,), back)], session)
        if what < 12 and roots:
            root = rng.choice(roots)
            if root in self.model and rng.randrange(8) == 0:
                return self.commit([Op("delete", (root,))], session)
            leaves = sorted((box, oid) for box, below in self.model.get(root, {}).items() for oid in below)
            if len(leaves) > 3:
                return self.commit([Op("delete", (root, *rng.choice(leaves)))], session)
        count = rng.choice([1, 1, 1, 1, 2, 3])
        return self.commit([self.put() for _ in range(count)], session)

    def put(self) -> Op:
        rng = self.rng
        root = rng.choice(["config-pi1", "config-pi2", "config-pi3"])
        box, oid = f"n{rng.randrange(4)}", rng.choice(["mtu", "eth0.100", "name", "zeros"])
        value: Any = rng.randrange(10_000)
        if oid == "name":
            value = "x" * rng.randrange(60)
        elif oid == "zeros":
            # Every now and then a value with a run of zeros, which is masked on the disk.
            value = "\0" * 300 if rng.randrange(30) == 0 else None
        return Op("put", (root, box, oid), value)

    def owned(self) -> list[bytes]:
        """A device's root: claimed, filled by an update of its owner, or by a tree in parts."""
        rng = self.rng
        root = f"ops-pi{rng.randrange(3)}"
        known = self.state.roots.get(root)
        if known is None:
            return [self.record(core.Owned(root, root.removeprefix("ops-"), ""))]
        if rng.randrange(3) == 0:
            part = core.ResetPart(root, True, (((root,), 7, True, None), ((root, "up"), 5, False, 12.5)))
            end = core.ResetEnd(root, f"e{len(self.payloads)}", 7, True, (), 1.5, known.owner, "")
            return [self.record(part), self.record(end)]
        change = core.Change((root, f"load{rng.randrange(5)}"), True, rng.randrange(100))
        epoch = known.epoch if known.version >= 0 else "first"
        update = core.Update(root, epoch, known.version, known.version + 1, (change,), 2.5, known.owner, "")
        return [self.record(core.Replicated(update))]


def written(
    commits: int,
    *,
    seed: int = 1,
    segment_size: int = 1400,
    snapshot_each: int = 0,
    kept: int = 2,
    clean: bool = False,
) -> Written:
    """Write a log of so many commits.

    `segment_size`: bytes of records in a segment. `snapshot_each`: segments after which a snapshot is made,
    0: none is. `kept`: how many of them. `clean`: the node was stopped in order.
    """
    options = Options(segment=4096 + segment_size, snapshots=kept)
    disk = MemoryDisk()
    writer = _Writer(seed)
    log = open_log(disk, FOLDER, options, new_id=lambda: "store-1").log
    whens: list[MemoryDisk] = []
    before = disk.copy()
    while writer.state.revision < commits:
        for payload in writer.step():
            log.append_batch([payload])
            if log.last > 1 and f"{FOLDER}/log/{segment.name_of(log.last)}" in disk.files:
                whens.append(before)
                if snapshot_each and len(whens) % snapshot_each == 0:
                    take_snapshot(log, log.last - 1, writer.states[log.last - 1])
            before = disk.copy()
    log.close(clean=clean)
    whens.append(before)
    return Written(disk, writer.payloads, writer.states, writer.trees, whens, options, set())


def take_snapshot(log: Log, lsn: int, state: Store) -> None:
    """Make a snapshot of `state`, that after record `lsn`, in one go."""
    writing = log.snapshot(lsn)
    for item in core.dump(state):
        writing.add(encode_chunk(item))
    writing.sync()
    log.sync()
    writing.publish()
    log.prune()


class Started(NamedTuple):
    """A start that succeeded."""

    report: Report
    payloads: list[tuple[int, bytes]]
    """After the snapshot."""


def start(disk: MemoryDisk, options: Options) -> Started | StorageError:
    """Start as far as the log alone goes; a refusal must change nothing."""
    before = dict(disk.files)
    try:
        opened = open_log(disk, FOLDER, options, new_id=lambda: "another")
    except StorageError as error:
        assert disk.files == before, "a refused start changed something"
        return error
    made = Started(opened.report, list(opened.records))
    opened.log.close(clean=False)
    return made


def start_store(disk: MemoryDisk, options: Options) -> Store | StorageError:
    """Start as a node does, and return the store."""
    try:
        opened = open_log(disk, FOLDER, options, new_id=lambda: "another")
    except StorageError as error:
        return error
    try:
        return rebuild(disk, FOLDER, opened, KEPT)
    except StorageError as error:
        return error
    finally:
        opened.log.close(clean=False)


_REFUSAL = re.compile(
    r"(?P<path>/\S+), at byte (?P<offset>\d+), record (?P<lsn>\d+): .*"
    r"The last good revision is (?P<good>\d+), the damage begins at revision (?P<bad>\d+)\. "
    r"Nothing was changed; see what can be saved with: tega-check /data"
)


class Refusal(NamedTuple):
    """What a refusal names."""

    path: str
    offset: int
    lsn: int
    good: int


def named(error: StorageError) -> Refusal:
    """Return what `error` names; it must name file, offset and revision."""
    found = _REFUSAL.fullmatch(error.message)
    assert found is not None, error.message
    assert int(found["bad"]) == int(found["good"]) + 1
    return Refusal(found["path"], int(found["offset"]), int(found["lsn"]), int(found["good"]))
