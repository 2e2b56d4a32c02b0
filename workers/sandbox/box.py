"""A box as a value, and bubblewrap's arguments for it: no file is looked at here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path, PurePath

TEMPORARY_FOLDERS = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  # those of the box, which are the agent's own
_NOBODY = "65534"
PROXY_PORT = 3128
"""Where a program in a box with a list of hosts finds the proxy, on the loopback that is its own."""


class Use(IntEnum):
    """What may be done at a place; at one and the same place, the later one counts."""

    READ = 1
    OWN = 2
    """Written, in a folder of the agent's own that is seen in this place."""
    WRITE = 3
    FIXED = 4
    """Read, and neither replaced nor renamed, although a place around it may be written."""
    HIDE_FOLDER = 5
    HIDE_FILE = 6


@dataclass(frozen=True)
class Wall:
    """One place in the box. Everything below it is so, too, up to the next wall."""

    place: Path
    use: Use
    source: Path | None = None
    """What is seen there, if it is not what lies there."""

    @property
    def hides(self) -> bool:
        return self.use in (Use.HIDE_FOLDER, Use.HIDE_FILE)


@dataclass(frozen=True)
class Box:
    """What a program sees and reaches. The deepest wall around a path decides about it."""

    walls: tuple[Wall, ...]
    workdir: Path
    temporary: Path
    """The folder of the agent's own that is ``/tmp`` in the box."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Links of the system, as ``/bin`` to ``usr/bin``."""
    shares_network: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    """What the box changes in the program's environment."""
    dropped_variables: tuple[str, ...] = ()
    drops_root: bool = False
    """The user is root, whose rights end at the box."""
    renames_root: bool = False
    """Root is called otherwise there: a root without rights cannot build a box inside this one, any other user can."""
    outlives: bool = False
    """Its program goes on when who started it is killed."""

    @classmethod
    def of(cls, walls: Iterable[Wall], **others: object) -> Box:
        """A box with these walls, of which only those count that say something new."""
        return cls(tuple(_standing(walls)), **others)  # type: ignore[arg-type]

    def arguments(self) -> list[str]:
        """Bubblewrap's arguments; the command follows."""
        words = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        words += [] if self.outlives else ["--die-with-parent"]
        words += [] if self.shares_network else ["--unshare-net"]
        words += ["--cap-drop", "ALL"] if self.drops_root else []
        words += ["--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY] if self.renames_root else []
        for link, target in sorted(self.links.items()):
            words += ["--symlink", target, link]
        words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"]
        for place in TEMPORARY_FOLDERS:
            words += ["--bind", str(self.temporary), str(place)]
        for wall in self.walls:
            words += _words(wall)
        for wall in self.walls:  # only now, as places inside had to be made
            words += ["--remount-ro", str(wall.place)] if wall.use is Use.HIDE_FOLDER else []
        for name in self.dropped_variables:
            words += ["--unsetenv", name]
        for name, value in sorted(self.variables.items()):
            words += ["--setenv", name, value]
        return [*words, "--chdir", str(self.workdir)]

    def wall_around(self, path: Path) -> Wall | None:
        """The wall that decides about this path."""
        around = [wall for wall in self.walls if path.is_relative_to(wall.place)]
        return around[-1] if around else None

    def outside(self, path: Path) -> Path:
        """Where a path of the program's lies for who is not in the box."""
        wall = self.wall_around(path)
        if wall is None:
            around = next((one for one in TEMPORARY_FOLDERS if path.is_relative_to(one)), None)
            return self.temporary / path.relative_to(around) if around else path
        return wall.source / path.relative_to(wall.place) if wall.source else path

    @property
    def writable(self) -> list[Path]:
        """The places that the program may write."""
        return [wall.place for wall in self.walls if wall.use in (Use.OWN, Use.WRITE)]


def _standing(walls: Iterable[Wall]) -> Iterator[Wall]:
    """One wall for each place, from the outermost on; what hides only what is not seen anyhow is left out."""
    last: dict[Path, Wall] = {}
    for wall in walls:
        if wall.place not in last or wall.use >= last[wall.place].use:
            last[wall.place] = wall
    shown: list[Wall] = []
    for wall in sorted(last.values(), key=lambda one: (len(one.place.parts), one.place)):
        around = next((one for one in reversed(shown) if wall.place.is_relative_to(one.place)), None)
        shows_all = around is not None and around.source is None and not around.hides
        if wall.hides and not shows_all:
            continue
        if wall.use is Use.READ and shows_all:
            continue  # it is seen there already, and may be written if what is around it may
        shown.append(wall)
        yield wall


def _words(wall: Wall) -> list[str]:
    place, source = str(wall.place), str(wall.source or wall.place)
    match wall.use:
        case Use.READ | Use.FIXED:
            return ["--ro-bind", source, place]
        case Use.OWN | Use.WRITE:
            return ["--bind", source, place]
        case Use.HIDE_FOLDER:
            return ["--tmpfs", place]
        case Use.HIDE_FILE:
            return ["--ro-bind", "/dev/null", place]


def is_around(outer: PurePath, inner: PurePath) -> bool:
    """Whether one place is the other, or holds it."""
    return inner.is_relative_to(outer)
