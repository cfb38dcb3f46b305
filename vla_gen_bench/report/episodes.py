"""Every episode of a report's runs as compact JSON, and the videos that fit in a page.

    {"policies": [label], "baseline": place or null, "metric": ..., "scenarios": [[id, label]], "stages": [label],
     "words": [text], "episodes": [[scenario, seed, index, instruction, target, receptacle, table]],
     "outcomes": [per policy: [outcome, first success step, stage, ...]], "errors": {"policy:episode": cause},
     "videos": {"policy:episode": base64}}

Scenarios, stages and texts are indices into their lists. An outcome is a constant defined below; a missing step or
stage is -1. Each policy has three numbers per episode, in the order of `episodes`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vla_gen_bench.log.files import VIDEOS
from vla_gen_bench.log.rows import Key, Row
from vla_gen_bench.log.video import video_name
from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.load import Run

NOT_RUN, FAILURE, LOST, SUCCESS, ERROR = range(5)  # LOST: success at some step, not at the end
TEXTS = ("instruction", "target", "receptacle", "table")
CAUSE_LENGTH = 300
MIB = 2**20


class _Numbering(dict):
    """Numbers distinct texts in order of first appearance."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def page_data(comparison: Comparison, video_mib: float) -> dict[str, Any]:
    """Returns the JSON data for a page.

    Args:
        comparison: What to show.
        video_mib: Maximum size of embedded videos, in MiB of mp4.
    """
    rows = [run.episodes for run in comparison.runs]
    place = {row.info.id: number for number, row in enumerate(comparison.rows)}
    every: dict[Key, Row] = {key: row for found in reversed(rows) for key, row in found.items()}
    keys = sorted(every, key=lambda key: (place[key[0]], key[1:]))
    words, stages = _Numbering(), _Numbering()
    episodes = [[place[key[0]], *key[1:], *(words[getattr(every[key], name) or ""] for name in TEXTS)] for key in keys]
    outcomes = [[number for key in keys for number in _outcome(found.get(key), stages)] for found in rows]
    return {
        "policies": comparison.labels, "baseline": comparison.baseline, "metric": comparison.metric,
        "scenarios": [[row.info.id, row.info.label] for row in comparison.rows],
        "words": list(words), "stages": list(stages), "episodes": episodes, "outcomes": outcomes,
        "errors": _errors(rows, keys), "videos": _videos(comparison.runs, rows, keys, video_mib),
    }  # fmt: skip


def _outcome(row: Row | None, stages: _Numbering) -> tuple[int, int, int]:
    if row is None:
        return NOT_RUN, -1, -1
    if not row.ok:
        return ERROR, -1, -1
    outcome = SUCCESS if row.success_at_end else LOST if row.success_once else FAILURE
    step, stage = row.first_success_step, row.stage
    return outcome, -1 if step is None else step, -1 if stage is None else stages[stage]


def _errors(rows: Sequence[dict[Key, Row]], keys: Sequence[Key]) -> dict[str, str]:
    return {
        f"{policy}:{number}": (found[key].error or "")[:CAUSE_LENGTH]
        for policy, found in enumerate(rows)
        for number, key in enumerate(keys)
        if key in found and not found[key].ok
    }


# ---- videos ---------------------------------------------------------------------------------------------------


def _videos(runs: Sequence[Run], rows: Sequence[dict[Key, Row]], keys: Sequence[Key], mib: float) -> dict[str, str]:
    """Returns videos up to `mib`, spread evenly: one per policy, scenario and outcome, then the next of each."""
    number = {key: place for place, key in enumerate(keys)}
    seen: dict[tuple, int] = {}
    ranked = []
    for policy, key, success, path in _recorded(runs, rows):
        group = (policy, key[0], success)
        seen[group] = seen.get(group, 0) + 1
        ranked.append((seen[group], success, policy, number[key], path))
    room, chosen = mib * MIB, {}
    for _, _, policy, episode, path in sorted(ranked):
        room -= path.stat().st_size
        if room < 0:
            break
        chosen[f"{policy}:{episode}"] = b64encode(path.read_bytes()).decode()
    return chosen


def _recorded(runs: Sequence[Run], rows: Sequence[dict[Key, Row]]) -> Iterator[tuple[int, Key, bool, Path]]:
    for policy, (run, found) in enumerate(zip(runs, rows)):
        names = {path.name: path for path in _own_videos(run.folder)}
        for key, row in found.items() if names else ():
            if row.ok and video_name(key, row.success_at_end) in names:
                yield policy, key, row.success_at_end, names[video_name(key, row.success_at_end)]


def _own_videos(folder: Path) -> list[Path]:
    """Returns the log's videos. Links are skipped: they may lead to any file, and pages are passed on to others."""
    videos = folder / VIDEOS
    if videos.is_symlink():
        return []
    return [path for path in videos.glob("*.mp4") if path.is_file() and not path.is_symlink()]
