"""What a box finds on a machine: programs with what belongs to them, and repositories whose owner may be an agent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from torch_tasks.errors import SandboxRefused
from torch_tasks.settings import Settings
from torch_tasks.workers.sandbox.agent_box import Inhabitant, agent_box
from torch_tasks.workers.sandbox.box import Use
from torch_tasks.workers.sandbox.places import installation, repository
from torch_tasks.workers.sandbox.policy import BoxPaths


def git(folder: Path, *words: str) -> None:
    named = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *named, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return folder


def walls(folder: Path) -> dict[Path, Use]:
    return {wall.place: wall.use for wall in repository(folder)}


def test_of_a_repository_all_but_what_makes_git_run_programs_may_be_written(project: Path) -> None:
    found = walls(project)
    assert found[project / ".git"] is Use.WRITE
    assert found[project / ".git/config"] is found[project / ".git/hooks"] is Use.FIXED


def test_in_a_folder_of_a_repository_only_this_folder_may_be_written(project: Path) -> None:
    (project / "part").mkdir()
    found = walls(project / "part")
    assert found[project] is Use.READ
    assert found[project / ".git"] is Use.WRITE


def test_an_added_tree_has_the_repository_that_it_belongs_to(project: Path, tmp_path: Path) -> None:
    git(project, "worktree", "add", "-q", str(tmp_path / "added"))
    found = walls(tmp_path / "added")
    assert found[tmp_path / "added/.git"] is Use.FIXED
    assert found[project / ".git"] is Use.WRITE
    assert found[project / ".git/config"] is found[project / ".git/hooks"] is Use.FIXED


def test_a_link_that_an_agent_made_to_anothers_repository_is_not_followed(project: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / ".git").write_text(f"gitdir: {project / '.git'}\n")
    assert walls(mine) == {}
    (mine / ".git").unlink()
    (mine / ".git").symlink_to(project / ".git")
    assert walls(mine) == {}


def test_hooks_that_lead_elsewhere_are_not_shown(project: Path, tmp_path: Path) -> None:
    for hook in (project / ".git/hooks").iterdir():
        hook.unlink()
    (project / ".git/hooks").rmdir()
    (project / ".git/hooks").symlink_to(tmp_path)
    assert project / ".git/hooks" not in walls(project)


def test_a_program_is_shown_with_what_was_installed_with_it(tmp_path: Path) -> None:
    home, tool = tmp_path / "home", tmp_path / "home/tools/lib/node_modules/tool/cli.js"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/usr/bin/env node\n")
    tool.chmod(0o755)
    (home / "bin").mkdir()
    (home / "bin/tool").symlink_to("../tools/lib/node_modules/tool/cli.js")
    found = {wall.place for wall in installation("tool", {"PATH": str(home / "bin")}, home)}
    assert {home / "bin", home / "tools/lib/node_modules"} <= found
    assert home not in found


def test_a_program_of_an_environment_is_shown_with_all_of_it(tmp_path: Path) -> None:
    home, script = tmp_path / "home", tmp_path / "home/venvs/aider/bin/aider"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{script.parent}/python\n")
    script.chmod(0o755)
    found = {wall.place for wall in installation("aider", {"PATH": str(script.parent)}, home)}
    assert found == {home / "venvs/aider"}


@pytest.fixture
def who(tmp_path: Path) -> Inhabitant:
    (tmp_path / "home/.ssh").mkdir(parents=True)
    return Inhabitant(
        agent_id="dev-1",
        folder=tmp_path / "state/agents/dev-1",
        paths=BoxPaths(),
        command="bash",
        network="all",
        variables={"HOME": str(tmp_path / "home"), "PATH": "/usr/bin"},
    )


@pytest.mark.parametrize("workdir", ["home", ".", "home/.ssh", "state", "state/agents/dev-2"])
def test_no_box_is_built_around_the_users_home_or_what_no_agent_sees(
    tmp_path: Path, who: Inhabitant, workdir: str
) -> None:
    (tmp_path / "state/agents/dev-2").mkdir(parents=True)
    with pytest.raises(SandboxRefused, match="agent dev-1 cannot"):
        agent_box(who, tmp_path / workdir, Settings(state_dir=tmp_path / "state"))


def test_an_agent_sees_of_the_state_folder_its_own_files_alone(tmp_path: Path, who: Inhabitant) -> None:
    work = tmp_path / "home/work"
    work.mkdir()
    box = agent_box(who, work, Settings(state_dir=tmp_path / "state"))
    shown = {wall.place.relative_to(who.folder): wall.use for wall in box.walls if who.folder in wall.place.parents}
    assert {str(place) for place in shown} == {"runs", "messages", "desk", "program", "events", "unpacked", "bell"}
    assert shown[Path("runs")] is shown[Path("desk")] is Use.FIXED
    around = box.wall_around(tmp_path / "state/broker.json")
    assert around is None or around.hides or around.source
    assert box.outside(tmp_path / "home/.ssh") == who.folder / "home/.ssh"
