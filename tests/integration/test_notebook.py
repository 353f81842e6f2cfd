"""docs/notebook.ipynb: it runs from the first cell to the last, and shows what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def cells(text: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each cell printed or showed, by its source; run in a kernel, in another process."""
    folder = tmp_path_factory.mktemp("notebook")
    made = folder / "made.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", str(NOTEBOOK), "--output", str(made)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(ROOT / each) for each in ("", "broker", "agents")),
            "JUPYTER_PLATFORM_DIRS": "1",
            **{f"JUPYTER_{each}_DIR": str(folder / each) for each in ("CONFIG", "DATA", "RUNTIME")},
            "IPYTHONDIR": str(folder / "ipython"),
            "MPLCONFIGDIR": str(folder / "matplotlib"),
        },
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {"".join(cell["source"]): cell["outputs"] for cell in cells(made.read_text())}


def shown(outputs: dict[str, list[dict[str, Any]]], source: str, kind: str) -> str:
    """What the cell that ends with `source` shows as `kind`."""
    (found,) = [each for text, each in outputs.items() if text.endswith(source)]
    (data,) = [each["data"][kind] for each in found if kind in each.get("data", {})]
    return "".join(data)


def test_it_is_kept_without_outputs() -> None:
    for cell in cells(NOTEBOOK.read_text()):
        assert not cell["outputs"] and cell["execution_count"] is None, cell["source"]


def test_trees_logs_and_differences_show_themselves(outputs: dict[str, list[dict[str, Any]]]) -> None:
    tree = shown(outputs, 'tega.node("config-pi1")', "text/html")
    assert "<details open>" in tree and "one cable is enough" in tree and "version 3" in tree
    log = shown(outputs, 'tega.log("config-pi1")', "text/html")
    assert log.count("<tr>") == 5 and "jumbo frames" in log and "noc-1" in log
    assert "noc-1" in shown(outputs, 'tega.blame("config-pi1")', "text/html")
    assert "9000" in shown(outputs, 'tega.diff("config-pi1", 0, 2)', "text/html")
    assert "back to 1" in shown(outputs, 'tega.log("config-pi1", 2)', "text/html")
    assert "no differences" in shown(outputs, 'tega.diff("config-pi1", 1)', "text/html")


def test_the_graph_is_a_picture(outputs: dict[str, list[dict[str, Any]]]) -> None:
    assert len(shown(outputs, "draw(edges);", "image/png")) > 10_000


def test_a_tag_is_listed(outputs: dict[str, list[dict[str, Any]]]) -> None:
    assert "two-cables" in shown(outputs, 'tega.tags("config-pi1")', "text/plain")


def test_nothing_goes_wrong(outputs: dict[str, list[dict[str, Any]]]) -> None:
    for source, found in outputs.items():
        assert not [each for each in found if each.get("name") == "stderr"], source
    assert shown(outputs, "\nstatus", "text/plain") == "0"
