"""Grounding scenes: drawing, rendering, storing, and learning where named things are."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demos import demo, written

from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.episodes.geometry import Footprint, gap
from vla_gen_bench.episodes.spec import Placed
from vla_gen_bench.errors import UserError
from vla_gen_bench.train.demos import overlays
from vla_gen_bench.train.grounding import store, task, trainer
from vla_gen_bench.train.grounding.scenes import GAP_M, MOST_THINGS, Scene, draw_scene
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.run import RunOptions
from vla_gen_bench.train.sft import trainer as sft

ALONE = Processes(0, 1, torch.device("cpu"))
CATALOG = load_catalog("pretrain")
SIDE = 32
PART = 6
STILL = (0.0,) * 6


@pytest.fixture(scope="module")
def renderer():
    from vla_gen_bench.train.grounding.render import Renderer

    return Renderer("pretrain", 128)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """Twelve small scenes, in two parts."""
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "PART_SCENES", PART)
        store.render_scenes(store.SceneRequest(12, folder, side=SIDE))
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch) -> None:
    monkeypatch.setattr(store, "PART_SCENES", PART)


# ---- drawing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "unseen"])
def test_a_scene_holds_different_names_of_one_split_apart_from_each_other(split):
    for index in range(40):
        scene = draw_scene(CATALOG, split, 3, index)
        assert scene == draw_scene(CATALOG, split, 3, index)
        bodies = [CATALOG.get("objects", item.id) for item in scene.objects]
        bodies += [CATALOG.get("receptacles", item.id) for item in scene.receptacles]
        assert {body.split for body in bodies} == {split} and len({body.name for body in bodies}) == len(bodies)
        turns = [
            2 * np.arctan2(item.quaternion[3], item.quaternion[0]) for item in (*scene.objects, *scene.receptacles)
        ]
        placed = zip(bodies, (*scene.objects, *scene.receptacles), turns, strict=True)
        prints = [Footprint(body, item.position[:2], turn) for body, item, turn in placed]
        pairs = [(a, b) for place, a in enumerate(prints) for b in prints[:place]]
        assert all(gap(a, b) > GAP_M - 1e-6 for a, b in pairs)


# ---- rendering ---------------------------------------------------------------------------------------------


def test_a_thing_is_drawn_where_its_place_says(renderer):
    """The pixels it adds to an otherwise empty scene lie around its place, as many as `visible` counts."""
    cube = Placed(id="green_cube", position=(-0.2, 0.1, 0.887))
    with_it = renderer.draw(Scene((cube,), (), STILL, 0.037))
    without = renderer.draw(Scene((), (), STILL, 0.037))
    added = (with_it.foreground > 127) & (without.foreground <= 127)
    rows, columns = np.nonzero(added)
    centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / 128
    assert np.abs(centre - with_it.place[0]).max() < 0.02
    assert added.sum() == pytest.approx(with_it.visible[0] * 128 * 128 / (320 * 240), rel=0.1)
    assert CATALOG.objects[with_it.thing[0]].id == "green_cube" and (without.thing == -1).all()


def test_things_leave_nothing_behind(renderer):
    """A scene looks the same whatever was drawn before it."""
    first = renderer.draw(draw_scene(CATALOG, "train", 0, 1))
    renderer.draw(draw_scene(CATALOG, "unseen", 0, 2))
    again = renderer.draw(draw_scene(CATALOG, "train", 0, 1))
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in vars(first))


def test_things_are_told_apart_however_many_came_before(renderer):
    """A body gets a new id whenever it enters a scene, and segmentation holds 16 bits of it."""
    scene = draw_scene(CATALOG, "train", 0, 1)
    first = renderer.draw(scene)
    entity = renderer._entity("objects", "green_cube")
    for _ in range(70_000):
        renderer._scene.add_entity(entity)
        renderer._scene.remove_entity(entity)
    renderer._entered += 70_000
    again = renderer.draw(scene)
    assert first.visible.max() > 0 and np.array_equal(first.visible, again.visible)
    assert np.array_equal(first.image, again.image)


# ---- storing -----------------------------------------------------------------------------------------------


def test_an_interrupted_rendering_resumes_to_the_same_scenes(rendered, tmp_path):
    store.render_scenes(store.SceneRequest(6, tmp_path, side=SIDE))
    (tmp_path / "part-0001.tmp").write_bytes(b"cut off")
    assert store.render_scenes(store.SceneRequest(12, tmp_path, side=SIDE)) == 12
    ours, theirs = (store.load_scenes(folder, SIDE) for folder in (tmp_path, rendered))
    assert len(ours) == 12
    for name in ("images", "foreground", *store.COLUMNS):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_a_folder_of_other_scenes_is_refused(rendered):
    with pytest.raises(UserError, match="was rendered with seed 0, not 1"):
        store.render_scenes(store.SceneRequest(12, rendered, side=SIDE, seed=1))
    with pytest.raises(UserError, match="holds 12 scenes, 13 were asked for"):
        store.load_scenes(rendered, SIDE, 13)


def test_a_folder_without_scenes_names_the_command(tmp_path):
    with pytest.raises(UserError, match="render some with 'vgb scenes'"):
        store.load_scenes(tmp_path, SIDE)


def made_up(folder: Path, parts: int, value: int = 0) -> Path:
    """A folder of scenes without anything in them, of one grey; later parts are brighter."""
    folder.mkdir(exist_ok=True)
    nothing = np.zeros((PART, MOST_THINGS), np.int16)
    for part in range(parts):
        np.savez(
            folder / f"part-{part:04d}.npz", image=np.full((PART, SIDE, SIDE, 3), value + part, np.uint8),
            foreground=np.zeros((PART, SIDE, SIDE), np.uint8), thing=nothing - 1, receptacle=nothing > 0,
            place=np.zeros((*nothing.shape, 2)), xy=np.zeros((*nothing.shape, 2)), visible=nothing,
        )  # fmt: skip
    own = {"world": "pretrain", "split": "train", "catalog": CATALOG.digest()}
    (folder / "scenes.json").write_text(json.dumps(own))
    return folder


@pytest.mark.parametrize("catalog", [None, "0123456789abcdef"])
def test_scenes_of_another_catalogue_are_refused(tmp_path, catalog):
    """They name objects by their places in it."""
    made_up(tmp_path, 1)
    own = {"world": "pretrain", "split": "train", **({"catalog": catalog} if catalog else {})}
    (tmp_path / "scenes.json").write_text(json.dumps(own))
    with pytest.raises(UserError, match="rendered from another catalogue of world 'pretrain'.*vgb scenes"):
        store.load_scenes(tmp_path, SIDE)


def test_rendered_again_is_decoded_again(tmp_path):
    """The cache was named by number and side alone."""
    made_up(tmp_path, 2)
    assert store.load_scenes(tmp_path, SIDE).images[[0, -1], 0, 0, 0].tolist() == [0, 1]
    for size in (SIDE, 16):  # a cache of each
        assert len(store.load_scenes(tmp_path, size)) == 2 * PART
        assert len(list((tmp_path / "cache").glob(f"*-{size}-12-*.npy"))) == 2
    np.save(tmp_path / "cache" / f"image-{SIDE}-12.npy", np.full((12, SIDE, SIDE, 3), 9, np.uint8))  # earlier version's
    made_up(tmp_path, 2, value=200)
    for part in tmp_path.glob("*.npz"):
        os.utime(part, (1e9, 1e9))
    assert store.load_scenes(tmp_path, SIDE).images[[0, -1], 0, 0, 0].tolist() == [200, 201]
    few = store.load_scenes(tmp_path, SIDE, PART + 1)
    assert few.images[:, 0, 0, 0].tolist() == [200] * PART + [201] and len(few.foreground) == len(few) == PART + 1
    assert len(list((tmp_path / "cache").glob(f"*-{SIDE}-*.npy"))) == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda part: part.write_bytes(part.read_bytes()[:500]), "part-0001.npz: cannot .*; remove it and render"),
        (lambda part: np.savez(part, image=np.zeros(PART)), "part-0001.npz: cannot be read .image: does not hold"),
        (lambda part: np.savez(part, **{**np.load(part), "thing": np.zeros((1, 1))}), "thing: does not hold 6 scenes"),
        (lambda part: part.with_name("scenes.json").write_text("{}"), "scenes.json: world: expected a name, got None"),
    ],
)
def test_damaged_scenes_are_named(tmp_path, damage, message):
    damage(made_up(tmp_path, 2) / "part-0001.npz")
    with pytest.raises(UserError, match=message):
        store.load_scenes(tmp_path, SIDE)


# ---- overlays ----------------------------------------------------------------------------------------------


def test_an_overlay_over_things_leaves_the_table_alone():
    images, foreground = np.full((8, 16, 16, 3), 50, np.float32), np.zeros((8, 16, 16), np.uint8)
    foreground[:, :8] = 255
    weight = overlays.weights(foreground, (1.0, 0.0), 0.5, np.random.default_rng(0))
    assert (weight[:, 8:] == 0).all() and (weight[:, :8] > 0).all() and weight.max() <= 0.5
    blended = overlays.Overlays("pretrain", 16).blend(images, weight, np.random.default_rng(1))
    assert (blended[:, 8:] == 50).all() and (blended[:, :8] != 50).any()


def test_a_world_without_training_patterns_says_so():
    with pytest.raises(UserError, match="world 'builtin' has no overlay patterns"):
        overlays.Overlays("builtin", 16)


# ---- the task ----------------------------------------------------------------------------------------------


def settings(folder: Path, **changes: Any) -> task.Grounding:
    return task.Grounding(**{"scenes": str(folder), "batch": 8, **changes})


def test_places_move_with_the_view(rendered):
    """A white dot at a place is found again where `moved` says it went."""
    sight = task.Sight(settings(rendered, warp={"shift": 0.1, "scale": 0.2, "degrees": 20}), "pretrain", 64)
    sight.tables = np.zeros((1, 64, 64, 3), np.float32)
    scenes = store.load_scenes(rendered, 64, 6)
    images, foreground = np.zeros((6, 64, 64, 3), np.uint8), np.zeros((6, 64, 64), np.uint8)
    images[:, 20:23, 30:33], foreground[:, 20:23, 30:33] = (
        255,
        255,
    )  # the middle pixel, [21, 31], has its centre at 21.5, 31.5
    dotted = replace(scenes, images=images, foreground=foreground)
    changed, ways = sight.changed(dotted, np.arange(6), np.random.default_rng(2))
    place = np.tile(np.float32([31.5 / 64, 21.5 / 64]) * 2 - 1, (6, 2))
    expected = task.moved(place, ways)[:, :2]
    assert np.abs(expected - place[:, :2]).max() > 0.05
    for image, (x, y) in zip(changed.mean(1).numpy(), (expected + 1) * 32, strict=True):
        rows, columns = np.indices(image.shape) + 0.5
        assert (image * columns).sum() / image.sum() == pytest.approx(x, abs=0.3)
        assert (image * rows).sum() / image.sum() == pytest.approx(y, abs=0.3)


def test_a_pointer_is_to_be_where_the_thing_is():
    """Four by four patches: (-0.75, -0.75) is the middle of the first, (0.25, -0.25) of that in row 1, column 2."""
    centres = task.patch_centres(16)
    wished = task.targets(np.float32([[-0.75, -0.75, 0.25, -0.25]]), centres)
    assert wished.shape == (1, 2, 16) and wished.sum(-1) == pytest.approx(1)
    assert wished.argmax(-1).tolist() == [[0, 4 + 2]]
    # A neighbour is 0.5 away, the spread 0.6 patches of 0.5: exp(-(0.5 / 0.3)^2 / 2).
    assert wished[0, 0, 1] / wished[0, 0, 0] == pytest.approx(np.exp(-((0.5 / 0.3) ** 2) / 2), rel=1e-5)
    assert (wished[0] @ centres)[1] == pytest.approx([0.25, -0.25], abs=0.02)


def test_patches_know_what_lies_in_them(rendered):
    """Four by four patches; an object at (0.3, 0.6) lies in row 2, column 1, and shifted by a quarter in column 2."""
    scenes = store.load_scenes(rendered, SIDE)
    place, thing = np.full_like(scenes.place, -1), np.full_like(scenes.thing, -1)
    visible, receptacle = np.zeros_like(scenes.visible), np.zeros_like(scenes.receptacle)
    place[0, :3], thing[0, :3] = [(0.3, 0.6), (0.9, 0.1), (0.3, 0.6)], [5, 6, 7]
    visible[0, :3], receptacle[0, 2] = 100, True  # a receptacle under the first object
    made = replace(scenes, place=place, thing=thing, receptacle=receptacle, visible=visible)
    stay, shift = np.float32([[[1, 0, 0], [0, 1, 0]]]), np.float32([[[1, 0, 0.5], [0, 1, 0]]])
    first = 1 + len(scenes.receptacle_names)
    found = task.assets_in(made, np.array([0]), stay, 16)[0]
    assert (found[2 * 4 + 1], found[3]) == (first + 5, first + 6) and (found > 0).sum() == 2
    found = task.assets_in(made, np.array([0]), shift, 16)[0]
    assert found[2 * 4 + 2] == first + 5 and (found > 0).sum() == 1  # the other one has left the image


def test_a_patch_is_compared_with_the_mean_of_a_names_words():
    """Words (3, 4) and (0, 2): the name of both is their mean, (1.5, 3); the logits are cosines times the sharpness."""
    names = task.Names([[7], [7, 9]], 2)
    words = torch.zeros(12, 2)
    words[7], words[9] = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    with torch.no_grad():
        names.nothing.weight.zero_(), names.nothing.bias.fill_(0.25)
        logits = names(torch.tensor([[[6.0, 8.0], [5.0, 0.0]]]), words)[0]
    sharp = np.exp(task.SHARPNESS)
    both = (3 * 1.5 + 4 * 3) / (5 * np.hypot(1.5, 3))
    assert logits[0].tolist() == pytest.approx([0.25, sharp, sharp * both], rel=1e-5)
    assert logits[1].tolist() == pytest.approx([0.25, sharp * 0.6, sharp * 1.5 / np.hypot(1.5, 3)], rel=1e-5)


def test_recognising_adds_to_the_loss(rendered):
    both = [
        trainer.Trainer(recipe_of(rendered, held_out=None, grounding=settings(rendered, recognise=weight)), ALONE)
        for weight in (0.0, 1.0)
    ]
    with torch.no_grad():
        pointing, more = (float(item.task.loss(0, 8)) for item in both)
    # Before training the cosines are noise: a filled patch loses about log(names), and counts half.
    assert more - pointing > np.log(len(CATALOG.objects) + len(CATALOG.receptacles)) / 2


def test_questions_with_unknown_words_keep_both_names(rendered, monkeypatch):
    """In all batches, in none, and reproducibly; only the words around the names change."""
    kept, lost = [], []
    original = task.reworded_prompt

    def noted(tokenizer, sentence, names, random):
        kept.extend(name in sentence for name in names)
        prompt = original(tokenizer, sentence, names, random)
        text = tokenizer.backend.decode(prompt)
        lost.extend(name for name in names if name not in text)
        return prompt

    monkeypatch.setattr(task, "reworded_prompt", noted)
    made = [
        trainer.Trainer(
            recipe_of(rendered, held_out=None, grounding=settings(rendered, augment={"words": share})), ALONE
        )
        for share in (0.0, 1.0)
    ]
    with torch.no_grad():
        plain, words, again = (float(made[place].task.loss(0, 8)) for place in (0, 1, 1))
    assert len(kept) == 2 * 2 * 8 and all(kept) and lost == []
    assert words == again != plain


def test_the_last_layers_attention_is_taught_to_look(rendered):
    """Its shares are those the layer uses, and only with `attend` they answer and are taught."""
    made = trainer.Trainer(recipe_of(rendered, held_out=None, grounding=settings(rendered, attend=1.0)), ALONE)
    images, sentences = torch.rand(2, 3, SIDE, SIDE), ["put carrot on plate", "put banana on blue mat"]
    model = made.student.model
    layer, used = model.language_model.model.layers[-1].self_attn, []
    layer.o_proj.register_forward_pre_hook(lambda module, inputs: used.append(inputs[0]))
    looks = made.task.looks(images, sentences)
    patches = len(made.task.centres)
    assert looks.answer is looks.attention and looks.attention.shape == (2, 14, 2, patches)
    assert (looks.attention.exp().sum(-1) < 1).all()  # the rest of the attention goes to words
    value = layer._heads(layer.v_proj(_input_of_last_layer(made, images, sentences)))
    weights = looks.attention[:, :, 0].exp()
    others = used[-1].unflatten(-1, (layer.config.heads, -1))[:, -15:-1, 0] - weights @ value[:, 0, 1 : 1 + patches]
    rest = 1 - weights.sum(-1, keepdim=True)
    assert (others.abs().amax(-1, keepdim=True) <= rest * value[:, 0].abs().max() + 1e-5).all()
    made.one_step()
    assert layer.q_proj.weight.grad.abs().sum() > 0


def _input_of_last_layer(made: trainer.Trainer, images: torch.Tensor, sentences: list[str]) -> torch.Tensor:
    found: list[torch.Tensor] = []
    norm = made.student.model.language_model.model.layers[-1].input_layernorm
    handle = norm.register_forward_hook(lambda module, inputs, output: found.append(output))
    made.task.looks(images, sentences)
    handle.remove()
    return found[0]


def test_looking_first_teaches_vision_and_words_only(rendered):
    recipe = recipe_of(rendered, held_out=None, grounding=settings(rendered, per_scene=2), look_first=12, samples=8)
    made = trainer.Trainer(recipe, ALONE)
    assert (recipe.looking_steps, recipe.steps) == (3, 4)
    model = made.student.model
    first = {name: value.clone() for name, value in model.named_parameters()}

    def moved() -> set[str]:
        return {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, first[name])}

    for _ in range(3):
        made.one_step()
    layers = model.language_model.model.layers
    assert moved() == {"vision_backbone", "projector", "language_model"} and layers[0].mlp.up_proj.weight.grad is None
    assert made.numbers()["samples"] == 0
    made.one_step()
    assert layers[0].mlp.up_proj.weight.grad is not None and made.numbers()["samples"] == 8


def test_questions_are_about_things_that_can_be_seen(rendered):
    scenes = store.load_scenes(rendered, SIDE)
    hidden = replace(scenes, visible=np.where(np.arange(scenes.visible.shape[1]) == 0, 0, scenes.visible))
    rows = task.Queries.of(hidden).rows
    assert len(rows) and (rows[:, 1] != 0).all()
    assert not scenes.receptacle[rows[:, 0], rows[:, 1]].any() and scenes.receptacle[rows[:, 0], rows[:, 2]].all()


def test_questions_about_a_scene_are_drawn_together(rendered):
    queries = task.Queries.of(store.load_scenes(rendered, SIDE))
    chosen = queries.draw(50, 4, np.random.default_rng(0))
    assert (chosen[:, 0].reshape(50, 4) == chosen[::4, :1]).all()
    known = {tuple(row) for row in queries.rows}
    assert {tuple(row) for row in chosen} <= known and len({tuple(row) for row in chosen}) > 0.9 * len(known)


def test_an_image_seen_once_for_several_questions_gives_the_same_answers(rendered):
    settled = trainer.Trainer(recipe_of(rendered, held_out=None), ALONE).task
    images = torch.rand(2, 3, SIDE, SIDE)
    sentences = ["put carrot on plate", "put banana on plate", "put red ball on blue mat", "put pipe on plate"]
    with torch.no_grad():
        once, repeated = (settled.looks(shown, sentences).answer for shown in (images, images.repeat_interleave(2, 0)))
    assert torch.allclose(once, repeated, atol=1e-5) and not torch.allclose(once[0], once[1], atol=1e-5)


def test_found_counts_the_nearest_thing_of_the_kind(rendered):
    """Two objects at (-0.4, 0) and (0.4, 0): predictions at x = -0.1 and 0.3 find the first and the second one."""
    scenes = store.load_scenes(rendered, SIDE)
    place = np.full_like(scenes.place, -1)
    place[0, :3] = [(0.3, 0.5), (0.7, 0.5), (0.5, 0.9)]
    thing = np.full_like(scenes.thing, -1)
    thing[0, :3] = [1, 2, 3]
    receptacle = np.zeros_like(scenes.receptacle)
    receptacle[0, 2] = True
    made = replace(scenes, place=place, thing=thing, receptacle=receptacle)
    queries = task.Queries(made, np.array([[0, 0, 2], [0, 0, 2]], np.int32))
    found = task._found(queries, queries.rows, np.float32([[-0.1, 0.0], [0.3, 0.0]]), "object")
    assert found == {"object": 0.5, "object_chance": 0.5}
    assert task._found(queries, queries.rows, np.zeros((2, 2), np.float32), "receptacle") == {}


def test_a_shift_that_would_leave_the_places_behind_is_refused(rendered):
    with pytest.raises(ValueError, match="warp.shift moves the places asked for too"):
        settings(rendered, augment={"shift": 0.1})


# ---- training ----------------------------------------------------------------------------------------------


def recipe_of(folder: Path, **changes: Any) -> trainer.GroundingRecipe:
    fields = {
        "name": "tiny", "trainer": "grounding", "world": "pretrain", "optimiser": {"lr": 2e-3, "clip": 1.0},
        "model": {"size": "pico", "decoding": "parallel", "chunk": 2}, "grounding": settings(folder),
        "held_out": str(folder), "samples": 64, "log_every": 2, "check_every": 4, "ema": 0.9,
        "checkpoint_every_s": 1e-6,
    }  # fmt: skip
    return trainer.GroundingRecipe(**{**fields, **changes})


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "curve.csv").open() as file:
        return [{key: value for key, value in row.items() if "_s" not in key} for row in csv.DictReader(file)]


@pytest.mark.parametrize("look_first", [0, 24])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(rendered, tmp_path, monkeypatch, look_first):
    recipe = recipe_of(rendered, look_first=look_first, samples=64 - look_first)
    trainer.train(recipe, tmp_path / "whole", ALONE, lambda line: None, RunOptions())
    step = trainer.Trainer.one_step

    def broken(self) -> None:
        if self.step == 5:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(trainer.Trainer, "one_step", broken)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(recipe, tmp_path / "parts", ALONE, lambda line: None, RunOptions())
    monkeypatch.setattr(trainer.Trainer, "one_step", step)
    trainer.train(recipe, tmp_path / "parts", ALONE, lambda line: None, RunOptions())
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole") and len(rows_of(tmp_path / "whole")) == 4
    ours, theirs = ((tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("parts", "whole"))
    assert ours == theirs
    assert float(rows_of(tmp_path / "whole")[-1]["object_chance"]) < 1


def test_it_learns_where_the_named_things_are(rendered, tmp_path):
    """A few scenes by heart: the loss falls far below that of pointing everywhere, the logarithm of 16 patches."""
    recipe = recipe_of(rendered, samples=8 * 120, held_out=None, log_every=20, check_every=500)
    trainer.train(recipe, tmp_path, ALONE, lambda line: None, RunOptions())
    losses = [float(row["loss"]) for row in rows_of(tmp_path)]
    assert losses[0] == pytest.approx(np.log(16), abs=0.15) and losses[-1] < np.log(16) - 0.4, losses


@pytest.mark.parametrize(("at", "attend"), [("h0", 0.0), ("slots", 0.0), ("h0", 1.0)])
def test_supervised_training_takes_the_scenes_in(rendered, tmp_path, at, attend):
    written(tmp_path / "data", [demo(index) for index in range(4)])
    recipe = sft.SftRecipe(
        name="both", trainer="sft", model={"size": "pico", "decoding": "parallel", "chunk": 2},
        optimiser={"lr": 1e-3}, data=str(tmp_path / "data"), samples=16, batch=4, log_every=2, validate_every=4,
        grounding=settings(rendered, batch=4, at=at, attend=attend),
    )  # fmt: skip
    sft.train(recipe, tmp_path / "run", ALONE, lambda line: None, RunOptions())
    asked = [float(row["grounding"]) for row in csv.DictReader((tmp_path / "run" / "curve.csv").open())]
    assert len(asked) == 2 and min(asked) > 0
