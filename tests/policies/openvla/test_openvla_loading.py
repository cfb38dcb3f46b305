"""Checkpoints: written, read back, and every kind of damage named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vla_gen_bench.policies.openvla.checkpoint import adapters, hub
from vla_gen_bench.policies.openvla.checkpoint.config_file import config_fields, parse_config, size
from vla_gen_bench.policies.openvla.checkpoint.dead import dead_shapes
from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_model, new_tokenizer
from vla_gen_bench.policies.openvla.checkpoint.infer import guess_heads, infer_tower
from vla_gen_bench.policies.openvla.checkpoint.loading import load
from vla_gen_bench.policies.openvla.checkpoint.saving import save
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import PromptTokenizer
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model import lora
from vla_gen_bench.policies.openvla.model.value import ValueHead

safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra 'vla': safetensors")
pytest.importorskip("tokenizers", reason="needs the extra 'vla': tokenizers")

STATS = {"action": {"q01": [-0.03] * 7, "q99": [0.03] * 7, "mask": [True] * 6 + [False]}}
EMBEDDING = "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico checkpoint in several shards, with the dead tensors of its towers."""
    folder = tmp_path_factory.mktemp("pico")
    model = new_model("pico")
    model.dead = {name: torch.ones(shape) for name, shape in dead_shapes(model.config).items()}
    save(folder, model, new_tokenizer(model.config), ValueHead(32, "hn"), shard_bytes=200_000)
    return folder


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[0]


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = safetensors.load_file(file)
    change(tensors)
    safetensors.save_file(tensors, file)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_saving_and_loading_gives_the_same_model(checkpoint: Path) -> None:
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    loaded, original = load(checkpoint), new_model("pico")
    assert loaded.config.acting == original.config.acting
    assert loaded.config.vision == original.config.vision
    found, expected = loaded.model.state_dict(), original.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert loaded.model.dead.keys() == dead_shapes(original.config).keys()
    assert loaded.value_head is not None and loaded.value_head.source == "hn"
    assert PromptTokenizer.from_folder(checkpoint, loaded.config).prompt("put a on b")[0] == 1


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    """Eight times, because metadata of two keys was written in one of two orders at random."""
    config = size("pico")
    model, head = new_model(config), ValueHead(config.text.width, "h0")
    for number in range(8):
        save(tmp_path / str(number), model, value_head=head)
    files = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in tmp_path.iterdir()]
    assert "value_head.safetensors" in files[0] and all(written == files[0] for written in files)


def test_saving_over_shards_leaves_none_behind(copy: Path) -> None:
    loaded = load(copy)
    save(copy, loaded.model, dtype=torch.bfloat16)
    assert [path.name for path in copy.glob("model*")] == ["model.safetensors"]
    assert load(copy, dtype=None).model.dtype == torch.bfloat16
    assert load(copy).model.dtype == torch.float32


