"""How fast OpenVLA trains and acts on this machine, and how much GPU memory the 7B model needs; part of `vgb bench`.

Weights and images are random: neither speed nor memory depends on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from statistics import median

import torch
from torch import Tensor

from vla_gen_bench import runtime
from vla_gen_bench.bench.measure import Line, peak_memory_gib
from vla_gen_bench.log import provenance
from vla_gen_bench.policies.openvla.checkpoint.config_file import size
from vla_gen_bench.policies.openvla.checkpoint.fresh import new_model
from vla_gen_bench.policies.openvla.checkpoint.loading import empty_model
from vla_gen_bench.policies.openvla.config import OpenVLAConfig
from vla_gen_bench.policies.openvla.model import lora
from vla_gen_bench.policies.openvla.model.decoding import ACTION_TOKENS, teacher_forced
from vla_gen_bench.policies.openvla.model.sampling import log_probs
from vla_gen_bench.policies.openvla.model.value import SeparateCritic, ValueHead, initialise_value
from vla_gen_bench.policies.openvla.model.vla import Inputs, OpenVLA
from vla_gen_bench.policies.openvla.oft import choose_tokens

SIZES = ("pico", "nano")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
THREADS = (1, 2)
TRAIN_BATCH = 32
DECODE_BATCHES = (1, 8, 32)
GPU_BATCHES = (1, 8, 64)
PPO_BATCH = 8  # RL4VLA's minibatch
PROMPT_TOKENS = 24  # the benchmark's sentences have 20 to 31 in Llama 2's tokenizer
SECONDS = 2.0  # duration of each timing
LEAST_REPEATS = 3
CLIP = 0.2


def cpu() -> Iterator[Line]:
    """Training and decoding speed of the small sizes on the CPU; also with two threads if there are two cores."""
    cores = runtime.usable_cores()
    for name, threads, dtype in product(SIZES, [count for count in THREADS if count <= cores], DTYPES):
        how = f"OpenVLA {name}, {dtype}, {threads} thread{'s' * (threads > 1)}"
        with _threads(threads):
            rate = TRAIN_BATCH / _median_seconds(training_step(new_model(name), TRAIN_BATCH, DTYPES[dtype]))
            yield Line(f"{how}: training, batch {TRAIN_BATCH}", rate, "samples/s")
            model = new_model(name).to(DTYPES[dtype])
            for batch in DECODE_BATCHES:
                seconds = _median_seconds(decoding(model, batch))
                yield Line(f"{how}: decoding, batch {batch}", 1e3 * seconds, "ms")


def gpu(name: str = "7b", device: str = "cuda") -> Iterator[Line]:
    """Acting speed and memory of a large model in bfloat16, and memory of the PPO update.

    Args:
        device: "cpu" runs the same code; memory is then the peak of the process so far.
    """
    label = "CPU" if device == "cpu" else torch.cuda.get_device_name(device)
    how = f"OpenVLA {name}, bf16, {label}"
    yield from _until_full(acting(how, size(name), device), f"{how}: acting", device)
    for kind in ("shared", "separate"):
        title = f"{how}: PPO update, batch {PPO_BATCH}, {kind} critic, peak memory"
        yield from _until_full(updating(title, size(name), device, kind == "separate"), title, device)


def acting(how: str, config: OpenVLAConfig, device: str) -> Iterator[Line]:
    """Actions per second and peak memory of decoding, by batch size."""
    model = random_model(config, device)
    for batch in GPU_BATCHES:
        _start_measuring(device)
        seconds = _median_seconds(decoding(model, batch), device)
        yield Line(f"{how}: acting, batch {batch}", batch / seconds, "actions/s")
        yield Line(f"{how}: acting, batch {batch}, peak memory", _peak_gb(device), "GB")


def updating(title: str, config: OpenVLAConfig, device: str, separate: bool) -> Iterator[Line]:
    """Peak memory of PPO updates as in RL4VLA: LoRA of rank 32 in bfloat16, minibatches of 8.

    The paper reports 44.4 GB for a critic on the actor's own states, and 81.3 GB for one with its own backbone.
    """
    _start_measuring(device)
    step = ppo_step(config, device, separate)
    step()  # allocates the optimiser's state
    step()
    yield Line(title, _peak_gb(device), "GB")


def random_model(config: OpenVLAConfig, device: str) -> OpenVLA:
    """Returns a bfloat16 model with random weights, created on its device: no copy passes through main memory."""
    model = empty_model(config).to(torch.bfloat16).to_empty(device=device).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.02)
        else:
            parameter.fill_(0 if name.endswith("bias") else 1)
    return model


def random_inputs(model: OpenVLA, batch: int) -> Inputs:
    """Returns prompts of typical length with random words, and random images, on the model's device."""
    side, generator = model.config.image, torch.Generator().manual_seed(batch)
    ids = torch.randint(3, model.config.action_range[0], (batch, PROMPT_TOKENS), generator=generator)
    pixels = torch.randn(batch, 6, side, side, generator=generator)
    return Inputs(ids, torch.ones_like(ids), pixels).to(model.device, model.dtype)


