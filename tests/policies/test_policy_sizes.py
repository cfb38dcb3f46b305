"""How large a policy's model is: from its checkpoint's tensors or its card, without importing torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vla_gen_bench.policies.openvla.checkpoint.tensor_files import INDEX_FILE, SINGLE_FILE, count_weights
from vla_gen_bench.policies.registry import list_policies, resolve
from vla_gen_bench.policies.sizes import params_of

TENSORS = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((4,), np.float16), "steps": np.zeros((1,), np.int64)}


def test_weights_of_one_file_or_of_shards_are_counted(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    save_file(TENSORS, tmp_path / "one" / SINGLE_FILE)
    assert count_weights(tmp_path / "one") == 10  # 2 x 3 + 4; a counter is no weight
    (tmp_path / "two").mkdir()
    places = {}
    for place, (name, tensor) in enumerate(TENSORS.items()):
        save_file({name: tensor}, tmp_path / "two" / f"shard-{place}.safetensors")
        places[name] = f"shard-{place}.safetensors"
    (tmp_path / "two" / INDEX_FILE).write_text(json.dumps({"weight_map": places}))
    assert count_weights(tmp_path / "two") == 10
    (tmp_path / "two/shard-0.safetensors").unlink()
    assert count_weights(tmp_path / "two") is None


def test_packed_weights_are_not_counted(tmp_path: Path) -> None:
    save_file({"q": np.zeros((8, 8), np.uint8), "scale": np.zeros((8,), np.float32)}, tmp_path / SINGLE_FILE)
    assert count_weights(tmp_path) is None


def test_another_checkpoint_has_its_own_size_and_not_the_cards(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / SINGLE_FILE)
    card = resolve("openvla-ppo")
    assert params_of(card) == 1_029_760 and params_of(card, str(tmp_path)) == 10
    assert params_of(card, str(tmp_path / SINGLE_FILE)) is None and params_of(card, "owner/name") is None
    (tmp_path / "adapter").mkdir()
    save_file({"lora_A": np.zeros((1, 3), np.float32)}, tmp_path / "adapter/adapter_model.safetensors")
    (tmp_path / "adapter/adapter_config.json").write_text('{"base_model_name_or_path": ".."}')
    assert params_of(card, str(tmp_path / "adapter")) == 10


@pytest.mark.parametrize("name", ["openvla-base", "openvla-ppo", "openvla-sft", "openvla-warmup"])
def test_a_card_states_the_size_of_its_checkpoint(name: str) -> None:
    card = resolve(name)
    assert count_weights(card.checkpoint_path()) == card.params


def test_the_list_names_every_size_and_imports_no_torch() -> None:
    sizes = {row.name: row.params for row in list_policies()}
    assert (sizes["expert"], sizes["openvla-ppo"], sizes["openvla-7b-ppo"], sizes["openvla"]) == (
        0, 1_029_760, 7_541_237_184, None,
    )  # fmt: skip
    code = (
        "import sys; from vla_gen_bench.cli import vgb; vgb.main(['policies', 'list'], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert all(size in shown[name] for name, size in (("openvla-ppo", "1.03 M"), ("expert", "none"), ("openvla", "?")))
