"""Checks a policy before and while it runs: its action spec, every returned chunk, and a short rehearsal."""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from vla_gen_bench.errors import UserError, one_line
from vla_gen_bench.protocol import (
    ACTION_DIMS,
    EXTERNAL,
    HIGHEST,
    LOWEST,
    USUAL,
    ActionSpec,
    Needs,
    Observation,
    Policy,
)
from vla_gen_bench.runtime import UserInterrupt

CALLERS = (__file__, str(Path(__file__).with_name("factory.py")), str(Path(importlib.__file__).parent), "<frozen")
REHEARSAL_QUERIES = 2
FIRST_SEED = 11
CONVENTION = ("names", "units", "frame", "reference", "rotation")
# Approximately the robot's usual start: 30 cm in front of its base, gripper down and open. Layout: `protocol.STATE`.
EXAMPLE_STATE = (0.3, 0.0, 0.15, 0.7071068, 0.0, 0.7071068, 0.0, 0.0, 0.0, 0.0)
EXAMPLE_STATE += (-0.0184, 0.0399, 0.2224, -0.0046, 1.3652, 0.0015, 1.0)
TARGETS = ("carrot", "spoon", "can", "apple", "banana", "cube", "eggplant", "cup")
Status = Literal["ok", "failed", "note"]
Outcome = tuple[Status, str]


class PolicyError(UserError):
    """A policy broke its contract. Before a run this stops the command; during a run it errors the episode."""


@dataclass(frozen=True)
class CheckResult:
    """One line of `vgb policies check`. A "note" is useful to the user but not a fault."""

    name: str
    status: Status
    detail: str


@contextmanager
def closing(policy: Any) -> Iterator[None]:
    """Calls the policy's optional `close` at the end; its errors are ignored, as every result is there already."""
    try:
        yield
    finally:
        close = getattr(policy, "close", None)
        if callable(close):
            with suppress(Exception):
                close()


def check_actions(label: str, actions: Any, batch: int, spec: ActionSpec) -> None:
    """Raises `PolicyError` unless `actions` is finite float32 [batch, K, 7] within the limits of `spec`.

    Args:
        label: The policy's name in the message, `Card.label`: "policy 'acme' (acme_vla 0.3)".
        actions: Whatever `act` returned.
    """
    expected = f"expected float32 [{batch}, K, {ACTION_DIMS}] with K = {spec.chunk}"
    if not isinstance(actions, np.ndarray):
        raise PolicyError(f"{label}: act() returned {_type_name(actions)}; {expected} as a numpy array")
    if isinstance(actions, np.ma.MaskedArray):
        raise PolicyError(f"{label}: act() returned a masked array; {expected} as a plain numpy array")
    if type(actions) is not np.ndarray:  # a subclass may run code of its own in every check below
        raise PolicyError(f"{label}: act() returned {_type_name(actions)}; {expected} as a plain numpy array")
    if actions.dtype != np.float32 or actions.shape != (batch, spec.chunk, ACTION_DIMS):
        raise PolicyError(
            f"{label}: act() returned {one_line(actions.dtype, 60)} {one_line(list(actions.shape), 60)}; {expected}"
        )
    if not np.isfinite(actions).all():
        raise PolicyError(
            f"{label}: act() returned {_first(actions, ~np.isfinite(actions), spec)}; expected finite values"
        )
    low, high = np.float32(spec.low), np.float32(spec.high)
    outside = (actions < low) | (actions > high)
    if outside.any():
        dim = int(np.argwhere(outside)[0][-1])
        limits = f"[{spec.low[dim]:.6g}, {spec.high[dim]:.6g}] {spec.units[dim]}"
        raise PolicyError(f"{label}: act() returned {_first(actions, outside, spec)}; expected a value in {limits}")


def check_spec(label: str, policy: Any) -> None:
    """Raises `PolicyError` unless `policy` has the protocol's members and an action spec the benchmark can run."""
    try:
        _check_spec(label, policy)
    except (PolicyError, UserInterrupt):
        raise
    except BaseException as error:  # raised by a property, or by values that are not numbers
        raise PolicyError(f"{label}: action_spec: {describe_failure(error)}") from error


def _check_spec(label: str, policy: Any) -> None:
    for member in ("reset", "act"):
        if not callable(getattr(policy, member, None)):
            raise PolicyError(
                f"{label}: {_type_name(policy)} has no method {member}(); expected reset(), act(), action_spec"
            )
    spec = getattr(policy, "action_spec", None)
    if not isinstance(spec, ActionSpec):
        raise PolicyError(f"{label}: action_spec is {_type_name(spec)}; expected vla_gen_bench.policies.ActionSpec")
    for problem in _spec_problems(spec):
        raise PolicyError(f"{label}: action_spec.{problem}")


