"""What a command is: its arguments, its help, its function. Each command is told once, in `commands/`.

From this the argument parsers of one-shots and of the interactive shell are made, and what Tab completes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar

from tega_zmq.errors import InvalidPath, InvalidValue
from tega_zmq.shell.lexer import unquote
from tega_zmq.shell.output import Result, write_out
from tega_zmq.shell.versions import moment, reference, tag_name

__all__ = [
    "Argument",
    "Command",
    "Finished",
    "Given",
    "Kind",
    "Parser",
    "UsageError",
    "build_parser",
    "convert",
    "describe",
    "fill",
    "usage",
]

Kind: TypeAlias = Literal[
    "path",  # a path of the tree
    "path@version",  # a path, or a path at a version
    "paths@version",  # that, or a dot for all roots
    "root",  # a path of one oid
    "root@version",  # a root, or a root at a version
    "value",  # YAML; takes all words that are left
    "text",
    "regex",
    "channel",
    "file",
    "number",  # a whole number from 1
    "version",  # a version, -N, a tag, or a time
    "time",  # a point in time, Unix seconds
    "tag",  # the name of a tag
    "transaction",  # the name of an open transaction
    "expected",  # a version, or `absent`
    "choice",
    "flag",
]


class Argument(NamedTuple):
    """One argument of a command. A name with dashes is an option."""

    name: str
    kind: Kind
    help: str
    required: bool = True
    """Of a positional one; options may always be left out."""
    short: str = ""
    choices: tuple[str, ...] = ()

    @property
    def dest(self) -> str:
        """The attribute that holds it after parsing."""
        return self.name.lstrip("-").replace("-", "_").lower()

    @property
    def option(self) -> bool:
        """Whether it is given by name."""
        return self.name.startswith("-")


class Command(NamedTuple):
    """One command."""

    name: str
    category: str
    summary: str
    """One line, without a full stop."""
    run: Callable[[Any, argparse.Namespace], Result]
    """Takes a `tega_zmq.shell.session.Session` and the arguments. Raises `TegaError`, `UsageError`."""
    arguments: tuple[Argument, ...] = ()
    details: str = ""
    examples: tuple[str, ...] = ()
    session_only: str = ""
    """Why it makes no sense as a one-shot; empty if it does."""


class UsageError(Exception):
    """A command was typed wrongly; nothing was done. The message says what, `usage` how it should be."""

    def __init__(self, message: str, usage: str = "") -> None:
        super().__init__(message)
        self.usage = usage


class Finished(Exception):
    """The parser has done all there was to do."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(message, self.format_usage().strip())

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the arguments in `words`. Raises `UsageError`, and `Finished` after `--help`.

        Options may stand anywhere, also between the words of a value, where plain `parse_args` gives up.
        """
        return self.parse_intermixed_args(list(words))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write the help; what goes wrong is raised, where argparse passes over it."""
        if message:
            (write_out if file in (None, sys.stdout) else file.write)(message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise `Finished`, after `--help`."""
        if status:
            raise UsageError(message or "wrong usage")
        raise Finished


P = TypeVar("P", bound=argparse.ArgumentParser)


def build_parser(command: Command, prog: str = "") -> Parser:
    """Return the parser of `command` as it is used to run it; it has `--json` and `--help` too."""
    parser = Parser(
        prog=f"{prog} {command.name}".strip(),
        description=describe(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    fill(parser, command)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    return parser


def describe(command: Command) -> str:
    """Return summary, details and examples as one text."""
    parts = [command.summary + "."]
    if command.details:
        parts.append(command.details)
    if command.examples:
        parts.append("examples:\n" + "\n".join(f"  {example}" for example in command.examples))
    return "\n\n".join(parts).replace("%", "%%")


def usage(command: Command) -> str:
    """Return how `command` is typed, in one line."""
    words = [command.name]
    for argument in command.arguments:
        shown = argument.name if argument.kind == "flag" else f"{argument.name} {_metavar(argument)}"
        if not argument.option:
            shown = argument.name
        words.append(shown if argument.required and not argument.option else f"[{shown}]")
    return " ".join(words)


def fill(parser: P, command: Command) -> P:
    """Add the arguments of `command` to `parser`."""
    for argument in command.arguments:
        names = [name for name in (argument.short, argument.name) if name]
        options: dict[str, Any] = {"help": argument.help.replace("%", "%%")}
        if argument.kind == "flag":
            parser.add_argument(*names, action="store_true", dest=argument.dest, **options)
            continue
        if argument.choices:
            options["choices"] = argument.choices
        if argument.option:
            parser.add_argument(*names, dest=argument.dest, metavar=_metavar(argument), **options)
            continue
        options["metavar"] = argument.name
        if argument.kind == "value":
            options |= {"nargs": "*", "default": None}
        elif not argument.required:
            options["nargs"] = "?"
        parser.add_argument(argument.dest, **options)
    return parser


_METAVARS: dict[str, str] = {
    "number": "N",
    "version": "VERSION",
    "time": "TIME",
    "expected": "N|absent",
    "text": "TEXT",
    "file": "FILE",
}


def _metavar(argument: Argument) -> str:
    if argument.choices:
        return "|".join(argument.choices)
    return {
        "number": "N",
        "version": "VERSION",
        "time": "TIME",
        "expected": "N|absent",
        "text": "TEXT",
        "file": "FILE",
    }.get(argument.kind, argument.dest.upper())


def convert(command: Command, args: argparse.Namespace, *, typed: bool) -> argparse.Namespace:
    """Return `args` with each argument as what it stands for.

    With `typed` the words were those of a typed line, with their quotes (`tega_zmq.shell.lexer`); otherwise a
    shell has taken them off. Paths stay text, in which there is a path. Raises `UsageError`.
    """
    for argument in command.arguments:
        if argument.kind == "flag":
            continue
        try:
            value = _convert(argument, getattr(args, argument.dest), typed=typed)
        except (InvalidPath, InvalidValue) as error:
            raise UsageError(error.message, f"usage: {usage(command)}") from None
        except ValueError as error:
            raise UsageError(f"{argument.name}: {error}", f"usage: {usage(command)}") from None
        setattr(args, argument.dest, value)
    args.json = getattr(args, "json", False)
    return args


def _convert(argument: Argument, given: Any, *, typed: bool) -> Any:
    if argument.kind == "value":
        return _value(" ".join(given), argument.name) if given else None
    if given is None:
        return None
    text: str = given
    match argument.kind:
        case "path" | "path@version" | "paths@version" | "root" | "root@version":
            _check_path(text, argument.kind)
            return text
        case "number":
            return _whole(unquote(text), lowest=1)
        case "version":
            return reference(unquote(text))
        case "time":
            return moment(unquote(text))
        case "tag":
            return tag_name(unquote(text) if typed else text)
        case "expected":
            return "absent" if text == "absent" else _whole(text, lowest=0, other=" or absent")
        case _:
            return unquote(text) if typed else text


class Given(NamedTuple):
    """A value that was given as argument: it may be None, which is null."""

    value: Any


def _value(text: str, name: str) -> Given:
    from tega_zmq.runtime import yamlio

    return Given(yamlio.load(text, name))


def _check_path(text: str, kind: Kind) -> None:
    """Raise `InvalidPath` or `UsageError` if `text` is not what stands for a path where `kind` is wanted."""
    from tega_zmq.shell.session import at_version, path_of

    if kind == "paths@version" and text == ".":
        return
    path = at_version(text).path if kind.endswith("@version") else path_of(text)
    if kind.startswith("root") and len(path) != 1:
        raise UsageError(f"{text}: a whole root is wanted here, not a node in it")


_LARGEST = 2**63 - 1


def _whole(text: str, *, lowest: int | None = None, other: str = "") -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text[:40]!a} is no whole number{other}") from None
    if lowest is not None and number < lowest:
        raise ValueError(f"{number} is below {lowest}")
    if number > _LARGEST:
        raise ValueError(f"{text[:40]} is above {_LARGEST}")
    return number
