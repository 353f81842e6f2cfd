"""Runs one typed line, or the words of one command: the part that one-shots, scripts and the shell share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tega_zmq.shell.commands import COMMANDS, calls
from tega_zmq.shell.lexer import LineError, split
from tega_zmq.shell.literals import looks_like_call
from tega_zmq.shell.output import Result, plain, render
from tega_zmq.shell.session import Session
from tega_zmq.shell.spec import Command, UsageError, build_parser, convert, usage

__all__ = ["ALIASES", "OTHERS", "Quit", "execute", "overview", "run_line", "unknown"]

ALIASES = {"h": "help", "q": "quit", "exit": "quit"}
"""Short names, beside the commands."""

_AT_A_TERMINAL = "is for the interactive shell: `tega` at a terminal"

OTHERS = {
    "help": ("help [COMMAND]", "List the commands, or tell one", "lists the commands, as `tega help`"),
    "quit": (
        "quit",
        "End the shell, or the script; `q` and `exit` do the same",
        "is for a script, or the interactive shell; a single command ends by itself",
    ),
    "history": ("history", "Show the lines that were typed, and repeat them; at a terminal", _AT_A_TERMINAL),
    "alias": ("alias create NAME COMMAND ...", "Give a line a short name; at a terminal", _AT_A_TERMINAL),
    "run_script": (
        "run_script FILE",
        "Run a script within this session; at a terminal",
        f"{_AT_A_TERMINAL}; `tega -f FILE` runs a script in a session of its own",
    ),
}
"""Words that a line may begin with besides the commands: usage, summary, and what is said where they cannot
be used."""


class Quit(Exception):
    """`quit` was typed."""


def run_line(session: Session, line: str, timeout: float | None = None) -> str:
    """Run one typed line; return what is to be printed.

    Empty lines and lines that begin with `#` do nothing. Raises `TegaError`, `UsageError`, `Quit`.
    """
    line = line.strip()
    if not line or line.startswith("#"):
        return ""
    if looks_like_call(line):
        return _shown(session, calls.call(session, calls.parse(line), timeout), False)
    try:
        words = [word.text for word in split(line)]
    except LineError as error:
        raise UsageError(str(error)) from None
    name = ALIASES.get(words[0], words[0])
    if name == "quit":
        raise Quit
    if name == "help":
        return help_text(words[1:], as_json=session.around.as_json)
    command = COMMANDS.get(name)
    if command is None:
        raise unknown(name)
    args = build_parser(command).parse(words[1:])
    return execute(session, command, convert(command, args, typed=True))


def execute(session: Session, command: Command, args: argparse.Namespace) -> str:
    """Run a command with its arguments; return what is to be printed. Raises `TegaError`, `UsageError`."""
    try:
        result = command.run(session, args)
    finally:
        session.around.progress("")
    return _shown(session, result, args.json)


def _shown(session: Session, result: Result, as_json: bool) -> str:
    text = render(result, as_json=as_json or session.around.as_json, paint=session.around.paint)
    if not result.aside:
        return text
    session.around.note(text)
    return ""


def unknown(name: str) -> UsageError:
    """Return the error for a command that does not exist, or not there, with the nearest that does."""
    import difflib

    other = OTHERS.get(ALIASES.get(name, name))
    if other is not None:
        return UsageError(f"{name} {other[2]}")
    near = difflib.get_close_matches(name, [*COMMANDS, *OTHERS], 1)
    hint = f"; did you mean {near[0]}?" if near else "; `help` lists the commands"
    return UsageError(f"there is no command {name[:60]!a}{hint}")


def help_text(words: Sequence[str], *, as_json: bool = False) -> str:
    """Return the help of the command in `words`, or of all; JSON if `as_json`, or if `--json` is among them.

    Raises `UsageError`: no such command.
    """
    named = [word for word in words if word != "--json"]
    as_json = as_json or len(named) < len(words)
    name = ALIASES.get(named[0], named[0]) if named else ""
    command = COMMANDS.get(name)
    if name in OTHERS:
        typed, summary, _ = OTHERS[name]
        data: Any = {"name": name, "category": "Shell", "summary": summary, "usage": typed}
        data |= {"details": "", "examples": ()}
        return render(Result(data, f"{typed}: {summary}"), as_json=as_json, paint=plain)
    if named and command is None:
        raise unknown(named[0])
    if as_json:
        data = [_told(each) for each in COMMANDS.values()] if command is None else _told(command)
        return render(Result(data), as_json=True, paint=plain)
    return overview() if command is None else build_parser(command).format_help().rstrip()


def _told(command: Command) -> dict[str, Any]:
    """Return what a command is as plain data."""
    return {
        "name": command.name,
        "category": command.category,
        "summary": command.summary,
        "usage": usage(command),
        "details": command.details,
        "examples": command.examples,
    }


def overview() -> str:
    """Return all commands by category, a line each."""
    categories: dict[str, list[Command]] = {}
    for command in COMMANDS.values():
        categories.setdefault(command.category, []).append(command)
    width = max(map(len, COMMANDS))
    parts = [
        f"{category}\n" + "\n".join(f"  {each.name:{width}}  {each.summary}" for each in members)
        for category, members in categories.items()
    ]
    parts.append(
        "A call of a handler is typed as it is: a.b.x(1, name='Alice')\n"
        f"help COMMAND tells more, of {', '.join(OTHERS)} too."
    )
    return "\n\n".join(parts)
