"""Files to which others append lines while a test reads them."""

from __future__ import annotations

from pathlib import Path


def whole_lines(file: Path) -> list[str]:
    """The lines that are there to their end; none if there is no file.

    One write of a line is shown to readers page by page: of a line that crosses a page, they may see the first part.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()
