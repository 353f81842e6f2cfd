"""Is a history of concurrent operations linearizable?

A history is linearizable if every operation can be given one moment between its call and its return, so that
all of them, done one after the other in the order of these moments, give the results that were seen.

The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, JPDC 17, 1993): take any
operation that nobody precedes, do it, go on with the rest; where nothing fits, go back. With the memory of
Lowe (Testing for Linearizability, Concurrency and Computation 29(4), 2017): a set of operations that led to a
state is looked at once. The list of calls and returns, from which an operation is lifted and put back, is
theirs too; Knossos and Porcupine search in the same way. `partition` splits a history into parts that share
no object; such a history is linearizable if each part is (Herlihy and Wing, Linearizability, TOPLAS 12(3),
1990, theorem 1).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

__all__ = ["UNKNOWN", "GaveUp", "Operation", "Violation", "check", "partition"]

State = TypeVar("State", bound=Hashable)

Step = Callable[[State, Any, Any], Iterable[State]]
"""`step(state, action, result)` returns the states that may follow when `action` gave `result` on `state`;
none: it cannot have given that. With `UNKNOWN` as the result, the states that any result may leave."""


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""The result of an operation whose caller was not told it."""


class Operation(NamedTuple):
    """One operation of a history."""

    process: Hashable
    """Who called; only for the report."""
    called: float
    """When: a time, or better a counter of the steps of a simulation. What is called at the moment at which
    another returns counts as concurrent with it."""
    returned: float | None
    """When the answer came. None: it never did; it happened at any time after the call, or never."""
    action: Any
    result: Any = UNKNOWN
    """What the answer was; `UNKNOWN` if there was none, or if it only said that the operation was done."""


class Violation(NamedTuple):
    """A history that is not linearizable."""

    operation: Operation
    """The first operation that no order could go beyond: it returned before any place for it was found."""
    order: tuple[Operation, ...]
    """The longest order that could be found before it."""
    state: Any
    """Where that order leads to."""
    concurrent: tuple[Operation, ...]
    """The other operations that had been called by then and are not in `order`."""

    def describe(self, last: int = 12) -> str:
        """Return a report of a few lines, with the `last` operations of the order."""
        lines = [f"not linearizable: no place for {_line(self.operation)}", f"  on the state {self.state!r}"]
        if len(self.order) > last:
            lines.append(f"  after {len(self.order) - last} operations, and")
        lines += [f"  after {_line(each)}" for each in self.order[-last:]]
        lines += [f"  beside {_line(each)}" for each in self.concurrent]
        return "\n".join(lines)


class GaveUp(Exception):
    """The search took more than its budget of steps: the history may be linearizable or not."""


def check(
    operations: Iterable[Operation], initial: State, step: Step[State], *, budget: int = 2_000_000
) -> Violation | None:
    """Return None if `operations` is a linearizable history that begins in `initial`, else where it fails.

    `budget`: how often `step` may be called; the time is in proportion to it, and to the count of operations.
    Raises `GaveUp` beyond it, and `ValueError` for an operation that returned before it was called.
    """
    search = _Search(operations, step, budget)
    return search.run(initial)


def partition(
    operations: Iterable[Operation], objects: Callable[[Any], Iterable[Hashable]]
) -> list[list[Operation]]:
    """Split a history into the least parts of which no two touch the same object.

    `objects(action)` names all objects that an action reads or writes. One that touches several ties them
    together, so that the parts can always be checked apart.
    """
    parent: dict[Hashable, Hashable] = {}

    def top(each: Hashable) -> Hashable:
        parent.setdefault(each, each)
        while parent[each] != each:
            parent[each] = parent[parent[each]]
            each = parent[each]
        return each

    touched: list[tuple[Operation, Hashable]] = []
    for operation in operations:
        names = list(objects(operation.action))
        if names:
            for other in names[1:]:
                parent[top(other)] = top(names[0])
            touched.append((operation, names[0]))
    parts: dict[Hashable, list[Operation]] = {}
    for operation, name in touched:
        parts.setdefault(top(name), []).append(operation)
    return list(parts.values())


class _Frame(NamedTuple):
    """One operation of the order under trial."""

    operation: int
    state: Any
    """The state before it."""
    done: int
    """The operations before it, as bits."""
    others: Iterator[tuple[int, Any]]
    """What else could come in its place."""


