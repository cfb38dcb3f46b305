"""Effects a spec may name: image effects applied after compositing, state effects applied at a control step.

A plugin adds one through the entry point group `vla_gen_bench.effects`: name -> class with the methods of
`ImageEffect` or `StateEffect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
import torch.nn.functional as functional
from mani_skill.utils.structs.pose import Pose

from vla_gen_bench.envs.compositing import blend, bounding_boxes, load_image
from vla_gen_bench.errors import UserError, suggest

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv
    from vla_gen_bench.spec import EpisodeSpec


class ImageEffect(Protocol):
    """Changes the composited images of some sub-scenes, every step; built once per episode."""

    kind: ClassVar[str] = "image"

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None: ...

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """Maps uint8 [len(rows), H, W, 3] and bool [len(rows), H, W] to uint8 images of the same shape."""


class StateEffect(Protocol):
    """Changes the state of some sub-scenes at one control step, after its physics and before its evaluation."""

    kind: ClassVar[str] = "state"

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None: ...

    def apply(self, steps: torch.Tensor) -> None:
        """Called after the physics of a control step; `steps` [len(rows)] counts those done, this one included."""


class _Overlay:
    """Loads one overlay texture and strength per row."""

    kind = "image"
    scale = 1

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None:
        height, width = env.image_size
        pack = env.pack
        files = [pack.path(pack.catalog.get("textures", row["texture"]).image) for row in params]
        images = [load_image(file, width * self.scale, height * self.scale) for file in files]
        self.textures = torch.stack(images).to(env.device)
        self.alpha = torch.tensor([row["alpha"] for row in params], dtype=torch.float32, device=env.device)


class Texture(_Overlay):
    """Blends a texture over robot and objects only; it is squeezed into their bounding box and moves with it.

    The reference resizes the texture to the largest box of the batch and pastes its top left part; with one
    environment both are the same. Here each environment uses its own box, so no image depends on its neighbours.
    """

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        overlay = self._stretched(bounding_boxes(foreground), images.shape[1:3])
        return torch.where(foreground[..., None], blend(images, overlay, self.alpha), images)

    def _stretched(self, boxes: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """Returns the textures, float [N, H, W, 3], drawn bilinearly into `boxes`; garbage outside them."""
        top, left, bottom, right = (value.view(-1, 1).float() for value in boxes.T)
        y = torch.arange(size[0], device=boxes.device)[None] + 0.5
        x = torch.arange(size[1], device=boxes.device)[None] + 0.5
        v = 2 * (y - top) / (bottom + 1 - top) - 1  # [N, H], grid_sample's -1..1 with align_corners=False
        u = 2 * (x - left) / (right + 1 - left) - 1
        grid = torch.stack([u[:, None, :].expand(-1, size[0], -1), v[:, :, None].expand(-1, -1, size[1])], dim=-1)
        source = self.textures.permute(0, 3, 1, 2).float()
        drawn = functional.grid_sample(source, grid, padding_mode="border", align_corners=False)
        return drawn.permute(0, 2, 3, 1)


class Noise(_Overlay):
    """Blends a twice enlarged texture over the whole image; the crop follows the foreground box's centre."""

    scale = 2

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[1:3]
        top, left, bottom, right = bounding_boxes(foreground).T
        y = ((top + bottom) // 2).clamp(1, height - 1)
        x = ((left + right) // 2).clamp(1, width - 1)
        rows = y[:, None] + torch.arange(height, device=y.device)  # [N, H]
        columns = x[:, None] + torch.arange(width, device=x.device)
        index = torch.arange(len(images), device=y.device)[:, None, None]
        return blend(images, self.textures[index, rows[:, :, None], columns[:, None, :]], self.alpha)


class Reposition:
    """Teleports the target once, then lets `settle_substeps` physics substeps pass, the robot still driven.

    The observation after it shows the object where physics has got to: in the reference still in mid-air.
    """

    kind = "state"

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None:
        def tensor(values: list, dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=env.device)

        self._env, self._substeps = env, params[0]["settle_substeps"]
        self._rows = tensor(rows, torch.int64)
        self._step = tensor([row["step"] for row in params], torch.int32)
        self._pose = tensor([[*row["position"], *row["quaternion"]] for row in params], torch.float32)
        self._keep_velocity = tensor([row["keep_velocity"] for row in params], torch.bool)

    def apply(self, steps: torch.Tensor) -> None:
        due = steps == self._step
        if due.any():
            self._move(self._rows[due], self._pose[due], self._keep_velocity[due])
            self._env.simulate(self._substeps)

    def _move(self, rows: torch.Tensor, poses: torch.Tensor, keep_velocity: torch.Tensor) -> None:
        """Puts the targets of sub-scenes `rows` [N] at `poses` [N, 7]; all others stay exactly as they are."""
        actor = next(thing for thing in self._env.things if thing.role == "target").actor
        values = {name: getattr(actor, name).clone() for name in ("linear_velocity", "angular_velocity")}
        moved = actor.pose.raw_pose.clone()
        moved[rows] = poses
        actor.set_pose(Pose.create(moved))
        stopped = rows[~keep_velocity]
        if len(stopped):
            for name, value in values.items():
                value[stopped] = 0
                setattr(actor, name, value)
        if self._env.gpu_sim_enabled:
            self._env.scene.px.gpu_apply_rigid_dynamic_data()


def build_effects(env: PickPlaceEnv, specs: Sequence[EpisodeSpec]) -> list[tuple[list[int], ImageEffect | StateEffect]]:
    """Returns (sub-scenes, effect): one per position in the specs' lists and name, over those that ask for it."""
    groups: dict[tuple[int, str], list[tuple[int, dict]]] = {}
    for row, spec in enumerate(specs):
        for position, effect in enumerate(spec.effects):
            groups.setdefault((position, effect.name), []).append((row, effect.params))
    built = []
    for (_, name), entries in sorted(groups.items(), key=lambda item: item[0]):
        rows = [row for row, _ in entries]
        built.append((rows, find_effect(name)(env, rows, [params for _, params in entries])))
    return built


def schedule(spec: EpisodeSpec) -> tuple:
    """Returns when and for how long the state effects of a spec run physics of their own.

    Sub-scenes of one GPU simulation share the clock: episodes can only run side by side if this is equal for all.
    """
    effects = [effect for effect in spec.effects if find_effect(effect.name).kind == "state"]
    return tuple((e.name, e.params.get("step"), e.params.get("settle_substeps")) for e in effects)


BUILT_IN = {"texture": Texture, "noise": Noise, "reposition": Reposition}


def find_effect(name: str) -> type:
    """Returns the effect class `name`, built in or from a plugin; raises `UserError` if there is none."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    plugins = {point.name: point for point in entry_points(group="vla_gen_bench.effects")}
    if name not in plugins:
        raise UserError(f"unknown effect '{name}'{suggest(name, [*BUILT_IN, *plugins])}")
    return plugins[name].load()
