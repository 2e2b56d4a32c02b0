"""Files to which other processes append lines while a test reads them."""

from __future__ import annotations

from pathlib import Path


def whole_lines(file: Path) -> list[str]:
    """The complete lines; none if there is no file.

    A reader may see a write page by page, and so the first part of a line that crosses a page.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()
