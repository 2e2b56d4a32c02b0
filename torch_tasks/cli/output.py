"""What commands print: tables for people, JSON for programs, a moving line while a person waits at a terminal.

What is printed by ``click.echo`` is made visible on its way out (:mod:`torch_tasks.system.terminal`). Colours and
movements are made here, by :class:`VisibleConsole`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from pydantic import BaseModel
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from torch_tasks.model.durations import describe_duration
from torch_tasks.model.task import TaskRecord
from torch_tasks.system.terminal import beneath
from torch_tasks.visible_text import escaped, hanging, visible

_GAP, _NARROWEST = 2, 10
_MADE_BY_TORCH, _SHOWN = re.compile(r"[0-9a-f]{32}"), 8
_Model = TypeVar("_Model", bound=BaseModel)


class VisibleConsole(Console):
    """Standard output, or standard error, with rich's own colours and movements; the texts among them are visible."""

    def __init__(self, *, stderr: bool = False, **how: Any) -> None:
        super().__init__(file=beneath(sys.stderr if stderr else sys.stdout), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def as_json(value: BaseModel | Sequence[BaseModel | dict[str, Any]] | dict[str, Any]) -> None:
    """Print models, alone or inside lists and dicts, as JSON."""
    click.echo(escaped(json.dumps(value, indent=2, ensure_ascii=False, default=plain)))


def plain(model: BaseModel) -> dict[str, Any]:
    """The model as JSON values."""
    return model.model_dump(mode="json")


def as_json_or_line(json_wanted: bool, model: BaseModel, line: str) -> None:
    """Print a model as JSON for a program, or this line for a person."""
    if json_wanted:
        as_json(model)
    else:
        click.echo(line)


def as_json_or_table(
    json_wanted: bool,
    models: Sequence[_Model],
    headings: Sequence[str],
    row: Callable[[_Model], Sequence[Any]],
    *,
    cut: bool = False,
) -> None:
    """Print models as JSON for a program, or as a table with one row each for a person."""
    if json_wanted:
        as_json(models)
    else:
        as_table(headings, map(row, models), cut=cut)


def as_fields(fields: Iterable[tuple[str, object]], width: int) -> None:
    """Print each field that has a value as ``name: value``, the values and all their lines below each other."""
    for name, value in fields:
        if str(value):
            click.echo(f"{name + ':':<{width}}{hanging(str(value), width)}")


def as_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, cut: bool = False) -> None:
    """Print a table; in a pipe it is as wide as it needs to be. ``cut``: its last column may be cut at a terminal."""
    table = Table(*headings, box=None, header_style="bold", pad_edge=False)
    shown = [[visible(str(cell)) for cell in row] for row in rows]
    for row in shown:
        table.add_row(*map(Text, row))
    console = VisibleConsole()
    if not console.is_terminal:
        console = VisibleConsole(width=400)
        with console.capture() as captured:
            console.print(table)
        click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
    else:
        for column in table.columns:
            column.overflow = "fold"  # a path or an id that is cut off is worth nothing
        if cut:
            _keep_to_one_line(table, headings, shown, console.width)
        console.print(table)


def _keep_to_one_line(table: Table, headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    """Cut the last column instead of folding it into a pillar."""
    others = sum(max(map(cell_len, cells)) + _GAP for cells in list(zip(headings, *rows, strict=True))[:-1])
    last = table.columns[-1]
    last.no_wrap, last.overflow, last.max_width = True, "ellipsis", max(_NARROWEST, width - others)


def is_terminal() -> bool:
    return VisibleConsole().is_terminal


def terminal_width() -> int:
    """How many columns there are; 80 where no terminal says so."""
    return VisibleConsole().width


def waiting(message: str) -> AbstractContextManager[Any]:
    """Show a moving line on standard error while a command waits; nothing unless a person watches."""
    console = VisibleConsole(stderr=True)
    return console.status(message) if console.is_terminal else nullcontext()


def ago(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return f"{describe_duration(int((datetime.now(UTC) - moment).total_seconds()), units=1)} ago"


def clear_screen() -> None:
    """Empty the terminal, for what is printed next."""
    VisibleConsole().clear()


def print_styled(text: Text) -> None:
    """Print one line, in colour at a terminal; raises if its reader is gone, where rich would end the program."""
    console = VisibleConsole(highlight=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(text)
    console.file.write(captured.get())
    console.file.flush()


def wanted(record: TaskRecord) -> str:
    """The agent, or the role and skills, that a task asks for."""
    spec = record.spec
    return spec.agent or "+".join((spec.role or "any", *spec.skills))


def shown(task_id: str) -> str:
    """The id, shortened for a person at a terminal."""
    return task_id[:_SHOWN] if is_terminal() and _MADE_BY_TORCH.fullmatch(task_id) else task_id
