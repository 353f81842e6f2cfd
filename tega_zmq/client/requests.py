"""How the methods of both clients become requests, and replies become results: pure functions.

A function that makes a request returns an `Ask`, the request's class and its own fields. Paths are taken as
text, as a sequence of oids, or as a `Cont`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeAlias

from tega_zmq.client.cont import Cont, path_of, value_of
from tega_zmq.client.protocol import MAX_TIMEOUT
from tega_zmq.client.results import (
    Blame,
    Blamed,
    CandidateView,
    Committed,
    Difference,
    Differences,
    Edge,
    Edges,
    Found,
    FoundNodes,
    Gap,
    Log,
    LogEntry,
    NodeView,
    difference,
)
from tega_zmq.client.subscriptions import Ask
from tega_zmq.errors import (
    HandlerError,
    InvalidPath,
    InvalidValue,
    NotFound,
    Offline,
    OwnerAway,
    ProtocolError,
    StorageError,
    TegaError,
    text_of,
)
from tega_zmq.errors import decode as decode_error
from tega_zmq.paths import Path, check, format_path, parse
from tega_zmq.tunnel.urls import address_of, is_tunnel
from tega_zmq.wire import messages
from tega_zmq.wire.messages import OpField

__all__ = [
    "LEAVING",
    "NO_DEFAULT",
    "Ask",
    "Expected",
    "PathLike",
    "Ready",
    "check_function",
    "check_tega_id",
    "check_timeout",
    "check_url",
    "fresh_tega_id",
]

PathLike: TypeAlias = str | tuple[str, ...] | list[str] | Cont
"""What stands for a path in the methods of a client."""

Version: TypeAlias = int | str | datetime | None
"""A version to read: see `to_version`."""

Expected: TypeAlias = int | str | None
"""The version that a write expects: a number, "absent", or None for any."""


class _NoDefault:
    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Final = _NoDefault()
"""Stands for "raise `NotFound`" where a default may be given."""

LEAVING: Final = 1.0
"""Most seconds that a block which ends by an error waits for the end of what was begun for it."""

_ABSENT: Final = -1
_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1
_MAX_DEPTH: Final = 128
"""Most containers within one another that are looked through; the node allows fewer."""


# -- arguments -------------------------------------------------------------------------------------


def to_path(path: PathLike) -> Path:
    """Return `path` as a tuple of oids. Raises `InvalidPath`."""
    if type(path) is str:
        return parse(path)
    if isinstance(path, Cont):
        return path_of(path)
    if isinstance(path, (tuple, list)):
        return check(path)
    raise InvalidPath(f"a path is text, a sequence of oids or a Cont, not {type(path).__name__}")


class Ready:
    """Stands for `value`, which `to_value` returned and nobody changes: it is not copied again."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def to_value(value: Any, where: str | Path = "value") -> Any:
    """Return a copy of `value` that can be sent: a `Cont` as a dict, tuples as lists, exact types.

    A copy, since it may be sent a second time after the caller changed the original. Raises `InvalidValue`
    for what cannot be sent; `where`, text or a path, names the place in the error.
    """
    if type(value) is Ready:
        return value.value
    try:
        return _copied(value, 0)
    except (_Unusual, UnicodeEncodeError):
        return _plain(value, where if isinstance(where, str) else format_path(where), 0)


class _Unusual(Exception):
    """A value is to be looked at with the place of each part at hand."""


def _copied(value: Any, depth: int) -> Any:
    """Return a copy as `_plain` does, without knowing where what is wrong stands: several times as fast."""
    kind = type(value)
    if kind is list:
        if depth > _MAX_DEPTH:
            raise _Unusual
        return [_copied(item, depth + 1) for item in value] if value else []
    if kind is dict:
        if depth > _MAX_DEPTH:
            raise _Unusual
        for key in value:
            if type(key) is not str:
                raise _Unusual
            if not key.isascii():
                key.encode()
        return {key: _copied(item, depth + 1) for key, item in value.items()}
    if kind is str:
        if not value.isascii():
            value.encode()
    elif kind is int:
        if not _MIN_INT <= value <= _MAX_INT:
            raise _Unusual
    elif kind is float:
        if value - value != 0:  # not finite
            raise _Unusual
    elif value is not None and kind is not bool:
        raise _Unusual
    return value


