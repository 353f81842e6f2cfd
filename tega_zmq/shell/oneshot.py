"""`tega COMMAND ...`, and scripts: no terminal needed, exit statuses for other programs.

0: done; 1: refused, with one line on standard error that begins with the error's name; 2: typed wrongly.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TextIO

from tega_zmq.errors import InvalidValue, TegaError, TooLarge
from tega_zmq.shell.commands import COMMANDS, calls
from tega_zmq.shell.literals import looks_like_call
from tega_zmq.shell.output import Paint, Unwritable, render, safe, want_colour, write_out
from tega_zmq.shell.progress import Progress
from tega_zmq.shell.run import Quit, execute, run_line, unknown
from tega_zmq.shell.session import Session, Surroundings, left_open, one_line, state_text
from tega_zmq.shell.spec import Command, Finished, UsageError, build_parser, convert

__all__ = [
    "DONE",
    "INTERRUPTED",
    "REFUSED",
    "WRONG",
    "Options",
    "complain",
    "dial",
    "discard",
    "run_command",
    "run_script",
]

DONE, REFUSED, WRONG, INTERRUPTED = 0, 1, 2, 130

_LONGEST = 64 << 20
"""Most characters of a value on standard input; what a node takes is less."""

_FOLLOWING = frozenset(("sub", "subr"))


class Options(NamedTuple):
    """What was given before the command."""

    server: str
    tega_id: str | None
    timeout: float
    """Seconds to wait for the node, and for an answer."""
    as_json: bool
    programs: bool = False
    """Pipes, redirection and `!` in the interactive shell."""
    pager: bool = True
    """Long results page, in the interactive shell."""
    tls: tuple[str, str, str] = ("", "", "")
    """Files for `wss://`: as the fields of `Tls`."""


def dial(options: Options) -> Any:
    """Return a client of the node that `options` name.

    Raises `TegaError`, and `UsageError` for what is no url or no tega_id.
    """
    import logging

    from tega_zmq.client.blocking import connect
    from tega_zmq.client.requests import check_tega_id, check_url

    # What the client would log, the shell says itself.
    logging.getLogger("tega_zmq").addHandler(logging.NullHandler())
    try:
        check_url(options.server)
        if options.tega_id is not None:
            check_tega_id(options.tega_id)
    except InvalidValue as error:
        raise UsageError(error.message) from None
    tls = None
    if options.server.startswith("wss://"):
        from tega_zmq import Tls

        tls = Tls(*options.tls)
    return connect(options.server, tega_id=options.tega_id, timeout=options.timeout, kind="shell", tls=tls)


def complain(text: str) -> None:
    """Print one line for the user on standard error."""
    _write_error(safe(text, lines=False))


def _write_error(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)  # there is nobody to tell; the exit status still says it


def discard(stream: TextIO) -> None:
    """Let go of what `stream` could not write: Python would complain once more when it flushes at the end."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())


def tell_usage(error: UsageError) -> None:
    """Print what was typed wrongly, and how it should be."""
    complain(f"tega: {error}")
    if error.usage:
        _write_error(safe(error.usage))


def say(text: str) -> None:
    """Print a result, if there is any. Raises `Unwritable`, `BrokenPipeError`."""
    if text:
        write_out(text + "\n")


# -- one command -----------------------------------------------------------------------------------


def run_command(words: Sequence[str], options: Options) -> int:
    """Run one command in a session of its own; return the exit status.

    Raises `UsageError` before it dials, for what can be seen to be wrong without a node.
    """
    name = words[0]
    command = COMMANDS.get(name)
    if command is None:
        return _run_call(words, options)
    if command.session_only:
        raise UsageError(f"{name}: {command.session_only}")
    try:
        args = convert(command, build_parser(command, "tega").parse(words[1:]), typed=False)
    except Finished:
        return DONE
    stop = threading.Event()
    with dial(options) as client:
        session = Session(client, _surroundings("one-shot", options, _standard_input), options.server)
        if name in _FOLLOWING:
            return _follow(session, command, args, stop)
        say(execute(session, command, args))
    return DONE


