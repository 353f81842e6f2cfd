"""What lasts from one command to the next: the client, the open transaction, the subscriptions.

A `Session` knows nothing of terminals. Whoever makes it, a one-shot, a script or the interactive shell, tells
it by `Surroundings` how to show an event, read a body and ask a question.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tega_zmq.errors import InvalidValue, TegaError, TransactionExpired
from tega_zmq.paths import Path, format_path, parse
from tega_zmq.shell.output import Paint
from tega_zmq.shell.spec import UsageError
from tega_zmq.shell.versions import reference

if TYPE_CHECKING:
    from tega_zmq.client.blocking import Client, Subscription, Transaction

__all__ = [
    "At",
    "Mode",
    "Session",
    "Surroundings",
    "at_version",
    "ended_text",
    "left_open",
    "one_line",
    "path_of",
    "state_text",
    "value_of",
]

Mode = Literal["one-shot", "script", "interactive"]


class Surroundings(NamedTuple):
    """How a session reaches its user. `show` and `note` may be called from any thread."""

    mode: Mode
    show: Callable[[str], None]
    """An event of a subscription: one or more lines for standard output."""
    note: Callable[[str], None]
    """A remark, for standard error."""
    read_body: Callable[[], str]
    """Returns the lines up to an empty one, or to the end of the input."""
    confirm: Callable[[str], bool]
    """Asks a question; False where nobody can answer."""
    paint: Paint
    as_json: bool
    """Print JSON, unless a command says otherwise."""
    progress: Callable[[str], Any] = str
    """How far long work is, in one line; "" when it is done. By default nothing comes of it."""


class Session:
    """One user's connection to a node, with what was begun on it."""

    def __init__(self, client: Client, surroundings: Surroundings, server: str = "") -> None:
        self.client = client
        self.around = surroundings
        self.server = server
        """The url, for messages."""
        self.transactions: dict[str, Transaction] = {}
        """Those that are open, by name."""
        self.current = ""
        """The name of the one that commands go into; "": none."""
        self.subscriptions: dict[tuple[str, bool], list[Subscription]] = {}
        """By what was typed, and whether it is a regex."""
        self.on_ended: Callable[[str, TegaError], None] = self._note_ended
        """Told what was subscribed to, and the error by which that ended. Called from any thread."""

    @property
    def transaction(self) -> Transaction | None:
        """The open transaction that commands go into."""
        return self.transactions.get(self.current)

    def opened(self, name: str, transaction: Transaction) -> None:
        """A transaction was begun: commands go into it from now on."""
        self.transactions[name] = transaction
        self.current = name

    def closed(self) -> None:
        """The transaction that commands went into is over; other open ones wait for `use`."""
        self.transactions.pop(self.current, None)
        self.current = ""

    def expired(self, txid: str) -> str:
        """The node ended the transaction `txid`: forget it and return its name, "" if it is not known."""
        for name, transaction in list(self.transactions.items()):
            if transaction.txid == txid:
                self.transactions.pop(name, None)
                return name
        return ""

    @property
    def writer(self) -> Any:
        """What takes writes: the open transaction, else the client."""
        return self.client if self.transaction is None else self.transaction

    def need_transaction(self) -> Transaction:
        """Return the open transaction. Raises `UsageError` if there is none."""
        if self.transaction is None:
            waiting = f"; `use NAME` goes on with {', '.join(self.transactions)}" if self.transactions else ""
            raise UsageError(f"no transaction is open; `begin` opens one{waiting}")
        return self.transaction

    def failed(self, error: TegaError) -> None:
        """Take note of the `error` that a command raised: a transaction that expired is not open any more."""
        if isinstance(error, TransactionExpired):
            self.closed()

    def value(self, args: argparse.Namespace) -> Any:
        """Return the value that a command was given: as argument, or as a body.

        Raises `InvalidValue` for the body.
        """
        if args.value is not None:
            return args.value.value
        body = self.around.read_body()
        if not body.strip():
            raise InvalidValue("no value: type YAML, `{}` for an empty container, `null` for null")
        return value_of(body)

    def _note_ended(self, what: str, error: TegaError) -> None:
        self.around.note(ended_text(what, error))

    def catch_up(self) -> None:
        """Show what has happened so far of what is subscribed to. Raises nothing."""
        if self.subscriptions and self.client.state == "connected":
            with contextlib.suppress(TegaError):
                self.client.catch_up()

    def end(self) -> None:
        """End what was begun: the transaction is cancelled, subscriptions end. Raises nothing."""
        for transaction in self.transactions.values():
            with contextlib.suppress(TegaError):  # it goes with the session
                transaction.cancel()
        self.transactions.clear()
        self.subscriptions.clear()


