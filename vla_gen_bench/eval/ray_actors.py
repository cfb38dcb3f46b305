"""Actors on the nodes of a Ray cluster: simulators with their own policy, or policies that serve many simulators.

In this package, only this module, `ray_pool` and `study.ray_tasks` import Ray.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorUnavailableError

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.workers import Job, WorkerConfig
from vla_gen_bench.protocol import EXTERNAL, ActionSpec, Needs, Observation

SAME = ("vla-gen-bench", "code", "mani_skill", "sapien", "pack")  # what must be equal on every node
BACK_S = 120.0  # how long simulators wait for a policy actor to restart


def identity(world: str) -> dict[str, Any]:
    """Returns what determines a node's results: versions, digests of this package's code and of the world's files."""
    from vla_gen_bench.assets.pack import open_pack
    from vla_gen_bench.episodes.spec import digest_of
    from vla_gen_bench.log import provenance
    from vla_gen_bench.policies.digests import file_digests

    package = Path(__file__).resolve().parents[1]
    code = {name: digest for name, digest in file_digests(package).items() if name.endswith(".py")}
    return {**provenance.versions(), "code": digest_of(code), "pack": open_pack(world).digest}


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Returns the first entry of `SAME` that differs between two nodes, "" for none."""
    for name in SAME:
        if ours.get(name) != theirs.get(name):
            return f"has {name} {theirs.get(name)}, this command {ours.get(name)}"
    return ""


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
        ours: `identity` on the machine that runs the command.
        folder: The command's working directory; entered if it exists, so policy paths resolve the same way.
        served: The `PolicyHost` actor, if policies run separately.
    """

    def __init__(self, config: WorkerConfig, ours: dict[str, Any], folder: str, served: Any = None) -> None:
        self._config, self._ours, self._folder, self._served = config, ours, folder, served
        self._messages, self._runner = Messages(), None

    def start(self) -> tuple[str, Any]:
        """Returns ("ready", facts about policy and backend) or ("refused", the reason, with the node's name)."""
        from vla_gen_bench import runtime

        try:
            _enter(self._folder)
            runtime.prepare(self._config.threads)
            differs = difference(self._ours, identity(self._config.world))
            if differs:
                raise UserError(f"{differs}; install the same on all nodes")
            self._runner = self._build()
        except UserError as error:
            return "refused", f"{error} (node {node()})"
        return "ready", self._runner.describe()

    def _build(self) -> Any:
        from vla_gen_bench.eval import workers

        if self._served is None:
            return workers._build(self._config, self._messages)
        return _build_served(self._config, self._messages, Served(self._served))

    def run(self, jobs: Sequence[Job]) -> tuple[str, Any]:
        self._messages.send(None)
        return self._runner.run(jobs)

    @ray.method(concurrency_group="watch")
    def idle_s(self) -> float:
        """Seconds since the last control step; also answered while `run` computes."""
        return time.monotonic() - self._messages.value


def _build_served(config: WorkerConfig, messages: Messages, policy: Served) -> Any:
    from vla_gen_bench.envs.factory import build_batch
    from vla_gen_bench.eval.workers import Runner
    from vla_gen_bench.policies.chunking import ChunkRunner
    from vla_gen_bench.policies.registry import resolve

    card, needs = resolve(config.policy), Needs.from_json(config.sensors)
    batch = build_batch(config.world, config.num_envs, config.backend, config.render, needs)
    return Runner(config, card, ChunkRunner(policy, card.label), batch, messages)


class PolicyHost:
    """One copy of a policy that acts for many simulators; requests that wait together are computed as one batch."""

    def __init__(self, config: WorkerConfig, folder: str, batch: int) -> None:
        from vla_gen_bench import runtime
        from vla_gen_bench.policies.registry import load_policy, resolve
        from vla_gen_bench.policies.serving.engine import Engine

        _enter(folder)
        runtime.prepare(config.threads)
        self._sessions: dict[int, Any] = {}
        self._problem, self._engine, self._task = "", None, None
        try:
            card = resolve(config.policy)
            needs = Needs.from_json(config.sensors)
            self._engine = Engine(
                lambda: load_policy(card, **config.options), card.label, needs, batch, instances=MOST_INSTANCES
            )
        except UserError as error:
            self._problem = f"{error} (node {node()})"

    async def describe(self) -> tuple[str, Any]:
        """Returns ("ready", the policy's spec and decoding) or ("refused", the reason)."""
        if self._problem:
            return "refused", self._problem
        policy = self._engine.policy
        return "ready", {"spec": policy.action_spec, "decoding": getattr(policy, "decoding", None)}

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


MOST_INSTANCES = 100_000


class Served:
    """A policy whose only copy is in an actor and also acts for other simulators."""

    def __init__(self, host: Any) -> None:
        self._host = host
        kind, content = ray.get(host.describe.remote())
        if kind == "refused":
            raise UserError(content)
        self.action_spec: ActionSpec = content["spec"]
        self.decoding = content["decoding"]
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


def _enter(folder: str) -> None:
    if os.path.isdir(folder):
        os.chdir(folder)


def node() -> str:
    """Returns the address of this node."""
    return ray.util.get_node_ip_address()
