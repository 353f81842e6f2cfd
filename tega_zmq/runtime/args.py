"""The command line that all daemons share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TypeVar

from tega_zmq.runtime import config
from tega_zmq.runtime.config import AgentConfig, BridgeConfig, BrokerConfig, ConfigError
from tega_zmq.version import __version__

__all__ = ["parse", "parser", "refuse"]

C = TypeVar("C", BrokerConfig, AgentConfig, BridgeConfig)


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """The arguments of a daemon."""
    made = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Every config key can also be given in the environment: TEGA_A__B=c sets a.b. Flags win over "
        "the environment, the environment over files. Exit status: 0 stopped in order, 1 failed, 2 wrong "
        "usage or configuration.",
        allow_abbrev=False,
    )
    made.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML file with the configuration; of several, the later win; without one, defaults",
    )
    made.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="set one key, for example --set session.lease=30; VALUE is YAML",
    )
    made.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], help="as --set log_level="
    )
    made.add_argument("--log-format", choices=["text", "json"], help="as --set log_format=")
    made.add_argument("--version", action="version", version=f"{program} {__version__}")
    return made


def parse(
    cls: type[C],
    program: str,
    description: str,
    argv: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    keys: Sequence[str] = (),
) -> C:
    """Return the configuration that command line, environment and files make.

    `argv` and `environment`: None for those of the process. `keys`: those that have a flag of their own,
    `--KEY VALUE`. A mistake is said in one line on stderr, with
    exit status 2 (`SystemExit`).
    """
    made = parser(program, description)
    for name in keys:
        made.add_argument(f"--{name}", metavar="URL", help=f"as --set {name}=")
    given = made.parse_args(argv)
    flags = list(given.set)
    flags += [f"{name}={getattr(given, name)}" for name in keys if getattr(given, name) is not None]
    if given.log_level is not None:
        flags.append(f"log_level={given.log_level}")
    if given.log_format is not None:
        flags.append(f"log_format={given.log_format}")
    try:
        return config.load(cls, given.config, os.environ if environment is None else environment, flags)
    except ConfigError as error:
        refuse(program, error)
        raise SystemExit(2) from None


def refuse(program: str, error: Exception) -> None:
    """Say on stderr, in one line, why the program does not start."""
    line = " ".join(str(error).split())
    print(f"{program}: {line}", file=sys.stderr)  # noqa: T201 - before there are log lines
