"""docs/shell.md tells of every command, and what it shows is typed correctly."""

from __future__ import annotations

import re
from pathlib import Path as File

import pytest

from tega_zmq.shell.commands import COMMANDS
from tega_zmq.shell.lexer import split
from tega_zmq.shell.literals import looks_like_call, parse_call
from tega_zmq.shell.spec import build_parser, convert

PAGE = (File(__file__).parents[3] / "docs" / "shell.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_page(name: str) -> None:
    assert re.search(rf"`{name}[ `]", PAGE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_page(name: str) -> None:
    for argument in COMMANDS[name].arguments:
        if argument.option:
            assert argument.name in PAGE or argument.short in PAGE


def test_the_examples_can_be_typed() -> None:
    typed = [
        example.partition("tega> ")[2] or example
        for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
        for example in block.splitlines()
    ]
    typed += [example for command in COMMANDS.values() for example in command.examples]
    known = 0
    for line in typed:
        if looks_like_call(line):
            assert parse_call(line).path
            known += 1
        elif (words := [word.text for word in split(line)]) and words[0] in COMMANDS:
            command = COMMANDS[words[0]]
            convert(command, build_parser(command).parse(words[1:]), typed=True)
            known += 1
    assert known > 30
