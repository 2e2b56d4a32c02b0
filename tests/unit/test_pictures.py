"""The console's pages are shown in its documentation, in pictures that a repository can carry."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_each_picture_is_shown_and_none_is_large() -> None:
    found = {file.stem: file.stat().st_size for file in (DOCS / "pictures").glob("*.png")}
    assert max(found.values()) < 150_000
    text = (DOCS / "console.md").read_text()
    assert [name for name in found if f"pictures/{name}.png" not in text] == []
