"""The host: loading, isolation, on_change, reload, status and reports."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import pytest

from tega_zmq.errors import Offline
from tega_zmq.plugins.applied import UNKNOWN, AppliedFile

NET = """
    from fleet import seen
    class Net(Plugin):
        @rpc("ops-{tega_id}.net.restart")
        def restart(self, interface: str, delay: float = 0) -> str:
            return f"{interface} {delay} at {self.tega_id}"
        @on_change("config-{tega_id}.net")
        def apply(self, change):
            seen.append(change)
"""

PATH = "config-pi1.net"


def entry(host: Any, name: str) -> dict[str, Any]:
    found = [each for each in host.status() if each["name"] == name]
    assert len(found) == 1, host.status()
    return found[0]


def handler(host: Any, name: str, kind: str = "on_change") -> dict[str, Any]:
    return next(each for each in entry(host, name)["handlers"] if each["kind"] == kind)


def applied(fleet: Any, host: Any, name: str, version: int | None) -> None:
    fleet.until(lambda: handler(host, name)["version"] == version and handler(host, name)["error"] is None)


# -- handlers --------------------------------------------------------------------------------------


def test_a_plugin_answers_calls(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: "ops-pi1.net.restart" in fleet.node.handlers)
    assert fleet.node.call("ops-pi1.net.restart", "eth0", delay=2) == "eth0 2 at pi1"
    assert entry(host, "net")["state"] == "running"
    assert entry(host, "net")["source"].endswith("plugins/net.py")


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "missing a required argument: 'interface'"),
        (("eth0", 1, 2), {}, "too many positional arguments"),
        (("eth0",), {"wait": 1}, "unexpected keyword argument 'wait'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(fleet: Any, args: Any, kwargs: Any, text: str) -> None:
    fleet.write("net.py", NET)
    fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    with pytest.raises(TypeError) as raised:
        fleet.node.call("ops-pi1.net.restart", *args, **kwargs)
    assert text in str(raised.value)
    assert "ops-pi1.net.restart" in str(raised.value)
    assert "(interface: str, delay: float = 0) -> str" in str(raised.value).replace("'", "")


def test_a_type_error_inside_a_handler_is_passed_on_as_it_is(fleet: Any) -> None:
    fleet.write("a.py", 'class A(Plugin):\n    @rpc("a.b")\n    def b(self): return 1 + "1"\n')
    fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    with pytest.raises(TypeError, match="unsupported operand"):
        fleet.node.call("a.b")


def test_a_handler_that_exits_does_not_end_the_thread_of_the_client(fleet: Any) -> None:
    fleet.write("a.py", 'import sys\nclass A(Plugin):\n    @rpc("a.b")\n    def b(self): sys.exit("bye")\n')
    fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    with pytest.raises(RuntimeError, match="SystemExit: bye"):
        fleet.node.call("a.b")


def test_calls_of_one_plugin_are_bounded(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tega_zmq.plugins.instance.MAX_WAIT", 0.01)
    fleet.write(
        "a.py",
        """
        from fleet import release
        class A(Plugin):
            @rpc("a.hang")
            def hang(self): release.wait(30)
        """,
    )
    host = fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    threads = [threading.Thread(target=fleet.node.call, args=("a.hang",)) for _ in range(16)]
    for thread in threads:
        thread.start()
    fleet.until(lambda: handler(host, "a", "rpc")["running_for"] is not None)
    fleet.until(lambda: len(host._instances()[0]._entries[0].running) == 16)
    with pytest.raises(RuntimeError, match="16 calls of plugin a are running"):
        fleet.node.call("a.hang")
    fleet.release.set()
    for thread in threads:
        thread.join(10)
    assert handler(host, "a", "rpc")["running_for"] is None
    fleet.node.call("a.hang")


def test_many_short_calls_wait_for_their_turn(fleet: Any) -> None:
    fleet.write("a.py", 'class A(Plugin):\n    @rpc("a.b")\n    def b(self, x): return x\n')
    fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    results: list[int] = []

    def run() -> None:
        results.extend(fleet.node.call("a.b", number) for number in range(50))

    threads = [threading.Thread(target=run) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == sorted(list(range(50)) * 40)


def test_two_plugins_cannot_offer_one_path(fleet: Any) -> None:
    fleet.write("a.py", 'class A(Plugin):\n    @rpc("x.y")\n    def y(self): return "a"\n')
    fleet.write("b.py", 'class B(Plugin):\n    @rpc("x.y")\n    def y(self): return "b"\n')
    host = fleet.run()
    wrong = fleet.until(
        lambda: [each for each in host.status() if each["handlers"] and each["handlers"][0]["error"]]
    )
    assert (
        f"plugin {'a' if wrong[0]['name'] == 'b' else 'b'} offers x.y already"
        in wrong[0]["handlers"][0]["error"]
    )


def test_a_registration_that_fails_is_tried_again(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tega_zmq.plugins.instance.backoff", lambda failures: 0.01 * failures)
    fleet.write("net.py", NET)
    fleet.node.register_errors = [Offline("no link"), Offline("no link")]
    host = fleet.run()
    fleet.until(lambda: "ops-pi1.net.restart" in fleet.node.handlers)
    fleet.until(lambda: handler(host, "net", "rpc")["error"] is None)


# -- on_change -------------------------------------------------------------------------------------


def test_a_value_that_is_there_at_start_is_applied_once(fleet: Any) -> None:
    version = fleet.node.commit(PATH, {"mtu": 1500})
    fleet.write("net.py", NET)
    host = fleet.run()
    applied(fleet, host, "net", version)
    [change] = fleet.seen
    assert change.path == PATH
    assert (change.old, change.new, change.version) == (None, {"mtu": 1500}, version)
    assert change.created
    assert not change.deleted
    assert change.epoch == "e1"


def test_nothing_there_and_nothing_applied_is_no_change(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: fleet.node.reads)
    version = fleet.node.commit(PATH, 1)
    applied(fleet, host, "net", version)
    assert [change.new for change in fleet.seen] == [1]


def test_each_later_change_comes_with_the_value_before(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    for number in range(3):
        applied(fleet, host, "net", fleet.node.commit(PATH, number, tega_id=f"n{number}", message="why"))
    assert [(c.old, c.new, c.tega_id, c.message) for c in fleet.seen] == [
        (None, 0, "n0", "why"),
        (0, 1, "n1", "why"),
        (1, 2, "n2", "why"),
    ]


def test_a_stored_null_is_not_absence(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    applied(fleet, host, "net", fleet.node.commit(PATH, None))
    fleet.node.commit(PATH)
    applied(fleet, host, "net", None)
    fleet.until(lambda: len(fleet.seen) == 2)
    assert [(c.new, c.created, c.deleted) for c in fleet.seen] == [(None, True, False), (None, False, True)]


def test_types_that_python_takes_for_equal_are_changes(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    for value in (1, True, 1.0):
        applied(fleet, host, "net", fleet.node.commit(PATH, value))
    assert [repr(c.new) for c in fleet.seen] == ["1", "True", "1.0"]


def test_changes_that_come_while_it_runs_become_one(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import seen, release
        class A(Plugin):
            @on_change("x")
            def apply(self, change):
                seen.append(change)
                release.wait(30)
        """,
    )
    fleet.node.commit("x", 0)
    host = fleet.run()
    fleet.until(lambda: fleet.seen)
    for number in range(1, 100):
        last = fleet.node.commit("x", number)
    assert handler(host, "a")["running_for"] is not None
    fleet.release.set()
    applied(fleet, host, "a", last)
    assert [(c.old, c.new) for c in fleet.seen] == [(None, 0), (0, 99)]


