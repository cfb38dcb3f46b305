"""What a log is of: code that changes between two sessions is refused, which scenarios a session runs is not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from vla_gen_bench.episodes.suite import load_suite
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.evaluate import Request, make_plan
from vla_gen_bench.eval.open_log import OpenLog, check_identity
from vla_gen_bench.policies.remote.address import FACTORY
from vla_gen_bench.resources import data_dir

SUITE = """
id: plugged
version: "1"
protocol: {episodes_per_seed: 1, seeds: [0], horizon: 5}
scenarios:
  ind: {label: IND, dimension: ind}
  dark: {label: Dark, dimension: vision, shift: {effects: ['sunset_effect:Dark']}}
"""
EFFECT = "class Dark:\n    kind = 'image'\n    def apply(self, image): return image\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "sunset_effect.py").write_text(EFFECT)
    yield tmp_path
    sys.modules.pop("sunset_effect", None)


def identity(*scenarios: str, **options: Any) -> dict[str, Any]:
    request = Request(policy="hold", suites=("suite.yaml",), scenarios=scenarios or None, options=options)
    return make_plan(request).identity


def test_sessions_with_different_scenarios_share_a_log(folder: Path) -> None:
    assert identity("ind") == identity("dark") == identity()
    assert set(identity("ind")["effects"]) == {"sunset_effect:Dark"}


def test_an_effect_that_was_edited_does_not_continue_a_log(folder: Path) -> None:
    there = identity()
    check_identity(folder, there, identity())
    (folder / "sunset_effect.py").write_text(EFFECT.replace("return image", "return image // 2"))
    with pytest.raises(
        UserError, match="of another run: effects sunset_effect:Dark is 'module [0-9a-f]{16}', now 'module"
    ):
        check_identity(folder, there, identity())


def test_a_secret_option_is_hidden_in_the_log_s_identity(folder: Path) -> None:
    given = {"api_key": "k", "n": 3}
    request = Request(policy="secretive:Mine", suites=("suite.yaml",), options=given)
    (folder / "secretive.py").write_text("class Mine:\n    def __init__(self, api_key, n): pass\n")
    assert make_plan(request).identity["policy"]["options"] == {"api_key": "(hidden)", "n": 3}


@pytest.mark.parametrize("ref", ["openpi://localhost:8000", "card"])
def test_options_on_which_no_answer_depends_may_change_between_sessions(folder: Path, ref: str) -> None:
    """The advice after a timeout is such an option: it must not make the log one of another run."""
    (folder / "card").mkdir()
    lines = ["name: acme", "title: Acme", "summary: Served", f"factory: {FACTORY}", "kwargs: {url: 'openpi://h:1'}"]
    (folder / "card/card.yaml").write_text("\n".join([*lines, "needs: {image_size: [64, 64]}"]))
    suite = load_suite("suite.yaml")

    def session(ref: str, **options: Any) -> OpenLog:
        policy = {"name": "acme", "ref": ref, "options": options, "digest": "d"}
        identity = {"suite": {"id": suite.id, "version": "1"}, "policy": policy, "world": {"name": "builtin"}}
        return OpenLog(folder / "log", identity, suite, ["suite.yaml"])

    row = {"scenario": "ind", "seed": 0, "spec_digest": "s", "status": "ok", "success_at_end": True}
    row |= {"success_once": True, "first_success_step": 1, "steps": 5, "error": None, "duration_s": 1.0, "worker": 0}
    first = session(ref, keys={"image": "image"})
    first.begin({}, {"started": "now"})
    first.append({**row, "index": 0}, None)
    second = session(ref, keys={"image": "image"}, timeout_s=600, first_timeout_s=900, start_s=5, limit_mib=9)
    assert len(second.rows) == 1
    second.begin({}, {"started": "later"})
    second.append({**row, "index": 1}, None)
    assert len(session(ref, keys={"image": "image"}, api_key="(hidden)").rows) == 2
    with pytest.raises(UserError, match="of another run: policy options"):
        session(ref, keys={"picture": "image"}, timeout_s=600)


@pytest.mark.parametrize("ref", ["hold", "an object"])
def test_such_options_of_another_policy_count(folder: Path, ref: str) -> None:
    """It may act by its time limit."""
    there, now = ({"policy": {"ref": ref, "options": {"timeout_s": limit}}, "world": {}} for limit in (1, 2))
    with pytest.raises(UserError, match="of another run: policy options"):
        check_identity(folder, there, now)


def test_another_version_of_the_simulator_does_not_continue_a_log(folder: Path) -> None:
    there = identity()
    assert set(there["simulator"]) >= {"mani_skill", "sapien"}
    for name in there["simulator"]:
        other = {**there, "simulator": {**there["simulator"], name: "0"}}
        with pytest.raises(UserError, match=f"of another run: simulator {name} is '0'"):
            check_identity(folder, other, identity())


@pytest.mark.parametrize(
    ("weights", "log"),
    [
        ("runs/train/first/checkpoint", "runs/openvla-first/execution-builtin"),
        ("runs/train/second/checkpoint/", "runs/openvla-second/execution-builtin"),
        ("runs/train/first/checkpoints/040", "runs/openvla-040/execution-builtin"),
    ],
)
def test_the_weights_of_two_trainings_have_two_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, log: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_dir() / "policies" / "openvla-sft" / "checkpoint", tmp_path / weights)
    plan = make_plan(Request(policy="openvla", suites=("execution",), checkpoint=weights))
    assert str(plan.folder) == log


def test_linked_weights_are_named_by_where_the_link_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = data_dir() / "policies" / "openvla-sft" / "checkpoint"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint").symlink_to(weights)
    request = Request(policy="openvla", suites=("execution",), checkpoint=str(tmp_path / "second" / "checkpoint"))
    assert str(make_plan(request).folder) == "runs/openvla-second/execution-builtin"
    monkeypatch.chdir(tmp_path / "first")
    request = Request(policy="openvla", suites=("execution",), checkpoint="./checkpoint")
    assert str(make_plan(request).folder) == "runs/openvla-first/execution-builtin"
