"""Releases of Torch as users install them: wheels of this tree, also of another version, in their own environments."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BUILT = (
    "torch_tasks",
    "workers",
    "beat",
    "config",
    "compose",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "VERSION",
)
"""What a wheel and a source distribution are made of."""


def clean_environment(**more: str) -> dict[str, str]:
    """One in which nothing of the clone, and no setting of the user, is found."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH_", "PYTHON", "VIRTUAL_"))}
    return {**env, **more}


def run(*argv: str | Path, cwd: Path, seconds: float = 240, **more: str) -> str:
    """What the command prints; it ends well, and finds nothing of the clone."""
    env = clean_environment(**{"TMPDIR": str(cwd), **more})
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources(place: Path, version: str) -> Path:
    """A copy of this tree, new in the place, that says it is this version."""
    copy = place / f"sources-{version}"
    copy.mkdir()
    for name in BUILT:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(REPOSITORY / name, copy / name)
    (copy / "VERSION").write_text(f"{version}\n")
    return copy


def wheel_of(tree: Path, place: Path) -> Path:
    """The wheel of this tree, as pip builds it, in a new folder of the place."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps")
    folder = place / f"wheel-of-{tree.name}"
    run(*pip, "--wheel-dir", folder, tree, cwd=place)
    (built,) = folder.glob("*.whl")
    return built


def installed_beside(wheel: Path, place: Path) -> Path:
    """The ``torch-tasks`` of an environment of its own, which takes all but Torch itself from that of the tests."""
    folder = place / f"venv-{wheel.name.split('-')[1]}"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=place)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A folder that is only added to the path has no .pth of its own read: no clone is found through it.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet")
    run(*pip, "--disable-pip-version-check", "--no-deps", "--force-reinstall", wheel, cwd=place)
    program = folder / "bin" / "torch-tasks"
    assert run(program, "version", cwd=place).strip() == wheel.name.split("-")[1]
    return program


def with_format(program: Path, number: int) -> None:
    """Have that installed release say that it writes this format."""
    (file,) = program.parents[1].glob("lib/python*/site-packages/torch_tasks/model/fleet_format.py")
    file.write_text(re.sub(r"^FORMAT = \d+$", f"FORMAT = {number}", file.read_text(), flags=re.MULTILINE))
