"""The clients of the benches: `python load.py ROLE URL ARGUMENT...` in a process of its own.

A role that measures prints one line of JSON. A role that others measure against prints `ready`, goes on until
its standard input is closed, and then prints its JSON. Times are of the clock that all processes of a host
share. `bare-` roles talk to the baseline, `tega-` roles are Tega's own clients, `raw-` roles speak Tega's
protocol with nothing around it: they show what the node can do where a Python client is the slower part.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgpack
import zmq
import zmq.asyncio

from tega_zmq.wire import bundle, decode, encode, messages, unbundle
from tests.bench.baseline import CALL, GET, OFFER, PUT, RESULT, WATCH

VALUE = "v" * 100
WARM = 0.3
"""Seconds before a rate is counted."""

now = time.perf_counter
pack, unpack = msgpack.packb, msgpack.unpackb


def percentiles(times: list[float], prefix: str = "") -> dict[str, float]:
    """Return in milliseconds the median, the 99th percentile and the longest."""
    times = sorted(times)
    at = [times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)], times[-1]]
    return {prefix + name: value * 1000 for name, value in zip(("p50", "p99", "max"), at, strict=True)}


def one_by_one(act: Callable[[int], Any], seconds: float) -> dict[str, float]:
    """Call `act` again and again; return rate and times."""
    number = 0
    end = now() + WARM
    while now() < end:
        act(number)
        number += 1
    times = []
    begin = before = now()
    end = begin + seconds
    while before < end:
        act(number)
        number += 1
        after = now()
        times.append(after - before)
        before = after
    return {"rate": len(times) / (before - begin), **percentiles(times)}


def windowed(
    send: Callable[[int], None],
    receive: Callable[[], int],
    poll: Callable[[], Any],
    window: int,
    seconds: float,
) -> dict[str, float]:
    """Keep `window` requests in flight. `receive` returns how many answers there were."""
    number = flying = done = 0
    begin = now() + WARM
    end = begin + seconds
    counted = None
    while (at := now()) < end:
        if counted is None and at >= begin:
            counted, begin = done, at
        while flying < window:
            send(number)
            number += 1
            flying += 1
        poll()
        answers = receive()
        flying -= answers
        done += answers
    return {"rate": (done - (counted or 0)) / (at - begin)}


async def tasks(act: Callable[[int], Awaitable[Any]], count: int, seconds: float) -> dict[str, float]:
    """Let `count` tasks call `act` again and again."""
    done = 0
    stop = False

    async def work(number: int) -> None:
        nonlocal done
        while not stop:
            await act(number)
            done += 1

    working = [asyncio.create_task(work(number)) for number in range(count)]
    await asyncio.sleep(WARM)
    before, begin = done, now()
    await asyncio.sleep(seconds)
    rate = (done - before) / (now() - begin)
    stop = True
    await asyncio.gather(*working)
    return {"rate": rate}


def ready_until_told() -> None:
    """Say that the role is ready, and wait for the end of standard input."""
    print("ready", flush=True)
    sys.stdin.read()


def ended() -> bool:
    """Whether standard input has ended."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def stamped(number: int) -> str:
    """Return a value of 100 characters that tells when it was made."""
    return f"{time.monotonic_ns()} {number} ".ljust(100, "v")


def age(value: str) -> float:
    """Return for how many seconds a value of `stamped` has been on its way."""
    return (time.monotonic_ns() - int(value.split(" ", 1)[0])) / 1e9


# -- the baseline's clients ------------------------------------------------------------------------


