"""Actors on the nodes of a Ray cluster: simulators with their own policy, or policies that serve many simulators."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorUnavailableError

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval import ray_node
from vla_gen_bench.eval.workers import Job, WorkerConfig, policy_facts
from vla_gen_bench.protocol import EXTERNAL, ActionSpec, Needs, Observation

BACK_S = 120.0  # how long simulators wait for a policy actor to restart
MOST_INSTANCES = 100_000


class Messages:
    """Replaces a worker's pipe: keeps the last message, and the time of the last control step."""

    def __init__(self) -> None:
        self.value = time.monotonic()

    def send(self, message: Any) -> None:
        self.value = time.monotonic()


class Simulator:
    """A worker: environments, and its own policy or a handle to one that serves many.

    Args:
        config: As for a worker process.
        ours, folder: See `ray_node.admit`.
        served: The `PolicyHost` actor, if policies run separately.
    """

    def __init__(self, config: WorkerConfig, ours: dict[str, Any], folder: str, served: Any = None) -> None:
        self._config, self._ours, self._folder, self._served = config, ours, folder, served
        self._messages, self._runner = Messages(), None

    def start(self) -> tuple[str, Any]:
        """Returns ("ready", facts about policy and backend) or ("refused", the reason, with the node's name)."""
        try:
            policy = None if self._served else (self._config.policy, self._config.options)
            ray_node.admit(self._ours, self._config.world, self._folder, self._config.threads, policy)
            self._runner = self._build()
        except UserError as error:
            return "refused", f"{error} (node {ray_node.node()})"
        return "ready", self._runner.describe()

    def _build(self) -> Any:
        from vla_gen_bench.eval.workers import make_runner
        from vla_gen_bench.policies.registry import load_policy, resolve

        card = resolve(self._config.policy)
        policy = Served(self._served) if self._served else load_policy(card, **self._config.options)
        return make_runner(self._config, card, policy, self._messages)

    def run(self, jobs: Sequence[Job]) -> tuple[str, Any]:
        self._messages.send(None)
        return self._runner.run(jobs)

    @ray.method(concurrency_group="watch")
    def idle_s(self) -> float:
        """Seconds since the last control step; also answered while `run` computes."""
        return time.monotonic() - self._messages.value


class PolicyHost:
    """One copy of a policy that acts for many simulators; requests that wait together are computed as one batch.

    Args:
        config: As for a worker process.
        ours, folder: See `ray_node.admit`.
        batch: Maximum number of observations computed at once.
    """

    def __init__(self, config: WorkerConfig, ours: dict[str, Any], folder: str, batch: int) -> None:
        from vla_gen_bench.policies.registry import load_policy, resolve
        from vla_gen_bench.policies.serving.engine import Engine

        self._sessions: dict[int, Any] = {}
        self._problem, self._engine, self._task = "", None, None
        try:
            ray_node.admit(ours, config.world, folder, config.threads, (config.policy, config.options))
            card = resolve(config.policy)
            needs = Needs.from_json(config.sensors)
            self._engine = Engine(
                lambda: load_policy(card, **config.options), card.label, needs, batch, instances=MOST_INSTANCES
            )
        except UserError as error:
            self._problem = f"{error} (node {ray_node.node()})"

    async def describe(self) -> tuple[str, Any]:
        """Returns ("ready", the policy's spec and what the log records of it) or ("refused", the reason)."""
        if self._problem:
            return "refused", self._problem
        return "ready", {"spec": self._engine.policy.action_spec, "facts": policy_facts(self._engine.policy)}

    async def begin(self, ended: Sequence[int], instructions: Sequence[str], seeds: Sequence[int]) -> list[int]:
        """Starts an episode for each instruction; returns their numbers. `ended`: numbers of finished episodes."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._engine.run())
        for number in ended:
            if number in self._sessions:
                self._engine.close(self._sessions.pop(number))
        sessions = [self._engine.open() for _ in instructions]
        for session, instruction, seed in zip(sessions, instructions, seeds, strict=True):
            self._engine.begin(session, instruction, seed)
            self._sessions[session.number] = session
        return [session.number for session in sessions]

    async def act(self, numbers: Sequence[int], observation: Observation) -> np.ndarray:
        """Returns float32 [B, K, 7]."""
        from vla_gen_bench.policies.contract import PolicyError

        if not all(number in self._sessions for number in numbers):
            raise PolicyError("the policy actor was started again meanwhile")
        rows = [
            self._engine.act(self._sessions[number], _request(observation, row)) for row, number in enumerate(numbers)
        ]
        return np.stack(await asyncio.gather(*rows))

    async def served(self) -> tuple[int, int]:
        """Returns the number of requests answered so far, and the process id."""
        return self._engine.served, os.getpid()


class Served:
    """A policy whose only copy is in an actor and also acts for other simulators."""

    def __init__(self, host: Any) -> None:
        self._host = host
        kind, content = ray.get(host.describe.remote())
        if kind == "refused":
            raise UserError(content)
        self.action_spec: ActionSpec = content["spec"]
        self.served_facts: dict[str, Any] = content["facts"]
        self._numbers: list[int] = []

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        until = time.monotonic() + BACK_S
        while True:
            try:
                self._numbers = ray.get(self._host.begin.remote(self._numbers, list(instructions), list(seeds)))
                return
            except ActorUnavailableError:
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)

    def act(self, observation: Observation) -> np.ndarray:
        return ray.get(self._host.act.remote(self._numbers, observation))


def _request(observation: Observation, row: int) -> Any:
    from vla_gen_bench.policies.serving.requests import Request

    images = {EXTERNAL: observation.image[row]} if observation.image is not None else {}
    images |= {camera: image[row] for camera, image in observation.other_images.items()}
    history = {camera: frames[row] for camera, frames in observation.history.items()}
    state = None if observation.state is None else observation.state[row]
    return Request(images, state, observation.instruction[row], history)
