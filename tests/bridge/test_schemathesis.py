"""The description of the REST interface is true: schemathesis, which reads nothing else, finds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bridgekit import site

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    seed = os.environ.get("SCHEMATHESIS_SEED", "1")  # always the same one, unless others are tried by hand
    with site(tmp_path) as bridge:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
                *(f"{bridge.url}/_openapi.json", "--checks", "all", "--max-examples", "8", "--seed", seed),
                *("--generation-database", "none", "--request-timeout", "30", "--no-color"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=250,
        )
    assert done.returncode == 0, f"SCHEMATHESIS_SEED={seed}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
