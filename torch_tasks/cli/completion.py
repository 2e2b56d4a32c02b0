"""``torch-tasks completion``."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from torch_tasks.cli import COMPLETE, main
from torch_tasks.errors import TorchError
from torch_tasks.model.options import OneOf

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=OneOf(_SHELLS), required=False)
@click.option("--install", is_flag=True, help="Write it where SHELL finds it when it starts.")
def completion(shell: str | None, install: bool) -> None:
    """Print what has SHELL (default: your own) complete commands, options, ids, roles, kinds and states.

    --install is all that is needed: it writes a file of Torch's, and for bash and zsh one line into ~/.bashrc or
    ~/.zshrc, once.
    """
    chosen = shell or _own_shell()
    script = _script(chosen)
    if not install:
        click.echo(script)
        return
    try:
        _install(chosen, script)
    except OSError as error:
        remedy = f"'torch-tasks completion {chosen}' prints what to put there"
        raise TorchError(f"cannot write {error.filename}: {error.strerror}. {remedy}") from None


def _install(shell: str, script: str) -> None:
    place = _place(shell)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{script}\n")
    click.echo(f"{place} is written; it counts in every {shell} that is started from now on")
    if start := _start_file(shell):
        _source_once(start, place)


def _own_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in _SHELLS:
        raise TorchError(f"your shell ({name or 'SHELL is not set'}) is none of {', '.join(_SHELLS)}; name one of them")
    return name


def _script(shell: str) -> str:
    found = get_completion_class(shell)
    assert found
    return found(main, {}, "torch-tasks", COMPLETE).source()


def _place(shell: str) -> Path:
    if shell == "fish":
        return _folder("XDG_CONFIG_HOME", ".config") / "fish" / "completions" / "torch-tasks.fish"
    return _folder("XDG_DATA_HOME", ".local/share") / "torch-tasks" / f"completion.{shell}"


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)


def _start_file(shell: str) -> Path | None:
    """The file that the shell reads when it starts; fish needs none."""
    if shell == "zsh":
        return Path(os.environ.get("ZDOTDIR") or Path.home()) / ".zshrc"
    return Path.home() / ".bashrc" if shell == "bash" else None


def _source_once(start: Path, script: Path) -> None:
    line = f'source "{script}"  # torch-tasks completion'
    before = start.read_text() if start.exists() else ""
    if line in before.splitlines():
        return
    with start.open("a") as file:
        file.write(f"{line}\n" if before.endswith("\n") or not before else f"\n{line}\n")
    click.echo(f"{start} has one new line, which reads it")
