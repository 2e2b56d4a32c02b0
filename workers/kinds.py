"""``torch-tasks kinds``: which kinds of agents there are, and whether their programs are here, in which releases."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import click
from pydantic import BaseModel

from torch_tasks.cli.output import as_json, as_table
from torch_tasks.config_files import config_names
from torch_tasks.errors import InvalidSettings
from torch_tasks.workers.programs.config import kind_config

#: To be copied; it is no kind of its own.
_TEMPLATE = "generic"
#: How long a program may take to say its release.
_SECONDS = 20


class Kind(BaseModel):
    """One kind, as it is on this machine."""

    kind: str
    base: str | None = None
    """The kind that its file is laid over."""
    program: str = ""
    path: str | None = None
    """Where its program is; none if it is not on PATH."""
    release: str | None = None
    measured: str | None = None
    """The release with which it was measured how the program behaves."""
    error: str | None = None
    """What is wrong with its file."""


@click.command()
@click.option("--json", "json_wanted", is_flag=True, help="For programs.")
def kinds(json_wanted: bool) -> None:
    """List the kinds of agents, and the releases of their programs here beside those that Torch was measured with.

    Exit code 1 if the file of one is wrong.
    """
    names = [name for name in config_names("agents") if name != _TEMPLATE]
    with ThreadPoolExecutor() as at_once:
        found = list(at_once.map(_look, names))
    if json_wanted:
        as_json(found)
    else:
        as_table(("KIND", "BASE", "PROGRAM", "RELEASE"), [_row(kind) for kind in found])
        for kind in found:
            if kind.error:
                click.echo(f"Error: {kind.error}", err=True)
    sys.exit(1 if any(kind.error for kind in found) else 0)


def _look(name: str) -> Kind:
    try:
        config = kind_config(name)
    except InvalidSettings as error:
        return Kind(kind=name, error=str(error))
    path = config.path
    # What a program of one's own does with the flag, nobody knows.
    release = _release(path, {**os.environ, **config.environment}) if path and config.measured else None
    return Kind(
        kind=name,
        base=config.base,
        program=config.command[0],
        path=path,
        release=release,
        measured=config.measured,
    )


def _release(path: str, environment: Mapping[str, str]) -> str | None:
    """What the program says of itself, if it says it in time."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = re.search(rb"\d+(\.\d+)+\S*", done.stdout)
    return said[0].decode(errors="replace") if said else None


def _row(kind: Kind) -> tuple[str, str, str, str]:
    return kind.kind, kind.base or "", kind.program, _words(kind)


def _words(kind: Kind) -> str:
    if kind.error:
        return "its file is wrong"
    if kind.path is None:
        return f"not on PATH{f'; measured: {kind.measured}' if kind.measured else ''}"
    if kind.measured is None:
        return f"at {kind.path}"
    if kind.release is None:
        return f"does not tell; measured: {kind.measured}"
    return (
        f"{kind.release}, as measured"
        if kind.release == kind.measured
        else f"{kind.release}; measured: {kind.measured}"
    )
