"""Schemas at a real broker, in the shell, and at an agent that has a replica of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tega_zmq import errors
from tests.processes import Fleet, until

MTU = {"type": "object", "properties": {"mtu": {"type": "integer", "maximum": 9216}}}


def test_a_schema_holds_across_a_crash(fleet: Fleet) -> None:
    noc = fleet.client("noc")
    noc.put("config-pi1.net.eth0", {"mtu": 1500})
    noc.put(("_schema", r"config-.*\.net\..*"), MTU, message="no jumbo surprises")
    fleet.broker.kill()
    fleet.broker.start()
    with pytest.raises(errors.InvalidValue, match=r"config-pi1\.net\.eth0\.mtu: 10000 is greater"):
        noc.put("config-pi1.net.eth0.mtu", 10_000)
    with noc.transaction() as tx:
        tx.put("config-pi1.net.eth0.mtu", 10_000)
        (problem,) = tx.check()
        assert isinstance(problem, errors.InvalidValue)
        tx.put("config-pi1.net.eth0.mtu", 9000)
        assert tx.check() == []
    assert noc.get("config-pi1.net.eth0.mtu") == 9000
    assert [each.message for each in noc.log("_schema")] == ["no jumbo surprises"]


def test_an_agent_with_a_replica_of_them_obeys_them_offline(fleet: Fleet) -> None:
    noc = fleet.client("noc")
    noc.put(("_schema", r"ops-pi1\.load"), {"type": "number"})
    agent = fleet.agent("pi1", config="[_schema]", operational="[ops-pi1]")
    agent.start()
    local = fleet.client("local", at="pi1")
    until(lambda: local.get("_schema"), "the schemas came")
    fleet.broker.stop()
    local.put("ops-pi1.load", 0.5)
    with pytest.raises(errors.InvalidValue, match=r"ops-pi1\.load: 'much' is not of type 'number'"):
        local.put("ops-pi1.load", "much")


def test_the_shell_sets_shows_lists_and_deletes(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "mtu.json"
    file.write_text(json.dumps(MTU))

    def tega(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "tega_zmq.shell.main", "-s", fleet.url, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    assert tega("schema")[:2] == (0, "no schemas\n")
    assert tega("put", "config-pi1.net.eth0", "{mtu: 10000}")[0] == 0
    status, _, err = tega("schema", r"config-.*\.net\..*", "--file", str(file))
    assert status == 1 and err.startswith("InvalidValue: config-pi1.net.eth0.mtu: 10000 is greater than")
    assert tega("put", "config-pi1.net.eth0", "{mtu: 1500}")[0] == 0
    assert tega("schema", r"config-.*\.net\..*", "--file", str(file), "-m", "why")[0] == 0
    assert tega("schema", "--json") == (0, json.dumps({r"config-.*\.net\..*": MTU}) + "\n", "") or json.loads(
        tega("schema", "--json")[1]
    ) == {r"config-.*\.net\..*": MTU}
    assert json.loads(tega("schema", r"config-.*\.net\..*", "--json")[1]) == MTU
    assert tega("put", "config-pi1.net.eth0", "{mtu: 10000}")[0] == 1
    assert tega("schema", r"config-.*\.net\..*", "--delete")[0] == 0
    assert tega("put", "config-pi1.net.eth0", "{mtu: 10000}")[0] == 0
    assert tega("schema", "a", "{type: object}", "--delete")[0] == 2
