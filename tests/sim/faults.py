"""What goes wrong, and how it is mended: network, disks, programs and clocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tega_zmq.wire import messages as m
from tests.sim.host import Host
from tests.sim.program import Program

if TYPE_CHECKING:
    from tests.sim.story import Story

__all__ = ["Faults"]


class Faults:
    """Makes a fault every now and then, and ends it some time later, or all of them at once."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.world = story.world
        self.random = story.world.random
        self.going = False
        self.storm = 0
        self.copies = 0
        self.clones: list[Host] = []
        self.pace = 1.0

    def begin(self) -> None:
        """Faults happen from now on."""
        self.going = True
        self.storm += 1
        self.pace = self.random.choice((0.2, 0.7, 3.0))
        self.world.after(self.random.expovariate(1.0) * self.pace, self._next, self.storm)

    def end(self) -> None:
        """All faults are over: what was cut is mended, what was stopped goes on."""
        self.going = False
        story = self.story
        for copy in self.clones:
            self._remove_copy(copy)
        for host in story.hosts:
            self.mend_disk(host)
            host.fuse = None
            host.drift = 0.0
            host.wanted = True
            host.way.cut_up = host.way.cut_down = False
            host.changes_way.cut_up = host.changes_way.cut_down = False
            # What was written last may be lost as well: heartbeats must show it.
            self.world.after(0.3, self._keep_updates, host)
        for program in story.programs:
            program.way.cut_up = program.way.cut_down = False
        for host in story.hosts:
            if host.up:
                self.resume(host)
            if not host.up:
                host.start()
            self.operator(host)
        for program in story.programs:
            program.resume()
            program.kick()
        for host in story.hosts:
            host.kick()
        self._replace()
        for program in story.programs:
            if program.to is story.broker:
                story.load.give_back(program)

    def repair(self) -> None:
        """What an operator does who looks on: a device that was taken over by another is restarted."""
        for host in self.story.hosts:
            self.operator(host)
            if host.up and host.node.uplink is not None and host.node.uplink.state == "taken over":
                host.stop()
                host.start()

    def _next(self, storm: int) -> None:
        if not self.going or storm != self.storm:
            return
        kind = self.random.choice(_FAULTS)
        kind(self)
        self.world.after(self.random.expovariate(1.0) * self.pace, self._next, storm)

    def later(self, function: Callable[..., None], *arguments: object) -> None:
        """Let `function` mend something after a while."""
        self.world.after(self.random.choice((0.05, 0.5, 3.0, 8.0, 20.0)), function, *arguments)

    # -- network -----------------------------------------------------------------------------------

    def cut(self) -> None:
        """A way is cut, one way or both."""
        dialer = self._dialer()
        how = self.random.choice(("up", "down", "both"))
        way = dialer.way
        if isinstance(dialer, Host) and self.random.random() < 0.3:
            way = dialer.changes_way
        self.world.note("world", f"cut {how}", dialer.name)
        way.cut_up = way.cut_up or how != "down"
        way.cut_down = way.cut_down or how != "up"
        self.later(self._mend, dialer)

    def _mend(self, dialer: Host | Program) -> None:
        self.world.note("world", "mended", dialer.name)
        dialer.way.cut_up = dialer.way.cut_down = False
        if isinstance(dialer, Host):
            dialer.changes_way.cut_up = dialer.changes_way.cut_down = False
        dialer.kick()

    def reset(self) -> None:
        """A connection breaks; its dialer notices at once, and the node later."""
        dialer = self._dialer()
        if dialer.link is not None and dialer.reads():
            self.world.note("world", "connection reset", dialer.name)
            dialer.link.up.lose(self.random.randrange(len(dialer.link.up.frames) + 1))
            dialer.link.up.send(None)
            dialer.frame_came(dialer.link, None)

    def lose_updates(self) -> None:
        """Published updates get lost."""
        host = self.random.choice([host for host in self.story.hosts if host.to is not None])
        host.changes_way.lossy = self.random.choice((0.1, 0.5, 1.0))
        self.world.note("world", "updates get lost", (host.name, host.changes_way.lossy))
        self.later(self._keep_updates, host)

    def _keep_updates(self, host: Host) -> None:
        host.changes_way.lossy = 0.0

    # -- programs ----------------------------------------------------------------------------------

    def pause(self) -> None:
        """A program is stopped for a while, or does not read."""
        who = self.random.choice([*self.story.hosts, *self.story.programs])
        who.pause()
        self.later(self.resume, who)

    def resume(self, who: Host | Program) -> None:
        """It goes on."""
        who.resume()

    def crash(self) -> None:
        """A node's program is killed, or its machine loses power."""
        host = self._host()
        host.crash(self.random.random() < 0.6)
        if self.random.random() < 0.25:
            self.flip(host)
        self.later(host.start)

    def light_fuse(self) -> None:
        """A node's program crashes at some operation of its disk soon, its start included."""
        host = self._host()
        host.fuse = self.random.randrange(self.random.choice((3, 10, 60)))
        host.fuse_power = self.random.random() < 0.6
        if self.random.random() < 0.5:
            host.crash(host.fuse_power)
            host.fuse = self.random.randrange(80)
        self._soon_up(host)

    def _soon_up(self, host: Host) -> None:
        """Whatever it was that stopped it, it is started again."""
        for seconds in (0.3, 2.0, 9.0, 25.0):
            self.world.after(seconds, host.start)

    def stop(self) -> None:
        """A node's program stops in order, and starts again."""
        host = self._host()
        host.stop()
        if not host.up and self.random.random() < 0.3:
            self.flip(host)
        self._soon_up(host)

    def clear(self) -> None:
        """An operator empties the store of the broker, in one run out of a few."""
        if self.random.random() < 0.03:
            for program in self.story.programs:
                if program.to is self.story.broker and not program.paused:
                    program.ask(m.Manage, "clear", "", timeout=20.0)
                    return

    def wipe(self) -> None:
        """A device gets an empty card."""
        host = self.random.choice(self.story.hosts[1:3])
        host.crash(True)
        host.wipe()
        self.story.ledger.wiped(host)
        self.story.ledger.count("wiped")
        self._soon_up(host)

    def replace_program(self) -> None:
        """A client is killed or closed, or another one takes its name."""
        program = self.random.choice(self.story.programs)
        chance = self.random.random()
        if chance < 0.3:
            # Two programs of one name: one of them is taken over.
            self.story.gone.append(program)
            self.story.programs.remove(program)
            self.copies += 1
            self.story.program(program.name, program.to)
            return
        if program.paused:
            return
        if chance < 0.6:
            program.close()
        else:
            program.die()
        self._replace()

    def _replace(self) -> None:
        story = self.story
        for program in list(story.programs):
            if program.dead or program.session.state == "taken over":
                story.programs.remove(program)
                program.dead = True
                self.copies += 1
                name = program.name.split("-v")[0]
                if program.name != "noc" and program.name != "local-a":
                    name = f"{name}-v{self.copies}"
                story.program(name, program.to)

    def copy_device(self) -> None:
        """A second device of the same name comes up."""
        if not self.clones:
            copy = self.story.copy_of(self.random.choice(self.story.hosts[1:3]))
            self.world.note("world", "a second device of one name", copy.name)
            self.clones.append(copy)
            self.story.ledger.count("second devices")
            copy.start()
            self.later(self._remove_copy, copy)

    def _remove_copy(self, copy: Host) -> None:
        if copy in self.story.hosts:
            self.world.note("world", "the second device is taken away", copy.name)
            copy.crash(True)
            copy.wanted = False
            self.story.hosts.remove(copy)
            self.clones = []
            self.story.ledger.wiped(copy)

    def disown(self) -> None:
        """A device is given up, and comes back after all."""
        host = self.random.choice(self.story.hosts[1:3])
        host.crash(True)
        host.wanted = False
        for name in host.setup.settings.operational:
            for program in self.story.programs:
                if program.to is self.story.broker and not program.paused:
                    program.ask(m.Manage, "disown", name, timeout=20.0)
                    self.story.ledger.count("disowned")
                    break
        self.later(self._wanted, host)

    def _wanted(self, host: Host) -> None:
        host.wanted = True
        host.start()

    def turn_clock(self) -> None:
        """A wall clock jumps."""
        host = self._host()
        host.drift += self.random.choice((-86400.0, -3.0, 3.0, 3600.0))
        self.world.note(host.name, "wall clock jumps", host.drift)

    # -- disks -------------------------------------------------------------------------------------

    def disk_errors(self) -> None:
        """Writes and syncs fail, now and then or all."""
        host = self._host()
        host.errors = self.random.choice((0.05, 0.3, 1.0))
        self.world.note(host.name, "disk errors", host.errors)
        self.later(self._mended_disk, host)

    def fill_disk(self) -> None:
        """A disk is full."""
        host = self._host()
        host.full = True
        self.world.note(host.name, "disk full", None)
        self.later(self._mended_disk, host)

    def slow_disk(self) -> None:
        """A disk is slow."""
        host = self._host()
        host.slow = self.random.choice((10.0, 100.0))
        self.world.note(host.name, "disk slow", host.slow)
        self.later(self._mended_disk, host)

    def flip(self, host: Host) -> None:
        """A bit flips in a file of a host that is down."""
        if not host.up:
            host.flip()
            self.story.ledger.count("bits flipped")

    def mend_disk(self, host: Host) -> None:
        """The disk is as it should be."""
        host.errors = 0.0
        host.full = False
        host.slow = 1.0

    def _mended_disk(self, host: Host) -> None:
        self.mend_disk(host)
        self.operator(host)

    def operator(self, host: Host) -> None:
        """Somebody has a snapshot made where the log failed."""
        if host.up and not host.paused and host.node.failure is not None:
            host.mend()

    # -- who ---------------------------------------------------------------------------------------

    def _host(self) -> Host:
        return self.random.choice(self.story.hosts)

    def _dialer(self) -> Host | Program:
        return self.random.choice([*self.story.hosts[1:], *self.story.hosts[1:], *self.story.programs])


_FAULTS = (
    Faults.cut,
    Faults.cut,
    Faults.reset,
    Faults.lose_updates,
    Faults.pause,
    Faults.pause,
    Faults.crash,
    Faults.light_fuse,
    Faults.light_fuse,
    Faults.stop,
    Faults.wipe,
    Faults.replace_program,
    Faults.replace_program,
    Faults.turn_clock,
    Faults.copy_device,
    Faults.disown,
    Faults.clear,
    Faults.disk_errors,
    Faults.fill_disk,
    Faults.slow_disk,
)
