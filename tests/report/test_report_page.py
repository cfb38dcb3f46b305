"""The HTML report: what is in it, and that it works in a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from browser import show
from report_logs import flipped_copy, row, successes, write_log, write_rows

from vla_gen_bench.log.video import video_name
from vla_gen_bench.report.page import inline_svg

EVIL = "</script><script>faults.push('injected')</script>&<b>\"'"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs: 6 IND episodes and 4 on an unseen table, with stages, an error, a video, and a hostile instruction."""
    folder = tmp_path_factory.mktemp("runs")
    folders = []
    for place, (policy, wins) in enumerate((("base", 2), ("other <&>", 5))):
        run = write_log(
            folder / policy.split()[0], {"ind": successes(wins, 6), "unseen_table": [True] * 4}, policy=policy
        )
        rows = [row("ind", 0, i, i < wins, stage="success" if i < wins else "dropped") for i in range(6)]
        rows += [row("unseen_table", 0, i, True, stage="success") for i in range(4)]
        for one in rows:
            texts = {"instruction": f"put cup {one['index']} on plate", "target": "paper_cup", "receptacle": "plate"}
            one |= {
                **texts,
                "table": "oak_table",
                "first_success_step": 30 - one["index"] if one["success_once"] else None,
            }
        rows[5] |= {"success_once": True, "first_success_step": 77}  # lost again where it is a failure
        rows[0]["instruction"] = EVIL
        rows[9] |= row("unseen_table", 0, 3, None if place else True, error="simulator gone")
        write_rows(run, rows)
        folders.append(run)
    (folders[0] / "videos").mkdir()
    (folders[0] / "videos" / video_name(("ind", 0, 0), True)).write_bytes(b"not really an mp4")
    return folders


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """The page of these runs."""
    from vla_gen_bench.cli.report import report

    out = tmp_path_factory.mktemp("page") / "report.html"
    report.main([*map(str, runs), "--allow-partial", "--out", str(out)], standalone_mode=False)
    return out.read_text(encoding="utf-8")


def data_of(html):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.S)[1])


