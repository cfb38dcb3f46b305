"""The leaderboard: entries follow from logs, ranks from episodes, files from entries; an outsider can submit."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vla_gen_bench.assets.generated import KNOWN
from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.episodes.suite import draw, load_suite
from vla_gen_bench.errors import UserError
from vla_gen_bench.leaderboard.board import Board
from vla_gen_bench.leaderboard.entry import entry_text, parse_entry
from vla_gen_bench.leaderboard.page import page
from vla_gen_bench.leaderboard.validation import PAPER_SUITE
from vla_gen_bench.log.guard import locked

ROOT = Path(__file__).resolve().parents[2]
EPISODES = 160
SUITE = f"""
id: small
version: "1"
protocol: {{episodes_per_seed: {EPISODES}, seeds: [0]}}
scenarios:
  ind: {{dimension: ind}}
  far: {{dimension: execution, shift: {{layout: ring}}}}
  dim: {{dimension: vision, shift: {{table: unseen}}}}
"""
DECLARED = ("--algorithm", "sft", "--train-data", "bridge", "--weights", "finetuned", "--not-trained-on-suite")
SCRIPTED = ("--algorithm", "none", "--not-trained-on-suite")


@pytest.fixture(autouse=True)
def suites(tmp_path, monkeypatch):
    """`small` is found by its name, as an installed suite would be."""
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "small.yaml").write_text(SUITE)
    monkeypatch.setenv("VGB_SUITE_PATH", str(tmp_path / "suites"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "board" / "entries").mkdir(parents=True)
    return tmp_path / "board"


def header(suite, name: str) -> dict:
    spec = {"chunk": 1, "execute": None}
    hardware, versions = {"cpu": "test"}, {"vla-gen-bench": "0", "mani_skill": "3", "sapien": "3", "torch": "2"}
    session = {
        "started": "2026-01-02T03:04:05Z",
        "num_envs": 4,
        "versions": versions,
        "git": None,
        "hardware": hardware,
    }
    return {
        "suite": {"id": suite.id, "version": suite.version, "digest": suite.digest()},
        "policy": {"name": name, "ref": name, "digest": f"{name}-digest", "options": {}, "privileged": False},
        "world": {"name": "builtin", "catalog": load_catalog("builtin").digest(), "pack": "p"},
        "horizon": 80, "sessions": [session], "action_spec": spec, "decoding": {"temperature": 0.6},
        "backend": {"simulation": "physx_cpu", "rendering": "sapien_cpu"},
    }  # fmt: skip


def make_run(folder: Path, name: str = "acme", success=lambda scenario, index: True, **changes) -> Path:
    """A log of `small` whose outcomes are `success(scenario, index)`."""
    suite = load_suite("small")
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({**header(suite, name), **changes}))
    rows = [
        {
            "scenario": scenario.id, "seed": 0, "index": index, "status": "ok", "steps": 80,
            "spec_digest": draw(scenario, "builtin", 0, index).digest(),
            "success_at_end": success(scenario.id, index), "success_once": True,
        }
        for scenario in suite.scenarios.values() for index in range(EPISODES)
    ]  # fmt: skip
    write_rows(folder, rows)
    return folder


def write_rows(run: Path, rows: list[dict]) -> None:
    (run / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]


@pytest.fixture
def submit(cli, folder):
    def add(run: Path, *arguments: str, name: str = "Acme"):
        declared = arguments or DECLARED
        return cli("leaderboard", "add", run, "--policy-name", name, "--folder", folder, *declared)

    return add


def edit(folder: Path, id: str, *path: str, to) -> None:
    """Sets a field of an entry's file."""
    file = folder / "entries" / f"{id}.json"
    data = inner = json.loads(file.read_text())
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    file.write_text(json.dumps(data))


# ---- what is published -------------------------------------------------------------------------------------


def test_the_published_files_are_what_the_entries_give(cli):
    done = cli("leaderboard", "build", "--check")
    assert (done.exit_code, done.stdout) == (0, "as the entries give\n"), done.stderr


