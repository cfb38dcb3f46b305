"""What lies in a checkpoint's folder is used, or named: statistics, heads, tokenizers, adapters, odd configs."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vla_gen_bench.policies.openvla.checkpoint import adapters
from vla_gen_bench.policies.openvla.checkpoint.config_file import size
from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_action_head, new_model, new_tokenizer
from vla_gen_bench.policies.openvla.checkpoint.loading import load
from vla_gen_bench.policies.openvla.checkpoint.saving import save
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.images import centre_cropped
from vla_gen_bench.policies.openvla.model import lora
from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy

pytest.importorskip("safetensors", reason="needs the extra 'vla': safetensors")
pytest.importorskip("tokenizers", reason="needs the extra 'vla': tokenizers")

QUERY = "language_model.model.layers.0.self_attn.q_proj"


def stats(half: float) -> dict[str, Any]:
    return {"action": {"q01": [-half] * 6 + [0.0], "q99": [half] * 6 + [1.0], "mask": [True] * 6 + [False]}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    config = replace(size("pico"), norm_stats={"bridge_orig": stats(0.02)})
    save(folder, new_model(config), new_tokenizer(config))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "checkpoint"))


def write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content))


def edit(file: Path, **changes: Any) -> None:
    write(file, {**json.loads(file.read_text()), **changes})


# ---- statistics ----------------------------------------------------------------------------------------------------


def test_statistics_beside_a_full_checkpoint_go_before_those_of_its_config(folder: Path) -> None:
    write(folder / "dataset_statistics.json", {"bridge_orig": stats(0.04)})
    assert OpenVLAPolicy(folder).stats.high[0] == 0.04


def test_the_only_data_set_of_the_statistics_is_the_choice(folder: Path) -> None:
    write(folder / "dataset_statistics.json", {"my_demos": stats(0.04)})
    assert OpenVLAPolicy(folder).stats.high[0] == 0.04
    assert OpenVLAPolicy(folder, unnorm_key="bridge_orig").stats.high[0] == 0.02


def test_two_files_that_choose_different_data_sets_leave_it_to_the_user(folder: Path) -> None:
    write(folder / "dataset_statistics.json", {"my_demos": stats(0.04)})
    edit(folder / "config.json", unnorm_key="bridge_orig")
    with pytest.raises(CheckpointError, match="unnorm_key: none given; this checkpoint has bridge_orig, my_demos"):
        OpenVLAPolicy(folder)
    assert OpenVLAPolicy(folder, unnorm_key="my_demos").stats.high[0] == 0.04


def test_statistics_of_the_base_count_below_those_of_an_adapter(folder: Path, tmp_path: Path) -> None:
    write(folder / "dataset_statistics.json", {"a": stats(0.04), "b": stats(0.05)})
    made = lora.add_lora(new_model("pico"), lora.LoraConfig(4), torch.Generator())
    adapters.save_adapter(made, tmp_path / "adapter", lora.LoraConfig(4), base=str(folder))
    write(tmp_path / "adapter/dataset_statistics.json", {"b": stats(0.06)})
    config = load(tmp_path / "adapter").config
    highest = {key: entry["action"]["q99"][0] for key, entry in config.norm_stats.items()}
    assert highest == {"bridge_orig": 0.02, "a": 0.04, "b": 0.06}


@pytest.mark.parametrize(
    "content, message",
    [
        ([1], r"dataset_statistics.json: .*got \[1\]"),
        ({"x": {}}, "dataset_statistics.json: x: no 'action'"),
        ({"x": {"action": {**stats(1)["action"], "q99": [1, [2]]}}}, r"json: x.action.q99: expected 7 finite numbers"),
        ({"x": {"action": {**stats(1)["action"], "mask": [2] * 7}}}, r"json: x.action.mask: expected 7 true or false"),
    ],
)
def test_damaged_statistics_are_named(folder: Path, content: Any, message: str) -> None:
    write(folder / "dataset_statistics.json", content)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


# ---- files that are not used -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["action_head", "proprio_projector", "vision_backbone", "noisy_action_projector"])
def test_parts_that_openvla_oft_saves_apart_are_named(folder: Path, part: str) -> None:
    torch.save({"module.fc1.weight": torch.zeros(2, 2)}, folder / f"{part}--150000_checkpoint.pt")
    for decoding in (None, "parallel"):
        with pytest.raises(CheckpointError, match=rf"openvla-oft.*: {part}--150000_checkpoint.pt: "):
            OpenVLAPolicy(folder, decoding=decoding)


@pytest.mark.parametrize("name", ["ema.safetensors", "policy.pth", "weights.npz", "model-00001-of-00002.safetensors"])
def test_weights_that_nothing_reads_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{name}: weights that are not used, beside .*model.safetensors"):
        load(folder)


@pytest.mark.parametrize("name", ["optimizer.pt", "training_args.bin", "rng_state_0.pth", "pytorch_model.bin", "a.txt"])
def test_what_training_leaves_beside_a_model_is_no_part_of_it(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    load(folder)


def test_the_head_of_openvla_oft_is_read_where_the_config_says_how_it_acts(tmp_path: Path) -> None:
    config = acting_as(size("pico"), decoding="parallel", attention="bidirectional", chunk=2, head="l1")
    head = new_action_head(config)
    save(tmp_path, new_model(config), action_head=head)
    (tmp_path / "action_head.safetensors").unlink()
    state = {f"module.model.{name}": value for name, value in head.state_dict().items()}
    torch.save(state, tmp_path / "action_head--1000_checkpoint.pt")
    read = load(tmp_path).action_head
    assert read is not None and torch.equal(read.fc1.weight, head.fc1.weight)
    shutil.copy(tmp_path / "action_head--1000_checkpoint.pt", tmp_path / "action_head--2000_checkpoint.pt")
    with pytest.raises(CheckpointError, match="1000_checkpoint.pt and action_head--2000_checkpoint.pt: two regression"):
        load(tmp_path)


class Trap:
    """Would write a file if it were unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["training_state.pt", "action_head--1_checkpoint.pt"])
