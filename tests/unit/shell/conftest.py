"""A client over a dict, with the names and results of the real one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, Self

import pytest

from tega_zmq.client.requests import NO_DEFAULT, to_path
from tega_zmq.client.results import (
    Blamed,
    CandidateView,
    Change,
    Committed,
    Difference,
    Edge,
    Found,
    Gap,
    Log,
    LogEntry,
    MessageView,
    NodeView,
)
from tega_zmq.errors import (
    Collision,
    InvalidPath,
    NoHandler,
    NotFound,
    TegaError,
    TooLarge,
    TransactionExpired,
)
from tega_zmq.paths import Path, format_path
from tega_zmq.shell.output import plain
from tega_zmq.shell.run import run_line
from tega_zmq.shell.session import Session, Surroundings

_NONE: Any = object()


class FakeSubscription:
    def __init__(self, client: FakeClient, entry: tuple[Any, ...], on_end: Any) -> None:
        self._client, self._entry = client, entry
        self._on_end = on_end
        self.error: TegaError | None = None

    def end(self, error: TegaError) -> None:
        """The node ends it."""
        self.error = error
        self._client.subscriptions.remove(self._entry)
        self._on_end(error)

    def cancel(self) -> None:
        if self._entry not in self._client.subscriptions:
            raise NotFound("it ended already")
        self._client.subscriptions.remove(self._entry)


class FakeTransaction:
    def __init__(self, client: FakeClient, txid: str) -> None:
        self.client, self.txid = client, txid
        self.tree = copy.deepcopy(client.tree)
        self.ended = False
        self.expired = False

    def _check(self) -> None:
        if self.expired or self.ended:
            raise TransactionExpired(f"there is no transaction {self.txid}", txid=self.txid)

    def put(self, path: Any, value: Any, *, version: Any = None, ephemeral: bool = False) -> None:
        self._check()
        self.client.calls.append(("tx.put", to_path(path), value, ephemeral))
        self.client.set(self.tree, to_path(path), value)

    def patch(self, path: Any, value: Any, *, version: Any = None) -> None:
        self._check()
        self.client.merge(self.tree, to_path(path), value)

    def delete(self, path: Any, *, version: Any = None) -> None:
        self._check()
        self.client.drop(self.tree, to_path(path))

    def rollback(self, root: Any, version: int) -> None:
        self._check()
        self.client.restore(self.tree, to_path(root)[0], version)

    def get(self, path: Any) -> Any:
        self._check()
        return self.client.read(self.tree, to_path(path))

    def find(self, regex: str) -> list[Found]:
        self._check()
        return find(self.tree, regex)

    def check(self) -> list[TegaError]:
        self._check()
        return self.client.problems

    def candidate(self) -> CandidateView:
        self._check()
        roots = {name: self.tree.get(name) for name in {*self.tree, *self.client.tree}}
        changed = {name: tree for name, tree in roots.items() if tree != self.client.tree.get(name)}
        if self.client.largest is not None and len(str(changed)) > self.client.largest:
            raise TooLarge("the candidate is larger than an answer")
        return CandidateView(changed, tuple(differences("", self.client.tree, self.tree)))

    def commit(self, message: str | None = None) -> Committed:
        self._check()
        self.ended = True
        if self.client.fail is not None:
            raise self.client.fail
        return self.client.committed(self.tree, message or "")

    def cancel(self) -> None:
        self._check()
        self.ended = True


def differences(at: str, old: Any, new: Any) -> list[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for oid in [*old, *(oid for oid in new if oid not in old)]:
            path = f"{at}.{oid}" if at else oid
            found += differences(path, old.get(oid, _NONE), new.get(oid, _NONE))
        return found
    if old == new:
        return []
    return [
        Difference(
            at, None if old is _NONE else old, None if new is _NONE else new, old is _NONE, new is _NONE
        )
    ]


def find(tree: dict[str, Any], regex: str) -> list[Found]:
    pattern = re.compile(regex)
    return [
        Found(name, (match.groups(),) if match.groups() else (), value)
        for name, value in tree.items()
        if (match := pattern.match(name))
    ]


class FakeClient:
    def __init__(self) -> None:
        self.tega_id, self.server, self.state = "shell-1", "gateway", "connected"
        self.tree: dict[str, Any] = {}
        self.history: dict[str, list[Any]] = {}
        self.entries: dict[str, list[LogEntry]] = {}
        self.revision = 0
        self.calls: list[tuple[Any, ...]] = []
        self.subscriptions: list[tuple[Any, ...]] = []
        self.gaps: tuple[Gap, ...] = ()
        self.listings: dict[str, Any] = {}
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.ephemeral: set[Path] = set()
        self.largest: int | None = None
        self.fail: TegaError | None = None
        self.named: dict[str, dict[str, int]] = {}
        self.blamed: list[Blamed] = []
        self.problems: list[TegaError] = []
        self.expired_callbacks: list[Callable[[TransactionExpired], Any]] = []
        self.state_callbacks: list[Callable[[str], Any]] = []
        self.closed = False
        self.late: list[Callable[[], None]] = []
        """What callbacks are told only when somebody waits for them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    # -- the tree

    def set(self, tree: dict[str, Any], path: Path, value: Any) -> None:
        for oid in path[:-1]:
            tree = tree.setdefault(oid, {})
        tree[path[-1]] = copy.deepcopy(value)

    def merge(self, tree: dict[str, Any], path: Path, value: Any) -> None:
        for oid in path:
            tree = tree.setdefault(oid, {})
        for key, item in value.items():
            tree.pop(key, None) if item is None else tree.__setitem__(key, item)

    def drop(self, tree: dict[str, Any], path: Path) -> None:
        for oid in path[:-1]:
            tree = tree[oid]
        if path[-1] not in tree:
            raise NotFound(f"there is nothing at {format_path(path)}", path=format_path(path))
        del tree[path[-1]]

    def read(self, tree: Any, path: Path) -> Any:
        for oid in path:
            if not isinstance(tree, dict) or oid not in tree:
                raise NotFound(f"there is nothing at {format_path(path)}", path=format_path(path))
            tree = tree[oid]
        return tree

    def committed(self, tree: dict[str, Any], message: str) -> Committed:
        versions = {}
        for name in {*tree, *self.tree}:
            changes = differences(name, self.tree.get(name, _NONE), tree.get(name, _NONE))
            if not changes:
                continue
            self.history.setdefault(name, []).append(copy.deepcopy(tree.get(name)))
            versions[name] = len(self.history[name]) - 1
            entry = LogEntry(versions[name], 1_700_000_000.0, "noc-1", message, None, tuple(changes))
            self.entries.setdefault(name, []).insert(0, entry)
        self.tree = tree
        self.revision += bool(versions)
        return Committed(self.revision if versions else 0, versions)

    def _write(
        self, path: Any, version: Any, change: Callable[[dict[str, Any]], None], message: str
    ) -> Committed:
        name = to_path(path)[0]
        present = len(self.history.get(name, [])) - 1
        if version is not None and version != (present if name in self.tree else "absent"):
            raise Collision(
                f"{name} is at version {present}, not {version}", path=name, expected=version, actual=present
            )
        tree = copy.deepcopy(self.tree)
        change(tree)
        return self.committed(tree, message)

    def put(
        self,
        path: Any,
        value: Any = NO_DEFAULT,
        *,
        version: Any = None,
        ephemeral: bool = False,
        message: str = "",
    ) -> Committed:
        self.calls.append(("put", to_path(path), value, version, ephemeral, message))
        return self._write(path, version, lambda tree: self.set(tree, to_path(path), value), message)

    def patch(self, path: Any, value: Any, *, version: Any = None, message: str = "") -> Committed:
        return self._write(path, version, lambda tree: self.merge(tree, to_path(path), value), message)

    def delete(self, path: Any, *, version: Any = None, message: str = "") -> Committed:
        return self._write(path, version, lambda tree: self.drop(tree, to_path(path)), message)

    def rollback(self, root: Any, version: int, *, message: str = "") -> Committed:
        name = to_path(root)[0]
        return self._write(root, None, lambda tree: self.restore(tree, name, version), message)

    def version(self, name: str, version: int) -> Any:
        """The tree of a root at a version, None if there was none."""
        past = self.history.get(name, [])
        at = version if version >= 0 else len(past) - 1 + version
        if not 0 <= at < len(past):
            raise NotFound(f"{name} has no version {version}", path=name, version=version)
        return past[at]

    def restore(self, tree: dict[str, Any], name: str, version: int) -> None:
        restored = self.version(name, version)
        tree.pop(name, None)
        if restored is not None:
            tree[name] = copy.deepcopy(restored)

    def begin(self) -> FakeTransaction:
        return FakeTransaction(self, f"tx{self.revision}")

    def get(self, path: Any, *, version: int | None = None, timeout: float | None = None) -> Any:
        path = to_path(path)
        self.calls.append(("get", path, version))
        if version is None:
            return self.read(self.tree, path)
        then = self.version(path[0], version)
        return self.read({} if then is None else {path[0]: then}, path)

    def oids(self, path: Any, *, version: int | None = None, timeout: float | None = None) -> list[Any]:
        value = self.read(self.tree, to_path(path))
        return (
            [(oid, isinstance(child, dict)) for oid, child in value.items()]
            if isinstance(value, dict)
            else []
        )

    def attributes(self, path: Any, *, version: int | None = None) -> Any:
        path = to_path(path)
        value = self.get(path, version=version)
        if self.largest is not None and len(str(value)) > self.largest:
            raise TooLarge("the value is larger than an answer")
        return self._attributes(path, value)

    def _attributes(self, path: Path, value: Any) -> Any:
        if isinstance(value, dict):
            value = {oid: self._attributes((*path, oid), child) for oid, child in value.items()}
        return {
            "_oid": path[-1],
            "_parent": format_path(path[:-1]) if path[:-1] else None,
            "_version": 0,
            "_ephemeral": path in self.ephemeral,
            "_value": value,
        }

    def node(self, path: Any) -> NodeView:
        path = to_path(path)
        value = self.read(self.tree, path)
        return NodeView(value, len(self.history.get(path[0], [0])) - 1, False, "e", None)

    def find(self, regex: str) -> list[Found]:
        return find(self.tree, regex)

    def log(self, path: Any, limit: int = 20, *, since: float | None = None, by: str = "") -> Log:
        name = to_path(path)[0]
        self.calls.append(("log", name, limit, since, by))
        if name not in self.entries:
            raise NotFound(f"there is no root {name}", path=name)
        found = Log(self.entries[name][:limit])
        found.gaps = self.gaps
        return found

    def diff(
        self, path: Any, version: Any = None, other: Any = None, *, other_path: Any = None
    ) -> list[Difference]:
        one = self.get(path, version=version)
        return differences("", one, self.get(other_path or path, version=other))

    def tag(self, root: str, name: str, version: Any = None) -> int:
        if root not in self.history:
            raise NotFound(f"there is no root {root}", path=root)
        number = len(self.history[root]) - 1 if version is None else int(version)
        self.named.setdefault(root, {})[name] = number
        return number

    def untag(self, root: str, name: str) -> int:
        if name not in self.named.get(root, {}):
            raise NotFound(f"{root} has no tag {name}", path=root)
        return self.named[root].pop(name)

    def tags(self, root: str | None = None) -> dict[str, dict[str, int]]:
        return {each: names for each, names in self.named.items() if root in (None, each)}

    def blame(self, path: Any, version: Any = None) -> list[Blamed]:
        self.calls.append(("blame", to_path(path), version))
        return self.blamed

    def edges(self, path: Any, *, version: Any = None) -> list[Edge]:
        self.calls.append(("edges", to_path(path), version))
        return [Edge("a@1", "b", "a.b@0")]

    # -- the rest

    def inspect(self, what: str, *, timeout: float | None = None) -> Any:
        self.calls.append(("inspect", what))
        if self.fail is not None:
            raise self.fail
        if what == "roots" and what not in self.listings:
            return [
                {
                    "root": name,
                    "version": len(self.history.get(name, [0])) - 1,
                    "owner": "gateway",
                    "age": None,
                }
                for name in sorted(self.tree)
            ]
        if what == "old" and what not in self.listings:
            return [
                {
                    "root": name,
                    "owner": "gateway",
                    "deleted": name not in self.tree,
                    "versions": [0, len(past) - 1],
                    "updates": [0, len(past) - 1],
                    "readable": [[0, len(past) - 1]],
                }
                for name, past in sorted(self.history.items())
            ]
        return self.listings.get(what, [])

    def catch_up(self) -> None:
        self.calls.append(("catch_up",))
        for tell in self.late:
            tell()

    def manage(self, what: str, argument: str = "") -> Any:
        self.calls.append(("manage", what, argument))
        return {"done": what}

    def publish(self, channel: str, value: Any) -> int:
        for what, callback, regex, kind in list(self.subscriptions):
            if kind == "listen" and (re.fullmatch(what, channel) if regex else what == channel):
                callback(MessageView(channel, value, "noc-1"))
        return len(self.subscriptions)

    def subscribe(
        self, what: str, callback: Any, *, regex: bool = False, scope: str = "local", on_end: Any = None
    ) -> FakeSubscription:
        return self._subscribe(what, callback, regex, "subscribe", scope, on_end)

    def listen(
        self, what: str, callback: Any, *, regex: bool = False, scope: str = "local", on_end: Any = None
    ) -> FakeSubscription:
        if what == "refused":
            raise InvalidPath("no such channel", path=what)
        return self._subscribe(what, callback, regex, "listen", scope, on_end)

    def _subscribe(
        self, what: str, callback: Any, regex: bool, kind: str, scope: str, on_end: Any
    ) -> FakeSubscription:
        self.calls.append((kind, what, regex, scope))
        entry = (what, callback, regex, kind)
        self.subscriptions.append(entry)
        return FakeSubscription(self, entry, on_end)

    def tell(self, change: Change) -> None:
        for _, callback, _, kind in self.subscriptions:
            if kind == "subscribe":
                callback(change)

    def on_state(self, callback: Any) -> None:
        self.state_callbacks.append(callback)

    def on_expired(self, callback: Any) -> None:
        self.expired_callbacks.append(callback)

    def on_dropped(self, callback: Any) -> None:
        pass

    def call(self, path: Any, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        name = format_path(to_path(path))
        self.calls.append(("call", name, args, kwargs, timeout))
        if name not in self.handlers:
            raise NoHandler(f"nobody offers {name}", path=name)
        return self.handlers[name](*args, **kwargs)


class Desk:
    """A session over a fake client, and all that it showed."""

    def __init__(self) -> None:
        self.client = FakeClient()
        self.shown: list[str] = []
        self.notes: list[str] = []
        self.body = ""
        self.answer = False
        self.session = self.make("interactive")

    def make(self, mode: Any, as_json: bool = False) -> Session:
        around = Surroundings(
            mode=mode,
            show=self.shown.append,
            note=self.notes.append,
            read_body=lambda: self.body,
            confirm=lambda question: self.answer,
            paint=plain,
            as_json=as_json,
        )
        self.session = Session(self.client, around, "tcp://node")  # type: ignore[arg-type]
        return self.session


@pytest.fixture
def desk() -> Desk:
    return Desk()


def type_(desk: Any, *lines: str) -> str:
    """Type `lines`; return what the last one printed."""
    shown = ""
    for line in lines:
        shown = run_line(desk.session, line)
    return shown
