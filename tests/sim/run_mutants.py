"""Put the bugs of `mutants.py` into copies of the program, one each, and see whether they are found.

    python -m tests.sim.run_mutants [--jobs N] [--only NAME ...] [--seeds 1-40] [--seed-events N] [--markdown]

Each copy is simulated with one seed after the other, of about N events each, until a promise breaks, or as
many events have happened as the mutant may take. Prints a table; exit status 1 if one was not found in time,
or if the program without a bug fails with any of the seeds, which are left out of the hunt. `--markdown`
prints the table as it stands in docs/testing.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.run import run_seed, seeds_of

ROOT: Final = Path(__file__).resolve().parents[2]
PARTS: Final = ("tega_zmq", "broker", "agents", "tests", "pyproject.toml")
"""What a copy holds."""

SEEDS: Final = "1-150"
"""The seeds that are tried, in this order."""

SEED_EVENTS: Final = 5000
"""Events of one seed, about: its last rest comes on top."""

PATIENCE: Final = 900.0
"""Seconds after which a mutant is given up that simulates no further."""


class Found(NamedTuple):
    """What became of one mutant."""

    mutant: Mutant
    found: bool
    seed: int = 0
    """The seed that found it; 0: a test did, or none."""
    events: int = 0
    """How many events had happened until then, over all seeds."""
    promise: int = 0
    """The promise whose check spoke; 0: none, the program crashed, or hung."""
    what: str = ""
    """What the check said, in one line."""
    seconds: float = 0.0


# -- within the copy -------------------------------------------------------------------------------


def drive(seeds: str, each: int, most: int) -> dict[str, object]:
    """Simulate `seeds` in turn, about `each` events a seed, until there were `most`; say what was found."""
    import tega_zmq

    assert Path(tega_zmq.__file__).is_relative_to(Path.cwd()), f"this is not the copy: {tega_zmq.__file__}"
    done = 0
    for seed in seeds_of(seeds):
        if done >= most:
            break
        outcome = run_seed(seed, each)
        if outcome.failure is not None:
            return {
                "found": done + outcome.events <= most,
                "seed": seed,
                "events": done + outcome.events,
                "promise": outcome.failure.promise,
                "what": outcome.failure.text,
            }
        done += outcome.events
    return {"found": False, "events": done}


# -- around it -------------------------------------------------------------------------------------


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """Return the text of the file with the bug in it. Raises `ValueError` if its place is not found."""
    text = (root / mutant.file).read_text()
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} has its old text {count} times, not once")
    return text.replace(mutant.old, mutant.new)


def copy_to(folder: Path, mutant: Mutant | None, root: Path = ROOT) -> None:
    """Copy the program that stands in `root` into `folder`, with the bug of `mutant`."""
    for part in PARTS:
        source = root / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / part)
    if mutant is not None:
        (folder / mutant.file).write_text(mutated(mutant, root))


def hunt(
    mutant: Mutant,
    seeds: str = SEEDS,
    each: int = SEED_EVENTS,
    patience: float = PATIENCE,
    root: Path = ROOT,
) -> Found:
    """Look for `mutant`, in a copy of its own of the program in `root`."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tega-mutant-") as name:
        folder = Path(name)
        copy_to(folder, mutant, root)
        if mutant.test:
            found = _by_test(folder, mutant)
        else:
            found = _by_simulation(folder, mutant, seeds, each, patience)
    return found._replace(seconds=time.monotonic() - begun)


def _run(folder: Path, arguments: Sequence[str], patience: float) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(folder / part) for part in ("", "broker", "agents"))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


def _by_simulation(folder: Path, mutant: Mutant, seeds: str, each: int, patience: float) -> Found:
    arguments = ["-m", "tests.sim.run_mutants", "--drive", seeds, str(each), str(mutant.events)]
    try:
        ended = _run(folder, arguments, patience)
    except subprocess.TimeoutExpired:
        return Found(mutant, True, what=f"the simulation did not end within {patience:.0f} s")
    lines = ended.stdout.strip().splitlines()
    if ended.returncode or not lines:
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"{mutant.name}: the simulation itself failed: {last}")
    said = json.loads(lines[-1])
    if "promise" not in said:
        return Found(mutant, False, events=said["events"], what="not found")
    what = str(said["what"]).splitlines()[0] if said["what"] else ""
    return Found(mutant, said["found"], said["seed"], said["events"], said["promise"], what)


