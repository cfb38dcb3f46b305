"""`evaluate` runs a policy on suites and writes a log folder, resuming an existing log."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from vla_gen_bench import bounds
from vla_gen_bench.assets.pack import open_pack
from vla_gen_bench.assets.world import get_world
from vla_gen_bench.doctor.backend import NUM_ENVS, SIMULATIONS, choose_backend
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.episodes.suite import Scenario, Suite, draw, load_suite, union
from vla_gen_bench.errors import UserError, shown, suggest
from vla_gen_bench.eval.cluster import Cluster, need_ray
from vla_gen_bench.eval.open_log import OpenLog, check_specs, has_rows, now
from vla_gen_bench.eval.reuse import find_reusable
from vla_gen_bench.eval.shards import Shard
from vla_gen_bench.eval.workers import Job, Result, WorkerConfig, WorkerPool
from vla_gen_bench.log import provenance
from vla_gen_bench.log.counts import count, count_by_scenario
from vla_gen_bench.log.guard import locked
from vla_gen_bench.log.rows import Key, Row
from vla_gen_bench.policies.card import Card
from vla_gen_bench.policies.identity import effect_plugins, policy_digests
from vla_gen_bench.policies.registry import resolve
from vla_gen_bench.policies.sensing import sensors_of
from vla_gen_bench.policies.sizes import params_of
from vla_gen_bench.protocol import Needs
from vla_gen_bench.resources import CHECKPOINT
from vla_gen_bench.runtime import usable_cores


@dataclass(frozen=True)
class Request:
    """The user's request; None means the suite's protocol, or a sensible default.

    Attributes:
        policy: Name, `module:attr`, or folder with a card.
        checkpoint: File, folder or hub id handed to the policy's factory as `checkpoint`.
        suites: Names, paths or suites, at least one.
        scenarios: Ids, compositions such as "unseen_table + noise_weak"; None = all.
        episodes: Per scenario and seed.
        quick: Run the suite's quick subset of its episodes, unless `episodes` and `seeds` are given.
        workers: Processes; None = one per core, or one on a GPU.
        backend: Where the physics runs: "cpu", "gpu", or "auto" = on a GPU if one is usable.
        num_envs: Parallel episodes per process; None = 1, or 64 on a GPU.
        out: Log folder; None = `runs/<policy>/<suite>-<world>`.
        fresh: Move an earlier log aside instead of continuing it.
        reuse: Logs whose finished episodes are taken over where the new log has the same ones.
        must_resume: Refuse to start a new log.
        record: Videos: "none", "all", "failures".
        render: Render observations; a privileged policy needs none.
        image_size: Height and width of the images in pixels; None = from the policy's card, else from the world.
        shard: Run only this part of the episodes.
        cluster: Run workers as Ray actors there; None = as processes on this machine.
    """

    policy: str
    suites: Sequence[str | Suite]
    checkpoint: str | None = None
    scenarios: Sequence[str] | None = None
    world: str = "builtin"
    episodes: int | None = None
    seeds: Sequence[int] | None = None
    quick: bool = False
    workers: int | None = None
    backend: str = "auto"
    num_envs: int | None = None
    out: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    fresh: bool = False
    reuse: Sequence[Path] = ()
    must_resume: bool = False
    record: str = "none"
    render: bool = True
    time_limit_s: float = 300.0
    image_size: tuple[int, int] | None = None
    shard: Shard | None = None
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        """Raises `UserError` for what no evaluation can have, in the words of `vgb.evaluate`."""
        limits = {"episodes": bounds.EPISODES, "workers": bounds.WORKERS, "num_envs": bounds.NUM_ENVS}
        for name, allowed in limits.items():
            if (value := getattr(self, name)) is not None:
                self._settle(name, bounds.whole(value, allowed, name))
        if self.seeds is not None:
            self._settle("seeds", bounds.evaluation_seeds(self.seeds, "seeds"))
        if self.scenarios is not None:
            self._settle("scenarios", bounds.listed(self.scenarios, "scenarios", "ids"))
        if not self.suites:
            raise UserError("suite: an empty list; expected a name, a file or a Suite")
        if self.record not in bounds.VIDEOS_KEPT:
            raise UserError(f"video {shown(self.record)}{suggest(str(self.record), bounds.VIDEOS_KEPT)}")

    def _settle(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # of a frozen class: checked once, then as it is used

    @property
    def arguments(self) -> dict[str, Any]:
        """The factory's arguments: the options, and the checkpoint if one is given."""
        return {**self.options, **({} if self.checkpoint is None else {"checkpoint": self.checkpoint})}


