"""The blocking client against a small node on a real socket."""

from __future__ import annotations

import gc
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tega_zmq
from tega_zmq import Cont, connect, errors
from tega_zmq.client import notices
from tega_zmq.client.blocking import Client
from tega_zmq.wire import messages as m
from tests.fake_node import FakeNode


@pytest.fixture
def tega(node: FakeNode) -> Iterator[Client]:
    with connect(node.url, "noc-1") as client:
        quicken(client)
        yield client


def quicken(client: Client) -> None:
    """Let it dial again soon."""
    client._driver.engine.session.redial_first = 0.02
    client._driver.engine.session.redial_longest = 0.1


def states(client: Client) -> queue.SimpleQueue[str]:
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()
    client.on_state(seen.put)
    return seen


def until(seen: queue.SimpleQueue[str], state: str) -> list[str]:
    """Return the states up to and with `state`."""
    found = [seen.get(timeout=20)]
    while found[-1] != state:
        found.append(seen.get(timeout=20))
    return found


def test_callbacks_are_waited_for(node: FakeNode, tega: Client) -> None:
    told: list[int] = []
    go_on = threading.Event()

    def slow(message: Any) -> None:
        go_on.wait(20)
        told.append(message.value)

    tega.listen("c", slow)
    with connect(node.url, "talker") as talker:
        for n in range(20):
            talker.publish("c", n)
    with pytest.raises(errors.Timeout, match=r"callbacks were not done within 0\.1 seconds"):
        tega.catch_up(timeout=0.1)
    threading.Timer(0.1, go_on.set).start()
    tega.catch_up()
    assert told == list(range(20))


# -- the methods -----------------------------------------------------------------------------------


def test_reading_and_writing(node: FakeNode, tega: Client) -> None:
    assert (tega.tega_id, tega.state, tega.url, tega.server) == ("noc-1", "connected", node.url, "fake")
    assert repr(tega) == f"<Client noc-1 at {node.url}: connected>"
    committed = tega.put("a.b", {"c": (1, 2)}, message="why")
    assert committed.version == 1
    assert node.came(m.Write)[0].message == "why"
    assert tega.get("a.b") == {"c": [1, 2]}
    assert tega.node(("a", "b")).version == 1
    assert tega.cont("a.b") == {"c": [1, 2]}
    tega.patch("a.b", {"c": None})
    tega.put("a.b", 5, version=2)
    with pytest.raises(errors.Collision) as caught:
        tega.put("a.b", 6, version=0)
    assert (caught.value.expected, caught.value.actual) == (0, 3)
    with pytest.raises(errors.InvalidValue, match="leaf"):
        tega.cont("a.b")
    tega.delete("a.b", version=3)
    with pytest.raises(errors.NotFound) as missing:
        tega.get("a.b")
    assert missing.value.path == "a.b"
    assert tega.get("a.b", None) is None
    tega.rollback("a", -1)
    assert node.came(m.Write)[-1].ops == (("rollback", ("a",), -1, None, False),)
    tree = Cont("a")
    tree.d.e = 1
    tega.put(tree.d)
    assert tega.get("a.d") == {"e": 1}
    tega.patch(tree)
    assert node.came(m.Write)[-1].ops == (("patch", ("a",), {"d": {"e": 1}}, None, False),)


def test_the_rest_of_the_methods(node: FakeNode, tega: Client) -> None:
    node.script[m.Get] = lambda _peer, get: [[{"_version": get.version}, None]]
    assert tega.attributes("a", version=-1) == {"_version": -1}
    assert tega.find(r"a\.(.*)")[0].groups == (("b",),)
    assert tega.log("a", 5)[0].message == "why"
    assert node.came(m.Log)[0].limit == 5
    assert tega.diff("a", 1, 2)[0].created
    assert tega.diff("a", other_path="b")[0].path == "b"
    assert tega.roots() == {"what": "roots"}
    assert tega.inspect("status") == {"what": "status"}
    assert tega.manage("disown", "ops-pi1") == {"what": "disown", "argument": "ops-pi1"}
    tega.report("plugin.net", {"version": 3})
    assert node.came(m.Report)[0].value == {"version": 3}
    outcomes = tega.call_all("a.f", 1)
    assert outcomes["a.f", "pi1"] == [1]
    assert isinstance(outcomes["a.f", "pi2"], errors.HandlerGone)


