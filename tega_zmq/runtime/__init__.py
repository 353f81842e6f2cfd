"""What every program needs: configuration, log lines, arguments, the loop that drives a node."""
