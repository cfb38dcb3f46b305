"""`site/index.html`: one self-contained file; readable without scripts, which add sorting and filtering."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from string import Template

from vla_gen_bench.leaderboard.entry import Cell, Entry, TrainingInfo, is_url
from vla_gen_bench.leaderboard.listing import OOD, Group, Listing
from vla_gen_bench.leaderboard.rank import Mean
from vla_gen_bench.log.header import model_size
from vla_gen_bench.resources import data_dir

SCENARIO_HEADS = ("scenario", "dimension", "success", "95% interval", "k/n", "once")
MEANS = {OOD: "mean OOD", "ind": "IND", "vision": "vision", "semantics": "semantics", "execution": "execution"}
SOURCES = {"self": "by its authors", "reproduced": "reproduced", "paper": "from a paper"}
PAPER_NOTE = (
    "Numbers copied from a publication, not measured with this harness: other episodes, another simulator build. They "
    "are never ranked, neither among each other nor against measured policies."
)


def page(groups: Mapping[Group, Sequence[Listing]]) -> str:
    """Returns the page; the same groups give the same bytes."""
    template = Template((resources.files("vla_gen_bench.leaderboard") / "page.html").read_text(encoding="utf-8"))
    sections = "\n".join(_section(group, listings) for group, listings in groups.items())
    return template.substitute(filters=_filters(groups), sections=sections or "<p>No entries yet.</p>")


def _filters(groups: Mapping[Group, Sequence[Listing]]) -> str:
    sources = {listing.entry.trust.source for listings in groups.values() for listing in listings}
    choices = {
        "world": {group.place: group.place for group in groups},
        "suite": {group.suite: group.suite for group in groups},
        "source": {name: label for name, label in SOURCES.items() if name in sources},
    }
    return "".join(_select(name, options) for name, options in choices.items())


def _select(name: str, options: Mapping[str, str]) -> str:
    rows = "".join(f'<option value="{escape(value)}">{escape(label)}</option>' for value, label in options.items())
    return f'<label>{name} <select name="{name}"><option value="">all</option>{rows}</select></label>'


def _section(group: Group, listings: Sequence[Listing]) -> str:
    shown = [name for name in MEANS if any(name in listing.means for listing in listings)]
    heads = ["rank", "policy", *(MEANS[name] for name in shown), "episodes", "source", "training", "date", "log"]
    digest = f' <span class="dim">digest {escape(group.digest)}</span>' if group.digest else ""
    note = f'<p class="note">{PAPER_NOTE}</p>' if group.preset == "paper" else ""
    note += f'<p class="note">Other sensors: {escape(group.sensors)}. Ranked apart.</p>' if group.sensors else ""
    if group.assets:
        note += f'<p class="note">Other asset files than usual (digest {escape(group.assets)}). Ranked apart.</p>'
    body = "\n".join(_entry(listing, shown, heads) for listing in listings)
    return (
        f'<section data-world="{escape(group.place)}" data-suite="{escape(group.suite)}">'
        f"<h2>{escape(group.suite)} in world {escape(group.place)}{digest}</h2>{note}"
        f'<div class="wide"><table><thead><tr>{"".join(_head(name) for name in heads)}</tr></thead>\n{body}\n'
        "</table></div></section>"
    )


def _head(name: str) -> str:
    first = ' data-first="descending"' if name in (*MEANS.values(), "episodes", "date") else ""
    side = ' class="left"' if name == "training" else ""
    return f'<th scope="col"{side}{first}><button>{name}</button></th>'


def _entry(listing: Listing, shown: Sequence[str], heads: Sequence[str]) -> str:
    entry = listing.entry
    episodes = sum(cell.n for cell in entry.results.values())
    cells = [
        _rank(listing),
        _cell(entry.policy.name, _name(listing), "name-cell"),
        *(_mean(listing.means.get(name), name == OOD) for name in shown),
        _cell(episodes, f"{episodes:,}"),
        _cell(entry.trust.source, _source(entry)),
        _cell(entry.training.algorithm, escape(method(entry.training)), "text"),
        _cell(entry.trust.date, entry.trust.date),
        _cell("", _log(entry)),
    ]
    more = f'<tr class="more" hidden><td colspan="{len(heads)}">{_more(listing)}</td></tr>'
    return f'<tbody class="entry" data-source="{entry.trust.source}"><tr>{_named(cells, heads)}</tr>{more}</tbody>'


def _named(cells: Iterable[str], heads: Iterable[str]) -> str:
    """Gives each cell its column's name, which phones show instead of a table header."""
    return "".join(cell.replace("<td", f'<td data-column="{head}"', 1) for cell, head in zip(cells, heads, strict=True))


def _cell(value: object, content: str, kind: str = "") -> str:
    return f'<td data-value="{escape(str(value))}"{f" class={kind}" if kind else ""}>{content}</td>'


