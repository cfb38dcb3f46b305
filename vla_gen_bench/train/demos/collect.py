"""`collect`: demonstrations from worker processes into a data set, resumable at any time."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vla_gen_bench.assets.pack import open_pack
from vla_gen_bench.assets.world import get_world
from vla_gen_bench.episodes.draw import FIRST_TRAINING_SEED, check_training_shift, draw_training, with_roles_swapped
from vla_gen_bench.episodes.shift import Shift
from vla_gen_bench.episodes.streams import POOLS_VERSION
from vla_gen_bench.errors import UserError, shown, suggest
from vla_gen_bench.log import provenance
from vla_gen_bench.log.guard import sole_writer
from vla_gen_bench.policies.identity import policy_digests
from vla_gen_bench.policies.registry import resolve
from vla_gen_bench.protocol import EXTERNAL, WRIST
from vla_gen_bench.runtime import starting_process
from vla_gen_bench.train.closed_loop import ROLLOUT_SEED
from vla_gen_bench.train.demos.dataset import EXPERT, Demos, Writer
from vla_gen_bench.train.demos.demonstrate import Demo, Demonstrator
from vla_gen_bench.train.starts import Wander

WANDER = Wander(steps=8, move=0.016, rise=0.0125, turn=0.06, closed=0.1)  # displaces by up to 13 cm, 10 cm, 28 degrees
AHEAD = 4  # episodes assigned per worker before its first result is taken


@dataclass(frozen=True)
class Request:
    """What to collect.

    Attributes:
        episodes: Successful demonstrations wanted in total.
        out: Data set folder; an existing one is continued.
        policy: "expert", or a policy that takes turns with it (DAgger): the data shows its mistakes, and the expert's
            actions are the labels.
        options: Arguments of that policy.
        noise: Scale of the disturbances while the expert drives, see `disturbance`.
        wander: Share of the demonstrations that start elsewhere: the arm first moves at random, unrecorded.
        world: World name.
        cameras: Names from `protocol.CAMERAS`, including the external one.
        render: Height and width of rendered images; None = the world's. At (side, side) they are stored as
            rendered, and `vgb eval --image-size SIDE` gives a policy the same.
        side: Side of the stored square images, pixels: the model's input size.
        seed: Training seed, 1,000,000 or more; episodes are draws 0, 1, 2, ... of this seed.
        drop_small: Leave out frames with little motion, as the paper's data sets do.
        workers: Processes.
        shift: Axes that sample from other training pools, as in a suite: {"distractor_object": "train"}.
        swap: Two episodes per scene, with the roles of target and first distractor object exchanged.
    """

    episodes: int
    out: Path
    policy: str = EXPERT
    options: dict[str, Any] = field(default_factory=dict)
    noise: float = 1.0
    wander: float = 0.0
    world: str = "builtin"
    side: int = 96
    cameras: tuple[str, ...] = (EXTERNAL,)
    render: tuple[int, int] | None = None
    seed: int = FIRST_TRAINING_SEED
    drop_small: bool = False
    workers: int = 1
    shift: dict[str, Any] = field(default_factory=dict)
    swap: bool = False

    @property
    def origin(self) -> dict[str, Any]:
        """What the data depends on; a folder is continued only if this is equal."""
        fields = asdict(self)
        kept = ("policy", "options", "noise", "wander", "world", "side", "seed", "drop_small", "shift", "swap")
        pack = open_pack(self.world)
        versions = {"world_version": get_world(self.world).version, "pools": POOLS_VERSION}
        versions |= {"catalog": pack.catalog.digest(), "pack": pack.digest}
        sensed = {"cameras": list(self.cameras), "render": None if self.render is None else list(self.render)}
        return {**{key: fields[key] for key in kept}, **sensed, **versions, **self._driver()}

    def _driver(self) -> dict[str, Any]:
        """Identifies another policy that drives: its code, checkpoint and files may change behind its name."""
        if self.policy == EXPERT:
            return {}
        found = provenance.versions()
        simulator = {name: found[name] for name in provenance.DECISIVE}
        return {"driver": policy_digests(resolve(self.policy), self.options), "simulator": simulator}


def check_request(request: Request) -> None:
    """Raises `UserError` for a request that cannot work, before anything is written."""
    from vla_gen_bench.policies.sensing import check_size

    world = get_world(request.world)
    for camera in request.cameras:
        if camera not in world.cameras:
            raise UserError(f"--cameras: no camera '{camera}'{suggest(camera, world.cameras)}")
    if EXTERNAL not in request.cameras:
        raise UserError("--cameras: the external camera must be among them; what is trained here looks through it")
    if request.render is not None:
        check_size(request.render, f"--render-size {request.render}")
    if not FIRST_TRAINING_SEED <= request.seed < ROLLOUT_SEED:  # higher seeds: RL rollouts, then checks
        raise UserError(
            f"--seed {request.seed}: demonstrations use training seeds, {FIRST_TRAINING_SEED} to {ROLLOUT_SEED - 1}"
        )
    shift = Shift.parse(request.shift, where="--shift")
    check_training_shift(shift)
    spec = draw_training(request.world, request.seed, 0, shift)
    if request.swap:
        with_roles_swapped(spec)
    if request.policy == EXPERT:
        if request.options:
            raise UserError(
                f"--policy-option {next(iter(request.options))}: the expert takes no options; give a --policy"
            )
        return
    if request.noise != Request.noise:
        raise UserError(f"--noise {request.noise:g}: disturbs only the expert, not --policy {request.policy}")
    resolve(request.policy).check_world(request.world)


def collect(request: Request, on_progress: Callable[[Writer], None] = lambda writer: None) -> Writer:
    """Collects until `request.episodes` demonstrations exist.

    Args:
        on_progress: Called after each episode.

    Raises:
        UserError: The request, the folder or a worker does not work. Written data stays, and the same call
            resumes after it.
    """
    check_request(request)
    with sole_writer(request.out):
        writer = Writer(request.out, request.side, request.origin, WRIST in request.cameras)
        if writer.kept < request.episodes:
            _fill(writer, request, on_progress)
        if not writer.finished:
            writer.finish()
    return writer


def _fill(writer: Writer, request: Request, on_progress: Callable[[Writer], None]) -> None:
    try:
        for demo in _demos(request, writer.attempts):
            writer.add(without_small(demo) if request.drop_small else demo)
            on_progress(writer)
            if writer.kept >= request.episodes:
                break
    finally:  # keep what was collected, whatever happened
        writer.flush()


def _demos(request: Request, first: int) -> Iterator[Demo]:
    """Yields the episodes from index `first`, in order."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(request.workers, context, _begin, (os.getpid(),))
    waiting: list[Future] = []
    try:
        while True:
            while len(waiting) < AHEAD * request.workers:
                with starting_process():
                    waiting.append(pool.submit(_run, request, first))
                first += 1
            yield waiting.pop(0).result()
    except BrokenProcessPool:
        raise UserError("a worker process died; run the same command again, it resumes where this one ended") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(parent: int) -> None:
    """Initialises a worker process."""
    from vla_gen_bench import runtime

    runtime.begin_worker(parent)
    runtime.prepare(1)


