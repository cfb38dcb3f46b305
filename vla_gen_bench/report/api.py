"""`vgb.compare`: a comparison of logs from Python; `vgb report` uses it too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_gen_bench.errors import UserError, printable, suggest
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.suites import find_suite_of
from vla_gen_bench.report import formats, seeds
from vla_gen_bench.report.blocks import Document
from vla_gen_bench.report.compare import Comparison, find_baseline
from vla_gen_bench.report.compare import compare as compare_runs
from vla_gen_bench.report.load import Run, check_comparable, load_labelled, load_runs, scenario_ids
from vla_gen_bench.report.outcomes import chosen_metric
from vla_gen_bench.report.provenance import remarks
from vla_gen_bench.report.robustness import robustness_notes, with_robustness
from vla_gen_bench.report.scenarios import describe
from vla_gen_bench.report.seeds import SeedComparison, grouped, seeds_document, seeds_lines
from vla_gen_bench.report.sentences import sentences
from vla_gen_bench.report.table import document

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from vla_gen_bench.episodes.suite import Suite

FORMATS = ("text", "md", "latex", "csv", "html")
ENDINGS = {".txt": "text", ".md": "md", ".tex": "latex", ".csv": "csv", ".html": "html", ".htm": "html"}
WIDTH_OF_A_FILE = 160
LogLike = str | os.PathLike[str] | EvalLog


class _Rendered:
    """What can be done with every report, from its tables and its formats."""

    def tables(self) -> Document:
        """Returns the tables and their notes, from which all formats are written."""
        raise NotImplementedError

    def lines(self) -> Iterable[dict[str, Any]]:
        """Returns the lines of the CSV, column -> value, those that do not apply left out.

        Numbers are not rounded; rates are fractions. Means have no k, the baseline no difference. A stage's value is
        its share. For kinds that name items of a pool, k is the number of items and n the equivalent number of
        independent episodes.
        """
        raise NotImplementedError

    def render(self, kind: str = "text", *, width: int = WIDTH_OF_A_FILE) -> str:
        """Returns the report as text; see the classes."""
        raise NotImplementedError

    def frame(self) -> pandas.DataFrame:
        """Returns the lines of the CSV: one per policy and scenario, stage, mean or drop, with intervals and tests.

        Text is as given, without the CSV's escapes for spreadsheets; cells that do not apply are NaN.
        """
        import pandas

        frame = pandas.DataFrame(list(self.lines()), columns=[*formats.CSV_FIELDS])
        return frame.mask(frame == "").infer_objects()

    def write(self, path: str | os.PathLike[str], **options: bool | float) -> Path:
        """Writes the report in the format of the path's suffix (.html, .md, .tex, .csv, .txt); options of `render`."""
        target = Path(path)
        text = self.render(ENDINGS.get(target.suffix.lower(), "text"), **options)  # type: ignore[arg-type]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror})") from None
        return target

    def __str__(self) -> str:
        return self.render()

    def _repr_html_(self) -> str:
        from vla_gen_bench.report.page import tables_html

        return tables_html(self.tables())


def _check_kind(kind: str) -> None:
    if kind not in FORMATS:
        raise UserError(f"format '{kind}': no such format{suggest(kind, FORMATS)}")


def _rendered(tables: Document, kind: str, width: int) -> str:
    if kind == "text":
        return formats.to_text(tables, width)
    return formats.to_markdown(tables) if kind == "md" else formats.to_latex(tables)


@dataclass(frozen=True)
class SeedReport(_Rendered):
    """A comparison of policies over their training seeds, to view or to write.

    Attributes:
        comparison: The numbers; docs/report.md defines each.
        notes: Remarks on the origin of the numbers.
        lost: Why scenarios could not be grouped; "" if they were.
    """

    comparison: SeedComparison
    notes: tuple[str, ...]
    lost: str = ""

    def tables(self) -> Document:
        """Returns the tables and their notes, from which all formats are written."""
        return seeds_document(self.comparison, self.notes)

    def lines(self) -> Iterable[dict[str, Any]]:
        """Returns the lines of the CSV, column -> value, those that do not apply left out."""
        return seeds_lines(self.comparison)

    def render(self, kind: str = "text", *, width: int = WIDTH_OF_A_FILE) -> str:
        """Returns the report as text.

        Args:
            kind: One of `FORMATS`.
            width: Line width of plain text, in characters.
        """
        _check_kind(kind)
        if kind == "csv":
            return formats.csv_text(self.lines())
        tables = self.tables()
        if kind == "html":
            from vla_gen_bench.report.page import plain_page, tables_html

            return plain_page(tables.title, "", [("tables", "Tables", tables_html(tables, 3))])
        return _rendered(tables, kind, width)


