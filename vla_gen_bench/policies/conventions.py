"""The convention doctor: runs a policy on demonstration frames and reports likely convention mistakes.

`vgb policies check NAME --replay DATA`. On the expert's own frames, a policy that has learned the task moves about as
the expert did. If it does so only after one dimension is negated, or images are mirrored, that is the likely mistake.
Each verdict compares the policy's actions with its actions after such a change, so the only quality threshold is
"better than nothing"; a policy that does not follow the expert at all gets only that verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from vla_gen_bench.policies.contract import CheckResult
from vla_gen_bench.protocol import EXTERNAL, STATE_DIMS, WRIST, Needs, Observation

BATCH = 16
FOLLOWS = 0.2  # correlation with the expert above which a policy follows it
CLEARER = 0.15  # required gain in correlation of a corrected policy
SCALES = (0.25, 4.0)  # allowed spread of the moves relative to the expert's
SAME = 1e-6


@dataclass(frozen=True)
class Frames:
    """Demonstration frames: the observations and the expert's actions.

    Attributes:
        observation: N frames, each presented to the policy as a separate episode.
        actions: float32 [N, 7], the expert's.
        ahead: float32 [N, K, 7], the expert's next actions; NaN beyond the end of an episode.
        missing: Inputs that the policy needs and the data lack, with what it got instead.
    """

    observation: Observation
    actions: np.ndarray
    ahead: np.ndarray
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.actions)


def take_frames(demos: Any, needs: Needs, count: int, chunk: int, seed: int = 0) -> Frames:
    """Returns `count` frames spread over the demonstrations (`train.demos.dataset.Demos`, with the wrist camera).

    The images have the size of `needs`, else that of the data. `Frames.missing` names what the data cannot give.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(demos.actions), min(count, len(demos.actions)), replace=False))
    ends = demos.starts[demos.episode[chosen] + 1]
    steps = chosen[:, None] + np.arange(chunk)
    ahead = demos.actions[np.minimum(steps, len(demos.actions) - 1)].astype(np.float32)
    ahead[steps >= ends[:, None]] = np.nan
    images = {EXTERNAL: _images(demos.images, chosen, needs)}
    for camera in (camera for camera in needs.cameras if camera != EXTERNAL):
        images[camera] = np.zeros_like(images[EXTERNAL])
        if camera == WRIST and demos.wrist is not None:
            images[camera] = _images(demos.wrist, chosen, needs)
    observation = Observation(
        images[EXTERNAL],
        tuple(demos.instructions[episode] for episode in demos.episode[chosen]),
        (chosen - demos.starts[demos.episode[chosen]]).astype(np.int64),
        state=_states(demos, chosen) if needs.state else None,
        other_images={camera: image for camera, image in images.items() if camera != EXTERNAL},
        history={camera: _repeated(images[camera], needs.history) for camera in needs.cameras if needs.history > 1},
    )
    return Frames(observation, demos.actions[chosen].astype(np.float32), ahead, tuple(_missing(demos, needs)))


def _repeated(images: np.ndarray, count: int) -> np.ndarray:
    return np.repeat(images[:, None], count, axis=1)


def _missing(demos: Any, needs: Needs) -> Iterator[str]:
    if WRIST in needs.cameras and demos.wrist is None:
        yield "no wrist camera (black images)"
    if needs.state and demos.observed is None:
        yield "no joint angles (zeros)"
    if needs.image_size not in (None, tuple(demos.images.shape[1:3])):
        drawn, wanted = ("x".join(map(str, size)) for size in (demos.images.shape[1:3], needs.image_size))
        yield f"images of {drawn} (resized to {wanted})"
    if needs.history > 1:
        yield "no history (the same frame repeated)"


def _images(stored: Any, chosen: np.ndarray, needs: Needs) -> np.ndarray:
    """Returns uint8 [N, H, W, 3] of one camera in the size that the policy needs."""
    images = np.stack([np.asarray(stored[frame]) for frame in chosen])
    if needs.image_size is None or tuple(images.shape[1:3]) == needs.image_size:
        return images
    height, width = needs.image_size
    resized = [Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC) for image in images]
    return np.stack([np.asarray(image) for image in resized])


