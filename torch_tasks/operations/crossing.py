"""Accepting what is for an agent of another fleet: it is kept on this machine, and brought there from it."""

from __future__ import annotations

import json
from typing import Any

from torch_tasks.caller import caller
from torch_tasks.errors import LedgerOff, TaskIdTaken, UnknownFleet
from torch_tasks.fleet import fleet
from torch_tasks.model.address import FarAgent
from torch_tasks.model.crossing import Crossing
from torch_tasks.model.near import did_you_mean
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject

TASK = "task.enqueue"
"""The operation that makes a task."""


def accept(operation: str, request_id: str, fields: dict[str, Any], to: FarAgent) -> str:
    """Keep the request until the other fleet has it; returns what its caller should know.

    Raises :class:`UnknownFleet`, :class:`~torch_tasks.errors.NotAllowed`, :class:`TaskIdTaken`, or
    :class:`~torch_tasks.errors.StateFolderUnusable`; then nothing was accepted.
    """
    known = fleet().settings.fleets
    if to.fleet not in known:
        hint = did_you_mean(to.fleet, known, f"those that are: {', '.join(sorted(known)) or 'none'}")
        raise UnknownFleet(f"no fleet {to.fleet!r} stands in the settings (fleets); {hint}")
    if not fleet().settings.ledger:
        raise LedgerOff("with TORCH_LEDGER=false nothing waits on this disk for another fleet; unset it")
    require(operation, Right.CROSS, Subject())
    crossing = Crossing(
        id=request_id,
        fleet=to.fleet,
        operation=operation,
        fields=json.dumps({**fields, "id": request_id}),
        by=caller().name,
        target=to.agent_id,
    )
    waiting = fleet().crossings.keep(crossing)
    if operation == TASK and not waiting.asks_the_same_as(crossing):
        raise TaskIdTaken(
            f"task {request_id} was accepted before with another spec and waits here for fleet {to.fleet}; give this "
            "one another id, or none"
        )
    return f"it waits on this machine's disk until a node worker or server here has brought it to fleet {to.fleet}"
