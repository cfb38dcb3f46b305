"""`vgb serve`: serves this project's policies to other harnesses, over the protocols of `policies.remote`."""
