"""Versions that are only on the disk, at a real broker and an agent, and after kill -9."""

from __future__ import annotations

import asyncio

import pytest

from tega_zmq import aio, errors
from tests.processes import Fleet, until

FEW = {"history.versions": "5", "history.updates": "40"}


def test_any_version_is_read_compared_and_restored(fleet: Fleet) -> None:
    fleet.broker.stop()
    fleet.broker.start(**FEW)
    noc = fleet.client("noc")
    for n in range(150):
        noc.put("a.n", n, message=f"to {n}")
    noc.tag("a", "golden", 17)
    for _ in range(2):
        assert [noc.get("a.n", version=version) for version in (0, 17, 99, 149, "golden")] == [
            0,
            17,
            99,
            149,
            17,
        ]
        (found,) = noc.diff("a", "golden", 99)
        assert (found.path, found.old, found.new) == ("n", 17, 99)
        log = noc.log("a", 200)
        assert [each.version for each in log] == list(range(149, -1, -1))
        assert log[-1].message == "to 0"
        assert [each.version for each in noc.log("a", 3, before=50)] == [49, 48, 47]
        (blamed,) = noc.blame("a", "golden")
        assert (blamed.version, blamed.tega_id, blamed.message) == (17, "noc", "to 17")
        fleet.broker.kill()
        fleet.broker.start(**FEW)
    assert noc.rollback("a", "golden").version == 150
    assert noc.get("a") == {"n": 17}
    assert noc.undo("a").version == 151
    assert noc.get("a") == {"n": 149}
    assert noc.tags() == {"a": {"golden": 17}}
    assert noc.inspect("status")["history"] == "ok"


def test_what_the_history_lacks_after_a_kill_comes_from_the_log(fleet: Fleet) -> None:
    fleet.broker.stop()
    fleet.broker.start(**FEW)
    noc = fleet.client("noc")
    for n in range(300):
        noc.put("a.n", n)
    fleet.broker.kill()
    # As if the thread that writes it had not come to any of these.
    for file in (fleet.broker.folder / "history").glob("*.hist"):
        file.unlink()
    fleet.broker.start(**FEW)
    assert [noc.get("a.n", version=version) for version in range(0, 300, 23)] == list(range(0, 300, 23))
    assert len(noc.log("a", 1000)) == 300


def test_no_snapshot_stands_for_what_the_history_does_not_have(fleet: Fleet) -> None:
    fleet.broker.stop()
    history = fleet.broker.folder / "history"
    for file in history.iterdir():
        file.unlink()
    history.rmdir()
    history.write_text("no folder")
    fleet.broker.start()
    noc = fleet.client("noc")
    noc.put("a.n", 1)
    with pytest.raises(errors.StorageError, match="the history cannot be written"):
        noc.manage("snapshot")
    noc.put("a.n", 2)
    assert not list((fleet.broker.folder / "snapshot").glob("*.snap"))
    assert noc.inspect("status")["history"].startswith("writes nothing")


def test_undo_of_a_deletion_and_of_a_first_commit(fleet: Fleet) -> None:
    noc = fleet.client("noc")
    noc.put("r.a", 1)
    noc.delete("r")
    assert noc.undo("r").version == 2 and noc.get("r") == {"a": 1}
    noc.put("new.a", 1)
    assert noc.undo("new", message="never mind").version == 1
    assert noc.get("new", None) is None
    assert noc.log("new")[0].message == "never mind"
    assert noc.undo("new").version == 2 and noc.get("new") == {"a": 1}
    with pytest.raises(errors.NotFound, match="no root never to roll back"):
        noc.undo("never")

    async def story() -> None:
        async with aio.connect(fleet.url, "other") as tega:
            assert (await tega.undo("r")).version == 3 and await tega.get("r", None) is None
            await tega.put("second.a", 1)
            assert (await tega.undo("second")).version == 1 and await tega.get("second", None) is None
            with pytest.raises(errors.NotFound, match="no root never to roll back"):
                await tega.undo("never")

    asyncio.run(story())


def test_a_replica_passes_on_what_only_the_owner_has(fleet: Fleet) -> None:
    agent = fleet.agent("pi1", config="[config-all]")
    agent.start()
    noc = fleet.client("noc")
    noc.put("config-all.n", 0)
    local = fleet.client("local", at="pi1")
    until(lambda: local.get("config-all.n") == 0)
    agent.kill()
    for n in range(1, 300):
        noc.put("config-all.n", n)
    noc.tag("config-all", "golden", 7)
    agent.start()
    until(lambda: local.get("config-all.n") == 299)
    assert local.get("config-all.n", version=3) == 3
    assert local.get("config-all.n", version="golden") == 7
    fleet.broker.stop()

    def refused() -> bool:
        try:
            local.get("config-all.n", version=3)
        except errors.Compacted as error:
            return "owner" in error.message
        return False

    until(refused, "the agent says that it is only at the owner")


def test_a_subscription_begins_at_a_version_on_the_disk_and_goes_on(fleet: Fleet) -> None:
    fleet.broker.stop()
    fleet.broker.start(**FEW)
    noc = fleet.client("noc")
    for n in range(1300):
        noc.put("a.n", n)
    noc.tag("a", "golden", 900)
    heard: list[tuple[int, int, int]] = []
    later: list[int] = []
    noc.subscribe(
        "a.n", lambda change: heard.append((change.version, change.old, change.new)), from_version=2
    )
    noc.subscribe("a", lambda change: later.append(change.version), from_version="golden")
    for n in range(1300, 1400):
        noc.put("a.n", n)
    until(lambda: len(heard) >= 1397 and len(later) >= 499, "all is told")
    assert heard == [(n, n - 1, n) for n in range(3, 1400)]
    assert later == list(range(901, 1400))
    for root, version in (("a", 5000), ("b", 0), ("a", "silver")):
        with pytest.raises(errors.NotFound):
            noc.subscribe(root, print, from_version=version)
    with pytest.raises(errors.InvalidValue, match="each root"):
        noc.subscribe("a", print, regex=True, from_version=3)
