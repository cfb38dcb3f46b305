"""Converters between the benchmark's and a policy's conventions: small wrappers that a card composes in YAML.

    adapter:
      - resize: {height: 224, width: 224, method: lanczos}
      - jpeg: {quality: 95}
      - unnormalise: {file: stats.json, key: bridge_orig}
      - rotation: {given: axis_angle}
      - gripper: {closed: 0, open: 1, binarise: true}

They are applied in the order listed: to the observation before the policy, to the actions after it.
"""

from vla_gen_bench.policies.converters.adapted import Adapted, needs_with
from vla_gen_bench.policies.converters.compose import CONVERTERS, parse_adapter

__all__ = ["CONVERTERS", "Adapted", "needs_with", "parse_adapter"]
