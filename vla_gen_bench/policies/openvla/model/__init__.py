"""The network of OpenVLA, and what reads actions and values off its states."""
