"""Writes the built-in WidowX-250S: URDF, SRDF, one GLB per visible link, one convex OBJ per solid link.

Kinematics and masses are those of the real robot (robot_kinematics); the geometry is our own (robot_shapes,
robot_hulls).
"""

from pathlib import Path
from xml.etree import ElementTree as ET

from vla_gen_bench.assets.builtin import meshkit as kit
from vla_gen_bench.assets.builtin.robot_hulls import HULLS
from vla_gen_bench.assets.builtin.robot_kinematics import JOINTS, LINKS, TOUCHING_PAIRS, Joint, Link
from vla_gen_bench.assets.builtin.robot_parts import Part
from vla_gen_bench.assets.builtin.robot_shapes import PAINTS, VISUALS

METRES_PER_UNIT = 0.001
ROUGHNESS = 0.45  # anodised aluminium and matt plastic


def write_robot(root: Path) -> dict[str, str]:
    """Writes ``root/robot/``; the same bytes every time.

    Returns:
        {"urdf": path of the URDF relative to root}. ``wx250s.srdf`` is next to it, where SAPIEN looks for it; it
        disables collisions of the link pairs whose hulls overlap by design.
    """
    folder = root / "robot"
    (folder / "meshes").mkdir(parents=True, exist_ok=True)
    atlas, paints = _palette()
    for name, make in VISUALS.items():
        kit.write_glb(folder / "meshes" / f"{name}.glb", _painted(make(), paints), atlas, METRES_PER_UNIT, ROUGHNESS)
    for name, make in HULLS.items():
        kit.write_collision(folder / "meshes" / f"{name}.obj", [make()], METRES_PER_UNIT)
    _write_xml(folder / "wx250s.urdf", _urdf())
    _write_xml(folder / "wx250s.srdf", _srdf())
    return {"urdf": "robot/wx250s.urdf"}


def _palette() -> tuple[kit.Atlas, dict[str, kit.Region]]:
    atlas = kit.Atlas(size=8)
    return atlas, {name: _centre(atlas.solid(rgb)) for name, rgb in PAINTS.items()}


def _centre(region: kit.Region) -> kit.Region:
    """The centre of the patch: constant coordinates keep mip levels from blending two paints."""
    middle = tuple((low + high) / 2 for low, high in zip(region.low, region.high))
    return kit.Region(middle, middle)


def _painted(parts: list[Part], paints: dict[str, kit.Region]) -> list[kit.Mesh]:
    return [part.mesh.painted(paints[part.paint]) for part in parts]


def _urdf() -> ET.Element:
    robot = ET.Element("robot", name="wx250s")
    for link in LINKS:
        _add_link(robot, link)
    for joint in JOINTS:
        _add_joint(robot, joint)
    return robot


def _add_link(robot: ET.Element, link: Link) -> None:
    element = ET.SubElement(robot, "link", name=link.name)
    for tag, table, suffix in (("visual", VISUALS, "glb"), ("collision", HULLS, "obj")):
        if link.name in table:
            geometry = ET.SubElement(ET.SubElement(element, tag), "geometry")
            ET.SubElement(geometry, "mesh", filename=f"meshes/{link.name}.{suffix}")
    inertial = ET.SubElement(element, "inertial")
    ET.SubElement(inertial, "origin", xyz=_numbers(link.centre), rpy=_numbers(link.rpy))
    ET.SubElement(inertial, "mass", value=repr(link.mass))
    names = ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
    ET.SubElement(inertial, "inertia", dict(zip(names, map(repr, link.inertia))))


def _add_joint(robot: ET.Element, joint: Joint) -> None:
    element = ET.SubElement(robot, "joint", name=joint.name, type=joint.kind)
    ET.SubElement(element, "origin", xyz=_numbers(joint.origin), rpy="0 0 0")
    ET.SubElement(element, "parent", link=joint.parent)
    ET.SubElement(element, "child", link=joint.child)
    ET.SubElement(element, "axis", xyz=_numbers(joint.axis))
    if joint.limit:
        ET.SubElement(element, "limit", {key: repr(value) for key, value in joint.limit._asdict().items()})


def _srdf() -> ET.Element:
    robot = ET.Element("robot", name="wx250s")
    for first, second in TOUCHING_PAIRS:
        ET.SubElement(robot, "disable_collisions", link1=first, link2=second, reason="Default")
    return robot


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(map(repr, values))


def _write_xml(path: Path, root: ET.Element) -> None:
    ET.indent(root)
    path.write_text(ET.tostring(root, encoding="unicode") + "\n")
