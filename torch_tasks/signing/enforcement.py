"""What this process does about signatures: it signs and refuses, only says what it would refuse, or does neither."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature, SignatureRefused
from torch_tasks.settings import settings
from torch_tasks.signing.keyring import Identity, Keyring, keyring
from torch_tasks.signing.signature import Purpose, Signed, sign, verify

log = logging.getLogger(__name__)

DOUBTS: Counter[str] = Counter()
"""How often this process took what it would have refused under ``enforce``, by the name of the error."""


_signers: ContextVar[dict[CallerKind | None, Identity] | None] = ContextVar("_signers", default=None)


@contextmanager
def signing_together() -> Iterator[None]:
    """What is sealed inside is sealed in one breath: with which key is looked up once, and not for each."""
    token = _signers.set({})
    try:
        yield
    finally:
        _signers.reset(token)


def _signer(keys: Keyring, by: CallerKind | None) -> Identity:
    known = _signers.get()
    if known is None:
        return keys.identity(by)
    if by not in known:
        known[by] = keys.identity(by)
    return known[by]


def seal(
    purpose: Purpose, text: str, lasts_seconds: float | None, *, by: CallerKind | None = None, **claims: Any
) -> str | None:
    """This process's signature of the text and the claims; None if nothing is signed (``TORCH_SIGNING=off``).

    It signs ``by`` the key of its node or person; unless that is said, by the one of who asks.
    """
    if settings().signing == "off":
        return None
    keys = keyring()
    return sign(keys, _signer(keys, by), purpose, _bytes(text), lasts_seconds, **claims)


def checked(
    signature: str | None, purpose: Purpose, text: str, *, even_expired: bool = False, **claims: Any
) -> Signed | None:
    """What the signature of this text says; :class:`SignatureRefused` if it does not hold, or makes other claims.

    None, without a look, where nothing is signed, and under ``warn`` for what would be refused.
    """
    if settings().signing == "off":
        return None
    try:
        signed = verify(keyring(), signature, purpose, _bytes(text), even_expired=even_expired)
        _compare(signed, claims)
        return signed
    except SignatureRefused as error:
        doubt(error, purpose)
        return None


def doubt(error: SignatureRefused, purpose: Purpose) -> None:
    """Raise the error, or under ``warn`` only log and count it."""
    if settings().signing == "enforce":
        raise error
    DOUBTS[type(error).__name__] += 1
    log.warning("a signature for '%s' would be refused (TORCH_SIGNING=warn): %s", purpose, error)


def _compare(signed: Signed, claims: Mapping[str, Any]) -> None:
    for name, value in claims.items():
        if signed.claims.get(name) != value:
            raise BadSignature(
                f"{signed.signer.owner} signed it for the {name} {signed.claims.get(name)!r}, and it came as {value!r}"
            )


def _bytes(text: str) -> bytes:
    """Text from the broker may hold what is no Unicode."""
    return text.encode(errors="surrogatepass")
