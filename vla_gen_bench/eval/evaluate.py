"""`evaluate`: from a policy's name and suites to a log folder, resuming what is already there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_gen_bench.assets.pack import open_pack
from vla_gen_bench.assets.world import get_world
from vla_gen_bench.envs.backend import NUM_ENVS, SIMULATIONS, choose_backend
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.episodes.suite import Scenario, Suite, draw, load_suite, union
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.workers import Job, Result, WorkerConfig, WorkerPool
from vla_gen_bench.log import provenance
from vla_gen_bench.log.counts import count
from vla_gen_bench.log.log import RUN_FILE, LogWriter, key_of
from vla_gen_bench.policies.card import Card
from vla_gen_bench.policies.identity import effect_plugins, file_digests, option_files
from vla_gen_bench.policies.registry import resolve
from vla_gen_bench.policies.sensing import sensors_of
from vla_gen_bench.protocol import Needs
from vla_gen_bench.runtime import usable_cores

FORMAT = 1


@dataclass(frozen=True)
class Request:
    """What the user asked for; None means the suite's protocol, or a sensible default.

    Attributes:
        policy: Name, `module:attr`, or folder with a card.
        checkpoint: File, folder or hub id handed to the policy's factory as `checkpoint`.
        suites: Names or paths, at least one.
        scenarios: Ids, compositions such as "unseen_table + noise_weak"; None = all.
        episodes: Per scenario and seed.
        quick: Run the suite's quick share of its episodes, where `episodes` and `seeds` say nothing else.
        workers: Processes; None = one per core, on a GPU one.
        backend: Where the physics runs: "cpu", "gpu", or "auto" = on a GPU where one can be used.
        num_envs: Episodes side by side in a process; None = 1, on a GPU 64.
        out: Log folder; None = `runs/<policy>/<suite>-<world>`.
        fresh: Move an earlier log aside instead of continuing it.
        must_resume: Refuse to start a new log.
        record: Videos: "none", "all", "failures".
        render: Draw observations; a privileged policy does without.
        image_size: Height and width of the images in pixels; None = the policy's card's, else the world's.
    """

    policy: str
    suites: Sequence[str]
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
    must_resume: bool = False
    record: str = "none"
    render: bool = True
    time_limit_s: float = 300.0
    image_size: tuple[int, int] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The factory's arguments: the options, and the checkpoint if one is given."""
        return {**self.options, **({} if self.checkpoint is None else {"checkpoint": self.checkpoint})}


@dataclass(frozen=True)
class Plan:
    """A request worked out: everything that can be wrong with it has been checked."""

    request: Request
    suite: Suite
    scenarios: list[Scenario]
    card: Card
    jobs: list[Job]
    folder: Path
    identity: dict[str, Any]
    backend: str
    sensors: Needs = Needs()


@dataclass(frozen=True)
class Summary:
    """The outcome over the episodes of a plan."""

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


def make_plan(request: Request) -> Plan:
    """Checks the request and draws its episodes; generates the builtin assets on first use.

    Raises:
        UserError: Anything in the request is wrong; nothing has been written then.
    """
    suite = union([load_suite(name) for name in request.suites])
    scenarios = suite.select(request.scenarios)
    world, card = get_world(request.world), resolve(request.policy)
    card.check_world(request.world)
    sensors = sensors_of(card, world, request.image_size, request.arguments)
    if not request.render and (not card.privileged or request.record != "none"):
        raise UserError("--no-render is for privileged policies without --video: all others need the pictures")
    backend = choose_backend(request.backend)
    if backend == "gpu" and (request.workers or 1) > 1:
        raise UserError(f"--workers {request.workers}: a GPU simulates all episodes in one process; use --num-envs")
    jobs = _draw_jobs(request, suite, scenarios)
    folder = request.out or default_folder(_run_name(card, request), suite.id, request.world)
    identity = _identity(request, suite, card) | {"backend": {"simulation": SIMULATIONS[backend]}}
    plugins = effect_plugins(effect.name for job in jobs for effect in job.spec.effects)
    identity |= {"effects": plugins} if plugins else {}
    if sensors != Needs():  # otherwise left out, as in logs that were written before there was a choice
        identity["sensors"] = sensors.to_json()
    return Plan(request, suite, scenarios, card, jobs, folder, identity, backend, sensors)


