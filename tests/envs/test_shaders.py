"""The lean and the swift shaders draw what SAPIEN's own draw."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sapien
import torch
from mani_skill.render import PREBUILT_SHADER_CONFIGS, set_shader_pack
from sim import spec_of

from vla_gen_bench.envs import robot, shaders
from vla_gen_bench.envs.pick_place import PickPlaceEnv
from vla_gen_bench.envs.scene import drawn_swiftly

SHADERS = Path(sapien.__file__).parent / "vulkan_shader"


@pytest.fixture(scope="module", autouse=True)
def renderer():
    """Keeps the renderer alive between the tests: with the last scene SAPIEN drops the table it took 7 s to compute."""
    return sapien.render.RenderSystem()


def build_scene(opacity: float = 1.0) -> sapien.Scene:
    """Puts a shiny box and a matt sphere on the ground under an ambient and a shadow-casting light."""
    scene = sapien.Scene([sapien.physx.PhysxCpuSystem(), sapien.render.RenderSystem()])
    scene.set_ambient_light([0.3, 0.3, 0.3])
    scene.add_directional_light([-0.4, 0.3, -1], [1, 0.9, 0.8], shadow=True)
    for build, roughness, metallic, position in (
        (lambda b, m: b.add_box_visual(half_size=[0.2, 0.2, 0.2], material=m), 0.1, 0.9, [1, 0.2, -0.2]),
        (lambda b, m: b.add_sphere_visual(radius=0.2, material=m), 0.9, 0.0, [1, -0.3, -0.2]),
        (lambda b, m: b.add_box_visual(half_size=[2, 2, 0.01], material=m), 0.6, 0.0, [1, 0, -0.4]),
    ):
        builder = scene.create_actor_builder()
        material = sapien.render.RenderMaterial(
            base_color=[0.8, 0.4, 0.2, opacity], roughness=roughness, metallic=metallic, specular=0.8
        )
        build(builder, material)
        builder.build_static().set_pose(sapien.Pose(position))
    return scene


def pictures(config, names: list[str]) -> list[np.ndarray]:
    """Draws the scene, 96 x 72."""
    set_shader_pack(config)
    scene = build_scene()
    camera = scene.add_camera("camera", 96, 72, 1.0, 0.01, 10)
    scene.update_render()
    camera.take_picture()
    return [np.array(camera.get_picture(name)) for name in names]


def picture(config) -> np.ndarray:
    return pictures(config, ["Color"])[0]


def modalities(config) -> dict[str, np.ndarray]:
    """Returns "rgb" and "segmentation" as ManiSkill's cameras do."""
    names = [name for name, kinds in config.texture_names.items() if {"rgb", "segmentation"} & set(kinds)]
    found = {}
    for name, drawn in zip(names, pictures(config, names), strict=True):
        found |= config.texture_transforms[name](torch.from_numpy(drawn[None]))
    return {name: value[0].numpy() for name, value in found.items()}


@pytest.mark.parametrize("name", ["minimal", "default"])
def test_lean_shaders_draw_the_same_bit_by_bit(name: str) -> None:
    lean = shaders.lean_shader_config(name)
    assert lean.shader_pack != name, "fell back to the shaders as they are"
    drawn, expected = picture(lean), picture(PREBUILT_SHADER_CONFIGS[name])
    assert len(np.unique(expected)) > 50, "the image is too plain to compare anything"
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(("name", "drawn_as"), [("default", ["Body", "Bytes"]), ("minimal", ["Body", "ColorRaw"])])
def test_swift_shaders_draw_bodies_the_same_bit_by_bit_and_nothing_black(name: str, drawn_as: list[str]) -> None:
    swift = shaders.swift_shader_config(name)
    assert sorted(swift.texture_names) == drawn_as, "fell back to slower shaders"
    drawn, expected = modalities(swift), modalities(PREBUILT_SHADER_CONFIGS[name])
    np.testing.assert_array_equal(drawn["segmentation"], expected["segmentation"])
    body = expected["segmentation"][..., 0] != 0
    assert 0.2 < body.mean() < 0.9 and len(np.unique(expected["rgb"][body])) > 50, "too plain to compare anything"
    np.testing.assert_array_equal(drawn["rgb"][body], expected["rgb"][body])
    assert drawn["rgb"].dtype == expected["rgb"].dtype and not drawn["rgb"][~body].any()


