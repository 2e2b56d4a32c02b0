"""What commands print: tables for people, JSON for programs, a moving line while a person waits at a terminal.

What is printed by ``click.echo`` is made visible on its way out (:mod:`torch_tasks.system.terminal`). Colours and
movements are made here, by :class:`VisibleConsole`.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from pydantic import BaseModel
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from torch_tasks.cli.tables import Column, as_lines, lay_out, one_below_the_other, side_by_side
from torch_tasks.model.durations import describe_duration, local_time
from torch_tasks.model.fields import is_made_id
from torch_tasks.model.task import TaskRecord
from torch_tasks.system.terminal import beneath
from torch_tasks.visible_text import escaped, hanging, visible

_SHOWN = 8
_NARROWEST = 20
_Model = TypeVar("_Model", bound=BaseModel)


class VisibleConsole(Console):
    """Standard output, or standard error, with rich's own colours and movements; the texts among them are visible."""

    def __init__(self, *, stderr: bool = False, **how: Any) -> None:
        super().__init__(file=beneath(sys.stderr if stderr else sys.stdout), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def as_json(value: object) -> None:
    """Print models and dataclasses, alone or inside lists and dicts, as JSON."""
    click.echo(escaped(json.dumps(value, indent=2, ensure_ascii=False, default=_plain)))


def plain(model: BaseModel) -> dict[str, Any]:
    """The model as JSON values."""
    return model.model_dump(mode="json")


def _plain(value: Any) -> Any:
    """A model, or a dataclass with its fields, for JSON."""
    return (
        plain(value) if isinstance(value, BaseModel) else {one.name: getattr(value, one.name) for one in fields(value)}
    )


def as_json_or_line(json_wanted: bool, model: BaseModel | dict[str, Any], line: str) -> None:
    """Print a model as JSON for a program, or this line for a person."""
    if json_wanted:
        as_json(model)
    else:
        click.echo(line)


def as_json_or_table(
    json_wanted: bool,
    models: Sequence[_Model],
    columns: Sequence[Column],
    row: Callable[[_Model], Sequence[Any]],
) -> None:
    """Print models as JSON for a program, or as a table with one row each for a person."""
    if json_wanted:
        as_json(models)
    else:
        as_table(columns, map(row, models))


def as_fields(fields: Iterable[tuple[str, object]], width: int) -> None:
    """Print each field that has a value as ``name: value``, the values and all their lines below each other."""
    for name, value in fields:
        if str(value):
            click.echo(f"{name + ':':<{width}}{beside(str(value), width)}")


def beside(text: str, indent: int) -> str:
    """The visible text with all lines but the first indented; at a terminal its long lines go on in the next one."""
    if not is_terminal():
        return hanging(text, indent)
    room = max(terminal_width() - indent, _NARROWEST)
    lines = [piece for line in visible(text).split("\n") for piece in _broken(line, room) or [""]]
    return ("\n" + " " * indent).join(lines)


def _broken(line: str, room: int) -> list[str]:
    """The line in pieces that fit; no word of it is broken."""
    return textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False)


def as_table(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table that fits the terminal; in a pipe it is as wide as it needs to be, and whole."""
    shown = [[visible(str(cell)) for cell in row] for row in rows]
    console = VisibleConsole(highlight=False)
    if not console.is_terminal:
        click.echo("\n".join(as_lines(columns, shown)))
        return
    layout = lay_out(columns, shown, console.width)
    if layout is None:
        for line in one_below_the_other(columns, shown):
            console.print(line, soft_wrap=True)
        return
    console.print(side_by_side(columns, shown, layout))
    if layout.left_out:
        words = f"not shown in {console.width} columns: {', '.join(layout.left_out)}"
        console.print(Text(words, style="dim"), soft_wrap=True)


def is_terminal() -> bool:
    return VisibleConsole().is_terminal


def terminal_width() -> int:
    """How many columns there are; 80 where no terminal says so."""
    return VisibleConsole().width


def waiting(message: str) -> AbstractContextManager[Any]:
    """Show a moving line on standard error while a command waits; nothing unless a person watches."""
    console = VisibleConsole(stderr=True)
    return console.status(message) if console.is_terminal else nullcontext()


def local(moment: datetime | None) -> str:
    """A time as this machine's clocks show it, with their zone; ``--json`` has it in ISO 8601."""
    return local_time(moment) if moment else ""


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
    return task_id[:_SHOWN] if is_terminal() and is_made_id(task_id) else task_id