def dealer(url: str) -> zmq.Socket[Any]:
    """Return a connected DEALER."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.sndhwm = socket.rcvhwm = 0
    socket.linger = 0
    socket.connect(url)
    return socket


def drain(socket: zmq.Socket[Any]) -> list[bytes]:
    """Return the frames that are there."""
    frames = []
    try:
        while True:
            frames.append(socket.recv(zmq.DONTWAIT))
    except zmq.Again:
        return frames


def bare_one(url: str, seconds: str, op: int, key: str, value: Any) -> dict[str, float]:
    socket = dealer(url)

    def act(number: int) -> None:
        socket.send(pack((op, number, key, value)))
        assert unpack(socket.recv())[0] == number

    return one_by_one(act, float(seconds))


def bare_put(url: str, seconds: str) -> dict[str, float]:
    return bare_one(url, seconds, PUT, "bench.a.b", VALUE)


def bare_get(url: str, seconds: str) -> dict[str, float]:
    socket = dealer(url)
    socket.send(pack((PUT, 0, "bench.a.b", VALUE)))
    socket.recv()
    return bare_one(url, seconds, GET, "bench.a.b", None)


def bare_call(url: str, seconds: str) -> dict[str, float]:
    return bare_one(url, seconds, CALL, "bench.echo", VALUE)


def bare_many(url: str, seconds: str, window: str, op: int, key: str) -> dict[str, float]:
    socket = dealer(url)

    def send(number: int) -> None:
        socket.send(pack((op, number, key, VALUE)))

    def receive() -> int:
        return len([unpack(data) for data in drain(socket)])

    return windowed(send, receive, socket.poll, int(window), float(seconds))


def bare_puts(url: str, seconds: str, window: str) -> dict[str, float]:
    return bare_many(url, seconds, window, PUT, "bench.a.b")


def bare_calls(url: str, seconds: str, window: str) -> dict[str, float]:
    return bare_many(url, seconds, window, CALL, "bench.echo")


def bare_tasks(url: str, seconds: str, count: str, op: int, key: str) -> dict[str, float]:
    async def main() -> dict[str, float]:
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(url)
        waiting: dict[int, asyncio.Future[Any]] = {}
        last = 0

        async def read() -> None:
            while True:
                number, value = unpack(await socket.recv())
                waiting.pop(number).set_result(value)

        async def act(_: int) -> Any:
            nonlocal last
            last += 1
            future = waiting[last] = asyncio.get_running_loop().create_future()
            await socket.send(pack((op, last, key, VALUE)))
            return await future

        reader = asyncio.create_task(read())
        try:
            return await tasks(act, int(count), float(seconds))
        finally:
            reader.cancel()
            socket.close()
            context.term()

    return asyncio.run(main())


def bare_put_tasks(url: str, seconds: str, count: str) -> dict[str, float]:
    return bare_tasks(url, seconds, count, PUT, "bench.a.b")


def bare_call_tasks(url: str, seconds: str, count: str) -> dict[str, float]:
    return bare_tasks(url, seconds, count, CALL, "bench.echo")


def bare_handler(url: str) -> dict[str, float]:
    """Answer calls until told to stop."""
    socket = dealer(url)
    socket.send(pack((OFFER, 0, "bench.echo", None)))
    socket.recv()
    print("ready", flush=True)
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    while True:
        if any(source == sys.stdin.fileno() for source, _ in poller.poll()):
            return {}
        for data in drain(socket):
            number, path, value = unpack(data)
            socket.send(pack((RESULT, number, path, value)))


def bare_paced(url: str, count: str, pause: str) -> dict[str, float]:
    """Put stamped values with a pause between."""
    socket = dealer(url)
    for number in range(int(count)):
        socket.send(pack((PUT, number + 1, "bench.a.b", stamped(number))))
        socket.recv()
        time.sleep(float(pause))
    return {}


def bare_watch(url: str, count: str) -> dict[str, float]:
    """Be `count` watchers: how long until the last one has heard of a put."""
    sockets = [dealer(url) for _ in range(int(count))]
    for each in sockets:
        each.send(pack((WATCH, 1, "", None)))
        each.recv()
    poller = zmq.Poller()
    for each in sockets:
        poller.register(each, zmq.POLLIN)
    return watch(poller, lambda data: unpack(data)[1][1], int(count))


def watch(poller: zmq.Poller, value_of: Callable[[bytes], str | None], count: int) -> dict[str, float]:
    """Take the updates of many sockets in one loop until standard input ends."""
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    print("ready", flush=True)
    tally = Tally(count)
    while True:
        for source, _ in poller.poll():
            if source == sys.stdin.fileno():
                return percentiles(tally.times)
            for data in drain(source):
                value = value_of(data)
                if value is not None:
                    tally.came(value)


class Tally:
    """Counts who has heard of each value."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heard: dict[str, int] = {}
        self.times: list[float] = []

    def came(self, value: str) -> None:
        """One more has heard of `value`; with the last one the time is noted."""
        heard = self._heard.get(value, 0) + 1
        if heard == self._count:
            self.times.append(age(value))
            self._heard.pop(value, None)
        else:
            self._heard[value] = heard