def training_step(model: OpenVLA, batch: int, dtype: torch.dtype) -> Callable[[], object]:
    """Returns a function that does one supervised step: teacher-forced loss of the action tokens, gradients, AdamW.

    float32 weights; with bfloat16 the forward pass is under autocast.
    """
    inputs, bins = random_inputs(model, batch), _random_bins(model, batch)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            logits = teacher_forced(model, inputs, bins + model.config.action_range[0]).logits
        (-log_probs(logits, bins).mean()).backward()
        optimiser.step()

    return step


def decoding(model: OpenVLA, batch: int) -> Callable[[], object]:
    """Returns a function that decodes one query greedily: pixels and prompts to the seven tokens of each row."""
    inputs = random_inputs(model, batch)

    @torch.inference_mode()
    def query() -> object:
        return choose_tokens(model, inputs).tokens.cpu()

    return query


def ppo_step(config: OpenVLAConfig, device: str, separate: bool) -> Callable[[], object]:
    """Returns a PPO update to call: clipped surrogate and squared value error in one backward pass, then AdamW."""
    actor, head = _adapted(config, device), _value_head(config, device)
    critic = SeparateCritic(_adapted(config, device), head) if separate else None
    inputs, bins = random_inputs(actor, PPO_BATCH), _random_bins(actor, PPO_BATCH)
    learning = [p for part in (actor, critic or head) for p in part.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, 1e-4)
    old, advantage = torch.zeros(PPO_BATCH, device=device), torch.ones(PPO_BATCH, device=device)

    def step() -> None:
        optimiser.zero_grad()
        out = teacher_forced(actor, inputs, bins + config.action_range[0])
        values = critic(inputs) if critic else head(out.hidden)
        loss = _surrogate(log_probs(out.logits, bins).sum(1), old, advantage) + values.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 10.0)
        optimiser.step()

    return step


def _until_full(lines: Iterator[Line], what: str, device: str) -> Iterator[Line]:
    """Yields `lines`; if the device runs out of memory, yields a report of that instead."""
    try:
        yield from lines
    except torch.cuda.OutOfMemoryError:
        yield Line(f"{what}: more than the memory there is", _memory_gb(device), "GB")


def _memory_gb(device: str) -> float:
    if device == "cpu":
        return provenance.hardware()["memory_gib"] * 2**30 / 1e9
    return torch.cuda.get_device_properties(device).total_memory / 1e9


def _start_measuring(device: str) -> None:
    """Frees unused memory and resets the device's peak counter; does nothing on a CPU."""
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gb(device: str) -> float:
    """Returns the peak of allocated memory in GB (10^9 bytes): tensors on a GPU, the entire process on a CPU."""
    return peak_memory_gib() * 2**30 / 1e9 if device == "cpu" else torch.cuda.max_memory_allocated(device) / 1e9


def _adapted(config: OpenVLAConfig, device: str) -> OpenVLA:
    return lora.add_lora(random_model(config, device), lora.LoraConfig(), torch.Generator(device).manual_seed(0))


def _value_head(config: OpenVLAConfig, device: str) -> ValueHead:
    return initialise_value(ValueHead(config.text.width), torch.Generator().manual_seed(0)).to(device, torch.bfloat16)


def _random_bins(model: OpenVLA, batch: int) -> Tensor:
    """Returns int64 [B, 7], each below 256."""
    return torch.randint(256, (batch, ACTION_TOKENS), generator=torch.Generator().manual_seed(1)).to(model.device)


def _surrogate(new: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
    """PPO's clipped objective, to minimise; float32 [B] each."""
    ratio = (new - old).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()


def _median_seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """Returns the median time of a call, after one warm-up call; it repeats for about `SECONDS`."""
    work()
    times: list[float] = []
    while len(times) < LEAST_REPEATS or sum(times) < SECONDS:
        if device != "cpu":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