def test_transactions(node: FakeNode, tega: Client) -> None:
    with tega.transaction(message="jumbo frames") as tx:
        tx.put("a.b", 1, version="absent")
        tx.patch("a", {"c": 2})
        tx.delete("a.d")
        assert tx.get("a.b", "nothing yet") == "nothing yet"
        assert tx.find("a")[0].path == "a.b"
        assert tx.candidate().roots == {"a": {"b": 1}}
    assert [write.txid for write in node.came(m.Write)] == ["tx-1"] * 3
    assert node.came(m.Get)[0].txid == "tx-1"
    assert node.came(m.CommitTransaction)[0].message == "jumbo frames"
    with pytest.raises(KeyError), tega.transaction() as tx:
        raise KeyError
    assert len(node.came(m.CancelTransaction)) == 1
    tx = tega.begin("first")
    assert tx.commit("second").version == 3
    assert tx.ended
    assert node.came(m.CommitTransaction)[-1].message == "second"
    with tega.transaction() as tx:
        tx.cancel()
    with pytest.raises(KeyError), tega.transaction() as tx:
        tx.cancel()
        raise KeyError
    assert len(node.came(m.CommitTransaction)) == 2
    assert len(node.came(m.CancelTransaction)) == 3


def test_a_wrong_argument_is_said_before_anything_is_sent(node: FakeNode, tega: Client) -> None:
    async def later(_argument: Any) -> None: ...

    for wrong in (
        lambda: tega.put("a.b", {1, 2}),
        lambda: tega.put("a.b", {"x": object()}),
        lambda: tega.put("a.b", 2**64),
        lambda: tega.put("a.b", "\ud800"),
        lambda: tega.get("a", timeout=0),
        lambda: tega.call("a.f", print),
        lambda: tega.subscribe("a", print, "everywhere"),
        lambda: tega.publish(5, 1),  # type: ignore[arg-type]
        lambda: tega.publish("c", float("nan")),
        lambda: tega.subscribe("a", 5),  # type: ignore[arg-type]
        lambda: tega.subscribe("a", later),
        lambda: tega.listen("c", None, regex=True),  # type: ignore[arg-type]
        lambda: tega.register("a.f", 5),  # type: ignore[arg-type]
        lambda: tega.register("a.f", later),
        lambda: tega.on_state("x"),  # type: ignore[arg-type, func-returns-value]
        lambda: tega.on_dropped(5),  # type: ignore[arg-type, func-returns-value]
        lambda: tega.on_expired(later),  # type: ignore[func-returns-value]
    ):
        with pytest.raises(errors.InvalidValue):
            wrong()
    for path in ("", "a..b", "_x", 5, None):
        with pytest.raises(errors.InvalidPath):
            tega.get(path)  # type: ignore[arg-type]
    with pytest.raises(errors.TooLarge):
        tega.put("a.b", "x" * 9_000_000)
    assert [type(each) for each in node.log] == [m.Hello]


def test_threads_share_a_client(tega: Client) -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for at in range(50):
            tega.put(f"a.t{number}", at)
            if tega.get(f"a.t{number}") != at:
                wrong.append((number, at))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_ipc(tmp_path: Path) -> None:
    with FakeNode(f"ipc://{tmp_path}/node.sock") as node, connect(node.url) as tega:
        assert tega.put("a", {}).version == 1
        assert tega.tega_id.endswith(tuple("0123456789abcdef"))


# -- changes, messages, calls ----------------------------------------------------------------------


