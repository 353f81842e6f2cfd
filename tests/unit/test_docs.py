"""The documents: links lead somewhere, samples are valid, the README's commands are those of `make run`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tega_broker import fleet
from tega_zmq.runtime.config import AgentConfig, BridgeConfig, BrokerConfig, load
from tega_zmq.runtime.schema import describe

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall((ROOT / document).read_text()) if name == language]


def anchors(text: str) -> set[str]:
    """What the headings of a document are called in links."""
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_readable(document: Path) -> None:
    for number, line in enumerate(document.read_text().splitlines(), 1):
        assert line == line.rstrip(), f"{document.name}:{number}: white space at the end"
        assert len(line) <= 120 or line.startswith("|") or "](" in line, f"{document.name}:{number}: too long"


def test_the_commands_of_the_readme_are_those_that_make_run_prints(tmp_path: Path) -> None:
    text = next(block for block in blocks("README.md", "sh") if "tega agents" in block)
    advice = fleet._advice(fleet.Fleet(ROOT / "conf" / "demo", tmp_path, 8740))
    printed = [line.split("  # ")[0].strip() for line in advice.splitlines() if "  # " in line]
    typed = [line.replace("ipc://var/", f"ipc://{tmp_path}/") for line in text.splitlines()]
    tega = re.compile(r"^\S*/bin/tega")
    assert [tega.sub("tega", line) for line in typed] == [tega.sub("tega", line) for line in printed]


def test_the_config_in_the_readme_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("README.md", "yaml")
    (tmp_path / "agent.yaml").write_text(text)
    config = load(AgentConfig, [str(tmp_path / "agent.yaml")])
    assert (config.config, config.operational) == (("config-pi1",), ("ops-pi1",))


def test_the_python_in_the_readme_is_python() -> None:
    for text in blocks("README.md", "python"):
        ast.parse(text)


def test_keys_that_the_documents_name_exist() -> None:
    known = {key.name for cls in (BrokerConfig, AgentConfig, BridgeConfig) for key in describe(cls)}
    sections = {name.split(".")[0] for name in known if "." in name}
    for document in DOCUMENTS:
        for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", document.read_text()):
            if name.split(".")[0] in sections and name.split(".")[1] not in ("py", "md", "yaml"):
                assert name in known, f"{document.name}: there is no key {name}"


def test_targets_that_the_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        for name in re.findall(r"`make ([a-z-]+)", document.read_text()):
            assert name in targets, f"{document.name}: there is no make {name}"
