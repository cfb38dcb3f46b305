"""Instructions with words that no training sentence has, for policies that are to act on unknown ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vla_gen_bench.episodes.spec import EpisodeSpec

if TYPE_CHECKING:
    from vla_gen_bench.policies.openvla.checkpoint.tokenizer import PromptTokenizer

CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxyz", "aeiou"
REPLACED, DROPPED = 0.35, 0.15
MOST_ADDED, MOST_SYLLABLES = 8, 3


def decisive_names(spec: EpisodeSpec) -> tuple[str, ...]:
    """Returns the names in an instruction without which nobody could know what is meant.

    Those of kinds, objects or receptacles, of which several lie on the table.
    """
    from vla_gen_bench.episodes.catalog import load_catalog

    catalog, names = load_catalog(spec.world), []
    if spec.distractor_objects:
        names.append(catalog.get("objects", spec.target.id).name)
    if spec.distractor_receptacles:
        names.append(catalog.get("receptacles", spec.receptacle.id).name)
    return tuple(names)


def reworded(sentence: str, kept: Sequence[str], random: np.random.Generator) -> str:
    """Returns a sentence in which words are replaced by made-up ones, dropped and inserted.

    Args:
        kept: Names that remain whole, in their order.
    """
    found: list[tuple[str, bool]] = []
    for part, name in _parts(sentence, kept):
        found += [(part, True)] if name else [(word, False) for word in part.split() if random.random() >= DROPPED]
    words = [word if name or random.random() >= REPLACED else _made_up(random) for word, name in found]
    for _ in range(random.integers(0, MOST_ADDED + 1)):
        words.insert(random.integers(0, len(words) + 1), _made_up(random))
    return " ".join(words) or sentence


def reworded_prompt(
    tokenizer: PromptTokenizer, sentence: str, kept: Sequence[str], random: np.random.Generator
) -> list[int]:
    """Returns the prompt of a sentence as `reworded` changes it; unchanged where that leaves no room for the rest."""
    return tokenizer.prompt_within(reworded(sentence, kept, random)) or tokenizer.prompt(sentence)


def _parts(sentence: str, kept: Sequence[str]) -> list[tuple[str, bool]]:
    """Returns the sentence cut into pieces, and whether each is a kept name."""
    if not kept:
        return [(sentence, False)]
    names = "|".join(re.escape(name) for name in sorted(kept, key=len, reverse=True))
    pieces = re.split(rf"\b({names})\b", sentence, flags=re.IGNORECASE)
    return [(piece.strip(), place % 2 == 1) for place, piece in enumerate(pieces) if piece.strip()]


def _made_up(random: np.random.Generator) -> str:
    """Returns a pronounceable word of three letters or more: shorter ones often mean something."""
    syllables = random.integers(1, MOST_SYLLABLES + 1)
    word = "".join(_one_of(CONSONANTS, random) + _one_of(VOWELS, random) for _ in range(syllables))
    return word + _one_of(CONSONANTS, random) if syllables == 1 or random.random() < 0.5 else word


def _one_of(letters: str, random: np.random.Generator) -> str:
    return letters[random.integers(len(letters))]
