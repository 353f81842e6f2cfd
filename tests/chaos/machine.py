"""What the tests borrow from the machine: small filesystems, hosts in network namespaces, a stepped clock.

Where the machine does not allow it the test is skipped and says so; in CI (`CI` is set) it fails instead.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.conftest import MACHINE


def cannot(what: str) -> NoReturn:
    """Skip the test, or fail it in CI, since the machine does not allow `what`."""
    if os.environ.get("CI"):
        pytest.fail(f"this machine cannot do what CI needs: {what}")
    pytest.skip(MACHINE + what)


def run(*command: str) -> str:
    """Run `command` and return what it printed. Raises `OSError`, with that, if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class SmallDisk:
    """A filesystem of its own, of `size` bytes, that can be filled to the last byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no room."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def make_room(self) -> None:
        """Take back what `fill` took."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """A tmpfs of `size` bytes, mounted at `folder`, which is made; unmounted with the block."""
    folder.mkdir()
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tega-test", str(folder))
    except OSError as error:
        cannot(f"a small filesystem cannot be mounted ({error}); it takes root")
    try:
        yield SmallDisk(folder)
    finally:
        run("umount", "--lazy", str(folder))


def needs(*programs: str) -> None:
    """Skip the test, or fail it in CI, if one of `programs` is not installed."""
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        cannot(f"{', '.join(missing)} not installed; see tests/chaos/prepare")


STEPPED = """
import mmap, os, struct, time
with open(os.environ["CHAOS_CLOCK"], "rb") as file:
    offset = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + struct.unpack("<q", offset[:8])[0]
time.time_ns = lambda: real_ns() + struct.unpack("<q", offset[:8])[0] * 1_000_000_000
"""
"""Python runs this before a program. libfaketime would do the same for every library, but makes each look at
any clock so slow that connections are taken for lost; and nothing else here reads the wall clock."""


class Clock:
    """The wall clock of programs, to be stepped while they run; their monotonic clock is left alone."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(bytes(8))
        hooks = folder / "hooks"
        hooks.mkdir()
        (hooks / "sitecustomize.py").write_text(STEPPED)
        self.environment = {"PYTHONPATH": str(hooks), "CHAOS_CLOCK": str(self._file)}
        """What programs must be started with."""

    def step(self, offset: int) -> None:
        """Let the programs be `offset` seconds ahead, or behind if negative."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("<q", offset))
