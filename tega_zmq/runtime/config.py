"""The configuration of the programs: every key, its unit, its default, and how it is read.

Precedence, lowest first: the defaults, the files in the order given, the environment (`TEGA_A__B=c` for the
key `a.b`), the flags (`--set a.b=c`). Durations are in seconds, sizes in bytes. All classes are frozen.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from tega_zmq import paths
from tega_zmq.errors import InvalidPath, InvalidValue
from tega_zmq.runtime import yamlio
from tega_zmq.runtime.bridgeconfig import Bridge, BridgeKeys
from tega_zmq.runtime.schema import ConfigError, Setting, build, key, section, unfold
from tega_zmq.tunnel.urls import address_of, is_tunnel

__all__ = [
    "AgentConfig",
    "BridgeConfig",
    "BrokerConfig",
    "ConfigError",
    "check_endpoint",
    "check_listen",
    "default_tega_id",
    "load",
]

MAX_FILE = 1 << 20
"""Longest config file, in bytes."""

MAX_IPC = 107
"""Longest path of a Unix socket, in bytes."""

ENVIRONMENT = "TEGA_"
"""What the names of environment variables that hold keys begin with."""

NOT_KEYS = frozenset({"TEGA_SERVER"})
"""Environment variables of other programs that begin so; no keys."""

_TEGA_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MIB = 1 << 20


# -- checks of single values -----------------------------------------------------------------------


def check_endpoint(endpoint: str) -> str:
    """Return `endpoint` if it is `tcp://HOST:PORT` or `ipc://PATH`. Raises `ConfigError`."""
    scheme, mark, rest = endpoint.partition("://")
    if not mark or scheme not in ("tcp", "ipc"):
        raise ConfigError(f"{endpoint!r} is no endpoint; write tcp://HOST:PORT or ipc://PATH")
    if scheme == "ipc":
        size = len(os.fsencode(rest))
        if not rest:
            raise ConfigError(f"{endpoint!r} lacks the path of the socket")
        if size > MAX_IPC:
            raise ConfigError(
                f"the path of the socket has {size} bytes, and the system allows {MAX_IPC}: {rest}; "
                "choose a shorter one"
            )
        return endpoint
    host, mark, port = rest.rpartition(":")
    if not mark or not host:
        raise ConfigError(f"{endpoint!r} lacks host or port; write tcp://HOST:PORT")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigError(f"{endpoint!r}: an IPv6 address stands in brackets, tcp://[::1]:8740")
    if port != "*" and not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigError(f"{endpoint!r}: {port!r} is no port; ports go from 0 to 65535")
    return endpoint


def check_listen(endpoint: str, insecure: bool) -> str:
    """Return `endpoint` if a node may listen there: loopback or a local socket, or anywhere if `insecure`.

    Raises `ConfigError`.
    """
    check_endpoint(endpoint)
    if insecure or endpoint.startswith("ipc://") or _is_loopback(endpoint):
        return endpoint
    raise ConfigError(
        f"{endpoint} can be reached from other hosts, and nothing here asks who they are; "
        "listen on 127.0.0.1, or write insecure: true if the network is trusted"
    )


def _is_loopback(endpoint: str) -> bool:
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_endpoints(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(check_endpoint, _check_some(endpoints)))


def _check_some(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    if not endpoints:
        raise ConfigError("at least one endpoint is needed")
    return endpoints


def _check_uplinks(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    for endpoint in endpoints:
        if is_tunnel(endpoint):
            try:
                address_of(endpoint)
            except InvalidValue as error:
                raise ConfigError(error.message) from None
        else:
            check_endpoint(endpoint)
    return _check_some(endpoints)


def _check_changes(endpoint: str) -> str:
    if not endpoint.startswith("tcp://"):
        raise ConfigError(f"{endpoint!r}: the changes are published on tcp://HOST:PORT only")
    return check_endpoint(endpoint)


def _check_tega_id(text: str) -> str:
    if not _TEGA_ID.fullmatch(text.replace("{hostname}", "x")):
        raise ConfigError(f"{text!r} is no tega_id; 1 to 64 of the characters A-Z a-z 0-9 _ - are allowed")
    return text


def _check_not_empty(text: str) -> str:
    if not text or "\0" in text:
        raise ConfigError("must not be empty")
    return text


# -- sections --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Advertise:
    """What a node tells its peers of itself, where it cannot know."""

    changes: str | None = key(
        None,
        "Where sessions find `listen.changes`, if not at its port on the host that they dialled: behind NAT "
        "or a port forward. tcp://HOST:PORT.",
        check=_check_changes,
    )


def _check_keep(entries: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    for entry in entries:
        unknown = sorted(set(entry) - {"root", "versions", "days", "size"})
        if unknown:
            raise ConfigError(f"unknown key {unknown[0]}; there are root, versions, days, size")
        root = entry.get("root")
        if not isinstance(root, str):
            raise ConfigError("each entry needs a root, a regex for the names of roots")
        try:
            re.compile(root)
        except re.error as error:
            raise ConfigError(f"root {root!a:.64} is no regex: {error}") from None
        for name in ("versions", "days", "size"):
            bound = entry.get(name)
            if bound is not None and (type(bound) not in (int, float) or not bound > 0):
                raise ConfigError(f"{name} must be a number greater than 0, or null, not {bound!a:.64}")
    return entries


@dataclass(frozen=True, slots=True)
class History:
    """How much of the past is kept, per root."""

    versions: int = key(
        100,
        "Versions kept in memory; the others are read from the disk.",
        minimum=1,
        maximum=1_000_000,
    )
    updates: int | None = key(
        None,
        "Commits kept for replicas and subscribers that were away to catch up by; who was away for longer "
        "gets the whole tree. null: 2,000, or as many as `versions` where that is below 100 or above 2,000.",
        minimum=1,
        maximum=10_000_000,
    )
    keep: tuple[Mapping[str, Any], ...] = key(
        ({"root": ".*", "versions": None, "days": None, "size": 1 << 30},),
        "What is kept on the disk of each root: the first entry counts whose `root`, a regex, matches the "
        "whole name. `versions`: so many of the newest; `days`: what is younger; `size`: bytes of the files. "
        "null or left out: no bound. What any of them does not ask to keep goes, a file of some thousand "
        "versions at a time; a version that has a tag stays.",
        check=_check_keep,
    )
    archive: str | None = key(
        None,
        "Folder into which goes what is dropped, as JSON lines compressed with gzip; zcat shows it. null: it "
        "is deleted.",
        check=_check_not_empty,
    )

    @property
    def kept_updates(self) -> int:
        """How many commits are kept for catching up; never fewer than versions."""
        if self.updates is not None:
            return max(self.updates, self.versions)
        return self.versions if self.versions < 100 else max(self.versions, 2000)


@dataclass(frozen=True, slots=True)
class Session:
    """Sessions of those who connect here."""

    lease: float = key(
        15.0, "How long a session outlives its connection.", unit="seconds", minimum=0.5, maximum=86_400
    )
    heartbeat: float | None = key(
        None,
        "How often an idle session shows that it is alive; whoever is silent three times is taken for gone. "
        "null: a fifth of the lease. Three must fit into the lease.",
        unit="seconds",
        minimum=0.1,
        maximum=28_800,
    )

    @property
    def beat(self) -> float:
        """Seconds between heartbeats."""
        return self.lease / 5 if self.heartbeat is None else self.heartbeat


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may ask of a node."""

    value: int = key(
        _MIB, "Largest value of one write, as it travels.", unit="bytes", minimum=1024, maximum=4 * _MIB
    )
    sessions: int = key(
        20_000, "Most sessions at a time; each takes two file descriptors.", minimum=1, maximum=1_000_000
    )
    queue: int = key(
        16 * _MIB,
        "What waits for a session that does not read, before its connection is given up.",
        unit="bytes",
        minimum=65_536,
        maximum=1 << 32,
    )
    calls: int = key(
        16_384, "Calls in flight, and unanswered requests, of one session.", minimum=16, maximum=1_000_000
    )


