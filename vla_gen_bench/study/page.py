"""The study's page, as HTML and as Markdown: questions with curves and tables, then what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vla_gen_bench.data import replace_file
from vla_gen_bench.errors import printable
from vla_gen_bench.log.provenance import without_secrets
from vla_gen_bench.report.blocks import Block, Document, Line, Text
from vla_gen_bench.report.drawing import svg_of
from vla_gen_bench.report.formats import markdown, to_markdown
from vla_gen_bench.report.page import figure_html, plain_page, tables_html
from vla_gen_bench.study.declaration import Study
from vla_gen_bench.study.ledger import Standing, read_record
from vla_gen_bench.study.parts import Part
from vla_gen_bench.study.results import Answer, Comparison, answers_of
from vla_gen_bench.train.recipe import flat

HTML_FILE, MARKDOWN_FILE = "study.html", "study.md"
CAPTION = "Thick lines: the mean over training seeds, with a 95% t interval; thin lines: single seeds."


def write_page(study: Study, parts: Mapping[str, Part], found: Mapping[str, Standing], folder: Path) -> list[Path]:
    """Writes study.html, study.md and the curves it shows; returns the paths.

    Args:
        found: Where each part stands; only those that are done are compared.
    """
    answers = answers_of(study, parts, found)
    for answer in answers.values():
        for name, figure in answer.curves.items():
            replace_file(folder / f"{name}.svg", svg_of(figure))
    run = _what_was_run(study, parts, found)
    texts = {HTML_FILE: _html(study, answers, run, found), MARKDOWN_FILE: _markdown(study, answers, run, found)}
    for name, text in texts.items():
        replace_file(folder / name, text)
    return [folder / name for name in texts]


def _title(study: Study) -> str:
    return study.title or f"Study {study.name}"


def _incomplete(found: Mapping[str, Standing]) -> str:
    """Returns what a reader must know before the numbers, "" if all parts are done."""
    open_parts = [f"{name} ({one.state})" for name, one in found.items() if one.state != "done"]
    return (
        f"Incomplete: {len(open_parts)} of {len(found)} parts are not done: {', '.join(open_parts)}."
        if open_parts
        else ""
    )


# ---- HTML -----------------------------------------------------------------------------------------------------


def _html(study: Study, answers: Mapping[str, Answer], run: Document, found: Mapping[str, Standing]) -> str:
    warning = _incomplete(found)
    summary = f'<p class="warning">{escape(warning)}</p>' if warning else ""
    summary += f"<p>{escape(study.note)}</p>" if study.note else ""
    sections = [(f"question-{name}", answer.ask, _answer_html(name, answer)) for name, answer in answers.items()]
    return plain_page(_title(study), summary, [*sections, ("run", "What was run", tables_html(run, 3))])


def _answer_html(name: str, answer: Answer) -> str:
    remarks = "".join(f"<p>{escape(remark)}</p>" for remark in answer.remarks)
    figures = "".join(figure_html(key, figure, CAPTION) for key, figure in answer.curves.items())
    return remarks + figures + "".join(map(_comparison_html, answer.comparisons))


def _comparison_html(comparison: Comparison) -> str:
    parts = [f"<h3>Evaluation {escape(comparison.evaluation)}</h3>", *_missing(comparison, escape, "<p>", "</p>")]
    parts += [tables_html(comparison.over_seeds, 4)] if comparison.over_seeds else []
    for seed, (document, command) in comparison.by_seed.items():
        body = f"<p><code>{escape(command)}</code></p>{tables_html(document, 4)}"
        folded = comparison.over_seeds is not None
        parts.append(f"<details><summary>Training seed {seed} alone</summary>{body}</details>" if folded else body)
    return "\n".join(parts)


def _missing(comparison: Comparison, safe: Any, before: str = "", after: str = "") -> list[str]:
    return [f"{before}Without results: {safe(', '.join(comparison.missing))}.{after}"] if comparison.missing else []


# ---- Markdown -------------------------------------------------------------------------------------------------


def _markdown(study: Study, answers: Mapping[str, Answer], run: Document, found: Mapping[str, Standing]) -> str:
    parts = [f"# {markdown(printable(_title(study)))}", markdown(_incomplete(found)), markdown(study.note)]
    for answer in answers.values():
        parts += [f"## {markdown(answer.ask)}", *map(markdown, answer.remarks)]
        parts += [f"![{name}]({name}.svg)" for name in answer.curves]
        for comparison in answer.comparisons:
            parts += [f"### Evaluation {comparison.evaluation}", *_missing(comparison, markdown)]
            parts += [to_markdown(comparison.over_seeds, 4)] if comparison.over_seeds else []
            for seed, (document, command) in comparison.by_seed.items():
                alone = [f"#### Training seed {seed} alone"] if comparison.over_seeds else []
                parts += [*alone, f"    {command}", to_markdown(document, 4 + len(alone))]
    return "\n\n".join(part.strip("\n") for part in [*parts, to_markdown(run, 2)] if part) + "\n"


# ---- what was run ---------------------------------------------------------------------------------------------


def _what_was_run(study: Study, parts: Mapping[str, Part], found: Mapping[str, Standing]) -> Document:
    blocks = [_arms(study), *_differences(study, parts), _parts(parts, found)]
    note = "A part's command, its inputs and what it printed are in the folder parts of the study."
    return Document("Arms and parts", tuple(blocks), (note,))


def _arms(study: Study) -> Block:
    lines = []
    for name, arm in study.arms.items():
        changes = ", ".join(f"{key}={value}" for key, value in without_secrets({**arm.set, **arm.options}).items())
        source = arm.recipe or f"policy {arm.policy}"
        seeds = ", ".join(map(str, study.seeds_of(name))) if arm.trained else ""
        cells = (source, arm.start or arm.checkpoint or "", " ".join(arm.data), seeds, changes)
        lines.append(Line(name, tuple(Text(printable(cell)) for cell in cells)))
    return Block(
        "Arms", ("recipe", "starts from", "data", "training seeds", "changes"), (("", tuple(lines)),), head="arm"
    )


def _differences(study: Study, parts: Mapping[str, Part]) -> list[Block]:
    """Returns the settings that trained arms share and that differ between them; nothing if there are none."""
    recipes = {part.arm: flat(part.recipe.canonical()) for part in parts.values() if part.recipe}
    arms = [arm for arm in study.arms if arm in recipes]
    skipped = ("name", "seed", "note", "trainer", "model.checkpoint", "model.size")
    lines = []
    for key in dict.fromkeys(key for arm in arms for key in recipes[arm] if key not in skipped):
        values = [recipes[arm][key] for arm in arms if key in recipes[arm]]
        if len(values) > 1 and any(value != values[0] for value in values):
            lines.append(Line(key, tuple(Text(printable(_value(recipes[arm], key))) for arm in arms)))
    return [Block("Settings that differ", tuple(arms), (("", tuple(lines)),), head="setting")] if lines else []


def _value(recipe: Mapping[str, Any], key: str) -> str:
    return str(recipe[key]) if key in recipe else "-"


def _parts(parts: Mapping[str, Part], found: Mapping[str, Standing]) -> Block:
    lines = [Line(name, tuple(map(Text, _facts(parts[name], one)))) for name, one in found.items()]
    return Block("Parts", ("state", "seconds", "result"), (("", tuple(lines)),), head="part")


def _facts(part: Part, one: Standing) -> Sequence[str]:
    record = read_record(part)
    made = f"checkpoint {record.checkpoint}" if record and record.checkpoint and one.state == "done" else ""
    return one.state, f"{one.seconds:.0f}", printable(one.note or made)
