"""What holds for all tests: benches and soaks run only when named, and CI lets nothing be skipped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.processes import release_ports

MACHINE = "machine: "
"""A skip whose reason begins so is accepted everywhere: it names what this machine cannot do."""

settings.register_profile("tega", deadline=None, print_blob=True)
settings.load_profile("tega")

_skipped: list[str] = []

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and programs that the tests start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _ports() -> Iterator[None]:
    """The ports that a test reserves are its own until it ends."""
    yield
    release_ports()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help=f"fail if a test was skipped, unless the reason begins '{MACHINE}'",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `bench` or `soak`, unless -m asks for marks."""
    if config.option.markexpr:
        return
    kept = [item for item in items if not any(item.get_closest_marker(name) for name in ("bench", "soak"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _note(report.nodeid, why)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _note(report.nodeid, why)


def _note(name: str, why: str) -> None:
    why = why.removeprefix("Skipped: ")
    if not why.startswith(MACHINE):
        _skipped.append(f"{name}: {why}")


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[Any]:
    result = yield
    if _skipped and session.config.getoption("--no-skips") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _skipped and terminalreporter.config.getoption("--no-skips"):
        terminalreporter.section("skipped, which CI does not accept", red=True)
        for line in _skipped:
            terminalreporter.write_line(line)
