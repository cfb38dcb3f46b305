"""Writes docs/results.md, docs/results-robustness.md, and the results in README.md and cards: `make results`.

All come from committed logs and measurements.

No number in them is typed by hand. `tests/project/test_results.py` fails if they differ from what this writes.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from io import StringIO
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from vla_gen_bench.log.counts import Counts

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PUBLISHED = {  # policy -> its log, of training seed 0
    f"openvla-{name}": ROOT / "leaderboard" / "logs" / f"openvla-{name}-all-builtin-v2"
    for name in ("ppo", "sft", "warmup", "base")
}
PPO, SFT, WARMUP, BASE = PUBLISHED.values()
LOGS = [PPO, SFT]
BASELINE = "openvla-sft"
CARDS = [ROOT / "policies" / f"openvla-{name}" / "README.md" for name in ("base", "warmup", "sft", "ppo")]
ROBUSTNESS = {name: RESULTS / "robustness" / name for name in ("openvla-ppo", "openvla-sft", "expert", "hold")}
COMPARED = [ROBUSTNESS["openvla-ppo"], ROBUSTNESS["openvla-sft"]]
CONTROLS, PAIRS = (
    [RESULTS / suite / name for name in ("openvla-ppo", "openvla-sft")] for suite in ("controls", "compositional")
)
PAPER = [ROOT / "leaderboard" / "entries" / f"paper-openvla-7b-{name}.json" for name in ("ppo", "sft")]
RESPONSE = ROOT / "docs" / "gallery" / "robustness-response.png"
EXPERT_REACHES = 0.9  # the page names the levels at which the expert succeeds less often
WEAK = 0.1  # a card names the rows with a lower success rate
MARKS = ("<!-- results: written by `make results` -->", "<!-- end of results -->")
README_ROWS = {  # heading of the report's group -> its row in the README
    "In distribution": "IND",
    "Vision": "mean of 5 rows",
    "Semantics": "mean of 7 rows",
    "Execution": "mean of 3 rows",
    "All shifted scenarios": "mean of 15 rows",
}
SPEEDS = {  # a line of `vgb bench` (regular expression) -> its name on the page
    r"builtin: step, 320x240, median of whole episodes": "world `builtin`: one step with its 320x240 image, median",
    r"builtin: reset with a fresh scene, median": "world `builtin`: reset with a fresh scene, median",
    r"vgb eval --policy expert --suite execution.*": "the expert on suite execution, 768 episodes, set-up included "
    "(world version 1)",
    r"first use of the builtin assets": "first use: generating all assets of `builtin`",
    r"vgb --help": "`vgb --help`",
    r"rl4vla: step, 640x480, median of whole episodes": "world `rl4vla`: one step with its 640x480 image, median",
    r"rl4vla: reset with a fresh scene, median": "world `rl4vla`: reset with a fresh scene, median",
    r"rl4vla: memory of that process": "world `rl4vla`: memory of the process",
    r"PPO nano, builtin, 2 workers: collection": "PPO with `openvla-nano`, chunks of four: rollouts",
    r"PPO nano, builtin, 2 workers: whole loop": "PPO with `openvla-nano`: the whole loop",
    r"OpenVLA nano, fp32, 1 thread: decoding, batch 1": "one decision of `openvla-nano`, one thread",
}
BENCHES = ("bench-full", "bench-openvla", "bench-rl", "bench-quick-rl4vla", "bench-quick")  # a later file's line wins


def report(*arguments: object) -> str:
    """Returns the output of `vgb report`."""
    from vla_gen_bench.cli import main

    out = StringIO()
    with mock.patch.object(sys, "argv", ["vgb", "report", *map(str, arguments)]), mock.patch("sys.stdout", out):
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                raise
    return out.getvalue()


def tables(text: str) -> list[list[list[str]]]:
    """Returns the tables of a Markdown text as tables, rows, cells; header rows left out."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()[2:]] for block in blocks]