def test_weights_as_stored_stay_mapped_from_the_file(copy: Path) -> None:
    """Linux lists the mapping; a read into memory would not be there."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc/self/maps")
    loaded = load(copy, dtype=None)
    assert str(shard(copy)) in maps.read_text()
    assert loaded.model.dtype == torch.float32


def test_dead_tensors_may_be_absent(copy: Path) -> None:
    loaded = load(copy)
    dead = sorted(loaded.model.dead)
    del loaded.model.dead[dead[0]]
    save(copy, loaded.model)
    assert sorted(load(copy).model.dead) == dead[1:]
    loaded.model.dead.clear()
    save(copy, loaded.model)
    assert load(copy).model.dead == {}


def test_an_oft_checkpoint_keeps_how_it_acts(tmp_path: Path) -> None:
    config = acting_as(size("pico"), decoding="parallel", attention="bidirectional", chunk=4, unnorm_key="x")
    save(tmp_path, new_model(config))
    assert load(tmp_path).config.acting == config.acting
    with pytest.raises(CheckpointError, match="chunk 4 .* needs decoding: parallel"):
        acting_as(size("pico"), chunk=4)


def test_missing_tensors_are_named(copy: Path) -> None:
    loaded = load(copy)
    state = {**loaded.model.state_dict(), **loaded.model.dead}
    (copy / "model.safetensors.index.json").unlink()
    del state[EMBEDDING]
    safetensors.save_file(state, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"1 missing tensors: {EMBEDDING}"):
        load(copy)
    safetensors.save_file(
        {**state, EMBEDDING: torch.zeros(704, 32), "extra.weight": torch.zeros(1)}, copy / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match="1 unexpected tensors: extra.weight"):
        load(copy)
    safetensors.save_file({**state, EMBEDDING: torch.zeros(640, 32)}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{EMBEDDING}: has shape \[640, 32\]; expected \[704, 32\]"):
        load(copy)


def test_a_truncated_shard_is_named(copy: Path) -> None:
    file = shard(copy)
    size_ = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size_ - 1000)
    with pytest.raises(
        CheckpointError, match=rf"{file.name}: truncated: {size_ - 1000} bytes, its header says {size_}"
    ):
        load(copy)
    with file.open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(CheckpointError, match=f"{file.name}: truncated in its header"):
        load(copy)
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{file.name}: "):
        load(copy)


def test_a_missing_shard_is_named(copy: Path) -> None:
    gone = shard(copy)
    gone.unlink()
    with pytest.raises(CheckpointError, match=f"{gone.name}: no such file; the checkpoint is incomplete"):
        load(copy)


def test_an_index_that_disagrees_with_its_shards_is_named(copy: Path) -> None:
    rewrite(shard(copy), lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(CheckpointError, match="holds extra, which .* does not place there"):
        load(copy)
    rewrite(shard(copy), lambda tensors: (tensors.pop("extra"), tensors.popitem()))
    with pytest.raises(CheckpointError, match="lacks the tensor"):
        load(copy)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(copy: Path, bad: float) -> None:
    file = shard(copy)
    name = next(iter(safetensors.load_file(file)))
    rewrite(file, lambda tensors: tensors[name].view(-1)[0].fill_(bad))
    with pytest.raises(CheckpointError, match=f"{file.name}: {name}: .* of .* values; the checkpoint is damaged"):
        load(copy)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rope_scale": 1}, "unknown field 'rope_scale'"),
        ({"n_action_bin": 256}, "unknown field 'n_action_bin'; did you mean 'n_action_bins'"),
        ({"n_action_bins": 128}, "n_action_bins: 128 is not supported; expected 256"),
        ({"use_fused_vision_backbone": False}, "use_fused_vision_backbone: false is not supported"),
        ({"image_resize_strategy": "stretch"}, "image_resize_strategy: 'stretch'"),
        ({"text_config": {"hidden_act": "relu"}}, "text_config: hidden_act: .*relu.* is not supported"),
        ({"text_config": {"vocab": 3}}, "text_config: unknown field 'vocab'; did you mean 'vocab_size'"),
        ({"text_config": {"hidden_size": 33}}, "hidden_size 33, 32 heads"),
        ({"text_config": {"head_dim": 64}}, "head_dim: 64 is not supported; expected 128"),
        ({"text_config": {"rope_scaling": {"rope_type": "linear"}}}, 'rope_type: "linear" is not supported'),
        ({"text_config": {"rope_parameters": {"type": "yarn"}}}, 'rope_parameters: type: "yarn" is not supported'),
        ({"text_config": {"rope_parameters": {"factor": 2.0}}}, "rope_parameters: unknown field 'factor'"),
        ({"text_config": {"rope_parameters": {"partial_rotary_factor": 0.5}}}, "partial_rotary_factor: 0.5 is not"),
        (
            {"text_config": {"rope_parameters": {"rope_theta": [1]}}},
            r"rope_theta: expected a number above 0, got \[1\]",
        ),
        ({"text_config": {"rope_parameters": 3}}, "rope_parameters: expected a mapping, got 3"),
        (
            {"text_config": {"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 5e5}}},
            "they differ: rope_theta 10000.0, rope_parameters.rope_theta 500000.0",
        ),
        ({"quantization_config": {"load_in_4bit": True}}, "unknown field 'quantization_config'"),
        ({"text_config": []}, "text_config: expected a mapping"),
        ({"vla_gen_bench": {"chunks": 4}}, "vla_gen_bench: unknown field 'chunks'; did you mean 'chunk'"),
        ({"image_sizes": [32]}, "expected two entries each"),
        ({"pad_token_id": "640"}, "pad_token_id: expected a whole number"),
    ],
)
def test_config_mistakes_are_named(changes: dict, message: str) -> None:
    fields = {**size("7b").fields, **changes}
    with pytest.raises(CheckpointError, match=message):
        parse_config(fields, "config.json")


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_rotary_fields_as_transformers_5_writes_them(key: str) -> None:
    text = {**size("7b").fields["text_config"], key: {"rope_type": "default", "rope_theta": 5e5}}
    config = parse_config({**size("7b").fields, "text_config": text}, "config.json")
    assert config.text == replace(size("7b").text, rope_theta=5e5)
    again = parse_config(config_fields(config), "config.json")
    assert again.text == config.text


def test_a_config_written_out_in_full_by_the_installed_transformers() -> None:
    """Version 5 writes every field, version 4 those that differ from its defaults."""
    transformers = pytest.importorskip("transformers", reason="needs the extra 'vla': transformers")
    text = transformers.LlamaConfig(vocab_size=32064, pad_token_id=32000).to_dict()
    fields = {**size("7b").fields, **transformers.PretrainedConfig().to_diff_dict(), "model_type": "openvla"}
    assert parse_config({**fields, "text_config": text}, "config.json").text == size("7b").text


def test_heads_that_contradict_a_published_tower_are_refused() -> None:
    with pytest.raises(CheckpointError, match="vision_heads: 8 given; vit_large_patch14_reg4_dinov2.lvd142m has 16"):
        parse_config(size("7b").fields, "config.json", heads=(8, 16))


def test_an_unknown_tower_is_refused_where_no_tensors_tell() -> None:
    with pytest.raises(CheckpointError, match="timm_model_ids: unknown tower 'vit_x'"):
        parse_config({**size("7b").fields, "timm_model_ids": ["vit_x", "vit_x"]}, "config.json")


@pytest.mark.parametrize("name", ["pico", "nano", "nano-96"])
@pytest.mark.parametrize("dead", [True, False])
def test_the_size_of_a_tower_is_read_off_its_tensors(name: str, dead: bool) -> None:
    config = size(name)
    shapes = {key: tuple(tensor.shape) for key, tensor in new_model(config).state_dict().items()}
    shapes |= dead_shapes(config) if dead else {}
    read = [infer_tower(shapes, place, config.image, tower.heads) for place, tower in enumerate(config.vision)]
    assert read == list(config.vision)


@pytest.mark.parametrize("width, heads", [(384, 6), (192, 3), (64, 4), (48, 4), (54, 3)])
def test_unknown_heads_are_guessed_with_a_warning(width: int, heads: int) -> None:
    with pytest.warns(UserWarning, match=f"heads unknown, {heads} taken; say vision_heads"):
        assert guess_heads(width) == heads


def test_a_foreign_config_is_written_back_with_its_own_fields() -> None:
    fields = {**size("7b").fields, "hf_llm_id": "meta-llama/Llama-2-7b-hf", "norm_stats": {"x": STATS}}
    again = config_fields(parse_config(fields, "config.json"))
    assert {key: again[key] for key in fields} == fields
    read, reread = (replace(parse_config(given, "config.json"), fields={}) for given in (fields, again))
    assert read == reread


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither model.safetensors nor"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match="no config.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json:1: not JSON"):
        load(tmp_path)


def test_a_tokenizer_that_is_missing_or_broken_is_named(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer.json: cannot be read"):
        PromptTokenizer.from_folder(copy, size("pico"))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer.json"):
        PromptTokenizer.from_folder(copy, size("pico"))


def test_an_adapter_finds_its_base_and_brings_its_statistics(checkpoint: Path, tmp_path: Path) -> None:
    model = lora.add_lora(load(checkpoint).model, lora.LoraConfig(4), torch.Generator())
    adapters.save_adapter(model, tmp_path, lora.LoraConfig(4), base=str(checkpoint))
    (tmp_path / "dataset_statistics.json").write_text(json.dumps({"mine": STATS}))
    torch.save({"vh": ValueHead(32).state_dict()}, tmp_path / "training_state.pt")
    loaded = load(tmp_path)
    assert loaded.base == checkpoint and "mine" in loaded.config.norm_stats
    assert loaded.value_head is not None
    with pytest.raises(CheckpointError, match="unmerged adapter"):
        save(tmp_path / "full", load(tmp_path, merge=False).model)


def test_an_adapter_without_a_base_says_what_to_give(tmp_path: Path) -> None:
    model = lora.add_lora(new_model("pico"), lora.LoraConfig(4), torch.Generator())
    adapters.save_adapter(model, tmp_path, lora.LoraConfig(4))
    with pytest.raises(CheckpointError, match="does not name its base model; give base="):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"use_dora": True}, "use_dora: True is not supported"),
        ({"target_modules": "all-linear"}, "target_modules: expected a list"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"r": None}, "r: missing"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(checkpoint: Path, tmp_path: Path, changes: dict, message: str) -> None:
    model = lora.add_lora(new_model("pico"), lora.LoraConfig(4), torch.Generator())
    adapters.save_adapter(model, tmp_path, lora.LoraConfig(4), base=str(checkpoint))
    edit(tmp_path / "adapter_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_an_incomplete_or_foreign_adapter_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    model = lora.add_lora(new_model("pico"), lora.LoraConfig(4), torch.Generator())
    adapters.save_adapter(model, tmp_path, lora.LoraConfig(4), base=str(checkpoint))
    weights = tmp_path / "adapter_model.safetensors"
    name = "base_model.model.projector.fc1.lora_B.weight"
    copy_ = "base_model.model.language_model.lm_head.base_layer.weight"
    rewrite(weights, lambda tensors: tensors.update({copy_: torch.zeros(704, 32)}))
    with pytest.raises(CheckpointError, match="belongs to another base"):
        load(tmp_path)
    rewrite(weights, lambda tensors: (tensors.pop(copy_), tensors.pop(name)))
    with pytest.raises(CheckpointError, match=f"missing tensor {name}"):
        load(tmp_path)
    rewrite(weights, lambda tensors: tensors.update({"base_model.model.nothing.lora_A.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="unexpected tensor base_model.model.nothing"):
        load(tmp_path)


def test_an_option_that_does_not_apply_is_refused_not_ignored(checkpoint: Path, tmp_path: Path) -> None:
    """A log would record it as if it had been used."""
    commit = "0" * 40
    with pytest.raises(CheckpointError, match="base: .* is a full checkpoint, no adapter; leave base out"):
        load(checkpoint, base=checkpoint)
    with pytest.raises(CheckpointError, match="revision: .* is a folder, and a revision is a commit on the hub"):
        load(checkpoint, revision=commit)
    with pytest.raises(CheckpointError, match="vision_heads: 9 given; vla_gen_bench.vision has "):
        load(checkpoint, vision_heads=(9, 9))
    heads = [tower.heads for tower in load(checkpoint).config.vision]
    assert load(checkpoint, vision_heads=(heads[0], heads[1])).config.vision == load(checkpoint).config.vision
    model = lora.add_lora(new_model("pico"), lora.LoraConfig(4), torch.Generator())
    adapters.save_adapter(model, tmp_path, lora.LoraConfig(4), base=str(checkpoint))
    with pytest.raises(CheckpointError, match="revision: .* is a folder"):
        load(tmp_path, revision=commit)
    with pytest.raises(CheckpointError, match="revision: .* is a folder"):
        load(tmp_path, base=checkpoint, revision=commit)


def test_a_revision_is_of_the_base_under_an_adapter_in_a_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(hub, "_download", lambda name, revision: asked.append((name, revision)) or checkpoint)
    model = lora.add_lora(new_model("pico"), lora.LoraConfig(4), torch.Generator())
    adapters.save_adapter(model, tmp_path, lora.LoraConfig(4), base="some/model")
    load(tmp_path, revision="1" * 40)
    load(tmp_path, base="other/model", revision="2" * 40)
    edit(tmp_path / "adapter_config.json", revision="3" * 40)
    load(tmp_path)
    assert asked == [("some/model", "1" * 40), ("other/model", "2" * 40), ("some/model", "3" * 40)]


@pytest.mark.parametrize("name", ["no/such/folder", "nowhere", Path("/no/such/folder")])
def test_a_checkpoint_that_is_nowhere(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such folder, and not an id on the hub"):
        load(name)


def test_a_hub_id_needs_a_pinned_commit() -> None:
    with pytest.raises(CheckpointError, match="no commit pinned; give the folder.* --policy-option rev.*model_info"):
        load("someone/some-model")
    with pytest.raises(CheckpointError, match="did you mean 'openvla/openvla-7b'"):
        load("openvla/openvla-7c")
    assert len(hub.pinned_revisions()["openvla/openvla-7b"]) == 40


@pytest.mark.parametrize("revision", ["main", "v1.0", "47a0ec7", 7])
def test_a_revision_that_may_move_is_refused(revision: str) -> None:
    with pytest.raises(CheckpointError, match=f"revision '{revision}' is no commit"):
        load("openvla/openvla-7b", revision=revision)


def test_offline_the_error_says_what_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No request leaves the machine: the library itself is told to be offline."""
    hub_library = pytest.importorskip("huggingface_hub", reason="needs the extra 'vla': huggingface_hub")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    original = hub_library.snapshot_download
    monkeypatch.setattr(hub_library, "snapshot_download", lambda *a, **k: original(*a, cache_dir=tmp_path, **k))
    commit = hub.pinned_revisions()["openvla/openvla-7b"]
    expected = f"hf download openvla/openvla-7b --revision {commit} --local-dir FOLDER"
    with pytest.raises(CheckpointError, match=expected):
        load("openvla/openvla-7b")