def check_policy(
    policy: Policy,
    label: str,
    *,
    batch: int = 3,
    observe: Callable[[int], Observation] | None = None,
    privileged: bool = False,
) -> list[CheckResult]:
    """Runs `policy` on test observations; returns one result per check and stops after the first failure.

    Fails on: a bad action spec, an exception, a bad chunk (batches of 1 and `batch`, each after its own reset).
    Notes: whether equal seeds give equal actions, whether an episode's actions depend on its batch, whether it writes
    into the observation, the time per call.

    Args:
        batch: The larger batch tried, >= 2.
        observe: Returns an observation of B episodes; None = `example_observation`.
        privileged: If `observe` is None, skip checks that need an observation: an example has no simulator state.
    """
    rehearsal = _Rehearsal(policy, label, batch, observe or example_observation)
    stages = rehearsal.stages if observe or not privileged else rehearsal.stages_without_views
    results: list[CheckResult] = []
    for name, stage in stages():
        try:
            results.append(CheckResult(name, *stage()))
        except PolicyError as error:
            return [*results, CheckResult(name, "failed", str(error))]
    return results


def example_observation(
    batch: int, step: int = 0, height: int = 240, width: int = 320, needs: Needs = USUAL
) -> Observation:
    """Returns a synthetic observation: a grey-brown table and one coloured blob per episode.

    Deterministic. Row b depends only on b, so the first rows of a larger batch equal a smaller batch.

    Args:
        needs: The policy's inputs; its image size takes precedence over `height` and `width`.
    """
    height, width = needs.image_size or (height, width)
    images = np.stack([_blob_image(row, height, width) for row in range(batch)])
    sentences = tuple(f"put {TARGETS[row % len(TARGETS)]} on plate" for row in range(batch))
    others = {camera: images[:, :, ::-1].copy() for camera in needs.cameras if camera != EXTERNAL}
    views = {camera: {EXTERNAL: images, **others}[camera] for camera in needs.cameras if needs.history > 1}
    return Observation(
        images,
        sentences,
        np.full(batch, step, np.int64),
        state=np.tile(np.float32(EXAMPLE_STATE), (batch, 1)) if needs.state else None,
        other_images=others,
        history={camera: np.repeat(view[:, None], needs.history, axis=1) for camera, view in views.items()},
    )


def describe_failure(error: BaseException) -> str:
    """Returns `ValueError: text (my_policy.py:12)`: one line, with the innermost place in the policy's own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(CALLERS)]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    try:
        text = one_line(error)
    except BaseException:  # the error's own `__str__` may raise
        text = "its message cannot be written"
    return f"{type(error).__name__}{text and f': {text}'}{place}"


class _Rehearsal:
    """The stages of `check_policy`, in order: each returns (status, detail) or raises `PolicyError`."""

    def __init__(self, policy: Policy, label: str, batch: int, observe: Callable[[int], Observation]) -> None:
        self.policy, self.label, self.batch, self.observe = policy, label, batch, observe

    def stages(self) -> list[tuple[str, Callable[[], Outcome]]]:
        return [
            ("action spec", self.action_spec),
            ("batch of 1", self.single),
            (f"batch of {self.batch}", self.together),
            ("observation", self.untouched),
            ("determinism", self.determinism),
            ("batch independence", self.independence),
            ("timing", self.timing),
        ]

    def stages_without_views(self) -> list[tuple[str, Callable[[], Outcome]]]:
        skipped = "privileged: act() not called, it needs a simulator; `vgb eval` checks every action"
        return [("action spec", self.action_spec), ("batches", lambda: ("note", skipped))]

    def action_spec(self) -> Outcome:
        check_spec(self.label, self.policy)
        spec = self.policy.action_spec
        chunk = f"K = {spec.chunk}, {spec.execution_horizon} executed per call"
        return "ok", f"{chunk}, {spec.frame} frame, {spec.rotation}"

    def single(self) -> Outcome:
        self.alone = self.play(self.observe(self.batch).select([0]), [0])
        return "ok", f"float32 {list(self.alone.shape[1:])}, finite, within limits"

    def together(self) -> Outcome:
        self.observation = self.observe(self.batch)
        self.image = self.observation.image.copy()
        self.actions = self.play(self.observation, range(self.batch))
        self.together_ms = self.act_ms
        return "ok", f"float32 {list(self.actions.shape[1:])}, finite, within limits"

    def untouched(self) -> Outcome:
        if np.array_equal(self.image, self.observation.image):
            return "ok", "left as it was"
        return "note", "act() wrote into observation.image; it should copy first"

    def determinism(self) -> Outcome:
        again = self.play(self.observe(self.batch), range(self.batch))
        return _compare(again, self.actions, "equal seeds give equal actions", "equal seeds give other actions")

    def independence(self) -> Outcome:
        fresh = self.observe(self.batch)
        rest = [self.play(fresh.select([row]), [row]) for row in range(1, self.batch)]
        singles = np.concatenate([self.alone, *rest], axis=1)  # [steps, B, K, 7]
        return _compare(singles, self.actions, "an episode acts the same alone and in a batch", "alone and in a batch")

    def timing(self) -> Outcome:
        first, last = self.together_ms[0], self.together_ms[-1]
        return "note", f"act() with a batch of {self.batch}: first {first:.2f} ms, then {last:.2f} ms"

    def play(self, observation: Observation, rows: Sequence[int]) -> np.ndarray:
        """Returns actions [queries, B, K, 7] of the first calls in the episodes `rows`; also times the calls."""
        guarded(self.label, "reset", self.policy.reset, observation.instruction, [FIRST_SEED + row for row in rows])
        chunks, self.act_ms = [], []
        for query in range(REHEARSAL_QUERIES):
            step = np.full(len(rows), query * self.policy.action_spec.execution_horizon, np.int64)
            begin = time.perf_counter()
            actions = guarded(self.label, "act", self.policy.act, replace(observation, step=step))
            self.act_ms.append(1000 * (time.perf_counter() - begin))
            check_actions(self.label, actions, len(rows), self.policy.action_spec)
            chunks.append(actions.copy())
        return np.stack(chunks)


def guarded(label: str, method: str, call: Callable[..., Any], *args: Any) -> Any:
    """Calls a policy's method; converts any exception to a `PolicyError` that names the method and the place."""
    try:
        with no_exit():
            return call(*args)
    except UserInterrupt:
        raise
    except BaseException as error:
        raise PolicyError(f"{label}: {method}() raised {describe_failure(error)}") from error


