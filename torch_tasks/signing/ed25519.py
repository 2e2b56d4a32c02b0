"""Ed25519 with keys and signatures as text; ``cryptography`` is loaded by the first that signs or verifies."""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes; :class:`ValueError` if the text is not what :func:`encode` makes, to the last bit."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if encode(data) != text:
        raise ValueError("it has bits that mean nothing")
    return data


def new_key() -> str:
    """A new private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return encode(Ed25519PrivateKey.generate().private_bytes_raw())


def public_key_of(private: str) -> str:
    return encode(_private(private).public_key().public_bytes_raw())


def fingerprint(public: str) -> str:
    """The name of a public key, short enough to be read out."""
    return hashlib.sha256(decode(public)).hexdigest()[:16]


def signature_of(private: str, data: bytes) -> str:
    return encode(_private(private).sign(data))


@lru_cache(maxsize=1024)
def is_signature(signature: str, public: str, data: bytes) -> bool:
    """Whether the owner of this key signed exactly this. Lists of tasks ask it of the same ends again and again."""
    from cryptography.exceptions import InvalidSignature

    try:
        _public(public).verify(decode(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=8)
def _private(text: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(decode(text))


@lru_cache(maxsize=256)
def _public(text: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(decode(text))
