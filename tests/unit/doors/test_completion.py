"""What the shell completes, from which commands, and that a missing broker holds up nobody who types."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from torch_tasks.cli import COMMANDS, COMPLETE, main

SCRIPTS = {"bash": "complete -o nosort -F", "zsh": "compdef", "fish": "complete --no-files --command torch-tasks"}


def completed(*words: str) -> list[str]:
    """What may stand for the last of these words."""
    shell = ShellComplete(main, {}, "torch-tasks", COMPLETE)
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_every_command_is_completed() -> None:
    assert completed("") == [name for commands in COMMANDS.values() for name in commands]
    assert completed("ag") == ["agents", "agent"]
    assert completed("--v") == ["--version"]
    assert completed("nonesuch", "") == completed("")


def test_options_kinds_and_states_are_completed() -> None:
    assert completed("run", "--ki") == ["--kind"]
    assert {"claude", "codex", "shell"} <= set(completed("run", "--kind", ""))
    assert completed("spawn", "tester", "--kind", "cl") == ["claude"]
    assert completed("tasks", "--state", "ru") == ["running"]
    assert completed("dead", "re") == ["replay"]


@pytest.mark.parametrize("word", ["", "ag"])
def test_completing_a_command_loads_none(word: str) -> None:
    code = f"""import sys
from click.shell_completion import ShellComplete
from torch_tasks.cli import COMPLETE, main
assert ShellComplete(main, {{}}, "torch-tasks", COMPLETE).get_completions([], {word!r})
print(*sorted({{"celery", "pydantic", "redis", "rich", "torch_tasks.cli.tasks"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def completed_elsewhere(*lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a new process offers for these lines."""
    code = f"""from click.shell_completion import ShellComplete
from torch_tasks.cli import COMPLETE, main
shell = ShellComplete(main, {{}}, "torch-tasks", COMPLETE)
for line in {lines!r}:
    print([item.value for item in shell.get_completions(line.split(), "")])"""
    argv, env = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=env)


def test_without_a_broker_nothing_is_offered_and_nothing_is_said(tmp_path: Path) -> None:
    lines = ("task", "send", "run --role", "messages", "checkin show", "node show")
    done = completed_elsewhere(*lines, TORCH_BROKER_URL="redis://127.0.0.1:1/0", TORCH_STATE_DIR=str(tmp_path))
    assert (done.stdout.splitlines(), done.stderr) == (["[]"] * len(lines), "")


def test_a_broker_that_is_silent_is_not_waited_for(tmp_path: Path) -> None:
    code = """import time, click
from torch_tasks.cli.names import AGENT
begun = time.monotonic()
assert AGENT.shell_complete(click.Context(click.Command("x")), click.Argument(["x"]), "") == []
print(time.monotonic() - begun)"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        env = {**os.environ, "TORCH_BROKER_URL": url, "TORCH_STATE_DIR": str(tmp_path)}
        argv = [sys.executable, "-c", code]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env, timeout=60)
    assert float(done.stdout) < 1.5


def test_a_broken_configuration_is_no_matter_of_the_line_being_typed(tmp_path: Path) -> None:
    (tmp_path / "torch.toml").write_text("not toml")
    done = completed_elsewhere("task", TORCH_CONFIG_DIR=str(tmp_path), TORCH_STATE_DIR=str(tmp_path))
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_of_each_shell_is_printed(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell], prog_name="torch-tasks")
    assert done.exit_code == 0
    assert COMPLETE in done.output
    assert SCRIPTS[shell] in done.output


def test_it_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    (tmp_path / ".bashrc").write_text("alias ll='ls -l'")
    for _ in range(2):
        assert CliRunner().invoke(main, ["completion", "--install"]).exit_code == 0
    script = tmp_path / ".local/share/torch-tasks/completion.bash"
    assert COMPLETE in script.read_text()
    line = f'source "{script}"  # torch-tasks completion'
    assert (tmp_path / ".bashrc").read_text() == f"alias ll='ls -l'\n{line}\n"
    assert CliRunner().invoke(main, ["completion", "fish", "--install"]).exit_code == 0
    assert COMPLETE in (tmp_path / ".config/fish/completions/torch-tasks.fish").read_text()


def test_an_unknown_shell_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    done = CliRunner().invoke(main, ["completion"])
    assert done.exit_code == 1
    assert "your shell (tcsh) is none of bash, zsh, fish; name one of them" in done.output
