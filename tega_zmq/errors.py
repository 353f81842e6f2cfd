"""The error tree.

Every error that a user of tega can meet is a `TegaError`. Its class name is its code on the wire, on the
bridge and in the shell; what a program may want to know besides the message stands in named fields, which
are attributes of the exception. `encode` and `decode` turn an error into plain values and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "Cancelled",
    "Collision",
    "Compacted",
    "Disconnected",
    "Forbidden",
    "HandlerError",
    "HandlerGone",
    "InvalidPath",
    "InvalidValue",
    "MixedOwners",
    "NoHandler",
    "NotFound",
    "Offline",
    "OwnerAway",
    "ProtocolError",
    "ReadOnly",
    "StorageError",
    "TakenOver",
    "TegaError",
    "Timeout",
    "TooLarge",
    "TransactionExpired",
    "Unauthorized",
    "decode",
    "encode",
    "text_of",
]


class TegaError(Exception):
    """Base of all errors of tega.

    `message` says what was wrong, where, and what to do. Keyword arguments fill the fields that the class
    names in `fields`; a field that is not given is None.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        unknown = fields.keys() - set(self.fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        for name in self.fields:
            setattr(self, name, fields.get(name))

    @property
    def code(self) -> str:
        """The name of the error on the wire: its class name."""
        return type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return (decode, encode(self))


class NotFound(TegaError):
    """Nothing stands at `path` (at `version`, where one was named)."""

    fields = ("path", "version")
    path: str | None
    version: int | None


class InvalidPath(TegaError):
    """`path` is no path, or may not be used in this place."""

    fields = ("path",)
    path: str | None


class InvalidValue(TegaError):
    """A value, or an argument, that cannot be accepted; `path` says where in the value."""

    fields = ("path",)
    path: str | None


class TooLarge(TegaError):
    """Something exceeds a limit: `size` and `limit` in the unit that the message names."""

    fields = ("path", "size", "limit")
    path: str | None
    size: int | None
    limit: int | None


class Collision(TegaError):
    """The node at `path` is not at the version that the write expects.

    `expected` and `actual` are versions, or "absent".
    """

    fields = ("path", "expected", "actual")
    path: str | None
    expected: int | str | None
    actual: int | str | None


class TransactionExpired(TegaError):
    """`txid` names no open transaction: it ended, was idle for too long, or never was."""

    fields = ("txid",)
    txid: str | None


class MixedOwners(TegaError):
    """`path` belongs to `owner`, the transaction so far to `other`: one transaction, one owner."""

    fields = ("path", "owner", "other")
    path: str | None
    owner: str | None
    other: str | None


class ReadOnly(TegaError):
    """`root` cannot be written or claimed here; `owner` says who owns it."""

    fields = ("root", "owner")
    root: str | None
    owner: str | None


class TakenOver(TegaError):
    """Another program said hello as `tega_id`; this session is over and does not come back by itself."""

    fields = ("tega_id",)
    tega_id: str | None


class Offline(TegaError):
    """The agent has no link to the node that owns `root`."""

    fields = ("root",)
    root: str | None


class OwnerAway(TegaError):
    """`owner`, the agent that owns `root`, is not connected."""

    fields = ("root", "owner")
    root: str | None
    owner: str | None


class NoHandler(TegaError):
    """Nobody offers a handler at `path`."""

    fields = ("path",)
    path: str | None


class HandlerGone(TegaError):
    """The session `tega_id` that was to answer the call at `path` is not connected any more.

    `outcome`: "none" if the call was not handed to it.
    """

    fields = ("path", "tega_id", "outcome")
    path: str | None
    tega_id: str | None
    outcome: str | None


class HandlerError(TegaError):
    """The handler at `path` raised: `type` is the name of its exception class, `text` its message."""

    fields = ("path", "type", "text", "tega_id")
    path: str | None
    type: str | None
    text: str | None
    tega_id: str | None


class Timeout(TegaError):
    """No answer before the deadline.

    `outcome`: "unknown", or "committed" if the write is done but this node does not show it yet.
    """

    fields = ("outcome",)
    outcome: str | None


class Cancelled(TegaError):
    """The caller gave the call up."""


class Unauthorized(TegaError):
    """The peer did not prove to be `tega_id`."""

    fields = ("tega_id",)
    tega_id: str | None


class Forbidden(TegaError):
    """`tega_id` lacks the right for `action` at `path`."""

    fields = ("path", "action", "tega_id")
    path: str | None
    action: str | None
    tega_id: str | None


class Disconnected(TegaError):
    """The session ended before the answer came. `outcome`: "unknown", or "none" if nothing was done."""

    fields = ("outcome",)
    outcome: str | None


class ProtocolError(TegaError):
    """A peer sent what the protocol does not allow."""


class StorageError(TegaError):
    """The log cannot take the write; the node serves reads until an operator acts.

    `reason` is what the disk said. `outcome`: "none" if nothing was written, else "unknown".
    """

    fields = ("reason", "outcome")
    reason: str | None
    outcome: str | None


class Compacted(TegaError):
    """`version` of `root` is no longer kept; `oldest` is the oldest one that is."""

    fields = ("root", "version", "oldest")
    root: str | None
    version: int | None
    oldest: int | None


_CLASSES: list[type[TegaError]] = [TegaError, *TegaError.__subclasses__()]
_BY_CODE: Mapping[str, type[TegaError]] = {cls.__name__: cls for cls in _CLASSES}


def encode(error: TegaError) -> tuple[str, str, dict[str, Any]]:
    """Return `(code, message, fields)`; fields that are None are left out."""
    fields = {name: getattr(error, name) for name in error.fields if getattr(error, name) is not None}
    return error.code, error.message, fields


def decode(code: str, message: str, fields: Mapping[str, Any]) -> TegaError:
    """Return the error that `encode` took apart.

    A code that this version does not know becomes a plain `TegaError` that names it; fields that it does
    not know are left out. So a newer peer can be understood.
    """
    cls = _BY_CODE.get(code)
    if cls is None:
        return TegaError(f"{code}: {message}")
    return cls(message, **{name: fields[name] for name in cls.fields if name in fields})


def text_of(error: BaseException) -> str:
    """Return the message of `error`, as valid Unicode, whatever its class is like. Raises nothing.

    The errors of handlers and plugins are code of others, their `__str__` too.
    """
    try:
        return str.encode(str(error), errors="replace").decode()
    except BaseException as fault:  # noqa: BLE001 - it runs where an error is being told already
        return f"its message cannot be read: {type(fault).__name__}"
