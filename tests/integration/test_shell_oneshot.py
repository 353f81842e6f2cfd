"""`tega COMMAND` and scripts as processes, against a real broker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tega_zmq.runtime import yamlio
from tests.processes import PATIENCE, Fleet, until


class Tega:
    """Runs `tega` against the fleet's broker."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._running: list[subprocess.Popen[str]] = []

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tega_zmq.shell.main", "--timeout", "10", *arguments],
            text=True,
            env={**os.environ, "TEGA_SERVER": self.fleet.url, "PYTHONWARNINGS": "default"},
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options,
        )
        self._running.append(process)
        return process

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        process = self.spawn(*arguments)
        out, err = process.communicate(stdin, timeout=PATIENCE)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None and not stream.closed:
                    stream.close()


@pytest.fixture
def tega(fleet: Fleet) -> Iterator[Tega]:
    made = Tega(fleet)
    yield made
    made.close()


def test_put_get_and_the_errors(tega: Tega) -> None:
    assert tega("put", 'net."eth0.100"', "{mtu: 1500, up: true}", "-m", "first") == (0, "net@0\n", "")
    assert tega("get", "net") == (0, "eth0.100:\n  mtu: 1500\n  up: true\n", "")
    status, out, err = tega("put", 'net."eth0.100".mtu', "9000", "--version", "7")
    assert (status, out) == (1, "")
    assert err.startswith("Collision: ")
    assert err.count("\n") == 1
    assert tega("get", "nope")[0] == 1
    assert tega("put", "a", "[1]")[2].startswith("InvalidValue: ")
    assert tega("put", "a..b", "1")[0] == tega("put", "a.b", "{x: 1, x: 2}")[0] == 2
    assert tega("put", "a.b", ".nan")[2].startswith("InvalidValue: ")
    assert tega("pub", "a", ".nan")[2].startswith("InvalidValue: ")
    assert tega("--json", "a.f(1e999)")[2].startswith("InvalidValue: ")
    assert tega("put", "a.b", str(2**70))[2].startswith("InvalidValue: ")
    assert tega("put", "a.b", "--version", "absent", stdin="x: 1\n\ny: 2\n") == (0, "a@0\n", "")
    assert json.loads(tega("get", "a", "--json")[1]) == {"b": {"x": 1, "y": 2}}
    assert [each["root"] for each in json.loads(tega("--json", "roots")[1])] == ["a", "net"]


def test_history(tega: Tega) -> None:
    for n in range(3):
        tega("put", "a.b", str(n), "-m", f"number {n}")
    tega("patch", "a", "{c: {d: 1}}")
    assert tega("get", "a.b@0")[1] == "0\n"
    assert tega("get", "a.b@-2")[1] == "1\n"
    assert tega("diff", "a@0", "a@2")[1] == "- b: 0\n+ b: 2\n"
    assert tega("diff", "a@-1")[1] == "+ c:\n+   d: 1\n"
    assert [each["version"] for each in json.loads(tega("log", "a", "--json")[1])] == [3, 2, 1, 0]
    assert [each["version"] for each in json.loads(tega("log", "a.c", "--json")[1])] == [3]
    assert tega("rollback", "a", "0") == (0, "a@4\n", "")
    assert tega("get", "a")[1] == "b: 0\n"
    assert json.loads(tega("log", "a", "-n", "1", "--json")[1])[0]["backto"] == 0
    assert tega("get", "a@99")[0] == 1
    assert yamlio.load(tega("getr", r"(a)\.b")[1]) == {"a.b": {"groups": [["a"]], "instance": 0}}
    assert yamlio.load(tega("geta", "a.b")[1])["_version"] == 4


def test_undo_takes_deletions_and_first_commits_back(tega: Tega) -> None:
    tega("put", "r", "{a: 1}")
    tega("del", "r")
    assert tega("rollback", "r", "1", "--dry-run") == (0, "nothing would change\n", "")
    assert tega("undo", "r") == (0, "r@2\n", "")
    assert tega("get", "r")[1] == "a: 1\n"
    assert [each["message"] for each in json.loads(tega("log", "r", "--json")[1])] == ["undo of r@1", "", ""]
    tega("put", "new.a", "1")
    assert tega("undo", "new", "--dry-run") == (0, "- a: 1\n", "")
    assert tega("undo", "new") == (0, "new@1\n", "")
    assert tega("get", "new")[0] == 1
    assert tega("undo", "never")[2].startswith("NotFound: ")
    script = "begin\nput r.a 3\nrollback r 0 --dry-run\nundo r --dry-run\ncancel\n"
    assert tega(stdin=script)[1].split("\n", 1)[1] == "- a: 3\n+ a: 1\n- a: 3\ncancelled\n"


