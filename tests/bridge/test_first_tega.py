"""What the first tega's driver for Python sends, and what its test-suite expects.

`Driver` makes the same requests as that driver did, one for one: the query, the slashes, the bodies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.bridgekit import Answer, Site, site

HEADERS = {"content-type": "application/json", "accept-encoding": "gzip, deflate"}


class Refused(Exception):
    """A status that is no success."""


class Driver:
    """The requests of the first driver."""

    def __init__(self, bridge: Site, tega_id: str) -> None:
        self.bridge = bridge
        self.tega_id = tega_id
        self.txid: str | None = None

    def _ask(self, method: str, target: str, value: Any = ..., /, **query: Any) -> Answer:
        given = {name: item for name, item in query.items() if item is not None and item is not False}
        target = f"{target}?{urlencode(given)}" if given else target
        body = None if value is ... else json.dumps(value).encode()
        answer = self.bridge.ask(method, target, body=body, headers=HEADERS)
        if not 200 <= answer.status < 300:
            raise Refused(answer.status, answer.json["error"])
        return answer

    @staticmethod
    def _url(path: str) -> str:
        return "/" + path.replace(".", "/") + "/"

    def put(self, path: str, value: Any, version: int | None = None, ephemeral: bool = False) -> None:
        self._ask(
            "PUT",
            self._url(path),
            value,
            txid=self.txid,
            version=version,
            tega_id=self.tega_id,
            ephemeral=ephemeral,
        )

    def delete(self, path: str, version: int | None = None) -> None:
        self._ask("DELETE", self._url(path), txid=self.txid, version=version, tega_id=self.tega_id)

    def get(
        self, path: str, version: int | None = None, internal: bool = False, regex_flag: bool = False
    ) -> Any:
        return self._ask(
            "GET",
            self._url(path),
            txid=self.txid,
            version=version,
            tega_id=self.tega_id,
            internal=internal,
            regex_flag=regex_flag,
        ).json

    def begin(self) -> str:
        self.txid = self._ask("POST", "/_begin", tega_id=self.tega_id).json["txid"]
        return self.txid

    def cand(self) -> Any:
        return self._ask("POST", "/_cand", txid=self.txid, internal=False).json

    def commit(self) -> None:
        txid, self.txid = self.txid, None
        self._ask("POST", "/_commit", txid=txid)

    def cancel(self) -> None:
        self._ask("POST", "/_cancel", txid=self.txid)
        self.txid = None

    def rollback(self, root: str, backto: int) -> None:
        self._ask("POST", "/_rollback", root_oid=root, backto=backto)

    def command(self, name: str, **query: Any) -> Any:
        return self._ask("GET", f"/_{name}", **query).json

    def manage(self, name: str, **query: Any) -> Answer:
        return self._ask("POST", f"/_{name}", **query)

    def rpc(self, path: str, *args: Any, **kwargs: Any) -> Any:
        body: Any = {name: item for name, item in (("args", args), ("kwargs", kwargs)) if item}
        return self._ask("POST", "/_rpc", body or ..., tega_id=self.tega_id, path=path).json["result"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("first")) as made:
        yield made


@pytest.fixture
def driver(shared: Site) -> Iterator[Driver]:
    made = Driver(shared, "driver_g")
    yield made
    made.manage("clear")


def refused(what: Any, *arguments: Any, **more: Any) -> int:
    with pytest.raises(Refused) as raised:
        what(*arguments, **more)
    return int(raised.value.args[0])


def test_clear_roots_log_and_old(driver: Driver) -> None:
    driver.put("a.b.c", 1)
    driver.manage("clear")
    assert driver.command("log") == [] and driver.command("roots") == {} and driver.command("old") == []
    driver.put("a.b.c", 1)
    driver.put("x", {"y": {"z": 2}})
    assert driver.command("roots") == {"a": 0, "x": 0}
    driver.put("a.b.C", 3)
    driver.put("x.y.Z", 4)
    driver.put("a.B.C", 5)
    assert driver.command("old") == [{"a": [0, 1]}, {"x": [0]}]
    assert driver.manage("ss", tega_id=driver.tega_id).status == 200
    assert driver.manage("sync").status == 200
    for name in ("channels", "subscribers", "ids", "global", "forwarders", "plugins"):
        assert isinstance(driver.command(name), (dict, list))


def test_values(driver: Driver) -> None:
    for path, value, read in (
        ("a.b.c", 0, 0),
        ("a", {"b": {"c": "0"}}, "0"),
        ("a.b", {"c": "1"}, "1"),
        ("a.b.c", [1, 2, 3], [1, 2, 3]),
        ("a.b.c", {"x": 1, "y": {"z": "2"}}, {"x": 1, "y": {"z": "2"}}),
    ):
        driver.put(path, value)
        assert driver.get("a.b.c") == read
    driver.delete("a.b.c")
    assert refused(driver.get, "a.b.c") == 404


def test_versions_and_rollback(driver: Driver) -> None:
    driver.put("a.b.c", 0)
    assert refused(driver.put, "a.b.c", 1, version=1) == 409
    assert refused(driver.delete, "a.b.c", version=1) == 409
    assert refused(driver.get, "a.b.c", version=1) == 404
    driver.put("a.b.c", 1, version=0)
    assert (driver.get("a.b.c", version=0), driver.get("a.b.c", version=1)) == (0, 1)
    driver.rollback("a", -1)
    assert driver.get("a.b.c") == 0
    assert driver.get("a.b.c", internal=True)["_value"] == 0


def test_transactions(driver: Driver) -> None:
    assert isinstance(driver.begin(), str)
    driver.cancel()
    driver.begin()
    driver.put("a.b.c", "Paris")
    assert refused(driver.get, "a.b.c") == 404
    assert driver.cand() == {"a": {"b": {"c": "Paris"}}}
    driver.commit()
    assert driver.get("a.b.c") == "Paris"


def test_edges(driver: Driver) -> None:
    for oid, first in (("a", 1), ("b", 4)):
        driver.begin()
        driver.put(f"r.{oid}", {"x": first, "y": first + 1, "z": first + 2})
        driver.commit()
    edges = {"-".join(edge) for edge in driver.command("edges", old_roots=True)}
    leaves = {f"r.{oid}({v})-r.{oid}.{leaf}({v})" for oid, v in (("a", 0), ("b", 1)) for leaf in "xyz"}
    leaves |= {"-".join(reversed(edge.split("-"))) for edge in leaves}
    present = {"r(1)-r.b(1)", "r.b(1)-r(1)", "r(1)-r.a(0)", "r.a(0)-r(0)", *leaves}
    assert edges == {*present, "r(0)-r.a(0)"}
    assert {"-".join(edge) for edge in driver.command("edges", old_roots=False)} == present
    assert {"-".join(edge) for edge in driver.command("edges", root_oid="r")} == present


def test_calls_and_regexes(driver: Driver, shared: Site) -> None:
    client = shared.client("plugin")
    client.register("inventory.ne1.f1", lambda a, b: b)
    assert driver.rpc("inventory.ne1.f1", 1, 2) == 2
    assert driver.rpc("inventory.ne1.f1", 1, b=3) == 3
    driver.put("r.pi1.net", {"mtu": 1})
    driver.put("r.pi2.net", {"mtu": 2})
    assert driver.get(r"r\.pi(\d)\.net", regex_flag=True) == {
        "r.pi1.net": {"groups": [["1"]], "instance": {"mtu": 1}},
        "r.pi2.net": {"groups": [["2"]], "instance": {"mtu": 2}},
    }


def test_the_name_in_the_history_is_the_drivers(driver: Driver, tmp_path: Path) -> None:
    driver.put("a.b", 1)
    assert driver.command("log")[0]["tega_id"] == "driver_g"