def test_what_was_applied_is_known_to_the_next_run(fleet: Any) -> None:
    fleet.write("net.py", NET)
    first = fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    applied(fleet, first, "net", fleet.node.commit(PATH, {"mtu": 1500}))
    assert first.stop(5)
    fleet.seen.clear()
    fleet.node.handlers.clear()
    second = fleet.run()
    applied(fleet, second, "net", 0)
    assert not fleet.seen
    assert second.stop(5)
    fleet.node.handlers.clear()
    fleet.node.commit(PATH, {"mtu": 9000})
    third = fleet.run()
    applied(fleet, third, "net", 1)
    assert [(c.old, c.new, c.created) for c in fleet.seen] == [({"mtu": 1500}, {"mtu": 9000}, False)]


def test_what_a_method_does_to_its_change_is_not_kept(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import seen
        class A(Plugin):
            @on_change("x")
            def apply(self, change):
                seen.append((dict(change.old or {}), dict(change.new)))
                change.new.clear()
        """,
    )
    host = fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    applied(fleet, host, "a", fleet.node.commit("x", {"k": 1}))
    applied(fleet, host, "a", fleet.node.commit("x", {"k": 2}))
    assert fleet.seen == [({}, {"k": 1}), ({"k": 1}, {"k": 2})]


RAISES = """
    from fleet import seen
    class A(Plugin):
        @on_change("x")
        def apply(self, change):
            seen.append(change.new)
            if change.new == "bad":
                raise ValueError("no such mtu")
"""


def test_one_that_raises_shows_and_is_not_applied(fleet: Any) -> None:
    good = fleet.node.commit("x", "good")
    fleet.write("a.py", RAISES)
    host = fleet.run()
    applied(fleet, host, "a", good)
    bad = fleet.node.commit("x", "bad")
    fleet.until(lambda: handler(host, "a")["error"])
    shown = handler(host, "a")
    assert shown["version"] == good
    assert shown["error"] == "ValueError: no such mtu (a.py, line 9)"
    assert shown["error_version"] == bad
    fleet.until(lambda: fleet.node.reports and fleet.node.reports[-1][1][0]["handlers"][0]["error"])
    name, report = fleet.node.reports[-1]
    assert name == "plugins"
    assert report[0]["handlers"][0] == {
        "path": "x",
        "kind": "on_change",
        "method": "apply",
        "version": good,
        "error": shown["error"],
        "error_version": bad,
    }
    better = fleet.node.commit("x", "better")
    applied(fleet, host, "a", better)
    assert handler(host, "a")["error_version"] is None


def test_one_that_raised_is_tried_again_after_a_while(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tega_zmq.plugins.instance.backoff", lambda failures: 0.01 * failures)
    fleet.write("a.py", RAISES)
    fleet.node.commit("x", "bad")
    fleet.run()
    fleet.until(lambda: len(fleet.seen) >= 3)


def test_one_that_raised_is_tried_again_at_reconnect_and_reload(fleet: Any) -> None:
    fleet.write("a.py", RAISES)
    fleet.node.commit("x", "bad")
    host = fleet.run()
    fleet.until(lambda: len(fleet.seen) == 1 and handler(host, "a")["error"])
    fleet.node.tell_state("suspended")
    fleet.node.tell_state("connected")
    fleet.until(lambda: len(fleet.seen) == 2)
    host.reload()
    fleet.until(lambda: len(fleet.seen) == 3)


def test_a_read_that_fails_shows_and_is_tried_again(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tega_zmq.plugins.instance.backoff", lambda failures: 0.01)
    fleet.write("net.py", NET)
    fleet.node.commit(PATH, 1)
    fleet.node.broken = Offline("no replica of config-pi1")
    host = fleet.run()
    fleet.until(lambda: "Offline: no replica" in (handler(host, "net")["error"] or ""))
    assert not fleet.seen
    fleet.node.broken = None
    applied(fleet, host, "net", 0)


def test_a_change_that_was_missed_while_away_is_seen_at_reconnect(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    with fleet.node.lock:
        fleet.node.values[PATH] = ("missed", 7)
    fleet.node.tell_state("connected")
    applied(fleet, host, "net", 7)
    assert fleet.seen[0].tega_id == ""


def test_a_regex_takes_all_that_matches(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import seen
        class A(Plugin):
            @on_change(r"config-.*\\.mtu", regex=True)
            def apply(self, change): seen.append(change)
        """,
    )
    fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    fleet.node.commit("config-a.mtu", 1500)
    fleet.until(lambda: len(fleet.seen) == 1)
    fleet.node.commit("config-b.mtu", 9000)
    fleet.until(lambda: len(fleet.seen) == 2)
    fleet.node.commit("config-a.mtu")
    fleet.until(lambda: len(fleet.seen) == 3)
    assert [c.new for c in fleet.seen] == [
        {"config-a.mtu": 1500},
        {"config-a.mtu": 1500, "config-b.mtu": 9000},
        {"config-b.mtu": 9000},
    ]
    assert fleet.seen[0].created


