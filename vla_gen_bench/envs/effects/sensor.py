"""Image effects: sensor faults, lost frames, the target's colour, and removal of the image."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from vla_gen_bench.envs.compositing import stacked
from vla_gen_bench.envs.effects.random_numbers import normal_bank, uniform, window
from vla_gen_bench.protocol import EXTERNAL

GAMMA = 2.2  # as the shader's


class SensorEffect:
    """An image effect with independent rows; subclasses change one image."""

    kind: ClassVar[str] = "image"

    def __init__(self, env: Any, rows: list[int], params: list[dict[str, Any]]) -> None:
        self._env, self._rows, self._params = env, rows, params
        self.prepare()

    def prepare(self) -> None:
        """Computes the values that stay constant over the episode."""

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        steps = self._env.elapsed_steps.tolist()
        changed = [
            self.changed(image, place, steps[self._rows[place]]) for place, image in enumerate(images.cpu().numpy())
        ]
        return torch.from_numpy(stacked(changed)).to(images.device)

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        """Returns the image [H, W, 3] of row `place` after control step `step`."""
        raise NotImplementedError


class SensorNoise(SensorEffect):
    """Adds Gaussian noise of `sigma` times full scale to every channel of every pixel.

    It is different in each step, and independent in each camera.
    """

    def prepare(self) -> None:
        self._noise = [np.rint(normal_bank() * (255 * row["sigma"])).astype(np.int16) for row in self._params]

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        key = "" if self._env.viewed_by == EXTERNAL else self._env.viewed_by
        noise = window(self._noise[place], self._params[place]["seed"], step, image.size, key)
        return cv2.add(image, noise.reshape(image.shape), dtype=cv2.CV_8U)  # saturates


class Blur(SensorEffect):
    """Blurs by a Gaussian of `sigma` times the image's width; wide blurs use three boxes of the same variance."""

    BOXES_FROM_PIXELS = 2.0

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        sigma = self._params[place]["sigma"] * image.shape[1]
        if sigma < self.BOXES_FROM_PIXELS:
            return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image
        width = int(np.sqrt(4 * sigma * sigma + 1)) | 1  # three boxes of w have variance (w^2 - 1) / 4
        for _ in range(3):
            image = cv2.blur(image, (width, width))
        return image


class Jpeg(SensorEffect):
    """Compresses the image and decodes it again."""

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._params[place]["quality"]]
        written = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
        return cv2.cvtColor(cv2.imdecode(written, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


class Exposure(SensorEffect):
    """Multiplies the light on the sensor by 2 to the power of `stops`; white clips."""

    def prepare(self) -> None:
        gains = [2.0 ** (row["stops"] / GAMMA) for row in self._params]
        self._tables = [np.clip(np.arange(256) * gain, 0, 255).astype(np.uint8) for gain in gains]

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        return cv2.LUT(image, self._tables[place])


class Occlusion(SensorEffect):
    """Covers a grey square of `area` times the image's area; `centre` (x, y) is relative to width and height.

    A square that would reach beyond the image is moved inwards; one longer than a side covers that side.
    """

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        row, (height, width) = self._params[place], image.shape[:2]
        half = np.sqrt(row["area"] * height * width) / 2
        x, y = (
            min(max(at * side, half), side - half) if 2 * half <= side else side / 2
            for at, side in zip(row["centre"], (width, height), strict=True)
        )
        top, left = (max(0, round(value - half)) for value in (y, x))
        image = image.copy()
        image[top : max(0, round(y + half)), left : max(0, round(x + half))] = row["grey"]
        return image


class FrameDrop(SensorEffect):
    """Repeats the last delivered frame; each frame but the first is lost with probability `share`."""

    repeats = True

    def prepare(self) -> None:
        self._shown: list[np.ndarray | None] = [None] * len(self._params)

    def lost(self, place: int, step: int) -> bool:
        """Returns whether the frame after control step `step` is lost: a function of the seed and the step."""
        row = self._params[place]
        return step > 0 and bool(uniform(row["seed"], step, 1)[0] < row["share"])

    def needs(self, step: int) -> bool:
        """Returns whether the frame after `step` must be rendered even if unobserved: a later one repeats it."""
        return any(not self.lost(place, step) and self.lost(place, step + 1) for place in range(len(self._params)))

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        if self._shown[place] is None or not self.lost(place, step):
            self._shown[place] = image.copy()
        return self._shown[place]


class FrozenImage(SensorEffect):
    """Shows the first image throughout the episode."""

    repeats = True

    def prepare(self) -> None:
        self._first: list[np.ndarray | None] = [None] * len(self._params)

    def needs(self, step: int) -> bool:
        return step == 0

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        if self._first[place] is None:
            self._first[place] = image.copy()
        return self._first[place]


class BlackImage(SensorEffect):
    """Shows a black image."""

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(images)


class NoState(SensorEffect):
    """Hides the robot's measurements: the state that a policy receives is all zeros."""

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        return images

    def measured(self, states: np.ndarray) -> np.ndarray:
        return np.zeros_like(states)


class TargetColour(SensorEffect):
    """Multiplies the target's colour by `gain`, as coloured light on a matt surface would, including highlights."""

    def prepare(self) -> None:
        gains = [np.array(row["gain"])[:, None] ** (1 / GAMMA) for row in self._params]
        tables = [np.clip(np.arange(256) * gain, 0, 255).astype(np.uint8) for gain in gains]  # [3, 256] each
        self._tables = [np.ascontiguousarray(table.T[None]) for table in tables]  # [1, 256, 3], for cv2.LUT

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        self._mask = self._env.role_mask(self._env.segmentation, "target").cpu().numpy()
        return super().apply(images, foreground)

    def changed(self, image: np.ndarray, place: int, step: int) -> np.ndarray:
        seen = self._mask[self._rows[place]].view(np.uint8)
        return cv2.copyTo(cv2.LUT(image, self._tables[place]), seen, image.copy())
