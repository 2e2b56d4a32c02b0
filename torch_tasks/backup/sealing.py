"""Seals a part of a backup: what is a secret lies in no archive in plain."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Protocol

from torch_tasks.backup.age import BEGINNING as FOR_RECIPIENTS
from torch_tasks.errors import BackupDamaged, InvalidRequest, SealNotOpened
from torch_tasks.redaction import protect
from torch_tasks.signing.ed25519 import decode, encode

SHORTEST = 12
"""Characters of a passphrase."""
_BEGINNING = b"torch sealed 1\n"
_NONCE = 12
_COST = {"n": 1 << 16, "r": 8, "p": 1}
"""Of scrypt: 64 MiB and a fifth of a second for each guess."""
_MOST = 1 << 20


class Seal(Protocol):
    """What seals the keys in a backup."""

    def seal(self, data: bytes, about: str) -> bytes: ...


class Opener(Protocol):
    """What opens the keys in a backup."""

    def open(self, sealed: bytes, about: str) -> bytes: ...


class Passphrase:
    """A passphrase, which no text of it shows."""

    def __init__(self, text: str) -> None:
        if len(text) < SHORTEST:
            raise InvalidRequest(f"a passphrase has at least {SHORTEST} characters; this one has {len(text)}")
        protect(text, what="the passphrase of the backup")
        self._text = text

    @classmethod
    def in_file(cls, file: Path) -> Passphrase:
        """The first line of a file; of what is open already, as ``/dev/fd/3``."""
        try:
            return cls(file.read_text().partition("\n")[0])
        except OSError as error:
            raise InvalidRequest(f"cannot read the passphrase in {file}: {error.strerror}") from None

    def __repr__(self) -> str:
        return "Passphrase(***)"

    def seal(self, data: bytes, about: str) -> bytes:
        """The data, encrypted and authenticated; they open only for what they are ``about``."""
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        salt, nonce = os.urandom(16), os.urandom(_NONCE)
        head = json.dumps({"kdf": "scrypt", "salt": encode(salt), **_COST}).encode()
        sealed = ChaCha20Poly1305(self._key(salt, _COST)).encrypt(nonce, data, about.encode() + head)
        return _BEGINNING + head + b"\n" + nonce + sealed

    def open(self, sealed: bytes, about: str) -> bytes:
        """The data; :class:`SealNotOpened` unless they were sealed with this one, and for this."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        if sealed.startswith(FOR_RECIPIENTS):
            raise SealNotOpened("the keys in the backup are sealed for recipients of age: give --identity-file FILE")
        head, _, rest = sealed.removeprefix(_BEGINNING).partition(b"\n")
        try:
            said = json.loads(head)
            cost = {name: int(said[name]) for name in _COST}
            if not sealed.startswith(_BEGINNING) or said["kdf"] != "scrypt" or cost["n"] * cost["r"] > 8 * _MOST:
                raise ValueError("it is sealed in a way that this version does not know")
            key = self._key(decode(said["salt"]), cost)
        except (ValueError, KeyError, TypeError) as error:
            raise BackupDamaged(f"the sealed part of the backup cannot be read: {error!r}") from None
        try:
            return ChaCha20Poly1305(key).decrypt(rest[:_NONCE], rest[_NONCE:], about.encode() + head)
        except InvalidTag:
            raise SealNotOpened("this passphrase does not open the keys in the backup") from None

    def _key(self, salt: bytes, cost: dict[str, int]) -> bytes:
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        return Scrypt(salt=salt, length=32, **cost).derive(self._text.encode())
