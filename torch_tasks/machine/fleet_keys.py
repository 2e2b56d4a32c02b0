"""Keeps a machine's keys in step with its fleet: whose a broker is, what was revoked, which certificates end.

The broker is only the place where machines find what the root has signed: each believes what its own roots vouch for,
and puts it back where the broker has lost it.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from torch_tasks import keys
from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.errors import BadSignature, BrokerAway, KeysUnusable, OtherFleet, SignatureRefused
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.fleet_keys import FleetKeys
from torch_tasks.signing.keyring import FLEET_FILE, Identity, Keyring, keyring
from torch_tasks.signing.signature import Purpose, sign, verify
from torch_tasks.system.files import exclusive, write_private
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

_REQUEST_SECONDS = 600.0
_ASK_SECONDS = 0.2
_HEAR_SECONDS = 10.0
_TRUSTED_SECONDS = 60.0
"""For how long a process goes by it that the broker is its fleet's."""
_checked: dict[str, float] = {}
"""Places of brokers, and when this process saw that they are this fleet's."""


def require_own_fleet(fleet: Fleet) -> None:
    """Raise :class:`OtherFormat` if a release wrote to the broker that this one cannot share it with.

    :class:`OtherFleet` if it belongs to another fleet than this machine's keys, or the machine has none; where nothing
    is signed, that is not looked at. While the broker is away, nothing is raised: whoever asks it next hears that.
    """
    place, now = fleet.settings.broker().place, time.monotonic()
    if now - _checked.get(place, -_TRUSTED_SECONDS) < _TRUSTED_SECONDS:
        return
    with suppress(BrokerAway):
        fleet.format_note.agree()
        if fleet.settings.signing != "off":
            _require_own_keys(fleet, place)
        _checked[place] = now


def _require_own_keys(fleet: Fleet, place: str) -> None:
    there, file = fleet.key_exchange.fleet_keys(), fleet.settings.keys_folder / FLEET_FILE
    if not file.exists():
        if there:
            raise OtherFleet(
                f"the broker at {place} belongs to fleet {_name_in(there)}, and this machine has no keys of it; "
                "join with 'torch-tasks node join TOKEN' (a token: 'torch-tasks node invite' on the machine with "
                "the fleet's root), or set TORCH_KEYS_DIR to a folder that 'torch-tasks keys issue' made"
            )
    elif file.read_text() != there:
        agree(fleet, keyring(fleet.settings))


def agree(fleet: Fleet, ring: Keyring) -> None:
    """Have the later of what is known here and on the broker of the fleet's keys in both places.

    :class:`OtherFleet` if the broker belongs to another fleet.
    """
    exchange, place = fleet.key_exchange, f"the broker at {fleet.settings.broker().place}"
    there = exchange.fleet_keys()
    try:
        if there == ring.fleet_text or (there and ring.accept(there, place)):
            return
    except BadSignature as error:
        log.error("what lay on the broker of this fleet's keys is replaced: %s", error)
    exchange.replace_fleet_keys(there, ring.fleet_text)


def _name_in(text: str) -> str:
    try:
        return FleetKeys.read(text).fleet
    except BadSignature:
        return "of a name that cannot be read"


class CertificateDesk:
    """Has this machine's certificate renewed, or, where the root is, renews those of the other machines."""

    def __init__(self, fleet: Fleet, ring: Keyring) -> None:
        self._exchange = fleet.key_exchange
        self._ring = ring
        self._pending = ring.folder / f"{CallerKind.NODE}-{ring.node}.next"
        """The private key for which a certificate was asked."""

    def renew_own(self) -> None:
        """Ask for a certificate if this machine's ends soon, or take the one that has come."""
        if self._ring.may_issue:
            return
        with suppress(KeysUnusable, SignatureRefused):  # named where the key is used; nobody renews it any more
            own = self._ring.identity(CallerKind.NODE)
            if self._is_mine(own) and (self._pending.exists() or self._ring.needs_renewal(own.certificate)):
                self._go_on(own)

    def rotate_own(self, seconds: float) -> Identity:
        """Have this machine's key replaced by the machine with the root.

        :class:`KeysUnusable` if that does not answer in time, or this folder has no key of a machine.
        """
        own = self._ring.identity(CallerKind.NODE)
        if not self._is_mine(own):
            who = own.certificate
            raise KeysUnusable(
                f"the keys in {self._ring.folder} were issued to {who.owner}; new ones are made by 'torch-tasks keys "
                f"issue --name {who.name} --role {who.role} --out FOLDER' on {self._ring.root_place}"
            )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._go_on(own)
            new = self._ring.identity(CallerKind.NODE)
            if new.certificate.serial != own.certificate.serial:
                return new
            time.sleep(_ASK_SECONDS)
        raise KeysUnusable(
            f"this machine's key is the one that it was: nobody renewed it within {seconds:g} s. Run 'torch-tasks up' "
            f"on {self._ring.root_place}: its node worker answers. Then try again, or leave it to the node worker here"
        )

    def _is_mine(self, own: Identity) -> bool:
        return (own.certificate.kind, own.certificate.name) == (CallerKind.NODE, self._ring.node)

    def _go_on(self, own: Identity) -> None:
        with exclusive(self._ring.folder / "renewal.lock"):
            if self._ring.identity(CallerKind.NODE).certificate.serial != own.certificate.serial:
                return  # another process was quicker
            if not self._pending.exists():
                write_private(self._pending, new_key())
            private = self._pending.read_text()
            public = public_key_of(private)
            if certificate := self._exchange.answer_to(public):
                self._ring.keep(private, certificate)
                self._pending.unlink()
                self._exchange.forget(keys.CERTIFICATE_REQUESTS, public)
                return
            signed = sign(self._ring, own, Purpose.KEYS, public.encode(), _REQUEST_SECONDS, act="renew")
            self._exchange.ask(keys.CERTIFICATE_REQUESTS, public, signed)

    def answer(self) -> None:
        """Renew the certificates of machines that ask with one that counts."""
        if not self._ring.may_issue:
            return
        for public, request in self._exchange.requests(keys.CERTIFICATE_REQUESTS):
            try:
                asker = verify(self._ring, request, Purpose.KEYS, public.encode()).signer
                if asker.kind is not CallerKind.NODE:
                    raise BadSignature(f"the key of {asker.owner} has an end that only 'torch-tasks keys issue' moves")
                self._exchange.answer(public, self._ring.issue(asker.kind, asker.name, public, role=asker.role))
                log.info("renewed the certificate of %s", asker.owner)
            except (SignatureRefused, ValueError) as error:
                log.error("a request for a certificate is refused: %s", error)


def key_loops(of: Fleet) -> list[Loop]:
    """What has a machine on which no node worker runs hear what the root says, and its key renewed in time.

    None where nothing is signed, or where the root is.
    """
    if of.settings.signing == "off" or not (of.settings.keys_folder / FLEET_FILE).exists():
        return []
    ring = keyring(of.settings)
    if ring.may_issue:
        return []
    desk = CertificateDesk(of, ring)

    def play_round() -> None:
        with acting_as(Caller(other=CallerKind.NODE, own_name=ring.node)):
            agree(of, ring)
            desk.renew_own()

    return [Loop("have the key renewed", play_round, pause=_HEAR_SECONDS)]


def rotated_elsewhere(ring: Keyring, seconds: float) -> Identity:
    """This machine's new key, certified by the machine with the root."""
    return CertificateDesk(fleet(), ring).rotate_own(seconds)
