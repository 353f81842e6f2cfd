"""The immutable versioned tree."""

from __future__ import annotations

from tega_zmq.tree.changes import Difference, diff, diff_at
from tega_zmq.tree.node import (
    EMPTY,
    Node,
    attach,
    build,
    delete,
    detach,
    get,
    is_container,
    pairs,
    patch,
    plain,
    put,
)

__all__ = [
    "EMPTY",
    "Difference",
    "Node",
    "attach",
    "build",
    "delete",
    "detach",
    "diff",
    "diff_at",
    "get",
    "is_container",
    "pairs",
    "patch",
    "plain",
    "put",
]
