"""`Versions` against a dict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega_zmq.store.versions import Versions


@given(st.integers(0, 100), st.integers(1, 200), st.integers(1, 100))
def test_it_is_a_dict_of_the_last_versions(start: int, count: int, kept: int) -> None:
    versions: Versions[str] = Versions()
    model: dict[int, str] = {}
    before = []
    for version in range(start, start + count):
        before.append((versions, dict(model)))
        versions = versions.add(version, f"v{version}", version - kept + 1)
        model[version] = f"v{version}"
        model.pop(version - kept, None)
        assert len(versions) == len(model)
    before.append((versions, model))
    for each, meant in before:  # those before are as they were
        assert list(each) == list(meant)
        for version in range(start - 2, start + count + 2):
            assert each.get(version) == meant.get(version)
            assert (version in each) == (version in meant)
            if version in meant:
                assert each[version] == meant[version]


def test_two_branches_do_not_see_each_other() -> None:
    common: Versions[int] = Versions()
    for version in range(100):
        common = common.add(version, version)
    left, right = common.add(100, -1), common.add(100, -2)
    assert (left[100], right[100], 100 in common) == (-1, -2, False)
    assert left != right
    assert left == common.add(100, -1)
    assert left != [*left]


def test_a_gap_is_refused() -> None:
    versions = Versions[str]().add(7, "seven")
    with pytest.raises(ValueError, match="version 9 cannot come after 7"):
        versions.add(9, "nine")
    with pytest.raises(KeyError):
        versions[8]
    assert "7" not in versions


def test_what_is_let_go_of_is_not_held_for_long() -> None:
    versions: Versions[int] = Versions()
    for version in range(1000):
        versions = versions.add(version, version, version - 9)
    assert list(versions) == list(range(990, 1000))
    assert len(versions._chunks) <= 2
