"""The `tega` command: one-shots, scripts and the interactive shell, all from one table of commands."""
