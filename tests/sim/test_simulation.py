"""The simulation as CI runs it: 300,000 events, over seeds that once found something and over fresh ones.

The fresh seeds hang on the day, so that each day tries others and a failure can be repeated: the command that
does it is printed with the failure.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EVENTS = 5000
FRESH = 30
"""Fresh seeds a run."""


def kept() -> list[tuple[int, int]]:
    """Return the kept seeds and their events."""
    lines = (Path(__file__).parent / "kept_seeds").read_text().splitlines()
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines if not line.startswith("#")]


def simulate(seeds: str, events: int) -> tuple[int, str]:
    """Run the command as a user would; return the events that happened, and what was printed."""
    jobs = str(min(os.cpu_count() or 1, 4))
    command = [
        sys.executable,
        "-m",
        "tests.sim.run",
        "--seeds",
        seeds,
        "--events",
        str(events),
        "--jobs",
        jobs,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
    found = re.fullmatch(r"(\d+) events, every promise held", last)
    if found is None:
        pytest.fail(done.stdout[-8000:] + done.stderr[-2000:], pytrace=False)
    return int(found[1]), done.stdout


@pytest.mark.timeout(600)
def test_300_000_events_over_kept_and_fresh_seeds() -> None:
    held = 0
    by_events: dict[int, list[int]] = {}
    for seed, events in kept():
        by_events.setdefault(events, []).append(seed)
    for events, seeds in by_events.items():
        held += simulate(",".join(map(str, seeds)), events)[0]
    first = dt.datetime.now(dt.UTC).date().toordinal() * 1000
    while held < 300_000:
        held += simulate(f"{first}-{first + FRESH - 1}", EVENTS)[0]
        first += FRESH


def test_a_seed_runs_the_same_again() -> None:
    def traced() -> str:
        command = [sys.executable, "-m", "tests.sim.run", "--seeds", "7", "--events", "2000", "--trace"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        return done.stdout

    assert traced() == traced()
