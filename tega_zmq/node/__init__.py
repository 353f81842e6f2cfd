"""The node: broker and agent are this machine, without and with an uplink."""

from tega_zmq.node.state import Node, Settings

__all__ = ["Node", "Settings"]
