"""Nothing but the broker's absence counts as its absence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import kombu.exceptions
import pytest
import redis

from torch_tasks.broker.connection import is_away
from torch_tasks.errors import BrokerAway, BrokerForgot, BrokerUnreachable, TaskNotFound

ROOT = Path(__file__).parents[3]
OWN_CLIENTS = {
    "workers/certify/fake_model/server.py",
    "workers/host/desk.py",
    "torch_tasks/broker/connection.py",
    "torch_tasks/broker/results.py",
    "torch_tasks/store/checkins.py",
}
"""Who handles redis-py's errors: where they are translated, Celery's own client, answers within one pipeline; and
servers of our own that have clients."""
TOO_WIDE = re.compile(r"\b(RedisError|ConnectionError|TimeoutError)\b")


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (BrokerUnreachable("no answer"), True),
        (BrokerForgot("restarted"), True),
        (redis.ConnectionError("refused"), True),
        (redis.TimeoutError("no answer"), True),
        (redis.BusyLoadingError("loading"), True),
        (redis.ReadOnlyError("READONLY"), True),
        (redis.OutOfMemoryError("OOM command not allowed"), True),
        (kombu.exceptions.OperationalError("refused"), True),
        (redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), False),
        (redis.ResponseError("ERR user_script:1: attempt to index a nil value"), False),
        (redis.exceptions.NoScriptError("NOSCRIPT"), False),
        (redis.WatchError("changed"), False),
        (TaskNotFound("t1"), False),
        (ValueError("a bug"), False),
    ],
)
def test_what_counts_as_a_broker_that_is_away(error: Exception, *, away: bool) -> None:
    assert is_away(error) is away


def test_all_that_says_so_is_one_kind_of_error_with_one_exit_code() -> None:
    assert issubclass(BrokerUnreachable, BrokerAway)
    assert issubclass(BrokerForgot, BrokerAway)
    assert {each.exit_code for each in (BrokerAway, BrokerUnreachable, BrokerForgot)} == {4}


def _caught(tree: ast.AST) -> Iterator[str]:
    """What ``except`` clauses and ``suppress`` name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type:
            yield ast.unparse(node.type)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            yield from map(ast.unparse, node.args)


def _sources() -> list[Path]:
    files = [file for folder in ("torch_tasks", "workers", "beat") for file in (ROOT / folder).rglob("*.py")]
    return [file for file in files if str(file.relative_to(ROOT)) not in OWN_CLIENTS]


@pytest.mark.parametrize("file", _sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_loop_takes_an_error_of_a_script_for_an_absent_broker(file: Path) -> None:
    assert [name for name in _caught(ast.parse(file.read_text())) if TOO_WIDE.search(name)] == []
