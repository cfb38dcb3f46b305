"""Every reader of a file, given files of every kind: data out, or one line that names the fault. Never anything else.

VGB_FUZZ=N tries N files with each reader instead of a few, drawn differently every time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from demos import demo, written
from fuzzing import changed_bytes, json_damage, outcome, yaml_damage
from hypothesis import HealthCheck, given, settings

from vla_gen_bench.assets import models, pack
from vla_gen_bench.episodes.draw import draw
from vla_gen_bench.episodes.manifest import check_manifest, write_manifest
from vla_gen_bench.episodes.suite import Protocol, Suite, load_suite, read_suite
from vla_gen_bench.leaderboard.entry import read_entry
from vla_gen_bench.policies.card import load_card
from vla_gen_bench.policies.openvla.checkpoint.tensors import open_checkpoint
from vla_gen_bench.policies.registry import parse_options
from vla_gen_bench.report.curves import load_trainings
from vla_gen_bench.resources import data_dir
from vla_gen_bench.study.declaration import read_study
from vla_gen_bench.train.demos.dataset import load
from vla_gen_bench.train.recipe import load_recipe, parse_changes, save_recipe
from vla_gen_bench.train.rl.ppo import PpoRecipe
from vla_gen_bench.train.sft.trainer import SftRecipe

ROOT = Path(__file__).resolve().parents[2]
TRIES = int(os.environ.get("VGB_FUZZ", 0))
FUZZ = settings(
    max_examples=TRIES or 12,
    derandomize=not TRIES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        make: Writes a sound folder; returns the file to damage.
        damage: Sound content -> strategy of damaged contents.
        read: Reads the folder the file is in.
    """

    make: Callable[[Path], Path]
    damage: Callable
    read: Callable[[Path], object]


def copied(source: Path, name: str | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / (name or source.name)
        path.write_bytes(source.read_bytes())
        return path

    return make


def read_and_draw(file: Path) -> None:
    suite = read_suite(file)
    suite.digest()
    for scenario in list(suite.scenarios.values())[:3]:
        draw(scenario, "builtin", suite.protocol.seeds[0], 0).digest()


def resolved(policy: str, kind: type) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_recipe(load_recipe(POLICIES / policy / "recipe.yaml", kind), folder)
        return folder / "recipe.yaml"

    return make


def manifest_folder(folder: Path) -> Path:
    return write_manifest(small_suite(folder), "builtin")


def check_the_manifest(file: Path) -> None:
    check_manifest(small_suite(file.parents[1]), "builtin")


def small_suite(folder: Path) -> Suite:
    suite = load_suite("vision")
    row = {"ind": suite.scenarios["ind"]}
    protocol = Protocol(episodes_per_seed=1, seeds=(0,))
    return suite.model_copy(update={"path": folder / "x.yaml", "protocol": protocol, "scenarios": row})


def demonstrations(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        written(folder, [demo(0), demo(1)])
        return next(folder.glob(name))

    return make


def dataset_of(depth: int) -> Callable[[Path], object]:
    return lambda file: load(file.parents[depth], pictures=False)


def tiny_glb(folder: Path) -> Path:
    text = json.dumps(
        {"images": [{"mimeType": "image/png", "bufferView": 0}], "bufferViews": [{"byteLength": 4}]}
    ).encode()
    text += b" " * (-len(text) % 4)
    path = folder / "a.glb"
    path.write_bytes(b"glTF" + bytes([2, 0, 0, 0, 255, 0, 0, 0]) + len(text).to_bytes(4, "little") + b"JSON" + text)
    return path


def tiny_pack(folder: Path) -> Path:
    path = folder / "pack.json"
    path.write_text(json.dumps({"format": 1, "world": "builtin", "catalog": "0", "files": {"a.png": "0" * 64}}))
    return path


def open_the_pack(file: Path) -> None:
    os.environ["VGB_BUILTIN_DIR"] = str(file.parent)
    try:
        pack.forget_opened()
        pack.open_pack("builtin")
    finally:
        del os.environ["VGB_BUILTIN_DIR"]
        pack.forget_opened()


def training(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for file in ("curve.csv", "recipe.yaml"):
            copied(POLICIES / "openvla-ppo" / file)(folder)
        return folder / name

    return make


def shards(folder: Path) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "1.safetensors"}}))
    return path


def safetensors(folder: Path) -> Path:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    return path


POLICIES, SUITES = data_dir() / "policies", data_dir() / "suites"
ENTRY = next((data_dir() / "leaderboard" / "entries").glob("openvla-ppo*.json"))
READERS = {
    "suite": Reader(copied(SUITES / "execution.yaml", "s.yaml"), yaml_damage, read_and_draw),
    "suite of the reference": Reader(copied(SUITES / "table1.yaml", "s.yaml"), yaml_damage, read_and_draw),
    "manifest": Reader(manifest_folder, json_damage, check_the_manifest),
    "card": Reader(copied(POLICIES / "openvla-ppo" / "card.yaml"), yaml_damage, load_card),
    "recipe of sft": Reader(resolved("openvla-sft", SftRecipe), yaml_damage, lambda f: load_recipe(f, SftRecipe)),
    "recipe of ppo": Reader(resolved("openvla-ppo", PpoRecipe), yaml_damage, lambda f: load_recipe(f, PpoRecipe)),
    "study": Reader(copied(ROOT / "examples" / "studies" / "presets.yaml"), yaml_damage, read_study),
    "entry": Reader(copied(ENTRY), json_damage, read_entry),
    "info.json": Reader(demonstrations("meta/info.json"), json_damage, dataset_of(1)),
    "vgb.json": Reader(demonstrations("meta/vgb.json"), json_damage, dataset_of(1)),
    "table of frames": Reader(demonstrations("data/*/*.parquet"), changed_bytes, dataset_of(2)),
    "table of episodes": Reader(demonstrations("meta/episodes/*/*.parquet"), changed_bytes, dataset_of(3)),
    "pack": Reader(tiny_pack, json_damage, open_the_pack),
    "model": Reader(tiny_glb, changed_bytes, lambda f: models.texture_pixels.__wrapped__(f)),
    "curve": Reader(training("curve.csv"), changed_bytes, lambda f: load_trainings([str(f.parent)])),
    "recipe of a curve": Reader(training("recipe.yaml"), yaml_damage, lambda f: load_trainings([str(f.parent)])),
    "index of shards": Reader(shards, json_damage, lambda f: open_checkpoint(f.parent)),
    "safetensors": Reader(safetensors, changed_bytes, lambda f: open_checkpoint(f.parent)),
    "policy option": Reader(
        copied(POLICIES / "hold" / "card.yaml"),
        changed_bytes,
        lambda f: parse_options([f"a={f.read_bytes().decode(errors='replace')}"]),
    ),
    "--set": Reader(
        copied(POLICIES / "hold" / "card.yaml"),
        changed_bytes,
        lambda f: parse_changes([f"a={f.read_bytes().decode(errors='replace')}"]),
    ),
}
UNSOUND = ("pack", "model", "safetensors", "index of shards")  # stubs, refused further on


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    file = reader.make(tmp_path)
    sound = file.read_bytes()
    assert name in UNSOUND or outcome(lambda: reader.read(file)) == "read"
    seen = {"read": 0, "refused": 0}

    @FUZZ
    @given(reader.damage(sound))
    def attempt(content: bytes) -> None:
        file.write_bytes(content)
        seen[outcome(lambda: reader.read(file))] += 1

    attempt()
    print(f"{name}: {seen['read']} read, {seen['refused']} refused")
    assert seen["refused"]
