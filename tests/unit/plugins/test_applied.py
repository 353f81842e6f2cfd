"""What was applied, on disk: round trips, damage, and what a crash leaves."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq import values
from tega_zmq.plugins import applied
from tega_zmq.plugins.applied import NOTHING, UNKNOWN, Applied, AppliedFile

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def make(folder: Path, path: str = "config-pi1.net") -> AppliedFile:
    return AppliedFile(folder / "applied", "net", "apply", path)


def test_nothing_was_applied_where_there_is_no_file(tmp_path: Path) -> None:
    assert make(tmp_path).read() == NOTHING
    assert NOTHING.value() is None
    assert not list(tmp_path.iterdir())


@given(value=TREES, version=st.none() | st.integers(0, 2**63 - 1), present=st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: Any, value: Any, version: int | None, present: bool
) -> None:
    file = make(tmp_path_factory.mktemp("a"))
    state = applied.applied("epoch", version, present, value)
    file.write(state)
    assert file.read() == state
    assert values.same(file.read().value(), value)


def test_that_a_call_was_begun_is_kept_with_the_value_before(tmp_path: Path) -> None:
    file = make(tmp_path)
    state = applied.applied("e", 1, True, "old")._replace(begun=True)
    file.write(state)
    assert file.read() == state
    file.write(state._replace(begun=False))
    assert not file.read().begun


def test_an_emptied_file_is_not_one_that_says_nothing_was_applied(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.empty()
    with pytest.raises(ValueError, match="is empty"):
        file.read()
    assert UNKNOWN.begun
    assert UNKNOWN.value() is None


def test_each_handler_has_a_file_of_its_own(tmp_path: Path) -> None:
    paths = {
        AppliedFile(tmp_path, *identity).file
        for identity in [
            ("net", "apply", "a.b"),
            ("net", "apply", "a.c"),
            ("net", "other", "a.b"),
            ("wifi", "apply", "a.b"),
            ("net", "apply", 'a."b/../c"'),
        ]
    }
    assert len(paths) == 5
    assert {path.parent for path in paths} == {tmp_path}


def test_a_value_is_a_copy_each_time() -> None:
    state = applied.applied("e", 1, True, {"a": [1]})
    state.value()["a"].append(2)
    assert state.value() == {"a": [1]}


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.write(applied.applied("e", 3, True, {"mtu": 1500}))
    whole = file.file.read_bytes()
    for end in range(len(whole)):
        file.file.write_bytes(whole[:end])
        with pytest.raises(ValueError):
            file.read()
    for at in range(len(whole)):
        for bit in range(8):
            file.file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with pytest.raises(ValueError):
                file.read()


@pytest.mark.parametrize(
    "entry",
    [
        {},
        [],
        None,
        {"format": 2, "plugin": "net", "method": "apply", "path": "config-pi1.net"},
        {"format": 1, "plugin": "net", "method": "apply", "path": "config-pi1.other"},
        {
            "format": 1,
            "plugin": "net",
            "method": "apply",
            "path": "config-pi1.net",
            "version": "3",
            "present": True,
        },
        {
            "format": 1,
            "plugin": "net",
            "method": "apply",
            "path": "config-pi1.net",
            "version": 3,
            "present": 1,
        },
        {
            "format": 1,
            "plugin": "net",
            "method": "apply",
            "path": "config-pi1.net",
            "version": 3,
            "present": True,
        },
    ],
)
def test_a_whole_file_with_other_content_is_refused(tmp_path: Path, entry: Any) -> None:
    file = make(tmp_path)
    file.file.parent.mkdir()
    body = msgpack.packb(entry)
    file.file.write_bytes(zlib.crc32(body).to_bytes(4, "big") + body)
    with pytest.raises(ValueError):
        file.read()


def test_bytes_that_are_no_msgpack_are_refused(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.file.parent.mkdir()
    for body in (b"\xc1", b"\x81", b"\x01\x01"):
        file.file.write_bytes(zlib.crc32(body).to_bytes(4, "big") + body)
        with pytest.raises(ValueError):
            file.read()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = make(tmp_path)
    old = applied.applied("e", 1, True, "old")
    file.write(old)

    def fail(*_: Any) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="no space"):
            file.write(applied.applied("e", 2, True, "new"))
    assert file.read() == old
    assert [each.name for each in file.file.parent.iterdir()] == [file.file.name]


def test_the_file_is_synced_before_and_the_folder_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave an empty file, or none."""
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        steps.append("sync " + ("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"))
        real_fsync(fd)

    def replace(source: Any, target: Any) -> None:
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    make(tmp_path).write(Applied("e", 1, False, NOTHING.packed))
    assert steps == ["sync file", "rename", "sync folder"]