def test_changes_come_in_order_and_callbacks_may_use_the_client(node: FakeNode, tega: Client) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def on_change(change: Any) -> None:
        if change.new == 2:
            raise KeyError("a callback that raises harms nobody")
        seen.put((change.path, change.old, tega.get(change.path), threading.current_thread().name))

    subscription = tega.subscribe("a", on_change, scope="global")
    assert node.came(m.Subscribe)[0].scope == "global"
    for value in (1, 2, 3):
        node.do(lambda value=value: node.commit(("a", "b"), value))
    first, second = seen.get(timeout=20), seen.get(timeout=20)
    assert first[:2] == ("a.b", None)
    assert second[:3] == ("a.b", 2, 3)
    assert first[3] == "tega-noc-1"
    subscription.cancel()
    with pytest.raises(errors.NotFound):
        tega.unsubscribe(subscription.number)
    with tega.subscribe("a.*", print, regex=True):
        assert node.came(m.SubscribeRegex)[0].regex == "a.*"
    assert len(node.came(m.Unsubscribe)) == 2


def test_messages(tega: Client) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with tega.listen("alerts", seen.put):
        assert tega.publish("alerts", {"level": 3}) == 1
        message = seen.get(timeout=20)
        assert (message.channel, message.value, message.tega_id) == ("alerts", {"level": 3}, "x")


def test_calls(node: FakeNode, tega: Client) -> None:
    results: dict[str, Any] = {"zero": 0, "empty": "", "no": False, "none": None}
    tega.register("tools.give", results.get)
    for name, result in results.items():
        assert tega.call("tools.give", name) is result
    tega.register("tools.add", lambda a, b: a + b)
    assert tega.call("tools.add", 1, b=2, timeout=5) == 3
    with pytest.raises(errors.HandlerError, match="ZeroDivisionError") as caught:
        tega.register("tools.div", lambda: 1 / 0)
        tega.call("tools.div")
    assert caught.value.type == "ZeroDivisionError"
    tega.register("tools.bad", object)
    with pytest.raises(errors.HandlerError, match="object cannot be sent"):
        tega.call("tools.bad")
    tega.register("tools.exit", sys.exit)
    with pytest.raises(errors.HandlerError, match="SystemExit"):
        tega.call("tools.exit")
    with pytest.raises(errors.NoHandler):
        tega.call("tools.none")
    tega.unregister("tools.add")
    with pytest.raises(errors.NotFound):
        tega.unregister("tools.add")


def test_handlers_whose_errors_cannot_say_anything_cost_no_thread(node: FakeNode, tega: Client) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    def fail() -> None:
        raise Mute

    tega.register("tools.fail", fail)
    tega.register("tools.quick", lambda: "quick")
    with ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(tega.call, "tools.fail") for _ in range(80)]
        for call in calls:
            with pytest.raises(errors.HandlerError, match="its message cannot be read") as caught:
                call.result(30)
            assert caught.value.type == "Mute"
    assert tega.call("tools.quick") == "quick"


def test_a_handler_that_hangs_holds_up_nobody(tega: Client) -> None:
    stuck = threading.Event()
    tega.register("tools.hang", stuck.wait)
    tega.register("tools.nested", lambda: tega.call("tools.quick"))
    tega.register("tools.quick", lambda: "quick")
    with pytest.raises(errors.Timeout):
        tega.call("tools.hang", timeout=0.05)
    assert tega.call("tools.nested") == "quick"
    stuck.set()


def test_a_handler_that_was_quick_may_hang_the_next_time(tega: Client) -> None:
    """Threads watch for it: see `client/crew.py`."""
    go = threading.Event()
    tega.register("wait", lambda for_it: for_it and go.wait(30))
    tega.register("go", go.set)
    answers: list[object] = []
    for times in range(3):
        go.clear()
        for _ in range(20):
            assert tega.call("wait", False) is False
        waiting = threading.Thread(target=lambda: answers.append(tega.call("wait", True)))
        waiting.start()
        tega.call("go")
        waiting.join(30)
        assert answers == [True] * (times + 1)


