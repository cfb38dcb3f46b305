"""`dataset_statistics.json`: how the actions of a checkpoint's own data are scaled, as fine-tuning writes it."""

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
    """Returns `config` with the entries of `folder`/dataset_statistics.json, where there is one.

    They go before those of config.json, which fine-tuning leaves as the base model had them. A single one is the
    checkpoint's choice, unless config.json chooses another data set: then nothing is chosen, and the user must.

    Raises:
        CheckpointError: The file is damaged, by file and field.
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
    """Returns data set -> statistics, each checked; nothing without the file."""
    if not file.is_file():
        return {}
    stats = read_json(file, dict[str, Any], error=CheckpointError)
    for key, entry in stats.items():
        parse_stats(entry, f"{file}: {key}")
    return stats
