"""Instructions other than the training template: paraphrases by grade, politeness, typing errors, Spanish."""

from __future__ import annotations

from vla_gen_bench.episodes.spanish import WORDS
from vla_gen_bench.episodes.streams import Stream
from vla_gen_bench.errors import UserError

PARAPHRASES: dict[int, tuple[str, ...]] = {
    1: (  # another verb
        "place {object} on {receptacle}",
        "move {object} onto {receptacle}",
        "lay {object} on {receptacle}",
    ),
    2: (  # two steps
        "pick up the {object} and put it on the {receptacle}",
        "take the {object} and set it down on the {receptacle}",
        "grab the {object} and lay it on the {receptacle}",
    ),
    3: (  # another order
        "on the {receptacle}, put the {object}",
        "the {receptacle} is where the {object} should go",
        "the {object} should end up on the {receptacle}",
    ),
    4: (  # a wish or a question
        "could the {object} be moved so that it rests on the {receptacle}?",
        "I would like the {object} to be on the {receptacle}",
        "can you make sure that the {object} is on the {receptacle}?",
    ),
    5: (  # embedded in other sentences
        "the table is a mess, leave it as it is, but the {object} belongs on the {receptacle}",
        "I was looking for the {object}; now that you have found it, the {receptacle} is the place for it",
        "before we start, find the {receptacle} and let the {object} rest on top of it",
    ),
}
POLITE = {
    1: "please {phrase}",
    2: "could you please {phrase}?",
    3: "hello robot, could you please {phrase}?",
    4: "hello robot, if it is not too much trouble, could you please {phrase}? thank you",
    5: "good morning robot, if it is not too much trouble, could you please {phrase}? thank you, and take your time",
}
SPANISH = "pon {object} sobre {receptacle}"


def misspelt(text: str, count: int, stream: Stream) -> str:
    """Returns `text` with `count` pairs of neighbouring letters swapped, one pair after the other."""
    for draw in range(count):
        places = [i for i, (a, b) in enumerate(zip(text, text[1:], strict=False)) if _swappable(a, b)]
        if places:
            at = stream.choice(places, draw)
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def _swappable(a: str, b: str) -> bool:
    return a.isalpha() and b.isalpha() and a.lower() != b.lower()


def spanish(target: str, receptacle: str) -> str:
    """Returns the instruction in Spanish; raises `UserError` where a name has no translation."""
    for name in (target, receptacle):
        if name not in WORDS:
            raise UserError(f"phrasing 'spanish': no Spanish word is known for '{name}'; choose another pool")
    return SPANISH.format(object=WORDS[target], receptacle=WORDS[receptacle])