def test_the_paper_s_rows_reproduce_its_means():
    """Row means of Table 1 (SFT / RL): vision .642 / .766, semantics .540 / .728, execution .398 / .783."""
    with (ROOT / "leaderboard" / "leaderboard.csv").open() as file:
        lines = {(row["id"], row["cell"]): row for row in csv.DictReader(file)}
    for kind, *expected in (("vision", 0.642, 0.766), ("semantics", 0.540, 0.728), ("execution", 0.398, 0.783)):
        for name, value in zip(("sft", "ppo"), expected, strict=True):
            row = lines[f"paper-openvla-7b-{name}", f"mean_{kind}"]
            assert float(row["sr"]) == pytest.approx(value, abs=5e-4)
            assert (row["rank"], row["standing"]) == ("", "paper")
    assert lines["paper-openvla-7b-ppo", "ind"]["k_success_end"] == "180"


# ---- add ---------------------------------------------------------------------------------------------------


def test_an_added_entry_is_valid_and_carries_its_log(cli, submit, folder, tmp_path):
    done = submit(make_run(tmp_path / "run", success=lambda scenario, index: index % 4 > 0))
    assert done.exit_code == 0, done.stderr
    entry = json.loads((folder / "entries" / "acme-small-builtin.json").read_text())
    assert entry["results"]["far"] | {"low": 0, "high": 0} == {
        "planned": 160, "n": 160, "errors": 0, "success_at_end": 120, "success_once": 160, "rate": 0.75,
        "low": 0, "high": 0,
    }  # fmt: skip
    assert entry["policy"]["digest"] == "acme-digest" and entry["trust"]["date"] == "2026-01-02"
    assert sorted(path.name for path in (folder / "logs" / entry["id"]).iterdir()) == ["episodes.jsonl.gz", "run.json"]
    shutil.rmtree(tmp_path / "run")
    assert cli("leaderboard", "validate", "--folder", folder).stdout == "1 entries valid\n"


def test_adding_twice_asks_for_another_id(submit, tmp_path):
    run = make_run(tmp_path / "run")
    assert submit(run).exit_code == 0
    again = submit(run)
    assert again.exit_code == 2 and "there is such an entry already; give another --id" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--algorithm", "sft", "--weights", "shared", "--not-trained-on-suite"), "training.data: not declared"),
        (("--algorithm", "sft", "--train-data", "x", "--weights", "shared"), "training.trained_on_suite: not declared"),
        (("--algorithm", "sft", "--train-data", "x", "--not-trained-on-suite"), "training.weights: not declared"),
        ((*DECLARED, "--source", "reproduced"), "trust.reproduced_by: not given"),
        ((*DECLARED, "--seen", "object=carrot"), "expected KIND=ID,ID,...; did you mean 'objects'?"),
        ((*DECLARED, "--link", "javascript:alert(1)"), "policy.link"),
        ((*DECLARED, "--id", "../../evil"), "id"),
    ],
)
def test_what_is_not_declared_is_refused(submit, folder, tmp_path, arguments, message):
    done = submit(make_run(tmp_path / "run"), *arguments)
    assert done.exit_code == 2 and message in done.stderr
    assert not list(folder.rglob("*.json*"))


def spoiled(run: Path, what: str) -> None:
    rows = read_rows(run)
    if what == "missing":
        rows = rows[:-2]
    elif what == "twice":
        rows.append(rows[0])
    elif what == "errored":
        rows[3] |= {"status": "error", "success_at_end": None, "success_once": None}
    elif what == "other draw":
        rows[7]["spec_digest"] = "0" * 16
    elif what == "other scenario":
        rows.append({**rows[0], "scenario": "far + dim"})
    write_rows(run, rows)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "2 of 480 planned episodes missing: dim/0/158, dim/0/159"),
        ("twice", "1 of 480 planned episodes there twice: ind/0/0"),
        ("errored", "1 of 480 planned episodes errored: ind/0/3"),
        ("other draw", "1 of 480 planned episodes drawn differently: ind/0/7"),
        ("other scenario", "1 of 480 planned episodes not of the suite: far + dim/0/0"),
    ],
)
def test_episodes_that_are_not_as_planned_are_refused(submit, folder, tmp_path, what, message):
    run = make_run(tmp_path / "run")
    spoiled(run, what)
    done = submit(run)
    assert done.exit_code == 2 and message in done.stderr
    assert not list(folder.rglob("*.json*"))


