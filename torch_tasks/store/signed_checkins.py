"""Signing check-ins when they are kept, and having those alone fire that are as they were signed."""

from __future__ import annotations

from torch_tasks.caller import CallerKind, caller
from torch_tasks.errors import BadSignature, SignatureRefused
from torch_tasks.model.checkin import Checkin
from torch_tasks.signing.authority import signer_as_asker
from torch_tasks.signing.enforcement import checked, doubt, seal
from torch_tasks.signing.signature import Purpose


def signed_checkin(checkin: Checkin) -> Checkin:
    """The check-in with the signature of who asks for it; a node signs for others."""
    by = None if checkin.sender == caller().name else CallerKind.NODE
    return checkin.model_copy(update={"signature": seal(Purpose.CHECKIN, checkin.signed_text(), None, by=by)})


def require_signed_checkin(checkin: Checkin) -> None:
    """Raise :class:`SignatureRefused` unless it is as it was signed, by one who may speak for who asked for it."""
    found = checked(checkin.signature, Purpose.CHECKIN, checkin.signed_text())
    if found is None or found.signer.kind is CallerKind.NODE:
        return
    asked_by = checkin.asked_by and checkin.asked_by.model_copy(update={"node": None})
    if asked_by not in (None, signer_as_asker(found.signer)):
        error = BadSignature(f"{found.signer.owner} signed it, who may not speak for {asked_by.name}")
        doubt(error, Purpose.CHECKIN)


def why_not_fired(checkin: Checkin) -> str:
    """Why a check-in must not fire; empty if it may."""
    try:
        require_signed_checkin(checkin)
        return ""
    except SignatureRefused as error:
        return f"check-in {checkin.id} is refused: {error}; look at it, remove it and add it again"
