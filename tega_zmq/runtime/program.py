"""What broker and agent have in common as programs: recover the log, run the loop, stop in order."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from tega_zmq import log as tega_log
from tega_zmq import store
from tega_zmq.client.protocol import ClientSession
from tega_zmq.errors import InvalidValue, StorageError
from tega_zmq.log.disk import Disk
from tega_zmq.node import Node, Settings, machine
from tega_zmq.runtime.config import AgentConfig, BrokerConfig
from tega_zmq.runtime.historian import Historian, archiver, policy_of
from tega_zmq.runtime.loop import Hooks, Loop
from tega_zmq.runtime.notify import Notifier
from tega_zmq.runtime.orderly import SIGNALS, Stopped
from tega_zmq.runtime.sockets import ListenError
from tega_zmq.tunnel.urls import Tls

__all__ = ["SWITCH", "calm_collector", "fresh_id", "raise_descriptors", "run"]

SWITCH = 0.0005
"""Seconds between thread switches: beside a busy loop the writer thread must get its turn soon, and a
loop its own beside a busy thread."""

_SPARE = 64
"""File descriptors that connections cannot take: they are for the files of log and history. Of a limit that
is low an eighth."""

_OWN = 40
"""File descriptors that a node has without any session, and for those who are only told that it is full."""

_COLLECT_AFTER = 200_000
"""Objects of the youngest generation before the collector looks at them, see `calm_collector`."""


def fresh_id() -> str:
    """Return 32 hex digits that nobody can guess."""
    return os.urandom(16).hex()


def run(
    config: BrokerConfig | AgentConfig,
    logger: logging.Logger,
    disk: Disk,
    *,
    ready: Callable[[str], None] = lambda _: None,
    closing: Callable[[Callable[[], None]], None] = lambda _: None,
    reload: Callable[[], None] = lambda: None,
) -> int:
    """Run a node until SIGTERM or SIGINT; return the exit status of the program.

    An agent is a node whose config has an `uplink`. `ready` is called when it serves, with the endpoint that
    a program on this host dials. `closing` is called when it stops, while sessions are still served, with a
    function that makes one pass of the loop; `reload` on SIGHUP, before the plugins. What stops the start
    is one line in the log: a data folder that is held, damaged or not writable, an address in use, a signal
    before the node serves (see `orderly`).
    """
    sys.setswitchinterval(SWITCH)
    try:
        return _Program(config, logger, disk, closing, reload).run(ready)
    except (StorageError, ListenError, InvalidValue) as error:
        logger.error("cannot start", extra={"fields": {"error": str(error)}})
        return 1
    except Stopped:
        logger.info("stopped before it was ready")
        return 0


class _Program(Hooks):
    def __init__(
        self,
        config: BrokerConfig | AgentConfig,
        logger: logging.Logger,
        disk: Disk,
        closing: Callable[[Callable[[], None]], None],
        reload: Callable[[], None],
    ) -> None:
        self._closing = closing
        self._reload_more = reload
        self._config = config
        self._logger = logger
        self._disk = disk
        self._agent = isinstance(config, AgentConfig)
        self._plugins: Any = None
        self._collected = 0.0

    # -- start and stop ----------------------------------------------------------------------------

    def run(self, ready: Callable[[str], None]) -> int:
        config, logger = self._config, self._logger
        descriptors = raise_descriptors(logger, _SPARE)
        opened = tega_log.open_log(
            self._disk,
            config.data_dir,
            tega_log.Options(config.sync, config.sync_interval, config.log.segment, config.log.snapshots),
            new_id=fresh_id,
        )
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        writer: tega_log.LogThread | None = None
        historian: Historian | None = None
        # Until it serves nothing is written, nor the new epochs that an unclean stop before asks for.
        clean = opened.report.clean
        try:
            historian = self._historian(wake)
            historian.start()
            state, epochs = self._recover(opened, historian)
            writer = tega_log.LogThread(opened.log, wake=partial(os.eventfd_write, wake, 1))
            writer.start()
            historian.follow(state)
            node = self._node(state, opened.report.last, epochs, self._room(descriptors))
            context = zmq.Context()
            try:
                loop = self._loop(node, writer, wake, context, historian)
                self._serve(loop, ready)
                clean = True
            finally:
                context.destroy(linger=500)
        finally:
            if historian is not None:
                historian.close()
            if writer is not None:
                writer.close(clean=clean)
            else:
                opened.log.close(clean=clean)
            os.close(wake)
        logger.info("stopped")
        return 0

    def _historian(self, wake: int) -> Historian:
        config = self._config
        return Historian(
            self._disk,
            config.data_dir,
            wake=partial(os.eventfd_write, wake, 1),
            note=lambda level, event, fields: self._logger.log(
                logging.getLevelName(level.upper()), event, extra={"fields": fields}
            ),
            policy=policy_of(config.history.keep),
            archive=archiver(config.history.archive) if config.history.archive is not None else None,
        )

    def _recover(self, opened: tega_log.Opened, historian: Historian) -> tuple[store.Store, bool]:
        config, report = self._config, opened.report
        began = time.monotonic()
        kept = store.Kept(config.history.versions, config.history.kept_updates)
        try:
            state = tega_log.rebuild(self._disk, config.data_dir, opened, kept, historian.replayed)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(
                f"the data folder {config.data_dir} cannot be read: {reason}", reason=reason
            ) from error
        for name, what in report.damaged:
            self._logger.error("damaged snapshot set aside", extra={"fields": {"file": name, "why": what}})
        if report.torn is not None:
            self._logger.warning("torn tail cut off", extra={"fields": report.torn._asdict()})
        self._logger.info(
            "log read",
            extra={
                "fields": {
                    "folder": config.data_dir,
                    "records": report.last,
                    "snapshot": report.snapshot,
                    "revision": state.revision,
                    "roots": len(state.roots),
                    "clean": report.clean,
                    "seconds": round(time.monotonic() - began, 3),
                }
            },
        )
        return state, not report.clean and config.sync != "always"

    def _room(self, descriptors: int) -> int:
        """How many sessions may have connections: each takes up to two of so many descriptors."""
        wanted = self._config.limits.sessions
        room = min(wanted, max(1, (descriptors - _OWN) // 2))
        if room < wanted:
            self._logger.info(
                "fewer sessions than limits.sessions: the limit of file descriptors is low",
                extra={"fields": {"sessions": room, "limits.sessions": wanted, "descriptors": descriptors}},
            )
        return room

    def _node(self, state: store.Store, last: int, epochs: bool, room: int) -> Node:
        config = self._config
        now = time.monotonic()
        uplink = None
        names: dict[str, Any] = {}
        if isinstance(config, AgentConfig):
            uplink = ClientSession(config.tega_id, "agent", jitter=random.random)
            uplink.redial_first, uplink.redial_longest = config.reconnect.min, config.reconnect.max
            self._resume_uplink(uplink)
            names = {"config": config.config, "operational": config.operational}
        settings = Settings(
            tega_id=config.tega_id,
            lease=config.session.lease,
            heartbeat=config.session.beat,
            max_value=config.limits.value,
            max_sessions=config.limits.sessions,
            max_direct=room,
            max_calls=config.limits.calls,
            history=True,
            **names,
        )
        node = Node(settings, state, last, fresh=fresh_id, clock=time.time, uplink=uplink, now=now)
        machine.start(node, epochs=epochs, now=now)
        return node

    def _changes(self, listening: str | None) -> str:
        """Where sessions find the changes, as Welcome tells it: `listening`, or what the config says."""
        if self._config.advertise.changes is not None:
            return self._config.advertise.changes
        if listening is None or listening.startswith("ipc:"):
            return listening or ""
        return ":" + listening.rsplit(":", 1)[1]

    def _loop(
        self,
        node: Node,
        writer: tega_log.LogThread,
        wake: int,
        context: zmq.Context[Any],
        historian: Historian,
    ) -> Loop:
        config = self._config
        loop = Loop(
            node,
            writer,
            wake,
            context=context,
            requests=config.requests,
            changes=config.listen.changes,
            uplink=list(config.uplink) if isinstance(config, AgentConfig) else None,
            queue=config.limits.queue,
            snapshot_after=config.log.snapshot_after,
            historian=historian,
            tls=Tls(*(name or "" for name in (config.tls.ca, config.tls.cert, config.tls.key)))
            if isinstance(config, AgentConfig)
            else None,
            better=config.reconnect.better if isinstance(config, AgentConfig) else 0.0,
            logger=self._logger,
            hooks=self,
        )
        node.settings = node.settings._replace(changes=self._changes(loop.changes))
        return loop

    def _serve(self, loop: Loop, ready: Callable[[str], None]) -> None:
        notifier = Notifier()
        uplinks = self._config.uplink if isinstance(self._config, AgentConfig) else ()
        for number in SIGNALS:
            signal.signal(number, lambda *_: loop.stop())
        signal.signal(signal.SIGHUP, lambda *_: loop.hang_up())
        calm_collector(_COLLECT_AFTER)
        self._start_plugins(loop.requests[0])
        self._logger.info(
            "ready",
            extra={
                "fields": {
                    "tega_id": self._config.tega_id,
                    "requests": ",".join(loop.requests),
                    "changes": loop.changes,
                    "uplink": ",".join(uplinks) or None,
                }
            },
        )
        notifier.ready()
        ready(_dialable(loop.requests[0]))
        try:
            loop.run(before_closing=self._before_closing)
        finally:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # it stops already, and in order
            notifier.stopping()

    # -- plugins -----------------------------------------------------------------------------------

    def _start_plugins(self, listening: str) -> None:
        """`listening`: where the node listens for sessions, the port as the system gave it."""
        config = self._config
        if not config.plugins:
            return
        from tega_zmq.client.blocking import connect
        from tega_zmq.plugins.host import PluginHost

        endpoint = _dialable(listening)
        self._plugins = PluginHost(
            lambda kind: connect(endpoint, config.tega_id, kind=kind),
            config.tega_id,
            config.plugins,
            config.plugin,
            Path(config.data_dir),
            self._logger.getChild("plugins"),
        )
        self._plugins.start()

    def _stop_plugins(self, tick: Callable[[], None]) -> None:
        """Stop the plugins while the loop still answers them: `tick` is one pass of it."""
        if self._plugins is None:
            return
        self._plugins.begin_stop(3.0)
        until = time.monotonic() + 5.0
        while not self._plugins.stopped and time.monotonic() < until:
            tick()

    def _before_closing(self, tick: Callable[[], None]) -> None:
        self._closing(tick)
        self._stop_plugins(tick)

    # -- hooks of the loop -------------------------------------------------------------------------

    def reload(self) -> None:
        if self._plugins is not None:
            self._plugins.reload()

    def hang_up(self) -> None:
        self._reload_more()
        self.reload()

    def remember_uplink(self, session: str, token: str) -> None:
        path = os.path.join(self._config.data_dir, "uplink.json")
        if not session:
            with contextlib.suppress(OSError):
                os.unlink(path)
            return
        temporary = path + ".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
                json.dump({"session": session, "token": token}, file)
            os.replace(temporary, path)

    def _resume_uplink(self, uplink: ClientSession) -> None:
        path = os.path.join(self._config.data_dir, "uplink.json")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(path, encoding="utf-8") as file:
                known = json.load(file)
            uplink.resume(str(known["session"]), str(known["token"]), int(time.time() * 1_000_000))

    def idle(self) -> None:
        """Let the collector look when nobody waits, and never again at what it has seen."""
        if gc.get_count()[0] > _COLLECT_AFTER // 10 and time.monotonic() - self._collected > 10:
            gc.collect()
            gc.freeze()
            self._collected = time.monotonic()


def calm_collector(after: int) -> None:
    """Keep the cycle collector from stalling the loop: it looks at new objects when they are `after`.

    The tree and its history have no cycles and are, for the most part, invisible to the collector; what is
    not would be looked at in full again and again. So what is there after the start is frozen, and the rest
    is collected in idle moments, or after very many allocations.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(after, 50, 1000)


def raise_descriptors(logger: logging.Logger, spare: int = 0) -> int:
    """Raise the limit of file descriptors as far as the system lets, but for `spare`; return what it is.

    The spare ones, at most an eighth, stay between the soft and the hard limit, where `OsDisk` finds them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 1 << 20
    wanted = most - min(spare, most // 8)
    if soft != wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            logger.warning("descriptor limit stays low", extra={"fields": {"limit": soft, "why": str(error)}})
            return soft
    return wanted


def _dialable(endpoint: str) -> str:
    """Return the endpoint that reaches a listener on `endpoint` from this host."""
    for wildcard, host in (("//0.0.0.0:", "//127.0.0.1:"), ("//*:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        if wildcard in endpoint:
            return endpoint.replace(wildcard, host)
    return endpoint
