"""What lies where on this machine, as far as a box needs to know it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from torch_tasks.workers.sandbox.box import Use, Wall
from torch_tasks.workers.sandbox.policy import HIDDEN_AT_HOME, HIDDEN_ELSEWHERE, READABLE_AT_HOME, SYSTEM

#: The variables that name what tools need: folders, and files with certificates.
_NAMING = (
    "PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "PYENV_ROOT", "PYTHONPATH", "LD_LIBRARY_PATH", "NVM_DIR", "NODE_PATH",
    "BUN_INSTALL", "GOPATH", "GOROOT", "CARGO_HOME", "RUSTUP_HOME", "JAVA_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
)  # fmt: skip
#: Files through which the system knows names and times, and which may lead elsewhere.
_LEADING_AWAY = ("/etc/resolv.conf", "/etc/hosts", "/etc/localtime")


def system() -> tuple[list[Wall], dict[str, str]]:
    """The system's folders to be read, and its links."""
    walls, links = [], {}
    for name in SYSTEM:
        place = Path(name)
        if place.is_symlink():
            links[name] = str(place.readlink())
        elif place.exists():
            walls.append(Wall(place, Use.READ))
    away = {Path(name).resolve() for name in _LEADING_AWAY if Path(name).is_symlink()}
    return [*walls, *(Wall(place, Use.READ) for place in sorted(away) if place.exists())], links


def interpreter() -> list[Wall]:
    """This Python, its packages, and Torch itself."""
    own = Path(__file__).resolve().parents[2]
    packages = [Path(one) for one in sys.path if one.endswith(("site-packages", "dist-packages"))]
    found = [Path(sys.prefix), Path(sys.base_prefix), own, *packages]
    return [Wall(place, Use.READ) for one in found for place in _shown(one) if place.exists() and len(place.parts) > 2]


def tools(variables: Mapping[str, str], home: Path) -> list[Wall]:
    """What the variables of the program name."""
    named = (one for name in _NAMING for one in variables.get(name, "").split(os.pathsep))
    walls = (Wall(place, Use.READ) for one in named if one for place in _shown(Path(one)))
    return [wall for wall in walls if wall.place.is_absolute() and wall.place.exists() and _is_below(wall.place, home)]


def installation(command: str, variables: Mapping[str, str], home: Path) -> list[Wall]:
    """Where a program lies with all that was installed with it, by its links and by who interprets it."""
    found = shutil.which(command, path=variables.get("PATH"))
    places: list[Path] = []
    while found:
        path, found = Path(found), None
        while path.is_symlink():
            places.append(path.parent)
            path = path.parent / path.readlink()
        real = path.resolve()
        places.append(_installed_around(real))
        interpreted = _interpreter_of(real)
        if interpreted and interpreted != real and _installed_around(interpreted.resolve()) not in places:
            found = str(interpreted)
    normal = (Path(os.path.normpath(place)) for place in places)
    return [Wall(place, Use.READ) for place in normal if _is_below(place, home)]


def _installed_around(program: Path) -> Path:
    """The folder that a program was installed into."""
    if "node_modules" in program.parts:
        first = program.parts.index("node_modules")
        return Path(*program.parts[: first + 1])
    return program.parent.parent if program.parent.name == "bin" else program.parent


def _interpreter_of(script: Path) -> Path | None:
    try:
        with script.open("rb") as file:
            first = file.readline(512)
    except OSError:
        return None
    words = os.fsdecode(first[2:]).split() if first.startswith(b"#!") else []
    return Path(words[0]) if words and words[0].startswith("/") else None


def _is_below(place: Path, home: Path) -> bool:
    """Whether this place is no folder around the home, which would show all of it, nor a folder of everything."""
    return len(place.parts) > 2 and not home.is_relative_to(place)


def _shown(path: Path) -> list[Path]:
    """The path, and where it leads to."""
    normal, real = Path(os.path.normpath(path)), path.resolve()
    return [normal] if normal == real else [real, normal]


def at_home(home: Path) -> list[Wall]:
    """What of the user's every program may read."""
    return [Wall(home / name, Use.READ) for name in READABLE_AT_HOME if (home / name).exists()]


def hidden(home: Path, others: Iterable[Path]) -> list[Wall]:
    """What no program sees."""
    places = [*(home / name for name in HIDDEN_AT_HOME), *map(Path, HIDDEN_ELSEWHERE), *others]
    places += Path("/etc/ssh").glob("ssh_host_*_key")
    return [
        Wall(place, Use.HIDE_FOLDER if place.is_dir() else Use.HIDE_FILE)
        for one in places
        for place in _shown(one)
        if place.exists()
    ]


def repository(folder: Path) -> Iterator[Wall]:
    """What git needs of the repository around a folder, with what makes git run programs fixed.

    What an agent may have written itself is not believed: a ``.git`` that leads elsewhere counts only if that place
    names it, too.
    """
    for top in (folder, *folder.parents):
        try:
            found = (top / ".git").lstat().st_mode
        except OSError:
            continue
        git_dir = top / ".git" if stat.S_ISDIR(found) else _led_to(top / ".git") if stat.S_ISREG(found) else None
        if git_dir is None:
            return
        common = _common(git_dir)
        if top != folder:
            yield Wall(top, Use.READ)
        if not stat.S_ISDIR(found):
            yield Wall(top / ".git", Use.FIXED)
        yield Wall(common, Use.WRITE)
        if not git_dir.is_relative_to(common):
            yield Wall(git_dir, Use.WRITE)
        for place in sorted({common, git_dir, *(config.parent for config in (common / "modules").glob("**/config"))}):
            yield from _fixed(place)
        return


def _fixed(git_dir: Path) -> Iterator[Wall]:
    for name in ("config", "config.worktree", "hooks"):
        place = git_dir / name
        if place.exists() and not place.is_symlink():
            yield Wall(place, Use.FIXED)


def _led_to(file: Path) -> Path | None:
    """The folder that a ``.git`` file names, if it is one of git's, and names the file as its tree's."""
    try:
        word, _, name = file.read_text().strip().partition(": ")
        git_dir = Path(os.path.normpath(file.parent / name))
        if word != "gitdir" or not (git_dir / "HEAD").is_file():
            return None
        back = git_dir / "gitdir"
        if back.is_file():
            return git_dir if Path(back.read_text().strip()).resolve() == file.resolve() else None
    except (OSError, ValueError):
        return None
    # a submodule's lies in the repository around it
    around = (parent / ".git" for parent in file.parent.parents)
    owner = next((one for one in around if one.is_dir() and not one.is_symlink()), None)
    return git_dir if owner and git_dir.is_relative_to(owner / "modules") else None


def _common(git_dir: Path) -> Path:
    try:
        return Path(os.path.normpath(git_dir / (git_dir / "commondir").read_text().strip()))
    except OSError:
        return git_dir
