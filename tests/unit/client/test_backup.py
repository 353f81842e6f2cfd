"""Backups to files, of a broker that has nothing."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tega_zmq.client.backup import Summary, backup, restore
from tega_zmq.errors import InvalidValue, StorageError


class Empty:
    """The client of an empty broker."""

    def inspect(self, what: str) -> Any:
        return {"tega_id": "gateway"} if what == "status" else []

    def tags(self) -> dict[str, dict[str, int]]:
        return {}


CLIENT: Any = Empty()


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "site.tega"
    before = os.umask(0o022)
    try:
        assert backup(CLIENT, str(file)) == Summary(0, 0, 0)
        assert mode(file) == 0o644
        for kept in (0o600, 0o666):
            file.chmod(kept)
            inode = file.stat().st_ino
            backup(CLIENT, str(file))
            assert mode(file) == kept
            assert file.stat().st_ino != inode
    finally:
        os.umask(before)


def test_nobody_may_read_it_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "site.tega"
    file.touch(0o600)
    seen: list[int] = []

    def inspect(what: str) -> Any:
        seen.extend(map(mode, tmp_path.iterdir()))
        return Empty.inspect(CLIENT, what)

    monkeypatch.setattr(CLIENT, "inspect", inspect, raising=False)
    backup(CLIENT, str(file))
    assert set(seen) == {0o600}
    assert len(seen) == 4


@pytest.mark.parametrize("name", ["absent/", "folder/", "folder"])
def test_a_name_of_a_folder_is_none_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=f"{name}: cannot be written: Is a directory"):
        backup(CLIENT, f"{tmp_path}/{name}")
    assert [each.name for each in tmp_path.rglob("*")] == ["folder"]


def test_to_a_stream_and_back() -> None:
    stream = io.BytesIO()
    assert backup(CLIENT, stream) == restore(CLIENT, stream) == Summary(0, 0, 0)
    with pytest.raises(InvalidValue, match="standard input: damaged or cut off: line 0 is not"):
        restore(CLIENT, io.BytesIO(b""))
    refused = pytest.raises(StorageError, match="standard output: cannot be written: No space")
    with open("/dev/full", "wb", buffering=0) as full, refused:
        backup(CLIENT, full)  # type: ignore[arg-type]