def by_group(table: list[list[str]], keep: Callable[[str, str], bool]) -> Iterator[tuple[str, list[str]]]:
    """Yields (group and row, cells) for the rows with keep(group, row)."""
    group = ""
    for name, *cells in table:
        name = name.strip()
        if name.startswith("**"):
            group = name.strip("*")
        elif keep(group, name.strip("*")):
            yield (name if name == "IND" else f"{group}, {name.strip('*')}"), [cell.strip() for cell in cells]


def in_readme(group: str, row: str) -> bool:
    """Returns whether README.md has a row of the report."""
    return row == README_ROWS.get(group)


def readme_table(text: str) -> str:
    """Returns five rows of the report: rates of each policy, and the paired difference to the baseline."""
    rates, differences, *_ = tables(text)
    names = re.search(r"^\| scenario \| (.+) \|$", text, re.MULTILINE)[1].split(" | ")
    others = dict(by_group(differences, in_readme))
    rows = [f"| {label} | {' | '.join(cells)} | {others[label][0]} |" for label, cells in by_group(rates, in_readme)]
    head = f"| | {' | '.join(f'`{name}`' for name in names)} | paired difference |"
    return "\n".join([head, "| --- " * (len(names) + 2) + "|", *rows])


@cache
def counted(folder: Path) -> dict[str, Counts]:
    """Returns the counts of each scenario of a log."""
    from vla_gen_bench.log.counts import count_by_scenario
    from vla_gen_bench.log.folder import EvalLog

    return count_by_scenario(EvalLog(folder).read().rows.values())


def rate(counts: Counts) -> float:
    """Returns the success rate at the end of a scenario."""
    return counts.success_at_end / counts.episodes


def dimension_means(folder: Path) -> dict[str, float]:
    """Returns the mean success rate of the rows of each dimension of suite `all`, IND first."""
    from vla_gen_bench.episodes.suite import load_suite

    rates: dict[str, list[float]] = {}
    for id, scenario in load_suite("all").scenarios.items():
        rates.setdefault(scenario.dimension, []).append(rate(counted(folder)[id]))
    return {dimension: mean(own) for dimension, own in rates.items()}


@cache
def named_first(folder: Path) -> dict[str, dict[str, float]]:
    """Returns, per scenario with one distractor object, how often the object grasped alone is the named one."""
    from vla_gen_bench.log.folder import EvalLog

    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from listening import SCENARIOS, listening
    finally:
        sys.path.pop(0)
    rows = EvalLog(folder).rows()
    return {name: listening(own) for name in SCENARIOS if (own := [row for row in rows if row["scenario"] == name])}


def listening_table() -> str:
    """Returns how often each policy grasps the named one of two objects."""
    from vla_gen_bench.log.folder import EvalLog

    lines = ["| policy | scenario | exactly one grasped | the named one | share |", "| --- | --- | --- | --- | --- |"]
    for log in (*LOGS, WARMUP, BASE):
        policy = EvalLog(log).header.policy.name
        for name, found in named_first(log).items():
            share = f"{found['share']:.3f} \\[{found['low']:.3f}, {found['high']:.3f}\\]"
            lines.append(f"| {policy} | {name} | {found['one_only']} | {found['named']} | {share} |")
    return "\n".join(lines)


