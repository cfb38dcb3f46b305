"""Worker processes: each holds one batch of environments and one policy and runs the episodes it is handed.

An exception, or a worker that dies or hangs, affects only the running episodes: each is retried once, alone, in a
new worker if needed, and then its error is recorded.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from vla_gen_bench import runtime
from vla_gen_bench.data import plain_or_text
from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.rounding import rounding
from vla_gen_bench.policies.contract import closing
from vla_gen_bench.protocol import USUAL, Needs

if TYPE_CHECKING:
    from vla_gen_bench.envs.vector import EnvBatch

POLL_S = ALIVE_S = 1.0
TRIES = 2


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to build its environments and policy; plain data, sent to a fresh interpreter.

    Attributes:
        policy: As `--policy` takes it.
        options: The factory's arguments.
        world: World name.
        horizon: Control steps per episode.
        num_envs: Parallel episodes in the process.
        backend: "cpu" or "gpu", where the physics runs.
        threads: Compute threads.
        record: Keep frames: "none", "all" or "failures".
        render: Render observations; False only for privileged policies.
        sensors: The policy's sensors, `Needs.to_json()`.
        videos: Folder for the mp4 files, if any are kept.
        time_limit_s: Maximum time for one control step, or for the start, before the worker counts as hung.
    """

    policy: str
    options: dict[str, Any]
    world: str
    horizon: int
    num_envs: int = 1
    backend: str = "cpu"
    threads: int = 1
    record: str = "none"
    videos: str | None = None
    render: bool = True
    sensors: dict[str, Any] = field(default_factory=dict)
    time_limit_s: float = 300.0
    start_limit_s: float = 1800.0


@dataclass(frozen=True)
class Job:
    """An episode to run; `key` is (scenario, seed, index)."""

    key: tuple[str, int, int]
    spec: EpisodeSpec


@dataclass(frozen=True)
class Result:
    """The result of a job: an outcome `row` with packed `actions`, or an `error`."""

    job: Job
    worker: int
    duration_s: float
    row: dict[str, Any] | None = None
    actions: str | None = None
    error: str | None = None


# ---- in the worker -----------------------------------------------------------------------------------------


def _worker_main(config: WorkerConfig, pipe: Connection, parent: int) -> None:
    """Runs in a fresh process: builds everything, reports ready, then runs jobs until it receives None."""
    runtime.begin_worker(parent)
    runtime.prepare(config.threads)
    try:
        episodes = _build(config, pipe)
    except UserError as error:
        pipe.send(("refused", str(error)))
        return
    with closing(episodes.source.policy), suppress(EOFError, OSError):  # errors of the pipe: the parent has ended
        pipe.send(("ready", episodes.describe()))
        while (jobs := pipe.recv()) is not None:
            pipe.send(episodes.run(jobs))


def _build(config: WorkerConfig, pipe: Connection) -> Runner:
    from vla_gen_bench.policies.registry import load_policy, resolve

    card = resolve(config.policy)
    return make_runner(config, card, load_policy(card, **config.options), pipe)


def make_runner(config: WorkerConfig, card: Any, policy: Any, pipe: Any) -> Runner:
    """Tries a loaded policy on an example, then makes its environments; raises `UserError` if either cannot be used."""
    from vla_gen_bench.policies.chunking import ChunkRunner

    runtime.limit_threads(config.threads)
    if getattr(policy, "threads", None):
        runtime.narrow_threads(policy.threads)
    needs = Needs.from_json(config.sensors)
    pipe.send(("phase", (config.time_limit_s, f"{card.label}: reset() and act() on an example observation")))
    _rehearse(policy, card, config.world, needs)
    pipe.send(("phase", (config.start_limit_s, "")))
    from vla_gen_bench.envs.factory import build_batch  # imported late: a policy that fails needs no simulator

    batch = build_batch(config.world, config.num_envs, config.backend, config.render, needs)
    return Runner(config, card, ChunkRunner(policy, card.label), batch, pipe)


def _rehearse(policy: Any, card: Any, world: str, needs: Needs = USUAL) -> None:
    """Lets the policy act on an example before any simulator starts; raises `PolicyError` if it fails."""
    from vla_gen_bench.assets.world import get_world
    from vla_gen_bench.policies.contract import PolicyError, check_actions, describe_failure, example_observation

    if card.privileged:
        return
    size = get_world(world)
    observation = example_observation(1, height=size.height, width=size.width, needs=needs)
    try:
        policy.reset(list(observation.instruction), [0])
        actions = policy.act(observation)
    except BaseException as error:  # sys.exit() and KeyboardInterrupt come from the policy: Ctrl-C never gets here
        if getattr(error, "says_all", False):
            raise
        raise PolicyError(f"{card.label}: raised {describe_failure(error)} on an example observation") from error
    check_actions(card.label, actions, 1, policy.action_spec)


