"""What is shipped works without the clone: built, installed into an empty place, and run there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import short_folder
from waiting import until
from wheels import REPOSITORY, clean_environment, run, wheel_of

pytestmark = pytest.mark.slow

CONFIG = {"torch_tasks/config/torch.toml", "torch_tasks/config/agents/shell.toml"}


SHADOWS = ("workers", "beat", "redis", "kombu", "celery", "click", "flower", "psutil", "queue", "config")
"""Names of modules of the user's that Torch or what it stands on has, too."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """An empty folder with a short path."""
    place = short_folder()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """The wheel, as pip builds it."""
    return wheel_of(REPOSITORY, place)


@pytest.fixture(scope="module")
def installed(place: Path, wheel: Path) -> Path:
    """The programs of a fresh environment in which the wheel is installed with its broker."""
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    pip = (sys.executable, "-m", "pip", "--python", place / "venv" / "bin" / "python", "install", "--quiet")
    constraints = ("--constraint", REPOSITORY / "constraints.txt")
    run(*pip, "--disable-pip-version-check", *constraints, wheel, cwd=place)
    return place / "venv" / "bin"


@pytest.fixture
def shadowed(place: Path) -> Path:
    """A user's folder, with modules under names that Torch uses; each writes to ``imported`` when it is imported."""
    folder = place / "project"
    folder.mkdir()
    (folder / "workers").mkdir()
    text = f"open({str(place / 'imported')!r}, 'a').write(__file__ + '\\n')\n"
    for name in SHADOWS:
        file = folder / "workers" / "__init__.py" if name == "workers" else folder / f"{name}.py"
        file.write_text(text)
    return folder


def files_below(folder: str, inside: str = "") -> set[str]:
    """The files of a folder of the clone, as the wheel names them: ``inside`` a folder of its own."""
    found = (REPOSITORY / folder).rglob("*")
    files = [file for file in found if file.is_file() and "__pycache__" not in file.parts]
    return {f"{inside}{file.relative_to(REPOSITORY)}" for file in files}


def test_the_wheel_holds_all_of_the_package_and_what_it_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert files_below("torch_tasks") <= names
    for folder in ("workers", "beat", "config"):
        assert files_below(folder, "torch_tasks/") <= names
    assert {"torch_tasks/workers/tmux/tmux.conf", *CONFIG} <= names
    scripts = {name for name in names if name.startswith("torch_tasks/workers/programs/scripts/")}
    assert scripts == files_below("workers/programs/scripts", "torch_tasks/")


def test_the_wheel_claims_one_name_to_import(wheel: Path) -> None:
    roots = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    version = (REPOSITORY / "VERSION").read_text().strip()
    assert roots == {"torch_tasks", f"torch_tasks-{version}.dist-info"}


def test_the_installed_package_shows_its_demo_far_from_the_clone(installed: Path, place: Path) -> None:
    empty = place / "empty"
    empty.mkdir()
    where = run(installed / "python", "-c", "import torch_tasks.workers as w; print(w.__file__)", cwd=empty)
    assert where.startswith(str(place))
    assert run(installed / "torch-tasks", "version", cwd=empty) == (REPOSITORY / "VERSION").read_text()
    run(installed / "celery", "-A", "torch_tasks", "report", cwd=empty)  # all that its processes import is there
    said = run(installed / "torch-tasks", "demo", cwd=empty)
    assert "everything has ended, nothing is left running" in said
    assert list(empty.iterdir()) == []


def test_modules_of_the_folder_where_torch_runs_are_not_imported(installed: Path, place: Path, shadowed: Path) -> None:
    settings = {"TORCH_STATE_DIR": str(place / "state"), "TORCH_CONFIG_DIR": str(place / "none"), "TMPDIR": str(place)}

    def torch(*words: str) -> str:
        return run(installed / "torch-tasks", *words, cwd=shadowed, **settings)

    def celery(*words: str, said: str) -> None:
        """It runs until it has said so, then ends when it is asked to."""
        log = place / f"{words[0]}.log"
        argv = [installed / "celery", "-A", "torch_tasks", *words]
        env = clean_environment(**settings)
        with (
            log.open("w") as file,
            subprocess.Popen(argv, cwd=shadowed, env=env, stdout=file, stderr=file) as process,
        ):
            try:
                until(lambda: said in log.read_text(), f"{words[0]} runs", 60)
            finally:
                process.terminate()

    torch("up", "--detach", "--agent", "dev-1:developer")
    try:
        assert "done here" in torch("run", "--wait", "--role", "developer", "echo done here")
        celery("worker", "--loglevel", "INFO", "--id", "qa-1", "--role", "qa", said=" ready.")
        celery("beat", "--loglevel", "INFO", said="beat: Starting")
        celery("flower", "--address=127.0.0.1", "--port=0", said="Visit me at")
        assert "dev-1" in run(installed / "celery", "-A", "torch_tasks", "inspect", "stats", cwd=shadowed, **settings)
    finally:
        torch("down")
    assert not (place / "imported").exists(), (place / "imported").read_text()
