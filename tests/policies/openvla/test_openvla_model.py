"""The network itself, at the smallest size: caches, masks, slices, adapters and value heads agree with each other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vla_gen_bench.policies.openvla.checkpoint import adapters
from vla_gen_bench.policies.openvla.checkpoint.config_file import size
from vla_gen_bench.policies.openvla.checkpoint.fresh import new_model
from vla_gen_bench.policies.openvla.checkpoint.loading import checkpoint_shapes, count_parameters, empty_model
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model import lora, sampling, value
from vla_gen_bench.policies.openvla.model.decoding import ActionOutput, decode, teacher_forced
from vla_gen_bench.policies.openvla.model.llama import linear_rows
from vla_gen_bench.policies.openvla.model.vla import Inputs, OpenVLA
from vla_gen_bench.policies.openvla.oft import parallel_decode, parallel_forward
from vla_gen_bench.policies.openvla.processor import pad_prompts

pytest.importorskip("safetensors", reason="needs the extra 'vla': safetensors")


@pytest.fixture(scope="module")
def model() -> OpenVLA:
    return new_model("pico", seed=1)


@pytest.fixture
def inputs(model: OpenVLA) -> Inputs:
    generator = torch.Generator().manual_seed(2)
    ids, mask = pad_prompts([[1, 5, 6, 7, 8], [1, 9, 10], [1, 11, 12, 13]], model.config.pad)
    side = model.config.image
    return Inputs(ids, mask, torch.randn(3, 6, side, side, generator=generator))


def uniforms(slots: int = 7) -> torch.Tensor:
    return torch.rand(3, slots, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def same(found: ActionOutput, expected: ActionOutput) -> None:
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.hidden, expected.hidden, rtol=0, atol=1e-5)


def test_cached_decoding_equals_one_pass_over_everything(model: OpenVLA, inputs: Inputs) -> None:
    out = decode(model, inputs, sampling.sampler(uniforms()))
    with torch.no_grad():
        same(teacher_forced(model, inputs, out.tokens), out)


def test_a_padded_row_decodes_as_it_does_alone(model: OpenVLA, inputs: Inputs) -> None:
    together = decode(model, inputs, sampling.sampler(uniforms()))
    for row in range(3):
        keep = inputs.mask[row].bool()
        alone = Inputs(inputs.ids[row : row + 1, keep], inputs.mask[row : row + 1, keep], inputs.pixels[row : row + 1])
        out = decode(model, alone, sampling.sampler(uniforms()[row : row + 1]))
        same(out, ActionOutput(together.tokens[[row]], together.logits[[row]], together.hidden[[row]]))


def test_action_logits_are_a_slice_of_all_logits(model: OpenVLA, inputs: Inputs) -> None:
    begin, end = model.config.action_range
    with torch.no_grad():
        hidden = model.hidden(model.splice(inputs))
        expected = model.language_model.logits(hidden)[..., begin:end]
        torch.testing.assert_close(model.action_logits(hidden), expected, rtol=0, atol=1e-6)


def test_action_tokens_are_the_last_256_below_the_padding_rows() -> None:
    assert size("7b").action_range == (31744, 32000)


def test_attention_masks_by_hand(model: OpenVLA, inputs: Inputs) -> None:
    sequence = model.splice(inputs)
    patches = model.config.patches
    assert sequence.mask.sum(1).tolist() == [patches + 5, patches + 3, patches + 4]
    assert sequence.positions[1, -2:].tolist() == [patches + 1, patches + 2]
    causal, free = sequence.may_see("causal")[1, 0], sequence.may_see("bidirectional")[1, 0]
    assert causal[-1].sum() == patches + 3  # the last token sees all that is not padding
    assert causal[0].sum() == 1  # BOS sees itself
    assert free[0].sum() == patches + 3


def test_parallel_slots_see_each_other_only_without_the_causal_mask(model: OpenVLA, inputs: Inputs) -> None:
    shorter, longer = (
        {kind: parallel_decode(model, inputs, chunk, kind).logits[:, :7] for kind in ("causal", "bidirectional")}
        for chunk in (1, 2)
    )
    torch.testing.assert_close(shorter["causal"], longer["causal"], rtol=0, atol=1e-5)
    assert (shorter["bidirectional"] - longer["bidirectional"]).abs().max() > 1e-4


def test_parallel_forward_scores_what_parallel_decode_chose(model: OpenVLA, inputs: Inputs) -> None:
    out = parallel_decode(model, inputs, 4, "bidirectional", sampling.sampler(uniforms(28)))
    assert out.tokens.shape == (3, 28)
    with torch.no_grad():
        same(parallel_forward(model, inputs, out.tokens, "bidirectional"), out)


def test_sampling_by_inversion_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/4: the draws 0.4, 0.51, 0.7, 0.8 fall into 0, 1, 1, 2."""
    logits = torch.log(torch.tensor([[2.0, 1.0, 1.0]])).expand(4, 3)
    draws = torch.tensor([[0.4], [0.51], [0.7], [0.8]], dtype=torch.float64)
    assert sampling.sampler(draws)(logits, 0).tolist() == [0, 1, 1, 2]
    # at half the temperature 4/6, 1/6, 1/6; with top_k=1 only the first is eligible
    assert sampling.sampler(draws, temperature=0.5)(logits, 0).tolist() == [0, 0, 1, 1]
    assert sampling.sampler(draws, top_k=1)(logits, 0).tolist() == [0, 0, 0, 0]
    assert sampling.sampler(draws, temperature=0)(logits, 0).tolist() == [0, 0, 0, 0]


