"""The interactive shell, on cmd2: `tega` at a terminal.

The commands are those of one-shots; cmd2 gives the line editing, the help and the history. Lines are cut by
`tega_zmq.shell.lexer`, so that YAML and calls can be typed as they are: there are no output pipes, no
redirection and no shell escapes, unless an option allows them, and nothing that runs Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path as File
from types import FrameType
from typing import Any

import cmd2
from cmd2.parsing import Statement
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from rich.text import Text

from tega_zmq.errors import TegaError, TransactionExpired
from tega_zmq.shell import complete, oneshot
from tega_zmq.shell.cmdline import LineParser, parser_of
from tega_zmq.shell.commands import COMMANDS, calls
from tega_zmq.shell.events import Events
from tega_zmq.shell.lexer import unquote
from tega_zmq.shell.literals import looks_like_call
from tega_zmq.shell.oneshot import Lines, Options
from tega_zmq.shell.output import Paint, render, safe, want_colour
from tega_zmq.shell.progress import Progress
from tega_zmq.shell.run import ALIASES, execute, unknown
from tega_zmq.shell.session import Session, Surroundings, ended_text, left_open, one_line, state_text
from tega_zmq.shell.spec import Command, UsageError, convert

__all__ = ["Shell", "history_file", "run"]

HISTORY = 1000
"""Most lines of history that are kept from one shell to the next."""


OFF = ("macro", "run_pyscript", "set", "shortcuts", "_relative_run_script")
"""Commands of cmd2 that are off: what runs Python, and what only cmd2's own syntax needs."""

PROGRAMS = ("edit", "shell")
"""Commands of cmd2 that run programs: off, unless the option says otherwise."""


def run(options: Options) -> int:
    """Run the shell until the user leaves; return the exit status. Raises `TegaError`: no node."""
    with oneshot.dial(options) as client:
        shell = Shell(client, options, history=history_file())
        if not options.programs:
            os.environ["LESSSECURE"] = "1"  # the pager must not run programs either
        try:
            shell.start(startup_file())
            return shell.cmdloop()
        finally:
            left = left_open(shell.session)
            if left:
                oneshot.complain(left)
            shell.session.end()


def history_file(environ: dict[str, str] | None = None) -> str:
    """Return where the history is kept, after making its folder; "" if that cannot be."""
    found = dict(os.environ) if environ is None else environ
    state = found.get("XDG_STATE_HOME") or os.path.join(
        found.get("HOME") or os.path.expanduser("~"), ".local", "state"
    )
    folder = File(state) / "tega"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / "history"
        # Values that were typed stand in it: nobody else's business.
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError:
        return ""
    return str(file)


def startup_file(environ: dict[str, str] | None = None) -> File:
    """Return the file whose lines each shell begins with, aliases above all; it need not be there."""
    found = dict(os.environ) if environ is None else environ
    config = found.get("XDG_CONFIG_HOME") or os.path.join(
        found.get("HOME") or os.path.expanduser("~"), ".config"
    )
    return File(config) / "tega" / "startup"


# -- completion --------------------------------------------------------------------------------------


class _Completer(Completer):
    """Offers what `tega_zmq.shell.complete` finds; cmd2's own commands are left to cmd2."""

    def __init__(self, shell: Shell, own: Completer | None) -> None:
        self._shell = shell
        self._own = own

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = self._shell.lines.expand(document.text_before_cursor)
        words = line.split(maxsplit=1)
        first = len(words) < 2 and not line.endswith(" ")
        if not first and words and words[0] not in COMMANDS and self._own is not None:
            yield from self._own.get_completions(document, complete_event)
            return
        start, found = complete.candidates(
            line, COMMANDS, self._shell.source, self._shell.other_commands(), self._shell.session.transactions
        )
        for each in found:
            space = " " if each.final and len(found) == 1 else ""
            yield Completion(each.text + space, start - len(line), display=safe(each.display, lines=False))


