"""Signing messages, and believing those alone that somebody signed who may speak for their sender."""

from __future__ import annotations

from torch_tasks.caller import BEARER, OPERATOR, CallerKind, caller
from torch_tasks.errors import BadSignature, SignatureRefused
from torch_tasks.model.message import Message
from torch_tasks.signing.enforcement import checked, doubt, seal
from torch_tasks.signing.key_certificate import KeyCertificate
from torch_tasks.signing.signature import Purpose

LASTS_SECONDS = 30 * 86_400
"""How long a message may wait for its receiver; a copy that is put into an inbox later is refused."""


def signed(message: Message) -> Message:
    """The message with the signature of who sends it; a node signs for others."""
    by = None if message.sender == caller().name else CallerKind.NODE
    return message.model_copy(update={"signature": seal(Purpose.INBOX, message.signed_text(), LASTS_SECONDS, by=by)})


def require_believed(message: Message, message_id: str, receiver: str) -> None:
    """Raise :class:`SignatureRefused` unless it is as it was signed, for this receiver, by one who may speak so."""
    found = checked(message.signature, Purpose.INBOX, message.signed_text())
    if found is None:
        return
    try:
        if (message.id, message.target) != (message_id, receiver):
            raise BadSignature(
                f"it is a copy: it was signed as message {message.id} to {message.target}, and lay as {message_id} in "
                f"the inbox of {receiver}"
            )
        if not _may_speak_for(found.signer, message.sender):
            raise BadSignature(f"{found.signer.owner} signed it, who may not speak for {message.sender}")
    except SignatureRefused as error:
        doubt(error, Purpose.INBOX)


def _may_speak_for(signer: KeyCertificate, sender: str) -> bool:
    """A node speaks for its agents and all who ask there, a person and a program for itself."""
    match signer.kind:
        case CallerKind.NODE:
            return True
        case CallerKind.PERSON:
            return sender in (signer.name, f"{BEARER}{signer.name}")
    return sender in (signer.name, f"{BEARER}{signer.name}") and sender != OPERATOR
