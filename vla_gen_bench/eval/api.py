"""`vgb.evaluate`: an evaluation from Python, in a script or a notebook."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vla_gen_bench import runtime
from vla_gen_bench.bounds import listed
from vla_gen_bench.episodes.suite import Suite
from vla_gen_bench.errors import UserError, shown
from vla_gen_bench.log.folder import EvalLog, read_log
from vla_gen_bench.protocol import Policy


def evaluate(
    policy: str | Policy,
    suite: str | os.PathLike[str] | Suite | Sequence[str | Suite] = "all",
    *,
    scenarios: Sequence[str] | None = None,
    world: str = "builtin",
    episodes: int | None = None,
    seeds: Sequence[int] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    workers: int | None = None,
    num_envs: int | None = None,
    backend: str = "auto",
    out: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    reuse: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    video: str = "none",
    progress: bool = True,
) -> EvalLog:
    """Runs a policy on every episode of suites and returns the log; keeps finished episodes of an earlier call.

    ```python
    log = vgb.evaluate("openvla-ppo", "execution", episodes=16)
    log.frame().groupby("scenario").success_at_end.mean()
    ```

    Args:
        policy: A name, "module:attr" or folder, as in `vgb eval --policy`, run in worker processes; or an object
            with `reset`, `act` and `action_spec`, run in this process.
        suite: Name or path of a suite, a `Suite`, or several of them.
        scenarios: Ids, or compositions such as "unseen_table + noise_weak"; None for all.
        world: "builtin", "rl4vla" or "pretrain".
        episodes: Per scenario and seed; None for the suite's own number.
        seeds: None for the suite's own.
        checkpoint: Weights, for named policies that take them.
        options: Arguments of a named policy.
        name: Display name of a policy that is an object; None for its class name.
        workers: Processes, for named policies; None for one per core.
        num_envs: Parallel episodes per process.
        backend: Where physics runs: "cpu", "gpu" or "auto".
        out: Log folder; None for `runs/POLICY/SUITE-WORLD`.
        fresh: Move an earlier log in that folder aside instead of continuing it.
        reuse: Earlier logs of the same policy whose episodes are taken over where they are the same.
        video: Keep mp4 files of "all" episodes, of "failures", or "none".
        progress: Show a progress bar: in a notebook below the cell, else on stderr.

    Returns:
        The log. An errored episode is recorded with its cause and never counts as a failed attempt.

    Raises:
        UserError: An argument is invalid, the folder's log is of another run, or the policy cannot be used.
    """
    runtime.prepare()
    from vla_gen_bench.eval.evaluate import Request, make_plan
    from vla_gen_bench.eval.evaluate import evaluate as run
    from vla_gen_bench.policies.objects import note_run

    given = isinstance(policy, str)
    if not given and (options or checkpoint is not None or workers not in (None, 1)):
        raise UserError("options, checkpoint and workers are for named policies; an object has loaded, and runs here")
    request = Request(
        policy=str(policy) if given else "",
        suites=_suites(suite),
        checkpoint=None if checkpoint is None else str(checkpoint),
        scenarios=scenarios,
        world=world,
        episodes=episodes,
        seeds=seeds,
        workers=workers if given else 1,
        num_envs=num_envs,
        backend=backend,
        out=None if out is None else Path(out),
        options=dict(options or {}),
        fresh=fresh,
        reuse=[Path(one) for one in _one_or_more(reuse, str | os.PathLike, "reuse", "log folders")] if reuse else (),
        record=video,
    )
    if given:
        plan, engine = make_plan(request), {}
    else:
        plan, engine = _for_object(request, policy, name)
    try:
        with _callbacks(plan, progress) as callbacks, _main_left_alone():
            run(plan, *callbacks, **engine)
    finally:
        if not given:
            note_run(policy)
    return read_log(plan.folder)


def _suites(suite: Any) -> list[str | Suite]:
    several = _one_or_more(suite, str | os.PathLike | Suite, "suite", "names, files and Suites")
    return [one if isinstance(one, Suite) else os.fspath(one) for one in several]


def _one_or_more(given: Any, kinds: Any, name: str, items: str) -> Sequence[Any]:
    """Returns what is given, or the items of a list of it; raises `UserError` for anything else."""
    several = [given] if isinstance(given, kinds) else listed(given, name, items)
    wrong = next((one for one in several if not isinstance(one, kinds)), None)
    if wrong is not None:
        raise UserError(f"{name}: {shown(wrong)}; expected {items}")
    return several


def _for_object(request: Any, policy: Any, name: str | None) -> tuple[Any, dict[str, Any]]:
    """Returns the plan for a policy object, and its engine."""
    from dataclasses import replace

    from vla_gen_bench.eval.evaluate import make_plan
    from vla_gen_bench.eval.in_process import InProcess
    from vla_gen_bench.policies.objects import card_of_object

    card = card_of_object(policy, name)
    return make_plan(replace(request, policy=card.factory), card), {"engine": InProcess(policy, card)}


@contextmanager
def _callbacks(plan: Any, progress: bool) -> Iterator[tuple[Any, ...]]:
    if not progress:
        yield ()
        return
    from rich.console import Console

    from vla_gen_bench.eval.progress import Live

    with Live(plan, Console(stderr=not Console().is_jupyter)) as live:
        yield live.start, live.update, live.note


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Keeps worker processes from re-running the user's script, as they would to import classes defined in it."""
    main = sys.modules["__main__"].__dict__
    kept = {key: main.pop(key) for key in ("__file__", "__spec__") if key in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(kept)
