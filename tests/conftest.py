"""What holds for every test: none sees a setting of the user who runs it."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import parents

from torch_tasks.settings import settings

pytest_plugins = ["fleet"]
TESTS = Path(__file__).parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes ``-n auto`` starts: one if they would share a given broker."""
    return 1 if os.environ.get("TORCH_TEST_BROKER_URL") else min(4, (os.cpu_count() or 1) + 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first and the quickest come last, so that none of several processes waits at the end."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (_quickness(item.path), -tests[item.path], item.path))


def _quickness(path: Path) -> int:
    """0 for files with few tests that take a minute each, 2 for those whose tests start no process."""
    folders = path.relative_to(TESTS).parts
    if "unit" in folders:
        return 2
    return 0 if {"chaos", "machine"}.intersection(folders) else 1


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_this_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Removes the user's settings from this process and from all that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("TORCH_", "CELERY_")) and not name.startswith("TORCH_TEST_"):
                patch.delenv(name)
        patch.setenv("TORCH_CONFIG_DIR", str(tmp_path_factory.mktemp("no-config")))
        # State folders that share a broker are one fleet.
        patch.setenv("TORCH_KEYS_DIR", str(tmp_path_factory.mktemp("keys")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        settings.cache_clear()  # collecting the tests may have read them
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # so that not each process compiles all of Torch anew
        yield
        parents.end()


@pytest.fixture
def enforced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """This process has keys of its own, and takes nothing that is not signed."""
    monkeypatch.setenv("TORCH_SIGNING", "enforce")
    monkeypatch.setenv("TORCH_KEYS_DIR", str(tmp_path / "keys"))
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two mebibytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
