"""config.json <-> `OpenVLAConfig`, strictly: an unknown field is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from vla_gen_bench.data import read_json
from vla_gen_bench.errors import shown, suggest
from vla_gen_bench.policies.openvla.checkpoint.config_text import parse_text
from vla_gen_bench.policies.openvla.checkpoint.infer import Shapes, infer_tower
from vla_gen_bench.policies.openvla.checkpoint.strict_fields import (
    IGNORED,
    Fixed,
    Limits,
    check_fields,
    check_list,
    check_mapping,
    check_whole,
)
from vla_gen_bench.policies.openvla.config import (
    ACTION_BINS,
    Acting,
    CheckpointError,
    OpenVLAConfig,
    PixelRange,
    ResizeStrategy,
    ViTConfig,
)
from vla_gen_bench.resources import data_dir
from vla_gen_bench.strict_yaml import read_yaml

CONFIG_FILE = "config.json"
OWN_KEY = "vla_gen_bench"

KNOWN = IGNORED | frozenset(
    "model_type image_resize_strategy image_sizes n_action_bins norm_stats output_projector_states pad_to_multiple_of "
    "pad_token_id text_config timm_model_ids timm_override_act_layers use_fused_vision_backbone unnorm_key".split()
) | {OWN_KEY}  # fmt: skip
REQUIRED = ("image_sizes", "pad_to_multiple_of", "pad_token_id", "text_config", "timm_model_ids")

FIXED: Fixed = {
    "model_type": ("openvla",),
    "n_action_bins": (ACTION_BINS,),
    "use_fused_vision_backbone": (True,),
    "output_projector_states": (False,),
    "timm_override_act_layers": ([None, None], None),
}

SIDES: Limits = {"image_sizes": (1, 1 << 13)}
TOP_LIMITS: Limits = {"pad_to_multiple_of": (0, 1 << 21), "pad_token_id": (0, 1 << 21)}
TOWER_LIMITS: Limits = {
    "width": (1, 1 << 16),
    "depth": (1, 1 << 12),
    "heads": (1, 1 << 12),
    "mlp": (1, 1 << 18),
    "patch": (1, 1 << 12),
    "image": (1, 1 << 13),
    "registers": (0, 1 << 12),
}
TOWER_FIXED: Fixed = {
    **dict.fromkeys(("cls_token", "layer_scale", "attn_pool", "stem_norm"), (True, False)),
    "pixels": get_args(PixelRange),
}


def read_config(folder: Path, shapes: Shapes | None = None, heads: tuple[int, int] | None = None) -> OpenVLAConfig:
    """Reads `folder`/config.json; arguments as for `parse_config`."""
    file = folder / CONFIG_FILE
    if not file.exists():
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}; expected the folder of an OpenVLA checkpoint")
    data = read_json(file, dict[str, Any], error=CheckpointError)
    return parse_config(data, str(file), shapes, heads)


def size(name: str) -> OpenVLAConfig:
    """Returns one of this project's sizes: "pico" (tests), "nano" (default), "7b" (`openvla/openvla-7b`)."""
    folder = data_dir() / "policies" / "openvla" / "sizes"
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = [path.stem for path in folder.glob("*.yaml")]
        raise CheckpointError(f"no size '{name}'{suggest(name, known)}")
    return parse_config(read_yaml(file), str(file))


def parse_config(
    data: Any, where: str, shapes: Shapes | None = None, heads: tuple[int, int] | None = None
) -> OpenVLAConfig:
    """Turns the fields of config.json into a config.

    Args:
        data: The fields.
        where: The file's name in messages.
        shapes: Tensor name -> shape of the checkpoint, used to size vision towers missing from the table.
        heads: Attention heads of the two towers, which tensors do not reveal. See `infer_tower`.

    Raises:
        CheckpointError: An unknown, missing or unsupported field.
    """
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where}: expected a mapping, got {type(data).__name__}")
    check_fields(data, KNOWN, FIXED, where)
    for key in REQUIRED:
        if data.get(key) is None:
            raise CheckpointError(f"{where}: {key}: missing")
    check_whole(data, TOP_LIMITS, where)
    strategy = data.get("image_resize_strategy", "resize-naive")
    if strategy not in get_args(ResizeStrategy):
        hint = suggest(str(strategy), get_args(ResizeStrategy))
        raise CheckpointError(f"{where}: image_resize_strategy: '{str(strategy)[:60]}'{hint}")
    try:
        return OpenVLAConfig(
            vision=_towers(data, where, shapes, heads),
            text=parse_text(data["text_config"], f"{where}: text_config"),
            pad_multiple=data["pad_to_multiple_of"],
            pad=data["pad_token_id"],
            resize=strategy,
            norm_stats=dict(check_mapping(data.get("norm_stats"), f"{where}: norm_stats")),
            acting=_acting(data, where),
            fields=dict(data),
        )
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if text.startswith(where) else f"{where}: {text}") from None


