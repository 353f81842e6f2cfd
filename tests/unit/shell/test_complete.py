from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

import pytest

from tega_zmq.errors import Timeout
from tega_zmq.paths import Path
from tega_zmq.shell.commands import COMMANDS
from tega_zmq.shell.complete import FRESH, PATIENCE, Live, candidates

TREE: dict[str, Any] = {
    "config-pi1": {"net": {"eth0": {"mtu": 1}, "eth0.100": {"vlan": 100}, "wlan0": {}}, "name": "pi1"},
    "config-pi2": {},
    "odd one": {'say "hi"': 1},
}


class Tree:
    def children(self, path: Path) -> Sequence[tuple[str, bool]]:
        value: Any = TREE
        for oid in path:
            if not isinstance(value, dict) or oid not in value:
                return []
            value = value[oid]
        return (
            [(oid, isinstance(child, dict)) for oid, child in value.items()]
            if isinstance(value, dict)
            else []
        )

    def handlers(self) -> Sequence[str]:
        return ["ops-pi1.net.restart", "tools.add"]

    def channels(self) -> Sequence[str]:
        return ["alerts", "alarm"]

    def versions(self, root: str) -> Sequence[str]:
        return {"config-pi1": ["golden", "12", "11", "1"], "odd one": ["3"]}.get(root, [])


def offered(line: str, others: Sequence[str] = ()) -> list[str]:
    start, found = candidates(line, COMMANDS, Tree(), others)
    assert line[start:].strip() == line[start:]  # the last word, whole
    return [each.text for each in found]


def test_commands() -> None:
    assert offered("pu") == ["pub", "put", "pute"]
    assert "get" in offered("")
    assert offered("qu", ["quit"]) == ["quit"]
    assert offered("zzz") == []


def test_calls() -> None:
    assert offered("tools.") == ["tools.add("]
    assert offered("ops") == ["ops-pi1.net.restart("]
    assert offered("get tools.a") == []


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", ["config-pi1", "config-pi2", '"odd one"']),
        ("con", ["config-pi1", "config-pi2"]),
        ("config-pi1", ["config-pi1."]),
        ("config-pi1.", ["config-pi1.name", "config-pi1.net"]),
        ("config-pi1.ne", ["config-pi1.net"]),
        ("config-pi1.net", ["config-pi1.net."]),
        ("config-pi1.net.", ["config-pi1.net.eth0", 'config-pi1.net."eth0.100"', "config-pi1.net.wlan0"]),
        ("config-pi1.net.eth0", ["config-pi1.net.eth0", 'config-pi1.net."eth0.100"']),
        ('config-pi1.net."eth0.1', ['config-pi1.net."eth0.100"']),
        ('config-pi1.net."eth0.100".', ['config-pi1.net."eth0.100".vlan']),
        ('config-pi1.net."eth0.100"', ['config-pi1.net."eth0.100".']),
        ('"odd o', ['"odd one"']),
        ('"odd one"."say', ['"odd one"."say \\"hi\\""']),
        ("config-pi1.name", ["config-pi1.name"]),
        ("config-pi1.name.", []),
        ("nothing.", []),
        ("a..b", []),
        ("config-pi1@", [f"config-pi1@{each}" for each in ("golden", "12", "11", "1")]),
        ("config-pi1.net.eth0@1", [f"config-pi1.net.eth0@{each}" for each in ("12", "11", "1")]),
        ('"odd one"@', ['"odd one"@3']),
        ("nothing@", []),
        ("@", []),
    ],
)
def test_paths(typed: str, expected: list[str]) -> None:
    assert offered(f"get {typed}") == expected


def test_versions_and_transactions() -> None:
    assert offered("rollback config-pi1 ") == ["golden", "12", "11", "1"]
    assert offered("rollback config-pi1 --dry-run g") == ["golden"]
    assert offered("rollback nope ") == offered("rollback a..b ") == []
    assert offered("diff config-pi1@1 config-pi1@g") == ["config-pi1@golden"]
    assert offered("put config-pi1@") == []
    assert offered("tag config-pi1@1") == ["config-pi1@12", "config-pi1@11", "config-pi1@1"]
    assert offered("tag config-pi1@12 ") == offered("untag config-pi1 ") == ["golden"]
    _, found = candidates("use ", COMMANDS, Tree(), (), ["one", "other"])
    assert [each.text for each in found] == ["one", "other"]


