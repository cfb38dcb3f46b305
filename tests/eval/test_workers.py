"""Worker processes that go away at awkward moments; the rest is in test_eval.py, with real ones."""

from __future__ import annotations

from collections import deque
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
from sim import spec_of

from vla_gen_bench.eval import workers
from vla_gen_bench.eval.workers import Job, WorkerConfig, WorkerPool, _Worker


def dead_worker(index: int = 0) -> _Worker:
    ours, theirs = Pipe()
    theirs.close()
    process = SimpleNamespace(kill=lambda: None, join=lambda timeout: None, exitcode=-9)
    return _Worker(index, process, ours, SimpleNamespace(value=0.0), ready=True)


def pool_with(worker: _Worker, job: Job, results: list) -> WorkerPool:
    pool = WorkerPool(WorkerConfig("hold", {}, "builtin", 5), 1, lambda info: None)
    pool._queue, pool._tries, pool._on_result = deque([(job, 1)]), {}, results.append
    pool._workers, pool._start = [worker], dead_worker
    return pool


def test_a_worker_that_died_between_episodes_costs_one_try():
    results: list = []
    job = Job(("ind", 0, 0), spec_of())
    pool = pool_with(dead_worker(), job, results)
    pool._feed(pool._workers[0])
    assert list(pool._queue) == [(job, 2)] and not results  # it is tried again, by a new worker
    pool._feed(pool._workers[0])
    assert not pool._queue and results[0].error == "the worker process died between two episodes"


@pytest.mark.parametrize("ended", ["no more jobs", "the parent died"])
def test_a_worker_closes_its_policy_at_the_end(monkeypatch, ended):
    closed = []

    def close():
        closed.append(True)
        raise OSError("not reachable any more")  # nobody waits for it

    runner = SimpleNamespace(source=SimpleNamespace(policy=SimpleNamespace(close=close)), describe=dict)
    monkeypatch.setattr(workers, "_build", lambda config, pipe: runner)
    monkeypatch.setattr(workers.runtime, "begin_worker", lambda parent: None)
    monkeypatch.setattr(workers.runtime, "prepare", lambda threads: None)
    ours, theirs = Pipe()
    ours.send(None) if ended == "no more jobs" else ours.close()
    workers._worker_main(WorkerConfig("hold", {}, "builtin", 5), theirs, 0)
    assert closed == [True]


def test_a_failed_batch_is_tried_again_one_by_one():
    results: list = []
    jobs = [Job(("ind", 0, index), spec_of(index=index)) for index in range(5)]
    pool = pool_with(dead_worker(), jobs[0], results)
    pool._config = WorkerConfig("hold", {}, "builtin", 5, num_envs=3)
    pool._queue = deque((job, 1) for job in jobs)
    assert pool._next() == jobs[:3]
    worker = pool._workers[0]
    worker.jobs = jobs[:3]
    pool._fail(worker, "boom")
    assert list(pool._queue) == [*((job, 2) for job in jobs[:3]), *((job, 1) for job in jobs[3:])]
    assert [pool._next() for _ in range(4)] == [[jobs[0]], [jobs[1]], [jobs[2]], jobs[3:]]


def test_the_last_episodes_are_shared_among_the_workers():
    jobs = [Job(("ind", 0, index), spec_of(index=index)) for index in range(6)]
    pool = pool_with(dead_worker(), jobs[0], [])
    pool._config, pool._count = WorkerConfig("hold", {}, "builtin", 5, num_envs=64), 2
    pool._queue = deque((job, 1) for job in jobs)
    assert [len(pool._next()) for _ in range(3)] == [3, 2, 1]  # half of what is left, rounded up


def test_a_batch_on_a_gpu_is_of_one_scenario():
    keys = [("ind", 0, 0), ("ind", 0, 1), ("object_reposition", 0, 0), ("ind", 0, 2)]
    jobs = [Job(key, spec_of(key[0], index=key[2])) for key in keys]
    for backend, sizes in (("gpu", [2, 1, 1]), ("cpu", [3, 1])):
        pool = pool_with(dead_worker(), jobs[0], [])
        pool._config = WorkerConfig("hold", {}, "builtin", 5, num_envs=3, backend=backend)
        pool._queue = deque((job, 1) for job in jobs)
        assert [len(pool._next()) for _ in sizes] == sizes and not pool._queue