def test_a_privileged_policy_is_refused(submit, tmp_path):
    policy = {**header(load_suite("small"), "oracle")["policy"], "privileged": True}
    done = submit(make_run(tmp_path / "run", policy=policy))
    assert done.exit_code == 2 and "policy 'oracle' is privileged: it reads the simulator's state" in done.stderr


def test_a_log_of_another_version_of_the_suite_is_refused(submit, tmp_path):
    other = {**header(load_suite("small"), "acme")["suite"], "digest": "1" * 16}
    done = submit(make_run(tmp_path / "run", suite=other))
    assert done.exit_code == 2 and f"suite digest: is {'1' * 16}, this checkout has" in done.stderr


CELL = {
    "planned": 192, "n": 192, "errors": 0, "success_at_end": 0, "success_once": None, "rate": 0.0, "low": 0.0,
    "high": 0.019616,
}  # fmt: skip


# ---- validate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("results", "far", "success_at_end"), 121, "results.far.success_at_end: is 121, the log gives 120"),
        (("results", "far", "success_once"), 159, "results.far.success_once: is 159, the log gives 160"),
        (("results", "far", "rate"), 0.76, "results.far.rate: is 0.76, 120/160 gives 0.75"),
        (("results", "far", "low"), 0.7, "results.far.low: is 0.7, 120/160 gives 0.67"),
        (("results", "far", "n"), 150, "results.far: 150 of 160 episodes finished"),
        (("suite", "digest"), "0" * 16, f"suite.digest: is {'0' * 16}, this checkout has"),
        (("suite", "catalog"), "0" * 16, f"suite.catalog: is {'0' * 16}, this checkout has"),
        (("policy", "digest"), "x", "policy.digest: is x, the log gives acme-digest"),
        (("protocol", "decoding"), None, "protocol.decoding: is None, the log gives {'temperature': 0.6}"),
        (("protocol", "image_codec"), "jpeg q75", "protocol.image_codec: is jpeg q75, the log gives none"),
        (("environment", "sapien"), "4", "environment.sapien: is 4, the log gives 3"),
        (("environment", "num_envs"), 1, "environment.num_envs: is 1, the log gives 4"),
        (("trust", "log_digest"), "x", "trust.log_digest: is x, the log gives"),
        (("trust", "source"), "paper", "suite.id: is small, a paper's row has table1 (paper)"),
        (("training", "data"), [], "training.data: not declared"),
        (("id",), "other", "id: is 'other'; expected 'acme-small-builtin', the file's name"),
        (("training", "dta"), [], "training.dta: unknown key 'dta'; did you mean 'data'?"),
        (("results", "far", "sucess_once"), 1, "unknown key 'sucess_once'; did you mean 'success_once'?"),
        (("results", "far", "n"), 160.5, "results.far.n"),
    ],
)
def test_an_edited_entry_is_named(cli, submit, folder, tmp_path, path, to, message):
    submit(make_run(tmp_path / "run", success=lambda scenario, index: index % 4 > 0))
    edit(folder, "acme-small-builtin", *path, to=to)
    done = cli("leaderboard", "validate", "--folder", folder)
    assert done.exit_code == 2 and message in done.stderr
    assert all(line.startswith("error: ") and "acme-small-builtin.json:" in line for line in done.stderr.splitlines())
    assert cli("leaderboard", "build", "--folder", folder).exit_code == 2