@dataclass(frozen=True)
class Plan:
    """A resolved request: everything that can be wrong with it has been checked.

    Attributes:
        jobs: Episodes to run, only those of the shard.
        manifest: What the complete log will hold, all shards together, and a digest of all its specs.
    """

    request: Request
    suite: Suite
    scenarios: list[Scenario]
    card: Card
    jobs: list[Job]
    manifest: dict[str, Any]
    folder: Path
    identity: dict[str, Any]
    backend: str
    sensors: Needs = Needs()

    @property
    def params(self) -> int | None:
        """The model's number of parameters, if card or checkpoint tells."""
        return params_of(self.card, self.request.arguments.get("checkpoint"))


@dataclass(frozen=True)
class Summary:
    """Counts over the episodes of a plan."""

    plan: Plan
    scenarios: dict[str, dict[str, Any]]
    finished: bool

    @property
    def errors(self) -> int:
        return sum(row["errors"] for row in self.scenarios.values())

    def to_json(self) -> dict[str, Any]:
        """Returns the object `vgb eval --json` prints."""
        return {
            "suite": self.plan.suite.id,
            "policy": self.plan.card.name,
            "world": self.plan.request.world,
            "scenarios": self.scenarios,
            "log": str(self.plan.folder),
        }


def make_plan(request: Request, card: Card | None = None) -> Plan:
    """Checks the request and samples its episodes; generates the builtin assets on first use.

    Args:
        request: What is wanted.
        card: The card of a policy object, which `request.policy` cannot look up.

    Raises:
        UserError: The request is invalid; nothing has been written then.
    """
    suite = union([given if isinstance(given, Suite) else load_suite(given) for given in request.suites])
    scenarios = suite.select(request.scenarios)
    world, card = get_world(request.world), card or resolve(request.policy)
    card.check_world(request.world)
    sensors = sensors_of(card, world, request.image_size, request.arguments)
    if not request.render and (not card.privileged or request.record != "none"):
        raise UserError("--no-render is for privileged policies without --video: all others need the images")
    if request.reuse and request.record != "none":
        raise UserError("--reuse takes over episodes without their videos; leave out --video or --reuse")
    backend = choose_backend(request.backend)
    check_workers(backend, request.workers)
    if request.cluster:
        need_ray()
        if request.cluster.hosts and card.privileged:
            raise UserError(f"{card.label} sees the simulator's state and cannot act from an actor of its own")
    jobs = _draw_jobs(request, suite, scenarios)
    folder = request.out or default_folder(_run_name(card, request), suite.id, request.world)
    if request.shard and not request.out:
        folder = folder / request.shard.folder
    identity = identity_of(request, suite, card, backend)
    if sensors != Needs():  # default sensors are left out, as in logs from before they could be chosen
        identity["sensors"] = sensors.to_json()
    mine = request.shard.deal(jobs) if request.shard else jobs
    if not mine:
        raise UserError(f"--shard {request.shard}: there are {len(jobs)} episodes only")
    return Plan(request, suite, scenarios, card, mine, _manifest(jobs), folder, identity, backend, sensors)


def _run_name(card: Card, request: Request) -> str:
    """Returns the name of the run's folder; trainings all name their weights `checkpoint`: then by the run."""
    if request.checkpoint is None:
        return card.name
    weights = Path(os.path.abspath(request.checkpoint))  # not resolved: a link is named by where it lies
    return f"{card.name}-{weights.parent.name if weights.name == CHECKPOINT else weights.name}"


def default_folder(policy: str, suite: str, world: str) -> Path:
    """Returns `runs/<policy>/<suite>-<world>`, with characters unfit for a folder name replaced."""
    return Path("runs") / re.sub(r"[^\w.+-]+", "_", policy) / f"{suite}-{world}"


def _draw_jobs(request: Request, suite: Suite, scenarios: list[Scenario]) -> list[Job]:
    share = suite.quick if request.quick else suite.protocol
    episodes, seeds = request.episodes or share.episodes_per_seed, request.seeds or share.seeds
    keys = [(scenario, seed, index) for scenario in scenarios for seed in seeds for index in range(episodes)]
    return [Job((s.id, seed, index), draw(s, request.world, seed, index)) for s, seed, index in keys]


