"""`Expert`: the policy around the phases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_gen_bench.envs.privileged import PrivilegedState
from vla_gen_bench.policies.expert.motion import Limits, action_towards
from vla_gen_bench.policies.expert.phases import Memory, decide
from vla_gen_bench.protocol import ACTION_DIMS, ActionSpec, Observation

NOISE_STREAM = 0xE4BE  # separates this policy's draws from others keyed by the episode's seed
NOISE_SIGMA = np.array([0.004] * 3 + [0.0, 0.0, 0.04, 0.0])  # metres, radians


class Expert:
    """Picks up the target and puts it on the receptacle, in closed loop with a new observation at every step.

    Needs `Observation.privileged`, one `PrivilegedState` per episode; ignores image and instruction. Goals depend on
    the *measured* pose, not on the commanded one, which no image shows; the actions can therefore serve as labels. The
    gripper closes for `close_steps` steps without motion. Deterministic: an episode's actions depend on the states seen
    since `reset`, and with `noise` also on the episode's seed.

    Args:
        noise: Scale of Gaussian noise added to each action: 4 mm along x, y and z, and 0.04 rad about z, at 1.0.
        gain: Fraction of the remaining distance that one step commands. The arm lags its command by about a step, so
            above 0.6 it overshoots.
        step: Largest horizontal and largest vertical translation of one step before noise, metres.
        turn: Largest rotation of one step before noise, radians.
        close_steps: Steps spent closing. The fingers close within the first step; later frames look like those of the
            following lift, so labels for imitation need 1.
    """

    def __init__(
        self, noise: float = 0.0, gain: float = 0.45, step: float = 0.025, turn: float = 0.30, close_steps: int = 3
    ) -> None:
        self.action_spec = ActionSpec()
        self._close_steps = close_steps
        self._noise = noise
        self._limits = Limits(gain=gain, step_m=step, step_rad=turn)
        self._rows: list[tuple[Memory, np.random.Generator]] = []

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        self._rows = [(Memory(self._close_steps), np.random.default_rng((NOISE_STREAM, seed))) for seed in seeds]

    def act(self, observation: Observation) -> np.ndarray:
        if observation.privileged is None:
            raise ValueError("the expert needs the simulator's state; its card must say `privileged: true`")
        pairs = zip(self._rows, observation.privileged, strict=True)
        actions = np.stack([self._act(memory, noise, state) for (memory, noise), state in pairs])
        return actions.astype(np.float32).reshape(len(actions), 1, ACTION_DIMS)

    @property
    def phases(self) -> list[str]:
        """Each episode's phase at the last `act`, for debugging failures."""
        return [memory.phase for memory, _ in self._rows]

    def _act(self, memory: Memory, noise: np.random.Generator, state: PrivilegedState) -> np.ndarray:
        goal = decide(memory, state)
        action = action_towards(state, goal.position, goal.rotation, goal.gripper, self._limits)
        return action + self._noise * NOISE_SIGMA * noise.standard_normal(ACTION_DIMS)