def test_an_edited_log_is_named(cli, submit, folder, tmp_path):
    """One failure turned into a success: the count, the rate, the interval and the digest no longer fit."""
    submit(make_run(tmp_path / "run", success=lambda scenario, index: index > 0))
    rows = read_rows(tmp_path / "run")
    rows[0]["success_at_end"] = True
    log = folder / "logs" / "acme-small-builtin"
    (log / "episodes.jsonl.gz").unlink()
    write_rows(log, rows)
    lines = cli("leaderboard", "validate", "--folder", folder).stderr
    assert "results.ind.success_at_end: is 159, the log gives 160" in lines and "trust.log_digest" in lines


def test_a_missing_log_is_named(cli, submit, folder, tmp_path):
    submit(make_run(tmp_path / "run"))
    shutil.rmtree(folder / "logs")
    assert "no evaluation log there" in cli("leaderboard", "validate", "--folder", folder).stderr


def test_a_log_behind_a_url_is_checked_where_it_is_at_hand(cli, submit, folder, tmp_path):
    run = make_run(tmp_path / "run")
    assert submit(run, *DECLARED, "--log-url", "https://example.org/log.tar.gz").exit_code == 0
    assert not (folder / "logs").exists()
    done = cli("leaderboard", "validate", "--folder", folder)
    assert done.exit_code == 0 and "give --log acme-small-builtin=DIR" in done.stderr
    given = ("leaderboard", "validate", "--folder", folder, "--log", f"acme-small-builtin={run}")
    assert cli(*given).exit_code == 0 and not cli(*given).stderr
    spoiled(run, "missing")
    assert "episodes missing" in cli(*given).stderr


def test_unknown_ids_are_suggested(cli, submit, folder, tmp_path):
    submit(make_run(tmp_path / "run"))
    done = cli("leaderboard", "validate", "acme-smal-builtin", "--folder", folder)
    assert done.exit_code == 2 and "entries: no entry 'acme-smal-builtin'; did you mean" in done.stderr
    assert "acme-smal-builtin.json" not in done.stderr  # no such file


def test_entries_with_other_assets_are_ranked_apart(submit, folder, tmp_path):
    """`vgb report` refuses to compare them too. The usual ones need no mention."""
    for name, pack in (("one", KNOWN["builtin"].stated), ("two", "other"), ("three", KNOWN["builtin"].stated)):
        world = {**header(load_suite("small"), name)["world"], "pack": pack}
        assert submit(make_run(tmp_path / name, name, world=world), name=name).exit_code == 0
    groups = Board(folder).groups()
    assert {group.assets: len(listings) for group, listings in groups.items()} == {"": 2, "other": 1}
    assert page(groups).count("Other asset files than usual (digest other). Ranked apart.") == 1


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("results",), {"my_row": CELL}, "results.my_row: no such scenario; expected some of: ind, "),
        (("results", "ind"), {**CELL, "planned": 0, "n": 0}, "results.ind.n: is 0; expected at least one episode"),
        (("protocol", "sensors"), {"cameras": 5}, "protocol.sensors: cameras: input should be a valid"),
        (("protocol", "sensors"), {"camera": ["wrist"]}, "protocol.sensors: camera: "),
    ],
)
def test_what_cannot_be_built_is_not_valid(cli, folder, path, to, message):
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    name = "paper-openvla-7b-ppo"
    shutil.copy(ROOT / "leaderboard" / "entries" / f"{name}.json", folder / "entries")
    edit(folder, name, *path, to=to)
    for command in ("validate", "build"):
        done = cli("leaderboard", command, "--folder", folder)
        assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.stderr


# ---- ranks -------------------------------------------------------------------------------------------------


def listing(folder: Path, name: str):
    found = [item for items in Board(folder).groups().values() for item in items]
    return next(item for item in found if item.entry.policy.name == name)


def test_means_are_over_the_shifted_rows(submit, folder, tmp_path):
    """far 40/160, dim 120/160: mean OOD 0.5; IND does not count."""
    rates = {"ind": 160, "far": 40, "dim": 120}
    submit(make_run(tmp_path / "run", success=lambda scenario, index: index < rates[scenario]))
    means = listing(folder, "Acme").means
    assert {name: mean.value for name, mean in means.items()} == {
        "ind": 1.0,
        "execution": 0.25,
        "vision": 0.75,
        "ood": 0.5,
    }
    assert means["ood"].episodes == 320


