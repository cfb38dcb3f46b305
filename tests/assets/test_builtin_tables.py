"""The builtin table images and overlay textures: counts, camera geometry, reproducibility."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vla_gen_bench.assets.builtin import paint, tables, textures

CROSSINGS = [(x, y) for x in (-0.30, -0.20, -0.10) for y in (-0.15, -0.05, 0.05, 0.15)]
ARMS = [(0.0, 0.0), (0.015, 0.0), (-0.015, 0.0), (0.0, 0.015), (0.0, -0.015)]
"""Points on both lines near a crossing: together they fix it in both image directions (metres)."""
WRITE = (
    "import sys; from pathlib import Path; from vla_gen_bench.assets.builtin import tables, textures; "
    "root = Path(sys.argv[1]); tables.write_tables(root); textures.write_textures(root)"
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    root = tmp_path_factory.mktemp("pack")
    return root, tables.write_tables(root), textures.write_textures(root)


def digests(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*.png"))}


def pixels(root: Path, entry: dict) -> np.ndarray:
    return np.asarray(Image.open(root / entry["image"]), np.float32) / 255


def test_second_process_writes_the_same_bytes(pack, tmp_path):
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path)], check=True, env=environment, cwd=Path(__file__).parents[2]
    )
    assert digests(tmp_path) == digests(pack[0])


def test_tables_are_sixteen_train_then_five_unseen(pack):
    _, entries, _ = pack
    assert [entry["split"] for entry in entries] == ["train"] * 16 + ["unseen"] * 5
    assert len({entry["id"] for entry in entries}) == 21


def test_textures_are_neutral_then_sixteen_unseen(pack):
    _, _, entries = pack
    assert (entries[0]["id"], entries[0]["mix"], entries[0]["split"]) == ("neutral", 0.0, "train")
    assert [(entry["mix"], entry["split"]) for entry in entries[1:]] == [(1.0, "unseen")] * 16


def test_pictures_are_640_by_480_rgb_and_all_different(pack):
    root, *lists = pack
    images = [Image.open(root / entry["image"]) for entries in lists for entry in entries]
    assert {(image.size, image.mode) for image in images} == {((640, 480), "RGB")}
    assert len(set(digests(root).values())) == 21 + 17


def test_bold_textures_have_contrast(pack):
    root, _, entries = pack
    assert min(pixels(root, entry).std() for entry in entries[1:]) > 0.1


def test_camera_pose_is_the_benchmark_camera():
    rotation, position = tables.camera_pose()
    np.testing.assert_allclose(position, (0.147, 0.188, 1.230), atol=1e-6)
    np.testing.assert_allclose(rotation[:, 0], (-0.635, -0.351, -0.689), atol=1e-3)
    np.testing.assert_allclose(rotation[:, 2], (-0.603, -0.333, 0.725), atol=1e-3)


def test_point_on_the_optical_axis_projects_to_the_principal_point():
    rotation, position = tables.camera_pose()
    ahead = position + 0.5 * rotation[:, 0]
    beside = ahead - 0.1 * rotation[:, 1]  # 0.1 m right at 0.5 m: 623.588 * 0.1 / 0.5 = 124.718 px
    np.testing.assert_allclose(
        tables.project(np.stack([ahead, beside])), [(319.501, 239.545), (319.501 + 124.718, 239.545)], atol=1e-3
    )


def test_painted_grid_crossings_lie_where_the_camera_projects_them(pack):
    root, entries, _ = pack
    mat = pixels(root, next(entry for entry in entries if entry["id"] == "cutting_mat_bench"))
    points = np.array([(x + dx, y + dy, tables.TOP_Z) for x, y in CROSSINGS for dx, dy in ARMS])
    at = np.floor(tables.project(points)).astype(int)
    shifts = [(column, row) for column in range(-5, 6) for row in range(-5, 6)]
    redness = [mat[at[:, 1] + row, at[:, 0] + column, 0].mean() for column, row in shifts]  # the lines are the reddest
    assert np.abs(shifts[int(np.argmax(redness))]).max() <= 1


def test_workspace_lies_on_every_table_with_a_margin():
    x, y = np.meshgrid(np.linspace(-0.30, -0.02, 8), np.linspace(-0.14, 0.14, 8))
    for table in tables.TABLES:
        assert tables.distance(table, x, y).max() < -0.02 - table.rim, table.id


def test_patterns_repeat_for_a_key_and_differ_between_keys():
    u, v = np.meshgrid(np.linspace(0, 1, 32, dtype=np.float32), np.linspace(0, 1, 32, dtype=np.float32))
    np.testing.assert_array_equal(paint.noise(u, v, 0.1, 1), paint.noise(u, v, 0.1, 1))
    assert np.abs(paint.noise(u, v, 0.1, 1) - paint.noise(u, v, 0.1, 2)).max() > 0.1
    assert paint.stream("a", 1).random() != paint.stream("a", 2).random()


def test_checks_alternate_between_neighbouring_squares():
    u = np.array([0.5, 1.5, 0.5, 1.5])
    v = np.array([0.5, 0.5, 1.5, 1.5])
    assert paint.checks(u, v, 1.0).tolist() == [0, 1, 1, 0]
