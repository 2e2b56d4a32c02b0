"""Seals a part of a backup for people who have an age or SSH key: the machine that makes it cannot open it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch_tasks.errors import BackupDamaged, InvalidRequest, SealNotOpened
from torch_tasks.redaction import protect

BEGINNING = b"age-encryption.org/v1\n"
_SSH = "ssh-"
_PRIVATE = "AGE-SECRET-KEY-"


class Recipients:
    """Those who can open what is sealed: public keys of age (``age1…``), or of SSH (``ssh-ed25519 …``)."""

    def __init__(self, keys: Iterable[str]) -> None:
        age = _library()
        self._keys = [_recipient(age, key.strip()) for key in keys]

    def seal(self, data: bytes, about: str) -> bytes:
        """The data, encrypted and authenticated; they open only for what they are ``about``."""
        sealed: bytes = _library().encrypt(about.encode() + b"\n" + data, self._keys)
        return sealed


class Identities:
    """The private keys of one person, which no text of them shows."""

    def __init__(self, text: str) -> None:
        protect(text, *text.split(), what="the key of the backup")
        self._keys = list(_identities(_library(), text))

    @classmethod
    def in_file(cls, file: Path) -> Identities:
        """Those of a file of ``age-keygen``, or of ``ssh-keygen``; of what is open already, as ``/dev/fd/3``."""
        try:
            return cls(file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"cannot read the keys in {file}: {error}") from None

    def __repr__(self) -> str:
        return "Identities(***)"

    def open(self, sealed: bytes, about: str) -> bytes:
        """The data; :class:`SealNotOpened` unless they were sealed for one of these, and for this."""
        age = _library()
        if not sealed.startswith(BEGINNING):
            raise SealNotOpened("the keys in the backup are sealed with a passphrase: give --passphrase-file FILE")
        try:
            opened = age.decrypt(sealed, self._keys)
        except age.DecryptError as error:
            raise SealNotOpened(f"this identity does not open the keys in the backup: {error}") from None
        of, _, data = opened.partition(b"\n")
        if of != about.encode():
            raise BackupDamaged("the sealed part of the backup is another backup's")
        return bytes(data)


def _recipient(age: Any, key: str) -> Any:
    if key.upper().startswith(_PRIVATE):
        protect(key, what="the key of the backup")
        raise InvalidRequest("this recipient is a private key of age: give the public one, age1…")
    made = age.ssh if key.startswith(_SSH) else age.x25519
    try:
        return made.Recipient.from_str(key)
    except age.RecipientError as error:
        raise InvalidRequest(
            f"{key[:80]!r} is no recipient of age ({error}): give a public key, as age1… or 'ssh-ed25519 …'"
        ) from None


def _identities(age: Any, text: str) -> Iterable[Any]:
    try:
        if text.startswith("-----BEGIN"):
            yield age.ssh.Identity.from_buffer(text.encode())
            return
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            raise InvalidRequest("the file of the identity has no key in it")
        for line in lines:
            yield age.x25519.Identity.from_str(line)
    except age.IdentityError as error:
        raise InvalidRequest(
            f"the identity cannot be read ({error}): give a file of age-keygen or ssh-keygen"
        ) from None


def _library() -> Any:
    try:
        import pyrage  # of the extra "age"
    except ImportError:
        raise InvalidRequest(
            "sealing for a recipient needs the package pyrage: pip install 'torch-tasks[age]'"
        ) from None
    return pyrage
