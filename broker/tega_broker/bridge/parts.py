"""What is plugged into the bridge beside REST: each part has a function `routes(bridge)`."""

from __future__ import annotations

from tega_broker.bridge import pubsub, tunnel
from tega_broker.bridge.app import Bridge
from tega_broker.bridge.events import Streams

__all__ = ["add_parts"]


def add_parts(bridge: Bridge) -> None:
    """Add the routes of every part to `bridge`."""
    bridge.add(tunnel.routes(bridge))
    bridge.add(pubsub.routes(bridge))
    Streams(bridge)