def test_a_draw_next_to_one_stays_within_the_eligible() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    draw = torch.tensor([[math.nextafter(1.0, 0.0)]], dtype=torch.float64)
    assert sampling.sampler(draw)(logits, 0).tolist() == [1]


def test_log_probability_and_entropy_of_a_flat_slot() -> None:
    logits = torch.zeros(1, 7, 256)
    assert sampling.log_probs(logits, torch.zeros(1, 7, dtype=torch.long)).sum().item() == pytest.approx(
        -7 * math.log(256), rel=1e-6
    )
    assert sampling.entropy(logits).mean().item() == pytest.approx(math.log(256), rel=1e-6)


def with_random_adapter(seed: int = 4) -> OpenVLA:
    model = lora.add_lora(new_model("pico", 1), lora.LoraConfig(rank=4, alpha=2), torch.Generator().manual_seed(seed))
    for module in lora.adapted(model).values():
        torch.nn.init.normal_(module.lora_B.weight, std=0.1, generator=torch.Generator().manual_seed(seed))
    return model


def test_a_new_adapter_changes_nothing(model: OpenVLA, inputs: Inputs) -> None:
    adapted = lora.add_lora(new_model("pico", 1), lora.LoraConfig(4), torch.Generator())
    assert torch.equal(decode(adapted, inputs).logits, decode(model, inputs).logits)


def test_merging_an_adapter_keeps_the_outputs(model: OpenVLA, inputs: Inputs) -> None:
    adapted = with_random_adapter()
    tokens = torch.full((3, 7), model.config.action_range[0])
    with torch.no_grad():
        before = teacher_forced(adapted, inputs, tokens).logits
        after = teacher_forced(lora.merge(adapted), inputs, tokens).logits
        plain = teacher_forced(model, inputs, tokens).logits
    torch.testing.assert_close(after, before, rtol=0, atol=2e-5)
    assert (plain - before).abs().max() > 0.01
    assert adapted.state_dict().keys() == model.state_dict().keys()


def test_every_adapter_gets_a_gradient_through_the_sliced_head(inputs: Inputs) -> None:
    adapted = with_random_adapter()
    teacher_forced(adapted, inputs, torch.full((3, 7), adapted.config.action_range[0])).logits.square().sum().backward()
    learning = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in learning)
    assert [name for name, p in learning.items() if p.grad is None or not p.grad.any()] == []


def test_an_adapter_folder_gives_the_same_model_again(tmp_path: Path, inputs: Inputs) -> None:
    adapted = with_random_adapter()
    adapters.save_adapter(adapted, tmp_path, lora.LoraConfig(rank=4, alpha=2))
    again, merged = new_model("pico", 1), new_model("pico", 1)
    adapters.load_adapter(again, tmp_path)
    adapters.merge_adapter(merged, tmp_path)
    assert torch.equal(decode(again, inputs).logits, decode(adapted, inputs).logits)
    torch.testing.assert_close(
        decode(merged, inputs).logits[:, 0], decode(adapted, inputs).logits[:, 0], rtol=0, atol=2e-5
    )


def test_float32_adapters_on_a_bfloat16_model(inputs: Inputs) -> None:
    half = lora.add_lora(new_model("pico", 1).bfloat16(), lora.LoraConfig(4), torch.Generator(), torch.float32)
    pixels = replace(inputs, pixels=inputs.pixels.bfloat16())
    out = teacher_forced(half, pixels, torch.full((3, 7), half.config.action_range[0]))
    out.logits.sum().backward()
    assert half.language_model.lm_head.lora_B.weight.grad.dtype == torch.float32
    assert lora.merge(half).dtype == torch.bfloat16


