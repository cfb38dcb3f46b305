"""Container and CI files name what is there: their steps are make's, which the other tests run."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

import vla_gen_bench

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github").rglob("*.yml"))


def _setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _steps() -> str:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    return "\n".join([*runs, (ROOT / "Dockerfile").read_text()])


def test_every_make_target_and_extra_of_containers_and_ci_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:run: |&& |RUN |^)make ([a-z]+)", _steps(), re.MULTILINE))
    assert named and named <= targets
    extras = {extra for group in re.findall(r"EXTRAS=([a-z,]+)", _steps()) for extra in group.split(",")}
    assert extras and extras <= set(_setup()["options.extras_require"])


def test_the_python_versions_are_those_that_setup_cfg_promises() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    classifiers = _setup()["metadata"]["classifiers"]
    assert tested == re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    low, high = re.findall(r"3\.(\d+)", _setup()["options"]["python_requires"])
    assert [f"3.{minor}" for minor in range(int(low), int(high))] == tested


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_files_of_the_forge_are_yaml(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == vla_gen_bench.__version__
    assert citation["license"] == _setup()["metadata"]["license"]


def test_the_citation_has_what_its_format_requires_and_lists_no_others_as_authors() -> None:
    """CFF 1.2.0: keys required of software and of a reference; an author is a person or, with `name`, an entity."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert {"message", "title", "authors"} <= set(citation)
    assert all({"type", "title", "authors"} <= set(work) for work in citation["references"])
    cited = [author for work in citation["references"] for author in work["authors"]]
    for author in citation["authors"] + cited:
        assert set(author) in ({"name"}, {"family-names", "given-names"})
    assert len(cited) == 8 and not [author for author in citation["authors"] if author in cited]


def test_the_ray_job_runs_every_test_that_needs_ray() -> None:
    """Elsewhere these tests skip."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    step = next(step["run"] for step in workflow["jobs"]["ray"]["steps"] if "make test" in step.get("run", ""))
    folders = [ROOT / name for name in re.search(r'ARGS="?([^"]+)"?$', step)[1].split()]
    marks = ("from ray_nodes import", 'importorskip("ray"')
    texts = {file: file.read_text() for file in (ROOT / "tests").rglob("test_*.py") if file != Path(__file__)}
    needing = [file for file, text in texts.items() if any(mark in text for mark in marks)]
    assert len(needing) >= 3 and all(folder.exists() for folder in folders)
    assert [file for file in needing if not any(file.is_relative_to(folder) for folder in folders)] == []
