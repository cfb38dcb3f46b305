"""Measurements of this machine against the project's targets; `vgb bench` prints them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, quantiles

from vla_gen_bench.bench.floor import Floor
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.evaluate import Request, evaluate, make_plan
from vla_gen_bench.log import provenance

EPISODES_TIMED = 6
BATCH, BATCH_STEPS = 8, 40
FIRST_SEED = 100  # timings use episodes that no published number uses


@dataclass(frozen=True)
class Line:
    """One measurement.

    Attributes:
        target: The bound to meet; `at_least` tells whether it is a lower bound.
        floor: The value of the simulator alone on this machine, in the same unit.
        met: None without a target.
        ratio: Its time divided by the floor's; None without a floor.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        if self.floor is None:
            return None
        return self.floor / self.value if self.at_least else self.value / self.floor

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True)
class Targets:
    """Targets of a world: milliseconds per step and reset, success rates of the expert."""

    suites: tuple[str, ...]
    step_ms: float
    reset_ms: float
    ind: float
    others: float


TARGETS = {
    "builtin": Targets(("all",), 5.5, 120, 0.95, 0.85),
    "pretrain": Targets(("all",), 5.5, 120, 0.95, 0.85),
    "rl4vla": Targets(("table1",), 13.5, 150, 0.90, 0.75),
}


def command_line() -> Iterator[Line]:
    """Times `vgb --help`, best of five."""
    times = [_timed(lambda: _run("--help")) for _ in range(5)]
    yield Line("vgb --help", min(times), "s", 0.5)


def first_use() -> Iterator[Line]:
    """Times generating the builtin assets into an empty folder, in this process."""
    from vla_gen_bench.assets.generation import generate

    with tempfile.TemporaryDirectory() as folder:
        seconds = _timed(lambda: generate("builtin", Path(folder) / "pack"))
        yield Line("first use of the builtin assets", seconds, "s", 20)


def steps(world: str) -> Iterator[Line]:
    """Times step and reset of one environment with the expert acting, in this process."""
    from vla_gen_bench import runtime
    from vla_gen_bench.envs.factory import build_env
    from vla_gen_bench.episodes.suite import draw, load_suite
    from vla_gen_bench.policies.expert import Expert

    runtime.limit_threads(1)
    env, expert = build_env(world), Expert()
    suite = load_suite("all")
    scenarios, horizon = suite.select(["ind", "multi_object_ind"]), suite.protocol.horizon
    floor, step_s, reset_s, act_s = Floor(env), [], [], []
    step_floor_s, reset_floor_s = [], []
    for index in range(EPISODES_TIMED):
        for scenario in scenarios:
            spec = draw(scenario, world, FIRST_SEED, index)
            floor.seconds()
            reset_s.append(_timed(lambda: env.reset(options={"spec": spec})))
            reset_floor_s.append(floor.seconds())
            expert.reset([spec.instruction], [index])
            _time_steps(env, expert, horizon, step_s, act_s, floor, step_floor_s)
    targets, size = TARGETS[world], f"{env.world.width}x{env.world.height}"
    name, bare = f"{world}: step, {size}, median of whole episodes", 1e3 * median(step_floor_s)
    yield Line(name, 1e3 * median(step_s), "ms", targets.step_ms, floor=bare)
    yield Line(f"{world}: step, mean", 1e3 * mean(step_s), "ms", floor=1e3 * mean(step_floor_s))
    yield Line(f"{world}: step, 90% are below", 1e3 * quantiles(step_s, n=10)[-1], "ms")
    name, bare = f"{world}: reset with a fresh scene, median", 1e3 * median(reset_floor_s)
    yield Line(name, 1e3 * median(reset_s), "ms", targets.reset_ms, floor=bare)
    yield Line(f"{world}: expert.act, median", 1e3 * median(act_s), "ms")
    yield Line(f"{world}: memory of that process", peak_memory_gib(), "GiB", 1.0)
    yield from side_by_side(world)