def _plain(value: Any, where: str, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value, where)
    if kind is int:
        if _MIN_INT <= value <= _MAX_INT:
            return value
        raise InvalidValue(f"{where}: an integer beyond 64 bits", path=where)
    if value is None or kind is bool:
        return value
    if kind is float:
        # Infinity minus itself, and NaN, are not equal to zero.
        if value - value == 0.0:
            return value
        raise InvalidValue(f"{where}: {value} is not a finite number", path=where)
    if depth > _MAX_DEPTH:
        raise InvalidValue(
            f"{where[:80]}...: more than {_MAX_DEPTH} containers within one another", path=where[:80]
        )
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{at}]", depth + 1) for at, item in enumerate(value)]
    if isinstance(value, Cont):
        return _plain(value_of(value), where, depth)
    if isinstance(value, str):
        return _text(str.__str__(value), where)
    if isinstance(value, int):
        return _plain(int(value), where, depth)
    if isinstance(value, float):
        return _plain(float(value), where, depth)
    raise InvalidValue(
        f"{where}: {kind.__name__} cannot be sent; use None, bool, int, float, str, list or dict", path=where
    )


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValue(f"{where}: text that is not valid Unicode: {value[:40]!a}", path=where) from None
    return value


def _key(key: Any, where: str) -> str:
    if type(key) is str:
        return key if key.isascii() else _text(key, where)
    if isinstance(key, str):
        return _text(str.__str__(key), where)
    raise InvalidValue(f"{where}: the key {key!a} must be text, not {type(key).__name__}", path=where)


def to_expected(version: Expected) -> int | None:
    """Return the version that a write expects as the wire has it. Raises `InvalidValue`."""
    if version is None:
        return None
    if type(version) is int and version >= 0:
        return version
    if version == "absent":
        return _ABSENT
    raise InvalidValue(f'version {version!r}: a write expects a version from 0 up, or "absent"')


_TAG: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")


def to_version(version: Version) -> int | str | None:
    """Return the version that is meant as the wire has it.

    From 0 up, or negative to count back; a tag; or the one that was the present one at a time: a `datetime`,
    or ISO 8601 text such as `2026-11-20T12:00` or `2026-11-20`, local unless it has an offset. Raises
    `InvalidValue`.
    """
    if version is None or (type(version) is int and -(2**63) <= version < 2**63):
        return version
    if isinstance(version, datetime):
        return _utc(version)
    if isinstance(version, str):
        if _TAG.fullmatch(version):
            return version
        if _TIME.fullmatch(version):
            try:
                return _utc(datetime.fromisoformat(version))
            except ValueError:
                pass
    raise InvalidValue(
        f"version {version!a:.80}: must be an integer, a tag, or a time such as 2026-11-20T12:00"
    )


def _utc(time: datetime) -> str:
    try:
        there = time.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidValue(f"version {time.isoformat()}: this time cannot be expressed in UTC") from None
    return there.replace(tzinfo=None).isoformat(timespec="auto") + "Z"


def to_begin(version: Version, regex: bool) -> tuple[str, int] | None:
    """Return the version that a subscription begins from as a position has it. Raises `InvalidValue`."""
    meant = to_version(version)
    if meant is None:
        return None
    if regex:
        raise InvalidValue("from_version goes with a path: each root counts its own versions")
    return ("@" + meant, 0) if isinstance(meant, str) else ("@", meant)