_SEGMENT_HELP = "Size of one file of the log; it is reserved on the disk as a whole."
_SNAPSHOT_HELP = (
    "How much log gathers before a new snapshot is written and the log before it removed. More: fewer "
    "snapshots, a longer start."
)


@dataclass(frozen=True, slots=True)
class Log:
    """The commit log on disk."""

    segment: int = key(16 * _MIB, _SEGMENT_HELP, unit="bytes", minimum=65_536, maximum=1 << 30)
    snapshot_after: int = key(64 * _MIB, _SNAPSHOT_HELP, unit="bytes", minimum=65_536, maximum=1 << 40)
    snapshots: int = key(
        2, "Snapshots that are kept, with the log from the oldest of them on.", minimum=1, maximum=100
    )


@dataclass(frozen=True, slots=True)
class AgentLog(Log):
    """The commit log on a device: smaller, as its card is."""

    segment: int = key(4 * _MIB, _SEGMENT_HELP, unit="bytes", minimum=65_536, maximum=1 << 30)
    snapshot_after: int = key(8 * _MIB, _SNAPSHOT_HELP, unit="bytes", minimum=65_536, maximum=1 << 40)


@dataclass(frozen=True, slots=True)
class BrokerListen:
    """Where the broker listens."""

    requests: tuple[str, ...] = key(
        ("tcp://127.0.0.1:8740",),
        "Where sessions connect: the one address that a client or an agent is given. "
        "A list of tcp://HOST:PORT or ipc://PATH.",
        check=_check_endpoints,
    )
    changes: str | None = key(
        "tcp://127.0.0.1:8741",
        "Where the commits of whole roots are published to replicas. tcp://HOST:PORT.",
        check=_check_changes,
    )


