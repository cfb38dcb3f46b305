"""Policies behind a server: `--policy openpi://host:port`, `vla-eval://host:port`, `act://host:port`."""
