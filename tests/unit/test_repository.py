"""What the repository promises about itself."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
TOP_LEVEL = {"torch_tasks", "workers", "beat", "tests", "compose", "config", "benchmarks", "docs", ".ci", ".github"}
TOP_LEVEL |= {"pyproject.toml", "VERSION", "CHANGELOG.md", "README.md", "LICENSE", "Makefile", ".gitignore"}
TOP_LEVEL |= {"constraints.txt"}
LONGEST = 450


def files() -> list[Path]:
    """The files of the repository: tracked, or new and not ignored."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a clone")
    argv = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    return [Path(name) for name in listed if name and (REPOSITORY / name).exists()]


def too_long() -> set[str]:
    """The modules that nobody reads in one sitting."""
    modules = [file for file in files() if file.suffix == ".py" and file.name != "errors.py"]  # a list to look up in
    return {str(file) for file in modules if len((REPOSITORY / file).read_text().splitlines()) > LONGEST}


def project() -> dict[str, Any]:
    """The project table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return table


def test_the_top_level_holds_what_it_shall_and_nothing_else() -> None:
    assert {file.parts[0] for file in files()} <= TOP_LEVEL


def test_no_module_outgrows_one_sitting() -> None:
    assert not too_long()


@pytest.mark.parametrize("is_of_real_agents", [False, True])
def test_no_two_files_of_tests_that_run_together_have_one_name(is_of_real_agents: bool) -> None:
    tests = [file for file in files() if file.parts[0] == "tests" and file.match("test_*.py")]
    together = [file for file in tests if (file.parts[1] == "real_agents") is is_of_real_agents]
    outside = [file for file in together if not (REPOSITORY / file.parent / "__init__.py").exists()]
    names = Counter(file.name for file in outside)
    assert len(outside) > 10
    assert [name for name, times in names.items() if times > 1] == []  # pytest would not collect the second one


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_version_is_semantic_and_the_installed_one() -> None:
    written = (REPOSITORY / "VERSION").read_text()
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?\n", written)
    assert version("torch-tasks") == written.strip()


def test_the_version_is_written_in_one_place() -> None:
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["hatch"]["version"]["path"] == "VERSION"


def test_the_changelog_tells_of_this_version_or_of_what_comes() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(Unreleased|" + re.escape(version("torch-tasks")) + r")\]", changelog, re.MULTILINE)


# ── dependencies ─────────────────────────────────────────────────────────────────────────────────────────────────


def canonical(name: str) -> str:
    """A distribution's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """What constraints.txt pins, line by line."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    wrong = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!]*", line)]
    assert not wrong, "only name==version"
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in pins}


def direct() -> list[str]:
    """Every distribution that pyproject.toml asks for, extras included."""
    asked = [
        *project()["dependencies"],
        *(item for extra in project()["optional-dependencies"].values() for item in extra),
    ]
    return [canonical(re.split(r"[<>=!~\[; ]", item)[0]) for item in asked]


def test_constraints_are_exact_and_name_each_distribution_once() -> None:
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line]
    assert len(pinned()) == len(lines)


@pytest.mark.parametrize("name", direct())
def test_every_direct_dependency_is_pinned(name: str) -> None:
    assert name in pinned()


def test_the_tests_run_with_the_pinned_versions() -> None:
    installed = {name: version(name) for name in direct() if name in pinned()}
    assert {name: pinned()[name] for name in installed} == installed


# ── continuous integration ───────────────────────────────────────────────────────────────────────────────────────


def test_the_workflow_runs_what_everybody_runs() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in steps
    run = (REPOSITORY / ".ci" / "run").read_text()
    assert "make test" in run
    assert ".ci/real-agents" in run


def test_make_test_runs_every_test_once() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    assert re.findall(r"/pytest ([\w/=-]+)", recipe[1]) == ["--ignore=tests/real_agents", "tests/real_agents"]


@pytest.mark.parametrize("script", [".ci/run", ".ci/system-packages", ".ci/real-agents", ".ci/loopback-only"])
def test_the_scripts_of_ci_can_be_run(script: str) -> None:
    assert (REPOSITORY / script).stat().st_mode & 0o100
    assert (REPOSITORY / script).read_text().startswith("#!")