def to_moment(time: Any) -> float | None:
    """Return `time` as Unix seconds: such a number itself, a `datetime`, or text as `to_version` takes it.

    Raises `InvalidValue`.
    """
    if isinstance(time, (str, datetime)):
        text = to_version(time)
        if isinstance(text, str) and not _TAG.fullmatch(text):
            return datetime.fromisoformat(text).timestamp()
    elif time is None or (isinstance(time, (int, float)) and time - time == 0):
        return None if time is None else float(time)
    raise InvalidValue(f"time {time!a:.80}: must be Unix seconds, or a time such as 2026-11-20T12:00")


def check_timeout(timeout: Any) -> float:
    """Return `timeout` in seconds if a request may wait so long. Raises `InvalidValue`."""
    if isinstance(timeout, (int, float)) and 0 < timeout <= MAX_TIMEOUT:
        return timeout
    raise InvalidValue(f"timeout {timeout!r}: more than 0 and at most {MAX_TIMEOUT:.0f} seconds")


def to_text(value: Any, what: str) -> str:
    """Return `value` if it is text; `what` it is for stands in the error. Raises `InvalidValue`."""
    if isinstance(value, str):
        return _text(str.__str__(value), what)
    raise InvalidValue(f"{what} must be text, not {type(value).__name__}")


# Of a code object, as the module inspect has them; importing that module costs every device a megabyte.
_ASYNC: Final = 0x80 | 0x200


def check_function(function: Any, what: str, *, plain: bool) -> None:
    """Raise `InvalidValue`, which begins with `what`, unless `function` can be called.

    `plain`: who calls it does not await, so one that is async is refused too.
    """
    if not callable(function):
        raise InvalidValue(f"{what} must be a function, not {type(function).__name__}")
    if plain and _is_async(function):
        raise InvalidValue(f"{what} is async; the blocking client awaits nothing: write it without async")


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    # An object whose class has an async __call__ is no coroutine function itself.
    for each in (function, getattr(type(function), "__call__", None)):  # noqa: B004
        flags = getattr(getattr(each, "__code__", None), "co_flags", 0)
        if isinstance(flags, int) and flags & _ASYNC:
            return True
    return False


_TEGA_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_tega_id(tega_id: Any) -> str:
    """Return `tega_id` if it is one. Raises `InvalidValue`."""
    if isinstance(tega_id, str) and _TEGA_ID.fullmatch(tega_id):
        return tega_id
    raise InvalidValue(f"tega_id {tega_id!a:.80}: 1 to 64 of the characters A-Z a-z 0-9 _ - are allowed")


def fresh_tega_id(host: str, pid: int, random: str) -> str:
    """Return the tega_id of a program that was given none: `HOST-PID-RANDOM`, in the allowed characters."""
    tail = f"-{pid}-{random}"
    return re.sub(r"[^A-Za-z0-9_-]", "-", host)[: 64 - len(tail)] + tail


_TCP = re.compile(r"tcp://(\[[0-9A-Fa-f:.%a-z]+\]|[^\s:/\[\]]+):(\d{1,5})")
_LONGEST_IPC: Final = 107


def check_url(url: Any) -> str:
    """Return `url` if a node can be dialled by it: `tcp://HOST:PORT`, `ipc://PATH`, `ws://` or `wss://HOST`.

    Raises `InvalidValue`.
    """
    if not isinstance(url, str):
        raise InvalidValue(f"the url of a node is text, not {type(url).__name__}")
    try:
        url.encode()
    except UnicodeEncodeError:
        raise InvalidValue(f"{url[:200]!a}: a url is Unicode text, without lone surrogates") from None
    if url.startswith("tcp://"):
        match = _TCP.fullmatch(url)
        if match and 1 <= int(match.group(2)) <= 65535:
            return url
        raise InvalidValue(f"{url}: expected tcp://HOST:PORT with a port from 1 to 65535")
    if url.startswith("ipc://"):
        size = len(url.encode()) - len("ipc://")
        if 0 < size <= _LONGEST_IPC:
            return url
        raise InvalidValue(f"{url}: expected ipc://PATH with a path of 1 to {_LONGEST_IPC} bytes, not {size}")
    if is_tunnel(url):
        address_of(url)
        return url
    raise InvalidValue(f"{url}: expected tcp://HOST:PORT, ipc://PATH, or ws://HOST:PORT of a bridge")


