"""A small study for tests, and stand-ins for what its parts do: commands that leave files, or the real thing, here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from demos import demo, written

from vla_gen_bench.study.declaration import Study, read_study
from vla_gen_bench.study.engines import Ended, Local
from vla_gen_bench.study.parts import Part, parts_of

SUITE = """
id: short
version: "1"
protocol: {episodes_per_seed: 2, seeds: [0, 1], horizon: 3}
scenarios:
  ind: {label: IND, dimension: ind}
  tables: {label: Tables, dimension: vision, shift: {table: unseen}}
"""
RECIPE = {
    "name": "tiny", "trainer": "sft", "model": {"size": "pico"}, "optimiser": {"lr": 3.0e-3, "clip": 1.0},
    "samples": 80, "batch": 8, "log_every": 5, "validate_every": 10,
}  # fmt: skip
STUDY = {
    "name": "rates",
    "title": "Rates",
    "seeds": [0, 1],
    "arms": {
        "low": {"recipe": "tiny.yaml", "data": ["demos"], "set": {"optimiser.lr": 1.0e-5}},
        "high": {"recipe": "tiny.yaml", "data": ["demos"]},
    },
    "evaluations": {"short": {"suite": "short.yaml"}},
    "questions": {"rate": {"ask": "Does a higher rate help?", "arms": ["low", "high"]}},
}
PARTS = [f"train/{arm}/{seed}" for arm in ("low", "high") for seed in (0, 1)]
PARTS += [f"eval/short/{arm}/{seed}" for arm in ("low", "high") for seed in (0, 1)]


def write_material(folder: Path) -> None:
    """Writes suite, recipe and demonstrations: two kinds of scenes that ask for opposite motions."""
    (folder / "short.yaml").write_text(SUITE)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    items = []
    for index in range(12):
        item, sign = demo(index), 1 if index % 2 else -1
        actions = item.actions * np.array([sign, -sign, 0, 0, 0, 0, 1], np.float32)
        images = np.full_like(item.images, 200 if sign > 0 else 40)
        items.append(replace(item, images=images, actions=actions, executed=actions))
    written(folder / "demos", items)


def write_study(**changes: object) -> Path:
    """Writes study.yaml, `STUDY` with top-level keys replaced."""
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


def parts_in(path: Path, folder: Path = Path("out")) -> tuple[Study, dict[str, Part]]:
    study = read_study(path)
    return study, parts_of(study, path, folder)


class Stub:
    """A command that leaves what a part leaves, at once.

    Args:
        failing: Names of parts that fail.
        stopping: Name of a part during which Ctrl-C is pressed.
        rate: Part name -> success rate of an evaluation's episodes.
    """

    def __init__(
        self, failing: Sequence[str] = (), stopping: str = "", rate: Callable[[str], float] = lambda name: 0.5
    ) -> None:
        self.failing, self.stopping, self.rate = failing, stopping, rate
        self.ran: list[str] = []

    def __call__(self, arguments: Sequence[str], printed: Path) -> int:
        out = Path(arguments[arguments.index("--out") + 1])
        name = "/".join(out.parts[1:])
        self.ran.append(name)
        if name == self.stopping:
            raise KeyboardInterrupt
        if name in self.failing:
            with printed.open("a") as file:
                file.write("loading\nerror: demos: the disk is on fire\n")
            return 2
        _leave_checkpoint(arguments, out) if arguments[0] == "train" else _leave_log(name, out, self.rate(name))
        return 0


def _leave_checkpoint(arguments: Sequence[str], out: Path) -> None:
    recipe = Path(arguments[arguments.index("--recipe") + 1]).read_bytes()
    (out / "checkpoint").mkdir(parents=True, exist_ok=True)
    (out / "checkpoint" / "model").write_text(hashlib.sha256(recipe).hexdigest())


def _leave_log(name: str, out: Path, rate: float) -> None:
    from report_logs import write_log

    rng = np.random.default_rng(list(name.encode()))
    outcomes = {scenario: [bool(rng.random() < rate) for _ in range(12)] for scenario in ("ind", "unseen_table")}
    write_log(out, outcomes, policy="openvla")


class Here(Local):
    """Trains and evaluates for real, in this process: no time is spent on starting others."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def wait(self) -> Ended:
        part, self._part = self._part, None
        assert part is not None
        self.ran.append(part.name)
        _train(part) if part.recipe else _evaluate(part)
        return Ended(part.name, 0, "")


def _train(part: Part) -> None:
    from vla_gen_bench.train.processes import join
    from vla_gen_bench.train.run import RunOptions
    from vla_gen_bench.train.sft import trainer

    trainer.train(part.recipe, part.out, join("cpu"), lambda line: None, RunOptions())


def _evaluate(part: Part) -> None:
    from vla_gen_bench.eval.evaluate import evaluate, make_plan
    from vla_gen_bench.eval.in_process import InProcess
    from vla_gen_bench.policies.registry import load_policy

    plan = make_plan(part.request)
    policy = load_policy(plan.card, **part.request.arguments)
    evaluate(plan, engine=InProcess(policy, plan.card))
