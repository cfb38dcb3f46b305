"""Resolves a checkpoint name to a folder: a path, or an id on the Hugging Face hub at a pinned commit."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from vla_gen_bench.errors import suggest
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.resources import data_dir
from vla_gen_bench.strict_yaml import read_yaml

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
COMMIT = re.compile(r"^[0-9a-f]{40}$")
WANTED = ("*.json", "*.safetensors", "training_state.pt", "*--*.pt")  # no code; openvla-oft's files, to name them


def find_checkpoint(name: str | Path, revision: str | None = None) -> Path:
    """Returns the folder of a checkpoint; one on the hub is downloaded or found in the local cache.

    Args:
        name: A folder, or "owner/name". An existing folder takes precedence; it has no revision.
        revision: Commit on the hub, 40 hex digits; a branch or tag may move, so a log could not identify the model.
            None = the pinned commit of `policies/openvla/hub.yaml`; an id that is not listed there needs a revision.

    Raises:
        CheckpointError: Not found; the hub is unreachable and the cache lacks it; no commit given.
    """
    path = Path(str(name)).expanduser()  # user input: YAML may have parsed it as a number or a list
    if path.is_dir():
        return path.resolve()
    if not isinstance(name, str) or not HUB_ID.match(name) or path.exists():
        raise CheckpointError(f"checkpoint '{name}': no such folder, and not an id on the hub (owner/name)")
    revision = revision or pinned_revisions().get(name)
    if revision is None or not COMMIT.match(str(revision)):
        raise CheckpointError(_no_commit(name, revision))
    return _download(name, revision)


def _no_commit(name: str, revision: object) -> str:
    """Returns a message that names the missing commit and how to find it."""
    given = (
        f"revision '{revision}' is no commit (40 hex digits)" if revision else "no such folder, and no commit pinned"
    )
    hint = suggest(name, pinned_revisions())
    return (
        f"checkpoint '{name}': {given}; give the folder of a checkpoint, or the hub's commit: "
        f"--policy-option revision=COMMIT, in training --set model.revision=COMMIT. "
        f"The hub's latest commit: python -c \"import huggingface_hub as h; print(h.model_info('{name}').sha)\""
        + (hint if "mean" in hint else "")
    )


@lru_cache(maxsize=1)
def pinned_revisions() -> dict[str, str]:
    """Returns hub id -> commit."""
    return read_yaml(data_dir() / "policies" / "openvla" / "hub.yaml")


def _download(name: str, revision: str) -> Path:
    library = need("huggingface_hub")
    try:
        return Path(library.snapshot_download(name, revision=revision, allow_patterns=list(WANTED)))
    except Exception as error:  # network, HTTP and cache errors of several libraries
        raise CheckpointError(
            f"checkpoint '{name}' at {revision}: not in the local cache, and the hub cannot be used "
            f"({type(error).__name__}: {_first_line(error)}). Where there is a network: "
            f"hf download {name} --revision {revision} --local-dir FOLDER; then give FOLDER as the checkpoint"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0].rstrip(".")
