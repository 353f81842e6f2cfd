"""One broker and bridge for the tests that leave it as they found it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridgekit import Site, site

_names = itertools.count()


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A broker and its bridge, shared by the tests of a module."""
    folder: Path = tmp_path_factory.mktemp("bridge")
    with site(folder) as made:
        yield made


@pytest.fixture
def root() -> str:
    """A root that no other test has."""
    return f"root{next(_names)}"
