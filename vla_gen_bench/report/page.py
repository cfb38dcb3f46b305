"""The report page: one self-contained HTML file that needs no other file and no network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from vla_gen_bench.errors import printable
from vla_gen_bench.log.header import model_size
from vla_gen_bench.report.blocks import Block, Document, Line, Text
from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.drawing import svg_of
from vla_gen_bench.report.episodes import page_data
from vla_gen_bench.report.load import Run
from vla_gen_bench.report.notes import PARTIAL_MARK, definitions
from vla_gen_bench.report.plots import figures
from vla_gen_bench.report.robustness import marked, robustness_blocks
from vla_gen_bench.report.sentences import sentences
from vla_gen_bench.report.table import (
    behaviour_blocks,
    contrasts_block,
    items_block,
    rates_block,
    title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = {
    "rates": "Success rate in every scenario. The lines are intervals.",
    "drops": "What each dimension costs, against the same policy in distribution.",
    "wins": "Of the episodes that both policies did: those that only one of them solved.",
    "workspace": "The share of episodes that entered a 2 cm cell, at the height where most did, seen from above. "
    "The robot stands at 0, 0 and looks to the right.",
    "dose": "Success at each level of a disturbance. Level 0 is IND; the bands are intervals.",
    "severity": "The same shift at several strengths.",
}


def to_page(
    comparison: Comparison,
    notes: Iterable[str] = (),
    video_mib: float = 0.0,
    drawn: Mapping[str, Figure] | None = None,
) -> str:
    """Returns the page as HTML.

    Args:
        comparison: What to show.
        drawn: Its figures, if already drawn.
        notes: Further remarks below the definitions.
        video_mib: Maximum size of embedded videos, in MiB.
    """
    assets = files("vla_gen_bench.report") / "assets"
    drawn = figures(comparison) if drawn is None else drawn
    sections = _sections(comparison, drawn, [*definitions(comparison), *notes])
    data = page_data(comparison, video_mib)
    return Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title(comparison)),
        css=(assets / "page.css").read_text(encoding="utf-8"),
        js=(assets / "page.js").read_text(encoding="utf-8"),
        summary=_summary(comparison),
        navigation=_links(sections) + '<a href="#episodes">Every episode</a><a href="#source">Where it comes from</a>',
        sections=_bodies(sections),
        provenance=_provenance(comparison.runs),
        data=json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"),
    )


def _sections(comparison: Comparison, drawn: Mapping[str, Figure], notes: Sequence[str]) -> list[tuple[str, str, str]]:
    """Returns (id, heading, HTML) of each section."""
    blocks = [marked(rates_block(comparison), comparison)]
    if comparison.baseline is not None:
        blocks.append(contrasts_block(comparison))
    if comparison.items:
        blocks.append(items_block(comparison))
    blocks += robustness_blocks(comparison)
    stages = behaviour_blocks(comparison)
    definitions = "".join(f"<p>{escape(note)}</p>" for note in notes)
    parts = [
        ("results", "Results", _blocks_html(blocks) + "<details open><summary>How to read this</summary>"
         f"<p>The best rate of a row is underlined on green. Choose a scenario to see its episodes.</p>{definitions}"
         "</details>"),
        ("pictures", "Pictures", "".join(_figure_html(*item) for item in drawn.items())),
    ]  # fmt: skip
    return parts + ([("stages", "What happened", _blocks_html(stages))] if stages else [])


def _summary(comparison: Comparison) -> str:
    warning = ""
    if comparison.partial:
        defects = "; ".join(f"{run.label}: {run.defect()}" for run in comparison.runs if run.defect())
        warning = f'<p class="warning"><strong>Partial:</strong> episodes are not all there. {escape(defects)}.</p>'
    lines = [f"<p>{escape(sentence)}</p>" for sentence in sentences(comparison)]
    if len(lines) > 6:  # hide the rest behind one click
        lines = [*lines[:3], "<details><summary>More</summary>", *lines[3:], "</details>"]
    return warning + "".join(lines)


def tables_html(tables: Document, level: int = 2) -> str:
    """Returns tables and notes as an HTML fragment, for a notebook or another page, from a heading of `level`."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in tables.notes)
    foot = f"<details><summary>Notes</summary><ul>{notes}</ul></details>" if notes else ""
    blocks = [replace(block, sections=tuple(map(_unlinked, block.sections))) for block in tables.blocks]
    return f"<h{level}>{escape(tables.title)}</h{level}>{_blocks_html(blocks, level + 1)}{foot}"


def _unlinked(section: tuple[str, tuple[Line, ...]]) -> tuple[str, tuple[Line, ...]]:
    """Without links to the list of episodes, which only the page of a report has."""
    return section[0], tuple(replace(line, scenario=None) for line in section[1])


