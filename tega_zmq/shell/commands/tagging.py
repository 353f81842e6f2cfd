"""Names for versions and who made them: tag, untag, tags, blame, edges."""

from __future__ import annotations

import argparse
from typing import Any

from tega_zmq.paths import Path, format_path
from tega_zmq.shell.output import Paint, Result, safe, table, when
from tega_zmq.shell.session import Session, at_version, path_of
from tega_zmq.shell.spec import Argument, Command

CATEGORY = "History"

_WIDEST = 60
"""Most characters of a message in a table; --json shows all."""


def tag(session: Session, args: argparse.Namespace) -> Result:
    """Give a version a name."""
    at = at_version(args.root)
    version = session.client.tag(format_path(at.path), args.name, at.version)
    data = {"root": format_path(at.path), "tag": args.name, "version": version}
    return Result(data, safe(f"{format_path(at.path)}@{version} is {args.name}"))


def untag(session: Session, args: argparse.Namespace) -> Result:
    """Take a name away."""
    path = path_of(args.root)
    version = session.client.untag(format_path(path), args.name)
    data = {"root": format_path(path), "tag": args.name, "version": version}
    return Result(data, safe(f"{format_path(path)}@{version} is {args.name} no more"))


def tags(session: Session, args: argparse.Namespace) -> Result:
    """List the names."""
    path = None if args.root is None else path_of(args.root)
    found = session.client.tags(None if path is None else format_path(path))
    data: list[dict[str, Any]] = [
        {"root": each, "tag": name, "version": version}
        for each, names in sorted(found.items())
        for name, version in sorted(names.items(), key=lambda entry: (entry[1], entry[0]))
    ]
    rows = [(format_path((each["root"],)), each["tag"], each["version"]) for each in data]
    if not rows:
        return Result(data, safe(_no_tags(session, path)))
    return Result(data, lambda paint: table(rows, ("root", "tag", "version"), paint))


def _no_tags(session: Session, path: Path | None) -> str:
    """Return how it is told that there are none, and where those of another's root are. Raises `NotFound`."""
    if path is None:
        return "no tags"
    for each in session.client.inspect("old"):
        if each["root"] == path[0]:
            if each["owner"] == session.client.server:
                return "no tags"
            root, owner = format_path(path), each["owner"]
            return f"no tags are known here: {root} belongs to {owner}, where its tags are"
    session.client.log(path, 1)  # not here, so its owner says whether there is such a root
    return "no tags"


def blame(session: Session, args: argparse.Namespace) -> Result:
    """Tell who changed each leaf last."""
    at = at_version(args.path)
    found = session.client.blame(at.path, at.version)
    data = [each._asdict() for each in found]
    rows = [
        (
            each.path,
            each.version,
            None if each.time is None else when(each.time),
            each.tega_id or None,
            each.message if len(each.message) <= _WIDEST else each.message[: _WIDEST - 1] + "…",
        )
        for each in found
    ]
    heads = ("path", "version", "time", "who", "message")
    return Result(data, lambda paint: table(rows, heads, paint) if rows else "no leaves")


def edges(session: Session, args: argparse.Namespace) -> Result:
    """Show the graph of nodes and versions."""
    at = at_version(args.path)
    found: list[Any] = session.client.edges(at.path, version=at.version)
    data = [each._asdict() for each in found]

    def text(paint: Paint) -> str:
        lines = [
            f"{safe(each.parent, lines=False)} {paint('->', 'dim')} {safe(each.child, lines=False)}"
            for each in found
        ]
        return "\n".join(lines) or "no edges"

    return Result(data, text)


_NAME = Argument("NAME", "tag", "letters, digits, . _ and -, a letter first, 64 at most")

COMMANDS = (
    Command(
        "blame",
        CATEGORY,
        "Show who changed each leaf last, when and why",
        blame,
        (Argument("PATH", "path@version", "what to look at"),),
        "A - stands for what is not known any more.",
        ("blame config-pi1.net", "blame config-pi1@golden"),
    ),
    Command(
        "tag",
        CATEGORY,
        "Give a version of a root a name, that may stand wherever a version may",
        tag,
        (Argument("ROOT", "root@version", "the root, or ROOT@VERSION for an older version"), _NAME),
        "A version that has a name is kept as long as it has one. A name that is in use moves.",
        ("tag config-pi1 golden", "tag config-pi1@3 before-upgrade", "tag config-pi1@-1 v1.0"),
    ),
    Command(
        "untag",
        CATEGORY,
        "Take a tag away",
        untag,
        (Argument("ROOT", "root", "the root"), _NAME),
        examples=("untag config-pi1 golden",),
    ),
    Command(
        "tags",
        CATEGORY,
        "List the tags of all roots, or of one",
        tags,
        (Argument("ROOT", "root", "the root", required=False),),
        "At an agent also those of the node above. The tags of a root that an agent owns are listed there.",
        ("tags", "tags config-pi1"),
    ),
    Command(
        "edges",
        CATEGORY,
        "Show the graph of nodes and kept versions, an edge a line",
        edges,
        (Argument("PATH", "path@version", "where to begin; with a version, the graph of that one alone"),),
        "A node is shown as PATH@VERSION, with the version of its last change: what several versions share\n"
        "is there once.",
        ("edges config-pi1", "edges config-pi1.net@golden"),
    ),
)
