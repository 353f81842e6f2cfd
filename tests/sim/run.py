"""Run the simulation: `python -m tests.sim.run --seeds 1-20 --events 15000`.

Each seed is a run of its own, and prints one line. The exit status is 1 if a promise was broken in any of
them. A failing seed fails again, at the same event, with `--seeds S --events N --trace`: in a process that
has PYTHONHASHSEED=0, which the command sees to.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from tests.sim import bounds
from tests.sim.story import Story
from tests.sim.world import Broken, World

__all__ = ["Failure", "Outcome", "main", "run_seed"]

EVENTS = 15_000
LINES = 60
"""Lines of the trace that are printed before a failure."""


class Failure(NamedTuple):
    """What broke."""

    promise: int
    """The number of the promise; 0: the product or the simulation raised an error that nothing may raise."""
    text: str


class Outcome(NamedTuple):
    """How a seed went."""

    seed: int
    events: int
    """How many happened."""
    failure: Failure | None
    trace: list[str]
    """The last steps, the newest last; empty if nothing failed."""
    counts: dict[str, int]
    """How often things happened that a run should have."""


def run_seed(seed: int, events: int = EVENTS, *, trace: bool = False) -> Outcome:
    """Run one seed for about `events` events. `trace`: print every step when it happens."""
    world = World(seed, print if trace else None)
    failure = None
    story = None
    try:
        with bounds.small() as queues:
            story = Story(world)
            story.ledger.queues = queues
            story.run(events)
    except Broken as broken:
        failure = Failure(broken.promise, broken.text)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is told with its seed)
        import traceback

        failure = Failure(0, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    counts = dict(story.ledger.counts) if story is not None else {}
    if story is not None:
        counts["slowest rest, heartbeats"] = story.slowest
        counts["messages dropped"] = story.ledger.queues.dropped
    lines = [line.text() for line in world.trace] if failure is not None else []
    return Outcome(seed, world.events, failure, lines, counts)


def report(outcome: Outcome, events: int, lines: int = LINES) -> str:
    """Return what is printed of `outcome`."""
    if outcome.failure is None:
        return f"seed {outcome.seed} held for {outcome.events} events"
    promise, text = outcome.failure
    what = f"promise {promise}: {text}" if promise else text
    return "\n".join(
        [
            *outcome.trace[-lines:],
            f"seed {outcome.seed} failed at event {outcome.events}: {what}",
            f"  again: python -m tests.sim.run --seeds {outcome.seed} --events {events} --trace",
        ]
    )


def seeds_of(text: str) -> list[int]:
    """Return the seeds that `1-20`, `7` or `1,5,9-11` names."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def _one(job: tuple[int, int]) -> Outcome:
    return run_seed(*job)


def outcomes(seeds: list[int], events: int, jobs: int) -> Iterator[Outcome]:
    """Yield the outcome of each seed when it is there, in any order."""
    work = [(seed, events) for seed in seeds]
    if jobs == 1 or len(work) == 1:
        yield from map(_one, work)
        return
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=8) as pool:
        yield from pool.imap_unordered(_one, work)


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run", description=__doc__)
    parser.add_argument("--seeds", help="1-20, 7, or 1,5,9-11; without it, fresh ones")
    parser.add_argument("--events", type=int, default=EVENTS, help="events a seed (default %(default)s)")
    parser.add_argument("--trace", action="store_true", help="print every step")
    parser.add_argument("--counts", action="store_true", help="print what happened how often")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time (default %(default)s)")
    parser.add_argument(
        "--for", type=float, dest="seconds", help="seconds after which no more seeds are begun"
    )
    options = parser.parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0" and arguments is None:
        # The order of sets and maps of text hangs on it, and so does what happens.
        sys.stdout.flush()
        command = [sys.executable, "-m", "tests.sim.run", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})
    fresh = int.from_bytes(os.urandom(5), "big") * 1000
    seeds = seeds_of(options.seeds) if options.seeds else list(range(fresh, fresh + 1000))
    if options.trace:
        failed = False
        for seed in seeds:
            outcome = run_seed(seed, options.events, trace=True)
            print(report(outcome, options.events, 0))
            failed = failed or outcome.failure is not None
        return int(failed)
    until = None if options.seconds is None else time.monotonic() + options.seconds
    counts: dict[str, int] = {}
    failed = False
    done = 0
    while seeds:
        batch, seeds = seeds[: 4 * options.jobs], seeds[4 * options.jobs :]
        for outcome in outcomes(batch, options.events, options.jobs):
            print(report(outcome, options.events), flush=True)
            failed = failed or outcome.failure is not None
            done += outcome.events
            for what, count in outcome.counts.items():
                counts[what] = (
                    max(counts.get(what, 0), count) if "slowest" in what else counts.get(what, 0) + count
                )
        if until is not None and time.monotonic() > until:
            break
    if options.counts:
        for what, count in sorted(counts.items()):
            print(f"{count:9d} {what}")
    print(f"{done} events, {'a promise was broken' if failed else 'every promise held'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
