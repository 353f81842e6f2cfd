"""The real file system behind the log."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tega_zmq.log.disk import HeldError, OsDisk


def test_files_are_written_and_read_by_position(tmp_path: Path) -> None:
    disk = OsDisk()
    path = str(tmp_path / "file")
    file = disk.create(path)
    assert file.size() == 0
    file.allocate(10_000)
    assert file.read(0, 20_000) == bytes(10_000)
    file.allocate(5_000)
    assert file.size() == 10_000
    file.write(100, b"hello")
    file.write_sync(105, b" world")
    file.sync()
    assert file.read(99, 13) == b"\0hello world\0"
    assert file.read(9_999, 10) == b"\0"
    assert file.read(10_000, 10) == b""
    file.truncate(103)
    file.close()
    file.close()
    file = disk.open(path)
    assert file.read(100, 100) == b"hel"
    file.close()
    assert os.stat(path).st_mode & 0o777 == 0o600
    again = disk.create(path)
    assert again.size() == 0
    again.close()
    with pytest.raises(FileNotFoundError):
        disk.open(str(tmp_path / "none"))


def test_names(tmp_path: Path) -> None:
    disk = OsDisk()
    folder = f"{tmp_path}/a/b/c"
    assert disk.list(folder) == []
    disk.make_folder(folder)
    disk.make_folder(folder)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    disk.create(f"{folder}/two").close()
    disk.create(f"{folder}/one").close()
    assert disk.list(folder) == ["one", "two"]
    disk.rename(f"{folder}/one", f"{folder}/two")
    disk.sync_folder(folder)
    assert disk.list(folder) == ["two"]
    disk.remove(f"{folder}/two")
    assert disk.list(folder) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        disk.make_folder(f"{tmp_path}/file/below")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = OsDisk().create(str(tmp_path / "file"))
    pwrite, pwritev, pread = os.pwrite, os.pwritev, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data)[:3], offset))
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 4), offset))
    monkeypatch.setattr(
        os, "pwritev", lambda fd, parts, offset, flags: pwritev(fd, [bytes(parts[0])[:2]], offset, flags)
    )
    file.write(5, b"0123456789")
    file.write_sync(15, b"abcdefghij")
    assert file.read(5, 30) == b"0123456789abcdefghij"
    file.close()


def test_a_file_system_without_the_newer_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "pwritev", refuse)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    file = OsDisk().create(str(tmp_path / "file"))
    file.allocate(1_000_000)
    file.write_sync(999_990, b"0123456789")
    assert file.read(0, 2_000_000) == bytes(999_990) + b"0123456789"
    file.close()


def test_other_errors_are_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = OsDisk().create(str(tmp_path / "file"))
    monkeypatch.setattr(os, "pwritev", full)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        file.write_sync(0, b"x")
    with pytest.raises(OSError, match="No space"):
        file.allocate(10)
    monkeypatch.setattr(os, "close", full)
    file.close()
    monkeypatch.undo()


def test_a_lock_excludes_other_processes_and_ends_with_its_own(tmp_path: Path) -> None:
    disk = OsDisk()
    path = str(tmp_path / "lock")
    program = (
        "import sys\n"
        "from tega_zmq.log.disk import OsDisk\n"
        "lock = OsDisk().lock(sys.argv[1])\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(HeldError) as caught:
            disk.lock(path)
        assert caught.value.pid == other.pid
        other.kill()
        other.wait()
    lock = disk.lock(path)
    with pytest.raises(HeldError) as caught:
        disk.lock(path)
    assert caught.value.pid == os.getpid()
    Path(path).write_text("what?")
    with pytest.raises(HeldError) as caught:
        disk.lock(path)
    assert caught.value.pid == 0
    lock.release()
    lock.release()
    disk.lock(path).release()


def test_files_are_opened_beyond_the_soft_limit_of_descriptors(tmp_path: Path) -> None:
    program = (
        "import os, resource, sys\n"
        "from tega_zmq.log.disk import OsDisk\n"
        "disk, folder = OsDisk(), sys.argv[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 44))\n"
        "try:\n"
        "    while True:\n"
        "        os.open(os.devnull, os.O_RDONLY)\n"
        "except OSError:\n"
        "    pass\n"
        "disk.make_folder(folder + '/below')\n"
        "files = [disk.create(folder + '/a')]\n"
        "disk.sync_folder(folder)\n"
        "print(disk.list(folder))\n"
        "files += [disk.open(folder + '/a') for _ in range(3)]\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (40, 44)\n"
        "try:\n"
        "    disk.open(folder + '/a')\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ended.stdout.splitlines() == ["['a', 'below']", "Too many open files"], ended.stderr
