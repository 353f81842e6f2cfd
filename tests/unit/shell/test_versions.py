"""Versions and times as they are typed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tega_zmq.shell.versions import moment, reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("-1", -1),
        ("golden", "golden"),
        ("v1.2_rc-3", "v1.2_rc-3"),
        ("2026-11-20", "2026-11-20"),
        ("2026-11-20T12:00", "2026-11-20T12:00"),
        ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z"),
    ],
)
def test_references(text: str, expected: int | str) -> None:
    assert reference(text) == expected


@pytest.mark.parametrize("text", ["", "1x", "-", "a b", "_x", "2026-13-20", "2026-11-20T25:00", "x" * 65])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (version|time)"):
        reference(text)


def test_moments() -> None:
    assert moment("2026-11-20T12:00:00Z") == datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
    assert moment("2026-11-20T14:00+02:00") == moment("2026-11-20T12:00:00Z")
    assert moment("2026-11-20") == datetime(2026, 11, 20).timestamp()  # noqa: DTZ001 - local time is meant
    for text, seconds in (
        ("90s", 90),
        ("30min", 1800),
        ("30m", 1800),
        ("2h", 7200),
        ("3d", 259_200),
        ("1w", 604_800),
    ):
        assert moment(text, lambda: 1e9) == 1e9 - seconds


@pytest.mark.parametrize("text", ["", "now", "2h30", "12:00", "2026-02-30", "9999999d"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        moment(text)
