"""Recorded outputs of the reference code against this implementation, on tiny random weights.

The cases lie outside the repository, in $VGB_SHARED/parity/openvla (default: ../shared beside it). Nothing here knows
their sizes: other cases of the same names can be put in their place.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openvla_cases import CASES, SHARED, extra, recorded, value_head

from vla_gen_bench.policies.openvla import actions, images
from vla_gen_bench.policies.openvla.checkpoint import adapters
from vla_gen_bench.policies.openvla.checkpoint.config_file import size
from vla_gen_bench.policies.openvla.checkpoint.loading import Loaded, checkpoint_shapes, load
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import PromptTokenizer
from vla_gen_bench.policies.openvla.model import sampling
from vla_gen_bench.policies.openvla.model.decoding import decode, teacher_forced
from vla_gen_bench.policies.openvla.model.vla import Inputs, OpenVLA, token_loss
from vla_gen_bench.policies.openvla.oft import parallel_decode, parallel_forward

pytest.importorskip("safetensors", reason="needs the extra 'vla': safetensors")
pytest.importorskip("tokenizers", reason="needs the extra 'vla': tokenizers")

ABSOLUTE = 1e-5
ROUNDED = 3e-5  # twice what the recorded values are away from float64's: states and logits of whole sequences
ADAPTER = 2e-5
RELATIVE = 1e-5

pytestmark = [
    pytest.mark.skipif(not CASES.is_dir(), reason=f"no recorded outputs at {CASES}; set VGB_SHARED"),
    pytest.mark.filterwarnings("ignore:vision tower of width"),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache(maxsize=None)
def loaded(case: str) -> Loaded:
    """The model of a case; cases without an own language model are on the weights of `full_openvla`."""
    return load(CASES / case)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = ABSOLUTE) -> None:
    torch.testing.assert_close(found.detach(), expected.to(found.dtype), rtol=0, atol=tolerance)


def score(model: OpenVLA, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of token ids."""
    return sampling.log_probs(logits, tokens - model.config.action_range[0])


def same_gradients(modules: dict[str, torch.nn.Module], expected: dict[str, float | None], model: OpenVLA) -> None:
    found = {prefix + name: p.grad for prefix, module in modules.items() for name, p in module.named_parameters()}
    for name, norm in expected.items():
        if norm is None:
            assert name in model.dead, f"{name} is never used by the reference, but it is live here"
        else:
            assert found[name].norm().item() == pytest.approx(norm, rel=RELATIVE), name
    assert found.keys() == {name for name, norm in expected.items() if norm is not None}


def prompts(case: str) -> Inputs:
    data = recorded(case)
    pixels = data["pixel_values"] if "pixel_values" in data else data["pixel_values_resize-naive"]
    return Inputs(data["input_ids"], data["attention_mask"], pixels)


@pytest.mark.parametrize("strategy", ["resize-naive", "letterbox", "resize-crop"])
def test_images_equal_bit_by_bit(strategy: str) -> None:
    data, config = recorded("nano_openvla"), replace(loaded("nano_openvla").config, resize=strategy)
    pixels = images.to_pixels(data["images_uint8"].numpy(), config)
    assert torch.equal(pixels, data[f"pixel_values_{strategy}"])


def test_images_of_the_full_layout_equal_bit_by_bit() -> None:
    data = recorded("full_openvla")
    pixels = images.to_pixels(data["images_uint8"].numpy(), loaded("full_openvla").config)
    assert torch.equal(pixels, data["pixel_values"])


def test_images_of_rl4vla_equal_bit_by_bit() -> None:
    data = recorded("rl4vla_actor_critic")
    pixels = images.to_pixels(data["images_uint8"].numpy(), loaded("full_openvla").config, "tensor")
    assert torch.equal(pixels, data["pixel_values"])


@pytest.mark.parametrize("case", ["nano_openvla", "full_openvla"])
def test_vision_features(case: str) -> None:
    model, data = loaded(case).model, recorded(case)
    pixels = data["pixel_values"] if "pixel_values" in data else data["pixel_values_resize-naive"]
    with torch.no_grad():
        features = model.vision_backbone(pixels)
        width = data["dino_features"].shape[2]
        close(features[..., :width], data["dino_features"])
        close(features[..., width:], data["siglip_features"])
        close(model.projector(features), data["projected"])


def test_every_hidden_state_and_logit() -> None:
    model, data, trace = loaded("nano_openvla").model, recorded("nano_openvla"), []
    with torch.no_grad():
        sequence = model.splice(prompts("nano_openvla"))
        logits = model.language_model.logits(model.hidden(sequence, trace=trace))
    for layer, states in enumerate(trace):
        close(states[sequence.mask], data[f"hidden_{layer}"][sequence.mask], ROUNDED)
    close(logits[sequence.mask], data["logits"][sequence.mask], ROUNDED)


