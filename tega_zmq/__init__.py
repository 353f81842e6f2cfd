"""tega: one versioned tree of configuration and state for a fleet of small devices.

The names below are loaded when they are first used, so that `import tega_zmq` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tega_zmq.version import __version__

if TYPE_CHECKING:
    from tega_zmq.client.blocking import Client, Subscription, Transaction, connect
    from tega_zmq.client.cont import Cont
    from tega_zmq.client.results import (
        Blame,
        Blamed,
        CandidateView,
        Change,
        Committed,
        Difference,
        Differences,
        Edge,
        Edges,
        Found,
        FoundNodes,
        Log,
        LogEntry,
        MessageView,
        NodeView,
    )
    from tega_zmq.errors import (
        Cancelled,
        Collision,
        Compacted,
        Disconnected,
        Forbidden,
        HandlerError,
        HandlerGone,
        InvalidPath,
        InvalidValue,
        MixedOwners,
        NoHandler,
        NotFound,
        Offline,
        OwnerAway,
        ProtocolError,
        ReadOnly,
        StorageError,
        TakenOver,
        TegaError,
        Timeout,
        TooLarge,
        TransactionExpired,
        Unauthorized,
    )
    from tega_zmq.plugins import Plugin, on_change, rpc
    from tega_zmq.tunnel.urls import Tls

__all__ = [
    "Blame",
    "Blamed",
    "Cancelled",
    "CandidateView",
    "Change",
    "Client",
    "Collision",
    "Committed",
    "Compacted",
    "Cont",
    "Difference",
    "Differences",
    "Disconnected",
    "Edge",
    "Edges",
    "Forbidden",
    "Found",
    "FoundNodes",
    "HandlerError",
    "HandlerGone",
    "InvalidPath",
    "InvalidValue",
    "Log",
    "LogEntry",
    "MessageView",
    "MixedOwners",
    "NoHandler",
    "NodeView",
    "NotFound",
    "Offline",
    "OwnerAway",
    "Plugin",
    "ProtocolError",
    "ReadOnly",
    "StorageError",
    "Subscription",
    "TakenOver",
    "TegaError",
    "Timeout",
    "Tls",
    "TooLarge",
    "Transaction",
    "TransactionExpired",
    "Unauthorized",
    "__version__",
    "connect",
    "on_change",
    "rpc",
]

_BLOCKING = "tega_zmq.client.blocking"
_RESULTS = "tega_zmq.client.results"
_PLUGINS = "tega_zmq.plugins"
_HOME = {
    "Blame": _RESULTS,
    "Blamed": _RESULTS,
    "CandidateView": _RESULTS,
    "Change": _RESULTS,
    "Client": _BLOCKING,
    "Committed": _RESULTS,
    "Cont": "tega_zmq.client.cont",
    "Difference": _RESULTS,
    "Differences": _RESULTS,
    "Edge": _RESULTS,
    "Edges": _RESULTS,
    "Found": _RESULTS,
    "FoundNodes": _RESULTS,
    "Log": _RESULTS,
    "LogEntry": _RESULTS,
    "MessageView": _RESULTS,
    "NodeView": _RESULTS,
    "Plugin": _PLUGINS,
    "Subscription": _BLOCKING,
    "Tls": "tega_zmq.tunnel.urls",
    "Transaction": _BLOCKING,
    "connect": _BLOCKING,
    "on_change": _PLUGINS,
    "rpc": _PLUGINS,
}
"""Where each name lives; what is not here is an error."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "tega_zmq.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