def test_a_callback_that_blocks_costs_bounded_memory(
    node: FakeNode, tega: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "MAX_MESSAGES", 10)
    monkeypatch.setattr(notices, "MAX_CHANGES", 10)
    blocked, began = threading.Event(), threading.Event()
    messages: list[Any] = []
    dropped: list[int] = []
    versions: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def on_message(message: Any) -> None:
        began.set()
        blocked.wait()
        messages.append(message.value)

    tega.on_dropped(dropped.append)
    tega.listen("c", on_message)
    tega.subscribe("a", lambda change: versions.put((change.version, change.reset)))
    for number in range(60):
        tega.publish("c", number)
        if number == 0:
            assert began.wait(20)
    for number in range(60):
        node.do(lambda number=number: node.commit(("a", "b"), number))
    tega.publish("c", "last")
    assert tega._driver._notices.count <= 25
    blocked.set()
    last, reset = versions.get(timeout=20)
    while last != 60:
        last, reset = versions.get(timeout=20)
    assert reset, "what there was no room for was asked for again"
    assert messages[0] == 0
    assert messages[-1] == "last"
    assert len(messages) + sum(dropped) == 61


# -- connections come and go -----------------------------------------------------------------------


def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.Disconnected, match=url) as caught:
            connect(url, timeout=0.2)
    assert caught.value.outcome == "none"
    for url in ("http://127.0.0.1:1", "127.0.0.1:8740"):
        with pytest.raises(errors.InvalidValue):
            connect(url)
    with pytest.raises(errors.InvalidValue, match="tega_id"):
        connect("tcp://127.0.0.1:8740", "no good")
    with pytest.raises(errors.InvalidValue, match="timeout"):
        connect("tcp://127.0.0.1:8740", timeout=0)


def test_a_url_that_zmq_does_not_take() -> None:
    with pytest.raises(errors.Disconnected):
        connect("ipc:///nowhere/at/all.sock", timeout=0.2)


def test_the_node_refuses(node: FakeNode) -> None:
    node.script[m.Hello] = lambda _peer, _hello: m.Refused(
        "Unauthorized", "who are you", {"tega_id": "noc-1"}
    )
    with pytest.raises(errors.Unauthorized, match="who are you") as caught:
        connect(node.url, "noc-1")
    assert caught.value.tega_id == "noc-1"


def test_a_session_is_resumed(node: FakeNode, tega: Client) -> None:
    seen = states(tega)
    changes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    tega.subscribe("a", changes.put)
    node.script[m.Call] = lambda _peer, _call: None
    node.script[m.Write] = lambda _peer, _write: None
    call, write = Asked(lambda: tega.call("a.f", timeout=60)), Asked(lambda: tega.put("a.b", 1, timeout=60))
    node.wait_for(lambda: bool(node.came(m.Call) and node.came(m.Write)))
    node.stop()
    with pytest.raises(errors.Disconnected) as caught:
        call.result()
    assert caught.value.outcome == "unknown"
    assert until(seen, "suspended") == ["suspended"]
    waiting = Asked(lambda: tega.get("a.c", timeout=60))
    node.version, node.tree = 5, {("a", "c"): "meanwhile"}
    del node.script[m.Write]
    node.start()
    assert until(seen, "connected") == ["connected"]
    assert waiting.result() == "meanwhile"
    assert write.result().version == 6
    first, again = node.came(m.Write)
    assert first.id == again.id
    assert len(node.came(m.Call)) == 1
    change = changes.get(timeout=20)
    while not change.reset:
        change = changes.get(timeout=20)
    assert change.new == "meanwhile"
    assert node.came(m.Hello)[-1].session == "session-1"


