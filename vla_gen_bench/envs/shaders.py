"""Copies of SAPIEN's shaders without the work whose result this benchmark never reads.

`default` and `minimal` sample a table of how surfaces reflect an environment map. SAPIEN integrates it on the render
device in every process: 7 s of CPU on lavapipe. The benchmark's scenes have no environment map, so the table's values
are multiplied by black. Every copy leaves the table out.

The *swift* copy of `default` renders only what `Color` and `Segmentation` need: 11 ms instead of 43 ms at 640x480 on
lavapipe, where most time is spent per pixel, not per triangle. It drops the passes for transparent bodies, lines and
points and the images of positions, normals and segmentation colours, shades only pixels that show a body, and
converts colours to bytes itself. The swift copy of `minimal` leaves out the background pass, the light of an
environment map, which is black, and the axes of normal maps, which no opaque body here has.
Bodies look the same bit by bit (tests/envs/test_shaders.py); empty pixels are black.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import sapien
import torch
from mani_skill.render import PREBUILT_SHADER_CONFIGS, ShaderConfig, set_shader_pack

from vla_gen_bench.assets.derived import ensure_folder
from vla_gen_bench.assets.folders import cache_dir
from vla_gen_bench.envs.compositing import without_alpha

_DECLARATION = re.compile(r"^layout\([^)]*\) uniform sampler2D samplerBRDFLUT;\n?", re.MULTILINE)
_LOOKUP = re.compile(r"texture\(samplerBRDFLUT, [^;]*\)\.xy;")
_TABLE = "samplerBRDFLUT"

# Surface properties in three four-channel images instead of seven, and the body's id in a fourth.
_PACK = """
layout(location = 0) out vec4 outAlbedoSpecular;
layout(location = 1) out vec4 outNormalRoughness;
layout(location = 2) out vec4 outGlowMetallic;
layout(location = 3) out float outBody;

void main() {
  describe();
  outAlbedoSpecular = vec4(outAlbedo.rgb, outSpecular.r);
  outNormalRoughness = vec4(outNormal.xyz, outSpecular.g);
  outGlowMetallic = vec4(outEmission.rgb * outEmission.a, outSpecular.b);
  outBody = float(outSegmentation.y);
}
"""
_UNPACK = """
layout(set = 2, binding = 0) uniform sampler2D samplerAlbedoSpecular;
layout(set = 2, binding = 1) uniform sampler2D samplerNormalRoughness;
layout(set = 2, binding = 2) uniform sampler2D samplerGlowMetallic;
layout(set = 2, binding = 3) uniform sampler2D samplerGbufferDepth;

#define READ(name) texelFetch(name, ivec2(gl_FragCoord.xy), 0)
vec4 readAlbedo() { return READ(samplerAlbedoSpecular); }
vec4 readNormal() { return READ(samplerNormalRoughness); }
vec4 readEmission() { return vec4(READ(samplerGlowMetallic).rgb, 1); }
vec4 readSpecular() {
  return vec4(READ(samplerAlbedoSpecular).a, READ(samplerNormalRoughness).a, READ(samplerGlowMetallic).a, 0);
}
vec4 readGbufferDepth() { return READ(samplerGbufferDepth); }
"""
# The composite pass of the stock shaders, then ManiSkill's (color * 255).to(uint8), three bytes in one exact float.
# (Not r8g8b8a8unorm: lavapipe renders to that format by other code, whose positions differ in the last bit.)
_FINISH = """
layout(location = 0) out float outBytes;