def test_a_root_whose_changes_are_not_heard_shows_with_what_to_do(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be read through, once: then the device would keep what it found at the start."""
    monkeypatch.setattr("tega_zmq.plugins.instance.backoff", lambda failures: 0.01)
    fleet.write("net.py", NET)
    fleet.node.commit(PATH, 1)
    fleet.node.uplink = {"config": [{"root": "config-pi2"}], "operational": []}
    host = fleet.run()
    fleet.until(lambda: handler(host, "net")["error"])
    assert "config-pi1 is not listed under `config`" in handler(host, "net")["error"]
    assert not fleet.seen
    for kind in ("config", "operational"):
        fleet.node.uplink = {"config": [], "operational": [], kind: [{"root": "config-pi1"}]}
        applied(fleet, host, "net", fleet.node.version)
        fleet.node.commit(PATH, kind)
    fleet.until(lambda: len(fleet.seen) == 3)


def test_a_disk_that_cannot_note_what_was_applied_is_reported(fleet: Any) -> None:
    fleet.data.write_text("a file where the folder should be")
    fleet.write("net.py", NET)
    fleet.node.commit(PATH, 1)
    host = fleet.run()
    fleet.until(lambda: handler(host, "net")["error"])
    assert "version 0 is applied, but that cannot be noted on disk" in handler(host, "net")["error"]
    assert handler(host, "net")["version"] == 0
    fleet.node.tell_state("connected")
    fleet.until(lambda: fleet.node.reads >= 2)
    assert len(fleet.seen) == 1


def test_what_could_not_be_noted_is_noted_later_without_a_call(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tega_zmq.plugins.instance.backoff", lambda failures: 0.01)
    fleet.data.write_text("a file where the folder should be")
    fleet.write("net.py", NET)
    fleet.node.commit(PATH, 1)
    first = fleet.run()
    fleet.until(lambda: handler(first, "net")["error"])
    fleet.data.unlink()
    applied(fleet, first, "net", 0)
    assert len(fleet.seen) == 1
    assert first.stop(5)
    fleet.node.handlers.clear()
    second = fleet.run()
    applied(fleet, second, "net", 0)
    assert len(fleet.seen) == 1


def test_a_version_shows_as_applied_when_that_is_noted(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one who sees it and cuts the power has it applied twice."""
    shown: list[Any] = []
    real = AppliedFile.write

    def write(file: AppliedFile, state: Any) -> None:
        shown.append(handler(host, "net")["version"])
        real(file, state)

    monkeypatch.setattr(AppliedFile, "write", write)
    fleet.write("net.py", NET)
    host = fleet.host()
    fleet.node.commit(PATH, 1)
    host.start()
    assert host.settled(10)
    applied(fleet, host, "net", 0)
    assert shown == [None, None]


@pytest.mark.parametrize("full", ["before the return", "before the call", "but for empty files"])
def test_a_rollback_after_one_that_could_not_be_noted_is_applied(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """The device has the value that was rolled back, whatever the note from before says."""
    fleet.write("net.py", NET)
    first = fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    applied(fleet, first, "net", fleet.node.commit(PATH, "A"))
    with monkeypatch.context() as patch:
        real = AppliedFile.write

        def write(file: AppliedFile, state: Any) -> None:
            if full != "before the return" or not state.begun:
                raise OSError("no space left on device")
            real(file, state)

        patch.setattr(AppliedFile, "write", write)
        if full == "before the call":
            patch.setattr(AppliedFile, "empty", lambda file: write(file, None))
        fleet.node.commit(PATH, "B")
        fleet.until(lambda: "cannot be noted" in (handler(first, "net")["error"] or ""))
        if full == "before the call":  # then only the running program knows
            fleet.node.commit(PATH, "A")
            fleet.until(lambda: len(fleet.seen) == 3)
        assert first.stop(5)
    if full != "before the call":
        fleet.node.commit(PATH, "A")
        fleet.node.handlers.clear()
        second = fleet.run()
        applied(fleet, second, "net", 2)
    assert [change.new for change in fleet.seen] == ["A", "B", "A"]


def test_a_rollback_after_one_that_raised_is_applied(fleet: Any) -> None:
    """It may have done half of its work."""
    fleet.node.commit("x", "good")
    fleet.write("a.py", RAISES)
    host = fleet.run()
    applied(fleet, host, "a", 0)
    fleet.node.commit("x", "bad")
    fleet.until(lambda: handler(host, "a")["error"])
    applied(fleet, host, "a", fleet.node.commit("x", "good"))
    assert fleet.seen == ["good", "bad", "good"]


@pytest.mark.parametrize("value", [("good",), ()])
def test_a_rollback_while_it_is_off_after_one_that_did_not_return_is_applied(fleet: Any, value: Any) -> None:
    """With no value before, too: what was begun is there, as far as anybody knows."""
    if value:
        fleet.node.commit("x", *value)
    fleet.write(
        "a.py",
        """
        from fleet import seen, release
        class A(Plugin):
            @on_change("x")
            def apply(self, change):
                seen.append((change.old, change.new))
                if change.new == "bad" and not release.wait(30):
                    return
        """,
    )
    first = fleet.host(patience=0.05)
    first.start()
    fleet.until(lambda: fleet.node.watchers)
    fleet.until(lambda: len(fleet.seen) == len(value))
    fleet.node.commit("x", "bad")
    fleet.until(lambda: len(fleet.seen) == len(value) + 1)
    first.stop(0.05)
    fleet.node.commit("x", *value)
    second = fleet.run()
    fleet.until(lambda: len(fleet.seen) == len(value) + 2)
    good = value[0] if value else None
    assert fleet.seen[-1] == (good, good)
    assert second.stop(5)
    fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    assert len(fleet.seen) == len(value) + 2


def test_what_raises_again_and_again_wears_no_flash(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tega_zmq.plugins.instance.backoff", lambda failures: 0.01)
    writes: list[bool] = []
    real = AppliedFile.write

    def write(file: AppliedFile, state: Any) -> None:
        writes.append(state.begun)
        real(file, state)

    monkeypatch.setattr(AppliedFile, "write", write)
    fleet.write("a.py", RAISES)
    fleet.node.commit("x", "bad")
    host = fleet.run()
    fleet.until(lambda: len(fleet.seen) >= 3)
    applied(fleet, host, "a", fleet.node.commit("x", "good"))
    assert writes == [True, False]


def test_a_damaged_note_of_what_is_gone_calls_too(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: fleet.node.watchers)
    applied(fleet, host, "net", fleet.node.commit(PATH, 1))
    assert host.stop(5)
    [file] = (fleet.data / "applied").iterdir()
    file.write_bytes(b"")
    fleet.node.commit(PATH)
    fleet.node.handlers.clear()
    fleet.run()
    fleet.until(lambda: len(fleet.seen) == 2)
    assert fleet.seen[1].deleted


def test_a_damaged_note_counts_as_none(fleet: Any, caplog: pytest.LogCaptureFixture) -> None:
    fleet.write("net.py", NET)
    fleet.node.commit(PATH, 1)
    host = fleet.run()
    applied(fleet, host, "net", 0)
    assert host.stop(5)
    [file] = (fleet.data / "applied").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    fleet.node.handlers.clear()
    with caplog.at_level(logging.WARNING):
        fleet.run()
        fleet.until(lambda: len(fleet.seen) == 2)
    assert "checksum does not fit" in caplog.text
    assert fleet.seen[1].created


# -- harm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (bad.py, line 2)"),
        ("def (:", "SyntaxError: "),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "defines no plugin"),
        ("class Bad(Plugin):\n    def __init__(self): raise OSError('no')", "__init__: OSError: no"),
        ("class Bad(Plugin):\n    def start(self): raise OSError('no')", "start: OSError: no"),
        ("class Bad(Plugin):\n    def start(self): raise SystemExit", "start: SystemExit"),
        ("class Bad(Plugin):\n    async def start(self): pass", "is async; plugins run in threads"),
        (
            "class Bad(Plugin):\n    @rpc('a.b')\n    async def b(self): pass",
            "is async; plugins run in threads",
        ),
        ("class Bad(Plugin):\n    @on_change('a.b')\n    def b(self, c): yield", "is a generator"),
        ("class Bad(Plugin):\n    @rpc('a..b')\n    def b(self): pass", "empty oid at column 3"),
        ("class Bad(Plugin):\n    name = 'no good'", "the name of plugin class Bad is 'no good'"),
        (
            "class Bad(Plugin):\n    @rpc('a.b')\n    def b(self): 0\n    @rpc('a.b')\n    def c(self): 0",
            "two methods under @rpc at a.b",
        ),
    ],
)
def test_a_plugin_that_cannot_run_shows_and_harms_nobody(fleet: Any, text: str, error: str) -> None:
    fleet.write("bad.py", text)
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: "ops-pi1.net.restart" in fleet.node.handlers)
    fleet.until(lambda: entry(host, "net")["state"] == "running")
    [bad] = [each for each in host.status() if each["name"] != "net"]
    assert bad["state"] == "failed"
    assert error in bad["error"]
    fleet.until(lambda: fleet.node.reports and any(e["error"] for e in fleet.node.reports[-1][1]))


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("from fleet import release\nrelease.wait(30)\nclass Bad(Plugin): pass", "loading"),
        (
            "from fleet import release\nclass Bad(Plugin):\n    def __init__(self): release.wait(30)",
            "loading",
        ),
        ("from fleet import release\nclass Bad(Plugin):\n    def start(self): release.wait(30)", "starting"),
        (
            "from fleet import release\nclass Bad(Plugin):\n    def stop(self): release.wait(30)",
            "running",
        ),
    ],
)
def test_a_plugin_that_hangs_shows_and_harms_nobody(fleet: Any, text: str, state: str) -> None:
    fleet.write("bad.py", text)
    fleet.write("net.py", NET)
    host = fleet.host(patience=0.05)
    host.start()
    fleet.until(lambda: "ops-pi1.net.restart" in fleet.node.handlers)
    [bad] = [each for each in host.status() if each["name"] != "net"]
    assert bad["state"] == state
    if state != "running":
        assert bad["running_for"] >= 0
        assert not host.settled(0.01)
    assert host.stop(0.2)
    assert fleet.node.closed


