"""Overlay patterns blended over training images, like the texture and noise rows, which use other patterns."""

from __future__ import annotations

import numpy as np

from vla_gen_bench.assets.pack import open_pack
from vla_gen_bench.envs.compositing import load_image
from vla_gen_bench.errors import UserError
from vla_gen_bench.train.resize import squashed

ENLARGED = 2  # patterns are stored at twice the image's side, and cropped at random places and scales


class Overlays:
    """The training patterns of a world, ready to be blended into images of side S.

    Raises:
        UserError: The world has no training patterns.
    """

    def __init__(self, world: str, side: int) -> None:
        pack = open_pack(world)
        files = [pack.path(item.image) for item in pack.catalog.textures if item.split == "train" and item.mix > 0]
        if not files:
            raise UserError(f"augment.texture, augment.noise: world '{world}' has no overlay patterns to train with")
        self.side, large = side, ENLARGED * side
        images = [squashed(load_image(file, 320, 240).numpy(), large) for file in files]
        self.patterns = np.stack([np.rot90(image, turn) for image in images for turn in (0, 1)])  # [N, 2 S, 2 S, 3]

    def blend(self, images: np.ndarray, weight: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns float32 [B, S, S, 3] with a pattern sampled for each image.

        Args:
            images: float32 [B, S, S, 3], 0 to 255.
            weight: float32 [B, S, S], 0 (nothing) to 1 (the pattern alone).
        """
        drawn = np.stack([self._cut(random) for _ in range(len(images))]).astype(np.float32)
        return images + weight[..., None] * (drawn - images)

    def _cut(self, random: np.random.Generator) -> np.ndarray:
        """Returns a random part of a random pattern, at every pixel or every second one, mirrored or not."""
        pattern = self.patterns[random.integers(len(self.patterns))]
        if random.random() < 0.5:
            return pattern[::ENLARGED, ::ENLARGED]
        y, x = random.integers(0, self.side + 1, 2)
        cut = pattern[y : y + self.side, x : x + self.side]
        return cut[:, ::-1] if random.random() < 0.5 else cut


def weights(
    foreground: np.ndarray, shares: tuple[float, float], most: float, random: np.random.Generator
) -> np.ndarray:
    """Returns float32 [B, S, S]: how much of a pattern each pixel gets.

    Args:
        foreground: uint8 [B, S, S], 255 on robot and things.
        shares: Share of images with a pattern over robot and things, and share with one everywhere.
        most: Strengths are sampled uniformly up to this.
    """
    kind, strength = random.random(len(foreground)), random.uniform(0, most, len(foreground))
    over_things, everywhere = kind < shares[0], (kind >= shares[0]) & (kind < sum(shares))
    where = over_things[:, None, None] * (foreground / np.float32(255)) + everywhere[:, None, None]
    return (strength[:, None, None] * where).astype(np.float32)