def config_fields(config: OpenVLAConfig) -> dict[str, Any]:
    """Returns the fields of config.json for `config`: the fields it was read from, updated."""
    own = {**asdict(config.acting), "vision": [_tower_fields(tower) for tower in config.vision]}
    published = all(name in vision_table() for name in config.fields.get("timm_model_ids", ()))
    if published:
        del own["vision"]
    changed = {"norm_stats": config.norm_stats, "image_resize_strategy": config.resize, OWN_KEY: own}
    return {**config.fields, **changed}


def with_stats(config: OpenVLAConfig, stats: Mapping[str, Any]) -> OpenVLAConfig:
    """Returns `config` with the entries of `stats` added to its `norm_stats`."""
    return replace(config, norm_stats={**config.norm_stats, **stats})


@lru_cache(maxsize=1)
def vision_table() -> dict[str, dict[str, Any]]:
    """Returns timm id -> fields of `ViTConfig`: the towers of published checkpoints."""
    return read_yaml(data_dir() / "policies" / "openvla" / "vision.yaml")


def _towers(data: Mapping[str, Any], where: str, shapes: Shapes | None, heads: tuple[int, int] | None) -> Any:
    ids = check_list(data["timm_model_ids"], str, f"{where}: timm_model_ids")
    sides = check_list(data["image_sizes"], int, f"{where}: image_sizes")
    if len(ids) != 2 or len(sides) != 2:
        raise CheckpointError(
            f"{where}: timm_model_ids, image_sizes: expected two entries each, got {shown(ids)}, {shown(sides)}"
        )
    for side in sides:
        check_whole({"image_sizes": side}, SIDES, where)
    own = _own(data, where).get("vision")
    if own is not None:
        entries = check_list(own, dict, f"{where}: {OWN_KEY}.vision")
        if len(entries) != 2:
            raise CheckpointError(f"{where}: {OWN_KEY}.vision: expected two towers, got {len(entries)}")
        given = heads or (None, None)
        return tuple(
            _with_heads(_own_tower(entry, f"{where}: {OWN_KEY}.vision"), count, f"{OWN_KEY}.vision", where)
            for entry, count in zip(entries, given, strict=True)
        )
    towers = []
    for place, (name, side) in enumerate(zip(ids, sides, strict=True)):
        if name in vision_table():
            towers.append(_known_tower(name, side, heads and heads[place], where))
        elif shapes is None:
            raise CheckpointError(f"{where}: timm_model_ids: unknown tower '{name}'{suggest(name, vision_table())}")
        else:
            towers.append(infer_tower(shapes, place, side, heads and heads[place]))
    return tuple(towers)


def _known_tower(name: str, side: int, heads: int | None, where: str) -> ViTConfig:
    return _with_heads(ViTConfig(**{**vision_table()[name], "image": side}), heads, name, where)


def _with_heads(tower: ViTConfig, heads: int | None, name: str, where: str) -> ViTConfig:
    """Returns `tower`; raises `CheckpointError` if the user gives other heads than it has."""
    if heads not in (None, tower.heads):
        raise CheckpointError(f"{where}: vision_heads: {heads} given; {name} has {tower.heads}")
    return tower


def _own_tower(entry: Mapping[str, Any], where: str) -> ViTConfig:
    check_fields(entry, [field.name for field in fields(ViTConfig)], TOWER_FIXED, where)
    check_whole(entry, TOWER_LIMITS, where)
    stem = check_list(entry.get("stem", ()), int, f"{where}: stem")
    for channels in stem:
        check_whole({"stem": channels}, {"stem": TOWER_LIMITS["width"]}, where)
    missing = [key for key in TOWER_LIMITS if entry.get(key) is None and key != "registers"]
    if missing:
        raise CheckpointError(f"{where}: {missing[0]}: missing")
    return ViTConfig(**{**entry, "registers": entry.get("registers") or 0, "stem": tuple(stem)})


def _tower_fields(tower: ViTConfig) -> dict[str, Any]:
    return {**asdict(tower), "stem": list(tower.stem)}


def _acting(data: Mapping[str, Any], where: str) -> Acting:
    given = {key: value for key, value in _own(data, where).items() if key != "vision"}
    check_fields(given, [field.name for field in fields(Acting)], {}, f"{where}: {OWN_KEY}")
    check_whole(given, {"chunk": (1, 1 << 10)}, f"{where}: {OWN_KEY}")
    given = {key: value for key, value in given.items() if value is not None}
    keys = [key for key in (given.get("unnorm_key"), data.get("unnorm_key")) if key is not None]
    for key in keys:
        if not isinstance(key, str):
            raise CheckpointError(f"{where}: unnorm_key: expected text, got {shown(key)}")
    if len(set(keys)) > 1:
        raise CheckpointError(f"{where}: unnorm_key: '{keys[1]}', but {OWN_KEY}.unnorm_key: '{keys[0]}'; keep one")
    return Acting(**{**given, "unnorm_key": keys[0] if keys else None})


def _own(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    return check_mapping(data.get(OWN_KEY), f"{where}: {OWN_KEY}")