def policy_facts(policy: Any) -> dict[str, Any]:
    """Returns what the header records of a loaded policy; one that acts elsewhere brings its own `served_facts`."""
    from vla_gen_bench.policies.converters.adapted import Adapted
    from vla_gen_bench.policies.converters.compose import describe_adapter

    if hasattr(policy, "served_facts"):
        return policy.served_facts
    facts = {"decoding": plain_or_text(getattr(policy, "decoding", None))}
    if connection := getattr(policy, "connection", None):  # set for a policy behind a server
        return {"connection": connection, **facts}
    return {"adapter": describe_adapter(policy.converters), **facts} if isinstance(policy, Adapted) else facts


class Runner:
    """A policy and its environments: runs the jobs it is given, and reports errors instead of raising them.

    Attributes:
        interruptible: A KeyboardInterrupt is the user's, not the policy's.
    """

    interruptible = False

    def __init__(self, config: WorkerConfig, card: Any, source: Any, batch: EnvBatch, pipe: Any) -> None:
        self.config, self.card, self.source, self.batch, self.pipe = config, card, source, batch, pipe
        self._alive = time.monotonic()

    def describe(self) -> dict[str, Any]:
        policy, env = self.source.policy, self.batch.envs[0]
        return {
            **policy_facts(policy),
            "action_spec": self.source.spec.to_json(),
            "backend": {
                "simulation": env.backend.sim_backend,
                "rendering": env.backend.render_backend,
                "shader": env.world.shader,
            },
            "rounding": rounding(),
        }

    def run(self, jobs: Sequence[Job]) -> tuple[str, Any]:
        """Returns the results of the jobs.

        Either ("done", [(row, packed actions) per job]); ("failed", message), which concerns all of them; or
        ("full", (as for "done", message)) if they are done and a video cannot be written.
        """
        from vla_gen_bench.eval.rollout import pack_actions, run_episodes
        from vla_gen_bench.policies.contract import PolicyError, describe_failure

        try:
            episodes = run_episodes(
                self.batch, self.source, [job.spec for job in jobs], self.config.horizon,
                privileged=self.card.privileged, record=self.config.record != "none", on_step=self._step_done,
                needs=Needs.from_json(self.config.sensors),
            )  # fmt: skip
        except PolicyError as error:
            return "failed", str(error)
        except BaseException as error:  # sys.exit() and, in a worker, KeyboardInterrupt come from the policy
            if self.interruptible and isinstance(error, KeyboardInterrupt):
                raise
            if getattr(error, "stops_run", False):
                return "refused", str(error)
            return "failed", describe_failure(error)
        done = [(episode.row, pack_actions(episode.actions)) for episode in episodes]
        try:
            for job, episode in zip(jobs, episodes, strict=True):
                self._keep_video(job, episode)
        except OSError as error:
            return "full", (done, f"{error.filename}: cannot be written ({error.strerror or error})")
        return "done", done

    def _step_done(self, step: int) -> None:
        """Sends the parent a heartbeat now and then while steps are being done."""
        if time.monotonic() - self._alive > ALIVE_S:
            self._alive = time.monotonic()
            self.pipe.send(("alive", None))

    def _keep_video(self, job: Job, episode: Any) -> None:
        wanted = self.config.record == "all" or (self.config.record == "failures" and not episode.row["success_at_end"])
        if not wanted:
            return
        from vla_gen_bench.log.video import video_name, write_video

        name = video_name(job.key, episode.row["success_at_end"])
        write_video(f"{self.config.videos}/{name}", episode.frames, job.spec.instruction)


# ---- in the parent -----------------------------------------------------------------------------------------


@dataclass
class _Beat:
    """When a worker last reported a step, in `time.monotonic` seconds."""

    value: float = 0.0


@dataclass
class _Worker:
    """A worker process; until it is ready, `doing` may take `limit_s`; "" is for time not spent in the policy."""

    index: int
    process: Any
    pipe: Connection
    beat: Any = field(default_factory=_Beat)
    ready: bool = False
    limit_s: float = 0.0
    doing: str = ""
    jobs: list[Job] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def idle_s(self) -> float:
        """Seconds since its last heartbeat."""
        return time.monotonic() - max(self.started, self.beat.value)


