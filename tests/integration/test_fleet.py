"""Broker, agents and clients as processes: what happens when they come, go, and are cut off."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from tega_zmq import errors
from tests.processes import Fleet, until


def test_a_put_reaches_replicas_and_subscribers(fleet: Fleet) -> None:
    for name in ("pi1", "pi2"):
        fleet.agent(name, config="[config-all]").start()
    noc, watcher = fleet.client("noc"), fleet.client("watcher")
    heard: list[Any] = []
    watcher.subscribe("config-all", heard.append)
    noc.put("config-all.net", {"mtu": 1500})
    for name in ("pi1", "pi2"):
        local = fleet.client("local", at=name)
        until(lambda local=local: local.get("config-all.net.mtu") == 1500, f"{name} has the config")
    until(lambda: heard, "the subscriber heard")
    assert heard[0].path == "config-all" and heard[0].new == {"net": {"mtu": 1500}}
    assert heard[0].tega_id == "noc"


def test_an_agent_that_was_away_catches_up_by_deltas_or_by_tree(fleet: Fleet) -> None:
    agent = fleet.agent("pi1")
    agent.start()
    noc = fleet.client("noc")
    noc.put("config-pi1", {"n": 0})
    until(lambda: fleet.client("l0", at="pi1").get("config-pi1.n") == 0)
    agent.kill()
    for n in range(1, 1001):
        noc.put("config-pi1.n", n)
    agent.start()
    local = fleet.client("l1", at="pi1")
    until(lambda: local.get("config-pi1.n") == 1000)
    assert agent.lines('by="deltas in') == 1, agent.log.read_text()
    agent.kill()
    fleet.broker.stop()
    fleet.broker.start(**{"history.versions": "10", "history.updates": "10"})
    noc.put("config-pi1.bulk", {f"k{i}": "x" * 100 for i in range(1000)})
    for n in range(30):
        noc.put("config-pi1.n", n)
    agent.start()
    local = fleet.client("l2", at="pi1")
    until(lambda: local.get("config-pi1.n") == 29)
    assert local.get("config-pi1") == noc.get("config-pi1")
    trees = [line for line in agent.log.read_text().splitlines() if 'by="tree in' in line]
    assert int(trees[-1].split('by="tree in ')[1].split()[0]) > 1, "in more than one chunk"


DOOMED = """
import sys, tega_zmq
client = tega_zmq.connect(sys.argv[1], "doomed")
client.put("presence.doomed", 1, ephemeral=True)
print("there", flush=True)
sys.stdin.read()
"""


def test_broker_killed_under_load_loses_nothing_acknowledged(fleet: Fleet) -> None:
    agent = fleet.agent("pi1")
    agent.start()
    writer = fleet.client("writer")
    watcher = fleet.client("watcher")
    device = fleet.client("device", at="pi1")
    device.register("ops-pi1.echo", lambda value: value)
    writer.put("presence.writer", 1, ephemeral=True)
    doomed = subprocess.Popen(
        [sys.executable, "-c", DOOMED, fleet.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert doomed.stdin is not None and doomed.stdout is not None
    assert doomed.stdout.readline() == "there\n"
    assert watcher.get("presence") == {"writer": 1, "doomed": 1}
    doomed.kill()
    doomed.wait()
    doomed.stdin.close()
    doomed.stdout.close()
    states: list[str] = []
    watcher.on_state(states.append)
    acknowledged: list[int] = []
    stop = threading.Event()

    def load() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            writer.put(f"load.k{n % 50}.n", n, timeout=30)
            acknowledged.append(n)

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(3):
        before = len(acknowledged)
        until(lambda before=before: len(acknowledged) > before + 100, "the load goes on")
        fleet.broker.kill()
        fleet.broker.start()
    stop.set()
    thread.join()
    latest: dict[int, int] = {}
    for n in acknowledged:
        latest[n % 50] = n
    tree = watcher.get("load")
    assert {key: tree[f"k{key}"]["n"] for key in latest} == latest
    versions = [entry.changes[0].new for entry in watcher.log("load", limit=100)]
    flat = [value["n"] if isinstance(value, dict) and "n" in value else value for value in versions]
    assert len(set(map(str, flat))) == len(flat), "no retried write was done twice"
    assert watcher.get("presence.writer") == 1
    assert until(lambda: watcher.call("ops-pi1.echo", 0, timeout=5) == 0 or None) is True
    assert "suspended" in states and states[-1] == "connected"
    until(lambda: "doomed" not in watcher.get("presence"), "the dead session's node is gone")


@pytest.mark.parametrize("value", [0, "", False, None, [], {}, 0.0])
def test_falsy_results_are_results(fleet: Fleet, value: Any) -> None:
    handler, caller = fleet.client("handler"), fleet.client("caller")
    handler.register("tools.give", lambda: value)
    result = caller.call("tools.give")
    assert result == value and type(result) is type(value)


def test_every_end_of_a_call(fleet: Fleet) -> None:
    agent = fleet.agent("pi1")
    agent.start()
    fleet.agent("pi2").start()
    caller, device = fleet.client("caller", at="pi2"), fleet.client("device", at="pi1")

    def raises() -> None:
        raise ValueError("no such interface")

    hang = threading.Event()
    begun = threading.Event()

    def hangs() -> None:
        begun.set()
        hang.wait(30)

    device.register("ops-pi1.raises", raises)
    device.register("ops-pi1.hangs", hangs)
    device.register("ops-pi1.add", lambda a, b=2: a + b)
    until(lambda: caller.call("ops-pi1.add", 1) == 3, "device to device")
    with pytest.raises(errors.HandlerError) as raised:
        caller.call("ops-pi1.raises")
    assert (raised.value.type, raised.value.text) == ("ValueError", "no such interface")
    with pytest.raises(errors.Timeout):
        caller.call("ops-pi1.hangs", timeout=0.3)
    with pytest.raises(errors.NoHandler):
        caller.call("ops-pi1.nothing")
    begun.clear()
    outcome: list[BaseException] = []

    def call() -> None:
        try:
            caller.call("ops-pi1.hangs", timeout=60)
        except errors.TegaError as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(10)
    agent.kill()
    thread.join(10)
    assert [type(error) for error in outcome] == [errors.HandlerGone], "long before the call's 60 seconds"
    hang.set()


def test_taken_over_is_told_and_final(fleet: Fleet) -> None:
    first = fleet.client("twin")
    first.put("presence.twin", "first", ephemeral=True)
    second = fleet.client("twin")
    until(lambda: first.state == "taken over")
    with pytest.raises(errors.TakenOver):
        first.put("a.b", 1)
    assert second.put("presence.twin", "second", ephemeral=True)
    assert second.state == "connected"


def test_two_agents_with_one_name_show(fleet: Fleet) -> None:
    original = fleet.agent("pi1")
    original.start()
    noc = fleet.client("noc")
    until(lambda: noc.inspect("agents"))
    clone = fleet.agent("pi1", folder="clone")
    clone.start()
    until(lambda: original.lines("uplink taken over"), "the first is told")
    time.sleep(1.0)  # that nothing more happens cannot be awaited
    assert clone.lines("uplink taken over") == 0


def test_a_device_that_comes_back_within_its_lease_resumes(fleet: Fleet) -> None:
    fleet.broker.stop()
    fleet.broker.start(**{"session.lease": "30"})
    agent = fleet.agent("pi1")
    agent.start()
    device, noc = fleet.client("device", at="pi1"), fleet.client("noc")
    device.put("presence.device", 1, ephemeral=True)
    seen: list[Any] = []
    noc.subscribe("presence", seen.append)
    agent.kill()
    until(lambda: noc.inspect("agents")[0]["state"] == "away")
    agent.start()
    until(lambda: noc.inspect("agents")[0]["state"] == "connected")
    until(lambda: device.state == "connected")

    def answered() -> bool:
        try:
            return bool(device.get("presence.device") == 1)
        except errors.Offline:  # the broker knows of the new connection a moment before the agent does
            return False

    until(answered)
    assert seen == [], "nobody saw it leave"
    assert fleet.broker.lines("session resumed tega_id=pi1 kind=agent") == 1


def test_offline_a_device_goes_on(fleet: Fleet) -> None:
    agent = fleet.agent("pi1")
    agent.start()
    noc, device = fleet.client("noc"), fleet.client("device", at="pi1")
    noc.put("config-pi1.net.mtu", 1500)
    until(lambda: device.get("config-pi1.net.mtu") == 1500)
    device.register("ops-pi1.local", lambda: "here")
    device.put("ops-pi1.state", {"n": 0})
    until(lambda: noc.get("ops-pi1.state.n") == 0)
    fleet.broker.kill()
    until(lambda: device.inspect("status")["uplink"]["state"] != "connected")
    assert device.get("config-pi1.net.mtu") == 1500
    for n in range(1, 20):
        device.put("ops-pi1.state.n", n)
    assert device.call("ops-pi1.local") == "here"
    with pytest.raises(errors.Offline):
        device.put("config-pi1.net.mtu", 9000)
    agent.kill()
    agent.start()
    until(
        lambda: device.get("config-pi1.net.mtu") == 1500, "served from the disk after a reboot without a link"
    )
    assert device.get("ops-pi1.state.n") == 19
    fleet.broker.start()
    until(lambda: noc.get("ops-pi1.state.n") == 19, "in step again")
    until(lambda: device.put("config-pi1.net.mtu", 9000), "writes go up again")
    assert device.get("config-pi1.net.mtu") == 9000 == noc.get("config-pi1.net.mtu")
    assert noc.log("config-pi1")[0].tega_id == "pi1/device"


def test_wiped_card_and_disown(fleet: Fleet) -> None:
    agent = fleet.agent("pi1")
    agent.start()
    noc, device = fleet.client("noc"), fleet.client("device", at="pi1")
    for n in range(3):
        device.put("ops-pi1.n", n)
    until(lambda: noc.get("ops-pi1.n") == 2)
    before = noc.node("ops-pi1")
    agent.kill()
    device.close()
    # Before the broker has seen the loss, the write would be passed on, and its outcome unknown.
    until(lambda: noc.inspect("agents")[0]["state"] != "connected")
    with pytest.raises(errors.OwnerAway):
        noc.put("ops-pi1.n", 7)
    for path in sorted(agent.folder.rglob("*"), reverse=True):
        path.unlink() if not path.is_dir() else path.rmdir()
    agent.start()
    until(lambda: noc.inspect("agents")[0]["state"] == "connected")
    device = fleet.client("device2", at="pi1")
    until(lambda: device.put("ops-pi1.n", 100))
    until(lambda: noc.get("ops-pi1.n") == 100)
    after = noc.node("ops-pi1")
    assert after.epoch != before.epoch and after.version > before.version
    assert noc.get("ops-pi1.n", version=before.version) == 2, "the broker keeps the history"
    agent.kill()
    noc.manage("disown", "ops-pi1")
    assert noc.put("ops-pi1.n", 5) and noc.get("ops-pi1.n") == 5


def test_two_agents_cannot_own_one_root(fleet: Fleet) -> None:
    fleet.agent("pi1").start()
    noc = fleet.client("noc")
    until(lambda: any(root.endswith("pi1") for agent in noc.inspect("agents") for root in [agent["tega_id"]]))
    thief = fleet.agent("pi2", operational="[ops-pi1]")
    thief.start()
    until(lambda: thief.lines("claim refused root=ops-pi1"))
    assert "ReadOnly" in thief.log.read_text() and "pi1" in thief.log.read_text()


def test_a_subscriber_that_stops_reading_delays_nobody_and_converges(fleet: Fleet) -> None:
    script = (
        "import sys, tega_zmq\n"
        "client = tega_zmq.connect(sys.argv[1], 'slow')\n"
        "def on_change(change): print(change.new, flush=True)\n"
        "client.subscribe('load.n', on_change)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    slow = subprocess.Popen(
        [sys.executable, "-c", script, fleet.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert slow.stdin is not None and slow.stdout is not None
    try:
        assert slow.stdout.readline() == "ready\n"
        slow.send_signal(signal.SIGSTOP)
        writer = fleet.client("writer")
        writer.put("load", {"n": 0, "pad": ""})
        start = fleet.broker.memory()
        for n in range(1, 3001):
            writer.put("load.n", str(n) + "x" * 2000)
        assert fleet.broker.memory() - start < 60_000, "kilobytes"
        last = str(3000) + "x" * 2000
        slow.send_signal(signal.SIGCONT)
        for line in slow.stdout:
            if line.strip() == last:
                break
        else:
            raise AssertionError("the slow one never saw the last value")
    finally:
        slow.kill()
        slow.wait()
        slow.stdin.close()
        slow.stdout.close()


def test_orderly_stop_is_quick_and_clean(fleet: Fleet) -> None:
    agent = fleet.agent("pi1")
    agent.start()
    noc = fleet.client("noc")
    until(lambda: noc.inspect("agents"))
    assert agent.stop() == 0
    assert fleet.broker.stop() == 0
    fleet.broker.start()
    assert fleet.broker.lines("clean=true") >= 1


def test_a_transaction_waits_for_an_owner_that_is_away(fleet: Fleet) -> None:
    agent = fleet.agent("pi1", operational="[ops-pi1]")
    agent.start()
    noc = fleet.client("noc")
    until(lambda: noc.inspect("agents")[0]["operational"], "it has its root")
    until(lambda: noc.put("ops-pi1.x", 1), "the agent takes writes")
    tx = noc.begin("when it is back")
    tx.put("ops-pi1.x", 2, version=0)
    assert tx.check() == []
    epoch = noc.node("ops-pi1").epoch
    agent.kill()
    until(lambda: noc.inspect("agents")[0]["state"] != "connected", "the broker sees it gone")
    with pytest.raises(errors.OwnerAway):
        tx.commit()
    assert not tx.ended
    with pytest.raises(errors.OwnerAway), noc.transaction() as other:
        other.put("ops-pi1.x", 3)
    agent.start()
    until(lambda: noc.inspect("agents")[0]["state"] == "connected", "it is back")
    until(lambda: not any(isinstance(each, errors.OwnerAway) for each in tx.check()), "it can be asked")
    # It goes on under a new epoch. What is committed before the broker has that comes with its tree.
    until(lambda: noc.node("ops-pi1").epoch != epoch, "the replica is there")
    tx.commit()
    assert tx.ended
    assert noc.get("ops-pi1.x") == 2
    assert noc.log("ops-pi1", 1)[0].message == "when it is back"