# -- the shell -------------------------------------------------------------------------------------


# The heading of cmd2's own commands in `help`; cmd2 documents it as meant to be set like this.
cmd2.Cmd.DEFAULT_CATEGORY = "Shell"


class Shell(cmd2.Cmd):
    """The interactive shell of one client. The commands are added to the class below."""

    def __init__(self, client: Any, options: Options, *, history: str = "") -> None:
        super().__init__(
            allow_cli_args=False,
            allow_clipboard=False,
            allow_redirection=options.programs,
            auto_suggest=False,
            persistent_history_file=history,
            persistent_history_length=HISTORY,
            shortcuts={"!": "shell"} if options.programs else {},
            suggest_similar_command=True,
            terminators=[],
        )
        self.lines = self.statement_parser = LineParser(dict(ALIASES), programs=options.programs)
        for name in OFF:
            self.disable_command(name, f"{name} is not part of this shell")
        for name in () if options.programs else PROGRAMS:
            self.disable_command(name, f"{name} runs programs: only `tega --programs` allows that")
        self._options = options
        self._paint = Paint(want_colour(self.stdout))
        self._events = Events()
        self.session = Session(
            client,
            Surroundings(
                mode="interactive",
                show=self._show,
                note=self.perror,
                read_body=self._read_body,
                confirm=self._confirm,
                paint=self._paint,
                as_json=options.as_json,
                progress=Progress(sys.stderr),
            ),
            options.server,
        )
        self.source = complete.Live(client)
        self.main_session.completer = _Completer(self, self.main_session.completer)
        self._state = client.state
        client.on_state(self._state_changed)
        client.on_expired(self._expired)
        self.session.on_ended = lambda what, error: self._show(self._paint(ended_text(what, error), "yellow"))
        client.on_dropped(lambda count: self._show(f"{count} messages were dropped: this shell was too slow"))
        self.intro = self._paint(
            f"{client.tega_id} at {safe(client.server or options.server)}."
            " `help` lists the commands, Tab completes.",
            "dim",
        )
        self.prompt = self._prompt()

    def termination_signal_handler(self, signum: int, frame: FrameType | None) -> None:
        """End in order, with status 0, at SIGTERM, as all programs do."""
        if signum == signal.SIGTERM:
            raise SystemExit(0)
        super().termination_signal_handler(signum, frame)

    # -- what the user sees -------------------------------------------------------------------------

    def _prompt(self) -> str:
        inside = []
        if self._state != "connected":
            inside.append(self._state)
        if self.session.transaction is not None:
            inside.append(f"transaction {self.session.current}")
        return self._paint("tega", "bold") + (f" ({', '.join(inside)})" if inside else "") + "> "

    def pre_prompt(self) -> None:
        """Show in the prompt what is open."""
        self.prompt = self._prompt()

    def _say(self, text: str) -> None:
        if not text:
            return
        if self._redirecting and self._paint.colour:
            text = Text.from_ansi(text).plain
        if self._options.pager and self._is_long(text) and shutil.which("less"):
            self.ppaged(Text.from_ansi(text))
            return
        self.stdout.write(text + "\n")
        self.stdout.flush()

    def _is_long(self, text: str) -> bool:
        """Whether `text` is more than fits on the screen, if there is one."""
        if self._redirecting or not (self.stdin.isatty() and self.stdout.isatty()):
            return False
        width, height = shutil.get_terminal_size()
        lines = sum(1 + (len(line) - 1) // width for line in Text.from_ansi(text).plain.split("\n"))
        return lines >= height

    def start(self, file: File) -> None:
        """Run the lines of `file`, if it is there; what fails is told and passed over."""
        try:
            lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            self.perror(f"{file}: cannot be read: {error.strerror or error}")
            return
        self.runcmds_plus_hooks(lines, add_to_history=False)

    def _show(self, text: str) -> None:
        """Show an event above the prompt; called by the client's thread."""
        if self._events.add(text):
            self.add_alert(msg=self._events)

    def _state_changed(self, state: str) -> None:
        before, self._state = self._state, state
        text = state_text(self.session, before, state)
        if not text:
            return
        self._events.add(self._paint(text, "yellow"))
        self.add_alert(msg=self._events, prompt=self._prompt())

    def _expired(self, error: TransactionExpired) -> None:
        """Tell of a transaction that ended by itself; called by the client's thread."""
        name = self.session.expired(error.txid or "")
        self._events.add(self._paint(f"transaction {name or '?'}: {one_line(error)}", "yellow"))
        self.add_alert(msg=self._events, prompt=self._prompt())

    def _read_body(self) -> str:
        lines: list[str] = []
        while True:
            try:
                line = self.read_input("> ")
            except EOFError:
                break
            if not line.strip():
                break
            lines.append(line)
        return "\n".join(lines)

    def _confirm(self, question: str) -> bool:
        try:
            return self.read_input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    def run_editor(self, file_path: str | None = None) -> None:
        """Start an editor only where programs are allowed; otherwise what wanted one ends."""
        if self._options.programs:
            super().run_editor(file_path)
            return
        self.perror("this shell starts no programs")
        raise cmd2.exceptions.SkipPostcommandHooks

    def other_commands(self) -> list[str]:
        """Return the words besides the table's that a line may begin with."""
        return [*self.get_visible_commands(), *self.statement_parser.aliases]

    # -- what the user types ------------------------------------------------------------------------

    def run_command(self, command: Command, args: argparse.Namespace) -> None:
        """Run one command of the table."""
        self.guard(lambda: execute(self.session, command, convert(command, args, typed=True)))

    def guard(self, function: Callable[[], str]) -> None:
        """Print what `function` returns, or in one line why it failed."""
        try:
            self._say(function())
        except UsageError as error:
            self.perror(safe(str(error)))
            if error.usage:
                self.perror(safe(error.usage), style=None)
        except TegaError as error:
            self.session.failed(error)
            self.perror(one_line(error))

    def default(self, statement: Statement) -> bool | None:
        """Run a call as it is typed, `a.b.x(1)`; anything else is no command."""
        line = statement.command_and_args.strip()
        if looks_like_call(line):
            self.history.append(statement)
            self.guard(self._caller(line))
        else:
            self.perror(str(unknown(statement.command)))
        return None

    def _caller(self, line: str) -> Callable[[], str]:
        def caller() -> str:
            result = calls.call(self.session, calls.parse(line), None)
            return render(result, as_json=self._options.as_json, paint=self._paint)

        return caller

    _script = cmd2.Cmd2ArgumentParser(description="Run the commands in a file, up to the first that fails.")
    _script.add_argument("file", metavar="FILE", completer=cmd2.Cmd.path_complete)

    @cmd2.with_argparser(_script)
    def do_run_script(self, args: argparse.Namespace) -> None:
        """Run the commands in a file, up to the first that fails."""
        name = unquote(args.file)
        try:
            file = oneshot.open_script(name)
        except TegaError as error:
            self.perror(one_line(error))
            return
        with file:
            lines = Lines(file)
            around = self.session.around
            self.session.around = around._replace(read_body=lines.body)
            try:
                oneshot.run_lines(self.session, lines, name, None)
            finally:
                self.session.around = around


def _method(command: Command) -> Callable[[Shell, argparse.Namespace], None]:
    def method(self: Shell, args: argparse.Namespace) -> None:
        self.run_command(command, args)

    method.__name__ = f"do_{command.name}"
    method.__qualname__ = f"Shell.do_{command.name}"
    method.__doc__ = command.summary
    return method


for _command in COMMANDS.values():
    setattr(
        Shell,
        f"do_{_command.name}",
        cmd2.with_category(_command.category)(
            cmd2.with_argparser(parser_of(_command), preserve_quotes=True)(_method(_command))
        ),
    )
