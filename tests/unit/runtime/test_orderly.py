"""A signal while a program starts: an orderly end, without a word of Python's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tega_zmq.log import Options, OsDisk, open_log

SIGNALLED = """
import os, sys
kind, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
sent = []
def watch(event, args):
    # While it imports `name`, or opens a file of that name: the moment is always the same.
    hit = event == kind and (args[0] == name if kind == "import" else str(args[0]).endswith(name))
    if hit and not sent:
        sent.append(1)
        os.kill(os.getpid(), number)
sys.addaudithook(watch)
del sys.argv[1:4]
"""


def started(program: str, kind: str, name: str, number: int, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of `program`, which gets the signal in the midst of its start."""
    code = f"{SIGNALLED}\nfrom {program} import main\nsys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code, kind, name, str(number), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr


def flags(folder: Path) -> list[str]:
    return [f"--set=data_dir={folder}/data", f"--set=listen.requests=ipc://{folder}/socket"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("tega_broker.main", "yaml"),
        ("tega_broker.main", "zmq"),
        ("tega_agent.main", "tega_zmq.node"),
        ("tega_broker.bridge.__main__", "aiohttp"),
    ],
)
def test_a_daemon_that_imports(tmp_path: Path, program: str, name: str, number: int) -> None:
    assert started(program, "import", name, number, *flags(tmp_path)) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["/lock", ".log.tmp", "/uplink.json"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_node_that_reads_its_log(tmp_path: Path, name: str, number: int, clean: bool) -> None:
    """It leaves the log as it was: that a stop before was none in order is still known."""
    folder = f"{tmp_path}/data"
    if name != ".log.tmp":  # which is of a new log
        opened = open_log(OsDisk(), folder, Options(sync="interval"), new_id=lambda: "store")
        opened.log.close(clean=clean)
    status, said = started("tega_agent.main", "open", name, number, *flags(tmp_path), "--set=sync=interval")
    assert status == 0
    assert "Traceback" not in said and "stopped before it was ready" in said
    again = open_log(OsDisk(), folder, Options(sync="interval"), new_id=lambda: "store")
    assert again.report.clean == (clean or name == ".log.tmp")
    again.log.close(clean=False)


def test_the_shell() -> None:
    for name in ("tega_zmq.shell.main", "tega_zmq.client.blocking"):
        arguments = ["-s", "ipc:///nowhere/at/all", "sub", "a"]
        assert started("tega_zmq.shell.__main__", "import", name, signal.SIGINT, *arguments) == (130, "")
