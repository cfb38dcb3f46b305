"""Supervised fine-tuning: targets, schedule, recipes, resuming, and that it learns."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from demos import demo, written

from vla_gen_bench.cli.train_options import carry_out
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.checkpoint.fresh import new_model
from vla_gen_bench.policies.openvla.checkpoint.loading import load
from vla_gen_bench.policies.openvla.checkpoint.saving import save
from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy
from vla_gen_bench.protocol import Observation
from vla_gen_bench.resources import data_dir
from vla_gen_bench.train.demos.dataset import load as load_demos
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.recipe import Optimiser, load_recipe, parse_changes
from vla_gen_bench.train.run import Curve, RunOptions, begun, open_run, save_state
from vla_gen_bench.train.sft import trainer as sft
from vla_gen_bench.train.sft.imitation import demonstrations, soft_targets
from vla_gen_bench.train.student import Averaged, action_statistics

ALONE = Processes(0, 1, torch.device("cpu"))
SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "trainer": "sft",
    "model": {"size": "pico"},
    "optimiser": {"lr": 3e-3, "clip": 1.0, "warmup": 5, "schedule": "cosine"},
    "samples": 160,
    "batch": 8,
    "log_every": 5,
    "validate_every": 10,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of scenes, bright and dark, that ask for opposite motions."""
    folder, items = tmp_path_factory.mktemp("demos"), []
    for index in range(12):
        item, sign = demo(index), 1 if index % 2 else -1
        images = np.full_like(item.images, 200 if sign > 0 else 40)
        actions = item.actions * np.array([sign, -sign, 0, 0, 0, 0, 1], np.float32)
        actions[:, 1] = 0.01 * sign
        items.append(replace(item, images=images, actions=actions, executed=actions))
    written(folder, items)
    return folder


def recipe_of(data: Path, **changes: Any) -> sft.SftRecipe:
    return sft.SftRecipe(**{**SETTINGS, "data": str(data), **changes})


def run(recipe: sft.SftRecipe, out: Path, **options: Any) -> list[dict[str, str]]:
    sft.train(recipe, out, ALONE, lambda line: None, RunOptions(**options))
    with (out / "curve.csv").open() as file:
        return list(csv.DictReader(file))


# ---- targets -----------------------------------------------------------------------------------------------


def test_hard_targets_are_the_action_tokens() -> None:
    """-1 is the last of the 256 tokens, +1 the first; 0 is in bin 128 of np.digitize: index 256 - 128."""
    targets = soft_targets(np.array([[[-1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]]]), 0.0)
    assert targets.shape == (1, 7, 256)
    assert targets.argmax(-1).tolist() == [[255, 0, 128, 128, 128, 128, 0]]
    assert (targets.sum(-1) == 1).all()


def test_soft_targets_spread_over_neighbours_but_for_the_gripper() -> None:
    """Bins are 2/255 wide; one bin away from a centre a sigma of 1 gives exp(-1/2) of the peak."""
    centre = (np.linspace(-1, 1, 256)[99] + np.linspace(-1, 1, 256)[100]) / 2
    row = soft_targets(np.array([[[centre, 0, 0, 0, 0, 0, -1.0]]]), 1.0)[0]
    peak = int(row[0].argmax())
    assert peak == 256 - 100 and float(row[0, peak + 1] / row[0, peak]) == pytest.approx(np.exp(-0.5), rel=1e-5)
    assert row[0].sum() == pytest.approx(1) and row[6, 255] == 1 and (row[6] > 0).sum() == 1


def test_statistics_leave_the_gripper_unscaled() -> None:
    entry = action_statistics(np.tile(np.linspace(-1, 1, 101)[:, None], (1, 7)), 5)["action"]
    assert entry["q01"][0] == pytest.approx(-0.98) and entry["q99"][0] == pytest.approx(0.98)
    assert entry["mask"] == [True] * 6 + [False]


