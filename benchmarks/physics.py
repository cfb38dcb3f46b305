"""How little work PhysX may do before grasps fail: `benchmarks/physics.py run|compare`, see docs/physics.md.

`run` lets the expert play the scenarios whose physics differ, without rendering, and writes a row per episode.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vla_gen_bench import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import sapien  # noqa: E402

from vla_gen_bench.assets import world  # noqa: E402
from vla_gen_bench.envs.pick_place import PickPlaceEnv  # noqa: E402
from vla_gen_bench.episodes.suite import draw, load_suite  # noqa: E402
from vla_gen_bench.policies.expert import Expert  # noqa: E402
from vla_gen_bench.protocol import Observation  # noqa: E402

SCENARIOS = (
    "ind", "unseen_object", "unseen_receptacle", "multi_object_ind", "multi_object_ood", "disturb_receptacle",
    "multi_receptacle", "unseen_position", "unseen_robot_pose", "object_reposition",
)  # fmt: skip
HORIZON, LIFTED_M, SOON = 80, 0.02, 8
KEY = ("scenario", "seed", "index")
POSE = [f"{role}_{axis}" for role in ("target", "receptacle") for axis in ("x", "y", "z", "qw", "qx", "qy", "qz")]
NUMBERS = ("success", "held", "dropped", "width_mm", "force_n", "slip_mm", "slip_deg", "speed_mm_s", "physics_ms")
NO_IMAGE = np.zeros((1, 1, 1, 3), np.uint8)


class Timed(PickPlaceEnv):
    """Counts processor seconds spent in PhysX; other load on the machine affects them little."""

    seconds = 0.0

    def simulate(self, substeps: int) -> None:
        start = time.process_time()
        super().simulate(substeps)
        self.seconds += time.process_time() - start


def episode(env: Timed, expert: Expert, scenario, seed: int, index: int) -> dict[str, object]:
    """Plays one episode; returns its row."""
    spec = draw(scenario, "builtin", seed, index)
    env.reset(options={"spec": spec})
    expert.reset([spec.instruction], [index])
    things = {thing.role: thing.actor for thing in env.things}
    poses = [value for role in ("target", "receptacle") for value in things[role].pose.raw_pose[0].tolist()]
    speed = max(float(actor.linear_velocity[0].norm()) for actor in things.values())
    env.seconds, track = 0.0, []
    for step in range(HORIZON):
        seen = Observation(NO_IMAGE, env.instructions, np.array([step]), [env.privileged_state(0)])
        env.step(expert.act(seen)[:, 0])
        track.append(_state(env, things["target"]))
    head = dict(zip(KEY, (scenario.id, seed, index), strict=True)) | dict(zip(POSE, poses, strict=True))
    outcome = {"success": bool(env.judge.success[0]), "held": bool(env.judge.progress.held_ever[0])}
    cost = {"speed_mm_s": 1e3 * speed, "physics_ms": 1e3 * env.seconds / HORIZON}
    return head | outcome | _grasp(np.array(track), poses[2] + LIFTED_M) | cost


def _state(env: Timed, target) -> list[float]:
    """[grasped, success, height, opening, force, pose of the target in the gripper's frame (7)]."""
    pose = target.pose.raw_pose[0].numpy()
    tool = env.agent.controller.controllers["arm"].ee_pose.raw_pose[0].numpy()
    held = sapien.Pose(tool[:3], tool[3:]).inv() * sapien.Pose(pose[:3], pose[3:])
    opening = float(env.agent.robot.get_qpos()[0, -2:].sum())
    force = np.mean([float(env.judge.forces[f"{side}/target"][0].norm()) for side in ("left", "right")])
    return [float(env.judge.grasped[0]), float(env.judge.success[0]), pose[2], opening, force, *held.p, *held.q]


def _grasp(track: np.ndarray, lifted: float) -> dict[str, object]:
    """Describes the longest airborne grasp of the target: finger opening, force, and how far it slid and turned."""
    up = np.flatnonzero((track[:, 0] > 0) & (track[:, 2] > lifted))
    if not len(up):
        return dict.fromkeys(("dropped", "width_mm", "force_n", "slip_mm", "slip_deg"))
    run = max(np.split(up, np.flatnonzero(np.diff(up) > 1) + 1), key=len)
    held, end = track[run], run[-1]
    cosine = np.abs(held[:, 8:] @ held[0, 8:]).clip(max=1)
    return {
        "dropped": bool(end < HORIZON - 1 and not track[end : end + SOON, 1].any()),
        "width_mm": 1e3 * held[:, 3].mean(),
        "force_n": held[:, 4].mean(),
        "slip_mm": 1e3 * np.linalg.norm(held[:, 5:8] - held[0, 5:8], axis=1).max(),
        "slip_deg": 2 * np.degrees(np.arccos(cosine)).max(),
    }


def run(iterations: int, offset: float, seeds: list[int], episodes: int) -> Iterator[dict[str, object]]:
    """Yields the rows of all episodes under the given physics."""
    runtime.limit_threads(1)
    physics = world.Physics(iterations, offset)
    world.WORLDS["builtin"] = replace(world.WORLDS["builtin"], physics=physics)
    env, expert = Timed(world="builtin", obs_mode="none"), Expert()
    for scenario in load_suite("all").select(SCENARIOS):
        for seed in seeds:
            yield from (episode(env, expert, scenario, seed, index) for index in range(episodes))


def compare(first: Path, other: Path) -> Iterator[str]:
    """Yields lines on each of two result files, then on how far objects are apart and grasp widths differ."""
    tables = [_read(path) for path in (first, other)]
    keys = [key for key in tables[0] if key in tables[1]]
    yield f"{len(keys)} episodes"
    for path, table in zip((first, other), tables, strict=True):
        column = {name: np.array([table[key][name] for key in keys]) for name in NUMBERS}
        yield (
            f"{path.stem}: success {column['success'].sum():.0f}, held {column['held'].sum():.0f}, dropped "
            f"{np.nansum(column['dropped']):.0f}; width {np.nanmean(column['width_mm']):.2f} mm, force "
            f"{np.nanmean(column['force_n']):.1f} N; slip median {np.nanmedian(column['slip_mm']):.2f} mm, 95% "
            f"{np.nanquantile(column['slip_mm'], 0.95):.2f} mm, {np.nanquantile(column['slip_deg'], 0.95):.1f} deg; "
            f"speed after settling at most {column['speed_mm_s'].max():.1f} mm/s; physics "
            f"{column['physics_ms'].mean():.2f} ms a step"
        )
    for role in ("target", "receptacle"):
        points = [np.array([[table[key][f"{role}_{axis}"] for axis in "xyz"] for key in keys]) for table in tables]
        apart = 1e3 * np.linalg.norm(points[0] - points[1], axis=1)
        middle, far = np.median(apart), np.quantile(apart, 0.9)
        yield f"{role} settles apart: median {middle:.2f} mm, 90% {far:.2f}, most {apart.max():.1f}"
    widths = np.array([tables[1][key]["width_mm"] - tables[0][key]["width_mm"] for key in keys])
    yield f"width: {np.nanmean(widths):+.2f} mm, 95% within {np.nanquantile(np.abs(widths), 0.95):.2f} mm"


def _read(path: Path) -> dict[tuple[str, ...], dict[str, float]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    number = {"True": 1.0, "False": 0.0, "": np.nan}
    return {
        tuple(row[name] for name in KEY): {
            name: number[value] if value in number else float(value) for name, value in row.items() if name not in KEY
        }
        for row in rows
    }


def _rounded(row: dict[str, object]) -> dict[str, object]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    runs = actions.add_parser("run")
    runs.add_argument("--iterations", type=int, required=True)
    runs.add_argument("--offset", type=float, required=True, help="metres")
    runs.add_argument("--seeds", type=int, nargs="+", default=[0])
    runs.add_argument("--episodes", type=int, default=20)
    runs.add_argument("--out", type=Path, required=True)
    both = actions.add_parser("compare")
    both.add_argument("files", type=Path, nargs=2)
    given = parser.parse_args()
    if given.action == "compare":
        print("\n".join(compare(*given.files)))
        return
    with given.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*KEY, *POSE, *NUMBERS], lineterminator="\n")
        writer.writeheader()
        for row in run(given.iterations, given.offset, given.seeds, given.episodes):
            writer.writerow(_rounded(row))


if __name__ == "__main__":
    main()
