"""A backup of a running broker, and back into an empty one: equal in every version."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tega_zmq import errors
from tega_zmq.client.backup import backup, restore
from tega_zmq.client.blocking import Client
from tests.processes import Fleet, until

FEW = {"history.versions": "5", "history.updates": "40"}


def everything(client: Client) -> dict[str, Any]:
    """All versions and the log of each root, and the tags."""
    found: dict[str, Any] = {"tags": client.tags()}
    for each in client.inspect("old"):
        root, last = each["root"], each["versions"][1]
        values: list[Any] = []
        for version in range(last + 1):
            try:
                values.append(client.get(root, version=version))
            except (errors.NotFound, errors.Compacted) as error:
                values.append(type(error))
        found[root] = (values, [entry._replace() for entry in client.log(root, 10_000)])
    return found


def _holds(data: bytes) -> bytes | None:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None


def fill(fleet: Fleet) -> Client:
    noc = fleet.client("noc")
    for n in range(700):
        noc.put("a.n", n, message=f"to {n}")
    noc.put("b", {"x": {"y": [1, None, "ü"]}}, message="first")
    noc.delete("b")
    noc.put("b.z", 2.5)
    noc.put("gone.x", 1)
    noc.delete("gone")
    with noc.transaction("both") as tx:
        tx.put("a.m", {"k": True})
        tx.patch("b", {"z": None, "w": 1})
    noc.rollback("a", 17, message="back")
    noc.tag("a", "golden", 300)
    noc.put(("_schema", r"b\.w"), {"type": "integer"})
    return noc


def test_a_restored_backup_is_equal_in_every_version(fleet: Fleet, tmp_path: Path) -> None:
    fleet.broker.stop()
    fleet.broker.start(**FEW)
    noc = fill(fleet)
    before = everything(noc)
    file = str(tmp_path / "site.tega")
    summary = backup(noc, file)
    assert (summary.roots, summary.tags) == (4, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["site.tega"]
    epochs = {each["root"]: each["epoch"] for each in noc.inspect("roots")}
    with pytest.raises(errors.InvalidValue, match="not empty"):
        restore(noc, file)
    noc.manage("clear")
    assert restore(noc, file) == summary
    for _ in range(2):
        assert everything(noc) == before
        assert all(each["epoch"] != epochs[each["root"]] for each in noc.inspect("roots"))
        fleet.broker.kill()
        fleet.broker.start(**FEW)
    with pytest.raises(errors.InvalidValue, match="integer"):
        noc.put("b.w", "text")
    assert noc.put("a.n", 0).version == before["a"][1][0].version + 1


def test_a_root_that_is_larger_than_a_message(fleet: Fleet, tmp_path: Path) -> None:
    noc = fleet.client("noc")
    for part in range(12):
        noc.patch("big", {f"k{part}-{n}": "v" * 200 for n in range(4000)})
    noc.put("big.here.noc", 1, ephemeral=True)
    noc.delete("big")
    noc.rollback("big", 11)
    noc.put("big.last", True)
    file = str(tmp_path / "site.tega")
    assert backup(noc, file).commits == 16
    noc.manage("clear")
    restore(noc, file)
    for version in (0, 11, 12, 14, 15):
        oids = noc.oids("big", version=version)
        assert len(oids) == {0: 4000, 11: 48_000, 12: 48_001, 14: 48_000, 15: 48_001}[version]
    with pytest.raises(errors.NotFound):
        noc.get("big", version=13)
    assert noc.get("big.k11-3999") == "v" * 200


def test_what_a_busy_broker_writes_meanwhile_is_of_no_backup_in_part(fleet: Fleet, tmp_path: Path) -> None:
    noc = fleet.client("noc")
    for n in range(50):
        noc.put("a.n", n)
    beside = fleet.client("beside")
    stop: list[int] = []

    import threading

    def write() -> None:
        n = 50
        while not stop:
            beside.put("a.n", n)
            n += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        until(lambda: noc.get("a.n") > 60)
        file = str(tmp_path / "site.tega")
        summary = backup(noc, file)
    finally:
        stop.append(1)
        thread.join()
    noc.manage("clear")
    restore(noc, file)
    values = everything(noc)["a"][0]
    assert [each["n"] for each in values] == list(range(summary.commits))


def test_ephemeral_nodes_are_gone_and_their_past_is_there(fleet: Fleet, tmp_path: Path) -> None:
    noc = fleet.client("noc")
    noc.put("a.x", 1)
    noc.put("a.live", {"since": 5}, ephemeral=True)
    noc.put("a.x", 2)
    file = str(tmp_path / "site.tega")
    backup(noc, file)
    noc.manage("clear")
    restore(noc, file)
    assert noc.get("a") == {"x": 2}
    assert noc.get("a", version=2) == {"x": 2, "live": {"since": 5}}


def test_versions_that_are_not_kept_any_more_are_left_out(fleet: Fleet, tmp_path: Path) -> None:
    fleet.broker.stop()
    keep = '[{root: ".*", versions: 10}]'
    fleet.broker.start(**FEW, **{"history.keep": keep})
    noc = fleet.client("noc")
    for n in range(8_500):
        noc.put("a.n", n)
    with pytest.raises(errors.Compacted) as caught:
        noc.get("a", version=0)
    oldest = caught.value.oldest
    assert oldest is not None and oldest > 100
    versions = [oldest, oldest + 1, oldest + 100, 8_490, 8_499]
    before = [noc.get("a", version=version) for version in versions]
    log = noc.log("a", 300)
    file = str(tmp_path / "site.tega")
    backup(noc, file)
    noc.manage("clear")
    restore(noc, file)
    assert [noc.get("a", version=version) for version in versions] == before
    assert noc.log("a", 300) == log
    with pytest.raises(errors.NotFound):  # before what the backup holds, there was nothing
        noc.get("a", version=oldest - 1)


def told(client: Client, root: str) -> tuple[dict[int, Any], list[Any]]:
    """What of `root` can be read: its versions, as `old` lists them, and its log."""
    (entry,) = [each for each in client.inspect("old") if each["root"] == root]
    picked = set[int]()
    for first, last in entry["readable"]:
        picked |= {first, (first + last) // 2, max(first, last - 1), last}
    return {each: client.get(root, version=each) for each in sorted(picked)}, list(client.log(root, 10_000))


def cli(fleet: Fleet, *words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "tega_zmq.shell.main", "-s", fleet.url, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_backup_goes_on_after_what_was_dropped_between_tagged_versions(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.broker.stop()
    fleet.broker.start(**FEW, **{"history.keep": "[{root: small, size: 100000}]"})
    noc = fleet.client("noc")
    for n in range(500):
        noc.put("small.n", n)
    noc.tag("small", "kept", 50)
    for n in range(500, 9_500):
        noc.put("small.n", n)
    (entry,) = noc.inspect("old")
    (_, end), (start, last) = entry["readable"]
    assert 50 < end < start < last == 9_499
    log = noc.log("small", 10_000)
    (gap,) = log.gaps
    assert (gap.first, gap.last, gap.why) == (end + 1, start, "they are no longer kept")
    assert len(log) == 9_500 - (start - end)
    with pytest.raises(errors.Compacted, match=f"from version {start} on") as caught:
        noc.subscribe("small", print, from_version=100)
    assert caught.value.oldest == start
    heard: list[int] = []
    with noc.subscribe("small", lambda change: heard.append(change.version), from_version=start):
        until(lambda: heard and heard[-1] == last)
    assert heard == list(range(start + 1, last + 1))
    status, out, err = cli(fleet, "sub", "small", "--from", "100")
    assert (status, out) == (1, "")
    assert err.startswith("Compacted: not all commits of small after version 100 can be read any more")
    status, out, err = cli(fleet, "log", "small", "-n", "10000")
    assert status == 0 and err == f"small: {gap}\n"
    status, out, err = cli(fleet, "old")
    assert out.split()[4:] == ["small", f"0..{end},", f"{start}..{last}", f"{last - 4}..{last}"]

    before, entries = told(noc, "small")
    file = str(tmp_path / "site.tega")
    status, out, err = cli(fleet, "backup", file)
    assert (status, err) == (
        0,
        f"backup: versions {end + 1} to {start - 1} of small cannot be read any more, and left out\n",
    )
    noc.manage("clear")
    summary = restore(noc, file)
    assert summary.gaps == (("small", end + 1, start - 1),)
    for _ in range(2):
        found = list(noc.log("small", 10_000))
        assert {each: noc.get("small", version=each) for each in before} == before
        # The version before where it goes on reads as absent; the tree there came as a commit.
        assert [each for each in found if each.version != start] == entries
        assert noc.tags() == {"small": {"kept": 50}}
        assert noc.get("small.n", version="kept") == 50
        with pytest.raises((errors.Compacted, errors.StorageError)):
            noc.get("small", version=end + 10)
        fleet.broker.kill()
        fleet.broker.start(**FEW)


def test_a_backup_of_what_a_repair_left(fleet: Fleet, tmp_path: Path) -> None:
    fleet.broker.stop()
    fleet.broker.start(**FEW)
    noc = fleet.client("noc")
    for n in range(4_300):
        noc.put("a.n", n)
    noc.put("b.n", 1)
    fleet.broker.stop()
    data = fleet.broker.folder / "history" / "a-00000001.hist"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    file = str(tmp_path / "site.tega")
    for repaired in (False, True):
        if repaired:
            command = [sys.executable, "-m", "tega_zmq.check.main", str(fleet.broker.folder), "--repair"]
            assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 3
        fleet.broker.start(**FEW)
        log = noc.log("a", 10_000, by="noc")
        (gap,) = log.gaps
        assert "damaged at byte" in gap.why or repaired
        assert [each.version for each in log] == [
            *range(4_299, gap.last, -1),
            *range(gap.first - 1, -1, -1),
        ]
        (entry, _) = noc.inspect("old")
        assert [span[0] for span in entry["readable"]] == [0, gap.last]
        before, entries = told(noc, "a")
        assert backup(noc, file).gaps == (("a", gap.first, gap.last - 1),)
        fleet.broker.stop()
    fleet.broker.start(**FEW)
    noc.manage("clear")
    restore(noc, file)
    assert {each: noc.get("a", version=each) for each in before} == before
    assert [each for each in noc.log("a", 10_000) if each.version != gap.last] == entries
    assert noc.get("b.n") == 1


def test_a_subscription_that_ends_later_tells_its_owner(fleet: Fleet) -> None:
    fleet.broker.stop()
    fleet.broker.start(**FEW)
    noc = fleet.client("noc")
    for n in range(4_300):
        noc.put("a.n", n)
    # Of what is damaged before it was told, nobody knows when the subscription is made.
    data = fleet.broker.folder / "history" / "a-00000001.hist"
    content = bytearray(data.read_bytes())
    noc.inspect("old")
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    heard: list[int] = []
    ended: list[errors.TegaError] = []
    subscription = noc.subscribe(
        "a", lambda change: heard.append(change.version), from_version=100, on_end=ended.append
    )
    until(lambda: ended)
    assert heard == list(range(101, heard[-1] + 1))
    assert isinstance(ended[0], (errors.Compacted, errors.StorageError))
    assert subscription.error is ended[0]
    with pytest.raises(errors.NotFound):
        subscription.cancel()
    with pytest.raises(type(ended[0])), subscription:
        pass
    until(lambda: not noc.inspect("subscribers"))


def test_a_file_that_is_not_whole_is_refused_before_anything_is_sent(fleet: Fleet, tmp_path: Path) -> None:
    noc = fleet.client("noc")
    for n in range(300):
        noc.put("a.n", {"text": f"value {n}" * 3})
    file = tmp_path / "site.tega"
    backup(noc, str(file))
    noc.manage("clear")
    whole = file.read_bytes()
    wrong = tmp_path / "wrong.tega"
    for at in range(10, len(whole), max(1, len(whole) // 40)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]):
            if _holds(data) == _holds(whole):
                continue  # the bits between the data and the checksum mean nothing
            wrong.write_bytes(data)
            with pytest.raises(errors.InvalidValue, match=r"wrong\.tega: "):
                restore(noc, str(wrong))
    lines = gzip.decompress(whole).splitlines(keepends=True)
    for picked in (lines[:-1], lines[:5] + lines[6:], lines[1:], [b'{"tega_backup": 9}\n'], [b"[]\n"], []):
        wrong.write_bytes(gzip.compress(b"".join(picked)))
        with pytest.raises(errors.InvalidValue):
            restore(noc, str(wrong))
    assert noc.inspect("roots") == []
    restore(noc, str(file))
    assert noc.get("a.n", version=299) == {"text": "value 299" * 3}
    with pytest.raises(errors.StorageError, match="cannot be written"):
        backup(noc, str(tmp_path / "no" / "folder"))
    with pytest.raises(errors.InvalidValue, match="cannot be read"):
        restore(noc, str(tmp_path / "missing"))


def test_a_pipe_or_a_link_takes_a_backup_and_stays(fleet: Fleet, tmp_path: Path) -> None:
    noc = fleet.client("noc")
    noc.put("a.x", 1)
    folder = tmp_path / "backups"
    folder.mkdir()
    pipe, link, file = folder / "pipe", folder / "link", folder / "file"
    os.mkfifo(pipe)
    link.symlink_to(file)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_bytes)
        backup(noc, str(pipe))
        assert gzip.decompress(read.result()).startswith(b'{"tega_backup":')
    backup(noc, str(link))
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert sorted(folder.iterdir()) == [file, link, pipe]


def test_at_the_shell(fleet: Fleet, tmp_path: Path) -> None:
    def tega(*words: str) -> tuple[int, str, str]:
        return cli(fleet, *words)

    fleet.client("noc").put("a.x", 1)
    file = str(tmp_path / "site.tega")
    assert tega("backup", file) == (0, f"1 root, 1 commit written to {file}\n", "")
    status, _, err = tega("restore", file)
    assert status == 1 and err.startswith("InvalidValue: this broker is not empty, it has a:")
    assert tega("clear", "--yes")[0] == 0
    assert tega("restore", file) == (0, f"1 root, 1 commit restored from {file}\n", "")
    assert fleet.client("reader").get("a.x") == 1
