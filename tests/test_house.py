"""The rooms and their doors, as docs/architecture.md draws them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "metaportrait_cli"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / PACKAGE).rglob("*.py")
}
FACES = {PACKAGE, f"{PACKAGE}.__main__"}
"""What opens all rooms: to Python, lazily, and to the command line."""
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def imports(module: str, *, for_types: bool = True) -> set[str]:
    """Modules of ours that one imports, lazily or not; with those for type checking alone."""
    found: set[str] = set()
    tree = ast.parse(MODULES[module].read_text())
    if not for_types:
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found - {module}


def room(module: str) -> str:
    """The folder of the package that a module lies in; `ground` for those beside the folders."""
    name = module.removeprefix(f"{PACKAGE}.").split(".")[0]
    return name if (ROOT / PACKAGE / name).is_dir() else "ground"


def doors() -> dict[str, set[str]]:
    """The table of the page: each room, and those it may import from."""
    rows = re.findall(r"^\| `(\w+)/?` \| [^|]* \| ([^|]*) \|$", PAGE, flags=re.MULTILINE)
    return {name: set(re.findall(r"\w+", others)) for name, others in rows}


def test_rooms_import_only_through_their_doors() -> None:
    allowed = doors()
    assert allowed.keys() == {room(module) for module in MODULES}
    through = [
        f"{module} imports {other}"
        for module in MODULES.keys() - FACES
        for other in imports(module)
        if room(other) not in {room(module), *allowed[room(module)]}
    ]
    assert not through


def test_doors_are_no_more_than_are_used() -> None:
    used = defaultdict(set)
    for module in MODULES.keys() - FACES:
        used[room(module)] |= {room(other) for other in imports(module)} - {room(module)}
    assert {name: others - used[name] for name, others in doors().items()} == {
        name: set() for name in doors()
    }


def test_nothing_imports_in_circles() -> None:
    graph = {
        module: imports(module, for_types=False) - {PACKAGE} for module in MODULES.keys() - FACES
    }
    TopologicalSorter(graph).prepare()  # raises CycleError
    TopologicalSorter(doors()).prepare()


def test_files_and_rooms_stay_small() -> None:
    long = {m: n for m, path in MODULES.items() if (n := len(path.read_text().split("\n"))) > 401}
    assert not long
    files = defaultdict(int)
    for path in MODULES.values():
        files[path.parent] += 1
    assert {str(folder): count for folder, count in files.items() if count > 21} == {}


def test_no_two_classes_of_one_name() -> None:
    places = defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