def test_an_import_that_is_late_is_taken(fleet: Any) -> None:
    fleet.write("slow.py", "from fleet import release\nrelease.wait(30)\nclass Slow(Plugin): pass")
    host = fleet.host(patience=0.05)
    host.start()
    fleet.until(lambda: host.status() and host.status()[0]["state"] == "loading")
    fleet.release.set()
    fleet.until(lambda: [(each["name"], each["state"]) for each in host.status()] == [("slow", "running")])
    assert host.settled(5)


def test_an_on_change_that_hangs_is_reported_as_running(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tega_zmq.plugins.host.STALL", 0.02)
    monkeypatch.setattr("tega_zmq.plugins.host.REPORT_INTERVAL", 0.01)
    fleet.write(
        "a.py",
        """
        from fleet import release
        class A(Plugin):
            @on_change("x")
            def apply(self, change): release.wait(30)
        """,
    )
    fleet.node.commit("x", 1)
    fleet.run()

    def last() -> Any:
        return fleet.node.reports[-1][1][0]["handlers"][0] if fleet.node.reports else {}

    assert fleet.until(lambda: last().get("running_since")) > 1_600_000_000
    fleet.release.set()
    fleet.until(lambda: "running_since" not in last() and last()["version"] == 0)


def test_a_hanging_on_change_that_is_left_behind_notes_nothing(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import release, seen
        class A(Plugin):
            @on_change("x")
            def apply(self, change):
                release.wait(30)
                seen.append("done")
        """,
    )
    fleet.node.commit("x", 1)
    host = fleet.run(patience=0.05)
    fleet.until(lambda: handler(host, "a")["running_for"] is not None)
    assert host.stop(0.05)
    fleet.release.set()
    fleet.until(lambda: fleet.seen)
    fleet.until(lambda: not any(t.name == "plugin a" for t in threading.enumerate()))
    assert AppliedFile(fleet.data / "applied", "a", "apply", "x").read() == UNKNOWN


def test_stop_calls_stop_and_leaves_no_thread(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import seen
        class A(Plugin):
            def start(self): seen.append("start"); self.every(0.01, self.tick)
            def tick(self): pass
            def stop(self): seen.append("stop")
        """,
    )
    host = fleet.run()
    assert host.stop(5)
    assert host.stopped
    assert fleet.seen == ["start", "stop"]
    assert fleet.node.closed
    mine = ("plugin a", "plugin host", "plugin client close")
    fleet.until(lambda: not [t for t in threading.enumerate() if t.name in mine])
    assert not [name for name in sys.modules if name.startswith("tega_plugins_")]


def test_stop_of_a_plugin_that_raises_is_shown(fleet: Any) -> None:
    fleet.write("a.py", "class A(Plugin):\n    def stop(self): raise OSError('busy')\n")
    host = fleet.run()
    assert host.stop(5)
    assert entry(host, "a")["error"].startswith("stop: OSError: busy")
    assert entry(host, "a")["state"] == "stopped"


# -- periodic work ---------------------------------------------------------------------------------


def test_periodic_work_goes_on_after_an_error(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import seen
        class A(Plugin):
            def start(self): self.every(0.01, self.tick, now=True)
            def tick(self):
                seen.append(1)
                if len(seen) < 3: raise OSError("no sensor")
                if len(seen) > 6: raise KeyError("again")
        """,
    )
    host = fleet.run()
    fleet.until(lambda: len(fleet.seen) > 6)
    fleet.until(lambda: "every 0.01 s, tick: KeyError" in (entry(host, "a")["error"] or ""))


def test_errors_that_cannot_say_anything_show_and_the_plugin_goes_on(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import seen
        class Mute(Exception):
            def __str__(self): raise ValueError
        class A(Plugin):
            def start(self):
                self.every(0.01, self.tick)
                self.tega.subscribe("y", self.changed)
            def tick(self):
                seen.append("tick")
                raise Mute
            def changed(self, change):
                seen.append("changed")
                raise Mute
            @on_change("x")
            def apply(self, change): raise Mute
            @rpc("a.b")
            def call(self): raise Mute
        """,
    )
    host = fleet.run()
    fleet.until(lambda: "tick: Mute: its message cannot be read" in (entry(host, "a")["error"] or ""))
    fleet.node.commit("x", 1)
    fleet.until(lambda: (handler(host, "a")["error"] or "").startswith("Mute: its message cannot be read"))
    fleet.node.commit("y", 1)
    fleet.until(lambda: "changed" in fleet.seen)
    fleet.seen.clear()
    fleet.until(lambda: "tick" in fleet.seen)
    with pytest.raises(Exception) as caught:
        fleet.node.call("a.b")
    assert type(caught.value).__name__ == "Mute"


def test_an_error_of_periodic_work_is_gone_when_it_works_again(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import seen, release
        class A(Plugin):
            def start(self): self.every(0.01, self.tick)
            def tick(self):
                if not release.is_set(): raise OSError("no sensor")
        """,
    )
    host = fleet.run()
    fleet.until(lambda: "OSError: no sensor" in (entry(host, "a")["error"] or ""))
    fleet.release.set()
    fleet.until(lambda: entry(host, "a")["error"] is None)


def test_every_checks_its_arguments(fleet: Any) -> None:
    fleet.write("a.py", "class A(Plugin):\n    def start(self): self.every(0, self.stop)\n")
    fleet.write("b.py", "class B(Plugin):\n    def __init__(self): self.every(1, self.stop)\n")
    fleet.write("c.py", "class C(Plugin):\n    def start(self): self.every(1, 5)\n")
    host = fleet.run()
    assert "every() calls a method, not int" in entry(host, "c")["error"]
    assert "the interval must be 0.01 s or more" in entry(host, "a")["error"]
    assert "call every() in start() or later" in entry(host, "b")["error"]


# -- the client of a plugin ------------------------------------------------------------------------

OWN = """
    import threading
    from fleet import seen
    class A(Plugin):
        def start(self):
            self.tega.subscribe("x", self.changed)
            self.tega.listen("alerts", self.changed)
            self.tega.register("a.own", lambda: 5)
            self.tega.on_state(lambda state: seen.append(state))
        def changed(self, change):
            seen.append(threading.current_thread().name)
            raise OSError("callback")
"""


def test_callbacks_run_in_the_plugins_own_thread(fleet: Any) -> None:
    fleet.write("a.py", OWN)
    host = fleet.run()
    fleet.node.commit("x", 1)
    fleet.until(lambda: fleet.seen == ["plugin a"])
    fleet.until(lambda: "x: OSError: callback" in (entry(host, "a")["error"] or ""))
    fleet.node.tell_state("suspended")
    fleet.until(lambda: fleet.seen[-1] == "suspended")
    assert fleet.node.call("a.own") == 5


def test_what_a_plugin_made_itself_ends_when_it_is_unloaded(fleet: Any) -> None:
    file = fleet.write("a.py", OWN)
    host = fleet.run()
    assert len(fleet.node.watchers) == 2
    file.unlink()
    host.reload()
    fleet.until(lambda: not host.status())
    assert not fleet.node.watchers
    assert not fleet.node.handlers
    fleet.node.tell_state("suspended")
    assert "suspended" not in fleet.seen


def test_the_shared_client_is_protected(fleet: Any) -> None:
    fleet.write(
        "a.py",
        """
        from fleet import seen
        class A(Plugin):
            def start(self):
                for call in (self.tega.close, lambda: self.tega.report("plugins", [])):
                    try: call()
                    except (RuntimeError, ValueError) as error: seen.append(str(error))
                self.tega.report("mine", 1)
                watch = self.tega.subscribe("x", print)
                watch.cancel(); watch.cancel()
                self.tega.register("a.b", print); self.tega.unregister("a.b")
        """,
    )
    fleet.run()
    assert "it cannot be closed" in fleet.seen[0]
    assert "choose another name" in fleet.seen[1]
    assert ("mine", 1) in fleet.node.reports
    assert not fleet.node.watchers
    assert not fleet.node.handlers
    assert not fleet.node.closed


# -- reload ----------------------------------------------------------------------------------------

VERSIONED = 'class A(Plugin):\n    @rpc("a.b")\n    def b(self): return {}\n'


def test_reload_takes_new_code_at_once(fleet: Any) -> None:
    """Also when size and second of the file are the same, by which Python's cache would not notice."""
    fleet.write("a.py", VERSIONED.format(1))
    host = fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    for number in range(2, 6):
        fleet.write("a.py", VERSIONED.format(number))
        host.reload()
        assert host.settled(10)
        fleet.until(lambda: "a.b" in fleet.node.handlers)
        assert fleet.node.call("a.b") == number
    assert not list(fleet.folder.glob("__pycache__"))


def test_reload_adds_and_removes_files(fleet: Any) -> None:
    fleet.write("a.py", VERSIONED.format(1))
    host = fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    (fleet.folder / "a.py").unlink()
    fleet.write("net.py", NET)
    host.reload()
    assert host.settled(10)
    assert [each["name"] for each in host.status()] == ["net"]
    fleet.until(lambda: set(fleet.node.handlers) == {"ops-pi1.net.restart"})


def test_code_that_cannot_be_imported_leaves_the_old_running(fleet: Any) -> None:
    fleet.write("a.py", VERSIONED.format(1))
    host = fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    fleet.write("a.py", "class A(Plugin:\n")
    host.reload()
    assert host.settled(10)
    shown = entry(host, "a")
    assert shown["state"] == "running"
    assert shown["error"].startswith("reload failed, the code before it goes on: SyntaxError")
    assert fleet.node.call("a.b") == 1
    fleet.write("a.py", VERSIONED.format(2))
    host.reload()
    assert host.settled(10)
    assert entry(host, "a")["error"] is None
    fleet.until(lambda: "a.b" in fleet.node.handlers)
    assert fleet.node.call("a.b") == 2


def test_reload_of_a_plugin_that_hangs_takes_the_new_code(fleet: Any) -> None:
    fleet.write("a.py", "from fleet import release\nrelease.wait(30)\n" + VERSIONED.format(1))
    host = fleet.host(patience=0.05)
    host.start()
    fleet.until(lambda: host.status() and host.status()[0]["state"] == "loading")
    fleet.write("a.py", VERSIONED.format(2))
    host.reload()
    fleet.until(lambda: "a.b" in fleet.node.handlers)
    fleet.release.set()
    assert fleet.node.call("a.b") == 2
    assert host.settled(10)
    assert fleet.node.call("a.b") == 2


def test_a_class_may_move_to_another_file(fleet: Any) -> None:
    fleet.write("z.py", VERSIONED.format(1))
    host = fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    fleet.write("a.py", VERSIONED.format(2))
    fleet.write("z.py", "class Other(Plugin): pass")
    host.reload()
    assert host.settled(10)
    assert {each["name"]: each["state"] for each in host.status()} == {"a": "running", "other": "running"}
    fleet.until(lambda: "a.b" in fleet.node.handlers)
    assert fleet.node.call("a.b") == 2


def test_two_plugins_of_one_name_are_refused(fleet: Any) -> None:
    fleet.write("a.py", "class Net(Plugin): pass")
    fleet.write("b.py", "class Net(Plugin): pass\nclass Other(Plugin):\n    name = 'other'")
    host = fleet.run()
    states = [(each["name"], each["state"], each["source"][-4:]) for each in host.status()]
    assert states == [("net", "running", "a.py"), ("other", "running", "b.py"), ("net", "failed", "b.py")]
    assert "the name net is taken by a plugin of" in host.status()[2]["error"]
    assert "a.py" in host.status()[2]["error"]


def test_settings_and_sources_can_be_replaced(fleet: Any, tmp_path: Any) -> None:
    fleet.write(
        "a.py", "from fleet import seen\nclass A(Plugin):\n    def start(self): seen.append(self.settings)"
    )
    host = fleet.run(settings={"a": {"x": 1}})
    host.reload(settings={"a": {"x": 2}})
    assert host.settled(10)
    host.reload(settings={"a": [2]})
    assert host.settled(10)
    assert "plugin.a in the config must be a map of settings, not list" in entry(host, "a")["error"]
    host.reload(sources=[])
    assert host.settled(10)
    assert host.status() == []
    assert fleet.seen == [{"x": 1}, {"x": 2}]


def test_settings_for_nobody_are_pointed_out(fleet: Any, caplog: pytest.LogCaptureFixture) -> None:
    fleet.write("a.py", "class A(Plugin): pass")
    with caplog.at_level(logging.WARNING):
        fleet.run(settings={"aa": {}})
    fields = [record.fields for record in caplog.records if "not loaded" in record.message]
    assert fields == [{"plugin": "aa", "loaded": "a"}]


# -- the host's client -----------------------------------------------------------------------------


def test_a_connection_that_fails_is_tried_again(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tega_zmq.plugins.host.backoff", lambda *_: 0.01)
    fleet.write("net.py", NET)
    ready = threading.Event()

    def connect(kind: str) -> Any:
        assert kind == "plugin"
        if not ready.is_set():
            raise Offline("not there yet")
        return fleet.node

    host = fleet.host(connect=connect)
    host.start()
    fleet.until(lambda: host.status() and "not there yet" in (host.status()[0]["error"] or ""))
    ready.set()
    assert host.settled(10)
    fleet.until(lambda: fleet.node.handlers)


def test_reports_are_sent_again_after_a_reconnect_and_after_errors(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tega_zmq.plugins.host.backoff", lambda *_: 0.01)
    fleet.write("a.py", "class A(Plugin): pass")
    fleet.node.broken = Offline("away")
    host = fleet.run()
    fleet.node.broken = None
    fleet.until(lambda: fleet.node.reports)
    expected = {
        "name": "a",
        "source": entry(host, "a")["source"],
        "state": "running",
        "error": None,
        "handlers": [],
    }
    fleet.until(lambda: fleet.node.reports[-1] == ("plugins", [expected]))
    count = len(fleet.node.reports)
    fleet.node.tell_state("connected")
    fleet.until(lambda: len(fleet.node.reports) > count)
    assert fleet.node.reports[-1] == ("plugins", [expected])


def test_stop_before_start_and_twice(fleet: Any) -> None:
    host = fleet.host()
    assert host.stop(1)
    host.start()
    assert host.stop(1)
    assert host.stopped


def test_a_report_that_would_be_too_large_is_cut(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tega_zmq.plugins.host.MAX_REPORT", 2000)
    handlers = "".join(f'    @rpc("a.n{n}")\n    def n{n}(self): pass\n' for n in range(100))
    fleet.write("a.py", "class A(Plugin):\n" + handlers)
    fleet.run()
    fleet.until(lambda: len(fleet.node.handlers) == 100)
    fleet.until(lambda: fleet.node.reports)
    assert fleet.node.reports[-1][1][0]["left_out"] == 100
    assert fleet.node.reports[-1][1][0]["handlers"] == []


def test_a_host_that_is_displaced_says_so_and_comes_back_by_a_reload(fleet: Any) -> None:
    fleet.write("net.py", NET)
    connections = []

    def connect(kind: str) -> Any:
        connections.append(kind)
        return fleet.node

    host = fleet.run(connect=connect)
    fleet.until(lambda: fleet.node.handlers)
    version = fleet.node.commit(PATH, 1)
    applied(fleet, host, "net", version)
    reports = len(fleet.node.reports)
    fleet.node.tell_state("taken over")
    fleet.node.handlers.clear()
    [shown] = host.status()
    assert shown["state"] == "failed"
    assert "another program said hello to this node as pi1" in shown["error"]
    assert connections == ["plugin"]
    host.reload()
    assert host.settled(10)
    assert connections == ["plugin", "plugin"]
    assert entry(host, "net")["state"] == "running"
    fleet.until(lambda: fleet.node.handlers)
    fleet.until(lambda: len(fleet.node.reports) > reports)
    assert len(fleet.seen) == 1
    assert host.stop(5)


# -- sources ---------------------------------------------------------------------------------------


def test_a_source_that_is_not_there_shows_with_what_to_do(
    fleet: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.write("net.py", NET)
    missing = str(tmp_path / "missing")
    with caplog.at_level(logging.ERROR):
        host = fleet.run(missing, "no_such_module", str(fleet.folder))
    states = {each["name"]: (each["state"], each["error"]) for each in host.status()}
    assert states["net"] == ("running", None)
    assert states[missing][0] == states["no_such_module"][0] == "failed"
    assert "make it, or take" in states[missing][1]
    assert "install the distribution that has it" in states["no_such_module"][1]
    logged = [record for record in caplog.records if record.message == "plugins cannot be loaded"]
    assert [record.fields for record in logged] == [{"source": missing}, {"source": "no_such_module"}]
    errors = [record.exc_info[1] for record in logged if record.exc_info]
    assert [type(error) for error in errors] == [FileNotFoundError, ModuleNotFoundError]


def test_a_folder_that_cannot_be_read_for_a_while_keeps_its_plugins(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run()
    fleet.until(lambda: fleet.node.handlers)
    away = fleet.folder.rename(fleet.folder.with_name("away"))
    host.reload()
    assert host.settled(10)
    assert sorted(each["state"] for each in host.status()) == ["failed", "running"]
    assert fleet.node.handlers
    away.rename(fleet.folder)
    host.reload()
    assert host.settled(10)
    assert [each["state"] for each in host.status()] == ["running"]


def test_a_source_that_is_named_twice_is_loaded_once(fleet: Any) -> None:
    fleet.write("net.py", NET)
    host = fleet.run(f"{fleet.folder}/", str(fleet.folder))
    assert [each["state"] for each in host.status()] == ["running"]
