"""What the programs do: writes of all kinds, reads, calls, messages, subscriptions, presence, management."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tega_zmq.client.results import Change
from tega_zmq.store import ABSENT
from tega_zmq.wire import messages as m
from tests.sim import model
from tests.sim.program import Asked, Program
from tests.sim.promises import Ledger
from tests.sim.world import Broken, World

__all__ = ["CALLABLE", "ROOTS", "Load", "Mirror"]

ROOTS = ("config-a", "config-b", "shared", "gw", "ops-a", "ops-b")
CHECKED = ("config-a", "config-b", "shared")
"""Roots of the broker that never hold ephemeral nodes: their history must be linearizable."""

CALLABLE = ("tools.noc", "tools.local-a", "tools.group", "tools.nobody")
VALUES: tuple[Any, ...] = (
    0,
    1,
    -7,
    2**40,
    1.5,
    True,
    False,
    None,
    "",
    "text",
    [],
    [1, {"a": None}],
    {},
    {"x": 1},
)
OIDS = ("p", "q", "r", "eth0.100")


class Mirror:
    """The value of one path as a subscription tells it, from change to change."""

    def __init__(self, ledger: Ledger, program: Program, path: tuple[str, ...]) -> None:
        self.ledger = ledger
        self.program = program
        self.path = path
        self.value: Any = None
        self.at: tuple[str, int] = ("", ABSENT)
        self.ready = False

    def __repr__(self) -> str:
        return f"mirror of {self.path}"

    def begin(self, asked: Asked) -> None:
        """The subscription stands: from where on it is told, it is known what stood there."""
        subscribed = self.program.engine.subscriptions.get(asked.value)
        assert subscribed is not None
        if subscribed.scope == "global":
            return  # where it begins is known to the node above only
        epoch, version = subscribed.seen.get(self.path[0], ("", ABSENT))
        known = self.ledger.recorded.get((self.path[0], epoch, version))
        self.at = (epoch, version)
        self.value = None if known is None else model.narrow(known[0], self.path[1:])
        self.ready = True

    def hear(self, changes: tuple[Change, ...]) -> None:
        """Promise 13: with these changes the mirror is what its root was at that version."""
        last = changes[-1]
        if not self.ready:
            self.ready = True
            first = self.ledger.recorded.get((last.root, last.epoch, last.previous_version))
            self.value = None if first is None else model.narrow(first[0], self.path[1:])
        value = self.value
        if last.reset:
            value = None
        for change in changes:
            oids = change.oids[len(self.path) :]
            if change.deleted:
                value = model.remove(value, oids)
            else:
                value = model.put(value, oids, change.new)
        if last.version == ABSENT and self.value is None:
            return  # the root is not there, and was not
        again = last.reset and last.version == self.at[1]  # a root may be told as a whole twice
        if last.epoch == self.at[0] and last.version <= self.at[1] and not again:
            raise Broken(13, f"{self.program.name} hears of {self.path} at {last.version} after {self.at}")
        self.value, self.at = value, (last.epoch, last.version)
        known = self.ledger.recorded.get((self.path[0], last.epoch, last.version))
        if known is None:
            if last.version != ABSENT:
                raise Broken(13, f"{self.program.name} hears of version {last.version} of {self.path[0]}")
            return
        if not model.same(model.narrow(known[0], self.path[1:]), value):
            raise Broken(
                13,
                f"{self.program.name} holds {value!r:.300} at {self.path} after version {last.version}, which"
                f" is {model.narrow(known[0], self.path[1:])!r:.300}",
            )
        if not last.reset and known[1] != last.tega_id:
            raise Broken(13, f"version {last.version} of {self.path[0]} is told as by {last.tega_id}")
        self.ledger.count("changes heard")


class Mirrors:
    """The roots that match a regex, each as the one subscription tells it."""

    def __init__(self, ledger: Ledger, program: Program, mirrors: list[Mirror]) -> None:
        self.ledger = ledger
        self.program = program
        self.all = mirrors
        self.by_root: dict[str, Mirror] = {}

    def __repr__(self) -> str:
        return "mirrors of a regex"

    def _of(self, root: str) -> Mirror:
        mirror = self.by_root.get(root)
        if mirror is None:
            mirror = self.by_root[root] = Mirror(self.ledger, self.program, (root,))
            mirror.ready = True
            self.all.append(mirror)
        return mirror

    def begin(self, asked: Asked) -> None:
        """The subscription stands."""
        subscribed = self.program.engine.subscriptions.get(asked.value)
        assert subscribed is not None
        for root in subscribed.seen:
            if re.fullmatch(subscribed.what, root):
                self._of(root).begin(asked)

    def hear(self, changes: tuple[Change, ...]) -> None:
        """See `Mirror.hear`."""
        self._of(changes[0].root).hear(changes)


class Load:
    """Makes requests at random; the ledger looks at what becomes of them."""

    def __init__(self, world: World, ledger: Ledger) -> None:
        self.world = world
        self.ledger = ledger
        self.random = world.random
        self.writes = 0
        self.calls = 0
        self.sent: dict[str, int] = {}
        """Messages published, by program."""
        self.mirrors: list[Mirror] = []
        self.open: dict[Program, list[_Transaction]] = {}
        self.going = True
        self.disown = False

    # -- one program -------------------------------------------------------------------------------

    def settle_in(self, program: Program) -> None:
        """What a program does first: handlers, subscriptions, presence."""
        random = self.random
        program.ask(m.Register, ("tools", program.name), _handler, timeout=60.0)
        program.ask(m.Register, ("tools", "group"), _handler, timeout=60.0)
        for path in random.sample([("config-a",), ("shared", "p"), ("ops-a",), ("gw",), ("ops-b", "q")], 2):
            self.subscribe(program, path, random.choice(("local", "local", "global")))
        if random.random() < 0.5:
            self.subscribe_regex(program)
        self.listen(program)

    def subscribe_regex(self, program: Program) -> None:
        """Follow whole roots by a regex."""
        mirrors = Mirrors(self.ledger, program, self.mirrors)
        regex = self.random.choice((r"config-.*", r"shared|config-a|ops-a", r"ops-.*"))
        asked = program.subscribe(
            lambda: program.engine.subscriptions.to_regex(regex, "local", mirrors.hear), regex
        )
        asked.about = mirrors

    def subscribe(self, program: Program, path: tuple[str, ...], scope: str) -> None:
        """Follow a path with a mirror."""
        if scope == "global" and path[0] != "gw":
            scope = "local"  # one subscription would be told twice of what this node has as well
        mirror = Mirror(self.ledger, program, path)
        self.mirrors.append(mirror)
        asked = program.subscribe(
            lambda: program.engine.subscriptions.to_path(path, scope, mirror.hear), (path, scope)
        )
        asked.about = mirror

    def listen(self, program: Program) -> None:
        """Hear messages."""

        def hear(message: Any) -> None:
            publisher, number = message.value
            self.ledger.messages_in_order(program.serial, publisher, message.channel, number)

        program.subscribe(
            lambda: program.engine.subscriptions.to_channel("news", False, "global", hear), "news"
        )

    def go_on(self, program: Program, pace: float) -> None:
        """Do one thing after the other, every `pace` seconds or so, as long as the program lives."""
        if program.dead:
            return
        if self.going and not program.paused and program.session.state != "taken over":
            self.act(program)
        self.world.after(self.random.expovariate(1.0) * pace, self.go_on, program, pace)

    def act(self, program: Program) -> None:
        """Do one thing."""
        chance = self.random.random()
        for until, what in _ACTIONS:
            if chance < until:
                what(self, program)
                return

    # -- writes ------------------------------------------------------------------------------------

    def tag(self) -> str:
        """Return the name of a new write."""
        self.writes += 1
        return f"w{self.writes}"

    def op(self, root: str) -> tuple[Any, ...]:
        """Return an operation on `root`, as in a `Write` on the wire."""
        random = self.random
        chance = random.random()
        oid = random.choice(OIDS)
        path: tuple[str, ...] = (root, oid, f"k{random.randrange(6)}")
        if random.random() < 0.2:
            path = (*path, random.choice(OIDS))
        expected = None
        if random.random() < 0.15:
            path, expected = self.expectation(path)
        if chance < 0.68:
            return ("put", path, self.value(), expected, False)
        if chance < 0.72:
            return ("put", path[:2], {"k0": self.value(), "deep": {"k1": self.value()}}, expected, False)
        if chance < 0.80:
            patch = {random.choice(OIDS): {"patched": self.value()}, random.choice(OIDS): {"k1": None}}
            return ("patch", (root,), patch, None, False)
        if chance < 0.90:
            return ("delete", path[: random.choice((2, 3, 3, 4))], None, None, False)
        if chance < 0.92:
            return ("delete", (root,), None, None, False)
        if chance < 0.94:
            return ("put", (root,), {random.choice(OIDS): {"k0": self.value()}}, None, False)
        return ("rollback", (root,), random.choice((-1, -1, -2, -5, 0, 3)), None, False)

    def expectation(self, path: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        """Return a path and a version that it had, mostly lately."""
        for host in self.ledger.books:
            root = host.node.durable.roots.get(path[0]) if host.up else None
            if root is not None and root.owner == "" and root.node is not None:
                node, at = root.node, path[:1]
                for oid in path[1:]:
                    if type(node[1]) is not type(root.ephemerals) or oid not in node[1]:
                        return path, ABSENT
                    node, at = node[1][oid], (*at, oid)
                    if self.random.random() < 0.3:
                        break
                return at if len(at) > 1 else path, node[0] if self.random.random() < 0.85 else node[0] - 1
        return path, ABSENT

    def value(self) -> Any:
        """Return a value."""
        chance = self.random.random()
        if chance < 0.55:
            return self.writes
        if chance < 0.95:
            return self.random.choice(VALUES)
        if chance < 0.99:
            return f"{self.writes:x}" * 300
        return {f"n{number}": "large " * 200 for number in range(30)}

    def write(self, program: Program) -> None:
        """A write of one operation, or of several on one root or two."""
        random = self.random
        roots = [random.choice(ROOTS)]
        count = 1 if random.random() < 0.8 else random.randrange(2, 5)
        if count > 1 and random.random() < 0.5:
            roots = ["config-a", "shared", "config-b"] if random.random() < 0.8 else ["config-a", "ops-a"]
        ops = tuple(self.op(random.choice(roots)) for _ in range(count))
        self.send(program, ops)

    def send(self, program: Program, ops: tuple[Any, ...]) -> Asked:
        """Send a write, and note it."""
        tag = self.tag()
        self.ledger.ops[tag] = ops
        timeout = self.random.choice((0.3, 2.0, 10.0, 10.0, 20.0))
        asked = program.ask(m.Write, ops, tag, "", timeout=timeout, about=tag)
        self.ledger.history.append(asked)
        return asked

    def give_back(self, program: Program) -> None:
        """Empty the roots of devices that the broker owns, so that their devices can claim them again."""
        broker = program.to.node.durable.roots
        for name in ("ops-a", "ops-b"):
            root = broker.get(name)
            if root is not None and root.owner == "" and root.node is not None and not program.dead:
                self.send(program, (("delete", (name,), None, None, False),))

    def presence(self, program: Program) -> None:
        """An ephemeral node, or a change to one."""
        root = self.random.choice(("gw", "gw", "ops-a"))
        path = (root, "presence", program.name)
        if self.random.random() < 0.7:
            self.send(program, (("put", path, {"at": self.writes}, None, True),))
        elif self.random.random() < 0.5:
            self.send(program, (("put", (*path, "more"), self.writes, None, False),))
        else:
            self.send(program, (("delete", path, None, None, False),))

    def begin(self, program: Program) -> None:
        """A transaction of several requests."""
        transaction = _Transaction(self, program)
        self.open.setdefault(program, []).append(transaction)
        transaction.begin()

    # -- the rest ----------------------------------------------------------------------------------

    def read(self, program: Program) -> None:
        """A get, now or of an older version."""
        random = self.random
        path: tuple[str, ...] = (random.choice(ROOTS),)
        if random.random() < 0.6:
            path = (*path, random.choice(OIDS))
        version = random.choice((None, None, None, None, -1, -3, 2))
        asked = program.ask(m.Get, path, version, "node", "", timeout=random.choice((1.0, 10.0)))
        self.ledger.history.append(asked)

    def call(self, program: Program) -> None:
        """A call, to one handler, a group, or a pattern."""
        self.calls += 1
        timeout = self.random.choice((0.5, 2.0, 10.0))
        if self.random.random() < 0.2:
            tag = f"all{self.calls}"
            program.ask(m.CallAll, r"tools\..*", (tag,), {}, timeout=timeout, about=tag)
            return
        tag = f"c{self.calls}"
        path = tuple(self.random.choice(CALLABLE).split("."))
        asked = program.ask(m.Call, path, (tag,), {}, timeout=timeout, about=tag)
        if self.random.random() < 0.05 and asked.id is not None:
            self.world.after(0.01, self._cancel, program, asked)

    def _cancel(self, program: Program, asked: Asked) -> None:
        if not program.dead and not program.paused and not asked.done and asked.id is not None:
            program.session.cancel(asked.id, self.world.now)
            program.engine.process(self.world.now)
            program.flush()

    def publish(self, program: Program) -> None:
        """A message."""
        number = self.sent[program.serial] = self.sent.get(program.serial, 0) + 1
        program.ask(m.Publish, "news", [program.serial, number], timeout=2.0)

    def manage(self, program: Program) -> None:
        """What operators do."""
        what = self.random.choice(("snapshot", "sync", "snapshot"))
        program.ask(m.Manage, what, "", timeout=30.0)

    def ended(self, asked: Asked) -> None:
        """A request ended that this load made."""
        if isinstance(asked.about, (Mirror, Mirrors)) and asked.error is None:
            asked.about.begin(asked)
        elif isinstance(asked.about, _Transaction):
            asked.about.ended(asked)


class _Transaction:
    """A transaction under way: begun, written to, committed or cancelled, one request after the other."""

    def __init__(self, load: Load, program: Program) -> None:
        self.load = load
        self.program = program
        self.txid = ""
        self.ops: list[Any] = []
        self.left = load.random.randrange(1, 4)
        self.roots = load.random.choice((CHECKED, CHECKED, ("ops-a",), ("gw",)))
        self.sure = True

    def __repr__(self) -> str:
        return f"transaction {self.txid}"

    def begin(self) -> None:
        """Ask for it."""
        self.program.ask(m.Begin, timeout=5.0, about=self)

    def ended(self, asked: Asked) -> None:
        """One request of it ended."""
        if asked.error is not None and asked.kind is m.Begin:
            return
        if asked.kind is m.Begin:
            self.txid = asked.value
        elif asked.error is None:
            self.ops.extend(asked.fields[0])
        elif asked.error.code not in ("NotFound", "InvalidPath", "Collision", "MixedOwners", "Compacted"):
            self.sure = False
        if self.program.dead or self.program.paused or not self.load.going:
            return
        if self.left:
            self.left -= 1
            op = self.load.op(self.load.random.choice(self.roots))
            if op[0] == "rollback":
                # By number: back from the present means from when it was begun, which the models do not know.
                op = (*op[:2], abs(op[2]), *op[3:])
            self.program.ask(m.Write, (op,), "", self.txid, timeout=5.0, about=self)
        elif self.load.random.random() < 0.1:
            self.program.ask(m.CancelTransaction, self.txid, timeout=5.0)
        else:
            tag = self.load.tag()
            self.load.ledger.ops[tag] = tuple(self.ops) if self.sure else None
            asked = self.program.ask(m.CommitTransaction, self.txid, tag, timeout=5.0, about=tag)
            self.load.ledger.history.append(asked)


def _handler(*args: Any) -> None:
    """Stands for a handler; the ledger says what it answers."""


_ACTIONS: tuple[tuple[float, Callable[[Load, Program], None]], ...] = (
    (0.50, Load.write),
    (0.58, Load.presence),
    (0.64, Load.begin),
    (0.80, Load.read),
    (0.91, Load.call),
    (0.98, Load.publish),
    (1.00, Load.manage),
)