def test_a_leaf_is_complete_and_a_container_is_not() -> None:
    _, found = candidates("get config-pi1.n", COMMANDS, Tree())
    assert [(each.display, each.final) for each in found] == [("name", True), ("net.", False)]


@pytest.mark.parametrize("command", ["rollback", "undo", "tag", "untag", "tags", "disown"])
def test_a_root_is_complete(command: str) -> None:
    def found(word: str) -> list[tuple[str, str, bool]]:
        return list(map(tuple, candidates(f"{command} {word}", COMMANDS, Tree())[1]))

    one, other = (("config-pi1",) * 2 + (True,), ("config-pi2",) * 2 + (True,))
    assert found("con") == [one, other]
    assert found("config-pi1") == [one]
    assert found('"odd one') == found('"odd one"') == [('"odd one"', '"odd one"', True)]
    assert found("config-pi1.") == found("config-pi1.n") == []


def test_options_and_their_values() -> None:
    assert offered("put a.b --") == ["--help", "--json", "--message", "--version"]
    assert offered("put a.b --version ab") == ["absent"]
    assert offered("put a.b --version absent --") == ["--help", "--json", "--message"]
    assert offered("put a.b -m 'x y' --v") == ["--version"]
    assert offered("put --message why con") == ["config-pi1", "config-pi2"]
    assert offered("put a.b con") == []  # a value
    assert offered("put a.b --message con") == []
    assert offered("clear --y") == ["--yes"]


def test_other_arguments(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered("pub al") == ["alarm", "alerts"]
    assert offered("rollback con") == ["config-pi1", "config-pi2"]
    assert offered("rollback config-pi1.n") == []
    assert offered("get a ") == []
    assert offered("nope con") == []
    (tmp_path / "site.yaml").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "folder").mkdir()
    assert offered(f"import {tmp_path}/") == [f"{tmp_path}/folder/", f"{tmp_path}/site.yaml"]
    assert offered(f"import {tmp_path}/.h") == [f"{tmp_path}/.hidden"]
    assert offered(f"import {tmp_path}/no/such/") == []
    monkeypatch.chdir(tmp_path)
    assert offered("export . si") == ["site.yaml"]


class Asked:
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.fail = False

    def inspect(self, what: str, *, timeout: float) -> Any:
        return self._answer(what, timeout, [{"root": "r"}] if what == "roots" else {f"{what}.x": ["y"]})

    def oids(self, path: Path, *, timeout: float) -> Any:
        return self._answer(path, timeout, [("x", True)])

    def _answer(self, what: Any, timeout: float, answer: Any) -> Any:
        assert timeout == PATIENCE
        self.asked.append(what)
        if self.fail:
            raise Timeout("no answer")
        return answer


def test_live_answers_are_kept_for_a_while() -> None:
    client, now = Asked(), [0.0]
    live = Live(client, lambda: now[0])  # type: ignore[arg-type]
    assert list(live.children(())) == [("r", True)]
    assert list(live.children(("r",))) == [("x", True)]
    assert list(live.handlers()) == ["handlers.x"]
    assert list(live.channels()) == ["channels.x"]
    live.children(("r",))
    assert client.asked == ["roots", ("r",), "handlers", "channels"]
    now[0] = FRESH + 1
    live.children(("r",))
    assert client.asked[4:] == [("r",)]


def test_a_node_that_does_not_answer_is_not_asked_at_every_key() -> None:
    client = Asked()
    client.fail = True
    live = Live(client, lambda: 0.0)  # type: ignore[arg-type]
    assert list(live.children(("r",))) == []
    assert list(live.children(("r",))) == []
    assert client.asked == [("r",)]


def test_the_kept_answers_are_bounded() -> None:
    client = Asked()
    live = Live(client, lambda: 0.0)  # type: ignore[arg-type]
    for number in range(1000):
        live.children((f"r{number}",))
    assert len(live._kept) < 300
