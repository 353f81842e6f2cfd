"""The `tega` command.

Kept light: what only the interactive shell needs is imported only for it, so that a one-shot starts fast.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tega_zmq.errors import TegaError
from tega_zmq.shell import oneshot
from tega_zmq.shell.oneshot import DONE, INTERRUPTED, REFUSED, WRONG, Options
from tega_zmq.shell.output import Unwritable
from tega_zmq.shell.session import one_line
from tega_zmq.shell.spec import Finished, Parser, UsageError
from tega_zmq.version import __version__

__all__ = ["DEFAULT_SERVER", "DEFAULT_TIMEOUT", "main"]

DEFAULT_SERVER = "tcp://127.0.0.1:8740"

DEFAULT_TIMEOUT = 10.0
"""Seconds."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `tega` command; return its exit status: 0 done, 1 refused, 2 wrong usage. Raises nothing."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),  # of messages; documents are in ASCII then (`output.is_narrow`)
        (sys.stderr, "backslashreplace"),
    ):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)
    try:
        status = _run(arguments)
    except Finished:
        status = DONE
    except UsageError as error:
        oneshot.tell_usage(error)
        status = WRONG
    except TegaError as error:
        oneshot.complain(one_line(error))
        status = REFUSED
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        oneshot.discard(sys.stdout)  # the reader has seen enough
        status = DONE
    except Unwritable as error:
        oneshot.complain(f"tega: {error}")
        oneshot.discard(sys.stdout)
        status = REFUSED
    return status


def _open_streams() -> None:
    """Replace streams that are closed: nothing comes in, results cannot be written, errors go nowhere."""
    for name, mode, flags in (
        ("stdin", "r", os.O_RDONLY),
        ("stdout", "w", os.O_RDONLY),  # so that writing fails as it does where a program has closed it
        ("stderr", "w", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, flags)
            setattr(sys, name, os.fdopen(handle, mode, encoding="utf-8", closefd=False))


def _run(arguments: list[str]) -> int:
    parser = _parser()
    given, words = _split(parser, arguments)
    if given.version:
        oneshot.say(f"tega {__version__}")
        return DONE
    if (given.ca or given.cert or given.key) and not given.server.startswith("wss://"):
        raise UsageError(f"--ca, --cert and --key are for wss://, and the node is {given.server}")
    ca, cert, key = (
        flag or os.environ.get(name, "")
        for flag, name in ((given.ca, "TEGA_CA"), (given.cert, "TEGA_CERT"), (given.key, "TEGA_KEY"))
    )
    options = Options(
        given.server,
        given.tega_id,
        given.timeout,
        given.json,
        given.programs,
        not given.no_pager,
        (ca, cert, key),
    )
    if given.file is not None:
        if words:
            raise UsageError("-f FILE and a command: give one of them")
        return _script(given.file, options)
    if words and words[0] in ("help", "h"):
        from tega_zmq.shell.run import help_text

        oneshot.say(help_text(words[1:], as_json=given.json))
        return DONE
    if words:
        return oneshot.run_command(words, options)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return oneshot.run_script(sys.stdin, "standard input", options)
    return _interactive(options)


def _parser() -> Parser:
    parser = Parser(
        prog="tega",
        usage="tega [options] [COMMAND ...]",
        description="The shell of a tega node. Without a command it is interactive; commands on standard\n"
        "input, or in a file given with -f, run in one session. `tega help` lists the commands.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="exit status: 0 done, 1 refused (the error is on standard error), 2 wrong usage",
    )
    parser.add_argument(
        "-s",
        "--server",
        metavar="URL",
        default=os.environ.get("TEGA_SERVER") or DEFAULT_SERVER,
        help=f"the node (TEGA_SERVER in the environment; default {DEFAULT_SERVER})",
    )
    parser.add_argument(
        "--ca",
        metavar="FILE",
        help="of wss://: whom to trust, PEM (TEGA_CA; default: whom the system trusts)",
    )
    parser.add_argument(
        "--cert", metavar="FILE", help="of wss://: the certificate of this client, PEM (TEGA_CERT)"
    )
    parser.add_argument("--key", metavar="FILE", help="its key, if it does not stand in --cert (TEGA_KEY)")
    parser.add_argument("-t", "--tega-id", metavar="ID", help="who this is (default: a fresh name)")
    parser.add_argument("-f", "--file", metavar="FILE", help="run the commands in FILE; - is standard input")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=DEFAULT_TIMEOUT,
        help=f"how long to wait for the node and for an answer (default {DEFAULT_TIMEOUT:g})",
    )
    parser.add_argument(
        "--programs", action="store_true", help="interactive: allow |, >, >> and !, which start programs"
    )
    parser.add_argument("--no-pager", action="store_true", help="interactive: do not page long results")
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


_TAKE_A_VALUE = frozenset(
    ("-s", "--server", "-t", "--tega-id", "-f", "--file", "--timeout", "--ca", "--cert", "--key")
)


def _split(parser: Parser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options before the command, and the command's words: its own options are its business."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] not in ("-", "--"):
        at += 2 if arguments[at] in _TAKE_A_VALUE else 1
    words = arguments[at:]
    return parser.parse_args(arguments[:at]), words[1:] if words[:1] == ["--"] else words


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!a} is no number of seconds") from None
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0 and at most 86400 seconds")
    return seconds


def _script(name: str, options: Options) -> int:
    if name == "-":
        return oneshot.run_script(sys.stdin, "standard input", options)
    with oneshot.open_script(name) as file:
        return oneshot.run_script(file, name, options)


def _interactive(options: Options) -> int:
    try:
        from tega_zmq.shell import interactive
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] not in (
            "cmd2",
            "prompt_toolkit",
            "rich",
            "rich_argparse",
        ):
            raise
        oneshot.complain(
            "tega: the interactive shell needs cmd2: pip install 'tega-zmq[shell]'."
            " Single commands work without it, as in: tega get PATH"
        )
        return REFUSED
    return interactive.run(options)


if __name__ == "__main__":
    sys.exit(main())
