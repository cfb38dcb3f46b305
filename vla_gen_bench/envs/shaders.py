"""SAPIEN's shaders without the reflection table they compute at start-up and never use here.

`default` and `minimal` sample a table of how surfaces reflect an environment map. SAPIEN integrates it on the render
device in every process: 7 s of CPU on lavapipe. The benchmark's scenes have no environment map, so what is read from
the table is multiplied by black. The copies made here leave it out: the images are the same bit by bit
(tests/test_shaders.py), the first one comes after half a second.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import sapien
from mani_skill.render import PREBUILT_SHADER_CONFIGS, ShaderConfig, set_shader_pack

from vla_gen_bench.assets.pack import cache_dir

_DECLARATION = re.compile(r"^layout\([^)]*\) uniform sampler2D samplerBRDFLUT;\n?", re.MULTILINE)
_LOOKUP = re.compile(r"texture\(samplerBRDFLUT, [^;]*\)\.xy;")
_TABLE = "samplerBRDFLUT"


def lean_shader_config(name: str) -> ShaderConfig:
    """Returns ManiSkill's shader config `name` ("default" or "minimal") on a copy of the shaders without the table.

    For `CameraConfig(shader_config=...)`. Also sets SAPIEN's global picture formats as ManiSkill does for `name`:
    ManiSkill knows them by the shader's name, which is a path here. An environment map would give no reflections.
    Falls back to the shaders as they are where the copy cannot be made (another SAPIEN, an unwritable cache).
    """
    config = PREBUILT_SHADER_CONFIGS[name]
    try:
        folder = _lean_copy(name)
    except (OSError, ValueError):
        return config
    set_shader_pack(config)
    return replace(config, shader_pack=str(folder))


def _lean_copy(name: str) -> Path:
    """Returns the folder of the copied shaders in the cache, made on first use.

    Raises:
        ValueError: The shaders are not written as expected.
        OSError: The cache cannot be written.
    """
    origin = Path(sapien.__file__).parent / "vulkan_shader"
    texts = {
        path.relative_to(origin): without_table(path.read_text())
        for folder in (origin / name, origin / "common")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    digest = hashlib.sha256("\0".join(f"{path}\0{text}" for path, text in texts.items()).encode()).hexdigest()
    root = cache_dir() / "shaders" / digest[:16]
    if not (root / name).is_dir():
        _write(root, texts)
    return root / name


def without_table(source: str) -> str:
    """Returns GLSL `source` with the table's declaration removed and each lookup zero; `ValueError` if any is left."""
    lean = _LOOKUP.sub("vec2(0.0);", _DECLARATION.sub("", source))
    if _TABLE in lean:
        raise ValueError(f"{_TABLE} is used in an unknown way")
    return lean


def _write(root: Path, texts: dict[Path, str]) -> None:
    """Writes the files to `root` at once: another process sees all or none."""
    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        for path, text in texts.items():
            (work / path).parent.mkdir(exist_ok=True)
            (work / path).write_text(text)
        work.rename(root)
    except OSError:
        if not root.is_dir():  # Otherwise another process was faster.
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