def test_the_log_of_all_roots_has_the_deleted_ones(tega: Tega) -> None:
    tega("put", "r.a", "1")
    tega("put", "s.a", "1")
    tega("del", "r", "-m", "not needed")
    log = json.loads(tega("log", "--json")[1])
    assert [(each["root"], each["version"], each["message"]) for each in log] == [
        ("r", 1, "not needed"),
        ("s", 0, ""),
        ("r", 0, ""),
    ]


def test_a_script_is_one_session(tega: Tega, tmp_path: Path) -> None:
    tega("put", "r.x", "1")
    tega("put", "r.x", "2")
    script = "begin\nput a.b {c: 1}\npute a.e 5\nrollback r 0\nget a.b\ncand\ncommit -m all\nget r\n"
    status, out, err = tega(stdin=script)
    assert (status, err) == (0, "")
    assert "+ a.b.c: 1" in out
    assert "- r.x: 2" in out
    assert out.endswith("x: 1\n")
    assert tega("get", "a")[1] == "b:\n  c: 1\n"  # the ephemeral node went with its session
    file = tmp_path / "script"
    file.write_text("put a.z 1\nget nope\nput a.z 2\n")
    status, _, err = tega("-f", str(file))
    assert status == 1
    assert err.endswith(f"({file}:2)\n")
    assert tega("get", "a.z")[1] == "1\n"
    status, _, err = tega(stdin="begin\nput a.z 3\n")
    assert status == 1
    assert tega("get", "a.z")[1] == "1\n"


def test_documents(tega: Tega, tmp_path: Path) -> None:
    tree = {f"g{g}": {f"k{k}": f"value {g} {k}" for k in range(300)} for g in range(120)}
    tree["odd"] = {"null": None, "dotted.key": [1, {"x": None}], "empty": {}, "text": "yes"}
    file = tmp_path / "big.json"
    file.write_text(json.dumps({"big": tree, "small": {"x": 1}}))
    status, out, err = tega("import", str(file))
    assert (status, err) == (0, "")
    assert out.startswith("36005 changes: ")
    assert tega("import", str(file))[1] == "nothing changed: big@0 small@0\n"
    held = tega.fleet.client("holder")
    held.put("small.presence.me", 1, ephemeral=True)
    held.register("small.tools.ping", lambda: "pong")
    for name in ("out.json", "out.yaml"):
        assert tega("export", ".", str(tmp_path / name))[0] == 0
        assert yamlio.load_file(tmp_path / name) == {"big": tree, "small": {"x": 1}}
    assert tega("export", "small", "-")[1] == "small:\n  x: 1\n"
    bad = tmp_path / "bad.yaml"
    bad.write_text("small: {x: 2}\nbig: 5\n")
    assert tega("import", str(bad))[2].startswith("InvalidValue: ")
    assert tega("get", "small.x")[1] == "1\n"


def test_what_was_exported_comes_back_though_it_is_larger_than_a_message(tega: Tega, tmp_path: Path) -> None:
    noc = tega.fleet.client("noc")
    for n in range(22):  # 20 MB
        noc.put(f"big.k{n}", "x" * 900_000 + str(n))
    for root in ("wide", "other"):
        for n in range(10):
            noc.put(f"{root}.n{n}", {f"leaf {leaf}": "y" * 490 for leaf in range(1000)})
    file = tmp_path / "all.json"
    assert tega("export", ".", str(file))[0] == 0
    assert tega("import", str(file), "--dry-run")[:2] == (0, "nothing would change\n")
    for root in ("big", "wide", "other"):
        noc.delete(root)
    status, out, _ = tega("import", str(file), "--dry-run", "--stat")
    assert (status, out.splitlines()[-1]) == (0, "20022 leaves added, 0 removed, 0 changed")
    assert tega("import", str(file)) == (0, "too much to count the changes: big@23 other@11 wide@11\n", "")
    again = tmp_path / "again.json"
    assert tega("export", ".", str(again))[0] == 0
    assert again.read_bytes() == file.read_bytes()
    status, out, _ = tega("log", "big", "-n", "2")
    assert (status, out.count("1 change left out"), out.count("    - big")) == (0, 1, 1)


