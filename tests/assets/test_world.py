"""Worlds and their versions: what physics each has, and that results of two versions are never mixed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from report_logs import write_log
from sim import environment, spec_of

from vla_gen_bench.assets.generated import GENERATED, KINDS
from vla_gen_bench.assets.world import WORLDS, Physics, get_world
from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.open_log import check_identity
from vla_gen_bench.eval.replay import replay_episode
from vla_gen_bench.log.header import WorldInfo

REFERENCE = Physics(position_iterations=15, contact_offset=0.02)  # ManiSkill 3.0.1's, which the reference uses
FIRST = {"name": "builtin", "catalog": "2" * 16, "pack": "3" * 16}  # as logs of version 1 name the world
SECOND = {**FIRST, "version": "2"}
OUTCOMES = {"ind": [True, False]}


def log_in(world: dict[str, str], folder: Path) -> Path:
    return write_log(folder, OUTCOMES, policy=folder.name, change={"world": world})


def test_builtin_is_simulated_with_the_physics_of_its_version_2() -> None:
    env = environment("builtin", "none")
    env.reset(options={"spec": spec_of()})
    bodies = [thing.actor._bodies[0] for thing in env.things] + [link._bodies[0] for link in env.agent.robot.links]
    offsets = {round(shape.contact_offset, 6) for body in bodies for shape in body.collision_shapes}
    assert offsets == {0.005} and env.sim_config.scene_config.solver_position_iterations == 4
    assert get_world("builtin").label == "builtin v2"


def test_rl4vla_keeps_the_physics_of_the_reference_and_the_generated_worlds_share_another() -> None:
    assert Physics() == WORLDS["rl4vla"].physics == REFERENCE and WORLDS["rl4vla"].version == "1"
    assert WORLDS["pretrain"].physics == WORLDS["builtin"].physics


@pytest.mark.parametrize("world", GENERATED)
def test_a_generated_world_has_a_module_for_each_kind_and_its_catalogues_version(world: str) -> None:
    assert GENERATED[world] == load_catalog(world).version
    assert all(find_spec(f"vla_gen_bench.assets.{world}.{kind}") for kind in KINDS)


def test_a_log_without_a_version_is_of_the_first() -> None:
    assert WorldInfo(**FIRST).label == "builtin v1" and WorldInfo(**SECOND).label == "builtin v2"


def resume(world: dict[str, str], logged: dict[str, str]) -> None:
    check_identity(Path("log"), {"world": logged}, {"world": world})


def test_resume_refuses_a_log_of_another_version_of_the_world() -> None:
    with pytest.raises(UserError, match="of another run: world version is '1', now '2'; give another folder"):
        resume(SECOND, FIRST)
    resume({**FIRST, "version": "1"}, FIRST)  # rl4vla's logs from before versions go on


def test_reports_name_the_version_and_refuse_to_mix_two(cli, tmp_path: Path) -> None:
    first, second = log_in(FIRST, tmp_path / "first"), log_in(SECOND, tmp_path / "second")
    for folder, label in ((first, "builtin v1"), (second, "builtin v2")):
        ran = cli("report", folder, "--allow-partial")
        assert ran.exit_code == 0 and f"world {label}" in ran.stdout, ran.stderr
    mixed = cli("report", first, second, "--allow-partial")
    sides = f"{first} is on builtin (version 1), {second} is on builtin (version 2)"
    assert mixed.exit_code == 2 and f"the runs differ in world: {sides}; their numbers are never mixed" in mixed.stderr


def test_replay_refuses_a_log_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the log is of world builtin v1, this version .* simulates builtin v2"):
        replay_episode(log_in(FIRST, tmp_path / "log"), "ind/0/0")
