"""Worker processes that step lanes of episodes, see `simulators`.

Each worker takes its share of every lane, and writes its images, resized to the model's size, into shared memory.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np

from vla_gen_bench import runtime
from vla_gen_bench.errors import UserError
from vla_gen_bench.train.rl.simulators import Build, LostWorkerError, Seen, Stage, View
from vla_gen_bench.train.starts import Start

START_LIMIT_S, STEP_LIMIT_S = 600.0, 300.0


class _Order(NamedTuple):
    """One message to a worker; answers carry its ticket."""

    ticket: int
    lane: int
    rows: slice
    verb: str
    content: Any


def _work(
    build: Build, view: View, size: int, block: str, shape: tuple[int, ...], parent: int, pipe: Connection
) -> None:
    """Runs in a worker process until the parent sends None or has ended."""
    runtime.begin_worker(parent)
    runtime.prepare(threads=1)
    memory = SharedMemory(block)
    pictures = np.ndarray(shape, np.uint8, memory.buf)
    stage = Stage(build, view, size)
    try:
        while (order := pipe.recv()) is not None:
            pipe.send((order.ticket, order.lane, *_answer(stage, order, pictures)))
        stage.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has ended
    del pictures
    memory.close()


def _answer(stage: Stage, order: _Order, pictures: np.ndarray) -> tuple[str, Any]:
    from vla_gen_bench.policies.contract import describe_failure

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
    """Steps in `workers` processes.

    Args:
        build: Makes a process's scenes.
        view: The form in which images are kept.
        width: Episodes in a lane.
        lanes: Two or more keep workers busy while the policy computes.
    """

    def __init__(self, build: Build, view: View, width: int, lanes: int, workers: int) -> None:
        self.lanes, self.width, self.view = lanes, width, view
        self._context = multiprocessing.get_context("spawn")
        shape = (lanes, width, *view.shape)
        self._memory = _shared_memory(int(np.prod(shape)))
        self._pictures = np.ndarray(shape, np.uint8, self._memory.buf)
        self._job = (build, view, -(-width // workers), self._memory.name, shape, os.getpid())
        self._ticket, self._rows = 0, {}
        self._workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(*self._job, theirs), daemon=True)
        with runtime.starting_process():
            process.start()
        theirs.close()  # otherwise a dead worker's pipe would never report its end
        return _Worker(process, ours)

    def reset(self, lane: int, starts: Sequence[Start]) -> None:
        parts = np.array_split(np.arange(len(starts)), len(self._workers))
        self._rows[lane] = [slice(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
        self._send(lane, "reset", list(starts))

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
        """Returns the worker's answer for `lane`; answers to abandoned messages are dropped."""
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
        """Abandons all running episodes and replaces lost workers."""
        self._ticket += 1  # answers with an older ticket are dropped
        for place, worker in enumerate(self._workers):
            worker.answers.clear()
            if not worker.process.is_alive():
                worker.pipe.close()
                self._workers[place] = self._start()

    def close(self) -> None:
        """Stops the workers and frees the shared memory."""
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
            pass  # a lane's images are still referenced: the memory is freed when the process ends


def _shared_memory(size: int) -> SharedMemory:
    try:
        return SharedMemory(create=True, size=size)
    except OSError as error:
        what = f"shared memory (/dev/shm) of {size:,} bytes cannot be had: {error.strerror or error}"
        raise UserError(f"{what}; make it writable and larger, or simulate on a GPU (simulation: gpu)") from None


def _lost(worker: _Worker, why: str) -> LostWorkerError:
    worker.process.kill()
    worker.process.join(10)
    return LostWorkerError(why)
