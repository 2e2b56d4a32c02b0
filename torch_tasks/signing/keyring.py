"""The folder of keys: the roots that this machine trusts, its own identities, and the keys that were revoked.

The first process that needs keys and finds none founds a fleet: every process that reads the state folder has its keys.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch_tasks.caller import OPERATOR, CallerKind, caller, own_desk
from torch_tasks.errors import BadSignature, KeysUnusable
from torch_tasks.redaction import protect
from torch_tasks.settings import settings
from torch_tasks.signing.ed25519 import fingerprint, new_key, public_key_of
from torch_tasks.signing.key_certificate import KeyCertificate
from torch_tasks.system.files import exclusive, make_folder, write_private

LIFETIME_SECONDS = 30 * 86_400
"""How long a certificate is valid if no other end was given."""
RENEWED_AT = 1 / 3
"""A certificate is renewed when only this part of its time is left."""
_LOOK_SECONDS = 1.0
"""How old the list of revoked keys may be that a process goes by."""


@dataclass(frozen=True)
class Identity:
    """A private key with its certificate."""

    certificate: KeyCertificate
    certificate_text: str
    private: str

    def __post_init__(self) -> None:
        protect(self.private)

    def __repr__(self) -> str:
        return f"Identity({self.certificate.owner}, serial {self.certificate.serial})"


class Keyring:
    """The keys in one folder, as one machine uses them."""

    def __init__(self, folder: Path, node: str) -> None:
        self.folder = folder
        self.node = node
        self._fleet_file = folder / "fleet.json"
        self._root_file = folder / "root.key"
        self._revoked_file = folder / "revoked.json"
        self._identities: dict[Path, tuple[int, Identity]] = {}
        """Those that were read, each with the time when its file was written."""
        self._revoked: frozenset[str] = frozenset()
        self._looked_at = -_LOOK_SECONDS
        if not self._fleet_file.exists():
            self._found()
        self.fleet, self.roots = self._read_fleet()
        """The fleet's name, and the public keys of the roots that are trusted, by their fingerprints."""
        self._certificate = lru_cache(maxsize=512)(lambda text: KeyCertificate.read(text, self.roots))

    # ── the fleet ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def may_issue(self) -> bool:
        """Whether this folder has the private key of the fleet's root."""
        return self._root_file.exists()

    def _found(self) -> None:
        if own_desk():
            raise KeysUnusable("an agent's pane has no keys: what is asked there is signed by the agent's worker")
        make_folder(self.folder)
        with exclusive(self.folder / "lock"):
            if self._fleet_file.exists():
                return
            root = new_key()
            public = public_key_of(root)
            write_private(self._root_file, root)
            write_private(self._fleet_file, json.dumps({"fleet": fingerprint(public), "roots": [public]}))

    def _read_fleet(self) -> tuple[str, dict[str, str]]:
        try:
            known = json.loads(self._fleet_file.read_bytes())
            return known["fleet"], {fingerprint(public): public for public in known["roots"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeysUnusable(f"the fleet's keys in {self._fleet_file} cannot be read: {error}") from None

    # ── identities ───────────────────────────────────────────────────────────────────────────────────────────────

    def identity(self, kind: CallerKind | None = None) -> Identity:
        """With which this process signs: its node's, or that of the person at this machine.

        A folder that may not issue certificates and has none of this kind offers the one that it has.
        """
        kind = kind or (CallerKind.PERSON if caller().kind is CallerKind.PERSON else CallerKind.NODE)
        name = self.node if kind is CallerKind.NODE else OPERATOR
        found = self._known_identity(kind, name)
        if self.may_issue and (found is None or _is_ending(found.certificate)):
            found = self._renew(kind, name)
        if found is None:
            found = next(self.identities(), None)
        if found is None:
            raise KeysUnusable(
                f"{self.folder} has no key of {kind} {name}, and none of another either; "
                "'torch-tasks node join TOKEN' brings one from the fleet"
            )
        return found

    def identities(self) -> Iterator[Identity]:
        """All that lie in the folder."""
        for file in sorted(self.folder.glob("*-*.json")):
            if identity := self._read_identity(file):
                yield identity

    def keep(self, private: str, certificate_text: str) -> Identity:
        """Add an identity to the folder; it takes the place of one with the same name."""
        certificate = KeyCertificate.read(certificate_text, self.roots)
        if public_key_of(private) != certificate.key:
            raise BadSignature(f"the certificate of {certificate.owner} is one for another key")
        text = json.dumps({"key": private, "certificate": certificate_text})
        write_private(self._file_of(certificate.kind, certificate.name), text)
        return Identity(certificate, certificate_text, private)

    def issue(
        self,
        kind: CallerKind,
        name: str,
        public: str,
        *,
        role: str | None = None,
        lasts_seconds: float = LIFETIME_SECONDS,
    ) -> str:
        """A certificate of the fleet for this public key; :class:`KeysUnusable` if this folder has no root."""
        try:
            root = self._root_file.read_text()
        except OSError:
            raise KeysUnusable(
                f"{self.folder} does not have the private key of the fleet's root; ask on the machine that has it"
            ) from None
        now = int(time.time())
        return KeyCertificate(
            fleet=self.fleet,
            issuer=fingerprint(public_key_of(root)),
            serial=secrets.token_hex(8),
            kind=kind,
            name=name,
            role=role,
            key=public,
            valid_from=now,
            valid_until=now + int(lasts_seconds),
        ).signed_by(root)

    def _renew(self, kind: CallerKind, name: str) -> Identity:
        with exclusive(self.folder / "lock"):
            found = self._known_identity(kind, name)
            if found and not _is_ending(found.certificate):
                return found  # another process was quicker
            private = new_key()
            return self.keep(private, self.issue(kind, name, public_key_of(private)))

    def _known_identity(self, kind: CallerKind, name: str) -> Identity | None:
        """The identity in the folder, read again only when its file was written anew."""
        file = self._file_of(kind, name)
        try:
            written = file.stat().st_mtime_ns
        except OSError:
            return None
        known = self._identities.get(file)
        if known is None or known[0] != written:
            identity = self._read_identity(file)
            if identity is None:
                return None
            self._identities[file] = known = (written, identity)
        return known[1]

    def _read_identity(self, file: Path) -> Identity | None:
        try:
            kept = json.loads(file.read_bytes())
            text = kept["certificate"]
            return Identity(KeyCertificate.read(text, self.roots), text, kept["key"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeysUnusable(f"the key in {file} cannot be read: {error}") from None

    def _file_of(self, kind: CallerKind, name: str) -> Path:
        return self.folder / f"{kind}-{name}.json"

    # ── certificates of others ───────────────────────────────────────────────────────────────────────────────────

    def certificate(self, text: str) -> KeyCertificate:
        """The certificate in this text, if a root that is trusted here signed it; else :class:`BadSignature`."""
        certificate = self._certificate(text)
        assert isinstance(certificate, KeyCertificate)
        return certificate

    def revoke(self, serial: str) -> None:
        """Trust nothing more that this key signs, or ever signed."""
        with exclusive(self.folder / "lock"):
            write_private(self._revoked_file, json.dumps(sorted(self._read_revoked() | {serial})))
        self._looked_at = -_LOOK_SECONDS

    def is_revoked(self, certificate: KeyCertificate) -> bool:
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._revoked, self._looked_at = self._read_revoked(), time.monotonic()
        return certificate.serial in self._revoked

    def _read_revoked(self) -> frozenset[str]:
        with suppress(FileNotFoundError):
            try:
                return frozenset(json.loads(self._revoked_file.read_bytes()))
            except (ValueError, TypeError) as error:
                raise KeysUnusable(
                    f"the list of revoked keys in {self._revoked_file} cannot be read: {error}"
                ) from None
        return frozenset()


def keyring() -> Keyring:
    """The keys of this process, which it has from its settings."""
    return _keyring(settings().keys_folder, settings().node)


@lru_cache(maxsize=8)
def _keyring(folder: Path, node: str) -> Keyring:
    return Keyring(folder, node)


def _is_ending(certificate: KeyCertificate) -> bool:
    lasts = certificate.valid_until - certificate.valid_from
    return certificate.valid_until - time.time() < lasts * RENEWED_AT
