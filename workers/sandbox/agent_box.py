"""The box of an agent's program, of the checks of its tasks, and of git in a tree of agents."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch_tasks.config_files import user_config
from torch_tasks.errors import SandboxRefused
from torch_tasks.model.sandbox import Network
from torch_tasks.settings import Settings
from torch_tasks.state_folder import BELL, BOX, DESK, EVENTS, HOME, MESSAGES, PROGRAM, PROXY, RUNS, TEMPORARY, UNPACKED
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.workers.sandbox import places
from torch_tasks.workers.sandbox.ability import bubblewrap
from torch_tasks.workers.sandbox.box import PROXY_PORT, TEMPORARY_FOLDERS, Box, Use, Wall
from torch_tasks.workers.sandbox.inner_files import InnerFile
from torch_tasks.workers.sandbox.policy import BoxPaths, expanded

_LAUNCHER = Path(__file__).with_name("launcher.py")
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
#: They name places that the box does not have.
_DROPPED = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK")
_TEMPORARY_VARIABLES = ("TMPDIR", "TMP", "TEMP")


@dataclass(frozen=True)
class Inhabitant:
    """Whose program is boxed."""

    agent_id: str
    folder: Path
    """The agent's folder."""
    paths: BoxPaths
    command: str
    network: Network
    variables: Mapping[str, str]
    """The environment of its program."""


def agent_box(who: Inhabitant, workdir: Path, settings: Settings) -> Box:
    """The box of an agent's program that works in this folder. :class:`SandboxRefused` if the folder cannot be."""
    home = Path(who.variables.get("HOME") or Path.home())
    return _box(who, workdir, settings, [*_private(who, home), *_of_the_agent(who.folder)])


def git_box(who: Inhabitant, tree: Path, added: Path | None, settings: Settings) -> Box:
    """The box of Torch's own git, which changes this tree of an agent's, and may write the tree that it adds."""
    return replace(_box(who, tree, settings, [Wall(added, Use.WRITE)] if added else []), outlives=True)


def _box(who: Inhabitant, workdir: Path, settings: Settings, own: Iterable[Wall]) -> Box:
    home = Path(who.variables.get("HOME") or Path.home())
    hidden = places.hidden(home, [*_secrets(settings), user_config(), *given(settings.sandbox_hidden, who)])
    _require_possible(who.agent_id, workdir, home, hidden, settings)
    system, links = places.system()
    walls = [
        *system,
        *places.interpreter(),
        Wall(home, Use.OWN, who.folder / HOME),
        *places.tools(who.variables, home),
        *places.installation(who.command, who.variables, home),
        *places.at_home(home),
        *_of_the_user(who, home, settings),
        *hidden,
        *own,
        *places.repository(workdir),
        *(Wall(place, Use.WRITE) for place in {workdir, workdir.resolve()}),
    ]
    return Box.of(
        [*walls, *_bound_logins(who, Box.of(walls, workdir=workdir, temporary=who.folder / TEMPORARY))],
        workdir=workdir,
        temporary=who.folder / TEMPORARY,
        links=links,
        shares_network=who.network == "all",
        variables=_network_variables(who.network),
        dropped_variables=tuple(_dropped(who, home, settings)),
        drops_root=os.getuid() == 0,
        renames_root=os.getuid() == 0 and who.paths.nests,
    )


def _dropped(who: Inhabitant, home: Path, settings: Settings) -> Iterator[str]:
    """The variables of its environment that name what is not in its box."""
    yield from _DROPPED
    if who.network != "all":
        yield from _PROXY_VARIABLES
    writable = expanded(settings.sandbox_writable, home, who.variables)
    shown = {str(path) for path in writable if path.exists()}
    yield from (name for name in _TEMPORARY_VARIABLES if who.variables.get(name) not in shown)


def _secrets(settings: Settings) -> list[Path]:
    """The folders and files of this machine's own with which somebody could act as it, wherever they lie."""
    files = (settings.broker_key, settings.server_key, settings.token_file, settings.oidc_client_secret_file)
    return [settings.state_dir, settings.keys_folder, *(file for file in files if file)]


def given(paths: Iterable[str], who: Inhabitant) -> list[Path]:
    """Paths of the settings or of a kind's file, on this machine."""
    home = Path(who.variables.get("HOME") or Path.home())
    return list(expanded(paths, home, who.variables))


def _require_possible(agent_id: str, workdir: Path, home: Path, hidden: Sequence[Wall], settings: Settings) -> None:
    real, real_home = workdir.resolve(), home.resolve()
    if real_home.is_relative_to(real):
        raise SandboxRefused(
            f"agent {agent_id} cannot be boxed in {workdir}, which holds the home {home} of its user; "
            "give it a folder of its own (workdir)"
        )
    if real.is_relative_to(settings.state.worktrees.resolve()):
        return
    for wall in hidden:
        if real.is_relative_to(wall.place) or wall.place == real:
            raise SandboxRefused(f"agent {agent_id} cannot work in {workdir}: no box shows {wall.place}")


