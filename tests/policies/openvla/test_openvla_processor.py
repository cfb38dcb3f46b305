"""Images, sentences and actions to tensors and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla import actions
from vla_gen_bench.policies.openvla.checkpoint.config_file import size
from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_tokenizer
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import PromptTokenizer, benchmark_sentences, train_tokenizer
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.images import to_pixels
from vla_gen_bench.policies.openvla.processor import Processor, pad_prompts

pytest.importorskip("tokenizers", reason="needs the extra 'vla': tokenizers")

PICO = size("pico")
STATS = {"action": {"q01": [-1.0] * 6 + [0.0], "q99": [3.0] * 6 + [1.0], "mask": [True] * 6 + [False]}}


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return new_tokenizer(PICO)


def test_action_tokens_by_hand() -> None:
    """Bins are 2/255 wide: -1 falls into the first (id 32000 - 1), 0 into the 128th, +1 on the last edge (256)."""
    assert actions.encode(np.array([-1.0, 0.0, 1.0, 7.0]), 32000).tolist() == [31999, 31872, 31744, 31744]
    assert actions.decode(np.array([31999, 31872]), 32000).tolist() == pytest.approx([-1 + 1 / 255, 0.0], abs=1e-12)
    assert actions.decode(np.array([31744]), 32000) == actions.decode(np.array([31745]), 32000)


def test_actions_survive_the_round_trip_within_half_a_bin() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (50, 7))
    assert np.abs(actions.decode(actions.encode(values, 640), 640) - values).max() <= 1 / 255 + 1e-9


def test_unnormalising_by_hand() -> None:
    """0.5 * (0 + 1) * (3 - -1) + -1 = 1; the masked gripper stays."""
    stats = actions.parse_stats(STATS, "x")
    assert stats.unnormalise(np.array([0.0] * 6 + [0.7])).tolist() == [1.0] * 6 + [0.7]
    assert stats.normalise(np.array([3.0] * 6 + [0.7])) == pytest.approx([1.0] * 6 + [0.7])


def test_a_constant_dimension_is_the_middle_bin_and_comes_back() -> None:
    entry = {"action": {**STATS["action"], "q01": [0.25] * 7, "q99": [0.25] * 7}}
    stats = actions.parse_stats(entry, "x")
    assert stats.normalise(np.full(7, 0.25)).tolist() == [0.0] * 6 + [0.25]
    assert stats.unnormalise(np.zeros(7)).tolist() == [0.25] * 6 + [0.0]


def test_gripper_opens_above_a_half() -> None:
    given = np.array([[0.0] * 6 + [0.51], [0.0] * 6 + [0.5]])
    assert actions.gripper_command(given)[:, 6].tolist() == [1.0, -1.0]


def test_a_missing_unnorm_key_lists_those_there_are() -> None:
    config = replace(PICO, norm_stats={"bridge_orig": STATS, "sft": STATS})
    with pytest.raises(CheckpointError, match="no 'toto' in norm_stats; known: bridge_orig, sft"):
        actions.action_stats(config, "toto")
    with pytest.raises(CheckpointError, match="did you mean 'bridge_orig'.*has bridge_orig, sft"):
        actions.action_stats(config, "bridge_org")
    with pytest.raises(CheckpointError, match="none given; this checkpoint has bridge_orig, sft"):
        actions.action_stats(config)
    with pytest.raises(CheckpointError, match="none at all"):
        actions.action_stats(PICO)
    assert actions.action_stats(acting_as(config, unnorm_key="sft")).high[0] == 3.0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"q01": None}, "q01: expected 7"),
        ({"q01": [0.0] * 6}, "q01: expected 7"),
        ({"q99": [-2.0] * 7}, "q01 exceeds q99"),
        ({"q99": [float("nan")] * 7}, "q99: expected 7 finite"),
    ],
)
def test_bad_statistics_are_named(change: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        actions.parse_stats({"action": {**STATS["action"], **change}}, "norm_stats: x")


@pytest.mark.parametrize("sentence", ["put carrot on plate", "Move it so it’s on the plate.", "日本 🥕 \n\t !"])
def test_any_sentence_can_be_encoded_and_read_back(tokenizer: PromptTokenizer, sentence: str) -> None:
    ids = tokenizer.prompt(sentence)
    assert ids[0] == 1
    assert ids[-1] == tokenizer.last_prompt_token
    expected = f"In: What action should the robot take to {sentence.lower()}?\nOut: "
    assert tokenizer.backend.decode(ids[1:]) == expected
    assert max(ids) < PICO.action_range[0]


def test_names_of_special_tokens_in_a_sentence_are_text(tokenizer: PromptTokenizer) -> None:
    ids = tokenizer.prompt("put </s> on <action3>")
    assert 2 not in ids and max(ids) < PICO.action_range[0]


def test_training_a_tokenizer_is_reproducible_and_fills_the_vocabulary(tokenizer: PromptTokenizer) -> None:
    again = train_tokenizer(benchmark_sentences(), PICO.base_vocab)
    assert again.to_str() == tokenizer.backend.to_str()
    assert again.get_vocab_size() == PICO.base_vocab
    few = train_tokenizer(["put a on b"], PICO.base_vocab)
    assert few.get_vocab_size() == PICO.base_vocab
    assert few.token_to_id("<action0>") == PICO.action_range[0]


@pytest.mark.parametrize("base_vocab", [517, 1024])
def test_a_tokenizer_of_another_vocabulary_is_refused(base_vocab: int) -> None:
    other = train_tokenizer(["put a on b"], base_vocab)
    with pytest.raises(CheckpointError, match="the model was made for 640"):
        PromptTokenizer(other, PICO)


def test_a_tokenizer_with_other_special_tokens_is_refused(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(CheckpointError, match="token '<s>' has id 1; the model expects 5"):
        PromptTokenizer(tokenizer.backend, replace(PICO, text=replace(PICO.text, bos=5)))


@pytest.mark.parametrize("instruction", ["  ", "  \n", None, 3, b"put carrot on plate"])
def test_an_instruction_that_is_no_sentence_is_refused(tokenizer: PromptTokenizer, instruction: str) -> None:
    with pytest.raises(UserError, match="instruction: expected a sentence"):
        tokenizer.prompt(instruction)


def test_an_empty_instruction_leaves_a_gap_in_the_prompt(tokenizer: PromptTokenizer) -> None:
    """Suites `controls` and `robustness` have rows without an instruction."""
    text = tokenizer.backend.decode(tokenizer.prompt("")[1:], skip_special_tokens=False)
    whole = tokenizer.backend.decode(tokenizer.prompt("carrot")[1:], skip_special_tokens=False)
    assert text == whole.replace("carrot", "")


def test_an_instruction_that_is_too_long_is_refused(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(UserError, match="prompt of .* tokens; this model takes at most 104"):  # 128 - 16 patches - 8
        tokenizer.prompt("put carrot on plate " * 40)


def test_padding_goes_behind_bos() -> None:
    ids, mask = pad_prompts([[1, 7, 8, 9], [1, 5]], pad=640)
    assert ids.tolist() == [[1, 7, 8, 9], [1, 640, 640, 5]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 1]]


def test_training_targets_are_the_actions_and_eos(tokenizer: PromptTokenizer) -> None:
    processor = Processor(PICO, tokenizer)
    inputs = processor(np.zeros((2, 24, 32, 3), np.uint8), ["put carrot on plate", "put spoon on the towel"])
    tokens = processor.action_tokens(np.zeros((2, 1, 7)))
    full, labels = processor.targets(inputs, tokens)
    assert full.ids.shape == labels.shape == (2, inputs.ids.shape[1] + 8)
    assert (labels[:, :-8] == -100).all()
    assert labels[:, -8:].tolist() == [[640 - 128] * 7 + [2]] * 2
    assert torch.equal(full.ids[:, -8:], labels[:, -8:])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 24, 32, 3), np.float32),
        np.zeros((24, 32, 3), np.uint8),
        np.zeros((1, 3, 24, 32), np.uint8),
        np.zeros((1, 24, 32, 4), np.uint8),
        np.zeros((1, 0, 32, 3), np.uint8),
        torch.zeros(1, 24, 32, 3),
    ],
    ids=["float", "no batch", "channels first", "rgba", "empty", "tensor"],
)
def test_images_of_another_dtype_or_shape_are_refused(images: object) -> None:
    with pytest.raises(UserError, match=r"image: got .*; expected a numpy array, uint8 \[B, H, W, 3\]"):
        to_pixels(images, PICO)


def test_a_batch_of_images_must_match_the_instructions(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(UserError, match="a batch of 2 for 1 instructions"):
        Processor(PICO, tokenizer)(np.zeros((2, 24, 32, 3), np.uint8), ["put carrot on plate"])


@pytest.mark.parametrize("strategy", ["resize-naive", "letterbox", "resize-crop"])
@pytest.mark.parametrize("shape", [(24, 40), (41, 23), (32, 32), (13, 60)])
def test_every_strategy_gives_a_square_of_normalised_pixels(strategy: str, shape: tuple[int, int]) -> None:
    grey = np.full((1, *shape, 3), 51, np.uint8)  # 51 / 255 = 0.2
    pixels = to_pixels(grey, replace(PICO, resize=strategy))
    assert pixels.shape == (1, 6, 32, 32)
    middle = pixels[0, :, 16, 16].tolist()
    assert middle[3:] == pytest.approx([-0.6] * 3, abs=1e-6)  # (0.2 - 0.5) / 0.5
    assert middle[0] == pytest.approx((0.2 - 0.485) / 0.229, abs=1e-6)


def test_letterbox_pads_with_the_mean_of_the_last_tower() -> None:
    pixels = to_pixels(np.zeros((1, 8, 32, 3), np.uint8), replace(PICO, resize="letterbox"))
    assert pixels[0, 3, 0, 0].item() == pytest.approx((127 / 255 - 0.5) / 0.5, abs=1e-6)


def test_the_tensor_path_differs_little_from_the_picture_path() -> None:
    smooth = (np.add.outer(np.arange(48), np.arange(64))[None, ..., None] * np.array([1, 1.5, 2])).astype(np.uint8)
    exact = to_pixels(smooth, PICO, "tensor")
    assert (to_pixels(smooth, PICO, "tensor-bf16").float() - exact).abs().max() < 0.05
    with pytest.raises(UserError, match="made for resize-naive"):
        to_pixels(smooth, replace(PICO, resize="letterbox"), "tensor")
