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
from typing import Self

from torch_tasks.caller import OPERATOR, Caller, CallerKind, caller, own_desk
from torch_tasks.errors import BadSignature, KeyNotFound, KeyRevoked, KeysUnusable
from torch_tasks.redaction import protect
from torch_tasks.settings import Settings, settings
from torch_tasks.signing.ed25519 import fingerprint, new_key, public_key_of
from torch_tasks.signing.fleet_keys import FleetKeys
from torch_tasks.signing.key_certificate import KeyCertificate
from torch_tasks.started_by_name import NOTE_KEY_CHANGE, load
from torch_tasks.system.files import exclusive, make_folder, write_private

LIFETIME_SECONDS = 30 * 86_400
"""How long a certificate is valid if no other end was given."""
RENEWED_AT = 1 / 3
"""A certificate is renewed when only this part of its time is left."""
FLEET_FILE = "fleet.keys"
"""In a folder of keys: what the fleet's root says of the fleet's keys."""
_REMEMBERED_SECONDS = 90 * 86_400
"""How long the root's folder remembers a certificate that has ended."""


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
        self._fleet_file = folder / FLEET_FILE
        self._root_file = folder / "root.key"
        self._issued_file = folder / "issued"
        self._root_place_file = folder / "root-place"
        self._lock = folder / "lock"
        self._identities: dict[Path, tuple[int, Identity]] = {}
        """Those that were read, each with the time when its file was written."""
        self._seen: tuple[int, ...] = ()
        if not self._fleet_file.exists():
            self._found()
        self._read_fleet_keys()

    @classmethod
    def of_fleet(cls, folder: Path, fleet_text: str, node: str, *, root_place: str) -> Self:
        """A new folder of keys of a fleet whose root is on the machine ``root_place``."""
        FleetKeys.read(fleet_text)
        make_folder(folder)
        write_private(folder / "root-place", root_place)
        write_private(folder / FLEET_FILE, fleet_text)
        return cls(folder, node)

    # ── the fleet ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def fleet(self) -> str:
        """The fleet's name."""
        return self._fleet_keys.fleet

    @property
    def fleet_keys(self) -> FleetKeys:
        """What is known here of the fleet's keys, as another process may have written it a moment ago."""
        self._read_fleet_keys()
        return self._fleet_keys

    @property
    def fleet_text(self) -> str:
        """The same as the fleet's root signed it."""
        self._read_fleet_keys()
        return self._fleet_text

    @property
    def may_issue(self) -> bool:
        """Whether this folder has the private key of the fleet's root."""
        return self._root_file.exists()

    def accept(self, text: str, where: str) -> bool:
        """Keep what the fleet's root says of its keys, if it is later than what is known here.

        False if it is earlier. :class:`OtherFleet` or :class:`BadSignature` if it is not this fleet's; ``where`` it
        was found is in their words.
        """
        if text == self.fleet_text:
            return True
        theirs = FleetKeys.read(text)
        with exclusive(self._lock):
            self._read_fleet_keys()
            self._fleet_keys.require_same_fleet(theirs, where)
            before = self._fleet_keys
            if not before.is_older_than(theirs):
                return text == self._fleet_text
            self._write_fleet_keys(text)
            note_key_change("keys.heard", theirs.news_since(before), by_itself=True)
        return True

    def revoke(self, name: str) -> list[KeyCertificate]:
        """Trust nothing more that these keys sign, or ever signed: one by its serial, all of a name, or of a root.

        Returns their certificates; :class:`KeyNotFound` if there are none.
        """
        with exclusive(self._lock):
            root, known = self._root_key(f"revoke {name}"), self.fleet_keys
            count = {one.serial: one for one in self.issued() if not self.is_revoked(one)}
            if name == known.latest.name:
                raise KeyNotFound(f"{name} is the fleet's latest root: 'torch-tasks keys rotate --root' first")
            if known.root(name):
                revoked = [one for one in count.values() if one.issuer == name]
                changed = known.with_revoked([name])
            else:
                named = [one for one in count.values() if one.name == name and one.valid_until > time.time()]
                revoked = [count[name]] if name in count else named
                changed = known.with_revoked(one.serial for one in revoked)
            if changed.revoked == known.revoked:
                raise KeyNotFound(
                    f"no certificate that counts has the serial or the name {name!r}; 'torch-tasks keys list' has all"
                )
            self._write_fleet_keys(changed.signed_by(root))
            note_key_change("keys.revoked", ", ".join(map(str, revoked)) or f"root {name}")
        return revoked

    def rotate_root(self) -> None:
        """Found a root that follows the latest one; both are trusted until that one's last certificate ends."""
        with exclusive(self._lock):
            former, root = self._root_key("rotate --root"), new_key()
            name = fingerprint(public_key_of(former))
            ends = [one.valid_until for one in self.issued() if one.issuer == name]
            changed = self.fleet_keys.with_root(former, public_key_of(root), max(ends, default=int(time.time())))
            write_private(self._root_file, f"{root}\n{former}\n")  # a process that is killed here leaves either of use
            self._write_fleet_keys(changed.signed_by(root))
            write_private(self._root_file, f"{root}\n")
            note_key_change("keys.root_followed", f"root {name} by {self._fleet_keys.latest.name}")

    def _found(self) -> None:
        if own_desk():
            raise KeysUnusable("an agent's pane has no keys: what is asked there is signed by the agent's worker")
        make_folder(self.folder)
        with exclusive(self._lock):
            if self._fleet_file.exists():
                return
            root = new_key()
            write_private(self._root_file, f"{root}\n")
            self._write_fleet_keys(FleetKeys.founded(public_key_of(root)).signed_by(root))
            note_key_change("keys.founded", f"fleet {self.fleet} in {self.folder}")

    def _root_key(self, command: str) -> str:
        """The private key of the latest root; :class:`KeysUnusable` says where the command is run that needs it."""
        with suppress(OSError):
            for private in self._root_file.read_text().split():
                if public_key_of(private) == self._fleet_keys.latest.key:
                    return private
        raise KeysUnusable(
            f"{self.folder} does not have the private key of the fleet's root; run 'torch-tasks keys {command}' on "
            f"{self.root_place}"
        )

    @property
    def root_place(self) -> str:
        """Where the fleet's root is, as far as this machine was told."""
        with suppress(OSError):
            return f"the machine that has it, {self._root_place_file.read_text()} when this one joined"
        return "the machine that has it"

    def _write_fleet_keys(self, text: str) -> None:
        write_private(self._fleet_file, text)
        self._read_fleet_keys()

    def _read_fleet_keys(self) -> None:
        """Read the file, if it was written since it was read last."""
        try:
            found = self._fleet_file.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                text = self._fleet_file.read_text()
                self._fleet_keys, self._fleet_text, self._seen = FleetKeys.read(text), text, seen
                self._certificate = lru_cache(maxsize=512)(self._read_certificate)
        except (OSError, BadSignature) as error:
            raise KeysUnusable(f"the fleet's keys in {self._fleet_file} cannot be read: {error}") from None

    # ── identities ───────────────────────────────────────────────────────────────────────────────────────────────

    def identity(self, kind: CallerKind | None = None) -> Identity:
        """With which this process signs: that of the person at this machine, if it asks, else its node's.

        A folder that may not issue certificates and has none of this kind offers the one that it has.
        :class:`KeyRevoked` or :class:`KeysUnusable` if that was revoked or has ended; the root's folder replaces it.
        """
        kind = kind or (CallerKind.PERSON if _is_at_this_machine(caller()) else CallerKind.NODE)
        name = self.node if kind is CallerKind.NODE else OPERATOR
        self._read_fleet_keys()
        found = self._known_identity(kind, name)
        if (found is None or self._is_to_be_renewed(found.certificate)) and self.may_issue:
            found = self._renew(kind, name)
        if found is None:
            found = next(self.identities(), None)
        if found is None:
            raise KeysUnusable(
                f"{self.folder} has no key of {kind} {name}, and none of another either; "
                "'torch-tasks node join TOKEN' brings one from the fleet"
            )
        self._require_valid(found.certificate)
        return found

    def _require_valid(self, own: KeyCertificate) -> None:
        which = f"the key of {own.owner} in {self.folder} (serial {own.serial})"
        remedy = "'torch-tasks node join TOKEN', or 'torch-tasks keys issue' on the root's machine, brings a new one"
        if self._is_revoked(own):
            raise KeyRevoked(f"{which} was revoked; {remedy}")
        if own.valid_until < time.time():
            raise KeysUnusable(f"{which} ended {own.ends_at:%Y-%m-%d %H:%M} UTC, and it was not renewed; {remedy}")

    def identities(self) -> Iterator[Identity]:
        """All that lie in the folder."""
        for file in sorted(self.folder.glob("*-*.json")):
            if identity := self._read_identity(file):
                yield identity

    def needs_renewal(self, certificate: KeyCertificate) -> bool:
        """Whether the certificate ends soon, was revoked, or is of a root that another one has followed."""
        self._read_fleet_keys()
        return self._is_to_be_renewed(certificate)

    def _is_to_be_renewed(self, certificate: KeyCertificate) -> bool:
        lasts = certificate.valid_until - certificate.valid_from
        is_ending = certificate.valid_until - time.time() < lasts * RENEWED_AT
        return is_ending or certificate.issuer != self._fleet_keys.latest.name or self._is_revoked(certificate)

    def rotate(self) -> list[Identity]:
        """Replace the folder's own keys, where its root is; what the former ones signed stays valid."""
        with exclusive(self._lock):
            self._root_key("rotate")
            mine = [one.certificate for one in self.identities()]
            return [self._renewed(one.kind, one.name, one.role) for one in mine]

    def keep(self, private: str, certificate_text: str, *, by_itself: bool = False) -> Identity:
        """Add an identity to the folder; it takes the place of one with the same name.

        The audit notes who did it: this machine ``by_itself``, or whoever asks.
        """
        certificate = KeyCertificate.read(certificate_text, self.fleet_keys)
        if public_key_of(private) != certificate.key:
            raise BadSignature(f"the certificate of {certificate.owner} is one for another key")
        text = json.dumps({"key": private, "certificate": certificate_text})
        write_private(self._file_of(certificate.kind, certificate.name), text)
        note_key_change("keys.kept", f"{certificate} in {self.folder}", by_itself=by_itself)
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
        with exclusive(self._lock):
            return self._issue(kind, name, public, role, lasts_seconds, for_others=True)

    def issued(self) -> list[KeyCertificate]:
        """The certificates that this folder's root issued, without those that ended long ago."""
        try:
            texts = self._issued_file.read_text().split()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeysUnusable(f"the list of certificates in {self._issued_file} cannot be read: {error}") from None
        return [KeyCertificate.read(text, self.fleet_keys) for text in texts]

    def _issue(
        self,
        kind: CallerKind,
        name: str,
        public: str,
        role: str | None,
        lasts_seconds: float,
        *,
        for_others: bool = False,
    ) -> str:
        root, now = self._root_key("issue"), int(time.time())
        latest = self._fleet_keys.latest
        certificate = KeyCertificate(
            fleet=self.fleet,
            issuer=latest.name,
            serial=secrets.token_hex(8),
            kind=kind,
            name=name,
            role=role,
            key=public,
            valid_from=now,
            valid_until=now + int(lasts_seconds),
            root=latest if latest.after else None,
        )
        if for_others:
            note_key_change("keys.issued", f"{certificate} until {certificate.ends_at:%Y-%m-%d %H:%M} UTC", must=True)
        text = certificate.signed_by(root)
        self._note_issued(text)
        return text

    def _note_issued(self, text: str) -> None:
        """Remember a certificate before anybody has it: what is not known here cannot be revoked by name."""
        kept: list[str] = []
        with suppress(FileNotFoundError):
            kept = self._issued_file.read_text().split()
        since = time.time() - _REMEMBERED_SECONDS
        kept = [one for one in kept if KeyCertificate.read(one, self._fleet_keys).valid_until > since]
        write_private(self._issued_file, "\n".join([*kept, text, ""]))

    def _renew(self, kind: CallerKind, name: str) -> Identity:
        with exclusive(self._lock):
            found = self._known_identity(kind, name)
            if found and not self.needs_renewal(found.certificate):
                return found  # another process was quicker
            return self._renewed(kind, name, found.certificate.role if found else None, by_itself=True)

    def _renewed(self, kind: CallerKind, name: str, role: str | None, *, by_itself: bool = False) -> Identity:
        private = new_key()
        certificate = self._issue(kind, name, public_key_of(private), role, LIFETIME_SECONDS)
        return self.keep(private, certificate, by_itself=by_itself)

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
            return Identity(KeyCertificate.read(text, self.fleet_keys), text, kept["key"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeysUnusable(f"the key in {file} cannot be read: {error}") from None

    def _file_of(self, kind: CallerKind, name: str) -> Path:
        return self.folder / f"{kind}-{name}.json"

    # ── certificates of others ───────────────────────────────────────────────────────────────────────────────────

    def certificate(self, text: str) -> KeyCertificate:
        """The certificate in this text, if a root that is trusted here signed it; else :class:`BadSignature`."""
        self._read_fleet_keys()
        certificate = self._certificate(text)
        assert isinstance(certificate, KeyCertificate)
        return certificate

    def is_revoked(self, certificate: KeyCertificate) -> bool:
        self._read_fleet_keys()
        return self._is_revoked(certificate)

    def _is_revoked(self, certificate: KeyCertificate) -> bool:
        revoked = self._fleet_keys.revoked
        return certificate.serial in revoked or certificate.issuer in revoked

    def _read_certificate(self, text: str) -> KeyCertificate:
        return KeyCertificate.read(text, self._fleet_keys)


def keyring(of: Settings | None = None) -> Keyring:
    """The keys of this process, which it has from its settings."""
    chosen = of or settings()
    return _keyring(chosen.keys_folder, chosen.node)


@lru_cache(maxsize=8)
def _keyring(folder: Path, node: str) -> Keyring:
    return Keyring(folder, node)


def note_key_change(what: str, on: str, *, by_itself: bool = False, must: bool = False) -> None:
    """Have the audit note it, which stands above this."""
    load(NOTE_KEY_CHANGE)(what, on, by_itself=by_itself, must=must)


def _is_at_this_machine(who: Caller) -> bool:
    """Whether it is the person whose key lies here, and not one with a token or a login: for these, the node speaks."""
    return (who.kind, who.name, who.role) == (CallerKind.PERSON, OPERATOR, None)
