"""The file operations that the log uses, and their real implementation.

Everything else in `tega_zmq.log` takes a `Disk` as a parameter and touches files through it alone, so that
a simulation can give it a disk that tears, loses, reorders and refuses. All operations raise `OSError` when
they fail. Sizes and offsets are in bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

__all__ = ["Disk", "File", "HeldError", "Lock", "OsDisk", "ReadingDisk"]

_T = TypeVar("_T")


class HeldError(OSError):
    """The lock is held by another process; `pid` is its id as it wrote it down, or 0 if that is unknown."""

    def __init__(self, path: str, pid: int) -> None:
        super().__init__(errno.EWOULDBLOCK, "held by another process", path)
        self.pid = pid


class Lock(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Let go. A lock is also let go by the end of the process, however it ends."""


class File(Protocol):
    """An open file, read and written by position."""

    def size(self) -> int:
        """Return how long the file is."""

    def read(self, offset: int, size: int) -> bytes:
        """Return what stands there: fewer than `size` bytes only at the end of the file."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of `data`; it may be lost, in part or whole, until `sync` returned."""

    def write_sync(self, offset: int, data: bytes) -> None:
        """Write all of `data`, and return when that range is durable. Says nothing of earlier writes."""

    def allocate(self, size: int) -> None:
        """Make the file `size` long with space on the disk behind all of it; the new part reads as zeros."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size`."""

    def sync(self) -> None:
        """Return when all that was written, and the size, is durable."""

    def close(self) -> None:
        """Close it; never fails, and makes nothing durable."""


class Disk(Protocol):
    """A file system. A new, renamed or removed name is durable after `sync_folder` of its folder."""

    def make_folder(self, path: str) -> None:
        """Make the folder if it is not there, its parents too; durable when this returns."""

    def list(self, path: str) -> list[str]:
        """Return the names in the folder, sorted; none if the folder is not there."""

    def open(self, path: str) -> File:
        """Open a file that is there, to read and write."""

    def create(self, path: str) -> File:
        """Open an empty file; one that is there is emptied."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in one step; a file of that name is replaced."""

    def remove(self, path: str) -> None:
        """Remove the file."""

    def sync_folder(self, path: str) -> None:
        """Return when the names in the folder are durable."""

    def lock(self, path: str) -> Lock:
        """Take the lock on `path`, or raise `HeldError`."""


_ZEROS: Final = bytes(256 * 1024)
_DSYNC: Final = os.RWF_DSYNC


class _OsFile:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        parts = []
        while size > 0 and (part := os.pread(self._fd, size, offset)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        done = os.pwrite(self._fd, data, offset)
        while done < len(data):
            done += os.pwrite(self._fd, memoryview(data)[done:], offset + done)

    def write_sync(self, offset: int, data: bytes) -> None:
        # One system call instead of two: a thread beside a busy one waits for the interpreter after each.
        try:
            done = os.pwritev(self._fd, (data,), offset, _DSYNC)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            done = 0
        if done < len(data):
            self.write(offset + done, data[done:])
            os.fdatasync(self._fd)

    def allocate(self, size: int) -> None:
        now = self.size()
        if size <= now:
            return
        try:
            os.posix_fallocate(self._fd, now, size - now)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            while now < size:
                self.write(now, _ZEROS[: size - now])
                now = min(size, now + len(_ZEROS))

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            # What counts was synced; a late error of what does not count is no reason to stop.
            with suppress(OSError):
                os.close(fd)


class _OsLock:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class OsDisk:
    """The file system of the machine. Files and folders that it makes are for their owner alone.

    What opens something may use the descriptors between the soft and the hard limit of the process: those are
    out of reach of whoever connects, so that the log goes on where connections have taken all the others.
    """

    def __init__(self) -> None:
        self._raising = threading.Lock()
        """Who holds it has raised the limit: the log's threads and the history's are several."""

    def _opened(self, action: Callable[[], _T]) -> _T:
        """Return the result of `action`, which needs a descriptor. Raises `OSError`."""
        try:
            return action()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
        with self._raising:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            try:
                return action()
            finally:
                with suppress(OSError, ValueError):
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def _open(self, path: str, flags: int) -> int:
        return self._opened(lambda: os.open(path, flags, 0o600))

    def make_folder(self, path: str) -> None:
        path = os.path.abspath(path)
        if os.path.isdir(path):
            return
        above = os.path.dirname(path)
        self.make_folder(above)
        os.mkdir(path, 0o700)
        self.sync_folder(above)

    def list(self, path: str) -> list[str]:
        try:
            return sorted(self._opened(lambda: os.listdir(path)))
        except FileNotFoundError:
            return []

    def open(self, path: str) -> File:
        return _OsFile(self._open(path, os.O_RDWR))

    def create(self, path: str) -> File:
        return _OsFile(self._open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def sync_folder(self, path: str) -> None:
        fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> Lock:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.pread(fd, 32, 0).strip()
                raise HeldError(path, int(text) if text.isdigit() else 0) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(fd)
            raise
        return _OsLock(fd)


class ReadingDisk(OsDisk):
    """The file system of the machine for one who only reads: it works on what this user may not change."""

    def open(self, path: str) -> File:
        # Without waiting, should something else than a file have that name.
        return _OsFile(os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    def lock(self, path: str) -> Lock:
        try:
            return super().lock(path)
        except HeldError:
            raise
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
        # The id of this process cannot be noted, but that the file is held can be seen.
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise HeldError(path, int(text) if text.isdigit() else 0) from None
        except BaseException:
            os.close(fd)
            raise
        return _OsLock(fd)