def _run_name(card: Card, request: Request) -> str:
    return card.name if request.checkpoint is None else f"{card.name}-{Path(request.checkpoint).name}"


def default_folder(policy: str, suite: str, world: str) -> Path:
    """Returns `runs/<policy>/<suite>-<world>`, with characters a folder name should not have replaced."""
    return Path("runs") / re.sub(r"[^\w.+-]+", "_", policy) / f"{suite}-{world}"


def _draw_jobs(request: Request, suite: Suite, scenarios: list[Scenario]) -> list[Job]:
    share = suite.quick if request.quick else suite.protocol
    episodes, seeds = request.episodes or share.episodes_per_seed, request.seeds or share.seeds
    keys = [(scenario, seed, index) for scenario in scenarios for seed in seeds for index in range(episodes)]
    return [Job((s.id, seed, index), draw(s, request.world, seed, index)) for s, seed, index in keys]


def _identity(request: Request, suite: Suite, card: Card) -> dict[str, Any]:
    """What must be equal for two sessions to share a log."""
    pack = open_pack(request.world)
    versions = provenance.versions()
    return {
        "suite": {"id": suite.id, "version": suite.version, "digest": suite.digest(), "sources": list(request.suites)},
        "policy": {
            "name": card.name,
            "ref": request.policy,
            "digest": card.digest(own_checkpoint="checkpoint" not in request.arguments),
            "options": request.arguments,
            "checkpoint": _checkpoint_digest(request.arguments.get("checkpoint")),
            "privileged": card.privileged,
            **_option_digests(request.options),
        },
        "world": {"name": request.world, "catalog": pack.catalog.digest(), "pack": pack.digest},
        "horizon": suite.protocol.horizon,
        "rendered": request.render,
        "simulator": {name: versions[name] for name in provenance.DECISIVE},
    }


def _checkpoint_digest(checkpoint: Any) -> str | None:
    """Returns a digest over the bytes of a local checkpoint; None for a hub id, which the policy pins to a commit."""
    if not isinstance(checkpoint, str) or not Path(checkpoint).exists():
        return None
    return digest_of(file_digests(Path(checkpoint)))


def _option_digests(options: dict[str, Any]) -> dict[str, Any]:
    """Returns what tells files apart that options name, the checkpoint aside; nothing where none names one."""
    files = option_files({key: value for key, value in options.items() if key != "checkpoint"})
    return {"files": digest_of(files)} if files else {}