class At(NamedTuple):
    """A path as it was typed, perhaps with a version."""

    path: Path
    version: int | str | None
    """A number, negative to count back; a tag or a time, as text; None: the present."""

    def __str__(self) -> str:
        text = format_path(self.path)
        return text if self.version is None else f"{text}@{self.version}"


def path_of(text: str) -> Path:
    """Return the path in `text`. Raises `InvalidPath`, and `UsageError` if it has a version."""
    at = at_version(text)
    if at.version is not None:
        raise UsageError(f"{text}: a version can be named only where something is read")
    return at.path


def at_version(text: str) -> At:
    """Return the path and the version in `PATH` or `PATH@VERSION`, as `tega_zmq.shell.versions` has them.

    Raises `InvalidPath`, and `UsageError` for what is no version.
    """
    at = _version_mark(text)
    if at < 0:
        return At(parse(text), None)
    path = parse(text[:at])
    try:
        return At(path, reference(text[at + 1 :]))
    except ValueError as error:
        raise UsageError(f"{text}: {error}") from None


def _version_mark(text: str) -> int:
    """Return where an `@` stands outside quotes, or -1; in a path an oid with `@` is quoted."""
    quoted = False
    at = 0
    while at < len(text):
        if text[at] == '"':
            quoted = not quoted
        elif quoted and text[at] == "\\":
            at += 1
        elif text[at] == "@" and not quoted:
            return at
        at += 1
    return -1


def value_of(text: str) -> Any:
    """Return the value of YAML text. Raises `InvalidValue`."""
    from tega_zmq.runtime import yamlio

    return yamlio.load(text)


def left_open(session: Session) -> str:
    """Return what a user is told of transactions that are open when the session ends; "" if none is."""
    names = list(session.transactions)
    if not names:
        return ""
    if len(names) == 1:
        return f"the transaction {names[0]} is cancelled: nothing of it was committed"
    return f"the transactions {', '.join(names)} are cancelled: nothing of them was committed"


def state_text(session: Session, before: str, state: str) -> str:
    """Return what a user is told when the session goes from state `before` to `state`; "" for nothing."""
    server = session.server
    match state:
        case "connected" if before == "lost":
            return f"connected to {server} again; it is a new session, with the subscriptions of the old one"
        case "connected":
            return f"connected to {server} again"
        case "suspended":
            return f"the connection to {server} is lost; dialling again"
        case "lost":
            return f"{server} is away for too long: this session is over; a new one follows"
        case "taken over":
            return f"another program said hello as {session.client.tega_id}: this session is over"
    return ""


def ended_text(what: str, error: TegaError) -> str:
    """Return what a user is told when a subscription to `what` ended by `error`, in one line."""
    from tega_zmq.shell.output import safe

    return f"sub {safe(what, lines=False)} ended: {one_line(error)}"


def one_line(error: TegaError) -> str:
    """Return an error as the shell prints it: `Collision: what and where`, in one line."""
    from tega_zmq.shell.output import safe

    message = " ".join(error.message.split())
    return safe(f"{error.code}: {message}" if message else error.code, lines=False)
