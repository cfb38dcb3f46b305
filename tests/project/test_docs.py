"""Documentation that cannot rot: links lead somewhere, examples run, README and cards stay short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vla_gen_bench.episodes.suite import load_suite

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for folder in ("", "docs", "docs/experiments", "suites", "policies/*", "leaderboard", "servers", "integrations")
    for path in ROOT.glob(f"{folder}/*.md" if folder else "*.md")
)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
QUOTED = re.compile(
    r"`((?:benchmarks|data|docs|examples|leaderboard|logs|policies|recipes|suites|tests|tools)/[^`\s<]+?)/?`"
)
BLOCK = re.compile(r"^```(yaml|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LIST_AFTER_TEXT = re.compile(r"^(?![-*+#|>\s]|\d+\. ).+\n(?:[-*+]|1\.) .*", re.MULTILINE)


def blocks(kind: str) -> list:
    """Returns the code blocks of a kind in all pages, as test parameters named page:number."""
    found = []
    for page in PAGES:
        texts = [text for name, text in BLOCK.findall(page.read_text()) if name == kind]
        name = page.relative_to(ROOT)
        found += [pytest.param(text, id=f"{name}:{number}") for number, text in enumerate(texts, 1)]
    return found


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_list_is_one_on_the_site_too(page: Path) -> None:
    """The site's Markdown takes a list right after a line of text for more of that text."""
    assert LIST_AFTER_TEXT.findall(FENCED.sub("", page.read_text())) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_quoted_is_there(page: Path) -> None:
    """Named from the page's folder or from the root."""
    quoted = sorted(set(QUOTED.findall(page.read_text())))
    assert [name for name in quoted if not any([*page.parent.glob(name), *ROOT.glob(name)])] == []


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_example_is_valid(text: str, tmp_path: Path) -> None:
    """A suite must load; a card, recipe or fragment must be YAML."""
    data = yaml.safe_load(text)
    if isinstance(data, dict) and ("scenarios" in data or "include" in data):
        file = tmp_path / f"{data.get('id', 'example')}.yaml"
        file.write_text(text)
        assert load_suite(str(file)).scenarios


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_example_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "example", "exec"), {"__name__": "example"})


def test_the_readme_is_a_screen_and_cards_are_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
    cards = [path.parent for path in (ROOT / "policies").glob("*/card.yaml") if (path.parent / "checkpoint").is_dir()]
    assert cards and all(len((card / "README.md").read_text().splitlines()) <= 40 for card in cards)


NAMED = re.compile(r"`?vla_gen_bench((?:\.[a-z_0-9]+)+)")
NO_MODULES = {"effects", "suites", "vision"}  # groups of entry points, and a key of config.json


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_module_that_is_named_is_there(page: Path) -> None:
    named = sorted(set(NAMED.findall(page.read_text())))
    lost = [name for name in named if not _is_there(name.removeprefix(".").split("."))]
    assert lost == []


def _is_there(parts: list[str]) -> bool:
    """Whether the parts name a module, or something of one."""
    if parts[0] in NO_MODULES:
        return True
    place = ROOT / "vla_gen_bench"
    for part in parts:
        if place.joinpath(f"{part}.py").is_file():
            return True
        if not (place / part).is_dir():
            return part in (place / "__init__.py").read_text()
        place /= part
    return True
