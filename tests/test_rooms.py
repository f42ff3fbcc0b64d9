"""The structure of the library: imports go one way, nothing runs in a circle, no chapter needs a private name."""

import ast
import re

import nbformat

from aimfair.environment import home

LIBRARY = home() / "aimfair"
CORE = "environment progress faces sampling metrics stats models augment training gradients masks repairing".split()
FLOORS = [
    {*CORE, "__init__"},
    {"methods", "datasets", "prompts", "cluster"},
    {"generate"},
    {"audit"},
    {"study", "practice"},
    {"paper", "plots"},
    {"book"},
    {"cli"},
    {"__main__"},
]
"""From the ground up. A room may import its own files, and rooms of the floors below."""

FILES = sorted(LIBRARY.rglob("*.py"))


def room_of(module: str) -> str:
    """``aimfair.study.runs`` -> study; the package itself -> __init__."""
    return module.split(".")[1] if "." in module else "__init__"


def module_of(path):
    """The dotted name of a file of the library."""
    return ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """Every module of the library that a file imports, at its head, in a function or for its types."""
    modules = {module_of(file) for file in FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "aimfair")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aimfair":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module


def floor_of(room: str) -> int:
    """The number of the floor that a room is on."""
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_has_its_floor():
    assert {room_of(module_of(path)) for path in FILES} <= {room for rooms in FLOORS for room in rooms}


def test_imports_go_down():
    wrong = []
    for path in FILES:
        here = room_of(module_of(path))
        for module in imported(path):
            there = room_of(module)
            same = there == here or (floor_of(here) == floor_of(there) == 0)  # the files of the core are one room
            if not same and floor_of(there) >= floor_of(here):
                wrong.append(f"{module_of(path)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_way_of_others():
    arrows = {module_of(path): set(imported(path)) - {module_of(path)} for path in FILES}
    open_, done = [], set()

    def visit(module):
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        if module not in done and module in arrows:
            open_.append(module)
            for other in sorted(arrows[module]):
                visit(other)
            open_.pop()
            done.add(module)

    for module in arrows:
        visit(module)


def test_the_library_does_not_grow_fat_again():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    core = sum(n for path, n in lines.items() if path.parent == LIBRARY and path.stem in CORE)
    assert len(FILES) <= 120 and core <= 4_000
    assert sum(lines.values()) <= 18_042, "the goal is 11,000: what is added needs an issue that asked for it"


def test_chapters_use_what_is_public():
    for path in sorted((home() / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                private = re.findall(
                    r"^from aimfair[\w.]*\._\w+ import|^from aimfair[\w.]* import .*\b_\w+", cell.source, re.M
                )
                assert not private, f"{path.name}: {private}"
