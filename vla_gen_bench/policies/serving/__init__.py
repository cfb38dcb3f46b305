"""`vgb serve`: this project's policies for others' harnesses, over the same protocols that `policies.remote` speaks."""
