"""`vgb assets`: from small upstream repositories made here, over file://, and from the shared copy where it is."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vla_gen_bench.assets import fetch as fetching
from vla_gen_bench.assets import partial_clone
from vla_gen_bench.assets.fetch import fetch
from vla_gen_bench.assets.folders import pack_root
from vla_gen_bench.assets.pack import forget_opened, open_pack
from vla_gen_bench.assets.partial_clone import GitFailed
from vla_gen_bench.assets.source import Entry, Source, Upstream, audit, load_source, problem_of
from vla_gen_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CARROT = "ManiSkill/mani_skill/assets/carrot"
OBJECTS = {f"more_carrot/00{i}_toy [b*ar] {i}/{name}": f"{name} {i}" for i in range(4) for name in ("a.obj", "b.png")}
ROBOT = {"wx250s.urdf": "<robot/>\r\n", "meshes_wx250s/base.stl": "solid"}
GLB = b"glTF" + (2).to_bytes(4, "little") + (16).to_bytes(4, "little") + b"json"
VISUAL = "rl4vla/more_plate/005_sheet/textured.glb"  # Has no digest in the manifest made here.
DAMAGED = "rl4vla/more_carrot/001_toy [b*ar] 1/b.png"


def git(folder: Path, *arguments: str) -> str:
    names = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), "-c", "core.autocrlf=false", *arguments]
    return subprocess.run(command, env=os.environ | names, capture_output=True, text=True, check=True).stdout.strip()


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def commit(folder: Path, files: dict[str, str | bytes]) -> str:
    if not (folder / ".git").exists():
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet")
        git(folder, "config", "uploadpack.allowFilter", "true")
    write(folder, files)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "files")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> tuple[Path, Source]:
    """Two repositories in the upstream layout, pinned at a commit that is not their newest, and their manifest."""
    folder = tmp_path_factory.mktemp("upstream")
    objects = {f"{CARROT}/{name}": content for name, content in OBJECTS.items()}
    objects[f"{CARROT}/more_plate/005_sheet/textured.glb"] = GLB
    first = commit(folder / "RL4VLA", objects | {"unrelated/large.bin": "x" * 100_000})
    commit(folder / "RL4VLA", {f"{CARROT}/more_carrot/001_toy [b*ar] 1/b.png": "changed later"})
    second = commit(folder / "ManiSkill-WidowX250S", ROBOT)
    commit(folder / "ManiSkill-WidowX250S", {"wx250s.urdf": "changed later"})
    files = {f"rl4vla/{name}": content for name, content in OBJECTS.items()}
    files |= {f"widowx250s/{name}": content for name, content in ROBOT.items()}
    entries = {
        name: Entry(size=len(content), sha256=hashlib.sha256(content.encode()).hexdigest())
        for name, content in files.items()
    }
    entries[VISUAL] = Entry(size=None, sha256=None)
    upstreams = (
        Upstream(folder="rl4vla", url=f"file://{folder}/RL4VLA", commit=first[:10], path=CARROT),
        Upstream(folder="widowx250s", url=f"file://{folder}/ManiSkill-WidowX250S", commit=second, path=""),
    )
    return folder, Source(world="rl4vla", licence="unknown", upstreams=upstreams, files=entries)


@pytest.fixture
def source(origin) -> Source:
    return origin[1]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("VGB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VGB_RL4VLA_DIR", raising=False)
    monkeypatch.delenv("VGB_BUILTIN_DIR", raising=False)
    forget_opened()
    return tmp_path / "cache"


@pytest.fixture
def pack_layout(origin, tmp_path: Path) -> Path:
    """A local copy in the pack's layout, without the visual that has no digest."""
    write(tmp_path / "copy/rl4vla", OBJECTS)
    write(tmp_path / "copy/widowx250s", ROBOT)
    return tmp_path / "copy"


def changed(source: Source, **upstream: str) -> Source:
    first, *rest = source.upstreams
    return source.model_copy(update={"upstreams": (first.model_copy(update=upstream), *rest)})


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def left_over(root: Path) -> list[str]:
    return [path.name for path in root.parent.iterdir() if path != root]


# ---- from upstream ---------------------------------------------------------------------------------------------