@contextmanager
def no_exit() -> Iterator[None]:
    """Makes `os._exit` raise `SystemExit` meanwhile; otherwise it would end a check as if it had passed."""

    def refuse(status: int = 0) -> NoReturn:
        raise SystemExit(f"os._exit({status})")

    kept, os._exit = os._exit, refuse
    try:
        yield
    finally:
        os._exit = kept


def _spec_problems(spec: ActionSpec) -> Iterator[str]:
    for field in CONVENTION:
        found, expected = getattr(spec, field), getattr(ActionSpec, field)
        if found != expected:
            yield f"{field} is {found!r}; the benchmark's is {expected!r}, convert the actions"
    if not isinstance(spec.chunk, int) or spec.chunk < 1:
        yield f"chunk is {spec.chunk!r}; expected an integer >= 1"
    elif not isinstance(spec.execution_horizon, int) or not 1 <= spec.execution_horizon <= spec.chunk:
        yield f"execute is {spec.execute!r}; expected 1 to {spec.chunk}, the chunk, or None"
    if len(spec.low) != ACTION_DIMS or len(spec.high) != ACTION_DIMS:
        yield f"low and high have {len(spec.low)} and {len(spec.high)} entries; expected {ACTION_DIMS}"
    for name, low, high, lowest, highest in zip(spec.names, spec.low, spec.high, LOWEST, HIGHEST, strict=True):
        if not lowest <= low <= high <= highest:
            allowed = f"[{lowest:.6g}, {highest:.6g}]"
            yield f"low, high of {name} are {low:.6g}, {high:.6g}; expected low <= high within {allowed}"


def _compare(found: np.ndarray, reference: np.ndarray, same: str, differing: str) -> Outcome:
    if np.array_equal(found, reference):
        return "ok", same
    return "note", f"{differing}: actions differ by up to {float(np.abs(found - reference).max()):.2g}"


def _first(actions: np.ndarray, where: np.ndarray, spec: ActionSpec) -> str:
    """Returns `dz = 1.5 (episode 3 of the batch, action 0 of the chunk)` for the first entry where `where` is True."""
    b, k, dim = (int(i) for i in np.argwhere(where)[0])
    return f"{spec.names[dim]} = {actions[b, k, dim]:.6g} (episode {b} of the batch, action {k} of the chunk)"


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _blob_image(row: int, height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3]: a shaded table and a blob whose position and hue depend on `row`."""
    y, x = np.mgrid[0:height, 0:width]
    shade = (110 + 40 * y / height)[..., None] * np.array([1.0, 0.95, 0.85])
    centre = height * (0.45 + 0.05 * (row % 5)), width * (0.35 + 0.07 * (row % 6))
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (0.06 * height) ** 2
    colour = np.roll([230.0, 60.0, 40.0], row)
    return np.where(inside[..., None], colour, shade).astype(np.uint8)