# -- Tega's protocol with nothing around it --------------------------------------------------------


_CODE_OF = {cls: code for code, cls in messages.CODES.items()}
_REPLY = _CODE_OF[messages.Reply]
_REFUSALS = {_CODE_OF[cls] for cls in (messages.Failure, messages.Gone, messages.Refused)}


class Raw:
    """A session: its socket, and ids for requests. As bare as the clients of the baseline."""

    def __init__(self, url: str, tega_id: str) -> None:
        self.socket = dealer(url)
        self.socket.send(encode(messages.Hello(1, tega_id, "client", "", "")))
        while not isinstance(welcome := decode(self.socket.recv()), messages.Welcome):
            pass
        self.heartbeat = welcome.heartbeat
        self.pending: dict[int, None] = {}
        self.last = 0
        self._outbox: list[bytes] = []
        self._beat = now()

    def send(self, cls: Any, *fields: Any) -> None:
        """Send a request."""
        self.last += 1
        self.pending[self.last] = None
        low = next(iter(self.pending))
        self._outbox.append(pack((_CODE_OF[cls], self.last, low, 60_000, *fields)))

    def poll(self, timeout: int | None = None) -> None:
        """Send what was asked since the last time, as the clients do, and wait for something to come."""
        for data in bundle(self._outbox):
            self.socket.send(data)
        self._outbox.clear()
        self.socket.poll(timeout)

    def answers(self) -> int:
        """Take the answers that are there, and return how many."""
        count = 0
        for data in drain(self.socket):
            for frame in unbundle(data):
                code, *fields = unpack(frame)
                if code == _REPLY:
                    del self.pending[fields[0]]
                    count += 1
                elif code in _REFUSALS:
                    raise RuntimeError(decode(frame))
        if now() - self._beat > self.heartbeat:
            self._beat = now()
            self.socket.send(encode(messages.Heartbeat(())))
        return count

    def drain(self) -> list[messages.AnyMessage]:
        """Return the messages that are there."""
        return [decode(frame) for data in drain(self.socket) for frame in unbundle(data)]

    def ask(self, cls: Any, *fields: Any) -> None:
        """Send a request and wait for its answer."""
        self.send(cls, *fields)
        while self.pending:
            self.poll(1000)
            self.answers()


def put_op(path: tuple[str, ...], value: Any) -> tuple[Any, ...]:
    return ("put", path, value, None, False)


def raw_puts(url: str, seconds: str, window: str) -> dict[str, float]:
    raw = Raw(url, "raw-puts")

    def send(number: int) -> None:
        # Two values in turn: a put of what stands there already makes no commit.
        raw.send(messages.Write, (put_op(("bench", "a", "b"), VALUE + str(number & 1)),), "", "")

    return windowed(send, raw.answers, raw.poll, int(window), float(seconds))


def raw_calls(url: str, seconds: str, window: str) -> dict[str, float]:
    raw = Raw(url, "raw-calls")

    def send(number: int) -> None:
        raw.send(messages.Call, ("bench", "echo"), (VALUE,), {})

    return windowed(send, raw.answers, raw.poll, int(window), float(seconds))


