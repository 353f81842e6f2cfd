"""What a node's program makes of the limit of file descriptors."""

from __future__ import annotations

import logging
import resource

import pytest

from tega_zmq.runtime.program import raise_descriptors

LOGGER = logging.getLogger("test")


@pytest.mark.parametrize(
    ("limits", "spare", "wanted"),
    [
        ((1024, 4096), 0, 4096),
        ((1024, 4096), 64, 4032),
        ((80, 80), 64, 70),
        ((4032, 4096), 64, 4032),
        ((1024, resource.RLIM_INFINITY), 64, (1 << 20) - 64),
    ],
)
def test_the_limit_is_raised_but_for_the_spare_ones(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], spare: int, wanted: int
) -> None:
    made = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: made[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: made.append(new))
    assert raise_descriptors(LOGGER, spare) == wanted
    assert made[-1] == (wanted, limits[1])


def test_a_limit_that_cannot_be_raised_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: int, new: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1 << 30))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptors(LOGGER, 64) == 1024
    assert "descriptor limit stays low" in caplog.text