def _rank(listing: Listing) -> str:
    if listing.place:
        return _cell(listing.place.rank, f"{listing.place.rank} <span class=dim>{listing.place.letters}</span>")
    return _cell("", "")


def _name(listing: Listing) -> str:
    policy = listing.entry.policy
    about = ", ".join(filter(None, (model_size(policy.params), policy.version)))
    notes = [f'<div class="note">{escape(about)}</div>'] if about else []
    if not listing.place and listing.standing not in ("paper", "flagged"):
        notes.append(f'<div class="note">not ranked: {escape(listing.standing)}</div>')
    notes += [f'<div class="note flag">flagged: {escape(flag)}</div>' for flag in listing.flags]
    return f'<button class="name" aria-expanded="false">{escape(policy.name)}</button>{"".join(notes)}'


def _mean(mean: Mean | None, wide: bool) -> str:
    if mean is None:
        return _cell("", "")
    picture = _picture(mean.value, mean.low, mean.high) + "<br>" if wide else ""
    interval = f'<span class="note">{mean.low:.3f} to {mean.high:.3f}</span>'
    return _cell(round(mean.value, 6), f"<b>{mean.value:.3f}</b> {picture}{interval}" if wide else
                 f"{mean.value:.3f}<br>{interval}")  # fmt: skip


def _picture(value: float, low: float, high: float) -> str:
    return (
        '<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true"><line x1="0" x2="100" y1="6" y2="6"/>'
        f'<rect x="{100 * low:.1f}" y="3" width="{100 * (high - low):.1f}" height="6"/>'
        f'<rect x="{100 * value - 0.7:.1f}" y="1" width="1.4" height="10" style="opacity:1"/></svg>'
    )


def _source(entry: Entry) -> str:
    by = f" by {entry.trust.reproduced_by}" if entry.trust.reproduced_by else ""
    ours = ", this project" if entry.trust.source == "self" and _ships(entry.policy.adapter) else ""
    return escape(SOURCES[entry.trust.source] + by + ours)


def _ships(adapter: str | None) -> bool:
    """Whether a policy is one of this project's own."""
    named = adapter is not None and re.fullmatch(r"[\w.-]+", adapter)
    return bool(named) and (data_dir() / "policies" / str(adapter) / "card.yaml").is_file()


def method(training: TrainingInfo) -> str:
    """Returns `ppo from openvla-7b`, or the note that it is scripted."""
    base = f" from {training.base}" if training.base else ""
    return "none (scripted)" if training.algorithm == "none" else f"{training.algorithm}{base}"


def _log(entry: Entry) -> str:
    trust = entry.trust
    if trust.log is None:
        return _link(trust.reference, "paper") if trust.reference else ""
    return _link(trust.log if is_url(trust.log) else f"../{trust.log}/", "log")


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{text}</a>'


def _more(listing: Listing) -> str:
    entry = listing.entry
    rows = "".join(_scenario(id, listing.dimensions[id], cell, entry) for id, cell in entry.results.items())
    head = "".join(f"<th>{name}</th>" for name in SCENARIO_HEADS)
    facts = "".join(f'<div class="note">{escape(fact)}</div>' for fact in _facts(entry))
    link = f"<div>{_link(entry.policy.link, escape(entry.policy.link))}</div>" if entry.policy.link else ""
    return f"{link}<table><tr>{head}</tr>{rows}</table>{facts}"


def _scenario(id: str, dimension: str, cell: Cell, entry: Entry) -> str:
    k = getattr(cell, entry.protocol.metric)
    once = "" if cell.success_once is None else f"{cell.success_once}/{cell.n}"
    picture = _picture(cell.rate, cell.low, cell.high)
    columns = (dimension, f"{cell.rate:.3f} {picture}", f"{cell.low:.3f} to {cell.high:.3f}", f"{k}/{cell.n}", once)
    return f"<tr>{_named((f'<td>{column}</td>' for column in (escape(id), *columns)), SCENARIO_HEADS)}</tr>"


def _facts(entry: Entry) -> Iterable[str]:
    """Returns the facts that decide whether a number is comparable, one line each."""
    policy, protocol, environment = entry.policy, entry.protocol, entry.environment
    data = ", ".join(item.name for item in entry.training.data)
    yield f"trained on {data or 'nothing'}"
    yield f"metric {protocol.metric}, {protocol.horizon} steps at {protocol.control_hz} Hz, preset {protocol.preset}"
    if policy.digest:
        yield f"policy {policy.adapter}, digest {policy.digest}, checkpoint {policy.checkpoint or 'as the card says'}"
    if environment.harness:
        yield (
            f"vla-gen-bench {environment.harness}, ManiSkill {environment.mani_skill}, SAPIEN {environment.sapien}, "
            f"{environment.simulation}, {environment.cpu}"
        )
    if entry.trust.notes:
        yield entry.trust.notes
