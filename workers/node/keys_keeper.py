"""What a node worker does for the keys of its machine and, where the fleet's root is, of the others."""

from __future__ import annotations

from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.fleet import Fleet
from torch_tasks.machine.fleet_keys import CertificateDesk, agree
from torch_tasks.machine.joining import InvitationDesk
from torch_tasks.signing.keyring import keyring
from torch_tasks.system.loops import Loop

_LOOK_SECONDS = 1.0
"""How soon a revoked key counts nowhere any more, and a machine that asks has an answer."""


class KeysKeeper:
    """Hears what was revoked, has this machine's key renewed, and answers the machines that ask the root."""

    def __init__(self, fleet: Fleet) -> None:
        self.loop = Loop("keep keys", self._play_round, pause=_LOOK_SECONDS)
        self._fleet = fleet
        self._ring = keyring(fleet.settings)
        self._certificates = CertificateDesk(fleet, self._ring)
        self._invitations = InvitationDesk(fleet, self._ring)

    def _play_round(self) -> None:
        with acting_as(Caller(other=CallerKind.NODE, own_name=self._ring.node)):
            self._keep_keys()

    def _keep_keys(self) -> None:
        agree(self._fleet, self._ring)
        if self._ring.may_issue:
            self._ring.identity(CallerKind.NODE)  # which replaces one that was revoked or ends soon
        self._certificates.renew_own()
        self._certificates.answer()
        self._invitations.answer()