@dataclass(frozen=True)
class Report(_Rendered):
    """A comparison of runs, to view or to write.

    Attributes:
        comparison: The numbers; docs/report.md defines each.
        notes: Remarks on the origin of the numbers.
        lost: Why scenarios could not be grouped; "" if they were.
    """

    comparison: Comparison
    notes: tuple[str, ...]
    lost: str = ""

    def summary(self) -> list[str]:
        """Returns the findings of the comparison, in sentences."""
        return sentences(self.comparison)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure that the data allow, by name, drawn once: rates, drops, wins, severity-*, workspace."""
        from vla_gen_bench.report.plots import figures

        return figures(self.comparison)

    def write_plots(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes the figures as SVG and PNG and returns the paths."""
        from vla_gen_bench.report.plots import write_plots

        return write_plots(self.figures, Path(folder))

    def render(
        self, kind: str = "text", *, stages: bool = False, width: int = WIDTH_OF_A_FILE, video_mib: float = 4.0
    ) -> str:
        """Returns the report as text.

        Args:
            kind: One of `FORMATS`.
            stages: Add stages and workspace coverage; a page always has both, CSV always has the stages.
            width: Line width of plain text, in characters.
            video_mib: Maximum size of the videos embedded in a page, MiB.
        """
        _check_kind(kind)
        if kind == "csv":
            return formats.csv_text(self.lines())
        if kind == "html":
            from vla_gen_bench.report.page import to_page

            return to_page(self.comparison, self._all_notes, video_mib, self.figures)
        return _rendered(self.tables(stages), kind, width)

    def tables(self, stages: bool = False) -> Document:
        """Returns the tables and their notes, from which all formats are written."""
        return with_robustness(document(self.comparison, stages, self._all_notes), self.comparison)

    def lines(self) -> Iterable[dict[str, Any]]:
        """Returns the lines of the CSV, column -> value, those that do not apply left out."""
        return formats.csv_lines(self.comparison)

    @property
    def _all_notes(self) -> tuple[str, ...]:
        return (*self.notes, *robustness_notes(self.comparison))


def compare(
    runs: LogLike | Sequence[LogLike] | Mapping[str, LogLike],
    baseline: str | None = None,
    *,
    metric: str | None = None,
    level: float = 0.95,
    suite: str | None = None,
    allow_partial: bool = False,
) -> Report:
    """Compares logs of one suite in one world: rates, drops from IND, tests against a baseline.

    ```python
    report = vgb.compare({"sft": "runs/a", "ppo": log}, baseline="sft")
    print(report); report.frame(); report.write("report.html")
    ```

    Args:
        runs: Log folders or logs; a mapping names the columns.
        baseline: Label, policy or folder that the others are compared with; None for the first run.
        metric: "success_at_end" or "success_once"; None for the suite's.
        level: Confidence of every interval.
        suite: The runs' suite, if it is not found automatically.
        allow_partial: Accept missing and errored episodes, and mark the numbers they affect.

    Raises:
        UserError: A folder holds no log, the runs cannot be compared, or episodes are missing.
    """
    return report_of(_loaded(runs), baseline, metric, level, suite, allow_partial)


def compare_seeds(
    policies: Mapping[str, LogLike | Sequence[LogLike]],
    baseline: str | None = None,
    *,
    metric: str | None = None,
    level: float = 0.95,
    suite: str | None = None,
    allow_partial: bool = False,
) -> SeedReport:
    """Compares policies over training seeds: means over seeds, each seed's rates, differences from a baseline.

    ```python
    report = vgb.compare_seeds({"sft": ["runs/s0", "runs/s1"], "ppo": ["runs/p0", "runs/p1"], "start": "runs/w"})
    ```

    Args:
        policies: Name -> the logs of its training seeds, in the same order for all; a single log is compared with
            every seed of the others.
        baseline: Name of the policy that the others are compared with; None for the first.
        metric: "success_at_end" or "success_once"; None for the suite's.
        level: Confidence of every interval.
        suite: The runs' suite, if it is not found automatically.
        allow_partial: Accept missing and errored episodes, and mark the numbers they affect.

    Raises:
        UserError: As for `compare`; or numbers of seeds differ.
    """
    parted = []
    for name, logs in policies.items():
        its = [logs] if isinstance(logs, str | os.PathLike | EvalLog) else [*logs]
        if not its:
            raise UserError(f"{name}: no logs; give one, or one for each training seed")
        parted += [(name, Path(_folder(log))) for log in its]
    shown = [printable(name) for name in policies]
    twin = next((name for name in policies if shown.count(printable(name)) > 1), None)
    if twin is not None:
        raise UserError(f"{printable(twin)}: two policies would have this name; give them different ones")
    return seed_report_of(load_labelled(parted, repeat_labels=True), baseline, metric, level, suite, allow_partial)


def seed_report_of(
    runs: list[Run], baseline: str | None, metric: str | None, level: float, suite: str | None, allow_partial: bool
) -> SeedReport:
    """Like `compare_seeds`, for runs that are already loaded: those of one label are seeds of one policy."""
    groups, names = grouped(runs, baseline)
    found = seeds.compare_seeds(groups, names, metric, level, suite_name=suite, allow_partial=allow_partial)
    return SeedReport(found, tuple(remarks(runs)), _lost(runs[0], found.suite))


def report_of(
    runs: list[Run], baseline: str | None, metric: str | None, level: float, suite: str | None, allow_partial: bool
) -> Report:
    """Like `compare`, for runs that are already loaded."""
    check_comparable(runs, allow_partial)
    found = find_suite_of(runs[0].header, suite)
    chosen, place = chosen_metric(metric, found), find_baseline(runs, baseline)
    comparison = compare_runs(runs, describe(scenario_ids(runs), found), place, chosen, level, found)
    return Report(comparison, tuple(remarks(runs)), _lost(runs[0], found))


def _lost(run: Run, found: Suite | None) -> str:
    what = run.header.suite
    return "" if found else f"suite '{what.id}' ({what.digest}) is not found here: scenarios are not grouped"


def _loaded(runs: LogLike | Sequence[LogLike] | Mapping[str, LogLike]) -> list[Run]:
    if isinstance(runs, str | os.PathLike | EvalLog):
        runs = [runs]
    if isinstance(runs, Mapping):
        return load_labelled([(label, Path(_folder(run))) for label, run in runs.items()])
    return load_runs([_folder(run) for run in runs])


def _folder(run: LogLike) -> str:
    return str(run.folder if isinstance(run, EvalLog) else os.fspath(run))
