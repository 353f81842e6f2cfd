"""The history thread: what it follows and reads, what it does when the disk is full, what goes where."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tega_zmq import store
from tega_zmq.errors import Compacted
from tega_zmq.log.history import Policy, open_history
from tega_zmq.node.effects import CommitsAt, SpansOf, TreeAt, UpdatesAt, VersionAt
from tega_zmq.runtime import historian
from tega_zmq.runtime.config import BrokerConfig
from tega_zmq.runtime.historian import Historian, archiver, policy_of
from tega_zmq.runtime.schema import ConfigError, Setting, build
from tega_zmq.store import Gap, Kept, Op, Store
from tega_zmq.tree.node import plain
from tests.fakedisk import FakeDisk
from tests.processes import until


def filled(count: int, state: Store | None = None) -> Store:
    state = state if state is not None else store.empty(Kept(5, 100))
    first = state.revision
    for n in range(first, first + count):
        state = store.write(
            state,
            [Op("put", ("a", "n"), n)],
            time=float(n),
            tega_id="noc",
            message=f"to {n}",
            fresh=lambda: "e",
            max_value=99,
        ).store
    return state


class Bench:
    def __init__(self, disk: FakeDisk, policy: Any = lambda _: Policy()) -> None:
        self.woken = threading.Event()
        self.notes: list[str] = []
        self.numbers = 0
        self.historian = Historian(
            disk,
            "d",
            wake=self.woken.set,
            note=lambda level, event, fields: self.notes.append(event),
            policy=policy,
        )

    def read(self, want: Any, state: Store) -> Any:
        self.numbers += 1
        self.historian.read(self.numbers, want, state)
        assert self.woken.wait(20)
        self.woken.clear()
        ((number, result),) = self.historian.poll()
        assert number == self.numbers
        return result


def test_it_rests_within_a_checkpoint_but_not_while_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    rests = threading.Semaphore(0)
    going = threading.Event()

    def sleep(seconds: float) -> None:
        if seconds == historian._PAUSE:
            rests.release()
            assert going.wait(20)

    monkeypatch.setattr(historian.time, "sleep", sleep)
    bench = Bench(FakeDisk())
    state = store.write(
        store.empty(Kept(5, 100)),
        [Op("put", ("a",), {f"n{n}": n for n in range(5000)})],
        time=0.0,
        tega_id="noc",
        message="",
        fresh=lambda: "e",
        max_value=1 << 20,
    ).store
    state = filled(120, state)  # the first commit is not kept any more: the file begins with a tree
    bench.historian.start()
    bench.historian.follow(state)
    assert rests.acquire(timeout=20)
    bench.historian.read(1, VersionAt("a", "e", 2.5, 40), state)
    going.set()
    assert bench.woken.wait(20)
    assert not rests.acquire(blocking=False), "the rest of the checkpoint is written at one go"
    bench.historian.close()


def test_it_follows_and_reads() -> None:
    disk = FakeDisk()
    bench, state = Bench(disk), filled(50)
    bench.historian.start()
    bench.historian.follow(state)
    tree = bench.read(TreeAt("a", "e", 7), state)
    assert plain(tree[0]) == {"n": 7}
    assert bench.read(VersionAt("a", "e", 12.5, 40), state) == 12
    assert bench.read(CommitsAt("a", "e", (3,)), state) == {3: (3.0, "noc", "to 3")}
    found = bench.read(UpdatesAt("a", "e", ("a", "n"), 3, 40, None, "noc"), state)
    assert [each.after for each in found] == [39, 38, 37]
    assert bench.read(UpdatesAt("a", "e", ("a",), 3, 40, None, "pi1"), state) == []
    assert bench.read(UpdatesAt("a", "e", ("a",), 9, 40, 38.0, ""), state)[-1].after == 38
    assert bench.read(UpdatesAt("a", "e", ("a", "x"), 9, 40, None, ""), state) == []
    assert isinstance(bench.read(TreeAt("b", "e", 7), state), Compacted)
    assert bench.read(SpansOf(0, "a", "e"), state) == {"a": [(-1, 49)]}
    assert bench.read(SpansOf(0, "", ""), state) == {"a": [(-1, 49)]}
    assert bench.read(SpansOf(0, "b", "e"), state) == {"b": []}
    bench.historian.close()
    assert bench.historian.status == "ok" and bench.notes == []


def test_what_the_files_lack_of_what_was_asked_is_a_gap() -> None:
    disk = FakeDisk()
    bench, state = Bench(disk), filled(300)
    bench.historian.start()
    bench.historian.follow(filled(50))
    found = bench.read(UpdatesAt("a", "e", ("a",), 400, 300, None, ""), state)
    (gap,) = [each for each in found if isinstance(each, Gap)]
    assert gap.first == 50
    assert bench.notes == ["history"]  # said once, in the log lines
    found = bench.read(UpdatesAt("a", "e", ("a",), 400, 300, None, "noc"), state)
    assert gap in found and bench.notes == ["history"]
    # A disk that is full now: what is lacking stands before all that can be read.
    disk.fault = lambda what, path: (_ for _ in ()).throw(OSError(28, "full")) if what == "write" else None
    found = bench.read(UpdatesAt("a", "e", ("a",), 2, 400, None, ""), filled(100, state))
    assert found[0] == Gap(300, 399, "they are missing")
    assert [each.after for each in found[1:]] == [299, 298]
    disk.fault = lambda what, path: None
    bench.historian.close()


def test_a_full_disk_is_said_and_made_up_for() -> None:
    disk = FakeDisk()
    bench, state = Bench(disk), filled(10)

    def full(what: str, path: str) -> None:
        if what in ("write", "create"):
            raise OSError(28, "No space left on device")

    disk.fault = full
    bench.historian.start()
    bench.historian.follow(state)
    until(lambda: "No space" in bench.historian.status)
    assert bench.notes == ["history is not written"]
    disk.fault = lambda what, path: None
    state = filled(10, state)
    assert plain(bench.read(TreeAt("a", "e", 3), state)[0]) == {"n": 3}
    bench.historian.close()
    assert bench.historian.status == "ok"
    assert bench.notes == ["history is not written", "history is written again"]


def test_who_waits_is_told_when_all_is_on_the_disk_or_why_not() -> None:
    disk = FakeDisk()
    bench, state = Bench(disk), filled(10)
    bench.historian.start()
    assert bench.historian.settle(state) == ""
    after = open_history(disk.crashed(Random(1)), "d")
    assert plain(after.tree("a", 9)[0]) == {"n": 9}

    def full(what: str, path: str) -> None:
        if what in ("write", "create"):
            raise OSError(28, "No space left on device")

    disk.fault = full
    state = filled(10, state)
    assert "No space" in bench.historian.settle(state)
    disk.fault = lambda what, path: None
    assert bench.historian.settle(state) == ""
    bench.historian.close()
    assert bench.historian.settle(state) == "the program stops"


def test_what_could_not_be_settled_is_tried_again_though_nothing_more_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(historian, "_AGAIN", 0.01)
    disk, state = FakeDisk(), filled(10)
    bench = Bench(disk)
    bench.historian.start()

    def full(what: str, path: str) -> None:
        if what in ("write", "create"):
            raise OSError(28, "No space left on device")

    disk.fault = full
    assert "No space" in bench.historian.settle(state)
    disk.fault = lambda what, path: None
    until(lambda: bench.historian.status == "ok")
    bench.historian.close()
    assert plain(open_history(disk, "d").tree("a", 9)[0]) == {"n": 9}


def test_what_had_left_the_memory_comes_from_the_log_at_the_next_start() -> None:
    disk, state = FakeDisk(), filled(5)
    bench = Bench(disk)
    bench.historian.start()
    bench.historian.follow(state)
    bench.historian.close()
    bench = Bench(disk)
    bench.historian.start()
    for _ in range(10):
        state = filled(50, state)
        bench.historian.replayed(state)
    bench.historian.follow(state)
    for version in (4, 5, 60, 250, 504):
        assert plain(bench.read(TreeAt("a", "e", version), state)[0]) == {"n": version}
    bench.historian.close()


def test_a_start_drops_what_the_config_does_not_keep_any_more() -> None:
    disk, state = FakeDisk(), filled(20)
    bench = Bench(disk)
    bench.historian.start()
    assert bench.historian.settle(state) == ""
    bench.historian.close()
    bench = Bench(disk, policy_of([{"root": "a", "days": 1}]))
    bench.historian.start()
    bench.historian.follow(state)
    until(lambda: len(disk.list("d/history")) == 1 and not disk.list("d/history")[0].endswith("1.hist"))
    assert isinstance(bench.read(TreeAt("a", "e", 3), state), Compacted)
    assert plain(bench.read(TreeAt("a", "e", 19), state)[0]) == {"n": 19}
    bench.historian.close()
    assert bench.notes == []


def test_what_the_config_keeps() -> None:
    policy = policy_of([{"root": "config-.*", "days": 2}, {"root": ".*", "versions": 10, "size": 500}])
    assert policy("config-pi1") == Policy(None, 172_800.0, None)
    assert policy("ops-pi1") == Policy(10, None, 500)
    assert policy_of([])("a") == Policy()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"versions": 3}, "needs a root"),
        ({"root": "("}, "no regex"),
        ({"root": "a", "days": -1}, "days must be"),
        ({"root": "a", "size": True}, "size must be"),
        ({"root": "a", "weeks": 1}, "unknown key weeks"),
    ],
)
def test_a_wrong_entry_is_refused(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(BrokerConfig, {"history": {"keep": Setting([entry], "test")}})


def test_an_archive_is_lines_of_json(tmp_path: Path) -> None:
    plains = [
        [1, 1, "a/b", 1, "e", 3, True, 1.0, "noc", "why"],
        [2, [[["a/b"], 3, True, None], [["a/b", "n"], 3, False, 1]]],
        [3, [[["a/b", "n"], "s1"]]],
        [4],
        [5, ["a/b", "e", 3, 4, [[["n"], 2], [["m"]]], 2.0, "noc", "", None]],
    ]
    archiver(str(tmp_path))("a/b", "ff-00000001.hist", iter(plains))
    (file,) = tmp_path.iterdir()
    assert file.name == "a%2Fb-ff-00000001.jsonl.gz"
    with gzip.open(file, "rt") as lines:
        head, top, leaf, mark, update = map(json.loads, lines)
    assert head["checkpoint"]["root"] == "a/b" and head["checkpoint"]["version"] == 3
    assert top == {"path": ["a/b"], "version": 3}
    assert leaf == {"path": ["a/b", "n"], "version": 3, "value": 1} and mark["ephemeral"] == "s1"
    assert update["version"] == 4
    assert update["changes"] == [{"path": ["a/b", "n"], "value": 2}, {"path": ["a/b", "m"], "deleted": True}]
