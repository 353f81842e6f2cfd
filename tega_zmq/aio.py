"""The asyncio client: the names of `tega_zmq.connect` and what it returns, awaited."""

from tega_zmq.client.aio import Client, Connecting, Subscription, Transaction, connect

__all__ = ["Client", "Connecting", "Subscription", "Transaction", "connect"]
