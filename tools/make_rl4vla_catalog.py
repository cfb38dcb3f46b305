"""Writes the rl4vla catalogue from the upstream `model_db.json` files: `make_rl4vla_catalog.py ASSETS_DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vla_gen_bench.episodes.catalog import Catalog

TRAIN = {"more_carrot": 16, "more_plate": 1, "more_table": 16}
VISUALS = ("textured.obj", "textured.dae", "textured.glb")  # order of the reference (put_on_in_scene_multi.py:145-158)
ABSENT_DEFAULT = "textured.glb"


def bodies(root: Path, group: str) -> list[dict]:
    database = json.loads((root / "rl4vla" / group / "model_db.json").read_text())
    rows = []
    for index, (id, model) in enumerate(database.items()):
        folder = root / "rl4vla" / group / id
        visual = next((name for name in VISUALS if (folder / name).exists()), ABSENT_DEFAULT)
        rows.append(
            {
                "id": id,
                "name": model["name"],
                "split": "train" if index < TRAIN[group] else "unseen",
                "density": model["density"],
                "bbox_min": model["bbox"]["min"],
                "bbox_max": model["bbox"]["max"],
                "visual": f"rl4vla/{group}/{id}/{visual}",
                "collision": f"rl4vla/{group}/{id}/collision.obj",
            }
        )
    return rows


def tables_and_textures(root: Path) -> tuple[list[dict], list[dict]]:
    """Textures carry their table's index; only the first 17 (one neutral, 16 test) are ever used."""
    database = json.loads((root / "rl4vla/more_table/model_db.json").read_text())
    tables, textures = [], []
    for index, (file, row) in enumerate(database.items()):
        split = "train" if index < TRAIN["more_table"] else "unseen"
        image = f"rl4vla/more_table/imgs/{file}"
        tables.append({"id": Path(file).stem, "name": row["name"], "split": split, "image": image})
        if index < 17:
            texture = f"rl4vla/more_table/textures/{row['texture']}"
            split = "train" if index == 0 else "unseen"
            head = {"id": Path(row["texture"]).stem, "name": f"texture of {row['name']}"}
            textures.append({**head, "split": split, "mix": row["mix"], "image": texture})
    return tables, textures


def main() -> None:
    root = Path(sys.argv[1])
    tables, textures = tables_and_textures(root)
    catalog = Catalog(
        world="rl4vla",
        version="1",
        objects=bodies(root, "more_carrot"),
        receptacles=bodies(root, "more_plate"),
        tables=tables,
        textures=textures,
        robot_urdf="widowx250s/wx250s.urdf",
    )
    out = Path(__file__).parents[1] / "vla_gen_bench/episodes/catalogs/rl4vla.json"
    out.write_text(catalog.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