def _run_call(words: Sequence[str], options: Options) -> int:
    if not looks_like_call(" ".join(words)):
        raise unknown(words[0])
    if words[-1] == "--json":
        words = words[:-1]
        options = options._replace(as_json=True)
    typed = calls.parse(" ".join(words))
    with dial(options) as client:
        session = Session(client, _surroundings("one-shot", options, _standard_input), options.server)
        result = calls.call(session, typed, options.timeout)
        say(render(result, as_json=options.as_json, paint=session.around.paint))
    return DONE


def _follow(session: Session, command: Command, args: Any, stop: threading.Event) -> int:
    """Subscribe and go on until a signal, or until the session is over for good."""
    over: list[str] = []
    unread: list[Exception] = []
    errors: list[TegaError] = []

    states = [session.client.state]

    def state_changed(state: str) -> None:
        text = state_text(session, states[-1], state)
        states[:] = [state]
        if state in ("taken over", "closed"):
            over.append(state)
            stop.set()
        elif text:
            session.around.note(text)

    def show(text: str) -> None:
        try:
            say(text)
        except (BrokenPipeError, Unwritable) as error:
            unread.append(error)
            stop.set()

    def ended(_: str, error: TegaError) -> None:
        errors.append(error)
        stop.set()

    session.around = session.around._replace(show=show)
    session.on_ended = ended
    session.client.on_state(state_changed)
    # Not `stop.set`: a signal may come while this thread is in `wait`, and has the lock that it takes.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        execute(session, command, args)
        while not stop.wait(3600):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
    if over == ["taken over"]:
        complain(f"TakenOver: another program said hello as {session.client.tega_id}")
        return REFUSED
    if unread:
        raise unread[0]
    if errors:
        raise errors[0]
    return DONE


# -- scripts ---------------------------------------------------------------------------------------


def open_script(name: str) -> TextIO:
    """Return the file of that name, open for reading. Raises `InvalidValue`."""
    try:
        return open(os.path.expanduser(name), encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InvalidValue(f"{name}: cannot be read: {error.strerror or error}") from None


class Lines:
    """The lines of a script, one by one; commands that take a body take it from here."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.number += 1
        return line.rstrip("\r\n")

    def body(self) -> str:
        """Return the lines up to an empty one."""
        lines: list[str] = []
        for line in self:
            if not line.strip():
                break
            lines.append(line)
        return "\n".join(lines)


def run_script(file: TextIO, name: str, options: Options) -> int:
    """Run every line of `file` in one session; stop at the first that fails. Returns the exit status."""
    with dial(options) as client:
        lines = Lines(file)
        session = Session(client, _surroundings("script", options, lines.body), options.server)
        try:
            status = run_lines(session, lines, name, options.timeout)
            session.catch_up()
            left = left_open(session)
            if left:
                complain(f"tega: {name} ends within a transaction; {left}")
                status = status or REFUSED
        finally:
            session.end()
    return status


def run_lines(session: Session, lines: Lines, name: str, timeout: float | None) -> int:
    """Run `lines` in `session`; return the exit status of the first that fails, or 0."""
    for line in lines:
        at = lines.number
        try:
            say(run_line(session, line, timeout))
        except Quit:
            return DONE
        except Finished:
            continue
        except UsageError as error:
            complain(f"tega: {name}:{at}: {error}")
            return WRONG
        except TegaError as error:
            session.failed(error)
            complain(f"{one_line(error)} ({name}:{at})")
            return REFUSED
    return DONE


# -- surroundings ----------------------------------------------------------------------------------


def _surroundings(mode: Any, options: Options, read_body: Any) -> Surroundings:
    return Surroundings(
        mode=mode,
        show=say,
        note=complain,
        read_body=read_body,
        confirm=_confirm,
        paint=Paint(want_colour(sys.stdout)),
        as_json=options.as_json,
        progress=Progress(sys.stderr),
    )


def _standard_input() -> str:
    """The value of a command that was given none: standard input, to its end or, typed, to an empty line."""
    if sys.stdin.isatty():
        return Lines(sys.stdin).body()
    text = sys.stdin.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise TooLarge(f"standard input is longer than {_LONGEST} characters: no value is", limit=_LONGEST)
    return text


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