def _states(demos: Any, chosen: np.ndarray) -> np.ndarray:
    """Returns the arm states float32 [N, 17]; data sets without them have the pose, which lacks joint angles."""
    if demos.observed is not None:
        return np.array(demos.observed[chosen], np.float32)
    pose = np.nan_to_num(demos.states[chosen])
    rotation = Rotation.from_euler("XYZ", pose[:, 3:6])
    down = Rotation.from_matrix([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    states = np.zeros((len(chosen), STATE_DIMS), np.float32)
    states[:, 0:3] = pose[:, :3]
    states[:, 3:7] = np.roll(rotation.as_quat(canonical=True), 1, axis=1)
    states[:, 7:10] = (rotation * down.inv()).as_euler("xyz")
    states[:, 16] = (pose[:, 6] - 0.015) / 0.022
    return states


def answers(policy: Any, observation: Observation) -> np.ndarray:
    """Returns the policy's actions float32 [N, K, 7] for each frame as the first step of an episode."""
    chunks = []
    for first in range(0, len(observation), BATCH):
        part = observation.select(range(first, min(first + BATCH, len(observation))))
        policy.reset(list(part.instruction), list(range(first, first + len(part))))
        chunks.append(np.array(policy.act(replace(part, step=np.zeros_like(part.step))), np.float32))
    return np.concatenate(chunks)


def diagnose(policy: Any, frames: Frames) -> list[CheckResult]:
    """Returns one result per question; a "note" is a likely mistake, "ok" none found."""
    said = answers(policy, frames.observation)
    first, truth = said[:, 0], frames.actions
    agreement = follows(first, truth)

    def images(change: Callable[[np.ndarray], np.ndarray]) -> float:
        return follows(_answer(policy, frames, image=change(frames.observation.image)), truth)

    results = [_scale(first, truth), _gripper(first, truth), _rotation(first, truth)]
    results += [_image_order(agreement, images), _chunk(said, frames.ahead)]
    results += [_ignored("language", said, policy, frames, instruction=_others(frames.observation.instruction))]
    if frames.observation.state is not None:
        results.append(_ignored("state", said, policy, frames, state=np.roll(frames.observation.state, 1, axis=0)))
    results.append(_ignored("image", said, policy, frames, image=np.roll(frames.observation.image, 1, axis=0)))
    head = f"follows the expert's moves with a correlation of {agreement:.2f}"
    if agreement < FOLLOWS:
        head += "; too little to tell more than gross mistakes"
    found = [CheckResult("replay", "ok" if agreement >= FOLLOWS else "note", head), _error(first, truth), *results]
    if frames.missing:
        found.insert(0, CheckResult("data", "note", f"the data have {', '.join(frames.missing)}"))
    return found


def mean_errors(said: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Returns the mean absolute error (L1) of actions [N, 7]: translation in m, rotation in rad, gripper."""
    off = np.abs(said.astype(np.float64) - truth).mean(axis=0)
    return {"translation": float(off[:3].mean()), "rotation": float(off[3:6].mean()), "gripper": float(off[6])}


def _error(said: np.ndarray, truth: np.ndarray) -> CheckResult:
    off = mean_errors(said, truth)
    detail = f"translation {off['translation']:.6f} m, rotation {off['rotation']:.6f} rad, gripper {off['gripper']:.5f}"
    return CheckResult("error", "ok", f"{detail}: mean absolute difference from the expert, {len(said)} frames")


def follows(said: np.ndarray, truth: np.ndarray) -> float:
    """Returns the mean correlation of translations with the expert's; 0 if either never moves."""
    return float(np.mean([correlation(said[:, dim], truth[:, dim]) for dim in range(3)]))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Pearson's correlation, 0 for constants."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > SAME else 0.0


def _answer(policy: Any, frames: Frames, **changes: Any) -> np.ndarray:
    return answers(policy, replace(frames.observation, **changes))[:, 0]


def _scale(said: np.ndarray, truth: np.ndarray) -> CheckResult:
    """Checks un-normalisation: compares the size of the moves with the expert's, in metres and radians."""
    ratios = {}
    for name, dims in (("translation", slice(0, 3)), ("rotation", slice(3, 6))):
        size = np.median(np.linalg.norm(truth[:, dims], axis=1))
        ratios[name] = float(np.median(np.linalg.norm(said[:, dims], axis=1)) / max(size, 1e-9))
    wrong = [name for name, ratio in ratios.items() if not SCALES[0] <= ratio <= SCALES[1]]
    told = ", ".join(f"{name} {ratio:.2g} times the expert's" for name, ratio in ratios.items())
    if "translation" in wrong:
        return CheckResult("scale", "note", f"{told}: are actions un-normalised, with this data set's statistics?")
    return CheckResult("scale", "ok", told)


def _gripper(said: np.ndarray, truth: np.ndarray) -> CheckResult:
    """Checks the gripper's sign and range."""
    open_, closed = said[truth[:, 6] > 0, 6], said[truth[:, 6] < 0, 6]
    if not len(open_) or not len(closed):
        return CheckResult("gripper", "ok", "the frames show one state of the gripper only; nothing to compare")
    told = f"says {open_.mean():.2f} where the expert opens, {closed.mean():.2f} where it closes"
    if open_.mean() < closed.mean() - 0.1:
        return CheckResult("gripper", "note", f"{told}: turned round? +1 is open, -1 is closed")
    if abs(open_.mean() - closed.mean()) < 0.1:
        return CheckResult("gripper", "note", f"{told}: does not tell the two apart")
    if said[:, 6].min() >= -SAME:
        return CheckResult("gripper", "note", f"{told}, never below 0: a 0..1 gripper? gripper: {{closed: 0, open: 1}}")
    return CheckResult("gripper", "ok", told)


def _rotation(said: np.ndarray, truth: np.ndarray) -> CheckResult:
    """Checks sign and order of the rotation axes; for small turns axis-angle and Euler angles look the same."""
    turning = [dim for dim in (3, 4, 5) if np.abs(truth[:, dim]).max() > 0.01]
    if not turning:
        return CheckResult("rotation", "ok", "the frames hardly turn; nothing to compare")
    names = {3: "droll", 4: "dpitch", 5: "dyaw"}
    table = {dim: {other: correlation(said[:, other], truth[:, dim]) for other in (3, 4, 5)} for dim in turning}
    chance = 3 / np.sqrt(len(truth))  # three standard errors of the correlation of unrelated numbers
    for dim, row in table.items():
        best = max(row, key=lambda other: abs(row[other]))
        if row[dim] < -max(FOLLOWS, chance) and best == dim:
            return CheckResult("rotation", "note", f"{names[dim]} turns the other way (correlation {row[dim]:.2f})")
        if best != dim and abs(row[best]) > max(abs(row[dim]) + CLEARER, FOLLOWS + CLEARER, chance):
            detail = f"{names[dim]} of the expert is {names[best]} of the policy: another order of the axes?"
            return CheckResult("rotation", "note", detail)
    told = ", ".join(f"{names[dim]} {row[dim]:.2f}" for dim, row in table.items())
    return CheckResult("rotation", "ok", f"correlation with the expert: {told}")


def _image_order(agreement: float, tried: Callable[[Callable[[np.ndarray], np.ndarray]], float]) -> CheckResult:
    """Checks whether the policy does better with swapped colour channels, or mirrored or upside-down images."""
    changes = {
        "blue and red swapped": lambda image: np.ascontiguousarray(image[..., ::-1]),
        "upside down": lambda image: np.ascontiguousarray(image[:, ::-1]),
        "mirrored": lambda image: np.ascontiguousarray(image[:, :, ::-1]),
        "turned by 180 degrees": lambda image: np.ascontiguousarray(image[:, ::-1, ::-1]),
    }
    found = {name: tried(change) for name, change in changes.items()}
    best = max(found, key=found.get)
    if found[best] > max(agreement, 0.0) + CLEARER:
        detail = f"follows the expert better with images {best} ({found[best]:.2f}, as they are {agreement:.2f})"
        return CheckResult("image order", "note", detail)
    return CheckResult("image order", "ok", f"as they are {agreement:.2f}, {best} {found[best]:.2f}")


def _chunk(said: np.ndarray, ahead: np.ndarray) -> CheckResult:
    """Checks that action k of a chunk matches the expert's step k: finds another order or repeated actions."""
    if said.shape[1] == 1:
        return CheckResult("chunk", "ok", "one action per call")
    if np.abs(said - said[:, :1]).max() < SAME:
        return CheckResult("chunk", "note", f"all {said.shape[1]} actions of a chunk are equal: one action repeated?")
    whole = np.isfinite(ahead).all(axis=(1, 2))
    if whole.sum() < 8:
        return CheckResult("chunk", "ok", "too few whole chunks to compare")
    flat = [(said[whole][:, k], ahead[whole][:, k]) for k in range(said.shape[1])]
    forward = float(np.mean([follows(a, b) for a, b in flat]))
    backward = float(np.mean([follows(a, b) for (a, _), (_, b) in zip(flat, flat[::-1], strict=True)]))
    if backward > forward + CLEARER:
        return CheckResult("chunk", "note", f"follows better in reverse ({backward:.2f} against {forward:.2f})")
    return CheckResult("chunk", "ok", f"follows the expert over the chunk with {forward:.2f}")


def _ignored(what: str, said: np.ndarray, policy: Any, frames: Frames, **changes: Any) -> CheckResult:
    """Checks whether another instruction, state or image changes the actions."""
    other = answers(policy, replace(frames.observation, **changes))
    moved = float(np.mean(np.abs(other - said).max(axis=(1, 2)) > SAME))
    if moved == 0:
        return CheckResult(what, "note", f"ignored: actions are the same with another {what}")
    return CheckResult(what, "ok", f"another {what} changes the actions of {100 * moved:.0f}% of the frames")


def _others(instructions: Sequence[str]) -> tuple[str, ...]:
    """Returns for each instruction a different one from the frames, or an invented one if all are equal."""
    known = sorted(set(instructions))
    if len(known) == 1:
        return tuple("put spoon on towel" for _ in instructions)
    return tuple(known[(known.index(text) + 1) % len(known)] for text in instructions)
