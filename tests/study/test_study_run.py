"""Running a study: order, resuming, what is finished, what changed, what fails. Commands are stubs that leave files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from studies import PARTS, RECIPE, STUDY, Stub, parts_in, write_material, write_study

from vla_gen_bench.cli import study as command
from vla_gen_bench.log.guard import locked
from vla_gen_bench.study.declaration import read_study
from vla_gen_bench.study.engines import Local
from vla_gen_bench.study.inputs import data_digest, inputs_of
from vla_gen_bench.study.ledger import Record, read_record, standings, write_record
from vla_gen_bench.study.parts import Effort, Part, parts_of
from vla_gen_bench.study.run import Run

CHAIN = {
    **STUDY["arms"],
    "tuned": {"recipe": "tiny.yaml", "data": ["demos"], "start": "warm", "options": {"temperature": 0.5}},
    "warm": {"recipe": "tiny.yaml", "data": ["demos"], "seeds": [7]},
    "still": {"policy": "hold", "options": {}},
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    write_material(folder)
    return folder


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("short.yaml", "tiny.yaml"):
        shutil.copy(material / name, tmp_path)
    (tmp_path / "demos").symlink_to(material / "demos")
    monkeypatch.chdir(tmp_path)
    write_study()
    return tmp_path


def run(stub: Stub, path: str = "study.yaml") -> dict[str, str]:
    """Runs a study with a stub; returns part -> state."""
    found = Run(parts_in(Path(path))[1], Local(stub)).all()
    return {name: one.state for name, one in found.items()}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """What `vgb study` runs, in place of commands."""
    made = Stub()

    @contextmanager
    def engine(cluster: object) -> Iterator[Local]:
        yield Local(made)

    monkeypatch.setattr(command, "_engine", engine)
    return made


# ---- order and resuming ----------------------------------------------------------------------------------------


def test_a_part_runs_after_those_it_needs(folder: Path) -> None:
    questions = {"q": {"ask": "Which?", "arms": ["still", "tuned"]}, **STUDY["questions"]}
    write_study(arms=CHAIN, questions=questions)
    stub = Stub()
    assert set(run(stub).values()) == {"done"}
    order = stub.ran
    assert sorted(order) == sorted(
        [*PARTS, "train/warm/7", "train/tuned/0", "train/tuned/1", "eval/short/tuned/0", "eval/short/tuned/1",
         "eval/short/still"]
    )  # fmt: skip
    for seed in (
        0,
        1,
    ):  # both seeds start from the only one of `warm`, which the file names last and no question compares
        assert (
            order.index("train/warm/7") < order.index(f"train/tuned/{seed}") < order.index(f"eval/short/tuned/{seed}")
        )
    recipe = yaml.safe_load(Path("out/parts/train/tuned/1/recipe.yaml").read_text())
    assert recipe["model"]["checkpoint"] == "out/train/warm/7/checkpoint" and recipe["model"]["size"] is None
    assert (recipe["seed"], recipe["name"]) == (1, "tuned")


def test_finished_parts_never_run_again(folder: Path) -> None:
    first, second = Stub(), Stub()
    assert set(run(first).values()) == {"done"} and first.ran == PARTS
    assert set(run(second).values()) == {"done"} and second.ran == []
    assert read_record(parts_in(Path("study.yaml"))[1]["train/low/0"]).attempts == 1


def test_an_interrupted_study_resumes_at_the_part_it_was_in(folder: Path) -> None:
    stopped = Stub(stopping="train/high/0")
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    assert stopped.ran == PARTS[:3]
    parts = parts_in(Path("study.yaml"))[1]
    states = {name: one.state for name, one in standings(parts).items()}
    assert [states[name] for name in PARTS[:4]] == ["done", "done", "interrupted", "waiting"]
    after = Stub()
    assert set(run(after).values()) == {"done"} and after.ran == PARTS[2:]
    assert read_record(parts["train/high/0"]).attempts == 2


def test_a_study_that_was_killed_resumes(folder: Path) -> None:
    """kill -9 leaves a part recorded as running; without a process on the study it counts as interrupted."""
    run(Stub())
    part = parts_in(Path("study.yaml"))[1]["train/high/1"]
    record = json.loads((part.notes / "part.json").read_text())
    (part.notes / "part.json").write_text(json.dumps({**record, "status": "running", "checkpoint": None}))
    assert standings({part.name: part})[part.name].state == "interrupted"
    assert standings({part.name: part}, live=True)[part.name].state == "running"
    again = Stub()
    assert set(run(again).values()) == {"done"} and again.ran == ["train/high/1"]  # the same checkpoint came out


def test_a_result_that_was_removed_is_made_again(folder: Path) -> None:
    run(Stub())
    shutil.rmtree("out/eval/short/low/0")
    shutil.rmtree("out/train/high/0")
    again = Stub()
    assert set(run(again).values()) == {"done"} and again.ran == ["train/high/0", "eval/short/low/0"]


# ---- failures --------------------------------------------------------------------------------------------------


def test_a_failing_part_stops_only_those_that_need_it(folder: Path, stub: Stub, cli) -> None:
    stub.failing = ("train/low/1",)
    ran = cli("study", "study.yaml", "--out", "out")
    assert ran.exit_code == 1
    assert stub.ran == [name for name in PARTS if name != "eval/short/low/1"]
    assert "[2/8] train/low/1: failed (0 s): demos: the disk is on fire" in ran.stderr
    shown = json.loads(cli("study", "study.yaml", "--out", "out", "--status", "--json").stdout)["parts"]
    assert shown["train/low/1"]["state"] == "failed" and shown["train/low/1"]["note"] == "demos: the disk is on fire"
    assert (shown["eval/short/low/1"]["state"], shown["eval/short/low/1"]["note"]) == ("blocked", "needs train/low/1")
    page = Path("out/study.md").read_text()
    assert "Incomplete: 2 of 8 parts are not done: train/low/1 (failed), eval/short/low/1 (blocked)" in page
    assert "the disk is on fire" in page and "Without results: eval/short/low/1" in page
    stub.failing, stub.ran = (), []
    assert cli("study", "study.yaml", "--out", "out").exit_code == 0
    assert stub.ran == ["train/low/1", "eval/short/low/1"]
    assert "Incomplete" not in Path("out/study.md").read_text()


def test_a_part_that_failed_before_it_began_may_be_corrected(folder: Path) -> None:
    """Nothing was trained, so nothing can be mixed."""
    assert run(Stub(failing=("train/low/0",)))["train/low/0"] == "failed"
    arms = {**STUDY["arms"], "low": {**STUDY["arms"]["low"], "seeds": [0, 1], "set": {"optimiser.lr": 2.0e-5}}}
    write_study(arms={**arms, "low": {**arms["low"], "seeds": [0]}})
    again = Stub()
    assert set(run(again).values()) == {"done"} and again.ran == ["train/low/0", "eval/short/low/0"]


# ---- changes ---------------------------------------------------------------------------------------------------


def change_setting() -> None:
    low = {**STUDY["arms"]["low"], "set": {"optimiser.lr": 5.0e-5}}
    write_study(arms={**STUDY["arms"], "low": low})


def change_recipe() -> None:
    Path("tiny.yaml").write_text(yaml.safe_dump({**RECIPE, "samples": 160}))


def change_suite() -> None:
    Path("short.yaml").write_text(Path("short.yaml").read_text().replace("horizon: 3", "horizon: 4"))


def change_data() -> None:
    target = Path("demos").resolve()
    Path("demos").unlink()
    shutil.copytree(target, "demos")
    info = Path("demos/meta/info.json")
    info.write_text(info.read_text().replace("{", "{ ", 1))


def change_episodes() -> None:
    write_study(evaluations={"short": {"suite": "short.yaml", "episodes": 3}})


def change_checkpoint() -> None:
    Path("out/train/low/0/checkpoint/model").write_text("other weights")


def test_a_training_that_fills_the_cache_of_its_data_stays_finished(folder: Path) -> None:
    """Training decodes images into FOLDER/cache, which may also be deleted at any time."""
    change_data()
    shutil.rmtree("demos/cache")
    run(Stub())
    for make in (lambda: Path("demos/cache/image-9.npy").write_bytes(b"12"), lambda: shutil.rmtree("demos/cache")):
        Path("demos/cache").mkdir(exist_ok=True)
        make()
        again = Stub()
        assert set(run(again).values()) == {"done"} and again.ran == []


def test_a_record_that_counted_the_cache_is_accepted(folder: Path) -> None:
    """Earlier versions digested FOLDER/cache too: their records hold the digest with it, or before it was there."""
    change_data()
    shutil.rmtree("demos/cache")
    before = data_digest(Path("demos"), everything=True)
    Path("demos/cache").mkdir(exist_ok=True)
    Path("demos/cache/image-9.npy").write_bytes(b"12")
    after = data_digest(Path("demos"), everything=True)
    run(Stub())
    part = parts_in(Path("study.yaml"))[1]["train/low/0"]
    record = read_record(part)
    Path("demos/more.bin").write_bytes(b"1")
    other = data_digest(Path("demos"), everything=True)
    Path("demos/more.bin").unlink()
    for digest, state in ((before, "done"), (after, "done"), (other, "changed")):
        write_record(part, record.model_copy(update={"inputs": {**record.inputs, "data": {"demos": digest}}}))
        assert standings({part.name: part})[part.name].state == state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_setting, "train/low/0 has results of other inputs: recipe optimiser.lr was 1e-05, now 5e-05"),
        (change_recipe, "train/low/0 has results of other inputs: recipe samples was 80, now 160"),
        (change_suite, "eval/short/low/0 has results of other inputs: suite.digest was"),
        (change_data, "train/low/0 has results of other inputs: data was {'demos':"),
        (change_episodes, "eval/short/low/0 has results of other inputs: episodes was 2, now 3"),
        (change_checkpoint, "train/low/0 has results of other inputs: checkpoint/ is not what the training wrote"),
    ],
)
def test_a_change_is_refused_and_named(folder: Path, stub: Stub, cli, change, message: str) -> None:
    run(Stub())
    change()
    ran = cli("study", "study.yaml", "--out", "out")
    assert ran.exit_code == 2 and stub.ran == []
    assert message in ran.stderr and "--redo low" in ran.stderr and ran.stderr.count("\n") == 1


def record_of(part: Part, checkpoint: str | None, **inputs: object) -> None:
    """Writes the record and the output of a finished part; an input of None is left out."""
    now = {**inputs_of(part, {}), **inputs}
    kept = {key: value for key, value in now.items() if value is not None}
    write_record(part, Record(status="done", inputs=kept, command=part.command, started="", checkpoint=checkpoint))
    (part.out / "checkpoint").mkdir(parents=True, exist_ok=True)
    (part.out / "run.json").write_text("{}")
    (part.out / "episodes.jsonl").write_text("{}\n")


CHANGED = {
    "backend.simulation": ("physx_cuda", "backend.simulation was 'physx_cuda', now 'physx_cpu'"),
    "world.pack": ("other", "world.pack was 'other', now"),
    "simulator.sapien": ("0", "simulator.sapien was '0', now"),
}


@pytest.mark.parametrize("key", CHANGED)
@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_world_and_simulator_are_inputs(folder: Path, kind: str, key: str) -> None:
    """Of everything that simulates; a record of an earlier version, without them, is accepted."""
    arms = {"low": {"recipe": "ppo-orz", "seeds": [0]}, "still": {"policy": "hold"}}
    write_study(arms=arms, questions={"q": {"ask": "Which?", "arms": ["low", "still"]}})
    study = read_study(Path("study.yaml"))
    parts = parts_of(study, Path("study.yaml"), Path("out"))
    part = parts["train/low/0" if kind == "training" else "eval/short/still"]
    value, message = CHANGED[key]
    record_of(part, None, **{key: value})
    found = standings({part.name: part})[part.name]
    assert found.state == "changed" and message in found.note
    record_of(part, None, **{key: None})
    assert standings({part.name: part})[part.name].state == "done"
    elsewhere = parts_of(study, Path("study.yaml"), Path("out"), Effort(here=False))[part.name]
    record_of(part, None, **({} if key != "backend.simulation" else {key: value}))
    assert standings({part.name: elsewhere})[part.name].state == "done"


def test_an_effect_of_a_plugin_is_an_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    effect = "class Dark:\n    kind = 'image'\n    def apply(self, image): return image\n"
    Path("dusk_effect.py").write_text(effect)
    Path("short.yaml").write_text(
        Path("short.yaml").read_text().replace("{table: unseen}", "{effects: ['dusk_effect:Dark']}")
    )
    path = write_study(arms=CHAIN, questions={"q": {"ask": "Which?", "arms": ["still", "low", "high", "tuned"]}})
    part = parts_in(path)[1]["eval/short/still"]
    record_of(part, None)
    assert standings({part.name: part})[part.name].state == "done"
    Path("dusk_effect.py").write_text(effect.replace("return image", "return image // 2"))
    assert standings({part.name: part})[part.name].note.startswith("effects.dusk_effect:Dark was 'module ")


def test_secrets_stay_out_of_what_a_study_publishes(folder: Path, stub: Stub, cli) -> None:
    """An option that is a key reaches the policy, and none of the files, as in an evaluation's run.json."""
    Path("secretive.py").write_text("class Mine:\n    def __init__(self, api_key, n=1): pass\n")
    arms = {"mine": {"policy": "secretive:Mine", "options": {"api_key": "k-123", "n": 7}}, "still": {"policy": "hold"}}
    write_study(arms=arms, questions={"q": {"ask": "Which?", "arms": ["mine", "still"]}})
    assert "api_key=k-123" in parts_in(Path("study.yaml"))[1]["eval/short/mine"].command
    ran = cli("study", "study.yaml", "--out", "out")
    assert ran.exit_code == 0, ran.stderr
    texts = {path: path.read_text(errors="replace") for path in Path("out").rglob("*") if path.is_file()}
    assert [str(path) for path, text in texts.items() if "k-123" in text] == []
    notes = Path("out/parts/eval/short/mine")
    for path in (notes / "part.json", notes / "printed.txt", Path("out/study.html"), Path("out/study.md")):
        assert "(hidden)" in texts[path], path