def test_fetch_takes_exactly_the_pinned_files(source: Source) -> None:
    stages = []
    done = fetch("rl4vla", source=source, progress=lambda what, at, total: stages.append(what))
    assert done.changed and done.root == pack_root("rl4vla")
    assert contents(done.root).keys() == source.files.keys() | {"pack.json"}
    assert not audit(done.root, source.files).errors
    assert done.warnings == [f"{VISUAL}: not verified, its digest is not known"]
    assert left_over(done.root) == [] and {"RL4VLA: files", "ManiSkill-WidowX250S: files", "verifying"} <= set(stages)
    told = json.loads((done.root / "pack.json").read_text())
    assert (
        told["checked_out"]["rl4vla"].startswith(source.upstreams[0].commit)
        and len(told["checked_out"]["rl4vla"]) == 40
    )


def test_only_the_wanted_contents_are_downloaded(source: Source, tmp_path: Path) -> None:
    paths = [f"{CARROT}/{name}" for name in OBJECTS]
    id = partial_clone.check_out(source.upstreams[0], paths, tmp_path / "c.git", tmp_path / "w/f", fetching.quiet)
    absent = git(tmp_path / "c.git", "rev-list", "--objects", "--missing=print", id).split("\n")
    # The large file and the visual that was not asked for.
    assert len([line for line in absent if line.startswith("?")]) == 2
    assert contents(tmp_path / "w/f").keys() == set(paths)


def test_a_second_fetch_does_nothing(source: Source, monkeypatch) -> None:
    root = fetch("rl4vla", source=source).root
    monkeypatch.setenv("PATH", "/nowhere")
    assert fetch("rl4vla", source=source) == fetching.Fetched(
        root, False, [f"{VISUAL}: not verified, its digest is not known"]
    )


def test_only_damaged_files_are_downloaded_again(source: Source, monkeypatch) -> None:
    root = fetch("rl4vla", source=source).root
    (root / DAMAGED).write_text("b.png X")
    asked = []
    original = fetching.check_out
    monkeypatch.setattr(fetching, "check_out", lambda *given: (asked.extend(given[1]), original(*given))[1])
    assert fetch("rl4vla", source=source).changed
    assert asked == [f"{CARROT}/{DAMAGED.removeprefix('rl4vla/')}"] and (root / DAMAGED).read_text() == "b.png 1"


