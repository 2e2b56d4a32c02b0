"""Where nothing runs, every command that needs a fleet says so before it loads what talks to one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from torch_tasks.cli import main, needs_a_fleet
from torch_tasks.state_folder import TMUX, StateFolder

CTX = click.Context(main)
RUN_ALL = """
import contextlib, io, json, sys
from torch_tasks.cli import main
said = {}
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words, prog_name="torch-tasks")
        except SystemExit as end:
            loaded = sorted({"celery", "kombu"} & set(sys.modules))
            said[" ".join(words)] = [end.code, out.getvalue() + err.getvalue(), loaded]
print(json.dumps(said))
"""


def tree(name: tuple[str, ...] = (), command: click.Command = main) -> Iterator[tuple[str, ...]]:
    """The words of every command that is no group, and of those groups that do something themselves."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield name
    if isinstance(command, click.Group):
        for one in command.list_commands(CTX):
            if found := command.get_command(CTX, one):
                yield from tree((*name, one), found)


def test_whatever_needs_a_fleet_says_at_once_that_nothing_runs(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    needy = [list(words) for words in tree() if needs_a_fleet(words, state)]
    assert {"run", "send", "ask", "inbox", "summary", "node list", "checkin add", "screen"} <= {*map(" ".join, needy)}
    argv = [sys.executable, "-c", RUN_ALL, json.dumps([*needy, ["doctor"]])]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={"TORCH_STATE_DIR": str(state.path)})
    said = json.loads(done.stdout)
    assert len(said) == len(needy) + 1
    for words, (code, text, loaded) in said.items():
        assert (code, loaded) == (4, []), (words, text)
        assert f"nothing runs here: no broker is up in {state.path}" in text, words


@pytest.mark.parametrize(
    "words", ["up", "down", "node", "node -l DEBUG", "stop --all", "start --here", "run --spool later", "done t-1"]
)
def test_what_starts_it_or_needs_this_machine_alone_is_not_held_up(tmp_path: Path, words: str) -> None:
    assert not needs_a_fleet(words.split(), StateFolder(tmp_path))


def test_a_pane_that_was_kept_is_shown(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.agent("dev-1").mkdir(parents=True)
    assert needs_a_fleet(["screen", "dev-1"], state)
    (state.agent("dev-1") / TMUX).touch()
    assert not needs_a_fleet(["screen", "dev-1"], state)


def test_in_a_pane_whose_desk_is_away_a_command_names_the_desk(tmp_path: Path) -> None:
    pane = {
        "TORCH_STATE_DIR": str(tmp_path),
        "TORCH_DESK": str(tmp_path / "qa-1" / "desk" / "socket"),
        "TORCH_DESK_SECONDS": "0.1",
    }
    argv = [sys.executable, "-m", "torch_tasks.cli", "task", "t-1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=pane)
    assert done.returncode == 4
    assert "the worker of agent qa-1 does not serve its desk" in done.stderr
