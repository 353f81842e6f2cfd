"""A broker, a site's gateway below it, a leaf below that, as processes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tega_zmq import errors
from tests.processes import Fleet, until


def entry(client: Any, kind: str, root: str) -> dict[str, Any]:
    """What the client's node says of one root in its status."""
    found = [each for each in client.inspect("status")["uplink"][kind] if each["root"] == root]
    return found[0] if found else {}


def test_a_leaf_below_a_site_is_part_of_the_fleet(fleet: Fleet) -> None:
    site = fleet.agent("site")
    leaf = fleet.agent("leaf", uplink=f"[{fleet.socket('site')}]")
    site.start()
    leaf.start()
    noc, local, prog = fleet.client("noc"), fleet.client("local", at="site"), fleet.client("prog", at="leaf")
    until(lambda: entry(prog, "operational", "ops-leaf").get("accepted"), "the top has said yes")
    noc.put("config-leaf.net", {"mtu": 1500})
    until(lambda: prog.get("config-leaf.net.mtu") == 1500, "the config is at the leaf")
    began = time.monotonic()
    prog.put("config-leaf.net.mtu", 9000)
    assert time.monotonic() - began < 5, "answered when the replica shows it, not at its deadline"
    assert noc.get("config-leaf.net.mtu") == 9000 == prog.get("config-leaf.net.mtu")
    assert noc.log("config-leaf")[0].tega_id == "site/leaf/prog"
    assert entry(local, "config", "config-leaf")["for"] == ["leaf"]

    prog.put("ops-leaf.load", 1)
    until(lambda: noc.get("ops-leaf.load") == 1, "the leaf's root is at the top")
    noc.put("ops-leaf.load", 2)
    assert prog.get("ops-leaf.load") == 2
    assert prog.log("ops-leaf")[0].tega_id == "site/gateway/noc"
    assert {each["root"]: each["owner"] for each in noc.inspect("roots")}["ops-leaf"] == "site"
    prog.register("ops-leaf.echo", lambda value: value)
    until(lambda: noc.call("ops-leaf.echo", 0) == 0 or None, "a call goes down both levels")

    leaf.kill()
    until(lambda: local.inspect("agents")[0]["state"] != "connected", "the site has seen it")
    with pytest.raises(errors.OwnerAway):
        noc.put("ops-leaf.load", 7)
    site.kill()
    fleet.broker.kill()
    for path in sorted(leaf.folder.rglob("*"), reverse=True):
        path.unlink() if not path.is_dir() else path.rmdir()
    fleet.broker.start()
    before = until(lambda: noc.node("ops-leaf"))
    site.start()
    leaf.start()
    late = fleet.client("late", at="leaf")
    until(lambda: late.get("config-leaf.net.mtu") == 9000, "the new card has its config")
    until(lambda: late.put("ops-leaf.load", 100))
    until(lambda: noc.get("ops-leaf.load") == 100, "and its root is at the top")
    after = noc.node("ops-leaf")
    assert after.epoch != before.epoch and after.version > before.version