def _by_test(folder: Path, mutant: Mutant) -> Found:
    arguments = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test]
    ended = _run(folder, arguments, PATIENCE)
    # 1: a test failed. Anything else says nothing of the bug.
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"{mutant.name}: {mutant.test} could not be run:\n{ended.stdout[-2000:]}")
    name = mutant.test.rpartition("::")[2]
    return Found(mutant, ended.returncode == 1, promise=mutant.promise * ended.returncode, what=name)


def line(found: Found) -> str:
    """Return a line of the table."""
    mutant = found.mutant
    by = "test" if mutant.test else f"seed {found.seed}" if found.seed else "-"
    spoke = str(found.promise) if found.promise else "-"
    mark = "ok " if found.found else "NOT"
    return (
        f"{mark} {mutant.promise:2} {mutant.name:32} {by:9} {found.events:7} of {mutant.events:6}  "
        f"{spoke:>2}: {found.what[:110]}"
    )


def markdown(all_found: Sequence[Found]) -> str:
    """Return the table as docs/testing.md has it."""
    rows = [
        "| promise | mutant | found by | after events | of at most | whose check spoke |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for found in all_found:
        mutant = found.mutant
        if mutant.test:
            by, after, most = "a test", "", ""
            spoke = f"`{found.what}`" if found.found else "none"
        else:
            by = f"seed {found.seed}" if found.seed else "not found" if not found.found else "it hung"
            after, most = f"{found.events:,}", f"{mutant.events:,}"
            spoke = str(found.promise) if found.promise else "none"
        rows.append(f"| {mutant.promise} | {mutant.name} | {by} | {after} | {most} | {spoke} |")
    return "\n".join(rows)


def sound(root: Path, seeds: str, each: int) -> dict[int, str]:
    """Run the program in `root`, without a bug. Returns what failed, by seed."""
    ended = _run(root, ["-m", "tests.sim.run_mutants", "--sound", seeds, str(each)], PATIENCE)
    if ended.returncode:
        raise RuntimeError(f"the simulation itself failed: {ended.stderr[-2000:]}")
    return {int(seed): what for seed, what in json.loads(ended.stdout.strip().splitlines()[-1]).items()}


def _failing(seeds: str, each: int) -> dict[int, str]:
    outcomes = [run_seed(seed, each) for seed in seeds_of(seeds)]
    return {
        outcome.seed: f"event {outcome.events}: promise {outcome.failure.promise}: {outcome.failure.text}"
        for outcome in outcomes
        if outcome.failure is not None
    }


def main(arguments: Sequence[str] | None = None, tell: Callable[[str], None] = print) -> int:
    """Run what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="run_mutants", description="see whether the simulation finds bugs")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="at a time")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these mutants alone")
    parser.add_argument("--seed-events", type=int, default=SEED_EVENTS, help="events of one seed")
    parser.add_argument("--seeds", default=SEEDS, help="as of the simulation, in this order (%(default)s)")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for one mutant")
    parser.add_argument("--markdown", action="store_true", help="print the table for the documents")
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--sound", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.drive is not None:
        seeds, each, most = options.drive
        tell(json.dumps(drive(seeds, int(each), int(most))))
        return 0
    if options.sound is not None:
        tell(json.dumps(_failing(options.sound[0], int(options.sound[1]))))
        return 0
    unknown = set(options.only) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"there is no mutant {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    with tempfile.TemporaryDirectory(prefix="tega-sound-") as name:
        # One state of the program for all, whatever is edited meanwhile.
        root = Path(name)
        copy_to(root, None)
        for mutant in chosen:
            mutated(mutant, root)
        failing = sound(root, options.seeds, options.seed_events)
        for seed, what in failing.items():
            tell(f"without a bug seed {seed} fails, and is left out: {what[:200]}")
        seeds = ",".join(str(seed) for seed in seeds_of(options.seeds) if seed not in failing)
        all_found: list[Found] = []
        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = [
                pool.submit(hunt, each, seeds, options.seed_events, options.patience, root) for each in chosen
            ]
            for job in jobs:
                all_found.append(job.result())
                if not options.markdown:
                    tell(line(all_found[-1]))
    if options.markdown:
        tell(markdown(all_found))
    missed = [found.mutant.name for found in all_found if not found.found]
    tell(f"{len(all_found) - len(missed)} of {len(all_found)} mutants found")
    if missed:
        tell(f"not found: {', '.join(missed)}")
    return 1 if missed or failing else 0


if __name__ == "__main__":
    sys.exit(main())
