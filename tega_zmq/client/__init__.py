"""The client: a session's rules without I/O, and the blocking and the asyncio client that run them."""