@dataclass(frozen=True, slots=True)
class AgentListen:
    """Where the agent listens for programs on the device."""

    requests: tuple[str, ...] | None = key(
        None,
        "Where programs on this device connect. A list of ipc://PATH or tcp://HOST:PORT. "
        "null: ipc://DATA_DIR/agent.sock.",
        check=_check_endpoints,
    )
    changes: str | None = key(
        None,
        "Where commits of whole roots are published, for agents below this one: tcp://HOST:PORT. "
        "null: there are none.",
        check=_check_changes,
    )


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How an agent comes back to its uplink."""

    min: float = key(
        0.25,
        "Wait before the first attempt to dial again; drawn anew each time between a half and the whole, so "
        "that a fleet does not come back in step.",
        unit="seconds",
        minimum=0.01,
        maximum=3600,
    )
    max: float = key(
        15.0,
        "The wait doubles up to this.",
        unit="seconds",
        minimum=0.01,
        maximum=86_400,
    )
    better: float = key(
        60.0,
        "While an endpoint of `uplink` is in use that is not the first, how often those before it are tried, "
        "25 % more or less. The session moves to the one that answers.",
        unit="seconds",
        minimum=0.05,
        maximum=86_400,
    )


_TEGA_ID_HELP = (
    "Name of this node, 1 to 64 of A-Z a-z 0-9 _ and -; no two may have the same. `{hostname}` in it stands "
    "for the host name, other characters in that replaced by -."
)
_SYNC_HELP = (
    "When a commit is on disk. always: before it is acknowledged. interval: every `sync_interval`; none: "
    "when the system pleases. With the latter two the last commits may be lost when the power fails."
)
_PLUGINS_HELP = (
    "Plugins to load: names of modules, folders (a text with a slash) whose .py files are loaded, or names "
    "in the entry point group tega_zmq.plugins."
)
_PLUGIN_HELP = "Settings of plugins: the plugin's name, then what it says in its own documentation."
_INSECURE_HELP = "Listen where other hosts can connect, though nothing asks who they are."
_LEVEL_HELP = "Least severity that is logged; at debug, errors come with a traceback."
_FORMAT_HELP = "Form of the log lines on stderr: text for people, json for machines."

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Configuration of `tega-broker`."""

    tega_id: str = key("{hostname}", _TEGA_ID_HELP, check=_check_tega_id)
    data_dir: str = key(
        "./var/broker",
        "Folder of log and snapshots; made if it is not there. One program at a time.",
        check=_check_not_empty,
    )
    listen: BrokerListen = section(BrokerListen)
    advertise: Advertise = section(Advertise)
    bridge: Bridge = section(Bridge)
    sync: Literal["always", "interval", "none"] = key("always", _SYNC_HELP)
    sync_interval: float = key(
        1.0, "With sync: interval, how often.", unit="seconds", minimum=0.01, maximum=3600
    )
    history: History = section(History)
    session: Session = section(Session)
    limits: Limits = section(Limits)
    log: Log = section(Log)
    plugins: tuple[str, ...] = key((), _PLUGINS_HELP)
    plugin: Mapping[str, Any] = key({}, _PLUGIN_HELP)
    insecure: bool = key(False, _INSECURE_HELP)
    log_level: Level = key("info", _LEVEL_HELP)
    log_format: Literal["text", "json"] = key("text", _FORMAT_HELP)

    @property
    def requests(self) -> tuple[str, ...]:
        """Where sessions connect."""
        return self.listen.requests


