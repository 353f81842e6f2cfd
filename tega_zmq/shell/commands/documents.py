"""Documents: import and export, YAML or JSON.

A document is `{root: tree, ...}`. What is exported never holds ephemeral nodes or handlers.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tega_zmq import paths
from tega_zmq.client.results import Difference
from tega_zmq.errors import InvalidPath, InvalidValue, NotFound, TegaError, TooLarge
from tega_zmq.paths import Path, format_path
from tega_zmq.shell.commands.showing import FORMS, shown
from tega_zmq.shell.differences import between, counts, plural
from tega_zmq.shell.output import Result, is_narrow, is_standard_output, safe
from tega_zmq.shell.session import Session, at_version
from tega_zmq.shell.spec import Argument, Command, UsageError

CATEGORY = "Documents"

PART = 256 * 1024
"""About how many bytes `import` sends at once."""

FILE = "a file; YAML, or JSON if its name ends in .json; - is standard"


def import_(session: Session, args: argparse.Namespace) -> Result:
    """Put all roots of a document in one transaction."""
    from tega_zmq.runtime import yamlio

    if session.transaction is not None:
        raise UsageError("an import is a transaction of its own: `commit` or `cancel` the open one first")
    if args.file == "-" and session.around.mode != "one-shot":
        raise UsageError("standard input is where the commands come from: name a file")
    if args.file == "-":
        document = yamlio.load(sys.stdin.buffer.read(yamlio.MAX_DOCUMENT + 1), "standard input")
    else:
        document = yamlio.load_file(args.file)
    trees = _roots_of(document, args.file)
    message = args.message if args.message is not None else f"import {args.file}"[:1000]
    transaction = session.client.begin()
    sent = 0
    try:
        for done, (root, value) in enumerate(trees.items()):
            for kind, path, part in in_parts((root,), value):
                session.around.progress(
                    f"import: root {done + 1} of {len(trees)}, {sent / 1e6:.1f} MB so far"
                )
                sent += _size(part)
                (transaction.put if kind == "put" else transaction.patch)(path, part)
        session.around.progress("import: comparing")
        found = _changes(transaction)
        if args.dry_run:
            transaction.cancel()
            return shown(_compared(session, trees) if found is None else found, args, "nothing would change")
        changes = None if found is None else sum(counts(found))
        session.around.progress("import: committing")
        committed = transaction.commit(message=message)
    except BaseException:
        _cancel(transaction)
        raise
    data = {"revision": committed.revision, "versions": committed.versions, "changes": changes}
    at = " ".join(f"{format_path((root,))}@{version}" for root, version in committed.versions.items())
    if not committed.revision:
        what = "nothing changed"
    else:
        what = "too much to count the changes" if changes is None else plural(changes, "change")
    return Result(data, safe(f"{what}: {at}" if at else what))


def _changes(transaction: Any) -> list[Difference] | None:
    """Return what `transaction` changes; None if that is more than the node can say in one answer."""
    try:
        return list(transaction.candidate().changes)
    except TooLarge:
        return None


def _compared(session: Session, trees: dict[str, dict[str, Any]]) -> list[Difference]:
    """Return the same as a candidate would have, from the present roots, which are read in parts."""
    found: list[Difference] = []
    for count, (root, new) in enumerate(trees.items()):
        session.around.progress(f"import: comparing root {count + 1} of {len(trees)}: {root}")
        try:
            old = _read(session, (root,), None, lasting=False)
        except NotFound:
            old = None
        found += between(old, new, (root,))
    return found


def _roots_of(document: Any, name: str) -> dict[str, dict[str, Any]]:
    if not isinstance(document, dict) or not document:
        raise InvalidValue(f"{name}: expected a map of roots, as in {{config-pi1: {{...}}}}")
    for root, value in document.items():
        try:
            paths.check((root,))
        except InvalidPath as error:
            raise InvalidPath(f"{name}: {error.message}", path=error.path) from None
        if not isinstance(value, dict):
            raise InvalidValue(
                f"{name}: the root {root} must be a map, not {type(value).__name__}", path=root
            )
    return document


def in_parts(path: Path, value: Any, limit: int = PART) -> Iterator[tuple[str, Path, Any]]:
    """Yield `(kind, path, value)` of puts and patches that together put `value` at `path`.

    Each is about `limit` bytes or less, unless one leaf is larger: a node takes no value without bounds.
    """
    if _size(value) <= limit or not isinstance(value, dict):
        yield "put", path, value
        return
    # In a patch null would delete, so what holds one goes into the first put as far as there is room: put one
    # by one they would soon be more operations than a transaction takes.
    sizes = {oid: _size(child) + len(oid) for oid, child in value.items()}
    first: dict[str, Any] = {}
    room = limit
    nulls = {oid for oid, child in value.items() if sizes[oid] <= limit and _has_null(child)}
    for oid in value:
        if oid in nulls and sizes[oid] <= room:
            first[oid] = value[oid]
            room -= sizes[oid]
    yield "put", path, first
    group: dict[str, Any] = {}
    room = limit
    for oid, child in value.items():
        if oid in first:
            continue
        size = sizes[oid]
        if size > limit or oid in nulls:
            yield from in_parts((*path, oid), child, limit)
            continue
        if size > room:
            yield "patch", path, group
            group, room = {}, limit
        group[oid] = child
        room -= size
    if group:
        yield "patch", path, group


def _size(value: Any) -> int:
    """Roughly the bytes of `value` on the wire."""
    if isinstance(value, dict):
        return 5 + sum(_size(key) + _size(child) for key, child in value.items())
    if isinstance(value, list):
        return 5 + sum(map(_size, value))
    return 5 + len(value) * (1 if value.isascii() else 4) if isinstance(value, str) else 9


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return value is None


def _cancel(transaction: Any) -> None:
    # It may be over, or go with the session; the first error is the one to tell.
    with contextlib.suppress(TegaError):
        transaction.cancel()


def export(session: Session, args: argparse.Namespace) -> Result:
    """Write a subtree, or all roots, to a file."""
    from tega_zmq.runtime import yamlio

    document: dict[str, Any] = {}
    if args.path == ".":
        roots = [each["root"] for each in session.client.inspect("roots")]
        for count, root in enumerate(roots):
            session.around.progress(f"export: root {count + 1} of {len(roots)}: {root}")
            try:
                tree = _read(session, (root,), None)
            except NotFound:
                continue  # it went meanwhile
            if tree is not _NOTHING:
                document[root] = tree
    else:
        at = at_version(args.path)
        tree = _read(session, at.path, at.version)
        if tree is _NOTHING:
            raise NotFound(f"{at}: there are only ephemeral nodes, which are not exported", path=str(at))
        for oid in reversed(at.path):
            tree = {oid: tree}
        document = tree
    if args.file == "-" or is_standard_output(args.file):
        # Replacing such a file would take it away from all that goes to standard output after this.
        as_json = args.json or session.around.as_json or args.file.endswith(".json")
        text = (yamlio.dump_json if as_json else yamlio.dump)(document, escape=is_narrow())
        return Result(document, text.rstrip("\n"))
    try:
        yamlio.save_file(args.file, document)
    except OSError as error:
        raise InvalidValue(f"{args.file}: cannot be written: {error.strerror or error}") from None
    return Result({"exported": sorted(document), "file": args.file}, safe(f"written to {args.file}"))


_NOTHING: Any = object()


def _read(session: Session, path: Path, version: int | str | None, *, lasting: bool = True) -> Any:
    """Return the value at `path` without handlers, and if `lasting` without ephemeral nodes, or `_NOTHING`.

    Read with its attributes, which tell what is ephemeral and hold no handlers; what is too large for one
    answer is read in parts.
    """
    try:
        return _strip(session.client.attributes(path, version=version), lasting)
    except TooLarge:
        if version is None:  # all parts of one version
            version = _present(session, path[0])
    parts = {}
    session.around.progress(f"reading {format_path(path)} in parts")
    for oid, _ in session.client.oids(path, version=version):
        part = _read(session, (*path, oid), version, lasting=lasting)
        if part is not _NOTHING:
            parts[oid] = part
    return parts


def _present(session: Session, root: str) -> int:
    for each in session.client.inspect("roots"):
        if each["root"] == root:
            version: int = each["version"]
            return version
    raise NotFound(f"there is no root {root} any more", path=root)


def _strip(attributes: dict[str, Any], lasting: bool) -> Any:
    if lasting and attributes["_ephemeral"]:
        return _NOTHING
    value = attributes["_value"]
    # A leaf may not be a map, so that a map is always a container: oids with their own attributes.
    if not isinstance(value, dict):
        return value
    kept = {oid: _strip(child, lasting) for oid, child in value.items()}
    return {oid: child for oid, child in kept.items() if child is not _NOTHING}


COMMANDS = (
    Command(
        "import",
        CATEGORY,
        "Put the roots of a document, in one transaction",
        import_,
        (
            Argument("FILE", "file", f"{FILE} input"),
            Argument("--message", "text", "why, for the log", short="-m"),
            Argument("--dry-run", "flag", "only show what would change"),
            *FORMS,
        ),
        "The document is a map of roots. A root that it names is replaced as a whole; other roots stay.",
        (
            "import site.yaml",
            "import site.yaml --dry-run",
            "import backup.json --message 'after the disk was replaced'",
        ),
    ),
    Command(
        "export",
        CATEGORY,
        "Write a subtree, or all roots, to a file",
        export,
        (
            Argument("PATH", "paths@version", "what to write; . is all roots"),
            Argument("FILE", "file", f"{FILE} output"),
        ),
        "Ephemeral nodes and handlers are left out. `import` reads the file of a whole root back.",
        ("export config-pi1 pi1.yaml", "export config-pi1@-1 -", "export . all.json"),
    ),
)