def test_sft_loss_and_the_gradient_of_every_parameter() -> None:
    model, data = loaded("nano_openvla").model, recorded("nano_openvla")
    model.zero_grad()
    loss = token_loss(model(prompts("nano_openvla")), data["labels"])
    loss.backward()
    assert loss.item() == pytest.approx(data["loss"].item(), rel=RELATIVE)
    same_gradients({"": model}, extra("nano_openvla")["grad_norms"], model)


def test_greedy_tokens_one_by_one() -> None:
    model, data = loaded("nano_openvla").model, recorded("nano_openvla")
    inputs, length = prompts("nano_openvla"), int(data["prompt_len"])
    for row, expected in enumerate(data["generated"]):
        ids = inputs.ids[row : row + 1, :length]
        alone = Inputs(ids, torch.ones_like(ids), inputs.pixels[row : row + 1])
        assert torch.equal(decode(model, alone, any_token=True).tokens[0], expected)


def test_greedy_tokens_and_actions_of_the_full_layout() -> None:
    model, data = loaded("full_openvla").model, recorded("full_openvla")
    stats = actions.action_stats(model.config)
    ids = torch.nn.functional.pad(data["prompt_ids"], (0, 1), value=29871)  # `predict_action` appends it where it lacks
    for row, expected in enumerate(data["generated"]):
        inputs = Inputs(ids[row : row + 1], torch.ones_like(ids[:1]), data["pixel_values"][row : row + 1])
        tokens = decode(model, inputs, any_token=True).tokens[0]
        assert torch.equal(tokens, expected)
        found = stats.unnormalise(actions.decode(tokens.numpy(), model.config.base_vocab))
        assert np.array_equal(found, data["actions"][row].numpy())


def test_action_slice_and_all_logits_of_the_full_layout() -> None:
    model, data = loaded("full_openvla").model, recorded("full_openvla")
    ids = torch.nn.functional.pad(data["prompt_ids"], (0, 1), value=29871)
    ids = torch.cat([ids, data["generated"]], 1)
    inputs = Inputs(ids, torch.ones_like(ids), data["pixel_values"])
    with torch.no_grad():
        hidden = model.hidden(model.splice(inputs))
        full = model.language_model.logits(hidden)
    count = data["logits_action_slice_allpos"].shape[1]
    close(model.action_logits(hidden)[:, :count], data["logits_action_slice_allpos"], ROUNDED)
    close(full.logsumexp(-1)[:, :count], data["logsumexp_full"], ROUNDED)
    close(full[0, count - 9 : count], data["logits_full_last9_b0"], ROUNDED)


def test_actor_critic_acts() -> None:
    model, data = loaded("full_openvla").model, recorded("rl4vla_actor_critic")
    head = value_head("rl4vla_actor_critic", model)
    out = decode(model, prompts("rl4vla_actor_critic"))
    assert torch.equal(out.tokens, data["greedy_tokens"])
    close(score(model, out.logits, out.tokens).sum(1), data["greedy_logprob"][:, 0])
    torch.testing.assert_close(head(out.hidden).detach(), data["greedy_value"], rtol=RELATIVE, atol=0)
    torch.testing.assert_close(head(out.hidden).detach(), data["value_only"], rtol=RELATIVE, atol=0)


@pytest.mark.parametrize("tokens, kind", [("greedy_tokens", "eval"), ("rand_tokens", "rand")])
def test_actor_critic_scores_given_actions(tokens: str, kind: str) -> None:
    model, data = loaded("full_openvla").model, recorded("rl4vla_actor_critic")
    with torch.no_grad():
        out = teacher_forced(model, prompts("rl4vla_actor_critic"), data[tokens])
        values = value_head("rl4vla_actor_critic", model)(out.hidden)
    close(score(model, out.logits, out.tokens).sum(1), data[f"{kind}_logprob"][:, 0])
    close(sampling.entropy(out.logits).mean(1), data[f"{kind}_entropy"][:, 0])
    torch.testing.assert_close(values, data[f"{kind}_value"], rtol=RELATIVE, atol=0)


def test_actor_critic_gradients() -> None:
    """The recorded loss: -mean(log-prob) + 0.5 mean(value^2) - 0.01 mean(entropy), of the random tokens."""
    model, data = loaded("full_openvla").model, recorded("rl4vla_actor_critic")
    head = value_head("rl4vla_actor_critic", model)
    model.zero_grad()
    out = teacher_forced(model, prompts("rl4vla_actor_critic"), data["rand_tokens"])
    values = head(out.hidden)
    actor = -score(model, out.logits, out.tokens).sum(1).mean() - 0.01 * sampling.entropy(out.logits).mean()
    loss = actor + 0.5 * values.square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(data["loss"].item(), rel=RELATIVE)
    same_gradients({"": model, "value_head.": head}, extra("rl4vla_actor_critic")["grad_norms"], model)


