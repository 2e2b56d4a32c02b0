"""Brings to another fleet what this machine has accepted for its agents."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from torch_tasks.caller import OPERATOR, Caller, CallerKind, acting_as
from torch_tasks.communication.messenger import Messenger
from torch_tasks.errors import (
    BrokerAway,
    InboxFull,
    InternalFault,
    InvalidSettings,
    LedgerUnusable,
    NotAuthenticated,
    SenderLimit,
    StillBeingDone,
    TorchError,
)
from torch_tasks.fleet import Fleet
from torch_tasks.model.address import Crossing
from torch_tasks.model.message import id_for
from torch_tasks.system.loops import Loop

if TYPE_CHECKING:
    from torch_tasks.link.server import ServerLink

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
AWAY = (BrokerAway, InternalFault, InvalidSettings, LedgerUnusable, NotAuthenticated, StillBeingDone)
"""The other fleet cannot take anything now, or this machine has no token that counts: all waits, in its order."""
FULL = (InboxFull, SenderLimit)
"""Its agent cannot take anything now: what else is for that one waits, too."""


class Courier:
    """Asks another fleet for what waits here, one after the other, with the id that each has: it is done there once."""

    def __init__(self, name: str, fleet: Fleet) -> None:
        self.loop = Loop(f"bring to {name}", self._play_round, pause=_LOOK_SECONDS)
        self._name = name
        self._fleet = fleet

    def _play_round(self) -> None:
        with acting_as(Caller(other=CallerKind.NODE, own_name=self._fleet.settings.node)):
            self.bring_all()

    def bring_all(self) -> None:
        """Bring what can be brought; raises why the other fleet takes nothing now."""
        link: ServerLink | None = None
        full: set[str] = set()
        for file, crossing in self._fleet.crossings.waiting(self._name):
            if crossing.target in full:
                continue
            link = link or _link_to(self._name)
            try:
                link.call(crossing.operation, json.loads(crossing.fields), crossing.id)
            except AWAY:
                raise
            except FULL as error:
                log.info("%s of fleet %s takes nothing now: %s", crossing.target, self._name, error)
                full.add(crossing.target)
            except TorchError as error:
                self._tell(crossing, error)
                self._fleet.crossings.refuse(file)
            else:
                log.info("fleet %s has %s %s for %s", self._name, crossing.operation, crossing.id, crossing.target)
                self._fleet.crossings.arrived(file)

    def _tell(self, crossing: Crossing, error: TorchError) -> None:
        """Say to whoever asked that the other fleet refuses; it is put aside only when that is said."""
        text = f"fleet {self._name} refuses {crossing.operation} {crossing.id} for {crossing.target}: {error}"
        log.error("%s", text)
        Messenger(OPERATOR).send(crossing.by, text, id=id_for(crossing.id, self._name))


def _link_to(name: str) -> ServerLink:
    from torch_tasks.link.elsewhere import link_to  # brings a client of HTTP, which only who has other fleets needs

    return link_to(name)
