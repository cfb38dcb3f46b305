"""Packs in the cache and elsewhere: what is verified, what their digest means, and what is never deleted."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vla_gen_bench.assets import folders, generation, pack
from vla_gen_bench.assets.builtin import meshkit
from vla_gen_bench.assets.content import combined, content_digest, sha256
from vla_gen_bench.assets.folders import PACK_FILE, cache_dir, pack_root
from vla_gen_bench.assets.generated import GENERATED, KNOWN
from vla_gen_bench.errors import UserError

SRDF = "robot/wx250s.srdf"


@pytest.fixture(scope="module")
def good() -> Path:
    """The pack of world builtin, to be copied only."""
    return pack.open_pack("builtin").root


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for world in ("builtin", "pretrain", "rl4vla"):
        monkeypatch.delenv(folders.variable_of(world), raising=False)
    pack.forget_opened()
    yield
    pack.forget_opened()


@pytest.fixture
def cached(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pack of world builtin in a cache of its own."""
    monkeypatch.setenv("VGB_CACHE", str(tmp_path / "cache"))
    return linked(good, pack_root("builtin"))


def linked(source: Path, target: Path) -> Path:
    """Copies a pack, its files as hard links or, across disks, copies; to change one, replace it."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.copytree(source, target, copy_function=link)
    return target


def replace(file: Path, content: bytes | str) -> None:
    file.unlink()
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def change_manifest(root: Path, **changes: object) -> None:
    manifest = {**json.loads((root / PACK_FILE).read_text()), **changes}
    replace(root / PACK_FILE, json.dumps({key: value for key, value in manifest.items() if value is not None}))


# ---- whose folder it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", sorted(GENERATED))
def test_a_folder_of_the_user_is_never_replaced(world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine/photos").mkdir(parents=True)
    (tmp_path / "mine/photos/a.jpg").write_text("a")
    monkeypatch.setenv(folders.variable_of(world), str(tmp_path / "mine"))
    with pytest.raises(UserError, match=f"mine: not made by this package.*unset {folders.variable_of(world)}"):
        pack.open_pack(world)
    status = pack.pack_status(world)
    assert status.state == "corrupt" and "delete" not in status.detail
    assert (tmp_path / "mine/photos/a.jpg").read_text() == "a" and os.listdir(tmp_path) == ["mine"]


def test_a_pack_of_another_world_is_the_users_too(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linked(good, tmp_path / "mine")
    monkeypatch.setenv("VGB_PRETRAIN_DIR", str(tmp_path / "mine"))
    with pytest.raises(UserError, match="unset VGB_PRETRAIN_DIR"):
        pack.open_pack("pretrain")
    assert (tmp_path / "mine" / SRDF).is_file()


def test_an_empty_folder_is_filled(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("VGB_BUILTIN_DIR", str(tmp_path / "empty"))
    made = lambda world, root: (root.rmdir(), linked(good, root))  # noqa: E731
    monkeypatch.setattr(generation, "generate", made)
    assert pack.open_pack("builtin").root == tmp_path / "empty"


def test_an_unknown_world_is_said_before_any_folder(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGB_RL4VLA_DIR", str(tmp_path))
    monkeypatch.setenv("VGB_FOO_DIR", str(tmp_path))
    ran = cli("assets", "verify", "RL4VLA")
    assert ran.exit_code == 2 and "unknown world 'RL4VLA'; did you mean 'rl4vla'?" in ran.stderr
    assert "unknown world 'foo'" in cli("assets", "verify", "foo").stderr


@pytest.mark.parametrize(("variable", "value"), [("VGB_CACHE", "~nosuchuser/x"), ("VGB_BUILTIN_DIR", "~nosuchuser/x")])
def test_a_home_that_is_not_there_is_named(cli, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    ran = cli("assets", "list")
    assert ran.exit_code == 2 and f"{variable}={value}: there is no such user's home folder" in ran.stderr


def test_a_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VGB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert cache_dir() == Path.home() / ".cache/vla-gen-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_dir() == Path("/caches/vla-gen-bench")


# ---- what is verified ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda root: (root / SRDF).unlink(), f"{SRDF} is missing"),
        (lambda root: replace(root / SRDF, "<robot/>"), f"{SRDF} is damaged"),
        (lambda root: (root / "tables/blue_plastic_table.png").unlink(), "tables/blue_plastic_table.png is missing"),
        (lambda root: change_manifest(root, files={}), f"is not in {PACK_FILE}"),
        (lambda root: (root / "robot/meshes/more.obj").write_text(""), f"more.obj is not in {PACK_FILE}"),
        (lambda root: replace(root / PACK_FILE, "{"), "not JSON"),
    ],
)
def test_a_generated_pack_is_whole_or_refused(cli, cached: Path, damage: Callable, expected: str) -> None:
    assert pack.open_pack("builtin").digest == KNOWN["builtin"].stated
    assert cli("assets", "verify", "builtin").exit_code == 0
    damage(cached)
    pack.forget_opened()
    with pytest.raises(UserError, match="run `vgb assets fetch builtin` to generate it again") as caught:
        pack.open_pack("builtin")
    assert expected in str(caught.value) and pack.pack_status("builtin").state == "corrupt"
    ran = cli("assets", "verify", "builtin")
    assert ran.exit_code == 2 and "fix: vgb assets fetch builtin" in ran.stdout


@pytest.mark.parametrize(("changes", "expected"), [
    ({"catalog": "0"}, "made by another version of this package .catalogue '0', expected"),
    ({"format": 1, "content": None}, "made by an earlier version of this package"),
])  # fmt: skip
def test_a_pack_of_another_version_is_refused_elsewhere_and_has_another_folder_in_the_cache(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, expected: str
) -> None:
    change_manifest(linked(good, tmp_path / "own"), **changes)
    assert KNOWN["builtin"].content[:8] in good.name
    monkeypatch.setenv("VGB_BUILTIN_DIR", str(tmp_path / "own"))
    with pytest.raises(UserError, match=f"{expected}.*vgb assets fetch builtin.*or unset VGB_BUILTIN_DIR"):
        pack.open_pack("builtin")


def test_what_a_manifest_states_of_other_files_is_computed_again(cached: Path) -> None:
    """An edited file and its digest, but the old digest of contents."""
    file = "objects/carrot/collision.obj"
    replace(cached / file, (cached / file).read_text() + "\n")
    files = json.loads((cached / PACK_FILE).read_text())["files"]
    change_manifest(cached, files={**files, file: sha256(cached / file)})
    assert pack.open_pack("builtin").digest not in KNOWN["builtin"]
    assert "not those of the published logs" in pack.pack_status("builtin").detail


def test_files_that_were_put_into_a_pack_are_not_deleted_with_it(
    cli, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = linked(good, tmp_path / "own")
    monkeypatch.setenv("VGB_BUILTIN_DIR", str(root))
    (root / "thesis.txt").write_text("mine")
    ran = cli("assets", "fetch", "builtin", "--force")
    assert ran.exit_code == 2 and "not replaced, for thesis.txt in it is not of the pack" in ran.stderr
    assert (root / "thesis.txt").read_text() == "mine"


def test_no_other_folder_of_the_cache_is_ours(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", cached.name):
        (cached.parent / name).mkdir(exist_ok=True)
        (cached.parent / name / "thesis.txt").write_text("mine")
        monkeypatch.setenv("VGB_PRETRAIN_DIR", str(cached.parent / name))
        with pytest.raises(UserError, match="unset VGB_PRETRAIN_DIR"):
            pack.open_pack("pretrain")
        assert (cached.parent / name / "thesis.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_read_is_named(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(generation, "sha256", refuse)
    with pytest.raises(UserError, match="cannot be read .Permission denied.; change its permissions, or set VGB_CACHE"):
        pack.open_pack("builtin")
    assert pack.pack_status("builtin").state == "corrupt"


@pytest.fixture
def copied(shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The paper's assets, to be changed."""
    if not (shared_dir / "assets/rl4vla").is_dir():
        pytest.skip(f"needs a copy of the paper's assets in {shared_dir / 'assets'}")
    monkeypatch.setenv("VGB_RL4VLA_DIR", str(tmp_path / "pack"))
    return shutil.copytree(shared_dir / "assets", tmp_path / "pack", copy_function=os.symlink)


