"""The OpenVLA network, and the heads that read actions and values from its states."""
