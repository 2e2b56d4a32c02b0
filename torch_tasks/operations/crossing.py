"""Accepting what is for an agent of another fleet: it is kept on this machine, and the node worker brings it there."""

from __future__ import annotations

import json
from typing import Any

from torch_tasks.caller import caller
from torch_tasks.errors import LedgerOff, UnknownFleet
from torch_tasks.fleet import fleet
from torch_tasks.model.address import Crossing, FarAgent
from torch_tasks.model.near import did_you_mean
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject


def accept(operation: str, request_id: str, fields: dict[str, Any], to: FarAgent) -> str:
    """Keep the request until the other fleet has it; returns what its caller should know.

    Raises :class:`UnknownFleet`, or :class:`~torch_tasks.errors.NotAllowed`; then nothing was accepted.
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
    fleet().crossings.keep(crossing)
    return f"it waits on this machine's disk until its node worker has brought it to fleet {to.fleet}"
