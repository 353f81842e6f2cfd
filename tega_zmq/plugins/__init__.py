"""Plugins: classes of Python with handlers and subscriptions, run beside a node.

What a plugin's author needs is here; the host that runs plugins is `tega_zmq.plugins.host`.
"""

from tega_zmq.plugins.base import Change, Plugin, on_change, rpc

__all__ = ["Change", "Plugin", "on_change", "rpc"]
