"""Demonstrations: how they are driven, disturbed and labelled, and the commands that collect and show them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from demos import OPEN, SHUT, SIDE, demo

from vla_gen_bench.assets.pack import open_pack
from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import PolicyError
from vla_gen_bench.protocol import ActionSpec
from vla_gen_bench.train.demos.collect import WANDER, Request, check_request
from vla_gen_bench.train.demos.dataset import Writer, load
from vla_gen_bench.train.demos.demonstrate import Demonstrator
from vla_gen_bench.train.demos.disturbance import DROP_STEPS, Disturbance

# ---- disturbances ------------------------------------------------------------------------------------------


def test_a_disturbance_depends_on_the_episode_alone() -> None:
    def run(index: int) -> np.ndarray:
        disturb = Disturbance(1_000_000, index)
        return np.stack([disturb.apply(np.zeros(7)) for _ in range(20)])

    assert (run(3) == run(3)).all() and (run(3) != run(5)).any()


def test_a_quarter_of_the_episodes_is_left_alone() -> None:
    clean = [Disturbance(1_000_000, index).scale == 0 for index in range(2000)]
    assert 0.22 < np.mean(clean) < 0.28


def test_gripper_faults_invert_the_command_for_their_time_and_end() -> None:
    disturb = next(d for d in (Disturbance(1_000_000, i, 100.0) for i in range(9)) if d.scale)  # certain to happen
    closed = np.array([0, 0, 0, 0, 0, 0, SHUT])
    commands = [disturb.apply(closed)[6] for _ in range(40)]
    assert commands[0] == OPEN and commands.count(OPEN) >= DROP_STEPS[0]
    rare = next(d for d in (Disturbance(1_000_000, i, 1e-9) for i in range(9)) if d.scale)
    rare._forced, rare._left = OPEN, 3  # a fault that began just now, and no other follows
    assert [rare.apply(closed)[6] for _ in range(9)] == [OPEN] * 3 + [SHUT] * 6
    none = Disturbance(1_000_000, 0, 0.0)
    assert (none.apply(closed) == closed).all()


# ---- one demonstration -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demonstrator(request: pytest.FixtureRequest) -> Demonstrator:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv

    env = PickPlaceEnv(world="builtin", obs_mode="rgb+segmentation")
    request.addfinalizer(env.close)
    return Demonstrator(env, side=32, noise=1.0)


def test_a_demonstration_is_repeatable_and_clean_where_it_says_so(demonstrator: Demonstrator) -> None:
    first, again = demonstrator.run(1_000_000, 4), demonstrator.run(1_000_000, 4)
    for name in ("images", "foreground", "actions", "executed", "states"):
        assert (getattr(first, name) == getattr(again, name)).all(), name
    assert first.success and first.images.shape == (len(first), 32, 32, 3)
    clean = next(index for index in range(20) if Disturbance(1_000_000, index).scale == 0)
    undisturbed = demonstrator.run(1_000_000, clean)
    assert (undisturbed.actions == undisturbed.executed).all()
    assert (first.actions != first.executed).any() or Disturbance(1_000_000, 4).scale == 0


def test_labels_are_readable_from_the_picture(demonstrator: Demonstrator) -> None:
    """The label leads from the *measured* pose: the end effector follows it, and closing takes one frame."""
    clean = next(index for index in range(20) if Disturbance(1_000_000, index).scale == 0)
    demo = demonstrator.run(1_000_000, clean)
    shut = demo.actions[:, 6] < 0
    closing = int(np.flatnonzero(shut)[0])
    assert np.abs(demo.actions[closing, :3]).max() < 1e-6  # stands still while the fingers shut
    assert demo.actions[closing + 1, 2] > 0.003  # and lifts in the next frame, in which they are shut
    assert demo.states[closing + 1, 6] < demo.states[closing, 6] - 0.003


def test_the_driver_takes_turns_and_the_labels_stay_the_experts(demonstrator: Demonstrator) -> None:
    from vla_gen_bench.policies.simple import HoldPolicy

    mixed = Demonstrator(demonstrator.env, 32, driver=HoldPolicy(), horizon=30).run(1_000_000, 2)
    follows = (mixed.actions == mixed.executed).all(axis=1)
    holds = (mixed.executed[:, :6] == 0).all(axis=1)
    assert follows.any() and (holds & ~follows).any() and (follows | holds).all()
    assert np.abs(mixed.actions[~follows, :3]).max() > 0.01


class Odd:
    """A driver that breaks its contract."""

    action_spec = ActionSpec()

    def __init__(self, answer) -> None:
        self.answer = answer

    def reset(self, instructions, seeds) -> None:
        pass

    def act(self, observation):
        return self.answer()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: 1 / 0, r"policy 'odd': act\(\) raised ZeroDivisionError: division by zero"),
        (lambda: sys.exit(3), r"policy 'odd': act\(\) raised SystemExit"),
        (lambda: np.full((1, 1, 7), np.nan, np.float32), r"policy 'odd': act\(\) returned dx = nan"),
        (lambda: np.zeros((1, 6), np.float32), r"policy 'odd': act\(\) returned float32 \[1, 6\]; expected"),
        (lambda: None, r"policy 'odd': act\(\) returned NoneType"),
    ],
)
def test_a_driver_that_breaks_its_contract_is_named(demonstrator: Demonstrator, answer, message: str) -> None:
    odd = Demonstrator(demonstrator.env, 32, driver=Odd(answer), horizon=30, label="policy 'odd'")
    with pytest.raises(PolicyError, match=message):
        odd.run(1_000_000, 2)


def test_a_driver_may_reuse_its_output(demonstrator: Demonstrator) -> None:
    action = np.zeros((1, 1, 7), np.float32)

    def moving() -> np.ndarray:
        action[..., 0] += 1e-4
        return action

    mixed = Demonstrator(demonstrator.env, 32, driver=Odd(moving), horizon=30).run(1_000_000, 2)
    driven = mixed.executed[(mixed.actions != mixed.executed).any(axis=1), 0]
    assert len(driven) > 1 and (np.diff(driven) > 0).all()


def test_the_expert_sets_out_from_where_the_arm_has_wandered(demonstrator: Demonstrator) -> None:
    usual = demonstrator.run(1_000_000, 4)
    wide = Demonstrator(demonstrator.env, 32, wander=WANDER).run(1_000_000, 4)
    assert np.linalg.norm(wide.states[0, :3] - usual.states[0, :3]) > 0.03
    assert wide.success and demonstrator.env.draws  # and every frame that is kept was drawn
    assert len({image.tobytes() for image in wide.images[:5]}) == 5


# ---- what the data depends on ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"chunk": 2}}, "--policy-option chunk: the expert takes no options; give a --policy"),
        ({"policy": "hold", "noise": 0.5}, "--noise 0.5: disturbs only the expert, not --policy hold"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_request(Request(1, tmp_path, **changes))


def test_a_collection_continues_only_with_the_policy_that_drove_it(tmp_path: Path) -> None:
    """A checkpoint that was retrained in place, or edited code, is another policy of the same name."""
    card, data = tmp_path / "driver", tmp_path / "data"
    card.mkdir()
    (card / "driver.py").write_text("class Driver:\n    pass\n")
    (card / "card.yaml").write_text("name: mine\ntitle: Mine\nsummary: A driver.\nfactory: driver:Driver\n")
    (card / "weights.npz").write_bytes(b"first")
    request = Request(1, data, policy=str(card), side=SIDE)
    assert {"driver", "simulator"} <= request.origin.keys() and request.origin["simulator"]["sapien"]
    assert not {"driver", "simulator"} & Request(1, data).origin.keys()

    writer = Writer(data, SIDE, request.origin)
    writer.add(demo(0))
    writer.finish()
    assert Writer(data, SIDE, request.origin).kept == 1
    (card / "weights.npz").write_bytes(b"retrained")
    with pytest.raises(UserError, match=f"collected with another checkpoint, code or files behind --policy {card};"):
        Writer(data, SIDE, request.origin)
    (card / "weights.npz").write_bytes(b"first")
    with pytest.raises(UserError, match="was collected with simulator .*, not .*; choose another --out"):
        Writer(data, SIDE, request.origin | {"simulator": {"sapien": "0"}})


def test_a_collection_continues_only_with_the_same_assets(tmp_path: Path) -> None:
    """A folder of a version that did not record them takes those of today."""
    origin = Request(1, tmp_path, side=SIDE).origin
    assert origin["catalog"] == load_catalog("builtin").digest() and origin["pack"] == open_pack("builtin").digest
    writer = Writer(tmp_path, SIDE, {key: value for key, value in origin.items() if key not in ("catalog", "pack")})
    writer.add(demo(0))
    writer.finish()
    writer = Writer(tmp_path, SIDE, origin)
    writer.add(demo(1))
    writer.finish()
    for key in ("catalog", "pack"):
        with pytest.raises(UserError, match=f"was collected with {key} '.*', not 'other'"):
            Writer(tmp_path, SIDE, origin | {key: "other"})


def test_a_collection_of_an_earlier_version_continues_and_is_checked_from_then_on(tmp_path: Path) -> None:
    """It does not tell which policy drove, and recorded a --noise that did nothing."""
    origin = Request(1, tmp_path, policy="hold", side=SIDE).origin
    earlier = {key: value for key, value in origin.items() if key not in ("driver", "simulator")} | {"noise": 0.5}
    writer = Writer(tmp_path, SIDE, earlier)
    writer.add(demo(0))
    writer.finish()
    writer = Writer(tmp_path, SIDE, origin)
    writer.add(demo(1))
    writer.finish()
    assert len(load(tmp_path)) == 2
    with pytest.raises(UserError, match="another checkpoint, code or files behind --policy hold"):
        Writer(tmp_path, SIDE, origin | {"driver": {"digest": "other"}})
    with pytest.raises(UserError, match="was collected with policy 'hold', not 'random'"):
        Writer(tmp_path, SIDE, origin | {"policy": "random"})


# ---- the commands ------------------------------------------------------------------------------------------


def test_collect_show_and_preview(cli, tmp_path: Path) -> None:
    data = tmp_path / "data"
    result = cli("collect", "--episodes", "2", "--image-size", "32", "--workers", "1", "--out", str(data))
    assert result.exit_code == 0, result.output
    assert "2 demonstrations" in result.stdout and len(load(data)) == 2
    again = cli("collect", "--episodes", "2", "--image-size", "32", "--workers", "1", "--out", str(data), "--json")
    assert json.loads(again.stdout)["demonstrations"] == 2
    shown = cli("data", "show", str(data))
    assert shown.exit_code == 0 and "2 demonstrations" in shown.stdout and "gripper" in shown.stdout
    video = tmp_path / "preview.mp4"
    assert cli("data", "preview", str(data), "--out", str(video), "--episodes", "1").exit_code == 0
    assert video.stat().st_size > 1000
    assert cli("data", "preview", str(data), "--out", str(video)).exit_code == 0  # fewer than the default number


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """The parent is killed before its child has looked who it is."""
    code = (
        "import os, subprocess, sys, time; from vla_gen_bench.runtime import end_with\n"
        "if len(sys.argv) > 1: end_with(int(sys.argv[1])); time.sleep(60); os._exit(0)\n"
        "child = subprocess.Popen([sys.executable, __file__, str(os.getpid())]); print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    file = tmp_path / "parent.py"
    file.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True, env=environment)
    assert int(parent.stdout.readline()) > 0
    parent.kill()
    parent.wait()
    began = time.monotonic()
    parent.stdout.read()  # its end comes when the child, which holds the pipe too, is gone
    assert time.monotonic() - began < 40