class _Search:
    """One search. Events of the history stand in a linked list: those of operations that are in the order
    under trial are lifted from it, and put back, as Knuth's dancing links."""

    def __init__(self, operations: Iterable[Operation], step: Step[Any], budget: int) -> None:
        self.operations: Sequence[Operation] = sorted(operations, key=lambda each: each.called)
        self.step = step
        self.budget = budget
        self.steps = 0
        events: list[tuple[float, int, int]] = []
        for index, each in enumerate(self.operations):
            events.append((each.called, 0, index))
            if each.returned is not None:
                if each.returned < each.called:
                    raise ValueError(f"it returned before it was called: {_line(each)}")
                events.append((each.returned, 1, index))
        events.sort()
        # Places 1..n are the events, 0 is the head and n + 1 the end of the list.
        count = len(events)
        self.end = count + 1
        self.next = [*range(1, count + 2), 0]
        self.previous = [0, *range(count + 1)]
        self.operation_at = [-1, *(index for _, _, index in events), -1]
        self.is_call = [False, *(kind == 0 for _, kind, _ in events), False]
        self.call_place = [0] * len(self.operations)
        self.return_place = [0] * len(self.operations)
        for place, (_, kind, index) in enumerate(events, 1):
            (self.return_place if kind else self.call_place)[index] = place
        # Those without an answer are tried last: most of them are not needed, and each doubles the search.
        self.open = [index for index, each in enumerate(self.operations) if each.returned is None]
        for index in self.open:
            self._cut(self.call_place[index])

    def run(self, initial: Any) -> Violation | None:
        left = len(self.operations) - len(self.open)
        state, done = initial, 0
        seen: set[tuple[int, Any]] = set()
        frames: list[_Frame] = []
        best: Violation | None = None
        most = -1
        choices = self._choices(state, done)
        while left:
            for index, after in choices:
                key = (done | 1 << index, after)
                if key not in seen:
                    seen.add(key)
                    frames.append(_Frame(index, state, done, choices))
                    done, state = key
                    if self._lift(index):
                        left -= 1
                    choices = self._choices(state, done)
                    break
            else:
                if len(self.operations) - left > most:
                    most = len(self.operations) - left
                    best = self._violation(frames, state, done)
                if not frames:
                    return best
                index, state, done, choices = frames.pop()
                if self._put_back(index):
                    left += 1
        return None

    def _choices(self, state: Any, done: int) -> Iterator[tuple[int, Any]]:
        """Yield (operation, state after it) of all that can come next."""
        place = self.next[0]
        while self.is_call[place]:
            index = self.operation_at[place]
            for after in self._after(state, index):
                yield index, after
            place = self.next[place]
        for index in self.open:
            if self.call_place[index] > place:
                break
            if not done >> index & 1:
                for after in self._after(state, index):
                    if after != state:  # if it changed nothing, it may as well never have happened
                        yield index, after

    def _after(self, state: Any, index: int) -> Iterable[Any]:
        self.steps += 1
        if self.steps > self.budget:
            raise GaveUp(
                f"no answer after {self.budget} steps over {len(self.operations)} operations, "
                f"{len(self.open)} of them without an outcome"
            )
        each = self.operations[index]
        return self.step(state, each.action, each.result)

    def _lift(self, index: int) -> bool:
        if self.operations[index].returned is None:
            return False
        self._cut(self.call_place[index])
        self._cut(self.return_place[index])
        return True

    def _put_back(self, index: int) -> bool:
        if self.operations[index].returned is None:
            return False
        self._join(self.return_place[index])
        self._join(self.call_place[index])
        return True

    def _cut(self, place: int) -> None:
        before, after = self.previous[place], self.next[place]
        self.next[before], self.previous[after] = after, before

    def _join(self, place: int) -> None:
        before, after = self.previous[place], self.next[place]
        self.next[before] = self.previous[after] = place

    def _violation(self, frames: list[_Frame], state: Any, done: int) -> Violation:
        place = self.next[0]
        called: list[Operation] = []
        while self.is_call[place]:
            called.append(self.operations[self.operation_at[place]])
            place = self.next[place]
        blocked = self.operations[self.operation_at[place]]
        called += [self.operations[i] for i in self.open if self.call_place[i] < place and not done >> i & 1]
        order = tuple(self.operations[frame.operation] for frame in frames)
        return Violation(blocked, order, state, tuple(each for each in called if each is not blocked))


def _line(each: Operation) -> str:
    returned = "never" if each.returned is None else f"{each.returned:g}"
    return f"{each.process} [{each.called:g}, {returned}] {each.action!r} -> {each.result!r}"
