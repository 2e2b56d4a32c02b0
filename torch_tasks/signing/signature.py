"""Signing and verifying: what was signed, by whom, for what, and until when."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from torch_tasks.errors import BadSignature, KeyRevoked, NotSigned, SignatureExpired
from torch_tasks.signing.ed25519 import decode, encode, is_signature, signature_of
from torch_tasks.signing.key_certificate import KeyCertificate
from torch_tasks.signing.keyring import Identity, Keyring

CLOCK_SKEW_SECONDS = 300
"""How far two machines' clocks may differ."""
LONGEST = 4096
"""The longest signature that is read, certificate and claims included."""
_VERSION = 1


class Purpose(StrEnum):
    """What a signature is for: one for one thing is none for another."""

    MESSAGE = "message"
    """A Celery message in a queue, or a command to the workers."""
    INBOX = "inbox"
    """A message to an agent or a person."""
    END = "end"
    """How a task ended, and the evidence."""
    SPEC = "spec"
    """What a task asks for, as Torch itself changed it."""
    RESULT = "result"
    """What Celery keeps of a task's result, of a group, or of a chord."""
    HOLD = "hold"
    CHECKIN = "checkin"
    ANSWER = "answer"
    AUDIT = "audit"
    """The head of an audit log."""
    KEYS = "keys"
    """What a root says about keys: which are revoked, which root follows it."""
    MOVE = "move"
    """Where the broker is by now."""
    BACKUP = "backup"
    """What is in a backup."""


@dataclass(frozen=True)
class Signed:
    """What a signature that holds says."""

    signer: KeyCertificate
    at: datetime
    claims: dict[str, Any]


def sign(keys: Keyring, by: Identity, purpose: Purpose, text: bytes, lasts_seconds: float | None, **claims: Any) -> str:
    """Sign this text and these claims; the result carries the signer's certificate and the claims, but not the text."""
    now = time.time()
    head = {
        "v": _VERSION,
        "for": purpose,
        "fleet": keys.fleet,
        "at": now,
        "until": None if lasts_seconds is None else now + lasts_seconds,
        "sha256": _digest(text),
        "claims": claims,
    }
    head_text = encode(json.dumps(head, separators=(",", ":")).encode())
    token = f"{by.certificate_text}.{head_text}"
    return f"{token}.{signature_of(by.private, token.encode())}"


def verify(
    keys: Keyring, signature: str | None, purpose: Purpose, text: bytes, *, even_expired: bool = False
) -> Signed:
    """Who signed this text, when, and with which claims; with ``even_expired``, however long ago.

    Raises :class:`NotSigned`, :class:`BadSignature`, :class:`SignatureExpired` or :class:`KeyRevoked`.
    """
    if not signature:
        raise NotSigned("it is not signed")
    parts = signature.split(".")
    if len(signature) > LONGEST or len(parts) != 4:
        raise BadSignature("its signature has not the form of one")
    signer = keys.certificate(".".join(parts[:2]))
    if not is_signature(parts[3], signer.key, ".".join(parts[:3]).encode()):
        raise BadSignature(f"its signature is not one by {signer.owner}")
    try:
        head = json.loads(decode(parts[2]))
        version, fleet, for_what = head["v"], head["fleet"], head["for"]
        at, until, digest, claims = float(head["at"]), head["until"], head["sha256"], dict(head["claims"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadSignature(f"the signature of {signer.owner} cannot be read: {error!r}") from None
    if (version, fleet, for_what) != (_VERSION, keys.fleet, purpose):
        raise BadSignature(
            f"the signature of {signer.owner} is one for '{for_what}' of fleet {fleet} (version {version}), "
            f"not for '{purpose}' of fleet {keys.fleet}"
        )
    if digest != _digest(text):
        raise BadSignature(f"it is not what {signer.owner} signed: it was changed afterwards")
    _check_times(signer, at, None if even_expired else until)
    if keys.is_revoked(signer):
        raise KeyRevoked(f"the key of {signer.owner} (serial {signer.serial}) was revoked")
    return Signed(signer, datetime.fromtimestamp(at, UTC), claims)


def signed_at(signature: str) -> float | None:
    """When somebody says to have signed; this verifies nothing."""
    try:
        return float(json.loads(decode(signature.split(".")[2]))["at"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def _check_times(signer: KeyCertificate, at: float, until: float | None) -> None:
    now = time.time()
    if at > now + CLOCK_SKEW_SECONDS:
        raise BadSignature(f"{signer.owner} signed it {at - now:.0f} s in the future; compare the machines' clocks")
    if not signer.valid_from - CLOCK_SKEW_SECONDS <= at <= signer.valid_until:
        raise SignatureExpired(
            f"the certificate of {signer.owner} was not valid when it signed: until {signer.ends_at}"
        )
    if until is not None and until < now:
        raise SignatureExpired(f"what {signer.owner} signed expired {now - until:.0f} s ago")


def _digest(text: bytes) -> str:
    return encode(hashlib.sha256(text).digest())
