"""Runs a logged episode again."""

from __future__ import annotations

import re
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_gen_bench.assets.world import get_world
from vla_gen_bench.data import ensure_writable
from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.episodes.suite import Protocol, draw
from vla_gen_bench.errors import UserError, one_line, shown
from vla_gen_bench.eval.rollout import ActionSource, Episode, Recording, run_episode, unpack_actions
from vla_gen_bench.eval.rounding import elsewhere, rounding
from vla_gen_bench.log.files import ACTIONS_FILE, VIDEOS
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.guard import locked
from vla_gen_bench.log.header import Header
from vla_gen_bench.log.rows import Key, key_of
from vla_gen_bench.log.suites import find_suite_of, named_suite
from vla_gen_bench.log.video import ENDINGS, video_name, write_video
from vla_gen_bench.protocol import ActionSpec, Needs

COMPARED = ("success_at_end", "success_once", "first_success_step", "grasped_ever", "held_ever")


@dataclass(frozen=True)
class Replay:
    """A replayed episode: its row, the logged one, and the video.

    Attributes:
        comparable: Whether both traces cover the same data: a replay renders images, a --no-render log has none.
        changed: What of the policy that was asked again differs from the log: "digest", "checkpoint", "files".
        elsewhere: The log's processors that round otherwise than this one; "" if they do not.
    """

    row: dict[str, Any]
    logged: dict[str, Any]
    video: Path
    comparable: bool
    changed: tuple[str, ...] = ()
    elsewhere: str = ""

    @property
    def same(self) -> bool:
        """Whether the outcome and its stages are the logged ones, as far as the log has them."""
        return not self._differing

    @property
    def traced(self) -> bool:
        """Whether the log has the episode's trace; rows of other harnesses may lack it."""
        return self.logged.get("trace") is not None

    @property
    def exact(self) -> bool:
        """Whether every state and image is equal, bit for bit."""
        return self.traced and self.row["trace"] == self.logged["trace"]

    @property
    def difference(self) -> str:
        """Names the fields that differ."""
        return ", ".join(f"{name} was {self.logged[name]}, is {self.row[name]}" for name in self._differing)

    @property
    def _differing(self) -> list[str]:
        return [name for name in COMPARED if name in self.logged and self.row[name] != self.logged[name]]


def replay_episode(folder: Path, episode: str, out: Path | None = None, act: bool = False) -> Replay:
    """Runs the episode again from the logged actions; from the policy if `act` is set or no actions were kept.

    Raises:
        UserError: No such log or episode, an errored one, the suite now samples another episode, the logged actions
            are damaged, the video cannot be written, or another process is writing into its folder.
    """
    log, key = EvalLog(folder), parse_key(episode)
    header = log.header
    row = next((row for row in log.rows(forgive_last=True) if key_of(row) == key), None)
    if row is None:
        raise UserError(f"{folder}: no episode '{episode}' in the log; expected scenario/seed/index of one of its rows")
    if row["status"] != "ok":
        raise UserError(f"{folder}: episode '{episode}' errored when it was run: {row.get('error')}")
    _check_world(folder, header)
    spec = _spec(header, key)
    if spec.digest() != row["spec_digest"]:
        raise UserError(f"{folder}: this version of the suite draws another episode '{episode}' than the log has")
    place = out or folder / VIDEOS / video_name(key, False)
    ensure_writable(place, "give another file with --out", ENDINGS)
    packed = None if act else log.actions(key)
    actions = None if packed is None else _unpacked(packed, _horizon(header), f"{folder / ACTIONS_FILE}: {episode}")
    changed = () if actions is not None else _changed(header)
    with nullcontext() if out else locked(folder):
        done = _run(header, actions, spec)
        video = out or folder / VIDEOS / video_name(key, done.row["success_at_end"])
        write_video(video, done.frames, spec.instruction)
    others = elsewhere(header.raw.get("sessions", ()), rounding())
    return Replay(done.row, row, video, header.rendered, changed, others)


def parse_key(text: str) -> Key:
    """Returns ("unseen_table", 0, 12) for "unseen_table/0/12"; raises `UserError` for anything else."""
    found = re.fullmatch(r"(.+)/([0-9]{1,12})/([0-9]{1,12})", text)
    if not found:
        raise UserError(f"episode {shown(text)}: expected scenario/seed/index, for example ind/0/12")
    return found[1].replace(" ", ""), int(found[2]), int(found[3])


def _horizon(header: Header) -> int:
    return header.horizon or Protocol().horizon


def _unpacked(packed: str, horizon: int, where: str) -> np.ndarray:
    """Returns the logged actions, float32 [T, 7]; raises `UserError` if they are not those of a whole episode."""
    try:
        actions = unpack_actions(packed)
    except (ValueError, zlib.error) as error:
        raise UserError(f"{where}: its actions are damaged ({one_line(error)}); --act asks the policy again") from None
    if len(actions) < horizon:
        problem = f"{len(actions)} actions for {horizon} steps"
    elif not np.isfinite(actions).all():
        problem = "an action is not a number"
    else:
        return actions
    raise UserError(f"{where}: its actions are damaged ({problem}); --act asks the policy again")


def _check_world(folder: Path, header: Header) -> None:
    world = get_world(header.world.name)
    if header.world.label != world.label:
        raise UserError(
            f"{folder}: the log is of world {header.world.label}, this version of vla-gen-bench simulates "
            f"{world.label}: no episode would end as logged; replay with the version in its run.json, or evaluate again"
        )


def _spec(header: Header, key: Key) -> EpisodeSpec:
    suite = find_suite_of(header) or named_suite(header)
    return draw(suite.select([key[0]])[0], header.world.name, key[1], key[2])


def _run(header: Header, actions: np.ndarray | None, spec: EpisodeSpec) -> Episode:
    from vla_gen_bench.envs.factory import build_env

    needs = Needs.from_json(header.sensors)
    every = 1 if needs.every_step else ActionSpec(**header.action_spec or {}).execution_horizon
    source, privileged = _policy(header) if actions is None else (Recording(actions, every), False)
    env = build_env(spec.world, sensors=needs)
    return run_episode(env, source, spec, _horizon(header), privileged=privileged, record=True, needs=needs)


def _changed(header: Header) -> tuple[str, ...]:
    """Names the digests of the policy that are not the logged ones."""
    from vla_gen_bench.policies.identity import policy_digests
    from vla_gen_bench.policies.registry import resolve

    logged = header.policy.model_dump()
    now = policy_digests(resolve(header.policy.ref or header.policy.name), header.policy.options)
    return tuple(name for name, value in now.items() if logged.get(name) not in (None, value))


def _policy(header: Header) -> tuple[ActionSource, bool]:
    from vla_gen_bench.policies.chunking import ChunkRunner
    from vla_gen_bench.policies.registry import load_policy, resolve

    card = resolve(header.policy.ref or header.policy.name)
    return ChunkRunner(load_policy(card, **header.policy.options), card.label), card.privileged
