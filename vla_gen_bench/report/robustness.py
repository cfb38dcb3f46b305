"""Tables and CSV rows of dose-response, interactions and controls; nothing for a suite that has none of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isinf, isnan

from vla_gen_bench.report.blocks import Block, Document, Line, Text
from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.controls import INPUTS, Control, Use, controls, not_above_control
from vla_gen_bench.report.dose import Answer, Bounded, DoseResponse, dose_responses, share_kept, span_of
from vla_gen_bench.report.interactions import Interaction, Joint, interactions
from vla_gen_bench.report.scenarios import title_of

NOT_ABOVE = "≤ control"
NOTES = {
    "What it uses": "A policy uses an input if it is better with it than without, over the same episodes: yes where "
    "the interval of the difference lies above 0, 'no sign' where it holds 0, 'not an input' where the policy does not "
    "receive it. "
    f"{NOT_ABOVE}: by that interval not above what the policy reaches without an instruction or on a black image.",
    "Dose and response": "Area: success averaged over the levels from IND (level 0) to the highest, by the trapezoid "
    "rule; in brackets its bootstrap interval, then its share of success in distribution. Halved at level: where "
    "success falls below half of that in distribution, between two levels by a straight line.",
    "Interactions": "Interaction: the success rate under both shifts minus the expected one, which is IND minus the "
    "loss under each shift alone. Negative: together they cost more than the sum. 'floor': the two losses add up to "
    "more than IND, so nothing follows.",
}


def robustness_blocks(comparison: Comparison) -> list[Block]:
    """Returns the tables that the comparison's rows allow."""
    blocks = []
    doses, joint, taken = dose_responses(comparison), interactions(comparison), controls(comparison)
    if taken:
        blocks.append(_controls_block(comparison, taken))
    if doses:
        blocks.append(_dose_block(comparison, doses))
    if joint:
        blocks.append(_interactions_block(comparison, joint))
    return blocks


def robustness_notes(comparison: Comparison) -> list[str]:
    """Returns the notes that define the numbers of these tables."""
    return [NOTES[block.title] for block in robustness_blocks(comparison)]


def with_robustness(document: Document, comparison: Comparison) -> Document:
    """Adds these tables to a comparison's document, and marks in its first table, the rates."""
    first, *others = document.blocks
    return replace(document, blocks=(marked(first, comparison), *others, *robustness_blocks(comparison)))


def marked(block: Block, comparison: Comparison) -> Block:
    """Marks in the table of rates what is not above the policy's result without an input."""
    marks = not_above_control(comparison)
    if not marks:
        return block

    def line(of: Line) -> Line:
        flags = marks.get(of.scenario or "")
        if not flags:
            return of
        cells = [
            replace(cell, note=f"{cell.note} {NOT_ABOVE}".strip()) if flag else cell
            for cell, flag in zip(of.cells, flags, strict=True)
        ]
        return replace(of, cells=tuple(cells))

    sections = tuple((title, tuple(line(of) for of in lines)) for title, lines in block.sections)
    return replace(block, sections=sections)


# ---- dose and response ----------------------------------------------------------------------------------------


def _dose_block(comparison: Comparison, doses: list[DoseResponse]) -> Block:
    columns = tuple(f"{label}: {what}" for label in comparison.labels for what in ("area", "halved at level"))
    sections: dict[str, list[Line]] = {}
    for dose in doses:
        cells = [text for answer in dose.answers for text in (_area_text(answer), _half_text(answer, dose.levels[-1]))]
        label = f"{dose.title}: {span_of(dose.strengths)}"
        sections.setdefault(title_of(dose.dimension), []).append(Line(label, tuple(cells)))
    return Block("Dose and response", columns, tuple((name, tuple(lines)) for name, lines in sections.items()))


def _area_text(answer: Answer) -> Text:
    if isnan(answer.area.value):
        return Text("-")
    kept = share_kept(answer)
    share = "" if kept is None else f"{100 * kept:.0f}% of IND"
    return Text(f"{answer.area.value:.3f}", " ".join(filter(None, (_interval(answer.area, "{:.3f}"), share))))


def _half_text(answer: Answer, top: int) -> Text:
    if isnan(answer.half.value):
        return Text("-")
    return Text(_level(answer.half.value, top), _interval(answer.half, "{:.1f}", top))


def _level(value: float, top: int) -> str:
    return f"> {top}" if isinf(value) else f"{value:.1f}"


def _interval(of: Bounded, form: str, top: int | None = None) -> str:
    if isnan(of.low):
        return ""
    shown = [f"> {top}" if isinf(bound) else form.format(bound) for bound in (of.low, of.high)]
    return f"[{shown[0]}, {shown[1]}]"


# ---- interactions ---------------------------------------------------------------------------------------------


def _interactions_block(comparison: Comparison, found: list[Interaction]) -> Block:
    lines = tuple(
        Line(it.label, tuple(_joint_text(joint) for joint in it.joints), scenario=it.scenario) for it in found
    )
    return Block("Interactions", tuple(comparison.labels), (("", lines),))


def _joint_text(joint: Joint | None) -> Text:
    if joint is None:
        return Text("-")
    sums = f"both {joint.rate:.3f}, expected {joint.expected:.3f}{' floor' if joint.floored else ''}"
    return Text(f"{joint.interaction.value:+.3f}", f"{_interval(joint.interaction, '{:+.3f}')} {sums}".strip())


# ---- controls -------------------------------------------------------------------------------------------------


def _controls_block(comparison: Comparison, found: list[Control]) -> Block:
    sections: dict[str, list[Line]] = {}
    for control in found:
        label = f"{control.reference.label} minus {control.info.label}"
        line = Line(label, tuple(_use_text(use) for use in control.uses), scenario=control.info.id)
        sections.setdefault(INPUTS[control.input].capitalize(), []).append(line)
    return Block("What it uses", tuple(comparison.labels), tuple((k, tuple(v)) for k, v in sections.items()))


def _use_text(use: Use | None) -> Text:
    if use is None:
        return Text("-")
    if not use.received:
        return Text(use.verdict)
    return Text(use.verdict, f"{use.difference:+.3f} [{use.low:+.3f}, {use.high:+.3f}]")


# ---- CSV ------------------------------------------------------------------------------------------------------


def csv_rows(comparison: Comparison, policy: int) -> Iterator[dict]:
    """Yields the rows of one policy with the fields of the report's CSV."""
    for dose in dose_responses(comparison):
        common = {"dimension": dose.dimension, "scenario": dose.sweep, "label": dose.title}
        answer = dose.answers[policy]
        for kind, number in (("area", answer.area), ("halving level", answer.half)):
            yield {"kind": kind, **common, **_csv_number(number)}
    for row in interactions(comparison):
        joint = row.joints[policy]
        if joint is not None:
            yield {
                "kind": "interaction",
                "scenario": row.scenario,
                "label": row.label,
                **_csv_number(joint.interaction),
            }
    for control in controls(comparison):
        use = control.uses[policy]
        if use is not None and use.received:
            number = _csv_number(Bounded(use.difference, use.low, use.high))
            common = {"dimension": control.info.dimension, "scenario": control.info.id, "label": control.info.label}
            yield {"kind": INPUTS[control.input], **common, **number, "n": use.pairs}


def _csv_number(number: Bounded) -> dict:
    if isnan(number.value):
        return {}
    return {"value": number.value, **({} if isnan(number.low) else {"low": number.low, "high": number.high})}
