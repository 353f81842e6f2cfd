"""The bridge: HTTP and WebSocket for those who cannot speak ZeroMQ. An ordinary client of the broker."""
