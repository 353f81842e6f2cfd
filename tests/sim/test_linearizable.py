"""The checker against known histories, against a search of all orders, and its model against the store."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq import store as core
from tega_zmq.errors import Collision, Disconnected, NotFound, Offline, StorageError, TegaError, Timeout
from tega_zmq.store import Kept, Op
from tega_zmq.tree import plain
from tests.sim import rootmodel as model
from tests.sim.linearizable import UNKNOWN, GaveUp, Operation, check, partition
from tests.sim.rootmodel import Done, Failed, Read, Seen, Write, frozen
from tests.storekit import delete, patch, put, rollback

# -- a register: ("w", value) -> None, ("r",) -> value, ("cas", old, new) -> bool ------------------------


def register(state: int, action: tuple[Any, ...], result: Any) -> tuple[int, ...]:
    if action[0] == "w":
        return (action[1],)
    if action[0] == "r":
        return (state,) if result is UNKNOWN or result == state else ()
    done = state == action[1]
    return (action[2] if done else state,) if result is UNKNOWN or result == done else ()


def w(process: str, called: float, returned: float | None, value: int) -> Operation:
    return Operation(process, called, returned, ("w", value), None)


def r(process: str, called: float, returned: float, value: int) -> Operation:
    return Operation(process, called, returned, ("r",), value)


LINEARIZABLE: dict[str, list[Operation]] = {
    "nothing": [],
    "one after the other": [w("a", 0, 1, 1), r("b", 2, 3, 1), w("a", 4, 5, 2), r("b", 6, 7, 2)],
    "a read beside a write sees the old": [w("a", 0, 10, 1), r("b", 1, 2, 0), r("c", 11, 12, 1)],
    "a read beside a write sees the new": [w("a", 0, 10, 1), r("b", 1, 2, 1), r("c", 3, 4, 1)],
    "two writes in either order": [w("a", 0, 10, 1), w("b", 0, 10, 2), r("c", 11, 12, 1)],
    "two writes in the other": [w("a", 0, 10, 1), w("b", 0, 10, 2), r("c", 11, 12, 2)],
    "an answer that never came, and it happened": [w("a", 0, None, 1), r("b", 5, 6, 0), r("b", 7, 8, 1)],
    "an answer that never came, and it did not": [w("a", 0, None, 1), r("b", 5, 6, 0), r("b", 700, 800, 0)],
    "touching at one moment": [w("a", 0, 1, 1), r("b", 1, 2, 0)],
    "done, says an answer without a result": [Operation("a", 0, 1, ("cas", 0, 1)), r("b", 2, 3, 1)],
    "one of two swaps": [
        Operation("a", 0, 5, ("cas", 0, 1), True),
        Operation("b", 0, 5, ("cas", 0, 2), False),
        r("c", 6, 7, 1),
    ],
}

NOT: dict[str, tuple[list[Operation], int]] = {
    "a stale read": ([w("a", 0, 1, 1), r("b", 2, 3, 0)], 1),
    "a read from nowhere": ([w("a", 0, 1, 1), r("b", 2, 3, 7)], 1),
    "a read from the future": ([r("b", 0, 1, 1), w("a", 2, 3, 1)], 0),
    "new, then old": ([w("a", 0, 10, 1), r("b", 1, 2, 1), r("c", 3, 4, 0)], 2),
    "an unanswered write seen before its call": ([r("b", 1, 2, 1), w("a", 3, None, 1)], 0),
    "an unanswered write seen, then unseen": ([w("a", 0, None, 1), r("b", 1, 2, 1), r("b", 3, 4, 0)], 2),
    "an unanswered write seen twice": (
        [w("a", 0, None, 1), r("b", 1, 2, 1), w("b", 3, 4, 2), r("b", 5, 6, 1)],
        3,
    ),
    "both of two swaps": (
        [Operation("a", 0, 5, ("cas", 0, 1), True), Operation("b", 0, 6, ("cas", 0, 2), True)],
        1,
    ),
    # Wing and Gong's first example of a history that is none: both see what only one order gives.
    "two readers disagree on the order": (
        [w("a", 0, 1, 1), w("b", 0, 1, 2), r("c", 2, 3, 1), r("d", 4, 5, 2)],
        3,
    ),
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_a_linearizable_history_is_one(name: str) -> None:
    assert check(LINEARIZABLE[name], 0, register) is None


@pytest.mark.parametrize("name", NOT)
def test_a_history_that_is_not_linearizable_is_none_and_the_operation_is_named(name: str) -> None:
    history, wrong = NOT[name]
    found = check(history, 0, register)
    assert found is not None
    assert found.operation == history[wrong]
    assert "not linearizable" in found.describe()
    assert repr(history[wrong].action) in found.describe()


def test_the_report_holds_the_order_so_far_and_what_was_beside() -> None:
    history = [w("a", 0, 1, 1), w("b", 2, 9, 2), w("z", 2, None, 3), r("c", 3, 4, 5)]
    found = check(history, 0, register)
    assert found is not None
    assert found.order[0] == history[0]
    assert found.operation == history[3]
    assert set(found.order) | set(found.concurrent) | {found.operation} == set(history)
    assert "after 1 operations, and" in check(
        [w("a", 0, 1, 1), r("b", 2, 3, 1), r("b", 4, 5, 0)], 0, register
    ).describe(1)  # type: ignore[union-attr]


def test_it_says_so_when_it_gives_up() -> None:
    # 14 unanswered writes before a read that none explains: all orders of all subsets.
    history = [w(f"p{at}", 0, None, at + 1) for at in range(14)] + [r("r", 1, 2, 99)]
    with pytest.raises(GaveUp, match=r"after 1000 steps over 15 operations, 14 of them"):
        check(history, 0, register, budget=1000)


def test_unanswered_operations_that_are_not_needed_cost_nothing() -> None:
    history = [w(f"p{at}", 0, None, at + 1) for at in range(200)]
    history += [r("r", at * 2 + 1, at * 2 + 2, at) for at in range(50)]
    assert check(history, 0, register, budget=20_000) is None


def test_a_long_history_needs_few_steps() -> None:
    history = []
    for at in range(3000):
        history += [w("a", at * 10, at * 10 + 8, at), r("b", at * 10 + 1, at * 10 + 9, at)]
    assert check(history, 0, register, budget=20_000) is None


def test_an_operation_cannot_return_before_its_call() -> None:
    with pytest.raises(ValueError, match="returned before it was called"):
        check([w("a", 2, 1, 1)], 0, register)


def test_partition_ties_together_what_one_operation_touches() -> None:
    def op(*keys: str) -> Operation:
        return Operation("a", 0, 1, keys)

    history = [op("x"), op("y"), op("z"), op("x", "z"), op("y"), op()]
    assert partition(history, lambda action: action) == [
        [history[0], history[2], history[3]],
        [history[1], history[4]],
    ]


# -- against all orders ----------------------------------------------------------------------------------


def by_all_orders(history: Sequence[Operation], initial: int) -> bool:
    """The definition, word for word."""
    must = [i for i, each in enumerate(history) if each.returned is not None]
    may = [i for i, each in enumerate(history) if each.returned is None]
    for count in range(len(may) + 1):
        for chosen in itertools.combinations(may, count):
            for order in itertools.permutations([*must, *chosen]):
                if _in_time(history, order) and _fits(history, order, initial):
                    return True
    return False


def _in_time(history: Sequence[Operation], order: Sequence[int]) -> bool:
    for at, first in enumerate(order):
        for then in order[at + 1 :]:
            returned = history[then].returned
            if returned is not None and returned < history[first].called:
                return False
    return True


def _fits(history: Sequence[Operation], order: Sequence[int], state: int) -> bool:
    for index in order:
        after = register(state, history[index].action, history[index].result)
        if not after:
            return False
        state = after[0]
    return True


@st.composite
def histories(draw: Any) -> list[Operation]:
    made = []
    for at in range(draw(st.integers(0, 6))):
        called = draw(st.integers(0, 8))
        returned = None if draw(st.integers(0, 3)) == 0 else called + draw(st.integers(0, 5))
        kind = draw(st.sampled_from(["w", "r", "cas"]))
        value = draw(st.integers(0, 2))
        if kind == "w":
            made.append(Operation(at, called, returned, ("w", value), None))
        elif kind == "r":
            result = UNKNOWN if returned is None else draw(st.integers(0, 2))
            made.append(Operation(at, called, returned, ("r",), result))
        else:
            result = UNKNOWN if returned is None else draw(st.sampled_from([True, False, UNKNOWN]))
            made.append(Operation(at, called, returned, ("cas", value, draw(st.integers(0, 2))), result))
    return made


@given(histories())
def test_the_answer_is_that_of_a_search_of_all_orders(history: list[Operation]) -> None:
    assert (check(history, 0, register) is None) == by_all_orders(history, 0)


# -- the model of roots ----------------------------------------------------------------------------------


PATHS = ["a", "a.x", "a.x.y", "b", "b.z"]
VALUES: list[Any] = [
    1,
    True,
    1.0,
    None,
    [1, {"k": 2}],
    {},
    {"x": 1},
    {"x": None},
    {"y": {"z": 3}},
    {"x": {"y": 4}},
]


@st.composite
def operations_of_roots(draw: Any) -> Op:
    kind = draw(st.sampled_from(["put", "put", "patch", "delete", "rollback"]))
    expected = draw(st.sampled_from([None, None, None, -1, 0, 1, 2]))
    if kind == "rollback":
        return rollback(draw(st.sampled_from("ab")), draw(st.integers(-3, 4)), expected)
    path = draw(st.sampled_from(PATHS))
    if kind == "delete":
        return delete(path, expected)
    return (put if kind == "put" else patch)(path, draw(st.sampled_from(VALUES)), expected)


@given(st.lists(st.lists(operations_of_roots(), min_size=1, max_size=3), max_size=25))
def test_the_model_does_what_the_store_does(transactions: list[list[Op]]) -> None:
    kept = 4
    step = model.step_with(kept)
    store = core.empty(Kept(versions=kept))
    state = model.EMPTY
    for ops in transactions:
        answer: Any
        try:
            made = core.write(
                store, ops, time=1.0, tega_id="noc", fresh=lambda: "e", max_value=1 << 20, session="s"
            )
            store, answer = made.store, made.outcome
        except TegaError as error:
            answer = error
        operation = model.write_operation("p", 0, 1, ops, answer)
        assert operation is not None
        after = step(state, operation.action, operation.result)
        assert len(after) == 1, operation
        assert step(state, operation.action, UNKNOWN) == after
        state = after[0]
        for path in [("a",), ("a", "x"), ("b", "z")]:
            for version in (None, 0, 1, -1, -4):
                try:
                    node = core.lookup(store, path, version)
                    answer = (plain(node), node[0])
                except TegaError as error:
                    answer = error
                read = model.read_operation("p", 0, 1, path, version, answer)
                assert read is not None
                assert step(state, read.action, read.result) == (state,), read
                if isinstance(read.result, Seen):
                    wrong = read.result._replace(version=(read.result.version or 0) + 1)
                    assert step(state, read.action, wrong) == ()


def test_answers_become_operations() -> None:
    ops = [put("a.x", 1)]
    done = model.write_operation("p", 1, 2, ops, [5, [["a", 0]]])
    assert done == Operation("p", 1, 2, Write((tuple(ops[0]),)), Done(True, (("a", 0),)))
    collided = Collision("", path="a.x", expected=3, actual="absent")
    assert model.write_operation("p", 1, 2, ops, collided).result == Failed("Collision", "absent")  # type: ignore[union-attr]
    for error in (Offline(), StorageError("", outcome="none"), Disconnected("", outcome="none")):
        assert model.write_operation("p", 1, 2, ops, error) is None
    unanswered: list[TegaError | None] = [
        Timeout("", outcome="unknown"),
        Disconnected(""),
        StorageError("", outcome="unknown"),
        None,
    ]
    for each in unanswered:
        unknown = model.write_operation("p", 1, 2, ops, each)
        assert unknown is not None
        assert unknown.returned is None
    told = model.write_operation("p", 1, 2, ops, Timeout("", outcome="committed"))
    assert told is not None
    assert told.returned == 2
    assert told.result is UNKNOWN
    assert model.read_operation("p", 1, 2, ("a",), None, Offline()) is None
    assert model.read_operation("p", 1, None, ("a",), None, None) is None
    assert model.read_operation("p", 1, 2, ("a",), None, NotFound("")).result == Failed("NotFound")  # type: ignore[union-attr]


def test_a_history_of_roots() -> None:
    step = model.step_with()
    first = [("put", ("a", "x"), 1, None, False)]
    second = [("put", ("a", "x"), 2, 0, False)]
    history = [
        model.write_operation("p", 0, 1, first, (1, (("a", 0),))),
        model.write_operation("p", 2, 5, second, (2, (("a", 1),))),
        model.write_operation("q", 2, 5, second, Collision("", path="a.x", expected=0, actual=1)),
        model.read_operation("r", 3, 4, ("a",), None, ({"x": 1}, 0)),
        model.read_operation("r", 6, 7, ("a",), None, ({"x": 2}, 1)),
        model.read_operation("r", 6, 7, ("a",), 0, ({"x": 1}, 0)),
    ]
    operations = [each for each in history if each is not None]
    assert objects_of(operations) == {"a"}
    assert check(operations, model.EMPTY, step) is None
    late = Operation("r", 8, 9, Read(("a", "x")), Seen(frozen(1), 0))
    found = check([*operations, late], model.EMPTY, step)
    assert found is not None
    assert found.operation == late
    assert "a@1 = (('x', '2'),)" in found.describe()
    twice = model.write_operation("q", 6, 7, first, (3, (("a", 1),)))  # reuses a version
    assert twice is not None
    assert check([*operations, twice], model.EMPTY, step) is not None


def objects_of(operations: list[Operation]) -> set[str]:
    return set().union(*(model.objects(each.action) for each in operations))


def test_an_old_version_may_be_compacted() -> None:
    history = [
        model.write_operation("p", at, at, [("put", ("a", "x"), at, None, False)], (1, (("a", at),)))
        for at in range(3)
    ]
    operations = [each for each in history if each is not None]
    gone = Operation("r", 5, 6, Read(("a",), 0), Failed("Compacted"))
    back = Operation("r", 5, 6, Write((("rollback", ("a",), 0, None, False),)), Failed("Compacted"))
    for last in (gone, back):
        assert check([*operations, last], model.EMPTY, model.step_with()) is None
        assert check([*operations, last], model.EMPTY, model.step_with(2)) is None
        assert check([*operations, last], model.EMPTY, model.step_with(3)) is not None
    present = gone._replace(action=Read(("a",), 2))
    assert check([*operations, present], model.EMPTY, model.step_with()) is not None
