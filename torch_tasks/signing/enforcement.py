"""What this process does about signatures: it signs and refuses, only says what it would refuse, or does neither."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from torch_tasks.errors import SignatureRefused
from torch_tasks.settings import settings
from torch_tasks.signing.keyring import keyring
from torch_tasks.signing.signature import Purpose, Signed, sign, verify

log = logging.getLogger(__name__)

DOUBTS: Counter[str] = Counter()
"""How often this process took what it would have refused under ``enforce``, by the name of the error."""


def seal(purpose: Purpose, text: str, lasts_seconds: float | None, **claims: Any) -> str | None:
    """This process's signature of the text and the claims; None if nothing is signed (``TORCH_SIGNING=off``)."""
    if settings().signing == "off":
        return None
    keys = keyring()
    return sign(keys, keys.identity(), purpose, text.encode(), lasts_seconds, **claims)


def checked(signature: str | None, purpose: Purpose, text: str) -> Signed | None:
    """What the signature of this text says; :class:`SignatureRefused` if it does not hold.

    None, without a look, where nothing is signed, and under ``warn`` for what would be refused.
    """
    if settings().signing == "off":
        return None
    try:
        return verify(keyring(), signature, purpose, text.encode())
    except SignatureRefused as error:
        doubt(error, purpose)
        return None


def doubt(error: SignatureRefused, purpose: Purpose) -> None:
    """Raise the error, or under ``warn`` only log and count it."""
    if settings().signing == "enforce":
        raise error
    DOUBTS[type(error).__name__] += 1
    log.warning("a signature for '%s' would be refused (TORCH_SIGNING=warn): %s", purpose, error)
