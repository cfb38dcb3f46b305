"""The 25 graspable objects of the builtin world, 16 for training and 9 unseen: offline, the same bytes every run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla_gen_bench.assets.builtin import meshkit as mk
from vla_gen_bench.assets.builtin import objects_containers as containers
from vla_gen_bench.assets.builtin import objects_food as food
from vla_gen_bench.assets.builtin import objects_produce as produce
from vla_gen_bench.assets.builtin import objects_tools as tools
from vla_gen_bench.assets.builtin import objects_toys as toys
from vla_gen_bench.assets.builtin.objects_model import Model

MM = 1e-3

TRAIN: tuple[Callable[[], Model], ...] = (
    produce.carrot, produce.banana, containers.soda_can, food.bread_roll, containers.water_bottle, produce.zucchini,
    containers.ketchup_bottle, tools.watering_can, tools.pipe, toys.toy_bear, containers.paper_cup, toys.potted_plant,
    food.hamburger, toys.rubber_duck, containers.mustard_bottle, tools.paint_brush,
)
UNSEEN: tuple[Callable[[], Model], ...] = (
    produce.pepper, produce.potato, food.baguette, containers.soup_can, containers.wine_glass, tools.spoon,
    produce.onion, containers.mug, produce.lemon,
)


def write_objects(root: Path) -> list[dict]:
    """Writes ``root/objects/<id>/visual.glb`` and ``collision.obj`` for all 25 objects.

    The actor frame has z up and its origin at the centre of the visual's bounding box; identity is the resting pose.

    Returns:
        One entry per object, the 16 training objects first: id, name (as in instructions), split ("train" or
        "unseen"), density in kg/m^3, bbox_min and bbox_max of the visual (metres, actor frame), and the two paths
        relative to ``root``.
    """
    catalogue = [(build, "train") for build in TRAIN] + [(build, "unseen") for build in UNSEEN]
    return [write_object(root, build(), build.__name__, split) for build, split in catalogue]


def write_object(root: Path, model: Model, id: str, split: str) -> dict:
    """Writes one object and returns its entry, see `write_objects`; its name is the id with spaces."""
    model, folder = _centred(model), Path("objects") / id
    (root / folder).mkdir(parents=True, exist_ok=True)
    mk.write_glb(root / folder / "visual.glb", model.meshes, model.atlas, MM)
    mk.write_collision(root / folder / "collision.obj", model.pieces, MM)
    low, high = mk.bounds(model.meshes, MM)
    return {
        "id": id, "name": id.replace("_", " "), "split": split, "density": float(model.density),
        "bbox_min": low.round(5).tolist(), "bbox_max": high.round(5).tolist(),
        "visual": (folder / "visual.glb").as_posix(), "collision": (folder / "collision.obj").as_posix(),
    }


def _centred(model: Model) -> Model:
    """Moves the centre of the visual's bounding box to the origin."""
    centre = np.mean(mk.bounds(model.meshes), axis=0)
    meshes = [mesh.moved(*-centre) for mesh in model.meshes]
    return replace(model, meshes=meshes, pieces=[piece - centre for piece in model.pieces])
