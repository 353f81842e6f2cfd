"""Two operators at two terminals, as in the sessions of the first tega: collisions, messages, who goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE, Fleet, until
from tests.terminal import Terminal


@pytest.fixture
def pair(fleet: Fleet, tmp_path: Path) -> Iterator[tuple[Terminal, Terminal]]:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    made = [
        Terminal(fleet, folder, "-t", f"noc-{folder.name}", "--no-pager", NO_COLOR="1") for folder in folders
    ]
    for terminal in made:
        terminal.prompt()
    yield made[0], made[1]
    for terminal in made:
        assert "Traceback" not in terminal.raw
        terminal.close()


def test_who_commits_second_collides(pair: tuple[Terminal, Terminal]) -> None:
    one, two = pair
    one.line("put a {x: 1, y: 2}", "a@0")
    one.line("begin mine", "transaction mine")
    two.line("begin yours", "transaction yours")
    one.line("put a.x 10 --version 0", "tega (transaction mine)>")
    two.line("put a.x 20 --version 0", "tega (transaction yours)>")
    two.line("check", "it would commit")
    one.line("commit", "a@1")
    two.line("check", "Collision")
    two.line("commit", "Collision: a.x is at version 1")
    two.line("get a.x", "10")


def test_changes_and_messages_reach_the_other(pair: tuple[Terminal, Terminal]) -> None:
    one, two = pair
    two.line("sub a", "tega>")
    two.line(r"subr alerts\..*", "tega>")
    one.line("put a.x 1 --message 'why not'", "a@0")
    two.see('a: {"x": 1}  (@0 by noc-one: why not)')
    one.line("pub a {level: 3}", "sent to 1")
    two.see('a: {"level": 3}  (from noc-one)')
    one.line("pub alerts.disk full", "sent to 1")
    two.see("alerts.disk: full  (from noc-one)")
    one.line("rollback a 0", "nothing changed")
    one.line("del a.x", "a@1")
    two.see("a.x: deleted, was 1")


def test_what_is_ephemeral_goes_with_its_shell(pair: tuple[Terminal, Terminal], fleet: Fleet) -> None:
    one, two = pair
    one.line("pute here.one {since: 1}", "here@0")
    two.line("get here", "since: 1")
    one.type("quit\r")
    assert one.process.wait(PATIENCE) == 0
    looker = fleet.client("looker")
    until(lambda: "here" not in [each["root"] for each in looker.inspect("roots")], "it is gone")
    two.line("get here", "NotFound")