def test_calls(tega: Tega) -> None:
    handler = tega.fleet.client("handler")
    for name, result in {"zero": 0, "empty": "", "no": False, "none": None}.items():
        handler.register(f"t.{name}", lambda result=result: result)

    def bad() -> None:
        raise ValueError("no\nway")

    handler.register("t.bad", bad)
    handler.register("t.add", lambda a, b=1: a + b)
    assert [tega(f"t.{name}()")[:2] for name in ("zero", "empty", "no", "none")] == [
        (0, "0\n"),
        (0, "''\n"),
        (0, "false\n"),
        (0, "null\n"),
    ]
    assert tega("t.add('x', b='y')") == (0, "xy\n", "")
    status, _, err = tega("t.bad()")
    assert status == 1
    assert err.startswith("HandlerError: ")
    assert err.count("\n") == 1
    assert tega("t.nobody()")[2].startswith("NoHandler: ")
    assert tega("t.add(open('/etc/passwd'))")[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sub_goes_on_until_a_signal(tega: Tega, number: signal.Signals) -> None:
    process = tega.spawn("sub", "a.b", "--json")
    assert process.stdout is not None
    until(lambda: tega.fleet.client("looker").inspect("subscribers").get("a.b"), "the subscription stands")
    tega.fleet.client("writer").put("a.b", {"x": 1}, message="why")
    until(lambda: tega.fleet.client("talker").publish("a.b", "hi") == 1, "it listens too")
    event = json.loads(process.stdout.readline())
    assert (event["path"], event["new"], event["tega_id"], event["message"]) == (
        "a.b",
        {"x": 1},
        "writer",
        "why",
    )
    assert json.loads(process.stdout.readline()) == {"channel": "a.b", "message": "hi", "tega_id": "talker"}
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")


def test_sub_from_a_version_tells_what_came_since(tega: Tega) -> None:
    writer = tega.fleet.client("writer")
    for n in range(3):
        writer.put("a.b", n)
    process = tega.spawn("sub", "a.b", "--from", "0", "--json")
    assert process.stdout is not None
    assert [json.loads(process.stdout.readline())["new"] for _ in range(2)] == [1, 2]
    process.terminate()
    assert process.wait(PATIENCE) == 0


def test_sub_survives_the_broker_and_tells(tega: Tega) -> None:
    process = tega.spawn("sub", "a")
    assert process.stdout is not None and process.stderr is not None
    until(lambda: tega.fleet.client("looker").inspect("subscribers").get("a"), "the subscription stands")
    tega.fleet.client("looker").put("later.n", 1)  # what is acknowledged after it: its session is on the disk
    tega.fleet.broker.kill()
    assert "is lost; dialling again" in process.stderr.readline()
    tega.fleet.broker.start()
    assert process.stderr.readline() == f"connected to {tega.fleet.url} again\n"
    until(lambda: tega.fleet.client("writer").put("a.b", 1), "the broker takes writes")
    assert process.stdout.readline().startswith(("a: ", "a.b: "))
    process.terminate()
    assert process.wait(PATIENCE) == 0


def test_the_last_event_of_a_script_is_shown(tega: Tega) -> None:
    for n in range(4):
        status, out, _ = tega(stdin=f"sub s.k\nput s.k {n}\n")
        assert status == 0
        assert out.count("s.k: ") == 1, (n, out)


def test_a_displaced_sub_ends_with_the_reason(tega: Tega) -> None:
    process = tega.spawn("-t", "twin", "sub", "a")
    until(lambda: "twin" in tega.fleet.client("looker").inspect("ids"), "it is there")
    assert tega("-t", "twin", "roots")[0] == 0
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "TakenOver: another program said hello as twin\n")


def test_ctrl_c_ends_a_call_without_a_word(tega: Tega) -> None:
    called: list[int] = []
    handler = tega.fleet.client("handler")
    import threading

    go_on = threading.Event()
    handler.register("t.hang", lambda: called.append(1) or go_on.wait(PATIENCE))
    process = tega.spawn("t.hang()")
    until(lambda: called, "the handler runs")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    go_on.set()
    assert (process.returncode, out, err) == (130, "", "")


def test_a_reader_that_leaves_is_no_error(tega: Tega) -> None:
    tega.fleet.client("writer").put("a", {f"k{n}": "x" * 100 for n in range(3000)})
    process = tega.spawn("get", "a")
    assert process.stdout is not None and process.stderr is not None and process.stdin is not None
    process.stdin.close()
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == ""


def test_a_follower_whose_reader_leaves_ends(tega: Tega) -> None:
    process = tega.spawn("sub", "a")
    assert process.stdout is not None and process.stderr is not None
    until(lambda: tega.fleet.client("looker").inspect("channels").get("a"), "it listens")
    process.stdout.close()
    talker = tega.fleet.client("talker")
    until(lambda: talker.publish("a", 1) == 0, "it is gone")
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == ""


