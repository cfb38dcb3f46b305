"""Child process of `vgb doctor` and `make setup`: runs checks that may crash and prints one JSON object.

`python -m vla_gen_bench.doctor.probe render` draws an image; `... gpu` looks for GPU simulation. Exit status 0 if it
works (or there is no GPU), else 1. Imports no ManiSkill, and torch only if a CUDA device exists.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

from vla_gen_bench import runtime

SIDE_PX = 8


def render() -> dict[str, Any]:
    """Draws a red box twice, as the benchmark does: through a render system that picks its own device."""
    import sapien

    # The other shaders make SAPIEN integrate a reflection table first: 7 s of CPU in every process.
    sapien.render.set_camera_shader_dir("trivial")
    system = sapien.render.RenderSystem()
    scene = sapien.Scene([sapien.physx.PhysxCpuSystem(), system])
    camera = _red_box_and_camera(sapien, scene)
    times_ms = []
    for _ in range(2):
        start = time.perf_counter()
        scene.update_render()
        camera.take_picture()
        pixel = camera.get_picture("Color")[SIDE_PX // 2, SIDE_PX // 2]
        times_ms.append(1e3 * (time.perf_counter() - start))
    answer = {"device": system.device.name, "first_frame_ms": times_ms[0], "frame_ms": times_ms[1]}
    red, green, blue = (float(value) for value in pixel[:3])
    if not (red > 0.5 > max(green, blue)):
        answer["error"] = f"{system.device.name} drew colour ({red:.2f}, {green:.2f}, {blue:.2f}) for a red box"
    return answer


def _red_box_and_camera(sapien: Any, scene: Any) -> Any:
    """Puts a lit red box 3 m in front of a camera at the origin, which looks along +x; returns the camera."""
    scene.set_ambient_light([1, 1, 1])
    material = sapien.render.RenderMaterial()
    material.base_color = [1, 0, 0, 1]
    body = sapien.render.RenderBodyComponent()
    body.attach(sapien.render.RenderShapeBox([1, 1, 1], material))
    camera = sapien.render.RenderCameraComponent(SIDE_PX, SIDE_PX)
    camera.set_fovy(1.0, True)
    for component, position in ((body, [3, 0, 0]), (camera, [0, 0, 0])):
        entity = sapien.Entity()
        entity.add_component(component)
        entity.set_pose(sapien.Pose(position))
        scene.add_entity(entity)
    return camera


def gpu() -> dict[str, Any]:
    """Looks for a CUDA device, a torch that uses it, and PhysX's GPU library, without downloading anything."""
    devices = cuda_devices()
    if not devices:
        return {"devices": 0}
    import sapien
    import torch

    if not torch.cuda.is_available():
        return {
            "devices": devices,
            "error": f"{devices} CUDA device(s), but torch {torch.__version__} cannot use them",
            "fix": "install a CUDA build of torch that fits the driver",
        }
    library = Path.home() / ".sapien/physx" / sapien.physx.version()
    if not library.is_dir():  # `enable_gpu` would download it; a diagnosis must not
        return {
            "devices": devices,
            "error": f"PhysX's GPU library is not in {library}",
            "fix": "python -c 'import sapien; sapien.physx.enable_gpu()' (downloads it once)",
        }
    device = sapien.Device("cuda")
    if not device.can_render():
        return {
            "devices": devices,
            "error": f"the renderer cannot use {device.name}",
            "fix": "install the vendor driver with its Vulkan ICD; in a container, the graphics capability too",
        }
    sapien.physx.enable_gpu()
    sapien.physx.PhysxGpuSystem(device=device)
    return {"devices": devices, "name": torch.cuda.get_device_name(), "torch": torch.__version__}


def cuda_devices() -> int:
    """Returns the number of CUDA devices the driver offers, 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _explained(error: Exception) -> str:
    """Returns the error text; for a failed library load, the known libraries that are missing."""
    from vla_gen_bench.doctor.checks import missing_libraries

    missing = missing_libraries() if isinstance(error, (ImportError, OSError)) else []
    return f"system libraries not found: {', '.join(missing)}" if missing else f"{type(error).__name__}: {error}"


def main(arguments: list[str]) -> int:
    probes = {"render": render, "gpu": gpu}
    if len(arguments) != 1 or arguments[0] not in probes:
        print(f"usage: python -m vla_gen_bench.doctor.probe {'|'.join(probes)}", file=sys.stderr)
        return 2
    runtime.prepare()
    try:
        answer = probes[arguments[0]]()
    except Exception as error:  # Drivers raise anything; the parent prints the message with its fix.
        answer = {"error": _explained(error)}
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
