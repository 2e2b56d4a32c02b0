"""The house is as docs/architecture.md says: its rooms, its files, and where each thing is decided."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
PACKAGES = ("torch_tasks", "workers", "beat")
#: ``folder/file.py:name`` or ``folder/file.py:Class.name``, as the page writes a place.
PLACE = re.compile(r"`((?:torch_tasks|workers|beat)/[\w/]+\.(?:py|lua))(?::([\w.]+))?`")
FEWEST_DECISIONS = 40


def sources() -> list[Path]:
    """Every module of Torch."""
    return sorted(file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py"))


def defined(module: Path) -> set[str]:
    """What a module defines: its names, and the names in its classes as ``Class.name``."""
    names: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        names |= {f"{prefix}{name}" for prefix, name in _names(node)}
    return names


def _names(node: ast.stmt, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(node, ast.ClassDef):
        inner = [pair for child in node.body for pair in _names(child, f"{prefix}{node.name}.")]
        return [(prefix, node.name), *inner]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [(prefix, node.name)]
    if isinstance(node, ast.Assign):
        return [(prefix, name.id) for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [(prefix, node.target.id)]
    return []


PLACES = sorted({(path, name) for path, name in PLACE.findall(PAGE)})


@pytest.mark.parametrize(("path", "name"), PLACES)
def test_what_the_page_names_is_there(path: str, name: str) -> None:
    file = REPOSITORY / path
    assert file.is_file()
    if name:
        assert name in defined(file)


def decisions() -> list[str]:
    """The rows of the table in which the page says where something is decided."""
    table = PAGE.split("## Where is it decided?")[1].split("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| Decision")]


def test_each_decision_has_a_place_of_its_own_name() -> None:
    rows = decisions()
    assert len(rows) >= FEWEST_DECISIONS
    for row in rows:
        places = PLACE.findall(row)
        assert places, row
        assert all(name for _, name in places), row


def test_every_room_is_on_the_page() -> None:
    rooms = {file.parent.relative_to(REPOSITORY) for file in sources()}
    assert {room for room in rooms if f"`{room}/`" not in PAGE} == set()


def test_the_page_lists_the_layers_that_are_kept_in_their_order() -> None:
    settings = (REPOSITORY / "pyproject.toml").read_text()
    layers = re.findall(r'"([\w |:]+)"', settings.split("layers = [")[1].split("]")[0])
    kept = [set(re.split(r" [|:] ", layer)) for layer in reversed(layers)]
    rows = PAGE.split("## Layers")[1].split("\n## ")[0].splitlines()
    assert [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in rows if row.startswith("| `")] == kept


def test_what_is_started_by_name_is_named_in_one_place() -> None:
    below = [file for file in (REPOSITORY / "torch_tasks").rglob("*.py") if not {"workers", "beat"} & set(file.parts)]
    named = {file.name for file in below if re.search(r"""["']torch_tasks\.(workers|beat)\b""", file.read_text())}
    assert named == {"started_by_name.py"}


def test_a_class_name_means_one_thing() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for module in sources():
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(str(module.relative_to(REPOSITORY)))
    assert {name: files for name, files in where.items() if len(files) > 1} == {}
