"""What stands at a path now, as a method under `on_change` sees it."""

from __future__ import annotations

from typing import Any, NamedTuple

from tega_zmq import paths
from tega_zmq.errors import NotFound

__all__ = ["Present", "check_heard", "read", "without_handlers"]


class Present(NamedTuple):
    """The present value at a path, and where it stands in the history."""

    there: bool
    value: Any
    version: int | None
    epoch: str


def check_heard(client: Any, path: str) -> None:
    """Raise `RuntimeError` if no change at `path` reaches this node, though it can be read through."""
    uplink = client.inspect("status").get("uplink")
    if uplink is None:
        return
    root = paths.parse(path)[0]
    if root not in {entry["root"] for kind in ("config", "operational") for entry in uplink[kind]}:
        raise RuntimeError(
            f"{paths.format_path((root,))} is not listed under `config` in the config of this agent, so its"
            " changes are not heard and nothing is applied; list it, and restart the agent"
        )


def read(client: Any, path: str, *, regex: bool) -> Present:
    """Return what stands at `path`, value and version read in one request. Raises what the client raises."""
    if regex:
        found = {at: without_handlers(value) for at, value in _matches(client, path)}
        return Present(bool(found), found or None, None, "")
    try:
        node = client.node(path)
    except NotFound:
        return Present(False, None, None, "")
    version = node.version
    if version is None or version < 0:
        # Only handlers are offered below: a read shows them in place, but there is no node.
        return Present(False, None, None, "")
    return Present(True, without_handlers(node.value), version, str(getattr(node, "epoch", "") or ""))


def _matches(client: Any, regex: str) -> list[tuple[str, Any]]:
    return [(match[0], match[2]) for match in client.find(regex)]


def without_handlers(value: Any) -> Any:
    """Return `value` without the handlers that a read shows in place as `%tega_id.oid`.

    They come and go with sessions and are no change of the tree. A dict of nothing but handlers goes too.
    """
    if type(value) is not dict:
        return value
    kept: dict[str, Any] = {}
    for oid, child in value.items():
        if _is_handler(oid, child):
            continue
        if type(child) is dict and child:
            child = without_handlers(child)
            if not child:
                continue
        kept[oid] = child
    return kept


def _is_handler(oid: str, child: Any) -> bool:
    if type(child) is str:
        return child.startswith("%") and child.endswith("." + oid)
    return type(child) is list and bool(child) and all(type(c) is str and _is_handler(oid, c) for c in child)
