"""Texts that only who has a shared secret can read or write."""

from __future__ import annotations

import os

from torch_tasks.errors import BadSignature
from torch_tasks.signing.ed25519 import decode, encode

_NONCE = 12


def seal_with(secret: str, text: str, about: str) -> str:
    """The text, encrypted and authenticated; it opens only for what it is ``about``."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    nonce = os.urandom(_NONCE)
    return encode(nonce + ChaCha20Poly1305(_key(secret)).encrypt(nonce, text.encode(), about.encode()))


def open_with(secret: str, sealed: str, about: str) -> str:
    """The text; :class:`BadSignature` unless it was sealed with this secret, and for this."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        data = decode(sealed)
        return ChaCha20Poly1305(_key(secret)).decrypt(data[:_NONCE], data[_NONCE:], about.encode()).decode()
    except (InvalidTag, ValueError):
        raise BadSignature("it was not sealed with the secret of this token, or was changed") from None


def _key(secret: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt=None, info=b"torch join 1").derive(decode(secret))
