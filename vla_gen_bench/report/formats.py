"""A `Document` as text, Markdown, LaTeX; a `Comparison` as CSV."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from vla_gen_bench.report.blocks import Block, Document, Line, Text
from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.notes import PARTIAL_MARK
from vla_gen_bench.report.robustness import csv_rows

BEST_MARK = ">"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of cells that spreadsheets evaluate
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    PARTIAL_MARK: r"\textdagger{}",
}  # fmt: skip


def _body(cell: Text) -> str:
    return f"{cell.main}{PARTIAL_MARK if cell.partial else ''} {cell.note}".strip()


# ---- text -----------------------------------------------------------------------------------------------------


def to_text(document: Document, width: int = 160) -> str:
    """Returns plain text; a table wider than `width` characters is split by groups of policies."""
    marked = any(cell.best for block in document.blocks for line in _lines(block) for cell in line.cells)
    legend = (f"{BEST_MARK} best of the row",) if marked else ()
    parts = [document.title, *(_text_block(block, width) for block in document.blocks)]
    notes = [textwrap.fill(note, min(width, 120), subsequent_indent="  ") for note in (*legend, *document.notes)]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def _lines(block: Block) -> Iterable[Line]:
    return (line for _, lines in block.sections for line in lines)


def _text_block(block: Block, width: int) -> str:
    first = max((len(line.label) + 2 for line in _lines(block)), default=0)
    columns = [_text_column(block, place) for place in range(len(block.columns))]
    widths = [max(map(len, column)) for column in columns]
    parts = []
    for chosen in _chunks(widths, width - first):
        parts.append("\n".join(_text_rows(block, [columns[c] for c in chosen], first, [widths[c] for c in chosen])))
    return "\n\n".join(parts)


def _text_column(block: Block, place: int) -> list[str]:
    cells = [line.cells[place] for line in _lines(block)]
    return ["  " + block.columns[place]] + [f"{BEST_MARK if cell.best else ' '} {_body(cell)}" for cell in cells]


def _chunks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Returns the columns in groups that fit, at least one column each."""
    groups: list[list[int]] = [[]]
    for place, width in enumerate(widths):
        if groups[-1] and sum(widths[c] + 2 for c in groups[-1]) + width + 2 > room:
            groups.append([])
        groups[-1].append(place)
    return groups


def _text_rows(block: Block, columns: list[list[str]], first: int, widths: list[int]) -> Iterable[str]:
    def row(label: str, place: int) -> str:
        return "  ".join([label.ljust(first), *(c[place].ljust(w) for c, w in zip(columns, widths))]).rstrip()

    yield row(block.title, 0) if len(block.title) <= first else f"{block.title}\n{row('', 0)}"
    yield "-" * (first + sum(width + 2 for width in widths))
    place = 0
    for section, lines in block.sections:
        if section:
            yield section
        for line in lines:
            place += 1
            yield row(f"  {line.label}", place)


# ---- Markdown -------------------------------------------------------------------------------------------------


def to_markdown(document: Document, level: int = 1) -> str:
    """Returns Markdown with one pipe table per block, the best of a row in bold; the title is a heading of `level`."""
    title = f"{'#' * level} {markdown(document.title)}"
    blocks = [markdown_block(block, level + 1) for block in document.blocks]
    return "\n\n".join([title, *blocks, "\n".join(f"- {markdown(note)}" for note in document.notes)]) + "\n"


def markdown(text: str) -> str:
    """Escapes text for Markdown."""
    return re.sub(r"([\\|*_<>`\[\]])", r"\\\1", text)


def markdown_block(block: Block, level: int = 2) -> str:
    """Returns a block as a heading and a pipe table."""
    rows = [[block.head, *map(markdown, block.columns)], ["---"] * (len(block.columns) + 1)]
    for section, lines in block.sections:
        if section:
            rows.append([f"**{markdown(section)}**", *[""] * len(block.columns)])
        rows += [[_markdown_label(line), *map(_markdown_cell, line.cells)] for line in lines]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{'#' * level} {markdown(block.title)}\n\n{table}"


def _markdown_label(line: Line) -> str:
    return f"*{markdown(line.label)}*" if line.summary else markdown(line.label)


def _markdown_cell(cell: Text) -> str:
    main = markdown(cell.main)
    shown = (f"**{main}**" if cell.best else main) + (PARTIAL_MARK if cell.partial else "")
    return f"{shown} {markdown(cell.note)}".strip()


# ---- LaTeX ----------------------------------------------------------------------------------------------------