def test_output_that_cannot_be_written_is_one_line_and_a_status(tega: Tega) -> None:
    tega("put", "a.b", "1")
    full, closed = "standard output: No space left on device", "standard output: Bad file descriptor"
    for words, redirection, status, said in (
        ("get a", ">/dev/full", 1, f"tega: {full}\n"),
        ("--version", ">/dev/full", 1, f"tega: {full}\n"),
        ("get --help", ">/dev/full", 1, f"tega: {full}\n"),
        ("get a", ">&-", 1, f"tega: {closed}\n"),
        ("put a.c 1", ">&- 2>&- <&-", 1, ""),
        ("get nope", "2>/dev/full", 1, ""),
        ("nope", "2>/dev/full", 2, ""),
        ("nope", "2>&-", 2, ""),
        ("put a.d", "<&-", 1, "InvalidValue: no value: "),
        ("", "<&-", 0, ""),
    ):
        done = _in_a_shell(tega, words, redirection)
        assert (done.returncode, done.stdout) == (status, ""), (words, redirection, done.stderr)
        assert done.stderr.startswith(said) and done.stderr.count("\n") == bool(said), done.stderr
    assert tega("get", "a")[1] == "b: 1\nc: 1\n"


def test_a_backup_through_pipes_and_an_export_to_dev_stdout(tega: Tega, tmp_path: Path) -> None:
    tega("put", "a.b", "1")
    done = _in_a_shell(tega, "backup -", f"| cat > {tmp_path}/site.tega")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "1 root, 1 commit written to standard output\n"
    assert tega("clear", "--yes")[0] == 0
    done = _in_a_shell(tega, "restore -", f"< {tmp_path}/site.tega")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 root, 1 commit restored from standard input\n"
    out = tmp_path / "out"
    with out.open("w") as file:
        for words in (("export", "a", "/dev/stdout"), ("get", "a.b")):
            assert tega.spawn(*words, stdout=file).wait(PATIENCE) == 0
    assert out.read_text() == "a:\n  b: 1\n1\n"
    done = _in_a_shell(tega, "backup -", "| true")
    assert "Traceback" not in done.stderr


def _in_a_shell(tega: Tega, words: str, redirection: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m tega_zmq.shell.main {words} {redirection}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**environ, "TEGA_SERVER": tega.fleet.url, "PYTHONWARNINGS": "default"},
    )


def test_a_follower_whose_disk_is_full_ends_with_the_reason(tega: Tega) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = tega.spawn("sub", "a", stdout=full)
    assert process.stderr is not None
    until(lambda: tega.fleet.client("looker").inspect("channels").get("a"), "it listens")
    talker = tega.fleet.client("talker")
    until(lambda: talker.publish("a", 1) == 0, "it is gone")
    assert process.wait(PATIENCE) == 1
    assert process.stderr.read() == "tega: standard output: No space left on device\n"


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:{}", "ws://127.0.0.1:{}", "wss://127.0.0.1:{}"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])
def test_what_is_no_node_is_told_within_the_timeout(url: str, answer: bytes) -> None:
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()
        serving = pool.submit(_accept, server, answer, ended)
        options = ["-s", url.format(server.getsockname()[1]), "--timeout", "0.5"]
        done = subprocess.run(
            [sys.executable, "-m", "tega_zmq.shell.main", *options, "roots"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        ended.set()
        server.close()
        serving.result()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Disconnected: no node answers at ")
    assert done.stderr.count("\n") == 1
    if answer and url.startswith("ws:"):
        assert done.stderr.endswith(" within 0.5 seconds: it answered 404 Not Found\n")


def _accept(server: socket.socket, answer: bytes, ended: threading.Event) -> None:
    """Take every connection and say `answer`, until `ended`."""
    held = []
    server.settimeout(0.05)
    while not ended.is_set():
        with contextlib.suppress(OSError):
            held.append(server.accept()[0])
            held[-1].sendall(answer)
    for each in held:
        each.close()


def test_no_node(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tega_zmq.shell.main",
            "-s",
            f"ipc://{tmp_path}/none",
            "--timeout",
            "0.3",
            "roots",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Disconnected: no node answers at ipc://")
    assert done.stderr.count("\n") == 1


def test_the_fleet(tega: Tega) -> None:
    agent = tega.fleet.agent("pi1")
    agent.start()
    tega("put", "config-pi1.net.mtu", "1500")

    def shown() -> Any:
        (found,) = json.loads(tega("--json", "agents")[1])
        return found if found["config"] and found["config"][0]["version"] == 0 else None

    found = until(shown, "the agent follows its config")
    assert (found["tega_id"], found["state"]) == ("pi1", "connected")
    text = tega("agents")[1]
    assert "config-pi1@0" in text
    assert yamlio.load(tega("status")[1])["tega_id"] == "gateway"
    assert "pi1" in tega("ids")[1]
    assert tega("ss")[0] == 0
    assert tega("sync")[0] == 0
    assert tega("clear")[0] == 2
    assert tega("clear", "--yes")[0] == 0
    assert "config-pi1" not in tega("roots")[1]
