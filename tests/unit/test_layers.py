"""The import rule of docs/architecture.md: lower layers never import upper ones, the core does no I/O."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tega_zmq

ROOT = Path(__file__).parents[2]
PACKAGES = {"tega_zmq": ROOT, "tega_broker": ROOT / "broker", "tega_agent": ROOT / "agents"}

MATCHING = ("tega_zmq.matching",)
"""Patterns and trees together."""

BASE = ("tega_zmq.errors", "tega_zmq.paths", "tega_zmq.values", "tega_zmq.patterns", "tega_zmq.version")
"""Layer 0."""

STATE = (
    "tega_zmq.sessions",
    "tega_zmq.transactions",
    "tega_zmq.subscriptions",
    "tega_zmq.calls",
    "tega_zmq.replica",
    "tega_zmq.schemas",
)
"""Layer 3."""

PROTOCOL = ("tega_zmq.client.protocol",)
"""The part of the client that the core uses: an agent's session at its uplink."""

WIRE = ("tega_zmq.wire",)
STORE = (*BASE, "tega_zmq.tree", "tega_zmq.store")
PURE = ("tega_zmq.client.results", "tega_zmq.client.subscriptions")
"""Parts of the client that do no I/O either."""

CORE = (*STORE, *MATCHING, *STATE, *WIRE, *PROTOCOL, "tega_zmq.node")

ALLOWED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(BASE, BASE),
    "tega_zmq.tree": (*BASE, "tega_zmq.tree"),
    "tega_zmq.store": STORE,
    **dict.fromkeys(MATCHING, (*BASE, "tega_zmq.tree")),
    **dict.fromkeys(STATE, (*STORE, *WIRE, *MATCHING, *STATE)),
    "tega_zmq.wire": (*BASE, *WIRE),
    **dict.fromkeys(PROTOCOL, (*BASE, *WIRE, *PROTOCOL)),
    "tega_zmq.node": CORE,
    "tega_zmq.log": (*STORE, "tega_zmq.log"),
    "tega_zmq.tunnel": (*BASE, *WIRE, "tega_zmq.tunnel"),
    "tega_zmq.client": (*BASE, *WIRE, "tega_zmq.tunnel", "tega_zmq.client"),
    "tega_zmq.graph": (*BASE, "tega_zmq.client"),
    "tega_zmq.aio": (*BASE, "tega_zmq.tunnel", "tega_zmq.client"),
    "tega_zmq.plugins": (*BASE, "tega_zmq.client", "tega_zmq.plugins"),
    "tega_zmq.check": (*STORE, "tega_zmq.log", "tega_zmq.runtime.yamlio", "tega_zmq.check"),
    "tega_zmq.runtime": (
        *CORE,
        "tega_zmq.log",
        "tega_zmq.client",
        "tega_zmq.plugins",
        "tega_zmq.tunnel",
        "tega_zmq.runtime",
    ),
    "tega_zmq.shell": (*BASE, "tega_zmq.client", "tega_zmq.runtime.yamlio", "tega_zmq.shell", "tega_zmq"),
    "tega_broker": ("tega_zmq", "tega_broker"),
    "tega_agent": ("tega_zmq", "tega_agent"),
    "tega_zmq": (
        "tega_zmq.version",
        "tega_zmq.errors",
        "tega_zmq.client",
        "tega_zmq.plugins",
        "tega_zmq.tunnel.urls",
    ),
}
"""What each module, or package, may import of the project; the longest name that fits counts."""

UNCLEAN = {
    "asyncio",
    "os",
    "random",
    "secrets",
    "select",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
}
UNCLEAN |= {
    "zmq",
    "selectors",
    "uuid",
    "tempfile",
    "shutil",
    "pathlib",
    "io",
    "queue",
    "multiprocessing",
    "logging",
}
"""I/O, clocks, threads and chance: not for the core."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the project, by name."""
    for package, folder in PACKAGES.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


ALL = dict(modules())


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that the file imports, wherever it does so, with the line. Names in it are resolved."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in ALL else node.module, node.lineno


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def rule(name: str) -> str:
    """The entry of `ALLOWED` that counts for a module."""
    if name == "tega_zmq":
        return name
    fits = [entry for entry in ALLOWED if entry != "tega_zmq" and within(name, entry)]
    assert fits, f"{name} has no place in the layers; give it one here and in docs/architecture.md"
    return max(fits, key=len)


def may(allowed: tuple[str, ...], imported: str) -> bool:
    """Whether `imported` is covered; the package tega_zmq itself, its front, only where it is named."""
    if imported == "tega_zmq":
        return "tega_zmq" in allowed
    return any(within(imported, entry) for entry in allowed if entry != "tega_zmq") or (
        "tega_zmq" in allowed and allowed[0] == "tega_zmq"
    )


def test_the_project_was_found() -> None:
    assert {
        "tega_zmq",
        "tega_zmq.errors",
        "tega_zmq.node",
        "tega_broker.main",
        "tega_agent.main",
    } <= ALL.keys()


@pytest.mark.parametrize("name", sorted(ALL))
def test_lower_layers_do_not_import_upper_ones(name: str) -> None:
    allowed = ALLOWED[rule(name)]
    for imported, line in imports(ALL[name]):
        if imported.split(".")[0] in PACKAGES:
            assert may(allowed, imported), f"{ALL[name]}:{line}: {name} may not import {imported}"


@pytest.mark.parametrize(
    "name", sorted(name for name in ALL if any(within(name, core) for core in (*CORE, *PURE)))
)
def test_the_core_does_no_io(name: str) -> None:
    for imported, line in imports(ALL[name]):
        top = imported.split(".")[0]
        assert top not in UNCLEAN, f"{ALL[name]}:{line}: the core may not import {imported}"
        # jsonschema and referencing fetch nothing with the registry that `schemas` gives them.
        others = ("tega_zmq", "rpds", "msgpack", "jsonschema", "referencing")
        known = top in sys.stdlib_module_names or top in others
        assert known, f"{ALL[name]}:{line}: the core imports {imported}, which no one has looked at"


def test_the_broker_and_the_agent_do_not_know_each_other() -> None:
    for name, path in ALL.items():
        other = {"tega_broker": "tega_agent", "tega_agent": "tega_broker"}.get(name.split(".")[0])
        for imported, line in imports(path):
            assert other is None or not within(imported, other), f"{path}:{line}: {name} imports {imported}"


def test_only_the_bridge_needs_what_its_extra_installs() -> None:
    for name, path in ALL.items():
        inside = within(name, "tega_broker.bridge")
        for imported, line in imports(path):
            assert inside or imported.split(".")[0] != "aiohttp", f"{path}:{line}: {name} imports {imported}"
            assert inside or not within(imported, "tega_broker.bridge"), (
                f"{path}:{line}: {name} imports {imported}"
            )


def test_a_forbidden_import_is_found(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    import time\n    from tega_zmq.node import machine\n")
    assert dict(imports(file)) == {"time": 2, "tega_zmq.node.machine": 3}
    assert not may(ALLOWED["tega_zmq.tree"], "tega_zmq.node.machine")
    assert not may(ALLOWED["tega_zmq.tree"], "tega_zmq")
    assert may(ALLOWED["tega_broker"], "tega_zmq.node.machine")


def test_no_module_hides_a_name_of_the_package() -> None:
    assert not [name for name in tega_zmq.__all__ if f"tega_zmq.{name}" in ALL]
