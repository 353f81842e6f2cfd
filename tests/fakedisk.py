"""A disk in memory that keeps apart what programs see and what would survive a crash.

What was written and not synced survives in any part: each write is cut into sectors, each of which may or
may not arrive, in any order, and may be torn at any byte. Names survive up to some point in the order in
which they were given, each folder for itself. After a failed sync the system believes that all is written,
though it is not, as Linux does.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import NamedTuple

from tega_zmq.log.disk import HeldError

SECTOR = 512


class Crashed(BaseException):
    """The power went."""


class _Write(NamedTuple):
    offset: int
    data: bytes


class _Size(NamedTuple):
    size: int


def _apply(content: bytearray, op: _Write | _Size) -> None:
    if isinstance(op, _Size):
        if len(content) < op.size:
            content.extend(bytes(op.size - len(content)))
        del content[op.size :]
        return
    end = op.offset + len(op.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[op.offset : end] = op.data


class _Inode:
    def __init__(self, content: bytes = b"") -> None:
        self.seen = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[_Write | _Size] = []
        self.failed = False
        """A sync of it failed, and the process that saw that still runs."""

    def change(self, op: _Write | _Size) -> None:
        _apply(self.seen, op)
        self.pending.append(op)

    def change_durably(self, offset: int, data: bytes) -> None:
        _apply(self.durable, _Write(offset, data))

    def settle(self) -> None:
        for op in self.pending:
            _apply(self.durable, op)
        self.pending.clear()

    def survivor(self, rng: random.Random) -> bytes:
        content = bytearray(self.durable)
        how = rng.randrange(4)  # nothing, everything, a prefix of the writes, any part in any order
        ops = list(self.pending)
        if how == 0:
            ops = []
        elif how == 2 and ops:
            ops = ops[: rng.randrange(len(ops) + 1)]
            if ops and isinstance(ops[-1], _Write):
                ops[-1] = _Write(ops[-1].offset, ops[-1].data[: rng.randrange(len(ops[-1].data) + 1)])
        elif how == 3:
            pieces: list[_Write | _Size] = []
            for op in ops:
                if isinstance(op, _Size):
                    if rng.random() < 0.5:
                        pieces.append(op)
                    continue
                at = op.offset
                while at < op.offset + len(op.data):
                    end = min((at // SECTOR + 1) * SECTOR, op.offset + len(op.data))
                    if rng.random() < 0.5:
                        pieces.append(_Write(at, op.data[at - op.offset : end - op.offset]))
                    at = end
            ops = pieces
        for op in ops:
            _apply(content, op)
        return bytes(content)


class FakeFile:
    def __init__(self, disk: FakeDisk, inode: _Inode, path: str) -> None:
        self._disk, self._inode, self._path = disk, inode, path

    def size(self) -> int:
        return len(self._inode.seen)

    def read(self, offset: int, size: int) -> bytes:
        self._disk.step("read", self._path)
        return bytes(self._inode.seen[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self._written()
        self._disk.step("write", self._path)
        self._inode.change(_Write(offset, data))

    def write_sync(self, offset: int, data: bytes) -> None:
        self._written()
        self._disk.step("write", self._path)
        self._inode.change(_Write(offset, data))
        try:
            self._disk.step("sync", self._path)
        except OSError:
            self._inode.pending.pop()
            self._inode.failed = True
            raise
        _apply(self._inode.durable, self._inode.pending.pop())

    def allocate(self, size: int) -> None:
        self._disk.step("allocate", self._path)
        if size > self.size():
            self._inode.change(_Size(size))

    def truncate(self, size: int) -> None:
        self._disk.step("truncate", self._path)
        self._inode.change(_Size(size))

    def sync(self) -> None:
        try:
            self._disk.step("sync", self._path)
        except OSError:
            # Nothing of it is on the disk, and the next sync has nothing to do.
            self._inode.pending.clear()
            self._inode.failed = True
            raise
        self._inode.settle()

    def _written(self) -> None:
        if self._inode.failed:
            self._disk.distrusted.append(self._path)

    def close(self) -> None:
        return


class FakeLock:
    def __init__(self, disk: FakeDisk, path: str) -> None:
        self._disk, self._path = disk, path

    def release(self) -> None:
        self._disk.locks.discard(self._path)


Names = dict[str, _Inode]


class FakeDisk:
    """Set `fault` to see each operation before it is done: it may raise `OSError` or `Crashed`."""

    def __init__(self) -> None:
        self.names: Names = {}
        self.history: dict[str, list[Names]] = {}
        """Per folder: its names since they were last synced, the synced ones first."""
        self.folders: set[str] = set()
        self.locks: set[str] = set()
        self.steps: list[tuple[str, str]] = []
        self.distrusted: list[str] = []
        """Files that were written to after a sync of them failed."""
        self.fault: Callable[[str, str], None] = lambda what, path: None

    def step(self, what: str, path: str) -> None:
        self.steps.append((what, path))
        self.fault(what, path)

    # -- as programs see it

    def make_folder(self, path: str) -> None:
        self.step("make_folder", path)
        self.folders.add(path)

    def list(self, path: str) -> list[str]:
        self.step("list", path)
        return sorted(name.rsplit("/", 1)[1] for name in self.names if name.rsplit("/", 1)[0] == path)

    def open(self, path: str) -> FakeFile:
        self.step("open", path)
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return FakeFile(self, self.names[path], path)

    def create(self, path: str) -> FakeFile:
        self.step("create", path)
        if path in self.names:
            self.names[path].change(_Size(0))
            self.names[path].failed = False
        else:
            self._change(path, _Inode())
        return FakeFile(self, self.names[path], path)

    def rename(self, old: str, new: str) -> None:
        self.step("rename", old)
        inode = self.names[old]
        self._change(old, None)
        # One step: the state between the two never is.
        self.history[_folder(old)].pop()
        self._change(new, inode)

    def remove(self, path: str) -> None:
        self.step("remove", path)
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        self._change(path, None)

    def sync_folder(self, path: str) -> None:
        self.step("sync_folder", path)
        self.history.pop(path, None)

    def lock(self, path: str) -> FakeLock:
        self.step("lock", path)
        if path in self.locks:
            raise HeldError(path, 4711)
        self.locks.add(path)
        return FakeLock(self, path)

    def _change(self, path: str, inode: _Inode | None) -> None:
        folder = _folder(path)
        now = {name: each for name, each in self.names.items() if _folder(name) == folder}
        states = self.history.setdefault(folder, [dict(now)])
        if inode is None:
            del self.names[path]
            now.pop(path, None)
        else:
            self.names[path] = inode
            now[path] = inode
        states.append(now)

    # -- from outside

    def content(self, path: str) -> bytes:
        return bytes(self.names[path].seen)

    def put(self, path: str, content: bytes | None) -> None:
        """Change a file at rest; None removes it."""
        if content is None:
            del self.names[path]
        else:
            self.names[path] = _Inode(content)

    def copy(self) -> FakeDisk:
        """A disk with what programs see here, all of it durable, and no locks: a kill -9 and a sync."""
        disk = FakeDisk()
        disk.names = {path: _Inode(bytes(inode.seen)) for path, inode in self.names.items()}
        disk.folders = set(self.folders)
        return disk

    def killed(self) -> FakeDisk:
        """This disk after kill -9: nothing is lost, nothing is synced, the locks are free."""
        self.locks.clear()
        self.fault = lambda what, path: None
        for inode in self.names.values():
            inode.failed = False
        return self

    def crashed(self, rng: random.Random) -> FakeDisk:
        """A disk with what survives a power loss."""
        disk = FakeDisk()
        disk.folders = set(self.folders)
        survivors: dict[int, _Inode] = {}
        names = {path: inode for path, inode in self.names.items() if _folder(path) not in self.history}
        for states in self.history.values():
            names.update(rng.choice(states))
        for path, inode in names.items():
            if id(inode) not in survivors:
                survivors[id(inode)] = _Inode(inode.survivor(rng))
            disk.names[path] = survivors[id(inode)]
        return disk


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0]