# ---- optimiser and averages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule, step, rate",
    [
        ("constant", 0, 0.25),  # warm-up over 4 steps: 1/4
        ("constant", 3, 1.0),
        ("constant", 99, 1.0),
        ("linear", 54, 0.5 * (1 + 0.1) - 0.9 * 2 / 96),  # (54 - 4) / 96 of the way: 1 - 0.9 * 50 / 96
        ("cosine", 52, 0.55),  # half way: 1 - 0.9 * 0.5
        ("cosine", 100, 0.1),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule: str, step: int, rate: float) -> None:
    settings = Optimiser(lr=1.0, warmup=4, schedule=schedule, floor=0.1)
    assert settings.rate(step, 100) == pytest.approx(rate)


def test_averaged_weights_follow_the_formula_and_give_way_again() -> None:
    """Decay 0.5, capped by (1 + step) / (10 + step): step 0 takes in 9/10 of the new weight: 0 -> 0.9."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    averaged = Averaged(layer, 0.5)
    torch.nn.init.ones_(layer.weight)
    averaged.update(0)
    assert float(averaged.values["weight"]) == pytest.approx(0.9)
    with averaged.in_place():
        assert layer.weight.item() == pytest.approx(0.9)
    assert layer.weight.item() == 1.0


# ---- recipes -----------------------------------------------------------------------------------------------


FILES = sorted((data_dir() / "policies").glob("*/recipe*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_published_recipes_are_valid(file: Path) -> None:
    if yaml.safe_load(file.read_text()).get("trainer") == "sft":
        assert load_recipe(file, sft.SftRecipe).steps > 0


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    """60,000 steps of 32 frames; validation on 16 of 16,400 demonstrations."""
    recipe = load_recipe(data_dir() / "policies/openvla-sft/recipe-7b.yaml", sft.SftRecipe)
    assert (recipe.steps, recipe.batch, round(1 / recipe.held_out)) == (60_000, 32, 1000)
    assert (recipe.optimiser.lr, recipe.optimiser.schedule, recipe.optimiser.clip) == (5e-4, "constant", None)
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.small_actions) == (32, 16, False)
    assert recipe.augment == type(recipe.augment)()


@pytest.mark.parametrize(
    "change, message",
    [
        ("optimiser.lrr=1", "optimiser.lrr"),
        ("model.checkpoint=x", "give either size"),
        ("trainer=ppo", "this command takes 'sft'"),
        ("loss={over: vocabulary, soft_bins: 2}", "loss.over: vocabulary needs"),
        ("loss={over: vocabulary, auxiliary_reads: patches and states}", "needs loss.auxiliary_reads: patches"),
        ("batch=0", "batch"),
        ("loss={soft_bins", "--set loss={soft_bins: not valid YAML"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path: Path, change: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    with pytest.raises(UserError, match=message):
        load_recipe(file, sft.SftRecipe, parse_changes([change]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "batch=1", "--set", "batch=2"), "--set batch=2: 'batch' is given twice"),
        (
            ("--set", "optimiser.lr=1", "--set", "optimiser={clip: 2}"),
            "'optimiser' is given twice, also by 'optimiser.lr'",
        ),
        (("--set", "optimiser={lr: 1}", "--set", "optimiser.clip=1"), "'optimiser.clip' is given twice, also by"),
        (("--demos", "5", "--set", "demos=6"), "--demos and --set demos give the same setting; leave one out"),
        (("--data", "a", "--set", "data=[b]"), "--data and --set data give the same setting; leave one out"),
    ],
)
def test_a_setting_that_is_given_twice_is_refused(tmp_path: Path, cli, options: tuple[str, ...], message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    ran = cli("train", "sft", "--recipe", file, "--out", tmp_path / "run", *options)
    assert ran.exit_code == 2 and message in ran.stderr and not (tmp_path / "run").exists()


def test_the_printed_evaluation_is_in_the_world_of_the_training(tmp_path: Path, capsys) -> None:
    recipe = sft.SftRecipe(**SETTINGS)
    for world, expected in (("builtin", "--suite"), ("pretrain", "--world pretrain --suite")):
        there = recipe.model_copy(update={"world": world})
        carry_out(lambda *given: Path("my runs/checkpoint"), there, tmp_path / world, ALONE, None)
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.endswith(f"--checkpoint 'my runs/checkpoint' {expected} execution")


# ---- training ----------------------------------------------------------------------------------------------


def test_it_learns_what_the_picture_tells(data: Path, tmp_path: Path) -> None:
    rows = run(recipe_of(data, samples=2400, ema=0.9), tmp_path)
    assert float(rows[-1]["loss"]) < 0.3 * float(rows[0]["loss"])
    assert float(rows[-1]["val_x_mm"]) < 2  # of 20 mm either way; the gripper is in no image here
    policy = OpenVLAPolicy(tmp_path / "checkpoint", temperature=0.0)
    policy.reset(["put carrot on plate"] * 2, [0, 1])
    images = np.stack([np.full((60, 80, 3), level, np.uint8) for level in (40, 200)])
    actions = policy.act(Observation(images, ("put carrot on plate",) * 2, np.zeros(2, np.int64)))
    assert actions[:, 0, 0] == pytest.approx([-0.02, 0.02], abs=0.003)


@pytest.mark.parametrize("look_first", [0, 88])
def test_a_broken_off_run_goes_on_exactly(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look_first: int
) -> None:
    """Killed after step 12, resumed from the state of step 10: the same curve and the same weights.

    A state is due after every step and saved where a row ends, so that no row's means are cut in two.
    """
    loss = sft.Loss(soft_bins=2, auxiliary=1.0, auxiliary_reads="patches and states" if look_first else "patches")
    recipe = recipe_of(
        data, ema=0.99, loss=loss, checkpoint_every_s=1e-9, look_first=look_first, samples=160 - look_first,
        model={"size": "pico", "decoding": "parallel", "chunk": 2},
    )  # fmt: skip
    whole = run(recipe, tmp_path / "whole")
    step = sft.Trainer.one_step

    def killed(self: sft.Trainer, out: Path) -> None:
        if self.step == 12:
            raise KeyboardInterrupt
        step(self, out)

    monkeypatch.setattr(sft.Trainer, "one_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "broken")
    monkeypatch.undo()
    resumed = run(recipe, tmp_path / "broken")
    for one, other in zip(whole, resumed, strict=True):
        assert {k: v for k, v in one.items() if not k.startswith(("wall", "samples_per"))} == {
            k: v for k, v in other.items() if not k.startswith(("wall", "samples_per"))
        }
    weights = [load(tmp_path / name / "checkpoint").model.state_dict() for name in ("whole", "broken")]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])


def test_a_run_goes_on_only_with_the_data_that_it_began_with(tmp_path: Path) -> None:
    """A collector may have added demonstrations, or others may lie in the folder: a resumed run would learn those."""
    data, items = tmp_path / "demos", [demo(index) for index in range(5)]
    written(data, items[:4])
    recipe = recipe_of(data, samples=80)
    run(recipe, tmp_path / "run")
    shutil.rmtree(data)
    written(data, items)
    with pytest.raises(UserError, match="began with 4 demonstrations .* hold 5 demonstrations"):
        run(recipe, tmp_path / "run")
    run(recipe, tmp_path / "run", fresh=True)
    shutil.rmtree(data)
    written(data, [demo(index) for index in range(5, 10)])
    with pytest.raises(UserError, match="began with 5 demonstrations .* hold 5 demonstrations .* give --fresh"):
        run(recipe, tmp_path / "run")


def test_looking_teaches_the_image_towers_alone_and_is_checked_by_no_action(data: Path, tmp_path: Path) -> None:
    """Ten steps of looking, ten of acting: only then is there a loss, and only the last row has an action's error."""
    loss = {"auxiliary": 1.0, "auxiliary_reads": "patches and states"}
    model = {"size": "pico", "decoding": "parallel", "chunk": 2}
    recipe = recipe_of(data, look_first=80, samples=80, loss=loss, model=model, ema=0)
    trainer = sft.Trainer(recipe, load_demos(data), ALONE)
    before = {name: tensor.clone() for name, tensor in trainer.student.model.state_dict().items()}
    trainer.one_step(tmp_path)
    moved = {name for name, tensor in trainer.student.model.state_dict().items() if (tensor != before[name]).any()}
    assert moved and all(name.startswith(("vision_backbone", "projector")) for name in moved)

    rows = run(recipe, tmp_path / "run")
    assert [(row["step"], row["samples"]) for row in rows] == [("5", "0"), ("10", "0"), ("15", "40"), ("20", "80")]
    assert [float(row["loss"]) > 0 for row in rows] == [False, False, True, True]
    assert [bool(row["val_x_mm"]) for row in rows] == [False, False, False, True]
    rates = [recipe.optimiser.rate(step, recipe.steps, recipe.looking_steps) for step in range(20)]
    assert rates[:10] == rates[10:] == [recipe.optimiser.rate(step, 10) for step in range(10)]
    with pytest.raises(UserError, match="look_first: needs loss.auxiliary"):
        load_recipe(data_dir() / "policies" / "openvla-sft" / "recipe.yaml", sft.SftRecipe,
                    parse_changes(["look_first=8", "loss.auxiliary=0"]))  # fmt: skip


