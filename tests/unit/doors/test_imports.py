"""Imports point one way, and the light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PACKAGES = ("torch_tasks", "workers", "beat")


def modules(package: str) -> list[Path]:
    """The source files of a package."""
    return sorted((REPOSITORY / package).rglob("*.py"))


def imported(module: Path) -> Iterator[str]:
    """Every module that a source file imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def roots(package: str) -> set[str]:
    """The top-level names that a package imports."""
    return {name.split(".")[0] for module in modules(package) for name in imported(module)}


@pytest.mark.parametrize("package", PACKAGES)
def test_torch_imports_nothing_of_its_repository_but_itself(package: str) -> None:
    assert not roots(package) & {"workers", "beat", "tests", "benchmarks", "docs", "pytest"}


def test_no_import_is_relative() -> None:
    places = [module for package in PACKAGES for module in modules(package)]
    nodes = [node for module in places for node in ast.walk(ast.parse(module.read_text()))]
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]


def starts_tmux(module: Path) -> bool:
    """The file holds a command line of tmux, as a list or tuple that begins with it or a text that does."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.List | ast.Tuple) and node.elts and _is_tmux(node.elts[0]):
            return True
        if isinstance(node, ast.Call) and any(_is_tmux(word) for word in node.args) and not _only_looks(node):
            return True
    return False


def _is_tmux(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split()[:1] == ["tmux"]


def _only_looks(call: ast.Call) -> bool:
    return ast.unparse(call.func).endswith(("shutil.which", "Path", "with_name", "glob"))


def test_only_workers_tmux_speaks_with_tmux() -> None:
    outside = [m for package in PACKAGES for m in modules(package) if "workers/tmux" not in str(m)]
    assert not [module for module in outside if "libtmux" in {name.split(".")[0] for name in imported(module)}]
    # `attach` becomes tmux, and gives it this terminal.
    assert [module.relative_to(REPOSITORY) for module in outside if starts_tmux(module)] == [Path("workers/cli.py")]


@pytest.mark.parametrize(
    "statement",
    [
        "import torch_tasks",
        "from torch_tasks.cli import main; main(['--version'])",
        "import torch_tasks.cli",
        "from torch_tasks.cli import main; main(['done', 'a-task', 'it works'])",
    ],
)
def test_what_an_agent_calls_from_its_pane_loads_neither_celery_nor_pydantic(statement: str) -> None:
    program = (
        "import sys, atexit\n"
        "heavy = {'celery', 'kombu', 'pydantic', 'redis', 'rich'}\n"
        "atexit.register(lambda: print(*sorted(heavy & set(sys.modules)), file=sys.stderr))\n" + statement
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    said = done.stderr.splitlines()
    assert said[-1:] == [""], said


CELERY = {"celery", "kombu", "amqp", "billiard", "yaml", "tenacity", "httpx2"}


@pytest.mark.parametrize(
    ("modules", "unneeded"),
    [
        # an agent worker: one starts for each agent
        ("torch_tasks.workers.program", {"libtmux", "httpx2", "prometheus_client"}),
        ("torch_tasks.workers.node.node_worker", {"libtmux", "httpx2"}),
        # what starts a stack, and ends it, while a person waits
        ("torch_tasks.cli.stack", {"celery", "kombu", "httpx2"}),
        ("torch_tasks.cli.supervise", {"celery", "kombu", "httpx2", "rich"}),
        ("torch_tasks.cli.down", {"celery", "kombu", "redis", "cryptography", "libtmux", "sqlite3"}),
        # what asks the broker, while a person waits
        ("torch_tasks.cli.tasks, torch_tasks.operations.tasks", CELERY | {"tornado", "pybreaker"}),
        ("torch_tasks.cli.agents, torch_tasks.cli.nodes", CELERY),
        ("torch_tasks.cli.messages, torch_tasks.cli.checkins, torch_tasks.cli.summary, torch_tasks.cli.fleet", CELERY),
        ("torch_tasks.workers.up_and_down", {"celery", "kombu", "redis", "cryptography", "sqlite3"}),
    ],
)
def test_a_process_loads_no_library_that_only_others_need(modules: str, unneeded: set[str]) -> None:
    program = f"import sys, {modules}; print(*{unneeded!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == []


def test_the_version_alone_imports_nothing_heavy() -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "torch_tasks.cli", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "click" in loaded
    assert not loaded & {"celery", "kombu", "pydantic", "redis", "libtmux", "flower"}


def test_every_worker_knows_the_command_that_is_sent_to_all_of_them() -> None:
    """Celery logs an error with its traceback for a command that it does not know."""
    code = (
        "import torch_tasks.workers.program; from celery.worker.control import Panel; "
        "from torch_tasks.app import ANNOUNCE_QUEUE; Panel.data[ANNOUNCE_QUEUE](None, queue='torch.role.qa')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


FIRST_USES = """
import importlib, threading
from torch_tasks import Torch, operations
failed, begin = [], threading.Barrier(12)

def use(number):
    begin.wait()
    try:
        getattr(operations, operations.__all__[number % len(operations.__all__)])
        importlib.import_module(f"torch_tasks.{('tasks.run', 'facades.messages', 'app')[number % 3]}")
    except BaseException as error:
        failed.append(repr(error))

threads = [threading.Thread(target=use, args=(number,)) for number in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*failed, sep="\\n")
"""


def test_threads_may_all_use_it_for_the_first_time_at_once() -> None:
    """What is loaded late is loaded by whichever comes first; no other sees the half of it."""
    done = subprocess.run([sys.executable, "-c", FIRST_USES], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
