"""Typed lines and arguments as cmd2 wants them, cut by the rules of `tega_zmq.shell.lexer`.

Needs cmd2: only the interactive shell imports it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import cmd2
from cmd2.parsing import Statement, StatementParser
from rich.text import Text

from tega_zmq.shell.commands import COMMANDS
from tega_zmq.shell.lexer import LineError, split
from tega_zmq.shell.spec import Command, describe, fill

__all__ = ["LineParser", "parser_of"]

_REDIRECTIONS = ("|", ">", ">>")


class _Typed(Statement):
    """A statement whose words are those of `tega_zmq.shell.lexer`, quotes and all."""

    @property
    def arg_list(self) -> list[str]:
        return [word.text for word in split(self.args)]


class LineParser(StatementParser):
    """Takes a line as command and rest; nothing in the rest is special, unless programs are allowed.

    With `programs` a `|`, `>` or `>>` that is a word of its own leads to a program or a file, and `!` begins
    a line that the system's shell runs.
    """

    def __init__(self, aliases: dict[str, str], *, programs: bool) -> None:
        super().__init__(terminators=[], shortcuts={"!": "shell"} if programs else {}, aliases=aliases)
        self._programs = programs

    def expand(self, line: str) -> str:
        """Return `line` with an alias at its beginning replaced by what it stands for."""
        return self._expand(line)

    def parse(self, line: str) -> Statement:
        """Return the statement of `line`. Raises `Cmd2ShlexError` for quotes and brackets left open."""
        expanded = self._expand(line).strip()
        if expanded.startswith("#"):
            return Statement("", raw=line)
        command, _, rest = expanded.partition(" ")
        rest = rest.strip()
        if command == "shell":
            return Statement(rest, raw=line, command=command)
        redirection: dict[str, Any] = {}
        if self._programs:
            rest, redirection = _redirected(rest)
        if command not in COMMANDS:
            return Statement(rest, raw=line, command=command, **redirection)
        try:
            split(" " * expanded.index(rest, len(command)) + rest)
        except LineError as error:
            raise cmd2.exceptions.Cmd2ShlexError(str(error)) from None
        return _Typed(rest, raw=line, command=command, **redirection)


def _redirected(rest: str) -> tuple[str, dict[str, Any]]:
    """Cut a pipe or redirection off the arguments; return the arguments, and what `Statement` has of it."""
    try:
        words = split(rest)
    except LineError:
        return rest, {}
    for word in words:
        if word.text in _REDIRECTIONS:
            target = rest[word.start + len(word.text) :].strip()
            return rest[: word.start].rstrip(), {"redirector": word.text, "redirect_to": target}
    return rest, {}


class _CommandParser(cmd2.Cmd2ArgumentParser):
    """cmd2's argument parser, with options allowed anywhere."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self.parse_intermixed_args(args, namespace)


def parser_of(command: Command) -> Callable[[], cmd2.Cmd2ArgumentParser]:
    """Return what builds cmd2's parser of `command`."""

    def build() -> cmd2.Cmd2ArgumentParser:
        parser = _CommandParser(
            prog=command.name,
            description=Text(describe(command).replace("%%", "%")),
            allow_abbrev=False,
        )
        fill(parser, command)
        parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        return parser

    return build