class Outline(HTMLParser):
    """Collects what a page refers to and checks that elements nest."""

    VOID = {"meta", "link", "input", "br", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.references, self.ids = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.references += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        self.open += [] if tag in self.VOID else [tag]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open += [] if tag in self.VOID else [self.open.pop() and tag]
        self.open.pop() if tag not in self.VOID else None

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file_without_requests(page):
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert all(reference.startswith(("#", "data:")) for reference in outline.references), outline.references
    assert len(set(outline.ids)) == len(outline.ids)
    assert {reference[1:] for reference in outline.references if reference.startswith("#")} <= {*outline.ids}
    assert "url(http" not in page and "@import" not in page and "default-src 'none'" in page


def test_the_page_says_what_the_logs_say(page):
    assert page.count("<title>PARTIAL: Success at the end on suite vision, world builtin v2</title>") == 1
    # base: 2 of 6 = 33.3% of IND, all of the 4 on unseen tables; the other: 5 of 6, 3 of 3 and one error
    assert "base solves 33.3% of IND (2 of 6 episodes) and 100.0% on average over the shifted scenario" in page
    assert "base: 2 missing; other &lt;&amp;&gt;: 2 missing, 1 errored" in page
    assert "simulator gone" in page and "run.json" in page and "3" * 16 in page


def test_the_data_hold_every_episode(page):
    data = data_of(page)
    assert data["scenarios"] == [["ind", "IND"], ["unseen_table", "Unseen table"]]
    assert len(data["episodes"]) == 10 and [len(column) for column in data["outcomes"]] == [30, 30]
    base, other = ([column[3 * e] for e in range(10)] for column in data["outcomes"])
    assert base == [3, 3, 1, 1, 1, 2, 3, 3, 3, 3]  # 3 success, 2 lost again, 1 failure
    assert other == [3, 3, 3, 3, 3, 2, 3, 3, 3, 4]  # 4 errored
    assert data["outcomes"][0][:3] == [3, 30, data["stages"].index("success")]
    assert data["words"][data["episodes"][0][3]] == EVIL
    assert data["errors"] == {"1:9": "simulator gone"}


def test_videos_are_embedded_up_to_a_size(page, runs, cli, tmp_path):
    assert list(data_of(page)["videos"]) == ["0:0"]
    ran = cli("report", *runs, "--allow-partial", "--videos", 0, "--out", tmp_path / "small.html")
    assert ran.exit_code == 0 and data_of((tmp_path / "small.html").read_text())["videos"] == {}
    ran = cli("report", *runs, "--allow-partial", "--videos", 0, "--out", tmp_path / "small.md")
    assert ran.exit_code == 2 and "--videos is for HTML pages, and this report is md" in ran.stderr


def test_svg_ids_are_made_unique():
    svg = '<?xml?><svg width="9pt" viewBox="0 0 1 1"><metadata>x</metadata><g id="a"/><g clip-path="url(#a)"/></svg>'
    assert inline_svg(svg, "one", "An image") == (
        '<svg role="img" aria-label="An image" viewBox="0 0 1 1"><g id="one-a"/><g clip-path="url(#one-a)"/></svg>'
    )


# ---- in a browser -------------------------------------------------------------------------------------------------

READ = """
const wait = () => new Promise(done => setTimeout(done, 20));
const cells = place => [...document.querySelectorAll("#list tbody tr")].map(line => line.cells[place].textContent);
const set = async (name, value) => {
  const field = document.getElementById("filters").elements[name];
  field.value = value;
  field.dispatchEvent(new Event("input", {bubbles: true}));
  await wait();
};
const click = async selector => { document.querySelector(selector).click(); await wait(); await wait(); };
const press = name => click(`th[data-column=${name}] button`);
const count = () => document.getElementById("count").textContent;
"""


def test_the_list_renders_filters_and_sorts(page, tmp_path):
    script = (
        READ
        + """
    const heads = [...document.querySelectorAll("#list th[data-column]")];
    const out = {all: cells(0).length, count: count(), columns: heads.map(head => head.dataset.column)};
    await set("policy", "0"); out.policy = cells(1);
    await press("step"); out.up = cells(4); out.aria = heads[4].getAttribute("aria-sort");
    await press("step"); out.down = cells(4);
    await set("outcome", "failure"); out.failures = cells(3);
    await set("policy", ""); await set("outcome", "won"); out.won = cells(1); out.wonPolicies = [...new Set(cells(2))];
    await set("outcome", "error"); out.errors = cells(3);
    await click("#filters button[type=reset]"); out.reset = cells(0).length;
    await set("text", "CUP 3"); out.searched = cells(1);
    await set("text", ""); await click("a[data-scenario=unseen_table]"); out.chosen = [...new Set(cells(0))];
    await set("scenario", "0"); await set("policy", "0");
    await click("#list tbody button"); out.video = document.querySelector("#list video").src.slice(0, 22);
    await click("#list tbody button"); out.closed = document.querySelectorAll("#list video").length;
    return out;"""
    )
    shown = show(page, tmp_path, script)
    out = shown.found
    assert shown.faults == [] and shown.console == []
    assert out["columns"] == [
        "scenario", "episode", "policy", "outcome", "step", "stage", "instruction", "target", "receptacle", "table",
    ]  # fmt: skip
    # 20 rows: base solved 2 + 4, the other 5 + 3, one errored
    assert (out["all"], out["count"]) == (20, "20 episodes, 14 of 19 solved, 1 errored")
    assert out["policy"] == [f"0/{i}" for i in (*range(6), *range(4))]
    # base's steps are 30 - index where solved, 77 where lost again, none elsewhere, which sort last
    assert out["up"] == ["27", "28", "29", "29", "30", "30", "77", "", "", ""] and out["aria"] == "ascending"
    assert out["down"] == ["", "", "", "77", "30", "30", "29", "29", "28", "27"]
    assert len(out["failures"]) == 4 and "lost again" in out["failures"]
    assert (sorted(out["won"]), out["wonPolicies"]) == (["0/2", "0/3", "0/4"], ["other <&>"])
    assert out["errors"] == ["errored simulator gone"]
    assert (out["reset"], sorted(out["searched"])) == (20, ["0/3"] * 4)
    assert out["chosen"] == ["Unseen table"]
    assert (out["video"], out["closed"]) == ("data:video/mp4;base64,", 0)


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(page, tmp_path, width):
    script = """
    const over = [...document.querySelectorAll("body *")].filter(it => !it.closest(".wide, pre, svg, .skip") &&
      it.getBoundingClientRect().right > innerWidth + 1).map(it => it.tagName + "." + it.className);
    return [innerWidth, document.documentElement.scrollWidth, over];"""
    shown = show(page, tmp_path, script, width)
    assert shown.faults == [] and shown.console == []
    inner, scroll, over = shown.found
    assert inner == width and scroll <= width and over == []


def test_controls_are_named_and_reached_by_keyboard(page, tmp_path):
    script = """
    const named = it => (it.labels && it.labels.length) || it.textContent.trim() || it.getAttribute("aria-label");
    const controls = [...document.querySelectorAll("a, button, select, input, summary, [tabindex]")];
    return {nameless: controls.filter(it => !named(it)).map(it => it.outerHTML.slice(0, 80)),
      out: controls.filter(it => it.tabIndex < 0).length, count: controls.length,
      regions: [...document.querySelectorAll(".wide")].filter(it => it.tabIndex !== 0).length,
      heads: [...document.querySelectorAll("th")].filter(it => !it.scope).length};"""
    found = show(page, tmp_path, script).found
    assert found["nameless"] == [] and (found["out"], found["regions"], found["heads"]) == (0, 0, 0)
    assert found["count"] > 20


def test_one_run_alone_has_a_page(cli, runs, tmp_path):
    out = tmp_path / "one.html"
    assert cli("report", runs[0], "--allow-partial", "--out", out).exit_code == 0
    script = (
        READ + "return [cells(0).length, [...document.querySelectorAll('th[data-column]')].map(c => c.dataset.column)];"
    )
    shown = show(out.read_text(), tmp_path, script)
    assert shown.faults == [] and shown.console == []
    assert shown.found[0] == 10 and "policy" not in shown.found[1]


def test_a_large_page_stays_small_and_quick(cli, tmp_path):
    folders = [flipped_copy(tmp_path / f"run{i}", f"policy{i}", 0.5 + 0.2 * i, seed=i) for i in range(3)]
    out = tmp_path / "large.html"
    assert cli("report", *folders, "--out", out).exit_code == 0
    assert out.stat().st_size < 3e6
    script = (
        READ
        + """
    const started = performance.now(); await set("outcome", "failure"); await press("target");
    document.getElementById("more").click(); await wait();
    return [cells(0).length, count(), performance.now() - started];"""
    )
    shown = show(out.read_text(), tmp_path, script)
    rows, count, _ = shown.found
    assert shown.faults == [] and shown.console == []
    assert rows == 500 and count.endswith("; the first 500 are shown")
