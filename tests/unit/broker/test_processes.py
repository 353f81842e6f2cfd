"""Child processes: ready when they say so, told of when they end, gone when they should be."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tega_broker.processes import Ended, Program, child_command, free_port, port_is_free

READY = "from tega_zmq.runtime.notify import Notifier; Notifier().ready()\n"
WAIT = "import time\nwhile True: time.sleep(0.05)\n"

Make = Callable[[str], Program]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Program] = []

    def program(code: str) -> Program:
        made.append(Program("prog", [sys.executable, "-c", code], tmp_path / "prog.log", tmp_path))
        return made[-1]

    yield program
    for one in made:
        one.kill()


def gone(pid: int) -> bool:
    """Whether no process of that id runs; one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_runs_when_it_says_so_and_stops_in_order(make: Make) -> None:
    stop = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
    program = make(stop + READY + WAIT)
    assert program.pid is None
    program.start()
    pid = program.pid
    assert pid is not None
    program.check()
    assert program.stop() == 3
    assert gone(pid)
    assert program.pid is None
    assert program.stop() is None
    program.ask_to_stop()


def test_config_keys_in_the_environment_are_not_passed_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEGA_TEGA_ID", "mine")
    monkeypatch.setenv("OTHER", "seen")
    program = make("import os; print([name for name in os.environ if 'TEGA' in name], os.environ['OTHER'])")
    with pytest.raises(Ended, match=r"\[\] seen"):
        program.start()


def test_it_can_be_started_again(make: Make) -> None:
    program = make(READY + WAIT)
    program.start()
    first = program.pid
    program.kill()
    program.start()
    assert program.pid not in (None, first)


@pytest.mark.parametrize(
    ("end", "how"), [("sys.exit(4)", "with status 4"), ("os.kill(os.getpid(), 9)", "by signal 9")]
)
def test_one_that_ends_is_told_of_with_its_last_lines(make: Make, end: str, how: str) -> None:
    code = f"import os, sys\nfor n in range(20): print('line', n, flush=True)\n{end}"
    with pytest.raises(Ended) as told:
        make(code).start()
    lines = str(told.value).splitlines()
    assert lines[0] == f"prog ended {how}"
    assert lines[1:-1] == [f"    line {n}" for n in range(12, 20)]
    assert lines[-1].endswith("prog.log")


def test_one_that_ends_later_is_found_by_check(make: Make) -> None:
    program = make(READY + "import sys; sys.exit(5)")
    program.start()
    with pytest.raises(Ended, match="ended with status 5"):
        while True:
            program.check()


def test_one_that_is_never_ready_is_stopped(make: Make) -> None:
    program = make(WAIT)
    with pytest.raises(Ended, match=r"not ready after 0\.3 seconds"):
        program.start(seconds=0.3)
    assert program.pid is None


def test_one_that_does_not_stop_is_killed(make: Make) -> None:
    program = make("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + WAIT)
    program.start()
    assert program.stop(seconds=0.2) == -signal.SIGKILL


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from tega_broker.processes import Program
program = Program("p", [sys.executable, "-c", {READY + WAIT!r}], Path("p.log"), Path.cwd())
program.start()
print(program.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        os.kill(parent.pid, signal.SIGKILL)
    until = time.monotonic() + 20
    while not gone(child):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_ports() -> None:
    port = free_port()
    assert port_is_free(port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not port_is_free(port)


def test_a_child_whose_parent_died_while_it_started_ends() -> None:
    command = child_command([sys.executable, "-c", "print('runs')"])
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"runs\n"
    # Whose child it is by now is the shell, not this process.
    orphan = subprocess.run(["sh", "-c", '"$@"; true', "sh", *command], capture_output=True, check=True)
    assert (orphan.stdout, orphan.stderr) == (b"", b"")