def test_a_new_session_gets_everything_again(node: FakeNode, tega: Client) -> None:
    seen = states(tega)
    changes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    tega.subscribe("a", changes.put)
    tega.listen("c", print)
    tega.register("a.f", lambda: "here")
    tega.put("presence.noc-1", {"since": 1}, ephemeral=True)
    tega.put("presence.gone", 1, ephemeral=True)
    tega.delete("presence.gone")
    before = len(node.log)
    node.stop()
    node.forget()
    node.start()
    assert until(seen, "connected") == ["suspended", "lost", "connected"]
    node.wait_for(lambda: len(node.handlers) == len(node.listens) == len(node.subscriptions) == 1)
    again = [each for each in node.log[before:] if isinstance(each, m.Write)]
    assert [write.ops for write in again] == [(("put", ("presence", "noc-1"), {"since": 1}, None, True),)]
    assert tega.call("a.f") == "here"
    node.do(lambda: node.commit(("a", "b"), 9))
    assert changes.get(timeout=20).new == 9


def test_a_client_that_was_taken_over_stays_away(node: FakeNode, tega: Client) -> None:
    seen = states(tega)
    node.script[m.Get] = lambda _peer, _get: None
    waiting = Asked(lambda: tega.get("a", timeout=60))
    node.wait_for(lambda: bool(node.came(m.Get)))
    node.everyone(m.Displaced("noc-1"))
    assert until(seen, "taken over") == ["taken over"]
    with pytest.raises(errors.TakenOver):
        waiting.result()
    with pytest.raises(errors.TakenOver, match="noc-1"):
        tega.get("a")
    assert len(node.came(m.Hello)) == 1


def test_a_node_that_falls_silent_is_dialled_again() -> None:
    with FakeNode(heartbeat=0.05) as node, connect(node.url, "noc-1") as tega:
        quicken(tega)
        seen = states(tega)
        node.wait_for(lambda: len(node.came(m.Heartbeat)) >= 3)
        assert tega.state == "connected"
        node.script[m.Heartbeat] = lambda _peer, _beat: None
        node.wait_for(lambda: len(node.came(m.Hello)) >= 2)
        del node.script[m.Heartbeat]
        assert until(seen, "connected")[-2:] == ["suspended", "connected"]


def test_gone_is_answered_with_hello(node: FakeNode, tega: Client) -> None:
    seen = states(tega)
    node.everyone(m.Gone())
    assert until(seen, "connected") == ["suspended", "connected"]
    assert tega.put("a", {}).version == 1


def test_what_never_left_says_so(node: FakeNode, tega: Client) -> None:
    seen = states(tega)
    node.stop()
    until(seen, "suspended")
    with pytest.raises(errors.Timeout) as caught:
        tega.put("a.b", 1, timeout=0.05)
    assert caught.value.outcome == "none"
    node.start()


def test_a_message_of_several_frames_is_ignored(node: FakeNode, tega: Client) -> None:
    def several() -> None:
        for peer in node.peers.values():
            node.socket.send_multipart([peer, b"one", b"two"])

    node.do(several)
    assert tega.put("a", {}).version == 1


# -- ends ------------------------------------------------------------------------------------------


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_close_leaves_nothing(node: FakeNode) -> None:
    connect(node.url).close()
    gc.collect()
    before, threads = descriptors(), set(threading.enumerate())
    client = connect(node.url)
    client.subscribe("a", print)
    client.register("a.f", lambda: 1)
    client.call("a.f")
    client.on_state(print)
    node.do(lambda: node.commit(("a", "b"), 1))
    client.close()
    client.close()
    assert set(threading.enumerate()) == threads
    assert descriptors() == before
    assert client.state == "closed"
    assert node.came(m.Bye)
    with pytest.raises(errors.Disconnected, match="closed"):
        client.get("a")
    with pytest.raises(errors.Disconnected, match="closed"):
        client.subscribe("a", print)


