"""Measures Tega against the baselines and prints the table of docs/benchmarks.md.

`python tests/bench/run.py [--row NAME ...] [--rounds N] [--json FILE]`. In each round both sides of a case
are measured one after the other, and who is first changes from round to round. Of all rounds the median is
taken; a ratio is the median of the rounds' ratios, since the speed of a machine changes more between rounds
than within one.
Exit status 0, met or not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgpack
import zmq

from tests.bench.cases import CASES
from tests.bench.harness import Case, Row, Sample


def measure(case: Case, rounds: int) -> tuple[list[Sample], list[Sample]]:
    """Return the samples of both sides, round by round."""
    ours: list[Sample] = []
    base: list[Sample] = []
    with case.open() as sides:
        for number in range(min(rounds, case.rounds or rounds)):
            if sides.base is not None and number % 2:
                base.append(sides.base())
                ours.append(sides.ours())
            else:
                ours.append(sides.ours())
                if sides.base is not None:
                    base.append(sides.base())
    return ours, base


def judge(row: Row, ours: list[Sample], base: list[Sample]) -> dict[str, Any]:
    """Return one line of the table."""
    mine = [sample[row.metric] for sample in ours]
    theirs = [sample[row.metric] for sample in base if row.metric in sample]
    ratio = (
        statistics.median(left / right for left, right in zip(mine, theirs, strict=True)) if theirs else None
    )
    middle = max(mine) if row.worst else statistics.median(mine)
    found = ratio if row.ratio else middle
    met = None
    if row.rule and found is not None:
        met = found >= row.limit if row.rule == ">=" else found <= row.limit
    return {
        "title": row.title,
        "unit": row.unit,
        "ours": middle,
        "base": (max(theirs) if row.worst else statistics.median(theirs)) if theirs else None,
        "ratio": ratio,
        "required": f"{row.rule} {row.limit:g}{'' if row.ratio else ' ' + row.unit}" if row.rule else "",
        "met": met,
        "rounds": {"ours": mine, "base": theirs},
    }


def number(value: float | None) -> str:
    """Return `value` with as many digits as it deserves."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(name: str, line: dict[str, Any]) -> str:
    """Return the line as a row of a table."""
    verdict = {None: "", True: "met", False: "NOT MET"}[line["met"]]
    cells = [
        name.ljust(16),
        f"{line['title']} ({line['unit']})".ljust(72),
        number(line["ours"]).rjust(8),
        number(line["base"]).rjust(8),
        (f"{line['ratio']:.2f}" if line["ratio"] is not None else "").rjust(6),
        line["required"].ljust(18),
        verdict.ljust(7),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Run the benches that are asked for."""
    parser = argparse.ArgumentParser(description="Measure Tega against the baselines.")
    names = [case.name for case in CASES]
    parser.add_argument("--row", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write all samples there too")
    options = parser.parse_args()
    head = [
        "row".ljust(16),
        "what".ljust(72),
        "    ours",
        "    base",
        " ratio",
        "required".ljust(18),
        "verdict",
    ]
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join("-" * (len(cell) + 2) for cell in head) + "|", flush=True)
    results: dict[str, Any] = {}
    for case in CASES:
        if options.row and case.name not in options.row:
            continue
        try:
            ours, base = measure(case, options.rounds)
        except Exception as error:  # noqa: BLE001  # one case that cannot run must not hide the others
            print(f"| {case.name.ljust(16)} | could not be measured: {str(error)[-1500:]}", flush=True)
            results[case.name] = {"error": str(error)}
            continue
        lines = {row.metric: judge(row, ours, base) for row in case.rows}
        results[case.name] = lines
        for line in lines.values():
            print(show(case.name, line), flush=True)
    if options.json:
        machine = {
            "python": platform.python_version(),
            "pyzmq": zmq.__version__,
            "libzmq": zmq.zmq_version(),
            "msgpack": ".".join(map(str, msgpack.version[:3])),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "results": results}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