@pytest.mark.parametrize("merge", [True, False])
def test_adapter(merge: bool) -> None:
    data = recorded("peft_adapter")
    model = load(CASES / "peft_adapter" / "adapter", base=CASES / "nano_openvla", merge=merge).model
    inputs = Inputs(data["input_ids"], data["attention_mask"], recorded("nano_openvla")["pixel_values_resize-naive"])
    with torch.no_grad():
        sequence = model.splice(inputs)
        hidden = model.hidden(sequence)
        logits = model.language_model.logits(hidden)
    close(logits[sequence.mask], data["logits_merged" if merge else "logits"][sequence.mask], ADAPTER)
    begin, end = model.config.action_range
    close(model.action_logits(hidden), logits[..., begin:end])


def test_adapter_survives_being_written(tmp_path: Path) -> None:
    folder = CASES / "peft_adapter" / "adapter"
    model = load(folder, base=CASES / "nano_openvla", merge=False).model
    adapters.save_adapter(model, tmp_path, adapters.read_adapter_config(folder))
    before, after = (
        {name: files.read(name) for name in files.entries}
        for files in (adapters.open_file(place / adapters.ADAPTER_WEIGHTS) for place in (folder, tmp_path))
    )
    assert before.keys() - after.keys() <= {"base_model.model.language_model.lm_head.base_layer.weight"}
    assert all(torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize("name, attention", [("causal", "causal"), ("bidir", "bidirectional")])
def test_parallel_decoding(name: str, attention: Any) -> None:
    model, data = loaded("full_openvla").model, recorded("rlinf_oft_chunk4")
    head, inputs = value_head("rlinf_oft_chunk4", model), prompts("rl4vla_actor_critic")
    batch, chunk, dims = data["rand_tokens"].shape
    out = parallel_decode(model, inputs, chunk, attention)
    assert torch.equal(out.tokens.view(batch, chunk, dims), data[f"{name}_greedy_tokens"])
    close(score(model, out.logits, out.tokens), data[f"{name}_greedy_logprobs"])
    torch.testing.assert_close(head(out.hidden).detach(), data[f"{name}_greedy_values"], rtol=RELATIVE, atol=1e-6)
    normalised = actions.decode(out.tokens.view(batch, chunk, dims).numpy(), model.config.base_vocab)
    stats = actions.action_stats(model.config)
    assert np.array_equal(stats.unnormalise(normalised, actions.SPREAD_EPSILON), data[f"{name}_actions"].numpy())
    given = parallel_forward(model, inputs, data["rand_tokens"].flatten(1), attention)
    close(score(model, given.logits, given.tokens), data[f"{name}_rand_logprobs"])
    close(sampling.entropy(given.logits), data[f"{name}_rand_entropy"])
    torch.testing.assert_close(head(given.hidden).detach(), data[f"{name}_rand_values"], rtol=RELATIVE, atol=1e-6)


def test_llama2_prompt_ids() -> None:
    from tokenizers import Tokenizer

    tokenizer = PromptTokenizer(Tokenizer.from_file(str(llama2_tokenizer())), size("7b"))
    *sentences, acted = json.loads((CASES / "tokenizer_cases.json").read_text())
    for case in sentences:
        assert tokenizer.prompt(case["instruction"]) == case["ids"]
    tokens = acted["action_tokens"]
    assert acted["sft_text_ids"] == [*tokenizer.prompt("put carrot on plate"), *tokens, 2]
    assert tokenizer.backend.decode(tokens) == acted["decoded"]


def llama2_tokenizer() -> Path:
    """$VGB_LLAMA2_TOKENIZER, or the file inside the package `wordllama`, which is not imported."""
    if "VGB_LLAMA2_TOKENIZER" in os.environ:
        return Path(os.environ["VGB_LLAMA2_TOKENIZER"])
    package = importlib.util.find_spec("wordllama")
    if package is None:
        pytest.skip("no Llama-2 tokenizer: set VGB_LLAMA2_TOKENIZER, or install wordllama")
    (folder,) = package.submodule_search_locations
    return Path(folder) / "tokenizers" / "l2_supercat_tokenizer_config.json"


def test_names_and_shapes_of_the_7b_checkpoint() -> None:
    expected = {}
    for name, count, shape in json.loads((SHARED / "spec" / "openvla7b_keys.json").read_text()):
        places = range(count) if ".N." in name else [0]
        expected |= {name.replace(".N.", f".{place}."): tuple(shape) for place in places}
    assert checkpoint_shapes(size("7b")) == expected
