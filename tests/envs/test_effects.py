"""Image effects, by formula and in the rendered image."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sim import CAMERA, environment, image, overlay, simple_spec

from vla_gen_bench.envs.compositing import (
    blend,
    bounding_boxes,
    composite,
    foreground_mask,
    load_image,
    without_alpha,
)
from vla_gen_bench.envs.effects import RunningEffects
from vla_gen_bench.envs.effects.overlays import Noise, Texture
from vla_gen_bench.episodes import effects
from vla_gen_bench.episodes.effects import EffectSpec, find_effect
from vla_gen_bench.episodes.spec import Effect
from vla_gen_bench.errors import UserError


def first_image(*effects):
    env = environment()
    observation, _ = env.reset(options={"spec": simple_spec(effects=effects)})
    mask = foreground_mask(observation["sensor_data"][CAMERA]["segmentation"], env._background)
    return image(observation).astype(int), mask[0].numpy()


def test_bounding_box_is_inclusive():
    mask = torch.zeros(2, 6, 8, dtype=torch.bool)
    mask[0, 2:5, 3] = True
    mask[0, 4, 6] = True
    assert bounding_boxes(mask).tolist() == [[2, 3, 4, 6], [0, 0, 0, 0]]


def test_blend_truncates():
    """0.3 * 101 + 0.7 * 10 = 37.3 and 0.3 * 255 + 0.7 * 254 = 254.3."""
    picture, layer = torch.tensor([[[[10, 254, 0]]]], dtype=torch.uint8), torch.tensor([[[[101, 255, 9]]]])
    assert blend(picture, layer, torch.tensor([0.3])).flatten().tolist() == [37, 254, 2]


def test_composite_takes_the_render_only_where_there_is_something():
    segmentation = torch.tensor([[[[0], [1], [7]]]])  # nothing, the table (id 1), a robot link
    render, table = torch.full((1, 1, 3, 3), 200, dtype=torch.uint8), torch.full((1, 1, 3, 3), 5, dtype=torch.uint8)
    picture = composite(render, foreground_mask(segmentation, torch.tensor([1])), table)
    assert picture[0, 0, :, 0].tolist() == [5, 5, 200]


def test_texture_changes_the_foreground_only():
    plain, mask = first_image()
    changed, _ = first_image(overlay("texture", 0.5))
    np.testing.assert_array_equal(changed[~mask], plain[~mask])
    assert (np.abs(changed[mask] - plain[mask]).max(1) > 5).mean() > 0.5


def test_noise_changes_the_whole_image_by_the_blend():
    plain, _ = first_image()
    weak, strong = (first_image(overlay("noise", alpha))[0] for alpha in (0.3, 0.5))
    # weak = 0.7 p + 0.3 t and strong = 0.5 p + 0.5 t, so t can be had from either, up to truncation.
    from_weak, from_strong = (weak - 0.7 * plain) / 0.3, (strong - 0.5 * plain) / 0.5
    assert np.abs(from_weak - from_strong).max() <= 1 / 0.3 + 1 / 0.5
    assert (np.abs(strong - plain).max(2) > 3).mean() > 0.8


def test_alpha_zero_changes_nothing():
    plain, _ = first_image()
    for name in ("texture", "noise"):
        np.testing.assert_array_equal(first_image(overlay(name, 0.0))[0], plain)


@pytest.mark.parametrize(("order", "seen"), [(("Invert", "Halve"), 122), (("Halve", "Invert"), 250)])
def test_effects_apply_in_order(order, seen):
    """255 - 10, halved; or 255 - 5."""
    spec = SimpleNamespace(effects=[Effect(name=f"{__name__}:{name}") for name in order])
    images = torch.full((1, 4, 5, 3), 10, dtype=torch.uint8)
    changed = RunningEffects(None, [spec]).images(images, torch.ones(1, 4, 5, dtype=torch.bool))
    assert (changed == seen).all()


def test_noise_crop_follows_the_foreground_centre():
    env = environment("builtin", "none")
    effect = Noise(env, [0], [overlay("noise", 1.0).params])
    mask = torch.zeros(1, 240, 320, dtype=torch.bool)
    mask[0, 100:141, 50:91] = True  # rows 100..140 -> 120, columns 50..90 -> 70
    drawn = effect.apply(torch.zeros(1, 240, 320, 3, dtype=torch.uint8), mask)
    assert torch.equal(drawn[0], effect.textures[0, 120:360, 70:390])


def test_texture_is_squeezed_into_the_foreground_box():
    env = environment("builtin", "none")
    effect = Texture(env, [0], [overlay("texture", 1.0).params])
    full = torch.ones(1, 240, 320, dtype=torch.bool)
    drawn = effect.apply(torch.zeros(1, 240, 320, 3, dtype=torch.uint8), full)
    assert (drawn[0].int() - effect.textures[0].int()).abs().max() <= 1  # the whole image: the texture itself


def test_images_are_resized_bilinearly(tmp_path):
    import cv2

    picture = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    assert load_image(tmp_path / "a.png", 4, 4).numpy().tolist() == picture.tolist()
    half = load_image(tmp_path / "a.png", 2, 2).numpy()  # the mean of 2 x 2 pixels: 0, 3, 12, 15 -> 7.5
    assert half[0, 0, 0] in (7, 8)


def test_overlays_are_the_references_bit_by_bit():
    """Each is computed where it is seen alone; here over the whole image, as the reference does."""
    env = environment("builtin", "none")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 240, 320, 3), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(2, 240, 320, dtype=torch.bool)
    mask[0, 17:203, 5:301] = torch.rand(186, 296, generator=generator) > 0.5
    mask[1, 100:131, 250:311] = True
    noise = Noise(env, [0, 1], [overlay("noise", alpha).params for alpha in (0.3, 0.37)])
    texture = Texture(env, [0, 1], [overlay("texture", alpha).params for alpha in (0.3, 0.37)])
    for row, (top, left, bottom, right) in enumerate(bounding_boxes(mask).tolist()):
        y, x, alpha = (top + bottom) // 2, (left + right) // 2, noise.alpha[row : row + 1]
        crop = noise.textures[row : row + 1, y : y + 240, x : x + 320]
        assert torch.equal(noise.apply(images, mask)[row], blend(images[row : row + 1], crop, alpha)[0])
        v = (2 * (torch.arange(240) + 0.5 - top) / (bottom + 1 - top) - 1)[:, None].expand(-1, 320)
        u = (2 * (torch.arange(320) + 0.5 - left) / (right + 1 - left) - 1)[None].expand(240, -1)
        source = texture.textures[row : row + 1].permute(0, 3, 1, 2).float()
        drawn = torch.nn.functional.grid_sample(
            source, torch.stack([u, v], -1)[None], padding_mode="border", align_corners=False
        )
        whole = blend(images[row : row + 1], drawn.permute(0, 2, 3, 1), alpha)[0]
        assert torch.equal(texture.apply(images, mask)[row], torch.where(mask[row][..., None], whole, images[row]))


def test_unknown_effect_is_named():
    with pytest.raises(UserError, match="unknown effect 'textur'; did you mean 'texture'"):
        find_effect("textur")


class Invert:
    """What a plugin would bring: turns every image into its negative."""

    kind = "image"

    def __init__(self, env, rows, params) -> None:
        self.params = params

    def apply(self, images, foreground):
        return 255 - images


@pytest.fixture
def plugin(monkeypatch):
    """`plugin(name, value)` is an installed package with an effect `name` at `value`."""
    from importlib.metadata import EntryPoint

    def install(name: str, value: str) -> None:
        monkeypatch.setattr(effects, "plugin_points", lambda: {name: EntryPoint(name, value, effects.GROUP)})

    return install


class Halve(Invert):
    def apply(self, images, foreground):
        return images // 2


class Late:
    """Shows the image before, which it keeps as it got it."""

    kind = "image"

    def __init__(self, env, rows, params) -> None:
        self.last = None

    def apply(self, images, foreground):
        shown = images if self.last is None else self.last
        self.last = images
        return shown


@pytest.mark.parametrize("rows", [[0], [0, 1], [0, 2], [1, 2], [0, 1, 2]])
def test_an_effect_may_keep_the_images_it_got(rows):
    """Whether the rows of a batch that have the effect lie next to one another or not."""
    late = Effect(name=f"{__name__}:Late")
    specs = [SimpleNamespace(effects=(late,) if row in rows else ()) for row in range(3)]
    running = RunningEffects(None, specs)
    seen = []
    for step in range(1, 5):
        images = torch.full((3, 4, 5, 3), step, dtype=torch.uint8)
        seen.append(running.images(images, torch.ones(3, 4, 5, dtype=torch.bool))[:, 0, 0, 0].tolist())
    assert seen == [[max(1, step - (row in rows)) for row in range(3)] for step in range(1, 5)]


def test_a_plugin_adds_an_effect(plugin):
    plugin("invert", f"{__name__}:Invert")
    plain, _ = first_image()
    negative, _ = first_image(Effect(name="invert"))
    np.testing.assert_array_equal(negative, 255 - plain)


def test_an_effect_is_found_by_module_and_attribute():
    plain, _ = first_image()
    negative, _ = first_image(Effect(name=f"{__name__}:Invert"))
    np.testing.assert_array_equal(negative, 255 - plain)


def test_what_is_no_effect_is_refused(plugin):
    plugin("invert", f"{__name__}:first_image")
    with pytest.raises(
        UserError, match="effect 'invert': <function first_image.* is neither an EffectSpec nor a class"
    ):
        find_effect("invert")
    plugin("invert", "no_such_module:Invert")
    with pytest.raises(UserError, match="effect 'invert': no_such_module:Invert cannot be loaded: ModuleNotFoundError"):
        find_effect("invert")


def test_an_effect_names_the_worlds_that_can_realise_it():
    with pytest.raises(UserError, match="effect 'haze': world 'rl4vla' cannot realise it; expected builtin"):
        EffectSpec("haze", "image", worlds=["builtin"]).check_world("rl4vla")


def test_several_images_are_composited_each_over_its_own_table() -> None:
    """As an emulated GPU hands them over: two sub-scenes, a body at the left, one at the right."""
    drawn = without_alpha(torch.arange(16, dtype=torch.uint8).view(2, 1, 2, 4))
    assert drawn.tolist() == [[[[0, 1, 2], [4, 5, 6]]], [[[8, 9, 10], [12, 13, 14]]]]
    tables = torch.tensor([100, 200], dtype=torch.uint8).view(2, 1, 1, 1).repeat(1, 1, 2, 3)
    mask = torch.tensor([[[True, False]], [[False, True]]])
    assert composite(drawn, mask, tables).tolist() == [[[[0, 1, 2], [100] * 3]], [[[200] * 3, [12, 13, 14]]]]