void main() {
  outBytes = 0;
  if (readGbufferDepth().x < 1) {
    light();
    vec3 color = clamp(pow(outLighting.rgb, vec3(1/2.2)), vec3(0), vec3(1));
    outBytes = dot(floor(color * 255), vec3(1, 256, 65536));
  }
}
"""
# The light of an environment map, which is black, and the background that it draws.
_NO_ENVIRONMENT = (
    (r"  color \+= diffuseIBL\([\s\S]*?camDir\);\n", ""),
    (r"  if \(depth == 1\) \{\n.*\n  \} else \{\n(    outLighting = vec4\(color, 1\);\n)  \}\n", r"\1"),
    (r"vec3 getBackgroundColor[\s\S]*?(?=void main)", ""),
)
# `minimal` without an environment map, and without inputs that only the dropped passes or a normal map read.
_MINIMAL_EDITS = {
    "gbuffer.frag": (
        (r"  vec3 wnormal = [\s\S]*?camDir\);\n", ""),
        (r"out ivec4 outPositionSegmentation;", "out float outBody;"),
        (r"  outPositionSegmentation = .*;", "  outBody = float(inSegmentation[1]);"),
        (r"vec3 getBackgroundColor[\s\S]*?(?=layout\(location = 0\) in)", ""),
        (r"layout\(location = 3\) in vec3 objectCoord;\n", ""),
        (r"in mat3 inTbn;", "in vec3 inNormal;"),
        (
            r"    if \(\(materialBuffer.textureMask & 4\) [\s\S]*? else \{\n.*\n    \}",
            "    normal = normalize(inNormal);",
        ),
    ),
    "gbuffer.vert": (
        (r"layout\(location = 3\) out vec3 objectCoord;\n", ""),
        (r"  objectCoord = position;\n", ""),
        (r"out mat3 outTbn;", "out vec3 outNormal;"),
        (r"  vec3 outTangent = [\s\S]*?outNormal\);", "  outNormal = normalize(normalMatrix * normal);"),
    ),
}
_SWIFT_FILES = ("camera_set.glsl", "object_set.glsl", "material_set.glsl", "scene_set.glsl")
_SWIFT_FILES += ("gbuffer.vert", "gbuffer.frag", "deferred.vert", "deferred.frag", "shadow.vert")


def lean_shader_config(name: str) -> ShaderConfig:
    """Returns ManiSkill's shader config `name` ("default" or "minimal") on a copy of the shaders without the table.

    For `CameraConfig(shader_config=...)`. Also sets SAPIEN's global image formats as ManiSkill does for `name`:
    ManiSkill looks them up by the shader's name, which is a path here. An environment map would give no reflections.
    Falls back to the original shaders if the copy cannot be made (another SAPIEN, an unwritable cache).
    """
    config = PREBUILT_SHADER_CONFIGS[name]
    try:
        folder = _copied(name, "lean", cache_dir())
    except (OSError, ValueError):
        return config
    set_shader_pack(config)
    return replace(config, shader_pack=str(folder))


def swift_shader_config(name: str) -> ShaderConfig:
    """Returns a config that renders "rgb" and "segmentation" of opaque bodies, faster if `name` has a swift copy.

    The same bits as `lean_shader_config` on every pixel that shows a body.
    """
    try:
        folder = _copied(name, "swift", cache_dir())
    except (OSError, ValueError):
        return lean_shader_config(name)
    set_shader_pack(PREBUILT_SHADER_CONFIGS[name])
    return _SWIFT_CONFIGS[name](str(folder))


def _swift_minimal_config(folder: str) -> ShaderConfig:
    """Reads the colours from the stock shaders' image before their last pass."""
    sapien.render.set_picture_format("Body", "r32sfloat")
    transforms = {"ColorRaw": lambda drawn: {"rgb": without_alpha(drawn)}, "Body": _body(torch.int16)}
    return ShaderConfig(folder, {"ColorRaw": ["rgb"], "Body": ["segmentation"]}, texture_transforms=transforms)


def _swift_default_config(folder: str) -> ShaderConfig:
    sapien.render.set_picture_format("Bytes", "r32sfloat")
    sapien.render.set_picture_format("Body", "r32sfloat")
    transforms = {"Bytes": _rgb, "Body": _body(torch.int64)}
    return ShaderConfig(folder, {"Bytes": ["rgb"], "Body": ["segmentation"]}, texture_transforms=transforms)


