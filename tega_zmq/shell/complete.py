"""What Tab offers: commands, options, file names, and the paths that the node has right now.

`candidates` is a function of the typed text and a `Source`; how a terminal shows them is not its business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from tega_zmq import paths
from tega_zmq.errors import InvalidPath, TegaError
from tega_zmq.paths import Path, format_oid, format_path
from tega_zmq.shell.lexer import split_open
from tega_zmq.shell.spec import Argument, Command

if TYPE_CHECKING:
    from tega_zmq.client.blocking import Client

__all__ = ["Candidate", "Live", "Source", "candidates"]

T = TypeVar("T")

FRESH = 2.0
"""Seconds for which an answer of the node is good enough for Tab."""

PATIENCE = 0.5
"""Seconds that Tab waits for the node."""

NEWEST = 20
"""Most versions of a root that are offered."""

MOST = 1000
"""Most candidates of one Tab."""


class Candidate(NamedTuple):
    """One way to go on with the last word."""

    text: str
    """Takes the place of the whole last word."""
    display: str
    final: bool
    """The word is complete: a space may follow."""


class Source(Protocol):
    """What the node has."""

    def children(self, path: Path) -> Sequence[tuple[str, bool]]:
        """Return the oids below `path` and whether each is a container; for an empty path the roots."""

    def handlers(self) -> Sequence[str]:
        """Return the paths, in text, that can be called."""

    def channels(self) -> Sequence[str]:
        """Return the channels that somebody listens to."""

    def versions(self, root: str) -> Sequence[str]:
        """Return the tags of `root`, then its newest versions, newest first."""


class Live:
    """A `Source` that asks the node, for `PATIENCE` at most, and keeps answers for `FRESH` seconds.

    Tab must never hold up who types: what cannot be had in time is not offered.
    """

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[object, tuple[float, Any]] = {}

    def children(self, path: Path) -> Sequence[tuple[str, bool]]:
        """See `Source`."""
        if path:
            return self._ask(path, lambda: self._client.oids(path, timeout=PATIENCE))
        return self._ask(path, lambda: [(each["root"], True) for each in self._inspect("roots")])

    def handlers(self) -> Sequence[str]:
        """See `Source`."""
        return self._ask("handlers", lambda: list(self._inspect("handlers")))

    def channels(self) -> Sequence[str]:
        """See `Source`."""
        return self._ask("channels", lambda: list(self._inspect("channels")))

    def versions(self, root: str) -> Sequence[str]:
        """See `Source`."""
        return self._ask(("versions", root), lambda: self._versions(root))

    def _versions(self, root: str) -> list[str]:
        tags = [each["tag"] for each in self._inspect("tags") if each["root"] == root]
        for each in self._inspect("old"):
            if each["root"] == root:
                first, last = each["versions"]
                numbers = range(last, max(first - 1, last - NEWEST), -1)
                return [*sorted(tags), *map(str, numbers)]
        return sorted(tags)

    def _inspect(self, what: str) -> Any:
        return self._client.inspect(what, timeout=PATIENCE)

    def _ask(self, key: object, ask: Callable[[], Sequence[T]]) -> Sequence[T]:
        now = self._clock()
        kept = self._kept.get(key)
        if kept is not None and now - kept[0] < FRESH:
            known: Sequence[T] = kept[1]
            return known
        try:
            answer = ask()
        except TegaError:
            answer = []
        if len(self._kept) > 200:
            self._kept.clear()
        self._kept[key] = (now, answer)
        return answer


def candidates(
    line: str,
    commands: Mapping[str, Command],
    source: Source,
    others: Iterable[str] = (),
    transactions: Iterable[str] = (),
) -> tuple[int, list[Candidate]]:
    """Return where the last word of `line` (the text before the cursor) begins, and how it may go on.

    `others` are words that a line may begin with besides the commands; `transactions` the open ones.
    """
    words = split_open(line)
    word, start = words[-1]
    if len(words) == 1:
        names = [name for name in sorted({*commands, *others}) if name.startswith(word)]
        found = [Candidate(name, name, True) for name in names]
        if word and ("." in word or not names):
            calls = [handler for handler in source.handlers() if handler.startswith(word)]
            found += [Candidate(f"{handler}(", f"{handler}(", False) for handler in sorted(calls)]
        return start, found[:MOST]
    command = commands.get(words[0].text)
    if command is None:
        return start, []
    return start, _arguments(command, [each.text for each in words[1:-1]], word, source, transactions)[:MOST]


def _arguments(
    command: Command, before: Sequence[str], word: str, source: Source, transactions: Iterable[str]
) -> list[Candidate]:
    options = {
        name: argument for argument in command.arguments if argument.option for name in _names(argument)
    }
    places = [argument for argument in command.arguments if not argument.option]
    used: set[str] = set()
    given: dict[str, str] = {}
    waiting: Argument | None = None
    at = 0
    for each in before:
        if waiting is not None:
            waiting = None
        elif each in options:
            used.add(options[each].name)
            waiting = None if options[each].kind == "flag" else options[each]
        elif at < len(places) and places[at].kind != "value":
            given[places[at].kind] = each
            at += 1
    if waiting is not None:
        return _values(waiting, word, source, given, transactions)
    if word.startswith("-"):
        names = [argument.name for argument in options.values() if argument.name not in used]
        return [
            Candidate(name, name, True)
            for name in sorted({*names, "--json", "--help"})
            if name.startswith(word)
        ]
    return _values(places[at], word, source, given, transactions) if at < len(places) else []


def _names(argument: Argument) -> list[str]:
    return [name for name in (argument.name, argument.short) if name]


def _values(
    argument: Argument, word: str, source: Source, given: Mapping[str, str], transactions: Iterable[str]
) -> list[Candidate]:
    match argument.kind:
        case "path@version" | "paths@version" if _mark(word, "@") >= 0:
            return _at_versions(word, source)
        case "path" | "path@version" | "paths@version":
            return _paths(word, source)
        case "version":
            return _in_order(_versions_of(_given_root(given), source), word)
        case "tag":
            known = _versions_of(_given_root(given), source)
            return _in_order([each for each in known if not each.isdigit()], word)
        case "transaction":
            return _starting(list(transactions), word)
        case "root@version" if _mark(word, "@") >= 0:
            return _at_versions(word, source)
        case "root" | "root@version":
            return _roots(word, source)
        case "channel":
            return _starting(source.channels(), word)
        case "expected":
            return _starting(["absent"], word)
        case "choice":
            return _starting(argument.choices, word)
        case "file":
            return _files(word)
        case _:
            return []


def _starting(names: Sequence[str], word: str) -> list[Candidate]:
    return [Candidate(name, name, True) for name in sorted(names) if name.startswith(word)]


def _given_root(given: Mapping[str, str]) -> str:
    """Return the root that was typed, without a version."""
    text = given.get("root", given.get("root@version", ""))
    at = _mark(text, "@")
    return text if at < 0 else text[:at]


def _in_order(names: Sequence[str], word: str, lead: str = "") -> list[Candidate]:
    return [Candidate(lead + name, name, True) for name in names if name.startswith(word)]


def _at_versions(word: str, source: Source) -> list[Candidate]:
    at = _mark(word, "@") + 1
    return _in_order(_versions_of(word[: at - 1], source), word[at:], word[:at])


def _versions_of(path: str, source: Source) -> Sequence[str]:
    try:
        return source.versions(paths.parse(path)[0])
    except InvalidPath:
        return []


def _paths(word: str, source: Source) -> list[Candidate]:
    cut = _mark(word, ".")
    try:
        above = paths.parse(word[:cut]) if cut >= 0 else ()
    except InvalidPath:
        return []
    begun = _begun(word[cut + 1 :])
    matching = sorted((oid, container) for oid, container in source.children(above) if oid.startswith(begun))
    if [oid for oid, _ in matching] == [begun] and matching[0][1]:
        # It is all typed: go one level down.
        whole = format_path((*above, begun)) + "."
        return [Candidate(whole, whole, False)]
    lead = format_path(above) + "." if above else ""
    return [
        Candidate(lead + format_oid(oid), format_oid(oid) + ("." if container else ""), not container)
        for oid, container in matching
    ]


def _roots(word: str, source: Source) -> list[Candidate]:
    """Return the roots that `word` may become; unlike a path, each is complete."""
    if _mark(word, ".") >= 0:
        return []
    names = [format_oid(oid) for oid, _ in sorted(source.children(())) if oid.startswith(_begun(word))]
    return [Candidate(name, name, True) for name in names]


def _begun(part: str) -> str:
    """Return the oid that was typed so far, perhaps with its quotes still open."""
    if part[:1] != '"':
        return part
    return part[1:].replace('\\"', '"').replace("\\\\", "\\").removesuffix('"')


def _mark(word: str, mark: str) -> int:
    """Return where the last `mark` outside quotes stands, or -1."""
    quoted, found, at = False, -1, 0
    while at < len(word):
        if word[at] == '"':
            quoted = not quoted
        elif quoted and word[at] == "\\":
            at += 1
        elif word[at] == mark and not quoted:
            found = at
        at += 1
    return found


def _files(word: str) -> list[Candidate]:
    folder, name = os.path.split(word)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            found = sorted((entry.name, "/" if entry.is_dir() else "") for entry in entries)
    except OSError:
        return []
    return [
        Candidate(os.path.join(folder, entry) + slash, entry + slash, not slash)
        for entry, slash in found
        if entry.startswith(name) and (name.startswith(".") or not entry.startswith("."))
    ]
