"""One run: a broker, agents and programs under load and faults, and times of rest to compare all."""

from __future__ import annotations

from typing import Any

from tega_zmq import log as tega_log
from tega_zmq import store
from tega_zmq.errors import TegaError
from tega_zmq.node import Settings
from tega_zmq.store import ABSENT
from tega_zmq.wire import messages as m
from tests.sim import linearizable, model, rest, rootmodel
from tests.sim.faults import Faults
from tests.sim.host import Host, Setup
from tests.sim.load import CHECKED, Load
from tests.sim.network import Way
from tests.sim.program import Asked, Program
from tests.sim.promises import Ledger
from tests.sim.world import Broken, World

__all__ = ["Story"]

STORM = 2000
"""Events between two times of rest."""

HEARTBEAT = 2.0
LEASE = 10.0
HEARTBEATS = 30
"""So many heartbeats after the last fault, every replica equals its owner."""


class Story:
    """A fleet, its load and its faults, all from the world's seed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = Ledger(world)
        self.load = Load(world, self.ledger)
        random = world.random
        self.kept = store.Kept(versions=random.choice((5, 20, 100)), updates=random.choice((20, 200, 2000)))
        self.broker = self._host("gateway", None, (), ())
        self.a = self._host("a", self.broker, ("config-a", "shared"), ("ops-a",))
        self.b = self._host("b", self.broker, ("config-b", "shared"), ("ops-b",))
        self.hosts = [self.broker, self.a, self.b]
        self.programs: list[Program] = []
        self.gone: list[Program] = []
        for host in self.hosts:
            host.start()
        for name, at in (
            ("noc", self.broker),
            ("web", self.broker),
            ("local-a", self.a),
            ("local-b", self.b),
        ):
            self.program(name, at)
        self.faults = Faults(self)
        self.rests = 0
        self.slowest = 0

    def _host(
        self,
        name: str,
        to: Host | None,
        config: tuple[str, ...],
        operational: tuple[str, ...],
        sync: str = "",
    ) -> Host:
        random = self.world.random
        sync = sync or random.choice(
            ("always", "always", "always", "interval") if to is None else ("always", "interval")
        )
        settings = Settings(
            name,
            lease=LEASE,
            heartbeat=HEARTBEAT,
            changes="tcp://changes",
            config=config,
            operational=operational,
            direct_followers=random.choice((0, 1, 4)),
        )
        setup = Setup(
            settings,
            tega_log.Options(
                sync=sync,
                interval=random.choice((0.05, 1.0)),
                segment=4096 + random.choice((600, 4000, 20000)),
                snapshots=random.choice((1, 2, 2)),
            ),
            self.kept,
            snapshot_after=random.choice((3000, 20000, 100000)),
            latency=random.choice((0.0002, 0.002, 0.02)),
        )
        host = Host(self.world, setup, self.ledger, self._way(), to)
        self.ledger.book(host)
        return host

    def copy_of(self, host: Host) -> Host:
        """Return another device that calls itself as `host` does, with an empty card."""
        settings = host.setup.settings
        copy = self._host(settings.tega_id, host.to, settings.config, settings.operational)
        self.hosts.append(copy)
        return copy

    def _way(self) -> Way:
        way = Way(self.world.random.choice((0.0002, 0.002, 0.02, 0.1)))
        way.full = self.world.random.choice((20, 400, 400))
        return way

    def program(self, name: str, at: Host) -> Program:
        """Start a program."""
        program = Program(self.world, name, at, self._way(), self)
        self.programs.append(program)
        self.load.settle_in(program)
        self.world.after(0.5, self.load.go_on, program, self.world.random.choice((0.05, 0.2, 0.5)))
        return program

    # -- looking on at programs --------------------------------------------------------------------

    def ended(self, asked: Asked) -> None:
        """A request ended."""
        self.ledger.ended(asked)
        self.load.ended(asked)

    def state_changed(self, program: Program, state: str) -> None:
        """A program's session has another state."""
        self.ledger.state_changed(program, state)

    def invoked(self, program: Program, call: m.Invoke) -> Any:
        """A handler runs."""
        return self.ledger.invoked(program, call)

    # -- running -----------------------------------------------------------------------------------

    def run(self, events: int) -> None:
        """Let about `events` happen, with rests. Raises `Broken`."""
        world = self.world
        while world.events < events:
            storm = min(world.events + STORM, events)
            self.load.going = True
            self.faults.begin()
            while world.events < storm:
                world.step()
            self.faults.end()
            self.load.going = False
            self._rest()
        self._linearizable()

    def _rest(self) -> None:
        """The faults are over: within a bounded number of heartbeats all is in step."""
        world = self.world
        world.note("world", "the faults are over", None)
        self.rests += 1
        reason = "nothing was looked at"
        for beats in range(HEARTBEATS):
            world.run_for(HEARTBEAT, 100_000)
            self.faults.repair()
            found = rest.replicas(self)
            if not found:
                self.slowest = max(self.slowest, beats + 1)
                break
            reason = found
        else:
            raise Broken(11, f"{HEARTBEATS} heartbeats after the last fault: {reason}")
        # What still waits ends by its deadline, what was lost by its lease.
        world.run_for(LEASE + 3 * HEARTBEAT + 20.0, 100_000)
        rest.look(self)
        for host in self.hosts:
            self.ledger.old_versions(host)

    def _linearizable(self) -> None:
        if self.broker.setup.options.sync != "always" or self.ledger.cleared:
            return  # then writes may be lost
        operations = []
        mixed: set[str] = set()
        """Roots that a write changed together with one that is not checked, while this node owned both."""
        for asked in self.ledger.history:
            called, returned = asked.event, asked.ended if asked.done else None
            answer = asked.error if asked.error is not None else asked.value
            if asked.kind is m.Get:
                if asked.program.to is not self.broker or asked.fields[0][0] not in CHECKED:
                    continue
                each = rootmodel.read_operation(
                    asked.program.name, called, returned, asked.fields[0], asked.fields[1], answer
                )
            else:
                ops = self.ledger.ops[asked.about]
                if ops is None and asked.about not in self.ledger.done:
                    continue
                if ops is None:
                    return  # what it did is not known: nothing can be said of the whole
                if not ops or not all(op[1][0] in CHECKED for op in ops):
                    if asked.about in self.ledger.done:
                        mixed.update(op[1][0] for op in ops)
                    continue
                each = rootmodel.write_operation(asked.program.name, called, returned, ops, answer)
                if each is not None and each.returned is None and asked.about not in self.ledger.done:
                    continue  # it stands in no log, so it never happened
            if each is not None:
                operations.append(each)
        step = rootmodel.step_with(self.kept.versions)
        for part in linearizable.partition(operations, rootmodel.objects):
            if any(mixed & rootmodel.objects(each.action) for each in part):
                self.ledger.count("histories with writes to other roots")
                continue
            try:
                violation = linearizable.check(part, rootmodel.EMPTY, step, budget=40 * len(part) + 1000)
            except linearizable.GaveUp:
                self.ledger.count("histories given up")
                continue
            self.ledger.count("histories checked")
            if violation is not None:
                raise Broken(1, violation.describe())


__all__ += ["ABSENT", "TegaError", "model"]