@cache
def _demonstrator(
    world: str, side: int, cameras: tuple[str, ...], render: tuple[int, int] | None, noise: float, wander: float,
    policy: str, options: str, shift: str, swap: bool,
) -> Demonstrator:  # fmt: skip
    """Builds this worker process's demonstrator, once; `options` and `shift` as JSON."""
    from vla_gen_bench import runtime
    from vla_gen_bench.envs.pick_place import PickPlaceEnv
    from vla_gen_bench.policies.registry import load_policy

    card = None if policy == EXPERT else resolve(policy)
    driver = None if card is None else load_policy(card, **json.loads(options))
    runtime.limit_threads(1)
    moves = WANDER.model_copy(update={"share": wander})
    env = PickPlaceEnv(world=world, obs_mode="rgb+segmentation", cameras=cameras, image_size=render)
    label = "policy" if card is None else card.label
    drawn = Shift.parse(json.loads(shift))
    return Demonstrator(env, side, noise, moves, driver, shift=drawn, swap=swap, label=label)


def _run(request: Request, index: int) -> Demo:
    options = json.dumps(request.options)
    sensed = request.world, request.side, request.cameras, request.render
    drawn = json.dumps(request.shift), request.swap
    own = _demonstrator(*sensed, request.noise, request.wander, request.policy, options, *drawn)
    return own.run(request.seed, index)


def without_small(demo: Demo) -> Demo:
    """Returns the demonstration without the frames that the paper's small-action filter drops."""
    from dataclasses import replace

    from vla_gen_bench.train.demos.frames import small_moves

    keep = ~small_moves(demo.actions, np.array([0]))
    columns = ("images", "foreground", "actions", "executed", "states", "observed", "wrist")
    there = [name for name in columns if getattr(demo, name) is not None]
    return replace(demo, **{name: getattr(demo, name)[keep] for name in there})


def check_origin(origin: Mapping[str, Any], file: Path) -> None:
    """Raises `UserError` unless what the data depends on is there, as far as `vgb data show` prints it."""
    for key, kind in {"policy": str, "noise": (int, float), "side": int, "seed": int}.items():
        if not isinstance(origin.get(key), kind):
            what = "a name" if kind is str else "a number"
            raise UserError(f"{file}: origin.{key}: expected {what}, got {shown(origin.get(key))}")


def describe(demos: Demos, own: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of `vgb data show`: counts, success of the collection, coverage, actions."""
    from vla_gen_bench.train.demos.frames import PHASES, kinds_of, small_moves

    kinds = kinds_of(demos)
    lengths = np.diff(demos.starts)
    return {
        "demonstrations": len(demos),
        "frames": int(demos.starts[-1]),
        "attempts": own["attempts"],
        "success": len(demos) / max(1, own["attempts"]),
        "failed": own["failed"],
        "length": {name: float(np.percentile(lengths, part)) for name, part in (("p5", 5), ("p50", 50), ("p95", 95))},
        "objects": _counted(demos.targets),
        "tables": _counted(demos.tables),
        "instructions": len(set(demos.instructions)),
        "phases": {name: float((kinds.phase == place).mean()) for place, name in enumerate(PHASES)},
        "small_actions": float(small_moves(demos.actions, demos.starts[:-1]).mean()),
        "disturbed": float(np.mean(np.abs(demos.actions - demos.executed).max(axis=1) > 1e-6)),
        "origin": own["origin"],
    }


def _counted(items: list[str]) -> dict[str, int]:
    return {item: items.count(item) for item in sorted(set(items))}