def check_workers(backend: str | None, workers: int | None) -> None:
    """Raises `UserError` for several workers on a GPU."""
    if backend == "gpu" and (workers or 1) > 1:
        raise UserError(f"--workers {workers}: a GPU simulates all episodes in one process; use --num-envs")


def identity_of(request: Request, suite: Suite, card: Card, backend: str | None) -> dict[str, Any]:
    """Returns what must be equal for two sessions to share a log, apart from sensors, which follow from it.

    Args:
        backend: "cpu" or "gpu"; None = unknown before the evaluation starts, and left out.
    """
    simulator = simulator_identity(request.world)
    found = {
        "suite": {"id": suite.id, "version": suite.version, "digest": suite.digest()},
        "policy": {
            "name": card.name,
            "ref": request.policy,
            "options": provenance.without_secrets(request.arguments),
            "privileged": card.privileged,
            **policy_digests(card, request.arguments),
        },
        "world": simulator["world"],
        "horizon": suite.protocol.horizon,
        "rendered": request.render,
        "simulator": simulator["simulator"],
    }
    if backend:
        found["backend"] = {"simulation": SIMULATIONS[backend]}
    # of the whole suite, so that sessions with different --scenario share a log
    plugins = effect_plugins(effect.name for each in suite.scenarios.values() for effect in each.shift.effects)
    return found | ({"effects": plugins} if plugins else {})


def simulator_identity(world: str) -> dict[str, Any]:
    """Returns what must be equal for two simulations of a world to be the same: its files, and decisive packages."""
    pack, versions = open_pack(world), provenance.versions()
    return {
        "world": {
            "name": world,
            "version": get_world(world).version,
            "catalog": pack.catalog.digest(),
            "pack": pack.digest,
        },
        "simulator": {name: versions[name] for name in provenance.DECISIVE},
    }


def evaluate(
    plan: Plan,
    on_start: Callable[[int, int], None] = lambda done, total: None,
    on_result: Callable[[Result], None] = lambda result: None,
    on_note: Callable[[str], None] = lambda text: None,
    engine: Engine = WorkerPool,
) -> Summary:
    """Runs the episodes missing from the plan's log and returns the counts over the complete plan.

    Args:
        on_start: Called with the number of episodes in the log and the total.
        on_result: Called after each finished episode is on disk.
        on_note: Called with each message about the log for the user, one sentence each.
        engine: What runs the episodes.

    Raises:
        UserError: Another process is writing there; the log is of another run, or cannot be written; the policy
            cannot be used.
        KeyboardInterrupt: Re-raised once the finished episodes are on disk.
    """
    request = plan.request
    if request.must_resume and not has_rows(plan.folder):
        raise UserError(f"{plan.folder}: no log to resume there; leave out --resume to start one")
    with locked(plan.folder, "{where}: cannot write the log ({what}); give another folder with --out"):
        sources = [_source_of(suite) for suite in request.suites]
        log = OpenLog(plan.folder, plan.identity, plan.suite, sources, plan.params, request.fresh)
        for note in log.notes:
            on_note(note)
        check_specs(plan.folder, log.rows, {job.key: job.spec.digest() for job in plan.jobs})
        todo = [job for job in plan.jobs if job.key not in log.rows]
        log.reused = find_reusable(request.reuse, plan.identity, todo[1:])  # one is left: the policy must load
        for each in log.reused:
            on_note(f"{len(each.rows)} of {len(todo)} episodes to run are in {each.folder} and are taken over")
        there = {key for each in log.reused for key in each.rows}
        todo = [job for job in todo if job.key not in there]
        on_start(len(plan.jobs) - len(todo), len(plan.jobs))
        if todo:
            _run(plan, todo, log, on_result, on_note, engine)
        return summarise(plan, log.writer.sort(list(plan.suite.scenarios)))


def summarise(plan: Plan, rows: Mapping[Key, Row]) -> Summary:
    """Returns the counts over the rows that belong to the plan."""
    chosen = [rows[job.key] for job in plan.jobs if job.key in rows]
    counts = count_by_scenario(chosen)
    metric = plan.suite.protocol.metric
    found = {scenario.id: counts.get(scenario.id, count(())).to_json(metric) for scenario in plan.scenarios}
    return Summary(plan, found, len(chosen) == len(plan.jobs))


