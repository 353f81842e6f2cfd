"""Log lines: one line an event, bounded, without control characters, in two forms."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega_zmq.runtime import logs

Form = Literal["text", "json"]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put the logging of the test run back as it was."""
    root, logger = logging.getLogger(), logging.getLogger(logs.LOGGER)
    saved = root.handlers[:], root.level, logger.level, logging.raiseExceptions
    hooks = sys.excepthook, threading.excepthook
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level, logging.raiseExceptions = saved[0], saved[1], saved[3]
    root.setLevel(saved[1])
    logger.setLevel(saved[2])
    sys.excepthook, threading.excepthook = hooks


def lines(do: Callable[[logging.Logger], object], level: str = "info", form: Form = "text") -> list[str]:
    stream = io.StringIO()
    do(logs.setup("tega-broker", level, form, stream))
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


def failing(logger: logging.Logger) -> None:
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        logger.exception("it failed")


def test_text() -> None:
    fields = {
        "tega_id": "pi1",
        "why": "lease over",
        "n": 3,
        "share": 0.333333333,
        "on": True,
        "none": None,
        "e": "",
    }
    (line,) = lines(lambda log: log.info("session ended", extra={"fields": fields}))
    time, rest = line.split(" ", 1)
    assert len(time) == len("2026-11-20T12:00:00.000Z")
    assert rest == (
        'INFO tega-broker: session ended tega_id=pi1 why="lease over" n=3 share=0.333333 on=true none=- e=""'
    )


def test_json() -> None:
    fields = {"n": 3, "x": None, "why": "ü\n", "inf": float("inf"), "list": [1], "event": "clash"}
    (line,) = lines(lambda log: log.info("session ended", extra={"fields": fields}), form="json")
    value = json.loads(line)
    assert value.pop("time").endswith("Z")
    assert value == {
        "level": "info",
        "program": "tega-broker",
        "event": "session ended",
        "n": 3,
        "x": None,
        "why": "ü\n",
        "inf": "inf",
        "list": "[1]",
        "event_": "clash",
    }


@pytest.mark.parametrize("form", ["text", "json"])
@given(
    event=st.text(max_size=3000),
    fields=st.dictionaries(
        st.sampled_from("abcdefgh"), st.text(max_size=3000) | st.floats() | st.binary(max_size=9)
    ),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_logged_is_one_bounded_line(form: Form, event: str, fields: dict[str, Any]) -> None:
    formatter = (logs.TextFormatter if form == "text" else logs.JsonFormatter)("p")
    record = logging.makeLogRecord({"name": "tega", "msg": event, "levelname": "INFO", "fields": fields})
    line = formatter.format(record)
    assert len(line) <= logs.MAX_LINE
    assert line.isprintable() or form == "json"
    assert "\n" not in line
    if form == "json":
        json.loads(line)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_shown_at_debug_only(form: Form) -> None:
    (line,) = lines(failing, "info", form)
    assert "ValueError: bad\\nnews" in line
    assert "Traceback" not in line
    (line,) = lines(failing, "debug", form)
    assert "Traceback" in line


def test_an_error_that_cannot_say_anything_costs_no_line() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    (line,) = lines(lambda logger: logger.error("it failed", exc_info=Mute()))
    assert 'it failed error="Mute: its message cannot be read: ValueError"' in line


def test_levels() -> None:
    def all_levels(log: logging.Logger) -> None:
        for level in ("debug", "info", "warning", "error"):
            getattr(log, level)(level)

    for number, level in enumerate(("debug", "info", "warning", "error")):
        assert len(lines(all_levels, level)) == 4 - number


def test_the_names_of_loggers_below_and_of_libraries() -> None:
    (line,) = lines(lambda _: logging.getLogger("tega.plugin.net").info("hello"))
    assert " INFO tega-broker/plugin.net: hello" in line
    (line,) = lines(lambda _: (logging.getLogger("lib").warning("uh"), logging.getLogger("lib").info("no")))
    assert " WARNING tega-broker/lib: uh" in line


def test_a_wrong_call_costs_no_line() -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    (line,) = lines(lambda log: log.info("%d of", "x", extra={"fields": {"bad": Bad()}}))
    assert line.endswith('%d of bad="<Bad: RuntimeError>"')
    (line,) = lines(lambda log: log.info("plain", extra={"fields": "no map"}))
    assert line.endswith("plain")


def test_the_longest_fields_of_a_json_line_go_first() -> None:
    fields = {"short": 1} | {f"long{i}": "x" * 1000 for i in range(6)}
    (line,) = lines(lambda log: log.info("e", extra={"fields": fields}), form="json")
    value = json.loads(line)
    assert value["truncated"] is True
    assert value["short"] == 1
    (line,) = lines(lambda log: log.info("\u20ac" * 1024), form="json")
    assert json.loads(line)["event"].startswith("\u20ac")


def test_errors_that_end_a_thread_or_the_process_become_lines() -> None:
    def work() -> None:
        raise KeyError("lost")

    def run(_: logging.Logger) -> None:
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join()

    (line,) = lines(run)
    assert "a thread ends by an error of its own thread=worker error=\"KeyError: 'lost'\"" in line
    error = OSError("gone")
    (line,) = lines(lambda _: sys.excepthook(OSError, error, None))
    assert 'the program ends by an error of its own error="OSError: gone"' in line
    assert lines(lambda _: sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)) == []


def test_setting_up_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.setup("p", stream=first)
    logs.setup("p", stream=second).info("hello")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