def _rgb(packed: torch.Tensor) -> dict[str, torch.Tensor]:
    """Float [B, H, W] of red + 256 green + 65536 blue to uint8 [B, H, W, 3]."""
    return {"rgb": without_alpha(packed.to(torch.int32)[..., None].view(torch.uint8))}


def _body(kind: torch.dtype) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """Float [..., H, W] to `kind` [..., H, W, 1], the type that ManiSkill's shader has on the processor."""
    return lambda body: {"segmentation": body.to(kind)[..., None]}


def _copied(name: str, kind: str, cache: Path) -> Path:
    """Returns the folder of the copied shaders in `cache`, made on first use and rebuilt if it differs.

    Raises:
        ValueError: The shaders are not written as expected.
        OSError: The cache cannot be written.
    """
    digest, texts = _edited(name, kind)
    root = cache / "shaders" / digest[:16]
    ensure_folder(root, {path: text.encode() for path, text in texts.items()})
    return root / name


@lru_cache(maxsize=None)
def _edited(name: str, kind: str) -> tuple[str, dict[Path, str]]:
    """Returns the texts of the copies by path, and a digest over them; reading and hashing takes 5 ms."""
    origin, edit = Path(sapien.__file__).parent / "vulkan_shader", _EDITS[kind, name]
    texts = {
        path.relative_to(origin): edit(path.name, path.read_text())
        for folder in (origin / name, origin / "common")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (kind == "lean" or folder.name == "common" or path.name in _SWIFT_FILES)
    }
    digest = hashlib.sha256("\0".join(f"{path}\0{text}" for path, text in texts.items()).encode()).hexdigest()
    return digest, texts


def without_table(source: str) -> str:
    """Returns GLSL `source` with the table's declaration removed and each lookup zero; `ValueError` if any is left."""
    lean = _LOOKUP.sub("vec2(0.0);", _DECLARATION.sub("", source))
    if _TABLE in lean:
        raise ValueError(f"{_TABLE} is used in an unknown way")
    return lean


def _swift_minimal(file: str, source: str) -> str:
    """Returns the text of `file` for the swift copy of `minimal`; `ValueError` where a text to replace is missing."""
    source = without_table(source)
    for pattern, replacement in _MINIMAL_EDITS.get(file, ()):
        source = _replaced(pattern, replacement, source)
    return source


def _swift(file: str, source: str) -> str:
    """Returns the text of `file` for the swift copy of `default`; `ValueError` where a text to replace is missing."""
    source = without_table(source)
    if file == "gbuffer.frag":
        source = _replaced(r"layout\(location = \d\) out (u?vec4 out\w+;)", r"\1", source)
        return _replaced(r"void main\(\)", "void describe()", source) + _PACK
    if file == "deferred.frag":
        source = _replaced(r"layout\(set = 2, .*\n", "", source)
        source = _replaced(r"layout\(location = 0\) in vec2 inUV;\n", r"\g<0>" + _UNPACK, source)
        source = _replaced(r"layout\(location = 0\) out (vec4 outLighting;)", r"\1", source)
        source = _replaced(
            r"texture\(sampler(Albedo|Specular|Normal|Emission|GbufferDepth), inUV\)", r"read\1()", source
        )
        for pattern, replacement in _NO_ENVIRONMENT:
            source = _replaced(pattern, replacement, source)
        return _replaced(r"void main\(\)", "void light()", source) + _FINISH
    return source


def _replaced(pattern: str, replacement: str, source: str) -> str:
    """Returns `source` with every match replaced; `ValueError` where there is none."""
    edited, count = re.subn(pattern, replacement, source)
    if not count:
        raise ValueError(f"nothing matches {pattern}")
    return edited


def _lean(file: str, source: str) -> str:
    return without_table(source)


_EDITS: dict[tuple[str, str], Callable[[str, str], str]] = {
    ("lean", "default"): _lean,
    ("lean", "minimal"): _lean,
    ("swift", "default"): _swift,
    ("swift", "minimal"): _swift_minimal,
}
_SWIFT_CONFIGS = {"default": _swift_default_config, "minimal": _swift_minimal_config}
