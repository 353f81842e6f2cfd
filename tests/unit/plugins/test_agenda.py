"""The schedule of a plugin's thread, with times that a test makes up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.plugins.agenda import Agenda, backoff, next_tick


def nothing() -> None:
    return None


def keys(agenda: Agenda, now: float) -> list[object]:
    found = []
    while (job := agenda.take(now)) is not None:
        found.append(job.key)
    return found


def test_jobs_come_by_time_then_in_the_order_in_which_they_were_added() -> None:
    agenda = Agenda()
    for key, due in (("c", 2.0), ("a", 1.0), ("b", 1.0), ("late", 9.0)):
        assert agenda.add(key, due, nothing)
    assert agenda.wait(0.0) == 1.0
    assert keys(agenda, 0.5) == []
    assert keys(agenda, 5.0) == ["a", "b", "c"]
    assert agenda.wait(5.0) == 4.0
    assert agenda.wait(10.0) == 0.0


def test_the_same_key_is_done_once_and_at_the_earlier_time() -> None:
    agenda = Agenda()
    assert agenda.add("a", 5.0, nothing)
    assert not agenda.add("a", 7.0, nothing)
    assert agenda.add("a", 1.0, nothing)
    assert not agenda.add("a", 1.0, nothing)
    assert len(agenda) == 1
    assert keys(agenda, 1.0) == ["a"]
    assert keys(agenda, 9.0) == []
    assert agenda.wait(9.0) is None


def test_what_is_removed_is_not_done() -> None:
    agenda = Agenda()
    agenda.add("a", 1.0, nothing)
    agenda.add("b", 2.0, nothing)
    agenda.remove("a")
    agenda.remove("never")
    assert agenda.wait(0.0) == 2.0
    agenda.clear()
    assert agenda.wait(0.0) is None
    assert len(agenda) == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.booleans()), max_size=30))
@settings(max_examples=100)
def test_against_a_plain_model(steps: list[tuple[str, int, bool]]) -> None:
    agenda = Agenda()
    model: dict[str, tuple[int, int]] = {}
    for number, (key, due, take) in enumerate(steps):
        if take:
            due_keys = sorted((at, key) for key, at in model.items() if at[0] <= due)
            assert keys(agenda, float(due)) == [key for _, key in due_keys]
            for _, each in due_keys:
                del model[each]
        else:
            agenda.add(key, float(due), nothing)
            if key not in model or model[key][0] > due:
                model[key] = (due, number)
        assert len(agenda) == len(model)


@given(st.floats(0, 1e6), st.floats(0.01, 1e4), st.floats(0, 1e6))
@settings(max_examples=200)
def test_a_tick_is_never_in_the_past_and_never_further_than_a_period(
    due: float, period: float, late: float
) -> None:
    now = due + late
    tick = next_tick(due, period, now)
    assert tick >= now
    assert tick <= max(now, due) + period * 1.001


def test_ticks_that_have_passed_are_left_out() -> None:
    assert next_tick(10.0, 5.0, 10.1) == 15.0
    assert next_tick(10.0, 5.0, 27.0) == 30.0


def test_backoff() -> None:
    assert [backoff(n) for n in range(9)] == [5, 5, 10, 20, 40, 80, 160, 300, 300]
    assert backoff(10**6) == 300
    assert backoff(3, 0.5, 1.0) == 1.0
