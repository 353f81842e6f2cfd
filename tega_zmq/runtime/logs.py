"""Log lines of the programs: one line an event, on stderr, over the standard `logging`.

An event is a few fixed words, and what varies stands in fields:

    log.warning("session ended", extra={"fields": {"tega_id": "pi1", "why": "lease over"}})

    2026-11-20T12:00:00.000Z WARNING tega-broker: session ended tega_id=pi1 why="lease over"
    {"time": "2026-11-20T12:00:00.000Z", "level": "warning", "program": "tega-broker", "event": ...}

A line is never longer than `MAX_LINE`, and holds no control characters. An exception shows as a field
`error`; only at level debug does its traceback follow, in a field `traceback`.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal, TextIO

from tega_zmq.errors import text_of

__all__ = ["LOGGER", "MAX_LINE", "JsonFormatter", "TextFormatter", "setup"]

LOGGER = "tega"
"""The logger that `setup` configures; those below it (`tega.plugin`) are shown by their own name."""

MAX_LINE = 4096
"""Longest line, in characters."""

MAX_FIELD = 1024
"""Longest value of a field, in characters; a traceback may have all of the line."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def setup(
    program: str,
    level: str = "info",
    form: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
) -> logging.Logger:
    """Send the log lines of this process to `stream` (None: stderr) and return the logger of the program.

    `level` is `debug`, `info`, `warning` or `error`. What libraries log comes too, from warnings on. Errors
    that end a thread, or the process, become a line as well. May be called again to change level and form.
    """
    debug = level == "debug"
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter(program, debug) if form == "json" else TextFormatter(program, debug))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    logger = logging.getLogger(LOGGER)
    logger.setLevel(_LEVELS[level])
    _install_hooks(logger)
    return logger


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, program, event, then `key=value`; values are quoted where needed."""

    def __init__(self, program: str, debug: bool = False) -> None:
        super().__init__()
        self.program = program
        self.debug = debug

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record, self.debug)
        parts = [
            f"{_time(record.created)} {record.levelname} {_source(self.program, record)}:",
            _event(record),
        ]
        parts += [f"{name}={_quoted(value)}" for name, value in fields.items()]
        return _bounded(" ".join(parts))


class JsonFormatter(logging.Formatter):
    """Lines for machines: one JSON object with `time`, `level`, `program`, `event`, and the fields."""

    def __init__(self, program: str, debug: bool = False) -> None:
        super().__init__()
        self.program = program
        self.debug = debug

    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "program": _source(self.program, record),
            "event": _event(record),
        }
        fields = {
            name if name not in head else f"{name}_": value if _is_plain(value) else _shown(name, value)
            for name, value in _fields(record, self.debug).items()
        }
        line = _json(head | fields)
        while len(line) > MAX_LINE and fields:
            fields.pop(max(fields, key=lambda name: len(str(fields[name]))))
            line = _json(head | fields | {"truncated": True})
        return (
            line if len(line) <= MAX_LINE else _json(head | {"event": head["event"][:512], "truncated": True})
        )


def _fields(record: logging.LogRecord, debug: bool) -> dict[str, Any]:
    given = getattr(record, "fields", None)
    fields = {str(name): value for name, value in given.items()} if isinstance(given, Mapping) else {}
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields.setdefault("error", f"{type(error).__name__}: {text_of(error)}")
        if debug:
            fields["traceback"] = "".join(traceback.format_exception(error))
    return fields


def _event(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format in some library's log call must not cost the line
        text = str(record.msg)
    return _clean(text)[:MAX_FIELD]


def _source(program: str, record: logging.LogRecord) -> str:
    name = record.name
    if name in (LOGGER, "root"):
        return program
    return f"{program}/{name.removeprefix(LOGGER + '.')}"


def _time(seconds: float) -> str:
    whole, part = divmod(seconds, 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(part * 1000):03d}Z"


def _shown(name: str, value: Any) -> str:
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception as error:  # noqa: BLE001 - a value that cannot show itself must not cost the line
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    limit = MAX_LINE // 2 if name == "traceback" else MAX_FIELD
    if len(text) > limit:
        kept = text[-limit:] if name == "traceback" else text[:limit]
        return f"{kept}... ({len(text)} characters)"
    return text


def _quoted(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _shown("", value)
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _is_plain(value: Any) -> bool:
    """Whether JSON has it, besides text."""
    return value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and isfinite(value))


def _clean(text: str) -> str:
    """`text` on one line, without control characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _bounded(line: str) -> str:
    if len(line) <= MAX_LINE:
        return line
    return f"{line[: MAX_LINE - 32]}... ({len(line)} characters)"


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(", ", ": "))


def _install_hooks(logger: logging.Logger) -> None:
    """Make a line of what would print a traceback by itself."""

    def ended(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        logger.error("the program ends by an error of its own", exc_info=(kind, error, trace))

    def thread_ended(happened: threading.ExceptHookArgs) -> None:
        if happened.exc_value is None or isinstance(happened.exc_value, SystemExit):
            return
        logger.error(
            "a thread ends by an error of its own",
            exc_info=(happened.exc_type, happened.exc_value, happened.exc_traceback),
            extra={"fields": {"thread": happened.thread.name if happened.thread else None}},
        )

    sys.excepthook = ended
    threading.excepthook = thread_ended
