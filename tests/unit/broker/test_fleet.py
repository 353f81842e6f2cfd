"""`make run`: what it refuses, what it seeds. That the fleet runs is seen by `make demo`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, cast

import pytest

from tega_broker import fleet
from tega_broker.processes import free_port
from tega_zmq import Client
from tega_zmq.errors import InvalidValue
from tega_zmq.paths import check
from tega_zmq.runtime import yamlio

CONF = Path(__file__).parents[3] / "conf"


class Store:
    """As much of a client as seeding needs."""

    def __init__(self, **roots: Any) -> None:
        self.roots = roots

    def inspect(self, what: str) -> list[dict[str, Any]]:
        assert what == "roots"
        return [{"root": name} for name in self.roots]

    def put(self, path: tuple[str], value: Any, *, version: str, message: str) -> None:
        assert version == "absent"
        assert path[0] not in self.roots
        assert message == "seeded from demo.yaml"
        self.roots[path[0]] = value


def seed(store: Store, document: Path = CONF / "demo.yaml") -> list[str]:
    return fleet.seed(cast("Client", store), document)


def test_only_roots_that_are_absent_are_seeded() -> None:
    store = Store(inventory={"mine": 1})
    assert seed(store) == ["config-common", "config-gateway", "config-pi1", "config-pi2"]
    assert store.roots["inventory"] == {"mine": 1}
    assert store.roots["config-pi1"]["hostname"] == "pi1"
    assert seed(store) == []


def test_a_broken_document_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(InvalidValue, match=r"demo\.yaml:2: the key 'a' stands twice"):
        seed(Store(), tmp_path / "demo.yaml")


def test_the_demo_is_a_small_network_that_a_node_accepts() -> None:
    roots = yamlio.load_file(CONF / "demo.yaml")
    leaves: list[tuple[str, ...]] = []

    def walk(value: Any, path: tuple[str, ...]) -> None:
        check(path)
        if isinstance(value, dict):
            for oid, child in value.items():
                walk(child, (*path, oid))
        else:
            assert value is None or isinstance(value, (bool, int, float, str, list))
            leaves.append(path)

    for root, value in roots.items():
        assert isinstance(value, dict)
        walk(value, (root,))
    assert len(leaves) >= 300
    assert any("eth0.100" in path for path in leaves)


def test_a_port_in_use_is_refused_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for offset in (0, 1, -1):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1] - offset
            assert fleet.main(["--port", str(port), "--data", str(tmp_path / "var")]) == 1
        assert "is in use" in (said := capsys.readouterr().err)
        assert f"make run PORT={port + 1000}" in said
    assert not (tmp_path / "var").exists()


def test_a_folder_without_the_demo_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fleet.main(["--port", str(free_port()), "--conf", str(tmp_path), "--data", str(tmp_path)]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_waiting_names_what_did_not_come_true() -> None:
    assert fleet.wait_until("now", lambda: True) < 5
    with pytest.raises(TimeoutError, match="after 0 seconds still not: never"):
        fleet.wait_until("never", lambda: False, seconds=0)


def test_the_advice_is_ready_to_be_typed(tmp_path: Path) -> None:
    made = fleet.Fleet(CONF / "demo", tmp_path / "v", 8740)
    advice = fleet._advice(made)
    assert f"-s ipc://{tmp_path}/v/pi1/agent.sock get config-pi1.interfaces.eth0" in advice
    assert "tcp://127.0.0.1:8740" in advice
    assert " -s tcp" not in advice
    assert " -s tcp://127.0.0.1:9740 agents" in fleet._advice(
        fleet.Fleet(CONF / "demo", tmp_path / "v", 9740)
    )