def evaluate(
    plan: Plan,
    on_start: Callable[[int, int], None] = lambda done, total: None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> Summary:
    """Runs what is missing from the plan's log and returns the counts of all of it.

    Args:
        on_start: Called with the episodes already in the log and the number of all.
        on_result: Called after each finished episode is on disk.

    Raises:
        UserError: The log there belongs to another run, or cannot be written; the policy cannot be used.
        KeyboardInterrupt: Passed on after the finished episodes are safe.
    """
    writer = LogWriter(plan.folder)
    header, kept = _open_log(plan, writer)
    done = {key_of(row) for row in kept}
    todo = [job for job in plan.jobs if job.key not in done]
    on_start(len(plan.jobs) - len(todo), len(plan.jobs))
    if todo:
        _run(plan, todo, writer, header, on_result)
    return summarise(plan, writer.sort(list(plan.suite.scenarios)))


def summarise(plan: Plan, rows: list[dict[str, Any]]) -> Summary:
    """Returns the counts over those rows that belong to the plan."""
    wanted = {job.key for job in plan.jobs}
    chosen = [row for row in rows if key_of(row) in wanted]
    ids = [scenario.id for scenario in plan.scenarios]
    metric = plan.suite.protocol.metric
    counts = {id: count((row for row in chosen if row["scenario"] == id), metric) for id in ids}
    return Summary(plan, counts, len(chosen) == len(wanted))


# ---- the log folder ----------------------------------------------------------------------------------------


def _open_log(plan: Plan, writer: LogWriter) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the header and the rows that stay; refuses a log of another run."""
    exists = (plan.folder / RUN_FILE).exists()
    if plan.request.must_resume and not exists:
        raise UserError(
            f"{plan.folder}: no log to resume there ({RUN_FILE} not found); leave out --resume to start one"
        )
    if exists and plan.request.fresh:
        _move_aside(plan.folder)
        exists = False
    if not exists:
        header = {"format": FORMAT, **plan.identity, "started": _now(), "sessions": []}
        writer.write_header(header)
        return header, []
    header = writer.log.header
    _check_identity(plan, header)
    rows = writer.mend()
    _check_specs(plan, rows)
    return header, rows


def _move_aside(folder: Path) -> None:
    target = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        folder.rename(target)
    except OSError as error:
        raise UserError(f"{folder}: cannot be moved aside ({error.strerror})") from error


def _check_identity(plan: Plan, header: dict[str, Any]) -> None:
    theirs = _flat({"sensors": {}, **header})
    for name, ours in _flat({"sensors": {}, **plan.identity}).items():
        if theirs.get(name) != ours:
            raise UserError(
                f"{plan.folder}: the log there is of another run: {name} is {theirs.get(name)!r}, now {ours!r}; "
                "give another folder with --out, or --fresh to move it aside"
            )


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """Returns {"suite digest": ...} for {"suite": {"digest": ...}}; what a log does not say counts as None."""
    rows: dict[str, Any] = {}
    for name, value in identity.items():
        if isinstance(value, dict) and name != "sensors":  # equal or not as a whole: keys are left out where usual
            rows |= {f"{name} {key}": inner for key, inner in value.items()}
        else:
            rows[name] = value
    return rows


def _check_specs(plan: Plan, rows: list[dict[str, Any]]) -> None:
    logged = {key_of(row): row["spec_digest"] for row in rows}
    for job in plan.jobs:
        if job.key in logged and logged[job.key] != job.spec.digest():
            raise UserError(
                f"{plan.folder}: episode {'/'.join(map(str, job.key))} in the log was drawn differently; "
                "use --out or --fresh"
            )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# ---- running -----------------------------------------------------------------------------------------------


def _run(plan: Plan, todo: list[Job], writer: LogWriter, header: dict, on_result: Callable[[Result], None]) -> None:
    request = plan.request
    workers = min(request.workers or (1 if plan.backend == "gpu" else usable_cores()), len(todo))
    num_envs = min(request.num_envs or NUM_ENVS[plan.backend], -(-len(todo) // workers))
    config = WorkerConfig(
        policy=request.policy, options=request.arguments, world=request.world, horizon=plan.suite.protocol.horizon,
        num_envs=num_envs, backend=plan.backend,
        threads=max(1, usable_cores() // workers), record=request.record, render=request.render,
        sensors=plan.sensors.to_json(),
        videos=str(plan.folder / "videos"),
        time_limit_s=request.time_limit_s,
    )  # fmt: skip
    session = {
        "started": _now(),
        **provenance.session(),
        "workers": workers,
        "num_envs": num_envs,
        "manifest": _manifest(plan),
    }

    def ready(info: dict[str, Any]) -> None:
        header.update(info)
        header["warnings"] = open_pack(request.world).warnings
        header["sessions"].append(session)
        writer.write_header(header)

    def keep(result: Result) -> None:
        writer.append(_row(result), result.actions)
        on_result(result)

    WorkerPool(config, workers, ready).run(todo, keep)


def _manifest(plan: Plan) -> dict[str, Any]:
    """What this session was to run, and a digest over all its specs."""
    return {
        "scenarios": [scenario.id for scenario in plan.scenarios],
        "episodes": len(plan.jobs),
        "digest": digest_of([[*job.key, job.spec.digest()] for job in plan.jobs]),
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