def test_ties_share_a_letter_and_a_rank(submit, folder, tmp_path):
    """First and second differ in one episode of 320, third in 80: only the third is worse beyond doubt."""
    submit(make_run(tmp_path / "a", "a", lambda scenario, index: index < 120), name="First")
    submit(make_run(tmp_path / "b", "b", lambda s, i: i < 120 and (s, i) != ("far", 0)), name="Second")
    submit(make_run(tmp_path / "c", "c", lambda scenario, index: index < 80), name="Third")
    places = {name: listing(folder, name).place for name in ("First", "Second", "Third")}
    assert {name: (place.rank, place.letters) for name, place in places.items()} == {
        "First": (1, "a"),
        "Second": (1, "a"),
        "Third": (3, "b"),
    }


def test_training_on_what_is_held_out_flags_and_unranks(submit, folder, tmp_path):
    held_out = load_catalog("builtin").ids("objects", "unseen")[:2]
    seen = f"objects=carrot,{','.join(held_out)}"
    assert submit(make_run(tmp_path / "run"), *DECLARED, "--seen", seen).exit_code == 0
    item = listing(folder, "Acme")
    assert item.flags == [f"saw 2 of 9 unseen objects: {', '.join(sorted(held_out))}"]
    assert (item.standing, item.place) == ("flagged", None)


def test_training_on_the_train_pools_is_no_flag(submit, folder, tmp_path):
    trained = ",".join(load_catalog("builtin").ids("objects", "train"))
    submit(make_run(tmp_path / "run"), *DECLARED, "--seen", f"objects={trained}")
    item = listing(folder, "Acme")
    assert not item.flags and item.standing == "ranked"


def test_the_newest_of_the_same_checkpoint_supersedes(submit, folder, tmp_path):
    submit(make_run(tmp_path / "old"))
    sessions = header(load_suite("small"), "acme")["sessions"]
    newer = [{**sessions[0], "started": "2026-03-01T00:00:00Z"}]
    submit(make_run(tmp_path / "new", sessions=newer), *DECLARED, "--id", "acme-2", name="Acme again")
    assert listing(folder, "Acme").standing == "superseded by acme-2"
    assert listing(folder, "Acme again").standing == "ranked"


def test_another_hub_checkpoint_supersedes_nothing(submit, folder, tmp_path):
    """Both run the same card with another `checkpoint`; neither has a digest, for the hub pins it."""
    for name in ("one", "two"):
        policy = {**header(load_suite("small"), "acme")["policy"], "options": {"checkpoint": f"hub/{name}"}}
        submit(make_run(tmp_path / name, policy=policy), *DECLARED, "--id", name, name=name)
    assert [listing(folder, name).standing for name in ("one", "two")] == ["ranked", "ranked"]


def test_where_a_local_checkpoint_lay_is_left_out(submit, folder, tmp_path):
    given = {"options": {"checkpoint": "/home/me/acme", "temperature": 0.6}, "checkpoint": "c0ffee"}
    policy = header(load_suite("small"), "acme")["policy"] | given
    submit(make_run(tmp_path / "run", policy=policy))
    assert listing(folder, "Acme").entry.policy.options == {"temperature": 0.6}


def test_a_paper_s_row_is_alone_and_unranked(submit, folder, tmp_path):
    submit(make_run(tmp_path / "run"))
    shutil.copy(ROOT / "leaderboard" / "entries" / "paper-openvla-7b-ppo.json", folder / "entries")
    groups = Board(folder).groups()
    assert [(group.world, group.suite, len(items)) for group, items in groups.items()] == [
        ("builtin", "small", 1),
        ("rl4vla", PAPER_SUITE, 1),
    ]
    assert groups.popitem()[1][0].place is None


