"""Brings to another fleet what this machine has accepted for its agents."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from torch_tasks.caller import OPERATOR, Caller, CallerKind, acting_as
from torch_tasks.communication.messenger import Messenger
from torch_tasks.errors import (
    AgentNotFound,
    BrokerAway,
    FrameRefused,
    InboxFull,
    InvalidMessage,
    InvalidSettings,
    LedgerOff,
    MessageNotFound,
    MessageRefused,
    NotAllowed,
    NotAuthenticated,
    NotDelivered,
    RequestNotTaken,
    ServerUnreachable,
    TaskNotFound,
    TorchError,
    UnknownRecipient,
    WrongUsage,
)
from torch_tasks.fleet import Fleet
from torch_tasks.model.crossing import Crossing
from torch_tasks.model.message import id_for
from torch_tasks.operations.operation import operation_named, request_of
from torch_tasks.system.loops import Loop
from torch_tasks.visible_text import one_line

if TYPE_CHECKING:
    from torch_tasks.link.server import ServerLink

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_LONGEST_WORDS = 500
"""Of what another fleet says, so much is told here."""
AWAY = (BrokerAway, InvalidSettings, NotAuthenticated)
"""The other fleet takes nothing now, or this machine has no token that counts: all waits."""
REFUSALS = (WrongUsage, NotAllowed, MessageRefused, AgentNotFound, MessageNotFound, TaskNotFound, NotDelivered)
"""The other fleet says no to this request; it would to the same one again."""
NO_REFUSALS = (InvalidSettings, LedgerOff, RequestNotTaken, FrameRefused)
"""These are about how the other fleet is set up, or is reached, though their kind says otherwise."""
_CANNOT_BE_TOLD = (UnknownRecipient, InvalidMessage, MessageRefused, InboxFull)


class Courier:
    """Asks another fleet for what waits here, in order, with the id that each has: it is done there once.

    Whatever neither says that it is done nor refuses it is asked for again; what else is for the same agent waits, too.
    """

    def __init__(self, name: str, fleet: Fleet) -> None:
        self.loop = Loop(f"bring to {name}", self.play_round, pause=_LOOK_SECONDS)
        self._name = name
        self._fleet = fleet
        self._unknown_since: dict[str, float] = {}
        """Since when the other fleet has not known the receiver of a crossing."""

    def play_round(self) -> None:
        if not self._fleet.crossings.are_waiting(self._name):
            return
        with acting_as(Caller(other=CallerKind.NODE, own_name=self._fleet.settings.node)):
            trouble: TorchError | None = None
            with self._fleet.crossings.one_at_a_time(self._name):
                try:
                    trouble = self._bring_all()
                except AWAY as error:
                    trouble = error
                self._fleet.crossings.note_trouble(self._name, str(trouble or ""))
        if trouble:
            raise trouble

    def _bring_all(self) -> TorchError | None:
        """Bring what can be brought; returns why something waits, or raises why everything does."""
        link: ServerLink | None = None
        trouble: TorchError | None = None
        held: set[str] = set()
        for file, crossing in self._fleet.crossings.waiting(self._name):
            if self.loop.is_stopping:
                break
            if crossing.target in held:
                continue
            link = link or _link_to(self._name)
            try:
                self._bring(link, crossing)
            except AWAY:
                raise
            except TorchError as error:
                if self._is_refusal(crossing, error):
                    self._refuse(file, crossing, error)
                    continue
                trouble = error
                held.add(crossing.target)
            else:
                log.info("fleet %s has %s %s for %s", self._name, crossing.operation, crossing.id, crossing.target)
                self._fleet.crossings.arrived(file)
        return trouble

    def _bring(self, link: ServerLink, crossing: Crossing) -> None:
        """Have it done there; raises unless the reply says of this very request that it is accepted."""
        fields = crossing.fields_at(time.time())
        if fields is None:
            raise NotDelivered(f"its time was over before fleet {self._name} has said that it has it")
        operation = operation_named(crossing.operation)
        reply = link.perform(operation, request_of(operation, fields), crossing.id)
        if getattr(reply, "id", None) != crossing.id:
            raise ServerUnreachable(f"the server at {link.url} answers {crossing.operation} for another request")

    def _is_refusal(self, crossing: Crossing, error: TorchError) -> bool:
        """Whether it is refused for good: an agent may not have reported yet since the broker there was restarted."""
        if not isinstance(error, REFUSALS) or isinstance(error, NO_REFUSALS):
            return False
        if not isinstance(error, UnknownRecipient):
            return True
        since = self._unknown_since.setdefault(crossing.id, time.monotonic())
        return time.monotonic() - since >= self._fleet.settings.takeover_seconds

    def _refuse(self, file: Path, crossing: Crossing, error: TorchError) -> None:
        """Put it aside with the reason, once whoever asked is told, or an operator, or nobody can be."""
        why = one_line(str(error), _LONGEST_WORDS)
        text = f"fleet {self._name} refuses {crossing.operation} {crossing.id} for {crossing.target}: {why}"
        log.error("%s", text)
        self._tell(dict.fromkeys((crossing.by, OPERATOR)), text, crossing)
        self._fleet.crossings.refuse(file, crossing, why)
        self._unknown_since.pop(crossing.id, None)

    def _tell(self, whom: Iterable[str], text: str, crossing: Crossing) -> None:
        for one in whom:
            with suppress(*_CANNOT_BE_TOLD):
                Messenger(OPERATOR).send(one, text, id=id_for(f"{crossing.operation} {crossing.id}", self._name + one))
                return


def couriers(fleet: Fleet) -> list[Loop]:
    """One for each other fleet that the settings name, and none without the ledger, where nothing is kept for them."""
    return [Courier(name, fleet).loop for name in fleet.settings.fleets] if fleet.settings.ledger else []


def _link_to(name: str) -> ServerLink:
    from torch_tasks.link.elsewhere import link_to  # brings a client of HTTP, which only who has other fleets needs

    return link_to(name)