def test_several_sets_are_learnt_from_together(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(data, samples=16).model_copy(update={"data": (str(data), str(data))})
    assert len(demonstrations(recipe, ALONE)) == 2 * len(load_demos(data))
    assert run(recipe, tmp_path)


def test_rows_are_made_by_every_rhythm(data: Path, tmp_path: Path) -> None:
    """20 steps, logged every 8, validated every 6."""
    rows = run(recipe_of(data, log_every=8, validate_every=6), tmp_path)
    assert [row["step"] for row in rows] == ["6", "8", "12", "16", "18", "20"]
    assert [row["step"] for row in rows if row["val_loss"]] == ["6", "12", "18", "20"]


def test_a_run_that_never_began_may_be_begun_with_another_recipe(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 12 demonstrations, 99 were asked for"):
        run(recipe_of(data, samples=8, demos=99), tmp_path)
    Curve(tmp_path, ("step",))  # as far as a run comes whose simulator cannot be built
    assert run(recipe_of(data, samples=8), tmp_path)


def test_fresh_leaves_nothing_of_the_earlier_run(data: Path, tmp_path: Path) -> None:
    run(recipe_of(data, samples=8), tmp_path)
    (tmp_path / "checkpoints" / "0040").mkdir(parents=True)
    run(recipe_of(data, samples=16), tmp_path, fresh=True)
    assert not (tmp_path / "checkpoints").exists()
    assert len(list((tmp_path / "tensorboard").glob("events*"))) <= 1


def test_a_folder_of_something_else_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds demonstrations, no training run; choose another --out"):
        run(recipe_of(data), data)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="holds an evaluation's log, no training run"):
        run(recipe_of(data), tmp_path, fresh=True)


@pytest.mark.parametrize("name", ["state.pt", "curve.csv", "checkpoint", "checkpoints", "videos", "tensorboard"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_without_its_recipe_is_neither_resumed_nor_removed(tmp_path: Path, name: str, fresh: bool) -> None:
    """A checkpoint from elsewhere was replaced, and a state resumed whatever the recipe."""
    recipe, left = recipe_of(tmp_path / "demos"), tmp_path / "run" / name
    if "." in name:
        left.parent.mkdir()
        left.write_bytes(b"precious")
    else:
        left.mkdir(parents=True)
    with pytest.raises(UserError, match=f"holds {name} but no recipe.yaml, .*; choose another --out, or restore"):
        open_run(tmp_path / "run", recipe, fresh)
    assert list((tmp_path / "run").iterdir()) == [left]


def begun_with(folder: Path, recipe: sft.SftRecipe) -> None:
    """A run of the recipe, as it looks after its first saved state."""
    open_run(folder, recipe)
    save_state(folder, {"step": 5})


def test_a_run_resumes_though_its_note_and_rhythm_of_saving_changed(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "demos")
    begun_with(tmp_path / "run", recipe)
    changed = recipe.model_copy(update={"note": "more careful", "checkpoint_every_s": 7.0})
    assert open_run(tmp_path / "run", changed) == {"step": 5}


def test_a_start_is_the_same_however_its_folder_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`vgb study --out` may be given absolute or relative, and a study's folder may move."""
    for name, seed in (("start", 0), ("other", 1)):
        save(tmp_path / name / "checkpoint", new_model("pico", seed))
    shutil.copytree(tmp_path / "start", tmp_path / "copy")
    monkeypatch.chdir(tmp_path)

    def starting(place: str, data: str) -> sft.SftRecipe:
        return recipe_of(data, model={"checkpoint": place})

    (tmp_path / "demos").mkdir()
    begun_with(tmp_path / "run", starting("start/checkpoint", "demos"))
    for place in (str(tmp_path / "start" / "checkpoint"), "./start/checkpoint", "copy/checkpoint"):
        assert open_run(tmp_path / "run", starting(place, str(tmp_path / "demos"))) == {"step": 5}
    for place in ("other/checkpoint", "start", "nowhere", "x" * 5000):
        with pytest.raises(UserError, match="recipe differs in 'model'"):
            open_run(tmp_path / "run", starting(place, "demos"))


@pytest.mark.parametrize("text", ["", "- 1\n", "text\n"])
def test_a_damaged_recipe_of_a_run_is_named(tmp_path: Path, text: str) -> None:
    recipe = recipe_of(tmp_path / "demos")
    begun_with(tmp_path, recipe)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match="recipe.yaml: is no recipe: .*; restore it, choose another --out or give"):
        open_run(tmp_path, recipe)
    assert (tmp_path / "recipe.yaml").read_text() == text


def test_demonstrations_of_another_world_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="world builtin, the recipe's is rl4vla"):
        run(recipe_of(data, world="rl4vla"), tmp_path)


def test_a_run_of_another_recipe_is_not_continued(data: Path, tmp_path: Path) -> None:
    run(recipe_of(data, samples=8), tmp_path)
    with pytest.raises(UserError, match="holds a run whose recipe differs in 'seed'"):
        run(recipe_of(data, samples=8, seed=1), tmp_path)
    run(recipe_of(data, samples=8, seed=1), tmp_path, fresh=True)


def test_a_loss_that_is_no_number_stops_with_the_batch_kept(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sft.Trainer, "loss", lambda self, batch: (torch.tensor(float("nan"), requires_grad=True),) * 2)
    with pytest.raises(UserError, match="step 0: the loss is nan; the batch is kept in .*bad_batch_0.pt"):
        run(recipe_of(data), tmp_path)
    kept = torch.load(tmp_path / "bad_batch_0.pt", weights_only=False)
    assert kept["batch"]["tokens"].shape == (8, 7)


def test_a_gradient_that_is_no_number_never_reaches_the_weights(data: Path, tmp_path: Path, monkeypatch) -> None:
    """sqrt has no slope at 0: the loss is a number, its gradient is none."""
    loss = sft.Trainer.loss

    def rooted(self: sft.Trainer, batch: Any) -> tuple:
        tokens, extra = loss(self, batch)
        return tokens + (self.parameters[0] * 0).sum().sqrt(), extra

    monkeypatch.setattr(sft.Trainer, "loss", rooted)
    with pytest.raises(UserError, match="step 0: a gradient is not a number; try a lower optimiser.lr"):
        run(recipe_of(data), tmp_path)
    assert not (tmp_path / "state.pt").exists()


def test_weights_broken_by_the_last_step_are_never_written(data: Path, tmp_path: Path, monkeypatch) -> None:
    recipe = recipe_of(data)
    step = sft.Trainer.one_step

    def breaking(self: sft.Trainer, out: Path) -> None:
        step(self, out)
        if self.step == recipe.steps:
            with torch.no_grad():
                self.parameters[3].view(-1)[0] = torch.inf

    monkeypatch.setattr(sft.Trainer, "one_step", breaking)
    with pytest.raises(UserError, match="state.pt: not written: .* has values that are not finite; training diverged"):
        run(recipe, tmp_path)
    assert not (tmp_path / "checkpoint").exists() and not (tmp_path / "state.pt").exists()


def test_a_checkpoint_with_weights_that_are_not_finite_is_not_written(tmp_path: Path) -> None:
    model = new_model("pico")
    save(tmp_path / "c", model)
    before = (tmp_path / "c/model.safetensors").read_bytes()
    with torch.no_grad():
        model.projector.fc1.weight[0, 0] = 1e30  # a float16 has no such number
    with pytest.raises(UserError, match="not written: projector.fc1.weight has values that are not finite"):
        save(tmp_path / "c", model, dtype=torch.float16)
    assert (tmp_path / "c/model.safetensors").read_bytes() == before


def test_a_full_disk_keeps_the_earlier_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, {"step": 1})
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left on device.*the earlier state is kept"):
        save_state(tmp_path, {"step": 2})
    assert torch.load(tmp_path / "state.pt", weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_a_curve_forgets_what_came_after_the_state(tmp_path: Path) -> None:
    columns = ("step", "wall_s", "loss")
    curve = Curve(tmp_path, columns)
    for step in (1, 2, 3):
        curve.log(step=step, loss=0.5 * step)
    Curve(tmp_path, columns, resumed_at=2).log(step=3, loss=9.0)
    with (tmp_path / "curve.csv").open("a+") as file:
        file.seek(0)
        assert [row["loss"] for row in csv.DictReader(file)] == ["0.5", "1", "9"]
        file.write("1,2.5")  # cut off by a full disk
    assert [row["step"] for row in csv.DictReader(rows_of(Curve(tmp_path, columns, resumed_at=3)))] == ["1", "2", "3"]
    with pytest.raises(KeyError, match="undeclared"):
        curve.log(step=4, los=1.0)


@pytest.mark.parametrize(
    ("content", "rows", "wall_s"),
    [
        (b"step,wall_s\n1,4.5\n2,5.5\n", ["1,4.5,", "2,5.5,"], 5.5),  # of a version without the column
        (b"step,wall_s,loss\n1,4.5,2\n2,,1\n", ["1,4.5,2", "2,,1"], 4.5),
        (b"step,wall_s,loss\n1,4.5,2\n2,5.5\xff", ["1,4.5,2"], 4.5),
        (b"step,wall_s,loss\n1,4.5,2\n\0\0\0\0\n", ["1,4.5,2"], 4.5),
        (b"step,wall_s,loss\n1,4.5,2\nnan,5,1\nx,5,1\n2,5.5,1,9\n", ["1,4.5,2"], 4.5),
        (b"", [], 0.0),
    ],
)
def test_a_damaged_or_older_curve_resumes(tmp_path: Path, content: bytes, rows: list[str], wall_s: float) -> None:
    (tmp_path / "curve.csv").write_bytes(content)
    begun(tmp_path)
    curve = Curve(tmp_path, ("step", "wall_s", "loss"), resumed_at=2)
    assert rows_of(curve) == ["step,wall_s,loss", *rows] and curve.elapsed_before == wall_s


def rows_of(curve: Curve) -> list[str]:
    return curve.path.read_text().splitlines()


@pytest.mark.parametrize("parts", [3, 4, 5])
def test_accumulated_parts_make_the_same_step(data: Path, tmp_path: Path, parts: int) -> None:
    """8 frames in 4 parts of 2; in 5 parts torch makes 4 of them, and in 3 parts the last one is smaller."""
    changes = {"samples": 40, "log_every": 1}
    one = run(recipe_of(data, **changes), tmp_path / "one")
    many = run(recipe_of(data, accumulate=parts, **changes), tmp_path / "parts")
    for name in ("loss", "grad_norm"):
        assert float(many[0][name]) == pytest.approx(float(one[0][name]), rel=1e-4)
        assert float(many[-1][name]) == pytest.approx(float(one[-1][name]), rel=1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": {"rank": 4}},
        {"loss": {"over": "vocabulary"}},
        {"model": {"size": "pico", "decoding": "parallel", "chunk": 4}},
        {"model": {"size": "pico", "decoding": "parallel", "chunk": 4, "attention": "bidirectional", "head": "l1"}},
        {"precision": "bfloat16"},
        {"small_actions": False},
        {
            "augment": {
                "words": 1.0,
                "tables": 0.5,
                "mix": 0.5,
                "shift": 0.1,
                "brightness": 0.1,
                "contrast": 0.1,
                "saturation": 0.1,
            }
        },
    ],
    ids=lambda changes: str(next(iter(changes.values()))),
)
def test_variants_train_and_act(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    rows = run(recipe_of(data, samples=320, **changes), tmp_path)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    policy = OpenVLAPolicy(tmp_path / "checkpoint", temperature=0.0)
    policy.reset(["put carrot on plate"], [0])
    observation = Observation(np.zeros((1, 60, 80, 3), np.uint8), ("put carrot on plate",), np.zeros(1, np.int64))
    assert policy.act(observation).shape == (1, policy.action_spec.chunk, 7)


def test_how_a_checkpoint_acts_is_kept_unless_the_recipe_says_otherwise(data: Path, tmp_path: Path) -> None:
    run(recipe_of(data, samples=8, model={"size": "pico", "decoding": "parallel", "chunk": 4}), tmp_path)
    start = {"checkpoint": str(tmp_path / "checkpoint")}

    def acting(**model: Any) -> tuple[str, int]:
        recipe = recipe_of(data, model=start | model, loss={"over": "vocabulary"} if "decoding" in model else {})
        found = sft.Trainer(recipe, load_demos(data), ALONE).student.config.acting
        return found.decoding, found.chunk

    assert acting() == ("parallel", 4) and acting(chunk=2) == ("parallel", 2)
    assert acting(decoding="autoregressive", chunk=1) == ("autoregressive", 1)
    with pytest.raises(UserError, match="vocabulary needs model.decoding: autoregressive"):
        acting(decoding="parallel")


def test_an_adapter_trains_nothing_but_itself(data: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    run(recipe_of(data, samples=8), start)
    trainer = sft.Trainer(
        recipe_of(data, model={"checkpoint": str(start / "checkpoint")}, adapter={"rank": 4}),
        load_demos(data),
        ALONE,
    )
    trained = {name for name, p in trainer.student.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)


def test_a_ladder_of_sizes_uses_nested_demonstrations(data: Path) -> None:
    frames = [set(sft.Trainer(recipe_of(data, demos=n), load_demos(data, n), ALONE).data.train_frames) for n in (4, 12)]
    assert frames[0] < frames[1]


def test_two_processes_train_together(cli_process, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, "samples": 80}))
    arguments = ("train", "sft", "--recipe", str(file), "--data", str(data), "--out", str(tmp_path / "run"))
    result = cli_process(*arguments, "--processes", "2")
    assert result.exit_code == 0, result.stderr
    assert "checkpoint:" in result.stdout and (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()
    assert "step 10/10" in result.stderr


def test_missing_data_is_named(cli, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    result = cli("train", "sft", "--recipe", str(file), "--out", str(tmp_path / "run"))
    assert result.exit_code == 2 and "collect some with 'vgb collect'" in result.stderr
    result = cli("train", "sft", "--recipe", "openvla-stf", "--out", str(tmp_path / "run"))
    assert result.exit_code == 2 and "did you mean 'openvla-sft'" in result.stderr
