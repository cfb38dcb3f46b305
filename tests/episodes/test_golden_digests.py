"""Digests that were published: no axis, effect or field added later may move one."""

import json

import pytest
from published import EXPERIMENTS

from vla_gen_bench.episodes import axes
from vla_gen_bench.episodes.draw import draw
from vla_gen_bench.episodes.shift import Scenario, Shift
from vla_gen_bench.episodes.spec import EpisodeSpec, Frozen, digest_of
from vla_gen_bench.episodes.suite import Protocol, Suite, load_suite
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.resources import data_dir

SUITES = {  # as published with the logs below
    "all": "847d040dfcf436ee",
}
LOGS = sorted([*(data_dir() / "leaderboard" / "logs").glob("*"), *(EXPERIMENTS / "logs").glob("first-*")])


@pytest.fixture
def one_more_axis(monkeypatch):
    monkeypatch.setitem(axes.AXES, "weather", {"none": {}, "rain": {"rate": axes.Number(1.0, 0.0, 9.0)}})


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_published_logs_have_the_digests_of_today(log):
    header, rows = EvalLog(log).header, EvalLog(log).rows()
    suite = load_suite(header.suite.id)
    assert suite.digest() == header.suite.digest
    world = header.world.name
    drawn = [draw(suite.scenarios[row["scenario"]], world, row["seed"], row["index"]).digest() for row in rows]
    assert drawn == [row["spec_digest"] for row in rows]
    jobs = [[row["scenario"], row["seed"], row["index"], digest] for row, digest in zip(rows, drawn, strict=True)]
    assert digest_of(jobs) == header.raw["sessions"][0]["manifest"]["digest"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (data_dir() / "suites").glob("*.yaml")))
def test_an_axis_added_later_moves_no_suite(name, one_more_axis):
    for manifest in (data_dir() / "suites" / "manifests").glob(f"{name}-*.json"):
        assert load_suite(name).digest() == json.loads(manifest.read_text())["suite_digest"]
    assert SUITES.get(name, load_suite(name).digest()) == load_suite(name).digest()


def test_an_axis_added_later_counts_where_it_is_set(one_more_axis):
    nothing, rain = (Shift.parse(data).resolved() for data in ({}, {"weather": "rain"}))
    assert "weather" not in nothing and Shift.parse({"weather": "none"}).resolved() == nothing
    assert rain == {**nothing, "weather": {"pool": "rain", "params": {"rate": 1.0}}}
    assert list(nothing) == [*axes.FOUNDING_AXES, "effects"] and len(axes.FOUNDING_AXES) == 9


class LaterSpec(EpisodeSpec):
    later_fields = frozenset({"weather"})
    weather: str = "dry"


def test_a_field_added_later_counts_where_it_is_set():
    spec = draw(Scenario(id="ind", label="IND", dimension="ind"), "builtin", 0, 0)
    dry, wet = (LaterSpec(**spec.model_dump(), weather=weather) for weather in ("dry", "wet"))
    assert dry.digest() == spec.digest() == digest_of(spec.model_dump(mode="json")) != wet.digest()


def test_a_later_field_of_the_protocol_counts_where_it_is_set():
    class LaterProtocol(Protocol):
        later_fields = frozenset({"pause"})
        pause: int = 0

    rows = {"ind": Scenario(id="ind", label="IND", dimension="ind")}
    old, same, other = (
        Suite(id="s", version="1", scenarios=rows, protocol=protocol).digest()
        for protocol in (Protocol(), LaterProtocol(), LaterProtocol(pause=3))
    )
    assert old == same != other and issubclass(LaterProtocol, Frozen)
