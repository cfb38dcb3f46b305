"""Reads `dataset_statistics.json`, the action scaling of a checkpoint's own data, written by fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vla_gen_bench.data import read_json
from vla_gen_bench.policies.openvla.actions import parse_stats
from vla_gen_bench.policies.openvla.checkpoint.config_file import with_stats
from vla_gen_bench.policies.openvla.config import CheckpointError, OpenVLAConfig

STATISTICS_FILE = "dataset_statistics.json"


def with_statistics(config: OpenVLAConfig, folder: Path) -> OpenVLAConfig:
    """Returns `config` with the entries of `folder`/dataset_statistics.json, if it exists.

    They take precedence over those of config.json, which fine-tuning leaves unchanged from the base model. A single
    entry becomes the checkpoint's choice, unless config.json chooses another data set; then the user must choose.

    Raises:
        CheckpointError: The file is damaged; names file and field.
    """
    stats = read_statistics(folder / STATISTICS_FILE)
    if not stats:
        return config
    config = with_stats(config, stats)
    chosen = config.acting.unnorm_key
    if chosen in stats or (chosen is None and len(stats) > 1):
        return config
    only = next(iter(stats)) if chosen is None else None
    return replace(config, acting=replace(config.acting, unnorm_key=only))


def read_statistics(file: Path) -> dict[str, Any]:
    """Returns data set -> checked statistics; empty without the file."""
    if not file.is_symlink() and not file.exists():  # a pipe, folder or dead link is refused, not passed over
        return {}
    stats = read_json(file, dict[str, Any], error=CheckpointError)
    for key, entry in stats.items():
        parse_stats(entry, f"{file}: {key}")
    return stats