def to_latex(document: Document) -> str:
    """Returns `table` environments that need the package booktabs, each with its notes; other notes follow the last."""
    comment = "% needs \\usepackage{booktabs}"
    placed = {note for block in document.blocks for note in block.notes}
    others = tuple(note for note in document.notes if note not in placed)
    tables = [
        _latex_block(block, document.title, block.notes + (others if block is document.blocks[-1] else ()))
        for block in document.blocks
    ]
    return "\n\n".join([comment, *tables]) + "\n"


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def _latex_block(block: Block, title: str, notes: Sequence[str]) -> str:
    text = " ".join(map(_latex, notes))
    count = len(block.columns)
    lines = [r"\begin{table}", r"\centering\footnotesize", rf"\caption{{{_latex(f'{title}. {block.title}.')}}}"]
    lines += [rf"\begin{{tabular}}{{l{'l' * count}}}", r"\toprule", _latex_row("", map(_latex, block.columns))]
    for section, rows in block.sections:
        lines.append(r"\midrule")
        if section:
            lines.append(rf"\multicolumn{{{count + 1}}}{{l}}{{\emph{{{_latex(section)}}}}} \\")
        lines += [_latex_row(_latex(line.label), map(_latex_cell, line.cells)) for line in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize\raggedright {text}}}"] if notes else []
    return "\n".join([*lines, r"\end{table}"])


def _latex_row(label: str, cells: Iterable[str]) -> str:
    r"""An empty group keeps a label in brackets from being read as the argument of the preceding `\\`."""
    return " & ".join([f"{{}}{label}", *cells]) + r" \\"


def _latex_cell(cell: Text) -> str:
    main = rf"\textbf{{{_latex(cell.main)}}}" if cell.best else _latex(cell.main)
    mark = _latex(PARTIAL_MARK) if cell.partial else ""
    note = rf" {{\scriptsize {_latex(cell.note)}}}" if cell.note else ""
    return f"{main}{mark}{note}"


# ---- CSV ------------------------------------------------------------------------------------------------------

CSV_FIELDS = (
    "kind", "dimension", "scenario", "label", "policy", "run", "metric", "level", "value", "low", "high", "k", "n",
    "errors", "missing", "partial", "baseline", "difference", "difference_low", "difference_high", "paired", "wins",
    "losses", "pairs", "p", "p_holm",
)  # fmt: skip


def csv_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Returns lines as CSV with the columns of every report."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(plain_cells, lines))
    return file.getvalue()


def csv_lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yields the lines of the CSV: column -> value, those that do not apply left out."""
    for policy, run in enumerate(comparison.runs):
        against = comparison.baseline not in (None, policy)
        common = {
            "policy": run.label, "run": str(run.folder), "metric": comparison.metric, "level": comparison.level,
            "baseline": comparison.labels[comparison.baseline] if against else "",
        }  # fmt: skip
        yield from (common | fields for fields in _csv_rows(comparison, policy))


def plain_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Escapes a row for spreadsheets: an apostrophe precedes every text that would be read as a formula."""
    return {
        name: f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
        for name, value in row.items()
    }


def _csv_rows(comparison: Comparison, policy: int) -> Iterable[dict]:
    for row in comparison.rows:
        cell, contrast, info = row.cells[policy], row.contrasts[policy], row.info
        yield {
            "kind": "scenario", "dimension": info.dimension, "scenario": info.id, "label": info.label,
            **({} if cell.rate is None else {"value": cell.rate, "low": cell.low, "high": cell.high}),
            "k": cell.k, "n": cell.n, "errors": cell.errors, "missing": cell.missing, "partial": cell.partial,
            **({} if contrast is None else _csv_contrast(contrast)),
        }  # fmt: skip
        total = sum(row.stages[policy].values())
        for stage, k in sorted(row.stages[policy].items()):
            share = {"value": k / total, "k": k, "n": total}
            yield {
                "kind": f"stage {stage}",
                "dimension": info.dimension,
                "scenario": info.id,
                "label": info.label,
                **share,
            }
    for summary in comparison.summaries:
        difference = summary.differences[policy]
        yield {
            "kind": summary.kind, "dimension": summary.dimension, **_csv_estimate(summary.estimates[policy], ""),
            "partial": summary.estimates[policy].partial,
            **({} if difference is None else _csv_estimate(difference, "difference_")),
            **({} if difference is None else {"p": difference.p, "p_holm": difference.p_holm}),
        }  # fmt: skip
    yield from _csv_items(comparison, policy)
    yield from csv_rows(comparison, policy)


def _csv_items(comparison: Comparison, policy: int) -> Iterable[dict]:
    for row in comparison.items:
        rate, difference, info = row.rates[policy], row.differences[policy], row.info
        if rate is not None:
            yield {
                "kind": row.kind, "dimension": info.dimension, "scenario": info.id, "label": info.label,
                **_csv_estimate(rate, ""), "k": row.count, "n": rate.effective,
                **({} if difference is None else _csv_estimate(difference, "difference_")),
            }  # fmt: skip


def _csv_contrast(contrast) -> dict:
    names = ("paired", "difference", "wins", "losses", "pairs", "p", "p_holm")
    fields = {name: getattr(contrast, name) for name in names}
    return {**fields, "difference_low": contrast.low, "difference_high": contrast.high}


def _csv_estimate(estimate, prefix: str) -> dict:
    if estimate.value is None:
        return {}
    bounds = {} if isnan(estimate.low) else {f"{prefix}low": estimate.low, f"{prefix}high": estimate.high}
    return {prefix.rstrip("_") or "value": estimate.value, **bounds}