def test_no_pickle_runs_code(tmp_path: Path, name: str) -> None:
    config = acting_as(size("pico"), decoding="parallel", chunk=2, head="l1")
    save(tmp_path / "c", new_model(config), action_head=new_action_head(config))
    if name.startswith("action"):
        (tmp_path / "c/action_head.safetensors").unlink()
    torch.save({"vh": Trap(tmp_path / "ran")}, tmp_path / "c" / name)
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read as tensors alone"):
        load(tmp_path / "c")
    assert not (tmp_path / "ran").exists()


def test_a_preprocessor_of_other_images_is_named(folder: Path) -> None:
    said = {"image_resize_strategy": "resize-naive", "means": [[0.4850, 0.4560, 0.4060], [0.5] * 3]}
    write(folder / "preprocessor_config.json", said)
    load(folder)
    edit(folder / "preprocessor_config.json", image_resize_strategy="letterbox")
    with pytest.raises(
        CheckpointError,
        match="preprocessor_config.json: image_resize_strategy: .letterbox., but .*config.json makes it",
    ):
        load(folder)


# ---- tokenizers ------------------------------------------------------------------------------------------------------

PADDING = {
    "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 640, "pad_type_id": 0,
    "pad_token": "<PAD>",
}  # fmt: skip
CUT = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"padding": PADDING},
        {"padding": {**PADDING, "direction": "Left"}},
        {"padding": {**PADDING, "strategy": "BatchLongest", "pad_to_multiple_of": 8}},
        {"truncation": CUT},
    ],
)
def test_padding_and_truncation_of_the_tokenizer_file_leave_prompts_alone(folder: Path, change: dict) -> None:
    expected = OpenVLAPolicy(folder).processor.tokenizer.prompt("put carrot on plate")
    edit(folder / "tokenizer.json", **change)
    tokenizer = OpenVLAPolicy(folder).processor.tokenizer
    assert tokenizer.prompt("put carrot on plate") == expected
    assert tokenizer.last_prompt_token == expected[-1]


def test_dropout_of_the_tokenizer_file_does_not_make_prompts_random(folder: Path) -> None:
    expected = OpenVLAPolicy(folder).processor.tokenizer.prompt("put carrot on plate")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    edit(folder / "tokenizer.json", model={**model, "dropout": 0.9})
    assert OpenVLAPolicy(folder).processor.tokenizer.prompt("put carrot on plate") == expected


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("gone")])
def test_statistics_that_are_no_file_are_refused(folder: Path, make: Any) -> None:
    make(folder / "dataset_statistics.json")
    with pytest.raises(CheckpointError, match="dataset_statistics.json"):
        OpenVLAPolicy(folder)


# ---- adapters -------------------------------------------------------------------------------------------------------


