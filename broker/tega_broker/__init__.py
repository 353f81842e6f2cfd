"""The programs of the gateway: the broker, and the fleet on one machine to try it with."""