def plain_page(title: str, summary: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """Returns a self-contained page without scripts, in the style of the report.

    Args:
        title: Plain text.
        summary: HTML below the title.
        sections: (id, heading as plain text, HTML) of each.
    """
    assets = files("vla_gen_bench.report") / "assets"
    escaped = [(id, escape(name), body) for id, name, body in sections]
    return Template((assets / "plain.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        css=(assets / "page.css").read_text(encoding="utf-8"),
        summary=summary,
        navigation=_links(escaped),
        sections=_bodies(escaped),
    )


def _links(sections: Sequence[tuple[str, str, str]]) -> str:
    """Returns a link to each section; (id, heading as HTML, HTML) of each, as for `_bodies`."""
    return "".join(f'<a href="#{id}">{name}</a>' for id, name, _ in sections)


def _bodies(sections: Sequence[tuple[str, str, str]]) -> str:
    return "\n".join(f'<section id="{id}">\n<h2>{name}</h2>\n{body}\n</section>' for id, name, body in sections)


def figure_html(name: str, figure: Figure, caption: str) -> str:
    """Returns a figure with its caption; `name` is unique on the page."""
    caption = escape(caption)
    wide = (
        f"<div class='wide' tabindex='0' role='region' aria-label='{name}' style='--width:{figure.get_figwidth():g}in'>"
    )
    return f"<figure>{wide}{inline_svg(svg_of(figure), name, caption)}</div><figcaption>{caption}</figcaption></figure>"


# ---- tables ---------------------------------------------------------------------------------------------------


def _blocks_html(blocks: Sequence[Block], level: int = 3) -> str:
    return "\n".join(f"<h{level}>{escape(block.title)}</h{level}>\n{table_html(block)}" for block in blocks)


def table_html(block: Block) -> str:
    """Returns a block as a table; on a phone each row becomes a list, with the column's name before each cell."""
    width = len(block.columns) + 1
    heads = "".join(f'<th scope="col"{_long(name)}>{escape(name)}</th>' for name in block.columns)
    rows = [f"<thead><tr><td></td>{heads}</tr></thead>"]
    for section, lines in block.sections:
        rows.append("<tbody>")
        if section:
            rows.append(f'<tr class="section"><th scope="rowgroup" colspan="{width}">{escape(section)}</th></tr>')
        rows += [_line_html(line, block.columns) for line in lines]
        rows.append("</tbody>")
    name = escape(block.title)
    return f'<div class="wide" tabindex="0" role="region" aria-label="{name}"><table>{"".join(rows)}</table></div>'


def _long(name: str) -> str:
    return ' class="long"' if len(name) > 12 else ""


def _line_html(line: Line, columns: Sequence[str]) -> str:
    label = escape(line.label)
    if line.scenario:
        label = f'<a href="#episodes" data-scenario="{escape(line.scenario)}">{label}</a>'
    kind = ' class="summary"' if line.summary else ""
    return f'<tr{kind}><th scope="row">{label}</th>{"".join(map(_cell_html, line.cells, columns))}</tr>'


def _cell_html(cell: Text, column: str) -> str:
    main = f"<b>{escape(cell.main)}</b>" if cell.best else escape(cell.main)
    note = f' <span class="note">{escape(cell.note)}</span>' if cell.note else ""
    kind = ' class="best"' if cell.best else ""
    return f'<td{kind} data-column="{escape(column)}">{main}{PARTIAL_MARK if cell.partial else ""}{note}</td>'


# ---- images -------------------------------------------------------------------------------------------------


def _figure_html(name: str, figure: Figure) -> str:
    return figure_html(name, figure, PICTURES[name.partition("-")[0]])


def inline_svg(svg: str, name: str, label: str) -> str:
    """Prepares a matplotlib SVG for the page: sized by the page, with unique ids, without metadata."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    head, body = re.match(r"(<svg[^>]*>)(.*)", svg, re.S).groups()
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    head = head.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return head + re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)


# ---- provenance -----------------------------------------------------------------------------------------------


def _provenance(runs: Sequence[Run]) -> str:
    parts = ['<section id="source">', "<h2>Where it comes from</h2>"]
    for run in runs:
        facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(printable(value))}</dd>" for name, value in _facts(run))
        whole = escape(json.dumps(run.header.raw, indent=1, ensure_ascii=False))
        raw = f"<details><summary>run.json</summary><pre tabindex='0'>{whole}</pre></details>"
        parts.append(f"<h3>{escape(run.label)}</h3><dl>{facts}</dl>{raw}")
    return "\n".join([*parts, "</section>"])


def _facts(run: Run) -> list[tuple[str, object]]:
    """Summarises `run.json`; fields that an older log lacks are left out."""
    header, last = run.header, run.header.last
    git = last.git or {}
    facts = [
        ("Folder", run.folder),
        ("Policy", _joined(header.policy, ("name", "ref", "digest"))),
        ("Model size", model_size(header.policy.params)),
        ("Suite", _joined(header.suite, ("id", "version", "digest"))),
        ("World", _joined(header.world, ("name", "version", "catalog", "pack"))),
        ("Episodes", len(run.episodes)),
        ("Taken over", "; ".join(_taken_over(run))),
        ("Started", header.started),
        ("Command", " ".join(last.command)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in last.versions.items())),
        ("Commit", f"{git.get('commit', '')}{' with changes' if git.get('dirty') else ''}"),
        ("Hardware", ", ".join(f"{name} {value}" for name, value in last.hardware.items())),
        ("Backend", _joined(header.backend, ("simulation", "rendering", "shader"))),
        ("Warnings", "; ".join(map(str, header.warnings))),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]


def _taken_over(run: Run) -> Iterator[str]:
    """Yields what sessions took over from other logs."""
    for each in (log for session in run.header.sessions for log in session.reused):
        suite = each.get("suite") or {}
        yield f"{each.get('episodes')} of {each.get('log')} (suite {suite.get('id')} {suite.get('version')})"


def _joined(part: object, names: Sequence[str]) -> str:
    found = (getattr(part, name, None) for name in names)
    return ", ".join(str(value) for value in found if value is not None)