def test_redo_moves_an_arm_and_what_needs_it_aside(folder: Path, stub: Stub, cli) -> None:
    run(Stub())
    before = Path("out/train/low/0/checkpoint/model").read_text()
    change_setting()
    assert cli("study", "study.yaml", "--out", "out", "--redo", "low").exit_code == 0
    assert stub.ran == [name for name in PARTS if "/low/" in name]
    assert Path("out/old/1/train/low/0/checkpoint/model").read_text() == before
    assert Path("out/old/1/eval/short/low/1/episodes.jsonl").exists()
    assert Path("out/old/1/parts/train/low/0/part.json").exists()
    refused = cli("study", "study.yaml", "--out", "out", "--redo", "lov")
    assert refused.exit_code == 2 and "--redo lov: no such arm or part; did you mean 'low'?" in refused.stderr


def test_another_start_changes_those_that_begin_there(folder: Path) -> None:
    """`tuned` waits for `warm`; when `warm` comes out differently, `tuned` is refused, not mixed."""
    questions = {"q": {"ask": "Which?", "arms": ["low", "tuned"]}}
    arms = {name: CHAIN[name] for name in ("low", "tuned", "warm")}
    write_study(arms=arms, questions=questions)
    run(Stub())
    shutil.rmtree("out/train/warm")
    shutil.rmtree("out/parts/train/warm")
    write_study(arms={**arms, "warm": {**arms["warm"], "set": {"samples": 160}}}, questions=questions)
    again = Stub()
    states = run(again)
    assert again.ran == ["train/warm/7"] and states["train/tuned/0"] == "changed"
    assert states["eval/short/tuned/0"] == "blocked" and states["eval/short/low/0"] == "done"