class WorkerPool:
    """Runs jobs on `count` workers.

    Args:
        on_ready: Called once, with the first worker's report on policy and backend.
    """

    def __init__(self, config: WorkerConfig, count: int, on_ready: Callable[[dict[str, Any]], None]) -> None:
        self._config, self._count, self._on_ready = config, count, on_ready
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._told = False
        self._lost_at_start = 0

    def run(self, jobs: Iterable[Job], on_result: Callable[[Result], None]) -> None:
        """Runs all jobs; yields results as they complete. All workers have ended when it returns or raises.

        Raises:
            UserError: The policy or the world cannot be used at all.
        """
        self._queue = deque((job, 1) for job in jobs)
        self._tries: dict[tuple, int] = {}
        self._on_result = on_result
        try:
            for index in range(min(self._count, len(self._queue))):
                with runtime.starting_process():
                    self._workers.append(self._start(index))
            while self._queue or any(worker.jobs for worker in self._workers):
                self._turn()
        finally:
            self._stop()

    def _start(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_worker_main, args=(self._config, theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        return _Worker(index, process, ours, limit_s=self._config.start_limit_s)

    def _turn(self) -> None:
        """Waits for the next event and handles it."""
        by_handle = {worker.pipe: worker for worker in self._workers}
        for handle in wait(list(by_handle), timeout=POLL_S):
            self._hear(by_handle[handle])
        for worker in list(self._workers):
            limit = self._config.time_limit_s if worker.ready else worker.limit_s
            if (worker.jobs or not worker.ready) and worker.idle_s > limit:
                if not worker.ready and worker.doing:
                    raise UserError(f"{worker.doing} took more than {limit:g} s; raise --time-limit if it may")
                self._lose(worker, f"no control step finished within {limit:g} s")

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(10)
            self._lose(worker, f"the worker process died ({self._end_of(worker)})")
            return
        if kind == "alive":
            worker.beat.value = time.monotonic()  # idle time is counted from here
            return
        if kind == "phase":
            worker.started, (worker.limit_s, worker.doing) = time.monotonic(), content
            return
        if kind == "refused":
            raise UserError(content)
        if kind == "full":
            done, problem = content
            self._finish(worker, [{"row": row, "actions": actions} for row, actions in done])
            raise UserError(
                f"{problem}; finished episodes are in the log: make room, or leave out --video, and give the same "
                "command again"
            )
        if kind == "ready":
            worker.ready = True
            if not self._told:
                self._told = True  # all workers report the same
                self._on_ready(content)
        elif kind == "done":
            self._finish(worker, [{"row": row, "actions": actions} for row, actions in content])
        else:
            self._fail(worker, content)
        self._feed(worker)

    def _end_of(self, worker: _Worker) -> str:
        return f"exit code {worker.process.exitcode}"

    def _feed(self, worker: _Worker) -> None:
        if not self._queue:
            return
        worker.jobs = self._next()
        worker.started = time.monotonic()
        try:
            worker.pipe.send(worker.jobs)
        except OSError:
            self._lose(worker, "the worker process died between two episodes")

    def _next(self) -> list[Job]:
        """Takes the next batch from the queue, or one episode to retry; leaves work for other workers.

        On a GPU all episodes of a batch are of one scenario: these share the physics of their effects, see `schedule`.
        """
        first, tries = self._queue[0]
        share = -(-len(self._queue) // self._count)
        size = 1 if tries > 1 else min(self._config.num_envs, share)
        taken = [self._queue.popleft()]
        while len(taken) < size and (self._config.backend == "cpu" or self._queue[0][0].key[0] == first.key[0]):
            taken.append(self._queue.popleft())
        self._tries |= {job.key: tries for job, tries in taken}
        return [job for job, _ in taken]

    def _finish(self, worker: _Worker, outcomes: list[dict[str, Any]]) -> None:
        """Hands out one result per running job; the time is split evenly."""
        jobs, worker.jobs = worker.jobs, []
        duration_s = round((time.monotonic() - worker.started) / len(jobs), 3)
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._on_result(Result(job, worker.index, duration_s, **outcome))

    def _fail(self, worker: _Worker, error: str) -> None:
        """Queues the running episodes again, each alone; records the error of one that was already alone."""
        if len(worker.jobs) == 1 and self._tries[worker.jobs[0].key] == TRIES:
            self._finish(worker, [{"error": error}])
            return
        self._queue.extendleft((job, self._tries[job.key] + 1) for job in reversed(worker.jobs))
        worker.jobs = []

    def _lose(self, worker: _Worker, why: str) -> None:
        worker.process.kill()
        worker.process.join(10)
        worker.pipe.close()
        if worker.jobs:
            self._fail(worker, why)
        elif not worker.ready:
            self._lost_at_start += 1
            if self._lost_at_start >= TRIES:
                raise UserError(f"a worker could not start: {why}; run 'vgb doctor'")
        with runtime.starting_process():
            self._workers[self._workers.index(worker)] = self._start(worker.index)

    def _stop(self) -> None:
        for worker in self._workers:
            if worker.ready and not worker.jobs:
                try:
                    worker.pipe.send(None)
                    continue
                except OSError:
                    pass
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
