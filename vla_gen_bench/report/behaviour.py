"""What policies did, beyond success: shares of the stages, and their coverage of the workspace.

Both take a table of log rows: `EvalLog.frame()`, or `rows_of` for several runs. docs/stages.md defines the fields.
Rows of logs from before the fields existed, and errored episodes, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas

from vla_gen_bench.errors import UserError
from vla_gen_bench.log.coverage import covered
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.stages import STAGES


def rows_of(runs: Mapping[str, Path]) -> pandas.DataFrame:
    """Returns the rows of several logs , with `policy`, the key of `runs` (label -> folder), as first column."""
    parts = [EvalLog(folder).frame().assign(policy=label) for label, folder in runs.items()]
    joined = pandas.concat(parts, ignore_index=True)
    return joined[["policy", *joined.columns.drop("policy")]]


def stage_shares(frame: pandas.DataFrame, by: Sequence[str] = ("policy", "scenario")) -> pandas.DataFrame:
    """Returns the share of each stage per group, in [0, 1]; each row sums to 1.

    Args:
        frame: Rows of the log with the columns of `by`, and `stage`.
        by: What to group by, in the order of first appearance.

    Returns:
        Indexed by group; columns `episodes` (those with a stage), then all of `STAGES`, zeros included.
    """
    rows = _with(frame, "stage")
    counts = rows.groupby(list(by), sort=False)["stage"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(rows.set_index(list(by)).index.unique()).reindex(columns=list(STAGES), fill_value=0)
    episodes = counts.sum(axis=1)
    shares = counts.div(episodes, axis=0)
    shares.insert(0, "episodes", episodes)
    return shares.rename_axis(columns=None)


def coverage(frame: pandas.DataFrame, by: Sequence[str] = ("policy",)) -> pandas.DataFrame:
    """Returns how much of the workspace and of orientations the end effector covered, per group.

    Compare groups of equal numbers of episodes only: more episodes visit more cells.

    Args:
        frame: Rows of the log with the columns of `by`, and `coverage`.
        by: What to group by, in the order of first appearance.

    Returns:
        Indexed by group; the columns are the numbers of `covered`.
    """
    groups = _with(frame, "coverage").groupby(by[0] if len(by) == 1 else list(by), sort=False)["coverage"]
    table = pandas.DataFrame.from_dict({name: covered(list(rows)) for name, rows in groups}, orient="index")
    return table.rename_axis(list(by))


def _with(frame: pandas.DataFrame, field: str) -> pandas.DataFrame:
    if field not in frame or not frame[field].notna().any():
        raise UserError(f"no episode of this log has the field '{field}': evaluate again with this version")
    return frame[frame[field].notna()]