# -- requests --------------------------------------------------------------------------------------


def get(path: PathLike, version: Version = None, form: str = "value", txid: str = "") -> Ask:
    """Read a node."""
    return messages.Get, (to_path(path), to_version(version), form, txid)


def find(regex: str, txid: str = "") -> Ask:
    """Read the nodes whose path matches."""
    return messages.Find, (to_text(regex, "a regex"), txid)


def write(ops: tuple[OpField, ...], message: str = "", txid: str = "") -> Ask:
    """Change the tree."""
    return messages.Write, (ops, "" if message == "" else to_text(message, "a message"), txid)


def put(path: PathLike | Cont, value: Any, version: Expected, ephemeral: bool) -> OpField:
    """The operation that puts `value` at `path`; a `Cont` alone is both."""
    if value is NO_DEFAULT:
        if not isinstance(path, Cont):
            raise InvalidValue("put needs a path and a value, or a Cont that is both")
        value = value_of(path)
    oids = to_path(path)
    return (
        "put",
        oids,
        to_value(value, oids),
        None if version is None else to_expected(version),
        bool(ephemeral),
    )


def patch(path: PathLike | Cont, value: Any, version: Expected) -> OpField:
    """The operation that merges `value` into `path`; a `Cont` alone is both."""
    if value is NO_DEFAULT:
        if not isinstance(path, Cont):
            raise InvalidValue("patch needs a path and a value, or a Cont that is both")
        value = value_of(path)
    oids = to_path(path)
    return ("patch", oids, to_value(value, oids), to_expected(version), False)


def delete(path: PathLike, version: Expected) -> OpField:
    """The operation that deletes the node at `path`."""
    return ("delete", to_path(path), None, to_expected(version), False)


def rollback(root: str, version: Version) -> OpField:
    """The operation that restores `version` of `root`."""
    path = to_path(root)
    if len(path) != 1:
        raise InvalidPath(
            f"{format_path(path)}: only a whole root can be rolled back", path=format_path(path)
        )
    meant = to_version(version)
    if meant is None:
        raise InvalidValue("rollback needs the version to restore")
    return ("rollback", path, meant, None, False)


def leaves_open(error: TegaError) -> bool:
    """Whether a transaction whose commit failed with `error` is still open: nobody was there to commit it."""
    return isinstance(error, (Offline, OwnerAway)) or (
        isinstance(error, StorageError) and error.outcome == "none"
    )


def commit(txid: str, message: str) -> Ask:
    """Commit a transaction."""
    return messages.CommitTransaction, (txid, to_text(message, "a message"))


def log(
    path: PathLike,
    limit: int,
    before: int | None = None,
    since: float | str | datetime | None = None,
    by: str = "",
) -> Ask:
    """List the commits that touched `path`."""
    if type(limit) is not int or not 0 < limit < 2**31:
        raise InvalidValue(f"limit {limit!r}: must be an integer from 1 up")
    if before is not None and (type(before) is not int or before < 0):
        raise InvalidValue(f"before {before!r}: must be a version from 0 up")
    return messages.Log, (to_path(path), limit, before, to_moment(since), to_text(by, "by"))


def diff(path: PathLike, version: Version, other: Version, other_path: PathLike | None) -> Ask:
    """Compare two versions, or two paths."""
    here = to_path(path)
    there = here if other_path is None else to_path(other_path)
    return messages.Diff, (here, to_version(version), there, to_version(other))


def blame(path: PathLike, version: Version) -> Ask:
    """Say who changed each leaf last."""
    return messages.Blame, (to_path(path), to_version(version))


def tag(root: str, name: str, version: Version) -> Ask:
    """Give a version a name."""
    return messages.Tag, (_root(root), to_version(version), to_text(name, "a tag"))


def untag(root: str, name: str) -> Ask:
    """Take a name away."""
    return messages.Untag, (_root(root), to_text(name, "a tag"))