@pytest.mark.parametrize(
    "name",
    [
        "widowx250s/wx250s.srdf",
        "rl4vla/more_plate/001_plate_simpler/plate_texture.png",
        "rl4vla/more_carrot/001_carrot_simpler/Image_0.005.png",
        "rl4vla/more_carrot/003_bread_1/collision.obj",
        "widowx250s/meshes_wx250s/WXSA-250-M-5-LF.stl",
    ],
)
def test_a_copied_pack_is_compared_with_the_known_digests(copied: Path, name: str) -> None:
    """Also what no catalogue names: textures that a model's file names, the robot's meshes and its SRDF."""
    assert pack.open_pack("rl4vla").digest == "79b9167e2e663f2c"
    content = (copied / name).read_bytes()
    for changed in (content[: len(content) * 3 // 4], None):
        (copied / name).unlink()
        if changed is not None:
            (copied / name).write_bytes(changed)
        pack.forget_opened()
        with pytest.raises(UserError, match="1 of 166 files in .*vgb assets fetch rl4vla") as caught:
            pack.open_pack("rl4vla")
        assert name in str(caught.value) and pack.pack_status("rl4vla").state == "incomplete"


# ---- what a digest means ---------------------------------------------------------------------------------------


def test_the_generated_packs_have_the_published_content(good: Path) -> None:
    """If a change of the generator is meant, `assets/generated.py` states the new content, and a new version."""
    files = json.loads((good / PACK_FILE).read_text())["files"]
    assert combined({name: content_digest(good / name) for name in files}) == KNOWN["builtin"].content
    assert pack.open_pack("builtin").digest == KNOWN["builtin"].stated
    assert pack.open_pack("pretrain").digest == KNOWN["pretrain"].stated


def test_equal_pixels_have_one_digest_however_they_are_compressed(tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    digests = set()
    for level in (0, 1, 9):
        Image.fromarray(image).save(tmp_path / f"{level}.png", compress_level=level)
        digests.add(content_digest(tmp_path / f"{level}.png"))
    assert len(digests) == 1
    Image.fromarray(image + 1).save(tmp_path / "other.png")
    Image.fromarray(image.reshape(2, 8, 3)).save(tmp_path / "shape.png")
    assert len({*digests, *(content_digest(tmp_path / name) for name in ("other.png", "shape.png"))}) == 3


def test_equal_meshes_have_one_digest_whatever_the_sign_of_zero(good: Path, tmp_path: Path) -> None:
    source = good / "objects/carrot/visual.glb"
    data = bytearray(source.read_bytes())
    start = 28 + struct.unpack_from("<I", data, 12)[0]
    floats = np.frombuffer(data, "<f4", (len(data) - start) // 4, start)
    length = json.loads(bytes(data[20 : start - 8]))["bufferViews"][3]["byteOffset"] // 4  # positions, normals, uv
    zeros = np.flatnonzero(floats[:length] == 0)
    assert len(zeros) > 0
    for value, equal in ((0.0, True), (-0.0, True), (1e-4, False)):
        floats[zeros] = value
        (tmp_path / "a.glb").write_bytes(data)
        assert (content_digest(tmp_path / "a.glb") == content_digest(source)) == equal, value


def test_a_model_s_own_image_counts(tmp_path: Path) -> None:
    digests = []
    for colour in ((200, 0, 0), (200, 0, 1)):
        atlas = meshkit.Atlas(16)
        atlas.solid(colour)
        meshkit.write_glb(tmp_path / "a.glb", [meshkit.box((1.0, 1.0, 1.0))], atlas)
        digests.append(content_digest(tmp_path / "a.glb"))
    assert digests[0] != digests[1]
