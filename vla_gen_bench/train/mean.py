"""The mean of several checkpoints' weights: averages out the random wandering of training (Polyak averaging).

If an iteration's gradient is mostly noise, weights drift at random around what they learn; their mean does not. Also
called a model soup (Wortsman et al. 2022). `ema` in RL recipes does the same during training, over about 1 / (1 - ema)
iterations.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.checkpoint.config_file import read_config
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.checkpoint.tensors import TensorFiles, check_names, check_shapes, open_checkpoint


def mean_checkpoint(folders: Sequence[Path], out: Path) -> None:
    """Writes a checkpoint whose policy is the mean of others; the rest, including a value head, is the last one's.

    Sums are float64, in the order given; tensors keep the last one's type. `out` is complete or absent.

    Args:
        folders: Checkpoints with equal tensor names and shapes that act the same way, in one file or in shards.
        out: A folder that does not exist yet, or is empty.

    Raises:
        UserError: Fewer than two checkpoints; one that cannot be read, has other tensors, or decodes or scales actions
            differently; `out` holds something or cannot be written.
    """
    if len(folders) < 2:
        raise UserError("a mean takes two checkpoints or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: holds files already; name another folder, or empty it")
    opened = [open_checkpoint(folder) for folder in folders]
    last = opened[-1]
    for folder, files in zip(folders, opened, strict=True):
        check_names(last.shapes, files.entries, (), folder)
        check_shapes(last.shapes, files.shapes, folder)
    _check_act_alike(folders)
    draft = out.with_name(f".{out.name}.draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        _write(draft, folders[-1], opened)
        draft.replace(out)
    except (OSError, need("safetensors").SafetensorError) as error:
        raise UserError(f"--out {out}: cannot be written ({error}); is there room, and may you write there?") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_act_alike(folders: Sequence[Path]) -> None:
    """Raises `UserError` if the weights of one folder encode actions differently than those of the last one."""
    *others, last = [read_config(folder) for folder in folders]
    for folder, config in zip(folders, others):
        for what in ("acting", "norm_stats"):
            if getattr(config, what) != getattr(last, what):
                raise UserError(
                    f"{folder}: its '{what}' differs from that of {folders[-1]}; a mean takes policies that act alike"
                )


def _write(out: Path, like: Path, opened: Sequence[TensorFiles]) -> None:
    """Writes the mean to `out`; other files are copied from `like`."""
    last = opened[-1]
    sources = {entry.file for entry in last.entries.values()}
    shutil.copytree(like, out, ignore=lambda *_: {source.name for source in sources})
    for source in sources:
        names = [name for name, entry in last.entries.items() if entry.file == source]
        means = {name: _mean([files.read(name) for files in opened]) for name in names}
        need("safetensors.torch").save_file(means, out / source.name, metadata={"format": "pt"})


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return (sum(tensor.double() for tensor in tensors) / len(tensors)).to(tensors[-1].dtype)