def test_an_adapter_of_another_size_is_refused(tmp_path: Path) -> None:
    adapters.save_adapter(with_random_adapter(), tmp_path, lora.LoraConfig(rank=8, alpha=2))
    with pytest.raises(CheckpointError, match=r"lora_A.weight: has shape \[4, .*expected \[8, "):
        adapters.load_adapter(new_model("pico"), tmp_path)


def test_the_sliced_head_feels_an_adapter_that_peft_put_on(inputs: Inputs) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra 'vla': peft")
    wrapped = new_model("pico", 1)
    config = peft.LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, wrapped)
    states, (begin, end) = torch.randn(2, 32), wrapped.config.action_range
    head = wrapped.language_model.lm_head
    torch.testing.assert_close(linear_rows(head, states, begin, end), head(states)[:, begin:end])


def test_peft_reads_an_adapter_written_here(tmp_path: Path, inputs: Inputs) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra 'vla': peft")
    adapted = with_random_adapter()
    adapters.save_adapter(adapted, tmp_path, lora.LoraConfig(rank=4, alpha=2))
    theirs = peft.PeftModel.from_pretrained(new_model("pico", 1), str(tmp_path)).base_model.model
    torch.testing.assert_close(decode(theirs, inputs).logits, decode(adapted, inputs).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("source, outputs", [("h0", 1), ("hn", 1), ("concat", 1), ("h0", 4)])
def test_value_heads(model: OpenVLA, inputs: Inputs, source: value.ValueInput, outputs: int) -> None:
    head = value.initialise_value(value.ValueHead(32, source, outputs), torch.Generator().manual_seed(0))
    out = decode(model, inputs)
    assert head(out.hidden).shape == (3, outputs)
    if source != "hn":
        again = value.value_head_from({f"module.{name}": t for name, t in head.state_dict().items()}, 32)
        assert torch.equal(again(out.hidden), head(out.hidden))
        assert again.source == source
    critic = value.SeparateCritic(model, head)
    torch.testing.assert_close(critic(inputs, out.tokens), head(out.hidden), rtol=0, atol=1e-5)


def test_a_value_head_starts_at_a_standard_deviation_of_002() -> None:
    head = value.initialise_value(value.ValueHead(4096), torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in head.parameters()) == 2_163_456  # as the reference's
    assert [round(layer.weight.std().item(), 3) for layer in (head.head_l1, head.head_l2)] == [0.02, 0.02]
    assert not head.head_l1.bias.any()


def test_the_7b_checkpoint_has_the_published_size() -> None:
    shapes = checkpoint_shapes(size("7b"))
    assert len(shapes) == 982
    assert sum(2 * math.prod(shape) for shape in shapes.values()) == 15_082_474_368
    assert {parameter.device.type for parameter in empty_model(size("7b")).parameters()} == {"meta"}


@pytest.mark.parametrize("name, most", [("pico", 110_000), ("nano", 1_000_000)])
def test_the_small_sizes_stay_small(name: str, most: int) -> None:
    assert count_parameters(empty_model(size(name))) < most


@pytest.mark.parametrize("name, rate", [("pico", 1e-2), ("nano", 1e-3)])
def test_a_new_model_learns_a_batch_by_heart(name: str, rate: float) -> None:
    model, generator = new_model(name), torch.Generator().manual_seed(0)
    side, begin = model.config.image, model.config.action_range[0]
    pixels = torch.randn(4, 6, side, side, generator=generator)
    batch = Inputs(torch.ones(4, 6, dtype=torch.long), torch.ones(4, 6), pixels)
    tokens = begin + torch.randint(256, (4, 7), generator=generator)
    optimiser = torch.optim.AdamW(model.parameters(), rate)
    for _ in range(100):
        optimiser.zero_grad()
        loss = -sampling.log_probs(teacher_forced(model, batch, tokens).logits, tokens - begin).mean()
        loss.backward()
        optimiser.step()
    assert torch.equal(decode(model, batch).tokens, tokens)


def test_bfloat16_gives_float32_logits(inputs: Inputs) -> None:
    half = new_model("pico", 1).to(torch.bfloat16)
    out = decode(half, replace(inputs, pixels=inputs.pixels.bfloat16()))
    assert out.logits.dtype == torch.float32
    assert (out.logits[:, 0] - decode(new_model("pico", 1), inputs).logits[:, 0]).abs().max() < 0.05
