"""kill -9 of broker and agents under load, round after round. CHAOS_ROUNDS says how many, by default 10."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.chaos.checks import Doomed, Resources, connected, measure, present, replicas_equal, where_they_were
from tests.chaos.workload import Caller, Counter, Load, Pair, Sequence, Shared, Watcher
from tests.processes import Fleet, until

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "10"))
SEED = int(os.environ.get("CHAOS_SEED", str(random.randrange(1_000_000))))

READY = "ready tega_id="

SHORT = {"history.updates": "200"}
"""Histories that are soon as long as they get, so that what is used can be compared."""

KINDS = ("broker", "pi1", "pi2", "broker away", "broker and pi1", "broker twice", "pi1 away", "all")
"""What is killed; away: for as long as it takes the others to do some work without it."""


def add_agents(fleet: Fleet) -> None:
    """Two agents: one syncs each commit, one as agents do by default."""
    for name, sync in (("pi1", "always"), ("pi2", "interval")):
        fleet.agent(
            name,
            config=f"[config-{name}, common]",
            operational=f"[ops-{name}, cmd-{name}]",
            sync=sync,
            **{"session.lease": "2", "reconnect.max": "1", **SHORT},
        )


WARM = 4
"""The round after which what is used is measured."""


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_kill_9_under_load(fleet: Fleet) -> None:
    print(f"CHAOS_SEED={SEED} CHAOS_ROUNDS={ROUNDS}")
    draw = random.Random(SEED)
    fleet.broker.settings.update(SHORT)
    fleet.broker.start()
    add_agents(fleet)
    for agent in fleet.agents.values():
        agent.start()
    w1, w2, op = (fleet.client(name, timeout=20) for name in ("w1", "w2", "op"))
    d1, d2 = fleet.client("d1", at="pi1", timeout=20), fleet.client("d2", at="pi2", timeout=20)
    clients = [w1, w2, op, d1, d2]
    d1.register("calls.pi1.echo", lambda value: value)
    w1.register("tools.echo", lambda value: value)
    for client in clients:
        client.put(("presence", client.tega_id), 1, ephemeral=True)
    load = Load(
        [
            Counter(w1, "count"),
            Counter(d1, "config-pi1"),
            Sequence(w2, "common"),
            Sequence(d2, "config-pi2"),
            Counter(d1, "ops-pi1"),
            Sequence(d2, "ops-pi2"),
            Counter(w2, "cmd-pi1"),
            Sequence(w1, "cmd-pi2"),
            Pair(w1, ("tx-a", "tx-b")),
            Shared(w2, "shared"),
            Shared(d1, "shared"),
            Shared(d2, "shared"),
            Caller(op, "calls.pi1.echo"),
            Caller(d2, "tools.echo"),
        ]
    )
    watchers = [
        Watcher(op, "count"),
        Watcher(op, "shared"),
        Watcher(op, "ops-pi1"),
        Watcher(d1, "common"),
        Watcher(d2, "config-pi2"),
    ]
    baseline: dict[str, Resources] = {}
    for number in range(ROUNDS):
        kind = KINDS[number % len(KINDS)]
        print(f"round {number}: {kind}", flush=True)
        # A program that dies together with its agent must not leave its node at the broker behind.
        with_agent = "pi1" in kind or draw.random() < 0.5
        doomed = Doomed(fleet.socket("pi1") if with_agent else fleet.url, f"doomed-{number}")
        load.start()
        try:
            load.progress(draw.randrange(50, 400))
            doomed.kill()
            strike(fleet, load, kind, draw)
            load.progress(draw.randrange(50, 400))
        finally:
            doomed.kill()
            load.stop()
        connected(clients)
        load.check()
        for watcher in watchers:
            until(lambda watcher=watcher: watcher.check() or True, f"subscriber of {watcher.root}")
        for name, device in (("pi1", d1), ("pi2", d2)):
            replicas_equal(op, device, (f"config-{name}", "common"))
            replicas_equal(device, op, (f"ops-{name}", f"cmd-{name}"))
        present(op, [client.tega_id for client in clients], [doomed.name])
        until(lambda doomed=doomed: doomed.name not in str(op.inspect("handlers")), "its handler is gone")
        if baseline:
            where_they_were(fleet, baseline)
        used = measure(fleet)
        print(f"  {sum(worker.acknowledged for worker in load.workers)} acknowledged, {used}", flush=True)
        if number == WARM:
            baseline = used


def strike(fleet: Fleet, load: Load, kind: str, draw: random.Random) -> None:
    """Kill as `kind` says, and start again what was killed."""
    if kind == "all":
        names = ["broker", "pi1", "pi2"]
    else:
        names = [name for name in ("broker", "pi1", "pi2") if name in kind]
    programs = [fleet.broker if name == "broker" else fleet.agents[name] for name in names]
    for program in programs:
        program.kill()
    if kind == "broker away":
        load.progress(50, lambda worker: worker.name.startswith(("counter ops-", "sequence ops-")))
    if kind == "pi1 away":
        load.progress(200, lambda worker: worker.name.startswith(("counter count", "sequence common")))
    if "twice" in kind:
        for program in programs:
            program.spawn()
            time.sleep(draw.random() * 0.6)  # a moment of its start, any
            program.kill()
    ready = [program.lines(READY) for program in programs]
    for program in programs:
        program.spawn()
    for program, before in zip(programs, ready, strict=True):
        until(
            lambda program=program, before=before: program.lines(READY) > before, f"{program.module} is ready"
        )