@dataclass(frozen=True, slots=True)
class UplinkTls:
    """Files for an uplink that begins with wss://."""

    ca: str | None = key(
        None,
        "File with the certificates of those who may have signed the bridge's, PEM. null: whom the system "
        "trusts, or the file that the environment variable SSL_CERT_FILE names.",
    )
    cert: str | None = key(
        None, "File with this device's own certificate, PEM, for a reverse proxy that asks for one."
    )
    key: str | None = key(None, "File with the key of the certificate, PEM. null: it stands in `tls.cert`.")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Configuration of `tega-agent`."""

    tega_id: str = key("{hostname}", _TEGA_ID_HELP, check=_check_tega_id)
    data_dir: str = key(
        "./var/agent",
        "Folder of log, snapshots and local socket; made if it is not there. One program at a time.",
        check=_check_not_empty,
    )
    uplink: tuple[str, ...] = key(
        ("tcp://127.0.0.1:8740",),
        "The broker's `listen.requests`, or a bridge, ws://HOST:PORT or wss://HOST: a tunnel, through the "
        "proxy that HTTPS_PROXY or HTTP_PROXY names, if any. Several are tried in this order.",
        check=_check_uplinks,
    )
    listen: AgentListen = section(AgentListen)
    advertise: Advertise = section(Advertise)
    config: tuple[str, ...] = key(
        (),
        "Roots that the broker owns and this device keeps a replica of; what agents below this one list, it "
        "follows without that. `{tega_id}` in it stands for the name of this node.",
    )
    operational: tuple[str, ...] = key(
        ("ops-{tega_id}",),
        "Roots that this device owns and the broker keeps a replica of; none that an agent below this one "
        "owns. `{tega_id}` as above.",
    )
    reconnect: Reconnect = section(Reconnect)
    tls: UplinkTls = section(UplinkTls)
    sync: Literal["always", "interval", "none"] = key("interval", _SYNC_HELP)
    sync_interval: float = key(
        1.0, "With sync: interval, how often.", unit="seconds", minimum=0.01, maximum=3600
    )
    history: History = section(History)
    session: Session = section(Session)
    limits: Limits = section(Limits)
    log: AgentLog = section(AgentLog)
    plugins: tuple[str, ...] = key(("tega_agent.plugins.system",), _PLUGINS_HELP)
    plugin: Mapping[str, Any] = key({}, _PLUGIN_HELP)
    insecure: bool = key(False, _INSECURE_HELP)
    log_level: Level = key("info", _LEVEL_HELP)
    log_format: Literal["text", "json"] = key("text", _FORMAT_HELP)

    @property
    def requests(self) -> tuple[str, ...]:
        """Where programs on the device connect, the default filled in."""
        return self.listen.requests or (f"ipc://{self.data_dir}/agent.sock",)


@dataclass(frozen=True, slots=True)
class BridgeConfig(BridgeKeys):
    """Configuration of `tega-bridge`."""

    tega_id: str = key("{hostname}-bridge", _TEGA_ID_HELP, check=_check_tega_id)
    broker: str = key("tcp://127.0.0.1:8740", "The broker's `listen.requests`.", check=check_endpoint)
    insecure: bool = key(False, _INSECURE_HELP)
    log_level: Level = key("info", _LEVEL_HELP)
    log_format: Literal["text", "json"] = key("text", _FORMAT_HELP)


C = TypeVar("C", BrokerConfig, AgentConfig, BridgeConfig)


# -- reading ---------------------------------------------------------------------------------------


def load(
    cls: type[C],
    files: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
    hostname: str | None = None,
) -> C:
    """Return the configuration of a program, checked as a whole and with its names expanded.

    `files` are names of YAML files, `environment` the process's own (None: that is not looked at), `flags`
    what `--set` was given. `hostname`: None for that of the system. Raises `ConfigError`, one line.
    """
    settings: dict[str, Any] = {}
    for name in files:
        _merge(settings, _from_file(name))
    for variable in sorted(environment or ()):
        if variable.startswith(ENVIRONMENT) and variable not in NOT_KEYS:
            _merge(settings, _from_environment(variable, (environment or {})[variable]))
    for flag in flags:
        _merge(settings, _from_flag(flag))
    return _whole(build(cls, settings), socket.gethostname() if hostname is None else hostname)


def default_tega_id(hostname: str) -> str:
    """Return `hostname` as a tega_id: other characters become -, 64 at most."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", hostname).strip("-")[:64] or "node"


def _from_file(name: str) -> dict[str, Any]:
    try:
        value, lines = yamlio.load_with_lines(yamlio.read_file(name, MAX_FILE), name)
    except InvalidValue as error:
        raise ConfigError(error.message) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name}:1: a config file is a map of keys, `key: value` on each line")

    def tree(part: dict[str, Any], at: yamlio.Where) -> dict[str, Any]:
        return {
            oid: tree(item, (*at, oid))
            if isinstance(item, dict) and item
            else Setting(item, f"{name}:{lines[(*at, oid)]}")
            for oid, item in part.items()
        }

    return tree(value, ())


