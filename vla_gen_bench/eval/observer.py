"""Builds a policy's observations from the images and states of a batch."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from vla_gen_bench.protocol import EXTERNAL, USUAL, Needs, Observation

if TYPE_CHECKING:
    from vla_gen_bench.envs.vector import EnvBatch


class Observer:
    """Serves one run of a batch; created after its reset.

    Args:
        batch: Already reset.
        needs: The policy's sensors.
        privileged: Give the policy the simulator's state.
    """

    def __init__(self, batch: EnvBatch, needs: Needs = USUAL, privileged: bool = False) -> None:
        self._batch, self._needs, self._privileged = batch, needs, privileged
        self._frames: dict[str, deque[np.ndarray]] = {}

    def note(self, images: np.ndarray | None) -> None:
        """Records what the policy sees now or in its history; `images` [B, H, W, 3] of the reset or step."""
        if self._needs.history > 1:
            for camera, seen in self._images(images).items():
                if camera not in self._frames:
                    self._frames[camera] = deque([seen] * self._needs.history, maxlen=self._needs.history)
                else:
                    self._frames[camera].append(seen)

    def observe(self, images: np.ndarray | None, step: int) -> Observation:
        """Returns the observation before control step `step`; its images are already recorded."""
        batch = self._batch
        if images is None:  # nothing rendered (privileged policy), or no external camera
            images = np.zeros((len(batch), *batch.image_size, 3), np.uint8)
        return Observation(
            images,
            batch.instructions,
            np.full(len(batch), step, np.int64),
            batch.privileged() if self._privileged else None,
            batch.proprioception() if self._needs.state else None,
            dict(batch.views),
            {camera: np.stack(frames, axis=1) for camera, frames in self._frames.items()},
        )

    def _images(self, images: np.ndarray | None) -> dict[str, np.ndarray]:
        return {**({} if images is None else {EXTERNAL: images}), **self._batch.views}
