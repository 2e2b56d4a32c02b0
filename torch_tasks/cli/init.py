"""``torch-tasks init``: the first configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from string import Template

import click

from torch_tasks.config_files import shipped_config, user_config
from torch_tasks.errors import TorchError
from torch_tasks.system.files import make_folder

#: In this order they are looked for on PATH; a shell is always there. ``acp`` is no program, but what some speak.
PROGRAMS = ("claude", "codex", "gemini", "opencode", "aider", "shell", "acp")
#: What a program's requests for permission call its shell, if it is not ``Bash``.
_SHELLS = {"gemini": "Shell", "opencode": "bash", "acp": "execute"}
_OWN_KIND = "night"
_MOST_AGENTS = 50


@click.command()
@click.option("--yes", "unasked", is_flag=True, help="Ask nothing: take what is found on this machine.")
def init(unasked: bool) -> None:
    """Write a first torch.toml, git.toml and kind of agent, commented, after three questions.

    They are written into ~/.config/torch, or TORCH_CONFIG_DIR. Files that exist stay as they are.
    """
    folder = user_config()
    found = next(name for name in PROGRAMS if name == "shell" or shutil.which(name))
    program, workdir, count = found, Path.cwd(), 2
    if not unasked:
        program = click.prompt("Which program do the agents run?", default=found, type=click.Choice(PROGRAMS))
        workdir = click.prompt("In which folder do they work?", default=str(workdir), type=_Folder())
        count = click.prompt("How many agents?", default=count, type=click.IntRange(1, _MOST_AGENTS))
    files = _files(program, workdir, count)
    if there := [str(folder / name) for name in files if (folder / name).exists()]:
        raise TorchError(f"nothing was written: {', '.join(there)} exists already; edit it, or move it away first")
    for name, text in files.items():
        make_folder((folder / name).parent)
        (folder / name).write_text(text)
        click.echo(f"wrote {folder / name}")
    click.echo("Next: torch-tasks doctor, then torch-tasks up")


class _Folder(click.ParamType[Path]):
    name = "folder"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        folder = Path(str(value)).expanduser().absolute()
        if not folder.is_dir():
            self.fail(f"{folder} is no folder", param, ctx)
        return folder


def _files(program: str, workdir: Path, count: int) -> dict[str, str]:
    """Each file's name and text. A shell asks for no permission: it needs no kind of its own."""
    kind = _OWN_KIND if program != "shell" else program
    place = str(workdir).replace("\\", "\\\\").replace('"', '\\"')
    agents = "\n".join(
        _filled("agent.toml", number=str(number), kind=kind, folder=place) for number in range(1, count + 1)
    )
    files = {"torch.toml": _filled("torch.toml", program=program, agents=agents), "git.toml": _filled("git.toml")}
    if kind == _OWN_KIND:
        files[f"agents/{kind}.toml"] = _filled("agents/night.toml", program=program, shell=_SHELLS.get(program, "Bash"))
    return files


def _filled(name: str, **values: str) -> str:
    return Template((shipped_config() / "init" / name).read_text()).substitute(values)
