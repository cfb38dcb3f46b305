"""Digests of third-party code: an edited policy or effect must not continue the log of the old one.

The code of this package is excluded because every session of a log records its version and git state.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_gen_bench.data import read_json
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.policies.digests import file_digests, parts_below, sha256_of
from vla_gen_bench.policies.importing import find_spec, is_installed

if TYPE_CHECKING:
    from vla_gen_bench.policies.card import Card

OWN_PACKAGE = __name__.partition(".")[0]
EFFECTS = "vla_gen_bench.effects"
REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = frozenset(".npz .npy .pt .pth .bin .ckpt .safetensors .onnx .gguf .pkl .h5 .msgpack .json".split())


def checkpoint_digests(path: Path) -> dict[str, str]:
    """Returns relative name -> SHA-256 of all files of a checkpoint, tokenizer included.

    The weights under an adapter count too, in a local folder that its config names.
    """
    found = file_digests(path)
    base = base_of(path)
    if base is not None:
        found |= {f"base: {name.partition('/')[2] or name}": digest for name, digest in file_digests(base).items()}
    return found


def base_of(adapter: Path) -> Path | None:
    """Returns the local folder of the model under an adapter; None for other checkpoints, or if it is on the hub."""
    config = adapter / ADAPTER_CONFIG
    if not config.is_file():
        return None
    name = read_json(config, dict[str, Any]).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return None
    places = (adapter / name, Path(name).expanduser())
    return next((place for place in places if place.is_dir() and place.resolve() != adapter.resolve()), None)


def policy_digests(card: Card, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns digests of everything that decides how a policy acts: its card and code, its checkpoint, its files."""
    return {
        "digest": card.digest(own_checkpoint="checkpoint" not in arguments),
        "checkpoint": checkpoint_digest(arguments.get("checkpoint")),
        **_option_digests(arguments),
    }


def checkpoint_digest(checkpoint: Any) -> str | None:
    """Returns a digest of a local checkpoint's bytes; None for a hub id, which the policy pins to a commit."""
    if not isinstance(checkpoint, str) or not Path(checkpoint).exists():
        return None
    return digest_of(checkpoint_digests(Path(checkpoint)))


def _option_digests(options: Mapping[str, Any]) -> dict[str, Any]:
    """Identifies the files that options name, other than the checkpoint; empty if there are none."""
    files = option_files({key: value for key, value in options.items() if key != "checkpoint"})
    return {"files": digest_of(files)} if files else {}


def card_files(folder: Path, checkpoint: Path | None) -> dict[str, str]:
    """Returns relative name -> SHA-256 of the files in a card's folder (see `parts_below`), except its checkpoint."""
    files = [file for file in parts_below(folder) if checkpoint is None or not file.is_relative_to(checkpoint)]
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}


def code_digests(reference: str) -> dict[str, str]:
    """Returns name -> SHA-256 of the source behind `module:attr`, found without importing it.

    Covers the module, or all files of its top-level package (see `parts_below`), and all modules they import that are
    neither installed nor in the standard library. Of files beside a lone module, those count that its text names:
    "weights.npz", "weights/*.npz", or the weights in a folder "weights". Imports by a computed name are not found.
    """
    found: dict[str, str] = {}
    waiting, seen = [reference.partition(":")[0].partition(".")[0]], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name == OWN_PACKAGE:
            continue
        seen.add(name)
        for file, label in _module_files(name, installed=len(seen) == 1):
            found[label] = sha256_of(file)
            if file.suffix == ".py":
                imports, named = _mentions(file)
                waiting.extend(sorted(imports))
                found |= {f"{label}: {item}": sha256_of(path) for item, path in named.items()}
    return found


def option_files(options: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns option -> digests of the file or folder it names, for options that name one, at any depth."""
    found = {}
    for key, value in options.items():
        if isinstance(value, str) and _exists(value):
            found[key] = file_digests(Path(value).expanduser())
        elif isinstance(value, (list, tuple, dict)):
            inner = value if isinstance(value, dict) else dict(enumerate(value))
            found |= option_files({f"{key}.{name}": item for name, item in inner.items()})
    return found


def effect_plugins(names: Iterable[str]) -> dict[str, str]:
    """Returns effect -> its distribution's version and a code digest, for effects that are not built in."""
    names = set(names)
    points = {point.name: point for point in entry_points(group=EFFECTS)}
    plugins = {name: _plugin(points[name].value, distribution(points[name])) for name in names & set(points)}
    named = {name: _plugin(name, "module") for name in names if ":" in name}
    return dict(sorted((plugins | named).items()))


def distribution(point: EntryPoint) -> str:
    """Returns "name version" of the distribution that installed an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"


def _plugin(reference: str, origin: str) -> str:
    files = sorted(code_digests(reference).items())
    return f"{origin} {hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"


def _module_files(name: str, installed: bool) -> Iterator[tuple[Path, str]]:
    """Yields the source files of a top-level module with their labels.

    Args:
        installed: Include modules in folders of installed packages; otherwise those yield nothing.
    """
    spec = find_spec(name, None)
    if spec is None:
        return
    roots = [Path(place) for place in spec.submodule_search_locations or []]
    origin = Path(spec.origin) if spec.origin else None
    if not installed and any(is_installed(place) for place in [*roots, *filter(None, [origin])]):
        return
    for root in roots:
        yield from ((file, f"{name}/{file.relative_to(root).as_posix()}") for file in parts_below(root))
    if not roots and origin is not None and origin.is_file():
        yield origin, origin.name


def _mentions(file: Path) -> tuple[set[str], dict[str, Path]]:
    """Returns a source file's top-level imports and the files it names, relative to it or to the working directory."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(), {}
    imports: set[str] = set()
    named: dict[str, Path] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named |= _named_by(node.value, file.parent)
            if REFERENCE.match(node.value):  # "module:attr", as an effect's `apply` may be
                imports.add(node.value.partition(":")[0].partition(".")[0])
    return imports, named


def _named_by(text: str, folder: Path) -> dict[str, Path]:
    """Returns name -> file for a text that may name files in a folder or in the working directory."""
    if not 0 < len(text) < 200 or not text.isprintable() or text.startswith("/") or Path(text).name in ("", ".."):
        return {}
    if "*" in text:
        return {place.relative_to(folder).as_posix(): place for place in _matching(text, folder) if place.is_file()}
    place = next((place for place in (folder / text, Path(text)) if place.is_file()), None)
    if place is not None:
        return {text: place} if place.suffix else {}
    within = parts_below(folder / text) if (folder / text).is_dir() else ()
    return {file.relative_to(folder).as_posix(): file for file in within if file.suffix in WEIGHTS}


def _matching(pattern: str, folder: Path) -> list[Path]:
    if not Path(pattern).suffix.strip(".*") or ".." in Path(pattern).parts:
        return []  # "*" and "a * b" are no patterns of files
    try:
        return sorted(folder.glob(pattern))
    except (ValueError, OSError):
        return []


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, ValueError):
        return False