# ---- running -----------------------------------------------------------------------------------------------


def _source_of(suite: str | Suite) -> str:
    return suite if isinstance(suite, str) else str(suite.path or suite.id)


class Jobs(Protocol):
    """Runs jobs; yields one result per job, in any order."""

    def run(self, jobs: Iterable[Job], on_result: Callable[[Result], None]) -> None: ...


Engine = Callable[[WorkerConfig, int, Callable[[dict[str, Any]], None]], Jobs]
"""From a configuration, a number of workers, and what to call once when the policy has loaded."""


def _run(
    plan: Plan, todo: list[Job], log: OpenLog, on_result: Callable[[Result], None], on_note: Callable[[str], None],
    engine: Engine,
) -> None:  # fmt: skip
    request = plan.request
    with _pool(request, len(todo), engine, on_note) as (size, pool):
        workers = size or min(request.workers or (1 if plan.backend == "gpu" else usable_cores()), len(todo))
        _run_on(plan, todo, log, on_result, on_note, workers, pool)


@contextmanager
def _pool(
    request: Request, episodes: int, engine: Engine, on_note: Callable[[str], None]
) -> Iterator[tuple[int | None, Engine]]:
    """Yields the number of workers of a cluster (None without one), and the factory of their pool."""
    if request.cluster is None:
        yield None, engine
        return
    from vla_gen_bench.eval.ray_cluster import connected
    from vla_gen_bench.eval.ray_pool import RayPool, check_options

    check_options(request.arguments)
    with connected(request.cluster, request.workers, on_note, most=episodes) as size:
        yield size, partial(RayPool, cluster=request.cluster)


def _run_on(
    plan: Plan, todo: list[Job], log: OpenLog, on_result: Callable[[Result], None], on_note: Callable[[str], None],
    workers: int, pool: Engine,
) -> None:  # fmt: skip
    request = plan.request
    num_envs = min(request.num_envs or NUM_ENVS[plan.backend], -(-len(todo) // workers))  # ceil: no empty slots
    threads = request.cluster.threads if request.cluster else max(1, usable_cores() // workers)
    config = WorkerConfig(
        policy=request.policy, options=request.arguments, world=request.world, horizon=plan.suite.protocol.horizon,
        num_envs=num_envs, backend=plan.backend,
        threads=threads, record=request.record, render=request.render,
        sensors=plan.sensors.to_json(),
        videos=str(plan.folder / "videos"),
        time_limit_s=request.time_limit_s,
    )  # fmt: skip
    session = {"started": now(), **provenance.session(), "workers": workers, "num_envs": num_envs}
    session |= {"shard": str(request.shard)} if request.shard else {}
    session |= {"engine": "ray"} if request.cluster else {}

    def ready(info: dict[str, Any]) -> None:
        if others := log.processors(info["rounding"]):
            on_note(f"earlier episodes are from {others}, which rounds otherwise: they need not end alike here")
        info = {**info, "warnings": open_pack(request.world).warnings}
        log.begin(info, {**session, "manifest": plan.manifest})

    def keep(result: Result) -> None:
        log.append(_row(result), result.actions)
        on_result(result)

    pool(config, workers, ready).run(todo, keep)


def _manifest(jobs: Sequence[Job]) -> dict[str, Any]:
    return {
        "scenarios": list(dict.fromkeys(job.key[0] for job in jobs)),
        "seeds": list(dict.fromkeys(job.key[1] for job in jobs)),
        "episodes": len(jobs),
        "digest": digest_of([[*job.key, job.spec.digest()] for job in jobs]),
    }


def _row(result: Result) -> dict[str, Any]:
    scenario, seed, index = result.job.key
    head = {"scenario": scenario, "seed": seed, "index": index, "spec_digest": result.job.spec.digest()}
    if result.row is None:
        nothing = dict.fromkeys(("success_at_end", "success_once", "first_success_step"))
        outcome = {"status": "error", **nothing, "steps": 0, "error": result.error}
    else:
        outcome = result.row
    return {**head, **outcome, "duration_s": result.duration_s, "worker": result.worker}
