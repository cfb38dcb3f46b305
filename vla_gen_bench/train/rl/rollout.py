"""Collects experience: episodes in lanes, one batched policy, every image, action, log-probability and reward.

The result does not depend on the workers, nor on the loss of some: lanes are filled in episode order, and every draw
of a token is keyed by (run seed, iteration, episode, step).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vla_gen_bench.errors import UserError
from vla_gen_bench.train.resize import shifted
from vla_gen_bench.train.rl.actor_critic import ActorCritic, Sampling
from vla_gen_bench.train.rl.simulators import KEPT_INFOS, Seen, Simulator
from vla_gen_bench.train.rl.state_numbers import NUMBERS
from vla_gen_bench.train.starts import UNSHIFTED, Start


@dataclass
class Rollout:
    """B episodes of T decisions of K control steps each.

    Attributes:
        images: uint8 [T, B, H, W, 3], what the policy saw, as `View` keeps it.
        resized: Whether they already have the model's size.
        prompts: Token ids of the B instructions.
        tokens: int64 [T, B, 7 K], action token ids.
        log_probs: float32 [T, B, 7 K].
        values: float32 [T + 1, B], the last row is after the last step; zeros without a critic that reads images.
        rewards: float32 [T, B, K].
        states: float32 [T K + 1, B, NUMBERS], the simulator's state before the first control step and after each, if
            the critic reads it; else None.
        flags: "success" (at the end), "success_once", "held_ever" -> bool [B].
        digests: Digests of the B specs.
        seconds: Wall time "waiting" for the simulator, in the "policy", and in "total"; "sim" is the time that all
            workers spent together.
    """

    images: np.ndarray
    squashed: bool
    prompts: list[list[int]]
    tokens: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray
    rewards: np.ndarray
    flags: dict[str, np.ndarray]
    digests: tuple[str, ...]
    states: np.ndarray | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def empty(cls, chosen: Sequence[Start], prompts: list[list[int]], decisions: int, chunk: int, view) -> Rollout:
        """Returns an empty one."""
        count, slots = len(chosen), 7 * chunk
        return cls(
            images=np.empty((decisions, count, *view.shape), np.uint8),
            squashed=view.side is not None,
            prompts=prompts,
            tokens=np.empty((decisions, count, slots), np.int64),
            log_probs=np.empty((decisions, count, slots), np.float32),
            values=np.zeros((decisions + 1, count), np.float32),
            rewards=np.empty((decisions, count, chunk), np.float32),
            flags={name: np.zeros(count, bool) for name in KEPT_INFOS},
            digests=tuple(start.spec.digest() for start in chosen),
            states=np.empty((decisions * chunk + 1, count, NUMBERS), np.float32) if view.states else None,
            seconds={"waiting": 0.0, "policy": 0.0, "sim": 0.0, "total": 0.0},
        )

    @property
    def returns(self) -> np.ndarray:
        """float64 [B], undiscounted."""
        return self.rewards.sum(axis=(0, 2), dtype=np.float64)

    @property
    def env_steps(self) -> int:
        return self.rewards.size


@dataclass
class _Running:
    """A part of the episodes in a lane: their indices, and the number of decisions made."""

    rows: range
    decisions: int = 0


class Collector:
    """Runs episodes with the current policy.

    Args:
        horizon: Control steps of an episode; all of them run, even after success.

    Raises:
        UserError: The horizon is not a multiple of the policy's chunk.
    """

    def __init__(self, simulator: Simulator, actor: ActorCritic, horizon: int) -> None:
        if horizon % actor.chunk:
            raise UserError(f"horizon: {horizon} is no multiple of the chunk, {actor.chunk}")
        self.simulator, self.actor = simulator, actor
        self.decisions = horizon // actor.chunk

    def collect(self, chosen: Sequence[Start], sampling: Sampling, foresee: bool = False) -> Rollout:
        """Runs the episodes.

        Args:
            foresee: Also compute the critic's value after the last step.

        Raises:
            UserError: Workers were lost again and again.
        """
        began = time.perf_counter()
        prompts = [self.actor.processor.tokenizer.prompt(start.spec.instruction) for start in chosen]
        rollout = Rollout.empty(chosen, prompts, self.decisions, self.actor.chunk, self.simulator.view)
        width = self.simulator.width
        parts = deque(range(first, min(first + width, len(chosen))) for first in range(0, len(chosen), width))
        lanes: dict[int, _Running] = {}
        for lane in range(self.simulator.lanes):
            self._begin(lane, parts, lanes, chosen)
        while lanes:
            for lane, running in list(lanes.items()):
                seen = self._wait(lane, rollout)
                self._note(rollout, running, seen)
                last = running.decisions == self.decisions
                if not last or foresee:  # a last query only yields the critic's value
                    self._decide(lane, running, seen, rollout, chosen, sampling, last)
                if last:
                    del lanes[lane]
                    self._begin(lane, parts, lanes, chosen)
        rollout.seconds["total"] = time.perf_counter() - began
        return rollout

    def _begin(self, lane: int, parts: deque[range], lanes: dict[int, _Running], chosen: Sequence[Start]) -> None:
        if parts:
            lanes[lane] = _Running(parts.popleft())
            self.simulator.reset(lane, [chosen[row] for row in lanes[lane].rows])

    def _wait(self, lane: int, rollout: Rollout) -> Seen:
        start = time.perf_counter()
        seen = self.simulator.result(lane)
        rollout.seconds["waiting"] += time.perf_counter() - start
        rollout.seconds["sim"] += seen.busy_s
        return seen

    @staticmethod
    def _note(rollout: Rollout, running: _Running, seen: Seen) -> None:
        """Keeps what the last decision brought; after a reset only the state."""
        rows, done = slice(running.rows.start, running.rows.stop), running.decisions
        if done:
            rollout.rewards[done - 1, rows] = seen.rewards
            for name in KEPT_INFOS:
                rollout.flags[name][rows] = seen.infos[name]
        if rollout.states is not None:
            states = seen.infos["states"].swapaxes(0, 1)
            last = done * rollout.rewards.shape[2]
            rollout.states[last + 1 - len(states) : last + 1, rows] = states

    def _decide(
        self, lane: int, running: _Running, seen: Seen, rollout: Rollout, chosen: Sequence[Start],
        sampling: Sampling, last: bool,
    ) -> None:  # fmt: skip
        """Queries the policy; after the last step only its value is used."""
        start, t, rows = time.perf_counter(), running.decisions, slice(running.rows.start, running.rows.stop)
        images = seen.images.copy()
        for image, row in zip(images, running.rows, strict=True):
            if chosen[row].shift != UNSHIFTED:
                image[:] = shifted(image, chosen[row].shift)
        inputs = self.actor.look(images, rollout.prompts[rows], rollout.squashed)
        keys = [chosen[row].key for row in running.rows]
        decision = self.actor.act(inputs, keys, [t] * len(keys), sampling)
        if decision.values is not None:
            rollout.values[t, rows] = decision.values
        if not last:
            self.simulator.step(lane, decision.actions)
            rollout.images[t, rows] = images
            rollout.tokens[t, rows], rollout.log_probs[t, rows] = decision.tokens, decision.log_probs
            running.decisions += 1
        rollout.seconds["policy"] += time.perf_counter() - start
