"""Realises episodes' effects in the simulator: the four kinds of effect, and the effects of the running episodes.

An effect is a class, constructed once per episode (an image effect: once per episode and camera) as
`factory(env, rows, params)`: `rows` are the sub-scenes of `env` that have the effect, `params` their drawn parameters.
An effect may read any attribute of `env` (`env.specs`, `env.things`, `env.elapsed_steps`). Its result must depend only
on the params, the state and the step, never on how often it is called: unobserved steps render no image, a video
renders all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch

from vla_gen_bench.envs.effects.setup import STANDARD, SceneSetup
from vla_gen_bench.episodes.effects import find_effect

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv
    from vla_gen_bench.episodes.spec import EpisodeSpec


class SceneEffect(Protocol):
    """Changes the setup of some sub-scenes: camera, lights, bodies, table."""

    kind: ClassVar[str] = "scene"

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None: ...

    def apply(self, setups: list[SceneSetup]) -> list[SceneSetup]:
        """Maps one `SceneSetup` per row to another; called once, before anything is built."""


class ActionEffect(Protocol):
    """Changes the actions of some sub-scenes between the policy and the controller."""

    kind: ClassVar[str] = "action"

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None: ...

    def apply(self, actions: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Maps float32 [len(rows), 7] to the executed actions; `steps` [len(rows)] counts control steps from 1.

        Called exactly once per control step. The log holds the policy's own actions; a replay applies the effect again.
        """


class StateEffect(Protocol):
    """Changes the state of some sub-scenes at a control step, after its physics and before its evaluation."""

    kind: ClassVar[str] = "state"

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None: ...

    def apply(self, steps: torch.Tensor) -> None:
        """Called after the physics of a control step; `steps` [len(rows)] counts completed steps, with this one."""


class ImageEffect(Protocol):
    """Changes the composited images of some sub-scenes.

    An effect whose images depend on earlier ones also has `needs(step) -> bool`: whether the image after control step
    `step` (0: the first image) must be rendered even if unobserved. One that shows earlier images again has
    `repeats = True`: it comes after all others, so what it shows is what was delivered then. An effect that changes the
    robot's measured state has `measured(states)`, float32 [len(rows), N] to the same shape. `env.segmentation` holds
    the ids of the bodies shown, `env.viewed_by` the camera's name.
    """

    kind: ClassVar[str] = "image"

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None: ...

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """Maps uint8 [len(rows), H, W, 3] and bool [len(rows), H, W] to uint8 images of the same shape."""


def scene_setups(env: PickPlaceEnv, specs: Sequence[EpisodeSpec]) -> list[SceneSetup]:
    """Returns one `SceneSetup` per spec."""
    setups = [STANDARD] * len(specs)
    for _, rows, effect in _build(env, specs, ("scene",)):
        for row, changed in zip(rows, effect.apply([setups[row] for row in rows]), strict=True):
            setups[row] = changed
    return setups


class RunningEffects:
    """The effects of running episodes on actions, states and images; each kind keeps the order of the specs' lists.

    Image effects that repeat earlier images come last.
    """

    def __init__(
        self, env: PickPlaceEnv, specs: Sequence[EpisodeSpec], kinds: Sequence[str] = ("action", "state", "image")
    ) -> None:
        self._built: dict[str, list[tuple[list[int], Any]]] = {kind: [] for kind in kinds}
        for kind, rows, effect in _build(env, specs, kinds):
            self._built[kind].append((rows, effect))
        self._built["image"].sort(key=lambda built: getattr(built[1], "repeats", False))

    def need_image(self, steps: torch.Tensor) -> bool:
        """Returns whether later images depend on those after control step `steps` [B], which must then be rendered."""
        looks = [(rows[0], effect.needs) for rows, effect in self._built["image"] if hasattr(effect, "needs")]
        return any(needs(int(steps[row])) for row, needs in looks)

    def actions(self, actions: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Returns the actions [B, 7] to execute in control step `steps` [B]."""
        for place, (rows, effect) in enumerate(self._built["action"]):
            actions = actions if place else actions.clone()
            actions[rows] = effect.apply(actions[rows], steps[rows])
        if self._built["action"] and not bool(torch.isfinite(actions).all()):
            raise ValueError("an effect made an action that is not finite")
        return actions

    def change_state(self, steps: torch.Tensor) -> None:
        """Applies the state effects due after control step `steps` [B]."""
        for rows, effect in self._built["state"]:
            effect.apply(steps[rows])

    def images(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """Returns the images [B, H, W, 3] a policy sees; modifies `images` in place."""
        for rows, effect in self._built["image"]:
            index = _index(rows)
            images[index] = effect.apply(images[index].clone(), foreground[index].clone())  # an effect may keep them
        return images

    def measured(self, states: np.ndarray) -> np.ndarray:
        """Returns the robots' states [B, N] as a policy receives them; modifies `states` in place."""
        for rows, effect in self._built["image"]:
            if hasattr(effect, "measured"):
                states[rows] = effect.measured(states[rows])
        return states


def _build(
    env: PickPlaceEnv, specs: Sequence[EpisodeSpec], kinds: Sequence[str]
) -> Iterator[tuple[str, list[int], Any]]:
    """Yields (kind, sub-scenes, effect) for each position in the specs' lists and each effect name there."""
    groups: dict[tuple[int, str], list[tuple[int, dict]]] = {}
    for row, spec in enumerate(specs):
        for position, effect in enumerate(spec.effects):
            groups.setdefault((position, effect.name), []).append((row, effect.params))
    for (_, name), entries in sorted(groups.items(), key=lambda item: item[0]):
        rows, found = [row for row, _ in entries], find_effect(name)
        if found.kind in kinds:
            yield found.kind, rows, found.factory(env, rows, [params for _, params in entries])


def _index(rows: list[int]) -> list[int] | slice:
    """Returns an index of these rows: a slice where one will do, with which torch copies images ten times as fast."""
    whole = slice(rows[0], rows[-1] + 1)
    return whole if rows == list(range(whole.start, whole.stop)) else rows


def schedule(spec: EpisodeSpec) -> tuple:
    """Returns when and for how long the state effects of a spec run additional physics.

    Sub-scenes of one GPU simulation share a clock, so episodes can run in parallel only if their schedules are equal.
    """
    effects = [effect for effect in spec.effects if find_effect(effect.name).kind == "state"]
    return tuple((e.name, e.params.get("step"), e.params.get("settle_substeps")) for e in effects)