def raw_handler(url: str) -> dict[str, float]:
    """Answer calls until told to stop."""
    raw = Raw(url, "raw-handler")
    raw.ask(messages.Register, ("bench", "echo"))
    print("ready", flush=True)
    poller = zmq.Poller()
    poller.register(raw.socket, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    beat = now()
    while True:
        if any(source == sys.stdin.fileno() for source, _ in poller.poll(raw.heartbeat * 1000)):
            return {}
        results = [
            encode(messages.Result(message.call, True, message.args[0]))
            for message in raw.drain()
            if isinstance(message, messages.Invoke)
        ]
        for data in bundle(results):
            raw.socket.send(data)
        if now() - beat > raw.heartbeat:
            beat = now()
            raw.socket.send(encode(messages.Heartbeat(())))


def raw_watch(url: str, count: str) -> dict[str, float]:
    """Be `count` subscribers, each a session: how long until the last one has heard of a put."""
    raws = [Raw(url, f"raw-watch-{number}") for number in range(int(count))]
    poller = zmq.Poller()
    for raw in raws:
        raw.ask(messages.Subscribe, 1, ("bench", "a", "b"), "local", (), False)
        poller.register(raw.socket, zmq.POLLIN)

    def value_of(data: bytes) -> str | None:
        for frame in unbundle(data):
            message = decode(frame)
            if isinstance(message, messages.Changed):
                value: str = message.changes[0][2][0]
                return value
        return None

    return watch(poller, value_of, int(count))


def raw_web_watch(url: str, count: str) -> dict[str, float]:
    """Be `count` subscribers by WebSockets of /_pubsub: how long until the last one has heard of a put."""
    from websockets.client import ClientProtocol
    from websockets.frames import Frame
    from websockets.uri import parse_uri

    tally = Tally(int(count))
    poller = select.poll()
    peers: dict[int, socket.socket] = {}
    for number in range(int(count)):
        address = url.removeprefix("http://")
        host, _, port = address.rpartition(":")
        peer = socket.create_connection((host, int(port)))
        protocol = ClientProtocol(parse_uri(f"ws://{address}/_pubsub"))
        protocol.send_request(protocol.connect())
        peer.sendall(b"".join(protocol.data_to_send()))
        while protocol.state.name != "OPEN":
            protocol.receive_data(peer.recv(65536))
        protocol.events_received()
        for line in (f"SESSION raw-web-{number} local", "SUBSCRIBE bench.a.b local False"):
            protocol.send_text(line.encode())
        peer.sendall(b"".join(protocol.data_to_send()))
        peers[peer.fileno()] = peer
        poller.register(peer, select.POLLIN)
        protocol.receive_data(peer.recv(65536))
        assert isinstance(protocol.events_received()[0], Frame)
    time.sleep(1)  # the last SUBSCRIBE has no answer
    poller.register(sys.stdin, select.POLLIN)
    print("ready", flush=True)
    while True:
        for fd, _ in poller.poll(1000):
            if fd == sys.stdin.fileno():
                return percentiles(tally.times)
            for notified in texts(peers[fd].recv(65536)):
                tally.came(json.loads(notified[7:])[0]["instance"])


def texts(data: bytes) -> Iterator[bytes]:
    """Yield the texts in `data`, whole WebSocket frames below 64 KiB; by hand, as the other raw roles."""
    while data:
        size, begin = data[1], 2
        if size == 126:
            size, begin = int.from_bytes(data[2:4]), 4
        if data[0] == 0x81:
            yield data[begin : begin + size]
        data = data[begin + size :]


def raw_rate(url: str, rate: str, seconds: str) -> dict[str, float]:
    """Put at a fixed rate, whatever the answers do, until told to stop."""
    raw = Raw(url, "raw-rate")
    print("ready", flush=True)
    begin = now()
    while not ended() and now() - begin < float(seconds):
        due = begin + raw.last / float(rate)
        raw.poll(0)
        time.sleep(max(0.0, due - now()))
        if len(raw.pending) < 10_000:
            raw.send(messages.Write, (put_op(("load", "a"), VALUE + str(raw.last & 1)),), "", "")
        raw.answers()
    return {"rate": raw.last / (now() - begin)}


def raw_fill(url: str, root: str, containers: str, siblings: str) -> dict[str, float]:
    """Make `containers` of `siblings` leaves each below `root`."""
    raw = Raw(url, "raw-fill")
    step = 5000
    begin = now()
    for container in range(int(containers)):
        for first in range(0, int(siblings), step):
            leaves = {f"k{at}": VALUE for at in range(first, min(first + step, int(siblings)))}
            raw.ask(messages.Write, (("patch", (root, f"c{container}"), leaves, None, False),), "", "")
    return {"seconds": now() - begin}


def raw_roots(url: str, count: str) -> dict[str, float]:
    """Make `count` config roots of three leaves each."""
    raw = Raw(url, "raw-roots")
    for number in range(int(count)):
        value = {"net": {"mtu": 1500, "address": f"10.0.0.{number % 256}"}, "on": True}
        raw.ask(messages.Write, (put_op((f"config-d{number}",), value),), "", "")
    return {}


def raw_sibling_puts(url: str, seconds: str, root: str, containers: str, siblings: str) -> dict[str, float]:
    """Put at random among the leaves that `raw_fill` made, one in flight."""
    raw = Raw(url, f"raw-siblings-{os.getpid()}")
    draw = random.Random(os.getpid())

    def act(number: int) -> None:
        path = (root, f"c{draw.randrange(int(containers))}", f"k{draw.randrange(int(siblings))}")
        # Never what stands there already, from a round before: that would make no commit.
        raw.ask(messages.Write, (put_op(path, stamped(number)),), "", "")

    return one_by_one(act, float(seconds))


def raw_gets(url: str, seconds: str, *path: str) -> dict[str, float]:
    """Get one leaf, one in flight; the times show when the node did something else for long."""
    raw = Raw(url, f"raw-gets-{os.getpid()}")
    return one_by_one(lambda _: raw.ask(messages.Get, path, None, "value", ""), float(seconds))


def raw_numbers(url: str, rate: str) -> dict[str, float]:
    """Put at a fixed rate until told to stop, as every value the version that the root has by it."""
    from tega_zmq import connect

    with connect(url, "raw-numbers") as tega:
        known = tega.log("numbers", 1)
    first = known[0].version + 1 if known else 0
    raw = Raw(url, "raw-numbers")
    print("ready", flush=True)
    begin, sent = now(), 0
    while not ended():
        due = begin + sent / float(rate)
        raw.poll(0)
        time.sleep(max(0.0, due - now()))
        while len(raw.pending) < 1000 and begin + sent / float(rate) <= now():
            raw.send(messages.Write, (put_op(("numbers", "n"), first + sent),), "", "")
            sent += 1
        raw.answers()
    seconds = now() - begin
    while raw.pending:
        raw.poll(1000)
        raw.answers()
    return {"writes": sent / seconds}


def tega_past(url: str, seconds: str) -> dict[str, float]:
    """Read versions at random of what `raw-numbers` writes, one in flight; each must be what was written."""
    from tega_zmq import connect

    with connect(url, "tega-past") as tega:

        def act(number: int) -> None:
            if not number % 20:
                last.append(tega.log("numbers", 1)[0].version)
            version = draw.randrange(last[-1])
            if (found := tega.get("numbers.n", version=version)) != version:
                raise RuntimeError(f"version {version} says {found}")

        last: list[int] = []
        draw = random.Random(os.getpid())
        return one_by_one(act, float(seconds))


def raw_snapshots(url: str) -> dict[str, float]:
    """Have the node write a snapshot, half a second from now and then again and again, until told to stop."""
    raw = Raw(url, "raw-snapshots")
    print("ready", flush=True)
    due = now() + 0.5
    while not (stop := ended()) or raw.pending:
        if now() > due and not stop and not raw.pending:
            raw.send(messages.Manage, "snapshot", "")
            due = now() + 1.0
        raw.poll(100)
        raw.answers()
    return {}


# -- Tega's clients --------------------------------------------------------------------------------


def tega_put(url: str, seconds: str) -> dict[str, float]:
    from tega_zmq import connect

    with connect(url, "tega-put") as tega:
        return one_by_one(lambda number: tega.put("bench.a.b", VALUE + str(number & 1)), float(seconds))


def tega_get(url: str, seconds: str) -> dict[str, float]:
    from tega_zmq import connect

    with connect(url, "tega-get") as tega:
        tega.put("bench.a.b", VALUE)
        return one_by_one(lambda _: tega.get("bench.a.b"), float(seconds))


def tega_call(url: str, seconds: str) -> dict[str, float]:
    from tega_zmq import connect

    with connect(url, "tega-call") as tega:
        return one_by_one(lambda _: tega.call("bench.echo", VALUE), float(seconds))


def tega_put_tasks(url: str, seconds: str, count: str) -> dict[str, float]:
    from tega_zmq import aio

    async def main() -> dict[str, float]:
        async with aio.connect(url, "tega-put-tasks") as tega:
            turn = 0

            async def act(_: int) -> None:
                nonlocal turn
                turn ^= 1
                await tega.put("bench.a.b", VALUE + str(turn))

            return await tasks(act, int(count), float(seconds))

    return asyncio.run(main())


def tega_call_tasks(url: str, seconds: str, count: str) -> dict[str, float]:
    from tega_zmq import aio

    async def main() -> dict[str, float]:
        async with aio.connect(url, "tega-call-tasks") as tega:
            return await tasks(lambda _: tega.call("bench.echo", VALUE), int(count), float(seconds))

    return asyncio.run(main())


def tega_handler(url: str) -> dict[str, float]:
    from tega_zmq import connect

    with connect(url, "tega-handler") as tega:
        tega.register("bench.echo", lambda value: value)
        ready_until_told()
    return {}


def tega_aio_handler(url: str) -> dict[str, float]:
    from tega_zmq import aio

    async def echo(value: Any) -> Any:
        return value

    async def main() -> None:
        async with aio.connect(url, "tega-aio-handler") as tega:
            await tega.register("bench.echo", echo)
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
    return {}


def tega_paced(url: str, count: str, pause: str) -> dict[str, float]:
    """Put stamped values with a pause between."""
    from tega_zmq import connect

    with connect(url, "tega-paced") as tega:
        for number in range(int(count)):
            tega.put("bench.a.b", stamped(number))
            time.sleep(float(pause))
    return {}


def tega_watch(url: str) -> dict[str, float]:
    """Be one subscriber with a callback."""
    from tega_zmq import connect

    tally = Tally(1)
    lock = threading.Lock()

    def heard(change: Any) -> None:
        with lock:
            tally.came(change.new)

    with connect(url, "tega-watch") as tega:
        tega.subscribe("bench.a.b", heard)
        ready_until_told()
    return percentiles(tally.times)


def tega_watchers(url: str, count: str) -> dict[str, float]:
    """Be many subscribers with callbacks, each a client of its own, in one event loop."""
    from tega_zmq import aio

    async def main() -> dict[str, float]:
        tally = Tally(int(count))
        clients = [await aio.connect(url, f"tega-watch-{number}") for number in range(int(count))]
        for client in clients:
            await client.subscribe("bench.a.b", lambda change: tally.came(change.new))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for client in clients:
            await client.close()
        return percentiles(tally.times)

    return asyncio.run(main())


def bare_http(url: str, method: str, seconds: str) -> dict[str, float]:
    """Make one HTTP request after the other over one connection; PUT another value each time."""
    from http.client import HTTPConnection

    connection = HTTPConnection(url.removeprefix("http://"))

    def ask(number: int, method: str = method) -> None:
        body = json.dumps({"mtu": number, "name": VALUE}) if method == "PUT" else None
        connection.request(method, "/bench/a/b/", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"{method}: {response.status}")

    ask(-1, "PUT")
    measured = one_by_one(ask, float(seconds))
    connection.close()
    return measured


ROLES: dict[str, Callable[..., dict[str, float]]] = {
    name.replace("_", "-"): thing
    for name, thing in list(globals().items())
    if name.startswith(("bare_", "raw_", "tega_"))
}

if __name__ == "__main__":
    print(json.dumps(ROLES[sys.argv[1]](*sys.argv[2:])), flush=True)
