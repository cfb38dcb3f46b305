"""The pretraining world: what it holds, and that nothing in it is equal or near to what evaluations hold back."""

import itertools

import likeness
import pytest

from vla_gen_bench.assets.pack import open_pack
from vla_gen_bench.episodes.axes import phrasings
from vla_gen_bench.episodes.catalog import load_catalog

KINDS = ("objects", "receptacles", "tables", "textures")
BODIES, IMAGES = KINDS[:2], KINDS[2:]
WORLDS = ("builtin", "pretrain")


def split_of(world: str, kind: str, split: str) -> list:
    return [item for item in getattr(load_catalog(world), kind) if item.split == split and item.id != "neutral"]


def own(kind: str) -> list:
    """What only the pretraining world has."""
    shared = set(load_catalog("builtin").ids(kind, "train"))
    return [item for item in getattr(load_catalog("pretrain"), kind) if item.id not in shared]


@pytest.fixture(scope="module")
def features():
    """Features of every asset by (world, kind, id), computed once."""
    found = {}
    for world in WORLDS:
        pack = open_pack(world)
        for kind in BODIES:
            for body in getattr(pack.catalog, kind):
                found[world, kind, body.id] = likeness.coloured_points(pack.visual(body))
        for kind in IMAGES:
            for image in getattr(pack.catalog, kind):
                file = pack.path(image.image)
                found[world, kind, image.id] = likeness.thumbnail(file), likeness.statistics(file)
    return found


def distances(kind: str, one, other) -> tuple[float, ...]:
    if kind in BODIES:
        return (likeness.shape_distance(one, other),)
    return likeness.pixel_distance(one[0], other[0]), likeness.statistics_distance(one[1], other[1])


def nearest(kind: str, features, pairs) -> tuple[float, ...]:
    """The least of each distance over pairs of keys."""
    return tuple(map(min, zip(*(distances(kind, features[a], features[b]) for a, b in pairs), strict=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_no_asset_is_nearer_to_an_unseen_one_than_the_benchmark_allows(kind, features):
    """The yardstick is the benchmark's own: how near its training assets come to its unseen ones.

    It has no overlay to train with; there it is how near two unseen ones, counted as different, come to each other.
    """
    unseen = [("builtin", kind, item.id) for item in split_of("builtin", kind, "unseen")]
    train = [("builtin", kind, item.id) for item in split_of("builtin", kind, "train")]
    yardstick = nearest(
        kind, features, itertools.product(train, unseen) if train else itertools.combinations(unseen, 2)
    )
    assert min(yardstick) > 0
    for item in own(kind):
        found = nearest(kind, features, (((("pretrain", kind, item.id)), other) for other in unseen))
        assert all(a >= b for a, b in zip(found, yardstick, strict=True)), (item.id, found, yardstick)


def test_the_measures_find_an_equal_asset_and_a_moved_one(features):
    """The yardstick is worth something only if an asset turned a quarter, or an image mirrored, is at distance 0."""
    carrot = features["builtin", "objects", "carrot"]
    turned = carrot.copy()
    turned[:, 0], turned[:, 1] = -carrot[:, 1], carrot[:, 0]
    assert likeness.shape_distance(turned, carrot) < 1e-9
    pixels, _ = features["builtin", "textures", "zebra"]
    assert likeness.pixel_distance(pixels[:, ::-1], pixels) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_or_id_is_one_that_evaluations_hold_back(kind):
    held_back = {text for item in split_of("builtin", kind, "unseen") for text in (item.id, item.name)}
    assert not held_back & {text for item in getattr(load_catalog("pretrain"), kind) for text in (item.id, item.name)}


@pytest.mark.parametrize(("kind", "train", "development"), [
    ("objects", 16 + 18 * 9 - 6, 18 + 12), ("receptacles", 1 + 48 - 6, 16 - 2), ("tables", 61, 16), ("textures", 33, 9),
])  # fmt: skip
def test_the_pools_have_these_sizes(kind, train, development):
    assert len(split_of("pretrain", kind, "train")) == train
    assert len(split_of("pretrain", kind, "unseen")) == development


def test_held_out_combinations_have_known_words_and_unknown_shapes():
    train = {name for item in split_of("pretrain", "objects", "train") for name in item.name.split()}
    names = [item.name.split() for item in split_of("pretrain", "objects", "unseen")]
    both_known = [words for words in names if set(words) <= train]
    assert (len(both_known), len(names)) == (18, 30)


def test_the_training_assets_of_the_benchmark_are_the_same_files():
    ours, theirs = open_pack("pretrain"), open_pack("builtin")
    for kind in BODIES:
        for body in split_of("builtin", kind, "train"):
            same = ours.catalog.get(kind, body.id)
            assert same == body
            for file in (body.visual, body.collision):
                assert ours.path(file).read_bytes() == theirs.path(file).read_bytes()


def test_no_phrasing_is_one_that_evaluations_hold_back():
    held_back = set(phrasings("builtin", "unseen"))
    ours = phrasings("pretrain", "train"), phrasings("pretrain", "unseen")
    assert not held_back & {*ours[0], *ours[1]} and not set(ours[0]) & set(ours[1])
    assert phrasings("builtin", "train")[0] in ours[0]
