"""Which room of the package stands on which. Imports inside functions count, those of types alone do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "vla_gen_bench"

STANDS_ON = {
    "ground": (),
    "episodes": ("ground",),
    "assets": ("episodes",),
    "doctor": ("assets",),
    "envs": ("doctor",),
    "policies": ("envs",),
    "log": ("assets",),
    "eval": ("policies", "log"),
    "train": ("eval",),
    "report": ("log",),
    "leaderboard": ("report",),
    "bench": ("train",),
    "study": ("train", "report"),
    "cli": ("bench", "leaderboard", "study"),
}
"""Room -> the rooms it stands on; it may also import what these stand on."""
ROOMS_OF_TRAIN = {"": (), "demos": ("",), "grounding": ("demos",), "sft": ("grounding",), "rl": ("",)}
MOST_AT_THE_TOP = 8


def test_a_room_imports_only_what_it_stands_on() -> None:
    wrong = [f"{a} imports {b}" for a, b in _imports() if _room(b) not in _below(STANDS_ON, _room(a))]
    assert wrong == []


def test_a_room_of_train_imports_only_what_it_stands_on() -> None:
    pairs = [(a, b) for a, b in _imports() if a.startswith("train.") and b.startswith("train.")]
    wrong = [f"{a} imports {b}" for a, b in pairs if _part(b) not in _below(ROOMS_OF_TRAIN, _part(a))]
    assert pairs and wrong == []


def test_the_network_of_openvla_knows_no_files() -> None:
    model, checkpoint = ("policies.openvla.model.", "policies.openvla.checkpoint.")
    assert [(a, b) for a, b in _imports() if a.startswith(model) and b.startswith(checkpoint)] == []
    assert any(a.startswith(checkpoint) and b.startswith(model) for a, b in _imports())


def test_no_modules_import_each_other() -> None:
    """Not even by way of others; an import inside a function hides a circle, it does not break it."""
    reached = {module: _reached(module) for module in _modules()}
    circles = {frozenset(b for b in others if a in reached[b]) for a, others in reached.items() if a in others}
    assert [sorted(circle) for circle in circles] == []


def test_every_imported_name_exists() -> None:
    """Also inside functions, and in modules whose libraries are not installed here."""
    missing = [
        f"{module}: {target}.{name}"
        for module, file in _modules().items()
        for target, name in _names_from(ast.parse(file.read_text()))
        if f"{target}.{name}" not in _modules() and target in _modules() and name not in _defined(target)
    ]
    assert missing == []


def test_few_modules_stand_at_the_top() -> None:
    top = [file.stem for file in PACKAGE.glob("*.py") if not file.stem.startswith("__")]
    assert len(top) <= MOST_AT_THE_TOP, top


@pytest.mark.parametrize("file", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda file: file.stem)
def test_a_test_module_imports_no_other(file: Path) -> None:
    names = [name for node in ast.walk(ast.parse(file.read_text())) for name in _names(node)]
    assert [name for name in names if name.split(".")[0].startswith("test")] == []


def test_the_graph_sees_imports_in_functions_but_not_those_of_types() -> None:
    found = dict.fromkeys(_imports())
    assert ("cli.curves", "report.curves") in found  # inside a function
    assert ("cli.report", "report.load") in found and ("envs.privileged", "envs.pick_place") not in found


# ---- the graph ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=None)
def _modules() -> dict[str, Path]:
    """Dotted names without the package's; its own `__init__` and `__main__`, the doors, are left out."""
    doors = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
    files = [file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py") if file not in doors]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__"): PACKAGE / file for file in files}


@lru_cache(maxsize=None)
def _imports() -> list[tuple[str, str]]:
    """Pairs of modules: the first imports the second."""
    return [(module, other) for module in _modules() for other in _imported(module)]


def test_imports_are_absolute():
    """These tests read module names; a relative import would pass them unseen."""
    relative = [
        (module, node.lineno)
        for module, file in _modules().items()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


@lru_cache(maxsize=None)
def _imported(module: str) -> frozenset[str]:
    names = {name for node in _nodes(ast.parse(_modules()[module].read_text())) for name in _names(node)}
    own = {name.removeprefix(f"{PACKAGE.name}.") for name in names if name.startswith(f"{PACKAGE.name}.")}
    return frozenset(found for name in own if (found := _module_of(name)) and found != module)


def _module_of(name: str) -> str | None:
    """The module a dotted name lies in, or is."""
    return next((part for part in (name, name.rpartition(".")[0]) if part in _modules()), None)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            yield node
            yield from _nodes(node)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _names_from(tree: ast.AST) -> list[tuple[str, str]]:
    """Pairs of a module of this package, without the package's name, and what is imported from it."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    own = [node for node in imports if node.module.startswith(f"{PACKAGE.name}.")]
    return [(node.module.removeprefix(f"{PACKAGE.name}."), alias.name) for node in own for alias in node.names]


@lru_cache(maxsize=None)
def _defined(module: str) -> frozenset[str]:
    """Names that a module's body binds."""
    found: set[str] = set()
    left = list(ast.parse(_modules()[module].read_text()).body)
    while left:
        node = left.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
            continue
        found |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        left += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return frozenset(found)


@lru_cache(maxsize=None)
def _reached(module: str) -> frozenset[str]:
    found: set[str] = set()
    left = [module]
    while left:
        new = _imported(left.pop()) - found
        found |= new
        left += new
    return frozenset(found)


def _room(module: str) -> str:
    first = module.split(".")[0]
    return first if first in STANDS_ON else "ground"


def _part(module: str) -> str:
    """The room within train; "" for what all of it shares."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or parts[1] in ROOMS_OF_TRAIN else ""


def _below(rooms: dict[str, tuple[str, ...]], room: str) -> set[str]:
    return {room}.union(*(_below(rooms, other) for other in rooms[room]))
