"""`EpisodeSpec`: one fully concrete episode as data, drawn before any simulator starts.

World frame: metres, z up, table top at z = 0.870, the robot's base at (0.147, 0.028, 0.870) facing -x.
Quaternions are (w, x, y, z).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Vector3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

NO_OFFSET = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Frozen(BaseModel):
    """Immutable data that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    later_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields added after digests were published: `canonical` names them only where they are set."""

    def canonical(self) -> dict[str, Any]:
        """Returns JSON data for a digest; fields added later appear only if they differ from their default."""
        unset = {name for name in self.later_fields if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=unset)


class Placed(Frozen):
    """An asset and the pose it is spawned at, before the scene settles.

    Attributes:
        id: Asset id in the world's catalogue, never a position in a list.
        position: World frame, metres; the actor's origin. Objects are spawned above the table and dropped.
        quaternion: World frame, (w, x, y, z).
    """

    id: str
    position: Vector3
    quaternion: Quaternion = (1.0, 0.0, 0.0, 0.0)


class Effect(Frozen):
    """A named disturbance of scene, action, state or image, with its drawn `params`; see `episodes.effects`."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class EpisodeSpec(Frozen):
    """Everything the environment needs to realise one episode.

    Attributes:
        world: World whose catalogue the ids belong to.
        seed, index: Key of the draw; evaluation uses seeds below 1,000,000, training the rest.
        instruction: The sentence given to the policy.
        target: The object to move.
        receptacle: Where to put it.
        distractor_objects, distractor_receptacles: Further objects on the table, not to be touched.
        table: Table image composited behind the scene.
        joint_offset: Added to the robot's initial arm joint angles, radians, waist to wrist_rotate.
        effects: In order of application within each of the four kinds.
    """

    world: str
    seed: int
    index: int
    instruction: str
    target: Placed
    receptacle: Placed
    distractor_objects: tuple[Placed, ...] = ()
    distractor_receptacles: tuple[Placed, ...] = ()
    table: str
    joint_offset: tuple[float, float, float, float, float, float] = NO_OFFSET
    effects: tuple[Effect, ...] = ()

    def digest(self) -> str:
        """Returns 16 hex digits of SHA-256 over the canonical JSON; equal specs have equal digests."""
        return digest_of(self.canonical())


def digest_of(data: Any) -> str:
    """Returns 16 hex digits of SHA-256 over `data` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
