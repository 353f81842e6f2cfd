"""A thousand sessions come and go, in order or killed; nothing of them is left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.checks import measure, where_they_were
from tests.processes import Fleet, until

COMER = """
import os, sys, tega_zmq, zmq
url, prefix, count, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = zmq.Context()
for number in range(rounds):
    held = []
    for k in range(count):
        client = tega_zmq.connect(url, f"{prefix}-{number}-{k}", timeout=30, context=context)
        client.put(("presence", client.tega_id), 1, ephemeral=True)
        client.subscribe("presence", lambda change: None)
        client.listen("news", lambda message: None)
        client.register(("tools", client.tega_id), lambda: 1)
        held.append(client)
    if number < rounds - 1:
        for client in held:
            client.close()
os._exit(0)
"""
"""Opens `count` sessions and closes them, `rounds` times; dies with those of the last round."""


def come_and_go(url: str, programs: int, count: int, rounds: int, prefix: str) -> None:
    """`programs` one after the other; half of the sessions are closed, half killed, if `rounds` is 2."""
    for number in range(programs):
        done = subprocess.run(
            [sys.executable, "-c", COMER, url, f"{prefix}{number}", str(count), str(rounds)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("where", ["broker", "agent"])
def test_a_thousand_sessions_leave_nothing_behind(fleet: Fleet, where: str) -> None:
    fleet.broker.start()
    fleet.agent("pi1", **{"session.lease": "2"}).start()
    url = fleet.url if where == "broker" else fleet.socket("pi1")
    noc = fleet.client("noc")

    def alone() -> bool:
        return set(noc.inspect("ids")) == {"noc", "pi1"} and not noc.get("presence", {})

    come_and_go(url, 2, 25, 2, "warm")
    until(alone, "the first are gone")
    before = measure(fleet)
    come_and_go(url, 20, 25, 2, "s")
    until(alone, "all are gone")
    assert not noc.inspect("handlers") and not noc.inspect("subscribers")
    where_they_were(fleet, before)
