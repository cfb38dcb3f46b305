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
from vla_gen_bench.policies.openvla.checkpoint.action_head import ACTION_HEAD_FILE
from vla_gen_bench.policies.openvla.checkpoint.config_file import read_config
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.checkpoint.tensors import (
    TensorFiles,
    check_names,
    check_shapes,
    open_checkpoint,
    open_file,
)


def mean_checkpoint(folders: Sequence[Path], out: Path) -> None:
    """Writes a checkpoint whose policy is the mean of others, with the regression head of an L1 policy.

    The rest, including a value head, is the last one's.

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
    models = [open_checkpoint(folder) for folder in folders]
    _check_same_tensors(folders, models)
    _check_act_alike(folders)
    opened = [models]
    if read_config(folders[-1]).acting.head == "l1":
        files = [folder / ACTION_HEAD_FILE for folder in folders]
        opened.append([_open_head(file) for file in files])
        _check_same_tensors(files, opened[-1])
    draft = out.with_name(f".{out.name}.draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        _write(draft, folders[-1], opened)
        draft.replace(out)
    except (OSError, need("safetensors").SafetensorError) as error:
        raise UserError(f"--out {out}: cannot be written ({error}); is there room, and may you write there?") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _open_head(file: Path) -> TensorFiles:
    if not file.is_file():
        raise UserError(f"{file}: not found; config.json promises a regression head (head: l1), which has a mean too")
    return open_file(file)


def _check_same_tensors(places: Sequence[Path], opened: Sequence[TensorFiles]) -> None:
    """Raises `UserError` for a place whose tensors have other names or shapes than those of the last one."""
    last = opened[-1]
    for place, files in zip(places, opened, strict=True):
        check_names(last.shapes, files.entries, (), place)
        check_shapes(last.shapes, files.shapes, place)


def _check_act_alike(folders: Sequence[Path]) -> None:
    """Raises `UserError` if the weights of one folder encode actions differently than those of the last one."""
    *others, last = [read_config(folder) for folder in folders]
    for folder, config in zip(folders, others):
        for what in ("acting", "norm_stats"):
            if getattr(config, what) != getattr(last, what):
                raise UserError(
                    f"{folder}: its '{what}' differs from that of {folders[-1]}; a mean takes policies that act alike"
                )


def _write(out: Path, like: Path, opened: Sequence[Sequence[TensorFiles]]) -> None:
    """Writes the means to `out`; other files are copied from `like`.

    Args:
        opened: For model and head, the tensors of every checkpoint.
    """
    averaged = {entry.file.name for alike in opened for entry in alike[-1].entries.values()}
    shutil.copytree(like, out, ignore=lambda *_: averaged)
    for alike in opened:
        entries = alike[-1].entries
        for source in {entry.file for entry in entries.values()}:
            names = [name for name, entry in entries.items() if entry.file == source]
            means = {name: _mean([files.read(name) for files in alike]) for name in names}
            need("safetensors.torch").save_file(means, out / source.name, metadata={"format": "pt"})


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return (sum(tensor.double() for tensor in tensors) / len(tensors)).to(tensors[-1].dtype)