def test_a_failed_connect_leaves_nothing() -> None:
    gc.collect()
    before, threads = descriptors(), set(threading.enumerate())
    with pytest.raises(errors.Disconnected):
        connect("tcp://127.0.0.1:1", timeout=0.1)
    assert set(threading.enumerate()) == threads
    assert descriptors() == before


def test_close_from_a_callback_and_from_a_handler(node: FakeNode) -> None:
    for how in ("callback", "handler"):
        client = connect(node.url)
        closed = threading.Event()

        def close(_argument: Any = None, client: Client = client, closed: threading.Event = closed) -> None:
            client.close()
            closed.set()

        if how == "callback":
            client.listen("c", close)
            node.everyone(m.Message((1,), "c", "x", 1))
        else:
            client.register("a.f", close)
            with pytest.raises(errors.Disconnected):
                client.call("a.f")
        assert closed.wait(20)
        assert client.state == "closed"


def test_close_while_others_wait(node: FakeNode, tega: Client) -> None:
    node.script[m.Get] = lambda _peer, _get: None
    waiting = [Asked(lambda: tega.get("a", timeout=60)) for _ in range(5)]
    node.wait_for(lambda: len(node.came(m.Get)) == 5)
    tega.close()
    for each in waiting:
        with pytest.raises(errors.Disconnected) as caught:
            each.result()
        assert caught.value.outcome == "unknown"


def test_an_interrupted_call_is_given_up(node: FakeNode, tega: Client) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(_number: int, _frame: Any) -> None:
        raise Interrupt

    sent: list[int] = []

    def on_call(_peer: bytes, call: Any) -> None:
        # Who was interrupted right after it sent something sends that again, which changes nothing.
        if not sent:
            sent.append(call.id)
            os.kill(os.getpid(), signal.SIGUSR1)

    node.script[m.Call] = on_call
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupt):
            tega.call("a.f", timeout=60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    node.wait_for(lambda: bool(node.came(m.CancelCall)))
    assert node.came(m.CancelCall)[0].call == node.came(m.Call)[0].id


def test_a_fork_cannot_use_its_parents_client(node: FakeNode, tega: Client) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            tega.get("a")
        except errors.Disconnected as error:
            os.write(write, str(error).encode())
        finally:
            tega.close()
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "fork" in pipe.read()
    assert tega.put("a", {}).version == 1


def test_a_program_that_forgets_to_close_ends(node: FakeNode) -> None:
    program = (
        "import sys, threading, tega_zmq\n"
        "tega = tega_zmq.connect(sys.argv[1])\n"
        "tega.put('a', {})\n"
        "tega.subscribe('a', print)\n"
        "tega.register('a.hang', threading.Event().wait)\n"
        "threading.Thread(target=lambda: tega.call('a.hang'), daemon=True).start()\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, node.url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_importing_the_package_is_cheap() -> None:
    program = (
        "import sys, tega_zmq\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in "
        "('zmq', 'msgpack', 'rpds', 'asyncio', 'yaml', 'socket')))\n"
        "tega_zmq.NotFound, tega_zmq.Cont, tega_zmq.connect\n"
        "print('zmq' in sys.modules, 'asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "[]"


def test_the_names_of_the_package() -> None:
    assert tega_zmq.Timeout is errors.Timeout
    assert {"connect", "Cont", "Plugin", "Change", "Collision"} <= set(dir(tega_zmq))
    with pytest.raises(AttributeError, match="nothing_like_that"):
        tega_zmq.nothing_like_that  # noqa: B018
    for name in (cls.__name__ for cls in errors.TegaError.__subclasses__()):
        if name in errors.__all__:
            assert getattr(tega_zmq, name) is getattr(errors, name)


class Asked:
    """Something that is asked in a thread of its own."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def run() -> None:
            try:
                self._outcome.put((ask(), None))
            except errors.TegaError as error:
                self._outcome.put((None, error))

        threading.Thread(target=run, daemon=True).start()

    def result(self) -> Any:
        value, error = self._outcome.get(timeout=20)
        if error is not None:
            raise error
        return value
