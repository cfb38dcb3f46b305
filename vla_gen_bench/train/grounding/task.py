"""The grounding loss: where in the image is the thing that the sentence names?

One query is a scene and a sentence about one of its objects and one of its receptacles. The states that choose actions
point at the image patches where the two are: a softmax over patches, cross-entropy against a Gaussian around the place.
Only the sentence determines which of several things is meant.

A second loss needs no sentence: each patch is compared with the names of all assets, as the words of the language model
embed them, and must be closest to the name of what is in it. Patches that already resemble the right words make
the first loss easy; without them it stayed at chance (docs/experiments/grounding.md).

Regressing the places with a linear head, the first attempt, stayed at the mean place, where no thing teaches more
than another (docs/experiments/grounding.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vla_gen_bench.episodes.axes import phrasings
from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.images import normalised as normalised_pixels
from vla_gen_bench.policies.openvla.model.decoding import ACTION_TOKENS
from vla_gen_bench.policies.openvla.model.vla import Inputs
from vla_gen_bench.policies.openvla.oft import with_slots
from vla_gen_bench.policies.openvla.processor import pad_prompts
from vla_gen_bench.train.demos.frames import Augment, augmented, table_images
from vla_gen_bench.train.demos.overlays import Overlays
from vla_gen_bench.train.demos.overlays import weights as overlay_weights
from vla_gen_bench.train.demos.sentences import reworded_prompt
from vla_gen_bench.train.grounding.store import Scenes, load_scenes
from vla_gen_bench.train.student import Student, Watched

STREAM, CHECK_STREAM, LOOK_STREAM = 0x6E1, 0x6E2, 0x6E3
VISIBLE_PIXELS = 60  # of the camera's 320x240: less visible things are not queried
SIGMA_PATCHES = 0.6  # of the Gaussian around a place
SHARPNESS = 2.0  # initial logarithm of the factor of the cosines
POINTERS = 2  # one to the object, one to the receptacle
CHECK_QUERIES = 1000


class Warp(Frozen):
    """Maximum camera changes: shift (fraction of the image's side), scale and rotation."""

    shift: float = Field(0.0, ge=0, lt=0.5)
    scale: float = Field(0.0, ge=0, lt=0.5)
    degrees: float = Field(0.0, ge=0, lt=45)


class Grounding(Frozen):
    """Settings for learning the places of named things from rendered scenes.

    Attributes:
        scenes: Folder, from `vgb scenes`.
        count: Use only the first `count`; None = all.
        weight: Of this loss, relative to another one.
        batch: Queries per step over all processes.
        per_scene: Queries per image, which is encoded once for all of them: encoding dominates the cost.
        at: Queried states: "h0", the one that chooses the first action token, or "slots", all that choose action
            tokens at once (parallel decoding).
        recognise: Weight of a loss on the projected patches alone: is something here, and whose name is closest?
        attend: Weight of a loss on the last layer's attention: from the queried states, its first head must look at the
            object and its second at the receptacle, so that acting knows their places. The pointers then read the
            states before that layer.
        augment: As for demonstrations; `words` keeps both names, and `tables` is always 1: a stored scene has no table.
        warp: Changes of view.
    """

    scenes: str
    count: int | None = Field(None, ge=1)
    weight: float = Field(1.0, gt=0)
    batch: int = Field(64, ge=1)
    per_scene: int = Field(1, ge=1)
    at: Literal["h0", "slots"] = "slots"
    recognise: float = Field(0.0, ge=0)
    attend: float = Field(0.0, ge=0)
    augment: Augment = Augment()
    warp: Warp = Warp()

    @model_validator(mode="after")
    def _fits(self) -> Grounding:
        if self.batch % self.per_scene:
            raise ValueError(f"per_scene: {self.per_scene} does not divide the batch, {self.batch}")
        if self.augment.shift:
            raise ValueError("augment.shift: leave it out; warp.shift moves the places asked for too")
        return self


@dataclass(frozen=True)
class Looks:
    """Where states look, logarithms over patches up to a constant; object first, then receptacle.

    Attributes:
        pointers: [B, states, 2, P].
        attention: The same for two heads of the last layer; normalised over all tokens. None if it is not trained.
    """

    pointers: Tensor
    attention: Tensor | None

    @property
    def answer(self) -> Tensor:
        return self.pointers if self.attention is None else self.attention


@dataclass(frozen=True)
class Queries:
    """All possible queries about some scenes.

    Attributes:
        scenes: The scenes.
        rows: int32 [Q, 3]: scene, row of the object, row of the receptacle.
    """

    scenes: Scenes
    rows: np.ndarray

    @classmethod
    def of(cls, scenes: Scenes) -> Queries:
        """Pairs every visible object with every visible receptacle of its scene."""
        seen = scenes.visible >= VISIBLE_PIXELS
        pairs = (seen & ~scenes.receptacle)[:, :, None] & (seen & scenes.receptacle)[:, None, :]
        rows = np.argwhere(pairs).astype(np.int32)
        if not len(rows):
            raise UserError("the scenes show no object together with a receptacle")
        return cls(scenes, rows)

    def draw(self, scenes: int, each: int, random: np.random.Generator) -> np.ndarray:
        """Samples [scenes * each, 3] queries; those about one scene are adjacent."""
        first = self.rows[random.integers(len(self.rows), size=scenes), 0]
        begin, end = (np.searchsorted(self.rows[:, 0], first, side=side) for side in ("left", "right"))
        places = begin[:, None] + (random.random((scenes, each)) * (end - begin)[:, None]).astype(np.int64)
        return self.rows[places.ravel()]

    def places(self, chosen: np.ndarray) -> np.ndarray:
        """Returns float32 [B, 4]: the places of object and receptacle, from -1 (left, top) to 1."""
        scene, item, target = chosen.T
        places = self.scenes.place
        return np.concatenate([places[scene, item], places[scene, target]], axis=1) * 2 - 1


class Sight:
    """Makes images of scenes: adds a table, patterns, other light and another view."""

    def __init__(self, settings: Grounding, world: str, side: int, split: str = "train") -> None:
        self.settings, self.side = settings, side
        self.tables = np.stack(list(table_images(world, side, split).values())).astype(np.float32)
        self.overlays = Overlays(world, side) if settings.augment.overlaid else None

    def plain(self, scenes: Scenes, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns float32 [B, S, S, 3], 0 to 255: each scene on a table sampled for it."""
        shown = self.tables[random.integers(len(self.tables), size=len(rows))]
        through = 1.0 - scenes.foreground[rows].astype(np.float32)[..., None] / 255.0
        return scenes.images[rows] + through * shown

    def changed(self, scenes: Scenes, rows: np.ndarray, random: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        """Returns images [B, 3, S, S] in [0, 1], and float32 [B, 2, 3]: the affine maps from old to new places."""
        images, augment = self.plain(scenes, rows, random), self.settings.augment
        if self.overlays:
            shares = augment.texture, augment.noise
            weight = overlay_weights(scenes.foreground[rows], shares, augment.overlay, random)
            images = self.overlays.blend(images, weight, random)
        images = augmented(as_tensor(images), augment, random)
        views = self._views(len(rows), random)
        grid = F.affine_grid(torch.from_numpy(views), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False), _inverse(views)

    def _views(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Returns float32 [B, 2, 3]: from places in the new image to places in the old one."""
        warp = self.settings.warp
        scale = 1 + random.uniform(-warp.scale, warp.scale, count)
        angle = np.radians(random.uniform(-warp.degrees, warp.degrees, count))
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        x, y = 2 * random.uniform(-warp.shift, warp.shift, (2, count))
        return np.stack([np.stack([cos, -sin, x], 1), np.stack([sin, cos, y], 1)], 1).astype(np.float32)


def as_tensor(images: np.ndarray) -> Tensor:
    """float32 [B, S, S, 3], 0 to 255 -> [B, 3, S, S] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).clamp(0, 255) / 255


def _inverse(views: np.ndarray) -> np.ndarray:
    turn = np.linalg.inv(views[:, :, :2])
    return np.concatenate([turn, -turn @ views[:, :, 2:]], axis=2).astype(np.float32)


def moved(places: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Returns places float32 [B, 4], two points each, after the affine maps [B, 2, 3]."""
    points = places.reshape(-1, 2, 2)
    return (points @ ways[:, :, :2].transpose(0, 2, 1) + ways[:, None, :, 2]).reshape(-1, 4).astype(np.float32)


class Pointer(nn.Module):
    """Points from states to patches, with one pointer for the object and one for the receptacle; only for training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask, self.key = nn.Linear(width, POINTERS * width), nn.Linear(width, POINTERS * width)

    def forward(self, states: Tensor, patches: Tensor) -> Tensor:
        """[B, N, D] and [B, P, D] -> logits [B, N, 2, P]."""
        asked, keys = self.ask(states).unflatten(-1, (POINTERS, -1)), self.key(patches).unflatten(-1, (POINTERS, -1))
        return torch.einsum("bnkd,bpkd->bnkp", asked, keys) / keys.shape[-1] ** 0.5


def patch_centres(count: int) -> np.ndarray:
    """Returns float32 [P, 2]: centres (x, y) of the patches of a square image, row by row, from -1 to 1."""
    side = round(count**0.5)
    line = (np.arange(side) + 0.5) / side * 2 - 1
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype(np.float32)


def targets(places: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Returns float32 [B, 2, P]: the target distributions of the pointers for places [B, 4]."""
    sigma = SIGMA_PATCHES * 2 / round(len(centres) ** 0.5)
    away = ((places.reshape(-1, POINTERS, 1, 2) - centres) ** 2).sum(-1) / (2 * sigma**2)
    weights = np.exp(away.min(-1, keepdims=True) - away)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def assets_in(scenes: Scenes, rows: np.ndarray, ways: np.ndarray, patches: int) -> np.ndarray:
    """Returns int64 [B, P]: the asset whose place is in each patch of scenes after affine maps [B, 2, 3]; 0 = none.

    Objects come after receptacles in the numbering, and override them where both are.
    """
    side, found = round(patches**0.5), np.zeros((len(rows), patches), np.int64)
    for column in reversed(range(scenes.thing.shape[1])):  # receptacles come last in a row
        place = (moved(np.tile(scenes.place[rows, column] * 2 - 1, 2), ways)[:, :2] + 1) / 2 * side
        there = (scenes.visible[rows, column] >= VISIBLE_PIXELS) & ((place >= 0) & (place < side)).all(1)
        x, y = place[there].astype(np.int64).T
        first = np.where(scenes.receptacle[rows, column], 1, 1 + len(scenes.receptacle_names))
        found[np.flatnonzero(there), y * side + x] = (first + scenes.thing[rows, column])[there]
    return found


class Names(nn.Module):
    """Compares patches with the names of assets: the mean embedding of each name's tokens. Only for training.

    Args:
        ids: Token ids of each name, as in a prompt.
        width: Channels of a patch and of a word, D.
    """

    def __init__(self, ids: list[list[int]], width: int) -> None:
        super().__init__()
        tokens = sorted({token for name in ids for token in name})
        shares = torch.zeros(len(ids), len(tokens))
        for row, name in enumerate(ids):
            for token in name:
                shares[row, tokens.index(token)] += 1 / len(name)
        self.register_buffer("tokens", torch.tensor(tokens), persistent=False)
        self.register_buffer("shares", shares, persistent=False)
        self.nothing, self.turn = nn.Linear(width, 1), nn.Linear(width, width, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        nn.init.eye_(self.turn.weight)

    def forward(self, patches: Tensor, words: Tensor) -> Tensor:
        """Returns logits [B, P, 1 + names] of nothing and of each name, by cosine.

        Args:
            patches: [B, P, D].
            words: [vocabulary, D], the language model's embeddings.
        """
        names = F.normalize(self.shares @ words[self.tokens], dim=-1)
        seen = F.normalize(self.turn(patches), dim=-1)
        return torch.cat([self.nothing(patches), self.sharpness.exp() * seen @ names.T], -1)


class Heads(nn.Module):
    """Modules used only in training: the pointers, and the comparison of patches with names."""

    def __init__(self, width: int, names: list[list[int]]) -> None:
        super().__init__()
        self.pointer, self.names = Pointer(width), Names(names, width)


class Task:
    """Grounding for a student: batches, the head, the loss, and the accuracy."""

    def __init__(self, settings: Grounding, student: Student, seed: int, device: torch.device) -> None:
        self.settings, self.student, self.seed, self.device = settings, student, seed, device
        self.side = student.config.image
        self.queries = Queries.of(load_scenes(Path(settings.scenes), self.side, settings.count))
        self.world = self.queries.scenes.world
        self.sight = Sight(settings, self.world, self.side)
        self.phrases = phrasings(self.world, "train")
        scenes = self.queries.scenes
        names = [student.processor.tokenizer.words(name) for name in (*scenes.receptacle_names, *scenes.object_names)]
        self.head = Heads(student.config.text.width, names).to(device)
        self.centres = patch_centres(student.config.patches)
        self._projector = Watched(student.model.projector)
        self._prompt = cache(student.processor.tokenizer.prompt)

    def loss(self, step: int, size: int, rank: int = 0) -> Tensor:
        """Returns the loss of this process's `size` queries in `step`; every draw is keyed by seed and step."""
        random, several = np.random.default_rng((STREAM, self.seed, step, rank)), self.settings.per_scene
        chosen = self.queries.draw(max(1, size // several), several, random)
        images, ways = self.sight.changed(self.queries.scenes, chosen[::several, 0], random)
        wanted = moved(self.queries.places(chosen), np.repeat(ways, several, axis=0))
        sentences = [self._sentence(self.queries, row, self.phrases, random) for row in chosen]
        words = self.settings.augment.words
        if words and random.random() < words:
            prompts = [self._reworded(text, row, random) for text, row in zip(sentences, chosen, strict=True)]
        else:
            prompts = [self._prompt(text) for text in sentences]
        looks = self._looks(images, prompts)
        loss = self._pointing(F.log_softmax(looks.pointers, -1), wanted)
        if looks.attention is not None:
            loss = loss + self.settings.attend * self._pointing(looks.attention, wanted)
        if self.settings.recognise:
            assets = assets_in(self.queries.scenes, chosen[::several, 0], ways, len(self.centres))
            loss = loss + self.settings.recognise * self._recognising(self._projector.output, assets)
        return loss

    def recognition_loss(self, step: int, size: int, rank: int = 0) -> Tensor:
        """Returns the loss of recognising what `size` images show; draws as in `loss`, and no sentence is read."""
        random, scenes = np.random.default_rng((LOOK_STREAM, self.seed, step, rank)), self.queries.scenes
        rows = random.integers(len(scenes), size=max(1, size))
        images, ways = self.sight.changed(scenes, rows, random)
        model, pixels = self.student.model, normalised_pixels(images, self.student.config).to(self.device)
        patches = model.projector(model.vision_backbone(pixels))
        return self._recognising(patches, assets_in(scenes, rows, ways, len(self.centres)))

    def _pointing(self, shares: Tensor, wanted: np.ndarray) -> Tensor:
        """Returns the loss of log-shares [B, states, 2, P] at places [B, 4]; places outside the image do not count."""
        inside = torch.from_numpy((np.abs(wanted) < 1).reshape(-1, POINTERS, 2).all(-1)).to(self.device)
        wished = torch.from_numpy(targets(wanted, self.centres)).to(self.device)[:, None]
        losses = -(wished * shares).sum(-1).mean(1)  # [B, 2]
        return (losses * inside).sum() / inside.sum().clamp(min=1)

    def _recognising(self, patches: Tensor, assets: np.ndarray) -> Tensor:
        """Returns the loss of naming what is in each patch; empty and other patches have equal total weight."""
        words = self.student.model.language_model.model.embed_tokens.weight
        logits, wanted = self.head.names(patches.float(), words.float()), torch.from_numpy(assets).to(self.device)
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        filled = wanted.flatten() > 0
        return (losses[filled].sum() / filled.sum().clamp(min=1) + losses[~filled].mean()) / 2

    def predict(self, images: Tensor, sentences: list[str]) -> np.ndarray:
        """Returns float32 [B, 4]: places of object and receptacle, means over states and patches, -1 to 1."""
        shares = torch.softmax(self.looks(images, sentences).answer, -1).mean(1).cpu().numpy()
        return (shares @ self.centres).reshape(-1, 4)

    def looks(self, images: Tensor, sentences: list[str]) -> Looks:
        """Returns where the queried states look; images may be fewer, as in `OpenVLA.splice`."""
        return self._looks(images, [self._prompt(text) for text in sentences])

    def _looks(self, images: Tensor, prompts: list[list[int]]) -> Looks:
        ids, mask = pad_prompts(prompts, self.student.config.pad)
        inputs = Inputs(ids, mask, normalised_pixels(images, self.student.config)).to(self.device, torch.float32)
        acting, model = self.student.config.acting, self.student.model
        sequence, trace = with_slots(model, inputs, acting.chunk), []
        hidden = model.hidden(sequence, acting.attention, trace)
        first, patches = -acting.chunk * ACTION_TOKENS - 1, slice(1, 1 + len(self.centres))
        states = slice(first, -1 if self.settings.at == "slots" else first + 1)
        read = trace[-2] if self.settings.attend else hidden
        pointers = self.head.pointer(read[:, states], read[:, patches]).float()
        if not self.settings.attend:
            return Looks(pointers, None)
        may_see = sequence.may_see(acting.attention)
        shares = model.language_model.model.last_attention(trace[-2], sequence.positions, may_see)
        return Looks(pointers, shares[:, :POINTERS, states, patches].transpose(1, 2))

    def _sentence(
        self, queries: Queries, row: np.ndarray, phrases: tuple[str, ...], random: np.random.Generator
    ) -> str:
        scene, item, target = row
        phrase = phrases[random.integers(len(phrases))]
        return phrase.format(object=queries.scenes.name(scene, item), receptacle=queries.scenes.name(scene, target))

    def _reworded(self, sentence: str, row: np.ndarray, random: np.random.Generator) -> list[int]:
        scene, *things = row
        names = [self.queries.scenes.name(scene, thing) for thing in things]
        return reworded_prompt(self.student.processor.tokenizer, sentence, names, random)

    @torch.no_grad()
    def check(self, scenes: Scenes, count: int = CHECK_QUERIES) -> dict[str, float]:
        """Returns how often the prediction is nearest to the named thing, if there are several of its kind.

        `object`, `object_chance`, `receptacle`, `receptacle_chance`: shares of the queries; `distance`: median error of
        the object's place, as a fraction of the side. Tables are from the scenes' split, sentences as in evaluations.
        """
        queries, random = Queries.of(scenes), np.random.default_rng((CHECK_STREAM,))
        sight = Sight(self.settings, scenes.world, self.side, scenes.split)
        chosen = queries.rows[random.permutation(len(queries.rows))[:count]]
        predicted = []
        for rows in np.array_split(chosen, max(1, len(chosen) // 100)):
            images = as_tensor(sight.plain(scenes, rows[:, 0], random))
            sentences = [self._sentence(queries, row, self.phrases[:1], random) for row in rows]
            predicted.append(self.predict(images, sentences))
        places = np.concatenate(predicted)
        numbers = {"distance": float(np.median(np.linalg.norm((places - queries.places(chosen))[:, :2] / 2, axis=1)))}
        for kind, column in (("object", 0), ("receptacle", 1)):
            numbers |= _found(queries, chosen, places[:, 2 * column : 2 * column + 2], kind)
        return numbers


def _found(queries: Queries, chosen: np.ndarray, predicted: np.ndarray, kind: str) -> dict[str, float]:
    right, chance = [], []
    scenes, column = queries.scenes, 1 if kind == "object" else 2
    for row, place in zip(chosen, predicted, strict=True):
        there = np.flatnonzero((scenes.thing[row[0]] >= 0) & (scenes.receptacle[row[0]] == (kind == "receptacle")))
        if len(there) > 1:
            away = np.linalg.norm(scenes.place[row[0], there] * 2 - 1 - place, axis=1)
            right.append(there[away.argmin()] == row[column])
            chance.append(1 / len(there))
    return {kind: float(np.mean(right)), f"{kind}_chance": float(np.mean(chance))} if right else {}
