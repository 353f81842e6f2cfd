"""What must hold when the faults are over and everything has come to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tega_zmq.store import ABSENT
from tests.sim import model
from tests.sim.host import Host
from tests.sim.program import Program
from tests.sim.world import Broken

if TYPE_CHECKING:
    from tests.sim.story import Story

__all__ = ["look", "replicas"]


def replicas(story: Story) -> str:
    """Promise 11: return what is not in step yet, or an empty text."""
    for agent in story.hosts:
        if agent is story.broker:
            continue
        if agent.node.uplink is None or agent.node.uplink.state != "connected":
            return f"{agent.name} is not connected"
        for name in agent.setup.settings.config:
            found = _apart(story.broker, agent, name)
            if found:
                return found
        for name in agent.setup.settings.operational:
            if not _held(story.broker, name):
                found = _apart(agent, story.broker, name)
                if found:
                    return found
    return ""


def _held(broker: Host, name: str) -> bool:
    """Whether the broker owns the root and holds data in it: then no agent can claim it."""
    root = broker.node.durable.roots.get(name)
    return root is not None and root.owner == "" and root.node is not None


def _position(host: Host, name: str) -> tuple[str, int, Any]:
    root = host.node.durable.roots.get(name)
    return ("", ABSENT, None) if root is None else (root.epoch, root.version, model.as_plain(root.node))


def _apart(owner: Host, follower: Host, name: str) -> str:
    one, other = _position(owner, name), _position(follower, name)
    if one[1] == ABSENT and other[1] == ABSENT:
        return ""
    if one[:2] != other[:2]:
        return f"{name} is {one[:2]} at {owner.name}, {other[:2]} at {follower.name}"
    if not model.same(one[2], other[2]):
        return f"{name} is {one[2]!r:.300} at {owner.name}, {other[2]!r:.300} at {follower.name}"
    return ""


def look(story: Story) -> None:
    """All the other promises that show at rest."""
    found = replicas(story)
    if found:
        raise Broken(11, f"in step once, and not any more: {found}")
    refused_writes(story)
    requests(story)
    mirrors(story)
    sessions(story)
    ephemerals(story)


def refused_writes(story: Story) -> None:
    """Promise 6: what certainly was not done is not done later either."""
    ledger = story.ledger
    for tag in ledger.refused.keys() & ledger.done.keys():
        raise Broken(6, f"{tag} failed with {ledger.refused[tag]}, and is done")


def requests(story: Story) -> None:
    """Promise 17: nothing waits for ever."""
    now = story.world.now
    for program in story.programs:
        for asked in program.asked:
            if asked.deadline + 1.0 < now:
                raise Broken(17, f"{asked!r} of {program.name} has not ended")
    for host in story.hosts:
        node = host.node
        waiting: dict[str, Any] = {
            "answers": list(node.gated),
            "records": list(node.steps),
            "forwarded answers": node.shown,
            "calls": [1] * len(node.calls),
            "requests": [session.tega_id for session in node.sessions if session.pending],
        }
        for what, found in waiting.items():
            if found:
                raise Broken(17, f"{len(found)} {what} still wait at {host.name}: {found!r:.200}")


def mirrors(story: Story) -> None:
    """Promise 13: who follows a path has it as it is."""
    for mirror in story.load.mirrors:
        program = mirror.program
        if program.dead or program.session.state != "connected" or not mirror.ready:
            continue
        root = program.to.node.durable.roots.get(mirror.path[0])
        if root is None:
            continue
        value = model.narrow(model.as_plain(root.node), mirror.path[1:])
        if not model.same(value, mirror.value):
            raise Broken(
                13,
                f"{program.name} holds {mirror.value!r:.300} at {mirror.path} ({mirror.at}); at"
                f" {program.to.name} it is {value!r:.300} ({root.epoch}, {root.version})",
            )


def _known_above(program: Program) -> None:
    """What a program offers at an agent is offered at the broker too."""
    host, above = program.to, program.to.to
    if above is None or not host.node.online:
        return
    beyond = above.node.sessions.by_id.get(program.session.session)
    for path in program.engine.belongings.handlers:
        if beyond is None or path not in beyond.handlers:
            raise Broken(16, f"{program.name} offers {path} at {host.name}; {above.name} does not know")


def sessions(story: Story) -> None:
    """Promise 16: every program is back, with its handlers, its presence and its subscriptions."""
    for program in story.programs:
        if program.dead or program.session.state == "taken over":
            continue
        if program.session.state != "connected":
            raise Broken(16, f"{program.name} is {program.session.state}")
        session = program.to.node.sessions.by_id.get(program.session.session)
        if session is None:
            raise Broken(16, f"{program.name} has a session that {program.to.name} does not know")
        for path in program.engine.belongings.handlers:
            if path not in session.handlers:
                raise Broken(16, f"{program.name} offers {path}, and {program.to.name} does not know")
        _known_above(program)
        if len(session.subscriptions) != len(program.engine.subscriptions):
            raise Broken(
                16,
                f"{program.name} follows {len(program.engine.subscriptions)} things, {program.to.name}"
                f" knows of {len(session.subscriptions)}",
            )
        for path in program.engine.belongings.ephemerals:
            root = program.to.node.durable.roots.get(path[0])
            owned = root is not None and root.owner == ""
            owned = owned and program.to.setup.options.sync == "always"  # else the power may have taken it
            if path in story.ledger.taken or path[0] in story.ledger.disowned:
                continue
            if any(model.covered(path, story.ledger.ops[tag] or ()) for tag in story.ledger.came_back):
                continue
            if owned and root is not None and root.ephemerals.get(path) != session.id:
                raise Broken(16, f"{program.name} put {path}, and it is not there")


def ephemerals(story: Story) -> None:
    """Promises 15 and 20: what belongs to a session goes with it, at the node that owns the root."""
    for host in story.hosts:
        node = host.node
        live = {*node.sessions.by_id, *node.below}
        leases = {lease.session for lease in node.tip.leases.values()}
        if leases != live:
            raise Broken(15, f"{host.name} keeps leases of {leases ^ live}")
        for name, root in node.durable.roots.items():
            if root.owner == "":
                for path, session in root.ephemerals.items():
                    if session not in live:
                        raise Broken(20, f"{path} of {name} at {host.name} outlives its session")