def test_versions_of_a_world_stand_apart_newest_first_and_supersede_nothing(submit, folder, tmp_path):
    world = header(load_suite("small"), "acme")["world"]
    assert "version" not in world, "as logs of version 1 have it"
    submit(make_run(tmp_path / "first"))
    submit(make_run(tmp_path / "second", world={**world, "version": "2"}))
    groups = Board(folder).groups()
    assert [(group.place, [item.entry.id for item in items]) for group, items in groups.items()] == [
        ("builtin v2", ["acme-small-builtin-v2"]),
        ("builtin v1", ["acme-small-builtin"]),
    ]
    assert {item.standing for items in groups.values() for item in items} == {"ranked"}
    files = Board(folder).build()
    page = files[folder / "site" / "index.html"]
    assert page.index("small in world builtin v2") < page.index("small in world builtin v1")
    rows = csv.DictReader(files[folder / "leaderboard.csv"].splitlines())
    assert {(row["id"], row["suite.world_version"]) for row in rows} == {
        ("acme-small-builtin-v2", "2"),
        ("acme-small-builtin", "1"),
    }


def test_an_entry_cannot_claim_another_version_than_its_log(cli, submit, folder, tmp_path):
    submit(make_run(tmp_path / "run"))
    edit(folder, "acme-small-builtin", "suite", "world_version", to="2")
    done = cli("leaderboard", "validate", "--folder", folder)
    assert done.exit_code != 0 and "suite.world_version: is 2, the log gives 1" in done.stderr


# ---- build -------------------------------------------------------------------------------------------------


def test_two_writers_of_one_leaderboard_are_refused(cli, folder, tmp_path):
    run = make_run(tmp_path / "run")
    with locked(folder):
        for command in (
            ("add", run, "--policy-name", "acme", *DECLARED, "--folder", folder),
            ("build", "--folder", folder),
        ):
            ran = cli("leaderboard", *command)
            assert ran.exit_code == 2 and "board: another process is writing there" in ran.stderr
    assert [path.name for path in folder.rglob("*")] == ["entries"]


def test_an_entry_is_written_after_its_log(cli, folder, tmp_path, monkeypatch):
    """A process that is killed in between leaves a log that no entry names, and the same command works again."""
    written = []
    monkeypatch.setattr("vla_gen_bench.leaderboard.board.replace_file", lambda path, content: written.append(path.name))
    ran = cli("leaderboard", "add", make_run(tmp_path / "run"), "--policy-name", "acme", *DECLARED, "--folder", folder)
    assert ran.exit_code == 0 and written == ["episodes.jsonl.gz", "run.json", "acme-small-builtin.json"]


def test_build_then_check_then_drift(cli, submit, folder, tmp_path):
    submit(make_run(tmp_path / "run"))
    assert cli("leaderboard", "build", "--folder", folder, "--check").exit_code == 1
    assert cli("leaderboard", "build", "--folder", folder).exit_code == 0
    assert cli("leaderboard", "build", "--folder", folder, "--check").exit_code == 0
    page = folder / "site" / "index.html"
    page.write_text(page.read_text().replace("Acme", "Best"))
    stale = cli("leaderboard", "build", "--folder", folder, "--check")
    assert stale.exit_code == 1 and f"{page}: is not what the entries give" in stale.stderr


def test_names_cannot_break_the_page(cli, submit, folder, tmp_path):
    submit(make_run(tmp_path / "run"), *DECLARED, "--id", "x", "--notes", "</script><b>", name="<img src=x onerror=1>")
    cli("leaderboard", "build", "--folder", folder)
    page = (folder / "site" / "index.html").read_text()
    assert "<img" not in page and "</script><b>" not in page
    assert "&lt;img src=x onerror=1&gt;" in page