def peft_adapter(base: Path, folder: Path, **how: Any) -> Any:
    """Saves an adapter that peft made and that was "trained"; returns the model peft makes of it."""
    peft = pytest.importorskip("peft", reason="needs the extra 'vla': peft")
    torch.manual_seed(0)
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "fc1"], **how}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = peft.get_peft_model(load(base).model, peft.LoraConfig(**given))
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if "lora_B" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        tuned.save_pretrained(folder)
        edit(folder / "adapter_config.json", base_model_name_or_path=str(base))
        return tuned.merge_and_unload()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"init_lora_weights": "gaussian"},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 16, "fc1": 3}},
        {"use_rslora": True, "rank_pattern": {r"layers\.\d+\.self_attn\.q_proj": 6, "projector.fc1": 2}},
        {
            "alpha_pattern": {"_proj": 99, "proj": 99, "self_attn.q_proj": 5}
        },  # the first two end no whole part of a name
    ],
)
def test_an_adapter_is_merged_as_peft_merges_it(sound: Path, tmp_path: Path, how: dict) -> None:
    theirs = dict(peft_adapter(sound, tmp_path / "a", **how).named_parameters())
    plain = load(sound).model.get_parameter(f"{QUERY}.weight")
    ours = dict(load(tmp_path / "a").model.named_parameters())
    assert not torch.allclose(ours[f"{QUERY}.weight"], plain, atol=1e-3)
    for name, parameter in ours.items():
        assert torch.allclose(parameter, theirs[name], atol=1e-6), name
    kept = load(tmp_path / "a", merge=False)
    merged = lora.merge(kept.model).get_parameter(f"{QUERY}.weight")
    assert torch.allclose(merged, theirs[f"{QUERY}.weight"], atol=1e-6)


def test_an_adapter_with_patterns_is_written_as_it_was_read(sound: Path, tmp_path: Path) -> None:
    peft_adapter(sound, tmp_path / "a", use_rslora=True, rank_pattern={"q_proj": 2}, alpha_pattern={"fc1": 3})
    model = load(sound).model
    config = adapters.load_adapter(model, tmp_path / "a")
    adapters.save_adapter(model, tmp_path / "b", config, base=str(sound))
    assert adapters.read_adapter_config(tmp_path / "b") == config
    assert config.stabilised and config.ranks == (("q_proj", 2),) and config.alphas == (("fc1", 3),)


@pytest.mark.parametrize(
    "begun", ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "eva", "lora_ga", "mica", "new"]
)
def test_an_adapter_whose_base_was_changed_is_refused(sound: Path, tmp_path: Path, begun: str) -> None:
    peft_adapter(sound, tmp_path / "a")
    edit(tmp_path / "a/adapter_config.json", init_lora_weights=begun)
    with pytest.raises(CheckpointError, match=f"adapter_config.json: init_lora_weights: '{begun}' is not supported"):
        load(tmp_path / "a")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"use_dora": True}, "use_dora: True is not supported"),
        ({"something_new": {"on": True}}, "something_new: {.* is not supported"),
        ({"trainable_token_indices": [1]}, r"trainable_token_indices: \[1\] is not supported"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"use_rslora": "yes"}, "use_rslora: expected true or false"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern: q_proj: expected a whole number from 1"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern: expected a mapping"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern: expected numbers"),
        ({"alpha_pattern": {"q_(proj": 3}}, "alpha_pattern: 'q_.proj' is no regular expression"),
        ({"r": 10**9}, "r: expected a whole number from 1"),
        ({"lora_alpha": -1}, "lora_alpha: expected a number above 0"),
        ({"rank_pattern": {"q_proj": 3}}, r"q_proj.lora_.*has shape"),
    ],
)
def test_an_adapter_of_another_computation_is_refused(sound: Path, tmp_path: Path, changes: dict, message: str) -> None:
    peft_adapter(sound, tmp_path / "a")
    edit(tmp_path / "a/adapter_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "a")


def test_a_folder_with_an_adapter_and_a_whole_model_names_both(sound: Path, tmp_path: Path) -> None:
    peft_adapter(sound, tmp_path / "a")
    shutil.copy(sound / "model.safetensors", tmp_path / "a")
    with pytest.raises(CheckpointError, match="model.safetensors: weights that are not used, beside adapter_model.saf"):
        load(tmp_path / "a")


# ---- the central crop ------------------------------------------------------------------------------------------------


def test_the_central_crop_by_hand() -> None:
    """A ramp 2x over 101 pixels: 0.9 of the area is 0.948683 of the side, from 2.5658 = 100 (1 - 0.948683) / 2.

    Pixel 0 sees 2 * 2.5658 = 5.13, times 255.5 / 255 = 5.14 -> 5; pixel 50 the middle, 100 * 1.00196 -> 100;
    pixel 10 sees 2 * (2.5658 + 9.48683) = 24.105 -> 24.15 -> 24.
    """
    ramp = np.repeat((2 * np.arange(101, dtype=np.uint8))[None, :, None], 101, 0).repeat(3, 2)
    cropped = centre_cropped(ramp)
    assert cropped.shape == ramp.shape and cropped.dtype == np.uint8
    assert cropped[3, [0, 10, 50, 100], 1].tolist() == [5, 24, 100, 195]
    assert np.array_equal(centre_cropped(ramp.transpose(1, 0, 2)), cropped.transpose(1, 0, 2))
    assert set(np.unique(centre_cropped(np.full((8, 8, 3), 255, np.uint8)))) == {255}


def test_a_checkpoint_trained_with_image_augmentation_needs_a_choice(folder: Path, tmp_path: Path) -> None:
    named = folder.rename(tmp_path / "openvla-7b+bridge+b16+lr-0.0005--image_aug")
    with pytest.raises(CheckpointError, match="image augmentation.*--policy-option center_crop=true"):
        OpenVLAPolicy(named)
    image = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)
    whole, cropped = (OpenVLAPolicy(named, center_crop=choice).processor for choice in (False, True))
    expected = centre_cropped(image[0])  # of 32 px already, so that nothing is resized before
    assert torch.equal(cropped.pixels(image), whole.pixels(expected[None]))
    assert not torch.equal(cropped.pixels(image), whole.pixels(image))