def _of_the_user(who: Inhabitant, home: Path, settings: Settings) -> Iterable[Wall]:
    for path in given((*settings.sandbox_readable, *who.paths.readable), who):
        if path.exists():
            yield Wall(path, Use.READ)
    for path in given(settings.sandbox_writable, who):
        if path.exists():
            yield Wall(path, Use.WRITE)


def _bound_logins(who: Inhabitant, box: Box) -> Iterable[Wall]:
    """The logins in places that are not the agent's own: there its program can only write the user's file itself."""
    shared = shared_logins(who, box)
    for path in given(who.paths.logins, who):
        if path not in shared and path.exists():
            yield Wall(path, Use.WRITE)


def shared_logins(who: Inhabitant, box: Box) -> dict[Path, InnerFile]:
    """The user's logins of which the agent has a copy of its own, in a folder of its own, with that copy."""
    found = ((path, _own(path, box)) for path in given(who.paths.logins, who))
    return {path: own for path, own in found if own}


def _own(path: Path, box: Box) -> InnerFile | None:
    """What the agent has in this place of the user's, if it is in a folder of its own."""
    wall = box.wall_around(path)
    if wall and wall.use is Use.OWN and wall.source and path != wall.place:
        return InnerFile(wall.source, path.relative_to(wall.place))
    return None


def _private(who: Inhabitant, home: Path) -> Iterable[Wall]:
    for path in given(who.paths.private, who):
        if not path.is_relative_to(home):
            yield Wall(path, Use.OWN, who.folder / PROGRAM / "private" / path.relative_to("/"))


def _of_the_agent(folder: Path) -> Iterable[Wall]:
    """What the program has of the agent's folder; of all else there, it sees nothing."""
    for name in (RUNS, MESSAGES):
        yield Wall(folder / name, Use.FIXED)
    yield Wall((folder / DESK).parent, Use.FIXED)
    for name in (PROGRAM, EVENTS, UNPACKED, BELL):
        yield Wall(folder / name, Use.WRITE)


def _network_variables(network: Network) -> dict[str, str]:
    if network in ("all", "none"):
        return {}
    address = f"http://127.0.0.1:{PROXY_PORT}"
    return dict.fromkeys(_PROXY_VARIABLES, address) | {"NO_PROXY": "localhost,127.0.0.1,::1"}


def prepare(box: Box, who: Inhabitant) -> None:
    """Make the folders that the box shows, and the copies of the user's files."""
    for name in (RUNS, MESSAGES, PROGRAM, EVENTS, UNPACKED, HOME, TEMPORARY, str(Path(DESK).parent)):
        make_folder(who.folder / name)
    for wall in box.walls:
        if wall.use is Use.OWN and wall.source:
            make_folder(wall.source)
    for path in given(who.paths.copied, who):
        if (own := _own(path, box)) and path.is_file():
            _copy(path, own)


def _copy(path: Path, own: InnerFile) -> None:
    """Copy the user's file, unless the agent has one that is as new."""
    changed_ns = path.stat().st_mtime_ns
    if (own.changed_ns() or 0) < changed_ns:
        own.write(path.read_bytes(), changed_ns)


def boxed(box: Box, who: Inhabitant, command: Sequence[str], *, at_terminal: bool, is_shell: bool) -> list[str]:
    """The command that runs this command in the box."""
    file = who.folder / (BOX if at_terminal else f"{BOX}.check")
    write_private(file, arguments(box))
    inside = launched(box, who, command, at_terminal=at_terminal, is_shell=is_shell)
    # The arguments are too long for tmux, and would stand in the list of processes.
    return ["sh", "-c", 'file=$0; exec "$@" 3<"$file"', str(file), bubblewrap(), "--args", "3", *inside]


def arguments(box: Box) -> str:
    """Bubblewrap's arguments as it reads them of a file."""
    return "".join(f"{word}\0" for word in box.arguments())


def launched(box: Box, who: Inhabitant, command: Sequence[str], *, at_terminal: bool, is_shell: bool) -> list[str]:
    """What runs in the box, the launcher first."""
    orders = ["landlock"]
    if not who.paths.nests:
        may_write = (*box.writable, *TEMPORARY_FOLDERS, "/dev", "/proc", "/run")
        orders += [f"write={place}" for place in may_write]
    if at_terminal:
        orders += ["terminal", *(["stops"] if is_shell else [])]
    if who.network not in ("all", "none"):
        orders.append(f"proxy={PROXY_PORT}:{who.folder / PROXY}")
    return [sys.executable, "-I", "-S", str(_LAUNCHER), *orders, "--", *command]
