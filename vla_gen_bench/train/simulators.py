"""Where rollouts happen: episodes in lanes, stepped in this process or by worker processes.

A lane is a batch of episodes in lock-step. While the policy looks at one lane, the others are being stepped:

    simulator.reset(lane, specs)                # returns at once
    seen = simulator.result(lane)               # waits; pictures as the model takes them
    simulator.step(lane, actions)               # float32 [B, K, 7], returns at once
    seen = simulator.result(lane)               # and so on

Which worker steps an episode changes nothing about it (`envs.vector`). Workers write their pictures, squashed to the
model's size already, into shared memory.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from vla_gen_bench.errors import UserError
from vla_gen_bench.spec import EpisodeSpec
from vla_gen_bench.train.pictures import squashed

if TYPE_CHECKING:
    from vla_gen_bench.envs.vector import EnvBatch

START_LIMIT_S, STEP_LIMIT_S = 600.0, 300.0
KEPT_INFOS = ("success", "success_once", "held_ever")

Build = Callable[[int], "EnvBatch"]
"""Makes a batch of so many scenes, for example `partial(build_batch, "builtin")`; travels to worker processes."""


class LostWorkerError(Exception):
    """A worker died, hung or raised; the running episodes are lost with it."""


class Seen(NamedTuple):
    """What a lane shows.

    Attributes:
        images: uint8 [B, H, W, 3], as `View` keeps them; valid until the lane is stepped.
        rewards: float32 [B, K] of the K control steps just done; None after a reset.
        infos: Name -> [B], those of `KEPT_INFOS`; empty after a reset.
        busy_s: Seconds all workers together spent on it.
    """

    images: np.ndarray
    rewards: np.ndarray | None
    infos: dict[str, np.ndarray]
    busy_s: float


@dataclass(frozen=True)
class View:
    """What is kept of a camera image.

    Attributes:
        height, width: Of the camera, pixels.
        side: It is squashed to side x side with Pillow's bicubic filter; None = kept as it is.
    """

    height: int
    width: int
    side: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, 3) if self.side is None else (self.side, self.side, 3)

    def keep(self, images: np.ndarray, out: np.ndarray) -> None:
        """Writes camera images, uint8 [B, height, width, 3], into `out`, uint8 [B, *shape]."""
        for place, image in enumerate(images):
            out[place] = image if self.side is None else squashed(image, self.side)


class Simulator(Protocol):
    """What a collector needs; see the module."""

    lanes: int
    width: int
    view: View

    def reset(self, lane: int, specs: Sequence[EpisodeSpec]) -> None: ...

    def step(self, lane: int, actions: np.ndarray) -> None: ...

    def result(self, lane: int) -> Seen: ...

    def recover(self) -> None: ...

    def close(self) -> None: ...


class _Stage:
    """The episodes one process steps: a batch per lane, made when it is first needed."""

    def __init__(self, build: Build, view: View, size: int) -> None:
        self._build, self._view, self._size = build, view, size
        self._batches: dict[int, EnvBatch] = {}

    def reset(self, lane: int, specs: Sequence[EpisodeSpec], out: np.ndarray) -> tuple[None, dict]:
        if lane not in self._batches:
            self._batches[lane] = self._build(self._size)
        self._view.keep(self._batches[lane].reset(specs), out)
        return None, {}

    def step(self, lane: int, actions: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, dict]:
        steps = [self._batches[lane].step(actions[:, k]) for k in range(actions.shape[1])]
        self._view.keep(steps[-1].images, out)
        rewards = np.stack([step.rewards for step in steps], axis=1)
        return rewards, {name: np.array(steps[-1].infos[name]) for name in KEPT_INFOS}

    def close(self) -> None:
        for batch in self._batches.values():
            batch.close()


class LocalSimulator:
    """Steps in this process: for GPU simulation, where one process holds all scenes, and for tests."""

    def __init__(self, build: Build, view: View, width: int, lanes: int = 1) -> None:
        self.lanes, self.width, self.view = lanes, width, view
        self._stage = _Stage(build, view, width)
        self._pictures = np.empty((lanes, width, *view.shape), np.uint8)
        self._seen: dict[int, Seen] = {}

    def reset(self, lane: int, specs: Sequence[EpisodeSpec]) -> None:
        self._do(self._stage.reset, lane, specs)

    def step(self, lane: int, actions: np.ndarray) -> None:
        self._do(self._stage.step, lane, actions)

    def _do(self, work: Callable, lane: int, content: Any) -> None:
        start, images = time.perf_counter(), self._pictures[lane, : len(content)]
        rewards, infos = work(lane, content, images)
        self._seen[lane] = Seen(images, rewards, infos, time.perf_counter() - start)

    def result(self, lane: int) -> Seen:
        return self._seen.pop(lane)

    def recover(self) -> None:
        """Nothing to do: what fails here ends the run."""

    def close(self) -> None:
        self._stage.close()


# ---- worker processes --------------------------------------------------------------------------------------


class _Order(NamedTuple):
    """One message to a worker; answers bear its ticket."""

    ticket: int
    lane: int
    rows: slice
    verb: str
    content: Any


def _work(build: Build, view: View, size: int, block: str, shape: tuple[int, ...], pipe: Connection) -> None:
    """Runs in a worker process until the parent says None or is gone."""
    from vla_gen_bench import runtime

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    runtime.prepare(threads=1)
    memory = SharedMemory(block)
    pictures = np.ndarray(shape, np.uint8, memory.buf)
    stage = _Stage(build, view, size)
    try:
        while (order := pipe.recv()) is not None:
            pipe.send((order.ticket, order.lane, *_answer(stage, order, pictures)))
        stage.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    del pictures
    memory.close()


def _answer(stage: _Stage, order: _Order, pictures: np.ndarray) -> tuple[str, Any]:
    from vla_gen_bench.policies.check import describe_failure

    start = time.perf_counter()
    try:
        rewards, infos = getattr(stage, order.verb)(order.lane, order.content, pictures[order.lane, order.rows])
    except UserError as error:
        return "refused", str(error)
    except Exception as error:
        return "failed", describe_failure(error)
    return "done", (rewards, infos, time.perf_counter() - start)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    started: bool = False
    answers: dict[int, Any] = field(default_factory=dict)


class WorkerSimulator:
    """Steps in `workers` processes; each takes its share of every lane.

    Args:
        build: Makes a process's scenes.
        view: What is kept of the pictures.
        width: Episodes in a lane.
        lanes: Two or more keep workers busy while the policy thinks.
    """

    def __init__(self, build: Build, view: View, width: int, lanes: int, workers: int) -> None:
        self.lanes, self.width, self.view = lanes, width, view
        self._context = multiprocessing.get_context("spawn")
        shape = (lanes, width, *view.shape)
        self._memory = SharedMemory(create=True, size=int(np.prod(shape)))
        self._pictures = np.ndarray(shape, np.uint8, self._memory.buf)
        self._job = (build, view, -(-width // workers), self._memory.name, shape)
        self._ticket, self._rows = 0, {}
        self._workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(*self._job, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def reset(self, lane: int, specs: Sequence[EpisodeSpec]) -> None:
        parts = np.array_split(np.arange(len(specs)), len(self._workers))
        self._rows[lane] = [slice(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
        self._send(lane, "reset", list(specs))

    def step(self, lane: int, actions: np.ndarray) -> None:
        self._send(lane, "step", actions)

    def _send(self, lane: int, verb: str, content: Any) -> None:
        for worker, rows in zip(self._workers, self._rows[lane]):
            try:
                worker.pipe.send(_Order(self._ticket, lane, rows, verb, content[rows]))
            except OSError:
                raise _lost(worker, "a worker process died") from None

    def result(self, lane: int) -> Seen:
        parts = [self._receive(worker, lane) for worker, _ in zip(self._workers, self._rows[lane])]
        rewards = None if parts[0][0] is None else np.concatenate([part[0] for part in parts])
        infos = {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
        count = self._rows[lane][-1].stop
        return Seen(self._pictures[lane, :count], rewards, infos, sum(part[2] for part in parts))

    def _receive(self, worker: _Worker, lane: int) -> Any:
        """Returns the worker's answer for `lane`; answers to what was given up since are dropped."""
        while lane not in worker.answers:
            try:
                if not worker.pipe.poll(STEP_LIMIT_S if worker.started else START_LIMIT_S):
                    raise _lost(worker, "a worker process did not answer")
                ticket, answered, kind, content = worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join(5)
                raise _lost(worker, f"a worker process died (exit code {worker.process.exitcode})") from None
            worker.started = True
            if ticket != self._ticket:
                continue
            if kind == "refused":
                raise UserError(content)
            if kind == "failed":
                raise _lost(worker, content)
            worker.answers[answered] = content
        return worker.answers.pop(lane)

    def recover(self) -> None:
        """Gives up all running episodes and replaces workers that are gone."""
        self._ticket += 1
        for place, worker in enumerate(self._workers):
            worker.answers.clear()
            if not worker.process.is_alive():
                worker.pipe.close()
                self._workers[place] = self._start()

    def close(self) -> None:
        """Ends the workers and gives the shared memory back."""
        for worker in self._workers:
            try:
                worker.pipe.send(None)
            except OSError:
                pass
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
            worker.pipe.close()
        del self._pictures
        self._memory.unlink()
        try:
            self._memory.close()
        except BufferError:
            pass  # someone still holds a lane's pictures: it goes with the process


def _lost(worker: _Worker, why: str) -> LostWorkerError:
    worker.process.kill()
    worker.process.join(10)
    return LostWorkerError(why)
