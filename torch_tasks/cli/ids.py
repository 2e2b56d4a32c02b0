"""How a person names a task: by its id, or by how the id begins."""

from __future__ import annotations

import re

import click
import redis

from torch_tasks.broker.connection import broker_errors
from torch_tasks.cli.output import is_terminal
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.fleet import fleet

_MADE_BY_TORCH = re.compile(r"[0-9a-f]{32}")
_SHOWN, _LEAST, _NAMED = 8, 4, 3


def known_task(given: str) -> str:
    """The id, or the one that begins with at least four characters; what nobody knows stays as it is."""
    try:
        with broker_errors():
            found = fleet().records.named(given) if len(given) >= _LEAST else []
    except (BrokerUnreachable, redis.RedisError):  # whoever needs the broker says so
        return given
    if len(found) > 1:
        raise click.BadParameter(f"{len(found)} tasks begin with {given}: {', '.join(found[:_NAMED])}, …")
    return found[0] if found else given


def shown(task_id: str) -> str:
    """As much of an id as a person needs; whoever reads a pipe gets the whole."""
    return task_id[:_SHOWN] if is_terminal() and _MADE_BY_TORCH.fullmatch(task_id) else task_id
