"""The asyncio client against a small node on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tega_zmq import Cont, errors
from tega_zmq.aio import Client, connect
from tega_zmq.wire import messages as m
from tests.fake_node import FakeNode


def run(story: Callable[[Client], Awaitable[None]], node: FakeNode) -> None:
    async def main() -> None:
        async with connect(node.url, "noc-1") as tega:
            tega._driver.engine.session.redial_first = 0.02
            await story(tega)

    asyncio.run(asyncio.wait_for(main(), 60))


async def until(found: Callable[[], Any]) -> None:
    """Wait until the node has come so far."""
    while not found():  # what is waited for happens in another thread
        await asyncio.sleep(0.001)


def test_reading_and_writing(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        assert (tega.tega_id, tega.state, tega.url, tega.server) == ("noc-1", "connected", node.url, "fake")
        assert repr(tega) == f"<Client noc-1 at {node.url}: connected>"
        assert (await tega.put("a.b", {"c": (1, 2)}, message="why")).version == 1
        assert await tega.get("a.b") == {"c": [1, 2]}
        assert (await tega.node("a.b")).version == 1
        assert await tega.cont("a.b") == {"c": [1, 2]}
        await tega.patch("a.b", {"c": None})
        await tega.put(Cont("a.b", {"d": 1}), version=2)
        with pytest.raises(errors.Collision):
            await tega.put("a.b", 6, version=0)
        await tega.delete("a.b", version=3)
        with pytest.raises(errors.NotFound):
            await tega.get("a.b")
        assert await tega.get("a.b", None) is None
        await tega.put("a.b", 1)
        with pytest.raises(errors.InvalidValue, match="leaf"):
            await tega.cont("a.b")
        await tega.rollback("a", -1)
        for wrong in (tega.put("a.b", {1}), tega.get("a", timeout=0), tega.call("f", print)):
            with pytest.raises(errors.InvalidValue):
                await wrong
        with pytest.raises(errors.TooLarge):
            await tega.put("a.b", "x" * 9_000_000)

    run(story, node)
    assert node.came(m.Bye)


def test_the_rest_of_the_methods(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        assert (await tega.find("a"))[0].groups == (("b",),)
        assert (await tega.log("a", 5))[0].message == "why"
        assert (await tega.diff("a", 1, 2))[0].created
        assert await tega.roots() == {"what": "roots"}
        assert (await tega.manage("disown", "a"))["argument"] == "a"
        await tega.report("plugin.net", 1)
        assert (await tega.call_all("a.f", 1))["a.f", "pi1"] == [1]
        node.script[m.Get] = lambda _peer, get: [[{"_version": get.version}, None]]
        assert await tega.attributes("a", version=-1) == {"_version": -1}

    run(story, node)


def test_transactions(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        async with tega.transaction(message="jumbo frames") as tx:
            await tx.put("a.b", 1, version="absent")
            await tx.patch("a", {"c": 2})
            await tx.delete("a.d")
            assert await tx.get("a.b", "nothing yet") == "nothing yet"
            assert (await tx.find("a"))[0].path == "a.b"
            assert (await tx.candidate()).roots == {"a": {"b": 1}}
        assert [write.txid for write in node.came(m.Write)] == ["tx-1"] * 3
        assert node.came(m.CommitTransaction)[0].message == "jumbo frames"
        with pytest.raises(KeyError):
            async with tega.transaction():
                raise KeyError
        assert len(node.came(m.CancelTransaction)) == 1
        tx = await tega.begin()
        assert (await tx.commit("second")).version == 3

    run(story, node)


def test_many_tasks_share_a_client(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        async def work(number: int) -> None:
            for at in range(20):
                await tega.put(f"a.t{number}", at)
                assert await tega.get(f"a.t{number}") == at

        await asyncio.gather(*(work(number) for number in range(64)))

    run(story, node)


def test_callbacks_are_plain_or_coroutines_and_in_order(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        seen: list[Any] = []

        async def on_change(change: Any) -> None:
            if change.new == 2:
                raise KeyError("a callback that raises harms nobody")
            seen.append((change.new, await tega.get("a.b")))

        subscription = await tega.subscribe("a", on_change)
        await tega.listen("c", lambda message: seen.append(message.value))
        for value in (1, 2, 3):
            await asyncio.to_thread(node.do, lambda value=value: node.commit(("a", "b"), value))
        await tega.publish("c", "message")
        await until(lambda: len(seen) == 3)
        assert [new for new, _ in seen[:2]] == [1, 3]
        assert seen[2] == "message"
        await subscription.cancel()
        with pytest.raises(errors.NotFound):
            await tega.unsubscribe(subscription)
        async with await tega.subscribe("a.*", print, regex=True):
            assert node.came(m.SubscribeRegex)

    run(story, node)


def test_handlers(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        stuck = threading.Event()

        async def nested(value: Any) -> Any:
            return await tega.call("tools.plain", value)

        async def slow() -> None:
            await asyncio.sleep(60)

        await tega.register("tools.plain", lambda value: value)
        await tega.register("tools.nested", nested)
        await tega.register("tools.slow", slow)
        await tega.register("tools.hang", stuck.wait)
        hanging = asyncio.create_task(tega.call("tools.hang"))
        for value in (0, "", False, None):
            assert await tega.call("tools.plain", value) is value
            assert await tega.call("tools.nested", value=value) is value
        with pytest.raises(errors.HandlerError, match="missing 1 required"):
            await tega.call("tools.nested")
        with pytest.raises(errors.HandlerError, match="missing 1 required"):
            await tega.call("tools.plain")
        # The handler is stopped when nobody waits any more.
        with pytest.raises((errors.Timeout, errors.HandlerError)):
            await tega.call("tools.slow", timeout=0.05)
        with pytest.raises(errors.NoHandler):
            await tega.call("tools.none")
        await tega.unregister("tools.plain")
        stuck.set()
        assert await hanging is True

    run(story, node)


def test_what_is_no_function_is_refused_before_anything_is_sent(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        wrong: Any = 5
        for asked in (
            tega.subscribe("a", wrong),
            tega.subscribe("a", wrong, regex=True),
            tega.listen("c", wrong),
            tega.register("a.f", wrong),
        ):
            with pytest.raises(errors.InvalidValue, match="must be a function, not int"):
                await asked
        for tell in (tega.on_state, tega.on_dropped, tega.on_expired):
            with pytest.raises(errors.InvalidValue, match="must be a function, not int"):
                tell(wrong)
        assert [type(each) for each in node.log] == [m.Hello]

    run(story, node)


def test_whatever_a_handler_raises_reaches_its_caller(node: FakeNode) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    async def story(tega: Client) -> None:
        def plain(error: type[BaseException]) -> Callable[[], None]:
            def handler() -> None:
                raise error

            return handler

        def coroutine(error: type[BaseException]) -> Callable[[], Awaitable[None]]:
            async def handler() -> None:
                raise error

            return handler

        async def awaits_what_is_cancelled() -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        for error in (Mute, asyncio.CancelledError, SystemExit, GeneratorExit):
            for made in (plain(error), coroutine(error)):
                if error is GeneratorExit and asyncio.iscoroutinefunction(made):
                    continue  # that is how a loop ends a coroutine that it is done with
                await tega.register("a.f", made)
                with pytest.raises(errors.HandlerError) as caught:
                    await tega.call("a.f")
                assert caught.value.type == error.__name__
        await tega.register("a.f", awaits_what_is_cancelled)
        with pytest.raises(errors.HandlerError, match="CancelledError"):
            await tega.call("a.f")

    run(story, node)


def test_a_handler_that_nobody_waits_for_is_cancelled(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        began = asyncio.Event()
        ends: list[str] = []

        async def handler(name: str) -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append(name)
                raise

        await tega.register("a.f", handler)
        calls = []
        for name in ("first", "second"):
            began.clear()
            calls.append(asyncio.create_task(tega.call("a.f", name)))
            await began.wait()
        node.everyone(m.Abandon(7))  # of which it knows nothing
        node.everyone(m.Abandon(2))
        await until(lambda: ends)
        assert ends == ["second"]
        node.everyone(m.Abandon(1))
        await until(lambda: len(ends) == 2)
        await until(lambda: not tega._driver._calls)
        assert not tega._driver._call_tasks
        assert not node.came(m.Result)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)

    run(story, node)


def test_a_callback_that_ends_in_a_cancellation_harms_nobody(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        seen: list[Any] = []

        async def on_change(change: Any) -> None:
            seen.append(change.new)
            if change.new == 1:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            if change.new == 2:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.Event().wait()

        await tega.subscribe("a", on_change)
        for value in (1, 2, 3, 4):
            await asyncio.to_thread(node.do, lambda value=value: node.commit(("a", "b"), value))
            await until(lambda value=value: seen and seen[-1] == value)
        assert seen == [1, 2, 3, 4]

    run(story, node)


def test_a_cancelled_task_gives_its_call_up(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        node.script[m.Call] = lambda _peer, _call: None
        task = asyncio.create_task(tega.call("a.f"))
        await until(lambda: node.came(m.Call))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: node.came(m.CancelCall))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await tega.call("a.f")

    run(story, node)


def test_sessions_come_and_go(node: FakeNode) -> None:
    async def story(tega: Client) -> None:
        states: list[str] = []
        changes: list[Any] = []
        tega.on_state(states.append)
        tega.on_dropped(print)
        await tega.subscribe("a", changes.append)
        await tega.put("presence.noc-1", {}, ephemeral=True)
        await asyncio.to_thread(node.stop)
        await until(lambda: states == ["suspended"])
        with pytest.raises(errors.Timeout) as caught:
            await tega.get("a", timeout=0.02)
        assert caught.value.outcome == "none"
        waiting = asyncio.create_task(tega.get("a.b", timeout=60))
        node.tree[("a", "b")] = 1
        node.version += 1
        await asyncio.to_thread(node.start)
        assert await waiting == 1
        await until(lambda: changes)
        assert changes[0].reset
        assert tega.state == "connected"
        await asyncio.to_thread(node.stop)
        node.forget()
        await asyncio.to_thread(node.start)
        await until(lambda: states[-2:] == ["lost", "connected"])
        await until(lambda: [w.ops[0][4] for w in node.came(m.Write)] == [True, True])
        await asyncio.to_thread(node.everyone, m.Displaced("noc-1"))
        await until(lambda: states[-1] == "taken over")
        with pytest.raises(errors.TakenOver):
            await tega.get("a")

    run(story, node)


def test_nobody_answers_or_the_node_refuses(node: FakeNode) -> None:
    async def story() -> None:
        with pytest.raises(errors.Disconnected, match=r"tcp://127\.0\.0\.1:1 "):
            await connect("tcp://127.0.0.1:1", timeout=0.1)
        with pytest.raises(errors.Disconnected):
            await connect("ipc:///nowhere/at/all.sock", timeout=0.1)
        node.script[m.Hello] = lambda _peer, _hello: m.Refused("Unauthorized", "who are you", {})
        with pytest.raises(errors.Unauthorized):
            async with connect(node.url):
                pass
        for url in ("http://127.0.0.1:1", "nonsense"):
            with pytest.raises(errors.InvalidValue):
                connect(url)

    asyncio.run(story())


def test_close_leaves_nothing(node: FakeNode) -> None:
    async def story() -> None:
        for round_ in range(2):
            gc.collect()
            before, threads = sorted(os.listdir("/proc/self/fd")), threading.active_count()
            tasks = len(asyncio.all_tasks())
            tega = await connect(node.url)
            await tega.subscribe("a", print)
            await tega.register("a.f", lambda: 1)
            await tega.call("a.f")
            node.script[m.Get] = lambda _peer, _get: None
            waiting = asyncio.create_task(tega.get("a", timeout=60))
            await until(lambda: node.came(m.Get))
            await tega.close()
            await tega.close()
            with pytest.raises(errors.Disconnected):
                await waiting
            with pytest.raises(errors.Disconnected, match="closed"):
                await tega.get("a")
            if round_:  # the first starts a thread of the loop's own
                assert sorted(os.listdir("/proc/self/fd")) == before
                assert threading.active_count() == threads
            assert len(asyncio.all_tasks()) == tasks

    asyncio.run(asyncio.wait_for(story(), 60))


def test_close_from_a_callback(node: FakeNode) -> None:
    async def story() -> None:
        tasks = len(asyncio.all_tasks())
        tega = await connect(node.url)
        await tega.listen("c", lambda _message: tega.close())
        with contextlib.suppress(errors.Disconnected):  # the message may come before the answer
            await tega.publish("c", 1)
        await until(lambda: tega.state == "closed")
        await until(lambda: node.came(m.Bye))
        await until(lambda: len(asyncio.all_tasks()) == tasks)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_one_that_was_never_closed_is_let_go_by_the_collector(node: FakeNode) -> None:
    async def story() -> None:
        tega = await connect(node.url, "noc-1")
        await tega.put("a.b", 1)
        node.stop()
        for _ in range(20):  # what is sent to nobody must not be waited for
            tega._driver._outbox.append(b"x")

    asyncio.run(story())
    with pytest.warns(ResourceWarning, match="tega-noc-1 was never closed"):
        gc.collect()
