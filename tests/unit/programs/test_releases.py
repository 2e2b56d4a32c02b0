"""The certified releases: the file, who asks for it, and the documents' table of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.releases import all_releases, certified_releases, is_certified

AGENTS = Path(__file__).parents[3] / "docs" / "agents.md"


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder of kinds."""
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    kind_config.cache_clear()
    folder = tmp_path / "agents"
    folder.mkdir()
    yield folder
    kind_config.cache_clear()


def test_the_newest_release_stands_first() -> None:
    for name, releases in all_releases().items():
        numbers = [[int(part) for part in one.release.split(".")] for one in releases.certified]
        assert numbers == sorted(numbers, reverse=True), name
        assert (releases.npm is None) != (releases.pypi is None), name


def test_a_release_is_certified_for_torchs_kind_and_those_laid_over_it(kinds: Path) -> None:
    (kinds / "work.toml").write_text('base = "claude"\n')
    (kinds / "claude.toml").write_text('base = "claude"\nmodel = "opus"\n')
    for kind in ("claude", "work"):
        assert certified_releases(kind) == all_releases()["claude"].certified
        assert is_certified(kind, all_releases()["claude"].certified[0].release)
        assert not is_certified(kind, "0.0.1")


def test_a_kind_of_the_users_own_is_certified_by_nobody(kinds: Path) -> None:
    (kinds / "claude.toml").write_text('command = ["my-claude"]\n')
    (kinds / "work.toml").write_text('base = "claude"\n')
    (kinds / "own.toml").write_text('command = ["own"]\n')
    assert [certified_releases(kind) for kind in ("claude", "work", "own", "shell")] == [(), (), (), ()]


def test_the_documents_table_is_the_file() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (npm|PyPI) `(\S+)` \| (.+?) \|$", AGENTS.read_text(), re.MULTILINE)
    assert rows == [
        (
            name,
            "npm" if releases.npm else "PyPI",
            releases.npm or releases.pypi,
            ", ".join(f"{one.release} ({one.date})" for one in releases.certified),
        )
        for name, releases in all_releases().items()
    ]
