"""The Python API: `import vla_gen_bench as vgb`."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_logs import REAL, successes, write_log

import vla_gen_bench as vgb
from vla_gen_bench.policies.objects import card_of_object

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
id: two
version: "1"
protocol: {episodes_per_seed: 2, seeds: [0], horizon: 4}
scenarios:
  ind: {label: IND, dimension: ind}
  tables: {label: Tables, dimension: vision, shift: {table: unseen}}
"""


class Still:
    """Does nothing, as an object that a notebook may hold: it cannot be pickled."""

    action_spec = vgb.ActionSpec()

    def __init__(self, fails_at: int = 0) -> None:
        self.fails_at, self.acts, self.open = fails_at, 0, lambda: None

    def reset(self, instructions: list[str], seeds: list[int]) -> None:
        self.batch = len(instructions)

    def act(self, observation: vgb.Observation) -> np.ndarray:
        self.acts += 1
        if self.acts == self.fails_at:
            raise ValueError("once")
        return np.zeros((self.batch, 1, 7), np.float32)


@pytest.fixture
def suite(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(SUITE)
    return "two.yaml"


def test_every_public_name_is_there_and_documented():
    for name in vgb.__all__:
        assert getattr(vgb, name).__doc__, name
    assert set(vgb.__all__) <= set(dir(vgb))
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        vgb.evaluat  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, vla_gen_bench; print([m for m in ('torch', 'pydantic', 'numpy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [("-m", "theirs"), ("theirs/__main__.py",)])
def test_importing_the_package_leaves_ctrl_c_to_other_programs(tmp_path, arguments):
    """Only the command `vgb` ends at once while it is still importing."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/__init__.py").write_text("import vla_gen_bench\n")
    (tmp_path / "theirs/__main__.py").write_text("import signal, vla_gen_bench\nprint(signal.getsignal(2).__name__)\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    usual = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  # else a job in the background ignores it
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, preexec_fn=usual
    )
    assert ran.stdout == "default_int_handler\n"


def test_an_object_is_evaluated_here_and_its_log_resumes(suite, capsys):
    policy = Still()
    log = vgb.evaluate(policy, suite, scenarios=["ind"], num_envs=2)
    assert log.folder == Path("runs/Still/two-builtin") and log.header.policy.name == "Still"
    assert policy.acts > 0 and "2/2 episodes" in capsys.readouterr().err
    acts = policy.acts
    log = vgb.evaluate(policy, suite, progress=False)
    assert policy.acts == acts + 1 + 2 * 4  # a rehearsal and the two other episodes, one after the other
    assert capsys.readouterr().err == ""
    frame = log.frame()
    assert frame.groupby("scenario").steps.sum().to_dict() == {"ind": 8, "tables": 8}
    assert {name: counts.episodes for name, counts in log.counts().items()} == {"ind": 2, "tables": 2}


def test_what_an_object_raises_is_tried_again_and_then_recorded(suite):
    log = vgb.evaluate(Still(fails_at=3), suite, scenarios=["ind"], progress=False)
    assert log.counts()["ind"].errors == 0

    class Fails(Still):
        def act(self, observation: vgb.Observation) -> np.ndarray:
            if observation.step[0] == 2:
                raise ValueError("always")
            return super().act(observation)

    log = vgb.evaluate(Fails(), vgb.load_suite(suite), scenarios=["ind"], progress=False, name="fails")
    assert log.counts()["ind"].errors == 2 and "ValueError: always" in log.rows()[0]["error"]
    assert log.header.suite.sources == ("two.yaml",) and log.folder.parent.name == "fails"


def test_another_object_does_not_continue_a_log(suite):
    vgb.evaluate(Still(), suite, scenarios=["ind"], progress=False, out="log")
    with pytest.raises(vgb.UserError, match="the log there is of another run: policy digest"):
        vgb.evaluate(Still(), suite, scenarios=["ind"], progress=False, out="log")


def test_the_digest_of_an_object_is_its_source_and_state():
    assert card_of_object(Plain(1)).digest() == card_of_object(Plain(1)).digest()
    assert card_of_object(Plain(1)).digest() != card_of_object(Plain(2)).digest()


@pytest.mark.parametrize("kind", [lambda: Still(), lambda: Plain(1)], ids=["cannot be pickled", "can be pickled"])
def test_an_object_that_was_changed_between_two_runs_does_not_continue_its_log(suite, kind):
    policy = kind()
    vgb.evaluate(policy, suite, scenarios=["ind"], progress=False, out="log")
    policy.number = 3  # new weights, as it were
    with pytest.raises(vgb.UserError, match="the log there is of another run: policy digest"):
        vgb.evaluate(policy, suite, progress=False, out="log")


def test_the_code_of_an_object_is_the_whole_of_its_modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "object_base_module.py").write_text("SPEED = 1\nclass Base:\n    def act(self): return SPEED\n")
    (tmp_path / "object_own_module.py").write_text(
        "import object_base_module\nfrom vla_gen_bench import ActionSpec\nclass Own(object_base_module.Base):\n"
        "    action_spec = ActionSpec()\n    def reset(self, instructions, seeds): pass\n"
    )
    own = importlib.import_module("object_own_module").Own
    old = card_of_object(own()).digest()
    assert card_of_object(own()).digest() == old
    (tmp_path / "object_base_module.py").write_text("SPEED = 2\nclass Base:\n    def act(self): return SPEED\n")
    assert card_of_object(own()).digest() != old


class Plain(Still):
    acts = fails_at = 0

    def __init__(self, number: int) -> None:
        self.number = number


def test_a_named_policy_runs_in_workers_from_a_script_without_a_guard(suite):
    Path("script.py").write_text(
        "import vla_gen_bench as vgb\n"
        "log = vgb.evaluate('hold', 'two.yaml', scenarios=['ind'], episodes=1, workers=1, progress=False)\n"
        "print(len(log.frame()), log.header.policy.name)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout == "1 hold\n", done.stderr


def test_what_cannot_be_asked_of_an_object_is_refused(suite):
    with pytest.raises(vgb.UserError, match="options, checkpoint and workers are for named policies"):
        vgb.evaluate(Still(), suite, workers=2)
    with pytest.raises(vgb.UserError, match="unknown policy 'stil'"):
        vgb.evaluate("stil", suite)
    with pytest.raises(vgb.UserError, match="action_spec"):
        vgb.evaluate(object(), suite)  # type: ignore[arg-type]


WRONG = {
    "episodes": (0, -1, 1.5, True, float("nan"), 100_001, "3"),
    "workers": (-1, 0, True, 1025, float("nan"), np.float64(2)),
    "num_envs": (0, -1, 65_537, False),
    "seeds": ([0, 0], [-1], [1_000_000], [10**30], [0.0], [True], [], "01", 3, range(1001)),
    "scenarios": ("ind", []),
    "suite": ([], [3], None),
    "video": ("al", None),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_number_out_of_bounds_is_refused_before_anything_runs(suite, name, value):
    """As on the command line; a negative number of workers never returned, no episodes meant all of the suite's."""
    given = {"suite": suite, "episodes": 1, "seeds": [0], "scenarios": ["ind"], "workers": 1, name: value}
    with pytest.raises(vgb.UserError, match=rf"^{name}\b.*(expected|did you mean|seeds are|given twice|known)"):
        vgb.evaluate("hold", progress=False, out="log", **given)
    assert not Path("log").exists()


def test_numbers_of_numpy_are_whole_numbers(suite):
    from vla_gen_bench.eval.evaluate import Request

    request = Request("hold", [suite], episodes=np.int64(2), seeds=np.arange(3), workers=np.int32(1))
    assert (request.episodes, request.seeds, request.workers) == (2, (0, 1, 2), 1)
    assert {type(request.episodes), type(request.workers), *map(type, request.seeds)} == {int}


def test_logs_are_compared_by_folder_log_and_label(tmp_path):
    for name, wins in (("a", 8), ("b", 12)):
        write_log(tmp_path / name, {"ind": successes(wins, 20)}, policy=name)
    report = vgb.compare({"sft": tmp_path / "a", "ppo": vgb.read_log(tmp_path / "b")}, baseline="sft")
    frame = report.frame()
    won = frame[(frame.kind == "scenario") & (frame.policy == "ppo")].iloc[0]
    assert (won.k, won.n, won.wins, won.losses) == (12, 20, 4, 0)
    assert "ppo solves 60.0% of IND" in report.summary()[1]
    assert "Difference from sft" in str(report) and "<table>" in report._repr_html_()
    for name, start in (("r.html", "<!DOCTYPE html>"), ("r.md", "# "), ("r.csv", "kind,")):
        assert report.write(tmp_path / name).read_text().startswith(start)
    assert set(report.figures) >= {"rates", "wins"}
    with pytest.raises(vgb.UserError, match="no evaluation log there"):
        vgb.read_log(tmp_path)


def test_the_report_is_that_of_the_command(cli):
    assert cli("report", REAL).stdout == vgb.compare(REAL).render()


def test_an_environment_by_scenario():
    env = vgb.make_env("unseen_table")
    observation, _ = env.reset(seed=7)
    assert observation["sensor_data"]["3rd_view_camera"]["rgb"].shape[-3:] == (240, 320, 3)
    env.close()
    with pytest.raises(vgb.UserError, match="did you mean 'unseen_table'"):
        vgb.make_env("unseen_tabel")


def test_policies_and_suites_by_name():
    assert vgb.load_suite("vision").id == "vision" and vgb.load_policy("hold").action_spec.chunk == 1
