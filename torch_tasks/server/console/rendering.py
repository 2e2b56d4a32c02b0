"""Pages as HTML: the templates, and how they write times, texts and forms."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from torch_tasks.model.durations import describe_duration
from torch_tasks.model.fields import now
from torch_tasks.model.limits import size
from torch_tasks.server.console import markdown
from torch_tasks.visible_text import one_line, visible

NOTHING = "\N{EN DASH}"
"""Stands where there is no value."""
_ENDS = re.compile("[\r\n\t]")


class Templates:
    """The templates of the console. What they write is escaped, and nothing in it hides or steers what is read."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("torch_tasks.server.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
        )
        self._environment.filters.update(when=when, ago=ago, size=size, seconds=describe_duration, line=line)
        self._environment.filters.update(markdown=markdown.drawn)
        self._environment.globals.update(once=lambda: secrets.token_urlsafe(16), longest_drawn=markdown.LONGEST)

    def compile_all(self) -> None:
        """Have them at hand, so that nobody waits for it who looks at a page for the first time."""
        for name in self._environment.list_templates():
            self._environment.get_template(name)

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        return self._environment.get_template(f"{name}.html").render(values)


def when(moment: datetime | None) -> Markup | str:
    """A moment, which the browser shows in its own time."""
    if moment is None:
        return NOTHING
    return Markup(f'<time datetime="{moment.isoformat()}" data-local>{moment:%Y-%m-%d %H:%M:%S} UTC</time>')  # noqa: S704


def ago(moment: datetime | None) -> Markup | str:
    """How long ago that was; the browser keeps counting."""
    if moment is None:
        return NOTHING
    seconds = max(0.0, (now() - moment).total_seconds())
    return Markup(f'<time datetime="{moment.isoformat()}" data-ago>{describe_duration(seconds)} ago</time>')  # noqa: S704


def line(text: str, longest: int) -> str:
    """The beginning of the text as one line: a browser takes the end of a line for a space, too."""
    return one_line(_ENDS.sub(" ", text[: longest + 1]), longest)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return value if isinstance(value, Markup) else visible(str(value))
    return NOTHING if value is None else value
