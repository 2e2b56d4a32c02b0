"""For whom a signer may speak: whatever a message says of who asked, it counts only so far."""

from __future__ import annotations

from torch_tasks.caller import CallerKind
from torch_tasks.model.asker import Asker
from torch_tasks.signing.key_certificate import KeyCertificate


def signer_as_asker(certificate: KeyCertificate) -> Asker:
    return Asker(kind=certificate.kind, name=certificate.name, role=certificate.role)


def believed(asker: Asker | None, signer: Asker) -> Asker | None:
    """Who asked: a node knows that of anybody in its fleet, everybody else speaks for itself, with its own role."""
    if signer.kind is CallerKind.NODE:
        return asker
    return signer.model_copy(update={"node": asker.node if asker else None})
