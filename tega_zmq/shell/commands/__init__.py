"""All commands, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tega_zmq.shell.commands import (
    backups,
    data,
    documents,
    fleet,
    history,
    messages,
    schema,
    tagging,
    transactions,
)
from tega_zmq.shell.spec import Command

__all__ = ["COMMANDS"]

COMMANDS: Mapping[str, Command] = {
    command.name: command
    for module in (data, schema, transactions, history, tagging, messages, documents, backups, fleet)
    for command in module.COMMANDS
}
"""Every command that takes part in one-shots, scripts and the interactive shell."""
