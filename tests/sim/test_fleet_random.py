"""A fleet under random faults: after they end everything is in step, and nothing acknowledged is missing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tega_zmq import store
from tega_zmq.errors import TegaError
from tega_zmq.node import Settings, machine
from tega_zmq.paths import Path
from tega_zmq.store import Kept
from tega_zmq.wire import messages as m
from tests.unit.node.fleet import Client, Fleet, Station

ROOTS = {"config-a": "gateway", "config-b": "gateway", "shared": "gateway", "ops-a": "a", "ops-b": "b"}


class Mirror:
    """The tree that a subscriber of one root puts together from what it hears."""

    def __init__(self) -> None:
        self.value: Any = None

    def hear(self, change: Any) -> None:
        path: Path = change.oids
        if len(path) == 1:
            self.value = None if change.deleted else change.new
            return
        if self.value is None:
            self.value = {}
        at = self.value
        for oid in path[1:-1]:
            at = at.setdefault(oid, {})  # an ephemeral node brings the containers above it into being
        if change.deleted:
            at.pop(path[-1], None)
        else:
            at[path[-1]] = change.new


class Story:
    """One run."""

    def __init__(self, seed: int, *, levels: bool = False) -> None:
        """`levels`: the agents a and b are below a third one, which lists nothing of theirs."""
        self.random = random.Random(seed)
        kept = Kept(versions=10, updates=self.random.choice([10, 20, 2000]))
        direct = self.random.choice((0, 1, 4))
        broker = Settings("gateway", lease=10.0, heartbeat=2.0, changes=":1", direct_followers=direct)
        self.fleet = Fleet(broker, kept)
        self.site = self.fleet.agent("site") if levels else self.fleet.broker
        self.a = self.fleet.agent("a", ("config-a", "shared"), ("ops-a",), self.site)
        self.b = self.fleet.agent("b", ("config-b", "shared"), ("ops-b",), self.site)
        self.clients = [
            self.fleet.client("noc"),
            self.fleet.client("web", self.site),
            self.fleet.client("local-a", self.a),
            self.fleet.client("local-b", self.b),
        ]
        self.writes: dict[str, tuple[Client, int, str]] = {}
        self.calls: list[tuple[Client, int]] = []
        self.mirrors: list[tuple[str, Station, Mirror]] = []
        self.seen: dict[tuple[str, str], tuple[str, int]] = {}
        self.fleet.run()
        for client, root in [(0, "ops-a"), (0, "shared"), (1, "config-b"), (2, "config-a"), (2, "ops-a")]:
            mirror = Mirror()
            self.mirrors.append((root, self.clients[client].to or self.fleet.broker, mirror))
            asked = self.clients[client].subscriptions.to_path((root,), "local", mirror.hear)
            self.clients[client]._follow(asked)
        for at, client in enumerate(self.clients):
            client.register(f"tools.{client.name}", lambda x: x)
            client.register("tools.group", lambda x, at=at: NotImplemented if at == 3 else x)
        self.lossy = 0.0
        self.fleet.losing = lambda agent, frame: self.random.random() < self.lossy

    # -- what happens ------------------------------------------------------------------------------

    def step(self) -> None:
        """One thing happens."""
        chance = self.random.random()
        ready = self.fleet.ready()
        if chance < 0.72 and ready:
            self.random.choice(ready)()
        elif chance < 0.86:
            self.write()
        elif chance < 0.88:
            client = self.random.choice(self.clients)
            target = self.random.choice(["tools.noc", "tools.local-a", "tools.group", "tools.nobody"])
            self.ask(client, m.Call, tuple(target.split(".")), (1,), {}, timeout=self.random.uniform(0.5, 20))
        elif chance < 0.90:
            for station in self.fleet.stations:
                if self.random.random() < 0.7 and station.up:
                    station.sync()
        elif chance < 0.96:
            until = self.fleet.now + self.random.choice([0.01] * 8 + [0.2] * 8 + [1.0] * 4 + [12.0])
            while self.fleet.now < until:
                self.fleet.pass_time(until)
        else:
            self.fault()
        for station in self.fleet.stations:
            self.watch(station)

    def write(self) -> None:
        client = self.random.choice(self.clients)
        root = self.random.choice(sorted(ROOTS))
        name = f"w{len(self.writes)}"
        kind = self.random.random()
        if kind < 0.75:
            value: Any = self.random.choice([len(self.writes), {"x": 1}, "y" * 3000])
            op = ("put", (root, self.random.choice("pqr"), name), value, None, False)
        elif kind < 0.85:
            op = ("put", (root, "presence", client.name), {"at": name}, None, True)
        elif kind < 0.9:
            op = ("patch", (root,), {"patched": name}, None, False)
        elif kind < 0.95:
            op = ("delete", (root, self.random.choice("pqr")), None, None, False)
        elif kind < 0.97:
            op = ("delete", (root,), None, None, False)
        else:
            op = ("rollback", (root,), -1, None, False)
        asked = self.ask(client, m.Write, (op,), name, "", timeout=self.random.choice([1.0, 10.0, 60.0]))
        if asked is not None:
            self.writes[name] = (client, asked, root)

    def ask(self, client: Client, cls: type[Any], *fields: Any, timeout: float) -> int | None:
        id = client.start(cls, *fields, timeout=timeout)
        if cls is m.Call:
            self.calls.append((client, id))
        return id

    def fault(self) -> None:
        kind = self.random.randrange(9)
        dialer = self.random.choice(self.fleet.dialers)
        station = self.random.choice(self.fleet.stations)
        if kind == 0:
            self.fleet.cut(dialer, noticed=self.random.random() < 0.6)
        elif kind in (1, 2):
            for each in self.fleet.dialers:
                if self.random.random() < 0.6:
                    self.fleet.restore(each)
        elif kind == 3 and station.up:
            station.kill()
        elif kind == 4:
            for each in self.fleet.stations:
                if not each.up:
                    each.start()
        elif kind == 5:
            station.lab.auto = not station.lab.auto
        elif kind == 6 and station.up and station.lab.node.failure is None:
            station.fail()
        elif kind == 7:
            self.mend()
        else:
            self.lossy = self.random.choice([0.0, 0.3, 1.0])

    def watch(self, station: Station) -> None:
        """Within an epoch no root moves back, also not over a restart."""
        if station.up:
            for name in ROOTS:
                epoch, version = station.position(name)
                before = self.seen.get((station.name, name))
                assert before is None or before[0] != epoch or before[1] <= version, (station.name, name)
                self.seen[station.name, name] = (epoch, version)

    def mend(self) -> None:
        for station in self.fleet.stations:
            if station.up and station.lab.node.failure is not None:
                station.mend()

    def heal(self) -> None:
        """The faults end."""
        self.lossy = 0.0
        self.mend()
        for dialer in self.fleet.dialers:
            self.fleet.restore(dialer)
        for station in self.fleet.stations:
            if not station.up:
                station.start()
            station.lab.auto = True
            station.sync()
        self.fleet.wait(100.0)

    # -- what must hold ----------------------------------------------------------------------------

    def check(self) -> None:
        stations = {station.name: station for station in self.fleet.stations}
        for root, owner in ROOTS.items():
            where = stations[owner]
            followers = [stations[n] for n in "ab" if root in stations[n].settings.config]
            followers += [station for station in (self.site, self.fleet.broker) if station is not where]
            for follower in followers:
                assert follower.position(root) == where.position(root), (root, follower.name)
                assert follower.tree(root) == where.tree(root), (root, follower.name)
        done: dict[str, int] = {}
        for root, owner in ROOTS.items():
            if root in stations[owner].lab.node.durable.roots:
                kept = stations[owner].disk
                for name in commits(kept, root):
                    done[name] = done.get(name, 0) + 1
        assert all(count == 1 for count in done.values()), "a write was done twice"
        for name, (client, id, root) in self.writes.items():
            outcome = client.done[id]
            if not isinstance(outcome, TegaError) and outcome[0]:
                assert name in done, f"{name} of {client.name} to {root} was acknowledged and is not there"
            undone = ("Offline", "OwnerAway", "NotFound", "InvalidPath")
            if isinstance(outcome, TegaError) and outcome.code in undone:
                assert name not in done, f"{name} failed with {outcome.code} and is there"
        for client, id in self.calls:
            assert id in client.done
        for root, station, mirror in self.mirrors:
            assert mirror.value == station.tree(root), f"{root} as heard at {station.name}"
        for station in stations.values():
            node = station.lab.node
            live = {*node.sessions.by_id, *node.below}
            assert {lease.session for lease in node.tip.leases.values()} == live
            for name in ROOTS:
                found = node.durable.roots.get(name)
                if found is not None and found.owner == "":
                    assert {session for _, session in found.ephemerals.items()} <= live
            assert not node.gated
            assert not node.steps
            assert not node.shown
            assert len(node.calls) == 0
            assert all(not session.pending for session in node.sessions)
            assert machine.next_deadline(node) > self.fleet.now


def commits(disk: list[store.Record], root: str) -> list[str]:
    """Return the messages of the commits of `root`, as they stand in the log of its owner."""
    return [
        update.message
        for record in disk
        if isinstance(record, store.Commit)
        for update in record.updates
        if update.root == root and update.message
    ]


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("levels", [False, True])
def test_after_the_faults_the_fleet_is_in_step_and_nothing_acknowledged_is_missing(
    seed: int, levels: bool
) -> None:
    story = Story(seed, levels=levels)
    for _ in range(1200):
        story.step()
    story.heal()
    story.check()
