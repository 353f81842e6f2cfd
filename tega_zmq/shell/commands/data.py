"""Reading and writing the tree: put, pute, patch, get, geta, getr, del."""

from __future__ import annotations

import argparse
from typing import Any

from tega_zmq.paths import format_path
from tega_zmq.shell.output import Paint, Result, safe
from tega_zmq.shell.session import Session, at_version, path_of
from tega_zmq.shell.spec import Argument, Command

CATEGORY = "Tree"

PATH = Argument("PATH", "path", "where, as in config-pi1.net.eth0")
AT = Argument("PATH", "path@version", "what to read; PATH@VERSION or PATH@-N reads an older version")
VALUE = Argument("VALUE", "value", "YAML; without it, lines of YAML up to an empty one", required=False)
EXPECTED = Argument("--version", "expected", "the version that the node must have; another is a Collision")
MESSAGE = Argument("--message", "text", "why, for the log", short="-m")


def written(session: Session, committed: Any) -> Result:
    """Return how a write is told. In a transaction nothing is committed yet: nothing to tell."""
    if session.transaction is not None or committed is None:
        return Result(None, "")
    data = {"revision": committed.revision, "versions": committed.versions}

    def text(paint: Paint) -> str:
        at = " ".join(
            safe(f"{format_path((root,))}@{version}") for root, version in committed.versions.items()
        )
        if committed.revision == 0:
            return paint(f"nothing changed: {at}" if at else "nothing changed", "dim")
        return paint(at, "dim")

    return Result(data, text)


def message_of(session: Session, args: argparse.Namespace) -> dict[str, str]:
    """A message belongs to a commit; in a transaction that is `commit`'s."""
    if args.message is None:
        return {}
    if session.transaction is not None:
        session.around.note(
            "--message is not used here: `commit --message` says why for the whole transaction"
        )
        return {}
    return {"message": args.message}


def put(session: Session, args: argparse.Namespace) -> Result:
    """Replace a subtree."""
    path = path_of(args.path)
    value = session.value(args)
    return written(
        session, session.writer.put(path, value, version=args.version, **message_of(session, args))
    )


def pute(session: Session, args: argparse.Namespace) -> Result:
    """Put an ephemeral node."""
    path = path_of(args.path)
    value = session.value(args)
    result = written(session, session.writer.put(path, value, ephemeral=True))
    if session.around.mode == "one-shot":
        session.around.note(
            f"{format_path(path)} is gone again: an ephemeral node lives as long as the session that put it"
        )
    return result


def patch(session: Session, args: argparse.Namespace) -> Result:
    """Merge into a subtree."""
    path = path_of(args.path)
    value = session.value(args)
    return written(
        session, session.writer.patch(path, value, version=args.version, **message_of(session, args))
    )


def delete(session: Session, args: argparse.Namespace) -> Result:
    """Delete a subtree."""
    return written(
        session,
        session.writer.delete(path_of(args.path), version=args.version, **message_of(session, args)),
    )


def get(session: Session, args: argparse.Namespace) -> Result:
    """Read a value; in a transaction the candidate's."""
    at = at_version(args.path)
    if session.transaction is not None and at.version is None:
        return Result(session.transaction.get(at.path))
    return Result(session.client.get(at.path, version=at.version))


def geta(session: Session, args: argparse.Namespace) -> Result:
    """Read a value with its attributes."""
    at = at_version(args.path)
    return Result(session.client.attributes(at.path, version=at.version))


def getr(session: Session, args: argparse.Namespace) -> Result:
    """Find by regex; in a transaction in the candidate."""
    found = {
        each.path: {"groups": [list(groups) for groups in each.groups], "instance": each.value}
        for each in session.writer.find(args.regex)
    }
    return Result(found, None if found else "nothing matches")


COMMANDS = (
    Command(
        "put",
        CATEGORY,
        "Replace what stands at a path, with all below it",
        put,
        (PATH, VALUE, EXPECTED, MESSAGE),
        "The containers on the way come into being. Prints the version that it made.",
        (
            "put config-pi1.net.eth0.mtu 9000",
            "put config-pi1.net.eth0 {mtu: 1500, up: true} --message 'back to normal'",
            'put config-pi1.net."eth0.100".vlan 100 --version absent',
        ),
    ),
    Command(
        "pute",
        CATEGORY,
        "Put an ephemeral node: it is gone when this shell ends",
        pute,
        (PATH, VALUE),
        examples=("pute presence.noc-1 {since: 1}",),
    ),
    Command(
        "patch",
        CATEGORY,
        "Merge into what stands at a path (RFC 7396)",
        patch,
        (PATH, VALUE, EXPECTED, MESSAGE),
        "Maps are merged, null deletes a key, all else replaces.",
        ("patch config-pi1.net.eth0 {mtu: 9000, comment: null}",),
    ),
    Command(
        "get",
        CATEGORY,
        "Show the value at a path",
        get,
        (AT,),
        "While a transaction is open, the candidate's.",
        ("get config-pi1", "get config-pi1.net@3", "get config-pi1@-1"),
    ),
    Command(
        "geta",
        CATEGORY,
        "Show the value at a path with the attributes of every node",
        geta,
        (AT,),
        "The attributes are _oid, _parent, _version, _ephemeral and _value.",
        ("geta config-pi1.net",),
    ),
    Command(
        "getr",
        CATEGORY,
        "Find nodes by a regular expression",
        getr,
        (Argument("REGEX", "regex", r"oids parted by \. ; each part is matched from the start of an oid"),),
        "Shows for each match its groups, a list per oid that has any, and the value.",
        (r"getr config-(.*)\.net", r"getr config-pi1\.net\.(eth|wlan)\d+\.mtu"),
    ),
    Command(
        "del",
        CATEGORY,
        "Delete what stands at a path",
        delete,
        (PATH, EXPECTED, MESSAGE),
        examples=("del config-pi1.net.eth1", "del config-pi1 --version 12"),
    ),
)