def _root(root: str) -> str:
    path = to_path(root)
    if len(path) != 1:
        raise InvalidPath(
            f"{format_path(path)}: only versions of a whole root have tags", path=format_path(path)
        )
    return path[0]


def publish(channel: str, value: Any) -> Ask:
    """Send a message."""
    return messages.Publish, (to_text(channel, "a channel"), to_value(value))


def call(path: PathLike, args: tuple[Any, ...] | Ready, kwargs: dict[str, Any] | Ready) -> Ask:
    """Call a handler. `Ready` arguments come from `to_args` and `to_value`."""
    made = args.value if isinstance(args, Ready) else to_args(args)
    return messages.Call, (to_path(path), made, to_value(kwargs, "argument"))


def call_all(regex: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ask:
    """Call all handlers whose path matches."""
    return messages.CallAll, (to_text(regex, "a regex"), to_args(args), to_value(kwargs, "argument"))


def to_args(args: Sequence[Any]) -> tuple[Any, ...]:
    """Return a copy of the arguments of a call as `to_value` makes it of each."""
    try:
        return tuple([_copied(value, 0) for value in args])
    except (_Unusual, UnicodeEncodeError):
        return tuple([to_value(value, f"argument {at}") for at, value in enumerate(args, 1)])


def report(name: str, value: Any) -> Ask:
    """Say something of this session."""
    return messages.Report, (to_text(name, "a name"), to_value(value))


def inspect(what: str) -> Ask:
    """Read a listing of the node."""
    return messages.Inspect, (to_text(what, "what to inspect"),)


def manage(what: str, argument: str) -> Ask:
    """Act on the node."""
    return messages.Manage, (to_text(what, "what to do"), to_text(argument, "the argument"))


def check_scope(scope: str) -> str:
    """Return `scope` if it is one. Raises `InvalidValue`."""
    if scope in ("local", "global"):
        return scope
    raise InvalidValue(f'scope {scope!r}: expected "local" or "global"')


# -- results ---------------------------------------------------------------------------------------
# A node that answers in another shape than the protocol's is broken: `ProtocolError`, not a traceback.


def _broken(what: str, reply: Any) -> ProtocolError:
    return ProtocolError(f"the node answered {what} with {reply!a:.80}")


def as_value(reply: Any) -> Any:
    """Return the value in the reply to a `get`."""
    try:
        return reply[0]
    except (TypeError, LookupError):
        raise _broken("a read", reply) from None


def as_oids(reply: Any) -> list[tuple[str, bool]]:
    """Return the reply to a `get` with `form="oids"`."""
    try:
        return [(oid, container) for oid, container in reply]
    except (TypeError, ValueError):
        raise _broken("a read", reply) from None


def as_edges(reply: Any) -> Edges:
    """Return the reply to a `get` with `form="edges"`."""
    try:
        return Edges(
            Edge(
                f"{format_path(tuple(path))}@{version:d}",
                oid,
                f"{format_path((*path, oid))}@{below:d}",
            )
            for path, version, oid, below in reply[0]
        )
    except (TypeError, ValueError, LookupError):
        raise _broken("a request for edges", reply) from None


def as_node(reply: Any) -> NodeView:
    """Return the reply to a `get` with `form="node"`."""
    try:
        value, version, ephemeral, epoch, age, handlers = reply
    except (TypeError, ValueError):
        raise _broken("a read", reply) from None
    return NodeView(value, version, ephemeral, epoch, age, handlers)


def as_place(reply: Any) -> tuple[int, NodeView]:
    """Return the reply to a `get` with `form="place"`: the root's version, and the node without its value."""
    try:
        at, version, epoch, age = reply
    except (TypeError, ValueError):
        raise _broken("a read", reply) from None
    return at, NodeView(None, version, False, epoch, age)


def as_committed(reply: Any) -> Committed:
    """Return the reply to a write."""
    try:
        revision, versions = reply
        return Committed(revision, dict(versions))
    except (TypeError, ValueError):
        raise _broken("a write", reply) from None


def as_found(reply: Any) -> FoundNodes:
    """Return the reply to a `find`."""
    try:
        return FoundNodes(
            Found(format_path(tuple(path)), tuple(tuple(each) for each in groups), value)
            for path, groups, value in reply
        )
    except (TypeError, ValueError):
        raise _broken("a search", reply) from None


def as_differences(reply: Any) -> Differences:
    """Return the reply to a `diff`."""
    try:
        return Differences(difference(entry) for entry in reply)
    except (TypeError, ValueError, LookupError):
        raise _broken("a comparison", reply) from None


def as_candidate(reply: Any) -> CandidateView:
    """Return the reply to `candidate`."""
    try:
        roots, changes = reply
        return CandidateView(dict(roots), tuple(difference(entry) for entry in changes))
    except (TypeError, ValueError, LookupError):
        raise _broken("a request for a candidate", reply) from None


def as_problems(reply: Any) -> list[TegaError]:
    """Return the reply to `Check`: the errors that a commit would meet."""
    try:
        return [decode_error(*each) for each in reply]
    except (TypeError, AttributeError):
        raise _broken("a check", reply) from None


def as_log(reply: Any) -> Log:
    """Return the reply to a `log`."""
    try:
        found = Log(
            LogEntry(
                version,
                time,
                tega_id,
                message,
                backto,
                tuple(
                    Difference(format_path(tuple(path)), None, new[0] if new else None, False, not new)
                    for path, new in changes
                ),
                int(left_out[0]) if left_out else 0,
            )
            for version, time, tega_id, message, backto, changes, *left_out in (
                each for each in reply if len(each) != 3
            )
        )
        found.gaps = tuple(Gap(*each) for each in reply if len(each) == 3)
        return found
    except (TypeError, ValueError, LookupError):
        raise _broken("a request for a log", reply) from None


def as_blame(reply: Any) -> Blame:
    """Return the reply to `blame`."""
    try:
        return Blame(Blamed(format_path(tuple(path)), *rest) for path, *rest in reply)
    except (TypeError, ValueError):
        raise _broken("a request for blame", reply) from None


def as_tags(reply: Any, root: str | None) -> dict[str, dict[str, int]]:
    """Return the listing of tags: by root, the version of each; of one `root`, if that is not None."""
    tags: dict[str, dict[str, int]] = {}
    try:
        for entry in reply:
            if root is None or entry["root"] == _root(root):
                tags.setdefault(entry["root"], {})[entry["tag"]] = entry["version"]
    except (TypeError, LookupError):
        raise _broken("a listing of tags", reply) from None
    return tags


def as_outcomes(reply: Any) -> dict[tuple[str, str], Any]:
    """Return the reply to `call_all`: by (path, tega_id) the result, or the error as an exception."""
    outcomes: dict[tuple[str, str], Any] = {}
    try:
        for path, tega_id, ok, value in reply:
            outcomes[format_path(tuple(path)), tega_id] = value if ok else decode_error(*value)
    except (TypeError, ValueError, LookupError):
        raise _broken("a call to many", reply) from None
    return outcomes


def or_default(error: NotFound, default: Any) -> Any:
    """Return `default`, or raise `error` if there is none."""
    if default is NO_DEFAULT:
        raise error
    return default


def result_of(call: int, value: Any) -> messages.Result:
    """Return the message that carries a handler's result; one that cannot be sent makes it an error."""
    try:
        return messages.Result(call, True, to_value(value, "result"))
    except InvalidValue as error:
        return messages.Result(call, False, ["InvalidValue", error.message])


def error_of(call: int, error: BaseException) -> messages.Result:
    """Return the message that carries what a handler raised: the name of its class, and its message.

    Raises nothing, whatever `error` is: its caller waits.
    """
    given = error.type if isinstance(error, HandlerError) else None
    name = given if isinstance(given, str) and given else type(error).__name__
    return messages.Result(
        call, False, [str.encode(name, errors="replace").decode()[:255], text_of(error)[:4000]]
    )
