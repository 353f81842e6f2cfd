"""Schemas: schema."""

from __future__ import annotations

import argparse

from tega_zmq.errors import NotFound
from tega_zmq.paths import SCHEMAS
from tega_zmq.shell.commands.data import MESSAGE, message_of, written
from tega_zmq.shell.output import Result, safe
from tega_zmq.shell.session import Session
from tega_zmq.shell.spec import Argument, Command, UsageError

CATEGORY = "Tree"


def schema(session: Session, args: argparse.Namespace) -> Result:
    """List schemas, show, set or delete one."""
    if args.regex is None:
        try:
            found = session.client.get((SCHEMAS,))
        except NotFound:
            found = {}
        return Result(found, "\n".join(map(safe, sorted(found))) or "no schemas")
    path = (SCHEMAS, args.regex)
    given = [name for name in ("value", "file", "delete") if getattr(args, name)]
    if len(given) > 1:
        raise UsageError("schema: a VALUE, --file and --delete exclude each other")
    message = message_of(session, args)
    if args.delete:
        return written(session, session.writer.delete(path, **message))
    if args.file is not None:
        from tega_zmq.runtime import yamlio

        return written(session, session.writer.put(path, yamlio.load_file(args.file), **message))
    if args.value is not None:
        return written(session, session.writer.put(path, args.value.value, **message))
    return Result(session.client.get(path))


COMMANDS = (
    Command(
        "schema",
        CATEGORY,
        "List the schemas, show, set or delete one",
        schema,
        (
            Argument(
                "REGEX",
                "regex",
                r"the paths it is for, oids parted by \. ; without it, all are listed",
                False,
            ),
            Argument("VALUE", "value", "a JSON Schema, as YAML; without it, that of REGEX is shown", False),
            Argument(
                "--file", "file", "a file with the JSON Schema; YAML, or JSON if its name ends in .json"
            ),
            Argument("--delete", "flag", "the paths need no longer obey one"),
            MESSAGE,
        ),
        "A schema is data of the root _schema, so it has versions: `log _schema`, `rollback _schema 3`.\n"
        "One that present data breaks is refused, and so is a commit that breaks one.",
        (
            r"schema config-.*\.net\.eth\d+ {properties: {mtu: {type: integer, maximum: 9216}}}",
            r"schema config-.* --file site.schema.json",
            r"schema config-.* --delete",
        ),
    ),
)
