"""A box as a value: which rule about a place counts, bubblewrap's arguments, where a path lies outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.errors import SandboxRefused
from torch_tasks.workers.sandbox.box import Box, Use, Wall
from torch_tasks.workers.sandbox.decision import Boxing, decide
from torch_tasks.workers.sandbox.policy import expanded

HOME, OWN, WORK = Path("/u/ann"), Path("/state/dev-1/home"), Path("/u/ann/tree")
PRIVATE = Wall(HOME, Use.OWN, OWN)


def box(*walls: Wall, **others: object) -> Box:
    return Box.of(walls, workdir=WORK, temporary=Path("/state/dev-1/tmp"), **others)


def standing(*walls: Wall) -> list[tuple[str, Use]]:
    return [(str(wall.place), wall.use) for wall in box(*walls).walls]


@pytest.mark.parametrize(
    ("walls", "left"),
    [
        # The deepest one decides, in whatever order they are given.
        ([Wall(WORK, Use.WRITE), PRIVATE], [("/u/ann", Use.OWN), ("/u/ann/tree", Use.WRITE)]),
        # At one place, what hides wins over what shows, and what may be written over what may be read.
        ([Wall(HOME, Use.WRITE), Wall(HOME / ".ssh", Use.HIDE_FOLDER), Wall(HOME / ".ssh", Use.WRITE)],
         [("/u/ann", Use.WRITE), ("/u/ann/.ssh", Use.HIDE_FOLDER)]),
        ([Wall(WORK, Use.WRITE), Wall(WORK, Use.READ)], [("/u/ann/tree", Use.WRITE)]),
        # What is not seen anyhow needs no wall: in a private home, and below what is hidden.
        ([PRIVATE, Wall(HOME / ".ssh", Use.HIDE_FOLDER)], [("/u/ann", Use.OWN)]),
        ([Wall(Path("/srv"), Use.READ), Wall(Path("/srv/a"), Use.HIDE_FOLDER), Wall(Path("/srv/a/b"), Use.HIDE_FILE)],
         [("/srv", Use.READ), ("/srv/a", Use.HIDE_FOLDER)]),
        # A folder that Torch made in a hidden one is seen; so are a login and a tool in a private home.
        ([Wall(Path("/srv"), Use.READ), Wall(Path("/srv/s"), Use.HIDE_FOLDER), Wall(Path("/srv/s/tree"), Use.WRITE)],
         [("/srv", Use.READ), ("/srv/s", Use.HIDE_FOLDER), ("/srv/s/tree", Use.WRITE)]),
        ([PRIVATE, Wall(HOME / ".local/bin", Use.READ)], [("/u/ann", Use.OWN), ("/u/ann/.local/bin", Use.READ)]),
        # What is to be read where it may be written stays writable, unless it is fixed.
        ([Wall(WORK, Use.WRITE), Wall(WORK / ".venv", Use.READ), Wall(WORK / ".git/config", Use.FIXED)],
         [("/u/ann/tree", Use.WRITE), ("/u/ann/tree/.git/config", Use.FIXED)]),
    ],
)  # fmt: skip
def test_the_deepest_rule_about_a_place_counts(walls: list[Wall], left: list[tuple[str, Use]]) -> None:
    assert standing(*walls) == left
    assert standing(*reversed(walls)) == left


@pytest.mark.parametrize(
    ("wall", "words"),
    [
        (Wall(Path("/usr"), Use.READ), ["--ro-bind", "/usr", "/usr"]),
        (Wall(WORK, Use.WRITE), ["--bind", "/u/ann/tree", "/u/ann/tree"]),
        (PRIVATE, ["--bind", "/state/dev-1/home", "/u/ann"]),
        (Wall(WORK / ".git/config", Use.FIXED), ["--ro-bind", f"{WORK}/.git/config", f"{WORK}/.git/config"]),
    ],
)
def test_each_use_in_bubblewraps_words(wall: Wall, words: list[str]) -> None:
    said = box(wall).arguments()
    assert any(said[at : at + len(words)] == words for at in range(len(said)))


def test_what_is_hidden_is_covered_and_cannot_be_written() -> None:
    said = " ".join(
        box(
            Wall(HOME, Use.READ), Wall(HOME / ".ssh", Use.HIDE_FOLDER), Wall(HOME / ".netrc", Use.HIDE_FILE)
        ).arguments()
    )
    assert "--tmpfs /u/ann/.ssh " in said
    assert "--remount-ro /u/ann/.ssh" in said
    assert "--ro-bind /dev/null /u/ann/.netrc" in said


@pytest.mark.parametrize(
    ("others", "has", "lacks"),
    [
        ({}, "--unshare-pid", "--unshare-net"),
        ({"shares_network": False}, "--unshare-net", "--cap-drop"),
        ({"drops_root": True}, "--cap-drop ALL", "--unshare-net"),
        ({"drops_root": True, "renames_root": True}, "--unshare-user --uid 65534 --gid 65534", "--unshare-net"),
        ({"variables": {"A": "b c"}}, "--setenv A b c", "--unsetenv"),
        ({"dropped_variables": ("TMPDIR",)}, "--unsetenv TMPDIR", "--setenv"),
        ({"links": {"/bin": "usr/bin"}}, "--symlink usr/bin /bin", "--new-session"),
    ],
)
def test_what_else_the_box_is(others: dict[str, object], has: str, lacks: str) -> None:
    said = " ".join(box(**others).arguments())
    assert has in said
    assert lacks not in said
    assert "--die-with-parent" in said
    assert said.endswith("--chdir /u/ann/tree")


def test_what_changes_a_tree_ends_what_it_began_when_its_worker_is_killed() -> None:
    assert "--die-with-parent" not in box(outlives=True).arguments()


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("/u/ann/.codex/auth.json", "/u/ann/.codex/auth.json"),
        ("/u/ann/.codex/sessions/1", "/state/dev-1/home/.codex/sessions/1"),
        ("/u/ann/tree/a", "/u/ann/tree/a"),
        ("/tmp/a", "/state/dev-1/tmp/a"),
        ("/srv/a", "/srv/a"),
    ],
)
def test_where_a_path_lies_outside(inside: str, outside: str) -> None:
    built = box(PRIVATE, Wall(HOME / ".codex/auth.json", Use.WRITE), Wall(WORK, Use.WRITE))
    assert built.outside(Path(inside)) == Path(outside)


@pytest.mark.parametrize(
    ("path", "is_at"),
    [
        ("~/.claude", "/u/ann/.claude"),
        ("~", "/u/ann"),
        ("${CODEX_HOME:-~/.codex}/auth.json", "/u/ann/.codex/auth.json"),
        ("${GIVEN:-~/.codex}/auth.json", "/srv/codex/auth.json"),
        ("$GIVEN/x/../y", "/srv/codex/y"),
        ("$MISSING", None),
        ("relative", None),
    ],
)
def test_paths_of_the_settings(path: str, is_at: str | None) -> None:
    found = list(expanded([path], HOME, {"GIVEN": "/srv/codex"}))
    assert found == ([Path(is_at)] if is_at else [])


NOT_HERE = "there is no bubblewrap"


@pytest.mark.parametrize(
    ("agent", "kind", "machine", "why_not", "comes_out"),
    [
        (None, None, "auto", None, Boxing(is_boxed=True)),
        (None, None, "auto", NOT_HERE, Boxing(is_boxed=False, why=NOT_HERE)),
        (None, None, "always", None, Boxing(is_boxed=True)),
        (None, None, "always", NOT_HERE, "must be boxed .*TORCH_SANDBOX.* there is no bubblewrap"),
        (None, None, "never", None, Boxing(is_boxed=False, why="sandbox = never (TORCH_SANDBOX)")),
        (None, "never", "auto", None, Boxing(is_boxed=False, why="sandbox = never (its kind's file)")),
        (None, "never", "always", None, "sandbox = never .its kind's file.* TORCH_SANDBOX = always"),
        ("never", None, "always", None, "sandbox = never .its declaration.* TORCH_SANDBOX = always"),
        (None, "auto", "always", NOT_HERE, "must be boxed"),
        ("auto", "never", "never", None, Boxing(is_boxed=True)),
        ("always", "never", "never", None, Boxing(is_boxed=True)),
        ("always", None, "never", NOT_HERE, "must be boxed .*its declaration"),
        (None, "always", "never", NOT_HERE, "must be boxed .*its kind's file"),
    ],
)
def test_whether_a_program_is_boxed(
    agent: str | None, kind: str | None, machine: str, why_not: str | None, comes_out: Boxing | str
) -> None:
    def decided() -> Boxing:
        return decide("dev-1", agent=agent, kind=kind, machine=machine, why_not=lambda: why_not)  # type: ignore[arg-type]

    if isinstance(comes_out, str):
        with pytest.raises(SandboxRefused, match=f"agent dev-1 .*{comes_out}"):
            decided()
    else:
        assert decided() == comes_out
        assert Boxing.read(comes_out.in_words) == comes_out


def test_what_is_shown_inside_a_hidden_place_is_made_before_the_place_is_closed() -> None:
    state = HOME / "state"
    said = box(
        Wall(HOME, Use.WRITE), Wall(state, Use.HIDE_FOLDER), Wall(state / "agents/dev-1/bell", Use.WRITE)
    ).arguments()
    closed = said.index("--remount-ro")
    assert said[closed + 1] == str(state)
    assert said.index(str(state / "agents/dev-1/bell")) < closed
