"""Sentences with made-up words: what is needed to know what is meant remains."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vla_gen_bench.episodes.draw import draw_training
from vla_gen_bench.episodes.shift import Shift
from vla_gen_bench.train.demos.sentences import decisive_names, reworded, reworded_prompt

SENTENCE = "carry green cone over to the orange coaster"
WORDS = set(SENTENCE.split())


def samples(kept: tuple[str, ...], count: int = 400) -> list[str]:
    return [reworded(SENTENCE, kept, np.random.default_rng(number)) for number in range(count)]


def test_half_of_the_words_remain_and_others_are_new():
    found = [text.split() for text in samples(())]
    remain = np.mean([sum(word in WORDS for word in words) for words in found]) / len(WORDS)
    assert 0.5 < remain < 0.6
    assert all(word.isalpha() and word.islower() for words in found for word in words)
    new = {word for words in found for word in words} - WORDS
    assert len(new) > 1000  # hardly any twice


def test_kept_words_stay_in_their_order():
    for text in samples(()):
        places = [SENTENCE.split().index(word) for word in text.split() if word in WORDS]
        assert places == sorted(places)


@pytest.mark.parametrize("kept", [("green cone",), ("orange coaster",), ("green cone", "orange coaster")])
def test_a_kept_name_is_whole_and_the_rest_is_not(kept):
    texts = samples(kept)
    assert all(name in text for text in texts for name in kept)
    other = {"green cone", "orange coaster"} - set(kept)
    assert all(0.1 < np.mean([name in text for text in texts]) < 0.5 for name in other)


def test_a_name_is_found_whatever_its_case_and_place():
    for number in range(50):
        text = reworded("Green Cone: on the mat, with green cones", ("green cone",), np.random.default_rng(number))
        assert "Green Cone" in text


def test_the_same_draw_gives_the_same_sentence():
    assert samples((), 20) == samples((), 20) and len(set(samples((), 20))) > 15


def test_a_sentence_is_never_empty():
    assert all(reworded("put", (), np.random.default_rng(number)) for number in range(200))


def test_a_sentence_that_becomes_too_long_remains_as_it_is():
    """The tokenizer's prompt is the number of words; it takes five."""
    count = SimpleNamespace(prompt=lambda text: [len(text.split())])
    count.prompt_within = lambda text: count.prompt(text) if len(text.split()) <= 5 else None
    short = "put green cone on mat"
    found = [reworded_prompt(count, short, ("green cone",), np.random.default_rng(n)) for n in range(100)]
    changed = [len(reworded(short, ("green cone",), np.random.default_rng(n)).split()) for n in range(100)]
    assert found == [[words if words <= 5 else 5] for words in changed] and min(changed) <= 5 < max(changed)


@pytest.mark.parametrize(
    ("shift", "kinds"),
    [
        ({}, ()),
        ({"distractor_object": "train"}, ("object",)),
        ({"distractor_receptacle": "train"}, ("receptacle",)),
        ({"distractor_object": "train", "distractor_receptacle": "train"}, ("object", "receptacle")),
    ],
)
def test_names_are_decisive_where_several_things_lie(shift, kinds):
    from vla_gen_bench.episodes.catalog import load_catalog

    catalog = load_catalog("pretrain")
    for index in range(20):
        spec = draw_training("pretrain", 1_000_007, index, Shift.parse(shift))
        names = {
            "object": catalog.get("objects", spec.target.id).name,
            "receptacle": catalog.get("receptacles", spec.receptacle.id).name,
        }
        assert decisive_names(spec) == tuple(names[kind] for kind in kinds)
        assert all(name in spec.instruction for name in decisive_names(spec))
