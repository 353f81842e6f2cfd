"""The history on the disk against every version kept as plain data."""

from __future__ import annotations

import random as chance
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq import store
from tega_zmq.check.oldversions import flaws
from tega_zmq.errors import Compacted, StorageError, TegaError
from tega_zmq.log.history import History, Policy, open_history, writing
from tega_zmq.log.history.format import stem
from tega_zmq.store import Cleared, Gap, Kept, Op, Store, Update
from tega_zmq.tree.node import plain
from tests.fakedisk import Crashed, FakeDisk

KEPT = Kept(3, 12)


def write(state: Store, *ops: Op, time: float = 0.0) -> Store:
    epoch = f"e{state.revision}"
    return store.write(
        state, ops, time=time, tega_id="noc", message="why", fresh=lambda: epoch, max_value=1 << 20
    ).store


def put(path: str, value: Any) -> Op:
    return Op("put", tuple(path.split(".")), value)


def shown(kept: store.KeptVersion) -> Any:
    return None if kept[0] is None else plain(kept[0])


def expect(history: History, versions: dict[int, Any], name: str = "a") -> None:
    for version, value in versions.items():
        assert shown(history.tree(name, version)) == value, version


OPS = st.one_of(
    st.builds(lambda oid, value: put(f"a.{oid}", value), st.sampled_from("xyz"), st.integers(0, 3)),
    st.builds(lambda oid, below: put(f"a.{oid}", {below: 1}), st.sampled_from("xyz"), st.sampled_from("pq")),
    st.just(Op("delete", ("a",))),
    st.just(put("a", {})),
    st.builds(lambda back: Op("rollback", ("a",), -back), st.integers(1, 2)),
    st.sampled_from(["clear", "restart", "follow", "crash"]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(OPS, max_size=60), st.integers(3, 20), st.randoms(use_true_random=False))
def test_every_version_is_what_it_was(steps: list[Any], commits: int, random: Any) -> None:
    disk, state = FakeDisk(), store.empty(KEPT)
    history = open_history(disk, "d")
    versions: dict[int, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_COMMITS", commits)
        for count, step in enumerate(steps):
            if step == "follow":
                history.follow(state)
            elif step == "restart":
                history.follow(state)
                history.close()
                state = store.load(store.dump(state), KEPT)
                history = open_history(disk, "d")
            elif step == "crash":
                disk = disk.crashed(random)
                history = open_history(disk, "d")
                history.follow(state)
            elif step == "clear":
                state = store.apply(state, Cleared())
                versions = {}
            else:
                before = state
                try:
                    state = write(state, step, time=float(count))
                except TegaError:
                    continue
                if state is before:
                    continue
                root = state.roots["a"]
                versions[root.version] = None if root.node is None else plain(root.node)
                if not root.version % 3:
                    history.follow(state)
        history.follow(state)
        expect(history, versions)
        if versions:
            told = list(history.updates("a", len(versions)))
            assert [each.after for each in told] == list(range(len(versions) - 1, -1, -1))
        history.sync()
        assert not flaws(disk, "d")


def filled(count: int = 30, commits: int = 8) -> tuple[FakeDisk, History, Store, dict[int, Any]]:
    disk, state = FakeDisk(), store.empty(KEPT)
    history = open_history(disk, "d")
    versions = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_COMMITS", commits)
        for n in range(count):
            state = write(state, put("a.n", n), time=float(n))
            versions[n] = {"n": n}
            history.follow(state)
    history.sync()
    return disk, history, state, versions


def files(disk: FakeDisk) -> list[str]:
    return [name for name in disk.list("d/history") if name.endswith(".hist")]


def test_a_large_tree_is_not_written_anew_all_the_time() -> None:
    disk, state, rests = FakeDisk(), store.empty(KEPT), [0]

    def rest() -> None:
        rests[0] += 1

    history = open_history(disk, "d", rest=rest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_COMMITS", 8)
        patch.setattr(writing, "_WEIGHT", 100)
        state = write(state, put("a", {f"leaf{n:04}": n for n in range(1000)}), time=0.0)
        for n in range(1, 10):  # so that the next file begins with a checkpoint of it
            state = write(state, put("a.leaf0000", n), time=float(n))
            history.follow(state)
        assert len(files(disk)) == 2
        assert rests == [2], "it rests between the three parts of a checkpoint of a thousand leaves"
        size = len(disk.names[f"d/history/{files(disk)[1]}"].seen)
        for n in range(10, 10 + size // 100 - 8):
            state = write(state, put("a.leaf0000", n), time=float(n))
            history.follow(state)
        assert len(files(disk)) == 2
        for n in range(8 + size // 100, 28 + size // 100):
            state = write(state, put("a.leaf0000", n), time=float(n))
            history.follow(state)
        assert len(files(disk)) == 3
    assert shown(history.tree("a", 100))["leaf0000"] == 100


def test_times_and_commits() -> None:
    _, history, _, _ = filled()
    assert [history.version_at("a", time, 30) for time in (0.0, 7.5, 8.0, 12.3, 99.0)] == [0, 7, 8, 12, 29]
    assert history.version_at("a", 99.0, 5) == 4
    assert history.version_at("a", -1.0, 30) == store.ABSENT
    assert history.stamps("a", {0, 8, 9, 29, 77}) == {n: (float(n), "noc", "why") for n in (0, 8, 9, 29)}


def test_damage_is_said_and_the_rest_is_read() -> None:
    disk, _, state, versions = filled()
    file = files(disk)[1]
    data = disk.names[f"d/history/{file}"].seen
    data[len(data) - 100] ^= 1
    history = open_history(disk, "d")
    history.follow(state)
    with pytest.raises(StorageError, match=rf"history/{file} is damaged at byte \d+"):
        history.tree("a", 14)
    expect(history, {n: versions[n] for n in (0, 6, 7, 8, 15, 17, 29)})
    (flaw,) = flaws(disk, "d")
    assert (flaw.kind, flaw.file) == ("history", f"history/{file}")
    assert 0 < flaw.usable == flaw.offset < len(data)
    told = list(history.updates("a", 30))
    (gap,) = [each for each in told if isinstance(each, Gap)]
    assert f"{file} is damaged at byte {flaw.offset}" in gap.why
    assert (gap.first, gap.last) == (13, 15)
    assert [each.after for each in told if isinstance(each, Update)] == [
        *range(29, 15, -1),
        *range(12, -1, -1),
    ]
    assert history.spans("a") == [(-1, 12), (15, 29)]
    assert history.spans("a", 20) == [(15, 29)]
    assert set(history.stamps("a", {3, 14, 29})) == {3, 29}


def test_what_was_cut_and_is_no_longer_kept_is_missing_and_said() -> None:
    disk, history, state, versions = filled()
    history.close()
    file = files(disk)[-1]
    for n in range(30, 60):
        state = write(state, put("a.n", n), time=float(n))
    history = open_history(disk, "d")
    history.follow(state)
    with pytest.raises(StorageError, match=f"{file}: version 40 of a is missing"):
        history.tree("a", 40)
    told = list(history.updates("a", 60))
    (gap,) = [each for each in told if isinstance(each, Gap)]
    assert told.index(gap) == 59 - gap.last and gap.first == 30 and "missing" in gap.why
    assert [each.after for each in told if isinstance(each, Update)] == [
        *range(59, gap.last, -1),
        *range(29, -1, -1),
    ]
    assert len(list(history.updates("a", 20))) == 20
    assert history.spans("a") == [(-1, 29), (57, 59)]
    expect(history, versions)
    assert shown(history.tree("a", 59)) == {"n": 59}
    assert any("are missing" in each.what for each in flaws(disk, "d"))


def test_what_is_dropped_and_what_a_tag_keeps() -> None:
    disk, history, state, versions = filled()
    state = store.apply(state, store.Tagged("a", "golden", 3))
    archived: dict[str, list[Any]] = {}
    history.policy = lambda name: Policy(versions=5)
    history.archive = lambda root, file, plains: archived.__setitem__(file, list(plains))
    history.drop(state.roots["a"])
    assert shown(history.tree("a", 3)) == {"n": 3}
    for version in (9, 15):
        with pytest.raises(Compacted):
            history.tree("a", version)
    expect(history, {n: versions[n] for n in range(25, 30)})
    assert len(archived) == 2 and not flaws(disk, "d")
    assert history.spans("a") == [(-1, 7), (23, 29)] == open_history(disk, "d").spans("a")
    told = [each for each in history.updates("a", 30) if isinstance(each, Gap)]
    assert told == [Gap(8, 23, "they are no longer kept")]
    history.drop(store.apply(state, store.Tagged("a", "golden", store.ABSENT)).roots["a"])
    with pytest.raises(Compacted):
        history.tree("a", 3)


@pytest.mark.parametrize("policy", [Policy(seconds=5.0), Policy(size=1)])
def test_age_and_size(policy: Policy) -> None:
    disk, history, state, versions = filled()
    history.policy, history.clock = lambda name: policy, lambda: 30.0
    history.drop(state.roots["a"])
    assert len(files(disk)) == 1
    expect(history, {n: versions[n] for n in range(24, 30)})


def test_a_full_disk_loses_nothing() -> None:
    disk, history, state, versions = filled()

    def full(what: str, path: str) -> None:
        if what in ("write", "create", "write_sync"):
            raise OSError(28, "No space left on device")

    disk.fault = full
    for n in range(30, 35):
        state = write(state, put("a.n", n), time=float(n))
        versions[n] = {"n": n}
        with pytest.raises(OSError, match="No space"):
            history.follow(state)
    expect(history, {n: versions[n] for n in range(30)})
    disk.fault = lambda what, path: None
    history.follow(state)
    expect(history, versions)


def test_a_crash_at_any_step() -> None:
    for at in range(1, 200):
        disk, state, versions = FakeDisk(), store.empty(KEPT), {}
        count = 0

        def crash(what: str, path: str) -> None:
            nonlocal count
            count += 1
            if count == at:  # noqa: B023
                raise Crashed

        disk.fault = crash
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "_COMMITS", 5)
            done = True
            try:
                history = open_history(disk, "d")
                for n in range(20):
                    state = write(state, put("a.n", n), time=float(n))
                    versions[n] = {"n": n}
                    history.follow(state)
                history.close()
            except Crashed:
                done = False
                disk = disk.crashed(chance.Random(at))
                history = open_history(disk, "d")
                history.follow(state)
                expect(history, versions)
        if done:
            return
    raise AssertionError("it never came to its end")


def test_files_are_named_so_that_no_two_roots_share_one_anywhere() -> None:
    names = ["config-pi1", "Config-pi1", "a.b", "a%2Eb", "é", "x" * 100, "x" * 101, "X" * 101, "+a", "_a"]
    stems = [stem(name) for name in names]
    assert stems[0] == "config-pi1" and stems[1] == "%43onfig-pi1" and stems[4] == "%C3%A9"
    assert len({each.lower() for each in stems}) == len(names)
    assert max(len(each) for each in stems) <= 100


@pytest.mark.parametrize("known", [0, 1, 7, 20])
def test_states_of_the_past_fill_what_the_files_lack_and_nothing_else(known: int) -> None:
    disk, state = FakeDisk(), store.empty(KEPT)
    history = open_history(disk, "d")
    states: list[Store] = []
    for n in range(100):
        state = write(state, put("a.n", n), put("b.n", n)) if n % 3 else write(state, put("a.n", n))
        states.append(state)
    for each in states[:known]:
        history.follow(each)
    history.close()
    history = open_history(disk, "d")
    begun = len(disk.list("d/history"))
    for each in states[::6]:
        history.catch_up(each)
        if states.index(each) < known:
            assert len(disk.list("d/history")) == begun  # older than what the files hold: passed over
    history.follow(state)
    expect(history, {n: {"n": n} for n in range(100)})
    assert [each.after for each in history.updates("a", 100)] == list(range(99, -1, -1))
    told = [each.time for each in history.updates("b", 1000)]
    assert len(told) == state.roots["b"].version + 1


def test_damage_of_the_newest_file_is_no_reason_to_add_to_it() -> None:
    disk, history, state, versions = filled()
    for n in range(30, 34):
        state = write(state, put("a.n", n), time=float(n))
        versions[n] = {"n": n}
        history.follow(state)
    history.sync()
    data = disk.names[f"d/history/{files(disk)[-1]}"].seen
    data[len(data) - 10] ^= 1
    assert history.spans("a") == [(-1, 33)]
    with pytest.raises(StorageError, match="is damaged"):
        history.tree("a", 33)
    assert history.spans("a") == [(-1, 32)]
    for n in range(34, 60):
        state = write(state, put("a.n", n), time=float(n))
        versions[n] = {"n": n}
        history.follow(state)
    expect(history, versions)
    assert history.spans("a")[-1] == (33, 59)


def test_without_the_states_of_the_past_versions_are_missing_and_that_is_said() -> None:
    disk, state = FakeDisk(), store.empty(KEPT)
    notes: list[str] = []
    history = open_history(disk, "d", notes.append)
    for n in range(100):
        state = write(state, put("a.n", n))
        if n < 7:
            history.follow(state)
    history.follow(state)
    with pytest.raises(TegaError, match=r"no longer kept|missing"):
        history.tree("a", 50)
    history.follow(write(state, put("a.n", 100)))
    (note,) = notes
    assert note.startswith("versions 7 to 96 of a are missing")
    assert history.spans("a") == [(-1, 6), (97, 100)]


def test_what_nothing_asks_to_keep_goes_without_a_commit_that_ends_a_file() -> None:
    disk, state = FakeDisk(), store.empty(KEPT)
    history = open_history(disk, "d")
    now = 1000.0
    history.clock = lambda: now
    history.policy = lambda name: Policy(seconds=50.0) if name == "a" else Policy()
    for n in range(5):
        state = write(state, put("a.n", n), put("b.n", n), time=1000.0 + n)
    history.follow(state)
    now = 1030.0
    history.tidy(state)
    expect(history, {n: {"n": n} for n in range(5)})
    now = 1060.0
    history.tidy(state)  # its beginning is too old: the file ends, and its commits are too old as well
    expect(history, {4: {"n": 4}})
    with pytest.raises(Compacted):
        history.tree("a", 3)
    expect(history, {n: {"n": n} for n in range(5)}, "b")
    files = disk.list("d/history")
    history.tidy(state)
    assert disk.list("d/history") == files  # nothing new: nothing is written
    state = write(state, put("a.n", 5), time=1062.0)
    history.follow(state)
    now = 1070.0
    history.tidy(state)
    expect(history, {4: {"n": 4}, 5: {"n": 5}})
    history.close()
    history = open_history(disk, "d")
    expect(history, {4: {"n": 4}, 5: {"n": 5}})