def test_every_row_of_the_sheet_carries_what_makes_it_credible(cli, submit, folder, tmp_path):
    submit(make_run(tmp_path / "run"))
    cli("leaderboard", "build", "--folder", folder)
    with (folder / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == ["ind", "far", "dim", "mean_execution", "mean_vision", "mean_ood"]
    wanted = ("suite.digest", "protocol.manifest_digest", "policy.digest", "policy.action_spec_digest", "sr_lo",
              "trust.log_digest", "training.data", "environment.sapien", "protocol.decoding")  # fmt: skip
    assert all(row[name] for row in rows for name in wanted)
    assert {row["standing"] for row in rows} == {"ranked"}
    ranks = {row["cell"]: (row["rank"], row["letters"]) for row in rows}  # said once, of the mean it is about
    assert ranks.pop("mean_ood") == ("1", "a") and set(ranks.values()) == {("", "")}


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium (apt-get install chromium)")
def test_the_page_sorts_filters_and_folds_out(cli, submit, folder, tmp_path):
    """Runs the page's own scripts in a browser and reads what they made of it."""
    submit(make_run(tmp_path / "a", "a", lambda scenario, index: index < 120), name="First")
    submit(make_run(tmp_path / "b", "b", lambda scenario, index: index < 80), name="Second")
    shutil.copy(ROOT / "leaderboard" / "entries" / "paper-openvla-7b-ppo.json", folder / "entries")
    cli("leaderboard", "build", "--folder", folder)
    script = """<script>
      const shown = () => [...document.querySelectorAll("tbody.entry")].filter(b => b.offsetParent).map(
        b => b.querySelector(".name").textContent).join("|");
      const out = [shown()];
      document.querySelectorAll("th button")[2].click(); document.querySelectorAll("th button")[2].click();
      out.push(shown());
      const world = document.querySelector("select[name=world]");
      world.value = "rl4vla v1"; world.dispatchEvent(new Event("change")); out.push(shown());
      document.querySelector("section:not([hidden]) .name").click();
      out.push(document.querySelectorAll(".more:not([hidden])").length);
      document.title = out.join("#");
    </script>"""
    page = (folder / "site" / "index.html").read_text()
    (tmp_path / "page.html").write_text(page.replace("</body>", script + "</body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{tmp_path}/page.html"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    title = re.search("<title>(.*?)</title>", dom)[1]
    assert title == "First|Second|OpenVLA 7B, PPO#Second|First|OpenVLA 7B, PPO#OpenVLA 7B, PPO#1"


# ---- the outsider ------------------------------------------------------------------------------------------


def test_an_outsider_submits_a_third_party_policy(cli, folder, tmp_path, monkeypatch):
    """As leaderboard/README.md says: evaluate, add, validate, build. Four episodes are shown, and not ranked."""
    text = SUITE.replace(f"episodes_per_seed: {EPISODES}", "episodes_per_seed: 2, horizon: 40")
    text = re.sub("  dim:.*\n", "", text).replace("id: small", "id: tiny")
    (tmp_path / "suites" / "tiny.yaml").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "policies" / "example_plugin" / "src"))
    monkeypatch.syspath_prepend(ROOT / "policies" / "example_plugin" / "src")
    run = tmp_path / "run"
    policy = "vgb_example_policy.servo:ServoPolicy"
    done = cli("eval", "--policy", policy, "--suite", "tiny", "--workers", "1", "--out", run)
    assert done.exit_code == 0, done.stderr
    added = cli("leaderboard", "add", run, "--policy-name", "Example servo", "--folder", folder, *SCRIPTED)
    assert added.exit_code == 0, added.stderr
    assert cli("leaderboard", "validate", "--folder", folder).stdout == "1 entries valid\n"
    assert cli("leaderboard", "build", "--folder", folder).exit_code == 0
    item = listing(folder, "Example servo")
    assert (item.standing, item.place) == ("too few episodes", None)
    page = (folder / "site" / "index.html").read_text()
    assert "not ranked: too few episodes" in page and "none (scripted)" in page


def test_an_entry_survives_its_file():
    path = ROOT / "leaderboard" / "entries" / "paper-openvla-7b-sft.json"
    entry = parse_entry(json.loads(path.read_text()), "here:")
    assert entry_text(entry) == path.read_text()
    with pytest.raises(UserError, match="here: polcy: unknown key 'polcy'; did you mean 'policy'?"):
        parse_entry({"polcy": 1}, "here:")
