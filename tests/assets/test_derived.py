"""Folders made from something else are compared before they are used: what was changed is made again."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from vla_gen_bench.assets import derived, models, pack
from vla_gen_bench.assets.derived import ensure_folder
from vla_gen_bench.envs import shaders
from vla_gen_bench.errors import UserError

FILES = {Path("a/b.txt"): b"one", Path("c.txt"): b"two"}


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    monkeypatch.setattr(derived, "_seen", {})


def _content(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "c.txt").write_bytes(b"twO"),
        lambda root: (root / "c.txt").unlink(),
        lambda root: (root / "more.txt").write_bytes(b"three"),
        lambda root: (root / "c.txt").write_bytes(b""),
    ],
)
def test_a_changed_folder_is_made_again(tmp_path, damage, monkeypatch):
    root = tmp_path / "made"
    ensure_folder(root, FILES)
    damage(root)
    monkeypatch.setattr(derived, "_seen", {})  # as a later process sees it
    ensure_folder(root, FILES)
    assert _content(root) == FILES and os.listdir(tmp_path) == ["made"]


def test_a_change_under_a_running_process_is_seen(tmp_path):
    root = tmp_path / "made"
    ensure_folder(root, FILES)
    (root / "c.txt").write_bytes(b"other")
    ensure_folder(root, FILES)
    assert _content(root) == FILES


def test_an_unchanged_folder_is_left_alone(tmp_path):
    root = tmp_path / "made"
    ensure_folder(root, FILES)
    before = root.stat().st_ino
    derived._seen.clear()
    ensure_folder(root, FILES)
    assert root.stat().st_ino == before


def test_other_users_can_read_what_the_umask_lets_them(tmp_path):
    old = os.umask(0o022)
    try:
        ensure_folder(tmp_path / "made", FILES)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "made/c.txt").stat().st_mode) == 0o644


def test_where_nothing_can_be_written_the_fault_is_an_oserror(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        ensure_folder(tmp_path / "file" / "made", FILES)


@pytest.mark.parametrize("when", ["before", "between"])
def test_two_processes_may_replace_a_folder_at_once(tmp_path, monkeypatch, when):
    """The other one is faster before or between the two renames; nothing is left over."""
    root, work = tmp_path / "made", tmp_path / "work"
    for folder, text in ((root, "old"), (work, "mine")):
        folder.mkdir()
        (folder / "a").write_text(text)
    rename = Path.rename

    def theirs():
        root.mkdir()
        (root / "a").write_text("theirs")

    def slow(path, target):
        if path == root and when == "before":  # the other one has set the old folder aside
            shutil.rmtree(root)
        moved = rename(path, target)
        if path == root:
            theirs()
        return moved

    def good():
        found = (root / "a").is_file() and (root / "a").read_text() == "theirs"
        if not root.exists() and when == "before":
            theirs()
        return found

    monkeypatch.setattr(Path, "rename", slow)
    derived.put_in_place(work, root, good)
    assert (root / "a").read_text() == ("mine" if when == "before" else "theirs")
    assert sorted(set(os.listdir(tmp_path)) - {"work"}) == ["made"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    root, work = tmp_path / "made", tmp_path / "work"
    for folder, text in ((root, "old"), (work, "mine")):
        folder.mkdir()
        (folder / "a").write_text(text)
    rename = Path.rename

    def failing(path, target):
        if path == work and not root.exists():
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        derived.put_in_place(work, root, lambda: False)
    assert (root / "a").read_text() == "old" and sorted(os.listdir(tmp_path)) == ["made", "work"]


def test_drafts_of_killed_processes_are_removed_after_a_day(tmp_path):
    root = tmp_path / "made"
    old, new = derived.draft_folder(root), derived.draft_folder(root)
    others = [tmp_path / name for name in (".made-of-mine", ".made-202511301200", ".made.draft-mine")]
    for folder in others:
        folder.mkdir()
    for folder in (old, *others):
        os.utime(folder, (0, 0))
    derived.draft_folder(root).rmdir()
    assert sorted(os.listdir(tmp_path)) == sorted([new.name, *(folder.name for folder in others)])


def test_a_changed_shader_does_not_reach_an_image(tmp_path):
    folder = shaders._copied("minimal", "lean", tmp_path)
    file = next(path for path in sorted(folder.rglob("*.frag")))
    good = file.read_text()
    file.write_text(good.replace("}", " /* another image */ }", 1))
    assert shaders._copied("minimal", "lean", tmp_path) == folder and file.read_text() == good


@pytest.mark.parametrize("content", [b"", b"glTF", b"glTF" + b"\xff" * 40, b"glTF\x02\0\0\0\x20\0\0\0\x02\0\0\0JSON[]"])
def test_a_damaged_model_is_named(tmp_path, content):
    path = tmp_path / "x.glb"
    path.write_bytes(content)
    with pytest.raises(UserError, match="x.glb: damaged: not a GLB file"):
        models.texture_pixels(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "input should be an object"),
        ('{"format": 1, "world": "builtin", "catalog": "x", "files": []}', "files: input should be an object"),
        (
            '{"format": 1, "world": "builtin", "catalog": "x", "files": {"a": 1}}',
            "files.a: input should be a valid string",
        ),
        ('{"format": 1, "world": "builtin", "catalog": "x", "files": {"../a": "x"}}', "expected a path below the pack"),
        ("{", "not JSON"),
    ],
)
def test_a_pack_of_another_shape_is_refused(tmp_path, monkeypatch, text, expected):
    (tmp_path / "pack.json").write_text(text)
    monkeypatch.setenv("VGB_BUILTIN_DIR", str(tmp_path))
    with pytest.raises(UserError, match="unset VGB_BUILTIN_DIR") as caught:
        pack.open_pack("builtin")
    assert expected in str(caught.value)
    assert pack.pack_status("builtin").state == "corrupt"
