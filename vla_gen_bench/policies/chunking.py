"""Turns chunks into control steps: queries the policy for K actions, executes some of them, queries again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_gen_bench.policies.contract import check_actions
from vla_gen_bench.protocol import Observation, Policy


class ChunkRunner:
    """Returns one action per control step for a batch in lock-step, and checks every chunk.

    Steps between two queries are executed open-loop: the policy sees no observation. The unused rest of a chunk
    (`execute` < K) is dropped, not blended.

        runner.reset(instructions, seeds)
        for step in range(horizon):
            actions = runner.next_actions(observe() if runner.needs_observation else None)

    Args:
        policy: A loaded policy; its `action_spec` gives K and the execution horizon.
        label: Its name in errors, `Card.label`.
    """

    def __init__(self, policy: Policy, label: str) -> None:
        self.policy = policy
        self.label = label
        self.spec = policy.action_spec
        self._batch = 0
        self._queue: list[np.ndarray] = []

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        """Starts a new batch and drops queued actions of the previous one."""
        self._batch = len(instructions)
        self._queue = []
        self.policy.reset(instructions, seeds)

    @property
    def needs_observation(self) -> bool:
        """True if the next `next_actions` will query the policy; if False, rendering can be skipped."""
        return not self._queue

    def next_actions(self, observation: Observation | None) -> np.ndarray:
        """Returns float32 [B, 7] for the current control step.

        Args:
            observation: Of the current step; may be None if `needs_observation` is False.

        Raises:
            PolicyError: The policy returned something other than valid float32 [B, K, 7].
        """
        if not self._queue:
            self._queue = self._query(observation)
        return self._queue.pop(0)

    def _query(self, observation: Observation | None) -> list[np.ndarray]:
        """Returns the next actions to execute, each [B, 7], copied because a policy may reuse its output array."""
        if observation is None:
            raise ValueError("the chunk is used up: next_actions() needs the present observation")
        actions = self.policy.act(observation)
        check_actions(self.label, actions, self._batch, self.spec)
        actions = np.asarray(actions)  # strips array subclasses
        return [actions[:, k].copy() for k in range(self.spec.execution_horizon)]