def test_parts_that_the_study_no_longer_names_are_left_alone(folder: Path, stub: Stub, cli) -> None:
    run(Stub())
    write_study(seeds=[0])
    ran = cli("study", "study.yaml", "--out", "out")
    assert ran.exit_code == 0 and "also holds eval/short/high/1, eval/short/low/1, train/high/1" in ran.stderr
    assert "high/1" not in Path("out/study.md").read_text()


# ---- one at a time ---------------------------------------------------------------------------------------------


def test_a_command_that_leaves_nothing_has_failed(folder: Path) -> None:
    """As a node that does not share the disk would have it."""
    parts = parts_in(Path("study.yaml"))[1]
    found = Run(parts, Local(lambda arguments, printed: 0)).all()
    assert found["train/low/0"].note == "ended well, and out/train/low/0 holds no result; do all nodes share this disk?"
    assert {found[name].state for name in PARTS[4:]} == {"blocked"}


def test_one_process_works_on_a_study(folder: Path, stub: Stub, cli) -> None:
    with locked(Path("out")):
        ran = cli("study", "study.yaml", "--out", "out")
    assert ran.exit_code == 2 and "out: another process is writing there" in ran.stderr and stub.ran == []


def test_status_and_dry_run_write_nothing(folder: Path, stub: Stub, cli) -> None:
    before = sorted(Path().rglob("*"))
    status, dry = cli("study", "study.yaml", "--status"), cli("study", "study.yaml", "--dry-run")
    assert status.exit_code == dry.exit_code == 0 and stub.ran == [] and sorted(Path().rglob("*")) == before
    assert "8 waiting" in status.stdout
    commands = [line for line in dry.stdout.splitlines() if line.startswith("vgb ")]
    assert commands[0] == (
        "vgb train sft --recipe runs/study/rates/parts/train/low/0/recipe.yaml --out runs/study/rates/train/low/0"
    )
    assert len(commands) == 8 and "--checkpoint runs/study/rates/train/high/1/checkpoint" in commands[-1]
