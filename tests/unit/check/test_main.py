"""tega-check as a command: exit statuses, files, and folders that are not what they should be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tega_zmq import errors, store
from tega_zmq.check.main import main
from tega_zmq.log import OsDisk
from tega_zmq.log.history import open_history
from tega_zmq.runtime import yamlio
from tega_zmq.tree import plain
from tests.knifekit import Written, written


@pytest.fixture(scope="module")
def log() -> Written:
    return written(60, segment_size=1500, snapshot_each=3, clean=True)


@pytest.fixture
def folder(log: Written, tmp_path: Path) -> Path:
    top = tmp_path / "data"
    for path, content in log.disk.files.items():
        file = top / path.removeprefix("/data/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return top


def damage(folder: Path) -> Path:
    """Change a record in the newest segment but one."""
    path = sorted((folder / "log").iterdir())[-2]
    data = bytearray(path.read_bytes())
    data[4300] ^= 0xFF
    path.write_bytes(data)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def test_a_whole_folder(folder: Path, log: Written, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(folder)
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "revision 60" in out
    assert "config-pi1" in out and "segments:" in out and "sessions:" in out
    assert "whole: a node starts" in out
    assert main([str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["starts"] and told["whole"] and told["clean"]
    assert told["revision"] == 60
    assert told["records"]["last"] == len(log.payloads)
    assert {root["root"] for root in told["roots"]} >= {"config-pi1", "presence"}
    assert told["lost"] is None
    assert "token" not in json.dumps(told)
    assert main(["--repair", str(folder)]) == 0
    assert "nothing was to be repaired" in capsys.readouterr().out
    assert content(folder) == before


def test_a_damaged_folder(folder: Path, log: Written, capsys: pytest.CaptureFixture[str]) -> None:
    path = damage(folder)
    before = content(folder)
    assert main([str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert content(folder) == before
    assert not told["starts"]
    (problem,) = [each for each in told["problems"] if each["kind"] == "damage"]
    assert problem["file"] == f"log/{path.name}"
    assert problem["offset"] <= 4300
    assert problem["revision"] == told["revision"] == log.states[problem["lsn"] - 1].revision
    assert told["lost"]["first"] == problem["lsn"]
    assert told["lost"]["last"] == len(log.payloads)
    assert told["lost"]["revision"] == told["revision"] + 1

    target = folder.parent / "out.yaml"
    assert main([str(folder), "--export", str(target)]) == 1
    out = capsys.readouterr().out
    assert "lost: the records" in out
    exported = yamlio.load_file(target)
    assert {root: tree for root, tree in exported.items() if root != "ops-pi0"} == {
        root: tree for root, tree in log.trees[told["revision"]].items() if root in exported
    }
    assert main([str(folder), "--export", str(target), "--revision", "60"]) == 4
    assert "there are" in capsys.readouterr().err

    assert main([str(folder), "--repair"]) == 3
    out = capsys.readouterr().out
    assert "repair-1" in out
    assert f"all from revision {told['revision'] + 1} on" in out
    assert json.loads((folder / "repair-1" / "report.json").read_text())["lost"] == told["lost"]
    assert (folder / "repair-1" / "log" / path.name).read_bytes() == before[f"log/{path.name}"]
    assert main([str(folder)]) == 0
    assert main([str(folder), "--repair"]) == 0


def test_export_to_standard_output(folder: Path, log: Written, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--export", "-", "--revision", "60", "--json"]) == 0
    captured = capsys.readouterr()
    exported = yamlio.load(captured.out)
    assert exported["config-pi1"] == log.trees[60]["config-pi1"]
    assert "presence" not in exported
    assert json.loads(captured.err)["revision"] == 60
    before = folder.parent / "none" / "x.yaml"
    assert main([str(folder), "--export", str(before)]) == 4
    assert "none" in capsys.readouterr().err


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert "empty" in capsys.readouterr().out
    assert main([str(tmp_path), "--repair", "--json"]) == 0
    assert main([str(tmp_path), "--export", "-"]) == 4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [[], ["--repair"], ["--export", "-"]])
def test_what_is_no_data_folder(
    tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "syslog").write_text("x")
    for path, what in ((tmp_path, "not a data folder"), (file, "not a folder"), (tmp_path / "no", "no such")):
        assert main([str(path), *option]) == 4
        assert what in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "log"]


@pytest.mark.parametrize("option", [[], ["--repair"], ["--export", "-"]])
def test_a_folder_that_a_node_holds(
    folder: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lock = OsDisk().lock(str(folder / "lock"))
    before = content(folder)
    assert main([str(folder), *option]) == 4
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err
    lock.release()
    assert content(folder) == before


def test_wrong_usage(folder: Path) -> None:
    for argv in (
        [], [str(folder), "--revision", "3"], [str(folder), "--export", "x", "--revision", "-1"],
        [str(folder), "--export", "x", "--revision", "\u0663"], [str(folder), "--repair", "--export", "x"],
        [str(folder), "more"], ["--no", str(folder)],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2


def test_things_in_the_place_of_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = max((folder / "log").iterdir())
    for make in (lambda: newest.mkdir(), lambda: os.mkfifo(newest), lambda: newest.symlink_to("nowhere")):
        kept = newest.read_bytes()
        newest.unlink()
        make()
        assert main([str(folder), "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert any(problem["file"] == f"log/{newest.name}" for problem in told["problems"])
        assert told["lost"]
        if newest.is_dir() and not newest.is_symlink():
            newest.rmdir()
        else:
            newest.unlink()
        newest.write_bytes(kept)
    assert main([str(folder)]) == 0


def test_the_program_itself(folder: Path) -> None:
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tega_zmq.check.main", *argv], capture_output=True, text=True, check=False
        )

    assert run("--help").returncode == 0
    assert "Exit status" in run("--help").stdout
    assert run("--version").stdout.startswith("tega-check ")
    damage(folder)
    assert run(str(folder)).returncode == 1
    assert run(str(folder), "--repair").returncode == 3
    assert run(str(folder)).returncode == 0


def test_damage_in_the_history_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = store.write(
        store.empty(),
        [store.Op("put", ("a", "n"), 1)],
        time=0.0,
        tega_id="noc",
        fresh=lambda: "e",
        max_value=99,
    ).store
    history = open_history(OsDisk(), str(folder))
    history.follow(state)
    history.close()
    assert main([str(folder)]) == 0
    assert "history/" not in capsys.readouterr().out
    (path,) = (folder / "history").iterdir()
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"history/{path.name} is damaged at byte 0" in out
    assert "the history is damaged: a node starts" in out
    assert main([str(folder), "--repair"]) == 3
    assert f"taken away: history/{path.name}" in capsys.readouterr().out
    assert (folder / "repair-1" / "history" / path.name).read_bytes() == data
    assert main([str(folder)]) == 0


def test_what_stands_before_the_damage_stays(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tega_zmq.log.history.writing._COMMITS", 8)
    state = store.empty()
    history = open_history(OsDisk(), str(folder))
    for number in range(30):
        state = store.write(
            state,
            [store.Op("put", ("a", "n"), number)],
            time=0.0,
            tega_id="noc",
            fresh=lambda: "e",
            max_value=99,
        ).store
        history.follow(state)
        history.sync()
    history.close()
    first, second, *_, newest = sorted((folder / "history").iterdir())
    data = bytearray(second.read_bytes())
    data[-100] ^= 1
    second.write_bytes(data)
    newest.write_bytes(newest.read_bytes()[:-3])
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "torn: history/" in out
    assert re.search(r"  versions \d+ to 14 of a\n", out)
    assert main([str(folder), "--repair", "--json"]) == 3
    done = json.loads(capsys.readouterr().out)["repaired"]
    assert done["changed"] == [f"history/{second.name}"]
    assert re.fullmatch(r"versions \d+ to 14 of a", done["old_versions_lost"][0])
    assert data.startswith(second.read_bytes())
    assert first.exists() and len(second.read_bytes()) > 100
    assert main([str(folder)]) == 0
    assert re.search(
        r"note: history/.*: versions \d+ to 14 of a are missing before it", capsys.readouterr().out
    )
    history = open_history(OsDisk(), str(folder))
    assert plain(history.tree("a", 9)[0]) == {"n": 9}
    with pytest.raises(errors.StorageError, match="is missing"):
        history.tree("a", 14)
    assert plain(history.tree("a", 17)[0]) == {"n": 17}
    history.close()