def wrapped_git(folder: Path, action: str) -> str:
    """Returns a PATH whose `git` notes its arguments in `folder`/log, then runs `action` before the real one."""
    real = shutil.which("git")
    folder.mkdir()
    (folder / "git").write_text(f'#!/bin/sh\necho "$@" >>"{folder}/log"\n{action}\nexec {real} "$@"\n')
    (folder / "git").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def wait_for_the_lock(world: str) -> None:
    """Waits until no process holds the lock on the downloads; fails after a minute."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with fetching._alone(fetching._lock(world)):
                return
        except UserError:
            assert time.monotonic() < deadline, f"the lock of '{world}' is still held"
            time.sleep(0.05)


def test_a_killed_fetch_goes_on_where_it_was(source: Source, cache: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "source.json").write_text(source.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from vla_gen_bench.assets import fetch, partial_clone, source\n"
        "partial_clone.FILES_PER_FETCH = 3\n"
        "fetch.fetch('rl4vla', source=source.Source.model_validate_json(Path(sys.argv[1]).read_text()))"
    )
    go_on, count = tmp_path / "go_on", tmp_path / "count"
    outlive = f'kill -9 $PPID; while [ ! -e "{go_on}" ]; do sleep 0.05; done'
    second = f'echo x >>"{count}"; if [ $(wc -l <"{count}") = 2 ]; then {outlive}; fi'
    die = f'case "$*" in *read-tree*) {second};; esac'
    environment = os.environ | {"PATH": wrapped_git(tmp_path / "killing", die), "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "source.json")], env=environment)
    assert killed.returncode == -9 and not pack_root("rl4vla").exists()
    with pytest.raises(UserError, match="is running, or git is after one was killed .*; wait for it"):
        fetch("rl4vla", source=source)
    go_on.touch()
    wait_for_the_lock("rl4vla")
    clone = cache / "downloads/rl4vla/rl4vla.git"
    (clone / "config.lock").write_text("")  # As a killed git leaves behind.

    monkeypatch.setenv("PATH", wrapped_git(tmp_path / "noting", ""))
    done = fetch("rl4vla", source=source)
    assert not audit(done.root, source.files).errors and left_over(done.root) == []
    # The first repository's commits were there already; only the other's are fetched.
    fetches = [line for line in (tmp_path / "noting/log").read_text().splitlines() if " fetch --quiet" in line]
    assert len(fetches) == 1 and source.upstreams[1].commit in fetches[0]


def test_a_broken_clone_is_made_anew(source: Source, cache: Path) -> None:
    clone = cache / "downloads/rl4vla/rl4vla.git"
    write(clone, {"HEAD": "rubbish", "config": "[core"})
    stages = []
    assert fetch("rl4vla", source=source, progress=lambda what, at, total: stages.append(what)).changed
    assert any("starting again" in stage for stage in stages)


def test_a_lost_connection_is_resumed(origin, source: Source) -> None:
    hidden = origin[0] / "hidden"
    (origin[0] / "ManiSkill-WidowX250S").rename(hidden)
    try:
        with pytest.raises(UserError, match="cannot download from .*WidowX250S.*run this again"):
            fetch("rl4vla", source=source)
    finally:
        hidden.rename(origin[0] / "ManiSkill-WidowX250S")
    assert fetch("rl4vla", source=source).changed


@pytest.mark.parametrize(("said", "unreachable"), [
    ("fatal: unable to access 'https://x/y/': Could not resolve host: x", True),
    ("fatal: '/a/b' does not appear to be a git repository", True),
    ("ssh: connect to host x port 22: Connection refused\nfatal: Could not read from remote repository.", True),
    ("warning: unable to access '/root/.config/git/attributes': Permission denied\nfatal: bad object HEAD", False),
    ("fatal: cannot open '/cache/ssl connection/x.git/config': No such file or directory", False),
])  # fmt: skip
def test_a_broken_clone_is_no_network_fault(said: str, unreachable: bool) -> None:
    assert GitFailed(said).unreachable == unreachable


def test_an_unreachable_url_is_one_line_naming_the_way_out(source: Source) -> None:
    with pytest.raises(UserError, match="cannot download from https://host.invalid/x") as told:
        fetch("rl4vla", source=changed(source, url="https://host.invalid/x"))
    assert "--from" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("commit", "words"), [("f" * 40, "does not have commit"), ("f" * 12, "no commit begins"), ("", "2 commits")]
)
def test_a_commit_that_is_not_there_or_not_unique(source: Source, commit: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        fetch("rl4vla", source=changed(source, commit=commit))


def test_the_wrong_commit_does_not_match_the_manifest(origin, source: Source) -> None:
    newest = git(origin[0] / "RL4VLA", "rev-parse", "HEAD")
    with pytest.raises(UserError) as told:
        fetch("rl4vla", source=changed(source, commit=newest))
    assert f"{DAMAGED}: 13 bytes, expected 7" in str(told.value)
    assert not pack_root("rl4vla").exists()


def test_a_file_upstream_lacks_is_named(source: Source) -> None:
    more = {**source.files, "widowx250s/wx250s.srdf": Entry(size=3, sha256="0" * 64)}
    with pytest.raises(UserError, match="widowx250s/wx250s.srdf: missing"):
        fetch("rl4vla", source=source.model_copy(update={"files": more}))


def test_no_git_and_an_old_git(source: Source, monkeypatch, tmp_path: Path) -> None:
    old = tmp_path / "old/git"
    write(old.parent, {"git": "#!/bin/sh\necho git version 2.20.1\n"})
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="'git version 2.20.1' is too old: .* git 2.25 or newer"):
        fetch("rl4vla", source=source)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git cannot be run .*--from"):
        fetch("rl4vla", source=source)


def test_a_fetch_within_a_git_hook_leaves_the_users_repository_alone(
    source: Source, monkeypatch, tmp_path: Path
) -> None:
    commit(tmp_path / "mine", {"file": "text"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "mine/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "mine/.git/index"))
    assert fetch("rl4vla", source=source).changed
    monkeypatch.undo()
    assert git(tmp_path / "mine", "status", "--porcelain") == "" and "origin" not in git(
        tmp_path / "mine", "config", "--list"
    )


# ---- from a local folder ---------------------------------------------------------------------------------------


def test_from_a_folder_in_the_packs_layout(source: Source, pack_layout: Path, monkeypatch) -> None:
    for path in pack_layout.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setenv("PATH", "/nowhere")
    done = fetch("rl4vla", pack_layout, source=source)
    assert done.changed and done.warnings == [f"{VISUAL}: absent, drawn as its collision mesh"]
    assert os.access(done.root / DAMAGED, os.W_OK)


def test_from_upstream_clones_side_by_side(origin, source: Source, tmp_path: Path, monkeypatch) -> None:
    for upstream in source.upstreams:
        git(tmp_path, "clone", "--quiet", upstream.url, upstream.repository)
        git(tmp_path / upstream.repository, "checkout", "--quiet", upstream.commit)
    monkeypatch.setenv("PATH", "/nowhere")
    done = fetch("rl4vla", tmp_path, source=source)
    assert contents(done.root).keys() == source.files.keys() | {"pack.json"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("b.png X", "damaged: its SHA-256 is not the expected one"),
        ("b.pn", "4 bytes, expected 7"),
        (None, "missing"),
        ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_a_corrupted_truncated_or_missing_file_is_named(source: Source, pack_layout: Path, content, words: str) -> None:
    (pack_layout / DAMAGED).unlink()
    if content is not None:
        (pack_layout / DAMAGED).write_text(content)
    with pytest.raises(UserError) as told:
        fetch("rl4vla", pack_layout, source=source)
    assert f"{DAMAGED}: {words}" in str(told.value)
    assert not pack_root("rl4vla").exists() and left_over(pack_root("rl4vla")) == []


def test_a_truncated_file_without_a_digest_is_found_by_its_header(source: Source, pack_layout: Path) -> None:
    write(pack_layout, {VISUAL: GLB[:-1]})
    with pytest.raises(UserError, match="textured.glb: damaged: not a whole GLB file"):
        fetch("rl4vla", pack_layout, source=source)


def test_from_a_folder_that_holds_nothing_names_both_layouts(source: Source, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"rl4vla and widowx250s, or RL4VLA/{CARROT} and ManiSkill-WidowX250S"):
        fetch("rl4vla", tmp_path / "empty", source=source)
    with pytest.raises(UserError, match="no such folder"):
        fetch("rl4vla", tmp_path / "nowhere", source=source)


# ---- what is in place ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["bad folder", "bad commit", "less than there is", "no space", "rename fails"])
def test_a_good_pack_survives_a_failing_fetch(source: Source, pack_layout: Path, monkeypatch, way: str) -> None:
    root = fetch("rl4vla", source=source).root
    before = contents(root)

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if way == "bad folder":
        (pack_layout / DAMAGED).write_text("")
    elif way == "no space":
        monkeypatch.setattr(shutil, "copyfile", full)
    elif way == "rename fails":
        original = Path.rename
        monkeypatch.setattr(Path, "rename", lambda path, to: full() if "staging" in path.name else original(path, to))
    words = {
        "less than there is": f"it has what this source lacks: {VISUAL}",
        "bad commit": "no commit",
        "bad folder": DAMAGED,
    }
    given = changed(source, commit="f" * 10) if way == "bad commit" else source
    with pytest.raises(UserError) as told:
        if way == "rename fails":
            write(pack_layout, {VISUAL: GLB})
        fetch("rl4vla", None if way == "bad commit" else pack_layout, force=True, source=given)
    assert words.get(way, "no space left") in str(told.value)
    assert contents(root) == before and left_over(root) == []


def test_a_pack_set_aside_by_a_killed_fetch_comes_back(source: Source, monkeypatch) -> None:
    root = fetch("rl4vla", source=source).root
    root.rename(fetching._set_aside(root))  # Killed between the two renames.
    monkeypatch.setenv("PATH", "/nowhere")
    assert not fetch("rl4vla", source=source).changed
    assert (root / VISUAL).is_file() and left_over(root) == []


def test_a_pack_without_a_visual_gets_it_later(source: Source, pack_layout: Path) -> None:
    assert fetch("rl4vla", pack_layout, source=source).warnings == [f"{VISUAL}: absent, drawn as its collision mesh"]
    assert not fetch("rl4vla", pack_layout, source=source).changed
    done = fetch("rl4vla", source=source)
    assert done.changed and done.warnings == [f"{VISUAL}: not verified, its digest is not known"]


def test_a_folder_of_the_users_is_never_replaced(source: Source, tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "mine", {"thesis.tex": "text"})
    for world in ("rl4vla", "builtin"):
        monkeypatch.setenv(f"VGB_{world.upper()}_DIR", str(tmp_path / "mine"))
        with pytest.raises(UserError, match=f"left alone .*unset VGB_{world.upper()}_DIR"):
            fetch(world, source=source if world == "rl4vla" else None)
    assert contents(tmp_path / "mine") == {"thesis.tex": b"text"}


def test_the_named_folder_is_where_the_pack_goes(
    source: Source, pack_layout: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("VGB_RL4VLA_DIR", str(tmp_path / "there"))
    assert fetch("rl4vla", pack_layout, source=source).root == tmp_path / "there"
    assert fetch("rl4vla", pack_layout, force=True, source=source).changed


def test_an_unwritable_cache_is_a_user_error(source: Source, pack_layout: Path, tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, {"file": ""})
    monkeypatch.setenv("VGB_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(UserError, match="set VGB_CACHE"):
        fetch("rl4vla", pack_layout, source=source)


def test_two_fetches_at_once_are_refused(source: Source, pack_layout: Path) -> None:
    with (
        fetching._alone(fetching._lock("rl4vla")),
        pytest.raises(UserError, match="another `vgb assets fetch` is running"),
    ):
        fetch("rl4vla", pack_layout, source=source)


def test_an_unreadable_file_is_a_problem_not_a_crash(tmp_path: Path, monkeypatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    write(tmp_path, {"a": "x"})
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert problem_of(tmp_path / "a", Entry(size=1, sha256="0" * 64)) == "cannot be read (Permission denied)"


# ---- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def small(source: Source, monkeypatch) -> Source:
    """Puts the source made here in the place of the shipped one."""
    for module in ("vla_gen_bench.cli.assets", "vla_gen_bench.assets.fetch"):
        monkeypatch.setattr(f"{module}.load_source", lambda world: source if world == "rl4vla" else None)
    return source


def test_verify_names_every_problem_and_exits_with_2(cli, small: Source, pack_layout: Path) -> None:
    assert cli("assets", "fetch", "rl4vla", "--from", pack_layout).exit_code == 0
    whole = cli("assets", "verify", "rl4vla")
    assert whole.exit_code == 0 and f"{VISUAL}: absent, drawn as its collision mesh" in whole.stdout
    root = pack_root("rl4vla")
    (root / DAMAGED).write_text("b.png X")
    (root / "widowx250s/wx250s.urdf").unlink()
    (root / "widowx250s/meshes_wx250s/base.stl").write_text("sol")
    ran = cli("assets", "verify", "--json")
    row = next(row for row in json.loads(ran.stdout)["worlds"] if row["world"] == "rl4vla")
    assert ran.exit_code == 2 and row["state"] == "damaged" and row["checked"] == len(small.files) - 4
    assert row["errors"] == {
        DAMAGED: "damaged: its SHA-256 is not the expected one",
        "widowx250s/wx250s.urdf": "missing",
        "widowx250s/meshes_wx250s/base.stl": "3 bytes, expected 5",
    }
    text = cli("assets", "verify", "rl4vla").stdout
    assert "error    rl4vla  widowx250s/wx250s.urdf: missing" in text and "fix: vgb assets fetch rl4vla" in text


def test_an_absent_world_fails_verify_only_when_named(cli) -> None:
    assert cli("assets", "verify").exit_code == 0
    ran = cli("assets", "verify", "rl4vla")
    assert ran.exit_code == 2 and "run `vgb assets fetch rl4vla`" in ran.stdout
    assert "unknown world 'rl4vl'; did you mean 'rl4vla'?" in cli("assets", "verify", "rl4vl").stderr


def test_list_shows_state_folder_source_and_licence(cli, cache: Path) -> None:
    ran = cli("assets", "list")
    assert ran.exit_code == 0 and "rl4vla: absent, at least 69 MB" in ran.stdout
    assert "https://github.com/gen-robot/RL4VLA" in ran.stdout and "not stated upstream" in ran.stdout
    rows = {row["world"]: row for row in json.loads(cli("assets", "list", "--json").stdout)["worlds"]}
    assert rows["rl4vla"]["state"] == "absent" and rows["rl4vla"]["folder"].startswith(str(cache))


def test_fetch_builtin_generates_and_mends_it(cli, cache: Path, tmp_path: Path, monkeypatch) -> None:
    assert "builtin: ready in" in cli("assets", "fetch", "builtin").stdout
    assert "builtin: ready already in" in cli("assets", "fetch", "builtin").stdout
    root = pack_root("builtin")
    shutil.copytree(root, tmp_path / "made")  # Generating takes seconds: once is enough.
    monkeypatch.setattr("vla_gen_bench.assets.fetch.generate", lambda world, to: shutil.copytree(tmp_path / "made", to))
    next(root.glob("objects/*/visual.glb")).write_bytes(b"")
    assert cli("assets", "verify", "builtin").exit_code == 2
    assert "builtin: ready in" in cli("assets", "fetch", "builtin").stdout
    assert cli("assets", "verify", "builtin").exit_code == 0 and left_over(root) == []
    (root / "pack.json").write_text("{")
    assert "pack.json" in cli("assets", "verify", "builtin").stdout
    refused = cli("assets", "fetch", "builtin", "--from", cache)
    assert refused.exit_code == 2 and "leave out --from" in refused.stderr


def test_two_generations_do_not_meet(cli, cache: Path) -> None:
    """The second would remove the draft of the first."""
    (cache / "packs").mkdir(parents=True)
    handle = os.open(cache / "packs", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ran = cli("assets", "fetch", "builtin", "--force")
    finally:
        os.close(handle)
    assert ran.exit_code == 2 and "another `vgb assets fetch` is running" in ran.stderr


def test_an_absent_pack_names_the_command() -> None:
    with pytest.raises(UserError, match="run `vgb assets fetch rl4vla`, or set VGB_RL4VLA_DIR"):
        open_pack("rl4vla")


# ---- the shipped source ----------------------------------------------------------------------------------------


def test_the_manifest_has_a_digest_of_every_file_the_catalogue_names_but_three() -> None:
    from vla_gen_bench.assets.content import files_of
    from vla_gen_bench.episodes.catalog import load_catalog

    source = load_source("rl4vla")
    assert set(files_of(load_catalog("rl4vla"), Path("/nowhere"))) <= source.files.keys()
    unknown = {name for name, entry in source.files.items() if entry.sha256 is None}
    assert {name.split("/")[2] for name in unknown} == {"010_toy bear_1", "017_travel cup_1", "005_sheet metal_1"}
    assert all(name.endswith("/textured.glb") for name in unknown)


def test_the_shared_copy_is_fetched_and_lacks_three_visuals(cli, shared_dir: Path, monkeypatch) -> None:
    if not (shared_dir / "assets/rl4vla").is_dir():
        pytest.skip(f"needs a copy of the paper's assets in {shared_dir / 'assets'}")
    ran = cli("assets", "fetch", "rl4vla", "--from", shared_dir / "assets")
    unknown = {name for name, entry in load_source("rl4vla").files.items() if entry.sha256 is None}
    absent = {name for name in unknown if not (shared_dir / "assets" / name).exists()}
    assert ran.exit_code == 0 and all(f"warning: {name}: absent" in ran.stderr for name in absent)
    fetched = open_pack("rl4vla")
    assert fetched.root == pack_root("rl4vla") and fetched.substitutes.keys() == absent
    monkeypatch.setenv("VGB_RL4VLA_DIR", str(shared_dir / "assets"))  # Read-only, and used as it is.
    assert open_pack("rl4vla").digest == fetched.digest
    assert cli("assets", "verify", "rl4vla").exit_code == 0
