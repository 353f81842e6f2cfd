"""The blocking client: `connect` and what it returns. Threads may share it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tega_zmq.client import requests
from tega_zmq.client.cont import Cont
from tega_zmq.client.driver import Driver
from tega_zmq.client.requests import NO_DEFAULT, Expected, PathLike, Version
from tega_zmq.client.results import (
    Blame,
    CandidateView,
    Change,
    Committed,
    Differences,
    Edges,
    FoundNodes,
    Log,
    MessageView,
    NodeView,
)
from tega_zmq.client.subscriptions import Subscribed
from tega_zmq.errors import Collision, Disconnected, InvalidValue, NotFound, TegaError, TransactionExpired
from tega_zmq.paths import format_path
from tega_zmq.tunnel.urls import Tls
from tega_zmq.wire import messages
from tega_zmq.wire.messages import OpField

if TYPE_CHECKING:
    import zmq

__all__ = ["Client", "Subscription", "Transaction", "connect"]


def connect(
    url: str,
    tega_id: str | None = None,
    *,
    timeout: float = 10.0,
    kind: str = "client",
    context: zmq.Context[Any] | None = None,
    tls: Tls | None = None,
) -> Client:
    """Open a session at the node that listens at `url` and return its client.

    `url`: `tcp://HOST:PORT`, `ipc://PATH`, or a bridge's, `ws://HOST:PORT` or `wss://HOST` (a tunnel, through
    the proxy that HTTPS_PROXY or HTTP_PROXY names). `tega_id`: who this program is; by default a fresh name.
    Somebody else who is connected under it is displaced. `timeout`: seconds to wait for the node, and what
    the client's methods wait at most unless told otherwise. `kind`: how listings show it. `context`: a
    ZeroMQ context to share between many clients; by default each has its own. `tls`: files for `wss://`.

    Raises `Disconnected` if no node answers, `InvalidValue` for a wrong argument, or what the node refuses
    with.
    """
    requests.check_url(url)
    if tega_id is None:
        tega_id = requests.fresh_tega_id(socket.gethostname(), os.getpid(), os.urandom(4).hex())
    driver = Driver(url, requests.check_tega_id(tega_id), kind, context, tls)
    driver.start(requests.check_timeout(timeout))
    return Client(driver, timeout)


class Client:
    """A program's session at a node.

    It comes back by itself when the connection was lost, with its subscriptions, handlers and ephemeral
    nodes; `state` tells how it stands. Every method takes `timeout` in seconds (by default that of
    `connect`) and may raise `Timeout`, `Disconnected`, `TakenOver`, `Forbidden` and `ProtocolError` besides
    what it names.

    Paths are text (`'net."eth0.100".mtu'`), sequences of oids, or a `Cont`. Callbacks run in one thread, in
    order, and may use the client; handlers run in threads of their own.
    """

    def __init__(self, driver: Driver, timeout: float) -> None:
        self._driver = driver
        self._timeout = timeout

    # -- the client itself --------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.tega_id} at {self._driver.url}: {self.state}>"

    @property
    def tega_id(self) -> str:
        """The name under which this program takes part."""
        return self._driver.engine.session.tega_id

    @property
    def url(self) -> str:
        """The node's url."""
        return self._driver.url

    @property
    def server(self) -> str:
        """The tega_id of the node."""
        welcome = self._driver.engine.session.welcome
        return welcome.tega_id if welcome is not None else ""

    @property
    def state(self) -> str:
        """How the session stands.

        `connected`; `suspended`: no connection, but what the session owns still stands; `lost`: no longer, a
        new session follows by itself; `taken over`: another program has the tega_id, final; `closed`.
        """
        return self._driver.engine.session.state

    def on_state(self, callback: Callable[[str], Any]) -> None:
        """Call `callback` with each new state."""
        requests.check_function(callback, "the callback", plain=True)
        self._driver.engine.on_state.append(callback)

    def on_dropped(self, callback: Callable[[int], Any]) -> None:
        """Call `callback` with how many messages were dropped because they were read too slowly."""
        requests.check_function(callback, "the callback", plain=True)
        self._driver.engine.on_dropped(callback)

    def on_expired(self, callback: Callable[[TransactionExpired], Any]) -> None:
        """Call `callback` when an open transaction ends by itself: idle too long, or lost with the node."""
        requests.check_function(callback, "the callback", plain=True)
        self._driver.engine.on_expired.append(callback)

    def close(self) -> None:
        """End the session: its ephemeral nodes, subscriptions and handlers go. May be called twice."""
        self._driver.close()

    def _ask(self, ask: requests.Ask, timeout: float | None) -> Any:
        driver = self._driver
        return driver.run(driver.engine.ask, ask, self._timeout if timeout is None else timeout)

    def _write(self, ops: tuple[OpField, ...], message: str, timeout: float | None) -> Committed:
        driver = self._driver
        ask = requests.write(ops, message)
        reply = driver.run(driver.engine.write, ask, ops, self._timeout if timeout is None else timeout)
        return requests.as_committed(reply)

    # -- reading ------------------------------------------------------------------------------------

    def get(
        self,
        path: PathLike,
        default: Any = NO_DEFAULT,
        *,
        version: Version = None,
        timeout: float | None = None,
    ) -> Any:
        """Return the value at `path`; `version` negative counts back. Raises `NotFound`, `Compacted`.

        `default` is returned where nothing stands, instead of `NotFound`.
        """
        try:
            return requests.as_value(self._ask(requests.get(path, version), timeout))
        except NotFound as error:
            return requests.or_default(error, default)

    def node(self, path: PathLike, *, version: Version = None, timeout: float | None = None) -> NodeView:
        """Return the node at `path`: value, version, ephemeral. Raises as `get`."""
        return requests.as_node(self._ask(requests.get(path, version, "node"), timeout))

    def attributes(
        self, path: PathLike, *, version: Version = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return the node at `path` as `_oid _parent _version _ephemeral _value`, all the way down."""
        reply = self._ask(requests.get(path, version, "attributes"), timeout)
        return requests.as_value(reply)  # type: ignore[no-any-return]

    def oids(
        self, path: PathLike, *, version: Version = None, timeout: float | None = None
    ) -> list[tuple[str, bool]]:
        """Return the oids right below `path`, each with whether it is a container; a leaf has none."""
        return requests.as_oids(self._ask(requests.get(path, version, "oids"), timeout))

    def cont(self, path: PathLike, *, version: Version = None, timeout: float | None = None) -> Cont:
        """Return the container at `path` as a `Cont`. Raises as `get`, and `InvalidValue` for a leaf."""
        oids = requests.to_path(path)
        value = self.get(oids, version=version, timeout=timeout)
        if not isinstance(value, dict):
            raise InvalidValue(f"{format_path(oids)} is a leaf, not a container", path=format_path(oids))
        return Cont(oids, value)

    def find(self, regex: str, *, timeout: float | None = None) -> FoundNodes:
        """Return the nodes whose path matches `regex` oid by oid (parted by `\\.`), with its groups."""
        return requests.as_found(self._ask(requests.find(regex), timeout))

    def log(
        self,
        path: PathLike,
        limit: int = 20,
        *,
        since: float | str | datetime | None = None,
        by: str = "",
        before: int | None = None,
        timeout: float | None = None,
    ) -> Log:
        """Return the newest `limit` kept commits that touched `path`, newest first.

        Of these only those made at `since` (Unix seconds, a `datetime`, or text) or later, by the tega_id
        `by`, and before version `before`. Raises `NotFound`.
        """
        return requests.as_log(self._ask(requests.log(path, limit, before, since, by), timeout))

    def blame(self, path: PathLike, version: Version = None, *, timeout: float | None = None) -> Blame:
        """Return who changed each leaf at and below `path` last, as it stands at `version`.

        Raises `NotFound`, `Compacted`.
        """
        return requests.as_blame(self._ask(requests.blame(path, version), timeout))

    def tag(self, root: str, name: str, version: Version = None, *, timeout: float | None = None) -> int:
        """Name `version` of `root` (None: the present one) `name`; return its number.

        The name may stand wherever a version may, and the version is kept as long as it has one. Raises
        `NotFound`, `Compacted`, `InvalidValue`.
        """
        return int(self._ask(requests.tag(root, name, version), timeout))

    def untag(self, root: str, name: str, *, timeout: float | None = None) -> int:
        """Take the tag `name` of `root` away; return the version that had it. Raises `NotFound`."""
        return int(self._ask(requests.untag(root, name), timeout))

    def tags(self, root: str | None = None, *, timeout: float | None = None) -> dict[str, dict[str, int]]:
        """Return the tags, of all roots or of one: by root, the version of each tag.

        Those of the roots that this node owns; at an agent that is online those of the node above too. The
        tags of a root that an agent owns are at that agent.
        """
        return requests.as_tags(self.inspect("tags", timeout=timeout), root)

    def diff(
        self,
        path: PathLike,
        version: Version = None,
        other_version: Version = None,
        *,
        other_path: PathLike | None = None,
        timeout: float | None = None,
    ) -> Differences:
        """Return what leads from `path` at `version` to `path` (or `other_path`) at `other_version`.

        None means the present. Raises `NotFound`, `Compacted`.
        """
        return requests.as_differences(
            self._ask(requests.diff(path, version, other_version, other_path), timeout)
        )

    def edges(self, path: PathLike, *, version: Version = None, timeout: float | None = None) -> Edges:
        """Return the graph of nodes and kept versions at and below `path`, or of one `version` alone.

        Each `Edge` leads from a container to what stands in it; versions that share a node share its edges.
        `tega_zmq.graph` draws them. Raises `NotFound`, `Compacted`, and `TooLarge` beyond 10,000 edges.
        """
        return requests.as_edges(self._ask(requests.get(path, version, "edges"), timeout))

    def roots(self, *, timeout: float | None = None) -> Any:
        """Return the listing of all roots."""
        return self.inspect("roots", timeout=timeout)

    # -- writing ------------------------------------------------------------------------------------

    def put(
        self,
        path: PathLike,
        value: Any = NO_DEFAULT,
        *,
        version: Expected = None,
        ephemeral: bool = False,
        message: str = "",
        timeout: float | None = None,
    ) -> Committed:
        """Replace what stands at `path` by `value`; `put(cont)` puts a `Cont` at its own path.

        `version`: the version that the node must have, or "absent"; another raises `Collision`. `ephemeral`:
        the node goes when this session ends.
        """
        return self._write((requests.put(path, value, version, ephemeral),), message, timeout)

    def patch(
        self,
        path: PathLike,
        value: Any = NO_DEFAULT,
        *,
        version: Expected = None,
        message: str = "",
        timeout: float | None = None,
    ) -> Committed:
        """Merge `value` into what stands at `path` (RFC 7396: None removes). Arguments as in `put`."""
        return self._write((requests.patch(path, value, version),), message, timeout)

    def delete(
        self, path: PathLike, *, version: Expected = None, message: str = "", timeout: float | None = None
    ) -> Committed:
        """Delete the node at `path` and all below it. Raises `NotFound`, `Collision`."""
        return self._write((requests.delete(path, version),), message, timeout)

    def rollback(
        self, root: str, version: Version, *, message: str = "", timeout: float | None = None
    ) -> Committed:
        """Restore `version` of `root`, as a new commit.

        Raises `NotFound`, `Compacted`.
        """
        return self._write((requests.rollback(root, version),), message, timeout)

    def undo(self, root: str, *, message: str = "", timeout: float | None = None) -> Committed:
        """Restore the version before the present one, as a new commit: after a rollback, what was before it.

        If there is only the first version, the root is deleted. Raises `NotFound`, `Compacted`.
        """
        try:
            return self.rollback(root, -1, message=message, timeout=timeout)
        except NotFound as error:
            try:
                return self.delete(root, version=0, message=message, timeout=timeout)
            except (Collision, NotFound):  # it is not at its first version: there is no such root
                raise error from None

    def begin(self, message: str = "", *, timeout: float | None = None) -> Transaction:
        """Begin a transaction; it ends with `commit` or `cancel`, or when it is idle for 10 minutes."""
        return Transaction(self, self._ask((messages.Begin, ()), timeout), message)

    @contextmanager
    def transaction(self, message: str = "", *, timeout: float | None = None) -> Iterator[Transaction]:
        """Begin a transaction; commit it at the end of the `with`, or cancel it if that raised."""
        tx = self.begin(message, timeout=timeout)
        try:
            yield tx
            if not tx.ended:
                tx.commit(timeout=timeout)
        except BaseException:
            if not tx.ended:
                # What was raised matters more; the node cancels what is idle.
                with suppress(TegaError):
                    tx.cancel(timeout=timeout)
            raise

    # -- changes and messages -----------------------------------------------------------------------

    def subscribe(
        self,
        path: PathLike,
        callback: Callable[[Change], Any],
        scope: str = "local",
        *,
        regex: bool = False,
        from_version: Version = None,
        named: bool = False,
        on_end: Callable[[TegaError], Any] | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Call `callback` with every change at, below and above `path` (with `regex`: of what matches).

        `scope` "global": forwarded up an agent's uplink. No change is missed or told twice, across lost
        connections too; where the node does not keep what lay between, or not in memory if the root is new
        since, one `Change` says `reset`.

        With `from_version` (a number, a tag, a time) every change since that version of the root is told
        first, then what comes, without a gap. Raises `Compacted`, which says the oldest version from which
        that can be done, and `NotFound` if there is no such root or version.

        A change is told where the least difference lies: who puts a container over another one changes some
        of its leaves. With `named` it is told at the path that the writer put or deleted, as a whole.

        A subscription that stands can end by an error: its right was taken away, or of the past something
        was dropped before it was told. Then `on_end` is called with the error, after the changes that came
        before, and the subscription's `error` is that from then on.
        """
        requests.check_scope(scope)
        requests.check_function(callback, "the callback", plain=True)
        begin = requests.to_begin(from_version, regex)
        subscriptions = self._driver.engine.subscriptions
        if regex:
            text = requests.to_text(path, "a regex")
            return self._subscribe(
                lambda: subscriptions.to_regex(text, scope, callback, on_end, named), timeout
            )
        oids = requests.to_path(path)
        return self._subscribe(
            lambda: subscriptions.to_path(oids, scope, callback, begin, on_end, named), timeout
        )

    def listen(
        self,
        channel: str,
        callback: Callable[[MessageView], Any],
        scope: str = "local",
        *,
        regex: bool = False,
        on_end: Callable[[TegaError], Any] | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Call `callback` with every message on `channel` (`regex`: those whose whole name matches).

        `on_end` as in `subscribe`.
        """
        requests.check_scope(scope)
        requests.check_function(callback, "the callback", plain=True)
        text = requests.to_text(channel, "a channel")
        subscriptions = self._driver.engine.subscriptions
        return self._subscribe(
            lambda: subscriptions.to_channel(text, bool(regex), scope, callback, on_end), timeout
        )

    def _subscribe(self, add: Callable[[], Subscribed], timeout: float | None) -> Subscription:
        driver = self._driver
        made: list[Subscribed] = []

        def added() -> Subscribed:
            made.append(add())
            return made[0]

        driver.run(driver.engine.subscribe, added, self._timeout if timeout is None else timeout)
        return Subscription(self, made[0])

    def unsubscribe(self, subscription: Subscription | int, *, timeout: float | None = None) -> None:
        """End a subscription, to changes or to messages. Raises `NotFound` if it ended already."""
        number = subscription if isinstance(subscription, int) else subscription.number
        driver = self._driver
        driver.run(driver.engine.unsubscribe, number, self._timeout if timeout is None else timeout)

    def publish(self, channel: str, value: Any, *, timeout: float | None = None) -> int:
        """Send `value` to all others who listen to `channel`; return how many sessions of the node that were.

        This client does not hear it, though it listens to the channel itself.
        """
        return self._ask(requests.publish(channel, value), timeout)  # type: ignore[no-any-return]

    def catch_up(self, *, timeout: float | None = None) -> None:
        """Ask the node something, and wait until callbacks were called for all that it had sent before.

        Raises `Timeout` if they take longer, too. A callback that calls this would wait for itself.
        """
        self.inspect("status", timeout=timeout)
        self._driver.catch_up(self._timeout if timeout is None else timeout)

    # -- calls --------------------------------------------------------------------------------------

    def register(self, path: PathLike, function: Callable[..., Any], *, timeout: float | None = None) -> None:
        """Answer calls at `path` with what `function` returns, or with the error that it raises.

        Raises `InvalidValue` if it is no function, or async.
        """
        driver = self._driver
        oids = requests.to_path(path)
        requests.check_function(function, f"the handler at {format_path(oids)}", plain=True)
        driver.run(driver.engine.register, oids, function, self._timeout if timeout is None else timeout)

    def unregister(self, path: PathLike, *, timeout: float | None = None) -> None:
        """Answer no more at `path`. Raises `NotFound` if this client does not."""
        driver = self._driver
        oids = requests.to_path(path)
        driver.run(driver.engine.unregister, oids, self._timeout if timeout is None else timeout)

    def call(self, path: PathLike, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Return the result of the handler at `path`.

        Raises `HandlerError` (it raised), `NoHandler`, `HandlerGone`, `Timeout`, `Cancelled`.
        """
        return self._ask(requests.call(path, args, kwargs), timeout)

    def call_all(
        self, regex: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> dict[tuple[str, str], Any]:
        """Call every handler whose path matches `regex` oid by oid.

        Returns by (path, tega_id) the result, or the error as an exception object. Raises `NoHandler`.
        """
        return requests.as_outcomes(self._ask(requests.call_all(regex, args, kwargs), timeout))

    # -- the node -----------------------------------------------------------------------------------

    def report(self, name: str, value: Any, *, timeout: float | None = None) -> None:
        """Say `value` of this session, shown under `name` in the listing of agents."""
        self._ask(requests.report(name, value), timeout)

    def inspect(self, what: str, *, timeout: float | None = None) -> Any:
        """Return a listing of the node, e.g. "sessions" or "status"; docs/protocol.md has the names."""
        return self._ask(requests.inspect(what), timeout)

    def request(self, cls: type[Any], *fields: Any, timeout: float | None = None) -> Any:
        """Send a request of the protocol that has no method here, and return the value of its answer.

        `cls` is one of `tega_zmq.wire.messages`, `fields` are its own ones, as docs/protocol.md has them.
        """
        return self._ask((cls, fields), timeout)

    def manage(self, what: str, argument: str = "", *, timeout: float | None = None) -> Any:
        """Act on the node, e.g. "snapshot"; docs/protocol.md has the names. Returns what was done."""
        return self._ask(requests.manage(what, argument), timeout)


class Subscription:
    """A subscription that stands, to changes or to messages. As a context manager it ends with the block.

    If it ended by an error before, the block ends with that error, unless with another one. It may be
    cancelled, or the client closed, within the block.
    """

    def __init__(self, client: Client, subscribed: Subscribed) -> None:
        self._client = client
        self._subscribed = subscribed
        self.number = subscribed.number

    @property
    def error(self) -> TegaError | None:
        """What it ended by, though nobody ended it; None: by nothing."""
        return self._subscribed.error

    def cancel(self, *, timeout: float | None = None) -> None:
        """End it. Raises `NotFound` if it ended already."""
        self._client.unsubscribe(self, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            # What was raised matters more, and nothing is told from now on, whatever the node has heard.
            with suppress(TegaError):
                if self.error is None:
                    self.cancel(timeout=min(requests.LEAVING, self._client._timeout))
            return
        if self.error is None:
            try:
                self.cancel()
            except NotFound:
                pass  # it was ended within the block, or by an error just now
            except Disconnected:
                if self._client.state != "closed":
                    raise
        if self.error is not None:
            raise self.error


class Transaction:
    """Changes that are made together at `commit`, or not at all. What it reads shows its own writes.

    `txid` names it, `ended` says whether it was committed or cancelled. All methods raise
    `TransactionExpired` when it is over.
    """

    def __init__(self, client: Client, txid: str, message: str) -> None:
        self._client = client
        self._message = message
        self._ops: list[OpField] = []
        self._open = client._driver.engine.transactions
        self._open[txid] = None
        self.txid = txid
        self.ended = False

    def _end(self) -> None:
        self.ended = True
        self._open.pop(self.txid, None)

    def _reopen(self, error: TegaError) -> None:
        if requests.leaves_open(error):
            self.ended = False
            self._open[self.txid] = None

    def _add(self, op: OpField, timeout: float | None) -> None:
        self._client._ask(requests.write((op,), "", self.txid), timeout)
        self._ops.append(op)

    def put(
        self,
        path: PathLike,
        value: Any = NO_DEFAULT,
        *,
        version: Expected = None,
        ephemeral: bool = False,
        timeout: float | None = None,
    ) -> None:
        """As `Client.put`; an expected version is checked at commit. Raises `MixedOwners`."""
        self._add(requests.put(path, value, version, ephemeral), timeout)

    def patch(
        self,
        path: PathLike,
        value: Any = NO_DEFAULT,
        *,
        version: Expected = None,
        timeout: float | None = None,
    ) -> None:
        """As `Client.patch`."""
        self._add(requests.patch(path, value, version), timeout)

    def delete(self, path: PathLike, *, version: Expected = None, timeout: float | None = None) -> None:
        """As `Client.delete`."""
        self._add(requests.delete(path, version), timeout)

    def rollback(self, root: str, version: Version, *, timeout: float | None = None) -> None:
        """As `Client.rollback`."""
        self._add(requests.rollback(root, version), timeout)

    def get(
        self,
        path: PathLike,
        default: Any = NO_DEFAULT,
        *,
        version: Version = None,
        timeout: float | None = None,
    ) -> Any:
        """As `Client.get`, with the transaction's own writes."""
        try:
            return requests.as_value(self._client._ask(requests.get(path, version, txid=self.txid), timeout))
        except NotFound as error:
            return requests.or_default(error, default)

    def find(self, regex: str, *, timeout: float | None = None) -> FoundNodes:
        """As `Client.find`, with the transaction's own writes."""
        return requests.as_found(self._client._ask(requests.find(regex, self.txid), timeout))

    def candidate(self, *, timeout: float | None = None) -> CandidateView:
        """Return what a commit would make: the roots that it touches, and the changes."""
        return requests.as_candidate(self._client._ask((messages.Candidate, (self.txid,)), timeout))

    def check(self, *, timeout: float | None = None) -> list[TegaError]:
        """Return what stands in the way of a commit now, `Collision` e.g.; empty if nothing does."""
        reply = self._client._ask((messages.Check, (self.txid, ())), timeout)
        return requests.as_problems(reply)

    def commit(self, message: str | None = None, *, timeout: float | None = None) -> Committed:
        """Make the changes. Raises `Collision` and all that a write may raise; nothing is changed then.

        The transaction is over, unless the owner of the roots could not be asked (`Offline`, `OwnerAway`) or
        its log takes no writes (`StorageError`): then it may be committed later.
        """
        driver = self._client._driver
        self._end()
        ask = requests.commit(self.txid, self._message if message is None else message)
        wait = self._client._timeout if timeout is None else timeout
        try:
            return requests.as_committed(driver.run(driver.engine.write, ask, tuple(self._ops), wait))
        except TegaError as error:
            self._reopen(error)
            raise

    def cancel(self, *, timeout: float | None = None) -> None:
        """Make none of the changes."""
        self._end()
        self._client._ask((messages.CancelTransaction, (self.txid,)), timeout)
