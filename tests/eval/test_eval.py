"""`vgb eval` end to end on a short suite of our own: real simulator, real worker processes."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sim import environment, simple_spec

from vla_gen_bench.cli.eval import _table_row
from vla_gen_bench.envs.vector import EnvBatch
from vla_gen_bench.episodes.suite import draw, load_suite
from vla_gen_bench.eval.rollout import episode_seed, pack_actions, run_episode
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.guard import locked
from vla_gen_bench.policies.chunking import ChunkRunner

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
id: short
version: "{version}"
protocol: {{episodes_per_seed: 2, seeds: [0, 1], horizon: 5}}
scenarios:
  ind: {{label: IND, dimension: ind}}
  tables: {{label: Tables, dimension: vision, shift: {{table: unseen}}}}
"""
POLICIES = """
import os, time
from contextlib import suppress
import numpy as np
from vla_gen_bench.policies import ActionSpec

class Base:
    action_spec = ActionSpec()
    def reset(self, instructions, seeds):
        self.batch, self.steps = len(instructions), 0
    def act(self, observation):
        self.steps += 1
        return self.answer(np.zeros((self.batch, 1, 7), np.float32))
    def answer(self, actions):
        return actions

class Fine(Base): pass
class Chunks(Base):
    action_spec = ActionSpec(chunk=3, execute=2)
    def act(self, observation):
        down = np.full((self.batch, 3, 7), -0.01, np.float32)
        return down * np.float32(1 + observation.image.mean() / 255)
class Shape(Base):
    def answer(self, actions): return actions[:, 0]
class Dtype(Base):
    def answer(self, actions): return actions.astype(np.float64)
class LateNan(Base):
    def answer(self, actions):
        if self.steps == 3: actions[:] = np.nan
        return actions
class Far(Base):
    def answer(self, actions): return actions + 5
class Raises(Base):
    def answer(self, actions): raise ValueError("no gripper today")
class RaisesLate(Base):
    def answer(self, actions):
        if self.steps == 2: raise ValueError("lost my way")
        return actions
class RaisesForOne(Base):
    # Raises whenever one certain episode is in the batch.
    def reset(self, instructions, seeds):
        super().reset(instructions, seeds)
        self.bad = BAD_SEED in seeds
    def answer(self, actions):
        if self.bad and self.steps == 2: raise ValueError("not this one")
        return actions
class Hangs(Base):
    def answer(self, actions):
        if self.steps == 2: time.sleep(600)
        return actions
class Dies(Base):
    # Kills its process in the second step of its first episode ever, once.
    def answer(self, actions):
        if self.steps == 2:
            with suppress(FileExistsError):  # two workers may come here at once: one of them ends
                open("died", "x").close()
                os._exit(7)
        return actions
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a short suite and some policies, as a user would have."""
    (tmp_path / "short.yaml").write_text(SUITE.format(version=1))
    bad = episode_seed(draw(load_suite(str(tmp_path / "short.yaml")).scenarios["tables"], "builtin", 1, 1))
    (tmp_path / "pol.py").write_text(f"BAD_SEED = {bad}\n{POLICIES}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(cli, policy: str = "pol:Fine", *more: object):
    return cli("eval", "--policy", policy, "--suite", "short.yaml", "--workers", 1, "--out", "log", *more)


def rows() -> list[dict]:
    return [json.loads(line) for line in Path("log/episodes.jsonl").read_text().splitlines()]


def stable(row: dict) -> dict:
    return {key: value for key, value in row.items() if not (key.endswith("_s") or key.startswith("worker"))}


def test_one_command_runs_logs_and_reports(cli, folder):
    done = evaluate(cli, "pol:Fine", "--json", "--video")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["suite"], answer["policy"], answer["world"]) == ("short", "pol:Fine", "builtin")
    counts = answer["scenarios"]["tables"]
    assert counts == {"episodes": 4, "errors": 0, "success_at_end": 0, "success_once": 0, "ci95": counts["ci95"]}
    assert [(r["scenario"], r["seed"], r["index"]) for r in rows()] == [
        (scenario, seed, index) for scenario in ("ind", "tables") for seed in (0, 1) for index in (0, 1)
    ]
    assert all(row["status"] == "ok" and row["steps"] == 5 and not row["success_once"] for row in rows())
    header = json.loads(Path("log/run.json").read_text())
    assert header["suite"]["digest"] and header["world"]["pack"] and header["policy"]["digest"]
    assert header["backend"]["simulation"] == "physx_cpu" and header["sessions"][0]["manifest"]["episodes"] == 8
    assert len(list(Path("log/videos").glob("*.mp4"))) == 8

    again = cli("replay", "log", "tables/1/0", "--out", "again.mp4")
    assert again.exit_code == 0 and "as logged, bit for bit" in again.stderr and Path("again.mp4").stat().st_size > 1000
    refused = cli("replay", "log", "tables/1/0", "--out", "again.txt")
    assert refused.exit_code == 2 and "again.txt: its name must end in .mp4 or .mkv or .mov" in refused.stderr
    acted = cli("replay", "log", "tables/1/0", "--act")
    assert acted.exit_code == 0 and "bit for bit" in acted.stderr and "note:" not in acted.stderr
    with Path("pol.py").open("a") as code:
        code.write("# edited\n")
    played, acted = (cli("replay", "log", "tables/1/0", *how) for how in ([], ["--act"]))
    assert "note:" not in played.stderr and "bit for bit" in played.stderr
    assert "note: the policy is not the one of the log any more: another digest" in acted.stderr
    _refuses_what_is_no_episode_or_video(cli)
    _refuses_damaged_actions(cli)
    lacking = [{k: v for k, v in row.items() if k not in ("trace", "grasped_ever")} for row in rows()]
    whole = Path("log/episodes.jsonl").read_text()
    Path("log/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lacking))
    bare = cli("replay", "log", "ind/0/0")
    assert bare.exit_code == 0 and "as logged, as far as a log without traces tells" in bare.stderr
    Path("log/episodes.jsonl").write_text(whole)
    _forge(success_at_end=True)
    forged = cli("replay", "log", "ind/0/0")
    assert forged.exit_code == 1 and "success_at_end was True, is False" in forged.stderr
    missing = cli("replay", "log", "ind/0/77")
    assert missing.exit_code == 2 and "no episode 'ind/0/77'" in missing.stderr


def _refuses_what_is_no_episode_or_video(cli) -> None:
    """Each found before the episode runs."""
    for episode in ("ind/0/\u00b2", "ind/\u00b2/0", f"ind/0/{'9' * 5000}", "ind/0"):
        wrong = cli("replay", "log", episode)
        assert wrong.exit_code == 2 and "expected scenario/seed/index" in wrong.stderr
    for name in ("foo", "foo.txt"):
        wrong = cli("replay", "log", "ind/0/0", "--out", name)
        assert wrong.exit_code == 2 and f"{name}: its name must end in .mp4" in wrong.stderr
        assert not Path(name).exists()


def _refuses_damaged_actions(cli) -> None:
    file = Path("log/actions.jsonl")
    whole = file.read_text()
    nan, few, odd = np.full((5, 7), np.nan), np.zeros((3, 7)), np.zeros(9)
    damaged = {"x!": "damaged", "AAAA": "damaged", pack_actions(odd): "damaged"}
    damaged |= {pack_actions(few): "3 actions for 5 steps", pack_actions(nan): "an action is not a number"}
    for packed, message in damaged.items():
        lines = [json.loads(line) | {"actions": packed} for line in whole.splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        wrong = cli("replay", "log", "ind/0/0")
        assert wrong.exit_code == 2 and message in wrong.stderr and "--act asks the policy again" in wrong.stderr
    file.write_text(whole)


def test_what_a_policy_in_chunks_does_not_see_is_not_drawn_and_changes_nothing(cli, folder, monkeypatch):
    """Five steps, a look every second one: with videos all are drawn; rows are the same, and replays agree."""
    assert evaluate(cli, "pol:Chunks", "--video").exit_code == 0
    with_videos = [stable(row) for row in rows()]
    shutil.rmtree("log")
    assert evaluate(cli, "pol:Chunks").exit_code == 0
    assert [stable(row) for row in rows()] == with_videos and len({row["trace"] for row in rows()}) == 8
    for how in ([], ["--act"]):
        again = cli("replay", "log", "tables/1/0", *how)
        assert again.exit_code == 0 and "as logged, bit for bit" in again.stderr

    drawn, step = [], EnvBatch.step

    def noted(self, actions, draw=True):
        drawn.append(draw)
        return step(self, actions, draw)

    monkeypatch.setattr(EnvBatch, "step", noted)
    monkeypatch.syspath_prepend(folder)
    policy = importlib.import_module("pol").Chunks()
    run_episode(environment("builtin", "rgb"), ChunkRunner(policy, "test"), simple_spec(), 5)
    assert drawn == [False, True, False, True, True]


def _forge(**changes) -> None:
    first, *rest = rows()
    Path("log/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ({**first, **changes}, *rest)))


def test_worker_count_and_resume_change_nothing(cli, folder):
    assert cli("eval", "--policy", "random", "--suite", "short.yaml", "--workers", 2, "--out", "log").exit_code == 0
    two_workers = [stable(row) for row in rows()]
    first = two_workers[:3]
    Path("log/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in first) + '{"half')
    resumed = cli("eval", "--policy", "random", "--suite", "short.yaml", "--workers", 1, "--resume", "log")
    assert resumed.exit_code == 0 and "3 of them already in the log" in resumed.stderr
    assert [stable(row) for row in rows()] == two_workers
    assert len({row["trace"] for row in two_workers}) == 8
    assert len(json.loads(Path("log/run.json").read_text())["sessions"]) == 2


def test_episodes_side_by_side_are_the_same_episodes(cli, folder):
    for count in (1, 3):
        done = evaluate(cli, "random", "--num-envs", count, "--out", f"log{count}")
        assert done.exit_code == 0, done.stderr
    logs = [EvalLog(Path(f"log{count}")) for count in (1, 3)]
    one, three = ([stable(row) for row in log.rows()] for log in logs)
    assert one == three and len({row["trace"] for row in one}) == 8
    assert logs[0].actions(("ind", 1, 1)) == logs[1].actions(("ind", 1, 1))
    assert [log.header.last.num_envs for log in logs] == [1, 3]


def test_an_error_in_a_batch_costs_the_others_one_try_only(cli, folder):
    done = evaluate(cli, "pol:RaisesForOne", "--num-envs", 4, "--json")
    assert done.exit_code == 1
    assert [row["status"] for row in rows()] == ["ok"] * 7 + ["error"]
    assert "ValueError: not this one (pol.py:" in rows()[-1]["error"]


def test_the_expert_ends_alike_with_and_without_pictures(cli, folder):
    outcomes = []
    for flags in ((), ("--no-render",)):
        done = evaluate(cli, "expert", "--episodes", 1, "--seeds", "5", "--fresh", *flags)
        assert done.exit_code == 0, done.stderr
        outcomes.append([{k: v for k, v in stable(row).items() if k not in ("trace", "run")} for row in rows()])
    assert outcomes[0] == outcomes[1]
    again = cli("replay", "log", "ind/5/0")
    assert again.exit_code == 0 and "as logged, as far as a log without images tells" in again.stderr


def test_an_openvla_checkpoint_runs_and_is_part_of_the_run_s_identity(cli, folder):
    from openvla_checkpoints import checkpoint

    checkpoint(folder / "weights")
    flags = ("--checkpoint", "weights", "--episodes", 1, "--seeds", "0", "--scenario", "ind")
    done = evaluate(cli, "openvla", *flags)
    assert done.exit_code == 0, done.stderr
    header = json.loads(Path("log/run.json").read_text())
    assert header["decoding"]["temperature"] == 0.6 and header["policy"]["checkpoint"]
    with open("weights/config.json", "a") as file:
        file.write("\n")
    changed = evaluate(cli, "openvla", *flags)
    assert changed.exit_code == 2 and "another run: policy checkpoint is" in changed.stderr
    without = evaluate(cli, "openvla", "--fresh")
    assert without.exit_code == 2 and "policy 'openvla' needs --checkpoint" in without.stderr


def test_a_dead_worker_costs_one_try_only(cli, folder):
    done = evaluate(cli, "pol:Dies", "--episodes", 1)
    assert done.exit_code == 0, done.stderr
    assert [row["status"] for row in rows()] == ["ok"] * 4


def test_a_policy_that_raises_errors_its_episodes(cli, folder):
    done = evaluate(cli, "pol:RaisesLate", "--scenario", "ind", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["scenarios"]["ind"]["errors"] == 4
    assert all(row["status"] == "error" and row["success_at_end"] is None for row in rows())
    assert "ValueError: lost my way (pol.py:" in rows()[0]["error"]


def test_a_nan_in_an_episode_errors_it(cli, folder):
    done = evaluate(cli, "pol:LateNan", "--scenario", "ind", "--episodes", 1, "--seeds", "0")
    assert done.exit_code == 1
    assert "nan" in rows()[0]["error"] and "expected finite values" in rows()[0]["error"]


def test_a_policy_that_hangs_is_stopped(cli, folder):
    start = time.monotonic()
    done = evaluate(cli, "pol:Hangs", "--scenario", "ind", "--episodes", 1, "--seeds", "0", "--time-limit", 3)
    assert done.exit_code == 1 and time.monotonic() - start < 90
    assert rows()[0]["error"] == "no control step finished within 3 s"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("pol:Shape", "act() returned float32 [1, 7]; expected float32 [1, K, 7] with K = 1"),
        ("pol:Dtype", "act() returned float64 [1, 1, 7]"),
        ("pol:Far", "expected a value in [-1, 1] m"),
        ("pol:Raises", "ValueError: no gripper today"),
    ],
)
def test_a_broken_policy_stops_before_any_episode(cli, folder, policy, message):
    done = evaluate(cli, policy)
    assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not Path("log/episodes.jsonl").exists()


BAD_INPUT = [
    (("--policy", "expart"), "unknown policy 'expart'; did you mean 'expert'?"),
    (("--suite", "visoin"), "did you mean 'vision'?"),
    (
        ("--scenario", "unseen_tabel", "--suite", "vision"),
        "unknown scenario 'unseen_tabel'; did you mean 'unseen_table'?",
    ),
    (("--world", "bultin"), "did you mean 'builtin'?"),
    (("--scenario", "texture_weak+texture_strong", "--suite", "vision"), "texture"),
    (("--seeds", "0,x"), "expected integers separated by commas"),
    (("--seeds", "1000000"), "evaluation seeds are 0 to 999999"),
    (("--seeds", ",".join(str(seed) for seed in range(10_000, 12_000))), "expected at most 1000 seeds"),
    (("--seeds", ",".join(map(str, range(1001)))), "1001 seeds; expected at most 1000"),
    (("--seeds", "1,2,1"), "--seeds: a seed is given twice in [1, 2, 1]"),
    (("--episodes", "0"), "--episodes"),
    (("--policy-option", "speed"), "expected key=value"),
    (("--suite", "vision", "--suite", "table1"), "cannot share a suite"),
    (("--resume", "nowhere"), "no log to resume there"),
    (("--backend", "gqu"), "backend 'gqu'; did you mean 'gpu'?"),
    (("--out", "short.yaml/log"), "cannot write the log"),
    (("--no-render",), "--no-render is for privileged policies"),
    (("--suite", "typo.yaml"), "typo.yaml: scenarios.ind.shift.tabel: unknown axis 'tabel'; did you mean 'table'?"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=[" ".join(a)[:60] for a, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_exit_code_2(cli, folder, arguments, message):
    (folder / "typo.yaml").write_text(
        SUITE.format(version=1).replace("label: IND,", "label: IND, shift: {tabel: unseen},")
    )
    options = list(arguments)
    for name, value in (("--policy", "hold"), ("--suite", "execution"), ("--out", "log")):
        if name not in options and not (name == "--out" and "--resume" in options):
            options += [name, value]
    done = cli("eval", *options)
    assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not Path("log").exists()


def test_resume_refuses_a_log_of_another_suite_version(cli, folder):
    assert evaluate(cli, "pol:Fine", "--episodes", 1, "--seeds", "0").exit_code == 0
    before = rows()
    (folder / "short.yaml").write_text(SUITE.format(version=2))
    for flags in ((), ("--resume",)):
        done = evaluate(cli, "pol:Fine", *flags)
        assert done.exit_code == 2 and "the log there is of another run: suite version is '1', now '2'" in done.stderr
    assert rows() == before
    other = evaluate(cli, "pol:Dies")
    assert other.exit_code == 2
    assert evaluate(cli, "pol:Fine", "--fresh", "--episodes", 1, "--seeds", "0").exit_code == 0
    assert len(list(folder.glob("log.*/episodes.jsonl"))) == 1


def test_a_second_evaluation_into_one_folder_is_refused(cli, folder):
    """Also with --fresh: the log of the run that is under way stays where it is."""
    assert evaluate(cli, "pol:Fine", "--episodes", 1, "--seeds", "0").exit_code == 0
    before = rows()
    with locked(Path("log")):
        for flags in ((), ("--fresh",), ("--resume",)):
            done = evaluate(cli, "pol:Chunks", *flags)
            assert done.exit_code == 2 and "log: another process is writing there" in done.stderr
        assert "another process is writing" in cli("replay", "log", "ind/0/0").stderr
    assert rows() == before and not list(folder.glob("log.*"))


def test_fresh_moves_nothing_before_the_policy_has_loaded(cli, folder):
    assert evaluate(cli, "pol:Fine", "--episodes", 1, "--seeds", "0").exit_code == 0
    before = rows()
    assert evaluate(cli, "pol:Raises", "--fresh").exit_code == 2
    assert rows() == before and not list(folder.glob("log.*"))


def test_a_run_without_rows_leaves_nothing_that_refuses_the_next_command(cli, folder):
    assert evaluate(cli, "pol:Raises").exit_code == 2 and not Path("log").exists()
    Path("log").mkdir()
    Path("log/run.json").write_text('{"policy": {"name": "killed before its first row"}}')
    Path("log/episodes.jsonl").write_text('{"scenario": "in')
    assert evaluate(cli, "pol:Fine", "--episodes", 1, "--seeds", "0").exit_code == 0
    assert len(rows()) == 2 and EvalLog(Path("log")).header.policy.name == "pol:Fine"


def test_doubled_rows_are_dropped_and_counted_once(cli, folder):
    done = evaluate(cli, "pol:Fine", "--json")
    Path("log/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows() + rows()[2:5]))
    assert "3 rows repeat an episode; the first of each counts" in cli("report", "log").stderr
    again = evaluate(cli, "pol:Fine", "--json")
    assert again.exit_code == 0 and json.loads(again.stdout) == json.loads(done.stdout)
    assert "3 rows that repeated an episode were dropped" in again.stderr and len(rows()) == 8


def test_a_complete_log_that_cannot_be_written_is_summarised(cli, folder, monkeypatch):
    done = evaluate(cli, "pol:Fine", "--json")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("vla_gen_bench.log.writer.replace_file", refuse)
    again = evaluate(cli, "pol:Fine", "--json")
    assert again.exit_code == 0 and json.loads(again.stdout) == json.loads(done.stdout)


def test_a_custom_suite_is_found_in_the_log_alone(cli, folder):
    """Labels and dimensions too, from another folder, when its file is gone."""
    assert evaluate(cli, "pol:Fine", "--episodes", 1, "--seeds", "0").exit_code == 0
    Path("short.yaml").unlink()
    ran = cli("report", "log", "--allow-partial")
    assert ran.exit_code == 0 and ran.stderr == "" and "Tables" in ran.stdout and "Vision" in ran.stdout
    again = cli("replay", "log", "tables/0/0")
    assert again.exit_code == 0 and "as logged, bit for bit" in again.stderr


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_finished_episodes_and_the_same_command_continues(cli, folder, number, status):
    (folder / "short.yaml").write_text(SUITE.format(version=1).replace("horizon: 5", "horizon: 40"))
    command = [
        sys.executable,
        "-m",
        "vla_gen_bench",
        "eval",
        "--policy",
        "hold",
        "--suite",
        "short.yaml",
        "--workers",
        "1",
        "--out",
        "log",
    ]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and what they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = Path("log/episodes.jsonl")
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status and "interrupted" in errors and "Traceback" not in errors
    kept = [stable(row) for row in rows()]
    assert 2 <= len(kept) < 8
    assert cli("eval", "--policy", "hold", "--suite", "short.yaml", "--workers", 1, "--out", "log").exit_code == 0
    assert len(rows()) == 8 and all(row in [stable(r) for r in rows()] for row in kept)


def test_no_vulkan_driver_names_the_fix(cli_process, folder):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "VK_DRIVER_FILES": "/nowhere.json",
        "VK_ICD_FILENAMES": "/nowhere.json",
    }
    done = cli_process(
        "eval", "--policy", "hold", "--suite", "short.yaml", "--workers", 1, "--out", "log", env=environment
    )
    assert done.exit_code == 2 and "vgb doctor" in done.stderr and "Traceback" not in done.stderr


def test_a_corrupted_pack_is_named(cli, folder, monkeypatch):
    import shutil

    from vla_gen_bench.assets.pack import open_pack

    shutil.copytree(open_pack("builtin").root, "pack")
    damaged = next(Path("pack/objects").glob("*/visual.glb"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    monkeypatch.setenv("VGB_BUILTIN_DIR", "pack")
    done = evaluate(cli)
    expected = f"{damaged.relative_to('pack')} is damaged; run `vgb assets fetch builtin`"
    assert done.exit_code == 2 and expected in done.stderr


def test_a_row_of_the_table_that_eval_prints():
    """Rate of the episodes with an outcome, interval, k/n, rate at any time, drop from IND, errors."""
    far = {"episodes": 5, "errors": 1, "success_at_end": 1, "success_once": 2, "ci95": [0.05, 0.7]}
    ind = {"episodes": 4, "errors": 0, "success_at_end": 3, "success_once": 4, "ci95": [0.3, 0.95]}
    row = _table_row("Far", far, ind, "success_at_end")
    assert row == ["Far", "0.250", "0.050 to 0.700", "1/4", "0.500", "50.0 pp", "1"]
    assert _table_row("IND", ind, ind, "success_at_end") == ["IND", "0.750", "0.300 to 0.950", "3/4", "1.000", "", ""]
    assert _table_row("Far", far, ind, "success_once")[1:6] == ["0.500", "0.050 to 0.700", "2/4", "0.250", "50.0 pp"]
