"""Studies as data: what is refused, in one line, before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from studies import RECIPE, STUDY, SUITE, parts_in, write_study

from vla_gen_bench.resources import data_dir
from vla_gen_bench.study.declaration import read_study

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples" / "studies").glob("*.yaml"))
ARMS, QUESTION = STUDY["arms"], STUDY["questions"]["rate"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "demos").mkdir()
    (tmp_path / "short.yaml").write_text(SUITE)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arms(**more: Any) -> dict[str, Any]:
    """The study's arms, and others or changes of these."""
    return {"arms": {**ARMS, **{name: {**ARMS.get(name, {}), **keys} for name, keys in more.items()}}}


def asked(**changes: Any) -> dict[str, Any]:
    return {"questions": {"rate": {**QUESTION, **changes}}}


TINY = {"recipe": "tiny.yaml", "data": ["demos"]}
WRONG = {
    "unknown key": ({"armz": {}}, "unknown key 'armz'; did you mean 'arms'?"),
    "key of an arm": (arms(low={"sett": {}}), "arms.low.sett: extra inputs are not permitted"),
    "name": (arms(**{"../x": TINY}), "arms.../x.[key]: string should match pattern"),
    "arm of a question": (asked(arms=["low", "hihg"]), "questions.rate.arms: unknown arm 'hihg'; did you mean 'high'?"),
    "evaluation": (asked(evaluations=["long"]), "questions.rate.evaluations: unknown evaluation 'long'"),
    "one arm": (asked(arms=["low"]), "questions.rate.arms: tuple should have at least 2 items"),
    "arm twice": (asked(arms=["low", "low"]), "questions.rate.arms: arm 'low' is given twice"),
    "start": (arms(low={"start": "worm"}), "arms.low.start: unknown arm 'worm'"),
    "circle of one": (arms(low={"start": "low"}), "arms: low starts from low; one of them must"),
    "circle": (
        arms(low={"start": "high"}, high={"start": "low"}),
        "arms: low starts from high starts from low; one of them must start from a checkpoint",
    ),
    "start that is not trained": (
        {"arms": {**arms(low={"start": "still"})["arms"], "still": {"policy": "hold"}}, **asked(arms=["low", "high"])},
        "arms.low.start: 'still' is not trained here",
    ),
    "seeds of a start": (
        arms(low={"start": "high", "seeds": [0, 5]}),
        "arms.low: no seed 5 of 'high', which it starts from (its seeds: [0, 1])",
    ),
    "no shared seed": (arms(low={"seeds": [5]}), "questions.rate: its arms share no training seed"),
    "seed twice": ({"seeds": [1, 1]}, "low: seeds: a seed is given twice in [1, 1]"),
    "seed as text": ({"seeds": ["1"]}, "seeds.0: input should be a valid integer, got '1'"),
    "unused arm": (arms(more=TINY), "arms.more: no question compares it, and no arm starts from it; leave it out"),
    "unused evaluation": (
        {"evaluations": {**STUDY["evaluations"], "b": {"suite": "vision"}}, **asked(evaluations=["short"])},
        "evaluations.b: no question uses it",
    ),
    "evaluation seed": (
        {"evaluations": {"short": {"suite": "short.yaml", "seeds": [1_000_000]}}},
        "evaluations.short.seeds.0: input should be less than or equal to 999999",
    ),
    "episodes": (
        {"evaluations": {"short": {"suite": "short.yaml", "episodes": 100_001}}},
        "evaluations.short.episodes: input should be less than or equal to 100000",
    ),
    "recipe and policy": (arms(low={"policy": "hold"}), "arms.low: give either recipe"),
    "seed in a change": (arms(low={"set": {"seed": 3}}), "'seed' is the study's own"),
    "start and checkpoint": (
        arms(low={"start": "high", "set": {"model.checkpoint": "x"}}),
        "'model.checkpoint' and start both name the model",
    ),
    "option": (arms(low={"options": {"checkpoint": "x"}}), "'checkpoint' is no option here"),
    "start and nested checkpoint": (
        arms(low={"start": "high", "set": {"model": {"checkpoint": "x"}}}),
        "'model.checkpoint' and start both name the model",
    ),
    "data and data": (arms(low={"set": {"data": ["demos"]}}), "arms.low: set: 'data' and data both name what to learn"),
    "setting twice": (
        arms(low={"set": {"optimiser.lr": 1.0, "optimiser": {"lr": 2.0}}}),
        "arms.low: set: 'optimiser",
    ),
    "unknown option": (
        arms(low={"options": {"temprature": 1}}),
        "arms.low: policy 'openvla': no option 'temprature'; did you mean 'temperature'?",
    ),
    "option that an arm lacks": (
        {
            "arms": {**ARMS, "still": {"policy": "hold"}}, **asked(arms=["low", "high", "still"]),
            "evaluations": {"short": {"suite": "short.yaml", "options": {"temperature": 1}}},
        },
        "arms.still: policy 'hold': no option 'temperature'",
    ),
    "no recipe": (arms(low={"recipe": "ppo-ors"}), "arms.low.recipe: ppo-ors: no file, and no policy with a recipe"),
    "change of no key": (arms(low={"set": {"optimiser.lrr": 1}}), "arms.low: tiny.yaml: optimiser.lrr"),
    "change out of range": (arms(low={"set": {"optimiser.lr": -1}}), "optimiser.lr: input should be greater than 0"),
    "no data": (arms(low={"data": ["demoz"]}), "arms.low: data demoz: no such folder; collect it with 'vgb collect'"),
    "none named": (arms(low={"data": []}), "arms.low: no data; name demonstrations"),
    "data of rl": (arms(low={"recipe": "ppo-orz"}), "arms.low.data: trainer ppo takes no data"),
    "checkpoint": (
        arms(low={"set": {"model.checkpoint": "a/b/c", "model.size": None}}),
        "arms.low: checkpoint 'a/b/c': no such folder or policy",
    ),
    "suite": ({"evaluations": {"short": {"suite": "visoin"}}}, "evaluations.short: unknown suite 'visoin'"),
    "scenario": (
        {"evaluations": {"short": {"suite": "short.yaml", "scenarios": ["tabels"]}}},
        "evaluations.short: suite 'short': unknown scenario 'tabels'; did you mean 'tables'?",
    ),
    "world": ({"evaluations": {"short": {"suite": "short.yaml", "world": "bultin"}}}, "unknown world 'bultin'"),
    "policy": (
        {"arms": {**ARMS, "still": {"policy": "hodl"}}, **asked(arms=["low", "high", "still"])},
        "arms.still: unknown policy 'hodl'; did you mean 'hold'?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_refused_in_one_line(folder: Path, cli, name: str) -> None:
    changes, message = WRONG[name]
    write_study(**changes)
    ran = cli("study", "study.yaml")
    assert ran.exit_code == 2 and message in ran.stderr, ran.stderr
    assert ran.stderr.startswith("error: study.yaml: ") and ran.stderr.count("\n") == 1
    assert not Path("runs").exists()


def test_a_file_that_is_not_there_is_named(folder: Path, cli) -> None:
    ran = cli("study", "nothing.yaml")
    assert (ran.exit_code, ran.stderr) == (2, "error: nothing.yaml: no such file\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--status", "--dry-run"), "different things to do"),
        (("--address", "auto"), "what parts take of nodes are for --engine ray; give it too"),
        (("--engine", "ray", "--num-cpus-per-part", "1.5"), "--num-cpus-per-part 1.5: above 1 expected a whole number"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder: Path, cli, options: tuple[str, ...], message: str) -> None:
    write_study()
    ran = cli("study", "study.yaml", *options)
    assert ran.exit_code == 2 and message in ran.stderr


def test_an_evaluation_s_command_makes_its_request(folder: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in a process of its own is what was checked before: the command line loses nothing."""
    from vla_gen_bench.eval import evaluate
    from vla_gen_bench.study.parts import Effort, parts_of

    taken = []

    class Stop(Exception):
        pass

    def make_plan(request: Any) -> None:
        taken.append(request)
        raise Stop

    options = {"temperature": 1.0e-05, "unnorm_key": "a: 'b'", "vision_heads": [1, None, {"x": True}]}
    chosen = {"suite": ["short.yaml"], "episodes": 2, "seeds": [3, 4], "scenarios": ["ind", "ind + tables"]}
    path = write_study(evaluations={"short": {**chosen, "options": options}})
    parts = parts_of(read_study(path), path, Path("out"), Effort(workers=2, num_envs=4))
    part = parts["eval/short/low/1"]
    monkeypatch.setattr(evaluate, "make_plan", make_plan)
    with pytest.raises(Stop):
        cli(*part.command)
    assert taken[0] == part.request and part.request.options == options
    assert part.request.checkpoint == "out/train/low/1/checkpoint"


def test_parts_on_nodes_choose_their_workers_there(folder: Path, cli) -> None:
    """Where a node's GPU simulates it is one; what a part requests limits it by its cores, not by `--workers`."""
    write_study()
    options = ("--engine", "ray", "--num-cpus-per-part", "16", "--num-gpus-per-part", "1", "--dry-run")
    ran = cli("study", "study.yaml", *options)
    assert ran.exit_code == 0 and "vgb eval" in ran.stdout and "--workers" not in ran.stdout
    assert "--workers 3" in cli("study", "study.yaml", *options, "--workers", "3").stdout


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_a_study(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The presets' study needs nothing but this package; the paper's also demonstrations."""
    monkeypatch.chdir(tmp_path)
    if file.stem == "paper":
        (tmp_path / "data/references/domain").mkdir(parents=True)
    study, parts = parts_in(file)
    assert len(study.questions) >= 2 and len(parts) > 10
    assert {part.recipe.world for part in parts.values() if part.recipe} == {"builtin"}


def test_the_presets_study_compares_every_preset_that_can_be_run(tmp_path: Path) -> None:
    file = next(file for file in EXAMPLES if file.stem == "presets")
    shutil.copy(file, tmp_path)
    recipes = {arm.recipe for arm in read_study(tmp_path / file.name).arms.values()} - {None}
    known = {path.stem for path in (data_dir() / "policies" / "openvla-ppo" / "recipes").glob("*.yaml")}
    assert recipes - {"openvla-ppo"} == known - {"common"}