def side_by_side(world: str) -> Iterator[Line]:
    """Times steps of a batch of episodes with rendered images and motionless arms, in this process."""
    import numpy as np

    from vla_gen_bench.envs.factory import build_batch
    from vla_gen_bench.episodes.suite import draw, load_suite

    batch, ind = build_batch(world, BATCH), load_suite("all").select(["ind"])[0]
    batch.reset([draw(ind, world, FIRST_SEED, index) for index in range(BATCH)])
    still = np.tile(np.float32([0, 0, 0, 0, 0, 0, 1]), (BATCH, 1))
    seconds = _timed(lambda: [batch.step(still) for _ in range(BATCH_STEPS)])
    floors = [Floor(env) for env in batch.envs]
    batch.step(still)
    bare = BATCH / sum(floor.seconds() for floor in floors)
    name = f"{world}: {BATCH} episodes side by side in one process"
    yield Line(name, BATCH * BATCH_STEPS / seconds, "steps/s", at_least=True, floor=bare)


def _time_steps(
    env, expert, horizon: int, step_s: list[float], act_s: list[float], floor: Floor, floor_s: list[float]
) -> None:
    import numpy as np

    from vla_gen_bench.protocol import Observation

    image = np.zeros((1, 1, 1, 3), np.uint8)
    for step in range(horizon):
        seen = Observation(image, env.instructions, np.array([step]), [env.privileged_state(0)])
        start = time.perf_counter()
        action = expert.act(seen)[:, 0]
        act_s.append(time.perf_counter() - start)
        step_s.append(_timed(lambda: env.step(action)))
        floor_s.append(floor.seconds())


def peak_memory_gib() -> float:
    """Returns the peak of this process's resident memory so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def success(world: str, folder: Path, tell: Callable[[str], None]) -> Iterator[Line]:
    """Runs the expert on every scenario, 3 seeds x 64 episodes; continues an earlier run in `folder`."""
    targets = TARGETS[world]
    # The expert uses no image; rendering at 640x480 would take hours.
    request = Request("expert", targets.suites, world=world, out=folder / f"expert-{world}", render=world == "builtin")
    plan = make_plan(request)
    tell(f"expert on {plan.suite.id}, world {world}: {len(plan.jobs)} episodes, log in {plan.folder}")
    done = [0]

    def progress(result) -> None:
        done[0] += 1
        if done[0] % 200 == 0:
            tell(f"  {done[0]} episodes")

    for id, row in evaluate(plan, on_result=progress).scenarios.items():
        bound = targets.ind if id == "ind" else targets.others
        ended, won = row["episodes"] - row["errors"], row["success_at_end"]
        yield Line(f"{world}: expert success, {id}, {won}/{ended}", won / ended if ended else 0.0, "", bound, True)


def throughput(folder: Path) -> Iterator[Line]:
    """Times `vgb eval --policy expert --suite execution` from an empty log, including set-up."""
    out = folder / "throughput"
    start = time.perf_counter()
    answer = _run("eval", "--policy", "expert", "--suite", "execution", "--out", str(out), "--fresh", "--json")
    seconds = time.perf_counter() - start
    scenarios = json.loads(answer)["scenarios"]
    episodes = sum(row["episodes"] for row in scenarios.values())
    yield Line(
        f"vgb eval --policy expert --suite execution, {episodes} episodes",
        episodes * 80 / seconds,
        "steps/s",
        120,
        True,
    )


def machine() -> dict:
    """Returns the description of the machine that is stored with the measurements."""
    return {"hardware": provenance.hardware(), "versions": provenance.versions(), "git": provenance.git_state()}


def to_json(lines: list[Line]) -> dict:
    """Returns machine and measurements as plain data."""
    return {**machine(), "lines": [{**asdict(line), "met": line.met, "ratio": line.ratio} for line in lines]}


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "vla_gen_bench", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"vgb {' '.join(arguments)}: ended with status {done.returncode}; its own message is above")
    return done.stdout
