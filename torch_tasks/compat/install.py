"""``torch-tasks compat install``: files under the old tools' names that call this installation."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from torch_tasks.errors import FileExists, TorchError

_OURS = "Installed by `torch-tasks compat install`"
_SCRIPT = f"""\
#!/bin/sh
# {_OURS}: the same arguments and output lines as the original.
exec {{python}} -P -c 'import sys
from torch_tasks.compat.{{module}} import main
sys.argv = sys.argv[1:]
sys.exit(main())' "$0" "$@"
"""
_UTILS = f"""\
#!/bin/sh
''':'
exec {{python}} -P "$0" "$@"
'''
# {_OURS}. Run by a shell, it starts the Python of Torch's installation.
import os
import sys

try:
    from torch_tasks.compat.tmux_utils import TmuxOrchestrator, TmuxSession, TmuxWindow, main
except ImportError:
    if __name__ != "__main__" or sys.executable == {{literal}}:
        raise ImportError("Torch is not installed for this Python; use " + {{literal}}) from None
    os.execv({{literal}}, [{{literal}}, "-P", os.path.abspath(__file__), *sys.argv[1:]])

if __name__ == "__main__":
    sys.exit(main())
"""
_FILES = {
    "send-claude-message.sh": (_SCRIPT, "send"),
    "schedule_with_note.sh": (_SCRIPT, "schedule"),
    "tmux_utils.py": (_UTILS, "tmux_utils"),
}


@click.group()
def compat() -> None:
    """Install the tools that Torch replaces under their old names."""


@compat.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that are not from Torch.")
def install(folder: Path, *, force: bool) -> None:
    """Write send-claude-message.sh, schedule_with_note.sh and tmux_utils.py into DIR; they call this installation."""
    for file in write_tools(folder, force=force):
        click.echo(f"wrote {file}")


def write_tools(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Write the tools into the folder and yield each file; nothing is written if a file there is not from Torch."""
    files = {folder / name: source for name, source in _FILES.items()}
    foreign = [file for file in files if not force and not _may_be_written(file)]
    if foreign:
        raise FileExists(
            f"nothing was written: {' and '.join(map(str, foreign))} {'is' if len(foreign) == 1 else 'are'} not from "
            "Torch; move it away, or replace it with --force"
        )
    python = sys.executable
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, (template, module) in files.items():
            _write(file, template.format(python=shlex.quote(python), literal=repr(python), module=module))
            yield file
    except OSError as error:
        raise TorchError(f"cannot write to {folder}: {error.strerror}; name a folder in which you may write") from error


def _may_be_written(file: Path) -> bool:
    if file.is_symlink() or not file.exists():
        return not file.is_symlink()
    return file.is_file() and _OURS.encode() in file.read_bytes()


def _write(file: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
        new.write(text)
    made = Path(new.name)
    made.chmod(0o755)
    made.replace(file)
