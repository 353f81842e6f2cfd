"""The list of mutants fits the program, and the hunt for them works."""

from __future__ import annotations

import ast
import datetime as dt
from pathlib import Path

import pytest

from tests.sim import run_mutants
from tests.sim.mutants import MUTANTS, PROMISES, RARE, Mutant
from tests.sim.run_mutants import ROOT, Found, hunt, mutated

CHEAP = [mutant for mutant in MUTANTS if not mutant.test and mutant.events < RARE]
"""Found within a few seconds."""


def _today(count: int) -> list[Mutant]:
    """Return `count` of the cheap ones, others each day."""
    first = dt.datetime.now(dt.UTC).toordinal() * count
    return [CHEAP[(first + at) % len(CHEAP)] for at in range(count)]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_place_of_each_mutant_is_there_once_and_what_it_becomes_is_python(mutant: Mutant) -> None:
    text = mutated(mutant)
    ast.parse(text)
    assert text != (ROOT / mutant.file).read_text()
    if mutant.test:
        file, _, name = mutant.test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text()


def test_there_are_mutants_of_every_promise_and_their_names_differ() -> None:
    assert {mutant.promise for mutant in MUTANTS} == set(PROMISES)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30


@pytest.mark.parametrize("mutant", _today(3), ids=lambda mutant: mutant.name)
def test_some_of_them_are_found(mutant: Mutant) -> None:
    found = hunt(mutant, patience=100.0)
    assert found.found, f"{mutant.name} was not found within {mutant.events} events"


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("a = 1\na = 1\n")
    for old, count in (("a = 1\n", 2), ("b", 0)):
        with pytest.raises(ValueError, match=f"wrong: some.py has its old text {count} times, not once"):
            mutated(Mutant("wrong", 1, "some.py", old, "c"), tmp_path)


def test_the_table_says_which_was_not_found() -> None:
    one, other = MUTANTS[0], MUTANTS[1]
    table = run_mutants.markdown(
        [Found(one, True, 7, 1234, 1, "something"), Found(other, False, events=20_000, what="not found")]
    )
    assert f"| {one.promise} | {one.name} | seed 7 | 1,234 | {one.events:,} | 1 |" in table
    assert f"| {other.promise} | {other.name} | not found | 20,000 | {other.events:,} | none |" in table
    assert run_mutants.line(Found(other, False)).startswith("NOT")
