"""`make run` with real programs: what is killed comes back, what ends by itself is told."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tega_broker.fleet import Fleet
from tega_broker.processes import Ended
from tega_broker.story import free_pair
from tests.processes import until

CONF = Path(__file__).parents[2] / "conf" / "demo"


def test_what_is_killed_is_started_again_and_has_everything() -> None:
    said: list[str] = []
    # The path of a socket is short.
    with (
        tempfile.TemporaryDirectory(prefix="tega-") as folder,
        Fleet(CONF, Path(folder), free_pair()) as fleet,
    ):
        fleet.start()
        with fleet.connect("noc") as noc:
            noc.put("config-pi1.x", 1)
            fleet.tend(said.append)
            assert said == []
            for name, program in (("broker", fleet.broker), ("pi1", fleet.agents["pi1"])):
                assert program.pid is not None
                os.kill(program.pid, signal.SIGKILL)
                until(lambda program=program: program.was_killed)  # type: ignore[misc]
                fleet.tend(said.append)
                assert said == [f"{name} was killed. Starting it again ...", f"{name} is back."]
                said.clear()
                fleet.await_agents(noc)
                assert noc.get("config-pi1.x") == 1
        fleet.agents["pi2"].ask_to_stop()
        until(lambda: fleet.agents["pi2"].pid is None)
        with pytest.raises(Ended, match="pi2 ended with status 0"):
            fleet.tend(said.append)