@pytest.mark.parametrize("scenario", ["ind", "multi_object_ood"])
def test_episodes_look_the_same_bit_by_bit_with_the_swift_shaders(scenario: str, monkeypatch) -> None:
    """Three steps each, the arm moving, the table image behind; hundreds of images: benchmarks/frames.py."""
    seen = []
    for lean in (False, True):
        env = PickPlaceEnv(world="builtin", obs_mode="rgb+segmentation")
        monkeypatch.setattr(env, "_draws_swiftly", lambda lean=lean: not lean)
        images = [env.reset(options={"spec": spec_of(scenario)})[0]]
        assert ("ColorRaw" in env._sensors[robot.CAMERA].config.shader_config.texture_names) != lean
        images += [env.step(np.float32([[0.02, 0.01, -0.02, 0, 0, 0.1, -1]]))[0] for _ in range(3)]
        seen.append([image["sensor_data"][robot.CAMERA] for image in images])
        env.close()
    for swift, stock in zip(*seen, strict=True):
        assert torch.equal(swift["rgb"], stock["rgb"]) and torch.equal(swift["segmentation"], stock["segmentation"])


def test_a_translucent_body_is_noticed() -> None:
    for opacity in (1.0, 0.5):
        scene = SimpleNamespace(sub_scenes=[build_scene(opacity)])
        assert [drawn_swiftly(scene, name) for name in ("minimal", "default")] == [opacity == 1] * 2


def test_a_normal_map_is_noticed_where_it_is_not_drawn() -> None:
    scene = build_scene()
    (part, *_) = scene.render_system.render_bodies[0].render_shapes[0].parts
    part.material.normal_texture = sapien.render.RenderTexture2D(np.zeros((2, 2, 4), np.uint8), "r8g8b8a8unorm")
    scene = SimpleNamespace(sub_scenes=[scene])
    assert [drawn_swiftly(scene, name) for name in ("minimal", "default")] == [False, True]


def test_a_changed_stock_shader_is_refused() -> None:
    for edit in (shaders._swift, shaders._swift_minimal):
        with pytest.raises(ValueError, match="nothing matches"):
            edit("gbuffer.frag", "void main() {}")


def test_no_file_reads_the_table(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VGB_CACHE", str(tmp_path))
    pack = Path(shaders.lean_shader_config("default").shader_pack)
    assert not [file for file in pack.rglob("*") if "BRDFLUT" in file.read_text()]
    assert {file.name for file in pack.iterdir()} == {file.name for file in (SHADERS / "default").iterdir()}


def test_an_unknown_use_of_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="samplerBRDFLUT"):
        shaders.without_table("vec3 x = textureLod(samplerBRDFLUT, uv, 0).rgb;")


def test_without_a_writable_cache_the_stock_shaders_are_used(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VGB_CACHE", str(tmp_path / "file" / "cache"))
    assert shaders.lean_shader_config("minimal") == PREBUILT_SHADER_CONFIGS["minimal"]
    for name in ("default", "minimal"):
        assert shaders.swift_shader_config(name) == PREBUILT_SHADER_CONFIGS[name]


def test_a_cleared_cache_is_filled_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VGB_CACHE", str(tmp_path))
    first = Path(shaders.lean_shader_config("default").shader_pack)
    shutil.rmtree(tmp_path)
    assert Path(shaders.lean_shader_config("default").shader_pack) == first and first.is_dir()
