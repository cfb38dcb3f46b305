"""Worker processes that step lanes of episodes, see `team`.

They write their images, resized to the model's size, into shared memory.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from vla_gen_bench import runtime
from vla_gen_bench.errors import UserError
from vla_gen_bench.train.rl.simulators import Build, LostWorkerError, Stage, View
from vla_gen_bench.train.rl.team import START_LIMIT_S, STEP_LIMIT_S, Answer, Order, TeamSimulator, carry_out, opened


def _work(
    build: Build, view: View, size: int, block: str, shape: tuple[int, ...], parent: int, pipe: Connection
) -> None:
    """Runs in a worker process until the parent sends None or has ended."""
    runtime.begin_worker(parent)
    runtime.prepare(threads=1)
    memory = SharedMemory(block)
    images = np.ndarray(shape, np.uint8, memory.buf)
    stage = Stage(build, view, size)
    try:
        while (message := pipe.recv()) is not None:
            lane, rows, orders = message
            pipe.send((lane, *carry_out(stage, lane, orders, images[lane, rows])))
        stage.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has ended
    del images
    memory.close()


class _Process:
    """See `team.Worker`."""

    def __init__(self, job: tuple) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(*job, theirs), daemon=True)
        with runtime.starting_process():
            self.process.start()
        theirs.close()  # otherwise a dead worker's pipe would never report its end
        self._started, self._answers = False, {}

    def ask(self, lane: int, rows: slice, orders: Sequence[Order]) -> None:
        with suppress(OSError):  # it has died; `answer` reports that
            self._pipe.send((lane, rows, orders))

    def answer(self, lane: int) -> Answer:
        while lane not in self._answers:
            try:
                if not self._pipe.poll(STEP_LIMIT_S if self._started else START_LIMIT_S):
                    raise LostWorkerError("a worker process did not answer")
                answered, *answer = self._pipe.recv()
            except (EOFError, OSError):
                self.process.join(5)
                raise LostWorkerError(f"a worker process died (exit code {self.process.exitcode})") from None
            self._started = True
            self._answers[answered] = answer
        return opened(*self._answers.pop(lane))

    def kill(self) -> None:
        self.process.kill()
        self.process.join(10)
        self._pipe.close()

    def stop(self) -> None:
        with suppress(OSError):
            self._pipe.send(None)

    def join(self) -> None:
        self.process.join(5)
        self.kill()


class WorkerSimulator(TeamSimulator):
    """Steps in `workers` processes.

    Args:
        build: Makes a process's scenes.
        view: The form in which images are kept.
        width: Episodes in a lane.
        lanes: Two or more keep workers busy while the policy computes.
        say: Receives a sentence when a worker is lost.
    """

    def __init__(
        self, build: Build, view: View, width: int, lanes: int, workers: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        shape = (lanes, width, *view.shape)
        self._memory = _shared_memory(int(np.prod(shape)))
        self._job = (build, view, -(-width // workers), self._memory.name, shape, os.getpid())
        super().__init__(np.ndarray(shape, np.uint8, self._memory.buf), view, workers, say)

    def _hire(self, place: int) -> _Process:
        return _Process(self._job)

    def close(self) -> None:
        """Stops the workers and frees the shared memory."""
        super().close()
        for worker in self._workers:
            worker.join()
        del self._images
        self._memory.unlink()
        with suppress(BufferError):  # a lane's images are still referenced: the memory is freed when the process ends
            self._memory.close()


def _shared_memory(size: int) -> SharedMemory:
    try:
        return SharedMemory(create=True, size=size)
    except OSError as error:
        what = f"shared memory (/dev/shm) of {size:,} bytes cannot be had: {error.strerror or error}"
        raise UserError(f"{what}; make it writable and larger, or simulate on a GPU (simulation: gpu)") from None
