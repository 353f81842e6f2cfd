"""`tega` as a program, with a client over a dict: arguments, exit statuses, what goes to which stream."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import sys
import threading
from typing import Any

import pytest

from tega_zmq.errors import Compacted, Disconnected
from tega_zmq.runtime import yamlio
from tega_zmq.shell import main as program
from tega_zmq.shell import oneshot
from tega_zmq.shell.oneshot import Options


class Run:
    def __init__(
        self, client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.client, self._patch, self._capsys = client, monkeypatch, capsys
        self.options: list[Options] = []
        self.stdin: Any = None
        """Instead of what a call is given."""
        monkeypatch.setattr(oneshot, "dial", self._dial)
        monkeypatch.delenv("TEGA_SERVER", raising=False)

    def _dial(self, options: Options) -> Any:
        self.options.append(options)
        return self.client

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        file = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
        self._patch.setattr(sys, "stdin", self.stdin or file)
        status = program.main(list(arguments))
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err


@pytest.fixture
def tega(desk: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(desk.client, monkeypatch, capsys)


def test_done_refused_wrong(tega: Run) -> None:
    assert tega("put", "a.b", "{x: 1}") == (0, "a@0\n", "")
    assert tega("get", "a") == (0, "b:\n  x: 1\n", "")
    assert tega("get", "nope") == (1, "", "NotFound: there is nothing at nope\n")
    assert tega("put", "a.b", "1", "--version", "7")[0] == 1
    status, out, err = tega("gte", "a")
    assert (status, out) == (2, "")
    assert "did you mean get" in err
    status, out, err = tega("get")
    assert (status, out) == (2, "")
    assert "usage: tega get" in err
    assert tega("--nope", "get", "a")[0] == 2
    assert tega.client.closed


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("-s", "foo", "foo: expected tcp://HOST:PORT"),
        ("-s", "tcp://gw", "tcp://gw: expected tcp://HOST:PORT"),
        ("-s", "tcp://\udcff:1", "lone surrogates"),
        ("-t", "a b", "tega_id 'a b': 1 to 64 of the characters"),
    ],
)
@pytest.mark.parametrize("words", [("get", "x"), ("-f", "/dev/null")])
def test_a_url_or_a_name_that_is_none_is_wrong_usage(
    option: str, value: str, said: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([option, value, *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_standard_input_is_bounded_and_need_not_be_text(tega: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oneshot, "_LONGEST", 10)
    assert tega("put", "a.b", stdin="x" * 10)[0] == 0
    status, _, err = tega("put", "a.b", stdin="x" * 11)
    assert (status, err) == (1, "TooLarge: standard input is longer than 10 characters: no value is\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    assert program.main(["put", "a.b"]) == 1


def test_an_error_is_one_safe_line(tega: Run) -> None:
    tega.client.fail = Disconnected("first\nsecond \x1b[31m")
    status, _, err = tega("roots")
    assert status == 1
    assert err == "Disconnected: first second \\x1b[31m\n"


def test_options(tega: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tega("roots")
    tega("-s", "tcp://h:1", "-t", "noc-1", "--timeout", "2.5", "--json", "roots")
    monkeypatch.setenv("TEGA_SERVER", "tcp://env:2")
    tega("roots")
    assert tega.options == [
        Options("tcp://127.0.0.1:8740", None, 10.0, False),
        Options("tcp://h:1", "noc-1", 2.5, True),
        Options("tcp://env:2", None, 10.0, False),
    ]


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "nan", "inf", "100000"])
def test_a_timeout_is_a_number_of_seconds(tega: Run, seconds: str) -> None:
    assert tega("--timeout", seconds, "roots")[0] == 2


def test_version_and_help_need_no_node(tega: Run) -> None:
    status, out, _ = tega("--version")
    assert (status, out.split()[0]) == (0, "tega")
    assert "exit status" in tega("--help")[1]
    assert "usage: tega put" in tega("put", "--help")[1]
    assert "usage: put" in tega("help", "put")[1]
    assert "Transaction" in tega("help")[1]
    assert tega("help", "nope")[0] == tega("help", "nope", "--json")[0] == 2
    for words in (("help", "--json"), ("--json", "help")):
        told = {each["name"]: each for each in json.loads(tega(*words)[1])}
        assert told["put"]["category"] == "Tree" and told.keys() > {"get", "undo", "commit"}
    assert json.loads(tega("help", "del", "--json")[1])["usage"].startswith("del PATH [--version")
    assert tega.options == []


@pytest.mark.parametrize("word", ["help", "h", "quit", "q", "exit", "history", "alias", "run_script"])
def test_words_that_are_no_commands_have_help_and_say_where_they_are_for(tega: Run, word: str) -> None:
    name = {"h": "help", "q": "quit", "exit": "quit"}.get(word, word)
    status, out, err = tega("help", word)
    assert (status, out.count("\n"), err) == (0, 1, "")
    assert out.startswith(name)
    assert json.loads(tega("help", word, "--json")[1])["name"] == name
    if name != "help":
        status, out, err = tega(word)
        assert (status, out) == (2, "")
        assert err.startswith(f"tega: {word} is for ")
        assert "did you mean" not in err
    if name not in ("help", "quit"):
        assert tega(stdin=f"{word}\n")[2].startswith(f"tega: standard input:1: {word} is for the interactive")


def test_json(tega: Run) -> None:
    tega("put", "a.b", "1")
    assert json.loads(tega("get", "a", "--json")[1]) == {"b": 1}
    assert json.loads(tega("--json", "get", "a")[1]) == {"b": 1}
    assert json.loads(tega("--json", "put", "a.b", "2")[1]) == {"revision": 2, "versions": {"a": 1}}


def test_a_value_comes_from_standard_input_whole(tega: Run) -> None:
    assert tega("put", "a.b", stdin="x: 1\n\ny: 2\n")[0] == 0
    assert tega.client.tree == {"a": {"b": {"x": 1, "y": 2}}}
    status, _, err = tega("put", "a.b", stdin="")
    assert status == 1
    assert err.startswith("InvalidValue: no value")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("put", "a..b", "1"), "a..b: empty oid at column 3"),
        (("put", "a@1", "1"), "a@1: a version can be named only where something is read"),
        (("put", "a.b", "{x"), "VALUE:2: no YAML: "),
        (("put", "a.b", "{x: 1, x: 2}"), "VALUE:1: the key 'x' stands twice"),
        (("pub", "a", "'"), "VALUE:1: no YAML: "),
        (("schema", "a", "{x"), "VALUE:2: no YAML: "),
        (("get", "a@_"), "a@_: '_' is no version"),
        (("sub", "a."), "a.: empty oid"),
        (("diff", "a@1", ".b"), ".b: empty oid"),
        (("export", "..", "-"), "..: empty oid"),
        (("rollback", "a.b", "1"), "a.b: a whole root is wanted here"),
        (("disown", "a.b"), "a.b: a whole root is wanted here"),
        (("tag", "a", "x y"), "NAME: 'x y' is no tag: letters, digits"),
        (("untag", "a", "1"), "NAME: '1' is no tag: letters, digits"),
        (("a.b(",), "cannot read the arguments (: "),
        (("a..b()",), "a..b: empty oid"),
        (("tools.slow(0) x",), "cannot read the arguments (0) x: "),
        (("tools.slow(timeout='1')",), "timeout is how many seconds to wait"),
    ],
)
def test_what_is_typed_wrongly_is_told_before_a_node_is_dialled(
    tega: Run, words: tuple[str, ...], said: str
) -> None:
    status, out, err = tega(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"tega: {said}")
    assert tega.options == []
    line = " ".join(f'"{word}"' if word == "x y" else word for word in words)
    assert tega(stdin=f"{line}\n")[0] == 2
    assert tega.client.calls == []


def test_what_the_node_refuses_is_refused(tega: Run) -> None:
    assert tega("put", "a", "null")[0] == 0
    assert tega("export", ".", "-") == (0, "a: null\n", "")
    assert tega("tag", "nope", "golden")[0] == 1
    assert tega("put", "a.b", stdin="{x")[2].startswith("InvalidValue: value:2: no YAML: ")


def test_a_shell_has_taken_the_quotes_off(tega: Run) -> None:
    tega("put", 'a."x.y"', "two words", "-m", '"quoted"')
    assert tega.client.tree == {"a": {"x.y": "two words"}}
    assert tega.client.entries["a"][0].message == '"quoted"'


def test_a_sub_whose_subscription_ends_says_why(tega: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = tega.client.listen

    def ending(*args: Any, **options: Any) -> Any:
        made = listen(*args, **options)
        made.end(Compacted("what came after version 7 is gone"))
        return made

    monkeypatch.setattr(tega.client, "listen", ending)
    assert tega("sub", "a") == (1, "", "Compacted: what came after version 7 is gone\n")
    assert tega.client.subscriptions == []


@pytest.mark.parametrize("command", ["begin", "cand", "commit", "cancel", "unsub", "unsubr"])
def test_what_needs_a_lasting_session_says_what_to_do(tega: Run, command: str) -> None:
    status, out, err = tega(command)
    assert (status, out) == (2, "")
    assert err.startswith(f"tega: {command}: ")
    assert tega.options == []


def test_calls(tega: Run) -> None:
    tega.client.handlers["t.add"] = lambda a, b=1: a + b
    assert tega("t.add(1, b=41)") == (0, "42\n", "")
    assert tega("t.add(1,", "b=2)") == (0, "3\n", "")
    assert tega("t.add('x', b='y')", "--json") == (0, '"xy"\n', "")
    assert tega("--timeout", "3", "t.add(1)")[0] == 0
    assert tega.client.calls[-1][4] == 3.0
    assert tega("t.add(x)")[0] == 2
    assert tega("nobody.home()")[2].startswith("NoHandler: ")
    assert tega("--", "t.add(1)")[0] == 0


@pytest.mark.parametrize(
    "words", [("get", "a"), ("export", "a", "-"), ("--json", "get", "a"), ("export", "a", "-", "--json")]
)
def test_a_document_on_a_narrow_output_is_the_same_document(
    tega: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    tega("put", "a.größe", "世界")
    kept = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding="ascii"))
        assert tega(*words)[0] == tega("log", "a")[0] == 0
        document, _, rest = kept.getvalue().decode("ascii").partition("a@0")
    read = (json.loads if "--json" in words else yamlio.load)(document)
    assert read == ({"a": {"größe": "世界"}} if "export" in words else {"größe": "世界"})
    assert r"a.gr\xf6\xdfe" in rest, "a message"


@pytest.mark.parametrize(("name", "said"), [("link", "b: 1"), ("out.yaml", "b: 1"), ("out.json", '"b": 1')])
def test_an_export_to_what_standard_output_leads_to(
    tega: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str, said: str
) -> None:
    tega("put", "a.b", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("out")  # as /dev/stdout is one
    file = "out" if name == "link" else name
    with open(file, "w", encoding="utf-8") as out, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert tega("export", "a", name)[0] == tega("get", "a.b")[0] == 0
    text = (tmp_path / file).read_text()
    assert said in text
    assert text.endswith("\n1\n"), "what comes after it is there, too"
    assert "written to" not in text


@pytest.fixture
def empty_broker(tega: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Run:
    """The folder is a fresh one, too."""
    tega.client.listings = {"status": {"tega_id": "gateway"}, "old": []}
    monkeypatch.chdir(tmp_path)
    return tega


@pytest.mark.parametrize("name", ["-", "out", "link"])
def test_a_backup_to_standard_output(
    empty_broker: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str
) -> None:
    (tmp_path / "link").symlink_to("out")
    said = f'{{"commits": 0, "file": "{name}", "gaps": [], "roots": 0, "tags": 0}}\n'
    with open("out", "w+", encoding="utf-8") as out, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert empty_broker("backup", name) == (0, "", "0 roots, 0 commits written to standard output\n")
        assert empty_broker("backup", name, "--json") == (0, "", said)
        assert gzip.decompress((tmp_path / "out").read_bytes()).count(b"tega_backup") == 2
        assert os.path.samestat(os.fstat(out.fileno()), os.stat("out")), "it was not replaced"
    assert sorted(os.listdir()) == ["link", "out"]


def test_a_backup_that_standard_output_does_not_take(
    empty_broker: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        said = "StorageError: standard output: cannot be written: No space left on device\n"
        assert empty_broker("backup", "-") == (1, "", said)


def test_a_backup_from_standard_input(empty_broker: Run) -> None:
    assert empty_broker("backup", "site.tega")[0] == 0
    with open("site.tega", encoding="utf-8") as file:
        empty_broker.stdin = file
        assert empty_broker("restore", "-") == (0, "0 roots, 0 commits restored from standard input\n", "")
    empty_broker.stdin = None
    status, _, err = empty_broker("restore", "-", stdin="x")
    assert (status, err) == (1, "InvalidValue: standard input: cannot be read: Not a gzipped file (b'x')\n")


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_backup_and_the_lines_of_a_script_go_separate_ways(empty_broker: Run, command: str) -> None:
    status, out, err = empty_broker(stdin=f"{command} -\n")
    assert (status, out) == (2, "")
    assert err.endswith(": name a file\n")
    assert os.listdir() == []


def test_no_backup_goes_to_a_terminal(empty_broker: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    main, terminal = os.openpty()
    with open(main, "rb"), open(terminal, "w", encoding="utf-8") as out, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        status, _, err = empty_broker("backup", "-")
    assert status == 2
    assert "standard output is a terminal" in err


def test_clear_without_a_terminal_needs_yes(tega: Run) -> None:
    status, _, err = tega("clear", stdin="y\n")
    assert status == 2
    assert "--yes" in err
    assert tega("clear", "--yes")[0] == 0


def test_a_script_runs_in_one_session(tega: Run) -> None:
    script = "# first\nbegin\nput a.b 1\n\nput a.c\nx: 1\ny: [2]\n\nget a\ncommit -m both\nget a.b\n"
    status, out, err = tega(stdin=script)
    assert (status, err) == (0, "")
    assert out == "transaction tx0\nb: 1\nc:\n  x: 1\n  y:\n  - 2\na@0\n1\n"
    assert len(tega.options) == 1


def test_a_script_stops_at_the_first_error(tega: Run) -> None:
    assert tega(stdin="put a.b 1\nget nope\nput a.c 1\n") == (
        1,
        "a@0\n",
        "NotFound: there is nothing at nope (standard input:2)\n",
    )
    status, _, err = tega(stdin="\nfrob\nput a.c 1\n")
    assert status == 2
    assert err.startswith("tega: standard input:2: there is no command 'frob'")
    assert tega.client.tree == {"a": {"b": 1}}


def test_a_script_may_quit_and_ask_for_help(tega: Run) -> None:
    status, out, _ = tega(stdin="get --help\nhelp put\nquit\nfrob\n")
    assert status == 0
    assert "usage: get" in out


def test_a_transaction_that_a_script_leaves_open_is_cancelled(tega: Run) -> None:
    status, _, err = tega(stdin="begin\nput a.b 1\n")
    assert status == 1
    assert "the transaction tx0 is cancelled: nothing of it was committed" in err
    for script in ("begin one\nput a.b 1\nuse\n", "begin one\nput a.b 1\nuse\nquit\n"):
        status, _, err = tega(stdin=script)
        assert status == 1 and "transaction one is cancelled" in err, "one that is not in use too"
    assert "the transactions one, two are cancelled" in tega(stdin="begin one\nbegin two\nquit\n")[2]
    assert tega(stdin="begin\nput a.b 1\nbegin two\ncancel\nget nope\n")[2].count("cancelled") == 1
    assert tega.client.tree == {}


def test_a_script_from_a_file(tega: Run, tmp_path: Any) -> None:
    file = tmp_path / "setup.tega"
    file.write_text("put a.b 1\nget nope\n")
    status, out, err = tega("-f", str(file))
    assert (status, out) == (1, "a@0\n")
    assert err.endswith(f"({file}:2)\n")
    assert tega("-f", "-", stdin="get a.b\n")[1] == "1\n"
    assert tega("-f", str(tmp_path / "nope"))[2].startswith("InvalidValue: ")
    assert tega("-f", str(file), "get", "a")[0] == 2
    file.write_bytes(b"put a.c \xff\n")
    assert tega("-f", str(file))[0] == 2


def test_events_of_a_script(tega: Run) -> None:
    status, out, _ = tega(stdin="sub alerts\npub alerts {level: 3}\n")
    assert status == 0
    assert 'alerts: {"level": 3}  (from noc-1)' in out


def test_a_script_ends_when_its_last_event_is_shown(tega: Run) -> None:
    tega.client.late = [lambda: tega.client.publish("alerts", 1)]
    for script, status in (("sub alerts\n", 0), ("sub alerts\nquit\n", 0), ("sub alerts\nget nope\n", 1)):
        assert tega(stdin=script)[:2] == (status, "alerts: 1  (from noc-1)\n")
        tega.client.subscriptions.clear()
    tega.client.calls.clear()
    assert tega(stdin="sub alerts\nunsub\n")[1] == tega(stdin="roots\n")[1].replace("no roots\n", "")
    tega.client.state = "suspended"
    tega(stdin="sub alerts\n")
    assert ("catch_up",) not in tega.client.calls, "nothing to wait for, or nobody who answers"


def test_ctrl_c(tega: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(tega.client, "inspect", interrupted)
    assert tega("roots") == (130, "", "")


def test_without_cmd2_only_the_interactive_shell_is_missing(
    tega: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setitem(sys.modules, "cmd2", None)
    monkeypatch.delitem(sys.modules, "tega_zmq.shell.interactive", raising=False)
    import tega_zmq.shell

    monkeypatch.delattr(tega_zmq.shell, "interactive", raising=False)
    assert tega("put", "a.b", "1")[0] == 0
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    assert program.main([]) == 1
    assert errors.getvalue().count("\n") == 1
    assert "pip install 'tega-zmq[shell]'" in errors.getvalue()


def test_a_one_shot_imports_nothing_that_is_heavy() -> None:
    import subprocess

    code = (
        "import sys; from tega_zmq.shell import main; from tega_zmq.client import blocking\n"
        "main.main(['help'])\n"
        "print('HEAVY', sorted({'cmd2', 'rich', 'asyncio', 'prompt_toolkit', 'yaml'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("HEAVY []\n")


class Signalled(threading.Event):
    """One that is waited for when the signal comes: by a thread that has its lock."""

    def wait(self, timeout: float | None = None) -> bool:
        with self._cond:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
        return False


def test_a_follower_ends_whenever_the_signal_comes(tega: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(threading, "Event", Signalled)
    assert tega("sub", "a.b")[0] == 0
    assert signal.getsignal(signal.SIGTERM) is before
