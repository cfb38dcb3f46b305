"""A policy runs the code of its own folder, whatever else has the same name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla_gen_bench.policies import importing

POLICY = """
import numpy as np
import helper
from vla_gen_bench.policies import ActionSpec

class Policy:
    '''Moves down at a speed of its own.'''
    action_spec = ActionSpec()
    speed = helper.SPEED
    def reset(self, instructions, seeds): pass
    def act(self, observation): return np.zeros((len(observation.instruction), 1, 7), np.float32)
"""
CARD = "name: {name}\ntitle: Acme\nsummary: Stands still\nfactory: policy:Policy\n"
ROOT = Path(__file__).resolve().parents[2]


def write_policy(folder: Path, speed: int, card: bool = True) -> Path:
    folder.mkdir()
    (folder / "policy.py").write_text(POLICY)
    (folder / "helper.py").write_text(f"SPEED = {speed}\n")
    if card:
        (folder / "card.yaml").write_text(CARD.format(name=folder.name))
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Two cards and a working directory, each with a module `policy` and a module `helper`."""
    write_policy(tmp_path / "card_a", 1)
    write_policy(tmp_path / "card_b", 2)
    write_policy(tmp_path / "here", 3, card=False)
    return tmp_path


def ran(places: Path, code: str) -> str:
    """Returns what a process in the working directory prints; like `python -c`, it finds modules there first."""
    script = f"from vla_gen_bench.policies.registry import load_policy, resolve\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=places / "here", capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return (done.stdout + done.stderr.strip().rpartition("\n")[2]).strip()


def test_a_card_s_own_module_is_loaded_not_one_of_the_working_directory(places: Path) -> None:
    assert ran(places, "print(load_policy('../card_b').speed)") == "2"
    assert ran(places, "print(load_policy('policy:Policy').speed)") == "3"


def test_a_worker_of_the_second_policy_runs_the_second_policy(places: Path) -> None:
    """The parent has looked at both; the child has its `sys.path`, as evaluation workers have."""
    (places / "here" / "both.py").write_text(
        "from multiprocessing import get_context\n"
        "from vla_gen_bench.policies.registry import load_policy, resolve\n"
        "def speed(ref): print(load_policy(ref).speed, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    for ref in ('../card_a', '../card_b', 'policy:Policy', '../card_a'):\n"
        "        resolve(ref).digest()\n"
        "        child = get_context('spawn').Process(target=speed, args=(ref,))\n"
        "        child.start(); child.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "both.py"], cwd=places / "here", capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == ["1", "2", "3", "1"], done.stderr


def test_the_digest_is_of_the_code_that_runs(places: Path) -> None:
    alone = ran(places, "print(resolve('../card_b').digest())")
    assert ran(places, "resolve('../card_a').digest(); print(resolve('../card_b').digest())") == alone
    (places / "here" / "helper.py").write_text("SPEED = 4\n")  # of no concern to the card
    assert ran(places, "print(resolve('../card_b').digest())") == alone
    (places / "card_b" / "helper.py").write_text("SPEED = 5\n")
    assert ran(places, "print(resolve('../card_b').digest())") != alone


@pytest.mark.parametrize(
    "first, second",
    [
        ("load_policy('../card_a')", "load_policy('../card_b')"),
        ("load_policy('policy:Policy')", "load_policy('../card_b')"),
        ("import policy", "load_policy('../card_b')"),
        ("load_policy('policy:Policy')", "import os; os.chdir('../card_b'); load_policy('policy:Policy')"),
    ],
)
def test_two_modules_of_one_name_are_refused_in_one_process(places: Path, first: str, second: str) -> None:
    said = ran(places, f"import sys; sys.path.pop(0); sys.path.append({str(places / 'here')!r})\n{first}\n{second}")
    if first.startswith("load_policy('policy"):
        said = ran(places, f"import sys; sys.path.pop(0)\n{first}\n{second}")
    assert "another module 'policy' is imported already" in said and "use a new process" in said


def test_installed_modules_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sqlite3", "tqdm", "own_module_of_a_card"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.delitem(sys.modules, "sqlite3", raising=False)
    importing.look_in(tmp_path)
    try:
        assert Path(importing.find_spec("own_module_of_a_card", None).origin).parent == tmp_path
        assert importing.find_spec("sqlite3", None).origin != str(tmp_path / "sqlite3.py")
        assert importing.find_spec("tqdm", None).origin != str(tmp_path / "tqdm.py")
    finally:
        importing.look_in(None)
    assert importing.find_spec("own_module_of_a_card", None) is None