def card_table() -> str:
    """Returns the results of the references, from the base on: one table for all their cards."""
    from vla_gen_bench.episodes.suite import load_suite
    from vla_gen_bench.log.folder import EvalLog

    shown = [BASE, WARMUP, SFT, PPO]
    rates = [{name: rate(counts) for name, counts in counted(log).items()} for log in shown]
    suite, means = load_suite("all").scenarios, [dimension_means(log) for log in shown]
    lines = {"IND": [f"{own['ind']:.3f}" for own in means]}
    for name, size in Counter(scenario.dimension for scenario in suite.values() if scenario.dimension != "ind").items():
        lines[f"{name.capitalize()}, mean of {size} rows"] = [f"{own[name]:.3f}" for own in means]
    named = [named_first(log)["multi_object_ind"]["share"] for log in shown]
    lines["grasped the named one of two training objects"] = [f"{share:.3f}" for share in named]
    lines[f"rows below {WEAK:g}"] = [
        ", ".join(f"{suite[id].label} {own[id]:.3f}" for id in suite if own[id] < WEAK) or "none" for own in rates
    ]
    names = [f"`{EvalLog(log).header.policy.name}`" for log in shown]
    head = [f"world {world()}", *names]
    rows = [head, ["---"] * len(head), *([name, *cells] for name, cells in lines.items())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def section(text: str, title: str) -> str:
    """Returns what a report in Markdown has under one heading."""
    return re.search(rf"^## {title}\n+(.*?)(?=^## |^- |\Z)", text, re.MULTILINE | re.DOTALL)[1].strip()


def kinds_table(text: str) -> str:
    """Returns IND and the mean of each group of rows, from a report in Markdown."""
    rates = section(text, "Success rates")
    rows = by_group(tables(rates)[0], lambda group, row: row == "IND" or row.startswith("mean of"))
    return "\n".join([*rates.splitlines()[:2], *(f"| {label} | {' | '.join(cells)} |" for label, cells in rows)])


def levels_table(folder: Path) -> tuple[str, str]:
    """Returns a policy's successes at each level of each disturbance, and in words the levels below EXPERT_REACHES."""
    from vla_gen_bench.episodes.suite import load_suite

    suite, found = load_suite("robustness"), counted(folder)
    rows: dict[str, list[str]] = {}
    low: dict[str, list[int]] = {}
    for id, scenario in suite.scenarios.items():
        if scenario.sweep:
            label = scenario.label.split(" (")[0]
            rows.setdefault(label, []).append(f"{found[id].success_at_end}")
            if rate(found[id]) < EXPERT_REACHES:
                low.setdefault(label, []).append(scenario.level)
    head = "| disturbance | " + " | ".join(str(level) for level in range(1, 6)) + " |"
    lines = [head, "| --- " * 6 + "|", *(f"| {label} | {' | '.join(cells)} |" for label, cells in rows.items())]
    below = "; ".join(f"{label.lower()} at level {', '.join(map(str, levels))}" for label, levels in low.items())
    return "\n".join(lines), below or "nothing"


def joined(paragraph: str, width: int = 200) -> str:
    """Returns a paragraph in long lines, as README.md has them."""
    return textwrap.fill(" ".join(paragraph.split()), width, break_long_words=False, break_on_hyphens=False)


def in_words() -> str:
    """Returns the paragraph above the table of README.md."""
    start = dimension_means(WARMUP)
    ppo, sft = (named_first(log)["multi_object_ind"]["share"] for log in LOGS)
    return f"""\
The [references](docs/references.md) are OpenVLA-nano (1.03 million parameters), trained on a CPU: a base, a warm-up on
140 demonstrations (IND {start["ind"]:.3f}, Vision {start["vision"]:.3f}, Semantics {start["semantics"]:.3f}, Execution
{start["execution"]:.3f}), then SFT or PPO. With two training objects on the table, of the episodes in which PPO grasps
exactly one, {ppo:.0%} grasp the named one; for SFT, {sft:.0%}. World {world()}, training seed 0. {over_seeds()}
Columns: success rate, 95% interval, successes/episodes; then
the paired difference, its interval, for IND the number of episodes solved only by PPO : only by SFT, and p
(Holm-corrected except in the last row; [definitions](docs/report.md)). [Compared with the
paper](docs/results.md#compared-with-the-paper).
"""


def over_seeds() -> str:
    """Returns in words what PPO gains over SFT in the mean over their training seeds."""
    shown = ", ".join(f"{dimension_label(id)} {gain:+.3f}" for id, gain in gains(*several_seeds().values()).items())
    count = len(several_seeds()["openvla-ppo"])
    return f"Over {count} [training seeds](docs/results.md#over-training-seeds) each, PPO less SFT is: {shown}."


def gains(sft: Mapping[int, Path], ppo: Mapping[int, Path]) -> dict[str, float]:
    """Returns the mean of each dimension of PPO's runs less that of SFT's."""
    ours, theirs = ([dimension_means(log) for log in logs.values()] for logs in (ppo, sft))
    return {id: mean(run[id] for run in ours) - mean(run[id] for run in theirs) for id in ours[0]}


def dimension_label(id: str) -> str:
    return "IND" if id == "ind" else id.capitalize()


def seeds_of(name: str) -> dict[int, Path]:
    """Returns training seed -> log of a policy; seed 0 is the published one."""
    others = sorted((RESULTS / "seeds").glob(f"{name}-[1-9]"))
    return {0: PUBLISHED[name], **{int(log.name.rpartition("-")[2]): log for log in others}}


def several_seeds() -> dict[str, dict[int, Path]]:
    """Returns training seed -> log of each policy with several seeds."""
    logs = {name: seeds_of(name) for name in ("openvla-sft", "openvla-ppo")}
    return {name: its for name, its in logs.items() if len(its) > 1}


def seeds_section() -> str:
    """Returns the tables over training seeds: against the warm-up and, as far as there are logs, PPO against SFT.

    They are over the seeds that all policies have.
    """
    found = several_seeds()
    shared = sorted(set.intersection(*(set(its) for its in found.values())))
    trained = [f"{name}={its[seed]}" for name, its in found.items() for seed in shared]
    starts = [f"openvla-base={BASE}", f"openvla-warmup={WARMUP}"]
    options = ("--over-seeds", "--format", "md")
    parts = [report(*trained, *starts, "--baseline", "openvla-warmup", *options)]
    if len(found) > 1:
        parts.append(report(*trained, "--baseline", BASELINE, *options).partition("## Difference")[2])
    first, *others = (re.sub(r"^#", "###", text.strip(), flags=re.MULTILINE) for text in parts)
    tables = [first, *(f"#### Difference {text}" for text in others)]
    shown = "\n\n".join(tables).replace(f"{ROOT}/", "")
    return f"""\
The same trainings with other seeds, evaluated once each: {places_of(shared)}. Weights, curves and logs of all but
seed 0: `benchmarks/results/seeds/`. All start from the one warm-up.

{shown}"""


def places_of(seeds: Iterable[int]) -> str:
    """Returns in words which run of a table is which seed."""
    return ", ".join(f"run {place + 1} is seed {seed}" for place, seed in enumerate(seeds))


def controls_table() -> str:
    """Returns the success rate of each policy in each row of suite `controls`."""
    from vla_gen_bench.episodes.suite import load_suite

    names = [f"`{folder.name}`" for folder in CONTROLS]
    lines = [f"| | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for id, scenario in load_suite("controls").scenarios.items():
        lines.append(f"| {scenario.label} | {' | '.join(f'{rate(counted(log)[id]):.3f}' for log in CONTROLS)} |")
    return "\n".join(lines)


def expert_table() -> str:
    """Returns successes per scenario of the privileged expert, from its log."""
    found = counted(RESULTS / "expert-builtin")
    lines = [f"| {name} | {counts.success_at_end}/{counts.episodes} |" for name, counts in found.items()]
    return "\n".join(["| scenario | success at end |", "| --- | --- |", *lines])


def speed_table() -> str:
    """Returns the measured speeds with their targets."""
    lines = {}
    for name in BENCHES:
        lines |= {line["name"]: line for line in json.loads((RESULTS / f"{name}.json").read_text())["lines"]}
    rows = []
    for pattern, label in SPEEDS.items():
        line = next(line for name, line in lines.items() if re.fullmatch(pattern, name))
        target = "" if line["target"] is None else f"{line['target']:g} {line['unit']}"
        rows.append(f"| {label} | {line['value']:.3g} {line['unit']} | {target} |")
    return "\n".join(["| | measured | target |", "| --- | --- | --- |", *rows])


def evaluation_times() -> str:
    """Returns in words how long one core took for the logs of suite `all`."""
    from vla_gen_bench.log.folder import EvalLog

    minutes = {log: sum(row["duration_s"] or 0 for row in EvalLog(log).rows()) / 60 for log in (SFT, PPO)}
    return ", ".join(f"`{EvalLog(log).header.policy.name}` {each:.0f} minutes" for log, each in minutes.items())


def paper_table() -> str:
    """Returns what PPO gains over SFT in each dimension, here and in the paper's Table 1."""
    from vla_gen_bench.episodes.suite import load_suite

    dimensions: dict[str, list[str]] = {}
    for id, scenario in load_suite("all").scenarios.items():
        dimensions.setdefault(scenario.dimension, []).append(id)
    ppo, sft = (json.loads(file.read_text())["results"] for file in PAPER)
    here, over_all = gains({0: SFT}, {0: PPO}), gains(*several_seeds().values())
    lines = ["| | rows | here, training seed 0 | here, all seeds | paper |", "| --- | --- | --- | --- | --- |"]
    for name, ids in dimensions.items():
        theirs = mean(ppo[id]["rate"] - sft[id]["rate"] for id in ids)
        values = " | ".join(f"{value:+.3f}" for value in (here[name], over_all[name], theirs))
        lines.append(f"| {dimension_label(name)} | {len(ids)} | {values} |")
    return "\n".join(lines)


def world() -> str:
    """Returns the world of the published logs, with its version."""
    header = json.loads((LOGS[0] / "run.json").read_text())["world"]
    return f"`{header['name']}` version {header.get('version', 1)}"


def page(text: str) -> str:
    """Returns docs/results.md."""
    return f"""# Results

Written by `make results` from committed logs; nothing here is typed by hand.

## Reference policies
`openvla-ppo` and `openvla-sft` (OpenVLA-nano, 1.03 million parameters), the warm-up from which both were trained and
the base before it, on all 3,072 episodes of world {world()}: `vgb eval --policy NAME --suite all --num-envs 8`.
Training seed 0. Logs: `leaderboard/logs/`; cards: `policies/`. `vgb report --baseline {BASELINE} --format md` prints
the tables; every number is defined in [report.md](report.md).

{re.sub(r"^#", "##", text.strip(), flags=re.MULTILINE)}

## Over training seeds
{seeds_section()}

## Listening: which of two objects is grasped
Of the episodes that grasped exactly one of two objects: how many grasped the named one
(`benchmarks/listening.py`). Chance is 0.5.

{listening_table()}

## Controls: what the policies use
Success on the same 64 episodes with an input and without it (`vgb eval --policy NAME --suite controls --quick`; logs:
`benchmarks/results/controls`), and the difference. A policy uses an input if the interval of the difference lies above
0. Compare each row of Semantics with the rate without an instruction or with a wrong one. Neither policy receives the
robot's state, so "No state" changes nothing they observe: its differences from IND show how far two rows of 64 episodes
differ by the policy's sampling alone, whose random numbers depend on the scenario.

{controls_table()}

{section(report(*CONTROLS, "--baseline", BASELINE, "--format", "md"), "What it uses")}

## Compared with the paper
PPO minus SFT, means of rows of success rates:

{paper_table()}

The paper's policies have 7 billion parameters and are evaluated in world `rl4vla` (`leaderboard/entries/paper-*`).
Models, data, assets and episodes differ, so this does not test the paper's claim.

## Ceiling: the privileged expert
Sees the simulator's state. Log: `benchmarks/results/expert-builtin` (`vgb eval --policy expert --suite all
--no-render`).

{expert_table()}

## Speed
Two cores of an AMD EPYC at 2.6 GHz, no GPU (`vgb bench`, `vgb bench --rl`, `vgb bench --openvla`; files:
`benchmarks/results/bench-*.json`).

{speed_table()}

All {sum(each.episodes for each in counted(PPO).values()):,} episodes of suite `all` on one core with `--workers 1
--num-envs 8` (sums of `duration_s` in the logs): {evaluation_times()}.
"""


def episodes_each(log: Path) -> int:
    """Returns the number of episodes of each row of a log."""
    (count,) = {each.episodes for each in counted(log).values()}
    return count


def robustness_page() -> str:
    """Returns docs/results-robustness.md."""
    text = report(*COMPARED, "--baseline", BASELINE, "--format", "md")
    reached, low = levels_table(ROBUSTNESS["expert"])
    pairs = section(report(*PAIRS, "--baseline", BASELINE, "--format", "md"), "Interactions")
    idle = counted(ROBUSTNESS["hold"]).values()
    unmoved = f"{sum(each.success_at_end for each in idle)} of {sum(each.episodes for each in idle):,}"
    return f"""# Robustness of the reference policies

Written by `make results` from committed logs; nothing here is typed by hand.

`vgb eval --policy NAME --suite robustness --quick` in world {world()}: one training seed each, 16 episodes a
row, each the same IND episode with one disturbance, for every policy alike; so intervals are wide. `≤ control`: not
above what the policy reaches without an instruction or on a black image. Levels: [robustness.md](robustness.md);
numbers: [report.md](report.md). Logs: `benchmarks/results/robustness`.

![Success by level of each disturbance](gallery/{RESPONSE.name})

## By kind of disturbance
{kinds_table(text)}

## By disturbance
{section(text, "Dose and response")}

Area: success averaged over the levels from IND (level 0) to the highest; in brackets its interval, then its share of
success in distribution. Halved at level: where success falls below half of that in distribution.

## Two shifts at once
`vgb eval --policy NAME --suite compositional`: {episodes_each(PAIRS[0])} episodes a row. Interaction: the success
rate under both shifts minus the rate expected if their separate losses added up (IND minus both losses). Negative:
together they cost more than the sum; positive: less. The intervals are not corrected for multiple comparisons: about
one in 20 does not contain the true value. Two rows are milder than their namesakes in suite `all`: *Unseen position*
(3 cm outside, training orientations) and *Unseen robot pose* (0.7 of the offset), as at level 3 of suite `robustness`.
Logs: `benchmarks/results/compositional`.

{pairs}

## What can be reached: the privileged expert
Successes of 16 at each level (`--policy expert --no-render`). It sees the simulator's state, so disturbances of image
and instruction do not reach it. Below a rate of {EXPERT_REACHES:g}: {low}. `hold`, which never
moves, succeeds in {unmoved} episodes.

{reached}
"""


def draw_response() -> None:
    """Draws the figure of docs/results-robustness.md."""
    with TemporaryDirectory() as folder:
        report(*COMPARED, "--baseline", BASELINE, "--plots", folder)
        shutil.copyfile(Path(folder) / "dose-response.png", RESPONSE)


def replaced(file: Path, results: str) -> str:
    """Returns the text of a file with what is between its marks replaced."""
    before = file.read_text()
    first, last = (before.index(mark) for mark in MARKS)
    return f"{before[: first + len(MARKS[0])]}\n{results}\n{before[last:]}"


def outputs() -> dict[Path, str]:
    """Returns the text of each file that this tool writes."""
    two, four = (
        report(*logs, "--baseline", BASELINE, "--format", "md").replace(f"{ROOT}/", "")
        for logs in (LOGS, [*LOGS, WARMUP, BASE])
    )
    readme, results = ROOT / "README.md", card_table()
    return {
        ROOT / "docs" / "results.md": page(four),
        ROOT / "docs" / "results-robustness.md": robustness_page(),
        readme: replaced(readme, f"{joined(in_words(), 340)}\n\n{readme_table(two)}"),
        **{card: replaced(card, results) for card in CARDS},
    }


if __name__ == "__main__":
    for path, content in outputs().items():
        path.write_text(content)
        print(f"wrote {path.relative_to(ROOT)}")
    draw_response()