# ---- fields of another kind ------------------------------------------------------------------------------------------


def text(**changes: Any) -> dict[str, Any]:
    return {"text_config": {**size("pico").fields["text_config"], **changes}}


def own(**changes: Any) -> dict[str, Any]:
    return {"vla_gen_bench": {**size("pico").fields["vla_gen_bench"], **changes}}


def tower(**changes: Any) -> dict[str, Any]:
    first, second = size("pico").fields["vla_gen_bench"]["vision"]
    return own(vision=[{**first, **changes}, second])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"norm_stats": [stats(1)]}, "norm_stats: expected a mapping"),
        ({"norm_stats": "none"}, "norm_stats: expected a mapping, got 'none'"),
        ({"norm_stats": {"x": {"action": {**stats(1)["action"], "q01": [[1, 2], [3]]}}}}, "norm_stats: x.action.q01"),
        ({"norm_stats": {"x": {"action": {**stats(1)["action"], "q01": ["a"] * 7}}}}, "norm_stats: x.action.q01"),
        ({"timm_model_ids": None}, "timm_model_ids: missing"),
        ({"timm_model_ids": [1, 2]}, "timm_model_ids: expected a list of texts"),
        ({"image_sizes": 32}, "image_sizes: expected a list"),
        ({"image_sizes": [10**9, 10**9]}, "image_sizes: expected a whole number from 1"),
        ({"pad_to_multiple_of": True}, "pad_to_multiple_of: expected a whole number"),
        (text(vocab_size=704.0), "text_config: vocab_size: expected a whole number"),
        (text(vocab_size=-1), "text_config: vocab_size: expected a whole number"),
        (text(num_hidden_layers=10**9), "text_config: num_hidden_layers: expected a whole number from 1 to"),
        (text(hidden_size=10**15), "text_config: hidden_size: expected a whole number from 1 to"),
        (text(num_attention_heads=0), "text_config: num_attention_heads: expected a whole number from 1"),
        (text(num_key_value_heads=0), "text_config: num_key_value_heads: expected a whole number from 1"),
        (text(rms_norm_eps=float("nan")), "not JSON: NaN"),
        (text(rms_norm_eps="1e-6"), "text_config: rms_norm_eps: expected a number above 0"),
        (text(rope_scaling=[1]), "text_config: rope_scaling: expected a mapping"),
        ({"vla_gen_bench": "x"}, "vla_gen_bench: expected a mapping, got 'x'"),
        (own(vision=[]), "vla_gen_bench.vision: expected two towers, got 0"),
        (own(vision=7), "vla_gen_bench.vision: expected a list"),
        (own(unnorm_key=["a"]), "unnorm_key: expected text"),
        (own(chunk=10**9, decoding="parallel"), "chunk: expected a whole number from 1"),
        (own(decoding=["parallel"]), "decoding: "),
        (tower(heads=0), "vision: heads: expected a whole number from 1"),
        (tower(width="32"), "vision: width: expected a whole number"),
        (tower(width=None), "vision: width: missing"),
        (tower(depth=10**12), "vision: depth: expected a whole number from 1 to"),
        (tower(stem=[0]), "stem: expected a whole number from 1"),
        (tower(stem=[12], patch=8, stem_norm=True), "stem: stem_norm needs multiples of 8, not 12"),
        (tower(stem_norm=1), "stem_norm: 1 is not supported; expected true or false"),
        (tower(cls_token="no"), 'cls_token: "no" is not supported; expected true or false'),
        (tower(pixels=3), "pixels: 3 is not supported"),
    ],
)
def test_a_field_of_another_kind_or_an_absurd_size_is_named(folder: Path, changes: dict, message: str) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=rf"config.json: .*{message}") as caught:
        OpenVLAPolicy(folder)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