def _from_environment(variable: str, text: str) -> dict[str, Any]:
    names = variable.removeprefix(ENVIRONMENT).lower().split("__")
    if not all(names):
        raise ConfigError(f"environment {variable}: no key; TEGA_A__B=c gives the key a.b")
    return _nested(names, _value(text, f"environment {variable}"))


def _from_flag(flag: str) -> dict[str, Any]:
    name, mark, text = flag.partition("=")
    names = name.split(".")
    if not mark or not all(names):
        raise ConfigError(f"--set {flag}: write --set KEY=VALUE, for example --set session.lease=30")
    return _nested(names, _value(text, f"--set {flag if len(flag) <= 60 else name}"))


def _value(text: str, origin: str) -> Setting:
    """What was typed: YAML, or text as it is where that is no YAML, `{hostname}-b` for example."""
    try:
        value = yamlio.load(text, origin)
    except InvalidValue as error:
        if text.lstrip().startswith("["):
            raise ConfigError(f"{error}; in a list, texts with braces stand in quotes") from None
        value = text
    return Setting(value, origin, text)


def _nested(names: Sequence[str], leaf: Any) -> dict[str, Any]:
    for name in reversed(names):
        leaf = {name: leaf}
    return leaf  # type: ignore[no-any-return]


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Put `more` into `into`, key by key; a value replaces what stood there."""
    for name, item in more.items():
        old = into.get(name)
        if isinstance(item, dict) or isinstance(old, dict):
            new = unfold(item) if isinstance(item, Setting) else item
            if isinstance(old, Setting):
                old = into[name] = unfold(old)
            if isinstance(new, dict) and isinstance(old, dict):
                _merge(old, new)
                continue
        into[name] = item


# -- the whole -------------------------------------------------------------------------------------


def _whole(config: C, hostname: str) -> C:
    """Expand names, and check what depends on more than one key."""
    tega_id = config.tega_id.replace("{hostname}", default_tega_id(hostname))
    if len(tega_id) > 64:
        raise ConfigError(f"tega_id {tega_id!r} has {len(tega_id)} characters; at most 64 are allowed")
    if isinstance(config, BridgeConfig):
        check_bridge("", config, config.insecure)
        return replace(config, tega_id=tega_id)
    config = replace(config, tega_id=tega_id, data_dir=config.data_dir.replace("{tega_id}", tega_id))
    if 3 * config.session.beat >= config.session.lease:
        raise ConfigError(
            f"session.heartbeat {config.session.beat:g}: three of them must be shorter than session.lease "
            f"{config.session.lease:g}"
        )
    if isinstance(config, AgentConfig):
        config = _agent(config)
    elif config.bridge.enabled:
        check_bridge("bridge.", config.bridge, config.insecure)
    for endpoint in config.requests:
        _named("listen.requests" if config.listen.requests else "data_dir", endpoint, config.insecure)
    if config.listen.changes is not None:
        _named("listen.changes", config.listen.changes, config.insecure)
    return config


def check_bridge(prefix: str, config: BridgeKeys, insecure: bool) -> None:
    """Raises `ConfigError` if a bridge may not listen as it says; `prefix`: what its keys begin with."""
    if config.tls.key is not None and config.tls.cert is None:
        raise ConfigError(f"{prefix}tls.key: it belongs to a certificate; name that in {prefix}tls.cert")
    if config.listen.startswith("https:") != (config.tls.cert is not None):
        raise ConfigError(
            f"{prefix}listen: {config.listen}; https needs {prefix}tls.cert, and with that it must be https"
        )
    _named(f"{prefix}listen", "tcp" + config.listen[config.listen.index("://") :], insecure)


def _agent(config: AgentConfig) -> AgentConfig:
    if config.reconnect.min > config.reconnect.max:
        raise ConfigError(
            f"reconnect.min {config.reconnect.min:g} is greater than reconnect.max {config.reconnect.max:g}"
        )
    roots: dict[str, str] = {}
    for name in ("config", "operational"):
        expanded = tuple(root.replace("{tega_id}", config.tega_id) for root in getattr(config, name))
        for root in expanded:
            try:
                paths.check((root,))
            except InvalidPath as error:
                raise ConfigError(f"{name}: {error}") from None
            if root in roots:
                raise ConfigError(f"{name}: {root} stands in {roots[root]} already; a root has one owner")
            roots[root] = name
        config = (
            replace(config, config=expanded) if name == "config" else replace(config, operational=expanded)
        )
    return config


def _named(name: str, endpoint: str, insecure: bool) -> None:
    try:
        check_listen(endpoint, insecure)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
