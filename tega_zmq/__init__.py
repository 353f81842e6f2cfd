"""tega: one versioned tree of configuration and state for a fleet of small devices."""
