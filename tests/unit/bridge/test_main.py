"""The program around the bridge."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Iterator

import pytest

from tega_broker.bridge import main
from tega_zmq.runtime.config import BridgeConfig, load


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector is afterwards as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
def test_the_collector_does_not_look_at_each_large_body(monkeypatch: pytest.MonkeyPatch) -> None:
    class Serving:
        url = "http://127.0.0.1:1"

        def reload(self) -> None:
            """Nothing to do."""

        async def stop(self) -> None:
            """Nothing to do."""

    async def serve(*_: object) -> Serving:
        os.kill(os.getpid(), signal.SIGTERM)
        return Serving()

    monkeypatch.setattr(main, "serve", serve)
    config = load(BridgeConfig, (), {}, [])
    assert asyncio.run(main._run(config, logging.getLogger("tega"))) == 0
    assert gc.get_threshold()[0] >= 10_000
    assert gc.get_freeze_count() > 0
