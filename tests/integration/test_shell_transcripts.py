"""Transcripts, typed into the shell at a terminal: what it shows must be what they show.

A line that begins with a prompt (`tega>`, `tega (...)>`, or `>` for a body) is typed; the lines up to the
next one are what the shell must show. A line in slashes, or a prompt in slashes, is a regular expression.
`FOLDER` stands for a folder of the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import PATIENCE, Fleet, until
from tests.terminal import Terminal

TRANSCRIPTS = Path(__file__).parent / "transcripts"
_TYPED = re.compile(r"(tega(?: \(.*?\))?|/tega.*?/|)> ?(.*)")


class Step(NamedTuple):
    """One line that is typed, and what must be shown before the next one."""

    prompt: str
    """As a regular expression."""
    typed: str
    shown: str
    """As a regular expression; of whole lines."""


def steps(text: str) -> Iterator[Step]:
    """Yield the steps of a transcript."""
    prompt, typed = "", ""
    shown: list[str] = []
    for line in [*(each for each in text.splitlines() if not each.startswith("#")), "tega> "]:
        match = _TYPED.fullmatch(line)
        if match is None:
            shown.append(line[1:-1] if line[:1] == "/" == line[-1:] else re.escape(line))
            continue
        if prompt:
            yield Step(prompt, typed, "".join(f"{_local(each)}\n" for each in shown))
        name, typed = match[1], match[2]
        prompt = (name[1:-1] if name.startswith("/") else re.escape(name)) + ">"
        shown = []


def _local(regex: str) -> str:
    """Keep flags like `(?s)` to the one line that has them."""
    return re.sub(r"^\(\?s\)(.*)$", r"(?s:\1)", regex)


@pytest.mark.parametrize("name", ["first_tega", "operator"])
def test_transcript(fleet: Fleet, tmp_path: Path, name: str) -> None:
    script = (TRANSCRIPTS / f"{name}.txt").read_text().replace("FOLDER", str(tmp_path))
    terminal = Terminal(fleet, tmp_path, "-t", "noc-7", "--no-pager", NO_COLOR="1")
    try:
        for at, step in enumerate(steps(script)):
            _play(terminal, step, f"{name}, step {at}: {step}")
        terminal.line("clear", "with their history? [y/N]")
        terminal.type("n\r")
        terminal.see("nothing was cleared")
        terminal.prompt()
        terminal.type("quit\r")
        assert terminal.process.wait(PATIENCE) == 0
        assert "Traceback" not in terminal.raw
    finally:
        terminal.close()


def _play(terminal: Terminal, step: Step, what: str) -> None:
    """Type a line; wait until all that it must lead to stands there, and a prompt below it."""
    typed = re.escape(step.typed).rstrip()
    expected = re.compile(rf"{step.prompt} ?{typed}\n{step.shown}(tega( \(.*?\))?)?> ?")
    terminal.mark()
    terminal.type(step.typed + "\r")
    try:
        until(lambda: expected.fullmatch(terminal.text()), patience=PATIENCE / 2)
    except AssertionError:
        raise AssertionError(f"{what}\nexpected: {expected.pattern}\nshown:\n{terminal.text()}") from None


def test_a_transcript_that_is_wrong_fails(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.integration.test_shell_transcripts.PATIENCE", 1.0)
    terminal = Terminal(fleet, tmp_path, "--no-pager", NO_COLOR="1")
    try:
        right, wrong = steps("tega> roots\nno roots\ntega> roots\nsome roots\n")
        _play(terminal, right, "")
        with pytest.raises(AssertionError, match="no roots"):
            _play(terminal, wrong, "")
    finally:
        terminal.close()


def test_the_story_is_long_enough() -> None:
    assert len(list(steps((TRANSCRIPTS / "operator.txt").read_text()))) >= 50
